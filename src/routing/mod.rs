//! From the model a client names to the targets that may answer, in order.
//!
//! | file | what it owns |
//! |---|---|
//! | `switchboard` | what all cores share of all this |
//! | `table` | what each name leads to, worked out once per configuration |
//! | `selector` | the order inside a group |
//! | `standing` | how a target stands, and a try at it |
//! | `cooldown` | rests after failures |
//! | `window` | measurements |
//! | `permit` | limits on requests under way |
//! | `budget` | the limit on second tries |
//! | `session`, `sticky` | what conversation a request belongs to, and where it is |
//! | `stall` | whether a stream still flows |
//! | `explain` | all of it, told to people |
//!
//! Clock and random numbers are handed in. This folder must not know
//! connections.

pub mod budget;
pub mod cooldown;
pub mod dice;
pub mod explain;
pub mod permit;
mod selector;
pub mod session;
pub mod stall;
pub mod standing;
pub mod sticky;
pub mod switchboard;
pub mod table;
pub mod window;

use std::fmt;
use std::sync::Arc;

use crate::config::{Config, Key, lists, nearest, permits};
use crate::protocol::Protocol;
use cooldown::Health;
use dice::Dice;
use selector::Circumstances;
use standing::Pass;
pub use switchboard::Switchboard;
pub use table::{Candidate, Route, Table};

/// What a request asks of routing.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The model as the client names it.
    pub model: &'a str,
    /// What the client speaks.
    pub protocol: Protocol,
    /// The time, in milliseconds.
    pub now: i64,
    /// Whether another than the best may be tried to measure it.
    pub explores: bool,
    /// Whether targets that speak the client's protocol go first, whatever the
    /// alias says of it.
    pub native_first: bool,
}

/// What a model name stands for.
#[derive(Debug)]
pub struct Resolution {
    /// Where the name leads.
    pub route: Arc<Route>,
    /// Candidates that are passed over from the start, and why.
    pub passed_over: Vec<(usize, Pass)>,
    chosen: Vec<u64>,
}

impl Resolution {
    /// In the order to try; empty when all rest.
    pub fn candidates(&self) -> impl Iterator<Item = &Candidate> {
        let places = self.chosen.iter().map(|chosen| selector::place(*chosen));
        places.map(|place| &self.route.candidates[place])
    }

    /// How many candidates there are to try.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.chosen.len()
    }

    /// Whether there is none to try.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.chosen.is_empty()
    }

    /// The candidates that are passed over from the start, and why.
    pub fn resting(&self) -> impl Iterator<Item = (&Candidate, &Pass)> {
        let passed = self.passed_over.iter();
        passed.map(|(place, pass)| (&self.route.candidates[*place], pass))
    }

    /// Leaves only targets of the provider that has the target of that number.
    /// Gives the provider when none of them can be tried now.
    pub fn stay_with(&mut self, number: u64) -> Option<Arc<str>> {
        let route = &self.route;
        let mut all = route.candidates.iter();
        let home = all.find(|known| known.standing.number == number)?;
        let provider = &home.provider.id;
        self.chosen
            .retain(|chosen| route.candidates[selector::place(*chosen)].provider.id == *provider);
        self.chosen.is_empty().then(|| Arc::clone(provider))
    }

    /// Puts the target of that number first, if it is there to try. Says
    /// whether it is.
    pub fn prefer(&mut self, number: u64) -> bool {
        let numbers = self.candidates().map(|candidate| candidate.standing.number);
        let Some(place) = { numbers }.position(|known| known == number) else {
            return false;
        };
        self.chosen[..=place].rotate_right(1);
        true
    }
}

/// Why a model name leads nowhere.
#[derive(Debug, PartialEq, Eq)]
pub enum Unresolved {
    /// No alias of that name; near ones are given.
    UnknownModel {
        /// What was asked for.
        model: String,
        /// The name that looks most like it.
        near: Option<String>,
    },
    /// `direct/` with something wrong behind it.
    Direct(String),
    /// `direct/` without a provider and a model.
    DirectFormat(String),
    /// The key may not use that model.
    ModelDenied(String),
    /// The key may use none of the providers behind it.
    ProvidersDenied(String),
    /// The alias has no enabled target.
    NoTarget(String),
}

