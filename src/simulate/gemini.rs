//! Gemini `generateContent` and `streamGenerateContent`: whole answers, events,
//! and the streamed array of those who do not ask for events.

use serde_json::{Value, json};

use super::answer::{Answer, Usage, signature};
use super::behaviour::Finish;
use super::script::{IDENTIFIER, Script, pretty, spaced};

/// A whole answer.
pub(super) fn unary(answer: &Answer) -> Vec<u8> {
    let mut all = Vec::new();
    if !answer.reasoning.is_empty() {
        all.push(json!({
            "text": answer.whole_reasoning(),
            "thought": true,
            "thoughtSignature": signature("gemini", &answer.model, &answer.whole_reasoning()),
        }));
    }
    if !answer.text.is_empty() || answer.calls.is_empty() {
        all.push(json!({"text": answer.whole_text()}));
    }
    all.extend(calls(answer));
    pretty(&chunk(answer, all, Some(finish(answer)), answer.usage))
}

/// The events (or array elements) of an answer.
pub(super) fn stream(answer: &Answer, sse: bool) -> Script {
    let spoken = parts(answer);
    let pieces = spoken.len().max(1) as u64;
    let mut script = Script::default();
    for (number, part) in spoken.into_iter().enumerate() {
        let mut so_far = answer.usage;
        let share = |tokens: u64| {
            let so_far = u128::from(tokens) * (number as u128 + 1) / u128::from(pieces);
            u64::try_from(so_far).unwrap_or(tokens)
        };
        so_far.output = share(answer.usage.output);
        so_far.reasoning = share(answer.usage.reasoning);
        say(&mut script, &chunk(answer, vec![part], None, so_far), sse);
        if number == 0 {
            script.opened();
        }
    }
    script.closes();
    let last = vec![json!({"text": ""})];
    say(
        &mut script,
        &chunk(answer, last, Some(finish(answer)), answer.usage),
        sse,
    );
    if !sse && let Some(frame) = script.frames.last_mut() {
        frame.push(b']');
    }
    script
}

/// The answer to a question for tokens.
pub(super) fn count(tokens: u64) -> Vec<u8> {
    pretty(&json!({
        "totalTokens": tokens,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": tokens}],
    }))
}

fn say(script: &mut Script, chunk: &Value, sse: bool) {
    let frame = if sse {
        [b"data: ", spaced(chunk).as_slice(), b"\r\n\r\n"].concat()
    } else {
        let separator: &[u8] = match script.frames.is_empty() {
            true => b"[",
            false => b",\r\n",
        };
        [separator, pretty(chunk).as_slice()].concat()
    };
    script.frames.push(frame);
}

/// The increments of an answer, one part each.
fn parts(answer: &Answer) -> Vec<Value> {
    let mut parts: Vec<Value> = answer
        .reasoning
        .iter()
        .map(|piece| json!({"text": piece, "thought": true}))
        .collect();
    if let Some(last) = parts.last_mut() {
        last["thoughtSignature"] =
            signature("gemini", &answer.model, &answer.whole_reasoning()).into();
    }
    parts.extend(answer.text.iter().map(|piece| json!({"text": piece})));
    parts.extend(calls(answer));
    parts
}

/// Calls are never cut; the first of parallel ones carries the signature.
fn calls(answer: &Answer) -> impl Iterator<Item = Value> {
    answer.calls.iter().enumerate().map(|(index, call)| {
        let mut part = json!({"functionCall": {
            "id": call.id("call_"), "name": call.name, "args": call.arguments,
        }});
        if index == 0 && (!answer.reasoning.is_empty() || answer.model.starts_with("gemini-3")) {
            part["thoughtSignature"] =
                signature("gemini", &answer.model, &answer.whole_reasoning()).into();
        }
        part
    })
}

fn chunk(answer: &Answer, parts: Vec<Value>, finish: Option<&str>, used: Usage) -> Value {
    let mut candidate = json!({"content": {"parts": parts, "role": "model"}});
    if let Some(finish) = finish {
        candidate["finishReason"] = finish.into();
    }
    candidate["index"] = 0.into();
    json!({
        "candidates": [candidate],
        "usageMetadata": usage(&used),
        "modelVersion": answer.model,
        "responseId": IDENTIFIER,
    })
}

fn finish(answer: &Answer) -> &'static str {
    match answer.finish {
        Finish::Stop => "STOP",
        Finish::Length => "MAX_TOKENS",
        Finish::Filter => "SAFETY",
    }
}

fn usage(usage: &Usage) -> Value {
    let mut object = json!({
        "promptTokenCount": usage.input,
        "candidatesTokenCount": usage.visible_output(),
        "totalTokenCount": usage.total(),
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": usage.input}],
    });
    if usage.cached > 0 {
        object["cachedContentTokenCount"] = usage.cached.into();
        object["cacheTokensDetails"] = json!([{"modality": "TEXT", "tokenCount": usage.cached}]);
    }
    if usage.reasoning > 0 {
        object["thoughtsTokenCount"] = usage.reasoning.into();
    }
    object
}
