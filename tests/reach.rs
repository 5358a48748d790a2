//! What the gateway asks others for its operator: lists of models, a target
//! that is tried out, catalogues. And where it does not go.

mod support;

use std::sync::Arc;

use parking_lot::Mutex;

use plexus::catalogue::Source;
use serde_json::{Value, json};

use support::process::Process;
use support::upstream::{Upstream, nobody};
use support::{ADMIN, Gateway, Response, await_some};

const FETCH: &str = "/v0/management/providers/fetch-models";
const TEST: &str = "/v0/management/test";

/// A server that answers every request alike, and what it was asked.
struct Told {
    upstream: Upstream,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Told {
    fn start(status: &'static str, body: impl Into<String>) -> Self {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (body, heard) = (body.into(), Arc::clone(&asked));
        let upstream = Upstream::start(move |mut wire| {
            while let Some(request) = wire.request() {
                let request = String::from_utf8_lossy(&request).into_owned();
                heard.lock().push(request);
                wire.answer(status, &body);
            }
        });
        Self { upstream, asked }
    }

    /// A gateway that has it as a provider, so that it may be asked.
    fn known(&self) -> Gateway {
        let url = self.url("");
        Gateway::with(&format!(
            "providers:\n  it: {{ api_base_url: '{url}/v1', api_key: k }}\n"
        ))
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.upstream.address)
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().clone()
    }
}

fn fetch(gateway: &Gateway, body: &Value) -> Response {
    gateway.admin("POST", FETCH, body)
}

// ---- lists of models

#[test]
fn a_list_is_fetched_with_the_key_and_nothing_else() {
    let told = Told::start(
        "200 OK",
        r#"{"object":"list","data":[{"id":"a","owned_by":"x"}]}"#,
    );
    let gateway = told.known();
    let body = json!({ "url": told.url("/v1/models?all=1"), "apiKey": "sk-there" });
    let answer = fetch(&gateway, &body).expect(200);
    assert_eq!(
        answer.json(),
        json!({ "data": [{ "id": "a", "owned_by": "x" }] })
    );
    let asked = told.asked().join("").to_ascii_lowercase();
    assert!(
        asked.starts_with("get /v1/models?all=1 http/1.1\r\n"),
        "{asked}"
    );
    assert!(asked.contains("authorization: bearer sk-there\r\n"));
    assert!(asked.contains(&format!("host: {}\r\n", told.upstream.address)));
    assert!(!asked.contains("admin"), "{asked}");
    fetch(&gateway, &json!({ "url": told.url("/v1/models") })).expect(200);
    let second = told.asked().pop().unwrap().to_ascii_lowercase();
    assert!(!second.contains("authorization"));
}

#[test]
fn a_list_of_ollama_is_told_as_one_of_openai() {
    let told = Told::start(
        "200 OK",
        r#"{"models":[{"name":"llama3:8b","model":"llama3:8b","size":4}]}"#,
    );
    let gateway = told.known();
    let answer = fetch(&gateway, &json!({ "url": told.url("/api/tags") })).expect(200);
    let model = &answer.json()["data"][0];
    assert_eq!(
        (&model["id"], &model["owned_by"]),
        (&json!("llama3:8b"), &json!("ollama"))
    );
}

