//! Dotted paths into a JSON document, as providers' errors and operators' rules
//! write them: `reasoning.effort`, `input[3].status`, `messages.0.content`.

use super::json::Value;

/// The longest path that is read.
const LONGEST: usize = 160;
/// The deepest.
const DEEPEST: usize = 12;
/// The most places that one path leads to.
const PLACES: usize = 16_384;

/// A path of names and positions.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Path(Vec<Step>);

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Step {
    /// A member of that name; in an array, the element at that position.
    Name(Box<str>),
    /// Every element of that kind.
    Alike(Kind),
}

/// What tells the elements of a list apart: `type` and `role`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Kind {
    sort: Option<Box<str>>,
    role: Option<Box<str>>,
}

/// A place in a document.
#[derive(Clone, Copy, Debug)]
pub struct Place<'t> {
    /// The object or array that it is in.
    pub container: Value<'t>,
    /// Its position there, as [`super::edit::Edits::remove`] wants it.
    pub position: usize,
    /// What stands there.
    pub value: Value<'t>,
}

impl Path {
    /// Reads a path; `None` when it is none, or has letters that no field's name
    /// has. A leading `$.` or `body.` is passed over.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let text = text.strip_prefix("$.").unwrap_or(text);
        if text.is_empty() || text.len() > LONGEST {
            return None;
        }
        let mut steps = Vec::new();
        for part in text.split(['.', '[']) {
            let name = part.trim_end_matches(']').trim_matches(['\'', '"']);
            if name.is_empty() && part.is_empty() && text.contains(".[") {
                continue;
            }
            steps.push(name);
        }
        Self::of(steps.into_iter())
    }

    /// A path of these names and positions.
    #[must_use]
    pub fn of<'a>(names: impl Iterator<Item = &'a str>) -> Option<Self> {
        let mut steps = Vec::new();
        for (at, name) in names.enumerate() {
            if at == 0 && name == "body" {
                continue;
            }
            if !is_name(name) || steps.len() == DEEPEST {
                return None;
            }
            steps.push(Step::Name(name.into()));
        }
        (!steps.is_empty()).then_some(Self(steps))
    }

    /// The path as it is shown: `input[].status` for every element of a kind.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        for step in &self.0 {
            match step {
                Step::Alike(_) => text.push_str("[]"),
                Step::Name(name) => {
                    if !text.is_empty() {
                        text.push('.');
                    }
                    text.push_str(name);
                }
            }
        }
        text
    }

    /// The names on the way, positions and kinds left out.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|step| match step {
            Step::Name(name) if !is_position(name) => Some(&**name),
            _ => None,
        })
    }

    /// The path to what it is in; `None` at the top level.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        let (_, before) = self.0.split_last()?;
        (!before.is_empty()).then(|| Self(before.to_vec()))
    }

    /// Whether it leads to something inside of what another leads to.
    #[must_use]
    pub fn is_below(&self, other: &Self) -> bool {
        self.0.len() > other.0.len() && self.0.starts_with(&other.0)
    }

    /// Whether it ends at an element of a list, not at a member.
    #[must_use]
    pub fn ends_in_list(&self) -> bool {
        match self.0.last() {
            Some(Step::Name(name)) => is_position(name),
            Some(Step::Alike(_)) => true,
            None => false,
        }
    }

    /// The same path in the document's own words, leading to every element of the
    /// kind that it names: where the third item may not have a field, no item like
    /// it may. Names match without case and underscores, because some providers
    /// tell them in the spelling of their own code; behind a list, a word that says
    /// of which kind the element is (`messages.2.assistant.name`) is no step.
    /// `None` when it leads nowhere.
    #[must_use]
    pub fn settled(&self, root: Value<'_>) -> Option<Self> {
        let mut steps = Vec::with_capacity(self.0.len());
        let mut at = root;
        let mut in_list = false;
        for (i, step) in self.0.iter().enumerate() {
            let Step::Name(name) = step else {
                return None;
            };
            if at.is_array() {
                at = at.items().nth(name.parse().ok()?)?;
                steps.push(Step::Alike(Kind::of(at)));
                in_list = true;
                continue;
            }
            match member(at, name) {
                Some((found, value)) => {
                    steps.push(Step::Name(found.into()));
                    at = value;
                }
                None if in_list && i + 1 < self.0.len() => {}
                None => return None,
            }
            in_list = false;
        }
        Some(Self(steps))
    }

    /// Every place that it leads to, namesakes included, up to a limit.
    #[must_use]
    pub fn places<'t>(&self, root: Value<'t>) -> Vec<Place<'t>> {
        let mut places = vec![Place {
            container: root,
            position: 0,
            value: root,
        }];
        for step in &self.0 {
            let mut next = Vec::new();
            for place in places {
                step.follow(place.value, &mut next);
            }
            next.truncate(PLACES);
            places = next;
        }
        places
    }

    /// The last value that it leads to.
    #[must_use]
    pub fn value<'t>(&self, root: Value<'t>) -> Option<Value<'t>> {
        self.places(root).last().map(|place| place.value)
    }
}

