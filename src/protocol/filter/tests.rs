//! Answers put right, cut into pieces of any size.

use super::*;
use crate::protocol::Protocol;
use crate::protocol::collect::tests::any_response;
use crate::protocol::grammar::Order;
use crate::protocol::ir::{Arguments, Call, Choice, Part, Text};
use proptest::prelude::*;

fn answer(parts: Vec<Part<'static>>) -> Response<'static> {
    Response {
        choices: vec![Choice {
            parts,
            finish: Some(Finish::Stop),
            logprobs: Vec::new(),
        }],
        ..Response::default()
    }
}

fn text(words: &str) -> Part<'static> {
    Part::Text(Text::new(Str::from(words.to_owned())))
}

fn call(name: &str, arguments: &str) -> Part<'static> {
    Part::Call(Call {
        id: Str::new("a"),
        name: Str::from(name.to_owned()),
        namespace: None,
        arguments: Arguments::Text(Str::from(arguments.to_owned())),
        opaque: None,
        cache: None,
    })
}

/// The same deltas with texts and arguments cut into pieces of that many letters.
fn cut(delta: Delta<'_>, letters: usize, then: &mut dyn FnMut(Delta<'_>)) {
    let pieces = |text: &Str<'_>| {
        let letters_of: Vec<char> = text.plain().chars().collect();
        let chunks = letters_of.chunks(letters.max(1));
        chunks
            .map(|chunk| chunk.iter().collect::<String>())
            .collect::<Vec<_>>()
    };
    match delta {
        Delta::Text { choice, part, text } => {
            for piece in pieces(&text) {
                let text = Str::from(piece);
                then(Delta::Text { choice, part, text });
            }
        }
        Delta::Arguments {
            choice,
            part,
            piece,
        } => {
            for piece in pieces(&piece) {
                let piece = Str::from(piece);
                then(Delta::Arguments {
                    choice,
                    part,
                    piece,
                });
            }
        }
        other => then(other),
    }
}

/// The answer as it comes out of a stream of such pieces.
fn streamed(response: &Response<'_>, fixups: &Fixups, letters: usize) -> (Response<'static>, bool) {
    let mut filter = Filter::new(fixups.clone());
    let mut collector = Collector::new(usize::MAX);
    let mut order = Order::default();
    replay(response, &mut |delta| {
        cut(delta, letters, &mut |delta| {
            filter.delta(delta, &mut |delta| {
                assert_eq!(order.check(&delta), Ok(()));
                collector.delta(delta);
            });
        });
    });
    assert_eq!(order.finished(), Ok(()));
    (collector.finish(), filter.stopped())
}

fn said(response: &Response<'_>) -> String {
    let parts = response.choices.iter().flat_map(|choice| &choice.parts);
    let words = parts.map(|part| match part {
        Part::Text(text) => text.text.to_plain_string(),
        Part::Call(call) => {
            let namespace = call.namespace.as_ref().map(|n| format!("{}/", n.plain()));
            let arguments = match &call.arguments {
                Arguments::Object(raw) => raw.as_str().to_owned(),
                Arguments::Text(text) => format!("text {}", text.plain()),
                Arguments::Free(text) => format!("free {}", text.plain()),
            };
            format!(
                "{}{}({arguments})",
                namespace.unwrap_or_default(),
                call.name.plain()
            )
        }
        other => format!("{other:?}"),
    });
    words.collect::<Vec<_>>().join("|")
}

/// What is said after the filter, whatever the pieces.
fn filtered(parts: Vec<Part<'static>>, fixups: &Fixups) -> String {
    let response = answer(parts);
    let whole = said(&Filter::new(fixups.clone()).response(response.clone()));
    for letters in [1, 2, 3, 5, 1000] {
        let (streamed, _) = streamed(&response, fixups, letters);
        assert_eq!(said(&streamed), whole, "in pieces of {letters}");
    }
    whole
}

fn stops(texts: &[&str]) -> Fixups {
    Fixups {
        stop: texts.iter().map(|text| (*text).to_owned()).collect(),
        ..Fixups::default()
    }
}

