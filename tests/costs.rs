//! What requests cost: in rows, in metrics, and in the order of targets.

#![expect(
    clippy::unwrap_used,
    reason = "in helpers of tests a failure is the test's failure"
)]

mod support;

use std::process::Command;

use plexus::catalogue::Source;
use plexus::protocol::estimate;
use plexus::store::Record;
use serde_json::{Value, json};
use support::dialect::Dialect;
use support::upstream::{Upstream, Wire};
use support::{ADMIN, Gateway, PATIENCE, await_some};

/// Twenty tokens from the cache, 80 beside it, 40 written for the client and ten
/// thought.
const NUMBERS: &str = "tokens_in=100+tokens_out=50+cached=20+reasoning_tokens=10+reasoning";

fn file(models: &str) -> String {
    format!(
        "providers:\n  p:\n    api_base_url: {{ chat: 'http://SIMULATOR/v1', \
         responses: 'http://SIMULATOR/v1', messages: 'http://SIMULATOR/v1', gemini: 'http://SIMULATOR' }}\n\
         \x20   api_key: up-p\n    discount: 0.5\n    models:\n{models}\
         keys:\n  app: {{ secret: sk-plexus-tests }}\n"
    )
}

fn model(name: &str, pricing: &str) -> String {
    format!("      '{name}': {{ pricing: {pricing} }}\n")
}

/// The one row there is, once nothing is in flight any more.
fn row(gateway: &Gateway) -> Record {
    gateway.rows(1);
    await_some("the provider to be let go", || {
        (gateway.provider.simulator.stats().in_flight == 0).then_some(())
    });
    gateway.app.store.flush(PATIENCE).unwrap();
    let rows = gateway.rows(1);
    assert_eq!(rows.len(), 1);
    rows.into_iter().next().unwrap()
}

fn costs(row: &Record) -> [Value; 6] {
    [
        "costInput",
        "costOutput",
        "costCached",
        "costCacheWrite",
        "costTotal",
        "costSource",
    ]
    .map(|name| row[name].clone())
}

#[test]
fn an_answer_costs_the_same_in_every_protocol_streamed_or_not() {
    let name = format!("m+{NUMBERS}");
    let models = model(
        &name,
        "{ source: simple, input: 2, output: 10, cached: 0.2 }",
    );
    for dialect in Dialect::ALL {
        for stream in [false, true] {
            let gateway = Gateway::with(&file(&models));
            let answer = gateway.speak(dialect, &format!("direct/p/{name}"), stream);
            assert_eq!(answer.finish().status, 200);
            let row = row(&gateway);
            assert_eq!(
                costs(&row),
                [
                    json!(0.00008),
                    json!(0.00025),
                    json!(0.000002),
                    json!(0),
                    json!(0.000332),
                    json!("simple")
                ],
                "{dialect:?} {stream}"
            );
            assert_eq!(
                row["costMetadata"],
                r#"{"source":"simple","input":2,"output":10,"cached":0.2,"discount":0.5}"#
            );
        }
    }
}

#[test]
fn costs_are_in_the_metrics_and_in_the_days_figures_after_a_restart() {
    let models = model(
        "m+tokens_in=1000+tokens_out=0",
        "{ source: simple, input: 1000 }",
    );
    let mut gateway = Gateway::with(&file(&models));
    let headers = [("authorization", "Bearer sk-plexus-tests:ci")];
    let (path, body) = Dialect::Chat.ask("direct/p/m+tokens_in=1000+tokens_out=0", false);
    let answer = gateway.request("POST", &path, &headers, body.to_string());
    assert_eq!(answer.status, 200);
    gateway.rows(1);
    let page = || {
        let answer = gateway.admin("GET", "/v0/management/metrics", &Value::Null);
        answer.text().to_owned()
    };
    for line in [
        "plexus_provider_cost_usd_total{provider=\"p\"} 0.5",
        "plexus_cost_today_usd 0.5",
        "plexus_api_key_attribution_cost_usd_total{api_key=\"app\",attribution=\"ci\"} 0.5",
    ] {
        assert!(page().lines().any(|found| found == line), "{line}");
    }
    gateway.restart();
    let page = gateway.admin("GET", "/v0/management/metrics", &Value::Null);
    assert!(page.text().contains("plexus_cost_today_usd 0.5\n"));
}

