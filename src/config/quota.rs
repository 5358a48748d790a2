//! Limits on keys: `user_quotas:` and `default_quotas:`.

use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexMap;

use super::check::{Check, is_slug, texts};
use super::settings::flag;
use super::tree::Node;
use super::{QuotaCounts, QuotaWindow, UserQuota};

/// Quotas by name, in file order.
pub(in crate::config) type Quotas = IndexMap<Arc<str>, Arc<UserQuota>>;

/// Reads `user_quotas:`.
pub(in crate::config) fn read(check: &mut Check<'_>, root: &Node) -> Quotas {
    let mut quotas = Quotas::new();
    for entry in root.get("user_quotas").map_or(&[][..], Node::entries) {
        let quota = check.within("user_quotas", |check| {
            check.within(&entry.key, |check| {
                if !is_slug(&entry.key) {
                    let message = "a quota's name is 2 to 63 of a-z, 0-9, - and _, and begins \
                                   with a letter or digit";
                    check.fault(entry.place, message);
                }
                user_quota(check, &entry.key, &entry.value)
            })
        });
        // Kept even when faulty, so that references to it are not faults too.
        quotas.insert(quota.name.clone(), Arc::new(quota));
    }
    quotas
}

/// Reads `default_quotas:`.
pub(in crate::config) fn defaults(
    check: &mut Check<'_>,
    root: &Node,
    quotas: &Quotas,
) -> Vec<String> {
    check.names(root, "default_quotas", "user quota", quotas)
}

fn user_quota(check: &mut Check<'_>, name: &str, node: &Node) -> UserQuota {
    let word = |field: &str| node.get(field).and_then(Node::text).unwrap_or_default();
    let counts = match word("limitType") {
        "tokens" => QuotaCounts::Tokens,
        "cost" => QuotaCounts::Cost,
        _ => QuotaCounts::Requests,
    };
    let window = match word("type") {
        "weekly" => QuotaWindow::Weekly,
        "monthly" => QuotaWindow::Monthly,
        "rolling" => rolling(check, node),
        _ => QuotaWindow::Daily,
    };
    let limit = node.get("limit").and_then(Node::number).unwrap_or_default();
    let too_small = match counts {
        QuotaCounts::Cost => limit <= 0.0,
        _ => limit < 1.0,
    };
    if let Some(written) = node
        .get("limit")
        .filter(|node| too_small && node.number().is_some())
    {
        let message = format!("found {limit}; at least 1 is wanted, or some dollars for cost");
        check.within("limit", |check| check.fault(written.place, message));
    }
    UserQuota {
        name: name.into(),
        window,
        counts,
        limit,
        allowed_models: texts(node.get("allowedModels")),
        excluded_models: texts(node.get("excludedModels")),
        allowed_providers: texts(node.get("allowedProviders")),
        excluded_providers: texts(node.get("excludedProviders")),
        shared: flag(node, "shared", false),
        warn_at: node.get("warnAt").and_then(Node::number),
    }
}

fn rolling(check: &mut Check<'_>, node: &Node) -> QuotaWindow {
    let wanted = "a time like 30m, 1h, 1d or 1h30m";
    let Some(written) = node.get("duration").filter(|node| node.text().is_some()) else {
        check.fault(
            node.place,
            format!("\"duration\" is missing; a rolling quota wants {wanted}"),
        );
        return QuotaWindow::Daily;
    };
    let text = written.text().unwrap_or_default();
    duration(text).map_or_else(
        || {
            let message = format!("found {text:?}; {wanted} is wanted");
            check.within("duration", |check| check.fault(written.place, message));
            QuotaWindow::Daily
        },
        QuotaWindow::Rolling,
    )
}

/// `1h30m`, `2 days`, `1.5h`; a time above zero and up to ten years.
fn duration(text: &str) -> Option<Duration> {
    let text = text.trim().to_ascii_lowercase();
    let mut rest = text.as_str();
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let after = rest[digits..].trim_start();
        let letters = after
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(after.len());
        let (unit, tail) = after.split_at(letters);
        let (_, length) = UNITS.iter().find(|(names, _)| names.contains(&unit))?;
        total += number * length;
        rest = tail.trim_start_matches([' ', ',']);
    }
    let fits = total > 0.0 && total <= 10.0 * YEAR;
    fits.then(|| Duration::from_secs_f64(total))
        .filter(|duration| !duration.is_zero())
}

const DAY: f64 = 86_400.0;
const YEAR: f64 = 365.25 * DAY;

/// Units of time in seconds.
const UNITS: &[(&[&str], f64)] = &[
    (&["ms", "millisecond", "milliseconds"], 0.001),
    (&["s", "sec", "secs", "second", "seconds"], 1.0),
    (&["m", "min", "mins", "minute", "minutes"], 60.0),
    (&["h", "hr", "hrs", "hour", "hours"], 3_600.0),
    (&["d", "day", "days"], DAY),
    (&["w", "wk", "week", "weeks"], 7.0 * DAY),
    (&["mo", "month", "months"], YEAR / 12.0),
    (&["y", "yr", "year", "years"], YEAR),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_people_write_them() {
        for (text, seconds) in [
            ("30m", 1_800.0),
            ("1h", 3_600.0),
            ("1d", DAY),
            ("1h30m", 5_400.0),
            ("1.5h", 5_400.0),
            ("2 days", 2.0 * DAY),
            ("1h, 5 min", 3_900.0),
            ("500ms", 0.5),
            ("1W", 7.0 * DAY),
        ] {
            assert_eq!(
                duration(text).map(|d| d.as_secs_f64()),
                Some(seconds),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in [
            "", "h", "5", "1x", "0h", "-1h", "1h-", "99y", "1..5h", "é", "1h é",
        ] {
            assert_eq!(duration(text), None, "{text}");
        }
    }
}
