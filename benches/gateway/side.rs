//! How the provider, the floor and the gateway are started.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Failure;
use crate::floor;
use crate::process::{Process, free_port};
use crate::scenario::{KEY, SCENARIOS, SLOW};

/// Where processes of one run are started from.
#[derive(Debug)]
pub(crate) struct Workshop {
    folder: tempfile::TempDir,
    plexus: PathBuf,
    bench: PathBuf,
}

impl Workshop {
    /// A workshop with an empty folder. `PLEXUS_BENCH_BINARY` names another
    /// gateway than the one built with the bench.
    pub(crate) fn new() -> Result<Self, Failure> {
        let plexus = std::env::var_os("PLEXUS_BENCH_BINARY").map_or_else(
            || PathBuf::from(env!("CARGO_BIN_EXE_plexus")),
            PathBuf::from,
        );
        Ok(Self {
            folder: tempfile::tempdir()?,
            plexus,
            bench: std::env::current_exe()?,
        })
    }

    /// The simulated provider; it keeps nothing of what it receives.
    pub(crate) fn provider(&self) -> Result<Process, Failure> {
        let port = free_port()?;
        let mut command = self.gateway();
        command
            .args(["simulate", "--no-record", "--port"])
            .arg(port.to_string());
        Process::start("provider", command, port, self.folder.path())
    }

    /// The bare proxy before a provider.
    pub(crate) fn floor(&self, provider: &Process) -> Result<Process, Failure> {
        let port = free_port()?;
        let mut command = Command::new(&self.bench);
        command
            .arg(floor::ARGUMENT)
            .arg(port.to_string())
            .arg(provider.address.to_string());
        Process::start("floor", command, port, self.folder.path())
    }

    /// A home for a gateway before a provider: configuration, and a database
    /// to come.
    pub(crate) fn home(&self, provider: &Process) -> Result<Home, Failure> {
        let port = free_port()?;
        let folder = tempfile::tempdir_in(self.folder.path())?;
        let file = folder.path().join("plexus.yaml");
        fs::write(file, configuration(port, provider)?)?;
        Ok(Home { folder, port })
    }

    /// The gateway, as it is served, from its home.
    pub(crate) fn plexus(&self, home: &Home) -> Result<Process, Failure> {
        let mut command = self.gateway();
        command.args(["serve", "--config"]).arg("plexus.yaml");
        command.current_dir(home.folder.path());
        Process::start("plexus", command, home.port, home.folder.path())
    }

    /// Whoever runs the bench may have variables set that the gateway reads.
    fn gateway(&self) -> Command {
        let mut command = Command::new(&self.plexus);
        command.env_clear();
        command
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// Where a gateway lives; gone when dropped, and to be kept until then.
#[derive(Debug)]
pub(crate) struct Home {
    folder: tempfile::TempDir,
    port: u16,
}

/// What the simulated provider is spoken to in, and the beginning of its paths.
const SPOKEN: [(&str, &str); 4] = [
    ("chat", "/v1"),
    ("responses", "/v1"),
    ("messages", "/v1"),
    ("gemini", ""),
];

fn configuration(port: u16, provider: &Process) -> Result<String, Failure> {
    let mut text = format!(
        "adminKey: admin-bench-0123456789abcdef
server: {{ host: 127.0.0.1, port: {port} }}
store: {{ url: \"sqlite://plexus.db\" }}
catalogue: {{ enabled: false }}
keys:
  bench: {{ secret: {KEY} }}
providers:
"
    );
    for (spoken, version) in SPOKEN {
        let address = provider.address;
        writeln!(
            text,
            "  {spoken}: {{ api_base_url: {{ {spoken}: \"http://{address}{version}\" }}, \
             api_key: sk-provider-0123456789abcdef }}",
        )?;
    }
    text.push_str("models:\n");
    for scenario in SCENARIOS.iter().chain([&SLOW]) {
        writeln!(
            text,
            "  {}: {{ targets: [ {{ provider: {}, model: \"{}\" }} ] }}",
            scenario.alias(),
            scenario.spoken,
            scenario.model()
        )?;
    }
    Ok(text)
}
