//! Limits on keys as clients meet them: who gets in, what a refusal says, what
//! is left after failures, stops and crashes.

#![expect(
    clippy::unwrap_used,
    reason = "in helpers of tests a failure is the test's failure"
)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use plexus::quota::Told;
use serde_json::{Value, json};
use support::dialect::Dialect;
use support::process::Process;
use support::upstream::Upstream;
use support::{FILE, Gateway, Response, await_some, media};

#[test]
fn a_client_that_leaves_a_stream_before_its_usage_has_come_pays_for_what_it_got() {
    let quotas = "  tokens: { type: weekly, limitType: tokens, limit: 100000 }\n";
    let gateway = Gateway::with(&file("tokens", quotas));
    let ways = [
        (Dialect::Chat, "chat"),
        (Dialect::Messages, "chat"),
        (Dialect::Messages, "messages"),
        (Dialect::Responses, "responses"),
    ];
    for (turn, (dialect, provider)) in ways.into_iter().enumerate() {
        let before = used(&gateway);
        let model = format!("direct/{provider}/m+words=200+gap=5+tokens_out=200");
        let mut stream = gateway.speak(dialect, &model, true);
        stream.read_until("made");
        stream.leave();
        let rows = gateway.rows(turn + 1);
        let row = &rows[0];
        let number = |name: &str| row[name].as_u64().unwrap_or(0);
        assert_eq!(row["responseStatus"], "cancelled");
        assert_eq!(row["tokensEstimated"], 1, "{row:?}");
        assert!(
            number("tokensInput") > 0 && number("tokensOutput") > 0,
            "{row:?}"
        );
        assert!(number("tokensOutput") < 200, "{row:?}");
        assert!((used(&gateway) - before - tokens(row) as f64).abs() < f64::EPSILON);
    }
}

const COMPLETION: &str = r#"{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"hello"},"finish_reason":"stop"}],"usage":{"prompt_tokens":60,"completion_tokens":40,"total_tokens":100}}"#;

/// [`FILE`] with these quotas for its key.
fn file(names: &str, quotas: &str) -> String {
    let key = format!("app: {{ quotas: [{names}], secret:");
    format!(
        "{}user_quotas:\n{quotas}",
        FILE.replace("app: { secret:", &key)
    )
}

/// A gateway with these quotas before that provider, which is called `own`.
fn before(upstream: &Upstream, names: &str, quotas: &str) -> Gateway {
    let own = format!(
        "providers:\n  own: {{ api_base_url: 'http://{}/v1', api_key: x }}\n",
        upstream.address
    );
    Gateway::with(&file(names, quotas).replacen("providers:\n", &own, 1))
}

fn chat(gateway: &Gateway, model: &str) -> Response {
    let (path, body) = Dialect::Chat.ask(model, false);
    gateway.ask(&path, &body)
}

/// How the key's quotas stand.
fn told(gateway: &Gateway) -> Vec<Told> {
    let config = gateway.app.live.load();
    let now = jiff::Timestamp::now().as_millisecond();
    let list = gateway.app.quotas.named(&config, "app", now).unwrap();
    list.told(now)
}

/// What is settled of the key's first quota, once nothing is reserved.
fn used(gateway: &Gateway) -> f64 {
    await_some("all to be settled", || {
        let told = told(gateway).remove(0);
        (told.level.reserved == 0).then(|| told.used())
    })
}

/// A provider that answers when it is told to.
fn patient() -> (Upstream, Arc<AtomicBool>) {
    let open = Arc::new(AtomicBool::new(false));
    let opened = Arc::clone(&open);
    let upstream = Upstream::start(move |mut wire| {
        while wire.request().is_some() {
            await_some("the word", || opened.load(Ordering::SeqCst).then_some(()));
            wire.answer("200 OK", COMPLETION);
        }
    });
    (upstream, open)
}

/// Sends 64 requests at once; the provider answers when all others are refused.
/// Returns the statuses.
fn sixty_four(gateway: &Gateway, upstream: &Upstream, open: &AtomicBool) -> Vec<u16> {
    open.store(false, Ordering::SeqCst);
    let seen = upstream.requests();
    let refused = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let ask = || {
            let status = chat(gateway, "direct/own/m").status;
            refused.fetch_add(usize::from(status == 429), Ordering::SeqCst);
            status
        };
        let threads: Vec<_> = (0..64).map(|_| scope.spawn(ask)).collect();
        await_some("all to be admitted or refused", || {
            let admitted = upstream.requests() - seen;
            (admitted + refused.load(Ordering::SeqCst) == 64).then_some(())
        });
        open.store(true, Ordering::SeqCst);
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    })
}