impl fmt::Display for Unresolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownModel { model, near: None } => {
                write!(f, "Model '{model}' not found in configuration")
            }
            Self::UnknownModel {
                model,
                near: Some(near),
            } => {
                write!(
                    f,
                    "Model '{model}' not found in configuration; did you mean '{near}'?"
                )
            }
            Self::Direct(problem) => write!(f, "Direct routing failed: {problem}"),
            Self::DirectFormat(name) => write!(
                f,
                "Direct routing failed: Invalid format '{name}', expected direct/<provider>/<model>"
            ),
            Self::ModelDenied(model) => write!(f, "Key is not allowed to access model '{model}'"),
            Self::ProvidersDenied(model) => write!(
                f,
                "Key is not allowed to access any provider configured for model '{model}'"
            ),
            Self::NoTarget(model) => write!(f, "No enabled target for model '{model}'"),
        }
    }
}

/// Finds the candidates for a model's name, in order, that `key` may use.
///
/// # Errors
///
/// [`Unresolved`].
pub(in crate::routing) fn resolve(
    config: &Config,
    key: &Key,
    asked: Asked<'_>,
    route: Arc<Route>,
    dice: &mut Dice,
) -> Result<Resolution, Unresolved> {
    if route.candidates.is_empty() {
        return Err(Unresolved::NoTarget(asked.model.into()));
    }
    let prefers = |route: &Route| route.alias.as_ref().is_some_and(|alias| alias.api_match);
    let circumstances = Circumstances {
        now: asked.now,
        preferred: (asked.native_first || prefers(&route)).then_some(asked.protocol),
        exploration: asked.explores.then_some(&config.exploration),
    };
    let mut passed_over = Vec::new();
    let mut denied = (0, 0);
    let restricted = !key.allowed_providers.is_empty()
        || !key.excluded_providers.is_empty()
        || !key.excluded_models.is_empty();
    let mut fits = |place: usize, candidate: &Candidate| {
        if restricted && let Some(denial) = denial(key, candidate) {
            match denial {
                Denial::Provider => denied.0 += 1,
                Denial::Model => denied.1 += 1,
            }
            return false;
        }
        match candidate.standing.health(asked.now) {
            Health::Cooling { until } if !candidate.rules.tireless => {
                let left_ms = until.saturating_sub(asked.now);
                let limited = candidate.standing.is_limited();
                passed_over.push((place, Pass::Cooling { left_ms, limited }));
                false
            }
            _ => true,
        }
    };
    let mut chosen = Vec::with_capacity(route.candidates.len());
    for group in &route.groups {
        selector::order(&route, group, circumstances, dice, &mut fits, &mut chosen);
    }
    if denied.0 + denied.1 == route.candidates.len() {
        let model = asked.model.into();
        return Err(match denied.1 {
            0 => Unresolved::ProvidersDenied(model),
            _ => Unresolved::ModelDenied(model),
        });
    }
    Ok(Resolution {
        route,
        passed_over,
        chosen,
    })
}

/// What of a target a key may not use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::routing) enum Denial {
    Provider,
    Model,
}

/// What of that target the key may not use. Exclusions of models hold for the
/// target's own name, alone and behind its provider's, whatever name led here.
pub(in crate::routing) fn denial(key: &Key, candidate: &Candidate) -> Option<Denial> {
    let provider = &candidate.provider.id;
    if !permits(&key.allowed_providers, &key.excluded_providers, provider) {
        return Some(Denial::Provider);
    }
    let excluded = &key.excluded_models;
    let denied = !excluded.is_empty()
        && (lists(excluded, &candidate.model)
            || lists(excluded, &[provider, "/", &candidate.model].concat()));
    denied.then_some(Denial::Model)
}

/// Whether the key may use the model under that name.
pub(in crate::routing) fn may_name(key: &Key, model: &str) -> Result<(), Unresolved> {
    if permits(&key.allowed_models, &key.excluded_models, model) {
        Ok(())
    } else {
        Err(Unresolved::ModelDenied(model.into()))
    }
}

