//! Routing as clients and operators see it: targets that rest, conversations
//! that stay, limits on requests under way, stalls, empty answers, and why.

#![expect(
    clippy::unwrap_used,
    reason = "in helpers of tests a failure is the test's failure"
)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use plexus::routing::cooldown::Health;
use serde_json::{Value, json};
use support::dialect::{Dialect, Ending};
use support::upstream::{COMPLETION, Upstream};
use support::{Gateway, Response};

/// Providers `first` and `second`, aliases and more as given.
fn file(providers: &str, aliases: &str, more: &str) -> String {
    format!(
        "providers:\n\
         \x20 first: {{ api_base_url: 'http://SIMULATOR/v1', api_key: k {providers} }}\n\
         \x20 second: {{ api_base_url: 'http://SIMULATOR/v1', api_key: k }}\n\
         models:\n{aliases}\n\
         keys:\n  app: {{ secret: sk-plexus-tests }}\n  other: {{ secret: sk-other, maxConcurrency: 1, excludedProviders: [first] }}\n\
         {more}\n"
    )
}

fn pair(first: &str, second: &str) -> String {
    format!(
        "  a: {{ selector: in_order, targets: [ {{ provider: first, model: '{first}' }}, {{ provider: second, model: '{second}' }} ] }}\n\
         \x20 only: {{ targets: [ {{ provider: first, model: '{first}' }} ] }}"
    )
}

fn asked(gateway: &Gateway) -> usize {
    gateway.provider.simulator.requests().len()
}

fn chat(gateway: &Gateway, model: &str) -> Response {
    gateway.speak(Dialect::Chat, model, false).finish()
}

fn cooldowns(gateway: &Gateway) -> Vec<Value> {
    let answer = gateway.admin("GET", "/v0/management/cooldowns", &Value::Null);
    answer.expect(200).json().as_array().unwrap().clone()
}

#[test]
fn a_target_that_fails_is_left_alone_and_said_when_it_is_due() {
    let gateway = Gateway::with(&file("", &pair("m+status=500", "m"), ""));
    let first = chat(&gateway, "a").expect(200);
    assert_eq!(first.header("x-plexus-route"), Some("second/m; attempts=2"));
    let second = chat(&gateway, "a").expect(200);
    assert_eq!(
        second.header("x-plexus-route"),
        Some("second/m; attempts=1")
    );
    let listed = cooldowns(&gateway);
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0]["provider"], "first");
    assert_eq!(listed[0]["model"], "m+status=500");
    assert_eq!(listed[0]["consecutiveFailures"], 1);
    let left = listed[0]["timeRemainingMs"].as_i64().unwrap();
    assert!((100_000..=120_000).contains(&left), "{left}");
    assert!(listed[0]["lastError"].is_string());
    let before = asked(&gateway);
    for dialect in Dialect::FOUR {
        for stream in [false, true] {
            let refused = gateway.speak(dialect, "only", stream).finish();
            let status = if dialect == Dialect::Messages {
                529
            } else {
                503
            };
            assert_eq!(refused.status, status, "{dialect:?}");
            let after: u64 = refused.header("retry-after").unwrap().parse().unwrap();
            assert!((100..=120).contains(&after));
            assert_eq!(refused.header("x-plexus-error-source"), Some("gateway"));
        }
    }
    assert_eq!(asked(&gateway), before, "nothing is sent to what rests");
    let rows = gateway.rows(10);
    let history = rows[0]["retryHistory"].as_str().unwrap();
    assert!(history.contains("on cooldown for another"), "{history}");
}

#[test]
fn a_limit_keeps_its_own_time_and_is_told_as_one() {
    let gateway = Gateway::with(&file("", &pair("m+status=429+retry_after=33", "m"), ""));
    chat(&gateway, "a").expect(200);
    let left = cooldowns(&gateway)[0]["timeRemainingMs"].as_i64().unwrap();
    assert!((20_000..=33_000).contains(&left), "{left}");
    let refused = chat(&gateway, "only").expect(429);
    let after: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((20..=33).contains(&after));
}

