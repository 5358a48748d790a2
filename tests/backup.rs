//! All there is, out and in again: through the API, and of the program whose
//! backups these are.

#![expect(
    clippy::unwrap_used,
    reason = "in helpers of tests a failure is the test's failure"
)]

mod support;

use std::collections::BTreeMap;
use std::io::{Read, Write};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use rusqlite::Connection;
use serde_json::{Value, json};
use support::dialect::Dialect;
use support::{ADMIN, FILE, Gateway, Response};

const NOTHING: Value = Value::Null;
const BACKUP: &str = "/v0/management/backup";

fn full_backup(gateway: &Gateway) -> Response {
    let path = format!("{BACKUP}?full=true");
    gateway.admin("GET", &path, &NOTHING).expect(200)
}

fn restore(gateway: &Gateway, kind: &str, body: &[u8]) -> Response {
    let headers = [("x-admin-key", ADMIN), ("content-type", kind)];
    gateway.request("POST", "/v0/management/restore", &headers, body)
}

/// An archive's files, sheets unpacked.
fn files(archive: &[u8]) -> BTreeMap<String, String> {
    let mut tar = tar::Archive::new(GzDecoder::new(archive));
    let mut files = BTreeMap::new();
    for entry in tar.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        let mut text = String::new();
        match name.ends_with(".gz") {
            true => GzDecoder::new(entry).read_to_string(&mut text).unwrap(),
            false => entry.read_to_string(&mut text).unwrap(),
        };
        files.insert(name, text);
    }
    files
}

