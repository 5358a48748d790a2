//! Settings and careful writes through a socket: the pages of `config/*`, the
//! flat names, entity tags, files changed by hand, and a process killed while
//! it writes.

#![expect(
    clippy::unwrap_used,
    reason = "in helpers of tests a failure is the test's failure"
)]

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use plexus::config::{Config, document};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use support::{ADMIN, Client, Gateway, Response};

const ROOT: &str = "/v0/management";
const NOTHING: Value = Value::Null;

const FILE: &str = "\
# the head
providers:
  one:   # the first
    api_base_url: http://SIMULATOR/v1
    api_key: up-one   # by hand
    enabled: true
  two: { api_base_url: 'http://SIMULATOR/v1', api_key: up-two }
models:
  short: { targets: [{ provider: one, model: m }] }
keys:
  app: { secret: sk-plexus-tests }
  guest: { secret: sk-guest, comment: before }
cooldown:
  initialMinutes: 3   # not two
stall: { ttfbSeconds: 20, windowSeconds: 5 }   # in one line
# the end
";

/// Each page with what it shows for a file that says nothing.
fn pages() -> Vec<(&'static str, Value)> {
    vec![
        (
            "exploration-rate",
            json!({
                "performanceExplorationRate": 0.05,
                "latencyExplorationRate": 0.05,
                "e2ePerformanceExplorationRate": 0.05,
            }),
        ),
        (
            "background-exploration",
            json!({ "enabled": false, "stalenessThresholdSeconds": 600, "workerConcurrency": 2 }),
        ),
        (
            "cooldown",
            json!({ "initialMinutes": 2, "maxMinutes": 300 }),
        ),
        (
            "timeout",
            json!({ "defaultSeconds": 300, "connectSeconds": 10 }),
        ),
        (
            "stall",
            json!({
                "ttfbSeconds": null, "ttfbBytes": 100, "minBytesPerSecond": null,
                "windowSeconds": 10, "gracePeriodSeconds": 30, "stallCooldown": false,
            }),
        ),
        ("vision-fallthrough", json!({})),
        ("compaction", json!({})),
        ("trusted-proxies", json!({ "trustedProxies": [] })),
        ("capture-trace-on-error", json!({ "enabled": false })),
        ("mcp-enabled", json!({ "enabled": true })),
    ]
}

fn path(rest: &str) -> String {
    format!("{ROOT}{rest}")
}

fn page(name: &str) -> String {
    format!("{ROOT}/config/{name}")
}

fn get(gateway: &Gateway, rest: &str) -> Value {
    let answer = gateway.admin("GET", &path(rest), &NOTHING);
    answer.expect(200).json()
}

/// A request with more header fields.
fn careful(
    gateway: &Gateway,
    method: &str,
    rest: &str,
    field: (&str, &str),
    body: &Value,
) -> Response {
    let headers = [
        ("x-admin-key", ADMIN),
        ("content-type", "application/json"),
        field,
    ];
    let body = match body {
        Value::Null => String::new(),
        body => body.to_string(),
    };
    gateway.request(method, &path(rest), &headers, body)
}

fn tag(gateway: &Gateway, rest: &str) -> String {
    let answer = gateway.admin("GET", &path(rest), &NOTHING).expect(200);
    answer.header("etag").unwrap().to_owned()
}

fn with_line(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "{from} in {text}");
    text.replace(from, to)
}

// ---- pages

#[test]
fn a_file_that_says_nothing_has_the_defaults_on_every_page() {
    let gateway = Gateway::with("# nothing\n");
    for (name, shown) in pages() {
        assert_eq!(get(&gateway, &format!("/config/{name}")), shown, "{name}");
    }
    let failover = get(&gateway, "/config/failover");
    assert_eq!(failover["enabled"], true);
    let codes = failover["retryableStatusCodes"].as_array().unwrap();
    assert!(codes.contains(&json!(503)) && !codes.contains(&json!(413)));
    assert_eq!(gateway.text(), "# nothing\n");
}

