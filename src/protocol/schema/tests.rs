//! Schemas in every dialect, and schemas that nobody should write.

use super::*;
use proptest::prelude::*;

fn raw(text: &str) -> Raw<'static> {
    Raw::parse(text.to_owned()).unwrap()
}

fn gemini(text: &str) -> String {
    for_gemini(&raw(text)).as_str().to_owned()
}

fn openapi(text: &str) -> String {
    for_openapi(&raw(text)).unwrap().as_str().to_owned()
}

fn anthropic(text: &str) -> String {
    for_anthropic(&raw(text)).as_str().to_owned()
}

fn standard(text: &str) -> String {
    from_gemini(&raw(text)).as_str().to_owned()
}

#[test]
fn gemini_keeps_what_it_knows_and_is_told_the_rest_in_words() {
    for (from, to) in [
        (
            r#"{"$schema":"x","type":"object","properties":{"z":{"type":"string","minLength":3,"pattern":"^a"},"a":{"type":"integer","minimum":12345678901234567890123}},"required":["z","gone"],"additionalProperties":false}"#,
            r#"{"type":"object","properties":{"z":{"type":"string","description":"(minLength: 3) (pattern: ^a)"},"a":{"type":"integer","minimum":12345678901234567890123}},"required":["z"],"additionalProperties":false}"#,
        ),
        (
            r#"{"const":"x","description":"d"}"#,
            r#"{"enum":["x"],"description":"d"}"#,
        ),
        (r#"{"enum":[1,2]}"#, r#"{"enum":[1,2]}"#),
        (
            r#"{"allOf":[{"properties":{"a":{"type":"string"}},"required":["a"]},{"properties":{"a":{"type":"number","title":"t"},"b":true}}]}"#,
            r#"{"properties":{"a":{"type":"string","title":"t"},"b":{}},"required":["a"]}"#,
        ),
        (
            r#"{"type":"array","items":[{"type":"string"},true]}"#,
            r#"{"type":"array","prefixItems":[{"type":"string"},{}]}"#,
        ),
        (
            r#"{"oneOf":[{"type":"string"},{"type":"null"}],"default":{"a":1.50}}"#,
            r#"{"oneOf":[{"type":"string"},{"type":"null"}],"description":"(default: {\"a\":1.50})"}"#,
        ),
        (
            r#"{"type":"STRING","nullable":true}"#,
            r#"{"type":["string","null"]}"#,
        ),
        ("true", "{}"),
    ] {
        assert_eq!(gemini(from), to);
    }
}

#[test]
fn a_reference_with_neighbours_is_written_out_and_one_alone_stays() {
    assert_eq!(
        gemini(
            r##"{"type":"object","properties":{"a":{"$ref":"#/definitions/P"},"b":{"$ref":"#/definitions/P","description":"mine"},"c":{"$ref":"#/properties/a"}},"definitions":{"P":{"type":"string","description":"its"}}}"##
        ),
        r##"{"type":"object","properties":{"a":{"$ref":"#/$defs/P"},"b":{"description":"mine","type":"string"},"c":{"type":"string","description":"its"}},"$defs":{"P":{"type":"string","description":"its"}}}"##
    );
    assert_eq!(
        gemini(r##"{"properties":{"a":{"$ref":"#/$defs/no"},"b":{"$ref":"other.json"}}}"##),
        r#"{"properties":{"a":{},"b":{}}}"#
    );
}

#[test]
fn a_circle_stays_where_it_may_be_left_out_and_is_cut_where_it_may_not() {
    let optional = r##"{"type":"object","properties":{"next":{"$ref":"#"}}}"##;
    assert_eq!(gemini(optional), optional);
    let list = r##"{"properties":{"n":{"$ref":"#/$defs/N"}},"$defs":{"N":{"type":"object","properties":{"next":{"$ref":"#/$defs/N"}}}}}"##;
    assert_eq!(gemini(list), list);
    let endless = gemini(
        r##"{"properties":{"n":{"$ref":"#/$defs/N"}},"required":["n"],"$defs":{"N":{"type":"object","properties":{"next":{"$ref":"#/$defs/N"}},"required":["next"]}}}"##,
    );
    assert!(endless.contains(r#""next":{"type":"object"}"#), "{endless}");
    assert!(!endless.contains("$ref"), "{endless}");
    assert_eq!(gemini(r##"{"$ref":"#"}"##), r#"{}"#);
    let nothing = gemini(
        r##"{"$ref":"#/$defs/A","$defs":{"A":{"$ref":"#/$defs/B"},"B":{"$ref":"#/$defs/A"}}}"##,
    );
    assert_eq!(nothing, r#"{"$defs":{"A":{},"B":{}}}"#);
}

#[test]
fn openapi_has_one_kind_in_capitals_and_words_only_as_strings() {
    for (from, to) in [
        (
            r#"{"type":["string","null"]}"#,
            r#"{"type":"STRING","nullable":true}"#,
        ),
        (
            r#"{"anyOf":[{"type":"integer"},{"type":"null"}],"description":"d"}"#,
            r#"{"type":"INTEGER","description":"d","nullable":true}"#,
        ),
        (
            r#"{"type":["string","integer"],"description":"d","minimum":1}"#,
            r#"{"description":"d","anyOf":[{"type":"STRING"},{"type":"INTEGER","minimum":1}]}"#,
        ),
        (
            r#"{"enum":[1,2],"type":"integer"}"#,
            r#"{"type":"INTEGER","description":"(one of: [1,2])"}"#,
        ),
        (
            r#"{"enum":["a","",null],"type":["string","null"]}"#,
            r#"{"type":"STRING","enum":["a"],"nullable":true}"#,
        ),
        (r#"{"const":"x"}"#, r#"{"type":"STRING","enum":["x"]}"#),
        (
            r#"{"type":"string","format":"email"}"#,
            r#"{"type":"STRING","description":"(format: email)"}"#,
        ),
        (
            r#"{"type":"array"}"#,
            r#"{"type":"ARRAY","items":{"type":"STRING"}}"#,
        ),
        (
            r##"{"type":"object","properties":{"a":{"$ref":"#/$defs/A"},"o":{"type":"object","properties":{}}},"additionalProperties":false,"$defs":{"A":{"type":"boolean"}}}"##,
            r#"{"type":"OBJECT","properties":{"a":{"type":"BOOLEAN"},"o":{"type":"OBJECT"}}}"#,
        ),
    ] {
        assert_eq!(openapi(from), to);
    }
    assert_eq!(
        for_openapi(&raw(r#"{"type":"object","properties":{}}"#)),
        None
    );
    assert_eq!(for_openapi(&raw(r#"{"type":"object"}"#)), None);
}

#[test]
fn geminis_own_schemas_are_brought_into_standard_form() {
    for (from, to) in [
        (
            r#"{"type":"OBJECT","properties":{"b":{"type":"STRING","nullable":true,"enum":["x"]},"a":{"type":"ARRAY","maxItems":"3","items":{"type":"INTEGER","format":"int64"}}},"propertyOrdering":["a","b"]}"#,
            r#"{"type":"object","properties":{"a":{"type":"array","maxItems":3,"items":{"type":"integer","format":"int64"}},"b":{"type":["string","null"],"enum":["x",null]}}}"#,
        ),
        (
            r#"{"any_of":[{"type":"NUMBER"}],"nullable":true,"type":"TYPE_UNSPECIFIED"}"#,
            r#"{"anyOf":[{"type":"number"},{"type":"null"}]}"#,
        ),
        (
            r#"{"type":"OBJECT","properties":{"type":{"type":"STRING"},"nullable":{"type":"BOOLEAN"}}}"#,
            r#"{"type":"object","properties":{"type":{"type":"string"},"nullable":{"type":"boolean"}}}"#,
        ),
    ] {
        assert_eq!(standard(from), to);
    }
}

#[test]
fn anthropics_objects_are_closed_and_its_circles_cut() {
    assert_eq!(
        anthropic(
            r#"{"type":"object","properties":{"a":{"oneOf":[{"type":"string","format":"email","minLength":1},{"type":"string","format":"odd"}]},"b":{"type":"array","minItems":1,"maxItems":2,"items":{"type":"object","additionalProperties":true}}}}"#
        ),
        r#"{"type":"object","properties":{"a":{"anyOf":[{"type":"string","format":"email","description":"(minLength: 1)"},{"type":"string","description":"(format: odd)"}]},"b":{"type":"array","minItems":1,"items":{"type":"object","additionalProperties":false},"description":"(maxItems: 2)"}},"additionalProperties":false}"#
    );
    let cut = anthropic(
        r##"{"$ref":"#/$defs/N","$defs":{"N":{"type":"object","properties":{"n":{"$ref":"#/$defs/N"}}},"L":{"type":"string"},"M":{"$ref":"#/$defs/L"}}}"##,
    );
    assert!(!cut.contains("#/$defs/N"), "{cut}");
    assert_eq!(
        anthropic(r##"{"properties":{"a":{"$ref":"#/$defs/L"}},"$defs":{"L":{"type":"string"}}}"##),
        r##"{"properties":{"a":{"$ref":"#/$defs/L"}},"$defs":{"L":{"type":"string"}},"additionalProperties":false}"##
    );
}

#[test]
fn strict_is_what_openai_would_accept() {
    let strict = |text: &str| is_strict(&raw(text));
    assert!(strict(
        r#"{"type":"object","properties":{"a":{"type":["string","null"]},"default":{"type":"array","items":{"anyOf":[{"type":"string"}]}}},"required":["a","default"],"additionalProperties":false}"#
    ));
    for text in [
        r#"{"type":"object","properties":{"a":{}},"required":[],"additionalProperties":false}"#,
        r#"{"type":"object","properties":{}}"#,
        r#"{"type":"object","properties":{"a":{"type":"string","default":"x"}},"required":["a"],"additionalProperties":false}"#,
        r#"{"type":"object","properties":{"a":{"type":"object","properties":{}}},"required":["a"],"additionalProperties":false}"#,
        r#"{"type":"object","anyOf":[],"properties":{},"additionalProperties":false}"#,
        r#"{"type":"array","items":{}}"#,
        "true",
    ] {
        assert!(!strict(text), "{text}");
    }
}

#[test]
fn a_root_that_is_no_object_is_wrapped_with_its_definitions_outside() {
    let rooted = |text: &str| {
        let (schema, wrapped) = object_root(&raw(text));
        (schema.as_str().to_owned(), wrapped)
    };
    let object = r#"{ "type":"object", "properties":{} }"#;
    assert_eq!(rooted(object), (object.to_owned(), false));
    for (from, to, wrapped) in [
        ("{}", r#"{"type":"object"}"#, false),
        (
            r#"{"properties":{"a":{}}}"#,
            r#"{"type":"object","properties":{"a":{}}}"#,
            false,
        ),
        (
            r#"{"type":"string"}"#,
            r#"{"type":"object","properties":{"value":{"type":"string"}},"required":["value"]}"#,
            true,
        ),
        (
            r##"{"$defs":{"A":{"$ref":"#"}},"anyOf":[{"$ref":"#/$defs/A"},{"$ref":"#/anyOf/0"}]}"##,
            r##"{"$defs":{"A":{"$ref":"#/properties/value"}},"type":"object","properties":{"value":{"anyOf":[{"$ref":"#/$defs/A"},{"$ref":"#/properties/value/anyOf/0"}]}},"required":["value"]}"##,
            true,
        ),
    ] {
        assert_eq!(rooted(from), (to.to_owned(), wrapped));
    }
}

#[test]
fn what_fans_out_without_end_is_cut() {
    let mut text = String::from(r##"{"$ref":"#/$defs/d0","description":"x","$defs":{"##);
    for i in 0..40 {
        let next = i + 1;
        let refs: Vec<String> = (0..8)
            .map(|j| format!(r##""p{j}":{{"$ref":"#/$defs/d{next}","title":"t"}}"##))
            .collect();
        text.push_str(&format!(
            r#""d{i}":{{"properties":{{{}}}}},"#,
            refs.join(",")
        ));
    }
    text.push_str(r##""d40":{"$ref":"#/$defs/d0"}}}"##);
    let schema = raw(&text);
    for out in [
        for_gemini(&schema),
        for_openapi(&schema).unwrap(),
        for_anthropic(&schema),
    ] {
        assert!(
            out.as_str().len() <= 4 * text.len() + 80 * 1024,
            "{} of {}",
            out.as_str().len(),
            text.len()
        );
    }
    let deep = format!("{}{{}}{}", r#"{"items":"#.repeat(300), "}".repeat(300));
    assert!(gemini(&deep).len() < 2000);
    assert!(standard(&deep).len() < 2000);
}

fn any_schema() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just(r#"{"type":"string"}"#.to_owned()),
        Just(r#"{"type":["integer","null"],"minimum":1e400}"#.to_owned()),
        Just(r#"{"enum":["a",1,null,""]}"#.to_owned()),
        Just(r#"{"const":2}"#.to_owned()),
        Just("true".to_owned()),
        Just("5".to_owned()),
        Just(r#"{"type":"STRING","nullable":true,"format":"email"}"#.to_owned()),
        Just(r#"{"type":"object","minLength":3,"description":"d","default":"\u00e9"}"#.to_owned()),
        "[a-c#]".prop_map(|name| format!(r##"{{"$ref":"#/$defs/{name}"}}"##)),
        Just(r##"{"$ref":"#","title":"x"}"##.to_owned()),
    ];
    leaf.prop_recursive(4, 40, 4, |inner| {
        let words = prop_oneof![
            Just("properties"),
            Just("$defs"),
            Just("anyOf"),
            Just("oneOf"),
            Just("allOf"),
            Just("items"),
            Just("prefixItems"),
            Just("additionalProperties"),
            Just("not"),
        ];
        proptest::collection::vec((words, proptest::collection::vec(inner, 1..4)), 1..4).prop_map(
            |members| {
                let members = members.into_iter().map(|(word, schemas)| {
                    let value = match word {
                        "properties" | "$defs" => {
                            let named = ["a", "b", "c", "d"].iter().zip(&schemas);
                            let named = named.map(|(name, schema)| format!(r#""{name}":{schema}"#));
                            format!("{{{}}}", named.collect::<Vec<_>>().join(","))
                        }
                        "items" | "additionalProperties" | "not" => schemas[0].clone(),
                        _ => format!("[{}]", schemas.join(",")),
                    };
                    format!(r#""{word}":{value}"#)
                });
                let members: Vec<_> = members.collect();
                format!(r#"{{{},"required":["a","b"]}}"#, members.join(","))
            },
        )
    })
}

proptest! {
    #[test]
    fn what_was_adapted_is_a_document_and_stays_as_it_is(text in any_schema()) {
        let schema = raw(&text);
        // What was cut off because it was too much is not looked at twice.
        let whole = |raw: &Raw<'_>| raw.as_str().len() < 16 * 1024;
        let once = for_gemini(&schema);
        prop_assert!(!whole(&once) || for_gemini(&once) == once, "{}", text);
        if let Some(once) = for_openapi(&schema) {
            prop_assert!(!whole(&once) || for_openapi(&once).as_ref() == Some(&once), "{}", text);
        }
        let once = for_anthropic(&schema);
        prop_assert!(!whole(&once) || for_anthropic(&once) == once, "{}", text);
        let once = from_gemini(&schema);
        prop_assert_eq!(from_gemini(&once), once, "{}", text);
        let (once, _) = object_root(&schema);
        prop_assert!(!object_root(&once).1, "{}", text);
        let _strict = is_strict(&schema);
    }

    #[test]
    fn no_document_makes_it_panic(text in r#"[\[\]{}:,"a$0-9 ]{0,40}"#) {
        if let Ok(schema) = Raw::parse(text) {
            drop(for_gemini(&schema));
            drop(for_openapi(&schema));
            drop(for_anthropic(&schema));
            drop(from_gemini(&schema));
            drop(object_root(&schema));
            let _strict = is_strict(&schema);
        }
    }
}
