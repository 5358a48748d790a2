//! Why a request would go where it goes: every candidate in its place, with
//! what its selector saw, and every other target with the reason it is left
//! out. Nothing is sent and nothing changes.

use std::sync::Arc;

use super::permit::Permits;
use super::standing::Pass;
use super::table::{Candidate, Group};
use super::window::Averages;
use super::{Asked, Denial, Resolution, Switchboard, denial, selector};
use crate::config::{Alias, Config, Key, Selector, Target};

/// A candidate in its place.
#[derive(Debug)]
pub struct Considered {
    /// The provider's id.
    pub provider: Arc<str>,
    /// The model there.
    pub model: Arc<str>,
    /// The group it is of.
    pub group: Arc<str>,
    /// The group's selector.
    pub selector: Selector,
    /// What the selector saw, in its own unit: a weight, US dollars,
    /// milliseconds, tokens per second, requests. `None` is no data.
    pub score: Option<f32>,
    /// Whether it speaks the client's protocol.
    pub native: bool,
    /// What was measured of it.
    pub averages: Averages,
    /// Why it would be passed over if it were tried now.
    pub passed_over: Option<String>,
}

/// A target that is not considered.
#[derive(Debug)]
pub struct LeftOut {
    /// The provider's id.
    pub provider: Arc<str>,
    /// The model there.
    pub model: Arc<str>,
    /// Why not.
    pub reason: String,
}

/// All of it.
#[derive(Debug, Default)]
pub struct Explanation {
    /// In the order to try.
    pub candidates: Vec<Considered>,
    /// The rest.
    pub left_out: Vec<LeftOut>,
}

/// Explains a resolution.
#[must_use]
pub fn explain(
    config: &Config,
    key: Option<&Key>,
    asked: Asked<'_>,
    resolution: &Resolution,
) -> Explanation {
    let route = &resolution.route;
    let group = |candidate: &Candidate| -> Option<&Group> {
        let place = route
            .candidates
            .iter()
            .position(|known| known.standing.number == candidate.standing.number)?;
        route
            .groups
            .iter()
            .find(|group| group.members.contains(&place))
    };
    let considered = resolution.candidates().map(|candidate| {
        let group = group(candidate);
        let selector = group.map_or(Selector::InOrder, |group| group.selector);
        Considered {
            provider: Arc::clone(&candidate.provider.id),
            model: Arc::clone(&candidate.model),
            group: group.map_or_else(|| "".into(), |group| Arc::clone(&group.name)),
            selector,
            score: selector::measure(selector, candidate, asked.now),
            native: candidate.speaks(asked.protocol),
            averages: candidate.standing.window.averages(),
            passed_over: full(candidate).map(|pass| pass.to_string()),
        }
    });
    let mut explanation = Explanation {
        candidates: considered.collect(),
        left_out: Vec::new(),
    };
    for candidate in &route.candidates {
        let reason = match key.and_then(|key| denial(key, candidate)) {
            None => continue,
            Some(Denial::Provider) => "the key may not use this provider",
            Some(Denial::Model) => "the key may not use this model",
        };
        explanation.leave_out(candidate, reason.into());
    }
    for (candidate, pass) in resolution.resting() {
        explanation.leave_out(candidate, pass.to_string());
    }
    if let Some(alias) = &route.alias {
        explanation.switched_off(config, alias);
    }
    explanation
}

impl Explanation {
    fn leave_out(&mut self, candidate: &Candidate, reason: String) {
        self.left_out.push(LeftOut {
            provider: Arc::clone(&candidate.provider.id),
            model: Arc::clone(&candidate.model),
            reason,
        });
    }

    /// Targets that the file names and that never become candidates.
    fn switched_off(&mut self, config: &Config, alias: &Alias) {
        for target in alias.groups.iter().flat_map(|group| &group.targets) {
            let Target::Model {
                provider,
                model,
                enabled,
                ..
            } = target
            else {
                continue;
            };
            let reason = match config.provider(provider) {
                _ if !enabled => "the target is disabled",
                None => "there is no such provider",
                Some(known) if !known.enabled => "the provider is disabled",
                Some(_) => continue,
            };
            self.left_out.push(LeftOut {
                provider: Arc::clone(provider),
                model: Arc::clone(model),
                reason: reason.to_owned(),
            });
        }
    }
}

/// The limit that is reached, if one is.
fn full(candidate: &Candidate) -> Option<Pass> {
    let reached = |permits: &Arc<Permits>, limit: Option<u32>, whole| {
        let limit = limit.filter(|limit| permits.active() >= *limit)?;
        Some(Pass::full(permits, limit, whole))
    };
    let standing = &candidate.standing;
    let whole = reached(
        &standing.house.permits,
        candidate.rules.provider_limit,
        true,
    );
    whole.or_else(|| reached(&standing.permits, candidate.rules.target_limit, false))
}

/// The conversation's own target, if it is remembered.
#[must_use]
pub fn pinned(switchboard: &Switchboard, sessions: super::session::Sessions) -> Option<u64> {
    let mut pins = sessions
        .all()
        .map(|session| switchboard.sticky.find(session));
    pins.find_map(|pin| pin)
}
