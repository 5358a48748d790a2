//! Requests, read from clients and written for providers.

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::{decode, decode_for_count, encode};
use crate::protocol::Protocol;
use crate::protocol::capabilities::Capabilities;
use crate::protocol::envelope;
use crate::protocol::error::ErrorClass;
use crate::protocol::filter::Fixups;
use crate::protocol::ir::{
    Arguments, Call, Digits, Display, Effort, Format, Function, HostedTool, HostedToolKind,
    Invalid, Lifetime, Media, MediaKind, Opaque, OpaqueKind, Part, Reasoning, ReasoningMode,
    Request, Role, Service, Source, SystemBlock, Text, Thought, Tool, ToolChoice, ToolResult, Turn,
    WebSearch,
};
use crate::protocol::json::{Raw, Str, Tape};
use crate::protocol::notes::Notes;
use crate::protocol::translate::Target;

/// Reads a body, and hands request and notes on.
fn read<T>(body: &Json, see: impl FnOnce(Request<'_>, &Notes) -> T) -> Result<T, Invalid> {
    let text = body.to_string();
    let mut tape = Tape::new();
    let mut notes = Notes::new();
    let request = decode(tape.parse(&text).unwrap(), &mut notes)?;
    Ok(see(request, &notes))
}

fn param(body: &Json) -> String {
    let refused = read(body, |_, _| ()).unwrap_err();
    assert!(!refused.message.is_empty());
    refused.param.unwrap_or_default()
}

/// A body with one turn of those blocks.
fn saying(role: &str, blocks: Json) -> Json {
    json!({"model": "m", "max_tokens": 5, "messages": [{"role": role, "content": blocks}]})
}

fn with(member: &str, value: Json) -> Json {
    let mut body = saying("user", json!("hi"));
    body[member] = value;
    body
}

/// The parts of the only turn, and the notes.
fn parts<T>(role: &str, blocks: Json, see: impl FnOnce(&[Part<'_>], &Notes) -> T) -> T {
    read(&saying(role, blocks), |request, notes| {
        see(&request.turns[0].parts, notes)
    })
    .unwrap()
}

fn header(notes: &Notes) -> String {
    notes.header().unwrap_or_default()
}

#[test]
fn what_must_be_there_is_missed_by_name() {
    assert_eq!(
        param(&json!({"max_tokens": 1, "messages": [{"role": "user", "content": "a"}]})),
        "model"
    );
    assert_eq!(
        param(&json!({"model": "m", "messages": [{"role": "user", "content": "a"}]})),
        "max_tokens"
    );
    assert_eq!(param(&json!({"model": "m", "max_tokens": 1})), "messages");
    assert_eq!(
        param(&json!({"model": "m", "max_tokens": 1, "messages": []})),
        "messages"
    );
    assert_eq!(
        param(
            &json!({"model": "m", "max_tokens": 0, "messages": [{"role": "user", "content": "a"}]})
        ),
        "max_tokens"
    );
    let message = |message: Json| json!({"model": "m", "max_tokens": 1, "messages": [message]});
    assert_eq!(
        param(&message(json!({"role": "tool", "content": "a"}))),
        "messages[0].role"
    );
    assert_eq!(
        param(&message(json!({"role": "user"}))),
        "messages[0].content"
    );
    assert_eq!(
        param(&message(json!({"role": "user", "content": 5}))),
        "messages[0].content"
    );
    assert_eq!(
        param(&message(
            json!({"role": "user", "content": [{"type": "hologram"}]})
        )),
        "messages[0].content[0].type"
    );
    assert_eq!(
        param(&message(
            json!({"role": "user", "content": [{"type": "text"}]})
        )),
        "messages[0].content[0].text"
    );
    assert_eq!(param(&with("temperature", json!("hot"))), "temperature");
    assert_eq!(
        param(&with("tool_choice", json!({"type": "maybe"}))),
        "tool_choice.type"
    );
    assert_eq!(
        param(&with("thinking", json!({"type": "enabled"}))),
        "thinking.budget_tokens"
    );
    assert_eq!(param(&with("thread", json!({"id": "t"}))), "thread");
    assert_eq!(param(&json!([])), "");
}

#[test]
fn a_question_for_a_count_needs_no_limit() {
    let mut tape = Tape::new();
    let body = tape
        .parse(r#"{"model":"m","messages":[{"role":"user","content":"a"}]}"#)
        .unwrap();
    let mut notes = Notes::new();
    assert!(decode_for_count(body, &mut notes).is_ok());
}

#[test]
fn null_is_as_good_as_absent_and_the_last_of_a_name_counts() {
    let text = r#"{"model":"a","max_tokens":1,"model":"b","stop_sequences":null,"tools":null,"system":null,"foo":1,"bar":null,
        "messages":[{"role":"user","content":"x"}]}"#;
    let mut tape = Tape::new();
    let mut notes = Notes::new();
    let request = decode(tape.parse(text).unwrap(), &mut notes).unwrap();
    assert!(request.model.is("b"));
    assert_eq!(header(&notes), "dropped:foo");
}

#[test]
fn system_text_comes_as_a_string_or_as_blocks() {
    let body = with("system", json!("s"));
    read(&body, |request, _| assert!(request.system[0].text.is("s"))).unwrap();
    let body = with(
        "system",
        json!([{"type": "text", "text": "x-anthropic-billing-header: cc_version=1; cch=2"},
            {"type": "text", "text": "s", "cache_control": {"type": "ephemeral", "ttl": "1h"}}]),
    );
    read(&body, |request, _| {
        assert_eq!(request.system.len(), 1);
        assert_eq!(request.system[0].cache, Some(Lifetime::Long));
    })
    .unwrap();
}

#[test]
fn system_text_before_all_turns_leads_and_later_it_is_a_turn() {
    let body = json!({"model": "m", "max_tokens": 5, "system": "a", "messages": [
        {"role": "system", "content": "b"}, {"role": "user", "content": "c"}, {"role": "system", "content": "d"}]});
    read(&body, |request, _| {
        assert_eq!(request.system.len(), 2);
        assert_eq!(request.turns.len(), 2);
        assert_eq!(request.turns[1].role, Role::System);
    })
    .unwrap();
}

#[test]
fn all_blocks_of_a_user_are_read_in_their_order() {
    let blocks = json!([
        {"type": "tool_result", "tool_use_id": "t1"},
        {"type": "tool_result", "tool_use_id": "t2", "is_error": true, "cache_control": {"type": "ephemeral"}, "content": [
            {"type": "text", "text": "x"},
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "/9j/4AAQ"}},
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "d"}},
            {"type": "search_result", "source": "https://s", "title": "T", "content": [{"type": "text", "text": "r"}]},
            {"type": "tool_reference", "tool_name": "later"}]},
        {"type": "image", "source": {"type": "url", "url": "https://i"}},
        {"type": "document", "title": "D", "context": "C", "citations": {"enabled": true},
            "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}},
        {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "p"}, {"type": "text", "text": "q"}]}},
        {"type": "document", "source": {"type": "file", "file_id": "file_1"}},
        {"type": "text", "text": "end"}
    ]);
    parts("user", blocks, |parts, notes| {
        assert_eq!(header(notes), "");
        let Part::Result(first) = &parts[0] else {
            panic!("{parts:?}")
        };
        assert!(matches!(&first.parts[..], [Part::Text(text)] if text.text.is_empty()));
        let Part::Result(second) = &parts[1] else {
            panic!("{parts:?}")
        };
        assert!(second.is_error && second.cache == Some(Lifetime::Short));
        assert_eq!(second.parts.len(), 5);
        assert!(
            matches!(&second.parts[1], Part::Media(Media { source: Source::Inline { mime, .. }, path, .. })
            if mime == "image/jpeg" && path == "messages[0].content[1].content[1]")
        );
        assert!(matches!(&second.parts[3], Part::Text(text) if text.text.is("T\nhttps://s\nr")));
        let Part::Media(pdf) = &parts[3] else {
            panic!("{parts:?}")
        };
        assert!(pdf.cite && pdf.kind == MediaKind::Document && pdf.name.as_ref().unwrap().is("D"));
        assert!(
            matches!(&parts[4], Part::Media(Media { source: Source::Text(text), .. }) if text.is("p\n\nq"))
        );
        assert!(
            matches!(&parts[5], Part::Media(Media { source: Source::File { id }, .. }) if id.is("file_1"))
        );
        assert_eq!(parts.len(), 7);
    });
}

