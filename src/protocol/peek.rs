//! Where a request body's `model`, `stream` and `stream_options` lie, without
//! parsing the rest.
//!
//! A body stays in the frames it was received in. What steers a request stands
//! before or behind one big value (the messages), so a large body is scanned
//! forward from its start and backward from its end: outside a string at the
//! end, an unescaped quotation mark is always a delimiter, which makes valid
//! JSON as readable backwards as forwards. The middle is searched for what could
//! be a second `model`; only when something turns up is all of it scanned.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use memchr::memchr;

use super::json;
use super::sieve::{Name, SMALL, Sieve};

/// How much is scanned at either end of a large body.
const WINDOW: usize = 4 * 1024;

/// What steers a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Peeked {
    model: Option<(Range<usize>, String)>,
    /// `stream`; null counts as absent.
    pub stream: Option<bool>,
    /// Where the `stream_options` object lies, when it is one.
    pub stream_options: Option<Range<usize>>,
    /// Whether `stream_options` is there at all, null included, and where.
    pub stream_options_value: Option<Range<usize>>,
    /// `stream_options.include_usage` and where its value lies.
    pub include_usage: Option<(Range<usize>, bool)>,
    /// Just behind the opening brace, where a member can be put in.
    pub first_member: usize,
    /// Whether the object has no member.
    pub empty: bool,
}

impl Peeked {
    /// The model's name.
    #[must_use]
    pub fn model(&self) -> Option<&str> {
        self.model.as_ref().map(|(_, name)| name.as_str())
    }

    /// Where the model's value lies, quotation marks included.
    #[must_use]
    pub fn model_span(&self) -> Option<Range<usize>> {
        self.model.as_ref().map(|(span, _)| span.clone())
    }
}

/// A member of the body's top level. Spans include quotation marks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name, unescaped.
    pub key: String,
    /// Where its value lies.
    pub value: Range<usize>,
    /// Where its name begins.
    pub start: usize,
}

/// Why a body can't be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeekError {
    /// No bytes.
    Empty,
    /// Not a JSON object.
    NotAnObject {
        /// The first byte that is not white space.
        found: char,
    },
    /// The structure breaks here.
    Malformed {
        /// Byte offset in the body.
        at: usize,
        /// What was wanted there.
        wanted: &'static str,
    },
    /// A field that steers the request is given twice.
    Duplicate {
        /// The field.
        field: &'static str,
    },
    /// A field is of the wrong type.
    WrongType {
        /// The field.
        field: &'static str,
        /// What it should be.
        wanted: &'static str,
        /// What was found.
        found: String,
    },
}

impl PeekError {
    /// The field to blame.
    #[must_use]
    pub fn field(&self) -> Option<&'static str> {
        match self {
            Self::Duplicate { field } | Self::WrongType { field, .. } => Some(field),
            _ => None,
        }
    }
}

impl fmt::Display for PeekError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the request body is empty, a JSON object was wanted"),
            Self::NotAnObject { found } => {
                write!(
                    f,
                    "the request body begins with '{}', a JSON object was wanted",
                    found.escape_default()
                )
            }
            Self::Malformed { at, wanted } => {
                write!(
                    f,
                    "the request body is not valid JSON: {wanted} wanted at byte {at}"
                )
            }
            Self::Duplicate { field } => write!(f, "'{field}' is given twice"),
            Self::WrongType {
                field,
                wanted,
                found,
            } => write!(f, "'{field}' must be {wanted}, found {found}"),
        }
    }
}

impl std::error::Error for PeekError {}

/// Finds what steers the request.
///
/// # Errors
///
/// See [`PeekError`]. Structure is checked where it is looked at, which for a
/// large body is its two ends.
pub fn peek(frames: &[Bytes]) -> Result<Peeked, PeekError> {
    peek_sieved(frames, None, true)
}

/// As [`peek`], with what a [`Sieve`] found while the body came in. Where nothing
/// hangs on whether an answer is streamed, members about streaming need not be
/// looked for between two big values.
///
/// # Errors
///
/// As [`peek`].
pub fn peek_sieved(
    frames: &[Bytes],
    sieve: Option<&Sieve>,
    streaming: bool,
) -> Result<Peeked, PeekError> {
    let length: usize = frames.iter().map(Bytes::len).sum();
    let members = match frames {
        [] => return Err(PeekError::Empty),
        [only] if only.len() <= SMALL => scan(only, 0)?,
        _ if length <= SMALL => scan(&frames.concat(), 0)?,
        _ => match ends(frames, length, sieve, streaming) {
            Some(found) => found,
            None => scan(&joined(frames), 0)?,
        },
    };
    let body = Frames { frames };
    assemble(&body, &members)
}

