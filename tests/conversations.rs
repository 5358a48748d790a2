//! What the gateway keeps and works out for clients whose provider can't: answers of
//! the Responses API that are gone on from, counts of tokens, legacy completions.

#![expect(
    clippy::unwrap_used,
    reason = "in helpers of tests a failure is the test's failure"
)]

mod support;

use serde_json::{Map, Value, json};
use support::dialect::Dialect;
use support::talk::{Fact, PROVIDERS, last_body, model, told};
use support::upstream::Upstream;
use support::{FILE, Gateway, Response};

const PATH: &str = "/v1/responses";

fn newest_row(gateway: &Gateway, count: usize) -> Map<String, Value> {
    gateway.rows(count).into_iter().next().unwrap()
}

fn keyed(gateway: &Gateway, key: &str, method: &str, path: &str, body: &Value) -> Response {
    let bearer = format!("Bearer {key}");
    let headers = [
        ("authorization", bearer.as_str()),
        ("content-type", "application/json"),
    ];
    let body = match body {
        Value::Null => String::new(),
        body => body.to_string(),
    };
    gateway.request(method, path, &headers, body)
}

fn app(gateway: &Gateway, method: &str, path: &str, body: &Value) -> Response {
    keyed(gateway, "sk-plexus-tests", method, path, body)
}

/// An answer's id, whether it came whole or as a stream.
fn id(stream: bool, answer: &Response) -> String {
    let response = if stream {
        let events = Dialect::Responses.events(&answer.body).unwrap();
        events.last().unwrap().json()["response"].clone()
    } else {
        answer.json()
    };
    assert_eq!(response["status"], "completed", "{response}");
    response["id"].as_str().unwrap().to_owned()
}

fn said(texts: &[&str]) -> Vec<Fact> {
    let echoed = |text: &&str| [Fact::User((*text).into()), Fact::Assistant((*text).into())];
    let mut facts: Vec<Fact> = texts.iter().flat_map(echoed).collect();
    facts.pop();
    facts
}

#[test]
fn a_conversation_goes_on_from_its_last_answer_whatever_the_provider_speaks() {
    for provider in [Dialect::Chat, Dialect::Messages, Dialect::Gemini] {
        for stream in [false, true] {
            let mut gateway = Gateway::with(PROVIDERS);
            let ask = |gateway: &Gateway, text: &str, previous: &Value| {
                let body = json!({"model": model(provider, "echo+reasoning"), "input": text,
                    "previous_response_id": previous, "stream": stream});
                let answer = gateway.ask(PATH, &body).expect(200);
                id(stream, &answer)
            };
            let first = ask(&gateway, "one", &Value::Null);
            let second = ask(&gateway, "two", &json!(first));
            assert_eq!(
                told(provider, &last_body(&gateway)).0,
                said(&["one", "two"])
            );
            gateway.restart();
            let third = ask(&gateway, "three", &json!(second));
            let wanted = said(&["one", "two", "three"]);
            assert_eq!(
                told(provider, &last_body(&gateway)).0,
                wanted,
                "{provider:?}"
            );
            // From an earlier answer, as if the later had not been.
            ask(&gateway, "other", &json!(first));
            assert_eq!(
                told(provider, &last_body(&gateway)).0,
                said(&["one", "other"])
            );
            assert!(![&first, &second].contains(&&third));
        }
    }
}

#[test]
fn a_conversation_goes_on_at_a_provider_of_another_protocol() {
    let gateway = Gateway::with(PROVIDERS);
    let mut previous = Value::Null;
    let mut texts = Vec::new();
    let names: Vec<String> = (0..8).map(|turn| format!("turn {turn}")).collect();
    for (turn, text) in names.iter().enumerate() {
        let provider = Dialect::FOUR[turn % 4];
        texts.push(text.as_str());
        let body = json!({"model": model(provider, "echo+reasoning"), "input": text,
            "previous_response_id": previous});
        let answer = gateway.ask(PATH, &body).expect(200);
        assert_eq!(
            told(provider, &last_body(&gateway)).0,
            said(&texts),
            "{provider:?}"
        );
        previous = json!(id(false, &answer));
    }
}

