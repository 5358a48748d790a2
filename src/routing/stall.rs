//! Whether a stream still flows: bytes of output over a sliding window, after
//! a time of grace. The clock is the caller's.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::config::Flow;

/// Parts of a window. What is in the oldest part leaves it all at once.
const PARTS: u32 = 16;

/// The output of one stream. Only what is output counts: who feeds this leaves
/// out heartbeats and comments.
#[derive(Debug)]
pub struct Throughput {
    flow: Flow,
    began: Instant,
    /// The number of a part of time, and the bytes that came in it.
    parts: VecDeque<(u32, u64)>,
    sum: u64,
}

impl Throughput {
    /// A stream whose first output came at `began`.
    #[must_use]
    pub fn new(flow: Flow, began: Instant) -> Self {
        Self {
            flow,
            began,
            parts: VecDeque::new(),
            sum: 0,
        }
    }

    /// Output came.
    pub fn add(&mut self, now: Instant, bytes: usize) {
        let part = self.part(now);
        self.expire(part);
        self.sum += bytes as u64;
        match self.parts.back_mut() {
            Some((last, sum)) if *last >= part => *sum += bytes as u64,
            _ => self.parts.push_back((part, bytes as u64)),
        }
    }

    /// Whether less came in the last window than has to.
    pub fn is_stalled(&mut self, now: Instant) -> bool {
        let part = self.part(now);
        self.expire(part);
        if self.in_grace(now) {
            return false;
        }
        let wanted = f64::from(self.flow.bytes_per_second) * self.flow.window.as_secs_f64();
        (self.sum as f64) < wanted
    }

    /// Whether it is too early to tell.
    #[must_use]
    pub fn in_grace(&self, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.began);
        elapsed < self.flow.grace.max(self.flow.window)
    }

    /// When to look next.
    #[must_use]
    pub fn next_look(&self, now: Instant) -> Instant {
        let first = self.began + self.flow.grace.max(self.flow.window);
        let step = (self.flow.window / 2).max(Duration::from_secs(1));
        first.max(now + step)
    }

    fn part(&self, now: Instant) -> u32 {
        let elapsed = now.saturating_duration_since(self.began);
        let part = elapsed.as_micros() / (self.flow.window / PARTS).as_micros().max(1);
        u32::try_from(part).unwrap_or(u32::MAX)
    }

    fn expire(&mut self, part: u32) {
        while let Some((oldest, bytes)) = self.parts.front()
            && oldest.saturating_add(PARTS) <= part
        {
            self.sum -= bytes;
            self.parts.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FLOW: Flow = Flow {
        bytes_per_second: 100,
        window: Duration::from_secs(4),
        grace: Duration::from_secs(10),
    };

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn nothing_stalls_within_the_time_of_grace() {
        let began = Instant::now();
        let mut throughput = Throughput::new(FLOW, began);
        assert!(!throughput.is_stalled(began + seconds(9.9)));
        assert!(throughput.is_stalled(began + seconds(10.0)));
    }

    #[test]
    fn a_stream_that_falls_silent_is_noticed_and_one_that_recovers_is_not() {
        let began = Instant::now();
        let mut throughput = Throughput::new(FLOW, began);
        let mut at = 0.0;
        while at < 20.0 {
            throughput.add(began + seconds(at), 60);
            assert!(!throughput.is_stalled(began + seconds(at)));
            at += 0.5;
        }
        assert!(!throughput.is_stalled(began + seconds(20.0)));
        assert!(throughput.is_stalled(began + seconds(22.0)));
        throughput.add(began + seconds(22.0), 400);
        assert!(!throughput.is_stalled(began + seconds(22.0)));
    }

    #[test]
    fn the_next_look_comes_after_the_grace_and_then_every_half_window() {
        let began = Instant::now();
        let throughput = Throughput::new(FLOW, began);
        assert_eq!(throughput.next_look(began), began + seconds(10.0));
        let later = began + seconds(30.0);
        assert_eq!(throughput.next_look(later), later + seconds(2.0));
    }

    proptest! {
        #[test]
        fn what_is_kept_is_bounded_and_what_counts_lies_in_the_window(
            steps in proptest::collection::vec((0.0..3.0_f64, 0..2000_usize), 0..300)
        ) {
            let began = Instant::now();
            let mut throughput = Throughput::new(FLOW, began);
            let mut at = 0.0;
            let mut all = Vec::new();
            for (wait, bytes) in steps {
                at += wait;
                throughput.add(began + seconds(at), bytes);
                all.push((at, bytes as u64));
                let within = |span: f64| -> u64 {
                    all.iter().filter(|(t, _)| at - t < span).map(|(_, b)| b).sum()
                };
                // A part of time leaves the window as a whole.
                prop_assert!(throughput.sum <= within(4.0 + 0.001));
                prop_assert!(throughput.sum >= within(4.0 - 0.251));
                prop_assert!(throughput.parts.len() <= PARTS as usize + 1);
            }
        }
    }
}
