//! Tools that the provider runs, in an answer or a history: code and its outcome,
//! and the general `toolCall` with its `toolResponse`.

use bytes::BytesMut;

use super::part::Fields;
use super::spelling;
use crate::protocol::Protocol;
use crate::protocol::ir::{Hosted, HostedKind};
use crate::protocol::json::{Object, Raw, Value};

/// The part as its tool's call, or as a call without one when it is a result.
pub(super) fn decode<'a>(fields: &Fields<'a>, part: Value<'a>, id: String) -> Hosted<'a> {
    let (kind, told) = if fields.code.is_some() || fields.outcome.is_some() {
        (HostedKind::Code, fields.code.or(fields.outcome))
    } else {
        let told = fields.tool_call.or(fields.tool_response);
        (told.map_or(HostedKind::Other, kind_of), told)
    };
    let own = told.and_then(|told| spelling::text(told, "id"));
    let mut hosted = Hosted {
        kind,
        id: own.unwrap_or_else(|| id.into()),
        input: None,
        sources: Vec::new(),
        output: None,
        failed: false,
        native: Vec::new(),
        origin: Protocol::Gemini,
    };
    hosted.input = match (fields.code, fields.tool_call) {
        (Some(code), _) => Some(input(code)),
        (None, Some(call)) => spelling::find(call, "args").map(|args| args.raw()),
        (None, None) => None,
    };
    if fields.outcome.is_some() || fields.tool_response.is_some() {
        take(&mut hosted, fields);
    }
    hosted.native.push(unsigned(fields, part));
    hosted
}

/// Whether the part tells what came of that call.
pub(super) fn belongs(fields: &Fields<'_>, hosted: &Hosted<'_>) -> bool {
    if hosted.origin != Protocol::Gemini || hosted.native.len() != 1 {
        return false;
    }
    match hosted.kind {
        HostedKind::Code => fields.outcome.is_some() && hosted.input.is_some(),
        _ => fields.tool_response.is_some_and(|response| {
            let id = spelling::text(response, "id");
            id.is_none_or(|id| id == hosted.id)
        }),
    }
}

/// Adds what came of the call.
pub(super) fn complete<'a>(hosted: &mut Hosted<'a>, fields: &Fields<'a>, part: Value<'a>) {
    take(hosted, fields);
    hosted.native.push(unsigned(fields, part));
}

fn take<'a>(hosted: &mut Hosted<'a>, fields: &Fields<'a>) {
    if let Some(outcome) = fields.outcome {
        hosted.output = spelling::text(outcome, "output");
        let word = spelling::text(outcome, "outcome");
        hosted.failed = word.is_some_and(|word| !word.is("OUTCOME_OK"));
    }
}

fn kind_of(call: Value<'_>) -> HostedKind {
    let word = spelling::text(call, "toolType").map(|word| word.to_plain_string());
    match word.as_deref() {
        Some("GOOGLE_SEARCH_WEB" | "GOOGLE_SEARCH") => HostedKind::WebSearch,
        Some("URL_CONTEXT") => HostedKind::WebFetch,
        Some("FILE_SEARCH") => HostedKind::FileSearch,
        _ => HostedKind::Other,
    }
}

/// `{"code":...}`, as the other protocols have it.
fn input(code: Value<'_>) -> Raw<'static> {
    let mut out = BytesMut::new();
    {
        let mut object = Object::open(&mut out);
        let text = spelling::text(code, "code").unwrap_or_default();
        object.str("code", &text);
    }
    parsed(&out).unwrap_or(Raw::EMPTY_OBJECT)
}

/// The part without a signature: that is carried beside it.
fn unsigned<'a>(fields: &Fields<'a>, part: Value<'a>) -> Raw<'a> {
    if fields.signature.is_none() {
        return part.raw();
    }
    let mut out = BytesMut::new();
    {
        let mut object = Object::open(&mut out);
        for (name, value) in part.members() {
            if spelling::camel(&name) != "thoughtSignature" {
                let out = object.foreign_key(&name);
                out.extend_from_slice(value.raw().as_str().as_bytes());
            }
        }
    }
    parsed(&out).unwrap_or_else(|| part.raw())
}

fn parsed(bytes: &[u8]) -> Option<Raw<'static>> {
    let text = String::from_utf8(bytes.to_vec()).ok()?;
    Raw::parse(text).ok()
}

/// The parts that tell a Gemini client of it; none for tools that Gemini has no
/// parts for.
pub(super) fn encode(hosted: &Hosted<'_>) -> Vec<BytesMut> {
    if hosted.origin == Protocol::Gemini && !hosted.native.is_empty() {
        let native = hosted.native.iter();
        return native
            .map(|raw| BytesMut::from(raw.compact().as_bytes()))
            .collect();
    }
    if hosted.kind != HostedKind::Code {
        return Vec::new();
    }
    let mut parts = vec![BytesMut::new()];
    if let Some(part) = parts.last_mut() {
        let mut part = Object::open(part);
        let mut code = part.object("executableCode");
        code.text("language", "PYTHON")
            .text("code", &code_of(hosted));
    }
    if let Some(output) = &hosted.output {
        let mut out = BytesMut::new();
        let word = if hosted.failed {
            "OUTCOME_FAILED"
        } else {
            "OUTCOME_OK"
        };
        {
            let mut part = Object::open(&mut out);
            let mut result = part.object("codeExecutionResult");
            result.text("outcome", word).str("output", output);
        }
        parts.push(out);
    }
    parts
}

/// The program that was run.
pub(super) fn code_of(hosted: &Hosted<'_>) -> String {
    let code = input_of(hosted).and_then(|input| Some(input.get("code")?.as_str()?.to_owned()));
    code.unwrap_or_default()
}

/// What was searched for.
pub(super) fn queries(hosted: &Hosted<'_>) -> Vec<String> {
    let Some(input) = input_of(hosted) else {
        return Vec::new();
    };
    let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
    match input.get("queries").and_then(|queries| queries.as_array()) {
        Some(queries) => queries.iter().filter_map(text).collect(),
        None => input.get("query").and_then(text).into_iter().collect(),
    }
}

fn input_of(hosted: &Hosted<'_>) -> Option<serde_json::Value> {
    serde_json::from_str(hosted.input.as_ref()?.as_str()).ok()
}
