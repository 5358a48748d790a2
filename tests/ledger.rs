//! The books: what the rows say was used and paid is what the provider says it
//! served, to the last token and the last nano-dollar, whatever became of the
//! requests and of the process.

#![expect(
    clippy::unwrap_used,
    reason = "in helpers of tests a failure is the test's failure"
)]

mod support;

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use std::{fs, thread};

use parking_lot::Mutex;
use plexus::simulate::{self, Served};
use plexus::store::{Options, Record, Store, UsageQuery};
use serde_json::Value;
use support::dialect::Dialect;
use support::{ADMIN, Client, Gateway, PATIENCE, Provider, Response, Stream, await_some};

/// US cents per million tokens, so that every token costs whole nano-dollars:
/// input, output, read from the cache, written to it.
const CENTS: [u64; 4] = [300, 1500, 30, 375];
/// Requests of the whole test, and of one thread.
const REQUESTS: usize = 1000;
const THREADS: usize = 8;
/// What may be lost of the last rows when the process is killed.
const LOST: Duration = Duration::from_millis(50);

/// What models report; the last parts of their names.
const NUMBERS: [&str; 5] = [
    "tokens_in=100+tokens_out=50",
    "tokens_in=1234567+tokens_out=98765",
    "tokens_in=4000+tokens_out=17+cached=3000",
    "tokens_in=777+tokens_out=333+cached=77+cache_write=700+reasoning_tokens=111+reasoning",
    "tokens_in=9+tokens_out=901+reasoning_tokens=900+reasoning+tools=2",
];

/// What may become of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// It is answered, by the provider that was asked first.
    Answered,
    /// It is answered by the second; the first refuses.
    Again,
    /// Its client leaves in the middle of the answer.
    Left,
    /// The provider fails.
    Failed,
}

/// Options that stand at the end of the names of models that are not to answer.
const LEAVE: &str = "+chunks=9+silent_after=7";
const FAIL: [&str; 4] = ["+status=503", "+close=40", "+error=content", "+status=400"];

#[derive(Clone, Debug)]
struct Request {
    id: String,
    kind: Kind,
    dialect: Dialect,
    stream: bool,
    model: String,
}

/// Numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % bound
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    fn request(&mut self, id: String) -> Request {
        let kind = self.of(&[
            Kind::Answered,
            Kind::Answered,
            Kind::Answered,
            Kind::Again,
            Kind::Left,
            Kind::Failed,
        ]);
        let provider = self.of(&Dialect::FOUR);
        // Calls are too few events to leave in the middle of.
        let choice = NUMBERS.len() - usize::from(kind == Kind::Left);
        let numbers = self.below(choice);
        let name = name(provider, numbers);
        let direct = |options: &str| format!("direct/{}/{name}{options}", provider.name());
        let model = match kind {
            Kind::Answered => direct(""),
            Kind::Again => format!("again-{}-{numbers}", provider.name()),
            Kind::Left => direct(LEAVE),
            Kind::Failed => direct(self.of(&FAIL)),
        };
        let streams = [
            Dialect::Chat,
            Dialect::Responses,
            Dialect::Messages,
            Dialect::Gemini,
        ];
        Request {
            id,
            kind,
            dialect: self.of(&streams),
            stream: kind == Kind::Left || self.below(2) == 0,
            model,
        }
    }
}

/// A model that only one provider has, so that the provider's account of it is in
/// that provider's words.
fn name(provider: Dialect, numbers: usize) -> String {
    format!("{}-{numbers}+{}", provider.name(), NUMBERS[numbers])
}

/// A provider for each protocol, and aliases that begin with one that refuses.
fn file(simulator: SocketAddr) -> String {
    let rate = |cents: u64| format!("{}.{:02}", cents / 100, cents % 100);
    let [input, output, cached, written] = CENTS.map(rate);
    let pricing = format!(
        "{{ source: simple, input: {input}, output: {output}, cached: {cached}, cache_write: {written} }}"
    );
    let (mut providers, mut models) = (String::new(), String::new());
    for provider in Dialect::FOUR {
        let own = provider.name();
        let path = if provider == Dialect::Gemini {
            ""
        } else {
            "/v1"
        };
        write!(
            providers,
            "  {own}:\n    api_base_url: {{ {own}: 'http://{simulator}{path}' }}\n    \
             api_key: up-{own}\n    disable_cooldown: true\n    models:\n"
        )
        .unwrap();
        for numbers in 0..NUMBERS.len() {
            let name = name(provider, numbers);
            for options in ["", LEAVE].iter().chain(&FAIL) {
                writeln!(
                    providers,
                    "      '{name}{options}': {{ pricing: {pricing} }}"
                )
                .unwrap();
            }
            writeln!(
                models,
                "  again-{own}-{numbers}: {{ sticky_session: false, selector: in_order, targets: [\
                 {{ provider: {own}, model: '{name}+status=503' }}, {{ provider: {own}, model: '{name}' }}] }}"
            )
            .unwrap();
        }
    }
    format!(
        "catalogue: {{ enabled: false }}\nproviders:\n{providers}models:\n{models}keys:\n  app: {{ secret: sk-plexus-tests }}\n"
    )
}

