//! What is to be said, before any protocol: pieces of text, reasoning, tool
//! calls, and the tokens that they are said to have cost.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::ask::Ask;
use super::behaviour::{Content, Finish};
use super::route::Vendor;
use super::script::IDENTIFIER;

/// Words of more than one byte per character and characters that JSON escapes
/// are among them, so that cuts and re-encodings meet them.
const WORDS: [&str; 24] = [
    "Every",
    "answer",
    "here",
    "is",
    "made",
    "up:",
    "no",
    "model",
    "was",
    "asked,",
    "so",
    "a",
    "naïve",
    "café",
    "may",
    "say",
    "\"hello\"",
    "in",
    "日本",
    "or",
    "smile",
    "🙂",
    "and",
    "go\n",
];
const THOUGHTS: [&str; 6] = [
    "Let me",
    " see.",
    " The user",
    " asks,",
    " so I",
    " answer.",
];
const FILLER: &str = "the quick brown fox jumps over the lazy dog and then ";
/// Bytes of tool arguments in one delta.
const FRAGMENT: usize = 9;

/// An answer.
#[derive(Clone, Debug, Default)]
pub(super) struct Answer {
    pub(super) model: String,
    pub(super) reasoning: Vec<String>,
    pub(super) text: Vec<String>,
    pub(super) calls: Vec<Call>,
    pub(super) finish: Finish,
    pub(super) usage: Usage,
}

/// A tool call.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) name: String,
    pub(super) arguments: Value,
    number: usize,
}

/// Tokens, each total with its parts in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) input: u64,
    pub(super) output: u64,
    pub(super) cached: u64,
    pub(super) cache_write: u64,
    pub(super) reasoning: u64,
}

impl Answer {
    /// Decides what to say.
    pub(super) fn new(content: &Content, ask: &Ask, model: &str, vendor: Vendor) -> Self {
        let mut answer = Self {
            model: model.to_owned(),
            finish: content.finish,
            ..Self::default()
        };
        if !content.empty {
            answer.calls = calls(content.tools, &ask.tools(vendor));
            answer.text = text(content, ask);
            if content.reasoning {
                answer.reasoning = THOUGHTS.map(str::to_owned).to_vec();
            }
        }
        answer.usage = answer.count(content, ask);
        answer
    }

    /// All of the text.
    pub(super) fn whole_text(&self) -> String {
        self.text.concat()
    }

    /// All of the reasoning.
    pub(super) fn whole_reasoning(&self) -> String {
        self.reasoning.concat()
    }

    fn count(&self, content: &Content, ask: &Ask) -> Usage {
        let fragments: usize = self.calls.iter().map(|call| call.fragments().len()).sum();
        let visible = (self.text.len() + fragments) as u64;
        let thought = self.reasoning.len() as u64;
        let output = content
            .tokens_out
            .unwrap_or_else(|| visible + content.reasoning_tokens.unwrap_or(thought));
        Usage {
            input: content.tokens_in.unwrap_or(ask.tokens),
            output,
            cached: content.cached.unwrap_or(0),
            cache_write: content.cache_write.unwrap_or(0),
            reasoning: content
                .reasoning_tokens
                .unwrap_or_else(|| thought.min(output)),
        }
    }
}

impl Call {
    /// An identifier with the vendor's prefix.
    pub(super) fn id(&self, prefix: &str) -> String {
        format!("{prefix}{IDENTIFIER}{:02}", self.number)
    }

    /// The arguments as JSON text.
    pub(super) fn text(&self) -> String {
        self.arguments.to_string()
    }

    /// The same text in pieces, none of which cuts a character.
    pub(super) fn fragments(&self) -> Vec<String> {
        let mut fragments = vec![String::new()];
        for character in self.text().chars() {
            if let Some(last) = fragments.last_mut()
                && last.len() < FRAGMENT
            {
                last.push(character);
            } else {
                fragments.push(character.to_string());
            }
        }
        fragments
    }
}

impl Usage {
    /// Input that no cache had a part in.
    pub(super) fn plain_input(&self) -> u64 {
        self.input
            .saturating_sub(self.cached)
            .saturating_sub(self.cache_write)
    }

    /// Output that the user sees.
    pub(super) fn visible_output(&self) -> u64 {
        self.output.saturating_sub(self.reasoning)
    }

    /// Input and output.
    pub(super) fn total(&self) -> u64 {
        self.input.saturating_add(self.output)
    }
}

/// A signature or an encrypted blob: valid base64, the same for the same protocol,
/// name and thought.
pub(super) fn signature(protocol: &str, name: &str, thought: &str) -> String {
    let digest = digest(thought);
    STANDARD.encode(format!(
        "simulated {protocol} reasoning of {name}, signed for whoever carries it back: {digest}"
    ))
}

/// Whether that protocol's service here made the signature.
pub(super) fn is_signed(protocol: &str, signature: &str) -> bool {
    seed(signature)
        .is_some_and(|seed| seed.starts_with(&format!("simulated {protocol} reasoning ")))
}

