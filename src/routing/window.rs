//! What was measured of a target: the last answers, and how many requests it
//! had in a day.
//!
//! Averages are published in atomics, so that choosing a target takes no lock.
//! Adding a measurement never waits: one that would have to is left out.

use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};

use parking_lot::Mutex;

/// Measurements that are kept.
pub const KEPT: usize = 100;
const HOUR_MS: i64 = 3_600_000;
const HOURS: usize = 24;

/// One answer, or the lack of one. Times are milliseconds, speeds are tokens
/// per second.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Sample {
    /// Whether there was an answer.
    pub answered: bool,
    /// From sending to the first content.
    pub ttft_ms: Option<f32>,
    /// While the answer was written.
    pub speed: Option<f32>,
    /// Over the whole time.
    pub overall_speed: Option<f32>,
}

impl Sample {
    /// What an answer of `tokens` tokens says, that took `duration_ms` in all
    /// and `ttft_ms` to begin; the latter is not known of a document.
    #[must_use]
    pub fn of_answer(tokens: u64, duration_ms: f64, ttft_ms: Option<f64>) -> Self {
        let per_second = |ms: f64| {
            let speed = (tokens as f64) * 1000.0 / ms;
            (tokens > 0 && ms >= 1.0).then_some(speed as f32)
        };
        Self {
            answered: true,
            ttft_ms: Some(ttft_ms.unwrap_or(duration_ms) as f32),
            speed: per_second(duration_ms - ttft_ms.unwrap_or(0.0)),
            overall_speed: per_second(duration_ms),
        }
    }
}

/// Averages over a window; `None` without data.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Averages {
    /// Measurements in the window.
    pub samples: u32,
    /// When the last one was added.
    pub updated: i64,
    /// Milliseconds to the first content.
    pub ttft_ms: Option<f32>,
    /// Tokens per second while the answer was written.
    pub speed: Option<f32>,
    /// Tokens per second over the whole time.
    pub overall_speed: Option<f32>,
}

/// The mean of measurements, and the outermost of them.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Extent {
    /// Their mean.
    pub mean: f32,
    /// The smallest.
    pub least: f32,
    /// The largest.
    pub most: f32,
}

impl Extent {
    fn of(values: impl Iterator<Item = f32>) -> Option<Self> {
        let (mut sum, mut count) = (0.0_f64, 0_u32);
        let (mut least, mut most) = (f32::INFINITY, f32::NEG_INFINITY);
        for value in values {
            sum += f64::from(value);
            count += 1;
            least = least.min(value);
            most = most.max(value);
        }
        (count > 0).then(|| Self {
            mean: (sum / f64::from(count)) as f32,
            least,
            most,
        })
    }
}

/// All that a window says.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Statistics {
    /// Measurements in the window.
    pub samples: u32,
    /// Those of answers.
    pub answered: u32,
    /// When the last one was added.
    pub updated: i64,
    /// Milliseconds to the first content.
    pub ttft_ms: Option<Extent>,
    /// Tokens per second while the answer was written.
    pub speed: Option<Extent>,
    /// Tokens per second over the whole time.
    pub overall_speed: Option<Extent>,
}

/// The measurements of one target.
#[derive(Debug)]
pub struct Window {
    ring: Mutex<Ring>,
    samples: AtomicU32,
    updated: AtomicI64,
    ttft: AtomicU32,
    speed: AtomicU32,
    overall: AtomicU32,
    day: Day,
}

#[derive(Debug, Default)]
struct Ring {
    samples: Vec<Sample>,
    next: usize,
    ttft: Sum,
    speed: Sum,
    overall: Sum,
}

impl Ring {
    /// Adds a sample in the place of the oldest. To walk all of them for each
    /// answer would cost as much as half of the answer's head.
    fn add(&mut self, sample: Sample) {
        if self.samples.len() < KEPT {
            self.samples.push(sample);
            self.count(sample);
            return;
        }
        let oldest = std::mem::replace(&mut self.samples[self.next], sample);
        self.next = (self.next + 1) % KEPT;
        if self.next == 0 {
            // What rounding leaves behind doesn't outlive a round.
            self.recount();
            return;
        }
        self.ttft.take(oldest.ttft_ms);
        self.speed.take(oldest.speed);
        self.overall.take(oldest.overall_speed);
        self.count(sample);
    }

    fn count(&mut self, sample: Sample) {
        self.ttft.add(sample.ttft_ms);
        self.speed.add(sample.speed);
        self.overall.add(sample.overall_speed);
    }

    fn recount(&mut self) {
        (self.ttft, self.speed, self.overall) = Default::default();
        for at in 0..self.samples.len() {
            self.count(self.samples[at]);
        }
    }
}

/// A sum, and how many values it is of.
#[derive(Debug, Default, Clone, Copy)]
struct Sum {
    total: f64,
    count: u32,
}

