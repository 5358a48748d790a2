//! `plexus simulate`: the simulated provider on a port of its own.

use std::net::IpAddr;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use super::{Failed, say};
use crate::simulate::{self, Options, Simulator};

/// What a model's name or the `x-simulate` header can ask for.
pub(super) fn help() -> String {
    simulate::help()
}

/// Serves until told to stop.
pub(super) fn simulate(host: IpAddr, port: u16, record: bool) -> Result<(), Failed> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind((host, port))
            .await
            .map_err(|error| Failed(format!("cannot listen on {host}:{port}: {error}")))?;
        say(&format!(
            "simulated provider on http://{}\n",
            listener.local_addr()?
        ));
        let mut terminate = signal(SignalKind::terminate())?;
        let stop = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
        };
        Simulator::new(Options {
            record,
            ..Options::default()
        })
        .serve(listener, stop)
        .await?;
        Ok(())
    })
}
