//! Where the images of a request lie, and the same request with words in their
//! place.
//!
//! The request stays in its own protocol and keeps every other byte. What a
//! picture shows is no business of this file. Pictures that only a provider has
//! (files by id) can't be described and are left alone.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

use super::Protocol;
use super::ir::{MediaKind, Source};
use super::json::{Str, Value, write};
use super::media;
use super::splice::Patch;

/// How deep content may be nested in content.
const DEEPEST: usize = 4;

/// Which images a model can't be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blindness {
    /// All of them.
    Whole,
    /// Those behind URLs.
    Urls,
}

/// An image of a request.
#[derive(Debug)]
pub struct Picture<'t> {
    /// What it is: bytes in base64, or a URL.
    pub source: Source<'t>,
    /// Where it is.
    pub slot: Slot,
}

/// The place of an image in a request's body, and what has to stand around the
/// words that come there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    cut: Option<Range<usize>>,
    put: Range<usize>,
    before: &'static str,
    after: String,
}

impl Slot {
    /// What puts the words there.
    pub fn patches(&self, words: &str) -> impl Iterator<Item = Patch> + use<> {
        let mut with = BytesMut::from(self.before);
        write::string(&mut with, &Str::new(words));
        with.extend_from_slice(self.after.as_bytes());
        let cut = self.cut.clone().map(|span| Patch {
            span,
            with: Bytes::new(),
        });
        let put = Patch {
            span: self.put.clone(),
            with: with.freeze(),
        };
        cut.into_iter().chain([put])
    }
}

/// The images that `blindness` hides, in the order of the document. Other
/// protocols than the four for chat have none.
#[must_use]
pub fn find(protocol: Protocol, body: Value<'_>, blindness: Blindness) -> Vec<Picture<'_>> {
    let mut search = Search {
        blindness,
        found: Vec::new(),
    };
    match protocol {
        Protocol::Chat => {
            for message in body.get("messages").iter().flat_map(Value::items) {
                search.chat(message.get("content"));
            }
        }
        Protocol::Responses => body
            .get("input")
            .iter()
            .flat_map(Value::items)
            .for_each(|item| search.item(item)),
        Protocol::Messages => {
            for message in body.get("messages").iter().flat_map(Value::items) {
                search.blocks(message.get("content"), DEEPEST);
            }
        }
        Protocol::Gemini => {
            for content in body.get("contents").iter().flat_map(Value::items) {
                search.parts(content.get("parts"));
            }
        }
        _ => {}
    }
    search.found
}

struct Search<'t> {
    blindness: Blindness,
    found: Vec<Picture<'t>>,
}

impl<'t> Search<'t> {
    /// An image that words take the place of, in its own list.
    fn replace(&mut self, at: Value<'t>, source: Source<'t>, before: &'static str, after: String) {
        if self.hides(&source) {
            let slot = Slot {
                cut: None,
                put: at.span(),
                before,
                after,
            };
            self.found.push(Picture { source, slot });
        }
    }

    fn hides(&self, source: &Source<'t>) -> bool {
        match source {
            Source::Inline { mime, .. } => {
                self.blindness == Blindness::Whole && media::kind(mime) == MediaKind::Image
            }
            Source::Url { url, mime } => {
                let web = url.plain();
                let told = mime.as_ref().map(Str::plain);
                (web.starts_with("https://") || web.starts_with("http://"))
                    && told.is_none_or(|mime| media::kind(&mime) == MediaKind::Image)
            }
            Source::File { .. } | Source::Text(_) => false,
        }
    }

    /// The content of a chat message, of a user's or a tool's.
    fn chat(&mut self, content: Option<Value<'t>>) {
        for part in content.iter().flat_map(Value::items) {
            if kind_of(part, "image_url")
                && let Some(image) = part.some("image_url")
                && let Some(url) = image.as_str().or_else(|| image.some("url")?.as_str())
            {
                let after = kept(part, "cache_control");
                self.replace(part, media::of_url(url, None), TEXT, after);
            }
        }
    }

