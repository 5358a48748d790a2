//! Schemas as Anthropic's structured output and strict tools accept them.
//! <https://platform.claude.com/docs/en/build-with-claude/structured-outputs>

use std::borrow::Cow;

use super::super::json::Raw;
use super::node::{Map, Node, describe};
use super::refs::Refs;
use super::{DEEPEST, most};

/// How often a schema is written out again inside itself.
const ROUNDS: usize = 4;

/// Constraints that can't be said; they are described.
const DROPPED: [&str; 18] = [
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "maxItems",
    "uniqueItems",
    "minProperties",
    "maxProperties",
    "not",
    "if",
    "then",
    "else",
    "patternProperties",
    "propertyNames",
    "contains",
];

/// Formats of strings that can be said.
const FORMATS: [&str; 10] = [
    "date-time",
    "time",
    "date",
    "duration",
    "email",
    "hostname",
    "uri",
    "ipv4",
    "ipv6",
    "uuid",
];

pub(super) fn adapted<'a>(root: &Node<'a>, schema: &Raw<'_>) -> Node<'a> {
    let mut work = Work {
        refs: Refs::of(root),
        left: most(schema),
    };
    work.schema(root, 0, 0)
}

struct Work<'n, 'a> {
    refs: Refs<'n, 'a>,
    /// Bytes that may still be written.
    left: usize,
}

impl<'n, 'a> Work<'n, 'a> {
    fn schema(&mut self, node: &'n Node<'a>, depth: usize, rounds: usize) -> Node<'a> {
        let Some(map) = node.as_map() else {
            return node.clone();
        };
        if depth > DEEPEST || !self.spend(48) {
            return closed();
        }
        let reference = map.get("$ref").and_then(Node::as_text);
        let circular = reference.filter(|reference| self.refs.is_circular(reference));
        if let Some(reference) = circular {
            let target = self.refs.target(&reference);
            let target = target.filter(|_| rounds < ROUNDS);
            return match target {
                Some(target) => self.schema(target, depth + 1, rounds + 1),
                None => closed(),
            };
        }
        self.members(map, depth, rounds)
    }

    fn members(&mut self, map: &'n Map<'a>, depth: usize, rounds: usize) -> Node<'a> {
        let mut out = Map::new();
        let mut dropped = Vec::new();
        for (name, node) in map {
            let word = name.as_ref();
            if DROPPED.contains(&word) || word == "minItems" && !is_small(node) {
                dropped.push((word, node));
                continue;
            }
            let node = match word {
                "additionalProperties" if is_object(map) => Node::word("false"),
                "additionalProperties" => continue,
                "format" if !is_format(node) => {
                    dropped.push((word, node));
                    continue;
                }
                "properties" | "$defs" | "definitions" => self.named(node, depth, rounds),
                "items" => self.schema(node, depth + 1, rounds),
                "anyOf" | "oneOf" | "allOf" | "prefixItems" => self.list(node, depth, rounds),
                _ if self.spend(node.size()) => node.clone(),
                _ => continue,
            };
            let name = if word == "oneOf" && !map.contains_key("anyOf") {
                Cow::Borrowed("anyOf")
            } else {
                name.clone()
            };
            out.insert(name, node);
        }
        if is_object(map) && !out.contains_key("additionalProperties") {
            out.insert("additionalProperties".into(), Node::word("false"));
        }
        describe(&mut out, &dropped);
        Node::Map(out)
    }

    fn named(&mut self, node: &'n Node<'a>, depth: usize, rounds: usize) -> Node<'a> {
        let Some(map) = node.as_map() else {
            return node.clone();
        };
        let mut out = Map::new();
        for (name, node) in map {
            if !self.spend(name.len() + 24) {
                break;
            }
            out.insert(name.clone(), self.schema(node, depth + 1, rounds));
        }
        Node::Map(out)
    }

    fn list(&mut self, node: &'n Node<'a>, depth: usize, rounds: usize) -> Node<'a> {
        let Some(list) = node.as_list() else {
            return node.clone();
        };
        let nodes = list.iter().map(|node| self.schema(node, depth + 1, rounds));
        Node::List(nodes.collect())
    }

    fn spend(&mut self, bytes: usize) -> bool {
        let enough = self.left >= bytes;
        self.left = self.left.saturating_sub(bytes);
        enough
    }
}

fn closed<'a>() -> Node<'a> {
    let mut node = Node::typed("object");
    if let Node::Map(map) = &mut node {
        map.insert("additionalProperties".into(), Node::word("false"));
    }
    node
}

fn is_object(map: &Map<'_>) -> bool {
    let of_object = |kind: &Node<'_>| kind.as_text().is_some_and(|kind| kind == "object");
    let kind = map.get("type");
    map.contains_key("properties")
        || kind.is_some_and(of_object)
        || kind
            .and_then(Node::as_list)
            .is_some_and(|kinds| kinds.iter().any(of_object))
}

/// None or one is a number of items that can be asked for.
fn is_small(node: &Node<'_>) -> bool {
    node.is_word("0") || node.is_word("1")
}

fn is_format(node: &Node<'_>) -> bool {
    node.as_text()
        .is_some_and(|format| FORMATS.contains(&format.as_ref()))
}
