//! Same protocol in and out: the provider gets the client's bytes but for the
//! model's name, the client gets the provider's, and neither gets the other's
//! credentials.

#![expect(
    clippy::unwrap_used,
    reason = "in helpers of tests a failure is the test's failure"
)]

mod support;

use std::io::Write;

use plexus::simulate::Recorded;
use serde_json::{Value, json};
use support::dialect::{Dialect, Ending};
use support::upstream::{COMPLETION, Upstream, Wire};
use support::{Client, FILE, Gateway, Response, SECRET, Stream, media};

/// The one request that the provider got since the last look.
#[track_caller]
fn received(gateway: &Gateway) -> Recorded {
    let mut requests = gateway.provider.simulator.requests();
    assert_eq!(requests.len(), 1);
    gateway.provider.simulator.clear();
    requests.remove(0)
}

fn header<'a>(request: &'a Recorded, name: &str) -> Option<&'a str> {
    let found = request.headers.iter().find(|(known, _)| known == name);
    found.map(|(_, value)| value.as_str())
}

fn text(request: &Recorded) -> String {
    String::from_utf8(request.body.clone().unwrap().to_vec()).unwrap()
}

const AUTHORIZED: [(&str, &str); 2] = [
    ("authorization", "Bearer sk-plexus-tests"),
    ("content-type", "application/json"),
];

/// What an HTTP library that re-writes JSON would spoil, around the members
/// that the protocol needs.
fn odd_body(needed: &str, model: &str) -> String {
    format!(
        "\r\n {{ \"zeta\" :1e400,\t\"big\":12345678901234567890123,\"exact\":1.10,\"neg\":-0.0,\
         \"text\":\"\u{2028}\\u2028\\/\\ud83d\\ude42 \u{1f642}\\u0000\",\"null\":null,\"nested\":\
         {{\"model\":\"inner\",\"stream\":true,\"a\":[1, 2 ,3]}},{needed}\"model\" : \"{model}\",\
         \"unknown_to_all\":{{\"x\":[[],{{}}]}},\"alpha\":1}}\n "
    )
}

fn needed(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Chat => "\"messages\":[{\"content\":\"say \\\"model\\\"\",\"role\":\"user\"}],",
        Dialect::Responses => "\"input\":\"hello\",",
        Dialect::Messages => {
            "\"max_tokens\":9,\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],"
        }
        _ => "\"contents\":[{\"parts\":[{\"text\":\"hi\"}]}],",
    }
}

#[test]
fn the_provider_gets_the_clients_bytes_but_for_the_model() {
    let gateway = Gateway::start();
    for dialect in Dialect::FOUR {
        let alias = format!("by-{}", dialect.name());
        let (path, _) = dialect.ask(&alias, false);
        let sent = odd_body(needed(dialect), &alias);
        let answer = gateway.request("POST", &path, &AUTHORIZED, &sent);
        assert_eq!(answer.status, 200, "{dialect:?}: {}", answer.text());
        let got = received(&gateway);
        let model = if dialect == Dialect::Gemini {
            alias.as_str()
        } else {
            "simulated"
        };
        assert_eq!(text(&got), sent.replace(&alias, model), "{dialect:?}");
        assert_eq!(
            header(&got, "content-length"),
            Some(got.body_length.to_string().as_str())
        );
        assert_eq!(header(&got, "transfer-encoding"), None);
    }
}

