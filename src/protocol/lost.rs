//! What a conversation loses on the way to a target, whichever encoder writes it:
//! cache marks, signatures and citations have a place in one protocol and none in
//! another. None of them touches what is said, so the notes are hints.

use super::Protocol;
use super::ir::{Annotation, Format, Lifetime, Opaque, OpaqueKind, Part, Request, Role, Tool};
use super::notes::{Action, Field, Notes};
use super::schema::described;
use super::translate::Target;

/// Notes what is lost of this request's conversation and tools.
pub(crate) fn note(request: &Request<'_>, target: &Target<'_>, notes: &mut Notes) {
    let mut lost = Lost {
        marks: request.tools.iter().any(|tool| loses_mark(tool, target)),
        ..Lost::default()
    };
    for turn in &request.turns {
        for part in &turn.parts {
            lost.see(part, turn.role, target);
        }
    }
    let (name, description) = of_format(request, target);
    let format = Field::Format.path(request.origin);
    for (_, what) in [(name, "name"), (description, "description")]
        .into_iter()
        .filter(|(lost, _)| *lost)
    {
        notes.info(Action::Dropped, format!("{format}.{what}"));
    }
    let named = [
        (lost.marks, Field::CacheMark.path(request.origin)),
        (lost.signatures, "thought_signature"),
        (lost.annotations, "annotations"),
    ];
    for (_, what) in named.into_iter().filter(|(lost, _)| *lost) {
        notes.info(Action::Dropped, what);
    }
}

/// Whether the name of the answer's schema is lost, and whether what it is for: that
/// goes into the schema, unless that has its own.
fn of_format(request: &Request<'_>, target: &Target<'_>) -> (bool, bool) {
    let nameless = matches!(target.protocol, Protocol::Messages | Protocol::Gemini);
    match &request.format {
        Format::Schema {
            name,
            description,
            schema,
            ..
        } if nameless => (
            name.is_some(),
            description.is_some() && described(schema, description.as_ref()).is_none(),
        ),
        _ => (false, false),
    }
}

#[derive(Default)]
struct Lost {
    marks: bool,
    signatures: bool,
    annotations: bool,
}

impl Lost {
    fn see(&mut self, part: &Part<'_>, role: Role, target: &Target<'_>) {
        self.marks |= mark_of(part).is_some() && !holds_mark(part, role, target.protocol);
        match part {
            Part::Text(text) => {
                self.signatures |= is_lost(text.opaque.as_ref(), target);
                let stays = |one: &Annotation<'_>| {
                    target.protocol == Protocol::Responses && one.span.is_some()
                };
                self.annotations |= !text.annotations.iter().all(stays);
            }
            Part::Call(call) => self.signatures |= is_lost(call.opaque.as_ref(), target),
            Part::Result(result) => {
                let inside = result.parts.iter().any(|part| mark_of(part).is_some());
                self.marks |= inside && target.protocol != Protocol::Messages;
            }
            _ => {}
        }
    }
}

/// Whether a signature that rides on a text or a call stays behind.
fn is_lost(opaque: Option<&Opaque<'_>>, target: &Target<'_>) -> bool {
    let Some(opaque) = opaque.filter(|opaque| opaque.kind != OpaqueKind::Unsigned) else {
        return false;
    };
    let made_here = |account: &super::json::Str<'_>| account.is(target.account);
    match target.protocol {
        Protocol::Gemini => opaque.kind != OpaqueKind::GeminiSignature,
        Protocol::Chat => !opaque.account.as_ref().is_some_and(made_here),
        _ => true,
    }
}

fn loses_mark(tool: &Tool<'_>, target: &Target<'_>) -> bool {
    let marked = matches!(tool, Tool::Function(function) if function.cache.is_some());
    marked && target.protocol != Protocol::Messages
}

fn mark_of(part: &Part<'_>) -> Option<Lifetime> {
    match part {
        Part::Text(text) => text.cache,
        Part::Media(media) => media.cache,
        Part::Call(call) => call.cache,
        Part::Result(result) => result.cache,
        Part::Refusal(_) | Part::Reasoning(_) | Part::Hosted(_) => None,
    }
}

/// Whether a protocol has a place for the mark of such a part.
const fn holds_mark(part: &Part<'_>, role: Role, protocol: Protocol) -> bool {
    let said_to_model = !matches!(role, Role::Assistant);
    match protocol {
        Protocol::Messages => true,
        Protocol::Responses => said_to_model && matches!(part, Part::Text(_) | Part::Media(_)),
        Protocol::Chat => said_to_model && matches!(part, Part::Text(_)),
        _ => false,
    }
}
