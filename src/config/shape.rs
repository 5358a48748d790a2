//! Holds a tree against the schema: unknown fields, wrong kinds, numbers out
//! of range, what is missing, one thing said twice; and folds the spellings
//! into one.
//!
//! What the values mean to one another is the check's business.

use std::fmt;

use super::fault::{Fault, Place, suggestion};
use super::schema::{Field, Shape, Table};
use super::tree::{Entry, Node, Yaml};

/// What a walk over the tree found.
#[derive(Debug, Default)]
pub(in crate::config) struct Findings {
    pub(in crate::config) faults: Vec<Fault>,
    /// What the file asks for that does not work yet, and where.
    pub(in crate::config) asked: Vec<(&'static str, Vec<String>)>,
}

/// Holds the whole file against a table.
pub(in crate::config) fn examine(root: &Node, table: &'static Table) -> Findings {
    let mut walk = Walk {
        found: Findings::default(),
        path: Vec::new(),
    };
    walk.fields(root, table, root.place);
    walk.found
}

/// The same tree with every field in the spelling that is written.
pub(in crate::config) fn fold(node: Node, shape: &'static Shape) -> Node {
    let place = node.place;
    let value = match (shape, node.value) {
        (Shape::Nullable(inner), value) => return fold(Node { value, place }, inner),
        (Shape::List(inner), Yaml::List(items)) => {
            Yaml::List(items.into_iter().map(|item| fold(item, inner)).collect())
        }
        (Shape::Map(inner), Yaml::Map(entries)) => {
            Yaml::Map(fold_entries(entries, |_| Some((None, *inner))))
        }
        (Shape::Fields(table), value) => return fold_fields(Node { value, place }, table),
        (Shape::Either(shapes), value) => {
            let node = Node { value, place };
            return match shapes.iter().find(|shape| kind_fits(shape, &node)) {
                Some(shape) => fold(node, shape),
                None => node,
            };
        }
        (_, value) => value,
    };
    Node { value, place }
}

/// As [`fold`], for a section.
pub(in crate::config) fn fold_fields(node: Node, table: &'static Table) -> Node {
    let place = node.place;
    let Yaml::Map(entries) = node.value else {
        return node;
    };
    let entries = fold_entries(entries, |entry| {
        let field = table.field(&entry.key)?;
        let other = (field.name != entry.key).then_some(field.name);
        Some((other, &field.shape))
    });
    let value = Yaml::Map(entries);
    Node { value, place }
}

/// `name_and_shape` gives another name where there is one, and the shape of
/// what is known.
fn fold_entries(
    entries: Vec<Entry>,
    name_and_shape: impl Fn(&Entry) -> Option<(Option<&'static str>, &'static Shape)>,
) -> Vec<Entry> {
    let folded = entries
        .into_iter()
        .map(|entry| match name_and_shape(&entry) {
            None => entry,
            Some((other, shape)) => Entry {
                key: other.map_or(entry.key, str::to_owned),
                place: entry.place,
                value: fold(entry.value, shape),
            },
        });
    folded.collect()
}

/// Takes away what a table doesn't know, and what is null where that says
/// nothing. Returns the paths of the unknown.
pub(in crate::config) fn prune(root: &mut Node, table: &'static Table) -> Vec<Vec<String>> {
    let mut pruning = Pruning::default();
    pruning.fields(root, table);
    pruning.unknown
}

#[derive(Default)]
struct Pruning {
    path: Vec<String>,
    unknown: Vec<Vec<String>>,
}

impl Pruning {
    fn fields(&mut self, node: &mut Node, table: &'static Table) {
        let Yaml::Map(entries) = &mut node.value else {
            return;
        };
        entries.retain_mut(|entry| {
            self.path.push(entry.key.clone());
            let stays = match table.field(&entry.key) {
                Some(field) if entry.value.value == Yaml::Null => takes_null(&field.shape),
                Some(field) => {
                    self.value(&mut entry.value, &field.shape);
                    true
                }
                None if table.open => true,
                None => {
                    if entry.value.value != Yaml::Null {
                        self.unknown.push(self.path.clone());
                    }
                    false
                }
            };
            self.path.pop();
            stays
        });
    }

