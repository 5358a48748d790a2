//! The configuration from outside: files as people write them, what is said
//! about bad ones, and how a running gateway takes up, edits and refuses them.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that fails should stop where it does"
)]

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use plexus::config::live::{OpenError, Reload, WriteError};
use plexus::config::{
    Config, Fault, Live, ModelKind, PriceSource, QuotaWindow, Selector, Target, check, describe,
    document, edit,
};
use plexus::protocol::Protocol;
use proptest::prelude::*;
use serde_json::{Value, json};

const OLDER: &str = include_str!("fixtures/config/older.yaml");
const BROKEN: &str = include_str!("fixtures/config/broken.yaml");
const EXAMPLE: &str = include_str!("../plexus.example.yaml");

/// A small valid file; `more` is added to it.
fn small(more: &str) -> String {
    format!(
        "adminKey: admin\nproviders:\n  p: {{api_base_url: 'https://p.example/v1', api_key: k}}\n{more}"
    )
}

fn load(text: &str) -> Config {
    Config::from_yaml(text).unwrap_or_else(|faults| panic!("{}", describe(&faults, "test.yaml")))
}

fn load_with(text: &str, variables: &[(&str, &str)]) -> Result<Config, Vec<Fault>> {
    let find = |name: &str| {
        let found = variables.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| (*value).to_owned())
    };
    check(text, &find, Path::new("/etc/plexus"))
}

/// The faults of a text, as they are shown.
fn faults(text: &str) -> Vec<String> {
    let faults = Config::from_yaml(text).expect_err("the text should be refused");
    faults.iter().map(ToString::to_string).collect()
}

fn endpoints(config: &Config, provider: &str) -> Vec<String> {
    let endpoints = config.provider(provider).unwrap().endpoints.iter();
    let written = endpoints.filter(|endpoint| !endpoint.derived);
    written
        .map(|e| format!("{} {}{}", e.protocol, e.authority, e.path))
        .collect()
}

// ---- meaning

#[test]
fn the_example_loads_as_it_is() {
    let config = load(EXAMPLE);
    assert_eq!(config.providers.len(), 3);
    assert_eq!(config.document["store"]["retention"]["debugMb"], 512);
    // It asks for nearly everything that there is.
    assert!(
        config
            .warnings
            .iter()
            .any(|line| line.starts_with("quota checkers: not in effect yet"))
    );
}

#[test]
fn defaults_in_the_example_are_the_defaults() {
    let (example, bare) = (load(EXAMPLE), load("adminKey: x"));
    assert_eq!(example.server, bare.server);
    assert_eq!(example.store, bare.store);
    assert_eq!(example.logging, bare.logging);
    assert_eq!(example.cooldown, bare.cooldown);
    assert_eq!(example.attempt_timeout, bare.attempt_timeout);
    assert_eq!(
        example.failover.retryable_errors,
        bare.failover.retryable_errors
    );
    assert_eq!(bare.failover.retryable_status_codes, None);
}

#[test]
fn a_file_of_the_earlier_age_loads() {
    let config = load(OLDER);
    assert_eq!(
        endpoints(&config, "openai_direct"),
        ["chat api.openai.com/v1"]
    );
    assert_eq!(
        endpoints(&config, "claude"),
        [
            "messages gateway.example.com/v1",
            "chat gateway.example.com/v1"
        ]
    );
    let fast = config.alias("gpt-4o-mini").unwrap();
    assert_eq!(&*fast.id, "fast-model");
    assert_eq!(fast.groups[0].selector, Selector::InOrder);
    assert_eq!(&*fast.groups[0].name, "default");
    assert_eq!(fast.groups[0].targets.len(), 2);
    assert_eq!(
        config.alias("embedder").unwrap().kind,
        ModelKind::Embeddings
    );
    assert_eq!(config.keys["my-app"].quotas, ["basic_daily"]);
    assert_eq!(config.user_quotas["basic_daily"].window, QuotaWindow::Daily);
    assert_eq!(
        config.server.trusted_proxies,
        ["10.0.0.0/8".parse().unwrap()]
    );
    assert_eq!(config.logging.level, "debug");
    let model = &config.provider("openai_direct").unwrap().models["gpt-4o"];
    let PriceSource::Defined(ranges) = &model.pricing.as_ref().unwrap().source else {
        panic!("{model:?}");
    };
    assert_eq!(ranges[1].upper, f64::INFINITY);
    // A model asks for a protocol that the file gives no URL for.
    assert_eq!(model.access_via, [Protocol::Responses]);
    let derived = config
        .provider("openai_direct")
        .unwrap()
        .endpoint(Protocol::Responses)
        .unwrap();
    assert!(derived.derived && derived.path == "/v1");
}

