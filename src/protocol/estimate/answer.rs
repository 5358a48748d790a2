//! How many tokens an answer has, counted as its bytes pass.
//!
//! Nothing of the answer is kept: what is inside the strings of those members
//! that hold what the model wrote goes to a counter, letter by letter, whatever
//! the chunks are. Signatures, ids and base64 stand in other members.

use memchr::memchr3;

use super::{Counter, class};
use crate::protocol::Protocol;

/// Longest name of a member that is told apart.
const NAME: usize = 24;

/// What a member holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holds {
    /// What the client sees.
    Output,
    /// What the model thought. Some servers say it under two names; the first
    /// counts.
    Thought(u8),
    /// An object that the model wrote.
    Written,
}

type Members = &'static [(&'static str, Holds)];

const CHAT: Members = &[
    ("content", Holds::Output),
    ("refusal", Holds::Output),
    ("name", Holds::Output),
    ("arguments", Holds::Output),
    ("reasoning_content", Holds::Thought(1)),
    ("reasoning", Holds::Thought(2)),
];
const COMPLETIONS: Members = &[("text", Holds::Output)];
const MESSAGES: Members = &[
    ("text", Holds::Output),
    ("name", Holds::Output),
    ("partial_json", Holds::Output),
    ("input", Holds::Written),
    ("thinking", Holds::Thought(1)),
];
/// The events that end a part repeat all of it.
const RESPONSES_STREAM: Members = &[("delta", Holds::Output)];
const RESPONSES: Members = &[("text", Holds::Output), ("arguments", Holds::Output)];
const GEMINI: Members = &[
    ("text", Holds::Output),
    ("name", Holds::Output),
    ("args", Holds::Written),
];

const fn members(protocol: Protocol, stream: bool) -> Members {
    match (protocol, stream) {
        (Protocol::Chat, _) => CHAT,
        (Protocol::Completions, _) => COMPLETIONS,
        (Protocol::Messages, _) => MESSAGES,
        (Protocol::Responses, true) => RESPONSES_STREAM,
        (Protocol::Responses, false) => RESPONSES,
        (Protocol::Gemini, _) => GEMINI,
        _ => &[],
    }
}

/// Inside a string.
#[derive(Debug, Clone, Copy, Default)]
struct Within {
    escape: Escape,
    /// The first half of a pair that stands for one letter.
    high: Option<u16>,
    /// A letter of several bytes.
    letter: u32,
    more: u8,
}

#[derive(Debug, Clone, Copy, Default)]
enum Escape {
    #[default]
    None,
    Begun,
    Digits(u8, u16),
}

/// Counts the tokens of one answer. See the module's text.
#[derive(Debug)]
pub struct Answer {
    members: Members,
    output: Counter,
    thought: Counter,
    /// Under which of its names thought is counted.
    thought_as: u8,
    string: Option<Within>,
    /// The string that stands before, as far as it may be a member's name.
    name: [u8; NAME],
    named: usize,
    /// What the value that comes, or is at hand, holds.
    holds: Option<Holds>,
    /// Whether a member's value comes or is at hand.
    valued: bool,
    depth: u32,
    /// The depth around an object that the model wrote.
    written_at: Option<u32>,
}

impl Answer {
    /// For an answer in that protocol.
    #[must_use]
    pub fn new(protocol: Protocol, stream: bool) -> Self {
        Self {
            members: members(protocol, stream),
            output: Counter::default(),
            thought: Counter::default(),
            thought_as: 0,
            string: None,
            name: [0; NAME],
            named: 0,
            holds: None,
            valued: false,
            depth: 0,
            written_at: None,
        }
    }

    /// Takes the next bytes.
    pub fn push(&mut self, chunk: &[u8]) {
        if self.members.is_empty() {
            return;
        }
        let mut rest = chunk;
        loop {
            if self.passes_over() {
                // Most of a stream's bytes are in strings that say nothing.
                let next = memchr3(b'"', b'\\', b'\n', rest);
                rest = next.map_or(&[], |at| &rest[at..]);
            }
            let Some((byte, after)) = rest.split_first() else {
                return;
            };
            rest = after;
            match self.string {
                Some(within) => self.inside(*byte, within),
                None => self.outside(*byte),
            }
        }
    }

    /// Tokens that the client sees.
    #[must_use]
    pub fn output(&self) -> u64 {
        self.output.tokens()
    }

