//! What a provider's refusal asks to be changed, and the change: the field that it
//! doesn't know goes, a signature that it can't verify goes with its thinking, a role
//! it never heard of becomes one it has.
//!
//! A repair is made of [`Fix`]es, which mean the same in every body, so that what one
//! request had to learn can be applied to the next before it is sent ([`apply`]).
//! What makes the request is never touched, and a name counts only if the body has
//! it.

mod diagnose;
mod reasoning;
mod told;
mod wording;

use std::borrow::Cow;

pub use self::diagnose::diagnose;
use super::Protocol;
use super::adapt::developer_as_system;
use super::edit::Edits;
use super::history;
use super::json::Value;
use super::notes::{Action, Notes};
use super::path::{Path, Place};

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fix {
    /// A field goes.
    Remove {
        /// Which.
        path: Path,
        /// When.
        only: Only,
    },
    /// Chat's limit of output takes its other name.
    TokenLimit {
        /// Whether that is `max_completion_tokens`.
        completion: bool,
    },
    /// Signatures, ciphertexts and what they belong to go.
    Reasoning,
    /// Gemini's calls without a signature get the one that is not checked.
    Unsigned,
    /// Thinking goes (Messages).
    ThinkingOff,
    /// A budget for thinking becomes adaptive thinking (Messages).
    ThinkingAdaptive,
    /// A forced tool becomes the model's own choice.
    ToolChoice,
    /// The advisor's calls and results go (Messages).
    Advisor,
    /// The role `developer` becomes `system`.
    DeveloperRole,
    /// Tools that Codex's lite form of Responses doesn't take go.
    LiteTools,
    /// Hosted tools of that type go.
    HostedTool(Box<str>),
}

/// When a field goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Only {
    /// Always.
    Always,
    /// When it has that value, as it is written.
    Value(Box<str>),
    /// When that field is there too.
    Beside(&'static str),
    /// When thinking is on (Messages).
    Thinking,
}

impl Fix {
    /// Whether the next request to the same model will need it too. What depends on
    /// a conversation's history does not last.
    #[must_use]
    pub const fn lasts(&self) -> bool {
        match self {
            Self::Remove { .. }
            | Self::TokenLimit { .. }
            | Self::Unsigned
            | Self::ThinkingAdaptive
            | Self::DeveloperRole
            | Self::LiteTools
            | Self::HostedTool(_) => true,
            Self::Reasoning | Self::ThinkingOff | Self::ToolChoice | Self::Advisor => false,
        }
    }

    /// The word for it in notes and logs.
    #[must_use]
    pub fn word(&self) -> Cow<'static, str> {
        match self {
            Self::Remove { path, .. } => format!("parameter_removed={}", path.text()).into(),
            Self::TokenLimit { completion: true } => "max_tokens>max_completion_tokens".into(),
            Self::TokenLimit { completion: false } => "max_completion_tokens>max_tokens".into(),
            Self::Reasoning => "reasoning_stripped".into(),
            Self::Unsigned => "thought_signature_placeholder".into(),
            Self::ThinkingOff => "thinking_disabled".into(),
            Self::ThinkingAdaptive => "thinking_adaptive".into(),
            Self::ToolChoice => "tool_choice_auto".into(),
            Self::Advisor => "advisor_stripped".into(),
            Self::DeveloperRole => "role=developer>system".into(),
            Self::LiteTools => "tools_stripped".into(),
            Self::HostedTool(kind) => format!("tool_removed={kind}").into(),
        }
    }

    fn edit<'t>(&self, protocol: Protocol, root: Value<'t>, edits: &mut Edits<'t>) {
        match self {
            Self::Remove { path, only } => remove(path, only, root, edits),
            Self::TokenLimit { completion } => token_limit(*completion, root, edits),
            Self::Reasoning => reasoning::strip(protocol, root, edits),
            Self::Unsigned => reasoning::sign(protocol, root, edits),
            Self::ThinkingOff => edits.remove_member(root, "thinking"),
            Self::ThinkingAdaptive => adaptive(root, edits),
            Self::ToolChoice => tool_choice(protocol, root, edits),
            Self::Advisor => advisor(root, edits),
            Self::DeveloperRole => {
                developer_as_system(protocol, root, edits, &mut Notes::new());
            }
            Self::LiteTools => lite_tools(root, edits),
            Self::HostedTool(kind) => {
                let _any =
                    history::drop_tools(edits, root, |tool| history::says(tool, "type", kind));
            }
        }
    }
}