#[test]
fn a_complaint_is_passed_on_without_the_key() {
    let told = Told::start("401 Unauthorized", r#"{"error":"sk-there is no key"}"#);
    let gateway = told.known();
    let body = json!({ "url": told.url("/v1/models"), "apiKey": "sk-there" });
    let error = fetch(&gateway, &body).expect(401).json()["error"].clone();
    assert_eq!(error["type"], "provider_error");
    assert_eq!(error["code"], 401);
    assert_eq!(error["details"], r#"{"error":"[redacted] is no key"}"#);
}

#[test]
fn no_redirection_is_followed() {
    let inner = Told::start("200 OK", r#"{"data":[{"id":"stolen"}]}"#);
    let location = inner.url("/v1/models");
    let outer = Upstream::start(move |mut wire| {
        while wire.request().is_some() {
            let head =
                format!("HTTP/1.1 302 Found\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n");
            wire.write(head.as_bytes());
        }
    });
    let file = format!(
        "providers:\n  a: {{ api_base_url: 'http://{}/v1', api_key: k }}\n  b: {{ api_base_url: '{}/v1', api_key: k }}\n",
        outer.address,
        inner.url("")
    );
    let gateway = Gateway::with(&file);
    let url = format!("http://{}/v1/models", outer.address);
    let answer = fetch(&gateway, &json!({ "url": url, "apiKey": "sk-there" })).expect(502);
    assert!(answer.text().contains("not followed"), "{}", answer.text());
    assert_eq!(answer.header("location"), None);
    assert_eq!(inner.asked(), Vec::<String>::new());
}

#[test]
fn what_is_no_list_or_has_no_end_is_refused() {
    let long = format!("{{\"data\":[\"{}\"]}}", "x".repeat(9 << 20));
    for (body, status) in [
        ("<html>".to_owned(), 502),
        ("{\"data\":5}".to_owned(), 502),
        (long, 502),
    ] {
        let told = Told::start("200 OK", body);
        let gateway = told.known();
        let answer = fetch(&gateway, &json!({ "url": told.url("/v1/models") })).expect(status);
        assert_eq!(answer.json()["error"]["type"], "provider_error");
    }
    let address = nobody();
    let gateway = Gateway::with(&format!(
        "providers:\n  it: {{ api_base_url: 'http://{address}/v1', api_key: k }}\n"
    ));
    let answer = fetch(&gateway, &json!({ "url": format!("http://{address}/") })).expect(500);
    assert_eq!(answer.json()["error"]["type"], "fetch_error");
}

#[test]
fn this_machine_and_metadata_services_are_not_asked() {
    let told = Told::start("200 OK", r#"{"data":[{"id":"inside"}]}"#);
    let gateway = Gateway::start();
    let port = told.upstream.address.port();
    for (url, kind) in [
        (format!("http://127.0.0.1:{port}/"), "ssrf_blocked"),
        (format!("http://localhost:{port}/"), "ssrf_blocked"),
        (format!("http://LOCALHOST.:{port}/"), "ssrf_blocked"),
        (format!("http://127.1:{port}/"), "ssrf_blocked"),
        (format!("http://2130706433:{port}/"), "ssrf_blocked"),
        (format!("http://0.0.0.0:{port}/"), "ssrf_blocked"),
        (format!("http://[::1]:{port}/"), "ssrf_blocked"),
        (format!("http://[::ffff:127.0.0.1]:{port}/"), "ssrf_blocked"),
        (
            "http://169.254.169.254/latest/meta-data/".to_owned(),
            "ssrf_blocked",
        ),
        (
            "http://metadata.google.internal/".to_owned(),
            "ssrf_blocked",
        ),
        ("ftp://example.com/".to_owned(), "ssrf_blocked"),
        ("file:///etc/passwd".to_owned(), "validation_error"),
        (
            format!("http://user:word@127.0.0.1:{port}/"),
            "validation_error",
        ),
        ("not a url".to_owned(), "validation_error"),
        (String::new(), "validation_error"),
    ] {
        let answer = fetch(&gateway, &json!({ "url": url })).expect(400);
        assert_eq!(
            answer.json()["error"]["type"],
            kind,
            "{url}: {}",
            answer.text()
        );
    }
    assert_eq!(told.asked(), Vec::<String>::new());
    for body in [
        json!({}),
        json!({ "url": 5 }),
        json!({ "url": "http://x/", "apiKey": 5 }),
        json!({ "url": "http://x/", "key": "k" }),
        json!({ "url": "http://x/", "apiKey": "$env:HOME" }),
        json!([]),
    ] {
        let answer = fetch(&gateway, &body).expect(400);
        assert_eq!(answer.json()["error"]["type"], "validation_error", "{body}");
    }
}

// ---- trying a target out

#[test]
fn a_target_is_tried_out_in_every_protocol_and_leaves_rows() {
    let gateway = Gateway::with(
        "providers:\n  all: { api_base_url: { chat: 'http://SIMULATOR/v1', messages: 'http://SIMULATOR/v1', responses: 'http://SIMULATOR/v1', gemini: 'http://SIMULATOR', embeddings: 'http://SIMULATOR/v1', speech: 'http://SIMULATOR/v1', images: 'http://SIMULATOR/v1' }, api_key: k }\n",
    );
    for (kind, told) in [
        ("chat", Some("Success")),
        ("messages", None),
        ("gemini", None),
        ("responses", None),
        ("embeddings", Some("Success (1 embedding)")),
        ("images", Some("Success (1 image created)")),
        ("speech", Some("Success")),
    ] {
        let body = json!({ "provider": "all", "model": "any", "apiType": kind });
        let answer = gateway.admin("POST", TEST, &body).expect(200).json();
        assert_eq!(answer["success"], true, "{answer}");
        assert_eq!(answer["apiType"], kind);
        assert!(answer["durationMs"].is_u64());
        match told {
            Some(told) => assert_eq!(answer["response"], told),
            None => assert!(!answer["response"].as_str().unwrap().is_empty(), "{answer}"),
        }
    }
    let rows = gateway.rows(7);
    assert_eq!(rows.len(), 7);
    for row in rows {
        assert_eq!(row["apiKey"], "probe");
        assert_eq!(row["responseStatus"], "success");
    }
}

#[test]
fn a_target_that_fails_is_told_with_its_reason() {
    let told = Told::start(
        "500 Internal Server Error",
        r#"{"error":{"message":"out of order"}}"#,
    );
    let gateway = told.known();
    for kind in ["chat", "messages", "gemini"] {
        let body = json!({ "provider": "it", "model": "any", "apiType": kind });
        let answer = gateway.admin("POST", TEST, &body).expect(200).json();
        assert_eq!(answer["success"], false, "{answer}");
        assert!(!answer["error"].as_str().unwrap().is_empty());
        gateway
            .admin("DELETE", "/v0/management/cooldowns", &Value::Null)
            .expect(200);
    }
    let body = json!({ "provider": "nobody", "model": "any" });
    let answer = gateway.admin("POST", TEST, &body).expect(200).json();
    assert_eq!(answer["success"], false);
    for body in [
        json!({}),
        json!({ "provider": "it" }),
        json!({ "provider": "it", "model": "" }),
        json!({ "provider": 5, "model": "m" }),
        json!({ "provider": "it", "model": "m", "apiType": "transcriptions" }),
        json!({ "provider": "it", "model": "m", "apiType": "telepathy" }),
    ] {
        let answer = gateway.admin("POST", TEST, &body).expect(400).json();
        assert_eq!(answer["success"], false, "{body}");
    }
}

// ---- catalogues

const LIST: &str = r#"{"data":[
    {"id":"maker/large","name":"Maker: Large","context_length":200000,
     "pricing":{"prompt":"0.000003","completion":"0.000015"},"supported_parameters":["tools"],
     "architecture":{"modality":"text->text","input_modalities":["text"],"output_modalities":["text"]},
     "top_provider":{"context_length":200000,"max_completion_tokens":64000}},
    {"id":"maker/small","name":"Maker: Small"}]}"#;

#[test]
#[expect(clippy::too_many_lines, reason = "one story, told in order")]
fn a_catalogue_is_fetched_searched_and_shown_with_the_models() {
    let told = Told::start("200 OK", LIST);
    let url = told.url("/models");
    let file = format!(
        "catalogue: {{ enabled: false, openrouter: '{url}', modelsDev: null, catwalk: null }}\n\
         providers:\n  p: {{ api_base_url: 'http://SIMULATOR/v1', api_key: k }}\n\
         models:\n  mine: {{ targets: [{{ provider: p, model: m }}], metadata: {{ source: openrouter, source_path: maker/large, overrides: {{ name: Mine }} }} }}\n  \
         small: {{ targets: [{{ provider: p, model: m }}], metadata: {{ source: auto }} }}\n  \
         other: {{ targets: [{{ provider: p, model: m }}], metadata: {{ source: disabled }} }}\n"
    );
    let mut gateway = Gateway::with(&file);
    let get = |gateway: &Gateway, path: &str| gateway.request("GET", path, &[], "");
    for path in [
        "/v1/metadata/search?source=openrouter",
        "/v1/metadata/lookup?source=openrouter&source_path=a",
        "/v1/openrouter/models",
    ] {
        get(&gateway, path).expect(503);
    }
    let before = get(&gateway, "/v1/models").expect(200).json();
    assert_eq!(before["data"][0]["name"], "Mine");
    assert_eq!(before["data"][0].get("pricing"), None);
    let refreshed = gateway.admin(
        "POST",
        "/v0/management/models/metadata/refresh",
        &Value::Null,
    );
    let sources =
        json!({ "success": true, "sources": { "openrouter": { "success": true, "models": 2 } } });
    assert_eq!(refreshed.expect(200).json(), sources);
    // Kept: a gateway that starts without the network has them.
    for restarted in [false, true] {
        if restarted {
            gateway.restart();
            gateway.app.recall_catalogues(&[Source::OpenRouter]);
        }
        let found = get(&gateway, "/v1/metadata/search?source=openrouter&q=LARGE").expect(200);
        let large = json!([{ "id": "maker/large", "name": "Maker: Large" }]);
        assert_eq!(found.json(), json!({ "count": 1, "data": large }));
        let names = get(&gateway, "/v1/openrouter/models?q=maker/").expect(200);
        assert_eq!(names.json()["data"], json!(["maker/large", "maker/small"]));
        let one = get(
            &gateway,
            "/v1/metadata/lookup?source=openrouter&source_path=maker%2Flarge",
        );
        assert_eq!(one.expect(200).json()["data"]["context_length"], 200_000);
        let models = get(&gateway, "/v1/models").expect(200).json();
        let [mine, small, other] = [0, 1, 2].map(|i| models["data"][i].clone());
        assert_eq!(
            (&mine["id"], &mine["name"]),
            (&json!("mine"), &json!("Mine"))
        );
        assert_eq!(
            mine["pricing"],
            json!({ "prompt": "0.000003", "completion": "0.000015" })
        );
        assert_eq!(mine["context_length"], 200_000);
        assert_eq!(mine["top_provider"]["max_completion_tokens"], 64_000);
        assert_eq!(small["name"], "Maker: Small");
        assert_eq!(other.get("name"), None);
    }
    for (query, status) in [
        ("search?source=nowhere", 400),
        ("search", 400),
        ("search?source=openrouter&limit=0", 400),
        ("search?source=openrouter&limit=201", 400),
        ("search?source=catwalk", 503),
        ("lookup?source=openrouter", 400),
        ("lookup?source=openrouter&source_path=maker/none", 404),
    ] {
        let answer = get(&gateway, &format!("/v1/metadata/{query}")).expect(status);
        assert!(answer.json()["error"]["message"].is_string(), "{query}");
    }
    let limited = get(&gateway, "/v1/metadata/search?source=openrouter&limit=1");
    assert_eq!(limited.expect(200).json()["count"], 1);
}

/// Nobody outside is asked for what nobody reads; whoever asks first has to wait for it,
/// and a configuration that refers to one doesn't.
#[test]
fn a_catalogue_is_fetched_when_it_is_needed_and_not_before() {
    let (told, other) = (
        Told::start("200 OK", LIST),
        Told::start("404 Not Found", "no"),
    );
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "adminKey: {ADMIN}\ncatalogue: {{ openrouter: '{}', modelsDev: '{}', catwalk: '{}' }}\n",
        told.url("/models"),
        other.url("/api"),
        other.url("/c"),
    );
    std::fs::write(folder.path().join("plexus.yaml"), text).unwrap();
    let gateway = Process::start(folder.path());
    let get = |path: &str| gateway.client().request("GET", path, &[], b"");
    get("/healthz").expect(200);
    get("/v1/models").expect(200);
    assert!(told.asked().is_empty() && other.asked().is_empty());
    let names = get("/v1/openrouter/models?q=large").expect(200).json();
    assert_eq!(names["data"], json!(["maker/large"]));
    assert_eq!(told.asked().len(), 1);
    assert!(other.asked().is_empty());
    // What can't be had is waited for once.
    for _ in 0..2 {
        get("/v1/metadata/search?source=catwalk").expect(503);
    }
    assert_eq!(other.asked().len(), 1);
    let provider = json!({
        "api_base_url": other.url("/v1"), "api_key": "k",
        "models": { "m": { "pricing": { "source": "openrouter", "slug": "maker/large" } } },
    });
    drop(gateway);
    // Nor is it asked for again until a configuration refers to it.
    let gateway = Process::start(folder.path());
    let client = || gateway.client();
    let admin = [("x-admin-key", ADMIN)];
    let body = provider.to_string();
    let put = client().request("PUT", "/v0/management/providers/p", &admin, body.as_bytes());
    put.expect(200);
    await_some("the price", || (told.asked().len() == 2).then_some(()));
}

#[test]
fn a_catalogue_that_cannot_be_had_leaves_the_one_that_was_there() {
    let told = Arc::new(Mutex::new(LIST.to_owned()));
    let now = Arc::clone(&told);
    let upstream = Upstream::start(move |mut wire| {
        while wire.request().is_some() {
            let body = now.lock().clone();
            wire.answer("200 OK", &body);
        }
    });
    let file = format!(
        "catalogue: {{ openrouter: 'http://{}/m', modelsDev: null, catwalk: 'http://{}/c' }}\n",
        upstream.address,
        nobody()
    );
    let gateway = Gateway::with(&file);
    let refresh = || {
        let answer = gateway.admin(
            "POST",
            "/v0/management/models/metadata/refresh",
            &Value::Null,
        );
        answer.expect(200).json()
    };
    let first = refresh();
    assert_eq!(first["success"], false);
    assert_eq!(first["sources"]["openrouter"]["models"], 2);
    assert!(first["sources"]["catwalk"]["error"].is_string());
    "<html>".clone_into(&mut told.lock());
    let second = refresh();
    assert_eq!(second["sources"]["openrouter"]["success"], false);
    assert_eq!(second["sources"]["openrouter"]["models"], 2);
    gateway
        .request("GET", "/v1/metadata/search?source=openrouter", &[], "")
        .expect(200);
}

const MAKERS: &str = r#"{
    "one":{"name":"One","models":{"large":{"name":"Large","limit":{"context":8000},"cost":{"input":3,"output":15}},
                                  "small":{"name":"Small"}}},
    "two":{"models":{"large":{"name":"Large of two"}}}}"#;

