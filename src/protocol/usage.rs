//! Tokens in one normal form with disjoint buckets, and how each protocol's
//! usage object is read into it. Input means different things to different
//! vendors; a sum over these buckets counts every token once.

use memchr::memmem;
use serde_json::Value;

use super::Protocol;
use super::json::Counts;
use crate::money::{Cost, Nanos};

/// Tokens in disjoint buckets; `None` is "not reported", which is not zero. What
/// of them was sound or pictures is told beside the buckets, not in ones of its
/// own.
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
    /// How much of the input, cached or not, was sound.
    pub audio_input: Option<u64>,
    /// How much of the input, cached or not, was pictures.
    pub image_input: Option<u64>,
    /// How much of the output was sound.
    pub audio_output: Option<u64>,
    /// How much of the output was pictures.
    pub image_output: Option<u64>,
    /// What the provider itself says that it charges.
    pub charge: Option<Charge>,
}

/// A provider's own word for what a request cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Charge {
    /// All of it.
    pub total: Nanos,
    /// The same by kind of token, where it says so.
    pub parts: Option<Cost>,
}

impl Tokens {
    /// Whether no bucket was reported.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        self.inputs()
            .chain(self.outputs())
            .flatten()
            .next()
            .is_none()
    }

    /// The buckets of what was sent.
    pub fn inputs(&self) -> impl Iterator<Item = Option<u64>> {
        [
            self.input,
            self.cache_read,
            self.cache_write_short,
            self.cache_write_long,
            self.cache_write_other,
            self.tool_prompt,
        ]
        .into_iter()
    }

    /// The buckets of what was written.
    pub fn outputs(&self) -> impl Iterator<Item = Option<u64>> {
        [self.output, self.reasoning].into_iter()
    }

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
            (&mut self.audio_input, later.audio_input),
            (&mut self.image_input, later.image_input),
            (&mut self.audio_output, later.audio_output),
            (&mut self.image_output, later.image_output),
        ];
        for (mine, theirs) in pairs {
            *mine = theirs.or(*mine);
        }
        self.charge = later.charge.or(self.charge);
    }

    /// The tokens of two answers together.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        let sum = |one: Option<u64>, other: Option<u64>| match (one, other) {
            (Some(one), Some(other)) => Some(one.saturating_add(other)),
            (one, other) => one.or(other),
        };
        Self {
            input: sum(self.input, other.input),
            cache_read: sum(self.cache_read, other.cache_read),
            cache_write_short: sum(self.cache_write_short, other.cache_write_short),
            cache_write_long: sum(self.cache_write_long, other.cache_write_long),
            cache_write_other: sum(self.cache_write_other, other.cache_write_other),
            tool_prompt: sum(self.tool_prompt, other.tool_prompt),
            output: sum(self.output, other.output),
            reasoning: sum(self.reasoning, other.reasoning),
            audio_input: sum(self.audio_input, other.audio_input),
            image_input: sum(self.image_input, other.image_input),
            audio_output: sum(self.audio_output, other.audio_output),
            image_output: sum(self.image_output, other.image_output),
            charge: match (self.charge, other.charge) {
                (Some(one), Some(other)) => Some(Charge {
                    total: one.total.plus(other.total),
                    parts: None,
                }),
                (one, other) => one.or(other),
            },
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
    let mut tokens = buckets(protocol, &Counts::of(object)?)?;
    // Few providers say it, and reading it costs a second look.
    if memmem::find(object, b"cost").is_some() {
        tokens.charge = charge(object);
    }
    Some(tokens)
}

