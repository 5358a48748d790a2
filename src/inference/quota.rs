//! admit: what a request is likely to take of its key's quotas is reserved; and
//! what clients are told of it.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;
use serde_json::Number;

use super::{Refusal, Work};
use crate::app::Core;
use crate::config::QuotaCounts;
use crate::exchange::Exchange;
use crate::protocol::Protocol;
use crate::protocol::error::{BlockingQuota, QuotaNote};
use crate::quota::{Exceeded, List, Prompt, Reservation, Told, text_bytes};
use crate::routing::{Candidate, Resolution};

const QUOTA: HeaderName = HeaderName::from_static("x-plexus-quota");
const LIMIT: HeaderName = HeaderName::from_static("x-plexus-quota-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-plexus-quota-remaining");
const RESET: HeaderName = HeaderName::from_static("x-plexus-quota-reset");
const WARNING: HeaderName = HeaderName::from_static("x-plexus-quota-warning");

/// Reserves what the request is likely to take. Counting tokens takes nothing.
pub(super) fn admit(
    core: &Core,
    exchange: &mut Exchange,
    work: &Work,
    resolution: &Resolution,
) -> Result<(), Refusal> {
    let Some(key) = exchange.key() else {
        return Err(Refusal::internal());
    };
    let now = exchange.created_ms();
    let Some(list) = core.app.quotas.of(&exchange.config, key, now) else {
        return Ok(());
    };
    if work.is_count() {
        return Ok(());
    }
    // Forms hold files.
    let frames: &[Bytes] = match work.peeked {
        Some(_) => &work.frames,
        None => &[],
    };
    let prompt = prompt(&list, work.ask.protocol, frames, resolution);
    let alias = &resolution.route.canonical;
    let reservation = Reservation::admit(list, alias, prompt, now)
        .map_err(|exceeded| Refusal::quota(&exceeded))?;
    exchange.reserved(reservation);
    Ok(())
}

/// What is known of a request before it is sent, as far as those quotas ask.
pub(crate) fn prompt(
    list: &List,
    protocol: Protocol,
    frames: &[Bytes],
    resolution: &Resolution,
) -> Prompt {
    Prompt {
        bytes: if list.measures() {
            text_bytes(frames)
        } else {
            0
        },
        generates: generates(protocol),
        nanos_per_token: dearest(resolution),
    }
}

const fn generates(protocol: Protocol) -> bool {
    !matches!(
        protocol,
        Protocol::Embeddings | Protocol::Speech | Protocol::Transcriptions
    )
}

/// Nano-dollars for a token of the dearest target, as far as prices are known.
fn dearest(resolution: &Resolution) -> u64 {
    let prices = resolution
        .candidates()
        .filter_map(|candidate| candidate.compared);
    let most = prices.fold(0.0, f32::max);
    // Prices are compared for requests of 1500 tokens.
    (f64::from(most) * 1e9 / 1500.0).round() as u64
}

/// Why a candidate is passed over.
pub(super) fn reason(exceeded: &Exceeded) -> String {
    exceeded.blocking.first().map_or_else(String::new, refusal)
}

/// That quota's refusal in a word.
pub(crate) fn refusal(told: &Told) -> String {
    format!("quota_exceeded:{}", told.quota.name)
}

/// What no target is left for: every candidate was kept from the request by a
/// quota.
pub(super) fn all_exceeded(exceeded: &[(&Candidate, Exceeded)]) -> Option<Refusal> {
    // The one that is free again first is worth waiting for.
    let soonest = exceeded
        .iter()
        .min_by_key(|(_, exceeded)| exceeded.wait().unwrap_or(0))?;
    Some(Refusal::quota(&soonest.1))
}

/// For people.
pub(super) fn message(exceeded: &Exceeded) -> String {
    let Some(told) = exceeded.blocking.first() else {
        return "Quota exceeded".to_owned();
    };
    let by = match exceeded.wait() {
        Some(_) => "",
        None => " by requests under way",
    };
    format!(
        "Quota exceeded: {} limit of {} reached{by}",
        told.quota.name,
        number(told.limit())
    )
}

