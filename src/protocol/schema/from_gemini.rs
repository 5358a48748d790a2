//! Gemini's schemas, a subset of OpenAPI 3.0, in standard form.
//! <https://ai.google.dev/api/caching#Schema>

use std::borrow::Cow;

use super::super::json::Str;
use super::DEEPEST;
use super::node::{Map, Node};

/// Keywords that Google's older clients write with underscores.
const NAMES: [(&str, &str); 10] = [
    ("any_of", "anyOf"),
    ("max_items", "maxItems"),
    ("min_items", "minItems"),
    ("max_length", "maxLength"),
    ("min_length", "minLength"),
    ("max_properties", "maxProperties"),
    ("min_properties", "minProperties"),
    ("property_ordering", "propertyOrdering"),
    ("additional_properties", "additionalProperties"),
    ("prefix_items", "prefixItems"),
];

pub(super) fn standard<'a>(node: &Node<'a>, depth: usize) -> Node<'a> {
    let Some(map) = node.as_map() else {
        return node.clone();
    };
    if depth > DEEPEST {
        return Node::typed("object");
    }
    let word = |name: &str| map.get(name).or_else(|| map.get(&*old_name(name)));
    let nullable = word("nullable").is_some_and(|node| node.is_word("true"));
    let order = word("propertyOrdering")
        .and_then(Node::as_list)
        .unwrap_or_default();
    let mut out = Map::new();
    for (name, node) in map {
        let known = NAMES.iter().find(|(old, _)| old == name);
        let name = known.map_or_else(|| name.clone(), |(_, new)| Cow::Borrowed(*new));
        let node = match name.as_ref() {
            "nullable" | "propertyOrdering" => continue,
            "type" => match kind(node, nullable) {
                Some(kind) => kind,
                None => continue,
            },
            "enum" => enumeration(node, nullable),
            "properties" => properties(node, order, depth),
            "$defs" | "definitions" => properties(node, &[], depth),
            "items" | "additionalProperties" => standard(node, depth + 1),
            "anyOf" | "oneOf" | "allOf" | "prefixItems" => list(node, depth),
            "maxItems" | "minItems" | "maxLength" | "minLength" | "maxProperties"
            | "minProperties" => limit(node),
            _ => node.clone(),
        };
        out.insert(name, node);
    }
    if nullable
        && !out.contains_key("type")
        && let Some(Node::List(list)) = out.get_mut("anyOf")
    {
        let null = Node::typed("null");
        if !list.contains(&null) {
            list.push(null);
        }
    }
    Node::Map(out)
}

fn old_name(name: &str) -> Cow<'_, str> {
    let known = NAMES.iter().find(|(_, new)| *new == name);
    known.map_or(Cow::Borrowed(name), |(old, _)| Cow::Borrowed(old))
}

/// `STRING` is `string`, and with `nullable` also `null`.
fn kind<'a>(node: &Node<'a>, nullable: bool) -> Option<Node<'a>> {
    let lower = |node: &Node<'a>| match node.as_text() {
        Some(text) => Node::Text(Str::from(text.to_ascii_lowercase())),
        None => node.clone(),
    };
    let null = Node::text("null");
    match node {
        Node::List(kinds) => {
            let mut kinds: Vec<_> = kinds.iter().map(lower).collect();
            if nullable && !kinds.contains(&null) {
                kinds.push(null);
            }
            Some(Node::List(kinds))
        }
        _ => {
            let kind = lower(node);
            if kind == Node::text("type_unspecified") {
                return None;
            }
            let both = nullable && kind != null;
            Some(if both {
                Node::List(vec![kind, null])
            } else {
                kind
            })
        }
    }
}

/// Where `null` may be said, it has to be among the words.
fn enumeration<'a>(node: &Node<'a>, nullable: bool) -> Node<'a> {
    let mut node = node.clone();
    if let Node::List(words) = &mut node
        && nullable
        && !words.iter().any(|word| word.is_word("null"))
    {
        words.push(Node::word("null"));
    }
    node
}

/// Named schemas, in the order that is asked for.
fn properties<'a>(node: &Node<'a>, order: &[Node<'a>], depth: usize) -> Node<'a> {
    let Some(map) = node.as_map() else {
        return node.clone();
    };
    let mut out = Map::new();
    let first = order.iter().filter_map(Node::as_text);
    let first = first.filter_map(|name| map.get_key_value(name.as_ref()));
    for (name, node) in first.chain(map) {
        if !out.contains_key(name) {
            out.insert(name.clone(), standard(node, depth + 1));
        }
    }
    Node::Map(out)
}

fn list<'a>(node: &Node<'a>, depth: usize) -> Node<'a> {
    match node {
        Node::List(list) => Node::List(list.iter().map(|node| standard(node, depth + 1)).collect()),
        other => other.clone(),
    }
}

/// Whole numbers of 64 bits come as strings.
fn limit<'a>(node: &Node<'a>) -> Node<'a> {
    match node.as_text() {
        Some(digits) if digits.parse::<u64>().is_ok() && !digits.starts_with('+') => {
            let digits = digits.trim_start_matches('0');
            let digits = if digits.is_empty() { "0" } else { digits };
            Node::Word(Cow::Owned(digits.to_owned()))
        }
        _ => node.clone(),
    }
}