fn buckets(protocol: Protocol, object: &Counts<'_>) -> Option<Tokens> {
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

/// What usage objects call the whole cost in dollars; the first that is an amount
/// counts. xAI tells it in ten-billionths.
const CHARGES: [(&str, f64); 3] = [
    ("cost", 1.0),
    ("estimated_cost", 1.0),
    ("cost_in_usd_ticks", 1e-10),
];

/// What the parts of a cost are called.
const PARTS: [[&str; 2]; 4] = [
    ["input_cost", "upstream_inference_prompt_cost"],
    ["output_cost", "upstream_inference_completions_cost"],
    ["cached_input_cost", ""],
    ["cache_write_input_cost", ""],
];

/// The cost that a usage object tells: OpenRouter's and its kin's `cost` with
/// `cost_details`, Perplexity's object `cost`, DeepInfra's `estimated_cost`, xAI's
/// `cost_in_usd_ticks`.
fn charge(object: &[u8]) -> Option<Charge> {
    let usage: Value = serde_json::from_slice(object).ok()?;
    let amount = |value: &Value, unit: f64| Nanos::from_dollars(value.as_f64()? * unit);
    let told = CHARGES.iter().find_map(|(name, unit)| {
        let value = usage.get(name)?;
        amount(value.get("total_cost").unwrap_or(value), *unit)
    });
    let details = &usage["cost_details"];
    let total = told.or_else(|| amount(&details["total_cost"], 1.0))?;
    // With a key of the operator's own, `cost` is what is charged for the service
    // and the model's provider charges beside it.
    if usage["is_byok"] == true
        && let Some(beside) = amount(&details["upstream_inference_cost"], 1.0)
    {
        return Some(Charge {
            total: total.plus(beside),
            parts: None,
        });
    }
    let [input, output, cached, cache_write] = PARTS.map(|names| {
        let mut told = names.iter().filter_map(|name| details.get(name));
        told.find_map(|value| amount(value, 1.0))
    });
    let parts = Cost {
        input: input.unwrap_or_default(),
        output: output.unwrap_or_default(),
        cached: cached.unwrap_or_default(),
        cache_write: cache_write.unwrap_or_default(),
    };
    // Parts that leave something out are none: rows add up.
    let parts = Some(parts).filter(|parts| parts.total() == total);
    Some(Charge { total, parts })
}

fn chat(object: &Counts<'_>) -> Option<Tokens> {
    const READ: &str = "prompt_tokens_details";
    const WRITTEN: &str = "completion_tokens_details";
    let prompt = object.at("", "prompt_tokens")?;
    let read = object
        .at(READ, "cached_tokens")
        .or_else(|| object.at("", "prompt_cache_hit_tokens"))
        .or_else(|| object.at("", "cached_tokens"));
    let write = object.at(READ, "cache_write_tokens");
    let reasoning = object.at(WRITTEN, "reasoning_tokens");
    let output = object.at("", "completion_tokens").map(|completion| {
        let counted = reasoning.unwrap_or(0);
        // Some servers count reasoning beside the completion, not in it.
        let outside =
            counted > 0 && object.at("", "total_tokens") == sum([prompt, completion, counted]);
        if outside {
            completion
        } else {
            completion.saturating_sub(counted)
        }
    });
    Some(Tokens {
        input: Some(
            prompt
                .saturating_sub(read.unwrap_or(0))
                .saturating_sub(write.unwrap_or(0)),
        ),
        cache_read: read,
        cache_write_other: write,
        output,
        reasoning,
        audio_input: object.at(READ, "audio_tokens"),
        image_input: object.at(READ, "image_tokens"),
        audio_output: object.at(WRITTEN, "audio_tokens"),
        image_output: object.at(WRITTEN, "image_tokens"),
        ..Tokens::default()
    })
}

fn sum(counts: [u64; 3]) -> Option<u64> {
    { counts }.into_iter().try_fold(0, u64::checked_add)
}

fn responses(object: &Counts<'_>) -> Option<Tokens> {
    const READ: &str = "input_tokens_details";
    const LIFETIMES: &str = "cache_write_tokens_details";
    const WRITTEN: &str = "output_tokens_details";
    let input = object.at("", "input_tokens")?;
    let short = object.at(LIFETIMES, "ttl_30m_tokens");
    let long = object.at(LIFETIMES, "ttl_12h_tokens");
    let written = object.at(READ, "cache_write_tokens");
    let split = short.unwrap_or(0).saturating_add(long.unwrap_or(0));
    let other = written
        .map(|written| written.saturating_sub(split))
        .filter(|rest| *rest > 0 || split == 0);
    let reasoning = object.at(WRITTEN, "reasoning_tokens");
    let read = object.at(READ, "cached_tokens");
    let cached = read.unwrap_or(0).saturating_add(written.unwrap_or(split));
    Some(Tokens {
        input: Some(input.saturating_sub(cached)),
        cache_read: read,
        cache_write_short: short,
        cache_write_long: long,
        cache_write_other: other,
        output: object
            .at("", "output_tokens")
            .map(|output| output.saturating_sub(reasoning.unwrap_or(0))),
        reasoning,
        audio_input: object.at(READ, "audio_tokens"),
        image_input: object.at(READ, "image_tokens"),
        audio_output: object.at(WRITTEN, "audio_tokens"),
        image_output: object.at(WRITTEN, "image_tokens"),
        ..Tokens::default()
    })
}

fn messages(object: &Counts<'_>) -> Option<Tokens> {
    const SPLIT: &str = "cache_creation";
    let input = object.at("", "input_tokens");
    let output = object.at("", "output_tokens");
    input.or(output)?;
    let written = object.at("", "cache_creation_input_tokens");
    let split = [
        object.at(SPLIT, "ephemeral_5m_input_tokens"),
        object.at(SPLIT, "ephemeral_1h_input_tokens"),
    ];
    let (short, long, other) = match split {
        [None, None] => (written, None, None),
        [short, long] => {
            let known = short.unwrap_or(0).saturating_add(long.unwrap_or(0));
            let rest = written
                .map(|written| written.saturating_sub(known))
                .filter(|rest| *rest > 0);
            (short, long, rest)
        }
    };
    let thinking = object.at("output_tokens_details", "thinking_tokens");
    Some(Tokens {
        input,
        cache_read: object.at("", "cache_read_input_tokens"),
        cache_write_short: short,
        cache_write_long: long,
        cache_write_other: other,
        output: output.map(|output| output.saturating_sub(thinking.unwrap_or(0))),
        reasoning: thinking,
        ..Tokens::default()
    })
}

/// The counts of Gemini's `usageMetadata`.
#[derive(Clone, Copy, Debug, Default)]
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

fn gemini(object: &Counts<'_>) -> Option<Tokens> {
    let usage = Gemini {
        prompt_token_count: object.at("", "promptTokenCount"),
        candidates_token_count: object.at("", "candidatesTokenCount"),
        total_token_count: object.at("", "totalTokenCount"),
        cached_content_token_count: object.at("", "cachedContentTokenCount"),
        thoughts_token_count: object.at("", "thoughtsTokenCount"),
        tool_use_prompt_token_count: object.at("", "toolUsePromptTokenCount"),
    };
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
