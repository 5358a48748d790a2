//! What the decoders don't read within the objects of a request, noted so that
//! nothing is lost in silence. Members of the request itself are their own matter.

use std::borrow::Cow;

use super::Protocol;
use super::gemini::spelling::camel;
use super::json::{Str, Value};
use super::notes::{Action, Notes};

/// An object of a request: where it lies, which `type`s of it are meant (all, if
/// none is named) and its members that are read, or noted already.
type Known = (
    &'static str,
    &'static [&'static str],
    &'static [&'static str],
);

/// Members without effect on what is said: whoever drops them says so in the log
/// only.
const HINTS: [&str; 14] = [
    "allowed_callers",
    "annotations",
    "async",
    "block_binding",
    "cache_control",
    "caller",
    "defer_loading",
    "eager_input_streaming",
    "input_examples",
    "logprobs",
    "name",
    "output_schema",
    "partMetadata",
    "phase",
];

const CHAT: [Known; 16] = [
    (
        "stream_options",
        &[],
        &["include_usage", "include_obfuscation"],
    ),
    ("response_format", &[], &["type", "json_schema"]),
    (
        "response_format.json_schema",
        &[],
        &["name", "description", "schema", "strict"],
    ),
    (
        "web_search_options",
        &[],
        &["search_context_size", "user_location"],
    ),
    (
        "tools[]",
        &["function", "custom"],
        &[
            "type",
            "function",
            "custom",
            "cache_control",
            "name",
            "description",
            "parameters",
            "strict",
            "format",
        ],
    ),
    (
        "tools[].function",
        &[],
        &[
            "name",
            "description",
            "parameters",
            "strict",
            "cache_control",
        ],
    ),
    ("tools[].custom", &[], &["name", "description", "format"]),
    ("functions[]", &[], &["name", "description", "parameters"]),
    (
        "tool_choice",
        &[],
        &[
            "type",
            "function",
            "custom",
            "allowed_tools",
            "name",
            "mode",
            "tools",
        ],
    ),
    (
        "messages[]",
        &[],
        &[
            "role",
            "content",
            "tool_calls",
            "tool_call_id",
            "function_call",
            "refusal",
            "audio",
            "reasoning",
            "reasoning_content",
            "reasoning_details",
            "thinking_blocks",
            "images",
            "cache_control",
            "prompt_cache_breakpoint",
            "provider_specific_fields",
            "extra_content",
        ],
    ),
    (
        "messages[].content[]",
        &[],
        &[
            "type",
            "text",
            "image_url",
            "input_audio",
            "file",
            "video_url",
            "refusal",
            "thinking",
            "prompt_cache_breakpoint",
            "cache_control",
        ],
    ),
    ("messages[].content[].image_url", &[], &["url", "detail"]),
    (
        "messages[].content[].file",
        &[],
        &["file_id", "file_data", "filename"],
    ),
    ("messages[].content[].input_audio", &[], &["data", "format"]),
    (
        "messages[].tool_calls[]",
        &[],
        &[
            "id",
            "type",
            "function",
            "custom",
            "index",
            "extra_content",
            "provider_specific_fields",
        ],
    ),
    (
        "messages[].tool_calls[].function",
        &[],
        &["name", "arguments"],
    ),
];

const RESPONSES: [Known; 9] = [
    ("tools[]", &["namespace"], &["type", "name", "tools"]),
    (
        "tools[]",
        &[
            "web_search",
            "web_search_2025_08_26",
            "web_search_preview",
            "web_search_preview_2025_03_11",
        ],
        &["type", "filters", "search_context_size", "user_location"],
    ),
    (
        "reasoning",
        &[],
        &["effort", "summary", "generate_summary", "context", "mode"],
    ),
    (
        "text.format",
        &[],
        &[
            "type",
            "name",
            "description",
            "schema",
            "strict",
            "json_schema",
        ],
    ),
    (
        "tools[]",
        &["function", "custom"],
        &[
            "type",
            "name",
            "description",
            "parameters",
            "strict",
            "format",
            "function",
            "tools",
        ],
    ),
    (
        "tools[].tools[]",
        &[],
        &[
            "type",
            "name",
            "description",
            "parameters",
            "strict",
            "format",
            "function",
        ],
    ),
    (
        "tool_choice",
        &[],
        &["type", "name", "function", "allowed_tools", "mode", "tools"],
    ),
    (
        "input[]",
        &[
            "",
            "message",
            "reasoning",
            "function_call",
            "function_call_output",
            "custom_tool_call",
            "custom_tool_call_output",
        ],
        &[
            "type",
            "role",
            "content",
            "id",
            "status",
            "call_id",
            "name",
            "namespace",
            "arguments",
            "input",
            "output",
            "summary",
            "encrypted_content",
        ],
    ),
    (
        "input[].content[]",
        &[],
        &[
            "type",
            "text",
            "image_url",
            "file_id",
            "file_url",
            "file_data",
            "filename",
            "detail",
            "refusal",
            "prompt_cache_breakpoint",
            "annotations",
        ],
    ),
];

const BLOCKS: [&str; 8] = [
    "text",
    "image",
    "document",
    "search_result",
    "tool_use",
    "tool_result",
    "thinking",
    "redacted_thinking",
];

