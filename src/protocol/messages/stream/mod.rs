//! Streams in Messages: read from a provider, written for a client.
//! <https://docs.anthropic.com/en/api/messages-streaming>

mod decode;
mod encode;
#[cfg(test)]
mod tests;

pub use decode::Decoder;
pub use encode::Encoder;

use crate::protocol::ir::Annotation;
use crate::protocol::json::Str;

/// The most that is held back of one stream, in bytes.
const HELD: usize = 16 << 20;
/// What a held thing costs beside its text.
const OVERHEAD: usize = 256;

/// What a citation costs while it is held.
fn weight(annotation: &Annotation<'_>) -> usize {
    let length = |text: &Option<Str<'_>>| text.as_ref().map_or(0, Str::len);
    let (title, cited) = (length(&annotation.title), length(&annotation.cited));
    annotation.url.len() + title + cited + OVERHEAD
}

/// A citation cut loose from the event that it came in.
fn kept(annotation: Annotation<'_>) -> Annotation<'static> {
    Annotation {
        url: annotation.url.into_owned(),
        title: annotation.title.map(Str::into_owned),
        cited: annotation.cited.map(Str::into_owned),
        span: annotation.span,
    }
}
