//! What each model name leads to, worked out once for a configuration.
//!
//! Requests share a route: choosing among its candidates copies numbers only.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use foldhash::fast::RandomState;

use super::permit::Permits;
use super::standing::{Rules, Standing, Standings};
use crate::config::{
    Alias, Config, Cooldown, Endpoint, Provider, ProviderModel, Selector, Target, TargetGroup,
};
use crate::protocol::Protocol;
use crate::protocol::capabilities::Capabilities;
use crate::usage::catalogue::Catalogue;
use crate::usage::pricing::Price;

/// Most candidates of a route: their places are numbers of 16 bits.
const MOST: usize = 1 << 16;

/// A target that may be considered.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Who would serve it.
    pub provider: Arc<Provider>,
    /// The model's name there.
    pub model: Arc<str>,
    /// What the provider's list says of it, when it is listed.
    pub listed: Option<Arc<ProviderModel>>,
    /// How it stands.
    pub standing: Arc<Standing>,
    /// What the configuration says about using it.
    pub rules: Rules,
    /// Its share of a random choice.
    pub weight: f32,
    /// What it costs.
    pub price: Arc<Price>,
    /// US dollars for a request to compare by.
    pub compared: Option<f32>,
    /// A bit for each protocol that it speaks.
    speaks: u16,
    /// What it can do at each of its provider's endpoints, in their order. Worked
    /// out when the first request asks, for every one after it.
    able: OnceLock<Box<[Capabilities]>>,
}

impl Candidate {
    /// What the model can do where that is spoken to its provider: what is known,
    /// and the operator's word. `None` where that is not spoken.
    #[must_use]
    pub fn capabilities(&self, protocol: Protocol) -> Option<&Capabilities> {
        let endpoints = &self.provider.endpoints;
        let place = endpoints.iter().position(|at| at.protocol == protocol)?;
        let able = |at: &Endpoint| capabilities(at, &self.model, self.listed.as_deref());
        let all = self
            .able
            .get_or_init(|| endpoints.iter().map(able).collect());
        all.get(place)
    }

    /// Whether it speaks that protocol without translation.
    #[must_use]
    pub const fn speaks(&self, protocol: Protocol) -> bool {
        self.speaks & bit(protocol) != 0
    }
}

const fn bit(protocol: Protocol) -> u16 {
    1 << (protocol as u16)
}

/// Candidates that are ordered among themselves.
#[derive(Debug, Clone)]
pub struct Group {
    /// Its name in the file.
    pub name: Arc<str>,
    /// How.
    pub selector: Selector,
    /// Which of the route's candidates.
    pub members: Range<usize>,
}

/// What a model name leads to.
#[derive(Debug)]
pub struct Route {
    /// The alias's id, or the whole `direct/...` name.
    pub canonical: Arc<str>,
    /// The alias, unless a provider was named directly.
    pub alias: Option<Arc<Alias>>,
    /// Exhausted in order.
    pub groups: Vec<Group>,
    /// Group after group; no target is there twice.
    pub candidates: Vec<Candidate>,
}

/// All routes of a configuration.
#[derive(Debug)]
pub struct Table {
    /// Which configuration.
    pub revision: u64,
    routes: HashMap<Arc<str>, Arc<Route>, RandomState>,
    keys: HashMap<Arc<str>, Arc<Permits>, RandomState>,
    /// What the routes were worked out with, beside providers and aliases.
    cooldown: Cooldown,
    catalogue: Arc<Catalogue>,
}

impl Table {
    /// Works out the routes of `config`. Keys keep the permits that `before`
    /// has given out, and aliases the routes that would be no other.
    #[must_use]
    pub fn new(
        config: &Config,
        standings: &Standings,
        catalogue: &Arc<Catalogue>,
        before: Option<&Self>,
    ) -> Self {
        let same = before.filter(|before| {
            before.cooldown == config.cooldown && Arc::ptr_eq(&before.catalogue, catalogue)
        });
        let route = |alias: &Arc<Alias>| {
            let known = same.and_then(|before| before.routes.get(&alias.id));
            if let Some(route) = known.filter(|route| still_leads(route, alias, config)) {
                return (Arc::clone(&alias.id), Arc::clone(route));
            }
            let mut builder = Builder::new(config, standings, catalogue);
            builder.alias(alias);
            (Arc::clone(&alias.id), builder.route(&alias.id, Some(alias)))
        };
        let own: HashMap<Arc<str>, Arc<Route>, RandomState> =
            config.aliases.values().map(route).collect();
        let named = config.named_aliases().filter_map(|(name, alias)| {
            let route = own.get(&alias.id)?;
            Some((Arc::clone(name), Arc::clone(route)))
        });
        let routes = named.collect();
        let limited = config
            .keys
            .values()
            .filter(|key| key.max_concurrency.is_some());
        let permits = |name: &Arc<str>| {
            let known = before.and_then(|before| before.keys.get(name));
            known.map_or_else(|| Permits::new(standings.tickets()), Arc::clone)
        };
        let keys = limited.map(|key| (Arc::clone(&key.name), permits(&key.name)));
        Self {
            revision: config.revision,
            routes,
            keys: keys.collect(),
            cooldown: config.cooldown,
            catalogue: Arc::clone(catalogue),
        }
    }

    /// What that name of an alias leads to.
    #[must_use]
    pub fn route(&self, name: &str) -> Option<&Arc<Route>> {
        self.routes.get(name)
    }