    /// An item of a Responses request: a message, or what a tool gave.
    fn item(&mut self, item: Value<'t>) {
        let lists = [item.get("content"), item.get("output")];
        for part in lists.iter().flatten().flat_map(Value::items) {
            if kind_of(part, "input_image")
                && let Some(url) = part.some("image_url").and_then(|url| url.as_str())
            {
                let source = media::of_url(url, None);
                self.replace(part, source, INPUT_TEXT, "}".into());
            }
        }
    }

    /// Blocks of a Messages turn, of a tool's result, of a document.
    fn blocks(&mut self, content: Option<Value<'t>>, depth: usize) {
        let Some(deeper) = depth.checked_sub(1) else {
            return;
        };
        for block in content.iter().flat_map(Value::items) {
            if kind_of(block, "image") {
                if let Some(source) = block.get("source").and_then(anthropic) {
                    let after = kept(block, "cache_control");
                    self.replace(block, source, TEXT, after);
                }
            } else if kind_of(block, "tool_result") {
                self.blocks(block.get("content"), deeper);
            } else if kind_of(block, "document") {
                let inner = block.get("source").and_then(|source| source.get("content"));
                self.blocks(inner, deeper);
            }
        }
    }

    /// Parts of a Gemini turn.
    fn parts(&mut self, parts: Option<Value<'t>>) {
        for part in parts.iter().flat_map(Value::items) {
            if let Some(source) = google(part) {
                self.replace(part, source, "{\"text\":", "}".into());
            } else if let Some(result) = either(part, "functionResponse", "function_response") {
                self.result(part, result);
            }
        }
    }

    /// A function's result holds media only, never text: the words come behind
    /// the part that it is in.
    fn result(&mut self, part: Value<'t>, result: Value<'t>) {
        let media: Vec<Value<'t>> = result.get("parts").iter().flat_map(Value::items).collect();
        let behind = part.span().end..part.span().end;
        // Everything from the end of what was kept before.
        let mut kept: Option<usize> = None;
        for (at, medium) in media.iter().enumerate() {
            let source = google(*medium).filter(|source| self.hides(source));
            let Some(source) = source else {
                kept = Some(medium.span().end);
                continue;
            };
            let next = media.get(at + 1).map(|next| next.span().start);
            let cut = match (kept, next) {
                (Some(end), _) => end..medium.span().end,
                (None, Some(next)) => medium.span().start..next,
                (None, None) => medium.span(),
            };
            if kept.is_some() {
                kept = Some(medium.span().end);
            }
            let slot = Slot {
                cut: Some(cut),
                put: behind.clone(),
                before: ",{\"text\":",
                after: "}".into(),
            };
            self.found.push(Picture { source, slot });
        }
    }
}

const TEXT: &str = "{\"type\":\"text\",\"text\":";
const INPUT_TEXT: &str = "{\"type\":\"input_text\",\"text\":";

/// The end of a block, with a member that it had.
fn kept(block: Value<'_>, name: &str) -> String {
    match block.some(name) {
        Some(value) => format!(",\"{name}\":{}}}", value.raw().as_str()),
        None => "}".into(),
    }
}

fn kind_of(part: Value<'_>, kind: &str) -> bool {
    let told = part.get("type").and_then(|told| told.as_str());
    told.is_some_and(|told| told.is(kind))
}

fn either<'t>(value: Value<'t>, name: &str, other: &str) -> Option<Value<'t>> {
    value.some(name).or_else(|| value.some(other))
}

