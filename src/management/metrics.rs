//! Counters and gauges for Prometheus: `GET /v0/management/metrics`.

use super::{Answer, Call, Reply};
use crate::inference;

/// The text exposition format, version 0.0.4.
pub fn get(call: Call) -> Answer {
    Box::pin(async move {
        let page = call.app().metrics.render(inference::wall_ms());
        Ok(Reply::typed(
            "text/plain; version=0.0.4; charset=utf-8",
            page,
        ))
    })
}