/// Quotas can't be got past by asking many times at once: of 64 requests a budget
/// for three admits three, be it counted in requests or in tokens.
#[test]
fn pain_9_sixty_four_at_once_against_a_budget_for_three_are_three() {
    let (upstream, open) = patient();
    let quotas = "  few: { type: daily, limitType: requests, limit: 3 }\n";
    let gateway = before(&upstream, "few", quotas);
    let statuses = sixty_four(&gateway, &upstream, &open);
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 3);
    assert!((used(&gateway) - 3.0).abs() < f64::EPSILON);
    let statuses = sixty_four(&gateway, &upstream, &open);
    assert!(statuses.iter().all(|status| *status == 429));
    assert_eq!(upstream.requests(), 3);
}

#[test]
fn pain_9_a_budget_of_tokens_for_three_admits_no_more_than_three_of_sixty_four() {
    let (upstream, open) = patient();
    let quotas = "  tokens: { type: monthly, limitType: tokens, limit: 300 }\n";
    let gateway = before(&upstream, "tokens", quotas);
    let mut admitted = 0;
    for _ in 0..5 {
        let statuses = sixty_four(&gateway, &upstream, &open);
        admitted += statuses.iter().filter(|status| **status == 200).count();
        assert!((used(&gateway) - 100.0 * admitted as f64).abs() < f64::EPSILON);
    }
    assert_eq!(admitted, 3);
}

#[test]
fn pain_9_a_picture_is_not_taken_for_text() {
    let quotas = "  tokens: { type: daily, limitType: tokens, limit: 20000 }\n";
    let gateway = Gateway::with(&file("tokens", quotas));
    let (path, mut body) = Dialect::Chat.ask("by-chat", false);
    let picture = format!(
        "data:image/png;base64,{}",
        "iVBORw0KGgoAAAANSUhEUgAA".repeat(40_000)
    );
    body["messages"] = json!([{ "role": "user", "content": [
        { "type": "text", "text": "What is this?" },
        { "type": "image_url", "image_url": { "url": picture } },
    ] }]);
    let held = gateway.ask(&path, &body).expect(200);
    assert_eq!(held.header("x-plexus-quota-remaining"), Some("20000"));
    let text = body.to_string();
    let frames = [bytes::Bytes::from(text.into_bytes())];
    assert!(plexus::quota::text_bytes(&frames) < 40_000);
}

#[test]
#[expect(clippy::too_many_lines, reason = "one story, told in order")]
fn a_refusal_is_said_in_each_clients_own_words() {
    let quotas = "  few: { type: daily, limitType: requests, limit: 1 }\n";
    let gateway = Gateway::with(&file("few", quotas));
    let first = chat(&gateway, "by-chat").expect(200);
    assert_eq!(first.header("x-plexus-quota"), Some("few"));
    assert_eq!(first.header("x-plexus-quota-limit"), Some("1"));
    assert_eq!(first.header("x-plexus-quota-remaining"), Some("1"));
    assert!(
        first
            .header("x-plexus-quota-reset")
            .unwrap()
            .ends_with("T00:00:00.000Z")
    );
    assert!((used(&gateway) - 1.0).abs() < f64::EPSILON);
    for dialect in Dialect::FOUR {
        for stream in [false, true] {
            let answer = gateway
                .speak(dialect, "by-any", stream)
                .finish()
                .expect(429);
            let body = answer.json();
            let (kind, message) = dialect.error(&body);
            let expected = match dialect {
                Dialect::Messages => "rate_limit_error",
                Dialect::Gemini | Dialect::GeminiArray => "RESOURCE_EXHAUSTED",
                _ => "quota_exceeded",
            };
            assert_eq!(kind, expected);
            assert_eq!(message, "Quota exceeded: few limit of 1 reached");
            let error = &body["error"];
            assert_eq!(error["quota_name"], "few");
            assert_eq!(error["current_usage"], 1);
            assert_eq!(error["limit"], 1);
            assert_eq!(error["source"], "gateway");
            assert_eq!(
                error["blocking_quotas"],
                json!([{ "quotaName": "few", "limitType": "requests", "limit": 1,
                    "currentUsage": 1, "remaining": 0, "resetsAt": error["resets_at"] }])
            );
            let seconds: u64 = answer.header("retry-after").unwrap().parse().unwrap();
            assert!((1..=86_400).contains(&seconds), "until midnight");
            assert_eq!(answer.header("x-plexus-quota"), Some("few"));
            assert_eq!(answer.header("x-should-retry"), Some("false"));
            let (limit, reset) = match dialect {
                Dialect::Messages => (
                    Some("anthropic-ratelimit-requests-limit"),
                    "anthropic-ratelimit-requests-reset",
                ),
                Dialect::Gemini | Dialect::GeminiArray => (None, ""),
                _ => (
                    Some("x-ratelimit-limit-requests"),
                    "x-ratelimit-reset-requests",
                ),
            };
            if let Some(limit) = limit {
                assert_eq!(answer.header(limit), Some("1"));
                assert!(answer.header(reset).is_some());
            }
        }
    }
    let rows = gateway.rows(9);
    assert!(
        rows[..8]
            .iter()
            .all(|row| row["responseStatus"] == "quota_exceeded")
    );
    assert_eq!(gateway.provider.simulator.requests().len(), 1);
}

