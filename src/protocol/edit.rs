//! Changes to a JSON document by spans: members and elements taken out, values
//! replaced, names changed, members put in. All the rest stays byte for byte.
//!
//! What was asked for is gathered against a document on a tape and then becomes
//! patches that do not overlap: a change inside of something that goes away goes
//! away with it. Nothing here knows what a document means.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::json::{Str, Value};
use super::splice::Patch;

/// The changes to one document.
#[derive(Debug, Default)]
pub struct Edits<'t> {
    patches: Vec<Patch>,
    /// By where the container begins.
    containers: BTreeMap<usize, Container<'t>>,
}

#[derive(Debug)]
struct Container<'t> {
    value: Value<'t>,
    /// Positions of children to take out.
    removed: Vec<usize>,
    /// Members to put in, as they are written.
    inserted: Vec<String>,
}

impl<'t> Edits<'t> {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether nothing is to be changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.patches.is_empty() && self.containers.is_empty()
    }

    /// How many changes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        let containers = self.containers.values();
        let inside = containers.map(|one| one.removed.len() + one.inserted.len());
        self.patches.len() + inside.sum::<usize>()
    }

    /// Another value in the place of this one; `with` must be JSON.
    pub fn replace(&mut self, value: Value<'t>, with: impl Into<Bytes>) {
        self.patches.push(Patch {
            span: value.span(),
            with: with.into(),
        });
    }

    /// As [`Edits::replace`], with a string.
    pub fn replace_text(&mut self, value: Value<'t>, text: &str) {
        self.replace(value, quoted(text));
    }

    /// Takes out the child at that position: a member of an object, counted with
    /// its namesakes, or an element of an array.
    pub fn remove(&mut self, container: Value<'t>, position: usize) {
        let removed = &mut self.container(container).removed;
        if !removed.contains(&position) {
            removed.push(position);
        }
    }

    /// Takes out every member of that name.
    pub fn remove_member(&mut self, object: Value<'t>, name: &str) {
        for (position, (found, _)) in object.members().enumerate() {
            if found.is(name) {
                self.remove(object, position);
            }
        }
    }

    /// Gives every member of that name another one.
    pub fn rename(&mut self, object: Value<'t>, name: &str, to: &str) {
        for (key, _) in object.entries() {
            if key.as_str().is_some_and(|found| found.is(name)) {
                self.replace_text(key, to);
            }
        }
    }

    /// Puts a member in front of the others; `value` must be JSON. Nothing is done
    /// to what is no object.
    pub fn insert(&mut self, object: Value<'t>, name: &str, value: &str) {
        if object.is_object() {
            let text = format!("{}:{value}", quoted(name));
            self.container(object).inserted.push(text);
        }
    }

    /// Gives a member a value: those that are there get it, else one is put in.
    pub fn set(&mut self, object: Value<'t>, name: &str, value: &str) {
        let mut there = false;
        for (found, old) in object.members() {
            if found.is(name) {
                self.replace(old, value.to_owned());
                there = true;
            }
        }
        if !there {
            self.insert(object, name, value);
        }
    }

    /// The changes as patches of the whole document, in its order.
    #[must_use]
    pub fn into_patches(self) -> Vec<Patch> {
        let mut all = self.patches;
        for container in self.containers.into_values() {
            container.patch(&mut all);
        }
        settled(all)
    }

    fn container(&mut self, value: Value<'t>) -> &mut Container<'t> {
        let fresh = Container {
            value,
            removed: Vec::new(),
            inserted: Vec::new(),
        };
        self.containers.entry(value.span().start).or_insert(fresh)
    }
}

/// Of two patches over the same bytes the wider one stays, and of two over the
/// same span the first. What is put in comes before what is replaced there.
fn settled(mut all: Vec<Patch>) -> Vec<Patch> {
    all.sort_by_key(|patch| {
        let span = &patch.span;
        (span.start, !span.is_empty(), std::cmp::Reverse(span.end))
    });
    let mut kept: Vec<Patch> = Vec::with_capacity(all.len());
    let mut end = 0;
    for patch in all {
        if patch.span.start < end {
            continue;
        }
        end = patch.span.end;
        kept.push(patch);
    }
    kept
}

impl Container<'_> {
    fn patch(mut self, all: &mut Vec<Patch>) {
        let children = self.children();
        self.removed.retain(|position| *position < children.len());
        self.removed.sort_unstable();
        self.insertion(children.len(), all);
        let mut at = 0;
        while let Some(first) = self.removed.get(at).copied() {
            let mut last = first;
            while self.removed.get(at + 1) == Some(&(last + 1)) {
                at += 1;
                last += 1;
            }
            at += 1;
            // With the comma before it, or, at the front, with the one behind it.
            let before = first.checked_sub(1).and_then(|i| children.get(i));
            let span = match (before, children.get(last + 1)) {
                (Some(before), _) => before.end..children[last].end,
                (None, Some(next)) => children[first].start..next.start,
                (None, None) => children[first].start..children[last].end,
            };
            let with = Bytes::new();
            all.push(Patch { span, with });
        }
    }

    fn insertion(&self, children: usize, all: &mut Vec<Patch>) {
        if self.inserted.is_empty() {
            return;
        }
        let mut text = self.inserted.join(",");
        if self.removed.len() < children {
            text.push(',');
        }
        let at = self.value.span().start + 1;
        all.push(Patch {
            span: at..at,
            with: text.into(),
        });
    }

    fn children(&self) -> Vec<std::ops::Range<usize>> {
        if self.value.is_object() {
            let members = self.value.entries();
            let whole = members.map(|(key, value)| key.span().start..value.span().end);
            return whole.collect();
        }
        self.value.items().map(|item| item.span()).collect()
    }
}

/// A text as JSON.
pub(super) fn quoted(text: &str) -> String {
    let mut out = bytes::BytesMut::with_capacity(text.len() + 2);
    super::json::write::string(&mut out, &Str::new(text));
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests;
