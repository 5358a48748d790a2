//! What failed, newest first: `/v0/management/errors`.

use std::sync::Arc;

use serde_json::json;
use uuid::Uuid;

use super::usage::{LARGEST_PAGE, page_limit};
use super::{Answer, Call, Refusal, Reply, blocking};

/// The newest errors; a limited caller sees those of its own requests.
pub fn list(call: Call) -> Answer {
    Box::pin(async move {
        let limit = page_limit(&call, LARGEST_PAGE)?;
        let offset = call.whole("offset")?.unwrap_or(0);
        let only_key = call.only_key();
        let app = Arc::clone(call.app());
        let page =
            blocking(move || Ok(app.store.errors(Some(limit), offset, only_key.as_deref())?))
                .await?;
        Ok(Reply::json(&json!({
            "data": page.data,
            "total": page.total,
            "limit": limit,
            "offset": offset,
        })))
    })
}

/// Deletes all errors.
pub fn delete_all(call: Call) -> Answer {
    Box::pin(async move {
        call.takes_only(&[])?;
        let app = Arc::clone(call.app());
        blocking(move || Ok(app.store.delete_errors_older_than(i64::MAX)?)).await?;
        Ok(Reply::json(&json!({ "success": true })))
    })
}

/// Deletes the errors of one request. For a limited caller those of others
/// are as good as unknown.
pub fn delete(call: Call) -> Answer {
    Box::pin(async move {
        call.takes_only(&[])?;
        let only_key = call.only_key();
        let limited = only_key.is_some();
        let deleted = match call.params.value("id").parse::<Uuid>() {
            // No request has such an id.
            Err(_) => 0,
            Ok(id) => {
                let app = Arc::clone(call.app());
                blocking(move || Ok(app.store.delete_error(id, only_key.as_deref())?)).await?
            }
        };
        if limited && deleted == 0 {
            return Err(Refusal::not_found("Error not found"));
        }
        Ok(Reply::json(&json!({ "success": true })))
    })
}
