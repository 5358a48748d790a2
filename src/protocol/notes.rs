//! What a translation changed: dropped, coerced, emulated or injected.
//!
//! Notes of class warn go to the client in `x-plexus-notes`; all of them go into
//! the request's log row. In strict mode the first warning becomes a refusal.

use std::borrow::Cow;

use super::Protocol;
use super::ir::Invalid;

/// The most notes that are kept; what is beyond them is counted.
const MOST: usize = 64;
/// The longest header value, in bytes.
const HEADER: usize = 1024;
/// The longest path in a note: a client can nest as it likes.
const LONGEST: usize = 120;

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is not there any more.
    Dropped,
    /// It became something near.
    Coerced,
    /// The gateway does what the provider can't.
    Emulated,
    /// It was not there before.
    Injected,
}

impl Action {
    /// The word of the header.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dropped => "dropped",
            Self::Coerced => "coerced",
            Self::Emulated => "emulated",
            Self::Injected => "injected",
        }
    }
}

/// Whether the output is touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// A hint without effect on the output.
    Info,
    /// The output may differ from what was asked.
    Warn,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// What was done.
    pub action: Action,
    /// To what: the client's field, or a word for it: `logit_bias`,
    /// `reasoning_effort=max>xhigh`, `system_hoisted`.
    pub what: Cow<'static, str>,
    /// The client's field, for a refusal in strict mode.
    pub param: Cow<'static, str>,
    /// Whether the output is touched.
    pub severity: Severity,
}

/// The changes of one request.
#[derive(Clone, Debug, Default)]
pub struct Notes {
    list: Vec<Note>,
    more: usize,
}

impl Notes {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A change that may touch the output. `what` doubles as the field's name.
    pub fn warn(&mut self, action: Action, what: impl Into<Cow<'static, str>>) {
        let what = what.into();
        self.add(action, what.clone(), what, Severity::Warn);
    }

    /// A change that may touch the output, told by another word than the field's.
    pub fn warn_at(
        &mut self,
        action: Action,
        what: impl Into<Cow<'static, str>>,
        param: impl Into<Cow<'static, str>>,
    ) {
        self.add(action, what.into(), param.into(), Severity::Warn);
    }

    /// A change without effect on the output.
    pub fn info(&mut self, action: Action, what: impl Into<Cow<'static, str>>) {
        let what = what.into();
        self.add(action, what.clone(), what, Severity::Info);
    }

