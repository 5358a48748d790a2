//! Public price lists, and what they say of a model: LiteLLM's map of models,
//! models.dev's `api.json`, OpenRouter's list of models. Which of them a document
//! is shows in its layout.

use serde_json::{Map, Value, json};

use super::catalogue::{Catalogue, Listing, per_million};
use super::pricing::rates_said;
use crate::config::Rates;

/// A public price list.
#[derive(Debug)]
pub struct PriceList {
    /// Whose layout it has.
    pub layout: &'static str,
    entries: Vec<Entry>,
}

/// What a list says of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Its name there, with its provider's before it where the list has one.
    pub name: String,
    base: Listing,
    /// Rates for more input than that, smallest first.
    above: Vec<(u64, Rates)>,
}

/// What a list has for a name.
#[derive(Debug, PartialEq)]
pub enum Found<'a> {
    /// Nothing.
    Nothing,
    /// One price, maybe under several names.
    One(&'a Entry),
    /// Prices that differ.
    Several(Vec<&'a Entry>),
}

impl PriceList {
    /// Reads a list.
    ///
    /// # Errors
    ///
    /// It is none of the layouts that are known, or has no price.
    pub fn parse(document: &[u8]) -> Result<Self, String> {
        let root: Value = serde_json::from_slice(document)
            .map_err(|error| format!("the list is not JSON: {error}"))?;
        let Some(members) = root.as_object() else {
            return Err("the list is not a JSON object".to_owned());
        };
        let (layout, mut entries) = if root["data"].is_array() {
            ("OpenRouter", openrouter(document)?)
        } else if members.values().any(|member| member["models"].is_object()) {
            ("models.dev", models_dev(members))
        } else {
            ("LiteLLM", litellm(members))
        };
        if entries.is_empty() {
            return Err(
                "the list has no model with a price; LiteLLM's map of models, models.dev's \
                 api.json or OpenRouter's list of models is wanted"
                    .to_owned(),
            );
        }
        entries.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(Self { layout, entries })
    }

    /// How many models it has a price for.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The price of that model of that provider: by `provider/model`, else by the
    /// whole name, else by the last part of a name, if all that have it agree.
    #[must_use]
    pub fn find(&self, provider: &str, model: &str) -> Found<'_> {
        let whole = format!("{provider}/{model}");
        let exact = |name: &str| self.entries.iter().find(|entry| entry.name == name);
        if let Some(entry) = exact(&whole).or_else(|| exact(model)) {
            return Found::One(entry);
        }
        let of_provider = format!("{provider}/");
        let last = |entry: &&Entry| entry.name.rsplit('/').next() == Some(model);
        let all: Vec<&Entry> = self.entries.iter().filter(last).collect();
        let own = all
            .iter()
            .copied()
            .filter(|entry| entry.name.starts_with(&of_provider));
        let own: Vec<&Entry> = own.collect();
        one_of(if own.is_empty() { all } else { own })
    }
}

fn one_of(entries: Vec<&Entry>) -> Found<'_> {
    let Some(first) = entries.first() else {
        return Found::Nothing;
    };
    let same = |entry: &&Entry| entry.base == first.base && entry.above == first.above;
    if entries.iter().all(same) {
        Found::One(first)
    } else {
        Found::Several(entries)
    }
}

impl Entry {
    /// `pricing` as the configuration file has it.
    #[must_use]
    pub fn pricing(&self) -> Value {
        if self.above.is_empty() {
            let mut pricing = Map::new();
            pricing.insert("source".to_owned(), "simple".into());
            pricing.extend(rates_said(&self.base.rates, ""));
            return Value::Object(pricing);
        }
        let mut lower = 0;
        let mut ranges = Vec::new();
        let mut rates = &self.base.rates;
        let bounds = self.above.iter().map(|(bound, next)| (Some(*bound), next));
        for (upper, next) in bounds.chain([(None, &self.base.rates)]) {
            let mut range = Map::new();
            range.insert("lower_bound".to_owned(), lower.into());
            range.insert("upper_bound".to_owned(), upper.into());
            range.extend(rates_said(rates, "_per_m"));
            ranges.push(Value::Object(range));
            lower = upper.map_or(lower, |upper| upper + 1);
            rates = next;
        }
        json!({ "source": "defined", "range": ranges })
    }

    /// In a few words.
    #[must_use]
    pub fn summary(&self) -> String {
        let rates = &self.base.rates;
        let more = if self.above.is_empty() {
            ""
        } else {
            ", more for long input"
        };
        format!("{} in, {} out{more}", rates.input, rates.output)
    }
}

