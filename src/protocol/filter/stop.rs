//! Texts at which an answer has to end, found in text that comes in pieces.

/// What was found in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A stop text begins there.
    Stop { at: usize, which: usize },
    /// What begins there may be the beginning of one; at the end of the text,
    /// nothing is.
    Perhaps { at: usize },
}

/// The texts, of which none is empty.
#[derive(Clone, Debug, Default)]
pub(super) struct Stops {
    texts: Vec<(usize, String)>,
    /// The bytes that they begin with.
    first: Vec<u8>,
}

impl Stops {
    pub(super) fn new(texts: &[String]) -> Self {
        let texts = texts
            .iter()
            .enumerate()
            .filter(|(_, text)| !text.is_empty());
        let texts: Vec<_> = texts.map(|(which, text)| (which, text.clone())).collect();
        let first = texts.iter().filter_map(|(_, text)| text.bytes().next());
        Self {
            first: first.collect(),
            texts,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// Whether none begins in the text: nearly always so.
    pub(super) fn are_far(&self, text: &str) -> bool {
        match *self.first.as_slice() {
            [one] => memchr::memchr(one, text.as_bytes()).is_none(),
            [one, two] => memchr::memchr2(one, two, text.as_bytes()).is_none(),
            [one, two, three] => memchr::memchr3(one, two, three, text.as_bytes()).is_none(),
            _ => !text.bytes().any(|byte| self.first.contains(&byte)),
        }
    }

    /// The stop text that is complete first, as if the text had come letter by
    /// letter; of two that are complete together, the longer.
    pub(super) fn find(&self, text: &str) -> Found {
        let ends = self.texts.iter().filter_map(|(which, stop)| {
            let at = memchr::memmem::find(text.as_bytes(), stop.as_bytes())?;
            Some((at + stop.len(), at, *which))
        });
        match ends.min() {
            Some((_, at, which)) => Found::Stop { at, which },
            None => Found::Perhaps {
                at: self.held_from(text),
            },
        }
    }

    /// Where the longest end of the text begins that a stop text may begin with.
    fn held_from(&self, text: &str) -> usize {
        let begins = |tail: &str| self.texts.iter().any(|(_, stop)| stop.starts_with(tail));
        let longest = self.texts.iter().map(|(_, stop)| stop.len()).max();
        let from = text.len().saturating_sub(longest.unwrap_or_default());
        let mut starts = (from..text.len()).filter(|at| text.is_char_boundary(*at));
        let found = starts.find(|at| text.get(*at..).is_some_and(begins));
        found.unwrap_or(text.len())
    }
}
