//! Where secrets stand in the file, and how they are opened when it is read
//! and sealed when it is written. What a secret is for is not known here.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::{Map, Value};

use super::draft::quick_set;
use super::edit::{self, EditError};
use super::fault::Fault;
use super::file;
use super::live::OpenError;
use super::schema::{FILE, Shape, Table};
use super::secret::is_secret_name;
use super::shape::{self, kind_fits};
use super::tree::{self, Node, Yaml};
use crate::vault::{VARIABLE, Vault};

/// Opens every sealed secret of a tree in the one spelling. What can't be
/// opened is nothing, and a fault.
pub(in crate::config) fn open(root: &mut Node, vault: &Vault) -> Vec<Fault> {
    let mut faults = Vec::new();
    secrets(root, &mut |spot, node| {
        let Yaml::Text(text) = &mut node.value else {
            return;
        };
        if !Vault::is_sealed(text) {
            return;
        }
        match vault.open(&spot.place(), text) {
            Ok(clear) => *text = clear,
            Err(error) => {
                faults.push(Fault {
                    line: node.place.line,
                    column: node.place.column,
                    ..Fault::without_place(&spot.place(), error.to_string())
                });
                // One fault is enough for it.
                node.value = Yaml::Null;
            }
        }
    });
    faults
}

/// A file on disk whose secrets are to be sealed, or sealed anew.
pub struct SealedFile {
    path: PathBuf,
    before: String,
    after: String,
    /// Secrets that are written otherwise than before.
    pub count: usize,
}

impl fmt::Debug for SealedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealedFile")
            .field("path", &self.path)
            .field("count", &self.count)
            .finish_non_exhaustive()
    }
}

impl SealedFile {
    /// Reads a file and seals the secrets that stand in it in clear.
    ///
    /// # Errors
    /// It can't be read, or a secret can't be sealed where it stands.
    pub fn encrypt(path: &Path, vault: &Vault) -> Result<Self, OpenError> {
        let before = read(path)?;
        let refused = |fault| OpenError::Refused(path.to_owned(), vec![fault]);
        let (mut root, faults) = tree::parse(&before);
        if !faults.is_empty() {
            return Err(OpenError::Refused(path.to_owned(), faults));
        }
        if !vault.has_key() {
            let message =
                "there is no key to encrypt with; set it to 64 hex digits or a passphrase";
            return Err(refused(Fault::without_place(&[VARIABLE], message)));
        }
        // What is sealed already must have been sealed with this key.
        let mut opened = shape::fold_fields(root.clone(), &FILE);
        let faults = open(&mut opened, vault);
        if !faults.is_empty() {
            return Err(OpenError::Refused(path.to_owned(), faults));
        }
        let count = in_clear(&mut root).len();
        let after = sealed(vault, &before, &before, Which::All)
            .map_err(|error| refused(Fault::without_place(&[], error.to_string())))?;
        Ok(Self {
            path: path.to_owned(),
            before,
            after,
            count,
        })
    }

    /// Reads a file and seals its sealed secrets anew.
    ///
    /// # Errors
    /// It can't be read, or a secret in it can't be opened with the old key.
    pub fn rekey(path: &Path, old: &Vault, new: &Vault) -> Result<Self, OpenError> {
        let before = read(path)?;
        let resealed = resealed(&before, old, new);
        let (after, count) =
            resealed.map_err(|faults| OpenError::Refused(path.to_owned(), faults))?;
        Ok(Self {
            path: path.to_owned(),
            before,
            after,
            count,
        })
    }

    /// Replaces the file, all at once.
    ///
    /// # Errors
    /// The disk refuses it, or the file has changed since it was read; it stays
    /// as it is.
    pub fn commit(&self) -> Result<(), OpenError> {
        if read(&self.path)? != self.before {
            let message = "the file was changed meanwhile; nothing was written";
            return Err(OpenError::Io(
                self.path.clone(),
                std::io::Error::other(message),
            ));
        }
        if self.after == self.before {
            return Ok(());
        }
        file::write(&self.path, &self.after)
            .map_err(|error| OpenError::Io(self.path.clone(), error))
    }
}

