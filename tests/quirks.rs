//! What single providers refuse, and what becomes of it: fields that the operator has
//! changed, refusals that are repaired, and what was learned from them.

#![expect(
    clippy::unwrap_used,
    reason = "in helpers of tests a failure is the test's failure"
)]

mod support;

use serde_json::{Map, Value, json};
use support::dialect::{Dialect, Ending};
use support::upstream::{COMPLETION, Upstream};
use support::{Gateway, Response};

/// Providers that speak one protocol each, with what stands in `adapters` for them,
/// and aliases `chat`, `responses`, `messages` and `gemini` with that model there.
fn file(model: &str, adapters: &str) -> String {
    let mut text = String::from("providers:\n");
    for name in ["chat", "responses", "messages", "gemini"] {
        let base = if name == "gemini" { "" } else { "/v1" };
        text.push_str(&format!(
            "  {name}: {{ api_base_url: {{ {name}: 'http://SIMULATOR{base}' }}, api_key: up-{name}, models: {{ '{model}': {{ {adapters} }} }} }}\n"
        ));
    }
    text.push_str("  spare: { api_base_url: 'http://SIMULATOR/v1', api_key: up-spare }\nmodels:\n");
    for name in ["chat", "responses", "messages", "gemini"] {
        text.push_str(&format!(
            "  {name}: {{ selector: in_order, targets: [{{ provider: {name}, model: '{model}' }}] }}\n"
        ));
    }
    text.push_str(&format!(
        "  either: {{ selector: in_order, targets: [{{ provider: chat, model: '{model}' }}, {{ provider: spare, model: simulated }}] }}\n"
    ));
    text.push_str("keys:\n  app: { secret: sk-plexus-tests }\n");
    text
}

/// The bodies that the provider received, oldest first.
fn bodies(gateway: &Gateway) -> Vec<Value> {
    let requests = gateway.provider.simulator.requests();
    let bodies = requests.into_iter().map(|request| request.body.unwrap());
    bodies
        .map(|body| serde_json::from_slice(&body).unwrap())
        .collect()
}

fn ask(gateway: &Gateway, dialect: Dialect, stream: bool, extra: &Value) -> Response {
    let (path, mut body) = dialect.ask(dialect.name(), stream);
    for (name, value) in extra.as_object().unwrap() {
        body[name] = value.clone();
    }
    gateway.ask(&path, &body)
}

fn newest_row(gateway: &Gateway, count: usize) -> Map<String, Value> {
    gateway.rows(count).into_iter().next().unwrap()
}

#[test]
fn a_field_that_is_refused_is_left_out_and_the_next_request_needs_no_failed_try() {
    for dialect in Dialect::FOUR {
        for stream in [false, true] {
            let gateway = Gateway::with(&file("m+refuses=foo", ""));
            let extra = json!({"foo": 1, "bar": 2});
            let answer = ask(&gateway, dialect, stream, &extra).expect(200);
            assert_eq!(
                answer.header("x-plexus-notes"),
                Some("emulated:parameter_removed=foo")
            );
            let route = answer.header("x-plexus-route").unwrap();
            assert!(route.ends_with("; attempts=1"), "{route}");
            if stream {
                assert_eq!(dialect.ending(&answer.body), Ending::Finished);
            }
            let seen = bodies(&gateway);
            assert_eq!(seen.len(), 2, "{dialect:?}");
            assert_eq!(seen[0]["foo"], 1);
            assert_eq!(
                (&seen[1]["foo"], &seen[1]["bar"]),
                (&Value::Null, &json!(2))
            );

            let second = ask(&gateway, dialect, stream, &extra).expect(200);
            assert_eq!(
                second.header("x-plexus-notes"),
                Some("emulated:parameter_removed=foo")
            );
            let seen = bodies(&gateway);
            assert_eq!(seen.len(), 3, "{dialect:?}");
            assert_eq!(
                (&seen[2]["foo"], &seen[2]["bar"]),
                (&Value::Null, &json!(2))
            );
        }
    }
}

