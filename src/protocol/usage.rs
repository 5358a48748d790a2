//! Tokens in one normal form with disjoint buckets, and how each protocol's
//! usage object is read into it. Input means different things to different
//! vendors; a sum over these buckets counts every token once.

use serde::Deserialize;

use super::Protocol;

/// Tokens in disjoint buckets; `None` is "not reported", which is not zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Input that was neither read from nor written to a cache.
    pub input: Option<u64>,
    /// Input read from the provider's prompt cache.
    pub cache_read: Option<u64>,
    /// Input written to the cache for minutes (Anthropic 5m, OpenAI 30m).
    pub cache_write_short: Option<u64>,
    /// Input written to the cache for hours (1h, 12h).
    pub cache_write_long: Option<u64>,
    /// Input written to the cache, lifetime unknown.
    pub cache_write_other: Option<u64>,
    /// Input made by the provider's own tools (Gemini).
    pub tool_prompt: Option<u64>,
    /// Output the client sees.
    pub output: Option<u64>,
    /// Output spent on reasoning.
    pub reasoning: Option<u64>,
}

impl Tokens {
    /// Takes over what a later snapshot reports and keeps the rest.
    pub fn update(&mut self, later: &Self) {
        let later = &self.with_lifetimes(*later);
        let pairs = [
            (&mut self.input, later.input),
            (&mut self.cache_read, later.cache_read),
            (&mut self.cache_write_short, later.cache_write_short),
            (&mut self.cache_write_long, later.cache_write_long),
            (&mut self.cache_write_other, later.cache_write_other),
            (&mut self.tool_prompt, later.tool_prompt),
            (&mut self.output, later.output),
            (&mut self.reasoning, later.reasoning),
        ];
        for (mine, theirs) in pairs {
            *mine = theirs.or(*mine);
        }
    }

    /// The last report of an Anthropic stream says how much was written to the
    /// cache, but not for how long; the first one did. Taken as it is, what was
    /// written for hours would be counted a second time, as written for minutes.
    fn with_lifetimes(&self, mut later: Self) -> Self {
        let (Some(total), None) = (later.cache_write_short, later.cache_write_long) else {
            return later;
        };
        let Some(long) = self.cache_write_long else {
            return later;
        };
        let split = self.cache_write_short.unwrap_or(0).saturating_add(long);
        if total >= split {
            later.cache_write_short = self.cache_write_short;
            later.cache_write_other = Some(total - split).filter(|rest| *rest > 0);
        }
        later
    }
}

/// Reads a usage object of that protocol. `None` when it is none: a tool's
/// schema may have a property of that name.
#[must_use]
pub fn decode(protocol: Protocol, object: &[u8]) -> Option<Tokens> {
    match protocol {
        Protocol::Messages => messages(object),
        Protocol::Gemini => gemini(object),
        Protocol::Responses => responses(object),
        // Newer audio and image endpoints report in the words of Responses.
        Protocol::Transcriptions | Protocol::Speech | Protocol::Images => {
            responses(object).or_else(|| chat(object))
        }
        Protocol::Chat | Protocol::Completions | Protocol::Embeddings => {
            chat(object).or_else(|| responses(object))
        }
    }
}

#[derive(Deserialize, Debug, Default, PartialEq)]
struct Chat {
    prompt_tokens: u64,
    #[serde(default)]
    completion_tokens: Option<u64>,
    #[serde(default)]
    total_tokens: Option<u64>,
    #[serde(default)]
    prompt_tokens_details: Option<PromptDetails>,
    #[serde(default)]
    completion_tokens_details: Option<OutputDetails>,
    #[serde(default)]
    prompt_cache_hit_tokens: Option<u64>,
    #[serde(default)]
    cached_tokens: Option<u64>,
}

#[derive(Deserialize, Debug, Default, PartialEq)]
struct PromptDetails {
    #[serde(default)]
    cached_tokens: Option<u64>,
    #[serde(default)]
    cache_write_tokens: Option<u64>,
    #[serde(default)]
    cache_write_tokens_details: Option<WriteDetails>,
}

#[derive(Deserialize, Debug, Default, PartialEq)]
struct WriteDetails {
    #[serde(default)]
    ttl_30m_tokens: Option<u64>,
    #[serde(default)]
    ttl_12h_tokens: Option<u64>,
}

#[derive(Deserialize, Debug, Default, PartialEq)]
struct OutputDetails {
    #[serde(default)]
    reasoning_tokens: Option<u64>,
    #[serde(default)]
    thinking_tokens: Option<u64>,
}

