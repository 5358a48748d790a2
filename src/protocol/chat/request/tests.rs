//! Requests of chat: what clients send, and what providers are sent.

use serde_json::json;

use crate::protocol::Protocol;
use crate::protocol::chat::testing::{decoded, openai, other, sent, through};
use crate::protocol::ir::{
    Arguments, Digits, Display, Effort, Format, Hosted, HostedKind, HostedToolKind, Invalid,
    Lifetime, Media, MediaKind, Opaque, OpaqueKind, Part, Reasoning, ReasoningMode, Role, Service,
    Source, SystemBlock, Text, Thought, Tool, ToolChoice, ToolResult, Turn,
};
use crate::protocol::json::{Raw, Str, Tape};
use crate::protocol::notes::{Notes, Severity};
use crate::protocol::translate::decode_request;

const HI: &str = r#""model":"m","messages":[{"role":"user","content":"hi"}]"#;

fn with(members: &str) -> String {
    format!("{{{HI},{members}}}")
}

fn talk(messages: &str) -> String {
    format!(r#"{{"model":"m","messages":{messages}}}"#)
}

fn param(body: &str) -> Option<String> {
    let error = decoded(body, |_| ()).unwrap_err();
    error.param
}

#[test]
fn leading_system_text_is_gathered_and_later_text_is_a_turn() {
    let body = talk(
        r#"[{"role":"system","content":"a"},{"role":"developer","content":[{"type":"text","text":"b","cache_control":{"type":"ephemeral","ttl":"1h"}}]},
           {"role":"system","content":"c"},{"role":"user","content":"hi"},{"role":"developer","content":"d"}]"#,
    );
    let ((system, roles), notes) = decoded(&body, |request| {
        let system = request.system.iter();
        let system: Vec<_> = system
            .map(|b| (b.text.to_plain_string(), b.cache))
            .collect();
        let turns: Vec<_> = request
            .turns
            .iter()
            .map(|turn| (turn.role, turn.at))
            .collect();
        (system, turns)
    })
    .unwrap();
    let wanted = [("a", None), ("b", Some(Lifetime::Long)), ("c", None)];
    assert_eq!(system, wanted.map(|(text, cache)| (text.to_owned(), cache)));
    assert_eq!(roles, [(Role::User, 3), (Role::System, 4)]);
    assert_eq!(notes, Vec::<String>::new());
}

