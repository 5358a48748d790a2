//! Processes that are killed in the middle of what has to be all or nothing: a
//! change of the key, and a restore.

#![expect(
    clippy::unwrap_used,
    reason = "in helpers of tests a failure is the test's failure"
)]

mod support;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use plexus::config::{self, SealedFile};
use plexus::store::{Options, Snapshot, Store};
use plexus::vault::Vault;
use serde_json::{Value, json};
use support::{ADMIN, Client, FILE, Gateway};

/// Moments at which processes are killed.
const ROUNDS: u32 = 12;

/// A process that is killed at the latest when its test is over.
struct Running(Child);

impl Running {
    fn start(folder: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_plexus"));
        command
            .args(arguments)
            .current_dir(folder)
            .env_clear()
            .envs(variables.iter().copied())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        Self(command.spawn().unwrap())
    }

    fn kill(&mut self) {
        self.0.kill().ok();
        self.0.wait().unwrap();
    }

    /// Whether it ended well by itself.
    fn ended_well(mut self) -> bool {
        self.0.wait().unwrap().success()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Another moment each time, spread over so long and a little more.
fn until_round(round: u32, whole: Duration) {
    let moment = Instant::now() + whole * (2 * round + 1) / (2 * ROUNDS - 3);
    while Instant::now() < moment {
        std::thread::yield_now();
    }
}

fn copied(from: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.path().join(entry.file_name())).unwrap();
    }
    to
}

// ---- a change of the key

const OLD: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
const NEW: &str = "ff0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
const SECRETS: usize = 60;

/// A stopped installation with sealed secrets in file and database.
fn sealed() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let keys = (0..SECRETS).map(|i| format!("  k{i}: {{ secret: sk-{i} }}   # the key {i}\n"));
    let text = format!(
        "store: {{ url: sqlite://plexus.db }}\nkeys:\n{}",
        keys.collect::<String>()
    );
    let file = folder.path().join("plexus.yaml");
    fs::write(&file, text).unwrap();
    let sealed = SealedFile::encrypt(&file, &Vault::new(OLD)).unwrap();
    sealed.commit().unwrap();
    let options = Options {
        vault: Arc::new(Vault::new(OLD)),
        ..Options::default()
    };
    let store = Store::open(&folder.path().join("plexus.db"), options).unwrap();
    for i in 0..SECRETS {
        let name = format!("p/{i}");
        store.put_secret("oauth", &name, &format!("t-{i}")).unwrap();
    }
    folder
}

/// Whether every secret of file and database can be read with that key.
fn opens_with(folder: &Path, key: &str) -> bool {
    let vault = Vault::new(key);
    let file = config::opened(&folder.join("plexus.yaml"), &vault);
    let file = file.is_ok_and(|file| {
        (0..SECRETS).all(|i| file["keys"][format!("k{i}")]["secret"] == format!("sk-{i}"))
    });
    let snapshot = Snapshot::take(&folder.join("plexus.db"), &vault).unwrap();
    let database = snapshot.secrets("oauth").is_ok_and(|found| {
        found.len() == SECRETS && found.iter().all(|secret| secret.value.starts_with("t-"))
    });
    file && database
}

#[test]
fn a_change_of_the_key_that_is_killed_leaves_everything_under_one_of_the_two() {
    let installation = sealed();
    let variables = [("ENCRYPTION_KEY", OLD), ("ENCRYPTION_KEY_NEW", NEW)];
    let rekey = |folder: &Path| Running::start(folder, &["rekey"], &variables);
    let whole = copied(installation.path());
    let began = Instant::now();
    assert!(rekey(whole.path()).ended_well());
    let whole_time = began.elapsed();
    assert!(opens_with(whole.path(), NEW) && !opens_with(whole.path(), OLD));
    for round in 0..ROUNDS {
        let folder = copied(installation.path());
        let mut process = rekey(folder.path());
        until_round(round, whole_time);
        process.kill();
        let (old, new) = (
            opens_with(folder.path(), OLD),
            opens_with(folder.path(), NEW),
        );
        assert!(old != new, "round {round}: old {old}, new {new}");
        // What was not done can be done again.
        assert!(new || rekey(folder.path()).ended_well(), "round {round}");
        assert!(opens_with(folder.path(), NEW), "round {round}");
    }
}

// ---- a restore

/// A gateway as a process of its own.
struct Served {
    process: Running,
    address: SocketAddr,
}

