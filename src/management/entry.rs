//! One named entry of a section of the file: how it is shown, and how a body
//! becomes what the file says.
//!
//! What is shown has the defaults filled in. What is written has them only
//! where the file had them before, or where an entry is new: putting back what
//! was shown changes nothing. What the fields mean is not known here.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::tag::{Condition, Tag};
use super::write::{self, Stop};
use super::{Call, Refusal, Reply, blocking};
use crate::config::secret::{is_secret_name, plain_letters};
use crate::config::{Config, Draft, document, edit};

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
    pub(super) reshape: fn(&Draft, &str, Fields) -> Fields,
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

    /// The tag of an entry as it is stored.
    pub(super) fn tag(&self, entry: &Fields) -> Tag {
        let mut shown = entry.clone();
        (self.fill)(&mut shown);
        Tag::of(&Value::Object(shown))
    }

    /// Puts that entry in place of the stored one.
    pub(super) fn put(
        &self,
        draft: &mut Draft,
        name: &str,
        stored: Option<&Fields>,
        entry: Fields,
    ) -> Result<(), Stop> {
        if stored == Some(&entry) {
            return Ok(());
        }
        let mut entry = (self.reshape)(draft, name, entry);
        for (written, other) in self.spellings {
            if entry.contains_key(*written)
                && draft.has(&[self.name, name, other])
                && let Some(value) = entry.shift_remove(*written)
            {
                entry.insert((*other).to_owned(), one_of_one(value));
            }
        }
        Ok(draft.set(&[self.name, name], &Value::Object(entry))?)
    }

    /// The stored entry that a change is about: in force, and on disk where
    /// that is another one. A file that can't be read has none.
    fn stored(&self, draft: &Draft, name: &str) -> Stored {
        let in_force = self.entry(&draft.in_force().document, name);
        let on_disk = match draft.says() {
            Ok(document) => self.entry(document, name),
            Err(_) => in_force.clone(),
        };
        Stored { in_force, on_disk }
    }

    /// Checks a change against the state that it meets, and says which state
    /// it was made for.
    fn met(&self, condition: &Condition, stored: Stored) -> Result<Stored, Refusal> {
        let tag = stored.on_disk.as_ref().map(|entry| self.tag(entry));
        condition.met(tag.as_ref())?;
        Ok(match stored {
            // The caller has seen what the file has.
            Stored { on_disk, .. } if condition.is_careful() => Stored {
                in_force: on_disk.clone(),
                on_disk,
            },
            stored => stored,
        })
    }

    /// Checks the removal of an entry, or a change that doesn't depend on what
    /// it says: it must be in force as it is on disk. The entry, if it is there.
    ///
    /// # Errors
    /// 409 for a file that can't be read or says something else, 412.
    pub(super) fn settled(
        &self,
        draft: &Draft,
        condition: &Condition,
        name: &str,
    ) -> Result<Option<Fields>, Refusal> {
        draft.says().map_err(write::broken_file)?;
        let stored = self.met(condition, self.stored(draft, name))?;
        let (in_force, on_disk) = (stored.in_force.as_ref(), stored.on_disk.as_ref());
        if on_disk.is_some() {
            write::merged(&self.path(name), in_force, on_disk, None)?;
        }
        Ok(stored.on_disk)
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

/// An entry in force and on disk.
struct Stored {
    in_force: Option<Fields>,
    on_disk: Option<Fields>,
}

/// A list of one text as that text.
fn one_of_one(value: Value) -> Value {
    match value.as_array().map(Vec::as_slice) {
        Some([Value::String(one)]) => Value::String(one.clone()),
        _ => value,
    }
}

/// All entries by name, in file order.
pub(super) async fn list(section: &'static Section, call: &Call) -> Result<Reply, Refusal> {
    let config = Arc::clone(&call.config);
    let hides = hides(call);
    blocking(move || {
        let mut shown = all(section, &config.document);
        let tag = Tag::of(&Value::Object(shown.clone()));
        if hides {
            redact_each(&mut shown);
        }
        Ok(Reply::json(&Value::Object(shown)).tagged(&tag))
    })
    .await
}

/// All entries with what they mean without saying it.
fn all(section: &Section, document: &Value) -> Fields {
    let entries = document.get(section.name).and_then(Value::as_object);
    let shown = entries.into_iter().flatten().map(|(name, entry)| {
        let mut entry = entry.as_object().cloned().unwrap_or_default();
        (section.fill)(&mut entry);
        (name.clone(), Value::Object(entry))
    });
    shown.collect()
}

/// The tag of a whole section.
pub(super) fn tag_of_all(section: &Section, document: &Value) -> Tag {
    Tag::of(&Value::Object(all(section, document)))
}

fn redact_each(entries: &mut Fields) {
    let entries = entries.values_mut().filter_map(Value::as_object_mut);
    entries.for_each(redact);
}

/// One entry.
pub(super) fn get(section: &Section, call: &Call) -> Result<Reply, Refusal> {
    let name = call.params.value("slug");
    let entry = section.entry(&call.config.document, name);
    let mut entry = entry.ok_or_else(|| section.unknown(name))?;
    let tag = section.tag(&entry);
    (section.fill)(&mut entry);
    if hides(call) {
        redact(&mut entry);
    }
    let mut shown = Fields::new();
    if let Some(label) = section.label {
        shown.insert(label.to_owned(), name.into());
    }
    shown.extend(entry);
    Ok(Reply::json(&Value::Object(shown)).tagged(&tag))
}

fn hides(call: &Call) -> bool {
    call.query("redact") == Some("true")
}

/// What a body asks for, with what its writing needs to know.
pub(super) struct Change {
    /// The entry's name.
    pub(super) name: String,
    /// The body.
    pub(super) body: Fields,
    /// What is in force.
    pub(super) config: Arc<Config>,
    /// The file as the API shows it, if it can be read; else what is in force.
    pub(super) document: Arc<Value>,
}

impl Change {
    fn new(name: String, body: Fields, draft: &Draft) -> Self {
        let config = Arc::clone(draft.in_force());
        let document = draft.says().unwrap_or(&config.document);
        Self {
            name,
            body,
            document: Arc::clone(document),
            config,
        }
    }
}

/// Replaces an entry by the request's body, or makes it. `rules` adjusts the
/// body to the stored entry, or refuses it. The tag is that of what is there
/// afterwards.
pub(super) async fn put(
    section: &'static Section,
    call: &mut Call,
    rules: fn(&mut Change, Option<&Fields>) -> Result<(), Refusal>,
) -> Result<Tag, Refusal> {
    let (name, body) = asked(section, call).await?;
    let condition = Condition::of(&call.headers);
    let prefix = section.path(&name);
    let change = move |draft: &mut Draft| {
        let mut change = Change::new(name, body, draft);
        let Stored { in_force, on_disk } =
            section.met(&condition, section.stored(draft, &change.name))?;
        rules(&mut change, in_force.as_ref())?;
        let mut entry = section.canonical(&change.name, change.body);
        if let Some(stored) = &in_force {
            (section.strip)(&mut entry, stored);
        }
        let path = section.path(&change.name);
        let merged = write::merged(&path, in_force.as_ref(), on_disk.as_ref(), Some(entry))?;
        // A file that is not valid may become so by this.
        let stored = on_disk.as_ref().filter(|_| draft.says().is_ok());
        section.put(draft, &change.name, stored, merged.unwrap_or_default())
    };
    written(section, call, prefix, change).await
}

/// Lays the request's body over the stored entry. `rules` adjusts stored
/// fields and body to one another, or refuses. The tag is that of what is
/// there afterwards.
pub(super) async fn patch(
    section: &'static Section,
    call: &mut Call,
    rules: fn(&mut Change, &mut Fields) -> Result<(), Refusal>,
) -> Result<Tag, Refusal> {
    let (name, body) = asked(section, call).await?;
    let condition = Condition::of(&call.headers);
    let prefix = section.path(&name);
    let change = move |draft: &mut Draft| {
        draft.says().map_err(write::broken_file)?;
        let mut change = Change::new(name, body, draft);
        let Stored { in_force, on_disk } =
            section.met(&condition, section.stored(draft, &change.name))?;
        // One that was just added by hand is as good as one in force.
        let stored = in_force.or_else(|| on_disk.clone());
        let stored = stored.ok_or_else(|| section.unknown(&change.name))?;
        let mut below = stored.clone();
        rules(&mut change, &mut below)?;
        let merged = section.merged(below, change.body);
        let mut entry = section.canonical(&change.name, merged);
        (section.strip)(&mut entry, &stored);
        let path = section.path(&change.name);
        let merged = write::merged(&path, Some(&stored), on_disk.as_ref(), Some(entry))?;
        section.put(
            draft,
            &change.name,
            on_disk.as_ref(),
            merged.unwrap_or_default(),
        )
    };
    written(section, call, prefix, change).await
}

async fn written(
    section: &Section,
    call: &Call,
    prefix: Vec<String>,
    change: impl FnOnce(&mut Draft) -> Result<(), Stop> + Send + 'static,
) -> Result<Tag, Refusal> {
    let config = write::change(call, prefix, change).await?;
    let entry = section.entry(&config.document, call.params.value("slug"));
    Ok(section.tag(&entry.unwrap_or_default()))
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
            Value::String(text) if !text.is_empty() && is_secret_name(name) => {
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
        let plain = plain_letters(name);
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
