//! Every protocol of a client with every protocol of a provider, through real
//! sockets, before a provider that refuses what the real ones refuse.

#![expect(
    clippy::unwrap_used,
    reason = "in helpers of tests a failure is the test's failure"
)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use support::dialect::{Dialect, Ending};
use support::talk::{self, Called, PROVIDERS, Said, Talk, last_body, model};
use support::upstream::Upstream;
use support::{Gateway, await_some};

fn newest_row(gateway: &Gateway, count: usize) -> Map<String, Value> {
    gateway.rows(count).into_iter().next().unwrap()
}

/// Every client with every provider, whole and as a stream.
fn pairs() -> impl Iterator<Item = (Dialect, Dialect, bool)> {
    let clients = Dialect::ALL.into_iter();
    let pairs = clients.flat_map(|client| Dialect::FOUR.map(|provider| (client, provider)));
    pairs.flat_map(|(client, provider)| [false, true].map(|stream| (client, provider, stream)))
}

/// The provider was told all that was said, in order, and nothing else.
#[track_caller]
fn arrived_whole(gateway: &Gateway, provider: Dialect, talk: &Talk, said: usize) {
    let body = last_body(gateway);
    let (told, images) = talk::told(provider, &body);
    let from = talk.dialect;
    assert_eq!(
        told,
        talk.facts[..said],
        "{from:?} to {provider:?}: {body:#}"
    );
    assert_eq!(images, talk.images, "{from:?} to {provider:?}: {body:#}");
    assert!(body.to_string().contains("Be brief."), "{body:#}");
}

fn results(talk: &mut Talk, said: &Said, turn: usize) {
    let texts: Vec<String> = (0..said.calls.len())
        .map(|number| format!("result {turn}.{number}"))
        .collect();
    // Chat has no images in results.
    let image = turn.is_multiple_of(4) && talk.dialect != Dialect::Chat;
    talk.results(&said.calls, &texts, turn.is_multiple_of(3), image);
}

#[test]
fn every_client_hears_the_text_of_every_provider() {
    let gateway = Gateway::with(PROVIDERS);
    for (client, provider, stream) in pairs() {
        let mut talk = Talk::new(client);
        talk.user("How are you, Zoë? 🙂", false);
        let options = "echo+tokens_in=50+tokens_out=30";
        let said = talk.ask(&gateway, &model(provider, options), stream);
        let place = format!("{client:?} to {provider:?}, stream {stream}");
        assert_eq!(said.text, "How are you, Zoë? 🙂", "{place}");
        assert_eq!(said.tokens, (50, 30), "{place}");
        assert_eq!(said.calls, [], "{place}");
        arrived_whole(&gateway, provider, &talk, 1);
    }
}

#[test]
fn every_client_hears_the_calls_of_every_provider_and_answers_them() {
    let gateway = Gateway::with(PROVIDERS);
    for (client, provider, stream) in pairs() {
        for thinking in [false, true] {
            let place = format!("{client:?} to {provider:?}, stream {stream}, thinking {thinking}");
            let mut talk = Talk::new(client);
            talk.thinking = thinking;
            talk.user("Weather and file, please", true);
            let options = match thinking {
                false => "tools=2",
                true => "tools=2+reasoning+echo",
            };
            for turn in 1..=3 {
                let said = talk.ask(&gateway, &model(provider, options), stream);
                let names: Vec<&str> = said.calls.iter().map(|call| call.name.as_str()).collect();
                assert_eq!(names, ["weather", "read_file"], "{place}");
                assert_eq!(
                    said.calls[1].arguments,
                    json!({"path": "Zürich"}),
                    "{place}"
                );
                assert_eq!(!said.reasoning.is_empty(), thinking, "{place}: {said:?}");
                results(&mut talk, &said, turn);
            }
            talk.ask(&gateway, &model(provider, options), stream);
            let said = talk.facts.len() - if thinking { 3 } else { 2 };
            arrived_whole(&gateway, provider, &talk, said);
            let body = last_body(&gateway).to_string();
            let carried = body.contains("c2ltdWxhdGVk");
            assert_eq!(
                carried,
                thinking && provider != Dialect::Chat || provider == Dialect::Gemini,
                "{place}: {body}"
            );
        }
    }
}

