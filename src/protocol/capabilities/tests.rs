//! What is known of models, and what an operator says of them.

use super::*;
use Effort::{High, Low, Max, Medium, Minimal, XHigh};
use serde_json::json;

fn claude(model: &str) -> Capabilities {
    Capabilities::of(Protocol::Messages, "api.anthropic.com", model)
}

fn gpt(model: &str) -> Capabilities {
    Capabilities::of(Protocol::Responses, "api.openai.com", model)
}

fn gemini(model: &str) -> Capabilities {
    Capabilities::of(Protocol::Gemini, "generativelanguage.googleapis.com", model)
}

fn ways(capabilities: &Capabilities) -> String {
    let thinking = capabilities.thinking;
    let ways = [
        (thinking.off, "off"),
        (thinking.budget, "budget"),
        (thinking.adaptive, "adaptive"),
        (thinking.between_tools, "between_tools"),
        (thinking.levels, "levels"),
        (thinking.effort, "effort"),
    ];
    let ways = ways.iter().filter(|(has, _)| *has).map(|(_, way)| *way);
    ways.collect::<Vec<_>>().join(" ")
}

/// A model; its ways to think; whether prefill, sampling and system text in the
/// middle are accepted; its longest output.
type Known = (&'static str, &'static str, [bool; 3], u64);

const VERSIONS: [Known; 19] = [
    ("claude-3-opus-20240229", "", [true, true, false], 4096),
    ("claude-3-5-sonnet-20241022", "", [true, true, false], 8192),
    (
        "claude-3.7-sonnet",
        "off budget",
        [true, true, false],
        64_000,
    ),
    (
        "claude-sonnet-4-20250514",
        "off budget",
        [true, true, false],
        64_000,
    ),
    (
        "claude-opus-4-1-20250805",
        "off budget",
        [true, true, false],
        32_000,
    ),
    (
        "us.anthropic.claude-opus-4-20250514-v1:0",
        "off budget",
        [true, true, false],
        32_000,
    ),
    (
        "anthropic/claude-haiku-4.5",
        "off budget",
        [true, true, false],
        64_000,
    ),
    (
        "claude-opus-4-6",
        "off budget adaptive",
        [false, true, false],
        128_000,
    ),
    (
        "claude-opus-4-7",
        "off adaptive",
        [false, false, false],
        128_000,
    ),
    (
        "claude-opus-4-8",
        "off adaptive",
        [false, false, true],
        128_000,
    ),
    (
        "claude-opus-5",
        "off adaptive",
        [false, false, true],
        128_000,
    ),
    (
        "claude-sonnet-5",
        "off adaptive",
        [false, false, false],
        128_000,
    ),
    (
        "claude-sonnet-5-5",
        "adaptive between_tools",
        [false, false, true],
        128_000,
    ),
    (
        "claude-haiku-5-5",
        "off adaptive",
        [false, false, true],
        128_000,
    ),
    ("claude-opus-5-5", "adaptive", [false, false, true], 128_000),
    (
        "claude-fable-5-1",
        "adaptive",
        [false, false, true],
        128_000,
    ),
    (
        "claude-mythos-preview",
        "adaptive",
        [false, false, true],
        128_000,
    ),
    (
        "claude-something-9",
        "off adaptive",
        [false, false, true],
        128_000,
    ),
    ("claude-newest", "adaptive", [false, false, true], 128_000),
];

#[test]
fn claude_thinks_in_the_way_of_its_version() {
    for (model, expected, flags, output) in VERSIONS {
        let found = claude(model);
        assert_eq!(ways(&found), expected, "{model}");
        assert_eq!(
            (
                [found.prefill, found.sampling, found.mid_system],
                found.max_output
            ),
            (flags, Some(output)),
            "{model}"
        );
        assert!(found.auto_cache && found.pdf);
    }
    assert!(!claude("claude-sonnet-4-0").structured);
    assert!(claude("claude-sonnet-4-5").structured && claude("claude-sonnet-4-5").strict_tools);
    assert_eq!(claude("claude-opus-4-6").nearest_effort(XHigh), Some(High));
    assert_eq!(claude("claude-opus-4-6").nearest_effort(Max), Some(Max));
    assert_eq!(claude("claude-opus-4-7").nearest_effort(Minimal), Some(Low));
}

#[test]
fn a_claude_behind_chat_has_its_sizes_and_the_ways_of_chat() {
    let found = Capabilities::of(Protocol::Chat, "openrouter.ai", "anthropic/claude-opus-4.7");
    assert_eq!(ways(&found), "effort");
    assert_eq!(found.max_output, Some(128_000));
    assert!(found.sampling && !found.prefill && !found.developer_role);
}

#[test]
fn what_is_not_claude_behind_messages_is_asked_for_nothing_special() {
    let found = Capabilities::of(Protocol::Messages, "api.deepseek.com", "deepseek-v4-pro");
    assert_eq!(ways(&found), "");
    assert!(!found.structured && !found.strict_tools && !found.auto_cache && found.sampling);
}

