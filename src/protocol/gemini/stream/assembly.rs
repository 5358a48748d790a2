//! A call whose arguments come in pieces, each with the path where it belongs
//! (`partialArgs`), put together into one value.

use serde_json::{Map, Value as Tree};

use crate::protocol::gemini::spelling::{find, text};
use crate::protocol::json::{Raw, Value};

/// More arguments than this are a fault.
const MOST: usize = 16 * 1024 * 1024;
/// Longer paths, and higher indexes, are no arguments of any tool.
const DEEPEST: usize = 64;
const WIDEST: usize = 4096;

/// The arguments so far.
#[derive(Debug, Default)]
pub(super) struct Assembly {
    root: Map<String, Tree>,
    size: usize,
}

/// There is more of it than can be meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooMuch;

impl Assembly {
    /// Arguments that came whole before the first piece.
    pub(super) fn begin(&mut self, arguments: Value<'_>) {
        if let Ok(Tree::Object(members)) = serde_json::from_str(arguments.raw().as_str()) {
            self.size += arguments.raw().as_str().len();
            self.root.extend(members);
        }
    }

    /// Takes one piece.
    pub(super) fn piece(&mut self, piece: Value<'_>) -> Result<(), TooMuch> {
        let Some(path) = text(piece, "jsonPath") else {
            return Ok(());
        };
        self.size += piece.raw().as_str().len();
        if self.size > MOST {
            return Err(TooMuch);
        }
        let steps = steps(&path.plain());
        let place = steps.as_deref().and_then(|steps| self.place(steps));
        if let Some(place) = place {
            put(place, piece);
        }
        Ok(())
    }

    /// The whole of it.
    pub(super) fn finish(self) -> Raw<'static> {
        Raw::of_value(&Tree::Object(self.root))
    }

    fn place(&mut self, steps: &[Step]) -> Option<&mut Tree> {
        let (first, rest) = steps.split_first()?;
        let Step::Name(first) = first else {
            return None;
        };
        let mut place = self.root.entry(first.clone()).or_insert(Tree::Null);
        for step in rest {
            place = step.into(place)?;
        }
        Some(place)
    }
}

/// Text goes on where text is; everything else is put there.
fn put(place: &mut Tree, piece: Value<'_>) {
    if let Some(more) = find(piece, "stringValue").and_then(|value| value.as_str()) {
        match place {
            Tree::String(text) => text.push_str(&more.plain()),
            _ => *place = Tree::String(more.to_plain_string()),
        }
        return;
    }
    let plain = ["numberValue", "boolValue"];
    let value = plain.into_iter().find_map(|name| find(piece, name));
    *place = match value {
        Some(value) => serde_json::from_str(value.raw().as_str()).unwrap_or(Tree::Null),
        None => Tree::Null,
    };
}

/// One step of a path.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Name(String),
    Index(usize),
}

impl Step {
    fn into<'t>(&self, place: &'t mut Tree) -> Option<&'t mut Tree> {
        match self {
            Self::Name(name) => {
                if !place.is_object() {
                    *place = Tree::Object(Map::new());
                }
                Some(
                    place
                        .as_object_mut()?
                        .entry(name.clone())
                        .or_insert(Tree::Null),
                )
            }
            Self::Index(index) => {
                if !place.is_array() {
                    *place = Tree::Array(Vec::new());
                }
                let list = place.as_array_mut()?;
                if list.len() <= *index {
                    list.resize(*index + 1, Tree::Null);
                }
                list.get_mut(*index)
            }
        }
    }
}

/// `$.a.b[0]['c d']` as steps; `None` when it is no such path.
fn steps(path: &str) -> Option<Vec<Step>> {
    let mut steps = Vec::new();
    let mut rest = path.strip_prefix('$').unwrap_or(path);
    if !rest.starts_with(['.', '[']) && !rest.is_empty() {
        let (name, behind) = split_name(rest);
        steps.push(Step::Name(name.to_owned()));
        rest = behind;
    }
    while !rest.is_empty() {
        if steps.len() == DEEPEST {
            return None;
        }
        if let Some(behind) = rest.strip_prefix('.') {
            let (name, behind) = split_name(behind);
            steps.push(Step::Name(name.to_owned()));
            rest = behind;
        } else {
            let (step, behind) = bracket(rest.strip_prefix('[')?)?;
            steps.push(step);
            rest = behind;
        }
    }
    Some(steps)
}

fn split_name(text: &str) -> (&str, &str) {
    text.split_at(text.find(['.', '[']).unwrap_or(text.len()))
}

/// What stands in brackets, the opening one left out.
fn bracket(text: &str) -> Option<(Step, &str)> {
    let quote = text
        .chars()
        .next()
        .filter(|quote| matches!(quote, '\'' | '"'));
    let Some(quote) = quote else {
        let (index, behind) = text.split_once(']')?;
        let index = index.trim().parse().ok().filter(|index| *index < WIDEST)?;
        return Some((Step::Index(index), behind));
    };
    let mut name = String::new();
    let mut letters = text.char_indices().skip(1);
    while let Some((at, letter)) = letters.next() {
        match letter {
            '\\' => name.push(letters.next()?.1),
            letter if letter == quote => {
                let behind = text.get(at + 1..)?.strip_prefix(']')?;
                return Some((Step::Name(name), behind));
            }
            letter => name.push(letter),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::json::Tape;

    #[test]
    fn pieces_come_to_their_places() {
        let mut assembly = Assembly::default();
        for piece in [
            r#"{"jsonPath":"$.city","stringValue":"Bos","willContinue":true}"#,
            r#"{"jsonPath":"$.city","stringValue":"ton"}"#,
            r#"{"json_path":"$.list[1].n","numberValue":7}"#,
            r#"{"jsonPath":"$['a.b']","boolValue":true}"#,
            r#"{"jsonPath":"$.none","nullValue":"NULL_VALUE"}"#,
            r#"{"jsonPath":"$.list[99999999]","numberValue":1}"#,
            r#"{"jsonPath":"$[","numberValue":1}"#,
        ] {
            let mut tape = Tape::new();
            assembly.piece(tape.parse(piece).unwrap()).unwrap();
        }
        assert_eq!(
            assembly.finish().as_str(),
            r#"{"city":"Boston","list":[null,{"n":7}],"a.b":true,"none":null}"#
        );
    }
}
