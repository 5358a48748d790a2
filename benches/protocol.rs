//! What the pure steps of a request cost, one by one, in nanoseconds.
//!
//! `cargo bench --bench protocol`; words after `--` choose by what a line's
//! name contains. With `--smoke` (or `PLEXUS_BENCH_SMOKE=1`) each step runs a
//! few times only.

use std::fmt::Write as _;
use std::hint::black_box;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method};
use plexus::auth;
use plexus::config::{self, Config};
use plexus::protocol::adapt::{self, Adapter, Chain, Destination, Entry};
use plexus::protocol::json::Tape;
use plexus::protocol::meter::Meter;
use plexus::protocol::notes::Notes;
use plexus::protocol::path::Path as FieldPath;
use plexus::protocol::repair::{self, Fix, Only};
use plexus::protocol::sse::Aligner;
use plexus::protocol::{Protocol, peek, splice};
use plexus::router::Router;
use plexus::routes::ROUTES;
use plexus::routing::dice::Dice;
use plexus::routing::{Asked, Switchboard};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A large body arrives in pieces of about this size.
const FRAME: usize = 64 * 1024;
/// Events of a stream.
const EVENTS: usize = 200;
const KEYS: usize = 1_000;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let smoke = arguments.iter().any(|word| word == "--smoke")
        || std::env::var_os("PLEXUS_BENCH_SMOKE").is_some_and(|value| value == "1");
    let words = arguments.into_iter().filter(|word| !word.starts_with('-'));
    let bench = Bench {
        words: words.collect(),
        batch: Duration::from_millis(if smoke { 1 } else { 40 }),
        batches: if smoke { 2 } else { 15 },
    };
    bench.say("| step | ns, median | ns, least |\n|---|--:|--:|");
    requests(&bench)?;
    changes(&bench)?;
    answers(&bench);
    look_ups(&bench)
}

/// Adapters and repairs on an agent's conversation of about a megabyte.
fn changes(bench: &Bench) -> Result<(), Failure> {
    let turn = r#"{"role":"assistant","content":[{"type":"tool_use","id":"toolu_01","name":"read","input":{"path":"a"}}]},{"role":"user","content":[{"type":"tool_result","tool_use_id":"toolu_01","content":"FILL"}]}"#
        .replace("FILL", &"some text, \\\"quoted\\\" now and then ".repeat(200));
    let turns = vec![turn; 140].join(",");
    let body = Bytes::from(format!(
        r#"{{"model":"m","seed":1,"messages":[{turns}],"max_tokens":9}}"#
    ));
    let frames: Vec<Bytes> = (0..body.len())
        .step_by(FRAME)
        .map(|at| body.slice(at..body.len().min(at + FRAME)))
        .collect();
    let to = |host, model| Destination {
        protocol: Protocol::Messages,
        host,
        model,
        version: None,
    };
    let none = Chain::default();
    let roles = none.with([Entry::On(Adapter::StripToolSearch)]);
    let adapted = |name: &str, chain: &Chain, to| {
        bench.step(name, 1, || {
            adapt::adapt(chain, to, black_box(frames.clone()), &mut Notes::new())
        });
    };
    adapted("adapt, nothing to do", &none, to("host.test", "m"));
    adapted(
        "adapt, tool ids looked at, 1 MB",
        &none,
        to("api.anthropic.com", "m"),
    );
    adapted(
        "adapt, tool search looked for, 1 MB",
        &roles,
        to("host.test", "m"),
    );
    let path = FieldPath::parse("seed").ok_or("no path")?;
    let only = Only::Always;
    let fixes = [Fix::Remove { path, only }];
    bench.step("a learned field removed, 1 MB", 1, || {
        let mut tape = Tape::new();
        let root = tape.parse_bytes(&body).ok()?;
        let edits = repair::apply(&fixes, Protocol::Messages, root, &mut Notes::new())?;
        Some(splice::apply(
            std::slice::from_ref(&body),
            edits.into_patches(),
        ))
    });
    Ok(())
}

/// How long to measure, and which steps.
struct Bench {
    words: Vec<String>,
    batch: Duration,
    batches: usize,
}

