//! Secrets at rest: what the API writes is sealed, what is sealed needs its key,
//! and keys are changed in file and database together.

#![expect(
    clippy::unwrap_used,
    reason = "in helpers of tests a failure is the test's failure"
)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use plexus::config::{self, SealedFile, describe};
use plexus::store::{Offline, Options, Snapshot, Store};
use plexus::vault::Vault;
use serde_json::{Value, json};

use support::{FILE, Gateway};

const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
const OTHER: &str = "ff0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
const NOTHING: Value = Value::Null;

fn sealing() -> Gateway {
    Gateway::with_environment(FILE, &[("ENCRYPTION_KEY", KEY)])
}

fn new_provider(gateway: &Gateway) -> Value {
    json!({
        "api_base_url": format!("http://{}/v1", gateway.provider.address),
        "api_key": "sk-upstream-secret",
        "headers": {"X-Team": "header-secret", "Authorization": "Bearer $env:NOT_SEALED"},
        "models": ["simulated"],
    })
}

#[test]
fn what_the_api_writes_is_sealed_and_what_it_shows_is_clear() {
    let variables = [("ENCRYPTION_KEY", KEY), ("NOT_SEALED", "x")];
    let gateway = Gateway::with_environment(FILE, &variables);
    let provider = new_provider(&gateway);
    let root = "/v0/management";
    let put = |path: &str, body: &Value| {
        gateway
            .admin("PUT", &format!("{root}{path}"), body)
            .expect(200);
    };
    put("/providers/new", &provider);
    put(
        "/keys/team",
        &json!({"secret": "sk-team-secret", "comment": "kept"}),
    );
    put(
        "/aliases/mine",
        &json!({"target_groups": [{"name": "default", "selector": "in_order",
        "targets": [{"provider": "new", "model": "simulated"}]}]}),
    );
    let text = gateway.text();
    for secret in ["sk-upstream-secret", "header-secret", "sk-team-secret"] {
        assert!(!text.contains(secret), "{secret} stands in\n{text}");
    }
    assert!(text.contains("Bearer $env:NOT_SEALED") && text.contains("comment: kept"));
    // What was typed by hand stays as it was.
    assert!(text.contains("sk-plexus-tests"));
    let shown = gateway
        .admin("GET", "/v0/management/providers/new", &NOTHING)
        .json();
    assert_eq!(shown["api_key"], "sk-upstream-secret");
    assert_eq!(shown["headers"], provider["headers"]);
    // Both secrets do what they are for.
    let body = json!({"model": "mine", "messages": [{"role": "user", "content": "hi"}]});
    let headers = [
        ("authorization", "Bearer sk-team-secret"),
        ("content-type", "application/json"),
    ];
    gateway
        .request("POST", "/v1/chat/completions", &headers, body.to_string())
        .expect(200);
}

#[test]
fn putting_back_what_was_shown_changes_no_byte() {
    let gateway = sealing();
    let path = "/v0/management/keys/team";
    gateway
        .admin("PUT", path, &json!({"secret": "sk-team-secret"}))
        .expect(200);
    let before = gateway.text();
    let shown = gateway.admin("GET", path, &NOTHING).json();
    gateway.admin("PUT", path, &shown).expect(200);
    assert_eq!(gateway.text(), before);
    let config = gateway.request(
        "GET",
        "/v0/management/config",
        &[("x-admin-key", support::ADMIN)],
        "",
    );
    assert_eq!(config.text(), before, "the file is shown as it is");
}

