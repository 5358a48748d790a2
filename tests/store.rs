//! The store on real files: what goes in comes out once, in every order and
//! through every filter, whatever happens to the process or the disk.

#![recursion_limit = "256"]
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on has failed, in its helpers too"
)]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use plexus::metrics::Metrics;
use plexus::protocol::Protocol;
use plexus::store::row::{ErrorRow, Status, Tokens, UsageRow};
use plexus::store::{
    GroupBy, OpenError, Options, Record, SortBy, Store, StoreError, Summary, SummaryQuery, Sums,
    UsagePage, UsageQuery, project,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;

/// 2026-01-31T12:00:00Z.
const NOON: i64 = 1_769_860_800_000;
const HOUR: i64 = 3_600_000;
const LIMIT: Duration = Duration::from_secs(60);

fn row(start_ms: i64) -> UsageRow {
    UsageRow {
        request_id: Uuid::new_v4(),
        client_request_id: None,
        start_ms,
        source_ip: Some([127, 0, 0, 1].into()),
        key: Some("team".into()),
        attribution: None,
        incoming: Protocol::Chat,
        lite: false,
        outgoing: Some(Protocol::Messages),
        provider: Some("anthropic".into()),
        selected_model: Some("claude-x".into()),
        incoming_alias: Some("fast".into()),
        canonical: Some("fast-model".into()),
        attempts: 1,
        retry_history: None,
        all_attempted: None,
        tokens: Tokens::default(),
        tokens_estimated: false,
        bill: None,
        duration_ms: 100.0,
        ttft_ms: None,
        streamed: false,
        passthrough: false,
        status: Status::Success,
        has_error: false,
        tool_calls: None,
        finish_reason: Some("end_turn".into()),
        notes: None,
        http_status: 200,
    }
}

fn failure(date_ms: i64, key: &str) -> ErrorRow {
    ErrorRow {
        request_id: Uuid::new_v4(),
        date_ms,
        key: Some(key.into()),
        message: "provider said no".to_owned(),
        details: r#"{"provider":"p","statusCode":500}"#.to_owned(),
    }
}

fn open(folder: &TempDir) -> Store {
    Store::open(&folder.path().join("plexus.db"), Options::default()).unwrap()
}

/// A store with those rows in it.
fn with(rows: impl IntoIterator<Item = UsageRow>) -> (TempDir, Store) {
    let folder = TempDir::new().unwrap();
    let store = open(&folder);
    put(&store, rows);
    (folder, store)
}

fn put(store: &Store, rows: impl IntoIterator<Item = UsageRow>) {
    for row in rows {
        store.writer().usage(Box::new(row));
    }
    store.flush(LIMIT).unwrap();
}

fn all(store: &Store) -> UsagePage {
    store.usage(&UsageQuery::default()).unwrap()
}

/// One field of every record found, in order.
fn column(store: &Store, field: &str, query: UsageQuery) -> Vec<Value> {
    let page = store.usage(&query).unwrap();
    if query.limit.is_none() && query.offset == 0 {
        assert_eq!(page.total, page.data.len() as u64, "{query:?}");
    }
    page.data
        .iter()
        .map(|record| record[field].clone())
        .collect()
}

/// How many rows a query finds, which must be what it counts.
fn found(store: &Store, query: UsageQuery) -> usize {
    column(store, "requestId", query).len()
}

fn query(change: impl FnOnce(&mut UsageQuery)) -> UsageQuery {
    let mut query = UsageQuery::default();
    change(&mut query);
    query
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn raw(store: &Store) -> rusqlite::Connection {
    rusqlite::Connection::open(store.path()).unwrap()
}

fn integrity(path: &Path) -> String {
    let connection = rusqlite::Connection::open(path).unwrap();
    connection
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap()
}

#[test]
fn a_record_has_every_field_in_the_contracts_order() {
    let (_folder, store) = with([UsageRow {
        client_request_id: Some("mine".into()),
        attribution: Some("ci".into()),
        attempts: 2,
        retry_history: Some("[{}]".into()),
        all_attempted: Some(r#"["p/m","q/m"]"#.into()),
        tokens: Tokens {
            input: Some(80),
            tool_prompt: Some(10),
            cache_read: Some(10),
            cache_write_short: Some(3),
            cache_write_long: Some(4),
            cache_write_other: None,
            output: Some(20),
            reasoning: Some(5),
            ..Tokens::default()
        },
        duration_ms: 140.5,
        ttft_ms: Some(40.5),
        streamed: true,
        passthrough: true,
        tool_calls: Some(1),
        notes: Some(r#"["dropped x"]"#.into()),
        ..row(NOON)
    }]);
    let record = all(&store).data.remove(0);
    let expected = json!({
        "requestId": record["requestId"], "clientRequestId": "mine",
        "date": "2026-01-31T12:00:00.000Z", "sourceIp": "127.0.0.1", "apiKey": "team",
        "attribution": "ci", "incomingApiType": "chat", "provider": "anthropic",
        "attemptCount": 2, "retryHistory": "[{}]", "incomingModelAlias": "fast",
        "canonicalModelName": "fast-model", "selectedModelName": "claude-x",
        "finalAttemptProvider": "anthropic", "finalAttemptModel": "claude-x",
        "allAttemptedProviders": "[\"p/m\",\"q/m\"]", "outgoingApiType": "messages",
        "tokensInput": 90, "tokensOutput": 20, "tokensReasoning": 5, "tokensCached": 10,
        "tokensCacheWrite": 7, "tokensEstimated": 0, "costInput": null, "costOutput": null,
        "costCached": null, "costCacheWrite": null, "costTotal": null, "costSource": null,
        "costMetadata": null, "startTime": NOON, "durationMs": 140.5, "isStreamed": true,
        "responseStatus": "success", "ttftMs": 40.5, "tokensPerSec": 250, "hasDebug": false,
        "hasError": false, "isPassthrough": true, "isRaw": false, "requestMethod": null,
        "requestPath": null, "toolsDefined": null, "messageCount": null,
        "parallelToolCallsEnabled": false, "toolCallsCount": 1, "finishReason": "end_turn",
        "kwhUsed": null, "notes": "[\"dropped x\"]", "httpStatus": 200
    });
    // As text, so that the order counts.
    assert_eq!(Value::Object(record).to_string(), expected.to_string());
}

#[test]
fn what_is_not_known_is_null_and_not_zero() {
    let (_folder, store) = with([UsageRow {
        source_ip: None,
        key: None,
        outgoing: None,
        provider: None,
        selected_model: None,
        canonical: None,
        finish_reason: None,
        status: Status::Cancelled,
        streamed: true,
        http_status: 0,
        ..row(NOON)
    }]);
    let record = all(&store).data.remove(0);
    for field in [
        "sourceIp",
        "apiKey",
        "outgoingApiType",
        "provider",
        "selectedModelName",
        "finalAttemptProvider",
        "canonicalModelName",
        "tokensInput",
        "tokensCacheWrite",
        "ttftMs",
        "tokensPerSec",
        "finishReason",
        "httpStatus",
    ] {
        assert_eq!(record[field], Value::Null, "{field}");
    }
    assert_eq!(record["responseStatus"], "cancelled");
}

#[test]
fn speed_is_over_the_whole_duration_when_nothing_was_streamed() {
    let tokens = Tokens {
        output: Some(20),
        ..Tokens::default()
    };
    let (_folder, store) = with([UsageRow {
        tokens,
        duration_ms: 400.0,
        ..row(NOON)
    }]);
    let record = all(&store).data.remove(0);
    assert_eq!(record["tokensPerSec"], 50);
    assert_eq!(record["ttftMs"], 400);
}

#[test]
fn media_records_name_no_final_attempt() {
    let (_folder, store) = with([UsageRow {
        incoming: Protocol::Speech,
        ..row(NOON)
    }]);
    let record = all(&store).data.remove(0);
    assert_eq!(record["provider"], "anthropic");
    assert_eq!(record["finalAttemptProvider"], Value::Null);
    assert_eq!(record["finalAttemptModel"], Value::Null);
}

#[test]
fn selected_fields_come_alone() {
    let (_folder, store) = with([row(NOON)]);
    let record = all(&store).data.remove(0);
    let kept: Record = project(record, &["durationMs", "apiKey"]);
    assert_eq!(
        Value::Object(kept).to_string(),
        r#"{"apiKey":"team","durationMs":100}"#
    );
}

/// Rows that differ from one another in one thing each.
fn variety() -> Vec<UsageRow> {
    let changes: [fn(&mut UsageRow); 11] = [
        |row| row.key = Some("Alpha_1".into()),
        |row| row.key = Some("alphaX1".into()),
        |row| row.provider = Some("50%off".into()),
        |row| row.incoming_alias = Some("gpt-4o".into()),
        |row| row.selected_model = Some("o3-mini".into()),
        |row| row.client_request_id = Some("c-1".into()),
        |row| row.incoming = Protocol::Gemini,
        |row| row.outgoing = Some(Protocol::Chat),
        |row| row.status = Status::Timeout,
        |row| row.attribution = Some("ci".into()),
        |row| row.duration_ms = 5000.5,
    ];
    let rows = (NOON..).zip(changes).map(|(start_ms, change)| {
        let mut row = row(start_ms);
        change(&mut row);
        row
    });
    rows.collect()
}

#[test]
fn every_filter_finds_its_rows_and_no_others() {
    let rows = variety();
    let id = rows[3].request_id.to_string();
    let (_folder, store) = with(rows);
    assert_eq!(found(&store, UsageQuery::default()), 11);
    let one = [
        query(|q| q.api_key = some("alpha_")),
        query(|q| q.provider = some("0%O")),
        query(|q| q.incoming_model_alias = some("GPT")),
        query(|q| q.selected_model_name = some("mini")),
        query(|q| q.request_id = some(&id)),
        query(|q| q.request_id = some(&id.to_uppercase())),
        query(|q| q.client_request_id = some("c-1")),
        query(|q| q.incoming_api_type = some("gemini")),
        query(|q| q.outgoing_api_type = some("chat")),
        query(|q| q.response_status = some("timeout")),
        query(|q| q.attribution = some("ci")),
        query(|q| q.min_duration_ms = Some(100.5)),
        query(|q| q.min_duration_ms = Some(5000.5)),
        query(|q| q.start_ms = Some(NOON + 10)),
        query(|q| q.end_ms = Some(NOON)),
        query(|q| (q.start_ms, q.end_ms) = (Some(NOON + 4), Some(NOON + 4))),
        query(|q| q.only_key = some("Alpha_1")),
        query(|q| (q.api_key, q.end_ms) = (some("alpha"), Some(NOON))),
    ];
    for query in one {
        assert_eq!(found(&store, query.clone()), 1, "{query:?}");
    }
    assert_eq!(found(&store, query(|q| q.api_key = some("ALPHA"))), 2);
    let short = query(|q| q.max_duration_ms = Some(100.0));
    assert_eq!(found(&store, short), 10);
}

#[test]
fn filters_that_match_nothing_find_nothing() {
    let (_folder, store) = with(variety());
    for query in [
        query(|q| q.api_key = some("%")),
        query(|q| q.request_id = some("no id")),
        query(|q| q.client_request_id = some("c")),
        query(|q| q.attribution = some("c")),
        query(|q| q.incoming_api_type = some("gem")),
        query(|q| q.response_status = some("pending")),
        query(|q| q.only_key = some("alpha")),
        query(|q| q.only_key = some("nobody")),
        query(|q| q.start_ms = Some(NOON + 11)),
        query(|q| q.end_ms = Some(NOON - 1)),
        query(|q| q.end_ms = Some(-1)),
        query(|q| q.start_ms = Some(i64::MAX)),
        query(|q| (q.start_ms, q.end_ms) = (Some(NOON + 2), Some(NOON + 1))),
        query(|q| q.min_duration_ms = Some(f64::MAX)),
        query(|q| q.max_duration_ms = Some(99.9999)),
        query(|q| q.api_key = Some("x".repeat(100_000))),
    ] {
        assert_eq!(found(&store, query.clone()), 0, "{query:?}");
    }
}

#[test]
fn a_limited_caller_sees_its_own_rows_through_every_filter() {
    let (_folder, store) = with(variety());
    let query = UsageQuery {
        only_key: some("Alpha_1"),
        provider: some("anthropic"),
        ..UsageQuery::default()
    };
    assert_eq!(column(&store, "apiKey", query), ["Alpha_1"]);
    let foreign = UsageQuery {
        only_key: some("Alpha_1"),
        api_key: some("team"),
        ..UsageQuery::default()
    };
    assert_eq!(found(&store, foreign), 0);
}

#[test]
fn every_order_has_nulls_first_when_ascending_and_the_newest_first_among_equals() {
    let rows = [
        (Some("b"), 3.0, 0),
        (Some("a"), 1.0, 1),
        (None, 2.0, 2),
        (Some("a"), 3.0, 3),
    ];
    let (_folder, store) = with(rows.map(|(name, duration_ms, at)| UsageRow {
        key: name.map(Arc::from),
        provider: name.map(Arc::from),
        incoming_alias: name.map(Arc::from),
        duration_ms,
        ..row(NOON + at)
    }));
    let order = |sort_by, ascending| -> Vec<i64> {
        let query = UsageQuery {
            sort_by,
            ascending,
            ..UsageQuery::default()
        };
        let times = column(&store, "startTime", query);
        times
            .iter()
            .map(|time| time.as_i64().unwrap() - NOON)
            .collect()
    };
    for name in ["apiKey", "provider", "incomingModelAlias"] {
        let sort = SortBy::from_name(name);
        assert_eq!(order(sort, true), [2, 3, 1, 0], "{name}");
        assert_eq!(order(sort, false), [0, 3, 1, 2], "{name}");
    }
    let duration = SortBy::from_name("durationMs");
    assert_eq!(order(duration, true), [1, 2, 3, 0]);
    assert_eq!(order(duration, false), [3, 0, 2, 1]);
    assert_eq!(order(SortBy::from_name("costTotal"), true), [3, 2, 1, 0]);
    for name in ["date", "nonsense"] {
        assert_eq!(
            order(SortBy::from_name(name), false),
            [3, 2, 1, 0],
            "{name}"
        );
        assert_eq!(order(SortBy::from_name(name), true), [0, 1, 2, 3], "{name}");
    }
}

#[test]
fn pages_put_together_are_the_whole_in_every_order() {
    let rows: Vec<UsageRow> = (0..97)
        .map(|i| UsageRow {
            key: Some(format!("key-{}", i % 3).into()),
            duration_ms: f64::from(i % 5),
            // Out of order, over several hours, some in the same millisecond.
            ..row(NOON + i64::from(i * 37 % 50) * HOUR / 7)
        })
        .collect();
    let (_folder, store) = with(rows);
    let bases = [
        UsageQuery::default(),
        query(|q| q.ascending = true),
        query(|q| q.only_key = some("key-1")),
        query(|q| q.sort_by = SortBy::DurationMs),
        query(|q| (q.sort_by, q.ascending) = (SortBy::ApiKey, true)),
        query(|q| {
            q.start_ms = Some(NOON + HOUR / 2);
            q.end_ms = Some(NOON + 5 * HOUR + 17);
        }),
    ];
    for base in bases {
        let whole = store.usage(&base).unwrap();
        assert_eq!(whole.total, whole.data.len() as u64);
        for size in [1, 7, 50] {
            let mut put_together = Vec::new();
            while put_together.len() < whole.data.len() {
                let offset = put_together.len() as u64;
                let query = UsageQuery {
                    limit: Some(size),
                    offset,
                    ..base.clone()
                };
                let page = store.usage(&query).unwrap();
                assert_eq!(page.total, whole.total);
                assert!(!page.data.is_empty() && page.data.len() as u64 <= size);
                put_together.extend(page.data);
            }
            assert_eq!(put_together, whole.data, "{base:?} by {size}");
        }
        let beyond = UsageQuery {
            limit: Some(5),
            offset: 10_000,
            ..base.clone()
        };
        let beyond = store.usage(&beyond).unwrap();
        assert!(beyond.data.is_empty() && beyond.total == whole.total);
        let none = UsageQuery {
            limit: Some(0),
            ..base
        };
        assert!(store.usage(&none).unwrap().data.is_empty());
    }
}

/// Rows over two days, of several keys, providers and endings.
fn mixture() -> Vec<UsageRow> {
    let name = |name: &str, i: i64, of: i64| Some(format!("{name}-{}", i % of).into());
    let rows = (0..160_i64).map(|i| UsageRow {
        key: name("key", i, 3).filter(|_| i % 4 != 0),
        provider: name("provider", i, 5),
        incoming_alias: name("alias", i, 7).filter(|_| i % 11 != 0),
        attribution: (i % 6 == 0).then(|| "ci".into()),
        status: Status::ALL[usize::try_from(i).unwrap() % 3],
        tokens: Tokens {
            input: Some(100),
            output: (i % 2 == 0).then_some(10),
            ..Tokens::default()
        },
        ..row(NOON + i * 37 % 160 * HOUR / 3)
    });
    rows.collect()
}

/// The ways to ask for rows that need not look at each of them.
fn ways() -> Vec<UsageQuery> {
    let filters = [
        UsageQuery::default(),
        query(|q| q.only_key = some("key-1")),
        query(|q| q.api_key = some("KEY")),
        query(|q| q.provider = some("-3")),
        query(|q| q.selected_model_name = some("claude")),
        query(|q| q.attribution = some("ci")),
        query(|q| (q.response_status, q.provider) = (some("error"), some("r-1"))),
        query(|q| (q.only_key, q.incoming_model_alias) = (some("key-2"), some("alias"))),
    ];
    let sorts = [
        SortBy::Date,
        SortBy::ApiKey,
        SortBy::Provider,
        SortBy::IncomingModelAlias,
    ];
    let mut ways = Vec::new();
    for filter in filters {
        for sort_by in sorts {
            for ascending in [false, true] {
                ways.push(UsageQuery {
                    sort_by,
                    ascending,
                    ..filter.clone()
                });
            }
        }
    }
    ways
}

#[test]
fn what_rows_add_up_to_finds_what_looking_at_every_row_finds() {
    let (_folder, store) = with(mixture());
    for (from, to) in [(0, 160), (1, 9), (8, 16), (3, 4), (7, 7), (20, 75)] {
        for way in ways() {
            for (limit, offset) in [(None, 0), (Some(5), 3)] {
                let plain = UsageQuery {
                    start_ms: Some(NOON + from * HOUR / 3),
                    end_ms: Some(NOON + to * HOUR / 3),
                    limit,
                    offset,
                    ..way.clone()
                };
                // A condition that all rows meet takes the other way.
                let looked_at = UsageQuery {
                    min_duration_ms: Some(0.0),
                    ..plain.clone()
                };
                let (found, looked_at) = (store.usage(&plain), store.usage(&looked_at));
                assert_eq!(found.unwrap(), looked_at.unwrap(), "{plain:?}");
            }
        }
    }
}

fn summary(store: &Store, change: impl FnOnce(&mut SummaryQuery)) -> Summary {
    let mut query = SummaryQuery {
        bucket_ms: HOUR,
        today_ms: i64::MAX,
        ..SummaryQuery::default()
    };
    change(&mut query);
    store.summary(&query).unwrap()
}

#[test]
fn a_summary_is_what_the_rows_add_up_to_in_series_totals_and_groups() {
    let rows = mixture();
    let (_folder, store) = with(rows.clone());
    let (from, to) = (NOON + HOUR / 2, NOON + 40 * HOUR + 17);
    let groups = vec![GroupBy::Key, GroupBy::Attribution, GroupBy::Provider];
    let found = summary(&store, |q| {
        (q.rows.start_ms, q.rows.end_ms) = (Some(from), Some(to));
        q.groups.clone_from(&groups);
        q.today_ms = NOON + 30 * HOUR;
    });
    let within = |row: &&UsageRow| (from..=to).contains(&row.start_ms);
    let count = |wanted: &dyn Fn(&UsageRow) -> bool| {
        let rows = rows.iter().filter(within).filter(|row| wanted(row)).count();
        i64::try_from(rows).unwrap()
    };
    let all = count(&|_| true);
    assert_eq!(found.total.requests, all);
    assert_eq!(found.total.input, all * 100);
    assert_eq!(found.total.errors, count(&|row| row.status.is_failure()));
    assert_eq!(found.total.duration_us, all * 100_000);
    let today = rows.iter().filter(|row| row.start_ms >= NOON + 30 * HOUR);
    assert_eq!(found.today.requests, i64::try_from(today.count()).unwrap());
    for (begins, sums) in &found.series {
        assert_eq!(begins % HOUR, 0);
        let of = count(&|row| row.start_ms.div_euclid(HOUR) * HOUR == *begins);
        assert_eq!(sums.requests, of, "{begins}");
    }
    let series: i64 = found.series.iter().map(|(_, sums)| sums.requests).sum();
    assert_eq!(series, all);
    for (by, group) in groups.iter().zip(&found.groups) {
        for (name, sums) in group {
            let name = name.as_deref();
            let of = count(&|row| match by {
                GroupBy::Key => row.key.as_deref() == name,
                GroupBy::Provider => row.provider.as_deref() == name,
                _ => row.attribution.as_deref() == name,
            });
            assert_eq!(sums.requests, of, "{by:?} {name:?}");
        }
        let whole: i64 = group.iter().map(|(_, sums)| sums.requests).sum();
        assert_eq!(whole, all, "{by:?}");
        assert!(group.is_sorted_by_key(|(_, sums)| -sums.requests));
    }
}

#[test]
fn a_limited_callers_summary_is_of_its_own_key() {
    let (_folder, store) = with(mixture());
    let found = summary(&store, |q| {
        q.rows.only_key = some("key-1");
        q.groups = vec![GroupBy::Key, GroupBy::Model];
    });
    let rows = mixture();
    let mine = rows
        .iter()
        .filter(|row| row.key.as_deref() == Some("key-1"));
    let mine = i64::try_from(mine.count()).unwrap();
    assert_eq!(found.total.requests, mine);
    let names: Vec<_> = found
        .groups
        .iter()
        .map(|group| group[0].0.clone())
        .collect();
    assert_eq!(names, [some("key-1"), some("claude-x")]);
    let unknown = summary(&store, |q| q.rows.only_key = some("nobody"));
    assert_eq!(unknown.total, Sums::default());
}

#[test]
fn a_timeline_counts_requests_by_bucket_and_name() {
    let of = |provider: &str, start_ms| UsageRow {
        provider: Some(provider.into()),
        ..row(start_ms)
    };
    let (_folder, store) = with([of("a", NOON), of("b", NOON + 1), of("a", NOON + 2 * HOUR)]);
    let ends = (NOON, NOON + 3 * HOUR);
    let timeline = store.timeline(ends, HOUR, GroupBy::Provider).unwrap();
    let expected = [
        (NOON, "a".to_owned(), 1),
        (NOON, "b".to_owned(), 1),
        (NOON + 2 * HOUR, "a".to_owned(), 1),
    ];
    assert_eq!(timeline, expected);
}

#[test]
fn deleted_rows_leave_the_summary_and_what_is_left_stays_true() {
    let (_folder, store) = with(mixture());
    store.delete_usage_older_than(NOON + 20 * HOUR).unwrap();
    let rows = mixture();
    let left = rows.iter().filter(|row| row.start_ms >= NOON + 20 * HOUR);
    let left = i64::try_from(left.count()).unwrap();
    assert_eq!(summary(&store, |_| {}).total.requests, left);
    store.delete_usage_older_than(i64::MAX).unwrap();
    assert_eq!(summary(&store, |_| {}), Summary::default());
    let entries: i64 = raw(&store)
        .query_row(
            "SELECT (SELECT count(*) FROM sums) + (SELECT count(*) FROM blocks)",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(entries, 0, "nothing is kept of what is gone");
}

#[test]
fn rows_that_are_in_no_block_yet_are_put_there_when_the_file_is_opened() {
    let many = (0..20_000).map(|i| UsageRow {
        provider: Some(["a", "b"][usize::from(i % 3 == 0)].into()),
        attribution: (i % 4 == 0).then(|| "ci".into()),
        ..row(NOON + i64::from(i) * 7000)
    });
    let (folder, store) = with(many);
    let asked = |store: &Store| {
        let groups = vec![GroupBy::Provider, GroupBy::Attribution];
        summary(store, |q| q.groups = groups)
    };
    let before = asked(&store);
    assert_eq!(before.total.requests, 20_000);
    store.close(LIMIT).unwrap();
    let unmade = "DELETE FROM sums; DELETE FROM blocks; DELETE FROM block_columns;
        UPDATE folded SET until = 0;";
    rusqlite::Connection::open(store.path())
        .unwrap()
        .execute_batch(unmade)
        .unwrap();
    let store = open(&folder);
    assert_eq!(asked(&store), before);
    let blocks: i64 = raw(&store)
        .query_row("SELECT sum(rows) FROM blocks", [], |row| row.get(0))
        .unwrap();
    assert!((12_000..20_000).contains(&blocks), "{blocks}");
}

#[test]
fn a_request_is_found_by_its_id_by_those_who_may_see_it() {
    let wanted = row(NOON);
    let id = wanted.request_id;
    let (_folder, store) = with([wanted, row(NOON)]);
    let record = store.usage_by_id(id, None).unwrap().unwrap();
    assert_eq!(record["requestId"], id.to_string());
    assert!(store.usage_by_id(id, Some("team")).unwrap().is_some());
    assert!(store.usage_by_id(id, Some("other")).unwrap().is_none());
    assert!(store.usage_by_id(Uuid::nil(), None).unwrap().is_none());
}

#[test]
fn a_request_written_twice_is_one_row() {
    let twice = row(NOON);
    let (_folder, store) = with([twice.clone(), twice.clone()]);
    put(&store, [twice]);
    assert_eq!(all(&store).total, 1);
    assert_eq!(all(&store).data.len(), 1);
}

#[test]
fn many_requests_of_one_millisecond_are_many_rows() {
    let (_folder, store) = with((0..3000).map(|_| row(NOON)));
    assert_eq!(all(&store).data.len(), 3000);
}

#[test]
fn impossible_times_are_kept_within_the_calendar() {
    let (_folder, store) = with([
        row(-5),
        row(i64::MAX),
        UsageRow {
            duration_ms: f64::NAN,
            ttft_ms: Some(f64::INFINITY),
            streamed: true,
            ..row(NOON)
        },
    ]);
    let page = all(&store);
    assert_eq!(page.data.len(), 3);
    assert_eq!(page.data[2]["date"], "1970-01-01T00:00:00.000Z");
    assert_eq!(page.data[1]["durationMs"], 0);
}

#[test]
fn deleting_a_request_deletes_it_alone_and_the_total_follows() {
    let gone = row(NOON);
    let id = gone.request_id;
    let (_folder, store) = with([
        gone,
        row(NOON),
        UsageRow {
            key: None,
            ..row(NOON)
        },
    ]);
    assert_eq!(store.delete_usage(id), Ok(1));
    assert_eq!(store.delete_usage(id), Ok(0));
    let page = all(&store);
    assert_eq!((page.total, page.data.len()), (2, 2));
    assert!(
        page.data
            .iter()
            .all(|record| record["requestId"] != id.to_string())
    );
}

#[test]
fn deleting_by_age_takes_what_began_before_and_leaves_the_rest() {
    let (_folder, store) = with((0..2500).map(|i| row(NOON + i)));
    assert_eq!(store.delete_usage_older_than(NOON + 2400), Ok(2400));
    let page = all(&store);
    assert_eq!((page.total, page.data.len()), (100, 100));
    assert_eq!(page.data[99]["startTime"], NOON + 2400);
    assert_eq!(store.delete_usage_older_than(i64::MAX), Ok(100));
    assert_eq!(all(&store).total, 0);
    let counts: i64 = raw(&store)
        .query_row("SELECT count(*) FROM sums", [], |row| row.get(0))
        .unwrap();
    assert_eq!(counts, 0);
}

#[test]
fn the_file_shrinks_when_rows_are_deleted() {
    let notes: Box<str> = "n".repeat(1000).into();
    let (_folder, store) = with((0..5000).map(|i| UsageRow {
        notes: Some(notes.clone()),
        ..row(NOON + i)
    }));
    let pages = || -> i64 {
        raw(&store)
            .query_row("PRAGMA page_count", [], |row| row.get(0))
            .unwrap()
    };
    let before = pages();
    store.delete_usage_older_than(i64::MAX).unwrap();
    wait_until("the file is a quarter", || pages() < before / 4);
}

#[test]
fn old_rows_are_deleted_in_slices_and_new_ones_are_written_in_between() {
    let (_folder, store) = with((0..60_000).map(|i| row(NOON + i)));
    std::thread::scope(|scope| {
        let deleting = scope.spawn(|| store.delete_usage_older_than(NOON + HOUR));
        wait_until("deleting has begun", || all_of(&store) < 60_000);
        put(&store, [row(NOON + 2 * HOUR)]);
        assert!(
            all_of(&store) > 1,
            "the new row did not wait for the last slice"
        );
        assert_eq!(deleting.join().unwrap(), Ok(60_000));
    });
    assert_eq!(all_of(&store), 1);
}

fn all_of(store: &Store) -> u64 {
    store.usage(&query(|q| q.limit = Some(0))).unwrap().total
}

#[test]
fn a_file_that_cannot_shrink_is_made_one_that_can() {
    let (folder, store) = with((0..100).map(|i| row(NOON + i)));
    store.close(LIMIT).unwrap();
    let mode = |path: &Path| -> i64 {
        let connection = rusqlite::Connection::open(path).unwrap();
        connection
            .query_row("PRAGMA auto_vacuum", [], |row| row.get(0))
            .unwrap()
    };
    rusqlite::Connection::open(store.path())
        .unwrap()
        .execute_batch("PRAGMA auto_vacuum = NONE; VACUUM;")
        .unwrap();
    assert_eq!(mode(store.path()), 0);
    let store = open(&folder);
    assert_eq!(mode(store.path()), 2);
    assert_eq!(all(&store).total, 100);
}

#[test]
fn a_file_over_its_size_loses_its_oldest_rows_and_shrinks() {
    let folder = TempDir::new().unwrap();
    let notes: Box<str> = "n".repeat(1000).into();
    let options = Options {
        database_mb: 4,
        retention_delay: Duration::ZERO,
        ..Options::default()
    };
    let store = Store::open(&folder.path().join("plexus.db"), options).unwrap();
    put(
        &store,
        (0..10_000).map(|i| UsageRow {
            notes: Some(notes.clone()),
            ..row(NOON + i)
        }),
    );
    drop(store);
    let store = Store::open(
        &folder.path().join("plexus.db"),
        Options {
            database_mb: 4,
            retention_delay: Duration::ZERO,
            ..Options::default()
        },
    )
    .unwrap();
    let bytes = || -> i64 {
        let page = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size";
        raw(&store).query_row(page, [], |row| row.get(0)).unwrap()
    };
    wait_until("the file is small enough", || bytes() <= 4 << 20);
    let left = column(&store, "startTime", UsageQuery::default());
    assert!(
        left.len() > 1000,
        "only as much went as had to: {}",
        left.len()
    );
    assert_eq!(left[0], NOON + 9999, "the newest are kept");
}

#[test]
fn errors_come_newest_first_in_the_contracts_shape() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder);
    let first = failure(NOON, "a");
    let id = first.request_id;
    store.writer().error(Box::new(first));
    store.writer().error(Box::new(failure(NOON + 1, "b")));
    store.writer().error(Box::new(failure(NOON + 2, "a")));
    store.flush(LIMIT).unwrap();
    let page = store.errors(Some(2), 1, None).unwrap();
    assert_eq!(page.total, 3);
    let last = page.data.last().cloned().unwrap();
    let expected = json!({
        "id": 1, "requestId": id.to_string(), "date": "2026-01-31T12:00:00.000Z",
        "apiKey": "a", "errorMessage": "provider said no", "errorStack": null,
        "details": "{\"provider\":\"p\",\"statusCode\":500}", "createdAt": NOON
    });
    assert_eq!(Value::Object(last).to_string(), expected.to_string());
    let own = store.errors(None, 0, Some("b")).unwrap();
    assert_eq!((own.total, own.data.len()), (1, 1));
    assert_eq!(own.data[0]["apiKey"], "b");
    assert_eq!(store.errors(None, 0, Some("nobody")).unwrap().total, 0);
}

#[test]
fn errors_are_deleted_by_their_owner_by_age_or_all() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder);
    let first = failure(NOON, "a");
    let id = first.request_id;
    store.writer().error(Box::new(first));
    for i in 1..10 {
        store.writer().error(Box::new(failure(NOON + i, "b")));
    }
    store.flush(LIMIT).unwrap();
    assert_eq!(store.delete_error(id, Some("b")), Ok(0));
    assert_eq!(store.delete_error(id, Some("a")), Ok(1));
    assert_eq!(store.delete_errors_older_than(NOON + 5), Ok(4));
    assert_eq!(store.errors(None, 0, None).unwrap().total, 5);
    assert_eq!(store.delete_error(Uuid::nil(), None), Ok(0));
    assert_eq!(store.delete_errors_older_than(i64::MAX), Ok(5));
}

#[test]
fn rows_outlive_the_process_and_the_side_files_are_gone_after_closing() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder);
    for row in variety() {
        store.writer().usage(Box::new(row));
    }
    store.close(LIMIT).unwrap();
    store.close(LIMIT).unwrap();
    assert_eq!(store.flush(LIMIT), Err(StoreError::Closed));
    drop(store);
    let files: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(files.len(), 1, "{files:?}");
    let store = open(&folder);
    let before = all(&store);
    assert_eq!(before.total, 11);
    put(
        &store,
        [UsageRow {
            key: Some("Alpha_1".into()),
            ..row(NOON + 20)
        }],
    );
    let own = UsageQuery {
        only_key: some("Alpha_1"),
        ..UsageQuery::default()
    };
    assert_eq!(found(&store, own), 2);
    assert_eq!(all(&store).data[1..], before.data[..]);
}