#[test]
fn what_a_page_shows_can_be_put_back_and_leaves_every_byte() {
    for file in [
        FILE,
        "# nothing\n",
        include_str!("../plexus.example.yaml"),
        "trustedProxies: [10.0.0.1]   # at the top\nserver:\n",
    ] {
        let gateway = Gateway::with(file);
        let before = gateway.text();
        let names = pages().into_iter().map(|(name, _)| name);
        for name in names.chain(["failover"]) {
            let shown = get(&gateway, &format!("/config/{name}"));
            let answer = gateway.admin("PATCH", &page(name), &shown).expect(200);
            assert_eq!(answer.json(), shown, "{name}");
            let nothing = gateway.admin("PATCH", &page(name), &json!({}));
            assert_eq!(nothing.expect(200).json(), shown, "{name}");
            assert_eq!(gateway.text(), before, "{name}");
        }
        let all = get(&gateway, "/system-settings");
        gateway
            .admin("PATCH", &path("/system-settings"), &all)
            .expect(200);
        assert_eq!(gateway.text(), before);
    }
}

#[test]
fn a_changed_setting_is_all_that_changes_and_is_in_force() {
    let gateway = Gateway::with(FILE);
    let before = gateway.text();
    let body = json!({ "initialMinutes": 5 });
    let answer = gateway.admin("PATCH", &page("cooldown"), &body);
    let whole = json!({ "initialMinutes": 5, "maxMinutes": 300 });
    assert_eq!(answer.expect(200).json(), whole);
    let wanted = with_line(&before, "initialMinutes: 3   #", "initialMinutes: 5   #");
    assert_eq!(gateway.text(), wanted);
    assert_eq!(gateway.app.live.load().cooldown.initial.as_secs(), 300);
    let body = json!({ "ttfbSeconds": 30 });
    gateway.admin("PATCH", &page("stall"), &body).expect(200);
    let wanted = with_line(&wanted, "ttfbSeconds: 20, w", "ttfbSeconds: 30, w");
    assert_eq!(gateway.text(), wanted);
    let body = json!({ "trustedProxies": ["10.0.0.0/8"] });
    let answer = gateway.admin("PATCH", &page("trusted-proxies"), &body);
    assert_eq!(answer.expect(200).json(), body);
    let in_force = &gateway.app.live.load().server.trusted_proxies;
    assert_eq!(in_force.len(), 1);
    assert!(
        gateway
            .text()
            .starts_with(wanted.split_at(wanted.len() - 20).0)
    );
}

#[test]
fn a_number_in_quotation_marks_is_one_and_null_unsays() {
    let gateway = Gateway::with(FILE);
    let body = json!({ "defaultSeconds": "250" });
    let answer = gateway.admin("PATCH", &page("timeout"), &body);
    assert_eq!(answer.expect(200).json()["defaultSeconds"], 250);
    let body = json!({ "defaultSeconds": null });
    let answer = gateway.admin("PATCH", &page("timeout"), &body);
    assert_eq!(answer.expect(200).json()["defaultSeconds"], 300);
    let body = json!({ "ttfbSeconds": null });
    let answer = gateway.admin("PATCH", &page("stall"), &body);
    assert_eq!(answer.expect(200).json()["ttfbSeconds"], NOTHING);
    assert!(
        gateway
            .text()
            .contains("ttfbSeconds: null, windowSeconds: 5")
    );
    for (body, shown) in [
        (
            json!({ "strategy": "native", "odd": [1] }),
            json!({ "strategy": "native", "odd": [1] }),
        ),
        (
            json!({ "odd": null, "enabled": true }),
            json!({ "strategy": "native", "enabled": true }),
        ),
    ] {
        let answer = gateway.admin("PATCH", &page("compaction"), &body);
        assert_eq!(answer.expect(200).json(), shown);
    }
}

#[test]
fn proxies_stay_where_the_file_has_them() {
    let text = "trustedProxies: [10.0.0.1]   # at the top\nserver: { heartbeatSeconds: 10 }\n";
    let gateway = Gateway::with(text);
    let body = json!({ "trustedProxies": ["10.0.0.2"] });
    gateway
        .admin("PATCH", &page("trusted-proxies"), &body)
        .expect(200);
    let wanted = with_line(text, "10.0.0.1", "10.0.0.2");
    // A list is written anew.
    assert_eq!(document(&gateway.text()), document(&wanted));
    assert!(gateway.text().starts_with("trustedProxies:"));
    let body = json!({ "server": { "heartbeatSeconds": 20 } });
    gateway
        .admin("PATCH", &path("/system-settings"), &body)
        .expect(200);
    assert_eq!(
        get(&gateway, "/system-settings")["trustedProxies"],
        json!(["10.0.0.2"])
    );
    assert!(gateway.text().contains("heartbeatSeconds: 20"));
}