#[test]
fn catalogues_tell_who_offers_what() {
    let told = Told::start("200 OK", MAKERS);
    let gateway = Gateway::with(&format!(
        "catalogue: {{ enabled: false, openrouter: null, modelsDev: '{}', catwalk: null }}\n",
        told.url("/api.json")
    ));
    let root = "/v0/management";
    let get = |path: &str| gateway.admin("GET", &format!("{root}{path}"), &Value::Null);
    let resolve =
        |body: &Value| gateway.admin("POST", &format!("{root}/models/metadata/resolve"), body);
    get("/pi/providers").expect(503);
    get("/pi/models").expect(503);
    resolve(&json!({ "model": "large" })).expect(503);
    gateway
        .admin(
            "POST",
            &format!("{root}/models/metadata/refresh"),
            &Value::Null,
        )
        .expect(200);
    let makers = json!({ "count": 2, "source": "models.dev",
        "data": [{ "id": "one", "models": 2 }, { "id": "two", "models": 1 }] });
    assert_eq!(get("/pi/providers").expect(200).json(), makers);
    let of_one = get("/pi/models?provider=one&q=LARGE").expect(200).json();
    assert_eq!(of_one["count"], 1);
    assert_eq!(of_one["data"][0]["id"], "large");
    assert_eq!(of_one["data"][0]["provider"], "one");
    assert_eq!(of_one["data"][0]["pricing"]["prompt"], "0.000003");
    assert_eq!(get("/pi/models").expect(200).json()["count"], 3);
    assert_eq!(
        get("/pi/models?provider=two&q=small").expect(200).json()["count"],
        0
    );
    get("/pi/models?provider=three").expect(404);
    // Whoever is said to have made it.
    let found =
        resolve(&json!({ "model": "elsewhere/small", "overrides": { "context_length": 5 } }));
    let data = json!({ "id": "one/small", "name": "Small", "source": "models.dev",
        "source_path": "one/small", "context_length": 5 });
    assert_eq!(found.expect(200).json(), json!({ "data": data }));
    for (body, status) in [
        (json!({ "model": "none" }), 404),
        (json!({ "model": "large", "source": "catwalk" }), 503),
        (json!({ "model": "large", "source": "elsewhere" }), 400),
        (json!({ "model": "large", "sauce": "catwalk" }), 400),
        (json!({}), 400),
    ] {
        let answer = resolve(&body).expect(status);
        assert!(answer.json()["error"].is_string(), "{body}");
    }
}

