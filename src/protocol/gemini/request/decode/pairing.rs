//! Which result belongs to which call. Gemini's clients may leave ids away, and
//! some put the function's name there: each call gets an id of its own, and results
//! find theirs in the order of the calls.

use std::collections::{HashMap, VecDeque};

use crate::protocol::gemini::mint;

/// The calls so far that have no result yet.
#[derive(Debug, Default)]
pub(super) struct Pairing {
    /// How often each id was given.
    given: HashMap<String, usize>,
    /// Calls by the id that the client gave.
    by_id: HashMap<String, VecDeque<String>>,
    /// Calls of the last turn of the model that have no id, by name.
    by_name: HashMap<String, VecDeque<String>>,
}

impl Pairing {
    /// The model speaks again: older calls without ids get no results any more.
    pub(super) fn turn(&mut self) {
        self.by_name.clear();
    }

    /// The id of a call. `place` says where it stands.
    pub(super) fn call(&mut self, id: Option<&str>, name: &str, place: [usize; 2]) -> String {
        let wanted = match id {
            Some(id) => id.to_owned(),
            None => minted("call", name, place),
        };
        let mut own = wanted.clone();
        let mut count = self.given.get(&wanted).copied().unwrap_or(0);
        while self.given.contains_key(&own) {
            count += 1;
            own = format!("{wanted}_{}", count.max(2));
        }
        self.given.insert(wanted, count.max(1));
        self.given.entry(own.clone()).or_insert(1);
        let (open, key) = match id {
            Some(id) => (&mut self.by_id, id),
            None => (&mut self.by_name, name),
        };
        open.entry(key.to_owned())
            .or_default()
            .push_back(own.clone());
        own
    }

    /// The id of the call that a result belongs to.
    pub(super) fn result(&mut self, id: Option<&str>, name: &str, place: [usize; 2]) -> String {
        let take = |open: &mut HashMap<String, VecDeque<String>>, key: &str| {
            open.get_mut(key).and_then(VecDeque::pop_front)
        };
        let found = match id {
            Some(id) => take(&mut self.by_id, id),
            None => take(&mut self.by_name, name),
        };
        let found = found.or_else(|| match id {
            // The client gave its own id to a call that had none.
            Some(_) => take(&mut self.by_name, name),
            None => None,
        });
        found.unwrap_or_else(|| match id {
            Some(id) => id.to_owned(),
            None => minted("result", name, place),
        })
    }
}

/// The same for the same place, so that a conversation that grows keeps its ids.
fn minted(what: &str, name: &str, place: [usize; 2]) -> String {
    let place = place.map(usize::to_le_bytes).concat();
    mint::id("call_", &[what.as_bytes(), name.as_bytes(), &place])
}

#[cfg(test)]
mod tests {
    use super::Pairing;

    #[test]
    fn calls_without_ids_get_different_ones_and_results_find_them_in_order() {
        let mut pairing = Pairing::default();
        pairing.turn();
        let first = pairing.call(None, "f", [1, 0]);
        let second = pairing.call(None, "f", [1, 1]);
        assert_ne!(first, second);
        assert_eq!(pairing.result(None, "f", [2, 0]), first);
        assert_eq!(pairing.result(Some("own"), "f", [2, 1]), second);
        assert!(pairing.result(None, "f", [2, 2]).starts_with("call_"));
        assert_eq!(pairing.result(Some("x"), "f", [2, 2]), "x");
    }

    #[test]
    fn an_id_that_stands_twice_gets_a_number() {
        let mut pairing = Pairing::default();
        for wanted in ["f", "f_2", "f_3"] {
            assert_eq!(pairing.call(Some("f"), "f", [0, 0]), wanted);
        }
        for wanted in ["f", "f_2", "f_3", "f"] {
            assert_eq!(pairing.result(Some("f"), "f", [0, 0]), wanted);
        }
        assert_eq!(pairing.call(Some("f_2"), "f", [0, 0]), "f_2_2");
    }

    #[test]
    fn a_call_that_was_passed_over_gets_no_later_result() {
        let mut pairing = Pairing::default();
        let old = pairing.call(None, "f", [1, 0]);
        pairing.turn();
        let new = pairing.call(None, "f", [3, 0]);
        assert_eq!(pairing.result(None, "f", [4, 0]), new);
        assert_ne!(old, new);
    }
}
