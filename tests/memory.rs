//! What a translated stream holds does not grow with it: a million deltas through
//! every pair (a tenth of that where nothing is optimized), with every allocation
//! counted.

#![expect(
    clippy::unwrap_used,
    reason = "in helpers of tests a failure is the test's failure"
)]

use allocation_counter::measure;
use bytes::BytesMut;
use plexus::protocol::Protocol;
use plexus::protocol::filter::Fixups;
use plexus::protocol::translate::Reply;
use plexus::protocol::translator::Translator;

const DELTAS: usize = if cfg!(debug_assertions) {
    100_000
} else {
    1_000_000
};
/// Deltas of one chunk.
const AT_ONCE: usize = 1000;
/// The text of each delta.
const WORD: &str = "word ";
/// What a stream may hold beside what its client's protocol repeats at the end.
const ROOM: i64 = 32 * 1024;

const SPOKEN: [Protocol; 4] = [
    Protocol::Chat,
    Protocol::Responses,
    Protocol::Messages,
    Protocol::Gemini,
];

/// A provider's stream: how it begins, and one delta.
fn stream(protocol: Protocol) -> (String, String) {
    let frame = |kind: &str, data: &str| format!("event: {kind}\ndata: {data}\n\n");
    match protocol {
        Protocol::Chat => (
            format!(
                "data: {}\n\n",
                r#"{"id":"c","model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}"#
            ),
            format!(
                r#"data: {{"id":"c","choices":[{{"index":0,"delta":{{"content":"{WORD}"}}}}]}}"#
            ) + "\n\n",
        ),
        Protocol::Messages => (
            frame(
                "message_start",
                r#"{"type":"message_start","message":{"id":"m","type":"message","role":"assistant","content":[],"model":"m","usage":{"input_tokens":1,"output_tokens":1}}}"#,
            ) + &frame(
                "content_block_start",
                r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#,
            ),
            frame(
                "content_block_delta",
                &format!(
                    r#"{{"type":"content_block_delta","index":0,"delta":{{"type":"text_delta","text":"{WORD}"}}}}"#
                ),
            ),
        ),
        Protocol::Responses => (
            frame(
                "response.created",
                r#"{"type":"response.created","response":{"id":"r","model":"m","output":[]}}"#,
            ) + &frame(
                "response.output_item.added",
                r#"{"type":"response.output_item.added","output_index":0,"item":{"type":"message","id":"i","role":"assistant","content":[]}}"#,
            ) + &frame(
                "response.content_part.added",
                r#"{"type":"response.content_part.added","output_index":0,"content_index":0,"part":{"type":"output_text","text":""}}"#,
            ),
            frame(
                "response.output_text.delta",
                &format!(
                    r#"{{"type":"response.output_text.delta","output_index":0,"content_index":0,"delta":"{WORD}"}}"#
                ),
            ),
        ),
        _ => (
            String::new(),
            format!(
                r#"data: {{"candidates":[{{"content":{{"role":"model","parts":[{{"text":"{WORD}"}}]}},"index":0}}],"responseId":"g"}}"#
            ) + "\n\n",
        ),
    }
}

fn reply(client: Protocol, upstream: Protocol) -> Reply {
    Reply {
        id: "0123456789ABCDEFGHIJKLMN".into(),
        model: "alias".into(),
        upstream_model: "model".into(),
        account: "account".into(),
        created: 1_700_000_000,
        include_usage: true,
        ..Reply::plain(client, upstream)
    }
}

/// Bytes that are held after so many chunks, and the most that were in use at once.
fn held(client: Protocol, upstream: Protocol, chunks: usize) -> (i64, i64) {
    let (begin, delta) = stream(upstream);
    let many = delta.repeat(AT_ONCE);
    let mut out = BytesMut::with_capacity(8 << 20);
    let mut kept = None;
    let used = measure(|| {
        let mut translator = Translator::new(Fixups::default(), reply(client, upstream));
        translator.push(begin.as_bytes(), &mut out);
        for _ in 0..chunks {
            out.clear();
            translator.push(many.as_bytes(), &mut out);
        }
        kept = Some(translator);
    });
    let written = String::from_utf8_lossy(&out).matches(WORD).count();
    assert_eq!(written, AT_ONCE, "{upstream} to {client}: nothing is told");
    assert!(!kept.unwrap().is_over(), "{upstream} to {client}");
    (used.bytes_current, i64::try_from(used.bytes_max).unwrap())
}

#[test]
fn a_long_stream_holds_what_a_short_one_does() {
    let clients = SPOKEN.into_iter().chain([Protocol::Completions]);
    let pairs = clients.flat_map(|client| SPOKEN.map(|upstream| (client, upstream)));
    std::thread::scope(|scope| {
        for (client, upstream) in pairs.filter(|(client, upstream)| client != upstream) {
            // The counting is each thread's own.
            scope.spawn(move || {
                let (short, _) = held(client, upstream, 1);
                let (long, most) = held(client, upstream, DELTAS / AT_ONCE);
                // A stream of Responses ends with all that it said: the text itself
                // is held, in a buffer that doubles, and nothing beside it.
                let repeated = match client {
                    Protocol::Responses => i64::try_from(DELTAS * WORD.len()).unwrap(),
                    _ => 0,
                };
                let told = format!("{upstream} to {client}: {short} then {long}, at most {most}");
                println!("{told}");
                assert!(long <= short + 2 * repeated + 1024, "{told}");
                assert!(long <= ROOM + 2 * repeated, "{told}");
                assert!(most <= ROOM + 4 * repeated + 64 * 1024, "{told}");
            });
        }
    });
}
