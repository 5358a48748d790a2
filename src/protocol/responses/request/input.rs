//! The conversation, item by item. Neighbouring items of the assistant are one
//! turn, and neighbouring results are one turn of the user.

use crate::protocol::envelope;
use crate::protocol::ir::{
    Invalid, Lifetime, Media, MediaKind, Opaque, OpaqueKind, Part, Request, Role, Source,
    SystemBlock, Text, ToolResult, Turn,
};
use crate::protocol::json::{Str, Value};
use crate::protocol::media;
use crate::protocol::notes::{Action, Notes};

use super::super::item::{self, filled, string};
use super::decode::{unknown, update, wanted};
use super::tools;

/// Reads `input` into a request whose other fields are there.
pub(super) fn decode<'a>(
    input: Value<'a>,
    request: &mut Request<'a>,
    notes: &mut Notes,
) -> Result<(), Invalid> {
    let mut reader = Reader {
        request,
        notes,
        at: 0,
        results: false,
        pictures: Vec::new(),
        signature: None,
    };
    if let Some(text) = input.as_str() {
        reader.say(Role::User, vec![Part::Text(Text::new(text))]);
        return Ok(());
    }
    if !input.is_array() {
        return Err(wanted("input", "a string or an array of items", input));
    }
    for (at, item) in input.items().enumerate() {
        reader.at = at;
        reader.item(item)?;
    }
    reader.flush();
    Ok(())
}

struct Reader<'r, 'a> {
    request: &'r mut Request<'a>,
    notes: &'r mut Notes,
    /// Which item is being read.
    at: usize,
    /// Whether the last turn is one of results.
    results: bool,
    /// What the assistant drew: shown by the user, once the exchange is over.
    pictures: Vec<Part<'a>>,
    /// A signature without text: it rides on the next call, or on the text before.
    signature: Option<Opaque<'a>>,
}