    fn value(&mut self, node: &mut Node, shape: &'static Shape) {
        match shape {
            Shape::Nullable(inner) => self.value(node, inner),
            Shape::Fields(table) => self.fields(node, table),
            Shape::Either(shapes) => {
                if let Some(shape) = shapes.iter().find(|shape| kind_fits(shape, node)) {
                    self.value(node, shape);
                }
            }
            Shape::Tagged(tag, variants) => {
                let word = node.get(tag).and_then(Node::text).unwrap_or_default();
                if let Some((_, table)) = variants.iter().find(|(name, _)| *name == word) {
                    self.fields(node, table);
                }
            }
            Shape::Map(inner) => {
                if let Yaml::Map(entries) = &mut node.value {
                    for entry in entries {
                        self.below(entry.key.clone(), &mut entry.value, inner);
                    }
                }
            }
            Shape::List(inner) => {
                if let Yaml::List(items) = &mut node.value {
                    for (i, item) in items.iter_mut().enumerate() {
                        self.below(i.to_string(), item, inner);
                    }
                }
            }
            _ => {}
        }
    }

    fn below(&mut self, segment: String, node: &mut Node, shape: &'static Shape) {
        self.path.push(segment);
        self.value(node, shape);
        self.path.pop();
    }
}

fn takes_null(shape: &Shape) -> bool {
    match shape {
        Shape::Any | Shape::Nullable(_) | Shape::Bound => true,
        Shape::Either(shapes) => shapes.iter().any(takes_null),
        _ => false,
    }
}

struct Walk<'n> {
    found: Findings,
    path: Vec<Step<'n>>,
}

/// A part of a path. Most are never told, so none is made into text before.
#[derive(Clone, Copy)]
enum Step<'n> {
    Name(&'n str),
    Number(usize),
}

impl fmt::Display for Step<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Number(number) => number.fmt(f),
        }
    }
}

impl<'n> Walk<'n> {
    /// `at` is where the value was asked for: its key, or the value itself.
    fn value(&mut self, node: &'n Node, shape: &'static Shape, at: Place) {
        match (shape, &node.value) {
            (Shape::Any | Shape::Nullable(_) | Shape::Bound, Yaml::Null) => {}
            (Shape::Any, _) => {}
            (Shape::Nullable(inner), _) => self.value(node, inner, at),
            (Shape::Fields(table), Yaml::Null | Yaml::Map(_)) => self.fields(node, table, at),
            // A section that was opened and left empty.
            (Shape::Map(_) | Shape::List(_) | Shape::Object | Shape::Options, Yaml::Null) => {}
            (Shape::Map(inner), Yaml::Map(entries)) => {
                for entry in entries {
                    self.named(entry, inner);
                }
            }
            (Shape::List(inner), Yaml::List(items)) => {
                for (i, item) in items.iter().enumerate() {
                    self.path.push(Step::Number(i));
                    self.value(item, inner, item.place);
                    self.path.pop();
                }
            }
            (Shape::Either(shapes), _) => {
                match shapes.iter().find(|shape| kind_fits(shape, node)) {
                    Some(shape) => self.value(node, shape, at),
                    None => self.mismatch(node, shape),
                }
            }
            (Shape::Tagged(tag, variants), Yaml::Map(_)) => self.tagged(node, tag, variants, at),
            _ if kind_fits(shape, node) => self.range(node, shape),
            _ => self.mismatch(node, shape),
        }
    }

    fn named(&mut self, entry: &'n Entry, shape: &'static Shape) {
        self.path.push(Step::Name(&entry.key));
        if entry.key.is_empty() {
            self.fault(entry.place, "an empty name; some text is wanted");
        }
        self.value(&entry.value, shape, entry.place);
        self.path.pop();
    }

