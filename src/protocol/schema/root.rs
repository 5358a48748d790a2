//! Tools' schemas whose root must be an object.

use super::super::json::Str;
use super::node::{Map, Node};

/// What had to be done to a root.
pub(super) enum Object<'a> {
    /// Nothing.
    Already,
    /// Its type was only implied.
    Typed(Node<'a>),
    /// It is the property `value` of an object now.
    Wrapped(Node<'a>),
}

/// What can't stand beside `type` at the root.
const COMPOSED: [&str; 4] = ["anyOf", "oneOf", "allOf", "$ref"];
/// What shows that values of another kind are meant.
const OTHERS: [&str; 4] = ["enum", "const", "items", "prefixItems"];

pub(super) fn object<'a>(root: &Node<'a>) -> Object<'a> {
    let Some(map) = root.as_map() else {
        return Object::Typed(Node::typed("object"));
    };
    let composed = COMPOSED.iter().any(|word| map.contains_key(*word));
    let has_object = |node: &Node<'_>| node.as_text().is_some_and(|kind| kind == "object");
    let object = match map.get("type") {
        Some(kind) if has_object(kind) => true,
        Some(kind) => kind
            .as_list()
            .is_some_and(|kinds| kinds.iter().any(has_object)),
        None => !OTHERS.iter().any(|word| map.contains_key(*word)),
    };
    if !object || composed {
        return Object::Wrapped(wrapped(map));
    }
    if root.text_of("type") == Some("object") {
        return Object::Already;
    }
    let kind = ("type".into(), Node::text("object"));
    let others = map.iter().filter(|(name, _)| *name != "type");
    let others = others.map(|(name, node)| (name.clone(), node.clone()));
    Object::Typed(Node::Map(std::iter::once(kind).chain(others).collect()))
}

fn wrapped<'a>(map: &Map<'a>) -> Node<'a> {
    let mut outer = Map::new();
    let mut inner = Map::new();
    for (name, node) in map {
        let node = moved(node);
        match name.as_ref() {
            "$defs" | "definitions" | "$schema" => outer.insert(name.clone(), node),
            _ => inner.insert(name.clone(), node),
        };
    }
    let properties = std::iter::once(("value".into(), Node::Map(inner))).collect();
    outer.insert("type".into(), Node::text("object"));
    outer.insert("properties".into(), Node::Map(properties));
    outer.insert("required".into(), Node::List(vec![Node::text("value")]));
    Node::Map(outer)
}

/// The same with references to the root, and to anything in it but definitions,
/// pointing to where it is now.
fn moved<'a>(node: &Node<'a>) -> Node<'a> {
    match node {
        Node::Map(map) => {
            let members = map.iter().map(|(name, node)| {
                let pointer = node.as_text().filter(|_| name == "$ref");
                let pointer = pointer.as_deref().and_then(|text| text.strip_prefix('#'));
                let stays = |pointer: &str| {
                    pointer.starts_with("/$defs/") || pointer.starts_with("/definitions/")
                };
                let node = match pointer {
                    Some(rest) if rest.is_empty() || rest.starts_with('/') && !stays(rest) => {
                        Node::Text(Str::from(format!("#/properties/value{rest}")))
                    }
                    _ => moved(node),
                };
                (name.clone(), node)
            });
            Node::Map(members.collect())
        }
        Node::List(list) => Node::List(list.iter().map(moved).collect()),
        other => other.clone(),
    }
}
