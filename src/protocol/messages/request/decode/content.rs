//! The blocks of a conversation in Messages, read in their order.

use std::fmt;

use crate::protocol::envelope;
use crate::protocol::ir::{
    Arguments, Call, Invalid, Media, MediaKind, OpaqueKind, Part, Source, Text, Thought, ToolResult,
};
use crate::protocol::json::{Raw, Str, Value};
use crate::protocol::media;
use crate::protocol::messages::{arguments, citation, hosted};
use crate::protocol::notes::{Action, Notes};

use super::{mark, unexpected};

/// Where a block stands, in the client's words once that is asked for.
#[derive(Clone, Copy)]
struct Place {
    turn: usize,
    part: usize,
    inner: Option<usize>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "messages[{}].content[{}]", self.turn, self.part)?;
        match self.inner {
            Some(inner) => write!(f, ".content[{inner}]"),
            None => Ok(()),
        }
    }
}

impl Place {
    fn field(self, name: &str) -> String {
        format!("{self}.{name}")
    }
}

/// Reads the content of a message: a string, or blocks.
pub(super) fn parts<'a>(
    content: Value<'a>,
    turn: usize,
    notes: &mut Notes,
) -> Result<Vec<Part<'a>>, Invalid> {
    if let Some(text) = content.as_str() {
        return Ok(vec![Part::Text(Text::new(text))]);
    }
    if !content.is_array() {
        let path = format!("messages[{turn}].content");
        return Err(unexpected(path, "a string or an array", content));
    }
    let mut reader = Reader {
        parts: Vec::new(),
        uses: Vec::new(),
        signed: false,
        notes,
    };
    for (part, block) in content.items().enumerate() {
        let place = Place {
            turn,
            part,
            inner: None,
        };
        reader.block(block, place)?;
    }
    let mut parts = reader.parts;
    if reader.signed {
        hand_on_signatures(&mut parts);
    }
    Ok(parts)
}

struct Reader<'a, 'n> {
    parts: Vec<Part<'a>>,
    /// Calls of hosted tools, and at which part they stand.
    uses: Vec<(usize, Value<'a>)>,
    /// Whether there is a signature of Gemini's without text of its own.
    signed: bool,
    notes: &'n mut Notes,
}

impl<'a> Reader<'a, '_> {
    fn block(&mut self, block: Value<'a>, place: Place) -> Result<(), Invalid> {
        let kind = block.some("type").and_then(|kind| kind.as_str());
        let Some(kind) = kind else {
            return Err(unknown(block, place));
        };
        match kind.plain().as_ref() {
            "tool_use" => {
                let call = call(block, place)?;
                self.parts.push(Part::Call(call));
            }
            "tool_result" => {
                let result = self.result(block, place)?;
                self.parts.push(Part::Result(result));
            }
            "thinking" => self.thinking(block, place)?,
            "redacted_thinking" => self.redacted(block, place)?,
            "compaction" => self.compaction(block),
            kind if hosted::is_use(kind) => {
                self.uses.push((self.parts.len(), block));
                let part = hosted::decode(Some(block), None);
                self.parts.push(Part::Hosted(part));
            }
            kind if hosted::is_result(kind) => self.hosted_result(block),
            kind => self.said(kind, block, place)?,
        }
        Ok(())
    }

    /// Blocks that the results of tools may hold too.
    fn said(&mut self, kind: &str, block: Value<'a>, place: Place) -> Result<(), Invalid> {
        match kind {
            "text" => {
                let text = text(block, place)?;
                self.parts.push(Part::Text(text));
            }
            "image" => {
                let image = image(block, place)?;
                self.parts.push(Part::Media(image));
            }
            "document" => self.document(block, place)?,
            "search_result" => self.search_result(block, place)?,
            "container_upload" => {
                let source = Source::File {
                    id: field(block, "file_id", place)?,
                };
                let media = medium(MediaKind::Document, source, block, place);
                self.parts.push(Part::Media(media));
            }
            "tool_reference" => {
                let name = field(block, "tool_name", place)?;
                let said = format!("Tool available: {}", name.plain());
                let text = Text::new(Str::from(said));
                self.parts.push(Part::Text(text));
            }
            _ => return Err(unknown(block, place)),
        }
        Ok(())
    }

    fn thinking(&mut self, block: Value<'a>, place: Place) -> Result<(), Invalid> {
        let mut thought = Thought {
            text: field(block, "thinking", place)?,
            ..Thought::default()
        };
        let signature = block.some("signature").and_then(|blob| blob.as_str());
        if let Some(signature) = signature.filter(|blob| !blob.is_empty()) {
            let (opaque, home) = envelope::inward(signature, OpaqueKind::AnthropicSignature);
            if thought.text.is_empty() {
                thought.text = home.map(Str::from).unwrap_or_default();
            }
            thought.opaque = Some(opaque);
        }
        self.thought(thought);
        Ok(())
    }

