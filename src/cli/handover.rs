//! A restart that loses nothing: the listening sockets stay, the process's
//! number too. The sockets of a service manager come in by the same door.
//!
//! A second process, the bridge, accepts at the same sockets while this one
//! finishes what it has begun; then this one becomes the new program, the heir,
//! and tells the bridge to finish in its turn. So requests are accepted at every
//! moment, however long a stream takes, and whoever watches over the process
//! sees it live on.
//!
//! Nothing here is unsafe code of ours: `command-fds` puts sockets at the
//! numbers where `listenfd` looks for them, by the protocol of systemd's
//! `LISTEN_FDS`.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Duration;

use command_fds::{CommandFdExt, FdMapping};
use listenfd::ListenFd;
use rustix::process::{Pid, WaitOptions, waitpid};

use crate::server::{Inherited, Sockets};

/// Tells a process of ours what it inherits: its role, how many TCP sockets,
/// how many Unix sockets, and the bridge's number.
const ROLE: &str = "PLEXUS_HANDOVER";
/// Where the protocol has the first of them.
const FIRST: RawFd = 3;
/// How long the bridge may take to begin to serve.
const READY: Duration = Duration::from_secs(60);

/// Why this process was started.
#[derive(Debug)]
pub(super) enum Role {
    /// From outside.
    First,
    /// To serve until the other end of this is closed.
    Bridge(UnixStream),
    /// To take over from the bridge, which serves until this is closed.
    Heir(UnixStream, Option<Pid>),
}

/// What this process has from whoever started it. To be called once, before
/// there are other threads.
pub(super) fn inherit() -> io::Result<(Inherited, Role)> {
    let said = std::env::var(ROLE).unwrap_or_default();
    let mut found = ListenFd::from_env();
    let count = found.len();
    let mut words = said.split(' ');
    let role = words.next().filter(|_| count > 0).unwrap_or_default();
    let own = role == "bridge" || role == "heir";
    let mut inherited = Inherited {
        own,
        ..Inherited::default()
    };
    let sockets = if own { count.saturating_sub(1) } else { count };
    for at in 0..sockets {
        match found.take_tcp_listener(at) {
            Ok(listener) => inherited.tcp.extend(listener),
            // One of another kind stays where it is.
            Err(_) => inherited.unix = found.take_unix_listener(at)?,
        }
    }
    if !own {
        return Ok((inherited, Role::First));
    }
    let control = found
        .take_unix_listener(sockets)?
        .ok_or_else(|| io::Error::other("the socket of the other process is missing"))?;
    let control = UnixStream::from(OwnedFd::from(control));
    let number = words.next().and_then(|word| word.parse().ok());
    Ok(match role {
        "bridge" => (inherited, Role::Bridge(control)),
        _ => (
            inherited,
            Role::Heir(control, number.and_then(Pid::from_raw)),
        ),
    })
}

/// This program with these arguments, to be started again. A newer version in
/// its place is what is started.
#[derive(Clone, Debug)]
pub(super) struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
}

/// A process that serves while this one is replaced.
#[derive(Debug)]
pub(super) struct Bridge {
    child: Child,
    control: UnixStream,
}

impl Program {
    pub(super) fn current() -> io::Result<Self> {
        Ok(Self {
            path: std::env::current_exe()?,
            arguments: std::env::args_os().skip(1).collect(),
        })
    }

    /// Starts the bridge and waits until it serves. Blocks.
    ///
    /// # Errors
    /// It does not come about; nothing has changed.
    pub(super) fn bridge(&self, sockets: &Sockets) -> io::Result<Bridge> {
        let (mut ours, theirs) = UnixStream::pair()?;
        let mut child = self.again(sockets, theirs, "bridge".to_owned())?.spawn()?;
        ours.set_read_timeout(Some(READY))?;
        let mut ready = [0];
        match ours.read_exact(&mut ready) {
            Ok(()) => Ok(Bridge {
                child,
                control: ours,
            }),
            Err(error) => {
                // It may have ended by itself, which is as good.
                drop(child.kill());
                let ended = child.wait()?;
                Err(io::Error::other(format!(
                    "the new process did not begin to serve ({ended}): {error}"
                )))
            }
        }
    }

    /// Becomes the heir. Comes back only if that fails, and then too much has
    /// been closed to go on.
    pub(super) fn succeed(&self, sockets: &Sockets, bridge: Bridge) -> io::Error {
        let role = format!("heir {}", bridge.child.id());
        match self.again(sockets, bridge.control, role) {
            Ok(mut command) => command.exec(),
            Err(error) => error,
        }
    }

    fn again(&self, sockets: &Sockets, control: UnixStream, role: String) -> io::Result<Command> {
        let mut all = sockets.copies()?;
        all.push(control.into());
        let mut command = Command::new(&self.path);
        command
            .args(&self.arguments)
            .env_remove("LISTEN_PID")
            .env_remove("LISTEN_FDNAMES")
            .env("LISTEN_FDS", all.len().to_string())
            .env(ROLE, role);
        let mappings = all.into_iter().zip(FIRST..);
        let mappings = mappings.map(|(parent_fd, child_fd)| FdMapping {
            parent_fd,
            child_fd,
        });
        command
            .fd_mappings(mappings.collect())
            .map_err(io::Error::other)?;
        Ok(command)
    }
}

/// Tells whoever waits that this process serves now.
pub(super) fn report(role: &mut Role) -> io::Result<()> {
    match std::mem::replace(role, Role::First) {
        Role::First => {}
        Role::Bridge(mut control) => {
            control.write_all(b"r")?;
            *role = Role::Bridge(control);
        }
        Role::Heir(control, bridge) => {
            drop(control);
            if let Some(bridge) = bridge {
                // Ends with the bridge, at the end of its drain.
                std::thread::Builder::new()
                    .name("reaper".to_owned())
                    .spawn(move || {
                        if let Err(error) = waitpid(Some(bridge), WaitOptions::empty()) {
                            tracing::debug!(%error, "the bridge could not be waited for");
                        }
                    })?;
            }
        }
    }
    Ok(())
}
