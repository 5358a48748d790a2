//! What a client sees when providers fail: before the first byte one clean
//! answer from the next target, after it an end that no SDK takes for a
//! finished answer.

#![expect(
    clippy::unwrap_used,
    reason = "in helpers of tests a failure is the test's failure"
)]

mod support;

use std::io::{Read, Write};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use support::dialect::{Dialect, Ending};
use support::upstream::{COMPLETION, Upstream, Wire, nobody};
use support::{Client, Gateway, Response, await_some, client};

/// Providers that speak all four protocols; `hasty` waits for nobody.
fn file(aliases: &str) -> String {
    let everywhere = |host: &str| {
        format!(
            "{{ chat: 'http://{host}/v1', responses: 'http://{host}/v1', \
             messages: 'http://{host}/v1', gemini: 'http://{host}' }}"
        )
    };
    let (here, down) = (everywhere("SIMULATOR"), everywhere(&nobody().to_string()));
    format!(
        "providers:\n\
         \x20 first: {{ api_base_url: {here}, disable_cooldown: true, api_key: up-first-secret }}\n\
         \x20 second: {{ api_base_url: {here}, disable_cooldown: true, api_key: up-second-secret }}\n\
         \x20 hasty: {{ api_base_url: {here}, disable_cooldown: true, api_key: up-hasty-secret, timeoutMs: 200 }}\n\
         \x20 down: {{ api_base_url: {down}, disable_cooldown: true, api_key: up-down-secret }}\n\
         models:\n\
         \x20 plain: {{ targets: [{{ provider: second, model: simulated }}] }}\n\
         {aliases}\
         keys:\n\
         \x20 app: {{ secret: sk-plexus-tests }}\n"
    )
}

/// An alias over these targets, in that order.
fn alias(name: &str, targets: &[(&str, &str)]) -> String {
    let targets: Vec<String> = targets
        .iter()
        .map(|(provider, model)| format!("{{ provider: {provider}, model: '{model}' }}"))
        .collect();
    format!(
        "  {name}: {{ selector: in_order, targets: [{}] }}\n",
        targets.join(", ")
    )
}

/// What the second target answers.
const SOUND: &str = "simulated+chunks=2";

/// A gateway with one alias for each fault, `fault-0` and so on, whose second
/// target is sound.
fn gateway_with(faults: &[(&str, &str)]) -> Gateway {
    let aliases: String = faults
        .iter()
        .enumerate()
        .map(|(i, (provider, model))| {
            alias(
                &format!("fault-{i}"),
                &[(provider, model), ("second", SOUND)],
            )
        })
        .collect();
    Gateway::with(&file(&aliases))
}

fn asked(gateway: &Gateway) -> Vec<String> {
    let requests = gateway.provider.simulator.requests();
    requests.into_iter().map(|request| request.target).collect()
}

/// What the provider itself answers.
fn ask_provider(gateway: &Gateway, dialect: Dialect, model: &str, stream: bool) -> Response {
    let (path, mut body) = dialect.ask(model, stream);
    if dialect == Dialect::Chat && stream {
        body["stream_options"] = json!({"include_usage": true});
    }
    let client = Client::of(gateway.provider.address);
    client.request(
        "POST",
        &path,
        &dialect.vendor_headers(),
        body.to_string().as_bytes(),
    )
}

fn row_of(gateway: &Gateway) -> Map<String, Value> {
    let rows = gateway.rows(1);
    assert_eq!(rows.len(), 1);
    rows.into_iter().next().unwrap()
}

#[track_caller]
fn is_sound(dialect: Dialect, stream: bool, answer: &Response, what: &str) {
    let text = String::from_utf8_lossy(&answer.body);
    assert_eq!(answer.status, 200, "{dialect:?} {what}: {text}");
    let route = answer.header("x-plexus-route");
    assert_eq!(
        route,
        Some("second/simulated+chunks=2; attempts=2"),
        "{dialect:?} {what}"
    );
    if stream {
        let ending = dialect.ending(&answer.body);
        assert_eq!(ending, Ending::Finished, "{dialect:?} {what}: {text}");
    } else {
        assert!(
            answer.json()["error"].is_null(),
            "{dialect:?} {what}: {text}"
        );
    }
}

