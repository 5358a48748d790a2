//! YAML (and so JSON) as a tree in which every node knows its place.
//!
//! Scalars resolve by the YAML 1.2 core schema, so `yes` is text. Duplicate
//! keys are faults. Anchors, aliases and merge keys are resolved, within a
//! budget. This file must not know what the fields mean.

use std::collections::{HashMap, HashSet};

use granit_parser::{Event, Marker, Parser, ScalarStyle, Span, StrInput, Tag};
use serde_json::{Map, Number, Value};

use super::fault::{Fault, Place};

/// The largest text that is read, in bytes.
pub(in crate::config) const LARGEST_TEXT: usize = 16 << 20;

/// The deepest nesting, aliases resolved.
pub(in crate::config) const DEEPEST: usize = 64;

/// What all aliases together may copy, in bytes.
const LARGEST_COPIES: usize = 32 << 20;

/// A value and where it begins.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::config) struct Node {
    pub(in crate::config) value: Yaml,
    pub(in crate::config) place: Place,
}

/// What a node can be.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::config) enum Yaml {
    Null,
    Flag(bool),
    Number(Number),
    /// `.inf`, `-.inf`, `.nan`, or a number beyond the range of floats.
    NotFinite(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key of a map, where it is, and its value.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::config) struct Entry {
    pub(in crate::config) key: String,
    pub(in crate::config) place: Place,
    pub(in crate::config) value: Node,
}

/// Reads one document. An empty text is an empty map. With faults, the tree
/// is what could be read before or beside them.
pub(in crate::config) fn parse(text: &str) -> (Node, Vec<Fault>) {
    if text.len() > LARGEST_TEXT {
        let message = format!(
            "the text has {} bytes; at most {LARGEST_TEXT} are read",
            text.len()
        );
        return (Node::empty(), vec![Fault::without_place(&[], message)]);
    }
    let mut reader = Reader {
        parser: Parser::new_from_str(text.strip_prefix('\u{feff}').unwrap_or(text)),
        anchors: HashMap::new(),
        copied: 0,
        path: Vec::new(),
        faults: Vec::new(),
    };
    let node = match reader.stream() {
        Ok(node) => node,
        Err(fault) => {
            reader.faults.push(fault);
            Node::empty()
        }
    };
    (node, reader.faults)
}

impl Node {
    /// An empty map at the top of the file.
    pub(in crate::config) const fn empty() -> Self {
        Self {
            value: Yaml::Map(Vec::new()),
            place: Place { line: 1, column: 1 },
        }
    }

    /// A JSON object as a tree without places.
    pub(in crate::config) fn from_json_map(map: &Map<String, Value>) -> Self {
        let entries = map.iter().map(|(key, value)| Entry {
            key: key.clone(),
            place: Place::default(),
            value: Self::from_json(value),
        });
        Self {
            value: Yaml::Map(entries.collect()),
            place: Place::default(),
        }
    }

    fn from_json(value: &Value) -> Self {
        let value = match value {
            Value::Null => Yaml::Null,
            Value::Bool(flag) => Yaml::Flag(*flag),
            Value::Number(number) => Yaml::Number(number.clone()),
            Value::String(text) => Yaml::Text(text.clone()),
            Value::Array(items) => Yaml::List(items.iter().map(Self::from_json).collect()),
            Value::Object(map) => return Self::from_json_map(map),
        };
        Self {
            value,
            place: Place::default(),
        }
    }

    /// The value of that key, if this is a map that has it.
    pub(in crate::config) fn get(&self, key: &str) -> Option<&Self> {
        let found = self.entries().iter().find(|entry| entry.key == key);
        found.map(|entry| &entry.value)
    }

