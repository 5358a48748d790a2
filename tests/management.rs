//! The management API through a socket: who gets in, what is shown, what a
//! write changes in the file and in force.

#![expect(
    clippy::unwrap_used,
    reason = "in helpers of tests a failure is the test's failure"
)]

mod support;

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use plexus::protocol::Protocol;
use plexus::store::row::{ErrorRow, Status, Tokens, UsageRow};
use serde_json::{Value, json};
use uuid::Uuid;

use support::{ADMIN, Gateway, PATIENCE, Response, SECRET};

const EXAMPLE: &str = include_str!("../plexus.example.yaml");
const OLDER: &str = include_str!("fixtures/config/older.yaml");
const ROOT: &str = "/v0/management";
const NOTHING: Value = Value::Null;

/// A file with comments everywhere, in the forms that people use.
const HAND: &str = "\
# the head
providers:
  # the first
  one:   # behind
    api_base_url: http://SIMULATOR/v1   # local
    api_key: up-one   # given by hand
    headers: { X-Title: Plexus, Authorization: Bearer hush }
  two: { api_base_url: 'http://SIMULATOR/v1', api_key: up-two, enabled: true }
models:
  short:   # one group
    selector: in_order
    targets:   # in this order
      - { provider: one, model: m1 }
      - { provider: two, model: m2 }
  long:
    target_groups:
      - name: main
        targets: [{ provider: two, model: m1 }]   # alone
      - { name: spare, selector: cost, targets: [{ provider: one, model: m1, enabled: false }, { alias: short }] }
  empty:
keys:
  app: { secret: sk-plexus-tests, quota: daily }   # the only one
  # time-bound
  guest:
    secret: sk-guest
    expiresAt: 2099-01-01T00:00:00Z   # the end
    disabledAt: null
user_quotas:
  daily: { type: daily, limitType: requests, limit: 1000 }
# the end
";

fn path(rest: &str) -> String {
    format!("{ROOT}{rest}")
}

fn get(gateway: &Gateway, rest: &str) -> Value {
    gateway
        .admin("GET", &path(rest), &NOTHING)
        .expect(200)
        .json()
}

/// The faults of a refused write, as `path: message`.
fn faults(response: &Response) -> Vec<String> {
    let body = response.json();
    let details = body["details"].as_array().unwrap().iter();
    details
        .map(|detail| {
            assert_eq!(detail["code"], "custom");
            assert!(detail["line"].is_u64() && detail["column"].is_u64());
            let path = detail["path"].as_array().unwrap().iter();
            let path: Vec<&str> = path.filter_map(Value::as_str).collect();
            format!(
                "{}: {}",
                path.join("."),
                detail["message"].as_str().unwrap()
            )
        })
        .collect()
}

/// Changes one line of a text; it must be there.
fn with_line(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "{from} in {text}");
    text.replace(from, to)
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}

// ---- who gets in

#[test]
fn the_query_is_no_place_for_the_admin_key() {
    let gateway = Gateway::start();
    for query in ["key", "x-admin-key", "admin_key"] {
        let path = format!("{ROOT}/keys?{query}={ADMIN}");
        gateway.request("GET", &path, &[], "").expect(401);
    }
}

#[test]
fn odd_paths_and_headers_do_not_get_around_the_gate() {
    let gateway = Gateway::with(HAND);
    for path in [
        "//v0/management/keys",
        "/v0//management/keys",
        "/v0/management//keys",
        "/v0/management/keys/",
        "/v0/management/keys/.",
        "/v0/management/./keys",
        "/v0/%2e/management/keys",
        "/health/../v0/management/keys",
        "/health/%2e%2e/v0/management/keys",
        "/v0/management%2fkeys",
        "/%76%30/management/keys",
        "/v0/management/%6beys",
        "/V0/management/keys",
        "/v0/Management/Keys",
        "/v0/management/keys;x=1",
        "/v0/management/keys%00",
        "/v0/management/keys?",
        "/v0/management/providers/%2e%2e%2fkeys",
        "/health?/v0/management/keys",
        "/v1/models/../../v0/management/keys",
    ] {
        let answer = gateway.request("GET", path, &[], "");
        let body = String::from_utf8_lossy(&answer.body);
        assert!(!body.contains("sk-"), "{path}: {body}");
        let open = path.starts_with("/health?") || path.starts_with("/v1/models/");
        assert!(open || matches!(answer.status, 401 | 404), "{path}: {body}");
    }
    for headers in [
        [("host", "localhost/v0/management/keys")],
        [("host", "127.0.0.1:4000/health#")],
        [("host", "")],
        [("x-original-url", "/health")],
        [("x-rewrite-url", "/v0/management/keys")],
        [("x-forwarded-for", "127.0.0.1")],
        [("x-http-method-override", "OPTIONS")],
        [("upgrade", "h2c")],
    ] {
        let answer = gateway.request("GET", "/v0/management/keys", &headers, "");
        assert!(matches!(answer.status, 400 | 401), "{headers:?}");
        let answer = gateway.request("GET", "/health", &headers, "");
        assert!(!answer.text().contains("sk-"), "{headers:?}");
    }
    let client = gateway.client();
    let absolute = client.raw(
        b"GET http://localhost/v0/management/keys HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
    );
    assert!(matches!(absolute.status, 400 | 401), "{absolute:?}");
}

#[test]
fn a_method_is_what_the_request_line_says() {
    let gateway = Gateway::with(HAND);
    let before = gateway.text();
    for name in [
        "x-http-method-override",
        "x-method-override",
        "x-http-method",
    ] {
        let headers = [("x-admin-key", ADMIN), (name, "DELETE")];
        let path = path("/keys/app?_method=DELETE");
        gateway.request("GET", &path, &headers, "").expect(200);
        gateway.request("POST", &path, &headers, "").expect(405);
    }
    assert_eq!(gateway.text(), before);
    let wrong = gateway.admin("POST", &path("/providers/one"), &json!({}));
    assert_eq!(
        wrong.expect(405).header("allow"),
        Some("GET, PUT, PATCH, DELETE, HEAD, OPTIONS")
    );
}

#[test]
fn answers_are_compact_json_that_nobody_keeps_or_reads_from_another_origin() {
    let gateway = Gateway::with(HAND);
    let headers = [("x-admin-key", ADMIN), ("origin", "https://evil.example")];
    let answer = gateway.request("GET", &path("/keys/app"), &headers, "");
    let answer = answer.expect(200);
    assert_eq!(
        answer.header("content-type"),
        Some("application/json; charset=utf-8")
    );
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("access-control-allow-origin"), None);
    assert_eq!(
        answer.text(),
        r#"{"name":"app","secret":"sk-plexus-tests","quotas":["daily"],"allowRawPassthrough":false}"#
    );
    let refused = gateway.admin("GET", &path("/keys/nobody"), &NOTHING);
    assert_eq!(
        refused.header("content-type"),
        Some("application/json; charset=utf-8")
    );
}

