//! The simulated provider, seen through a socket: what it answers in each
//! protocol, how it misbehaves, and what it remembers.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "in helpers of tests a failure is the test's failure"
)]

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use plexus::simulate::{Options, Outcome, Simulator};
use serde_json::{Value, json};

/// A provider in a thread of its own, stopped when dropped.
struct Provider {
    simulator: Simulator,
    address: SocketAddr,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Provider {
    fn start() -> Self {
        Self::with(Options::default())
    }

    fn with(options: Options) -> Self {
        let simulator = Simulator::new(options);
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let (tell, told) = mpsc::sync_channel(1);
        let serving = simulator.clone();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                tell.send(listener.local_addr().unwrap()).unwrap();
                let stop = async {
                    stopped.await.ok();
                };
                serving.serve(listener, stop).await.unwrap();
            });
        });
        Self {
            simulator,
            address: told.recv().unwrap(),
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Sends a request and reads until the connection ends.
    fn ask(&self, request: &Ask) -> Answer {
        let mut stream = self.connect();
        stream.write_all(&request.bytes(true)).unwrap();
        read_to_end(&mut stream)
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        stream
    }

    /// Waits until the last recorded exchange is over.
    fn last_outcome(&self) -> Outcome {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let outcome = self.simulator.requests().last().unwrap().outcome;
            if outcome != Outcome::Open || Instant::now() > deadline {
                return outcome;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            stop.send(()).ok();
        }
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// A request in the making.
#[derive(Clone)]
struct Ask {
    line: String,
    headers: Vec<(String, String)>,
    body: String,
}

impl Ask {
    fn new(line: &str, body: &Value) -> Self {
        Self {
            line: line.to_owned(),
            headers: Vec::new(),
            body: if body.is_null() {
                String::new()
            } else {
                body.to_string()
            },
        }
    }

    fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    fn simulate(self, options: &str) -> Self {
        self.header("x-simulate", options)
    }

    fn bytes(&self, close: bool) -> Vec<u8> {
        let mut text = format!("{} HTTP/1.1\r\nhost: x\r\n", self.line);
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        if close {
            text.push_str("connection: close\r\n");
        }
        text.push_str(&format!("content-length: {}\r\n\r\n", self.body.len()));
        text.push_str(&self.body);
        text.into_bytes()
    }
}

fn chat(stream: bool) -> Ask {
    let body = json!({
        "model": "m", "stream": stream, "messages": [{"role": "user", "content": "say it"}],
    });
    Ask::new("POST /v1/chat/completions", &body).header("authorization", "Bearer k")
}

fn responses(stream: bool) -> Ask {
    let body = json!({"model": "m", "stream": stream, "input": "say it"});
    Ask::new("POST /v1/responses", &body).header("authorization", "Bearer k")
}

fn messages(stream: bool) -> Ask {
    let body = json!({
        "model": "m", "stream": stream, "max_tokens": 9,
        "messages": [{"role": "user", "content": "say it"}],
    });
    Ask::new("POST /v1/messages", &body)
        .header("x-api-key", "k")
        .header("anthropic-version", "2023-06-01")
}

fn gemini(verb: &str) -> Ask {
    let body = json!({"contents": [{"parts": [{"text": "say it"}]}]});
    Ask::new(&format!("POST /v1beta/models/m:{verb}"), &body).header("x-goog-api-key", "k")
}

/// What came back, and how the connection ended.
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
    /// The body ended as it had to.
    complete: bool,
    reset: bool,
}

fn read_to_end(stream: &mut impl Read) -> Answer {
    let mut bytes = Vec::new();
    let reset = match stream.read_to_end(&mut bytes) {
        Ok(_) => false,
        Err(error) if error.kind() == ErrorKind::ConnectionReset => true,
        Err(error) => panic!("{error}"),
    };
    parse(&bytes, reset)
}

fn parse(bytes: &[u8], reset: bool) -> Answer {
    let text = String::from_utf8_lossy(bytes);
    let Some((head, _)) = text.split_once("\r\n\r\n") else {
        return Answer {
            status: 0,
            head: text.into_owned(),
            body: Vec::new(),
            complete: false,
            reset,
        };
    };
    let rest = &bytes[head.len() + 4..];
    let (body, complete) = if head.contains("transfer-encoding: chunked") {
        unchunked(rest)
    } else {
        let length = header_of(head, "content-length").map_or(0, |value| value.parse().unwrap());
        (rest.to_vec(), rest.len() == length)
    };
    Answer {
        status: head[9..12].parse().unwrap(),
        head: head.to_owned(),
        body,
        complete,
        reset,
    }
}

fn unchunked(mut rest: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    loop {
        let Some(line) = rest.windows(2).position(|pair| pair == b"\r\n") else {
            return (body, false);
        };
        let size = std::str::from_utf8(&rest[..line]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            return (body, true);
        }
        let data = &rest[line + 2..];
        body.extend_from_slice(&data[..size.min(data.len())]);
        if data.len() < size + 2 {
            return (body, false);
        }
        rest = &data[size + 2..];
    }
}

fn header_of(head: &str, name: &str) -> Option<String> {
    head.lines()
        .filter_map(|line| line.split_once(": "))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value.to_owned())
}