    /// The entries of a map; anything else has none.
    pub(in crate::config) fn entries(&self) -> &[Entry] {
        match &self.value {
            Yaml::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The members of a list; anything else has none.
    pub(in crate::config) fn items(&self) -> &[Self] {
        match &self.value {
            Yaml::List(items) => items,
            _ => &[],
        }
    }

    /// The text, if it is text.
    pub(in crate::config) fn text(&self) -> Option<&str> {
        match &self.value {
            Yaml::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The truth value, if it is one.
    pub(in crate::config) fn flag(&self) -> Option<bool> {
        match self.value {
            Yaml::Flag(flag) => Some(flag),
            _ => None,
        }
    }

    /// The number, if it is one and finite.
    pub(in crate::config) fn number(&self) -> Option<f64> {
        match &self.value {
            Yaml::Number(number) => number.as_f64(),
            _ => None,
        }
    }

    /// The whole number, if it is one from 0 up; `5.0` counts.
    pub(in crate::config) fn whole(&self) -> Option<u64> {
        match &self.value {
            Yaml::Number(number) => number.as_u64().or_else(|| whole_float(number.as_f64()?)),
            _ => None,
        }
    }

    /// The same as JSON. What JSON has no word for becomes null.
    pub(in crate::config) fn to_json(&self) -> Value {
        match &self.value {
            Yaml::Null | Yaml::NotFinite(_) => Value::Null,
            Yaml::Flag(flag) => Value::Bool(*flag),
            Yaml::Number(number) => Value::Number(number.clone()),
            Yaml::Text(text) => Value::String(text.clone()),
            Yaml::List(items) => Value::Array(items.iter().map(Self::to_json).collect()),
            Yaml::Map(_) => Value::Object(self.to_json_map()),
        }
    }

    /// As [`Node::to_json`], with the node used up.
    pub(in crate::config) fn into_json(self) -> Value {
        match self.value {
            Yaml::Null | Yaml::NotFinite(_) => Value::Null,
            Yaml::Flag(flag) => Value::Bool(flag),
            Yaml::Number(number) => Value::Number(number),
            Yaml::Text(text) => Value::String(text),
            Yaml::List(items) => Value::Array(items.into_iter().map(Self::into_json).collect()),
            Yaml::Map(entries) => {
                let mut map = Map::with_capacity(entries.len());
                for entry in entries {
                    map.insert(entry.key, entry.value.into_json());
                }
                Value::Object(map)
            }
        }
    }

    /// The same as a JSON object; empty if it isn't a map.
    pub(in crate::config) fn to_json_map(&self) -> Map<String, Value> {
        let pairs = self.entries().iter();
        pairs
            .map(|entry| (entry.key.clone(), entry.value.to_json()))
            .collect()
    }

    /// Whether both say the same, wherever they stand.
    pub(in crate::config) fn says_the_same(&self, other: &Self) -> bool {
        match (&self.value, &other.value) {
            (Yaml::List(one), Yaml::List(other)) => {
                one.len() == other.len() && one.iter().zip(other).all(|(a, b)| a.says_the_same(b))
            }
            (Yaml::Map(one), Yaml::Map(other)) => {
                one.len() == other.len()
                    && one
                        .iter()
                        .zip(other)
                        .all(|(a, b)| a.key == b.key && a.value.says_the_same(&b.value))
            }
            (one, other) => one == other,
        }
    }

    /// Bytes and levels, roughly.
    fn extent(&self) -> (usize, usize) {
        let add = |(bytes, levels): (usize, usize), (more, below): (usize, usize)| {
            (bytes + more, levels.max(below + 1))
        };
        let own = (size_of::<Self>(), 1);
        match &self.value {
            Yaml::Text(text) => (own.0 + text.len(), 1),
            Yaml::List(items) => items.iter().map(Self::extent).fold(own, add),
            Yaml::Map(entries) => entries
                .iter()
                .map(|entry| {
                    let (bytes, levels) = entry.value.extent();
                    (bytes + size_of::<Entry>() + entry.key.len(), levels)
                })
                .fold(own, add),
            _ => own,
        }
    }
}

/// The keys of a map that is being read. A map of few keys is looked through: a
/// table for each would cost more than all the rest of reading it.
#[derive(Default)]
struct Seen {
    places: HashMap<String, Place>,
}

impl Seen {
    /// Most keys that are looked through.
    const FEW: usize = 24;

    /// Where that key is among the entries so far.
    fn place(&mut self, entries: &[Entry], key: &str) -> Option<Place> {
        if entries.len() <= Self::FEW {
            let same = entries.iter().find(|entry| entry.key == key);
            return same.map(|entry| entry.place);
        }
        for entry in entries.get(self.places.len()..).unwrap_or_default() {
            self.places.insert(entry.key.clone(), entry.place);
        }
        self.places.get(key).copied()
    }
}

/// A float without a fraction as the whole number it is.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the value was checked to be whole, not negative and below 2^53"
)]
fn whole_float(number: f64) -> Option<u64> {
    let exact = number.fract() == 0.0 && (0.0..9_007_199_254_740_992.0).contains(&number);
    exact.then_some(number as u64)
}

struct Reader<'text> {
    parser: Parser<'text, StrInput<'text>>,
    anchors: HashMap<usize, Node>,
    /// Bytes that aliases and anchors have copied so far.
    copied: usize,
    path: Vec<String>,
    faults: Vec<Fault>,
}

impl<'text> Reader<'text> {
    fn stream(&mut self) -> Result<Node, Fault> {
        let mut root = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => break,
                Event::StreamStart | Event::DocumentEnd => {}
                Event::DocumentStart(..) if root.is_some() => {
                    let message = "a second YAML document begins here; one is wanted";
                    return Err(self.fault_at(place(span.start), message));
                }
                Event::DocumentStart(..) => root = Some(self.document()?),
                _ => return Err(self.fault_at(place(span.start), "a document was wanted here")),
            }
        }
        Ok(match root {
            // Comments alone, or `---` with nothing after it.
            None => Node::empty(),
            Some(node) if node.value == Yaml::Null => Node::empty(),
            Some(node) => node,
        })
    }

    fn document(&mut self) -> Result<Node, Fault> {
        let (event, span) = self.next()?;
        self.node(event, span, 0)
    }

    fn node(&mut self, event: Event<'text>, span: Span, depth: usize) -> Result<Node, Fault> {
        let at = place(span.start);
        if depth >= DEEPEST {
            let message = format!("nested deeper than {DEEPEST} levels");
            return Err(self.fault_at(at, message));
        }
        let (value, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                (self.scalar(&text, style, tag.as_deref(), at), anchor)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.refuse_tag(tag.as_deref(), "seq", at);
                (Yaml::List(self.list(depth)?), anchor)
            }
            Event::MappingStart(_, anchor, tag) => {
                self.refuse_tag(tag.as_deref(), "map", at);
                (Yaml::Map(self.map(depth)?), anchor)
            }
            Event::Alias(anchor) => return self.alias(anchor, at, depth),
            _ => return Err(self.fault_at(at, "a value was wanted here")),
        };
        let node = Node { value, place: at };
        if anchor > 0 {
            self.count_copy(&node, at, 0)?;
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn list(&mut self, depth: usize) -> Result<Vec<Node>, Fault> {
        let mut items = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::SequenceEnd {
                return Ok(items);
            }
            self.path.push(items.len().to_string());
            items.push(self.node(event, span, depth + 1)?);
            self.path.pop();
        }
    }

    fn map(&mut self, depth: usize) -> Result<Vec<Entry>, Fault> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut seen = Seen::default();
        let mut merged = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                break;
            }
            let at = place(span.start);
            let merges =
                matches!(&event, Event::Scalar(text, ScalarStyle::Plain, _, None) if text == "<<");
            let key = self.key(event, span, depth)?;
            self.path.push(key);
            let (event, span) = self.next()?;
            let value = self.node(event, span, depth + 1)?;
            let key = self.path.pop().unwrap_or_default();
            if merges {
                merged.push(value);
            } else if let Some(first) = seen.place(&entries, &key) {
                let message = format!("duplicate key; it is already at line {}", first.line);
                self.path.push(key);
                let fault = self.fault_at(at, message);
                self.faults.push(fault);
                self.path.pop();
            } else {
                entries.push(Entry {
                    key,
                    place: at,
                    value,
                });
            }
        }
        self.merge(&mut entries, merged);
        Ok(entries)
    }

    /// The text of a key, whatever it would be as a value.
    fn key(&mut self, event: Event<'text>, span: Span, depth: usize) -> Result<String, Fault> {
        if let Event::Scalar(text, _, 0, _) = event {
            return Ok(text.into_owned());
        }
        let at = place(span.start);
        let node = self.node(event, span, depth + 1)?;
        match node.value {
            Yaml::Text(text) => Ok(text),
            Yaml::Number(number) => Ok(number.to_string()),
            Yaml::Flag(flag) => Ok(flag.to_string()),
            _ => Err(self.fault_at(at, "found a key that isn't text")),
        }
    }

    /// Adds what merge keys bring; what the map says itself wins, then the
    /// earlier source.
    fn merge(&mut self, entries: &mut Vec<Entry>, merged: Vec<Node>) {
        if merged.is_empty() {
            return;
        }
        let mut present: HashSet<String> = entries.iter().map(|e| e.key.clone()).collect();
        let flat = merged.into_iter().flat_map(|node| match node.value {
            Yaml::List(items) => items,
            _ => vec![node],
        });
        for source in flat {
            let Yaml::Map(brought) = source.value else {
                let message = "a merge key takes a map or a list of maps";
                let fault = self.fault_at(source.place, message);
                self.faults.push(fault);
                continue;
            };
            for entry in brought {
                if present.insert(entry.key.clone()) {
                    entries.push(entry);
                }
            }
        }
    }

    fn alias(&mut self, anchor: usize, at: Place, depth: usize) -> Result<Node, Fault> {
        let Some(node) = self.anchors.get(&anchor).cloned() else {
            return Err(self.fault_at(at, "an alias stands inside what it refers to"));
        };
        self.count_copy(&node, at, depth)?;
        Ok(node)
    }

    fn count_copy(&mut self, node: &Node, at: Place, depth: usize) -> Result<(), Fault> {
        let (bytes, levels) = node.extent();
        if depth + levels > DEEPEST {
            let message = format!("nested deeper than {DEEPEST} levels once aliases are resolved");
            return Err(self.fault_at(at, message));
        }
        self.copied += bytes;
        if self.copied > LARGEST_COPIES {
            let message = format!("aliases expand to more than {} MB", LARGEST_COPIES >> 20);
            return Err(self.fault_at(at, message));
        }
        Ok(())
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, tag: Option<&Tag>, at: Place) -> Yaml {
        let Some(tag) = tag else {
            return match style {
                ScalarStyle::Plain => plain(text),
                _ => Yaml::Text(text.to_owned()),
            };
        };
        let resolved = match tag.core_suffix() {
            Some("str") => Some(Yaml::Text(text.to_owned())),
            Some("null") => Some(plain(text)).filter(|v| *v == Yaml::Null),
            Some("bool") => Some(plain(text)).filter(|v| matches!(v, Yaml::Flag(_))),
            Some("int" | "float") => {
                Some(plain(text)).filter(|v| matches!(v, Yaml::Number(_) | Yaml::NotFinite(_)))
            }
            _ if tag.original() == "!" => Some(Yaml::Text(text.to_owned())),
            _ => None,
        };
        resolved.unwrap_or_else(|| {
            self.refuse_tag(Some(tag), "", at);
            Yaml::Text(text.to_owned())
        })
    }

    fn refuse_tag(&mut self, tag: Option<&Tag>, allowed: &str, at: Place) {
        if let Some(tag) = tag.filter(|tag| tag.core_suffix() != Some(allowed)) {
            let message = format!("the tag {} does not fit here", tag.original());
            let fault = self.fault_at(at, message);
            self.faults.push(fault);
        }
    }

    fn next(&mut self) -> Result<(Event<'text>, Span), Fault> {
        match self.parser.next_event() {
            Some(Ok(next)) => Ok(next),
            Some(Err(error)) => {
                let message = format!("this is not YAML: {}", error.info());
                Err(self.fault_at(place(*error.marker()), message))
            }
            None => Err(Fault::without_place(&[], "the text ends too early")),
        }
    }

    fn fault_at(&self, at: Place, message: impl Into<String>) -> Fault {
        Fault {
            path: self.path.clone(),
            line: at.line,
            column: at.column,
            message: message.into(),
        }
    }
}

