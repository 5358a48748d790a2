//! Usage as vendors report it, and what their invoices say for it: every token is
//! billed once, at its own rate.

#![expect(
    clippy::unwrap_used,
    reason = "in helpers of tests a failure is the test's failure"
)]

use plexus::config::Config;
use plexus::money::Nanos;
use plexus::protocol::Protocol;
use plexus::protocol::usage::{Tokens, decode};
use plexus::usage::catalogue::Catalogue;
use plexus::usage::pricing::Price;
use proptest::prelude::*;

/// The price that a file with those rates has for its one model.
fn price(rates: &str) -> Price {
    let text = format!(
        "adminKey: a\nproviders:\n  p: {{ api_base_url: 'http://p/v1', api_key: k, \
         models: {{ m: {{ pricing: {{ source: simple, {rates} }} }} }} }}\n"
    );
    let config = Config::from_yaml(&text).unwrap();
    let provider = config.provider("p").unwrap();
    Price::of(provider, Some(&provider.models["m"]), &Catalogue::default())
}

/// An invoice: whose it is, the protocol, what was reported (a stream's reports in
/// order), the rates in dollars per million tokens, and the sum in nano-dollars.
type Invoice = (
    &'static str,
    Protocol,
    &'static [&'static str],
    &'static str,
    u64,
);

