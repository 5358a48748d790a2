//! Requests, read and written.

use serde_json::{Value as Json, json};

use super::{decode, encode};
use crate::protocol::Protocol;
use crate::protocol::capabilities::Capabilities;
use crate::protocol::ir::{
    Arguments, Call, Display, Effort, Format, Function, Hosted, HostedKind, HostedTool,
    HostedToolKind, Invalid, Media, MediaKind, Opaque, OpaqueKind, Part, Reasoning, ReasoningMode,
    Request, Role, Service, Source, SystemBlock, Text, Thought, Tool, ToolChoice, ToolResult, Turn,
    WebSearch,
};
use crate::protocol::json::{Raw, Str, Tape};
use crate::protocol::notes::Notes;
use crate::protocol::translate::Target;

fn with<T>(body: &str, look: impl FnOnce(Result<Request<'_>, Invalid>, Notes) -> T) -> T {
    let mut tape = Tape::new();
    let mut notes = Notes::new();
    let root = tape.parse(body).unwrap();
    let request = decode(root, &mut notes);
    look(request, notes)
}

fn input<T>(items: &str, look: impl FnOnce(Request<'_>) -> T) -> T {
    let body = format!(r#"{{"model":"m","input":{items}}}"#);
    with(&body, |request, _| look(request.unwrap()))
}

fn refused(items: &str) -> Invalid {
    let body = format!(r#"{{"model":"m","input":{items}}}"#);
    with(&body, |request, _| request.unwrap_err())
}

fn text_of<'p>(part: &'p Part<'_>) -> std::borrow::Cow<'p, str> {
    match part {
        Part::Text(text) => text.text.plain(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn all_fields_are_read() {
    let body = r#"{"model":"m\u0031","input":"hi","instructions":"be brief","stream":true,
        "temperature":0.70,"top_p":1,"max_output_tokens":100.0,"parallel_tool_calls":false,
        "tool_choice":"required","reasoning":{"effort":"high","summary":"auto"},
        "text":{"format":{"type":"json_schema","name":"n","schema":{"type":"object"},"strict":true},"verbosity":"low"},
        "service_tier":"flex","user":"u","safety_identifier":"s","metadata":{"a":"b"},"prompt_cache_key":"k",
        "store":false,"include":["reasoning.encrypted_content","message.output_text.logprobs"],"top_logprobs":3,
        "max_tool_calls":7,"truncation":"disabled","background":false,"stream_options":{"include_obfuscation":false},
        "tools":null,"previous_response_id":null,"conversation":null}"#;
    with(body, |request, notes| {
        let request = request.unwrap();
        assert!(request.model.is("m1") && request.stream && request.custom_tools);
        assert!(request.system[0].text.is("be brief"));
        assert_eq!(request.sampling.temperature.unwrap().text, "0.70");
        assert_eq!(request.sampling.max_output, Some(100));
        assert_eq!(request.parallel, Some(false));
        assert!(matches!(request.tool_choice, Some(ToolChoice::Required)));
        let reasoning = request.reasoning.unwrap();
        assert_eq!(reasoning.effort, Some(Effort::High));
        assert_eq!(reasoning.display, Display::Summary);
        let Format::Schema { name, strict, .. } = request.format else {
            panic!()
        };
        assert!(name.unwrap().is("n") && strict == Some(true));
        assert!(request.verbosity.unwrap().is("low"));
        assert_eq!(request.service, Some(Service::Flex));
        assert!(request.end_user.unwrap().is("s") && request.cache.key.unwrap().is("k"));
        assert_eq!(request.state.store, Some(false));
        assert!(request.sampling.logprobs && request.sampling.top_logprobs == Some(3));
        assert_eq!(request.max_tool_calls, Some(7));
        assert_eq!(request.turns.len(), 1);
        assert!(notes.is_empty(), "{notes:?}");
    });
}

#[test]
fn what_no_other_protocol_has_is_noted_or_refused() {
    let body = r#"{"model":"m","input":"x","foo":1,"truncation":"auto","context_management":[{"type":"compaction"}],
        "moderation":{"model":"o"},"prompt_cache_retention":"24h","reasoning":{"context":"auto","summary":null}}"#;
    with(body, |request, notes| {
        assert_eq!(request.unwrap().reasoning.unwrap().display, Display::Omit);
        assert_eq!(
            notes.header().unwrap(),
            "dropped:foo;dropped:truncation;dropped:context_management;dropped:moderation"
        );
    });
    for (member, param) in [
        (r#""background":true"#, "background"),
        (r#""conversation":"conv_1""#, "conversation"),
        (r#""prompt":{"id":"p"}"#, "prompt"),
        (r#""previous_response_id":"resp_x""#, "previous_response_id"),
        (
            r#""prompt_cache_options":{"prewarm":true}"#,
            "prompt_cache_options.prewarm",
        ),
        (r#""temperature":"hot""#, "temperature"),
        (r#""reasoning":{"effort":"huge"}"#, "reasoning.effort"),
        (r#""text":{"format":{"type":"xml"}}"#, "text.format.type"),
        (
            r#""text":{"format":{"type":"json_schema"}}"#,
            "text.format.schema",
        ),
        (r#""tool_choice":"maybe""#, "tool_choice"),
        (r#""tools":[{"name":"f"}]"#, "tools[0].type"),
        (r#""tools":[{"type":"function"}]"#, "tools[0].name"),
    ] {
        let body = format!(r#"{{"model":"m","input":"x",{member}}}"#);
        with(&body, |request, _| {
            let refusal = request.unwrap_err();
            assert_eq!(refusal.param.as_deref(), Some(param), "{member}");
        });
    }
    with(r#"{"model":"m"}"#, |request, _| {
        assert_eq!(request.unwrap_err().param.as_deref(), Some("input"));
    });
    with(
        r#"{"input":"x","previous_response_id":"resp_x"}"#,
        |request, _| {
            let refusal = request.unwrap_err();
            assert_eq!(refusal.code, Some("previous_response_not_found"));
            assert_eq!(
                refusal.message,
                "Previous response with id 'resp_x' not found."
            );
        },
    );
}

#[test]
fn neighbouring_items_of_the_assistant_are_one_turn() {
    let items = r#"[
        {"type":"message","role":"developer","content":"lead"},
        {"role":"user","content":[{"type":"input_text","text":"a"},{"type":"input_image","image_url":"https://x/i.png"}]},
        {"type":"reasoning","id":"rs_1","summary":[{"type":"summary_text","text":"hm"}],"encrypted_content":"blob"},
        {"type":"message","role":"assistant","phase":"commentary","content":[{"type":"output_text","text":"b","annotations":[]}]},
        {"type":"function_call","id":"fc_b","call_id":"call_a|fc_b","name":"f","arguments":"{\"x\":1}"},
        {"type":"custom_tool_call","call_id":"call_c","name":"patch","input":"*** \"raw\"\n"},
        {"type":"function_call_output","call_id":"call_a|fc_b","output":"one"},
        {"type":"custom_tool_call_output","call_id":"call_c","output":[{"type":"input_text","text":"two"}]},
        {"role":"system","content":"later"},
        {"role":"assistant","content":"done"}]"#;
    input(items, |request| {
        assert!(request.system[0].text.is("lead"));
        let roles: Vec<_> = request
            .turns
            .iter()
            .map(|turn| (turn.role, turn.at))
            .collect();
        assert_eq!(
            roles,
            [
                (Role::User, 1),
                (Role::Assistant, 2),
                (Role::User, 6),
                (Role::System, 8),
                (Role::Assistant, 9)
            ]
        );
        let assistant = &request.turns[1].parts;
        let Part::Reasoning(thought) = &assistant[0] else {
            panic!()
        };
        assert!(thought.summary[0].is("hm"));
        let opaque = thought.opaque.as_ref().unwrap();
        assert_eq!(opaque.kind, OpaqueKind::OpenAiEncrypted);
        let (Part::Call(call), Part::Call(patch)) = (&assistant[2], &assistant[3]) else {
            panic!()
        };
        assert!(call.id.is("call_a"));
        assert!(matches!(&call.arguments, Arguments::Text(text) if text.is("{\"x\":1}")));
        assert!(matches!(&patch.arguments, Arguments::Free(text) if text.is("*** \"raw\"\n")));
        let (Part::Result(one), Part::Result(two)) =
            (&request.turns[2].parts[0], &request.turns[2].parts[1])
        else {
            panic!()
        };
        assert!(one.id.is("call_a") && !one.custom && two.custom);
        assert_eq!(text_of(&two.parts[0]), "two");
    });
}

#[test]
fn tools_are_flattened_and_come_from_items_too() {
    let body = r#"{"model":"m","tools":[
            {"type":"namespace","name":"fs","description":"files","tools":[{"type":"function","name":"read","parameters":{"type":"object","properties":{"p":{}}},"strict":true}]},
            {"type":"function","name":"old","description":"first"},
            {"type":"web_search","filters":{"allowed_domains":["a.b"]},"search_context_size":"low","user_location":{"type":"approximate","city":"Bern"}},
            {"type":"tool_search"},{"type":"computer_use_preview"},{"type":"custom","name":"patch","format":{"type":"grammar","syntax":"lark","definition":"x"}}],
        "tool_choice":{"type":"allowed_tools","mode":"required","tools":[{"type":"function","name":"old"},{"type":"web_search"}]},
        "input":[{"role":"user","content":"x"},
            {"type":"additional_tools","role":"developer","tools":[{"type":"function","name":"old","description":"second"},{"type":"function","name":"new"}]},
            {"type":"tool_search_output","call_id":null,"execution":"server","status":"completed","tools":[{"type":"function","name":"found"}]},
            {"type":"function_call","call_id":"c","namespace":"fs","name":"read","arguments":"{}"}]}"#;
    with(body, |request, _| {
        let request = request.unwrap();
        let names: Vec<String> = request
            .tools
            .iter()
            .map(|tool| match tool {
                Tool::Function(f) => match &f.namespace {
                    Some(namespace) => format!("{}/{}", namespace.plain(), f.name.plain()),
                    None => f.name.to_plain_string(),
                },
                Tool::Custom { name, .. } => format!("custom {}", name.plain()),
                Tool::Hosted(hosted) => format!("{} at {}", hosted.name.plain(), hosted.path),
            })
            .collect();
        assert_eq!(
            names,
            [
                "fs/read",
                "old",
                "web_search at tools[2]",
                "tool_search at tools[3]",
                "computer_use_preview at tools[4]",
                "custom patch",
                "new",
                "found"
            ]
        );
        let Tool::Function(old) = &request.tools[1] else {
            panic!()
        };
        assert!(old.description.as_ref().unwrap().is("second"));
        let Tool::Hosted(HostedTool { kind, .. }) = &request.tools[2] else {
            panic!()
        };
        assert!(matches!(kind, HostedToolKind::WebSearch(search) if search.allowed[0].is("a.b")));
        let bound = |tool: &Tool<'_>| matches!(tool, Tool::Hosted(h) if matches!(h.kind, HostedToolKind::Bound));
        assert!(bound(&request.tools[4]) && !bound(&request.tools[3]));
        let Some(ToolChoice::Allowed { required, names }) = &request.tool_choice else {
            panic!()
        };
        assert!(*required && names[1].is("web_search"));
        let Part::Call(call) = &request.turns[1].parts[0] else {
            panic!()
        };
        assert!(call.namespace.as_ref().unwrap().is("fs"));
    });
}

#[test]
fn items_of_openai_alone_are_refused_by_name() {
    for kind in [
        "computer_call",
        "computer_call_output",
        "shell_call",
        "local_shell_call_output",
        "apply_patch_call",
        "mcp_approval_request",
        "program",
        "compaction_trigger",
        "brand_new_item",
    ] {
        let refusal = refused(&format!(r#"[{{"type":"{kind}"}}]"#));
        assert!(refusal.message.contains(kind), "{refusal:?}");
        assert_eq!(refusal.param.as_deref(), Some("input[0].type"));
    }
    let reference = refused(r#"[{"role":"user","content":"x"},{"id":"msg_1"}]"#);
    assert_eq!(reference.message, "Item with id 'msg_1' not found.");
    let compaction = refused(r#"[{"type":"compaction","encrypted_content":"gAAA"}]"#);
    assert_eq!(
        compaction.param.as_deref(),
        Some("input[0].encrypted_content")
    );
    for (items, param) in [
        (
            r#"[{"role":"user","content":[{"type":"input_text","text":"a"},{"type":"hologram"}]}]"#,
            "input[0].content[1].type",
        ),
        (r#"[{"role":"critic","content":"a"}]"#, "input[0].role"),
        (
            r#"[{"type":"function_call","name":"f","arguments":"{}"}]"#,
            "input[0].call_id",
        ),
        (
            r#"[{"type":"function_call","call_id":"c"}]"#,
            "input[0].name",
        ),
        (
            r#"[{"type":"function_call_output","output":"x"}]"#,
            "input[0].call_id",
        ),
        (
            r#"[{"role":"user","content":[{"type":"input_image"}]}]"#,
            "input[0].content[0]",
        ),
        (r#"[{}]"#, "input[0].type"),
        (r#"[3]"#, "input[0]"),
        (r#"{"role":"user"}"#, "input"),
    ] {
        assert_eq!(refused(items).param.as_deref(), Some(param), "{items}");
    }
}

#[test]
fn a_later_item_changes_effort_and_format() {
    let items = r#"[{"role":"user","content":"x"},{"type":"configuration_update","reasoning":{"effort":"low"}},
        {"type":"configuration_update","reasoning":{"effort":"xhigh"},"text":{"format":{"type":"json_object"}}}]"#;
    input(items, |request| {
        assert_eq!(request.reasoning.unwrap().effort, Some(Effort::XHigh));
        assert!(matches!(request.format, Format::JsonObject));
    });
}

#[test]
fn hosted_calls_of_the_history_are_kept_and_pictures_are_shown_by_the_user() {
    let items = r#"[{"role":"user","content":"draw"},
        {"type":"web_search_call","id":"ws_1","status":"completed","action":{"type":"search","query":"a \"b\"","sources":[{"type":"url","url":"u"}]}},
        {"type":"code_interpreter_call","id":"ci_1","code":"1+1","container_id":"c","status":"completed","outputs":[{"type":"logs","logs":"2"}]},
        {"type":"function_call","call_id":"c","name":"f","arguments":"{}"},
        {"type":"image_generation_call","id":"ig_1","status":"completed","result":"AAAA"},
        {"type":"function_call_output","call_id":"c","output":"r"},
        {"role":"assistant","content":"there"},
        {"type":"mcp_call","id":"m","server_label":"s","name":"n","arguments":"{}","output":"o"}]"#;
    input(items, |request| {
        let roles: Vec<_> = request.turns.iter().map(|turn| turn.role).collect();
        assert_eq!(
            roles,
            [
                Role::User,
                Role::Assistant,
                Role::User,
                Role::User,
                Role::Assistant
            ]
        );
        let parts = &request.turns[1].parts;
        let (Part::Hosted(search), Part::Hosted(code)) = (&parts[0], &parts[1]) else {
            panic!()
        };
        assert_eq!(
            search.input.as_ref().unwrap().as_str(),
            r#"{"query":"a \"b\""}"#
        );
        assert!(search.sources[0].url.is("u") && search.native.len() == 1);
        assert_eq!(code.kind, HostedKind::Code);
        assert!(code.output.as_ref().unwrap().is("2"));
        assert!(matches!(request.turns[2].parts[0], Part::Result(_)));
        assert!(matches!(request.turns[3].parts[1], Part::Media(_)));
        assert_eq!(
            text_of(&request.turns[4].parts[1]),
            "[called s.n with {}: o]"
        );
    });
}

#[test]
fn media_are_read_with_their_paths() {
    let items = r#"[{"role":"user","content":[
        {"type":"input_image","image_url":"data:image/webp;base64,AA AA","detail":"high","prompt_cache_breakpoint":{"mode":"explicit","ttl":"12h"}},
        {"type":"input_file","filename":"a.pdf","file_data":"data:application/pdf;base64,AAAA"},
        {"type":"input_file","file_url":"https://x/y.pdf"},
        {"type":"input_image","file_id":"file-1"}]}]"#;
    input(items, |request| {
        let media: Vec<&Media<'_>> = request.turns[0]
            .parts
            .iter()
            .map(|part| match part {
                Part::Media(media) => media,
                other => panic!("{other:?}"),
            })
            .collect();
        assert!(
            matches!(&media[0].source, Source::Inline { mime, data } if mime == "image/webp" && data.is("AAAA"))
        );
        assert!(media[0].detail.as_ref().unwrap().is("high") && media[0].cache.is_some());
        assert_eq!(media[1].kind, MediaKind::Document);
        assert!(matches!(&media[2].source, Source::Url { url, .. } if url.is("https://x/y.pdf")));
        assert!(matches!(&media[3].source, Source::File { .. }));
        assert_eq!(media[3].path, "input[0].content[3]");
    });
}

// ---- written ------------------------------------------------------------

fn empty<'a>(origin: Protocol) -> Request<'a> {
    with(r#"{"model":"alias","input":"x"}"#, |request, _| {
        let request = request.unwrap();
        Request {
            model: Str::new("alias"),
            origin,
            stream: false,
            include_usage: false,
            system: Vec::new(),
            turns: Vec::new(),
            tools: Vec::new(),
            tool_choice: None,
            parallel: None,
            sampling: crate::protocol::ir::Sampling::default(),
            reasoning: None,
            format: Format::Text,
            verbosity: None,
            image_output: request.image_output,
            web_search: None,
            max_tool_calls: None,
            service: None,
            cache: crate::protocol::ir::Cache::default(),
            end_user: None,
            metadata: None,
            state: crate::protocol::ir::State::default(),
            legacy_functions: false,
            custom_tools: false,
        }
    })
}

fn said<'a>(role: Role, parts: Vec<Part<'a>>) -> Turn<'a> {
    Turn { role, parts, at: 0 }
}

fn text(text: &str) -> Part<'_> {
    Part::Text(Text::new(Str::new(text)))
}

fn able() -> Capabilities {
    let mut known = Capabilities::of(Protocol::Responses, "api.openai.com", "gpt-5.2");
    known.thinking.effort = true;
    known.efforts = vec![Effort::Low, Effort::Medium, Effort::High];
    known
}

fn encoded(request: &Request<'_>, capabilities: &Capabilities) -> Result<(Json, Notes), Invalid> {
    let target = Target {
        protocol: Protocol::Responses,
        model: "gpt-5.2",
        capabilities,
        account: "acct",
        stream: true,
    };
    let mut notes = Notes::new();
    let encoded = encode(request, &target, &mut notes)?;
    Ok((serde_json::from_slice(&encoded.body).unwrap(), notes))
}

#[test]
fn nothing_is_kept_there_and_reasoning_comes_back_encrypted() {
    let mut request = empty(Protocol::Messages);
    request.system = vec![
        SystemBlock {
            text: Str::new("x-anthropic-billing-header: cc=1"),
            cache: None,
        },
        SystemBlock {
            text: Str::new("a\"b"),
            cache: None,
        },
        SystemBlock {
            text: Str::new("c"),
            cache: None,
        },
    ];
    request.turns = vec![said(Role::User, vec![text("hi")])];
    request.reasoning = Some(Reasoning {
        mode: ReasoningMode::Adaptive,
        effort: Some(Effort::Max),
        ..Reasoning::default()
    });
    request.format = Format::Schema {
        name: None,
        description: None,
        schema: Raw::parse(r#"{"type":"object","b":1,"a":2}"#).unwrap(),
        strict: None,
        bare_enum: false,
    };
    request.sampling.max_output = Some(3);
    request.sampling.stop = vec![Str::new("END")];
    request.sampling.top_k = Some(4);
    request.end_user = Some(Str::new("{\"device_id\":\"x\"}"));
    let (body, notes) = encoded(&request, &able()).unwrap();
    assert_eq!(
        body["input"],
        json!([{"type":"message","role":"user","content":[{"type":"input_text","text":"hi"}]}])
    );
    assert_eq!(body["instructions"], "a\"b\n\nc");
    assert_eq!(body["model"], "gpt-5.2");
    assert_eq!(
        (&body["store"], &body["stream"]),
        (&false.into(), &true.into())
    );
    assert_eq!(body["include"], json!(["reasoning.encrypted_content"]));
    assert_eq!(body["reasoning"], json!({"effort":"high","summary":"auto"}));
    assert_eq!(body["text"]["format"]["name"], "response");
    assert_eq!(body["text"]["format"]["strict"], false);
    assert_eq!(body["max_output_tokens"], 16);
    assert_eq!(body["safety_identifier"].as_str().unwrap().len(), 32);
    let header = notes.header().unwrap();
    for part in [
        "coerced:max_tokens=3>16",
        "dropped:top_k",
        "effort=max>high",
        "emulated:stop_sequences",
    ] {
        assert!(header.contains(part), "{header}");
    }
}

fn call<'a>(id: &'a str, arguments: Arguments<'a>) -> Part<'a> {
    Part::Call(Call {
        id: Str::new(id),
        name: Str::new("f"),
        namespace: None,
        arguments,
        opaque: None,
        cache: None,
    })
}

fn image() -> Part<'static> {
    Part::Media(Media {
        kind: MediaKind::Image,
        source: Source::Inline {
            mime: "image/png".into(),
            data: Str::new("AAAA"),
        },
        name: None,
        context: None,
        detail: None,
        cite: false,
        cache: None,
        path: "messages[2].content[0]".into(),
    })
}

fn thought(kind: OpaqueKind, account: Option<&str>) -> Part<'_> {
    Part::Reasoning(Thought {
        summary: vec![Str::new("sum")],
        opaque: Some(Opaque {
            kind,
            data: Str::new("blob"),
            model: None,
            account: account.map(Str::new),
        }),
        ..Thought::default()
    })
}

fn result<'a>(id: &'a str, parts: Vec<Part<'a>>, is_error: bool) -> Part<'a> {
    Part::Result(ToolResult {
        id: Str::new(id),
        name: None,
        parts,
        is_error,
        custom: false,
        cache: None,
    })
}

#[test]
fn items_have_no_ids_and_results_keep_their_images() {
    let mut request = empty(Protocol::Messages);
    request.turns = vec![
        said(Role::User, vec![text("q")]),
        said(
            Role::Assistant,
            vec![
                thought(OpaqueKind::AnthropicSignature, None),
                thought(OpaqueKind::OpenAiEncrypted, Some("other")),
                thought(OpaqueKind::OpenAiEncrypted, Some("acct")),
                text("let me"),
                call(
                    "a",
                    Arguments::Object(Raw::parse("{ \"z\": 1.50, \"a\": 2 }").unwrap()),
                ),
                call("b", Arguments::Text(Str::new(""))),
            ],
        ),
        said(
            Role::User,
            vec![
                result("a", vec![text("see"), image()], false),
                result("b", vec![text("broke")], true),
            ],
        ),
    ];
    let (body, notes) = encoded(&request, &able()).unwrap();
    assert_eq!(
        body["input"],
        json!([
            {"type":"message","role":"user","content":[{"type":"input_text","text":"q"}]},
            {"type":"reasoning","summary":[{"type":"summary_text","text":"sum"}],"encrypted_content":"blob"},
            {"type":"message","role":"assistant","content":[{"type":"output_text","text":"let me"}]},
            {"type":"function_call","call_id":"a","name":"f","arguments":"{\"z\":1.50,\"a\":2}"},
            {"type":"function_call","call_id":"b","name":"f","arguments":"{}"},
            {"type":"function_call_output","call_id":"a","output":[
                {"type":"input_text","text":"see"},
                {"type":"input_image","image_url":"data:image/png;base64,AAAA","detail":"auto"}]},
            {"type":"function_call_output","call_id":"b","output":"[tool error] broke","status":"incomplete"}
        ])
    );
    assert_eq!(notes.header().unwrap(), "dropped:reasoning_history");
}

fn function<'a>(name: &'a str, strict: Option<bool>) -> Tool<'a> {
    Tool::Function(Function {
        name: Str::new(name),
        namespace: None,
        description: None,
        schema: None,
        strict,
        cache: None,
    })
}

fn hosted<'a>(kind: HostedToolKind<'a>, name: &'a str, index: usize) -> Tool<'a> {
    Tool::Hosted(HostedTool {
        kind,
        name: Str::new(name),
        path: format!("tools[{index}]"),
    })
}

#[test]
fn tools_say_whether_they_are_strict_and_hosted_ones_are_coerced() {
    let mut request = empty(Protocol::Chat);
    request.turns = vec![said(Role::User, vec![text("q")])];
    request.tools = vec![
        function("f", Some(true)),
        Tool::Custom {
            name: Str::new("patch"),
            description: None,
            format: Some(
                Raw::parse(r#"{"type":"grammar","grammar":{"syntax":"lark","definition":"x"}}"#)
                    .unwrap(),
            ),
        },
        hosted(
            HostedToolKind::WebSearch(WebSearch {
                allowed: vec![Str::new("a.b")],
                blocked: vec![Str::new("c.d")],
                location: Some(
                    Raw::parse(r#"{"type":"approximate","approximate":{"city":"Bern"}}"#).unwrap(),
                ),
                max_uses: Some(3),
                context_size: None,
            }),
            "web_search_20250305",
            2,
        ),
        hosted(HostedToolKind::Code, "code_execution_20250825", 3),
        hosted(HostedToolKind::Droppable, "tool_search", 4),
    ];
    request.tool_choice = Some(ToolChoice::Named(Str::new("patch")));
    request.parallel = Some(false);
    let (body, notes) = encoded(&request, &able()).unwrap();
    assert_eq!(
        body["tools"],
        json!([
            {"type":"function","name":"f","parameters":{"type":"object","properties":{}},"strict":false},
            {"type":"custom","name":"patch","format":{"type":"grammar","syntax":"lark","definition":"x"}},
            {"type":"web_search","filters":{"allowed_domains":["a.b"]},"user_location":{"type":"approximate","city":"Bern"}},
            {"type":"code_interpreter","container":{"type":"auto"}}
        ])
    );
    assert_eq!(body["tool_choice"], json!({"type":"custom","name":"patch"}));
    assert_eq!(body["parallel_tool_calls"], false);
    assert_eq!(body["max_tool_calls"], 3);
    let header = notes.header().unwrap();
    for part in [
        "coerced:tools.strict",
        "dropped:tools[2].blocked_domains",
        "dropped:tools[4]",
    ] {
        assert!(header.contains(part), "{header}");
    }
}

#[test]
fn a_hosted_tool_that_is_forced_or_alone_must_be_there() {
    let mut request = empty(Protocol::Messages);
    request.turns = vec![said(Role::User, vec![text("q")])];
    request.tools = vec![
        hosted(
            HostedToolKind::WebSearch(WebSearch::default()),
            "web_search_20250305",
            0,
        ),
        hosted(HostedToolKind::Droppable, "tool_search", 1),
    ];
    request.tool_choice = Some(ToolChoice::Hosted(Str::new("web_search_20250305")));
    let (body, _) = encoded(&request, &able()).unwrap();
    assert_eq!(body["tool_choice"], json!({"type":"web_search"}));
    request.tool_choice = Some(ToolChoice::Hosted(Str::new("tool_search")));
    assert!(encoded(&request, &able()).is_err());
    request.tool_choice = None;
    request.tools = vec![hosted(HostedToolKind::Droppable, "memory", 0)];
    assert!(
        encoded(&request, &able()).is_err(),
        "the only tool can't be said"
    );
    request.tools = vec![
        function("f", None),
        hosted(HostedToolKind::Bound, "computer_20250124", 1),
    ];
    let refusal = encoded(&request, &able()).unwrap_err();
    assert_eq!(refusal.code, Some("unsupported_tool"));
    assert_eq!(refusal.param.as_deref(), Some("tools[1]"));
    assert!(refusal.message.contains("computer_20250124") && refusal.message.contains("alias"));
}

#[test]
fn what_can_not_be_said_is_refused() {
    let mut request = empty(Protocol::Chat);
    assert_eq!(
        encoded(&request, &able()).unwrap_err().param.as_deref(),
        Some("messages")
    );
    request.turns = vec![said(Role::User, vec![text("q")])];
    request.sampling.n = Some(2);
    assert_eq!(
        encoded(&request, &able()).unwrap_err().param.as_deref(),
        Some("n")
    );
    request.sampling.n = Some(1);
    let mut media = Media {
        kind: MediaKind::Audio,
        source: Source::File {
            id: Str::new("file-1"),
        },
        name: None,
        context: None,
        detail: None,
        cite: false,
        cache: None,
        path: "messages[0].content[0]".into(),
    };
    for kind in [
        MediaKind::Audio,
        MediaKind::Video,
        MediaKind::Image,
        MediaKind::Document,
    ] {
        media.kind = kind;
        request.turns = vec![said(Role::User, vec![Part::Media(media.clone())])];
        let refusal = encoded(&request, &able()).unwrap_err();
        assert_eq!(refusal.param.as_deref(), Some("messages[0].content[0]"));
    }
}

#[test]
fn json_without_a_schema_is_asked_for_in_words() {
    let mut request = empty(Protocol::Gemini);
    request.format = Format::JsonObject;
    request.turns = vec![said(Role::User, vec![text("a list")])];
    let (body, _) = encoded(&request, &able()).unwrap();
    assert_eq!(body["input"][0]["content"][0]["text"], "Reply in JSON.");
    request.turns = vec![said(Role::User, vec![text("a Json list")])];
    let (body, _) = encoded(&request, &able()).unwrap();
    assert_eq!(body["input"].as_array().unwrap().len(), 1);
}

#[test]
fn a_model_that_does_not_reason_is_not_asked_to() {
    let mut request = empty(Protocol::Chat);
    request.turns = vec![said(Role::User, vec![text("q")])];
    request.reasoning = Some(Reasoning {
        effort: Some(Effort::Low),
        ..Reasoning::default()
    });
    let mut known = able();
    known.thinking.effort = false;
    known.sampling = false;
    request.sampling.temperature = Some(crate::protocol::ir::Digits {
        text: "0",
        value: 0.0,
    });
    let (body, notes) = encoded(&request, &known).unwrap();
    assert!(body.get("reasoning").is_none() && body.get("include").is_none());
    assert!(body.get("temperature").is_none());
    assert_eq!(
        notes.header().unwrap(),
        "dropped:temperature;dropped:reasoning_effort"
    );
    known.sampling = true;
    let (body, _) = encoded(&request, &known).unwrap();
    assert_eq!(body["temperature"], 0);
}

#[test]
fn code_that_another_provider_ran_is_told_and_searches_are_not() {
    let mut request = empty(Protocol::Messages);
    let hosted = |kind| {
        Part::Hosted(Hosted {
            kind,
            id: Str::new("srvtoolu_1"),
            input: Some(Raw::parse(r#"{"code":"1+1"}"#).unwrap()),
            sources: Vec::new(),
            output: Some(Str::new("2")),
            failed: false,
            native: Vec::new(),
            origin: Protocol::Messages,
        })
    };
    request.turns = vec![
        said(Role::User, vec![text("q")]),
        said(
            Role::Assistant,
            vec![hosted(HostedKind::WebSearch), hosted(HostedKind::Code)],
        ),
    ];
    let (body, _) = encoded(&request, &able()).unwrap();
    assert_eq!(body["input"].as_array().unwrap().len(), 2);
    assert_eq!(
        body["input"][1]["content"][0]["text"],
        "```python\n1+1\n```\n\n```\n2\n```"
    );
}

#[test]
fn cache_marks_are_written_where_they_are_known_and_only_the_last_four() {
    use crate::protocol::ir::Lifetime;
    let mut request = empty(Protocol::Messages);
    request.system = vec![SystemBlock {
        text: Str::new("s"),
        cache: Some(Lifetime::Long),
    }];
    let marked = || {
        Part::Text(Text {
            text: Str::new("t"),
            cache: Some(Lifetime::Short),
            ..Text::default()
        })
    };
    request.turns = vec![said(Role::User, (0..4).map(|_| marked()).collect())];
    let mut known = able();
    known.cache_breakpoints = true;
    let (body, _) = encoded(&request, &known).unwrap();
    assert!(body.get("instructions").is_none());
    assert_eq!(body["input"][0]["role"], "developer");
    assert!(
        body["input"][0]["content"][0]
            .get("prompt_cache_breakpoint")
            .is_none()
    );
    let marks = body["input"][1]["content"].as_array().unwrap();
    assert!(
        marks
            .iter()
            .all(|part| part["prompt_cache_breakpoint"]["ttl"] == "30m")
    );
    known.cache_breakpoints = false;
    let (body, notes) = encoded(&request, &known).unwrap();
    assert_eq!(body["instructions"], "s");
    assert_eq!(notes.header(), None, "a mark is a hint");
}
