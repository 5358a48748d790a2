//! From text to meaning: the only way to a [`Config`], and it says everything
//! that is wrong at once.
//!
//! Each section is read by its own file; this one holds what they share and
//! puts the parts together.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use http::header::{HeaderName, HeaderValue};
use indexmap::IndexMap;
use serde_json::{Map, Value};

use super::alias::Aliases;
use super::fault::{self, Fault, Place, suggestion};
use super::fold;
use super::key::Keys;
use super::live::{OpenError, folder};
use super::provider::Providers;
use super::quota::Quotas;
use super::reference::{self, Environment};
use super::schema;
use super::seal;
use super::shape;
use super::tree::{self, Node, Yaml};
use super::{Config, Secret, alias, key, provider, quota, settings};
use crate::vault::Vault;

/// Checks a configuration. `environment` reads variables, for `$env:NAME` and
/// for those that override the file; relative paths are taken from `base`.
///
/// # Errors
/// Everything that is wrong, sorted by place.
pub fn check(
    text: &str,
    environment: &dyn Fn(&str) -> Option<String>,
    base: &Path,
) -> Result<Config, Vec<Fault>> {
    check_with(
        &Vault::from_environment(environment),
        text,
        environment,
        base,
    )
}

/// As [`check`], with a vault at hand that opens what is sealed.
pub(in crate::config) fn check_with(
    vault: &Vault,
    text: &str,
    environment: Environment<'_>,
    base: &Path,
) -> Result<Config, Vec<Fault>> {
    let Tree {
        mut root,
        mut faults,
        asked,
    } = read(text)?;
    faults.extend(seal::open(&mut root, vault));
    let mut check = Check::new(environment, base, faults, asked);
    let config = build(&mut check, &root);
    check.settled(config, || Arc::new(root.into_json()))
}

/// As [`check`], of a document that a text is known to say, its secrets opened.
/// Faults have no places.
pub(in crate::config) fn check_document(
    document: Arc<Value>,
    environment: Environment<'_>,
    base: &Path,
) -> Result<Config, Vec<Fault>> {
    let nothing = Map::new();
    let root = Node::from_json_map(document.as_object().unwrap_or(&nothing));
    let found = shape::examine(&root, &schema::FILE);
    let mut check = Check::new(environment, base, found.faults, found.asked);
    let config = build(&mut check, &root);
    check.settled(config, || document)
}

/// What a text says, as JSON in file order with all spellings folded, `$env:`
/// references and sealed secrets as they are: [`Config::document`] of a text whose
/// references and sense nobody has checked.
///
/// # Errors
/// What is not YAML, and what the schema doesn't know.
pub fn document(text: &str) -> Result<Value, Vec<Fault>> {
    let Tree { root, faults, .. } = read(text)?;
    if faults.is_empty() {
        Ok(root.into_json())
    } else {
        Err(fault::settle(faults))
    }
}

/// A document from elsewhere, without what is not known here; and the paths of
/// that.
#[must_use]
pub fn adopted(document: &Value) -> (Value, Vec<Vec<String>>) {
    let mut root = Node::from_json_map(&document.as_object().cloned().unwrap_or_default());
    let unknown = shape::prune(&mut root, &schema::FILE);
    let (root, _) = fold::canonical(root);
    (root.to_json(), unknown)
}

/// What a file says, its secrets opened and all spellings folded into one;
/// references, and what it means, are not looked at.
///
/// # Errors
/// The file can't be read, or its secrets can't be opened.
pub fn opened(file: &Path, vault: &Vault) -> Result<Value, OpenError> {
    let read_file = super::file::read(file, SystemTime::now());
    let (text, _) = read_file.map_err(|error| OpenError::Io(file.to_owned(), error))?;
    opened_text(&text, vault).map_err(|faults| OpenError::Refused(file.to_owned(), faults))
}

/// As [`document`], with its secrets opened.
pub(in crate::config) fn opened_text(text: &str, vault: &Vault) -> Result<Value, Vec<Fault>> {
    let Tree {
        mut root,
        mut faults,
        ..
    } = read(text)?;
    faults.extend(seal::open(&mut root, vault));
    if faults.is_empty() {
        Ok(root.to_json())
    } else {
        Err(fault::settle(faults))
    }
}