#[test]
fn calls_are_answered_by_their_ids_alone() {
    let gateway = Gateway::with(PROVIDERS);
    for provider in [Dialect::Chat, Dialect::Messages, Dialect::Gemini] {
        let tools = json!([{"type": "function", "name": "weather", "strict": false,
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}]);
        let ask = json!({"model": model(provider, "tools=2+reasoning"), "input": "rain?",
            "tools": tools});
        let answer = gateway.ask(PATH, &ask).expect(200).json();
        let output = answer["output"].as_array().unwrap();
        let outputs: Vec<Value> = output
            .iter()
            .filter(|item| item["type"] == "function_call")
            .map(|call| json!({"type": "function_call_output", "call_id": call["call_id"], "output": "no"}))
            .collect();
        assert_eq!(outputs.len(), 2);
        let ask = json!({"model": model(provider, ""), "input": outputs, "tools": tools,
            "previous_response_id": answer["id"]});
        gateway.ask(PATH, &ask).expect(200);
        let facts = told(provider, &last_body(&gateway)).0;
        assert_eq!(facts.len(), 5, "{facts:?}");
        assert_eq!(facts[4], Fact::Result("no".into()));
    }
}

#[test]
fn an_item_is_said_again_by_its_id() {
    let gateway = Gateway::with(PROVIDERS);
    let name = model(Dialect::Messages, "echo");
    let first = gateway
        .ask(PATH, &json!({"model": name, "input": "one"}))
        .expect(200)
        .json();
    let item = first["output"][0]["id"].clone();
    let body = json!({"model": name, "previous_response_id": first["id"],
        "input": [{"type": "item_reference", "id": item}, {"role": "user", "content": "two"}]});
    gateway.ask(PATH, &body).expect(200);
    let body = json!({"model": name, "input": [{"type": "item_reference", "id": "msg_none"}]});
    let refused = gateway.ask(PATH, &body).expect(400);
    assert!(
        refused.text().contains("Item with id 'msg_none' not found"),
        "{}",
        refused.text()
    );
}

#[test]
fn what_was_kept_is_its_keys_own_until_it_is_deleted() {
    let gateway = Gateway::with(PROVIDERS);
    let name = model(Dialect::Messages, "echo");
    let answer = gateway
        .ask(PATH, &json!({"model": name, "input": "one"}))
        .expect(200)
        .json();
    let id = answer["id"].as_str().unwrap();
    let own = format!("{PATH}/{id}");
    let none = &Value::Null;

    let again = json!({"model": name, "input": "two", "previous_response_id": id});
    let refused = keyed(&gateway, "sk-other", "POST", PATH, &again)
        .expect(400)
        .json();
    assert_eq!(refused["error"]["code"], "previous_response_not_found");
    assert_eq!(refused["error"]["param"], "previous_response_id");
    for method in ["GET", "DELETE"] {
        keyed(&gateway, "sk-other", method, &own, none).expect(404);
    }

    assert_eq!(app(&gateway, "GET", &own, none).expect(200).json(), answer);
    let items = app(&gateway, "GET", &format!("{own}/input_items"), none)
        .expect(200)
        .json();
    assert_eq!(items["object"], "list");
    assert_eq!(items["data"][0]["role"], "user", "{items}");
    assert_eq!(items["first_id"], items["data"][0]["id"]);
    assert!(items["first_id"].is_string(), "{items}");
    let cancel = app(&gateway, "POST", &format!("{own}/cancel"), none).expect(400);
    assert!(
        cancel
            .text()
            .contains("Cannot cancel a synchronous response.")
    );
    let deleted = app(&gateway, "DELETE", &own, none).expect(200).json();
    assert_eq!(deleted["deleted"], true);
    app(&gateway, "GET", &own, none).expect(404);
    gateway.ask(PATH, &again).expect(400);
}

#[test]
fn what_is_not_to_be_stored_is_not() {
    let gateway = Gateway::with(PROVIDERS);
    let name = model(Dialect::Gemini, "echo");
    let body = json!({"model": name, "input": "one", "store": false});
    let answer = gateway.ask(PATH, &body).expect(200).json();
    assert_eq!(answer["store"], false);
    let path = format!("{PATH}/{}", answer["id"].as_str().unwrap());
    app(&gateway, "GET", &path, &Value::Null).expect(404);
    let body = json!({"model": name, "input": "two", "previous_response_id": answer["id"]});
    gateway.ask(PATH, &body).expect(400);
}

/// A question for tokens in a protocol, and where the number stands.
fn question(client: Dialect, name: &str) -> (String, Value, &'static str) {
    let (path, mut body) = client.ask(name, false);
    match client {
        Dialect::Messages => {
            body.as_object_mut().unwrap().remove("max_tokens");
            (format!("{path}/count_tokens"), body, "input_tokens")
        }
        Dialect::Responses => (format!("{path}/input_tokens"), body, "input_tokens"),
        _ => (
            path.replace("generateContent", "countTokens"),
            body,
            "totalTokens",
        ),
    }
}

