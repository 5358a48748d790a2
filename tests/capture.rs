//! Debug capture and the log, through real sockets: what is captured of whose
//! requests, that it holds no secret and no more than its limits, and that a
//! listener of the log gets lines and delays nobody.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "in helpers of tests a failure is the test's failure"
)]

mod support;

use std::os::unix::fs::PermissionsExt;

use plexus::capture::BODY;
use serde_json::{Value, json};
use support::dialect::{Dialect, Ending};
use support::{ADMIN, Gateway, PATIENCE, Response, await_some};

const NOTHING: Value = Value::Null;
const DEBUG: &str = "/v0/management/debug";

/// Every secret that a request can carry.
const SECRETS: [&str; 4] = [
    "sk-app-secret-0123456789",
    "sk-other-secret-0123456789",
    "up-provider-secret-0123456789",
    "hush-own-header-0123456789",
];

/// Two providers of all protocols, three aliases, two keys.
const FILE: &str = "\
captureTraceOnError: false
providers:
  p: { api_base_url: { chat: 'http://SIMULATOR/v1', responses: 'http://SIMULATOR/v1', messages: 'http://SIMULATOR/v1', gemini: 'http://SIMULATOR' }, api_key: up-provider-secret-0123456789, headers: { X-Api-Key: hush-own-header-0123456789 } }
  only: { api_base_url: { messages: 'http://SIMULATOR/v1' }, api_key: up-provider-secret-0123456789 }
models:
  plain: { targets: [{ provider: p, model: simulated }] }
  across: { targets: [{ provider: only, model: simulated }] }
  falling: { selector: in_order, targets: [{ provider: only, model: a+status=503 }, { provider: p, model: simulated }] }
keys:
  app: { secret: sk-app-secret-0123456789 }
  other: { secret: sk-other-secret-0123456789 }
";

fn gateway() -> Gateway {
    Gateway::with(FILE)
}

fn ask(gateway: &Gateway, key: usize, model: &str, stream: bool) -> Response {
    let (path, body) = Dialect::Chat.ask(model, stream);
    post(gateway, key, &path, &body)
}

fn post(gateway: &Gateway, key: usize, path: &str, body: &Value) -> Response {
    let bearer = format!("Bearer {}", SECRETS[key]);
    let headers = [
        ("authorization", bearer.as_str()),
        ("content-type", "application/json"),
    ];
    gateway.request("POST", path, &headers, body.to_string())
}

fn id(answer: &Response) -> String {
    answer.header("x-request-id").unwrap().to_owned()
}

fn watch(gateway: &Gateway, body: &Value) -> Value {
    gateway.admin("PATCH", DEBUG, body).expect(200).json()
}

/// The capture of that request; it is written after the answer has left.
fn captured(gateway: &Gateway, id: &str) -> Value {
    await_some("the capture", || {
        let path = format!("{DEBUG}/logs/{id}");
        let found = gateway.admin("GET", &path, &NOTHING);
        (found.status == 200).then(|| found.json())
    })
}

fn total(gateway: &Gateway) -> u64 {
    gateway.app.store.flush(PATIENCE).unwrap();
    let page = gateway.admin("GET", "/v0/management/debug-logs", &NOTHING);
    page.expect(200).json()["total"].as_u64().unwrap()
}

fn text<'a>(capture: &'a Value, field: &str) -> &'a str {
    capture[field]
        .as_str()
        .unwrap_or_else(|| panic!("{field}: {capture:#}"))
}

fn parsed(capture: &Value, field: &str) -> Value {
    serde_json::from_str(text(capture, field)).unwrap()
}

// ---- whose requests

#[test]
fn nothing_is_captured_while_nobody_wants_to_see_it() {
    let gateway = gateway();
    ask(&gateway, 0, "plain", false).expect(200);
    gateway.rows(1);
    assert_eq!(total(&gateway), 0);
    assert_eq!(gateway.rows(1)[0]["hasDebug"], false);
    let state = gateway.admin("GET", DEBUG, &NOTHING).json();
    assert_eq!(
        state,
        json!({ "enabled": false, "enabledGlobal": false, "enabledKeys": [], "providers": null,
                "keys": [], "aliases": [], "dropped": 0 })
    );
}

