//! The rows that the gateway writes: one usage row per request, and an error
//! row for each failure worth keeping. Plain values; the writer turns them
//! into SQL.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use uuid::Uuid;

use crate::metrics::Observation;
use crate::money::{Cost, Nanos};
use crate::protocol::Protocol;
pub use crate::protocol::usage::Tokens;

/// How a request ended. The words are those of `responseStatus`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// Answered to the end.
    Success,
    /// Failed, before or after the first byte.
    Error,
    /// Answered with nothing in it.
    Empty,
    /// Ran into a time limit.
    Timeout,
    /// Cut off because the provider went quiet.
    Stall,
    /// The client left.
    Cancelled,
    /// Refused by a quota.
    QuotaExceeded,
}

impl Status {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Success,
        Self::Error,
        Self::Empty,
        Self::Timeout,
        Self::Stall,
        Self::Cancelled,
        Self::QuotaExceeded,
    ];

    /// Whether the request counts as an error in totals. A client that left
    /// and an empty answer do not.
    #[must_use]
    pub const fn is_failure(self) -> bool {
        matches!(
            self,
            Self::Error | Self::Timeout | Self::Stall | Self::QuotaExceeded
        )
    }

    /// The word in rows and API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Error => "error",
            Self::Empty => "empty",
            Self::Timeout => "timeout",
            Self::Stall => "stall",
            Self::Cancelled => "cancelled",
            Self::QuotaExceeded => "quota_exceeded",
        }
    }
}

/// One request, as it is written down. Times are wall-clock milliseconds
/// since the epoch (`start_ms`) or milliseconds of duration.
#[derive(Clone, Debug)]
#[allow(
    missing_docs,
    reason = "the fields are the API's usage record; see the management API"
)]
pub struct UsageRow {
    pub request_id: Uuid,
    pub client_request_id: Option<Box<str>>,
    pub start_ms: i64,
    pub source_ip: Option<IpAddr>,
    pub key: Option<Arc<str>>,
    pub attribution: Option<Box<str>>,
    pub incoming: Protocol,
    /// Whether Responses was spoken as Codex's lighter form of it.
    pub lite: bool,
    pub outgoing: Option<Protocol>,
    /// The provider that answered, or the last one tried.
    pub provider: Option<Arc<str>>,
    /// The model at that provider.
    pub selected_model: Option<Arc<str>>,
    /// The model as the client named it.
    pub incoming_alias: Option<Arc<str>>,
    /// The alias's own id, or the whole `direct/...` name.
    pub canonical: Option<Arc<str>>,
    pub attempts: u16,
    /// JSON array of attempts, when there was more than one or one failed.
    pub retry_history: Option<Box<str>>,
    /// JSON array of `provider/model`, when there was more than one.
    pub all_attempted: Option<Box<str>>,
    pub tokens: Tokens,
    pub tokens_estimated: bool,
    /// What it cost; `None` when no target answered.
    pub bill: Option<Bill>,
    pub duration_ms: f64,
    pub ttft_ms: Option<f64>,
    pub streamed: bool,
    pub passthrough: bool,
    pub status: Status,
    pub has_error: bool,
    pub tool_calls: Option<u32>,
    pub finish_reason: Option<Cow<'static, str>>,
    /// JSON array of notes.
    pub notes: Option<Box<str>>,
    /// HTTP status sent to the client, 0 when none was.
    pub http_status: u16,
}

#[cfg(test)]
impl UsageRow {
    /// A request that nothing is known of but that it was answered.
    pub(crate) fn blank(start_ms: i64) -> Self {
        Self {
            request_id: Uuid::new_v4(),
            client_request_id: None,
            start_ms,
            source_ip: None,
            key: None,
            attribution: None,
            incoming: Protocol::Chat,
            lite: false,
            outgoing: None,
            provider: None,
            selected_model: None,
            incoming_alias: None,
            canonical: None,
            attempts: 1,
            retry_history: None,
            all_attempted: None,
            tokens: Tokens::default(),
            tokens_estimated: false,
            bill: None,
            duration_ms: 1.0,
            ttft_ms: None,
            streamed: false,
            passthrough: false,
            status: Status::Success,
            has_error: false,
            tool_calls: None,
            finish_reason: None,
            notes: None,
            http_status: 200,
        }
    }
}

/// What a request cost, and who says so.
#[derive(Clone, Debug, PartialEq)]
pub struct Bill {
    /// Where the price came from: `simple`, `defined`, `per_request`,
    /// `openrouter`, `provider_reported`, or `default` where there is none.
    pub source: &'static str,
    /// `None` when there is no price, or nothing is known to be priced.
    pub cost: Option<Cost>,
    /// How it was found.
    pub grounds: Grounds,
}

/// How a cost was found; becomes `costMetadata`.
#[derive(Clone, Debug, PartialEq)]
pub enum Grounds {
    /// There was no price.
    None,
    /// The price, as a JSON object made once for all requests.
    Price(Arc<str>),
    /// The provider said it; the price that was known for it.
    Reported {
        /// Where that came from.
        source: &'static str,
        /// What it would have come to.
        total: Option<Nanos>,
    },
}

