//! What a target's tokens cost: a price worked out once for a configuration, and
//! whole numbers from there on.
//!
//! A rate is kept in atto-dollars per token (10⁻¹⁸; a dollar per million tokens
//! is 10¹² of them), with the discount taken off. Multiplying it by a count is
//! exact; each kind of token is rounded once, to a nano-dollar.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::catalogue::{Catalogue, Listing};
use crate::config::{PriceRange, PriceSource, Pricing, Provider, ProviderModel, Rates};
use crate::money::{Cost, Nanos};
use crate::protocol::usage::Tokens;
use crate::store::row::{Bill, Grounds};

/// Atto-dollars per token in a dollar per million tokens.
const PER_MILLION: f64 = 1e12;
/// Atto-dollars in a nano-dollar.
const PER_NANO: u128 = 1_000_000_000;

/// The request that prices are compared for.
const COMPARED: Tokens = {
    let mut tokens = NONE;
    tokens.input = Some(1000);
    tokens.output = Some(500);
    tokens
};

const NONE: Tokens = Tokens {
    input: None,
    cache_read: None,
    cache_write_short: None,
    cache_write_long: None,
    cache_write_other: None,
    tool_prompt: None,
    output: None,
    reasoning: None,
    audio_input: None,
    image_input: None,
    audio_output: None,
    image_output: None,
    charge: None,
};

/// A target's price.
#[derive(Debug, Clone, PartialEq)]
pub struct Price {
    source: &'static str,
    /// The first that holds a request's input applies to all of it.
    tiers: Box<[Tier]>,
    /// Whether somebody said it; a model whose price is not told counts as free
    /// and is compared with none.
    told: bool,
}

#[derive(Debug, Clone, PartialEq)]
struct Tier {
    /// Input outside the cache, both ends included.
    lower: u64,
    upper: u64,
    rates: PerToken,
    /// For the request, beside its tokens.
    fee: Nanos,
    grounds: Arc<str>,
}

/// Atto-dollars per token.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct PerToken {
    input: u64,
    output: u64,
    reasoning: u64,
    cached: u64,
    write_short: u64,
    write_long: u64,
    audio_input: u64,
    audio_output: u64,
    image_input: u64,
    image_output: u64,
}

impl Price {
    /// The price of a provider's model; `listed` is what its list says of it.
    #[must_use]
    pub fn of(provider: &Provider, listed: Option<&ProviderModel>, catalogue: &Catalogue) -> Self {
        let Some(listed) = listed.filter(|listed| !listed.name_only) else {
            return Self::unknown();
        };
        let free = Pricing {
            source: PriceSource::Simple(Rates::default()),
            discount: Some(0.0),
        };
        let pricing = listed.pricing.as_ref();
        let discount = pricing
            .and_then(|pricing| pricing.discount)
            .or(provider.discount)
            .filter(|discount| pricing.is_some() && *discount > 0.0);
        let (source, tiers) = match &pricing.unwrap_or(&free).source {
            PriceSource::Simple(rates) => ("simple", vec![simple(rates, discount)]),
            PriceSource::Defined(ranges) => (
                "defined",
                ranges.iter().map(|range| ranged(range, discount)).collect(),
            ),
            PriceSource::PerRequest(amount) => ("per_request", vec![per_request(*amount)]),
            PriceSource::OpenRouter(slug) => match catalogue.find(slug) {
                Some(listing) => ("openrouter", vec![listed_at(slug, listing, discount)]),
                None => return Self::unknown(),
            },
        };
        Self {
            source,
            tiers: tiers.into(),
            told: pricing.is_some(),
        }
    }

    /// No price at all.
    #[must_use]
    pub fn unknown() -> Self {
        Self {
            source: "default",
            tiers: Box::default(),
            told: false,
        }
    }

