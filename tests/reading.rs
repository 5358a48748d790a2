//! What is read of requests afterwards and as they happen, through a socket:
//! summaries, the timeline, measurements, the live feed, metrics.

#![expect(
    clippy::unwrap_used,
    reason = "in helpers of tests a failure is the test's failure"
)]

mod support;

use serde_json::{Value, json};

use support::dialect::Dialect;
use support::{ADMIN, Gateway, PATIENCE, Stream, await_some};

const ROOT: &str = "/v0/management";
const NOTHING: Value = Value::Null;

/// Two keys, two targets.
const FILE: &str = "\
providers:
  chat: { api_base_url: { chat: 'http://SIMULATOR/v1' }, api_key: up-chat }
models:
  fast: { targets: [{ provider: chat, model: quick }] }
  large: { targets: [{ provider: chat, model: slow }] }
keys:
  app: { secret: sk-plexus-tests }
  guest: { secret: sk-guest }
";

fn get(gateway: &Gateway, rest: &str) -> Value {
    let path = format!("{ROOT}{rest}");
    gateway.admin("GET", &path, &NOTHING).expect(200).json()
}

fn refused(gateway: &Gateway, rest: &str) -> String {
    let path = format!("{ROOT}{rest}");
    let answer = gateway.admin("GET", &path, &NOTHING).expect(400).json();
    answer["error"].as_str().unwrap().to_owned()
}

/// Asks with that credential.
fn ask(gateway: &Gateway, secret: &str, model: &str) -> String {
    let (path, body) = Dialect::Chat.ask(model, false);
    let headers = [
        ("authorization", secret),
        ("content-type", "application/json"),
    ];
    let answer = gateway.request("POST", &path, &headers, body.to_string());
    answer.header("x-plexus-request-id").unwrap().to_owned()
}

/// Three requests of two keys, all written down.
fn with_requests() -> Gateway {
    let gateway = Gateway::with(FILE);
    ask(&gateway, "Bearer sk-plexus-tests:ci", "fast");
    ask(&gateway, "Bearer sk-plexus-tests", "large");
    ask(&gateway, "Bearer sk-guest", "fast");
    gateway.rows(3);
    gateway
}

#[test]
fn a_summary_counts_what_just_happened_in_every_range() {
    let gateway = with_requests();
    let rows = gateway.rows(3);
    let sum = |field: &str| -> i64 {
        rows.iter()
            .map(|row| row[field].as_i64().unwrap_or(0))
            .sum()
    };
    for (range, bucket) in [
        ("hour", 60_000),
        ("day", 3_600_000),
        ("week", 86_400_000),
        ("month", 86_400_000),
        ("custom&startDate=2020-01-01&endDate=2100-01-01", 0),
    ] {
        let found = get(&gateway, &format!("/usage/summary?range={range}"));
        assert_eq!(found["range"], range.split('&').next().unwrap());
        assert_eq!(found["stats"]["totalRequests"], 3, "{range}");
        assert_eq!(found["today"]["requests"], 3, "{range}");
        assert_eq!(found["today"]["inputTokens"], sum("tokensInput"));
        assert_eq!(found["today"]["outputTokens"], sum("tokensOutput"));
        let series = found["series"].as_array().unwrap();
        let requests: i64 = series
            .iter()
            .map(|slot| slot["requests"].as_i64().unwrap())
            .sum();
        assert_eq!(requests, 3, "{range}");
        if bucket > 0 {
            assert!(
                series
                    .iter()
                    .all(|slot| slot["bucketStartMs"].as_i64().unwrap() % bucket == 0)
            );
        }
    }
    let fields: Vec<String> = get(&gateway, "/usage/summary")["today"]
        .as_object()
        .unwrap()
        .keys()
        .cloned()
        .collect();
    assert_eq!(
        fields,
        [
            "requests",
            "inputTokens",
            "outputTokens",
            "reasoningTokens",
            "cachedTokens",
            "cacheWriteTokens",
            "kwhUsed",
            "totalCost"
        ]
    );
}

