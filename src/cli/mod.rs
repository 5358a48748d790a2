//! The command line: `serve`, `check`, `prices`, `backup`, `import`, `encrypt`,
//! `rekey`, `demo`, `replay`, `simulate`.

mod backup;
mod check;
mod demo;
mod handover;
mod keys;
mod prices;
mod replay;
mod run;
mod simulate;

use std::fmt;
use std::io::Write;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A self-hosted gateway for language models.
///
/// Without a command it serves the file that CONFIG_FILE names, else
/// ./plexus.yaml. A missing file is created; everything can then be set through
/// the management API, with the key in ADMIN_KEY.
#[derive(Debug, Parser)]
#[command(name = "plexus", version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve a configuration
    Serve(Serve),
    /// Check a configuration file: every fault with line, column and path
    Check {
        /// The file
        file: PathBuf,
    },
    /// Write a backup: configuration and secrets as JSON, or an archive of all
    /// there is
    Backup {
        /// Configuration file [default: $CONFIG_FILE, else plexus.yaml]
        #[arg(long, short)]
        config: Option<PathBuf>,
        /// Usage, errors and all other tables, too
        #[arg(long)]
        full: bool,
        /// File to write, `-` for standard output [default: a new one here]
        #[arg(long, short)]
        output: Option<PathBuf>,
    },
    /// Put a backup, of this program or of the one it succeeds, in place of
    /// configuration and database; the gateway must be stopped
    Import {
        /// The backup: JSON, or an archive
        file: PathBuf,
        /// Configuration file [default: $CONFIG_FILE, else plexus.yaml]
        #[arg(long, short)]
        config: Option<PathBuf>,
    },
    /// Encrypt the secrets that stand in clear in a configuration file, with
    /// the key in ENCRYPTION_KEY
    Encrypt {
        /// The file
        file: PathBuf,
    },
    /// Change the key of file and database together, from ENCRYPTION_KEY to
    /// ENCRYPTION_KEY_NEW; the gateway must be stopped
    Rekey {
        /// Configuration file [default: $CONFIG_FILE, else plexus.yaml]
        #[arg(long, short)]
        config: Option<PathBuf>,
    },
    /// Write prices from a public list into a configuration file; comments and
    /// order stay, and a gateway that runs takes them up
    Prices(prices::Prices),
    /// Serve a simulated provider: no account, no key, no network, nothing to
    /// configure
    Demo {
        /// Address to listen on
        #[arg(long, default_value = "127.0.0.1")]
        host: IpAddr,
        /// Port to listen on
        #[arg(long, default_value_t = 4000)]
        port: u16,
    },
    /// Run a captured request again, on a running gateway, and show what is
    /// different
    Replay(replay::Replay),
    /// Run the simulated provider alone; it speaks every protocol, and
    /// misbehaves when a model's name asks it to
    #[command(after_help = simulate::help())]
    Simulate(Simulate),
}

/// `plexus serve`
#[derive(Debug, Default, clap::Args)]
struct Serve {
    /// Configuration file [default: $CONFIG_FILE, else plexus.yaml]
    #[arg(long, short)]
    config: Option<PathBuf>,
    /// Serving threads [default: one per core]
    #[arg(long)]
    threads: Option<usize>,
}

/// `plexus simulate`
#[derive(Debug, clap::Args)]
struct Simulate {
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1")]
    host: IpAddr,
    /// Port to listen on; 0 takes a free one
    #[arg(long, default_value_t = 4010)]
    port: u16,
    /// Do not keep what was received; for load tests
    #[arg(long)]
    no_record: bool,
}

/// Why a command failed, for people.
#[derive(Debug)]
struct Failed(String);

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<E: std::error::Error> From<E> for Failed {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // With one provider compiled in this is the only one; an error says that
    // it is installed already.
    if rustls::crypto::ring::default_provider()
        .install_default()
        .is_err()
    {
        tracing::debug!("a TLS provider was installed before");
    }
    let done = match arguments
        .command
        .unwrap_or_else(|| Command::Serve(Serve::default()))
    {
        Command::Serve(serve) => run::serve(serve.config, serve.threads),
        Command::Check { file } => check::check(&file),
        Command::Backup {
            config,
            full,
            output,
        } => backup::backup(config, full, output),
        Command::Import { file, config } => backup::import(&file, config),
        Command::Encrypt { file } => keys::encrypt(&file),
        Command::Rekey { config } => keys::rekey(config),
        Command::Prices(options) => prices::prices(&options),
        Command::Demo { host, port } => demo::demo(host, port),
        Command::Replay(options) => replay::replay(&options),
        Command::Simulate(options) => {
            simulate::simulate(options.host, options.port, !options.no_record)
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => {
            say_error(&format!("plexus: {failed}\n"));
            ExitCode::FAILURE
        }
    }
}

/// To standard output; a reader that went away is no reason to fail.
fn say(text: &str) {
    drop(std::io::stdout().write_all(text.as_bytes()));
    drop(std::io::stdout().flush());
}

fn say_error(text: &str) {
    drop(std::io::stderr().write_all(text.as_bytes()));
}

/// The configuration file that a command works on.
fn config_path(named: Option<PathBuf>) -> PathBuf {
    named.unwrap_or_else(|| crate::config::live::default_path(&environment))
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
