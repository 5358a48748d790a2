//! What a text refers to, in the words of Messages.
//! <https://docs.anthropic.com/en/docs/build-with-claude/citations>

use crate::protocol::ir::Annotation;
use crate::protocol::json::{Object, Value};

/// Reads one citation. Its place in the text is that of its whole block, which
/// only the reader of the block knows.
pub(super) fn decode<'a>(citation: Value<'a>) -> Option<Annotation<'a>> {
    if !citation.is_object() {
        return None;
    }
    let told = |name: &str| citation.some(name).and_then(|value| value.as_str());
    let url = told("url").or_else(|| told("source"));
    Some(Annotation {
        url: url.unwrap_or_default(),
        title: told("title").or_else(|| told("document_title")),
        cited: told("cited_text"),
        span: None,
    })
}

/// Writes one citation; only pages can be named without the document at hand.
pub(super) fn write(mut citation: Object<'_>, annotation: &Annotation<'_>) {
    citation
        .text("type", "web_search_result_location")
        .str("url", &annotation.url);
    match &annotation.title {
        Some(title) => citation.str("title", title),
        None => citation.null("title"),
    };
    citation.text("encrypted_index", "");
    match &annotation.cited {
        Some(cited) => citation.str("cited_text", cited),
        None => citation.text("cited_text", ""),
    };
}

/// Whether the reference can be said at all.
pub(super) fn can_be_said(annotation: &Annotation<'_>) -> bool {
    !annotation.url.is_empty()
}
