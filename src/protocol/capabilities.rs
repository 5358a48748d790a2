//! What a model at a provider can do, as far as a translation must know: a table
//! of what is known, with an operator's word above it.
//!
//! Three layers, each over the one before: the protocol, the host, the family of
//! models. What nobody knows yet counts as the newest of its family.

mod table;
#[cfg(test)]
mod tests;

use serde_json::{Map, Value};

use self::table::{FAMILIES, HOSTS, Set, Way};
use super::ir::Effort;
use super::{Protocol, host};

/// How a model takes orders about reasoning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Thinking {
    /// It can be switched off.
    pub off: bool,
    /// It takes a budget of tokens.
    pub budget: bool,
    /// It decides for itself (Anthropic `adaptive`).
    pub adaptive: bool,
    /// It thinks between tool calls (Anthropic `between_tools`).
    pub between_tools: bool,
    /// It takes levels (Gemini `thinkingLevel`).
    pub levels: bool,
    /// It takes an effort by name (OpenAI).
    pub effort: bool,
}

/// How a Gemini endpoint takes schemas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SchemaMode {
    /// `parametersJsonSchema`, `responseJsonSchema`.
    #[default]
    JsonSchema,
    /// `parameters`, `responseSchema`: a subset of OpenAPI.
    OpenApi,
}

/// What a model at a provider can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// The most tokens of output.
    pub max_output: Option<u64>,
    /// The most tokens of input and output.
    pub context: Option<u64>,
    /// How it takes orders about reasoning.
    pub thinking: Thinking,
    /// The efforts it knows, weakest first.
    pub efforts: Vec<Effort>,
    /// Whether temperature, `top_p` and `top_k` are accepted.
    pub sampling: bool,
    /// Whether a forced tool may go with thinking.
    pub forced_with_thinking: bool,
    /// Whether a last turn of the assistant is continued.
    pub prefill: bool,
    /// Whether system text may come in the middle.
    pub mid_system: bool,
    /// Whether answers can be bound to a schema.
    pub structured: bool,
    /// Whether tools can be strict.
    pub strict_tools: bool,
    /// Whether the role `developer` is known.
    pub developer_role: bool,
    /// Whether the limit of output is `max_completion_tokens` (else `max_tokens`).
    pub max_completion_tokens: bool,
    /// Whether a chat stream can be asked for its usage.
    pub usage_in_stream: bool,
    /// Whether earlier reasoning must be sent back as `reasoning_content`.
    pub echo_reasoning: bool,
    /// Whether reasoning comes in `<think>` tags.
    pub think_tags: bool,
    /// Whether OpenAI's cache marks are known.
    pub cache_breakpoints: bool,
    /// Whether Anthropic's top-level cache mark is known.
    pub auto_cache: bool,
    /// Whether web search is hosted.
    pub web_search: bool,
    /// Whether code is run.
    pub code_exec: bool,
    /// Whether hosted tools and functions mix (Gemini).
    pub tool_mixing: bool,
    /// Whether a function's result may hold media (Gemini).
    pub fr_parts: bool,
    /// How schemas are taken (Gemini).
    pub schema_mode: SchemaMode,
    /// Whether images may be URLs.
    pub image_url: bool,
    /// Whether images may be inline.
    pub image_b64: bool,
    /// Whether PDF is read.
    pub pdf: bool,
    /// Whether sound is heard.
    pub audio: bool,
    /// Whether film is seen.
    pub video: bool,
    /// Whether answers come as streams only.
    pub stream_only: bool,
}