#[test]
fn tokens_are_counted_by_the_provider_where_it_can_and_estimated_where_it_cannot() {
    let gateway = Gateway::with(PROVIDERS);
    for client in [Dialect::Messages, Dialect::Responses, Dialect::Gemini] {
        for provider in Dialect::FOUR {
            let (path, body, field) = question(client, &model(provider, "tokens_in=4321"));
            let before = gateway.provider.simulator.stats().requests;
            let answer = gateway.ask(&path, &body).expect(200);
            let place = format!("{client:?} to {provider:?}: {}", answer.text());
            let tokens = answer.json()[field].as_u64().unwrap();
            let asked = gateway.provider.simulator.stats().requests - before;
            let counted =
                provider == client || matches!(provider, Dialect::Messages | Dialect::Gemini);
            if counted {
                assert_eq!((tokens, asked), (4321, 1), "{place}");
            } else {
                assert!((1..100).contains(&tokens), "{place}");
                let notes = answer.header("x-plexus-notes").unwrap_or_default();
                assert!(notes.contains("token_count"), "{place}: {notes}");
                assert_eq!(asked, 0, "{place}");
            }
        }
    }
}

#[test]
fn legacy_completions_are_had_from_providers_that_know_none() {
    let gateway = Gateway::with(PROVIDERS);
    let mut rows = 0;
    for provider in Dialect::FOUR {
        for stream in [false, true] {
            let name = model(provider, "echo+tokens_in=50+tokens_out=30");
            let body = json!({"model": name, "prompt": "Once upon a time", "max_tokens": 40,
                "stream": stream, "stream_options": if stream { json!({"include_usage": true}) } else { Value::Null }});
            let answer = gateway.ask("/v1/completions", &body).expect(200);
            let place = format!("{provider:?}: {}", answer.text());
            let documents = if stream {
                let events = Dialect::Chat.events(&answer.body).unwrap();
                assert_eq!(events.last().unwrap().data, "[DONE]", "{place}");
                events.iter().map(support::dialect::Event::json).collect()
            } else {
                vec![answer.json()]
            };
            let text: String = documents
                .iter()
                .filter_map(|document| document["choices"][0]["text"].as_str())
                .collect();
            assert_eq!(text, "Once upon a time", "{place}");
            let finished = documents
                .iter()
                .any(|document| document["choices"][0]["finish_reason"] == "stop");
            assert!(finished, "{place}");
            let objects = documents.iter().filter(|document| document.is_object());
            for document in objects {
                assert_eq!(document["object"], "text_completion", "{place}");
            }
            let usage = documents
                .iter()
                .find(|document| document["usage"].is_object())
                .unwrap();
            assert_eq!(usage["usage"]["prompt_tokens"], 50, "{place}");
            assert_eq!(usage["usage"]["completion_tokens"], 30, "{place}");
            rows += 1;
            let row = newest_row(&gateway, rows);
            assert_eq!(row["incomingApiType"], "completions", "{place}");
            assert_eq!(row["outgoingApiType"], provider.name(), "{place}");
        }
    }
}

#[test]
fn an_answer_that_is_not_kept_does_not_say_that_it_is() {
    let gateway = Gateway::with(&format!("{FILE}store: {{ responses: false }}\n"));
    let asked = json!({ "model": "by-messages", "input": "hi" });
    let answer = app(&gateway, "POST", PATH, &asked);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = answer.json();
    assert_eq!(answer["store"], false);
    let path = format!("{PATH}/{}", answer["id"].as_str().unwrap());
    assert_eq!(app(&gateway, "GET", &path, &Value::Null).status, 404);
    let next =
        json!({ "model": "by-messages", "input": "on", "previous_response_id": answer["id"] });
    let refused = app(&gateway, "POST", PATH, &next);
    assert_eq!(refused.status, 400, "{}", refused.text());
    assert_eq!(refused.json()["error"]["param"], "previous_response_id");
}

