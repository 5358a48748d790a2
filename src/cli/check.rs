//! `plexus check FILE`.

use std::path::Path;

use super::{Failed, environment, say};
use crate::config::{self, describe};

/// Checks a file as `serve` would, and says what is wrong with it, or what of
/// it does not work yet.
pub(super) fn check(file: &Path) -> Result<(), Failed> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| Failed(format!("{}: {error}", file.display())))?;
    let folder = file
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let name = file.display().to_string();
    match config::check(
        &text,
        &environment,
        folder.unwrap_or_else(|| Path::new(".")),
    ) {
        Ok(config) => {
            for warning in &config.warnings {
                say(&format!("{name}: note: {warning}\n"));
            }
            say(&format!(
                "{name}: ok ({} providers, {} models, {} keys)\n",
                config.providers.len(),
                config.aliases.len(),
                config.keys.len()
            ));
            Ok(())
        }
        Err(faults) => Err(Failed(format!(
            "{} in the file\n{}",
            count(faults.len()),
            describe(&faults, &name)
        ))),
    }
}

fn count(faults: usize) -> String {
    if faults == 1 {
        "1 fault".into()
    } else {
        format!("{faults} faults")
    }
}
