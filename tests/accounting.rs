//! Every request leaves exactly one row, with the tokens known so far, however
//! it ended; and the database is nobody's bottleneck.

#![expect(
    clippy::unwrap_used,
    reason = "in helpers of tests a failure is the test's failure"
)]

mod support;

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use plexus::store::UsageQuery;
use serde_json::{Map, Value, json};
use support::dialect::{Dialect, Ending};
use support::upstream::{Upstream, Wire, nobody};
use support::{Gateway, PATIENCE, Response, SECRET, await_some, client, media};

type Row = Map<String, Value>;

/// Providers that speak all protocols; `hasty` waits for nobody.
fn file() -> String {
    let here = "{ chat: 'http://SIMULATOR/v1', responses: 'http://SIMULATOR/v1', \
                messages: 'http://SIMULATOR/v1', gemini: 'http://SIMULATOR' }";
    format!(
        "providers:\n\
         \x20 p: {{ api_base_url: {here}, api_key: up-provider-secret-0123456789 }}\n\
         \x20 hasty: {{ api_base_url: {here}, api_key: up-hasty, timeoutMs: 200 }}\n\
         \x20 down: {{ api_base_url: 'http://{}/v1', api_key: up-down-secret-0123456789 }}\n\
         models:\n\
         \x20 fast: {{ targets: [{{ provider: p, model: simulated }}], additional_aliases: [quick] }}\n\
         \x20 third: {{ selector: in_order, targets: [{{ provider: down, model: a }}, \
                        {{ provider: p, model: b+status=503 }}, {{ provider: p, model: c }}] }}\n\
         keys:\n\
         \x20 app: {{ secret: sk-plexus-tests }}\n\
         \x20 narrow: {{ secret: sk-plexus-narrow, allowedModels: [fast] }}\n",
        nobody()
    )
}

/// The one row there is, once nothing is in flight any more and none follows.
fn one_row(gateway: &Gateway) -> Row {
    let rows = gateway.rows(1);
    await_some("the provider to be let go", || {
        (gateway.provider.simulator.stats().in_flight == 0).then_some(())
    });
    gateway.app.store.flush(PATIENCE).unwrap();
    let rows = gateway.rows(rows.len());
    assert_eq!(rows.len(), 1, "{rows:#?}");
    rows.into_iter().next().unwrap()
}

fn buckets(row: &Row) -> [Option<u64>; 5] {
    [
        "tokensInput",
        "tokensCached",
        "tokensCacheWrite",
        "tokensOutput",
        "tokensReasoning",
    ]
    .map(|name| row[name].as_u64())
}

fn errors(gateway: &Gateway) -> Vec<Row> {
    gateway.app.store.flush(PATIENCE).unwrap();
    gateway.app.store.errors(None, 0, None).unwrap().data
}

#[test]
fn every_token_of_an_answer_is_counted_once_and_in_its_bucket() {
    let wanted = |dialect| match dialect {
        // Gemini's caches are written by calls of their own.
        Dialect::Gemini | Dialect::GeminiArray => [Some(70), Some(30), None, Some(40), Some(10)],
        _ => [Some(50), Some(30), Some(20), Some(40), Some(10)],
    };
    let numbers = "tokens_in=100+tokens_out=50+cached=30+cache_write=20+reasoning_tokens=10";
    for dialect in Dialect::ALL {
        for stream in [false, true] {
            let gateway = Gateway::with(&file());
            let model = format!("direct/p/m+chunks=3+reasoning+{numbers}");
            let answer = gateway.speak(dialect, &model, stream).finish();
            assert_eq!(answer.status, 200);
            let row = one_row(&gateway);
            assert_eq!(buckets(&row), wanted(dialect), "{dialect:?} {stream}");
            assert_eq!(row["responseStatus"], "success");
            assert_eq!(row["isStreamed"], stream);
            assert_eq!(row["incomingApiType"], dialect.name());
            assert_eq!(row["outgoingApiType"], dialect.name());
            assert_eq!(row["isPassthrough"], true);
            assert_eq!(row["hasError"], false);
            let served = &gateway.provider.simulator.stats().served;
            assert_eq!(served.values().map(|served| served.answers).sum::<u64>(), 1);
        }
    }
}

