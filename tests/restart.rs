//! Restarts of the real program: requests go on, the process's number stays,
//! and what a restore left half done is finished.

#![expect(
    clippy::unwrap_used,
    reason = "in helpers of tests a failure is the test's failure"
)]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use plexus::store::{Options, PendingConfig, Store};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use support::{ADMIN, PATIENCE, await_some};

/// `plexus serve`, on a port of its own.
struct Program {
    child: Child,
    address: SocketAddr,
    folder: tempfile::TempDir,
}

impl Program {
    fn prepare() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let text = "store: { url: sqlite://plexus.db }\nserver: { drainSeconds: 10 }\ncatalogue: { enabled: false }\n";
        fs::write(folder.path().join("plexus.yaml"), text).unwrap();
        folder
    }

    fn start(folder: tempfile::TempDir) -> Self {
        // Free a moment ago; whoever takes it meanwhile makes the start fail.
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let child = Command::new(env!("CARGO_BIN_EXE_plexus"))
            .args(["serve", "--config", "plexus.yaml", "--threads", "2"])
            .current_dir(folder.path())
            .env("ADMIN_KEY", ADMIN)
            .env("HOST", "127.0.0.1")
            .env("PORT", address.port().to_string())
            .env("LOG_LEVEL", "warn")
            .env_remove("ENCRYPTION_KEY")
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let program = Self {
            child,
            address,
            folder,
        };
        await_some("the program to serve", || TcpStream::connect(address).ok());
        program
    }

    fn manage(&self, method: &str, path: &str, body: &Value) -> Option<Value> {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let headers = [
            ("x-admin-key", ADMIN),
            ("content-type", "application/json"),
            ("connection", "close"),
        ];
        let path = format!("/v0/management{path}");
        let mut stream = TcpStream::connect(self.address).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
            .write_all(&support::client::bytes(
                method,
                &path,
                &headers,
                body.as_bytes(),
            ))
            .ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        assert!(head.starts_with("HTTP/1.1 200"), "{answer}");
        serde_json::from_str(body).ok()
    }

    /// Counts the configurations taken up since the process began.
    fn revision(&self) -> Option<u64> {
        self.manage("GET", "/config/status", &Value::Null)?["revision"].as_u64()
    }

    /// So that a process that began anew can be told from this one.
    fn raise_revision(&self) {
        let key = json!({"secret": "sk-restart"});
        self.manage("PUT", "/keys/restart", &key).unwrap();
        assert_eq!(self.revision(), Some(2));
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A client that keeps its connection for as long as it may.
struct Client {
    address: SocketAddr,
    stream: Option<TcpStream>,
}

impl Client {
    /// One request; its answer must be whole.
    fn ask(&mut self) -> Result<(), String> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => {
                let stream = TcpStream::connect(self.address).map_err(|error| error.to_string())?;
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                stream.set_nodelay(true).unwrap();
                none.insert(stream)
            }
        };
        let request = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
        stream
            .write_all(request)
            .map_err(|error| error.to_string())?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"{\"ok\":true}") {
            let mut piece = [0; 1024];
            match stream.read(&mut piece) {
                Ok(0) => {
                    return Err(format!(
                        "closed after {:?}",
                        String::from_utf8_lossy(&answer)
                    ));
                }
                Ok(read) => answer.extend_from_slice(&piece[..read]),
                Err(error) => return Err(error.to_string()),
            }
        }
        if String::from_utf8_lossy(&answer)
            .to_ascii_lowercase()
            .contains("connection: close")
        {
            self.stream = None;
        }
        Ok(())
    }
}

/// Clients that ask all the time, at a bounded rate.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    clients: Vec<thread::JoinHandle<Result<(), String>>>,
}

impl Load {
    fn start(address: SocketAddr) -> Self {
        let (stop, answered) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let clients = (0..8).map(|number| {
            let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
            thread::spawn(move || {
                let mut client = Client {
                    address,
                    stream: None,
                };
                while !stop.load(Ordering::SeqCst) {
                    client.ask()?;
                    answered.fetch_add(1, Ordering::SeqCst);
                    if number % 4 == 0 {
                        // A new connection for each request.
                        client.stream = None;
                    }
                    thread::sleep(Duration::from_millis(20));
                }
                Ok(())
            })
        });
        let clients = clients.collect();
        Self {
            stop,
            answered,
            clients,
        }
    }