#[test]
fn the_document_has_one_spelling_and_keeps_references() {
    let text = small("keys: {k: {secret: $env:S, quota: q}}\nuser_quotas: {qq: {type: daily, limitType: cost, limit: 0.5}}\n")
        .replace("quota: q}", "quota: qq}");
    let config = load_with(&text, &[("S", "value")]).unwrap();
    assert_eq!(config.keys["k"].secret.expose(), "value");
    let wanted = json!({"secret": "$env:S", "quotas": ["qq"]});
    assert_eq!(config.document["keys"]["k"], wanted);
    assert_eq!(document(&text).unwrap(), *config.document);
    let order: Vec<&String> = config.document.as_object().unwrap().keys().collect();
    assert_eq!(order, ["adminKey", "providers", "keys", "user_quotas"]);
}

#[test]
fn what_get_returns_can_be_put_back() {
    for text in [OLDER, EXAMPLE] {
        let config = load(text);
        let again = load(&edit::render(&config.document));
        assert_eq!(again.document, config.document);
        assert_eq!(again.warnings.len(), config.warnings.len());
    }
}

#[test]
fn json_is_read_like_yaml() {
    let config = load(OLDER);
    let again = load(&config.document.to_string());
    assert_eq!(again.document, config.document);
}

#[test]
fn keys_are_found_by_the_digest_of_their_secret() {
    let config = load(&small("keys: {a: {secret: abc}}\n"));
    // SHA-256 of "abc", FIPS 180-2 appendix B.1.
    let digest = [
        0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea, 0x41, 0x41, 0x40, 0xde, 0x5d, 0xae, 0x22,
        0x23, 0xb0, 0x03, 0x61, 0xa3, 0x96, 0x17, 0x7a, 0x9c, 0xb4, 0x10, 0xff, 0x61, 0xf2, 0x00,
        0x15, 0xad,
    ];
    assert_eq!(&*config.key_by_digest(&digest).unwrap().name, "a");
    assert!(config.key_by_digest(&[0; 32]).is_none());
}

#[test]
fn key_restrictions_are_read() {
    let text = small(
        "keys:\n  k:\n    secret: s\n    allowedModels: [' a ', b]\n    allowedIps: [10.0.0.5-6, '::1']\n    expiresAt: 2030-01-01T00:00:00Z\n    disabledAt: 5\n",
    );
    let config = load(&text);
    let key = &config.keys["k"];
    assert_eq!(key.allowed_models, ["a", "b"]);
    assert_eq!(
        (key.expires_at, key.disabled_at),
        (Some(1_893_456_000_000), Some(5))
    );
    let allows = |address: &str| {
        let address: IpAddr = address.parse().unwrap();
        key.allowed_ips
            .iter()
            .any(|network| network.contains(&address))
    };
    assert!(allows("10.0.0.5") && allows("10.0.0.6") && allows("::1"));
    assert!(!allows("10.0.0.4") && !allows("10.0.0.7"));
}

