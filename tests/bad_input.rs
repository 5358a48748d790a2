//! What no client should send, in every protocol towards every provider: a clear
//! error in the client's own shape, or the provider's answer, and never a fault of
//! the gateway's.

mod support;

use serde_json::Value;
use support::Gateway;
use support::dialect::Dialect;
use support::talk::{PROVIDERS, model};

/// An integer that no double holds.
const LONG: &str = "12345678901234567890";

/// Every client with every provider.
fn pairs() -> impl Iterator<Item = (Dialect, Dialect)> {
    let clients = Dialect::FOUR.into_iter();
    clients.flat_map(|client| Dialect::FOUR.map(|provider| (client, provider)))
}

fn send(gateway: &Gateway, client: Dialect, name: &str, body: &[u8]) -> support::Response {
    let path = match client {
        Dialect::Chat => "/v1/chat/completions".to_owned(),
        Dialect::Responses => "/v1/responses".to_owned(),
        Dialect::Messages => "/v1/messages".to_owned(),
        _ => format!("/v1beta/models/{name}:generateContent"),
    };
    let headers = [
        ("authorization", "Bearer sk-plexus-tests"),
        ("content-type", "application/json"),
    ];
    gateway.request("POST", &path, &headers, body)
}

/// A request in which the user says `content`, with more members behind it.
fn saying(client: Dialect, name: &str, content: &str, more: &str) -> String {
    match client {
        Dialect::Chat => {
            format!(
                r#"{{"model":"{name}","messages":[{{"role":"user","content":{content}}}]{more}}}"#
            )
        }
        Dialect::Responses => format!(r#"{{"model":"{name}","input":{content}{more}}}"#),
        Dialect::Messages => format!(
            r#"{{"model":"{name}","max_tokens":100,"messages":[{{"role":"user","content":{content}}}]{more}}}"#
        ),
        _ => format!(r#"{{"contents":[{{"role":"user","parts":[{{"text":{content}}}]}}]{more}}}"#),
    }
}

fn tool(client: Dialect, schema: &str) -> String {
    match client {
        Dialect::Chat => {
            format!(
                r#","tools":[{{"type":"function","function":{{"name":"f","parameters":{schema}}}}}]"#
            )
        }
        Dialect::Responses => {
            format!(r#","tools":[{{"type":"function","name":"f","parameters":{schema}}}]"#)
        }
        Dialect::Messages => format!(r#","tools":[{{"name":"f","input_schema":{schema}}}]"#),
        _ => format!(
            r#","tools":[{{"functionDeclarations":[{{"name":"f","parametersJsonSchema":{schema}}}]}}]"#
        ),
    }
}

/// A call in the history, with arguments as the protocol has them.
fn called(client: Dialect, name: &str, arguments: &str) -> String {
    let text = Value::from(arguments);
    match client {
        Dialect::Chat => format!(
            r#"{{"model":"{name}","messages":[{{"role":"user","content":"q"}},{{"role":"assistant","tool_calls":[{{"id":"call_12345678","type":"function","function":{{"name":"f","arguments":{text}}}}}]}},{{"role":"tool","tool_call_id":"call_12345678","content":"ok"}}]}}"#
        ),
        Dialect::Responses => format!(
            r#"{{"model":"{name}","input":[{{"role":"user","content":"q"}},{{"type":"function_call","call_id":"call_12345678","name":"f","arguments":{text}}},{{"type":"function_call_output","call_id":"call_12345678","output":"ok"}}]}}"#
        ),
        Dialect::Messages => format!(
            r#"{{"model":"{name}","max_tokens":100,"messages":[{{"role":"user","content":"q"}},{{"role":"assistant","content":[{{"type":"tool_use","id":"call_12345678","name":"f","input":{arguments}}}]}},{{"role":"user","content":[{{"type":"tool_result","tool_use_id":"call_12345678","content":"ok"}}]}}]}}"#
        ),
        _ => format!(
            r#"{{"contents":[{{"role":"user","parts":[{{"text":"q"}}]}},{{"role":"model","parts":[{{"functionCall":{{"name":"f","args":{arguments}}}}}]}},{{"role":"user","parts":[{{"functionResponse":{{"name":"f","response":{{"output":"ok"}}}}}}]}}]}}"#
        ),
    }
}

#[track_caller]
fn refused(client: Dialect, answer: &support::Response, place: &str) {
    let body = answer.text().chars().take(400).collect::<String>();
    assert_eq!(answer.status, 400, "{place}: {body}");
    let (_, message) = client.error(&answer.json());
    assert!(!message.is_empty(), "{place}: {body}");
}

#[test]
fn what_is_no_request_is_refused_in_the_clients_own_shape() {
    let gateway = Gateway::with(PROVIDERS);
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    let chained = r#"{"a":"#.repeat(100_000) + "1" + &"}".repeat(100_000);
    for (client, provider) in pairs() {
        let name = model(provider, "");
        let translated = client != provider;
        let mut bodies: Vec<(&str, Vec<u8>)> = vec![
            ("nothing", Vec::new()),
            ("no JSON", b"hello".to_vec()),
            ("an array", b"[]".to_vec()),
            ("null", b"null".to_vec()),
        ];
        if translated {
            bodies.extend([
                ("an empty object", b"{}".to_vec()),
                ("deep text", saying(client, &name, &deep, "").into()),
                (
                    "a deep unknown",
                    saying(client, &name, "\"q\"", &format!(",\"x\":{deep}")).into(),
                ),
                (
                    "a deep schema",
                    saying(client, &name, "\"q\"", &tool(client, &chained)).into(),
                ),
                (
                    "a part of no sort",
                    saying(client, &name, r#"[{"type":"alien"}]"#, "").into(),
                ),
                (
                    "odd parts",
                    saying(client, &name, "[null,1,[],{}]", "").into(),
                ),
            ]);
        }
        for (what, body) in bodies {
            let answer = send(&gateway, client, &name, &body);
            refused(
                client,
                &answer,
                &format!("{client:?} to {provider:?}, {what}"),
            );
        }
    }
    let alive = saying(
        Dialect::Chat,
        &model(Dialect::Chat, ""),
        "\"still there?\"",
        "",
    );
    send(&gateway, Dialect::Chat, "", alive.as_bytes()).expect(200);
}

#[test]
fn what_is_odd_is_answered_and_keeps_its_digits() {
    let gateway = Gateway::with(PROVIDERS);
    for (client, provider) in pairs() {
        let name = model(provider, "");
        let schema = format!(
            r#"{{"type":"object","properties":{{"n":{{"type":"integer","maximum":{LONG}}}}}}}"#
        );
        let bodies = [
            (
                "half a surrogate",
                saying(client, &name, r#""a\ud83d b""#, ""),
                "a",
            ),
            (
                "names that stand twice",
                saying(client, &name, "\"q\"", r#","x-odd":1,"x-odd":2"#),
                "q",
            ),
            (
                "a NUL and a line separator",
                saying(client, &name, "\"q\\u0000\u{2028}\"", ""),
                "q",
            ),
            (
                "long digits in a schema",
                saying(client, &name, "\"q\"", &tool(client, &schema)),
                LONG,
            ),
            (
                "long digits in arguments, twice",
                called(client, &name, &format!(r#"{{"n":{LONG},"n":{LONG}}}"#)),
                LONG,
            ),
        ];
        for (what, body, kept) in bodies {
            let place = format!("{client:?} to {provider:?}, {what}");
            let answer = send(&gateway, client, &name, body.as_bytes());
            let text: String = answer.text().chars().take(400).collect();
            // A provider may refuse what its own client sent, as the real ones do.
            assert!(answer.status < 500, "{place}: {} {text}", answer.status);
            if client != provider {
                assert_eq!(answer.status, 200, "{place}: {text}");
            }
            let sent = gateway.provider.simulator.requests();
            let sent = sent.last().unwrap().body.clone().unwrap();
            let sent = String::from_utf8_lossy(&sent);
            assert!(sent.contains(kept), "{place}: {sent}");
        }
    }
}

#[test]
fn arguments_that_are_no_object_reach_every_provider() {
    let gateway = Gateway::with(PROVIDERS);
    for (client, provider) in pairs().filter(|(client, provider)| client != provider) {
        if !matches!(client, Dialect::Chat | Dialect::Responses) {
            continue;
        }
        for arguments in ["", " ", "no JSON", "[1]", "{\"a\":", "null", "7"] {
            let name = model(provider, "");
            let body = called(client, &name, arguments);
            let answer = send(&gateway, client, &name, body.as_bytes());
            let place = format!(
                "{client:?} to {provider:?}, {arguments:?}: {}",
                answer.text()
            );
            assert_eq!(answer.status, 200, "{place}");
        }
    }
}