/// For programs.
pub(super) fn note(exceeded: &Exceeded) -> Option<Box<QuotaNote>> {
    let first = exceeded.blocking.first()?;
    let blocking = exceeded.blocking.iter().map(|told| BlockingQuota {
        quota_name: told.quota.name.to_string(),
        limit_type: told.quota.counts.name(),
        limit: number(told.limit()),
        current_usage: number(told.taken()),
        remaining: number(if told.allows() { told.remaining() } else { 0.0 }),
        resets_at: iso(told.level.resets_at),
    });
    Some(Box::new(QuotaNote {
        quota_name: first.quota.name.to_string(),
        current_usage: number(first.taken()),
        limit: number(first.limit()),
        resets_at: iso(first.level.resets_at),
        blocking_quotas: blocking.collect(),
    }))
}

/// Puts how a quota stands into an answer's head.
pub(super) fn tell(headers: &mut HeaderMap, told: &Told) {
    let mut put = |name: HeaderName, text: &str| {
        if let Ok(value) = HeaderValue::from_str(text) {
            headers.insert(name, value);
        }
    };
    put(QUOTA, &told.quota.name);
    put(LIMIT, &number(told.limit()).to_string());
    put(REMAINING, &number(told.remaining()).to_string());
    put(RESET, &iso(told.level.resets_at));
    if told.warns() {
        put(WARNING, &told.quota.name);
    }
}

/// Puts quotas that refuse a request into the answer's head: in our words, and
/// as the vendor of that protocol tells its own limits.
pub(super) fn tell_refusal(headers: &mut HeaderMap, protocol: Protocol, exceeded: &Exceeded) {
    if let Some(first) = exceeded.blocking.first() {
        tell(headers, first);
    }
    if exceeded.wait().is_some() {
        // SDKs would try again at once.
        headers.insert("x-should-retry", HeaderValue::from_static("false"));
    }
    for counts in [QuotaCounts::Requests, QuotaCounts::Tokens] {
        let mut blocking = exceeded.blocking.iter();
        if let Some(told) = blocking.find(|told| told.quota.counts == counts) {
            tell_in_dialect(headers, protocol, told);
        }
    }
}

fn tell_in_dialect(headers: &mut HeaderMap, protocol: Protocol, told: &Told) {
    let what = told.quota.counts.name();
    let names = ["limit", "remaining", "reset"];
    let (names, reset) = match protocol {
        Protocol::Gemini => return,
        Protocol::Messages => (
            names.map(|name| format!("anthropic-ratelimit-{what}-{name}")),
            iso(told.level.resets_at),
        ),
        _ => (
            names.map(|name| format!("x-ratelimit-{name}-{what}")),
            duration(told.level.resets_at.saturating_sub(told.at)),
        ),
    };
    let values = [
        number(told.limit()).to_string(),
        number(told.remaining()).to_string(),
        reset,
    ];
    for (name, value) in names.into_iter().zip(values) {
        let name = HeaderName::try_from(name);
        if let (Ok(name), Ok(value)) = (name, HeaderValue::try_from(value)) {
            headers.insert(name, value);
        }
    }
}

/// A number without a needless `.0`.
pub(crate) fn number(value: f64) -> Number {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let whole = value.fract() == 0.0 && value.abs() < EXACT;
    let fraction = || Number::from_f64(value).unwrap_or_else(|| 0.into());
    if whole {
        (value as i64).into()
    } else {
        fraction()
    }
}

/// `2026-01-31T12:00:00.000Z`; a time outside the calendar is empty.
fn iso(ms: i64) -> String {
    Timestamp::from_millisecond(ms).map_or_else(|_| String::new(), |time| format!("{time:.3}"))
}

/// `6m0s`, `1h2m3s`, `12ms`: as OpenAI writes times.
fn duration(ms: i64) -> String {
    let ms = ms.max(0);
    if ms < 1000 {
        return format!("{ms}ms");
    }
    let seconds = ms / 1000 + i64::from(ms % 1000 > 0);
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds}s"),
        _ => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_their_vendor_writes_them() {
        for (ms, text) in [
            (-5, "0ms"),
            (12, "12ms"),
            (1000, "1s"),
            (1001, "2s"),
            (360_000, "6m0s"),
            (3_723_000, "1h2m3s"),
            (90_000_000, "25h0m0s"),
        ] {
            assert_eq!(duration(ms), text);
        }
        assert_eq!(iso(1_769_860_800_007), "2026-01-31T12:00:00.007Z");
    }
}
