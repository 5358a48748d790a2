//! Pictures and documents as blocks.

use crate::protocol::ir::{Invalid, Media, MediaKind, Source};
use crate::protocol::json::{Array, Object, Str};
use crate::protocol::media;
use crate::protocol::notes::Action;

use super::Writer;

/// The types of pictures that Anthropic looks at.
const PICTURES: [&str; 4] = ["image/jpeg", "image/png", "image/gif", "image/webp"];

/// Writes one.
pub(super) fn write(
    medium: &Media<'_>,
    blocks: &mut Array<'_>,
    writer: &mut Writer<'_, '_>,
    marked: bool,
) -> Result<(), Invalid> {
    let source = check(medium, writer)?;
    if medium.detail.is_some() {
        let path = format!("{}.detail", medium.path);
        writer.notes.info(Action::Dropped, path);
    }
    let mut block = blocks.object();
    if medium.kind == MediaKind::Image {
        block.text("type", "image");
    } else {
        block.text("type", "document");
    }
    write_source(block.object("source"), &source);
    if medium.kind != MediaKind::Image {
        if let Some(title) = medium.name.as_ref().filter(|title| !title.is_empty()) {
            block.str("title", title);
        }
        if let Some(context) = medium.context.as_ref().filter(|text| !text.is_empty()) {
            block.str("context", context);
        }
        if medium.cite {
            block.object("citations").bool("enabled", true);
        }
    }
    if marked {
        writer.marks.write(&mut block, medium.cache);
    }
    Ok(())
}

/// A source that can be said.
enum Sayable<'m> {
    Base64(&'m str, &'m Str<'m>),
    Url(&'m Str<'m>),
    Text(Str<'m>),
}

fn write_source(mut object: Object<'_>, source: &Sayable<'_>) {
    match source {
        Sayable::Base64(mime, data) => object
            .text("type", "base64")
            .text("media_type", mime)
            .str("data", data),
        Sayable::Url(url) => object.text("type", "url").str("url", url),
        Sayable::Text(text) => object
            .text("type", "text")
            .text("media_type", "text/plain")
            .str("data", text),
    };
}

fn check<'m>(medium: &'m Media<'_>, writer: &Writer<'_, '_>) -> Result<Sayable<'m>, Invalid> {
    let refuse = |message: String| {
        let message = format!("{}: {message}", medium.path);
        Invalid::unsupported("unsupported_content", medium.path.clone(), message)
    };
    match medium.kind {
        MediaKind::Audio => return Err(refuse("the model does not hear".to_owned())),
        MediaKind::Video => return Err(refuse("the model sees no film".to_owned())),
        MediaKind::Image | MediaKind::Document => {}
    }
    match &medium.source {
        Source::Inline { mime, data } if medium.kind == MediaKind::Image => {
            if !PICTURES.contains(&mime.as_ref()) {
                return Err(refuse(format!("pictures of type {mime:.60} are not read")));
            }
            if data.is_empty() {
                return Err(refuse("the picture is empty".to_owned()));
            }
            if !writer.target.capabilities.image_b64 {
                return Err(refuse("the model looks at no pictures".to_owned()));
            }
            Ok(Sayable::Base64(mime, data))
        }
        Source::Inline { mime, data } if mime == "application/pdf" => {
            if !writer.target.capabilities.pdf {
                return Err(refuse("the model reads no PDF".to_owned()));
            }
            Ok(Sayable::Base64(mime, data))
        }
        Source::Inline { mime, data } if is_text(mime) => {
            let text = media::bytes(data).and_then(|bytes| String::from_utf8(bytes).ok());
            let text = text.ok_or_else(|| refuse("the text is not UTF-8 in base64".to_owned()))?;
            Ok(Sayable::Text(Str::from(text)))
        }
        Source::Inline { mime, .. } => {
            Err(refuse(format!("documents of type {mime:.60} are not read")))
        }
        Source::Url { .. }
            if medium.kind == MediaKind::Image && !writer.target.capabilities.image_url =>
        {
            Err(refuse(
                "the model looks at no pictures behind URLs".to_owned(),
            ))
        }
        Source::Url { url, .. } if url.plain().starts_with("https://") => Ok(Sayable::Url(url)),
        Source::Url { .. } => Err(refuse("only https URLs can be passed on".to_owned())),
        Source::File { .. } => Err(refuse("file_id belongs to another provider".to_owned())),
        Source::Text(text) => Ok(Sayable::Text(text.borrowed())),
    }
}

fn is_text(mime: &str) -> bool {
    let kind = mime.split(';').next().unwrap_or_default();
    let also = ["application/json", "application/xml", "application/yaml"];
    kind.starts_with("text/") || also.contains(&kind)
}
