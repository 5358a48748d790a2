//! What OpenAI takes for a strict schema.
//! <https://platform.openai.com/docs/guides/structured-outputs#supported-schemas>

use super::node::Node;

/// Nested deeper, a schema is refused.
const DEEPEST: usize = 10;

/// What a strict schema has none of.
const FORBIDDEN: [&str; 9] = [
    "allOf",
    "oneOf",
    "not",
    "if",
    "patternProperties",
    "default",
    "propertyNames",
    "dependentSchemas",
    "dependentRequired",
];

pub(super) fn is_strict(root: &Node<'_>) -> bool {
    let object = root.text_of("type") == Some("object");
    object && root.get("anyOf").is_none() && is_strict_at(root, 0)
}

fn is_strict_at(node: &Node<'_>, depth: usize) -> bool {
    let Some(map) = node.as_map() else {
        return false;
    };
    let forbidden = FORBIDDEN.iter().any(|word| map.contains_key(*word));
    if forbidden || depth > DEEPEST {
        return false;
    }
    let properties = map.get("properties").and_then(Node::as_map);
    let kind = map.get("type");
    let of_object = |kind: &Node<'_>| kind.as_text().is_some_and(|kind| kind == "object");
    let object = properties.is_some()
        || kind.is_some_and(of_object)
        || kind
            .and_then(Node::as_list)
            .is_some_and(|kinds| kinds.iter().any(of_object));
    let closed = map
        .get("additionalProperties")
        .is_some_and(|node| node.is_word("false"));
    if object && !closed {
        return false;
    }
    let required = map
        .get("required")
        .and_then(Node::as_list)
        .unwrap_or_default();
    let required: std::collections::HashSet<_> =
        required.iter().filter_map(Node::as_text).collect();
    let named = properties.into_iter().flatten();
    let all = named
        .clone()
        .all(|(name, _)| required.contains(name.as_ref()));
    let lists = ["anyOf", "prefixItems"].into_iter();
    let lists = lists.filter_map(|word| map.get(word)?.as_list()).flatten();
    let defined = ["$defs", "definitions"].into_iter();
    let defined = defined.filter_map(|word| map.get(word)?.as_map()).flatten();
    all && named
        .chain(defined)
        .all(|(_, node)| is_strict_at(node, depth + 1))
        && lists
            .chain(map.get("items"))
            .all(|node| is_strict_at(node, depth + 1))
}