impl<'a> Reader<'_, 'a> {
    fn path(&self) -> String {
        format!("input[{}]", self.at)
    }

    fn item(&mut self, item: Value<'a>) -> Result<(), Invalid> {
        if !item.is_object() {
            return Err(wanted(&self.path(), "an object", item));
        }
        let kind = match filled(item, "type") {
            Some(kind) => kind.into_plain(),
            None if item.get("role").is_some() => "message".into(),
            None if item.get("id").is_some() => "item_reference".into(),
            None => {
                let path = format!("{}.type", self.path());
                return Err(Invalid::request(path, "type is missing"));
            }
        };
        match kind.as_ref() {
            "message" => self.message(item)?,
            "reasoning" => self.reasoning(item),
            "function_call" | "custom_tool_call" => self.call(item)?,
            "function_call_output" => self.result(item, false)?,
            "custom_tool_call_output" => self.result(item, true)?,
            "additional_tools" | "tool_search_output" => self.add_tools(item)?,
            "web_search_call" | "code_interpreter_call" | "file_search_call" => {
                self.spoken(item::hosted(item, &kind).map(Part::Hosted));
            }
            "image_generation_call" => self.picture(item.whole()),
            "configuration_update" => {
                let path = self.path();
                update(self.request, item, &path, self.notes)?;
            }
            other => self.foreign(other, item)?,
        }
        Ok(())
    }

    /// Items that mean something to OpenAI only. To lose one in silence would be to
    /// change the conversation.
    fn foreign(&mut self, kind: &str, item: Value<'a>) -> Result<(), Invalid> {
        // What is lost with it is told, or it is refused.
        item.whole();
        match kind {
            "compaction" => self.compaction(item),
            "mcp_call" => {
                self.mcp_call(item);
                Ok(())
            }
            "mcp_list_tools" | "tool_search_call" => {
                let path = self.path();
                self.notes.warn_at(Action::Dropped, kind.to_owned(), path);
                Ok(())
            }
            "item_reference" => {
                let id = string(item, "id").unwrap_or_default();
                Err(unresolved(&id, &self.path()))
            }
            other => {
                let other: String = other.chars().take(64).collect();
                Err(Invalid::unsupported(
                    "unsupported_content",
                    format!("{}.type", self.path()),
                    format!(
                        "unsupported item '{other}': only a model that is served over the \
                         responses protocol can take it"
                    ),
                ))
            }
        }
    }

    /// The turn that the next parts belong to.
    fn turn(&mut self, role: Role, joins: bool) -> &mut Vec<Part<'a>> {
        let same = self
            .request
            .turns
            .last()
            .is_some_and(|last| last.role == role);
        if !(same && joins) {
            self.settle_signature();
            self.request.turns.push(Turn {
                role,
                parts: Vec::new(),
                at: self.at,
            });
        }
        let last = self.request.turns.len() - 1;
        &mut self.request.turns[last].parts
    }

    fn say(&mut self, role: Role, parts: Vec<Part<'a>>) {
        if !parts.is_empty() {
            self.flush();
            self.turn(role, false).extend(parts);
            self.results = false;
        }
    }

    /// A part of the assistant's.
    fn spoken(&mut self, part: Option<Part<'a>>) {
        let Some(part) = part else {
            return;
        };
        self.settle_signature();
        let last = self.request.turns.last();
        if last.is_none_or(|last| last.role != Role::Assistant) {
            self.show_pictures();
        }
        self.turn(Role::Assistant, true).push(part);
        self.results = false;
    }

    fn flush(&mut self) {
        self.settle_signature();
        self.show_pictures();
    }

    /// A signature that no call came for belongs to the text before it, even if
    /// that has no words.
    fn settle_signature(&mut self) {
        let Some(signature) = self.signature.take() else {
            return;
        };
        let last = self.request.turns.last_mut();
        let Some(turn) = last.filter(|turn| turn.role == Role::Assistant) else {
            return;
        };
        if let Some(Part::Text(text)) = turn.parts.last_mut() {
            text.opaque.get_or_insert(signature);
            return;
        }
        turn.parts.push(Part::Text(Text {
            opaque: Some(signature),
            ..Text::default()
        }));
    }

    fn show_pictures(&mut self) {
        if self.pictures.is_empty() {
            return;
        }
        let parts = std::mem::take(&mut self.pictures);
        self.request.turns.push(Turn {
            role: Role::User,
            parts,
            at: self.at,
        });
        self.results = false;
    }

    fn message(&mut self, item: Value<'a>) -> Result<(), Invalid> {
        let role = string(item, "role").unwrap_or_default();
        if item.some("phase").is_some() {
            self.notes.info(Action::Dropped, "phase");
        }
        let role = match role.plain().as_ref() {
            "user" => Role::User,
            "assistant" => Role::Assistant,
            "system" | "developer" => Role::System,
            other => {
                let path = format!("{}.role", self.path());
                let known = "user, assistant, system or developer";
                return Err(unknown(&path, other, known));
            }
        };
        let parts = self.content(item)?;
        match role {
            Role::System if self.request.turns.is_empty() => self.lead(parts),
            Role::Assistant => {
                for part in parts {
                    self.spoken(Some(part));
                }
            }
            _ => self.say(role, parts),
        }
        Ok(())
    }

    /// System text before everything else.
    fn lead(&mut self, parts: Vec<Part<'a>>) {
        for part in parts {
            if let Part::Text(text) = part {
                self.request.system.push(SystemBlock {
                    text: text.text,
                    cache: text.cache,
                });
            }
        }
    }

    fn content(&mut self, item: Value<'a>) -> Result<Vec<Part<'a>>, Invalid> {
        let path = format!("{}.content", self.path());
        match item.some("content") {
            None => Ok(Vec::new()),
            Some(content) => parts(content, &path),
        }
    }

    /// Reasoning, whose text comes back as a summary when it was another family's:
    /// to that family it is the text again.
    fn reasoning(&mut self, item: Value<'a>) {
        let mut home = None;
        let mut thought = item::thought(item, |data| {
            let (opaque, text) = envelope::inward(data, OpaqueKind::OpenAiEncrypted);
            home = text;
            opaque
        });
        let kind = thought.opaque.as_ref().map(|opaque| opaque.kind);
        let foreign = kind.is_some_and(|kind| kind != OpaqueKind::OpenAiEncrypted);
        let blank = thought.text.is_empty() && thought.summary.is_empty() && home.is_none();
        if blank && kind == Some(OpaqueKind::GeminiSignature) {
            self.settle_signature();
            self.signature = thought.opaque;
            return;
        }
        if foreign {
            let summary = std::mem::take(&mut thought.summary);
            if thought.text.is_empty() {
                thought.text = item::joined(summary, "\n\n");
            }
            if let Some(home) = home {
                thought.text = Str::from(home);
            }
        }
        thought.redacted = kind == Some(OpaqueKind::AnthropicRedacted);
        if !blank || thought.opaque.is_some() {
            self.spoken(Some(Part::Reasoning(thought)));
        }
    }

    fn call(&mut self, item: Value<'a>) -> Result<(), Invalid> {
        let Some(mut call) = item::call(item) else {
            let path = format!("{}.name", self.path());
            return Err(Invalid::request(path, "name is missing"));
        };
        if call.id.is_empty() {
            return Err(self.no_call_id());
        }
        // Taken first: a new turn would give it to the text before.
        call.opaque = self.signature.take();
        self.spoken(Some(Part::Call(call)));
        Ok(())
    }

    fn no_call_id(&self) -> Invalid {
        Invalid::request(format!("{}.call_id", self.path()), "call_id is missing")
    }

    fn result(&mut self, item: Value<'a>, custom: bool) -> Result<(), Invalid> {
        let Some(id) = filled(item, "call_id").and_then(|_| item::call_id(item)) else {
            return Err(self.no_call_id());
        };
        let path = format!("{}.output", self.path());
        let parts = match item.some("output") {
            None => Vec::new(),
            Some(output) if output.is_array() => parts(output, &path)?,
            Some(output) => {
                let text = output.as_str();
                let text = text.unwrap_or_else(|| Str::from(output.raw().as_str().to_owned()));
                vec![Part::Text(Text::new(text))]
            }
        };
        let result = Part::Result(ToolResult {
            id,
            name: filled(item, "name"),
            parts,
            is_error: false,
            custom,
            cache: None,
        });
        let joins = self.results;
        self.turn(Role::User, joins).push(result);
        self.results = true;
        Ok(())
    }

    fn add_tools(&mut self, item: Value<'a>) -> Result<(), Invalid> {
        let path = format!("{}.tools", self.path());
        match item.some("tools") {
            Some(list) => tools::decode(list, &path, &mut self.request.tools, self.notes),
            None => Ok(()),
        }
    }

    fn picture(&mut self, item: Value<'a>) {
        let Some(mut media) = item::picture(item) else {
            return;
        };
        media.path = self.path();
        let path = media.path.clone();
        if self.pictures.is_empty() {
            let said = "[image generated by the assistant]";
            self.pictures.push(Part::Text(Text::new(Str::new(said))));
        }
        self.pictures.push(Part::Media(media));
        let what = "image_generation_call";
        self.notes.warn_at(Action::Coerced, what, path);
    }

    fn mcp_call(&mut self, item: Value<'a>) {
        let word = |name| string(item, name).unwrap_or_default();
        let (server, name) = (word("server_label"), word("name"));
        let said = format!(
            "[called {}.{} with {}: {}]",
            server.plain(),
            name.plain(),
            word("arguments").plain(),
            word("output").plain(),
        );
        let path = self.path();
        self.notes.warn_at(Action::Coerced, "mcp_call", path);
        self.spoken(Some(Part::Text(Text::new(Str::from(said)))));
    }

    /// What stands for the earlier conversation. A text of the gateway's own can be
    /// read; OpenAI's ciphertext can't, and without it the context would be lost.
    fn compaction(&mut self, item: Value<'a>) -> Result<(), Invalid> {
        let data = filled(item, "encrypted_content").unwrap_or_default();
        let (_, text) = envelope::inward(data, OpaqueKind::OpenAiEncrypted);
        let Some(text) = text else {
            return Err(Invalid::unsupported(
                "unsupported_content",
                format!("{}.encrypted_content", self.path()),
                "this compaction was made by OpenAI, and only a model that is served over the \
                 responses protocol can read it",
            ));
        };
        let text = Str::from(format!("Summary of the earlier conversation: {text}"));
        let parts = vec![Part::Text(Text::new(text))];
        match self.request.turns.is_empty() {
            true => self.lead(parts),
            false => self.say(Role::System, parts),
        }
        Ok(())
    }
}