fn openrouter(document: &[u8]) -> Result<Vec<Entry>, String> {
    let catalogue = Catalogue::parse(document)?;
    let entries = catalogue.models().map(|(name, listing)| Entry {
        name: name.to_owned(),
        base: *listing,
        above: Vec::new(),
    });
    Ok(entries.collect())
}

/// Providers, their models, and what these cost in dollars per million tokens.
fn models_dev(providers: &Map<String, Value>) -> Vec<Entry> {
    let mut entries = Vec::new();
    for (provider, listed) in providers {
        let models = listed["models"].as_object();
        for (model, about) in models.into_iter().flatten() {
            let Some(rates) = rates_of_models_dev(&about["cost"]) else {
                continue;
            };
            let above = rates_of_models_dev(&about["cost"]["context_over_200k"]);
            entries.push(Entry {
                name: format!("{provider}/{model}"),
                base: Listing {
                    rates,
                    request: 0.0,
                },
                above: above.map(|rates| (200_000, rates)).into_iter().collect(),
            });
        }
    }
    entries
}

fn rates_of_models_dev(cost: &Value) -> Option<Rates> {
    let rate = |name: &str| price(&cost[name]);
    Some(Rates {
        input: rate("input")?,
        output: rate("output")?,
        cached: rate("cache_read"),
        cache_write: rate("cache_write"),
        reasoning: rate("reasoning"),
        audio_input: rate("input_audio"),
        audio_output: rate("output_audio"),
        ..Rates::default()
    })
}

/// Models, and what they cost in dollars per token.
fn litellm(models: &Map<String, Value>) -> Vec<Entry> {
    let entries = models.iter().filter_map(|(name, about)| {
        let rates = rates_of_litellm(about, "")?;
        let mut above: Vec<(u64, Rates)> = bounds(about)
            .filter_map(|(bound, suffix)| Some((bound, rates_above(about, &suffix, &rates)?)))
            .collect();
        above.sort_by_key(|(bound, _)| *bound);
        above.dedup_by_key(|(bound, _)| *bound);
        Some(Entry {
            name: name.clone(),
            base: Listing {
                rates,
                request: 0.0,
            },
            above,
        })
    });
    entries
        // Its first entry explains the others.
        .filter(|entry| entry.name != "sample_spec")
        .collect()
}

fn rates_of_litellm(about: &Value, suffix: &str) -> Option<Rates> {
    let rate = |name: &str| {
        let told = price(&about[format!("{name}{suffix}").as_str()])?;
        Some(per_million(told))
    };
    Some(Rates {
        input: rate("input_cost_per_token")?,
        // What makes no text, like embeddings, has no price for it.
        output: rate("output_cost_per_token").unwrap_or(0.0),
        cached: rate("cache_read_input_token_cost"),
        cache_write: rate("cache_creation_input_token_cost"),
        cache_write_long: price(&about["cache_creation_input_token_cost_above_1hr"])
            .map(per_million)
            .filter(|_| suffix.is_empty()),
        reasoning: rate("output_cost_per_reasoning_token"),
        audio_input: rate("input_cost_per_audio_token"),
        audio_output: rate("output_cost_per_audio_token"),
        image_input: rate("input_cost_per_image_token"),
        image_output: rate("output_cost_per_image_token"),
    })
}

/// The rates above a bound; those that are not told for it stay as below.
fn rates_above(about: &Value, suffix: &str, below: &Rates) -> Option<Rates> {
    let above = rates_of_litellm(about, suffix)?;
    let output = about[format!("output_cost_per_token{suffix}").as_str()].is_number();
    Some(Rates {
        input: above.input,
        output: if output { above.output } else { below.output },
        cached: above.cached.or(below.cached),
        cache_write: above.cache_write.or(below.cache_write),
        cache_write_long: below.cache_write_long,
        reasoning: above.reasoning.or(below.reasoning),
        audio_input: above.audio_input.or(below.audio_input),
        audio_output: above.audio_output.or(below.audio_output),
        image_input: above.image_input.or(below.image_input),
        image_output: above.image_output.or(below.image_output),
    })
}

/// The bounds that the names of members tell, like `_above_200k_tokens`.
fn bounds(about: &Value) -> impl Iterator<Item = (u64, String)> + '_ {
    let names = about.as_object().into_iter().flat_map(Map::keys);
    names.filter_map(|name| {
        let suffix = name.strip_prefix("input_cost_per_token")?;
        let thousands = suffix.strip_prefix("_above_")?.strip_suffix("k_tokens")?;
        let bound = thousands.parse::<u64>().ok()?.checked_mul(1000)?;
        Some((bound, suffix.to_owned()))
    })
}