#[test]
fn every_endpoint_that_answers_with_a_models_work_is_counted_and_refused() {
    let quotas = "  few: { type: daily, limitType: requests, limit: 6 }\n";
    let gateway = Gateway::with(&file("few", quotas));
    let ask = |ask: &media::MediaAsk| {
        let headers = [
            ("authorization", "Bearer sk-plexus-tests"),
            ("content-type", ask.content_type),
        ];
        gateway.request("POST", ask.path, &headers, &ask.body)
    };
    let asks = media::all("direct/chat/simulated");
    assert_eq!(asks.len(), 6);
    for one in &asks {
        assert_eq!(ask(one).status, 200, "{}", one.path);
    }
    assert!((used(&gateway) - 6.0).abs() < f64::EPSILON);
    for one in &asks {
        let refused = ask(one).expect(429);
        assert_eq!(refused.json()["error"]["quota_name"], "few", "{}", one.path);
    }
    // What is no model's work is neither.
    let count =
        json!({ "model": "by-messages", "messages": [{ "role": "user", "content": "hi" }] });
    gateway.ask("/v1/messages/count_tokens", &count).expect(200);
}

/// All tokens that a row speaks of.
fn tokens(row: &serde_json::Map<String, Value>) -> u64 {
    let names = [
        "tokensInput",
        "tokensOutput",
        "tokensReasoning",
        "tokensCached",
        "tokensCacheWrite",
    ];
    names.iter().filter_map(|name| row[*name].as_u64()).sum()
}

#[test]
fn tokens_are_counted_as_the_row_has_them_and_failures_cost_nothing() {
    let quotas = "  tokens: { type: weekly, limitType: tokens, limit: 100000 }\n";
    let gateway = Gateway::with(&file("tokens", quotas));
    let provider = ["chat", "messages", "responses", "gemini"];
    for (dialect, provider) in Dialect::FOUR.into_iter().zip(provider) {
        let model = format!(
            "direct/{provider}/m+tokens_in=1000+cached=300+tokens_out=90+reasoning_tokens=20"
        );
        for stream in [false, true] {
            gateway.speak(dialect, &model, stream).finish().expect(200);
        }
        let broken = format!("direct/{provider}/m+status=500");
        gateway.speak(dialect, &broken, false).finish();
        let cut = format!("direct/{provider}/m+error=content");
        gateway.speak(dialect, &cut, true).rest();
    }
    let rows = gateway.rows(16);
    let counts = rows.iter().filter(|row| row["responseStatus"] == "success");
    let sum: u64 = counts.map(tokens).sum();
    assert_eq!(sum, 8 * 1090);
    assert!((used(&gateway) - sum as f64).abs() < f64::EPSILON);
}

