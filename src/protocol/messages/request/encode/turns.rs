//! The conversation, written turn by turn.

use std::borrow::Cow;

use crate::protocol::Protocol;
use crate::protocol::fit;
use crate::protocol::ir::{
    Arguments, Call, Hosted, HostedKind, Invalid, OpaqueKind, Part, Role, Source, SystemBlock,
    Thought, ToolResult,
};
use crate::protocol::json::{Array, Object, Str, Tape};
use crate::protocol::messages::arguments::{self, Shape};
use crate::protocol::notes::{Action, Field, Notes};
use crate::protocol::turns::Arranged;

use super::marks::mark_of_result;
use super::{Writer, is_native, media};

/// What is said to the provider.
pub(super) struct Conversation<'c, 'a> {
    system: &'c [Cow<'c, SystemBlock<'a>>],
    turns: Vec<Said<'c, 'a>>,
    origin: Protocol,
}

/// A turn of which something can be said.
struct Said<'c, 'a> {
    role: Role,
    parts: Vec<&'c Part<'a>>,
    at: usize,
}

impl<'c, 'a> Conversation<'c, 'a> {
    /// Without what only others understand, and without the turns that are empty
    /// then.
    pub(super) fn of(arranged: &'c Arranged<'c, 'a>, origin: Protocol, notes: &mut Notes) -> Self {
        let mut turns: Vec<Said<'c, 'a>> = Vec::with_capacity(arranged.turns.len());
        for turn in &arranged.turns {
            let mut parts = Vec::with_capacity(turn.parts.len());
            for part in turn.parts.iter().map(Cow::as_ref) {
                match left_out(part) {
                    Some(word) => {
                        let place = Field::Turns.path(origin);
                        notes.info(Action::Dropped, format!("{place}[{}].{word}", turn.at));
                    }
                    None => parts.push(part),
                }
            }
            match turns.last_mut() {
                _ if parts.is_empty() => {}
                Some(last) if last.role == turn.role => last.parts.extend(parts),
                _ => turns.push(Said {
                    role: turn.role,
                    parts,
                    at: turn.at,
                }),
            }
        }
        Self {
            system: &arranged.system,
            turns,
            origin,
        }
    }

    /// Whether nothing is said.
    pub(super) fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    /// The leading system text.
    pub(super) fn system(&self) -> &'c [Cow<'c, SystemBlock<'a>>] {
        self.system
    }

    /// All parts, in order.
    pub(super) fn parts(&self) -> impl Iterator<Item = &'c Part<'a>> {
        self.turns
            .iter()
            .flat_map(|turn| turn.parts.iter().copied())
    }

    /// All calls, in order.
    pub(super) fn calls(&self) -> impl Iterator<Item = &'c Call<'a>> {
        self.parts().filter_map(|part| match part {
            Part::Call(call) => Some(call),
            _ => None,
        })
    }

    /// About how many bytes it takes.
    pub(super) fn size(&self) -> usize {
        let system = self.system.iter().map(|block| block.text.len() + 32);
        system.sum::<usize>() + self.parts().map(size).sum::<usize>()
    }

    /// Whether the model is in the middle of calling tools, in turns of which one
    /// does not begin with its own signed thinking: it would refuse to think then.
    pub(super) fn goes_on_without_signature(&self) -> bool {
        for turn in self.turns.iter().rev() {
            match turn.role {
                Role::System => {}
                Role::User => {
                    let results = |part: &&Part<'_>| matches!(part, Part::Result(_));
                    if !turn.parts.iter().any(results) {
                        return false;
                    }
                }
                Role::Assistant => {
                    let calls = |part: &&Part<'_>| matches!(part, Part::Call(_));
                    let signed = matches!(turn.parts.first(), Some(Part::Reasoning(_)));
                    if !signed && turn.parts.iter().any(calls) {
                        return true;
                    }
                }
            }
        }
        false
    }

    /// Writes `messages`.
    pub(super) fn write(
        &self,
        body: &mut Object<'_>,
        writer: &mut Writer<'_, '_>,
    ) -> Result<(), Invalid> {
        let mut messages = body.array("messages");
        for turn in &self.turns {
            let mut message = messages.object();
            message.text(
                "role",
                match turn.role {
                    Role::User => "user",
                    Role::Assistant => "assistant",
                    Role::System => "system",
                },
            );
            let mut blocks = message.array("content");
            for part in &turn.parts {
                self.part(part, turn.at, &mut blocks, writer)?;
            }
        }
        Ok(())
    }

    fn part(
        &self,
        part: &Part<'_>,
        at: usize,
        blocks: &mut Array<'_>,
        writer: &mut Writer<'_, '_>,
    ) -> Result<(), Invalid> {
        match part {
            Part::Text(text) => {
                let mut block = write_text(blocks, &text.text);
                writer.marks.write(&mut block, text.cache);
            }
            Part::Refusal(text) => drop(write_text(blocks, text)),
            Part::Media(medium) => media::write(medium, blocks, writer, true)?,
            Part::Call(call) => self.call(call, at, blocks, writer),
            Part::Result(result) => write_result(result, blocks, writer)?,
            Part::Reasoning(thought) => write_thought(thought, blocks),
            Part::Hosted(hosted) if is_native(part) => {
                for block in &hosted.native {
                    blocks.raw(block);
                }
            }
            Part::Hosted(hosted) => {
                drop(write_text(blocks, &Str::from(code_as_text(hosted))));
            }
        }
        Ok(())
    }

    fn call(
        &self,
        call: &Call<'_>,
        at: usize,
        blocks: &mut Array<'_>,
        writer: &mut Writer<'_, '_>,
    ) {
        let names = &mut writer.names;
        let name = names.fit(&call.name, call.namespace.as_ref(), Protocol::Messages);
        let mut block = blocks.object();
        block
            .text("type", "tool_use")
            .text("id", &fit::call_id(&call.id, Protocol::Messages))
            .text("name", &name);
        let shape = arguments::write(block.key("input"), &call.arguments);
        if shape == Shape::Broken {
            let path = format!("{}[{at}]", Field::Turns.path(self.origin));
            writer
                .notes
                .warn_at(Action::Coerced, "tool_call_arguments", path);
        }
        writer.marks.write(&mut block, call.cache);
    }
}