impl Step {
    fn follow<'t>(&self, from: Value<'t>, to: &mut Vec<Place<'t>>) {
        let place = |position, value| Place {
            container: from,
            position,
            value,
        };
        match self {
            Self::Alike(kind) => {
                let items = from.items().enumerate();
                let alike = items.filter(|(_, item)| Kind::of(*item) == *kind);
                to.extend(alike.map(|(position, item)| place(position, item)));
            }
            Self::Name(name) if from.is_array() => {
                let position = name.parse().ok();
                let item = position.and_then(|i| Some((i, from.items().nth(i)?)));
                to.extend(item.map(|(position, item)| place(position, item)));
            }
            Self::Name(name) => {
                let members = from.members().enumerate();
                let named = members.filter(|(_, (found, _))| found.is(name));
                to.extend(named.map(|(position, (_, value))| place(position, value)));
            }
        }
    }
}

impl Kind {
    fn of(item: Value<'_>) -> Self {
        let word = |name| {
            let found = item.get(name).and_then(|value| value.as_str());
            found.map(|word| word.plain().into())
        };
        Self {
            sort: word("type"),
            role: word("role"),
        }
    }
}

/// The member of that name, or else the one whose name differs only in case and
/// underscores.
fn member<'t>(object: Value<'t>, name: &str) -> Option<(String, Value<'t>)> {
    if let Some(value) = object.get(name) {
        return Some((name.to_owned(), value));
    }
    let alike = object.members().find(|(found, _)| {
        let found = found.plain();
        letters(&found).eq(letters(name))
    });
    alike.map(|(found, value)| (found.to_plain_string(), value))
}

fn letters(name: &str) -> impl Iterator<Item = u8> + '_ {
    name.bytes()
        .filter(|byte| *byte != b'_')
        .map(|byte| byte.to_ascii_lowercase())
}

fn is_name(name: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'$');
    !name.is_empty() && name.bytes().all(letter)
}

fn is_position(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::json::Tape;

    fn found(path: &str, document: &str) -> Vec<String> {
        let mut tape = Tape::new();
        let root = tape.parse(document).unwrap();
        let places = Path::parse(path).unwrap().places(root);
        places
            .iter()
            .map(|place| place.value.raw().as_str().to_owned())
            .collect()
    }

    fn settled(path: &str, document: &str) -> Option<(String, usize)> {
        let mut tape = Tape::new();
        let root = tape.parse(document).unwrap();
        let path = Path::parse(path)?.settled(root)?;
        Some((path.text(), path.places(root).len()))
    }

    #[test]
    fn a_path_leads_through_names_and_positions_however_they_are_written() {
        let document = r#"{"a":{"b":[0,1,{"c":"x"}]},"d":1,"d":2}"#;
        for path in [
            "a.b[2].c",
            "a.b.2.c",
            "$.a.b[2].c",
            "body.a.b.2.c",
            "a['b'][2].c",
        ] {
            assert_eq!(found(path, document), ["\"x\""], "{path}");
        }
        assert_eq!(found("d", document), ["1", "2"]);
        for nowhere in ["a.x", "a.b[7]", "a.b.c", "d.e"] {
            assert!(found(nowhere, document).is_empty(), "{nowhere}");
        }
    }

    #[test]
    fn what_is_no_path_is_refused() {
        let long = "a.".repeat(100);
        for text in [
            "",
            " ",
            "a..b",
            "a b",
            "a;b",
            "a\"b",
            "x.y.z.1.2.3.4.5.6.7.8.9.10",
            &long,
        ] {
            assert_eq!(Path::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_settled_path_is_in_the_documents_words_and_leads_to_all_alike() {
        let document = r#"{"messages":[{"role":"user","name":"a"},{"role":"assistant","name":"b"},
            {"role":"user","name":"c"}],"generationConfig":{"topK":1},"presence_penalty":0}"#;
        for (path, text, places) in [
            ("messages[0].name", "messages[].name", 2),
            ("messages.1.assistant.name", "messages[].name", 1),
            ("generation_config.top_k", "generationConfig.topK", 1),
            ("presencePenalty", "presence_penalty", 1),
        ] {
            let wanted = Some((text.to_owned(), places));
            assert_eq!(settled(path, document), wanted, "{path}");
        }
        for path in [
            "messages[0].nick",
            "messages[9].name",
            "top_k",
            "messages.0.user",
        ] {
            assert_eq!(settled(path, document), None, "{path}");
        }
    }
}
