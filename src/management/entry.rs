//! One named entry of a section of the file: how it is shown, and how a body
//! becomes what the file says.
//!
//! What is shown has the defaults filled in. What is written has them only
//! where the file had them before, or where an entry is new: putting back what
//! was shown changes nothing. What the fields mean is not known here.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::write::{self, Stop};
use super::{Call, Refusal, Reply};
use crate::config::{Config, document, edit};

/// An entry's fields.
pub(super) type Fields = Map<String, Value>;

/// A section whose entries are edited one by one.
pub(super) struct Section {
    /// Its name in the file.
    pub(super) name: &'static str,
    /// What an entry is called in messages.
    pub(super) noun: &'static str,
    /// The field that repeats an entry's name where one alone is shown.
    pub(super) label: Option<&'static str>,
    /// Fields with another spelling: the written one, then the other.
    pub(super) spellings: &'static [(&'static str, &'static str)],
    /// Adds what an entry means without saying it.
    pub(super) fill: fn(&mut Fields),
    /// Takes away what `fill` would add, where the stored entry is without it.
    pub(super) strip: fn(&mut Fields, &Fields),
    /// Brings an entry into the form that the file has for it.
    pub(super) reshape: fn(&str, &str, Fields) -> Fields,
}

impl Section {
    /// The stored entry in a document; one without fields may be null there.
    pub(super) fn entry(&self, document: &Value, name: &str) -> Option<Fields> {
        let entry = document.get(self.name)?.get(name)?;
        Some(entry.as_object().cloned().unwrap_or_default())
    }

    /// Path of an entry in the file.
    pub(super) fn path(&self, name: &str) -> Vec<String> {
        vec![self.name.to_owned(), name.to_owned()]
    }

    /// 404 for an entry that is not there.
    pub(super) fn unknown(&self, name: &str) -> Refusal {
        Refusal::not_found(format!("{} '{name}' not found", self.noun))
    }

    /// The text with that entry in place of the stored one.
    pub(super) fn put(
        &self,
        text: &str,
        name: &str,
        stored: Option<&Fields>,
        entry: Fields,
    ) -> Result<String, Stop> {
        if stored == Some(&entry) {
            return Ok(text.to_owned());
        }
        let mut entry = (self.reshape)(text, name, entry);
        for (written, other) in self.spellings {
            if is_there(text, &[self.name, name, other])
                && let Some(value) = entry.shift_remove(*written)
            {
                entry.insert((*other).to_owned(), one_of_one(value));
            }
        }
        Ok(edit::set(text, &[self.name, name], &Value::Object(entry))?)
    }

    /// The entry in the one spelling; as it is where it isn't valid, so that
    /// the check names the faults of what was sent.
    fn canonical(&self, name: &str, entry: Fields) -> Fields {
        let alone = json!({ self.name: { name: entry } });
        match document(&edit::render(&alone)) {
            Ok(document) => self.entry(&document, name).unwrap_or_default(),
            Err(_) => entry,
        }
    }

    /// Stored fields with a patch over them; null takes a field away.
    fn merged(&self, mut entry: Fields, patch: Fields) -> Fields {
        for (name, value) in patch {
            let spelling = self.spellings.iter().find(|(_, other)| *other == name);
            let name = spelling.map_or(name, |(written, _)| (*written).to_owned());
            if value.is_null() {
                entry.shift_remove(&name);
            } else {
                entry.insert(name, value);
            }
        }
        entry
    }
}

/// Whether the text has that field in that very spelling.
pub(super) fn is_there(text: &str, path: &[&str]) -> bool {
    edit::remove(text, path).as_deref() != Ok(text)
}

/// A list of one text as that text.
fn one_of_one(value: Value) -> Value {
    match value.as_array().map(Vec::as_slice) {
        Some([Value::String(one)]) => Value::String(one.clone()),
        _ => value,
    }
}

/// All entries by name, in file order.
pub(super) fn list(section: &Section, call: &Call) -> Reply {
    let entries = call.config.document.get(section.name);
    let mut shown = Map::new();
    for name in entries
        .and_then(Value::as_object)
        .into_iter()
        .flat_map(Map::keys)
    {
        if let Some(entry) = show(section, call, name) {
            shown.insert(name.clone(), Value::Object(entry));
        }
    }
    Reply::json(&Value::Object(shown))
}

