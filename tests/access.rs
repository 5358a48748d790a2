//! Who gets in where: read off the table of endpoints, every path with every
//! kind of credential, and with everything that has been used to get around a
//! gate. And that what comes from outside stays inside of what it is put into.

#![expect(
    clippy::unwrap_used,
    reason = "in helpers of tests a failure is the test's failure"
)]

mod support;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::io::{Read, Write};

use plexus::routes::{Access, ROUTES, Route};
use serde_json::{Value, json};

use support::{ADMIN, Gateway, PATIENCE, SECRET};

/// The tests' own address is a proxy's, so that each request can come from
/// another client.
const FILE: &str = "\
server: { trustedProxies: [127.0.0.1] }
catalogue: { enabled: false, huggingface: null }
providers:
  one: { api_base_url: 'http://SIMULATOR/v1', api_key: sk-up-one }
models:
  short: { targets: [{ provider: one, model: m }] }
keys:
  app: { secret: sk-plexus-tests }
";

/// What no answer to a stranger may hold.
const TREASURE: [&str; 3] = ["sk-up-one", "sk-plexus-tests", ADMIN];

/// A path of the table with its parameters filled in.
fn filled(route: &Route) -> String {
    route
        .pattern
        .replace("{model..}", "short:generateContent")
        .replace("{slug..}", "one")
        .replace("{id}", "0191d7a0-0000-7000-8000-000000000000")
}

/// Every other parameter is filled with a name, too.
fn path(route: &Route) -> String {
    let filled = filled(route);
    let parts = filled.split('/').map(|part| match part.strip_prefix('{') {
        Some(_) => "one",
        None => part,
    });
    parts.collect::<Vec<_>>().join("/")
}

/// Clients from everywhere.
#[derive(Default)]
struct World(Cell<u32>);

impl World {
    /// An address that nobody has used.
    fn somewhere(&self) -> String {
        self.0.set(self.0.get() + 1);
        let [_, b, c, d] = self.0.get().to_be_bytes();
        format!("10.{b}.{c}.{d}")
    }