#[test]
fn openai_models_know_the_efforts_of_their_version() {
    use Effort::None;
    for (model, efforts, sampling) in [
        ("gpt-3.5-turbo", vec![], true),
        ("gpt-35-turbo", vec![], true),
        ("gpt-4o-2024-08-06", vec![], true),
        ("gpt-4.1-mini", vec![], true),
        ("chatgpt-4o-latest", vec![], true),
        ("o3-mini", vec![Low, Medium, High], false),
        ("gpt-5-2025-08-07", vec![Minimal, Low, Medium, High], false),
        ("gpt-5-chat-latest", vec![], true),
        ("gpt-5-pro", vec![High], false),
        ("gpt-5-codex", vec![Low, Medium, High], false),
        ("gpt-5.1", vec![None, Low, Medium, High], false),
        ("gpt-5.1-codex-max", vec![Low, Medium, High, XHigh], false),
        ("gpt-5.3-codex", vec![Low, Medium, High, XHigh], false),
        ("gpt-5.5", vec![None, Low, Medium, High, XHigh], false),
        (
            "gpt-5.6-luna",
            vec![None, Low, Medium, High, XHigh, Max],
            false,
        ),
        ("gpt-7", vec![None, Low, Medium, High, XHigh, Max], false),
    ] {
        let found = gpt(model);
        assert_eq!(found.efforts, efforts, "{model}");
        assert_eq!(found.sampling, sampling, "{model}");
    }
    assert!(gpt("gpt-5.6").cache_breakpoints && !gpt("gpt-5.5").cache_breakpoints);
    assert!(gpt("gpt-5").web_search && gpt("gpt-5").developer_role);
    assert!(!gpt("o1-mini").developer_role);
    let chat = |model| Capabilities::of(Protocol::Chat, "api.openai.com", model);
    assert!(!chat("gpt-4o").web_search && chat("gpt-4o-search-preview").web_search);
    assert!(chat("gpt-4o-audio-preview").audio && !chat("gpt-4o").audio);
}

#[test]
fn gemini_thinks_by_budget_then_by_level() {
    for (model, expected, efforts) in [
        ("gemini-1.5-pro-002", "", vec![]),
        ("gemini-2.0-flash", "", vec![]),
        ("gemini-2.5-flash-preview-05-20", "off budget", vec![]),
        ("gemini-2.5-pro", "budget", vec![]),
        ("models/gemini-3-pro-preview", "levels", vec![Low, High]),
        ("gemini-3.1-pro-preview", "levels", vec![Low, Medium, High]),
        (
            "gemini-3.5-flash",
            "levels",
            vec![Minimal, Low, Medium, High],
        ),
        ("gemini-flash-latest", "levels", vec![Low, Medium, High]),
    ] {
        let found = gemini(model);
        assert_eq!(ways(&found), expected, "{model}");
        assert_eq!(found.efforts, efforts, "{model}");
    }
    assert_eq!(gemini("gemini-2.0-flash").schema_mode, SchemaMode::OpenApi);
    assert_eq!(gemini("gemini-2.5-pro").schema_mode, SchemaMode::JsonSchema);
    assert!(gemini("gemini-3-flash").fr_parts && !gemini("gemini-2.5-flash").fr_parts);
    let vertex = Capabilities::of(
        Protocol::Gemini,
        "europe-west4-aiplatform.googleapis.com",
        "gemini-3-pro",
    );
    assert_eq!(vertex.schema_mode, SchemaMode::OpenApi);
}

#[test]
fn hosts_differ_in_the_words_of_chat() {
    let of = |host, model| Capabilities::of(Protocol::Chat, host, model);
    assert!(of("api.openai.com:443", "gpt-4o").max_completion_tokens);
    assert!(of("x.openai.azure.com", "my-deployment").developer_role);
    assert!(!of("evil-openai.com", "gpt-4o").developer_role);
    assert!(!of("localhost", "gpt-oss-20b").max_completion_tokens);
    assert!(!of("api.mistral.ai", "mistral-large-latest").usage_in_stream);
    assert!(of("api.deepseek.com", "deepseek-v4-pro").echo_reasoning);
    assert_eq!(
        of("api.deepseek.com", "deepseek-v4-pro").nearest_effort(Medium),
        Some(Low)
    );
    assert!(!of("api.together.xyz", "deepseek-ai/DeepSeek-V3.1").echo_reasoning);
    assert!(of("api.moonshot.ai", "kimi-k2-thinking").echo_reasoning);
    assert!(!of("api.moonshot.ai", "kimi-k2-0905-preview").echo_reasoning);
    assert!(of("api.moonshot.ai", "kimi-k2.5").echo_reasoning);
    assert_eq!(ways(&of("localhost", "llama3.3:70b")), "");
    assert_eq!(ways(&of("localhost", "nobody-knows")), "effort");
    assert!(Capabilities::of(Protocol::Responses, "chatgpt.com", "gpt-5.5").stream_only);
}

#[test]
fn every_flag_of_the_tables_is_one_that_there_is() {
    let rows = FAMILIES.iter().flat_map(|family| family.rows);
    let sets = rows.flat_map(|row| row.set);
    let sets = sets.chain(HOSTS.iter().flat_map(|host| host.set));
    let mut capabilities = claude("x");
    for set in sets {
        if let Set::Yes(name) | Set::No(name) = set {
            assert!(capabilities.flag(name).is_some(), "{name}");
        }
    }
}

#[test]
fn an_operators_word_is_above_the_table() {
    let words = json!({
        "max_output": 5, "context": 7, "thinking": ["budget", "off"], "efforts": ["low", "max"],
        "sampling": true, "mid_system": false, "max_tokens_key": "max_completion_tokens",
        "schema_mode": "openapi", "pdf": false, "unknown": true, "video": "odd",
    });
    let before = claude("claude-opus-5-5");
    let after = before.overridden(words.as_object().unwrap());
    assert_eq!((after.max_output, after.context), (Some(5), Some(7)));
    assert_eq!(ways(&after), "off budget effort");
    assert_eq!(after.efforts, [Low, Max]);
    assert!(after.sampling && !after.mid_system && after.max_completion_tokens && !after.pdf);
    assert_eq!(after.schema_mode, SchemaMode::OpenApi);
    assert_eq!(after.video, before.video);
    assert_eq!(before.overridden(&Map::new()), before);
}
