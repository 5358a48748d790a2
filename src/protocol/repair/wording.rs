//! In which words providers name a field that they refuse. One table for all: what
//! one maker of servers says, others copy.

use super::Only;

/// Words behind which the name follows, in lower case.
const BEHIND: [&str; 26] = [
    // OpenAI, and whoever speaks like it.
    "unsupported parameter: ",
    "unsupported parameter(s): ",
    "unsupported parameters: ",
    "unknown parameter: ",
    "unknown parameters: ",
    "unrecognized parameter: ",
    "unrecognized request argument supplied: ",
    "unrecognized request arguments supplied: ",
    "unsupported value: ",
    // xAI.
    "argument not supported on this model: ",
    "does not support parameter ",
    "does not support the parameter ",
    // Servers in Rust and Go.
    "unknown field ",
    // Servers in Python.
    "unexpected keyword argument ",
    "extra inputs are not permitted, field: ",
    "extra fields not permitted: ",
    // Zod.
    "unrecognized key(s) in object: ",
    "unrecognized key: ",
    "unrecognized keys: ",
    // Bedrock.
    "extraneous key ",
    // Groq, Cerebras.
    "property ",
    // Gemini.
    "unknown name ",
    "invalid value at ",
    "unsupported field: ",
    "unknown argument: ",
    "unsupported argument: ",
];

/// Words before which the name stands, in lower case.
const BEFORE: [&str; 14] = [
    // Anthropic, and servers built on pydantic.
    ": extra inputs are not permitted",
    ": extra fields not permitted",
    ": unexpected field",
    " is deprecated for this model",
    " is not supported with this model",
    " is not supported by this model",
    " is not supported for this model",
    " is not supported on this model",
    " is not supported in this model",
    " is not a supported parameter",
    " is not a valid parameter",
    " parameter is not supported",
    " is unsupported",
    // The validator of jsonschema.
    " was unexpected",
];

/// Words before which an option of sampling stands that doesn't go with thinking.
const WHILE_THINKING: [&str; 4] = [
    " may only be set to 1 when thinking",
    " must be unset when thinking",
    " or unset when thinking",
    " is not supported when thinking",
];

/// Texts that name no field, and the fields they mean.
const MEANT: [(&str, &[&str]); 9] = [
    (
        "thinking level is not supported",
        &["generationConfig.thinkingConfig.thinkingLevel"],
    ),
    (
        "thinking budget is not supported",
        &["generationConfig.thinkingConfig.thinkingBudget"],
    ),
    (
        "only works in thinking mode",
        &["generationConfig.thinkingConfig.thinkingBudget"],
    ),
    (
        "penalty is not enabled",
        &[
            "generationConfig.presencePenalty",
            "generationConfig.frequencyPenalty",
        ],
    ),
    (
        "logprobs is not enabled",
        &[
            "generationConfig.responseLogprobs",
            "generationConfig.logprobs",
        ],
    ),
    (
        "does not support the effort parameter",
        &["output_config.effort"],
    ),
    ("adaptive thinking is not supported", &["thinking"]),
    (
        "does not support thinking",
        &["thinking", "reasoning_effort", "reasoning", "think"],
    ),
    (
        "does not support reasoning",
        &["reasoning_effort", "reasoning", "thinking"],
    ),
];

/// A field that a text names.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Named {
    /// Its path as it is written.
    pub(super) path: String,
    /// When it has to go.
    pub(super) when: When,
}

/// When a named field has to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// Always.
    Always,
    /// With the value that it has now.
    ThisValue,
    /// When the other one is there too, or while the model thinks.
    Only(&'static Only),
}

/// The fields that a text names as refused.
pub(super) fn named(text: &str) -> Vec<Named> {
    let lower = text.to_ascii_lowercase();
    let mut found = Vec::new();
    let mut add = |path: &str, when| {
        let path = path.to_owned();
        if !path.is_empty() && found.len() < 64 {
            found.push(Named { path, when });
        }
    };
    // The request speaks another dialect than it should: that is for its author.
    if lower.contains("has moved to") {
        return found;
    }
    behind(text, &lower, &mut add);
    before(text, &lower, &mut add);
    for (words, fields) in MEANT {
        if lower.contains(words) {
            fields.iter().for_each(|field| add(field, When::Always));
        }
    }
    if lower.contains("`temperature` and `top_p` cannot both be specified") {
        add("top_p", When::Only(&Only::Beside("temperature")));
    }
    found
}