    /// The status and what is read of the body at once; some answers never end.
    fn ask(
        &self,
        gateway: &Gateway,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> (u16, String) {
        let from = self.somewhere();
        let fields = [
            ("x-forwarded-for", from.as_str()),
            ("content-type", "application/json"),
        ];
        let headers: Vec<_> = headers.iter().copied().chain(fields).collect();
        let stream = gateway.stream(method, path, &headers, "{}");
        let status = stream.status;
        // A body that ends is looked at whole.
        let whole = status >= 400 || stream.header("content-length").is_some();
        let body = if whole {
            stream.finish().body
        } else {
            Vec::new()
        };
        (status, String::from_utf8_lossy(&body).into_owned())
    }
}

/// What replaces the process or is felt by other tests is asked by strangers
/// only.
fn is_drastic(route: &Route) -> bool {
    route.pattern.ends_with("/restart") || route.pattern.ends_with("/restore")
}

#[test]
fn nothing_below_v0_is_public() {
    let below = ROUTES
        .iter()
        .filter(|route| route.pattern.starts_with("/v0/"));
    let mut walked = 0;
    for route in below {
        let guarded = matches!(route.access, Access::Admin | Access::Principal);
        assert!(guarded, "{route:?}");
        walked += 1;
    }
    assert!(walked > 60);
}

#[test]
fn every_path_opens_to_whom_the_table_says_and_to_nobody_else() {
    let gateway = Gateway::with(FILE);
    let world = World::default();
    let bearer = |key: &str| format!("Bearer {key}");
    let (admin_bearer, key_bearer) = (bearer(ADMIN), bearer(SECRET));
    let almost = &ADMIN[..ADMIN.len() - 1];
    let attributed = format!("{SECRET}:label");
    let strangers: [&[(&str, &str)]; 9] = [
        &[],
        &[("x-admin-key", "wrong")],
        &[("x-admin-key", "")],
        &[("x-admin-key", almost)],
        &[("x-admin-key", &attributed)],
        &[("authorization", &admin_bearer)],
        &[("authorization", "Bearer wrong")],
        &[("x-api-key", ADMIN)],
        &[("cookie", "x-admin-key=admin-key-of-the-tests")],
    ];
    for route in ROUTES {
        let (method, path) = (route.method.as_str(), path(route));
        let ask = |headers: &[(&str, &str)]| world.ask(&gateway, method, &path, headers);
        let about = format!("{method} {path}");
        for headers in strangers {
            let (status, body) = ask(headers);
            match route.access {
                Access::Public => assert!(!matches!(status, 401 | 403), "{about}"),
                _ => assert_eq!(status, 401, "{about} {headers:?}: {body}"),
            }
            assert!(
                !TREASURE.iter().any(|secret| body.contains(secret)),
                "{about}: {body}"
            );
        }
        match route.access {
            Access::Public => {}
            Access::Inference => {
                assert_eq!(ask(&[("x-admin-key", ADMIN)]).0, 401, "{about}");
                let (status, body) = ask(&[("authorization", &key_bearer)]);
                assert!(!matches!(status, 401 | 403), "{about}: {body}");
            }
            Access::Admin => {
                assert_eq!(ask(&[("x-admin-key", SECRET)]).0, 403, "{about}");
                assert_eq!(ask(&[("authorization", &key_bearer)]).0, 401, "{about}");
            }
            // The key that the rest is asked with would be another.
            Access::Principal if path.ends_with("/self/rotate") => {}
            Access::Principal => {
                let (status, body) = ask(&[("x-admin-key", SECRET)]);
                assert_ne!(status, 401, "{about}: {body}");
                assert!(!body.contains("sk-up-one"), "{about}: {body}");
            }
        }
        let reads = method == "GET" && !is_drastic(route);
        if reads && matches!(route.access, Access::Admin | Access::Principal) {
            let (status, body) = ask(&[("x-admin-key", ADMIN)]);
            assert!(
                !matches!(status, 401 | 403 | 405 | 500),
                "{about}: {status} {body}"
            );
        }
    }
}

/// Other writings of a path, none of which is the path.
fn writings(path: &str) -> Vec<String> {
    let rest = &path[1..];
    let last = path.rfind('/').unwrap();
    let (folder, name) = path.split_at(last);
    let first = name.as_bytes().get(1).copied().unwrap_or(b'x');
    vec![
        format!("/{path}"),
        path.replace('/', "//"),
        format!("{folder}/{name}"),
        format!("{path}/"),
        format!("/./{rest}"),
        format!("/%2e/{rest}"),
        format!("/health/../{rest}"),
        format!("/health/%2e%2e/{rest}"),
        format!("/health/..%2f{rest}"),
        format!("/ui/..%5c{rest}"),
        format!("{folder}/.{name}"),
        format!("{folder}/%2e%2e{folder}{name}"),
        format!("{folder}%2f{}", &name[1..]),
        format!("{folder}\\{}", &name[1..]),
        format!("{folder}/%{first:02x}{}", name.get(2..).unwrap_or_default()),
        format!("{path};x=1"),
        format!("{path}%00"),
        format!("{path}%20"),
        format!("{path}%0d%0ax-admin-key:%20any"),
        path.to_uppercase(),
    ]
}

#[test]
fn no_other_writing_of_a_path_gets_around_the_gate() {
    let gateway = Gateway::with(FILE);
    let world = World::default();
    let public: BTreeSet<String> = ROUTES
        .iter()
        .filter(|route| route.access == Access::Public)
        .map(path)
        .collect();
    for route in ROUTES.iter().filter(|route| route.access != Access::Public) {
        for path in writings(&path(route)) {
            let (status, body) = world.ask(&gateway, route.method.as_str(), &path, &[]);
            assert!(
                !TREASURE.iter().any(|secret| body.contains(secret)),
                "{path}: {body}"
            );
            // Names of models are taken as they are, and there are none such.
            let names_model =
                path.starts_with("/v1/models/") || path.starts_with("/v1beta/models/");
            let shut = matches!(status, 400 | 401 | 404 | 405 | 429);
            assert!(
                shut || names_model || public.contains(&path),
                "{path}: {status} {body}"
            );
        }
    }
}

#[test]
fn a_method_is_the_request_line_s_and_others_are_told_what_there_is() {
    let gateway = Gateway::with(FILE);
    let before = gateway.text();
    let world = World::default();
    let overrides = [
        "x-http-method-override",
        "x-method-override",
        "x-http-method",
        "_method",
    ];
    let paths: BTreeSet<String> = ROUTES.iter().map(path).collect();
    for path in &paths {
        let here = |route: &&Route| self::path(route) == *path;
        let known: Vec<&str> = ROUTES
            .iter()
            .filter(here)
            .map(|route| route.method.as_str())
            .collect();
        for method in [
            "GET", "POST", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND", "get",
        ] {
            if known.contains(&method) {
                continue;
            }
            let (status, body) = world.ask(&gateway, method, path, &[("x-admin-key", ADMIN)]);
            // Another pattern may take it, and what isn't there can be deleted.
            let gone = (method, status) == ("DELETE", 200);
            assert!(
                gone || matches!(status, 400 | 401 | 404 | 405),
                "{method} {path}: {status} {body}"
            );
        }
        if known.contains(&"GET") && path.starts_with("/v0/") && !known.contains(&"TRACE") {
            for name in overrides {
                let headers = [("x-admin-key", ADMIN), (name, "DELETE")];
                let (status, _) =
                    world.ask(&gateway, "GET", &format!("{path}?_method=DELETE"), &headers);
                // What comes from outside is not to be had.
                assert!(status < 500 || status == 503, "{path}: {status}");
            }
        }
    }
    assert_eq!(gateway.text(), before);
}

#[test]
fn no_host_and_no_forwarding_header_opens_anything() {
    let gateway = Gateway::with(FILE);
    let world = World::default();
    for route in ROUTES.iter().filter(|route| route.access != Access::Public) {
        let path = path(route);
        for header in [
            ("host", "localhost"),
            ("host", "127.0.0.1:4000"),
            ("host", "plexus@evil.example"),
            ("host", "health"),
            ("x-original-url", "/health"),
            ("x-rewrite-url", "/health"),
            ("x-forwarded-host", "localhost"),
            ("x-forwarded-proto", "https"),
            ("x-real-ip", "127.0.0.1"),
            ("forwarded", "for=127.0.0.1"),
            ("upgrade", "h2c"),
        ] {
            let (status, body) = world.ask(&gateway, route.method.as_str(), &path, &[header]);
            assert!(
                matches!(status, 400 | 401),
                "{path} {header:?}: {status} {body}"
            );
        }
    }
}

#[test]
fn who_guesses_has_to_wait_and_nobody_else() {
    let gateway = Gateway::with(FILE);
    let ask = |from: &str, key: &str| {
        let headers = [("x-forwarded-for", from), ("x-admin-key", key)];
        gateway.request("GET", "/v0/management/auth/verify", &headers, "")
    };
    // Without a credential there is nothing to guess with.
    for _ in 0..30 {
        let headers = [("x-forwarded-for", "10.0.0.1")];
        gateway
            .request("GET", "/v0/management/keys", &headers, "")
            .expect(401);
    }
    for i in 0..20 {
        ask("10.0.0.1", &format!("guess-{i}")).expect(401);
    }
    // Slow as it may be here, it is faster than one guess in three seconds.
    let mut more = (0..1_000).map(|_| ask("10.0.0.1", "guess"));
    more.find(|answer| answer.status == 429).unwrap();
    let refused = ask("10.0.0.1", ADMIN).expect(429);
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=3).contains(&wait));
    assert_eq!(refused.json()["error"]["type"], "auth_error");
    ask("10.0.0.2", ADMIN).expect(200);
    // Who may is not counted.
    for _ in 0..50 {
        ask("10.0.0.3", SECRET).expect(200);
        let headers = [("x-forwarded-for", "10.0.0.3"), ("x-admin-key", SECRET)];
        gateway
            .request("GET", "/v0/management/keys", &headers, "")
            .expect(403);
    }
    // Inference is another gate.
    let headers = [
        ("x-forwarded-for", "10.0.0.1"),
        ("authorization", "Bearer sk-plexus-tests"),
        ("content-type", "application/json"),
    ];
    let body = json!({ "model": "short", "messages": [{ "role": "user", "content": "hi" }] });
    gateway
        .request("POST", "/v1/chat/completions", &headers, body.to_string())
        .expect(200);
}