    /// Waits for some more answers.
    fn go_on(&self) {
        let enough = self.answered.load(Ordering::SeqCst) + 50;
        await_some("more answers", || {
            let failed = self.clients.iter().any(thread::JoinHandle::is_finished);
            (failed || self.answered.load(Ordering::SeqCst) >= enough).then_some(())
        });
    }

    fn finish(self) {
        self.stop.store(true, Ordering::SeqCst);
        for client in self.clients {
            assert_eq!(client.join().unwrap(), Ok(()));
        }
    }
}

#[test]
fn a_restart_loses_no_request_and_keeps_the_process_number() {
    let mut program = Program::start(Program::prepare());
    program.raise_revision();
    let load = Load::start(program.address);
    load.go_on();
    let told = program.manage("POST", "/restart", &Value::Null).unwrap();
    assert_eq!(
        told,
        json!({"success": true, "message": "Server is restarting"})
    );
    // The bridge and then the heir answer; the heir alone can restart again.
    await_some("another process to answer", || {
        (program.revision()? == 1).then_some(())
    });
    load.go_on();
    program.raise_again_when_heir();
    // A signal does the same.
    program.signal(Signal::USR2);
    await_some("another process to answer", || {
        (program.revision()? == 1).then_some(())
    });
    load.go_on();
    load.finish();
    assert!(
        program.child.try_wait().unwrap().is_none(),
        "the same process goes on"
    );
}

impl Program {
    /// Waits until the process of the old number serves again, then makes it
    /// known by its revision.
    fn raise_again_when_heir(&self) {
        let environment = format!("/proc/{}/environ", self.child.id());
        await_some("the old process to be the new program", || {
            let environment = fs::read(&environment).ok()?;
            let heir = String::from_utf8_lossy(&environment).contains("PLEXUS_HANDOVER=heir");
            heir.then_some(())
        });
        let children = format!("/proc/{0}/task/{0}/children", self.child.id());
        await_some("the bridge to end", || {
            let children = fs::read_to_string(&children).ok()?;
            children.trim().is_empty().then_some(())
        });
        let key = json!({"secret": "sk-restarted-again"});
        self.manage("PUT", "/keys/restart", &key).unwrap();
        assert_eq!(self.revision(), Some(2));
    }
}

#[test]
fn a_restart_that_fails_leaves_the_process_as_it_was() {
    let program = Program::start(Program::prepare());
    let file = program.folder.path().join("plexus.yaml");
    fs::write(&file, "nonsense: true\n").unwrap();
    let load = Load::start(program.address);
    program.manage("POST", "/restart", &Value::Null).unwrap();
    // It can be asked for again when it has failed.
    await_some("the restart to fail", || {
        let headers = [("x-admin-key", ADMIN)];
        let client = support::client::Client::of(program.address);
        let again = client.request("POST", "/v0/management/restart", &headers, b"");
        (again.status == 200).then_some(())
    });
    load.go_on();
    load.finish();
    assert_eq!(program.revision(), Some(1));
}

#[test]
fn the_sockets_of_a_service_manager_are_used() {
    use command_fds::{CommandFdExt, FdMapping};
    let folder = Program::prepare();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_plexus"));
    command
        .args(["serve", "--threads", "2"])
        .current_dir(folder.path())
        .env("ADMIN_KEY", ADMIN)
        // Taken already, so that binding it would fail.
        .env("HOST", "127.0.0.1")
        .env("PORT", address.port().to_string())
        .env("LISTEN_FDS", "1")
        .env_remove("LISTEN_PID")
        .stdin(Stdio::null())
        .fd_mappings(vec![FdMapping {
            parent_fd: listener.try_clone().unwrap().into(),
            child_fd: 3,
        }])
        .unwrap();
    let program = Program {
        child: command.spawn().unwrap(),
        address,
        folder,
    };
    assert_eq!(program.revision(), Some(1));
    program.signal(Signal::TERM);
    let mut program = program;
    assert!(program.child.wait().unwrap().success());
}

