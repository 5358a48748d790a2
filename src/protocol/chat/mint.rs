//! Ids for calls that came without one.

use crate::protocol::Protocol;
use crate::protocol::fit;
use crate::protocol::json::{Str, Value};

/// What an answer is known by. Ids are made of it, so that equal bytes give equal
/// ids, however they were cut, and different answers different ones.
#[derive(Debug, Clone, Default)]
pub(super) struct Seed<'a> {
    id: Str<'a>,
    created: u64,
}

impl<'a> Seed<'a> {
    /// That of an answer, or of a piece of it.
    pub(super) fn of(body: Value<'a>) -> Self {
        let id = body.some("id").and_then(|id| id.as_str());
        let created = body.some("created").and_then(|created| created.as_u64());
        Self {
            id: id.unwrap_or_default(),
            created: created.unwrap_or_default(),
        }
    }

    /// Cut loose from its document.
    pub(super) fn into_owned(self) -> Seed<'static> {
        Seed {
            id: self.id.into_owned(),
            created: self.created,
        }
    }

    /// An id for a call. No provider would take the words that it is made of for
    /// one, so that they become a hash of themselves.
    pub(super) fn id(&self, choice: usize, part: usize) -> Str<'static> {
        let words = format!("{} {} {choice} {part}", self.id.plain(), self.created);
        let words = Str::from(words);
        let fitted = fit::call_id(&words, Protocol::Messages);
        Str::from(fitted.into_owned())
    }
}
