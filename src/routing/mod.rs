//! From the model a client names to the targets that may answer, in order.
//!
//! Pure but for the random number that is handed in. This folder must not know
//! connections.

use std::fmt;
use std::sync::Arc;

use crate::config::{
    Alias, Config, Key, Provider, ProviderModel, Selector, Target, TargetGroup, nearest,
};

/// A target considered for one request.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Who would serve it.
    pub provider: Arc<Provider>,
    /// The model's name there.
    pub model: Arc<str>,
    /// What the provider's list says of it, when it is listed.
    pub listed: Option<Arc<ProviderModel>>,
}

/// What a model name stands for.
#[derive(Debug)]
pub struct Resolution {
    /// The alias's id, or the whole `direct/...` name.
    pub canonical: Arc<str>,
    /// The alias, unless a provider was named directly.
    pub alias: Option<Arc<Alias>>,
    /// In the order to try; not empty.
    pub candidates: Vec<Candidate>,
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

/// Finds the candidates for `model`, in order, that `key` may use. `random`
/// gives a number below its argument.
///
/// # Errors
///
/// [`Unresolved`].
pub fn resolve(
    config: &Config,
    key: &Key,
    model: &str,
    random: &mut dyn FnMut(usize) -> usize,
) -> Result<Resolution, Unresolved> {
    if !permits(&key.allowed_models, &key.excluded_models, model) {
        return Err(Unresolved::ModelDenied(model.into()));
    }
    let mut resolution = match model.strip_prefix("direct/") {
        Some(rest) => direct(config, model, rest, random)?,
        None => match config.alias(model) {
            Some(alias) => aliased(config, alias, random),
            None => return Err(unknown(config, model)),
        },
    };
    // An exclusion can't be got round by another name of the same alias.
    if resolution
        .alias
        .as_ref()
        .is_some_and(|alias| key.excluded_models.iter().any(|name| **name == *alias.id))
    {
        return Err(Unresolved::ModelDenied(model.into()));
    }
    if resolution.candidates.is_empty() {
        return Err(Unresolved::NoTarget(model.into()));
    }
    resolution.candidates.retain(|candidate| {
        permits(
            &key.allowed_providers,
            &key.excluded_providers,
            &candidate.provider.id,
        )
    });
    if resolution.candidates.is_empty() {
        return Err(Unresolved::ProvidersDenied(model.into()));
    }
    Ok(resolution)
}

/// An empty list of allowed names allows all; exclusion wins.
#[must_use]
pub fn permits(allowed: &[String], excluded: &[String], name: &str) -> bool {
    (allowed.is_empty() || allowed.iter().any(|entry| entry == name))
        && !excluded.iter().any(|entry| entry == name)
}

fn direct(
    config: &Config,
    whole: &str,
    rest: &str,
    random: &mut dyn FnMut(usize) -> usize,
) -> Result<Resolution, Unresolved> {
    let (first, second) = match rest.split_once('/') {
        Some((first, second)) if !first.is_empty() && !second.is_empty() => (first, second),
        _ => return Err(Unresolved::DirectFormat(whole.into())),
    };
    if let Some(alias) = config.alias(first) {
        let Some(group) = alias.groups.iter().find(|group| &*group.name == second) else {
            return Err(Unresolved::Direct(format!(
                "Target group '{second}' not found for alias '{first}'"
            )));
        };
        let mut collector = Collector::new(config, random);
        collector.group(group);
        return Ok(Resolution {
            canonical: whole.into(),
            alias: Some(Arc::clone(alias)),
            candidates: collector.candidates,
        });
    }
    let Some(provider) = config.provider(first) else {
        return Err(Unresolved::Direct(format!("Provider '{first}' not found")));
    };
    if !provider.enabled {
        return Err(Unresolved::Direct(format!(
            "Provider '{first}' is disabled"
        )));
    }
    Ok(Resolution {
        canonical: whole.into(),
        alias: None,
        candidates: vec![candidate(provider, second)],
    })
}

fn aliased(
    config: &Config,
    alias: &Arc<Alias>,
    random: &mut dyn FnMut(usize) -> usize,
) -> Resolution {
    let mut collector = Collector::new(config, random);
    collector.alias(alias);
    Resolution {
        canonical: Arc::clone(&alias.id),
        alias: Some(Arc::clone(alias)),
        candidates: collector.candidates,
    }
}

fn candidate(provider: &Arc<Provider>, model: &str) -> Candidate {
    let (model, listed) = match provider.models.get_key_value(model) {
        Some((name, listed)) => (Arc::clone(name), Some(Arc::clone(listed))),
        None => (Arc::from(model), None),
    };
    Candidate {
        provider: Arc::clone(provider),
        model,
        listed,
    }
}

/// Gathers candidates group by group: a group's own targets in its selector's
/// order, then those of the aliases it names. The first mention of a target
/// wins; an alias is visited once, which is also what guards against cycles.
struct Collector<'a> {
    config: &'a Config,
    random: &'a mut dyn FnMut(usize) -> usize,
    candidates: Vec<Candidate>,
    visited: Vec<Arc<str>>,
}

impl<'a> Collector<'a> {
    fn new(config: &'a Config, random: &'a mut dyn FnMut(usize) -> usize) -> Self {
        Self {
            config,
            random,
            candidates: Vec::new(),
            visited: Vec::new(),
        }
    }

    fn alias(&mut self, alias: &Alias) {
        if self.visited.contains(&alias.id) {
            return;
        }
        self.visited.push(Arc::clone(&alias.id));
        for group in &alias.groups {
            self.group(group);
        }
    }

    fn group(&mut self, group: &TargetGroup) {
        let start = self.candidates.len();
        for target in &group.targets {
            if let Target::Model {
                provider,
                model,
                enabled: true,
            } = target
            {
                self.model(provider, model);
            }
        }
        if group.selector == Selector::Random {
            shuffle(&mut self.candidates[start..], self.random);
        }
        for target in &group.targets {
            if let Target::Alias {
                alias,
                enabled: true,
            } = target
                && let Some(alias) = self.config.alias(alias)
            {
                self.alias(alias);
            }
        }
    }

    fn model(&mut self, provider: &str, model: &str) {
        let Some(provider) = self
            .config
            .provider(provider)
            .filter(|provider| provider.enabled)
        else {
            return;
        };
        let known = self
            .candidates
            .iter()
            .any(|known| known.provider.id == provider.id && &*known.model == model);
        if !known {
            self.candidates.push(candidate(provider, model));
        }
    }
}

/// Fisher and Yates.
fn shuffle<T>(items: &mut [T], random: &mut dyn FnMut(usize) -> usize) {
    for last in (1..items.len()).rev() {
        items.swap(last, random(last + 1));
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
        let resolution = resolve(&config, &config.keys[key], model, &mut |_| 0)?;
        Ok(resolution
            .candidates
            .iter()
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

    #[test]
    fn random_puts_every_target_first_about_equally_often() {
        let config = Config::from_yaml(TEXT).unwrap();
        let mut state = 7_u64;
        let mut random = |below: usize| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(state >> 33).unwrap() % below
        };
        let mut first = std::collections::HashMap::new();
        for _ in 0..3000 {
            let resolution = resolve(&config, &config.keys["all"], "lots", &mut random).unwrap();
            *first
                .entry(resolution.candidates[0].model.to_string())
                .or_insert(0) += 1;
        }
        assert!(
            first.values().all(|count| (900..1100).contains(count)),
            "{first:?}"
        );
    }
}