#[test]
fn a_session_of_fifty_turns_survives_every_change_of_provider() {
    for client in Dialect::ALL {
        let gateway = Gateway::with(PROVIDERS);
        let mut talk = Talk::new(client);
        let mut calls: Vec<Called> = Vec::new();
        let mut last = None;
        for turn in 0..50 {
            let provider = Dialect::FOUR[(turn / 3) % 4];
            if calls.is_empty() {
                talk.user(&format!("turn {turn}"), turn.is_multiple_of(6));
            } else {
                let said = Said {
                    calls: std::mem::take(&mut calls),
                    ..Said::default()
                };
                results(&mut talk, &said, turn);
            }
            let options = [
                "reasoning+tools=2+echo",
                "tools=1",
                "reasoning+echo+tools=3",
                "reasoning+echo",
                "chunks=3",
            ][turn % 5];
            let before = talk.facts.len();
            let said = talk.ask(&gateway, &model(provider, options), turn.is_multiple_of(2));
            arrived_whole(&gateway, provider, &talk, before);
            calls.clone_from(&said.calls);
            last = Some(said);
        }
        assert!(last.is_some_and(|said| !said.text.is_empty()));
        let rows = gateway.rows(50);
        assert!(rows.iter().all(|row| row["responseStatus"] == "success"));
        assert!(rows.iter().all(|row| row["attemptCount"] == 1));
        let asked = gateway.provider.simulator.stats().requests;
        // What another protocol's provider left in the history is put right before it
        // is refused.
        assert_eq!(asked, 50, "{client:?}");
    }
}

/// A file with an alias `a` over these targets.
fn over(targets: &[(Dialect, &str)], more: &str) -> String {
    let targets: Vec<String> = targets
        .iter()
        .map(|(provider, options)| {
            let name = model(*provider, options);
            let model = name.split_once('/').unwrap().1.split_once('/').unwrap().1;
            format!("{{ provider: {}, model: '{model}' }}", provider.name())
        })
        .collect();
    let targets = targets.join(", ");
    format!("{more}{PROVIDERS}models:\n  a: {{ selector: in_order, targets: [{targets}] }}\n")
}

fn others(dialect: Dialect) -> [Dialect; 3] {
    let others: Vec<Dialect> = Dialect::FOUR
        .into_iter()
        .filter(|other| other.name() != dialect.name())
        .collect();
    others.try_into().unwrap()
}

#[test]
fn what_fails_before_the_first_byte_is_answered_by_a_provider_of_another_protocol() {
    for client in Dialect::ALL {
        let [first, second, third] = others(client);
        for fault in ["status=500", "error=first", "reset=0", "garbage", "eof=0"] {
            for stream in [false, true] {
                // A whole answer has no end to miss, and broken JSON comes too late in a stream.
                if fault == (if stream { "garbage" } else { "eof=0" }) {
                    continue;
                }
                let targets = [(first, fault), (second, "status=503"), (third, "echo")];
                let gateway = Gateway::with(&over(&targets, ""));
                let mut talk = Talk::new(client);
                talk.user("still there?", false);
                let (answer, said) = talk.try_ask(&gateway, "a", stream);
                let place = format!("{client:?} {fault} {stream}: {}", answer.text());
                assert_eq!(said.unwrap().text, "still there?", "{place}");
                let row = newest_row(&gateway, 1);
                assert_eq!(row["attemptCount"], 3, "{place}");
                assert_eq!(row["outgoingApiType"], third.name(), "{place}");
                assert_eq!(row["isPassthrough"], false, "{place}");
            }
        }
    }
}

