//! The OpenAPI document against the gateway that serves it: every endpoint is in
//! it, every example in it can be sent, and what comes back is what it says.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "in helpers of tests a failure is the test's failure"
)]

mod support;

use std::collections::BTreeSet;

use plexus::routes::openapi;
use serde_json::{Value, json};
use support::upstream::Upstream;
use support::{ADMIN, FILE, Gateway, PATIENCE, Response, SECRET, await_some};

const NOTHING: Value = Value::Null;

/// What an operation is, in the document's words.
struct Operation {
    method: String,
    path: String,
    value: Value,
}

fn operations(document: &Value) -> Vec<Operation> {
    let paths = document["paths"].as_object().unwrap().iter();
    let all = paths.flat_map(|(path, methods)| {
        let methods = methods.as_object().unwrap().iter();
        methods.map(|(method, value)| Operation {
            method: method.to_ascii_uppercase(),
            path: path.clone(),
            value: value.clone(),
        })
    });
    all.collect()
}

#[test]
fn every_endpoint_is_described_and_no_other() {
    assert_eq!(openapi::undescribed(), Vec::<String>::new());
    assert_eq!(openapi::left_over(), Vec::<String>::new());
    let document = openapi::document();
    let mut ids = BTreeSet::new();
    for operation in operations(&document) {
        let id = operation.value["operationId"].as_str().unwrap();
        assert!(ids.insert(id.to_owned()), "{id} twice");
    }
    // Every reference leads somewhere.
    let text = document.to_string();
    for piece in text.split("\"$ref\":\"#/components/schemas/").skip(1) {
        let name = piece.split('"').next().unwrap();
        assert!(
            document["components"]["schemas"][name].is_object(),
            "{name}"
        );
    }
}

#[test]
fn the_document_is_served_where_it_is_looked_for() {
    let gateway = Gateway::start();
    let open = gateway.request("GET", "/.well-known/plexus/openapi.json", &[], "");
    assert_eq!(open.expect(200).json(), openapi::document());
    let document = gateway.admin("GET", "/v0/openapi.json", &NOTHING);
    assert_eq!(document.expect(200).json(), openapi::document());
}

/// A catalogue, and a model's card and configuration.
fn published() -> Upstream {
    Upstream::start(|mut wire| {
        while let Some(request) = wire.request() {
            let request = String::from_utf8_lossy(&request).into_owned();
            wire.answer(
                "200 OK",
                match request.split(' ').nth(1) {
                    Some("/catalogue") => {
                        r#"{"maker":{"models":{"m":{"name":"M","limit":{"context":8000}}}}}"#
                    }
                    Some("/described/raw/main/config.json") => {
                        r#"{"model_type":"m","num_hidden_layers":2,"n_positions":1024}"#
                    }
                    _ => r#"{"id":"described","author":"a","likes":3,"gated":false,"safetensors":{"total":5}}"#,
                },
            );
        }
    })
}

