//! Citations: `url_citation`, nested as OpenAI has it or flat, and the bare lists
//! of addresses of search engines.

use crate::protocol::ir::Annotation;
use crate::protocol::json::{Object, Str, Value};

/// Reads one; `None` when it says nothing of a page. `before` is how many
/// characters of the content stand before the part of text that it belongs to.
pub(super) fn read<'a>(entry: Value<'a>, before: usize) -> Option<Annotation<'a>> {
    let inner = entry.some("url_citation").unwrap_or(entry);
    let url = inner.some("url")?.as_str()?;
    let at = |name| usize::try_from(inner.some(name)?.as_u64()?).ok();
    let span = at("start_index").zip(at("end_index"));
    let span = span.and_then(|(start, end)| {
        let span = (start.checked_sub(before)?, end.checked_sub(before)?);
        (span.0 < span.1).then_some(span)
    });
    Some(Annotation {
        url,
        title: inner.some("title").and_then(|title| title.as_str()),
        cited: inner.some("content").and_then(|cited| cited.as_str()),
        span,
    })
}

/// One that is nothing but an address.
pub(super) fn of_url(url: Str<'_>) -> Annotation<'_> {
    Annotation {
        url,
        title: None,
        cited: None,
        span: None,
    }
}

/// Writes one. A span that is not known is that of no text, at the end.
pub(super) fn write(
    annotation: &Annotation<'_>,
    before: usize,
    end: usize,
    entry: &mut Object<'_>,
) {
    entry.text("type", "url_citation");
    let mut inner = entry.object("url_citation");
    inner.str("url", &annotation.url);
    match &annotation.title {
        Some(title) => inner.str("title", title),
        None => inner.str("title", &annotation.url),
    };
    let span = annotation
        .span
        .map(|(from, to)| (before + from, before + to));
    let (from, to) = span.unwrap_or((end, end));
    inner.number("start_index", from).number("end_index", to);
}
