//! What clients may write, and what a provider gets.

use serde_json::{Value as Tree, json};

use crate::protocol::Protocol;
use crate::protocol::capabilities::Capabilities;
use crate::protocol::envelope;
use crate::protocol::ir::{
    Arguments, Display, Effort, Format, HostedToolKind, Invalid, MediaKind, Opaque, OpaqueKind,
    Part, ReasoningMode, Request, Role, Service, Source, Tool, ToolChoice,
};
use crate::protocol::json::{Str, Tape};
use crate::protocol::notes::Notes;
use crate::protocol::translate::{Encoded, Target, decode_request};

const OLD: &str = "gemini-2.5-flash";
const NEW: &str = "gemini-3-pro-preview";

/// Reads a Gemini client's request and lets it be looked at.
fn read<T>(body: &Tree, look: impl FnOnce(Result<Request<'_>, Invalid>, &Notes) -> T) -> T {
    let text = body.to_string();
    let mut tape = Tape::new();
    let mut notes = Notes::new();
    let request = super::decode(tape.parse(&text).unwrap(), &mut notes);
    look(request, &notes)
}

/// The refusal of a Gemini client's request: its field.
fn refused(body: &Tree) -> String {
    read(body, |request, _| request.unwrap_err().param.unwrap())
}

fn user(parts: Tree) -> Tree {
    json!({"contents": [{"role": "user", "parts": parts}]})
}

struct Sent {
    body: Tree,
    encoded: Encoded,
    notes: Vec<String>,
    warned: Option<String>,
}

/// What a provider of that model gets of a client's request.
fn send(from: Protocol, model: &str, body: &Tree) -> Result<Sent, Invalid> {
    let able = Capabilities::of(Protocol::Gemini, "generativelanguage.googleapis.com", model);
    send_to(&able, from, model, body)
}

fn send_to(able: &Capabilities, from: Protocol, model: &str, body: &Tree) -> Result<Sent, Invalid> {
    let text = body.to_string();
    let mut tape = Tape::new();
    let mut notes = Notes::new();
    let request = decode_request(from, tape.parse(&text).unwrap(), &mut notes)?;
    let target = Target {
        protocol: Protocol::Gemini,
        model,
        capabilities: able,
        account: "account",
        stream: false,
    };
    let encoded = super::encode(&request, &target, &mut notes)?;
    Ok(Sent {
        body: serde_json::from_slice(&encoded.body).unwrap(),
        encoded,
        notes: notes.iter().map(|note| note.what.to_string()).collect(),
        warned: notes.header(),
    })
}

fn chat(model: &str, body: &Tree) -> Sent {
    send(Protocol::Chat, model, body).unwrap()
}

/// A chat request of one word and more members.
fn saying(more: Tree) -> Tree {
    let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "Hi"}]});
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

fn function(name: &str) -> Tree {
    json!({"type": "function", "function": {"name": name,
        "parameters": {"type": "object", "properties": {"a": {"type": "string"}}}}})
}

#[test]
fn contents_may_be_a_string_a_content_or_a_list() {
    for contents in [
        json!("Hi"),
        json!({"parts": {"text": "Hi"}}),
        json!([{"parts": [{"text": "Hi"}]}]),
        json!(["Hi"]),
        json!([{"role": "user", "parts": ["Hi"]}]),
    ] {
        read(
            &json!({"contents": contents, "model": "ignored"}),
            |request, notes| {
                let request = request.unwrap();
                assert_eq!(
                    (request.turns.len(), request.turns[0].role),
                    (1, Role::User)
                );
                assert!(
                    matches!(&request.turns[0].parts[..], [Part::Text(text)] if text.text.is("Hi"))
                );
                assert!(notes.is_empty());
            },
        );
    }
}

#[test]
fn what_is_wrong_is_named() {
    for (body, param) in [
        (json!({}), "contents"),
        (json!({"contents": []}), "contents"),
        (json!({"contents": [7]}), "contents[0]"),
        (
            json!({"contents": [{"role": "robot", "parts": []}]}),
            "contents[0].role",
        ),
        (
            user(json!([{"text": "a"}, {"hologram": {}}])),
            "contents[0].parts[1].hologram",
        ),
        (user(json!([{"text": 7}])), "contents[0].parts[0].text"),
        (
            user(json!([{"functionCall": {}}])),
            "contents[0].parts[0].functionCall.name",
        ),
        (
            user(json!([{"functionCall": {"name": "f", "args": 7}}])),
            "contents[0].parts[0].functionCall.args",
        ),
        (
            user(json!([{"inlineData": {}}])),
            "contents[0].parts[0].inlineData.data",
        ),
        (
            json!({"contents": "a", "cachedContent": "cachedContents/x"}),
            "cachedContent",
        ),
        (
            json!({"contents": "a", "continuation_token": "x"}),
            "continuationToken",
        ),
    ] {
        assert_eq!(refused(&body), param, "{body}");
    }
}