fn read(path: &Path) -> Result<String, OpenError> {
    let read = file::read(path, SystemTime::now());
    read.map(|(text, _)| text)
        .map_err(|error| OpenError::Io(path.to_owned(), error))
}

/// Which secrets are sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) enum Which {
    /// Those in entries that the text before did not say the same.
    Changed,
    /// All.
    All,
}

/// The text with its secrets sealed; as it is when there is no key. Where the
/// text before holds the same secret sealed, that is what is written, so that
/// nothing changes that says the same.
///
/// # Errors
/// A secret can't be sealed where it stands; see [`EditError::Layout`].
pub(in crate::config) fn sealed(
    vault: &Vault,
    before: &str,
    text: &str,
    which: Which,
) -> Result<String, EditError> {
    if !vault.has_key() {
        return Ok(text.to_owned());
    }
    let (mut root, faults) = tree::parse(text);
    if !faults.is_empty() {
        // The check says what is wrong with it.
        return Ok(text.to_owned());
    }
    let clear = in_clear(&mut root);
    if clear.is_empty() {
        return Ok(text.to_owned());
    }
    let plan = Plan::new(vault, before, &root, which);
    let mut all = Vec::new();
    for (spot, secret) in &clear {
        all.extend(plan.instead(spot, secret)?);
    }
    match written(text, &root, &all) {
        // One that was written by hand before can stay, if it must.
        Err(EditError::Layout(_)) if which == Which::Changed => {
            all.retain(|instead| instead.need == Need::Must);
            let outcome = written(text, &root, &all)?;
            tracing::warn!("secrets in the configuration file share an anchor and stay in clear");
            Ok(outcome)
        }
        outcome => outcome,
    }
}

/// Most secrets that are written each by the lines of its entry; for more it is
/// quicker to read the whole file once.
const FEW: usize = 16;

/// The text with sealed secrets in their places.
fn written(text: &str, root: &Node, all: &[Instead]) -> Result<String, EditError> {
    if all.is_empty() {
        return Ok(text.to_owned());
    }
    let mut wanted = root.to_json_map();
    for instead in all {
        put(&mut wanted, &instead.at, &instead.sealed);
    }
    if all.len() <= FEW {
        let quick = all.iter().try_fold(text.to_owned(), |text, instead| {
            let at: Vec<&str> = instead.at.iter().map(String::as_str).collect();
            quick_set(&text, &at, &Value::from(&*instead.sealed))
        });
        // That was a guess about the text.
        let says = |text: &String| {
            let (root, faults) = tree::parse(text);
            faults.is_empty() && root.to_json_map() == wanted
        };
        if let Some(text) = quick.filter(says) {
            return Ok(text);
        }
    }
    edit::set(text, &[], &Value::Object(wanted))
}

/// What is written instead of a secret in clear.
struct Instead {
    at: Vec<String>,
    sealed: String,
    need: Need,
}

/// The text with every sealed secret sealed anew by another vault, and how many
/// they are.
///
/// # Errors
/// What can't be read or opened, or written where it stands.
pub(in crate::config) fn resealed(
    text: &str,
    old: &Vault,
    new: &Vault,
) -> Result<(String, usize), Vec<Fault>> {
    let (mut root, mut faults) = tree::parse(text);
    let mut count = 0;
    secrets(&mut root, &mut |spot, node| {
        let Yaml::Text(text) = &mut node.value else {
            return;
        };
        if !Vault::is_sealed(text) {
            return;
        }
        let place = spot.place();
        let again = old.open(&place, text);
        match again.and_then(|clear| new.seal(&place, &clear)) {
            Ok(sealed) => {
                *text = sealed;
                count += 1;
            }
            Err(error) => faults.push(Fault {
                line: node.place.line,
                column: node.place.column,
                ..Fault::without_place(&place, error.to_string())
            }),
        }
    });
    if !faults.is_empty() {
        return Err(faults);
    }
    let outcome = edit::set(text, &[], &root.to_json());
    let outcome = outcome.map_err(|error| vec![Fault::without_place(&[], error.to_string())])?;
    Ok((outcome, count))
}

/// Whether a secret has to be sealed, or only should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    Must,
    Should,
}

/// What the text before said, for telling what is new.
struct Plan<'a> {
    vault: &'a Vault,
    which: Which,
    old_secrets: HashMap<Vec<String>, String>,
    /// Entries, and fields at the top, that did not say the same.
    changed: HashSet<Vec<String>>,
}