#[test]
fn wrong_fields_are_named() {
    for (body, wanted) in [
        (
            r#"{"messages":[{"role":"user","content":"x"}]}"#.to_owned(),
            "model",
        ),
        (r#"{"model":"m"}"#.to_owned(), "messages"),
        (talk("[]"), "messages"),
        (talk(r#"[{"content":"x"}]"#), "messages[0].role"),
        (
            talk(r#"[{"role":"narrator","content":"x"}]"#),
            "messages[0].role",
        ),
        (
            talk(r#"[{"role":"user","content":[{"type":"hologram"}]}]"#),
            "messages[0].content[0].type",
        ),
        (
            talk(r#"[{"role":"user","content":5}]"#),
            "messages[0].content",
        ),
        (
            talk(r#"[{"role":"assistant","audio":{"id":"a"}}]"#),
            "messages[0].audio",
        ),
        (
            talk(r#"[{"role":"assistant","tool_calls":[{"id":"a","function":{}}]}]"#),
            "messages[0].tool_calls[0].function.name",
        ),
        (
            talk(r#"[{"role":"tool","content":"x"}]"#),
            "messages[0].tool_call_id",
        ),
        (with(r#""temperature":"hot""#), "temperature"),
        (with(r#""max_tokens":0"#), "max_tokens"),
        (with(r#""stop":[1]"#), "stop"),
        (
            with(r#""response_format":{"schema":{}}"#),
            "response_format.type",
        ),
        (
            with(r#""response_format":{"type":"json_schema","json_schema":{}}"#),
            "response_format.json_schema.schema",
        ),
        (
            with(r#""reasoning_effort":"herculean""#),
            "reasoning_effort",
        ),
        (with(r#""tool_choice":"maybe""#), "tool_choice"),
        (
            with(r#""tools":[{"type":"function","function":{}}]"#),
            "tools[0].function.name",
        ),
        (with(r#""modalities":["text","audio"]"#), "modalities"),
    ] {
        assert_eq!(param(&body).as_deref(), Some(wanted), "{body}");
    }
}

#[test]
fn null_is_as_good_as_absent_and_numbers_keep_their_digits() {
    let body = with(
        r#""stop":null,"tools":null,"n":null,"foo":null,"temperature":0.700,"seed":12345678901234567890,"max_tokens":5,"max_completion_tokens":9"#,
    );
    let (found, notes) = decoded(&body, |request| {
        let text = |digits: Option<Digits<'_>>| digits.map(|digits| digits.text.to_owned());
        let sampling = &request.sampling;
        (
            text(sampling.temperature),
            text(sampling.seed),
            sampling.max_output,
        )
    })
    .unwrap();
    let wanted = (
        Some("0.700".into()),
        Some("12345678901234567890".into()),
        Some(9),
    );
    assert_eq!(found, wanted);
    assert_eq!(notes, Vec::<String>::new());
}

#[test]
fn unknown_fields_are_noted_and_hints_are_not_warned_of() {
    let body = with(r#""foo":1,"prediction":{"x":1},"metadata":{"k":1},"image_config":null"#);
    let (mut tape, mut notes) = (Tape::new(), Notes::new());
    decode_request(Protocol::Chat, tape.parse(&body).unwrap(), &mut notes).unwrap();
    let notes: Vec<_> = notes
        .iter()
        .map(|note| (note.what.as_ref(), note.severity))
        .collect();
    let wanted = [("foo", Severity::Warn), ("prediction", Severity::Info)];
    assert_eq!(notes, wanted);
}

#[test]
fn calls_and_results_find_each_other() {
    let body = talk(
        r#"[{"role":"user","content":"x"},
        {"role":"assistant","content":"y","tool_calls":[{"id":"a","type":"function","function":{"name":"f","arguments":"{\"k\": 1}"}},{"id":"","function":{"name":"g","arguments":{"v":2}}}]},
        {"role":"assistant","content":null,"function_call":{"name":"h","arguments":""}},
        {"role":"tool","tool_call_id":"a","content":"1"},
        {"role":"function","name":"h","content":"3"},
        {"role":"tool","content":"2"}]"#,
    );
    let (found, _) = decoded(&body, |request| {
        let ids = |turn: &Turn<'_>| -> Vec<String> {
            let parts = turn.parts.iter().filter_map(|part| match part {
                Part::Call(call) => Some(call.id.to_plain_string()),
                Part::Result(result) => Some(result.id.to_plain_string()),
                _ => None,
            });
            parts.collect()
        };
        request.turns.iter().map(ids).collect::<Vec<_>>()
    })
    .unwrap();
    let calls = ["a", "call_m1_1", "call_m2"];
    assert_eq!(
        found,
        [vec![], calls.to_vec(), vec!["a", "call_m2", "call_m1_1"]]
    );
}

#[test]
fn legacy_functions_are_tools_that_are_answered_in_their_own_form() {
    let body = with(
        r#""functions":[{"name":"f","parameters":{"type":"object"}}],"function_call":{"name":"f"}"#,
    );
    let (found, notes) = decoded(&body, |request| {
        let named = matches!(&request.tool_choice, Some(ToolChoice::Named(name)) if name.is("f"));
        (request.legacy_functions, request.tools.len(), named)
    })
    .unwrap();
    assert_eq!(found, (true, 1, true));
    assert_eq!(notes, Vec::<String>::new());
}

#[test]
fn tools_of_every_kind_are_told_apart() {
    let body = with(
        r#""tools":[{"type":"function","function":{"name":"f","strict":true}},{"name":"flat"},
        {"type":"custom","custom":{"name":"c","format":{"type":"text"}}},{"type":"openrouter:web_search"},
        {"type":"web_search_preview","search_context_size":"low"},{"type":"code_interpreter"},{"type":"file_search"},{"type":"mcp"}]"#,
    );
    let (found, _) = decoded(&body, |request| {
        let word = |tool: &Tool<'_>| match tool {
            Tool::Function(function) => format!("{} {:?}", function.name.plain(), function.strict),
            Tool::Custom { name, .. } => format!("custom {}", name.plain()),
            Tool::Hosted(hosted) => match &hosted.kind {
                HostedToolKind::WebSearch(search) => format!("search {:?}", search.context_size),
                kind => format!("{kind:?} {}", hosted.path),
            },
        };
        (
            request.tools.iter().map(word).collect::<Vec<_>>(),
            request.custom_tools,
        )
    })
    .unwrap();
    let wanted = [
        "f Some(true)",
        "flat None",
        "custom c",
        "search None",
        "search Some(\"low\")",
        "Code tools[5]",
        "Droppable tools[6]",
        "Bound tools[7]",
    ];
    assert_eq!(found, (wanted.map(str::to_owned).to_vec(), true));
}

#[test]
fn reasoning_is_asked_for_in_four_ways() {
    let said = |mode, effort, budget, display| Reasoning {
        mode,
        effort,
        budget,
        display,
    };
    use ReasoningMode::{Adaptive, Default, Off, On};
    for (members, wanted) in [
        (
            r#""reasoning_effort":"xhigh""#,
            said(Default, Some(Effort::XHigh), None, Display::Default),
        ),
        (
            r#""reasoning_effort":"none""#,
            said(Off, Some(Effort::None), None, Display::Default),
        ),
        (
            r#""reasoning":{"max_tokens":500,"exclude":true}"#,
            said(Default, None, Some(500), Display::Omit),
        ),
        (
            r#""reasoning":{"enabled":true}"#,
            said(On, None, None, Display::Default),
        ),
        (
            r#""thinking":{"type":"enabled","budget_tokens":900}"#,
            said(On, None, Some(900), Display::Default),
        ),
        (
            r#""thinking":{"type":"adaptive"}"#,
            said(Adaptive, None, None, Display::Default),
        ),
        (
            r#""extra_body":{"google":{"thinking_config":{"thinking_budget":-1,"include_thoughts":true}}}"#,
            said(Default, None, Some(-1), Display::Summary),
        ),
        (
            r#""google":{"thinking_config":{"thinking_level":"LOW"}}"#,
            said(Default, Some(Effort::Low), None, Display::Default),
        ),
    ] {
        let (found, notes) = decoded(&with(members), |request| request.reasoning.clone()).unwrap();
        assert_eq!(found, Some(wanted), "{members}");
        assert_eq!(notes, Vec::<String>::new(), "{members}");
    }
    assert_eq!(
        decoded(&with(r#""top_p":1"#), |request| request.reasoning.clone())
            .unwrap()
            .0,
        None
    );
}

fn thoughts(message: &str) -> Vec<(String, Vec<String>, Option<OpaqueKind>, String)> {
    let body = talk(&format!(r#"[{{"role":"user","content":"x"}},{message}]"#));
    let read = |request: &crate::protocol::ir::Request<'_>| {
        let parts = request.turns[1].parts.iter();
        let thoughts = parts.filter_map(|part| match part {
            Part::Reasoning(thought) => Some((
                thought.text.to_plain_string(),
                thought.summary.iter().map(Str::to_plain_string).collect(),
                thought.opaque.as_ref().map(|opaque| opaque.kind),
                thought
                    .opaque
                    .as_ref()
                    .map(|opaque| opaque.data.to_plain_string())
                    .unwrap_or_default(),
            )),
            _ => None,
        });
        thoughts.collect()
    };
    decoded(&body, read).unwrap().0
}

#[test]
fn earlier_reasoning_comes_home_in_its_forms() {
    use OpaqueKind::{AnthropicRedacted, AnthropicSignature, GeminiSignature, OpenAiEncrypted};
    let one = |text: &str, kind, data: &str| vec![(text.to_owned(), vec![], kind, data.to_owned())];
    let plain = r#"{"role":"assistant","content":"y","reasoning":"b","reasoning_content":"a"}"#;
    assert_eq!(thoughts(plain), one("a", None, ""));
    let blocks = r#"{"role":"assistant","reasoning_content":"z","thinking_blocks":[{"type":"thinking","thinking":"t","signature":"s"},{"type":"redacted_thinking","data":"d"}]}"#;
    let mut wanted = one("t", Some(AnthropicSignature), "s");
    wanted.extend(one("", Some(AnthropicRedacted), "d"));
    assert_eq!(thoughts(blocks), wanted);
    // Fragments that nobody has put together.
    let pieces = r#"{"role":"assistant","reasoning_details":[{"type":"reasoning.text","text":"a","index":0},{"type":"reasoning.text","text":"b","index":0},{"type":"reasoning.text","signature":"s","format":"anthropic-claude-v1","index":0},{"type":"reasoning.text","text":"c","signature":"t","format":"anthropic-claude-v1","index":1}]}"#;
    let mut wanted = one("ab", Some(AnthropicSignature), "s");
    wanted.extend(one("c", Some(AnthropicSignature), "t"));
    assert_eq!(thoughts(pieces), wanted);
    let openai = r#"{"role":"assistant","reasoning_details":[{"type":"reasoning.summary","summary":"p","index":0},{"type":"reasoning.summary","summary":"q","index":1},{"type":"reasoning.encrypted","data":"d","format":"openai-responses-v1","id":"rs_1","index":2}]}"#;
    let wanted = (
        String::new(),
        vec!["p".to_owned(), "q".to_owned()],
        Some(OpenAiEncrypted),
        "d".to_owned(),
    );
    assert_eq!(thoughts(openai), [wanted]);
    let google = r#"{"role":"assistant","reasoning_content":"r","reasoning_details":[{"type":"reasoning.encrypted","data":"g","format":"google-gemini-v1","index":0}]}"#;
    let mut wanted = one("r", None, "");
    wanted.extend(one("", Some(GeminiSignature), "g"));
    assert_eq!(thoughts(google), wanted);
    let placed = google.replace(
        "\"index\":0",
        "\"index\":0,\"start_index\":0,\"end_index\":1",
    );
    assert_eq!(thoughts(&placed), one("r", Some(GeminiSignature), "g"));
}

#[test]
fn signed_text_is_cut_out_of_the_string_that_holds_all() {
    let message = r#"{"role":"assistant","reasoning_content":"éa\n🙂\n\nsecond\n\nlast","reasoning_details":[{"type":"reasoning.text","signature":"s","index":0,"start_index":0,"end_index":4},{"type":"reasoning.text","signature":"t","index":1,"start_index":6,"end_index":12}]}"#;
    let found: Vec<_> = thoughts(message)
        .into_iter()
        .map(|(text, ..)| text)
        .collect();
    assert_eq!(found, ["éa\n🙂", "second"]);
}

#[test]
fn signatures_find_their_calls() {
    let body = talk(
        r#"[{"role":"user","content":"x"},{"role":"assistant","tool_calls":[
        {"id":"a","function":{"name":"f","arguments":"{}"},"extra_content":{"google":{"thought_signature":"c2ln"}}},
        {"id":"b","function":{"name":"f","arguments":"{}"},"extra_content":{"vertex":{"thought_signature":"dmVy"}}},
        {"id":"c","function":{"name":"f","arguments":"{}"}}],
        "reasoning_details":[{"type":"reasoning.encrypted","data":"b3Jm","format":"google-gemini-v1","id":"c","index":0}]}]"#,
    );
    let (found, _) = decoded(&body, |request| {
        let parts = request.turns[1].parts.iter();
        let blobs = parts.map(|part| match part {
            Part::Call(call) => call
                .opaque
                .as_ref()
                .map(|o| (o.kind, o.data.to_plain_string())),
            _ => None,
        });
        blobs.collect::<Vec<_>>()
    })
    .unwrap();
    let wanted =
        ["c2ln", "dmVy", "b3Jm"].map(|data| Some((OpaqueKind::GeminiSignature, data.to_owned())));
    assert_eq!(found, wanted);
}

#[test]
fn media_are_what_their_bytes_say() {
    let body = talk(
        r#"[{"role":"user","content":[
        {"type":"image_url","image_url":{"url":"data:image/png;base64,\/9j\/4AAQSkZJRgABAQ==","detail":"low"}},
        {"type":"image_url","image_url":"https://e.org/x.png"},
        {"type":"input_audio","input_audio":{"data":"UklGRiQAAABXQVZFZm10IA==","format":"wav"}},
        {"type":"file","file":{"filename":"a.pdf","file_data":"data:application/pdf;base64,JVBERi0="}},
        {"type":"file","file":{"file_id":"file-1"}}]}]"#,
    );
    let (found, _) = decoded(&body, |request| {
        let word = |part: &Part<'_>| match part {
            Part::Media(media) => {
                let source = match &media.source {
                    Source::Inline { mime, .. } => mime.to_string(),
                    Source::Url { url, .. } => url.to_plain_string(),
                    Source::File { id } => id.to_plain_string(),
                    Source::Text(_) => "text".to_owned(),
                };
                format!("{:?} {source} {}", media.kind, media.path)
            }
            _ => String::new(),
        };
        request.turns[0].parts.iter().map(word).collect::<Vec<_>>()
    })
    .unwrap();
    let wanted = [
        "Image image/jpeg messages[0].content[0]",
        "Image https://e.org/x.png messages[0].content[1]",
        "Audio audio/wav messages[0].content[2]",
        "Document application/pdf messages[0].content[3]",
        "Document file-1 messages[0].content[4]",
    ];
    assert_eq!(found, wanted);
}

// From here on: written for a provider.

#[test]
fn a_plain_request_says_what_the_client_said() {
    let body = with(
        r#""temperature":0,"top_p":0.50,"stop":"END","seed":9007199254740993,"max_tokens":7,"stream":true,"logit_bias":{"5":-100}"#,
    );
    let found = through(&body, Protocol::Chat, &other(), |_| ()).unwrap();
    let wanted = json!({
        "model": "their-model", "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": 7, "temperature": 0, "top_p": 0.5, "seed": 9_007_199_254_740_993_u64,
        "stop": ["END"], "logit_bias": {"5": -100},
        "stream": true, "stream_options": {"include_usage": true},
    });
    assert_eq!(found.body, wanted);
    assert_eq!(found.notes, Vec::<String>::new());
    let text = std::str::from_utf8(&found.encoded.body).unwrap();
    assert!(text.contains(r#""top_p":0.50"#), "{text}");
}

#[test]
fn the_dialect_is_that_of_the_host() {
    let body = r#"{"model":"m","messages":[{"role":"system","content":"s"},{"role":"user","content":"hi"}],"max_tokens":7,"user":"u1","prompt_cache_key":"k","verbosity":"low","service_tier":"flex","reasoning_effort":"high"}"#;
    let mut capabilities = openai();
    capabilities.max_completion_tokens = true;
    capabilities.efforts = vec![Effort::Low, Effort::High];
    let found = through(body, Protocol::Chat, &capabilities, |_| ()).unwrap();
    let wanted = json!({
        "model": "their-model",
        "messages": [{"role": "developer", "content": "s"}, {"role": "user", "content": "hi"}],
        "max_completion_tokens": 7, "reasoning_effort": "high", "verbosity": "low",
        "service_tier": "flex", "safety_identifier": "u1", "prompt_cache_key": "k",
    });
    assert_eq!(found.body, wanted);
    let mut capabilities = other();
    capabilities.thinking = Default::default();
    let found = through(body, Protocol::Chat, &capabilities, |_| ()).unwrap();
    assert_eq!(found.body["messages"][0]["role"], "system");
    assert_eq!(found.body["max_tokens"], 7);
    assert_eq!(found.body.as_object().unwrap().len(), 3);
    assert!(
        found.notes.contains(&"dropped:reasoning_effort".to_owned()),
        "{:?}",
        found.notes
    );
    assert!(
        found.notes.contains(&"(dropped:verbosity)".to_owned()),
        "{:?}",
        found.notes
    );
}

#[test]
fn personal_names_of_users_are_hashed() {
    let user = |name: &str| {
        let body = with(&format!(r#""user":{}"#, json!(name)));
        let found = through(&body, Protocol::Messages, &openai(), |_| ()).unwrap();
        found.body["safety_identifier"].as_str().unwrap().to_owned()
    };
    assert_eq!(user("user-17"), "user-17");
    assert_eq!(user("a@b.org"), user("a@b.org"));
    for personal in ["a@b.org", r#"{"device_id":"1"}"#, &"x".repeat(65)] {
        let found = user(personal);
        assert!(
            found.len() == 32 && found.bytes().all(|b| b.is_ascii_hexdigit()),
            "{found}"
        );
    }
}

#[test]
fn a_tools_picture_goes_into_a_message_of_the_user() {
    let body = talk(
        r#"[{"role":"user","content":"x"},{"role":"assistant","tool_calls":[{"id":"a","function":{"name":"f","arguments":""}},{"id":"b","function":{"name":"g","arguments":"{}"}}]},{"role":"tool","tool_call_id":"a","content":"1"},{"role":"tool","tool_call_id":"b","content":"bad"}]"#,
    );
    let found = through(&body, Protocol::Messages, &other(), |request| {
        let parts = &mut request.turns[2].parts;
        if let Part::Result(result) = &mut parts[0] {
            result.parts.push(Part::Media(picture()));
        }
        if let Part::Result(result) = &mut parts[1] {
            result.is_error = true;
        }
        parts.push(Part::Text(Text::new(Str::new("and now?"))));
    })
    .unwrap();
    let wanted = json!([
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": null, "tool_calls": [
            {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}},
            {"id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "a", "content": "1\n\n[image attached below]"},
        {"role": "tool", "tool_call_id": "b", "content": "[tool error] bad"},
        {"role": "user", "content": [
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
            {"type": "text", "text": "and now?"}]},
    ]);
    assert_eq!(found.body["messages"], wanted);
}

fn picture() -> Media<'static> {
    Media {
        kind: MediaKind::Image,
        source: Source::Inline {
            mime: "image/png".into(),
            data: Str::new("iVBORw0KGgo="),
        },
        name: None,
        context: None,
        detail: None,
        cite: false,
        cache: None,
        path: "messages[0].content[0]".into(),
    }
}

fn shown(
    media: Media<'static>,
    change: impl FnOnce(&mut crate::protocol::capabilities::Capabilities),
) -> Result<serde_json::Value, Invalid> {
    let mut capabilities = other();
    change(&mut capabilities);
    let body = with(r#""top_p":1"#);
    let found = through(&body, Protocol::Messages, &capabilities, |request| {
        request.turns[0].parts = vec![Part::Media(media)];
    })?;
    Ok(found.body["messages"][0]["content"].clone())
}

#[test]
fn documents_and_sound_are_shown_where_they_can_be() {
    let document = |mime: &'static str, data: &'static str| Media {
        kind: MediaKind::Document,
        name: Some(Str::new("a.txt")),
        source: Source::Inline {
            mime: mime.into(),
            data: Str::new(data),
        },
        ..picture()
    };
    assert_eq!(
        shown(document("text/plain", "aGk="), |_| ()).unwrap(),
        json!("[a.txt]\nhi")
    );
    let pdf = || document("application/pdf", "JVBERi0=");
    let file = json!([{"type": "file", "file": {"filename": "a.txt", "file_data": "data:application/pdf;base64,JVBERi0="}}]);
    assert_eq!(shown(pdf(), |c| c.pdf = true).unwrap(), file);
    assert_eq!(
        shown(pdf(), |c| c.pdf = false)
            .unwrap_err()
            .param
            .as_deref(),
        Some("messages[0].content[0]")
    );
    let sound = || Media {
        kind: MediaKind::Audio,
        ..document("audio/mpeg", "SUQz")
    };
    let heard = json!([{"type": "input_audio", "input_audio": {"data": "SUQz", "format": "mp3"}}]);
    assert_eq!(shown(sound(), |c| c.audio = true).unwrap(), heard);
    let foreign = Media {
        source: Source::File {
            id: Str::new("file_1"),
        },
        ..picture()
    };
    let error = shown(foreign, |_| ()).unwrap_err();
    assert_eq!(error.message, "file_id belongs to another provider");
    let film = Media {
        kind: MediaKind::Video,
        ..picture()
    };
    assert_eq!(
        shown(film, |c| c.video = true).unwrap_err().code,
        Some("unsupported_content")
    );
}

#[test]
fn system_blocks_become_one_message_and_the_billing_line_goes() {
    let found = through(
        &with(r#""top_p":1"#),
        Protocol::Messages,
        &other(),
        |request| {
            request.system = ["x-anthropic-billing-header: cc_version=1", "one", "two"]
                .map(|text| SystemBlock {
                    text: Str::new(text),
                    cache: Some(Lifetime::Short),
                })
                .to_vec();
        },
    )
    .unwrap();
    assert_eq!(
        found.body["messages"][0],
        json!({"role": "system", "content": "one\n\ntwo"})
    );
    assert_eq!(found.notes, ["(dropped:cache_control)"]);
    let mut capabilities = openai();
    capabilities.cache_breakpoints = true;
    let found = through(
        &with(r#""top_p":1"#),
        Protocol::Messages,
        &capabilities,
        |request| {
            request.system = vec![SystemBlock {
                text: Str::new("one"),
                cache: Some(Lifetime::Long),
            }];
        },
    )
    .unwrap();
    let mark = json!({"mode": "explicit", "ttl": "12h"});
    let wanted = json!([{"type": "text", "text": "one", "prompt_cache_breakpoint": mark}]);
    assert_eq!(found.body["messages"][0]["content"], wanted);
}

#[test]
fn reasoning_goes_back_only_where_it_is_wanted() {
    let body = talk(
        r#"[{"role":"user","content":"x"},{"role":"assistant","reasoning_content":"secret","tool_calls":[{"id":"a","function":{"name":"f","arguments":"{}"}}]},{"role":"tool","tool_call_id":"a","content":"1"},
        {"role":"assistant","tool_calls":[{"id":"b","function":{"name":"f","arguments":"{}"}}]},{"role":"tool","tool_call_id":"b","content":"2"}]"#,
    );
    let mut capabilities = other();
    capabilities.echo_reasoning = false;
    let found = through(&body, Protocol::Chat, &capabilities, |_| ()).unwrap();
    assert!(!found.body.to_string().contains("secret"));
    assert_eq!(found.notes, ["(dropped:reasoning_history)"]);
    capabilities.echo_reasoning = true;
    let found = through(&body, Protocol::Chat, &capabilities, |_| ()).unwrap();
    assert_eq!(found.body["messages"][1]["reasoning_content"], "secret");
    assert_eq!(found.body["messages"][3]["reasoning_content"], " ");
}

#[test]
fn a_blob_goes_back_to_the_account_that_made_it_and_to_no_other() {
    for (account, kept) in [("acct", true), ("another", false)] {
        let found = through(
            &talk(r#"[{"role":"user","content":"x"},{"role":"assistant","content":"y"},{"role":"user","content":"z"}]"#),
            Protocol::Messages,
            &other(),
            |request| {
                let thought = Thought {
                    text: Str::new("t"),
                    opaque: Some(Opaque {
                        kind: OpaqueKind::AnthropicSignature,
                        data: Str::new("sig"),
                        model: None,
                        account: Some(Str::new(account)),
                    }),
                    ..Thought::default()
                };
                request.turns[1].parts.insert(0, Part::Reasoning(thought));
            },
        )
        .unwrap();
        let details = found.body["messages"][1].get("reasoning_details");
        let wanted = json!([{"type": "reasoning.text", "text": "t", "signature": "sig", "format": "anthropic-claude-v1", "index": 0}]);
        assert_eq!(details, kept.then_some(&wanted));
        assert_eq!(found.body["messages"][1]["content"], "y");
    }
}

#[test]
fn arguments_are_strings_with_their_keys_in_order() {
    let body = talk(
        r#"[{"role":"user","content":"x"},{"role":"assistant","tool_calls":[{"id":"a","function":{"name":"f","arguments":""}}]},{"role":"tool","tool_call_id":"a","content":"1"}]"#,
    );
    for (arguments, wanted) in [
        (
            Arguments::Object(
                Raw::parse("{ \"z\": 12345678901234567890, \"a\": \"q\\\"\\u00e9\" }").unwrap(),
            ),
            r#"{"z":12345678901234567890,"a":"q\"\u00e9"}"#,
        ),
        (Arguments::Text(Str::new(" ")), "{}"),
        (Arguments::Text(Str::new("{\"half\":")), "{\"half\":"),
        (
            Arguments::Free(Str::new("a \"b\"\n\\c")),
            r#"{"input":"a \"b\"\n\\c"}"#,
        ),
    ] {
        let found = through(&body, Protocol::Messages, &other(), |request| {
            if let Part::Call(call) = &mut request.turns[1].parts[0] {
                call.arguments = arguments;
            }
        })
        .unwrap();
        assert_eq!(
            found.body["messages"][1]["tool_calls"][0]["function"]["arguments"],
            wanted
        );
    }
}

#[test]
fn tools_are_declared_as_the_provider_knows_them() {
    let body = with(
        r#""tools":[{"type":"function","function":{"name":"f"}},{"type":"custom","custom":{"name":"patch","description":"Edits.","format":{"type":"grammar","grammar":{"syntax":"lark","definition":"start: X"}}}}],"tool_choice":{"type":"custom","custom":{"name":"patch"}},"parallel_tool_calls":false"#,
    );
    let found = through(&body, Protocol::Responses, &openai(), |_| ()).unwrap();
    assert_eq!(found.body["tools"][1]["type"], "custom");
    assert_eq!(
        found.body["tool_choice"],
        json!({"type": "custom", "custom": {"name": "patch"}})
    );
    let found = through(&body, Protocol::Responses, &other(), |_| ()).unwrap();
    let wanted = json!([
        {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}},
        {"type": "function", "function": {
            "name": "patch", "description": "Edits.\n\nThe input must match this grammar:\nstart: X",
            "parameters": {"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"]}}},
    ]);
    assert_eq!(found.body["tools"], wanted);
    assert_eq!(
        found.body["tool_choice"],
        json!({"type": "function", "function": {"name": "patch"}})
    );
    assert_eq!(found.body["parallel_tool_calls"], false);
    assert_eq!(found.encoded.fixups.custom, ["patch"]);
}

#[test]
fn choices_without_tools_are_left_out_and_allowed_sets_are_cut() {
    let found = through(
        &with(r#""tool_choice":"auto","parallel_tool_calls":true"#),
        Protocol::Chat,
        &other(),
        |_| (),
    )
    .unwrap();
    assert_eq!(found.body.as_object().unwrap().len(), 2);
    let body = with(
        r#""tools":[{"type":"function","function":{"name":"f"}},{"type":"function","function":{"name":"g"}}],"tool_choice":{"type":"allowed_tools","allowed_tools":{"mode":"required","tools":[{"type":"function","function":{"name":"g"}}]}}"#,
    );
    let found = through(&body, Protocol::Chat, &other(), |_| ()).unwrap();
    assert_eq!(found.body["tools"].as_array().unwrap().len(), 1);
    assert_eq!(found.body["tool_choice"], "required");
    let found = through(&body, Protocol::Chat, &openai(), |_| ()).unwrap();
    assert_eq!(found.body["tools"].as_array().unwrap().len(), 2);
    assert_eq!(
        found.body["tool_choice"]["allowed_tools"]["tools"][0]["function"]["name"],
        "g"
    );
}

#[test]
fn hosted_tools_are_kept_left_out_or_refused() {
    let both = with(
        r#""tools":[{"type":"function","function":{"name":"f"}},{"type":"web_search","user_location":{"type":"approximate","city":"Bonn"}}]"#,
    );
    let mut capabilities = other();
    capabilities.web_search = true;
    let found = through(&both, Protocol::Responses, &capabilities, |_| ()).unwrap();
    let wanted = json!({"user_location": {"type": "approximate", "approximate": {"city": "Bonn"}}});
    assert_eq!(found.body["web_search_options"], wanted);
    capabilities.web_search = false;
    let found = through(&both, Protocol::Responses, &capabilities, |_| ()).unwrap();
    assert_eq!(found.body.get("web_search_options"), None);
    assert_eq!(found.notes, ["dropped:web_search"]);
    let refused = |members: &str| {
        let error = through(&with(members), Protocol::Responses, &other(), |_| ()).err();
        error.map(|error| (error.code, error.param))
    };
    let tool = |param: &str| Some((Some("unsupported_tool"), Some(param.to_owned())));
    assert_eq!(
        refused(r#""tools":[{"type":"code_interpreter"}]"#),
        tool("tools[0]")
    );
    let bound =
        r#""tools":[{"type":"function","function":{"name":"f"}},{"type":"computer_use_preview"}]"#;
    assert_eq!(refused(bound), tool("tools[1]"));
    let forced = r#""tools":[{"type":"function","function":{"name":"f"}},{"type":"web_search"}],"tool_choice":{"type":"web_search"}"#;
    assert_eq!(refused(forced), tool("tool_choice"));
}

#[test]
fn a_schema_is_asked_for_natively_or_in_words() {
    let body = with(
        r#""response_format":{"type":"json_schema","json_schema":{"name":"a b","schema":{"type":"object"}}}"#,
    );
    let mut capabilities = other();
    capabilities.structured = true;
    let found = through(&body, Protocol::Messages, &capabilities, |_| ()).unwrap();
    let wanted = json!({"type": "json_schema", "json_schema": {"name": "a_b", "schema": {"type": "object"}}});
    assert_eq!(found.body["response_format"], wanted);
    capabilities.structured = false;
    let found = through(&body, Protocol::Messages, &capabilities, |_| ()).unwrap();
    assert_eq!(found.body.get("response_format"), None);
    let words = "Reply with one JSON value only, matching this JSON Schema: {\"type\":\"object\"}";
    assert_eq!(
        found.body["messages"][0],
        json!({"role": "system", "content": words})
    );
    assert!(found.encoded.fixups.fenced);
    assert_eq!(found.notes, ["emulated:response_format"]);
}

#[test]
fn the_word_json_is_said_where_the_provider_wants_it() {
    let say = |origin, text: &'static str| {
        let found = through(&with(r#""top_p":1"#), origin, &openai(), |request| {
            request.format = Format::JsonObject;
            request.turns[0].parts = vec![Part::Text(Text::new(Str::new(text)))];
        });
        found.unwrap().body["messages"].as_array().unwrap().len()
    };
    assert_eq!(say(Protocol::Gemini, "list them"), 2);
    assert_eq!(say(Protocol::Gemini, "list them as JSON"), 1);
    assert_eq!(say(Protocol::Responses, "list them"), 1);
}

#[test]
fn what_chat_can_not_say_is_noted_in_the_clients_words() {
    let body = with(
        r#""top_k":5,"stop":["a","b","c","d","e"],"max_tokens":900,"max_tool_calls":3,"metadata":{"a":"b"}"#,
    );
    let mut capabilities = other();
    capabilities.max_output = Some(500);
    capabilities.sampling = false;
    let found = through(&body, Protocol::Gemini, &capabilities, |request| {
        request.service = Some(Service::Priority);
        request.sampling.temperature = Some(Digits {
            text: "1",
            value: 1.0,
        });
    })
    .unwrap();
    assert_eq!(found.body["stop"].as_array().unwrap().len(), 4);
    assert_eq!(found.body["max_tokens"], 500);
    let wanted = [
        "coerced:generationConfig.maxOutputTokens=900>500",
        "dropped:generationConfig.temperature",
        "dropped:generationConfig.topK",
        "coerced:generationConfig.stopSequences=5>4",
        "(dropped:serviceTier)",
        "(dropped:labels)",
        "dropped:tools",
    ];
    assert_eq!(found.notes, wanted);
}

#[test]
fn effort_is_the_nearest_that_the_model_knows() {
    let effort = |members: &str, efforts: &[Effort]| {
        let mut capabilities = openai();
        capabilities.efforts = efforts.to_vec();
        let found = through(&with(members), Protocol::Chat, &capabilities, |_| ()).unwrap();
        (
            found.body["reasoning_effort"].as_str().map(str::to_owned),
            found.notes,
        )
    };
    let three = [Effort::Low, Effort::Medium, Effort::High];
    let given = |word: &str, notes: &[&str]| {
        (
            Some(word.to_owned()),
            notes.iter().map(|note| (*note).to_owned()).collect(),
        )
    };
    assert_eq!(
        effort(r#""reasoning_effort":"max""#, &three),
        given("high", &["coerced:reasoning_effort=max>high"])
    );
    assert_eq!(
        effort(r#""reasoning_effort":"none""#, &three),
        given("low", &["coerced:reasoning_effort=none>low"])
    );
    assert_eq!(
        effort(r#""reasoning":{"max_tokens":6000}"#, &three),
        given("medium", &[])
    );
    assert_eq!(
        effort(r#""thinking":{"type":"adaptive"}"#, &three),
        (None, vec![])
    );
}

#[test]
fn code_that_a_provider_ran_is_told_in_words() {
    let hosted = Hosted {
        kind: HostedKind::Code,
        id: Str::new("x"),
        input: Some(Raw::parse(r#"{"code":"print(1)"}"#).unwrap()),
        sources: Vec::new(),
        output: Some(Str::new("1\n")),
        failed: false,
        native: Vec::new(),
        origin: Protocol::Messages,
    };
    let body = talk(
        r#"[{"role":"user","content":"x"},{"role":"assistant","content":"Running."},{"role":"user","content":"y"}]"#,
    );
    let found = through(&body, Protocol::Messages, &other(), |request| {
        request.turns[1].parts.push(Part::Hosted(hosted));
        request.turns[1]
            .parts
            .push(Part::Text(Text::new(Str::new("Done."))));
    })
    .unwrap();
    let wanted = "Running.\n\n```python\nprint(1)\n```\n```\n1\n```\n\nDone.";
    assert_eq!(found.body["messages"][1]["content"], wanted);
}

#[test]
fn an_empty_conversation_is_refused() {
    let found = through(
        &with(r#""top_p":1"#),
        Protocol::Responses,
        &other(),
        |request| {
            request.turns.clear();
        },
    );
    assert_eq!(
        found.err().and_then(|error| error.param).as_deref(),
        Some("input")
    );
}

#[test]
fn several_results_are_told_apart_whatever_their_order() {
    let body = talk(
        r#"[{"role":"user","content":"x"},{"role":"assistant","tool_calls":[{"id":"a","function":{"name":"f","arguments":"{}"}},{"id":"b","function":{"name":"g","arguments":"{}"}}]},{"role":"tool","tool_call_id":"b","content":"2"},{"role":"tool","tool_call_id":"a","content":"1"}]"#,
    );
    let found = through(&body, Protocol::Messages, &other(), |_| ()).unwrap();
    let ids: Vec<_> = [2, 3]
        .iter()
        .map(|i| found.body["messages"][i]["tool_call_id"].clone())
        .collect();
    assert_eq!(ids, ["a", "b"]);
}

mod any {
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::json::Tape;
    use crate::protocol::notes::Notes;

    const WHOLE: &str = r#"{"model":"m","messages":[{"role":"system","content":[{"type":"text","text":"s"}]},{"role":"user","content":[{"type":"text","text":"x"},{"type":"image_url","image_url":{"url":"data:image/png;base64,aGk="}}]},{"role":"assistant","content":"y","refusal":"no","reasoning_details":[{"type":"reasoning.text","text":"t","signature":"s","index":0},{"type":"reasoning.encrypted","data":"d","start_index":1,"end_index":3}],"tool_calls":[{"id":"a","type":"function","function":{"name":"f","arguments":"{\"k\":1}"}}]},{"role":"tool","tool_call_id":"a","content":"1"}],"tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object"}}},{"type":"web_search"}],"tool_choice":{"type":"function","function":{"name":"f"}},"response_format":{"type":"json_schema","json_schema":{"name":"n","schema":{}}},"stop":["a"],"reasoning":{"effort":"low"}}"#;
    const PIECES: [&str; 12] = [
        "null",
        "[]",
        "{}",
        "\"\"",
        "\"x\"",
        "0",
        "-1.5e9",
        "true",
        "[null]",
        "{\"type\":7}",
        "[[{}]]",
        "\"\\ud83d\\ude00\"",
    ];

    proptest! {
        /// Values of a valid request are replaced by others: never a panic, and
        /// what is accepted is written as JSON.
        #[test]
        fn no_request_breaks_anything(at in 0usize..400, piece in 0usize..12, second in 0usize..400) {
            let mut tape = Tape::new();
            let mut spans = Vec::new();
            collect(tape.parse(WHOLE).unwrap(), &mut spans);
            let mut body = WHOLE.to_owned();
            let mut chosen = [spans[at % spans.len()].clone(), spans[second % spans.len()].clone()];
            chosen.sort_by_key(|span| std::cmp::Reverse(span.start));
            for span in chosen {
                if body.is_char_boundary(span.end.min(body.len())) && span.end <= body.len() {
                    let mut changed = body.clone();
                    changed.replace_range(span, PIECES[piece]);
                    if Tape::new().parse(&changed).is_ok() {
                        body = changed;
                    }
                }
            }
            let mut tape = Tape::new();
            let mut notes = Notes::new();
            if let Ok(request) = crate::protocol::chat::request::decode(tape.parse(&body).unwrap(), &mut notes) {
                for capabilities in [openai(), other()] {
                    // The test's own helper reads what was written.
                    drop(sent(&request, &capabilities));
                }
            }
        }
    }

    fn collect(value: crate::protocol::json::Value<'_>, spans: &mut Vec<std::ops::Range<usize>>) {
        spans.push(value.span());
        value
            .members()
            .for_each(|(_, member)| collect(member, spans));
        value.items().for_each(|item| collect(item, spans));
    }
}

/// A result keeps what it was given.
#[test]
fn a_result_of_a_custom_tool_is_known_as_one() {
    let body = talk(
        r#"[{"role":"user","content":"x"},{"role":"assistant","tool_calls":[{"id":"a","type":"custom","custom":{"name":"c","input":"free \"text\""}}]},{"role":"tool","tool_call_id":"a","content":"1"}]"#,
    );
    let (found, _) = decoded(&body, |request| {
        let custom = matches!(
            &request.turns[2].parts[0],
            Part::Result(ToolResult { custom: true, .. })
        );
        (custom, request.custom_tools)
    })
    .unwrap();
    assert_eq!(found, (true, true));
}