fn place(mark: Marker) -> Place {
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Place {
        line: count(mark.line().max(1)),
        column: count(mark.col().saturating_add(1)),
    }
}

/// A plain scalar by the core schema.
/// <https://yaml.org/spec/1.2.2/#1032-tag-resolution>
fn plain(text: &str) -> Yaml {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Yaml::Null,
        "true" | "True" | "TRUE" => return Yaml::Flag(true),
        "false" | "False" | "FALSE" => return Yaml::Flag(false),
        ".nan" | ".NaN" | ".NAN" => return Yaml::NotFinite(f64::NAN),
        _ => {}
    }
    let (sign, digits) = match text.as_bytes().first() {
        Some(b'-') => (-1.0, &text[1..]),
        Some(b'+') => (1.0, &text[1..]),
        _ => (1.0, text),
    };
    if matches!(digits, ".inf" | ".Inf" | ".INF") {
        return Yaml::NotFinite(sign * f64::INFINITY);
    }
    if let Some(number) = based(text) {
        return Yaml::Number(number);
    }
    if !looks_decimal(digits) {
        return Yaml::Text(text.to_owned());
    }
    if let Ok(number) = text.parse::<i64>() {
        return Yaml::Number(number.into());
    }
    if let Ok(number) = text.parse::<u64>() {
        return Yaml::Number(number.into());
    }
    let number = text.parse::<f64>().unwrap_or(f64::NAN);
    Number::from_f64(number).map_or(Yaml::NotFinite(number), Yaml::Number)
}

