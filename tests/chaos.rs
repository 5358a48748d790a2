//! Five providers that each fail in a way of their own, recover, and fail
//! again, under thousands of streamed requests. Every client gets one clean
//! answer or one typed error; nothing is said twice, nothing leaks.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "in helpers of tests a failure is the test's failure"
)]

mod support;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use support::dialect::{Dialect, Ending};
use support::upstream::{Upstream, Wire};
use support::{Gateway, Response};

const REQUESTS: usize = 10_000;
const CLIENTS: usize = 12;
/// A provider fails for so many requests, then works for as many.
const PHASE: usize = 40;
/// What the purse of second tries holds at the start.
const SAVED: usize = 100;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Refuses,
    Limits,
    Resets,
    ErrorFirst,
    BreaksOff,
}

const FAULTS: [Fault; 5] = [
    Fault::Refuses,
    Fault::Limits,
    Fault::Resets,
    Fault::ErrorFirst,
    Fault::BreaksOff,
];

fn provider((place, fault): (usize, Fault)) -> Upstream {
    let count = AtomicUsize::new(0);
    Upstream::start(move |mut wire| {
        while wire.request().is_some() {
            let number = count.fetch_add(1, Ordering::SeqCst);
            let fails = ((number + place * PHASE / 2) / PHASE).is_multiple_of(2);
            if !serve(&mut wire, fault, fails, number) {
                return;
            }
        }
    })
}

/// Answers a request; false when the connection is at its end.
fn serve(wire: &mut Wire, fault: Fault, fails: bool, number: usize) -> bool {
    const LIMITED: &[u8] = b"HTTP/1.1 429 Too Many Requests\r\nretry-after: 1\r\ncontent-type: application/json\r\ncontent-length: 34\r\n\r\n{\"error\":{\"message\":\"slow down ..\"}}";
    match fault {
        _ if !fails => {}
        Fault::Refuses => {
            wire.answer("500 Oops", "{\"error\":{\"message\":\"broken\"}}");
            return true;
        }
        Fault::Limits => {
            wire.write(LIMITED);
            return false;
        }
        Fault::Resets => {
            // Something of a head, so that nobody takes it for a connection
            // that lay idle for too long.
            wire.write(b"HTTP/1.1 200 OK\r\n");
            return false;
        }
        Fault::ErrorFirst => {
            stream(
                wire,
                &["data: {\"error\":{\"message\":\"overloaded\",\"code\":503}}\n\n".into()],
            );
            return true;
        }
        Fault::BreaksOff => {
            wire.write(HEAD);
            for event in &events(fault, number)[..3] {
                wire.write(chunk(event).as_bytes());
            }
            return false;
        }
    }
    stream(wire, &events(fault, number));
    true
}

const HEAD: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

fn stream(wire: &mut Wire, events: &[String]) {
    wire.write(HEAD);
    for event in events {
        wire.write(chunk(event).as_bytes());
    }
    wire.write(b"0\r\n\r\n");
}

fn chunk(event: &str) -> String {
    format!("{:x}\r\n{event}\r\n", event.len())
}

/// An answer whose text says whose it is, so that a piece that is there twice,
/// or not at all, or from another answer, can be seen.
fn events(fault: Fault, number: usize) -> Vec<String> {
    let event = |delta: Value, finish: Value| {
        let data = json!({ "id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
            "choices": [{ "index": 0, "delta": delta, "finish_reason": finish }] });
        format!("data: {data}\n\n")
    };
    let text = |text: String| event(json!({ "content": text }), Value::Null);
    vec![
        event(json!({ "role": "assistant", "content": "" }), Value::Null),
        text(format!("<{fault:?}-{number}:")),
        text("one ".into()),
        text("two ".into()),
        text("three".into()),
        text(format!(":{fault:?}-{number}>")),
        event(json!({}), json!("stop")),
        "data: [DONE]\n\n".into(),
    ]
}

fn file(providers: &[Upstream]) -> String {
    let mut text = String::from("providers:\n");
    let mut targets = String::new();
    for (fault, upstream) in FAULTS.iter().zip(providers) {
        // Rests are counted in minutes; phases here are short. The one that says
        // when to come back rests, the others are tried again and again.
        let rests = *fault != Fault::Limits;
        text += &format!(
            "  {fault:?}: {{ api_base_url: 'http://{}/v1', api_key: k, maxConcurrency: 8, disable_cooldown: {rests} }}\n",
            upstream.address
        );
        targets += &format!("      - {{ provider: {fault:?}, model: m }}\n");
    }
    text + &format!(
        "models:\n  a:\n    selector: random\n    targets:\n{targets}keys: {{ app: {{ secret: sk-plexus-tests }} }}\n"
    )
}

/// What one client saw.
#[derive(Default)]
struct Seen {
    clean: usize,
    broken: usize,
    refused: usize,
    attempts: usize,
    in_vain: usize,
    texts: Vec<String>,
}