#[test]
fn a_key_learns_who_it_is() {
    let gateway = Gateway::start();
    assert_eq!(
        get(&gateway, "/auth/verify"),
        json!({ "ok": true, "role": "admin" })
    );
    let limited = gateway.manage(SECRET, "GET", &path("/auth/verify"), &NOTHING);
    assert_eq!(limited.expect(200).json()["keyName"], "app");
}

// ---- what is shown

#[test]
fn entries_are_listed_in_file_order_with_what_they_leave_out() {
    let gateway = Gateway::with(HAND);
    let providers = get(&gateway, "/providers");
    let names: Vec<&String> = providers.as_object().unwrap().keys().collect();
    assert_eq!(names, ["one", "two"]);
    assert_eq!(providers["one"], get(&gateway, "/providers/one"));
    let one = &providers["one"];
    assert_eq!(one["api_key"], "up-one");
    for (field, value) in [
        ("enabled", json!(true)),
        ("disable_cooldown", json!(false)),
        ("stall_cooldown", json!(false)),
        ("allow_100_percent_utilization", json!(false)),
        ("estimateTokens", json!(false)),
        ("useClaudeMasking", json!(false)),
        ("gemini_thinking_enabled", json!(false)),
        (
            "model_autosync",
            json!({ "enabled": false, "intervalMinutes": 60 }),
        ),
    ] {
        assert_eq!(one[field], value, "{field}");
    }
    let short = json!({
        "slug": "short",
        "target_groups": [{
            "name": "default",
            "selector": "in_order",
            "targets": [
                { "provider": "one", "model": "m1", "enabled": true },
                { "provider": "two", "model": "m2", "enabled": true },
            ],
        }],
        "priority": "selector",
        "use_image_fallthrough": false,
        "enforce_limits": false,
        "sticky_session": true,
    });
    assert_eq!(get(&gateway, "/aliases/short"), short);
    let empty = &get(&gateway, "/aliases")["empty"];
    assert_eq!(empty["target_groups"], json!([]));
    let guest = get(&gateway, "/keys/guest");
    assert_eq!(guest["expiresAt"], 4_070_908_800_000_u64);
    assert_eq!(guest.get("disabledAt"), None);
}

#[test]
fn what_is_not_there_is_a_404_that_names_it() {
    let gateway = Gateway::with(HAND);
    for (rest, message) in [
        ("/providers/x", "Provider 'x' not found"),
        ("/aliases/x", "Alias 'x' not found"),
        ("/keys/x", "API key 'x' not found"),
    ] {
        for (method, body) in [("GET", &NOTHING), ("PATCH", &json!({}))] {
            let answer = gateway.admin(method, &path(rest), body).expect(404);
            assert_eq!(answer.json(), json!({ "error": message }));
        }
    }
}

#[test]
fn secrets_are_shown_to_the_admin_and_hidden_on_request() {
    let gateway = Gateway::with(HAND);
    let keys = get(&gateway, "/keys?redact=true");
    assert_eq!(keys["app"]["secret"], "[redacted]");
    let one = get(&gateway, "/providers/one?redact=true");
    assert_eq!(one["api_key"], "[redacted]");
    assert_eq!(
        one["headers"],
        json!({ "X-Title": "Plexus", "Authorization": "[redacted]" })
    );
    assert_eq!(get(&gateway, "/keys")["app"]["secret"], SECRET);
    // What was hidden must not come back as the secret.
    let answer = gateway.admin("PUT", &path("/providers/one"), &one);
    assert!(answer.expect(400).text().contains("stands for a secret"));
}

#[test]
fn references_to_the_environment_are_shown_and_never_their_values() {
    let file = "keys: { app: { secret: $env:THE_SECRET } }\n";
    let gateway = Gateway::with_environment(file, &[("THE_SECRET", "sk-from-outside")]);
    assert_eq!(get(&gateway, "/keys/app")["secret"], "$env:THE_SECRET");
    for rest in ["/keys", "/config/export"] {
        assert!(!get(&gateway, rest).to_string().contains("sk-from-outside"));
    }
    gateway
        .manage("sk-from-outside", "GET", &path("/auth/verify"), &NOTHING)
        .expect(200);
}

// ---- what a write changes

/// Puts back what was shown, all entries and each alone, and with PATCH.
fn put_back(gateway: &Gateway) {
    let before = gateway.text();
    let revision = get(gateway, "/config/status")["revision"].clone();
    let mut entries = 0;
    for section in ["/providers", "/aliases", "/keys"] {
        for (name, listed) in get(gateway, section).as_object().unwrap() {
            let rest = format!("{section}/{}", name.replace('/', "%2F"));
            let alone = get(gateway, &rest);
            for (method, body) in [("PUT", listed), ("PUT", &alone), ("PATCH", &alone)] {
                gateway.admin(method, &path(&rest), body).expect(200);
                assert!(gateway.text() == before, "{method} {rest}");
            }
            gateway.admin("PATCH", &path(&rest), &json!({})).expect(200);
            assert!(gateway.text() == before, "PATCH {rest}");
            entries += 1;
        }
    }
    assert!(entries > 4);
    assert_eq!(get(gateway, "/config/status")["revision"], revision);
}

#[test]
fn putting_back_what_was_shown_leaves_every_byte() {
    for file in [EXAMPLE, OLDER, HAND, support::FILE] {
        put_back(&Gateway::with(file));
    }
}

#[test]
fn a_change_of_one_field_leaves_every_other_line() {
    let gateway = Gateway::with(HAND);
    let before = gateway.text();
    let mut one = get(&gateway, "/providers/one");
    one["api_key"] = json!("changed");
    gateway
        .admin("PUT", &path("/providers/one"), &one)
        .expect(200);
    let wanted = with_line(
        &before,
        "api_key: up-one   # given",
        "api_key: changed   # given",
    );
    assert_eq!(gateway.text(), wanted);
    let mut app = get(&gateway, "/keys/app");
    app["secret"] = json!("sk-new");
    gateway.admin("PUT", &path("/keys/app"), &app).expect(200);
    let wanted = with_line(
        &wanted,
        "secret: sk-plexus-tests, quota",
        "secret: sk-new, quota",
    );
    assert_eq!(gateway.text(), wanted);
    let body = json!({ "enabled": false });
    gateway
        .admin("PATCH", &path("/providers/two"), &body)
        .expect(200);
    let wanted = with_line(&wanted, "enabled: true }", "enabled: false }");
    assert_eq!(gateway.text(), wanted);
    let body = json!({ "selector": "random" });
    gateway
        .admin("PATCH", &path("/aliases/short"), &body)
        .expect(200);
    let wanted = with_line(&wanted, "selector: in_order", "selector: random");
    assert_eq!(gateway.text(), wanted);
}