#[test]
#[expect(clippy::too_many_lines, reason = "one story, told in order")]
fn a_setting_that_cannot_be_is_refused_in_one_text_and_nothing_changes() {
    let gateway = Gateway::with(FILE);
    let before = gateway.text();
    for (name, body, said) in [
        (
            "failover",
            json!({ "retryableStatusCodes": ["x", 9999] }),
            "retryableStatusCodes.0: found the text \"x\"",
        ),
        (
            "failover",
            json!({ "enabld": true }),
            "enabld: unknown field; did you mean \"enabled\"?",
        ),
        (
            "exploration-rate",
            json!({ "latencyExplorationRate": 2 }),
            "latencyExplorationRate: found 2",
        ),
        (
            "background-exploration",
            json!({ "workerConcurrency": 17 }),
            "workerConcurrency: found 17",
        ),
        (
            "background-exploration",
            json!({ "enabled": "yes" }),
            "enabled: found the text \"yes\"",
        ),
        (
            "cooldown",
            json!({ "initialMinutes": 5, "maxMinutes": 0 }),
            "maxMinutes: found 0",
        ),
        (
            "cooldown",
            json!({ "initialMinutes": 500 }),
            "initialMinutes is more than maxMinutes",
        ),
        (
            "timeout",
            json!({ "defaultSeconds": "soon" }),
            "defaultSeconds: found the text \"soon\"",
        ),
        (
            "timeout",
            json!({ "defaultSeconds": 1.5 }),
            "defaultSeconds: found 1.5",
        ),
        ("stall", json!({ "ttfbSeconds": 4 }), "ttfbSeconds: found 4"),
        (
            "vision-fallthrough",
            json!({ "descriptor_model": 5 }),
            "descriptor_model: found a number",
        ),
        (
            "trusted-proxies",
            json!({ "trustedProxies": ["here"] }),
            "trustedProxies.0: found \"here\"",
        ),
        (
            "capture-trace-on-error",
            json!({ "enabled": 1 }),
            "enabled: found 1",
        ),
    ] {
        let answer = gateway
            .admin("PATCH", &page(name), &body)
            .expect(400)
            .json();
        let error = answer["error"].as_str().unwrap();
        assert!(error.contains(said), "{name}: {error}");
    }
    let answer = gateway.admin(
        "PATCH",
        &page("compaction"),
        &json!({ "strategy": "magic" }),
    );
    let answer = answer.expect(400).json();
    assert_eq!(answer["error"], "Invalid compaction config");
    assert_eq!(answer["details"][0]["path"], json!(["strategy"]));
    for body in ["[]", "5", "null", "", "{"] {
        let headers = [("x-admin-key", ADMIN), ("content-type", "application/json")];
        let answer = gateway
            .request("PATCH", &page("cooldown"), &headers, body)
            .expect(400);
        if body != "{" {
            assert_eq!(answer.json(), json!({ "error": "Object body is required" }));
        }
    }
    assert_eq!(gateway.text(), before);
    assert_eq!(get(&gateway, "/config/status")["revision"], 1);
}

// ---- flat names

#[test]
fn flat_names_lead_to_the_file_and_unknown_ones_are_kept() {
    let gateway = Gateway::with(FILE);
    let stored = json!({
        "cooldown.initialMinutes": 3, "stall.ttfbSeconds": 20, "stall.windowSeconds": 5,
    });
    assert_eq!(get(&gateway, "/system-settings"), stored);
    let body = json!({
        "failover.enabled": false,
        "timeout.defaultSeconds": "60",
        "cooldown.initialMinutes": null,
        "vision_fallthrough": { "default_prompt": "what is this?" },
        "trustedProxies": ["10.0.0.1"],
        "captureTraceOnError": true,
        "ui.theme": "dark",
        "someTool": { "parked": [1, 2] },
    });
    let answer = gateway.admin("PATCH", &path("/system-settings"), &body);
    assert_eq!(answer.expect(200).json(), json!({ "success": true }));
    let shown = get(&gateway, "/system-settings");
    for (name, value) in body.as_object().unwrap() {
        match (name.as_str(), value) {
            ("timeout.defaultSeconds", _) => assert_eq!(shown[name], 60),
            (_, Value::Null) => assert_eq!(shown.get(name), None),
            _ => assert_eq!(&shown[name], value, "{name}"),
        }
    }
    let said = document(&gateway.text()).unwrap();
    assert_eq!(said["custom"]["ui.theme"], "dark");
    let config = gateway.app.live.load();
    assert!(!config.failover.enabled && config.attempt_timeout.as_secs() == 60);
    for line in [
        "# the head",
        "one:   # the first",
        "# in one line",
        "# the end",
    ] {
        assert!(gateway.text().contains(line), "{line}");
    }
    let body = json!({ "ui.theme": null, "someTool": null });
    gateway
        .admin("PATCH", &path("/system-settings"), &body)
        .expect(200);
    assert_eq!(get(&gateway, "/system-settings").get("ui.theme"), None);
}