/// Changes a body by the fixes; what they do is noted. `None` where they change
/// nothing, so that sending it again would be of no use.
#[must_use]
pub fn apply<'t>(
    fixes: &[Fix],
    protocol: Protocol,
    root: Value<'t>,
    notes: &mut Notes,
) -> Option<Edits<'t>> {
    let mut edits = Edits::new();
    for fix in fixes {
        let before = edits.len();
        fix.edit(protocol, root, &mut edits);
        if edits.len() > before {
            notes.warn(Action::Emulated, fix.word());
        }
    }
    (!edits.is_empty()).then_some(edits)
}

fn remove<'t>(path: &Path, only: &Only, root: Value<'t>, edits: &mut Edits<'t>) {
    let holds = |place: &Place<'_>| match only {
        Only::Always => true,
        Only::Value(value) => place.value.raw().as_str() == &**value,
        Only::Beside(name) => root.some(name).is_some(),
        Only::Thinking => thinks(root),
    };
    for place in path.places(root).iter().filter(|place| holds(place)) {
        edits.remove(place.container, place.position);
    }
}

fn thinks(root: Value<'_>) -> bool {
    root.some("thinking")
        .is_some_and(|thinking| !history::says(thinking, "type", "disabled"))
}

fn token_limit<'t>(completion: bool, root: Value<'t>, edits: &mut Edits<'t>) {
    let (from, to) = match completion {
        true => ("max_tokens", "max_completion_tokens"),
        false => ("max_completion_tokens", "max_tokens"),
    };
    if root.get(from).is_none() {
        return;
    }
    if root.some(to).is_some() {
        edits.remove_member(root, from);
    } else {
        edits.remove_member(root, to);
        edits.rename(root, from, to);
    }
}

fn adaptive<'t>(root: Value<'t>, edits: &mut Edits<'t>) {
    let Some(thinking) = root.get("thinking") else {
        return;
    };
    if history::says(thinking, "type", "enabled") {
        if let Some(sort) = thinking.get("type") {
            edits.replace(sort, r#""adaptive""#);
        }
        edits.remove_member(thinking, "budget_tokens");
    }
}

fn tool_choice<'t>(protocol: Protocol, root: Value<'t>, edits: &mut Edits<'t>) {
    let Some(choice) = root.some("tool_choice") else {
        return;
    };
    let word = choice.as_str();
    let free = word.is_some_and(|word| word.is("auto") || word.is("none"));
    let sort = history::word(choice, "type");
    match (protocol, sort.as_deref()) {
        (Protocol::Messages, Some("any" | "tool")) => {
            if let Some(sort) = choice.get("type") {
                edits.replace(sort, r#""auto""#);
            }
            edits.remove_member(choice, "name");
        }
        (Protocol::Chat | Protocol::Responses, _) if !free => edits.replace(choice, r#""auto""#),
        _ => {}
    }
}

fn advisor<'t>(root: Value<'t>, edits: &mut Edits<'t>) {
    let Some(turns) = root.get("messages") else {
        return;
    };
    let _any = history::drop_blocks(edits, turns, "content", |block| {
        let sort = history::word(block, "type");
        match sort.as_deref() {
            Some("server_tool_use") => history::says(block, "name", "advisor"),
            Some(sort) => sort.starts_with("advisor_"),
            None => false,
        }
    });
}

fn lite_tools<'t>(root: Value<'t>, edits: &mut Edits<'t>) {
    let refused = |tool: Value<'_>| {
        let sort = history::word(tool, "type");
        !matches!(sort.as_deref(), Some("function" | "custom" | "tool_search"))
    };
    let _any = history::drop_tools(edits, root, refused);
    for item in history::turns(Protocol::Responses, root) {
        if history::says(item, "type", "additional_tools") {
            let _any = history::drop_tools(edits, item, refused);
        }
    }
}

#[cfg(test)]
mod tests;