#[test]
fn rows_handed_over_after_closing_are_dropped_and_counted() {
    let folder = TempDir::new().unwrap();
    let metrics = Arc::new(Metrics::new());
    let options = Options {
        metrics: Arc::clone(&metrics),
        ..Options::default()
    };
    let store = Store::open(&folder.path().join("x.db"), options).unwrap();
    store.close(LIMIT).unwrap();
    store.writer().usage(Box::new(row(NOON)));
    assert_eq!(store.writer().dropped(), 1);
    assert_eq!(metrics.rows_dropped(), 1);
}

#[cfg(unix)]
#[test]
fn folders_are_made_and_only_the_owner_can_read_the_files() {
    use std::os::unix::fs::PermissionsExt;
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a/b/plexus.db");
    let store = Store::open(&path, Options::default()).unwrap();
    put(&store, [row(NOON)]);
    for entry in std::fs::read_dir(path.parent().unwrap()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{:?}", entry.path());
    }
    drop(store);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let _store = Store::open(&path, Options::default()).unwrap();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn an_empty_file_becomes_a_database() {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("plexus.db"), b"").unwrap();
    let store = open(&folder);
    put(&store, [row(NOON)]);
    assert_eq!(all(&store).total, 1);
}

#[test]
fn a_file_that_is_no_database_is_refused_and_left_alone() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("plexus.db");
    let text = "not a database, but long enough to have a header ".repeat(100);
    std::fs::write(&path, &text).unwrap();
    let error = Store::open(&path, Options::default()).unwrap_err();
    assert!(matches!(error, OpenError::Corrupt { .. }), "{error:?}");
    assert!(error.to_string().contains("plexus.db"), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
}

