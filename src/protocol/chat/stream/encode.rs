//! A client's stream, frame by frame.

mod line;

use bytes::{Bytes, BytesMut};

use crate::protocol::chat::{error, response, usage};
use crate::protocol::error::{ErrorBody, ErrorClass, Source};
use crate::protocol::ir::{Delta, Finish};
use crate::protocol::json::{Object, Str, write};
use crate::protocol::translate::Reply;
use crate::protocol::usage::Tokens;

use self::line::Line;

/// The most answers of one request.
const CHOICES: usize = 1024;

/// Writes a client's stream.
#[derive(Debug)]
pub struct Encoder {
    frames: Frames,
    lines: Vec<Line>,
    tokens: Option<Tokens>,
    over: bool,
}

/// What all frames have in common, written once.
#[derive(Debug)]
struct Frames {
    reply: Reply,
    /// Up to the number of the choice.
    head: Vec<u8>,
    /// Behind the choice: the end of the frame.
    tail: Vec<u8>,
    /// Members that the provider told on the way, with a comma before each.
    meta: Vec<u8>,
}

impl Frames {
    fn new(reply: Reply) -> Self {
        let mut head = BytesMut::new();
        let mut body = Object::open(&mut head);
        response::head(&mut body, &reply, "chat.completion.chunk");
        drop(body);
        head.truncate(head.len() - 1);
        let mut frames = Self {
            head: [b"data: ", head.as_ref(), b",\"choices\":["].concat(),
            tail: Vec::new(),
            meta: Vec::new(),
            reply,
        };
        frames.set_tail();
        frames
    }

    fn set_tail(&mut self) {
        let usage: &[u8] = if self.reply.include_usage {
            b",\"usage\":null"
        } else {
            b""
        };
        self.tail = [b"]", usage, &self.meta, b"}\n\n"].concat();
    }

    fn meta(&mut self, service: Option<&Str<'_>>, fingerprint: Option<&Str<'_>>) {
        let mut meta = BytesMut::from(self.meta.as_slice());
        if let Some(service) = service {
            meta.extend_from_slice(b",\"service_tier\":");
            write::string(&mut meta, &response::tier(service));
        }
        if let Some(fingerprint) = fingerprint {
            meta.extend_from_slice(b",\"system_fingerprint\":");
            write::string(&mut meta, fingerprint);
        }
        self.meta = meta.to_vec();
        self.set_tail();
    }

    /// Opens a frame up to the inside of `delta`.
    fn open(&self, choice: usize, out: &mut BytesMut) {
        out.extend_from_slice(&self.head);
        out.extend_from_slice(b"{\"index\":");
        write::number(out, choice);
        out.extend_from_slice(b",\"delta\":{");
    }

    /// Closes a frame that is not the last of its choice.
    fn close(&self, out: &mut BytesMut) {
        out.extend_from_slice(b"},\"logprobs\":null,\"finish_reason\":null}");
        out.extend_from_slice(&self.tail);
    }

    /// The last frame of a choice.
    fn finish(&self, choice: usize, word: &str, out: &mut BytesMut) {
        self.open(choice, out);
        out.extend_from_slice(b"},\"logprobs\":null,\"finish_reason\":\"");
        out.extend_from_slice(word.as_bytes());
        out.extend_from_slice(b"\"}");
        out.extend_from_slice(&self.tail);
    }

    /// The frame that tells the tokens, and belongs to no choice.
    fn usage(&self, tokens: &Tokens, out: &mut BytesMut) {
        out.extend_from_slice(&self.head);
        out.extend_from_slice(b"],\"usage\":");
        usage::write(tokens, out);
        out.extend_from_slice(&self.meta);
        out.extend_from_slice(b"}\n\n");
    }
}

impl Encoder {
    /// For that client.
    #[must_use]
    pub fn new(reply: Reply) -> Self {
        Self {
            frames: Frames::new(reply),
            lines: Vec::new(),
            tokens: None,
            over: false,
        }
    }

    /// Writes what follows from one delta.
    pub fn delta(&mut self, delta: Delta<'_>, out: &mut BytesMut) {
        if self.over {
            return;
        }
        match delta {
            Delta::Start { .. } | Delta::Ping => {}
            Delta::Usage { tokens, .. } => match &mut self.tokens {
                Some(known) => known.update(&tokens),
                None => self.tokens = Some(tokens),
            },
            Delta::Meta {
                service,
                fingerprint,
            } => self.frames.meta(service.as_ref(), fingerprint.as_ref()),
            Delta::Error {
                class,
                message,
                code,
            } => self.fail(class, message, code, out),
            Delta::Finish {
                finish: Finish::BadToolCall(message),
                ..
            } => self.fail(ErrorClass::UpstreamFailed, message, None, out),
            Delta::End => self.end(out),
            Delta::PartStart { choice, .. }
            | Delta::Text { choice, .. }
            | Delta::Summary { choice, .. }
            | Delta::Arguments { choice, .. }
            | Delta::ArgumentsWhole { choice, .. }
            | Delta::Opaque { choice, .. }
            | Delta::Annotation { choice, .. }
            | Delta::Logprobs { choice, .. }
            | Delta::PartEnd { choice, .. }
            | Delta::Finish { choice, .. } => {
                if self.begin(choice, out)
                    && let Some(line) = self.lines.get_mut(choice)
                {
                    line.delta(delta, &self.frames, out);
                }
            }
        }
    }

    /// Tells the role of a choice, once. SDKs expect choices to turn up in order.
    fn begin(&mut self, choice: usize, out: &mut BytesMut) -> bool {
        if choice >= CHOICES {
            return false;
        }
        while self.lines.len() <= choice {
            let number = self.lines.len();
            self.frames.open(number, out);
            out.extend_from_slice(b"\"role\":\"assistant\",\"content\":\"\"");
            self.frames.close(out);
            self.lines.push(Line::new(number));
        }
        true
    }

    fn end(&mut self, out: &mut BytesMut) {
        self.over = true;
        if self.frames.reply.include_usage {
            self.frames.usage(&self.tokens.unwrap_or_default(), out);
        }
        out.extend_from_slice(b"data: [DONE]\n\n");
    }

    /// The last frame of a stream that failed: no `[DONE]` behind it, which would
    /// tell SDKs that the answer is whole.
    fn fail(
        &mut self,
        class: ErrorClass,
        message: String,
        code: Option<String>,
        out: &mut BytesMut,
    ) {
        self.over = true;
        let mut body = ErrorBody::new(class, message, Source::Provider);
        body.code = code;
        let bytes = Bytes::from(error::encode_stream_failure(&body));
        out.extend_from_slice(&bytes);
    }
}
