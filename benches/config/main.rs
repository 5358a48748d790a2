//! What the configuration costs when it is large: reading it at start, writing
//! one entry of it through the management API while clients are served, with and
//! without secrets at rest, and finding a key and an alias in it.
//!
//! `cargo bench --bench config`; with `--smoke` only to see that it runs.

mod file;

use std::hint::black_box;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use file::Size;
use plexus::app::App;
use plexus::auth;
use plexus::config::{Config, Live, SealedFile};
use plexus::metrics::Metrics;
use plexus::routing::Switchboard;
use plexus::server::Server;
use plexus::store::{Options, Store};
use plexus::telemetry::Telemetry;
use plexus::vault::Vault;

/// As in the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Failure = Box<dyn std::error::Error + Send + Sync>;

const ADMIN: &str = "admin-key-of-the-bench";
const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
const SMALL: Size = Size {
    providers: 5,
    aliases: 20,
    keys: 50,
};
const LARGE: Size = Size {
    providers: 500,
    aliases: 2_000,
    keys: 5_000,
};

fn main() -> Result<(), Failure> {
    let smoke = std::env::args().any(|word| word == "--smoke")
        || std::env::var_os("PLEXUS_BENCH_SMOKE").is_some_and(|value| value == "1");
    let runs = if smoke { 1 } else { 15 };
    let size = if smoke { SMALL } else { LARGE };
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| "a crypto provider was there already")?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("plexus.yaml");
    let text = file::text(size)?;
    std::fs::write(&path, &text)?;
    say(&format!(
        "{} providers, {} aliases, {} keys: {} KB\n\n| what | ms, median | ms, longest |\n|---|--:|--:|",
        size.providers,
        size.aliases,
        size.keys,
        text.len() / 1024
    ));
    report("read and check at start", runs, || {
        drop(black_box(open(&path)?));
        Ok(())
    })?;
    report("of that, the check", runs, || {
        drop(black_box(file::config(size)?));
        Ok(())
    })?;
    let config = file::config(size)?;
    report("work out the routes", runs, || {
        drop(black_box(Switchboard::new(&config, Instant::now(), 0)));
        Ok(())
    })?;
    let gateway = Gateway::start(open(&path)?, folder.path())?;
    writes(&gateway, size, runs)?;
    sealed(size, runs)?;
    disturbance(&gateway, size, runs)?;
    look_ups(if smoke { 100 } else { 200_000 })
}

/// The same with secrets at rest under a key.
fn sealed(size: Size, runs: u32) -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("plexus.yaml");
    std::fs::write(&path, file::text(size)?)?;
    let sealed = SealedFile::encrypt(&path, &Vault::new(KEY))?;
    sealed.commit()?;
    say(&format!(
        "\n| {} secrets sealed | ms, median | ms, longest |\n|---|--:|--:|",
        sealed.count
    ));
    report("read and check at start", runs, || {
        drop(black_box(open_with(&path, Some(KEY))?));
        Ok(())
    })?;
    let gateway = Gateway::start(open_with(&path, Some(KEY))?, folder.path())?;
    writes(&gateway, size, runs)
}

fn open(path: &Path) -> Result<Live, Failure> {
    open_with(path, None)
}

fn open_with(path: &Path, key: Option<&'static str>) -> Result<Live, Failure> {
    let environment = move |name: &str| match name {
        "ENCRYPTION_KEY" => key.map(str::to_owned),
        "ADMIN_KEY" => Some(ADMIN.to_owned()),
        "HOST" => Some("127.0.0.1".to_owned()),
        "PORT" => Some("0".to_owned()),
        _ => None,
    };
    Ok(Live::open(Some(path.to_owned()), Box::new(environment))?)
}

/// A gateway in this process.
struct Gateway {
    server: Option<Server>,
    address: SocketAddr,
}

impl Gateway {
    fn start(live: Live, folder: &Path) -> Result<Self, Failure> {
        let (telemetry, _dispatch) = Telemetry::new("error", &[], false, std::io::sink())?;
        let store = Store::open(&folder.join("plexus.db"), Options::default())?;
        let app = App::new(live, store, Arc::new(Metrics::new()), telemetry, Vec::new());
        let server = Server::start(&app, 1)?;
        let address = server.address();
        Ok(Self {
            server: Some(server),
            address,
        })
    }

