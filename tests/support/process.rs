//! A gateway in a process of its own, as an operator runs it.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::{ADMIN, Client, await_some};

/// See the module's text. It is killed when it is dropped.
pub(crate) struct Process {
    child: Child,
    address: SocketAddr,
}

impl Process {
    /// `plexus serve` with the `plexus.yaml` in that folder, once it listens.
    pub(crate) fn start(folder: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let child = Command::new(env!("CARGO_BIN_EXE_plexus"))
            .args(["serve", "--config"])
            .arg(folder.join("plexus.yaml"))
            .envs([("ADMIN_KEY", ADMIN), ("HOST", "127.0.0.1")])
            .env("PORT", address.port().to_string())
            .env("LOG_LEVEL", "error")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let process = Self { child, address };
        await_some("the gateway", || TcpStream::connect(address).ok());
        process
    }

    /// Who asks it.
    pub(crate) fn client(&self) -> Client {
        Client::of(self.address)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