#[test]
fn each_switch_alone_captures_its_own_and_no_other() {
    for (switch, asked, left) in [
        (json!({ "keys": ["app"] }), (0, "plain"), (1, "plain")),
        (
            json!({ "aliases": ["across"] }),
            (1, "across"),
            (1, "plain"),
        ),
        (
            json!({ "providers": ["only"] }),
            (0, "falling"),
            (0, "plain"),
        ),
        (
            json!({ "enabled": true, "providers": ["only"] }),
            (0, "plain"),
            (9, ""),
        ),
    ] {
        let gateway = gateway();
        watch(&gateway, &switch);
        let wanted = id(&ask(&gateway, asked.0, asked.1, false).expect(200));
        let mut asked = 1;
        if left.0 < 9 {
            ask(&gateway, left.0, left.1, false).expect(200);
            asked = 2;
        }
        captured(&gateway, &wanted);
        gateway.rows(asked);
        assert_eq!(total(&gateway), 1, "{switch}");
        let rows = gateway.rows(asked);
        let marked: Vec<_> = rows.iter().filter(|row| row["hasDebug"] == true).collect();
        assert_eq!(marked.len(), 1, "{switch}");
        assert_eq!(marked[0]["requestId"], wanted.as_str());
        // And off again.
        watch(
            &gateway,
            &json!({ "enabled": false, "providers": null, "keys": [], "aliases": [] }),
        );
        ask(&gateway, 0, "falling", false).expect(200);
        gateway.rows(asked + 1);
        assert_eq!(total(&gateway), 1);
    }
}

#[test]
fn on_error_captures_failures_and_what_fell_over_and_nothing_else() {
    let gateway = gateway();
    const SWITCH: &str = "/v0/management/config/capture-trace-on-error";
    assert_eq!(
        gateway.admin("GET", SWITCH, &NOTHING).json(),
        json!({ "enabled": false })
    );
    let set = gateway.admin("PATCH", SWITCH, &json!({ "enabled": true }));
    assert_eq!(set.expect(200).json(), json!({ "enabled": true }));
    assert!(
        gateway.text().starts_with("captureTraceOnError: true\n"),
        "{}",
        gateway.text()
    );
    gateway
        .admin("PATCH", SWITCH, &json!({ "enabled": "yes" }))
        .expect(400);
    ask(&gateway, 0, "plain", false).expect(200);
    let fell = id(&ask(&gateway, 0, "falling", false).expect(200));
    let failed = id(&ask(&gateway, 0, "direct/p/x+status=500", false).expect(500));
    let wrong = id(&post(&gateway, 0, "/v1/chat/completions", &json!("no request")).expect(400));
    gateway.rows(4);
    assert_eq!(total(&gateway), 3);
    let fell = captured(&gateway, &fell);
    assert_eq!(fell["earlierAttempts"][0]["receivedStatus"], 503);
    assert_eq!(fell["earlierAttempts"][0]["provider"], "only");
    assert_eq!(fell["provider"], "p");
    let failed = captured(&gateway, &failed);
    assert_eq!(failed["responseStatus"], 500);
    assert!(text(&failed, "rawResponse").contains("error"), "{failed:#}");
    let wrong = captured(&gateway, &wrong);
    assert_eq!(text(&wrong, "rawRequest"), "\"no request\"");
    assert_eq!(wrong["rawResponse"], NOTHING);
    assert_eq!(wrong["responseStatus"], 400);
}

#[test]
fn debug_in_the_environment_captures_everything_from_the_start() {
    let gateway = Gateway::with_environment(FILE, &[("DEBUG", "true")]);
    let answer = ask(&gateway, 0, "plain", false).expect(200);
    captured(&gateway, &id(&answer));
    assert_eq!(
        gateway.admin("GET", DEBUG, &NOTHING).json()["enabledGlobal"],
        true
    );
}

