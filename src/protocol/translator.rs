//! One answer on its way from a provider's protocol into a client's: decoder,
//! fixups, encoder, and a tally of what passed.
//!
//! Bytes in, bytes out; any chunking of the input gives the same output.

use bytes::{Bytes, BytesMut};

use super::collect::{Collector, replay};
use super::error::{ErrorClass, UpstreamError, unreadable};
use super::filter::{Filter, Fixups};
use super::ir::{Delta, Finish, PartKind, Response};
use super::json::{Tape, Value};
use super::meter::Reading;
use super::notes::Notes;
use super::resume::Resume;
use super::sse;
use super::translate::{Reply, StreamDecoder, StreamEncoder, decode_response, encode_response};
use super::{Protocol, chat};

/// What was seen of an answer, for the books.
#[derive(Debug, Default)]
struct Tally {
    reading: Reading,
    finished: bool,
    over: bool,
    failure: Option<String>,
}

impl Tally {
    /// Notes a delta; false when it comes after the end and must not be written.
    fn see(&mut self, delta: &Delta<'_>) -> bool {
        if self.over {
            return false;
        }
        match delta {
            Delta::PartStart {
                kind: PartKind::Call { .. },
                ..
            } => self.reading.tool_calls = self.reading.tool_calls.saturating_add(1),
            Delta::Usage { tokens, .. } => self.reading.tokens.update(tokens),
            Delta::Finish { finish, .. } => {
                self.finished = true;
                self.reading.finish_reason = Some(finish.word().into());
            }
            Delta::Error { message, .. } => {
                self.over = true;
                self.failure = Some(message.clone());
            }
            Delta::End => self.over = true,
            _ => {}
        }
        true
    }
}

/// A stream that is being translated.
#[derive(Debug)]
pub struct Translator {
    upstream: Protocol,
    frames: sse::Decoder,
    decoder: StreamDecoder,
    resume: Option<Box<Resume>>,
    filter: Filter,
    encoder: StreamEncoder,
    tally: Tally,
}

impl Translator {
    /// For the answer to one request.
    #[must_use]
    pub fn new(fixups: Fixups, reply: Reply) -> Self {
        Self {
            upstream: reply.upstream,
            frames: sse::Decoder::new(),
            decoder: StreamDecoder::new(reply.upstream).with(&fixups),
            resume: None,
            filter: Filter::new(fixups),
            encoder: StreamEncoder::new(reply),
            tally: Tally::default(),
        }
    }

    /// The same; where the provider pauses, it can be asked to go on
    /// ([`Translator::next_round`]).
    #[must_use]
    pub fn resumed(self, resume: Option<Resume>) -> Self {
        Self {
            resume: resume.map(Box::new),
            ..self
        }
    }

    /// Reads what the provider sent; what can be told the client is written.
    pub fn push(&mut self, chunk: &[u8], out: &mut BytesMut) {
        let Self {
            frames,
            decoder,
            resume,
            filter,
            encoder,
            tally,
            ..
        } = self;
        let read = frames.push(chunk, |event| {
            let mut write = |delta: Delta<'_>| {
                filter.delta(delta, &mut |delta| {
                    if tally.see(&delta) {
                        encoder.delta(delta, out);
                    }
                });
            };
            read_event(decoder, resume.as_deref_mut(), &event, &mut write);
        });
        if let Err(error) = read {
            self.fail(ErrorClass::UpstreamFailed, &error.to_string(), out);
        }
    }

    /// The provider closed its stream.
    pub fn finish(&mut self, out: &mut BytesMut) {
        let Self {
            frames,
            decoder,
            resume,
            filter,
            encoder,
            tally,
            ..
        } = self;
        let mut write = |delta: Delta<'_>| {
            filter.delta(delta, &mut |delta| {
                if tally.see(&delta) {
                    encoder.delta(delta, out);
                }
            });
        };
        frames.finish(|event| read_event(decoder, resume.as_deref_mut(), &event, &mut write));
        read_end(decoder, resume.as_deref_mut(), &mut write);
    }

    /// The request by which a provider that paused goes on with its answer; what it
    /// sends then is pushed behind what came before. `None` where it did not pause.
    pub fn next_round(&mut self) -> Option<Vec<Bytes>> {
        let request = self.resume.as_mut()?.next()?;
        self.frames = sse::Decoder::new();
        self.decoder = StreamDecoder::new(self.upstream);
        Some(request)
    }

    /// What became of pauses.
    #[must_use]
    pub fn notes(&self) -> Option<Notes> {
        let notes = self.resume.as_ref().map(|resume| resume.notes());
        notes.filter(|notes| !notes.is_empty())
    }

    /// The answer ends here, in the client's own error event.
    pub fn fail(&mut self, class: ErrorClass, message: &str, out: &mut BytesMut) {
        let delta = Delta::Error {
            class,
            message: message.to_owned(),
            code: None,
        };
        if self.tally.see(&delta) {
            self.encoder.delta(delta, out);
        }
    }

    /// Whether nothing more is to come, whatever the provider sends.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.tally.over
    }

    /// Whether the answer was cut at a stop text: the provider may as well be
    /// told to stop.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.filter.stopped()
    }

    /// Whether the client has been told how the answer ended.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.tally.over && self.tally.failure.is_none()
    }

    /// What the error event said that the answer ended in.
    #[must_use]
    pub fn failure(&self) -> Option<&str> {
        self.tally.failure.as_deref()
    }

    /// What was read so far.
    #[must_use]
    pub fn reading(&self) -> Reading {
        self.tally.reading.clone()
    }
}

