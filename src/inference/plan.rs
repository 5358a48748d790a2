//! How a candidate would be asked: with the client's own bytes, or translated.

use std::sync::OnceLock;

use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::limits::{self, Need};
use super::quirks::{Prepared, Quirks};
use super::state::Chain;
use super::translation::{self, Decoded, Settings, Shown, Source, Translation};
use super::{Refusal, Work, count, foreign};
use crate::capture::Tap;
use crate::config::{Alias, Endpoint};
use crate::exchange::Exchange;
use crate::protocol::envelope;
use crate::protocol::error::ErrorClass;
use crate::protocol::ir::Invalid;
use crate::protocol::notes::{Action, Notes};
use crate::protocol::peek::Peeked;
use crate::protocol::{Protocol, peek, splice};
use crate::routing::Candidate;
use crate::upstream::{Learned, Outbound, suffix};

/// The way to a candidate.
pub(super) struct Plan<'a> {
    /// What is spoken to the provider.
    pub(super) protocol: Protocol,
    /// What is sent.
    pub(super) outbound: Outbound<'a>,
    /// How the answer comes back.
    pub(super) way: Way,
    /// The model's name there, where the request gave it another.
    pub(super) model: Option<String>,
    /// What this target needed changed.
    pub(super) notes: Notes,
    /// Whether the request may not be changed any more.
    pub(super) strict: bool,
    /// Where the answer is put down, when somebody wants to see it.
    pub(super) tap: Option<Tap>,
}

impl Plan<'_> {
    /// Whether the bytes of both sides are the same.
    pub(super) const fn is_pass_through(&self) -> bool {
        matches!(self.way, Way::Splice { .. })
    }
}

/// With whose words a request goes up, and its answer comes down.
pub(super) enum Way {
    /// Same protocol: the client's bytes, with the model's name replaced.
    Splice {
        /// Whether we asked for the usage event, and must take it out again.
        cut_usage: bool,
    },
    /// Another protocol: read, and written anew.
    Translate(Box<Translation>),
    /// Another protocol, of which only a number is wanted.
    Count(Box<Notes>),
}

/// Why a candidate can't be asked.
pub(super) enum NoPlan {
    /// Another might be.
    Skip {
        /// What it speaks.
        to: Protocol,
        /// Why not.
        reason: Invalid,
    },
    /// The request is wrong for all of them.
    Refuse(Refusal),
}

impl From<Refusal> for NoPlan {
    fn from(refusal: Refusal) -> Self {
        Self::Refuse(refusal)
    }
}

/// What planning works with, for all candidates of a request.
pub(super) struct Planner<'a> {
    work: &'a Work,
    alias: Option<&'a Alias>,
    source: &'a Source<'a>,
    decoded: OnceLock<Box<Result<Decoded<'a>, Invalid>>>,
    need: OnceLock<Need>,
    quirks: Quirks<'a>,
    id: Uuid,
    created: u64,
    reasoning: Shown,
}

impl<'a> Planner<'a> {
    pub(super) fn new(
        work: &'a Work,
        alias: Option<&'a Alias>,
        source: &'a Source<'a>,
        exchange: &Exchange,
        learned: &'a Learned,
    ) -> Self {
        Self {
            work,
            alias,
            source,
            decoded: OnceLock::new(),
            need: OnceLock::new(),
            quirks: Quirks {
                learned,
                strict: translation::is_strict(exchange, &work.headers),
            },
            id: exchange.id(),
            created: u64::try_from(exchange.created_ms() / 1000).unwrap_or(0),
            reasoning: Shown::to(exchange),
        }
    }