#[test]
fn a_restore_that_was_killed_before_it_replaced_the_file_is_finished_at_the_next_start() {
    let folder = Program::prepare();
    let file = folder.path().join("plexus.yaml");
    let before = fs::read_to_string(&file).unwrap();
    let text = format!("{before}keys: {{ restored: {{ secret: sk-restored }} }}\n");
    let pending = PendingConfig {
        before,
        text: text.clone(),
    };
    let database = plexus::config::store_path(&file, &|_| None).unwrap();
    let store = Store::open(&database, Options::default()).unwrap();
    store
        .restore(move |restore| restore.pend(&pending))
        .unwrap();
    drop(store);
    let program = Program::start(folder);
    assert!(
        program
            .manage("GET", "/keys/restored", &Value::Null)
            .is_some()
    );
    assert_eq!(
        fs::read_to_string(program.folder.path().join("plexus.yaml")).unwrap(),
        text
    );
    program.signal(Signal::TERM);
    let mut program = program;
    assert!(program.child.wait().unwrap().success());
    let store = Store::open(&database, Options::default()).unwrap();
    assert_eq!(store.pending_config().unwrap(), None);
}

#[test]
fn a_file_changed_by_hand_since_is_not_overwritten_by_a_restore_that_was_killed() {
    let folder = Program::prepare();
    let database =
        plexus::config::store_path(&folder.path().join("plexus.yaml"), &|_| None).unwrap();
    let store = Store::open(&database, Options::default()).unwrap();
    let pending = PendingConfig {
        before: "something else".to_owned(),
        text: "keys: { restored: { secret: s } }\n".to_owned(),
    };
    store
        .restore(move |restore| restore.pend(&pending))
        .unwrap();
    drop(store);
    let program = Program::start(folder);
    let keys = program.manage("GET", "/keys", &Value::Null).unwrap();
    assert_eq!(keys, json!({}));
}

#[test]
fn backup_and_import_do_the_same_offline() {
    let program = Program::start(Program::prepare());
    program.raise_revision();
    let run = |folder: &std::path::Path, arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_plexus"))
            .args(arguments)
            .current_dir(folder)
            .env_remove("ADMIN_KEY")
            .env_remove("ENCRYPTION_KEY")
            .output()
            .unwrap();
        let told = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(told).unwrap())
    };
    for (arguments, name) in [
        (&["backup", "-o", "b.json"][..], "b.json"),
        (&["backup", "--full", "-o", "b.tar.gz"], "b.tar.gz"),
    ] {
        // Beside a gateway that serves.
        let (done, told) = run(program.folder.path(), arguments);
        assert!(done, "{told}");
        let backup = program.folder.path().join(name);
        let mode =
            std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&backup).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
        let elsewhere = tempfile::tempdir().unwrap();
        fs::write(
            elsewhere.path().join("plexus.yaml"),
            "store: { url: sqlite://new.db }\n",
        )
        .unwrap();
        let (done, told) = run(elsewhere.path(), &["import", backup.to_str().unwrap()]);
        assert!(
            done && told.contains("api_keys: 1") && told.contains("set ADMIN_KEY"),
            "{told}"
        );
        let text = fs::read_to_string(elsewhere.path().join("plexus.yaml")).unwrap();
        assert!(
            text.contains("sk-restart") && text.contains("sqlite://new.db"),
            "{text}"
        );
    }
    let backup = program.folder.path().join("b.json");
    let (done, told) = run(program.folder.path(), &["import", backup.to_str().unwrap()]);
    assert!(!done && told.contains("locked"), "{told}");
    let (done, told) = run(program.folder.path(), &["import", "plexus.yaml"]);
    assert!(
        !done && told.contains("neither JSON nor an archive"),
        "{told}"
    );
}
