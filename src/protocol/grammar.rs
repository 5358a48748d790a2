//! The order in which the steps of a stream may come, as checkers: of the deltas
//! between a decoder and an encoder, and of the frames that a client gets.
//!
//! For tests, debug builds and fuzzing: what is violated is told in words, and
//! texts are kept to compare them.

mod chat;
mod frames;
mod gemini;
mod messages;
mod responses;
#[cfg(test)]
mod tests;

pub use self::frames::Frames;
use super::ir::{Delta, PartKind};

/// Checks that deltas keep the promises of [`Delta`].
#[derive(Debug, Default)]
pub struct Order {
    started: bool,
    over: bool,
    choices: Vec<Choice>,
}

#[derive(Debug, Default)]
struct Choice {
    parts: Vec<Part>,
    finished: bool,
}

#[derive(Debug)]
struct Part {
    kind: Kind,
    open: bool,
    /// Summaries begun.
    summaries: usize,
    pieces: bool,
    whole: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Reasoning,
    Refusal,
    Call,
    Custom,
    Whole,
}

impl Order {
    /// Looks at the next delta.
    ///
    /// # Errors
    ///
    /// The promise that it breaks.
    pub fn check(&mut self, delta: &Delta<'_>) -> Result<(), String> {
        if self.over {
            return Err(format!("{delta:?} after the end"));
        }
        match delta {
            Delta::Ping => Ok(()),
            Delta::Error { .. } => {
                self.over = true;
                Ok(())
            }
            Delta::Start { .. } if self.started => Err("a second start".to_owned()),
            Delta::Start { .. } => {
                self.started = true;
                Ok(())
            }
            _ if !self.started => Err(format!("{delta:?} before the start")),
            Delta::End => self.end(),
            Delta::Usage { .. } | Delta::Meta { .. } | Delta::Logprobs { .. } => Ok(()),
            Delta::Finish { choice, .. } => self.finish(*choice),
            Delta::PartStart { choice, part, kind } => self.part_start(*choice, *part, kind),
            other => self.inside(other),
        }
    }

    /// The stream is over.
    ///
    /// # Errors
    ///
    /// When neither an end nor an error came.
    pub fn finished(&self) -> Result<(), String> {
        if self.over {
            Ok(())
        } else {
            Err("neither an end nor an error".to_owned())
        }
    }

    fn end(&mut self) -> Result<(), String> {
        self.over = true;
        for (index, choice) in self.choices.iter().enumerate() {
            if !choice.finished {
                return Err(format!("the end before choice {index} finished"));
            }
        }
        Ok(())
    }

    fn choice(&mut self, index: usize) -> Result<&mut Choice, String> {
        if index > self.choices.len() + 1024 {
            return Err(format!("choice {index} out of nowhere"));
        }
        while self.choices.len() <= index {
            self.choices.push(Choice::default());
        }
        self.choices
            .get_mut(index)
            .ok_or_else(|| format!("no choice {index}"))
    }

    fn finish(&mut self, index: usize) -> Result<(), String> {
        let choice = self.choice(index)?;
        if choice.finished {
            return Err(format!("choice {index} finished twice"));
        }
        choice.finished = true;
        match choice.parts.iter().position(|part| part.open) {
            Some(part) => Err(format!("choice {index} finished with part {part} open")),
            None => Ok(()),
        }
    }

    fn part_start(&mut self, index: usize, part: usize, kind: &PartKind<'_>) -> Result<(), String> {
        let choice = self.choice(index)?;
        if choice.finished {
            return Err(format!("part {part} of choice {index} after its finish"));
        }
        if part != choice.parts.len() {
            return Err(format!(
                "part {part} of choice {index} where {} was to come",
                choice.parts.len()
            ));
        }
        if matches!(kind, PartKind::Call { id, .. } if id.is_empty()) {
            return Err(format!("part {part} of choice {index} without an id"));
        }
        choice.parts.push(Part {
            kind: match kind {
                PartKind::Text => Kind::Text,
                PartKind::Reasoning => Kind::Reasoning,
                PartKind::Refusal => Kind::Refusal,
                PartKind::Call { custom: true, .. } => Kind::Custom,
                PartKind::Call { .. } => Kind::Call,
                PartKind::Media(_) | PartKind::Hosted(_) => Kind::Whole,
            },
            open: true,
            summaries: 0,
            pieces: false,
            whole: false,
        });
        Ok(())
    }

    fn inside(&mut self, delta: &Delta<'_>) -> Result<(), String> {
        let (choice, number) = match delta {
            Delta::Text { choice, part, .. }
            | Delta::Summary { choice, part, .. }
            | Delta::Arguments { choice, part, .. }
            | Delta::ArgumentsWhole { choice, part, .. }
            | Delta::Opaque { choice, part, .. }
            | Delta::Annotation { choice, part, .. }
            | Delta::PartEnd { choice, part } => (*choice, *part),
            _ => return Ok(()),
        };
        let place = || format!("part {number} of choice {choice}");
        let found = self.choice(choice)?.parts.get_mut(number);
        let part = found.ok_or_else(|| format!("{delta:?} before {} began", place()))?;
        if !part.open {
            return Err(format!("{delta:?} after {} ended", place()));
        }
        part.accept(delta)
            .map_err(|fault| format!("{}: {fault}", place()))
    }
}

impl Part {
    fn accept(&mut self, delta: &Delta<'_>) -> Result<(), String> {
        let fits = match delta {
            Delta::Text { .. } => !matches!(self.kind, Kind::Call | Kind::Whole),
            Delta::Summary { index, .. } => {
                if *index > self.summaries {
                    return Err(format!("summary {index} after {}", self.summaries));
                }
                self.summaries = self.summaries.max(index + 1);
                self.kind == Kind::Reasoning
            }
            Delta::Arguments { .. } => {
                self.pieces = true;
                self.kind == Kind::Call && !self.whole
            }
            Delta::ArgumentsWhole { .. } => {
                let first = !self.whole && !self.pieces;
                self.whole = true;
                self.kind == Kind::Call && first
            }
            Delta::Opaque { .. } => self.kind != Kind::Whole,
            Delta::Annotation { annotation, .. } => {
                let (from, to) = annotation.span.unwrap_or_default();
                self.kind == Kind::Text && from <= to
            }
            _ => {
                self.open = false;
                true
            }
        };
        if fits {
            Ok(())
        } else {
            Err(format!("{delta:?} in {:?}", self.kind))
        }
    }
}
