//! What is going on, as it happens: `GET /v0/management/events`.
//!
//! A listener is a task on the core that serves it: it looks for news a few
//! times a second, never asked by those who make them, and ends with its
//! client or when the server drains.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};

use super::{Answer, Call, Refusal, Reply};
use crate::app::Core;
use crate::feed::{Event, Listener, News};
use crate::inference;

/// How often a listener looks for news.
const LOOK: Duration = Duration::from_millis(200);
/// How often it gets a sign of life.
const PING: Duration = Duration::from_secs(10);
/// Pieces that wait for a client that reads slowly.
const WAITING: usize = 2;

/// The live feed. A limited caller hears of its own key's requests only.
pub fn stream(call: Call) -> Answer {
    Box::pin(async move {
        let Some(listener) = call.app().store.writer().feed().listen() else {
            return Err(Refusal::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "too many are listening already",
            ));
        };
        let (sender, feed) = mpsc::channel(WAITING);
        let session = Session {
            core: Arc::clone(&call.core),
            listener,
            only_key: call.only_key(),
            sender,
        };
        tokio::spawn(session.run());
        Ok(Reply::events(feed))
    })
}

struct Session {
    core: Arc<Core>,
    listener: Listener,
    only_key: Option<Arc<str>>,
    sender: mpsc::Sender<Bytes>,
}

impl Session {
    async fn run(self) {
        let core = Arc::clone(&self.core);
        tokio::select! {
            () = core.drained() => {}
            () = self.tell() => {}
        }
    }

    /// Until the client is gone.
    async fn tell(mut self) {
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut pinged = Instant::now();
        let mut text = ping(inference::wall_ms());
        loop {
            if !text.is_empty() {
                let piece = Bytes::from(std::mem::take(&mut text));
                if self.sender.send(piece).await.is_err() {
                    return;
                }
            }
            tokio::select! {
                _ = look.tick() => {}
                () = self.sender.closed() => return,
            }
            let now = inference::wall_ms();
            news(
                &mut text,
                &self.listener.news(),
                self.only_key.as_deref(),
                now,
            );
            if pinged.elapsed() >= PING {
                pinged = Instant::now();
                text.push_str(&ping(now));
            }
        }
    }
}

/// Events as they are sent, and counts where some were left out.
fn news(text: &mut String, news: &News, only_key: Option<&str>, now: i64) {
    let visible = |event: &Event| only_key.is_none() || event.key.as_deref() == only_key;
    for event in news.events.iter().filter(|event| visible(event)) {
        put(text, event.kind.name(), event.at_ms, &event.data);
    }
    if news.counts.left_out > 0 {
        // Counts are of everybody's requests.
        let data = match only_key {
            Some(_) => json!({ "coarse": true }),
            None => json!({
                "coarse": true,
                "started": news.counts.started,
                "completed": news.counts.completed,
                "leftOut": news.counts.left_out,
            }),
        };
        put(text, "summary", now, &data.to_string());
    }
}

fn ping(now: i64) -> String {
    let mut text = String::new();
    put(&mut text, "ping", now, "pong");
    text
}

fn put(text: &mut String, name: &str, at_ms: i64, data: &str) {
    // Writing to a string cannot fail.
    let _written = write!(text, "event: {name}\nid: {at_ms}\ndata: {data}\n\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::{Counts, Kind};

    fn of_key(key: &str) -> Arc<Event> {
        Arc::new(Event {
            kind: Kind::Started,
            at_ms: 7,
            key: Some(key.into()),
            data: format!("{{\"apiKey\":\"{key}\"}}").into(),
        })
    }

    fn heard(only_key: Option<&str>, left_out: u64) -> String {
        let counts = Counts {
            started: 9,
            completed: 8,
            left_out,
        };
        let events = vec![of_key("a"), of_key("b")];
        let mut text = String::new();
        news(&mut text, &News { events, counts }, only_key, 8);
        text
    }

    #[test]
    fn a_limited_listener_hears_of_its_own_key_and_no_counts_of_others() {
        assert_eq!(
            heard(Some("b"), 1),
            "event: started\nid: 7\ndata: {\"apiKey\":\"b\"}\n\n\
             event: summary\nid: 8\ndata: {\"coarse\":true}\n\n"
        );
    }

    #[test]
    fn counts_are_told_only_when_something_was_left_out() {
        assert!(!heard(None, 0).contains("summary"));
        assert!(heard(None, 3).contains("\"started\":9,\"completed\":8,\"leftOut\":3"));
    }
}