impl Bench {
    /// Runs a step in batches and prints what one costs; a run of the step is
    /// divided into `parts`.
    fn step<T>(&self, name: &str, parts: usize, mut step: impl FnMut() -> T) {
        if !self.words.is_empty() && !self.words.iter().any(|word| name.contains(&**word)) {
            return;
        }
        let mut runs: u32 = 1;
        while time(runs, &mut step) < self.batch / 2 && runs < 1 << 28 {
            runs *= 2;
        }
        let mut costs: Vec<f64> = (0..self.batches)
            .map(|_| time(runs, &mut step).as_secs_f64() * 1e9 / f64::from(runs) / parts as f64)
            .collect();
        costs.sort_unstable_by(f64::total_cmp);
        let median = costs.get(costs.len() / 2).copied().unwrap_or(f64::NAN);
        let least = costs.first().copied().unwrap_or(f64::NAN);
        self.say(&format!("| {name} | {median:.0} | {least:.0} |"));
    }

    fn say(&self, line: &str) {
        drop(writeln!(std::io::stdout().lock(), "{line}"));
    }
}

fn time<T>(runs: u32, step: &mut impl FnMut() -> T) -> Duration {
    let began = Instant::now();
    for _ in 0..runs {
        black_box(step());
    }
    began.elapsed()
}