/// One entry.
pub(super) fn get(section: &Section, call: &Call) -> Result<Reply, Refusal> {
    let name = call.params.value("slug");
    let entry = show(section, call, name).ok_or_else(|| section.unknown(name))?;
    let mut shown = Fields::new();
    if let Some(label) = section.label {
        shown.insert(label.to_owned(), name.into());
    }
    shown.extend(entry);
    Ok(Reply::json(&Value::Object(shown)))
}

fn show(section: &Section, call: &Call, name: &str) -> Option<Fields> {
    let mut entry = section.entry(&call.config.document, name)?;
    (section.fill)(&mut entry);
    if call.query("redact") == Some("true") {
        redact(&mut entry);
    }
    Some(entry)
}

/// What a body asks for, with what its writing needs to know.
pub(super) struct Change {
    /// The entry's name.
    pub(super) name: String,
    /// The body.
    pub(super) body: Fields,
    /// What is in force.
    pub(super) config: Arc<Config>,
    /// The file as the API shows it, if it can be read.
    pub(super) document: Value,
}

/// Replaces an entry by the request's body, or makes it. `rules` adjusts the
/// body to the stored entry, or refuses it.
pub(super) async fn put(
    section: &'static Section,
    call: &mut Call,
    rules: fn(&mut Change, Option<&Fields>) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let (name, body) = asked(section, call).await?;
    let config = Arc::clone(&call.config);
    let prefix = section.path(&name);
    let change = move |text: &str| {
        // A file that is not valid may become so by this.
        let readable = document(text);
        let known = readable.is_ok();
        let document = readable.unwrap_or_else(|_| (*config.document).clone());
        let stored = section.entry(&document, &name);
        let mut change = Change {
            name,
            body,
            config,
            document,
        };
        rules(&mut change, stored.as_ref())?;
        let mut entry = section.canonical(&change.name, change.body);
        if let Some(stored) = &stored {
            (section.strip)(&mut entry, stored);
        }
        section.put(text, &change.name, stored.as_ref().filter(|_| known), entry)
    };
    write::edit(call, prefix, change).await.map(drop)
}

/// Lays the request's body over the stored entry. `rules` adjusts stored
/// fields and body to one another, or refuses.
pub(super) async fn patch(
    section: &'static Section,
    call: &mut Call,
    rules: fn(&mut Change, &mut Fields) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let (name, body) = asked(section, call).await?;
    let config = Arc::clone(&call.config);
    let prefix = section.path(&name);
    let change = move |text: &str| {
        let document = document(text).map_err(|faults| write::broken_file(&faults))?;
        let stored = section.entry(&document, &name);
        let stored = stored.ok_or_else(|| section.unknown(&name))?;
        let mut change = Change {
            name,
            body,
            config,
            document,
        };
        let mut below = stored.clone();
        rules(&mut change, &mut below)?;
        let merged = section.merged(below, change.body);
        let mut entry = section.canonical(&change.name, merged);
        (section.strip)(&mut entry, &stored);
        section.put(text, &change.name, Some(&stored), entry)
    };
    write::edit(call, prefix, change).await.map(drop)
}

/// The entry's name and the body, which may repeat the name.
async fn asked(section: &Section, call: &mut Call) -> Result<(String, Fields), Refusal> {
    let name = call.params.value("slug").to_owned();
    let mut body = call.object().await?;
    if let Some(label) = section.label
        && let Some(repeated) = body.shift_remove(label)
        && repeated != name.as_str()
    {
        return Err(Refusal::bad(format!(
            "{label}: found {repeated}; the path says \"{name}\""
        )));
    }
    if body.values().any(is_redacted) {
        return Err(Refusal::bad(format!(
            "found the text {HIDDEN}, which stands for a secret that was hidden; the secret itself is wanted, or with PATCH no such field"
        )));
    }
    Ok((name, body))
}

/// Adds what is absent, also inside of sections that both have.
pub(super) fn fill(entry: &mut Fields, defaults: &Value) {
    for (name, default) in defaults.as_object().into_iter().flatten() {
        match entry.get_mut(name) {
            None => {
                entry.insert(name.clone(), default.clone());
            }
            Some(Value::Object(within)) => fill(within, default),
            Some(_) => {}
        }
    }
}