#[test]
fn a_quota_for_one_provider_passes_its_targets_over_and_refuses_when_none_is_left() {
    let quotas =
        "  dear: { type: daily, limitType: requests, limit: 1, allowedProviders: [chat, resp*] }\n";
    let gateway = Gateway::with(&file("dear", quotas));
    let route = |answer: &Response| answer.header("x-plexus-route").unwrap().to_owned();
    let first = chat(&gateway, "by-any").expect(200);
    assert_eq!(route(&first), "chat/simulated; attempts=1");
    assert_eq!(first.header("x-plexus-quota"), Some("dear"));
    let second = chat(&gateway, "by-any").expect(200);
    assert_eq!(route(&second), "messages/simulated; attempts=1");
    assert_eq!(second.header("x-plexus-quota"), None, "it is not counted");
    let row = gateway.rows(2).remove(0);
    let history: Value = serde_json::from_str(row["retryHistory"].as_str().unwrap()).unwrap();
    assert_eq!(history[0]["reason"], "quota_exceeded:dear");
    let third = chat(&gateway, "by-chat").expect(429);
    assert_eq!(third.json()["error"]["quota_name"], "dear");
    chat(&gateway, "by-messages").expect(200);
}

#[test]
fn answers_warn_when_much_of_a_quota_is_gone() {
    let quotas = "  few: { type: daily, limitType: requests, limit: 4, warnAt: 0.5 }\n  many: { type: daily, limitType: requests, limit: 1000 }\n";
    let gateway = Gateway::with(&file("few, many", quotas));
    let warnings: Vec<Option<String>> = (0..4)
        .map(|_| {
            let answer = chat(&gateway, "by-chat").expect(200);
            assert_eq!(answer.header("x-plexus-quota"), Some("few"), "the tightest");
            answer.header("x-plexus-quota-warning").map(str::to_owned)
        })
        .collect();
    let few = Some("few".to_owned());
    assert_eq!(warnings, [None, None, few.clone(), few]);
}

#[test]
fn what_was_used_is_known_after_a_restart() {
    let quotas = "  few: { type: daily, limitType: requests, limit: 2 }\n";
    let mut gateway = Gateway::with(&file("few", quotas));
    chat(&gateway, "by-chat").expect(200);
    gateway.restart();
    assert!((used(&gateway) - 1.0).abs() < f64::EPSILON);
    chat(&gateway, "by-chat").expect(200);
    gateway.restart();
    chat(&gateway, "by-chat").expect(429);
}

#[test]
fn after_a_restart_no_more_is_reserved_than_requests_took_before_it() {
    let quotas = "  tokens: { type: daily, limitType: tokens, limit: 100000 }\n";
    let mut gateway = Gateway::with(&file("tokens", quotas));
    // Only a stream takes its time.
    let model = "direct/chat/m+tokens_out=20+words=500+gap=20";
    for _ in 0..5 {
        gateway
            .speak(Dialect::Chat, model, false)
            .finish()
            .expect(200);
    }
    gateway.rows(5);
    gateway.restart();
    let stream = gateway.speak(Dialect::Chat, model, true);
    let reserved = told(&gateway)[0].level.reserved;
    assert!((1..1_000_000).contains(&reserved), "{reserved} thousandths");
    stream.leave();
}

#[test]
fn a_client_that_leaves_before_its_answer_gets_its_part_back() {
    let (upstream, open) = patient();
    let quotas = "  few: { type: daily, limitType: requests, limit: 1 }\n";
    let gateway = before(&upstream, "few", quotas);
    let (path, body) = Dialect::Chat.ask("direct/own/m", false);
    let headers = [("authorization", "Bearer sk-plexus-tests")];
    let bytes = support::client::bytes("POST", &path, &headers, body.to_string().as_bytes());
    let mut stream = gateway.client().connect();
    std::io::Write::write_all(&mut stream, &bytes).unwrap();
    await_some("the request", || (upstream.requests() == 1).then_some(()));
    let refused = chat(&gateway, "direct/own/m").expect(429);
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(refused.header("x-should-retry"), None);
    drop(stream);
    assert!(used(&gateway).abs() < f64::EPSILON);
    open.store(true, Ordering::SeqCst);
    chat(&gateway, "direct/own/m").expect(200);
}

/// A request to a gateway in a process of its own, which can be killed.
fn chat_with(gateway: &Process) -> Response {
    let (path, body) = Dialect::Chat.ask("direct/own/m", false);
    let headers = [("authorization", "Bearer sk-plexus-tests")];
    gateway
        .client()
        .request("POST", &path, &headers, body.to_string().as_bytes())
}

/// How the key's quota stands there.
fn status_of(gateway: &Process) -> Value {
    let headers = [("x-admin-key", support::ADMIN)];
    let path = "/v0/management/quota/status/app";
    gateway
        .client()
        .request("GET", path, &headers, b"")
        .expect(200)
        .json()
}