const INVOICES: &[Invoice] = &[
    (
        "OpenAI counts the cache inside the prompt",
        Protocol::Chat,
        &[
            r#"{"prompt_tokens":2006,"completion_tokens":300,"total_tokens":2306,
            "prompt_tokens_details":{"cached_tokens":1920,"audio_tokens":0},
            "completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}"#,
        ],
        "input: 2.5, output: 10, cached: 1.25",
        86 * 2_500 + 1920 * 1_250 + 300 * 10_000,
    ),
    (
        "OpenAI counts reasoning inside the output",
        Protocol::Responses,
        &[
            r#"{"input_tokens":75,"input_tokens_details":{"cached_tokens":0},"output_tokens":1186,
            "output_tokens_details":{"reasoning_tokens":1024},"total_tokens":1261}"#,
        ],
        "input: 1.25, output: 10, cached: 0.125",
        75 * 1_250 + 1186 * 10_000,
    ),
    (
        "OpenAI's sound has rates of its own",
        Protocol::Chat,
        &[
            r#"{"prompt_tokens":200,"completion_tokens":100,"total_tokens":300,
            "prompt_tokens_details":{"cached_tokens":0,"text_tokens":50,"audio_tokens":150},
            "completion_tokens_details":{"text_tokens":20,"audio_tokens":80}}"#,
        ],
        "input: 2.5, output: 10, audio_input: 40, audio_output: 80",
        50 * 2_500 + 150 * 40_000 + 20 * 10_000 + 80 * 80_000,
    ),
    (
        "OpenAI's pictures too",
        Protocol::Images,
        &[
            r#"{"total_tokens":100,"input_tokens":50,"output_tokens":50,"input_tokens_details":{"text_tokens":10,"image_tokens":40}}"#,
        ],
        "input: 5, output: 40, image_input: 10",
        10 * 5_000 + 40 * 10_000 + 50 * 40_000,
    ),
    (
        "Anthropic's input is beside what went into the cache",
        Protocol::Messages,
        &[
            r#"{"input_tokens":21,"cache_creation_input_tokens":188086,"cache_read_input_tokens":0,"output_tokens":393}"#,
        ],
        "input: 3, output: 15, cached: 0.3, cache_write: 3.75",
        21 * 3_000 + 188_086 * 3_750 + 393 * 15_000,
    ),
    (
        "and beside what came from it",
        Protocol::Messages,
        &[
            r#"{"input_tokens":21,"cache_creation_input_tokens":0,"cache_read_input_tokens":188086,"output_tokens":393}"#,
        ],
        "input: 3, output: 15, cached: 0.3, cache_write: 3.75",
        21 * 3_000 + 188_086 * 300 + 393 * 15_000,
    ),
    (
        "Anthropic's cache for an hour costs more, and its stream reports twice",
        Protocol::Messages,
        &[
            r#"{"input_tokens":2048,"cache_read_input_tokens":1800,"cache_creation_input_tokens":248,
            "cache_creation":{"ephemeral_5m_input_tokens":148,"ephemeral_1h_input_tokens":100},"output_tokens":1,"service_tier":"standard"}"#,
            r#"{"input_tokens":2048,"cache_read_input_tokens":1800,"cache_creation_input_tokens":248,"output_tokens":503}"#,
        ],
        "input: 3, output: 15, cached: 0.3, cache_write: 3.75, cache_write_1h: 6",
        2048 * 3_000 + 1800 * 300 + 148 * 3_750 + 100 * 6_000 + 503 * 15_000,
    ),
    (
        "Google counts the cache inside the prompt and thoughts outside the answer; its stream repeats itself",
        Protocol::Gemini,
        &[
            r#"{"promptTokenCount":10000,"cachedContentTokenCount":8000,"totalTokenCount":10300,"thoughtsTokenCount":300}"#,
            r#"{"promptTokenCount":10000,"cachedContentTokenCount":8000,"candidatesTokenCount":200,"totalTokenCount":10500,"thoughtsTokenCount":300}"#,
        ],
        "input: 1.25, output: 10, cached: 0.125",
        2000 * 1_250 + 8000 * 125 + 500 * 10_000,
    ),
    (
        "what Google's tools said is input",
        Protocol::Gemini,
        &[
            r#"{"promptTokenCount":100,"toolUsePromptTokenCount":1000,"candidatesTokenCount":50,"totalTokenCount":1150}"#,
        ],
        "input: 1.25, output: 10",
        1100 * 1_250 + 50 * 10_000,
    ),
    (
        "xAI counts reasoning outside the completion",
        Protocol::Chat,
        &[
            r#"{"prompt_tokens":32,"completion_tokens":9,"total_tokens":135,"num_sources_used":0,
            "prompt_tokens_details":{"text_tokens":32,"audio_tokens":0,"image_tokens":0,"cached_tokens":6},
            "completion_tokens_details":{"reasoning_tokens":94,"audio_tokens":0}}"#,
        ],
        "input: 3, output: 15, cached: 0.75",
        26 * 3_000 + 6 * 750 + 103 * 15_000,
    ),
    (
        "DeepSeek says hits and misses",
        Protocol::Chat,
        &[
            r#"{"prompt_tokens":1000,"completion_tokens":50,"total_tokens":1050,"prompt_cache_hit_tokens":900,"prompt_cache_miss_tokens":100}"#,
        ],
        "input: 0.27, output: 1.1, cached: 0.07",
        100 * 270 + 900 * 70 + 50 * 1_100,
    ),
    (
        "OpenRouter says what it charges",
        Protocol::Chat,
        &[
            r#"{"prompt_tokens":194,"completion_tokens":2,"total_tokens":196,"cost":0.00078593,"is_byok":false,
            "prompt_tokens_details":{"cached_tokens":0},"cost_details":{"upstream_inference_cost":0.00078593,
            "upstream_inference_prompt_cost":0.00028616,"upstream_inference_completions_cost":0.00049977}}"#,
        ],
        "input: 1, output: 1",
        785_930,
    ),
    (
        "embeddings have input only",
        Protocol::Embeddings,
        &[r#"{"prompt_tokens":8000,"total_tokens":8000}"#],
        "input: 0.02",
        8000 * 20,
    ),
];

