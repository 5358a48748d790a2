//! The check of a change that touched little: providers, aliases and keys that it
//! didn't touch are taken over from the configuration that it was made to, which has
//! thousands of them. Where that could tell otherwise than the whole check, it
//! leaves it to that.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::alias::{self, Aliases};
use super::check::{self, Asked, Check, Named, Seen};
use super::key::{self, Keys};
use super::reference::Environment;
use super::schema;
use super::shape;
use super::tree::Node;
use super::{Config, provider, quota};

/// Settings that go for every provider that doesn't say otherwise.
const PROVIDERS_GO_BY: [&str; 2] = ["/stall", "/timeout/connectSeconds"];

/// What was touched.
#[derive(Default)]
struct Touched<'t> {
    keys: HashSet<&'t str>,
    aliases: HashSet<&'t str>,
    providers: HashSet<&'t str>,
    /// Anything else.
    settings: bool,
    /// Of that what every provider goes by.
    everywhere: bool,
}

impl<'t> Touched<'t> {
    /// `None` when a section of many entries was touched as a whole.
    fn of(paths: &[&'t [String]], before: &Value, now: &Value) -> Option<Self> {
        let mut touched = Self::default();
        for path in paths {
            let (section, rest) = path.split_first()?;
            let names = match section.as_str() {
                "keys" => &mut touched.keys,
                "models" => &mut touched.aliases,
                "providers" => &mut touched.providers,
                _ => {
                    touched.settings = true;
                    continue;
                }
            };
            names.insert(rest.first()?);
        }
        let differs = |pointer: &&str| before.pointer(pointer) != now.pointer(pointer);
        touched.everywhere = PROVIDERS_GO_BY.iter().any(differs);
        Some(touched)
    }

    /// The entries of a section that have to be read; `None` for all of it.
    fn of_section(&self, section: &str) -> Option<&HashSet<&'t str>> {
        match section {
            "keys" => Some(&self.keys),
            "models" => Some(&self.aliases),
            "providers" if !self.everywhere => Some(&self.providers),
            _ => None,
        }
    }

    /// Whether anything but keys and aliases has to be read.
    fn more(&self) -> bool {
        self.settings || !self.providers.is_empty()
    }

    /// The part of a document that has to be read.
    fn part(&self, document: &Value) -> Node {
        let mut part = Map::new();
        for (section, value) in document.as_object().into_iter().flatten() {
            match self.of_section(section) {
                Some(names) => {
                    let entries = names.iter().filter_map(|name| {
                        let entry = value.get(name)?;
                        Some(((*name).to_owned(), entry.clone()))
                    });
                    part.insert(section.clone(), Value::Object(entries.collect()));
                }
                None if self.more() => drop(part.insert(section.clone(), value.clone())),
                None => {}
            }
        }
        Node::from_json_map(&part)
    }

    /// What was asked for before by what is not read again.
    fn still_asked(&self, before: &Config) -> Vec<Asked> {
        let stays = |(_, path): &&Asked| {
            let names = path.first().and_then(|section| self.of_section(section));
            match (names, path.get(1)) {
                (Some(names), Some(name)) => !names.contains(name.as_str()),
                _ => !self.more(),
            }
        };
        before.asked.iter().filter(stays).cloned().collect()
    }

    /// The quota checkers of providers that are not read again, and whose.
    fn checkers(&self, document: &Value) -> Seen<String> {
        let providers = document.get("providers").and_then(Value::as_object);
        let others = providers.into_iter().flatten();
        let others = others.filter(|(name, _)| !self.providers.contains(name.as_str()));
        let checkers = others.filter_map(|(name, provider)| {
            let checker = provider.get("quota_checker")?.as_object()?;
            let id = checker.get("id").and_then(Value::as_str);
            Some((id.unwrap_or(name).to_owned(), name.clone()))
        });
        checkers.collect()
    }
}

/// As [`check::check_document`], for a document that differs from that of
/// `before` at and below these paths only. `None` when it isn't sure; so
/// whenever something is wrong.
pub(in crate::config) fn recheck(
    before: &Config,
    document: &Arc<Value>,
    paths: &[&[String]],
    environment: Environment<'_>,
    base: &Path,
) -> Option<Config> {
    let touched = Touched::of(paths, &before.document, document)?;
    let root = touched.part(document);
    let found = shape::examine(&root, &schema::FILE);
    let mut asked = touched.still_asked(before);
    asked.extend(found.asked);
    let mut check = Check::new(environment, base, found.faults, asked);
    let config = build(&mut check, &root, before, (&touched, document))?;
    let in_order = |section: &str, names: &mut dyn Iterator<Item = &str>| {
        let known = document.get(section).and_then(Value::as_object);
        known
            .into_iter()
            .flat_map(Map::keys)
            .map(String::as_str)
            .eq(names)
    };
    let keys = in_order("keys", &mut config.keys.keys().map(AsRef::as_ref));
    let aliases = in_order("models", &mut config.aliases.keys().map(AsRef::as_ref));
    if !keys || !aliases {
        return None;
    }
    check.settled(Some(config), || Arc::clone(document)).ok()
}