    fn fields(&mut self, node: &'n Node, table: &'static Table, at: Place) {
        for entry in node.entries() {
            self.path.push(Step::Name(&entry.key));
            match table.field(&entry.key) {
                Some(field) => self.known(node, entry, field),
                None if table.open => {}
                None => self.unknown(entry, table),
            }
            self.path.pop();
        }
        let missing = table.fields.iter().filter(|field| {
            let both = [Some(field.name), field.also];
            field.required && !both.iter().flatten().any(|name| node.get(name).is_some())
        });
        for field in missing {
            let message = format!(
                "\"{}\" is missing; {} is wanted",
                field.name,
                wanted(&field.shape)
            );
            self.fault(at, message);
        }
    }

    fn known(&mut self, parent: &Node, entry: &'n Entry, field: &'static Field) {
        if field.also == Some(entry.key.as_str()) && parent.get(field.name).is_some() {
            let message = format!(
                "the same as \"{}\", which is there too; one is wanted",
                field.name
            );
            self.fault(entry.place, message);
        }
        if let Some(feature) = field.later.filter(|_| asks(&entry.value)) {
            let path: Vec<String> = self.path.iter().map(Step::to_string).collect();
            self.found.asked.push((feature, path));
        }
        self.value(&entry.value, &field.shape, entry.place);
    }

    fn unknown(&mut self, entry: &Entry, table: &Table) {
        let names = table.fields.iter().map(|field| field.name);
        let mut hint = suggestion(&entry.key, names.clone());
        if hint.is_empty() && table.fields.len() <= 12 {
            hint = format!("; known here: {}", names.collect::<Vec<_>>().join(", "));
        }
        self.fault(entry.place, format!("unknown field{hint}"));
    }

    fn tagged(
        &mut self,
        node: &'n Node,
        tag: &'static str,
        variants: &'static [(&'static str, &'static Table)],
        at: Place,
    ) {
        let words = || variants.iter().map(|(word, _)| *word);
        let Some(chosen) = node.get(tag) else {
            let all = words().collect::<Vec<_>>().join(", ");
            return self.fault(at, format!("\"{tag}\" is missing; one of {all} is wanted"));
        };
        let word = chosen.text().unwrap_or_default();
        match variants.iter().find(|(name, _)| *name == word) {
            Some((_, table)) => self.fields(node, table, at),
            None => {
                let found = found(chosen, true);
                let all = words().collect::<Vec<_>>().join(", ");
                let hint = suggestion(word, words());
                self.path.push(Step::Name(tag));
                self.fault(
                    chosen.place,
                    format!("found {found}, wanted one of {all}{hint}"),
                );
                self.path.pop();
            }
        }
    }

    /// A value of the right kind may still be out of range.
    fn range(&mut self, node: &Node, shape: &'static Shape) {
        let fits = match shape {
            Shape::Whole(least, most) => node
                .whole()
                .is_some_and(|number| (*least..=*most).contains(&number)),
            Shape::Number(least, most) => node
                .number()
                .is_some_and(|number| (*least..=*most).contains(&number)),
            Shape::Bound => match node.value {
                Yaml::NotFinite(number) => number == f64::INFINITY,
                _ => node.number().is_some_and(|number| number >= 0.0),
            },
            Shape::Word(words) => node.text().is_some_and(|text| words.contains(&text)),
            _ => true,
        };
        if !fits {
            self.mismatch(node, shape);
        }
    }

    fn mismatch(&mut self, node: &Node, shape: &'static Shape) {
        let shown = matches!(
            shape,
            Shape::Flag | Shape::Whole(..) | Shape::Number(..) | Shape::Bound | Shape::Word(_)
        );
        let hint = match (shape, &node.value) {
            (Shape::Word(words), Yaml::Text(text)) => suggestion(text, words.iter().copied()),
            (Shape::Text | Shape::Secret, Yaml::Number(_) | Yaml::Flag(_)) => {
                "; put it in quotes".to_owned()
            }
            _ => String::new(),
        };
        let message = format!(
            "found {}, wanted {}{hint}",
            found(node, shown),
            wanted(shape)
        );
        self.fault(node.place, message);
    }

