//! What a request is likely to take, learned from what requests of the same key
//! for the same alias took: so much is reserved until the truth is known.
//!
//! What clients say they want at most (`max_tokens`) is no guide: agents ask
//! for tens of thousands and take hundreds, and a budget would be full of
//! reservations that nobody uses.
//!
//! A table of fixed size without locks. Two that meet in a slot displace one
//! another, two cores that learn at once may lose one lesson: estimates may.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};

/// Slots; a power of two.
const SLOTS: usize = 2048;

/// Output tokens that are taken for likely while nothing is known.
const UNKNOWN_OUTPUT: f32 = 4096.0;
/// Bytes of prompt to a token, while nothing is known.
const BYTES_TO_TOKEN: f32 = 4.0;

/// How much a new lesson counts beside the old ones, for the mean and for how
/// far they lie from it (RFC 6298 has the same figures for times).
const MEAN_GAIN: f32 = 0.125;
const SPREAD_GAIN: f32 = 0.25;

/// What is known of a request before it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prompt {
    /// Bytes of it that are text.
    pub bytes: u64,
    /// Whether text is asked for.
    pub generates: bool,
    /// Nano-dollars for a token of the dearest target, as far as known.
    pub nanos_per_token: u64,
}

/// What a request took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spent {
    /// Tokens read, of all kinds.
    pub input: u64,
    /// Tokens written, reasoning included.
    pub output: u64,
    /// Nano-dollars.
    pub nanos: u64,
}

impl Spent {
    /// All its tokens.
    #[must_use]
    pub const fn tokens(&self) -> u64 {
        self.input.saturating_add(self.output)
    }
}

/// What a request is likely to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estimate {
    /// Tokens of the prompt.
    pub input: u64,
    /// Tokens of all kinds.
    pub tokens: u64,
    /// Nano-dollars.
    pub nanos: u64,
}

/// Where a key's requests for an alias are looked up, and that alias's of any
/// key.
#[derive(Debug, Clone, Copy)]
pub struct Places {
    own: u64,
    any: u64,
}

impl Places {
    /// Those of a key and an alias.
    #[must_use]
    pub fn of(key: &str, alias: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        alias.hash(&mut hasher);
        let any = hasher.finish() | 1;
        key.hash(&mut hasher);
        let own = hasher.finish() | 1;
        Self { own, any }
    }
}

/// What was learned.
#[derive(Debug)]
pub(super) struct Guesses {
    slots: Box<[Slot]>,
}

impl Default for Guesses {
    fn default() -> Self {
        Self {
            slots: (0..SLOTS).map(|_| Slot::default()).collect(),
        }
    }
}

impl Guesses {
    /// What such a request is likely to take.
    #[must_use]
    pub(super) fn estimate(&self, places: Places, prompt: Prompt) -> Estimate {
        let slot = self.find(places.own).or_else(|| self.find(places.any));
        let ratio = slot.and_then(|slot| slot.ratio.high()).unwrap_or(1.0);
        let output = slot.and_then(|slot| slot.output.high());
        let output = output.unwrap_or(if prompt.generates {
            UNKNOWN_OUTPUT
        } else {
            0.0
        });
        let input = prompt_tokens(prompt) * ratio;
        let tokens = input + output;
        let price = slot.and_then(|slot| slot.price.high());
        let price = price.unwrap_or(prompt.nanos_per_token as f32);
        Estimate {
            input: input.round() as u64,
            tokens: tokens.round() as u64,
            nanos: (tokens * price).round() as u64,
        }
    }

    /// Takes up what such a request took.
    pub(super) fn learn(&self, places: Places, prompt: Prompt, spent: Spent) {
        for place in [places.own, places.any] {
            let slot = self.claim(place);
            let expected = prompt_tokens(prompt);
            if expected >= 1.0 && spent.input > 0 {
                slot.ratio.learn(spent.input as f32 / expected);
            }
            let output = if expected >= 1.0 {
                spent.output
            } else {
                spent.tokens()
            };
            slot.output.learn(output as f32);
            if spent.tokens() > 0 {
                slot.price.learn(spent.nanos as f32 / spent.tokens() as f32);
            }
        }
    }

    /// Takes up what such a request took before the start; how long its prompt was
    /// is not known.
    pub(super) fn recall(&self, places: Places, output: u64, tokens: u64, nanos: Option<u64>) {
        for place in [places.own, places.any] {
            let slot = self.claim(place);
            slot.output.learn(output as f32);
            if let Some(nanos) = nanos.filter(|_| tokens > 0) {
                slot.price.learn(nanos as f32 / tokens as f32);
            }
        }
    }

    fn pair(&self, place: u64) -> [&Slot; 2] {
        let first = (place >> 8) as usize & (SLOTS - 2);
        [&self.slots[first], &self.slots[first + 1]]
    }

    fn find(&self, place: u64) -> Option<&Slot> {
        let mut pair = self.pair(place).into_iter();
        pair.find(|slot| slot.place.load(Ordering::Relaxed) == place)
    }

