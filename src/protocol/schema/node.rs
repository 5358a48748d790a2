//! A JSON document as a tree that can be rearranged: texts keep their escapes,
//! numbers their digits, members their order.

use std::borrow::Cow;

use bytes::BytesMut;
use indexmap::IndexMap;

use super::super::json::{Raw, Str, Value, write};

/// The members of an object; of two with one name the last counts.
pub(super) type Map<'a> = IndexMap<Cow<'a, str>, Node<'a>>;

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node<'a> {
    /// A number, a truth value or `null`, as written.
    Word(Cow<'a, str>),
    /// A string.
    Text(Str<'a>),
    /// An array.
    List(Vec<Self>),
    /// An object.
    Map(Map<'a>),
}

impl<'a> Node<'a> {
    pub(super) fn of(value: Value<'a>) -> Self {
        if let Some(text) = value.as_str() {
            Self::Text(text)
        } else if value.is_array() {
            Self::List(value.items().map(Self::of).collect())
        } else if value.is_object() {
            let members = value.members();
            Self::Map(
                members
                    .map(|(name, value)| (name.into_plain(), Self::of(value)))
                    .collect(),
            )
        } else {
            let text = value.raw();
            // Scalars are of one of these forms, which outlive the borrowed text.
            Self::Word(match (value.number(), value.as_bool()) {
                (Some(digits), _) => Cow::Borrowed(digits),
                (None, Some(true)) => Cow::Borrowed("true"),
                (None, Some(false)) => Cow::Borrowed("false"),
                (None, None) => Cow::Owned(text.as_str().to_owned()),
            })
        }
    }

    pub(super) const fn word(word: &'static str) -> Self {
        Self::Word(Cow::Borrowed(word))
    }

    pub(super) const fn text(text: &'static str) -> Self {
        Self::Text(Str::new(text))
    }

    /// `{"type": ...}`
    pub(super) fn typed(kind: &'static str) -> Self {
        Self::Map(std::iter::once(("type".into(), Self::text(kind))).collect())
    }

    pub(super) fn as_map(&self) -> Option<&Map<'a>> {
        match self {
            Self::Map(map) => Some(map),
            _ => None,
        }
    }

    pub(super) fn as_list(&self) -> Option<&[Self]> {
        match self {
            Self::List(list) => Some(list),
            _ => None,
        }
    }

    pub(super) fn as_text(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Text(text) => Some(text.plain()),
            _ => None,
        }
    }

    pub(super) fn is_word(&self, word: &str) -> bool {
        matches!(self, Self::Word(own) if own == word)
    }

    pub(super) fn get(&self, name: &str) -> Option<&Self> {
        self.as_map()?.get(name)
    }

    /// The member of that name, where it is a text without escapes.
    pub(super) fn text_of(&self, name: &str) -> Option<&str> {
        match self.get(name)? {
            Self::Text(text) => match text.plain() {
                Cow::Borrowed(text) => Some(text),
                Cow::Owned(_) => None,
            },
            _ => None,
        }
    }

    /// Bytes that it takes when it is written, near enough.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Word(word) => word.len() + 1,
            Self::Text(text) => text.len() + 3,
            Self::List(list) => list.iter().map(Self::size).sum::<usize>() + 3,
            Self::Map(map) => {
                let members = map.iter().map(|(name, node)| name.len() + 4 + node.size());
                members.sum::<usize>() + 3
            }
        }
    }

    pub(super) fn write(&self, out: &mut BytesMut) {
        match self {
            Self::Word(word) => out.extend_from_slice(word.as_bytes()),
            Self::Text(text) => write::string(out, text),
            Self::List(list) => {
                let mut array = write::Array::open(out);
                for node in list {
                    node.write(array.element());
                }
            }
            Self::Map(map) => {
                let mut object = write::Object::open(out);
                for (name, node) in map {
                    node.write(object.foreign_key(&Str::new(name)));
                }
            }
        }
    }

    /// Its text.
    pub(super) fn written(&self) -> String {
        let mut out = BytesMut::new();
        self.write(&mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    pub(super) fn raw(&self) -> Raw<'static> {
        // What is written is a document by construction.
        Raw::parse(self.written()).unwrap_or(Raw::EMPTY_OBJECT)
    }
}

/// Appends constraints that can't be said to a description: `(minLength: 3)`.
pub(super) fn describe(map: &mut Map<'_>, dropped: &[(&str, &Node<'_>)]) {
    let mut words = String::new();
    for (name, value) in dropped {
        let value = match value {
            Node::Text(text) => text.to_plain_string(),
            other => other.written(),
        };
        if value.len() <= LONGEST {
            words.push_str(&format!(" ({name}: {value})"));
        }
    }
    if words.is_empty() {
        return;
    }
    let own = map.get("description").and_then(Node::as_text);
    let text = match own {
        Some(own) if !own.is_empty() => format!("{own}{words}"),
        _ => words.trim_start().to_owned(),
    };
    map.insert("description".into(), Node::Text(Str::from(text)));
}

/// Longer values than this say nothing to a model.
const LONGEST: usize = 200;
