//! When a provider asks to come back: header fields in several dialects, a
//! detail in the body, a sentence in the message.
//!
//! Every duration is bounded, so that adding it to a moment can't overflow.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName};
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;
use serde_json::Value;

/// The longest wait that is believed: 31 days, in seconds.
const LONGEST: f64 = 31.0 * 86_400.0;

/// All that may say when to come back.
pub(super) struct Source<'a> {
    pub(super) status: u16,
    pub(super) headers: &'a HeaderMap,
    pub(super) error: Option<&'a Value>,
    pub(super) message: &'a str,
    /// Without it, points in time are not understood.
    pub(super) now: Option<SystemTime>,
}

/// The wait asked for; what is said outright before what has to be inferred.
pub(super) fn delay(source: &Source<'_>) -> Option<Duration> {
    let limited = matches!(source.status, 200 | 429 | 503 | 529);
    asked(source.headers, source.now)
        .or_else(|| source.error.and_then(|error| in_body(error, source.now)))
        .or_else(|| spoken(source.message).filter(|_| limited))
        .or_else(|| windows(source.headers, source.now).filter(|_| limited))
}

/// `retry-after-ms`, then `retry-after` in seconds or as a date.
fn asked(headers: &HeaderMap, now: Option<SystemTime>) -> Option<Duration> {
    let text = |name: &str| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .map(str::trim)
    };
    if let Some(milliseconds) = text("retry-after-ms").and_then(|text| text.parse::<f64>().ok()) {
        return bounded(milliseconds / 1000.0);
    }
    let after = text("retry-after")?;
    match after.parse::<f64>() {
        Ok(seconds) => bounded(seconds),
        Err(_) => {
            let date = DateTimeParser::new().parse_timestamp(after).ok()?;
            until(date.as_second() as f64, now)
        }
    }
}

/// What error objects carry: Google's `RetryInfo`, OpenRouter's metadata,
/// ChatGPT's reset.
fn in_body(error: &Value, now: Option<SystemTime>) -> Option<Duration> {
    const SECONDS: [&str; 5] = [
        "/metadata/retry_after_seconds_raw",
        "/metadata/retry_after_seconds",
        "/metadata/headers/Retry-After",
        "/resets_in_seconds",
        "/retry_after",
    ];
    const MOMENTS: [&str; 2] = ["/resets_at", "/metadata/headers/X-RateLimit-Reset"];
    let number = |place: &&str| {
        let value = error.pointer(place)?;
        value
            .as_f64()
            .or_else(|| value.as_str()?.trim().parse().ok())
    };
    google(error)
        .or_else(|| SECONDS.iter().find_map(number).and_then(bounded))
        .or_else(|| {
            MOMENTS
                .iter()
                .find_map(number)
                .and_then(|moment| numeric_moment(moment, now))
        })
}

fn google(error: &Value) -> Option<Duration> {
    let details = error.get("details")?.as_array()?;
    let delay = details
        .iter()
        .find_map(|detail| detail.get("retryDelay")?.as_str())?;
    duration(delay)
}

/// "Please try again in 6.2s", "retry after 30 seconds", "retry in 34.4s".
fn spoken(message: &str) -> Option<Duration> {
    const OPENINGS: [&str; 3] = ["try again in ", "retry after ", "retry in "];
    let lower = message.to_ascii_lowercase();
    let rests = OPENINGS
        .iter()
        .filter_map(|opening| lower.split_once(opening));
    rests.into_iter().find_map(|(_, rest)| duration(rest))
}

/// The latest reset among the limits that are used up. Providers send these
/// fields with every answer, so that a limit with something left is no reason.
fn windows(headers: &HeaderMap, now: Option<SystemTime>) -> Option<Duration> {
    let resets = headers.iter().filter(|(name, _)| names_a_reset(name));
    let used_up = resets.filter(|(name, _)| {
        let remaining = headers.get(name.as_str().replace("reset", "remaining"));
        remaining.is_none_or(|value| value.as_bytes() == b"0")
    });
    used_up
        .filter_map(|(_, value)| moment(value.to_str().ok()?.trim(), now))
        .max()
}

fn names_a_reset(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.starts_with("x-ratelimit-reset")
        || (name.starts_with("anthropic-ratelimit-") && name.ends_with("-reset"))
}

/// A point in time or a duration, as the dialects write them: RFC 3339,
/// seconds or milliseconds since the epoch, seconds from now, `6m0s`.
fn moment(text: &str, now: Option<SystemTime>) -> Option<Duration> {
    if let Ok(number) = text.parse::<f64>() {
        return numeric_moment(number, now);
    }
    match text.parse::<Timestamp>() {
        Ok(date) => until(date.as_millisecond() as f64 / 1000.0, now),
        Err(_) => duration(text),
    }
}

fn numeric_moment(number: f64, now: Option<SystemTime>) -> Option<Duration> {
    if number > 1e11 {
        until(number / 1000.0, now)
    } else if number > 1e9 {
        until(number, now)
    } else {
        bounded(number)
    }
}

/// From now until a second since the epoch; nothing if that has passed.
fn until(second: f64, now: Option<SystemTime>) -> Option<Duration> {
    let now = now?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    bounded((second - now.as_secs_f64()).max(0.0))
}

/// The duration at the start of a text: numbers with units, one after the
/// other; a number without one is seconds.
fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = None;
    loop {
        rest = rest.trim_start_matches([' ', '~']);
        let (number, after) = split_while(rest, |c| c.is_ascii_digit() || c == '.');
        let (unit, after) = split_while(after.trim_start_matches(' '), |c| c.is_ascii_alphabetic());
        let (Ok(number), Some(unit)) = (number.parse::<f64>(), unit_seconds(unit)) else {
            break;
        };
        total = Some(total.unwrap_or(0.0) + number * unit);
        rest = after;
    }
    total.and_then(bounded)
}

fn split_while(text: &str, keep: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !keep(c)).unwrap_or(text.len()))
}

fn unit_seconds(unit: &str) -> Option<f64> {
    Some(match unit {
        "ms" | "millisecond" | "milliseconds" => 0.001,
        "" | "s" | "sec" | "secs" | "second" | "seconds" => 1.0,
        "m" | "min" | "mins" | "minute" | "minutes" => 60.0,
        "h" | "hr" | "hour" | "hours" => 3600.0,
        "d" | "day" | "days" => 86_400.0,
        _ => return None,
    })
}

fn bounded(seconds: f64) -> Option<Duration> {
    let believable = seconds.is_finite() && seconds >= 0.0;
    believable.then(|| Duration::from_secs_f64(seconds.min(LONGEST)))
}