#[test]
fn before_any_content_a_failed_stream_moves_on_and_the_client_sees_one_clean_answer() {
    let faults = [
        ("down", "simulated"),
        ("first", "m+reset=0"),
        ("first", "m+close=0"),
        ("first", "m+status=500"),
        ("first", "m+status=503"),
        ("first", "m+status=529"),
        ("first", "m+status=429+retry_after=30"),
        ("first", "m+status=401"),
        ("first", "m+status=402"),
        ("first", "m+status=403"),
        ("first", "m+status=404"),
        ("first", "m+status=302+location=http://127.0.0.1:1/"),
        ("first", "m+error=first"),
        ("first", "m+html"),
        ("first", "m+html+status=502"),
        ("first", "m+eof=0"),
        ("hasty", "m+delay=5000"),
        ("hasty", "m+silent"),
    ];
    let gateway = gateway_with(&faults);
    for dialect in Dialect::ALL {
        for (i, (_, fault)) in faults.iter().enumerate() {
            let answer = gateway.speak(dialect, &format!("fault-{i}"), true).finish();
            is_sound(dialect, true, &answer, fault);
        }
    }
}

#[test]
fn a_stream_that_opens_without_content_moves_on() {
    let gateway = gateway_with(&[("first", "m+eof=1"), ("first", "m+error=role")]);
    for dialect in [Dialect::Chat, Dialect::Responses, Dialect::Messages] {
        for alias in ["fault-0", "fault-1"] {
            let answer = gateway.speak(dialect, alias, true).finish();
            is_sound(dialect, true, &answer, alias);
        }
    }
}

#[test]
fn before_any_content_a_failed_document_moves_on_and_the_client_sees_one_clean_answer() {
    let faults = [
        ("down", "simulated"),
        ("first", "m+reset=0"),
        ("first", "m+close=0"),
        ("first", "m+reset=60"),
        ("first", "m+close=60"),
        ("first", "m+nolength+close=60"),
        ("first", "m+status=500"),
        ("first", "m+status=429+retry_after=30"),
        ("first", "m+status=401"),
        ("first", "m+html"),
        ("first", "m+garbage"),
        ("hasty", "m+delay=5000"),
        ("hasty", "m+silent"),
    ];
    let gateway = gateway_with(&faults);
    for dialect in Dialect::FOUR {
        for (i, (_, fault)) in faults.iter().enumerate() {
            let answer = gateway
                .speak(dialect, &format!("fault-{i}"), false)
                .finish();
            is_sound(dialect, false, &answer, fault);
        }
    }
}

#[test]
fn what_is_the_clients_own_fault_is_tried_once_and_keeps_its_words() {
    let statuses = [400, 413, 422];
    let models = statuses.map(|status| format!("m+status={status}"));
    let faults: Vec<(&str, &str)> = models
        .iter()
        .map(|model| ("first", model.as_str()))
        .collect();
    let gateway = gateway_with(&faults);
    for dialect in Dialect::FOUR {
        for stream in [false, true] {
            for (i, (status, model)) in statuses.iter().zip(&models).enumerate() {
                gateway.provider.simulator.clear();
                let own = ask_provider(&gateway, dialect, model, stream);
                let answer = gateway
                    .speak(dialect, &format!("fault-{i}"), stream)
                    .finish();
                assert_eq!(asked(&gateway).len(), 2, "{dialect:?} {status}");
                assert_eq!(answer.status, *status);
                let mut bodies = [own.json(), answer.json()];
                for body in &mut bodies {
                    mask(body);
                }
                assert_eq!(bodies[0], bodies[1]);
                assert_eq!(answer.header("x-plexus-error-source"), Some("provider"));
                assert!(
                    answer
                        .header("x-plexus-route")
                        .unwrap()
                        .ends_with("attempts=1")
                );
            }
        }
    }
}

/// Makes two bodies of the same kind equal.
fn mask(body: &mut Value) {
    if let Some(id) = body.get_mut("request_id") {
        *id = Value::Null;
    }
}

