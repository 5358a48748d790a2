//! The order of a group's candidates.
//!
//! Every candidate becomes one number, in whose low bits its place stands: the
//! numbers are sorted, and nothing is looked at twice.

use super::dice::Dice;
use super::table::{Candidate, Group, Route};
use crate::config::{Exploration, Selector};
use crate::protocol::Protocol;

/// What an order depends on besides the candidates.
#[derive(Debug, Clone, Copy)]
pub(super) struct Circumstances<'a> {
    pub(super) now: i64,
    /// What the client speaks, where targets that speak it go first.
    pub(super) preferred: Option<Protocol>,
    /// How often another than the best goes first.
    pub(super) exploration: Option<&'a Exploration>,
}

/// What a selector looks at, in its own unit; `None` is no data.
pub(super) fn measure(selector: Selector, candidate: &Candidate, now: i64) -> Option<f32> {
    let window = &candidate.standing.window;
    match selector {
        Selector::Random => Some(candidate.weight),
        Selector::Cost => candidate.compared,
        Selector::Latency => window.ttft_ms(),
        Selector::Performance => window.speed(),
        Selector::E2ePerformance => window.overall_speed(),
        Selector::Usage => Some(window.used_in_a_day(now) as f32),
        // Without meters, all are equal.
        Selector::InOrder | Selector::Quota => None,
    }
}

/// Appends the group's candidates that `fits` lets in, best first.
pub(super) fn order(
    route: &Route,
    group: &Group,
    circumstances: Circumstances<'_>,
    dice: &mut Dice,
    fits: &mut dyn FnMut(usize, &Candidate) -> bool,
    chosen: &mut Vec<u64>,
) {
    let start = chosen.len();
    for place in group.members.clone() {
        let candidate = &route.candidates[place];
        if fits(place, candidate) {
            let rank = rank(group.selector, candidate, circumstances.now, dice);
            let foreign = circumstances
                .preferred
                .is_some_and(|protocol| !candidate.speaks(protocol));
            chosen.push((u64::from(foreign) << 48) | (u64::from(rank) << 16) | (place as u64));
        }
    }
    let group_chosen = &mut chosen[start..];
    if group_chosen.len() > 1 {
        group_chosen.sort_unstable();
        let explored = circumstances.exploration;
        let rate = explored.map_or(0.0, |exploration| rate(group.selector, exploration));
        if dice.happens(rate) {
            explore(route, group_chosen, dice);
        }
    }
}

/// The candidate's place in the route.
pub(super) const fn place(chosen: u64) -> usize {
    (chosen & 0xFFFF) as usize
}

/// Lower is better. Without data a candidate ranks last.
fn rank(selector: Selector, candidate: &Candidate, now: i64, dice: &mut Dice) -> u32 {
    let value = match selector {
        Selector::InOrder | Selector::Quota => return 0,
        // The first of several exponentially distributed moments is each one's
        // with a probability in proportion to its rate (Efraimidis, Spirakis,
        // 2006); sorting them draws without putting back.
        Selector::Random => Some(-(dice.fraction().ln() as f32) / candidate.weight),
        Selector::Cost | Selector::Latency | Selector::Usage => measure(selector, candidate, now),
        Selector::Performance | Selector::E2ePerformance => {
            measure(selector, candidate, now).map(|speed| -speed)
        }
    };
    value.map_or(u32::MAX, ascending)
}

/// Bits that compare as the numbers do.
const fn ascending(value: f32) -> u32 {
    let bits = value.to_bits();
    if bits >> 31 == 0 {
        bits | 0x8000_0000
    } else {
        !bits
    }
}

/// How often a selector that measures looks at another than the best.
const fn rate(selector: Selector, exploration: &Exploration) -> f64 {
    if exploration.background.is_some() {
        return 0.0;
    }
    match selector {
        Selector::Latency => exploration.latency,
        Selector::Performance => exploration.performance,
        Selector::E2ePerformance => exploration.e2e_performance,
        _ => 0.0,
    }
}

/// Puts forward one that was never measured, else the one whose measurement is
/// oldest.
fn explore(route: &Route, chosen: &mut [u64], dice: &mut Dice) {
    let window = |key: &u64| &route.candidates[place(*key)].standing.window;
    let unknown = chosen
        .iter()
        .filter(|key| window(key).samples() == 0)
        .count();
    let picked = if unknown > 0 {
        let which = dice.below(unknown);
        let mut places = (0..chosen.len()).filter(|i| window(&chosen[*i]).samples() == 0);
        places.nth(which)
    } else {
        (0..chosen.len()).min_by_key(|i| window(&chosen[*i]).updated())
    };
    if let Some(picked) = picked {
        chosen[..=picked].rotate_right(1);
    }
}
