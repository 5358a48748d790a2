//! What a refusal says, in whatever shape: its texts, its codes, the field that it
//! names, and the fields of a validator's list.

use serde_json::Value;

use crate::protocol::path::Path;

/// The most texts that are read.
const TEXTS: usize = 24;
/// The most of one text, in bytes.
const LONGEST: usize = 8 * 1024;
/// How deep an answer is read, errors inside of errors counted.
const DEEPEST: usize = 8;

/// What was said.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Messages, the outermost first.
    pub(super) texts: Vec<String>,
    /// `code` and `type`, wherever they stand.
    pub(super) codes: Vec<String>,
    /// OpenAI's `param`.
    pub(super) param: Option<String>,
    /// Fields that a validator has not expected.
    pub(super) unexpected: Vec<Path>,
}

impl Told {
    /// Reads an error answer's body.
    pub(super) fn read(body: &[u8]) -> Self {
        let mut told = Self::default();
        match serde_json::from_slice(body) {
            Ok(document) => told.walk(&document, 0),
            Err(_) => told.text(&String::from_utf8_lossy(body), 0),
        }
        told
    }

    /// Whether any code is one of these.
    pub(super) fn has_code(&self, wanted: &[&str]) -> bool {
        self.codes
            .iter()
            .any(|code| wanted.contains(&code.as_str()))
    }

    fn walk(&mut self, value: &Value, depth: usize) {
        if depth > DEEPEST {
            return;
        }
        match value {
            Value::String(text) => self.text(text, depth),
            Value::Array(items) => items
                .iter()
                .take(TEXTS)
                .for_each(|item| self.walk(item, depth + 1)),
            Value::Object(members) => {
                if self.validated(value) {
                    return;
                }
                for (name, value) in members {
                    self.member(name, value, depth);
                }
            }
            _ => {}
        }
    }

    fn member(&mut self, name: &str, value: &Value, depth: usize) {
        match (name, value) {
            ("code" | "type", Value::String(word)) => self.codes.push(word.clone()),
            ("param", Value::String(word)) => {
                self.param.get_or_insert_with(|| word.clone());
            }
            (
                "message" | "msg" | "error" | "errors" | "detail" | "details" | "raw" | "metadata"
                | "description" | "fieldViolations" | "error_description",
                _,
            ) => self.walk(value, depth + 1),
            _ => {}
        }
    }

    /// An entry of a pydantic validator: where, and what of it.
    fn validated(&mut self, entry: &Value) -> bool {
        let (Some(Value::Array(place)), Some(Value::String(text))) =
            (entry.get("loc"), entry.get("msg"))
        else {
            return false;
        };
        let names: Vec<String> = place
            .iter()
            .map(|step| match step {
                Value::String(name) => name.clone(),
                other => other.to_string(),
            })
            .collect();
        let extra = entry
            .get("type")
            .is_some_and(|kind| kind == "extra_forbidden")
            || text.to_ascii_lowercase().contains("extra inputs");
        if extra {
            self.unexpected
                .extend(Path::of(names.iter().map(String::as_str)));
        } else {
            self.push(&format!("{}: {text}", names.join(".")));
        }
        true
    }

    fn text(&mut self, text: &str, depth: usize) {
        let text = text.trim();
        if text.is_empty() || depth > DEEPEST {
            return;
        }
        // Gateways put the error that they got into the message of their own.
        let start = text.find("{\"").or_else(|| text.find("[{\""));
        let end = text.rfind(['}', ']']);
        if let (Some(start), Some(end)) = (start, end)
            && let Some(Ok(inner)) = text.get(start..=end).map(serde_json::from_str)
        {
            self.walk(&inner, depth + 1);
            return;
        }
        self.literals(text);
        self.push(text);
    }

    /// A validator's list as Python prints it: `'loc': ('body', 'x')`.
    fn literals(&mut self, text: &str) {
        for entry in text.split("'extra_forbidden'").skip(1) {
            let place = entry
                .split_once("'loc': (")
                .and_then(|(_, rest)| rest.split_once(')'));
            if let Some((place, _)) = place {
                let names = place.split(',').map(|name| name.trim().trim_matches('\''));
                self.unexpected
                    .extend(Path::of(names.filter(|name| !name.is_empty())));
            }
        }
    }

    fn push(&mut self, text: &str) {
        if self.texts.len() < TEXTS {
            let end = text.floor_char_boundary(LONGEST);
            self.texts
                .push(text.get(..end).unwrap_or_default().to_owned());
        }
    }
}
