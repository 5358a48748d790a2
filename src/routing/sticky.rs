//! Which target a conversation is with.
//!
//! A bounded memory: what was not used for longest is forgotten first. It is
//! kept in two halves per part; when the younger half is full it becomes the
//! older one, and what is used moves over. That costs no list of uses.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use parking_lot::Mutex;

/// Most conversations that are remembered.
pub const MOST: usize = 10_000;
/// Parts with a lock each, so that cores seldom meet at one.
const PARTS: usize = 8;
const HALF: usize = MOST / PARTS / 2;

/// A conversation, under one alias and one of the clients' protocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Session(pub u64);

/// The memory. Targets are known by number.
#[derive(Debug, Default)]
pub struct Sticky {
    parts: [Mutex<Part>; PARTS],
}

#[derive(Debug, Default)]
struct Part {
    young: HashMap<Session, u64, RandomState>,
    old: HashMap<Session, u64, RandomState>,
}

impl Sticky {
    /// The target that a conversation is with.
    #[must_use]
    pub fn find(&self, session: Session) -> Option<u64> {
        let mut part = self.part(session).lock();
        if let Some(target) = part.young.get(&session) {
            return Some(*target);
        }
        let target = part.old.remove(&session)?;
        part.put(session, target);
        Some(target)
    }

    /// From now on the conversation is with that target.
    pub fn pin(&self, session: Session, target: u64) {
        let mut part = self.part(session).lock();
        if let Some(known) = part.young.get_mut(&session) {
            *known = target;
            return;
        }
        part.old.remove(&session);
        part.put(session, target);
    }

    /// Conversations that are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        let sizes = self.parts.iter().map(|part| {
            let part = part.lock();
            part.young.len() + part.old.len()
        });
        sizes.sum()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn part(&self, session: Session) -> &Mutex<Part> {
        &self.parts[(session.0 % PARTS as u64) as usize]
    }
}

impl Part {
    fn put(&mut self, session: Session, target: u64) {
        if self.young.len() >= HALF {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(session, target);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_conversation_is_found_again_and_can_move() {
        let sticky = Sticky::default();
        assert!(sticky.is_empty());
        sticky.pin(Session(1), 7);
        sticky.pin(Session(2), 8);
        assert_eq!(sticky.find(Session(1)), Some(7));
        sticky.pin(Session(1), 9);
        assert_eq!(sticky.find(Session(1)), Some(9));
        assert_eq!(sticky.find(Session(3)), None);
    }

    #[test]
    fn the_memory_is_bounded_and_keeps_what_is_used() {
        let sticky = Sticky::default();
        let busy = Session(5);
        sticky.pin(busy, 1);
        for i in 0..100_000_u64 {
            sticky.pin(Session(1000 + i), 2);
            assert_eq!(sticky.find(busy), Some(1));
        }
        assert!(sticky.len() <= MOST);
        assert!(sticky.len() > MOST / 3);
        assert_eq!(sticky.find(Session(1000)), None);
        assert_eq!(sticky.find(Session(1000 + 99_999)), Some(2));
    }

    proptest! {
        #[test]
        fn what_is_remembered_is_what_was_pinned_last(
            steps in proptest::collection::vec((0..50_u64, 0..9_u64), 0..500)
        ) {
            let sticky = Sticky::default();
            let mut model = HashMap::new();
            for (session, target) in steps {
                sticky.pin(Session(session), target);
                model.insert(session, target);
            }
            for (session, target) in model {
                prop_assert_eq!(sticky.find(Session(session)), Some(target));
            }
        }
    }
}