    fn add(
        &mut self,
        action: Action,
        what: Cow<'static, str>,
        param: Cow<'static, str>,
        severity: Severity,
    ) {
        let note = Note {
            action,
            what: cut(what),
            param: cut(param),
            severity,
        };
        if self.list.contains(&note) {
            return;
        }
        if self.list.len() == MOST {
            self.more += 1;
            return;
        }
        self.list.push(note);
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Note> {
        self.list.iter()
    }

    /// Takes over the notes of another step.
    pub fn extend(&mut self, other: &Self) {
        for note in &other.list {
            self.add(
                note.action,
                note.what.clone(),
                note.param.clone(),
                note.severity,
            );
        }
        self.more += other.more;
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The value of `x-plexus-notes`: warnings, at most 1 KiB, then how many more
    /// there are. Visible ASCII only.
    #[must_use]
    pub fn header(&self) -> Option<String> {
        let mut out = String::new();
        let warnings = self.list.iter().filter(|n| n.severity == Severity::Warn);
        let mut left_out = self.more;
        for note in warnings {
            let entry = format!("{}:{}", note.action.name(), visible(&note.what));
            if out.len() + entry.len() + 8 > HEADER {
                left_out += 1;
                continue;
            }
            if !out.is_empty() {
                out.push(';');
            }
            out.push_str(&entry);
        }
        if left_out > 0 {
            out.push_str(&format!(";+{left_out}"));
        }
        (!out.is_empty()).then_some(out)
    }

    /// All of them for the log: a JSON array of objects with `action`, `what` and
    /// `severity`.
    #[must_use]
    pub fn to_json(&self) -> String {
        let entries = self.list.iter().map(|note| {
            let severity = match note.severity {
                Severity::Info => "info",
                Severity::Warn => "warn",
            };
            serde_json::json!({
                "action": note.action.name(), "what": note.what, "severity": severity,
            })
        });
        serde_json::Value::Array(entries.collect()).to_string()
    }

    /// In strict mode: the refusal that the first warning becomes.
    ///
    /// # Errors
    ///
    /// When there is a warning.
    pub fn refuse(&self, target: Protocol) -> Result<(), Invalid> {
        let first = self.list.iter().find(|n| n.severity == Severity::Warn);
        let Some(note) = first else {
            return Ok(());
        };
        Err(Invalid::unsupported(
            "unsupported_parameter",
            note.param.clone(),
            format!(
                "'{}' would be {} on the way to a provider that speaks {target}, and strict mode is on",
                note.what,
                note.action.name(),
            ),
        ))
    }
}

fn cut(text: Cow<'static, str>) -> Cow<'static, str> {
    match text.char_indices().nth(LONGEST) {
        Some((at, _)) => Cow::Owned(text.get(..at).unwrap_or_default().to_owned()),
        None => text,
    }
}

fn visible(text: &str) -> String {
    let keep = |c: char| {
        if c.is_ascii_graphic() && c != ';' {
            c
        } else {
            '_'
        }
    };
    text.chars().map(keep).collect()
}

/// A field of the intermediate representation that some target can't say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// The limit of output.
    MaxOutput,
    /// Temperature.
    Temperature,
    /// Nucleus sampling.
    TopP,
    /// Sampling from the best k.
    TopK,
    /// Frequency penalty.
    FrequencyPenalty,
    /// Presence penalty.
    PresencePenalty,
    /// Seed.
    Seed,
    /// Stop texts.
    Stop,
    /// Number of answers.
    N,
    /// Probabilities.
    Logprobs,
    /// Probabilities of rivals.
    TopLogprobs,
    /// Bias of tokens.
    LogitBias,
    /// Tools.
    Tools,
    /// Tool choice.
    ToolChoice,
    /// Calls in parallel.
    Parallel,
    /// Reasoning effort.
    Effort,
    /// Reasoning budget.
    Budget,
    /// Reasoning as a whole.
    Reasoning,
    /// Shape of the answer.
    Format,
    /// Length of the answer.
    Verbosity,
    /// Tier.
    Service,
    /// The client's user.
    EndUser,
    /// Labels.
    Metadata,
    /// Cache key.
    CacheKey,
    /// Cache marks.
    CacheMark,
    /// Web search as an option.
    WebSearch,
    /// Calls of hosted tools.
    MaxToolCalls,
    /// Kinds of output.
    Modalities,
    /// The turns.
    Turns,
}

impl Field {
    /// The field's name in the words of the client's protocol.
    #[must_use]
    pub const fn path(self, origin: Protocol) -> &'static str {
        let names = NAMES[self as usize];
        match origin {
            Protocol::Responses => names[1],
            Protocol::Messages => names[2],
            Protocol::Gemini => names[3],
            _ => names[0],
        }
    }
}

/// The fields' names in chat, responses, messages and gemini, in the order of
/// [`Field`]. Where a protocol has no such field, the nearest that can stand for it.
const NAMES: [[&str; 4]; 29] = [
    [
        "max_completion_tokens",
        "max_output_tokens",
        "max_tokens",
        "generationConfig.maxOutputTokens",
    ],
    [
        "temperature",
        "temperature",
        "temperature",
        "generationConfig.temperature",
    ],
    ["top_p", "top_p", "top_p", "generationConfig.topP"],
    ["top_k", "top_k", "top_k", "generationConfig.topK"],
    [
        "frequency_penalty",
        "frequency_penalty",
        "frequency_penalty",
        "generationConfig.frequencyPenalty",
    ],
    [
        "presence_penalty",
        "presence_penalty",
        "presence_penalty",
        "generationConfig.presencePenalty",
    ],
    ["seed", "seed", "seed", "generationConfig.seed"],
    [
        "stop",
        "stop",
        "stop_sequences",
        "generationConfig.stopSequences",
    ],
    ["n", "n", "n", "generationConfig.candidateCount"],
    [
        "logprobs",
        "include",
        "logprobs",
        "generationConfig.responseLogprobs",
    ],
    [
        "top_logprobs",
        "top_logprobs",
        "top_logprobs",
        "generationConfig.logprobs",
    ],
    ["logit_bias", "logit_bias", "logit_bias", "logit_bias"],
    ["tools", "tools", "tools", "tools"],
    [
        "tool_choice",
        "tool_choice",
        "tool_choice",
        "toolConfig.functionCallingConfig",
    ],
    [
        "parallel_tool_calls",
        "parallel_tool_calls",
        "tool_choice.disable_parallel_tool_use",
        "toolConfig",
    ],
    [
        "reasoning_effort",
        "reasoning.effort",
        "output_config.effort",
        "generationConfig.thinkingConfig.thinkingLevel",
    ],
    [
        "reasoning.max_tokens",
        "reasoning",
        "thinking.budget_tokens",
        "generationConfig.thinkingConfig.thinkingBudget",
    ],
    [
        "reasoning_effort",
        "reasoning",
        "thinking",
        "generationConfig.thinkingConfig",
    ],
    [
        "response_format",
        "text.format",
        "output_config.format",
        "generationConfig.responseMimeType",
    ],
    ["verbosity", "text.verbosity", "verbosity", "verbosity"],
    [
        "service_tier",
        "service_tier",
        "service_tier",
        "serviceTier",
    ],
    ["user", "user", "metadata.user_id", "user"],
    ["metadata", "metadata", "metadata", "labels"],
    [
        "prompt_cache_key",
        "prompt_cache_key",
        "prompt_cache_key",
        "prompt_cache_key",
    ],
    [
        "prompt_cache_breakpoint",
        "prompt_cache_breakpoint",
        "cache_control",
        "cachedContent",
    ],
    ["web_search_options", "tools", "tools", "tools"],
    ["max_tool_calls", "max_tool_calls", "max_uses", "tools"],
    [
        "modalities",
        "modalities",
        "modalities",
        "generationConfig.responseModalities",
    ],
    ["messages", "input", "messages", "contents"],
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_make_a_header_of_bounded_length() {
        let mut notes = Notes::new();
        assert_eq!(notes.header(), None);
        notes.info(Action::Dropped, "metadata");
        assert_eq!(notes.header(), None);
        notes.warn(Action::Dropped, "logit_bias");
        notes.warn(Action::Dropped, "logit_bias");
        notes.warn(Action::Coerced, "reasoning_effort=max>xhigh\u{e9};x");
        assert_eq!(
            notes.header().unwrap(),
            "dropped:logit_bias;coerced:reasoning_effort=max>xhigh__x"
        );
        for i in 0..200 {
            notes.warn(Action::Dropped, format!("{i}{}", "x".repeat(300)));
        }
        let header = notes.header().unwrap();
        assert!(header.len() <= HEADER && header.contains(";+"), "{header}");
    }

    #[test]
    fn strict_mode_names_the_clients_field() {
        let mut notes = Notes::new();
        notes.info(Action::Dropped, "metadata");
        assert_eq!(notes.refuse(Protocol::Messages), Ok(()));
        notes.warn(Action::Dropped, Field::TopK.path(Protocol::Gemini));
        let refusal = notes.refuse(Protocol::Chat).unwrap_err();
        assert_eq!(refusal.param.as_deref(), Some("generationConfig.topK"));
        assert_eq!(refusal.code, Some("unsupported_parameter"));
    }
}