    /// What those tokens cost: `None` when there is no price for them, or none of
    /// them is known and they are what is charged for.
    #[must_use]
    pub fn cost(&self, tokens: &Tokens) -> Option<Cost> {
        let tier = self.tier(tokens)?;
        let known = !tokens.is_unknown() || tier.rates == PerToken::default();
        (known || tier.fee > Nanos::ZERO).then(|| tier.cost(tokens))
    }

    /// US dollars for 1000 input and 500 output tokens, to compare targets by;
    /// `None` when nobody said.
    #[must_use]
    pub fn compared(&self) -> Option<f64> {
        let cost = self.cost(&COMPARED).filter(|_| self.told)?;
        Some(cost.total().dollars())
    }

    /// The bill for an answer. What the provider says that it charges wins.
    #[must_use]
    pub fn bill(&self, tokens: &Tokens) -> Bill {
        let tier = self.tier(tokens);
        let cost = self.cost(tokens);
        let source = tier.map_or("default", |_| self.source);
        if let Some(charge) = tokens.charge {
            let parts = charge.parts;
            let parts = parts.unwrap_or_else(|| cost.unwrap_or_default().scaled_to(charge.total));
            return Bill {
                source: "provider_reported",
                cost: Some(parts),
                grounds: Grounds::Reported {
                    source,
                    total: cost.map(|cost| cost.total()),
                },
            };
        }
        Bill {
            source,
            cost,
            grounds: tier.map_or(Grounds::None, |tier| {
                Grounds::Price(Arc::clone(&tier.grounds))
            }),
        }
    }

    fn tier(&self, tokens: &Tokens) -> Option<&Tier> {
        let input = tokens.input.unwrap_or(0);
        let input = input.saturating_add(tokens.tool_prompt.unwrap_or(0));
        self.tiers
            .iter()
            .find(|tier| tier.lower <= input && input <= tier.upper)
    }
}

impl Tier {
    fn cost(&self, tokens: &Tokens) -> Cost {
        let rates = &self.rates;
        let count = |bucket: Option<u64>| bucket.unwrap_or(0);
        let plain = count(tokens.input).saturating_add(count(tokens.tool_prompt));
        // Some of the sound and the pictures may have come from the cache: what is
        // priced as such is at most what did not.
        let input = [
            (tokens.audio_input, rates.audio_input),
            (tokens.image_input, rates.image_input),
        ];
        let output = [
            (tokens.audio_output, rates.audio_output),
            (tokens.image_output, rates.image_output),
        ];
        let reasoning = product(count(tokens.reasoning), rates.reasoning);
        let written = product(count(tokens.cache_write_short), rates.write_short)
            .saturating_add(product(count(tokens.cache_write_other), rates.write_short))
            .saturating_add(product(count(tokens.cache_write_long), rates.write_long));
        Cost {
            input: nanos(split(plain, rates.input, input)).plus(self.fee),
            output: nanos(
                split(count(tokens.output), rates.output, output).saturating_add(reasoning),
            ),
            cached: nanos(product(count(tokens.cache_read), rates.cached)),
            cache_write: nanos(written),
        }
    }
}

/// The price of tokens of which some have rates of their own.
fn split(all: u64, rate: u64, own: [(Option<u64>, u64); 2]) -> u128 {
    let mut left = all;
    let mut price = 0_u128;
    for (count, own_rate) in own {
        let count = count.unwrap_or(0).min(left);
        left -= count;
        price = price.saturating_add(product(count, own_rate));
    }
    price.saturating_add(product(left, rate))
}

fn product(count: u64, rate: u64) -> u128 {
    u128::from(count) * u128::from(rate)
}

/// Rounded to the nearest; halves go up.
fn nanos(atto: u128) -> Nanos {
    let whole = atto.saturating_add(PER_NANO / 2) / PER_NANO;
    Nanos(u64::try_from(whole).unwrap_or(u64::MAX))
}