#[test]
fn an_error_of_the_only_target_keeps_its_status_and_its_bytes() {
    let gateway = Gateway::with(&file(""));
    for dialect in Dialect::FOUR {
        for status in [404, 409, 429, 500, 503, 529] {
            let model = format!("m+status={status}+retry_after=7");
            let own = ask_provider(&gateway, dialect, &model, false);
            let answer = gateway
                .speak(dialect, &format!("direct/first/{model}"), false)
                .finish();
            assert_eq!(answer.status, status, "{dialect:?}");
            let mut bodies = [own.json(), answer.json()];
            for body in &mut bodies {
                mask(body);
            }
            assert_eq!(bodies[0], bodies[1], "{dialect:?} {status}");
            assert_eq!(answer.header("retry-after"), Some("7"), "{dialect:?}");
        }
    }
}

#[test]
fn a_refused_credential_is_told_in_general_words_only() {
    let gateway = Gateway::with(&file(""));
    for dialect in Dialect::FOUR {
        for status in [401, 402, 403] {
            let model = format!("m+status={status}");
            let own = ask_provider(&gateway, dialect, &model, false).json();
            let (_, said) = own_words(&own);
            let answer = gateway
                .speak(dialect, &format!("direct/first/{model}"), false)
                .finish();
            assert_eq!(answer.status, 502, "{dialect:?} {status}");
            dialect.error(&answer.json());
            let text = answer.text();
            assert!(!text.contains(&said), "{dialect:?} {status}: {text}");
            assert!(!text.contains("up-first-secret"), "{text}");
        }
    }
}

fn own_words(body: &Value) -> (String, String) {
    let text = |name: &str| body["error"][name].as_str().unwrap_or_default().to_owned();
    (text("type"), text("message"))
}

#[test]
fn when_all_targets_fail_the_last_error_is_told_with_every_attempt() {
    let gateway = Gateway::with(&file(&alias(
        "hopeless",
        &[
            ("down", "a"),
            ("first", "b+status=500"),
            ("second", "c+status=429+retry_after=9"),
        ],
    )));
    for dialect in Dialect::FOUR {
        for stream in [false, true] {
            let answer = gateway.speak(dialect, "hopeless", stream).finish();
            let (_, message) = dialect.error(&answer.json());
            assert_eq!(answer.status, 429, "{dialect:?}: {message}");
            assert!(
                message.starts_with("All targets failed: down/a (network)"),
                "{message}"
            );
            assert!(message.contains("first/b+status=500 (500)"), "{message}");
            assert!(
                message.contains("second/c+status=429+retry_after=9 (429)"),
                "{message}"
            );
            assert_eq!(answer.header("retry-after"), Some("9"));
            assert!(
                answer
                    .header("x-plexus-route")
                    .unwrap()
                    .ends_with("attempts=3")
            );
            assert!(
                answer
                    .header("content-type")
                    .unwrap()
                    .starts_with("application/json")
            );
        }
    }
}

#[test]
fn with_failover_off_only_the_first_target_is_tried() {
    let mut text = file(&alias(
        "two",
        &[("first", "m+status=500"), ("second", SOUND)],
    ));
    text.push_str("failover: { enabled: false }\n");
    let gateway = Gateway::with(&text);
    let answer = gateway.speak(Dialect::Chat, "two", false).finish();
    assert_eq!(answer.status, 500);
    assert_eq!(asked(&gateway).len(), 1);
    assert_eq!(row_of(&gateway)["attemptCount"], 1);
}

#[test]
fn a_status_that_is_not_listed_as_retryable_is_final() {
    let mut text = file(&alias(
        "two",
        &[("first", "m+status=500"), ("second", SOUND)],
    ));
    text.push_str("failover: { retryableStatusCodes: [503] }\n");
    let gateway = Gateway::with(&text);
    let answer = gateway.speak(Dialect::Chat, "two", false).finish();
    assert_eq!((answer.status, asked(&gateway).len()), (500, 1));
}

#[test]
fn an_error_after_content_ends_the_stream_as_failed_and_nothing_is_tried_again() {
    let faults = [
        ("first", "m+error=content"),
        ("first", "m+error=end"),
        ("first", "m+chunks=4+eof"),
        ("first", "m+chunks=100+gap=1+reset=4500"),
        ("first", "m+chunks=100+gap=1+close=4500"),
        ("hasty", "m+chunks=9+silent+silent_after=6"),
    ];
    let gateway = gateway_with(&faults);
    for dialect in Dialect::ALL {
        for (i, (_, fault)) in faults.iter().enumerate() {
            gateway.provider.simulator.clear();
            let mut stream = gateway.speak(dialect, &format!("fault-{i}"), true);
            let (body, broken) = stream.rest();
            let text = String::from_utf8_lossy(&body);
            assert_eq!(stream.status, 200, "{dialect:?} {fault}: {text}");
            assert!(broken.is_none(), "{dialect:?} {fault}: {broken:?} {text}");
            let ending = dialect.ending(&body);
            assert_eq!(ending, Ending::Failed, "{dialect:?} {fault}: {text}");
            assert_eq!(asked(&gateway).len(), 1, "{dialect:?} {fault}");
        }
    }
}