impl Answer {
    fn header(&self, name: &str) -> Option<String> {
        header_of(&self.head, name)
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    /// Pairs of event name and data.
    fn events(&self) -> Vec<(String, String)> {
        let text = self.text().replace("\r\n", "\n").replace('\r', "\n");
        text.split_terminator("\n\n")
            .map(|frame| {
                let line = |name: &str| {
                    let mut lines = frame.lines();
                    lines.find_map(|line| line.strip_prefix(name).map(str::to_owned))
                };
                (
                    line("event: ").unwrap_or_default(),
                    line("data: ").unwrap_or_else(|| panic!("no data in {frame:?}")),
                )
            })
            .collect()
    }

    fn data(&self) -> Vec<Value> {
        self.events()
            .iter()
            .filter(|(_, data)| data != "[DONE]")
            .map(|(_, data)| serde_json::from_str(data).unwrap())
            .collect()
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.events().into_iter().map(|(name, _)| name).collect();
        names.dedup();
        names
    }
}

const TOOLS: &str = "reasoning;tools=2;words=3;tokens_in=100;tokens_out=50;cached=30;cache_write=20;reasoning_tokens=10";

#[test]
fn a_chat_completion_says_the_same_whole_and_streamed() {
    let provider = Provider::start();
    let whole = provider.ask(&chat(false).simulate(TOOLS)).json();
    assert_eq!(whole["object"], "chat.completion");
    let message = &whole["choices"][0]["message"];
    assert_eq!(message["content"], "Every answer here");
    assert_eq!(message["tool_calls"].as_array().unwrap().len(), 2);
    assert_eq!(whole["choices"][0]["finish_reason"], "tool_calls");
    assert_eq!(whole["usage"]["prompt_tokens"], 100);
    assert_eq!(whole["usage"]["completion_tokens"], 50);
    assert_eq!(whole["usage"]["prompt_tokens_details"]["cached_tokens"], 30);
    assert_eq!(
        whole["usage"]["completion_tokens_details"]["reasoning_tokens"],
        10
    );

    let answer = provider.ask(&chat(true).simulate(TOOLS));
    assert!(answer.complete);
    assert_eq!(answer.events().last().unwrap().1, "[DONE]");
    let (mut text, mut thought, mut arguments) = (String::new(), String::new(), String::new());
    for chunk in answer.data() {
        assert_eq!(chunk["object"], "chat.completion.chunk");
        assert!(chunk.get("usage").is_none());
        let delta = &chunk["choices"][0]["delta"];
        text.push_str(delta["content"].as_str().unwrap_or_default());
        thought.push_str(delta["reasoning_content"].as_str().unwrap_or_default());
        if delta["tool_calls"][0]["index"] == 1 {
            let fragment = &delta["tool_calls"][0]["function"]["arguments"];
            arguments.push_str(fragment.as_str().unwrap());
        }
    }
    assert_eq!(text, message["content"]);
    assert_eq!(thought, message["reasoning_content"]);
    assert_eq!(arguments, message["tool_calls"][1]["function"]["arguments"]);
}

#[test]
fn chat_usage_comes_once_and_only_when_asked_for() {
    let provider = Provider::start();
    let body = json!({
        "model": "m", "stream": true, "stream_options": {"include_usage": true}, "messages": [],
    });
    let ask =
        Ask::new("POST /openai/v1/chat/completions", &body).header("authorization", "Bearer k");
    let chunks = provider.ask(&ask).data();
    let (last, rest) = chunks.split_last().unwrap();
    assert!(last["usage"]["total_tokens"].as_u64().unwrap() > 0);
    assert_eq!(last["choices"], json!([]));
    assert!(rest.iter().all(|chunk| chunk["usage"].is_null()));
    assert!(rest.iter().all(|chunk| chunk.get("usage").is_some()));
    let ids: Vec<_> = chunks.iter().map(|chunk| &chunk["id"]).collect();
    assert!(ids.iter().all(|id| *id == ids[0]));
    assert!(ids[0].as_str().unwrap().starts_with("chatcmpl-"));
}

#[test]
fn legacy_completions_stream_text() {
    let provider = Provider::start();
    let body = json!({"model": "m+echo", "stream": true, "prompt": "say it"});
    let ask = Ask::new("POST /v1/completions", &body).header("authorization", "Bearer k");
    let chunks = provider.ask(&ask).data();
    let text: String = chunks
        .iter()
        .map(|chunk| chunk["choices"][0]["text"].as_str().unwrap())
        .collect();
    assert_eq!(text, "say it");
    assert_eq!(
        chunks.last().unwrap()["choices"][0]["finish_reason"],
        "stop"
    );
}

#[test]
fn responses_events_are_numbered_and_end_with_the_whole() {
    let provider = Provider::start();
    let answer = provider.ask(&responses(true).simulate(TOOLS));
    let mut wanted = vec!["response.created", "response.in_progress"];
    wanted.extend(["response.output_item.added"]);
    wanted.extend(["response.reasoning_summary_part.added"]);
    wanted.extend(["response.reasoning_summary_text.delta"]);
    wanted.extend(["response.reasoning_summary_text.done"]);
    wanted.extend(["response.reasoning_summary_part.done"]);
    wanted.extend(["response.output_item.done", "response.output_item.added"]);
    wanted.extend(["response.content_part.added", "response.output_text.delta"]);
    wanted.extend(["response.output_text.done", "response.content_part.done"]);
    for _ in 0..2 {
        wanted.extend(["response.output_item.done", "response.output_item.added"]);
        wanted.extend(["response.function_call_arguments.delta"]);
        wanted.extend(["response.function_call_arguments.done"]);
    }
    wanted.extend(["response.output_item.done", "response.completed"]);
    assert_eq!(answer.names(), wanted);

    let events = answer.data();
    for (number, (event, (name, _))) in events.iter().zip(answer.events()).enumerate() {
        assert_eq!(event["sequence_number"], number);
        assert_eq!(event["type"], name);
    }
    let done: Vec<&Value> = events
        .iter()
        .filter(|event| event["type"] == "response.output_item.done")
        .map(|event| &event["item"])
        .collect();
    let response = &events.last().unwrap()["response"];
    assert_eq!(
        done,
        response["output"]
            .as_array()
            .unwrap()
            .iter()
            .collect::<Vec<_>>()
    );
    assert_eq!(
        response["usage"]["input_tokens_details"]["cached_tokens"],
        30
    );
    assert_eq!(
        response["usage"]["output_tokens_details"]["reasoning_tokens"],
        10
    );

    let whole = provider.ask(&responses(false).simulate(TOOLS)).json();
    assert_eq!(whole["usage"], response["usage"]);
    assert_eq!(
        whole["output"][1]["content"],
        response["output"][1]["content"]
    );
    assert_ne!(whole["id"], response["id"]);
}

#[test]
fn messages_events_open_and_close_each_block() {
    let provider = Provider::start();
    let answer = provider.ask(&messages(true).simulate(TOOLS));
    let block = [
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
    ];
    let mut wanted = vec!["message_start", "content_block_start", "ping"];
    wanted.extend(&block[1..]);
    for _ in 0..3 {
        wanted.extend(block);
    }
    wanted.extend(["message_delta", "message_stop"]);
    assert_eq!(answer.names(), wanted);

    let events = answer.data();
    let start = &events[0]["message"]["usage"];
    assert_eq!(start["input_tokens"], 50);
    assert_eq!(start["cache_read_input_tokens"], 30);
    assert_eq!(start["cache_creation_input_tokens"], 20);
    let delta = &events[events.len() - 2];
    assert_eq!(delta["delta"]["stop_reason"], "tool_use");
    assert_eq!(delta["usage"]["output_tokens"], 50);
    let signatures = events
        .iter()
        .filter(|event| event["delta"]["type"] == "signature_delta");
    assert_eq!(signatures.count(), 1);

    let whole = provider.ask(&messages(false).simulate(TOOLS)).json();
    let kinds: Vec<_> = whole["content"]
        .as_array()
        .unwrap()
        .iter()
        .map(|b| &b["type"])
        .collect();
    assert_eq!(kinds, ["thinking", "text", "tool_use", "tool_use"]);
    assert!(whole["content"][2]["input"].is_object());
    assert_eq!(whole["usage"]["output_tokens"], 50);
}

#[test]
fn gemini_streams_events_or_an_array() {
    let provider = Provider::start();
    let events = provider.ask(&gemini("streamGenerateContent?alt=sse").simulate(TOOLS));
    assert!(events.text().ends_with("\r\n\r\n"));
    let events = events.data();
    let array = provider.ask(&gemini("streamGenerateContent").simulate(TOOLS));
    assert_eq!(
        array.header("content-type").unwrap(),
        "application/json; charset=UTF-8"
    );
    let array = array.json();
    assert_eq!(array.as_array().unwrap().len(), events.len());
    for (event, element) in events.iter().zip(array.as_array().unwrap()) {
        assert_eq!(event["candidates"], replaced_ids(event, element));
        assert!(event["usageMetadata"]["totalTokenCount"].is_u64());
        assert_eq!(event["modelVersion"], "m");
    }
    let last = events.last().unwrap();
    assert_eq!(last["candidates"][0]["finishReason"], "STOP");
    assert_eq!(last["usageMetadata"]["candidatesTokenCount"], 40);
    assert_eq!(last["usageMetadata"]["thoughtsTokenCount"], 10);
    assert_eq!(last["usageMetadata"]["cachedContentTokenCount"], 30);
    assert!(events.iter().any(|event| {
        let part = &event["candidates"][0]["content"]["parts"][0];
        part["thought"] == true && part["thoughtSignature"].is_string()
    }));

    let whole = provider
        .ask(&gemini("generateContent").simulate(TOOLS))
        .json();
    assert_eq!(whole["usageMetadata"], last["usageMetadata"]);
    assert_eq!(
        whole["candidates"][0]["content"]["parts"]
            .as_array()
            .unwrap()
            .len(),
        4
    );
    let count = provider
        .ask(&gemini("countTokens").simulate("tokens_in=7"))
        .json();
    assert_eq!(count["totalTokens"], 7);
}

/// An element's candidates with the identifier of the other answer.
fn replaced_ids(event: &Value, element: &Value) -> Value {
    let id = |value: &Value| value["responseId"].as_str().unwrap().to_owned();
    let text = element["candidates"].to_string();
    serde_json::from_str(&text.replace(&id(element), &id(event))).unwrap()
}

#[test]
fn an_equal_request_gets_equal_bytes_but_for_ids_and_times() {
    let provider = Provider::start();
    let fixed = |answer: Answer| {
        let text = answer.text();
        let id = answer.data()[0]["id"].as_str().unwrap().to_owned();
        let created = answer.data()[0]["created"].to_string();
        (text.replace(&id, "id").replace(&created, "then"), id)
    };
    let (first, first_id) = fixed(provider.ask(&chat(true)));
    let (second, second_id) = fixed(provider.ask(&chat(true)));
    assert_eq!(first, second);
    assert_ne!(first_id, second_id);
    let other = provider.ask(&chat(true).simulate("words=2"));
    assert_ne!(other.data().len(), first.matches("data: ").count() - 1);
}

#[test]
fn media_endpoints_answer_in_their_shapes() {
    let provider = Provider::start();
    let post = |path: &str, body: &Value| {
        let ask = Ask::new(&format!("POST /v1/{path}"), body).header("authorization", "Bearer k");
        provider.ask(&ask)
    };
    let embeddings = post(
        "embeddings",
        &json!({"model": "e", "input": ["a", "b"], "dimensions": 4}),
    )
    .json();
    assert_eq!(
        embeddings["data"][1]["embedding"].as_array().unwrap().len(),
        4
    );
    let speech = post(
        "audio/speech",
        &json!({"model": "s", "input": "x", "response_format": "wav"}),
    );
    assert_eq!(speech.header("content-type").unwrap(), "audio/wav");
    assert!(speech.complete && speech.body.starts_with(b"RIFF"));
    let image = post("images/generations", &json!({"prompt": "x", "n": 2})).json();
    assert_eq!(image["data"].as_array().unwrap().len(), 2);
    assert!(image["created"].as_u64().unwrap() > 1_700_000_000);

    let form = "--b\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\nw+words=2\r\n\
                --b\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\nRIFF\r\n--b--\r\n";
    let mut ask = Ask::new("POST /v1/audio/transcriptions", &Value::Null)
        .header("authorization", "Bearer k")
        .header("content-type", "multipart/form-data; boundary=b");
    ask.body = form.to_owned();
    assert_eq!(provider.ask(&ask).json()["text"], "Every answer");
}

#[test]
fn the_list_of_models_has_the_shape_of_who_asks() {
    let provider = Provider::start();
    let list = |path: &str, name: &str, value: &str, extra: &str| {
        let mut ask = Ask::new(&format!("GET {path}"), &Value::Null).header(name, value);
        if !extra.is_empty() {
            ask = ask.header(extra, "2023-06-01");
        }
        provider.ask(&ask).json()
    };
    let openai = list("/v1/models", "authorization", "Bearer k", "");
    assert_eq!(openai["object"], "list");
    let anthropic = list("/v1/models", "x-api-key", "k", "anthropic-version");
    assert_eq!(anthropic["has_more"], false);
    let gemini = list("/v1beta/models", "x-goog-api-key", "k", "");
    assert_eq!(gemini["models"][0]["name"], "models/simulated");
    let one = list("/v1/models/acme/m", "authorization", "Bearer k", "");
    assert_eq!(one["id"], "acme/m");
}

#[test]
fn refusals_have_the_vendors_shape() {
    let provider = Provider::start();
    let mut missing = chat(false);
    missing.headers.clear();
    let denied = provider.ask(&missing);
    assert_eq!(denied.status, 401);
    assert_eq!(denied.json()["error"]["type"], "invalid_request_error");
    let bad = provider.ask(&missing.clone().header("authorization", "Bearer bad-key"));
    assert_eq!(bad.json()["error"]["code"], "invalid_api_key");

    let mut broken = messages(false);
    broken.body = "{".to_owned();
    let refused = provider.ask(&broken);
    assert_eq!(refused.status, 400);
    assert_eq!(refused.json()["error"]["type"], "invalid_request_error");
    assert!(refused.header("request-id").unwrap().starts_with("req_"));

    let mut empty = gemini("generateContent");
    empty.body = "{}".to_owned();
    let refused = provider.ask(&empty);
    assert_eq!(refused.json()["error"]["status"], "INVALID_ARGUMENT");
    let unknown = provider.ask(&chat(false).simulate("nonsense=1"));
    assert_eq!(unknown.status, 400);
    assert!(unknown.text().contains("nonsense"));
    assert_eq!(
        provider.ask(&Ask::new("POST /v1/none", &json!({}))).status,
        404
    );
    assert_eq!(
        provider
            .ask(&Ask::new("GET /v1/messages", &Value::Null))
            .status,
        405
    );
}

#[test]
fn a_status_comes_with_the_vendors_error_and_retry_headers() {
    let provider = Provider::start();
    let options = "status=429;retry_after=3;retry_after_ms=2500";
    let openai = provider.ask(&chat(true).simulate(options));
    assert_eq!(openai.status, 429);
    assert_eq!(openai.header("retry-after").unwrap(), "3");
    assert_eq!(
        openai.header("x-ratelimit-remaining-requests").unwrap(),
        "0"
    );
    assert_eq!(openai.json()["error"]["code"], "rate_limit_exceeded");
    let anthropic = provider.ask(&messages(true).simulate(options));
    assert_eq!(anthropic.json()["error"]["type"], "rate_limit_error");
    assert!(
        anthropic
            .header("anthropic-ratelimit-tokens-reset")
            .unwrap()
            .ends_with('Z')
    );
    let google = provider.ask(&gemini("generateContent").simulate(options));
    assert_eq!(google.json()["error"]["details"][0]["retryDelay"], "2.500s");
    let page = provider.ask(&chat(false).simulate("status=502;html"));
    assert_eq!(
        (page.status, page.header("content-type").unwrap().as_str()),
        (502, "text/html")
    );
    assert!(page.text().contains("<html>"));
}

#[test]
fn an_error_stands_where_it_was_asked_to_in_a_stream() {
    let provider = Provider::start();
    for point in ["first", "role", "content", "end"] {
        let options = format!("words=4;error={point}");
        let chat = provider.ask(&chat(true).simulate(&options));
        assert!(chat.complete && chat.status == 200);
        let events = chat.data();
        let place = match point {
            "first" => 0,
            "role" => 1,
            "content" => 3,
            _ => 5,
        };
        assert_eq!(events.len(), place + 1, "{point}");
        assert_eq!(events[place]["error"]["type"], "server_error");
        assert!(!chat.text().contains("[DONE]"));

        let names = provider.ask(&messages(true).simulate(&options)).names();
        assert_eq!(names.last().unwrap(), "error");
        let events = provider.ask(&responses(true).simulate(&options)).data();
        let kinds: Vec<_> = events.iter().rev().take(2).map(|e| &e["type"]).collect();
        assert_eq!(kinds, ["response.failed", "error"]);
        assert_eq!(events.last().unwrap()["sequence_number"], events.len() - 1);
        let gemini = provider
            .ask(&gemini("streamGenerateContent").simulate(&options))
            .json();
        let last = gemini.as_array().unwrap().last().unwrap();
        assert_eq!(last["error"]["status"], "UNAVAILABLE");
    }
}

#[test]
fn a_reset_comes_after_exactly_the_bytes_asked_for() {
    let provider = Provider::start();
    for options in ["reset=500", "reset=500;split", "reset=500;trickle"] {
        let cut = provider.ask(&chat(true).simulate(options));
        assert!(cut.reset && !cut.complete, "{options}");
        assert_eq!(cut.body.len(), 500, "{options}");
        assert!(matches!(provider.last_outcome(), Outcome::Cut(extent) if extent.bytes == 500));
    }
    let before = provider.ask(&chat(true).simulate("reset=0"));
    assert!(before.reset && before.status == 0);
}

#[test]
fn a_close_leaves_the_body_unfinished_without_a_reset() {
    let provider = Provider::start();
    let streamed = provider.ask(&chat(true).simulate("close=500"));
    assert!(!streamed.reset && !streamed.complete);
    assert_eq!(streamed.body.len(), 500);
    let whole = provider.ask(&chat(false).simulate("close=100"));
    assert!(!whole.reset && !whole.complete);
    assert_eq!(whole.body.len(), 100);
    let before = provider.ask(&chat(false).simulate("close=0"));
    assert!(!before.reset && before.status == 0);
}

#[test]
fn streams_can_end_well_formed_without_their_last_events() {
    let provider = Provider::start();
    let after = provider.ask(&chat(true).simulate("eof=2"));
    assert!(after.complete);
    assert_eq!(after.events().len(), 2);
    let content = provider.ask(&messages(true).simulate("eof"));
    assert_eq!(content.names().last().unwrap(), "content_block_stop");
    let last = provider.ask(&chat(true).simulate("noterm"));
    assert!(last.complete && !last.text().contains("[DONE]"));
    assert_eq!(
        last.data().last().unwrap()["choices"][0]["finish_reason"],
        "stop"
    );
}

#[test]
fn broken_json_line_ends_and_huge_frames_come_as_asked() {
    let provider = Provider::start();
    let whole = provider.ask(&chat(false).simulate("garbage"));
    assert!(whole.complete && serde_json::from_slice::<Value>(&whole.body).is_err());
    let streamed = provider.ask(&chat(true).simulate("garbage"));
    let broken = streamed
        .events()
        .iter()
        .filter(|(_, data)| serde_json::from_str::<Value>(data).is_err() && data != "[DONE]")
        .count();
    assert_eq!(broken, 1);
    let plain = provider.ask(&messages(true)).events().len();
    for (option, end) in [("cr", "\r\r"), ("crlf", "\r\n\r\n")] {
        let answer = provider.ask(&messages(true).simulate(option));
        assert!(answer.text().ends_with(end));
        assert_eq!(answer.text().contains('\n'), option == "crlf");
        assert_eq!(answer.events().len(), plain);
    }
    let huge = provider.ask(&chat(true).simulate("huge=300000"));
    assert!(huge.events().iter().any(|(_, data)| data.len() > 300_000));
    let empty = provider.ask(&chat(false).simulate("empty")).json();
    assert_eq!(empty["choices"][0]["message"]["content"], "");
    assert_eq!(empty["usage"]["completion_tokens"], 0);
    let split = provider.ask(&chat(true).simulate("split;words=1"));
    assert_eq!(split.data().len(), 3);
}

#[test]
fn the_length_is_announced_or_not() {
    let provider = Provider::start();
    assert!(
        provider
            .ask(&chat(false))
            .header("content-length")
            .is_some()
    );
    let without = provider.ask(&chat(false).simulate("nolength"));
    assert!(without.complete && without.header("transfer-encoding").is_some());
    let with = provider.ask(&chat(true).simulate("length"));
    assert!(with.complete && with.header("content-length").is_some());
}

#[test]
fn waits_stand_where_they_were_asked_for() {
    let provider = Provider::start();
    let time = |ask: Ask| {
        let mut stream = provider.connect();
        let began = Instant::now();
        stream.write_all(&ask.bytes(true)).unwrap();
        let mut first = [0; 12];
        stream.read_exact(&mut first).unwrap();
        let head = began.elapsed();
        stream.read_to_end(&mut Vec::new()).unwrap();
        (head, began.elapsed())
    };
    let wait = Duration::from_millis(100);
    assert!(time(chat(true).simulate("delay=100")).0 >= wait);
    for options in [
        "first=100",
        "silent=100",
        "silent_after=3;silent=100",
        "gap=30;words=2",
    ] {
        let (head, all) = time(chat(true).simulate(options));
        assert!(head < wait && all >= wait, "{options}: {head:?} {all:?}");
    }
}

#[test]
fn a_silent_stream_ends_only_when_the_client_leaves() {
    let provider = Provider::start();
    let mut stream = provider.connect();
    let ask = chat(true).simulate("silent_after=2");
    stream.write_all(&ask.bytes(false)).unwrap();
    let mut seen = Vec::new();
    while String::from_utf8_lossy(&seen).matches("data: ").count() < 2 {
        let mut piece = [0; 4096];
        let length = stream.read(&mut piece).unwrap();
        seen.extend_from_slice(&piece[..length]);
    }
    let open = provider.simulator.stats();
    assert_eq!((open.in_flight, open.connections_open), (1, 1));
    drop(stream);
    assert!(matches!(provider.last_outcome(), Outcome::Left(extent) if extent.bytes > 100));
    let stats = provider.simulator.stats();
    assert_eq!((stats.in_flight, stats.cancelled), (0, 1));
    assert!(stats.served.is_empty());
}

#[test]
fn a_client_that_leaves_before_the_head_is_noticed() {
    let provider = Provider::start();
    let mut stream = provider.connect();
    let ask = chat(true).simulate("delay=600000");
    stream.write_all(&ask.bytes(false)).unwrap();
    while provider.simulator.requests().is_empty() {
        thread::sleep(Duration::from_millis(1));
    }
    drop(stream);
    assert!(matches!(provider.last_outcome(), Outcome::Left(extent) if extent.bytes == 0));
}

#[test]
fn kept_alive_connections_are_closed_without_a_word() {
    let provider = Provider::start();
    for options in ["keepalive=0", "idle_close=30"] {
        let mut stream = provider.connect();
        let ask = chat(false).simulate(options);
        let began = Instant::now();
        stream.write_all(&ask.bytes(false)).unwrap();
        let answer = read_to_end(&mut stream);
        assert!(answer.complete && !answer.reset);
        assert!(answer.header("connection").is_none());
        if options.starts_with("idle") {
            assert!(began.elapsed() >= Duration::from_millis(30));
        }
    }
    let mut stream = provider.connect();
    for _ in 0..2 {
        stream.write_all(&chat(false).bytes(false)).unwrap();
        let mut first = [0; 12];
        stream.read_exact(&mut first).unwrap();
        assert_eq!(&first, b"HTTP/1.1 200");
        let mut rest = [0; 16 * 1024];
        let mut length = 0;
        while parse(&[&first[..], &rest[..length]].concat(), false).status == 0
            || !parse(&[&first[..], &rest[..length]].concat(), false).complete
        {
            length += stream.read(&mut rest[length..]).unwrap();
        }
    }
    assert_eq!(provider.simulator.stats().connections_accepted, 3);
}

#[test]
fn misbehaviour_ends_after_the_times_it_was_asked_for() {
    let provider = Provider::start();
    let flaky = |model: &str| {
        let body = json!({"model": model, "messages": []});
        let ask = Ask::new("POST /v1/chat/completions", &body).header("authorization", "Bearer k");
        provider.ask(&ask).status
    };
    let name = "flaky+status=503+times=2";
    assert_eq!([flaky(name), flaky(name), flaky(name)], [503, 503, 200]);
    assert_eq!(flaky("other+status=503+times=2"), 503);
    provider.simulator.clear();
    assert_eq!(flaky(name), 503);
}

#[test]
fn what_it_received_can_be_read_back() {
    let provider = Provider::start();
    let ask = chat(false)
        .header("X-Odd", "Value")
        .header("x-odd", "again");
    provider.ask(&ask);
    assert!(matches!(provider.last_outcome(), Outcome::Finished(_)));
    let recorded = provider.simulator.requests().pop().unwrap();
    assert_eq!(recorded.method, "POST");
    assert_eq!(recorded.target, "/v1/chat/completions");
    assert_eq!(recorded.version, "HTTP/1.1");
    assert_eq!(recorded.body.as_deref(), Some(ask.body.as_bytes()));
    let names: Vec<_> = recorded
        .headers
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(
        names,
        [
            "host",
            "authorization",
            "x-odd",
            "x-odd",
            "connection",
            "content-length"
        ]
    );
    let digest = ring::digest::digest(&ring::digest::SHA256, ask.body.as_bytes());
    let hexadecimal: String = digest.as_ref().iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(recorded.body_sha256, hexadecimal);

    let page = provider
        .ask(&Ask::new("GET /_simulate/requests", &Value::Null))
        .json();
    assert_eq!(page.as_array().unwrap().len(), 1);
    assert_eq!(page[0]["body"], ask.body);
    assert_eq!(page[0]["outcome"], "finished");
    let gone = provider.ask(&Ask::new("DELETE /_simulate/requests", &Value::Null));
    assert_eq!(gone.status, 204);
    assert!(provider.simulator.requests().is_empty());
    let help = provider
        .ask(&Ask::new("GET /_simulate/help", &Value::Null))
        .text();
    assert!(help.contains("retry_after_ms"));
}

#[test]
fn the_ledger_holds_what_finished_answers_reported() {
    let provider = Provider::start();
    let options = "tokens_in=100;tokens_out=50;cached=30";
    provider.ask(&chat(false).simulate(options));
    provider.ask(&messages(true).simulate(options));
    provider.ask(&chat(true).simulate(&format!("{options};close=300")));
    provider.ask(&chat(true).simulate(&format!("{options};error=end")));
    provider.ask(&messages(false).simulate(&format!("{options};status=500")));
    let page = provider
        .ask(&Ask::new("GET /_simulate/stats", &Value::Null))
        .json();
    let line = &page["served"]["m"];
    assert_eq!(
        (&line["answers"], &line["tokens_in"]),
        (&json!(2), &json!(200))
    );
    assert_eq!(
        (&line["tokens_out"], &line["cached"]),
        (&json!(100), &json!(60))
    );
    assert_eq!(
        (&page["requests"], &page["cancelled"]),
        (&json!(5), &json!(0))
    );
}

#[test]
fn nothing_is_recorded_when_recording_is_off() {
    let provider = Provider::with(Options {
        record: false,
        ..Options::default()
    });
    provider.ask(&chat(true));
    assert!(provider.simulator.requests().is_empty());
    assert_eq!(provider.simulator.stats().requests, 1);
    assert_eq!(provider.simulator.stats().served["m"].answers, 1);
}

/// Sends one streamed chat request over HTTP/2 and collects its body.
async fn ask_http2<I>(io: I, options: &str) -> Result<Bytes, hyper::Error>
where
    I: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(io)).await?;
    let driver = tokio::spawn(connection);
    let request = hyper::Request::post("http://x/v1/chat/completions")
        .header("authorization", "Bearer k")
        .header("x-simulate", options)
        .body(Full::new(Bytes::from(chat(true).body)))
        .unwrap();
    let response = sender.send_request(request).await?;
    assert_eq!(response.version(), hyper::Version::HTTP_2);
    let body = response
        .into_body()
        .collect()
        .await
        .map(|all| all.to_bytes());
    driver.abort();
    body
}