#[test]
fn what_is_the_clients_fault_cools_nothing() {
    for status in [400, 413, 422] {
        let gateway = Gateway::with(&file("", &pair(&format!("m+status={status}"), "m"), ""));
        for _ in 0..3 {
            assert_eq!(chat(&gateway, "a").status, status);
        }
        assert!(cooldowns(&gateway).is_empty(), "{status}");
    }
    let gateway = Gateway::with(&file("", &pair("m+delay=60000", "m"), ""));
    let (path, body) = Dialect::Chat.ask("a", true);
    let headers = [("authorization", "Bearer sk-plexus-tests")];
    let bytes = support::client::bytes("POST", &path, &headers, body.to_string().as_bytes());
    let mut stream = gateway.client().connect();
    std::io::Write::write_all(&mut stream, &bytes).unwrap();
    support::await_some("the request", || (asked(&gateway) == 1).then_some(()));
    drop(stream);
    let row = gateway.rows(1).remove(0);
    assert_eq!(row["responseStatus"], "cancelled");
    assert!(cooldowns(&gateway).is_empty());
}

#[test]
fn rests_are_ended_by_hand_and_survive_a_restart_until_then() {
    let gateway = Gateway::with(&file("", &pair("m+status=500", "m"), ""));
    chat(&gateway, "a").expect(200);
    let kept = support::await_some("the row", || {
        let rows = gateway.app.store.cooldowns(0).unwrap();
        (!rows.is_empty()).then_some(rows)
    });
    assert_eq!(&*kept[0].model, "m+status=500");
    let again = plexus::routing::Switchboard::new(&gateway.app.live.load(), Instant::now(), 1);
    again.rested(&kept[0], 1);
    let standing = again.standings.of(&kept[0].provider, &kept[0].model);
    assert!(matches!(standing.health(2), Health::Cooling { .. }));
    let limited = gateway.manage("sk-other", "GET", "/v0/management/cooldowns", &Value::Null);
    assert_eq!(limited.expect(200).json(), json!([]), "not its provider");
    let path = "/v0/management/cooldowns/first?model=x";
    gateway.admin("DELETE", path, &Value::Null).expect(200);
    assert_eq!(cooldowns(&gateway).len(), 1);
    gateway
        .admin(
            "DELETE",
            "/v0/management/cooldowns/first?model=m",
            &Value::Null,
        )
        .expect(200);
    assert!(cooldowns(&gateway).is_empty());
    support::await_some("the row to go", || {
        gateway
            .app
            .store
            .cooldowns(0)
            .unwrap()
            .is_empty()
            .then_some(())
    });
    gateway
        .manage(
            "sk-other",
            "DELETE",
            "/v0/management/cooldowns",
            &Value::Null,
        )
        .expect(403);
}

#[test]
fn disable_cooldown_means_it() {
    let file = file(", disable_cooldown: true", &pair("m+status=500", "m"), "");
    let gateway = Gateway::with(&file);
    for _ in 0..3 {
        let answer = chat(&gateway, "a").expect(200);
        assert_eq!(
            answer.header("x-plexus-route"),
            Some("second/m; attempts=2")
        );
    }
    assert!(cooldowns(&gateway).is_empty());
}

#[test]
fn an_answer_with_nothing_in_it_moves_on_while_there_is_somebody_to_ask() {
    let everywhere = "{ chat: 'http://SIMULATOR/v1', responses: 'http://SIMULATOR/v1', \
                      messages: 'http://SIMULATOR/v1', gemini: 'http://SIMULATOR' }";
    let file = file("", &pair("m+empty", "m"), "").replace("'http://SIMULATOR/v1'", everywhere);
    let gateway = Gateway::with(&file);
    for dialect in Dialect::FOUR {
        for stream in [false, true] {
            let answer = gateway.speak(dialect, "a", stream).finish().expect(200);
            let route = answer.header("x-plexus-route");
            assert_eq!(route, Some("second/m; attempts=2"), "{dialect:?} {stream}");
        }
    }
    chat(&gateway, "only").expect(200);
    assert!(cooldowns(&gateway).is_empty());
}