#[test]
fn without_its_key_a_file_is_refused_by_line_and_path() {
    let gateway = sealing();
    gateway
        .admin(
            "PUT",
            "/v0/management/keys/team",
            &json!({"secret": "sk-team-secret"}),
        )
        .expect(200);
    let text = gateway.text();
    let line = text
        .lines()
        .position(|line| line.contains("enc:v1:"))
        .unwrap()
        + 1;
    for (key, wanted) in [
        (
            None,
            "there is no key; set the environment variable ENCRYPTION_KEY",
        ),
        (Some(OTHER), "encrypted with another key"),
    ] {
        let environment = |name: &str| match name {
            "ADMIN_KEY" => Some("a".to_owned()),
            "ENCRYPTION_KEY" => key.map(str::to_owned),
            _ => None,
        };
        let faults = config::check(&text, &environment, Path::new(".")).unwrap_err();
        let told = describe(&faults, "plexus.yaml");
        assert!(told.starts_with(&format!("plexus.yaml:{line}:")), "{told}");
        assert!(
            told.contains(" keys.team.secret: ") && told.contains(wanted),
            "{told}"
        );
        assert!(!told.contains("sk-team-secret"));
    }
}

#[test]
fn a_sealed_value_cannot_be_moved_to_another_entry() {
    let gateway = sealing();
    gateway
        .admin(
            "PUT",
            "/v0/management/keys/team",
            &json!({"secret": "sk-team-secret"}),
        )
        .expect(200);
    let text = gateway.text().replace("  team:", "  thief:");
    let refused = gateway.request(
        "PUT",
        "/v0/management/config",
        &[
            ("x-admin-key", support::ADMIN),
            ("content-type", "text/yaml"),
        ],
        text,
    );
    let told = refused.expect(400).json();
    let message = told["details"][0]["message"].as_str().unwrap();
    assert!(message.contains("can't be copied"), "{told}");
}

#[test]
fn the_databases_secrets_are_sealed_and_need_the_key() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("plexus.db");
    let with = |key: &str| {
        let options = Options {
            vault: std::sync::Arc::new(Vault::new(key)),
            ..Options::default()
        };
        Store::open(&path, options)
    };
    // First without a key, as it may have been.
    with("")
        .unwrap()
        .put_secret("oauth", "a/b", "token-1")
        .unwrap();
    let store = with(KEY).unwrap();
    store.put_secret("oauth", "a/c", "token-2").unwrap();
    assert_eq!(
        store.secret("oauth", "a/b").unwrap().as_deref(),
        Some("token-1")
    );
    drop(store);
    for file in fs::read_dir(folder.path()).unwrap() {
        let file = file.unwrap();
        let bytes = fs::read(file.path()).unwrap();
        let found = bytes.windows(6).any(|window| window == b"token-");
        // The page that had it in clear may be free; what is new never was.
        assert!(!found || !String::from_utf8_lossy(&bytes).contains("token-2"));
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
    for (key, wanted) in [("", "there is no key"), (OTHER, "another key")] {
        let error = with(key).err().unwrap().to_string();
        assert!(error.contains(wanted), "{error}");
    }
}

/// A stopped installation: a file with sealed secrets, a database with some.
struct Installation {
    folder: tempfile::TempDir,
}

impl Installation {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let installation = Self { folder };
        let text =
            "store: { url: sqlite://plexus.db }\nkeys:\n  team: { secret: sk-team }   # ours\n";
        fs::write(installation.file(), text).unwrap();
        let sealed = SealedFile::encrypt(&installation.file(), &Vault::new(KEY)).unwrap();
        assert_eq!(sealed.count, 1);
        sealed.commit().unwrap();
        let options = Options {
            vault: std::sync::Arc::new(Vault::new(KEY)),
            ..Options::default()
        };
        let store = Store::open(&installation.database(), options).unwrap();
        store.put_secret("oauth", "p/a", "token").unwrap();
        installation
    }

    fn file(&self) -> std::path::PathBuf {
        self.folder.path().join("plexus.yaml")
    }

    fn database(&self) -> std::path::PathBuf {
        config::store_path(&self.folder.path().join("plexus.yaml"), &|_| None).unwrap()
    }

    /// Whether file and database can both be read with that key.
    fn opens_with(&self, key: &str) -> bool {
        let vault = Vault::new(key);
        let file = config::opened(&self.file(), &vault);
        let snapshot = Snapshot::take(&self.database(), &vault).unwrap();
        let database = snapshot.secrets("oauth");
        file.is_ok_and(|file| file["keys"]["team"]["secret"] == "sk-team")
            && database.is_ok_and(|found| found[0].value == "token")
    }

    fn run(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_plexus"))
            .args(arguments)
            .current_dir(self.folder.path())
            .env_clear()
            .envs(variables.iter().copied())
            .output()
            .unwrap()
    }
}

