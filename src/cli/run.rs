//! `plexus serve`: from a configuration to an exit code.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Failed, environment};
use crate::app::App;
use crate::config::Config;
use crate::config::describe;
use crate::config::live::{Live, Reload};
use crate::metrics::Metrics;
use crate::server::Server;
use crate::server::tls::Certificate;
use crate::store::{self, Store};
use crate::telemetry;

/// How often the configuration's and the certificate's files are looked at.
const WATCH: Duration = Duration::from_secs(2);
/// Time for the last rows to be written at a stop.
const FLUSH: Duration = Duration::from_secs(10);

/// Serves until told to stop.
pub(super) fn serve(file: Option<PathBuf>, threads: Option<usize>) -> Result<(), Failed> {
    let live = Live::open(file, Box::new(environment))?;
    let config = live.load();
    let gateway = Gateway::start(live, threads)?;
    tracing::info!(
        address = %gateway.server.address(),
        providers = config.providers.len(),
        models = config.aliases.len(),
        keys = config.keys.len(),
        "serving"
    );
    gateway.run()
}

/// A running gateway.
pub(super) struct Gateway {
    pub(super) app: Arc<App>,
    pub(super) server: Server,
}

impl Gateway {
    /// Opens the database and the sockets.
    pub(super) fn start(live: Live, threads: Option<usize>) -> Result<Self, Failed> {
        let config = live.load();
        let telemetry = telemetry::init(
            &config.logging.level,
            &config.logging.modules,
            config.logging.json,
        )?;
        note(&config);
        let metrics = Arc::new(Metrics::new());
        let options = store::Options {
            usage_days: config.store.usage_days,
            error_days: config.store.error_days,
            debug_days: config.store.debug_days,
            debug_mb: config.store.debug_mb,
            metrics: Arc::clone(&metrics),
            ..store::Options::default()
        };
        let store = Store::open(&config.store.path, options)?;
        let app = App::new(live, store, metrics, telemetry, Vec::new());
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let server = Server::start(&app, threads.unwrap_or(cores).max(1))?;
        Ok(Self { app, server })
    }

    /// Watches files and signals until a stop is asked for, then stops.
    pub(super) fn run(self) -> Result<(), Failed> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(self.watch())?;
        let drain = self.app.live.load().server.drain;
        tracing::info!(seconds = drain.as_secs(), "draining");
        // A second signal ends the wait, and the process with it.
        runtime.spawn(async {
            if stop_asked().await.is_ok() {
                std::process::exit(1);
            }
        });
        let clean = runtime.block_on(async {
            let server = self.server;
            tokio::task::spawn_blocking(move || server.drain(drain)).await
        })?;
        if !clean {
            tracing::warn!("requests were cut off at the end of the drain time");
        }
        self.app.store.close(FLUSH)?;
        tracing::info!("stopped");
        if !self.app.telemetry.flush(Duration::from_secs(1)) {
            super::say_error("plexus: the last log lines could not be written\n");
        }
        Ok(())
    }

    async fn watch(&self) -> Result<(), Failed> {
        let mut hangup = signal(SignalKind::hangup())?;
        let mut ticks = tokio::time::interval(WATCH);
        let mut certificate = Watched::new(self.server.certificate());
        let stop = stop_asked();
        let mut stop = std::pin::pin!(stop);
        loop {
            tokio::select! {
                stopped = &mut stop => return stopped,
                _ = ticks.tick() => {
                    if let Some(outcome) = self.app.live.poll() {
                        report(outcome);
                    }
                    certificate.poll();
                }
                _ = hangup.recv() => {
                    report(self.app.live.reload());
                    certificate.reload();
                }
            }
        }
    }
}

async fn stop_asked() -> Result<(), Failed> {
    let mut terminate: Signal = signal(SignalKind::terminate())?;
    let mut interrupt: Signal = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// One line for each thing that the file asks for and that does not work yet.
fn note(config: &Config) {
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
}

fn report(outcome: Result<Reload, Vec<crate::config::Fault>>) {
    match outcome {
        Ok(Reload::Unchanged) => tracing::info!("the configuration file has not changed"),
        Ok(Reload::Changed(config)) => {
            tracing::info!(revision = config.revision, "the configuration was taken up");
            note(&config);
        }
        Err(faults) => tracing::error!(
            "the configuration file is refused, the one in force goes on: {}",
            describe(&faults, "plexus.yaml").trim_end()
        ),
    }
}

/// The served certificate and when its files were last seen to change.
struct Watched<'a> {
    certificate: Option<&'a Arc<Certificate>>,
    seen: Vec<Option<SystemTime>>,
}

impl<'a> Watched<'a> {
    fn new(certificate: Option<&'a Arc<Certificate>>) -> Self {
        let mut watched = Self {
            certificate,
            seen: Vec::new(),
        };
        watched.seen = watched.stamps();
        watched
    }

    fn stamps(&self) -> Vec<Option<SystemTime>> {
        let Some(certificate) = self.certificate else {
            return Vec::new();
        };
        let files = certificate.files();
        [&files.cert, &files.key]
            .map(|path| {
                std::fs::metadata(path)
                    .and_then(|meta| meta.modified())
                    .ok()
            })
            .to_vec()
    }

    fn poll(&mut self) {
        let stamps = self.stamps();
        if stamps != self.seen {
            self.seen = stamps;
            self.reload();
        }
    }

    fn reload(&self) {
        let Some(certificate) = self.certificate else {
            return;
        };
        match certificate.reload() {
            Ok(()) => tracing::info!("the certificate was read again"),
            Err(error) => {
                tracing::error!(%error, "the certificate is refused, the one in force goes on")
            }
        }
    }
}