#[test]
fn a_chat_stream_is_only_asked_for_its_usage_besides() {
    let gateway = Gateway::start();
    let asking = "\"stream_options\":{\"include_usage\":true}";
    for (options, wanted) in [
        (String::new(), format!("{{{asking},")),
        (format!("{asking},"), "{".to_owned()),
        (
            "\"stream_options\":{\"include_usage\": false},".to_owned(),
            "{".to_owned(),
        ),
        ("\"stream_options\":{},".to_owned(), "{".to_owned()),
        ("\"stream_options\":null,".to_owned(), "{".to_owned()),
        (
            "\"stream_options\":{\"include_obfuscation\":false},".to_owned(),
            "{".to_owned(),
        ),
    ] {
        let sent =
            format!("{{\"stream\":true,{options}\"messages\":[1e400],\"model\":\"by-chat\"}}");
        gateway.request("POST", "/v1/chat/completions", &AUTHORIZED, &sent);
        let got = text(&received(&gateway));
        let body: Value = serde_json::from_str(&got.replace("1e400", "1")).unwrap();
        assert_eq!(body["stream_options"]["include_usage"], true, "{got}");
        assert!(got.starts_with(&wanted), "{got}");
        assert!(
            got.ends_with("\"messages\":[1e400],\"model\":\"simulated\"}"),
            "{got}"
        );
        let kept = options.contains("obfuscation");
        assert_eq!(got.contains("\"include_obfuscation\":false"), kept, "{got}");
    }
    for dialect in [Dialect::Responses, Dialect::Messages, Dialect::Gemini] {
        let alias = format!("by-{}", dialect.name());
        let (path, body) = dialect.ask(&alias, true);
        gateway.request("POST", &path, &AUTHORIZED, body.to_string());
        assert!(
            !text(&received(&gateway)).contains("stream_options"),
            "{dialect:?}"
        );
    }
}

#[test]
fn large_bodies_arrive_byte_for_byte_in_either_framing() {
    let gateway = Gateway::start();
    for size in [1 << 20, 10 << 20] {
        for dialect in Dialect::FOUR {
            let alias = format!("by-{}", dialect.name());
            let (path, _) = dialect.ask(&alias, false);
            let filler: String = (0..size / 16)
                .map(|number| format!("\\u2028{number:010}"))
                .collect();
            let start = format!("{{\"filler\":\"{filler}\",{}", needed(dialect));
            let model = |model: &str| format!("{start}\"model\":\"{model}\"}}");
            let sent = model(&alias);
            let wanted = if dialect == Dialect::Gemini {
                sent.clone()
            } else {
                model("simulated")
            };
            let whole = gateway.request("POST", &path, &AUTHORIZED, &sent);
            assert_eq!(whole.status, 200);
            assert!(
                received(&gateway).body.unwrap() == wanted.as_bytes(),
                "{dialect:?} {size}"
            );
            let mut headers = AUTHORIZED.to_vec();
            headers.push(("transfer-encoding", "chunked"));
            let pieces = gateway.request("POST", &path, &headers, chunked(sent.as_bytes()));
            assert_eq!(pieces.status, 200);
            assert!(
                received(&gateway).body.unwrap() == wanted.as_bytes(),
                "{dialect:?} {size}"
            );
        }
    }
}

/// In chunks of odd sizes, so that names and escapes are cut anywhere.
fn chunked(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len() + body.len() / 8);
    let mut rest = body;
    for size in [1, 2, 3, 5, 7, 11, 4093, 65521].into_iter().cycle() {
        let (piece, more) = rest.split_at(rest.len().min(size));
        out.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        out.extend_from_slice(piece);
        out.extend_from_slice(b"\r\n");
        rest = more;
        if piece.is_empty() {
            return out;
        }
    }
    out
}

#[test]
fn a_body_cut_at_any_byte_of_its_upload_means_the_same() {
    let gateway = Gateway::start();
    let sent = odd_body(needed(Dialect::Chat), "by-chat");
    let wanted = sent.replace("by-chat", "simulated");
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-api-key: {SECRET}\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
    );
    for cut in 1..sent.len() {
        let (first, second) = sent.as_bytes().split_at(cut);
        let mut body = format!("{:x}\r\n", first.len()).into_bytes();
        body.extend_from_slice(first);
        body.extend_from_slice(format!("\r\n{:x}\r\n", second.len()).as_bytes());
        body.extend_from_slice(second);
        body.extend_from_slice(b"\r\n0\r\n\r\n");
        let mut stream = gateway.client().connect();
        stream
            .write_all(&[head.as_bytes(), &body].concat())
            .unwrap();
        assert_eq!(
            Stream::read(stream, false).finish().status,
            200,
            "cut at {cut}"
        );
        assert!(
            received(&gateway).body.unwrap() == wanted.as_bytes(),
            "cut at {cut}"
        );
    }
}

