//! The items of a stream that is being written: what each has said so far, and
//! the events in which it says it. What an item says comes three times, as
//! deltas, as a whole and in the last event, so that it is held as it was
//! written until the end.

use bytes::BytesMut;

use crate::protocol::ir::{Annotation, Hosted, HostedKind, Media, MediaKind, Opaque, Source};
use crate::protocol::json::write::{Array, Object, number};
use crate::protocol::json::{Raw, Str, Tape, is_document};

/// Between a fragment and its sequence number.
const TAIL: &[u8] = b"\",\"sequence_number\":";
/// The same for text, whose events must have probabilities.
const TEXT_TAIL: &[u8] = b"\",\"logprobs\":[],\"sequence_number\":";

/// Numbers events and items, and keeps the items that are done.
#[derive(Debug)]
pub(super) struct Writer {
    /// The reply's id, of which those of the items are made.
    pub(super) id: String,
    /// The next event's number.
    pub(super) sequence: u64,
    /// Whether no event is written: only the answer as a whole is wanted.
    pub(super) quiet: bool,
    /// Bytes that are held.
    pub(super) held: usize,
    next: u64,
    store: BytesMut,
    done: Vec<(u64, std::ops::Range<usize>)>,
}

impl Writer {
    pub(super) fn new(id: String, quiet: bool) -> Self {
        Self {
            id,
            sequence: 0,
            quiet,
            held: 0,
            next: 0,
            store: BytesMut::new(),
            done: Vec::new(),
        }
    }

