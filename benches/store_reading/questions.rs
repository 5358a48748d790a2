//! What a dashboard and a person with curl ask.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use plexus::store::{GroupBy, SortBy, Store, StoreError, SummaryQuery, UsageQuery};

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;
const SUMMARY: Duration = Duration::from_millis(50);
const PAGE: Duration = Duration::from_millis(100);

/// One question, and how long its answer may take.
pub(crate) struct Question {
    pub(crate) name: String,
    pub(crate) limit: Duration,
    what: What,
}

enum What {
    Summary(Box<SummaryQuery>),
    Page(Box<UsageQuery>),
    Timeline(i64, i64, i64),
}

impl Question {
    /// How many requests the answer is about.
    pub(crate) fn ask(&self, store: &Store) -> Result<u64, StoreError> {
        Ok(match &self.what {
            What::Summary(query) => {
                u64::try_from(store.summary(query)?.total.requests).unwrap_or(0)
            }
            What::Page(query) => store.usage(query)?.total,
            What::Timeline(from, to, bucket) => {
                let timeline = store.timeline((*from, *to), *bucket, GroupBy::Model)?;
                timeline.iter().map(|(_, _, count)| count).sum()
            }
        })
    }
}

pub(crate) fn all(store: &Store, rows: u32) -> Result<Vec<Question>, StoreError> {
    let mut questions = summaries();
    questions.extend(pages(store, u64::from(rows))?);
    questions.extend(by_numbers(u64::from(rows)));
    Ok(questions)
}

fn now_ms() -> i64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(0)
}

fn summaries() -> Vec<Question> {
    let now = now_ms();
    let minute = now / 60_000 * 60_000 + 60_000;
    let hours = |days: i64| (minute - days * DAY_MS) / HOUR_MS * HOUR_MS;
    let ranges = [
        ("hour", minute - HOUR_MS, 60_000),
        ("day", minute - DAY_MS, HOUR_MS),
        ("week", hours(7), DAY_MS),
        ("month", hours(30), DAY_MS),
        (
            "custom, 29 days to the ms",
            now - 29 * DAY_MS - 123_456,
            12 * HOUR_MS,
        ),
    ];
    let mut questions = Vec::new();
    for (name, from, bucket_ms) in ranges {
        for (what, groups, only_key) in [
            ("", Vec::new(), None),
            (", in five groups", GROUPS.to_vec(), None),
            (
                ", one key's, in five groups",
                GROUPS.to_vec(),
                Some("key-7"),
            ),
        ] {
            let query = SummaryQuery {
                rows: UsageQuery {
                    start_ms: Some(from),
                    end_ms: Some(minute - 1),
                    only_key: only_key.map(str::to_owned),
                    ..UsageQuery::default()
                },
                bucket_ms,
                today_ms: now / DAY_MS * DAY_MS,
                groups,
            };
            questions.push(Question {
                name: format!("summary: {name}{what}"),
                limit: SUMMARY,
                what: What::Summary(Box::new(query)),
            });
        }
    }
    questions.push(of_a_combination(now, hours(30)));
    questions.push(Question {
        name: "timeline by model: month".to_owned(),
        limit: SUMMARY,
        what: What::Timeline(hours(30), minute - 1, 12 * HOUR_MS),
    });
    questions.push(Question {
        name: "timeline by model: day".to_owned(),
        limit: SUMMARY,
        what: What::Timeline(minute - DAY_MS, minute - 1, 900_000),
    });
    questions
}

/// What no sums are kept of.
fn of_a_combination(now: i64, from: i64) -> Question {
    let rows = UsageQuery {
        start_ms: Some(from),
        provider: Some("provider-7".to_owned()),
        response_status: Some("error".to_owned()),
        ..UsageQuery::default()
    };
    Question {
        name: "summary: month, errors of a provider, in five groups".to_owned(),
        limit: PAGE,
        what: What::Summary(Box::new(SummaryQuery {
            rows,
            bucket_ms: DAY_MS,
            today_ms: now / DAY_MS * DAY_MS,
            groups: GROUPS.to_vec(),
        })),
    }
}

