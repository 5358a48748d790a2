//! How long a target rests when its provider says when to come back, in each of
//! the dialects in which providers say it.

#![expect(
    clippy::unwrap_used,
    reason = "in helpers of tests a failure is the test's failure"
)]

mod support;

use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use serde_json::{Value, json};
use support::Gateway;
use support::dialect::Dialect;
use support::upstream::Upstream;

/// What a provider answers, and the rest that follows from it.
struct Case {
    what: &'static str,
    answer: String,
    rest: Rest,
}

#[derive(Clone, Copy)]
enum Rest {
    /// So many milliseconds from the failure on.
    For(i64),
    /// Until that second since 1970.
    Until(i64),
}

fn refusal(status: &str, fields: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{fields}content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

const LIMITED: &str = "429 Too Many Requests";
const SLOW: &str = r#"{"error":{"message":"slow down"}}"#;

fn fields(what: &'static str, fields: &str, rest: Rest) -> Case {
    let answer = refusal(LIMITED, fields, SLOW);
    Case { what, answer, rest }
}

fn error(what: &'static str, error: &Value, rest: Rest) -> Case {
    let body = json!({ "error": error }).to_string();
    let answer = refusal(LIMITED, "", &body);
    Case { what, answer, rest }
}

fn message(what: &'static str, message: &str, rest: Rest) -> Case {
    error(what, &json!({ "message": message }), rest)
}

/// As in `Sun, 06 Nov 1994 08:49:37 GMT`.
fn http_date(second: i64) -> String {
    let time = Timestamp::from_second(second).unwrap();
    time.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

fn rfc_3339(second: i64) -> String {
    Timestamp::from_second(second).unwrap().to_string()
}

fn header_cases(now: i64) -> Vec<Case> {
    use Rest::{For, Until};
    let date = format!("retry-after: {}\r\n", http_date(now + 90));
    let past = format!("retry-after: {}\r\n", http_date(now - 90));
    let anthropic = format!(
        "anthropic-ratelimit-requests-remaining: 0\r\nanthropic-ratelimit-requests-reset: {}\r\n\
         anthropic-ratelimit-tokens-remaining: 0\r\nanthropic-ratelimit-tokens-reset: {}\r\n\
         anthropic-ratelimit-input-tokens-remaining: 7\r\nanthropic-ratelimit-input-tokens-reset: {}\r\n",
        rfc_3339(now + 70),
        rfc_3339(now + 140),
        rfc_3339(now + 9000)
    );
    let openai = "x-ratelimit-remaining-requests: 0\r\nx-ratelimit-reset-requests: 6m0s\r\n\
                  x-ratelimit-remaining-tokens: 5\r\nx-ratelimit-reset-tokens: 9h\r\n";
    let moment = format!("x-ratelimit-reset: {}\r\n", (now + 50) * 1000);
    vec![
        fields("seconds", "retry-after: 30\r\n", For(30_000)),
        fields("a fraction", "retry-after: 1.5\r\n", For(1500)),
        fields(
            "milliseconds",
            "retry-after-ms: 45000\r\nretry-after: 9\r\n",
            For(45_000),
        ),
        fields("a date", &date, Until(now + 90)),
        fields("a date that has passed", &past, For(1000)),
        fields("nothing at all", "retry-after: soon\r\n", For(120_000)),
        fields("OpenAI's resets", openai, For(360_000)),
        fields(
            "a moment that is near",
            "x-ratelimit-reset-tokens: 12ms\r\n",
            For(1000),
        ),
        fields("a moment in milliseconds", &moment, Until(now + 50)),
        fields("Anthropic's resets", &anthropic, Until(now + 140)),
        Case {
            what: "a full server",
            answer: refusal("503 Service Unavailable", "retry-after: 25\r\n", SLOW),
            rest: For(25_000),
        },
        Case {
            what: "Anthropic's own status",
            answer: refusal("529 Overloaded", "retry-after: 26\r\n", SLOW),
            rest: For(26_000),
        },
        Case {
            what: "another status",
            answer: refusal("500 Oops", "retry-after: 40\r\n", SLOW),
            rest: For(40_000),
        },
    ]
}

#[expect(clippy::too_many_lines, reason = "one table")]
fn body_cases(now: i64) -> Vec<Case> {
    use Rest::{For, Until};
    let google = json!({ "code": 429, "message": "quota", "status": "RESOURCE_EXHAUSTED", "details": [
        { "@type": "type.googleapis.com/google.rpc.QuotaFailure" },
        { "@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.4s" }] });
    let metadata =
        |metadata: Value| json!({ "message": "limited", "code": 429, "metadata": metadata });
    let stream = "data: {\"error\":{\"message\":\"limited\",\"code\":429,\"metadata\":{\"retry_after_seconds\":19}}}\n\n";
    vec![
        error("Google's RetryInfo", &google, For(34_400)),
        error(
            "OpenRouter's seconds",
            &metadata(json!({ "retry_after_seconds": 17 })),
            For(17_000),
        ),
        error(
            "OpenRouter's exact seconds",
            &metadata(json!({ "retry_after_seconds": 17, "retry_after_seconds_raw": 16.25 })),
            For(16_250),
        ),
        error(
            "OpenRouter's header",
            &metadata(json!({ "headers": { "Retry-After": "22" } })),
            For(22_000),
        ),
        error(
            "OpenRouter's reset",
            &metadata(
                json!({ "headers": { "X-RateLimit-Reset": ((now + 80) * 1000).to_string() } }),
            ),
            Until(now + 80),
        ),
        error(
            "ChatGPT's seconds",
            &json!({ "type": "usage_limit_reached", "message": "limit", "resets_in_seconds": 3600 }),
            For(3_600_000),
        ),
        error(
            "ChatGPT's moment",
            &json!({ "type": "usage_limit_reached", "message": "limit", "resets_at": now + 7200 }),
            Until(now + 7200),
        ),
        message(
            "Codex's sentence",
            "You've hit your limit, try again in ~5 min.",
            For(300_000),
        ),
        message(
            "OpenAI's sentence",
            "Limit 3. Please try again in 20.5s.",
            For(20_500),
        ),
        message(
            "OpenRouter's sentence",
            "Rate limited: retry after 2 m",
            For(120_000),
        ),
        message("another sentence", "Please retry in 34.4s", For(34_400)),
        Case {
            what: "in a stream",
            answer: format!(
                "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: {}\r\n\r\n{stream}",
                stream.len()
            ),
            rest: For(19_000),
        },
    ]
}

fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(now.as_millis()).unwrap()
}

/// The number in the model's name, which says what to answer.
fn number(request: &[u8]) -> usize {
    let text = String::from_utf8_lossy(request);
    let rest = text.split("case-").nth(1).unwrap();
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap()
}

#[test]
fn a_rest_lasts_as_long_as_the_provider_asks_for_in_any_dialect() {
    let now = now_ms() / 1000;
    let cases: Vec<Case> = header_cases(now)
        .into_iter()
        .chain(body_cases(now))
        .collect();
    let answers: Vec<String> = cases.iter().map(|case| case.answer.clone()).collect();
    let upstream = Upstream::start(move |mut wire| {
        while let Some(request) = wire.request() {
            wire.write(answers[number(&request)].as_bytes());
        }
    });
    let gateway = Gateway::with(&format!(
        "providers: {{ p: {{ api_base_url: 'http://{}/v1', api_key: k }} }}\n\
         keys: {{ app: {{ secret: sk-plexus-tests }} }}\n",
        upstream.address
    ));
    for (at, case) in cases.iter().enumerate() {
        let stream = case.what == "in a stream";
        let before = now_ms();
        let model = format!("direct/p/case-{at}");
        let answer = gateway.speak(Dialect::Chat, &model, stream).finish();
        let after = now_ms();
        assert!(answer.status >= 400, "{}: {}", case.what, answer.status);
        let listed = gateway.admin("GET", "/v0/management/cooldowns", &Value::Null);
        let listed = listed.expect(200).json();
        let name = format!("case-{at}");
        let mut rests = listed.as_array().unwrap().iter();
        let rest = rests
            .find(|rest| rest["model"] == *name)
            .map(|rest| rest["expiry"].as_i64().unwrap());
        let (from, to) = match case.rest {
            Rest::For(ms) => (before + ms, after + ms),
            // As much later as passed between reading the answer and counting from it.
            Rest::Until(second) => (second * 1000, second * 1000 + after - before),
        };
        // The gateway's clock may have begun between two milliseconds.
        let lasts = rest.is_some_and(|rest| (from - 2..=to + 2).contains(&rest));
        assert!(lasts, "{}: {rest:?} is not in {from}..={to}", case.what);
        if matches!(case.rest, Rest::For(30_000)) {
            assert_eq!(
                answer.header("retry-after"),
                Some("30"),
                "the client is told too"
            );
        }
    }
}
