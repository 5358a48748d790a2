//! Adapters, each on bodies as clients write them.

use serde_json::json;

use super::*;

fn to(protocol: Protocol) -> Destination<'static> {
    Destination {
        protocol,
        host: "host.test",
        model: "m",
        version: None,
    }
}

fn chain(adapters: impl IntoIterator<Item = Adapter>) -> Chain {
    Chain::default().with(adapters.into_iter().map(Entry::On))
}

fn run(chain: &Chain, to: Destination<'_>, body: &str) -> (String, Option<String>, Notes) {
    let mut notes = Notes::new();
    let frames = vec![Bytes::copy_from_slice(body.as_bytes())];
    let adapted = adapt(chain, to, frames, &mut notes);
    let text = String::from_utf8(adapted.frames.concat()).unwrap();
    (text, adapted.model, notes)
}

#[track_caller]
fn becomes(adapter: Adapter, protocol: Protocol, before: &str, after: &str) {
    let (text, _, notes) = run(&chain([adapter]), to(protocol), before);
    assert_eq!(text, after);
    assert_eq!(notes.is_empty(), before == after, "{before}");
}

#[test]
fn without_an_adapter_the_frames_are_the_same_memory() {
    let frames = vec![Bytes::from_static(b"not JSON"), Bytes::from_static(b"{}")];
    let mut notes = Notes::new();
    let adapted = adapt(
        &Chain::default(),
        to(Protocol::Chat),
        frames.clone(),
        &mut notes,
    );
    let places = |frames: &[Bytes]| frames.iter().map(|f| f.as_ptr()).collect::<Vec<_>>();
    assert_eq!(places(&adapted.frames), places(&frames));
}

#[test]
fn what_is_no_json_is_left_to_its_provider() {
    let broken = r#"{"messages":[{"role":"developer"}"#;
    becomes(
        Adapter::SuppressDeveloperRole,
        Protocol::Chat,
        broken,
        broken,
    );
}

