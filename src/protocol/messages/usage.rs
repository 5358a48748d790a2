//! Tokens in the words of Messages: input without what came from a cache or went
//! into it, output with the reasoning in it.

use crate::protocol::Protocol;
use crate::protocol::json::{Object, Value};
use crate::protocol::usage::{self, Tokens};

/// What a provider has reported so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    /// The buckets.
    pub(super) tokens: Tokens,
    /// Searches made.
    pub(super) web_searches: Option<u64>,
}

impl Usage {
    /// Takes over what a `usage` object reports and keeps the rest. `false` when
    /// it reports nothing.
    pub(super) fn update(&mut self, object: Value<'_>) -> bool {
        let searches = object
            .some("server_tool_use")
            .and_then(|tools| tools.some("web_search_requests"))
            .and_then(|count| count.as_u64());
        self.web_searches = searches.or(self.web_searches);
        let text = object.raw();
        let Some(later) = usage::decode(Protocol::Messages, text.as_str().as_bytes()) else {
            return searches.is_some();
        };
        self.tokens.update(&later);
        true
    }
}

/// Writes the members of a `usage` object. All that the SDKs want to be numbers
/// are numbers.
pub(super) fn write(object: &mut Object<'_>, usage: &Usage) {
    let tokens = usage.tokens;
    let count = |bucket: Option<u64>| bucket.unwrap_or(0);
    let sum = |one, other| count(one).saturating_add(count(other));
    let short = sum(tokens.cache_write_short, tokens.cache_write_other);
    let long = count(tokens.cache_write_long);
    object
        .number("input_tokens", sum(tokens.input, tokens.tool_prompt))
        .number("cache_creation_input_tokens", short.saturating_add(long))
        .number("cache_read_input_tokens", count(tokens.cache_read));
    object
        .object("cache_creation")
        .number("ephemeral_5m_input_tokens", short)
        .number("ephemeral_1h_input_tokens", long);
    object.number("output_tokens", sum(tokens.output, tokens.reasoning));
    if let Some(thinking) = tokens.reasoning {
        object
            .object("output_tokens_details")
            .number("thinking_tokens", thinking);
    }
    if let Some(searches) = usage.web_searches {
        object
            .object("server_tool_use")
            .number("web_search_requests", searches);
    }
}

/// The tier that served an answer, in the words of Messages.
pub(super) fn tier(service: Option<&str>) -> &'static str {
    match service {
        Some("priority") => "priority",
        Some("batch") => "batch",
        _ => "standard",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::json::Tape;

    fn read(texts: &[&str]) -> Usage {
        let mut usage = Usage::default();
        for text in texts {
            usage.update(Tape::new().parse(text).unwrap());
        }
        usage
    }

    #[test]
    fn what_was_written_to_the_cache_is_counted_once_over_a_stream() {
        let start = r#"{"input_tokens":120,"cache_creation_input_tokens":500,"cache_read_input_tokens":3000,"output_tokens":1,
            "cache_creation":{"ephemeral_5m_input_tokens":400,"ephemeral_1h_input_tokens":100}}"#;
        let delta = r#"{"input_tokens":120,"cache_creation_input_tokens":500,"output_tokens":900,
            "output_tokens_details":{"thinking_tokens":250},"server_tool_use":{"web_search_requests":2}}"#;
        let usage = read(&[start, delta]);
        let tokens = usage.tokens;
        assert_eq!(
            (tokens.cache_write_short, tokens.cache_write_long),
            (Some(400), Some(100))
        );
        assert_eq!((tokens.output, tokens.reasoning), (Some(650), Some(250)));
        assert_eq!(usage.web_searches, Some(2));
    }

    #[test]
    fn a_report_without_tokens_changes_nothing() {
        let usage = read(&[
            r#"{"input_tokens":5,"output_tokens":2}"#,
            "{}",
            "null",
            "[]",
        ]);
        assert_eq!(
            (usage.tokens.input, usage.tokens.output),
            (Some(5), Some(2))
        );
    }
}
