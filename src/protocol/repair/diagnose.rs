//! From a refusal to the fixes that answer it.

use super::told::Told;
use super::wording::{self, Named, When};
use super::{Fix, Only};
use crate::protocol::Protocol;
use crate::protocol::history;
use crate::protocol::json::Value;
use crate::protocol::path::Path;

/// The most fields that one refusal takes out.
const MOST: usize = 32;
/// The longest value that is remembered as refused.
const VALUE: usize = 200;

/// What has to be changed in a body so that the provider that refused it may take
/// it. `status` and `answer` are the refusal's, `root` is the body that was sent.
///
/// `None` where nothing is known to help: another status than 400 and 422, words that
/// nobody has listed, a field that the body doesn't have or that makes the request.
#[must_use]
pub fn diagnose(
    protocol: Protocol,
    status: u16,
    answer: &[u8],
    root: Value<'_>,
) -> Option<Vec<Fix>> {
    if !matches!(status, 400 | 422) {
        return None;
    }
    let told = Told::read(answer);
    let lower = told.texts.join("\n").to_ascii_lowercase();
    let whole = about_history(&told, &lower).or_else(|| about_tools(&told, &lower));
    let whole = whole.or_else(|| about_roles(protocol, &lower, root));
    let fixes = match whole {
        Some(fix) => vec![fix],
        None => about_fields(protocol, &told, root),
    };
    (!fixes.is_empty()).then_some(fixes)
}

/// Signatures, ciphertexts, and what goes with thinking.
fn about_history(told: &Told, lower: &str) -> Option<Fix> {
    let says = |words: &str| lower.contains(words);
    if says("advisor tool result") {
        return Some(Fix::Advisor);
    }
    if says("thinking.type.adaptive") {
        return Some(Fix::ThinkingAdaptive);
    }
    let signature = says("thought_signature") || says("thought signature");
    if signature && says("missing") {
        return Some(Fix::Unsigned);
    }
    // A compacted history can't be had again: better no answer than another one.
    let compaction = says("item cmp_");
    let encrypted = told.has_code(&["invalid_encrypted_content"])
        || (says("encrypted content") && (says("verified") || says("decrypt")));
    let unverified = (says("signature") && says("thinking"))
        || says("blocks in the latest assistant message cannot be modified")
        || (says("redacted_thinking") && says("invalid"))
        || (says("reasoning") && says("without its required"));
    if (encrypted && !compaction) || signature || unverified {
        return Some(Fix::Reasoning);
    }
    let must_begin = says("must start with a thinking block")
        || (says("expected `thinking` or `redacted_thinking`") && says("but found"));
    must_begin.then_some(Fix::ThinkingOff)
}

/// Tools that the provider doesn't host, or may not be forced.
fn about_tools(told: &Told, lower: &str) -> Option<Fix> {
    let says = |words: &str| lower.contains(words);
    let clash = ["force", "not support", "incompatible", "not compatible"];
    if says("tool_choice") && says("thinking") && clash.iter().any(|words| says(words)) {
        return Some(Fix::ToolChoice);
    }
    if says("responses-lite only supports") {
        return Some(Fix::LiteTools);
    }
    for text in &told.texts {
        for words in ["requested tool ", "osted tool "] {
            let named = text.split_once(words).map(|(_, rest)| rest);
            let Some((name, rest)) = named.and_then(|rest| rest.split_once(" is not supported"))
            else {
                continue;
            };
            let name = name.trim_matches(['\'', '"', '`']);
            let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
            if name.len() <= 64 && name.bytes().all(word) && !rest.is_empty() && name != "function"
            {
                return Some(Fix::HostedTool(name.into()));
            }
        }
    }
    None
}