#[test]
fn tokens_are_counted_whatever_the_chunks_of_the_answer_are() {
    for dialect in Dialect::ALL {
        let gateway = Gateway::with(&file());
        let model = "direct/p/m+chunks=2+split+tokens_in=123+tokens_out=45+cached=23";
        let answer = gateway.speak(dialect, model, true).finish();
        assert_eq!(dialect.ending(&answer.body), Ending::Finished);
        let row = one_row(&gateway);
        assert_eq!(row["tokensInput"], 100, "{dialect:?}");
        assert_eq!(row["tokensCached"], 23, "{dialect:?}");
        assert_eq!(row["tokensOutput"], 45, "{dialect:?}");
    }
}

#[test]
fn the_media_endpoints_leave_one_row_each() {
    for ask in media::all("direct/p/m+tokens_in=7+tokens_out=3") {
        let gateway = Gateway::with(&file());
        let headers = [
            ("authorization", "Bearer sk-plexus-tests"),
            ("content-type", ask.content_type),
        ];
        let answer = gateway.request("POST", ask.path, &headers, &ask.body);
        assert_eq!(answer.status, 200, "{}: {:?}", ask.path, answer.body);
        let row = one_row(&gateway);
        assert_eq!(row["incomingApiType"], ask.name);
        assert_eq!(row["responseStatus"], "success");
        if ask.name != "speech" {
            // Audio has no room for numbers.
            assert_eq!(row["tokensInput"], 7, "{}", ask.path);
        }
    }
}

#[test]
fn usage_that_the_client_did_not_ask_for_is_counted_and_kept_from_it() {
    for asked in [None, Some(false), Some(true)] {
        let gateway = Gateway::with(&file());
        let (path, mut body) = Dialect::Chat.ask("direct/p/m+tokens_in=11+tokens_out=5", true);
        if let Some(asked) = asked {
            body["stream_options"] = json!({"include_usage": asked});
        }
        let answer = gateway.ask(&path, &body);
        let events = Dialect::Chat.events(&answer.body).unwrap();
        let told = events.iter().any(|event| event.json()["usage"].is_object());
        assert_eq!(told, asked == Some(true), "{asked:?}");
        let row = one_row(&gateway);
        assert_eq!(
            (row["tokensInput"].as_u64(), row["tokensOutput"].as_u64()),
            (Some(11), Some(5))
        );
    }
}

#[test]
fn tool_calls_and_the_reason_for_the_end_are_written_down() {
    for (dialect, finish) in [
        (Dialect::Chat, "tool_calls"),
        (Dialect::Messages, "tool_use"),
        (Dialect::Gemini, "STOP"),
    ] {
        for stream in [false, true] {
            let gateway = Gateway::with(&file());
            gateway
                .speak(dialect, "direct/p/m+tools=3", stream)
                .finish();
            let row = one_row(&gateway);
            assert_eq!(row["finishReason"], finish, "{dialect:?} {stream}");
            assert_eq!(row["toolCallsCount"], 3, "{dialect:?} {stream}");
        }
    }
}

#[test]
fn a_client_that_leaves_before_the_first_byte_is_cancelled() {
    for fault in ["delay=60000", "first=60000", "silent"] {
        for dialect in Dialect::FOUR {
            let gateway = Gateway::with(&file());
            let (path, body) = dialect.ask(&format!("direct/p/m+{fault}"), true);
            let mut stream = gateway.client().connect();
            let headers = [("authorization", "Bearer sk-plexus-tests")];
            let request = client::bytes("POST", &path, &headers, body.to_string().as_bytes());
            stream.write_all(&request).unwrap();
            await_some("the provider to be asked", || {
                let requests = gateway.provider.simulator.requests();
                requests
                    .iter()
                    .any(|request| request.body.is_some())
                    .then_some(())
            });
            drop(stream);
            let row = one_row(&gateway);
            assert_eq!(row["responseStatus"], "cancelled", "{dialect:?} {fault}");
            assert_eq!(row["provider"], "p");
            assert_eq!(row["attemptCount"], 1);
            assert_eq!(row["ttftMs"], Value::Null);
        }
    }
}

