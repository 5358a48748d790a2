//! A change of the file under way: the text as it is on disk, what it and the
//! configuration in force say, and the steps taken so far.
//!
//! A step is tried on the lines of its entry alone, which is a guess about the
//! text. Where it is sure what the text says afterwards, that is known without
//! reading it; other guesses are checked against the whole outcome before
//! anything is written, and made again the careful way if one was wrong.

use std::cell::OnceCell;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::Config;
use super::check::opened_text;
use super::edit::{self, EditError};
use super::fault::Fault;
use super::fold;
use super::region::{self, Region};
use super::seal::{self, Which};
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
    known: Known,
    guessed: bool,
    replaced: bool,
}

/// What the text with the steps so far says, as far as that is known without
/// reading it.
#[derive(Debug)]
enum Known {
    /// What the file says.
    Before,
    /// That.
    Now(Arc<Value>),
    /// It would have to be read.
    Unsure,
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
            known: if by_hand {
                Known::Unsure
            } else {
                Known::Before
            },
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
            Some(edited) => self.followed(path, false, edited),
            None => {
                self.known = Known::Unsure;
                edit::set(&self.text, path, value)?
            }
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
            Some(edited) => self.followed(path, true, edited),
            None => {
                self.known = Known::Unsure;
                edit::remove(&self.text, path)?
            }
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
        self.known = Known::Unsure;
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

    /// The text after a step, its secrets sealed where it is known what it says,
    /// which is noted.
    fn followed(&mut self, path: &[&str], removes: bool, edited: String) -> String {
        let known = std::mem::replace(&mut self.known, Known::Unsure);
        let says = match &known {
            Known::Unsure => return edited,
            Known::Before => &self.in_force.document,
            Known::Now(says) => says,
        };
        let Some(change) = Change::find(&self.text, &edited, path, removes, says, &self.vault)
        else {
            return edited;
        };
        let mut says = match known {
            Known::Now(says) => says,
            _ => Arc::clone(&self.in_force.document),
        };
        if change.apply(Arc::make_mut(&mut says)).is_none() {
            return edited;
        }
        self.known = Known::Now(says);
        change.text
    }

    /// What the text says, if that is known without reading it; its secrets are
    /// sealed then.
    pub(super) const fn outcome(&self) -> Option<&Arc<Value>> {
        match &self.known {
            Known::Now(says) => Some(says),
            Known::Before | Known::Unsure => None,
        }
    }

    /// The paths that the steps are about.
    pub(super) fn touched(&self) -> Vec<&[String]> {
        let paths = self.steps.iter().filter_map(|step| match step {
            Step::Set(path, _) | Step::Remove(path) => Some(path.as_slice()),
            Step::Whole(_) => None,
        });
        paths.collect()
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

/// A step that is sure to have changed one entry, or one section, and nothing
/// else.
///
/// It is, when the lines around have the names that are known to be there, in
/// their order, and the entry's own lines say what it is known to say: then
/// these are the entry's lines, and others in their place change nothing else,
/// but where they share an anchor.
struct Change {
    /// Where: a section, and maybe an entry of it.
    path: Vec<String>,
    /// What is there now, if anything.
    now: Option<Value>,
    /// The text, its secrets sealed there.
    text: String,
}

impl Change {
    /// `None` for certain unless it is sure. `known` is what `before` says.
    fn find(
        before: &str,
        after: &str,
        path: &[&str],
        removes: bool,
        known: &Value,
        vault: &Vault,
    ) -> Option<Self> {
        let texts = (before, after);
        if let [section, name, rest @ ..] = path
            && let Some(names) = region::names(before, section)
        {
            same_names(&names, known.get(section)?)?;
            let place = Touched {
                path: &[section, name],
                region: region::entry(before, section, name)?,
            };
            return place.change(texts, removes && rest.is_empty(), known, vault);
        }
        let [section, rest @ ..] = path else {
            return None;
        };
        same_names(&region::sections(before)?, known)?;
        let place = Touched {
            path: &[section],
            region: match known.get(section) {
                Some(_) => region::section(before, section)?,
                None => region::end(before),
            },
        };
        place.change(texts, removes && rest.is_empty(), known, vault)
    }

    /// Makes a value say the same; `None` when that can't be.
    fn apply(&self, says: &mut Value) -> Option<()> {
        let (last, above) = self.path.split_last()?;
        let above = above.iter();
        let map = above.fold(says.as_object_mut(), |map, name| {
            map?.get_mut(name)?.as_object_mut()
        })?;
        match &self.now {
            Some(value) => drop(map.insert(last.clone(), value.clone())),
            None => drop(map.shift_remove(last)),
        }
        Some(())
    }
}

fn same_names(names: &[&str], known: &Value) -> Option<()> {
    let known = known.as_object()?.keys().map(String::as_str);
    names.iter().copied().eq(known).then_some(())
}

/// An entry or a section whose lines may have changed, and where they stand; for
/// a new one what it stands behind.
struct Touched<'t> {
    path: &'t [&'t str],
    region: Region,
}

impl Touched<'_> {
    fn change(
        &self,
        (before, after): (&str, &str),
        removed: bool,
        known: &Value,
        vault: &Vault,
    ) -> Option<Change> {
        let (old, known) = (&self.region, at(known, self.path));
        let old_lines = old.document(before)?;
        if old_lines.contains('&') {
            return None;
        }
        if known.is_some() && at(&opened_text(&old_lines, vault).ok()?, self.path) != known {
            return None;
        }
        let rest = before.get(old.range.end..)?;
        let path = owned(self.path);
        if removed {
            let lead = before.get(..old.range.start)?;
            let same = after.strip_prefix(lead)? == rest;
            let text = after.to_owned();
            let change = Change {
                path,
                now: None,
                text,
            };
            return (same && known.is_some()).then_some(change);
        }
        // A new one stands behind the last one.
        let lead = match known {
            Some(_) => before.get(..old.range.start)?,
            None => before.get(..old.range.end)?,
        };
        let lines = after.strip_prefix(lead)?.strip_suffix(rest)?;
        let new_lines = format!("{}{lines}", old.head);
        let says = opened_text(&new_lines, vault).ok()?;
        let (last, above) = self.path.split_last()?;
        let alone = says.as_object()?.len() == 1;
        let entries = at(&says, above)?.as_object()?;
        let now = entries.get(*last).filter(|_| alone && entries.len() == 1)?;
        let sealed = seal::sealed(vault, &old_lines, &new_lines, Which::Changed).ok()?;
        let sealed = sealed.strip_prefix(&old.head)?;
        Some(Change {
            path,
            now: Some(now.clone()),
            text: format!("{lead}{sealed}{rest}"),
        })
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
    let Some(region) = region::section(text, section) else {
        return added(text, section, path, value);
    };
    let edited = edit::set(&region.document(text)?, path, value).ok()?;
    region.replaced(text, &edited)
}

/// The text with a section at its end that it doesn't have.
fn added(text: &str, section: &str, path: &[&str], value: &Value) -> Option<String> {
    let sections = region::sections(text)?;
    if sections.is_empty() || sections.contains(&section) {
        return None;
    }
    let lines = edit::set("", path, value).ok()?;
    let broken = if text.ends_with('\n') { "" } else { "\n" };
    Some(format!("{text}{broken}{lines}"))
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
