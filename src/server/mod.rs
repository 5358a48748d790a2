//! Sockets in, requests up: listeners, TLS, connection settings, drain.
//!
//! One thread and one single-threaded runtime per core, each with a listener
//! of its own on the same address (`SO_REUSEPORT`) and connections of its own
//! to the providers; what a request needs never crosses cores. This folder
//! knows no route: it hands every request to [`crate::routes::dispatch`].

mod connection;
mod io;
mod listen;
pub mod tls;

use std::io as std_io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::app::{App, Core};
use connection::Edge;
pub use listen::Inherited;
use listen::Listeners;

/// How often idle connections to providers are looked through.
const SWEEP: Duration = Duration::from_secs(5);

/// What a running server is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Accepting and serving.
    Serve,
    /// No longer accepting; connections end with their next answer.
    Leave,
    /// No longer accepting; what was begun goes on.
    Drain,
}

/// How long connections that wait for their client are left open while another
/// process takes over.
const GRACE: Duration = Duration::from_secs(5);

/// The sockets that a server listens on, to be handed to another process.
#[derive(Debug, Default)]
pub struct Sockets {
    tcp: Vec<OwnedFd>,
    unix: Option<OwnedFd>,
}

impl Sockets {
    fn of(listeners: &Listeners) -> std_io::Result<Self> {
        let all = listeners.tcp.iter().flatten();
        let tcp = all.map(|listener| Ok(listener.try_clone()?.into()));
        let unix = listeners.unix.as_ref();
        Ok(Self {
            tcp: tcp.collect::<std_io::Result<_>>()?,
            unix: unix
                .map(|unix| unix.try_clone().map(OwnedFd::from))
                .transpose()?,
        })
    }

    /// The same sockets once more.
    ///
    /// # Errors
    ///
    /// There are too many open files.
    pub fn again(&self) -> std_io::Result<Self> {
        Ok(Self {
            tcp: self
                .tcp
                .iter()
                .map(OwnedFd::try_clone)
                .collect::<std_io::Result<_>>()?,
            unix: self.unix.as_ref().map(OwnedFd::try_clone).transpose()?,
        })
    }

    /// All of them again: TCP first.
    ///
    /// # Errors
    ///
    /// There are too many open files.
    pub fn copies(&self) -> std_io::Result<Vec<OwnedFd>> {
        self.tcp
            .iter()
            .chain(&self.unix)
            .map(OwnedFd::try_clone)
            .collect()
    }
}

/// A running server: its threads and its off switch.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    phase: watch::Sender<Phase>,
    end: watch::Sender<bool>,
    threads: Vec<JoinHandle<()>>,
    sockets: Sockets,
    certificate: Option<Arc<tls::Certificate>>,
}

impl Server {
    /// Binds and starts to serve with `cores` threads.
    ///
    /// # Errors
    ///
    /// When the address is taken or the certificate can't be used; the message
    /// names it.
    pub fn start(app: &Arc<App>, cores: usize) -> std_io::Result<Self> {
        Self::inheriting(app, cores, Inherited::default())
    }

    /// As [`Server::start`], with sockets that listen already.
    ///
    /// # Errors
    ///
    /// As [`Server::start`].
    pub fn inheriting(app: &Arc<App>, cores: usize, inherited: Inherited) -> std_io::Result<Self> {
        let settings = app.live.load().server.clone();
        let (tls, certificate) = match &settings.tls {
            Some(files) => {
                let (acceptor, certificate) = tls::acceptor(files, settings.http2)?;
                (Some(acceptor), Some(certificate))
            }
            None => (None, None),
        };
        let mut listeners = Listeners::new(&settings, cores, inherited)?;
        let sockets = Sockets::of(&listeners)?;
        let address = listeners.address;
        let (phase, _) = watch::channel(Phase::Serve);
        let (end, _) = watch::channel(false);
        let edge = Arc::new(Edge::new(&settings, tls));
        let mut threads = Vec::with_capacity(cores);
        for (index, tcp) in std::mem::take(&mut listeners.tcp).into_iter().enumerate() {
            let worker = Worker {
                core: Core::new(Arc::clone(app), index),
                edge: Arc::clone(&edge),
                phase: phase.subscribe(),
                end: end.subscribe(),
            };
            let unix = if index == 0 {
                listeners.unix.take()
            } else {
                None
            };
            let builder = std::thread::Builder::new().name(format!("serve-{index}"));
            threads.push(builder.spawn(move || worker.run(tcp, unix))?);
        }
        Ok(Self {
            address,
            phase,
            end,
            threads,
            sockets,
            certificate,
        })
    }