/// `developer`, refused by name or as a role that isn't expected.
fn about_roles(protocol: Protocol, lower: &str, root: Value<'_>) -> Option<Fix> {
    let named = lower.contains("developer")
        && (lower.contains("role") || lower.contains("unknown variant"));
    let unexpected = lower.contains("unexpected message role") || lower.contains("invalid role");
    let has =
        || history::turns(protocol, root).any(|turn| history::says(turn, "role", "developer"));
    ((named || unexpected) && has()).then_some(Fix::DeveloperRole)
}

fn about_fields(protocol: Protocol, told: &Told, root: Value<'_>) -> Vec<Fix> {
    let mut fixes = Vec::new();
    for path in &told.unexpected {
        push(protocol, path, When::Always, root, &mut fixes);
    }
    for Named { path, when } in told.texts.iter().flat_map(|text| wording::named(text)) {
        if let Some(path) = Path::parse(&path) {
            push(protocol, &path, when, root, &mut fixes);
        }
    }
    if fixes.is_empty()
        && let Some(path) = told.param.as_deref().and_then(Path::parse)
    {
        let unknown = ["unsupported_parameter", "unknown_parameter"];
        if told.has_code(&unknown) {
            push(protocol, &path, When::Always, root, &mut fixes);
        } else if told.has_code(&["unsupported_value"]) {
            push(protocol, &path, When::ThisValue, root, &mut fixes);
        }
    }
    fixes
}

fn push(protocol: Protocol, path: &Path, when: When, root: Value<'_>, fixes: &mut Vec<Fix>) {
    let Some(path) = path.settled(root) else {
        return;
    };
    if fixes.len() == MOST {
        return;
    }
    let Some(fix) = token_limit(protocol, &path).or_else(|| removal(protocol, path, when, root))
    else {
        return;
    };
    if !fixes.contains(&fix) {
        fixes.push(fix);
    }
}

/// Chat's two names for one limit: a provider that refuses the one knows the other.
fn token_limit(protocol: Protocol, path: &Path) -> Option<Fix> {
    let completion = match &*path.text() {
        "max_tokens" => true,
        "max_completion_tokens" => false,
        _ => return None,
    };
    (protocol == Protocol::Chat).then_some(Fix::TokenLimit { completion })
}

fn removal(protocol: Protocol, path: Path, when: When, root: Value<'_>) -> Option<Fix> {
    if is_essential(protocol, &path) {
        return None;
    }
    let only = match when {
        When::Always => Only::Always,
        When::Only(only) => only.clone(),
        When::ThisValue => {
            let value = path.value(root)?;
            let text = value.raw().as_str().to_owned();
            (text.len() <= VALUE).then(|| Only::Value(text.into()))?
        }
    };
    Some(Fix::Remove { path, only })
}

/// What makes the request: without it another one would be answered, or none.
fn is_essential(protocol: Protocol, path: &Path) -> bool {
    const WHOLE: [&str; 15] = [
        "model",
        "messages",
        "input",
        "contents",
        "prompt",
        "system",
        "instructions",
        "systemInstruction",
        "system_instruction",
        "tools",
        "functions",
        "stream",
        "previous_response_id",
        "conversation",
        "generationConfig",
    ];
    const PARTS: [&str; 30] = [
        "role",
        "content",
        "parts",
        "type",
        "text",
        "output",
        "arguments",
        "args",
        "call_id",
        "tool_call_id",
        "tool_use_id",
        "tool_calls",
        "function_call",
        "functionCall",
        "functionResponse",
        "response",
        "input",
        "source",
        "image_url",
        "file",
        "data",
        "url",
        "inlineData",
        "fileData",
        "name",
        "function",
        "parameters",
        "input_schema",
        "functionDeclarations",
        "parametersJsonSchema",
    ];
    let names: Vec<&str> = path.names().collect();
    match names.as_slice() {
        [] => true,
        _ if path.ends_in_list() => true,
        ["max_tokens"] => protocol == Protocol::Messages,
        [only] => WHOLE.contains(only),
        [first, .., last] => {
            let listed = WHOLE.contains(first) && *first != "generationConfig";
            listed && PARTS.contains(last)
        }
    }
}
