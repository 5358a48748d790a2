//! Encoded streams, frame by frame, as strict clients read them.

use super::super::Protocol;
use super::super::json::{Tape, Value};
use super::chat::Chat;
use super::gemini::Gemini;
use super::messages::Messages;
use super::responses::Responses;

/// What is wrong, in words.
pub(super) type Verdict = Result<(), String>;

/// Checks a stream that was encoded for a client.
#[derive(Debug)]
pub struct Frames {
    grammar: Grammar,
    /// What has come of a frame that isn't whole.
    buffer: Vec<u8>,
    /// Whether it is a JSON array in place of events.
    array: bool,
}

#[derive(Debug)]
enum Grammar {
    Chat(Chat),
    Responses(Responses),
    Messages(Messages),
    Gemini(Gemini),
}

impl Frames {
    /// Of a stream in that protocol.
    #[must_use]
    pub fn new(protocol: Protocol) -> Self {
        Self {
            grammar: match protocol {
                Protocol::Responses => Grammar::Responses(Responses::default()),
                Protocol::Messages => Grammar::Messages(Messages::default()),
                Protocol::Gemini => Grammar::Gemini(Gemini::default()),
                _ => Grammar::Chat(Chat::default()),
            },
            buffer: Vec::new(),
            array: false,
        }
    }

    /// Of Gemini's stream without `alt=sse`.
    #[must_use]
    pub fn array() -> Self {
        Self {
            array: true,
            ..Self::new(Protocol::Gemini)
        }
    }

    /// Looks at what was written.
    ///
    /// # Errors
    ///
    /// The first violation.
    pub fn push(&mut self, bytes: &[u8]) -> Verdict {
        self.buffer.extend_from_slice(bytes);
        if self.array {
            return Ok(());
        }
        loop {
            // A bare line end is how Gemini's heart beats.
            let gemini = matches!(self.grammar, Grammar::Gemini(_));
            if gemini && self.buffer.first() == Some(&b'\n') {
                self.buffer.remove(0);
                continue;
            }
            let Some(end) = memchr::memmem::find(&self.buffer, b"\n\n") else {
                return Ok(());
            };
            let rest = self.buffer.split_off(end + 2);
            let frame = std::mem::replace(&mut self.buffer, rest);
            let text = String::from_utf8(frame).map_err(|_| "a frame that is no UTF-8")?;
            self.frame(text.trim_end_matches('\n'))
                .map_err(|fault| format!("{fault} in {text:?}"))?;
        }
    }

    /// The stream is over.
    ///
    /// # Errors
    ///
    /// When something is missing.
    pub fn finish(&mut self) -> Verdict {
        if self.array {
            return self.finish_array();
        }
        if !self.buffer.is_empty() {
            return Err("a frame without a blank line behind it".to_owned());
        }
        match &self.grammar {
            Grammar::Chat(chat) => chat.finish(),
            Grammar::Responses(responses) => responses.finish(),
            Grammar::Messages(messages) => messages.finish(),
            Grammar::Gemini(gemini) => gemini.finish(),
        }
    }

    fn finish_array(&mut self) -> Verdict {
        let mut tape = Tape::new();
        let root = tape
            .parse_bytes(&self.buffer)
            .map_err(|fault| fault.to_string())?;
        if !root.is_array() {
            return Err(format!("{} where an array was wanted", root.sort()));
        }
        let Grammar::Gemini(gemini) = &mut self.grammar else {
            return Err("an array of another protocol".to_owned());
        };
        for item in root.items() {
            gemini.chunk(item)?;
        }
        gemini.finish()
    }

    fn frame(&mut self, frame: &str) -> Verdict {
        let mut event = None;
        let mut data = None;
        for line in frame.split('\n') {
            if let Some(text) = line.strip_prefix("data: ") {
                if data.replace(text).is_some() {
                    return Err("two lines of data".to_owned());
                }
            } else if let Some(name) = line.strip_prefix("event: ") {
                if data.is_some() || event.replace(name).is_some() {
                    return Err("an event's name where none belongs".to_owned());
                }
            } else if line.starts_with(": ") && frame == line {
                return self.comment();
            } else {
                return Err(format!("the line {line:?}"));
            }
        }
        let data = data.ok_or("no data")?;
        if let (Grammar::Chat(chat), "[DONE]", None) = (&mut self.grammar, data, event) {
            return chat.done();
        }
        let mut tape = Tape::new();
        let root = tape.parse(data).map_err(|fault| fault.to_string())?;
        match (&mut self.grammar, event) {
            (Grammar::Chat(chat), None) => chat.chunk(root),
            (Grammar::Gemini(gemini), None) => gemini.chunk(root),
            (Grammar::Responses(responses), Some(name)) => responses.event(name, root),
            (Grammar::Messages(messages), Some(name)) => messages.event(name, root),
            (_, Some(_)) => Err("an event's name in a protocol that has none".to_owned()),
            (_, None) => Err("no event's name".to_owned()),
        }
    }

    /// Google's Python SDK fails on comments; Anthropic has pings.
    fn comment(&self) -> Verdict {
        match self.grammar {
            Grammar::Chat(_) | Grammar::Responses(_) => Ok(()),
            Grammar::Messages(_) | Grammar::Gemini(_) => Err("a comment".to_owned()),
        }
    }
}

/// The string of that name.
pub(super) fn text(value: Value<'_>, name: &str) -> Result<String, String> {
    let found = value.get(name).and_then(|value| value.as_str());
    let found = found.ok_or_else(|| format!("no string {name:?}"))?;
    Ok(found.to_plain_string())
}

/// The whole number of that name.
pub(super) fn number(value: Value<'_>, name: &str) -> Result<usize, String> {
    let found = value.get(name).and_then(|value| value.as_u64());
    let found = found.ok_or_else(|| format!("no number {name:?}"))?;
    usize::try_from(found).map_err(|_| format!("{name:?} is huge"))
}

/// The object of that name.
pub(super) fn object<'t>(value: Value<'t>, name: &str) -> Result<Value<'t>, String> {
    let found = value.get(name).filter(Value::is_object);
    found.ok_or_else(|| format!("no object {name:?}"))
}

/// The array of that name.
pub(super) fn array<'t>(value: Value<'t>, name: &str) -> Result<Value<'t>, String> {
    let found = value.get(name).filter(Value::is_array);
    found.ok_or_else(|| format!("no array {name:?}"))
}

/// That `what` is what was wanted.
pub(super) fn same<T: PartialEq + std::fmt::Debug>(what: &str, found: T, wanted: T) -> Verdict {
    if found == wanted {
        Ok(())
    } else {
        Err(format!("{what} is {found:?} where {wanted:?} was wanted"))
    }
}

/// That this holds.
pub(super) fn must(holds: bool, otherwise: &str) -> Verdict {
    if holds {
        Ok(())
    } else {
        Err(otherwise.to_owned())
    }
}

/// Whether a text is one JSON value.
pub(super) fn is_json(text: &str) -> bool {
    Tape::new().parse(text).is_ok()
}