    /// One event.
    pub(super) fn event(
        &mut self,
        out: &mut BytesMut,
        kind: &str,
        fill: impl FnOnce(&mut Object<'_>),
    ) {
        if self.quiet {
            return;
        }
        head(out, kind);
        let mut object = Object::open(out);
        object.text("type", kind);
        fill(&mut object);
        object.number("sequence_number", self.sequence);
        drop(object);
        out.extend_from_slice(b"\n\n");
        self.sequence += 1;
    }

    /// The event of a fragment, whose beginning is at hand.
    fn fragment(&mut self, out: &mut BytesMut, prefix: &[u8], inner: &[u8], tail: &[u8]) {
        if self.quiet {
            return;
        }
        out.reserve(prefix.len() + inner.len() + tail.len() + 24);
        out.extend_from_slice(prefix);
        out.extend_from_slice(inner);
        out.extend_from_slice(tail);
        number(out, self.sequence);
        out.extend_from_slice(b"}\n\n");
        self.sequence += 1;
    }

    /// Whether that item is the last that was begun.
    pub(super) fn is_last(&self, place: &Place) -> bool {
        place.index + 1 == self.next
    }

    /// Makes room for an item.
    fn open(&mut self, prefix: &str) -> Place {
        let index = self.next;
        self.next += 1;
        Place {
            id: format!("{prefix}{}{index}", self.id),
            index,
        }
    }

    fn added(&mut self, out: &mut BytesMut, place: &Place, fill: impl FnOnce(&mut Object<'_>)) {
        self.event(out, "response.output_item.added", |event| {
            event.number("output_index", place.index);
            fill(&mut event.object("item"));
        });
    }

    fn done(&mut self, out: &mut BytesMut, place: &Place, fill: impl FnOnce(&mut Object<'_>)) {
        let from = self.store.len();
        fill(&mut Object::open(&mut self.store));
        let range = from..self.store.len();
        self.held += range.len();
        let item = self.store.split_off(from);
        self.event(out, "response.output_item.done", |event| {
            event.number("output_index", place.index);
            event.key("item").extend_from_slice(&item);
        });
        self.store.unsplit(item);
        self.done.push((place.index, range));
    }

    /// Writes the items that are done, in the order of their beginnings.
    pub(super) fn output(&self, array: &mut Array<'_>) {
        let mut done: Vec<_> = self.done.iter().collect();
        done.sort_unstable_by_key(|(index, _)| *index);
        for (_, range) in done {
            let item = self.store.get(range.clone()).unwrap_or_default();
            array.element().extend_from_slice(item);
        }
    }
}

fn head(out: &mut BytesMut, kind: &str) {
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(kind.as_bytes());
    out.extend_from_slice(b"\ndata: ");
}

/// Which item: its id and its number.
#[derive(Debug)]
pub(super) struct Place {
    id: String,
    index: u64,
}

impl Place {
    fn tell(&self, event: &mut Object<'_>) {
        event.text("item_id", &self.id);
        event.number("output_index", self.index);
    }

    /// The beginning of an event up to its fragment.
    fn prefix(&self, kind: &str, index: Option<(&str, u64)>) -> BytesMut {
        let mut out = BytesMut::with_capacity(256);
        head(&mut out, kind);
        let mut object = Object::open(&mut out);
        object.text("type", kind);
        self.tell(&mut object);
        if let Some((name, index)) = index {
            object.number(name, index);
        }
        object.key("delta").extend_from_slice(b"\"");
        drop(object);
        // The bracket with which the object closed itself.
        out.truncate(out.len() - 1);
        out
    }
}

fn quoted(out: &mut BytesMut, inner: &[u8]) {
    out.extend_from_slice(b"\"");
    out.extend_from_slice(inner);
    out.extend_from_slice(b"\"");
}

fn listed(out: &mut BytesMut, elements: &[u8]) {
    out.extend_from_slice(b"[");
    out.extend_from_slice(elements);
    out.extend_from_slice(b"]");
}

fn comma(list: &mut BytesMut) {
    if !list.is_empty() {
        list.extend_from_slice(b",");
    }
}

/// A message: one or more texts and refusals.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) place: Place,
    /// The part of the answer that is being written into it.
    pub(super) writing: Option<usize>,
    /// A signature that rides on its text.
    pub(super) signature: Option<Opaque<'static>>,
    contents: BytesMut,
    count: u64,
    content: Option<Content>,
}

/// A text or refusal of a message. Neighbouring texts of an answer are one.
#[derive(Debug)]
struct Content {
    refusal: bool,
    index: u64,
    prefix: BytesMut,
    text: BytesMut,
    logprobs: BytesMut,
    annotations: BytesMut,
    references: u64,
    /// Bytes of the text whose characters were counted, and those.
    counted: (usize, usize),
    /// Characters before the part that is being written.
    base: usize,
    waiting: Vec<Annotation<'static>>,
}

impl Message {
    pub(super) fn begin(writer: &mut Writer, out: &mut BytesMut) -> Self {
        let message = Self {
            place: writer.open("msg_"),
            writing: None,
            signature: None,
            contents: BytesMut::new(),
            count: 0,
            content: None,
        };
        writer.added(out, &message.place, |item| {
            message.item(item, "in_progress")
        });
        message
    }

    fn item(&self, item: &mut Object<'_>, status: &str) {
        item.text("id", &self.place.id);
        item.text("type", "message");
        item.text("status", status);
        item.text("role", "assistant");
        listed(item.key("content"), &self.contents);
    }

    /// Another part of the answer is to be written into this message.
    pub(super) fn write(
        &mut self,
        part: usize,
        refusal: bool,
        writer: &mut Writer,
        out: &mut BytesMut,
    ) {
        self.writing = Some(part);
        match &mut self.content {
            Some(content) if content.refusal == refusal && !refusal => {
                content.base = content.characters();
                return;
            }
            Some(_) => self.end_content(writer, out),
            None => {}
        }
        let content = Content::new(&self.place, self.count, refusal);
        self.count += 1;
        writer.event(out, "response.content_part.added", |event| {
            self.place.tell(event);
            event.number("content_index", content.index);
            content.part(&mut event.object("part"));
        });
        self.content = Some(content);
    }

    pub(super) fn text(
        &mut self,
        text: &Str<'_>,
        logprobs: &mut BytesMut,
        writer: &mut Writer,
        out: &mut BytesMut,
    ) {
        let Some(content) = &mut self.content else {
            return;
        };
        let inner = text.inner();
        content.text.extend_from_slice(inner.as_bytes());
        writer.held += inner.len();
        if logprobs.is_empty() || content.refusal {
            let tail = match content.refusal {
                true => TAIL,
                false => TEXT_TAIL,
            };
            writer.fragment(out, &content.prefix, inner.as_bytes(), tail);
            return;
        }
        let tokens = logprobs.split();
        comma(&mut content.logprobs);
        content.logprobs.extend_from_slice(&tokens);
        writer.held += tokens.len();
        writer.event(out, "response.output_text.delta", |event| {
            self.place.tell(event);
            event.number("content_index", content.index);
            quoted(event.key("delta"), inner.as_bytes());
            listed(event.key("logprobs"), &tokens);
        });
    }

    /// A reference. Without a span of its own it is to the whole part, whose
    /// length is known at its end.
    pub(super) fn annotate(
        &mut self,
        annotation: Annotation<'_>,
        writer: &mut Writer,
        out: &mut BytesMut,
    ) {
        let Some(content) = &mut self.content else {
            return;
        };
        if annotation.url.is_empty() || content.refusal {
            return;
        }
        match annotation.span {
            Some((from, to)) => {
                let span = (content.base + from, content.base + to);
                content.refer(&annotation, span, &self.place, writer, out);
            }
            None => {
                writer.held += annotation.url.len() + 64;
                let owned = Annotation {
                    url: annotation.url.into_owned(),
                    title: annotation.title.map(Str::into_owned),
                    cited: None,
                    span: None,
                };
                content.waiting.push(owned);
            }
        }
    }

    /// The part that was being written has ended; another may join.
    pub(super) fn end_part(&mut self, writer: &mut Writer, out: &mut BytesMut) {
        self.writing = None;
        let Some(content) = &mut self.content else {
            return;
        };
        if content.waiting.is_empty() {
            return;
        }
        let span = (content.base, content.characters());
        for annotation in std::mem::take(&mut content.waiting) {
            content.refer(&annotation, span, &self.place, writer, out);
        }
    }

    fn end_content(&mut self, writer: &mut Writer, out: &mut BytesMut) {
        let Some(content) = self.content.take() else {
            return;
        };
        let kind = match content.refusal {
            true => "response.refusal.done",
            false => "response.output_text.done",
        };
        writer.event(out, kind, |event| {
            self.place.tell(event);
            event.number("content_index", content.index);
            if content.refusal {
                quoted(event.key("refusal"), &content.text);
            } else {
                quoted(event.key("text"), &content.text);
                listed(event.key("logprobs"), &content.logprobs);
            }
        });
        comma(&mut self.contents);
        content.part(&mut Object::open(&mut self.contents));
        writer.event(out, "response.content_part.done", |event| {
            self.place.tell(event);
            event.number("content_index", content.index);
            content.part(&mut event.object("part"));
        });
    }

    pub(super) fn end(mut self, status: &str, writer: &mut Writer, out: &mut BytesMut) {
        self.end_part(writer, out);
        self.end_content(writer, out);
        let held = self.contents.len();
        writer.done(out, &self.place, |item| self.item(item, status));
        writer.held = writer.held.saturating_sub(held);
    }
}

impl Content {
    fn new(place: &Place, index: u64, refusal: bool) -> Self {
        let kind = match refusal {
            true => "response.refusal.delta",
            false => "response.output_text.delta",
        };
        Self {
            refusal,
            index,
            prefix: place.prefix(kind, Some(("content_index", index))),
            text: BytesMut::new(),
            logprobs: BytesMut::new(),
            annotations: BytesMut::new(),
            references: 0,
            counted: (0, 0),
            base: 0,
            waiting: Vec::new(),
        }
    }

    fn part(&self, part: &mut Object<'_>) {
        if self.refusal {
            part.text("type", "refusal");
            quoted(part.key("refusal"), &self.text);
        } else {
            part.text("type", "output_text");
            quoted(part.key("text"), &self.text);
            listed(part.key("annotations"), &self.annotations);
            listed(part.key("logprobs"), &self.logprobs);
        }
    }

    /// Characters of the text so far.
    fn characters(&mut self) -> usize {
        let (at, count) = self.counted;
        let new = plain(self.text.get(at..).unwrap_or_default());
        self.counted = (self.text.len(), count + new.chars().count());
        self.counted.1
    }

    fn refer(
        &mut self,
        annotation: &Annotation<'_>,
        (from, to): (usize, usize),
        place: &Place,
        writer: &mut Writer,
        out: &mut BytesMut,
    ) {
        let mut written = BytesMut::new();
        let mut object = Object::open(&mut written);
        object.text("type", "url_citation");
        object.number("start_index", from);
        object.number("end_index", to);
        object.str("url", &annotation.url);
        let title = annotation.title.as_ref().map(Str::borrowed);
        object.str("title", &title.unwrap_or_default());
        drop(object);
        writer.event(out, "response.output_text.annotation.added", |event| {
            place.tell(event);
            event.number("content_index", self.index);
            event.number("annotation_index", self.references);
            event.key("annotation").extend_from_slice(&written);
        });
        self.references += 1;
        writer.held += written.len();
        comma(&mut self.annotations);
        self.annotations.extend_from_slice(&written);
    }
}

/// What written text means.
fn plain(inner: &[u8]) -> String {
    let mut document = Vec::with_capacity(inner.len() + 2);
    document.push(b'"');
    document.extend_from_slice(inner);
    document.push(b'"');
    let mut tape = Tape::new();
    let value = tape.parse_bytes(&document).ok();
    let text = value.and_then(|value| value.as_str());
    text.map_or_else(String::new, |text| text.to_plain_string())
}

/// A reasoning item. It begins with the first thing that it says: one that says
/// nothing and has no ciphertext is none.
#[derive(Debug, Default)]
pub(super) struct Thinking {
    place: Option<Place>,
    /// Whether text is shown as content, not as summary.
    as_content: bool,
    summaries: BytesMut,
    contents: BytesMut,
    summary: Option<Stretch>,
    content: Option<Stretch>,
    count: u64,
    content_count: u64,
}

/// Which text of the reasoning a stretch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Voice {
    /// The reasoning itself.
    Full,
    /// A summary, by its number in the answer.
    Summary(usize),
}

#[derive(Debug)]
struct Stretch {
    voice: Voice,
    index: u64,
    prefix: BytesMut,
    text: BytesMut,
}

impl Thinking {
    pub(super) fn new(as_content: bool) -> Self {
        Self {
            as_content,
            ..Self::default()
        }
    }