impl Capabilities {
    /// What is known of a model: by the protocol that its provider is asked in,
    /// the provider's host and the model's name there.
    #[must_use]
    pub fn of(protocol: Protocol, host: &str, model: &str) -> Self {
        let mut capabilities = Self::of_protocol(protocol);
        let host = host.to_ascii_lowercase();
        let host = host.split(':').next().unwrap_or_default();
        let hosts = HOSTS.iter().filter(|row| host::is_at(host, row.host));
        for row in hosts.filter(|row| row.protocols.contains(&protocol)) {
            capabilities.set(row.set, true);
        }
        let name = model.to_ascii_lowercase();
        let name = name.rsplit('/').next().unwrap_or_default();
        for family in FAMILIES {
            let Some(own) = family.find(name) else {
                continue;
            };
            let version = version(own.get(family.word.len()..).unwrap_or_default());
            let rows = family.rows.iter();
            for row in rows.filter(|row| row.from <= version && version < row.below) {
                if row.names.iter().any(|pattern| matches(pattern, own)) {
                    capabilities.set(row.set, family.native.contains(&protocol));
                }
            }
            break;
        }
        capabilities
    }

    fn of_protocol(protocol: Protocol) -> Self {
        let openai = matches!(protocol, Protocol::Chat | Protocol::Responses);
        let gemini = protocol == Protocol::Gemini;
        Self {
            max_output: None,
            context: None,
            thinking: Thinking {
                effort: openai,
                ..Thinking::default()
            },
            efforts: vec![Effort::Low, Effort::Medium, Effort::High],
            sampling: true,
            forced_with_thinking: false,
            prefill: false,
            mid_system: false,
            structured: protocol != Protocol::Messages,
            strict_tools: false,
            developer_role: false,
            max_completion_tokens: false,
            usage_in_stream: true,
            echo_reasoning: false,
            think_tags: false,
            cache_breakpoints: false,
            auto_cache: false,
            web_search: false,
            code_exec: false,
            tool_mixing: false,
            fr_parts: false,
            schema_mode: SchemaMode::JsonSchema,
            // Google fetches only what lies in its own stores.
            image_url: !gemini,
            image_b64: true,
            pdf: protocol != Protocol::Chat,
            audio: gemini,
            video: gemini,
            stream_only: false,
        }
    }

    /// Takes over a row of the table. How orders are taken belongs to the family's
    /// own protocol; through another one, only the sizes hold.
    fn set(&mut self, row: &[Set], native: bool) {
        for set in row {
            match set {
                Set::Output(tokens) => self.max_output = Some(*tokens),
                Set::Context(tokens) => self.context = Some(*tokens),
                _ if !native => {}
                Set::Thinking(ways) => self.thinking = thinking(ways),
                Set::Efforts(efforts) => self.efforts = efforts.to_vec(),
                Set::Yes(name) => self.set_flag(name, true),
                Set::No(name) => self.set_flag(name, false),
                Set::OpenApi => self.schema_mode = SchemaMode::OpenApi,
            }
        }
    }

    fn set_flag(&mut self, name: &str, value: bool) {
        if let Some(flag) = self.flag(name) {
            *flag = value;
        }
    }

    /// The yes or no of that name: the names of the configuration file.
    fn flag(&mut self, name: &str) -> Option<&mut bool> {
        Some(match name {
            "sampling" => &mut self.sampling,
            "forced_with_thinking" => &mut self.forced_with_thinking,
            "prefill" => &mut self.prefill,
            "mid_system" => &mut self.mid_system,
            "structured" => &mut self.structured,
            "strict_tools" => &mut self.strict_tools,
            "developer_role" => &mut self.developer_role,
            "max_completion_tokens" => &mut self.max_completion_tokens,
            "usage_in_stream" => &mut self.usage_in_stream,
            "echo_reasoning" => &mut self.echo_reasoning,
            "think_tags" => &mut self.think_tags,
            "cache_breakpoints" => &mut self.cache_breakpoints,
            "auto_cache" => &mut self.auto_cache,
            "web_search" => &mut self.web_search,
            "code_exec" => &mut self.code_exec,
            "tool_mixing" => &mut self.tool_mixing,
            "fr_parts" => &mut self.fr_parts,
            "image_url" => &mut self.image_url,
            "image_b64" => &mut self.image_b64,
            "pdf" => &mut self.pdf,
            "audio" => &mut self.audio,
            "video" => &mut self.video,
            "stream_only" => &mut self.stream_only,
            _ => return None,
        })
    }

