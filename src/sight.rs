//! What images show, as a model that sees told it: remembered by content, so that
//! the pictures of a conversation are described once and not in each of its turns.
//!
//! A bounded memory in two halves: when the younger is full it becomes the older
//! one, and what is used moves over. Who describes is no business of this file.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use ring::digest::{Context, SHA256};
use tokio::sync::OnceCell;

/// Most descriptions that are remembered.
pub const MOST: usize = 2000;
const HALF: usize = MOST / 2;
/// The longest description, in bytes; what is beyond it is cut off.
pub const LONGEST: usize = 16 * 1024;

/// An image, as some model is asked to describe it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sighting([u8; 32]);

impl Sighting {
    /// Of an image by its content, its describer's name, and what that is asked.
    #[must_use]
    pub fn of(model: &str, prompt: &str, content: &[u8]) -> Self {
        let mut context = Context::new(&SHA256);
        for part in [model.as_bytes(), prompt.as_bytes()] {
            context.update(&(part.len() as u64).to_le_bytes());
            context.update(part);
        }
        context.update(content);
        let mut hash = [0; 32];
        hash.copy_from_slice(context.finish().as_ref());
        Self(hash)
    }
}

/// A description, or the place where it will be. Whoever comes while somebody
/// else gets it waits for that.
pub type Description = Arc<OnceCell<Arc<str>>>;

/// The memory. See the module's text.
#[derive(Debug, Default)]
pub struct Descriptions(Mutex<Halves>);

#[derive(Debug, Default)]
struct Halves {
    young: HashMap<Sighting, Description>,
    old: HashMap<Sighting, Description>,
}

impl Descriptions {
    /// The description of that image.
    #[must_use]
    pub fn of(&self, sighting: Sighting) -> Description {
        let mut halves = self.0.lock();
        if let Some(known) = halves.young.get(&sighting) {
            return Arc::clone(known);
        }
        let description = halves.old.remove(&sighting).unwrap_or_default();
        if halves.young.len() >= HALF {
            halves.old = std::mem::take(&mut halves.young);
        }
        halves.young.insert(sighting, Arc::clone(&description));
        description
    }

    /// Forgets everything.
    pub fn clear(&self) {
        *self.0.lock() = Halves::default();
    }

    /// Images that are remembered, or being described.
    #[must_use]
    pub fn len(&self) -> usize {
        let halves = self.0.lock();
        halves.young.len() + halves.old.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A description as it is remembered: cut to [`LONGEST`], without the white space
/// around it. `None` when nothing is left.
#[must_use]
pub fn remembered(text: &str) -> Option<Arc<str>> {
    let text = text.trim();
    let end = (0..=text.len().min(LONGEST)).rev();
    let text = text.get(..{ end }.find(|end| text.is_char_boundary(*end))?)?;
    (!text.is_empty()).then(|| text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(i: usize) -> Sighting {
        Sighting::of("m", "p", &i.to_le_bytes())
    }

    #[test]
    fn the_memory_is_bounded_and_keeps_what_is_used() {
        let known = Descriptions::default();
        known.of(number(0)).set("a dot".into()).unwrap();
        for i in 1..10_000 {
            let _description = known.of(number(i));
            assert_eq!(known.of(number(0)).get().map(|text| &**text), Some("a dot"));
        }
        assert!(known.len() <= MOST);
        known.clear();
        assert!(known.is_empty());
        assert!(known.of(number(0)).get().is_none());
    }

    #[test]
    fn model_prompt_and_content_tell_images_apart() {
        let all = [
            Sighting::of("ab", "c", b"d"),
            Sighting::of("a", "bc", b"d"),
            Sighting::of("ab", "", b"cd"),
            Sighting::of("ab", "c", b"e"),
        ];
        let distinct: std::collections::HashSet<_> = all.into_iter().collect();
        assert_eq!(distinct.len(), 4);
    }

    #[test]
    fn descriptions_are_cut_at_a_character() {
        assert_eq!(remembered(" \n "), None);
        assert_eq!(remembered(" a ").as_deref(), Some("a"));
        let long = "\u{e9}".repeat(LONGEST);
        assert_eq!(remembered(&long).unwrap().len(), LONGEST);
        let odd = format!("a{long}");
        assert_eq!(remembered(&odd).unwrap().len(), LONGEST - 1);
    }
}