/// What a client with a conversation of so many turns sends.
fn turn(turns: usize, first: &str) -> Value {
    let message = |i: usize| {
        let role = if i.is_multiple_of(2) {
            "user"
        } else {
            "assistant"
        };
        json!({ "role": role, "content": format!("{first} {i}") })
    };
    json!({ "model": "r", "messages": (0..turns).map(message).collect::<Vec<_>>() })
}

#[test]
fn a_conversation_stays_where_it_is_until_that_target_rests() {
    let targets: Vec<String> = (0..8)
        .map(|i| format!("{{ provider: first, model: m{i} }}"))
        .collect();
    let alias = format!(
        "  r: {{ selector: random, targets: [ {} ] }}",
        targets.join(", ")
    );
    let gateway = Gateway::with(&file("", &alias, ""));
    let route = |body: &Value| {
        let answer = gateway.ask("/v1/chat/completions", body).expect(200);
        answer.header("x-plexus-route").unwrap().to_owned()
    };
    let home = route(&turn(3, "one"));
    for turns in [5, 7, 9, 11] {
        assert_eq!(route(&turn(turns, "one")), home);
    }
    let mut homes: Vec<String> = (0..20).map(|i| route(&turn(3, &format!("c{i}")))).collect();
    homes.sort();
    homes.dedup();
    assert!(homes.len() > 2, "conversations spread");
    // Its target falls ill: the conversation moves, and stays there.
    let model = home
        .strip_prefix("first/")
        .unwrap()
        .split(';')
        .next()
        .unwrap();
    let standing = gateway
        .app
        .switchboard
        .standings
        .of(&"first".into(), &model.into());
    let rest = plexus::routing::cooldown::Rest {
        until: i64::MAX / 2,
        failures: 1,
        limited: false,
        message: "ill".into(),
    };
    standing.cooldown.restore(&rest, 1);
    let second = route(&turn(13, "one"));
    assert_ne!(second, home);
    standing.cooldown.clear();
    for turns in [15, 17, 19] {
        assert_eq!(route(&turn(turns, "one")), second);
    }
}

#[test]
fn what_only_its_provider_keeps_is_not_asked_of_another() {
    let speaks = "api_base_url: { responses: 'http://SIMULATOR/v1' }";
    let alias = "  r: { selector: in_order, targets: [ { provider: first, model: m }, { provider: second, model: m } ] }";
    let file = file("", alias, "store: { responses: false }");
    let gateway = Gateway::with(&file.replace("api_base_url: 'http://SIMULATOR/v1'", speaks));
    let ask = |previous: Option<&Value>| {
        let mut body = json!({ "model": "r", "input": "hello" });
        if let Some(previous) = previous {
            body["previous_response_id"] = previous.clone();
        }
        gateway.ask("/v1/responses", &body)
    };
    let first = ask(None).expect(200).json();
    let id = &first["id"];
    let route = ask(Some(id)).header("x-plexus-route").unwrap().to_owned();
    assert_eq!(route, "first/m; attempts=1");
    let standings = &gateway.app.switchboard.standings;
    let standing = standings.of(&"first".into(), &"m".into());
    let rest = plexus::routing::cooldown::Rest {
        until: gateway.app.switchboard.now(Instant::now()) + 60_000,
        failures: 1,
        limited: false,
        message: "ill".into(),
    };
    standing.cooldown.restore(&rest, 1);
    let before = asked(&gateway);
    let refused = ask(Some(id)).expect(409);
    assert_eq!(refused.json()["error"]["param"], "previous_response_id");
    let after: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((30..=60).contains(&after), "{after}");
    assert_eq!(asked(&gateway), before, "never sent to fail");
    ask(None).expect(200);
}