#[test]
fn base_urls_say_what_is_spoken() {
    let providers = [
        (
            "https://api.anthropic.com/v1",
            "messages api.anthropic.com/v1",
        ),
        (
            "https://generativelanguage.googleapis.com",
            "gemini generativelanguage.googleapis.com/v1beta",
        ),
        (
            "https://generativelanguage.googleapis.com/v1/",
            "gemini generativelanguage.googleapis.com/v1",
        ),
        ("http://localhost:11434/v1", "chat localhost:11434/v1"),
    ];
    for (url, wanted) in providers {
        let config = load(&format!(
            "adminKey: x\nproviders: {{p: {{api_base_url: '{url}', api_key: k}}}}"
        ));
        assert_eq!(endpoints(&config, "p"), [wanted]);
    }
    let text = "adminKey: x\nproviders:\n  p:\n    api_key: k\n    api_base_url:\n      responses: https://r.example/v1\n      chat: https://c.example/v1\n      messages: ''\n";
    let config = load(text);
    assert_eq!(
        endpoints(&config, "p"),
        ["responses r.example/v1", "chat c.example/v1"]
    );
    let images = config
        .provider("p")
        .unwrap()
        .endpoint(Protocol::Images)
        .unwrap();
    assert_eq!(images.authority.as_str(), "c.example");
}

#[test]
fn references_are_expanded_in_secrets_and_headers_only() {
    let text = "adminKey: $env:A\nproviders:\n  p:\n    display_name: $env:A\n    api_base_url: https://p.example/v1\n    api_key: $env:B\n    headers: {X-Auth: 'Bearer $env:B'}\n";
    let config = load_with(text, &[("A", "admin"), ("B", "key")]).unwrap();
    let provider = config.provider("p").unwrap();
    assert_eq!(config.admin_key.expose(), "admin");
    assert_eq!(provider.api_key.as_ref().unwrap().expose(), "key");
    assert_eq!(provider.display_name.as_deref(), Some("$env:A"));
    let (name, value) = &provider.headers[0];
    assert_eq!(
        (name.as_str(), value.to_str().unwrap()),
        ("x-auth", "Bearer key")
    );
    assert!(value.is_sensitive());
    assert!(!format!("{config:?}").contains("Bearer key"));
}

#[test]
fn the_environment_wins_over_the_file() {
    let text = "adminKey: file\nserver: {host: 127.0.0.1, port: 1}\nstore: {url: a.db}\nlogging: {level: error}\n";
    let config = load_with(text, &[]).unwrap();
    assert_eq!(config.store.path, Path::new("/etc/plexus/a.db"));
    let variables = [
        ("ADMIN_KEY", "environment"),
        ("HOST", "::1"),
        ("PORT", "8080"),
        ("DATABASE_URL", "sqlite:///var/b.db"),
        ("LOG_LEVEL", "TRACE"),
        ("DEBUG", "true"),
    ];
    let config = load_with(text, &variables).unwrap();
    assert_eq!(config.admin_key.expose(), "environment");
    assert_eq!(config.server.host, "::1".parse::<IpAddr>().unwrap());
    assert_eq!(config.server.port, 8080);
    assert_eq!(config.store.path, Path::new("/var/b.db"));
    assert_eq!(config.logging.level, "trace");
    let debugging = load_with(text, &[("DEBUG", "true")]).unwrap();
    assert_eq!(debugging.logging.level, "debug");
}

#[test]
fn the_store_is_beside_the_file_or_in_the_data_folder() {
    let path = |variables: &[(&str, &str)]| load_with("adminKey: x", variables).unwrap().store.path;
    assert_eq!(path(&[]), Path::new("/etc/plexus/data/plexus.db"));
    assert_eq!(
        path(&[("DATA_DIR", "/app/data")]),
        Path::new("/app/data/plexus.db")
    );
    assert_eq!(
        path(&[("DATABASE_URL", "sqlite://x/y.db")]),
        Path::new("/etc/plexus/x/y.db")
    );
    assert_eq!(
        path(&[("DATABASE_URL", "y.db"), ("DATA_DIR", "/a")]),
        Path::new("/etc/plexus/y.db")
    );
}

