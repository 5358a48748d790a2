//! What an answer rests on: `groundingMetadata` and `citationMetadata`, read into
//! annotations and a search, and written from them.

use bytes::BytesMut;
use indexmap::IndexMap;

use super::hosted;
use super::offsets::Offsets;
use super::spelling::{find, text, whole};
use crate::protocol::Protocol;
use crate::protocol::ir::{Annotation, Hosted, HostedKind, SearchHit};
use crate::protocol::json::{Object, Raw, Str, Value};

/// The most sources and the most references that are kept of one answer.
const MOST: usize = 4096;

/// Where a text part lies in the visible text of its candidate, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stretch<'o> {
    pub(super) offsets: &'o Offsets,
    pub(super) start: usize,
}

impl Stretch<'_> {
    /// Characters of the part for bytes of the whole.
    fn span(&self, from: usize, to: usize) -> Option<(usize, usize)> {
        let start = self.offsets.character(self.start)?;
        let from = self.offsets.character(from.max(self.start))?;
        // Some answers count the end one too far.
        let to = self.offsets.character(to.min(self.offsets.bytes()))?;
        (from <= to).then(|| (from - start, to - start))
    }
}

/// The references of an answer, as far as they are to the part.
pub(super) fn annotations<'a>(metadata: Value<'a>, part: Stretch<'_>) -> Vec<Annotation<'a>> {
    let chunks: Vec<_> = items(metadata, "groundingChunks").map(source).collect();
    let mut out = Vec::new();
    for support in items(metadata, "groundingSupports") {
        let segment = find(support, "segment");
        let Some(span) = segment.and_then(|segment| span(segment, part)) else {
            continue;
        };
        for index in items(support, "groundingChunkIndices").filter_map(|index| index.as_u64()) {
            let chunk = usize::try_from(index)
                .ok()
                .and_then(|index| chunks.get(index));
            if let Some(Some(hit)) = chunk
                && out.len() < MOST
            {
                out.push(annotation(hit.url.clone(), hit.title.clone(), Some(span)));
            }
        }
    }
    out
}

/// The works that an answer quotes (`citationMetadata`).
pub(super) fn citations<'a>(metadata: Value<'a>, part: Stretch<'_>) -> Vec<Annotation<'a>> {
    let named = ["citations", "citationSources"];
    let all = named.into_iter().flat_map(|name| items(metadata, name));
    let read = all.filter_map(|citation| {
        let url = text(citation, "uri")?;
        Some(annotation(
            url,
            text(citation, "title"),
            span(citation, part),
        ))
    });
    read.take(MOST).collect()
}

fn annotation<'a>(
    url: Str<'a>,
    title: Option<Str<'a>>,
    span: Option<(usize, usize)>,
) -> Annotation<'a> {
    Annotation {
        url,
        title,
        cited: None,
        span,
    }
}

fn span(segment: Value<'_>, part: Stretch<'_>) -> Option<(usize, usize)> {
    let end = usize::try_from(whole(segment, "endIndex")?).ok()?;
    let start = usize::try_from(whole(segment, "startIndex").unwrap_or(0)).ok()?;
    // A reference to an earlier part of the text, which is closed.
    if end <= part.start && end > 0 && part.start > 0 {
        return None;
    }
    part.span(start, end)
}

fn items<'a>(object: Value<'a>, name: &str) -> impl Iterator<Item = Value<'a>> {
    find(object, name).into_iter().flat_map(|list| list.items())
}

/// A source, whatever sort it is.
fn source(chunk: Value<'_>) -> Option<SearchHit<'_>> {
    let sorts = ["web", "retrievedContext", "maps", "image"];
    let told = sorts.into_iter().find_map(|sort| find(chunk, sort))?;
    Some(SearchHit {
        url: text(told, "uri").or_else(|| text(told, "sourceUri"))?,
        title: text(told, "title"),
    })
}

/// The search that was made for an answer, if there was one, and how many
/// queries it took.
pub(super) fn search<'a>(metadata: Value<'a>, id: String) -> Option<(Hosted<'a>, u64)> {
    let queries: Vec<_> = items(metadata, "webSearchQueries")
        .filter_map(|query| query.as_str())
        .take(MOST)
        .collect();
    let sources: Vec<_> = items(metadata, "groundingChunks")
        .filter_map(source)
        .take(MOST)
        .collect();
    if queries.is_empty() && sources.is_empty() {
        return None;
    }
    let search = Hosted {
        kind: HostedKind::WebSearch,
        id: id.into(),
        input: input(&queries),
        sources,
        output: None,
        failed: false,
        native: Vec::new(),
        origin: Protocol::Gemini,
    };
    Some((search, queries.len() as u64))
}