    /// Tokens that the model thought in.
    #[must_use]
    pub fn thought(&self) -> u64 {
        self.thought.tokens()
    }

    /// Whether it is in a string that is neither counted nor a name.
    fn passes_over(&self) -> bool {
        self.valued
            && self.holds.is_none()
            && self.written_at.is_none()
            && matches!(
                self.string,
                Some(Within {
                    escape: Escape::None,
                    ..
                })
            )
    }

    fn outside(&mut self, byte: u8) {
        match byte {
            b'"' => {
                self.string = Some(Within::default());
                self.named = 0;
                return;
            }
            b' ' | b'\t' | b'\r' | b'\n' => return,
            b':' => {
                let name = self.name.get(..self.named).unwrap_or_default();
                let known = self.members.iter();
                let mut known = known.filter(|(member, _)| member.as_bytes() == name);
                self.holds = known.next().map(|(_, holds)| *holds);
            }
            b'{' | b'[' => {
                self.depth = self.depth.saturating_add(1);
                if self.holds == Some(Holds::Written) && self.written_at.is_none() {
                    self.written_at = Some(self.depth);
                }
                self.holds = None;
            }
            b'}' | b']' => {
                if self.written_at == Some(self.depth) {
                    self.written_at = None;
                }
                self.depth = self.depth.saturating_sub(1);
                self.holds = None;
            }
            _ => self.holds = None,
        }
        self.valued = byte == b':';
        self.named = 0;
    }

    fn inside(&mut self, byte: u8, mut within: Within) {
        let letter = match within.escape {
            Escape::Begun => self.escaped(byte, &mut within),
            Escape::Digits(left, value) => digit(byte, left, value, &mut within),
            Escape::None => match byte {
                b'"' => {
                    self.end_string();
                    return;
                }
                // No string of JSON has one: this was none.
                b'\n' => {
                    self.string = None;
                    self.named = 0;
                    return;
                }
                b'\\' => {
                    within.escape = Escape::Begun;
                    None
                }
                byte => plain(byte, &mut within),
            },
        };
        if self.named < NAME {
            self.name[self.named] = byte;
            // A longer one is no name that is looked for.
            self.named += 1;
        }
        if let Some(letter) = letter {
            self.count(letter);
        }
        self.string = Some(within);
    }

    fn end_string(&mut self) {
        self.string = None;
        if self.holds.take().is_some() {
            self.named = 0;
        }
    }

    fn escaped(&self, byte: u8, within: &mut Within) -> Option<char> {
        within.escape = Escape::None;
        match byte {
            b'n' => Some('\n'),
            b't' => Some('\t'),
            b'r' => Some('\r'),
            b'u' => {
                within.escape = Escape::Digits(4, 0);
                None
            }
            byte => Some(char::from(byte)),
        }
    }

    fn count(&mut self, letter: char) {
        match self.holds {
            Some(Holds::Output | Holds::Written) => self.output.push(class(letter)),
            Some(Holds::Thought(name)) => {
                if self.thought_as == 0 {
                    self.thought_as = name;
                }
                if self.thought_as == name {
                    self.thought.push(class(letter));
                }
            }
            None if self.written_at.is_some() => self.output.push(class(letter)),
            None => {}
        }
    }
}

/// A digit of an escape; the last one makes the letter.
fn digit(byte: u8, left: u8, value: u16, within: &mut Within) -> Option<char> {
    let digit = char::from(byte).to_digit(16).unwrap_or(0);
    let value = (value << 4) | u16::try_from(digit).unwrap_or(0);
    if left > 1 {
        within.escape = Escape::Digits(left - 1, value);
        return None;
    }
    within.escape = Escape::None;
    if (0xd800..0xdc00).contains(&value) {
        within.high = Some(value);
        return None;
    }
    let pair = [within.high.take(), Some(value)];
    let units = pair.into_iter().flatten();
    char::decode_utf16(units).next()?.ok()
}

