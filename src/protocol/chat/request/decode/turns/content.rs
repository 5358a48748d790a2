//! A message's content: a string, or an array of parts.

use crate::protocol::chat::request::fields::wrong;
use crate::protocol::ir::{Invalid, Media, MediaKind, Part, Source, Text, Thought};
use crate::protocol::json::{Str, Value};
use crate::protocol::media;

use super::super::mark;
use super::Fields;

/// Content that is text only.
pub(super) fn texts<'a>(message: &Fields<'a>, name: &str) -> Result<Vec<Text<'a>>, Invalid> {
    let parts = read(message, name, |part| match kind(part)?.as_str() {
        "text" | "input_text" => text(part),
        other => Err(unknown(part, other)),
    })?;
    let texts = parts.into_iter().filter_map(|part| match part {
        Part::Text(text) => Some(text),
        _ => None,
    });
    Ok(texts.collect())
}

/// What a user says, or a tool.
pub(super) fn user<'a>(message: &Fields<'a>, name: &str) -> Result<Vec<Part<'a>>, Invalid> {
    read(message, name, |part| match kind(part)?.as_str() {
        "text" | "input_text" => text(part),
        "image_url" => image(part),
        "input_audio" => audio(part),
        "file" => file(part),
        "video_url" => by_url(part, "video_url", MediaKind::Video),
        other => Err(unknown(part, other)),
    })
}

/// What the model said.
pub(super) fn assistant<'a>(message: &Fields<'a>, name: &str) -> Result<Vec<Part<'a>>, Invalid> {
    read(message, name, |part| match kind(part)?.as_str() {
        "text" | "output_text" => text(part),
        "refusal" => Ok(Part::Refusal(part.wanted("refusal")?)),
        "image_url" => image(part),
        "thinking" => Ok(Part::Reasoning(thinking(part))),
        other => Err(unknown(part, other)),
    })
}

fn read<'a>(
    message: &Fields<'a>,
    name: &str,
    part: impl Fn(&Fields<'a>) -> Result<Part<'a>, Invalid>,
) -> Result<Vec<Part<'a>>, Invalid> {
    let Some(content) = message.some(name) else {
        return Ok(Vec::new());
    };
    if let Some(text) = content.as_str() {
        let marked = Text {
            cache: mark(message),
            ..Text::new(text)
        };
        return Ok(vec![Part::Text(marked)]);
    }
    if !content.is_array() {
        return Err(wrong(&message.path(name), "a string or an array", content));
    }
    message.objects(name)?.iter().map(part).collect()
}

fn kind(part: &Fields<'_>) -> Result<String, Invalid> {
    match part.string("type")? {
        Some(kind) => Ok(kind.to_plain_string()),
        None if part.some("text").is_some() => Ok("text".to_owned()),
        None => Err(Invalid::request(
            part.path("type"),
            format!("'{}' is required", part.path("type")),
        )),
    }
}

fn unknown(part: &Fields<'_>, kind: &str) -> Invalid {
    let path = part.path("type");
    Invalid::request(
        path,
        format!("'{kind}' is no type of content that can stand here"),
    )
}

fn text<'a>(part: &Fields<'a>) -> Result<Part<'a>, Invalid> {
    Ok(Part::Text(Text {
        cache: mark(part),
        ..Text::new(part.wanted("text")?)
    }))
}

/// Reasoning among the content, as Mistral has it.
pub(crate) fn thinking_text<'a>(part: Value<'a>) -> Str<'a> {
    let Some(thinking) = part.some("thinking") else {
        return Str::default();
    };
    if let Some(text) = thinking.as_str() {
        return text;
    }
    let pieces = thinking.items();
    let mut pieces = pieces.filter_map(|piece| piece.some("text")?.as_str());
    match (pieces.next(), pieces.next()) {
        (None, _) => Str::default(),
        (Some(only), None) => only,
        (Some(first), Some(second)) => {
            let mut all = first.to_plain_string() + &second.plain();
            pieces.for_each(|piece| all.push_str(&piece.plain()));
            all.into()
        }
    }
}