#[test]
fn a_bad_environment_is_named() {
    let variables = [
        ("PORT", "http"),
        ("HOST", "example.com"),
        ("LOG_LEVEL", "loud"),
        ("DATABASE_URL", "postgres://user:hunter2@db/plexus"),
    ];
    let faults = load_with("adminKey: x", &variables).unwrap_err();
    let shown = describe(&faults, "f.yaml");
    for (name, _) in variables {
        assert!(
            shown.contains(&format!("f.yaml {name}: the environment variable {name}")),
            "{shown}"
        );
    }
    assert!(shown.contains("PostgreSQL is not supported") && !shown.contains("hunter2"));
}

#[test]
fn an_empty_file_is_valid_with_an_admin_key_from_the_environment() {
    let config = load_with("", &[("ADMIN_KEY", "x")]).unwrap();
    assert_eq!(*config.document, json!({}));
    assert_eq!(config.attempt_timeout, Duration::from_secs(300));
    for (text, variables) in [
        ("", &[][..]),
        ("adminKey: ''", &[]),
        ("", &[("ADMIN_KEY", " ")]),
    ] {
        let faults = load_with(text, variables).unwrap_err();
        assert_eq!(faults.len(), 1);
        assert!(faults[0].message.contains("there is no admin key"));
    }
}

#[test]
fn targets_may_name_aliases_by_any_name_and_models_nobody_listed() {
    let text = small(
        "models:\n  a: {additional_aliases: [aa], targets: [{provider: p, model: any}]}\n  b: {targets: [{alias: aa, enabled: false}]}\n",
    );
    let config = load(&text);
    let target = &config.alias("b").unwrap().groups[0].targets[0];
    assert!(matches!(target, Target::Alias { alias, enabled: false } if &**alias == "a"));
    assert!(Arc::ptr_eq(
        config.alias("a").unwrap(),
        config.alias("aa").unwrap()
    ));
}

// ---- warnings

#[test]
fn a_plain_file_warns_of_nothing() {
    let text = small(
        "models: {a: {selector: in_order, targets: [{provider: p, model: m}], sticky_session: false}}\nkeys: {k: {secret: s, allowedModels: [a]}}\nfailover: {enabled: true}\nstall: {ttfbSeconds: null}\nperformanceExplorationRate: 0\nstrict: false\n",
    );
    assert_eq!(load(&text).warnings, Vec::<String>::new());
}

#[test]
fn each_thing_that_does_not_work_yet_is_one_line() {
    let text = small(
        "models: {a: {selector: quota, targets: []}, b: {selector: quota, targets: []}, c: {selector: quota, targets: []}, d: {selector: quota, targets: []}, e: {model_architecture: {layers: 1}}}\n",
    );
    assert_eq!(
        load(&text).warnings,
        [
            "energy estimates: not in effect yet (models.e.model_architecture)",
            "the selector quota (targets are tried in order): not in effect yet \
             (models.a.target_groups.0.selector, models.b.target_groups.0.selector, \
             models.c.target_groups.0.selector and 1 more)",
        ]
    );
}

// ---- faults

#[test]
fn everything_wrong_is_said_at_once_with_its_place() {
    let shown = faults(BROKEN);
    let wanted = include_str!("fixtures/config/broken.txt");
    assert_eq!(shown.join("\n"), wanted.trim_end());
}