    fn admin(&self, method: &str, path: &str, body: &str) -> Result<(), Failure> {
        let mut stream = TcpStream::connect(self.address)?;
        let length = body.len();
        let head = format!(
            "{method} /v0/management{path} HTTP/1.1\r\nhost: bench\r\nx-admin-key: {ADMIN}\r\n\
             content-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
        );
        stream.write_all(head.as_bytes())?;
        stream.write_all(body.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        if answer.starts_with("HTTP/1.1 200") {
            Ok(())
        } else {
            Err(answer.into())
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            let _all_went = server.drain(Duration::from_millis(100));
        }
    }
}

/// Each kind of write, answered when it is on disk and in force.
fn writes(gateway: &Gateway, size: Size, runs: u32) -> Result<(), Failure> {
    let mut number = 0;
    let mut next = || {
        number += 1;
        number
    };
    report("PATCH a provider", runs, || {
        let body = format!("{{\"timeoutMs\":{}}}", 1_000 + next());
        gateway.admin(
            "PATCH",
            &format!("/providers/p{}", size.providers / 2),
            &body,
        )
    })?;
    report("PUT an alias that is there", runs, || {
        let model = next();
        let body = format!(
            "{{\"target_groups\":[{{\"name\":\"default\",\"selector\":\"random\",\"targets\":[{{\"provider\":\"p1\",\"model\":\"m{}\"}}]}}]}}",
            model % 3
        );
        gateway.admin("PUT", &format!("/aliases/a{}", size.aliases / 2), &body)
    })?;
    report("PUT a new key", runs, || {
        let key = next();
        gateway.admin(
            "PUT",
            &format!("/keys/new{key}"),
            &format!("{{\"secret\":\"sk-new-{key}\"}}"),
        )
    })?;
    report("PATCH a key", runs, || {
        let body = format!("{{\"comment\":\"number {}\"}}", next());
        gateway.admin("PATCH", &format!("/keys/k{}", size.keys / 2), &body)
    })?;
    let mut key = size.keys / 4;
    report("DELETE a key", runs, || {
        key += 1;
        gateway.admin("DELETE", &format!("/keys/k{key}"), "")
    })?;
    report("PATCH a setting", runs, || {
        let body = format!("{{\"defaultSeconds\":{}}}", 100 + next());
        gateway.admin("PATCH", "/config/timeout", &body)
    })
}

/// How long a small request waits on the one serving thread, without writes
/// and beside them.
fn disturbance(gateway: &Gateway, size: Size, runs: u32) -> Result<(), Failure> {
    let writing = AtomicBool::new(false);
    let done = AtomicBool::new(false);
    let mut waits = (Vec::new(), Vec::new());
    std::thread::scope(|scope| -> Result<(), Failure> {
        let client = scope.spawn(|| -> Result<_, Failure> {
            let mut stream = TcpStream::connect(gateway.address)?;
            stream.set_nodelay(true)?;
            let (mut calm, mut beside) = (Vec::new(), Vec::new());
            let mut answer = [0; 4096];
            while !done.load(Ordering::Relaxed) {
                let busy = writing.load(Ordering::Relaxed);
                let began = Instant::now();
                stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: bench\r\n\r\n")?;
                let read = stream.read(&mut answer)?;
                black_box(read);
                if busy { &mut beside } else { &mut calm }.push(began.elapsed());
            }
            Ok((calm, beside))
        });
        std::thread::sleep(Duration::from_millis(200));
        writing.store(true, Ordering::Relaxed);
        for run in 0..runs {
            let path = format!("/providers/p{}", size.providers / 3);
            gateway.admin(
                "PATCH",
                &path,
                &format!("{{\"timeoutMs\":{}}}", 5_000 + run),
            )?;
        }
        done.store(true, Ordering::Relaxed);
        waits = client.join().map_err(|_| "the client failed")??;
        Ok(())
    })?;
    say("\n| GET /healthz on the serving thread | us, median | us, 99.9% |\n|---|--:|--:|");
    for (name, mut waits) in [
        ("nothing is written", waits.0),
        ("entries are written without a pause", waits.1),
    ] {
        waits.sort_unstable();
        let at = |share: f64| {
            let place = (waits.len() as f64 * share) as usize;
            waits
                .get(place)
                .map_or(0.0, |wait| wait.as_secs_f64() * 1e6)
        };
        say(&format!("| {name} | {:.0} | {:.0} |", at(0.5), at(0.999)));
    }
    Ok(())
}

/// Keys and aliases in a small and in a large configuration.
fn look_ups(runs: u32) -> Result<(), Failure> {
    say("\n| look-up | ns, small file | ns, large file |\n|---|--:|--:|");
    let (small, large) = (file::config(SMALL)?, file::config(LARGE)?);
    let key = |config: &Config, keys: u32| {
        nanoseconds(runs, |run| {
            let mut headers = http::HeaderMap::new();
            let secret = format!("sk-bench-{}", run % keys);
            if let Ok(value) = secret.parse() {
                headers.insert("x-api-key", value);
            }
            black_box(auth::caller(config, &headers, None, None, 0).is_ok());
        })
    };
    let alias = |config: &Config, aliases: u32| {
        nanoseconds(runs, |run| {
            black_box(config.alias(&format!("a{}", run % aliases)).is_some());
        })
    };
    say(&format!(
        "| a key by its secret | {:.0} | {:.0} |",
        key(&small, SMALL.keys),
        key(&large, LARGE.keys)
    ));
    say(&format!(
        "| an alias by its name | {:.0} | {:.0} |",
        alias(&small, SMALL.aliases),
        alias(&large, LARGE.aliases)
    ));
    Ok(())
}

fn nanoseconds(runs: u32, mut work: impl FnMut(u32)) -> f64 {
    let began = Instant::now();
    (0..runs).for_each(&mut work);
    began.elapsed().as_secs_f64() * 1e9 / f64::from(runs)
}

fn report(
    what: &str,
    runs: u32,
    mut work: impl FnMut() -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut times = Vec::new();
    for _ in 0..runs {
        let began = Instant::now();
        work()?;
        times.push(began.elapsed());
    }
    times.sort_unstable();
    let ms = |time: Option<&Duration>| time.map_or(0.0, |time| time.as_secs_f64() * 1e3);
    say(&format!(
        "| {what} | {:.1} | {:.1} |",
        ms(times.get(times.len() / 2)),
        ms(times.last())
    ));
    Ok(())
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // Nobody to tell when standard output is closed.
    drop(out.write_all(line.as_bytes()));
    drop(out.write_all(b"\n"));
}
