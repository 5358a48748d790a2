//! Edits of `plexus.yaml` in place: comments, order and layout stay, and only
//! what differs is written.
//!
//! Nothing is trusted: the edited text is read again, and if it doesn't say
//! exactly what was intended, nothing changes. What the fields mean is the
//! check's business, not this file's.

use std::fmt;
use std::str::FromStr;

use serde_json::{Map, Value};
use yaml_edit::{Document, Mapping, MappingEntry};

use super::fault::{Fault, describe};
use super::fold;
use super::tree::{self, DEEPEST, Node, Yaml};

/// Why a text was not edited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EditError {
    /// The text can't be read, so nothing in it can be found.
    Unreadable(Vec<Fault>),
    /// The path leads through something that isn't a map.
    NotAMap(Vec<String>),
    /// The layout there can't be edited in place; the edit would have changed
    /// something else. That is so where anchors or merge keys are shared.
    Layout(Vec<String>),
    /// The value nests too deep to be written.
    TooDeep,
    /// A secret in it can't be sealed; why.
    Sealing(String),
}

impl fmt::Display for EditError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(faults) => {
                write!(
                    f,
                    "the file can't be read: {}",
                    describe(faults, "plexus.yaml").trim_end()
                )
            }
            Self::NotAMap(path) => {
                write!(
                    f,
                    "{} is not a map; a section is wanted there",
                    path.join(".")
                )
            }
            Self::Layout(path) => write!(
                f,
                "{} can't be edited in place, for instance because it shares an anchor or a \
                 merge key; edit the file by hand",
                path.join(".")
            ),
            Self::Sealing(why) => f.write_str(why),
            Self::TooDeep => write!(f, "the value nests deeper than {DEEPEST} levels"),
        }
    }
}

impl std::error::Error for EditError {}

/// The text with the value at `path` set, sections made where they are
/// missing. Where the file says the same already, in whatever spelling, the
/// text comes back as it was.
///
/// # Errors
/// When the text can't be read or can't be edited there; nothing is changed.
pub fn set(text: &str, path: &[&str], value: &Value) -> Result<String, EditError> {
    if too_deep(value, DEEPEST.saturating_sub(path.len())) {
        return Err(EditError::TooDeep);
    }
    let before = read(text)?;
    let mut after = before.clone();
    put(&mut after, path, value, 0)?;
    apply(text, path, &before, &after)
}

/// The text without the entry at `path`; unchanged if there is none.
///
/// # Errors
/// When the text can't be read or can't be edited there; nothing is changed.
pub fn remove(text: &str, path: &[&str]) -> Result<String, EditError> {
    let before = read(text)?;
    let mut after = before.clone();
    let Some((last, sections)) = path.split_last() else {
        return Ok(text.to_owned());
    };
    let mut section = Some(&mut after);
    for name in sections {
        section = section
            .and_then(|map| map.get_mut(*name))
            .and_then(Value::as_object_mut);
    }
    match section.and_then(|map| map.shift_remove(*last)) {
        None => Ok(text.to_owned()),
        Some(_) => apply(text, path, &before, &after),
    }
}

/// Whether the text has a value at `path`, in that very spelling; `None` when it
/// can't be read.
#[must_use]
pub fn is_there(text: &str, path: &[&str]) -> Option<bool> {
    let whole = read(text).ok()?;
    let Some((first, rest)) = path.split_first() else {
        return Some(true);
    };
    let found = whole.get(*first);
    let found = found.and_then(|value| rest.iter().try_fold(value, |value, name| value.get(*name)));
    Some(found.is_some())
}

/// A value as YAML text in block style, as it would be written into the file.
#[must_use]
pub fn render(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => write_map(&mut out, map, 0),
        Value::Array(items) if !items.is_empty() => write_list(&mut out, items, 0),
        _ => write_scalar(&mut out, value),
    }
    if !out.ends_with('\n') {
        out.push('\n');
    }
    out
}

fn read(text: &str) -> Result<Map<String, Value>, EditError> {
    let (node, faults) = tree::parse(text);
    if !faults.is_empty() {
        return Err(EditError::Unreadable(faults));
    }
    match node.value {
        Yaml::Map(_) => Ok(node.to_json_map()),
        _ => Err(EditError::NotAMap(Vec::new())),
    }
}