const BLOCK: [&str; 18] = [
    "type",
    "text",
    "cache_control",
    "citations",
    "source",
    "title",
    "context",
    "content",
    "id",
    "name",
    "input",
    "tool_use_id",
    "is_error",
    "thinking",
    "signature",
    "data",
    "file_id",
    "tool_name",
];

const MESSAGES: [Known; 12] = [
    (
        "tools[]",
        &["web_search_20250305", "web_search_20260209"],
        &[
            "type",
            "name",
            "allowed_domains",
            "blocked_domains",
            "max_uses",
            "user_location",
        ],
    ),
    ("metadata", &[], &["user_id"]),
    ("output_config", &[], &["effort", "format"]),
    (
        "output_config.format",
        &[],
        &["type", "schema", "name", "strict", "description"],
    ),
    ("thinking", &[], &["type", "budget_tokens", "display"]),
    (
        "tool_choice",
        &[],
        &["type", "name", "disable_parallel_tool_use"],
    ),
    ("system[]", &[], &["type", "text", "cache_control"]),
    (
        "tools[]",
        &["", "custom"],
        &[
            "type",
            "name",
            "description",
            "input_schema",
            "cache_control",
            "strict",
        ],
    ),
    ("messages[]", &[], &["role", "content"]),
    ("messages[].content[]", &BLOCKS, &BLOCK),
    (
        "messages[].content[].source",
        &[],
        &["type", "media_type", "data", "url", "file_id", "content"],
    ),
    ("messages[].content[].content[]", &BLOCKS, &BLOCK),
];

const GEMINI: [Known; 12] = [
    (
        "contents[].parts[].fileData",
        &[],
        &["mimeType", "fileUri", "displayName"],
    ),
    (
        "generationConfig.thinkingConfig",
        &[],
        &["includeThoughts", "thinkingBudget", "thinkingLevel"],
    ),
    ("systemInstruction", &[], &["role", "parts", "text"]),
    ("systemInstruction.parts[]", &[], &["text"]),
    (
        "tools[].functionDeclarations[]",
        &[],
        &[
            "name",
            "description",
            "parameters",
            "parametersJsonSchema",
            "response",
            "responseJsonSchema",
            "behavior",
        ],
    ),
    (
        "toolConfig",
        &[],
        &["functionCallingConfig", "retrievalConfig"],
    ),
    (
        "toolConfig.functionCallingConfig",
        &[],
        &["mode", "allowedFunctionNames"],
    ),
    ("contents[]", &[], &["role", "parts"]),
    (
        "contents[].parts[]",
        &[],
        &[
            "text",
            "thought",
            "thoughtSignature",
            "inlineData",
            "fileData",
            "functionCall",
            "functionResponse",
            "executableCode",
            "codeExecutionResult",
            "toolCall",
            "toolResponse",
            "videoMetadata",
            "mediaResolution",
        ],
    ),
    (
        "contents[].parts[].inlineData",
        &[],
        &["mimeType", "data", "displayName"],
    ),
    (
        "contents[].parts[].functionCall",
        &[],
        &["id", "name", "args"],
    ),
    (
        "contents[].parts[].functionResponse",
        &[],
        &["id", "name", "response", "parts"],
    ),
];

/// Notes what stands in the objects of a request and is not read. A note has the
/// object's path without numbers, so that a long conversation gives one note for
/// each member, not one for each turn.
pub(crate) fn note(protocol: Protocol, body: Value<'_>, notes: &mut Notes) {
    let known: &[Known] = match protocol {
        Protocol::Chat => &CHAT,
        Protocol::Responses => &RESPONSES,
        Protocol::Messages => &MESSAGES,
        Protocol::Gemini => &GEMINI,
        _ => &[],
    };
    let google = protocol == Protocol::Gemini;
    for entry in known {
        visit(body, entry.0, entry, google, notes);
    }
}

fn visit(value: Value<'_>, way: &str, known: &Known, google: bool, notes: &mut Notes) {
    if way.is_empty() {
        object(value, known, google, notes);
        return;
    }
    let (step, rest) = way.split_once('.').unwrap_or((way, ""));
    let (name, list) = match step.strip_suffix("[]") {
        Some(name) => (name, true),
        None => (step, false),
    };
    let Some(inner) = member(value, name, google) else {
        return;
    };
    if list && inner.is_array() {
        for item in inner.items() {
            visit(item, rest, known, google, notes);
        }
    } else if inner.is_object() {
        visit(inner, rest, known, google, notes);
    }
}

fn member<'a>(value: Value<'a>, name: &str, google: bool) -> Option<Value<'a>> {
    if google {
        return super::gemini::spelling::find(value, name);
    }
    value.some(name)
}

fn object(value: Value<'_>, known: &Known, google: bool, notes: &mut Notes) {
    let (place, kinds, names) = known;
    if !kinds.is_empty() {
        let kind = value.some("type").and_then(|kind| kind.as_str());
        let kind = kind.as_ref().map_or(Cow::Borrowed(""), Str::plain);
        if !kinds.contains(&kind.as_ref()) {
            return;
        }
    }
    for (name, value) in value.members() {
        let name = if google { camel(&name) } else { name.plain() };
        if value.is_null() || names.contains(&name.as_ref()) {
            continue;
        }
        let path = format!("{place}.{name}");
        if HINTS.contains(&name.as_ref()) {
            notes.info(Action::Dropped, path);
        } else {
            notes.warn(Action::Dropped, path);
        }
    }
}