#[test]
fn what_is_wrong_beside_the_contents_is_named_too() {
    for (body, param) in [
        (
            json!({"contents": "a", "tools": [{"functionDeclarations": [{"name": "f", "parameters": {}, "parametersJsonSchema": {}}]}]}),
            "tools[0].functionDeclarations[0].parameters",
        ),
        (
            json!({"contents": "a", "generationConfig": {"thinkingConfig": {"thinkingBudget": 1, "thinkingLevel": "LOW"}}}),
            "generationConfig.thinkingConfig",
        ),
        (
            json!({"contents": "a", "generationConfig": {"thinkingConfig": {"thinkingLevel": "WILD"}}}),
            "generationConfig.thinkingConfig.thinkingLevel",
        ),
        (
            json!({"contents": "a", "generationConfig": {"temperature": "hot"}}),
            "generationConfig.temperature",
        ),
        (
            json!({"contents": "a", "generationConfig": {"responseModalities": ["AUDIO"]}}),
            "generationConfig.responseModalities",
        ),
        (
            json!({"contents": "a", "generationConfig": {"responseMimeType": "image/png"}}),
            "generationConfig.responseMimeType",
        ),
        (
            json!({"contents": "a", "toolConfig": {"functionCallingConfig": {"mode": "MAYBE"}}}),
            "toolConfig.functionCallingConfig.mode",
        ),
    ] {
        assert_eq!(refused(&body), param, "{body}");
    }
}

#[test]
fn what_is_not_known_or_not_said_elsewhere_is_noted() {
    let body = json!({"contents": "a", "foo": 1, "safetySettings": [], "labels": {"k": "v"},
        "generationConfig": {"speechConfig": {}, "mediaResolution": "LOW"}});
    read(&body, |request, notes| {
        assert!(request.unwrap().metadata.is_some());
        assert_eq!(
            notes.header().unwrap(),
            "dropped:foo;dropped:safetySettings;dropped:generationConfig.speechConfig"
        );
    });
}