#[tokio::test]
async fn http2_is_spoken_with_prior_knowledge() {
    let provider = Provider::start();
    let connect = || tokio::net::TcpStream::connect(provider.address);
    let body = ask_http2(connect().await.unwrap(), "words=2")
        .await
        .unwrap();
    assert!(body.ends_with(b"data: [DONE]\n\n"));
    for cut in ["reset=500", "close=500", "reset=0"] {
        assert!(
            ask_http2(connect().await.unwrap(), cut).await.is_err(),
            "{cut}"
        );
        assert!(matches!(provider.last_outcome(), Outcome::Cut(_)), "{cut}");
    }
}

#[tokio::test]
async fn tls_offers_both_protocols() {
    let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der());
    let provider_of_ciphers = Arc::new(rustls::crypto::ring::default_provider());
    let mut server = rustls::ServerConfig::builder_with_provider(provider_of_ciphers.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key.unwrap())
        .unwrap();
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let provider = Provider::with(Options {
        tls: Some(Arc::new(server)),
        ..Options::default()
    });
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certified.cert.der().clone()).unwrap();
    let mut client = rustls::ClientConfig::builder_with_provider(provider_of_ciphers)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.alpn_protocols = vec![b"h2".to_vec()];
    let tcp = tokio::net::TcpStream::connect(provider.address)
        .await
        .unwrap();
    let tls = tokio_rustls::TlsConnector::from(Arc::new(client))
        .connect("localhost".try_into().unwrap(), tcp)
        .await
        .unwrap();
    let body = ask_http2(tls, "words=2").await.unwrap();
    assert!(body.ends_with(b"data: [DONE]\n\n"));
}