/// `0o17` and `0x1F`.
fn based(text: &str) -> Option<Number> {
    let (radix, digits) = match text.strip_prefix("0x") {
        Some(digits) => (16, digits),
        None => (8, text.strip_prefix("0o")?),
    };
    if digits.starts_with('+') {
        return None;
    }
    u64::from_str_radix(digits, radix).ok().map(Number::from)
}

/// `[0-9]+(\.[0-9]*)?` or `\.[0-9]+`, then maybe an exponent.
fn looks_decimal(text: &str) -> bool {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mantissa_fits = digits(whole) && digits(fraction) && whole.len() + fraction.len() > 0;
    let exponent_fits = exponent.is_none_or(|exponent| {
        let bare = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        !bare.is_empty() && digits(bare)
    });
    mantissa_fits && exponent_fits
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn read(text: &str) -> Value {
        let (node, faults) = parse(text);
        assert_eq!(faults, vec![], "{text}");
        node.to_json()
    }

    fn faults(text: &str) -> Vec<String> {
        parse(text).1.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn scalars_resolve_by_the_core_schema() {
        let text = "a: yes\nb: true\nc: 010\nd: 0x1F\ne: 1e3\nf: ~\ng: '1'\nh: 1.5\ni: -7\n\
                    j: 1_000\nk: 12:30\nl: !!str 5\nm: .5\nn: +3\no: 0o17\np: e5\nq: '.'\n";
        let wanted = json!({"a": "yes", "b": true, "c": 10, "d": 31, "e": 1000.0, "f": null,
            "g": "1", "h": 1.5, "i": -7, "j": "1_000", "k": "12:30", "l": "5", "m": 0.5, "n": 3,
            "o": 15, "p": "e5", "q": "."});
        assert_eq!(read(text), wanted);
        assert_eq!(
            parse("[.inf]").0.items()[0].value,
            Yaml::NotFinite(f64::INFINITY)
        );
    }

    #[test]
    fn json_reads_as_the_same_value() {
        let value = json!({"a": [1, 2.5, {"b": "x\ty\n\"😀"}], "c": null, "d": {}, "e": []});
        assert_eq!(read(&value.to_string()), value);
        assert_eq!(read(&serde_json::to_string_pretty(&value).unwrap()), value);
    }

    #[test]
    fn nothing_and_comments_alone_are_an_empty_map() {
        for text in ["", "# only this\n", "---\n", "\u{feff}", "~"] {
            assert_eq!(read(text), json!({}), "{text:?}");
        }
    }

    #[test]
    fn every_node_knows_its_place() {
        let (node, _) = parse("a:\n  b: [1,\n    2]\n");
        let entry = &node.get("a").unwrap().entries()[0];
        assert_eq!(entry.place, Place { line: 2, column: 3 });
        assert_eq!(entry.value.items()[1].place, Place { line: 3, column: 5 });
    }

    #[test]
    fn duplicate_keys_are_faults_and_the_rest_is_read_on() {
        let text = "a: 1\nb: {c: 1, c: 2}\na: 3\n";
        assert_eq!(
            faults(text),
            [
                "plexus.yaml:2:11 b.c: duplicate key; it is already at line 2",
                "plexus.yaml:3:1 a: duplicate key; it is already at line 1"
            ]
        );
    }

    #[test]
    fn anchors_aliases_and_merge_keys_are_resolved() {
        let text = "a: &x {p: 1, q: 2}\nb: *x\nc: {<<: *x, q: 3}\nd: {<<: [{p: 9}, *x], r: 0}\n";
        let wanted = json!({"a": {"p": 1, "q": 2}, "b": {"p": 1, "q": 2}, "c": {"q": 3, "p": 1},
            "d": {"r": 0, "p": 9, "q": 2}});
        assert_eq!(read(text), wanted);
    }

    #[test]
    fn an_alias_bomb_is_refused() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for i in 1..12 {
            let last = format!("*a{}, ", i - 1).repeat(9);
            text.push_str(&format!("a{i}: &a{i} [{last}*a{}]\n", i - 1));
        }
        assert!(faults(&text)[0].contains("aliases expand to more than 32 MB"));
    }

    #[test]
    fn aliases_cannot_nest_without_end() {
        let mut text = String::from("a0: &a0 [x]\n");
        for i in 1..100 {
            text.push_str(&format!("a{i}: &a{i} [*a{}]\n", i - 1));
        }
        assert!(faults(&text)[0].contains("nested deeper than 64 levels"));
        assert!(faults(&"[".repeat(100_000)).len() == 1);
        assert!(faults("a: &a [*a]")[0].contains("inside what it refers to"));
    }

    #[test]
    fn what_is_not_one_yaml_document_is_refused_with_its_place() {
        assert!(faults("a: 1\n---\nb: 2\n")[0].contains(":2:1: a second YAML document"));
        assert!(faults("a: [1\n")[0].contains("this is not YAML"));
        assert!(faults("a: *nobody\n")[0].starts_with("plexus.yaml:1:4 a: this is not YAML"));
        assert!(faults("a: !include x\n")[0].contains("the tag !include does not fit here"));
        assert!(faults("[1, 2]: x\n")[0].contains("a key that isn't text"));
        assert!(faults(&" ".repeat(LARGEST_TEXT + 1))[0].contains("at most"));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "[ -~\\n\\t&*<:{}\\[\\]!|>'\"#é]{0,200}") {
            let (node, _) = parse(&text);
            let _json = node.to_json();
        }
    }
}