/// A provider of Responses that works in the background, and says what it was asked.
fn in_background() -> Upstream {
    Upstream::start(|mut wire| {
        while let Some(request) = wire.request() {
            let request = String::from_utf8_lossy(&request).into_owned();
            let asked: Vec<&str> = request
                .lines()
                .next()
                .unwrap_or_default()
                .split(' ')
                .collect();
            let (status, body) = match asked.as_slice() {
                ["POST", "/v1/responses", _] if request.contains("\"background\":true") => {
                    ("queued", "")
                }
                ["POST", "/v1/responses", _] if request.contains("\"conversation\":\"conv_1\"") => {
                    ("completed", r#","conversation":{"id":"conv_1"}"#)
                }
                ["GET", "/v1/responses/resp_b", _] => ("in_progress", ""),
                ["POST", "/v1/responses/resp_b/cancel", _] => ("cancelled", ""),
                _ => ("failed", ""),
            };
            wire.answer(
                "200 OK",
                &format!(
                    r#"{{"id":"resp_b","object":"response","created_at":1,"model":"m","status":"{status}","output":[]{body}}}"#
                ),
            );
        }
    })
}

#[test]
fn background_and_conversation_are_the_providers_own_or_are_refused_by_name() {
    let provider = in_background();
    let gateway = Gateway::with(&format!(
        "providers:\n  own: {{ api_base_url: {{ responses: 'http://{0}/v1' }}, api_key: k }}\n  other: {{ api_base_url: {{ chat: 'http://{0}/v1' }}, api_key: k }}\n\
         models:\n  own: {{ targets: [{{ provider: own, model: m }}] }}\n  other: {{ targets: [{{ provider: other, model: m }}] }}\nkeys:\n  app: {{ secret: sk-plexus-tests }}\n",
        provider.address
    ));
    let body = json!({"model": "own", "input": "hi", "background": true});
    let queued = gateway.ask("/v1/responses", &body).expect(200).json();
    assert_eq!(
        (&queued["id"], &queued["status"]),
        (&json!("resp_b"), &json!("queued"))
    );
    gateway.rows(1);
    let headers = [("authorization", "Bearer sk-plexus-tests")];
    let status = |method: &str, path: &str| {
        let answer = gateway.request(method, path, &headers, "").expect(200);
        answer.json()["status"].clone()
    };
    support::await_some("the answer to be kept", || {
        let found = gateway.request("GET", "/v1/responses/resp_b", &headers, "");
        (found.status == 200).then_some(())
    });
    assert_eq!(status("GET", "/v1/responses/resp_b"), "in_progress");
    assert_eq!(status("POST", "/v1/responses/resp_b/cancel"), "cancelled");
    let body = json!({"model": "own", "input": "hi", "conversation": "conv_1"});
    let answer = gateway.ask("/v1/responses", &body).expect(200).json();
    assert_eq!(answer["conversation"]["id"], "conv_1");

    for (name, value) in [
        ("background", json!(true)),
        ("conversation", json!("conv_1")),
    ] {
        let mut body = json!({"model": "other", "input": "hi"});
        body[name] = value;
        let refused = gateway.ask("/v1/responses", &body).expect(400).json();
        assert_eq!(refused["error"]["param"], name, "{refused}");
        assert_eq!(
            refused["error"]["code"], "unsupported_parameter",
            "{refused}"
        );
        let said = refused["error"]["message"].as_str().unwrap();
        assert!(said.contains("protocol"), "{said}");
    }
}

#[test]
fn a_key_says_where_reasoning_is_looked_for() {
    let settings = "  renamed: { secret: sk-renamed, chatReasoning: reasoning }\n  detailed: { secret: sk-detailed, chat_reasoning: details }\n  content: { secret: sk-content, responsesReasoning: content }\n";
    let gateway = Gateway::with(&format!("{PROVIDERS}{settings}"));
    let ask = |secret: &str, path: &str, body: &Value| {
        let bearer = format!("Bearer {secret}");
        let headers = [
            ("authorization", bearer.as_str()),
            ("content-type", "application/json"),
        ];
        gateway
            .request("POST", path, &headers, body.to_string())
            .expect(200)
            .json()
    };
    let name = model(Dialect::Messages, "reasoning+echo");
    let chat = json!({"model": name, "reasoning_effort": "low", "messages": [{"role": "user", "content": "hi"}]});
    let message =
        |secret: &str| ask(secret, "/v1/chat/completions", &chat)["choices"][0]["message"].clone();
    let usual = message("sk-plexus-tests");
    assert!(
        usual["reasoning_content"].is_string() && usual["reasoning"].is_null(),
        "{usual}"
    );
    let renamed = message("sk-renamed");
    assert_eq!(
        (&renamed["reasoning"], &renamed["reasoning_content"]),
        (&usual["reasoning_content"], &Value::Null)
    );
    let detailed = message("sk-detailed");
    assert_eq!(detailed["reasoning_content"], usual["reasoning_content"]);
    assert_eq!(
        detailed["reasoning_details"][0]["text"], usual["reasoning_content"],
        "{detailed}"
    );

    let body =
        json!({"model": name, "reasoning": {"effort": "low", "summary": "auto"}, "input": "hi"});
    let item = |secret: &str| ask(secret, "/v1/responses", &body)["output"][0].clone();
    let usual = item("sk-plexus-tests");
    assert_eq!(usual["type"], "reasoning");
    assert!(usual["summary"][0]["text"].is_string(), "{usual}");
    let content = item("sk-content");
    assert_eq!(content["summary"], json!([]));
    assert_eq!(
        content["content"][0]["text"], usual["summary"][0]["text"],
        "{content}"
    );
}