#[test]
fn a_limited_caller_sees_and_deletes_its_own_and_switches_itself() {
    let gateway = gateway();
    let own =
        |method: &str, path: &str, body: &Value| gateway.manage(SECRETS[0], method, path, body);
    let toggle = "/v0/management/self/debug/toggle";
    let state = own("POST", toggle, &json!({ "enabled": true })).expect(200);
    assert_eq!(
        state.json(),
        json!({ "keyName": "app", "enabled": true, "enabledGlobal": false })
    );
    own("POST", toggle, &json!({})).expect(400);
    let mine = id(&ask(&gateway, 0, "plain", false).expect(200));
    watch(&gateway, &json!({ "enabled": true }));
    let theirs = id(&ask(&gateway, 1, "plain", false).expect(200));
    captured(&gateway, &mine);
    captured(&gateway, &theirs);
    let state = own("GET", DEBUG, &NOTHING).json();
    assert_eq!(state["enabledForKey"], true);
    assert_eq!(state["keys"], json!(["app"]));
    let page = own("GET", "/v0/management/debug/logs?limit=1", &NOTHING).json();
    assert_eq!(page["total"], 1);
    assert_eq!(page["data"][0]["requestId"], mine.as_str());
    assert_eq!(page["data"][0]["responseStatus"], 200);
    assert!(page["data"][0]["createdAt"].is_u64());
    let path = |id: &str| format!("{DEBUG}/logs/{id}");
    let foreign = own("GET", &path(&theirs), &NOTHING).expect(404);
    assert_eq!(foreign.json(), json!({ "error": "Log not found" }));
    own("DELETE", &path(&theirs), &NOTHING).expect(404);
    own("DELETE", &path("nonsense"), &NOTHING).expect(404);
    own("DELETE", &path(&mine), &NOTHING).expect(200);
    own("PATCH", DEBUG, &json!({ "enabled": false })).expect(403);
    own("DELETE", "/v0/management/debug/logs", &NOTHING).expect(403);
    assert_eq!(total(&gateway), 1);
    gateway.admin("DELETE", &path(&mine), &NOTHING).expect(200);
    gateway
        .admin("DELETE", "/v0/management/debug/logs", &NOTHING)
        .expect(200);
    assert_eq!(total(&gateway), 0);
    let admins = gateway
        .admin("POST", toggle, &json!({ "enabled": true }))
        .expect(400);
    assert!(admins.text().contains("keyName"), "{}", admins.text());
    let path = format!("{toggle}?keyName=nobody");
    gateway
        .admin("POST", &path, &json!({ "enabled": true }))
        .expect(404);
    let path = format!("{toggle}?keyName=other");
    gateway
        .admin("POST", &path, &json!({ "enabled": true }))
        .expect(200);
    assert_eq!(
        gateway.admin("GET", DEBUG, &NOTHING).json()["keys"],
        json!(["app", "other"])
    );
}

#[test]
fn a_change_of_the_switches_that_makes_no_sense_changes_nothing() {
    let gateway = gateway();
    for body in [
        json!({ "enabled": 1 }),
        json!({ "enabled": true, "keys": "app" }),
        json!({ "enabled": true, "key": ["app"] }),
        json!({ "providers": [1] }),
    ] {
        let refused = gateway.admin("PATCH", DEBUG, &body).expect(400).json();
        assert_eq!(refused["error"], "Invalid request body", "{body}");
        assert_eq!(refused["details"].as_array().unwrap().len(), 1);
        assert_eq!(
            gateway.admin("GET", DEBUG, &NOTHING).json()["enabled"],
            false
        );
    }
}

// ---- what

#[test]
fn the_four_bodies_of_a_passed_on_answer_are_the_bytes_of_the_wire() {
    let gateway = gateway();
    watch(&gateway, &json!({ "enabled": true }));
    let (path, body) = Dialect::Chat.ask("plain", false);
    let answer = post(&gateway, 0, &path, &body).expect(200);
    let capture = captured(&gateway, &id(&answer));
    assert_eq!(text(&capture, "rawRequest"), body.to_string());
    assert_eq!(parsed(&capture, "transformedRequest")["model"], "simulated");
    assert_eq!(text(&capture, "transformedResponse"), answer.text());
    assert_eq!(text(&capture, "rawResponse"), answer.text());
    assert_eq!(capture["rawResponseSnapshot"], NOTHING);
    assert_eq!(capture["responseStatus"], 200);
    assert_eq!(capture["apiKey"], "app");
    assert_eq!(capture["cut"], json!({}));
    assert!(text(&capture, "url").ends_with("/v1/chat/completions"));
    let names = [
        "requestHeaders",
        "responseHeaders",
        "transformedRequestHeaders",
        "transformedResponseHeaders",
    ];
    for name in names {
        assert!(parsed(&capture, name)["content-type"].is_string(), "{name}");
    }
}

