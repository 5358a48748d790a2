//! Images described for targets that can't see, and requests that don't fit a
//! target's context, as clients and operators see it.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::{Value, json};
use support::dialect::Dialect;
use support::talk::{Fact, PIXEL, Talk, last_body, told};
use support::upstream::{COMPLETION, Upstream, nobody};
use support::{Gateway, Response};

/// What the describer answers to every image.
const WORDS: &str = "<image_description>\nyes\n</image_description>";

/// A blind model for each protocol, an alias `to-PROTOCOL` for each, one that
/// fails over from a blind one to one that sees, and a describer.
fn file(describer: &str) -> String {
    let blind = "models: { blind: { capabilities: { image_b64: false, image_url: false } }, \
                 'blind+status=500': { capabilities: { image_b64: false, image_url: false } }, seeing: {} }";
    let mut text = String::from("providers:\n");
    let mut aliases = String::new();
    for dialect in Dialect::FOUR {
        let name = dialect.name();
        let base = if dialect == Dialect::Gemini {
            ""
        } else {
            "/v1"
        };
        text += &format!(
            "  {name}: {{ api_base_url: {{ {name}: 'http://SIMULATOR{base}' }}, api_key: k, disable_cooldown: true, {blind} }}\n"
        );
        aliases += &format!(
            "  to-{name}: {{ use_image_fallthrough: true, targets: [ {{ provider: {name}, model: blind }} ] }}\n"
        );
    }
    text + &format!(
        "  seer: {{ api_base_url: '{describer}', api_key: k, disable_cooldown: true }}\n\
         models:\n{aliases}\
         \x20 mixed: {{ use_image_fallthrough: true, selector: in_order, targets: [ {{ provider: chat, model: 'blind+status=500' }}, {{ provider: chat, model: seeing }} ] }}\n\
         \x20 plain: {{ targets: [ {{ provider: chat, model: blind }} ] }}\n\
         \x20 eyes: {{ use_image_fallthrough: true, targets: [ {{ provider: seer, model: m }} ] }}\n\
         keys: {{ app: {{ secret: sk-plexus-tests }}, near: {{ secret: sk-near, excludedProviders: [seer] }} }}\n\
         vision_fallthrough: {{ descriptor_model: eyes, default_prompt: 'What is there?' }}\n"
    )
}

/// A describer that always says yes.
fn seer() -> Upstream {
    Upstream::start(|mut wire| {
        while wire.request().is_some() {
            wire.answer("200 OK", COMPLETION);
        }
    })
}

fn gateway(seer: &Upstream) -> Gateway {
    Gateway::with(&file(&format!("http://{}/v1", seer.address)))
}

/// Asks about an image, of a number of its own.
fn ask(gateway: &Gateway, alias: &str, number: usize) -> Response {
    let url = format!("data:image/png;base64,{PIXEL}{number:04}");
    gateway.ask(
        "/v1/chat/completions",
        &json!({ "model": alias, "messages": [{ "role": "user", "content": [
            { "type": "text", "text": "what is this?" },
            { "type": "image_url", "image_url": { "url": url } }] }] }),
    )
}

#[test]
fn any_client_and_any_blind_target_are_told_in_words_and_each_image_is_described_once() {
    let seer = seer();
    let gateway = gateway(&seer);
    let mut requests = 0;
    for client in Dialect::FOUR {
        for target in Dialect::FOUR {
            for stream in [false, true] {
                let mut talk = Talk::new(client);
                talk.tools = false;
                talk.thinking = false;
                talk.user("what is this?", true);
                let alias = format!("to-{}", target.name());
                let (answer, said) = talk.try_ask(&gateway, &alias, stream);
                let what = format!("{client:?} to {target:?}: {}", answer.text());
                assert!(said.is_some(), "{what}");
                assert_eq!(
                    answer.header("x-plexus-notes"),
                    Some("emulated:images"),
                    "{what}"
                );
                let (facts, images) = told(target, &last_body(&gateway));
                assert_eq!(images, 0, "{what}");
                let Some(Fact::User(text)) = facts.first() else {
                    panic!("{what}: {facts:?}")
                };
                // Chat providers get neighbouring texts as one, with a blank line.
                assert_eq!(
                    text.replace("\n\n", ""),
                    format!("what is this?{WORDS}"),
                    "{what}"
                );
                requests += 1;
            }
        }
    }
    assert_eq!(seer.requests(), 1, "it is the same image");
    let rows = gateway.rows(requests + 1);
    let described: Vec<_> = rows
        .iter()
        .filter(|row| row["attribution"] == "vision")
        .collect();
    assert_eq!((rows.len(), described.len()), (requests + 1, 1));
    let row = described[0];
    assert_eq!(row["apiKey"], "app");
    assert_eq!(row["incomingModelAlias"], "eyes");
    assert_eq!(row["provider"], "seer");
    assert_eq!(row["responseStatus"], "success");
    let client = row["clientRequestId"]
        .as_str()
        .unwrap()
        .strip_prefix("desc-")
        .unwrap();
    let of = rows.iter().find(|row| row["requestId"] == client).unwrap();
    assert_eq!(
        (&of["apiKey"], &of["isPassthrough"]),
        (&json!("app"), &json!(false))
    );
}