#[test]
fn a_body_that_is_too_large_is_refused_before_it_is_read() {
    let gateway = Gateway::with(FILE);
    for (method, path) in [
        ("PUT", "/v0/management/config"),
        ("PUT", "/v0/management/keys/k"),
        ("PATCH", "/v0/management/config/cooldown"),
        ("PATCH", "/v0/management/system-settings"),
        ("POST", "/v0/management/providers/fetch-models"),
        ("POST", "/v0/management/test"),
    ] {
        let mut stream = gateway.client().connect();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nx-admin-key: {ADMIN}\r\ncontent-type: application/json\r\ncontent-length: 99999999\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = [0; 512];
        let read = stream.read(&mut answer).unwrap();
        let answer = String::from_utf8_lossy(&answer[..read]);
        assert!(answer.starts_with("HTTP/1.1 413"), "{path}: {answer}");
    }
}

#[test]
fn what_comes_from_outside_makes_no_header_and_no_line_of_its_own() {
    let gateway = Gateway::with(FILE);
    let odd = "evil\r\nx-evil: 1\u{1b}[31m\u{2028}";
    let encoded: String = odd.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let provider = json!({ "api_base_url": gateway.app.live.load().document["providers"]["one"]["api_base_url"], "api_key": "k" });
    let management = format!("/v0/management/providers/{encoded}");
    gateway.admin("PUT", &management, &provider).expect(200);
    let alias = json!({ "targets": [{ "provider": odd, "model": odd }] });
    let management = format!("/v0/management/aliases/{encoded}");
    gateway.admin("PUT", &management, &alias).expect(200);
    let shown = gateway.admin("GET", &management, &Value::Null).expect(200);
    assert_eq!(shown.json()["slug"], odd);
    let answer = gateway.ask(
        "/v1/chat/completions",
        &json!({ "model": odd, "messages": [{ "role": "user", "content": "hi" }] }),
    );
    assert_eq!(
        answer.status,
        200,
        "{}",
        String::from_utf8_lossy(&answer.body)
    );
    assert_eq!(answer.header("x-evil"), None);
    let missing = gateway.admin(
        "GET",
        &format!("/v0/management/keys/{encoded}"),
        &Value::Null,
    );
    assert_eq!(missing.expect(404).header("x-evil"), None);
    for field in [
        "x-client-request-id",
        "user-agent",
        "origin",
        "if-none-match",
    ] {
        let headers = [("x-admin-key", ADMIN), (field, "a\tb\u{e9}")];
        let answer = gateway
            .request("GET", "/v0/management/keys", &headers, "")
            .expect(200);
        assert!(
            answer
                .headers
                .iter()
                .all(|(_, value)| !value.contains('\t'))
        );
    }
    gateway.rows(1);
    let telemetry = support::telemetry();
    assert!(telemetry.flush(PATIENCE));
    for line in telemetry.lines_after(0) {
        let text = line.message.as_str();
        assert!(
            !text.contains(['\n', '\r', '\u{1b}', '\u{2028}']),
            "{text:?}"
        );
    }
}
