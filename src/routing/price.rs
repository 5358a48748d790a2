//! What a target costs, as one number to compare targets by.

use crate::config::{PriceSource, Pricing, Provider, Rates};

/// The request that prices are compared for, in tokens.
const INPUT: f64 = 1000.0;
const OUTPUT: f64 = 500.0;

/// US dollars for 1000 input and 500 output tokens, discounts taken off.
/// `None` when the configuration does not say.
#[must_use]
pub fn price(provider: &Provider, pricing: Option<&Pricing>) -> Option<f64> {
    let pricing = pricing?;
    let of = |rates: &Rates| (INPUT * rates.input + OUTPUT * rates.output) / 1e6;
    let full = match &pricing.source {
        PriceSource::PerRequest(amount) => return Some(*amount),
        PriceSource::Simple(rates) => of(rates),
        PriceSource::Defined(ranges) => {
            let holds = |lower: f64, upper: f64| lower <= INPUT && INPUT <= upper;
            let range = ranges
                .iter()
                .find(|range| holds(range.lower, range.upper))?;
            of(&range.rates)
        }
        // The catalogue is not at hand.
        PriceSource::OpenRouter(_) => return None,
    };
    let discount = pricing.discount.or(provider.discount).unwrap_or(0.0);
    Some(full * (1.0 - discount))
}