fn ask(client: &Client, request: &Request) -> Stream {
    let (path, body) = request.dialect.ask(&request.model, request.stream);
    let headers = [
        ("authorization", "Bearer sk-plexus-tests"),
        ("content-type", "application/json"),
        ("x-client-request-id", &*request.id),
    ];
    client.stream("POST", &path, &headers, body.to_string().as_bytes())
}

/// Sends it, and does what its client would.
fn carry_out(client: &Client, request: &Request) {
    let mut stream = ask(client, request);
    match request.kind {
        Kind::Answered | Kind::Again => {
            let answer: Response = stream.finish();
            assert_eq!(answer.status, 200, "{request:?}: {}", answer.text());
        }
        Kind::Left => {
            stream.chunk().unwrap();
            stream.leave();
        }
        Kind::Failed => drop(stream.rest()),
    }
}

fn text<'a>(row: &'a Record, name: &str) -> &'a str {
    row[name].as_str().unwrap_or_default()
}

fn count(row: &Record, name: &str) -> u64 {
    row[name].as_u64().unwrap_or(0)
}

/// Dollars of a row in nano-dollars; rows show ten of them at the least.
fn nanos(row: &Record, name: &str) -> u64 {
    (row[name].as_f64().unwrap_or(0.0) * 1e8).round() as u64 * 10
}

/// Input, output with reasoning, read from and written to the cache.
type Buckets = [u64; 4];

fn buckets_of_row(row: &Record) -> Buckets {
    [
        count(row, "tokensInput"),
        count(row, "tokensOutput") + count(row, "tokensReasoning"),
        count(row, "tokensCached"),
        count(row, "tokensCacheWrite"),
    ]
}

/// Gemini's caches are written by calls of their own.
fn buckets_served(model: &str, served: &Served) -> Buckets {
    let written = if model.starts_with("gemini") {
        0
    } else {
        served.cache_write
    };
    [
        served.tokens_in - served.cached - written,
        served.tokens_out,
        served.cached,
        written,
    ]
}

/// What buckets cost by the price list, in nano-dollars.
fn cost(buckets: Buckets) -> u64 {
    let parts = buckets.iter().zip(CENTS);
    parts.map(|(tokens, cents)| tokens * cents * 10).sum()
}

/// Every row adds up for itself, whatever became of its request.
fn each_adds_up(rows: &[Record]) {
    for row in rows {
        let parts = ["costInput", "costOutput", "costCached", "costCacheWrite"];
        let sum: u64 = parts.iter().map(|part| nanos(row, part)).sum();
        let total = nanos(row, "costTotal");
        assert_eq!(sum, total, "{row:?}");
        if row["costSource"] == "simple" {
            assert_eq!(total, cost(buckets_of_row(row)), "{row:?}");
        } else {
            assert_eq!((&row["costSource"], total), (&Value::Null, 0), "{row:?}");
        }
    }
}

/// Answered rows by the model that answered: how many, their buckets, their cost.
fn totals(rows: &[Record]) -> BTreeMap<String, (u64, Buckets, u64)> {
    let mut totals: BTreeMap<String, (u64, Buckets, u64)> = BTreeMap::new();
    for row in rows.iter().filter(|row| row["responseStatus"] == "success") {
        let total = totals
            .entry(text(row, "selectedModelName").to_owned())
            .or_default();
        total.0 += 1;
        for (sum, bucket) in total.1.iter_mut().zip(buckets_of_row(row)) {
            *sum += bucket;
        }
        total.2 += nanos(row, "costTotal");
    }
    totals
}

/// The provider's own account, priced.
fn account(served: &BTreeMap<String, Served>) -> BTreeMap<String, (u64, Buckets, u64)> {
    let answered = served.iter().filter(|(_, served)| served.answers > 0);
    let priced = answered.map(|(model, served)| {
        let buckets = buckets_served(model, served);
        (model.clone(), (served.answers, buckets, cost(buckets)))
    });
    priced.collect()
}

