//! How an answer is cut into pieces that may be passed on: a document as it
//! comes, a stream only in whole events or elements.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::{Form, Translation};
use crate::protocol::error::ErrorClass;
use crate::protocol::gemini::array::ArrayAligner;
use crate::protocol::json;
use crate::protocol::meter::{Meter, Reading};
use crate::protocol::notes::Notes;
use crate::protocol::opening;
use crate::protocol::sse::{Aligner, Decoder, Event};
use crate::protocol::translator::Translator;

/// The pieces of one answer.
#[derive(Debug)]
pub(super) enum Framing {
    Document,
    Events {
        aligner: Aligner,
        cut_usage: bool,
    },
    Array(ArrayAligner),
    /// A stream in another protocol; only whole frames come out of it.
    Translated {
        translator: Box<Translator>,
        out: BytesMut,
    },
    /// Translated already.
    Done(Box<Reading>),
}

impl Framing {
    pub(super) fn new(form: Form, cut_usage: bool, translation: Translation) -> Self {
        match translation {
            Translation::None => {}
            Translation::Stream(translator) => {
                return Self::Translated {
                    translator,
                    out: BytesMut::new(),
                };
            }
            Translation::Done(reading) => return Self::Done(reading),
        }
        match form {
            Form::Unary => Self::Document,
            Form::Events => Self::Events {
                aligner: Aligner::new(),
                cut_usage,
            },
            Form::Array => Self::Array(ArrayAligner::default()),
        }
    }

    /// Takes a chunk; what may be passed on is metered and put in `ready`. Only
    /// what is passed on is metered: a finish that stands in half an event is
    /// none.
    pub(super) fn push(&mut self, chunk: Bytes, meter: &mut Meter, ready: &mut VecDeque<Bytes>) {
        let mut pass = |whole: Bytes| {
            meter.push(&whole);
            ready.push_back(whole);
        };
        match self {
            Self::Document => pass(chunk),
            Self::Done(_) => ready.push_back(chunk),
            Self::Translated { translator, out } => {
                translator.push(&chunk, out);
                hand_over(out, ready);
            }
            Self::Array(aligner) => aligner.push(chunk, pass),
            Self::Events {
                aligner,
                cut_usage: false,
            } => aligner.push(chunk, pass),
            Self::Events {
                aligner,
                cut_usage: true,
            } => {
                // The usage event may lie in several chunks; it is looked for in
                // what they make together.
                let mut whole = Vec::new();
                aligner.push(chunk, |part| whole.push(part));
                let whole = match whole.len() {
                    0 => return,
                    1 => whole.swap_remove(0),
                    _ => Bytes::from(whole.concat()),
                };
                meter.push(&whole);
                without_usage(whole, ready);
            }
        }
    }

    /// The provider ended its stream. What is held goes out when it is a whole
    /// event but for its blank line, or the end of an array; else it is dropped.
    pub(super) fn finish(&mut self, meter: &mut Meter, ready: &mut VecDeque<Bytes>) {
        let mut tail = Vec::new();
        match self {
            Self::Document | Self::Done(_) => {}
            Self::Translated { translator, out } => {
                translator.finish(out);
                hand_over(out, ready);
            }
            Self::Events { aligner, .. } => aligner.finish(|part| tail.push(part)),
            Self::Array(aligner) if aligner.is_closed() => aligner.finish(|part| tail.push(part)),
            Self::Array(aligner) => aligner.discard(),
        }
        let tail = tail.concat();
        let whole = match self {
            Self::Events { .. } => is_whole_event(&tail),
            _ => true,
        };
        if whole && !tail.is_empty() {
            meter.push(&tail);
            ready.push_back(tail.into());
        }
    }

    /// Whether the form itself says that nothing more belongs to it.
    pub(super) fn is_closed(&self) -> bool {
        match self {
            Self::Document | Self::Done(_) => true,
            Self::Events { .. } | Self::Translated { .. } => false,
            Self::Array(aligner) => aligner.is_closed(),
        }
    }