#[test]
fn codex_s_lighter_form_is_written_down_and_goes_first_to_who_speaks_it() {
    let alias = "  r: { selector: in_order, targets: [ { provider: first, model: m }, { provider: second, model: m } ] }";
    let file = file("", alias, "");
    let second = file.rfind("api_base_url: 'http://SIMULATOR/v1'").unwrap();
    let (head, tail) = file.split_at(second);
    let speaks = "api_base_url: { responses: 'http://SIMULATOR/v1' }";
    let tail = tail.replacen("api_base_url: 'http://SIMULATOR/v1'", speaks, 1);
    let gateway = Gateway::with(&format!("{head}{tail}"));
    let plain = json!({ "model": "r", "input": "hello" });
    let mut tools = plain.clone();
    tools["tools"] = json!([{ "type": "tool_search" }]);
    let mut items = plain.clone();
    items["input"] = json!([{ "role": "user", "content": "the word \"additional_tools\"" }]);
    let lite = [
        ("authorization", "Bearer sk-plexus-tests"),
        ("x-openai-internal-codex-responses-lite", "true"),
    ];
    let route = |answer: Response| {
        let answer = answer.expect(200);
        answer.header("x-plexus-route").unwrap().to_owned()
    };
    let path = "/v1/responses";
    assert_eq!(route(gateway.ask(path, &plain)), "first/m; attempts=1");
    assert_eq!(route(gateway.ask(path, &items)), "first/m; attempts=1");
    assert_eq!(route(gateway.ask(path, &tools)), "second/m; attempts=1");
    let by_header = gateway.request("POST", path, &lite, plain.to_string());
    assert_eq!(route(by_header), "second/m; attempts=1");
    let kinds: Vec<Value> = gateway
        .rows(4)
        .iter()
        .rev()
        .map(|row| row["incomingApiType"].clone())
        .collect();
    assert_eq!(
        kinds,
        ["responses", "responses", "responses:lite", "responses:lite"]
    );
}

/// A provider that answers when it is told to.
fn patient() -> (Upstream, Arc<AtomicBool>) {
    let open = Arc::new(AtomicBool::new(false));
    let opened = Arc::clone(&open);
    let upstream = Upstream::start(move |mut wire| {
        while wire.request().is_some() {
            support::await_some("the word", || opened.load(Ordering::SeqCst).then_some(()));
            wire.answer("200 OK", COMPLETION);
        }
    });
    (upstream, open)
}

#[test]
fn requests_over_a_limit_wait_and_permits_come_back() {
    let (upstream, open) = patient();
    let gateway = Gateway::with(&narrow_file(&upstream, "maxConcurrency: 1"));
    std::thread::scope(|scope| {
        let first = scope.spawn(|| chat(&gateway, "q"));
        support::await_some("the first", || (upstream.requests() == 1).then_some(()));
        let second = scope.spawn(|| chat(&gateway, "q"));
        let seen = support::await_some("the second in the queue", || {
            let path = "/v0/management/concurrency";
            let seen = gateway.admin("GET", path, &Value::Null).expect(200).json();
            (seen["data"][0]["queued"] == 1).then_some(seen)
        });
        assert_eq!(seen["data"][0]["count"], 1);
        assert_eq!(seen["data"][0]["providerLimit"], 1);
        assert_eq!(upstream.requests(), 1, "the limit holds");
        open.store(true, Ordering::SeqCst);
        first.join().unwrap().expect(200);
        second.join().unwrap().expect(200);
    });
    let house = gateway.app.switchboard.standings.house(&"narrow".into());
    support::await_some("the permits", || {
        (house.permits.active() == 0).then_some(())
    });
    assert_eq!(house.permits.queued(), 0);
}