#[test]
fn a_failure_in_the_middle_ends_as_the_clients_sdk_raises_it() {
    for fault in [
        "error=content",
        "eof",
        "close=3000",
        "reset=3000",
        "garbage",
    ] {
        for client in Dialect::ALL {
            for provider in others(client) {
                // Of its own, as a provider that failed rests for a while.
                let gateway = Gateway::with(PROVIDERS);
                let name = model(provider, &format!("chunks=40+bytes=200+gap=1+{fault}"));
                let mut stream = gateway.speak(client, &name, true);
                let place = format!("{client:?} to {provider:?}, {fault}");
                assert_eq!(stream.status, 200, "{place}");
                let (body, error) = stream.rest();
                assert!(error.is_none(), "{place}: {error:?}");
                let text = String::from_utf8_lossy(&body);
                assert_eq!(client.ending(&body), Ending::Failed, "{place}: {text}");
                let row = newest_row(&gateway, 1);
                assert_eq!(row["responseStatus"], "error", "{place}: {row:?}");
            }
        }
    }
}

#[test]
fn a_client_that_leaves_takes_the_provider_with_it_within_a_second() {
    let gateway = Gateway::with(PROVIDERS);
    let mut rows = 0;
    for client in Dialect::ALL {
        for provider in others(client) {
            let name = model(provider, "chunks=100+silent_after=6+silent");
            let mut stream = gateway.speak(client, &name, true);
            let before = gateway.provider.simulator.stats().cancelled;
            stream.chunk().unwrap().unwrap();
            let left = Instant::now();
            stream.leave();
            await_some("the provider to be left", || {
                (gateway.provider.simulator.stats().cancelled > before).then_some(())
            });
            let place = format!("{client:?} to {provider:?}");
            assert!(left.elapsed() < Duration::from_secs(1), "{place}");
            rows += 1;
            let row = newest_row(&gateway, rows);
            assert_eq!(row["responseStatus"], "cancelled", "{place}");
            assert_eq!(row["isPassthrough"], false, "{place}");
        }
    }
}

#[test]
fn rows_of_translated_requests_have_the_tokens_that_the_client_saw() {
    let gateway = Gateway::with(PROVIDERS);
    let mut rows = 0;
    for (client, provider, stream) in pairs() {
        let mut talk = Talk::new(client);
        talk.user("count", false);
        let options =
            "reasoning+tools=1+echo+tokens_in=1000+tokens_out=70+cached=300+reasoning_tokens=20";
        let said = talk.ask(&gateway, &model(provider, options), stream);
        rows += 1;
        let row = newest_row(&gateway, rows);
        let place = format!("{client:?} to {provider:?}, stream {stream}: {row:?}");
        assert_eq!(said.tokens, (1000, 70), "{place}");
        assert_eq!(row["tokensInput"], 700, "{place}");
        assert_eq!(row["tokensCached"], 300, "{place}");
        assert_eq!(row["tokensOutput"], 50, "{place}");
        assert_eq!(row["tokensReasoning"], 20, "{place}");
        assert_eq!(row["incomingApiType"], client.name(), "{place}");
        assert_eq!(row["outgoingApiType"], provider.name(), "{place}");
        assert_eq!(
            row["isPassthrough"],
            client.name() == provider.name(),
            "{place}"
        );
    }
}

#[test]
fn what_a_provider_cannot_do_is_noted_and_in_strict_mode_refused_by_its_name() {
    let gateway = Gateway::with(PROVIDERS);
    let asks = [
        (
            Dialect::Chat,
            Dialect::Messages,
            json!({"seed": 7, "logit_bias": {"1": 2}}),
            "seed",
        ),
        (
            Dialect::Messages,
            Dialect::Responses,
            json!({"stop_sequences": ["x"]}),
            "stop_sequences",
        ),
        (
            Dialect::Responses,
            Dialect::Gemini,
            json!({"truncation": "auto"}),
            "truncation",
        ),
        (
            Dialect::Gemini,
            Dialect::Messages,
            json!({"generationConfig": {"seed": 7}}),
            "seed",
        ),
    ];
    for (number, (client, provider, extra, name)) in asks.into_iter().enumerate() {
        let mut talk = Talk::new(client);
        (talk.thinking, talk.tools, talk.extra) = (false, false, extra);
        talk.user("hello", false);
        let (path, body) = talk.request(&model(provider, ""), false);
        let (answer, said) = talk.try_ask(&gateway, &model(provider, ""), false);
        assert!(said.is_some(), "{client:?}: {}", answer.text());
        let notes = answer.header("x-plexus-notes").unwrap_or_default();
        assert!(notes.contains(name), "{client:?}: {notes}");
        let row = newest_row(&gateway, 2 * number + 1);
        assert!(
            row["notes"].to_string().contains(name),
            "{client:?}: {row:?}"
        );

        let headers = [
            ("authorization", "Bearer sk-plexus-tests"),
            ("content-type", "application/json"),
            ("x-plexus-strict", "1"),
        ];
        let refused = gateway
            .request("POST", &path, &headers, body.to_string())
            .expect(400);
        let (_, message) = client.error(&refused.json());
        assert!(message.contains(name), "{client:?}: {message}");
        if matches!(client, Dialect::Chat | Dialect::Responses) {
            assert_eq!(refused.json()["error"]["param"], name);
        }
        newest_row(&gateway, 2 * number + 2);
    }
}

