//! A whole answer in Messages, written for a client.

use bytes::BytesMut;

use crate::protocol::Protocol;
use crate::protocol::ir::{Annotation, Call, Choice, Finish, Part, Response, Text, Thought};
use crate::protocol::json::{Array, Object, Str};
use crate::protocol::messages::hosted::Blocks;
use crate::protocol::messages::seal::{self, Sealed};
use crate::protocol::messages::usage::{self, Usage};
use crate::protocol::messages::{arguments, citation, stop};
use crate::protocol::translate::Reply;

/// What stands for a picture, which an answer can't hold.
pub(in crate::protocol::messages) const PICTURE: &str = "[image omitted]";

/// Writes an answer for a client.
pub fn encode(response: &Response<'_>, reply: &Reply, out: &mut BytesMut) {
    // There are several only where the client asked for several, which none that
    // speaks Messages can.
    let none = Choice::default();
    let choice = response.choices.first().unwrap_or(&none);
    let half = choice.finish == Some(Finish::Length);
    let calls = choice.parts.iter().any(|part| match part {
        Part::Call(call) => !half || arguments::are_whole(&call.arguments),
        _ => false,
    });
    let mut message = Object::open(out);
    message
        .text("id", &format!("msg_{}", reply.id))
        .text("type", "message")
        .text("role", "assistant")
        .text("model", &reply.model);
    {
        let mut writer = Writer {
            blocks: message.array("content"),
            reply,
            half,
        };
        for (number, part) in choice.parts.iter().enumerate() {
            writer.part(part, number);
        }
    }
    stop::write(&mut message, &stop::settle(choice.finish.clone(), calls));
    let tokens = Usage {
        tokens: response.usage.unwrap_or_default(),
        web_searches: response.web_searches,
    };
    let tier = response.service.as_ref().map(Str::plain);
    let mut object = message.object("usage");
    usage::write(&mut object, &tokens);
    object.text("service_tier", usage::tier(tier.as_deref()));
}

struct Writer<'w, 'o> {
    blocks: Array<'o>,
    reply: &'w Reply,
    /// Whether the answer was cut off, so that its last call may be half a call.
    half: bool,
}

impl Writer<'_, '_> {
    fn part(&mut self, part: &Part<'_>, number: usize) {
        match part {
            Part::Text(text) => self.text(text),
            Part::Refusal(text) => self.said(text),
            Part::Media(_) => self.said(&Str::new(PICTURE)),
            Part::Call(call) => self.call(call),
            Part::Reasoning(thought) => self.thought(thought),
            Part::Hosted(hosted) if hosted.origin == Protocol::Messages => {
                for block in hosted.native.iter().filter(|block| block.is_object()) {
                    self.blocks.raw(block);
                }
            }
            Part::Hosted(hosted) => {
                if let Some(blocks) = Blocks::of(hosted, &self.reply.id, number) {
                    blocks.write_use(self.blocks.element(), &blocks.input);
                    blocks.write_result(self.blocks.element());
                }
            }
            Part::Result(_) => {}
        }
    }

    fn text(&mut self, text: &Text<'_>) {
        if text.text.is_empty() {
            return;
        }
        let mut block = self.blocks.object();
        block.text("type", "text").str("text", &text.text);
        let cited: Vec<&Annotation<'_>> = text
            .annotations
            .iter()
            .filter(|annotation| citation::can_be_said(annotation))
            .collect();
        if !cited.is_empty() {
            let mut citations = block.array("citations");
            for annotation in cited {
                citation::write(citations.object(), annotation);
            }
        }
    }

    fn said(&mut self, text: &Str<'_>) {
        if !text.is_empty() {
            self.blocks.object().text("type", "text").str("text", text);
        }
    }

    fn call(&mut self, call: &Call<'_>) {
        if self.half && !arguments::are_whole(&call.arguments) {
            return;
        }
        // A signature that rides on the call has no place on it here.
        let blob = call.opaque.as_ref();
        if let Some(data) = blob.and_then(|blob| seal::data(blob, self.reply)) {
            self.redacted(&data);
        }
        let mut block = self.blocks.object();
        block.text("type", "tool_use").str("id", &call.id);
        match &call.namespace {
            Some(namespace) => {
                let name = format!("{}__{}", namespace.plain(), call.name.plain());
                block.text("name", &name);
            }
            None => {
                block.str("name", &call.name);
            }
        }
        arguments::write(block.key("input"), &call.arguments);
    }

    fn thought(&mut self, thought: &Thought<'_>) {
        match seal::thought(thought, self.reply) {
            Some(Sealed::Thinking { text, signature }) => {
                self.blocks
                    .object()
                    .text("type", "thinking")
                    .str("thinking", &text)
                    .str("signature", &signature);
            }
            Some(Sealed::Redacted { data }) => self.redacted(&data),
            None => {}
        }
    }

    fn redacted(&mut self, data: &Str<'_>) {
        self.blocks
            .object()
            .text("type", "redacted_thinking")
            .str("data", data);
    }
}
