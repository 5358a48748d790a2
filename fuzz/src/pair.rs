//! Two protocols, and how a request or an answer is to go from one to the other,
//! chosen by the first bytes of an input.

use plexus::protocol::Protocol;
use plexus::protocol::capabilities::Capabilities;
use plexus::protocol::filter::Fixups;
use plexus::protocol::json::Tape;
use plexus::protocol::translate::{ChatReasoning, Reply};
use serde::de::IgnoredAny;

use super::choice;

/// What clients speak; the first four are what providers speak.
const SPOKEN: [Protocol; 5] = [
    Protocol::Chat,
    Protocol::Responses,
    Protocol::Messages,
    Protocol::Gemini,
    Protocol::Completions,
];

/// Models of different abilities, with hosts that serve them.
const MODELS: [(&str, &str); 8] = [
    ("", "unknown"),
    ("api.openai.com", "gpt-5.1"),
    ("api.openai.com", "gpt-4o"),
    ("api.anthropic.com", "claude-opus-4-6"),
    ("api.anthropic.com", "claude-sonnet-4-5"),
    ("generativelanguage.googleapis.com", "gemini-2.5-flash"),
    ("generativelanguage.googleapis.com", "gemini-3-pro-preview"),
    ("api.deepseek.com", "deepseek-reasoner"),
];

/// A client and a provider.
#[derive(Clone, Copy, Debug)]
pub struct Pair {
    /// What the client speaks.
    pub client: Protocol,
    /// What the provider speaks.
    pub upstream: Protocol,
}

/// By two bytes. Nothing is translated from a protocol into itself.
pub fn pair(input: &mut &[u8]) -> Pair {
    let (client, upstream) = (choice(input) % 5, choice(input) % 4);
    let next = usize::from(client == upstream);
    Pair {
        client: SPOKEN[client],
        upstream: SPOKEN[(upstream + next) % 4],
    }
}

/// A model and what it can do, by two bytes: the second denies or adds abilities.
pub fn model(input: &mut &[u8], upstream: Protocol) -> (&'static str, Capabilities) {
    let (host, model) = MODELS[choice(input) % MODELS.len()];
    let mut able = Capabilities::of(upstream, host, model);
    let flips = choice(input);
    for (bit, ability) in [
        (1, &mut able.structured),
        (1, &mut able.strict_tools),
        (2, &mut able.mid_system),
        (4, &mut able.prefill),
        (8, &mut able.web_search),
        (8, &mut able.code_exec),
        (16, &mut able.image_url),
        (32, &mut able.image_b64),
        (32, &mut able.pdf),
        (64, &mut able.fr_parts),
        (64, &mut able.think_tags),
        (128, &mut able.tool_mixing),
    ] {
        *ability ^= flips & bit != 0;
    }
    (model, able)
}

/// How the client wants its answer, by one byte.
pub fn reply(input: &mut &[u8], pair: Pair) -> Reply {
    let bits = choice(input);
    let on = |bit: usize| bits & bit != 0;
    Reply {
        protocol: pair.client,
        upstream: pair.upstream,
        id: "0123456789ABCDEFGHIJKLMN".into(),
        model: "alias".into(),
        upstream_model: "model".into(),
        account: "account".into(),
        created: 1_700_000_000,
        include_usage: on(1),
        show_reasoning: !on(2),
        encrypted_reasoning: on(4),
        legacy_functions: on(8),
        custom_tools: on(16),
        array: on(32) && pair.client == Protocol::Gemini,
        chat_reasoning: match bits & 192 {
            64 => ChatReasoning::Renamed,
            128 => ChatReasoning::Details,
            _ => ChatReasoning::Content,
        },
        input_estimate: 0,
        reasoning_as_content: on(64),
        echo: String::new(),
    }
}

/// What has to be put right in the answer, by one byte.
pub fn fixups(input: &mut &[u8]) -> Fixups {
    let bits = choice(input);
    let on = |bit: usize| bits & bit != 0;
    let some = |bit: usize, text: &str| match on(bit) {
        true => vec![text.to_owned()],
        false => Vec::new(),
    };
    Fixups {
        stop: some(1, "END"),
        fenced: on(2),
        wrapped: some(4, "weather"),
        custom: some(8, "patch"),
        bare_enum: on(16),
        think_tags: on(32),
        ..Fixups::default()
    }
}

/// That these bytes are one JSON value, for others and for ourselves.
pub fn is_json(bytes: &[u8]) {
    let shown = || String::from_utf8_lossy(bytes).into_owned();
    if let Err(fault) = serde_json::from_slice::<IgnoredAny>(bytes) {
        panic!("{fault} in {}", shown());
    }
    let mut tape = Tape::new();
    if let Err(fault) = tape.parse_bytes(bytes) {
        panic!("{fault} in {}", shown());
    }
}