fn put(
    map: &mut Map<String, Value>,
    path: &[&str],
    value: &Value,
    depth: usize,
) -> Result<(), EditError> {
    let not_a_map = || EditError::NotAMap(owned(path.get(..=depth).unwrap_or(path)));
    let Some(name) = path.get(depth) else {
        // The whole file.
        *map = value.as_object().cloned().ok_or_else(not_a_map)?;
        return Ok(());
    };
    if depth + 1 == path.len() {
        map.insert((*name).to_owned(), value.clone());
        return Ok(());
    }
    let below = map.entry(*name).or_insert(Value::Null);
    if below.is_null() {
        *below = Value::Object(Map::new());
    }
    put(
        below.as_object_mut().ok_or_else(not_a_map)?,
        path,
        value,
        depth + 1,
    )
}

fn apply(
    text: &str,
    path: &[&str],
    before: &Map<String, Value>,
    after: &Map<String, Value>,
) -> Result<String, EditError> {
    if before == after || canonical(before) == canonical(after) {
        return Ok(text.to_owned());
    }
    let tries: [&dyn Fn() -> Option<String>; 3] = [
        &|| on_empty(text, before, after),
        &|| edited(text, |root| differences(root, before, after, usize::MAX)),
        // Coarser: whole values at the depth of the path.
        &|| {
            edited(text, |root| {
                differences(root, before, after, path.len().saturating_sub(1))
            })
        },
    ];
    let outcome = tries
        .iter()
        .filter_map(|attempt| attempt())
        .find(|outcome| read(outcome).as_ref() == Ok(after));
    outcome.ok_or_else(|| EditError::Layout(owned(path)))
}

/// A file that says nothing keeps its comments, and gets the rest below them.
fn on_empty(text: &str, before: &Map<String, Value>, after: &Map<String, Value>) -> Option<String> {
    if !before.is_empty() {
        return None;
    }
    let says_nothing = |line: &&str| {
        let line = line.trim();
        line.is_empty() || line.starts_with('#')
    };
    let mut out: String = text.split_inclusive('\n').filter(says_nothing).collect();
    if !out.is_empty() && !out.ends_with('\n') {
        out.push('\n');
    }
    out.push_str(&render(&Value::Object(after.clone())));
    Some(out)
}

fn edited(text: &str, change: impl FnOnce(&Mapping) -> Option<()>) -> Option<String> {
    let document = Document::from_str(text).ok()?;
    change(&document.as_mapping()?)?;
    Some(document.to_string())
}

/// Makes the mapping say `after`. Down to `depth` levels, maps are changed
/// entry by entry; below, they are replaced.
fn differences(
    mapping: &Mapping,
    before: &Map<String, Value>,
    after: &Map<String, Value>,
    depth: usize,
) -> Option<()> {
    for name in before.keys().filter(|name| !after.contains_key(*name)) {
        // By its own key: removing the entry itself leaves its indent behind.
        mapping.remove(entry(mapping, name)?.key_node()?)?;
    }
    for (name, value) in after {
        let Some(old) = before.get(name) else {
            write(mapping, name, value, None)?;
            continue;
        };
        if old == value {
            continue;
        }
        let found = entry(mapping, name)?;
        let within = found.value_node();
        let within = within.as_ref().and_then(|node| node.as_mapping());
        match (old, value, within) {
            (Value::Object(old), Value::Object(new), Some(within))
                if depth > 0 && !old.is_empty() && !new.is_empty() =>
            {
                differences(within, old, new, depth - 1)?;
            }
            _ => write(mapping, name, value, Some(&found))?,
        }
    }
    Some(())
}

/// The entry whose key reads as that text, quoted or not.
fn entry(mapping: &Mapping, name: &str) -> Option<MappingEntry> {
    mapping.entries().find(|entry| {
        let key = entry.key_node();
        key.is_some_and(|key| key.as_scalar().is_some_and(|key| key.as_string() == name))
    })
}

