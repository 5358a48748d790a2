//! What OpenAPI's subset wants of one schema whose inner ones are done.

use std::borrow::Cow;

use super::super::json::Str;
use super::node::{Map, Node, describe};

/// Formats that are known, by kind.
const FORMATS: [(&str, &[&str]); 3] = [
    ("string", &["enum", "date-time"]),
    ("number", &["float", "double"]),
    ("integer", &["int32", "int64"]),
];

/// Which members go with which kind only.
const BELONGING: [(&str, &[&str]); 5] = [
    ("object", &["properties", "required", "propertyOrdering"]),
    ("array", &["items", "minItems", "maxItems"]),
    ("string", &["enum", "format"]),
    ("number", &["minimum", "maximum", "format"]),
    ("integer", &["minimum", "maximum", "format"]),
];

/// One kind in capitals, `nullable` for `null`, words only as strings.
pub(super) fn finished<'a>(mut map: Map<'a>) -> Node<'a> {
    let mut nullable = take_nullable(&mut map);
    tuple(&mut map);
    nullable |= words(&mut map);
    let inferred = inferred(&map);
    let mut kinds = match map.shift_remove("type") {
        Some(Node::List(kinds)) => kinds,
        Some(kind) => vec![kind],
        None => inferred.into_iter().map(Node::text).collect(),
    };
    let before = kinds.len();
    kinds.retain(|kind| *kind != Node::text("null"));
    nullable |= kinds.len() < before;
    if kinds.is_empty() && before > 0 {
        kinds.push(Node::text("string"));
    }
    let mut node = match alternatives(&mut map, &mut nullable) {
        Some(only) => joined(only, map),
        None if map.contains_key("anyOf") => map,
        None => of_kinds(map, &kinds),
    };
    if take_nullable(&mut node) || nullable {
        node.insert("nullable".into(), Node::word("true"));
    }
    Node::Map(node)
}

fn take_nullable(map: &mut Map<'_>) -> bool {
    let flag = map.shift_remove("nullable");
    flag.is_some_and(|node| node.is_word("true"))
}

/// A list of items of different kinds is a list of any of them.
fn tuple(map: &mut Map<'_>) {
    if let Some(Node::List(mut items)) = map.shift_remove("prefixItems") {
        items.dedup();
        let items = match (items.len(), items.pop()) {
            (1, Some(only)) => only,
            (_, Some(last)) => {
                items.push(last);
                Node::Map(std::iter::once(("anyOf".into(), Node::List(items))).collect())
            }
            (_, None) => return,
        };
        map.insert("items".into(), items);
    }
}

/// Only strings can be listed; other values are told in words. True when `null`
/// was among them.
fn words(map: &mut Map<'_>) -> bool {
    let Some(Node::List(mut list)) = map.get("enum").cloned() else {
        map.shift_remove("enum");
        return false;
    };
    let before = list.len();
    list.retain(|word| !word.is_word("null"));
    let null = list.len() < before;
    list.retain(|word| *word != Node::text(""));
    let strings = list.iter().all(|word| word.as_text().is_some());
    if strings && !list.is_empty() {
        map.insert("enum".into(), Node::List(list));
        return null;
    }
    map.shift_remove("enum");
    if let Some(kind) = list
        .first()
        .and_then(kind_of)
        .filter(|_| !map.contains_key("type"))
    {
        map.insert("type".into(), Node::text(kind));
    }
    if !list.is_empty() {
        describe(map, &[("one of", &Node::List(list))]);
    }
    null
}

fn kind_of(value: &Node<'_>) -> Option<&'static str> {
    match value {
        Node::Word(word) if word == "true" || word == "false" => Some("boolean"),
        Node::Word(word) if word.contains(['.', 'e', 'E']) => Some("number"),
        Node::Word(word) if word != "null" => Some("integer"),
        _ => None,
    }
}

/// The kind that a schema without one must mean.
fn inferred(map: &Map<'_>) -> Option<&'static str> {
    if map.contains_key("anyOf") {
        None
    } else if map.contains_key("properties") {
        Some("object")
    } else if map.contains_key("items") {
        Some("array")
    } else if map.contains_key("minimum") || map.contains_key("maximum") {
        Some("number")
    } else {
        Some("string")
    }
}

/// Takes `null` out of the alternatives; gives the only one that is left.
fn alternatives<'a>(map: &mut Map<'a>, nullable: &mut bool) -> Option<Node<'a>> {
    let Some(Node::List(list)) = map.get_mut("anyOf") else {
        map.shift_remove("anyOf");
        return None;
    };
    let before = list.len();
    list.retain(|node| !is_null(node));
    *nullable |= list.len() < before;
    if list.len() > 1 {
        return None;
    }
    let only = list.pop();
    map.shift_remove("anyOf");
    only
}