#[test]
fn what_is_reported_costs_what_the_invoice_says() {
    for (whose, protocol, reports, rates, sum) in INVOICES {
        let mut tokens = Tokens::default();
        for report in *reports {
            tokens.update(&decode(*protocol, report.as_bytes()).unwrap());
        }
        let cost = price(rates).bill(&tokens).cost.unwrap();
        assert_eq!(cost.total(), Nanos(*sum), "{whose}: {tokens:?} {cost:?}");
    }
}

fn sum(buckets: impl Iterator<Item = Option<u64>>) -> u64 {
    buckets.flatten().fold(0, u64::saturating_add)
}

/// Sums of what was sent and what was written.
fn sums(protocol: Protocol, report: &serde_json::Value) -> (u64, u64) {
    let tokens = decode(protocol, report.to_string().as_bytes()).unwrap();
    (sum(tokens.inputs()), sum(tokens.outputs()))
}

proptest! {
    /// No token is in two buckets, and none is in none.
    #[test]
    fn buckets_add_up_to_what_was_reported(
        [plain, read, short, long, visible, thought, tool] in any::<[u32; 7]>(),
    ) {
        let [plain, read, short, long, visible, thought, tool] =
            [plain, read, short, long, visible, thought, tool].map(u64::from);
        let written = short + long;
        let (input, output) = (plain + read + written, visible + thought);
        let chat = serde_json::json!({ "prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output,
            "prompt_tokens_details": { "cached_tokens": read, "cache_write_tokens": written },
            "completion_tokens_details": { "reasoning_tokens": thought } });
        prop_assert_eq!(sums(Protocol::Chat, &chat), (input, output));
        let outside = serde_json::json!({ "prompt_tokens": input, "completion_tokens": visible,
            "total_tokens": input + output, "prompt_tokens_details": { "cached_tokens": read, "cache_write_tokens": written },
            "completion_tokens_details": { "reasoning_tokens": thought } });
        prop_assert_eq!(sums(Protocol::Chat, &outside), (input, output));
        let responses = serde_json::json!({ "input_tokens": input, "output_tokens": output,
            "input_tokens_details": { "cached_tokens": read, "cache_write_tokens": written,
                "cache_write_tokens_details": { "ttl_30m_tokens": short, "ttl_12h_tokens": long } },
            "output_tokens_details": { "reasoning_tokens": thought } });
        prop_assert_eq!(sums(Protocol::Responses, &responses), (input, output));
        let messages = serde_json::json!({ "input_tokens": plain, "cache_read_input_tokens": read,
            "cache_creation_input_tokens": written, "output_tokens": output,
            "cache_creation": { "ephemeral_5m_input_tokens": short, "ephemeral_1h_input_tokens": long },
            "output_tokens_details": { "thinking_tokens": thought } });
        prop_assert_eq!(sums(Protocol::Messages, &messages), (input, output));
        let gemini = serde_json::json!({ "promptTokenCount": plain + read, "cachedContentTokenCount": read,
            "toolUsePromptTokenCount": tool, "candidatesTokenCount": visible, "thoughtsTokenCount": thought });
        prop_assert_eq!(sums(Protocol::Gemini, &gemini), (plain + read + tool, output));
    }

    /// A vendor whose numbers contradict themselves bills nothing below zero.
    #[test]
    fn reports_that_make_no_sense_make_no_panic(counts in any::<[u64; 6]>()) {
        let report = serde_json::json!({ "prompt_tokens": counts[0], "completion_tokens": counts[1], "total_tokens": counts[2],
            "prompt_tokens_details": { "cached_tokens": counts[3], "cache_write_tokens": counts[4], "audio_tokens": counts[5] },
            "completion_tokens_details": { "reasoning_tokens": counts[5], "image_tokens": counts[4] } });
        let tokens = decode(Protocol::Chat, report.to_string().as_bytes()).unwrap();
        let cost = price("input: 1000000, output: 1000000, cached: 1, cache_write: 1").bill(&tokens).cost.unwrap();
        prop_assert!(cost.total() >= cost.input);
    }
}