#[test]
fn totals_come_by_key_attribution_provider_alias_and_model() {
    let gateway = with_requests();
    let all = "/usage/summary?groupBy=key,attribution,provider,alias,model";
    let found = get(&gateway, all);
    let names = |group: &str| -> Vec<(Value, i64)> {
        let list = found["groups"][group].as_array().unwrap().iter();
        list.map(|entry| (entry["name"].clone(), entry["requests"].as_i64().unwrap()))
            .collect()
    };
    assert_eq!(names("key"), [(json!("app"), 2), (json!("guest"), 1)]);
    assert_eq!(names("attribution"), [(Value::Null, 2), (json!("ci"), 1)]);
    assert_eq!(names("provider"), [(json!("chat"), 3)]);
    assert_eq!(names("alias"), [(json!("fast"), 2), (json!("large"), 1)]);
    assert_eq!(names("model"), [(json!("quick"), 2), (json!("slow"), 1)]);
    let filtered = get(&gateway, "/usage/summary?provider=ch&attribution=ci");
    assert_eq!(filtered["stats"]["totalRequests"], 1);
    let own = gateway
        .manage("sk-guest", "GET", &format!("{ROOT}{all}"), &NOTHING)
        .expect(200)
        .json();
    assert_eq!(own["stats"]["totalRequests"], 1);
    assert_eq!(own["today"]["requests"], 1);
    assert_eq!(own["groups"]["key"].as_array().unwrap().len(), 1);
    assert_eq!(own["groups"]["key"][0]["name"], "guest");
}

#[test]
fn a_range_that_is_none_is_refused_in_the_contracts_words() {
    let gateway = Gateway::with(FILE);
    for (asked, said) in [
        ("range=year", "Invalid range"),
        (
            "range=custom",
            "startDate and endDate are required for custom range",
        ),
        (
            "range=custom&startDate=2026-01-01",
            "startDate and endDate are required for custom range",
        ),
        (
            "range=custom&startDate=soon&endDate=2026-01-01",
            "Invalid date format",
        ),
        (
            "range=custom&startDate=2026-01-02&endDate=2026-01-01T00:00:00Z",
            "endDate must be after startDate",
        ),
    ] {
        assert_eq!(refused(&gateway, &format!("/usage/summary?{asked}")), said);
    }
    let said = refused(&gateway, "/usage/summary?groupBy=colour");
    assert!(
        said.contains("\"colour\"") && said.contains("attribution"),
        "{said}"
    );
    let asked = "/concurrency?mode=timeline&timeRange=custom&startDate=x&endDate=y";
    assert_eq!(refused(&gateway, asked), "Invalid date format");
}

#[test]
fn the_timeline_counts_requests_by_provider_or_model() {
    let gateway = with_requests();
    let counts = |asked: &str, label: &str| -> Vec<(String, i64)> {
        let found = get(&gateway, &format!("/concurrency?mode=timeline&{asked}"));
        let list = found["data"].as_array().unwrap().iter();
        let mut counts = std::collections::BTreeMap::new();
        for entry in list {
            assert!(entry["timestamp"].as_i64().unwrap() > 0);
            let name = entry[label].as_str().unwrap().to_owned();
            *counts.entry(name).or_insert(0) += entry["count"].as_i64().unwrap();
        }
        counts.into_iter().collect()
    };
    for range in ["hour", "day", "week", "month"] {
        let by_model = counts(&format!("timeRange={range}&groupBy=model"), "model");
        assert_eq!(by_model, [("quick".to_owned(), 2), ("slow".to_owned(), 1)]);
        let by_provider = counts(&format!("timeRange={range}"), "provider");
        assert_eq!(by_provider, [("chat".to_owned(), 3)]);
    }
}

#[test]
fn measurements_are_shown_and_forgotten_by_model_across_a_restart() {
    let mut gateway = with_requests();
    let found = get(&gateway, "/performance");
    let list = found.as_array().unwrap();
    assert_eq!(list.len(), 2);
    let quick = list.iter().find(|entry| entry["model"] == "quick").unwrap();
    assert_eq!(quick["provider"], "chat");
    assert_eq!(quick["target_model"], "quick");
    assert_eq!(quick["sample_count"], 2);
    assert_eq!(quick["success_count"], 2);
    assert_eq!(quick["failure_count"], 0);
    assert!(quick["avg_ttft_ms"].as_f64().unwrap() > 0.0);
    assert!(quick["last_updated"].as_i64().unwrap() > 0);
    let only = get(&gateway, "/performance?provider=chat&model=slow");
    assert_eq!(only.as_array().unwrap().len(), 1);
    let by_alias = get(&gateway, "/performance?model=large");
    assert_eq!(by_alias[0]["target_model"], "slow");
    assert_eq!(by_alias[0]["sample_count"], 0);

    let path = format!("{ROOT}/performance");
    let refused = gateway.admin("DELETE", &path, &NOTHING).expect(400).json();
    assert_eq!(refused["error"], "Model parameter is required");
    let path = format!("{ROOT}/performance?model=quick");
    let done = gateway.admin("DELETE", &path, &NOTHING).expect(200).json();
    assert_eq!(done, json!({ "success": true, "model": "quick" }));
    let models = |gateway: &Gateway| -> Vec<Value> {
        let list = get(gateway, "/performance");
        let list = list.as_array().unwrap().iter();
        list.map(|entry| entry["model"].clone()).collect()
    };
    assert_eq!(models(&gateway), ["slow"]);
    gateway.restart();
    assert_eq!(models(&gateway), ["slow"]);
}