/// What became of `{"type":"null"}`.
fn is_null(node: &Node<'_>) -> bool {
    let string = node.text_of("type") == Some("STRING");
    let nullable = node
        .get("nullable")
        .is_some_and(|node| node.is_word("true"));
    string && nullable && node.as_map().is_some_and(|map| map.len() == 2)
}

/// The only alternative, with what is said around it.
fn joined<'a>(only: Node<'a>, around: Map<'a>) -> Map<'a> {
    let Node::Map(mut map) = only else {
        return around;
    };
    for (name, node) in around {
        let own = matches!(name.as_ref(), "description" | "title");
        match (map.get_mut(&name), node) {
            (Some(Node::Map(mine)), Node::Map(theirs)) if name == "properties" => {
                for (name, node) in theirs {
                    mine.entry(name).or_insert(node);
                }
            }
            (Some(Node::List(mine)), Node::List(theirs)) if name == "required" => {
                let new: Vec<_> = theirs.into_iter().filter(|n| !mine.contains(n)).collect();
                mine.extend(new);
            }
            (Some(_), _) if !own => {}
            (_, node) => {
                map.insert(name, node);
            }
        }
    }
    // What came from around must go with the kind too.
    match map.get("type").and_then(Node::as_text) {
        Some(kind) => {
            let kind = Node::Text(Str::from(kind.to_ascii_lowercase()));
            map.shift_remove("type");
            of_kinds(map, &[kind])
        }
        None => map,
    }
}

fn of_kinds<'a>(mut map: Map<'a>, kinds: &[Node<'a>]) -> Map<'a> {
    let names: Vec<String> = kinds
        .iter()
        .filter_map(Node::as_text)
        .map(Cow::into_owned)
        .collect();
    let [name] = names.as_slice() else {
        return several(map, &names);
    };
    let format = map.get("format").cloned();
    let known = |format: &Node<'_>| {
        let formats = FORMATS.iter().find(|(kind, _)| kind == name);
        let text = format.as_text();
        formats.is_some_and(|(_, list)| text.is_some_and(|text| list.contains(&text.as_ref())))
    };
    if let Some(format) = format.filter(|format| !known(format)) {
        map.shift_remove("format");
        describe(&mut map, &[("format", &format)]);
    }
    if name != "string"
        && let Some(list) = map.shift_remove("enum")
    {
        describe(&mut map, &[("one of", &list)]);
    }
    let empty = |node: &Node<'_>| node.as_map().is_some_and(Map::is_empty);
    if map.get("properties").is_some_and(empty) {
        map.shift_remove("properties");
    }
    if name == "array" && !map.contains_key("items") {
        map.insert("items".into(), Node::typed("STRING"));
    }
    let kind = Node::Text(Str::from(name.to_ascii_uppercase()));
    let mut out: Map<'a> = std::iter::once(("type".into(), kind)).collect();
    out.extend(map);
    out
}

/// One alternative for each kind, with what belongs to it.
fn several<'a>(mut map: Map<'a>, names: &[String]) -> Map<'a> {
    let alternatives = names.iter().map(|name| {
        let belonging = BELONGING.iter().find(|(kind, _)| kind == name);
        let words = belonging.map_or(&[][..], |(_, words)| words);
        let members = map
            .iter()
            .filter(|(word, _)| words.contains(&word.as_ref()));
        let members = members
            .map(|(word, node)| (word.clone(), node.clone()))
            .collect();
        Node::Map(of_kinds(members, &[Node::Text(Str::from(name.clone()))]))
    });
    let alternatives: Vec<_> = alternatives.collect();
    map.retain(|word, _| {
        !BELONGING
            .iter()
            .any(|(_, words)| words.contains(&word.as_ref()))
    });
    if !alternatives.is_empty() {
        map.insert("anyOf".into(), Node::List(alternatives));
    }
    map
}