#[test]
fn those_who_wait_are_served_in_the_order_in_which_they_came() {
    let (gate, opened) = std::sync::mpsc::channel::<()>();
    let opened = parking_lot::Mutex::new(opened);
    let upstream = Upstream::start(move |mut wire| {
        while wire.request().is_some() {
            opened.lock().recv().ok();
            wire.answer("200 OK", COMPLETION);
        }
    });
    // The target's limit is reached, the provider's is not.
    let narrow = "maxConcurrency: 5, models: { m: { maxConcurrency: 1 } }";
    let gateway = Gateway::with(&narrow_file(&upstream, narrow));
    let queued = |count: u32| {
        let standings = &gateway.app.switchboard.standings;
        let target = standings.of(&"narrow".into(), &"m".into());
        support::await_some("a place in the line", || {
            (target.permits.queued() == count).then_some(())
        });
    };
    let (tell, order) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        for number in 0..8 {
            let (gateway, tell) = (&gateway, tell.clone());
            scope.spawn(move || {
                chat(gateway, "q").expect(200);
                tell.send(number).unwrap();
            });
            if number == 0 {
                support::await_some("the first", || (upstream.requests() == 1).then_some(()));
            } else {
                queued(number);
            }
        }
        for number in 0..8 {
            gate.send(()).unwrap();
            assert_eq!(order.recv().unwrap(), number);
        }
    });
    queued(0);
}

/// An alias `q` of one target: model `m` of a provider that is described so.
fn narrow_file(upstream: &Upstream, more: &str) -> String {
    let aliases = "  q: { targets: [ { provider: narrow, model: m } ] }";
    let provider = format!(
        "providers:\n  narrow: {{ api_base_url: 'http://{}/v1', api_key: k, {more} }}\n",
        upstream.address
    );
    file("", aliases, "").replace("providers:\n", &provider)
}

#[test]
fn a_client_that_leaves_gives_its_permit_back() {
    let (upstream, open) = patient();
    let gateway = Gateway::with(&narrow_file(&upstream, "maxConcurrency: 1"));
    let (path, body) = Dialect::Chat.ask("q", false);
    let headers = [("authorization", "Bearer sk-plexus-tests")];
    let bytes = support::client::bytes("POST", &path, &headers, body.to_string().as_bytes());
    let mut stream = gateway.client().connect();
    std::io::Write::write_all(&mut stream, &bytes).unwrap();
    support::await_some("the request", || (upstream.requests() == 1).then_some(()));
    drop(stream);
    open.store(true, Ordering::SeqCst);
    chat(&gateway, "q").expect(200);
}

#[test]
fn in_a_total_outage_providers_see_at_most_a_tenth_more_than_clients_ask() {
    let targets: Vec<String> = (0..4)
        .map(|i| format!("{{ provider: first, model: 'm{i}+status=500' }}"))
        .collect();
    let alias = format!(
        "  r: {{ selector: in_order, targets: [ {} ] }}",
        targets.join(", ")
    );
    let gateway = Gateway::with(&file(", disable_cooldown: true", &alias, ""));
    // What was saved is spent first.
    while gateway.app.switchboard.budget.left() > 0 {
        chat(&gateway, "r");
    }
    gateway.provider.simulator.clear();
    for _ in 0..200 {
        let answer = chat(&gateway, "r");
        assert!(answer.status >= 500, "{}", answer.status);
    }
    assert!(asked(&gateway) <= 220, "{}", asked(&gateway));
    let refused = chat(&gateway, "r");
    assert!(
        refused
            .header("x-plexus-route")
            .unwrap()
            .starts_with("first/")
    );
}

#[test]
fn no_request_tries_more_targets_than_the_file_allows() {
    let targets: Vec<String> = (0..6)
        .map(|i| format!("{{ provider: first, model: 'm{i}+status=500' }}"))
        .collect();
    let alias = format!(
        "  r: {{ selector: in_order, targets: [ {} ] }}",
        targets.join(", ")
    );
    let gateway = Gateway::with(&file("", &alias, "failover: { maxAttempts: 3 }"));
    chat(&gateway, "r").expect(502);
    assert_eq!(asked(&gateway), 3);
}

