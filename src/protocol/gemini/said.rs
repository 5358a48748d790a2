//! What a model said, put together part by part: a whole answer, or its turn in a
//! history. Increments of one text become one text again, and a blob goes where
//! it belongs.

use super::hosted;
use super::part::Fields;
use crate::protocol::ir::{Call, Opaque, OpaqueKind, Part, Text, Thought};
use crate::protocol::json::{Str, Value};

/// Parts, in order.
#[derive(Debug, Default)]
pub(super) struct Said<'a> {
    pub(super) parts: Vec<Part<'a>>,
}

/// A signature, and the reasoning that came home with it.
pub(super) type Signed<'a> = Option<(Opaque<'a>, Option<String>)>;

impl<'a> Said<'a> {
    /// A part that is text, a thought, a signature or text with one.
    pub(super) fn text(&mut self, text: Str<'a>, thought: bool, signed: Signed<'a>) {
        if thought {
            return self.thought(text, signed);
        }
        let own = self.foreign_first(signed);
        if text.is_empty() {
            if let Some(opaque) = own {
                self.blob(opaque);
            }
            return;
        }
        if let Some(Part::Text(last)) = self.parts.last_mut() {
            append(&mut last.text, text);
            last.opaque = last.opaque.take().or(own);
            return;
        }
        self.parts.push(Part::Text(Text {
            opaque: own,
            ..Text::new(text)
        }));
    }

    /// A blob that came alone belongs to what was said last.
    fn blob(&mut self, opaque: Opaque<'a>) {
        match self.parts.last_mut() {
            Some(Part::Text(last)) => last.opaque = last.opaque.take().or(Some(opaque)),
            Some(Part::Reasoning(last)) if last.opaque.is_none() => last.opaque = Some(opaque),
            _ => self.parts.push(Part::Reasoning(Thought {
                opaque: Some(opaque),
                ..Thought::default()
            })),
        }
    }

    fn thought(&mut self, text: Str<'a>, signed: Signed<'a>) {
        let (opaque, home) = match signed {
            Some((opaque, home)) => (Some(opaque), home),
            None => (None, None),
        };
        let open = match self.parts.last_mut() {
            Some(Part::Reasoning(last)) if last.opaque.is_none() => Some(last),
            _ => None,
        };
        let Some(last) = open else {
            let text = match home {
                Some(home) if text.is_empty() => home.into(),
                _ => text,
            };
            if !text.is_empty() || opaque.is_some() {
                let thought = Thought {
                    text,
                    ..Thought::default()
                };
                self.parts.push(Part::Reasoning(sealed(thought, opaque)));
            }
            return;
        };
        append(&mut last.text, text);
        *last = sealed(std::mem::take(last), opaque);
    }

    /// Another family's blob is reasoning before the part that it came on. What
    /// is Gemini's own is given back.
    pub(super) fn foreign_first(&mut self, signed: Signed<'a>) -> Option<Opaque<'a>> {
        let (opaque, home) = signed?;
        if opaque.kind == OpaqueKind::GeminiSignature {
            return Some(opaque);
        }
        let thought = Thought {
            text: home.unwrap_or_default().into(),
            ..Thought::default()
        };
        self.parts
            .push(Part::Reasoning(sealed(thought, Some(opaque))));
        None
    }

    /// A call.
    pub(super) fn call(&mut self, mut call: Call<'a>, signed: Signed<'a>) {
        call.opaque = self.foreign_first(signed);
        self.parts.push(Part::Call(call));
    }

    /// A tool that the provider ran.
    pub(super) fn hosted(&mut self, fields: &Fields<'a>, part: Value<'a>, id: String) {
        match self.parts.last_mut() {
            Some(Part::Hosted(last)) if hosted::belongs(fields, last) => {
                hosted::complete(last, fields, part);
            }
            _ => self
                .parts
                .push(Part::Hosted(hosted::decode(fields, part, id))),
        }
    }
}

/// The thought with its blob, in the form that the blob's family gives it.
fn sealed<'a>(mut thought: Thought<'a>, opaque: Option<Opaque<'a>>) -> Thought<'a> {
    match opaque.as_ref().map(|opaque| opaque.kind) {
        Some(OpaqueKind::AnthropicRedacted) => thought.redacted = true,
        // What OpenAI lets be read is a summary.
        Some(OpaqueKind::OpenAiEncrypted) if !thought.text.is_empty() => {
            thought.summary.push(std::mem::take(&mut thought.text));
        }
        _ => {}
    }
    thought.opaque = opaque;
    thought
}

/// Adds to a text in place once it is our own.
fn append<'a>(to: &mut Str<'a>, more: Str<'a>) {
    if to.is_empty() {
        *to = more;
    } else if !more.is_empty() {
        let mut text = std::mem::take(to).into_plain().into_owned();
        text.push_str(&more.plain());
        *to = text.into();
    }
}