/// Makes identifiers and times alike: runs of 24 letters and digits or more,
/// and of ten digits.
fn masked(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let mut out = String::with_capacity(text.len());
    for word in text.split_inclusive(|letter: char| !letter.is_ascii_alphanumeric()) {
        let core = word.trim_end_matches(|letter: char| !letter.is_ascii_alphanumeric());
        let time = core.len() == 10 && core.bytes().all(|byte| byte.is_ascii_digit());
        match time || core.len() >= 24 {
            true => out.push_str(&word.replace(core, "*")),
            false => out.push_str(word),
        }
    }
    out
}

/// What the provider itself answers.
fn direct(
    gateway: &Gateway,
    dialect: Dialect,
    model: &str,
    stream: bool,
    body: &Value,
) -> Response {
    let client = Client::of(gateway.provider.address);
    let (path, _) = dialect.ask(model, stream);
    client.request(
        "POST",
        &path,
        &dialect.vendor_headers(),
        body.to_string().as_bytes(),
    )
}

#[test]
fn the_client_gets_the_providers_bytes() {
    let gateway = Gateway::start();
    let models = [
        "m",
        "m+reasoning",
        "m+tools=2",
        "m+empty",
        "m+huge=300000",
        "m+finish=length",
        "m+nolength",
        "m+length",
        "m+crlf",
        "m+split+chunks=2",
        "m+chunks=3+gap=2",
    ];
    for dialect in Dialect::ALL {
        for model in models {
            for stream in [false, true] {
                let (_, mut body) = dialect.ask(model, stream);
                if dialect == Dialect::Chat && stream {
                    body["stream_options"] = json!({"include_usage": true});
                }
                let own = direct(&gateway, dialect, model, stream, &body);
                let through = format!("direct/{}/{model}", dialect.name());
                let (path, _) = dialect.ask(&through, stream);
                if body.get("model").is_some() {
                    body["model"] = json!(through);
                }
                let answer = gateway.ask(&path, &body);
                assert_eq!(answer.status, own.status, "{dialect:?} {model}");
                assert_eq!(
                    masked(&answer.body),
                    masked(&own.body),
                    "{dialect:?} {model} {stream}"
                );
                assert_eq!(answer.header("content-type"), own.header("content-type"));
            }
        }
    }
}

#[test]
fn the_usage_event_is_all_that_is_taken_out_of_a_chat_stream() {
    let gateway = Gateway::start();
    for model in [
        "m",
        "m+split+chunks=2",
        "m+tools=2",
        "m+crlf",
        "m+chunks=300",
    ] {
        let (path, mut body) = Dialect::Chat.ask(model, true);
        body["stream_options"] = json!({"include_usage": true});
        let own = direct(&gateway, Dialect::Chat, model, true, &body);
        body["model"] = json!(format!("direct/chat/{model}"));
        body.as_object_mut().unwrap().remove("stream_options");
        let answer = gateway.ask(&path, &body);
        let blank = if model.contains("crlf") {
            "\r\n\r\n"
        } else {
            "\n\n"
        };
        let own = masked(&own.body);
        let kept: String = own
            .split_inclusive(blank)
            .filter(|event| !event.contains("\"choices\":[]"))
            .collect();
        assert_ne!(kept, own, "{model}");
        assert_eq!(masked(&answer.body), kept, "{model}");
    }
}