/// A chat request of that size, as it arrives.
fn request(size: usize, model_first: bool, said: &str) -> Result<Vec<Bytes>, Failure> {
    let prose = "Look at both ends.\n\tlet at = text.find(\"\\n\\n\")?; // «naïve», 日本 🙂\n";
    let mut text = String::with_capacity(size + 256);
    while text.len() < size / 2 {
        text.push_str(prose);
    }
    text.push_str(said);
    while text.len() < size {
        text.push_str(prose);
    }
    let messages = serde_json::json!([{ "role": "user", "content": text }]);
    let body = if model_first {
        format!(r#"{{"model":"bench-model","messages":{messages},"stream":false}}"#)
    } else {
        format!(r#"{{"messages":{messages},"model":"bench-model","stream":false}}"#)
    };
    let body = Bytes::from(body);
    let cuts = (0..body.len()).step_by(FRAME);
    Ok(cuts
        .map(|start| body.slice(start..(start + FRAME).min(body.len())))
        .collect())
}

fn requests(bench: &Bench) -> Result<(), Failure> {
    let talk = "set \"model\": \"x\" in the body";
    let cases = [
        ("1 KB", 800, false, ""),
        ("1 MB, model behind", 950_000, false, ""),
        ("1 MB, model in front", 950_000, true, ""),
        ("1 MB, the text speaks of \"model\"", 950_000, false, talk),
        ("10 MB, model behind", 9_500_000, false, ""),
        ("10 MB, model in front", 9_500_000, true, ""),
    ];
    for (name, size, model_first, said) in cases {
        let frames = request(size, model_first, said)?;
        let peeked = peek::peek(&frames)?;
        if peeked.model() != Some("bench-model") {
            return Err(format!("{name}: {peeked:?}").into());
        }
        bench.step(&format!("peek, {name}"), 1, || peek::peek(&frames));
        bench.step(&format!("splice, {name}"), 1, || {
            let patch = splice::set_model(&peeked, "the-name-at-the-provider");
            splice::apply(&frames, patch.into_iter().collect())
        });
    }
    Ok(())
}

/// A stream as a provider sends it, about 300 bytes an event.
fn events() -> Vec<Bytes> {
    let event = |delta: &str, end: &str| {
        Bytes::from(format!(
            "data: {{\"id\":\"chatcmpl-0123456789abcdefghijklmn\",\"object\":\"chat.completion.chunk\",\
             \"created\":1760000000,\"model\":\"gpt-bench-2025-10-01\",\"service_tier\":\"default\",\
             \"system_fingerprint\":\"fp_0123456789\",\"choices\":[{{\"index\":0,\"delta\":{delta},\
             \"logprobs\":null,\"finish_reason\":{end}}}],\"usage\":null}}\n\n"
        ))
    };
    let mut events = vec![event(r#"{"content":" the quick brown fox"}"#, "null"); EVENTS - 2];
    events.push(event("{}", "\"stop\""));
    events.push(Bytes::from_static(
        b"data: {\"choices\":[],\"usage\":{\"prompt_tokens\":900,\"completion_tokens\":200,\"total_tokens\":1100}}\n\ndata: [DONE]\n\n",
    ));
    events
}

fn answers(bench: &Bench) {
    let events = events();
    let stream = Bytes::from(events.concat());
    let torn: Vec<Bytes> = (0..stream.len())
        .step_by(1400)
        .map(|start| stream.slice(start..(start + 1400).min(stream.len())))
        .collect();
    let cuts = [("one by one", &events), ("in pieces of 1400 bytes", &torn)];
    for (how, pieces) in cuts {
        bench.step(&format!("align, an event, {how}"), EVENTS, || align(pieces));
        bench.step(&format!("meter, an event, {how}"), EVENTS, || {
            meter(pieces, true)
        });
        bench.step(&format!("align and meter, an event, {how}"), EVENTS, || {
            (align(pieces), meter(pieces, true))
        });
    }
    for (name, size) in [("1 KB", 700), ("1 MB", 1_000_000)] {
        let text = "the quick brown fox \\\"jumps\\\" over\\n ".repeat(size / 36);
        let answer = Bytes::from(format!(
            "{{\n  \"id\": \"chatcmpl-0123456789\",\n  \"choices\": [{{\"index\": 0, \"message\": {{\"role\": \
             \"assistant\", \"content\": \"{text}\"}}, \"finish_reason\": \"stop\"}}],\n  \"usage\": \
             {{\"prompt_tokens\": 900, \"completion_tokens\": 200}}\n}}\n"
        ));
        let pieces: Vec<Bytes> = (0..answer.len())
            .step_by(FRAME)
            .map(|start| answer.slice(start..(start + FRAME).min(answer.len())))
            .collect();
        bench.step(&format!("meter, an answer of {name}"), 1, || {
            meter(&pieces, false)
        });
    }
}

fn align(pieces: &[Bytes]) -> usize {
    let mut aligner = Aligner::new();
    let mut bytes = 0;
    for piece in pieces {
        aligner.push(piece.clone(), |whole| bytes += whole.len());
    }
    aligner.finish(|whole| bytes += whole.len());
    bytes
}

fn meter(pieces: &[Bytes], streaming: bool) -> Meter {
    let mut meter = Meter::new(Protocol::Chat, streaming);
    for piece in pieces {
        meter.push(piece);
    }
    black_box(meter.finish());
    meter
}

fn look_ups(bench: &Bench) -> Result<(), Failure> {
    let config = configuration()?;
    let mut headers = HeaderMap::new();
    headers.insert(USER_AGENT, HeaderValue::from_static("OpenAI/Python 2.6.1"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(
        AUTHORIZATION,
        HeaderValue::try_from(format!("Bearer {}", secret(7)))?,
    );
    let found = auth::caller(&config, &headers, None, None, 0);
    let caller = found.map_err(|denied| format!("the key is refused: {denied:?}"))?;
    bench.step(&format!("authenticate, {KEYS} keys"), 1, || {
        auth::caller(&config, &headers, None, None, 0)
    });
    headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer sk-none"));
    bench.step("authenticate, an unknown key", 1, || {
        auth::caller(&config, &headers, None, None, 0)
    });
    let switchboard = Switchboard::new(&config, Instant::now(), 1);
    let mut dice = Dice::new(1);
    let asked = Asked {
        model: "bench-model",
        protocol: Protocol::Chat,
        now: 1,
        explores: true,
        native_first: false,
    };
    switchboard
        .resolve(&config, &caller.key, asked, &mut dice)
        .map_err(|unresolved| unresolved.to_string())?;
    bench.step("resolve an alias", 1, || {
        switchboard.resolve(&config, &caller.key, asked, &mut dice)
    });
    let router = Router::new(
        ROUTES
            .iter()
            .map(|route| (route.method.clone(), route.pattern)),
    );
    let paths = [
        (Method::POST, "/v1/chat/completions"),
        (
            Method::POST,
            "/v1beta/models/gemini-pro:streamGenerateContent",
        ),
        (Method::GET, "/v0/management/keys/somebody"),
        (Method::GET, "/favicon.ico"),
    ];
    for (method, path) in paths {
        bench.step(&format!("route, {method} {path}"), 1, || {
            router.find(&method, path)
        });
    }
    Ok(())
}

fn secret(number: usize) -> String {
    format!("sk-bench-{number:08}-0123456789abcdef")
}

fn configuration() -> Result<Config, Failure> {
    let mut text = String::from(
        "adminKey: admin-bench-0123456789abcdef\n\
         providers: { p: { api_base_url: \"http://127.0.0.1:1/v1\", api_key: sk-p } }\n\
         models: { bench-model: { targets: [ { provider: p, model: m } ] } }\nkeys:\n",
    );
    for number in 0..KEYS {
        writeln!(text, "  key-{number}: {{ secret: {} }}", secret(number))?;
    }
    config::check(&text, &|_| None, Path::new("."))
        .map_err(|faults| config::describe(&faults, "bench").into())
}