    fn item(&self, item: &mut Object<'_>, place: &Place, encrypted: Option<&Str<'_>>) {
        item.text("id", &place.id);
        item.text("type", "reasoning");
        listed(item.key("summary"), &self.summaries);
        if !self.contents.is_empty() {
            listed(item.key("content"), &self.contents);
        }
        if let Some(encrypted) = encrypted {
            item.str("encrypted_content", encrypted);
        }
    }

    fn begin(&mut self, writer: &mut Writer, out: &mut BytesMut) -> Place {
        if let Some(place) = self.place.take() {
            return place;
        }
        let place = writer.open("rs_");
        writer.added(out, &place, |item| self.item(item, &place, None));
        place
    }

    pub(super) fn text(
        &mut self,
        voice: Voice,
        text: &Str<'_>,
        writer: &mut Writer,
        out: &mut BytesMut,
    ) {
        if text.is_empty() {
            return;
        }
        let place = self.begin(writer, out);
        let content = self.as_content && voice == Voice::Full;
        // One stretch is open at a time.
        let stretch = if content {
            self.end_summary(&place, writer, out);
            self.content_stretch(&place, writer, out)
        } else {
            self.end_content(&place, writer, out);
            self.summary_stretch(voice, &place, writer, out)
        };
        let inner = text.inner();
        stretch.text.extend_from_slice(inner.as_bytes());
        writer.held += inner.len();
        writer.fragment(out, &stretch.prefix, inner.as_bytes(), TAIL);
        self.place = Some(place);
    }

