//! `plexus serve`: from a configuration to an exit code.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::io::AsyncReadExt;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::handover::{self, Bridge, Program, Role};
use super::{Failed, environment};
use crate::app::App;
use crate::catalogue::Source;
use crate::config::Config;
use crate::config::describe;
use crate::config::live::{Live, Reload};
use crate::metrics::Metrics;
use crate::server::tls::Certificate;
use crate::server::{Inherited, Server};
use crate::store::{self, Store};
use crate::telemetry;

/// How often the configuration's and the certificate's files are looked at.
const WATCH: Duration = Duration::from_secs(2);
/// Time for the last rows to be written at a stop.
const FLUSH: Duration = Duration::from_secs(10);

/// Serves until told to stop.
pub(super) fn serve(file: Option<PathBuf>, threads: Option<usize>) -> Result<(), Failed> {
    let program = Program::current()?;
    let (inherited, mut role) = handover::inherit()?;
    let live = Live::open(file, Box::new(environment))?;
    let config = live.load();
    let gateway = Gateway::inheriting(live, threads, inherited)?;
    handover::report(&mut role)?;
    tracing::info!(
        address = %gateway.server.address(),
        providers = config.providers.len(),
        models = config.aliases.len(),
        keys = config.keys.len(),
        "serving"
    );
    gateway.run(Some(program), role)
}

/// A running gateway.
pub(super) struct Gateway {
    pub(super) app: Arc<App>,
    pub(super) server: Server,
    runtime: Runtime,
    signals: Signals,
}

/// What this process may be told. Listened for before it serves: a signal that
/// nobody listens for ends a process.
struct Signals {
    hangup: Signal,
    again: Signal,
    stop: Stop,
}

struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            again: signal(SignalKind::user_defined2())?,
            stop: Stop {
                terminate: signal(SignalKind::terminate())?,
                interrupt: signal(SignalKind::interrupt())?,
            },
        })
    }
}

impl Stop {
    async fn asked(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Why a gateway ends.
enum End {
    /// It was told to stop.
    Stopped,
    /// Another process accepts at the same sockets.
    Relieved,
    /// The same, and this process is to become the new program.
    Succeeded(Bridge),
}

impl Gateway {
    /// Opens the database and the sockets.
    pub(super) fn start(live: Live, threads: Option<usize>) -> Result<Self, Failed> {
        Self::inheriting(live, threads, Inherited::default())
    }

    fn inheriting(
        live: Live,
        threads: Option<usize>,
        inherited: Inherited,
    ) -> Result<Self, Failed> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let signals = {
            let _within = runtime.enter();
            Signals::listen()?
        };
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
            database_mb: config.store.database_mb,
            metrics: Arc::clone(&metrics),
            vault: Arc::clone(live.vault()),
            ..store::Options::default()
        };
        let store = Store::open(&config.store.path, options)?;
        finish_restore(&live, &store)?;
        let app = App::new(live, store, metrics, telemetry, Vec::new());
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let server = Server::inheriting(&app, threads.unwrap_or(cores).max(1), inherited)?;
        Ok(Self {
            app,
            server,
            runtime,
            signals,
        })
    }

    /// Watches files and signals until it is time to end, then ends. Without a
    /// program it can't be restarted.
    pub(super) fn run(mut self, program: Option<Program>, role: Role) -> Result<(), Failed> {
        let control = match role {
            Role::Bridge(control) => Some(control),
            _ => None,
        };
        // The bridge is not what goes on.
        let program = program.filter(|_| control.is_none());
        self.app.restart.set_possible(program.is_some());
        let watcher = Watcher {
            app: &self.app,
            server: &self.server,
            program: program.as_ref(),
        };
        let keeping = self.runtime.spawn(keep_catalogues(Arc::clone(&self.app)));
        let end = self
            .runtime
            .block_on(watcher.watch(&mut self.signals, control));
        keeping.abort();
        let end = end?;
        let drain = self.app.live.load().server.drain;
        tracing::info!(seconds = drain.as_secs(), "draining");
        // A second signal ends the wait, and the process with it.
        let mut stop = self.signals.stop;
        self.runtime.spawn(async move {
            stop.asked().await;
            std::process::exit(1);
        });
        let sockets = self.server.sockets().again()?;
        let server = self.server;
        let gently = !matches!(end, End::Stopped);
        let clean = self.runtime.block_on(async {
            tokio::task::spawn_blocking(move || match gently {
                true => server.leave(drain),
                false => server.drain(drain),
            })
            .await
        })?;
        if !clean {
            tracing::warn!("requests were cut off at the end of the drain time");
        }
        self.app.store.close(FLUSH)?;
        tracing::info!("stopped");
        if !self.app.telemetry.flush(Duration::from_secs(1)) {
            super::say_error("plexus: the last log lines could not be written\n");
        }
        match (end, program) {
            (End::Succeeded(bridge), Some(program)) => {
                Err(program.succeed(&sockets, bridge).into())
            }
            _ => Ok(()),
        }
    }
}