/// All members of the body's top level, in order.
///
/// # Errors
///
/// When the body is not one well-formed object.
pub fn members(frames: &[Bytes]) -> Result<Vec<Member>, PeekError> {
    let body = joined(frames);
    let found = scan(&body, 0)?;
    Ok(found
        .members
        .iter()
        .map(|member| Member {
            key: unescape(&body[member.key.clone()]).into_owned(),
            value: member.value.clone(),
            start: member.key.start,
        })
        .collect())
}

fn joined(frames: &[Bytes]) -> Cow<'_, [u8]> {
    match frames {
        [only] => Cow::Borrowed(only),
        many => Cow::Owned(many.concat()),
    }
}

/// Members as spans; keys with their quotation marks.
#[derive(Debug, Default)]
struct Found {
    first_member: usize,
    empty: bool,
    members: Vec<Spans>,
}

#[derive(Debug)]
struct Spans {
    key: Range<usize>,
    value: Range<usize>,
}

impl Spans {
    fn shift(&mut self, by: usize) {
        self.key = self.key.start + by..self.key.end + by;
        self.value = self.value.start + by..self.value.end + by;
    }
}

/// Bytes that lie in several frames.
struct Frames<'a> {
    frames: &'a [Bytes],
}

impl Frames<'_> {
    /// A span's bytes; borrowed when one frame holds them all.
    fn bytes(&self, span: &Range<usize>) -> Cow<'_, [u8]> {
        let mut start = 0;
        let mut pieces: Vec<&[u8]> = Vec::new();
        for frame in self.frames {
            let end = start + frame.len();
            let from = span.start.max(start);
            let to = span.end.min(end);
            if from < to {
                let piece = &frame[from - start..to - start];
                if piece.len() == span.len() {
                    return Cow::Borrowed(piece);
                }
                pieces.push(piece);
            }
            start = end;
        }
        Cow::Owned(pieces.concat())
    }
}

fn assemble(body: &Frames<'_>, found: &Found) -> Result<Peeked, PeekError> {
    let mut peeked = Peeked {
        first_member: found.first_member,
        empty: found.empty,
        ..Peeked::default()
    };
    let mut seen = [false; 3];
    for member in &found.members {
        if member.key.len() < 7 {
            continue;
        }
        let key = body.bytes(&member.key);
        let key = unescape(&key);
        let (index, field) = match &*key {
            "model" => (0, "model"),
            "stream" => (1, "stream"),
            "stream_options" => (2, "stream_options"),
            _ => continue,
        };
        if std::mem::replace(&mut seen[index], true) {
            return Err(PeekError::Duplicate { field });
        }
        let value = body.bytes(&member.value);
        match index {
            0 => peeked.model = model(&value, &member.value)?,
            1 => peeked.stream = boolean(&value, field)?,
            _ => stream_options(&mut peeked, &value, &member.value)?,
        }
    }
    Ok(peeked)
}

fn model(value: &[u8], span: &Range<usize>) -> Result<Option<(Range<usize>, String)>, PeekError> {
    match value.first() {
        Some(b'"') => match text(value) {
            Ok(name) => Ok(Some((span.clone(), name))),
            Err(_) => Err(PeekError::WrongType {
                field: "model",
                wanted: "a string",
                found: "a broken one".into(),
            }),
        },
        _ if value == b"null" => Ok(None),
        _ => Err(PeekError::WrongType {
            field: "model",
            wanted: "a string",
            found: excerpt(value),
        }),
    }
}

fn text(value: &[u8]) -> serde_json::Result<String> {
    match json::plain_string(value) {
        Some(text) => Ok(text.to_owned()),
        None => serde_json::from_slice(value),
    }
}

fn boolean(value: &[u8], field: &'static str) -> Result<Option<bool>, PeekError> {
    match value {
        b"true" => Ok(Some(true)),
        b"false" => Ok(Some(false)),
        b"null" => Ok(None),
        other => Err(PeekError::WrongType {
            field,
            wanted: "true or false",
            found: excerpt(other),
        }),
    }
}