#[test]
fn a_stream_without_its_last_event_is_a_failure_except_for_a_chat_that_had_finished() {
    let gateway = Gateway::with(&file(""));
    for dialect in Dialect::ALL {
        let answer = gateway.speak(dialect, "direct/first/m+chunks=3+noterm", true);
        let (body, _) = { answer }.rest();
        let wanted = match dialect {
            Dialect::Chat => Ending::Open,
            _ => Ending::Failed,
        };
        let text = String::from_utf8_lossy(&body);
        assert_eq!(dialect.ending(&body), wanted, "{dialect:?}: {text}");
    }
}

#[test]
fn a_large_document_that_breaks_off_is_never_ended_regularly() {
    let gateway = Gateway::with(&file(""));
    for (dialect, cut) in [
        (Dialect::Chat, "close=400000"),
        (Dialect::Messages, "reset=400000"),
        (Dialect::Responses, "nolength+close=400000"),
        (Dialect::Gemini, "nolength+reset=400000"),
    ] {
        let model = format!("direct/first/m+chunks=1+bytes=900000+{cut}");
        let (path, body) = dialect.ask(&model, false);
        let headers = [
            ("authorization", "Bearer sk-plexus-tests"),
            ("connection", "close"),
        ];
        let request = client::bytes("POST", &path, &headers, body.to_string().as_bytes());
        let mut stream = gateway.client().connect();
        stream.write_all(&request).unwrap();
        let mut answer = Vec::new();
        // Whether it ends in a reset or not is all the same.
        stream.read_to_end(&mut answer).ok();
        let head = String::from_utf8_lossy(&answer[..answer.len().min(1000)]).to_lowercase();
        assert!(answer.len() < 900_000, "{dialect:?}");
        assert!(
            !answer.ends_with(b"0\r\n\r\n") || head.starts_with("http/1.1 502"),
            "{dialect:?} {cut}: {head}"
        );
        if head.starts_with("http/1.1 200") {
            let chunked = head.contains("transfer-encoding: chunked");
            assert!(
                chunked || head.contains("content-length: 90"),
                "{dialect:?} {cut}: {head}"
            );
        }
    }
}

/// Cuts a short stream after every single byte and says what a client makes of
/// what it got.
fn cut_everywhere(dialect: Dialect, cut: &'static str) {
    let gateway = Gateway::with(&file(""));
    let whole = ask_provider(&gateway, dialect, &format!("m+chunks=1+{cut}=99999"), true).body;
    let done = first_finished(dialect, &whole);
    let next = AtomicUsize::new(0);
    let problems: Vec<String> = thread::scope(|scope| {
        let work = || {
            let offsets = std::iter::from_fn(|| {
                let offset = next.fetch_add(1, Ordering::SeqCst);
                (offset < whole.len()).then_some(offset)
            });
            offsets
                .filter_map(|offset| cut_at(&gateway, dialect, cut, offset, done))
                .collect::<Vec<_>>()
        };
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect()
    });
    let shown: Vec<_> = problems.iter().take(3).collect();
    assert!(
        problems.is_empty(),
        "{} of {} cuts (finished at {done}): {shown:#?}",
        problems.len(),
        whole.len()
    );
    let rows = gateway.rows(whole.len());
    assert_eq!(rows.len(), whole.len());
    let success = rows
        .iter()
        .filter(|row| row["responseStatus"] == "success")
        .count();
    assert!(
        success <= whole.len() - done,
        "{success} rows claim success"
    );
}