    /// The alias, if conversations under it stay where they are.
    pub(super) fn sticky_alias(&self) -> Option<&'a Alias> {
        self.alias.filter(|alias| alias.sticky)
    }

    /// Decides how to ask a candidate.
    pub(super) fn plan(&self, candidate: &'a Candidate) -> Result<Plan<'a>, NoPlan> {
        let from = self.work.ask.protocol;
        match endpoint(candidate, from) {
            Some(endpoint) => {
                self.check_size(candidate, endpoint)?;
                self.splice(candidate, endpoint)
            }
            None => self.translate(candidate),
        }
    }

    /// Passes over a candidate whose context is too short, where the alias says
    /// so.
    fn check_size(&self, candidate: &Candidate, endpoint: &Endpoint) -> Result<(), NoPlan> {
        let Some(alias) = self.alias.filter(|alias| alias.enforces_limits) else {
            return Ok(());
        };
        let work = self.work;
        if !super::converses(work.ask.protocol) || work.is_count() {
            return Ok(());
        }
        let need = || {
            let protocol = work.ask.protocol;
            match (&work.chain, work.frames.as_slice()) {
                (Some(chain), frames) => match chain.expanded(frames) {
                    Ok(body) => Need::of(protocol, &body),
                    Err(_) => Need::default(),
                },
                (None, [one]) => Need::of(protocol, one),
                (None, many) => Need::of(protocol, &many.concat()),
            }
        };
        let need = *self.need.get_or_init(need);
        limits::check(need, alias, candidate, endpoint).map_err(|reason| NoPlan::Skip {
            to: endpoint.protocol,
            reason,
        })
    }

    fn splice(&self, candidate: &'a Candidate, endpoint: &'a Endpoint) -> Result<Plan<'a>, NoPlan> {
        let work = self.work;
        let protocol = work.ask.protocol;
        let extra = extra_body(candidate, self.alias);
        let (frames, cut_usage) = spliced(work, candidate, &extra)?;
        let same = chain_to_expand(work, candidate).is_none();
        let marked = work.marked.filter(|_| same);
        let marked = marked.unwrap_or_else(|| envelope::is_marked(&frames));
        let mut foreign = Notes::new();
        let strict = self.quirks.strict;
        let (frames, lost) =
            match foreign::needs_a_look(&frames, marked, protocol, candidate, strict) {
                Some(look) => foreign::settled(&frames, look, protocol, candidate, &mut foreign),
                None => (frames, false),
            };
        let skip = |reason| NoPlan::Skip {
            to: protocol,
            reason,
        };
        let prepared = self.quirks.prepare(candidate, endpoint, frames);
        let Prepared {
            frames,
            model,
            mut notes,
        } = prepared.map_err(skip)?;
        notes.extend(&foreign);
        if lost {
            notes.warn(Action::Dropped, "reasoning_history");
            if self.quirks.strict {
                notes.refuse(protocol).map_err(skip)?;
            }
        }
        let path = work.ask.path.as_ref();
        let action = path.map_or("", |path| path.action.as_str());
        let name = model.as_deref().unwrap_or(&candidate.model);
        let suffix = suffix(protocol, name, action, work.query.as_deref());
        Ok(Plan {
            protocol,
            outbound: Outbound::new(&candidate.provider, endpoint, suffix, &work.headers, frames),
            way: Way::Splice { cut_usage },
            model,
            notes,
            strict: self.quirks.strict,
            tap: None,
        })
    }

    fn translate(&self, candidate: &'a Candidate) -> Result<Plan<'a>, NoPlan> {
        let from = self.work.ask.protocol;
        let Some(endpoint) = translation::endpoint(candidate, from) else {
            return Err(unreachable_at(candidate, from));
        };
        self.check_size(candidate, endpoint)?;
        if self.work.is_action("compact") {
            return Err(NoPlan::Skip {
                to: endpoint.protocol,
                reason: Invalid::unsupported(
                    "unsupported_endpoint",
                    "model",
                    format!(
                        "compaction needs a provider that speaks responses; '{}' speaks {}",
                        candidate.provider.id, endpoint.protocol
                    ),
                ),
            });
        }
        let decoded = || Box::new(self.source.decode());
        let decoded = self.decoded.get_or_init(decoded);
        let decoded = decoded.as_ref().as_ref().map_err(Refusal::from)?;
        let settings = Settings {
            quirks: self.quirks,
            extra: &extra_body(candidate, self.alias),
            // A client that is answered in its provider's words never sees it.
            id: translation::short_id(self.id),
            created: self.created,
            reasoning: self.reasoning,
        };
        let to = endpoint.protocol;
        if self.work.is_count() && !count::is_counted_by(to) {
            let message = format!("a provider that speaks {to} doesn't count tokens");
            let reason = Invalid::request("model", message);
            return Err(NoPlan::Skip { to, reason });
        }
        translation::translate(self.work, decoded, candidate, endpoint, &settings)
            .map_err(|reason| NoPlan::Skip { to, reason })
    }
}