/// The source of a Messages block.
fn anthropic(source: Value<'_>) -> Option<Source<'_>> {
    if kind_of(source, "url") {
        return Some(media::of_url(source.get("url")?.as_str()?, None));
    }
    let mime = source.get("media_type")?.as_str()?;
    Some(media::inline(&mime.plain(), source.get("data")?.as_str()?))
}

/// The medium in a Gemini part.
fn google(part: Value<'_>) -> Option<Source<'_>> {
    if let Some(blob) = either(part, "inlineData", "inline_data") {
        let mime = either(blob, "mimeType", "mime_type")?.as_str()?;
        return Some(media::inline(&mime.plain(), blob.get("data")?.as_str()?));
    }
    let file = either(part, "fileData", "file_data")?;
    let url = either(file, "fileUri", "file_uri")?.as_str()?;
    // Without a type it may be anything.
    let mime = either(file, "mimeType", "mime_type")?.as_str()?;
    Some(Source::Url {
        url,
        mime: Some(mime),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value as Json, json};

    use super::super::json::Tape;
    use super::super::splice;
    use super::*;

    const PIXEL: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";

    fn data_url() -> String {
        format!("data:image/png;base64,{PIXEL}")
    }

    /// The body with its images told in words: `image 0`, `image 1` ...
    fn worded(protocol: Protocol, body: &str, blindness: Blindness) -> String {
        let mut tape = Tape::new();
        let root = tape.parse(body).unwrap();
        let pictures = find(protocol, root, blindness);
        let patches = pictures.iter().enumerate().flat_map(|(at, picture)| {
            let words = format!("image \"{at}\"");
            picture.slot.patches(&words)
        });
        let frames = splice::apply(
            &[Bytes::copy_from_slice(body.as_bytes())],
            patches.collect(),
        );
        String::from_utf8(frames.concat()).unwrap()
    }

    #[track_caller]
    fn becomes(protocol: Protocol, body: &Json, wanted: &Json) {
        let text = worded(protocol, &body.to_string(), Blindness::Whole);
        assert_eq!(serde_json::from_str::<Json>(&text).unwrap(), *wanted);
    }

    #[test]
    fn chat_images_of_users_and_tools_become_text() {
        let text = json!({"type": "text", "text": "what is this?"});
        let audio =
            json!({"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}});
        becomes(
            Protocol::Chat,
            &json!({"model": "m", "messages": [
                {"role": "user", "content": [text, {"type": "image_url", "image_url": {"url": data_url(), "detail": "low"}},
                    audio, {"type": "image_url", "image_url": "https://a/b.png", "cache_control": {"type": "ephemeral"}}]},
                {"role": "assistant", "content": "a dot"},
                {"role": "tool", "tool_call_id": "c", "content": [{"type": "image_url", "image_url": {"url": data_url()}}]}]}),
            &json!({"model": "m", "messages": [
                {"role": "user", "content": [text, {"type": "text", "text": "image \"0\""},
                    audio, {"type": "text", "text": "image \"1\"", "cache_control": {"type": "ephemeral"}}]},
                {"role": "assistant", "content": "a dot"},
                {"role": "tool", "tool_call_id": "c", "content": [{"type": "text", "text": "image \"2\""}]}]}),
        );
    }

    #[test]
    fn responses_images_of_messages_and_tools_become_text() {
        let file = json!({"type": "input_image", "file_id": "file-1"});
        becomes(
            Protocol::Responses,
            &json!({"input": [
                {"role": "user", "content": [{"type": "input_image", "image_url": data_url()}, file]},
                {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_image", "image_url": "http://a/b"}]},
                {"type": "function_call_output", "call_id": "d", "output": "text"}]}),
            &json!({"input": [
                {"role": "user", "content": [{"type": "input_text", "text": "image \"0\""}, file]},
                {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "image \"1\""}]},
                {"type": "function_call_output", "call_id": "d", "output": "text"}]}),
        );
    }

    #[test]
    fn messages_images_become_text_in_results_and_documents_too() {
        let image = json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}});
        let url = json!({"type": "image", "source": {"type": "url", "url": "https://a/b.jpg"}, "cache_control": {"type": "ephemeral", "ttl": "1h"}});
        let file = json!({"type": "image", "source": {"type": "file", "file_id": "f"}});
        becomes(
            Protocol::Messages,
            &json!({"messages": [{"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "t", "content": [image]}, url, file,
                {"type": "document", "source": {"type": "content", "content": [image]}}]}]}),
            &json!({"messages": [{"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "image \"0\""}]},
                {"type": "text", "text": "image \"1\"", "cache_control": {"type": "ephemeral", "ttl": "1h"}}, file,
                {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "image \"2\""}]}}]}]}),
        );
    }

    #[test]
    fn gemini_images_become_text_and_move_out_of_results() {
        let image = json!({"inlineData": {"mimeType": "image/png", "data": PIXEL}});
        let sound = json!({"inlineData": {"mimeType": "audio/wav", "data": "AAAA"}});
        let result = |parts: Json| json!({"functionResponse": {"name": "f", "response": {"output": "x"}, "parts": parts}});
        let text = |at: usize| json!({"text": format!("image \"{at}\"")});
        becomes(
            Protocol::Gemini,
            &json!({"contents": [{"role": "user", "parts": [{"text": "see"}, image,
                {"file_data": {"mime_type": "image/png", "file_uri": "https://a/b"}}, sound,
                result(json!([image, sound, image, image])), result(json!([image, image])), result(json!([image, sound]))]}]}),
            &json!({"contents": [{"role": "user", "parts": [{"text": "see"}, text(0), text(1), sound,
                result(json!([sound])), text(2), text(3), text(4), result(json!([])), text(5), text(6),
                result(json!([sound])), text(7)]}]}),
        );
    }

    #[test]
    fn who_takes_no_urls_is_told_of_those_alone() {
        let body = json!({"messages": [{"role": "user", "content": [
            {"type": "image_url", "image_url": {"url": data_url()}},
            {"type": "image_url", "image_url": {"url": "https://a/b.png"}}]}]})
        .to_string();
        let text = worded(Protocol::Chat, &body, Blindness::Urls);
        assert!(text.contains(PIXEL) && !text.contains("https://a"));
    }

    #[test]
    fn everything_else_keeps_its_bytes() {
        let body = format!(
            "{{ \"z\" : 1.50, \"messages\":[ {{\"content\" : [ {{\"type\":\"image_url\",\"image_url\":\"{}\"}} ] , \"role\":\"user\"}}], \"a\":\"\\u00e9\" }}",
            data_url()
        );
        let text = worded(Protocol::Chat, &body, Blindness::Whole);
        assert_eq!(
            text,
            "{ \"z\" : 1.50, \"messages\":[ {\"content\" : [ {\"type\":\"text\",\"text\":\"image \\\"0\\\"\"} ] , \"role\":\"user\"}], \"a\":\"\\u00e9\" }"
        );
    }

    proptest! {
        #[test]
        fn whatever_lies_in_a_result_the_body_stays_a_document(kinds in proptest::collection::vec(any::<bool>(), 0..8)) {
            let parts: Vec<Json> = kinds.iter().map(|image| match image {
                true => json!({"inlineData": {"mimeType": "image/png", "data": PIXEL}}),
                false => json!({"inlineData": {"mimeType": "audio/wav", "data": "AAAA"}}),
            }).collect();
            let body = json!({"contents": [{"parts": [{"functionResponse": {"name": "f", "parts": parts}}]}]});
            let text = worded(Protocol::Gemini, &body.to_string(), Blindness::Whole);
            let after: Json = serde_json::from_str(&text).unwrap();
            let left = after["contents"][0]["parts"][0]["functionResponse"]["parts"].as_array().unwrap();
            prop_assert_eq!(left.len(), kinds.iter().filter(|image| !**image).count());
            let texts = after["contents"][0]["parts"].as_array().unwrap().len() - 1;
            prop_assert_eq!(texts, kinds.iter().filter(|image| **image).count());
        }
    }
}