    fn redacted(&mut self, block: Value<'a>, place: Place) -> Result<(), Invalid> {
        let data = field(block, "data", place)?;
        let (opaque, home) = envelope::inward(data, OpaqueKind::AnthropicRedacted);
        self.thought(Thought {
            text: home.map(Str::from).unwrap_or_default(),
            redacted: opaque.kind == OpaqueKind::AnthropicRedacted,
            opaque: Some(opaque),
            summary: Vec::new(),
        });
        Ok(())
    }

    fn thought(&mut self, mut thought: Thought<'a>) {
        match thought.opaque.as_ref().map(|opaque| opaque.kind) {
            // OpenAI shows no more of its reasoning than a summary.
            Some(OpaqueKind::OpenAiEncrypted) if !thought.text.is_empty() => {
                thought.summary.push(std::mem::take(&mut thought.text));
            }
            Some(OpaqueKind::GeminiSignature) if thought.text.is_empty() => self.signed = true,
            _ => {}
        }
        self.parts.push(Part::Reasoning(thought));
    }

    /// The summary that a conversation was cut down to.
    fn compaction(&mut self, block: Value<'a>) {
        let told = block.some("content").and_then(|text| text.as_str());
        if let Some(summary) = told.filter(|text| !text.is_blank()) {
            let said = format!("Summary of the earlier conversation: {}", summary.plain());
            self.parts.push(Part::Text(Text {
                cache: mark(block),
                ..Text::new(Str::from(said))
            }));
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

    fn result(&mut self, block: Value<'a>, place: Place) -> Result<ToolResult<'a>, Invalid> {
        let mut inside = Reader {
            parts: Vec::new(),
            uses: Vec::new(),
            signed: false,
            notes: &mut *self.notes,
        };
        match block.some("content") {
            None => {}
            Some(content) if content.is_array() => {
                for (at, block) in content.items().enumerate() {
                    let place = Place {
                        inner: Some(at),
                        ..place
                    };
                    let kind = block.some("type").and_then(|kind| kind.as_str());
                    let kind = kind.ok_or_else(|| unknown(block, place))?;
                    inside.said(&kind.plain(), block, place)?;
                }
            }
            Some(content) => {
                let text = content.as_str().ok_or_else(|| {
                    unexpected(place.field("content"), "a string or an array", content)
                })?;
                inside.parts.push(Part::Text(Text::new(text)));
            }
        }
        if inside.parts.is_empty() {
            inside.parts.push(Part::Text(Text::default()));
        }
        Ok(ToolResult {
            id: field(block, "tool_use_id", place)?,
            name: None,
            parts: inside.parts,
            is_error: block.some("is_error").and_then(|error| error.as_bool()) == Some(true),
            custom: false,
            cache: mark(block),
        })
    }

    fn document(&mut self, block: Value<'a>, place: Place) -> Result<(), Invalid> {
        let source = block
            .some("source")
            .ok_or_else(|| missing(place, "source"))?;
        let kind = source.some("type").and_then(|kind| kind.as_str());
        if kind.is_some_and(|kind| kind.is("content")) {
            return self.document_of_blocks(block, source, place);
        }
        let source = self::source(source, place)?;
        let kind = match &source {
            Source::Inline { mime, .. } => media::kind(mime),
            _ => MediaKind::Document,
        };
        let media = medium(kind, source, block, place);
        self.parts.push(Part::Media(media));
        Ok(())
    }

    /// A document that is text and pictures: its text, and then the pictures.
    fn document_of_blocks(
        &mut self,
        block: Value<'a>,
        source: Value<'a>,
        place: Place,
    ) -> Result<(), Invalid> {
        let content = source.some("content");
        let content = content.ok_or_else(|| missing(place, "source.content"))?;
        let mut whole = content.as_str().map(|text| vec![text]).unwrap_or_default();
        let mut pictures = Vec::new();
        for inner in content.items() {
            match inner.some("text").and_then(|text| text.as_str()) {
                Some(text) => whole.push(text),
                None => pictures.push(Part::Media(image(inner, place)?)),
            }
        }
        let text = match whole.len() {
            1 => whole.pop().unwrap_or_default(),
            _ => joined(&whole, "\n\n"),
        };
        let media = medium(MediaKind::Document, Source::Text(text), block, place);
        self.parts.push(Part::Media(media));
        self.parts.extend(pictures);
        Ok(())
    }

    /// Something the client found itself; elsewhere that is text.
    fn search_result(&mut self, block: Value<'a>, place: Place) -> Result<(), Invalid> {
        let mut said = vec![
            field(block, "title", place)?,
            field(block, "source", place)?,
        ];
        let content = block.some("content");
        for inner in content.iter().flat_map(Value::items) {
            said.extend(inner.some("text").and_then(|text| text.as_str()));
        }
        if asks_for_citations(block) {
            let path = place.field("citations");
            self.notes
                .warn_at(Action::Dropped, "search_result.citations", path);
        }
        self.parts.push(Part::Text(Text {
            cache: mark(block),
            ..Text::new(joined(&said, "\n"))
        }));
        Ok(())
    }
}

/// Gives signatures that came in blocks of their own back to the calls behind
/// them, from which they were taken.
fn hand_on_signatures(parts: &mut Vec<Part<'_>>) {
    for at in (0..parts.len()).rev() {
        let bare = matches!(parts.get(at), Some(Part::Reasoning(thought)) if is_bare(thought));
        let unsigned = matches!(parts.get(at + 1), Some(Part::Call(call)) if call.opaque.is_none());
        if !bare || !unsigned {
            continue;
        }
        let Part::Reasoning(thought) = parts.remove(at) else {
            continue;
        };
        if let Some(Part::Call(call)) = parts.get_mut(at) {
            call.opaque = thought.opaque;
        }
    }
}

/// Whether it is nothing but a signature of Gemini's.
fn is_bare(thought: &Thought<'_>) -> bool {
    let kind = thought.opaque.as_ref().map(|opaque| opaque.kind);
    kind == Some(OpaqueKind::GeminiSignature) && thought.text.is_empty()
}

fn missing(place: Place, name: &str) -> Invalid {
    let path = place.field(name);
    Invalid::request(path.clone(), format!("{path}: Field required"))
}

fn unknown(block: Value<'_>, place: Place) -> Invalid {
    let path = place.field("type");
    let found = match block.some("type").and_then(|kind| kind.as_str()) {
        Some(kind) => format!("'{:.60}'", kind.plain()),
        None => "nothing".to_owned(),
    };
    let message = format!("{path}: {found} is no block that can be translated");
    Invalid::request(path, message)
}

fn field<'a>(block: Value<'a>, name: &str, place: Place) -> Result<Str<'a>, Invalid> {
    let value = block.some(name).ok_or_else(|| missing(place, name))?;
    super::string(value, || place.field(name))
}

fn joined<'a>(texts: &[Str<'_>], between: &str) -> Str<'a> {
    let plain: Vec<_> = texts.iter().map(Str::plain).collect();
    Str::from(plain.join(between))
}