#[test]
fn rekey_changes_file_and_database_and_says_so() {
    let installation = Installation::new();
    assert!(installation.opens_with(KEY) && !installation.opens_with(OTHER));
    let keys = [("ENCRYPTION_KEY", KEY), ("ENCRYPTION_KEY_NEW", OTHER)];
    let done = installation.run(&["rekey"], &keys);
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
    assert!(installation.opens_with(OTHER) && !installation.opens_with(KEY));
    let text = fs::read_to_string(installation.file()).unwrap();
    assert!(text.contains("# ours"), "{text}");
    // With the old key it can't be done again.
    let again = installation.run(&["rekey"], &keys);
    let told = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(
        !again.status.success() && told.contains("another key"),
        "{told}"
    );
    let without = installation.run(&["rekey"], &keys[..1]);
    assert!(String::from_utf8_lossy(&without.stderr).contains("ENCRYPTION_KEY_NEW"));
}

#[test]
fn rekey_stopped_after_any_step_leaves_one_key_that_opens_everything() {
    let (old, new) = (Vault::new(KEY), Vault::new(OTHER));
    let installation = Installation::new();
    let file = SealedFile::rekey(&installation.file(), &old, &new).unwrap();
    let prepared = Offline::open(&installation.database())
        .unwrap()
        .prepare_rekey(&old, &new);
    assert_eq!(prepared.unwrap(), 1);
    // Killed here, it has not been done.
    assert!(installation.opens_with(KEY) && !installation.opens_with(OTHER));
    file.commit().unwrap();
    // Killed here, it has.
    assert!(installation.opens_with(OTHER) && !installation.opens_with(KEY));
    // The next start finishes it.
    let options = Options {
        vault: std::sync::Arc::new(Vault::new(OTHER)),
        ..Options::default()
    };
    drop(Store::open(&installation.database(), options).unwrap());
    assert!(installation.opens_with(OTHER));
    let snapshot = Snapshot::take(&installation.database(), &old).unwrap();
    assert!(snapshot.secrets("oauth").is_err());
}

#[test]
fn rekey_refuses_while_a_gateway_has_the_database() {
    let installation = Installation::new();
    let options = Options {
        vault: std::sync::Arc::new(Vault::new(KEY)),
        ..Options::default()
    };
    let _serving = Store::open(&installation.database(), options).unwrap();
    let keys = [("ENCRYPTION_KEY", KEY), ("ENCRYPTION_KEY_NEW", OTHER)];
    let refused = installation.run(&["rekey"], &keys);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && told.contains("locked"),
        "{told}"
    );
    assert!(installation.opens_with(KEY));
}

#[test]
fn encrypt_seals_a_file_typed_by_hand_and_its_key_serves_it() {
    let installation = Installation::new();
    let by_hand =
        "adminKey: by-hand   # mine\nkeys: { a: { secret: sk-a }, b: { secret: $env:B } }\n";
    fs::write(installation.file(), by_hand).unwrap();
    let refused = installation.run(&["encrypt", "plexus.yaml"], &[]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("ENCRYPTION_KEY"));
    assert_eq!(fs::read_to_string(installation.file()).unwrap(), by_hand);
    let key = [("ENCRYPTION_KEY", "a passphrase"), ("B", "sk-b")];
    let done = installation.run(&["encrypt", "plexus.yaml"], &key);
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
    let text = fs::read_to_string(installation.file()).unwrap();
    assert!(!text.contains("by-hand") && !text.contains("sk-a") && text.contains("# mine"));
    let checked = installation.run(&["check", "plexus.yaml"], &key);
    assert!(
        checked.status.success(),
        "{}",
        String::from_utf8_lossy(&checked.stderr)
    );
}