#[test]
fn a_fault_shows_no_secret() {
    let text = "adminKey: [hunter2]\nproviders: {p: {api_base_url: 'https://x/v1', api_key: {a: hunter2}, headers: hunter2}}\nkeys: {a: {secret: 'hunter2:x'}, b: {secret: \"hunter2\\n\"}}\n";
    let shown = faults(text).join("\n");
    assert!(shown.contains("keys.a.secret") && shown.contains("providers.p.headers"));
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[test]
fn a_fault_has_its_path_in_segments() {
    let faults = Config::from_yaml(&small(
        "models: {'a.b': {targets: [{provider: q, model: m}]}}",
    ));
    let fault = &faults.unwrap_err()[0];
    let wanted = [
        "models",
        "a.b",
        "target_groups",
        "0",
        "targets",
        "0",
        "provider",
    ];
    assert_eq!(fault.path, wanted);
    assert_eq!((fault.line, fault.column), (4, 39));
}

#[test]
fn circles_of_aliases_are_found_whoever_begins() {
    let circle = |more: &str| faults(&small(&format!("models: {{{more}}}"))).join("\n");
    assert!(
        circle("a: {targets: [{alias: a}]}").contains("models.a: aliases lead in a circle: a -> a")
    );
    let tail = "x: {targets: [{alias: a}]}, a: {additional_aliases: [aa], targets: [{alias: b}]}, \
                b: {targets: [{alias: aa}]}";
    let shown = circle(tail);
    assert!(
        shown.contains("models.a: aliases lead in a circle: a -> b -> a"),
        "{shown}"
    );
    assert_eq!(shown.lines().count(), 1);
    // Two ways to the same place are no circle.
    load(&small(
        "models: {a: {targets: [{alias: b}, {alias: c}]}, b: {targets: [{alias: c}]}, c: {}}",
    ));
}

#[test]
fn what_is_not_yaml_is_one_fault() {
    assert_eq!(faults("a: [1, 2\nb: 3\n").len(), 1);
    assert!(faults("- a\n- b\n")[0].contains("the file is not a map"));
}

// ---- a running gateway

struct Folder(tempfile::TempDir);

impl Folder {
    fn with(text: &str) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        fs::write(folder.file(), text).unwrap();
        folder
    }

    fn file(&self) -> std::path::PathBuf {
        self.0.path().join("plexus.yaml")
    }

    fn text(&self) -> String {
        fs::read_to_string(self.file()).unwrap()
    }

    fn open(&self) -> Live {
        Live::open(Some(self.file()), Box::new(|_| None)).unwrap()
    }
}

#[test]
fn a_missing_file_is_created_with_a_header_and_can_be_filled() {
    let folder = Folder(tempfile::tempdir().unwrap());
    let environment = |name: &str| (name == "ADMIN_KEY").then(|| "x".to_owned());
    let live = Live::open(Some(folder.file()), Box::new(environment)).unwrap();
    assert!(folder.text().starts_with("# Plexus reads this file"));
    let key = json!({"secret": "s"});
    let config = live
        .edit(|text| edit::set(text, &["keys", "k"], &key))
        .unwrap();
    assert_eq!(config.revision, 2);
    assert!(folder.text().starts_with("# Plexus reads") && folder.text().contains("secret: s"));
}

#[test]
fn a_file_that_cannot_be_started_with_says_why() {
    let folder = Folder::with("server: {prot: 1}");
    let error = Live::open(Some(folder.file()), Box::new(|_| None)).unwrap_err();
    let shown = error.to_string();
    assert!(shown.contains("plexus.yaml:1:10 server.prot: unknown field; did you mean \"port\"?"));
    assert!(shown.contains("there is no admin key"));
    let nowhere = folder.0.path().join("no/such/folder.yaml");
    let error = Live::open(Some(nowhere), Box::new(|_| None)).unwrap_err();
    assert!(matches!(error, OpenError::Io(..)));
}

#[test]
fn an_edit_is_in_force_and_on_disk_when_it_returns() {
    let folder = Folder::with(&small("# the clients\nkeys: {}  # none\n"));
    let live = folder.open();
    let before = live.load();
    let key = json!({"secret": "s"});
    let config = live
        .edit(|text| edit::set(text, &["keys", "k"], &key))
        .unwrap();
    assert!(before.keys.is_empty() && config.keys.contains_key("k"));
    assert!(Arc::ptr_eq(&config, &live.load()));
    assert!(folder.text().contains("# the clients\n") && folder.text().contains("  # none"));
    assert_eq!(live.text(), folder.text());
    assert!(live.poll().is_none(), "our own write is not a change");
    assert_eq!(live.status().revision, 2);
}