fn text<'a>(block: Value<'a>, place: Place) -> Result<Text<'a>, Invalid> {
    let citations = block.some("citations");
    Ok(Text {
        text: field(block, "text", place)?,
        annotations: citations
            .iter()
            .flat_map(Value::items)
            .filter_map(citation::decode)
            .collect(),
        cache: mark(block),
        opaque: None,
    })
}

fn call<'a>(block: Value<'a>, place: Place) -> Result<Call<'a>, Invalid> {
    let input = block.get("input");
    Ok(Call {
        id: field(block, "id", place)?,
        name: field(block, "name", place)?,
        namespace: None,
        arguments: input.map_or(Arguments::Object(Raw::EMPTY_OBJECT), arguments::of_value),
        opaque: None,
        cache: mark(block),
    })
}

fn image<'a>(block: Value<'a>, place: Place) -> Result<Media<'a>, Invalid> {
    let source = block
        .some("source")
        .ok_or_else(|| missing(place, "source"))?;
    let source = self::source(source, place)?;
    if let Source::Inline { data, .. } = &source
        && data.is_empty()
    {
        let path = place.field("source.data");
        return Err(Invalid::request(path.clone(), format!("{path}: is empty")));
    }
    Ok(medium(MediaKind::Image, source, block, place))
}

fn source<'a>(source: Value<'a>, place: Place) -> Result<Source<'a>, Invalid> {
    let told = |name: &str| {
        let value = source.some(name);
        let value = value.ok_or_else(|| missing(place, &format!("source.{name}")))?;
        super::string(value, || place.field(&format!("source.{name}")))
    };
    let kind = told("type")?;
    match kind.plain().as_ref() {
        "base64" => {
            let mime = told("media_type")?;
            Ok(media::inline(&mime.plain(), told("data")?))
        }
        "url" => Ok(media::of_url(told("url")?, None)),
        "file" => Ok(Source::File {
            id: told("file_id")?,
        }),
        "text" => {
            // There is but one.
            source.skip("media_type");
            Ok(Source::Text(told("data")?))
        }
        other => {
            let path = place.field("source.type");
            let message = format!("{path}: '{other:.60}' is no source that can be translated");
            Err(Invalid::request(path, message))
        }
    }
}

fn asks_for_citations(block: Value<'_>) -> bool {
    let enabled = block
        .some("citations")
        .and_then(|asked| asked.some("enabled"));
    enabled.and_then(|enabled| enabled.as_bool()) == Some(true)
}

fn medium<'a>(kind: MediaKind, source: Source<'a>, block: Value<'a>, place: Place) -> Media<'a> {
    let told = |name: &str| block.some(name).and_then(|text| text.as_str());
    Media {
        kind,
        source,
        name: told("title"),
        context: told("context"),
        detail: None,
        cite: asks_for_citations(block),
        cache: mark(block),
        path: place.to_string(),
    }
}