#[test]
fn resetting_the_logs_leaves_neither_usage_nor_errors() {
    let gateway = with_requests();
    ask(&gateway, "Bearer sk-guest", "direct/chat/m+status=500");
    gateway.rows(4);
    assert!(get(&gateway, "/errors")["total"].as_i64().unwrap() > 0);
    let path = format!("{ROOT}/logs/reset");
    let done = gateway.admin("DELETE", &path, &NOTHING).expect(200).json();
    assert_eq!(done["success"], true);
    assert_eq!(done["message"], "All logs have been reset successfully");
    assert_eq!(get(&gateway, "/usage")["total"], 0);
    assert_eq!(get(&gateway, "/errors")["total"], 0);
    assert_eq!(get(&gateway, "/usage/summary")["today"]["requests"], 0);
}

fn listen(gateway: &Gateway, key: &str) -> Stream {
    let headers = [("x-admin-key", key)];
    let mut stream = gateway.stream("GET", &format!("{ROOT}/events"), &headers, "");
    assert_eq!(
        stream.header("content-type"),
        Some("text/event-stream; charset=utf-8")
    );
    // The first sign of life says that the listener is there.
    stream.read_until("event: ping\n");
    stream
}

#[test]
fn the_feed_tells_a_request_from_its_beginning_to_its_record() {
    let gateway = Gateway::with(FILE);
    let mut feed = listen(&gateway, ADMIN);
    let id = ask(&gateway, "Bearer sk-plexus-tests", "fast");
    let heard = feed.read_until("\"finishReason\"");
    let events: Vec<(&str, Value)> = heard
        .split("\n\n")
        .filter_map(|event| {
            let mut lines = event.lines().filter_map(|line| line.split_once(": "));
            let (_, name) = lines.find(|(field, _)| *field == "event")?;
            let (_, data) = lines.find(|(field, _)| *field == "data")?;
            Some((name, serde_json::from_str(data).ok()?))
        })
        .collect();
    let names: Vec<&str> = events.iter().map(|(name, _)| *name).collect();
    assert!(names.starts_with(&["started", "updated"]), "{heard}");
    for (_, data) in &events {
        assert_eq!(data["requestId"], id.as_str());
        assert_eq!(data["apiKey"], "app");
    }
    assert_eq!(events[0].1["incomingModelAlias"], "fast");
    assert_eq!(events[0].1["responseStatus"], "pending");
    assert_eq!(events[1].1["provider"], "chat");
    assert!(heard.contains("event: completed"), "{heard}");
    assert!(heard.contains("\"responseStatus\":\"success\""), "{heard}");
}

#[test]
fn a_limited_listener_hears_of_its_own_requests_only() {
    let gateway = Gateway::with(FILE);
    let mut feed = listen(&gateway, "sk-guest");
    ask(&gateway, "Bearer sk-plexus-tests", "fast");
    gateway.rows(1);
    ask(&gateway, "Bearer sk-guest", "large");
    let heard = feed.read_until("event: completed");
    assert!(!heard.contains("\"app\""), "{heard}");
    assert!(heard.contains("\"guest\""), "{heard}");
}

#[test]
fn a_listener_that_leaves_is_forgotten_and_a_stop_ends_the_others() {
    let mut gateway = Gateway::with(FILE);
    let feed = std::sync::Arc::clone(gateway.app.store.writer().feed());
    let leaving = listen(&gateway, ADMIN);
    assert!(feed.is_heard());
    leaving.leave();
    await_some("the listener to be forgotten", || {
        (!feed.is_heard()).then_some(())
    });
    let mut staying = listen(&gateway, ADMIN);
    assert!(gateway.stop(PATIENCE), "the feed ends by itself");
    let (_, broken) = staying.rest();
    assert!(broken.is_none(), "{broken:?}");
}

