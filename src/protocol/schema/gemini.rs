//! Schemas as Gemini accepts them: a part of JSON Schema, or the smaller one of
//! OpenAPI 3.0. <https://ai.google.dev/api/generate-content#FIELDS.response_json_schema>
//!
//! A place in the result may be made of several schemas that all hold there: what
//! a reference points to, what stands beside it, the elements of `allOf`. They are
//! kept as layers, and of two that say the same thing the first is believed.

use std::borrow::Cow;
use std::collections::HashSet;

use super::super::json::{Raw, Str};
use super::node::{Map, Node, describe};
use super::refs::{Refs, definition, definitions};
use super::{DEEPEST, most};

/// What Gemini is asked in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    JsonSchema,
    OpenApi,
}

/// How often a schema is written out again inside itself.
const ROUNDS: usize = 4;
/// The most schemas that are laid over one another in one place.
const LAYERS: usize = 256;

/// What is kept as it is.
const KEPT: [&str; 7] = [
    "title",
    "description",
    "minItems",
    "maxItems",
    "minimum",
    "maximum",
    "propertyOrdering",
];

/// What can't be said, but told in words.
const DROPPED: [&str; 20] = [
    "default",
    "pattern",
    "minLength",
    "maxLength",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "uniqueItems",
    "minProperties",
    "maxProperties",
    "patternProperties",
    "propertyNames",
    "contains",
    "not",
    "if",
    "then",
    "else",
    "dependentRequired",
    "dependentSchemas",
    "contentEncoding",
];

pub(super) fn adapted<'a>(root: &Node<'a>, dialect: Dialect, schema: &Raw<'_>) -> Node<'a> {
    let mut work = Work {
        root,
        refs: Refs::of(root),
        dialect,
        left: most(schema),
    };
    let place = Place {
        depth: 0,
        required: true,
        rounds: 0,
    };
    work.schema(&[root], place)
}

struct Work<'n, 'a> {
    root: &'n Node<'a>,
    refs: Refs<'n, 'a>,
    dialect: Dialect,
    /// Bytes that may still be written.
    left: usize,
}

/// Where in the result.
#[derive(Clone, Copy)]
struct Place {
    depth: usize,
    /// Whether every value has something here: a circle must not be closed then.
    required: bool,
    /// Circles that were gone round on the way.
    rounds: usize,
}

impl Place {
    const fn below(self) -> Self {
        Self {
            depth: self.depth + 1,
            ..self
        }
    }
}

/// The schemas that hold in one place.
type Layers<'n, 'a> = Vec<&'n Map<'a>>;

