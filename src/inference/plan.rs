//! How a candidate would be asked: with the client's own bytes, or translated.

use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use serde_json::{Map, Value};

use super::{Refusal, Work};
use crate::config::{Alias, Endpoint};
use crate::protocol::error::ErrorClass;
use crate::protocol::{Protocol, peek, splice};
use crate::routing::Candidate;
use crate::upstream::{Outbound, suffix};

/// The way to a candidate.
pub(super) enum Plan<'a> {
    /// Same protocol: the client's bytes, with the model's name replaced.
    Splice(Splice<'a>),
    /// Another protocol: the request has to be translated.
    Translate {
        /// What the client speaks.
        from: Protocol,
        /// What the candidate speaks first.
        to: Protocol,
    },
}

/// A request that goes up as it came down.
pub(super) struct Splice<'a> {
    /// What is spoken on both sides.
    pub(super) protocol: Protocol,
    /// What is sent.
    pub(super) outbound: Outbound<'a>,
    /// Whether we asked for the usage event, and must take it out again.
    pub(super) cut_usage: bool,
}

/// Decides how to ask a candidate.
pub(super) fn plan<'a>(
    work: &'a Work,
    candidate: &'a Candidate,
    alias: Option<&Alias>,
) -> Result<Plan<'a>, Refusal> {
    let from = work.ask.protocol;
    let Some(endpoint) = endpoint(candidate, from) else {
        let to = candidate
            .provider
            .endpoints
            .first()
            .map_or(from, |endpoint| endpoint.protocol);
        return Ok(Plan::Translate { from, to });
    };
    let extra = extra_body(candidate, alias);
    let (frames, cut_usage) = spliced(work, candidate, &extra)?;
    let action = work
        .ask
        .path
        .as_ref()
        .map_or("", |path| path.action.as_str());
    let suffix = suffix(from, &candidate.model, action, work.query.as_deref());
    let outbound = Outbound::new(&candidate.provider, endpoint, suffix, &work.headers, frames);
    Ok(Plan::Splice(Splice {
        protocol: from,
        outbound,
        cut_usage,
    }))
}

/// Where the candidate speaks that protocol; `access_via` narrows it.
fn endpoint(candidate: &Candidate, protocol: Protocol) -> Option<&Endpoint> {
    let reachable = candidate
        .listed
        .as_ref()
        .is_none_or(|listed| listed.access_via.is_empty() || listed.access_via.contains(&protocol));
    reachable
        .then(|| candidate.provider.endpoint(protocol))
        .flatten()
}

/// Why a candidate of another protocol was passed over.
pub(super) fn untranslated(from: Protocol, to: Protocol, candidate: &Candidate) -> String {
    format!(
        "provider '{}' speaks {to}, the client {from}; translation between protocols is not available",
        candidate.provider.id
    )
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
    let mut frames = splice::apply(&work.frames, patches);
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