#[test]
fn a_stream_under_way_tells_how_far_it_is() {
    let gateway = Gateway::with(FILE);
    let mut feed = listen(&gateway, ADMIN);
    let mut answer = gateway.speak(Dialect::Chat, "direct/chat/m+chunks=40+gap=50", true);
    let reader = std::thread::spawn(move || answer.rest());
    let told = progress(&mut feed);
    assert_eq!(told["state"], "MONITORING");
    let bytes = |name: &str| told[name].as_f64().unwrap();
    // Frames are more than what they hold.
    assert!(bytes("semanticBytesReceived") > 0.0, "{told}");
    assert!(
        bytes("semanticBytesReceived") < bytes("bytesReceived"),
        "{told}"
    );
    assert!(
        bytes("semanticBytesPerSec") < bytes("bytesPerSec"),
        "{told}"
    );
    reader.join().unwrap();
}

#[test]
fn a_silent_stream_tells_that_it_is_in_its_time_of_grace() {
    let gateway = Gateway::with(&format!(
        "{FILE}stall: {{ minBytesPerSecond: 50, windowSeconds: 3, gracePeriodSeconds: 60 }}\n"
    ));
    let mut feed = listen(&gateway, ADMIN);
    let mut answer = gateway.speak(Dialect::Chat, "direct/chat/m+chunks=2+gap=4000", true);
    let reader = std::thread::spawn(move || answer.rest());
    // What the answer began with came within the first second.
    let told = [progress(&mut feed), progress(&mut feed)];
    assert!(told.iter().all(|told| told["state"] == "GRACE_PERIOD"));
    let told = &told[1];
    assert_eq!(told["bytesPerSec"], 0.0);
    assert_eq!(told["semanticBytesPerSec"], 0.0);
    reader.join().unwrap();
}

/// The data of the next event that tells how far a stream is.
fn progress(feed: &mut Stream) -> Value {
    let heard = feed.read_until("\"elapsedMs\"");
    let data = heard.rsplit("event: progress\n").next().unwrap();
    let data = data.split("data: ").nth(1).unwrap();
    serde_json::from_str(data.split('\n').next().unwrap()).unwrap()
}

#[test]
fn a_feed_that_nobody_reads_holds_up_no_request() {
    let gateway = Gateway::with(FILE);
    let feed = listen(&gateway, ADMIN);
    for _ in 0..200 {
        ask(&gateway, "Bearer sk-plexus-tests", "fast");
    }
    assert_eq!(gateway.rows(200).len(), 200);
    drop(feed);
}

#[test]
fn the_metrics_have_every_family_of_the_contract() {
    let gateway = with_requests();
    let page = gateway
        .admin("GET", &format!("{ROOT}/metrics"), &NOTHING)
        .expect(200);
    let page = page.text();
    let plain = "requests_total errors_total energy_kwh_total requests_today errors_today \
        energy_kwh_today cost_today_usd duration_ms_total avg_duration_ms active_time_ms duration_ms_today \
        tokens_total tokens_today";
    let labelled = "provider_requests_total provider_errors_total provider_tokens_total \
        provider_avg_latency_ms provider_avg_ttft_ms provider_avg_tokens_per_sec \
        provider_energy_kwh_total provider_cost_usd_total provider_duration_ms_total model_alias_requests_total \
        model_alias_tokens_total model_alias_energy_kwh_total model_alias_duration_ms_total \
        api_key_requests_total api_key_tokens_total api_key_attribution_requests_total \
        api_key_attribution_tokens_total api_key_attribution_errors_total api_key_attribution_cost_usd_total \
        in_flight_requests \
        in_flight_requests_by_model cooldown_active cooldown_time_remaining_ms \
        cooldown_consecutive_failures concurrency_active concurrency_active_by_target \
        perf_avg_ttft_ms perf_min_ttft_ms perf_max_ttft_ms perf_avg_tokens_per_sec \
        perf_min_tokens_per_sec perf_max_tokens_per_sec perf_sample_count perf_success_count \
        perf_failure_count";
    for name in plain.split_whitespace().chain(labelled.split_whitespace()) {
        assert!(page.contains(&format!("# TYPE plexus_{name} ")), "{name}");
    }
    for line in [
        "plexus_requests_today 3",
        "plexus_perf_sample_count{provider=\"chat\",model=\"quick\"} 2",
        "plexus_perf_success_count{provider=\"chat\",model=\"slow\"} 1",
    ] {
        assert!(
            page.lines().any(|found| found == line),
            "{line} is not in\n{page}"
        );
    }
}