fn packed(files: &[(&str, &str)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (name, text) in files {
        let mut bytes = text.as_bytes().to_vec();
        if name.ends_with(".gz") {
            let mut gz = GzEncoder::new(Vec::new(), Compression::fast());
            gz.write_all(&bytes).unwrap();
            bytes = gz.finish().unwrap();
        }
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, &bytes[..]).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap()
}

/// Some requests of all kinds, and what only later versions will write.
fn fill(gateway: &Gateway) {
    for dialect in Dialect::ALL {
        drop(gateway.speak(dialect, "by-any", true).finish());
        drop(gateway.speak(dialect, "by-any", false).finish());
    }
    gateway.ask(
        "/v1/chat/completions",
        &json!({"model": "nobody", "messages": []}),
    );
    let count = gateway.rows(8).len();
    let connection = Connection::open(gateway.app.store.path()).unwrap();
    connection
        .execute_batch(
            "UPDATE usage SET cost_input = 270000, cost_total = 573000123, cost_source = 'simple',
                 attribution = 'a \"quoted\", two\nlines', notes = '\\N', cache_write_long = 7,
                 client_request_id = '\\\\N', tool_prompt = 3
             WHERE id = (SELECT min(id) FROM usage);
             INSERT INTO cooldowns VALUES ('p', 'm', 32503680000000, 3, 1, 'resting, \"long\"');",
        )
        .unwrap();
    assert!(count >= 8);
}

#[test]
fn a_full_backup_restored_into_an_empty_gateway_is_an_identity() {
    let from = Gateway::start();
    fill(&from);
    let backup = full_backup(&from);
    assert_eq!(backup.header("content-type"), Some("application/gzip"));
    let disposition = backup.header("content-disposition").unwrap();
    assert!(
        disposition.starts_with("attachment; filename=\"plexus-backup-20"),
        "{disposition}"
    );
    let length: usize = backup.header("content-length").unwrap().parse().unwrap();
    assert_eq!(length, backup.body.len());

    let to = Gateway::with("providers: {}\n# nothing else\n");
    drop(to.ask(
        "/v1/chat/completions",
        &json!({"model": "gone", "messages": []}),
    ));
    let told = restore(&to, "application/gzip", &backup.body)
        .expect(200)
        .json();
    assert_eq!(told["success"], true);
    assert_eq!(told["notKept"], json!([]), "{told}");
    assert_eq!(told["restored"]["_cleared"], 1);
    assert_eq!(told["restored"]["provider_cooldowns"], 1);

    let (mut before, mut after) = (files(&backup.body), files(&full_backup(&to).body));
    for all in [&mut before, &mut after] {
        let mut manifest: Value = serde_json::from_str(&all["manifest.json"]).unwrap();
        manifest["created_at"] = Value::Null;
        assert_eq!(manifest["tables"].as_array().unwrap().len(), 13);
        all.insert("manifest.json".to_owned(), manifest.to_string());
    }
    assert!(before["request_usage.csv.gz"].starts_with("id,requestId,"));
    assert_eq!(before, after);
    // And as the API tells it.
    for path in ["/v0/management/usage?limit=100", "/v0/management/errors"] {
        let (one, other) = (
            from.admin("GET", path, &NOTHING),
            to.admin("GET", path, &NOTHING),
        );
        assert_eq!(one.expect(200).json(), other.expect(200).json());
    }
    // In force at once.
    to.speak(Dialect::Chat, "by-any", false)
        .finish()
        .expect(200);
}

#[test]
fn a_backup_of_the_configuration_restored_is_an_identity_and_keeps_the_machines_own() {
    let from = Gateway::with_environment(FILE, &[("ENCRYPTION_KEY", "one passphrase")]);
    from.app
        .store
        .put_secret("oauth", "anthropic/me", r#"{"provider_type":"anthropic","account_id":"me","access_token":"at","refresh_token":"rt","expires_at":5}"#)
        .unwrap();
    from.admin(
        "PUT",
        "/v0/management/keys/sealed",
        &json!({"secret": "sk-sealed"}),
    )
    .expect(200);
    let mut backup = from.admin("GET", BACKUP, &NOTHING).expect(200).json();
    assert_eq!(
        (&backup["plexus_backup"], &backup["version"]),
        (&json!(true), &json!(1))
    );
    assert_eq!(
        backup["data"]["keys"]["sealed"]["secret"], "sk-sealed",
        "decrypted"
    );
    assert_eq!(backup["data"]["oauth_credentials"][0]["access_token"], "at");

    let file = "adminKey: my-own   # stays\nkeys: { old: { secret: sk-old } }\n";
    let to = Gateway::with_environment(file, &[("ENCRYPTION_KEY", "another one")]);
    let told = restore(&to, "application/json", backup.to_string().as_bytes());
    let told = told.expect(200).json();
    assert_eq!(told["restored"]["api_keys"], 2, "{told}");
    assert_eq!(told["restored"]["oauth_credentials"], 1);
    let text = to.text();
    assert!(
        !text.contains("sk-sealed") && !text.contains("sk-old"),
        "{text}"
    );
    assert_eq!(to.app.live.load().document["adminKey"], "my-own");
    let mut again = to.admin("GET", BACKUP, &NOTHING).expect(200).json();
    for backup in [&mut backup, &mut again] {
        backup["created_at"] = Value::Null;
    }
    assert_eq!(backup, again);
}

/// As the original writes it: camelCase, `\N`, whole numbers and floats.
const ORIGINAL_USAGE: &str = "\
id,requestId,date,sourceIp,apiKey,attribution,incomingApiType,provider,attemptCount,incomingModelAlias,canonicalModelName,selectedModelName,finalAttemptProvider,finalAttemptModel,allAttemptedProviders,outgoingApiType,tokensInput,tokensOutput,tokensReasoning,tokensCached,tokensCacheWrite,costInput,costOutput,costCached,costCacheWrite,costTotal,costSource,costMetadata,startTime,durationMs,ttftMs,tokensPerSec,isStreamed,isPassthrough,responseStatus,tokensEstimated,createdAt,toolsDefined,messageCount,parallelToolCallsEnabled,toolCallsCount,finishReason,kwhUsed
1,0196f2a1-7c1c-7000-8000-000000000001,2026-01-31T12:00:00.000Z,127.0.0.1,app,\\N,chat,up,1,fast,fast,gpt,up,gpt,\\N,chat,90,20,5,10,0,0.00027,0.0003,0.000003,0,0.000573,simple,\"{\"\"a\"\":1}\",1769860800000,40,12.5,625,true,true,success,0,1769860800000,0,1,0,\\N,stop,0
2,0196f2a1-7c1c-7000-8000-000000000002,2026-01-31T12:00:01.500Z,\\N,\\N,\\N,messages,up,2,fast,fast,gpt,up,gpt,\"[\"\"up/gpt\"\"]\",chat,\\N,\\N,\\N,\\N,\\N,\\N,\\N,\\N,\\N,\\N,\\N,\\N,1769860801500,\\N,\\N,\\N,false,false,error,0,1769860801500,\\N,\\N,\\N,\\N,\\N,0.25";

fn original_config() -> Value {
    json!({
        "providers": {"up": {"display_name": null, "api_base_url": "http://127.0.0.1:9/v1",
            "api_key": "sk-up", "enabled": true, "disable_cooldown": false, "auto_compat": false,
            "model_autosync": {"enabled": false, "intervalMinutes": 60}, "shiny": {"new": 1},
            "models": {"gpt": {"type": "text", "pricing": {"source": "defined", "range": [
                {"lower_bound": 0, "upper_bound": null, "input_per_m": 3, "output_per_m": 15}]}}}}},
        "models": {"fast": {"priority": "selector", "sticky_session": true, "additional_aliases": [],
            "target_groups": [{"name": "default", "selector": "random", "targets": [
                {"provider": "up", "model": "gpt", "enabled": true},
                {"provider": "gone", "model": "x", "enabled": true}]}]}},
        "keys": {"app": {"secret": "sk-app", "quotas": ["daily", "lost"], "allowRawPassthrough": false}},
        "user_quotas": {"daily": {"type": "daily", "limitType": "requests", "limit": 100}},
        "mcp_servers": {}, "mcp_keys": [],
        "settings": {"failover.enabled": true, "failover.retryableErrors": ["ECONNREFUSED"],
            "stall.ttfbSeconds": null, "cooldown.initialMinutes": 1, "trustedProxies": ["10.0.0.0/8"],
            "default_quotas": ["lost"], "someone.elses": {"x": 1}, "performanceExplorationRate": 0.1},
        "oauth_credentials": [{"provider_type": "openai-codex", "account_id": "me",
            "access_token": "a", "refresh_token": "r", "expires_at": 1}],
    })
}

const MANIFEST: &str = r#"{"plexus_backup":true,"version":1,"created_at":"2026-02-01T00:00:00.000Z","dialect":"sqlite","tables":[]}"#;

#[test]
#[expect(clippy::too_many_lines, reason = "one story, told in order")]
fn an_archive_of_the_original_restores_and_what_is_not_known_is_told() {
    let gateway = Gateway::start();
    let errors = "id,requestId,date,errorMessage,errorStack,details,createdAt\n1,0196f2a1-7c1c-7000-8000-000000000002,2026-01-31T12:00:01.500Z,it broke,Error: at x,\"{\"\"statusCode\"\":500}\",1769860801500";
    let last = ORIGINAL_USAGE.lines().last().unwrap();
    let usage = format!("{ORIGINAL_USAGE}\n{last}");
    let archive = packed(&[
        ("config.json", &original_config().to_string()),
        ("request_usage.csv.gz", &usage),
        (
            "provider_cooldowns.csv.gz",
            "provider,model,expiry,consecutiveFailures,createdAt\nup,gpt,4102444800000,2,1",
        ),
        ("inference_errors.csv.gz", errors),
        ("provider_performance.csv.gz", "id,provider\n1,up\n2,up"),
        ("debug_logs.csv", ""),
        ("novelties.txt", "?"),
        ("manifest.json", MANIFEST),
    ]);
    let told = restore(&gateway, "application/x-gzip", &archive)
        .expect(200)
        .json();
    let restored = &told["restored"];
    assert_eq!(restored["providers"], 1, "{told}");
    assert_eq!(restored["system_settings"], 8);
    assert_eq!(
        (&restored["request_usage"], &restored["inference_errors"]),
        (&json!(2), &json!(1))
    );
    let not_kept = told["notKept"].to_string();
    for lost in [
        "providers.up.shiny",
        "models.fast.target_groups.0.targets.1",
        "keys.app.quotas.1",
        "default_quotas.0",
        "novelties.txt",
        "provider_performance",
        "request_usage.kwhUsed",
        "request_usage that are there twice",
        "inference_errors.errorStack",
    ] {
        assert!(not_kept.contains(lost), "{lost} is not told: {not_kept}");
    }
    let rows = gateway
        .admin("GET", "/v0/management/usage", &NOTHING)
        .json();
    let row = rows["data"]
        .as_array()
        .unwrap()
        .iter()
        .find(|row| row["apiKey"] == "app")
        .unwrap();
    for (field, value) in [
        ("tokensInput", json!(90)),
        ("tokensOutput", json!(20)),
        ("tokensReasoning", json!(5)),
        ("tokensCached", json!(10)),
        ("tokensCacheWrite", json!(0)),
        ("costTotal", json!(0.000573)),
        ("costSource", json!("simple")),
        ("costMetadata", json!("{\"a\":1}")),
        ("startTime", json!(1_769_860_800_000_i64)),
        ("durationMs", json!(40)),
        ("ttftMs", json!(12.5)),
        ("isStreamed", json!(true)),
        ("responseStatus", json!("success")),
        ("provider", json!("up")),
        ("canonicalModelName", json!("fast")),
        ("finishReason", json!("stop")),
    ] {
        assert_eq!(row[field], value, "{field} of {row}");
    }
    assert_eq!(
        rows["pagination"]["total"]
            .as_u64()
            .or_else(|| rows["total"].as_u64()),
        Some(2),
        "{rows}"
    );
    let backup = gateway.admin("GET", BACKUP, &NOTHING).json();
    let settings = &backup["data"]["settings"];
    assert_eq!(settings["someone.elses"], json!({"x": 1}), "{settings}");
    assert_eq!(settings["trustedProxies"], json!(["10.0.0.0/8"]));
    assert_eq!(
        backup["data"]["oauth_credentials"],
        original_config()["oauth_credentials"]
    );
    assert_eq!(
        gateway.app.live.load().keys["app"].secret.expose(),
        "sk-app"
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "one story, told in order")]
fn what_is_wrong_changes_nothing() {
    let gateway = Gateway::start();
    fill(&gateway);
    let before = (
        gateway.text(),
        files(&full_backup(&gateway).body)["request_usage.csv.gz"].clone(),
    );
    let config = original_config().to_string();
    let envelope =
        |data: &Value| json!({"plexus_backup": true, "version": 1, "data": data}).to_string();
    let mut broken = original_config();
    broken["keys"]["app"]["secret"] = json!("");
    let whole = packed(&[("manifest.json", MANIFEST), ("config.json", &config)]);
    let bad_row = ORIGINAL_USAGE.replace(",90,20,", ",ninety,20,");
    let archives = [
        (
            packed(&[
                ("manifest.json", MANIFEST),
                ("config.json", &config),
                ("request_usage.csv.gz", &bad_row),
            ]),
            "ninety",
        ),
        (
            packed(&[
                ("manifest.json", MANIFEST),
                ("config.json", &config),
                ("inference_errors.csv", "a,b\n1"),
            ]),
            "line 2: found 1 cells, wanted 2",
        ),
        (
            packed(&[
                ("manifest.json", MANIFEST),
                ("config.json", &broken.to_string()),
            ]),
            "Validation failed",
        ),
        (packed(&[("config.json", &config)]), "missing manifest.json"),
        (whole[..whole.len() - 20].to_vec(), "archive"),
        (b"PK\x03\x04".to_vec(), "Unrecognized archive format"),
        (Vec::new(), "archive"),
    ];
    for (archive, wanted) in archives {
        let told = restore(&gateway, "application/octet-stream", &archive).expect(400);
        assert!(told.text().contains(wanted), "{wanted}: {}", told.text());
    }
    for (body, wanted) in [
        (
            json!({"data": original_config()}).to_string(),
            "missing plexus_backup field",
        ),
        (
            envelope(&original_config()).replace("\"version\":1", "\"version\":2"),
            "Unsupported backup version 2 (expected 1)",
        ),
        (envelope(&broken), "secret is empty"),
        (
            envelope(&json!({"providers": []})),
            "data.providers: an object is wanted",
        ),
        (envelope(&NOTHING), "missing data"),
        ("{".to_owned(), "JSON"),
    ] {
        let told = restore(&gateway, "application/json", body.as_bytes()).expect(400);
        assert!(told.text().contains(wanted), "{wanted}: {}", told.text());
    }
    let other = restore(&gateway, "text/csv", b"a").expect(415);
    assert!(other.text().contains("application/gzip is wanted"));
    let after = (
        gateway.text(),
        files(&full_backup(&gateway).body)["request_usage.csv.gz"].clone(),
    );
    assert_eq!(before, after);
}

#[test]
fn an_inference_key_gets_neither() {
    let gateway = Gateway::start();
    gateway
        .manage(support::SECRET, "GET", BACKUP, &NOTHING)
        .expect(403);
    let envelope = json!({"plexus_backup": true, "version": 1, "data": {}});
    gateway
        .manage(support::SECRET, "POST", "/v0/management/restore", &envelope)
        .expect(403);
    gateway
        .manage(support::SECRET, "POST", "/v0/management/restart", &NOTHING)
        .expect(403);
}

#[test]
fn a_restart_of_what_cannot_restart_itself_is_refused() {
    let gateway = Gateway::start();
    gateway
        .admin("POST", "/v0/management/restart", &NOTHING)
        .expect(409);
}