    fn summary_stretch(
        &mut self,
        voice: Voice,
        place: &Place,
        writer: &mut Writer,
        out: &mut BytesMut,
    ) -> &mut Stretch {
        if self
            .summary
            .as_ref()
            .is_some_and(|open| open.voice != voice)
        {
            self.end_summary(place, writer, out);
        }
        let index = self.count;
        self.summary.get_or_insert_with(|| {
            writer.event(out, "response.reasoning_summary_part.added", |event| {
                place.tell(event);
                event.number("summary_index", index);
                tell_part(&mut event.object("part"), "summary_text", b"");
            });
            Stretch {
                voice,
                index,
                prefix: place.prefix(
                    "response.reasoning_summary_text.delta",
                    Some(("summary_index", index)),
                ),
                text: BytesMut::new(),
            }
        })
    }

    fn content_stretch(
        &mut self,
        place: &Place,
        writer: &mut Writer,
        out: &mut BytesMut,
    ) -> &mut Stretch {
        let index = self.content_count;
        self.content.get_or_insert_with(|| {
            writer.event(out, "response.content_part.added", |event| {
                place.tell(event);
                event.number("content_index", index);
                tell_part(&mut event.object("part"), "reasoning_text", b"");
            });
            Stretch {
                voice: Voice::Full,
                index,
                prefix: place.prefix(
                    "response.reasoning_text.delta",
                    Some(("content_index", index)),
                ),
                text: BytesMut::new(),
            }
        })
    }