/// What is wrong with what a client gets of a stream cut there.
fn cut_at(
    gateway: &Gateway,
    dialect: Dialect,
    cut: &str,
    offset: usize,
    done: usize,
) -> Option<String> {
    let model = format!("direct/first/m+chunks=1+{cut}={offset:05}");
    let mut stream = gateway.speak(dialect, &model, true);
    let (body, broken) = stream.rest();
    let text = String::from_utf8_lossy(&body);
    let tail = text.get(text.len().saturating_sub(300)..).unwrap_or(&text);
    let problem = |what: &str| Some(format!("cut at {offset}: {what}: ...{tail:?}"));
    if stream.status != 200 {
        let told = serde_json::from_slice(&body).is_ok_and(|body: Value| body["error"].is_object());
        return (!told || offset >= done).then(|| problem("not told as an error"))?;
    }
    let whole = offset >= done;
    if broken.is_some() {
        return (!whole && dialect.looks_finished(&body))
            .then(|| problem("broken but finished"))?;
    }
    match dialect.ending(&body) {
        Ending::Failed => None,
        Ending::Invalid(what) => problem(what.get(..60).unwrap_or(&what)),
        Ending::Open if whole && dialect == Dialect::Chat => None,
        Ending::Finished if whole => None,
        other => problem(&format!("{other:?}")),
    }
}

/// Where the event ends that makes a provider's stream a whole answer. Of a
/// chat that is the reason for its end; an array lacks its last bracket then.
fn first_finished(dialect: Dialect, whole: &[u8]) -> usize {
    let finishes = |range: Range<usize>| match dialect {
        Dialect::Chat => {
            let text = String::from_utf8_lossy(&whole[range]);
            text.contains("\"finish_reason\":\"")
        }
        Dialect::GeminiArray => dialect.looks_finished(&[&whole[range], b"]"].concat()),
        _ => dialect.looks_finished(&whole[range]),
    };
    let blank: [&[u8]; 2] = [b"\n\n", b"\r\n\r"];
    let ends = (1..=whole.len()).filter(|end| {
        let ends_event = blank.iter().any(|blank| whole[..*end].ends_with(blank));
        dialect == Dialect::GeminiArray || ends_event
    });
    { ends }.find(|end| finishes(0..*end)).unwrap()
}

#[test]
fn a_chat_stream_closed_at_any_byte_never_looks_finished() {
    cut_everywhere(Dialect::Chat, "close");
}

#[test]
fn a_chat_stream_reset_at_any_byte_never_looks_finished() {
    cut_everywhere(Dialect::Chat, "reset");
}

#[test]
fn a_messages_stream_closed_at_any_byte_never_looks_finished() {
    cut_everywhere(Dialect::Messages, "close");
}

#[test]
fn a_messages_stream_reset_at_any_byte_never_looks_finished() {
    cut_everywhere(Dialect::Messages, "reset");
}

#[test]
fn a_responses_stream_closed_at_any_byte_never_looks_finished() {
    cut_everywhere(Dialect::Responses, "close");
}

#[test]
fn a_responses_stream_reset_at_any_byte_never_looks_finished() {
    cut_everywhere(Dialect::Responses, "reset");
}

#[test]
fn a_gemini_stream_closed_at_any_byte_never_looks_finished() {
    cut_everywhere(Dialect::Gemini, "close");
}

#[test]
fn a_gemini_stream_reset_at_any_byte_never_looks_finished() {
    cut_everywhere(Dialect::Gemini, "reset");
}

#[test]
fn a_gemini_array_closed_at_any_byte_never_looks_finished() {
    cut_everywhere(Dialect::GeminiArray, "close");
}

#[test]
fn a_stream_that_ends_regularly_after_any_event_never_looks_finished() {
    let gateway = Gateway::with(&file(""));
    for dialect in Dialect::ALL {
        let whole = ask_provider(&gateway, dialect, "m+chunks=2", true).body;
        let count = dialect.events(&whole).unwrap().len();
        for events in 0..count - 1 {
            let model = format!("direct/first/m+chunks=2+eof={events}");
            let mut stream = gateway.speak(dialect, &model, true);
            let (body, broken) = stream.rest();
            let text = String::from_utf8_lossy(&body).into_owned();
            if stream.status != 200 {
                dialect.error(&serde_json::from_slice(&body).unwrap());
                continue;
            }
            assert!(broken.is_none(), "{dialect:?} after {events}: {broken:?}");
            let finished_chat = dialect == Dialect::Chat && text.contains("\"finish_reason\":\"");
            let wanted = if finished_chat {
                Ending::Open
            } else {
                Ending::Failed
            };
            assert_eq!(
                dialect.ending(&body),
                wanted,
                "{dialect:?} after {events}: {text}"
            );
        }
    }
}