#[test]
fn a_truncated_database_is_refused() {
    let (folder, store) = with((0..2000).map(|i| row(NOON + i)));
    drop(store);
    let path = folder.path().join("plexus.db");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let error = Store::open(&path, Options::default()).unwrap_err();
    assert!(matches!(error, OpenError::Corrupt { .. }), "{error:?}");
}

#[test]
fn a_newer_schema_is_refused_and_named() {
    let (folder, store) = with([]);
    drop(store);
    let path = folder.path().join("plexus.db");
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    drop(connection);
    let error = Store::open(&path, Options::default()).unwrap_err();
    assert!(
        matches!(error, OpenError::Newer { found: 99, .. }),
        "{error:?}"
    );
    assert!(error.to_string().contains("schema 99"), "{error}");
}

#[test]
fn another_programs_database_is_refused() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("plexus.db");
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.execute_batch("CREATE TABLE usage (x)").unwrap();
    drop(connection);
    let error = Store::open(&path, Options::default()).unwrap_err();
    assert!(matches!(error, OpenError::Foreign { .. }), "{error:?}");
}

#[test]
fn a_place_that_cannot_be_written_is_refused() {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("file"), b"").unwrap();
    let path = folder.path().join("file/plexus.db");
    let error = Store::open(&path, Options::default()).unwrap_err();
    assert!(matches!(error, OpenError::File { .. }), "{error:?}");
}

