//! What the strict provider takes and what it refuses.

use serde_json::{Value, json};

use super::super::answer::signature;
use super::super::ask::Ask;
use super::super::route::{Service, Vendor};
use super::refusal;

fn said(service: &Service, vendor: Vendor, body: &Value) -> Option<String> {
    let ask = Ask::from_json(body.to_string().as_bytes()).unwrap();
    refusal(service, &ask, "gemini-3-pro", vendor).map(|failure| failure.message)
}

#[track_caller]
fn refused(service: &Service, vendor: Vendor, body: &Value, words: &str) {
    let message = said(service, vendor, body).unwrap_or_default();
    assert!(message.contains(words), "{message:?} has not {words:?}");
}

#[test]
fn anthropic_wants_results_first_and_its_own_signatures() {
    let talk = |thought: &str, answer: Value| {
        json!({"max_tokens": 9, "messages": [
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": thought, "signature": signature("messages", "m", "t")},
                {"type": "tool_use", "id": "a", "name": "f", "input": {}}]},
            {"role": "user", "content": answer}]})
    };
    let result = json!({"type": "tool_result", "tool_use_id": "a", "content": "r"});
    let text = json!({"type": "text", "text": "and"});
    let (service, vendor) = (Service::Messages, Vendor::Anthropic);
    let whole = talk("t", json!([result, text]));
    assert_eq!(said(&service, vendor, &whole), None);
    refused(
        &service,
        vendor,
        &talk("t", json!([text, result])),
        "without `tool_result`",
    );
    refused(
        &service,
        vendor,
        &talk("t", json!("x")),
        "without `tool_result`",
    );
    refused(
        &service,
        vendor,
        &talk("other", json!([result])),
        "Invalid `signature`",
    );
    let mut more = whole;
    more["stop"] = json!("x");
    refused(&service, vendor, &more, "stop: Extra inputs");
}

#[test]
fn chat_wants_each_call_answered_at_once_by_its_id() {
    let call = json!({"role": "assistant", "tool_calls": [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}]});
    let talk = |id: &str| {
        json!({"messages": [{"role": "user", "content": "q"}, call,
            {"role": "tool", "tool_call_id": id, "content": "r"}]})
    };
    let (service, vendor) = (Service::Chat, Vendor::OpenAi);
    assert_eq!(said(&service, vendor, &talk("a")), None);
    refused(
        &service,
        vendor,
        &talk("b"),
        "must be a response to a preceding",
    );
    refused(
        &service,
        vendor,
        &json!({"messages": [call]}),
        "must be followed by tool messages",
    );
    let alone = json!({"messages": [{"role": "user", "content": "q"}], "stream_options": {}});
    refused(&service, vendor, &alone, "'stream_options'");
}

#[test]
fn responses_want_calls_outputs_and_what_reasoning_led_to() {
    let (service, vendor) = (Service::Responses, Vendor::OpenAi);
    let reasoning = |made: &str| json!({"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": signature(made, "m", "")});
    let call = json!({"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"});
    let output = json!({"type": "function_call_output", "call_id": "a", "output": "r"});
    let own = json!({"input": [reasoning("responses"), call, output]});
    assert_eq!(said(&service, vendor, &own), None);
    let foreign = json!({"input": [reasoning("messages"), call, output]});
    refused(&service, vendor, &foreign, "could not be verified");
    refused(
        &service,
        vendor,
        &json!({"input": [output]}),
        "No tool call found",
    );
    refused(
        &service,
        vendor,
        &json!({"input": [call]}),
        "No tool output found",
    );
    refused(
        &service,
        vendor,
        &json!({"input": [reasoning("responses")]}),
        "required following item",
    );
    refused(
        &service,
        vendor,
        &json!({"input": "x", "max_output_tokens": 1}),
        ">= 16",
    );
}

#[test]
fn google_wants_as_many_results_as_calls_and_a_signature_on_the_first() {
    let model = "gemini-3-pro".to_owned();
    let (service, vendor) = (Service::Generate { model }, Vendor::Google);
    let talk = |signature: Value, results: usize| {
        let result = json!({"functionResponse": {"name": "f", "response": {}}});
        json!({"contents": [{"role": "user", "parts": [{"text": "q"}]},
            {"role": "model", "parts": [
                {"functionCall": {"name": "f", "args": {}}, "thoughtSignature": signature}]},
            {"role": "user", "parts": vec![result; results]}]})
    };
    let own = json!(signature("gemini", "m", ""));
    assert_eq!(said(&service, vendor, &talk(own.clone(), 1)), None);
    refused(
        &service,
        vendor,
        &talk(own, 2),
        "number of function response parts",
    );
    refused(&service, vendor, &talk(json!("UExYMQ=="), 1), "not valid");
    refused(
        &service,
        vendor,
        &talk(json!(""), 1),
        "missing a thought_signature",
    );
    let mut more = talk(json!(""), 1);
    more["seed"] = json!(1);
    refused(&service, vendor, &more, "Unknown name \"seed\"");
}
