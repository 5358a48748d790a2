//! A change of the file under way: the text as it is on disk, what it and the
//! configuration in force say, and the steps taken so far.
//!
//! A step is tried on the lines of its entry alone, which is a guess about the
//! text. Guesses are checked against the whole outcome before anything is
//! written, and made again the careful way if one was wrong.

use std::cell::OnceCell;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::Config;
use super::check::{document, opened_text};
use super::edit::{self, EditError};
use super::fault::Fault;
use super::fold;
use super::region;
use super::tree::Node;
use crate::vault::Vault;

/// See the module's text.
#[derive(Debug)]
pub struct Draft {
    on_disk: String,
    text: String,
    in_force: Arc<Config>,
    vault: Arc<Vault>,
    by_hand: bool,
    says: OnceCell<Result<Arc<Value>, Vec<Fault>>>,
    steps: Vec<Step>,
    guessed: bool,
    replaced: bool,
}

#[derive(Debug)]
enum Step {
    Set(Vec<String>, Value),
    Remove(Vec<String>),
    Whole(String),
}

impl Draft {
    /// Begins with the text on disk; `by_hand` says that it isn't the one that
    /// `in_force` comes from.
    pub(super) fn new(
        on_disk: String,
        in_force: Arc<Config>,
        vault: Arc<Vault>,
        by_hand: bool,
    ) -> Self {
        Self {
            text: on_disk.clone(),
            on_disk,
            in_force,
            vault,
            by_hand,
            says: OnceCell::new(),
            steps: Vec::new(),
            guessed: false,
            replaced: false,
        }
    }

    /// The text, with the steps so far.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The text as it is on disk.
    #[must_use]
    pub fn on_disk(&self) -> &str {
        &self.on_disk
    }

    /// The configuration in force.
    #[must_use]
    pub const fn in_force(&self) -> &Arc<Config> {
        &self.in_force
    }

    /// Whether the file was changed by hand and is not in force as it is.
    #[must_use]
    pub const fn by_hand(&self) -> bool {
        self.by_hand
    }

    /// What the file on disk says, in the one spelling and its secrets opened.
    ///
    /// # Errors
    /// What is wrong with it, when it was changed by hand.
    pub fn says(&self) -> Result<&Arc<Value>, &[Fault]> {
        let read = || {
            if self.by_hand {
                opened_text(&self.on_disk, &self.vault).map(Arc::new)
            } else {
                Ok(Arc::clone(&self.in_force.document))
            }
        };
        let says = self.says.get_or_init(read);
        says.as_ref().map_err(Vec::as_slice)
    }