fn per_token(rates: &Rates, discount: Option<f64>) -> PerToken {
    let left = 1.0 - discount.unwrap_or(0.0);
    // A float-to-integer cast saturates.
    let atto = |rate: f64| (rate * PER_MILLION * left).round() as u64;
    let or = |rate: Option<f64>, other: f64| atto(rate.unwrap_or(other));
    let short = rates.cache_write.unwrap_or(0.0);
    PerToken {
        input: atto(rates.input),
        output: atto(rates.output),
        reasoning: or(rates.reasoning, rates.output),
        cached: or(rates.cached, 0.0),
        write_short: atto(short),
        write_long: or(rates.cache_write_long, short),
        audio_input: or(rates.audio_input, rates.input),
        audio_output: or(rates.audio_output, rates.output),
        image_input: or(rates.image_input, rates.input),
        image_output: or(rates.image_output, rates.output),
    }
}

fn simple(rates: &Rates, discount: Option<f64>) -> Tier {
    let mut said = named([("source", Some(Value::from("simple")))]);
    said.extend(rates_said(rates, ""));
    everywhere(rates, Nanos::ZERO, discount, said)
}

fn ranged(range: &PriceRange, discount: Option<f64>) -> Tier {
    let rates = &range.rates;
    let number = |rate: Option<f64>| Some(number(rate.unwrap_or(0.0)));
    let upper = range.upper.is_finite().then(|| self::number(range.upper));
    let mut bounds = named([
        ("lower_bound", Some(self::number(range.lower))),
        ("upper_bound", Some(upper.unwrap_or(Value::Null))),
    ]);
    bounds.extend(rates_said(rates, "_per_m"));
    let said = named([
        ("source", Some("defined".into())),
        ("input", number(Some(rates.input))),
        ("output", number(Some(rates.output))),
        ("cached", number(rates.cached)),
        ("cache_write", number(rates.cache_write)),
        ("range", Some(Value::Object(bounds))),
    ]);
    // Counts are whole: a bound between two of them is the one inside.
    Tier {
        lower: range.lower.ceil() as u64,
        upper: range.upper.floor() as u64,
        ..everywhere(rates, Nanos::ZERO, discount, said)
    }
}

fn per_request(amount: f64) -> Tier {
    let fee = Nanos::from_dollars(amount).unwrap_or_default();
    let said = named([("amount", Some(number(amount)))]);
    everywhere(&Rates::default(), fee, None, said)
}

fn listed_at(slug: &str, listing: &Listing, discount: Option<f64>) -> Tier {
    let rates = &listing.rates;
    // Divided once, so that the nearest float is the one that prints short.
    let per_token = |rate: f64| Some(number((rate * PER_MILLION).round() / (PER_MILLION * 1e6)));
    let said = named([
        ("slug", Some(slug.into())),
        ("prompt", per_token(rates.input)),
        ("completion", per_token(rates.output)),
        ("input_cache_read", per_token(rates.cached.unwrap_or(0.0))),
        (
            "input_cache_write",
            per_token(rates.cache_write.unwrap_or(0.0)),
        ),
        (
            "request",
            Some(number(listing.request)).filter(|_| listing.request > 0.0),
        ),
    ]);
    let fee = listing.request * (1.0 - discount.unwrap_or(0.0));
    let fee = Nanos::from_dollars(fee).unwrap_or_default();
    everywhere(rates, fee, discount, said)
}

/// A price for requests of any size.
fn everywhere(
    rates: &Rates,
    fee: Nanos,
    discount: Option<f64>,
    mut said: Map<String, Value>,
) -> Tier {
    if let Some(discount) = discount {
        said.insert("discount".to_owned(), number(discount));
    }
    Tier {
        lower: 0,
        upper: u64::MAX,
        rates: per_token(rates, discount),
        fee,
        grounds: Value::Object(said).to_string().into(),
    }
}