fn chat(object: &[u8]) -> Option<Tokens> {
    let usage: Chat = serde_json::from_slice(object).ok()?;
    let details = usage.prompt_tokens_details.unwrap_or_default();
    let read = details
        .cached_tokens
        .or(usage.prompt_cache_hit_tokens)
        .or(usage.cached_tokens);
    let write = details.cache_write_tokens;
    let reasoning = usage
        .completion_tokens_details
        .and_then(|details| details.reasoning_tokens);
    let output = usage.completion_tokens.map(|completion| {
        let counted = reasoning.unwrap_or(0);
        // Some servers count reasoning beside the completion, not in it.
        let outside =
            counted > 0 && usage.total_tokens == sum([usage.prompt_tokens, completion, counted]);
        if outside {
            completion
        } else {
            completion.saturating_sub(counted)
        }
    });
    Some(Tokens {
        input: Some(
            usage
                .prompt_tokens
                .saturating_sub(read.unwrap_or(0))
                .saturating_sub(write.unwrap_or(0)),
        ),
        cache_read: read,
        cache_write_other: write,
        output,
        reasoning,
        ..Tokens::default()
    })
}

fn sum(counts: [u64; 3]) -> Option<u64> {
    { counts }.into_iter().try_fold(0, u64::checked_add)
}

#[derive(Deserialize)]
struct Responses {
    input_tokens: u64,
    #[serde(default)]
    output_tokens: Option<u64>,
    #[serde(default)]
    input_tokens_details: Option<PromptDetails>,
    #[serde(default)]
    output_tokens_details: Option<OutputDetails>,
}

fn responses(object: &[u8]) -> Option<Tokens> {
    let usage: Responses = serde_json::from_slice(object).ok()?;
    let details = usage.input_tokens_details.unwrap_or_default();
    let lifetimes = details.cache_write_tokens_details.unwrap_or_default();
    let (short, long) = (lifetimes.ttl_30m_tokens, lifetimes.ttl_12h_tokens);
    let written = details.cache_write_tokens;
    let split = short.unwrap_or(0).saturating_add(long.unwrap_or(0));
    let other = written
        .map(|written| written.saturating_sub(split))
        .filter(|rest| *rest > 0 || split == 0);
    let reasoning = usage
        .output_tokens_details
        .and_then(|details| details.reasoning_tokens);
    let cached = details.cached_tokens.unwrap_or(0);
    let cached = cached.saturating_add(written.unwrap_or(split));
    Some(Tokens {
        input: Some(usage.input_tokens.saturating_sub(cached)),
        cache_read: details.cached_tokens,
        cache_write_short: short,
        cache_write_long: long,
        cache_write_other: other,
        output: usage
            .output_tokens
            .map(|output| output.saturating_sub(reasoning.unwrap_or(0))),
        reasoning,
        ..Tokens::default()
    })
}

#[derive(Deserialize)]
struct Messages {
    #[serde(default)]
    input_tokens: Option<u64>,
    #[serde(default)]
    output_tokens: Option<u64>,
    #[serde(default)]
    cache_read_input_tokens: Option<u64>,
    #[serde(default)]
    cache_creation_input_tokens: Option<u64>,
    #[serde(default)]
    cache_creation: Option<CacheCreation>,
    #[serde(default)]
    output_tokens_details: Option<OutputDetails>,
}

#[derive(Deserialize, Default)]
struct CacheCreation {
    #[serde(default)]
    ephemeral_5m_input_tokens: Option<u64>,
    #[serde(default)]
    ephemeral_1h_input_tokens: Option<u64>,
}

fn messages(object: &[u8]) -> Option<Tokens> {
    let usage: Messages = serde_json::from_slice(object).ok()?;
    if usage.input_tokens.is_none() && usage.output_tokens.is_none() {
        return None;
    }
    let written = usage.cache_creation_input_tokens;
    let (short, long, other) = match usage.cache_creation {
        Some(split) => {
            let (short, long) = (
                split.ephemeral_5m_input_tokens,
                split.ephemeral_1h_input_tokens,
            );
            let known = short.unwrap_or(0).saturating_add(long.unwrap_or(0));
            let rest = written
                .map(|written| written.saturating_sub(known))
                .filter(|rest| *rest > 0);
            (short, long, rest)
        }
        None => (written, None, None),
    };
    let thinking = usage
        .output_tokens_details
        .and_then(|details| details.thinking_tokens);
    Some(Tokens {
        input: usage.input_tokens,
        cache_read: usage.cache_read_input_tokens,
        cache_write_short: short,
        cache_write_long: long,
        cache_write_other: other,
        output: usage
            .output_tokens
            .map(|output| output.saturating_sub(thinking.unwrap_or(0))),
        reasoning: thinking,
        tool_prompt: None,
    })
}

/// The counts of Gemini's `usageMetadata`.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::protocol) struct Gemini {
    pub(in crate::protocol) prompt_token_count: Option<u64>,
    pub(in crate::protocol) candidates_token_count: Option<u64>,
    pub(in crate::protocol) total_token_count: Option<u64>,
    pub(in crate::protocol) cached_content_token_count: Option<u64>,
    pub(in crate::protocol) thoughts_token_count: Option<u64>,
    pub(in crate::protocol) tool_use_prompt_token_count: Option<u64>,
}

