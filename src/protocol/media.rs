//! Media inside a document: data URLs taken apart, and what base64 really holds.

use std::borrow::Cow;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::ir::{MediaKind, Source};
use super::json::Str;

/// Base64 characters that are looked at to tell a type: 24 bytes.
const HEAD: usize = 32;

/// Padding is left out by many; what is cut from the front has none anyway.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// Types by the bytes that they begin with.
const MAGIC: [(&[u8], &str); 12] = [
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"BM", "image/bmp"),
    (b"II*\0", "image/tiff"),
    (b"MM\0*", "image/tiff"),
    (b"%PDF-", "application/pdf"),
    (b"ID3", "audio/mpeg"),
    (b"\xff\xfb", "audio/mpeg"),
    (b"OggS", "audio/ogg"),
    (b"fLaC", "audio/flac"),
];

/// The source behind a URL: what a data URL holds, or the URL itself.
#[must_use]
pub fn of_url<'a>(url: Str<'a>, mime: Option<Str<'a>>) -> Source<'a> {
    let Some((head, data)) = data_url(&url) else {
        return Source::Url { url, mime };
    };
    let told = head.get(5..).and_then(|head| head.split(';').next());
    let told = told.filter(|told| !told.is_empty());
    inline(told.unwrap_or("application/octet-stream"), data)
}

/// Head (`data:image/png;base64`) and data of a data URL in base64.
fn data_url<'a>(url: &Str<'a>) -> Option<(String, Str<'a>)> {
    let (head, data) = url.split_once(',')?;
    let head = head.plain().trim().to_ascii_lowercase();
    let ours = head.starts_with("data:") && head.ends_with(";base64");
    ours.then_some((head, data))
}

/// Base64 with the type that somebody says it has. The type is corrected where
/// the first bytes say otherwise; white space and the URL-safe alphabet are
/// brought into standard form, a `data:` prefix is taken off.
#[must_use]
pub fn inline<'a>(mime: &str, data: Str<'a>) -> Source<'a> {
    if let Some((_, inner)) = data_url(&data) {
        return inline(mime, inner);
    }
    let data = standard(data);
    let mime = mime.trim().to_ascii_lowercase();
    let mime = match sniff(&data) {
        Some(found) => agreed(mime, found),
        None => plain_name(mime),
    };
    Source::Inline { mime, data }
}

/// What kind of medium a type is.
#[must_use]
pub fn kind(mime: &str) -> MediaKind {
    match mime.split('/').next() {
        Some("image") => MediaKind::Image,
        Some("audio") => MediaKind::Audio,
        Some("video") => MediaKind::Video,
        _ => MediaKind::Document,
    }
}

/// What base64 holds, padded or not.
#[must_use]
pub fn bytes(data: &Str<'_>) -> Option<Vec<u8>> {
    LENIENT.decode(data.plain().as_bytes()).ok()
}

/// The type that the first bytes tell, if they tell one.
fn sniff(data: &Str<'_>) -> Option<&'static str> {
    let inner = data.inner();
    let head: Vec<u8> = inner
        .bytes()
        .filter(|byte| *byte != b'\\')
        .take(HEAD)
        .collect();
    let whole = head.get(..head.len() - head.len() % 4)?;
    let head = LENIENT.decode(whole).ok()?;
    let of_container = |at: usize| head.get(at..at + 4);
    if head.starts_with(b"RIFF") {
        return match of_container(8)? {
            b"WEBP" => Some("image/webp"),
            b"WAVE" => Some("audio/wav"),
            b"AVI " => Some("video/avi"),
            _ => None,
        };
    }
    let magic = MAGIC.iter().find(|(magic, _)| head.starts_with(magic));
    magic.map(|(_, mime)| *mime)
}

/// The type that was told where the bytes agree with it, else theirs. `audio/mp3`
/// and `audio/mpeg` are one.
fn agreed(told: String, found: &'static str) -> Cow<'static, str> {
    let same = told == found || kind(&told) == kind(found) && kind(found) == MediaKind::Audio;
    if same {
        plain_name(told)
    } else {
        Cow::Borrowed(found)
    }
}

fn plain_name(mime: String) -> Cow<'static, str> {
    if mime == "image/jpg" {
        return Cow::Borrowed("image/jpeg");
    }
    Cow::Owned(mime)
}

fn standard(data: Str<'_>) -> Str<'_> {
    let inner = data.inner();
    let odd = |byte: u8| matches!(byte, b'\\' | b' ' | b'-' | b'_');
    if !inner.bytes().any(odd) {
        return data;
    }
    let mut text: String = data.plain().split_ascii_whitespace().collect();
    if text.contains(['-', '_']) {
        text = text.replace('-', "+").replace('_', "/");
        let short = (4 - text.trim_end_matches('=').len() % 4) % 4;
        let body = text.trim_end_matches('=').len();
        text.truncate(body);
        text.push_str(["", "=", "==", ""][short % 4]);
    }
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(source: &Source<'_>) -> (String, String) {
        match source {
            Source::Inline { mime, data } => (mime.to_string(), data.to_plain_string()),
            other => (String::new(), format!("{other:?}")),
        }
    }

    #[test]
    fn the_bytes_say_what_a_picture_is() {
        for (told, data, wanted) in [
            ("image/png", "/9j/4AAQSkZJRgABAQ==", "image/jpeg"),
            ("image/jpg", "/9j/4AAQSkZJRgABAQ==", "image/jpeg"),
            ("image/jpeg", "iVBORw0KGgoAAAANSUhEUg==", "image/png"),
            ("image/png", "Qk1GAAAAAAAAADYAAAA=", "image/bmp"),
            ("image/png", "UklGRiQAAABXRUJQVlA4IA==", "image/webp"),
            ("text/plain", "aGVsbG8=", "text/plain"),
            (
                "application/octet-stream",
                "JVBERi0xLjQK",
                "application/pdf",
            ),
            ("audio/mp3", "SUQzBAAAAAA=", "audio/mp3"),
        ] {
            let (mime, kept) = read(&inline(told, Str::new(data)));
            assert_eq!((mime.as_str(), kept.as_str()), (wanted, data), "{told}");
        }
    }

    #[test]
    fn data_urls_are_taken_apart_and_others_are_kept() {
        let url = Str::new("data:image/png;charset=x;base64,iVBORw0KGgo=");
        assert_eq!(
            read(&of_url(url, None)),
            ("image/png".into(), "iVBORw0KGgo=".into())
        );
        let url = Str::new("https://example.org/a,b.png");
        assert!(matches!(of_url(url, None), Source::Url { .. }));
    }

    #[test]
    fn base64_is_brought_into_standard_form() {
        for (data, wanted) in [
            ("aG Vs\nbG8=", "aGVsbG8="),
            ("_9j_4AAQSkZJRgABAQ", "/9j/4AAQSkZJRgABAQ=="),
            ("data:image/png;base64,aGVsbG8=", "aGVsbG8="),
        ] {
            assert_eq!(read(&inline("text/plain", Str::new(data))).1, wanted);
        }
    }
}
