//! A waker that stays silent while its owner is at work anyway.
//!
//! A connection that is driven inside the task that waits for it wakes that
//! very task with every chunk it hands over: the task would be run again for
//! what it has just taken. While the gate is closed such a wake is only noted.
//! What is noted from then on until it is closed the next time tells whether
//! there is anything to look for at all.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use parking_lot::Mutex;

/// Nothing happened since the gate was opened.
const OPEN: u8 = 0;
/// Wakes are noted.
const CLOSED: u8 = 1;
/// Closed, and one was noted.
const WOKEN: u8 = 2;
/// Open, and the task was woken.
const STIRRED: u8 = 3;

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Gate {
    state: AtomicU8,
    task: Mutex<Option<Waker>>,
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            // Whoever never looked has something to look for.
            state: AtomicU8::new(STIRRED),
            task: Mutex::default(),
        }
    }
}

impl Gate {
    /// From now on wakes are meant for `task`, and only noted.
    pub(crate) fn close(&self, task: &Waker) {
        self.meant_for(task);
        self.state.store(CLOSED, Ordering::Release);
    }

    /// Whether nothing woke since the gate was opened; it stays open then, and
    /// wakes are meant for `task`.
    pub(crate) fn is_quiet(&self, task: &Waker) -> bool {
        if self.state.load(Ordering::Acquire) != OPEN {
            return false;
        }
        self.meant_for(task);
        // One that came meanwhile may have woken the task before.
        self.state.load(Ordering::Acquire) == OPEN
    }

    fn meant_for(&self, task: &Waker) {
        let mut known = self.task.lock();
        if !known.as_ref().is_some_and(|known| known.will_wake(task)) {
            *known = Some(task.clone());
        }
    }

    /// Whether a wake was noted since the last question.
    pub(crate) fn was_woken(&self) -> bool {
        self.state.swap(CLOSED, Ordering::AcqRel) == WOKEN
    }

    /// Wakes reach the task again, one that was noted at once.
    pub(crate) fn open(&self) {
        let closed = self
            .state
            .compare_exchange(CLOSED, OPEN, Ordering::AcqRel, Ordering::Acquire);
        if closed == Err(WOKEN) {
            self.state.store(STIRRED, Ordering::Release);
            self.wake_task();
        }
    }

    /// Wakes reach the task again, but one that was noted is let go: for a task that
    /// has been given something, and will look again before it waits.
    pub(crate) fn forget(&self) {
        self.state.store(STIRRED, Ordering::Release);
    }

    fn wake_task(&self) {
        let task = self.task.lock().clone();
        if let Some(task) = task {
            task.wake();
        }
    }
}

/// How often a task is run again for what it did itself, before others get their turn.
const TURNS: usize = 8;

/// Something that is polled by one task and wakes that task while it is polled.
#[derive(Debug)]
pub(crate) struct Gated {
    gate: Arc<Gate>,
    /// The gate as a waker, made once.
    waker: Waker,
}

impl Default for Gated {
    fn default() -> Self {
        let gate = Arc::<Gate>::default();
        let waker = Waker::from(Arc::clone(&gate));
        Self { gate, waker }
    }
}

impl Gated {
    /// Polls it until it waits for somebody else.
    pub(crate) fn poll<T>(
        &self,
        cx: &Context<'_>,
        mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        self.gate.close(cx.waker());
        for _ in 0..TURNS {
            let polled = poll(&mut Context::from_waker(&self.waker));
            if polled.is_ready() || !self.gate.was_woken() {
                self.gate.open();
                return polled;
            }
        }
        self.gate.forget();
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Wake for Gate {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let heard = |state| match state {
            CLOSED => Some(WOKEN),
            OPEN => Some(STIRRED),
            _ => None,
        };
        let before = self
            .state
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, heard);
        // Woken once, a task looks before it waits again; but `forget` leaves one
        // that may wait for something else first.
        if matches!(before, Ok(OPEN) | Err(STIRRED)) {
            self.wake_task();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_wake_is_held_back_while_closed_and_never_lost() {
        let count = Arc::new(Count::default());
        let task = Waker::from(Arc::clone(&count));
        let gate = Arc::new(Gate::default());
        let waker = Waker::from(Arc::clone(&gate));
        gate.close(&task);
        waker.wake_by_ref();
        assert_eq!(count.0.load(Ordering::SeqCst), 0);
        assert!(gate.was_woken());
        assert!(!gate.was_woken());
        gate.open();
        assert_eq!(count.0.load(Ordering::SeqCst), 0);
        waker.wake_by_ref();
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        gate.close(&task);
        waker.wake_by_ref();
        waker.wake_by_ref();
        gate.open();
        assert_eq!(count.0.load(Ordering::SeqCst), 2);
        gate.close(&task);
        waker.wake_by_ref();
        gate.forget();
        assert_eq!(count.0.load(Ordering::SeqCst), 2);
        waker.wake_by_ref();
        assert_eq!(count.0.load(Ordering::SeqCst), 3);
    }
}
