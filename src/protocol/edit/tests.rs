//! Edited texts against edited documents.

use proptest::prelude::*;
use serde_json::{Map, Value as Parsed, json};

use super::*;
use crate::protocol::json::Tape;
use crate::protocol::splice;

fn edited(text: &str, edit: impl for<'t> Fn(Value<'t>, &mut Edits<'t>)) -> String {
    let mut tape = Tape::new();
    let root = tape.parse(text).unwrap();
    let mut edits = Edits::new();
    edit(root, &mut edits);
    let patches = edits.into_patches();
    for pair in patches.windows(2) {
        assert!(pair[0].span.end <= pair[1].span.start, "{patches:?}");
    }
    let frames = [Bytes::copy_from_slice(text.as_bytes())];
    String::from_utf8(splice::apply(&frames, patches).concat()).unwrap()
}

#[test]
fn what_goes_takes_one_comma_with_it_and_the_rest_stays_as_written() {
    let text = r#"{ "a" : 1 , "b":[ 1 ,2, 3 ], "a":1e400,"c":"x" }"#;
    let without = |names: &[&str]| {
        edited(text, |root, edits| {
            names
                .iter()
                .for_each(|name| edits.remove_member(root, name));
        })
    };
    assert_eq!(without(&["a"]), r#"{ "b":[ 1 ,2, 3 ],"c":"x" }"#);
    assert_eq!(without(&["b"]), r#"{ "a" : 1, "a":1e400,"c":"x" }"#);
    assert_eq!(
        without(&["c"]),
        r#"{ "a" : 1 , "b":[ 1 ,2, 3 ], "a":1e400 }"#
    );
    assert_eq!(without(&["a", "b"]), r#"{ "c":"x" }"#);
    assert_eq!(without(&["a", "b", "c"]), "{  }");
    assert_eq!(without(&["z"]), text);
}

#[test]
fn elements_go_by_their_positions() {
    let text = "[0, 1, 2, 3]";
    let without = |positions: &[usize]| {
        edited(text, |root, edits| {
            positions.iter().for_each(|at| edits.remove(root, *at));
        })
    };
    assert_eq!(without(&[0]), "[1, 2, 3]");
    assert_eq!(without(&[3]), "[0, 1, 2]");
    assert_eq!(without(&[2, 1]), "[0, 3]");
    assert_eq!(without(&[0, 1, 3, 3, 9]), "[2]");
    assert_eq!(without(&[0, 1, 2, 3]), "[]");
}

#[test]
fn a_change_inside_of_what_goes_goes_with_it() {
    let text = r#"{"a":{"b":1,"c":2},"d":3}"#;
    let changed = edited(text, |root, edits| {
        let a = root.get("a").unwrap();
        edits.replace(a.get("b").unwrap(), "7");
        edits.remove_member(a, "c");
        edits.insert(a, "x", "1");
        edits.remove_member(root, "a");
    });
    assert_eq!(changed, r#"{"d":3}"#);
    let changed = edited(text, |root, edits| {
        let a = root.get("a").unwrap();
        edits.replace(a.get("b").unwrap(), "7");
        edits.replace(a, "null");
    });
    assert_eq!(changed, r#"{"a":null,"d":3}"#);
}

#[test]
fn what_is_put_in_stands_in_front_with_a_comma_only_where_something_follows() {
    let put = |text: &str, gone: &str| {
        edited(text, |root, edits| {
            edits.remove_member(root, gone);
            edits.insert(root, "x", "1");
            edits.insert(root, "y\"", "[]");
        })
    };
    assert_eq!(put("{}", ""), r#"{"x":1,"y\"":[]}"#);
    assert_eq!(put("{ }", ""), r#"{"x":1,"y\"":[] }"#);
    assert_eq!(put(r#"{"a":1}"#, "a"), r#"{"x":1,"y\"":[]}"#);
    assert_eq!(put(r#"{"a":1,"b":2}"#, "a"), r#"{"x":1,"y\"":[],"b":2}"#);
    assert_eq!(put("[1]", ""), "[1]");
}

#[test]
fn of_two_changes_to_one_value_the_first_counts() {
    let changed = edited(r#"{"a":1}"#, |root, edits| {
        edits.replace(root.get("a").unwrap(), "2");
        edits.replace(root.get("a").unwrap(), "3");
        edits.rename(root, "a", "b");
    });
    assert_eq!(changed, r#"{"b":2}"#);
}

fn document() -> impl Strategy<Value = Parsed> {
    let leaf = prop_oneof![
        Just(Parsed::Null),
        any::<bool>().prop_map(Parsed::from),
        any::<i32>().prop_map(Parsed::from),
        "[a-c\"\\\\{\\[,]{0,4}".prop_map(Parsed::from),
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Parsed::from),
            proptest::collection::vec(("[a-e]", inner), 0..5)
                .prop_map(|members| Parsed::Object(members.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

/// Every container, depth first, the outer one before the inner ones.
fn containers<'t>(value: Value<'t>, all: &mut Vec<Value<'t>>) {
    if value.is_object() || value.is_array() {
        all.push(value);
    }
    value.items().for_each(|item| containers(item, all));
    value
        .members()
        .for_each(|(_, member)| containers(member, all));
}

/// What the edits below mean, done to a parsed document in the same order.
fn model(value: &mut Parsed, plan: &mut impl Iterator<Item = u8>) {
    match value {
        Parsed::Array(items) => {
            let bits = plan.next().unwrap_or(0);
            items.iter_mut().for_each(|item| model(item, plan));
            let mut at = 0;
            items.retain(|_| {
                at += 1;
                bits >> (at - 1) & 1 == 0
            });
        }
        Parsed::Object(members) => {
            let bits = plan.next().unwrap_or(0);
            members.values_mut().for_each(|member| model(member, plan));
            let mut at = 0;
            members.retain(|_, _| {
                at += 1;
                bits >> (at - 1) & 1 == 0
            });
            if bits & 128 != 0 {
                members.insert("new".into(), json!({"n": 1}));
            }
        }
        _ => {}
    }
}

proptest! {
    #[test]
    fn the_edited_text_means_what_the_edited_document_is(
        document in document(), plan in proptest::collection::vec(any::<u8>(), 0..40), pretty in any::<bool>(),
    ) {
        let text = if pretty { serde_json::to_string_pretty(&document).unwrap() } else { document.to_string() };
        let changed = edited(&text, |root, edits| {
            let mut all = Vec::new();
            containers(root, &mut all);
            for (container, bits) in all.into_iter().zip(plan.iter().chain(std::iter::repeat(&0))) {
                (0..5).filter(|at| bits >> at & 1 == 1).for_each(|at| edits.remove(container, at));
                if bits & 128 != 0 {
                    edits.insert(container, "new", r#"{"n":1}"#);
                }
            }
        });
        let mut wanted = document;
        model(&mut wanted, &mut plan.into_iter());
        prop_assert_eq!(serde_json::from_str::<Parsed>(&changed).unwrap(), wanted);
    }

    #[test]
    fn replacing_values_leaves_every_other_byte(document in document(), pick in any::<prop::sample::Index>()) {
        let text = document.to_string();
        let mut tape = Tape::new();
        let root = tape.parse(&text).unwrap();
        let mut all = vec![root];
        containers(root, &mut all);
        let chosen = *pick.get(&all);
        let span = chosen.span();
        let mut edits = Edits::new();
        edits.replace_text(chosen, "n\"w");
        let wanted = format!("{}\"n\\\"w\"{}", &text[..span.start], &text[span.end..]);
        let frames = [Bytes::from(text.clone())];
        prop_assert_eq!(splice::apply(&frames, edits.into_patches()).concat(), wanted.into_bytes());
    }
}