#[test]
fn a_locked_database_slows_no_sender_and_its_rows_arrive_afterwards() {
    let (_folder, store) = with([]);
    let other = raw(&store);
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let rows: Vec<_> = (0..5000).map(|i| Box::new(row(NOON + i))).collect();
    let began = Instant::now();
    for row in rows {
        store.writer().usage(row);
    }
    // Milliseconds, unless the machine has other things to do.
    let took = began.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert_eq!(
        store.flush(Duration::from_millis(300)),
        Err(StoreError::Timeout)
    );
    assert_eq!(all(&store).total, 0);
    other.execute_batch("COMMIT").unwrap();
    store.flush(LIMIT).unwrap();
    assert_eq!(all(&store).data.len(), 5000);
    assert_eq!(store.writer().dropped(), 0);
}

#[test]
fn a_full_queue_drops_and_counts_and_everything_else_is_stored_once() {
    let folder = TempDir::new().unwrap();
    let metrics = Arc::new(Metrics::new());
    let options = Options {
        queue: 64,
        metrics: Arc::clone(&metrics),
        ..Options::default()
    };
    let store = Store::open(&folder.path().join("x.db"), options).unwrap();
    let other = raw(&store);
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    for i in 0..2000 {
        store.writer().usage(Box::new(row(NOON + i)));
    }
    let dropped = store.writer().dropped();
    // The writer holds a batch at most, the queue the rest.
    assert!(
        (2000 - 64 - 512..=2000 - 64).contains(&dropped),
        "{dropped}"
    );
    other.execute_batch("COMMIT").unwrap();
    store.flush(LIMIT).unwrap();
    let stored = all(&store);
    assert_eq!(stored.total + dropped, 2000);
    assert_eq!(stored.data.len() as u64, stored.total);
    assert_eq!(metrics.rows_dropped(), dropped);
    let page = metrics.render(NOON);
    let line = format!("plexus_requests_total {}\n", stored.total);
    assert!(page.contains(&line), "{page}");
}

