//! What the tests of this folder share.

use bytes::BytesMut;
use serde_json::Value as Json;

use crate::protocol::Protocol;
use crate::protocol::capabilities::Capabilities;
use crate::protocol::ir::{Delta, Invalid, Request};
use crate::protocol::json::Tape;
use crate::protocol::notes::{Notes, Severity};
use crate::protocol::translate::{Encoded, Reply, Target};

use super::{request, stream};

/// A request, read.
pub(super) fn decoded<T>(
    body: &str,
    look: impl FnOnce(&Request<'_>) -> T,
) -> Result<(T, Vec<String>), Invalid> {
    let mut tape = Tape::new();
    let mut notes = Notes::new();
    let request = request::decode(tape.parse(body).unwrap(), &mut notes)?;
    Ok((look(&request), words(&notes)))
}

/// Notes as `action:what`, those without effect in brackets.
pub(super) fn words(notes: &Notes) -> Vec<String> {
    let word = |note: &crate::protocol::notes::Note| {
        let word = format!("{}:{}", note.action.name(), note.what);
        match note.severity {
            Severity::Warn => word,
            Severity::Info => format!("({word})"),
        }
    };
    notes.iter().map(word).collect()
}

/// What OpenAI's own newest models can do.
pub(super) fn openai() -> Capabilities {
    let mut capabilities = Capabilities::of(Protocol::Chat, "api.openai.com", "gpt-5");
    capabilities.developer_role = true;
    capabilities.structured = true;
    capabilities.thinking.effort = true;
    capabilities
}

/// What a server of open models can do.
pub(super) fn other() -> Capabilities {
    let mut capabilities = Capabilities::of(Protocol::Chat, "llm.example.org", "open-model");
    capabilities.developer_role = false;
    capabilities.max_completion_tokens = false;
    capabilities
}

/// A request as a provider gets it.
pub(super) struct Sent {
    pub(super) body: Json,
    pub(super) notes: Vec<String>,
    pub(super) encoded: Encoded,
}

/// Writes a request for a provider with those capabilities.
pub(super) fn sent(request: &Request<'_>, capabilities: &Capabilities) -> Result<Sent, Invalid> {
    let mut notes = Notes::new();
    let target = Target {
        protocol: Protocol::Chat,
        model: "their-model",
        capabilities,
        account: "acct",
        stream: request.stream,
    };
    let encoded = request::encode(request, &target, &mut notes)?;
    Ok(Sent {
        body: serde_json::from_slice(&encoded.body).unwrap(),
        notes: words(&notes),
        encoded,
    })
}

/// A chat request as another client might have meant it, written for a provider.
pub(super) fn through(
    body: &str,
    origin: Protocol,
    capabilities: &Capabilities,
    change: impl FnOnce(&mut Request<'_>),
) -> Result<Sent, Invalid> {
    let mut tape = Tape::new();
    let mut notes = Notes::new();
    let mut request = request::decode(tape.parse(body).unwrap(), &mut notes)?;
    request.origin = origin;
    change(&mut request);
    sent(&request, capabilities)
}

/// How a client wants its answer.
pub(super) fn reply(upstream: Protocol) -> Reply {
    Reply {
        id: "abc".into(),
        model: "m".into(),
        upstream_model: "u".into(),
        account: "acct".into(),
        created: 7,
        ..Reply::plain(Protocol::Chat, upstream)
    }
}

/// The events of a stream as lines: what each delta says, in short.
pub(super) fn heard(events: &[&str]) -> Vec<String> {
    heard_by(stream::Decoder::default(), events)
}

/// As [`heard`], by a decoder of one's own.
pub(super) fn heard_by(mut decoder: stream::Decoder, events: &[&str]) -> Vec<String> {
    let mut lines = Vec::new();
    for event in events {
        decoder.event(None, event.as_bytes(), &mut |delta| {
            lines.push(line(&delta))
        });
    }
    decoder.finish(&mut |delta| lines.push(line(&delta)));
    lines
}

/// A delta in short.
pub(super) fn line(delta: &Delta<'_>) -> String {
    use crate::protocol::ir::PartKind;
    match delta {
        Delta::Start { id, model } => format!("start {id:?} {model:?}"),
        Delta::PartStart { choice, part, kind } => {
            let kind = match kind {
                PartKind::Call {
                    id, name, custom, ..
                } => format!("call {} {} {custom}", id.plain(), name.plain()),
                PartKind::Media(_) => "media".to_owned(),
                other => format!("{other:?}").to_lowercase(),
            };
            format!("{choice}.{part} {kind}")
        }
        Delta::Text { choice, part, text } => format!("{choice}.{part} + {}", text.plain()),
        Delta::Arguments {
            choice,
            part,
            piece,
        } => format!("{choice}.{part} a {}", piece.plain()),
        Delta::ArgumentsWhole {
            choice,
            part,
            value,
        } => format!("{choice}.{part} = {}", value.as_str()),
        Delta::Opaque {
            choice,
            part,
            opaque,
        } => format!("{choice}.{part} {:?} {}", opaque.kind, opaque.data.plain()),
        Delta::Annotation {
            choice,
            part,
            annotation,
        } => format!(
            "{choice}.{part} @ {} {:?}",
            annotation.url.plain(),
            annotation.span
        ),
        Delta::PartEnd { choice, part } => format!("{choice}.{part} end"),
        Delta::Usage { tokens, .. } => {
            format!("usage {:?} {:?}", tokens.input, tokens.output)
        }
        Delta::Finish { choice, finish } => format!("{choice} {finish:?}"),
        Delta::Error { code, .. } => format!("error {code:?}"),
        Delta::End => "end".to_owned(),
        other => format!("{other:?}"),
    }
}

/// What a client reads of a stream: the data of its frames.
pub(super) fn told(reply: Reply, deltas: Vec<Delta<'_>>) -> Vec<Json> {
    let mut encoder = stream::Encoder::new(reply);
    let mut out = BytesMut::new();
    for delta in deltas {
        encoder.delta(delta, &mut out);
    }
    frames(&out)
}

/// The data of frames; `[DONE]` as a string.
pub(super) fn frames(out: &[u8]) -> Vec<Json> {
    let text = std::str::from_utf8(out).unwrap();
    assert!(text.is_empty() || text.ends_with("\n\n"), "{text}");
    let frames = text.split("\n\n").filter(|frame| !frame.is_empty());
    frames
        .map(|frame| {
            let data = frame.strip_prefix("data: ").unwrap();
            match data {
                "[DONE]" => Json::from("[DONE]"),
                data => serde_json::from_str(data).unwrap(),
            }
        })
        .collect()
}