#[test]
fn flat_names_that_are_none_or_hold_nonsense_are_refused() {
    let gateway = Gateway::with(FILE);
    let before = gateway.text();
    for (body, said) in [
        (json!({ "failover.enabld": true }), "did you mean"),
        (json!({ "timeout": 5 }), "timeout"),
        (json!({ "keys": {} }), "keys is not a setting"),
        (json!({ "providers.one": {} }), ""),
        (
            json!({ "cooldown.initialMinutes": 5, "strict": "maybe" }),
            "strict",
        ),
    ] {
        let answer = gateway.admin("PATCH", &path("/system-settings"), &body);
        if said.is_empty() {
            // Not the section: a name that nothing knows.
            answer.expect(200);
            let body = json!({ "providers.one": null });
            gateway
                .admin("PATCH", &path("/system-settings"), &body)
                .expect(200);
            let said = document(&gateway.text()).unwrap();
            assert_eq!(said["providers"], document(&before).unwrap()["providers"]);
            gateway.write(&before);
            gateway.app.live.reload().unwrap();
            continue;
        }
        let answer = answer.expect(400);
        assert!(answer.text().contains(said), "{body}: {}", answer.text());
        assert_eq!(gateway.text(), before);
    }
    let body = json!({ "default_quotas": ["nobody"] });
    let answer = gateway
        .admin("PATCH", &path("/system-settings"), &body)
        .expect(400);
    assert_eq!(answer.json()["error"]["type"], "invalid_request_error");
    assert_eq!(gateway.text(), before);
}

#[test]
fn the_admin_key_is_no_setting_that_is_shown() {
    let gateway = Gateway::with("adminKey: in-the-file\nstrict: true\n");
    assert_eq!(get(&gateway, "/system-settings"), json!({ "strict": true }));
}

// ---- tags

#[test]
fn every_state_has_a_tag_and_a_write_may_ask_for_one() {
    let gateway = Gateway::with(FILE);
    for (rest, body) in [
        ("/providers/one", json!({ "timeoutMs": 5000 })),
        ("/aliases/short", json!({ "priority": "api_match" })),
        ("/keys/guest", json!({ "comment": "after" })),
        ("/config/timeout", json!({ "defaultSeconds": 60 })),
        ("/config/compaction", json!({ "strategy": "native" })),
        ("/system-settings", json!({ "theme": "dark" })),
    ] {
        let seen = tag(&gateway, rest);
        let unchanged = careful(&gateway, "GET", rest, ("if-none-match", &seen), &NOTHING);
        let unchanged = unchanged.expect(304);
        assert_eq!(unchanged.header("etag"), Some(&*seen));
        assert!(unchanged.body.is_empty());
        let before = gateway.text();
        let other = ("if-match", "\"00000000000000000000000000000000\"");
        let refused = careful(&gateway, "PATCH", rest, other, &body).expect(412);
        assert_eq!(refused.header("etag"), Some(&*seen), "{rest}");
        assert_eq!(gateway.text(), before);
        let made = careful(&gateway, "PATCH", rest, ("if-match", &seen), &body).expect(200);
        let now = tag(&gateway, rest);
        assert_eq!(made.header("etag"), Some(&*now), "{rest}");
        assert_ne!(now, seen);
        careful(&gateway, "PATCH", rest, ("if-match", &seen), &body).expect(412);
        let changed = careful(&gateway, "GET", rest, ("if-none-match", &seen), &NOTHING);
        changed.expect(200);
    }
}