/// The candidate speaks nothing that this request can be said in.
fn unreachable_at(candidate: &Candidate, from: Protocol) -> NoPlan {
    let endpoints = &candidate.provider.endpoints;
    let to = endpoints.first().map_or(from, |endpoint| endpoint.protocol);
    NoPlan::Skip {
        to,
        reason: Invalid {
            class: ErrorClass::NotImplemented,
            message: format!(
                "provider '{}' speaks {to} and does not serve the {from} endpoint for '{}'",
                candidate.provider.id, candidate.model
            ),
            param: Some("model".into()),
            code: None,
        },
    }
}

/// Where the candidate speaks that protocol; `access_via` narrows it.
pub(super) fn endpoint(candidate: &Candidate, protocol: Protocol) -> Option<&Endpoint> {
    let reachable = candidate
        .listed
        .as_ref()
        .is_none_or(|listed| listed.access_via.is_empty() || listed.access_via.contains(&protocol));
    let endpoint = candidate
        .provider
        .endpoint(protocol)
        .filter(|_| reachable)?;
    // That a chat provider has legacy completions too is a guess; translating into
    // chat is none.
    let guessed = protocol == Protocol::Completions && endpoint.derived;
    let asked_for = candidate
        .listed
        .as_ref()
        .is_some_and(|listed| listed.access_via.contains(&protocol));
    (!guessed || asked_for).then_some(endpoint)
}

/// What the operator adds to bodies: provider, then model, then alias; the
/// later wins.
fn extra_body(candidate: &Candidate, alias: Option<&Alias>) -> Map<String, Value> {
    let layers = [
        candidate.provider.extra_body.as_ref(),
        candidate
            .listed
            .as_ref()
            .and_then(|listed| listed.extra_body.as_ref()),
        alias.and_then(|alias| alias.extra_body.as_ref()),
    ];
    let mut merged = Map::new();
    for layer in layers.into_iter().flatten() {
        merged.extend(
            layer
                .iter()
                .map(|(name, value)| (name.clone(), value.clone())),
        );
    }
    merged
}

fn spliced(
    work: &Work,
    candidate: &Candidate,
    extra: &Map<String, Value>,
) -> Result<(Vec<Bytes>, bool), Refusal> {
    let Some(peeked) = &work.peeked else {
        return Ok((form_with_model(work, &candidate.model)?, false));
    };
    if let Some(chain) = chain_to_expand(work, candidate) {
        let frames = vec![
            chain
                .expanded(&work.frames)
                .map_err(|i| Refusal::from(&i))?,
        ];
        let peeked = peek::peek(&frames)?;
        return with_model(work, &frames, &peeked, candidate, extra);
    }
    with_model(work, &work.frames, peeked, candidate, extra)
}

/// What the request goes on from, when the provider doesn't know it.
fn chain_to_expand<'w>(work: &'w Work, candidate: &Candidate) -> Option<&'w Chain> {
    let chain = work.chain.as_ref();
    chain.filter(|chain| !chain.is_held_by(candidate))
}