#[test]
fn a_provider_that_closes_behind_every_answer_costs_its_clients_nothing() {
    let gateway = Gateway::with(&file(""));
    for (fault, rounds) in [("keepalive=0", 40), ("idle_close=2", 40)] {
        gateway.provider.simulator.clear();
        for round in 0..rounds {
            let dialect = Dialect::FOUR[round % 4];
            let model = format!("direct/first/m+chunks=1+{fault}");
            let answer = gateway.speak(dialect, &model, round % 3 == 0).finish();
            assert_eq!(answer.status, 200, "{fault} {round}: {}", answer.text());
        }
        assert_eq!(
            asked(&gateway).len(),
            rounds,
            "{fault}: a request was seen twice"
        );
    }
}

#[test]
fn a_provider_that_closed_an_idle_connection_costs_its_clients_nothing() {
    let gateway = Gateway::with(&file(""));
    for _ in 0..5 {
        let answer = gateway
            .speak(Dialect::Chat, "direct/first/m+idle_close=5", false)
            .finish();
        assert_eq!(answer.status, 200);
        await_some("the provider's close", || {
            (gateway.provider.simulator.stats().connections_open == 0).then_some(())
        });
    }
    assert_eq!(asked(&gateway).len(), 5);
}

/// A gateway before a provider of the test's own making, and a second one that
/// is sound.
fn before(upstream: &Upstream) -> Gateway {
    let text = file(&alias("both", &[("own", "m"), ("second", SOUND)]));
    let own = format!(
        "providers:\n  own: {{ api_base_url: 'http://{}/v1', api_key: up-own-secret }}\n",
        upstream.address
    );
    Gateway::with(&text.replacen("providers:\n", &own, 1))
}

#[test]
fn a_reused_connection_that_closes_without_a_byte_is_replaced_once() {
    let upstream = Upstream::start(|mut wire: Wire| {
        if wire.request().is_some() {
            wire.answer("200 OK", COMPLETION);
        }
        if wire.number > 0 {
            return;
        }
        // The second request on the first connection is read and not answered.
        wire.request();
    });
    let gateway = before(&upstream);
    for _ in 0..2 {
        let answer = gateway.speak(Dialect::Chat, "direct/own/m", false).finish();
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.header("x-plexus-route"), Some("own/m; attempts=1"));
    }
    assert_eq!(upstream.requests(), 3);
}

#[test]
fn a_new_connection_that_closes_without_a_byte_is_not_tried_again() {
    let upstream = Upstream::start(|mut wire: Wire| drop(wire.request()));
    let gateway = before(&upstream);
    let answer = gateway.speak(Dialect::Chat, "both", false).finish();
    is_sound(Dialect::Chat, false, &answer, "closed without a byte");
    assert_eq!(upstream.requests(), 1);
}

#[test]
fn a_reused_connection_that_breaks_inside_an_answer_is_not_asked_again() {
    let broken: [&[u8]; 3] = [
        b"HTTP/1.1 20",
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 900\r\n\r\n{\"id\":",
    ];
    for part in broken {
        let upstream = Upstream::start(move |mut wire: Wire| {
            if wire.request().is_some() {
                wire.answer("200 OK", COMPLETION);
            }
            if wire.request().is_some() {
                wire.write(part);
            }
        });
        let gateway = before(&upstream);
        let first = gateway.speak(Dialect::Chat, "direct/own/m", false).finish();
        assert_eq!(first.status, 200);
        let answer = gateway.speak(Dialect::Chat, "direct/own/m", false).finish();
        let part = String::from_utf8_lossy(part);
        assert_eq!(answer.status, 502, "{part:?}: {}", answer.text());
        assert_eq!(upstream.requests(), 2, "{part:?}: it was asked again");
    }
}

#[test]
fn after_a_broken_answer_the_connection_is_not_used_again() {
    let upstream = Upstream::start(|mut wire: Wire| {
        while wire.request().is_some() {
            if wire.number == 0 {
                // One byte more than was announced.
                wire.answer("200 OK", COMPLETION);
                wire.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}");
            } else {
                wire.answer("200 OK", COMPLETION);
            }
        }
    });
    let gateway = before(&upstream);
    for _ in 0..3 {
        let answer = gateway.speak(Dialect::Chat, "direct/own/m", false).finish();
        assert_eq!(answer.status, 200);
        assert_eq!(answer.text(), COMPLETION);
    }
}