/// A byte of a letter written as itself; the last one makes the letter.
fn plain(byte: u8, within: &mut Within) -> Option<char> {
    let (value, more) = match byte {
        0..=0x7f => return Some(char::from(byte)),
        0x80..=0xbf if within.more > 0 => (
            (within.letter << 6) | u32::from(byte & 0x3f),
            within.more - 1,
        ),
        0xc0..=0xdf => (u32::from(byte & 0x1f), 1),
        0xe0..=0xef => (u32::from(byte & 0x0f), 2),
        0xf0..=0xf7 => (u32::from(byte & 0x07), 3),
        _ => (0, 0),
    };
    within.letter = value;
    within.more = more;
    if more > 0 {
        return None;
    }
    char::from_u32(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::estimate::tokens;
    use proptest::prelude::*;

    const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tokens");

    fn texts() -> Vec<String> {
        let names = [
            "chinese.txt",
            "emoji.txt",
            "prose.txt",
            "python.txt",
            "rows.json",
        ];
        let read = |name| std::fs::read_to_string(format!("{FOLDER}/{name}")).unwrap();
        names.map(read).to_vec()
    }

    /// A text in pieces, each the value of that member in an event of its own.
    fn stream(member: &str, pieces: &[&str]) -> String {
        let event = |piece: &&str| {
            let piece = serde_json::json!(piece);
            format!(
                "event: x\ndata: {{\"id\":\"a\",\"d\":{{\"index\":0,\"{member}\":{piece}}}}}\n\n"
            )
        };
        pieces.iter().map(event).collect()
    }

    fn pieces(text: &str, size: usize) -> Vec<String> {
        let letters: Vec<char> = text.chars().collect();
        letters
            .chunks(size)
            .map(|chunk| chunk.iter().collect())
            .collect()
    }

    #[test]
    fn a_stream_counts_as_its_text_does() {
        for (protocol, member) in [
            (Protocol::Chat, "content"),
            (Protocol::Messages, "text"),
            (Protocol::Responses, "delta"),
            (Protocol::Gemini, "text"),
        ] {
            for text in texts() {
                let pieces = pieces(&text, 7);
                let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
                let mut answer = Answer::new(protocol, true);
                answer.push(stream(member, &pieces).as_bytes());
                assert_eq!(answer.output(), tokens(&text), "{protocol}");
            }
        }
    }

    #[test]
    fn only_what_the_model_wrote_counts() {
        let mut answer = Answer::new(Protocol::Messages, false);
        answer.push(
            br#"{"id":"msg_1","model":"some long name of a model","content":[
            {"type":"thinking","thinking":"one two","signature":"c2lnbmF0dXJl"},
            {"type":"text","text":"three four"},
            {"type":"tool_use","id":"toolu_1","name":"f","input":{"a":"five","b":[1,{"c":"six"}]}}],
            "usage":null}"#,
        );
        assert_eq!(answer.thought(), tokens("one two"));
        assert_eq!(answer.output(), tokens("three fourfafivebcsix"));
    }

    #[test]
    fn a_thought_said_twice_counts_once() {
        let mut answer = Answer::new(Protocol::Chat, true);
        answer.push(b"data: {\"choices\":[{\"delta\":{\"reasoning\":\"a thought\",\"reasoning_content\":\"a thought\"}}]}\n\n");
        assert_eq!(answer.thought(), tokens("a thought"));
        assert_eq!(answer.output(), 0);
    }

    #[test]
    fn a_broken_line_does_not_swallow_what_follows() {
        let mut answer = Answer::new(Protocol::Chat, true);
        answer.push(b": it's \"odd\ndata: {\"content\":\"fine\"}\n\n");
        assert_eq!(answer.output(), tokens("fine"));
    }

    proptest! {
        #[test]
        fn any_chunking_counts_the_same(text in "[a-zA-Z0-9 .,\"\\\\\n\u{e9}\u{4e2d}\u{1f600}]{0,60}", size in 1_usize..9) {
            let stream = stream("content", &[&text]);
            // The same letters as escapes.
            let escaped: String = text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
            let escaped = format!("data: {{\"content\":\"{escaped}\"}}\n\n");
            for bytes in [stream.as_bytes(), escaped.as_bytes()] {
                let mut answer = Answer::new(Protocol::Chat, true);
                for chunk in bytes.chunks(size) {
                    answer.push(chunk);
                }
                prop_assert_eq!(answer.output(), tokens(&text));
            }
        }

        #[test]
        fn no_bytes_make_it_fail(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            for protocol in Protocol::ALL {
                let mut answer = Answer::new(protocol, true);
                answer.push(&bytes);
                let _counted = answer.output() + answer.thought();
            }
        }
    }
}