impl<'n, 'a> Work<'n, 'a> {
    fn schema(&mut self, nodes: &[&'n Node<'a>], place: Place) -> Node<'a> {
        if place.depth > DEEPEST || !self.spend(48) {
            return self.object();
        }
        if let Some(reference) = self.kept_reference(nodes, place) {
            return reference;
        }
        let mut layers = Layers::new();
        let mut place = place;
        let mut seen = HashSet::new();
        for node in nodes {
            if !self.expand(node, &mut layers, &mut seen, &mut place) {
                return self.object();
            }
        }
        if !self.spend(layers.len() * 8) {
            return self.object();
        }
        let node = self.members(&layers, place);
        match (self.dialect, node) {
            (Dialect::OpenApi, Node::Map(map)) => super::openapi::finished(map),
            (_, node) => node,
        }
    }

    /// A reference that may stay one: it stands alone, and it points to a
    /// definition that ends, or from a place that may be left out.
    fn kept_reference(&self, nodes: &[&'n Node<'a>], place: Place) -> Option<Node<'a>> {
        let [node] = nodes else {
            return None;
        };
        let map = node.as_map()?;
        let reference = map.get("$ref").and_then(Node::as_text)?;
        let alone = map
            .keys()
            .all(|name| name.starts_with('$') || name == "definitions");
        let known = definition(&reference).is_some() || reference == "#";
        let ends = !place.required || !self.refs.is_circular(&reference);
        let there = self.refs.target(&reference).is_some();
        let keeps = self.dialect == Dialect::JsonSchema && place.depth > 0;
        if !(alone && known && ends && there && keeps) {
            return None;
        }
        let reference = reference.replacen("#/definitions/", "#/$defs/", 1);
        let member = ("$ref".into(), Node::Text(Str::from(reference)));
        Some(Node::Map(std::iter::once(member).collect()))
    }

    /// Puts a schema, what it refers to and the elements of its `allOf` on the
    /// layers; false where it goes round in circles too often.
    fn expand(
        &self,
        node: &'n Node<'a>,
        layers: &mut Layers<'n, 'a>,
        seen: &mut HashSet<String>,
        place: &mut Place,
    ) -> bool {
        let Some(map) = node.as_map() else {
            return true;
        };
        if layers.len() == LAYERS {
            return true;
        }
        layers.push(map);
        if let Some(reference) = map.get("$ref").and_then(Node::as_text)
            && seen.insert(reference.to_string())
        {
            place.rounds += usize::from(self.refs.is_circular(&reference));
            if place.rounds > ROUNDS {
                return false;
            }
            let target = self.refs.target(&reference);
            if target.is_some_and(|target| !self.expand(target, layers, seen, place)) {
                return false;
            }
        }
        let all = map.get("allOf").and_then(Node::as_list).unwrap_or_default();
        all.iter()
            .all(|node| self.expand(node, layers, seen, place))
    }

    fn members(&mut self, layers: &Layers<'n, 'a>, place: Place) -> Node<'a> {
        let mut out = Map::new();
        let mut dropped: Vec<(&str, &Node<'a>)> = Vec::new();
        let mut seen = HashSet::new();
        for (name, node) in layers.iter().flat_map(|map| map.iter()) {
            let word = name.as_ref();
            if !seen.insert(word) {
                continue;
            }
            if DROPPED.contains(&word) {
                dropped.push((word, node));
            } else if let Some((name, node)) = self.member(word, node, layers, place) {
                out.insert(Cow::Owned(name.to_owned()), node);
            }
        }
        prune(&mut out);
        describe(&mut out, &dropped);
        if place.depth == 0 && self.dialect == Dialect::JsonSchema {
            self.definitions(&mut out, place);
        }
        Node::Map(out)
    }

    fn member(
        &mut self,
        word: &'n str,
        node: &'n Node<'a>,
        layers: &Layers<'n, 'a>,
        place: Place,
    ) -> Option<(&'n str, Node<'a>)> {
        let json = self.dialect == Dialect::JsonSchema;
        let below = place.below();
        Some(match word {
            "type" => (word, kinds(node, layers)),
            "const" => ("enum", Node::List(vec![self.copied(node)?])),
            "enum" if !layers.iter().any(|map| map.contains_key("const")) => {
                (word, self.copied(node)?)
            }
            "items" | "prefixItems" if node.as_list().is_some() => {
                ("prefixItems", self.list(node, below))
            }
            "items" => (word, self.schema(&all(word, layers), below)),
            // One list of alternatives is all that there is room for.
            "oneOf" if !json && layers.iter().any(|map| map.contains_key("anyOf")) => return None,
            "anyOf" | "oneOf" if !json => ("anyOf", self.list(node, below)),
            "anyOf" | "oneOf" => (word, self.list(node, below)),
            "properties" => (word, self.properties(layers, below)),
            "additionalProperties" if !json => return None,
            "additionalProperties" if node.as_map().is_none() => (word, self.copied(node)?),
            "additionalProperties" => {
                let below = Place {
                    required: false,
                    ..below
                };
                (word, self.schema(&[node], below))
            }
            "required" => (word, required(layers)),
            "nullable" if !json => (word, node.clone()),
            "$id" | "$anchor" if json => (word, self.copied(node)?),
            "format" => (word, self.copied(node)?),
            word if KEPT.contains(&word) => (word, self.copied(node)?),
            _ => return None,
        })
    }

    fn list(&mut self, node: &'n Node<'a>, place: Place) -> Node<'a> {
        let list = node.as_list().unwrap_or_default();
        Node::List(
            list.iter()
                .map(|node| self.schema(&[node], place))
                .collect(),
        )
    }

    /// The properties of all layers; one that several name has to fit them all.
    fn properties(&mut self, layers: &Layers<'n, 'a>, place: Place) -> Node<'a> {
        let mut named: indexmap::IndexMap<&'n str, Vec<&'n Node<'a>>> = indexmap::IndexMap::new();
        let mut needed = HashSet::new();
        for map in layers {
            for (name, node) in map
                .get("properties")
                .and_then(Node::as_map)
                .into_iter()
                .flatten()
            {
                named.entry(name.as_ref()).or_default().push(node);
            }
            let required = map
                .get("required")
                .and_then(Node::as_list)
                .unwrap_or_default();
            needed.extend(required.iter().filter_map(Node::as_text));
        }
        let mut out = Map::new();
        for (name, nodes) in named {
            if !self.spend(name.len() + 24) {
                break;
            }
            let required = place.required && needed.contains(name);
            let place = Place { required, ..place };
            out.insert(Cow::Owned(name.to_owned()), self.schema(&nodes, place));
        }
        Node::Map(out)
    }

    fn definitions(&mut self, out: &mut Map<'a>, place: Place) {
        let mut defined = Map::new();
        for (name, node) in definitions(self.root) {
            if !self.spend(name.len() + 24) {
                break;
            }
            if !defined.contains_key(name) {
                let node = self.schema(&[node], place.below());
                defined.insert(Cow::Owned(name.to_owned()), node);
            }
        }
        if !defined.is_empty() {
            out.insert(Cow::Borrowed("$defs"), Node::Map(defined));
        }
    }

    fn object(&self) -> Node<'a> {
        match self.dialect {
            Dialect::JsonSchema => Node::typed("object"),
            Dialect::OpenApi => Node::typed("OBJECT"),
        }
    }

    fn copied(&mut self, node: &Node<'a>) -> Option<Node<'a>> {
        self.spend(node.size()).then(|| node.clone())
    }

    fn spend(&mut self, bytes: usize) -> bool {
        let enough = self.left >= bytes;
        self.left = self.left.saturating_sub(bytes);
        enough
    }
}

