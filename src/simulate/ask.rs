//! What was asked: the top-level fields of a request, parsed only as far as an
//! answer needs them.

use std::collections::HashMap;

use bytes::Bytes;
use serde_json::Value;
use serde_json::value::RawValue;

use super::route::Vendor;

/// A request body, taken apart at its top level.
#[derive(Debug, Default)]
pub(super) struct Ask {
    fields: HashMap<String, Box<RawValue>>,
    /// Estimate: four bytes of the body are a token.
    pub(super) tokens: u64,
}

impl Ask {
    /// Takes a JSON object apart; `None` when it isn't one.
    pub(super) fn from_json(body: &[u8]) -> Option<Self> {
        Some(Self {
            fields: serde_json::from_slice(body).ok()?,
            tokens: estimate(body.len()),
        })
    }

    /// Takes a form apart; files leave their name only.
    pub(super) async fn from_form(content_type: &str, body: Bytes) -> Option<Self> {
        let boundary = multer::parse_boundary(content_type).ok()?;
        let tokens = estimate(body.len());
        let stream = http_body_util::BodyDataStream::new(http_body_util::Full::<Bytes>::new(body));
        let mut form = multer::Multipart::new(stream, boundary);
        let mut fields = HashMap::new();
        while let Some(field) = form.next_field().await.ok()? {
            let name = field
                .name()
                .unwrap_or_default()
                .trim_end_matches("[]")
                .to_owned();
            let text = match field.file_name() {
                Some(file) => file.to_owned(),
                None => field.text().await.ok()?,
            };
            fields.insert(name, serde_json::value::to_raw_value(&text).ok()?);
        }
        Some(Self { fields, tokens })
    }

    /// Whether a field is there and not `null`.
    pub(super) fn has(&self, name: &str) -> bool {
        self.fields.get(name).is_some_and(|raw| raw.get() != "null")
    }

    /// A field, parsed.
    pub(super) fn value(&self, name: &str) -> Option<Value> {
        self.fields
            .get(name)
            .and_then(|raw| serde_json::from_str(raw.get()).ok())
            .filter(|value: &Value| !value.is_null())
    }

    /// A field, or a default where it is absent.
    pub(super) fn value_or(&self, name: &str, default: impl Into<Value>) -> Value {
        self.value(name).unwrap_or_else(|| default.into())
    }

    /// All fields, parsed, in the order of their names.
    pub(super) fn all(&self) -> Value {
        let mut names: Vec<&String> = self.fields.keys().collect();
        names.sort_unstable();
        let fields = names.into_iter().map(|name| {
            let value = self.value(name).unwrap_or(Value::Null);
            (name.clone(), value)
        });
        Value::Object(fields.collect())
    }

    /// A field that is a string.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        match self.value(name)? {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// A field that is `true`, in JSON or in a form.
    pub(super) fn flag(&self, name: &str) -> bool {
        match self.value(name) {
            Some(Value::Bool(flag)) => flag,
            Some(Value::String(text)) => text == "true",
            _ => false,
        }
    }

    /// A field that is a whole number, in JSON or in a form.
    pub(super) fn count(&self, name: &str) -> Option<usize> {
        match self.value(name)? {
            Value::String(text) => text.parse().ok(),
            value => value
                .as_u64()
                .and_then(|number| usize::try_from(number).ok()),
        }
    }

    /// The last text of the user, in any of the protocols.
    pub(super) fn last_user_text(&self) -> String {
        let turns = ["messages", "input", "contents", "prompt"]
            .iter()
            .find_map(|name| self.value(name));
        let turns = match turns {
            Some(Value::String(text)) => return text,
            Some(Value::Array(turns)) => turns,
            _ => return String::new(),
        };
        let spoken = turns.iter().rev().find_map(|turn| {
            let user = turn.get("role").is_none_or(|role| role == "user");
            user.then(|| texts(turn)).filter(|text| !text.is_empty())
        });
        spoken.unwrap_or_default()
    }