    /// The same with what an operator says above it: the members of a model's
    /// `capabilities` in the configuration, which were checked when it was read.
    #[must_use]
    pub fn overridden(&self, words: &Map<String, Value>) -> Self {
        let mut new = self.clone();
        for (name, value) in words {
            match (name.as_str(), value) {
                ("max_output", value) => new.max_output = value.as_u64().or(new.max_output),
                ("context", value) => new.context = value.as_u64().or(new.context),
                ("thinking", Value::Array(ways)) => {
                    let ways = ways.iter().filter_map(Value::as_str);
                    let ways: Vec<Way> = ways.filter_map(Way::from_name).collect();
                    let effort = new.thinking.effort;
                    new.thinking = thinking(&ways);
                    // The configuration has no word for it; efforts are listed.
                    new.thinking.effort = effort;
                }
                ("efforts", Value::Array(efforts)) => {
                    let efforts = efforts.iter().filter_map(Value::as_str);
                    new.efforts = efforts.filter_map(Effort::from_name).collect();
                    new.thinking.effort = !new.efforts.is_empty();
                }
                ("max_tokens_key", Value::String(key)) => {
                    new.max_completion_tokens = key == "max_completion_tokens";
                }
                ("schema_mode", Value::String(mode)) => {
                    new.schema_mode = if mode == "openapi" {
                        SchemaMode::OpenApi
                    } else {
                        SchemaMode::JsonSchema
                    };
                }
                (name, Value::Bool(value)) => new.set_flag(name, *value),
                _ => {}
            }
        }
        new
    }

    /// The strongest effort that the model knows and that is not above the wanted
    /// one; the weakest it knows where all are above. `None` when it knows none.
    #[must_use]
    pub fn nearest_effort(&self, wanted: Effort) -> Option<Effort> {
        let below = self
            .efforts
            .iter()
            .copied()
            .filter(|known| *known <= wanted);
        below.max().or_else(|| self.efforts.iter().copied().min())
    }
}

fn thinking(ways: &[Way]) -> Thinking {
    let has = |way| ways.contains(&way);
    Thinking {
        off: has(Way::Off),
        budget: has(Way::Budget),
        adaptive: has(Way::Adaptive),
        between_tools: has(Way::BetweenTools),
        levels: has(Way::Levels),
        effort: has(Way::Effort),
    }
}

/// Whether a model, by its name, is a Gemini that wants every step's first call
/// signed: one of the third generation, or later. Names at providers are written
/// small.
pub(in crate::protocol) fn signs_calls(model: &str) -> bool {
    const WORD: &str = "gemini";
    let name = model.rsplit('/').next().unwrap_or_default();
    let own = name.find(WORD).and_then(|at| name.get(at + WORD.len()..));
    own.is_some_and(|own| version(own) >= (3, 0))
}

/// The version in the rest of a model's name: the first number of one or two
/// digits, and the next where it follows directly. `-sonnet-4-20250514` is 4.0,
/// `-3.5-haiku` 3.5, `-k2-thinking` 2.0. Without one it is the newest there is.
fn version(rest: &str) -> (u16, u16) {
    let mut tokens = rest.split(['-', '_', '.', '@', ':', ' ']);
    let number = |token: &str| {
        let digits = token.trim_start_matches(['v', 'k']);
        let end = digits.find(|c: char| !c.is_ascii_digit());
        let digits = digits.get(..end.unwrap_or(digits.len()))?;
        (digits.len() < 3)
            .then(|| digits.parse::<u16>().ok())
            .flatten()
    };
    match tokens.find_map(number) {
        // Azure writes 3.5 without a point.
        Some(35) => (3, 5),
        Some(major) => (major, tokens.next().and_then(number).unwrap_or_default()),
        None => table::NEWEST,
    }
}

/// Whether a name fits a pattern in which `*` stands for anything.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((head, tail)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let Some(rest) = name.strip_prefix(head) else {
        return false;
    };
    let starts = rest.char_indices().map(|(at, _)| at).chain([rest.len()]);
    let mut rests = starts.filter_map(|at| rest.get(at..));
    rests.any(|rest| matches(tail, rest))
}