impl<'a> Plan<'a> {
    fn new(vault: &'a Vault, before: &str, new: &Node, which: Which) -> Self {
        let mut old = tree::parse(before).0;
        let mut old_secrets = HashMap::new();
        secrets(&mut old, &mut |spot, node| {
            if let Yaml::Text(text) = &node.value {
                old_secrets.insert(spot.names.clone(), text.clone());
            }
        });
        Self {
            vault,
            which,
            old_secrets,
            changed: changed(&old, new),
        }
    }

    /// `None` if it stays as it is.
    fn instead(&self, spot: &Spot, secret: &str) -> Result<Option<Instead>, EditError> {
        let place = spot.place();
        let instead = |sealed: String, need| Instead {
            at: spot.written.clone(),
            sealed,
            need,
        };
        let old = self.old_secrets.get(&spot.names).map(String::as_str);
        if let Some(old) = old.filter(|old| Vault::is_sealed(old))
            && self.vault.open(&place, old).as_deref() == Ok(secret)
        {
            return Ok(Some(instead(old.to_owned(), Need::Must)));
        }
        let entry = spot.written.get(..2).unwrap_or(&spot.written);
        let unchanged = old == Some(secret);
        if unchanged && self.which == Which::Changed && !self.changed.contains(entry) {
            return Ok(None);
        }
        let sealed = self.vault.seal(&place, secret);
        let sealed = sealed.map_err(|error| EditError::Sealing(error.to_string()))?;
        let need = if unchanged { Need::Should } else { Need::Must };
        Ok(Some(instead(sealed, need)))
    }
}

fn changed(old: &Node, new: &Node) -> HashSet<Vec<String>> {
    let mut changed = HashSet::new();
    for section in new.entries() {
        let before = old.get(&section.key);
        let before: HashMap<&str, &Node> = before
            .map_or(&[][..], Node::entries)
            .iter()
            .map(|entry| (entry.key.as_str(), &entry.value))
            .collect();
        for entry in section.value.entries() {
            let same = before
                .get(entry.key.as_str())
                .is_some_and(|before| before.says_the_same(&entry.value));
            if !same {
                changed.insert(vec![section.key.clone(), entry.key.clone()]);
            }
        }
        let same = old
            .get(&section.key)
            .is_some_and(|before| before.says_the_same(&section.value));
        if section.value.entries().is_empty() && !same {
            changed.insert(vec![section.key.clone()]);
        }
    }
    changed
}

/// Where a secret stands.
#[derive(Clone, Debug, Default)]
struct Spot {
    /// As the file spells it.
    written: Vec<String>,
    /// In the one spelling: what it is bound to.
    names: Vec<String>,
}

impl Spot {
    fn place(&self) -> Vec<&str> {
        self.names.iter().map(String::as_str).collect()
    }

    fn within(&mut self, written: &str, name: &str, visit: impl FnOnce(&mut Self)) {
        self.written.push(written.to_owned());
        self.names.push(name.to_owned());
        visit(self);
        self.written.pop();
        self.names.pop();
    }
}

/// Secrets that stand in clear: neither sealed, nor empty, nor a reference.
fn in_clear(root: &mut Node) -> Vec<(Spot, String)> {
    let mut found = Vec::new();
    secrets(root, &mut |spot, node| {
        if let Yaml::Text(text) = &node.value
            && !text.is_empty()
            && !Vault::is_sealed(text)
            && !is_reference(text)
        {
            found.push((spot.clone(), text.clone()));
        }
    });
    found
}

/// Whether a text is nothing but references to the environment, perhaps after
/// the word for a kind of credential: `Bearer $env:TOKEN`.
fn is_reference(text: &str) -> bool {
    let rest = ["Bearer ", "Basic ", "Token "]
        .iter()
        .find_map(|word| text.strip_prefix(word))
        .unwrap_or(text);
    rest.strip_prefix("$env:").is_some_and(|name| {
        name.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    })
}

/// Shows every value that is a secret by the schema.
fn secrets(root: &mut Node, see: &mut dyn FnMut(&Spot, &mut Node)) {
    fields(root, &FILE, &mut Spot::default(), see);
}