#[test]
fn a_tag_is_of_the_state_and_not_of_how_it_is_shown() {
    let gateway = Gateway::with(FILE);
    assert_eq!(
        tag(&gateway, "/keys/app"),
        tag(&gateway, "/keys/app?redact=true")
    );
    assert_eq!(tag(&gateway, "/keys"), tag(&gateway, "/keys?redact=true"));
    let before = tag(&gateway, "/keys");
    let body = json!({ "secret": "sk-new" });
    let made = gateway.admin("PUT", &path("/keys/app"), &body).expect(200);
    assert_eq!(made.header("etag"), Some(&*tag(&gateway, "/keys/app")));
    assert_ne!(tag(&gateway, "/keys"), before);
}

#[test]
fn what_is_made_may_have_to_be_new_and_what_is_deleted_as_it_was() {
    let gateway = Gateway::with(FILE);
    let body = json!({ "secret": "sk-new" });
    let new = ("if-none-match", "*");
    careful(&gateway, "PUT", "/keys/new", new, &body).expect(200);
    careful(
        &gateway,
        "PUT",
        "/keys/new",
        new,
        &json!({ "secret": "sk-x" }),
    )
    .expect(412);
    careful(&gateway, "PUT", "/keys/other", ("if-match", "*"), &body).expect(412);
    let seen = tag(&gateway, "/keys/new");
    let body = json!({ "comment": "changed" });
    gateway
        .admin("PATCH", &path("/keys/new"), &body)
        .expect(200);
    careful(
        &gateway,
        "DELETE",
        "/keys/new",
        ("if-match", &seen),
        &NOTHING,
    )
    .expect(412);
    let seen = tag(&gateway, "/keys/new");
    careful(
        &gateway,
        "DELETE",
        "/keys/new",
        ("if-match", &seen),
        &NOTHING,
    )
    .expect(200);
    let seen = tag(&gateway, "/aliases");
    gateway
        .admin("PUT", &path("/aliases/b"), &json!({}))
        .expect(200);
    careful(&gateway, "DELETE", "/models", ("if-match", &seen), &NOTHING).expect(412);
    let seen = tag(&gateway, "/aliases");
    careful(&gateway, "DELETE", "/models", ("if-match", &seen), &NOTHING).expect(200);
}

#[test]
fn one_of_many_careful_writers_wins() {
    let gateway = Gateway::on_cores(FILE, &[], 2);
    let seen = tag(&gateway, "/keys/guest");
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..6)
            .map(|i| {
                let (gateway, seen) = (&gateway, &seen);
                scope.spawn(move || {
                    let body = json!({ "comment": format!("writer {i}") });
                    let field = ("if-match", seen.as_str());
                    careful(gateway, "PATCH", "/keys/guest", field, &body).status
                })
            })
            .collect();
        writers
            .into_iter()
            .map(|writer| writer.join().unwrap())
            .collect()
    });
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1);
    assert_eq!(statuses.iter().filter(|status| **status == 412).count(), 5);
}

// ---- changed by hand

#[test]
fn what_was_changed_by_hand_elsewhere_is_kept() {
    let gateway = Gateway::with(FILE);
    let before = gateway.text();
    let one = get(&gateway, "/providers/one");
    // Another field of the same entry, another entry, another section.
    let by_hand = with_line(&before, "enabled: true", "enabled: false   # hand");
    let by_hand = with_line(&by_hand, "up-two", "by-hand");
    let by_hand = with_line(&by_hand, "windowSeconds: 5", "windowSeconds: 6");
    gateway.write(&by_hand);
    let mut body = one;
    body["api_key"] = json!("by-api");
    gateway
        .admin("PUT", &path("/providers/one"), &body)
        .expect(200);
    let wanted = with_line(&by_hand, "api_key: up-one   #", "api_key: by-api   #");
    assert_eq!(gateway.text(), wanted);
    let config = gateway.app.live.load();
    assert!(!config.providers["one"].enabled);
    assert_eq!(get(&gateway, "/providers/two")["api_key"], "by-hand");
}