/// Takes away what [`fill`] would add to `stored`.
pub(super) fn strip(entry: &mut Fields, stored: &Fields, defaults: &Value) {
    for (name, default) in defaults.as_object().into_iter().flatten() {
        match (entry.get_mut(name), stored.get(name)) {
            (Some(value), None) if value == default => {
                entry.shift_remove(name);
            }
            (Some(Value::Object(within)), Some(Value::Object(stored))) => {
                strip(within, stored, default);
            }
            _ => {}
        }
    }
}

/// What hidden secrets are shown as.
const HIDDEN: &str = "[redacted]";

fn is_redacted(value: &Value) -> bool {
    match value {
        Value::String(text) => text == HIDDEN,
        Value::Array(items) => items.iter().any(is_redacted),
        Value::Object(fields) => fields.values().any(is_redacted),
        _ => false,
    }
}

/// Hides secrets, whatever section they stand in.
fn redact(fields: &mut Fields) {
    for (name, value) in fields {
        match value {
            Value::String(text) if !text.is_empty() && is_secret(name) => {
                *value = HIDDEN.into();
            }
            Value::Object(headers) if name == "headers" => hide_headers(headers),
            Value::Object(within) => redact(within),
            Value::Array(items) => items
                .iter_mut()
                .filter_map(Value::as_object_mut)
                .for_each(redact),
            _ => {}
        }
    }
}

fn hide_headers(headers: &mut Fields) {
    for (name, value) in headers {
        let plain = plain(name);
        let by_name = ["auth", "key", "token", "secret", "cookie"];
        let by_value = ["bearer ", "basic ", "sk-"];
        let text = value.as_str().unwrap_or_default().to_ascii_lowercase();
        if by_name.iter().any(|part| plain.contains(part))
            || by_value.iter().any(|start| text.starts_with(start))
        {
            *value = HIDDEN.into();
        }
    }
}

/// Whether a field of that name holds a secret. Besides `api_key` and `secret`
/// these are options of quota checkers.
fn is_secret(name: &str) -> bool {
    let plain = plain(name);
    let words = [
        "apikey",
        "secret",
        "password",
        "cookie",
        "authorization",
        "session",
    ];
    words.iter().any(|word| plain.contains(word)) || plain.ends_with("token")
}

fn plain(name: &str) -> String {
    let letters = name.chars().filter(char::is_ascii_alphanumeric);
    letters.map(|c| c.to_ascii_lowercase()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(value: Value) -> Fields {
        value.as_object().cloned().unwrap()
    }

    #[test]
    fn what_is_filled_in_is_stripped_and_what_was_stored_stays() {
        let defaults = json!({"enabled": true, "sync": {"on": false, "minutes": 60}});
        for stored in [
            json!({}),
            json!({"enabled": true}),
            json!({"sync": {"minutes": 60}}),
            json!({"sync": {}, "other": 1}),
            json!({"sync": null}),
        ] {
            let stored = fields(stored);
            let mut entry = stored.clone();
            fill(&mut entry, &defaults);
            assert!(entry.contains_key("enabled"));
            strip(&mut entry, &stored, &defaults);
            assert_eq!(entry, stored);
        }
        let mut changed = fields(json!({"enabled": false}));
        strip(&mut changed, &Fields::new(), &defaults);
        assert_eq!(changed, fields(json!({"enabled": false})));
    }

    #[test]
    fn secrets_are_hidden_wherever_they_stand_and_the_rest_is_shown() {
        let mut entry = fields(json!({
            "api_key": "k", "models": ["m"], "estimateTokens": false,
            "headers": {"X-Title": "t", "Authorization": "x", "X-Custom": "Bearer y", "x-goog-api-key": "z"},
            "quota_checker": {"type": "zai", "options": {"apiKey": "k", "endpoint": "https://e", "token": "t"}},
        }));
        redact(&mut entry);
        let hidden = fields(json!({
            "api_key": HIDDEN, "models": ["m"], "estimateTokens": false,
            "headers": {"X-Title": "t", "Authorization": HIDDEN, "X-Custom": HIDDEN, "x-goog-api-key": HIDDEN},
            "quota_checker": {"type": "zai", "options": {"apiKey": HIDDEN, "endpoint": "https://e", "token": HIDDEN}},
        }));
        assert_eq!(entry, hidden);
        assert!(is_redacted(&Value::Object(entry)));
    }
}