#[test]
fn an_image_that_a_tool_gave_is_described_and_all_else_keeps_its_bytes() {
    let seer = seer();
    let gateway = gateway(&seer);
    let body = format!(
        r#"{{ "max_tokens" : 99, "model":"to-messages", "zz":1.0, "messages":[{{"role":"user","content":"go"}},{{"role":"assistant","content":[{{"type":"tool_use","id":"t","name":"see","input":{{}}}}]}},{{"role":"user","content":[{{"type":"tool_result","tool_use_id":"t","content":[{{"type":"image","source":{{"type":"base64","media_type":"image/png","data":"{PIXEL}"}}}}]}}]}}]}}"#
    );
    let headers = [
        ("authorization", "Bearer sk-plexus-tests"),
        ("content-type", "application/json"),
    ];
    gateway
        .request("POST", "/v1/messages", &headers, &body)
        .expect(200);
    let image = format!(
        r#"{{"type":"image","source":{{"type":"base64","media_type":"image/png","data":"{PIXEL}"}}}}"#
    );
    let words = json!({ "type": "text", "text": WORDS }).to_string();
    let wanted = body.replace(&image, &words).replace("to-messages", "blind");
    let requests = gateway.provider.simulator.requests();
    let sent = requests.last().unwrap().body.clone().unwrap();
    assert_eq!(String::from_utf8_lossy(&sent), wanted);
}

#[test]
fn a_target_that_sees_gets_the_image_itself() {
    let seer = seer();
    let gateway = gateway(&seer);
    let answer = ask(&gateway, "mixed", 1).expect(200);
    assert_eq!(
        answer.header("x-plexus-route"),
        Some("chat/seeing; attempts=2")
    );
    assert_eq!(answer.header("x-plexus-notes"), None);
    let requests = gateway.provider.simulator.requests();
    let bodies: Vec<String> = requests
        .iter()
        .map(|request| String::from_utf8_lossy(request.body.as_ref().unwrap()).into_owned())
        .collect();
    assert!(bodies[0].contains("yes") && !bodies[0].contains(PIXEL));
    assert!(bodies[1].contains(PIXEL) && !bodies[1].contains("image_description"));
    assert_eq!(seer.requests(), 1);
}

#[test]
fn without_a_description_the_request_goes_on_as_it_came() {
    let gateway = Gateway::with(&file(&format!("http://{}/v1", nobody())));
    let answer = ask(&gateway, "to-chat", 1).expect(200);
    assert_eq!(
        answer.header("x-plexus-notes"),
        Some("dropped:image_descriptions")
    );
    assert!(last_body(&gateway).to_string().contains(PIXEL));
    let rows = gateway.rows(2);
    let failed = rows
        .iter()
        .find(|row| row["attribution"] == "vision")
        .unwrap();
    assert_eq!(failed["responseStatus"], "error");
}

#[test]
fn what_is_not_asked_for_is_not_described() {
    let seer = seer();
    let gateway = gateway(&seer);
    ask(&gateway, "plain", 1).expect(200);
    assert!(
        last_body(&gateway).to_string().contains(PIXEL),
        "the alias says nothing"
    );
    let (path, mut body) = Dialect::Chat.ask("to-chat", false);
    gateway.ask(&path, &body).expect(200);
    body["messages"] = json!([{ "role": "user", "content": [
        { "type": "image_url", "image_url": { "url": format!("data:image/png;base64,{PIXEL}") } }] }]);
    let strict = [
        ("authorization", "Bearer sk-plexus-tests"),
        ("x-plexus-strict", "1"),
    ];
    gateway
        .request("POST", &path, &strict, body.to_string())
        .expect(200);
    assert!(last_body(&gateway).to_string().contains(PIXEL), "strict");
    // Its images may not go to the describer's provider.
    let near = [("authorization", "Bearer sk-near")];
    let answer = gateway
        .request("POST", &path, &near, body.to_string())
        .expect(200);
    assert_eq!(
        answer.header("x-plexus-notes"),
        Some("dropped:image_descriptions")
    );
    assert_eq!(seer.requests(), 0);
}

