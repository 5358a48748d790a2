//! Time limits that are nearly never reached.
//!
//! A timer costs most when it is set and when it is taken back, and that is
//! what happens to the limits of a request that goes well. An alarm is left
//! running instead: one that goes off before the time in question is set
//! again, which happens once per limit and not once per request.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, Sleep};

use crate::clock;

/// A timer that is used for one limit after another.
#[derive(Default)]
pub struct Alarm {
    sleep: Option<Pin<Box<Sleep>>>,
}

impl fmt::Debug for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set = self.sleep.as_ref().map(|sleep| sleep.deadline());
        f.debug_struct("Alarm").field("set", &set).finish()
    }
}

impl Alarm {
    /// Ready once `due` has passed. The task is woken then at the latest, and
    /// perhaps once before for a limit that is no longer asked about.
    pub fn poll_at(&mut self, due: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = self
            .sleep
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
        if due < sleep.deadline() {
            sleep.as_mut().reset(due);
        }
        loop {
            ready!(sleep.as_mut().poll(cx));
            if sleep.deadline() >= due {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(due);
        }
    }
}

/// Most alarms that are kept for the next request.
const KEPT: usize = 256;

/// The alarms of one core that nobody needs just now.
#[derive(Debug, Default)]
pub struct Alarms(Mutex<Vec<Alarm>>);

impl Alarms {
    /// Waits for `work` at most so long; `None` when it took longer. It is lent, as
    /// a future that is handed over takes up its room twice.
    pub async fn limit<T>(
        &self,
        limit: Duration,
        mut work: Pin<&mut impl Future<Output = T>>,
    ) -> Option<T> {
        // An alarm is asked for only once there is something to wait for.
        let due = Instant::from_std(clock::now()).checked_add(limit);
        let mut lent = Lent {
            alarms: self,
            alarm: None,
        };
        std::future::poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending => match due {
                Some(due) => lent.alarm().poll_at(due, cx).map(|()| None),
                None => Poll::Pending,
            },
        })
        .await
    }
}

/// An alarm that goes back when it is no longer needed, whatever happens.
struct Lent<'a> {
    alarms: &'a Alarms,
    alarm: Option<Alarm>,
}

impl Lent<'_> {
    fn alarm(&mut self) -> &mut Alarm {
        let alarms = self.alarms;
        self.alarm
            .get_or_insert_with(|| alarms.0.lock().pop().unwrap_or_default())
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        if let Some(alarm) = self.alarm.take() {
            let mut kept = self.alarms.0.lock();
            if kept.len() < KEPT {
                kept.push(alarm);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block_on<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap()
            .block_on(work)
    }

    const NEAR: Duration = Duration::from_millis(20);
    const FAR: Duration = Duration::from_millis(60);

    #[test]
    fn an_alarm_goes_off_at_the_limit_it_is_asked_about_last() {
        block_on(async {
            for [first, second] in [[NEAR, FAR], [FAR, NEAR], [NEAR, NEAR]] {
                let mut alarm = Alarm::default();
                let begun = Instant::now();
                std::future::poll_fn(|cx| {
                    assert!(alarm.poll_at(begun + first, cx).is_pending());
                    Poll::Ready(())
                })
                .await;
                std::future::poll_fn(|cx| alarm.poll_at(begun + second, cx)).await;
                assert!(begun.elapsed() >= second);
                // A later limit is not reached by what has gone off.
                let later = Instant::now() + FAR;
                std::future::poll_fn(|cx| {
                    assert!(alarm.poll_at(later, cx).is_pending());
                    Poll::Ready(())
                })
                .await;
            }
        });
    }

    #[test]
    fn work_is_limited_and_its_alarm_kept_for_the_next() {
        block_on(async {
            let alarms = Alarms::default();
            let kept = || alarms.0.lock().len();
            assert_eq!(
                alarms.limit(NEAR, std::pin::pin!(async { 1 })).await,
                Some(1)
            );
            assert_eq!(kept(), 0, "nothing was waited for");
            let yielded = alarms
                .limit(NEAR, std::pin::pin!(tokio::task::yield_now()))
                .await;
            assert_eq!((yielded, kept()), (Some(()), 1));
            // Its alarm is still set for an earlier time than this limit.
            let begun = Instant::now();
            let never = std::future::pending::<()>();
            assert_eq!(alarms.limit(FAR, std::pin::pin!(never)).await, None);
            assert!(begun.elapsed() >= FAR);
            assert_eq!(kept(), 1);
        });
    }
}