#[test]
fn a_route_is_explained_and_nothing_is_sent() {
    let alias = "  a:\n    additional_aliases: [b]\n    selector: cost\n    targets: [ { provider: first, model: m }, { provider: second, model: n }, { provider: second, model: o, enabled: false } ]";
    let priced = ", models: { m: { pricing: { source: simple, input: 1, output: 2 } } }";
    let gateway = Gateway::with(&file(priced, alias, ""));
    let explain = |body: Value| gateway.admin("POST", "/v0/management/route/explain", &body);
    let told = explain(json!({ "model": "b" })).expect(200).json();
    assert_eq!(told["canonical"], "a");
    assert_eq!(told["candidates"][0]["provider"], "first");
    assert_eq!(told["candidates"][0]["selector"], "cost");
    let score = told["candidates"][0]["score"].as_f64().unwrap();
    assert!((score - 0.002).abs() < 1e-6);
    assert_eq!(told["candidates"][1]["score"], Value::Null);
    assert_eq!(told["leftOut"][0]["reason"], "the target is disabled");
    let told = explain(json!({ "model": "a", "key": "other", "protocol": "messages" }));
    let told = told.expect(200).json();
    assert_eq!(told["candidates"][0]["provider"], "second");
    assert_eq!(
        told["leftOut"][0]["reason"],
        "the key may not use this provider"
    );
    explain(json!({ "model": "none" })).expect(404);
    explain(json!({ "model": "a", "key": "none" })).expect(404);
    explain(json!({ "model": "a", "protocol": "x" })).expect(400);
    explain(json!({})).expect(400);
    assert_eq!(asked(&gateway), 0);
    assert_eq!(
        gateway
            .app
            .store
            .usage(&plexus::store::UsageQuery::default())
            .unwrap()
            .total,
        0
    );
}

#[test]
fn a_route_is_explained_with_the_quotas_that_would_refuse_it() {
    let alias = "  a: { selector: in_order, targets: [ { provider: first, model: m }, { provider: second, model: n } ] }";
    let quotas = "user_quotas:\n\
        \x20 of-first: { type: daily, limitType: requests, limit: 1, allowedProviders: [first] }\n\
        \x20 of-all: { type: daily, limitType: tokens, limit: 100000 }\n";
    let text = file("", alias, quotas).replace(
        "app: { secret:",
        "app: { quotas: [of-first, of-all], secret:",
    );
    let gateway = Gateway::with(&text);
    let explain = |body: Value| {
        let told = gateway.admin("POST", "/v0/management/route/explain", &body);
        told.expect(200).json()
    };
    let told = explain(json!({ "model": "a", "key": "app" }));
    assert_eq!(told["quotas"][0]["name"], "of-first");
    assert_eq!(told["quotas"][0]["allowed"], true);
    assert_eq!(told["candidates"][0]["passedOver"], Value::Null);
    chat(&gateway, "a").expect(200);
    gateway.rows(1);
    let told = explain(json!({ "model": "a", "key": "app" }));
    assert_eq!(told["quotas"][0]["allowed"], false);
    assert_eq!(told["quotas"][1]["allowed"], true);
    assert_eq!(
        told["candidates"][0]["passedOver"],
        "quota_exceeded:of-first"
    );
    assert_eq!(told["candidates"][1]["passedOver"], Value::Null);
    // That is where it goes.
    let answer = chat(&gateway, "a").expect(200);
    assert_eq!(
        answer.header("x-plexus-route"),
        Some("second/n; attempts=1")
    );
    let told = explain(json!({ "model": "a" }));
    assert_eq!(told["quotas"], json!([]));
}