const GROUPS: [GroupBy; 5] = [
    GroupBy::Key,
    GroupBy::Attribution,
    GroupBy::Provider,
    GroupBy::Alias,
    GroupBy::Model,
];

type Change = fn(&mut UsageQuery);

const FILTERS: [(&str, Change); 10] = [
    ("no filter", |_| {}),
    ("a key", |q| q.api_key = Some("key-49".into())),
    ("own key", |q| q.only_key = Some("key-3".into())),
    ("part of a provider", |q| q.provider = Some("-5".into())),
    ("an alias", |q| {
        q.incoming_model_alias = Some("alias-2".into())
    }),
    ("a model", |q| {
        q.selected_model_name = Some("model-29".into())
    }),
    ("errors", |q| q.response_status = Some("error".into())),
    ("attribution", |q| q.attribution = Some("tool-3".into())),
    ("key and model", |q| {
        q.api_key = Some("key-8".into());
        q.selected_model_name = Some("model-11".into());
    }),
    ("rare: key, model, alias, timeouts", |q| {
        q.api_key = Some("key-49".into());
        q.selected_model_name = Some("model-29".into());
        q.response_status = Some("timeout".into());
    }),
];

const ORDERS: [(&str, SortBy, bool); 5] = [
    ("newest", SortBy::Date, false),
    ("oldest", SortBy::Date, true),
    ("by key", SortBy::ApiKey, true),
    ("by provider", SortBy::Provider, false),
    ("by alias", SortBy::IncomingModelAlias, true),
];

fn pages(store: &Store, rows: u64) -> Result<Vec<Question>, StoreError> {
    let mut questions = Vec::new();
    for (filter, change) in FILTERS {
        for (order, sort_by, ascending) in ORDERS {
            let mut query = UsageQuery {
                limit: Some(50),
                sort_by,
                ascending,
                ..UsageQuery::default()
            };
            change(&mut query);
            let total = store
                .usage(&UsageQuery {
                    limit: Some(0),
                    ..query.clone()
                })?
                .total;
            let deep = [
                ("first", 0),
                ("middle", total / 2),
                ("last", total.saturating_sub(50)),
            ];
            for (place, offset) in deep {
                questions.push(Question {
                    name: format!("page: {filter}, {order}, {place}"),
                    limit: PAGE,
                    what: What::Page(Box::new(UsageQuery {
                        offset,
                        ..query.clone()
                    })),
                });
            }
        }
    }
    let range = UsageQuery {
        limit: Some(50),
        offset: rows / 4,
        start_ms: Some(now_ms() - 20 * DAY_MS - 1234),
        end_ms: Some(now_ms() - 3 * DAY_MS - 4321),
        provider: Some("provider-1".to_owned()),
        ..UsageQuery::default()
    };
    questions.push(Question {
        name: "page: a provider between two instants, middle".to_owned(),
        limit: PAGE,
        what: What::Page(Box::new(range)),
    });
    Ok(questions)
}

/// Orders and filters of numbers, first and deep.
fn by_numbers(rows: u64) -> Vec<Question> {
    let changes: [(&str, Change); 5] = [
        ("longest", |q| q.sort_by = SortBy::DurationMs),
        ("dearest", |q| q.sort_by = SortBy::CostTotal),
        ("cheapest", |q| {
            q.sort_by = SortBy::CostTotal;
            q.ascending = true;
        }),
        ("at least 8 s", |q| q.min_duration_ms = Some(8000.0)),
        ("a key's longest", |q| {
            q.sort_by = SortBy::DurationMs;
            q.api_key = Some("key-49".into());
        }),
    ];
    let whens = [
        ("", None, 0),
        (", middle", None, rows / 2),
        (", of a day", Some(now_ms() - DAY_MS), 0),
    ];
    let mut questions = Vec::new();
    for (name, change) in changes {
        for (when, start_ms, offset) in whens {
            let mut query = UsageQuery {
                limit: Some(50),
                start_ms,
                offset,
                ..UsageQuery::default()
            };
            change(&mut query);
            questions.push(Question {
                name: format!("page: {name}{when}"),
                limit: PAGE,
                what: What::Page(Box::new(query)),
            });
        }
    }
    questions
}
