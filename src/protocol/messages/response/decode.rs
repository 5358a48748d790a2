//! A provider's whole answer in Messages, read.

use crate::protocol::Protocol;
use crate::protocol::error::{UpstreamError, error_in_answer, unreadable};
use crate::protocol::fit;
use crate::protocol::ir::{
    Arguments, Call, Choice, Opaque, OpaqueKind, Part, Response, Text, Thought,
};
use crate::protocol::json::{Raw, Str, Value};
use crate::protocol::messages::usage::Usage;
use crate::protocol::messages::{arguments, citation, hosted, stop};

/// Reads a provider's answer.
///
/// # Errors
///
/// Where it is an error in the clothes of an answer, or no answer at all.
pub fn decode(body: Value<'_>) -> Result<Response<'_>, UpstreamError> {
    let text = body.raw();
    let bytes = text.as_str().as_bytes();
    let kind = body.some("type").and_then(|kind| kind.as_str());
    if kind.is_some_and(|kind| kind.is("error")) || body.some("error").is_some() {
        return Err(error_in_answer(bytes));
    }
    let Some(content) = body.some("content").filter(|content| content.is_array()) else {
        return Err(unreadable(bytes));
    };
    let mut usage = Usage::default();
    let reported = body.some("usage");
    let counted = reported.is_some_and(|object| usage.update(object));
    let upstream_id = body.some("id").and_then(|id| id.as_str());
    let parts = parts(content, upstream_id.as_ref());
    let calls = parts.iter().any(|part| matches!(part, Part::Call(_)));
    Ok(Response {
        upstream_model: body.some("model").and_then(|model| model.as_str()),
        choices: vec![Choice {
            finish: Some(stop::settle(stop::decode(body), calls)),
            parts,
            logprobs: Vec::new(),
        }],
        usage: counted.then_some(usage.tokens),
        web_searches: usage.web_searches,
        service: reported
            .and_then(|usage| usage.some("service_tier"))
            .and_then(|tier| tier.as_str()),
        fingerprint: None,
        upstream_id,
    })
}

fn parts<'a>(content: Value<'a>, message: Option<&Str<'_>>) -> Vec<Part<'a>> {
    let mut reader = Reader {
        parts: Vec::new(),
        uses: Vec::new(),
        texts: Vec::new(),
    };
    for (at, block) in content.items().enumerate() {
        reader.block(block, at, message);
    }
    reader.end_text();
    reader.parts
}

struct Reader<'a> {
    parts: Vec<Part<'a>>,
    /// Calls of hosted tools, and at which part they stand.
    uses: Vec<(usize, Value<'a>)>,
    /// Neighbouring texts, which are one: citations cut a text into blocks.
    texts: Vec<Value<'a>>,
}

impl<'a> Reader<'a> {
    fn block(&mut self, block: Value<'a>, at: usize, message: Option<&Str<'_>>) {
        let Some(kind) = block.some("type").and_then(|kind| kind.as_str()) else {
            return;
        };
        let kind = kind.plain();
        if kind == "text" {
            self.texts.push(block);
            return;
        }
        self.end_text();
        match kind.as_ref() {
            "tool_use" => {
                let call = call(block, at, message);
                self.parts.push(Part::Call(call));
            }
            "thinking" => self.parts.push(Part::Reasoning(thinking(block))),
            "redacted_thinking" => self.parts.push(Part::Reasoning(redacted(block))),
            kind if hosted::is_use(kind) => {
                self.uses.push((self.parts.len(), block));
                let part = hosted::decode(Some(block), None);
                self.parts.push(Part::Hosted(part));
            }
            kind if hosted::is_result(kind) => self.hosted_result(block),
            _ => {}
        }
    }

    fn hosted_result(&mut self, block: Value<'a>) {
        let id = block.some("tool_use_id").and_then(|id| id.as_str());
        let of = |used: &Value<'a>| used.some("id").and_then(|id| id.as_str()) == id;
        let found = self.uses.iter().rposition(|(_, used)| of(used));
        let found = found.map(|at| self.uses.swap_remove(at));
        let part = Part::Hosted(hosted::decode(found.map(|(_, used)| used), Some(block)));
        match found.and_then(|(at, _)| self.parts.get_mut(at)) {
            Some(place) => *place = part,
            None => self.parts.push(part),
        }
    }

    fn end_text(&mut self) {
        let mut whole = Text::default();
        let mut joined = String::new();
        let mut characters = 0;
        let several = self.texts.len() > 1;
        let cites = |block: &Value<'_>| block.some("citations").is_some();
        let cited = self.texts.iter().any(cites);
        for block in self.texts.drain(..) {
            let text = block.some("text").and_then(|text| text.as_str());
            let text = text.unwrap_or_default();
            // Where a citation stands is told in characters, and counting them has
            // to look at each.
            let length = if cited { text.characters() } else { 0 };
            let end = characters + length;
            let citations = block.some("citations");
            let citations = citations.iter().flat_map(Value::items);
            for mut annotation in citations.filter_map(citation::decode) {
                annotation.span = Some((characters, end));
                whole.annotations.push(annotation);
            }
            characters = end;
            if several {
                joined.push_str(&text.plain());
            } else {
                whole.text = text;
            }
        }
        if several {
            whole.text = Str::from(joined);
        }
        if !whole.text.is_empty() {
            self.parts.push(Part::Text(whole));
        }
    }
}

fn call<'a>(block: Value<'a>, at: usize, message: Option<&Str<'_>>) -> Call<'a> {
    let told = |name: &str| block.some(name).and_then(|text| text.as_str());
    Call {
        id: told("id")
            .filter(|id| !id.is_empty())
            .unwrap_or_else(|| minted(message, at)),
        name: told("name").unwrap_or_default(),
        namespace: None,
        arguments: match block.get("input") {
            Some(input) => arguments::of_value(input),
            None => Arguments::Object(Raw::EMPTY_OBJECT),
        },
        opaque: None,
        cache: None,
    }
}

/// An id for a call that came without one, no other in the conversation.
pub(in crate::protocol::messages) fn minted(message: Option<&Str<'_>>, at: usize) -> Str<'static> {
    let message = message.map(Str::plain).unwrap_or_default();
    // What is no valid id anywhere is made one out of a hash.
    let seed = Str::from(format!("{message}:{at}"));
    Str::from(fit::call_id(&seed, Protocol::Messages).into_owned())
}

fn thinking(block: Value<'_>) -> Thought<'_> {
    let told = |name: &str| block.some(name).and_then(|text| text.as_str());
    let signature = told("signature").filter(|blob| !blob.is_empty());
    Thought {
        text: told("thinking").unwrap_or_default(),
        opaque: signature.map(|blob| made_there(OpaqueKind::AnthropicSignature, blob)),
        ..Thought::default()
    }
}

fn redacted(block: Value<'_>) -> Thought<'_> {
    let data = block.some("data").and_then(|data| data.as_str());
    Thought {
        opaque: data.map(|blob| made_there(OpaqueKind::AnthropicRedacted, blob)),
        redacted: true,
        ..Thought::default()
    }
}

/// A blob of which nothing is known but who made it.
pub(in crate::protocol::messages) fn made_there(kind: OpaqueKind, data: Str<'_>) -> Opaque<'_> {
    Opaque {
        kind,
        data,
        model: None,
        account: None,
    }
}