fn stream_options(peeked: &mut Peeked, value: &[u8], span: &Range<usize>) -> Result<(), PeekError> {
    peeked.stream_options_value = Some(span.clone());
    if value.first() != Some(&b'{') {
        // Null, or something that the provider will complain about.
        return Ok(());
    }
    let inner = scan(value, span.start)?;
    peeked.stream_options = Some(span.clone());
    for member in &inner.members {
        let key = &value[member.key.start - span.start..member.key.end - span.start];
        if &*unescape(key) == "include_usage" {
            let at = member.value.start - span.start..member.value.end - span.start;
            let wanted = &value[at] == b"true";
            peeked.include_usage = Some((member.value.clone(), wanted));
        }
    }
    Ok(())
}

fn excerpt(value: &[u8]) -> String {
    let text = String::from_utf8_lossy(&value[..value.len().min(40)]);
    if value.len() > 40 {
        format!("{text}...")
    } else {
        text.into_owned()
    }
}

/// A key's text without its quotation marks.
fn unescape(key: &[u8]) -> Cow<'_, str> {
    let inner = key.get(1..key.len().saturating_sub(1)).unwrap_or_default();
    if memchr(b'\\', inner).is_none() {
        return String::from_utf8_lossy(inner);
    }
    match serde_json::from_slice::<String>(key) {
        Ok(text) => Cow::Owned(text),
        Err(_) => String::from_utf8_lossy(inner),
    }
}

// ---------------------------------------------------------------- forward

/// Scans one whole object; offsets are counted from `base`.
fn scan(body: &[u8], base: usize) -> Result<Found, PeekError> {
    let (mut found, next) = forward(body, base)?;
    let Some(next) = next else {
        return Err(PeekError::Malformed {
            at: base + body.len(),
            wanted: "the end of the object",
        });
    };
    let behind = skip_space(body, next);
    if behind < body.len() {
        return Err(PeekError::Malformed {
            at: base + behind,
            wanted: "nothing more",
        });
    }
    found.first_member += base;
    for member in &mut found.members {
        member.shift(base);
    }
    Ok(found)
}

/// Scans members from the opening brace. `None` as the end means that the
/// bytes ran out inside a member; the members before it are given.
fn forward(body: &[u8], base: usize) -> Result<(Found, Option<usize>), PeekError> {
    let malformed = |at: usize, wanted| PeekError::Malformed {
        at: base + at,
        wanted,
    };
    let open = skip_space(body, 0);
    match body.get(open) {
        Some(b'{') => {}
        Some(_) => {
            let start = &body[open..body.len().min(open + 4)];
            let found = String::from_utf8_lossy(start).chars().next().unwrap_or('?');
            return Err(PeekError::NotAnObject { found });
        }
        None => return Err(PeekError::Empty),
    }
    let first_member = open + 1;
    let at = skip_space(body, first_member);
    if body.get(at) == Some(&b'}') {
        return Ok((
            Found {
                first_member,
                empty: true,
                members: Vec::new(),
            },
            Some(at + 1),
        ));
    }
    let (members, end) = members_from(body, at).map_err(|(at, wanted)| malformed(at, wanted))?;
    Ok((
        Found {
            first_member,
            empty: false,
            members,
        },
        end,
    ))
}

/// Members, and the offset behind the brace that ends them when it is there.
type Members = (Vec<Spans>, Option<usize>);

/// Scans members from the first one's name to the brace that ends their object.
/// The error is an offset and what was wanted there.
fn members_from(body: &[u8], mut at: usize) -> Result<Members, (usize, &'static str)> {
    let mut members = Vec::new();
    loop {
        match body.get(at) {
            Some(b'"') => {}
            Some(_) => return Err((at, "a member's name")),
            None => return Ok((members, None)),
        }
        let Some(key_end) = string_end(body, at) else {
            return Ok((members, None));
        };
        let colon = skip_space(body, key_end);
        match body.get(colon) {
            Some(b':') => {}
            Some(_) => return Err((colon, "':'")),
            None => return Ok((members, None)),
        }
        let value = skip_space(body, colon + 1);
        let Some(end) = value_end(body, value).map_err(|at| (at, "a value"))? else {
            return Ok((members, None));
        };
        members.push(Spans {
            key: at..key_end,
            value: value..end,
        });
        let next = skip_space(body, end);
        match body.get(next) {
            Some(b',') => at = skip_space(body, next + 1),
            Some(b'}') => return Ok((members, Some(next + 1))),
            Some(_) => return Err((next, "',' or '}'")),
            None => return Ok((members, None)),
        }
    }
}

