//! Media: base64 with a type, or a URI.

use std::borrow::Cow;

use super::spelling;
use crate::protocol::ir::{MediaKind, Source};
use crate::protocol::json::{Object, Str, Value};
use crate::protocol::media as shared;

/// `inlineData` could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unreadable;

/// A medium in the document, and whether its type had to be corrected.
pub(super) struct Inline<'a> {
    pub(super) kind: MediaKind,
    pub(super) source: Source<'a>,
    pub(super) corrected: bool,
}

/// Reads `inlineData`: either alphabet, white space and a `data:` prefix allowed.
pub(super) fn decode_inline(inline: Value<'_>) -> Result<Inline<'_>, Unreadable> {
    let data = spelling::find(inline, "data").and_then(|data| data.as_str());
    let told = spelling::text(inline, "mimeType").map(Str::into_plain);
    let told = told.unwrap_or(Cow::Borrowed("application/octet-stream"));
    let source = shared::inline(&told, data.ok_or(Unreadable)?);
    let Source::Inline { mime, data } = &source else {
        return Err(Unreadable);
    };
    let kind = shared::kind(mime);
    let corrected = !mime.eq_ignore_ascii_case(&told);
    let text = (kind == MediaKind::Document && mime.starts_with("text/"))
        .then(|| String::from_utf8(shared::bytes(data)?).ok())
        .flatten();
    Ok(Inline {
        kind,
        source: match text {
            Some(text) => Source::Text(text.into()),
            None => source,
        },
        corrected,
    })
}

/// Reads `fileData`.
pub(super) fn decode_file(file: Value<'_>) -> Option<(MediaKind, Source<'_>)> {
    let uri = spelling::text(file, "fileUri")?;
    let mime = spelling::text(file, "mimeType");
    let kind = match &mime {
        Some(mime) => shared::kind(&mime.plain()),
        None if is_youtube(&uri.plain()) => MediaKind::Video,
        None => kind_of_name(&uri.plain()),
    };
    let source = if is_web(&uri.plain()) && !is_googles(&uri.plain()) {
        Source::Url { url: uri, mime }
    } else {
        Source::File { id: uri }
    };
    Some((kind, source))
}

/// The kind that the end of a name speaks of.
fn kind_of_name(uri: &str) -> MediaKind {
    let path = uri.split(['?', '#']).next().unwrap_or_default();
    let end = path.rsplit('.').next().unwrap_or_default();
    match end.to_ascii_lowercase().as_str() {
        "png" | "jpg" | "jpeg" | "gif" | "webp" | "heic" | "heif" | "avif" => MediaKind::Image,
        "mp3" | "wav" | "flac" | "ogg" | "aac" | "m4a" => MediaKind::Audio,
        "mp4" | "mov" | "webm" | "mkv" | "avi" | "mpeg" | "mpg" => MediaKind::Video,
        _ => MediaKind::Document,
    }
}

fn is_web(uri: &str) -> bool {
    let scheme = uri.split("://").next().unwrap_or_default();
    scheme.eq_ignore_ascii_case("https") || scheme.eq_ignore_ascii_case("http")
}

fn host(uri: &str) -> String {
    let rest = uri.split_once("://").map_or("", |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    authority.to_ascii_lowercase()
}

fn is_googles(uri: &str) -> bool {
    host(uri) == "generativelanguage.googleapis.com"
}

fn is_youtube(uri: &str) -> bool {
    matches!(
        host(uri).as_str(),
        "youtube.com" | "www.youtube.com" | "m.youtube.com" | "youtu.be"
    )
}

/// Whether Google fetches that URI by itself.
pub(super) fn is_fetched_by_google(uri: &str) -> bool {
    uri.starts_with("gs://") || is_googles(uri) && is_web(uri) || is_youtube(uri) && is_web(uri)
}

/// Writes the member `inlineData`.
pub(super) fn encode_inline(part: &mut Object<'_>, mime: &str, data: &Str<'_>) {
    let mut inline = part.object("inlineData");
    inline.text("mimeType", mime).str("data", data);
}

/// Writes the member `fileData`.
pub(super) fn encode_file(part: &mut Object<'_>, uri: &Str<'_>, mime: Option<&Str<'_>>) {
    let mut file = part.object("fileData");
    if let Some(mime) = mime {
        file.str("mimeType", mime);
    }
    file.str("fileUri", uri);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::json::Tape;

    fn inline(text: &str) -> Option<(String, String, bool)> {
        let mut tape = Tape::new();
        let read = decode_inline(tape.parse(text).unwrap()).ok()?;
        let Source::Inline { mime, data } = read.source else {
            return None;
        };
        Some((mime.into_owned(), data.to_plain_string(), read.corrected))
    }

    #[test]
    fn base64_of_either_alphabet_becomes_standard() {
        let (mime, data, corrected) =
            inline(r#"{"mime_type":"audio/wav","data":"ab-_\nc\/Q"}"#).unwrap();
        assert_eq!((mime.as_str(), data.as_str()), ("audio/wav", "ab+/c/Q="));
        assert!(!corrected);
        let (_, data, _) =
            inline(r#"{"mimeType":"audio/wav","data":"data:a/b;base64,AAAA"}"#).unwrap();
        assert_eq!(data, "AAAA");
        assert!(inline(r#"{"mimeType":"audio/wav"}"#).is_none());
    }

    #[test]
    fn the_first_bytes_know_the_type_better() {
        let text = r#"{"mimeType":"image/png","data":"/9j/4AAQSkZJRgABAQ=="}"#;
        let (mime, _, corrected) = inline(text).unwrap();
        assert_eq!((mime.as_str(), corrected), ("image/jpeg", true));
    }

    #[test]
    fn plain_text_is_text() {
        let mut tape = Tape::new();
        let root = tape
            .parse(r#"{"mimeType":"text/plain","data":"aMOp"}"#)
            .unwrap();
        let read = decode_inline(root).ok().unwrap();
        assert!(matches!(read.source, Source::Text(text) if text.is("hé")));
    }

    #[test]
    fn google_fetches_only_what_it_knows() {
        for known in [
            "gs://bucket/x.png",
            "https://generativelanguage.googleapis.com/v1beta/files/abc",
            "https://www.youtube.com/watch?v=x",
            "https://youtu.be/x",
        ] {
            assert!(is_fetched_by_google(known), "{known}");
        }
        for unknown in [
            "https://example.com/a.png",
            "https://youtube.com.evil.org/",
            "file-123",
        ] {
            assert!(!is_fetched_by_google(unknown), "{unknown}");
        }
    }
}
