//! Changes that single providers need, on bodies as they go out: the client's own
//! or translated ones alike. Each is a change of a few spans; what it does not
//! concern stays byte for byte.
//!
//! Which adapters a target has is the configuration's business ([`Chain`]). None of
//! them has to be undone in the answer: a role or a field of the history says
//! nothing about it, tool ids are changed in the history only, and answers speak of
//! reasoning in the provider's own words either way.

mod chain;
mod fields;
mod gpt5;
mod ids;
mod search;
mod signatures;
mod version;

use bytes::Bytes;
use memchr::memmem::Finder;
use serde_json::Value as Json;

pub use self::chain::{Chain, Entry, Kind};
use super::Protocol;
use super::edit::Edits;
use super::history;
use super::json::{Tape, Value};
use super::notes::Notes;
use super::path::Path;
use super::splice;

/// One change, with its options.
#[derive(Clone, Debug, PartialEq)]
pub enum Adapter {
    /// `reasoning` or `thinking.content` of the history becomes
    /// `reasoning_content`.
    ReasoningContent,
    /// The role `developer` becomes `system`.
    SuppressDeveloperRole,
    /// Options that GPT-5 models refuse go.
    SuppressGpt5Options,
    /// Another name for the model, by what the body says.
    ModelOverride(Vec<OverrideRule>),
    /// Fields about reasoning, moved to where a provider wants them.
    ReasoningRewrite(Vec<RewriteRule>),
    /// Web search takes one provider's form.
    WebSearchCoercion {
        /// Whose.
        target: SearchForm,
        /// The most searches of one answer; Anthropic's form only.
        max_uses: Option<u64>,
    },
    /// Tool search goes.
    StripToolSearch,
    /// Tool ids become what Anthropic accepts.
    NormalizeToolIds,
    /// Gemini's signatures go where they are refused.
    StripGeminiSignatures,
    /// Calls without a signature get Gemini's word for that.
    SignGeminiCalls,
    /// What Anthropic refuses since a version goes.
    StripOldAnthropicFields,
}

/// When the model gets another name.
#[derive(Clone, Debug, PartialEq)]
pub struct OverrideRule {
    /// The name that it is for.
    pub model: String,
    /// The name that it becomes.
    pub rewrite_to: String,
    /// Any of these must hold.
    pub conditions: Vec<Condition>,
}

/// What a body has to say.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    /// Where.
    pub field: Path,
    /// What; anything, when it is absent.
    pub value: Option<Json>,
}

/// Where a field goes.
#[derive(Clone, Debug, PartialEq)]
pub struct RewriteRule {
    /// From here.
    pub from: Path,
    /// To there; nowhere, when it is absent.
    pub to: Option<Path>,
    /// What becomes of a value, by its text; others stay as they are. `null` is
    /// nothing.
    pub values: Vec<(String, Json)>,
}

/// Whose form of web search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SearchForm {
    /// `web_search_20250305`.
    Anthropic,
    /// `web_search`.
    OpenAi,
    /// `openrouter:web_search`.
    OpenRouter,
    /// `googleSearch`.
    Google,
}

/// What a body goes to.
#[derive(Clone, Copy, Debug)]
pub struct Destination<'d> {
    /// What is spoken there.
    pub protocol: Protocol,
    /// The host's name.
    pub host: &'d str,
    /// The model's name there.
    pub model: &'d str,
    /// The version of Anthropic's API that every request there is in, whatever the
    /// client says.
    pub version: Option<&'d str>,
}

/// A body after its changes.
#[derive(Debug)]
pub struct Adapted {
    /// The body.
    pub frames: Vec<Bytes>,
    /// The model's other name, if it gets one. The body has it already, where the
    /// protocol names the model in the body.
    pub model: Option<String>,
}

/// Changes a body. Without an adapter that concerns it, it is not even looked at.
/// A body that is not JSON stays as it is: its provider will say so.
#[must_use]
pub fn adapt(chain: &Chain, to: Destination<'_>, frames: Vec<Bytes>, notes: &mut Notes) -> Adapted {
    let mut body = Body {
        frames,
        model: None,
    };
    for adapter in chain.for_target(to) {
        if adapter.may_concern(to, &body.frames) {
            adapter.apply(to, &mut body, notes);
        }
    }
    Adapted {
        frames: body.frames,
        model: body.model,
    }
}

struct Body {
    frames: Vec<Bytes>,
    model: Option<String>,
}