fn thinking<'a>(part: &Fields<'a>) -> Thought<'a> {
    Thought {
        text: thinking_text(part.value),
        ..Thought::default()
    }
}

fn medium<'a>(part: &Fields<'a>, kind: MediaKind, source: Source<'a>) -> Media<'a> {
    Media {
        kind,
        source,
        name: None,
        context: None,
        detail: None,
        cite: false,
        cache: mark(part),
        path: part.place().to_owned(),
    }
}

/// `{url,detail}`, or the bare URL as some clients send it.
fn image<'a>(part: &Fields<'a>) -> Result<Part<'a>, Invalid> {
    let mut part_read = by_url(part, "image_url", MediaKind::Image)?;
    if let Part::Media(media) = &mut part_read
        && let Some(inner) = part.some("image_url")
    {
        media.detail = inner.some("detail").and_then(|detail| detail.as_str());
    }
    Ok(part_read)
}

fn by_url<'a>(part: &Fields<'a>, name: &str, kind: MediaKind) -> Result<Part<'a>, Invalid> {
    let bare = part.some(name).and_then(|value| value.as_str());
    let url = match (bare, part.object_or_string(name)?) {
        (Some(url), _) => url,
        (None, Some(inner)) => inner.wanted("url")?,
        (None, None) => part.wanted(name)?,
    };
    Ok(Part::Media(medium(part, kind, media::of_url(url, None))))
}

fn audio<'a>(part: &Fields<'a>) -> Result<Part<'a>, Invalid> {
    let Some(inner) = part.object("input_audio")? else {
        let path = part.path("input_audio");
        return Err(Invalid::request(
            path.clone(),
            format!("'{path}' is required"),
        ));
    };
    let format = inner.wanted("format")?;
    let mime = match format.plain().as_ref() {
        "mp3" => "audio/mpeg".to_owned(),
        other => format!("audio/{other}"),
    };
    let source = media::inline(&mime, inner.wanted("data")?);
    Ok(Part::Media(medium(part, MediaKind::Audio, source)))
}

fn file<'a>(part: &Fields<'a>) -> Result<Part<'a>, Invalid> {
    let Some(inner) = part.object("file")? else {
        let path = part.path("file");
        return Err(Invalid::request(
            path.clone(),
            format!("'{path}' is required"),
        ));
    };
    let name = inner.string("filename")?;
    let source = match (inner.string("file_data")?, inner.string("file_id")?) {
        (Some(data), _) => content_of_file(data, name.as_ref()),
        (None, Some(id)) => Source::File { id },
        (None, None) => {
            let path = inner.path("file_data");
            let text = format!("'{path}' or a file_id is required");
            return Err(Invalid::request(path, text));
        }
    };
    let kind = match &source {
        Source::Inline { mime, .. } => media::kind(mime),
        _ => MediaKind::Document,
    };
    Ok(Part::Media(Media {
        name,
        ..medium(part, kind, source)
    }))
}

/// A file's data: a data URL, another URL, or bare base64.
fn content_of_file<'a>(data: Str<'a>, name: Option<&Str<'_>>) -> Source<'a> {
    let head = data.plain();
    let url = ["data:", "http://", "https://"];
    if url.iter().any(|scheme| head.starts_with(scheme)) {
        drop(head);
        return media::of_url(data, None);
    }
    drop(head);
    let name = name.map(Str::to_plain_string).unwrap_or_default();
    let mime = match name.rsplit('.').next() {
        Some("txt" | "md") => "text/plain",
        _ => "application/pdf",
    };
    media::inline(mime, data)
}

/// A picture in an answer: OpenRouter's `images`, or a part of content.
pub(crate) fn medium_of_image<'a>(entry: Value<'a>) -> Option<Media<'a>> {
    let inner = entry.some("image_url")?;
    let url = inner.as_str().or_else(|| inner.some("url")?.as_str())?;
    Some(Media {
        kind: MediaKind::Image,
        source: media::of_url(url, None),
        name: None,
        context: None,
        detail: None,
        cite: false,
        cache: None,
        path: String::new(),
    })
}