#[test]
fn reasoning_of_the_history_takes_the_name_that_deepseek_reads() {
    let change = |before: &str, after: &str| {
        let body = |turn: &str| {
            format!(r#"{{"x": 1e400, "messages":[{{"role":"user","reasoning":"u"}}, {turn}]}}"#)
        };
        becomes(
            Adapter::ReasoningContent,
            Protocol::Chat,
            &body(before),
            &body(after),
        );
    };
    change(
        r#"{"role":"assistant","reasoning":"a\u0041","content":null}"#,
        r#"{"reasoning_content":"a\u0041","role":"assistant","content":null}"#,
    );
    change(
        r#"{"thinking":{"content":"b","signature":"s"},"role":"assistant"}"#,
        r#"{"reasoning_content":"b","role":"assistant"}"#,
    );
    change(
        r#"{"role":"assistant","reasoning_content":null,"reasoning":"c"}"#,
        r#"{"reasoning_content":"c","role":"assistant"}"#,
    );
    for same in [
        r#"{"role":"assistant","reasoning_content":"d","reasoning":"e"}"#,
        r#"{"role":"assistant","reasoning":{"effort":"low"}}"#,
        r#"{"role":"assistant","reasoning":null}"#,
    ] {
        change(same, same);
    }
}

#[test]
fn the_developer_speaks_as_system() {
    becomes(
        Adapter::SuppressDeveloperRole,
        Protocol::Chat,
        r#"{"messages":[{ "role" : "developer", "content":"the \"developer\"" },{"role":"user"}]}"#,
        r#"{"messages":[{ "role" : "system", "content":"the \"developer\"" },{"role":"user"}]}"#,
    );
    becomes(
        Adapter::SuppressDeveloperRole,
        Protocol::Responses,
        r#"{"input":[{"type":"message","role":"developer","content":"x"}]}"#,
        r#"{"input":[{"type":"message","role":"system","content":"x"}]}"#,
    );
    let text = r#"{"input":"developer","role":"developer"}"#;
    becomes(
        Adapter::SuppressDeveloperRole,
        Protocol::Responses,
        text,
        text,
    );
}

fn rule(model: &str, rewrite_to: &str, field: &str, value: Option<Json>) -> OverrideRule {
    OverrideRule {
        model: model.into(),
        rewrite_to: rewrite_to.into(),
        conditions: vec![
            Condition {
                field: Path::parse("never.there").unwrap(),
                value: None,
            },
            Condition {
                field: Path::parse(field).unwrap(),
                value,
            },
        ],
    }
}

#[test]
fn the_first_rule_with_a_condition_that_holds_names_the_model() {
    let rules = vec![
        rule("other", "x", "a", None),
        rule("m", "by-value", "reasoning.effort", Some(json!("high"))),
        rule("m", "by-presence", "reasoning", None),
    ];
    let chain = chain([Adapter::ModelOverride(rules)]);
    let named = |protocol, body: &str| {
        let (text, model, _) = run(&chain, to(protocol), body);
        (text, model)
    };
    let (text, model) = named(
        Protocol::Responses,
        r#"{"model": "m","reasoning":{"effort":"h\u0069gh"}}"#,
    );
    assert_eq!(model.as_deref(), Some("by-value"));
    assert_eq!(
        text,
        r#"{"model": "by-value","reasoning":{"effort":"h\u0069gh"}}"#
    );
    let (_, model) = named(
        Protocol::Responses,
        r#"{"model":"m","reasoning":{"effort":1}}"#,
    );
    assert_eq!(model.as_deref(), Some("by-presence"));
    let untouched = r#"{"model":"m","a":1}"#;
    assert_eq!(
        named(Protocol::Responses, untouched),
        (untouched.into(), None)
    );
    let gemini = r#"{"reasoning":{}}"#;
    let by_path = (gemini.to_owned(), Some("by-presence".to_owned()));
    assert_eq!(named(Protocol::Gemini, gemini), by_path);
}

#[track_caller]
fn moves(from: &str, to: Option<&str>, values: &Json, before: &str, after: &str) {
    let path = |text: &str| Path::parse(text).unwrap();
    let values = values.as_object().unwrap().clone();
    let rules = vec![RewriteRule {
        from: path(from),
        to: to.map(path),
        values: values.into_iter().collect(),
    }];
    becomes(
        Adapter::ReasoningRewrite(rules),
        Protocol::Chat,
        before,
        after,
    );
}

#[test]
fn reasoning_options_move_to_where_a_provider_wants_them() {
    let words = json!({"none": "disabled", "low": "enabled", "x": null});
    for (before, after) in [
        (
            r#"{"a":1,"reasoning_effort":"low"}"#,
            r#"{"thinking":{"type":"enabled"},"a":1}"#,
        ),
        (
            r#"{"reasoning_effort":"none","thinking":{"k":1}}"#,
            r#"{"thinking":{"type":"disabled","k":1}}"#,
        ),
        (r#"{"reasoning_effort":"x","a":1}"#, r#"{"a":1}"#),
        (r#"{"a":1}"#, r#"{"a":1}"#),
    ] {
        moves(
            "reasoning_effort",
            Some("thinking.type"),
            &words,
            before,
            after,
        );
    }
    let effort = "reasoning.effort";
    let body = r#"{"reasoning":{"effort":"max"},"a":1}"#;
    moves(
        effort,
        Some("effort"),
        &json!({}),
        body,
        r#"{"effort":"max","a":1}"#,
    );
    let body = r#"{"reasoning":{"effort":1.50}}"#;
    let level = r#"{"reasoning":{"level":1.50}}"#;
    moves(effort, Some("reasoning.level"), &json!({}), body, level);
    let body = r#"{"reasoning":{"effort":"max","s":1}}"#;
    moves(effort, None, &json!({}), body, r#"{"reasoning":{"s":1}}"#);
}

#[test]
fn web_search_takes_the_form_of_the_target_and_other_tools_stay() {
    let forms = [
        (
            SearchForm::Anthropic,
            r#"{"type":"web_search_20250305","name":"web_search"}"#,
        ),
        (SearchForm::OpenAi, r#"{"type":"web_search"}"#),
        (
            SearchForm::OpenRouter,
            r#"{"type":"openrouter:web_search"}"#,
        ),
        (SearchForm::Google, r#"{"googleSearch":{}}"#),
    ];
    let body = |tool: &str| {
        format!(
            r#"{{"tools":[{{"type":"function","function":{{"name":"web_search"}}}}, {tool} ,{{"name":"web_search","input_schema":{{}}}}]}}"#
        )
    };
    for (target, written) in forms {
        let adapter = Adapter::WebSearchCoercion {
            target,
            max_uses: None,
        };
        for (_, other) in forms {
            becomes(
                adapter.clone(),
                Protocol::Chat,
                &body(other),
                &body(written),
            );
        }
    }
    let most = |before: &str, after: &str| {
        let adapter = Adapter::WebSearchCoercion {
            target: SearchForm::Anthropic,
            max_uses: Some(3),
        };
        becomes(adapter, Protocol::Messages, &body(before), &body(after));
    };
    most(
        r#"{"type":"web_search","filters":{"allowed_domains":["a"]},"user_location":{"type":"approximate"}}"#,
        r#"{"type":"web_search_20250305","name":"web_search","max_uses":3,"allowed_domains":["a"],"user_location":{"type":"approximate"}}"#,
    );
    most(
        r#"{"type":"web_search_20260318","name":"web_search"}"#,
        r#"{"max_uses":3,"type":"web_search_20260318","name":"web_search"}"#,
    );
    let own = r#"{"type":"web_search_20260318","name":"web_search","max_uses":9}"#;
    most(own, own);
}

#[test]
fn tool_search_goes_with_its_marks_and_its_history() {
    becomes(
        Adapter::StripToolSearch,
        Protocol::Messages,
        r#"{"tools":[{"type":"tool_search_tool_regex_20251119","name":"t"},{"name":"a","defer_loading":true}],"messages":[
            {"role":"user","content":"tool_search"},
            {"role":"assistant","content":[{"type":"server_tool_use","id":"s","name":"tool_search_tool_regex"},{"type":"tool_search_tool_result","tool_use_id":"s"},{"type":"text","text":"x"}]},
            {"role":"assistant","content":[{"type":"server_tool_use","id":"s","name":"tool_search_tool_bm25"}]}]}"#,
        r#"{"tools":[{"name":"a"}],"messages":[
            {"role":"user","content":"tool_search"},
            {"role":"assistant","content":[{"type":"text","text":"x"}]}]}"#,
    );
    becomes(
        Adapter::StripToolSearch,
        Protocol::Responses,
        r#"{"tools":[{"type":"tool_search"}],"tool_choice":"auto","input":[{"type":"tool_search_call"},{"type":"tool_search_output"},{"role":"user"}]}"#,
        r#"{"input":[{"role":"user"}]}"#,
    );
}

#[test]
fn an_odd_tool_id_becomes_the_same_valid_one_in_calls_and_results() {
    let body = |call: &str, result: &str| {
        format!(
            r#"{{"messages":[{{"role":"assistant","content":[{{"type":"tool_use","id":"{call}","name":"f","input":{{"id":"a.b"}}}},{{"type":"tool_use","id":"toolu_1","name":"g","input":{{}}}}]}},
            {{"role":"user","content":[{{"type":"tool_result","tool_use_id":"{result}"}},{{"type":"tool_result","tool_use_id":"toolu_1"}}]}}]}}"#
        )
    };
    let chain = chain([Adapter::NormalizeToolIds]);
    let (text, _, notes) = run(
        &chain,
        to(Protocol::Messages),
        &body("a.b:c", "a\\u002eb:c"),
    );
    let id = crate::protocol::fit::call_id(
        &crate::protocol::json::Str::new("a.b:c"),
        Protocol::Messages,
    )
    .into_owned();
    assert_eq!(text, body(&id, &id));
    assert!(
        id.bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
    );
    assert!(!notes.is_empty());
    let sound = body("toolu_2", "toolu_2");
    assert_eq!(run(&chain, to(Protocol::Messages), &sound).0, sound);
}

