//! Money: US dollars in whole nano-dollars, and what a request cost by kind of
//! token. Sums of whole numbers balance; sums of floats don't.

use std::iter::Sum;

/// Nano-dollars in a dollar.
const PER_DOLLAR: f64 = 1e9;

/// The digit that is shown last: the eighth behind the point.
const SHOWN: u64 = 10;

/// US dollars, in whole nano-dollars; never negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nanos(pub u64);

impl Nanos {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// The nearest whole amount. `None` for what is no amount: negative, not a
    /// number, or more than ten billion dollars.
    #[must_use]
    pub fn from_dollars(dollars: f64) -> Option<Self> {
        const MOST: f64 = 1e10;
        (0.0..=MOST)
            .contains(&dollars)
            .then(|| Self((dollars * PER_DOLLAR).round() as u64))
    }

    /// Dollars, for sums that need no last digit.
    #[must_use]
    pub fn dollars(self) -> f64 {
        self.0 as f64 / PER_DOLLAR
    }

    /// Dollars as they are shown: to eight digits behind the point.
    #[must_use]
    pub fn shown(self) -> f64 {
        // Divided once, so that the nearest float is the one that prints short.
        (self.0.saturating_add(SHOWN / 2) / SHOWN) as f64 / (PER_DOLLAR / SHOWN as f64)
    }

    /// The sum, at most the largest amount there is.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl Sum for Nanos {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::ZERO, Self::plus)
    }
}

/// What a request cost, by kind of token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Input outside the cache, and what is charged per request.
    pub input: Nanos,
    /// Output, reasoning included.
    pub output: Nanos,
    /// Input read from the cache.
    pub cached: Nanos,
    /// Input written to the cache.
    pub cache_write: Nanos,
}

impl Cost {
    /// All of it.
    #[must_use]
    pub fn total(&self) -> Nanos {
        [self.input, self.output, self.cached, self.cache_write]
            .into_iter()
            .sum()
    }

    /// The same proportions with another total. Without any proportions all of it
    /// is input.
    #[must_use]
    pub fn scaled_to(&self, total: Nanos) -> Self {
        let whole = u128::from(self.total().0);
        let part = |part: Nanos| {
            let scaled = (u128::from(part.0) * u128::from(total.0))
                .checked_div(whole)
                .unwrap_or(0);
            Nanos(u64::try_from(scaled).unwrap_or(u64::MAX))
        };
        let mut scaled = Self {
            input: Nanos::ZERO,
            output: part(self.output),
            cached: part(self.cached),
            cache_write: part(self.cache_write),
        };
        // What is lost by cutting each part off is put to the input.
        scaled.input = Nanos(total.0.saturating_sub(scaled.total().0));
        scaled
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn dollars_become_whole_and_nonsense_becomes_nothing() {
        assert_eq!(Nanos::from_dollars(0.00123), Some(Nanos(1_230_000)));
        assert_eq!(Nanos::from_dollars(0.0), Some(Nanos::ZERO));
        for nonsense in [-0.1, f64::NAN, f64::INFINITY, 1e11] {
            assert_eq!(Nanos::from_dollars(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn eight_digits_are_shown() {
        assert_eq!(Nanos(573_000).shown().to_string(), "0.000573");
        assert_eq!(Nanos(12_345_678_914).shown().to_string(), "12.34567891");
        assert_eq!(Nanos(12_345_678_915).shown().to_string(), "12.34567892");
        assert_eq!(Nanos(4).shown().to_string(), "0");
    }

    proptest! {
        #[test]
        fn scaling_keeps_the_total(parts in any::<[u32; 4]>(), total in 0_u64..1_000_000_000_000) {
            let [input, output, cached, cache_write] = parts.map(|part| Nanos(u64::from(part)));
            let cost = Cost { input, output, cached, cache_write };
            prop_assert_eq!(cost.scaled_to(Nanos(total)).total(), Nanos(total));
        }
    }
}