fn unresolved(id: &Str<'_>, path: &str) -> Invalid {
    let id: String = id.plain().chars().take(128).collect();
    Invalid {
        code: Some("item_not_found"),
        ..Invalid::request(
            format!("{path}.id"),
            format!("Item with id '{id}' not found."),
        )
    }
}

/// The content of a message or a result: a string, or parts.
fn parts<'a>(content: Value<'a>, path: &str) -> Result<Vec<Part<'a>>, Invalid> {
    if let Some(text) = content.as_str() {
        return Ok(vec![Part::Text(Text::new(text))]);
    }
    if !content.is_array() {
        return Err(wanted(path, "a string or an array of parts", content));
    }
    let parts = content.items().enumerate();
    parts
        .map(|(index, value)| part(value, path, index))
        .collect()
}

fn part<'a>(value: Value<'a>, path: &str, index: usize) -> Result<Part<'a>, Invalid> {
    let kind = string(value, "type").unwrap_or_default();
    let read = match kind.plain().as_ref() {
        "input_text" | "output_text" | "text" | "summary_text" => {
            string(value, "text").map(|text| {
                Part::Text(Text {
                    text,
                    annotations: item::annotations(value),
                    cache: mark(value),
                    opaque: None,
                })
            })
        }
        "refusal" => string(value, "refusal").map(Part::Refusal),
        "input_image" | "input_file" | "input_audio" | "computer_screenshot" => {
            let path = format!("{path}[{index}]");
            let medium = medium(value, &kind, &path);
            let wrong =
                || Invalid::request(path, "there is no readable URL, data or file_id in it");
            return medium.ok_or_else(wrong).map(Part::Media);
        }
        other => {
            let path = format!("{path}[{index}].type");
            return Err(unknown(&path, other, "a known type of content"));
        }
    };
    read.ok_or_else(|| Invalid::request(format!("{path}[{index}]"), "there is no text in it"))
}

