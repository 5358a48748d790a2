//! A Markdown fence around a whole answer, taken off while it streams. Fences
//! inside the answer stay.

/// White space and a language's name before the answer, at most.
const HEAD: usize = 128;
/// White space behind it that is waited through.
const TAIL: usize = 4096;

#[derive(Debug, Default)]
pub(super) struct Fence {
    state: State,
    /// What was held back: the head until it is decided what it is, then what may
    /// be the closing fence.
    held: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// It is not known yet whether there is one.
    #[default]
    Unknown,
    /// There is none.
    Absent,
    /// It was opened.
    Inside,
}

/// What the beginning of an answer is.
enum Head {
    /// A fence may still come.
    Perhaps,
    /// None.
    Plain,
    /// A fence, and where the answer begins behind it.
    Fence(usize),
}

impl Fence {
    /// Takes a piece; gives what can be seen of the answer now.
    pub(super) fn push(&mut self, piece: &str) -> String {
        if self.state == State::Absent {
            return piece.to_owned();
        }
        let mut text = std::mem::take(&mut self.held);
        text.push_str(piece);
        if self.state == State::Unknown {
            match head(&text) {
                Head::Perhaps => {
                    self.held = text;
                    return String::new();
                }
                Head::Plain => {
                    self.state = State::Absent;
                    return text;
                }
                Head::Fence(at) => {
                    self.state = State::Inside;
                    text.drain(..at);
                }
            }
        }
        let at = closing(&text);
        self.held = text.split_off(at);
        text
    }

    /// The answer is over: what was held back and is no fence.
    pub(super) fn finish(&mut self) -> String {
        let held = std::mem::take(&mut self.held);
        if self.state == State::Inside && held.contains("```") {
            return String::new();
        }
        held
    }
}

fn head(text: &str) -> Head {
    let start = text.trim_start();
    let perhaps = if text.len() < HEAD {
        Head::Perhaps
    } else {
        Head::Plain
    };
    if "```".starts_with(start) {
        return perhaps;
    }
    let Some(behind) = start.strip_prefix("```") else {
        return Head::Plain;
    };
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '+' | '.');
    let name = behind.trim_start_matches(is_name);
    let line = name.trim_start_matches([' ', '\t', '\r']);
    if line.is_empty() {
        perhaps
    } else if line.starts_with('\n') {
        Head::Fence(text.len() - line.len() + 1)
    } else {
        Head::Plain
    }
}

/// Where what may be the closing fence begins: white space, up to three back
/// quotes, white space, up to the end.
fn closing(text: &str) -> usize {
    let before_space = text.trim_end();
    let quotes = before_space.bytes().rev().take_while(|byte| *byte == b'`');
    let quotes = quotes.count();
    let at = match quotes {
        0 => before_space.len(),
        // Too few, and the line is over; but white space may precede the fence.
        1 | 2 if before_space.len() < text.len() => before_space.len(),
        // An answer is not over before its last line is.
        1..=3 => {
            let body = before_space.get(..before_space.len() - quotes);
            body.unwrap_or_default().trim_end().len()
        }
        _ => before_space.len(),
    };
    // One that waits for longer is not waited for.
    if text.len() - at > TAIL {
        text.len()
    } else {
        at
    }
}