#[test]
fn a_client_that_leaves_in_the_middle_is_cancelled_with_the_tokens_so_far() {
    for dialect in Dialect::ALL {
        let gateway = Gateway::with(&file());
        let model = "direct/p/m+chunks=5000+gap=5+tokens_in=77";
        let mut stream = gateway.speak(dialect, model, true);
        for _ in 0..12 {
            stream.chunk().unwrap().unwrap();
        }
        stream.leave();
        let row = one_row(&gateway);
        assert_eq!(row["responseStatus"], "cancelled", "{dialect:?}");
        assert_eq!(row["hasError"], false);
        assert!(row["ttftMs"].as_f64().unwrap() > 0.0);
        let known = !matches!(dialect, Dialect::Chat | Dialect::Responses);
        if known {
            // These two report the input at the beginning.
            assert_eq!(row["tokensInput"], 77, "{dialect:?}");
        }
        assert!(errors(&gateway).is_empty());
    }
}

/// A provider that sends all of a chat stream and then keeps it open.
fn lingering() -> Upstream {
    Upstream::start(|mut wire: Wire| {
        while wire.request().is_some() {
            let body = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"yes\"},\"finish_reason\":\"stop\"}]}\n\n\
                        data: {\"choices\":[],\"usage\":{\"prompt_tokens\":4,\"completion_tokens\":1,\"total_tokens\":5}}\n\n\
                        data: [DONE]\n\n";
            wire.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n");
            wire.write(format!("{:x}\r\n{body}\r\n", body.len()).as_bytes());
        }
    })
}

#[test]
fn a_client_that_leaves_with_the_whole_answer_was_answered() {
    let upstream = lingering();
    let own = format!(
        "providers:\n  own: {{ api_base_url: 'http://{}/v1', api_key: x }}\n",
        upstream.address
    );
    let gateway = Gateway::with(&file().replacen("providers:\n", &own, 1));
    let mut stream = gateway.speak(Dialect::Chat, "direct/own/m", true);
    stream.read_until("[DONE]\n\n");
    stream.leave();
    let row = one_row(&gateway);
    assert_eq!(row["responseStatus"], "success");
    assert_eq!(buckets(&row)[0], Some(4));
    assert_eq!(row["finishReason"], "stop");
}

#[test]
fn a_client_that_leaves_during_its_upload_is_cancelled() {
    let framings: [(&str, &[u8]); 2] = [
        ("content-length: 100000", b"{\"model\":\"fast\","),
        (
            "transfer-encoding: chunked",
            b"10\r\n{\"model\":\"fast\",\r\n",
        ),
    ];
    for (framing, begun) in framings {
        let gateway = Gateway::with(&file());
        let mut stream = gateway.client().connect();
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-api-key: {SECRET}\r\n{framing}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(begun).unwrap();
        drop(stream);
        let row = one_row(&gateway);
        assert_eq!(row["responseStatus"], "cancelled", "{framing}");
        assert_eq!(row["provider"], Value::Null);
        assert_eq!(row["apiKey"], "app");
        assert!(gateway.provider.simulator.requests().is_empty());
    }
}

