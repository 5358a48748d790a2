//! Whose requests are captured: switches that are set at run time and forgotten
//! at the end of the process.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::RwLock;

use super::Capture;
use super::room::Room;
use crate::store::Writer;

/// What is watched; each of these is enough by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watched {
    /// Every request.
    pub all: bool,
    /// Requests that try one of these providers.
    pub providers: BTreeSet<String>,
    /// Requests of these keys, by name.
    pub keys: BTreeSet<String>,
    /// Requests for these aliases, by the name the client gave or the alias's
    /// own.
    pub aliases: BTreeSet<String>,
}

impl Watched {
    fn is_any(&self) -> bool {
        self.all || !(self.providers.is_empty() && self.keys.is_empty() && self.aliases.is_empty())
    }

    /// Whether a request of that key may turn out to be wanted.
    fn may_want(&self, key: &str) -> bool {
        self.all
            || !self.providers.is_empty()
            || !self.aliases.is_empty()
            || self.keys.contains(key)
    }

    fn wants(&self, capture: &Capture) -> bool {
        let Some(settled) = &capture.settled else {
            return false;
        };
        let is_in = |name: Option<&Arc<str>>, set: &BTreeSet<String>| {
            name.is_some_and(|name| set.contains(&**name))
        };
        self.all
            || is_in(settled.key.as_ref(), &self.keys)
            || is_in(settled.alias.as_ref(), &self.aliases)
            || is_in(settled.canonical.as_ref(), &self.aliases)
            || { capture.tries.iter() }.any(|tried| self.providers.contains(&*tried.provider))
    }
}

/// The switches, and the room that all captures share.
#[derive(Debug, Default)]
pub struct Switches {
    /// Whether anything is watched: all that a request looks at otherwise.
    any: AtomicBool,
    watched: RwLock<Watched>,
    room: Arc<Room>,
    dropped: AtomicU64,
}

impl Switches {
    /// With every request watched, or none.
    #[must_use]
    pub fn new(all: bool) -> Self {
        let switches = Self::default();
        switches.change(|watched| watched.all = all);
        switches
    }

    /// What is watched now.
    #[must_use]
    pub fn watched(&self) -> Watched {
        self.watched.read().clone()
    }

    /// Changes what is watched, at once; returns what it is then.
    pub fn change(&self, change: impl FnOnce(&mut Watched)) -> Watched {
        let mut watched = self.watched.write();
        change(&mut watched);
        self.any.store(watched.is_any(), Ordering::Relaxed);
        watched.clone()
    }

    /// Captures that were wanted and not kept, because too many were waiting for
    /// the disk.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// A capture, if a request of that key may turn out to be wanted; `on_error`
    /// is whether every failure is.
    pub(crate) fn begin(&self, key: &str, on_error: bool) -> Option<Box<Capture>> {
        if !on_error && !self.any.load(Ordering::Relaxed) {
            return None;
        }
        let may = on_error || self.watched.read().may_want(key);
        may.then(|| Box::new(Capture::new(&self.room, on_error, false)))
    }

    /// A capture that is kept in any case.
    pub(crate) fn certain(&self) -> Box<Capture> {
        Box::new(Capture::new(&self.room, false, true))
    }

    /// The request is over: its capture goes to the store, if it is wanted.
    pub(crate) fn hand_over(&self, capture: Box<Capture>, writer: &Writer) {
        let failed = capture.settled.as_ref().is_some_and(|end| end.failed);
        let wanted =
            capture.certain || (capture.on_error && failed) || self.watched.read().wants(&capture);
        if !wanted {
            return;
        }
        let place = self.room.queue();
        let kept = place.is_some_and(|place| writer.capture(Box::new(move || capture.seal(place))));
        if !kept && self.dropped.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::warn!("a debug capture was dropped: too many wait for the disk");
        }
    }
}
