//! An answer that its provider broke off to be asked to go on (`pause_turn` of
//! Messages, `CONTINUATION` of Gemini). To a client of another protocol that means
//! nothing: the gateway asks, and the rounds come as one answer.

use bytes::{Bytes, BytesMut};

use super::Protocol;
use super::edit::{Edits, quoted};
use super::ir::{Delta, Finish};
use super::json::{Array, Object, Str, Tape, Value};
use super::notes::{Action, Notes};
use super::splice::{self, Patch};
use super::usage::Tokens;

/// How often a provider is asked to go on with one answer.
const ROUNDS: usize = 5;
/// The most bytes of an answer that are kept to be said again.
const MOST: usize = 16 << 20;
/// The largest request that is kept while its answer streams.
const LARGEST: usize = 1 << 20;

/// What is known of the rounds of one answer.
#[derive(Debug)]
pub struct Resume {
    protocol: Protocol,
    /// The body of the first request; empty where it is too large to be kept.
    request: Vec<Bytes>,
    said: Transcript,
    /// By which Gemini knows what it has said.
    token: Option<String>,
    rounds: usize,
    paused: bool,
    /// Whether it paused once more than it is asked.
    given_up: bool,
    /// Tokens of the rounds before, and of this one.
    before: Tokens,
    now: Tokens,
    searches_before: Option<u64>,
    searches_now: Option<u64>,
    /// The number of this round's first part, and of the next one to begin.
    first: usize,
    next: usize,
}

impl Resume {
    /// For the answer to that request; `None` where providers never pause.
    #[must_use]
    pub fn of(protocol: Protocol, request: &[Bytes]) -> Option<Self> {
        let small = request.iter().map(Bytes::len).sum::<usize>() <= LARGEST;
        matches!(protocol, Protocol::Messages | Protocol::Gemini).then(|| Self {
            protocol,
            request: if small { request.to_vec() } else { Vec::new() },
            said: Transcript::default(),
            token: None,
            rounds: 0,
            paused: false,
            given_up: false,
            before: Tokens::default(),
            now: Tokens::default(),
            searches_before: None,
            searches_now: None,
            first: 0,
            next: 0,
        })
    }

    /// Looks at an event as the provider sent it.
    pub(super) fn see(&mut self, data: &[u8]) {
        if self.protocol == Protocol::Messages && !self.paused && self.may_ask() {
            self.said.see(data);
        }
    }

    /// Passes a delta on as one of the whole answer; what ends a round that is to be
    /// followed by another is kept back.
    pub(super) fn pass(&mut self, delta: Delta<'_>, emit: &mut dyn FnMut(Delta<'_>)) {
        if self.paused && !matches!(delta, Delta::Error { .. }) {
            if let Delta::Usage {
                tokens,
                web_searches,
            } = delta
            {
                self.now.update(&tokens);
                self.searches_now = web_searches.or(self.searches_now);
            }
            return;
        }
        match delta {
            Delta::Start { .. } if self.rounds > 0 => {}
            Delta::Usage {
                tokens,
                web_searches,
            } => {
                self.now.update(&tokens);
                self.searches_now = web_searches.or(self.searches_now);
                emit(Delta::Usage {
                    tokens: self.before.plus(&self.now),
                    web_searches: sum(self.searches_before, self.searches_now),
                });
            }
            Delta::Finish {
                finish: Finish::Pause,
                ..
            } if self.may_ask() && !self.said.lost => self.paused = true,
            Delta::Finish {
                finish: Finish::Continuation(token),
                ..
            } if self.may_ask() => {
                self.paused = true;
                self.token = Some(token);
            }
            other => {
                let given_up = matches!(
                    &other,
                    Delta::Finish {
                        finish: Finish::Pause | Finish::Continuation(_),
                        ..
                    }
                );
                self.given_up |= given_up;
                let moved = moved(other, self.first);
                if let Delta::PartStart { part, .. } = &moved {
                    self.next = self.next.max(part + 1);
                }
                emit(moved);
            }
        }
    }

    const fn may_ask(&self) -> bool {
        self.rounds < ROUNDS && !self.request.is_empty()
    }

    /// The request that makes the provider go on, if it paused. What follows is the
    /// next round.
    pub(super) fn next(&mut self) -> Option<Vec<Bytes>> {
        if !std::mem::take(&mut self.paused) {
            return None;
        }
        let whole = Bytes::from(self.request.concat());
        let mut tape = Tape::new();
        let root = tape.parse_bytes(&whole).ok()?;
        let patches = match self.token.take() {
            Some(token) => {
                let mut edits = Edits::new();
                edits.set(root, "continuationToken", &quoted(&token));
                edits.into_patches()
            }
            None => vec![self.said.turn(root)?],
        };
        self.rounds += 1;
        self.first = self.next;
        self.before = self.before.plus(&std::mem::take(&mut self.now));
        self.searches_before = sum(self.searches_before, self.searches_now.take());
        Some(splice::apply(std::slice::from_ref(&whole), patches))
    }

    /// What there is to say of it, for the log.
    #[must_use]
    pub fn notes(&self) -> Notes {
        let mut notes = Notes::new();
        if self.rounds > 0 {
            notes.info(Action::Emulated, "turn_resumed");
        }
        if self.given_up {
            notes.warn(Action::Dropped, "turn_continuation");
        }
        notes
    }
}