#[test]
fn failures_and_refusals_leave_one_row_each() {
    let chat = |model: &str| Dialect::Chat.ask(model, false).1.to_string();
    let cases = [
        (
            SECRET,
            chat("direct/p/m+status=500"),
            500,
            "error",
            json!("p"),
        ),
        (
            SECRET,
            chat("direct/p/m+status=400"),
            400,
            "error",
            json!("p"),
        ),
        (SECRET, chat("direct/p/m+html"), 502, "error", json!("p")),
        (
            SECRET,
            chat("direct/hasty/m+delay=9000"),
            504,
            "timeout",
            json!("hasty"),
        ),
        (SECRET, chat("direct/down/m"), 502, "error", json!("down")),
        (SECRET, chat("nobody-knows-it"), 404, "error", Value::Null),
        (SECRET, chat("direct/nobody/m"), 404, "error", Value::Null),
        (
            "sk-plexus-narrow",
            chat("direct/p/m"),
            403,
            "error",
            Value::Null,
        ),
        (
            SECRET,
            "{\"messages\":[]}".to_owned(),
            400,
            "error",
            Value::Null,
        ),
        (SECRET, "{\"model\":".to_owned(), 400, "error", Value::Null),
        (SECRET, String::new(), 400, "error", Value::Null),
    ];
    for (key, body, status, outcome, provider) in cases {
        let gateway = Gateway::with(&file());
        let headers = [("x-api-key", key), ("content-type", "application/json")];
        let answer = gateway.request("POST", "/v1/chat/completions", &headers, &body);
        assert_eq!(answer.status, status, "{body}: {}", answer.text());
        Dialect::Chat.error(&answer.json());
        let row = one_row(&gateway);
        assert_eq!(row["responseStatus"], outcome, "{body}");
        assert_eq!(row["provider"], provider, "{body}");
        assert_eq!(row["hasError"], true, "{body}");
        assert_eq!(row["requestId"], answer.header("x-request-id").unwrap());
        assert_eq!(errors(&gateway).len(), 1, "{body}");
    }
}

#[test]
fn a_stream_that_fails_after_its_beginning_is_an_error() {
    for fault in [
        "error=content",
        "chunks=3+eof",
        "chunks=100+gap=1+reset=4500",
    ] {
        for dialect in Dialect::ALL {
            let gateway = Gateway::with(&file());
            let mut stream = gateway.speak(dialect, &format!("direct/p/m+{fault}"), true);
            let (_, _) = stream.rest();
            let row = one_row(&gateway);
            assert_eq!(row["responseStatus"], "error", "{dialect:?} {fault}");
            assert_eq!(row["hasError"], true);
            assert_eq!(errors(&gateway).len(), 1, "{dialect:?} {fault}");
        }
    }
}

#[test]
fn a_wrong_key_leaves_no_row_and_reaches_no_provider() {
    let gateway = Gateway::with(&file());
    for dialect in Dialect::FOUR {
        let (path, body) = dialect.ask("fast", false);
        for headers in [&[("x-api-key", "sk-wrong-credential")][..], &[]] {
            let answer = gateway.request("POST", &path, headers, body.to_string());
            assert_eq!(answer.status, 401, "{dialect:?}");
            dialect.error(&answer.json());
        }
    }
    let answer = gateway.speak(Dialect::Chat, "fast", false).finish();
    assert_eq!(answer.status, 200);
    one_row(&gateway);
    assert_eq!(gateway.provider.simulator.requests().len(), 1);
}

#[test]
fn a_request_that_moved_on_has_one_row_and_one_error_for_each_failed_attempt() {
    let gateway = Gateway::with(&file());
    let answer = gateway.speak(Dialect::Chat, "third", true).finish();
    assert_eq!(answer.status, 200);
    let row = one_row(&gateway);
    assert_eq!(row["responseStatus"], "success");
    assert_eq!(row["attemptCount"], 3);
    assert_eq!(row["hasError"], true);
    assert_eq!(row["incomingModelAlias"], "third");
    assert_eq!(row["selectedModelName"], "c");
    let attempted: Value =
        serde_json::from_str(row["allAttemptedProviders"].as_str().unwrap()).unwrap();
    assert_eq!(attempted, json!(["down/a", "p/b+status=503", "p/c"]));
    let errors = errors(&gateway);
    assert_eq!(errors.len(), 2);
    assert!(
        errors
            .iter()
            .all(|error| error["requestId"] == row["requestId"])
    );
}