    /// The slot of that place; a free one of its two, or the first, is taken.
    fn claim(&self, place: u64) -> &Slot {
        if let Some(known) = self.find(place) {
            return known;
        }
        let [first, second] = self.pair(place);
        let free = second.place.load(Ordering::Relaxed) == 0;
        let taken = first.place.load(Ordering::Relaxed) != 0;
        let slot = if taken && free { second } else { first };
        for lesson in [&slot.output, &slot.ratio, &slot.price] {
            lesson.0.store(UNKNOWN, Ordering::Relaxed);
        }
        slot.place.store(place, Ordering::Relaxed);
        slot
    }
}

fn prompt_tokens(prompt: Prompt) -> f32 {
    prompt.bytes as f32 / BYTES_TO_TOKEN
}

#[derive(Debug)]
struct Slot {
    place: AtomicU64,
    /// Tokens written.
    output: Lesson,
    /// Tokens read, as a multiple of what the prompt's size lets expect.
    ratio: Lesson,
    /// Nano-dollars for a token.
    price: Lesson,
}

impl Default for Slot {
    fn default() -> Self {
        let lesson = || Lesson(AtomicU64::new(UNKNOWN));
        Self {
            place: AtomicU64::new(0),
            output: lesson(),
            ratio: lesson(),
            price: lesson(),
        }
    }
}

/// A mean and how far samples lie from it: two numbers of 32 bits.
#[derive(Debug)]
struct Lesson(AtomicU64);

/// No mean and no spread look like this.
const UNKNOWN: u64 = u64::MAX;

impl Lesson {
    fn read(&self) -> Option<(f32, f32)> {
        let bits = self.0.load(Ordering::Relaxed);
        let half = |shift: u32| f32::from_bits((bits >> shift) as u32);
        (bits != UNKNOWN).then(|| (half(32), half(0)))
    }

    /// What few samples lie above.
    fn high(&self) -> Option<f32> {
        self.read().map(|(mean, spread)| mean + 2.0 * spread)
    }

    fn learn(&self, sample: f32) {
        let (mean, spread) = match self.read() {
            None => (sample, sample * MEAN_GAIN),
            Some((mean, spread)) => {
                let off = sample - mean;
                (
                    mean + off * MEAN_GAIN,
                    spread + (off.abs() - spread) * SPREAD_GAIN,
                )
            }
        };
        let bits = (u64::from(mean.to_bits()) << 32) | u64::from(spread.to_bits());
        self.0.store(bits, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROMPT: Prompt = Prompt {
        bytes: 400,
        generates: true,
        nanos_per_token: 10,
    };

    fn spent(input: u64, output: u64, nanos: u64) -> Spent {
        Spent {
            input,
            output,
            nanos,
        }
    }

    #[test]
    fn what_is_not_known_is_taken_for_much() {
        let guesses = Guesses::default();
        let estimate = guesses.estimate(Places::of("k", "a"), PROMPT);
        assert_eq!((estimate.tokens, estimate.nanos), (4196, 41_960));
        let silent = Prompt {
            generates: false,
            ..PROMPT
        };
        assert_eq!(guesses.estimate(Places::of("k", "a"), silent).tokens, 100);
    }

    #[test]
    fn what_is_always_the_same_is_known_exactly_soon() {
        let guesses = Guesses::default();
        let places = Places::of("k", "a");
        for lessons in 1..=40 {
            guesses.learn(places, PROMPT, spent(120, 300, 4200));
            let estimate = guesses.estimate(places, PROMPT);
            let over = estimate.tokens - 420;
            assert!(over <= 420 / 4, "after {lessons}: {over}");
            assert!(lessons < 12 || over < 10, "after {lessons}: {over}");
        }
        let estimate = guesses.estimate(places, PROMPT);
        assert_eq!((estimate.tokens, estimate.nanos), (420, 4200));
        // Twice the prompt, twice the input.
        let long = Prompt {
            bytes: 800,
            ..PROMPT
        };
        assert_eq!(guesses.estimate(places, long).tokens, 540);
    }

    #[test]
    fn a_key_that_is_new_to_an_alias_is_judged_by_the_others() {
        let guesses = Guesses::default();
        for _ in 0..40 {
            guesses.learn(Places::of("k", "a"), PROMPT, spent(100, 50, 0));
        }
        assert_eq!(guesses.estimate(Places::of("new", "a"), PROMPT).tokens, 150);
        assert_eq!(guesses.estimate(Places::of("k", "b"), PROMPT).tokens, 4196);
    }

    #[test]
    fn what_varies_is_estimated_above_its_mean() {
        let guesses = Guesses::default();
        let places = Places::of("k", "a");
        for turn in 0..200 {
            guesses.learn(places, PROMPT, spent(100, 100 + 400 * (turn % 2), 0));
        }
        let tokens = guesses.estimate(places, PROMPT).tokens;
        assert!((600..=900).contains(&tokens), "{tokens}");
    }

    #[test]
    fn more_pairs_than_slots_displace_one_another_and_nothing_grows() {
        let guesses = Guesses::default();
        for number in 0..10_000 {
            let alias = format!("a{number}");
            guesses.learn(Places::of("k", &alias), PROMPT, spent(100, 7, 0));
        }
        assert_eq!(guesses.slots.len(), SLOTS);
        let last = Places::of("k", "a9999");
        // One lesson, and a quarter for what it may be off.
        assert_eq!(guesses.estimate(last, PROMPT).tokens, 134);
    }
}
