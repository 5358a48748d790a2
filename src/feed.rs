//! What is going on, told to whoever listens, as it happens.
//!
//! While nobody listens, telling costs one look at a number. While somebody
//! does, nothing waits: what would have to is left out and counted. Only so
//! many events of a second are told one by one; of the rest there are counts.
//! Events lie in one ring for all listeners; one that is slow loses the oldest.
//!
//! This file must not know HTTP, rows or SQL.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

/// Events that are kept for listeners.
const KEPT: usize = 1024;

/// Events of each kind that are told one by one in a second.
const IN_A_SECOND: u32 = 100;

/// Most listeners at a time.
const LISTENERS: usize = 64;

/// What happened to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It is known what it wants.
    Started,
    /// A target is tried.
    Updated,
    /// It is over, and written down.
    Completed,
    /// Its answer goes on.
    Progress,
}

impl Kind {
    /// The event's name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Updated => "updated",
            Self::Completed => "completed",
            Self::Progress => "progress",
        }
    }
}

/// One event.
#[derive(Debug, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub kind: Kind,
    /// Milliseconds since the epoch.
    pub at_ms: i64,
    /// The request's key.
    pub key: Option<Arc<str>>,
    /// A JSON object.
    pub data: Box<str>,
}

/// How many events there were, told one by one or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests that began.
    pub started: u64,
    /// Requests that ended.
    pub completed: u64,
    /// Events that were not told one by one.
    pub left_out: u64,
}

/// Where events are told. One for the process.
#[derive(Default)]
pub struct Feed {
    listeners: AtomicUsize,
    ring: Mutex<Ring>,
    /// Events that found the ring taken.
    passed: AtomicU64,
}

#[derive(Default)]
struct Ring {
    events: VecDeque<Arc<Event>>,
    /// The number of the event that comes next.
    next: u64,
    second: i64,
    /// Events of that second, by kind.
    of_second: [u32; 4],
    counts: Counts,
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed")
            .field("listeners", &self.listeners)
            .finish_non_exhaustive()
    }
}

impl Feed {
    /// Whether anybody listens.
    #[must_use]
    pub fn is_heard(&self) -> bool {
        self.listeners.load(Ordering::Relaxed) > 0
    }