#[test]
fn times_are_those_of_the_stream() {
    for dialect in Dialect::ALL {
        let gateway = Gateway::with(&file());
        let began = Instant::now();
        let model = "direct/p/m+chunks=10+first=80+gap=10";
        gateway.speak(dialect, model, true).finish();
        let took = began.elapsed().as_secs_f64() * 1000.0;
        let row = one_row(&gateway);
        let ttft = row["ttftMs"].as_f64().unwrap();
        let duration = row["durationMs"].as_f64().unwrap();
        assert!((80.0..took).contains(&ttft), "{dialect:?}: {ttft}");
        assert!(duration >= ttft + 60.0, "{dialect:?}: {ttft} {duration}");
        assert!(duration <= took + 1.0, "{dialect:?}: {duration} of {took}");
        assert!(row["tokensPerSec"].as_f64().unwrap() > 0.0);
    }
}

#[test]
fn a_document_has_its_first_token_at_its_end() {
    let gateway = Gateway::with(&file());
    gateway
        .speak(Dialect::Chat, "direct/p/m+delay=40", false)
        .finish();
    let row = one_row(&gateway);
    assert_eq!(row["ttftMs"], row["durationMs"]);
    assert!(row["durationMs"].as_f64().unwrap() >= 40.0);
}

#[test]
fn who_asked_and_for_what_is_written_down() {
    let text = format!(
        "server: {{ trustedProxies: [127.0.0.1, 10.9.0.0/16] }}\n{}",
        file()
    );
    let gateway = Gateway::with(&text);
    let headers = [
        ("authorization", "Bearer sk-plexus-tests:CoPilot:V2"),
        ("x-client-request-id", "  order-66 "),
        ("x-forwarded-for", "6.6.6.6, 198.51.100.7, 10.9.1.1"),
    ];
    let (path, body) = Dialect::Messages.ask("quick", false);
    let answer = gateway.request("POST", &path, &headers, body.to_string());
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("x-client-request-id"), Some("order-66"));
    let row = one_row(&gateway);
    let expected = json!({
        "requestId": answer.header("x-plexus-request-id"), "clientRequestId": "order-66",
        "apiKey": "app", "attribution": "copilot:v2", "sourceIp": "198.51.100.7",
        "incomingModelAlias": "quick", "canonicalModelName": "fast",
        "selectedModelName": "simulated", "provider": "p", "attemptCount": 1,
        "retryHistory": null, "allAttemptedProviders": null,
    });
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&row[name], value, "{name}");
    }
}

#[test]
fn an_untrusted_peer_cannot_say_where_it_comes_from() {
    let gateway = Gateway::with(&file());
    let headers = [("x-api-key", SECRET), ("x-forwarded-for", "198.51.100.7")];
    let (path, body) = Dialect::Chat.ask("fast", false);
    gateway.request("POST", &path, &headers, body.to_string());
    assert_eq!(one_row(&gateway)["sourceIp"], "127.0.0.1");
}

#[test]
fn a_locked_database_delays_no_request_and_loses_no_row() {
    let gateway = Gateway::with(&file());
    let answer = gateway.speak(Dialect::Chat, "fast", false).finish();
    assert_eq!(answer.status, 200);
    gateway.rows(1);
    let other = rusqlite::Connection::open(gateway.app.store.path()).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let mut slowest = Duration::ZERO;
    for round in 0..100 {
        let began = Instant::now();
        let dialect = Dialect::FOUR[round % 4];
        let answer = gateway
            .speak(dialect, "direct/p/m+chunks=2", round % 2 == 0)
            .finish();
        assert_eq!(answer.status, 200);
        slowest = slowest.max(began.elapsed());
    }
    assert!(slowest < Duration::from_millis(500), "{slowest:?}");
    let written = gateway.app.store.usage(&UsageQuery::default()).unwrap();
    assert_eq!(written.data.len(), 1, "the lock locks nothing out");
    other.execute_batch("COMMIT").unwrap();
    assert_eq!(gateway.rows(101).len(), 101);
    assert_eq!(gateway.app.metrics.rows_dropped(), 0);
}