#[test]
fn a_row_that_is_refused_takes_no_other_with_it() {
    let folder = TempDir::new().unwrap();
    let metrics = Arc::new(Metrics::new());
    let options = Options {
        metrics: Arc::clone(&metrics),
        ..Options::default()
    };
    let store = Store::open(&folder.path().join("x.db"), options).unwrap();
    raw(&store)
        .execute_batch(
            "CREATE TRIGGER refuse BEFORE INSERT ON usage WHEN new.client_request_id = 'bad'
             BEGIN SELECT RAISE(ABORT, 'no'); END",
        )
        .unwrap();
    let rows = (0..10).map(|i| UsageRow {
        client_request_id: (i == 4).then(|| "bad".into()),
        ..row(NOON + i)
    });
    put(&store, rows);
    assert_eq!(all(&store).data.len(), 9);
    assert_eq!(all(&store).total, 9);
    let page = metrics.render(NOON);
    assert!(page.contains("plexus_rows_failed_total 1\n"), "{page}");
    assert!(page.contains("plexus_requests_total 10\n"), "{page}");
}

#[test]
fn rows_from_many_threads_arrive_exactly_once() {
    let (_folder, store) = with([]);
    let ids: Vec<Uuid> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let rows: Vec<UsageRow> = (0..500).map(|i| row(NOON + i)).collect();
                    let ids: Vec<Uuid> = rows.iter().map(|row| row.request_id).collect();
                    for row in rows {
                        store.writer().usage(Box::new(row));
                    }
                    ids
                })
            })
            .collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect()
    });
    store.flush(LIMIT).unwrap();
    let mut sent: Vec<Value> = ids.iter().map(|id| id.to_string().into()).collect();
    let mut stored = column(&store, "requestId", UsageQuery::default());
    sent.sort_by_key(Value::to_string);
    stored.sort_by_key(Value::to_string);
    assert_eq!(sent, stored);
}