#[test]
fn an_answer_that_is_no_http_moves_on() {
    let nonsense: [&[u8]; 5] = [
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"\x16\x03\x01\x02\x00\x01",
        b"HTTP/1.1 999999 \r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 7\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nhello\r\n",
    ];
    for bytes in nonsense {
        let upstream = Upstream::start(move |mut wire: Wire| {
            if wire.request().is_some() {
                wire.write(bytes);
            }
        });
        let gateway = before(&upstream);
        let answer = gateway.speak(Dialect::Chat, "both", false).finish();
        is_sound(
            Dialect::Chat,
            false,
            &answer,
            &String::from_utf8_lossy(bytes),
        );
    }
}

#[test]
fn a_provider_that_takes_too_long_is_told_as_a_timeout() {
    for fault in ["delay=20000", "silent"] {
        for dialect in Dialect::FOUR {
            let gateway = Gateway::with(&file(""));
            let began = Instant::now();
            let model = format!("direct/hasty/m+{fault}");
            let answer = gateway.speak(dialect, &model, true).finish();
            let took = began.elapsed();
            assert_eq!(answer.status, 504, "{dialect:?} {fault}: {}", answer.text());
            dialect.error(&answer.json());
            assert!(took < Duration::from_secs(5), "{took:?}");
            assert_eq!(row_of(&gateway)["responseStatus"], "timeout");
            // The provider is not left working for nobody.
            await_some("the provider to be let go", || {
                (gateway.provider.simulator.stats().in_flight == 0).then_some(())
            });
        }
    }
}

#[test]
fn a_provider_that_falls_silent_after_content_is_cut_off_as_a_timeout() {
    for dialect in Dialect::ALL {
        let gateway = Gateway::with(&file(""));
        let model = "direct/hasty/m+chunks=9+silent+silent_after=6";
        let mut stream = gateway.speak(dialect, model, true);
        let (body, broken) = stream.rest();
        assert!(broken.is_none(), "{dialect:?}: {broken:?}");
        assert_eq!(dialect.ending(&body), Ending::Failed, "{dialect:?}");
        assert_eq!(row_of(&gateway)["responseStatus"], "timeout", "{dialect:?}");
    }
}

#[test]
fn a_slow_but_steady_stream_is_not_cut_by_the_attempts_time_limit() {
    let gateway = Gateway::with(&file(""));
    let answer = gateway
        .speak(Dialect::Chat, "direct/hasty/m+chunks=12+gap=50", true)
        .finish();
    assert_eq!(Dialect::Chat.ending(&answer.body), Ending::Finished);
}

#[test]
fn failed_attempts_and_the_answer_are_written_down_in_order() {
    let gateway = Gateway::with(&file(&alias(
        "three",
        &[("down", "a"), ("first", "b+status=503"), ("second", SOUND)],
    )));
    let answer = gateway.speak(Dialect::Messages, "three", true).finish();
    assert_eq!(
        answer.header("x-plexus-route"),
        Some("second/simulated+chunks=2; attempts=3")
    );
    let row = row_of(&gateway);
    assert_eq!(row["attemptCount"], 3);
    assert_eq!(row["provider"], "second");
    assert_eq!(row["finalAttemptModel"], SOUND);
    let text = |name: &str| serde_json::from_str::<Value>(row[name].as_str().unwrap()).unwrap();
    assert_eq!(
        text("allAttemptedProviders"),
        json!(["down/a", "first/b+status=503", "second/simulated+chunks=2"])
    );
    let history = text("retryHistory");
    let told: Vec<_> = (0..3)
        .map(|i| {
            (
                history[i]["status"].clone(),
                history[i]["statusCode"].clone(),
            )
        })
        .collect();
    assert_eq!(
        json!(told),
        json!([["failed", null], ["failed", 503], ["success", 200]])
    );
}