#[test]
#[expect(clippy::too_many_lines, reason = "one story, told in order")]
fn what_was_changed_by_hand_in_the_same_place_stands_against_a_write() {
    let gateway = Gateway::with(FILE);
    let before = gateway.text();
    for (from, to, method, rest, body) in [
        (
            "up-one   #",
            "by-hand   #",
            "PATCH",
            "/providers/one",
            json!({ "api_key": "by-api" }),
        ),
        (
            "comment: before",
            "comment: hand",
            "PUT",
            "/keys/guest",
            json!({ "secret": "sk-guest", "comment": "api" }),
        ),
        (
            "comment: before",
            "comment: hand",
            "DELETE",
            "/keys/guest",
            NOTHING,
        ),
        (
            "  guest: { secret: sk-guest, comment: before }\n",
            "",
            "PATCH",
            "/keys/guest",
            json!({ "comment": "api" }),
        ),
        (
            "  app: {",
            "  new: { secret: sk-hand }\n  app: {",
            "PUT",
            "/keys/new",
            json!({ "secret": "sk-api" }),
        ),
        (
            "model: m }",
            "model: n }",
            "DELETE",
            "/models/short",
            NOTHING,
        ),
        ("model: m }", "model: n }", "DELETE", "/models", NOTHING),
        (
            "initialMinutes: 3",
            "initialMinutes: 4",
            "PATCH",
            "/config/cooldown",
            json!({ "initialMinutes": 5 }),
        ),
        (
            "initialMinutes: 3",
            "initialMinutes: 4",
            "PATCH",
            "/system-settings",
            json!({ "cooldown.initialMinutes": 5 }),
        ),
    ] {
        gateway.write(&before);
        gateway.app.live.reload().unwrap();
        let by_hand = with_line(&before, from, to);
        gateway.write(&by_hand);
        let answer = gateway.admin(method, &path(rest), &body).expect(409).json();
        let difference = &answer["difference"][0];
        assert!(difference["path"].is_array(), "{method} {rest}: {answer}");
        assert_ne!(difference["inForce"], difference["inFile"]);
        assert_eq!(gateway.text(), by_hand);
        // The file has been read; who repeats it now knows.
        gateway
            .admin(method, &path(rest), &body)
            .expect(match method {
                "PATCH" if to.is_empty() => 404,
                _ => 200,
            });
    }
}

#[test]
fn the_whole_file_is_not_replaced_over_a_change_by_hand() {
    let gateway = Gateway::with(FILE);
    let before = gateway.text();
    let yaml = |field: Option<(&str, &str)>, body: &str| {
        let headers = [
            ("x-admin-key", ADMIN),
            ("content-type", "application/x-yaml"),
        ];
        let headers: Vec<_> = headers.into_iter().chain(field).collect();
        gateway.request("PUT", &path("/config"), &headers, body)
    };
    let seen = tag(&gateway, "/config");
    let by_hand = with_line(&before, "up-two", "by-hand");
    gateway.write(&by_hand);
    yaml(Some(("if-match", &seen)), &before).expect(412);
    let other = with_line(&before, "sk-guest", "sk-other");
    let answer = yaml(None, &other).expect(409).json();
    let difference = json!([{ "path": ["providers", "two", "api_key"], "inForce": "up-two", "inFile": "by-hand" }]);
    assert_eq!(answer["difference"], difference);
    assert_eq!(gateway.text(), by_hand);
    let seen = tag(&gateway, "/config");
    yaml(Some(("if-match", &seen)), &other).expect(200);
    assert_eq!(gateway.text(), other);
    // Comments count, too.
    gateway.write(&format!("{other}# by hand\n"));
    yaml(None, &before).expect(409);
}

// ---- what is read can be put back

/// Values of all fields that a section's entries may have, from the example.
fn entries(section: &str) -> Vec<Map<String, Value>> {
    let example = document(include_str!("../plexus.example.yaml")).unwrap();
    let entries = example[section].as_object().unwrap().values();
    entries
        .map(|entry| entry.as_object().unwrap().clone())
        .collect()
}

