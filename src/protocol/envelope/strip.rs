//! Envelopes on their way to a provider of the client's own protocol, which would
//! refuse them: found in the slots for blobs, and cut out of the body.

use std::ops::Range;
use std::sync::LazyLock;

use bytes::{Bytes, BytesMut};
use memchr::memmem::{self, Finder};

use super::super::Protocol;
use super::super::gemini::signature::SENTINEL;
use super::super::ir::{Opaque, OpaqueKind};
use super::super::json::{Object, Str, Value, write};
use super::super::splice::Patch;
use super::{MARK, opened};

static FINDER: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(MARK));

/// Whether an envelope may be somewhere in the body; most often there is none, and
/// nothing has to be parsed.
#[must_use]
pub fn is_marked(frames: &[Bytes]) -> bool {
    let mark = MARK.as_bytes();
    if let [only] = frames {
        return FINDER.find(only).is_some();
    }
    let mut border = Vec::new();
    for frame in frames {
        if FINDER.find(frame).is_some() {
            return true;
        }
        // Across the border of two frames, or of many small ones.
        let head = frame.get(..frame.len().min(mark.len())).unwrap_or_default();
        border.extend_from_slice(head);
        if FINDER.find(&border).is_some() {
            return true;
        }
        let tail = frame.len().saturating_sub(mark.len() - 1);
        if frame.len() >= mark.len() {
            border.clear();
            border.extend_from_slice(frame.get(tail..).unwrap_or_default());
        } else {
            border.drain(..border.len().saturating_sub(mark.len() - 1));
        }
    }
    false
}

/// What has to be replaced in a body that goes on in the client's own protocol:
/// envelopes of that family are unwrapped, all others cut out with the reasoning
/// that they belong to. Only the slots for blobs are looked at: an image may hold
/// the same letters. `account` is the provider account asked; ciphertext of
/// another is cut out. Says too whether something is lost that way.
#[must_use]
pub fn strip_foreign(protocol: Protocol, body: Value<'_>, account: &str) -> (Vec<Patch>, bool) {
    if memmem::find(body.raw().as_str().as_bytes(), MARK.as_bytes()).is_none() {
        return (Vec::new(), false);
    }
    let mut patches = Patches {
        account,
        list: Vec::new(),
        lost: false,
    };
    match protocol {
        Protocol::Messages => patches.messages(body),
        Protocol::Responses => patches.responses(body),
        Protocol::Chat => patches.chat(body),
        Protocol::Gemini => patches.gemini(body),
        _ => {}
    }
    (patches.list, patches.lost)
}

/// What becomes of an element or member.
enum Fate {
    Keep,
    Remove,
}

struct Patches<'p> {
    account: &'p str,
    list: Vec<Patch>,
    /// Whether something was cut out, not only unwrapped.
    lost: bool,
}