fn skip_space(body: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\t' | b'\n' | b'\r') = body.get(at) {
        at += 1;
    }
    at
}

/// The offset behind the string that begins at `at`.
fn string_end(body: &[u8], at: usize) -> Option<usize> {
    let mut next = at + 1;
    loop {
        let found = json::string_stop(body, next)?;
        if body[found] == b'"' {
            return Some(found + 1);
        }
        next = found + 2;
    }
}

/// The offset behind the value that begins at `at`; `None` when the bytes run
/// out in it. Nesting is counted, not recursed into. The error is the offset of
/// a byte that can't be there.
fn value_end(body: &[u8], at: usize) -> Result<Option<usize>, usize> {
    match body.get(at) {
        None => Ok(None),
        Some(b'"') => Ok(string_end(body, at)),
        Some(b'{' | b'[') => Ok(nested_end(body, at)),
        Some(b',' | b'}' | b']' | b':') => Err(at),
        Some(_) => {
            let rest = &body[at..];
            let ends = |byte: &u8| {
                matches!(
                    byte,
                    b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r' | b'"' | b'{' | b'[' | b':'
                )
            };
            // A number that ends with the bytes may go on behind them.
            Ok(rest.iter().position(ends).map(|length| at + length))
        }
    }
}

fn nested_end(body: &[u8], start: usize) -> Option<usize> {
    let mut depth = 0_usize;
    let mut at = start;
    loop {
        match body.get(at)? {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth -= 1;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            b'"' => {
                at = string_end(body, at)?;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
}

// ------------------------------------------------------------- both ends

/// Members found from both ends of a large body; `None` when the middle might
/// hide more, or when anything is odd, and all of it has to be scanned.
fn ends(frames: &[Bytes], length: usize, sieve: Option<&Sieve>, streaming: bool) -> Option<Found> {
    let own;
    let sieve = match sieve {
        Some(sieve) if sieve.seen() == length => sieve,
        _ => {
            own = Sieve::of(frames);
            &own
        }
    };
    let body = Frames { frames };
    let head = body.bytes(&(0..WINDOW));
    let (mut found, closed) = forward(&head, 0).ok()?;
    if closed.is_some() || sieve.is_odd() {
        return None;
    }
    let start = length - WINDOW;
    let tail = body.bytes(&(start..length));
    let (mut behind, tail_from) = backward(&tail)?;
    for member in &mut behind {
        member.shift(start);
    }
    behind.reverse();
    let known = found
        .members
        .last()
        .map_or(found.first_member, |last| last.value.end);
    let middle = known..start + tail_from;
    if middle.start >= middle.end {
        return None;
    }
    let names = sieve.places(Name::Model).filter(|at| middle.contains(at));
    match top_level_model(&body, names, length)? {
        // All from there to the end was scanned on the way.
        Some(members) => found.members.extend(members),
        None => found.members.extend(behind),
    }
    if streaming && hides_a_stream(sieve, &middle, &found, &body) {
        return None;
    }
    Some(found)
}

/// Looks at each `"model"` in the middle that is a name. Such a token stands
/// outside every string, so the object it belongs to can be scanned on from it:
/// when that object ends before the document does, it is a nested one. Gives the
/// members from a top-level one to the end; `None` when that is not certain.
#[expect(
    clippy::option_option,
    reason = "not certain, certainly none, and here they are"
)]
fn top_level_model(
    body: &Frames<'_>,
    names: impl Iterator<Item = usize>,
    length: usize,
) -> Option<Option<Vec<Spans>>> {
    // Objects nested in one another would be walked again and again.
    let mut budget = 2 * length;
    for at in names {
        // Most are properties of a tool's schema, which end within a few bytes.
        let near = body.bytes(&(at..length.min(at + 1024)));
        if let (_, Some(end)) = members_from(&near, 0).ok()?
            && !is_last(body, at + end, length)
        {
            continue;
        }
        let rest = body.bytes(&(at..length));
        let (mut members, end) = members_from(&rest, 0).ok()?;
        let end = end?;
        if !is_last(body, at + end, length) {
            budget = budget.checked_sub(end)?;
            continue;
        }
        for member in &mut members {
            member.shift(at);
        }
        return Some(Some(members));
    }
    Some(None)
}

/// Whether nothing but white space follows.
fn is_last(body: &Frames<'_>, end: usize, length: usize) -> bool {
    length - end <= WINDOW && body.bytes(&(end..length)).trim_ascii().is_empty()
}

/// Whether the middle has a token that could be the name of a member about
/// streaming. They are only looked for where they were not found and would matter:
/// a second one changes nothing that anybody is protected by.
fn hides_a_stream(sieve: &Sieve, middle: &Range<usize>, found: &Found, body: &Frames<'_>) -> bool {
    let known = |name: &[u8]| {
        found
            .members
            .iter()
            .find(|member| *body.bytes(&member.key) == *name)
    };
    let hidden = |name| sieve.places(name).any(|at| middle.contains(&at));
    match known(b"\"stream\"") {
        None => hidden(Name::Stream),
        Some(stream) if *body.bytes(&stream.value) == *b"true" => {
            known(b"\"stream_options\"").is_none() && hidden(Name::StreamOptions)
        }
        Some(_) => false,
    }
}

/// Scans members from the end of the body towards its front. Gives them last
/// first, and the offset in front of which nothing is known: the colon, comma
/// or value that the window cuts.
fn backward(tail: &[u8]) -> Option<(Vec<Spans>, usize)> {
    let mut end = trim_end(tail, tail.len());
    if end == 0 || tail[end - 1] != b'}' {
        return None;
    }
    end -= 1;
    let mut found = Vec::new();
    loop {
        let value_end = trim_end(tail, end);
        let Some(value_start) = value_start(tail, value_end) else {
            return Some((found, value_end));
        };
        let colon = trim_end(tail, value_start);
        if colon == 0 {
            return Some((found, value_end));
        }
        if tail[colon - 1] != b':' {
            return None;
        }
        let key_end = trim_end(tail, colon - 1);
        let Some(key_start) = string_start(tail, key_end) else {
            return Some((found, value_end));
        };
        let before = trim_end(tail, key_start);
        if before == 0 {
            return Some((found, value_end));
        }
        if tail[before - 1] != b',' {
            return None;
        }
        found.push(Spans {
            key: key_start..key_end,
            value: value_start..value_end,
        });
        end = before - 1;
    }
}

fn trim_end(bytes: &[u8], mut end: usize) -> usize {
    while end > 0 && matches!(bytes[end - 1], b' ' | b'\t' | b'\n' | b'\r') {
        end -= 1;
    }
    end
}

/// Where the value that ends at `end` begins; `None` when that is not in sight.
fn value_start(bytes: &[u8], end: usize) -> Option<usize> {
    match bytes.get(end.checked_sub(1)?)? {
        b'"' => string_start(bytes, end),
        b'}' | b']' => nested_start(bytes, end),
        _ => {
            let is_end = |byte: &u8| {
                matches!(
                    byte,
                    b':' | b',' | b' ' | b'\t' | b'\n' | b'\r' | b'"' | b'{' | b'}' | b'[' | b']'
                )
            };
            bytes[..end].iter().rposition(is_end).map(|at| at + 1)
        }
    }
}

/// Where the string whose closing mark stands just before `end` begins.
fn string_start(bytes: &[u8], end: usize) -> Option<usize> {
    let mut at = end.checked_sub(1)?;
    if bytes.get(at) != Some(&b'"') {
        return None;
    }
    loop {
        at = memchr::memrchr(b'"', &bytes[..at])?;
        let escapes = bytes[..at]
            .iter()
            .rev()
            .take_while(|byte| **byte == b'\\')
            .count();
        // The run of backslashes must be seen whole to be counted.
        if escapes == at && at > 0 {
            return None;
        }
        if escapes % 2 == 0 {
            return Some(at);
        }
    }
}

fn nested_start(bytes: &[u8], end: usize) -> Option<usize> {
    let mut depth = 0_usize;
    let mut at = end;
    while at > 0 {
        at -= 1;
        match bytes[at] {
            b'}' | b']' => depth += 1,
            b'{' | b'[' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(at);
                }
            }
            b'"' => at = string_start(bytes, at + 1)?,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    fn one(text: &str) -> Vec<Bytes> {
        vec![Bytes::copy_from_slice(text.as_bytes())]
    }

    fn framed(text: &[u8], cuts: &[usize]) -> Vec<Bytes> {
        let mut cuts: Vec<usize> = cuts
            .iter()
            .copied()
            .filter(|cut| *cut <= text.len())
            .collect();
        cuts.extend([0, text.len()]);
        cuts.sort_unstable();
        cuts.windows(2)
            .map(|pair| Bytes::copy_from_slice(&text[pair[0]..pair[1]]))
            .filter(|frame| !frame.is_empty())
            .collect()
    }

    #[test]
    fn what_steers_is_found_wherever_it_stands() {
        let filler = "x\\\"model\\\":1 ".repeat(8000);
        for text in [
            r#"{"model":"a/b","messages":[{"model":"no"}],"stream":true,"stream_options":{"include_usage":true}}"#.to_owned(),
            format!(r#" {{ "messages" : [{{"content":"{filler}"}}] , "model" : "a/b" , "stream":true, "stream_options":{{"include_usage":true}} }} "#),
            format!(r#"{{"model":"a/b","stream":true,"messages":"{filler}","stream_options": {{"include_usage":true}}}}"#),
        ] {
            let peeked = peek(&one(&text)).unwrap();
            assert_eq!(peeked.model(), Some("a/b"));
            assert_eq!(&text[peeked.model_span().unwrap()], "\"a/b\"");
            assert_eq!(peeked.stream, Some(true));
            assert_eq!(peeked.include_usage.map(|(_, wanted)| wanted), Some(true));
        }
    }

    #[test]
    fn a_field_given_twice_is_refused_however_it_is_spelled_and_wherever_it_hides() {
        let big = "y".repeat(40_000);
        for text in [
            r#"{"model":"a","model":"b"}"#.to_owned(),
            r#"{"model":"a","mod\u0065l":"b"}"#.to_owned(),
            format!(r#"{{"model":"a","messages":"{big}","mod\u0065l":"b","tools":"{big}"}}"#),
            format!(r#"{{"messages":"{big}","model":"b","tools":"{big}","model":"a"}}"#),
        ] {
            assert_eq!(
                peek(&one(&text)),
                Err(PeekError::Duplicate { field: "model" }),
                "{}",
                &text[..40]
            );
        }
    }

    #[test]
    fn what_is_no_request_is_told_what_was_wanted() {
        for (text, said) in [
            ("", "the request body is empty, a JSON object was wanted"),
            (
                "<html>",
                "the request body begins with '<', a JSON object was wanted",
            ),
            (
                "[1]",
                "the request body begins with '[', a JSON object was wanted",
            ),
            (r#"{"model":1}"#, "'model' must be a string, found 1"),
            (
                r#"{"model":"a","stream":"yes"}"#,
                "'stream' must be true or false, found \"yes\"",
            ),
            (
                r#"{"model":"a""#,
                "the request body is not valid JSON: the end of the object wanted at byte 12",
            ),
            (
                r#"{"model" "a"}"#,
                "the request body is not valid JSON: ':' wanted at byte 9",
            ),
            (
                r#"{"model":"a"} x"#,
                "the request body is not valid JSON: nothing more wanted at byte 14",
            ),
        ] {
            assert_eq!(peek(&one(text)).unwrap_err().to_string(), said);
        }
        assert_eq!(peek(&one("{}")).unwrap().model(), None);
        assert!(peek(&one(r#"{"model":"\ud800"}"#)).is_err());
    }

    #[test]
    fn nesting_of_any_depth_is_walked_without_a_stack() {
        let deep = format!(
            r#"{{"messages":{}{},"model":"m"}}"#,
            "[".repeat(100_000),
            "]".repeat(100_000)
        );
        assert_eq!(peek(&one(&deep)).unwrap().model(), Some("m"));
    }

    fn value() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            Just("null".to_owned()),
            Just("true".to_owned()),
            Just("-1.50e3".to_owned()),
            Just("12345678901234567890".to_owned()),
            Just(r#""plain""#.to_owned()),
            Just(r#""esc \" \\ \u00e9 \" model\":""#.to_owned()),
            Just(r#""\"model\": 1""#.to_owned()),
            Just("[]".to_owned()),
            Just("{}".to_owned()),
            Just("\"back\\\\\"".to_owned()),
            Just("\"model\"".to_owned()),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4)
                    .prop_map(|items| format!("[{}]", items.join(" ,"))),
                proptest::collection::vec(inner, 0..4).prop_map(|items| {
                    let named = ["\"model\"", "\"stream\"", "\"a\"", "\"\\\"model\""];
                    let members: Vec<String> = items
                        .iter()
                        .zip(named)
                        .map(|(item, name)| format!("{name}:\n{item}"))
                        .collect();
                    format!("{{ {} }}", members.join(","))
                }),
            ]
        })
    }

    fn document() -> impl Strategy<Value = String> {
        let big = prop_oneof![2 => Just(0_usize), 1 => 1_usize..60_000];
        let member = (
            prop_oneof![
                Just("model"),
                Just("stream"),
                Just("messages"),
                Just("tools"),
                Just("mod\\u0065l"),
                Just("n")
            ],
            value(),
            big,
        );
        (
            proptest::collection::vec(member, 0..6),
            prop_oneof![Just(""), Just(" "), Just("\r\n\t")],
        )
            .prop_map(|(members, space)| {
                let members: Vec<String> = members
                    .into_iter()
                    .map(|(name, value, big)| match (name, big) {
                        ("model" | "mod\\u0065l", _) => {
                            format!("\"{name}\"{space}:{space}\"m-{}\"", value.len())
                        }
                        ("stream", _) => format!("\"stream\":{space}{}", value.len() % 2 == 0),
                        (_, 0) => format!("{space}\"{name}\":{value}"),
                        (_, big) => format!(
                            "\"{name}\":[{value},{space}\"{}\",{value}]",
                            "\\\"\\\\z{".repeat(big / 6)
                        ),
                    })
                    .collect();
                format!(
                    "{space}{{{}{space}}}{space}",
                    members.join(&format!("{space},"))
                )
            })
    }

    /// The same answer from a parser that keeps duplicates.
    fn oracle(text: &str) -> Result<(Option<String>, Option<bool>), ()> {
        struct Pairs(Vec<(String, Value)>);
        impl<'de> serde::Deserialize<'de> for Pairs {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Visitor;
                impl<'de> serde::de::Visitor<'de> for Visitor {
                    type Value = Pairs;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("an object")
                    }
                    fn visit_map<A: serde::de::MapAccess<'de>>(
                        self,
                        mut map: A,
                    ) -> Result<Pairs, A::Error> {
                        let mut pairs = Vec::new();
                        while let Some(pair) = map.next_entry()? {
                            pairs.push(pair);
                        }
                        Ok(Pairs(pairs))
                    }
                }
                deserializer.deserialize_map(Visitor)
            }
        }
        let Pairs(pairs) = serde_json::from_str(text).map_err(drop)?;
        let all = |name: &str| {
            pairs
                .iter()
                .filter(|(key, _)| key == name)
                .map(|(_, value)| value.clone())
                .collect::<Vec<_>>()
        };
        let (models, streams) = (all("model"), all("stream"));
        if models.len() > 1 || streams.len() > 1 {
            return Err(());
        }
        Ok((
            models.first().and_then(Value::as_str).map(str::to_owned),
            streams.first().and_then(Value::as_bool),
        ))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]
        #[test]
        fn peeking_agrees_with_a_parser(text in document(), cuts in proptest::collection::vec(0_usize..200_000, 0..8)) {
            let frames = framed(text.as_bytes(), &cuts);
            let peeked = peek(&frames);
            match oracle(&text) {
                Ok((model, stream)) => {
                    let peeked = peeked.unwrap();
                    prop_assert_eq!(peeked.model().map(str::to_owned), model);
                    prop_assert_eq!(peeked.stream, stream);
                    if let Some(span) = peeked.model_span() {
                        let value: String = serde_json::from_str(&text[span]).unwrap();
                        prop_assert_eq!(Some(value.as_str()), peeked.model());
                    }
                }
                // A second `stream` between two big values may pass.
                Err(()) => prop_assert!(peeked.is_err() || text.len() > SMALL && text.matches("\"stream\"").count() > 1),
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), size in 1_usize..40) {
            let frames: Vec<Bytes> = bytes.chunks(size).map(Bytes::copy_from_slice).collect();
            drop(peek(&frames));
            let mut big = vec![b'{'; 3];
            while big.len() < 20_000 {
                big.extend_from_slice(&bytes);
                big.push(b'"');
            }
            drop(peek(&[Bytes::from(big)]));
        }
    }
}