#[test]
fn an_edit_that_changes_nothing_writes_nothing() {
    let folder = Folder::with(&small(""));
    let live = folder.open();
    let before = fs::metadata(folder.file()).unwrap().modified().unwrap();
    let config = live.edit(|text| Ok(text.to_owned())).unwrap();
    assert_eq!(config.revision, 1);
    assert_eq!(
        fs::metadata(folder.file()).unwrap().modified().unwrap(),
        before
    );
}

#[test]
fn an_edit_that_would_not_be_valid_changes_nothing() {
    let folder = Folder::with(&small(""));
    let live = folder.open();
    let before = folder.text();
    let key = json!({"secret": "a:b"});
    let error = live
        .edit(|text| edit::set(text, &["keys", "k"], &key))
        .unwrap_err();
    assert!(
        matches!(&error, WriteError::Refused(faults) if faults.len() == 1),
        "{error}"
    );
    let error = live
        .edit(|text| edit::set(text, &["adminKey", "x"], &key))
        .unwrap_err();
    assert!(matches!(error, WriteError::Edit(_)));
    assert_eq!(folder.text(), before);
    assert_eq!(live.load().revision, 1);
    assert_eq!(live.status().refused, vec![]);
}

#[test]
fn a_change_by_hand_is_kept_by_the_next_edit() {
    let folder = Folder::with(&small(""));
    let live = folder.open();
    fs::write(folder.file(), small("keys: {hand: {secret: h}}\n")).unwrap();
    let key = json!({"secret": "s"});
    let config = live
        .edit(|text| edit::set(text, &["keys", "api"], &key))
        .unwrap();
    assert!(config.keys.contains_key("hand") && config.keys.contains_key("api"));
}

#[test]
fn an_edit_on_a_file_broken_by_hand_says_so_unless_it_mends_it() {
    let folder = Folder::with(&small("models: {}\n"));
    let live = folder.open();
    fs::write(
        folder.file(),
        small("models: {a: {targets: [{alias: nobody}]}}\n"),
    )
    .unwrap();
    let key = json!({"secret": "s"});
    let error = live
        .edit(|text| edit::set(text, &["keys", "k"], &key))
        .unwrap_err();
    assert!(
        matches!(&error, WriteError::FileRefused(faults) if faults.len() == 1),
        "{error}"
    );
    live.edit(|text| edit::remove(text, &["models", "a"]))
        .unwrap();
    assert!(live.load().aliases.is_empty());
}

#[test]
fn a_changed_file_is_taken_up_and_a_bad_one_is_refused() {
    let folder = Folder::with(&small(""));
    let live = folder.open();
    assert!(matches!(live.reload(), Ok(Reload::Unchanged)));
    fs::write(folder.file(), small("strict: true\n")).unwrap();
    assert!(matches!(live.poll(), Some(Ok(Reload::Changed(config))) if config.revision == 2));
    fs::write(folder.file(), small("strict: maybe\n")).unwrap();
    let faults = live.poll().unwrap().unwrap_err();
    assert_eq!(faults[0].path, ["strict"]);
    assert_eq!(live.last_refused(), faults);
    assert!(live.load().strict, "the old configuration goes on");
    assert!(live.poll().is_none(), "the same faults are not said again");
    fs::write(folder.file(), small("strict: true\n")).unwrap();
    assert!(matches!(live.poll(), Some(Ok(Reload::Unchanged))));
    assert_eq!(live.last_refused(), vec![]);
}

#[test]
fn two_changes_within_one_tick_of_the_clock_are_both_seen() {
    let folder = Folder::with(&small("strict: true \n"));
    let live = folder.open();
    let modified = fs::metadata(folder.file()).unwrap().modified().unwrap();
    // The same length, and the same time on a coarse clock.
    fs::write(folder.file(), small("strict: false\n")).unwrap();
    let file = fs::File::options().write(true).open(folder.file()).unwrap();
    file.set_modified(modified).unwrap();
    assert!(matches!(live.poll(), Some(Ok(Reload::Changed(config))) if !config.strict));
}

