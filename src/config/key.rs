//! The clients' credentials: `keys:`.

use std::collections::HashMap;
use std::sync::Arc;

use indexmap::IndexMap;
use jiff::Timestamp;
use ring::digest;

use super::check::{Check, Seen, count, texts};
use super::quota::Quotas;
use super::settings::{flag, networks};
use super::tree::{Entry, Node};
use super::{Key, Secret};
use crate::protocol::translate::ChatReasoning;

/// Keys by name, in file order.
/// Keys by name, in file order, and by what clients present.
#[derive(Debug, Clone)]
pub(in crate::config) struct Keys {
    pub(in crate::config) by_name: IndexMap<Arc<str>, Arc<Key>>,
    pub(in crate::config) by_digest: HashMap<[u8; 32], Arc<Key>>,
}

/// Reads `keys:`.
pub(in crate::config) fn read(check: &mut Check<'_>, root: &Node, quotas: &Quotas) -> Keys {
    let mut keys = Keys {
        by_name: IndexMap::new(),
        by_digest: HashMap::new(),
    };
    let mut seen = Seen::new();
    for entry in root.get("keys").map_or(&[][..], Node::entries) {
        if let Some((key, digest)) = one(check, entry, quotas, &mut seen) {
            keys.by_digest.insert(digest, key.clone());
            keys.by_name.insert(key.name.clone(), key);
        }
    }
    keys
}

fn one(
    check: &mut Check<'_>,
    entry: &Entry,
    quotas: &Quotas,
    seen: &mut Seen<[u8; 32]>,
) -> Option<(Arc<Key>, [u8; 32])> {
    let read = check.within("keys", |check| {
        check.within(&entry.key, |check| {
            if entry.key.contains('*') {
                check.fault(entry.place, "a key's name can't have * in it");
            }
            read_key(check, &entry.key, &entry.value, quotas, seen)
        })
    });
    read.map(|(key, digest)| (Arc::new(key), digest))
}

/// Reads `keys:` where only these may have changed, and the others stand as they
/// are; `root` has no others. `None` when all have to be looked at: a secret is
/// somebody else's.
pub(in crate::config) fn reread(
    check: &mut Check<'_>,
    root: &Node,
    quotas: &Quotas,
    mut keys: Keys,
    touched: &[String],
) -> Option<Keys> {
    let entries = root.get("keys").map_or(&[][..], Node::entries);
    for name in touched {
        if let Some(old) = keys.by_name.get(name.as_str()) {
            keys.by_digest.remove(&sha256(old.secret.expose()));
        }
        if !entries.iter().any(|entry| entry.key == *name) {
            keys.by_name.shift_remove(name.as_str());
        }
    }
    let mut seen = Seen::new();
    for entry in entries {
        let (key, digest) = one(check, entry, quotas, &mut seen)?;
        if keys.by_digest.insert(digest, Arc::clone(&key)).is_some() {
            return None;
        }
        keys.by_name.insert(Arc::clone(&key.name), key);
    }
    Some(keys)
}

fn read_key(
    check: &mut Check<'_>,
    name: &str,
    node: &Node,
    quotas: &Quotas,
    seen: &mut Seen<[u8; 32]>,
) -> Option<(Key, [u8; 32])> {
    let secret = check.within("secret", |check| secret(check, node, name, seen));
    let key = Key {
        name: name.into(),
        comment: node.get("comment").and_then(Node::text).map(str::to_owned),
        allowed_models: texts(node.get("allowedModels")),
        excluded_models: texts(node.get("excludedModels")),
        allowed_providers: texts(node.get("allowedProviders")),
        excluded_providers: texts(node.get("excludedProviders")),
        allowed_ips: networks(check, node, "allowedIps"),
        expires_at: time(check, node, "expiresAt"),
        disabled_at: time(check, node, "disabledAt"),
        quotas: check.names(node, "quotas", "user quota", quotas),
        allow_raw_passthrough: flag(node, "allowRawPassthrough", false),
        strict: node.get("strict").and_then(Node::flag),
        chat_reasoning: chat_reasoning(word(node, ["chatReasoning", "chat_reasoning"])),
        reasoning_as_content: word(node, ["responsesReasoning", "responses_reasoning"])
            == Some("content"),
        max_concurrency: count(node, "maxConcurrency"),
        secret: secret.as_ref()?.0.clone(),
    };
    secret.map(|(_, digest)| (key, digest))
}

/// The word of a field that goes by two names.
fn word<'n>(node: &'n Node, names: [&str; 2]) -> Option<&'n str> {
    let found = names.iter().find_map(|name| node.get(name));
    found.and_then(Node::text)
}

fn chat_reasoning(word: Option<&str>) -> ChatReasoning {
    match word {
        Some("reasoning") => ChatReasoning::Renamed,
        Some("details") => ChatReasoning::Details,
        _ => ChatReasoning::Content,
    }
}

fn secret(
    check: &mut Check<'_>,
    node: &Node,
    name: &str,
    seen: &mut Seen<[u8; 32]>,
) -> Option<(Secret, [u8; 32])> {
    let written = node.get("secret")?;
    let text = check.expand(written)?;
    if text.is_empty() {
        check.fault(
            written.place,
            "the secret is empty; at least one character is wanted",
        );
        return None;
    }
    if text.contains(':') {
        let message = "the secret has a colon; clients' credentials are cut at the first colon \
                       (what follows is attribution), so this one would never match";
        check.fault(written.place, message);
    }
    if text.trim() != text || text.chars().any(char::is_control) {
        let message = "the secret begins or ends with a space, or has a control character; no \
                       header can carry it";
        check.fault(written.place, message);
    }
    let digest = sha256(&text);
    if let Some(other) = seen.insert(digest, name.to_owned()) {
        check.fault(
            written.place,
            format!("the key \"{other}\" has the same secret"),
        );
    }
    Some((Secret::new(text), digest))
}

/// Milliseconds since the epoch, written so or as RFC 3339.
fn time(check: &mut Check<'_>, node: &Node, field: &str) -> Option<i64> {
    let written = node.get(field)?;
    if let Some(milliseconds) = written.whole() {
        return i64::try_from(milliseconds).ok();
    }
    let text = written.text()?;
    let time = text
        .parse::<Timestamp>()
        .ok()
        .map(|time| time.as_millisecond());
    if time.is_none() {
        let message = format!(
            "found {text:?}; milliseconds since 1970 or a time like 2027-01-31T12:00:00Z is wanted"
        );
        check.within(field, |check| check.fault(written.place, message));
    }
    time
}

fn sha256(text: &str) -> [u8; 32] {
    let mut bytes = [0; 32];
    let digest = digest::digest(&digest::SHA256, text.as_bytes());
    for (to, from) in bytes.iter_mut().zip(digest.as_ref()) {
        *to = *from;
    }
    bytes
}