/// The rates in the file's words, those that are told.
pub(super) fn rates_said(rates: &Rates, suffix: &str) -> Map<String, Value> {
    let told = [
        ("input", Some(rates.input)),
        ("output", Some(rates.output)),
        ("cached", rates.cached),
        ("cache_write", rates.cache_write),
        ("cache_write_1h", rates.cache_write_long),
        ("reasoning", rates.reasoning),
        ("audio_input", rates.audio_input),
        ("audio_output", rates.audio_output),
        ("image_input", rates.image_input),
        ("image_output", rates.image_output),
    ];
    told.into_iter()
        .filter_map(|(name, rate)| Some((format!("{name}{suffix}"), number(rate?))))
        .collect()
}

fn named<const N: usize>(members: [(&str, Option<Value>); N]) -> Map<String, Value> {
    let told = members.into_iter();
    told.filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect()
}

/// A number without a needless `.0`, as JavaScript prints it.
fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 1e15 {
        Value::from(value as i64)
    } else {
        Value::from(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use proptest::prelude::*;

    /// The price of the model `m` of the one provider, which the file describes.
    fn price(provider: &str, model: &str) -> Price {
        let catalogue = Catalogue::parse(
            br#"{"data":[{"id":"a/b","pricing":{"prompt":"0.000002","completion":"0.00001",
                "input_cache_read":"0.0000002","request":"0.001"}}]}"#,
        );
        priced_by(provider, model, &catalogue.unwrap())
    }

    fn priced_by(provider: &str, model: &str, catalogue: &Catalogue) -> Price {
        let text = format!(
            "adminKey: a\nproviders:\n  p:\n    api_base_url: 'http://p/v1'\n    api_key: k\n{provider}    models: {model}\n"
        );
        let config = Config::from_yaml(&text).unwrap();
        let provider = config.provider("p").unwrap();
        let listed = provider.models.get("m");
        Price::of(provider, listed.map(|listed| &**listed), catalogue)
    }

    fn tokens(input: u64, output: u64) -> Tokens {
        Tokens {
            input: Some(input),
            output: Some(output),
            ..Tokens::default()
        }
    }

    fn dollars(price: &Price, tokens: &Tokens) -> f64 {
        price.cost(tokens).unwrap().total().shown()
    }

    #[test]
    fn every_kind_of_token_has_its_rate() {
        let price = price(
            "",
            "{ m: { pricing: { source: simple, input: 3, output: 15, cached: 0.3, cache_write: 3.75, \
             cache_write_1h: 6, reasoning: 20, audio_input: 40, audio_output: 80, image_input: 10, image_output: 30 } } }",
        );
        let used = Tokens {
            input: Some(1_000_000),
            tool_prompt: Some(500_000),
            cache_read: Some(2_000_000),
            cache_write_short: Some(100_000),
            cache_write_other: Some(100_000),
            cache_write_long: Some(1_000_000),
            output: Some(1_000_000),
            reasoning: Some(1_000_000),
            audio_input: Some(100_000),
            image_input: Some(200_000),
            audio_output: Some(300_000),
            image_output: Some(400_000),
            charge: None,
        };
        let cost = price.cost(&used).unwrap();
        assert_eq!(cost.input.shown(), 1.2 * 3.0 + 0.1 * 40.0 + 0.2 * 10.0);
        assert_eq!(
            cost.output.shown(),
            0.3 * 15.0 + 0.3 * 80.0 + 0.4 * 30.0 + 20.0
        );
        assert_eq!(cost.cached.shown(), 0.6);
        assert_eq!(cost.cache_write.shown(), 0.2 * 3.75 + 6.0);
    }

    #[test]
    fn what_has_no_rate_of_its_own_costs_what_it_is_part_of() {
        let price = price(
            "",
            "{ m: { pricing: { source: simple, input: 1, output: 2, cache_write: 3 } } }",
        );
        let used = Tokens {
            input: Some(1_000_000),
            cache_read: Some(5_000_000),
            cache_write_long: Some(1_000_000),
            output: Some(500_000),
            reasoning: Some(500_000),
            audio_input: Some(900_000),
            image_output: Some(500_000),
            ..Tokens::default()
        };
        let cost = price.cost(&used).unwrap();
        let shown = [cost.input, cost.output, cost.cached, cost.cache_write].map(Nanos::shown);
        assert_eq!(shown, [1.0, 2.0, 0.0, 3.0]);
    }

    #[test]
    fn the_first_range_that_holds_the_input_applies_to_all_of_it() {
        let price = price(
            "    discount: 0.5\n",
            "{ m: { pricing: { source: defined, range: [ \
             { lower_bound: 0, upper_bound: 1000, input_per_m: 10, output_per_m: 20 }, \
             { lower_bound: 1000, upper_bound: 9000, input_per_m: 30, output_per_m: 40 } ] } } }",
        );
        assert_eq!(dollars(&price, &tokens(1000, 0)), 0.005);
        assert_eq!(dollars(&price, &tokens(1001, 0)), 0.015015);
        assert_eq!(price.cost(&tokens(9001, 0)), None);
        let bill = price.bill(&tokens(9001, 0));
        assert_eq!((bill.source, bill.cost), ("default", None));
        let bill = price.bill(&tokens(5, 0));
        assert_eq!(bill.source, "defined");
        assert_eq!(
            bill.metadata(),
            r#"{"source":"defined","input":10,"output":20,"cached":0,"cache_write":0,"range":{"lower_bound":0,"upper_bound":1000,"input_per_m":10,"output_per_m":20},"discount":0.5}"#
        );
    }

    #[test]
    fn a_price_per_request_asks_for_no_tokens_and_knows_no_discount() {
        let price = price(
            "    discount: 0.5\n",
            "{ m: { pricing: { source: per_request, amount: 0.25 } } }",
        );
        assert_eq!(dollars(&price, &Tokens::default()), 0.25);
        assert_eq!(dollars(&price, &tokens(1_000_000, 7)), 0.25);
        let bill = price.bill(&Tokens::default());
        assert_eq!(
            (bill.source, &*bill.metadata()),
            ("per_request", r#"{"amount":0.25}"#)
        );
    }

    #[test]
    fn the_catalogue_prices_what_it_lists() {
        let model = "{ m: { pricing: { source: openrouter, slug: a/b, discount: 0.1 } } }";
        let known = price("    discount: 0.9\n", model);
        let used = Tokens {
            cache_read: Some(1_000_000),
            ..tokens(1_000_000, 1_000_000)
        };
        assert_eq!(dollars(&known, &used), 1.8 + 9.0 + 0.18 + 0.0009);
        let bill = known.bill(&used);
        assert_eq!(
            (bill.source, &*bill.metadata()),
            (
                "openrouter",
                r#"{"slug":"a/b","prompt":2e-6,"completion":0.00001,"input_cache_read":2e-7,"input_cache_write":0,"request":0.001,"discount":0.1}"#
            )
        );
        let unknown = priced_by("", model, &Catalogue::default());
        assert_eq!(unknown, Price::unknown());
        assert_eq!(unknown.bill(&used).source, "default");
    }

    #[test]
    fn a_models_discount_wins_over_its_providers() {
        let of = |provider: &str, model: &str| {
            let model = format!("{{ m: {{ pricing: {{ source: simple, input: 1{model} }} }} }}");
            dollars(&price(provider, &model), &tokens(1_000_000, 0))
        };
        assert_eq!(of("", ""), 1.0);
        assert_eq!(of("    discount: 0.25\n", ""), 0.75);
        assert_eq!(of("    discount: 0.25\n", ", discount: 0.5"), 0.5);
        assert_eq!(of("    discount: 0.25\n", ", discount: 0"), 1.0);
        assert_eq!(of("", ", discount: 1"), 0.0);
    }

    #[test]
    fn a_model_that_is_only_named_has_no_price_and_one_without_pricing_is_free() {
        let used = tokens(1_000_000, 1_000_000);
        let named = price("", "[m]").bill(&used);
        assert_eq!((named.source, named.cost), ("default", None));
        assert_eq!(
            named.metadata(),
            r#"{"input":0,"output":0,"cached":0,"cache_write":0}"#
        );
        let free = price("    discount: 0.5\n", "{ m: {} }");
        let bill = free.bill(&used);
        assert_eq!((bill.source, bill.cost), ("simple", Some(Cost::default())));
        assert_eq!(
            bill.metadata(),
            r#"{"source":"simple","input":0,"output":0}"#
        );
        assert_eq!(free.compared(), None);
    }

    #[test]
    fn nothing_known_costs_nothing_known() {
        let price = price("", "{ m: { pricing: { source: simple, input: 1 } } }");
        let bill = price.bill(&Tokens::default());
        assert_eq!((bill.source, bill.cost), ("simple", None));
        assert_eq!(dollars(&price, &tokens(0, 0)), 0.0);
    }

    #[test]
    fn the_providers_own_word_wins_and_adds_up() {
        let price = price(
            "",
            "{ m: { pricing: { source: simple, input: 1, output: 3 } } }",
        );
        let mut used = tokens(1_000_000, 1_000_000);
        used.charge = Some(crate::protocol::usage::Charge {
            total: Nanos(1_000_000_000),
            parts: None,
        });
        let bill = price.bill(&used);
        let cost = bill.cost.unwrap();
        assert_eq!((cost.input.shown(), cost.output.shown()), (0.25, 0.75));
        assert_eq!(bill.source, "provider_reported");
        assert_eq!(
            bill.metadata(),
            r#"{"source":"provider_reported","request_cost_usd":1.0,"previous_cost_source":"simple","previous_cost_total":4.0}"#
        );
        let unpriced = Price::unknown().bill(&used).cost.unwrap();
        assert_eq!(
            (unpriced.input.shown(), unpriced.output.shown()),
            (1.0, 0.0)
        );
    }

    #[test]
    fn counts_and_rates_beyond_all_sense_do_not_overflow() {
        let price = price(
            "",
            "{ m: { pricing: { source: simple, input: 10000000, output: 10000000, cached: 10000000 } } }",
        );
        let most = Some(u64::MAX);
        let used = Tokens {
            input: most,
            tool_prompt: most,
            cache_read: most,
            output: most,
            reasoning: most,
            audio_input: most,
            image_input: most,
            ..Tokens::default()
        };
        assert_eq!(price.cost(&used).unwrap().total(), Nanos(u64::MAX));
    }

    proptest! {
        #[test]
        fn a_price_is_the_dot_product_of_counts_and_rates(
            rates in any::<[u16; 4]>(),
            counts in any::<[u32; 4]>(),
        ) {
            // Rates of whole cents, so that a float can tell the truth.
            let rates = rates.map(|rate| f64::from(rate) / 100.0);
            let price = price("", &format!(
                "{{ m: {{ pricing: {{ source: simple, input: {}, output: {}, cached: {}, cache_write: {} }} }} }}",
                rates[0], rates[1], rates[2], rates[3],
            ));
            let used = Tokens {
                input: Some(u64::from(counts[0])),
                output: Some(u64::from(counts[1])),
                cache_read: Some(u64::from(counts[2])),
                cache_write_short: Some(u64::from(counts[3])),
                ..Tokens::default()
            };
            let cost = price.cost(&used).unwrap();
            let parts = [cost.input, cost.output, cost.cached, cost.cache_write];
            for (part, (rate, count)) in parts.iter().zip(rates.iter().zip(counts)) {
                // A cent per million tokens is ten nano-dollars per token.
                let exact = (rate * 100.0).round() as u64 * 10 * u64::from(count);
                prop_assert_eq!(part.0, exact);
            }
            prop_assert_eq!(cost.total(), parts.into_iter().sum());
        }
    }
}