#[test]
fn what_is_not_answered_costs_nothing() {
    let models = model("m+status=500", "{ source: per_request, amount: 1 }");
    let gateway = Gateway::with(&file(&models));
    gateway
        .speak(Dialect::Chat, "direct/p/m+status=500", false)
        .finish();
    let row = row(&gateway);
    assert_eq!(row["costTotal"], Value::Null);
    assert_eq!(row["costSource"], Value::Null);
}

#[test]
fn counting_a_requests_tokens_is_free() {
    let models = model("m", "{ source: per_request, amount: 1 }");
    let gateway = Gateway::with(&file(&models));
    let body = json!({ "model": "direct/p/m", "messages": [{ "role": "user", "content": "hi" }] });
    let answer = gateway.ask("/v1/messages/count_tokens", &body);
    assert_eq!(answer.status, 200);
    assert_eq!(row(&gateway)["costTotal"], Value::Null);
}

#[test]
fn an_answer_that_the_client_left_costs_what_is_known_of_it() {
    let name = "m+tokens_in=1000+tokens_out=500+chunks=9+silent_after=7";
    let models = model(name, "{ source: simple, input: 1000, output: 1000 }");
    let gateway = Gateway::with(&file(&models));
    // The first event of a Messages stream says what the input was.
    let mut stream = gateway.speak(Dialect::Messages, &format!("direct/p/{name}"), true);
    stream.read_until("content_block_delta");
    drop(stream);
    let row = row(&gateway);
    assert_eq!(row["responseStatus"], "cancelled");
    assert_eq!(row["costInput"], 0.5);
}

