//! Media between a data URL, which is how Responses has them inline, and MIME
//! type and base64 apart.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::protocol::ir::Source;
use crate::protocol::json::Str;

/// Base64 of the first bytes that tell what a file is.
const SNIFFED: usize = 24;

/// The source that a URL is: inline for `data:` URLs, `None` where one is broken.
pub(super) fn source<'a>(url: &Str<'a>) -> Option<Source<'a>> {
    if !begins(url, "data:") {
        return Some(Source::Url {
            url: url.clone(),
            mime: None,
        });
    }
    let plain = url.clone().into_plain();
    let (head, data) = cut(plain, "data:".len())?;
    let mime = head.strip_suffix(";base64")?;
    let mime = mime.split(';').next().unwrap_or_default().to_owned();
    Some(inline(mime.into(), data))
}

/// Inline media without a `data:` prefix, or with one after all.
pub(super) fn bare<'a>(data: &Str<'a>, mime: &'static str) -> Option<Source<'a>> {
    if begins(data, "data:") {
        return source(data);
    }
    Some(inline(mime.into(), data.clone().into_plain()))
}

fn begins(text: &Str<'_>, with: &str) -> bool {
    let inner = text.inner();
    let start = inner.get(..with.len());
    start.is_some_and(|start| start.eq_ignore_ascii_case(with))
}

/// What stands between `from` and the first comma, and what is behind it.
fn cut(text: Cow<'_, str>, from: usize) -> Option<(String, Cow<'_, str>)> {
    let comma = memchr::memchr(b',', text.as_bytes())?;
    let head = text.get(from..comma)?.to_ascii_lowercase();
    let data = match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.get(comma + 1..)?),
        Cow::Owned(text) => Cow::Owned(text.get(comma + 1..)?.to_owned()),
    };
    Some((head, data))
}

fn inline<'a>(mime: Cow<'a, str>, data: Cow<'a, str>) -> Source<'a> {
    let data = match data.bytes().any(|byte| byte.is_ascii_whitespace()) {
        true => {
            let kept = |letter: &char| !letter.is_ascii_whitespace();
            Cow::Owned(data.chars().filter(kept).collect())
        }
        false => data,
    };
    let mime = match sniff(&data) {
        Some(found) => found.into(),
        None => mime,
    };
    Source::Inline {
        mime,
        data: data.into(),
    }
}

/// What the first bytes say that a file is: clients often name another type.
fn sniff(data: &str) -> Option<&'static str> {
    let head = data.get(..SNIFFED)?;
    let bytes = STANDARD.decode(head).ok()?;
    let riff = |kind: &[u8]| bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(kind);
    match bytes.as_slice() {
        [0x89, b'P', b'N', b'G', ..] => Some("image/png"),
        [0xFF, 0xD8, 0xFF, ..] => Some("image/jpeg"),
        [b'G', b'I', b'F', b'8', ..] => Some("image/gif"),
        [b'%', b'P', b'D', b'F', b'-', ..] => Some("application/pdf"),
        _ if riff(b"WEBP") => Some("image/webp"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inline_of(url: &str) -> Option<(String, String)> {
        match source(&Str::new(url))? {
            Source::Inline { mime, data } => Some((mime.into_owned(), data.to_plain_string())),
            _ => None,
        }
    }

    #[test]
    fn a_type_that_the_first_bytes_deny_is_put_right() {
        let jpeg = STANDARD.encode([
            0xFF, 0xD8, 0xFF, 0xE0, 0, 16, 74, 70, 73, 70, 0, 1, 1, 0, 0, 1, 0, 1, 0, 0,
        ]);
        let read = inline_of(&format!("data:image/png;base64,{jpeg}")).unwrap();
        assert_eq!(read, ("image/jpeg".to_owned(), jpeg));
    }

    #[test]
    fn white_space_and_parameters_go() {
        let read = inline_of("DATA:Image/Gif;name=x;base64,AA\n AA").unwrap();
        assert_eq!(read, ("image/gif".to_owned(), "AAAA".to_owned()));
        assert_eq!(inline_of("data:image/png,AAAA"), None);
        assert_eq!(inline_of("data:"), None);
        assert!(matches!(
            source(&Str::new("https://x/y.png")),
            Some(Source::Url { .. })
        ));
    }
}