#[test]
fn each_provider_gets_its_own_key_in_its_own_field_and_nothing_of_the_clients() {
    let gateway = Gateway::start();
    let client = [
        ("authorization", "Bearer sk-plexus-tests"),
        ("x-api-key", "sk-plexus-tests"),
        ("x-goog-api-key", "sk-plexus-tests"),
        ("x-admin-key", "admin-key-of-the-tests"),
        ("cookie", "session=client"),
        ("proxy-authorization", "Basic Y2xpZW50"),
        ("x-forwarded-for", "198.51.100.7"),
        ("x-real-ip", "198.51.100.7"),
        ("forwarded", "for=198.51.100.7"),
        ("via", "1.1 client"),
        ("accept-encoding", "gzip, br"),
        ("te", "trailers"),
        ("connection", "keep-alive, x-hop"),
        ("x-hop", "client"),
        ("upgrade", "websocket"),
        ("origin", "https://client.test"),
        ("referer", "https://client.test/"),
        ("openai-organization", "org-client"),
        ("user-agent", "client/1.0"),
        ("content-type", "application/json"),
    ];
    for dialect in Dialect::FOUR {
        let alias = format!("by-{}", dialect.name());
        let (path, body) = dialect.ask(&alias, false);
        let path = match path.contains('?') {
            true => format!("{path}&key=sk-plexus-tests"),
            false => format!("{path}?key=sk-plexus-tests"),
        };
        let answer = gateway.request("POST", &path, &client, body.to_string());
        assert_eq!(answer.status, 200, "{dialect:?}: {}", answer.text());
        let got = received(&gateway);
        let (field, key) = match dialect {
            Dialect::Messages => ("x-api-key", "up-messages".to_owned()),
            Dialect::Gemini => ("x-goog-api-key", "up-gemini".to_owned()),
            other => ("authorization", format!("Bearer up-{}", other.name())),
        };
        assert_eq!(header(&got, field), Some(key.as_str()), "{dialect:?}");
        let allowed = [
            field,
            "content-type",
            "content-length",
            "host",
            "user-agent",
            "anthropic-version",
            "accept",
        ];
        let strange: Vec<_> = got
            .headers
            .iter()
            .filter(|(name, _)| !allowed.contains(&name.as_str()))
            .collect();
        assert!(strange.is_empty(), "{dialect:?}: {strange:?}");
        let all = format!("{} {:?}", got.target, got.headers);
        for secret in ["sk-plexus", "admin-key", "client", "198.51.100.7"] {
            assert!(!all.contains(secret), "{dialect:?}: {secret} in {all}");
        }
    }
}

#[test]
fn what_anthropic_calls_its_version_is_forwarded() {
    let gateway = Gateway::start();
    let (path, body) = Dialect::Messages.ask("by-messages", false);
    let mut headers = AUTHORIZED.to_vec();
    gateway.request("POST", &path, &headers, body.to_string());
    assert_eq!(
        header(&received(&gateway), "anthropic-version"),
        Some("2023-06-01")
    );
    headers.push(("anthropic-version", "2099-01-01"));
    headers.push(("anthropic-beta", "one-2026, two-2026"));
    gateway.request("POST", &path, &headers, body.to_string());
    let got = received(&gateway);
    assert_eq!(header(&got, "anthropic-version"), Some("2099-01-01"));
    assert_eq!(header(&got, "anthropic-beta"), Some("one-2026, two-2026"));
}