#[test]
fn a_repaired_request_is_one_attempt_and_its_history_says_why() {
    let gateway = Gateway::with(&file("m+refuses=seed", ""));
    ask(&gateway, Dialect::Chat, false, &json!({"seed": 7})).expect(200);
    let row = newest_row(&gateway, 1);
    assert_eq!(row["attemptCount"], 1);
    assert_eq!(row["responseStatus"], "success");
    let history: Value = serde_json::from_str(row["retryHistory"].as_str().unwrap()).unwrap();
    assert_eq!(history[0]["statusCode"], 400);
    let reason = history[0]["reason"].as_str().unwrap();
    assert!(reason.contains("seed") && reason.ends_with("sent again: parameter_removed=seed"));
    assert_eq!(history[1]["status"], "success");
}

#[test]
fn thinking_with_a_refused_signature_goes_and_nothing_is_learned_from_it() {
    let history = json!({"messages": [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "t", "signature": "c3RhbGU="}, {"type": "text", "text": "a"}]},
        {"role": "user", "content": "r"}]});
    let gateway = Gateway::with(&file("m+refuses_signatures", ""));
    for round in 1..=2 {
        let answer = ask(&gateway, Dialect::Messages, true, &history).expect(200);
        assert_eq!(
            answer.header("x-plexus-notes"),
            Some("emulated:reasoning_stripped")
        );
        let seen = bodies(&gateway);
        assert_eq!(seen.len(), 2 * round);
        let blocks = seen.last().unwrap()["messages"][1]["content"].clone();
        assert_eq!(blocks, json!([{"type": "text", "text": "a"}]));
    }
}

#[test]
fn ciphertext_and_thought_signatures_go_in_their_protocols() {
    let gateway = Gateway::with(&file("m+refuses_signatures", ""));
    let input = json!({"input": [
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"},
        {"role": "user", "content": "hello"}]});
    ask(&gateway, Dialect::Responses, false, &input).expect(200);
    let seen = bodies(&gateway);
    assert_eq!(
        seen[1]["input"],
        json!([{"role": "user", "content": "hello"}])
    );
    let contents = json!({"contents": [
        {"role": "model", "parts": [{"text": "a", "thoughtSignature": "x"}]},
        {"role": "user", "parts": [{"text": "hello"}]}]});
    ask(&gateway, Dialect::Gemini, false, &contents).expect(200);
    let seen = bodies(&gateway);
    assert_eq!(seen[3]["contents"][0]["parts"], json!([{"text": "a"}]));
}

#[test]
fn a_gemini_client_that_drops_signatures_is_answered_at_the_first_try() {
    let gateway = Gateway::with(&file("gemini-3-pro+strict", ""));
    let call = json!({"functionCall": {"name": "f", "args": {}}});
    let result = json!({"functionResponse": {"name": "f", "response": {"a": 1}}});
    let contents = json!({
        "contents": [
            {"role": "user", "parts": [{"text": "go"}]},
            {"role": "model", "parts": [call, call]},
            {"role": "user", "parts": [result, result]}],
        "tools": [{"functionDeclarations": [{"name": "f"}]}]});
    for stream in [false, true] {
        ask(&gateway, Dialect::Gemini, stream, &contents).expect(200);
    }
    let seen = bodies(&gateway);
    assert_eq!(seen.len(), 2, "nothing was refused");
    let parts = &seen[0]["contents"][1]["parts"];
    assert_eq!(
        parts[0]["thoughtSignature"],
        "skip_thought_signature_validator"
    );
    assert_eq!(parts[1], call);
    let row = newest_row(&gateway, 2);
    assert!(row["notes"].to_string().contains("thought_signature"));
}