#[test]
fn a_new_entry_is_written_as_it_was_sent_and_a_replaced_one_loses_the_rest() {
    let gateway = Gateway::with(HAND);
    let body = json!({ "api_base_url": "https://new.example/v1", "api_key": "k", "enabled": true });
    let rest = "/providers/team%2Fnew";
    let answer = gateway.admin("PUT", &path(rest), &body).expect(200);
    assert_eq!(answer.text(), r#"{"success":true,"slug":"team/new"}"#);
    let written = "  team/new:\n    api_base_url: https://new.example/v1\n    api_key: k\n    enabled: true\n";
    assert!(gateway.text().contains(written), "{}", gateway.text());
    assert_eq!(get(&gateway, "/providers/team/new")["api_key"], "k");
    let body = json!({ "api_base_url": "https://new.example/v1", "api_key": "l", "timeoutMs": 5 });
    gateway.admin("PUT", &path(rest), &body).expect(200);
    let body = json!({ "api_base_url": "https://new.example/v1", "api_key": "l" });
    gateway.admin("PUT", &path(rest), &body).expect(200);
    assert_eq!(get(&gateway, rest).get("timeoutMs"), None);
}

#[test]
fn a_patch_is_laid_over_and_null_takes_away() {
    let gateway = Gateway::with(HAND);
    let body = json!({ "headers": { "X-New": "1" }, "timeoutMs": 900 });
    gateway
        .admin("PATCH", &path("/providers/one"), &body)
        .expect(200);
    let one = get(&gateway, "/providers/one");
    assert_eq!(one["headers"], json!({ "X-New": "1" }), "not merged deeper");
    assert_eq!(one["timeoutMs"], 900);
    let body = json!({ "headers": null, "timeoutMs": null });
    gateway
        .admin("PATCH", &path("/providers/one"), &body)
        .expect(200);
    let one = get(&gateway, "/providers/one");
    assert_eq!((one.get("headers"), one.get("timeoutMs")), (None, None));
    assert_eq!(one["api_key"], "up-one");
    gateway
        .admin("PATCH", &path("/keys/app"), &json!({ "quota": null }))
        .expect(200);
    assert_eq!(get(&gateway, "/keys/app")["quotas"], json!([]));
    gateway
        .admin("PATCH", &path("/keys/app"), &json!({ "quota": "daily" }))
        .expect(200);
    assert_eq!(get(&gateway, "/keys/app")["quotas"], json!(["daily"]));
}

#[test]
fn targets_in_a_patch_are_those_of_the_short_form() {
    let gateway = Gateway::with(HAND);
    let targets = json!([{ "provider": "two", "model": "m9" }]);
    for (alias, selector) in [("short", "in_order"), ("long", "random")] {
        let rest = format!("/aliases/{alias}");
        let body = json!({ "targets": targets });
        gateway.admin("PATCH", &path(&rest), &body).expect(200);
        let groups = &get(&gateway, &rest)["target_groups"];
        assert_eq!(groups.as_array().unwrap().len(), 1);
        assert_eq!(groups[0]["selector"], selector);
        assert_eq!(groups[0]["targets"][0]["model"], "m9");
    }
}

#[test]
fn a_selector_for_an_alias_with_groups_of_its_own_is_refused() {
    let gateway = Gateway::with(HAND);
    let body = json!({ "selector": "cost" });
    let answer = gateway.admin("PATCH", &path("/aliases/long"), &body);
    assert!(answer.expect(400).text().contains("PATCH target_groups"));
}

#[test]
fn every_fault_is_told_with_its_path_in_the_entry_and_nothing_changes() {
    let gateway = Gateway::with(HAND);
    let before = gateway.text();
    let body = json!({ "api_base_ur": "https://x", "api_key": 5, "discount": 2 });
    let answer = gateway
        .admin("PUT", &path("/providers/bad"), &body)
        .expect(400);
    assert_eq!(answer.json()["error"], "Validation failed");
    let found = faults(&answer);
    for start in [
        "api_base_ur: ",
        "api_key: ",
        "discount: ",
        ": \"api_base_url\" is missing",
    ] {
        assert!(
            found.iter().any(|fault| fault.starts_with(start)),
            "{start} in {found:?}"
        );
    }
    assert!(
        found
            .iter()
            .any(|fault| fault.contains("did you mean \"api_base_url\"?"))
    );
    let body = json!({ "targets": [{ "provider": "on", "model": "m" }, { "alias": "short", "model": "m" }] });
    let answer = gateway
        .admin("PUT", &path("/aliases/bad"), &body)
        .expect(400);
    let found = faults(&answer);
    assert!(found[0].starts_with("target_groups.0.targets.0.provider: there is no provider called \"on\"; did you mean \"one\"?"), "{found:?}");
    assert!(
        found[1].starts_with("target_groups.0.targets.1: a target has either"),
        "{found:?}"
    );
    for body in [json!([1]), json!("x"), json!(5)] {
        for method in ["PUT", "PATCH"] {
            let answer = gateway
                .admin(method, &path("/providers/one"), &body)
                .expect(400);
            assert_eq!(answer.json(), json!({ "error": "Object body is required" }));
        }
    }
    let answer = gateway.admin("PUT", &path("/aliases/short"), &json!({ "slug": "long" }));
    answer.expect(400);
    assert_eq!(gateway.text(), before);
}

#[test]
fn bodies_that_nest_without_end_are_refused() {
    let gateway = Gateway::with(HAND);
    for depth in [70, 127, 5000] {
        let body = format!(
            "{{\"extraBody\":{}1{}}}",
            "{\"a\":".repeat(depth),
            "}".repeat(depth)
        );
        let headers = [("x-admin-key", ADMIN)];
        let answer = gateway.request("PATCH", &path("/providers/one"), &headers, body);
        answer.expect(400);
    }
}

#[test]
fn circles_of_aliases_are_refused() {
    let gateway = Gateway::with(HAND);
    let body = json!({ "targets": [{ "alias": "long" }] });
    let answer = gateway
        .admin("PUT", &path("/aliases/short"), &body)
        .expect(400);
    assert!(faults(&answer)[0].contains("aliases lead in a circle"));
}

#[test]
fn a_file_broken_by_hand_stops_writes_and_is_not_overwritten() {
    let gateway = Gateway::with(HAND);
    for broken in [
        format!("{HAND}strict: maybe\n"),
        format!("{HAND}keys: [\n"),
        with_line(
            HAND,
            "provider: one, model: m1 }\n      - { provider: two",
            "provider: nobody, model: m1 }\n      - { provider: two",
        ),
    ] {
        gateway.write(&broken);
        let on_disk = gateway.text();
        let key = json!({ "secret": "sk-other" });
        for (method, rest, body) in [
            ("PUT", "/keys/other", &key),
            ("PATCH", "/keys/app", &key),
            ("DELETE", "/keys/app", &NOTHING),
            ("DELETE", "/models/empty", &NOTHING),
            ("DELETE", "/providers/two?cascade=true", &NOTHING),
            ("POST", "/keys/guest/disable", &NOTHING),
        ] {
            let answer = gateway.admin(method, &path(rest), body).expect(409);
            assert!(!faults(&answer).is_empty());
            assert!(answer.text().contains("changed by hand"), "{method} {rest}");
        }
        assert_eq!(gateway.text(), on_disk);
    }
    // The old configuration goes on, and a write that mends the file is taken.
    gateway
        .manage(SECRET, "GET", &path("/auth/verify"), &NOTHING)
        .expect(200);
    gateway.write(&with_line(HAND, "api_key: up-one ", "api_key: [up] "));
    let one = get(&gateway, "/providers/one");
    gateway
        .admin("PUT", &path("/providers/one"), &one)
        .expect(200);
    assert!(gateway.text().contains("api_key: up-one"));
}

#[test]
fn a_write_that_the_disk_refuses_is_a_500_and_changes_nothing() {
    let gateway = Gateway::with(HAND);
    let before = gateway.text();
    // Root writes wherever the mode forbids it, but nobody writes a file where
    // a folder is: the draft's name is taken.
    let draft = format!(".plexus.yaml.{}.tmp", std::process::id());
    let draft = gateway.path().with_file_name(draft);
    fs::create_dir(&draft).unwrap();
    let body = json!({ "secret": "sk-other" });
    let answer = gateway
        .admin("PUT", &path("/keys/other"), &body)
        .expect(500);
    assert!(answer.text().contains("plexus.yaml"));
    send(&gateway, "PUT", "text/yaml", "# nothing\n").expect(500);
    assert_eq!(gateway.text(), before);
    assert_eq!(get(&gateway, "/keys").get("other"), None);
    gateway
        .manage("sk-other", "GET", &path("/auth/verify"), &NOTHING)
        .expect(401);
    fs::remove_dir(&draft).unwrap();
    gateway
        .admin("PUT", &path("/keys/other"), &body)
        .expect(200);
}

#[test]
fn writes_at_the_same_time_are_all_there() {
    let gateway = Gateway::on_cores(HAND, &[], 2);
    std::thread::scope(|scope| {
        for i in 0..12 {
            let gateway = &gateway;
            scope.spawn(move || {
                let body = json!({ "secret": format!("sk-{i}") });
                gateway
                    .admin("PUT", &path(&format!("/keys/k{i}")), &body)
                    .expect(200);
                let secret = format!("sk-{i}");
                gateway
                    .manage(&secret, "GET", &path("/auth/verify"), &NOTHING)
                    .expect(200);
            });
        }
    });
    assert_eq!(get(&gateway, "/keys").as_object().unwrap().len(), 14);
}

// ---- providers

#[test]
fn a_provider_in_use_is_deleted_with_its_targets_or_not_at_all() {
    let gateway = Gateway::with(HAND);
    let before = gateway.text();
    let answer = gateway
        .admin("DELETE", &path("/providers/two"), &NOTHING)
        .expect(409);
    assert!(answer.text().contains("?cascade=true"));
    assert!(faults(&answer)[0].starts_with("models.short.target_groups.0.targets.1.provider: "));
    assert_eq!(gateway.text(), before);
    let answer = gateway.admin("DELETE", &path("/providers/two?cascade=true"), &NOTHING);
    assert_eq!(
        answer.expect(200).text(),
        r#"{"success":true,"provider":"two"}"#
    );
    let aliases = get(&gateway, "/aliases");
    let targets =
        |alias: &str, group: usize| aliases[alias]["target_groups"][group]["targets"].clone();
    let left = json!([{ "provider": "one", "model": "m1", "enabled": true }]);
    assert_eq!(targets("short", 0), left);
    assert_eq!(targets("long", 0), json!([]));
    assert_eq!(targets("long", 1).as_array().unwrap().len(), 2);
    // What was not concerned is as it was written.
    let text = gateway.text();
    for line in [
        "  short:   # one group\n    selector: in_order\n",
        "# the end\n",
        "expiresAt: 2099-01-01T00:00:00Z   # the end",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    assert!(!text.contains("two"));
    let again = gateway.admin("DELETE", &path("/providers/two"), &NOTHING);
    again.expect(200);
    assert_eq!(gateway.text(), text);
}

#[test]
fn a_misspelt_parameter_of_a_delete_is_refused() {
    let gateway = Gateway::with(HAND);
    for rest in [
        "/providers/two?cascad=true",
        "/providers/two?cascade=yes",
        "/usage?olderThan=3",
        "/usage?olderthandays=3",
        "/errors?olderThanDays=3",
        "/models?slug=short",
        "/keys/app?x=1",
    ] {
        gateway.admin("DELETE", &path(rest), &NOTHING).expect(400);
    }
    assert_eq!(get(&gateway, "/aliases").as_object().unwrap().len(), 3);
}

// ---- aliases

#[test]
fn aliases_are_deleted_by_either_path() {
    let gateway = Gateway::with(HAND);
    let needed = gateway.admin("DELETE", &path("/models/short"), &NOTHING);
    assert!(needed.expect(409).text().contains("still a target"));
    for rest in ["/models/long", "/aliases/short"] {
        let answer = gateway.admin("DELETE", &path(rest), &NOTHING).expect(200);
        assert_eq!(answer.text(), r#"{"success":true}"#);
        gateway.admin("DELETE", &path(rest), &NOTHING).expect(404);
    }
    let body = json!({ "targets": [{ "provider": "one", "model": "m" }] });
    gateway
        .admin("PUT", &path("/aliases/vendor/model:free"), &body)
        .expect(200);
    gateway
        .admin("GET", &path("/aliases/vendor%2Fmodel%3Afree"), &NOTHING)
        .expect(200);
    let answer = gateway
        .admin("DELETE", &path("/models"), &NOTHING)
        .expect(200);
    assert_eq!(answer.text(), r#"{"success":true,"deletedCount":2}"#);
    assert_eq!(get(&gateway, "/aliases"), json!({}));
    let answer = gateway
        .admin("DELETE", &path("/models"), &NOTHING)
        .expect(200);
    assert_eq!(answer.text(), r#"{"success":true,"deletedCount":0}"#);
}

#[test]
fn a_target_added_to_what_was_shown_is_all_that_is_added() {
    let gateway = Gateway::with(HAND);
    let before = gateway.text();
    // As `jq '."long" | .target_groups[0].targets += [...]'` does.
    let mut long = get(&gateway, "/aliases")["long"].clone();
    let targets = long["target_groups"][0]["targets"].as_array_mut().unwrap();
    targets.push(json!({ "provider": "one", "model": "m2" }));
    gateway
        .admin("PUT", &path("/aliases/long"), &long)
        .expect(200);
    let document = plexus::config::document(&gateway.text()).unwrap();
    let mut wanted = plexus::config::document(&before).unwrap();
    wanted["models"]["long"]["target_groups"][0]["targets"]
        .as_array_mut()
        .unwrap()
        .push(json!({ "provider": "one", "model": "m2" }));
    assert_eq!(document, wanted);
}

// ---- keys

#[test]
fn a_key_works_from_the_answer_to_its_making_to_the_answer_to_its_deletion() {
    let gateway = Gateway::with(support::FILE);
    let ask = |secret: &str| {
        let bearer = format!("Bearer {secret}");
        let headers = [
            ("authorization", bearer.as_str()),
            ("content-type", "application/json"),
        ];
        let body = json!({ "model": "by-chat", "messages": [{ "role": "user", "content": "hi" }] });
        gateway
            .request("POST", "/v1/chat/completions", &headers, body.to_string())
            .status
    };
    assert_ne!(ask("sk-one"), 200);
    for (before, after) in [("sk-none", "sk-one"), ("sk-one", "sk-two")] {
        let body = json!({ "secret": after });
        let answer = gateway
            .admin("PUT", &path("/keys/fresh"), &body)
            .expect(200);
        assert_eq!(answer.text(), r#"{"success":true,"name":"fresh"}"#);
        assert_eq!(ask(after), 200);
        assert_ne!(ask(before), 200);
    }
    let answer = gateway
        .admin("DELETE", &path("/keys/fresh"), &NOTHING)
        .expect(200);
    assert_eq!(answer.text(), r#"{"success":true}"#);
    assert_ne!(ask("sk-two"), 200);
    gateway
        .manage("sk-two", "GET", &path("/auth/verify"), &NOTHING)
        .expect(401);
    gateway
        .admin("DELETE", &path("/keys/fresh"), &NOTHING)
        .expect(200);
}

#[test]
fn a_secret_belongs_to_one_key() {
    let file = HAND.replace("sk-guest", "$env:GUEST");
    let gateway = Gateway::with_environment(&file, &[("GUEST", "sk-guest")]);
    for secret in [SECRET, "sk-guest", "$env:GUEST"] {
        let body = json!({ "secret": secret });
        let answer = gateway
            .admin("PUT", &path("/keys/second"), &body)
            .expect(409);
        assert!(!answer.text().contains(secret));
        gateway
            .admin("PATCH", &path("/keys/second"), &body)
            .expect(404);
    }
    let body = json!({ "secret": SECRET });
    gateway
        .admin("PATCH", &path("/keys/guest"), &body)
        .expect(409);
    gateway
        .admin("PATCH", &path("/keys/app"), &body)
        .expect(200);
}

#[test]
fn keys_that_cannot_be_are_refused() {
    let gateway = Gateway::with(HAND);
    for (name, body) in [
        ("all%2A", json!({ "secret": "s" })),
        ("k", json!({})),
        ("k", json!({ "secret": "" })),
        ("k", json!({ "secret": "a:b" })),
        ("k", json!({ "secret": 5 })),
        ("k", json!({ "secret": "s", "quota": null })),
        ("k", json!({ "secret": "s", "quota": "nobody" })),
        ("k", json!({ "secret": "s", "allowedIps": ["300.1.1.1"] })),
        ("k", json!({ "secret": "s", "expiresAt": 5 })),
        ("k", json!({ "secret": "s", "disabledAt": null })),
        ("k", json!({ "secret": "s", "expiresInMinutes": 0 })),
        ("k", json!({ "secret": "s", "expiresInMinutes": -1 })),
        ("k", json!({ "secret": "s", "expiresInMinutes": "soon" })),
        ("k", json!({ "secret": "s", "expiresInMinutes": 1e300 })),
        ("k", json!({ "secret": "s", "name": "other" })),
        ("app", json!({ "secret": "s", "expiresInMinutes": 5 })),
        ("app", json!({ "secret": "s", "expiresAt": 5 })),
        ("guest", json!({ "secret": "s", "expiresAt": null })),
    ] {
        let answer = gateway.admin("PUT", &path(&format!("/keys/{name}")), &body);
        assert_eq!(answer.status, 400, "{name} {body}");
    }
    for body in [
        json!({ "expiresInMinutes": 5 }),
        json!({ "expiresAt": null }),
        json!({ "disabledAt": 7 }),
        json!({ "secret": null }),
    ] {
        gateway
            .admin("PATCH", &path("/keys/guest"), &body)
            .expect(400);
    }
    assert_eq!(get(&gateway, "/keys").as_object().unwrap().len(), 2);
}

#[test]
fn a_time_to_live_becomes_the_end_and_outlives_a_replacement() {
    let gateway = Gateway::with(HAND);
    let before = now_ms();
    let body = json!({ "secret": "sk-brief", "expiresInMinutes": 90 });
    gateway
        .admin("PUT", &path("/keys/brief"), &body)
        .expect(200);
    let expires = get(&gateway, "/keys/brief")["expiresAt"].as_i64().unwrap();
    let span = before + 90 * 60_000..=now_ms() + 90 * 60_000;
    assert!(span.contains(&expires));
    assert!(!gateway.text().contains("expiresInMinutes"));
    // Who doesn't know of it must not take it away.
    let body = json!({ "secret": "sk-brief", "comment": "new" });
    gateway
        .admin("PUT", &path("/keys/brief"), &body)
        .expect(200);
    assert_eq!(get(&gateway, "/keys/brief")["expiresAt"], expires);
    let body = json!({ "secret": "sk-guest" });
    gateway
        .admin("PUT", &path("/keys/guest"), &body)
        .expect(200);
    assert!(
        gateway
            .text()
            .contains("expiresAt: 2099-01-01T00:00:00Z   # the end")
    );
}

#[test]
fn only_time_bound_keys_are_disabled_and_at_once() {
    let gateway = Gateway::with(HAND);
    gateway
        .manage("sk-guest", "GET", &path("/auth/verify"), &NOTHING)
        .expect(200);
    let answer = gateway
        .admin("POST", &path("/keys/guest/disable"), &NOTHING)
        .expect(200);
    assert_eq!(answer.text(), r#"{"success":true,"name":"guest"}"#);
    gateway
        .manage("sk-guest", "GET", &path("/auth/verify"), &NOTHING)
        .expect(401);
    let disabled = get(&gateway, "/keys/guest")["disabledAt"].as_i64().unwrap();
    assert!((now_ms() - disabled).abs() < 60_000);
    gateway
        .admin("POST", &path("/keys/guest/disable"), &NOTHING)
        .expect(200);
    assert_eq!(get(&gateway, "/keys/guest")["disabledAt"], disabled);
    let answer = gateway
        .admin("POST", &path("/keys/app/disable"), &NOTHING)
        .expect(400);
    assert_eq!(
        answer.json(),
        json!({ "error": "Only time-bound keys can be disabled" })
    );
    gateway
        .admin("POST", &path("/keys/nobody/disable"), &NOTHING)
        .expect(404);
}

// ---- the whole configuration

fn send(gateway: &Gateway, method: &str, kind: &str, body: &str) -> Response {
    let headers = [("x-admin-key", ADMIN), ("content-type", kind)];
    gateway.request(method, &path("/config"), &headers, body)
}

fn as_json(gateway: &Gateway) -> Value {
    let headers = [("x-admin-key", ADMIN), ("accept", "application/json")];
    gateway
        .request("GET", &path("/config"), &headers, "")
        .expect(200)
        .json()
}

#[test]
fn the_configuration_is_the_file_byte_for_byte() {
    let gateway = Gateway::with(HAND);
    for accept in ["*/*", "application/x-yaml, application/json", "text/html"] {
        let headers = [("x-admin-key", ADMIN), ("accept", accept)];
        let answer = gateway
            .request("GET", &path("/config"), &headers, "")
            .expect(200);
        assert_eq!(answer.header("content-type"), Some("application/x-yaml"));
        assert_eq!(answer.text(), gateway.text());
    }
}

#[test]
fn the_whole_file_is_replaced_and_in_force() {
    let gateway = Gateway::with(HAND);
    for (method, kind, name) in [
        ("POST", "application/x-yaml", "a"),
        ("PUT", "text/yaml; charset=utf-8", "b"),
        ("POST", "text/plain", "c"),
    ] {
        let text = format!("# {name}\nkeys:\n  {name}: {{ secret: sk-{name} }}   # only\n");
        let answer = send(&gateway, method, kind, &text).expect(200);
        assert_eq!(answer.header("content-type"), Some("application/x-yaml"));
        assert_eq!(answer.text(), text);
        assert_eq!(gateway.text(), text);
        let secret = format!("sk-{name}");
        gateway
            .manage(&secret, "GET", &path("/auth/verify"), &NOTHING)
            .expect(200);
        gateway
            .manage(SECRET, "GET", &path("/auth/verify"), &NOTHING)
            .expect(401);
    }
}

#[test]
fn a_configuration_that_is_not_valid_is_refused_with_all_its_faults() {
    let gateway = Gateway::with(HAND);
    let before = gateway.text();
    let text =
        "keys:\n  k: { secert: x }\nmodels:\n  a: { targets: [{ provider: p, model: m }] }\n";
    let answer = send(&gateway, "PUT", "text/yaml", text).expect(400);
    let found = faults(&answer);
    assert_eq!(found.len(), 3, "{found:?}");
    let places: Vec<(u64, u64)> = answer.json()["details"]
        .as_array()
        .unwrap()
        .iter()
        .map(|d| (d["line"].as_u64().unwrap(), d["column"].as_u64().unwrap()))
        .collect();
    assert_eq!(places, [(2, 3), (2, 8), (4, 30)]);
    // JSON's places are those in the body that was sent.
    let body = "{\"keys\": {},\n \"models\": {\"a\": {\"targets\": [\n  {\"provider\": \"p\", \"model\": \"m\"}]}}}";
    let answer = send(&gateway, "PUT", "application/json", body).expect(400);
    assert_eq!(answer.json()["details"][0]["line"], 3);
    let answer = send(&gateway, "PUT", "application/json", "{\"keys\":\n }").expect(400);
    assert_eq!(answer.json()["details"][0]["line"], 2);
    for (kind, body, status) in [
        ("application/x-yaml", "", 400),
        ("application/json", " ", 400),
        ("application/json", "[]", 400),
        ("application/x-yaml", "[1, 2]", 400),
        ("application/xml", "<a/>", 415),
        ("application/x-www-form-urlencoded", "keys: {}", 415),
    ] {
        assert_eq!(
            send(&gateway, "POST", kind, body).status,
            status,
            "{kind} {body}"
        );
    }
    let headers = [("x-admin-key", ADMIN), ("content-type", "text/yaml")];
    let answer = gateway.request("PUT", &path("/config"), &headers, b"a: \xff");
    answer.expect(400);
    assert_eq!(gateway.text(), before);
}

#[test]
fn the_running_configuration_put_back_leaves_every_byte() {
    for file in [EXAMPLE, OLDER, HAND, "# nothing yet\n"] {
        let gateway = Gateway::with(file);
        let before = gateway.text();
        let running = as_json(&gateway);
        let answer = send(&gateway, "PUT", "application/json", &running.to_string()).expect(200);
        assert_eq!(answer.json(), running);
        assert_eq!(gateway.text(), before);
    }
}

#[test]
fn a_change_to_the_running_configuration_is_all_that_is_written() {
    let gateway = Gateway::with(HAND);
    let before = gateway.text();
    let mut running = as_json(&gateway);
    running["cooldown"]["maxMinutes"] = json!(60);
    running["mcpServers"] = json!({ "web": { "upstream_url": "https://mcp.example/mcp" } });
    let answer = send(&gateway, "POST", "application/json", &running.to_string()).expect(200);
    let shown = answer.json();
    assert_eq!(
        shown["cooldown"],
        json!({ "initialMinutes": 2, "maxMinutes": 60 })
    );
    assert_eq!(shown["mcp_servers"], shown["mcpServers"]);
    let text = gateway.text();
    let (first, end) = before.split_at(before.find("# the end").unwrap());
    assert!(text.starts_with(first) && text.contains(end), "{text}");
    let document = plexus::config::document(&text).unwrap();
    let sections: Vec<&String> = document.as_object().unwrap().keys().collect();
    assert_eq!(sections.len(), 6, "{sections:?}");
}

#[test]
fn the_running_configuration_has_the_settings_in_force() {
    let running = as_json(&Gateway::with("keys: {}\n"));
    let example = plexus::config::document(EXAMPLE).unwrap();
    for section in [
        "cooldown",
        "timeout",
        "stall",
        "backgroundExploration",
        "performanceExplorationRate",
        "latencyExplorationRate",
        "e2ePerformanceExplorationRate",
        "mcpOAuth",
    ] {
        assert_eq!(running[section], example[section], "{section}");
    }
    assert_eq!(
        running["failover"]["retryableErrors"],
        example["failover"]["retryableErrors"]
    );
    let codes = running["failover"]["retryableStatusCodes"]
        .as_array()
        .unwrap();
    for (code, moves_on) in [
        (200, false),
        (400, false),
        (413, false),
        (422, false),
        (404, true),
        (503, true),
    ] {
        assert_eq!(codes.contains(&json!(code)), moves_on, "{code}");
    }
    for section in [
        "providers",
        "models",
        "keys",
        "user_quotas",
        "mcp_servers",
        "mcpServers",
    ] {
        assert_eq!(running[section], json!({}), "{section}");
    }
    let running = as_json(&Gateway::with(EXAMPLE));
    let checker = json!({
        "id": "example-balance", "provider": "example", "type": "openrouter", "enabled": true,
        "intervalMinutes": 30, "options": { "maxUtilizationPercent": 95 },
    });
    assert_eq!(running["quotas"], json!([checker]));
}

#[test]
fn the_export_is_the_file_without_the_key_to_the_gateway() {
    let gateway = Gateway::with(EXAMPLE);
    let export = get(&gateway, "/config/export");
    let document = plexus::config::document(EXAMPLE).unwrap();
    for section in ["providers", "models", "keys", "user_quotas", "mcp_servers"] {
        assert_eq!(export[section], document[section], "{section}");
    }
    assert_eq!(export["mcp_keys"], json!([]));
    assert_eq!(export["oauth_providers"], json!([]));
    let settings = &export["settings"];
    assert_eq!(settings["failover.enabled"], true);
    assert_eq!(settings["stall.ttfbBytes"], 100);
    assert_eq!(settings["trustedProxies"], json!([]));
    assert_eq!(settings["default_quotas"], json!(["hourly-tokens"]));
    assert_eq!(settings.get("adminKey"), None);
    assert!(
        !export
            .to_string()
            .contains("change-me-to-a-long-random-secret")
    );
}

#[test]
fn the_status_counts_and_tells_what_the_file_has_that_is_refused() {
    let gateway = Gateway::with(HAND);
    let status = get(&gateway, "/config/status");
    for (field, count) in [
        ("providerCount", 2),
        ("modelAliasCount", 3),
        ("keyCount", 2),
        ("quotaCount", 1),
        ("mcpServerCount", 0),
        ("revision", 1),
    ] {
        assert_eq!(status[field], count, "{field}");
    }
    assert_eq!(status["lastRefused"], json!([]));
    assert_eq!(status["path"], gateway.path().display().to_string());
    assert!(status["loadedAt"].as_str().unwrap().ends_with('Z'));
    gateway.write("keys: 5\n");
    assert!(gateway.app.live.reload().is_err());
    let status = get(&gateway, "/config/status");
    assert_eq!(status["lastRefused"][0]["path"], json!(["keys"]));
    assert_eq!(status["revision"], 1);
}

// ---- usage, errors, metrics

/// 2026-01-31T12:00:00Z.
const NOON: i64 = 1_769_860_800_000;

fn row(number: u128, start_ms: i64, key: &str) -> UsageRow {
    UsageRow {
        request_id: Uuid::from_u128(number),
        client_request_id: None,
        start_ms,
        source_ip: None,
        key: Some(key.into()),
        attribution: None,
        incoming: Protocol::Chat,
        lite: false,
        outgoing: Some(Protocol::Messages),
        provider: Some("claude".into()),
        selected_model: Some("sonnet".into()),
        incoming_alias: Some("fast".into()),
        canonical: Some("fast".into()),
        attempts: 1,
        retry_history: None,
        all_attempted: None,
        tokens: Tokens::default(),
        tokens_estimated: false,
        bill: None,
        duration_ms: 100.0 * number as f64,
        ttft_ms: None,
        streamed: false,
        passthrough: false,
        status: Status::Success,
        has_error: false,
        tool_calls: None,
        finish_reason: None,
        notes: None,
        http_status: 200,
    }
}

/// Ten requests, an hour apart from noon on: odd ones of `app`, even ones of
/// `guest`; the last failed, over another provider, with an attribution.
fn with_rows() -> Gateway {
    let gateway = Gateway::with(HAND);
    for number in 1..=10 {
        let key = if number % 2 == 1 { "app" } else { "guest" };
        let start = NOON + (i64::try_from(number).unwrap() - 1) * 3_600_000;
        let mut row = row(number, start, key);
        if number == 10 {
            row.status = Status::Error;
            row.provider = Some("gpt".into());
            row.attribution = Some("copilot".into());
        }
        gateway.app.store.writer().usage(Box::new(row));
        gateway.app.store.writer().error(Box::new(ErrorRow {
            request_id: Uuid::from_u128(number),
            date_ms: start,
            key: Some(key.into()),
            message: format!("failure {number}"),
            details: "{}".to_owned(),
        }));
    }
    gateway.app.store.flush(PATIENCE).unwrap();
    gateway
}

/// The numbers of the requests that a query finds, in order.
fn numbers(answer: &Value) -> Vec<u128> {
    let data = answer["data"].as_array().unwrap().iter();
    data.map(|record| {
        let id: Uuid = record["requestId"].as_str().unwrap().parse().unwrap();
        id.as_u128()
    })
    .collect()
}

#[test]
fn usage_is_filtered_sorted_and_paged() {
    let gateway = with_rows();
    let all = get(&gateway, "/usage");
    assert_eq!(numbers(&all), (1..=10).rev().collect::<Vec<_>>());
    assert_eq!(
        (&all["total"], &all["limit"], &all["offset"]),
        (&json!(10), &json!(50), &json!(0))
    );
    for (query, wanted) in [
        ("limit=2&offset=3", vec![7, 6]),
        ("limit=0", vec![]),
        ("sortDir=asc&limit=3", vec![1, 2, 3]),
        ("sortBy=durationMs&sortDir=asc&limit=2", vec![1, 2]),
        ("sortBy=nonsense&limit=1", vec![10]),
        ("apiKey=GUE&limit=2", vec![10, 8]),
        ("provider=gpt", vec![10]),
        ("responseStatus=error", vec![10]),
        ("responseStatus=nonsense", vec![]),
        ("incomingApiType=nonsense", vec![]),
        ("outgoingApiType=messages&limit=1", vec![10]),
        (
            "incomingModelAlias=fas&selectedModelName=net&limit=1",
            vec![10],
        ),
        ("attribution=copilot", vec![10]),
        ("requestId=00000000-0000-0000-0000-000000000004", vec![4]),
        ("clientRequestId=x", vec![]),
        ("minDurationMs=300&maxDurationMs=500", vec![5, 4, 3]),
        ("startDate=2026-01-31T20:00:00Z", vec![10, 9]),
        (
            "startDate=2026-01-31T21:00:00%2B01:00&endDate=2026-01-31T21:30:00+01:00",
            vec![9],
        ),
        ("endDate=2026-01-31T13:00:00.000Z", vec![2, 1]),
        ("startDate=2026-01-31&endDate=2026-01-31&limit=1", vec![10]),
        ("limit=&offset=&apiKey=&limit=1", vec![10]),
    ] {
        let found = get(&gateway, &format!("/usage?{query}"));
        assert_eq!(numbers(&found), wanted, "{query}");
    }
}

#[test]
fn usage_fields_are_chosen() {
    let gateway = with_rows();
    let found = get(
        &gateway,
        "/usage?limit=1&fields=provider,%20requestId,nonsense",
    );
    assert_eq!(
        found["data"][0].to_string(),
        r#"{"requestId":"00000000-0000-0000-0000-00000000000a","provider":"gpt"}"#
    );
    let whole = get(&gateway, "/usage?limit=1&fields=nonsense");
    assert!(whole["data"][0].as_object().unwrap().len() > 40);
}

#[test]
fn numbers_and_dates_that_are_none_are_refused_with_what_was_found() {
    let gateway = with_rows();
    for query in [
        "limit=abc",
        "limit=-1",
        "limit=1.5",
        "limit=10001",
        "limit=99999999999999999999",
        "limit=%zz",
        "offset=x",
        "startDate=yesterday",
        "endDate=2026-02-30",
        "minDurationMs=fast",
        "maxDurationMs=inf",
    ] {
        let answer = gateway.admin("GET", &path(&format!("/usage?{query}")), &NOTHING);
        let error = answer.expect(400).json()["error"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(
            error.starts_with(query.split('=').next().unwrap()),
            "{error}"
        );
    }
    let answer = gateway.admin("GET", &path("/errors?limit=abc"), &NOTHING);
    let error = answer.expect(400).json();
    assert!(error["error"].as_str().unwrap().contains("found \"abc\""));
}

#[test]
fn a_limited_caller_sees_its_own_rows_whatever_it_asks_for() {
    let gateway = with_rows();
    for rest in [
        "/usage",
        "/usage?apiKey=guest",
        "/usage?only_key=guest",
        "/errors",
        "/errors?apiKey=guest",
    ] {
        let found = gateway
            .manage(SECRET, "GET", &path(rest), &NOTHING)
            .expect(200)
            .json();
        assert_eq!(numbers(&found), [9, 7, 5, 3, 1], "{rest}");
        assert_eq!(found["total"], 5, "{rest}");
    }
    let found = gateway.manage(
        SECRET,
        "GET",
        &path("/usage?requestId=00000000-0000-0000-0000-000000000002"),
        &NOTHING,
    );
    assert_eq!(found.expect(200).json()["total"], 0);
}

#[test]
fn usage_is_deleted_by_age_by_request_or_whole() {
    let gateway = with_rows();
    for wrong in ["abc", "", "-1", "1.5", "%zz", "1e3"] {
        let rest = format!("/usage?olderThanDays={wrong}");
        gateway.admin("DELETE", &path(&rest), &NOTHING).expect(400);
    }
    let total = || get(&gateway, "/usage")["total"].clone();
    gateway
        .admin("DELETE", &path("/usage?olderThanDays=36500"), &NOTHING)
        .expect(200);
    gateway
        .admin(
            "DELETE",
            &path("/usage?olderThanDays=18446744073709551615"),
            &NOTHING,
        )
        .expect(200);
    assert_eq!(total(), 10, "nothing is that old");
    let one = path("/usage/00000000-0000-0000-0000-000000000004");
    for _ in 0..2 {
        let answer = gateway.admin("DELETE", &one, &NOTHING).expect(200);
        assert_eq!(answer.text(), r#"{"success":true}"#);
        assert_eq!(total(), 9);
    }
    gateway
        .admin("DELETE", &path("/usage/no-id"), &NOTHING)
        .expect(200);
    gateway
        .app
        .store
        .writer()
        .usage(Box::new(row(11, now_ms(), "app")));
    gateway.app.store.flush(PATIENCE).unwrap();
    // The others are of January 2026; the clock may stand before that.
    let age = (now_ms() - NOON) / 86_400_000;
    if age > 1 {
        gateway
            .admin("DELETE", &path("/usage?olderThanDays=1"), &NOTHING)
            .expect(200);
        assert_eq!(numbers(&get(&gateway, "/usage")), [11]);
    }
    gateway
        .admin("DELETE", &path("/usage"), &NOTHING)
        .expect(200);
    assert_eq!(total(), 0);
}

#[test]
fn errors_are_listed_newest_first_and_deleted_by_their_owner() {
    let gateway = with_rows();
    let found = get(&gateway, "/errors?limit=2&offset=1");
    assert_eq!(numbers(&found), [9, 8]);
    assert_eq!(
        (&found["total"], &found["limit"], &found["offset"]),
        (&json!(10), &json!(2), &json!(1))
    );
    let first = &found["data"][0];
    assert_eq!(first["errorMessage"], "failure 9");
    assert_eq!(
        (&first["apiKey"], &first["details"]),
        (&json!("app"), &json!("{}"))
    );
    let of = |number: u32| path(&format!("/errors/00000000-0000-0000-0000-{number:012}"));
    let own = gateway
        .manage(SECRET, "DELETE", &of(9), &NOTHING)
        .expect(200);
    assert_eq!(own.text(), r#"{"success":true}"#);
    for foreign in [of(9), of(8), path("/errors/no-id")] {
        let answer = gateway
            .manage(SECRET, "DELETE", &foreign, &NOTHING)
            .expect(404);
        assert_eq!(answer.json(), json!({ "error": "Error not found" }));
        gateway.admin("GET", &path("/errors"), &NOTHING).expect(200);
    }
    assert_eq!(get(&gateway, "/errors")["total"], 9);
    for _ in 0..2 {
        gateway.admin("DELETE", &of(8), &NOTHING).expect(200);
    }
    assert_eq!(get(&gateway, "/errors")["total"], 8);
    gateway
        .admin("DELETE", &path("/errors"), &NOTHING)
        .expect(200);
    assert_eq!(get(&gateway, "/errors")["total"], 0);
}

#[test]
fn metrics_are_the_text_exposition() {
    let gateway = Gateway::start();
    gateway.request("GET", &path("/keys"), &[], "").expect(401);
    let answer = gateway
        .admin("GET", &path("/metrics"), &NOTHING)
        .expect(200);
    assert_eq!(
        answer.header("content-type"),
        Some("text/plain; version=0.0.4; charset=utf-8")
    );
    let page = answer.text();
    assert!(
        page.contains("# TYPE plexus_requests_total counter\n"),
        "{page}"
    );
    let unauthorized = page
        .lines()
        .find(|line| line.starts_with("plexus_unauthorized"));
    assert!(
        unauthorized.is_some_and(|line| line.ends_with(" 1")),
        "{unauthorized:?}"
    );
}

#[test]
fn nothing_of_a_secret_gets_into_the_log() {
    let gateway = Gateway::with(HAND);
    let body = json!({ "secret": "sk-never-logged", "oops": "sk-never-logged" });
    gateway.admin("PUT", &path("/keys/k"), &body).expect(400);
    gateway
        .manage("sk-never-logged-guess", "GET", &path("/keys"), &NOTHING)
        .expect(401);
    let body = json!({ "secret": "sk-never-logged" });
    gateway.admin("PUT", &path("/keys/k"), &body).expect(200);
    send(
        &gateway,
        "PUT",
        "text/yaml",
        "keys: { k: { secret: [sk-never-logged] } }\n",
    )
    .expect(400);
    let telemetry = support::telemetry();
    assert!(telemetry.flush(PATIENCE));
    for line in telemetry.lines_after(0) {
        assert!(!format!("{line:?}").contains("sk-never-logged"), "{line:?}");
    }
}