/// An entry with some of the fields of one that is known to be valid.
fn part_of(section: &'static str, needed: &'static [&'static str]) -> impl Strategy<Value = Value> {
    let entries = entries(section);
    let choice = (
        0..entries.len(),
        proptest::collection::vec(any::<bool>(), 40),
    );
    choice.prop_map(move |(entry, kept)| {
        let fields = entries[entry].iter().zip(kept);
        let fields = fields.filter(|((name, _), kept)| *kept || needed.contains(&name.as_str()));
        let fields = fields.map(|((name, value), _)| (name.clone(), value.clone()));
        Value::Object(fields.collect())
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// For every resource: what GET shows is taken back by PUT and PATCH, and
    /// changes neither a byte nor the revision.
    #[test]
    fn what_is_shown_is_taken_back_whatever_it_is(
        providers in proptest::collection::vec(part_of("providers", &["api_base_url", "api_key", "oauth_provider", "oauth_account"]), 1..4),
        keys in proptest::collection::vec(part_of("keys", &[]), 1..4),
        aliases in proptest::collection::vec(part_of("models", &["target_groups"]), 1..3),
        flow in any::<bool>(),
    ) {
        let mut file = document(include_str!("../plexus.example.yaml")).unwrap();
        for (i, provider) in providers.into_iter().enumerate() {
            file["providers"][format!("a/{i}: #x")] = provider;
        }
        for (i, mut key) in keys.into_iter().enumerate() {
            key["secret"] = json!(format!("sk-made-{i}"));
            file["keys"][format!("k {i}")] = key;
        }
        for (i, mut alias) in aliases.into_iter().enumerate() {
            alias["additional_aliases"] = json!([format!("other {i}")]);
            file["models"][format!("m-{i}")] = alias;
        }
        let text = if flow { file.to_string() } else { plexus::config::edit::render(&file) };
        if let Err(faults) = Config::from_yaml(&text) {
            let shown: Vec<String> = faults.iter().map(ToString::to_string).collect();
            return Err(TestCaseError::reject(shown.join("\n")));
        }
        let gateway = Gateway::with(&text);
        let before = gateway.text();
        for section in ["/providers", "/aliases", "/keys"] {
            let all = get(&gateway, section);
            for name in all.as_object().unwrap().keys() {
                let rest = format!("{section}/{}", encoded(name));
                let shown = get(&gateway, &rest);
                for method in ["PUT", "PATCH"] {
                    gateway.admin(method, &path(&rest), &shown).expect(200);
                    prop_assert!(gateway.text() == before, "{method} {rest}\n{}", gateway.text());
                }
            }
        }
        let all = get(&gateway, "/system-settings");
        gateway.admin("PATCH", &path("/system-settings"), &all).expect(200);
        prop_assert_eq!(gateway.text(), before);
        prop_assert_eq!(&get(&gateway, "/config/status")["revision"], &json!(1));
    }
}

/// A name as a segment of a path.
fn encoded(name: &str) -> String {
    let bytes = name.bytes().map(|byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => {
            char::from(byte).to_string()
        }
        other => format!("%{other:02X}"),
    });
    bytes.collect()
}

// ---- a process that is killed, and a disk that is full

/// `plexus serve` as a process of its own.
struct Served {
    child: Child,
    client: Client,
}

impl Served {
    /// `limit` is the largest file that it may write, in blocks of 512 bytes.
    fn start(folder: &Path, limit: Option<u32>) -> Self {
        let binary = env!("CARGO_BIN_EXE_plexus");
        let limited = limit.map_or(String::new(), |limit| {
            format!("trap '' XFSZ; ulimit -f {limit}; ")
        });
        let mut child = Command::new("sh")
            .args([
                "-c",
                &format!("{limited}exec {binary} serve --config plexus.yaml"),
            ])
            .current_dir(folder)
            .env("ADMIN_KEY", ADMIN)
            .env("HOST", "127.0.0.1")
            .env("PORT", "0")
            .env("LOG_LEVEL", "info")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        let address = loop {
            let mut line = String::new();
            assert!(log.read_line(&mut line).unwrap() > 0, "{said}");
            said.push_str(&line);
            if let Some(address) = address_in(&line) {
                break address;
            }
        };
        // Read on, so that it never waits for us.
        std::thread::spawn(move || drop(log.read_to_end(&mut Vec::new())));
        Self {
            child,
            client: Client::of(address),
        }
    }

    fn put_key(&self, name: &str, body: &Value) -> Response {
        let headers = [("x-admin-key", ADMIN), ("content-type", "application/json")];
        let path = path(&format!("/keys/{name}"));
        self.client
            .request("PUT", &path, &headers, body.to_string().as_bytes())
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn address_in(line: &str) -> Option<SocketAddr> {
    let (_, behind) = line.split_once("127.0.0.1:")?;
    let port: String = behind.chars().take_while(char::is_ascii_digit).collect();
    format!("127.0.0.1:{port}").parse().ok()
}

/// A file of some size, so that a write takes its time.
fn large(keys: u32) -> String {
    let keys = (0..keys).map(|i| format!("  k{i}:\n    secret: sk-{i}   # the key {i}\n"));
    format!(
        "# a large file\nkeys:\n{}# the end\n",
        keys.collect::<String>()
    )
}

#[test]
#[expect(clippy::too_many_lines, reason = "one story, told in order")]
fn a_process_that_is_killed_while_it_writes_leaves_the_old_file_or_the_new_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("plexus.yaml");
    fs::write(&file, large(2_000)).unwrap();
    let mut written = 0;
    for round in 0..8_u64 {
        let mut served = Served::start(folder.path(), None);
        let client = served.client;
        let writer = std::thread::spawn(move || {
            let mut acknowledged = Vec::new();
            for number in 0.. {
                let body = json!({ "secret": format!("sk-r{round}-{number}") }).to_string();
                let path = path(&format!("/keys/r{round}-{number}"));
                let headers = format!(
                    "PUT {path} HTTP/1.1\r\nhost: x\r\nx-admin-key: {ADMIN}\r\ncontent-type: application/json\r\n\
                     content-length: {}\r\nconnection: close\r\n\r\n{body}",
                    body.len()
                );
                let Ok(mut stream) = std::net::TcpStream::connect(client.address()) else {
                    break;
                };
                let mut answer = String::new();
                if stream.write_all(headers.as_bytes()).is_err()
                    || stream.read_to_string(&mut answer).is_err()
                    || !answer.starts_with("HTTP/1.1 200")
                {
                    break;
                }
                acknowledged.push(format!("r{round}-{number}"));
            }
            acknowledged
        });
        // At another moment of a write each time: some writes in, and a part.
        let before = fs::metadata(&file).unwrap().len();
        support::await_some("a write", || {
            (fs::metadata(&file).ok()?.len() > before).then_some(())
        });
        for _ in 0..round * 20_000 {
            std::hint::spin_loop();
        }
        served.kill();
        let acknowledged = writer.join().unwrap();
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("# a large file\n") && text.ends_with("# the end\n"));
        let said = document(&text).unwrap();
        for name in &acknowledged {
            assert!(said["keys"].get(name).is_some(), "{name} was acknowledged");
        }
        let more = said["keys"].as_object().unwrap().len() - 2_000 - written;
        // One may have been written and not yet answered.
        assert!(more == acknowledged.len() || more == acknowledged.len() + 1);
        written += more;
    }
    // Drafts of killed processes don't pile up.
    let mut served = Served::start(folder.path(), None);
    served
        .put_key("last", &json!({ "secret": "sk-last" }))
        .expect(200);
    served.kill();
    let drafts = fs::read_dir(folder.path()).unwrap();
    let drafts = drafts.filter(|entry| {
        let name = entry.as_ref().unwrap().file_name();
        name.to_string_lossy().ends_with(".tmp")
    });
    assert_eq!(drafts.count(), 0);
}

#[test]
fn a_disk_that_is_full_in_the_middle_of_a_write_leaves_the_old_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("plexus.yaml");
    // Just below a megabyte, which is the most that may be written.
    let text = format!("{}# {}\n", large(100), "x".repeat(1_040_000));
    fs::write(&file, &text).unwrap();
    let served = Served::start(folder.path(), Some(2_048));
    let body = json!({ "secret": "sk-new", "comment": "y".repeat(20_000) });
    let answer = served.put_key("new", &body).expect(500);
    assert!(answer.text().contains("plexus.yaml"), "{}", answer.text());
    assert_eq!(fs::read_to_string(&file).unwrap(), text);
    let get = |name: &str| {
        let path = path(&format!("/keys/{name}"));
        served
            .client
            .request("GET", &path, &[("x-admin-key", ADMIN)], b"")
    };
    get("new").expect(404);
    get("k5").expect(200);
    let names = fs::read_dir(folder.path()).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(!names.into_iter().any(|name| name.ends_with(".tmp")));
    // What fits is written.
    served
        .put_key("new", &json!({ "secret": "sk-new" }))
        .expect(200);
    get("new").expect(200);
}