fn input(queries: &[Str<'_>]) -> Option<Raw<'static>> {
    let mut out = BytesMut::new();
    {
        let mut object = Object::open(&mut out);
        object.str("query", queries.first()?);
        if queries.len() > 1 {
            let mut all = object.array("queries");
            for query in queries {
                all.str(query);
            }
        }
    }
    Raw::parse(String::from_utf8(out.to_vec()).ok()?).ok()
}

/// A reference in bytes of the candidate's visible text.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Support {
    start: usize,
    end: usize,
    chunks: Vec<usize>,
}

/// What is to be written at the end of a candidate.
#[derive(Clone, Debug, Default)]
pub(super) struct Grounding {
    queries: Vec<String>,
    /// Titles by address.
    sources: IndexMap<String, Option<String>>,
    supports: Vec<Support>,
}

impl Grounding {
    /// A reference in a part.
    pub(super) fn annotation(&mut self, annotation: &Annotation<'_>, part: Stretch<'_>) {
        if annotation.url.is_empty() {
            return;
        }
        let Some(chunk) = self.source(&annotation.url, annotation.title.as_ref()) else {
            return;
        };
        let Some(first) = part.offsets.character(part.start) else {
            return;
        };
        let bytes = annotation.span.and_then(|(from, to)| {
            let start = part.offsets.byte(first.saturating_add(from))?;
            Some((start, part.offsets.byte(first.saturating_add(to))?))
        });
        if let Some((start, end)) = bytes {
            self.support(start, end, chunk);
        }
    }

    fn support(&mut self, start: usize, end: usize, chunk: usize) {
        let room = self.supports.len() < MOST;
        let same = |last: &&mut Support| (last.start, last.end) == (start, end);
        match self.supports.last_mut().filter(same) {
            Some(last) if last.chunks.contains(&chunk) => {}
            Some(last) => last.chunks.push(chunk),
            None if room => self.supports.push(Support {
                start,
                end,
                chunks: vec![chunk],
            }),
            None => {}
        }
    }

    /// The number of a source, which is noted if it is new.
    fn source(&mut self, url: &Str<'_>, title: Option<&Str<'_>>) -> Option<usize> {
        let url = url.to_plain_string();
        if self.sources.len() >= MOST && !self.sources.contains_key(&url) {
            return None;
        }
        let title = title.map(Str::to_plain_string);
        let entry = self.sources.entry(url);
        let index = entry.index();
        let kept = entry.or_default();
        *kept = kept.take().or(title);
        Some(index)
    }

    /// A search.
    pub(super) fn search(&mut self, search: &Hosted<'_>) {
        let room = MOST.saturating_sub(self.queries.len());
        self.queries
            .extend(hosted::queries(search).into_iter().take(room));
        for hit in &search.sources {
            self.source(&hit.url, hit.title.as_ref());
        }
    }

    /// Whether there is nothing to write.
    pub(super) fn is_empty(&self) -> bool {
        self.queries.is_empty() && self.sources.is_empty()
    }

    /// Writes the member `groundingMetadata`. `said` is the visible text, where it
    /// is at hand.
    pub(super) fn write(&self, object: &mut Object<'_>, said: Option<&str>) {
        if self.is_empty() {
            return;
        }
        let mut metadata = object.object("groundingMetadata");
        if !self.queries.is_empty() {
            let mut queries = metadata.array("webSearchQueries");
            for query in &self.queries {
                queries.str(&Str::new(query));
            }
        }
        {
            let mut chunks = metadata.array("groundingChunks");
            for (url, title) in &self.sources {
                let mut chunk = chunks.object();
                let mut web = chunk.object("web");
                web.text("uri", url);
                if let Some(title) = title {
                    web.text("title", title);
                }
            }
        }
        let mut supports = metadata.array("groundingSupports");
        for support in &self.supports {
            support.write(&mut supports.object(), said);
        }
    }
}

impl Support {
    fn write(&self, object: &mut Object<'_>, said: Option<&str>) {
        {
            let mut segment = object.object("segment");
            segment.number("startIndex", self.start);
            segment.number("endIndex", self.end);
            if let Some(words) = said.and_then(|said| said.get(self.start..self.end)) {
                segment.text("text", words);
            }
        }
        let mut indices = object.array("groundingChunkIndices");
        for chunk in &self.chunks {
            crate::protocol::json::write::number(indices.element(), *chunk);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::json::Tape;

    #[test]
    fn bytes_become_characters_and_bytes_again() {
        let mut offsets = Offsets::default();
        offsets.push(&Str::new("é🙂 the end"));
        let part = Stretch {
            offsets: &offsets,
            start: 0,
        };
        let text = r#"{"webSearchQueries":["q","r"],"groundingChunks":[{"web":{"uri":"https://a","title":"A"}},{"web":{"uri":"https://b"}}],"groundingSupports":[{"segment":{"startIndex":7,"endIndex":10,"text":"the"},"groundingChunkIndices":[0,1]},{"segment":{"endIndex":99},"groundingChunkIndices":[7]}]}"#;
        let mut tape = Tape::new();
        let root = tape.parse(text).unwrap();
        let found = annotations(root, part);
        let spans: Vec<_> = found.iter().map(|found| found.span).collect();
        assert_eq!(spans, [Some((3, 6)), Some((3, 6))]);
        let (search, queries) = search(root, "s".to_owned()).unwrap();
        assert_eq!((search.sources.len(), queries), (2, 2));
        assert_eq!(
            search.input.as_ref().unwrap().as_str(),
            r#"{"query":"q","queries":["q","r"]}"#
        );
        let mut grounding = Grounding::default();
        grounding.search(&search);
        for annotation in &found {
            grounding.annotation(annotation, part);
        }
        let mut out = BytesMut::new();
        grounding.write(&mut Object::open(&mut out), Some("é🙂 the end"));
        assert_eq!(
            std::str::from_utf8(&out).unwrap(),
            r#"{"groundingMetadata":{"webSearchQueries":["q","r"],"groundingChunks":[{"web":{"uri":"https://a","title":"A"}},{"web":{"uri":"https://b"}}],"groundingSupports":[{"segment":{"startIndex":7,"endIndex":10,"text":"the"},"groundingChunkIndices":[0,1]}]}}"#
        );
    }
}
