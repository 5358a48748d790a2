//! A database as it looks after a month of many requests.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use plexus::money::{Cost, Nanos};
use plexus::protocol::Protocol;
use plexus::store::row::{Bill, Grounds, Status, Tokens, UsageRow};
use plexus::store::{Store, StoreError};
use uuid::Uuid;

/// Days that the rows are spread over.
const DAYS: i64 = 30;
const DAY_MS: i64 = 86_400_000;

/// Writes the rows as the gateway does.
pub(crate) fn write(store: &Store, rows: u32) -> Result<(), StoreError> {
    let names = Names::new();
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let now = i64::try_from(now.as_millis()).unwrap_or(0);
    let mut dice = Dice(0x9E37_79B9_7F4A_7C15);
    for number in 0..rows {
        let left = i64::from(rows - 1 - number);
        let start_ms = now - left * DAYS * DAY_MS / i64::from(rows);
        store.writer().usage(names.row(start_ms, &mut dice));
        if number % 1000 == 0 {
            while store.writer().waiting() > 32_768 {
                thread::sleep(Duration::from_millis(1));
            }
        }
    }
    store.flush(Duration::from_secs(600))
}

/// A sequence that is the same in every run (xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }

    /// Mostly the first ones.
    fn pick<'a>(&mut self, names: &'a [Arc<str>]) -> &'a Arc<str> {
        let end = self.below(names.len() as u64) + 1;
        let index = usize::try_from(self.below(end)).unwrap_or(0);
        &names[index]
    }
}

struct Names {
    keys: Vec<Arc<str>>,
    providers: Vec<Arc<str>>,
    models: Vec<Arc<str>>,
    aliases: Vec<Arc<str>>,
}

impl Names {
    fn new() -> Self {
        let series =
            |name: &str, count: u32| (0..count).map(|i| format!("{name}-{i}").into()).collect();
        Self {
            keys: series("key", 50),
            providers: series("provider", 8),
            models: series("model", 30),
            aliases: series("alias", 30),
        }
    }

    fn row(&self, start_ms: i64, dice: &mut Dice) -> Box<UsageRow> {
        let alias = dice.pick(&self.aliases);
        let status = match dice.below(1000) {
            0..30 => Status::Error,
            30..40 => Status::Cancelled,
            40..45 => Status::Timeout,
            _ => Status::Success,
        };
        let streamed = dice.below(3) > 0;
        let duration_ms = 200.0 + dice.below(8_000_000) as f64 / 1000.0;
        Box::new(UsageRow {
            request_id: Uuid::now_v7(),
            client_request_id: None,
            start_ms,
            source_ip: Some(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 7))),
            key: Some(Arc::clone(dice.pick(&self.keys))),
            attribution: (dice.below(4) == 0).then(|| format!("tool-{}", dice.below(5)).into()),
            incoming: Protocol::Chat,
            lite: false,
            outgoing: Some(Protocol::Messages),
            provider: Some(Arc::clone(dice.pick(&self.providers))),
            selected_model: Some(Arc::clone(dice.pick(&self.models))),
            incoming_alias: Some(Arc::clone(alias)),
            canonical: Some(Arc::clone(alias)),
            attempts: 1,
            retry_history: None,
            all_attempted: None,
            tokens: Tokens {
                input: Some(dice.below(20_000)),
                cache_read: Some(dice.below(50_000)),
                output: Some(dice.below(2_000)),
                reasoning: Some(dice.below(500)),
                ..Tokens::default()
            },
            tokens_estimated: false,
            bill: Some(Bill {
                source: "simple",
                cost: Some(Cost {
                    input: Nanos(dice.below(20_000_000)),
                    output: Nanos(dice.below(30_000_000)),
                    ..Cost::default()
                }),
                grounds: Grounds::None,
            }),
            duration_ms,
            ttft_ms: Some(if streamed {
                duration_ms / 5.0
            } else {
                duration_ms
            }),
            streamed,
            passthrough: true,
            status,
            has_error: status != Status::Success,
            tool_calls: None,
            finish_reason: Some("stop".into()),
            notes: None,
            http_status: 200,
        })
    }
}
