//! The same document with some bytes replaced: `[prefix][new][suffix]`. What is
//! not replaced is shared with what was received, not copied.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::Bytes;
use serde_json::{Map, Value};

use super::json;
use super::peek::{Member, Peeked};

/// A body up to this size is put together into one piece: one write of one
/// buffer is cheaper than a list of three.
const COALESCE: usize = 16 * 1024;

/// Bytes to put in the place of others. An empty span inserts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patch {
    /// What is replaced.
    pub span: Range<usize>,
    /// By what.
    pub with: Bytes,
}

/// Puts another model name in the place of the body's; `None` when it has none.
#[must_use]
pub fn set_model(peeked: &Peeked, name: &str) -> Option<Patch> {
    let span = peeked.model_span()?;
    Some(Patch {
        span,
        with: quoted(name),
    })
}

/// A string of JSON. Names that need no escapes are put between two marks.
fn quoted(text: &str) -> Bytes {
    let plain = ["\"", text, "\""].concat();
    if json::plain_string(plain.as_bytes()).is_some() {
        return plain.into();
    }
    Value::String(text.to_owned()).to_string().into()
}

/// Asks a chat stream for its usage event; `None` when the client did so
/// itself, or sent options that only the provider can judge.
#[must_use]
pub fn ask_for_usage(peeked: &Peeked) -> Option<Patch> {
    const WANTED: &[u8] = br#""include_usage":true"#;
    if let Some((span, wanted)) = &peeked.include_usage {
        return (!wanted).then(|| Patch {
            span: span.clone(),
            with: Bytes::from_static(b"true"),
        });
    }
    let (at, text) = match (&peeked.stream_options, &peeked.stream_options_value) {
        (Some(object), _) => {
            let at = object.start + 1;
            let empty = object.len() == 2;
            (
                at..at,
                if empty {
                    WANTED.to_vec()
                } else {
                    [WANTED, b","].concat()
                },
            )
        }
        (None, Some(value)) if value.len() == 4 => (value.clone(), [b"{", WANTED, b"}"].concat()),
        (None, Some(_)) => return None,
        (None, None) => {
            let comma: &[u8] = if peeked.empty { b"" } else { b"," };
            let at = peeked.first_member;
            (
                at..at,
                [br#""stream_options":{"#, WANTED, b"}", comma].concat(),
            )
        }
    };
    Some(Patch {
        span: at,
        with: text.into(),
    })
}

/// Sets members of the top level: those present get another value, the others
/// are put in front. `first_member` is the offset behind the opening brace.
#[must_use]
pub fn merge(members: &[Member], first_member: usize, extra: &Map<String, Value>) -> Vec<Patch> {
    let mut patches = Vec::new();
    let mut inserted = String::new();
    for (name, value) in extra {
        let text = value.to_string();
        let known = members.iter().filter(|member| member.key == *name);
        // All of them: which of two counts is the reader's choice.
        let replaced = known.map(|member| Patch {
            span: member.value.clone(),
            with: text.clone().into(),
        });
        let before = patches.len();
        patches.extend(replaced);
        if patches.len() == before {
            inserted.push_str(&Value::String(name.clone()).to_string());
            inserted.push(':');
            inserted.push_str(&text);
            inserted.push(',');
        }
    }
    if members.is_empty() {
        inserted.pop();
    }
    if !inserted.is_empty() {
        patches.push(Patch {
            span: first_member..first_member,
            with: inserted.into(),
        });
    }
    patches
}

/// The frames with the patches applied. Patches must not overlap; their order
/// does not matter.
#[must_use]
pub fn apply(frames: &[Bytes], mut patches: Vec<Patch>) -> Vec<Bytes> {
    patches.sort_by_key(|patch| (patch.span.start, patch.span.end));
    if let ([body], [patch]) = (frames, patches.as_slice())
        && body.len() + patch.with.len() <= COALESCE
    {
        return vec![replaced(body, patch)];
    }
    let mut pieces = Vec::with_capacity(frames.len() + patches.len() * 2);
    let mut patches = VecDeque::from(patches);
    let mut start = 0;
    let mut skip_to = 0;
    for frame in frames {
        let end = start + frame.len();
        let mut at = skip_to.clamp(start, end);
        while let Some(patch) = patches.front().filter(|patch| patch.span.start < end) {
            let from = patch.span.start.max(at);
            keep(&mut pieces, frame.slice(at - start..from - start));
            keep(&mut pieces, patch.with.clone());
            skip_to = patch.span.end;
            at = skip_to.clamp(from, end);
            patches.pop_front();
        }
        keep(&mut pieces, frame.slice(at - start..));
        start = end;
    }
    pieces.extend(patches.into_iter().map(|patch| patch.with));
    coalesce(pieces)
}

/// What most requests come to: one name replaced in one small frame.
fn replaced(body: &[u8], patch: &Patch) -> Bytes {
    let before = body.get(..patch.span.start).unwrap_or(body);
    let behind = body.get(patch.span.end..).unwrap_or_default();
    [before, &patch.with, behind].concat().into()
}

fn keep(pieces: &mut Vec<Bytes>, piece: Bytes) {
    if !piece.is_empty() {
        pieces.push(piece);
    }
}

fn coalesce(pieces: Vec<Bytes>) -> Vec<Bytes> {
    let length: usize = pieces.iter().map(Bytes::len).sum();
    if pieces.len() < 2 || length > COALESCE {
        return pieces;
    }
    vec![Bytes::from(pieces.concat())]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::peek::{members, peek};
    use proptest::prelude::*;
    use serde_json::json;

    fn bytes(frames: &[Bytes]) -> String {
        String::from_utf8(frames.concat()).unwrap()
    }

    fn spliced(text: &str, change: impl Fn(&Peeked) -> Vec<Patch>) -> String {
        let frames = [Bytes::copy_from_slice(text.as_bytes())];
        let peeked = peek(&frames).unwrap();
        bytes(&apply(&frames, change(&peeked)))
    }

    #[test]
    fn only_the_models_name_changes() {
        let text = "{ \"z\": 1e400,\"model\" : \"old\", \"n\":12345678901234567890, \"s\":\"\\u2028 \u{2028}\" }";
        assert_eq!(
            spliced(text, |peeked| set_model(peeked, "new \"x\"")
                .into_iter()
                .collect()),
            text.replace("\"old\"", "\"new \\\"x\\\"\"")
        );
    }

    #[test]
    fn usage_is_asked_for_in_every_form_of_options() {
        let ask = |text: &str| spliced(text, |peeked| ask_for_usage(peeked).into_iter().collect());
        for (before, after) in [
            (
                r#"{"model":"m"}"#,
                r#"{"stream_options":{"include_usage":true},"model":"m"}"#,
            ),
            (
                r#"{"stream_options":{}}"#,
                r#"{"stream_options":{"include_usage":true}}"#,
            ),
            (
                r#"{"stream_options":{"x":1}}"#,
                r#"{"stream_options":{"include_usage":true,"x":1}}"#,
            ),
            (
                r#"{"stream_options":{"include_usage":false}}"#,
                r#"{"stream_options":{"include_usage":true}}"#,
            ),
            (
                r#"{"stream_options":{"include_usage":true}}"#,
                r#"{"stream_options":{"include_usage":true}}"#,
            ),
            (
                r#"{"stream_options":null}"#,
                r#"{"stream_options":{"include_usage":true}}"#,
            ),
            (r#"{"stream_options":"odd"}"#, r#"{"stream_options":"odd"}"#),
            (r#"{}"#, r#"{"stream_options":{"include_usage":true}}"#),
        ] {
            assert_eq!(ask(before), after);
        }
    }

    #[test]
    fn operators_members_replace_or_join_the_clients() {
        let text = r#"{"a":1,"b":[2]}"#;
        let frames = [Bytes::copy_from_slice(text.as_bytes())];
        let extra = json!({ "b": "x", "c": null });
        let patches = merge(&members(&frames).unwrap(), 1, extra.as_object().unwrap());
        assert_eq!(
            bytes(&apply(&frames, patches)),
            r#"{"c":null,"a":1,"b":"x"}"#
        );
        let twice = [Bytes::from_static(br#"{"b":1,"b":2,"c":3}"#)];
        let patches = merge(&members(&twice).unwrap(), 1, extra.as_object().unwrap());
        assert_eq!(
            bytes(&apply(&twice, patches)),
            r#"{"b":"x","b":"x","c":null}"#
        );
        let empty = [Bytes::from_static(b"{}")];
        let patches = merge(&[], 1, extra.as_object().unwrap());
        assert_eq!(bytes(&apply(&empty, patches)), r#"{"b":"x","c":null}"#);
    }

    proptest! {
        #[test]
        fn patches_land_where_they_belong_in_any_frames(
            text in "[a-z]{0,120}", cuts in proptest::collection::vec(0_usize..120, 0..8),
            spans in proptest::collection::vec((0_usize..120, 0_usize..6, "[A-Z]{0,4}"), 0..4),
        ) {
            let mut spans: Vec<_> = spans.into_iter().map(|(start, length, with)| {
                let start = start.min(text.len());
                (start..(start + length).min(text.len()), with)
            }).collect();
            spans.sort_by_key(|(span, _)| (span.start, span.end));
            let mut kept: Vec<(Range<usize>, String)> = Vec::new();
            for (span, with) in spans {
                if kept.last().is_none_or(|(last, _)| last.end < span.start) {
                    kept.push((span, with));
                }
            }
            let mut expected = text.clone();
            for (span, with) in kept.iter().rev() {
                expected.replace_range(span.clone(), with);
            }
            let mut cuts: Vec<usize> = cuts.into_iter().filter(|cut| *cut <= text.len()).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let frames: Vec<Bytes> = cuts.windows(2).map(|pair| Bytes::copy_from_slice(&text.as_bytes()[pair[0]..pair[1]])).collect();
            let patches = kept.into_iter().map(|(span, with)| Patch { span, with: with.into() }).collect();
            prop_assert_eq!(bytes(&apply(&frames, patches)), expected);
        }
    }
}
