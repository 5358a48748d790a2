//! A provider's whole answer.

use crate::protocol::error::{UpstreamError, error_in_answer, unreadable};
use crate::protocol::gemini::grounding::{self, Stretch};
use crate::protocol::gemini::offsets::Offsets;
use crate::protocol::gemini::part::{self, Fields};
use crate::protocol::gemini::said::{Said, Signed};
use crate::protocol::gemini::spelling::{find, text, whole};
use crate::protocol::gemini::stream::{arguments, blocked};
use crate::protocol::gemini::{finish, logprobs, media, mint, usage};
use crate::protocol::ir::{Arguments, Call, Choice, Media, Opaque, OpaqueKind, Part, Response};
use crate::protocol::json::{Str, Value};

/// Answers beyond this many are nobody's.
const MOST_CANDIDATES: usize = 64;

/// Reads a provider's answer.
///
/// # Errors
///
/// Where it is an error in the clothes of an answer, or no answer at all.
pub fn decode(body: Value<'_>) -> Result<Response<'_>, UpstreamError> {
    let first = body.items().next().unwrap_or(body);
    if find(first, "error").is_some() {
        return Err(error_in_answer(body.raw().as_str().as_bytes()));
    }
    let candidates = find(body, "candidates");
    let feedback = find(body, "promptFeedback");
    if candidates.is_none() && feedback.is_none() {
        return Err(unreadable(body.raw().as_str().as_bytes()));
    }
    let id = text(body, "responseId");
    let seed = id.as_ref().map(Str::to_plain_string).unwrap_or_default();
    let mut response = Response {
        upstream_id: id,
        upstream_model: text(body, "modelVersion"),
        usage: find(body, "usageMetadata").and_then(usage::decode),
        ..Response::default()
    };
    for (position, candidate) in candidates.into_iter().flat_map(|c| c.items()).enumerate() {
        let index = whole(candidate, "index").and_then(|index| usize::try_from(index).ok());
        let index = index.unwrap_or(position);
        if index >= MOST_CANDIDATES {
            continue;
        }
        if response.choices.len() <= index {
            // One that is counted and never comes ends unsaid.
            response.choices.resize_with(index + 1, || Choice {
                finish: Some(finish::unsaid()),
                ..Choice::default()
            });
        }
        let (choice, searches) = Reader::new(index, &seed).choice(candidate);
        if let Some(place) = response.choices.get_mut(index) {
            *place = choice;
        }
        if searches > 0 {
            response.web_searches = Some(response.web_searches.unwrap_or(0) + searches);
        }
    }
    if response.choices.is_empty() {
        let finish = feedback.and_then(blocked);
        response.choices.push(Choice {
            finish: Some(finish.unwrap_or_else(finish::unsaid)),
            ..Choice::default()
        });
    }
    Ok(response)
}

/// Reads one candidate.
struct Reader<'s> {
    index: usize,
    seed: &'s str,
    /// The number of the next part, as it would be in a stream.
    next: usize,
    calls: bool,
}

impl<'s> Reader<'s> {
    const fn new(index: usize, seed: &'s str) -> Self {
        Self {
            index,
            seed,
            next: 0,
            calls: false,
        }
    }

    fn choice<'a>(mut self, candidate: Value<'a>) -> (Choice<'a>, u64) {
        let mut said = Said::default();
        let parts = find(candidate, "content").and_then(|content| find(content, "parts"));
        if let Some(parts) = parts {
            let one = parts.is_object().then_some(parts);
            for part in parts.items().chain(one) {
                self.part(part, &mut said);
                self.next = said.parts.len();
            }
        }
        let mut choice = Choice {
            parts: said.parts,
            ..Choice::default()
        };
        if let Some(metadata) = find(candidate, "citationMetadata") {
            annotate(&mut choice.parts, metadata, grounding::citations);
        }
        let mut searches = 0;
        if let Some(metadata) = find(candidate, "groundingMetadata") {
            annotate(&mut choice.parts, metadata, grounding::annotations);
            if let Some((search, queries)) = grounding::search(metadata, self.mint("", "")) {
                searches = queries;
                choice.parts.push(Part::Hosted(search));
            }
        }
        if let Some(result) = find(candidate, "logprobsResult") {
            choice.logprobs = logprobs::decode(result);
        }
        let message = text(candidate, "finishMessage");
        let word = text(candidate, "finishReason");
        let finish = word.and_then(|word| finish::decode(&word, message.as_ref()));
        let finish = finish.unwrap_or_else(finish::unsaid);
        choice.finish = Some(finish::with_calls(finish, self.calls));
        (choice, searches)
    }

    fn part<'a>(&mut self, value: Value<'a>, said: &mut Said<'a>) {
        let fields = part::read(value);
        let signed = signed(&fields);
        if let Some(call) = fields.call {
            if let Some(name) = text(call, "name") {
                self.calls = true;
                said.call(self.call(call, name), signed);
            }
        } else if fields.is_text() {
            said.text(fields.text.unwrap_or_default(), fields.thought, signed);
        } else if fields.is_hosted() {
            said.hosted(&fields, value, self.mint("", ""));
        } else if let Some(medium) = medium(&fields) {
            said.parts.push(Part::Media(medium));
        }
    }

    fn call<'a>(&self, call: Value<'a>, name: Str<'a>) -> Call<'a> {
        let id = text(call, "id").unwrap_or_else(|| {
            let raw = call.raw();
            let own = if self.seed.is_empty() {
                raw.as_str()
            } else {
                ""
            };
            Str::from(self.mint("call_", own))
        });
        Call {
            id,
            name,
            namespace: None,
            arguments: Arguments::Object(arguments(call)),
            opaque: None,
            cache: None,
        }
    }

    fn mint(&self, prefix: &str, more: &str) -> String {
        let number = [self.index.to_le_bytes(), self.next.to_le_bytes()].concat();
        mint::id(prefix, &[self.seed.as_bytes(), &number, more.as_bytes()])
    }
}

/// What a provider signs is its own.
fn signed<'a>(fields: &Fields<'a>) -> Signed<'a> {
    let opaque = Opaque {
        kind: OpaqueKind::GeminiSignature,
        data: fields.signature.clone()?,
        model: None,
        account: None,
    };
    Some((opaque, None))
}

fn medium<'a>(fields: &Fields<'a>) -> Option<Media<'a>> {
    let (kind, source) = match (fields.inline, fields.file) {
        (Some(inline), _) => {
            let read = media::decode_inline(inline).ok()?;
            (read.kind, read.source)
        }
        (None, file) => media::decode_file(file?)?,
    };
    Some(Media {
        kind,
        source,
        name: None,
        context: None,
        detail: None,
        cite: false,
        cache: None,
        path: String::new(),
    })
}

/// Refers the last text to its sources.
fn annotate<'a>(parts: &mut [Part<'a>], metadata: Value<'a>, read: References) {
    let mut offsets = Offsets::default();
    let mut start = 0;
    for part in parts.iter() {
        if let Part::Text(text) = part {
            start = offsets.bytes();
            offsets.push(&text.text);
        }
    }
    let stretch = Stretch {
        offsets: &offsets,
        start,
    };
    let last = parts.iter_mut().rev().find_map(|part| match part {
        Part::Text(text) => Some(text),
        _ => None,
    });
    if let Some(last) = last {
        last.annotations.extend(read(metadata, stretch));
    }
}

/// How references are read from metadata.
type References = for<'a> fn(Value<'a>, Stretch<'_>) -> Vec<crate::protocol::ir::Annotation<'a>>;
