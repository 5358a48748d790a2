//! What is remembered to save work and may be forgotten:
//! `/v0/management/cache`.

use serde_json::json;

use super::{Answer, Call, Reply};

/// Forgets what images show, so that each is described anew.
pub fn clear_descriptions(call: Call) -> Answer {
    Box::pin(async move {
        call.app().descriptions.clear();
        let message = "Vision descriptor cache cleared.";
        Ok(Reply::json(&json!({ "success": true, "message": message })))
    })
}
