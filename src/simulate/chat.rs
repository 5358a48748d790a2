//! OpenAI Chat Completions and the legacy Completions: whole answers and
//! chunks.

use serde_json::{Value, json};

use super::answer::{Answer, Call, Usage};
use super::ask::Ask;
use super::behaviour::Finish;
use super::script::{CREATED, IDENTIFIER, Script, pretty};

const FINGERPRINT: &str = "fp_simulated0";

/// A whole chat completion.
pub(super) fn unary(answer: &Answer) -> Vec<u8> {
    let text = answer.whole_text();
    let mut message = json!({"role": "assistant", "content": text});
    if text.is_empty() && !answer.calls.is_empty() {
        message["content"] = Value::Null;
    }
    if !answer.reasoning.is_empty() {
        message["reasoning_content"] = answer.whole_reasoning().into();
    }
    if !answer.calls.is_empty() {
        message["tool_calls"] = answer.calls.iter().map(whole_call).collect();
    }
    message["refusal"] = Value::Null;
    message["annotations"] = json!([]);
    pretty(&json!({
        "id": format!("chatcmpl-{IDENTIFIER}"),
        "object": "chat.completion",
        "created": CREATED,
        "model": answer.model,
        "choices": [{
            "index": 0,
            "message": message,
            "logprobs": null,
            "finish_reason": finish(answer),
        }],
        "usage": usage(&answer.usage),
        "service_tier": "default",
        "system_fingerprint": FINGERPRINT,
    }))
}

/// The chunks of a chat completion.
pub(super) fn stream(answer: &Answer, ask: &Ask) -> Script {
    let chunks = Chunks::new(answer, ask);
    let mut script = Script::default();
    let say = |script: &mut Script, delta: Value| {
        script.event(None, &chunks.delta(delta, Value::Null));
    };
    say(
        &mut script,
        json!({"role": "assistant", "content": "", "refusal": null}),
    );
    script.opened();
    for piece in &answer.reasoning {
        say(&mut script, json!({"reasoning_content": piece}));
    }
    for piece in &answer.text {
        say(&mut script, json!({"content": piece}));
    }
    for (index, call) in answer.calls.iter().enumerate() {
        say(
            &mut script,
            json!({"tool_calls": [{
                "index": index,
                "id": call.id("call_"),
                "type": "function",
                "function": {"name": call.name, "arguments": ""},
            }]}),
        );
        for fragment in call.fragments() {
            say(
                &mut script,
                json!({"tool_calls": [{"index": index, "function": {"arguments": fragment}}]}),
            );
        }
    }
    script.closes();
    script.event(None, &chunks.delta(json!({}), finish(answer).into()));
    chunks.end(&mut script, &answer.usage);
    script
}

/// A whole legacy completion.
pub(super) fn legacy_unary(answer: &Answer) -> Vec<u8> {
    pretty(&json!({
        "id": format!("cmpl-{IDENTIFIER}"),
        "object": "text_completion",
        "created": CREATED,
        "model": answer.model,
        "choices": [{
            "text": answer.whole_text(),
            "index": 0,
            "logprobs": null,
            "finish_reason": legacy_finish(answer),
        }],
        "usage": usage(&answer.usage),
        "system_fingerprint": FINGERPRINT,
    }))
}

/// The chunks of a legacy completion.
pub(super) fn legacy_stream(answer: &Answer, ask: &Ask) -> Script {
    let chunks = Chunks {
        prefix: "cmpl-",
        object: "text_completion",
        ..Chunks::new(answer, ask)
    };
    let choice = |text: &str, finish: Value| json!([{"text": text, "index": 0, "logprobs": null, "finish_reason": finish}]);
    let mut script = Script::default();
    for piece in &answer.text {
        script.event(None, &chunks.chunk(choice(piece, Value::Null), Value::Null));
    }
    script.closes();
    let last = choice("", legacy_finish(answer).into());
    script.event(None, &chunks.chunk(last, Value::Null));
    chunks.end(&mut script, &answer.usage);
    script
}

/// What all chunks of one answer share.
struct Chunks<'a> {
    prefix: &'static str,
    object: &'static str,
    model: &'a str,
    include_usage: bool,
}

impl<'a> Chunks<'a> {
    fn new(answer: &'a Answer, ask: &Ask) -> Self {
        let options = ask.value("stream_options").unwrap_or_default();
        Self {
            prefix: "chatcmpl-",
            object: "chat.completion.chunk",
            model: &answer.model,
            include_usage: options["include_usage"] == true,
        }
    }

    fn delta(&self, delta: Value, finish: Value) -> Value {
        let choices =
            json!([{"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish}]);
        self.chunk(choices, Value::Null)
    }

    fn chunk(&self, choices: Value, usage: Value) -> Value {
        let mut chunk = json!({
            "id": format!("{}{IDENTIFIER}", self.prefix),
            "object": self.object,
            "created": CREATED,
            "model": self.model,
            "service_tier": "default",
            "system_fingerprint": FINGERPRINT,
            "choices": choices,
        });
        if self.include_usage {
            chunk["usage"] = usage;
        }
        chunk
    }

    fn end(&self, script: &mut Script, used: &Usage) {
        if self.include_usage {
            script.event(None, &self.chunk(json!([]), usage(used)));
        }
        script.frames.push(b"data: [DONE]\n\n".to_vec());
    }
}

fn whole_call(call: &Call) -> Value {
    json!({
        "id": call.id("call_"),
        "type": "function",
        "function": {"name": call.name, "arguments": call.text()},
    })
}

fn finish(answer: &Answer) -> &'static str {
    match answer.finish {
        Finish::Stop if !answer.calls.is_empty() => "tool_calls",
        Finish::Stop => "stop",
        Finish::Length => "length",
        Finish::Filter => "content_filter",
    }
}

fn legacy_finish(answer: &Answer) -> &'static str {
    match answer.finish {
        Finish::Stop => "stop",
        Finish::Length => "length",
        Finish::Filter => "content_filter",
    }
}

/// The usage object of both.
fn usage(usage: &Usage) -> Value {
    let mut prompt = json!({"cached_tokens": usage.cached, "audio_tokens": 0});
    if usage.cache_write > 0 {
        prompt["cache_write_tokens"] = usage.cache_write.into();
    }
    json!({
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.total(),
        "prompt_tokens_details": prompt,
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    })
}