/// Requests that were under way when the process was killed may have been
/// answered: what was reserved for them is not given out a second time, and does
/// not stay reserved for ever.
#[test]
fn pain_9_a_crash_gives_no_second_budget_and_keeps_nothing_reserved() {
    let (upstream, open) = patient();
    let folder = tempfile::tempdir().unwrap();
    let quotas = "  few: { type: monthly, limitType: requests, limit: 3 }\n";
    let own = format!(
        "providers:\n  own: {{ api_base_url: 'http://{}/v1', api_key: x }}\n",
        upstream.address
    );
    let text = file("few", quotas).replacen("providers:\n", &own, 1);
    let text = text.replace("SIMULATOR", "127.0.0.1:9") + "catalogue: { enabled: false }\n";
    std::fs::write(folder.path().join("plexus.yaml"), text).unwrap();
    let gateway = Process::start(folder.path());
    let (path, body) = Dialect::Chat.ask("direct/own/m", false);
    let headers = [("authorization", "Bearer sk-plexus-tests")];
    let bytes = support::client::bytes("POST", &path, &headers, body.to_string().as_bytes());
    let mut clients: Vec<_> = (0..2).map(|_| gateway.client().connect()).collect();
    for client in &mut clients {
        std::io::Write::write_all(client, &bytes).unwrap();
    }
    await_some("both requests", || (upstream.requests() == 2).then_some(()));
    let status = status_of(&gateway);
    assert_eq!(status["quotas"][0]["reserved"], 2, "{status}");
    // Waits for the writer: what was handed over before is on disk.
    let admin = [("x-admin-key", support::ADMIN)];
    let missing = "/v0/management/usage/00000000-0000-4000-8000-000000000000";
    gateway
        .client()
        .request("DELETE", missing, &admin, b"")
        .expect(200);
    // Killed, not stopped.
    drop(gateway);
    open.store(true, Ordering::SeqCst);
    let gateway = Process::start(folder.path());
    let status = status_of(&gateway);
    assert_eq!(status["current_usage"], 2, "{status}");
    assert_eq!(status["quotas"][0]["reserved"], 0, "{status}");
    let statuses: Vec<u16> = (0..3).map(|_| chat_with(&gateway).status).collect();
    assert_eq!(statuses, [200, 429, 429]);
}

#[test]
#[expect(clippy::too_many_lines, reason = "one story, told in order")]
fn quotas_are_made_shown_changed_and_deleted_when_nobody_has_them() {
    let gateway = Gateway::start();
    let path = "/v0/management/user-quotas/few";
    let quota = json!({ "type": "daily", "limitType": "requests", "limit": 2 });
    let made = gateway.admin("PUT", path, &quota).expect(200).json();
    assert_eq!(
        made,
        json!({ "success": true, "name": "few", "quota": quota })
    );
    let all = gateway.admin("GET", "/v0/management/user-quotas", &Value::Null);
    assert_eq!(all.expect(200).json(), json!({ "few": quota }));
    let patched = gateway.admin("PATCH", path, &json!({ "limit": 1, "warnAt": 0.5 }));
    assert_eq!(patched.expect(200).json()["quota"]["limit"], 1);
    let one = gateway.admin("GET", path, &Value::Null).expect(200).json();
    assert_eq!(one["name"], "few");
    assert_eq!(one["warnAt"], 0.5);
    let key = json!({ "quotas": ["few"] });
    gateway
        .admin("PATCH", "/v0/management/keys/app", &key)
        .expect(200);
    chat(&gateway, "by-chat").expect(200);
    chat(&gateway, "by-chat").expect(429);
    let kept = gateway
        .admin("DELETE", path, &Value::Null)
        .expect(409)
        .json();
    assert_eq!(kept["error"]["type"], "conflict_error");
    let message = "Cannot delete quota 'few'. It is assigned to the following keys: app.";
    assert_eq!(kept["error"]["message"], message);
    gateway
        .admin("PATCH", "/v0/management/keys/app", &json!({ "quotas": [] }))
        .expect(200);
    let gone = gateway
        .admin("DELETE", path, &Value::Null)
        .expect(200)
        .json();
    assert_eq!(gone["message"], "Quota 'few' deleted successfully");
    for method in ["GET", "PATCH", "DELETE"] {
        let body = if method == "PATCH" {
            json!({ "limit": 1 })
        } else {
            Value::Null
        };
        let missing = gateway.admin(method, path, &body).expect(404).json();
        let expected = json!({ "message": "Quota not found: few", "type": "not_found_error" });
        assert_eq!(missing["error"], expected);
    }
    for (name, body) in [
        (
            "few",
            json!({ "type": "hourly", "limitType": "requests", "limit": 1 }),
        ),
        (
            "few",
            json!({ "type": "rolling", "limitType": "requests", "limit": 1 }),
        ),
        (
            "few",
            json!({ "type": "daily", "limitType": "requests", "limit": 0 }),
        ),
        ("A", quota),
    ] {
        let path = format!("/v0/management/user-quotas/{name}");
        let refused = gateway.admin("PUT", &path, &body).expect(400).json();
        assert_eq!(
            refused["error"]["type"], "invalid_request_error",
            "{refused}"
        );
    }
}

