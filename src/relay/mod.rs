//! A provider's answer on its way to the client, after the commit point.
//!
//! [`RelayBody`] is polled when the client wants bytes, and polls the provider
//! only then: back-pressure needs no queue. Of a stream only whole events are
//! passed on, so that one that breaks off can still end in an error event that
//! the client's SDK understands. `poll_chunk` is the only place that settles
//! the exchange; dropping the body settles it as left by the client.

mod framing;
mod progress;
mod watch;

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::SizeHint;
use tokio::time::Sleep;

use crate::clock;
use crate::config::Flow;
use crate::exchange::Exchange;
use crate::protocol::Protocol;
use crate::protocol::error::{self, ErrorBody, ErrorClass, Source};
use crate::protocol::meter::{Meter, Reading};
use crate::protocol::translator::Translator;
use crate::store::row::Status;
use crate::upstream::UpstreamBody;
use framing::Framing;
use progress::Sight;
use watch::Watch;

/// Ends a client's connection without an end of the message, which is how a
/// client learns that what it has is not all.
#[derive(Debug)]
pub struct Broken(String);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Broken {}

/// How an answer is laid out on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One document.
    Unary,
    /// Server-Sent Events.
    Events,
    /// Gemini's stream as one JSON array.
    Array,
}

/// What is known of an answer at its commit point.
#[derive(Debug)]
pub struct Committed {
    /// What the client speaks.
    pub protocol: Protocol,
    /// How the answer is laid out.
    pub form: Form,
    /// Chunks read so far, in order, metered already.
    pub opening: Vec<Bytes>,
    /// The rest; `None` when the opening is all.
    pub rest: Option<UpstreamBody>,
    /// Reads usage as the bytes pass.
    pub meter: Meter,
    /// Whether the usage event was asked for by us and must be taken out.
    pub cut_usage: bool,
    /// What becomes of the bytes.
    pub translation: Translation,
    /// Longest silence of the provider.
    pub idle: Duration,
    /// Silence after which the client gets a sign of life.
    pub heartbeat: Duration,
    /// How much the rest has to bring.
    pub flow: Option<Flow>,
    /// How a provider that paused is asked to go on.
    pub again: Option<Again>,
}

/// A provider's answer that is on its way.
type Coming = Pin<Box<dyn Future<Output = Result<UpstreamBody, String>> + Send>>;

/// Sends another body to the provider whose answer is being relayed, and brings what
/// it answers, or why it does not.
pub struct Again(Box<dyn Fn(Vec<Bytes>) -> Coming + Send>);

impl Again {
    /// By that function.
    pub fn new(ask: impl Fn(Vec<Bytes>) -> Coming + Send + 'static) -> Self {
        Self(Box::new(ask))
    }

    /// Asks.
    #[must_use]
    pub fn ask(&self, body: Vec<Bytes>) -> Coming {
        (self.0)(body)
    }
}

impl fmt::Debug for Again {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Again").finish_non_exhaustive()
    }
}

/// An answer that may come in rounds.
struct Rounds {
    again: Again,
    coming: Option<Coming>,
}

impl fmt::Debug for Rounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rounds").finish_non_exhaustive()
    }
}

/// What becomes of a provider's bytes on their way.
#[derive(Debug)]
pub enum Translation {
    /// Nothing.
    None,
    /// They are a stream in another protocol.
    Stream(Box<Translator>),
    /// They were a document in another protocol; the opening is what the client
    /// gets, and this was read from it.
    Done(Box<Reading>),
}

/// See the module's text.
#[derive(Debug)]
pub struct RelayBody {
    protocol: Protocol,
    form: Form,
    rest: Option<UpstreamBody>,
    rounds: Option<Box<Rounds>>,
    ready: VecDeque<Bytes>,
    framing: Framing,
    meter: Meter,
    idle: Duration,
    heartbeat: Duration,
    heard: Instant,
    sent: Instant,
    timer: Option<Pin<Box<Sleep>>>,
    watch: Option<Box<Watch>>,
    exchange: Exchange,
    ended: bool,
    /// Bytes that came.
    received: u64,
    /// While somebody listens.
    sight: Option<Box<Sight>>,
}

