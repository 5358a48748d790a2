//! Anthropic Messages: the message and its events.

use serde_json::{Value, json};

use super::answer::{Answer, Call, Usage, signature};
use super::behaviour::Finish;
use super::script::{IDENTIFIER, Script, compact};

/// A whole message.
pub(super) fn unary(answer: &Answer) -> Vec<u8> {
    let mut content = Vec::new();
    if !answer.reasoning.is_empty() {
        content.push(json!({
            "type": "thinking",
            "thinking": answer.whole_reasoning(),
            "signature": signature("messages", &answer.model, &answer.whole_reasoning()),
        }));
    }
    if !answer.text.is_empty() {
        content.push(json!({"type": "text", "text": answer.whole_text()}));
    }
    content.extend(answer.calls.iter().map(|call| {
        json!({
            "type": "tool_use", "id": call.id("toolu_"),
            "name": call.name, "input": call.arguments,
        })
    }));
    let mut message = opening(answer);
    message["content"] = content.into();
    message["stop_reason"] = stop_reason(answer).into();
    message["usage"] = usage(&answer.usage);
    compact(&message)
}

/// The events of a message.
pub(super) fn stream(answer: &Answer) -> Script {
    let mut script = Script::default();
    let mut message = opening(answer);
    message["usage"] = usage(&Usage {
        output: answer.usage.output.min(1),
        reasoning: 0,
        ..answer.usage
    });
    say(&mut script, "message_start", json!({"message": message}));
    script.opened();
    let mut index = 0;
    if !answer.reasoning.is_empty() {
        thinking(&mut script, index, answer);
        index += 1;
    }
    if !answer.text.is_empty() {
        text(&mut script, index, answer);
        index += 1;
    }
    for call in &answer.calls {
        tool_use(&mut script, index, call);
        index += 1;
    }
    script.closes();
    let mut used = usage(&answer.usage);
    if let Some(used) = used.as_object_mut() {
        used.retain(|name, _| name != "cache_creation" && name != "service_tier");
    }
    let delta = json!({"stop_reason": stop_reason(answer), "stop_sequence": null});
    say(
        &mut script,
        "message_delta",
        json!({"delta": delta, "usage": used}),
    );
    say(&mut script, "message_stop", json!({}));
    script
}

/// The answer to a question for tokens.
pub(super) fn count(tokens: u64) -> Vec<u8> {
    compact(&json!({"input_tokens": tokens}))
}

fn opening(answer: &Answer) -> Value {
    json!({
        "model": answer.model,
        "id": format!("msg_{IDENTIFIER}"),
        "type": "message",
        "role": "assistant",
        "content": [],
        "stop_reason": null,
        "stop_sequence": null,
        "usage": usage(&answer.usage),
    })
}

fn say(script: &mut Script, kind: &str, fields: Value) {
    let mut event = json!({"type": kind});
    if let (Value::Object(event), Value::Object(fields)) = (&mut event, fields) {
        event.extend(fields);
    }
    script.event(Some(kind), &event);
}

fn start(script: &mut Script, index: usize, block: Value) {
    say(
        script,
        "content_block_start",
        json!({"index": index, "content_block": block}),
    );
    if index == 0 {
        let ping = b"event: ping\ndata: {\"type\": \"ping\"}\n\n";
        script.frames.push(ping.to_vec());
    }
}

fn delta(script: &mut Script, index: usize, delta: Value) {
    say(
        script,
        "content_block_delta",
        json!({"index": index, "delta": delta}),
    );
}

fn stop(script: &mut Script, index: usize) {
    say(script, "content_block_stop", json!({"index": index}));
}

fn thinking(script: &mut Script, index: usize, answer: &Answer) {
    let block = json!({"type": "thinking", "thinking": "", "signature": ""});
    start(script, index, block);
    for piece in &answer.reasoning {
        delta(
            script,
            index,
            json!({"type": "thinking_delta", "thinking": piece}),
        );
    }
    let signature = signature("messages", &answer.model, &answer.whole_reasoning());
    delta(
        script,
        index,
        json!({"type": "signature_delta", "signature": signature}),
    );
    stop(script, index);
}

fn text(script: &mut Script, index: usize, answer: &Answer) {
    start(script, index, json!({"type": "text", "text": ""}));
    for piece in &answer.text {
        delta(script, index, json!({"type": "text_delta", "text": piece}));
    }
    stop(script, index);
}

fn tool_use(script: &mut Script, index: usize, call: &Call) {
    let block = json!({
        "type": "tool_use", "id": call.id("toolu_"), "name": call.name, "input": {},
    });
    start(script, index, block);
    let fragments = std::iter::once(String::new()).chain(call.fragments());
    for fragment in fragments {
        delta(
            script,
            index,
            json!({"type": "input_json_delta", "partial_json": fragment}),
        );
    }
    stop(script, index);
}

fn stop_reason(answer: &Answer) -> &'static str {
    match answer.finish {
        Finish::Stop if !answer.calls.is_empty() => "tool_use",
        Finish::Stop => "end_turn",
        Finish::Length => "max_tokens",
        Finish::Filter => "refusal",
    }
}

fn usage(usage: &Usage) -> Value {
    let mut object = json!({
        "input_tokens": usage.plain_input(),
        "cache_creation_input_tokens": usage.cache_write,
        "cache_read_input_tokens": usage.cached,
        "cache_creation": {
            "ephemeral_5m_input_tokens": usage.cache_write,
            "ephemeral_1h_input_tokens": 0,
        },
        "output_tokens": usage.output,
        "service_tier": "standard",
    });
    if usage.reasoning > 0 {
        object["output_tokens_details"] = json!({"thinking_tokens": usage.reasoning});
    }
    object
}
