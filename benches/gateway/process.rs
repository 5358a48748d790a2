//! A process under test: started, waited for, looked at through `/proc`, and
//! killed when it is dropped.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::Failure;

/// Longest wait for a process to answer.
const START: Duration = Duration::from_secs(20);
/// Pause between two looks whether it does.
const LOOK: Duration = Duration::from_micros(100);

/// CPU time by what it was spent on.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cpu {
    /// Threads that serve connections.
    pub(crate) serving: Duration,
    /// The thread that writes rows.
    pub(crate) writer: Duration,
    /// All others.
    pub(crate) rest: Duration,
}

impl Cpu {
    pub(crate) fn total(&self) -> Duration {
        self.serving + self.writer + self.rest
    }

    pub(crate) fn since(&self, before: &Self) -> Self {
        Self {
            serving: self.serving.saturating_sub(before.serving),
            writer: self.writer.saturating_sub(before.writer),
            rest: self.rest.saturating_sub(before.rest),
        }
    }
}

/// Memory in KiB.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    /// Pages in memory, shared ones whole.
    pub(crate) rss: f64,
    /// Pages in memory, shared ones in proportion.
    pub(crate) pss: f64,
}

/// A process of ours.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    /// From just before the start to the first answer.
    pub(crate) ready: Duration,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a command and waits until it answers on `port`. Whatever it says
    /// goes to a file in `folder`.
    pub(crate) fn start(
        name: &'static str,
        mut command: Command,
        port: u16,
        folder: &Path,
    ) -> Result<Self, Failure> {
        let log = folder.join(format!("{name}-{port}.log"));
        let said = fs::File::create(&log)?;
        command
            .stdin(Stdio::null())
            .stdout(said.try_clone()?)
            .stderr(said);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let began = Instant::now();
        let child = command.spawn()?;
        let mut process = Self {
            name,
            address,
            ready: Duration::ZERO,
            child,
            log,
        };
        while !answers(address) {
            if process.child.try_wait()?.is_some() || began.elapsed() > START {
                return Err(process.failure("did not start").into());
            }
            thread::sleep(LOOK);
        }
        process.ready = began.elapsed();
        Ok(process)
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What failed, with the last that the process said.
    pub(crate) fn failure(&self, what: &str) -> String {
        let said = fs::read_to_string(&self.log).unwrap_or_default();
        let mut last: Vec<&str> = said.lines().rev().take(12).collect();
        last.reverse();
        format!("{}: {what}\n{}", self.name, last.join("\n"))
    }

    /// CPU time so far. Exact for threads that sleep, which is when it is asked
    /// for; a thread that runs is behind by a tick at most.
    pub(crate) fn cpu(&self) -> Result<Cpu, Failure> {
        let mut cpu = Cpu::default();
        for task in fs::read_dir(format!("/proc/{}/task", self.id()))? {
            let folder = task?.path();
            // A thread may end between the listing and the look.
            let (Ok(name), Ok(schedule)) = (
                fs::read_to_string(folder.join("comm")),
                fs::read_to_string(folder.join("schedstat")),
            ) else {
                continue;
            };
            let nanos = schedule.split(' ').next().unwrap_or_default().parse()?;
            let spent = Duration::from_nanos(nanos);
            match name.trim() {
                "plexus-store" => cpu.writer += spent,
                name if name.starts_with("serve-") || name.starts_with("tokio-rt") => {
                    cpu.serving += spent;
                }
                _ => cpu.rest += spent,
            }
        }
        Ok(cpu)
    }

    pub(crate) fn memory(&self) -> Result<Memory, Failure> {
        let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.id()))?;
        let field = |name: &str| -> Result<f64, Failure> {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|line| line.split_whitespace().next());
            Ok(number
                .ok_or_else(|| format!("no {name} in smaps_rollup"))?
                .parse()?)
        };
        Ok(Memory {
            rss: field("Rss:")?,
            pss: field("Pss:")?,
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A port that was free a moment ago. It lies below those that the system gives
/// to outgoing connections, one of which could take it in between.
pub(crate) fn free_port() -> Result<u16, Failure> {
    let from = 20_000 + u16::try_from(std::process::id() % 9_000)?;
    let free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    (from..from + 1_000)
        .find(free)
        .ok_or_else(|| "no free port".into())
}

fn answers(address: SocketAddr) -> bool {
    let asked = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n")?;
        let mut first = [0; 8];
        stream.read_exact(&mut first)?;
        Ok(&first == b"HTTP/1.1")
    };
    asked().unwrap_or(false)
}