#[test]
fn a_row_is_on_disk_without_anyone_asking_for_it() {
    let (_folder, store) = with([]);
    store.writer().usage(Box::new(row(NOON)));
    wait_until("the row is there", || all(&store).total == 1);
}

#[test]
fn todays_figures_go_on_after_a_restart() {
    let folder = TempDir::new().unwrap();
    let now = now_ms();
    let store = open(&folder);
    let tokens = Tokens {
        input: Some(7),
        ..Tokens::default()
    };
    put(
        &store,
        [
            UsageRow { tokens, ..row(now) },
            UsageRow {
                status: Status::Stall,
                ..row(now)
            },
            row(now - 48 * HOUR),
        ],
    );
    drop(store);
    let metrics = Arc::new(Metrics::new());
    let options = Options {
        metrics: Arc::clone(&metrics),
        ..Options::default()
    };
    let store = Store::open(&folder.path().join("plexus.db"), options).unwrap();
    put(&store, [row(now)]);
    let page = metrics.render(now);
    for line in [
        "plexus_requests_today 3",
        "plexus_errors_today 1",
        "plexus_tokens_today{type=\"input\"} 7",
        "plexus_duration_ms_today 300",
        "plexus_requests_total 1",
    ] {
        assert!(page.lines().any(|l| l == line), "{line} is not in\n{page}");
    }
}