#[test]
fn what_was_used_is_shown_cleared_and_counted_again() {
    let quotas = "  tokens: { type: daily, limitType: tokens, limit: 100000 }\n  leak: { type: rolling, duration: 1h, limitType: requests, limit: 10 }\n";
    let gateway = Gateway::with(&file("tokens, leak", quotas));
    let model = "direct/chat/m+tokens_in=100+tokens_out=20";
    for _ in 0..2 {
        chat(&gateway, model).expect(200);
    }
    assert!((used(&gateway) - 240.0).abs() < f64::EPSILON);
    let post = |what: &str, body: Value| {
        gateway.admin("POST", &format!("/v0/management/quota/{what}"), &body)
    };
    let status = || {
        let path = "/v0/management/quota/status/app";
        gateway.admin("GET", path, &Value::Null).expect(200).json()
    };
    let seen = status();
    assert_eq!(seen["quota_name"], "leak");
    assert_eq!(seen["quotas"][0]["currentUsage"], 240);
    assert_eq!(seen["quotas"][0]["remaining"], 99_760);
    assert_eq!(seen["quotas"][0]["source"], "assigned");
    assert_eq!(seen["quotas"][0]["scope"], json!({}));
    let both = json!({ "key": "app", "quota": "tokens" });
    post("clear", both.clone()).expect(200);
    assert_eq!(status()["quotas"][0]["currentUsage"], 0);
    assert_eq!(status()["quotas"][1]["currentUsage"], 2);
    let counted = post("recompute", both).expect(200).json();
    assert_eq!(counted["usage"], 240);
    assert_eq!(status()["quotas"][0]["currentUsage"], 240);
    let leaks = post("recompute", json!({ "key": "app", "quota": "leak" })).expect(400);
    assert_eq!(leaks.json()["reason"], "unsupported_quota_type");
    let all = post("clear", json!({ "key": "app" })).expect(200).json();
    assert_eq!(all["quota"], Value::Null);
    assert_eq!(status()["quotas"][1]["currentUsage"], 0);
    post("clear", json!({ "key": "nobody" })).expect(200);
    let missing = post("clear", json!({})).expect(400).json();
    assert_eq!(missing["error"]["message"], "Missing required field: key");
    post("clear", json!({ "key": "nobody", "quota": "tokens" })).expect(404);
    post("clear", json!({ "key": "app", "quota": "other" })).expect(400);
    let path = "/v0/management/quota/status/nobody";
    let unknown = gateway.admin("GET", path, &Value::Null).expect(404).json();
    assert_eq!(unknown["error"]["message"], "Key not found: nobody");
}