/// Whether the signature was made here for that thought.
pub(super) fn is_signature_of(protocol: &str, thought: &str, signature: &str) -> bool {
    is_signed(protocol, signature)
        && seed(signature).is_some_and(|seed| seed.ends_with(&digest(thought)))
}

/// What was signed; Google's SDK sends its bytes back in the other alphabet.
fn seed(signature: &str) -> Option<String> {
    let signature = signature.replace('-', "+").replace('_', "/");
    String::from_utf8(STANDARD.decode(signature).ok()?).ok()
}

fn digest(thought: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, thought.as_bytes());
    let bytes = digest.as_ref().iter().take(8);
    bytes.map(|byte| format!("{byte:02x}")).collect()
}

fn text(content: &Content, ask: &Ask) -> Vec<String> {
    let asked_for = content.chunks.is_some() || content.bytes.is_some();
    let mut pieces = if content.echo {
        let spoken = ask.last_user_text();
        spoken.split_inclusive(' ').map(str::to_owned).collect()
    } else if content.tools > 0 && !asked_for && content.huge.is_none() {
        Vec::new()
    } else {
        let count = content.chunks.unwrap_or(WORDS.len());
        (0..count)
            .map(|index| piece(index, content.bytes))
            .collect()
    };
    if let Some(bytes) = content.huge {
        pieces.push(filler(bytes));
    }
    pieces
}

fn piece(index: usize, bytes: Option<usize>) -> String {
    if let Some(bytes) = bytes {
        return filler(bytes);
    }
    let space = if index == 0 { "" } else { " " };
    format!("{space}{}", WORDS[index % WORDS.len()])
}

fn filler(bytes: usize) -> String {
    let mut text = FILLER.repeat(bytes / FILLER.len() + 1);
    text.truncate(bytes);
    text
}

fn calls(count: usize, tools: &[(String, Value)]) -> Vec<Call> {
    let call = |number: usize| match tools {
        [] => Call {
            name: "look_up".to_owned(),
            arguments: json!({"city": "Zürich", "days": 3}),
            number,
        },
        tools => {
            let (name, schema) = &tools[number % tools.len()];
            Call {
                name: name.clone(),
                arguments: arguments(schema),
                number,
            }
        }
    };
    (0..count).map(call).collect()
}

/// Arguments that fit the top level of a schema.
fn arguments(schema: &Value) -> Value {
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
        return json!({});
    };
    let filled: Map<String, Value> = properties
        .iter()
        .map(|(name, schema)| (name.clone(), sample(schema)))
        .collect();
    Value::Object(filled)
}

fn sample(schema: &Value) -> Value {
    if let Some(first) = schema.get("enum").and_then(|values| values.get(0)) {
        return first.clone();
    }
    let kind = match schema.get("type") {
        Some(Value::Array(kinds)) => kinds.first().and_then(Value::as_str),
        Some(kind) => kind.as_str(),
        None => None,
    };
    match kind.unwrap_or("string").to_ascii_lowercase().as_str() {
        "integer" | "number" => json!(42),
        "boolean" => json!(true),
        "array" => json!([]),
        "object" => arguments(schema),
        "null" => Value::Null,
        _ => json!("Zürich"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::Behaviour;

    fn answer(options: &str, body: &str) -> Answer {
        let behaviour = Behaviour::parse("m", Some(options)).unwrap();
        let ask = Ask::from_json(body.as_bytes()).unwrap();
        Answer::new(&behaviour.content, &ask, "m", Vendor::OpenAi)
    }

    #[test]
    fn deltas_have_the_size_and_number_asked_for() {
        let answer = answer("chunks=7;bytes=300", "{}");
        assert_eq!(answer.text.len(), 7);
        assert!(answer.text.iter().all(|piece| piece.len() == 300));
        assert_eq!(answer.usage.output, 7);
    }

    #[test]
    fn fragments_join_to_the_arguments_and_fit_the_schema() {
        let answer = answer(
            "tools=2",
            r#"{"tools":[{"function":{"name":"f","parameters":{"properties":{"n":{"type":"integer"},"unit":{"enum":["c"]}}}}}]}"#,
        );
        assert_eq!(answer.calls.len(), 2);
        let call = &answer.calls[1];
        assert_eq!(call.fragments().concat(), r#"{"n":42,"unit":"c"}"#);
        assert!(call.fragments().len() > 1);
        assert_ne!(call.id("call_"), answer.calls[0].id("call_"));
        assert!(answer.text.is_empty());
    }

    #[test]
    fn usage_is_what_was_asked_for() {
        let usage = answer(
            "tokens_in=100;tokens_out=50;cached=30;cache_write=20;reasoning_tokens=40",
            "{}",
        )
        .usage;
        assert_eq!(usage.plain_input(), 50);
        assert_eq!(usage.visible_output(), 10);
        assert_eq!(usage.total(), 150);
    }
}
