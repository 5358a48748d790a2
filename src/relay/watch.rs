//! Watching that a stream goes on flowing. Heartbeats and comments are no
//! output: they don't hide that nothing comes.

use std::time::Instant;

use crate::config::Flow;
use crate::protocol::opening::is_heartbeat;
use crate::protocol::sse::Decoder;
use crate::routing::stall::Throughput;

/// The watch over one stream.
#[derive(Debug)]
pub(super) struct Watch {
    throughput: Throughput,
    /// Reads events; none for streams that are no Server-Sent Events.
    decoder: Option<Decoder>,
    /// When to look next.
    pub(super) next: Instant,
    flow: Flow,
}

impl Watch {
    pub(super) fn new(flow: Flow, events: bool, now: Instant) -> Self {
        let throughput = Throughput::new(flow, now);
        Self {
            next: throughput.next_look(now),
            throughput,
            decoder: events.then(Decoder::new),
            flow,
        }
    }

    /// A chunk came.
    pub(super) fn see(&mut self, chunk: &[u8], now: Instant) {
        let Some(decoder) = &mut self.decoder else {
            return self.throughput.add(now, chunk.len());
        };
        let mut output = 0;
        let read = decoder.push(chunk, |event| {
            if !is_heartbeat(event.name, event.data) {
                output += event.data.len();
            }
        });
        if read.is_err() {
            output = chunk.len();
        }
        self.throughput.add(now, output);
    }

    /// How the stream does, in the live feed's words.
    pub(super) fn state(&self, now: Instant) -> &'static str {
        if self.throughput.in_grace(now) {
            "GRACE_PERIOD"
        } else {
            "MONITORING"
        }
    }

    /// Looks: what is wrong, if something is.
    pub(super) fn look(&mut self, now: Instant) -> Option<String> {
        self.next = self.throughput.next_look(now);
        self.throughput.is_stalled(now).then(|| {
            format!(
                "the provider's stream stalled: less than {} bytes per second over {} s",
                self.flow.bytes_per_second,
                self.flow.window.as_secs_f32()
            )
        })
    }
}
