//! How far an answer is, for whoever listens to the live feed. Kept only while
//! somebody does.

use std::time::{Duration, Instant};

use crate::exchange::{Progress, Said};
use crate::protocol::opening::is_heartbeat;
use crate::protocol::sse::Decoder;

/// How often it is told.
const EVERY: Duration = Duration::from_secs(1);

/// What came of one answer, since somebody listens.
#[derive(Debug)]
pub(super) struct Sight {
    /// Reads events; none for answers that are no Server-Sent Events.
    decoder: Option<Decoder>,
    /// Bytes of output, without heartbeats, comments and framing.
    output: u64,
    /// Whether that began with the answer.
    from_the_start: bool,
    told: Told,
}

/// What was told last.
#[derive(Debug)]
struct Told {
    bytes: u64,
    output: u64,
    at: Instant,
}

impl Sight {
    /// Begins where `bytes` have come that nobody looked at.
    pub(super) fn new(events: bool, bytes: u64, now: Instant) -> Self {
        Self {
            decoder: events.then(Decoder::new),
            output: 0,
            from_the_start: bytes == 0,
            told: Told {
                bytes,
                output: 0,
                at: now,
            },
        }
    }

    /// A chunk came.
    pub(super) fn see(&mut self, chunk: &[u8]) {
        let Some(decoder) = &mut self.decoder else {
            self.output += chunk.len() as u64;
            return;
        };
        let output = &mut self.output;
        let read = decoder.push(chunk, |event| {
            if !is_heartbeat(event.name, event.data) {
                *output += event.data.len() as u64;
            }
        });
        if read.is_err() {
            *output += chunk.len() as u64;
        }
    }

    /// When it is to be told next.
    pub(super) fn due(&self) -> Instant {
        self.told.at + EVERY
    }

    /// What is to be told now that `bytes` have come, and `state` is how the
    /// stream does.
    pub(super) fn tell(&mut self, bytes: u64, state: &'static str, now: Instant) -> Progress {
        let seconds = now.saturating_duration_since(self.told.at).as_secs_f64();
        let speed = |lately: u64| (seconds > 0.0).then(|| (lately as f64 / seconds).round());
        let said = Progress {
            state,
            received: Said {
                bytes: Some(bytes),
                per_second: speed(bytes - self.told.bytes),
            },
            output: Said {
                bytes: self.from_the_start.then_some(self.output),
                per_second: speed(self.output - self.told.output),
            },
        };
        self.told = Told {
            bytes,
            output: self.output,
            at: now,
        };
        said
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNK: &[u8] =
        b": keep-alive\n\ndata: {\"a\":1}\n\nevent: ping\ndata: {\"type\": \"ping\"}\n\n";

    #[test]
    fn output_is_what_events_say_and_no_sign_of_life() {
        let began = Instant::now();
        let mut sight = Sight::new(true, 0, began);
        for byte in CHUNK {
            sight.see(&[*byte]);
        }
        let told = sight.tell(64, "MONITORING", began + EVERY);
        assert_eq!(
            (told.received.bytes, told.output.bytes),
            (Some(64), Some(7))
        );
        assert_eq!(told.received.per_second, Some(64.0));
        assert_eq!(told.output.per_second, Some(7.0));
        let silent = sight.tell(64, "MONITORING", began + EVERY * 3);
        assert_eq!(silent.output.per_second, Some(0.0));
        assert_eq!(sight.due(), began + EVERY * 4);
    }

    #[test]
    fn how_much_came_before_anybody_looked_is_not_known() {
        let began = Instant::now();
        let mut sight = Sight::new(false, 100, began);
        sight.see(b"1234");
        let told = sight.tell(104, "MONITORING", began + EVERY * 2);
        assert_eq!((told.received.bytes, told.output.bytes), (Some(104), None));
        assert_eq!(told.output.per_second, Some(2.0));
        assert_eq!(told.received.per_second, Some(2.0));
    }
}