fn fields(
    node: &mut Node,
    table: &'static Table,
    spot: &mut Spot,
    see: &mut dyn FnMut(&Spot, &mut Node),
) {
    let Yaml::Map(entries) = &mut node.value else {
        return;
    };
    for entry in entries {
        if let Some(field) = table.field(&entry.key) {
            spot.within(&entry.key, field.name, |spot| {
                value(&mut entry.value, &field.shape, spot, see);
            });
        }
    }
}

fn value(
    node: &mut Node,
    shape: &'static Shape,
    spot: &mut Spot,
    see: &mut dyn FnMut(&Spot, &mut Node),
) {
    match shape {
        Shape::Secret => see(spot, node),
        Shape::Options => options(node, spot, see),
        Shape::Nullable(inner) => value(node, inner, spot, see),
        Shape::Fields(table) => fields(node, table, spot, see),
        Shape::Either(shapes) => {
            if let Some(shape) = shapes.iter().find(|shape| kind_fits(shape, node)) {
                value(node, shape, spot, see);
            }
        }
        Shape::Tagged(tag, variants) => {
            let word = node.get(tag).and_then(Node::text).unwrap_or_default();
            if let Some((_, table)) = variants.iter().find(|(name, _)| *name == word) {
                fields(node, table, spot, see);
            }
        }
        Shape::Map(inner) => {
            if let Yaml::Map(entries) = &mut node.value {
                for entry in entries {
                    spot.within(&entry.key, &entry.key, |spot| {
                        value(&mut entry.value, inner, spot, see);
                    });
                }
            }
        }
        Shape::List(inner) => {
            if let Yaml::List(items) = &mut node.value {
                for (i, item) in items.iter_mut().enumerate() {
                    let number = i.to_string();
                    spot.within(&number, &number, |spot| value(item, inner, spot, see));
                }
            }
        }
        _ => {}
    }
}

/// In free options a secret is what is called one.
fn options(node: &mut Node, spot: &mut Spot, see: &mut dyn FnMut(&Spot, &mut Node)) {
    let Yaml::Map(entries) = &mut node.value else {
        return;
    };
    for entry in entries {
        spot.within(&entry.key, &entry.key, |spot| match entry.value.value {
            Yaml::Text(_) if is_secret_name(&entry.key) => see(spot, &mut entry.value),
            _ => options(&mut entry.value, spot, see),
        });
    }
}