#[test]
fn the_providers_own_word_wins() {
    for (usage, total, parts) in [
        (
            r#""cost":0.0042,"is_byok":false,"cost_details":{"upstream_inference_cost":0.0042,"upstream_inference_prompt_cost":0.0012,"upstream_inference_completions_cost":0.003}"#,
            0.0042,
            [0.0012, 0.003],
        ),
        (r#""estimated_cost":0.004"#, 0.004, [0.001, 0.003]),
        (r#""cost_in_usd_ticks":40000000"#, 0.004, [0.001, 0.003]),
        (r#""cost":{"total_cost":0.004}"#, 0.004, [0.001, 0.003]),
        (
            r#""cost":0.001,"is_byok":true,"cost_details":{"upstream_inference_cost":0.003}"#,
            0.004,
            [0.001, 0.003],
        ),
        // Nobody's word: the file's price stands.
        (r#""cost":null"#, 0.00004, [0.00001, 0.00003]),
        (r#""cost":"much""#, 0.00004, [0.00001, 0.00003]),
        (r#""cost":-1"#, 0.00004, [0.00001, 0.00003]),
    ] {
        let body = format!(
            r#"{{"id":"c","object":"chat.completion","choices":[{{"index":0,"message":{{"role":"assistant","content":"hi"}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":10,"completion_tokens":10,{usage}}}}}"#
        );
        let upstream = Upstream::start(move |mut wire: Wire| {
            while wire.request().is_some() {
                wire.answer("200 OK", &body);
            }
        });
        let gateway = Gateway::with(&format!(
            "providers:\n  p: {{ api_base_url: 'http://{}/v1', api_key: k, models: {{ m: {{ pricing: {{ source: simple, input: 1, output: 3 }} }} }} }}\n\
             keys:\n  app: {{ secret: sk-plexus-tests }}\n",
            upstream.address
        ));
        gateway.speak(Dialect::Chat, "direct/p/m", false).finish();
        let row = row(&gateway);
        assert_eq!(row["costTotal"], total, "{usage}");
        assert_eq!(
            [row["costInput"].as_f64(), row["costOutput"].as_f64()],
            parts.map(Some),
            "{usage}"
        );
        let own = row["costSource"] == "provider_reported";
        assert_eq!(own, total > 0.001, "{usage}");
    }
}

#[test]
fn rows_are_ordered_by_what_they_cost() {
    let models: String = [3, 1, 2]
        .map(|amount| {
            model(
                &format!("m{amount}"),
                &format!("{{ source: per_request, amount: {amount} }}"),
            )
        })
        .concat();
    let gateway = Gateway::with(&file(&models));
    for amount in [3, 1, 2] {
        gateway
            .speak(Dialect::Chat, &format!("direct/p/m{amount}"), false)
            .finish();
    }
    gateway.rows(3);
    let page = gateway.admin(
        "GET",
        "/v0/management/usage?sortBy=costTotal&fields=costTotal",
        &Value::Null,
    );
    let costs: Vec<i64> = page.json()["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["costTotal"].as_i64().unwrap())
        .collect();
    assert_eq!(costs, [3, 2, 1]);
}

/// What a provider wrote that reports no tokens.
const WRITTEN: &str =
    "The quick brown fox jumps over the lazy dog, again and again: \u{4f60}\u{597d} \u{1f98a}.";

/// A provider that speaks chat and reports no tokens.
fn silent_about_tokens(stream: bool) -> Upstream {
    let body = if stream {
        let pieces: Vec<String> = WRITTEN
            .split_inclusive(' ')
            .map(|piece| {
                let delta = json!({ "choices": [{ "index": 0, "delta": { "content": piece }, "finish_reason": null }] });
                format!("data: {delta}\n\n")
            })
            .collect();
        let end = json!({ "choices": [{ "index": 0, "delta": {}, "finish_reason": "stop" }] });
        format!("{}data: {end}\n\ndata: [DONE]\n\n", pieces.concat())
    } else {
        json!({ "id": "c", "object": "chat.completion", "choices": [{ "index": 0, "finish_reason": "stop",
            "message": { "role": "assistant", "content": WRITTEN } }] })
        .to_string()
    };
    let content_type = if stream {
        "text/event-stream"
    } else {
        "application/json"
    };
    Upstream::start(move |mut wire: Wire| {
        while wire.request().is_some() {
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            wire.write(format!("{head}{body}").as_bytes());
        }
    })
}

fn estimating(upstream: &Upstream, more: &str) -> Gateway {
    Gateway::with(&format!(
        "providers:\n  p: {{ api_base_url: {{ chat: 'http://{}/v1' }}, api_key: k{more}, \
         models: {{ m: {{ pricing: {{ source: simple, input: 1, output: 1000 }} }} }} }}\n\
         keys:\n  app: {{ secret: sk-plexus-tests }}\n",
        upstream.address
    ))
}

#[test]
fn what_a_provider_does_not_report_is_estimated_where_the_file_says_so() {
    let output = estimate::tokens(WRITTEN);
    for dialect in Dialect::FOUR {
        for stream in [false, true] {
            let upstream = silent_about_tokens(stream);
            let gateway = estimating(&upstream, ", estimateTokens: true");
            let answer = gateway.speak(dialect, "direct/p/m", stream).finish();
            assert_eq!(answer.status, 200, "{}", answer.text());
            let row = row(&gateway);
            assert_eq!(row["tokensEstimated"], 1, "{dialect:?} {stream}");
            assert_eq!(row["tokensOutput"], output, "{dialect:?} {stream}");
            // A word, and what a turn costs beside it where there are any.
            let input = if dialect == Dialect::Responses { 2 } else { 6 };
            assert_eq!(row["tokensInput"], input, "{dialect:?} {stream}");
            let cost = f64::from(input) * 1e-6 + output as f64 * 1e-3;
            assert!((row["costTotal"].as_f64().unwrap() - cost).abs() < 1e-9);
        }
    }
    let upstream = silent_about_tokens(true);
    let gateway = estimating(&upstream, "");
    gateway.speak(Dialect::Chat, "direct/p/m", true).finish();
    let row = row(&gateway);
    assert_eq!(row["tokensEstimated"], 0);
    assert_eq!(
        (&row["tokensOutput"], &row["costTotal"]),
        (&Value::Null, &Value::Null)
    );
}

#[test]
fn what_a_provider_reports_is_not_estimated() {
    let gateway = Gateway::with(
        &file("      m+tokens_in=7+tokens_out=3: {}\n")
            .replace("api_key: up-p", "api_key: up-p\n    estimateTokens: true"),
    );
    gateway
        .speak(Dialect::Chat, "direct/p/m+tokens_in=7+tokens_out=3", true)
        .finish();
    let row = row(&gateway);
    assert_eq!(row["tokensEstimated"], 0);
    assert_eq!(
        (row["tokensInput"].as_u64(), row["tokensOutput"].as_u64()),
        (Some(7), Some(3))
    );
}

#[test]
fn a_picture_is_not_estimated_as_text() {
    let upstream = silent_about_tokens(false);
    let gateway = estimating(&upstream, ", estimateTokens: true");
    let picture = format!("data:image/png;base64,{}", "A".repeat(3_000_000));
    let body = json!({ "model": "direct/p/m", "messages": [{ "role": "user", "content": [
        { "type": "text", "text": "What is it?" },
        { "type": "image_url", "image_url": { "url": picture } }] }] });
    gateway.ask("/v1/chat/completions", &body).expect(200);
    let input = row(&gateway)["tokensInput"].as_u64().unwrap();
    assert!((1000..1020).contains(&input), "{input}");
}

/// OpenRouter, as far as prices go; says what it was told to.
fn market(document: &'static str) -> Upstream {
    Upstream::start(move |mut wire: Wire| {
        while wire.request().is_some() {
            wire.answer("200 OK", document);
        }
    })
}

fn fetch(gateway: &Gateway) -> Result<usize, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let told = runtime.block_on(gateway.app.refresh_catalogues(&[Source::OpenRouter]));
    let mut told = told.into_iter();
    told.find(|(source, _)| *source == Source::OpenRouter)
        .unwrap()
        .1
}

/// The section that has OpenRouter's list there, and no other.
fn catalogue(market: &Upstream) -> String {
    format!(
        "catalogue: {{ openrouter: 'http://{}/models', modelsDev: null, catwalk: null }}\n",
        market.address
    )
}

#[test]
fn openrouters_prices_are_fetched_kept_and_used_without_it() {
    let name = "m+tokens_in=1000+tokens_out=0";
    let market = market(
        r#"{"data":[{"id":"maker/model","pricing":{"prompt":"0.001","completion":"0.002"}}]}"#,
    );
    let models = model(name, "{ source: openrouter, slug: maker/model }");
    let mut gateway = Gateway::with(&format!("{}{}", catalogue(&market), file(&models)));
    let ask = |gateway: &Gateway| {
        gateway
            .speak(Dialect::Chat, &format!("direct/p/{name}"), false)
            .finish();
    };
    ask(&gateway);
    assert_eq!(gateway.rows(1)[0]["costSource"], "default");
    assert_eq!(fetch(&gateway), Ok(1));
    ask(&gateway);
    let row = gateway.rows(2).remove(0);
    assert_eq!(
        (&row["costSource"], &row["costTotal"]),
        (&json!("openrouter"), &json!(0.5))
    );
    assert_eq!(
        row["costMetadata"],
        r#"{"slug":"maker/model","prompt":0.001,"completion":0.002,"input_cache_read":0,"input_cache_write":0,"discount":0.5}"#
    );
    drop(market);
    assert!(fetch(&gateway).is_err());
    gateway.restart();
    gateway.app.recall_catalogues(&[Source::OpenRouter]);
    ask(&gateway);
    assert_eq!(gateway.rows(3)[0]["costTotal"], 0.5);
}

#[test]
fn a_list_that_is_none_changes_no_price() {
    let market = market(r#"{"error":"later"}"#);
    let models = model("m", "{ source: openrouter, slug: maker/model }");
    let gateway = Gateway::with(&format!("{}{}", catalogue(&market), file(&models)));
    assert!(fetch(&gateway).is_err());
    assert!(gateway.app.switchboard.catalogue().is_empty());
}

#[test]
fn the_cost_selector_compares_all_kinds_of_prices() {
    let market = market(
        r#"{"data":[{"id":"cheap","pricing":{"prompt":"0.0000001","completion":"0.0000001"}}]}"#,
    );
    let models = [
        model("dear", "{ source: simple, input: 10, output: 10 }"),
        model("listed", "{ source: openrouter, slug: cheap }"),
        model("flat", "{ source: per_request, amount: 0.001 }"),
    ]
    .concat();
    let alias = "models:\n  a: { selector: cost, sticky_session: false, targets: [\
        { provider: p, model: dear }, { provider: p, model: listed }, { provider: p, model: flat }] }\n";
    let gateway = Gateway::with(&format!("{}{}{alias}", catalogue(&market), file(&models)));
    let ask = |gateway: &Gateway| {
        gateway.speak(Dialect::Chat, "a", false).finish();
    };
    ask(&gateway);
    assert_eq!(gateway.rows(1)[0]["selectedModelName"], "flat");
    fetch(&gateway).unwrap();
    ask(&gateway);
    assert_eq!(gateway.rows(2)[0]["selectedModelName"], "listed");
}

#[test]
#[expect(clippy::too_many_lines, reason = "one story, told in order")]
fn prices_are_imported_into_the_file_and_its_comments_stay() {
    const LIST: &str = r#"{
        "big": {"input_cost_per_token": 3e-06, "output_cost_per_token": 1.5e-05, "cache_read_input_token_cost": 3e-07},
        "east/small": {"input_cost_per_token": 1e-06, "output_cost_per_token": 2e-06},
        "west/small": {"input_cost_per_token": 2e-06, "output_cost_per_token": 2e-06}}"#;
    const FILE: &str = "\
# Mine.
providers:
  p: # the good one
    api_base_url: https://p.example/v1
    api_key: k
    models:
      big: {} # dear
      small: {}
      own: { pricing: { source: per_request, amount: 1 } }
  q:
    api_base_url: https://q.example/v1
    api_key: k
    models: [big, unheard-of]
";
    let folder = tempfile::tempdir().unwrap();
    let (config, list) = (folder.path().join("c.yaml"), folder.path().join("l.json"));
    std::fs::write(&config, FILE).unwrap();
    std::fs::write(&list, LIST).unwrap();
    let run = |more: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_plexus"))
            .arg("prices")
            .arg(&list)
            .arg("--config")
            .arg(&config)
            .args(more)
            .env("ADMIN_KEY", ADMIN)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let said = run(&["--dry-run"]);
    assert!(said.contains("p/big: 3 in, 15 out (big)"), "{said}");
    assert!(
        said.contains("p/small: left out, prices differ: east/small, west/small"),
        "{said}"
    );
    assert!(said.contains("q/unheard-of: not in the list"), "{said}");
    assert_eq!(std::fs::read_to_string(&config).unwrap(), FILE);
    let said = run(&[]);
    assert!(said.contains("2 prices were written"), "{said}");
    let text = std::fs::read_to_string(&config).unwrap();
    for kept in ["# Mine.", "# the good one", "amount: 1"] {
        assert!(text.contains(kept), "{kept}: {text}");
    }
    let checked = plexus::config::Config::from_yaml(&format!("adminKey: a\n{text}")).unwrap();
    for provider in ["p", "q"] {
        let model = &checked.provider(provider).unwrap().models["big"];
        let priced = format!("{:?}", model.pricing);
        assert!(
            priced.contains("input: 3.0") && priced.contains("Some(0.3)"),
            "{priced}"
        );
    }
    let said = run(&["--called", "west"]);
    assert!(said.contains("p/small: 2 in, 2 out (west/small)"), "{said}");
    assert!(said.contains("p/big: has a price, which stays"), "{said}");
}