impl std::fmt::Debug for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            clean,
            broken,
            refused,
            attempts,
            in_vain,
            ..
        } = self;
        write!(
            f,
            "{clean} clean, {broken} broken, {refused} refused, {attempts} attempts, {in_vain} in vain"
        )
    }
}

impl Seen {
    fn take(&mut self, answer: &Response) {
        let route = answer.header("x-plexus-route").unwrap();
        let attempts: usize = route.rsplit('=').next().unwrap().parse().unwrap();
        self.attempts += attempts;
        if answer.status != 200 {
            let body = answer.json();
            assert!(
                answer.status >= 400 && body["error"]["message"].is_string(),
                "{body}"
            );
            assert!(answer.header("x-plexus-error-source").is_some());
            self.refused += 1;
            self.in_vain += attempts.saturating_sub(1);
            return;
        }
        let text = text(&answer.body);
        match Dialect::Chat.ending(&answer.body) {
            Ending::Finished => {
                assert!(is_whole(&text), "{text}");
                self.clean += 1;
                self.texts.push(text);
            }
            Ending::Failed => {
                assert!(is_beginning(&text), "{text}");
                self.broken += 1;
            }
            other => panic!("{other:?}: {}", String::from_utf8_lossy(&answer.body)),
        }
    }

    fn add(&mut self, other: Self) {
        self.clean += other.clean;
        self.broken += other.broken;
        self.refused += other.refused;
        self.attempts += other.attempts;
        self.in_vain += other.in_vain;
        self.texts.extend(other.texts);
    }
}

fn text(body: &[u8]) -> String {
    let body = String::from_utf8_lossy(body);
    let data = body.lines().filter_map(|line| line.strip_prefix("data: "));
    let pieces = data.filter_map(|data| {
        let data: Value = serde_json::from_str(data).ok()?;
        Some(data["choices"][0]["delta"]["content"].as_str()?.to_owned())
    });
    pieces.collect()
}

fn is_whole(text: &str) -> bool {
    let inner = text
        .strip_prefix('<')
        .and_then(|text| text.strip_suffix('>'));
    let Some((name, rest)) = inner.and_then(|text| text.split_once(':')) else {
        return false;
    };
    rest == format!("one two three:{name}")
}

fn is_beginning(text: &str) -> bool {
    let Some((name, rest)) = text.strip_prefix('<').and_then(|text| text.split_once(':')) else {
        return text.is_empty();
    };
    format!("one two three:{name}>").starts_with(rest)
}

#[test]
fn every_client_gets_one_clean_answer_or_one_typed_error() {
    let providers: Vec<Upstream> = FAULTS.into_iter().enumerate().map(provider).collect();
    let gateway = Gateway::on_cores(&file(&providers), &[], 2);
    let left = Arc::new(AtomicUsize::new(REQUESTS));
    let mut seen = Seen::default();
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                scope.spawn(|| {
                    let mut seen = Seen::default();
                    while left
                        .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                            left.checked_sub(1)
                        })
                        .is_ok()
                    {
                        seen.take(&gateway.speak(Dialect::Chat, "a", true).finish());
                    }
                    seen
                })
            })
            .collect();
        for client in clients {
            seen.add(client.join().unwrap());
        }
    });
    assert_eq!(seen.clean + seen.broken + seen.refused, REQUESTS);
    // Now and then all five are out of order at once. One of five answers breaks
    // off half of the time, when nothing can be done about it any more.
    assert!(seen.refused * 10 < REQUESTS, "{seen:?}");
    assert!(seen.clean * 3 > REQUESTS * 2, "{seen:?}");
    let texts: HashSet<&String> = seen.texts.iter().collect();
    assert_eq!(
        texts.len(),
        seen.texts.len(),
        "an answer was given to two clients"
    );
    let hits: usize = providers.iter().map(Upstream::requests).sum();
    assert_eq!(hits, seen.attempts, "each attempt was one request");
    assert!(seen.in_vain <= SAVED + REQUESTS / 10, "{seen:?}");
    println!("{seen:?}");
    rests(&gateway);
}

/// One row each, and nothing is held any more.
fn rests(gateway: &Gateway) {
    let rows = gateway.rows(REQUESTS);
    assert_eq!(rows.len(), REQUESTS);
    let ids: HashSet<String> = rows
        .iter()
        .map(|row| row["requestId"].to_string())
        .collect();
    assert_eq!(ids.len(), REQUESTS);
    let switchboard = &gateway.app.switchboard;
    support::await_some("permits and gauges at zero", || {
        let houses = switchboard.standings.houses();
        let free = houses.iter().all(|house| house.permits.active() == 0);
        let quiet = gateway.app.metrics.running().is_empty();
        (free && quiet).then_some(())
    });
    for house in switchboard.standings.houses() {
        assert_eq!(house.permits.queued(), 0);
    }
}