    /// What the text with the steps so far says, its secrets opened.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn would_say(&self) -> Result<Value, Vec<Fault>> {
        opened_text(&self.text, &self.vault)
    }

    /// Whether the text has that field in that very spelling.
    #[must_use]
    pub fn has(&self, path: &[&str]) -> bool {
        if let [section, name, rest @ ..] = path
            && let Some(found) = region::has(&self.text, section, name)
        {
            if !found || rest.is_empty() {
                return found;
            }
            let lines = region::entry(&self.text, section, name)
                .and_then(|region| region.document(&self.text));
            if let Some(there) = lines.and_then(|lines| edit::is_there(&lines, path)) {
                return there;
            }
        }
        edit::is_there(&self.text, path).unwrap_or(false)
    }

    /// Sets the value at `path`, as [`edit::set`] does.
    ///
    /// # Errors
    /// When the text can't be edited there.
    pub fn set(&mut self, path: &[&str], value: &Value) -> Result<(), EditError> {
        let edited = self.guess(|text| quick_set(text, path, value));
        self.text = match edited {
            Some(edited) => edited,
            None => edit::set(&self.text, path, value)?,
        };
        self.steps.push(Step::Set(owned(path), value.clone()));
        Ok(())
    }

    /// Removes the entry at `path`, as [`edit::remove`] does.
    ///
    /// # Errors
    /// When the text can't be edited there.
    pub fn remove(&mut self, path: &[&str]) -> Result<(), EditError> {
        let edited = self.guess(|text| quick_remove(text, path));
        self.text = match edited {
            Some(edited) => edited,
            None => edit::remove(&self.text, path)?,
        };
        self.steps.push(Step::Remove(owned(path)));
        Ok(())
    }

    /// Puts another text in place of all of it, whatever it says.
    pub fn replace(&mut self, text: String) {
        self.rewrite(text);
        self.replaced = true;
    }

    /// Puts another text in place of all of it that was made from it.
    pub fn rewrite(&mut self, text: String) {
        self.steps.push(Step::Whole(text.clone()));
        self.text = text;
        self.guessed = false;
    }

    /// Without knowing what the file says, nothing could be checked
    /// afterwards.
    fn guess(&mut self, quick: impl FnOnce(&str) -> Option<String>) -> Option<String> {
        if self.says().is_err() || self.steps.iter().any(|step| matches!(step, Step::Whole(_))) {
            return None;
        }
        let edited = quick(&self.text)?;
        self.guessed = true;
        Some(edited)
    }

    /// Whether any step was a guess.
    pub(super) const fn is_guessed(&self) -> bool {
        self.guessed
    }

    /// Whether the text owes nothing to the one on disk.
    pub(super) const fn is_replaced(&self) -> bool {
        self.replaced
    }

    /// Whether a text that says this is what the steps were to make, and
    /// nothing else was changed.
    pub(super) fn is_meant(&self, outcome: &Value) -> bool {
        let Ok(before) = self.says() else {
            return false;
        };
        let mut touched = Vec::new();
        let mut wanted = Map::new();
        for step in &self.steps {
            let (path, value) = match step {
                Step::Set(path, value) => (path, Some(value)),
                Step::Remove(path) => (path, None),
                Step::Whole(_) => return false,
            };
            place(&mut wanted, path, value);
            touched.push(borrowed(path));
        }
        let wanted = fold::canonical(Node::from_json_map(&wanted)).0.to_json();
        let told = touched
            .iter()
            .all(|path| at(&wanted, path) == at(outcome, path));
        // The one field whose spellings stand in different sections.
        if touched.iter().any(|path| path[..] == ["trustedProxies"]) {
            touched.push(vec!["server", "trustedProxies"]);
        }
        told && same_elsewhere(before, outcome, &touched)
    }

    /// What the text says now, worked out from what it said before and from the
    /// lines of the one entry that was touched; `None` unless that is sure.
    ///
    /// It is, when the section's lines have the entries that the file is known
    /// to have, in their order, and the entry's lines say what it is known to
    /// say: then these are the entry's lines, and others in their place change
    /// nothing else, but where they share an anchor.
    pub(super) fn outcome(&self) -> Option<Value> {
        let [step] = &self.steps[..] else {
            return None;
        };
        let path = match step {
            Step::Set(path, _) | Step::Remove(path) => path,
            Step::Whole(_) => return None,
        };
        let [section, name, ..] = &path[..] else {
            return None;
        };
        if self.by_hand || !self.guessed {
            return None;
        }
        let before = self.says().ok()?;
        let known = before.get(section)?.as_object()?;
        let names = region::names(&self.on_disk, section)?;
        if !names.iter().copied().eq(known.keys().map(String::as_str)) {
            return None;
        }
        let touched = Touched {
            before: &self.on_disk,
            after: &self.text,
            section,
            name,
        };
        let entry = touched.entry(known.get(name), matches!(step, Step::Remove(_)))?;
        let mut outcome = (**before).clone();
        let entries = outcome.get_mut(section)?.as_object_mut()?;
        match entry {
            Some(entry) => drop(entries.insert(name.clone(), entry)),
            None => drop(entries.shift_remove(name)),
        }
        Some(outcome)
    }

    /// The text made again, every step checked by itself.
    ///
    /// # Errors
    /// When the text can't be edited somewhere.
    pub(super) fn careful(&self) -> Result<String, EditError> {
        let mut text = self.on_disk.clone();
        for step in &self.steps {
            text = match step {
                Step::Set(path, value) => edit::set(&text, &borrowed(path), value)?,
                Step::Remove(path) => edit::remove(&text, &borrowed(path))?,
                Step::Whole(whole) => whole.clone(),
            };
        }
        Ok(text)
    }
}

/// An entry whose lines may have changed, and the texts around it.
struct Touched<'t> {
    before: &'t str,
    after: &'t str,
    section: &'t str,
    name: &'t str,
}