#[test]
fn every_example_is_answered_as_the_document_says() {
    let published = published();
    let there = published.address;
    let catalogue = format!(
        "catalogue: {{ openrouter: null, modelsDev: 'http://{there}/catalogue', catwalk: null, huggingface: 'http://{there}' }}\n"
    );
    let gateway = Gateway::with(&format!("{FILE}{catalogue}"));
    let document = openapi::document();
    let id = prepare(&gateway);
    let mut all = operations(&document);
    all.retain(|operation| operation.value["tags"][0] != "inference");
    all.retain(|operation| operation.value["security"][0]["key"].is_null());
    all.retain(|operation| !operation.path.ends_with("/models/{model}"));
    // A gateway inside of a test has no process to restart.
    all.retain(|operation| operation.path != "/v0/management/restart");
    // What is made is looked at and then removed; the file as a whole comes last.
    let order = ["PUT", "POST", "PATCH", "GET", "DELETE"];
    all.sort_by_key(|operation| {
        let whole = ["/v0/management/config", "/v0/management/restore"];
        let replaces = whole.contains(&operation.path.as_str()) && operation.method != "GET";
        let place = order.iter().position(|method| *method == operation.method);
        // Of what is removed, the single ones first.
        let length = std::cmp::Reverse(operation.path.len());
        (replaces, place, length)
    });
    let mut wrong = Vec::new();
    for operation in &all {
        if let Err(fault) = try_out(&gateway, &document, operation, &id) {
            wrong.push(format!("{} {}: {fault}", operation.method, operation.path));
        }
    }
    assert!(all.len() > 50, "{}", all.len());
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn refusals_are_what_the_document_says() {
    let gateway = Gateway::start();
    let document = openapi::document();
    for operation in operations(&document) {
        if operation.value["security"][0]["admin"].is_null() {
            continue;
        }
        let path = filled(&operation.path, "0191d7a0-0000-7000-8000-000000000000");
        let responses = &operation.value["responses"];
        let nobody = gateway
            .request(&operation.method, &path, &[], "")
            .expect(401);
        let schema = &responses["401"]["content"]["application/json"]["schema"];
        fits(&document, schema, &nobody.json(), "").unwrap();
        if operation.value["security"][1].is_null() {
            let limited = gateway.manage(SECRET, &operation.method, &path, &NOTHING);
            let schema = &responses["403"]["content"]["application/json"]["schema"];
            fits(&document, schema, &limited.expect(403).json(), "").unwrap();
        }
        if operation.value["requestBody"]["required"] == true {
            let refused = gateway.admin(&operation.method, &path, &json!(["no object"]));
            assert!(refused.status >= 400, "{path}: {}", refused.status);
            let schema = &responses["default"]["content"]["application/json"]["schema"];
            if let Err(fault) = fits(&document, schema, &refused.json(), "") {
                panic!("{} {path}: {fault}", operation.method);
            }
        }
    }
}

/// A key with a quota, a request with a capture, one with an error, and the first
/// one's id.
fn prepare(gateway: &Gateway) -> String {
    gateway
        .admin("POST", "/v0/management/models/metadata/refresh", &NOTHING)
        .expect(200);
    let quota = json!({ "type": "monthly", "limitType": "cost", "limit": 50, "warnAt": 0.5,
        "excludedProviders": ["nobody"] });
    gateway
        .admin("PUT", "/v0/management/user-quotas/prepared", &quota)
        .expect(200);
    let limited = json!({ "quotas": ["prepared"] });
    gateway
        .admin("PATCH", "/v0/management/keys/app", &limited)
        .expect(200);
    let watched = json!({ "enabled": true });
    gateway
        .admin("PATCH", "/v0/management/debug", &watched)
        .expect(200);
    let body =
        |model: &str| json!({ "model": model, "messages": [{ "role": "user", "content": "hi" }] });
    let answer = gateway
        .ask("/v1/chat/completions", &body("by-messages"))
        .expect(200);
    let failed = gateway.ask("/v1/chat/completions", &body("direct/chat/x+status=429"));
    assert!(failed.status >= 400);
    gateway.rows(2);
    let id = answer.header("x-request-id").unwrap().to_owned();
    await_some("the capture", || {
        let path = format!("/v0/management/debug/logs/{id}");
        (gateway.admin("GET", &path, &NOTHING).status == 200).then_some(())
    });
    gateway.app.store.flush(PATIENCE).unwrap();
    id
}

fn filled(path: &str, id: &str) -> String {
    path.replace("/models/{slug}", "/models/by-gemini")
        .replace("{id}", id)
        .replace("{slug}", "described")
        .replace("{model}", "by-chat")
        .replace("{name}", "described")
}

/// Sends what the document says, and looks at what comes back.
fn try_out(
    gateway: &Gateway,
    document: &Value,
    operation: &Operation,
    id: &str,
) -> Result<(), String> {
    let mut path = filled(&operation.path, id);
    for parameter in operation.value["parameters"]
        .as_array()
        .into_iter()
        .flatten()
    {
        // The one that the administrator can't leave out, and those that nobody can.
        if parameter["name"] == "keyName" {
            path.push_str("?keyName=app");
        } else if parameter["required"] == true && parameter["in"] == "query" {
            let (name, example) = (&parameter["name"], &parameter["example"]);
            path = format!(
                "{path}?{}={}",
                name.as_str().unwrap(),
                example.as_str().unwrap()
            );
        }
    }
    let content = operation.value["requestBody"]["content"].as_object();
    let (kind, body) = match content.and_then(|content| content.iter().next()) {
        None => ("", String::new()),
        Some((kind, content)) => {
            let example = &content["example"];
            fits(document, &content["schema"], example, "the example")?;
            let text = example.as_str().map(str::to_owned);
            let text = text.unwrap_or_else(|| example.to_string());
            let here = gateway.provider.address.to_string();
            (kind.as_str(), text.replace("127.0.0.1:9", &here))
        }
    };
    let mut headers = vec![("x-admin-key", ADMIN)];
    if !kind.is_empty() {
        headers.push(("content-type", kind));
    }
    let told = &operation.value["responses"]["200"]["content"];
    let (wanted, content) = told.as_object().unwrap().iter().next().unwrap();
    if wanted == "text/event-stream" {
        let stream = gateway.stream(&operation.method, &path, &headers, &body);
        return kind_is(stream.status, stream.header("content-type"), wanted);
    }
    let answer: Response = gateway.request(&operation.method, &path, &headers, &body);
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    kind_is(answer.status, answer.header("content-type"), wanted)
        .map_err(|fault| format!("{fault}: {text}"))?;
    if wanted == "application/json" {
        fits(document, &content["schema"], &answer.json(), "")?;
    }
    Ok(())
}

fn kind_is(status: u16, found: Option<&str>, wanted: &str) -> Result<(), String> {
    let found = found.unwrap_or_default();
    if status == 200 && found.split(';').next() == Some(wanted) {
        return Ok(());
    }
    Err(format!("{status} {found}"))
}

// ---- the part of JSON Schema that the document uses

/// Whether a value has that shape; else where it has not.
fn fits(document: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    let rules = schema
        .as_object()
        .unwrap_or_else(|| panic!("{at}: no schema: {schema}"));
    for (rule, wanted) in rules {
        let fault = || Err(format!("{at}: {rule} {wanted} is wanted, found {value}"));
        let good = match rule.as_str() {
            "$ref" => {
                let name = wanted.as_str().unwrap().rsplit('/').next().unwrap();
                fits(
                    document,
                    &document["components"]["schemas"][name],
                    value,
                    at,
                )?;
                true
            }
            "type" => is_type(value, wanted.as_str().unwrap()),
            "const" => value == wanted,
            "enum" => wanted.as_array().unwrap().contains(value),
            "anyOf" => {
                let all = wanted.as_array().unwrap().iter();
                let faults: Vec<String> = all
                    .map(|one| fits(document, one, value, at))
                    .map_while(Result::err)
                    .collect();
                if faults.len() == wanted.as_array().unwrap().len() {
                    return Err(faults.join(" or "));
                }
                true
            }
            "items" => {
                for (number, item) in value.as_array().into_iter().flatten().enumerate() {
                    fits(document, wanted, item, &format!("{at}[{number}]"))?;
                }
                true
            }
            "properties" | "additionalProperties" => {
                members(document, schema, value, at)?;
                true
            }
            "required" => wanted.as_array().unwrap().iter().all(|name| {
                value
                    .as_object()
                    .is_none_or(|fields| fields.contains_key(name.as_str().unwrap()))
            }),
            "minimum" => value
                .as_f64()
                .is_none_or(|number| number >= wanted.as_f64().unwrap()),
            "maximum" => value
                .as_f64()
                .is_none_or(|number| number <= wanted.as_f64().unwrap()),
            "minLength" => value.as_str().is_none_or(|text| !text.is_empty()),
            "description" | "example" | "format" => true,
            other => panic!("{at}: the rule {other} is unknown here"),
        };
        if !good {
            return fault();
        }
    }
    Ok(())
}

fn members(document: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    for (name, member) in value.as_object().into_iter().flatten() {
        let at = format!("{at}.{name}");
        let named = &schema["properties"][name];
        match (named, &schema["additionalProperties"]) {
            (Value::Object(_), _) => fits(document, named, member, &at)?,
            (_, Value::Bool(false)) => return Err(format!("{at} is in no schema")),
            (_, rest @ Value::Object(_)) => fits(document, rest, member, &at)?,
            _ => {}
        }
    }
    Ok(())
}

fn is_type(value: &Value, wanted: &str) -> bool {
    match wanted {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "null" => value.is_null(),
        other => panic!("the type {other} is unknown here"),
    }
}