    /// Tells an event, if anybody listens and there is room for it. The data are
    /// made only then.
    pub fn tell(&self, kind: Kind, at_ms: i64, event: impl FnOnce() -> Option<Event>) {
        if !self.is_heard() {
            return;
        }
        let Some(mut ring) = self.ring.try_lock() else {
            self.passed.fetch_add(1, Ordering::Relaxed);
            return;
        };
        if !ring.admits(kind, at_ms) {
            return;
        }
        drop(ring);
        let Some(event) = event() else { return };
        match self.ring.try_lock() {
            Some(mut ring) => ring.push(event),
            None => {
                self.passed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Somebody listens from now on; `None` when too many do already.
    #[must_use]
    pub fn listen(self: &Arc<Self>) -> Option<Listener> {
        let one_more = |count| (count < LISTENERS).then_some(count + 1);
        self.listeners
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
            .ok()?;
        let ring = self.ring.lock();
        Some(Listener {
            feed: Arc::clone(self),
            next: ring.next,
            counts: ring.counts,
        })
    }
}

impl Ring {
    /// Counts an event, and says whether it is to be told by itself.
    fn admits(&mut self, kind: Kind, at_ms: i64) -> bool {
        let second = at_ms.div_euclid(1000);
        // Events of many threads come a little out of order.
        if second > self.second {
            self.second = second;
            self.of_second = [0; 4];
        }
        match kind {
            Kind::Started => self.counts.started += 1,
            Kind::Completed => self.counts.completed += 1,
            Kind::Updated | Kind::Progress => {}
        }
        let Some(told) = self.of_second.get_mut(kind as usize) else {
            return false;
        };
        *told += 1;
        let admitted = *told <= IN_A_SECOND;
        self.counts.left_out += u64::from(!admitted);
        admitted
    }

    fn push(&mut self, event: Event) {
        if self.events.len() == KEPT {
            self.events.pop_front();
        }
        self.events.push_back(Arc::new(event));
        self.next += 1;
    }
}

/// Somebody who listens, until it is dropped.
#[derive(Debug)]
pub struct Listener {
    feed: Arc<Feed>,
    next: u64,
    counts: Counts,
}

/// What a listener has not heard yet.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct News {
    /// Events, oldest first.
    pub events: Vec<Arc<Event>>,
    /// All that happened meanwhile, whoever it happened to.
    pub counts: Counts,
}

impl Listener {
    /// What happened since the last time.
    pub fn news(&mut self) -> News {
        let passed = self.feed.passed.swap(0, Ordering::Relaxed);
        let mut ring = self.feed.ring.lock();
        ring.counts.left_out += passed;
        let kept = ring.events.len() as u64;
        let unheard = ring.next - self.next;
        let lost = unheard.saturating_sub(kept);
        let from = usize::try_from(kept - (unheard - lost)).unwrap_or(usize::MAX);
        let events = ring.events.iter().skip(from).cloned().collect();
        let (next, counts) = (ring.next, ring.counts);
        drop(ring);
        let since = Counts {
            started: counts.started - self.counts.started,
            completed: counts.completed - self.counts.completed,
            left_out: counts.left_out - self.counts.left_out + lost,
        };
        self.next = next;
        self.counts = counts;
        News {
            events,
            counts: since,
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.feed.listeners.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: Kind, number: u64) -> Option<Event> {
        Some(Event {
            kind,
            at_ms: 0,
            key: None,
            data: number.to_string().into_boxed_str(),
        })
    }

    fn tell(feed: &Feed, at_ms: i64, number: u64) {
        feed.tell(Kind::Started, at_ms, || event(Kind::Started, number));
    }

    fn heard(news: &News) -> Vec<&str> {
        news.events.iter().map(|event| &*event.data).collect()
    }

    #[test]
    fn while_nobody_listens_nothing_is_made_or_kept() {
        let feed = Arc::new(Feed::default());
        feed.tell(Kind::Started, 0, || panic!("nobody asked for it"));
        let mut listener = feed.listen().unwrap();
        assert_eq!(listener.news(), News::default());
        drop(listener);
        feed.tell(Kind::Started, 0, || panic!("nobody asks any more"));
    }

    #[test]
    fn a_listener_hears_each_event_once_and_none_from_before() {
        let feed = Arc::new(Feed::default());
        let mut first = feed.listen().unwrap();
        tell(&feed, 0, 1);
        let mut second = feed.listen().unwrap();
        tell(&feed, 0, 2);
        assert_eq!(heard(&first.news()), ["1", "2"]);
        assert_eq!(heard(&second.news()), ["2"]);
        assert_eq!(first.news(), News::default());
    }

    #[test]
    fn what_is_too_much_for_a_second_is_counted_and_the_next_second_is_told() {
        let feed = Arc::new(Feed::default());
        let mut listener = feed.listen().unwrap();
        for number in 0..u64::from(IN_A_SECOND) + 5 {
            tell(&feed, 999, number);
        }
        feed.tell(Kind::Updated, 999, || event(Kind::Updated, 0));
        tell(&feed, 1000, 1000);
        let news = listener.news();
        assert_eq!(news.events.len(), IN_A_SECOND as usize + 2);
        assert_eq!(news.counts.started, u64::from(IN_A_SECOND) + 6);
        assert_eq!(news.counts.left_out, 5);
    }

    #[test]
    fn a_slow_listener_loses_the_oldest_and_is_told_how_many() {
        let feed = Arc::new(Feed::default());
        let mut listener = feed.listen().unwrap();
        let told = KEPT as u64 + 10;
        for number in 0..told {
            tell(&feed, i64::try_from(number).unwrap() * 1000, number);
        }
        let news = listener.news();
        assert_eq!(news.events.len(), KEPT);
        assert_eq!(heard(&news)[0], "10");
        assert_eq!(news.counts.left_out, 10);
    }

    #[test]
    fn there_is_a_bound_on_listeners() {
        let feed = Arc::new(Feed::default());
        let all: Vec<Listener> = (0..LISTENERS).map(|_| feed.listen().unwrap()).collect();
        assert!(feed.listen().is_none());
        drop(all);
        assert!(feed.listen().is_some());
    }

    #[test]
    fn a_teller_never_waits_for_the_ring() {
        let feed = Arc::new(Feed::default());
        let mut listener = feed.listen().unwrap();
        let ring = feed.ring.lock();
        tell(&feed, 0, 1);
        drop(ring);
        assert_eq!(listener.news().counts.left_out, 1);
    }
}