/// A number of dollars that makes sense.
fn price(told: &Value) -> Option<f64> {
    told.as_f64().filter(|price| (0.0..=1e6).contains(price))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LITELLM: &str = r#"{
        "sample_spec": {"input_cost_per_token": 0, "output_cost_per_token": 0, "mode": "chat"},
        "big": {"litellm_provider": "maker", "mode": "chat", "input_cost_per_token": 3e-06, "output_cost_per_token": 1.5e-05,
            "cache_read_input_token_cost": 3e-07, "cache_creation_input_token_cost": 3.75e-06,
            "cache_creation_input_token_cost_above_1hr": 6e-06,
            "input_cost_per_token_above_200k_tokens": 6e-06, "output_cost_per_token_above_200k_tokens": 2.25e-05,
            "input_cost_per_token_above_200k_tokens_priority": 9e-06},
        "maker/embedder": {"mode": "embedding", "input_cost_per_token": 1e-07, "output_cost_per_token": 0.0},
        "east/small": {"input_cost_per_token": 1e-06, "output_cost_per_token": 2e-06},
        "west/small": {"input_cost_per_token": 1.1e-06, "output_cost_per_token": 2e-06},
        "east/same": {"input_cost_per_token": 1e-06, "output_cost_per_token": 2e-06},
        "west/same": {"input_cost_per_token": 1e-06, "output_cost_per_token": 2e-06},
        "painter": {"mode": "image_generation", "output_cost_per_image": 0.04}}"#;

    const MODELS_DEV: &str = r#"{"maker": {"id": "maker", "name": "Maker", "models": {
        "big": {"id": "big", "cost": {"input": 1.25, "output": 10, "cache_read": 0.125,
            "context_over_200k": {"input": 2.5, "output": 15, "cache_read": 0.25}}},
        "free": {"id": "free"}}}}"#;

    fn one<'a>(list: &'a PriceList, provider: &str, model: &str) -> &'a Entry {
        match list.find(provider, model) {
            Found::One(entry) => entry,
            other => panic!("{model}: {other:?}"),
        }
    }

    #[test]
    fn litellms_map_is_read_with_its_bounds() {
        let list = PriceList::parse(LITELLM.as_bytes()).unwrap();
        assert_eq!((list.layout, list.len()), ("LiteLLM", 6));
        assert_eq!(
            one(&list, "p", "big").pricing(),
            json!({"source": "defined", "range": [
                {"lower_bound": 0, "upper_bound": 200_000, "input_per_m": 3, "output_per_m": 15,
                    "cached_per_m": 0.3, "cache_write_per_m": 3.75, "cache_write_1h_per_m": 6},
                {"lower_bound": 200_001, "upper_bound": null, "input_per_m": 6, "output_per_m": 22.5,
                    "cached_per_m": 0.3, "cache_write_per_m": 3.75, "cache_write_1h_per_m": 6}]})
        );
        assert_eq!(
            one(&list, "p", "embedder").pricing(),
            json!({"source": "simple", "input": 0.1, "output": 0})
        );
    }

    #[test]
    fn a_name_that_prices_differ_for_is_told_apart_by_the_provider_or_not_at_all() {
        let list = PriceList::parse(LITELLM.as_bytes()).unwrap();
        assert!(matches!(list.find("p", "small"), Found::Several(all) if all.len() == 2));
        assert_eq!(one(&list, "west", "small").name, "west/small");
        assert_eq!(one(&list, "p", "same").name, "east/same");
        assert_eq!(list.find("p", "painter"), Found::Nothing);
    }

    #[test]
    fn models_devs_list_is_read_too() {
        let list = PriceList::parse(MODELS_DEV.as_bytes()).unwrap();
        assert_eq!((list.layout, list.len()), ("models.dev", 1));
        let pricing = one(&list, "maker", "big").pricing();
        assert_eq!(pricing["range"][1]["input_per_m"], 2.5);
        assert_eq!(pricing["range"][1]["cached_per_m"], 0.25);
    }

    #[test]
    fn openrouters_list_is_read_too() {
        let text = r#"{"data":[{"id":"maker/big","pricing":{"prompt":"0.000003","completion":"0.000015","input_cache_read":"0.0000003"}}]}"#;
        let list = PriceList::parse(text.as_bytes()).unwrap();
        assert_eq!(list.layout, "OpenRouter");
        assert_eq!(
            one(&list, "p", "big").pricing(),
            json!({"source": "simple", "input": 3, "output": 15, "cached": 0.3})
        );
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for text in ["", "[]", "{}", "7", r#"{"a":{"b":1}}"#] {
            assert!(PriceList::parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
