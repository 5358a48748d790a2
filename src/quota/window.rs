//! When a quota starts anew: windows of the calendar in UTC, windows of a
//! length, and buckets that leak.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use crate::config::{QuotaCounts, QuotaWindow, UserQuota};

const DAY_MS: i64 = 86_400_000;
const WEEK_MS: i64 = 7 * DAY_MS;
/// The epoch was a Thursday; the first Monday after it.
const MONDAY_MS: i64 = 4 * DAY_MS;

/// How what is used becomes free again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// Evenly, as much as the limit in that many milliseconds.
    Leak(u64),
    /// All at once at the end of each window of that many milliseconds.
    Aligned(i64),
    /// At midnight.
    Daily,
    /// On Monday at midnight.
    Weekly,
    /// On the first of the month at midnight.
    Monthly,
}

impl Pace {
    /// That of a quota. Money doesn't leak: a rolling quota over cost counts in
    /// windows of its duration.
    #[must_use]
    pub fn of(quota: &UserQuota) -> Self {
        match quota.window {
            QuotaWindow::Rolling(duration) => {
                let ms = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 4);
                let ms = ms.max(1);
                if quota.counts == QuotaCounts::Cost {
                    Self::Aligned(ms)
                } else {
                    Self::Leak(ms.unsigned_abs())
                }
            }
            QuotaWindow::Daily => Self::Daily,
            QuotaWindow::Weekly => Self::Weekly,
            QuotaWindow::Monthly => Self::Monthly,
        }
    }

    /// Beginning and end of the window that holds `now`, in milliseconds since
    /// the epoch; a bucket that leaks has none.
    #[must_use]
    pub fn window(self, now: i64) -> Option<(i64, i64)> {
        let aligned = |from: i64, length: i64| {
            let start = now.saturating_sub(from).div_euclid(length) * length + from;
            (start, start.saturating_add(length))
        };
        match self {
            Self::Leak(_) => None,
            Self::Aligned(length) => Some(aligned(0, length)),
            Self::Daily => Some(aligned(0, DAY_MS)),
            Self::Weekly => Some(aligned(MONDAY_MS, WEEK_MS)),
            // A time outside the calendar has no month; a day is near enough.
            Self::Monthly => Some(month(now).unwrap_or_else(|| aligned(0, DAY_MS))),
        }
    }
}

fn month(now: i64) -> Option<(i64, i64)> {
    let time = Timestamp::from_millisecond(now).ok()?;
    let first = time.to_zoned(TimeZone::UTC).date().first_of_month();
    let next = first.last_of_month().tomorrow().ok()?;
    Some((midnight(first)?, midnight(next)?))
}

fn midnight(date: Date) -> Option<i64> {
    let midnight = date.to_zoned(TimeZone::UTC).ok()?;
    Some(midnight.timestamp().as_millisecond())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ms(text: &str) -> i64 {
        text.parse::<Timestamp>().unwrap().as_millisecond()
    }

    #[test]
    fn windows_of_the_calendar_begin_and_end_in_utc() {
        for (pace, now, start, end) in [
            (
                Pace::Daily,
                "2026-02-28T23:59:59.999Z",
                "2026-02-28T00:00:00Z",
                "2026-03-01T00:00:00Z",
            ),
            (
                Pace::Weekly,
                "2026-11-29T23:59:59Z",
                "2026-11-23T00:00:00Z",
                "2026-11-30T00:00:00Z",
            ),
            (
                Pace::Weekly,
                "2026-11-30T00:00:00Z",
                "2026-11-30T00:00:00Z",
                "2026-12-07T00:00:00Z",
            ),
            (
                Pace::Monthly,
                "2028-02-29T12:00:00Z",
                "2028-02-01T00:00:00Z",
                "2028-03-01T00:00:00Z",
            ),
            (
                Pace::Monthly,
                "2026-12-31T23:59:59Z",
                "2026-12-01T00:00:00Z",
                "2027-01-01T00:00:00Z",
            ),
            (
                Pace::Aligned(5_400_000),
                "1970-01-01T02:00:00Z",
                "1970-01-01T01:30:00Z",
                "1970-01-01T03:00:00Z",
            ),
        ] {
            let found = pace.window(ms(now));
            assert_eq!(found, Some((ms(start), ms(end))), "{pace:?} {now}");
        }
    }

    proptest! {
        #[test]
        fn every_time_lies_in_its_window_and_windows_touch(
            now in 0..4_000_000_000_000_i64,
            pace in prop_oneof![
                Just(Pace::Daily), Just(Pace::Weekly), Just(Pace::Monthly),
                (1..10_000_000_i64).prop_map(Pace::Aligned),
            ],
        ) {
            let (start, end) = pace.window(now).unwrap();
            prop_assert!(start <= now && now < end);
            prop_assert_eq!(pace.window(start), Some((start, end)));
            prop_assert_eq!(pace.window(end).unwrap().0, end);
            prop_assert_eq!(pace.window(start - 1).unwrap().1, start);
        }
    }
}
