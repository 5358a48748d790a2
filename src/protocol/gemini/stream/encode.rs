//! A client's stream: a chunk for each increment, and a last one for each answer.
//!
//! With `alt=sse` each chunk is exactly `data: `, one line of JSON and an empty
//! line: Google's own SDKs die on anything else. Without, the chunks are the
//! elements of one JSON array.

use bytes::BytesMut;

use crate::protocol::Protocol;
use crate::protocol::error::{self, ErrorBody, ErrorClass, Source};
use crate::protocol::gemini::telling::{Sink, Telling, To};
use crate::protocol::gemini::{finish, logprobs, usage};
use crate::protocol::ir::{Delta, Finish};
use crate::protocol::json::{Object, Str, write};
use crate::protocol::translate::Reply;
use crate::protocol::usage::Tokens;

/// More than this must not wait for its turn.
const MOST_HELD: usize = 16 * 1024 * 1024;
/// Answers beyond this many are nobody's.
const MOST_CHOICES: usize = 64;

/// Writes a client's stream.
#[derive(Debug)]
pub struct Encoder {
    reply: Reply,
    frames: Frames,
    choices: Vec<Telling>,
    tokens: Tokens,
    over: bool,
}

impl Encoder {
    /// For that client.
    #[must_use]
    pub fn new(reply: Reply) -> Self {
        Self {
            frames: Frames::new(&reply),
            reply,
            choices: Vec::new(),
            tokens: Tokens::default(),
            over: false,
        }
    }

    /// Writes what follows from one delta.
    pub fn delta(&mut self, delta: Delta<'_>, out: &mut BytesMut) {
        if self.over {
            return;
        }
        match delta {
            Delta::Text { choice, part, text } => {
                self.tell(choice, out, |telling, to| telling.text(part, &text, to));
            }
            Delta::Usage { tokens, .. } => self.tokens.update(&tokens),
            Delta::Error {
                class,
                message,
                code,
            } => self.fail(class, message, code, out),
            Delta::End => self.end(out),
            Delta::Start { .. } | Delta::Meta { .. } | Delta::Ping => {}
            other => self.step(other, out),
        }
        if self.choices.iter().map(Telling::weight).sum::<usize>() > MOST_HELD && !self.over {
            let message = "the provider's answer has more open parts than can be held".to_owned();
            self.fail(ErrorClass::UpstreamFailed, message, None, out);
        }
    }

    /// The deltas that are rarer.
    fn step(&mut self, delta: Delta<'_>, out: &mut BytesMut) {
        match delta {
            Delta::PartStart { choice, part, kind } => {
                self.tell(choice, out, |telling, to| telling.begin(part, kind, to));
            }
            Delta::Summary {
                choice,
                part,
                index,
                text,
            } => self.tell(choice, out, |telling, to| {
                telling.summary(part, index, &text, to);
            }),
            Delta::Arguments {
                choice,
                part,
                piece,
            } => self.tell(choice, out, |telling, _| {
                telling.arguments(part, &piece.plain());
            }),
            Delta::ArgumentsWhole {
                choice,
                part,
                value,
            } => self.tell(choice, out, |telling, _| {
                telling.arguments_whole(part, &value);
            }),
            Delta::Opaque {
                choice,
                part,
                opaque,
            } => self.tell(choice, out, |telling, _| telling.opaque(part, opaque)),
            Delta::Annotation {
                choice,
                part,
                annotation,
            } => self.tell(choice, out, |telling, _| {
                telling.annotation(part, annotation);
            }),
            Delta::PartEnd { choice, part } => {
                self.tell(choice, out, |telling, to| telling.end(part, to));
            }
            Delta::Finish { choice, finish } => {
                self.tell(choice, out, |telling, to| telling.finish(finish, to));
            }
            Delta::Logprobs { choice, tokens } if choice < MOST_CHOICES => {
                self.frames.chunk(
                    choice,
                    out,
                    |out| {
                        out.extend_from_slice(b"{\"text\":\"\"}");
                    },
                    |candidate| logprobs::encode(&tokens, candidate),
                );
            }
            _ => {}
        }
    }