fn put(map: &mut Map<String, Value>, path: &[String], text: &str) {
    let Some((first, rest)) = path.split_first() else {
        return;
    };
    let mut at = map.get_mut(first);
    for name in rest {
        at = match at {
            Some(Value::Object(map)) => map.get_mut(name),
            Some(Value::Array(items)) => name.parse().ok().and_then(|i: usize| items.get_mut(i)),
            _ => None,
        };
    }
    if let Some(found) = at {
        *found = text.into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    const FILE: &str = "\
adminKey: admin-secret   # mine
providers:
  openai:
    api_base_url: https://api.openai.com/v1
    api_key: sk-openai   # from the web
    headers: { X-Team: 'red', Authorization: $env:AUTH }
  other: { api_base_url: https://other/v1, api_key: $env:OTHER }
keys:
  app: { secret: sk-app, comment: enc:v1:not-a-secret }
mcpServers:
  tavily: { upstream_url: https://mcp/mcp, headers: { Authorization: 'Bearer $env:TAVILY', X-Key: k } }
";

    fn opened(text: &str, vault: &Vault) -> Value {
        let mut root = shape::fold_fields(tree::parse(text).0, &super::FILE);
        assert_eq!(open(&mut root, vault), vec![]);
        root.to_json()
    }

    fn all(text: &str, vault: &Vault) -> String {
        sealed(vault, text, text, Which::All).unwrap()
    }

    #[test]
    fn all_secrets_are_sealed_in_place_and_references_and_comments_stay() {
        let vault = Vault::new(KEY);
        let text = all(FILE, &vault);
        for secret in ["admin-secret", "sk-openai", "sk-app", "red", "X-Key: k"] {
            assert!(!text.contains(secret), "{secret} in\n{text}");
        }
        for kept in [
            "# mine",
            "# from the web",
            "Authorization: $env:AUTH",
            "api_key: $env:OTHER",
            "'Bearer $env:TAVILY'",
            "comment: enc:v1:not-a-secret",
        ] {
            assert!(text.contains(kept), "{kept} not in\n{text}");
        }
        assert_eq!(text.matches(": enc:v1:").count(), 6, "{text}");
        assert_eq!(opened(&text, &vault), opened(FILE, &vault));
        assert_eq!(all(&text, &vault), text);
    }

    #[test]
    fn a_write_seals_the_entry_it_changes_and_leaves_the_others() {
        let vault = Vault::new(KEY);
        let changed = edit::set(FILE, &["providers", "openai", "enabled"], &json!(false)).unwrap();
        let text = sealed(&vault, FILE, &changed, Which::Changed).unwrap();
        assert!(!text.contains("sk-openai"));
        assert!(text.contains("secret: sk-app") && text.contains("adminKey: admin-secret"));
        // Saying in clear what is sealed already changes nothing.
        let in_clear = edit::set(
            &text,
            &["providers", "openai", "api_key"],
            &json!("sk-openai"),
        );
        let again = sealed(&vault, &text, &in_clear.unwrap(), Which::Changed).unwrap();
        assert_eq!(again, text);
    }

    #[test]
    fn without_a_key_nothing_is_sealed_and_what_is_sealed_is_refused_by_place() {
        let none = Vault::default();
        assert_eq!(all(FILE, &none), FILE);
        let text = all(FILE, &Vault::new(KEY));
        let refused = |vault: &Vault| open(&mut tree::parse(&text).0, vault);
        let faults = refused(&none);
        assert_eq!(faults.len(), 5);
        assert_eq!((faults[0].line, &*faults[0].path[0]), (1, "adminKey"));
        assert!(
            faults[0].message.contains("ENCRYPTION_KEY"),
            "{}",
            faults[0]
        );
        let faults = refused(&Vault::new("ff".repeat(32).as_str()));
        assert!(faults[0].message.contains("another key"), "{}", faults[0]);
    }

    #[test]
    fn a_new_key_seals_what_was_sealed_and_nothing_else() {
        let (old, new) = (Vault::new(KEY), Vault::new(&"ee".repeat(32)));
        let changed = edit::set(FILE, &["keys", "app", "comment"], &json!("c")).unwrap();
        let text = sealed(&old, FILE, &changed, Which::Changed).unwrap();
        let (rekeyed, count) = resealed(&text, &old, &new).unwrap();
        assert_eq!(count, 1);
        assert_eq!(opened(&rekeyed, &new), opened(&text, &old));
        assert!(rekeyed.contains("api_key: sk-openai"));
        let faults = resealed(&rekeyed, &old, &new).unwrap_err();
        assert!(faults[0].message.contains("another key"));
    }

    #[test]
    fn an_anchor_that_is_shared_does_not_stop_a_write_elsewhere_in_the_entry() {
        let vault = Vault::new(KEY);
        let before = "a: &x\n".replace("a: &x\n", "providers:\n  a: { api_base_url: https://a, headers: &h { X-Key: k } }\n  b: { api_base_url: https://b, headers: *h }\n");
        let after = edit::set(&before, &["providers", "b", "enabled"], &json!(false)).unwrap();
        let text = sealed(&vault, &before, &after, Which::Changed).unwrap();
        assert_eq!(opened(&text, &vault), opened(&after, &vault));
    }

    proptest! {
        #[test]
        fn sealing_and_opening_is_an_identity(names in proptest::collection::hash_set("[ -~é]{1,8}", 1..5), secret in "[ -~é]{1,30}") {
            let vault = Vault::new(KEY);
            let mut keys = Map::new();
            for name in names {
                keys.insert(name, json!({"secret": secret}));
            }
            let text = edit::render(&json!({"keys": keys}));
            prop_assume!(!Vault::is_sealed(&secret));
            let sealed = all(&text, &vault);
            let in_clear = ["secret: ", &secret, "\n"].concat();
            prop_assert!(is_reference(&secret) || !sealed.contains(&in_clear));
            prop_assert_eq!(opened(&sealed, &vault), opened(&text, &vault));
        }
    }
}