    fn end_summary(&mut self, place: &Place, writer: &mut Writer, out: &mut BytesMut) {
        let Some(open) = self.summary.take() else {
            return;
        };
        self.count += 1;
        writer.event(out, "response.reasoning_summary_text.done", |event| {
            place.tell(event);
            event.number("summary_index", open.index);
            quoted(event.key("text"), &open.text);
        });
        writer.event(out, "response.reasoning_summary_part.done", |event| {
            place.tell(event);
            event.number("summary_index", open.index);
            tell_part(&mut event.object("part"), "summary_text", &open.text);
        });
        comma(&mut self.summaries);
        tell_part(
            &mut Object::open(&mut self.summaries),
            "summary_text",
            &open.text,
        );
    }

    fn end_content(&mut self, place: &Place, writer: &mut Writer, out: &mut BytesMut) {
        let Some(open) = self.content.take() else {
            return;
        };
        self.content_count += 1;
        writer.event(out, "response.reasoning_text.done", |event| {
            place.tell(event);
            event.number("content_index", open.index);
            quoted(event.key("text"), &open.text);
        });
        writer.event(out, "response.content_part.done", |event| {
            place.tell(event);
            event.number("content_index", open.index);
            tell_part(&mut event.object("part"), "reasoning_text", &open.text);
        });
        comma(&mut self.contents);
        tell_part(
            &mut Object::open(&mut self.contents),
            "reasoning_text",
            &open.text,
        );
    }

    /// Whether anything of it was shown.
    pub(super) const fn is_shown(&self) -> bool {
        self.place.is_some()
    }

    pub(super) fn end(
        mut self,
        encrypted: Option<&Str<'_>>,
        writer: &mut Writer,
        out: &mut BytesMut,
    ) {
        if !self.is_shown() && encrypted.is_none() {
            return;
        }
        let place = self.begin(writer, out);
        self.end_summary(&place, writer, out);
        self.end_content(&place, writer, out);
        let held = self.summaries.len() + self.contents.len();
        writer.done(out, &place, |item| self.item(item, &place, encrypted));
        writer.held = writer.held.saturating_sub(held);
    }
}

fn tell_part(part: &mut Object<'_>, kind: &str, inner: &[u8]) {
    part.text("type", kind);
    quoted(part.key("text"), inner);
}

/// A call of a client's tool.
#[derive(Debug)]
pub(super) struct Calling {
    place: Place,
    custom: bool,
    call_id: Str<'static>,
    name: Str<'static>,
    namespace: Option<Str<'static>>,
    prefix: BytesMut,
    arguments: BytesMut,
}

/// What a call is, before it begins.
#[derive(Debug)]
pub(super) struct Announced {
    pub(super) id: Str<'static>,
    pub(super) name: Str<'static>,
    pub(super) namespace: Option<Str<'static>>,
    pub(super) custom: bool,
}

impl Announced {
    /// What is left where one was taken.
    pub(super) fn nothing() -> Self {
        Self {
            id: Str::default(),
            name: Str::default(),
            namespace: None,
            custom: false,
        }
    }
}

impl Calling {
    pub(super) fn begin(call: Announced, writer: &mut Writer, out: &mut BytesMut) -> Self {
        let (prefix, event) = match call.custom {
            true => ("ctc_", "response.custom_tool_call_input.delta"),
            false => ("fc_", "response.function_call_arguments.delta"),
        };
        let place = writer.open(prefix);
        // A result finds no way back to a call without an id.
        let call_id = match call.id.is_empty() {
            true => Str::from(format!("call_{}{}", writer.id, place.index)),
            false => call.id,
        };
        let calling = Self {
            prefix: place.prefix(event, None),
            place,
            custom: call.custom,
            call_id,
            name: call.name,
            namespace: call.namespace,
            arguments: BytesMut::new(),
        };
        writer.added(out, &calling.place, |item| {
            calling.item(item, "in_progress")
        });
        calling
    }