fn unknown(config: &Config, model: &str) -> Unresolved {
    Unresolved::UnknownModel {
        model: model.chars().take(200).collect(),
        near: nearest(model, config.alias_names()).map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::{Duration, Instant};

    use super::standing::{Blame, Trial};
    use super::window::Sample;
    use super::*;

    const TEXT: &str = "
adminKey: a
providers:
  one: { api_base_url: 'http://one/v1', api_key: k, models: [m, n] }
  two: { api_base_url: 'http://two/v1', api_key: k }
  off: { api_base_url: 'http://off/v1', api_key: k, enabled: false }
models:
  fast:
    additional_aliases: [quick]
    target_groups:
      - { name: first, selector: in_order, targets: [ { provider: one, model: m }, { provider: off, model: m }, { provider: two, model: x/y } ] }
      - { name: second, selector: in_order, targets: [ { alias: other }, { provider: one, model: n }, { provider: one, model: m } ] }
  other: { selector: in_order, targets: [ { provider: two, model: z } ] }
  lots: { selector: random, targets: [ { provider: one, model: m }, { provider: one, model: n }, { provider: two, model: z } ] }
keys:
  all: { secret: s1 }
  some: { secret: s2, allowedModels: [fast], excludedProviders: [one] }
";

    fn names(model: &str, key: &str) -> Result<Vec<String>, Unresolved> {
        let config = Config::from_yaml(TEXT).unwrap();
        let switchboard = Switchboard::new(&config, Instant::now(), 1);
        let resolution =
            switchboard.resolve(&config, &config.keys[key], asked(model), &mut Dice::new(1))?;
        Ok(resolution
            .candidates()
            .map(|c| format!("{}/{}", c.provider.id, c.model))
            .collect())
    }

    #[test]
    fn groups_follow_one_another_and_a_target_counts_once() {
        let expected = ["one/m", "two/x/y", "one/n", "two/z"];
        assert_eq!(names("fast", "all").unwrap(), expected);
        assert_eq!(names("quick", "all").unwrap(), expected);
    }

    #[test]
    fn direct_names_reach_a_provider_or_a_group() {
        assert_eq!(
            names("direct/two/any/thing", "all").unwrap(),
            ["two/any/thing"]
        );
        assert_eq!(
            names("direct/fast/second", "all").unwrap(),
            ["one/n", "one/m", "two/z"]
        );
        assert!(matches!(
            names("direct/off/m", "all"),
            Err(Unresolved::Direct(_))
        ));
        assert!(matches!(
            names("direct/none/m", "all"),
            Err(Unresolved::Direct(_))
        ));
        assert!(matches!(
            names("direct/fast/third", "all"),
            Err(Unresolved::Direct(_))
        ));
        assert!(matches!(
            names("direct/one", "all"),
            Err(Unresolved::DirectFormat(_))
        ));
    }

    #[test]
    fn a_key_reaches_only_what_it_may() {
        assert_eq!(names("fast", "some").unwrap(), ["two/x/y", "two/z"]);
        assert!(matches!(
            names("quick", "some"),
            Err(Unresolved::ModelDenied(_))
        ));
        assert!(matches!(
            names("direct/one/m", "some"),
            Err(Unresolved::ModelDenied(_))
        ));
    }

    #[test]
    fn an_unknown_model_names_its_neighbours() {
        let Err(Unresolved::UnknownModel { near, .. }) = names("fsat", "all") else {
            panic!("resolved")
        };
        assert_eq!(near.as_deref(), Some("fast"));
    }

    fn asked(model: &str) -> Asked<'_> {
        Asked {
            model,
            protocol: Protocol::Chat,
            now: 1000,
            explores: true,
            native_first: false,
        }
    }

    /// Four targets under one alias, ordered by `selector`.
    fn four(selector: &str, more: &str) -> (Config, Switchboard) {
        let text = format!(
            "
adminKey: a
providers:
  p:
    api_base_url: {{ chat: 'http://p/v1', messages: 'http://p/v1' }}
    api_key: k
    models:
      a: {{ access_via: [chat], pricing: {{ source: simple, input: 3, output: 6 }} }}
      b: {{ access_via: [messages], pricing: {{ source: per_request, amount: 0.001 }} }}
      c: {{ pricing: {{ source: simple, input: 3, output: 6, discount: 0.5 }} }}
      d: {{ access_via: [chat] }}
models:
  m:
    {more}
    target_groups:
      - {{ name: g, selector: {selector}, targets: [ {{ provider: p, model: a }}, {{ provider: p, model: b }}, {{ provider: p, model: c, weight: 2 }}, {{ provider: p, model: d }} ] }}
keys: {{ k: {{ secret: s }} }}
performanceExplorationRate: 0
"
        );
        let config = Config::from_yaml(&text).unwrap();
        let switchboard = Switchboard::new(&config, Instant::now(), 1);
        (config, switchboard)
    }

    fn order(config: &Config, switchboard: &Switchboard, asked: Asked<'_>, seed: u64) -> String {
        let key = &config.keys["k"];
        let resolution = switchboard
            .resolve(config, key, asked, &mut Dice::new(seed))
            .unwrap();
        resolution
            .candidates()
            .map(|c| c.model.to_string())
            .collect()
    }

    fn measure(switchboard: &Switchboard, model: &str, tokens: u64, ttft: f64, at: i64) {
        let standing = switchboard.standings.of(&"p".into(), &model.into());
        let sample = Sample::of_answer(tokens, 1000.0 + ttft, Some(ttft));
        standing.window.add(sample, at);
    }

    #[test]
    fn cost_counts_discounts_and_prices_per_request_and_puts_the_unknown_last() {
        let (config, switchboard) = four("cost", "");
        // 0.006, 0.001, 0.003 and not known.
        assert_eq!(order(&config, &switchboard, asked("m"), 1), "bcad");
    }

    #[test]
    fn what_was_measured_orders_and_what_was_not_comes_last() {
        for (selector, expected) in [
            ("latency", "bdac"),
            ("performance", "dabc"),
            ("e2e_performance", "dbac"),
            ("in_order", "abcd"),
            ("quota", "abcd"),
        ] {
            let (config, switchboard) = four(selector, "");
            measure(&switchboard, "a", 120, 900.0, 1);
            measure(&switchboard, "b", 100, 10.0, 2);
            measure(&switchboard, "d", 300, 100.0, 3);
            let order = order(&config, &switchboard, asked("m"), 1);
            assert_eq!(order, expected, "{selector}");
        }
    }

    #[test]
    fn usage_prefers_what_was_used_least_in_a_day() {
        let (config, switchboard) = four("usage", "");
        for (model, times) in [("a", 3), ("b", 1), ("c", 2), ("d", 2)] {
            let standing = switchboard.standings.of(&"p".into(), &model.into());
            standing.window.used(900, times);
        }
        assert_eq!(order(&config, &switchboard, asked("m"), 1), "bcda");
    }

    #[test]
    fn random_puts_every_target_first_in_proportion_to_its_weight() {
        let (config, switchboard) = four("random", "");
        let mut first: HashMap<char, u32> = HashMap::new();
        for seed in 0..5000 {
            let order = order(&config, &switchboard, asked("m"), seed);
            assert_eq!(order.len(), 4);
            *first.entry(order.chars().next().unwrap()).or_default() += 1;
        }
        for (model, count) in first {
            let expected = if model == 'c' { 2000 } else { 1000 };
            assert!(count.abs_diff(expected) < 120, "{model}: {count}");
        }
    }

    #[test]
    fn api_match_puts_first_who_speaks_the_clients_protocol() {
        let (config, switchboard) = four("in_order", "priority: api_match");
        let asking = |protocol| Asked {
            protocol,
            ..asked("m")
        };
        let order = |protocol| order(&config, &switchboard, asking(protocol), 1);
        assert_eq!(order(Protocol::Chat), "acdb");
        assert_eq!(order(Protocol::Messages), "bcad");
        assert_eq!(order(Protocol::Gemini), "abcd");
    }

    #[test]
    fn exploration_measures_the_unknown_first_and_then_the_oldest() {
        let (mut config, switchboard) = four("performance", "");
        config.exploration.performance = 1.0;
        measure(&switchboard, "a", 300, 10.0, 5);
        measure(&switchboard, "b", 200, 10.0, 6);
        measure(&switchboard, "d", 100, 10.0, 7);
        assert_eq!(order(&config, &switchboard, asked("m"), 1), "cabd");
        measure(&switchboard, "c", 50, 10.0, 8);
        assert_eq!(order(&config, &switchboard, asked("m"), 1), "abdc");
        measure(&switchboard, "a", 300, 10.0, 9);
        assert_eq!(order(&config, &switchboard, asked("m"), 1), "badc");
    }

    #[test]
    fn what_rests_is_passed_over_and_told_and_a_conversation_leaves_it() {
        let (config, switchboard) = four("in_order", "");
        let key = &config.keys["k"];
        let resolve = |now| {
            let asked = Asked { now, ..asked("m") };
            switchboard
                .resolve(&config, key, asked, &mut Dice::new(1))
                .unwrap()
        };
        let first = resolve(1000);
        let candidate = first.candidates().next().unwrap();
        let trial = Trial::begin(&candidate.standing, candidate.rules, 1000).unwrap();
        let blame = Blame {
            asked: Some(Duration::from_secs(9)),
            limited: true,
            stall: false,
            message: "429",
        };
        trial.failed(1000, Some(blame)).unwrap();
        let mut second = resolve(2000);
        assert!(!second.prefer(candidate.standing.number));
        let order: String = second.candidates().map(|c| &*c.model).collect();
        assert_eq!(order, "bcd");
        let resting: Vec<_> = second.resting().collect();
        assert_eq!(resting.len(), 1);
        assert_eq!(resting[0].1.to_string(), "on cooldown for another 8 s");
        assert!(resolve(10_000).prefer(candidate.standing.number));
        assert!(first.len() == 4 && !first.is_empty());
    }
}