#[test]
fn a_translated_stream_is_kept_raw_and_put_together_on_both_sides() {
    let gateway = gateway();
    watch(&gateway, &json!({ "enabled": true }));
    for (model, spoken) in [("plain", "chat"), ("across", "messages")] {
        let answer = ask(&gateway, 0, model, true).expect(200);
        assert_eq!(Dialect::Chat.ending(&answer.body), Ending::Finished);
        let capture = captured(&gateway, &id(&answer));
        assert_eq!(capture["outgoingApiType"], spoken);
        assert_eq!(text(&capture, "transformedResponse"), answer.text());
        let raw = text(&capture, "rawResponse");
        assert_eq!(
            raw.contains("event: message_start"),
            spoken == "messages",
            "{raw}"
        );
        let told = parsed(&capture, "transformedResponseSnapshot");
        let content = told["choices"][0]["message"]["content"].as_str().unwrap();
        assert!(!content.is_empty());
        let provider = parsed(&capture, "rawResponseSnapshot");
        let said = match spoken {
            "messages" => provider["content"][0]["text"].as_str(),
            _ => provider["choices"][0]["message"]["content"].as_str(),
        };
        assert_eq!(said, Some(content));
    }
}

#[test]
fn every_dialect_has_its_stream_put_together() {
    let gateway = gateway();
    watch(&gateway, &json!({ "enabled": true }));
    for dialect in Dialect::ALL {
        let (path, body) = dialect.ask("plain", true);
        let answer = post(&gateway, 0, &path, &body).expect(200);
        let capture = captured(&gateway, &id(&answer));
        for field in ["rawResponseSnapshot", "transformedResponseSnapshot"] {
            assert!(parsed(&capture, field).is_object(), "{dialect:?} {field}");
        }
    }
}

#[test]
fn a_client_that_leaves_and_a_stream_that_breaks_are_captured_as_far_as_they_came() {
    let gateway = gateway();
    watch(&gateway, &json!({ "enabled": true }));
    let (path, body) = Dialect::Chat.ask("direct/p/m+chunks=4+close=600", true);
    let answer = post(&gateway, 0, &path, &body);
    let capture = captured(&gateway, &id(&answer));
    assert_eq!(text(&capture, "transformedResponse"), answer.text());
    let (path, body) = Dialect::Chat.ask("direct/p/m+chunks=100+gap=20", true);
    let bearer = format!("Bearer {}", SECRETS[0]);
    let headers = [
        ("authorization", bearer.as_str()),
        ("content-type", "application/json"),
    ];
    let mut stream = gateway.stream("POST", &path, &headers, body.to_string());
    let id = stream.header("x-request-id").unwrap().to_owned();
    stream.read_until("data: ");
    stream.leave();
    let capture = captured(&gateway, &id);
    assert!(text(&capture, "rawResponse").starts_with("data: "));
    assert!(parsed(&capture, "transformedResponseSnapshot").is_object());
}

#[test]
fn what_is_larger_than_the_limit_is_cut_and_that_is_stated() {
    let gateway = gateway();
    watch(&gateway, &json!({ "enabled": true }));
    let size = 10 << 20;
    let (path, mut body) = Dialect::Chat.ask("plain", false);
    body["messages"][0]["content"] = "x".repeat(size).into();
    let answer = post(&gateway, 0, &path, &body).expect(200);
    let capture = captured(&gateway, &id(&answer));
    let raw = text(&capture, "rawRequest");
    assert_eq!(raw.len(), BODY);
    let whole = body.to_string().len();
    assert_eq!(capture["cut"]["rawRequest"], whole - BODY);
    assert_eq!(text(&capture, "transformedResponse"), answer.text());
}

// ---- again

#[test]
fn a_captured_request_is_run_again_and_compared() {
    let gateway = gateway();
    watch(&gateway, &json!({ "enabled": true }));
    for stream in [false, true] {
        let asked = ask(&gateway, 0, "plain", stream).expect(200);
        let first = id(&asked);
        captured(&gateway, &first);
        let path = format!("{DEBUG}/logs/{first}/replay");
        let again = gateway.admin("POST", &path, &NOTHING).expect(200).json();
        assert_eq!(again["replayOf"], first.as_str());
        assert_eq!(again["differences"], json!([]), "{again:#}");
        assert_eq!(again["replay"]["status"], 200);
        let said = again["original"]["text"].as_str().unwrap();
        assert!(!said.is_empty());
        // It left a row and a capture of its own, and they say what they are.
        let second = captured(&gateway, again["requestId"].as_str().unwrap());
        assert_eq!(
            text(&second, "rawRequest"),
            text(&captured(&gateway, &first), "rawRequest")
        );
        let rows = gateway.rows(1);
        assert_eq!(rows[0]["requestId"], again["requestId"]);
        assert_eq!(rows[0]["apiKey"], "app");
        assert_eq!(rows[0]["attribution"], "replay");
    }
}

