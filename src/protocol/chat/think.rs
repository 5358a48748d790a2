//! Reasoning that stands in `<think>` tags at the start of the text, as some
//! servers leave it.

use crate::protocol::ir::{Part, Text, Thought};
use crate::protocol::json::Str;

const OPEN: &str = "<think>";
const CLOSE: &str = "</think>";

/// Where in an answer the splitter is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum Place {
    /// Nothing but white space has come, and perhaps half a tag.
    #[default]
    Start,
    /// In the reasoning.
    Inside,
    /// Behind the reasoning, where white space is left out.
    Behind,
    /// In the text.
    Text,
}

/// What a piece turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    /// Reasoning.
    Reasoning(String),
    /// Text.
    Text(String),
}

/// Takes an answer apart, piece by piece; holds back at most a tag's length, and
/// white space before it.
#[derive(Debug, Clone, Default)]
pub(super) struct Splitter {
    place: Place,
    held: String,
}

impl Splitter {
    /// Whether pieces pass as they are from here on.
    pub(super) fn is_through(&self) -> bool {
        self.place == Place::Text
    }

    /// One more piece.
    pub(super) fn push(&mut self, piece: &str, mut found: impl FnMut(Found)) {
        self.held.push_str(piece);
        while self.step(&mut found) {}
    }

    /// The end of the text: what was held back is what it looks like.
    pub(super) fn finish(&mut self, mut found: impl FnMut(Found)) {
        let held = std::mem::take(&mut self.held);
        let inside = self.place == Place::Inside;
        self.place = Place::Text;
        if !held.is_empty() {
            found(if inside {
                Found::Reasoning(held)
            } else {
                Found::Text(held)
            });
        }
    }

    /// Goes as far as one place allows; true when there may be more to do.
    fn step(&mut self, found: &mut impl FnMut(Found)) -> bool {
        match self.place {
            Place::Start => {
                let told = self.held.trim_start();
                if let Some(rest) = told.strip_prefix(OPEN) {
                    self.held = rest.to_owned();
                    self.place = Place::Inside;
                    return true;
                }
                // White space without end is no start of anything.
                if OPEN.starts_with(told) && self.held.len() < 256 {
                    return false;
                }
                self.place = Place::Text;
                true
            }
            Place::Inside => self.inside(found),
            Place::Behind => {
                let told = self.held.trim_start();
                if told.is_empty() {
                    self.held.clear();
                    return false;
                }
                self.held = told.to_owned();
                self.place = Place::Text;
                true
            }
            Place::Text => {
                let held = std::mem::take(&mut self.held);
                if !held.is_empty() {
                    found(Found::Text(held));
                }
                false
            }
        }
    }

    fn inside(&mut self, found: &mut impl FnMut(Found)) -> bool {
        if let Some((before, behind)) = self.held.split_once(CLOSE) {
            if !before.is_empty() {
                found(Found::Reasoning(before.to_owned()));
            }
            self.held = behind.to_owned();
            self.place = Place::Behind;
            return true;
        }
        let most = CLOSE.len().min(self.held.len());
        let tail = (1..=most).rev();
        let kept = tail
            .filter(|length| self.held.ends_with(CLOSE.get(..*length).unwrap_or(CLOSE)))
            .max();
        let free = self.held.len() - kept.unwrap_or(0);
        let kept = self.held.split_off(free);
        let free = std::mem::replace(&mut self.held, kept);
        if !free.is_empty() {
            found(Found::Reasoning(free));
        }
        false
    }
}

/// Takes the first text of a whole answer apart.
pub(super) fn split_parts(parts: &mut Vec<Part<'_>>) {
    let at = parts.iter().position(|part| matches!(part, Part::Text(_)));
    let Some(at) = at else {
        return;
    };
    let Some(Part::Text(text)) = parts.get(at) else {
        return;
    };
    let plain = text.text.plain();
    let Some((reasoning, rest)) = plain
        .trim_start()
        .strip_prefix(OPEN)
        .map(|told| told.split_once(CLOSE).unwrap_or((told, "")))
    else {
        return;
    };
    let thought = Thought {
        text: Str::from(reasoning.to_owned()),
        ..Thought::default()
    };
    let rest = Text {
        text: Str::from(rest.trim_start().to_owned()),
        annotations: text.annotations.clone(),
        ..Text::default()
    };
    let mut new = Vec::new();
    if !thought.text.is_empty() {
        new.push(Part::Reasoning(thought));
    }
    if !rest.text.is_empty() {
        new.push(Part::Text(rest));
    }
    parts.splice(at..=at, new);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(pieces: &[&str]) -> (String, String) {
        let mut splitter = Splitter::default();
        let (mut reasoning, mut text) = (String::new(), String::new());
        let mut take = |found| match found {
            Found::Reasoning(piece) => reasoning.push_str(&piece),
            Found::Text(piece) => text.push_str(&piece),
        };
        for piece in pieces {
            splitter.push(piece, &mut take);
        }
        splitter.finish(&mut take);
        (reasoning, text)
    }

    #[test]
    fn tags_are_found_however_the_text_was_cut() {
        let whole = "\n<think>one < two </ three</think>\n\nso: <think>no</think>";
        let wanted = ("one < two </ three".into(), "so: <think>no</think>".into());
        assert_eq!(split(&[whole]), wanted);
        let letters: Vec<String> = whole.chars().map(String::from).collect();
        let letters: Vec<&str> = letters.iter().map(String::as_str).collect();
        assert_eq!(split(&letters), wanted);
    }

    #[test]
    fn what_only_looks_like_a_tag_is_text() {
        assert_eq!(
            split(&["<thi", "nk about it"]),
            (String::new(), "<think about it".into())
        );
        assert_eq!(split(&["  <th"]), (String::new(), "  <th".into()));
        assert_eq!(
            split(&["<think>cut </th"]),
            ("cut </th".into(), String::new())
        );
        assert_eq!(split(&["plain"]), (String::new(), "plain".into()));
    }
}