#[test]
fn odd_ids_are_found_wherever_the_frames_are_cut() {
    let filler = "x".repeat(700);
    let text = |id: &str| {
        format!(
            r#"{{"a":"{filler}","content":[{{"type":"tool_result","tool_use_id" : "{id}"}}],"b":"{filler}"}}"#
        )
    };
    let (sound, odd) = (text("toolu_01"), text("call:1"));
    let long = text(&"x".repeat(300));
    for cut in 1..odd.len() {
        let frames = |text: &str| {
            let cut = cut.min(text.len());
            [&text[..cut], &text[cut..]].map(|part| Bytes::copy_from_slice(part.as_bytes()))
        };
        assert!(ids::may_concern(&frames(&odd)), "{cut}");
        assert!(ids::may_concern(&frames(&long)), "{cut}");
        assert!(!ids::may_concern(&frames(&sound)), "{cut}");
    }
    assert!(!ids::may_concern(&[]));
}

#[test]
fn a_token_is_found_across_any_seams() {
    let text = b"abcabd";
    for cut in 0..=6 {
        for second in cut..=6 {
            let frames =
                [&text[..cut], &text[cut..second], &text[second..]].map(Bytes::copy_from_slice);
            assert!(
                mentions(&frames, "abd") && mentions(&frames, "cab"),
                "{cut} {second}"
            );
            assert!(!mentions(&frames, "abb") && !mentions(&frames, "cc"));
        }
    }
}