#[test]
fn a_captured_request_is_run_against_another_target() {
    let gateway = gateway();
    watch(&gateway, &json!({ "enabled": true }));
    let first = id(&ask(&gateway, 0, "plain", true).expect(200));
    captured(&gateway, &first);
    let path = format!("{DEBUG}/logs/{first}/replay");
    let to = |target: Value| gateway.admin("POST", &path, &json!({ "target": target }));
    let again = to("only/other+chunks=3".into()).expect(200).json();
    let different = again["differences"].as_array().unwrap();
    for name in ["provider", "selectedModelName", "outgoingApiType", "text"] {
        assert!(different.contains(&name.into()), "{name}: {again:#}");
    }
    assert_eq!(again["replay"]["provider"], "only");
    assert_ne!(again["replay"]["text"], again["original"]["text"]);
    let failed = to("p/x+status=500".into()).expect(200).json();
    assert_eq!(failed["replay"]["status"], 500);
    assert_eq!(failed["original"]["status"], 200);
    assert_eq!(
        to("nowhere/x".into()).expect(200).json()["replay"]["status"],
        404
    );
    to(7.into()).expect(400);
    to("word".into()).expect(400);
    gateway
        .admin("POST", &path, &json!({ "targets": "p/x" }))
        .expect(400);
    gateway
        .manage(SECRETS[1], "POST", &path, &NOTHING)
        .expect(404);
    gateway
        .manage(SECRETS[0], "POST", &path, &NOTHING)
        .expect(200);
}

#[test]
fn a_request_that_was_cut_is_not_run_again() {
    let gateway = gateway();
    watch(&gateway, &json!({ "enabled": true }));
    let (path, mut body) = Dialect::Chat.ask("plain", false);
    body["messages"][0]["content"] = "x".repeat(BODY).into();
    let first = id(&post(&gateway, 0, &path, &body).expect(200));
    captured(&gateway, &first);
    let path = format!("{DEBUG}/logs/{first}/replay");
    let refused = gateway.admin("POST", &path, &NOTHING).expect(409);
    assert!(refused.text().contains("too many"), "{}", refused.text());
    let path = format!("{DEBUG}/logs/00000000-0000-7000-8000-000000000000/replay");
    gateway.admin("POST", &path, &NOTHING).expect(404);
}

// ---- what nobody may see

/// Requests of every kind that carry every secret; returns their ids.
fn drive(gateway: &Gateway, mut after_each: impl FnMut()) -> Vec<String> {
    let mut ids = Vec::new();
    let models = [
        "plain",
        "across",
        "falling",
        "direct/p/x+status=401",
        "direct/p/x+close=0",
        "nowhere",
    ];
    for (key, model) in models.into_iter().enumerate() {
        for stream in [false, true] {
            let (path, mut body) = Dialect::Chat.ask(model, stream);
            // A client that puts its key where it doesn't belong.
            body["messages"][0]["content"] = SECRETS[key % 2].into();
            ids.push(id(&post(gateway, key % 2, &path, &body)));
            after_each();
        }
    }
    let (path, body) = Dialect::Gemini.ask("plain", false);
    let path = format!("{path}?key={}", SECRETS[0]);
    let json = [("content-type", "application/json")];
    let by_query = gateway.request("POST", &path, &json, body.to_string());
    ids.push(id(&by_query.expect(200)));
    let wrong = [("authorization", "Bearer sk-wrong-secret-0123456789")];
    let refused = gateway.request("POST", "/v1/chat/completions", &wrong, "{}");
    refused.expect(401);
    after_each();
    ids
}

#[test]
fn no_secret_is_in_a_capture_or_in_the_log_at_any_level() {
    let gateway = gateway();
    watch(&gateway, &json!({ "enabled": true }));
    let telemetry = support::telemetry();
    let level = gateway.admin("GET", "/v0/management/logging/level", &NOTHING);
    assert_eq!(level.json()["level"], "trace");
    let mut seen = 0;
    let ids = drive(&gateway, || {
        assert!(telemetry.flush(PATIENCE));
        for line in telemetry.lines_after(seen) {
            seen = line.number;
            let line = format!("{line:?}");
            let others = [ADMIN, "sk-wrong-secret-0123456789"];
            for secret in SECRETS.into_iter().chain(others) {
                assert!(!line.contains(secret), "{secret} in {line}");
            }
        }
    });
    gateway.rows(ids.len());
    for id in &ids {
        let capture = captured(&gateway, id).to_string();
        for secret in SECRETS {
            assert!(!capture.contains(secret), "{secret} in {capture}");
        }
    }
    on_disk(&gateway);
}