fn medium<'a>(value: Value<'a>, kind: &Str<'_>, path: &str) -> Option<Media<'a>> {
    let (kind, source) = match kind.plain().as_ref() {
        "input_file" => (MediaKind::Document, file(value)?),
        "input_audio" => (MediaKind::Audio, sound(value)?),
        _ => (MediaKind::Image, image(value)?),
    };
    // A file that is named as one may be a picture all the same.
    let kind = match &source {
        Source::Inline { mime, .. } if mime.starts_with("image/") => MediaKind::Image,
        _ => kind,
    };
    Some(Media {
        kind,
        source,
        name: filled(value, "filename"),
        context: None,
        detail: filled(value, "detail"),
        cite: false,
        cache: mark(value),
        path: path.to_owned(),
    })
}

fn by_id<'a>(value: Value<'a>) -> Option<Source<'a>> {
    Some(Source::File {
        id: filled(value, "file_id")?,
    })
}

fn image<'a>(value: Value<'a>) -> Option<Source<'a>> {
    let url = value.some("image_url");
    // Chat has an object here; some clients send it.
    let url = url.and_then(|url| url.as_str().or_else(|| filled(url, "url")));
    match url {
        Some(url) => readable(media::of_url(url, None)),
        None => by_id(value),
    }
}

/// A data URL that could not be taken apart is no URL either.
fn readable(source: Source<'_>) -> Option<Source<'_>> {
    let broken = matches!(&source, Source::Url { url, .. } if url.inner().starts_with("data:"));
    (!broken).then_some(source)
}

fn file<'a>(value: Value<'a>) -> Option<Source<'a>> {
    if let Some(data) = filled(value, "file_data") {
        return Some(media::inline("application/pdf", data));
    }
    match filled(value, "file_url") {
        Some(url) => readable(media::of_url(url, None)),
        None => by_id(value),
    }
}

fn sound<'a>(value: Value<'a>) -> Option<Source<'a>> {
    let sound = value.some("input_audio")?;
    let mime = match string(sound, "format") {
        Some(format) if format.is("mp3") => "audio/mpeg",
        _ => "audio/wav",
    };
    Some(media::inline(mime, filled(sound, "data")?))
}

/// A cache mark.
fn mark(value: Value<'_>) -> Option<Lifetime> {
    let mark = value.some("prompt_cache_breakpoint")?.whole();
    let long = string(mark, "ttl").is_some_and(|ttl| ttl.is("12h"));
    Some(if long {
        Lifetime::Long
    } else {
        Lifetime::Short
    })
}
