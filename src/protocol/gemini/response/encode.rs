//! A whole answer for a client.

use bytes::BytesMut;

use crate::protocol::gemini::stream::Listed;
use crate::protocol::gemini::telling::{Telling, To};
use crate::protocol::gemini::{finish, logprobs, usage};
use crate::protocol::ir::{Arguments, Choice, Finish, Part, PartKind, Response, Text, Thought};
use crate::protocol::json::Object;
use crate::protocol::translate::Reply;

/// Writes an answer for a client.
pub fn encode(response: &Response<'_>, reply: &Reply, out: &mut BytesMut) {
    let mut body = Object::open(out);
    {
        let mut candidates = body.array("candidates");
        for (index, choice) in response.choices.iter().enumerate() {
            candidate(choice, index, reply, &mut candidates.object());
        }
    }
    usage::encode(&response.usage.unwrap_or_default(), &mut body);
    body.text("modelVersion", &reply.model);
    body.text("responseId", &reply.id);
}

fn candidate(choice: &Choice<'_>, index: usize, reply: &Reply, object: &mut Object<'_>) {
    let (parts, telling) = told(choice, reply);
    {
        let mut content = object.object("content");
        content.text("role", "model");
        let out = content.key("parts");
        out.extend_from_slice(b"[");
        out.extend_from_slice(&parts);
        out.extend_from_slice(b"]");
    }
    object.text("finishReason", finish::encode(telling.ending()));
    if let Some(Finish::ContentFilter {
        text: Some(text), ..
    }) = &choice.finish
    {
        object.text("finishMessage", text);
    }
    object.number("index", index);
    telling.grounding().write(object, Some(&visible(choice)));
    logprobs::encode(&choice.logprobs, object);
}

/// The parts, separated by commas and never none.
fn told(choice: &Choice<'_>, reply: &Reply) -> (BytesMut, Telling) {
    let mut parts = BytesMut::new();
    let mut telling = Telling::default();
    let mut to = To {
        reply,
        sink: &mut Listed(&mut parts),
    };
    for (number, part) in choice.parts.iter().enumerate() {
        tell(&mut telling, number, part, &mut to);
    }
    let finish = choice.finish.clone().unwrap_or(Finish::Stop);
    telling.finish(finish, &mut to);
    if parts.is_empty() || telling.has_blobs() {
        telling.last(&mut To {
            reply,
            sink: &mut Listed(&mut parts),
        });
    }
    (parts, telling)
}

/// The visible text, which references count in.
fn visible(choice: &Choice<'_>) -> String {
    let referred = choice.parts.iter().any(|part| match part {
        Part::Text(text) => !text.annotations.is_empty(),
        _ => false,
    });
    let mut out = String::new();
    for part in choice.parts.iter().filter(|_| referred) {
        match part {
            Part::Text(Text { text, .. }) | Part::Refusal(text) => out.push_str(&text.plain()),
            _ => {}
        }
    }
    out
}

fn tell(telling: &mut Telling, number: usize, part: &Part<'_>, to: &mut To<'_>) {
    match part {
        Part::Text(text) => {
            telling.begin(number, PartKind::Text, to);
            telling.text(number, &text.text, to);
            for annotation in &text.annotations {
                telling.annotation(number, annotation.clone());
            }
            if let Some(opaque) = &text.opaque {
                telling.opaque(number, opaque.clone());
            }
        }
        Part::Refusal(text) => {
            telling.begin(number, PartKind::Refusal, to);
            telling.text(number, text, to);
        }
        Part::Reasoning(thought) => reason(telling, number, thought, to),
        Part::Call(call) => {
            let kind = PartKind::Call {
                id: call.id.borrowed(),
                name: call.name.borrowed(),
                namespace: None,
                custom: matches!(call.arguments, Arguments::Free(_)),
            };
            telling.begin(number, kind, to);
            match &call.arguments {
                Arguments::Object(value) => telling.arguments_whole(number, value),
                Arguments::Text(text) | Arguments::Free(text) => {
                    telling.arguments(number, &text.plain());
                }
            }
            if let Some(opaque) = &call.opaque {
                telling.opaque(number, opaque.clone());
            }
        }
        Part::Media(medium) => telling.begin(number, PartKind::Media(medium.clone()), to),
        Part::Hosted(hosted) => telling.begin(number, PartKind::Hosted(hosted.clone()), to),
        Part::Result(_) => {}
    }
    telling.end(number, to);
}

fn reason(telling: &mut Telling, number: usize, thought: &Thought<'_>, to: &mut To<'_>) {
    telling.begin(number, PartKind::Reasoning, to);
    for (index, summary) in thought.summary.iter().enumerate() {
        telling.summary(number, index, summary, to);
    }
    telling.text(number, &thought.text, to);
    if let Some(opaque) = &thought.opaque {
        telling.opaque(number, opaque.clone());
    }
}