fn expected(kind: Kind, row: &Record) -> bool {
    let status = text(row, "responseStatus");
    match kind {
        Kind::Answered => status == "success" && row["attemptCount"] == 1,
        Kind::Again => status == "success" && row["attemptCount"] == 2,
        Kind::Left => status == "cancelled",
        Kind::Failed => status == "error",
    }
}

#[test]
fn a_thousand_requests_are_booked_as_the_provider_served_them() {
    let provider = Provider::start(simulate::Options::default());
    let gateway = Gateway::on_cores(&file(provider.address), &[], 2);
    let requests: Vec<Request> = {
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
        (0..REQUESTS)
            .map(|n| dice.request(format!("r{n}")))
            .collect()
    };
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some(request) = requests.get(next.fetch_add(1, Ordering::Relaxed)) {
                    carry_out(&gateway.client(), request);
                }
            });
        }
    });
    await_some("the provider to be let go", || {
        (provider.simulator.stats().in_flight == 0).then_some(())
    });
    let rows = await_some("all rows", || {
        gateway.app.store.flush(PATIENCE).unwrap();
        let rows = gateway
            .app
            .store
            .usage(&UsageQuery::default())
            .unwrap()
            .data;
        (rows.len() >= REQUESTS).then_some(rows)
    });
    let by_id: HashMap<&str, &Record> = rows
        .iter()
        .map(|row| (text(row, "clientRequestId"), row))
        .collect();
    assert_eq!((rows.len(), by_id.len()), (REQUESTS, REQUESTS));
    for request in &requests {
        let row = by_id[&*request.id];
        assert!(expected(request.kind, row), "{request:?}: {row:?}");
    }
    each_adds_up(&rows);
    assert_eq!(totals(&rows), account(&provider.simulator.stats().served));
    // What the metrics add up is the same.
    let page = gateway.admin("GET", "/v0/management/metrics", &Value::Null);
    let told: f64 = page
        .text()
        .lines()
        .filter_map(|line| {
            line.strip_prefix("plexus_provider_cost_usd_total{")?
                .split_once("} ")
        })
        .map(|(_, dollars)| dollars.parse::<f64>().unwrap())
        .sum();
    let booked: u64 = rows.iter().map(|row| nanos(row, "costTotal")).sum();
    assert_eq!((told * 1e9).round() as u64, booked);
}

/// The program itself, as a process that can be killed.
struct Process {
    child: Child,
    address: SocketAddr,
}

impl Process {
    fn start(folder: &Path) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let mut child = Command::new(env!("CARGO_BIN_EXE_plexus"))
            .args(["serve", "--threads", "2", "--config"])
            .arg(folder.join("plexus.yaml"))
            .env("ADMIN_KEY", ADMIN)
            .env("HOST", "127.0.0.1")
            .env("PORT", address.port().to_string())
            .env("LOG_LEVEL", "error")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        await_some("the process to listen", || {
            assert!(child.try_wait().unwrap().is_none(), "it ended");
            TcpStream::connect(address).ok()
        });
        Self { child, address }
    }

    /// As `kill -9`: nothing is written any more.
    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// As `kill`: what is known is written.
    fn stop(mut self) {
        let asked = Command::new("kill")
            .arg(self.child.id().to_string())
            .status();
        assert!(asked.unwrap().success());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Sends requests that are all answered until `enough` says so; tells which were
/// answered when.
fn work(
    address: SocketAddr,
    run: &str,
    enough: impl Fn(usize) -> bool + Sync,
) -> Vec<(Request, Instant)> {
    let done = Mutex::new(Vec::new());
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for thread in 0..THREADS as u64 {
            let (done, next, enough) = (&done, &next, &enough);
            scope.spawn(move || {
                let mut dice = Dice(0x2545_f491_4f6c_dd1d ^ (thread + 1));
                let client = Client::of(address);
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if enough(number) {
                        return;
                    }
                    let mut request = dice.request(format!("{run}{number}"));
                    while !matches!(request.kind, Kind::Answered | Kind::Again) {
                        request = dice.request(request.id);
                    }
                    let Ok(()) = std::panic::catch_unwind(|| carry_out(&client, &request)) else {
                        // The process was killed under it.
                        return;
                    };
                    done.lock().push((request, Instant::now()));
                }
            });
        }
    });
    done.into_inner()
}

fn booked(folder: &Path) -> Vec<Record> {
    let store = Store::open(&folder.join("data/plexus.db"), Options::default()).unwrap();
    store.usage(&UsageQuery::default()).unwrap().data
}

fn by_client(rows: &[Record]) -> HashMap<String, &Record> {
    let all: HashMap<String, &Record> = rows
        .iter()
        .map(|row| (text(row, "clientRequestId").to_owned(), row))
        .collect();
    assert_eq!(all.len(), rows.len(), "a request is booked twice");
    all
}