fn behind(text: &str, lower: &str, add: &mut impl FnMut(&str, When)) {
    for words in BEHIND {
        for (at, _) in lower.match_indices(words) {
            let rest = text.get(at + words.len()..).unwrap_or_default();
            let tail = lower.get(at + words.len()..).unwrap_or_default();
            let line = tail.lines().next().unwrap_or_default();
            let when = match words {
                "unsupported value: " if !line.contains("only the default") => When::ThisValue,
                "invalid value at " if line.contains("(type.googleapis.com") => When::ThisValue,
                "invalid value at " => continue,
                "property " if !line.contains("is unsupported") => continue,
                _ => When::Always,
            };
            let prefix = prefix_of(text, at);
            for name in names(rest) {
                add(&qualified(prefix, name, words, rest), when);
            }
        }
    }
}

fn before(text: &str, lower: &str, add: &mut impl FnMut(&str, When)) {
    static THINKING: Only = Only::Thinking;
    let thinking = WHILE_THINKING
        .iter()
        .map(|words| (*words, When::Only(&THINKING)));
    let always = BEFORE.iter().map(|words| (*words, When::Always));
    for (words, when) in always.chain(thinking) {
        for (at, _) in lower.match_indices(words) {
            let head = text.get(..at).unwrap_or_default();
            if words == " or unset when thinking" {
                // "`top_p` must be greater than or equal to 0.95 or unset when ..."
                add(quoted(head), when);
            } else {
                add(last_name(head), when);
            }
        }
    }
    // The name stands on a line of its own, the complaint on the next.
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let next = lines.peek().map_or("", |next| next.trim_start());
        if next.starts_with("Extra inputs are not permitted") {
            add(line.trim(), When::Always);
        }
    }
}

/// Up to where a text says what it is about: `messages[0]: unknown field ...`, and
/// Groq's `('messages.2' : property ...`.
fn prefix_of(text: &str, at: usize) -> &str {
    let head = text.get(..at).unwrap_or_default().trim_end();
    head.strip_suffix(':').map_or("", last_name)
}

/// The name with what it stands in: what the text was about, or Gemini's
/// `"x" at 'a.b'`.
fn qualified(prefix: &str, name: &str, words: &str, rest: &str) -> String {
    let holder = match words {
        "unknown name " => rest
            .split_once(" at '")
            .filter(|(head, _)| !head.contains(':'))
            .and_then(|(_, tail)| tail.split('\'').next())
            .unwrap_or_default(),
        _ => prefix,
    };
    let inside = holder.is_empty() || name.starts_with(holder) || !looks_like_path(holder);
    if inside {
        name.to_owned()
    } else {
        format!("{holder}.{name}")
    }
}

/// Whether something is a path, not the last word of a sentence.
fn looks_like_path(text: &str) -> bool {
    text.contains(['.', '[', '_'])
}

/// The names at the start of a text: one, or more with commas between.
fn names(text: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', '\'', '"', '`', '[', '*']);
        let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        let (name, tail) = rest.split_at(end);
        names.push(trimmed(name));
        let tail = tail.trim_start_matches(['\'', '"', '`', ']', '*']);
        let next = tail.strip_prefix(", ");
        // A list of names is quoted as its first one is; else it is the sentence.
        match next.filter(|next| is_quoted(next) == is_quoted(text)) {
            Some(next) if names.len() < 16 => rest = next,
            _ => return names,
        }
    }
}

fn is_quoted(text: &str) -> bool {
    text.starts_with(['\'', '"', '`'])
}

/// The name at the end of a text.
fn last_name(text: &str) -> &str {
    let text = text.trim_end_matches([' ', '\'', '"', '`', '*', ')', '(']);
    let start = text.rfind(|c| !is_part(c));
    let behind = start.and_then(|at| text.get(at..)).map(|rest| {
        let mut letters = rest.chars();
        letters.next();
        letters.as_str()
    });
    trimmed(behind.unwrap_or(text))
}

/// The last thing between backticks.
fn quoted(text: &str) -> &str {
    text.rsplit('`').nth(1).unwrap_or_default()
}

fn trimmed(name: &str) -> &str {
    name.trim_matches(['.', ':', ',', '-'])
}

fn is_part(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '$' | '[' | ']')
}