#[test]
fn a_file_found_empty_is_believed_the_second_time() {
    let folder = Folder::with(&small(""));
    let live = folder.open();
    fs::write(folder.file(), "").unwrap();
    assert!(live.poll().is_none(), "an editor may be about to fill it");
    fs::write(folder.file(), small("strict: true\n")).unwrap();
    assert!(matches!(live.poll(), Some(Ok(Reload::Changed(_)))));
    fs::write(folder.file(), "").unwrap();
    assert!(live.poll().is_none());
    let faults = live.poll().unwrap().unwrap_err();
    assert!(faults[0].message.contains("there is no admin key"));
    assert!(live.load().strict);
}

#[test]
fn a_removed_file_is_a_fault_once_and_the_next_edit_makes_it_again() {
    let folder = Folder::with(&small(""));
    let live = folder.open();
    fs::remove_file(folder.file()).unwrap();
    assert!(live.poll().unwrap().is_err());
    assert!(live.poll().is_none());
    assert_eq!(live.load().providers.len(), 1);
    live.edit(|text| edit::set(text, &["strict"], &json!(true)))
        .unwrap();
    assert_eq!(load(&folder.text()).providers.len(), 1);
    assert_eq!(live.last_refused(), vec![]);
}

#[test]
fn the_whole_text_can_be_replaced() {
    let folder = Folder::with(&small(""));
    let live = folder.open();
    let error = live.replace("adminKey: x\nkeys: 5\n").unwrap_err();
    assert!(matches!(error, WriteError::Refused(_)));
    let config = live.replace("adminKey: y # new\n").unwrap();
    assert_eq!(config.admin_key.expose(), "y");
    assert_eq!(folder.text(), "adminKey: y # new\n");
    fs::write(folder.file(), "adminKey: [").unwrap();
    live.replace("adminKey: y # new\n").unwrap();
    assert_eq!(folder.text(), "adminKey: y # new\n");
}

#[test]
fn edits_from_many_threads_are_all_there() {
    let folder = Folder::with(&small(""));
    let live = folder.open();
    std::thread::scope(|scope| {
        for i in 0..8 {
            let live = &live;
            scope.spawn(move || {
                let (name, key) = (format!("k{i}"), json!({"secret": format!("s{i}")}));
                live.edit(|text| edit::set(text, &["keys", &name], &key))
                    .unwrap();
            });
        }
    });
    assert_eq!(live.load().keys.len(), 8);
    assert_eq!(live.load().revision, 9);
    assert_eq!(load(&folder.text()).keys.len(), 8);
    assert_eq!(
        fs::read_dir(folder.0.path()).unwrap().count(),
        1,
        "no draft is left"
    );
}

/// Names as they are, and as they have to be quoted.
const NAMES: [&str; 7] = ["k0", "k1", "k2", "a/b", "3.5", "true", "it: #is"];

/// A file with entries in lines of their own, in one line, and with comments.
fn entries() -> impl Strategy<Value = String> {
    let entry = (proptest::sample::select(&NAMES[..]), 0..4_u8, any::<bool>());
    proptest::collection::vec(entry, 0..5).prop_map(|entries| {
        let mut text = "# begins\nadminKey: x\nkeys:\n".to_owned();
        let mut seen = Vec::new();
        for (i, (name, comments, flow)) in entries.into_iter().enumerate() {
            if seen.contains(&name) {
                continue;
            }
            seen.push(name);
            if comments & 1 > 0 {
                text.push_str("  # before\n\n");
            }
            if flow {
                text.push_str(&format!("  {name:?}: {{ secret: s{i} }}   # behind\n"));
            } else {
                text.push_str(&format!("  {name:?}:\n    secret: s{i}\n"));
            }
            if comments & 2 > 0 && !flow {
                text.push_str("    # inside\n    comment: |\n      many\n      # lines\n");
            }
        }
        text.push_str("strict: false\n# ends\n");
        text
    })
}