    /// The address that was bound; tells the port when 0 was asked for.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The certificate that is served, to be reloaded when its files change.
    #[must_use]
    pub fn certificate(&self) -> Option<&Arc<tls::Certificate>> {
        self.certificate.as_ref()
    }

    /// The sockets, to be handed on.
    #[must_use]
    pub const fn sockets(&self) -> &Sockets {
        &self.sockets
    }

    /// As [`Server::drain`], for when another process accepts at the same
    /// sockets: connections end with their next answer, so that no request meets
    /// a closed one. Those that ask nothing more are left open for a while.
    #[must_use]
    pub fn leave(self, deadline: Duration) -> bool {
        self.phase.send_replace(Phase::Leave);
        let until = Instant::now() + GRACE.min(deadline);
        while self.is_running() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.drain(deadline.saturating_sub(GRACE))
    }

    fn is_running(&self) -> bool {
        self.threads.iter().any(|thread| !thread.is_finished())
    }

    /// Stops accepting, lets what was begun go on for at most `deadline`, then
    /// ends the rest. Blocks until every thread is gone. True when nothing had
    /// to be cut.
    #[must_use]
    pub fn drain(self, deadline: Duration) -> bool {
        self.phase.send_replace(Phase::Drain);
        let until = Instant::now() + deadline;
        while self.is_running() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
        let clean = !self.is_running();
        self.end.send_replace(true);
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a serving thread panicked");
            }
        }
        clean
    }
}

/// One core's thread.
struct Worker {
    core: Arc<Core>,
    edge: Arc<Edge>,
    phase: watch::Receiver<Phase>,
    end: watch::Receiver<bool>,
}

impl Worker {
    fn run(self, tcp: Vec<std::net::TcpListener>, unix: Option<std::os::unix::net::UnixListener>) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(16)
            .thread_keep_alive(Duration::from_secs(10))
            .build();
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => {
                tracing::error!(%error, "no runtime for a serving thread");
                return;
            }
        };
        if let Err(error) = runtime.block_on(self.serve(tcp, unix)) {
            tracing::error!(%error, "a serving thread stopped");
        }
        // Blocking work (a store read, say) must not hold up a stop.
        runtime.shutdown_timeout(Duration::from_secs(1));
    }

    async fn serve(
        mut self,
        tcp: Vec<std::net::TcpListener>,
        unix: Option<std::os::unix::net::UnixListener>,
    ) -> std_io::Result<()> {
        let tracker = connection::Tracker::default();
        let tcp = tcp.into_iter().map(tokio::net::TcpListener::from_std);
        let tcp = tcp.collect::<std_io::Result<_>>()?;
        let unix = unix.map(tokio::net::UnixListener::from_std).transpose()?;
        let mut phase = self.phase.clone();
        let sweep = sweep(Arc::clone(&self.core));
        tokio::select! {
            () = listen::accept_tcp(tcp, &self.core, &self.edge, &tracker) => {}
            () = accept_unix(unix, &self.core, &self.edge, &tracker) => {}
            () = sweep => {}
            _ = phase.wait_for(|phase| *phase != Phase::Serve) => {}
        }
        if *phase.borrow() == Phase::Leave {
            tracker.leave();
            tokio::select! {
                () = tracker.emptied() => return Ok(()),
                _ = phase.wait_for(|phase| *phase == Phase::Drain) => {}
            }
        }
        tracker.drain();
        self.core.drain();
        tokio::select! {
            () = tracker.emptied() => {}
            _ = self.end.wait_for(|end| *end) => {}
        }
        Ok(())
    }
}

async fn accept_unix(
    unix: Option<tokio::net::UnixListener>,
    core: &Arc<Core>,
    edge: &Arc<Edge>,
    tracker: &connection::Tracker,
) {
    match unix {
        Some(unix) => listen::accept_unix(unix, core, edge, tracker).await,
        None => std::future::pending().await,
    }
}

async fn sweep(core: Arc<Core>) {
    let mut ticks = tokio::time::interval(SWEEP);
    loop {
        ticks.tick().await;
        core.client.sweep(Instant::now());
    }
}