#[test]
fn a_snake_case_body_says_the_same_as_camel_case() {
    let body = json!({
        "contents": [
            {"role": "model", "parts": [{"function_call": {"name": "f", "args": {"snake_key": 1}}}]},
            {"parts": [{"function_response": {"name": "f", "response": {"output": "x"}}},
                {"inline_data": {"mime_type": "audio/wav", "data": "AAAA", "display_name": "n"}}]}],
        "system_instruction": "Be kind.",
        "generation_config": {"max_output_tokens": "17", "stop_sequences": ["x"], "candidate_count": 2,
            "top_k": 40.0, "response_logprobs": true, "logprobs": 3, "seed": 5, "top_p": 0.50,
            "thinking_config": {"thinking_budget": -1, "include_thoughts": true}},
        "tool_config": {"function_calling_config": {"mode": "any", "allowed_function_names": ["f"]}},
        "service_tier": "FLEX",
    });
    read(&body, |request, notes| {
        let request = request.unwrap();
        assert!(notes.is_empty());
        assert!(request.system[0].text.is("Be kind."));
        let Part::Call(call) = &request.turns[0].parts[0] else {
            panic!()
        };
        let Arguments::Object(arguments) = &call.arguments else {
            panic!()
        };
        assert_eq!(arguments.as_str(), r#"{"snake_key":1}"#);
        let [Part::Result(result), Part::Media(medium)] = &request.turns[1].parts[..] else {
            panic!()
        };
        assert_eq!(result.id, call.id);
        assert!(medium.kind == MediaKind::Audio && medium.name.as_ref().unwrap().is("n"));
        let sampling = &request.sampling;
        assert_eq!(
            (sampling.max_output, sampling.n, sampling.top_k),
            (Some(17), Some(2), Some(40))
        );
        assert_eq!((sampling.logprobs, sampling.top_logprobs), (true, Some(3)));
        assert_eq!(sampling.top_p.unwrap().text, "0.5");
        let reasoning = request.reasoning.unwrap();
        assert_eq!(
            (reasoning.mode, reasoning.budget),
            (ReasoningMode::Adaptive, Some(-1))
        );
        assert_eq!(reasoning.display, Display::Summary);
        assert!(matches!(request.tool_choice, Some(ToolChoice::Named(name)) if name.is("f")));
        assert_eq!(request.service, Some(Service::Flex));
    });
}

#[test]
fn tools_are_functions_and_what_google_runs() {
    let body = json!({"contents": "a", "tools": {
        "functionDeclarations": [{"name": "f", "description": "d", "parametersJsonSchema": {"type": "object"}}, {"name": "g"}],
        "googleSearch": {"excludeDomains": ["x.org"]}, "urlContext": {}, "codeExecution": {},
        "fileSearch": {}, "computerUse": {}, "newThing": {}}});
    read(&body, |request, _| {
        let tools = request.unwrap().tools;
        assert!(matches!(&tools[0], Tool::Function(f) if f.name.is("f") && f.schema.is_some()));
        assert!(matches!(&tools[1], Tool::Function(g) if g.schema.is_none()));
        let kinds: Vec<_> = tools[2..]
            .iter()
            .map(|tool| match tool {
                Tool::Hosted(tool) => match &tool.kind {
                    HostedToolKind::WebSearch(search) => {
                        assert!(
                            search.blocked[0].is("x.org") && tool.path == "tools[0].googleSearch"
                        );
                        "search"
                    }
                    HostedToolKind::WebFetch => "fetch",
                    HostedToolKind::Code => "code",
                    HostedToolKind::Droppable => "drop",
                    HostedToolKind::Bound => "bound",
                },
                _ => panic!(),
            })
            .collect();
        assert_eq!(kinds, ["search", "fetch", "code", "drop", "bound", "drop"]);
    });
}

#[test]
fn each_mode_of_calling_is_a_choice() {
    let choice = |config: Tree| {
        let body = json!({"contents": "a", "toolConfig": {"functionCallingConfig": config}});
        read(&body, |request, _| {
            format!("{:?}", request.unwrap().tool_choice.unwrap())
        })
    };
    assert_eq!(choice(json!({"mode": "auto"})), "Auto");
    assert_eq!(choice(json!({"mode": "VALIDATED"})), "Auto");
    assert_eq!(choice(json!({"mode": "NONE"})), "None");
    assert_eq!(choice(json!({"mode": "ANY"})), "Required");
    assert_eq!(
        choice(json!({"mode": "ANY", "allowedFunctionNames": ["f"]})),
        "Named(\"f\")"
    );
    assert_eq!(
        choice(json!({"mode": "ANY", "allowedFunctionNames": ["f", "g"]})),
        "Allowed { required: true, names: [\"f\", \"g\"] }"
    );
    assert_eq!(
        choice(json!({"mode": "VALIDATED", "allowedFunctionNames": ["f"]})),
        "Allowed { required: false, names: [\"f\"] }"
    );
}

#[test]
fn the_shape_of_an_answer_is_read_from_type_and_schema() {
    let format = |config: Tree| {
        let body = json!({"contents": "a", "generationConfig": config});
        read(&body, |request, _| match request.unwrap().format {
            Format::Text => "text".to_owned(),
            Format::JsonObject => "object".to_owned(),
            Format::Schema {
                schema, bare_enum, ..
            } => format!("{} {bare_enum}", schema.as_str()),
        })
    };
    assert_eq!(format(json!({"responseMimeType": "text/plain"})), "text");
    assert_eq!(
        format(json!({"responseMimeType": "application/json"})),
        "object"
    );
    let schema = json!({"type": "object"});
    assert_eq!(
        format(json!({"responseMimeType": "application/json", "responseJsonSchema": schema})),
        r#"{"type":"object"} false"#
    );
    assert!(
        format(json!({"responseMimeType": "text/x.enum", "responseSchema": {"type": "STRING", "enum": ["a"]}}))
            .ends_with(" true")
    );
}

#[test]
fn levels_and_budgets_of_thinking_are_read() {
    let reasoning = |config: Tree| {
        let body = json!({"contents": "a", "generationConfig": {"thinkingConfig": config}});
        read(&body, |request, _| request.unwrap().reasoning.unwrap())
    };
    assert_eq!(
        reasoning(json!({"thinkingLevel": "xhigh"})).effort,
        Some(Effort::XHigh)
    );
    assert_eq!(
        reasoning(json!({"thinkingLevel": "THINKING_LEVEL_UNSPECIFIED"})).effort,
        None
    );
    assert_eq!(
        reasoning(json!({"thinkingBudget": 0})).mode,
        ReasoningMode::Off
    );
    let on = reasoning(json!({"thinkingBudget": "5000", "includeThoughts": false}));
    assert_eq!(
        (on.mode, on.budget, on.display),
        (ReasoningMode::On, Some(5000), Display::Omit)
    );
}

#[test]
fn what_came_of_a_call_is_text() {
    let outcome = |response: Tree| {
        let body =
            user(json!([{"functionResponse": {"name": "f", "id": "i", "response": response}}]));
        read(&body, |request, _| {
            match &request.unwrap().turns[0].parts[0] {
                Part::Result(result) => match &result.parts[0] {
                    Part::Text(text) => (text.text.to_plain_string(), result.is_error),
                    _ => panic!(),
                },
                _ => panic!(),
            }
        })
    };
    let text = |text: &str, is_error| (text.to_owned(), is_error);
    assert_eq!(outcome(json!({"output": "x"})), text("x", false));
    assert_eq!(outcome(json!({"result": "x"})), text("x", false));
    assert_eq!(
        outcome(json!({"output": {"a": 1}})),
        text(r#"{"output":{"a":1}}"#, false)
    );
    assert_eq!(
        outcome(json!({"output": "x", "b": 1})),
        text(r#"{"output":"x","b":1}"#, false)
    );
    assert_eq!(outcome(json!({"error": "no"})), text("no", true));
    assert_eq!(
        outcome(json!({"error": {"code": 7}})),
        text(r#"{"code":7}"#, true)
    );
    assert_eq!(
        outcome(json!({"error": null, "output": 1})),
        text(r#"{"error":null,"output":1}"#, false)
    );
    assert_eq!(outcome(json!("plain")), text("plain", false));
    assert_eq!(outcome(json!(null)), text("", false));
}

#[test]
fn increments_of_a_models_text_become_one_and_a_users_parts_stay() {
    let body = json!({"contents": [
        {"role": "user", "parts": [{"text": "a"}, {"text": "b"}]},
        {"role": "model", "parts": [{"text": "th", "thought": true}, {"text": "ink", "thought": true},
            {"text": "", "thought": true, "thoughtSignature": "c2ln"}, {"text": "He"}, {"text": "llo"},
            {"text": "", "thoughtSignature": "-_-_"}, {"thoughtSignature": "bW9yZQ=="}]}]});
    read(&body, |request, _| {
        let request = request.unwrap();
        assert_eq!(request.turns[0].parts.len(), 2);
        let [Part::Reasoning(thought), Part::Text(text)] = &request.turns[1].parts[..] else {
            panic!("{:?}", request.turns[1])
        };
        assert!(thought.text.is("think"));
        assert!(thought.opaque.as_ref().unwrap().data.is("c2ln"));
        assert!(text.text.is("Hello"));
        assert!(text.opaque.as_ref().unwrap().data.is("+/+/"));
    });
}

#[test]
fn a_blob_of_another_family_comes_home_as_reasoning_before_its_part() {
    let anthropic = Opaque {
        kind: OpaqueKind::AnthropicSignature,
        data: Str::new("c2ln"),
        model: None,
        account: None,
    };
    let data = envelope::outward(&anthropic, &[], Some("hidden"));
    let safe = data.plain().replace('+', "-").replace('/', "_");
    let body = json!({"contents": [{"role": "model", "parts": [
        {"functionCall": {"name": "f"}, "thoughtSignature": safe.trim_end_matches('=')},
        {"text": "seen", "thought": true},
        {"text": "", "thought": true, "thoughtSignature": data.plain()}]}]});
    read(&body, |request, _| {
        let request = request.unwrap();
        let [
            Part::Reasoning(first),
            Part::Call(call),
            Part::Reasoning(second),
        ] = &request.turns[0].parts[..]
        else {
            panic!("{:?}", request.turns[0])
        };
        assert!(first.text.is("hidden") && call.opaque.is_none());
        assert_eq!(
            first.opaque.as_ref().unwrap().kind,
            OpaqueKind::AnthropicSignature
        );
        assert!(second.text.is("seen") && second.opaque.is_some());
    });
}

#[test]
fn code_and_its_outcome_are_one_and_files_are_known_by_their_uri() {
    let body = json!({"contents": [{"role": "model", "parts": [
        {"executableCode": {"language": "PYTHON", "code": "print(1)"}, "thoughtSignature": "c2ln"},
        {"codeExecutionResult": {"outcome": "OUTCOME_FAILED", "output": "1"}},
        {"fileData": {"fileUri": "https://example.org/x.png"}},
        {"fileData": {"fileUri": "gs://b/x", "mimeType": "video/mp4"}},
        {"fileData": {"fileUri": "https://generativelanguage.googleapis.com/v1beta/files/x"}}]}]});
    read(&body, |request, _| {
        let request = request.unwrap();
        let parts = &request.turns[0].parts;
        let Part::Hosted(code) = &parts[0] else {
            panic!()
        };
        assert_eq!(
            code.input.as_ref().unwrap().as_str(),
            r#"{"code":"print(1)"}"#
        );
        assert!(code.failed && code.output.as_ref().unwrap().is("1"));
        assert!(code.native.len() == 2 && !code.native[0].as_str().contains("Signature"));
        let media: Vec<_> = parts[1..]
            .iter()
            .map(|part| match part {
                Part::Media(medium) => (medium.kind, matches!(medium.source, Source::Url { .. })),
                _ => panic!(),
            })
            .collect();
        assert_eq!(
            media,
            [
                (MediaKind::Image, true),
                (MediaKind::Video, false),
                (MediaKind::Document, false)
            ]
        );
    });
}

#[test]
fn sampling_goes_over_with_its_digits() {
    let sent = chat(
        OLD,
        &saying(
            json!({"temperature": 0.70, "top_p": 1e-1, "frequency_penalty": 0.5, "presence_penalty": 1,
            "seed": 7, "n": 2, "logprobs": true, "top_logprobs": 3, "max_completion_tokens": 99,
            "stop": ["a", "b"], "logit_bias": {"1": 2}, "verbosity": "low", "user": "u"}),
        ),
    );
    let config = &sent.body["generationConfig"];
    assert_eq!(config["temperature"], json!(0.7));
    assert_eq!(
        (
            &config["candidateCount"],
            &config["logprobs"],
            &config["maxOutputTokens"]
        ),
        (&json!(2), &json!(3), &json!(99))
    );
    assert_eq!(config["stopSequences"], json!(["a", "b"]));
    assert_eq!(sent.warned.as_deref(), Some("dropped:logit_bias"));
    assert!(
        sent.notes.contains(&"verbosity".to_owned()) && sent.notes.contains(&"user".to_owned())
    );
    let big = chat(OLD, &saying(json!({"seed": 99_999_999_999_u64})));
    assert_eq!(big.warned.as_deref(), Some("dropped:seed"));
}

#[test]
fn the_sixth_stop_text_is_looked_for_by_the_gateway() {
    let body = json!({"contents": "a", "generationConfig": {"stopSequences": ["1", "2", "3", "4", "5", "", "6"]}});
    let sent = send(Protocol::Gemini, OLD, &body).unwrap();
    assert_eq!(
        sent.body["generationConfig"]["stopSequences"],
        json!(["1", "2", "3", "4", "5"])
    );
    assert_eq!(sent.encoded.fixups.stop, ["6"]);
    assert_eq!(
        sent.warned.as_deref(),
        Some("emulated:generationConfig.stopSequences")
    );
}

#[test]
fn thinking_is_a_level_or_a_budget_never_both() {
    let thinking = |model: &str, effort: &str| {
        let sent = chat(model, &saying(json!({"reasoning_effort": effort})));
        (
            sent.body["generationConfig"]["thinkingConfig"].clone(),
            sent.warned,
        )
    };
    for (effort, budget, warned) in [
        ("none", 0, false),
        ("minimal", 1024, false),
        ("low", 1024, false),
        ("medium", 8192, false),
        ("high", 24_576, false),
        ("max", 24_576, false),
    ] {
        let (config, note) = thinking(OLD, effort);
        assert_eq!(config["thinkingBudget"], json!(budget), "{effort}");
        assert!(config.get("thinkingLevel").is_none());
        assert_eq!(note.is_some(), warned, "{effort} {note:?}");
    }
    let (config, note) = thinking("gemini-2.5-pro", "none");
    assert_eq!(
        (&config["thinkingBudget"], note.is_some()),
        (&json!(128), true)
    );
    let (config, note) = thinking(NEW, "high");
    assert_eq!(
        config,
        json!({"thinkingLevel": "HIGH", "includeThoughts": true})
    );
    assert_eq!(note, None);
    let (config, note) = thinking(NEW, "none");
    assert!(config.get("thinkingBudget").is_none() && config.get("includeThoughts").is_none());
    assert!(note.unwrap().starts_with("coerced:reasoning_effort=none>"));
    let plain = chat(NEW, &saying(json!({})));
    assert_eq!(
        plain.body["generationConfig"]["thinkingConfig"],
        json!({"includeThoughts": true})
    );
}

#[test]
fn a_schema_binds_the_answer_or_asks_for_it_in_words() {
    let format = json!({"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object", "properties": {"a": {"type": "string"}}}}}});
    let sent = chat(OLD, &saying(format.clone()));
    let config = &sent.body["generationConfig"];
    assert_eq!(config["responseMimeType"], "application/json");
    assert_eq!(
        config["responseJsonSchema"]["properties"]["a"]["type"],
        "string"
    );
    let mut body = saying(format);
    body["tools"] = json!([function("f")]);
    let beside = chat(OLD, &body);
    assert!(
        beside.body["generationConfig"]
            .get("responseMimeType")
            .is_none()
    );
    let words = beside.body["systemInstruction"]["parts"][0]["text"]
        .as_str()
        .unwrap();
    assert!(
        words.starts_with("Reply with one JSON value only"),
        "{words}"
    );
    assert!(beside.encoded.fixups.fenced);
    assert!(beside.warned.unwrap().contains("emulated:response_format"));
    let new = chat(NEW, &body);
    assert_eq!(
        new.body["generationConfig"]["responseMimeType"],
        "application/json"
    );
}

#[test]
fn tools_become_declarations_and_a_choice() {
    let body = saying(
        json!({"tools": [function("f"), function("9 g")], "tool_choice": "required", "parallel_tool_calls": false}),
    );
    let sent = chat(OLD, &body);
    let declarations = &sent.body["tools"][0]["functionDeclarations"];
    assert_eq!(declarations[0]["name"], "f");
    assert_eq!(declarations[0]["description"], "");
    assert_eq!(declarations[0]["parametersJsonSchema"]["type"], "object");
    let fitted = declarations[1]["name"].as_str().unwrap();
    assert_eq!(
        sent.encoded.fixups.names.original(fitted).unwrap().name,
        "9 g"
    );
    assert_eq!(
        sent.body["toolConfig"],
        json!({"functionCallingConfig": {"mode": "ANY"}})
    );
    assert_eq!(sent.warned.as_deref(), Some("dropped:parallel_tool_calls"));
    let allowed = json!({"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "f"}}]}});
    let sent = chat(
        OLD,
        &saying(json!({"tools": [function("f"), function("g")], "tool_choice": allowed})),
    );
    assert_eq!(
        sent.body["tools"][0]["functionDeclarations"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert_eq!(
        sent.body["toolConfig"]["functionCallingConfig"],
        json!({"mode": "AUTO"})
    );
    let none = chat(OLD, &saying(json!({"tool_choice": "none"})));
    assert!(none.body.get("toolConfig").is_none() && none.body.get("tools").is_none());
}

#[test]
fn an_old_api_gets_schemas_as_openapi() {
    let able = Capabilities {
        schema_mode: crate::protocol::capabilities::SchemaMode::OpenApi,
        ..Capabilities::of(Protocol::Gemini, "h", OLD)
    };
    let body = saying(json!({"tools": [function("f")]}));
    let sent = send_to(&able, Protocol::Chat, OLD, &body).unwrap();
    let declaration = &sent.body["tools"][0]["functionDeclarations"][0];
    assert!(declaration.get("parameters").is_some());
    assert!(declaration.get("parametersJsonSchema").is_none());
}

#[test]
fn googles_tools_mix_with_functions_only_where_they_can() {
    let gemini = json!({"contents": "a", "tools": [{"functionDeclarations": [{"name": "f"}]}, {"googleSearch": {}}, {"codeExecution": {}}]});
    let old = send(Protocol::Gemini, OLD, &gemini).unwrap();
    assert_eq!(old.body["tools"].as_array().unwrap().len(), 1);
    assert_eq!(
        old.warned.as_deref(),
        Some("dropped:googleSearch;dropped:codeExecution")
    );
    let new = send(Protocol::Gemini, NEW, &gemini).unwrap();
    assert_eq!(new.body["tools"][1], json!({"googleSearch": {}}));
    assert_eq!(
        new.body["toolConfig"],
        json!({"includeServerSideToolInvocations": true})
    );
    assert_eq!(new.warned, None);
    let bound = json!({"contents": "a", "tools": [{"computerUse": {}}]});
    let refusal = send(Protocol::Gemini, NEW, &bound).err().unwrap();
    assert_eq!(
        (refusal.param.as_deref(), refusal.code),
        (Some("tools[0].computerUse"), Some("unsupported_tool"))
    );
    let dropped = json!({"contents": "a", "tools": [{"fileSearch": {}}]});
    assert!(send(Protocol::Gemini, NEW, &dropped).is_err());
}

fn history(messages: Tree) -> Tree {
    json!({"model": "m", "messages": messages})
}

fn calling(id: &str, name: &str, more: Tree) -> Tree {
    let mut call =
        json!({"id": id, "type": "function", "function": {"name": name, "arguments": "{}"}});
    for (name, value) in more.as_object().unwrap() {
        call[name] = value.clone();
    }
    call
}

#[test]
fn only_the_first_call_of_each_step_of_this_exchange_gets_the_word_for_no_signature() {
    let signed = json!({"extra_content": {"google": {"thought_signature": "c2ln"}}});
    let none = || json!({});
    let body = history(json!([
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": null, "tool_calls": [calling("a", "f", none())]},
        {"role": "tool", "tool_call_id": "a", "content": "1"},
        {"role": "assistant", "content": "done"},
        {"role": "user", "content": "two"},
        {"role": "assistant", "content": "hm", "tool_calls": [calling("b", "f", none()), calling("c", "f", none())]},
        {"role": "tool", "tool_call_id": "b", "content": "2"},
        {"role": "tool", "tool_call_id": "c", "content": "3"},
        {"role": "assistant", "content": null, "tool_calls": [calling("d", "f", signed), calling("e", "f", none())]},
        {"role": "tool", "tool_call_id": "d", "content": "4"},
        {"role": "tool", "tool_call_id": "e", "content": "5"}
    ]));
    let signatures = |model: &str| -> Vec<Option<String>> {
        let body = chat(model, &body).body;
        let contents = body["contents"].as_array().unwrap().clone();
        let parts = contents
            .iter()
            .flat_map(|content| content["parts"].as_array().unwrap());
        let calls = parts.filter(|part| part.get("functionCall").is_some());
        calls
            .map(|part| Some(part.get("thoughtSignature")?.as_str()?.to_owned()))
            .collect()
    };
    let word = Some("skip_thought_signature_validator".to_owned());
    let real = Some("c2ln".to_owned());
    assert_eq!(signatures(NEW), [None, word, None, real.clone(), None]);
    assert_eq!(signatures(OLD), [None, None, None, real, None]);
}

#[test]
fn a_signature_that_travelled_as_reasoning_rides_on_the_call_again() {
    let body = json!({"contents": [
        {"role": "user", "parts": [{"text": "one"}]},
        {"role": "model", "parts": [{"text": "hm", "thought": true, "thoughtSignature": "c2ln"},
            {"text": "so"}, {"functionCall": {"name": "f"}}, {"functionCall": {"name": "f"}}]},
        {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {}}}]}]});
    let parts = send(Protocol::Gemini, NEW, &body).unwrap().body["contents"][1]["parts"].clone();
    assert_eq!(parts[0], json!({"text": "hm", "thought": true}));
    assert_eq!(parts[1], json!({"text": "so"}));
    assert_eq!(parts[2]["thoughtSignature"], "c2ln");
    assert!(parts[3].get("thoughtSignature").is_none());
}

#[test]
fn results_say_their_tool_and_keep_their_media() {
    let gemini = json!({"contents": [
        {"role": "user", "parts": [{"text": "look"}]},
        {"role": "model", "parts": [{"functionCall": {"id": "a", "name": "f"}}, {"functionCall": {"id": "b", "name": "g"}}]},
        {"role": "user", "parts": [
            {"functionResponse": {"id": "b", "name": "g", "response": {"error": "no"}}},
            {"functionResponse": {"id": "a", "name": "f", "response": {"output": ""}, "parts": [{"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}}]}},
            {"text": "and?"}]}]});
    let old = send(Protocol::Gemini, OLD, &gemini).unwrap().body;
    let parts = &old["contents"][2]["parts"];
    assert_eq!(parts[0]["functionResponse"]["name"], "f");
    assert_eq!(
        parts[0]["functionResponse"]["response"],
        json!({"output": "[attached below]"})
    );
    assert_eq!(
        parts[1]["functionResponse"]["response"],
        json!({"error": "no"})
    );
    assert_eq!(parts[2]["inlineData"]["mimeType"], "image/png");
    assert_eq!(parts[3]["text"], "and?");
    let new = send(Protocol::Gemini, NEW, &gemini).unwrap().body;
    let inside = &new["contents"][2]["parts"][0]["functionResponse"]["parts"];
    assert_eq!(inside[0]["inlineData"]["data"], "iVBORw0KGgo=");
}

#[test]
fn media_by_url_go_only_where_google_fetches_them() {
    let image = |url: &str| {
        let body = history(
            json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]),
        );
        send(Protocol::Chat, OLD, &body)
    };
    let sent = image("https://www.youtube.com/watch?v=x").unwrap();
    assert_eq!(
        sent.body["contents"][0]["parts"][0]["fileData"]["fileUri"],
        "https://www.youtube.com/watch?v=x"
    );
    let refusal = image("https://example.org/a.png").err().unwrap();
    assert_eq!(refusal.code, Some("unsupported_content"));
    assert!(refusal.param.unwrap().starts_with("messages[0].content[0]"));
}

#[test]
fn a_request_that_says_nothing_still_says_something() {
    let body = history(json!([{"role": "system", "content": "s"}]));
    let sent = chat(OLD, &body).body;
    assert_eq!(
        sent["contents"],
        json!([{"role": "user", "parts": [{"text": " "}]}])
    );
    assert_eq!(sent["systemInstruction"]["parts"], json!([{"text": "s"}]));
}

#[test]
fn long_numbers_and_the_order_of_names_survive() {
    let body = json!({"contents": [
        {"role": "user", "parts": [{"text": "é \u{2028} \"q\""}]},
        {"role": "model", "parts": [{"functionCall": {"name": "f", "args": {"z": 1, "a": 2}}}]},
        {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {"x": 1}}}]}]});
    let text = body
        .to_string()
        .replace("\"z\":1", "\"z\":12345678901234567890");
    let mut tape = Tape::new();
    let mut notes = Notes::new();
    let request = super::decode(tape.parse(&text).unwrap(), &mut notes).unwrap();
    let able = Capabilities::of(Protocol::Gemini, "h", OLD);
    let target = Target {
        protocol: Protocol::Gemini,
        model: OLD,
        capabilities: &able,
        account: "a",
        stream: false,
    };
    let sent = super::encode(&request, &target, &mut notes).unwrap().body;
    let sent = std::str::from_utf8(&sent).unwrap();
    assert!(
        sent.contains(r#""args":{"z":12345678901234567890,"a":2}"#),
        "{sent}"
    );
    assert!(sent.contains("é \u{2028} \\\"q\\\""));
}

proptest::proptest! {
    #[test]
    fn no_body_panics(at in 0_usize..600, byte in proptest::prelude::any::<u8>(), cut in 0_usize..600) {
        let body = json!({"contents": [
            {"role": "user", "parts": [{"text": "a"}, {"inlineData": {"mimeType": "image/png", "data": "AAAA"}}]},
            {"role": "model", "parts": [{"text": "t", "thought": true, "thoughtSignature": "c2ln"}, {"functionCall": {"name": "f", "args": {}}}, {"executableCode": {"code": "x"}}]},
            {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {"output": "x"}}}]}],
            "tools": [{"functionDeclarations": [{"name": "f", "parameters": {"type": "OBJECT"}}]}],
            "generationConfig": {"topK": 4, "thinkingConfig": {"thinkingBudget": 9}, "stopSequences": ["x"]}});
        let mut bytes = body.to_string().into_bytes();
        if let Some(place) = bytes.get_mut(at) {
            *place = byte;
        }
        if cut % 3 == 0 {
            bytes.truncate(cut);
        }
        let mut tape = Tape::new();
        let mut notes = Notes::new();
        if let Ok(root) = tape.parse_bytes(&bytes)
            && let Ok(request) = super::decode(root, &mut notes)
        {
            let able = Capabilities::of(Protocol::Gemini, "h", NEW);
            let target = Target { protocol: Protocol::Gemini, model: NEW, capabilities: &able, account: "a", stream: false };
            if let Ok(encoded) = super::encode(&request, &target, &mut notes) {
                proptest::prop_assert!(serde_json::from_slice::<Tree>(&encoded.body).is_ok());
            }
        }
    }
}