/// What a part is called that can't be said; `None` where it can.
fn left_out(part: &Part<'_>) -> Option<&'static str> {
    match part {
        Part::Reasoning(_) if !is_native(part) => Some("reasoning"),
        Part::Hosted(hosted) if is_native(part) => {
            let emptied = |block: &crate::protocol::json::Raw<'_>| {
                block.compact().contains(r#""encrypted_content":"""#)
            };
            hosted.native.iter().any(emptied).then_some("web_search")
        }
        Part::Hosted(hosted) => match hosted.kind {
            HostedKind::Code => None,
            HostedKind::WebSearch => Some("web_search"),
            _ => Some("hosted_tool"),
        },
        _ => None,
    }
}

fn write_text<'o>(blocks: &'o mut Array<'_>, text: &Str<'_>) -> Object<'o> {
    let mut block = blocks.object();
    block.text("type", "text").str("text", text);
    block
}

fn write_thought(thought: &Thought<'_>, blocks: &mut Array<'_>) {
    let Some(opaque) = &thought.opaque else {
        return;
    };
    let mut block = blocks.object();
    if opaque.kind == OpaqueKind::AnthropicRedacted {
        block
            .text("type", "redacted_thinking")
            .str("data", &opaque.data);
    } else {
        block
            .text("type", "thinking")
            .str("thinking", &thought.text)
            .str("signature", &opaque.data);
    }
}

fn write_result(
    result: &ToolResult<'_>,
    blocks: &mut Array<'_>,
    writer: &mut Writer<'_, '_>,
) -> Result<(), Invalid> {
    let mut block = blocks.object();
    block
        .text("type", "tool_result")
        .text("tool_use_id", &fit::call_id(&result.id, Protocol::Messages));
    let said = |part: &&Part<'_>| !matches!(part, Part::Text(text) if text.text.is_blank());
    let parts: Vec<_> = result.parts.iter().filter(said).collect();
    match parts.as_slice() {
        [] => {}
        [Part::Text(text)] => {
            block.str("content", &text.text);
        }
        parts => {
            let mut content = block.array("content");
            for part in parts {
                match part {
                    Part::Text(text) => drop(write_text(&mut content, &text.text)),
                    Part::Refusal(text) => drop(write_text(&mut content, text)),
                    Part::Media(medium) => media::write(medium, &mut content, writer, false)?,
                    _ => {}
                }
            }
        }
    }
    if result.is_error {
        block.bool("is_error", true);
    }
    writer.marks.write(&mut block, mark_of_result(result));
    Ok(())
}

/// What another provider's interpreter ran, and what it printed.
fn code_as_text(hosted: &Hosted<'_>) -> String {
    let mut tape = Tape::new();
    let input = hosted.input.as_ref();
    let input = input.and_then(|input| tape.parse(input.as_str()).ok());
    let code = input.and_then(|input| input.some("code")?.as_str());
    let code = code.map(|code| code.to_plain_string()).unwrap_or_default();
    let mut text = format!("```python\n{code}\n```");
    if let Some(output) = hosted.output.as_ref().filter(|output| !output.is_blank()) {
        text.push('\n');
        text.push_str(&output.plain());
    }
    text
}

fn size(part: &Part<'_>) -> usize {
    const FRAME: usize = 96;
    FRAME
        + match part {
            Part::Text(text) => text.text.len(),
            Part::Refusal(text) => text.len(),
            Part::Media(medium) => match &medium.source {
                Source::Inline { data, .. } | Source::Text(data) => data.len(),
                Source::Url { url, .. } => url.len(),
                Source::File { id } => id.len(),
            },
            Part::Call(call) => match &call.arguments {
                Arguments::Object(value) => value.as_str().len(),
                Arguments::Text(text) | Arguments::Free(text) => text.len(),
            },
            Part::Result(result) => result.parts.iter().map(size).sum(),
            Part::Reasoning(thought) => {
                let blob = thought.opaque.as_ref().map(|opaque| opaque.data.len());
                thought.text.len() + blob.unwrap_or(0)
            }
            Part::Hosted(hosted) => {
                let native = hosted.native.iter().map(|block| block.as_str().len());
                native.sum()
            }
        }
}
