//! A gateway in this process, in front of a simulated provider, with a file
//! and a database of its own; and a client that sends exactly what it is told.
//!
//! Everything is on 127.0.0.1 and on ports that the system chose. What a test
//! learns about the gateway it learns through the socket, its file, its rows
//! or its log.

#![allow(
    dead_code,
    reason = "every test binary compiles this and uses a part of it"
)]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in support of tests a failure is the test's failure"
)]

pub(crate) mod client;
pub(crate) mod dialect;
pub(crate) mod media;
pub(crate) mod process;
pub(crate) mod talk;
pub(crate) mod upstream;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock, mpsc};
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use plexus::app::App;
use plexus::config::{Live, live};
use plexus::metrics::Metrics;
use plexus::server::Server;
use plexus::simulate::{self, Simulator};
use plexus::store::{Options, Store, UsageQuery};
use plexus::telemetry::Telemetry;
use serde_json::Value;

pub(crate) use client::{Client, Response, Stream};
use dialect::Dialect;

/// The admin key of every gateway here.
pub(crate) const ADMIN: &str = "admin-key-of-the-tests";
/// The inference key of [`FILE`].
pub(crate) const SECRET: &str = "sk-plexus-tests";
/// How long anything may take before a test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A file with a provider for each of the four protocols, an alias for each,
/// one over all of them, and one key.
pub(crate) const FILE: &str = "\
providers:
  chat: { api_base_url: { chat: 'http://SIMULATOR/v1', completions: 'http://SIMULATOR/v1' }, api_key: up-chat }
  messages: { api_base_url: { messages: 'http://SIMULATOR/v1' }, api_key: up-messages }
  responses: { api_base_url: { responses: 'http://SIMULATOR/v1' }, api_key: up-responses }
  gemini: { api_base_url: { gemini: 'http://SIMULATOR' }, api_key: up-gemini }
models:
  by-chat: { targets: [{ provider: chat, model: simulated }] }
  by-messages: { targets: [{ provider: messages, model: simulated }] }
  by-responses: { targets: [{ provider: responses, model: simulated }] }
  by-gemini: { targets: [{ provider: gemini, model: simulated }] }
  by-any:
    selector: in_order
    targets:
      - { provider: chat, model: simulated }
      - { provider: messages, model: simulated }
      - { provider: responses, model: simulated }
      - { provider: gemini, model: simulated }
keys:
  app: { secret: sk-plexus-tests }
";

/// A running gateway; stopped when dropped.
pub(crate) struct Gateway {
    pub(crate) app: Arc<App>,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// The provider that `SIMULATOR` in its file stands for.
    pub(crate) provider: Provider,
    folder: tempfile::TempDir,
    server: Option<Server>,
}

impl Gateway {
    /// With [`FILE`].
    pub(crate) fn start() -> Self {
        Self::with(FILE)
    }

    /// With that file, in which `SIMULATOR` stands for the provider's host and
    /// port. Admin key, address and port are set from outside the file.
    pub(crate) fn with(file: &str) -> Self {
        Self::with_environment(file, &[])
    }

    /// As [`Gateway::with`], with variables for `$env:` references.
    pub(crate) fn with_environment(file: &str, variables: &[(&str, &str)]) -> Self {
        Self::on_cores(file, variables, 1)
    }

    /// As [`Gateway::with_environment`], with that many serving threads.
    pub(crate) fn on_cores(file: &str, variables: &[(&str, &str)], cores: usize) -> Self {
        // The second gateway of a process finds it installed.
        let _installed = rustls::crypto::ring::default_provider().install_default();
        let provider = Provider::start(simulate::Options::default());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plexus.yaml");
        fs::write(&path, provider.named_in(file)).unwrap();
        let live = Live::open(Some(path), environment(variables))
            .unwrap_or_else(|error| panic!("{error}"));
        let metrics = Arc::new(Metrics::new());
        let options = Options {
            metrics: Arc::clone(&metrics),
            vault: Arc::clone(live.vault()),
            ..Options::default()
        };
        let store = Store::open(&live.load().store.path, options).unwrap();
        let app = App::new(live, store, metrics, telemetry(), Vec::new());
        let server = Server::start(&app, cores).unwrap();
        Self {
            app,
            address: server.address(),
            provider,
            folder,
            server: Some(server),
        }
    }

    /// A client of it.
    pub(crate) fn client(&self) -> Client {
        Client::of(self.address)
    }