#[test]
fn gpt5_options_go_by_themselves_where_the_model_reasons() {
    let change = |model, protocol, before: &str, after: &str| {
        let to = Destination {
            model,
            ..to(protocol)
        };
        assert_eq!(run(&Chain::default(), to, before).0, after, "{model}");
    };
    let options = r#""temperature":0.2,"top_p":0.9,"presence_penalty":1,"frequency_penalty":-1,"logprobs":true,"top_logprobs":3,"logit_bias":{"1":2},"stop":["x"]"#;
    let full = format!(r#"{{"model":"x",{options},"max_tokens":9,"seed":1}}"#);
    let bare = r#"{"model":"x","max_completion_tokens":9,"seed":1}"#;
    for model in [
        "gpt-5",
        "gpt-5-mini",
        "gpt-5-2025-08-07",
        "openai/gpt-5-codex",
        "GPT-5",
    ] {
        change(model, Protocol::Chat, &full, bare);
    }
    for model in ["gpt-5-chat-latest", "gpt-50", "gpt-4.1", "my-gpt-5"] {
        change(model, Protocol::Chat, &full, &full);
    }
    let harmless = r#"{"temperature":1.0,"top_p":1,"presence_penalty":0,"logprobs":false,"logit_bias":{},"stop":null}"#;
    change("gpt-5", Protocol::Chat, harmless, harmless);
    let free = r#"{"temperature":0.2}"#;
    change("gpt-5.2", Protocol::Chat, free, free);
    let none = r#"{"temperature":0.2,"reasoning":{"effort":"none"}}"#;
    change("gpt-5.2", Protocol::Responses, none, none);
    change(
        "gpt-5.2",
        Protocol::Responses,
        r#"{"temperature":0.2,"reasoning":{"effort":"low"}}"#,
        r#"{"reasoning":{"effort":"low"}}"#,
    );
    change(
        "gpt-5.2",
        Protocol::Chat,
        r#"{"temperature":0.2,"reasoning_effort":"low"}"#,
        r#"{"reasoning_effort":"low"}"#,
    );
}

#[test]
fn a_later_entry_wins_and_automatic_adapters_can_be_switched_off() {
    let gpt5 = Destination {
        model: "gpt-5",
        ..to(Protocol::Chat)
    };
    let claude = Destination {
        host: "api.anthropic.com",
        ..to(Protocol::Messages)
    };
    let kinds = |chain: &Chain, to| chain.for_target(to).map(Adapter::kind).collect::<Vec<_>>();
    let none = Chain::default();
    assert_eq!(kinds(&none, gpt5), [Kind::SuppressGpt5Options]);
    assert_eq!(kinds(&none, claude), [Kind::NormalizeToolIds]);
    assert_eq!(kinds(&none, to(Protocol::Messages)), []);
    assert_eq!(
        kinds(
            &none,
            Destination {
                protocol: Protocol::Embeddings,
                ..gpt5
            }
        ),
        []
    );
    let provider = none.with([
        Entry::On(Adapter::ReasoningContent),
        Entry::On(Adapter::StripToolSearch),
        Entry::Off(Kind::SuppressGpt5Options),
    ]);
    assert_eq!(
        kinds(&provider, gpt5),
        [Kind::ReasoningContent, Kind::StripToolSearch]
    );
    let model = provider.with([
        Entry::Off(Kind::ReasoningContent),
        Entry::On(Adapter::SuppressGpt5Options),
    ]);
    assert_eq!(
        kinds(&model, gpt5),
        [Kind::StripToolSearch, Kind::SuppressGpt5Options]
    );
    let again = model.with([Entry::On(Adapter::ReasoningContent)]);
    assert_eq!(
        kinds(&again, gpt5),
        [
            Kind::StripToolSearch,
            Kind::SuppressGpt5Options,
            Kind::ReasoningContent
        ]
    );
}

/// What becomes of a body by what is automatic there, and the notes' words.
fn automatic(to: Destination<'_>, body: &str) -> (String, Vec<String>) {
    let (text, _, notes) = run(&Chain::default(), to, body);
    let words = notes.iter().map(|note| note.what.to_string());
    (text, words.collect())
}

#[test]
fn geminis_signatures_go_where_openai_would_refuse_them() {
    let openai = Destination {
        host: "api.openai.com",
        ..to(Protocol::Chat)
    };
    let signed = r#"{"model":"m","messages":[{"role":"assistant","tool_calls":[{"id":"c","extra_content":{"google":{"thought_signature":"c2ln"}},"type":"function","function":{"name":"f","arguments":"{}"}}]}]}"#;
    let bare = signed.replace(
        r#""extra_content":{"google":{"thought_signature":"c2ln"}},"#,
        "",
    );
    assert_eq!(
        automatic(openai, signed),
        (bare.clone(), vec!["thought_signature".into()])
    );
    assert_eq!(automatic(openai, &bare), (bare, vec![]));
    assert_eq!(
        automatic(to(Protocol::Chat), signed),
        (signed.to_owned(), vec![]),
        "others may know what it is"
    );
}

#[test]
fn unsigned_calls_of_the_current_exchange_get_geminis_word_for_that() {
    let gemini = Destination {
        host: "generativelanguage.googleapis.com",
        model: "gemini-3-pro-preview",
        ..to(Protocol::Gemini)
    };
    let call = r#"{"functionCall":{"name":"f","args":{}}}"#;
    let result = r#"{"role":"user","parts":[{"functionResponse":{"name":"f","response":{}}}]}"#;
    let user = r#"{"role":"user","parts":[{"text":"go"}]}"#;
    let step = format!(r#"{{"role":"model","parts":[{{"text":"a"}},{call},{call}]}}"#);
    let signed = format!(
        r#"{{"role":"model","parts":[{{"text":"a"}},{{"thoughtSignature":"skip_thought_signature_validator","functionCall":{{"name":"f","args":{{}}}}}},{call}]}}"#
    );
    let body = |step: &str| {
        format!(
            r#"{{"contents":[{user},{OLD},{result},{user},{step},{result},{step},{result}]}}"#,
            OLD = r#"{"role":"model","parts":[{"functionCall":{"name":"f","args":{}}}]}"#
        )
    };
    let expected = (body(&signed), vec!["thought_signature".to_owned()]);
    assert_eq!(automatic(gemini, &body(&step)), expected);
    assert_eq!(
        automatic(gemini, &body(&signed)).0,
        body(&signed),
        "what has one keeps it"
    );
    for model in ["gemini-2.5-pro", "gemma-3-27b-it", "m"] {
        let older = Destination { model, ..gemini };
        assert_eq!(automatic(older, &body(&step)).0, body(&step), "{model}");
    }
    let chat = Destination {
        protocol: Protocol::Chat,
        ..gemini
    };
    let turns = r#"{"role":"user","content":"go"},{"role":"assistant","tool_calls":[{"id":"c"},{"id":"d"}]},{"role":"tool","tool_call_id":"c"}"#;
    let expected = turns.replacen(
        r#"{"id":"c"}"#,
        r#"{"extra_content":{"google":{"thought_signature":"skip_thought_signature_validator"}},"id":"c"}"#,
        1,
    );
    let wrapped = |turns: &str| format!(r#"{{"messages":[{turns}]}}"#);
    assert_eq!(
        automatic(chat, &wrapped(turns)).0,
        wrapped(&expected),
        "Google's own layer of chat wants them too"
    );
}

#[test]
fn what_a_version_of_anthropics_refuses_goes_where_the_operator_sets_that_version() {
    let pinned = |version| Destination {
        version: Some(version),
        ..to(Protocol::Messages)
    };
    let before = r#"{"model":"m","temperature":1.0,"top_k":5,"max_tokens":9,"messages":[{"role":"user","content":[{"type":"text","text":"a","citations":[{"type":"x"}]},{"type":"document","source":{}}]},{"role":"assistant","content":[{"type":"document","source":{}},{"type":"text","text":"b","citations":[]}]},{"role":"assistant","content":[{"type":"document","source":{}}]},{"role":"user","content":"c"}],"top_p":0.5}"#;
    let after = r#"{"model":"m","max_tokens":9,"messages":[{"role":"user","content":[{"type":"text","text":"a"},{"type":"document","source":{}}]},{"role":"assistant","content":[{"type":"text","text":"b","citations":[]}]},{"role":"user","content":"c"}]}"#;
    let (text, notes) = automatic(pinned("2026-10-21"), before);
    assert_eq!(text, after);
    assert_eq!(
        notes,
        [
            "temperature",
            "top_p",
            "top_k",
            "messages[].content[].citations",
            "messages[].content[]=document"
        ]
    );
    assert_eq!(automatic(pinned("2026-10-21"), after).0, after);
    assert_eq!(automatic(pinned("2023-06-01"), before).0, before);
    assert_eq!(automatic(to(Protocol::Messages), before).0, before);
}