/// The body with the provider's name for the model, and what the operator adds.
fn with_model(
    work: &Work,
    frames: &[Bytes],
    peeked: &Peeked,
    candidate: &Candidate,
    extra: &Map<String, Value>,
) -> Result<(Vec<Bytes>, bool), Refusal> {
    let mut patches = Vec::new();
    if work.ask.protocol != Protocol::Gemini && *candidate.model != *work.model {
        patches.extend(splice::set_model(peeked, &candidate.model));
    }
    let mut cut_usage = false;
    if work.ask.protocol == Protocol::Chat
        && work.streamed
        && let Some(patch) = splice::ask_for_usage(peeked)
    {
        patches.push(patch);
        cut_usage = true;
    }
    let mut frames = splice::apply(frames, patches);
    if !extra.is_empty() {
        let members = peek::members(&frames)?;
        let first_member = peek::peek(&frames)?.first_member;
        let patches = splice::merge(&members, first_member, extra);
        frames = splice::apply(&frames, patches);
    }
    Ok((frames, cut_usage))
}

/// The `model` field of a multipart form.
pub(super) fn form_model(headers: &HeaderMap, frames: &[Bytes]) -> Result<String, Refusal> {
    let form = joined(frames);
    let span = form_model_span(headers, &form)?.ok_or_else(|| Refusal::missing("model"))?;
    String::from_utf8(form[span].to_vec()).map_err(|_| {
        Refusal::new(
            ErrorClass::InvalidRequest,
            "the field 'model' is not UTF-8".into(),
        )
        .param("model")
    })
}

/// The same form with another value in its `model` field; the file's bytes are
/// shared, not copied.
fn form_with_model(work: &Work, model: &str) -> Result<Vec<Bytes>, Refusal> {
    if model == &*work.model {
        return Ok(work.frames.clone());
    }
    let form = joined(&work.frames);
    match form_model_span(&work.headers, &form)? {
        None => Ok(work.frames.clone()),
        Some(span) => Ok(vec![
            form.slice(..span.start),
            Bytes::copy_from_slice(model.as_bytes()),
            form.slice(span.end..),
        ]),
    }
}

fn joined(frames: &[Bytes]) -> Bytes {
    match frames {
        [one] => one.clone(),
        many => Bytes::from(many.concat()),
    }
}

/// Where the value of the form's `model` field lies (RFC 7578).
fn form_model_span(
    headers: &HeaderMap,
    form: &[u8],
) -> Result<Option<std::ops::Range<usize>>, Refusal> {
    let content_type = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let boundary = multer::parse_boundary(content_type).map_err(|_| {
        Refusal::new(
            ErrorClass::InvalidRequest,
            format!("expected a multipart/form-data body, found content type '{content_type}'"),
        )
    })?;
    let delimiter = format!("--{boundary}");
    let delimiter = memchr::memmem::Finder::new(delimiter.as_bytes());
    let mut starts = delimiter.find_iter(form).peekable();
    while let Some(start) = starts.next() {
        let from = start + delimiter.needle().len();
        let to = starts.peek().copied().unwrap_or(form.len());
        let part = &form[from..to];
        let Some(head_end) = memchr::memmem::find(part, b"\r\n\r\n") else {
            continue;
        };
        if is_model_field(&part[..head_end]) {
            let value = from + head_end + 4;
            let end = to.saturating_sub(2).max(value);
            return Ok(Some(value..end));
        }
    }
    Ok(None)
}

fn is_model_field(head: &[u8]) -> bool {
    let head = String::from_utf8_lossy(head);
    head.split("\r\n").any(|line| {
        let Some((name, value)) = line.split_once(':') else {
            return false;
        };
        name.trim().eq_ignore_ascii_case("content-disposition")
            && field_name(value) == Some("model")
    })
}

/// The `name` parameter of a disposition. A semicolon in quotation marks is text,
/// and so is a quotation mark behind a backslash.
fn field_name(disposition: &str) -> Option<&str> {
    let mut quoted = false;
    let mut escaped = false;
    let parameters = disposition.split(|letter| {
        match letter {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ';' => return !quoted,
            _ => {}
        }
        false
    });
    let named = parameters.filter_map(|parameter| parameter.trim().split_once('='));
    let (_, value) = { named }.find(|(name, _)| name.trim().eq_ignore_ascii_case("name"))?;
    let value = value.trim();
    Some(
        value
            .strip_prefix('"')
            .and_then(|value| value.strip_suffix('"'))
            .unwrap_or(value),
    )
}