const CARD: &str = r#"{"_id":"1","id":"maker/m","author":"maker","pipeline_tag":"text-generation",
    "cardData":{"license":"mit"},"safetensors":{"parameters":{"BF16":7},"total":7},"siblings":[]}"#;
const CONFIGURATION: &str = r#"{"model_type":"llama","max_position_embeddings":4096,
    "num_hidden_layers":32,"num_attention_heads":32,"torch_dtype":"bfloat16"}"#;

#[test]
fn a_model_is_looked_up_at_hugging_face() {
    let hub = Upstream::start(|mut wire| {
        while let Some(request) = wire.request() {
            let request = String::from_utf8_lossy(&request).into_owned();
            match request.split(' ').nth(1).unwrap() {
                "/api/models/maker/m" | "/api/models/maker/gated" => wire.answer("200 OK", CARD),
                "/maker/m/raw/main/config.json" => wire.answer("200 OK", CONFIGURATION),
                "/api/models/maker/moved" => {
                    wire.write(b"HTTP/1.1 307 Temporary Redirect\r\nlocation: /api/models/maker/m\r\ncontent-length: 0\r\n\r\n");
                }
                "/api/models/maker/odd" => wire.answer("200 OK", "<html>"),
                _ => wire.answer("401 Unauthorized", "{}"),
            }
        }
    });
    let gateway = Gateway::with(&format!(
        "catalogue: {{ enabled: false, huggingface: 'http://{}/' }}\n",
        hub.address
    ));
    let ask = |gateway: &Gateway, id: &str| {
        let path = format!("/v0/management/models/huggingface/{id}");
        gateway.admin("GET", &path, &Value::Null)
    };
    let wanted = json!({ "id": "maker/m", "author": "maker", "pipeline_tag": "text-generation",
        "license": "mit", "parameters": 7, "parameters_by_type": { "BF16": 7 }, "context_length": 4096,
        "model_architecture": { "model_type": "llama", "context_length": 4096, "layers": 32,
            "heads": 32, "dtype": "bfloat16" } });
    for id in ["maker/m", "maker%2Fm"] {
        assert_eq!(
            ask(&gateway, id).expect(200).json(),
            json!({ "data": wanted })
        );
    }
    // Its card is open, its files are not.
    let gated = ask(&gateway, "maker/gated").expect(200).json();
    assert_eq!(gated["data"].get("model_architecture"), None);
    for (id, status) in [
        ("maker/none", 404),
        ("maker/moved", 502),
        ("maker/odd", 502),
        ("maker/m%3Fx=1", 400),
        ("a/b/c", 400),
    ] {
        let answer = ask(&gateway, id).expect(status);
        assert!(
            answer.json()["error"].is_string() || answer.json()["error"]["message"].is_string()
        );
    }
    let away = Gateway::with(&format!(
        "catalogue: {{ huggingface: 'http://{}' }}\n",
        nobody()
    ));
    let refused = ask(&away, "maker/m").expect(500).json();
    let message = refused["error"]["message"].as_str().unwrap();
    assert!(message.starts_with("could not connect"), "{message}");
    let off = Gateway::with("catalogue: { huggingface: null }\n");
    ask(&off, "maker/m").expect(503);
}