fn build(
    check: &mut Check<'_>,
    root: &Node,
    before: &Config,
    (touched, document): (&Touched<'_>, &Value),
) -> Option<Config> {
    let names =
        |names: &HashSet<&str>| -> Vec<String> { names.iter().map(ToString::to_string).collect() };
    let user_quotas = match touched.more() {
        true => quota::read(check, root),
        false => before.user_quotas.clone(),
    };
    let providers = if touched.everywhere {
        provider::read(check, root)
    } else if touched.providers.is_empty() {
        before.providers.clone()
    } else {
        let checkers = touched.checkers(document);
        let touched = names(&touched.providers);
        provider::reread(check, root, before.providers.clone(), &touched, checkers)
    };
    // Keys that are not read again may name them.
    let gone = |name: &Arc<str>| !user_quotas.contains_key(name);
    if before.user_quotas.keys().any(gone) {
        return None;
    }
    let aliases = Aliases {
        by_id: before.aliases.clone(),
        by_name: before.alias_by_name.clone(),
    };
    let aliases = alias::reread(check, root, &providers, aliases, &names(&touched.aliases))?;
    if touched.more() && !alias::fit(&aliases, &providers) {
        return None;
    }
    let keys = Keys {
        by_name: before.keys.clone(),
        by_digest: before.key_by_digest.clone(),
    };
    let keys = key::reread(check, root, &user_quotas, keys, &names(&touched.keys))?;
    let named = Named {
        user_quotas,
        providers,
        aliases,
        keys,
    };
    if touched.more() {
        return check::assembled(check, root, named);
    }
    Some(before.with(named))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde_json::json;

    use super::super::check::{check_document, document};
    use super::*;

    const FILE: &str = "\
adminKey: a
providers:
  p: { api_base_url: 'http://p/v1', api_key: k, models: [m, n] }
  q: { api_base_url: 'http://q/v1', api_key: k }
  r: { api_base_url: 'http://r/v1', api_key: k, compaction: { enabled: true }, quota_checker: { type: naga } }
models:
  a: { additional_aliases: [b], targets: [{ provider: p, model: m }] }
  c: { targets: [{ provider: q, model: x }] }
  d: { targets: [{ alias: c }] }
  e: { targets: [{ provider: p, model: n }], compaction: { enabled: true } }
keys:
  one: { secret: s1, quotas: [daily] }
  two: { secret: s2 }
user_quotas:
  daily: { type: daily, limitType: requests, limit: 5 }
timeout: { defaultSeconds: 100, connectSeconds: 7 }
default_quotas: [daily]
";

    fn nothing(_: &str) -> Option<String> {
        None
    }

    /// All that a configuration says, maps without order in one.
    fn told(config: &Config) -> Vec<String> {
        let names: BTreeMap<_, _> = config.alias_by_name.iter().collect();
        let digests: BTreeMap<_, _> = config.key_by_digest.iter().collect();
        vec![
            format!("{:?}", config.providers),
            format!("{:?}", config.aliases),
            format!("{:?}", config.keys),
            format!("{:?} {:?}", config.user_quotas, config.default_quotas),
            format!("{names:?} {digests:?}"),
            format!("{:?} {:?}", config.server, config.attempt_timeout),
            format!("{:?} {}", config.warnings, config.document),
        ]
    }

    /// What comes of putting a value there, by both ways.
    fn both(path: &[&str], value: &Value) -> (Option<Config>, Result<Config, usize>) {
        let before = Config::from_yaml(FILE).unwrap();
        let mut text = document(FILE).unwrap();
        let (last, above) = path.split_last().unwrap();
        let map = above.iter().fold(&mut text, |map, name| &mut map[*name]);
        let map = map.as_object_mut().unwrap();
        match value {
            Value::Null => drop(map.shift_remove(*last)),
            value => drop(map.insert((*last).to_owned(), value.clone())),
        }
        let text = Arc::new(text);
        let path: Vec<String> = path.iter().map(ToString::to_string).collect();
        let base = Path::new(".");
        let quick = recheck(&before, &text, &[&path], &nothing, base);
        let whole = check_document(text, &nothing, base);
        (quick, whole.map_err(|faults| faults.len()))
    }

    #[test]
    fn what_is_sure_is_what_the_whole_check_says() {
        let model = |model: &str| json!({ "target_groups": [{ "name": "g", "targets": [{ "provider": "p", "model": model }] }] });
        for (path, value) in [
            (
                &["keys", "two"][..],
                json!({ "secret": "s3", "comment": "c" }),
            ),
            (
                &["keys", "three"],
                json!({ "secret": "s3", "quotas": ["daily"] }),
            ),
            (&["keys", "one"], Value::Null),
            (&["keys", "one", "secret"], json!("s4")),
            (&["models", "a"], model("n")),
            (&["models", "new"], model("m")),
            (&["models", "e"], Value::Null),
            (&["models", "a", "additional_aliases"], json!(["f", "g"])),
            (&["providers", "p", "timeoutMs"], json!(9)),
            (&["providers", "r"], Value::Null),
            (
                &["providers", "s"],
                json!({ "api_base_url": "http://s", "api_key": "k", "quota_checker": { "type": "naga" } }),
            ),
            (&["timeout"], json!({ "defaultSeconds": 5 })),
            (
                &["timeout"],
                json!({ "defaultSeconds": 5, "connectSeconds": 7 }),
            ),
            (
                &["stall"],
                json!({ "ttfbSeconds": 9, "minBytesPerSecond": 60 }),
            ),
            (&["cooldown"], json!({ "initialMinutes": 1 })),
            (&["user_quotas", "daily", "limit"], json!(6)),
            (
                &["user_quotas", "weekly"],
                json!({ "type": "weekly", "limitType": "cost", "limit": 1 }),
            ),
            (&["server"], json!({ "port": 5 })),
            (&["default_quotas"], Value::Null),
        ] {
            let (quick, whole) = both(path, &value);
            assert_eq!(told(&quick.unwrap()), told(&whole.unwrap()), "{path:?}");
        }
    }

    #[test]
    fn what_could_be_otherwise_is_left_to_the_whole_check() {
        let model = |name: &str| json!({ "provider": "p", "model": name });
        let alias =
            |targets: Value| json!({ "target_groups": [{ "name": "g", "targets": targets }] });
        for (path, value) in [
            (&["keys", "two", "secret"][..], json!("s1")),
            (&["keys", "two", "quotas"], json!(["none"])),
            (&["keys", "a*"], json!({ "secret": "s9" })),
            (&["keys", "two", "sekret"], json!("s9")),
            (&["keys"], json!({})),
            (&["models", "c"], alias(json!([model("m")]))),
            (&["models", "c"], Value::Null),
            (&["models", "a"], alias(json!([{ "alias": "e" }]))),
            (&["models", "a"], alias(json!([model("gone")]))),
            (&["models", "b"], alias(json!([model("m")]))),
            (&["models", "e", "additional_aliases"], json!(["b"])),
            (&["models", "e", "additional_aliases"], json!(["x", "x"])),
            (&["providers", "p", "models"], json!(["m"])),
            (&["providers", "q"], Value::Null),
            (&["providers", "q", "api_key"], Value::Null),
            (
                &["providers", "q", "quota_checker"],
                json!({ "type": "naga", "id": "r" }),
            ),
            (&["providers"], json!({})),
            (&["user_quotas", "daily"], Value::Null),
            (&["timeout"], json!({ "defaultSeconds": "x" })),
            (&["nonsense"], json!(1)),
        ] {
            assert!(both(path, &value).0.is_none(), "{path:?} {value}");
        }
    }

    proptest! {
        #[test]
        fn no_change_is_taken_otherwise(
            section in prop::sample::select(vec!["keys", "models", "providers", "user_quotas"]),
            name in prop::sample::select(vec!["a", "b", "c", "one", "two", "p", "q", "daily", "new"]),
            field in prop::sample::select(vec!["secret", "quotas", "targets", "additional_aliases", "models", "limit", "compaction"]),
            value in prop::sample::select(vec![json!("s1"), json!("b"), json!(["a"]), json!(["daily"]), json!(["m"]), json!(3), json!({}), Value::Null]),
            deep in any::<bool>(),
        ) {
            let known = document(FILE).unwrap()[section].get(name).is_some();
            let path = if deep && known { vec![section, name, field] } else { vec![section, name] };
            let (quick, whole) = both(&path, &value);
            if let Some(quick) = quick {
                prop_assert_eq!(told(&quick), told(&whole.unwrap()));
            }
        }
    }
}