/// The child of the test below: writes a row each millisecond and says so.
#[test]
fn child_that_writes_until_it_is_killed() {
    let Some(path) = std::env::var_os("PLEXUS_TEST_STORE_CHILD") else {
        return;
    };
    let store = Store::open(Path::new(&path), Options::default()).unwrap();
    let mut output = std::io::stderr().lock();
    loop {
        let row = row(now_ms());
        let id = row.request_id;
        store.writer().usage(Box::new(row));
        writeln!(output, "row {id} {}", now_ms()).unwrap();
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_killed_process_loses_at_most_its_last_moment() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("plexus.db");
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "child_that_writes_until_it_is_killed",
            "--exact",
            "--nocapture",
        ])
        .env("PLEXUS_TEST_STORE_CHILD", &path)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut sent: Vec<(String, i64)> = Vec::new();
    for line in BufReader::new(child.stderr.take().unwrap()).lines() {
        let line = line.unwrap();
        let mut words = line.split(' ');
        if words.next() == Some("row") {
            let id = words.next().unwrap().to_owned();
            sent.push((id, words.next().unwrap().parse().unwrap()));
        }
        if sent.len() == 400 {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    assert!(sent.len() >= 400, "{}", sent.len());
    assert_eq!(integrity(&path), "ok");

    let last = sent.last().unwrap().1;
    // How late threads ran on this machine just now, which a promise of 50 ms
    // cannot undo.
    let gaps = sent.windows(2).map(|two| two[1].1 - two[0].1);
    let late = gaps.max().unwrap().min(100);
    let old: Vec<_> = sent
        .iter()
        .filter(|(_, at)| last - at > 50 + 3 * late)
        .collect();
    assert!(!old.is_empty());
    let store = Store::open(&path, Options::default()).unwrap();
    let stored = column(&store, "requestId", UsageQuery::default());
    assert!(
        stored
            .iter()
            .all(|id| sent.iter().any(|(sent, _)| *id == **sent))
    );
    for (id, at) in old {
        let found = stored.iter().any(|stored| *stored == **id);
        assert!(found, "{id}, {} ms old", last - at);
    }
    assert_eq!(all(&store).total as usize, stored.len());
}

fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(now.as_millis()).unwrap()
}

fn wait_until(what: &str, done: impl Fn() -> bool) {
    let until = Instant::now() + LIMIT;
    while !done() {
        assert!(Instant::now() < until, "waited too long until {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