impl Touched<'_> {
    /// What the entry says now, if it is still there. `None` for certain unless
    /// it said `known` before, and all other lines are the same.
    fn entry(&self, known: Option<&Value>, removed: bool) -> Option<Option<Value>> {
        let (section, name) = (self.section, self.name);
        let old = region::entry(self.before, section, name)?;
        let old_lines = old.document(self.before)?;
        if old_lines.contains('&') {
            return None;
        }
        if known.is_some() {
            let says = document(&old_lines).ok()?;
            if at(&says, &[section, name]) != known {
                return None;
            }
        }
        let rest = self.before.get(old.range.end..)?;
        if removed {
            let lead = self.before.get(..old.range.start)?;
            let same = self.after.strip_prefix(lead)? == rest;
            return (same && known.is_some()).then_some(None);
        }
        // A new entry stands behind the last one.
        let lead = match known {
            Some(_) => self.before.get(..old.range.start)?,
            None => self.before.get(..old.range.end)?,
        };
        let lines = self.after.strip_prefix(lead)?.strip_suffix(rest)?;
        // What is sealed has to be opened, which the whole check does.
        if lines.contains("enc:") {
            return None;
        }
        let says = document(&format!("{}{lines}", old.head)).ok()?;
        let entries = says.get(section)?.as_object()?;
        let alone = says.as_object()?.len() == 1 && entries.len() == 1;
        alone.then(|| entries.get(name).cloned())?.map(Some)
    }
}

fn owned(path: &[&str]) -> Vec<String> {
    path.iter().map(ToString::to_string).collect()
}

fn borrowed(path: &[String]) -> Vec<&str> {
    path.iter().map(String::as_str).collect()
}

/// The smallest part of the text that will do.
pub(super) fn quick_set(text: &str, path: &[&str], value: &Value) -> Option<String> {
    let (section, rest) = path.split_first()?;
    if let [name, ..] = rest
        && let Some(region) = region::entry(text, section, name)
        && let Ok(edited) = edit::set(&region.document(text)?, path, value)
        && let Some(whole) = region.replaced(text, &edited)
    {
        return Some(whole);
    }
    let region = region::section(text, section)?;
    let edited = edit::set(&region.document(text)?, path, value).ok()?;
    region.replaced(text, &edited)
}

fn quick_remove(text: &str, path: &[&str]) -> Option<String> {
    let (section, rest) = path.split_first()?;
    if let [name] = rest
        && region::has(text, section, name)?
        && let Some(without) = region::without(text, section, name)
    {
        return Some(without);
    }
    let region = region::section(text, section)?;
    let edited = edit::remove(&region.document(text)?, path).ok()?;
    region.replaced(text, &edited)
}

fn at<'v>(value: &'v Value, path: &[&str]) -> Option<&'v Value> {
    path.iter().try_fold(value, |value, name| value.get(*name))
}

/// Puts a value there, or takes what is there away.
fn place(map: &mut Map<String, Value>, path: &[String], value: Option<&Value>) {
    let Some((name, rest)) = path.split_first() else {
        return;
    };
    if rest.is_empty() {
        match value {
            Some(value) => drop(map.insert(name.clone(), value.clone())),
            None => drop(map.shift_remove(name)),
        }
        return;
    }
    let below = map.entry(name.clone()).or_insert_with(|| Map::new().into());
    if let Some(below) = below.as_object_mut() {
        place(below, rest, value);
    }
}

/// Whether two values say the same but at these paths and below them.
fn same_elsewhere(before: &Value, after: &Value, touched: &[Vec<&str>]) -> bool {
    let nothing = Map::new();
    let fields = |value: &Value| match value {
        Value::Object(map) => Some(map.clone()),
        Value::Null => Some(Map::new()),
        _ => None,
    };
    let (one, other) = match (before, after) {
        (Value::Object(one), Value::Object(other)) => (one, other),
        (Value::Object(one), Value::Null) => (one, &nothing),
        (Value::Null, Value::Object(other)) => (&nothing, other),
        _ => return fields(before) == fields(after),
    };
    let within = |name: &str| -> Vec<Vec<&str>> {
        let below = touched.iter().filter(|path| path.first() == Some(&name));
        below
            .map(|path| path.get(1..).unwrap_or_default().to_vec())
            .collect()
    };
    let same = |name: &String| {
        let (left, right) = (one.get(name), other.get(name));
        let below = within(name);
        if below.is_empty() {
            return left == right;
        }
        below.iter().any(Vec::is_empty)
            || same_elsewhere(
                left.unwrap_or(&Value::Null),
                right.unwrap_or(&Value::Null),
                &below,
            )
    };
    one.keys().all(same)
        && other
            .keys()
            .filter(|name| !one.contains_key(*name))
            .all(same)
}
