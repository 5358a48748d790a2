//! Any answer, taken apart and put together again.

use super::*;
use crate::protocol::Protocol;
use crate::protocol::grammar::Order;
use crate::protocol::ir::{
    Finish, Hosted, HostedKind, Media, MediaKind, Opaque, SearchHit, Source,
};
use crate::protocol::json::Raw;
use crate::protocol::usage::Tokens;
use proptest::prelude::*;

/// A hosted call as Anthropic writes it.
const USE: &str =
    r#"{"type":"server_tool_use","id":"srvtoolu_1","name":"web_search","input":{"query":"q"}}"#;

fn collected(response: &Response<'_>, limit: usize) -> Collector {
    let mut order = Order::default();
    let mut collector = Collector::new(limit);
    replay(response, &mut |delta| {
        assert_eq!(order.check(&delta), Ok(()));
        collector.delta(delta);
    });
    collector
}

#[test]
fn pieces_of_interleaved_parts_and_answers_find_their_places() {
    let mut collector = Collector::new(1000);
    let start = |choice, part| Delta::PartStart {
        choice,
        part,
        kind: PartKind::Text,
    };
    let text = |choice, part, text| Delta::Text {
        choice,
        part,
        text: Str::new(text),
    };
    for delta in [
        start(0, 0),
        start(1, 0),
        text(1, 0, "x"),
        start(0, 1),
        text(0, 1, "c"),
        text(0, 0, "a"),
        text(1, 0, "y"),
        text(0, 0, "b"),
        text(7, 0, "nobody's"),
        text(0, 9, "nobody's"),
    ] {
        collector.delta(delta);
    }
    assert!(!collector.is_full());
    let response = collector.finish();
    let words: Vec<String> = response
        .choices
        .iter()
        .flat_map(|choice| &choice.parts)
        .map(|part| match part {
            Part::Text(text) => text.text.to_plain_string(),
            other => format!("{other:?}"),
        })
        .collect();
    assert_eq!(words, ["ab", "c", "xy"]);
}

#[test]
fn what_is_too_much_is_left_out_and_told() {
    let mut collector = Collector::new(200);
    collector.delta(Delta::PartStart {
        choice: 0,
        part: 0,
        kind: PartKind::Text,
    });
    for _ in 0..100 {
        collector.delta(Delta::Text {
            choice: 0,
            part: 0,
            text: Str::new("0123456789"),
        });
    }
    collector.delta(Delta::PartStart {
        choice: usize::MAX,
        part: 0,
        kind: PartKind::Text,
    });
    assert!(collector.is_full());
    let response = collector.finish();
    let Some(Part::Text(text)) = response.choices[0].parts.first() else {
        panic!("{response:?}");
    };
    assert!(text.text.len() < 200 && response.choices.len() == 1);
}

fn any_text() -> impl Strategy<Value = Str<'static>> {
    "[a-z\n\"é]{0,6}".prop_map(Str::from)
}

fn any_opaque() -> impl Strategy<Value = Option<Opaque<'static>>> {
    proptest::option::of("[a-z]{4}".prop_map(|data| Opaque {
        kind: OpaqueKind::GeminiSignature,
        data: Str::from(data),
        model: Some(Str::new("m")),
        account: None,
    }))
}

fn any_arguments() -> impl Strategy<Value = Arguments<'static>> {
    prop_oneof![
        Just(Arguments::Object(Raw::parse("{ \"a\": 1.50}").unwrap())),
        "(\\{\\}|\\{\"a\":\"[a-z]{0,3}\"\\})?".prop_map(|text| Arguments::Text(Str::from(text))),
        any_text().prop_map(Arguments::Free),
    ]
}

/// Calls have ids and names: a decoder makes them up where a provider gave none.
fn any_call() -> impl Strategy<Value = Part<'static>> {
    let word = || "[a-z]{1,6}".prop_map(Str::from);
    (word(), word(), any_arguments(), any_opaque()).prop_map(|(id, name, arguments, opaque)| {
        Part::Call(Call {
            id,
            name,
            namespace: None,
            arguments,
            opaque,
            cache: None,
        })
    })
}

fn any_picture() -> impl Strategy<Value = Part<'static>> {
    any_text().prop_map(|data| {
        Part::Media(Media {
            kind: MediaKind::Image,
            source: Source::Inline {
                mime: "image/png".into(),
                data,
            },
            name: None,
            context: None,
            detail: None,
            cite: false,
            cache: None,
            path: String::new(),
        })
    })
}

pub(in crate::protocol) fn any_part() -> impl Strategy<Value = Part<'static>> {
    let annotation = any_text().prop_map(|url| Annotation {
        url,
        title: Some(Str::new("t")),
        cited: None,
        span: Some((1, 2)),
    });
    prop_oneof![
        (
            any_text(),
            proptest::collection::vec(annotation, 0..3),
            any_opaque()
        )
            .prop_map(|(text, annotations, opaque)| Part::Text(Text {
                text,
                annotations,
                cache: None,
                opaque
            })),
        any_text().prop_map(Part::Refusal),
        (
            any_text(),
            proptest::collection::vec(any_text(), 0..3),
            any_opaque()
        )
            .prop_map(|(text, summary, opaque)| Part::Reasoning(Thought {
                text,
                summary,
                opaque,
                redacted: false
            })),
        any_call(),
        any_picture(),
        any_text().prop_map(|url| Part::Hosted(Hosted {
            kind: HostedKind::WebSearch,
            id: Str::new("ws"),
            input: Some(Raw::EMPTY_OBJECT),
            sources: vec![SearchHit { url, title: None }],
            output: None,
            failed: false,
            native: vec![Raw::parse(USE).unwrap()],
            origin: Protocol::Messages,
        })),
    ]
}

pub(in crate::protocol) fn any_response() -> impl Strategy<Value = Response<'static>> {
    let choice = (
        proptest::collection::vec(any_part(), 0..5),
        prop_oneof![
            Just(Finish::Stop),
            Just(Finish::Length),
            Just(Finish::ContentFilter {
                category: None,
                text: Some("no".to_owned())
            })
        ],
        0_usize..3,
    )
        .prop_map(|(parts, finish, logprobs)| Choice {
            parts,
            finish: Some(finish),
            logprobs: vec![Raw::parse("{\"token\":\"x\"}").unwrap(); logprobs],
        });
    (
        proptest::collection::vec(choice, 0..3),
        proptest::option::of(any_text()),
        proptest::option::of(any::<u64>()),
    )
        .prop_map(|(choices, id, tokens)| Response {
            upstream_id: id.clone(),
            upstream_model: id.clone(),
            choices,
            usage: tokens.map(|tokens| Tokens {
                input: Some(tokens),
                ..Tokens::default()
            }),
            web_searches: tokens.map(|_| 3),
            service: id,
            fingerprint: None,
        })
}

proptest! {
    #[test]
    fn an_answer_that_is_replayed_and_collected_is_the_same(response in any_response()) {
        let collector = collected(&response, usize::MAX);
        prop_assert!(!collector.is_full());
        prop_assert_eq!(format!("{:?}", collector.finish()), format!("{response:?}"));
    }

    #[test]
    fn a_limit_of_any_size_is_kept(response in any_response(), limit in 0_usize..400) {
        let collector = collected(&response, limit);
        prop_assert!(collector.left <= limit);
        drop(collector.finish());
    }
}