    /// The permits of a key that has a limit.
    #[must_use]
    pub fn key(&self, name: &str) -> Option<&Arc<Permits>> {
        self.keys.get(name)
    }

    /// Every alias's route, in no order, additional names left out.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        let all = self.routes.iter();
        all.filter(|(name, route)| **name == route.canonical)
            .map(|(_, route)| route)
    }
}

/// Whether an alias leads where it did: neither it nor a provider that it names is
/// another.
fn still_leads(route: &Route, alias: &Arc<Alias>, config: &Config) -> bool {
    let mut targets = alias.groups.iter().flat_map(|group| &group.targets);
    let same = |target: &Target| match target {
        Target::Alias { .. } => false,
        Target::Model { enabled: false, .. } => true,
        Target::Model { provider, .. } => config.provider(provider).is_some_and(|provider| {
            let mut candidates = route.candidates.iter();
            candidates.any(|candidate| Arc::ptr_eq(&candidate.provider, provider))
        }),
    };
    route
        .alias
        .as_ref()
        .is_some_and(|known| Arc::ptr_eq(known, alias))
        && targets.all(same)
}

/// The route to one group of an alias.
pub(super) fn to_group(
    (config, standings, catalogue): (&Config, &Standings, &Catalogue),
    whole: &str,
    alias: &Arc<Alias>,
    group: &TargetGroup,
) -> Arc<Route> {
    let mut builder = Builder::new(config, standings, catalogue);
    builder.group(group);
    builder.route(&whole.into(), Some(alias))
}

/// The route to one model of a provider.
pub(super) fn to_model(
    (config, standings, catalogue): (&Config, &Standings, &Catalogue),
    whole: &str,
    provider: &Arc<Provider>,
    model: &str,
) -> Arc<Route> {
    let mut builder = Builder::new(config, standings, catalogue);
    builder.model(&provider.id, model, 1.0);
    builder.end_group(&"".into(), Selector::InOrder, 0);
    builder.route(&whole.into(), None)
}

/// Gathers candidates group by group: a group's own targets, then those of the
/// aliases it names. The first mention of a target wins; an alias is visited
/// once, which is also what guards against cycles.
struct Builder<'a> {
    config: &'a Config,
    standings: &'a Standings,
    catalogue: &'a Catalogue,
    groups: Vec<Group>,
    candidates: Vec<Candidate>,
    visited: Vec<Arc<str>>,
}

impl<'a> Builder<'a> {
    const fn new(config: &'a Config, standings: &'a Standings, catalogue: &'a Catalogue) -> Self {
        Self {
            config,
            standings,
            catalogue,
            groups: Vec::new(),
            candidates: Vec::new(),
            visited: Vec::new(),
        }
    }

    fn route(self, canonical: &Arc<str>, alias: Option<&Arc<Alias>>) -> Arc<Route> {
        Arc::new(Route {
            canonical: Arc::clone(canonical),
            alias: alias.map(Arc::clone),
            groups: self.groups,
            candidates: self.candidates,
        })
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
                weight,
            } = target
            {
                self.model(provider, model, *weight);
            }
        }
        self.end_group(&group.name, group.selector, start);
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

    fn end_group(&mut self, name: &Arc<str>, selector: Selector, start: usize) {
        if start < self.candidates.len() {
            self.groups.push(Group {
                name: Arc::clone(name),
                selector,
                members: start..self.candidates.len(),
            });
        }
    }

    fn model(&mut self, provider: &str, model: &str, weight: f64) {
        let provider = self.config.provider(provider);
        let Some(provider) = provider.filter(|provider| provider.enabled) else {
            return;
        };
        let known = self
            .candidates
            .iter()
            .any(|known| known.provider.id == provider.id && &*known.model == model);
        if known || self.candidates.len() >= MOST {
            return;
        }
        let (model, listed) = match provider.models.get_key_value(model) {
            Some((name, listed)) => (Arc::clone(name), Some(Arc::clone(listed))),
            None => (Arc::from(model), None),
        };
        let limit = listed.as_ref().and_then(|listed| listed.max_concurrency);
        let price = Price::of(provider, listed.as_deref(), self.catalogue);
        self.candidates.push(Candidate {
            standing: self.standings.of(&provider.id, &model),
            rules: Rules::of(self.config.cooldown, provider, limit),
            weight: weight as f32,
            compared: price.compared().map(|price| price as f32),
            price: Arc::new(price),
            speaks: spoken(provider, listed.as_deref()),
            provider: Arc::clone(provider),
            model,
            listed,
            able: OnceLock::new(),
        });
    }
}

fn capabilities(at: &Endpoint, model: &str, listed: Option<&ProviderModel>) -> Capabilities {
    let known = Capabilities::of(at.protocol, at.authority.host(), model);
    match listed.and_then(|listed| listed.capabilities.as_ref()) {
        Some(words) => known.overridden(words),
        None => known,
    }
}

/// The protocols of the provider's endpoints, narrowed by the model's own list.
fn spoken(provider: &Provider, listed: Option<&ProviderModel>) -> u16 {
    let via = listed.map_or(&[][..], |listed| &listed.access_via);
    let protocols = provider.endpoints.iter().map(|endpoint| endpoint.protocol);
    let reachable = protocols.filter(|spoken| via.is_empty() || via.contains(spoken));
    reachable.fold(0, |bits, protocol| bits | bit(protocol))
}