#[test]
fn an_answer_ends_at_a_stop_text_and_what_only_resembles_one_is_let_through() {
    for (words, texts, left) in [
        ("one END two", vec!["END"], "one "),
        ("one ENE EN", vec!["END"], "one ENE EN"),
        ("abcd", vec!["bcd", "c"], "ab"),
        ("aab", vec!["ab"], "a"),
        ("x\n\nHuman: y", vec!["\n\nHuman:", "zz"], "x"),
        ("é🙂é", vec!["🙂"], "é"),
        ("nothing", vec![""], "nothing"),
        ("END", vec!["END"], ""),
    ] {
        assert_eq!(filtered(vec![text(words)], &stops(&texts)), left, "{words}");
    }
    let two = filtered(
        vec![text("a END"), text("b"), call("f", "{}")],
        &stops(&["END"]),
    );
    assert_eq!(two, "a ");
}

#[test]
fn a_stop_is_told_with_its_text_and_nothing_comes_after_it() {
    let response = answer(vec![text("one END two"), text("three")]);
    let (streamed, stopped) = streamed(&response, &stops(&["END"]), 2);
    assert!(stopped);
    assert_eq!(
        streamed.choices[0].finish,
        Some(Finish::StopSequence(Some("END".to_owned())))
    );
    let mut filter = Filter::new(stops(&["x"]));
    let unstopped = filter.response(answer(vec![text("abc")]));
    assert!(!filter.stopped());
    assert_eq!(unstopped.choices[0].finish, Some(Finish::Stop));
}

#[test]
fn a_provider_that_is_left_at_a_stop_has_not_failed() {
    let mut filter = Filter::new(stops(&["END"]));
    let mut seen = Vec::new();
    let mut emit = |delta: Delta<'_>| seen.push(format!("{delta:?}"));
    filter.delta(
        Delta::PartStart {
            choice: 0,
            part: 0,
            kind: PartKind::Text,
        },
        &mut emit,
    );
    let text = Str::new("END");
    filter.delta(
        Delta::Text {
            choice: 0,
            part: 0,
            text,
        },
        &mut emit,
    );
    let cut_off = || Delta::Error {
        class: ErrorClass::UpstreamFailed,
        message: String::new(),
        code: None,
    };
    filter.delta(cut_off(), &mut emit);
    filter.delta(cut_off(), &mut emit);
    assert_eq!(seen.len(), 4, "{seen:?}");
    assert_eq!(seen.last().map(String::as_str), Some("End"));
}

#[test]
fn one_answer_of_two_may_stop_while_the_other_goes_on() {
    let mut response = answer(vec![text("a END b")]);
    response.choices.push(Choice {
        parts: vec![text("c")],
        finish: Some(Finish::Length),
        logprobs: Vec::new(),
    });
    let filtered = Filter::new(stops(&["END"])).response(response);
    assert_eq!(said(&filtered), "a |c");
    assert_eq!(filtered.choices[1].finish, Some(Finish::Length));
}

#[test]
fn one_fence_around_the_whole_answer_is_taken_off() {
    let fenced = Fixups {
        fenced: true,
        ..Fixups::default()
    };
    for (words, left) in [
        ("```json\n{\"a\":1}\n```", "{\"a\":1}"),
        ("\n ```\n{}\n```  \n\n", "{}"),
        ("```JSON \r\n[1]```", "[1]"),
        ("{\"a\":\"```\"}", "{\"a\":\"```\"}"),
        (
            "```json\n{\"a\":\"```x``` ``\\n``` b\"}\n```\n",
            "{\"a\":\"```x``` ``\\n``` b\"}",
        ),
        ("```json\n{}", "{}"),
        ("```\n`\n```", "`"),
        ("```\n````\n```", "````"),
        ("```json\n{} `` ", "{} `` "),
        ("``", "``"),
        ("plain", "plain"),
        ("```not a fence", "```not a fence"),
        ("", ""),
    ] {
        assert_eq!(filtered(vec![text(words)], &fenced), left, "{words:?}");
    }
}

#[test]
fn a_word_in_a_string_is_answered_bare() {
    let bare = Fixups {
        bare_enum: true,
        fenced: true,
        ..Fixups::default()
    };
    for (words, left) in [
        ("\"re\\u0064\"", "red"),
        ("```json\n\"red\"\n```", "red"),
        ("{\"value\": \"red\"}", "red"),
        ("red", "red"),
        ("[\"red\"]", "[\"red\"]"),
    ] {
        assert_eq!(filtered(vec![text(words)], &bare), left);
    }
}

