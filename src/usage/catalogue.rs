//! The catalogue: what models cost at OpenRouter, by name.
//!
//! It is a plain value; whoever fetches it hands over a new one.

use std::collections::HashMap;

use serde::Deserialize;

use crate::config::Rates;

/// Tokens that rates are for.
const MILLION: f64 = 1e6;

/// What models cost, by OpenRouter's name for them.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Catalogue {
    models: HashMap<Box<str>, Listing>,
}

/// A model's price.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub struct Listing {
    /// US dollars per million tokens.
    pub rates: Rates,
    /// US dollars for each request, beside its tokens.
    pub request: f64,
}

#[derive(Deserialize)]
struct Document {
    data: Vec<Model>,
}

#[derive(Deserialize)]
struct Model {
    id: Box<str>,
    #[serde(default)]
    pricing: HashMap<String, serde_json::Value>,
}

impl Catalogue {
    /// Reads OpenRouter's list of models. Prices that are no numbers are left
    /// out: some are marked as "depends" by a number below zero.
    ///
    /// # Errors
    ///
    /// It is no such list, or an empty one.
    pub fn parse(document: &[u8]) -> Result<Self, String> {
        let document: Document = serde_json::from_slice(document)
            .map_err(|error| format!("this is no list of models with prices: {error}"))?;
        let listed = document.data.into_iter();
        let models: HashMap<_, _> = listed
            .filter_map(|model| Some((model.id, listing(&model.pricing)?)))
            .collect();
        if models.is_empty() {
            return Err("the list has no model with a price".to_owned());
        }
        Ok(Self { models })
    }

    /// The price of that model.
    #[must_use]
    pub fn find(&self, slug: &str) -> Option<&Listing> {
        self.models.get(slug)
    }

    /// How many models it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.models.len()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.models.is_empty()
    }

    /// All models and their prices, in no order.
    pub fn models(&self) -> impl Iterator<Item = (&str, &Listing)> {
        self.models.iter().map(|(name, listing)| (&**name, listing))
    }
}

/// Dollars per token, as text or number, to dollars per million. A model whose
/// input or output has no price is not listed.
fn listing(pricing: &HashMap<String, serde_json::Value>) -> Option<Listing> {
    let dollars = |name: &str| {
        let told = pricing.get(name)?;
        let number = told.as_f64().or_else(|| told.as_str()?.trim().parse().ok());
        number.filter(|dollars| (0.0..=1e6).contains(dollars))
    };
    let rate = |name: &str| dollars(name).map(per_million);
    Some(Listing {
        rates: Rates {
            input: rate("prompt")?,
            output: rate("completion")?,
            cached: rate("input_cache_read"),
            cache_write: rate("input_cache_write"),
            cache_write_long: None,
            reasoning: rate("internal_reasoning").filter(|rate| *rate > 0.0),
            audio_input: rate("audio").filter(|rate| *rate > 0.0),
            audio_output: rate("audio_output").filter(|rate| *rate > 0.0),
            image_input: None,
            image_output: rate("image_output").filter(|rate| *rate > 0.0),
        },
        request: dollars("request").unwrap_or(0.0),
    })
}

/// Dollars for a million of what costs that much, to twelve digits behind the
/// point: `0.00000015` is `0.15`, not `0.15000000000000002`.
#[must_use]
pub fn per_million(dollars: f64) -> f64 {
    const DIGITS: f64 = 1e12;
    (dollars * MILLION * DIGITS).round() / DIGITS
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = r#"{"data":[
        {"id":"maker/model","name":"Model","pricing":{"prompt":"0.00000015","completion":"0.0000006",
            "request":"0.01","image":"0","input_cache_read":"0.000000075","internal_reasoning":"0"}},
        {"id":"maker/numbers","pricing":{"prompt":0.000003,"completion":0.000015,"input_cache_write":0.00000375}},
        {"id":"maker/auto","pricing":{"prompt":"-1","completion":"-1"}},
        {"id":"maker/silent"}]}"#;

    #[test]
    fn prices_per_token_become_prices_per_million() {
        let catalogue = Catalogue::parse(LIST.as_bytes()).unwrap();
        assert_eq!(catalogue.len(), 2);
        let listing = catalogue.find("maker/model").unwrap();
        assert_eq!((listing.rates.input, listing.rates.output), (0.15, 0.6));
        assert_eq!(listing.rates.cached, Some(0.075));
        assert_eq!((listing.rates.reasoning, listing.request), (None, 0.01));
        let numbers = catalogue.find("maker/numbers").unwrap();
        assert_eq!(numbers.rates.cache_write, Some(3.75));
        assert_eq!(catalogue.find("maker/auto"), None);
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for text in ["", "{}", "[]", r#"{"data":[]}"#, r#"{"data":[{"id":"a"}]}"#] {
            assert!(Catalogue::parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