fn write(mapping: &Mapping, name: &str, value: &Value, old: Option<&MappingEntry>) -> Option<()> {
    let document = Document::from_str(&render(value)).ok()?;
    let flow = mapping.is_flow_style();
    macro_rules! put {
        ($node:expr) => {
            match old {
                Some(entry) => entry.set_value($node, flow),
                None => mapping.set(name, $node),
            }
        };
    }
    if let Some(node) = document.as_mapping() {
        put!(node);
    } else if let Some(node) = document.as_sequence() {
        put!(node);
    } else {
        put!(document.as_scalar()?);
    }
    Some(())
}

fn canonical(map: &Map<String, Value>) -> Value {
    fold::canonical(Node::from_json_map(map)).0.to_json()
}

fn too_deep(value: &Value, levels: usize) -> bool {
    match value {
        _ if levels == 0 => true,
        Value::Array(items) => items.iter().any(|item| too_deep(item, levels - 1)),
        Value::Object(map) => map.values().any(|item| too_deep(item, levels - 1)),
        _ => false,
    }
}

fn owned(path: &[&str]) -> Vec<String> {
    path.iter().map(ToString::to_string).collect()
}

fn write_map(out: &mut String, map: &Map<String, Value>, indent: usize) {
    for (i, (name, value)) in map.iter().enumerate() {
        // The first entry may stand behind a list's dash.
        if i > 0 || !out.ends_with("- ") {
            out.push_str(&" ".repeat(indent));
        }
        write_text(out, name);
        out.push(':');
        write_below(out, value, indent + 2);
    }
}

fn write_list(out: &mut String, items: &[Value], indent: usize) {
    for item in items {
        out.push_str(&" ".repeat(indent));
        out.push('-');
        match item {
            Value::Object(map) if !map.is_empty() => {
                out.push(' ');
                write_map(out, map, indent + 2);
            }
            _ => write_below(out, item, indent + 2),
        }
    }
}

/// What stands after a colon or a dash, to the end of its last line.
fn write_below(out: &mut String, value: &Value, indent: usize) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            out.push('\n');
            write_map(out, map, indent);
        }
        Value::Array(items) if !items.is_empty() => {
            out.push('\n');
            write_list(out, items, indent);
        }
        _ => {
            out.push(' ');
            write_scalar(out, value);
            out.push('\n');
        }
    }
}

fn write_scalar(out: &mut String, value: &Value) {
    match value {
        Value::String(text) => write_text(out, text),
        Value::Object(_) => out.push_str("{}"),
        Value::Array(_) => out.push_str("[]"),
        other => out.push_str(&other.to_string()),
    }
}

fn write_text(out: &mut String, text: &str) {
    if stands_plain(text) {
        out.push_str(text);
        return;
    }
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            // What YAML calls not printable, and its further line breaks.
            '\0'..='\u{1f}'
            | '\u{7f}'..='\u{a0}'
            | '\u{2028}'
            | '\u{2029}'
            | '\u{feff}'
            | '\u{fffe}'
            | '\u{ffff}' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            _ => out.push(c),
        }
    }
    out.push('"');
}