    /// Sends a request on a connection of its own and reads the whole answer.
    pub(crate) fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl AsRef<[u8]>,
    ) -> Response {
        self.client().request(method, path, headers, body.as_ref())
    }

    /// Sends a request and reads the head of the answer; the body is read as
    /// the test asks for it. Dropping the stream is leaving.
    pub(crate) fn stream(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl AsRef<[u8]>,
    ) -> Stream {
        self.client().stream(method, path, headers, body.as_ref())
    }

    /// A management request of the administrator; `Value::Null` is no body.
    pub(crate) fn admin(&self, method: &str, path: &str, body: &Value) -> Response {
        self.manage(ADMIN, method, path, body)
    }

    /// A management request with that credential; `Value::Null` is no body.
    pub(crate) fn manage(&self, key: &str, method: &str, path: &str, body: &Value) -> Response {
        let headers = [("x-admin-key", key), ("content-type", "application/json")];
        match body {
            Value::Null => self.request(method, path, &headers[..1], ""),
            body => self.request(method, path, &headers, body.to_string()),
        }
    }

    /// An inference request with the key of [`FILE`].
    pub(crate) fn ask(&self, path: &str, body: &Value) -> Response {
        self.request("POST", path, &inference_headers(), body.to_string())
    }

    /// As [`Gateway::ask`], with the body left to be read.
    pub(crate) fn ask_stream(&self, path: &str, body: &Value) -> Stream {
        self.stream("POST", path, &inference_headers(), body.to_string())
    }

    /// The configuration file.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("plexus.yaml")
    }

    /// The configuration file's text.
    pub(crate) fn text(&self) -> String {
        fs::read_to_string(self.path()).unwrap()
    }

    /// Changes the configuration file as by hand; nobody is told.
    pub(crate) fn write(&self, text: &str) {
        fs::write(self.path(), self.provider.named_in(text)).unwrap();
    }

    /// The usage records, newest first, once there are that many; rows are
    /// written after the answer has left.
    pub(crate) fn rows(&self, count: usize) -> Vec<serde_json::Map<String, Value>> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.app.store.flush(PATIENCE).unwrap();
            let rows = self.app.store.usage(&UsageQuery::default()).unwrap().data;
            if rows.len() >= count {
                return rows;
            }
            let found = rows.len();
            assert!(Instant::now() < deadline, "{found} rows instead of {count}");
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Asks in a protocol, as the key of [`FILE`].
    pub(crate) fn speak(&self, dialect: Dialect, model: &str, stream: bool) -> Stream {
        let (path, body) = dialect.ask(model, stream);
        self.ask_stream(&path, &body)
    }

    /// The running server.
    pub(crate) fn server(&self) -> &Server {
        self.server.as_ref().expect("it is running")
    }

    /// Stops, and starts again with the same file and the same database.
    pub(crate) fn restart(&mut self) {
        assert!(self.stop(PATIENCE), "nothing is under way");
        self.app.store.flush(PATIENCE).unwrap();
        let live = Live::open(Some(self.path()), environment(&[])).unwrap();
        let metrics = Arc::new(Metrics::new());
        let options = Options {
            metrics: Arc::clone(&metrics),
            ..Options::default()
        };
        let store = Store::open(&live.load().store.path, options).unwrap();
        self.app = App::new(live, store, metrics, telemetry(), Vec::new());
        let server = Server::start(&self.app, 1).unwrap();
        self.address = server.address();
        self.server = Some(server);
    }

    /// Stops; what was begun may go on for `limit`. True when nothing had to
    /// be cut.
    pub(crate) fn stop(&mut self, limit: Duration) -> bool {
        let server = self.server.take().expect("it was stopped before");
        server.drain(limit)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            let _cut = server.drain(Duration::from_millis(200));
        }
    }
}

/// The simulated provider in a thread of its own; stopped when dropped.
pub(crate) struct Provider {
    pub(crate) simulator: Simulator,
    pub(crate) address: SocketAddr,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Provider {
    pub(crate) fn start(options: simulate::Options) -> Self {
        let simulator = Simulator::new(options);
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let (tell, told) = mpsc::sync_channel(1);
        let serving = simulator.clone();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                tell.send(listener.local_addr().unwrap()).unwrap();
                let stop = async {
                    stopped.await.ok();
                };
                serving.serve(listener, stop).await.unwrap();
            });
        });
        Self {
            simulator,
            address: told.recv().unwrap(),
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    fn named_in(&self, file: &str) -> String {
        file.replace("SIMULATOR", &self.address.to_string())
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            stop.send(()).ok();
        }
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// Looks again and again until there is something to see.
pub(crate) fn await_some<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// The log of this process, on its most talkative level; its last thousand
/// lines are kept.
pub(crate) fn telemetry() -> Telemetry {
    static TELEMETRY: OnceLock<Telemetry> = OnceLock::new();
    let start = || {
        let (telemetry, dispatch) = Telemetry::new("trace", &[], false, io::sink()).unwrap();
        tracing::dispatcher::set_global_default(dispatch).unwrap();
        telemetry
    };
    TELEMETRY.get_or_init(start).clone()
}

fn inference_headers() -> [(&'static str, &'static str); 2] {
    [
        ("authorization", "Bearer sk-plexus-tests"),
        ("content-type", "application/json"),
    ]
}

/// What the file can't be trusted to say, and what the test sets.
fn environment(variables: &[(&str, &str)]) -> live::Environment {
    let fixed = [("ADMIN_KEY", ADMIN), ("HOST", "127.0.0.1"), ("PORT", "0")];
    let all: Vec<(String, String)> = variables
        .iter()
        .chain(&fixed)
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    Box::new(move |name| {
        let found = all.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.clone())
    })
}
