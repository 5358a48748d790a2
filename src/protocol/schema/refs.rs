//! References inside one schema: where they point, and which go round in circles.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use super::node::Node;

/// The schema's own definitions.
pub(super) struct Refs<'n, 'a> {
    root: &'n Node<'a>,
    /// Definitions from which one comes back to a place where one was.
    circular: HashSet<&'n str>,
}

impl<'n, 'a> Refs<'n, 'a> {
    pub(super) fn of(root: &'n Node<'a>) -> Self {
        Self {
            root,
            circular: circular(root),
        }
    }

    /// Where a reference points.
    pub(super) fn target(&self, reference: &str) -> Option<&'n Node<'a>> {
        let pointer = reference.strip_prefix('#')?;
        if let Some(name) = definition(reference) {
            let mut places = ["$defs", "definitions"].into_iter();
            return places.find_map(|place| self.root.get(place)?.get(&name));
        }
        let mut node = self.root;
        for step in pointer.split('/').skip(1) {
            let step = unescaped(step);
            node = match node {
                Node::Map(map) => map.get(step.as_ref())?,
                Node::List(list) => list.get(step.parse::<usize>().ok()?)?,
                _ => return None,
            };
        }
        (pointer.is_empty() || pointer.starts_with('/')).then_some(node)
    }

    /// Whether following a reference may have no end. Of one that points to no
    /// definition nothing is known.
    pub(super) fn is_circular(&self, reference: &str) -> bool {
        match definition(reference) {
            Some(name) => self.circular.contains(name.as_ref()),
            None => true,
        }
    }
}

/// The definition that a reference names.
pub(super) fn definition(reference: &str) -> Option<Cow<'_, str>> {
    let name = reference
        .strip_prefix("#/$defs/")
        .or_else(|| reference.strip_prefix("#/definitions/"))?;
    (!name.contains('/')).then(|| unescaped(name))
}

/// All definitions, under the new and the old name.
pub(super) fn definitions<'n, 'a>(
    root: &'n Node<'a>,
) -> impl Iterator<Item = (&'n str, &'n Node<'a>)> {
    let places = ["$defs", "definitions"].into_iter();
    let maps = places.filter_map(|place| root.get(place)?.as_map());
    maps.flatten().map(|(name, node)| (name.as_ref(), node))
}

/// A step of a JSON pointer (RFC 6901) in a URI fragment.
fn unescaped(step: &str) -> Cow<'_, str> {
    if !step.contains(['~', '%']) {
        return Cow::Borrowed(step);
    }
    let mut bytes = Vec::with_capacity(step.len());
    let mut rest = step.as_bytes();
    while let [first, behind @ ..] = rest {
        let hex = behind.get(..2).filter(|_| *first == b'%');
        let hex = hex.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        match hex {
            Some(byte) => {
                bytes.push(byte);
                rest = behind.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = behind;
            }
        }
    }
    let text = String::from_utf8_lossy(&bytes);
    Cow::Owned(text.replace("~1", "/").replace("~0", "~"))
}

/// Removes what leads nowhere until nothing more can go; what is left goes round,
/// or leads to what does.
fn circular<'n>(root: &'n Node<'_>) -> HashSet<&'n str> {
    let mut open: HashMap<&str, usize> = HashMap::new();
    let mut named_by: HashMap<String, Vec<&str>> = HashMap::new();
    for (name, node) in definitions(root) {
        let mut found = Vec::new();
        let elsewhere = references(node, &mut found);
        open.insert(name, found.len() + usize::from(elsewhere));
        for target in found {
            named_by.entry(target).or_default().push(name);
        }
    }
    let mut ended: Vec<String> = named_by.keys().cloned().collect();
    // A reference to what is not there ends too.
    ended.retain(|name| open.get(name.as_str()).is_none_or(|count| *count == 0));
    while let Some(name) = ended.pop() {
        for user in named_by.remove(&name).unwrap_or_default() {
            if let Some(count) = open.get_mut(user) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    ended.push(user.to_owned());
                }
            }
        }
    }
    let left = open.into_iter().filter(|(_, count)| *count > 0);
    left.map(|(name, _)| name).collect()
}

/// The names of all definitions that are referred to in a node. True when there is
/// a reference to something else: to the root, most often, and round again.
fn references(node: &Node<'_>, found: &mut Vec<String>) -> bool {
    let mut elsewhere = false;
    match node {
        Node::Map(map) => {
            for (name, node) in map {
                let reference = node.as_text().filter(|_| name == "$ref");
                match reference.as_deref().map(definition) {
                    Some(Some(name)) => found.push(name.into_owned()),
                    Some(None) => elsewhere = true,
                    None => elsewhere |= references(node, found),
                }
            }
        }
        Node::List(list) => {
            for node in list {
                elsewhere |= references(node, found);
            }
        }
        _ => {}
    }
    elsewhere
}