#[test]
fn heartbeats_do_not_hide_that_a_stream_does_not_begin() {
    let upstream = Upstream::start(|mut wire| {
        if wire.request().is_none() {
            return;
        }
        wire.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n");
        let ends = Instant::now() + Duration::from_secs(20);
        while Instant::now() < ends {
            if std::io::Write::write_all(&mut wire.stream, b": ping\n\n").is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let aliases = "  s: { selector: in_order, targets: [ { provider: pinging, model: m }, { provider: second, model: m } ] }";
    let file = file("", aliases, "").replace(
        "providers:\n",
        &format!(
            "providers:\n  pinging: {{ api_base_url: 'http://{}/v1', api_key: k, stallTtfbMs: 5000, stall_cooldown: true }}\n",
            upstream.address
        ),
    );
    let gateway = Gateway::with(&file);
    let answer = gateway.speak(Dialect::Chat, "s", true).finish().expect(200);
    assert_eq!(
        answer.header("x-plexus-route"),
        Some("second/m; attempts=2")
    );
    assert_eq!(Dialect::Chat.ending(&answer.body), Ending::Finished);
    assert_eq!(cooldowns(&gateway).len(), 1, "stall_cooldown");
    let row = gateway.rows(1).remove(0);
    let history = row["retryHistory"].as_str().unwrap();
    assert!(
        history.contains("less than 100 bytes of output within 5 s"),
        "{history}"
    );
}

#[test]
fn heartbeats_do_not_hide_that_a_stream_stopped() {
    let upstream = Upstream::start(|mut wire| {
        if wire.request().is_none() {
            return;
        }
        wire.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n");
        let delta = json!({ "id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
            "choices": [{ "index": 0, "delta": { "role": "assistant", "content": "so" }, "finish_reason": null }] });
        wire.write(format!("data: {delta}\n\n").as_bytes());
        let ends = Instant::now() + Duration::from_secs(20);
        while Instant::now() < ends {
            let ping = b": keep-alive, and more of it than a stream has to bring\n\n";
            if std::io::Write::write_all(&mut wire.stream, ping).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let slow = "stallMinBps: 50, stallWindowMs: 3000, stallGracePeriodMs: 0";
    let gateway = Gateway::with(&narrow_file(&upstream, slow));
    let answer = gateway.speak(Dialect::Chat, "q", true).finish();
    assert!(matches!(Dialect::Chat.ending(&answer.body), Ending::Failed));
    assert_eq!(gateway.rows(1).remove(0)["responseStatus"], "stall");
}

#[test]
fn a_stream_that_crawls_ends_in_an_error_and_is_written_down_as_a_stall() {
    let aliases = "  s: { targets: [ { provider: first, model: 'm+words=10000+gap=200' } ] }";
    let slow = ", stallMinBps: 5000, stallWindowMs: 3000, stallGracePeriodMs: 0";
    let gateway = Gateway::with(&file(slow, aliases, ""));
    let answer = gateway.speak(Dialect::Chat, "s", true).finish();
    assert!(matches!(Dialect::Chat.ending(&answer.body), Ending::Failed));
    let row = gateway.rows(1).remove(0);
    assert_eq!(row["responseStatus"], "stall");
    assert!(cooldowns(&gateway).is_empty(), "without stall_cooldown");
}

#[test]
fn a_stale_measurement_is_renewed_in_the_background() {
    let alias = "  l: { selector: latency, targets: [ { provider: first, model: m }, { provider: second, model: n } ] }";
    let more = "backgroundExploration: { enabled: true, stalenessThresholdSeconds: 1, workerConcurrency: 2 }";
    let gateway = Gateway::with(&file("", alias, more));
    let probed = || {
        chat(&gateway, "l").expect(200);
        let rows = gateway.rows(1);
        let probes = rows
            .into_iter()
            .filter(|row| row["attribution"] == "background");
        let probes: Vec<_> = probes.collect();
        (!probes.is_empty()).then_some(probes)
    };
    let probes = support::await_some("a probe", probed);
    assert_eq!(probes[0]["apiKey"], "probe");
    assert_eq!(probes[0]["responseStatus"], "success");
    assert_eq!(probes[0]["attemptCount"], 1);
}
