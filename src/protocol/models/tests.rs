//! Shapes, selection of a shape, pages.

use http::HeaderValue;
use serde_json::{Value, json};

use super::*;

fn model(id: &str) -> ModelInfo {
    ModelInfo {
        id: id.into(),
        created: 1_767_225_600,
        ..ModelInfo::default()
    }
}

fn known() -> ModelInfo {
    ModelInfo {
        display_name: Some("M".into()),
        description: Some("good".into()),
        context: Some(200_000),
        max_output: Some(64_000),
        preferred_api: vec!["messages".into()],
        metadata: Some(json!({"id": "evil", "pricing": {"prompt": "0.000003"}})),
        ..model("m")
    }
}

fn many(count: usize) -> Vec<ModelInfo> {
    (0..count)
        .map(|number| model(&format!("m/{number}")))
        .collect()
}

fn page(shape: Shape, models: &[ModelInfo], query: &str) -> Value {
    serde_json::from_str(&encode_list(shape, models, Some(query)).unwrap()).unwrap()
}

fn ids(page: &Value) -> Vec<&str> {
    page["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|model| model["id"].as_str().unwrap())
        .collect()
}

#[test]
fn the_sender_decides_the_shape() {
    let shape = |path, query, name: Option<&'static str>| {
        let fields = name.map(|name| {
            (
                http::HeaderName::from_static(name),
                HeaderValue::from_static("x"),
            )
        });
        shape_for(path, query, &fields.into_iter().collect())
    };
    assert_eq!(shape("/v1/models", None, None), Shape::OpenAi);
    assert_eq!(
        shape("/v1/models", None, Some("anthropic-version")),
        Shape::Anthropic
    );
    assert_eq!(
        shape("/v1/models", None, Some("x-goog-api-key")),
        Shape::Gemini
    );
    assert_eq!(
        shape("/v1/models", Some("a=b&key=k"), Some("anthropic-version")),
        Shape::Gemini
    );
    assert_eq!(shape("/v1beta/models", None, None), Shape::Gemini);
    assert_eq!(shape("/v1alpha/models/m", None, None), Shape::Gemini);
    assert_eq!(
        shape("/v1/models", Some("client_version=0.62.0"), None),
        Shape::Codex
    );
    assert_eq!(shape("/v1/models", Some("monkey=1"), None), Shape::OpenAi);
}

#[test]
fn the_openai_list_has_what_is_known_and_nothing_is_overwritten() {
    let expected = json!({"object": "list", "data": [{
        "id": "m", "object": "model", "created": 1_767_225_600, "owned_by": "plexus",
        "shutdown_date": null, "preferred_api": ["messages"], "name": "M", "description": "good",
        "context_length": 200_000, "pricing": {"prompt": "0.000003"},
        "top_provider": {"context_length": 200_000, "max_completion_tokens": 64_000},
    }]});
    assert_eq!(page(Shape::OpenAi, &[known()], ""), expected);
    assert_eq!(
        encode_one(Shape::OpenAi, &known()),
        expected["data"][0].to_string()
    );
    let bare = json!({"id": "n", "object": "model", "created": 1_767_225_600,
        "owned_by": "plexus", "shutdown_date": null});
    assert_eq!(encode_one(Shape::OpenAi, &model("n")), bare.to_string());
}

#[test]
fn the_codex_list_has_a_models_member() {
    let list = page(Shape::Codex, &[known()], "client_version=1");
    assert_eq!(list["models"], json!([]));
    assert_eq!(ids(&list), ["m"]);
}

#[test]
fn the_anthropic_entry_has_every_field() {
    let entry = json!({"type": "model", "id": "m", "display_name": "M",
        "created_at": "2026-01-01T00:00:00Z", "lifecycle": "active",
        "max_input_tokens": 200_000, "max_tokens": 64_000, "line": null,
        "deprecated_at": null, "retires_at": null, "capabilities": null});
    assert_eq!(encode_one(Shape::Anthropic, &known()), entry.to_string());
    let bare: Value = serde_json::from_str(&encode_one(Shape::Anthropic, &model("n"))).unwrap();
    assert_eq!(
        (&bare["display_name"], &bare["max_tokens"]),
        (&json!("n"), &Value::Null)
    );
    let empty = json!({"data": [], "has_more": false, "first_id": null, "last_id": null});
    assert_eq!(page(Shape::Anthropic, &[], ""), empty);
}