impl RelayBody {
    /// Takes over an answer. The exchange is settled by this body from now on.
    #[must_use]
    pub fn new(answer: Committed, exchange: Exchange) -> Self {
        let now = clock::now();
        let events = answer.form == Form::Events;
        let watch = |flow| Box::new(Watch::new(flow, events, now));
        let mut relay = Self {
            protocol: answer.protocol,
            form: answer.form,
            rest: answer.rest,
            rounds: answer.again.map(|again| {
                Box::new(Rounds {
                    again,
                    coming: None,
                })
            }),
            ready: VecDeque::new(),
            framing: Framing::new(answer.form, answer.cut_usage, answer.translation),
            meter: answer.meter,
            idle: answer.idle,
            heartbeat: answer.heartbeat,
            heard: now,
            sent: now,
            timer: None,
            watch: answer.flow.map(watch),
            exchange,
            ended: false,
            received: 0,
            sight: None,
        };
        for chunk in answer.opening {
            relay.take(chunk);
        }
        if relay.rest.is_none() {
            relay.framing.finish(&mut relay.meter, &mut relay.ready);
            relay.ended = true;
        }
        relay
    }

    /// Whether nothing more will come.
    #[must_use]
    pub fn is_end(&self) -> bool {
        self.ended && self.ready.is_empty()
    }

    /// Exact when the answer is at hand as a whole.
    #[must_use]
    pub fn size_hint(&self) -> SizeHint {
        let at_hand = self.ready.iter().map(|chunk| chunk.len() as u64).sum();
        if self.ended {
            SizeHint::with_exact(at_hand)
        } else {
            SizeHint::default()
        }
    }

