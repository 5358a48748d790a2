//! How many requests may be under way at once: to a provider, to a target, for
//! a key.
//!
//! A [`Permit`] is given back by being dropped, on whatever path that happens.
//! Those who find no permit may wait in a short queue; nothing here waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::Notify;

/// Most requests that wait for permits of one limit.
const QUEUE: u32 = 64;

/// Where those wait who found a limit reached: whenever any permit comes back,
/// all of them look again.
#[derive(Debug, Default)]
pub struct Returns {
    notify: Notify,
    waiting: AtomicU32,
}

impl Returns {
    fn announce(&self) {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.notify.notify_waiters();
        }
    }
}

/// One limit's count.
#[derive(Debug)]
pub struct Permits {
    active: AtomicU32,
    queued: AtomicU32,
    returns: Arc<Returns>,
}

impl Permits {
    /// A count at zero, whose returns are announced there.
    #[must_use]
    pub fn new(returns: &Arc<Returns>) -> Arc<Self> {
        Arc::new(Self {
            active: AtomicU32::new(0),
            queued: AtomicU32::new(0),
            returns: Arc::clone(returns),
        })
    }

    /// A permit, if fewer than `limit` are out. The limit is told each time:
    /// the configuration may have changed it.
    #[must_use]
    pub fn take(self: &Arc<Self>, limit: u32) -> Option<Permit> {
        let one_more = |active| (active < limit).then_some(active + 1);
        self.active
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more)
            .ok()
            .map(|_| Permit(Arc::clone(self)))
    }

    /// Permits that are out.
    #[must_use]
    pub fn active(&self) -> u32 {
        self.active.load(Ordering::SeqCst)
    }

    /// Requests that wait.
    #[must_use]
    pub fn queued(&self) -> u32 {
        self.queued.load(Ordering::SeqCst)
    }

    /// A place in the queue, if there is one.
    #[must_use]
    pub fn queue(self: &Arc<Self>) -> Option<Place> {
        let one_more = |queued| (queued < QUEUE).then_some(queued + 1);
        self.queued
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more)
            .ok()?;
        self.returns.waiting.fetch_add(1, Ordering::SeqCst);
        Some(Place(Arc::clone(self)))
    }
}

/// One request under way.
#[derive(Debug)]
#[must_use = "dropping the permit gives it back"]
pub struct Permit(Arc<Permits>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::SeqCst);
        self.0.returns.announce();
    }
}

/// A place in the queue; dropping it leaves the queue.
#[derive(Debug)]
#[must_use = "dropping the place leaves the queue"]
pub struct Place(Arc<Permits>);

impl Place {
    /// Looks for something whenever a permit comes back, first of all at once,
    /// until it is found. Has no end by itself.
    pub async fn until<T>(&self, mut look: impl FnMut() -> Option<T>) -> T {
        let returns = &self.0.returns;
        loop {
            // Registered before looking, so that no return is missed.
            let mut returned = std::pin::pin!(returns.notify.notified());
            returned.as_mut().enable();
            if let Some(found) = look() {
                return found;
            }
            returned.await;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.queued.fetch_sub(1, Ordering::SeqCst);
        self.0.returns.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn no_more_permits_than_the_limit_are_out() {
        let permits = Permits::new(&Arc::default());
        let first = permits.take(2).unwrap();
        let _second = permits.take(2).unwrap();
        assert!(permits.take(2).is_none());
        assert!(permits.take(3).is_some(), "a limit can be raised");
        drop(first);
        assert!(permits.take(2).is_some());
        assert_eq!(permits.active(), 1);
    }

    #[test]
    fn who_waits_gets_a_permit_the_moment_one_comes_back() {
        let returns = Arc::default();
        let permits = Permits::new(&returns);
        let held = permits.take(1).unwrap();
        let place = permits.queue().unwrap();
        let mut waiting = pin!(place.until(|| permits.take(1)));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(waiting.as_mut().poll(&mut cx).is_pending());
        drop(held);
        assert!(matches!(waiting.as_mut().poll(&mut cx), Poll::Ready(_)));
    }

    #[test]
    fn the_queue_is_short_and_empties_itself() {
        let permits = Permits::new(&Arc::default());
        let places: Vec<Place> = std::iter::from_fn(|| permits.queue()).collect();
        assert_eq!(places.len(), QUEUE as usize);
        drop(places);
        assert_eq!(permits.queued(), 0);
        assert_eq!(permits.returns.waiting.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn threads_that_race_never_exceed_the_limit_and_end_at_zero() {
        let permits = Permits::new(&Arc::default());
        let most = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..2000 {
                        if let Some(_held) = permits.take(3) {
                            most.fetch_max(permits.active(), Ordering::SeqCst);
                        }
                    }
                });
            }
        });
        assert!(most.into_inner() <= 3);
        assert_eq!(permits.active(), 0);
    }

    proptest! {
        #[test]
        fn permits_return_to_zero_whatever_is_dropped_when(
            steps in proptest::collection::vec((any::<bool>(), 0..16_usize, 1..5_u32), 0..300)
        ) {
            let permits = Permits::new(&Arc::default());
            let mut out = Vec::new();
            for (take, which, limit) in steps {
                if take {
                    out.extend(permits.take(limit));
                } else if !out.is_empty() {
                    drop(out.swap_remove(which % out.len()));
                }
                prop_assert_eq!(permits.active() as usize, out.len());
            }
            drop(out);
            prop_assert_eq!(permits.active(), 0);
        }
    }
}