    /// Whether an element of an array was an error.
    pub(super) fn has_error(&self) -> bool {
        matches!(self, Self::Array(aligner) if aligner.has_error())
    }

    /// Drops what was held back of a piece that will never be whole. False when
    /// part of it is with the client already.
    pub(super) fn break_off(&mut self) -> bool {
        match self {
            Self::Document | Self::Done(_) => false,
            Self::Translated { .. } => true,
            Self::Events { aligner, .. } => {
                aligner.discard();
                !aligner.mid_event()
            }
            Self::Array(aligner) => {
                aligner.discard();
                !aligner.mid_event()
            }
        }
    }

    /// Whether something may be put between what was passed on and what comes.
    pub(super) fn between_events(&self) -> bool {
        match self {
            Self::Events { aligner, .. } => !aligner.mid_event(),
            Self::Translated { .. } => true,
            _ => false,
        }
    }

    /// Whether a translated answer has come to its end; `None` when it is not
    /// translated.
    pub(super) fn is_translated_whole(&self) -> Option<bool> {
        match self {
            Self::Translated { translator, .. } => Some(translator.is_whole()),
            Self::Done(_) => Some(true),
            _ => None,
        }
    }

    /// The request for the next round of an answer that its provider broke off.
    pub(super) fn next_round(&mut self) -> Option<Vec<Bytes>> {
        match self {
            Self::Translated { translator, .. } => translator.next_round(),
            _ => None,
        }
    }

    /// What is to be noted of a translated answer when it is over.
    pub(super) fn notes(&self) -> Option<Notes> {
        match self {
            Self::Translated { translator, .. } => translator.notes(),
            _ => None,
        }
    }

    /// Whether the answer was cut at a stop text.
    pub(super) fn is_stopped(&self) -> bool {
        matches!(self, Self::Translated { translator, .. } if translator.is_stopped())
    }

    /// What the error event said that a translated stream ended in.
    pub(super) fn failure(&self) -> Option<&str> {
        match self {
            Self::Translated { translator, .. } => translator.failure(),
            _ => None,
        }
    }

    /// Ends a translated stream in the client's error event; false when it is not
    /// translated.
    pub(super) fn say_failure(
        &mut self,
        class: ErrorClass,
        message: &str,
        ready: &mut VecDeque<Bytes>,
    ) -> bool {
        let Self::Translated { translator, out } = self else {
            return false;
        };
        translator.fail(class, message, out);
        hand_over(out, ready);
        true
    }

    /// What was read of a translated answer.
    pub(super) fn reading(&self) -> Option<Reading> {
        match self {
            Self::Translated { translator, .. } => Some(translator.reading()),
            Self::Done(reading) => Some((**reading).clone()),
            _ => None,
        }
    }

    /// Whether a further element of an array needs a comma before it.
    pub(super) fn has_elements(&self) -> bool {
        matches!(self, Self::Array(aligner) if aligner.elements() > 0)
    }
}

fn hand_over(out: &mut BytesMut, ready: &mut VecDeque<Bytes>) {
    if !out.is_empty() {
        ready.push_back(out.split().freeze());
    }
}

/// An event without its blank line whose data is all there.
fn is_whole_event(tail: &[u8]) -> bool {
    let mut whole = true;
    let mut decoder = Decoder::new();
    let mut check =
        |event: Event<'_>| whole &= event.data == b"[DONE]" || json::is_document(event.data);
    if decoder.push(tail, &mut check).is_err() {
        return false;
    }
    decoder.finish(&mut check);
    whole
}

/// Passes events on but for the usage event of a chat stream whose client did
/// not ask for it.
fn without_usage(mut events: Bytes, ready: &mut VecDeque<Bytes>) {
    while let Some(span) = opening::usage_event(&events) {
        if span.start > 0 {
            ready.push_back(events.split_to(span.start));
        }
        drop(events.split_to(span.len()));
    }
    if !events.is_empty() {
        ready.push_back(events);
    }
}