    fn fault(&mut self, at: Place, message: impl Into<String>) {
        self.found.faults.push(Fault {
            path: self.path.iter().map(Step::to_string).collect(),
            line: at.line,
            column: at.column,
            message: message.into(),
        });
    }
}

/// Whether the value's kind is one that the shape has, whatever its content.
pub(in crate::config) fn kind_fits(shape: &Shape, node: &Node) -> bool {
    match shape {
        Shape::Any => true,
        Shape::Object | Shape::Options | Shape::Map(_) | Shape::Fields(_) | Shape::Tagged(..) => {
            matches!(node.value, Yaml::Map(_))
        }
        Shape::List(_) => matches!(node.value, Yaml::List(_)),
        Shape::Text | Shape::Secret | Shape::Word(_) => matches!(node.value, Yaml::Text(_)),
        Shape::Flag => matches!(node.value, Yaml::Flag(_)),
        Shape::Whole(..) | Shape::Number(..) => matches!(node.value, Yaml::Number(_)),
        Shape::Bound => matches!(node.value, Yaml::Number(_) | Yaml::NotFinite(_)),
        Shape::Nullable(inner) => node.value == Yaml::Null || kind_fits(inner, node),
        Shape::Either(shapes) => shapes.iter().any(|shape| kind_fits(shape, node)),
    }
}

/// Whether a value asks for anything: what is off, empty or nothing does not.
fn asks(node: &Node) -> bool {
    match &node.value {
        Yaml::Null | Yaml::Flag(false) => false,
        Yaml::Flag(true) | Yaml::NotFinite(_) => true,
        Yaml::Number(number) => number.as_f64() != Some(0.0),
        Yaml::Text(text) => !text.is_empty(),
        Yaml::List(items) => !items.is_empty(),
        Yaml::Map(entries) => {
            !entries.is_empty() && node.get("enabled").and_then(Node::flag) != Some(false)
        }
    }
}

/// What a value is, for a message. Text is shown only where no secret can be.
fn found(node: &Node, shown: bool) -> String {
    match &node.value {
        Yaml::Null => "nothing".to_owned(),
        Yaml::Flag(flag) => flag.to_string(),
        Yaml::Number(_) if !shown => "a number".to_owned(),
        Yaml::Number(number) => number.to_string(),
        Yaml::NotFinite(_) => "a number that is not finite".to_owned(),
        Yaml::Text(text) if shown => {
            let short: String = text.chars().take(40).collect();
            format!("the text {short:?}")
        }
        Yaml::Text(_) => "text".to_owned(),
        Yaml::List(_) => "a list".to_owned(),
        Yaml::Map(_) => "a map".to_owned(),
    }
}

/// What a shape takes, for a message.
fn wanted(shape: &Shape) -> String {
    match shape {
        Shape::Any => "anything".to_owned(),
        Shape::Text | Shape::Secret => "text".to_owned(),
        Shape::Flag => "true or false".to_owned(),
        Shape::Whole(least, most) => format!("a whole number from {least} to {most}"),
        Shape::Number(least, most) => format!("a number from {least} to {most}"),
        Shape::Bound => "a number from 0, .inf or null".to_owned(),
        Shape::Word(words) => format!("one of {}", words.join(", ")),
        Shape::Nullable(inner) => format!("{} or null", wanted(inner)),
        Shape::List(_) => "a list".to_owned(),
        Shape::Object | Shape::Options | Shape::Map(_) | Shape::Fields(_) | Shape::Tagged(..) => {
            "a map".to_owned()
        }
        Shape::Either(shapes) => {
            let all: Vec<String> = shapes.iter().map(wanted).collect();
            all.join(", or ")
        }
    }
}