#[test]
fn a_locked_database_is_told_to_who_manages_it_and_slows_no_request() {
    let gateway = Gateway::with(&file());
    gateway.speak(Dialect::Chat, "fast", false).finish();
    gateway.rows(1);
    let other = rusqlite::Connection::open(gateway.app.store.path()).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let busy = AtomicBool::new(true);
    std::thread::scope(|scope| {
        let (gateway, busy) = (&gateway, &busy);
        let changes = [
            ("DELETE", "/usage"),
            ("DELETE", "/usage/0191d7a0-0000-7000-8000-000000000000"),
            ("DELETE", "/errors"),
            ("DELETE", "/logs/reset"),
        ];
        let changes = changes.map(|(method, path)| {
            // Each answers within the patience of the tests' client.
            scope.spawn(move || {
                gateway.admin(method, &format!("/v0/management{path}"), &Value::Null)
            })
        });
        let requests = scope.spawn(move || {
            let mut answered = 0;
            while busy.load(Ordering::Relaxed) {
                let answer = gateway.speak(Dialect::Chat, "fast", false).finish();
                assert_eq!(answer.status, 200);
                answered += 1;
            }
            answered
        });
        // What is read is there as before.
        for path in ["/usage", "/usage/summary", "/errors", "/performance"] {
            let path = format!("/v0/management{path}");
            gateway.admin("GET", &path, &Value::Null).expect(200);
        }
        for change in changes {
            let answer = change.join().unwrap();
            let error = answer.json()["error"].to_string();
            assert!(
                answer.status == 503 && error.contains("database"),
                "{} {error}",
                answer.status
            );
        }
        busy.store(false, Ordering::Relaxed);
        let answered = requests.join().unwrap();
        assert!(answered > 50, "{answered} while the changes waited");
    });
    other.execute_batch("COMMIT").unwrap();
    gateway
        .admin("DELETE", "/v0/management/logs/reset", &Value::Null)
        .expect(200);
}

#[test]
fn without_a_database_requests_are_served_and_lost_rows_are_counted() {
    let gateway = Gateway::with(&file());
    gateway.app.store.close(PATIENCE).unwrap();
    for _ in 0..5 {
        let answer = gateway.speak(Dialect::Chat, "fast", true).finish();
        assert_eq!(answer.status, 200);
    }
    assert_eq!(gateway.app.metrics.rows_dropped(), 5);
}

#[test]
fn rows_of_requests_at_the_same_time_are_neither_lost_nor_doubled() {
    let gateway = Gateway::on_cores(&file(), &[], 2);
    let (threads, each) = (8, 60);
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let gateway = &gateway;
            scope.spawn(move || {
                for round in 0..each {
                    let dialect = Dialect::ALL[(thread + round) % 5];
                    let mut stream = gateway.speak(dialect, "direct/p/m+chunks=20+gap=1", true);
                    match round % 3 {
                        0 => drop(stream.chunk()),
                        1 => stream.leave(),
                        _ => drop(stream.rest()),
                    }
                }
            });
        }
    });
    await_some("the provider to be let go", || {
        (gateway.provider.simulator.stats().in_flight == 0).then_some(())
    });
    let rows = gateway.rows(threads * each);
    assert_eq!(rows.len(), threads * each);
    let mut ids: Vec<_> = rows
        .iter()
        .map(|row| row["requestId"].to_string())
        .collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), threads * each);
}