/// The database, byte by byte, and who may read it.
fn on_disk(gateway: &Gateway) {
    gateway.app.store.flush(PATIENCE).unwrap();
    for suffix in ["", "-wal"] {
        let mut path = gateway.app.store.path().to_owned().into_os_string();
        path.push(suffix);
        let bytes = std::fs::read(&path).unwrap();
        for secret in SECRETS {
            let found = bytes
                .windows(secret.len())
                .any(|window| window == secret.as_bytes());
            assert!(!found, "{secret} in {path:?}");
        }
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

// ---- the log

#[test]
fn the_logs_level_and_modules_are_set_read_and_set_back() {
    let gateway = gateway();
    let level = "/v0/management/logging/level";
    let get = || gateway.admin("GET", level, &NOTHING).expect(200).json();
    assert_eq!(get()["startupLevel"], "trace");
    assert_eq!(get()["ephemeral"], true);
    let refused = gateway
        .admin("PUT", level, &json!({ "level": "loud" }))
        .expect(400)
        .json();
    assert!(
        refused["error"].as_str().unwrap().contains("loud"),
        "{refused}"
    );
    assert_eq!(refused["supportedLevels"], get()["supportedLevels"]);
    gateway.admin("PUT", level, &json!({})).expect(400);
    let set = gateway
        .admin("PUT", level, &json!({ "level": "TRACE" }))
        .expect(200);
    assert_eq!(set.json()["level"], "trace");
    assert_eq!(
        gateway.admin("DELETE", level, &NOTHING).expect(200).json()["level"],
        "trace"
    );
    let modules = "/v0/management/logging/modules";
    gateway
        .admin("PUT", modules, &json!({ "modules": [1] }))
        .expect(400);
    let set = gateway.admin("PUT", modules, &json!({ "modules": ["plexus", "unknown"] }));
    assert_eq!(
        set.expect(200).json(),
        json!({ "modules": ["plexus", "unknown"] })
    );
    let reset = gateway.admin("DELETE", modules, &NOTHING).expect(200);
    assert_eq!(reset.json(), json!({ "modules": [] }));
    gateway
        .manage(SECRETS[0], "GET", level, &NOTHING)
        .expect(403);
}

#[test]
fn listeners_get_lines_as_they_come_and_let_a_stop_go_on() {
    let mut gateway = gateway();
    let telemetry = support::telemetry();
    let headers = [("x-admin-key", ADMIN)];
    let mut stream = gateway.stream("GET", "/v0/system/logs/stream", &headers, "");
    assert_eq!(
        stream.header("content-type"),
        Some("text/event-stream; charset=utf-8")
    );
    // Lines from before are not told again, so log until the listener is there.
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let logging = {
        let stop = std::sync::Arc::clone(&stop);
        std::thread::spawn(move || {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                tracing::info!(target: "plexus::tests", evil = "a\nevent: forged", "for the listener");
                std::thread::yield_now();
                std::thread::park_timeout(std::time::Duration::from_millis(1));
            }
        })
    };
    let text = stream.read_until("for the listener");
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    logging.join().unwrap();
    assert!(text.contains("event: syslog\nid: "), "{text}");
    assert!(!text.contains("\nevent: forged"), "{text}");
    assert!(telemetry.flush(PATIENCE));
    let recent = gateway
        .admin("GET", "/v0/system/logs/recent?limit=1000", &NOTHING)
        .json();
    let lines = recent["data"].as_array().unwrap();
    let mine = lines
        .iter()
        .find(|line| line["message"] == "for the listener")
        .unwrap();
    assert_eq!(mine["module"], "plexus::tests");
    assert_eq!(mine["level"], "info");
    // One that never reads holds up neither the log nor the stop.
    let lazy = gateway.stream("GET", "/v0/system/logs/stream", &headers, "");
    for _ in 0..20_000 {
        tracing::info!(target: "plexus::tests", filler = "x".repeat(200), "a flood");
    }
    assert!(telemetry.flush(PATIENCE));
    assert!(
        gateway.stop(PATIENCE),
        "a listener of the log held up the stop"
    );
    let (_, error) = stream.rest();
    assert!(error.is_none(), "{error:?}");
    drop(lazy);
}
