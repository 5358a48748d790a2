//! All that is kept about requests at once: `/v0/management/logs`.

use std::sync::Arc;

use serde_json::json;

use super::{Answer, Call, Reply, blocking};

/// Deletes every record of requests and of what came of them. Kept answers,
/// rests and measurements are no log, and stay.
pub fn reset(call: Call) -> Answer {
    Box::pin(async move {
        call.takes_only(&[])?;
        let app = Arc::clone(call.app());
        blocking(move || Ok(app.store.delete_logs()?)).await?;
        Ok(Reply::json(&json!({
            "success": true,
            "message": "All logs have been reset successfully",
        })))
    })
}