fn read_event(
    decoder: &mut StreamDecoder,
    resume: Option<&mut Resume>,
    event: &sse::Event<'_>,
    emit: &mut dyn FnMut(Delta<'_>),
) {
    let Some(resume) = resume else {
        return decoder.event(event.name, event.data, emit);
    };
    resume.see(event.data);
    decoder.event(event.name, event.data, &mut |delta| {
        resume.pass(delta, emit);
    });
}

fn read_end(
    decoder: &mut StreamDecoder,
    resume: Option<&mut Resume>,
    emit: &mut dyn FnMut(Delta<'_>),
) {
    match resume {
        Some(resume) => decoder.finish(&mut |delta| resume.pass(delta, emit)),
        None => decoder.finish(emit),
    }
}

/// A whole answer, translated.
#[derive(Debug)]
pub struct Translated {
    /// The document, or the whole stream, for the client.
    pub body: Bytes,
    /// What was read.
    pub reading: Reading,
}

/// Translates a provider's document. With `stream`, the client gets it as the
/// stream that it asked for.
///
/// # Errors
///
/// Where it is an error in the clothes of an answer, or no answer at all.
pub fn document(
    body: &[u8],
    fixups: Fixups,
    reply: Reply,
    stream: bool,
) -> Result<Translated, UpstreamError> {
    let mut tape = Tape::new();
    let root = tape.parse_bytes(body).map_err(|_| unreadable(body))?;
    if root.is_array() && reply.upstream == Protocol::Gemini {
        return array(root, fixups, reply, stream);
    }
    let mut response = decode_response(reply.upstream, root)?;
    if fixups.think_tags {
        chat::response::take_think_tags(&mut response);
    }
    if let Some(error) = broken(&response) {
        return Err(error);
    }
    let mut filter = Filter::new(fixups);
    let response = filter.response(response);
    Ok(written(&response, reply, stream))
}

/// Gemini's stream as a JSON array, read at once.
fn array(
    root: Value<'_>,
    fixups: Fixups,
    reply: Reply,
    stream: bool,
) -> Result<Translated, UpstreamError> {
    let mut collecting = Collecting::new(reply.upstream, fixups, usize::MAX);
    for item in root.items() {
        collecting.event(None, item.raw().as_str().as_bytes());
    }
    let response = collecting.finish()?;
    Ok(written(&response, reply, stream))
}

fn written(response: &Response<'_>, reply: Reply, stream: bool) -> Translated {
    let reading = reading_of(response);
    let body = if stream {
        let mut out = BytesMut::new();
        let mut encoder = StreamEncoder::new(reply);
        replay(response, &mut |delta| encoder.delta(delta, &mut out));
        out.freeze()
    } else {
        encode_response(response, &reply)
    };
    Translated { body, reading }
}

/// A call that can't be read is a failure of the provider: an agent that is told
/// `stop` would believe that it is done.
fn broken(response: &Response<'_>) -> Option<UpstreamError> {
    let finishes = response.choices.iter().filter_map(|c| c.finish.as_ref());
    let mut bad = finishes.filter_map(|finish| match finish {
        Finish::BadToolCall(word) => Some(word),
        _ => None,
    });
    bad.next().map(|word| UpstreamError {
        class: ErrorClass::UpstreamFailed,
        message: format!("the model made a call that can't be read ({word})"),
        code: Some("upstream_malformed_function_call".into()),
        retry_after: None,
    })
}

fn reading_of(response: &Response<'_>) -> Reading {
    let mut tally = Tally::default();
    replay(response, &mut |delta| {
        tally.see(&delta);
    });
    tally.reading
}

/// A provider's stream for a client that wants a document.
#[derive(Debug)]
pub struct Collecting {
    upstream: Protocol,
    frames: sse::Decoder,
    decoder: StreamDecoder,
    resume: Option<Box<Resume>>,
    /// Whether the stream was read to its end.
    ended: bool,
    filter: Filter,
    collector: Collector,
    failure: Option<UpstreamError>,
    over: bool,
}

impl Collecting {
    /// Holds at most `limit` bytes of the answer.
    #[must_use]
    pub fn new(upstream: Protocol, fixups: Fixups, limit: usize) -> Self {
        Self {
            upstream,
            frames: sse::Decoder::new(),
            decoder: StreamDecoder::new(upstream).with(&fixups),
            resume: None,
            ended: false,
            filter: Filter::new(fixups),
            collector: Collector::new(limit),
            failure: None,
            over: false,
        }
    }

    /// The same; where the provider pauses, it can be asked to go on
    /// ([`Collecting::next_round`]).
    #[must_use]
    pub fn resumed(self, resume: Option<Resume>) -> Self {
        Self {
            resume: resume.map(Box::new),
            ..self
        }
    }

    /// Reads what the provider sent.
    pub fn push(&mut self, chunk: &[u8]) {
        let mut frames = std::mem::take(&mut self.frames);
        let read = frames.push(chunk, |event| self.event(event.name, event.data));
        self.frames = frames;
        if let Err(error) = read {
            self.fail(&error.to_string());
        }
    }

    /// Reads a document that is of the same form as an event (Gemini).
    pub fn document(&mut self, data: &[u8]) {
        self.event(None, data);
    }

    fn event(&mut self, name: Option<&str>, data: &[u8]) {
        let Self {
            decoder,
            resume,
            filter,
            collector,
            failure,
            over,
            ..
        } = self;
        let event = sse::Event { name, data };
        read_event(decoder, resume.as_deref_mut(), &event, &mut |delta| {
            filter.delta(delta, &mut |delta| {
                gather(delta, collector, failure, over);
            });
        });
    }

    /// As [`Translator::next_round`]. The stream of the round before is over.
    pub fn next_round(&mut self) -> Option<Vec<Bytes>> {
        self.resume.as_ref()?;
        self.end();
        let request = self.resume.as_mut()?.next()?;
        self.decoder = StreamDecoder::new(self.upstream);
        self.ended = false;
        Some(request)
    }

    /// As [`Translator::notes`].
    #[must_use]
    pub fn notes(&self) -> Option<Notes> {
        let notes = self.resume.as_ref().map(|resume| resume.notes());
        notes.filter(|notes| !notes.is_empty())
    }

    fn end(&mut self) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let mut frames = std::mem::take(&mut self.frames);
        frames.finish(|event| self.event(event.name, event.data));
        let Self {
            decoder,
            resume,
            filter,
            collector,
            failure,
            over,
            ..
        } = self;
        read_end(decoder, resume.as_deref_mut(), &mut |delta| {
            filter.delta(delta, &mut |delta| {
                gather(delta, collector, failure, over);
            });
        });
    }

    fn fail(&mut self, message: &str) {
        self.over = true;
        self.failure.get_or_insert_with(|| UpstreamError {
            class: ErrorClass::UpstreamFailed,
            message: message.to_owned(),
            code: None,
            retry_after: None,
        });
    }

    /// Whether nothing more is needed.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.over || self.filter.stopped()
    }

    /// Whether that is because the provider has said all that it has to say.
    #[must_use]
    pub fn is_said(&self) -> bool {
        self.over && self.failure.is_none() && !self.filter.stopped()
    }

    /// The stream is over.
    ///
    /// # Errors
    ///
    /// When it ended in an error, or before its end.
    pub fn finish(mut self) -> Result<Response<'static>, UpstreamError> {
        self.end();
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        let response = self.collector.finish();
        broken(&response).map_or(Ok(response), Err)
    }

    /// As [`Collecting::finish`], written as the client's document.
    ///
    /// # Errors
    ///
    /// Those of [`Collecting::finish`].
    pub fn into_document(self, reply: Reply) -> Result<Translated, UpstreamError> {
        let response = self.finish()?;
        Ok(written(&response, reply, false))
    }
}