/// Whether a text reads back as itself without quotes, here and in tools that
/// still read YAML 1.1.
fn stands_plain(text: &str) -> bool {
    let first = text.chars().next();
    let begins = first.is_some_and(|c| c.is_ascii_alphabetic() || matches!(c, '$' | '/' | '_'));
    let inside = |c: char| c.is_ascii_alphanumeric() || "_-./:@+$ ".contains(c);
    let old_word = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];
    begins
        && text.chars().all(inside)
        && !text.contains(": ")
        && !text.ends_with([':', ' '])
        && !old_word.contains(&text.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    const FILE: &str = "\
# who serves
providers:
  openai:   # the first
    api_base_url: https://api.openai.com/v1   # as written
    api_key: $env:OPENAI   # from the environment
    enabled: true   # toggled by ops
    models: [gpt-4o, gpt-4o-mini]
  # the second
  local: { api_base_url: 'http://127.0.0.1:8080/v1', api_key: '' }

keys: {}   # none yet
# the end
";

    fn value(text: &str) -> Value {
        Value::Object(read(text).unwrap())
    }

    #[test]
    fn the_same_value_leaves_every_byte() {
        let all = value(FILE);
        let openai = &all["providers"]["openai"];
        assert_eq!(set(FILE, &["providers", "openai"], openai).unwrap(), FILE);
        assert_eq!(set(FILE, &[], &all).unwrap(), FILE);
        let short = "models: {a: {targets: [{provider: p, model: m}]}}   # short\n";
        let long = json!({"target_groups": [{"name": "default",
            "targets": [{"provider": "p", "model": "m"}]}]});
        assert_eq!(set(short, &["models", "a"], &long).unwrap(), short);
    }

    #[test]
    fn only_what_differs_is_written() {
        let mut openai = value(FILE)["providers"]["openai"].clone();
        openai["enabled"] = json!(false);
        openai["timeoutMs"] = json!(500);
        let edited = set(FILE, &["providers", "openai"], &openai).unwrap();
        let wanted = FILE
            .replace("enabled: true   # toggled", "enabled: false   # toggled")
            .replace("gpt-4o-mini]\n", "gpt-4o-mini]\n    timeoutMs: 500\n");
        assert_eq!(edited, wanted);
    }

    #[test]
    fn entries_are_added_at_the_end_of_their_section() {
        let provider = json!({"api_base_url": "https://x/v1", "api_key": "yes: #1",
            "models": {"m": {"pricing": {"source": "simple", "input": 1.5}}}});
        let edited = set(FILE, &["providers", "new/one"], &provider).unwrap();
        assert_eq!(value(&edited)["providers"]["new/one"], provider);
        for line in FILE.lines() {
            assert!(edited.contains(line), "{line} is gone from\n{edited}");
        }
    }

    #[test]
    fn empty_and_missing_sections_are_filled() {
        let key = json!({"secret": "s", "quotas": ["a", "b"]});
        for text in [
            "",
            "# only a comment\n",
            "{}\n",
            "---\n",
            "keys:\n",
            "keys: {}\n",
            "keys: ~  # c\n",
            "adminKey: x",
            "# c\nadminKey: x\n\n# d\n",
        ] {
            let edited = set(text, &["keys", "app"], &key).unwrap();
            assert_eq!(
                value(&edited)["keys"]["app"],
                key,
                "{text:?} became {edited:?}"
            );
            for comment in text.lines().filter(|line| line.starts_with('#')) {
                assert!(
                    edited.contains(comment),
                    "{comment} is gone from {edited:?}"
                );
            }
        }
    }

    #[test]
    fn removing_takes_the_entry_and_leaves_the_rest() {
        let edited = remove(FILE, &["providers", "openai"]).unwrap();
        assert!(edited.contains("# the second") && edited.contains("keys: {}   # none yet"));
        assert_eq!(value(&edited)["providers"].as_object().unwrap().len(), 1);
        let emptied = remove(&edited, &["providers", "local"]).unwrap();
        assert_eq!(value(&emptied)["providers"], json!({}), "{emptied}");
        assert_eq!(remove(FILE, &["providers", "nobody"]).unwrap(), FILE);
        assert_eq!(remove(FILE, &["nothing", "at", "all"]).unwrap(), FILE);
    }

    #[test]
    fn names_with_dots_slashes_and_digits_are_found() {
        let text = "models:\n  gpt-4.1: {priority: selector}\n  3.5: {}   # odd\n  a/b: {}\n";
        for name in ["gpt-4.1", "3.5", "a/b", "true", "é: x", "c.d[0]"] {
            let edited = set(text, &["models", name, "priority"], &json!("api_match")).unwrap();
            assert_eq!(
                value(&edited)["models"][name]["priority"],
                "api_match",
                "{edited}"
            );
        }
    }

    #[test]
    fn a_shared_anchor_is_not_edited_through_its_alias() {
        let text = "a: &x {p: 1}\nb: *x\n";
        assert_eq!(
            set(text, &["b", "p"], &json!(2)).map(|t| value(&t)),
            Ok(json!({"a": {"p": 1}, "b": {"p": 2}}))
        );
        let merged = "a: &x {p: 1}\nb: {<<: *x, q: 1}\n";
        assert!(matches!(
            remove(merged, &["b", "p"]),
            Err(EditError::Layout(_))
        ));
    }

    #[test]
    fn what_cannot_be_edited_says_why() {
        assert!(matches!(
            set("a: [", &["b"], &json!(1)),
            Err(EditError::Unreadable(_))
        ));
        let error = set("a: 5", &["a", "b"], &json!(1)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "a is not a map; a section is wanted there"
        );
        let mut deep = json!(1);
        for _ in 0..100 {
            deep = json!([deep]);
        }
        assert_eq!(set("", &["a"], &deep), Err(EditError::TooDeep));
    }

    fn scalar() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            (-1e9..1e9f64).prop_map(Value::from),
            "[a-z]{1,8}".prop_map(Value::from),
            "[ -~\\n\\té😀]{0,12}".prop_map(Value::from),
        ]
    }

    fn tree_of(leaf: impl Strategy<Value = Value> + 'static) -> impl Strategy<Value = Value> {
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::vec(("[ -~é]{1,6}", inner), 0..4)
                    .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
            ]
        })
    }

    fn sections() -> impl Strategy<Value = Map<String, Value>> {
        let names = proptest::sample::select(vec!["a", "b", "c", "1", "x.y"]);
        let entry = (names, tree_of(scalar()));
        let section = proptest::collection::vec(entry, 0..4)
            .prop_map(|pairs| pairs.into_iter().map(|(k, v)| (k.to_owned(), v)).collect());
        proptest::collection::vec(("[s-u]", section.prop_map(Value::Object)), 0..3)
            .prop_map(|pairs| pairs.into_iter().collect())
    }

    /// Comments before and behind every top-level line and at the end.
    fn with_comments(text: &str) -> (String, Vec<String>) {
        let mut comments = Vec::new();
        let mut out = String::new();
        for (i, line) in text.lines().enumerate() {
            if line.starts_with(|c: char| c.is_alphabetic()) {
                comments.push(format!("# before {i}"));
                out.push_str(&format!("# before {i}\n"));
            }
            out.push_str(line);
            out.push('\n');
        }
        comments.push("# the end".to_owned());
        out.push_str("# the end\n");
        (out, comments)
    }

    proptest! {
        #[test]
        fn what_is_rendered_reads_back(value in tree_of(scalar())) {
            let (node, faults) = tree::parse(&format!("v:\n  {}", render(&json!([value])).replace('\n', "\n  ")));
            prop_assert_eq!(faults, vec![]);
            prop_assert_eq!(&node.to_json()["v"][0], &value);
        }

        #[test]
        fn what_is_set_is_read_back_and_comments_survive(
            sections in sections(),
            section in "[s-v]",
            name in proptest::sample::select(vec!["a", "b", "1", "x.y", "new"]),
            value in tree_of(scalar()),
        ) {
            let (text, comments) = with_comments(&render(&Value::Object(sections.clone())));
            let edited = set(&text, &[&section, name], &value);
            prop_assert!(edited.is_ok(), "{text}\n{edited:?}");
            let edited = edited.unwrap();
            let mut wanted = sections;
            let below = wanted.entry(section).or_insert_with(|| json!({}));
            below[name] = value;
            prop_assert_eq!(read(&edited).unwrap(), wanted);
            for comment in comments {
                prop_assert!(edited.contains(&comment), "{comment} is gone\n{text}\n{edited}");
            }
        }

        #[test]
        fn what_is_removed_is_gone_and_the_rest_stays(sections in sections()) {
            let (text, _) = with_comments(&render(&Value::Object(sections.clone())));
            for (section, entries) in &sections {
                for name in entries.as_object().unwrap().keys() {
                    let edited = remove(&text, &[section, name]);
                    prop_assert!(edited.is_ok(), "{text}\n{edited:?}");
                    let mut wanted = sections.clone();
                    wanted[section].as_object_mut().unwrap().shift_remove(name);
                    prop_assert_eq!(read(&edited.unwrap()).unwrap(), wanted);
                }
            }
        }

        #[test]
        fn no_text_makes_an_edit_panic(text in "[ -~\\n\\t&*<:{}\\[\\]]{0,80}", name in "[ -~]{0,5}") {
            let _set = set(&text, &["a", &name], &json!({"b": [1]}));
            let _removed = remove(&text, &["a"]);
        }
    }
}
