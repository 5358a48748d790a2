//! Who am I: `GET /v0/management/auth/verify`.

use serde_json::{Value, json};

use super::{Answer, Call, Reply};
use crate::auth::Principal;
use crate::config::Key;

/// The caller's role, and for a limited one what its key may do.
pub fn verify(call: Call) -> Answer {
    Box::pin(async move {
        Ok(Reply::json(&match &call.principal {
            Principal::Admin => json!({ "ok": true, "role": "admin" }),
            Principal::Limited(key) => limited(key),
        }))
    })
}

pub(super) fn limited(key: &Key) -> Value {
    json!({
        "ok": true,
        "role": "limited",
        "keyName": key.name,
        "allowedProviders": key.allowed_providers,
        "allowedModels": key.allowed_models,
        "excludedProviders": key.excluded_providers,
        "excludedModels": key.excluded_models,
        "quotaNames": key.quotas,
        "quotaName": key.quotas.first(),
        "comment": key.comment,
    })
}