/// Golden 43: what the client's version of Anthropic's API allows and the operator's
/// does not.
#[test]
fn a_version_that_the_operator_sets_is_the_providers_and_its_bodies_are_of_it() {
    let provider = |name: &str, version: &str| {
        format!(
            "  {name}: {{ api_base_url: {{ messages: 'http://SIMULATOR/v1' }}, api_key: k, headers: {{ anthropic-version: '{version}' }} }}\n"
        )
    };
    let gateway = Gateway::with(&format!(
        "providers:\n{}{}models:\n\
         \x20 old: {{ targets: [ {{ provider: old, model: m }} ] }}\n\
         \x20 new: {{ targets: [ {{ provider: new, model: m }} ] }}\n\
         keys: {{ app: {{ secret: sk-plexus-tests }} }}\n",
        provider("old", "2023-06-01"),
        provider("new", "2026-10-21"),
    ));
    let body = |alias: &str, more: &str| {
        format!(
            r#"{{ "model":"{alias}",{more} "max_tokens" : 9, "zz":1e400,"messages":[{{"role":"user","content":"hi"}}]}}"#
        )
    };
    let ask = |version, body: &str, strict| {
        let mut headers = AUTHORIZED.to_vec();
        headers.extend([("anthropic-version", version), ("x-plexus-strict", strict)]);
        gateway.request("POST", "/v1/messages", &headers, body)
    };
    let got = |alias: &str, more: &str| {
        let got = received(&gateway);
        let version = header(&got, "anthropic-version").unwrap().to_owned();
        assert_eq!(text(&got), body(alias, more).replace(alias, "m"));
        version
    };
    let answer = ask("2026-10-21", &body("old", ""), "0").expect(200);
    assert_eq!(got("old", ""), "2023-06-01");
    assert_eq!(answer.header("x-plexus-notes"), None);
    let warm = r#""temperature":1.0,"#;
    let answer = ask("2023-06-01", &body("old", warm), "0").expect(200);
    assert_eq!(got("old", warm), "2023-06-01");
    assert_eq!(answer.header("x-plexus-notes"), None);
    let answer = ask("2023-06-01", &body("new", warm), "0").expect(200);
    assert_eq!(got("new", ""), "2026-10-21");
    assert_eq!(answer.header("x-plexus-notes"), Some("dropped:temperature"));
    let before = gateway.provider.simulator.requests().len();
    let refused = ask("2023-06-01", &body("new", warm), "1").expect(400);
    assert!(refused.text().contains("temperature"), "{}", refused.text());
    assert_eq!(gateway.provider.simulator.requests().len(), before);
}

#[test]
fn of_the_answers_head_only_what_concerns_the_client_is_passed_on() {
    let upstream = Upstream::start(|mut wire: Wire| {
        while wire.request().is_some() {
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nset-cookie: a=b\r\nserver: own\r\n\
                        strict-transport-security: max-age=9\r\naccess-control-allow-origin: evil\r\nx-powered-by: own\r\n\
                        x-ratelimit-remaining-requests: 41\r\nopenai-processing-ms: 12\r\nx-request-id: req_own\r\n\
                        x-plexus-route: forged\r\nkeep-alive: timeout=5\r\n";
            wire.write(
                format!(
                    "{head}content-length: {}\r\n\r\n{COMPLETION}",
                    COMPLETION.len()
                )
                .as_bytes(),
            );
        }
    });
    let own = format!(
        "providers:\n  own: {{ api_base_url: 'http://{}/v1', api_key: x }}\n",
        upstream.address
    );
    let gateway = Gateway::with(&FILE.replacen("providers:\n", &own, 1));
    let answer = gateway.speak(Dialect::Chat, "direct/own/m", false).finish();
    assert_eq!(answer.text(), COMPLETION);
    for (name, value) in [
        ("x-ratelimit-remaining-requests", "41"),
        ("openai-processing-ms", "12"),
        ("x-upstream-request-id", "req_own"),
        ("x-plexus-route", "own/m; attempts=1"),
    ] {
        assert_eq!(answer.header(name), Some(value), "{name}");
    }
    assert_ne!(answer.header("x-request-id"), Some("req_own"));
    for name in [
        "set-cookie",
        "server",
        "strict-transport-security",
        "access-control-allow-origin",
        "x-powered-by",
        "keep-alive",
    ] {
        assert_eq!(answer.header(name), None, "{name}");
    }
}

/// Providers, models and aliases with something to add.
const ADDING: &str = "\
providers:
  p:
    api_base_url: { chat: 'http://SIMULATOR/v1', messages: 'http://SIMULATOR/v1' }
    api_key: up-p
    headers: { X-Title: gateway, anthropic-beta: of-the-operator }
    extraBody: { user: provider, seed: 1, layer: provider }
    models:
      m: { extraBody: { seed: 2, layer: model } }
      'acme/big:free': {}
models:
  a: { targets: [{ provider: p, model: m }], extraBody: { layer: alias, nested: { x: [1] } }, additional_aliases: [nick, 'team/nick'] }
  'team/slashed': { targets: [{ provider: p, model: 'acme/big:free' }] }