#[test]
fn names_and_namespaces_are_the_clients_again() {
    let mut fixups = Fixups::default();
    let weather = fixups
        .names
        .fit(&Str::new("9get weather"), None, Protocol::Gemini);
    fixups
        .names
        .fit(&Str::new("read"), Some(&Str::new("fs")), Protocol::Gemini);
    fixups.names.fit(&Str::new("same"), None, Protocol::Gemini);
    let parts = vec![
        call(&weather, "{}"),
        call("fs__read", ""),
        call("same", "{"),
    ];
    assert_eq!(
        filtered(parts, &fixups),
        "9get weather(text {})|fs/read(text )|same(text {)"
    );
}

#[test]
fn custom_input_and_wrapped_values_are_unwrapped() {
    let fixups = Fixups {
        custom: vec!["patch".to_owned()],
        wrapped: vec!["list".to_owned()],
        ..Fixups::default()
    };
    let parts = vec![
        call("patch", "{\"input\":\"a \\\"b\\\"\\n\\u00e9\"}"),
        call("patch", "{\"other\":1}"),
        call("patch", "broken"),
        call("patch", ""),
        call("list", "{ \"value\": [1.50, 12345678901234567890] }"),
        call("list", "{\"x\":1}"),
        call("list", "{\"val"),
        call("other", "{}"),
    ];
    assert_eq!(
        filtered(parts, &fixups),
        "patch(free a \"b\"\né)|patch(free {\"other\":1})|patch(free broken)|patch(free )|\
         list([1.50, 12345678901234567890])|list({\"x\":1})|list(text {\"val)|other(text {})"
    );
}

#[test]
fn what_is_held_back_is_bounded() {
    let fixups = Fixups {
        custom: vec!["f".to_owned()],
        ..Fixups::default()
    };
    let mut filter = Filter::new(fixups);
    let mut errors = 0;
    let mut emit = |delta: Delta<'_>| errors += usize::from(matches!(delta, Delta::Error { .. }));
    filter.delta(
        Delta::PartStart {
            choice: 0,
            part: 0,
            kind: PartKind::Call {
                id: Str::new("a"),
                name: Str::new("f"),
                namespace: None,
                custom: false,
            },
        },
        &mut emit,
    );
    let piece = "x".repeat(1 << 20);
    for _ in 0..40 {
        filter.delta(
            Delta::Arguments {
                choice: 0,
                part: 0,
                piece: Str::new(&piece),
            },
            &mut emit,
        );
    }
    assert_eq!(errors, 1);
}

proptest! {
    #[test]
    fn without_fixups_nothing_changes(response in any_response()) {
        let (streamed, stopped) = streamed(&response, &Fixups::default(), 1000);
        prop_assert_eq!(format!("{streamed:?}"), format!("{response:?}"));
        prop_assert!(!stopped);
    }

    #[test]
    fn pieces_of_any_size_give_the_same_answer(
        words in "[ab`\nj ]{0,30}",
        head in prop_oneof![Just(""), Just("```\n"), Just(" ```json\n")],
        tail in prop_oneof![Just(""), Just("```"), Just("\n```\n")],
        stop in proptest::collection::vec("[ab`]{0,4}", 0..3),
        fenced in any::<bool>(), bare_enum in any::<bool>(), letters in 1_usize..7,
    ) {
        let response = answer(vec![text(&format!("{head}{words}{tail}")), text(&words)]);
        let fixups = Fixups { stop, fenced, bare_enum, ..Fixups::default() };
        let (pieces, cut_short) = streamed(&response, &fixups, letters);
        let mut filter = Filter::new(fixups);
        let whole = filter.response(response);
        prop_assert_eq!(format!("{pieces:?}"), format!("{whole:?}"));
        prop_assert_eq!(cut_short, filter.stopped());
    }

    #[test]
    fn any_answer_stays_in_order(response in any_response(), stop in "[a-z]", letters in 1_usize..3) {
        let fixups = Fixups { stop: vec![stop], fenced: true, custom: vec![String::new()], ..Fixups::default() };
        drop(streamed(&response, &fixups, letters));
    }
}