    /// The tools that may be called: name and JSON schema of the arguments.
    pub(super) fn tools(&self, vendor: Vendor) -> Vec<(String, Value)> {
        let Some(Value::Array(tools)) = self.value("tools") else {
            return Vec::new();
        };
        let declared: Vec<Value> = match vendor {
            Vendor::Google => tools.iter().flat_map(declarations).collect(),
            _ => tools,
        };
        declared.iter().filter_map(tool).collect()
    }
}

/// Where a tool keeps the schema of its arguments; Google's Python SDK writes
/// its own field in snake case.
const SCHEMAS: [&str; 4] = [
    "parameters",
    "input_schema",
    "parametersJsonSchema",
    "parameters_json_schema",
];

fn estimate(length: usize) -> u64 {
    (length as u64 / 4).max(1)
}

/// Joins the texts of a turn: a string, or parts that have `text`.
fn texts(turn: &Value) -> String {
    let content = ["content", "parts"].iter().find_map(|key| turn.get(key));
    match content {
        Some(Value::Array(parts)) => parts
            .iter()
            .filter_map(|part| part.get("text").and_then(Value::as_str))
            .collect(),
        Some(Value::Object(part)) => part
            .get("text")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned(),
        Some(Value::String(text)) => text.clone(),
        _ => turn.as_str().unwrap_or_default().to_owned(),
    }
}

fn declarations(tool: &Value) -> Vec<Value> {
    let list = tool
        .get("functionDeclarations")
        .or_else(|| tool.get("function_declarations"));
    list.and_then(Value::as_array).cloned().unwrap_or_default()
}

fn tool(tool: &Value) -> Option<(String, Value)> {
    let inner = tool.get("function").unwrap_or(tool);
    let name = inner.get("name")?.as_str()?.to_owned();
    let schema = SCHEMAS
        .iter()
        .find_map(|key| inner.get(key))
        .cloned()
        .unwrap_or(Value::Null);
    Some((name, schema))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(json: &str) -> Ask {
        Ask::from_json(json.as_bytes()).unwrap()
    }

    #[test]
    fn the_last_user_text_is_found_in_every_protocol() {
        for json in [
            r#"{"messages":[{"role":"user","content":"no"},{"role":"user","content":"yes"},{"role":"assistant","content":"x"}]}"#,
            r#"{"messages":[{"role":"user","content":[{"type":"text","text":"y"},{"type":"image"},{"type":"text","text":"es"}]}]}"#,
            r#"{"input":"yes"}"#,
            r#"{"input":[{"type":"message","role":"user","content":[{"type":"input_text","text":"yes"}]},{"type":"function_call","role":null}]}"#,
            r#"{"contents":[{"parts":[{"text":"yes"}]}]}"#,
            r#"{"prompt":["no","yes"]}"#,
        ] {
            assert_eq!(ask(json).last_user_text(), "yes", "{json}");
        }
    }

    #[test]
    fn tools_are_named_as_each_vendor_declares_them() {
        let chat =
            ask(r#"{"tools":[{"type":"function","function":{"name":"a","parameters":{}}}]}"#);
        assert_eq!(chat.tools(Vendor::OpenAi)[0].0, "a");
        let responses = ask(r#"{"tools":[{"type":"web_search"},{"type":"function","name":"b"}]}"#);
        assert_eq!(responses.tools(Vendor::OpenAi)[0].0, "b");
        let gemini = ask(r#"{"tools":[{"functionDeclarations":[{"name":"c"}]}]}"#);
        assert_eq!(gemini.tools(Vendor::Google)[0].0, "c");
    }

    #[test]
    fn numbers_no_float_can_hold_do_not_make_a_request_invalid() {
        assert!(Ask::from_json(br#"{"model":"m","seed":1e400}"#).is_some());
        assert!(Ask::from_json(br#"{"model":"m""#).is_none());
        assert!(Ask::from_json(br"[]").is_none());
    }
}