impl Gemini {
    /// The same in disjoint buckets.
    pub(in crate::protocol) fn tokens(&self) -> Option<Tokens> {
        let prompt = self.prompt_token_count?;
        let tools = self.tool_use_prompt_token_count.unwrap_or(0);
        let outside = tools.saturating_add(self.thoughts_token_count.unwrap_or(0));
        let output = self.candidates_token_count.or_else(|| {
            self.total_token_count
                .map(|total| total.saturating_sub(prompt).saturating_sub(outside))
        });
        Some(Tokens {
            input: Some(prompt.saturating_sub(self.cached_content_token_count.unwrap_or(0))),
            cache_read: self.cached_content_token_count,
            tool_prompt: self.tool_use_prompt_token_count,
            output,
            reasoning: self.thoughts_token_count,
            ..Tokens::default()
        })
    }
}

fn gemini(object: &[u8]) -> Option<Tokens> {
    let usage: Gemini = serde_json::from_slice(object).ok()?;
    usage.tokens()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(protocol: Protocol, text: &str) -> Tokens {
        decode(protocol, text.as_bytes()).unwrap()
    }

    #[test]
    fn each_vendors_input_is_counted_once() {
        let anthropic = tokens(
            Protocol::Messages,
            r#"{"input_tokens":120,"cache_read_input_tokens":3000,"cache_creation_input_tokens":500,
                "cache_creation":{"ephemeral_5m_input_tokens":400,"ephemeral_1h_input_tokens":100},
                "output_tokens":900,"output_tokens_details":{"thinking_tokens":250}}"#,
        );
        assert_eq!(
            anthropic,
            Tokens {
                input: Some(120),
                cache_read: Some(3000),
                cache_write_short: Some(400),
                cache_write_long: Some(100),
                output: Some(650),
                reasoning: Some(250),
                ..Tokens::default()
            }
        );
        let openai = tokens(
            Protocol::Chat,
            r#"{"prompt_tokens":100,"completion_tokens":25,"total_tokens":125,
                "prompt_tokens_details":{"cached_tokens":10},"completion_tokens_details":{"reasoning_tokens":5}}"#,
        );
        assert_eq!(
            (
                openai.input,
                openai.cache_read,
                openai.output,
                openai.reasoning
            ),
            (Some(90), Some(10), Some(20), Some(5))
        );
        let google = tokens(
            Protocol::Gemini,
            r#"{"promptTokenCount":100,"cachedContentTokenCount":40,"candidatesTokenCount":7,"thoughtsTokenCount":3,"toolUsePromptTokenCount":50,"totalTokenCount":160}"#,
        );
        assert_eq!(
            (
                google.input,
                google.cache_read,
                google.tool_prompt,
                google.output,
                google.reasoning
            ),
            (Some(60), Some(40), Some(50), Some(7), Some(3))
        );
        let responses = tokens(
            Protocol::Responses,
            r#"{"input_tokens":100,"input_tokens_details":{"cached_tokens":30,"cache_write_tokens":20},"output_tokens":9,"output_tokens_details":{"reasoning_tokens":4},"total_tokens":109}"#,
        );
        assert_eq!(
            (
                responses.input,
                responses.cache_read,
                responses.cache_write_other,
                responses.output
            ),
            (Some(50), Some(30), Some(20), Some(5))
        );
    }

    #[test]
    fn a_sum_reported_later_is_not_counted_beside_its_parts() {
        let mut known = tokens(
            Protocol::Messages,
            r#"{"input_tokens":120,"cache_creation_input_tokens":500,"output_tokens":1,
                "cache_creation":{"ephemeral_5m_input_tokens":400,"ephemeral_1h_input_tokens":100}}"#,
        );
        let later = r#"{"input_tokens":120,"cache_creation_input_tokens":500,"output_tokens":9}"#;
        known.update(&tokens(Protocol::Messages, later));
        assert_eq!(
            (
                known.cache_write_short,
                known.cache_write_long,
                known.cache_write_other,
                known.output
            ),
            (Some(400), Some(100), None, Some(9))
        );
    }

    #[test]
    fn counts_beyond_all_sense_are_no_sum() {
        let most = u64::MAX;
        let text = format!(
            r#"{{"prompt_tokens":{most},"completion_tokens":{most},"total_tokens":5,"completion_tokens_details":{{"reasoning_tokens":7}}}}"#
        );
        assert_eq!(tokens(Protocol::Chat, &text).output, Some(most - 7));
    }

    #[test]
    fn odd_servers_are_read_too() {
        let deepseek = tokens(
            Protocol::Chat,
            r#"{"prompt_tokens":50,"completion_tokens":1,"prompt_cache_hit_tokens":20}"#,
        );
        assert_eq!((deepseek.input, deepseek.cache_read), (Some(30), Some(20)));
        let outside = tokens(
            Protocol::Chat,
            r#"{"prompt_tokens":10,"completion_tokens":5,"total_tokens":22,"completion_tokens_details":{"reasoning_tokens":7}}"#,
        );
        assert_eq!((outside.output, outside.reasoning), (Some(5), Some(7)));
        assert_eq!(
            tokens(
                Protocol::Embeddings,
                r#"{"prompt_tokens":8,"total_tokens":8}"#
            )
            .input,
            Some(8)
        );
        assert_eq!(decode(Protocol::Responses, br#"{"type":"object"}"#), None);
        assert_eq!(decode(Protocol::Messages, br#"{"type":"object"}"#), None);
    }
}
