//! What requests cost: in rows, in metrics, and in the order of targets.

#![expect(
    clippy::unwrap_used,
    reason = "in helpers of tests a failure is the test's failure"
)]

mod support;

use plexus::store::Record;
use serde_json::{Value, json};
use support::dialect::Dialect;
use support::upstream::{Upstream, Wire};
use support::{Gateway, PATIENCE, await_some};

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
    let name = "m+tokens_in=1000+tokens_out=500+chunks=9+gap=60000";
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
