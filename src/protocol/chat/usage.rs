//! The usage object of OpenAI's chat endpoints, as clients see it.

use bytes::BytesMut;

use crate::protocol::json::Object;
use crate::protocol::usage::Tokens;

/// Writes the object. Input and output are the sums of their buckets; a bucket
/// that was not reported counts as none.
pub(super) fn write(tokens: &Tokens, out: &mut BytesMut) {
    let written = [
        tokens.cache_write_short,
        tokens.cache_write_long,
        tokens.cache_write_other,
    ];
    let any = written.iter().any(Option::is_some);
    let written: u64 = sum(&written);
    let input = sum(&[tokens.input, tokens.cache_read, tokens.tool_prompt]).saturating_add(written);
    let output = sum(&[tokens.output, tokens.reasoning]);
    let mut usage = Object::open(out);
    usage.number("prompt_tokens", input);
    usage.number("completion_tokens", output);
    usage.number("total_tokens", input.saturating_add(output));
    let mut details = usage.object("prompt_tokens_details");
    details.number("cached_tokens", tokens.cache_read.unwrap_or(0));
    if any {
        details.number("cache_write_tokens", written);
    }
    drop(details);
    let mut details = usage.object("completion_tokens_details");
    details.number("reasoning_tokens", tokens.reasoning.unwrap_or(0));
}

fn sum(buckets: &[Option<u64>]) -> u64 {
    let told = buckets.iter().copied().flatten();
    told.fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Protocol;
    use crate::protocol::usage::decode;

    #[test]
    fn every_token_is_counted_once() {
        let from = br#"{"input_tokens":120,"cache_read_input_tokens":3000,"cache_creation_input_tokens":500,
            "cache_creation":{"ephemeral_5m_input_tokens":400,"ephemeral_1h_input_tokens":100},
            "output_tokens":900,"output_tokens_details":{"thinking_tokens":250}}"#;
        let tokens = decode(Protocol::Messages, from).unwrap();
        let mut out = BytesMut::new();
        write(&tokens, &mut out);
        let wanted = concat!(
            r#"{"prompt_tokens":3620,"completion_tokens":900,"total_tokens":4520,"#,
            r#""prompt_tokens_details":{"cached_tokens":3000,"cache_write_tokens":500},"#,
            r#""completion_tokens_details":{"reasoning_tokens":250}}"#
        );
        assert_eq!(out, wanted.as_bytes());
        let back = decode(Protocol::Chat, &out).unwrap();
        assert_eq!((back.input, back.output), (Some(120), Some(650)));
    }
}
