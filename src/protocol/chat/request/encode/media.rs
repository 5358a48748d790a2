//! Pictures, sound and documents in a user's message.

use crate::protocol::ir::{Invalid, Media, MediaKind, Source};
use crate::protocol::json::{Array, Object, Str};
use crate::protocol::media;

use super::Scope;

/// The text that a document comes to where it is text; `None` for other media.
pub(super) fn as_text(medium: &Media<'_>) -> Option<String> {
    let text = match &medium.source {
        Source::Text(text) => text.to_plain_string(),
        Source::Inline { mime, data } if is_text(mime) => {
            String::from_utf8(media::bytes(data)?).ok()?
        }
        _ => return None,
    };
    let context = medium.context.as_ref().map(Str::plain).unwrap_or_default();
    let mut out = String::with_capacity(text.len() + context.len() + 64);
    if let Some(name) = &medium.name {
        out.push_str(&format!("[{}]\n", name.plain()));
    }
    if !context.is_empty() {
        out.push_str(&context);
        out.push('\n');
    }
    out.push_str(&text);
    Some(out)
}

fn is_text(mime: &str) -> bool {
    mime.starts_with("text/") || mime == "application/json"
}

/// Refuses what the provider can't be shown.
pub(super) fn check(scope: &Scope<'_, '_>, medium: &Media<'_>) -> Result<(), Invalid> {
    let capabilities = scope.target.capabilities;
    let inline = matches!(medium.source, Source::Inline { .. });
    if matches!(medium.source, Source::File { .. }) {
        return Err(refusal(medium, "file_id belongs to another provider"));
    }
    let able = match medium.kind {
        MediaKind::Image if inline => capabilities.image_b64,
        MediaKind::Image => capabilities.image_url,
        MediaKind::Audio => capabilities.audio && inline,
        MediaKind::Video => false,
        MediaKind::Document => capabilities.pdf && inline,
    };
    if !able {
        let model = scope.target.model;
        let what = what(medium);
        let message = format!("{what} can't be shown to the model '{model}' over chat");
        return Err(refusal(medium, &message));
    }
    match &medium.source {
        Source::Inline { mime, .. } if medium.kind == MediaKind::Audio => {
            match audio_format(mime) {
                Some(_) => Ok(()),
                None => {
                    let message =
                        format!("sound of type {mime} can't be sent over chat; use wav or mp3");
                    Err(refusal(medium, &message))
                }
            }
        }
        _ => Ok(()),
    }
}

fn refusal(medium: &Media<'_>, message: &str) -> Invalid {
    Invalid::unsupported("unsupported_content", medium.path.clone(), message)
}

/// What a medium is, for messages.
fn what(medium: &Media<'_>) -> String {
    let place = match medium.source {
        Source::Url { .. } => " behind a URL",
        _ => "",
    };
    let kind = match medium.kind {
        MediaKind::Image => "a picture",
        MediaKind::Audio => "sound",
        MediaKind::Video => "film",
        MediaKind::Document => "a document",
    };
    format!("{kind}{place}")
}

fn audio_format(mime: &str) -> Option<&'static str> {
    match mime {
        "audio/wav" | "audio/x-wav" | "audio/wave" => Some("wav"),
        "audio/mpeg" | "audio/mp3" => Some("mp3"),
        _ => None,
    }
}

/// Writes a medium that was checked.
pub(super) fn write(medium: &Media<'_>, content: &mut Array<'_>) {
    let mut part = content.object();
    match (medium.kind, &medium.source) {
        (MediaKind::Audio, Source::Inline { mime, data }) => {
            part.text("type", "input_audio");
            let mut inner = part.object("input_audio");
            inner.str("data", data);
            inner.text("format", audio_format(mime).unwrap_or("wav"));
        }
        (MediaKind::Document, Source::Inline { mime, data }) => {
            part.text("type", "file");
            let mut inner = part.object("file");
            match &medium.name {
                Some(name) => inner.str("filename", name),
                None => inner.text("filename", "document.pdf"),
            };
            data_url(&mut inner, "file_data", mime, data);
        }
        (_, source) => {
            part.text("type", "image_url");
            let mut inner = part.object("image_url");
            match source {
                Source::Inline { mime, data } => data_url(&mut inner, "url", mime, data),
                Source::Url { url, .. } => _ = inner.str("url", url),
                Source::File { id } => _ = inner.str("url", id),
                Source::Text(text) => _ = inner.str("url", text),
            }
            if let Some(detail) = &medium.detail {
                inner.str("detail", detail);
            }
        }
    }
}

/// Writes a member that is a data URL, without an intermediate copy of the data.
pub(crate) fn data_url(object: &mut Object<'_>, name: &str, mime: &str, data: &Str<'_>) {
    let out = object.key(name);
    out.extend_from_slice(b"\"data:");
    out.extend_from_slice(Str::new(mime).inner().as_bytes());
    out.extend_from_slice(b";base64,");
    out.extend_from_slice(data.inner().as_bytes());
    out.extend_from_slice(b"\"");
}
