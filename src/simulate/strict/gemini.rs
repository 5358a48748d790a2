//! What Google refuses.

use serde_json::Value;

use super::super::answer::is_signed;
use super::place::{either, stranger_in_either_case};
use super::{Checked, Fault, ensure, list, word};

const FIELDS: &[&str] = &[
    "model",
    "contents",
    "systemInstruction",
    "tools",
    "toolConfig",
    "safetySettings",
    "generationConfig",
    "cachedContent",
    "labels",
    "serviceTier",
    "store",
];
const CONFIG: &[&str] = &[
    "stopSequences",
    "responseMimeType",
    "responseModalities",
    "thinkingConfig",
    "temperature",
    "topP",
    "topK",
    "maxOutputTokens",
    "candidateCount",
    "responseLogprobs",
    "logprobs",
    "presencePenalty",
    "frequencyPenalty",
    "seed",
    "responseSchema",
    "responseJsonSchema",
    "speechConfig",
    "imageConfig",
    "mediaResolution",
];
const PART: &[&str] = &[
    "text",
    "thought",
    "thoughtSignature",
    "inlineData",
    "fileData",
    "functionCall",
    "functionResponse",
    "executableCode",
    "codeExecutionResult",
    "videoMetadata",
    "partMetadata",
    "mediaResolution",
];
/// Members of [`PART`] of which there must be one.
const DATA: &[&str] = &[
    "text",
    "inlineData",
    "fileData",
    "functionCall",
    "functionResponse",
    "executableCode",
    "codeExecutionResult",
];
const DECLARATION: &[&str] = &[
    "name",
    "description",
    "parameters",
    "parametersJsonSchema",
    "response",
    "responseJsonSchema",
    "behavior",
];
const SCHEMA: &[&str] = &[
    "type",
    "format",
    "title",
    "description",
    "nullable",
    "enum",
    "maxItems",
    "minItems",
    "properties",
    "required",
    "minProperties",
    "maxProperties",
    "minLength",
    "maxLength",
    "pattern",
    "example",
    "anyOf",
    "propertyOrdering",
    "default",
    "items",
    "minimum",
    "maximum",
];
/// What stands for a signature that was lost, by Google's own word.
const LOST: [&str; 2] = [
    "skip_thought_signature_validator",
    "context_engineering_is_the_way_to_go",
];

/// A question for tokens: the contents, or a whole request.
pub(super) fn check_count(body: &Value, model: &str) -> Checked {
    known(body, &["model", "contents", "generateContentRequest"], "")?;
    match either(body, "generateContentRequest") {
        Value::Null => check(body, model),
        whole => {
            let name = word(&whole["model"]);
            ensure(name.starts_with("models/"), "", || {
                "* CountTokensRequest.generate_content_request.model: unexpected model name format\n".into()
            })?;
            check(whole, model)
        }
    }
}

pub(super) fn check(body: &Value, model: &str) -> Checked {
    known(body, FIELDS, "")?;
    let config = either(body, "generationConfig");
    known(config, CONFIG, "generation_config")?;
    let thinking = either(config, "thinkingConfig");
    known(
        thinking,
        &["includeThoughts", "thinkingBudget", "thinkingLevel"],
        "generation_config.thinking_config",
    )?;
    let both = !either(thinking, "thinkingBudget").is_null()
        && !either(thinking, "thinkingLevel").is_null();
    ensure(!both, "", || {
        "You can only set only one of thinking budget and thinking level.".into()
    })?;
    if let Some(temperature) = config["temperature"].as_f64() {
        ensure((0.0..=2.0).contains(&temperature), "", || {
            "* GenerateContentRequest.generation_config.temperature: temperature must be in the range [0.0, 2.0].\n".into()
        })?;
    }
    tools(body)?;
    for (at, part) in list(&either(body, "systemInstruction")["parts"])
        .iter()
        .enumerate()
    {
        let place = format!("system_instruction.parts[{at}]");
        ensure(part["text"].is_string(), &place, || {
            "Only text is supported here.".into()
        })?;
    }
    turns(list(&body["contents"]), model)
}

fn known(object: &Value, names: &[&str], place: &str) -> Checked {
    let Some(name) = stranger_in_either_case(object, names) else {
        return Ok(());
    };
    let at = match place {
        "" => String::new(),
        place => format!(" at '{place}'"),
    };
    let message =
        format!("Invalid JSON payload received. Unknown name \"{name}\"{at}: Cannot find field.");
    Err(Fault::new(place, message))
}

fn tools(body: &Value) -> Checked {
    let mut declared = 0;
    for (at, tool) in list(&body["tools"]).iter().enumerate() {
        for (number, function) in list(either(tool, "functionDeclarations"))
            .iter()
            .enumerate()
        {
            let place = format!("tools[{at}].function_declarations[{number}]");
            known(function, DECLARATION, &place)?;
            ensure(is_name(word(&function["name"])), &place, || {
                format!(
                    "* GenerateContentRequest.{place}.name: Invalid function name. Must start with a letter or an underscore.\n"
                )
            })?;
            let both = !function["parameters"].is_null()
                && !either(function, "parametersJsonSchema").is_null();
            ensure(!both, &place, || {
                "Only one of parameters and parameters_json_schema may be set.".into()
            })?;
            schema(&function["parameters"], &format!("{place}.parameters"))?;
            declared += 1;
        }
    }
    let calling = either(either(body, "toolConfig"), "functionCallingConfig");
    let names = list(either(calling, "allowedFunctionNames"));
    let forced = matches!(word(&calling["mode"]), "ANY" | "VALIDATED");
    ensure(names.is_empty() || forced, "", || {
        "allowed_function_names may only be set when the mode is ANY.".into()
    })?;
    ensure(word(&calling["mode"]) != "ANY" || declared > 0, "", || {
        "Function calling mode is ANY, but no functions are declared.".into()
    })
}

fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    let first = bytes
        .next()
        .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    let rest = |b: u8| b.is_ascii_alphanumeric() || b"_.:-".contains(&b);
    first && name.len() <= 128 && bytes.all(rest)
}

fn schema(node: &Value, place: &str) -> Checked {
    if node.is_null() {
        return Ok(());
    }
    known(node, SCHEMA, place)?;
    for (name, property) in node["properties"].as_object().into_iter().flatten() {
        schema(property, &format!("{place}.properties[{name}]"))?;
    }
    schema(&node["items"], &format!("{place}.items"))
}

fn turns(turns: &[Value], model: &str) -> Checked {
    ensure(!turns.is_empty(), "", || {
        "* GenerateContentRequest.contents: contents is not specified\n".into()
    })?;
    let asked = |turn: &Value| {
        turn["role"] != "model"
            && list(&turn["parts"])
                .iter()
                .any(|part| part["text"].is_string())
            && functions(turn, "functionResponse").is_empty()
    };
    let current = turns.iter().rposition(asked).unwrap_or(0);
    let mut waiting: Vec<&str> = Vec::new();
    for (at, turn) in turns.iter().enumerate() {
        let place = format!("contents[{at}]");
        known(turn, &["role", "parts"], &place)?;
        let role = turn.get("role").map_or("user", word);
        ensure(
            matches!(role, "user" | "model" | "function"),
            &place,
            || "Please use a valid role: user, model.".into(),
        )?;
        let parts = list(&turn["parts"]);
        ensure(!parts.is_empty(), &place, || {
            format!("* GenerateContentRequest.{place}.parts: contents.parts must not be empty.\n")
        })?;
        for (number, part) in parts.iter().enumerate() {
            self::part(part, &format!("{place}.parts[{number}]"))?;
        }
        let calls = functions(turn, "functionCall");
        let results = functions(turn, "functionResponse");
        answered(&waiting, &results)?;
        let after_user = at > 0 && turns[at - 1]["role"] != "model";
        ensure(calls.is_empty() || after_user, &place, || {
            "Please ensure that function call turn comes immediately after a user turn or after a function response turn.".into()
        })?;
        if at > current && model.starts_with("gemini-3") && !calls.is_empty() {
            signed(parts, &place)?;
        }
        waiting = calls.iter().map(|call| word(&call["name"])).collect();
    }
    Ok(())
}

fn functions<'v>(turn: &'v Value, name: &str) -> Vec<&'v Value> {
    let parts = list(&turn["parts"]).iter();
    let found = parts.map(|part| either(part, name));
    found.filter(|function| !function.is_null()).collect()
}

fn answered(waiting: &[&str], results: &[&Value]) -> Checked {
    ensure(waiting.len() == results.len(), "", || {
        "Please ensure that the number of function response parts is equal to the number of function call parts of the function call turn.".into()
    })?;
    let mut names: Vec<&str> = results.iter().map(|result| word(&result["name"])).collect();
    let mut wanted = waiting.to_vec();
    names.sort_unstable();
    wanted.sort_unstable();
    ensure(names == wanted, "", || {
        "Please ensure that function responses have the names of their function calls.".into()
    })
}

fn part(part: &Value, place: &str) -> Checked {
    known(part, PART, place)?;
    let data = DATA.iter().filter(|name| !either(part, name).is_null());
    ensure(data.count() == 1, place, || {
        format!(
            "* GenerateContentRequest.{place}.data: required oneof field 'data' must have one initialized field\n"
        )
    })?;
    let signature = word(either(part, "thoughtSignature"));
    let own = signature.is_empty() || is_signed("gemini", signature) || LOST.contains(&signature);
    ensure(own, place, || "Thought signature is not valid.".into())?;
    let result = either(part, "functionResponse");
    ensure(
        result.is_null() || result["response"].is_object(),
        place,
        || {
            format!(
                "Invalid value at '{place}.function_response.response' (type.googleapis.com/google.protobuf.Struct)"
            )
        },
    )?;
    known(
        result,
        &[
            "id",
            "name",
            "response",
            "parts",
            "willContinue",
            "scheduling",
        ],
        place,
    )?;
    let call = either(part, "functionCall");
    known(call, &["id", "name", "args"], place)?;
    ensure(
        call.is_null() || is_name(word(&call["name"])),
        place,
        || "Invalid function name.".into(),
    )?;
    let inline = either(part, "inlineData");
    let whole = inline.is_null()
        || (!word(either(inline, "mimeType")).is_empty() && !word(&inline["data"]).is_empty());
    ensure(whole, place, || {
        "inline_data wants mime_type and data.".into()
    })
}

/// The first call of a step carries the thought that led to it.
fn signed(parts: &[Value], place: &str) -> Checked {
    let mut calls = parts
        .iter()
        .filter(|part| !either(part, "functionCall").is_null());
    let first = calls.next().unwrap_or(&Value::Null);
    let signature = word(either(first, "thoughtSignature"));
    ensure(!signature.is_empty(), place, || {
        "Function call is missing a thought_signature in functionCall parts. This is required for tools to work correctly.".into()
    })
}
