//! Binding and accepting. The accept loops survive running out of
//! descriptors without spinning.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::Arc;
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

/// Bound sockets: one per core, and the optional Unix one.
#[derive(Debug)]
pub(super) struct Listeners {
    pub(super) address: SocketAddr,
    pub(super) tcp: Vec<std::net::TcpListener>,
    pub(super) unix: Option<std::os::unix::net::UnixListener>,
}

impl Listeners {
    /// Binds the configured address `cores` times. A first socket without
    /// `SO_REUSEPORT` finds out whether another program, or another of our own
    /// processes, has the port already.
    pub(super) fn bind(settings: &ServerSettings, cores: usize) -> io::Result<Self> {
        let wanted = SocketAddr::new(settings.host, settings.port);
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
            .map(|_| {
                let socket = socket(address, true)?;
                socket.listen(BACKLOG)?;
                Ok(socket.into())
            })
            .collect::<io::Result<Vec<std::net::TcpListener>>>()
            .map_err(named)?;
        let unix = settings.unix_socket.as_deref().map(bind_unix).transpose()?;
        Ok(Self { address, tcp, unix })
    }
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
    listener: tokio::net::TcpListener,
    core: &Arc<Core>,
    edge: &Arc<Edge>,
    tracker: &Tracker,
) {
    loop {
        match listener.accept().await {
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