impl Served {
    fn start(folder: &Path) -> Self {
        let variables = [("ADMIN_KEY", ADMIN), ("HOST", "127.0.0.1"), ("PORT", "0")];
        let mut process = Running::start(folder, &["serve", "--config", "plexus.yaml"], &variables);
        let mut log = BufReader::new(process.0.stderr.take().unwrap());
        let mut said = String::new();
        let address = loop {
            let mut line = String::new();
            assert!(log.read_line(&mut line).unwrap() > 0, "{said}");
            said.push_str(&line);
            let port = line.split_once("127.0.0.1:").map(|(_, behind)| {
                let digits = behind.chars().take_while(char::is_ascii_digit);
                digits.collect::<String>()
            });
            if let Some(port) = port {
                break format!("127.0.0.1:{port}").parse().unwrap();
            }
        };
        // Read on, so that it never waits for us.
        std::thread::spawn(move || drop(log.read_to_end(&mut Vec::new())));
        Self { process, address }
    }

    fn get(&self, path: &str) -> Value {
        let path = format!("/v0/management{path}");
        let client = Client::of(self.address);
        let answer = client.request("GET", &path, &[("x-admin-key", ADMIN)], b"");
        answer.expect(200).json()
    }

    /// How many requests it has on record, and the names of its keys.
    fn state(&self) -> (i64, Vec<String>) {
        let keys = self.get("/keys");
        let keys = keys.as_object().unwrap().keys().cloned().collect();
        (self.get("/usage?limit=1")["total"].as_i64().unwrap(), keys)
    }
}

/// Sends a restore; nobody is there to hear what came of it.
fn restore(address: SocketAddr, archive: &[u8]) {
    let Ok(mut stream) = TcpStream::connect(address) else {
        return;
    };
    let head = format!(
        "POST /v0/management/restore HTTP/1.1\r\nhost: x\r\nx-admin-key: {ADMIN}\r\n\
         content-type: application/gzip\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        archive.len()
    );
    stream.write_all(head.as_bytes()).ok();
    stream.write_all(archive).ok();
    stream.read_to_end(&mut Vec::new()).ok();
}

/// An archive of a gateway that served so many requests.
fn archive(requests: usize) -> Vec<u8> {
    let from = Gateway::with(&format!("{FILE}  restored: {{ secret: sk-restored }}\n"));
    for _ in 0..requests {
        let body = json!({ "model": "by-chat", "messages": [{ "role": "user", "content": "hi" }] });
        from.ask("/v1/chat/completions", &body).expect(200);
    }
    from.rows(requests);
    let path = "/v0/management/backup?full=true";
    from.admin("GET", path, &Value::Null)
        .expect(200)
        .body
        .to_vec()
}

#[test]
fn a_restore_that_is_killed_leaves_what_was_there_or_what_was_restored() {
    const REQUESTS: usize = 40;
    const BEFORE: &str = "store: { url: sqlite://plexus.db }\ncatalogue: { enabled: false }\n\
                          keys: { before: { secret: sk-before } }\n";
    let archive = archive(REQUESTS);
    let new_state = (40, vec!["app".to_owned(), "restored".to_owned()]);
    let old_state = (0, vec!["before".to_owned()]);
    let fresh = || {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("plexus.yaml"), BEFORE).unwrap();
        folder
    };
    let whole = fresh();
    let served = Served::start(whole.path());
    assert_eq!(served.state(), old_state);
    let began = Instant::now();
    restore(served.address, &archive);
    let whole_time = began.elapsed();
    assert_eq!(served.state(), new_state);
    for round in 0..ROUNDS {
        let folder = fresh();
        let mut served = Served::start(folder.path());
        let (address, sent) = (served.address, archive.clone());
        let sender = std::thread::spawn(move || restore(address, &sent));
        until_round(round, whole_time);
        served.process.kill();
        sender.join().unwrap();
        let state = Served::start(folder.path()).state();
        assert!(
            state == old_state || state == new_state,
            "round {round}: {state:?}"
        );
    }
}

#[test]
fn an_import_that_is_killed_leaves_what_was_there_or_what_was_imported() {
    const BEFORE: &str = "adminKey: a\nstore: { url: sqlite://plexus.db }\ncatalogue: { enabled: false }\n\
                          keys: { before: { secret: sk-before } }\n";
    let archive = archive(20);
    let fresh = || {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("plexus.yaml"), BEFORE).unwrap();
        fs::write(folder.path().join("backup.tar.gz"), &archive).unwrap();
        folder
    };
    let import = |folder: &Path| Running::start(folder, &["import", "backup.tar.gz"], &[]);
    let whole = fresh();
    let began = Instant::now();
    assert!(import(whole.path()).ended_well());
    let whole_time = began.elapsed();
    for round in 0..ROUNDS {
        let folder = fresh();
        let mut process = import(folder.path());
        until_round(round, whole_time);
        process.kill();
        let (rows, keys) = Served::start(folder.path()).state();
        let old = rows == 0 && keys == ["before"];
        let new = rows == 20 && keys == ["app", "restored"];
        assert!(old || new, "round {round}: {rows} {keys:?}");
    }
}