/// A provider whose errors repeat what it was sent, head and all.
fn echoing(status: &'static str) -> Upstream {
    Upstream::start(move |mut wire: Wire| {
        while let Some(request) = wire.request() {
            let seen = String::from_utf8_lossy(&request).into_owned();
            let error = json!({"error": {"message": format!("I do not like {seen}"), "type": "server_error", "param": null, "code": null}});
            wire.answer(status, &error.to_string());
        }
    })
}

#[test]
fn a_providers_key_that_its_errors_repeat_reaches_neither_client_nor_rows_nor_log() {
    const KEY: &str = "up-echoed-secret-0123456789";
    for status in ["500 Oops", "400 Bad Request", "429 Slow Down", "401 No"] {
        let upstream = echoing(status);
        let own = format!(
            "providers:\n  own: {{ api_base_url: 'http://{}/v1', api_key: {KEY}, headers: {{ x-extra: 'extra-{KEY}' }} }}\n",
            upstream.address
        );
        let gateway = Gateway::with(&file().replacen("providers:\n", &own, 1));
        let answer = gateway.speak(Dialect::Chat, "direct/own/m", false).finish();
        assert!(answer.status >= 400);
        assert_no_secret(&answer, KEY, status);
        let errors = Value::from(
            errors(&gateway)
                .into_iter()
                .map(Value::Object)
                .collect::<Vec<_>>(),
        );
        assert!(!errors.to_string().contains(KEY), "{status}: {errors}");
        assert!(errors.to_string().contains("statusCode"), "{errors}");
        let log = support::telemetry().lines_after(0);
        let spoken = log.iter().any(|line| format!("{line:?}").contains(KEY));
        assert!(!spoken, "{status}");
    }
}

fn assert_no_secret(answer: &Response, key: &str, what: &str) {
    assert!(!answer.text().contains(key), "{what}: {}", answer.text());
    let headers = format!("{:?}", answer.headers);
    assert!(!headers.contains(key), "{what}: {headers}");
}

#[test]
fn an_error_row_says_what_was_sent_where_without_its_secrets() {
    let gateway = Gateway::with(&file());
    gateway
        .speak(Dialect::Messages, "direct/p/m+status=500", false)
        .finish();
    let row = one_row(&gateway);
    let errors = errors(&gateway);
    assert_eq!(errors.len(), 1);
    assert_eq!(errors[0]["requestId"], row["requestId"]);
    assert_eq!(errors[0]["apiKey"], "app");
    let details: Value = serde_json::from_str(errors[0]["details"].as_str().unwrap()).unwrap();
    assert_eq!(details["statusCode"], 500);
    assert_eq!(details["provider"], "p");
    assert_eq!(details["targetModel"], "m+status=500");
    assert_eq!(details["headers"]["x-api-key"], "up-p...6789");
    assert!(details["url"].as_str().unwrap().ends_with("/v1/messages"));
    assert!(
        !errors[0]["details"]
            .as_str()
            .unwrap()
            .contains("up-provider-secret")
    );
}

#[test]
fn secrets_of_clients_and_providers_are_never_logged() {
    let gateway = Gateway::with(&file());
    for model in ["fast", "third", "direct/p/m+status=500", "nobody"] {
        gateway.speak(Dialect::Chat, model, false).finish();
    }
    let wrong = [("authorization", "Bearer sk-presented-but-wrong")];
    gateway.request("POST", "/v1/chat/completions", &wrong, "{}");
    gateway.request(
        "GET",
        "/v0/management/usage",
        &[("x-admin-key", "admin-but-wrong")],
        "",
    );
    let log = support::telemetry().lines_after(0);
    assert!(!log.is_empty());
    for secret in [
        SECRET,
        "up-provider-secret-0123456789",
        "up-down-secret-0123456789",
        "sk-presented-but-wrong",
        "admin-but-wrong",
    ] {
        let line = log.iter().find(|line| format!("{line:?}").contains(secret));
        assert!(line.is_none(), "{line:?}");
    }
}