/// All that the layers say under one name.
fn all<'n, 'a>(word: &str, layers: &Layers<'n, 'a>) -> Vec<&'n Node<'a>> {
    layers.iter().filter_map(|map| map.get(word)).collect()
}

/// The kinds in lower case, with `null` where OpenAPI would say `nullable`.
fn kinds<'a>(node: &Node<'a>, layers: &Layers<'_, 'a>) -> Node<'a> {
    let lower = |node: &Node<'a>| {
        let text = node.as_text().unwrap_or_default();
        Node::Text(Str::from(text.to_ascii_lowercase()))
    };
    let nullable = |map: &&Map<'a>| map.get("nullable").is_some_and(|node| node.is_word("true"));
    let null = Node::text("null");
    let mut kinds: Vec<_> = match node {
        Node::List(kinds) => kinds.iter().map(lower).collect(),
        other => return with_null(lower(other), null, layers.iter().any(nullable)),
    };
    if layers.iter().any(nullable) && !kinds.contains(&null) {
        kinds.push(null);
    }
    Node::List(kinds)
}

fn with_null<'a>(kind: Node<'a>, null: Node<'a>, nullable: bool) -> Node<'a> {
    if nullable && kind != null {
        Node::List(vec![kind, null])
    } else {
        kind
    }
}

/// The names that any layer requires.
fn required<'a>(layers: &Layers<'_, 'a>) -> Node<'a> {
    let mut seen = HashSet::new();
    let lists = all("required", layers)
        .into_iter()
        .filter_map(Node::as_list);
    let names = lists.flatten().filter_map(Node::as_text);
    let names = names.filter(|name| seen.insert(name.to_string()));
    Node::List(
        names
            .map(|name| Node::Text(Str::from(name.into_owned())))
            .collect(),
    )
}

/// Nothing is required that there is no property for.
fn prune(map: &mut Map<'_>) {
    let Some(Node::List(mut names)) = map.get("required").cloned() else {
        return;
    };
    let properties = map.get("properties");
    let known = |name: &Node<'_>| {
        let name = name.as_text().unwrap_or_default();
        properties.is_some_and(|properties| properties.get(&name).is_some())
    };
    names.retain(known);
    if names.is_empty() {
        map.shift_remove("required");
    } else {
        map.insert("required".into(), Node::List(names));
    }
}
