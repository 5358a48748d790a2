//! Refusals in the words of many servers, and what becomes of the bodies.

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value as Parsed, json};

use super::*;
use crate::protocol::json::Tape;
use crate::protocol::splice;

/// The body after one repair, and its notes; `None` where nothing is known to help.
fn repaired(protocol: Protocol, answer: &str, body: &str) -> Option<(String, String)> {
    let mut tape = Tape::new();
    let root = tape.parse(body).unwrap();
    let fixes = diagnose(protocol, 400, answer.as_bytes(), root)?;
    let mut notes = Notes::new();
    let edits = apply(&fixes, protocol, root, &mut notes)?;
    let frames = [Bytes::copy_from_slice(body.as_bytes())];
    let text = splice::apply(&frames, edits.into_patches()).concat();
    Some((String::from_utf8(text).unwrap(), notes.header().unwrap()))
}

#[track_caller]
fn becomes(protocol: Protocol, answer: &str, before: &str, after: &str) {
    let text = repaired(protocol, answer, before).map(|(text, _)| text);
    assert_eq!(text.as_deref(), Some(after), "{answer}");
}

#[track_caller]
fn openai(message: &str, param: Option<&str>, code: Option<&str>) -> String {
    json!({"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}})
        .to_string()
}

fn anthropic(message: &str) -> String {
    json!({"type": "error", "error": {"type": "invalid_request_error", "message": message}, "request_id": "req_1"})
        .to_string()
}

fn google(message: &str) -> String {
    json!([{"error": {"code": 400, "message": message, "status": "INVALID_ARGUMENT"}}]).to_string()
}

/// Refusals of one field, in the ways of many servers.
#[test]
fn a_refused_field_goes_however_its_provider_says_it() {
    let cases = [
        ("foo", openai("Unsupported parameter: 'foo' is not supported with this model.", Some("foo"), Some("unsupported_parameter"))),
        ("foo", openai("Unknown parameter: 'foo'.", Some("foo"), Some("unknown_parameter"))),
        ("foo", openai("Unrecognized request argument supplied: foo", None, None)),
        ("foo", openai("It isn't had here.", Some("foo"), Some("unsupported_parameter"))),
        ("foo", json!({"detail": "Unsupported parameter: foo"}).to_string()),
        ("foo", json!({"code": "Client specified an invalid argument", "error": "Argument not supported on this model: foo"}).to_string()),
        ("presence_penalty", json!({"error": "Model grok-4 does not support parameter presencePenalty."}).to_string()),
        ("foo", anthropic("foo: Extra inputs are not permitted")),
        ("foo", anthropic("`foo` is deprecated for this model.")),
        ("foo", json!({"message": "property 'foo' is unsupported, did you mean 'fool'?", "code": "wrong_api_format"}).to_string()),
        ("foo", json!({"detail": [{"type": "extra_forbidden", "loc": ["body", "foo"], "msg": "Extra inputs are not permitted", "input": 1}]}).to_string()),
        ("foo", json!({"object": "error", "message": {"detail": [{"type": "extra_forbidden", "loc": ["body", "foo"], "msg": "Extra inputs are not permitted"}]}}).to_string()),
        ("foo", json!({"object": "error", "message": "{\"detail\":[{\"type\":\"extra_forbidden\",\"loc\":[\"body\",\"foo\"],\"msg\":\"no\"}]}"}).to_string()),
        ("foo", json!({"object": "error", "message": "[{'type': 'extra_forbidden', 'loc': ('body', 'foo'), 'msg': 'Extra inputs are not permitted', 'input': 1}]"}).to_string()),
        ("foo", openai("1 validation error for ChatCompletionRequest\nfoo\n  Extra inputs are not permitted [type=extra_forbidden, input_value=1, input_type=int]\n    For further information visit https://errors.example", None, None)),
        ("foo", openai("Extra inputs are not permitted, field: 'foo', value: 1", None, None)),
        ("foo", "Failed to deserialize the JSON body into the target type: unknown field `foo`, expected one of `model`, `messages` at line 1 column 9".into()),
        ("foo", openai("json: unknown field \"foo\"", None, None)),
        ("foo", openai("Unrecognized key(s) in object: 'foo'", None, None)),
        ("foo", json!({"message": "Malformed input request: #: extraneous key [foo] is not permitted, please reformat your input and try again."}).to_string()),
        ("foo", openai("Additional properties are not allowed ('foo' was unexpected)", None, None)),
        ("foo", openai("create() got an unexpected keyword argument 'foo'", None, None)),
        ("foo", google("Invalid JSON payload received. Unknown name \"foo\": Cannot find field.")),
        ("foo", json!({"error": {"message": "Provider returned error", "code": 400, "metadata": {"raw": "{\"error\":{\"message\":\"Unknown parameter: 'foo'.\"}}"}}}).to_string()),
        ("foo", openai("litellm.BadRequestError: OpenAIException - {\"error\":{\"message\":\"Unsupported parameter: 'foo'\"}}", None, None)),
    ];
    for (field, answer) in cases {
        let before = format!(r#"{{"model":"m", "{field}" : 1 ,"messages":[]}}"#);
        let text = repaired(Protocol::Chat, &answer, &before);
        let after = r#"{"model":"m" ,"messages":[]}"#.to_owned();
        let note = format!("emulated:parameter_removed={field}");
        assert_eq!(text, Some((after, note)), "{answer}");
    }
}

#[test]
fn many_refused_fields_go_at_once() {
    for answer in [
        openai("Unrecognized request arguments supplied: a, b", None, None),
        openai("Unrecognized key(s) in object: 'a', 'b'", None, None),
        google("Invalid JSON payload received. Unknown name \"a\": Cannot find field.\nInvalid JSON payload received. Unknown name \"b\": Cannot find field."),
        json!({"detail": [{"type": "extra_forbidden", "loc": ["body", "a"], "msg": "-"}, {"type": "extra_forbidden", "loc": ["body", "b"], "msg": "-"}]}).to_string(),
    ] {
        becomes(Protocol::Chat, &answer, r#"{"a":1,"model":"m","b":2}"#, r#"{"model":"m"}"#);
    }
}

#[test]
fn a_field_of_the_history_goes_from_all_turns_like_the_one_that_was_named() {
    let body = r#"{"messages":[{"role":"user","reasoning_content":"u"},{"role":"assistant","reasoning_content":"a","content":"x"},{"role":"assistant","content":"y","reasoning_content":"b"}]}"#;
    let wanted = r#"{"messages":[{"role":"user","reasoning_content":"u"},{"role":"assistant","content":"x"},{"role":"assistant","content":"y"}]}"#;
    for answer in [
        openai("'messages.1' : for 'role:assistant' the following must be satisfied[('messages.1' : property 'reasoning_content' is unsupported)]", None, None),
        json!({"message": "messages.1.assistant.reasoning_content: property 'messages.1.assistant.reasoning_content' is unsupported"}).to_string(),
        openai("Unknown parameter: 'messages[2].reasoning_content'.", Some("messages[2].reasoning_content"), Some("unknown_parameter")),
        json!({"detail": [{"type": "extra_forbidden", "loc": ["body", "messages", 1, "assistant", "reasoning_content"], "msg": "Extra inputs are not permitted"}]}).to_string(),
        openai("1 validation error for ChatCompletionRequest\nmessages.1.assistant.reasoning_content\n  Extra inputs are not permitted [type=extra_forbidden]", None, None),
        "messages[1]: unknown field `reasoning_content`, expected `role` or `content`".into(),
    ] {
        becomes(Protocol::Chat, &answer, body, wanted);
    }
    becomes(
        Protocol::Messages,
        &anthropic("tools.0.custom.defer_loading: Extra inputs are not permitted"),
        r#"{"tools":[{"name":"a","defer_loading":true},{"defer_loading":false,"name":"b"}]}"#,
        r#"{"tools":[{"name":"a"},{"name":"b"}]}"#,
    );
}

#[test]
fn gemini_names_fields_in_its_own_spelling() {
    becomes(
        Protocol::Gemini,
        &google(
            "Invalid JSON payload received. Unknown name \"topKay\" at 'generation_config': Cannot find field.\nInvalid JSON payload received. Unknown name \"$schema\" at 'tools[0].function_declarations[0].parameters': Cannot find field.",
        ),
        r#"{"contents":[],"generationConfig":{"topKay":1,"topP":1},"tools":[{"functionDeclarations":[{"name":"f","parameters":{"$schema":"x","type":"object"}},{"parameters":{"$schema":"y"}}]}]}"#,
        r#"{"contents":[],"generationConfig":{"topP":1},"tools":[{"functionDeclarations":[{"name":"f","parameters":{"type":"object"}},{"parameters":{}}]}]}"#,
    );
    let body =
        r#"{"generationConfig":{"thinkingConfig":{"thinkingLevel":"MAX","includeThoughts":true}}}"#;
    let without = r#"{"generationConfig":{"thinkingConfig":{"includeThoughts":true}}}"#;
    for message in [
        "Thinking level is not supported for this model.",
        "Invalid value at 'generation_config.thinking_config.thinking_level' (type.googleapis.com/google.ai.ThinkingLevel), \"MAX\"",
    ] {
        becomes(Protocol::Gemini, &google(message), body, without);
    }
    becomes(
        Protocol::Gemini,
        &google("Penalty is not enabled for this model"),
        r#"{"generationConfig":{"presencePenalty":1,"topK":3,"frequencyPenalty":1}}"#,
        r#"{"generationConfig":{"topK":3}}"#,
    );
}

#[test]
fn a_refused_value_goes_and_another_one_of_that_field_stays() {
    let answer = openai(
        "Unsupported value: 'minimal' is not supported with the 'gpt-5.1' model. Supported values are: 'none', 'low'.",
        Some("reasoning.effort"),
        Some("unsupported_value"),
    );
    let body = r#"{"reasoning":{"effort":"minimal","summary":"auto"}}"#;
    becomes(
        Protocol::Responses,
        &answer,
        body,
        r#"{"reasoning":{"summary":"auto"}}"#,
    );
    let mut tape = Tape::new();
    let fixes = diagnose(
        Protocol::Responses,
        400,
        answer.as_bytes(),
        tape.parse(body).unwrap(),
    )
    .unwrap();
    let mut other = Tape::new();
    let low = other.parse(r#"{"reasoning":{"effort":"low"}}"#).unwrap();
    assert!(apply(&fixes, Protocol::Responses, low, &mut Notes::new()).is_none());
    let answer = openai(
        "Unsupported value: 'temperature' does not support 0.2 with this model. Only the default (1) value is supported.",
        Some("temperature"),
        Some("unsupported_value"),
    );
    let mut tape = Tape::new();
    let root = tape.parse(r#"{"temperature":0.2}"#).unwrap();
    let fixes = diagnose(Protocol::Chat, 400, answer.as_bytes(), root).unwrap();
    let warmer = other.parse(r#"{"temperature":0.7}"#).unwrap();
    assert!(apply(&fixes, Protocol::Chat, warmer, &mut Notes::new()).is_some());
}

#[test]
fn the_limit_of_output_takes_the_name_that_the_provider_knows() {
    let old = openai(
        "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
        Some("max_tokens"),
        Some("unsupported_parameter"),
    );
    becomes(
        Protocol::Chat,
        &old,
        r#"{"max_tokens":9,"n":1}"#,
        r#"{"max_completion_tokens":9,"n":1}"#,
    );
    becomes(
        Protocol::Chat,
        &old,
        r#"{"max_tokens":9,"max_completion_tokens":8}"#,
        r#"{"max_completion_tokens":8}"#,
    );
    let new = json!({"object": "error", "message": {"detail": [{"type": "extra_forbidden", "loc": ["body", "max_completion_tokens"], "msg": "Extra inputs are not permitted"}]}}).to_string();
    becomes(
        Protocol::Chat,
        &new,
        r#"{"max_completion_tokens":9}"#,
        r#"{"max_tokens":9}"#,
    );
}

#[test]
fn sampling_goes_where_it_clashes() {
    let both = anthropic(
        "`temperature` and `top_p` cannot both be specified for this model. Please use only one.",
    );
    becomes(
        Protocol::Messages,
        &both,
        r#"{"temperature":1,"top_p":1}"#,
        r#"{"temperature":1}"#,
    );
    let thinking = anthropic(
        "`temperature` may only be set to 1 when thinking is enabled or in adaptive mode.",
    );
    becomes(
        Protocol::Messages,
        &thinking,
        r#"{"temperature":0,"thinking":{"type":"adaptive"}}"#,
        r#"{"thinking":{"type":"adaptive"}}"#,
    );
    assert_eq!(
        repaired(
            Protocol::Messages,
            &thinking,
            r#"{"temperature":0,"thinking":{"type":"disabled"}}"#
        ),
        None
    );
    let top_p = anthropic(
        "`top_p` must be greater than or equal to 0.95 or unset when thinking is enabled.",
    );
    becomes(
        Protocol::Messages,
        &top_p,
        r#"{"top_p":0.1,"thinking":{"type":"enabled"}}"#,
        r#"{"thinking":{"type":"enabled"}}"#,
    );
}

#[test]
fn what_makes_the_request_never_goes() {
    let body = r#"{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"x"}],"name":"n"}],"tools":[{"type":"function","function":{"name":"f"}}],"stream":true,"instructions":"i","max_tokens":1}"#;
    for name in [
        "model",
        "messages",
        "messages[0]",
        "messages[0].role",
        "messages.0.content",
        "messages[0].content[0]",
        "messages[0].content[0].text",
        "tools",
        "tools[0]",
        "tools[0].function",
        "tools[0].function.name",
        "stream",
        "instructions",
        "max_tokens",
        "absent",
        "messages[7].name",
        "Messages",
        "",
        "a b",
        "..",
        "[0]",
        "0",
    ] {
        for answer in [
            openai(
                &format!("Unknown parameter: '{name}'."),
                Some(name),
                Some("unknown_parameter"),
            ),
            anthropic(&format!("{name}: Extra inputs are not permitted")),
            openai("Invalid", Some(name), Some("unsupported_value")),
        ] {
            assert_eq!(
                repaired(Protocol::Messages, &answer, body),
                None,
                "{name} {answer}"
            );
        }
    }
}

#[test]
fn what_no_change_would_cure_is_left_alone() {
    let body = r#"{"model":"m","temperature":0.1,"response_format":{"type":"json_object"},"messages":[{"role":"user","content":"Unknown parameter: 'temperature'"}]}"#;
    for answer in [
        openai(
            "This model's maximum context length is 10 tokens.",
            None,
            Some("context_length_exceeded"),
        ),
        openai(
            "Invalid type for 'temperature': expected a number, but got a string instead.",
            Some("temperature"),
            Some("invalid_type"),
        ),
        openai(
            "Unsupported parameter: 'response_format'. In the Responses API, this parameter has moved to 'text.format'.",
            None,
            None,
        ),
        openai("", None, None),
        "".into(),
        "<html>400</html>".into(),
        "null".into(),
    ] {
        assert_eq!(repaired(Protocol::Chat, &answer, body), None, "{answer}");
    }
    let refused = openai(
        "Unknown parameter: 'temperature'.",
        Some("temperature"),
        Some("unknown_parameter"),
    );
    let mut tape = Tape::new();
    let root = tape.parse(body).unwrap();
    for status in [401, 404, 413, 429, 500] {
        assert_eq!(
            diagnose(Protocol::Chat, status, refused.as_bytes(), root),
            None
        );
    }
    assert!(diagnose(Protocol::Chat, 422, refused.as_bytes(), root).is_some());
}

#[test]
fn thinking_with_a_stale_signature_goes_with_it() {
    let body = r#"{"messages":[{"role":"user","content":"q"},{"role":"assistant","content":[{"type":"thinking","thinking":"t","signature":"s"},{"type":"text","text":"x"}]},{"role":"assistant","content":[{"type":"redacted_thinking","data":"d"}]},{"role":"user","content":"r"}]}"#;
    let wanted = r#"{"messages":[{"role":"user","content":"q"},{"role":"assistant","content":[{"type":"text","text":"x"}]},{"role":"user","content":"r"}]}"#;
    for message in [
        "messages.1.content.0: Invalid `signature` in `thinking` block",
        "messages.1.content.0.thinking.signature: Field required",
        "messages.1.content.0: Invalid `data` in `redacted_thinking` block",
        "messages.1.content.0: `thinking` or `redacted_thinking` blocks in the latest assistant message cannot be modified. These blocks must remain as they were in the original response.",
    ] {
        becomes(Protocol::Messages, &anthropic(message), body, wanted);
        // As Google wraps it.
        let wrapped = json!({"error": {"code": 400, "message": anthropic(message), "status": "INVALID_ARGUMENT"}});
        becomes(Protocol::Messages, &wrapped.to_string(), body, wanted);
    }
    let answer = anthropic("messages.1.content.0: Invalid `signature` in `thinking` block");
    assert_eq!(
        repaired(Protocol::Messages, &answer, wanted),
        None,
        "nothing to strip"
    );
    let (_, note) = repaired(Protocol::Messages, &answer, body).unwrap();
    assert_eq!(note, "emulated:reasoning_stripped");
}

#[test]
fn foreign_ciphertext_goes_with_its_reasoning_items() {
    let body = r#"{"input":[{"role":"user","content":"q"},{"type":"reasoning","id":"rs_1","encrypted_content":"e"},{"type":"function_call","id":"fc_1","call_id":"c","name":"f","arguments":"{}"},{"type":"function_call_output","id":"o","call_id":"c","output":"1"}]}"#;
    let wanted = r#"{"input":[{"role":"user","content":"q"},{"type":"function_call","call_id":"c","name":"f","arguments":"{}"},{"type":"function_call_output","id":"o","call_id":"c","output":"1"}]}"#;
    for answer in [
        openai(
            "The encrypted content gAAA...xx could not be verified.",
            None,
            Some("invalid_encrypted_content"),
        ),
        openai(
            "The encrypted content for item rs_1 could not be verified. Reason: Encrypted content could not be decrypted or parsed.",
            None,
            None,
        ),
        openai(
            "Item 'rs_1' of type 'reasoning' was provided without its required following item.",
            Some("input"),
            None,
        ),
    ] {
        becomes(Protocol::Responses, &answer, body, wanted);
    }
    let compacted = openai(
        "The encrypted content for item cmp_1 could not be verified.",
        None,
        Some("invalid_encrypted_content"),
    );
    assert_eq!(repaired(Protocol::Responses, &compacted, body), None);
}

#[test]
fn thought_signatures_are_stripped_and_calls_keep_a_placeholder() {
    let body = r#"{"contents":[{"role":"model","parts":[{"thought":true,"text":"t"},{"text":"x","thoughtSignature":"a"},{"functionCall":{"name":"f"},"thoughtSignature":"b"}]}]}"#;
    let wanted = r#"{"contents":[{"role":"model","parts":[{"text":"x"},{"functionCall":{"name":"f"},"thoughtSignature":"skip_thought_signature_validator"}]}]}"#;
    for message in [
        "Corrupted thought signature.",
        "Thought signature is not valid",
        "Invalid thought_signature",
    ] {
        becomes(Protocol::Gemini, &google(message), body, wanted);
    }
    becomes(
        Protocol::Gemini,
        &google(
            "Function call is missing a thought_signature in functionCall parts. Additional data, function call `f` , position 2.",
        ),
        r#"{"contents":[{"parts":[{"functionCall":{"name":"f"}},{"functionCall":{"name":"g"}}]},{"parts":[{"functionCall":{},"thoughtSignature":"own"}]}]}"#,
        r#"{"contents":[{"parts":[{"thoughtSignature":"skip_thought_signature_validator","functionCall":{"name":"f"}},{"functionCall":{"name":"g"}}]},{"parts":[{"functionCall":{},"thoughtSignature":"own"}]}]}"#,
    );
}

#[test]
fn chat_loses_the_blobs_that_others_hid_in_it() {
    becomes(
        Protocol::Chat,
        &openai("Invalid signature in thinking block", None, None),
        r#"{"messages":[{"role":"assistant","reasoning_content":"r","reasoning_details":[{"signature":"s"}],"tool_calls":[{"id":"1","extra_content":{"google":{"thought_signature":"x"}}}]}]}"#,
        r#"{"messages":[{"role":"assistant","reasoning_content":"r","tool_calls":[{"id":"1"}]}]}"#,
    );
}

#[test]
fn thinking_gives_way_where_the_history_or_the_model_does_not_allow_it() {
    becomes(
        Protocol::Messages,
        &anthropic(
            "messages.3.content.0.type: Expected `thinking` or `redacted_thinking`, but found `text`. When `thinking` is enabled, a final `assistant` message must start with a thinking block.",
        ),
        r#"{"thinking":{"type":"enabled","budget_tokens":1024},"max_tokens":2000}"#,
        r#"{"max_tokens":2000}"#,
    );
    becomes(
        Protocol::Messages,
        &anthropic(
            "\"thinking.type.enabled\" is not supported for this model. Use \"thinking.type.adaptive\" and \"output_config.effort\" to control thinking behavior.",
        ),
        r#"{"thinking":{"type":"enabled","budget_tokens":1024,"display":"omitted"}}"#,
        r#"{"thinking":{"type":"adaptive","display":"omitted"}}"#,
    );
}

#[test]
fn a_forced_tool_is_left_to_a_model_that_thinks() {
    becomes(
        Protocol::Messages,
        &anthropic("Thinking may not be enabled when tool_choice forces tool use."),
        r#"{"tool_choice":{"type":"tool","name":"f","disable_parallel_tool_use":true}}"#,
        r#"{"tool_choice":{"type":"auto","disable_parallel_tool_use":true}}"#,
    );
    for message in [
        "Thinking mode does not support this tool_choice",
        "tool_choice specified is incompatible with thinking enabled",
        "The tool_choice parameter does not support being set to required or object in thinking mode",
    ] {
        let answer = openai(message, None, None);
        becomes(
            Protocol::Chat,
            &answer,
            r#"{"tool_choice":"required"}"#,
            r#"{"tool_choice":"auto"}"#,
        );
        becomes(
            Protocol::Chat,
            &answer,
            r#"{"tool_choice":{"type":"function","function":{"name":"f"}}}"#,
            r#"{"tool_choice":"auto"}"#,
        );
        assert_eq!(
            repaired(Protocol::Chat, &answer, r#"{"tool_choice":"none"}"#),
            None
        );
    }
}

#[test]
fn the_role_developer_is_given_up_where_it_is_not_known() {
    for message in [
        "Failed to deserialize the JSON body into the target type: messages[0].role: unknown variant `developer`, expected one of `system`, `user`",
        "developer is not one of ['system', 'assistant', 'user', 'tool', 'function'] - 'messages.[0].role'",
        "Invalid enum value. Expected 'system' | 'user', received 'developer' at messages.0.role",
        "chat template rejected the request: Unexpected message role.",
        "Unsupported value: 'messages[0].role' does not support 'developer' with this model.",
    ] {
        let answer = openai(message, Some("messages[0].role"), Some("unsupported_value"));
        becomes(
            Protocol::Chat,
            &answer,
            r#"{"messages":[{"role":"developer"}]}"#,
            r#"{"messages":[{"role":"system"}]}"#,
        );
        assert_eq!(
            repaired(Protocol::Chat, &answer, r#"{"messages":[{"role":"user"}]}"#),
            None
        );
    }
}

#[test]
fn tools_that_a_host_does_not_run_go() {
    let lite = openai(
        "X-OpenAI-Internal-Codex-Responses-Lite only supports function tools, custom tools, and client-executed tool search.",
        Some("tools"),
        Some("unsupported_value"),
    );
    becomes(
        Protocol::Responses,
        &lite,
        r#"{"tools":[{"type":"function"},{"type":"web_search"}],"input":[{"type":"additional_tools","tools":[{"type":"namespace"},{"type":"custom"}]}]}"#,
        r#"{"tools":[{"type":"function"}],"input":[{"type":"additional_tools","tools":[{"type":"custom"}]}]}"#,
    );
    for message in [
        "The requested tool image_generation is not supported.",
        "Hosted tool 'image_generation' is not supported with m.",
    ] {
        becomes(
            Protocol::Responses,
            &openai(message, Some("tools"), Some("unsupported_value")),
            r#"{"tools":[{"type":"image_generation"}],"tool_choice":"auto","input":"x"}"#,
            r#"{"input":"x"}"#,
        );
    }
    becomes(
        Protocol::Messages,
        &anthropic("Advisor tool result content could not be processed"),
        r#"{"messages":[{"role":"assistant","content":[{"type":"server_tool_use","name":"advisor"},{"type":"advisor_tool_result","content":{}},{"type":"text","text":"x"}]}]}"#,
        r#"{"messages":[{"role":"assistant","content":[{"type":"text","text":"x"}]}]}"#,
    );
}

#[test]
fn only_what_another_conversation_needs_too_is_kept() {
    let path = Path::parse("a").unwrap();
    let lasting = [
        Fix::Remove {
            path,
            only: Only::Always,
        },
        Fix::TokenLimit { completion: true },
        Fix::DeveloperRole,
    ];
    assert!(lasting.iter().all(Fix::lasts));
    let passing = [
        Fix::Reasoning,
        Fix::ToolChoice,
        Fix::Advisor,
        Fix::ThinkingOff,
    ];
    assert!(!passing.iter().any(Fix::lasts));
}

proptest! {
    #[test]
    fn no_answer_and_no_body_make_it_panic_or_break_the_body(
        answer in r#"(unknown parameter: |x: Extra inputs are not permitted|'|"|`|\[|\]|\.|a|model|messages|0|property | is unsupported|unknown name | at '|é|, |\n|\{|\}|:){0,24}"#,
        wrap in 0_u8..3,
        body in r#"\{"a":(1|\{"a":\[\{"a":2\}\]\}|\[0\]),"model":"m","messages":\[(\{"a":0,"role":"user"\})?\],"x":0\}"#,
    ) {
        let answer = match wrap {
            0 => answer,
            1 => openai(&answer, Some(&answer), Some("unknown_parameter")),
            _ => json!({"detail": [{"loc": ["body", answer], "msg": answer}]}).to_string(),
        };
        let before: Parsed = serde_json::from_str(&body).unwrap();
        if let Some((text, _)) = repaired(Protocol::Chat, &answer, &body) {
            let after: Parsed = serde_json::from_str(&text).unwrap();
            prop_assert_ne!(&after, &before);
            prop_assert_eq!(&after["model"], &before["model"]);
            let turns = |value: &Parsed| value["messages"].as_array().map(Vec::len);
            prop_assert_eq!(turns(&after), turns(&before));
        }
    }
}