#[test]
fn many_images_are_described_a_few_at_a_time_and_anew_when_they_are_forgotten() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (busy, peak) = (Arc::clone(&now), Arc::clone(&most));
    let seer = Upstream::start(move |mut wire| {
        while wire.request().is_some() {
            peak.fetch_max(busy.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            std::thread::yield_now();
            busy.fetch_sub(1, Ordering::SeqCst);
            wire.answer("200 OK", COMPLETION);
        }
    });
    let gateway = gateway(&seer);
    let image = |number: usize| {
        let url = format!("data:image/png;base64,{PIXEL}{number:04}");
        json!({ "type": "image_url", "image_url": { "url": url } })
    };
    let images: Vec<Value> = (0..20).map(image).collect();
    let body = json!({ "model": "to-chat", "messages": [{ "role": "user", "content": images }] });
    gateway.ask("/v1/chat/completions", &body).expect(200);
    assert_eq!(seer.requests(), 20);
    assert!(most.load(Ordering::SeqCst) <= 4);
    assert_eq!(last_body(&gateway).to_string().matches("yes").count(), 20);
    ask(&gateway, "to-chat", 7).expect(200);
    assert_eq!(seer.requests(), 20);
    let path = "/v0/management/cache/vision-descriptor/clear";
    let cleared = gateway.admin("POST", path, &Value::Null).expect(200).json();
    assert_eq!(cleared["message"], "Vision descriptor cache cleared.");
    ask(&gateway, "to-chat", 7).expect(200);
    assert_eq!(seer.requests(), 21);
    let many: Vec<Value> = (100..165).map(image).collect();
    let body = json!({ "model": "to-chat", "messages": [{ "role": "user", "content": many }] });
    let answer = gateway.ask("/v1/chat/completions", &body).expect(200);
    assert_eq!(
        answer.header("x-plexus-notes"),
        Some("dropped:image_descriptions")
    );
}

/// A describer that answers when it is told to, to one request at a time.
fn patient() -> (Upstream, Arc<AtomicBool>) {
    let open = Arc::new(AtomicBool::new(false));
    let opened = Arc::clone(&open);
    let seer = Upstream::start(move |mut wire| {
        while wire.request().is_some() {
            support::await_some("the word", || opened.load(Ordering::SeqCst).then_some(()));
            wire.answer("200 OK", COMPLETION);
        }
    });
    (seer, open)
}

#[test]
fn who_asks_about_an_image_that_is_being_described_waits_for_that() {
    let (seer, open) = patient();
    let gateway = gateway(&seer);
    std::thread::scope(|scope| {
        let clients = [(); 3].map(|()| scope.spawn(|| ask(&gateway, "to-chat", 1)));
        support::await_some("the first", || (seer.requests() == 1).then_some(()));
        // All of them are there: each is a request under way.
        let running = || gateway.app.metrics.running();
        support::await_some("the describer's request", || {
            (running().len() == 1).then_some(())
        });
        open.store(true, Ordering::SeqCst);
        for client in clients {
            let answer = client.join().unwrap().expect(200);
            assert_eq!(answer.header("x-plexus-notes"), Some("emulated:images"));
        }
    });
    assert_eq!(seer.requests(), 1);
}

#[test]
fn descriptions_count_on_the_quota_of_the_key_that_asks() {
    let seer = seer();
    let text = file(&format!("http://{}/v1", seer.address));
    let text = text.replace("app: { secret:", "app: { quotas: [few], secret:");
    let gateway = Gateway::with(&format!(
        "{text}user_quotas: {{ few: {{ type: daily, limitType: requests, limit: 4 }} }}\n"
    ));
    for number in [1, 2] {
        let told = ask(&gateway, "to-chat", number).expect(200);
        assert_eq!(told.header("x-plexus-notes"), Some("emulated:images"));
        // The answer's head is sent before the description's row is written.
        gateway.rows(2 * number);
    }
    // Two requests and two descriptions: nothing is left.
    ask(&gateway, "to-chat", 2).expect(429);
    let rows = gateway.rows(5);
    assert!(rows.iter().all(|row| row["apiKey"] == "app"), "{rows:?}");
    assert_eq!(seer.requests(), 2);
}