fn sum(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.saturating_add(other)),
        _ => one.or(other),
    }
}

/// The same of a part whose number is so much higher.
fn moved(mut delta: Delta<'_>, by: usize) -> Delta<'_> {
    match &mut delta {
        Delta::PartStart { part, .. }
        | Delta::Text { part, .. }
        | Delta::Summary { part, .. }
        | Delta::Arguments { part, .. }
        | Delta::ArgumentsWhole { part, .. }
        | Delta::Opaque { part, .. }
        | Delta::Annotation { part, .. }
        | Delta::PartEnd { part, .. } => *part += by,
        Delta::Start { .. }
        | Delta::Logprobs { .. }
        | Delta::Usage { .. }
        | Delta::Finish { .. }
        | Delta::Meta { .. }
        | Delta::Ping
        | Delta::Error { .. }
        | Delta::End => {}
    }
    delta
}

/// What a Messages provider said, block by block, to be said to it again.
#[derive(Debug, Default)]
struct Transcript {
    blocks: Vec<Block>,
    tape: Tape,
    size: usize,
    /// Whether it became too much.
    lost: bool,
}

/// A block as it began, and what was added to it.
#[derive(Debug, Default)]
struct Block {
    start: String,
    /// Members that are strings, as they stand in JSON.
    text: String,
    thinking: String,
    signature: String,
    /// A call's input: JSON that came in pieces.
    input: String,
    citations: Vec<String>,
}

impl Transcript {
    fn see(&mut self, data: &[u8]) {
        self.size += data.len();
        self.lost |= self.size > MOST;
        if self.lost {
            self.blocks.clear();
            return;
        }
        let mut tape = std::mem::take(&mut self.tape);
        if let Ok(root) = tape.parse_bytes(data) {
            self.event(root);
        }
        self.tape = tape;
    }

    fn event(&mut self, root: Value<'_>) {
        let says = |word: &str| {
            let kind = root.get("type").and_then(|kind| kind.as_str());
            kind.is_some_and(|kind| kind.is(word))
        };
        if says("content_block_start") {
            let block = root.get("content_block");
            self.blocks.extend(block.map(|block| Block {
                start: block.raw().as_str().to_owned(),
                ..Block::default()
            }));
        } else if says("content_block_delta")
            && let (Some(block), Some(delta)) = (self.blocks.last_mut(), root.get("delta"))
        {
            block.grow(delta);
        }
    }

    /// What puts it at the end of a request's conversation.
    fn turn(&self, root: Value<'_>) -> Option<Patch> {
        let messages = root.get("messages").filter(Value::is_array)?;
        let end = messages.span().end.checked_sub(1)?;
        let mut out = BytesMut::new();
        if !messages.is_empty() {
            out.extend_from_slice(b",");
        }
        {
            let mut turn = Object::open(&mut out);
            turn.text("role", "assistant");
            let mut content = turn.array("content");
            for block in &self.blocks {
                block.write(&mut content);
            }
        }
        Some(Patch {
            span: end..end,
            with: out.freeze(),
        })
    }
}

impl Block {
    fn grow(&mut self, delta: Value<'_>) {
        let text = |name: &str| delta.get(name).and_then(|text| text.as_str());
        let add = |to: &mut String, name: &str| {
            if let Some(text) = text(name) {
                to.push_str(&text.inner());
            }
        };
        add(&mut self.text, "text");
        add(&mut self.thinking, "thinking");
        add(&mut self.signature, "signature");
        if let Some(piece) = text("partial_json") {
            self.input.push_str(&piece.plain());
        }
        let citation = delta.get("citation");
        self.citations
            .extend(citation.map(|citation| citation.raw().as_str().to_owned()));
    }

    fn write(&self, content: &mut Array<'_>) {
        let mut tape = Tape::new();
        let Ok(start) = tape.parse(&self.start) else {
            return;
        };
        let says = |name: &str| start.get(name).and_then(|text| text.as_str());
        let is_text = says("type").is_some_and(|kind| kind.is("text"));
        let begun = says("text").is_some_and(|text| !text.is_empty());
        if is_text && self.text.is_empty() && !begun {
            // Refused, though it was said.
            return;
        }
        let mut block = content.object();
        for (name, value) in start.members() {
            let added = match name.plain().as_ref() {
                "text" => &self.text,
                "thinking" => &self.thinking,
                "signature" => &self.signature,
                "input" if Tape::new().parse(&self.input).is_ok() => {
                    block.digits("input", &self.input);
                    continue;
                }
                "citations" if !self.citations.is_empty() => continue,
                _ => "",
            };
            let out = block.foreign_key(&name);
            match value.as_str().filter(|_| !added.is_empty()) {
                Some(begun) => grown(&begun, added, out),
                None => out.extend_from_slice(value.raw().as_str().as_bytes()),
            }
        }
        if start.get("signature").is_none() && !self.signature.is_empty() {
            grown(&Str::default(), &self.signature, block.key("signature"));
        }
        if !self.citations.is_empty() {
            let out = block.key("citations");
            out.extend_from_slice(b"[");
            out.extend_from_slice(self.citations.join(",").as_bytes());
            out.extend_from_slice(b"]");
        }
    }
}

/// A string with something behind it, both as they stand in JSON.
fn grown(begun: &Str<'_>, added: &str, out: &mut BytesMut) {
    out.extend_from_slice(b"\"");
    out.extend_from_slice(begun.inner().as_bytes());
    out.extend_from_slice(added.as_bytes());
    out.extend_from_slice(b"\"");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::json::Raw;

    fn request() -> Vec<Bytes> {
        vec![Bytes::from_static(
            br#"{"model":"m","messages":[{"role":"user","content":"q"}],"max_tokens":9}"#,
        )]
    }

    fn text(frames: &[Bytes]) -> String {
        String::from_utf8(frames.concat()).unwrap()
    }

    #[test]
    fn what_was_said_is_said_again_block_by_block() {
        let mut resume = Resume::of(Protocol::Messages, &request()).unwrap();
        for event in [
            r#"{"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"","signature":""}}"#,
            r#"{"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"h\u00e9\n"}}"#,
            r#"{"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"c2ln"}}"#,
            r#"{"type":"content_block_start","index":1,"content_block":{"type":"server_tool_use","id":"srvtoolu_1","name":"web_search","input":{}}}"#,
            r#"{"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"{\"query\":12345678"}}"#,
            r#"{"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"901234567890}"}}"#,
            r#"{"type":"content_block_start","index":2,"content_block":{"type":"text","text":""}}"#,
            r#"{"type":"content_block_start","index":3,"content_block":{"type":"text","text":"a"}}"#,
            r#"{"type":"content_block_delta","index":3,"delta":{"type":"text_delta","text":"b"}}"#,
            r#"{"type":"content_block_delta","index":3,"delta":{"type":"citations_delta","citation":{"url":"u"}}}"#,
        ] {
            resume.see(event.as_bytes());
        }
        assert_eq!(resume.next(), None);
        resume.paused = true;
        let body = text(&resume.next().unwrap());
        let wanted = r#"{"model":"m","messages":[{"role":"user","content":"q"},{"role":"assistant","content":[{"type":"thinking","thinking":"h\u00e9\n","signature":"c2ln"},{"type":"server_tool_use","id":"srvtoolu_1","name":"web_search","input":{"query":12345678901234567890}},{"type":"text","text":"ab","citations":[{"url":"u"}]}]}],"max_tokens":9}"#;
        assert_eq!(body, wanted);
    }

    #[test]
    fn rounds_are_one_answer_with_the_tokens_of_all() {
        let mut resume = Resume::of(Protocol::Gemini, &request()).unwrap();
        let mut seen = Vec::new();
        for round in 0..=ROUNDS {
            let tokens = Tokens {
                input: Some(10),
                output: Some(1),
                ..Tokens::default()
            };
            let finish = Finish::Continuation(format!("t{round}"));
            for delta in [
                Delta::Start {
                    id: None,
                    model: None,
                },
                Delta::ArgumentsWhole {
                    choice: 0,
                    part: 0,
                    value: Raw::EMPTY_OBJECT,
                },
                Delta::PartStart {
                    choice: 0,
                    part: 0,
                    kind: super::super::ir::PartKind::Text,
                },
                Delta::Usage {
                    tokens,
                    web_searches: Some(1),
                },
                Delta::Finish { choice: 0, finish },
                Delta::End,
            ] {
                resume.pass(delta, &mut |delta| seen.push(format!("{delta:?}")));
            }
            let next = resume.next().map(|frames| text(&frames));
            let token = format!("\"continuationToken\":\"t{round}\"");
            assert_eq!(next.is_some(), round < ROUNDS);
            assert!(next.is_none_or(|next| next.contains(&token)));
        }
        let count = |word: &str| seen.iter().filter(|one| one.starts_with(word)).count();
        assert_eq!((count("Start"), count("Finish"), count("End")), (1, 1, 1));
        let parts = (0..=ROUNDS).map(|part| format!("part: {part},"));
        assert!(
            parts
                .into_iter()
                .all(|part| seen.iter().any(|one| one.contains(&part)))
        );
        let usage = seen.iter().rfind(|one| one.starts_with("Usage")).unwrap();
        assert!(usage.contains("input: Some(60)") && usage.contains("web_searches: Some(6)"));
        let notes: Vec<_> = resume
            .notes()
            .iter()
            .map(|note| note.what.clone())
            .collect();
        assert_eq!(notes, ["turn_resumed", "turn_continuation"]);
        assert!(Resume::of(Protocol::Chat, &[]).is_none());
    }
}
