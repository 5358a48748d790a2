//! Changes of the configuration file, and what became of them as answers: the
//! one way from a handler to the file. It must not know what is changed.

use std::sync::Arc;

use http::StatusCode;
use serde_json::{Map, Value, json};

use super::{Call, Refusal, blocking};
use crate::config::edit::EditError;
use crate::config::live::WriteError;
use crate::config::{Config, Draft, Fault};
use crate::inference;

/// Why a change was not made.
#[derive(Debug)]
pub(super) enum Stop {
    /// The file does not take it.
    Write(WriteError),
    /// The request is wrong, seen beside what the file says.
    Refused(Refusal),
}

impl From<WriteError> for Stop {
    fn from(error: WriteError) -> Self {
        Self::Write(error)
    }
}

impl From<EditError> for Stop {
    fn from(error: EditError) -> Self {
        Self::Write(error.into())
    }
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// Changes the file; the result is in force when this returns. Paths of faults
/// below `prefix` are told from there.
pub(super) async fn change(
    call: &Call,
    prefix: Vec<String>,
    change: impl FnOnce(&mut Draft) -> Result<(), Stop> + Send + 'static,
) -> Result<Arc<Config>, Refusal> {
    match tried(call, change).await? {
        Ok(config) => Ok(config),
        Err(Stop::Refused(refusal)) => Err(refusal),
        Err(Stop::Write(error)) => Err(refusal(&error, &prefix)),
    }
}

/// As [`change`], with why it was not made.
pub(super) async fn tried(
    call: &Call,
    change: impl FnOnce(&mut Draft) -> Result<(), Stop> + Send + 'static,
) -> Result<Result<Arc<Config>, Stop>, Refusal> {
    let app = Arc::clone(call.app());
    blocking(move || {
        let outcome = app.live.change(change);
        match &outcome {
            // Worked out here, so that no request has to.
            Ok(config) => {
                drop(app.switchboard.table(config));
                app.quotas.prepare(config, inference::wall_ms());
                app.catalogues.look_again();
            }
            // What stands against it is shown from now on.
            Err(Stop::Refused(refusal)) if refusal.status == StatusCode::CONFLICT => {
                drop(app.live.reload());
            }
            Err(_) => {}
        }
        Ok(outcome)
    })
    .await
}

/// Three states of one thing, when its file was changed by hand: in force, on
/// disk, and as it was asked for. What differs between the first two is by
/// hand, and stays; what it has in common with what was asked for must agree.
///
/// # Errors
/// 409 with the difference.
pub(super) fn merged(
    path: &[String],
    in_force: Option<&Map<String, Value>>,
    on_disk: Option<&Map<String, Value>>,
    asked: Option<Map<String, Value>>,
) -> Result<Option<Map<String, Value>>, Refusal> {
    if on_disk == in_force || on_disk == asked.as_ref() {
        return Ok(asked);
    }
    let (Some(before), Some(by_hand), Some(asked)) = (in_force, on_disk, &asked) else {
        let whole = |fields: Option<&Map<String, Value>>| fields.cloned().map(Value::Object);
        let (before, by_hand) = (whole(in_force), whole(on_disk));
        return Err(clash(vec![difference(
            path,
            &[],
            before.as_ref(),
            by_hand.as_ref(),
        )]));
    };
    let mut merged = by_hand.clone();
    let mut clashes = Vec::new();
    let gone = before.keys().filter(|name| !asked.contains_key(*name));
    for name in asked.keys().chain(gone) {
        let (old, theirs, wanted) = (before.get(name), by_hand.get(name), asked.get(name));
        if wanted == old || wanted == theirs {
            continue;
        }
        if theirs != old {
            clashes.push(difference(path, &[name], old, theirs));
        } else if let Some(wanted) = wanted {
            merged.insert(name.clone(), wanted.clone());
        } else {
            merged.shift_remove(name);
        }
    }
    if clashes.is_empty() {
        Ok(Some(merged))
    } else {
        Err(clash(clashes))
    }
}

/// Most differences that are told.
const MOST_DIFFERENCES: usize = 100;

/// The places at which the file is not what is in force, maps taken apart down
/// to `levels`.
pub(super) fn differences(
    path: &mut Vec<String>,
    in_force: Option<&Value>,
    on_disk: Option<&Value>,
    levels: usize,
    found: &mut Vec<Value>,
) {
    if in_force == on_disk || found.len() >= MOST_DIFFERENCES {
        return;
    }
    match (in_force, on_disk) {
        (Some(Value::Object(before)), Some(Value::Object(after))) if levels > 0 => {
            let new = after.keys().filter(|name| !before.contains_key(*name));
            for name in before.keys().chain(new) {
                path.push(name.clone());
                differences(path, before.get(name), after.get(name), levels - 1, found);
                path.pop();
            }
        }
        _ => found.push(difference(path, &[], in_force, on_disk)),
    }
}

/// One place at which the file is not what is in force.
fn difference(
    path: &[String],
    below: &[&str],
    in_force: Option<&Value>,
    on_disk: Option<&Value>,
) -> Value {
    let path: Vec<&str> = path
        .iter()
        .map(String::as_str)
        .chain(below.iter().copied())
        .collect();
    let mut told = json!({ "path": path });
    for (name, value) in [("inForce", in_force), ("inFile", on_disk)] {
        if let (Some(value), Some(told)) = (value, told.as_object_mut()) {
            told.insert(name.to_owned(), value.clone());
        }
    }
    told
}

/// 409: somebody changed the same by hand.
pub(super) fn clash(differences: Vec<Value>) -> Refusal {
    Refusal::conflict(
        "the configuration file was changed by hand at the same place; it has been read again: read what is there now, and repeat the change",
    )
    .with("difference", differences)
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
        WriteError::Edit(EditError::Sealing(_)) => Refusal::failed(error.to_string()),
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