#[test]
#[expect(clippy::too_many_lines, reason = "one story, told in order")]
fn a_key_sees_and_changes_itself_and_nobody_else() {
    let quotas = "  few: { type: daily, limitType: requests, limit: 2 }\n";
    let gateway = Gateway::with(&file("few", quotas));
    let own = |method: &str, what: &str, body: &Value| {
        gateway.manage(
            support::SECRET,
            method,
            &format!("/v0/management/self/{what}"),
            body,
        )
    };
    let me = own("GET", "me", &Value::Null).expect(200).json();
    assert_eq!(me["role"], "limited");
    assert_eq!(me["keyName"], "app");
    assert_eq!(me["quotaNames"], json!(["few"]));
    assert_eq!(me["allowRawPassthrough"], false);
    let admin = gateway.admin("GET", "/v0/management/self/me", &Value::Null);
    assert_eq!(admin.expect(200).json(), json!({ "role": "admin" }));
    chat(&gateway, "by-chat").expect(200);
    assert!((used(&gateway) - 1.0).abs() < f64::EPSILON);
    let standing = own("GET", "quota", &Value::Null).expect(200).json();
    assert_eq!(standing["quotaName"], "few");
    assert_eq!(standing["currentUsage"], 1);
    assert_eq!(standing["remaining"], 1);
    assert_eq!(standing["limitType"], "requests");
    let path = "/v0/management/self/quota";
    let unnamed = gateway.admin("GET", path, &Value::Null).expect(400).json();
    let message = "Admin must supply ?keyName= for self-service endpoints";
    assert_eq!(unnamed["error"], message);
    let unknown = gateway.admin("GET", &format!("{path}?keyName=x"), &Value::Null);
    assert_eq!(unknown.expect(404).json()["error"], "Key 'x' not found");
    let named = gateway.admin("GET", &format!("{path}?keyName=app"), &Value::Null);
    assert_eq!(named.expect(200).json()["currentUsage"], 1);
    let said = own("PATCH", "comment", &json!({ "comment": "mine" }))
        .expect(200)
        .json();
    assert_eq!(
        said,
        json!({ "success": true, "keyName": "app", "comment": "mine" })
    );
    own("PATCH", "comment", &json!({ "comment": 5 })).expect(400);
    let again = own("GET", "me", &Value::Null).expect(200).json();
    assert_eq!(again["comment"], "mine");
    let rotated = own("POST", "rotate", &Value::Null).expect(200).json();
    let secret = rotated["secret"].as_str().unwrap();
    assert_eq!(secret.len(), 51);
    own("GET", "me", &Value::Null).expect(401);
    chat(&gateway, "by-chat").expect(401);
    let seen = gateway
        .manage(secret, "GET", path, &Value::Null)
        .expect(200)
        .json();
    assert_eq!(seen["currentUsage"], 1, "what was used hangs on the name");
    gateway
        .manage(secret, "GET", "/v0/management/user-quotas", &Value::Null)
        .expect(403);
    gateway
        .manage(
            secret,
            "POST",
            "/v0/management/quota/clear",
            &json!({ "key": "app" }),
        )
        .expect(403);
}

/// Lists of models and providers hold for what answers, under whatever name it
/// was asked for.
#[test]
fn promise_19_no_other_name_leads_round_a_keys_lists() {
    let keys = "\
keys:
  app: { secret: sk-plexus-tests, excludedModels: [by-messages, 'gem*', by-res*], excludedProviders: [responses] }
  few: { secret: sk-few, allowedModels: [by-chat, 'direct/chat/*'] }
";
    let text = FILE.split("keys:\n").next().unwrap().to_owned() + keys;
    let text = text
        .replace("by-messages: {", "by-messages: { additional_aliases: [other], ")
        .replace("by-gemini: { targets: [{ provider: gemini, model: simulated }] }", "by-gemini: { targets: [{ provider: gemini, model: gem-1 }] }\n  outer: { targets: [{ provider: gemini, model: gem-1 }, { provider: responses, model: simulated }] }");
    let gateway = Gateway::with(&text);
    let ask = |key: &str, model: &str| {
        let (path, body) = Dialect::Chat.ask(model, false);
        let headers = [("authorization", key), ("content-type", "application/json")];
        gateway
            .request("POST", &path, &headers, body.to_string())
            .status
    };
    for model in [
        "by-messages",
        "other",
        "direct/by-messages/default",
        "by-gemini",
        "direct/gemini/gem-1",
        "outer",
        "by-responses",
        "direct/responses/simulated",
    ] {
        assert_eq!(ask("sk-plexus-tests", model), 403, "{model}");
    }
    assert_eq!(ask("sk-plexus-tests", "by-chat"), 200);
    assert_eq!(ask("sk-plexus-tests", "by-any"), 200);
    for (model, status) in [
        ("by-chat", 200),
        ("direct/chat/anything", 200),
        ("by-any", 403),
        ("direct/messages/simulated", 403),
    ] {
        assert_eq!(ask("sk-few", model), status, "{model}");
    }
    let twice =
        r#"{"model":"by-chat","messages":[{"role":"user","content":"hi"}],"model":"by-any"}"#;
    let headers = [
        ("authorization", "sk-few"),
        ("content-type", "application/json"),
    ];
    let path = "/v1/chat/completions";
    gateway.request("POST", path, &headers, twice).expect(400);
    assert!(gateway.provider.simulator.requests().len() == 4);
}
