//! Changes of the configuration file, and what became of them as answers: the
//! one way from a handler to the file. It must not know what is changed.

use std::sync::Arc;

use http::StatusCode;
use serde_json::{Value, json};

use super::{Call, Refusal, blocking};
use crate::config::edit::EditError;
use crate::config::live::WriteError;
use crate::config::{Config, Fault};

/// Why a change was not tried.
#[derive(Debug)]
pub(super) enum Stop {
    /// The text can't be edited there.
    Edit(EditError),
    /// The request is wrong, seen beside what the file says.
    Refused(Refusal),
}

impl From<EditError> for Stop {
    fn from(error: EditError) -> Self {
        Self::Edit(error)
    }
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// Changes the file's text; the result is in force when this returns. Paths of
/// faults below `prefix` are told from there.
pub(super) async fn edit(
    call: &Call,
    prefix: Vec<String>,
    change: impl FnOnce(&str) -> Result<String, Stop> + Send + 'static,
) -> Result<Arc<Config>, Refusal> {
    let app = Arc::clone(call.app());
    blocking(move || {
        let mut stopped = None;
        let outcome = app.live.edit(|text| match change(text) {
            Ok(changed) => Ok(changed),
            Err(Stop::Edit(error)) => Err(error),
            Err(Stop::Refused(refusal)) => {
                stopped = Some(refusal);
                Ok(text.to_owned())
            }
        });
        match stopped {
            Some(refusal) => Err(refusal),
            None => outcome.map_err(|error| refusal(&error, &prefix)),
        }
    })
    .await
}

/// Faults as the API lists them; `prefix` is left out of paths that have it.
pub(super) fn details(faults: &[Fault], prefix: &[String]) -> Vec<Value> {
    let detail = |fault: &Fault| {
        json!({
            "path": fault.path.strip_prefix(prefix).unwrap_or(&fault.path),
            "message": fault.message,
            "line": fault.line,
            "column": fault.column,
            "code": "custom",
        })
    };
    faults.iter().map(detail).collect()
}

/// The file on disk was changed by hand and can't be worked on.
pub(super) fn broken_file(faults: &[Fault]) -> Refusal {
    Refusal::conflict(
        "the configuration file was changed by hand and is not valid; mend it, or replace it with PUT /v0/management/config",
    )
    .with_details(details(faults, &[]))
}

/// A change that was not made, as an answer.
pub(super) fn refusal(error: &WriteError, prefix: &[String]) -> Refusal {
    match error {
        WriteError::Refused(faults) => {
            Refusal::bad("Validation failed").with_details(details(faults, prefix))
        }
        WriteError::FileRefused(faults) | WriteError::Edit(EditError::Unreadable(faults)) => {
            broken_file(faults)
        }
        WriteError::Edit(EditError::TooDeep) => Refusal::bad(error.to_string()),
        WriteError::Edit(EditError::NotAMap(_) | EditError::Layout(_)) => {
            Refusal::conflict(error.to_string())
        }
        WriteError::Io(..) => {
            tracing::error!(%error, "the configuration file could not be written");
            Refusal::failed(format!("the configuration file: {error}"))
        }
    }
}

/// As [`refusal`], for what was to be removed: faults are about who still
/// needs it.
pub(super) fn still_needed(refusal: Refusal, message: &str) -> Refusal {
    if refusal.status == StatusCode::BAD_REQUEST {
        refusal.retold(StatusCode::CONFLICT, message)
    } else {
        refusal
    }
}