#[test]
fn a_picture_without_data_is_refused() {
    let blocks = json!([{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": ""}}]);
    assert_eq!(
        param(&saying("user", blocks)),
        "messages[0].content[0].source.data"
    );
}

#[test]
fn all_blocks_of_the_assistant_are_read_in_their_order() {
    let blocks = json!([
        {"type": "thinking", "thinking": "Hm", "signature": "AB="},
        {"type": "redacted_thinking", "data": "CD="},
        {"type": "text", "text": "a", "citations": [{"type": "web_search_result_location", "url": "u", "cited_text": "c"}]},
        {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {"query": "q"}},
        {"type": "web_search_tool_result", "tool_use_id": "s1", "content": [{"type": "web_search_result", "url": "https://b", "title": "B"}]},
        {"type": "tool_use", "id": "t1", "name": "f", "input": {"n": 12345678901234567890u64}},
        {"type": "tool_use", "id": "t2", "name": "g"},
        {"type": "compaction", "content": "S"}
    ]);
    parts("assistant", blocks, |parts, _| {
        let kinds: Vec<_> = parts
            .iter()
            .map(|part| match part {
                Part::Reasoning(thought) => match &thought.opaque {
                    Some(opaque) => format!("{:?} {}", opaque.kind, thought.text.plain()),
                    None => "unsigned".into(),
                },
                Part::Text(text) => format!("text {}", text.text.plain()),
                Part::Hosted(hosted) => format!("hosted {}", hosted.native.len()),
                Part::Call(call) => format!("call {:?}", call.arguments),
                other => format!("{other:?}"),
            })
            .collect();
        assert_eq!(
            kinds,
            [
                "AnthropicSignature Hm",
                "AnthropicRedacted ",
                "text a",
                "hosted 2",
                r#"call Object(Raw("{\"n\":12345678901234567890}"))"#,
                r#"call Object(Raw("{}"))"#,
                "text Summary of the earlier conversation: S",
            ]
        );
    });
}

#[test]
fn envelopes_are_opened_and_signatures_of_calls_go_back_to_them() {
    let sealed = |kind, data: &'static str| {
        let opaque = Opaque {
            kind,
            data: Str::new(data),
            model: None,
            account: Some(Str::new("acc")),
        };
        envelope::outward(&opaque, &[], None).to_plain_string()
    };
    let blocks = json!([
        {"type": "thinking", "thinking": "sum", "signature": sealed(OpaqueKind::OpenAiEncrypted, "gAAA")},
        {"type": "thinking", "thinking": "plain", "signature": sealed(OpaqueKind::Unsigned, "")},
        {"type": "redacted_thinking", "data": sealed(OpaqueKind::GeminiSignature, "c2ln")},
        {"type": "tool_use", "id": "t1", "name": "f", "input": {}},
        {"type": "tool_use", "id": "t2", "name": "f", "input": {}}
    ]);
    parts("assistant", blocks, |parts, _| {
        assert_eq!(parts.len(), 4);
        let Part::Reasoning(first) = &parts[0] else {
            panic!("{parts:?}")
        };
        assert!(first.text.is_empty() && first.summary[0].is("sum"));
        assert!(
            first
                .opaque
                .as_ref()
                .unwrap()
                .account
                .as_ref()
                .unwrap()
                .is("acc")
        );
        let Part::Call(call) = &parts[2] else {
            panic!("{parts:?}")
        };
        assert!(call.opaque.as_ref().unwrap().data.is("c2ln"));
        assert!(matches!(&parts[3], Part::Call(call) if call.opaque.is_none()));
    });
}

#[test]
fn tools_are_sorted_by_what_others_can_say() {
    let body = json!({"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "a"}],
        "mcp_servers": [{"type": "url", "url": "https://x", "name": "x"}],
        "tools": [
            {"name": "f", "description": "d", "input_schema": {"type": "object", "properties": {"z": {}, "a": {}}}, "strict": true, "cache_control": {"type": "ephemeral"}},
            {"type": "web_search_20250305", "name": "web_search", "max_uses": 3, "allowed_domains": ["a.example"], "user_location": {"type": "approximate", "city": "B"}},
            {"type": "web_fetch_20250910", "name": "web_fetch"},
            {"type": "code_execution_20250825", "name": "code_execution"},
            {"type": "tool_search_tool_regex_20251119", "name": "tool_search_tool_regex"},
            {"type": "bash_20250124", "name": "bash"},
            {"type": "memory_20250818", "name": "memory"},
            {"type": "custom", "name": "g", "defer_loading": true, "input_examples": [{}]}],
        "tool_choice": {"type": "tool", "name": "web_search", "disable_parallel_tool_use": true}});
    read(&body, |request, notes| {
        let kinds: Vec<_> = request
            .tools
            .iter()
            .map(|tool| match tool {
                Tool::Function(function) => function.name.to_plain_string(),
                Tool::Hosted(tool) => format!("{} {:?}", tool.path, std::mem::discriminant(&tool.kind) == std::mem::discriminant(&HostedToolKind::Bound)),
                Tool::Custom { .. } => "custom".into(),
            })
            .collect();
        assert_eq!(
            kinds,
            ["f", "tools[1] false", "tools[2] false", "tools[3] false", "tools[4] false", "tools[5] true", "tools[6] true", "g", "mcp_servers[0] true"]
        );
        let Tool::Function(function) = &request.tools[0] else { panic!() };
        assert_eq!(function.schema.as_ref().unwrap().as_str(), r#"{"type":"object","properties":{"z":{},"a":{}}}"#);
        assert!(matches!(&request.tool_choice, Some(ToolChoice::Hosted(name)) if name.is("web_search_20250305")));
        assert_eq!(request.parallel, Some(false));
        assert_eq!(header(notes), "dropped:tools[7].input_examples");
    })
    .unwrap();
}

#[test]
fn orders_about_thinking_format_and_service_are_read() {
    let mut body = with(
        "thinking",
        json!({"type": "adaptive", "display": "omitted"}),
    );
    body["output_config"] = json!({"effort": "max", "task_budget": {}, "format": {"type": "json_schema", "schema": {"type": "object"}}});
    body["speed"] = json!("fast");
    body["metadata"] = json!({"user_id": "{\"device\":1}"});
    body["cache_control"] = json!({"type": "ephemeral", "ttl": "1h"});
    body["context_management"] = json!({"edits": []});
    read(&body, |request, notes| {
        let wanted = Reasoning {
            mode: ReasoningMode::Adaptive,
            effort: Some(Effort::Max),
            budget: None,
            display: Display::Omit,
        };
        assert_eq!(request.reasoning, Some(wanted));
        assert!(matches!(request.format, Format::Schema { .. }));
        assert_eq!(request.service, Some(Service::Priority));
        assert!(request.end_user.unwrap().is("{\"device\":1}"));
        assert_eq!(request.cache.auto, Some(Lifetime::Long));
        assert_eq!(
            header(notes),
            "dropped:context_management;dropped:output_config.task_budget"
        );
    })
    .unwrap();
    let legacy = with(
        "output_format",
        json!({"type": "json_schema", "schema": {}}),
    );
    read(&legacy, |request, _| {
        assert!(matches!(request.format, Format::Schema { .. }))
    })
    .unwrap();
}

// Writing.

/// A request of a chat client that says "hi".
fn hello() -> Request<'static> {
    let mut request = Request {
        model: Str::new("alias"),
        origin: Protocol::Chat,
        stream: false,
        include_usage: false,
        system: Vec::new(),
        turns: Vec::new(),
        tools: Vec::new(),
        tool_choice: None,
        parallel: None,
        sampling: Default::default(),
        reasoning: None,
        format: Format::Text,
        verbosity: None,
        image_output: false,
        web_search: None,
        max_tool_calls: None,
        service: None,
        cache: Default::default(),
        end_user: None,
        metadata: None,
        state: Default::default(),
        legacy_functions: false,
        custom_tools: false,
    };
    request.turns.push(turn(Role::User, vec![said("hi")]));
    request
}

fn turn(role: Role, parts: Vec<Part<'static>>) -> Turn<'static> {
    Turn { role, parts, at: 0 }
}

fn said(text: &'static str) -> Part<'static> {
    Part::Text(Text::new(Str::new(text)))
}

fn call(id: &'static str, arguments: &'static str) -> Part<'static> {
    Part::Call(Call {
        id: Str::new(id),
        name: Str::new("f"),
        namespace: None,
        arguments: Arguments::Text(Str::new(arguments)),
        opaque: None,
        cache: None,
    })
}

fn result(id: &'static str, parts: Vec<Part<'static>>) -> Part<'static> {
    Part::Result(ToolResult {
        id: Str::new(id),
        name: None,
        parts,
        is_error: false,
        custom: false,
        cache: None,
    })
}

fn function(name: &'static str) -> Tool<'static> {
    Tool::Function(Function {
        name: Str::new(name),
        namespace: None,
        description: None,
        schema: None,
        strict: None,
        cache: None,
    })
}

fn digits(text: &'static str) -> Option<Digits<'static>> {
    let value = text.parse().unwrap();
    Some(Digits { text, value })
}

const NEW: &str = "claude-opus-4-8";
const OLD: &str = "claude-sonnet-4-5";

fn try_writing(request: &Request<'_>, model: &str) -> Result<(Json, Notes, Fixups), Invalid> {
    let capabilities = Capabilities::of(Protocol::Messages, "api.anthropic.com", model);
    let target = Target {
        protocol: Protocol::Messages,
        model,
        capabilities: &capabilities,
        account: "account",
        stream: false,
    };
    let mut notes = Notes::new();
    let encoded = encode(request, &target, &mut notes)?;
    let body = serde_json::from_slice(&encoded.body).unwrap();
    Ok((body, notes, encoded.fixups))
}

fn written(request: &Request<'_>, model: &str) -> (Json, String) {
    let (body, notes, _) = try_writing(request, model).unwrap();
    (body, header(&notes))
}

#[test]
fn a_plain_question_is_a_plain_request() {
    let (body, notes) = written(&hello(), NEW);
    assert_eq!(
        body,
        json!({"model": NEW, "max_tokens": 32000,
            "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]})
    );
    assert_eq!(notes, "");
    let (body, _) = written(&hello(), "some-model");
    assert_eq!(body["max_tokens"], 16384);
}

#[test]
fn results_come_first_in_the_order_of_their_calls_and_odd_ids_fit() {
    let mut request = hello();
    request.turns.push(turn(
        Role::Assistant,
        vec![
            call("functions.Web:3", ""),
            call("b", "[1]"),
            call("c", "{\"x\":"),
        ],
    ));
    request.turns.push(turn(
        Role::User,
        vec![
            said("more"),
            result("c", vec![said("3")]),
            result("b", vec![said("2"), said("2b")]),
            result("functions.Web:3", Vec::new()),
        ],
    ));
    let (body, notes) = written(&request, NEW);
    let calls = body["messages"][1]["content"].as_array().unwrap();
    let id = calls[0]["id"].as_str().unwrap();
    assert!(id.starts_with("call_") && id.len() == 32, "{id}");
    let inputs: Vec<_> = calls.iter().map(|call| call["input"].clone()).collect();
    assert_eq!(
        inputs,
        [json!({}), json!({"value": [1]}), json!({"_raw": "{\"x\":"})]
    );
    let user = body["messages"][2]["content"].as_array().unwrap();
    assert_eq!(user[0], json!({"type": "tool_result", "tool_use_id": id}));
    assert_eq!(
        user[1]["content"],
        json!([{"type": "text", "text": "2"}, {"type": "text", "text": "2b"}])
    );
    assert_eq!(user[2]["content"], "3");
    assert_eq!(user[3]["text"], "more");
    assert_eq!(notes, "coerced:tool_call_arguments");
    // Calls in the conversation of a request that has no tools.
    assert_eq!(body["tools"][0]["name"], "f");
    assert_eq!(body["tool_choice"], json!({"type": "none"}));
}

#[test]
fn sampling_goes_as_far_as_the_model_takes_it() {
    let mut request = hello();
    request.sampling.temperature = digits("1.7");
    request.sampling.top_k = Some(40);
    request.sampling.frequency_penalty = digits("0");
    request.sampling.seed = digits("5");
    let (body, notes) = written(&request, OLD);
    assert_eq!(
        (&body["temperature"], &body["top_k"]),
        (&json!(1), &json!(40))
    );
    assert_eq!(notes, "dropped:seed;coerced:temperature=1.7>1");
    let (body, notes) = written(&request, NEW);
    assert!(body.get("temperature").is_none() && body.get("top_k").is_none());
    assert_eq!(notes, "dropped:seed;dropped:temperature;dropped:top_k");
    request.sampling = Default::default();
    request.sampling.temperature = digits("0");
    request.sampling.top_p = digits("0.9");
    let (body, notes) = written(&request, OLD);
    assert_eq!(body["temperature"], 0);
    assert_eq!(notes, "dropped:top_p");
    let (body, notes) = written(&request, "some-model");
    assert_eq!((&body["top_p"], notes.as_str()), (&json!(0.9), ""));
}

#[test]
fn stop_texts_of_white_space_are_the_gateways_affair() {
    let mut request = hello();
    request.sampling.stop = ["\n", "END"].map(Str::new).into();
    let (body, notes, fixups) = try_writing(&request, NEW).unwrap();
    assert_eq!(body["stop_sequences"], json!(["END"]));
    assert_eq!(fixups.stop, ["\n"]);
    assert_eq!(header(&notes), "emulated:stop");
}

#[test]
fn what_would_be_another_answer_is_refused() {
    let mut request = hello();
    request.sampling.n = Some(2);
    let refused = try_writing(&request, NEW).unwrap_err();
    assert_eq!(
        (refused.class, refused.param.as_deref()),
        (ErrorClass::Unsupported, Some("n"))
    );
    request.sampling.n = Some(1);
    assert!(try_writing(&request, NEW).is_ok());
    request.turns.clear();
    assert_eq!(
        try_writing(&request, NEW).unwrap_err().param.as_deref(),
        Some("messages")
    );
}

fn thinking(effort: Option<Effort>, budget: Option<i64>) -> Option<Reasoning> {
    Some(Reasoning {
        effort,
        budget,
        ..Reasoning::default()
    })
}

#[test]
fn effort_becomes_what_the_model_knows() {
    let mut request = hello();
    request.reasoning = thinking(Some(Effort::High), None);
    let (body, notes) = written(&request, NEW);
    assert_eq!(
        body["thinking"],
        json!({"type": "adaptive", "display": "summarized"})
    );
    assert_eq!(
        (&body["output_config"], notes.as_str()),
        (&json!({"effort": "high"}), "")
    );
    let (body, _) = written(&request, OLD);
    assert_eq!(
        body["thinking"],
        json!({"type": "enabled", "budget_tokens": 24576})
    );
    request.reasoning = thinking(Some(Effort::Minimal), None);
    let (body, notes) = written(&request, NEW);
    assert_eq!(body["output_config"], json!({"effort": "low"}));
    assert_eq!(notes, "coerced:reasoning_effort=minimal>low");
    let (body, notes) = written(&request, "some-model");
    assert!(body.get("thinking").is_none());
    assert_eq!(notes, "dropped:reasoning_effort");
    request.reasoning = thinking(Some(Effort::None), None);
    assert_eq!(
        written(&request, OLD).0["thinking"],
        json!({"type": "disabled"})
    );
}

#[test]
fn a_budget_leaves_room_for_the_answer() {
    let mut request = hello();
    request.reasoning = thinking(None, Some(5000));
    request.sampling.max_output = Some(4000);
    let (body, notes) = written(&request, OLD);
    assert_eq!(body["thinking"]["budget_tokens"], 2976);
    assert_eq!(body["max_tokens"], 4000);
    assert_eq!(notes, "coerced:reasoning.max_tokens=5000>2976");
    request.sampling.max_output = Some(2000);
    let (body, notes) = written(&request, OLD);
    assert_eq!(body["thinking"], json!({"type": "disabled"}));
    assert_eq!(notes, "dropped:reasoning.max_tokens");
    // A model without budgets gets the effort that is nearest.
    let (body, notes) = written(&request, NEW);
    assert_eq!(body["output_config"]["effort"], "medium");
    assert_eq!(notes, "coerced:reasoning.max_tokens>medium");
}

#[test]
fn a_forced_tool_goes_before_thinking() {
    let mut request = hello();
    request.tools = vec![function("f")];
    request.tool_choice = Some(ToolChoice::Required);
    request.reasoning = thinking(Some(Effort::High), None);
    let (body, notes) = written(&request, OLD);
    assert_eq!(body["thinking"], json!({"type": "disabled"}));
    assert_eq!(body["tool_choice"], json!({"type": "any"}));
    assert_eq!(notes, "dropped:reasoning_effort");
}

#[test]
fn calls_without_signed_thinking_before_them_switch_thinking_off() {
    let signed = Part::Reasoning(Thought {
        text: Str::new("Hm"),
        opaque: Some(Opaque {
            kind: OpaqueKind::AnthropicSignature,
            data: Str::new("AB="),
            model: None,
            account: None,
        }),
        ..Thought::default()
    });
    let mut request = hello();
    request.reasoning = thinking(Some(Effort::Low), None);
    request.tools = vec![function("f")];
    request
        .turns
        .push(turn(Role::Assistant, vec![call("a", "")]));
    request
        .turns
        .push(turn(Role::User, vec![result("a", vec![said("1")])]));
    let (body, notes) = written(&request, OLD);
    assert_eq!(body["thinking"], json!({"type": "disabled"}));
    assert_eq!(notes, "emulated:thinking_disabled_unsigned_history");
    assert_eq!(written(&request, NEW).0["thinking"]["type"], "adaptive");
    // An exchange that is over does not count.
    request
        .turns
        .push(turn(Role::Assistant, vec![said("done")]));
    request.turns.push(turn(Role::User, vec![said("again")]));
    assert_eq!(written(&request, OLD).0["thinking"]["type"], "enabled");
    request.turns.truncate(1);
    request
        .turns
        .push(turn(Role::Assistant, vec![signed, call("a", "")]));
    request
        .turns
        .push(turn(Role::User, vec![result("a", vec![said("1")])]));
    let (body, _) = written(&request, OLD);
    assert_eq!(body["thinking"]["type"], "enabled");
    assert_eq!(
        body["messages"][1]["content"][0],
        json!({"type": "thinking", "thinking": "Hm", "signature": "AB="})
    );
}

#[test]
fn reasoning_of_others_stays_out_with_its_text() {
    let foreign = Part::Reasoning(Thought {
        text: Str::new("secret"),
        ..Thought::default()
    });
    let mut request = hello();
    request.turns.push(turn(Role::Assistant, vec![foreign]));
    request.turns.push(turn(Role::User, vec![said("go")]));
    let (body, notes, _) = try_writing(&request, NEW).unwrap();
    assert!(!body.to_string().contains("secret"));
    assert_eq!(body["messages"].as_array().unwrap().len(), 1, "{body}");
    assert!(notes.iter().any(|note| note.what.ends_with(".reasoning")));
}

#[test]
fn a_schema_binds_the_answer_or_is_ordered() {
    let mut request = hello();
    request.format = Format::Schema {
        name: None,
        description: None,
        schema: Raw::parse(
            r#"{"type":"object","properties":{"z":{"type":"string"}},"required":["z"]}"#,
        )
        .unwrap(),
        strict: Some(true),
        bare_enum: false,
    };
    let (body, _, fixups) = try_writing(&request, NEW).unwrap();
    let format = &body["output_config"]["format"];
    assert_eq!(format["type"], "json_schema");
    assert_eq!(format["schema"]["additionalProperties"], false);
    assert!(!fixups.fenced);
    let (body, notes, fixups) = try_writing(&request, "some-model").unwrap();
    let order = body["system"][0]["text"].as_str().unwrap();
    assert!(
        order.ends_with(
            r#"{"type":"object","properties":{"z":{"type":"string"}},"required":["z"]}"#
        )
    );
    assert!(fixups.fenced);
    assert_eq!(header(&notes), "emulated:response_format");
    request.format = Format::JsonObject;
    assert!(try_writing(&request, NEW).unwrap().2.fenced);
}

/// One tool of each kind.
fn tools() -> Vec<Tool<'static>> {
    vec![
        Tool::Function(Function {
            name: Str::new("read file"),
            namespace: Some(Str::new("fs")),
            description: Some(Str::new("d")),
            schema: Some(Raw::parse(r#"{"type":"object","properties":{}}"#).unwrap()),
            strict: Some(true),
            cache: None,
        }),
        function("plain"),
        Tool::Custom {
            name: Str::new("patch"),
            description: Some(Str::new("Applies.")),
            format: Some(
                Raw::parse(r#"{"type":"grammar","syntax":"lark","definition":"x"}"#).unwrap(),
            ),
        },
        Tool::Hosted(HostedTool {
            kind: HostedToolKind::WebSearch(WebSearch {
                allowed: vec![Str::new("a.example")],
                location: Some(
                    Raw::parse(r#"{"type":"approximate","approximate":{"city":"B"}}"#).unwrap(),
                ),
                ..WebSearch::default()
            }),
            name: Str::new("web_search"),
            path: "tools[3]".into(),
        }),
    ]
}

#[test]
fn tools_and_choices_take_anthropics_form() {
    let mut request = hello();
    request.tools = tools();
    request.max_tool_calls = Some(4);
    request.tool_choice = Some(ToolChoice::Named(Str::new("read file")));
    request.parallel = Some(false);
    let (body, notes, fixups) = try_writing(&request, NEW).unwrap();
    assert_eq!(header(&notes), "");
    let name = body["tools"][0]["name"].as_str().unwrap();
    assert!(name.starts_with("fs__read_file_"), "{name}");
    assert_eq!(fixups.names.original(name).unwrap().name, "read file");
    assert_eq!(body["tools"][0]["strict"], true);
    assert_eq!(
        body["tools"][1],
        json!({"name": "plain", "input_schema": {"type": "object", "properties": {}}})
    );
    assert_eq!(
        body["tools"][2]["input_schema"]["required"],
        json!(["input"])
    );
    assert!(
        body["tools"][2]["description"]
            .as_str()
            .unwrap()
            .contains("\"lark\"")
    );
    assert_eq!(fixups.custom, ["patch"]);
    assert_eq!(
        body["tools"][3],
        json!({"type": "web_search_20250305", "name": "web_search", "allowed_domains": ["a.example"],
            "max_uses": 4, "user_location": {"type": "approximate", "city": "B"}})
    );
    assert_eq!(
        body["tool_choice"],
        json!({"type": "tool", "name": name, "disable_parallel_tool_use": true})
    );
    request.tool_choice = Some(ToolChoice::Allowed {
        required: false,
        names: vec![Str::new("plain")],
    });
    request.parallel = None;
    let (body, _) = written(&request, NEW);
    assert_eq!(body["tools"].as_array().unwrap().len(), 1);
    assert_eq!(body["tool_choice"], json!({"type": "auto"}));
}

#[test]
fn a_choice_without_tools_is_left_out() {
    let mut request = hello();
    request.tool_choice = Some(ToolChoice::Required);
    request.parallel = Some(false);
    let (body, _) = written(&request, NEW);
    assert!(body.get("tool_choice").is_none() && body.get("tools").is_none());
    request.tools = vec![function("f")];
    request.tool_choice = None;
    let (body, _) = written(&request, NEW);
    assert_eq!(
        body["tool_choice"],
        json!({"type": "auto", "disable_parallel_tool_use": true})
    );
}

#[test]
fn tools_of_another_protocol_are_dropped_or_refused() {
    let hosted = |kind, name: &'static str| {
        Tool::Hosted(HostedTool {
            kind,
            name: Str::new(name),
            path: "tools[1]".into(),
        })
    };
    let mut request = hello();
    request.origin = Protocol::Responses;
    request.tools = vec![
        function("f"),
        hosted(HostedToolKind::Droppable, "file_search"),
    ];
    let (body, notes) = written(&request, NEW);
    assert_eq!(body["tools"].as_array().unwrap().len(), 1);
    assert_eq!(notes, "dropped:file_search");
    request.tool_choice = Some(ToolChoice::Hosted(Str::new("file_search")));
    assert_eq!(
        try_writing(&request, NEW).unwrap_err().param.as_deref(),
        Some("tools[1]")
    );
    request.tool_choice = None;
    request.tools[1] = hosted(HostedToolKind::Bound, "computer_use_preview");
    let refused = try_writing(&request, NEW).unwrap_err();
    assert_eq!(refused.code, Some("unsupported_tool"));
    assert_eq!(
        refused.message,
        "Tool \"computer_use_preview\" is specific to the responses protocol and the model \"alias\" is served over messages. Use a model on a responses upstream, or remove the tool."
    );
}

fn medium(kind: MediaKind, source: Source<'static>) -> Part<'static> {
    Part::Media(Media {
        kind,
        source,
        name: Some(Str::new("n.pdf")),
        context: None,
        detail: None,
        cite: false,
        cache: None,
        path: "messages[0].content[0]".into(),
    })
}

fn inline(mime: &'static str, data: &'static str) -> Source<'static> {
    Source::Inline {
        mime: mime.into(),
        data: Str::new(data),
    }
}

fn url(url: &'static str) -> Source<'static> {
    Source::Url {
        url: Str::new(url),
        mime: None,
    }
}

#[test]
fn media_take_the_forms_that_anthropic_reads() {
    let mut request = hello();
    request.turns[0].parts = vec![
        medium(MediaKind::Image, inline("image/png", "iVBORw0KGgo=")),
        medium(MediaKind::Image, url("https://a.example/i.png")),
        medium(MediaKind::Document, inline("application/pdf", "JVBERi0=")),
        medium(MediaKind::Document, inline("text/plain", "aGVsbG8=")),
        medium(MediaKind::Document, Source::Text(Str::new("t"))),
    ];
    let (body, _) = written(&request, NEW);
    let blocks = body["messages"][0]["content"].as_array().unwrap();
    assert_eq!(
        blocks[0],
        json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}})
    );
    assert_eq!(
        blocks[1]["source"],
        json!({"type": "url", "url": "https://a.example/i.png"})
    );
    assert_eq!(blocks[2]["title"], "n.pdf");
    assert_eq!(
        blocks[3]["source"],
        json!({"type": "text", "media_type": "text/plain", "data": "hello"})
    );
    assert_eq!(blocks[4]["source"]["data"], "t");
}

#[test]
fn media_that_anthropic_does_not_read_are_refused() {
    let mut request = hello();
    for (kind, source) in [
        (MediaKind::Image, inline("image/bmp", "Qk0=")),
        (MediaKind::Image, inline("image/png", "")),
        (MediaKind::Image, url("http://a.example/i.png")),
        (
            MediaKind::Document,
            Source::File {
                id: Str::new("file-1"),
            },
        ),
        (MediaKind::Document, inline("application/zip", "UEs=")),
        (MediaKind::Audio, inline("audio/wav", "UklGRg==")),
    ] {
        request.turns[0].parts = vec![medium(kind, source)];
        let refused = try_writing(&request, NEW).unwrap_err();
        assert_eq!(refused.param.as_deref(), Some("messages[0].content[0]"));
        assert_eq!(refused.code, Some("unsupported_content"));
    }
}

#[test]
fn the_last_four_cache_marks_stay_with_long_ones_first() {
    let mut request = hello();
    request.system = vec![SystemBlock {
        text: Str::new("s"),
        cache: Some(Lifetime::Long),
    }];
    let marked = |lifetime| {
        Part::Text(Text {
            cache: Some(lifetime),
            ..Text::new(Str::new("a"))
        })
    };
    request.turns[0].parts = [
        Lifetime::Long,
        Lifetime::Long,
        Lifetime::Short,
        Lifetime::Long,
    ]
    .map(marked)
    .into();
    let (body, _) = written(&request, NEW);
    assert!(body["system"][0].get("cache_control").is_none());
    let blocks = body["messages"][0]["content"].as_array().unwrap();
    let marks: Vec<_> = blocks
        .iter()
        .map(|block| block["cache_control"].clone())
        .collect();
    let (long, short) = (
        json!({"type": "ephemeral", "ttl": "1h"}),
        json!({"type": "ephemeral"}),
    );
    assert_eq!(marks, [long.clone(), long, short.clone(), short]);
    assert!(body.get("cache_control").is_none());
}

#[test]
fn an_agent_that_can_not_ask_for_caching_gets_it() {
    let mut request = hello();
    request.tools = vec![function("f")];
    let (body, notes) = written(&request, NEW);
    assert_eq!(body["cache_control"], json!({"type": "ephemeral"}));
    assert_eq!(notes, "");
    let capabilities = Capabilities::of(Protocol::Messages, "elsewhere.example", NEW);
    assert!(!capabilities.auto_cache);
}

#[test]
fn service_and_user_are_told() {
    let mut request = hello();
    request.service = Some(Service::Standard);
    request.end_user = Some(Str::new("u"));
    request.metadata = Some(Raw::EMPTY_OBJECT);
    let (body, notes) = written(&request, NEW);
    assert_eq!(body["service_tier"], "standard_only");
    assert_eq!(body["metadata"], json!({"user_id": "u"}));
    assert_eq!(notes, "");
}

fn body() -> impl Strategy<Value = String> {
    let block = prop_oneof![
        Just(json!({"type": "text", "text": "a"})),
        Just(json!({"type": "text", "text": " "})),
        Just(json!({"type": "tool_use", "id": "t", "name": "n", "input": {"a": [1]}})),
        Just(json!({"type": "tool_use", "id": "t", "name": "n", "input": "x"})),
        Just(
            json!({"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "r"}]})
        ),
        Just(json!({"type": "thinking", "thinking": "t", "signature": "s"})),
        Just(json!({"type": "redacted_thinking", "data": "UExYMQ=="})),
        Just(json!({"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}})),
        Just(json!({"type": "web_search_tool_result", "tool_use_id": "s", "content": []})),
        Just(
            json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}})
        ),
        Just(json!({"type": "document", "source": {"type": "content", "content": []}})),
        Just(json!({"type": "search_result", "title": "t", "source": "s", "content": 5})),
    ];
    let message = (
        prop_oneof![Just("user"), Just("assistant"), Just("system")],
        proptest::collection::vec(block, 0..4),
    )
        .prop_map(|(role, content)| json!({"role": role, "content": content}));
    (
        proptest::collection::vec(message, 1..5),
        any::<prop::sample::Index>(),
        prop_oneof![3 => Just(String::new()), 1 => "[\\[\\]{}\":,a0]{1,2}"],
    )
        .prop_map(|(messages, at, text)| {
            let mut body = json!({"model": "m", "max_tokens": 9, "messages": messages, "system": [{"type": "text", "text": "s"}],
                "tools": [{"name": "n", "input_schema": {}}], "thinking": {"type": "enabled", "budget_tokens": 2000}})
            .to_string();
            let at = at.index(body.len() + 1);
            body.insert_str(at, &text);
            body
        })
}

proptest! {
    #[test]
    fn whatever_a_client_sends_becomes_a_valid_request_or_a_refusal(body in body()) {
        let mut tape = Tape::new();
        let Ok(root) = tape.parse(&body) else {
            return Ok(());
        };
        let Ok(request) = decode(root, &mut Notes::new()) else {
            return Ok(());
        };
        for model in [NEW, OLD, "some-model"] {
            let Ok((body, _, _)) = try_writing(&request, model) else {
                continue;
            };
            let messages = body["messages"].as_array().unwrap();
            prop_assert_eq!(&messages[0]["role"], "user");
            for pair in messages.windows(2) {
                prop_assert_ne!(&pair[0]["role"], &pair[1]["role"]);
            }
            for message in messages {
                prop_assert!(!message["content"].as_array().unwrap().is_empty());
            }
        }
    }
}