keys:
  app: { secret: sk-plexus-tests }
";

#[test]
fn what_the_operator_adds_comes_from_provider_model_and_alias_and_the_later_wins() {
    let gateway = Gateway::with(ADDING);
    let ask = |model: &str| {
        let body =
            format!("{{\"layer\" : \"client\",\"messages\":[],\"x\":1e400,\"model\":\"{model}\"}}");
        let answer = gateway.request("POST", "/v1/chat/completions", &AUTHORIZED, body);
        assert_eq!(answer.status, 200, "{}", answer.text());
        let got = received(&gateway);
        assert_eq!(header(&got, "x-title"), Some("gateway"));
        assert_eq!(header(&got, "authorization"), Some("Bearer up-p"));
        let text = text(&got);
        assert!(text.contains("\"x\":1e400"), "{text}");
        let mut body: Value = serde_json::from_str(&text.replace("1e400", "1")).unwrap();
        for common in ["messages", "x", "model"] {
            body.as_object_mut().unwrap().remove(common);
        }
        body
    };
    assert_eq!(
        ask("a"),
        json!({"user": "provider", "seed": 2, "layer": "alias", "nested": {"x": [1]}})
    );
    assert_eq!(
        ask("direct/p/m"),
        json!({"user": "provider", "seed": 2, "layer": "model"})
    );
    assert_eq!(
        ask("direct/p/other"),
        json!({"user": "provider", "seed": 1, "layer": "provider"})
    );
}

#[test]
fn the_operators_header_fields_win_over_the_clients() {
    let gateway = Gateway::with(ADDING);
    let (path, body) = Dialect::Messages.ask("direct/p/m", false);
    let mut headers = AUTHORIZED.to_vec();
    headers.push(("anthropic-beta", "of-the-client"));
    gateway.request("POST", &path, &headers, body.to_string());
    let got = received(&gateway);
    let sent: Vec<_> = got
        .headers
        .iter()
        .filter(|(name, _)| name == "anthropic-beta")
        .collect();
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].1, "of-the-operator");
}

#[test]
fn every_name_of_a_model_leads_to_it() {
    let gateway = Gateway::with(ADDING);
    for (name, model) in [
        ("a", "m"),
        ("nick", "m"),
        ("team/nick", "m"),
        ("team/slashed", "acme/big:free"),
        ("direct/p/m", "m"),
        ("direct/p/acme/big:free", "acme/big:free"),
        ("direct/p/never listed \\\"é\\\"", "never listed \"é\""),
    ] {
        let body = format!("{{\"messages\":[],\"model\":\"{name}\"}}");
        let answer = gateway.request("POST", "/v1/chat/completions", &AUTHORIZED, body);
        assert_eq!(answer.status, 200, "{name}: {}", answer.text());
        let body: Value = serde_json::from_str(&text(&received(&gateway))).unwrap();
        assert_eq!(body["model"], model, "{name}");
    }
    for (name, status) in [
        ("p/m", 404),
        ("direct/p", 400),
        ("direct/q/m", 404),
        ("A", 404),
        ("", 400),
    ] {
        let body = format!("{{\"messages\":[],\"model\":\"{name}\"}}");
        let answer = gateway.request("POST", "/v1/chat/completions", &AUTHORIZED, body);
        assert_eq!(answer.status, status, "{name}: {}", answer.text());
    }
    assert!(gateway.provider.simulator.requests().is_empty());
}