/// Where the database of a configuration file is, whatever else the file says
/// and whether or not its secrets can be read.
///
/// # Errors
/// The file can't be read, or says wrongly where the database is.
pub fn store_path(
    file: &Path,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<PathBuf, OpenError> {
    let read_file = super::file::read(file, SystemTime::now());
    let (text, _) = read_file.map_err(|error| OpenError::Io(file.to_owned(), error))?;
    let refused = |faults| OpenError::Refused(file.to_owned(), faults);
    let Tree { root, .. } = read(&text).map_err(refused)?;
    let mut check = Check::new(environment, folder(file), Vec::new(), Vec::new());
    let store = settings::store(&mut check, &root);
    if check.faults.is_empty() {
        Ok(store.path)
    } else {
        Err(refused(check.faults))
    }
}

struct Tree {
    /// In the one spelling.
    root: Node,
    faults: Vec<Fault>,
    asked: Vec<Asked>,
}

fn read(text: &str) -> Result<Tree, Vec<Fault>> {
    let (root, mut faults) = tree::parse(text);
    if !faults.is_empty() && root.entries().is_empty() {
        return Err(faults);
    }
    if !matches!(root.value, Yaml::Map(_)) {
        let message = "the file is not a map; sections like \"providers:\" are wanted";
        faults.push(Fault {
            line: root.place.line,
            column: root.place.column,
            ..Fault::without_place(&[], message)
        });
        return Err(faults);
    }
    let found = shape::examine(&root, &schema::FILE);
    faults.extend(found.faults);
    let (root, twice) = fold::canonical(root);
    faults.extend(twice);
    let asked = found.asked;
    Ok(Tree {
        root,
        faults,
        asked,
    })
}

/// What a path asks for that does not work yet.
pub(in crate::config) type Asked = (&'static str, Vec<String>);

/// The sections that others refer to by name.
pub(in crate::config) struct Named {
    pub(in crate::config) user_quotas: Quotas,
    pub(in crate::config) providers: Providers,
    pub(in crate::config) aliases: Aliases,
    pub(in crate::config) keys: Keys,
}

/// All but the document. `None` only when a fault was noted that leaves nothing
/// to build with.
fn build(check: &mut Check<'_>, root: &Node) -> Option<Config> {
    let user_quotas = quota::read(check, root);
    let providers = provider::read(check, root);
    let aliases = alias::read(check, root, &providers);
    let keys = key::read(check, root, &user_quotas);
    let named = Named {
        user_quotas,
        providers,
        aliases,
        keys,
    };
    assembled(check, root, named)
}

/// As [`build`], with these sections read already.
pub(in crate::config) fn assembled(
    check: &mut Check<'_>,
    root: &Node,
    named: Named,
) -> Option<Config> {
    let admin_key = settings::admin_key(check, root);
    settings::mcp_servers(check, root);
    Some(Config {
        revision: 1,
        server: settings::server(check, root),
        store: settings::store(check, root),
        catalogue: settings::catalogue(check, root),
        logging: settings::logging(check, root),
        failover: settings::failover(root),
        attempt_timeout: settings::attempt_timeout(root),
        default_quotas: quota::defaults(check, root, &named.user_quotas),
        cooldown: settings::cooldown(check, root),
        exploration: settings::exploration(root),
        vision: settings::vision(root),
        strict: root.get("strict").and_then(Node::flag).unwrap_or(false),
        capture_on_error: { root.get("captureTraceOnError") }
            .and_then(Node::flag)
            .unwrap_or(false),
        document: Arc::default(),
        warnings: Vec::new(),
        asked: Vec::new(),
        admin_key: admin_key?,
        providers: named.providers,
        aliases: named.aliases.by_id,
        keys: named.keys.by_name,
        user_quotas: named.user_quotas,
        alias_by_name: named.aliases.by_name,
        key_by_digest: named.keys.by_digest,
    })
}

/// One line for each thing asked for that does not work yet.
fn warnings(asked: &[Asked]) -> Vec<String> {
    let mut places: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (feature, path) in asked {
        places.entry(feature).or_default().push(path.join("."));
    }
    let line = |(feature, mut paths): (&str, Vec<String>)| {
        paths.sort_unstable();
        let shown = paths.iter().take(3).map(String::as_str);
        let shown = shown.collect::<Vec<_>>().join(", ");
        match paths.len().saturating_sub(3) {
            0 => format!("{feature}: not in effect yet ({shown})"),
            more => format!("{feature}: not in effect yet ({shown} and {more} more)"),
        }
    };
    places.into_iter().map(line).collect()
}

/// What all sections share while they are read.
pub(in crate::config) struct Check<'a> {
    pub(in crate::config) environment: Environment<'a>,
    pub(in crate::config) base: &'a Path,
    pub(in crate::config) faults: Vec<Fault>,
    pub(in crate::config) asked: Vec<Asked>,
    path: Vec<String>,
}

impl<'a> Check<'a> {
    pub(in crate::config) fn new(
        environment: Environment<'a>,
        base: &'a Path,
        faults: Vec<Fault>,
        asked: Vec<Asked>,
    ) -> Self {
        Self {
            environment,
            base,
            faults,
            asked,
            path: Vec::new(),
        }
    }

    /// The configuration with its document, if nothing is wrong.
    pub(in crate::config) fn settled(
        self,
        config: Option<Config>,
        document: impl FnOnce() -> Arc<Value>,
    ) -> Result<Config, Vec<Fault>> {
        match config {
            Some(config) if self.faults.is_empty() => Ok(Config {
                document: document(),
                warnings: warnings(&self.asked),
                asked: self.asked,
                ..config
            }),
            _ => Err(fault::settle(self.faults)),
        }
    }
}

impl Check<'_> {
    /// Reads something below `segment`.
    pub(in crate::config) fn within<T>(
        &mut self,
        segment: &str,
        read: impl FnOnce(&mut Self) -> T,
    ) -> T {
        self.path.push(segment.to_owned());
        let result = read(self);
        self.path.pop();
        result
    }

    /// Notes a fault at the current path.
    pub(in crate::config) fn fault(&mut self, at: Place, message: impl Into<String>) {
        self.faults.push(Fault {
            path: self.path.clone(),
            line: at.line,
            column: at.column,
            message: message.into(),
        });
    }

    /// Notes that the current path asks for what does not work yet.
    pub(in crate::config) fn asks(&mut self, feature: &'static str) {
        self.asked.push((feature, self.path.clone()));
    }

    /// A variable of the environment that isn't blank.
    pub(in crate::config) fn variable(&self, name: &str) -> Option<String> {
        (self.environment)(name).filter(|value| !value.trim().is_empty())
    }

    /// Notes that a variable of the environment is wrong.
    pub(in crate::config) fn variable_fault(&mut self, name: &str, message: &str) {
        let message = format!("the environment variable {message}");
        self.faults.push(Fault::without_place(&[name], message));
    }

    /// Text with its references expanded; a fault where that can't be.
    pub(in crate::config) fn expand(&mut self, node: &Node) -> Option<String> {
        match reference::expand(node.text()?, self.environment) {
            Ok(text) => Some(text),
            Err(message) => {
                self.fault(node.place, message);
                None
            }
        }
    }

    /// A secret that may be left empty, which is none.
    pub(in crate::config) fn secret(&mut self, node: &Node) -> Option<Secret> {
        self.expand(node)
            .filter(|text| !text.is_empty())
            .map(Secret::new)
    }

    /// A map of headers, values expanded and marked sensitive.
    pub(in crate::config) fn headers(&mut self, node: &Node) -> Vec<(HeaderName, HeaderValue)> {
        let mut headers = Vec::new();
        for entry in node.entries() {
            self.within(&entry.key, |check| {
                let name = header_name(&entry.key);
                if let Err(message) = &name {
                    check.fault(entry.place, *message);
                }
                let value = check.expand(&entry.value).map(|text| header_value(&text));
                if let Some(Err(message)) = &value {
                    check.fault(entry.value.place, *message);
                }
                if let (Ok(name), Some(Ok(value))) = (name, value) {
                    headers.push((name, value));
                }
            });
        }
        headers
    }

    /// Checks the references in every text below a node.
    pub(in crate::config) fn references(&mut self, node: &Node) {
        match &node.value {
            Yaml::Text(text) if text.contains("$env:") => {
                self.expand(node);
            }
            Yaml::List(items) => {
                for (i, item) in items.iter().enumerate() {
                    self.within(&i.to_string(), |check| check.references(item));
                }
            }
            Yaml::Map(entries) => {
                for entry in entries {
                    self.within(&entry.key, |check| check.references(&entry.value));
                }
            }
            _ => {}
        }
    }

    /// A list of names that must be known.
    pub(in crate::config) fn names<T>(
        &mut self,
        node: &Node,
        field: &str,
        what: &str,
        known: &IndexMap<Arc<str>, T>,
    ) -> Vec<String> {
        let names = texts(node.get(field));
        self.within(field, |check| {
            for (i, item) in node
                .get(field)
                .map_or(&[][..], Node::items)
                .iter()
                .enumerate()
            {
                let Some(name) = item
                    .text()
                    .map(str::trim)
                    .filter(|n| !known.contains_key(*n))
                else {
                    continue;
                };
                let hint = suggestion(name, known.keys().map(AsRef::as_ref));
                let message = format!("there is no {what} called \"{name}\"{hint}");
                check.within(&i.to_string(), |check| check.fault(item.place, message));
            }
        });
        names
    }
}

