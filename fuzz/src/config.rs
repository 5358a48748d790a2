//! `config`: any text as a file, and edits of it.
//!
//! - Checking never panics; a refused text has faults, each with a message.
//! - An edit that is made says what was asked for when it is read again, asks
//!   for nothing the second time, and can be taken back.
//! - What is rendered is read as what it was.

use std::path::Path;

use plexus::config::{self, describe, document, edit};
use serde_json::json;

/// What is said above, of this input.
pub fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let environment = |name: &str| (name == "SET").then(|| "value".to_owned());
    match config::check(text, &environment, Path::new("/etc")) {
        Ok(_) => {
            let said = document(text).expect("what is valid can be read");
            let again = edit::render(&said);
            assert_eq!(document(&again).expect("what was rendered is read"), said);
        }
        Err(faults) => {
            assert!(!faults.is_empty());
            assert!(!describe(&faults, "plexus.yaml").is_empty());
        }
    }
    edits(text);
}

fn edits(text: &str) {
    let key = json!({ "secret": "s: #1", "comment": "- \"x\"\n", "quotas": ["a", "yes"] });
    let path = ["keys", "an app"];
    let Ok(edited) = edit::set(text, &path, &key) else {
        return;
    };
    if let Ok(said) = document(&edited) {
        assert_eq!(said["keys"]["an app"], key);
    }
    assert_eq!(edit::set(&edited, &path, &key).as_deref(), Ok(&*edited));
    let Ok(removed) = edit::remove(&edited, &path) else {
        return;
    };
    if let Ok(said) = document(&removed) {
        assert!(said["keys"].get("an app").is_none());
    }
}
