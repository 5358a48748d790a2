//! Tokens in the words of `usageMetadata`.

use super::spelling::{as_whole, camel};
use crate::protocol::json::{Object, Value};
use crate::protocol::usage::{Gemini, Tokens};

/// Reads `usageMetadata`.
pub(super) fn decode(usage: Value<'_>) -> Option<Tokens> {
    let mut counts = Gemini::default();
    for (name, value) in usage.members() {
        let place = match &*camel(&name) {
            "promptTokenCount" => &mut counts.prompt_token_count,
            "candidatesTokenCount" => &mut counts.candidates_token_count,
            "totalTokenCount" => &mut counts.total_token_count,
            "cachedContentTokenCount" => &mut counts.cached_content_token_count,
            "thoughtsTokenCount" => &mut counts.thoughts_token_count,
            "toolUsePromptTokenCount" => &mut counts.tool_use_prompt_token_count,
            _ => continue,
        };
        *place = as_whole(value);
    }
    counts.tokens()
}

/// Writes the member `usageMetadata`. Google counts the cache inside the prompt,
/// what its own tools said beside it, and thoughts beside the visible output.
pub(super) fn encode(tokens: &Tokens, object: &mut Object<'_>) {
    let prompt = [
        tokens.input,
        tokens.cache_read,
        tokens.cache_write_short,
        tokens.cache_write_long,
        tokens.cache_write_other,
    ];
    let prompt = sum(&prompt);
    let output = tokens.output.unwrap_or(0);
    let beside = sum(&[tokens.tool_prompt, tokens.reasoning]);
    let mut usage = object.object("usageMetadata");
    usage.number("promptTokenCount", prompt);
    let more = |usage: &mut Object<'_>, name: &str, count: Option<u64>| {
        if let Some(count) = count.filter(|count| *count > 0) {
            usage.number(name, count);
        }
    };
    more(&mut usage, "cachedContentTokenCount", tokens.cache_read);
    usage.number("candidatesTokenCount", output);
    more(&mut usage, "thoughtsTokenCount", tokens.reasoning);
    more(&mut usage, "toolUsePromptTokenCount", tokens.tool_prompt);
    let total = prompt.saturating_add(output).saturating_add(beside);
    usage.number("totalTokenCount", total);
    usage
        .array("promptTokensDetails")
        .object()
        .text("modality", "TEXT")
        .number("tokenCount", prompt);
}

fn sum(counts: &[Option<u64>]) -> u64 {
    let counts = counts.iter().flatten();
    counts.fold(0, |sum: u64, count| sum.saturating_add(*count))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::json::Tape;
    use bytes::BytesMut;

    fn written(tokens: &Tokens) -> serde_json::Value {
        let mut out = BytesMut::new();
        encode(tokens, &mut Object::open(&mut out));
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        value["usageMetadata"].clone()
    }

    #[test]
    fn anthropics_tokens_are_googles_sums() {
        let tokens = Tokens {
            input: Some(120),
            cache_read: Some(3000),
            cache_write_short: Some(400),
            cache_write_long: Some(100),
            output: Some(650),
            reasoning: Some(250),
            ..Tokens::default()
        };
        assert_eq!(
            written(&tokens),
            serde_json::json!({"promptTokenCount": 3620, "cachedContentTokenCount": 3000,
                "candidatesTokenCount": 650, "thoughtsTokenCount": 250, "totalTokenCount": 4520,
                "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 3620}]})
        );
    }

    #[test]
    fn what_googles_tools_said_stays_beside_the_prompt() {
        let text = r#"{"promptTokenCount":100,"cachedContentTokenCount":40,"candidatesTokenCount":7,"thoughtsTokenCount":3,"toolUsePromptTokenCount":50,"totalTokenCount":160}"#;
        let mut tape = Tape::new();
        let tokens = decode(tape.parse(text).unwrap()).unwrap();
        let mut value = written(&tokens);
        value
            .as_object_mut()
            .unwrap()
            .shift_remove("promptTokensDetails");
        assert_eq!(
            value,
            serde_json::from_str::<serde_json::Value>(text).unwrap()
        );
        assert_eq!(written(&Tokens::default())["totalTokenCount"], 0);
    }
}