impl Body {
    /// Edits the body as it is now.
    fn edit(&mut self, edit: impl for<'t> FnOnce(Value<'t>, &mut Edits<'t>)) {
        let whole = joined(&self.frames);
        let mut tape = Tape::new();
        let Ok(root) = tape.parse_bytes(&whole) else {
            return;
        };
        let mut edits = Edits::new();
        edit(root, &mut edits);
        if !edits.is_empty() {
            self.frames = splice::apply(std::slice::from_ref(&whole), edits.into_patches());
        }
    }
}

impl Adapter {
    /// Whether a look at the bytes can't exclude that there is something to do.
    fn may_concern(&self, to: Destination<'_>, frames: &[Bytes]) -> bool {
        let says = |token| mentions(frames, token);
        match self {
            Self::ReasoningContent => says(r#""reasoning""#) || says(r#""thinking""#),
            Self::SuppressDeveloperRole => says(r#""developer""#),
            Self::SuppressGpt5Options => gpt5::may_concern(to, frames),
            Self::NormalizeToolIds => ids::may_concern(frames),
            Self::WebSearchCoercion { .. } => {
                says("web_search") || says("googleSearch") || says("google_search")
            }
            Self::StripToolSearch => says("tool_search") || says(r#""defer_loading""#),
            Self::StripGeminiSignatures => signatures::may_be_there(frames),
            Self::SignGeminiCalls => signatures::may_be_missing(to.protocol, frames),
            Self::ModelOverride(_) | Self::ReasoningRewrite(_) | Self::StripOldAnthropicFields => {
                true
            }
        }
    }

    fn apply(&self, to: Destination<'_>, body: &mut Body, notes: &mut Notes) {
        match self {
            Self::ReasoningContent => body.edit(|root, edits| {
                fields::reasoning_content(root, edits, notes);
            }),
            Self::SuppressDeveloperRole => body.edit(|root, edits| {
                developer_as_system(to.protocol, root, edits, notes);
            }),
            Self::SuppressGpt5Options => {
                body.edit(|root, edits| gpt5::suppress(to, root, edits, notes));
            }
            Self::ModelOverride(rules) => {
                let mut chosen = None;
                body.edit(|root, edits| {
                    chosen = fields::model_override(rules, to, root, edits, notes);
                });
                if chosen.is_some() {
                    body.model = chosen;
                }
            }
            // Each rule sees what the one before it did.
            Self::ReasoningRewrite(rules) => rules.iter().for_each(|rule| {
                body.edit(|root, edits| fields::rewrite(rule, root, edits, notes));
            }),
            Self::WebSearchCoercion { target, max_uses } => body.edit(|root, edits| {
                search::coerce(*target, *max_uses, root, edits, notes);
            }),
            Self::StripToolSearch => body.edit(|root, edits| {
                search::strip_tool_search(to.protocol, root, edits, notes);
            }),
            Self::NormalizeToolIds => {
                body.edit(|root, edits| ids::normalize(root, edits, notes));
            }
            Self::StripGeminiSignatures => {
                body.edit(|root, edits| signatures::strip(root, edits, notes));
            }
            Self::SignGeminiCalls => body.edit(|root, edits| {
                signatures::sign(to.protocol, root, edits, notes);
            }),
            Self::StripOldAnthropicFields => {
                body.edit(|root, edits| version::strip(root, edits, notes));
            }
        }
    }
}

/// The role `developer` becomes `system`.
pub(in crate::protocol) fn developer_as_system<'t>(
    protocol: Protocol,
    root: Value<'t>,
    edits: &mut Edits<'t>,
    notes: &mut Notes,
) {
    for turn in history::turns(protocol, root) {
        if let Some(role) = turn.get("role")
            && role.as_str().is_some_and(|role| role.is("developer"))
        {
            edits.replace(role, r#""system""#);
            notes.info(super::notes::Action::Coerced, "role=developer>system");
        }
    }
}

fn joined(frames: &[Bytes]) -> Bytes {
    match frames {
        [only] => only.clone(),
        many => many.concat().into(),
    }
}

/// Whether a token stands anywhere in the frames, across their seams too.
fn mentions(frames: &[Bytes], token: &'static str) -> bool {
    let finder = Finder::new(token);
    let most = token.len() - 1;
    let mut seam: Vec<u8> = Vec::new();
    for frame in frames {
        if finder.find(frame).is_some() {
            return true;
        }
        seam.extend_from_slice(&frame[..frame.len().min(most)]);
        if finder.find(&seam).is_some() {
            return true;
        }
        if frame.len() >= most {
            seam.clear();
            seam.extend_from_slice(&frame[frame.len() - most..]);
        } else {
            let extra = seam.len().saturating_sub(most);
            seam.drain(..extra);
        }
    }
    false
}

#[cfg(test)]
mod tests;