    fn item(&self, item: &mut Object<'_>, status: &str) {
        let (kind, arguments) = match self.custom {
            true => ("custom_tool_call", "input"),
            false => ("function_call", "arguments"),
        };
        item.text("id", &self.place.id);
        item.text("type", kind);
        item.text("status", status);
        item.str("call_id", &self.call_id);
        item.str("name", &self.name);
        if let Some(namespace) = &self.namespace {
            item.str("namespace", namespace);
        }
        quoted(item.key(arguments), &self.arguments);
    }

    pub(super) fn piece(&mut self, piece: &Str<'_>, writer: &mut Writer, out: &mut BytesMut) {
        let inner = piece.inner();
        if inner.is_empty() {
            return;
        }
        self.arguments.extend_from_slice(inner.as_bytes());
        writer.held += inner.len();
        writer.fragment(out, &self.prefix, inner.as_bytes(), TAIL);
    }

    /// Arguments as a whole. Those of a custom tool are text: a JSON string is what
    /// it says.
    pub(super) fn whole(&mut self, value: &Raw<'_>, writer: &mut Writer, out: &mut BytesMut) {
        let mut tape = Tape::new();
        let text = tape.parse(value.as_str()).ok().and_then(|v| v.as_str());
        match text.filter(|_| self.custom) {
            Some(text) => self.piece(&text, writer, out),
            None => self.piece(&Str::from(value.compact()), writer, out),
        }
    }

    /// The call is done; one whose arguments are no JSON was cut off.
    pub(super) fn end(mut self, whole: bool, writer: &mut Writer, out: &mut BytesMut) {
        if self.arguments.is_empty() && !self.custom {
            self.piece(&Str::new("{}"), writer, out);
        }
        let whole = whole && (self.custom || is_document(plain(&self.arguments).as_bytes()));
        let status = match whole {
            true => "completed",
            false => "incomplete",
        };
        let (kind, name) = match self.custom {
            true => ("response.custom_tool_call_input.done", "input"),
            false => ("response.function_call_arguments.done", "arguments"),
        };
        writer.event(out, kind, |event| {
            self.place.tell(event);
            if !self.custom {
                event.str("name", &self.name);
            }
            quoted(event.key(name), &self.arguments);
        });
        let held = self.arguments.len();
        writer.done(out, &self.place, |item| self.item(item, status));
        writer.held = writer.held.saturating_sub(held);
    }
}

/// A picture that the model drew.
pub(super) fn picture(media: &Media<'_>, writer: &mut Writer, out: &mut BytesMut) {
    let Source::Inline { mime, data } = &media.source else {
        return;
    };
    if media.kind != MediaKind::Image {
        return;
    }
    let format = mime.strip_prefix("image/").unwrap_or("png");
    let place = writer.open("ig_");
    let tell = |item: &mut Object<'_>, done: bool| {
        item.text("id", &place.id);
        item.text("type", "image_generation_call");
        if done {
            item.text("status", "completed");
            item.text(
                "output_format",
                format.strip_suffix("+xml").unwrap_or(format),
            );
            item.str("result", data);
        } else {
            item.text("status", "in_progress");
            item.null("result");
        }
    };
    writer.added(out, &place, |item| tell(item, false));
    let steps = ["in_progress", "generating", "completed"];
    step(&place, "image_generation_call", &steps, writer, out);
    writer.done(out, &place, |item| tell(item, true));
}

