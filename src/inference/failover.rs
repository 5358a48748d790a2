//! attempt: each candidate in turn until one answers.
//!
//! What may be tried is limited four times over: by the request's own cap, by
//! the purse of second tries that all requests share, by targets' rests, and by
//! limits on requests under way. Who finds only limits of the last kind waits a
//! little.

use std::sync::Arc;
use std::time::Duration;

use super::attempt::{Answered, Limits};
use super::failure::{self, Refusal};
use super::plan::{NoPlan, Plan, Planner};
use super::translation::Source;
use super::vision::Sight;
use super::{Work, count, quirks, quota, state};
use crate::app::Core;
use crate::clock;
use crate::config::Config;
use crate::exchange::Exchange;
use crate::protocol::Protocol;
use crate::protocol::error::ErrorClass;
use crate::protocol::ir::Invalid;
use crate::quota::Exceeded;
use crate::relay::Form;
use crate::routing::permit::{Place, Reached, Ticket};
use crate::routing::session::{self, Sessions};
use crate::routing::standing::{Pass, Trial};
use crate::routing::{Candidate, Resolution};
use crate::upstream::Failure;
use crate::usage::estimate::Estimate;

/// How long a request waits for another to end, where a limit is reached.
const QUEUE_WAIT: Duration = Duration::from_secs(5);

/// The candidates, and the conversation that the request is of.
pub(super) struct Choice {
    pub(super) resolution: Resolution,
    pub(super) sessions: Sessions,
    /// Whether the request is one of the gateway's own.
    pub(super) internal: bool,
}

/// admit: takes one of the key's permits, or waits for it
pub(super) async fn admit(core: &Core, exchange: &mut Exchange) -> Result<(), Refusal> {
    let Some(key) = exchange.key() else {
        return Err(Refusal::internal());
    };
    let Some(limit) = key.max_concurrency else {
        return Ok(());
    };
    let switchboard = &core.app.switchboard;
    let Some(permits) = switchboard.key(&exchange.config, &key.name) else {
        return Ok(());
    };
    let name = Arc::clone(&key.name);
    let taken = match permits.take(limit, Ticket::NONE) {
        Some(permit) => Some(permit),
        None => {
            let line = || {
                vec![Reached {
                    permits: Arc::clone(&permits),
                    limit,
                }]
            };
            queued(line(), |ticket| {
                permits.take(limit, ticket).ok_or_else(line)
            })
            .await
        }
    };
    let Some(permit) = taken else {
        let message = format!("Key '{name}' has {limit} requests under way, which is its limit");
        return Err(Refusal::new(ErrorClass::RateLimited, message).retry_after(RETURN));
    };
    exchange.permitted(permit);
    Ok(())
}

/// When somebody who found a limit reached may come back.
const RETURN: Duration = Duration::from_secs(1);

/// Waits in line behind those limits until `look` finds something.
async fn queued<T>(
    reached: Vec<Reached>,
    look: impl FnMut(Ticket) -> Result<T, Vec<Reached>>,
) -> Option<T> {
    let place = Place::behind(reached)?;
    let waited = tokio::time::timeout(QUEUE_WAIT, place.until(look)).await;
    waited.ok().flatten()
}

/// Tries candidate after candidate.
pub(super) async fn attempt_each(
    core: &Arc<Core>,
    exchange: &mut Exchange,
    work: &Work,
    choice: &Choice,
) -> Result<(Box<Answered>, String), Refusal> {
    let resolution = &choice.resolution;
    let source = Source::new(work, exchange.config.store.responses);
    let alias = resolution.route.alias.as_deref();
    let sight = Sight::of(exchange, work, alias.filter(|_| !choice.internal));
    let mut round = Round {
        core,
        work,
        config: Arc::clone(&exchange.config),
        planner: Planner::new(work, alias, &source, exchange, &core.app.learned),
        sight: sight.as_deref(),
        sessions: choice.sessions,
        last: None,
        unsaid: None,
        full: Vec::new(),
        exceeded: Vec::new(),
        limited: None,
    };
    for (candidate, pass) in resolution.resting() {
        exchange.skipped(candidate, work.ask.protocol, pass.to_string());
    }
    let mut left = resolution.len();
    for candidate in resolution.candidates() {
        left -= 1;
        match round.attempt(exchange, candidate, None, left == 0).await? {
            Step::Answered(answered, route) => return Ok((answered, route)),
            Step::Next => {}
            Step::Stop => break,
        }
    }
    if work.is_count() {
        return Ok((Box::new(count::estimated(work)?), "none; attempts=0".into()));
    }
    if !exchange.has_tried()
        && let Some((candidate, trial)) = round.wait().await
        && let Step::Answered(answered, route) = round
            .attempt(exchange, candidate, Some(trial), true)
            .await?
    {
        return Ok((answered, route));
    }
    Err(round.refusal(exchange, resolution))
}

/// What came of a candidate.
enum Step {
    Answered(Box<Answered>, String),
    Next,
    Stop,
}