#[test]
fn a_long_document_is_asked_of_messages_as_a_stream() {
    let gateway = Gateway::with(PROVIDERS);
    for (limit, streamed) in [(16_000, Value::Null), (32_000, json!(true))] {
        let mut talk = Talk::new(Dialect::Chat);
        talk.thinking = false;
        talk.extra = json!({"max_completion_tokens": limit});
        talk.user("a book, please", false);
        let said = talk.ask(&gateway, &model(Dialect::Messages, "tools=2+echo"), false);
        assert_eq!(
            (said.text.as_str(), said.calls.len()),
            ("a book, please", 2)
        );
        assert_eq!(last_body(&gateway)["stream"], streamed, "{limit}");
    }
}

/// The stream's last event and the end of its body come one after the other.
#[test]
fn a_stream_that_becomes_a_document_keeps_its_connection() {
    const EVENTS: [&str; 6] = [
        r#"{"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[],"usage":{"input_tokens":1,"output_tokens":1}}}"#,
        r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#,
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"hi"}}"#,
        r#"{"type":"content_block_stop","index":0}"#,
        r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":2}}"#,
        r#"{"type":"message_stop"}"#,
    ];
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    let upstream = Upstream::start(move |mut wire| {
        counted.fetch_add(1, Ordering::SeqCst);
        while wire.request().is_some() {
            wire.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n");
            for event in EVENTS {
                let event = format!("data: {event}\n\n");
                wire.write(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes());
            }
            wire.write(b"0\r\n\r\n");
        }
    });
    let gateway = Gateway::with(&format!(
        "providers:\n  own: {{ api_base_url: {{ messages: 'http://{}/v1' }}, api_key: k }}\n\
         models: {{ m: {{ targets: [ {{ provider: own, model: m }} ] }} }}\n\
         keys: {{ app: {{ secret: sk-plexus-tests }} }}\n",
        upstream.address
    ));
    for _ in 0..20 {
        let (path, body) = Dialect::Chat.ask("m", false);
        let answer = gateway.ask(&path, &body).expect(200).json();
        assert_eq!(answer["choices"][0]["message"]["content"], "hi");
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[test]
fn a_slow_translated_stream_has_heartbeats_between_its_chunks() {
    let gateway = Gateway::with(&format!("server: {{ heartbeatSeconds: 1 }}\n{PROVIDERS}"));
    std::thread::scope(|scope| {
        for client in [
            Dialect::Chat,
            Dialect::Responses,
            Dialect::Messages,
            Dialect::Gemini,
        ] {
            for provider in others(client) {
                let gateway = &gateway;
                scope.spawn(move || {
                    let name = model(provider, "chunks=20+silent_after=8+silent=2500");
                    let mut stream = gateway.speak(client, &name, true);
                    let (mut body, mut beats) = (Vec::new(), 0);
                    while let Some(chunk) = stream.chunk().unwrap() {
                        beats += usize::from(match client {
                            Dialect::Messages => chunk.starts_with(b"event: ping"),
                            Dialect::Gemini => chunk == b"\n",
                            _ => chunk.starts_with(b":"),
                        });
                        body.extend(chunk);
                    }
                    let place = format!("{client:?} to {provider:?}");
                    assert_eq!(client.ending(&body), Ending::Finished, "{place}");
                    assert!(beats >= 2, "{place}");
                });
            }
        }
    });
}