    /// The next bytes for the client.
    pub fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        loop {
            if let Some(chunk) = self.ready.pop_front() {
                self.exchange.relayed(&chunk);
                if self.is_end() {
                    self.settle_success();
                }
                return Poll::Ready(Some(Ok(chunk)));
            }
            if self.ended {
                self.settle_success();
                return Poll::Ready(None);
            }
            let read = match (&mut self.rest, &mut self.rounds) {
                (Some(rest), _) => rest
                    .poll_chunk(cx)
                    .map(|read| read.map(|read| read.map_err(|error| describe(&error)))),
                (None, Some(rounds)) if rounds.coming.is_some() => match rounds.poll(cx) {
                    Poll::Ready(Ok(body)) => {
                        self.rest = Some(body);
                        continue;
                    }
                    Poll::Ready(Err(message)) => Poll::Ready(Some(Err(message))),
                    Poll::Pending => Poll::Pending,
                },
                (None, _) => {
                    self.ended = true;
                    continue;
                }
            };
            match read {
                Poll::Ready(Some(Ok(chunk))) => self.accept(chunk),
                Poll::Ready(Some(Err(message))) => {
                    if let Err(broken) = self.fail(ErrorClass::UpstreamFailed, &message) {
                        return Poll::Ready(Some(Err(broken)));
                    }
                }
                Poll::Ready(None) => {
                    self.rest = None;
                    if let Err(broken) = self.end_of_input() {
                        return Poll::Ready(Some(Err(broken)));
                    }
                }
                Poll::Pending => match std::task::ready!(self.poll_silence(cx)) {
                    Ok(()) => {}
                    Err(broken) => return Poll::Ready(Some(Err(broken))),
                },
            }
        }
    }

    /// Takes in a chunk; what is whole of it is ready to go at once.
    fn accept(&mut self, chunk: Bytes) {
        self.heard = clock::now();
        if let Some(watch) = &mut self.watch {
            watch.see(&chunk, self.heard);
        }
        self.take(chunk);
        if self.framing.is_stopped() {
            // The answer is cut where the client wanted; the provider may stop.
            self.rest = None;
            self.framing.finish(&mut self.meter, &mut self.ready);
            self.ended = true;
        }
        if !self.ready.is_empty() {
            self.sent = self.heard;
        }
    }

    /// Puts a chunk on its way.
    fn take(&mut self, chunk: Bytes) {
        self.exchange.heard(&chunk);
        let before = self.received;
        self.received += chunk.len() as u64;
        if self.exchange.feed().is_heard() {
            self.look(&chunk, before);
        } else if self.sight.is_some() {
            self.sight = None;
        }
        self.framing.push(chunk, &mut self.meter, &mut self.ready);
    }

    /// Looks at a chunk for whoever listens, and tells how far the answer is when
    /// that is due.
    fn look(&mut self, chunk: &[u8], before: u64) {
        let events = self.form == Form::Events;
        let (heard, sight) = (self.heard, &mut self.sight);
        let sight = sight.get_or_insert_with(|| Box::new(Sight::new(events, before, heard)));
        sight.see(chunk);
        if heard >= sight.due() {
            self.tell_progress(heard);
        }
    }

    fn tell_progress(&mut self, now: Instant) {
        let watch = self.watch.as_ref();
        let state = watch.map_or("MONITORING", |watch| watch.state(now));
        self.tell_as(state, now);
    }

    fn tell_as(&mut self, state: &'static str, now: Instant) {
        if let Some(sight) = &mut self.sight {
            let told = sight.tell(self.received, state, now);
            self.exchange.progressed(&told);
        }
    }

    /// The provider closed its stream. That is an end only when its protocol
    /// says so; otherwise something is missing.
    fn end_of_input(&mut self) -> Result<(), Broken> {
        self.framing.finish(&mut self.meter, &mut self.ready);
        if let Some(rounds) = &mut self.rounds
            && let Some(request) = self.framing.next_round()
        {
            self.heard = clock::now();
            rounds.coming = Some(rounds.again.ask(request));
            return Ok(());
        }
        if self.is_whole() || self.framing.failure().is_some() {
            self.ended = true;
            self.close_array();
            return Ok(());
        }
        self.fail(
            ErrorClass::UpstreamFailed,
            "the provider's stream ended before its last event",
        )
    }

    /// Whether the answer, as far as it was passed on, is all of one.
    fn is_whole(&self) -> bool {
        if let Some(whole) = self.framing.is_translated_whole() {
            return whole;
        }
        match self.form {
            Form::Unary => true,
            Form::Events => self.meter.terminal(),
            Form::Array => self.framing.is_closed() || self.meter.terminal(),
        }
    }

    /// Puts the bracket to an array whose last element said that it is the last.
    fn close_array(&mut self) {
        let open = !self.framing.is_closed() && self.framing.is_translated_whole().is_none();
        if self.form == Form::Array && open {
            self.ready.push_back(Bytes::from_static(b"]"));
        }
    }

    /// The provider failed after the commit point: the stream ends with the
    /// client's own error event. Where that can't be said (a document, or the
    /// middle of an event), the connection is broken off.
    fn fail(&mut self, class: ErrorClass, message: &str) -> Result<(), Broken> {
        let status = if class == ErrorClass::Timeout {
            Status::Timeout
        } else {
            Status::Error
        };
        self.fail_as(status, class, message)
    }

    fn fail_as(&mut self, status: Status, class: ErrorClass, message: &str) -> Result<(), Broken> {
        self.rest = None;
        self.ended = true;
        let clean = self.framing.break_off();
        if self.form != Form::Unary && self.is_whole() {
            // The answer is whole; only the end of the connection was rude.
            self.close_array();
            return Ok(());
        }
        self.exchange.broke_off(message);
        self.settle(status);
        if !clean {
            return Err(Broken(message.to_owned()));
        }
        self.say_failure(ErrorBody::new(class, message.to_owned(), Source::Provider));
        Ok(())
    }

    /// Puts the client's own error event at the end of the stream.
    fn say_failure(&mut self, body: ErrorBody) {
        if self
            .framing
            .say_failure(body.class, &body.message, &mut self.ready)
        {
            return;
        }
        let id = self.exchange.id().to_string();
        let array = self.form == Form::Array;
        let mut frame =
            error::encode_stream_failure(self.protocol, &body, &id, self.meter.events(), array);
        if array && !self.framing.has_elements() {
            // The form begins with the comma that separates elements.
            frame = Bytes::from([b"[", &frame[1..]].concat());
        }
        self.ready.push_back(frame);
    }

    /// Nothing to read: gives the client a sign of life when it is due, and
    /// gives up on a provider that stays silent. Ready when it did either.
    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        loop {
            let dead = self.heard + self.idle;
            let mut due = match self.form {
                Form::Events => dead.min(self.sent + self.heartbeat),
                Form::Unary | Form::Array => dead,
            };
            if let Some(watch) = &self.watch {
                due = due.min(watch.next);
            }
            let heard = self.exchange.feed().is_heard();
            if let Some(sight) = self.sight.as_ref().filter(|_| heard) {
                due = due.min(sight.due());
            }
            let timer = self
                .timer
                .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due.into())));
            std::task::ready!(timer.as_mut().poll(cx));
            // Later than the turn began, or this would go round for ever.
            let now = Instant::now();
            if now >= dead {
                let message = format!("the provider was silent for {} s", self.idle.as_secs_f32());
                return Poll::Ready(self.fail(ErrorClass::Timeout, &message));
            }
            let stalled = self.watch.as_mut().filter(|watch| now >= watch.next);
            if let Some(message) = stalled.and_then(|watch| watch.look(now)) {
                self.tell_as("THROUGHPUT_STALLED", now);
                let failed = self.fail_as(Status::Stall, ErrorClass::Timeout, &message);
                return Poll::Ready(failed);
            }
            if heard && self.sight.as_ref().is_some_and(|sight| now >= sight.due()) {
                self.tell_progress(now);
            }
            if self.form == Form::Events && now >= self.sent + self.heartbeat {
                self.sent = now;
                if self.framing.between_events() {
                    self.ready.push_back(sign_of_life(self.protocol));
                    return Poll::Ready(Ok(()));
                }
            }
            // The timer is older than the last chunk; setting it anew only
            // here keeps it off the path of every chunk.
            self.timer = None;
        }
    }

    fn settle_success(&mut self) {
        let said = || {
            self.framing
                .has_error()
                .then(|| "the provider's stream ended in an error".to_owned())
        };
        let translated = self.framing.failure().map(str::to_owned);
        let failed = || self.meter.failed().or_else(said);
        if let Some(message) = translated.or_else(failed) {
            self.exchange.broke_off(&message);
            self.settle(Status::Error);
        } else {
            self.settle(Status::Success);
        }
    }

    fn settle(&mut self, status: Status) {
        let translated = self.framing.reading();
        self.exchange
            .metered(translated.unwrap_or_else(|| self.meter.finish()));
        if let Some(notes) = self.framing.notes() {
            self.exchange.noted_late(&notes);
        }
        self.exchange.settle(status);
    }
}

impl Drop for RelayBody {
    /// A client that hangs up after the terminal event has had its answer.
    fn drop(&mut self) {
        let had_it = match self.form {
            Form::Unary => self.ended,
            Form::Events | Form::Array => self.is_whole(),
        };
        if had_it && self.ready.is_empty() {
            self.settle_success();
        } else {
            self.settle(Status::Cancelled);
        }
    }
}

impl Rounds {
    /// The next round, once it begins.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<UpstreamBody, String>> {
        let Some(coming) = &mut self.coming else {
            return Poll::Pending;
        };
        let begun = std::task::ready!(coming.as_mut().poll(cx));
        self.coming = None;
        Poll::Ready(begun)
    }
}

fn describe(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("the provider's stream broke off: {error}: {cause}"),
        None => format!("the provider's stream broke off: {error}"),
    }
}

/// What each protocol's clients take for "still there" and nothing else
/// (comments make the Gemini SDK fail, nameless pings the Anthropic one).
fn sign_of_life(protocol: Protocol) -> Bytes {
    Bytes::from_static(match protocol {
        Protocol::Messages => b"event: ping\ndata: {\"type\": \"ping\"}\n\n",
        Protocol::Gemini => b"\n",
        _ => b": keep-alive\n\n",
    })
}