/// The texts of a list, trimmed.
pub(in crate::config) fn texts(node: Option<&Node>) -> Vec<String> {
    let items = node.map_or(&[][..], Node::items).iter();
    items
        .filter_map(|item| item.text().map(|text| text.trim().to_owned()))
        .collect()
}

/// A number of something small, as the type at hand.
pub(in crate::config) fn count<T: TryFrom<u64>>(node: &Node, field: &str) -> Option<T> {
    node.get(field)?.whole()?.try_into().ok()
}

/// A name that appears in paths and headers: `^[a-z0-9][a-z0-9-_]{1,62}$`.
pub(in crate::config) fn is_slug(name: &str) -> bool {
    let first = name
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let rest = name
        .bytes()
        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'));
    first && rest && (2..=63).contains(&name.len())
}

/// Names of what was already there, for finding it twice.
pub(in crate::config) type Seen<T> = HashMap<T, String>;

fn header_name(name: &str) -> Result<HeaderName, &'static str> {
    let name = HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| "this is not the name of a header; letters, digits and - are wanted")?;
    let framing = [
        "content-length",
        "transfer-encoding",
        "connection",
        "upgrade",
    ];
    if framing.contains(&name.as_str()) {
        return Err("this header belongs to the connection and can't be set");
    }
    Ok(name)
}

fn header_value(text: &str) -> Result<HeaderValue, &'static str> {
    let wanted = "this value can't be sent in a header; it has a control character";
    let mut value = HeaderValue::from_str(text).map_err(|_| wanted)?;
    value.set_sensitive(true);
    Ok(value)
}