    fn tell(
        &mut self,
        choice: usize,
        out: &mut BytesMut,
        step: impl FnOnce(&mut Telling, &mut To<'_>),
    ) {
        if self.choices.len() <= choice && choice < MOST_CHOICES {
            self.choices.resize_with(choice + 1, Telling::default);
        }
        let Some(telling) = self.choices.get_mut(choice) else {
            return;
        };
        let mut stream = Stream {
            frames: &mut self.frames,
            choice,
            out,
        };
        let mut to = To {
            reply: &self.reply,
            sink: &mut stream,
        };
        step(telling, &mut to);
    }

    /// The last chunk of each answer; the very last has the usage too.
    fn end(&mut self, out: &mut BytesMut) {
        self.over = true;
        if self.choices.is_empty() {
            self.choices.push(Telling::default());
        }
        let mut choices = std::mem::take(&mut self.choices);
        let last = choices.len() - 1;
        for (choice, telling) in choices.iter_mut().enumerate() {
            let mut parts = BytesMut::new();
            telling.last(&mut To {
                reply: &self.reply,
                sink: &mut Listed(&mut parts),
            });
            let tokens = (choice == last).then_some(&self.tokens);
            self.frames.last(choice, telling, &parts, tokens, out);
        }
        self.frames.close(out);
    }

    fn fail(
        &mut self,
        class: ErrorClass,
        message: String,
        code: Option<String>,
        out: &mut BytesMut,
    ) {
        self.over = true;
        let error = ErrorBody {
            code,
            ..ErrorBody::new(class, message, Source::Provider)
        };
        let array = self.frames.array;
        let frame = error::encode_stream_failure(Protocol::Gemini, &error, "", 0, array);
        match frame.split_first() {
            // The first element of an array has nothing to be parted from.
            Some((b',', rest)) if !self.frames.begun => {
                out.extend_from_slice(b"[");
                out.extend_from_slice(rest);
            }
            _ => out.extend_from_slice(&frame),
        }
    }
}

/// Writes chunks.
#[derive(Debug)]
struct Frames {
    array: bool,
    /// Whether there was one.
    begun: bool,
    /// The members that every chunk ends with.
    tail: BytesMut,
}

impl Frames {
    fn new(reply: &Reply) -> Self {
        let mut tail = BytesMut::new();
        tail.extend_from_slice(b",\"modelVersion\":");
        write::string(&mut tail, &Str::new(&reply.model));
        tail.extend_from_slice(b",\"responseId\":");
        write::string(&mut tail, &Str::new(&reply.id));
        tail.extend_from_slice(b"}");
        if !reply.array {
            tail.extend_from_slice(b"\n\n");
        }
        Self {
            array: reply.array,
            begun: false,
            tail,
        }
    }

    /// What stands before a chunk.
    fn open(&mut self, out: &mut BytesMut) {
        let before: &[u8] = match (self.array, self.begun) {
            (false, _) => b"data: ",
            (true, false) => b"[",
            (true, true) => b",\r\n",
        };
        self.begun = true;
        out.extend_from_slice(before);
    }

    /// A chunk of one answer with one part, and more members of the candidate.
    fn chunk(
        &mut self,
        choice: usize,
        out: &mut BytesMut,
        part: impl FnOnce(&mut BytesMut),
        more: impl FnOnce(&mut Object<'_>),
    ) {
        self.open(out);
        out.extend_from_slice(b"{\"candidates\":[");
        {
            let mut candidate = Object::open(out);
            let content = candidate.key("content");
            content.extend_from_slice(b"{\"role\":\"model\",\"parts\":[");
            part(content);
            content.extend_from_slice(b"]}");
            more(&mut candidate);
            candidate.number("index", choice);
        }
        out.extend_from_slice(b"]");
        out.extend_from_slice(&self.tail);
    }

    /// The last chunk of an answer.
    fn last(
        &mut self,
        choice: usize,
        telling: &Telling,
        parts: &BytesMut,
        tokens: Option<&Tokens>,
        out: &mut BytesMut,
    ) {
        self.open(out);
        out.extend_from_slice(b"{\"candidates\":[");
        {
            let mut candidate = Object::open(out);
            let content = candidate.key("content");
            content.extend_from_slice(b"{\"role\":\"model\",\"parts\":[");
            content.extend_from_slice(parts);
            content.extend_from_slice(b"]}");
            candidate.text("finishReason", finish::encode(telling.ending()));
            if let Some(Finish::ContentFilter {
                text: Some(text), ..
            }) = telling.ending()
            {
                candidate.text("finishMessage", text);
            }
            candidate.number("index", choice);
            telling.grounding().write(&mut candidate, None);
        }
        out.extend_from_slice(b"]");
        if let Some(tokens) = tokens {
            let mut usage = BytesMut::new();
            usage::encode(tokens, &mut Object::open(&mut usage));
            // One member of the chunk, without the braces around it.
            let member = usage.get(1..usage.len() - 1).unwrap_or_default();
            out.extend_from_slice(b",");
            out.extend_from_slice(member);
        }
        out.extend_from_slice(&self.tail);
    }

    /// The end of the stream.
    fn close(&mut self, out: &mut BytesMut) {
        if self.array {
            out.extend_from_slice(b"]");
        }
    }
}

/// Parts as chunks of their own.
struct Stream<'s> {
    frames: &'s mut Frames,
    choice: usize,
    out: &'s mut BytesMut,
}

impl Sink for Stream<'_> {
    fn part(&mut self, part: &mut dyn FnMut(&mut BytesMut)) {
        self.frames
            .chunk(self.choice, self.out, |out| part(out), |_| {});
    }
}

/// Parts as elements of one array.
pub(in crate::protocol::gemini) struct Listed<'l>(pub(in crate::protocol::gemini) &'l mut BytesMut);

impl Sink for Listed<'_> {
    fn part(&mut self, part: &mut dyn FnMut(&mut BytesMut)) {
        if !self.0.is_empty() {
            self.0.extend_from_slice(b",");
        }
        part(self.0);
    }
}
