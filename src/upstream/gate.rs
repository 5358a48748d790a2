//! A waker that stays silent while its owner is at work anyway.
//!
//! A connection that is driven inside the task that waits for it wakes that
//! very task with every chunk it hands over: the task would be run again for
//! what it has just taken. While the gate is closed such a wake is only noted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Wake, Waker};

use parking_lot::Mutex;

const OPEN: u8 = 0;
const CLOSED: u8 = 1;
const WOKEN: u8 = 2;

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Gate {
    state: AtomicU8,
    task: Mutex<Option<Waker>>,
}

impl Gate {
    /// From now on wakes are meant for `task`, and only noted.
    pub(super) fn close(&self, task: &Waker) {
        let mut known = self.task.lock();
        if !known.as_ref().is_some_and(|known| known.will_wake(task)) {
            *known = Some(task.clone());
        }
        drop(known);
        self.state.store(CLOSED, Ordering::Release);
    }

    /// Whether a wake was noted since the last question.
    pub(super) fn was_woken(&self) -> bool {
        self.state.swap(CLOSED, Ordering::AcqRel) == WOKEN
    }

    /// Wakes reach the task again, one that was noted at once.
    pub(super) fn open(&self) {
        if self.state.swap(OPEN, Ordering::AcqRel) == WOKEN {
            self.wake_task();
        }
    }

    /// The same, but one that was noted is let go: for a task that has been given
    /// something, and will ask again before it waits.
    pub(super) fn forget(&self) {
        self.state.store(OPEN, Ordering::Release);
    }

    fn wake_task(&self) {
        let task = self.task.lock().clone();
        if let Some(task) = task {
            task.wake();
        }
    }
}

impl Wake for Gate {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let noted = self
            .state
            .compare_exchange(CLOSED, WOKEN, Ordering::AcqRel, Ordering::Acquire);
        if noted == Err(OPEN) {
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