proptest! {
    /// A change is worked out from the lines of one entry; what is in force must
    /// be what the whole file says.
    #[test]
    fn what_is_in_force_after_a_change_is_what_the_file_says(
        text in entries(),
        changes in proptest::collection::vec((proptest::sample::select(&NAMES[..]), 0..4_u8), 1..6),
    ) {
        let folder = Folder::with(&text);
        let live = folder.open();
        for (i, (name, kind)) in changes.into_iter().enumerate() {
            let key = json!({"secret": format!("new{i}"), "comment": "one\ntwo: #"});
            let changed = live.change::<WriteError>(|draft| {
                match kind {
                    0 => draft.remove(&["keys", name])?,
                    1 => draft.set(&["keys", name, "secret"], &json!(format!("only{i}")))?,
                    2 => draft.set(&["strict"], &json!(i % 2 == 0))?,
                    _ => draft.set(&["keys", name], &key)?,
                }
                Ok(())
            });
            prop_assert!(changed.is_ok(), "{changed:?}");
            let whole = load(&folder.text());
            let live = live.load();
            prop_assert_eq!(&whole.document, &live.document);
            prop_assert_eq!(whole.keys.keys().collect::<Vec<_>>(), live.keys.keys().collect::<Vec<_>>());
            prop_assert!(folder.text().starts_with("# begins\n") && folder.text().contains("# ends"));
        }
    }
}

// ---- any text

/// Lines of valid files, shuffled and cut.
fn scrambled() -> impl Strategy<Value = String> {
    let lines: Vec<&str> = OLDER
        .lines()
        .chain(BROKEN.lines())
        .chain(EXAMPLE.lines())
        .collect();
    let some = proptest::collection::vec(proptest::sample::select(lines), 0..30);
    (some, 0usize..2000).prop_map(|(lines, cut)| {
        let text = lines.join("\n");
        text.chars().take(cut).collect()
    })
}

/// A valid file with one value anywhere replaced.
fn with_one_value_replaced() -> impl Strategy<Value = String> {
    let values = prop_oneof![
        Just(json!(null)),
        Just(json!(-1)),
        Just(json!(1e300)),
        Just(json!("")),
        Just(json!("$env:X")),
        Just(json!([])),
        Just(json!([[{}]])),
        Just(json!({"a": {"b": 1}})),
        Just(json!(true)),
        "[ -~é]{0,12}".prop_map(Value::from),
    ];
    (any::<prop::sample::Index>(), values).prop_map(|(index, value)| {
        let mut document = (*load(EXAMPLE).document).clone();
        let count = places(&mut document, None, &value);
        places(&mut document, Some(index.index(count)), &value);
        edit::render(&document)
    })
}

/// Counts the values of a document, or replaces the n-th.
fn places(document: &mut Value, replaced: Option<usize>, by: &Value) -> usize {
    fn walk(node: &mut Value, seen: &mut usize, replaced: Option<usize>, by: &Value) {
        if replaced == Some(*seen) {
            *node = by.clone();
        }
        *seen += 1;
        match node {
            Value::Array(items) => items
                .iter_mut()
                .for_each(|item| walk(item, seen, replaced, by)),
            Value::Object(map) => map
                .values_mut()
                .for_each(|item| walk(item, seen, replaced, by)),
            _ => {}
        }
    }
    let mut seen = 0;
    walk(document, &mut seen, replaced, by);
    seen
}

proptest! {
    #[test]
    fn no_text_makes_the_check_panic(text in prop_oneof!["\\PC{0,200}", scrambled()]) {
        if let Err(faults) = Config::from_yaml(&text) {
            prop_assert!(!faults.is_empty());
        }
    }

    #[test]
    fn one_wrong_value_is_either_fine_or_named_with_its_place(text in with_one_value_replaced()) {
        if let Err(faults) = Config::from_yaml(&text) {
            prop_assert!(!faults.is_empty());
            let lines = u32::try_from(text.lines().count()).unwrap();
            for fault in faults {
                prop_assert!(fault.line >= 1 && fault.line <= lines, "{fault}");
            }
        }
    }
}
