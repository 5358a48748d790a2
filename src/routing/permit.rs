//! How many requests may be under way at once: to a provider, to a target, for
//! a key.
//!
//! A [`Permit`] is given back by being dropped, on whatever path that happens.
//! Those who find no permit may wait in a short line, and get what comes back
//! in the order in which they came: nobody who came later takes a permit while
//! somebody waits for it.
//!
//! A permit that comes back is told to the first in the line, who looks whether
//! all that it needs is there. Whoever leaves a line, with a permit or without,
//! tells the next one if there is room left. Nothing here knows time.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

/// Most requests that wait for permits of one limit.
const QUEUE: usize = 64;

/// Where those who begin to wait get their numbers.
#[derive(Debug, Default)]
pub struct Tickets(AtomicU64);

/// A place in the order of those who wait: earlier ones are smaller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

impl Ticket {
    /// Of somebody who does not wait: behind all who do.
    pub const NONE: Self = Self(u64::MAX);
}

/// Somebody who waits, maybe in several lines.
#[derive(Debug)]
struct Turn {
    ticket: Ticket,
    /// Whether there is something to look at.
    told: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Turn {
    fn tell(&self) {
        self.told.store(true, Ordering::SeqCst);
        let waker = self.waker.lock().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Whether it was told something. Whoever is told after that is woken.
    fn is_told(&self, cx: &Context<'_>) -> bool {
        *self.waker.lock() = Some(cx.waker().clone());
        self.told.swap(false, Ordering::SeqCst)
    }
}

/// One limit's count, and the line before it.
#[derive(Debug)]
pub struct Permits {
    active: AtomicU32,
    line: Mutex<VecDeque<Arc<Turn>>>,
    /// The line's length, to be read without its lock.
    queued: AtomicU32,
    tickets: Arc<Tickets>,
}

impl Permits {
    /// A count at zero. Limits that somebody may wait for at the same time have
    /// the same tickets.
    #[must_use]
    pub fn new(tickets: &Arc<Tickets>) -> Arc<Self> {
        Arc::new(Self {
            active: AtomicU32::new(0),
            line: Mutex::default(),
            queued: AtomicU32::new(0),
            tickets: Arc::clone(tickets),
        })
    }

    /// A permit, if fewer than `limit` are out and nobody with an earlier ticket
    /// waits for one. The limit is told each time: the configuration may have
    /// changed it.
    #[must_use]
    pub fn take(self: &Arc<Self>, limit: u32, ticket: Ticket) -> Option<Permit> {
        if !self.is_turn_of(ticket) {
            return None;
        }
        let one_more = |active| (active < limit).then_some(active + 1);
        self.active
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more)
            .ok()
            .map(|_| Permit(Arc::clone(self)))
    }

    /// Whether [`take`](Self::take) would give one now.
    #[must_use]
    pub fn would_give(&self, limit: u32, ticket: Ticket) -> bool {
        self.active() < limit && self.is_turn_of(ticket)
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

    fn is_turn_of(&self, ticket: Ticket) -> bool {
        if self.queued() == 0 {
            return true;
        }
        let line = self.line.lock();
        line.front().is_none_or(|first| ticket <= first.ticket)
    }

    /// Puts somebody into the line, before those who came later. Says whether
    /// there was a place.
    fn join(&self, turn: &Arc<Turn>, most: usize) -> bool {
        let mut line = self.line.lock();
        if line.len() >= most {
            return false;
        }
        let earlier = line.iter().rposition(|known| known.ticket < turn.ticket);
        line.insert(earlier.map_or(0, |at| at + 1), Arc::clone(turn));
        self.queued.fetch_add(1, Ordering::SeqCst);
        true
    }

    fn leave(&self, turn: &Turn) {
        let mut line = self.line.lock();
        let place = line.iter().position(|known| known.ticket == turn.ticket);
        if place.and_then(|place| line.remove(place)).is_some() {
            self.queued.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// There may be a permit: the first who waits shall look.
    fn tell(&self) {
        if self.queued() > 0 {
            let first = self.line.lock().front().cloned();
            if let Some(first) = first {
                first.tell();
            }
        }
    }
}

/// One request under way.
#[derive(Debug)]
#[must_use = "dropping the permit gives it back"]
pub struct Permit(Arc<Permits>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::SeqCst);
        self.0.tell();
    }
}

/// A limit that was found reached.
#[derive(Debug, Clone)]
pub struct Reached {
    /// Whose permits are all out.
    pub permits: Arc<Permits>,
    /// How many that is.
    pub limit: u32,
}

impl Reached {
    fn tell_if_room(&self) {
        if self.permits.active() < self.limit {
            self.permits.tell();
        }
    }
}

/// A place in the lines before some limits; dropping it leaves them.
#[derive(Debug)]
#[must_use = "dropping the place leaves the lines"]
pub struct Place {
    turn: Arc<Turn>,
    lines: Vec<Reached>,
}

impl Place {
    /// At the end of the lines before `reached`, of which one at least must have
    /// room; `None` when none has.
    #[must_use]
    pub fn behind(reached: Vec<Reached>) -> Option<Self> {
        let mut reached = distinct(reached);
        let tickets = &reached.first()?.permits.tickets;
        let turn = Arc::new(Turn {
            ticket: Ticket(tickets.0.fetch_add(1, Ordering::SeqCst)),
            told: AtomicBool::new(false),
            waker: Mutex::default(),
        });
        reached.retain(|line| line.permits.join(&turn, QUEUE));
        let place = Self {
            turn,
            lines: reached,
        };
        // What came back just before is told to nobody else.
        place.lines.iter().for_each(Reached::tell_if_room);
        (!place.lines.is_empty()).then_some(place)
    }

    /// Lets `look`, which gets this place's ticket, look for something whenever
    /// it is this place's turn, until it finds it. `look` says which limits it
    /// found reached; `None` when it names none, for there is nothing to wait
    /// for then. Has no end by itself.
    pub async fn until<T>(
        mut self,
        mut look: impl FnMut(Ticket) -> Result<T, Vec<Reached>>,
    ) -> Option<T> {
        poll_fn(|cx| self.poll(cx, &mut look)).await
    }

    fn poll<T>(
        &mut self,
        cx: &Context<'_>,
        look: &mut impl FnMut(Ticket) -> Result<T, Vec<Reached>>,
    ) -> Poll<Option<T>> {
        if !self.turn.is_told(cx) {
            return Poll::Pending;
        }
        match look(self.turn.ticket) {
            Ok(found) => Poll::Ready(Some(found)),
            Err(reached) if reached.is_empty() => Poll::Ready(None),
            Err(reached) => {
                self.go_to(reached);
                Poll::Pending
            }
        }
    }

    /// Leaves the lines for others, in which the ticket says the place.
    fn go_to(&mut self, reached: Vec<Reached>) {
        let left = std::mem::replace(&mut self.lines, distinct(reached));
        for line in self.lines.iter().filter(|line| !is_in(&left, line)) {
            line.permits.join(&self.turn, usize::MAX);
        }
        for line in left.iter().filter(|line| !is_in(&self.lines, line)) {
            line.permits.leave(&self.turn);
            line.tell_if_room();
        }
        self.lines.iter().for_each(Reached::tell_if_room);
    }
}

fn is_in(lines: &[Reached], line: &Reached) -> bool {
    let mut lines = lines.iter();
    lines.any(|known| Arc::ptr_eq(&known.permits, &line.permits))
}

/// Each limit once: several targets may be behind the same.
fn distinct(reached: Vec<Reached>) -> Vec<Reached> {
    let mut lines: Vec<Reached> = Vec::with_capacity(reached.len());
    for line in reached {
        if !is_in(&lines, &line) {
            lines.push(line);
        }
    }
    lines
}

impl Drop for Place {
    fn drop(&mut self) {
        for line in &self.lines {
            line.permits.leave(&self.turn);
            line.tell_if_room();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::{Pin, pin};

    use proptest::prelude::*;

    use super::*;

    fn permits() -> Arc<Permits> {
        Permits::new(&Arc::default())
    }

    fn reached(permits: &Arc<Permits>, limit: u32) -> Reached {
        Reached {
            permits: Arc::clone(permits),
            limit,
        }
    }

    fn now(permits: &Arc<Permits>, limit: u32) -> Option<Permit> {
        permits.take(limit, Ticket::NONE)
    }

    type Waiting = Pin<Box<dyn Future<Output = Option<Permit>>>>;

    /// Somebody who waits for a permit of one limit.
    fn waiting(permits: &Arc<Permits>, limit: u32) -> impl Future<Output = Option<Permit>> + use<> {
        let line = reached(permits, limit);
        let place = Place::behind(vec![line.clone()]).unwrap();
        place.until(move |ticket| {
            let taken = line.permits.take(line.limit, ticket);
            taken.ok_or_else(|| vec![line.clone()])
        })
    }

    fn poll<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn no_more_permits_than_the_limit_are_out() {
        let permits = permits();
        let first = now(&permits, 2).unwrap();
        let _second = now(&permits, 2).unwrap();
        assert!(now(&permits, 2).is_none());
        assert!(now(&permits, 3).is_some(), "a limit can be raised");
        drop(first);
        assert!(now(&permits, 2).is_some());
        assert_eq!(permits.active(), 1);
    }

    #[test]
    fn who_waits_gets_a_permit_in_turn_and_nobody_overtakes() {
        let permits = permits();
        let held = now(&permits, 1).unwrap();
        let mut first = pin!(waiting(&permits, 1));
        let mut second = pin!(waiting(&permits, 1));
        assert!(poll(second.as_mut()).is_pending());
        assert!(poll(first.as_mut()).is_pending());
        drop(held);
        assert!(now(&permits, 1).is_none(), "two are waiting");
        assert!(poll(second.as_mut()).is_pending(), "one is before it");
        let Poll::Ready(Some(held)) = poll(first.as_mut()) else {
            panic!("it was its turn")
        };
        drop(held);
        assert!(matches!(poll(second.as_mut()), Poll::Ready(Some(_))));
        assert_eq!((permits.active(), permits.queued()), (0, 0));
        assert!(now(&permits, 1).is_some());
    }

    #[test]
    fn who_leaves_the_line_hands_its_turn_on() {
        let permits = permits();
        let held = now(&permits, 1).unwrap();
        let first = waiting(&permits, 1);
        let mut second = pin!(waiting(&permits, 1));
        assert!(poll(second.as_mut()).is_pending());
        drop(held);
        drop(first);
        assert!(matches!(poll(second.as_mut()), Poll::Ready(Some(_))));
    }

    #[test]
    fn who_needs_two_permits_holds_up_nobody_who_needs_one() {
        let tickets = Arc::default();
        let (whole, own) = (Permits::new(&tickets), Permits::new(&tickets));
        let (all_out, own_out) = (now(&whole, 1).unwrap(), now(&own, 1).unwrap());
        let both = [reached(&whole, 1), reached(&own, 1)];
        let place = Place::behind(vec![both[0].clone()]).unwrap();
        let mut needs_two = pin!(place.until(|ticket| {
            match both.iter().find(|line| !line.permits.would_give(1, ticket)) {
                Some(line) => Err(vec![line.clone()]),
                None => Ok(both.clone().map(|line| line.permits.take(1, ticket))),
            }
        }));
        let mut needs_one = pin!(waiting(&whole, 1));
        assert!(poll(needs_one.as_mut()).is_pending());
        drop(all_out);
        // It goes to the line of the other limit, and the next may have this one.
        assert!(poll(needs_two.as_mut()).is_pending());
        assert_eq!((whole.queued(), own.queued()), (1, 1));
        let Poll::Ready(Some(all_out)) = poll(needs_one.as_mut()) else {
            panic!("there was room")
        };
        drop(own_out);
        assert!(poll(needs_two.as_mut()).is_pending());
        let mut later = pin!(waiting(&whole, 1));
        drop(all_out);
        assert!(poll(later.as_mut()).is_pending(), "it came later");
        assert!(matches!(poll(needs_two.as_mut()), Poll::Ready(Some(_))));
        assert!(matches!(poll(later.as_mut()), Poll::Ready(Some(_))));
    }

    #[test]
    fn the_lines_are_short_and_empty_themselves() {
        let permits = permits();
        let line = || Place::behind(vec![reached(&permits, 0), reached(&permits, 0)]);
        let places: Vec<Place> = std::iter::from_fn(line).collect();
        assert_eq!(places.len(), QUEUE);
        drop(places);
        assert_eq!(permits.queued(), 0);
        assert!(Place::behind(Vec::new()).is_none());
    }

    #[test]
    fn with_nothing_to_wait_for_the_wait_ends() {
        let permits = permits();
        let place = Place::behind(vec![reached(&permits, 1)]).unwrap();
        let mut wait = pin!(place.until(|_| Err::<(), _>(Vec::new())));
        assert_eq!(poll(wait.as_mut()), Poll::Ready(None));
    }

    /// Polls until it is woken no more; blocks meanwhile.
    fn block_on<F: Future>(future: F) -> F::Output {
        struct Thread(std::thread::Thread);
        impl std::task::Wake for Thread {
            fn wake(self: Arc<Self>) {
                self.0.unpark();
            }
        }
        let waker = Waker::from(Arc::new(Thread(std::thread::current())));
        let mut future = pin!(future);
        loop {
            match future.as_mut().poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(output) => return output,
                Poll::Pending => std::thread::park(),
            }
        }
    }

    #[test]
    fn threads_that_race_never_exceed_the_limit_lose_no_turn_and_end_at_zero() {
        let permits = permits();
        let most = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        let taken = now(&permits, 3);
                        let held = taken.or_else(|| block_on(waiting(&permits, 3))).unwrap();
                        most.fetch_max(permits.active(), Ordering::SeqCst);
                        drop(held);
                    }
                });
            }
        });
        assert!(most.into_inner() <= 3);
        assert_eq!((permits.active(), permits.queued()), (0, 0));
    }

    proptest! {
        #[test]
        fn permits_return_to_zero_and_turns_keep_their_order_whatever_is_dropped_when(
            steps in proptest::collection::vec((0..4_u8, 0..16_usize), 0..300),
            limit in 1..4_u32
        ) {
            let permits = permits();
            let mut out = Vec::new();
            let mut line: VecDeque<(usize, Waiting)> = VecDeque::new();
            let (mut came, mut served) = (0, None);
            for (what, which) in steps {
                match what {
                    0 => match now(&permits, limit) {
                        Some(permit) => {
                            prop_assert!(line.is_empty(), "somebody was overtaken");
                            out.push(permit);
                        }
                        None if line.len() < QUEUE => {
                            came += 1;
                            line.push_back((came, Box::pin(waiting(&permits, limit))));
                        }
                        None => {}
                    },
                    1 if !out.is_empty() => drop(out.swap_remove(which % out.len())),
                    2 if !line.is_empty() => drop(line.remove(which % line.len())),
                    _ => {}
                }
                // In any order: who is not in turn must get nothing.
                for at in (0..line.len()).rev() {
                    let (number, future) = &mut line[at];
                    if let Poll::Ready(permit) = poll(future.as_mut()) {
                        prop_assert!(served.is_none_or(|last| last < *number));
                        served = Some(*number);
                        out.extend(permit);
                        line.remove(at);
                    }
                }
                prop_assert_eq!(permits.active() as usize, out.len());
                prop_assert!(out.len() <= limit as usize);
            }
            line.clear();
            out.clear();
            prop_assert_eq!((permits.active(), permits.queued()), (0, 0));
        }
    }
}