fn step(place: &Place, kind: &str, steps: &[&str], writer: &mut Writer, out: &mut BytesMut) {
    for step in steps {
        writer.event(out, &format!("response.{kind}.{step}"), |event| {
            place.tell(event)
        });
    }
}

/// A hosted tool's call and result, in the words of the tools that Responses
/// knows; others are not told.
pub(super) fn hosted(hosted: &Hosted<'_>, writer: &mut Writer, out: &mut BytesMut) {
    match hosted.kind {
        HostedKind::WebSearch | HostedKind::WebFetch => search(hosted, writer, out),
        HostedKind::Code => code(hosted, writer, out),
        HostedKind::FileSearch | HostedKind::ImageGeneration | HostedKind::Other => {}
    }
}

/// A string member of a hosted call's input.
fn input<'a>(hosted: &'a Hosted<'_>, tape: &'a mut Tape, name: &str) -> Option<Str<'a>> {
    let root = tape.parse(hosted.input.as_ref()?.as_str()).ok()?;
    root.get(name)?.as_str()
}

const fn status(hosted: &Hosted<'_>) -> &'static str {
    match hosted.failed {
        true => "failed",
        false => "completed",
    }
}

fn search(hosted: &Hosted<'_>, writer: &mut Writer, out: &mut BytesMut) {
    let place = writer.open("ws_");
    let mut tape = Tape::new();
    let url = input(hosted, &mut tape, "url").map(Str::into_owned);
    let mut tape = Tape::new();
    let query = input(hosted, &mut tape, "query").unwrap_or_default();
    let tell = |item: &mut Object<'_>, status: &str| {
        item.text("id", &place.id);
        item.text("type", "web_search_call");
        item.text("status", status);
        let mut action = item.object("action");
        if let Some(url) = &url {
            action.text("type", "open_page");
            action.str("url", url);
            return;
        }
        action.text("type", "search");
        action.str("query", &query);
        action.array("queries").str(&query);
        if !hosted.sources.is_empty() {
            let mut sources = action.array("sources");
            for hit in &hosted.sources {
                sources.object().text("type", "url").str("url", &hit.url);
            }
        }
    };
    writer.added(out, &place, |item| tell(item, "in_progress"));
    let steps = ["in_progress", "searching", "completed"];
    step(&place, "web_search_call", &steps, writer, out);
    writer.done(out, &place, |item| tell(item, status(hosted)));
}

fn code(hosted: &Hosted<'_>, writer: &mut Writer, out: &mut BytesMut) {
    let place = writer.open("ci_");
    let mut tape = Tape::new();
    let code = input(hosted, &mut tape, "code").unwrap_or_default();
    let tell = |item: &mut Object<'_>, done: bool| {
        item.text("id", &place.id);
        item.text("type", "code_interpreter_call");
        item.text("status", if done { status(hosted) } else { "in_progress" });
        let code = if done {
            code.borrowed()
        } else {
            Str::default()
        };
        item.str("code", &code);
        item.text("container_id", "none");
        let mut outputs = item.array("outputs");
        if let Some(output) = hosted.output.as_ref().filter(|_| done) {
            outputs.object().text("type", "logs").str("logs", output);
        }
    };
    writer.added(out, &place, |item| tell(item, false));
    step(
        &place,
        "code_interpreter_call",
        &["in_progress"],
        writer,
        out,
    );
    for (step, name) in [("delta", "delta"), ("done", "code")] {
        let kind = format!("response.code_interpreter_call_code.{step}");
        writer.event(out, &kind, |event| {
            place.tell(event);
            event.str(name, &code);
        });
    }
    let steps = ["interpreting", "completed"];
    step(&place, "code_interpreter_call", &steps, writer, out);
    writer.done(out, &place, |item| tell(item, true));
}