#[test]
fn an_image_that_no_quota_is_left_for_is_not_described() {
    let seer = seer();
    let text = file(&format!("http://{}/v1", seer.address));
    let text = text.replace("app: { secret:", "app: { quotas: [one], secret:");
    let gateway = Gateway::with(&format!(
        "{text}user_quotas: {{ one: {{ type: daily, limitType: requests, limit: 1 }} }}\n"
    ));
    let told = ask(&gateway, "to-chat", 1).expect(200);
    assert_eq!(
        told.header("x-plexus-notes"),
        Some("dropped:image_descriptions")
    );
    assert_eq!(seer.requests(), 0);
}

#[test]
fn a_client_that_leaves_takes_its_descriptions_along() {
    let (seer, open) = patient();
    let text = file(&format!("http://{}/v1", seer.address));
    let narrow = text.replace("  seer: {", "  seer: { maxConcurrency: 1,");
    let gateway = Gateway::with(&narrow);
    let url = format!("data:image/png;base64,{PIXEL}");
    let body = json!({ "model": "to-chat", "messages": [{ "role": "user", "content": [
        { "type": "image_url", "image_url": { "url": url } }] }] });
    let headers = [("authorization", "Bearer sk-plexus-tests")];
    let path = "/v1/chat/completions";
    let bytes = support::client::bytes("POST", path, &headers, body.to_string().as_bytes());
    let mut stream = gateway.client().connect();
    std::io::Write::write_all(&mut stream, &bytes).unwrap();
    support::await_some("the description", || (seer.requests() == 1).then_some(()));
    drop(stream);
    let rows = gateway.rows(2);
    assert!(rows.iter().all(|row| row["responseStatus"] == "cancelled"));
    let house = gateway.app.switchboard.standings.house(&"seer".into());
    support::await_some("the permit", || (house.permits.active() == 0).then_some(()));
    open.store(true, Ordering::SeqCst);
    ask(&gateway, "to-chat", 2).expect(200);
}

#[test]
fn clients_are_told_that_the_alias_takes_images() {
    let seer = seer();
    let gateway = gateway(&seer);
    let list = gateway
        .request("GET", "/v1/models", &[], "")
        .expect(200)
        .json();
    let models = list["data"].as_array().unwrap();
    let inputs = |id: &str| {
        let model = models.iter().find(|model| model["id"] == id).unwrap();
        model["architecture"]["input_modalities"].clone()
    };
    assert_eq!(inputs("to-chat"), json!(["text", "image"]));
    assert_eq!(inputs("plain"), Value::Null);
}

#[test]
fn a_request_that_fits_no_context_is_told_so_and_one_that_fits_another_goes_there() {
    let file = "providers:\n\
        \x20 p: { api_base_url: { chat: 'http://SIMULATOR/v1', messages: 'http://SIMULATOR/v1', responses: 'http://SIMULATOR/v1', gemini: 'http://SIMULATOR' }, api_key: k,\n\
        \x20      models: { short: { capabilities: { context: 1000, max_output: 100 } }, long: { capabilities: { context: 9000, max_output: 100 } }, open: {} } }\n\
        models:\n\
        \x20 both: { enforce_limits: true, selector: in_order, targets: [ { provider: p, model: short }, { provider: p, model: long } ] }\n\
        \x20 free: { selector: in_order, targets: [ { provider: p, model: short } ] }\n\
        \x20 told: { enforce_limits: true, targets: [ { provider: p, model: open } ], metadata: { source: custom, overrides: { name: n, context_length: 2000 } } }\n\
        keys: { app: { secret: sk-plexus-tests } }\n";
    let gateway = Gateway::with(file);
    let ask = |dialect: Dialect, alias: &str, words: usize| {
        let mut talk = Talk::new(dialect);
        talk.tools = false;
        talk.thinking = false;
        talk.user(&"word ".repeat(words), false);
        let (path, body) = talk.request(alias, false);
        gateway.ask(&path, &body)
    };
    for dialect in Dialect::FOUR {
        let route = |words| {
            let answer = ask(dialect, "both", words).expect(200);
            answer.header("x-plexus-route").unwrap().to_owned()
        };
        assert_eq!(route(100), "p/short; attempts=1");
        assert_eq!(route(2000), "p/long; attempts=1");
        let before = gateway.provider.simulator.requests().len();
        let refused = ask(dialect, "both", 20_000).expect(400);
        assert!(
            refused.text().contains("prompt is too long"),
            "{}",
            refused.text()
        );
        if matches!(dialect, Dialect::Chat | Dialect::Responses) {
            assert_eq!(refused.json()["error"]["code"], "context_length_exceeded");
        }
        assert_eq!(refused.header("x-plexus-error-source"), Some("gateway"));
        ask(dialect, "told", 3000).expect(400);
        assert_eq!(gateway.provider.simulator.requests().len(), before);
        ask(dialect, "free", 20_000).expect(200);
    }
}
