//! Binding and accepting. The accept loops survive running out of
//! descriptors without spinning.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use super::connection::{self, Edge, Tracker};
use super::io::Stream;
use crate::app::Core;
use crate::config::ServerSettings;

/// Connections that the system may hold for us before they are accepted.
const BACKLOG: i32 = 4096;
/// Pause after a failed accept, which is nearly always "too many open files".
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Sockets that listen already, got from whoever started this process.
#[derive(Debug, Default)]
pub struct Inherited {
    /// TCP sockets.
    pub tcp: Vec<std::net::TcpListener>,
    /// A Unix socket.
    pub unix: Option<std::os::unix::net::UnixListener>,
    /// Whether they are ours from before, so that the configuration's addresses
    /// win; the service manager's sockets win over it.
    pub own: bool,
}

/// Bound sockets: some per core, and the optional Unix one.
#[derive(Debug)]
pub(super) struct Listeners {
    pub(super) address: SocketAddr,
    pub(super) tcp: Vec<Vec<std::net::TcpListener>>,
    pub(super) unix: Option<std::os::unix::net::UnixListener>,
}

impl Listeners {
    /// Takes the inherited sockets, spread over the cores; without any for the
    /// configured address, binds that.
    pub(super) fn new(
        settings: &ServerSettings,
        cores: usize,
        mut inherited: Inherited,
    ) -> io::Result<Self> {
        let wanted = SocketAddr::new(settings.host, settings.port);
        if inherited.own {
            let same = |found: SocketAddr| {
                found.ip() == wanted.ip() && (wanted.port() == 0 || found.port() == wanted.port())
            };
            let fits = |listener: &std::net::TcpListener| listener.local_addr().is_ok_and(same);
            inherited.tcp.retain(fits);
            let path = settings.unix_socket.as_deref();
            let unix = inherited.unix.take();
            inherited.unix = unix.filter(|unix| {
                let bound = unix.local_addr();
                path.is_some() && bound.is_ok_and(|bound| bound.as_pathname() == path)
            });
        }
        let unix = match (inherited.unix, &settings.unix_socket) {
            (Some(unix), _) => {
                unix.set_nonblocking(true)?;
                Some(unix)
            }
            (None, path) => path.as_deref().map(bind_unix).transpose()?,
        };
        let (address, tcp) = match inherited.tcp.is_empty() {
            true => bind(wanted, cores)?,
            false => spread(inherited.tcp, cores)?,
        };
        Ok(Self { address, tcp, unix })
    }
}

/// Sockets for each core.
type PerCore = Vec<Vec<std::net::TcpListener>>;

/// Gives every socket to a core, and every core a socket.
fn spread(
    inherited: Vec<std::net::TcpListener>,
    cores: usize,
) -> io::Result<(SocketAddr, PerCore)> {
    let first = inherited.first().ok_or(io::ErrorKind::InvalidInput)?;
    let address = first.local_addr()?;
    let shared = socket2::SockRef::from(first).reuse_port()?;
    let spare = first.try_clone()?;
    let mut tcp: PerCore = (0..cores.max(1)).map(|_| Vec::new()).collect();
    let count = tcp.len();
    for (i, listener) in inherited.into_iter().enumerate() {
        listener.set_nonblocking(true)?;
        if let Some(core) = tcp.get_mut(i % count) {
            core.push(listener);
        }
    }
    for core in tcp.iter_mut().filter(|core| core.is_empty()) {
        // All cores may wait at one socket; one each is better.
        core.push(match shared {
            true => listening(address)?,
            false => spare.try_clone()?,
        });
    }
    Ok((address, tcp))
}

fn listening(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = socket(address, true)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Binds an address `cores` times. A first socket without `SO_REUSEPORT` finds
/// out whether another program, or another of our own processes, has the port
/// already.
fn bind(wanted: SocketAddr, cores: usize) -> io::Result<(SocketAddr, PerCore)> {
    let named = |error: io::Error| {
        io::Error::new(error.kind(), format!("cannot listen on {wanted}: {error}"))
    };
    let probe = socket(wanted, false).map_err(named)?;
    let address = probe
        .local_addr()?
        .as_socket()
        .ok_or_else(|| io::Error::other("the bound socket has no address"))?;
    drop(probe);
    let tcp = (0..cores.max(1))
        .map(|_| Ok(vec![listening(address)?]))
        .collect::<io::Result<_>>()
        .map_err(named)?;
    Ok((address, tcp))
}

fn socket(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    if !shared {
        // Two sockets may be bound beside each other; only listening tells.
        socket.listen(1)?;
    }
    Ok(socket)
}

/// A socket file left by a process that is gone is replaced; anything else in
/// its place is an error.
fn bind_unix(path: &Path) -> io::Result<std::os::unix::net::UnixListener> {
    let named = |error: io::Error| {
        io::Error::new(
            error.kind(),
            format!("cannot listen on {}: {error}", path.display()),
        )
    };
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
    if is_socket && std::os::unix::net::UnixStream::connect(path).is_err() {
        std::fs::remove_file(path).map_err(named)?;
    }
    let listener = std::os::unix::net::UnixListener::bind(path).map_err(named)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Accepts for ever.
pub(super) async fn accept_tcp(
    listeners: Vec<tokio::net::TcpListener>,
    core: &Arc<Core>,
    edge: &Arc<Edge>,
    tracker: &Tracker,
) {
    let mut turn = 0;
    loop {
        match accept_any(&listeners, &mut turn).await {
            Ok((stream, peer)) => {
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "TCP_NODELAY could not be set");
                }
                connection::start(
                    Stream::Tcp(stream),
                    Some(peer.ip().to_canonical()),
                    core,
                    edge,
                    tracker,
                );
            }
            Err(error) => pause(&error).await,
        }
    }
}

/// The next connection at any of these sockets, each in its turn.
async fn accept_any(
    listeners: &[tokio::net::TcpListener],
    turn: &mut usize,
) -> io::Result<(tokio::net::TcpStream, SocketAddr)> {
    std::future::poll_fn(|cx| {
        let (before, from) = listeners.split_at((*turn).min(listeners.len()));
        for (i, listener) in from.iter().chain(before).enumerate() {
            if let Poll::Ready(accepted) = listener.poll_accept(cx) {
                *turn = (*turn + i + 1) % listeners.len().max(1);
                return Poll::Ready(accepted);
            }
        }
        Poll::Pending
    })
    .await
}

/// Accepts on the Unix socket for ever.
pub(super) async fn accept_unix(
    listener: tokio::net::UnixListener,
    core: &Arc<Core>,
    edge: &Arc<Edge>,
    tracker: &Tracker,
) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => connection::start(Stream::Unix(stream), None, core, edge, tracker),
            Err(error) => pause(&error).await,
        }
    }
}

async fn pause(error: &io::Error) {
    // A connection that was reset before it was accepted is no reason to wait.
    if error.kind() == io::ErrorKind::ConnectionAborted
        || error.kind() == io::ErrorKind::ConnectionReset
    {
        return;
    }
    tracing::warn!(%error, "a connection could not be accepted");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}
