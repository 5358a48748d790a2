//! Random numbers for choosing between targets: cheap, and the same again for
//! the same seed. Nothing secret is made of them.

/// A sequence of random numbers (SplitMix64: Steele, Lea, Flood, 2014).
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// The sequence of that seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub const fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let state = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let state = (state ^ (state >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        state ^ (state >> 31)
    }

    /// A number below `end`; 0 when there is none.
    pub fn below(&mut self, end: usize) -> usize {
        // The high half of a product spreads evenly without a division.
        let product = u128::from(self.bits()) * (end as u128);
        usize::try_from(product >> 64).unwrap_or(0)
    }

    /// A number from 0 to 1, neither of them included.
    pub fn fraction(&mut self) -> f64 {
        ((self.bits() >> 11) as f64 + 0.5) / ((1_u64 << 53) as f64)
    }

    /// Whether an event of that probability comes about.
    pub fn happens(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.fraction() < probability
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_below_their_end_and_reach_all_of_it() {
        let mut dice = Dice::new(1);
        let mut seen = [0_u32; 7];
        for _ in 0..7000 {
            seen[dice.below(7)] += 1;
        }
        assert!(seen.iter().all(|count| (850..1150).contains(count)));
        assert_eq!(dice.below(0), 0);
        assert_eq!(dice.below(1), 0);
    }

    #[test]
    fn what_is_certain_happens_and_what_is_impossible_does_not() {
        let mut dice = Dice::new(9);
        assert!((0..1000).all(|_| dice.happens(1.0)));
        assert!((0..1000).all(|_| !dice.happens(0.0)));
    }
}