impl Sum {
    fn add(&mut self, value: Option<f32>) {
        if let Some(value) = value {
            self.total += f64::from(value);
            self.count += 1;
        }
    }

    fn take(&mut self, value: Option<f32>) {
        if let Some(value) = value {
            self.total -= f64::from(value);
            self.count -= 1;
        }
        if self.count == 0 {
            self.total = 0.0;
        }
    }

    /// The average's bits; NaN, when there is none, stands for just that.
    fn average(self) -> u32 {
        ((self.total / f64::from(self.count)) as f32).to_bits()
    }
}

impl Default for Window {
    fn default() -> Self {
        let none = || AtomicU32::new(f32::NAN.to_bits());
        Self {
            ring: Mutex::default(),
            samples: AtomicU32::new(0),
            updated: AtomicI64::new(0),
            ttft: none(),
            speed: none(),
            overall: none(),
            day: Day::default(),
        }
    }
}

impl Window {
    /// Adds a measurement; the oldest goes when there are too many.
    pub fn add(&self, sample: Sample, now: i64) {
        let Some(mut ring) = self.ring.try_lock() else {
            return;
        };
        ring.add(sample);
        self.ttft.store(ring.ttft.average(), Ordering::Relaxed);
        self.speed.store(ring.speed.average(), Ordering::Relaxed);
        self.overall
            .store(ring.overall.average(), Ordering::Relaxed);
        let samples = u32::try_from(ring.samples.len()).unwrap_or(u32::MAX);
        self.samples.store(samples, Ordering::Relaxed);
        self.updated.fetch_max(now, Ordering::Relaxed);
    }

    /// The averages as they are.
    #[must_use]
    pub fn averages(&self) -> Averages {
        Averages {
            samples: self.samples.load(Ordering::Relaxed),
            updated: self.updated.load(Ordering::Relaxed),
            ttft_ms: self.ttft_ms(),
            speed: self.speed(),
            overall_speed: self.overall_speed(),
        }
    }

    /// All that it says. A measurement that comes meanwhile is left out.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        let ring = self.ring.lock();
        let samples = ring.samples.iter();
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        Statistics {
            samples: number(samples.len()),
            answered: number(samples.clone().filter(|sample| sample.answered).count()),
            updated: self.updated(),
            ttft_ms: Extent::of(samples.clone().filter_map(|sample| sample.ttft_ms)),
            speed: Extent::of(samples.clone().filter_map(|sample| sample.speed)),
            overall_speed: Extent::of(samples.filter_map(|sample| sample.overall_speed)),
        }
    }

    /// Milliseconds to the first content.
    #[must_use]
    pub fn ttft_ms(&self) -> Option<f32> {
        known(&self.ttft)
    }

    /// Tokens per second while answers were written.
    #[must_use]
    pub fn speed(&self) -> Option<f32> {
        known(&self.speed)
    }

    /// Tokens per second over the whole time of answers.
    #[must_use]
    pub fn overall_speed(&self) -> Option<f32> {
        known(&self.overall)
    }

    /// Measurements in the window.
    #[must_use]
    pub fn samples(&self) -> u32 {
        self.samples.load(Ordering::Relaxed)
    }

    /// When the last measurement was added; 0 is never.
    #[must_use]
    pub fn updated(&self) -> i64 {
        self.updated.load(Ordering::Relaxed)
    }

    /// A request goes to the target.
    pub fn used(&self, now: i64, times: u32) {
        self.day.add(now, times);
    }

    /// Requests of the last 24 hours, to the hour.
    #[must_use]
    pub fn used_in_a_day(&self, now: i64) -> u32 {
        self.day.count(now)
    }

    /// Forgets all measurements.
    pub fn forget(&self) {
        *self.ring.lock() = Ring::default();
        for average in [&self.ttft, &self.speed, &self.overall] {
            average.store(f32::NAN.to_bits(), Ordering::Relaxed);
        }
        self.samples.store(0, Ordering::Relaxed);
        self.updated.store(0, Ordering::Relaxed);
    }
}

fn known(value: &AtomicU32) -> Option<f32> {
    let value = f32::from_bits(value.load(Ordering::Relaxed));
    (!value.is_nan()).then_some(value)
}

/// Requests by the hour. Each number carries the hour that it is of in its high
/// half, so that old ones need not be cleared.
#[derive(Debug, Default)]
struct Day {
    hours: [AtomicU64; HOURS],
    total: AtomicU64,
}

impl Day {
    fn add(&self, now: i64, times: u32) {
        let hour = hour_of(now);
        let slot = &self.hours[hour as usize % HOURS];
        bump(slot, hour, times, || 0);
        bump(&self.total, hour, times, || {
            self.sum(hour).saturating_sub(times)
        });
    }

    fn count(&self, now: i64) -> u32 {
        let hour = hour_of(now);
        let (known, count) = halves(self.total.load(Ordering::Relaxed));
        if known == hour { count } else { self.sum(hour) }
    }