#[test]
fn a_gemini_models_name_may_hold_slashes_and_its_query_is_kept_but_for_the_key() {
    let gateway = Gateway::start();
    let body = "{\"contents\":[{\"parts\":[{\"text\":\"hi\"}]}]}";
    for (path, wanted) in [
        (
            "/v1beta/models/by-gemini:generateContent?key=sk-plexus-tests",
            "/v1beta/models/simulated:generateContent",
        ),
        (
            "/v1beta/models/by-gemini:streamGenerateContent?alt=sse&key=sk-plexus-tests&x=1",
            "/v1beta/models/simulated:streamGenerateContent?alt=sse&x=1",
        ),
        (
            "/v1beta/models/direct/gemini/acme/m:free:generateContent",
            "/v1beta/models/acme/m:free:generateContent",
        ),
        (
            "/v1beta/models/direct%2Fgemini%2Facme%2Fm:generateContent",
            "/v1beta/models/acme/m:generateContent",
        ),
    ] {
        let headers: &[(&str, &str)] = if path.contains("key=") {
            &[]
        } else {
            &AUTHORIZED
        };
        let answer = gateway.request("POST", path, headers, body);
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        assert_eq!(received(&gateway).target, wanted);
    }
}

#[test]
fn a_key_with_a_list_of_models_is_not_got_round_by_doubled_or_escaped_names() {
    let file = FILE.replace(
        "app: { secret: sk-plexus-tests }",
        "app: { secret: sk-plexus-tests, allowedModels: [by-chat] }",
    );
    let gateway = Gateway::with(&file);
    for body in [
        "{\"model\":\"by-chat\",\"messages\":[],\"model\":\"direct/chat/evil\"}",
        "{\"model\":\"direct/chat/evil\",\"messages\":[],\"model\":\"by-chat\"}",
        "{\"model\":\"by-chat\",\"messages\":[],\"mod\\u0065l\":\"evil\"}",
        "{\"mod\\u0065l\":\"evil\",\"messages\":[],\"model\":\"by-chat\"}",
        "{\"model\":\"by-chat\",\"messages\":[],\"model\":{\"evil\":1}}",
    ] {
        gateway.provider.simulator.clear();
        let answer = gateway.request("POST", "/v1/chat/completions", &AUTHORIZED, body);
        let sent: Vec<String> = gateway
            .provider
            .simulator
            .requests()
            .iter()
            .map(text)
            .collect();
        let evil = sent.iter().any(|body| body.contains("evil"));
        assert!(!evil, "{body}: {} {sent:?}", answer.status);
    }
}

#[test]
fn no_redirect_is_followed() {
    let elsewhere = Upstream::start(|mut wire: Wire| {
        while wire.request().is_some() {
            wire.answer("200 OK", COMPLETION);
        }
    });
    let gateway = Gateway::start();
    for status in [301, 302, 303, 307, 308] {
        let model = format!(
            "direct/chat/m+status={status}+location=http://{}/",
            elsewhere.address
        );
        let answer = gateway.speak(Dialect::Chat, &model, false).finish();
        assert_eq!(answer.status, 502, "{status}: {}", answer.text());
        assert_eq!(answer.header("location"), None);
        Dialect::Chat.error(&answer.json());
    }
    assert_eq!(elsewhere.requests(), 0);
}

#[test]
fn the_media_endpoints_pass_bytes_through_both_ways() {
    let gateway = Gateway::start();
    let client = Client::of(gateway.provider.address);
    for (ask, own) in media::all("direct/chat/m").into_iter().zip(media::all("m")) {
        let headers = [
            ("authorization", "Bearer sk-plexus-tests"),
            ("content-type", ask.content_type),
        ];
        let direct = client.request("POST", own.path, &headers, &own.body);
        gateway.provider.simulator.clear();
        let answer = gateway.request("POST", ask.path, &headers, &ask.body);
        assert_eq!(answer.status, 200, "{}", ask.path);
        let got = received(&gateway);
        assert!(got.body.as_deref() == Some(&own.body[..]), "{}", ask.path);
        assert_eq!(
            header(&got, "content-type"),
            Some(ask.content_type),
            "{}",
            ask.path
        );
        assert_eq!(got.target, ask.path);
        assert_eq!(masked(&answer.body), masked(&direct.body), "{}", ask.path);
        assert_eq!(answer.header("content-type"), direct.header("content-type"));
    }
}