/// Recalls the catalogues that are needed and fetches them again and again.
async fn keep_catalogues(app: Arc<App>) {
    let mut fetched: [Option<Instant>; Source::ALL.len()] = Default::default();
    loop {
        let config = app.live.load();
        let (needed, settings) = (app.catalogues.needed(&config), &config.catalogue);
        let (recalling, recalled) = (Arc::clone(&app), needed.clone());
        drop(tokio::task::spawn_blocking(move || recalling.recall_catalogues(&recalled)).await);
        let is_due = |source: &Source| {
            let last = fetched.get(*source as usize).copied().flatten();
            last.is_none_or(|last| last.elapsed() >= settings.refresh)
        };
        let due = needed.into_iter().filter(is_due);
        let due: Vec<Source> = due.filter(|_| settings.enabled).collect();
        for source in &due {
            if let Some(last) = fetched.get_mut(*source as usize) {
                *last = Some(Instant::now());
            }
        }
        for (source, outcome) in app.refresh_catalogues(&due).await {
            let source = source.name();
            match outcome {
                Ok(models) => tracing::debug!(source, models, "a catalogue was read"),
                Err(error) => tracing::info!(source, %error, "a catalogue can't be had"),
            }
        }
        // What is needed anew, or the time that the eldest is due at the latest.
        let _due = tokio::time::timeout(settings.refresh, app.catalogues.stirred()).await;
    }
}

/// What goes on while the gateway serves.
struct Watcher<'a> {
    app: &'a App,
    server: &'a Server,
    program: Option<&'a Program>,
}

impl Watcher<'_> {
    async fn watch(
        &self,
        signals: &mut Signals,
        control: Option<UnixStream>,
    ) -> Result<End, Failed> {
        let mut ticks = tokio::time::interval(WATCH);
        let mut certificate = Watched::new(self.server.certificate());
        let Signals {
            hangup,
            again,
            stop,
        } = signals;
        let mut relieved = std::pin::pin!(relieved(control));
        loop {
            tokio::select! {
                () = stop.asked() => return Ok(End::Stopped),
                closed = &mut relieved => return closed.map(|()| End::Relieved),
                () = self.app.restart.asked() => {
                    if let Some(bridge) = self.bridge().await {
                        return Ok(End::Succeeded(bridge));
                    }
                }
                _ = again.recv() => {
                    if !self.app.restart.ask() {
                        tracing::warn!("this process can't restart itself, or is doing so already");
                    }
                }
                _ = ticks.tick() => {
                    if let Some(outcome) = self.app.live.poll() {
                        report(outcome);
                        self.app.catalogues.look_again();
                    }
                    certificate.poll();
                }
                _ = hangup.recv() => {
                    report(self.app.live.reload());
                    self.app.catalogues.look_again();
                    certificate.reload();
                }
            }
        }
    }

    /// Another process at the same sockets; `None` when it doesn't come about,
    /// and this one goes on.
    async fn bridge(&self) -> Option<Bridge> {
        let program = self.program?.clone();
        let sockets = self.server.sockets().again();
        tracing::info!("restarting");
        let begun = tokio::task::spawn_blocking(move || program.bridge(&sockets?)).await;
        match begun.unwrap_or_else(|error| Err(error.into())) {
            Ok(bridge) => Some(bridge),
            Err(error) => {
                tracing::error!(%error, "the restart failed, this process goes on");
                self.app.restart.set_possible(true);
                None
            }
        }
    }
}

/// Waits until the process that this one stands in for has its successor.
async fn relieved(control: Option<UnixStream>) -> Result<(), Failed> {
    let Some(control) = control else {
        return std::future::pending().await;
    };
    control.set_nonblocking(true)?;
    let mut control = tokio::net::UnixStream::from_std(control)?;
    // Nothing is ever written to it; it is closed, in order or not.
    drop(control.read(&mut [0]).await);
    Ok(())
}

/// A restore replaced the database, and was stopped before it replaced the file
/// that belongs to it.
fn finish_restore(live: &Live, store: &Store) -> Result<(), Failed> {
    let Some(pending) = store.pending_config()? else {
        return Ok(());
    };
    if live.text() == pending.before {
        live.replace(&pending.text)?;
        tracing::warn!("a restore was finished that had been stopped in the middle");
    }
    Ok(store.config_arrived()?)
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