fn gather(
    delta: Delta<'_>,
    collector: &mut Collector,
    failure: &mut Option<UpstreamError>,
    over: &mut bool,
) {
    if *over {
        return;
    }
    match delta {
        Delta::Error {
            class,
            message,
            code,
        } => {
            *over = true;
            failure.get_or_insert(UpstreamError {
                class,
                message,
                code,
                retry_after: None,
            });
        }
        Delta::End => *over = true,
        other => collector.delta(other),
    }
    if collector.is_full() {
        *over = true;
        failure.get_or_insert_with(|| UpstreamError {
            class: ErrorClass::UpstreamFailed,
            message: "the provider's answer is larger than the gateway may hold".to_owned(),
            code: None,
            retry_after: None,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_is_larger_than_the_limit_is_a_failure_and_not_a_part_of_it() {
        let event = r#"data: {"id":"x","choices":[{"index":0,"delta":{"content":"0123456789"}}]}"#;
        let mut roomy = Collecting::new(Protocol::Chat, Fixups::default(), 4096);
        let mut narrow = Collecting::new(Protocol::Chat, Fixups::default(), 150);
        for _ in 0..10 {
            roomy.push(format!("{event}\n\n").as_bytes());
            narrow.push(format!("{event}\n\n").as_bytes());
        }
        assert!(!roomy.is_over());
        assert!(narrow.is_over());
        let error = narrow.finish().unwrap_err();
        assert!(error.message.contains("larger"), "{error:?}");
    }
}