#[test]
fn speech_and_transcriptions_stream() {
    let gateway = Gateway::start();
    let body = json!({"model": "direct/chat/m+gap=1", "input": "hello", "voice": "alloy", "stream_format": "sse"});
    let answer = gateway.ask("/v1/audio/speech", &body);
    assert!(
        answer
            .header("content-type")
            .unwrap()
            .starts_with("text/event-stream")
    );
    assert!(
        answer.text().contains("speech.audio.done"),
        "{}",
        answer.text()
    );
    let body = json!({"model": "direct/chat/m", "input": "hello", "voice": "alloy", "response_format": "wav"});
    let answer = gateway.ask("/v1/audio/speech", &body);
    assert_eq!(answer.header("content-type"), Some("audio/wav"));
    assert!(answer.body.starts_with(b"RIFF"));
}

#[test]
fn the_model_of_a_form_is_its_field_and_never_its_file() {
    let gateway = Gateway::start();
    for (field, file) in [("file", "model"), ("file", "a\\\" name=\\\"model\\\".mp3")] {
        let sent = media::form("direct/chat/m", (field, file), b"the content of the file");
        let wanted = media::form("m", (field, file), b"the content of the file");
        let content_type = format!("multipart/form-data; boundary={}", media::BOUNDARY);
        let headers = [
            ("x-api-key", SECRET),
            ("content-type", content_type.as_str()),
        ];
        let answer = gateway.request("POST", "/v1/audio/transcriptions", &headers, &sent);
        assert_eq!(answer.status, 200, "{file}: {}", answer.text());
        assert!(
            received(&gateway).body.as_deref() == Some(&wanted[..]),
            "{file}"
        );
    }
}

#[test]
fn models_are_listed_in_the_shape_of_the_asking_sdk() {
    let gateway = Gateway::start();
    let list = |path: &str, headers: &[(&str, &str)]| {
        let answer = gateway.request("GET", path, headers, "");
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()
    };
    let openai = list("/v1/models", &[]);
    assert_eq!(openai["object"], "list");
    assert_eq!(openai["data"][0]["id"], "by-chat");
    assert_eq!(openai["data"][0]["object"], "model");
    let anthropic = list("/v1/models", &[("anthropic-version", "2023-06-01")]);
    assert_eq!(anthropic["data"][0]["type"], "model");
    assert_eq!(anthropic["has_more"], false);
    assert_eq!(anthropic["last_id"], "by-any");
    for (path, headers) in [
        ("/v1beta/models", &[][..]),
        ("/v1/models?key=x", &[]),
        ("/v1/models", &[("x-goog-api-key", "x")]),
    ] {
        let gemini = list(path, headers);
        assert_eq!(gemini["models"][0]["name"], "models/by-chat", "{path}");
    }
    let codex = list("/v1/models?client_version=1", &[]);
    assert_eq!(codex["object"], "list");
    assert!(codex["models"].is_array());
    let one = list("/v1/models/by-any", &[]);
    assert_eq!(one["id"], "by-any");
    let unknown = gateway.request("GET", "/v1/models/nobody", &[], "");
    assert_eq!(unknown.status, 404);
    Dialect::Chat.error(&unknown.json());
    let tag = gateway.request("GET", "/v1/models", &[], "");
    let tag = [("if-none-match", tag.header("etag").unwrap())];
    assert_eq!(gateway.request("GET", "/v1/models", &tag, "").status, 304);
}

#[test]
fn a_provider_that_sends_single_bytes_is_read_as_any_other() {
    let gateway = Gateway::start();
    for dialect in Dialect::ALL {
        for line_end in ["", "+crlf", "+cr"] {
            if !line_end.is_empty() && matches!(dialect, Dialect::Gemini | Dialect::GeminiArray) {
                // They have their own line ends.
                continue;
            }
            let model = format!("direct/{}/m+chunks=2+split{line_end}", dialect.name());
            let answer = gateway.speak(dialect, &model, true).finish();
            assert_eq!(
                dialect.ending(&answer.body),
                Ending::Finished,
                "{dialect:?} {line_end}"
            );
        }
    }
}