impl Patches<'_> {
    fn messages(&mut self, body: Value<'_>) {
        self.each(body.get("messages"), |patches, message| {
            let content = message.get("content");
            patches.all(content, Self::thinking)
        });
    }

    /// A block of a Messages turn.
    fn thinking(&mut self, block: Value<'_>) -> Fate {
        let slot = match kind_of(block).as_deref() {
            Some("thinking") => "signature",
            Some("redacted_thinking") => "data",
            _ => return Fate::Keep,
        };
        let Some((blob, text)) = block.get(slot).and_then(open) else {
            return Fate::Keep;
        };
        let mut out = BytesMut::new();
        let mut object = Object::open(&mut out);
        match blob.kind {
            OpaqueKind::AnthropicSignature => {
                let own = block.get("thinking").and_then(|text| text.as_str());
                let text = own.unwrap_or_else(|| Str::from(text.unwrap_or_default()));
                object.text("type", "thinking");
                object.str("thinking", &text).str("signature", &blob.data);
            }
            OpaqueKind::AnthropicRedacted => {
                object.text("type", "redacted_thinking");
                object.str("data", &blob.data);
            }
            _ => return Fate::Remove,
        }
        drop(object);
        self.replace(block.span(), out.freeze());
        Fate::Keep
    }

    fn responses(&mut self, body: Value<'_>) {
        self.each(body.get("input"), |patches, item| {
            let slot = item.get("encrypted_content");
            let is_reasoning = kind_of(item).as_deref() == Some("reasoning");
            let Some(slot) = slot.filter(|_| is_reasoning) else {
                return Fate::Keep;
            };
            patches.unwrap(slot, OpaqueKind::OpenAiEncrypted)
        });
    }

    fn chat(&mut self, body: Value<'_>) {
        for message in body.get("messages").iter().flat_map(Value::items) {
            self.members(message, |patches, name, value| match name {
                "reasoning_details" => patches.all(Some(value), Self::detail),
                "tool_calls" => {
                    value.items().for_each(|call| patches.call(call));
                    Fate::Keep
                }
                _ => Fate::Keep,
            });
        }
    }

    /// An entry of `reasoning_details`; no family of blobs is chat's own.
    fn detail(&mut self, entry: Value<'_>) -> Fate {
        let slots = ["signature", "data"].into_iter();
        let mut slots = slots.filter_map(|slot| entry.get(slot));
        match slots.any(|slot| open(slot).is_some()) {
            true => Fate::Remove,
            false => Fate::Keep,
        }
    }

    /// A call, which carries its signature in Google's own layer of chat. Others
    /// refuse the member, so that nothing of it stays when it is empty.
    fn call(&mut self, call: Value<'_>) {
        let signature = |patches: &mut Self, name: &str, slot: Value<'_>| match name {
            "thought_signature" => patches.unwrap(slot, OpaqueKind::GeminiSignature),
            _ => Fate::Keep,
        };
        self.members(call, |patches, name, extra| match name {
            "extra_content" => patches.members(extra, |patches, name, vendor| match name {
                "google" | "vertex" => patches.members(vendor, signature),
                _ => Fate::Keep,
            }),
            _ => Fate::Keep,
        });
    }

    fn gemini(&mut self, body: Value<'_>) {
        self.each(body.get("contents"), |patches, content| {
            patches.all(content.get("parts"), Self::part)
        });
    }

    /// A part of a Gemini turn.
    fn part(&mut self, part: Value<'_>) -> Fate {
        let is_signature =
            |name: &Str<'_>| name.is("thoughtSignature") || name.is("thought_signature");
        let slot = part.members().find(|(name, _)| is_signature(name));
        let Some((blob, _)) = slot.as_ref().and_then(|(_, slot)| open(*slot)) else {
            return Fate::Keep;
        };
        let Some((_, slot)) = slot else {
            return Fate::Keep;
        };
        if blob.kind == OpaqueKind::GeminiSignature {
            self.string(slot.span(), &blob.data);
            return Fate::Keep;
        }
        let has = |names: [&str; 2]| names.iter().any(|name| part.some(name).is_some());
        if has(["functionCall", "function_call"]) {
            self.string(slot.span(), &Str::new(SENTINEL));
            self.lost = true;
            return Fate::Keep;
        }
        let thought = part.get("thought").and_then(|flag| flag.as_bool()) == Some(true);
        let text = part.get("text").and_then(|text| text.as_str());
        let others = part.members().count() > if text.is_some() { 2 } else { 1 };
        let empty = text.is_none_or(|text| text.is_empty());
        if thought || empty && !others {
            return Fate::Remove;
        }
        let members = part.entries().map(|(name, value)| {
            let named = name.as_str().as_ref().is_some_and(is_signature);
            let fate = if named { Fate::Remove } else { Fate::Keep };
            (name.span().start..value.span().end, fate)
        });
        self.cut(&members.collect::<Vec<_>>());
        Fate::Keep
    }

    /// Unwraps an envelope of that kind; any other is to go with what holds it.
    fn unwrap(&mut self, slot: Value<'_>, native: OpaqueKind) -> Fate {
        let Some((blob, _)) = open(slot) else {
            return Fate::Keep;
        };
        let elsewhere = blob
            .account
            .is_some_and(|account| !account.is(self.account));
        if blob.kind != native || elsewhere {
            return Fate::Remove;
        }
        self.string(slot.span(), &blob.data);
        Fate::Keep
    }

    /// Cuts out the elements of a list that are to go.
    fn each(&mut self, list: Option<Value<'_>>, fate: impl Fn(&mut Self, Value<'_>) -> Fate) {
        let Some(list) = list else {
            return;
        };
        let fates = list.items().map(|item| (item.span(), fate(self, item)));
        let fates: Vec<_> = fates.collect();
        self.cut(&fates);
    }

    /// As [`Patches::each`]; when nothing is left, what holds the list has to go.
    fn all(
        &mut self,
        list: Option<Value<'_>>,
        fate: impl Fn(&mut Self, Value<'_>) -> Fate,
    ) -> Fate {
        let before = self.list.len();
        let fates = list.iter().flat_map(Value::items);
        let fates = fates.map(|item| (item.span(), fate(self, item)));
        let fates: Vec<_> = fates.collect();
        let none = !fates.is_empty() && fates.iter().all(|(_, fate)| matches!(fate, Fate::Remove));
        if none {
            self.list.truncate(before);
            return Fate::Remove;
        }
        self.cut(&fates);
        Fate::Keep
    }

    /// Cuts out the members of an object that are to go; when none is left, the
    /// object has to go itself.
    fn members(
        &mut self,
        object: Value<'_>,
        fate: impl Fn(&mut Self, &str, Value<'_>) -> Fate,
    ) -> Fate {
        let before = self.list.len();
        let fates = object.entries().map(|(name, value)| {
            let text = name.as_str();
            let text = text.as_ref().map(Str::plain).unwrap_or_default();
            let fate = fate(self, &text, value);
            (name.span().start..value.span().end, fate)
        });
        let fates: Vec<_> = fates.collect();
        if !fates.is_empty() && fates.iter().all(|(_, fate)| matches!(fate, Fate::Remove)) {
            self.list.truncate(before);
            return Fate::Remove;
        }
        self.cut(&fates);
        Fate::Keep
    }

    /// Removes runs of neighbours, each with one comma.
    fn cut(&mut self, neighbours: &[(Range<usize>, Fate)]) {
        let mut at = 0;
        while let Some((span, fate)) = neighbours.get(at) {
            let run = neighbours.get(at..).unwrap_or_default().iter();
            let run = run.take_while(|(_, fate)| matches!(fate, Fate::Remove));
            let length = run.count();
            if matches!(fate, Fate::Keep) {
                at += 1;
                continue;
            }
            let before = at.checked_sub(1).and_then(|before| neighbours.get(before));
            let last = neighbours.get(at + length - 1).map(|(span, _)| span.end);
            let next = neighbours.get(at + length).map(|(span, _)| span.start);
            let cut = match (before, next) {
                (Some((before, _)), _) => before.end..last.unwrap_or(span.end),
                (None, Some(next)) => span.start..next,
                (None, None) => span.start..last.unwrap_or(span.end),
            };
            self.replace(cut, Bytes::new());
            self.lost = true;
            at += length;
        }
    }

    fn string(&mut self, span: Range<usize>, text: &Str<'_>) {
        let mut out = BytesMut::new();
        write::string(&mut out, text);
        self.replace(span, out.freeze());
    }

    fn replace(&mut self, span: Range<usize>, with: Bytes) {
        self.list.push(Patch { span, with });
    }
}

fn kind_of(value: Value<'_>) -> Option<String> {
    Some(value.get("type")?.as_str()?.to_plain_string())
}

/// The envelope in a slot.
fn open(slot: Value<'_>) -> Option<(Opaque<'static>, Option<String>)> {
    opened(&slot.as_str()?)
}