#[test]
fn signatures_of_geminis_are_taken_out_where_chat_refuses_them() {
    let adapter = "adapter: [strip_gemini_signatures]";
    let gateway = Gateway::with(&file("m+strict", adapter));
    let call = json!({"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}});
    let mut signed = call.clone();
    signed["extra_content"] = json!({"google": {"thought_signature": "c2ln"}});
    let messages = |call: &Value| {
        json!({"messages": [
            {"role": "user", "content": "go"},
            {"role": "assistant", "content": null, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c", "content": "1"}],
        "tools": [{"type": "function", "function": {"name": "f"}}]})
    };
    ask(&gateway, Dialect::Chat, false, &messages(&signed)).expect(200);
    let seen = bodies(&gateway);
    assert_eq!(seen.len(), 1, "nothing was refused");
    assert_eq!(seen[0]["messages"], messages(&call)["messages"]);
}

#[test]
fn two_repairs_and_no_more() {
    let extra = json!({"aa": 1, "bb": 2, "cc": 3});
    let gateway = Gateway::with(&file("m+refuses=aa+refuses=bb", ""));
    let answer = ask(&gateway, Dialect::Chat, false, &extra).expect(200);
    let notes = answer.header("x-plexus-notes");
    assert_eq!(
        notes,
        Some("emulated:parameter_removed=aa;emulated:parameter_removed=bb")
    );
    assert_eq!(bodies(&gateway).len(), 3);

    let gateway = Gateway::with(&file("m+refuses=aa+refuses=bb+refuses=cc", ""));
    let answer = ask(&gateway, Dialect::Chat, false, &extra).expect(400);
    assert!(answer.text().contains("'cc'"), "{}", answer.text());
    assert_eq!(bodies(&gateway).len(), 3);
    // What did not help was not learned.
    ask(&gateway, Dialect::Chat, false, &json!({"aa": 1})).expect(200);
    assert_eq!(bodies(&gateway)[3]["aa"], 1);
}

#[test]
fn what_no_change_would_cure_goes_to_the_client_at_once() {
    let gateway = Gateway::with(&file("m+refuses=messages", ""));
    let answer = ask(&gateway, Dialect::Chat, false, &json!({})).expect(400);
    assert!(answer.text().contains("messages"), "{}", answer.text());
    assert_eq!(bodies(&gateway).len(), 1);
}

#[test]
fn in_strict_mode_nothing_is_repaired_behind_the_clients_back() {
    let gateway = Gateway::with(&format!("strict: true\n{}", file("m+refuses=foo", "")));
    let answer = ask(&gateway, Dialect::Chat, false, &json!({"foo": 1})).expect(400);
    assert!(answer.text().contains("foo"));
    assert_eq!(bodies(&gateway).len(), 1);
}

#[test]
fn the_rest_of_a_repaired_body_keeps_its_bytes() {
    let gateway = Gateway::with(&file("m+refuses=seed", ""));
    let body = "{ \"model\" : \"chat\",\"seed\":1e400 ,\n \"messages\":[ {\"role\":\"user\",\"content\":\"\\u00e9\"}],\"big\":12345678901234567890}";
    let headers = [
        ("authorization", "Bearer sk-plexus-tests"),
        ("content-type", "application/json"),
    ];
    gateway
        .request("POST", "/v1/chat/completions", &headers, body)
        .expect(200);
    let sent = gateway.provider.simulator.requests()[1]
        .body
        .clone()
        .unwrap();
    let wanted = body
        .replace("\"chat\"", "\"m+refuses=seed\"")
        .replace(",\"seed\":1e400", "");
    assert_eq!(String::from_utf8_lossy(&sent), wanted);
}

#[test]
fn a_translated_request_is_repaired_in_the_protocol_it_went_out_in() {
    let text = file("m+refuses=max_output_tokens", "").replace(
        "  chat: { selector",
        "  over: { targets: [{ provider: responses, model: 'm+refuses=max_output_tokens' }] }\n  chat: { selector",
    );
    let gateway = Gateway::with(&text);
    let body = json!({"model": "over", "max_tokens": 9, "messages": [{"role": "user", "content": "hello"}]});
    for round in 0..2 {
        let answer = gateway.ask("/v1/chat/completions", &body).expect(200);
        let notes = answer.header("x-plexus-notes").unwrap();
        assert!(
            notes.contains("emulated:parameter_removed=max_output_tokens"),
            "{notes}"
        );
        assert_eq!(bodies(&gateway).len(), 2 + round);
    }
}

#[test]
fn a_repair_that_does_not_help_leaves_the_other_targets_to_be_tried() {
    // Refuses the field with a 400, and everything else with a 503.
    let provider = Upstream::start(|mut wire| {
        while let Some(request) = wire.request() {
            if String::from_utf8_lossy(&request).contains("\"foo\"") {
                wire.answer(
                    "400 Bad Request",
                    r#"{"error":{"message":"Unknown parameter: 'foo'.","param":"foo","code":"unknown_parameter"}}"#,
                );
            } else {
                wire.answer("503 Service Unavailable", "{}");
            }
        }
    });
    let gateway = Gateway::with(&format!(
        "providers:\n  odd: {{ api_base_url: 'http://{}/v1', api_key: k }}\n  spare: {{ api_base_url: 'http://SIMULATOR/v1', api_key: k }}\n\
         models:\n  a: {{ selector: in_order, targets: [{{ provider: odd, model: m }}, {{ provider: spare, model: simulated }}] }}\n\
         keys:\n  app: {{ secret: sk-plexus-tests }}\n",
        provider.address
    ));
    let body = json!({"model": "a", "foo": 1, "messages": [{"role": "user", "content": "hello"}]});
    let answer = gateway.ask("/v1/chat/completions", &body).expect(200);
    assert_eq!(
        answer.header("x-plexus-route"),
        Some("spare/simulated; attempts=2")
    );
    assert_eq!(provider.requests(), 2);
    // The spare target got the client's own request.
    assert_eq!(bodies(&gateway)[0]["foo"], 1);
    assert_eq!(answer.header("x-plexus-notes"), None);
}

#[test]
fn what_a_server_says_in_its_own_words_is_understood() {
    let wordings = [
        (
            "422 Unprocessable Entity",
            r#"{"detail":[{"type":"extra_forbidden","loc":["body","foo"],"msg":"Extra inputs are not permitted","input":1}]}"#,
        ),
        (
            "400 Bad Request",
            r#"{"message":"property 'foo' is unsupported","type":"invalid_request_error","code":"wrong_api_format"}"#,
        ),
        (
            "400 Bad Request",
            r#"{"code":"Client specified an invalid argument","error":"Argument not supported on this model: foo"}"#,
        ),
        (
            "400 Bad Request",
            "Failed to deserialize the JSON body into the target type: unknown field `foo`",
        ),
    ];
    for (status, words) in wordings {
        let provider = Upstream::start(move |mut wire| {
            while let Some(request) = wire.request() {
                if String::from_utf8_lossy(&request).contains("\"foo\"") {
                    wire.answer(status, words);
                } else {
                    wire.answer("200 OK", COMPLETION);
                }
            }
        });
        let gateway = Gateway::with(&format!(
            "providers:\n  p: {{ api_base_url: 'http://{}/v1', api_key: k }}\nmodels:\n  a: {{ targets: [{{ provider: p, model: m }}] }}\nkeys:\n  app: {{ secret: sk-plexus-tests }}\n",
            provider.address
        ));
        let body = json!({"model": "a", "foo": 1, "messages": [{"role": "user", "content": "x"}]});
        gateway.ask("/v1/chat/completions", &body).expect(200);
        gateway.ask("/v1/chat/completions", &body).expect(200);
        assert_eq!(provider.requests(), 3, "{words}");
    }
}

#[test]
fn configured_adapters_change_what_the_provider_gets() {
    let adapters = "adapter: [suppress_developer_role, reasoning_content, {name: web_search_coercion, options: {target: openrouter}}]";
    let gateway = Gateway::with(&file("simulated", adapters));
    let answer = ask(
        &gateway,
        Dialect::Chat,
        false,
        &json!({
            "messages": [{"role": "developer", "content": "d"}, {"role": "assistant", "reasoning": "r", "content": "a"}, {"role": "user", "content": "u"}],
            "tools": [{"type": "web_search"}],
        }),
    );
    let notes = answer.expect(200);
    assert_eq!(notes.header("x-plexus-notes"), None, "nothing was lost");
    let sent = &bodies(&gateway)[0];
    assert_eq!(sent["messages"][0]["role"], "system");
    assert_eq!(
        sent["messages"][1],
        json!({"role": "assistant", "reasoning_content": "r", "content": "a"})
    );
    assert_eq!(sent["tools"], json!([{"type": "openrouter:web_search"}]));
    let noted = newest_row(&gateway, 1)["notes"].to_string();
    assert!(noted.contains("developer>system"), "{noted}");
}

#[test]
fn gpt5_gets_no_sampling_options_unless_that_is_switched_off() {
    let extra = json!({"temperature": 0.2, "max_tokens": 9});
    let gateway = Gateway::with(&file("gpt-5-mini", ""));
    let answer = ask(&gateway, Dialect::Chat, false, &extra).expect(200);
    assert_eq!(answer.header("x-plexus-notes"), Some("dropped:temperature"));
    let sent = &bodies(&gateway)[0];
    assert_eq!(sent["temperature"], Value::Null);
    assert_eq!(sent["max_completion_tokens"], 9);

    let off = "adapter: [{name: suppress_unsupported_gpt5_options, enabled: false}]";
    let gateway = Gateway::with(&file("gpt-5-mini", off));
    ask(&gateway, Dialect::Chat, false, &extra).expect(200);
    let sent = &bodies(&gateway)[0];
    assert_eq!(
        (&sent["temperature"], &sent["max_tokens"]),
        (&json!(0.2), &json!(9))
    );
}

#[test]
fn an_overridden_model_is_asked_for_and_the_row_keeps_the_configured_one() {
    let adapters = "adapter: [{name: model_override, options: {rules: [{model: simulated, rewriteTo: simulated-deep, conditions: [{field: deep, value: true}]}]}}]";
    let gateway = Gateway::with(&file("simulated", adapters));
    ask(&gateway, Dialect::Chat, false, &json!({"deep": true})).expect(200);
    assert_eq!(bodies(&gateway)[0]["model"], "simulated-deep");
    assert_eq!(newest_row(&gateway, 1)["selectedModelName"], "simulated");
    ask(&gateway, Dialect::Chat, false, &json!({"deep": false})).expect(200);
    assert_eq!(bodies(&gateway)[1]["model"], "simulated");
    ask(&gateway, Dialect::Gemini, false, &json!({"deep": true})).expect(200);
    let target = gateway.provider.simulator.requests()[2].target.clone();
    assert!(
        target.contains("/models/simulated-deep:generateContent"),
        "{target}"
    );
}

#[test]
fn without_any_of_it_the_body_is_the_clients() {
    let gateway = Gateway::with(&file("simulated", ""));
    for dialect in Dialect::FOUR {
        let extra = json!({"temperature": 0.2, "foo": {"bar": [1, 2]}});
        let answer = ask(&gateway, dialect, false, &extra).expect(200);
        assert_eq!(answer.header("x-plexus-notes"), None);
    }
    let (_, mut body) = Dialect::Messages.ask("simulated", false);
    body["temperature"] = json!(0.2);
    body["foo"] = json!({"bar": [1, 2]});
    assert_eq!(bodies(&gateway)[2], body);
}