/// One request's way through its candidates.
struct Round<'a> {
    core: &'a Arc<Core>,
    work: &'a Work,
    config: Arc<Config>,
    planner: Planner<'a>,
    /// How those are asked that can't see.
    sight: Option<&'a Sight<'a>>,
    sessions: Sessions,
    last: Option<Box<Failure>>,
    /// Why the first of those that were passed over could not be asked.
    unsaid: Option<Invalid>,
    /// Candidates whose limit is reached.
    full: Vec<(&'a Candidate, Pass)>,
    /// Candidates that a quota keeps from the request.
    exceeded: Vec<(&'a Candidate, Exceeded)>,
    /// Why no more may be tried, though there is more.
    limited: Option<String>,
}

impl<'a> Round<'a> {
    async fn attempt(
        &mut self,
        exchange: &mut Exchange,
        candidate: &'a Candidate,
        trial: Option<Trial>,
        last: bool,
    ) -> Result<Step, Refusal> {
        if let Err(exceeded) = exchange.aim(candidate) {
            let reason = quota::reason(&exceeded);
            exchange.skipped(candidate, self.work.ask.protocol, reason);
            self.exceeded.push((candidate, exceeded));
            return Ok(Step::Next);
        }
        let worded = match self.sight {
            Some(sight) => Box::pin(sight.form(self.core, exchange, candidate)).await,
            None => None,
        };
        let told = worded.as_ref().and_then(|worded| worded.planner);
        let plan = match told.unwrap_or(&self.planner).plan(candidate) {
            Ok(mut plan) => {
                if let Some(worded) = &worded {
                    plan.notes.extend(worded.notes);
                }
                plan
            }
            Err(NoPlan::Skip { to, reason }) => {
                exchange.skipped(candidate, to, reason.message.clone());
                self.unsaid.get_or_insert(reason);
                return Ok(Step::Next);
            }
            Err(NoPlan::Refuse(refusal)) => return Err(refusal),
        };
        let now = self.core.app.switchboard.now(clock::now());
        let begun = trial.map_or_else(
            || Trial::begin(&candidate.standing, candidate.rules, now),
            Ok,
        );
        let trial = match begun {
            Ok(trial) => trial,
            Err(pass) => {
                exchange.skipped(candidate, plan.protocol, pass.to_string());
                if matches!(pass, Pass::Full { .. }) {
                    self.full.push((candidate, pass));
                }
                return Ok(Step::Next);
            }
        };
        if let Some(limit) = self.limit(exchange) {
            drop(trial);
            exchange.skipped(candidate, plan.protocol, limit.clone());
            self.limited = Some(limit);
            return Ok(Step::Stop);
        }
        let most = exchange.tries() + 1 >= self.config.failover.most_attempts;
        let last = last || most || !self.config.failover.enabled;
        self.send(exchange, (candidate, told.is_some()), plan, trial, last)
            .await
    }

    /// Why this request may not try any more.
    fn limit(&self, exchange: &mut Exchange) -> Option<String> {
        let most = self.config.failover.most_attempts;
        if exchange.tries() >= most {
            return Some(format!(
                "the request tried {most} targets, which is the limit"
            ));
        }
        (!exchange.may_try())
            .then(|| "too many requests are being tried again; the retry budget is spent".into())
    }

    async fn send(
        &mut self,
        exchange: &mut Exchange,
        (candidate, worded): (&'a Candidate, bool),
        mut plan: Plan<'a>,
        trial: Trial,
        last: bool,
    ) -> Result<Step, Refusal> {
        let (core, work) = (self.core, self.work);
        let number = trial.standing().number;
        let pass_through = plan.is_pass_through();
        // How counting goes says nothing about answering.
        let trial = Some(trial).filter(|_| !work.is_count());
        let untouched = pass_through && !worded;
        exchange.attempt_started(candidate, plan.protocol, untouched, trial);
        let limits = self.limits(candidate, last);
        match quirks::attempt(core, exchange, work, (candidate, &mut plan), &limits).await {
            Ok(answered) => {
                exchange.noted(&answered.notes);
                if candidate.provider.estimate_tokens && !work.is_count() {
                    exchange.estimate(count::of(work, plan.protocol, &answered.committed));
                } else if let Some(input) = exchange.limited_input()
                    && answered.committed.form != Form::Unary
                {
                    // Usage comes last: who leaves before must not have it for nothing.
                    exchange.estimate(Estimate::new(input, plan.protocol, true));
                }
                exchange.keep(state::keep(exchange, work, pass_through));
                self.pin(number, pass_through, &answered);
                let route = route_of(candidate, exchange);
                Ok(Step::Answered(answered, route))
            }
            Err(failure) => {
                let failover = &self.config.failover;
                let may = failover.enabled && failure.may_go_on(failover);
                let go_on = may || work.is_count();
                exchange.attempt_failed(&failure, &plan.outbound, go_on);
                self.last = Some(failure);
                Ok(if go_on { Step::Next } else { Step::Stop })
            }
        }
    }

    fn limits(&self, candidate: &Candidate, last: bool) -> Limits {
        let provider = &candidate.provider;
        let config = &self.config;
        Limits {
            attempt: provider.attempt_timeout.unwrap_or(config.attempt_timeout),
            connect: provider.connect_timeout,
            heartbeat: config.server.heartbeat,
            document: usize::try_from(config.server.limits.body).unwrap_or(usize::MAX),
            stall: provider.stall,
            last,
        }
    }

    /// The conversation stays with the target that answers it.
    fn pin(&self, number: u64, pass_through: bool, answered: &Answered) {
        let sticky = &self.core.app.switchboard.sticky;
        if let Some(conversation) = self.sessions.conversation {
            sticky.pin(conversation, number);
        }
        let stores = self.work.ask.protocol == Protocol::Responses && pass_through;
        if !stores {
            return;
        }
        let opening = answered.committed.opening.first();
        if let Some(id) = opening.and_then(|chunk| session::answer_id(chunk))
            && let Some(alias) = self.planner.sticky_alias()
        {
            sticky.pin(Sessions::of_answer(&alias.id, id), number);
        }
    }

    /// Waits until one of the candidates whose limit is reached may be tried.
    async fn wait(&self) -> Option<(&'a Candidate, Trial)> {
        let reached = self.full.iter().filter_map(|(_, pass)| limit_of(pass));
        let switchboard = &self.core.app.switchboard;
        let look = |ticket| {
            let now = switchboard.now(clock::now());
            let mut reached = Vec::new();
            for (candidate, _) in &self.full {
                let (standing, rules) = (&candidate.standing, candidate.rules);
                match Trial::begin_in_turn(standing, rules, now, ticket) {
                    Ok(trial) => return Ok((*candidate, trial)),
                    Err(pass) => reached.extend(limit_of(&pass)),
                }
            }
            Err(reached)
        };
        queued(reached.collect(), look).await
    }

    /// Every candidate was tried or passed over.
    fn refusal(self, exchange: &Exchange, resolution: &Resolution) -> Refusal {
        if self.last.is_some() {
            return failure::all_failed(exchange, self.last, None);
        }
        if let Some(refusal) = quota::all_exceeded(&self.exceeded) {
            return refusal;
        }
        if let Some((_, pass)) = self.full.first() {
            let message = format!("No target for model '{}' is free: {pass}", self.work.model);
            return Refusal::new(ErrorClass::RateLimited, message).retry_after(RETURN);
        }
        if let Some(refusal) = resting(&self.work.model, resolution) {
            return refusal;
        }
        if let Some(invalid) = &self.unsaid {
            return Refusal::from(invalid);
        }
        let message = self.limited.unwrap_or_else(|| {
            format!(
                "No target for model '{}' can be asked now; one is being tried after a rest",
                self.work.model
            )
        });
        Refusal::new(ErrorClass::Overloaded, message).retry_after(RETURN)
    }
}

fn limit_of(pass: &Pass) -> Option<Reached> {
    match pass {
        Pass::Full { reached, .. } => Some(reached.clone()),
        _ => None,
    }
}

/// The refusal when an answer is with a provider that can't be asked now.
pub(super) fn lost_with(provider: &str, resolution: &Resolution) -> Refusal {
    let message = format!(
        "the answer that this request goes on from is kept by the provider '{provider}', which \
         can't be asked now; send the whole conversation, or come back later"
    );
    let refusal = Refusal::new(ErrorClass::Conflict, message).param("previous_response_id");
    let ends = resolution
        .resting()
        .filter_map(|(candidate, pass)| match pass {
            Pass::Cooling { left_ms, .. } if *candidate.provider.id == *provider => Some(*left_ms),
            _ => None,
        });
    match ends.min() {
        Some(left) => {
            let left = u64::try_from(left).unwrap_or(0).max(1);
            refusal.retry_after(Duration::from_millis(left))
        }
        None => refusal,
    }
}

/// The refusal when targets rest: with the soonest end of a rest.
fn resting(model: &str, resolution: &Resolution) -> Option<Refusal> {
    let rests = || {
        resolution.resting().filter_map(|(_, pass)| match pass {
            Pass::Cooling { left_ms, limited } => Some((*left_ms, *limited)),
            _ => None,
        })
    };
    let soonest = rests().map(|(left_ms, _)| left_ms).min()?;
    let soonest = Duration::from_millis(u64::try_from(soonest).unwrap_or(0).max(1));
    // Only when all of them said that they have too much to do is that what
    // the client is told.
    let class = if rests().all(|(_, limited)| limited) {
        ErrorClass::RateLimited
    } else {
        ErrorClass::Overloaded
    };
    let seconds = soonest.as_secs() + u64::from(soonest.subsec_nanos() > 0);
    let message =
        format!("All targets for model '{model}' are on cooldown; the next is due in {seconds} s");
    Some(Refusal::new(class, message).retry_after(soonest))
}

fn route_of(candidate: &Candidate, exchange: &Exchange) -> String {
    let tried = exchange.attempts().iter().filter(|a| a.result.counts());
    let tried = (tried.count() + 1).to_string();
    // Written for every answer: formatting costs several times as much.
    [
        &*candidate.provider.id,
        "/",
        &*candidate.model,
        "; attempts=",
        &tried,
    ]
    .concat()
}