    fn sum(&self, hour: u32) -> u32 {
        let recent = hour.saturating_sub(HOURS as u32 - 1)..=hour;
        let counts = self.hours.iter().map(|slot| {
            let (of, count) = halves(slot.load(Ordering::Relaxed));
            if recent.contains(&of) { count } else { 0 }
        });
        counts.fold(0, u32::saturating_add)
    }
}

/// Adds to a count of that hour; one of another hour starts anew from `fresh`.
fn bump(slot: &AtomicU64, hour: u32, times: u32, fresh: impl Fn() -> u32) {
    let more = |packed| {
        let (of, count) = halves(packed);
        let base = if of == hour { count } else { fresh() };
        Some((u64::from(hour) << 32) | u64::from(base.saturating_add(times)))
    };
    let _always = slot.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
}

const fn halves(packed: u64) -> (u32, u32) {
    ((packed >> 32) as u32, packed as u32)
}

fn hour_of(now: i64) -> u32 {
    u32::try_from(now.div_euclid(HOUR_MS)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn averages_are_those_of_the_last_measurements() {
        let window = Window::default();
        assert_eq!(window.averages(), Averages::default());
        for i in 0..250_u16 {
            let sample = Sample {
                answered: true,
                ttft_ms: Some(f32::from(i)),
                ..Sample::default()
            };
            window.add(sample, i64::from(i));
        }
        let averages = window.averages();
        assert_eq!((averages.samples, averages.updated), (100, 249));
        assert_eq!(averages.ttft_ms, Some(199.5));
        assert_eq!(averages.speed, None);
        window.forget();
        assert_eq!(window.averages(), Averages::default());
    }

    #[test]
    fn statistics_tell_answers_from_failures_and_name_the_outermost() {
        let window = Window::default();
        assert_eq!(window.statistics(), Statistics::default());
        for ms in [30.0, 10.0, 20.0] {
            window.add(Sample::of_answer(100, ms, None), 1);
        }
        window.add(Sample::default(), 2);
        let statistics = window.statistics();
        assert_eq!((statistics.samples, statistics.answered), (4, 3));
        let ttft = statistics
            .ttft_ms
            .map(|ttft| (ttft.least, ttft.mean, ttft.most));
        assert_eq!(ttft, Some((10.0, 20.0, 30.0)));
    }

    #[test]
    fn a_failure_is_a_measurement_without_numbers() {
        let window = Window::default();
        window.add(Sample::default(), 5);
        assert_eq!(window.samples(), 1);
        assert_eq!(window.ttft_ms(), None, "and must not look like 0 ms");
    }

    #[test]
    fn speeds_count_from_the_first_content_or_over_all() {
        let streamed = Sample::of_answer(100, 2000.0, Some(1000.0));
        assert_eq!(streamed.speed, Some(100.0));
        assert_eq!(streamed.overall_speed, Some(50.0));
        let document = Sample::of_answer(100, 2000.0, None);
        assert_eq!(document.ttft_ms, Some(2000.0));
        assert_eq!(document.speed, Some(50.0));
        assert_eq!(Sample::of_answer(0, 10.0, None).speed, None);
        assert_eq!(Sample::of_answer(5, 0.0, Some(0.0)).speed, None);
    }

    proptest! {
        #[test]
        fn averages_are_what_adding_up_would_give(
            speeds in proptest::collection::vec(proptest::option::of(0.001_f32..5000.0), 1..350)
        ) {
            let window = Window::default();
            for speed in &speeds {
                window.add(Sample { speed: *speed, ..Sample::default() }, 0);
            }
            let last = &speeds[speeds.len().saturating_sub(KEPT)..];
            let known: Vec<f64> = last.iter().copied().flatten().map(f64::from).collect();
            let average = known.iter().sum::<f64>() / known.len() as f64;
            match window.speed() {
                Some(speed) => prop_assert!((f64::from(speed) - average).abs() <= average * 1e-6),
                None => prop_assert!(known.is_empty()),
            }
        }

        #[test]
        fn a_days_requests_are_those_of_the_last_24_hours(
            steps in proptest::collection::vec((0..20_000_000_i64, 1..5_u32), 1..100)
        ) {
            let window = Window::default();
            let mut now = 1_795_197_600_000;
            let mut all: Vec<(i64, u32)> = Vec::new();
            for (wait, times) in steps {
                now += wait;
                window.used(now, times);
                all.push((now.div_euclid(HOUR_MS), times));
                let hour = now.div_euclid(HOUR_MS);
                let expected: u32 = all
                    .iter()
                    .filter(|(of, _)| *of > hour - 24)
                    .map(|(_, times)| times)
                    .sum();
                prop_assert_eq!(window.used_in_a_day(now), expected);
            }
        }
    }
}