#[test]
fn anthropic_pages_lead_through_the_whole_list() {
    let models = many(45);
    let mut seen = Vec::new();
    let mut query = String::new();
    loop {
        let page = page(Shape::Anthropic, &models, &query);
        seen.extend(ids(&page).into_iter().map(str::to_owned));
        if page["has_more"] == false {
            break;
        }
        query = format!(
            "after_id={}",
            page["last_id"].as_str().unwrap().replace('/', "%2F")
        );
    }
    let all: Vec<String> = models.into_iter().map(|model| model.id).collect();
    assert_eq!(seen, all);
}

#[test]
fn anthropic_pages_go_backwards_too() {
    let models = many(10);
    let last = page(Shape::Anthropic, &models, "before_id=m/9&limit=4");
    assert_eq!(
        (ids(&last), &last["has_more"]),
        (vec!["m/5", "m/6", "m/7", "m/8"], &json!(true))
    );
    let first = page(Shape::Anthropic, &models, "before_id=m/2&limit=4");
    assert_eq!(
        (ids(&first), &first["has_more"]),
        (vec!["m/0", "m/1"], &json!(false))
    );
}

#[test]
fn bad_paging_is_refused_with_the_parameter_named() {
    let refused = |shape, query| encode_list(shape, &many(3), Some(query)).unwrap_err();
    for query in ["limit=0", "limit=1001", "limit=x", "limit=", "limit=-1"] {
        assert!(
            refused(Shape::Anthropic, query).starts_with("limit: "),
            "{query}"
        );
    }
    assert!(refused(Shape::Anthropic, "after_id=nobody").contains("nobody"));
    assert!(refused(Shape::Anthropic, "after_id=m/0&before_id=m/2").contains("exclude"));
    assert!(refused(Shape::Gemini, "pageSize=x").starts_with("pageSize: "));
    assert!(refused(Shape::Gemini, "pageSize=-1").starts_with("pageSize: "));
    assert!(refused(Shape::Gemini, "pageToken=%%%").starts_with("pageToken: "));
}

#[test]
fn gemini_pages_lead_through_the_whole_list() {
    let models = many(120);
    let mut seen = Vec::new();
    let mut query = String::new();
    let mut pages = 0;
    loop {
        let page = page(Shape::Gemini, &models, &query);
        pages += 1;
        let names = page["models"].as_array().unwrap().iter();
        seen.extend(names.map(|model| model["name"].as_str().unwrap().to_owned()));
        let Some(token) = page["nextPageToken"].as_str() else {
            break;
        };
        query = format!("pageToken={token}");
    }
    let all: Vec<String> = models
        .iter()
        .map(|model| format!("models/{}", model.id))
        .collect();
    assert_eq!((seen, pages), (all, 3));
    let large = page(Shape::Gemini, &models, "pageSize=5000");
    assert_eq!(large["models"].as_array().unwrap().len(), 120);
}

#[test]
fn a_gemini_entry_claims_no_limits_it_does_not_know() {
    let known: Value = serde_json::from_str(&encode_one(Shape::Gemini, &known())).unwrap();
    assert_eq!(
        (&known["name"], &known["baseModelId"]),
        (&json!("models/m"), &json!("m"))
    );
    assert_eq!(
        (&known["inputTokenLimit"], &known["outputTokenLimit"]),
        (&json!(200_000), &json!(64_000))
    );
    let bare: Value = serde_json::from_str(&encode_one(Shape::Gemini, &model("n"))).unwrap();
    assert_eq!(
        (&bare["displayName"], &bare["description"]),
        (&json!("n"), &json!(""))
    );
    assert!(bare.get("inputTokenLimit").is_none() && bare.get("outputTokenLimit").is_none());
}

#[test]
fn query_values_are_decoded() {
    assert_eq!(
        parameter("a=1&b=x%2Fy+z%C3%A9%zz%2", "b").unwrap(),
        "x/y zé%zz%2"
    );
    assert_eq!(parameter("flag&a=1", "flag").unwrap(), "");
    assert_eq!(parameter("", "a"), None);
}