/// Rows of a process that was killed: none says more than the provider served.
fn says_no_more(rows: &[Record], served: &BTreeMap<String, Served>) {
    let account = account(served);
    for (model, (count, ..)) in totals(rows) {
        let (answers, all, _) = account[&model];
        assert!(count <= answers, "{model}");
        // All answers of a model are the same.
        let one = all.map(|bucket| bucket / answers);
        for row in rows.iter().filter(|row| row["selectedModelName"] == *model) {
            if row["responseStatus"] == "success" {
                assert_eq!(buckets_of_row(row), one, "{model}");
            }
        }
    }
}

/// How late the machine wakes those who sleep: no promise can undo that.
struct Lateness(Mutex<Vec<(Instant, Duration)>>);

impl Lateness {
    /// Looks until the end says so.
    fn watch(&self, ended: &AtomicBool) {
        const NAP: Duration = Duration::from_millis(10);
        while !ended.load(Ordering::Relaxed) {
            let due = Instant::now() + NAP;
            thread::sleep(NAP);
            let now = Instant::now();
            self.0.lock().push((now, now - due));
        }
    }

    /// The most of the moments before that one. A row waits for two naps and for
    /// the disk.
    fn before(&self, moment: Instant) -> Duration {
        let naps = self.0.lock();
        let last = naps.iter().filter(|(at, _)| *at + 4 * LOST > moment);
        3 * last.map(|(_, late)| *late).max().unwrap_or_default()
    }
}

#[test]
fn a_killed_process_loses_at_most_its_last_moment_and_the_next_goes_on() {
    let provider = Provider::start(simulate::Options::default());
    let folder = tempfile::tempdir().unwrap();
    let config: PathBuf = folder.path().join("plexus.yaml");
    fs::write(&config, file(provider.address)).unwrap();

    let process = Process::start(folder.path());
    let address = process.address;
    let (killed, process) = (Mutex::new(None), Mutex::new(Some(process)));
    let (lateness, ended) = (Lateness(Mutex::default()), AtomicBool::new(false));
    let answered = thread::scope(|scope| {
        scope.spawn(|| lateness.watch(&ended));
        let answered = work(address, "first-", |number| {
            if number == REQUESTS / 2
                && let Some(process) = process.lock().take()
            {
                *killed.lock() = Some(Instant::now());
                process.kill();
            }
            number > REQUESTS / 2
        });
        ended.store(true, Ordering::Relaxed);
        answered
    });
    let killed = killed.into_inner().unwrap();
    let lost = LOST + lateness.before(killed);
    await_some("the provider to be let go", || {
        (provider.simulator.stats().in_flight == 0).then_some(())
    });
    let rows = booked(folder.path());
    let by_id = by_client(&rows);
    let mut held = 0;
    for (request, at) in &answered {
        if *at + lost < killed {
            let row = by_id.get(&request.id);
            let row = row.unwrap_or_else(|| panic!("{request:?} is not booked"));
            assert!(expected(request.kind, row), "{request:?}: {row:?}");
            held += 1;
        }
    }
    assert!(held > 0, "nothing was old enough");
    each_adds_up(&rows);
    let before = provider.simulator.stats().served;
    says_no_more(&rows, &before);
    drop(rows);

    // The next process goes on with the same books.
    let process = Process::start(folder.path());
    let answered = work(process.address, "second-", |number| number >= REQUESTS / 2);
    assert_eq!(answered.len(), REQUESTS / 2);
    process.stop();
    let rows = booked(folder.path());
    by_client(&rows);
    let second: Vec<Record> = rows
        .into_iter()
        .filter(|row| text(row, "clientRequestId").starts_with("second-"))
        .collect();
    assert_eq!(second.len(), REQUESTS / 2);
    each_adds_up(&second);
    let after = provider.simulator.stats().served;
    assert_eq!(totals(&second), account(&since(&after, &before)));
}

/// What was served after an account was taken.
fn since(
    after: &BTreeMap<String, Served>,
    before: &BTreeMap<String, Served>,
) -> BTreeMap<String, Served> {
    let difference = after.iter().map(|(model, after)| {
        let before = before.get(model).copied().unwrap_or_default();
        let served = Served {
            answers: after.answers - before.answers,
            tokens_in: after.tokens_in - before.tokens_in,
            tokens_out: after.tokens_out - before.tokens_out,
            cached: after.cached - before.cached,
            cache_write: after.cache_write - before.cache_write,
            reasoning_tokens: after.reasoning_tokens - before.reasoning_tokens,
        };
        (model.clone(), served)
    });
    difference.collect()
}
