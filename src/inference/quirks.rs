//! What single providers need changed in a request: what the configuration says,
//! what was learned from refusals, and the learning itself.

use std::sync::Arc;

use bytes::Bytes;

use super::Work;
use super::attempt::{self, Answered, Limits};
use super::plan::Plan;
use crate::app::Core;
use crate::capture::Sent;
use crate::clock;
use crate::config::Endpoint;
use crate::exchange::Exchange;
use crate::protocol::Protocol;
use crate::protocol::adapt::{self, Adapted, Destination};
use crate::protocol::ir::Invalid;
use crate::protocol::json::Tape;
use crate::protocol::notes::Notes;
use crate::protocol::repair::{self, Fix};
use crate::protocol::splice;
use crate::routing::Candidate;
use crate::upstream::{Asked, Failure, Learned};

/// How many refusals of one target are answered by a change of the request.
const REPAIRS: usize = 2;

/// How requests are changed.
#[derive(Clone, Copy)]
pub(super) struct Quirks<'q> {
    /// What was learned from refusals.
    pub(super) learned: &'q Learned,
    /// Whether a change that may touch the output is refused, and nothing repaired.
    pub(super) strict: bool,
}

/// A body as a candidate needs it.
pub(super) struct Prepared {
    /// The body.
    pub(super) frames: Vec<Bytes>,
    /// Another name for the model than the configured one.
    pub(super) model: Option<String>,
    /// What was changed.
    pub(super) notes: Notes,
}

impl Quirks<'_> {
    /// Changes a body that is complete otherwise. Where nothing is configured, known
    /// or learned, it is not looked at.
    pub(super) fn prepare(
        self,
        candidate: &Candidate,
        endpoint: &Endpoint,
        frames: Vec<Bytes>,
    ) -> Result<Prepared, Invalid> {
        let chain = match &candidate.listed {
            Some(listed) => &listed.adapters,
            None => &candidate.provider.adapters,
        };
        let to = Destination {
            protocol: endpoint.protocol,
            host: endpoint.authority.host(),
            model: &candidate.model,
            version: candidate.provider.anthropic_version(),
        };
        let mut notes = Notes::new();
        let Adapted { mut frames, model } = adapt::adapt(chain, to, frames, &mut notes);
        if self.strict {
            notes.refuse(endpoint.protocol)?;
        } else {
            let asked = asked(candidate, model.as_deref(), endpoint.protocol);
            let fixes = self.learned.fixes(asked, clock::now());
            if let Some(fixed) = fixed(&fixes, endpoint.protocol, &frames, &mut notes) {
                frames = fixed;
            }
        }
        Ok(Prepared {
            frames,
            model,
            notes,
        })
    }
}

fn asked<'a>(candidate: &'a Candidate, model: Option<&'a str>, protocol: Protocol) -> Asked<'a> {
    Asked {
        provider: &candidate.provider.id,
        model: model.unwrap_or(&candidate.model),
        protocol,
    }
}

/// Tries a target, and tries it again with what its refusal asks to be changed. What
/// helped is remembered.
pub(super) async fn attempt(
    core: &Arc<Core>,
    exchange: &mut Exchange,
    work: &Work,
    (candidate, plan): (&Candidate, &mut Plan<'_>),
    limits: &Limits,
) -> Result<Box<Answered>, Box<Failure>> {
    let mut helped: Vec<Fix> = Vec::new();
    let mut repairs = 0;
    loop {
        plan.tap = exchange.capture().map(|capture| {
            capture.sends(Sent {
                provider: Arc::clone(&candidate.provider.id),
                model: Arc::clone(&candidate.model),
                protocol: plan.protocol,
                url: plan.outbound.url(),
                headers: plan.outbound.headers(),
                frames: plan.outbound.body(),
            })
        });
        let failure = match attempt::attempt(core, work, plan, limits).await {
            Ok(mut answered) => {
                let model = plan.model.as_deref();
                let asked = asked(candidate, model, plan.protocol);
                core.app.learned.helped(asked, &helped, clock::now());
                answered.notes.extend(&plan.notes);
                return Ok(answered);
            }
            Err(failure) => failure,
        };
        if repairs == REPAIRS || plan.strict {
            return Err(failure);
        }
        let Some(fixes) = repaired(&failure, plan) else {
            return Err(failure);
        };
        if !exchange.may_try() {
            return Err(failure);
        }
        let words: Vec<_> = fixes.iter().map(Fix::word).collect();
        exchange.attempt_repaired(&failure, &words.join(", "));
        helped.extend(fixes);
        repairs += 1;
    }
}

/// Changes what is sent as a refusal asks for; says by which fixes. `None` when
/// nothing is known that would help.
fn repaired(failure: &Failure, plan: &mut Plan<'_>) -> Option<Vec<Fix>> {
    let (status, raw) = (failure.status?, failure.raw.as_ref()?);
    let fixes = on_document(plan.outbound.body(), |root| {
        repair::diagnose(plan.protocol, status.as_u16(), &raw.body, root)
    })?;
    let frames = fixed(&fixes, plan.protocol, plan.outbound.body(), &mut plan.notes)?;
    plan.outbound.set_body(frames);
    Some(fixes)
}

/// The body after these fixes; `None` where they change nothing.
fn fixed(
    fixes: &[Fix],
    protocol: Protocol,
    frames: &[Bytes],
    notes: &mut Notes,
) -> Option<Vec<Bytes>> {
    if fixes.is_empty() {
        return None;
    }
    let patches = on_document(frames, |root| {
        let edits = repair::apply(fixes, protocol, root, notes)?;
        Some(edits.into_patches())
    })?;
    Some(splice::apply(frames, patches))
}

fn on_document<T>(
    frames: &[Bytes],
    read: impl FnOnce(crate::protocol::json::Value<'_>) -> Option<T>,
) -> Option<T> {
    let whole = match frames {
        [only] => only.clone(),
        many => many.concat().into(),
    };
    let mut tape = Tape::new();
    read(tape.parse_bytes(&whole).ok()?)
}