impl Bill {
    /// The JSON object of `costMetadata`. Prices are in US dollars.
    #[must_use]
    pub fn metadata(&self) -> Cow<'_, str> {
        match &self.grounds {
            Grounds::None => r#"{"input":0,"output":0,"cached":0,"cache_write":0}"#.into(),
            Grounds::Price(text) => Cow::Borrowed(text),
            Grounds::Reported { source, total } => serde_json::json!({
                "source": self.source,
                "request_cost_usd": self.cost.map(|cost| cost.total().dollars()),
                "previous_cost_source": source,
                "previous_cost_total": total.map(Nanos::shown),
            })
            .to_string()
            .into(),
        }
    }
}

impl<'a> From<&'a UsageRow> for Observation<'a> {
    fn from(row: &'a UsageRow) -> Self {
        let Tokens {
            input,
            cache_read,
            cache_write_short,
            cache_write_long,
            cache_write_other,
            tool_prompt,
            output,
            reasoning,
            ..
        } = row.tokens;
        let sum = |parts: &[Option<u64>]| {
            let parts = parts.iter().copied().flatten();
            parts.fold(0_u64, u64::saturating_add)
        };
        Self {
            start_ms: row.start_ms,
            key: row.key.as_deref(),
            attribution: row.attribution.as_deref(),
            provider: row.provider.as_deref(),
            alias: row.canonical.as_deref(),
            failed: row.status.is_failure(),
            streamed: row.streamed,
            duration_ms: row.duration_ms,
            ttft_ms: row.ttft_ms,
            input: sum(&[input, tool_prompt]),
            output: sum(&[output]),
            reasoning: sum(&[reasoning]),
            cached: sum(&[cache_read]),
            cache_write: sum(&[cache_write_short, cache_write_long, cache_write_other]),
            cost: row
                .bill
                .as_ref()
                .and_then(|bill| bill.cost)
                .map_or(Nanos::ZERO, |cost| cost.total()),
        }
    }
}

/// A target's rest: kept while it lasts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CooldownRow {
    /// The provider.
    pub provider: Arc<str>,
    /// The model; empty is all of the provider's.
    pub model: Arc<str>,
    /// When it is over, milliseconds since the epoch; `None` forgets it.
    pub until_ms: Option<i64>,
    /// Failures in a row that led to it.
    pub failures: u32,
    /// Whether the target only said that it had too much to do.
    pub limited: bool,
    /// The last failure.
    pub message: Box<str>,
}

/// How much an owner used of a quota. Numbers are thousandths of a request or
/// token, or nano-dollars.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaRow {
    /// The quota's name.
    pub quota: Arc<str>,
    /// The key's name, or `*` for all keys together.
    pub owner: Arc<str>,
    /// What is counted, and in which kind of window.
    pub kind: Cow<'static, str>,
    /// Settled.
    pub used: u64,
    /// Reserved for requests under way.
    pub reserved: u64,
    /// What has leaked of the next thousandth, in a measure of the bucket's own.
    pub carry: u64,
    /// Until when it has leaked, or when its window began.
    pub at_ms: i64,
    /// When nothing is left of it.
    pub until_ms: i64,
}

/// Something whose newest state the writer fetches when it is about to write:
/// however often it changes, it is written once in a batch.
pub trait QuotaState: fmt::Debug + Send + Sync {
    /// The state. A change from here on has to be announced anew.
    fn row(&self) -> QuotaRow;
}

/// What a finished request says about the target that it went to last.
#[derive(Clone, Debug, PartialEq)]
pub struct Measurement {
    /// The provider.
    pub provider: Arc<str>,
    /// The model.
    pub model: Arc<str>,
    /// When the request began, milliseconds since the epoch.
    pub start_ms: i64,
    /// Whether it was answered to the end.
    pub answered: bool,
    /// Whether as a stream.
    pub streamed: bool,
    /// Tokens written.
    pub tokens: u64,
    /// From the request's arrival to the answer's end.
    pub duration_ms: f64,
    /// From the request's arrival to the first content.
    pub ttft_ms: Option<f64>,
}

/// What an answered request of a key for an alias took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Habit {
    /// The key's name.
    pub key: Arc<str>,
    /// The alias's own name.
    pub alias: Arc<str>,
    /// Tokens written, reasoning included.
    pub output: u64,
    /// All its tokens.
    pub tokens: u64,
    /// Nano-dollars, if they are known.
    pub nanos: Option<u64>,
}

/// A failure, with what is needed to find its cause. Secrets never get here.
#[derive(Clone, Debug)]
#[allow(
    missing_docs,
    reason = "the fields are the API's error record; see the management API"
)]
pub struct ErrorRow {
    pub request_id: Uuid,
    pub date_ms: i64,
    pub key: Option<Arc<str>>,
    pub message: String,
    /// JSON object: apiType, provider, targetModel, targetApiType, url,
    /// headers, statusCode, providerResponse, providerResponseHeaders,
    /// allAttemptedProviders, attemptCount, retryHistory, code.
    pub details: String,
}
