//! Golden translations: what a client sends, what the provider must get; what
//! the provider answers, what the client must see. Each fixture is one JSON file
//! in `tests/fixtures/translation`, run by the one runner here.
//!
//! A fixture has `from` and `to` (protocols), `model` and `host` (what the
//! provider serves and where), and any of:
//!
//! - `request`, with `sent` (the provider's request, whole), `sends` (members of
//!   it that must be so, found anywhere in an object by name, arrays in full) or
//!   `refused` (`param`, and optionally `class`, `says`);
//! - `notes`: the whole value of `x-plexus-notes`, or `null` for none, or
//!   `notes_have`: parts of it;
//! - `answer`, with `got` or `gets`: a whole answer, and what the client sees;
//! - `stream`: the provider's stream, one string a frame, with `got_stream`: the
//!   client's frames. It is fed whole, byte by byte and in random pieces.
//!
//! In what is expected, the string `<any>` stands for any value, and a string
//! that begins with `<is ` names a type: `<is number>`, `<is string>`.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "in helpers of tests a failure is the test's failure"
)]

use std::path::PathBuf;

use bytes::BytesMut;
use plexus::protocol::Protocol;
use plexus::protocol::capabilities::Capabilities;
use plexus::protocol::filter::Fixups;
use plexus::protocol::ir::{Display, Invalid};
use plexus::protocol::json::Tape;
use plexus::protocol::notes::Notes;
use plexus::protocol::translate::{Encoded, Reply, Target, decode_request, encode_request};
use plexus::protocol::translator::{Translator, document};
use serde_json::Value;

struct Fixture {
    name: String,
    json: Value,
}

impl Fixture {
    fn all() -> Vec<Self> {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/translation");
        let mut all: Vec<Self> = std::fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|ext| ext == "json"))
            .map(|path| Self {
                name: path.file_stem().unwrap().to_string_lossy().into_owned(),
                json: serde_json::from_str(&std::fs::read_to_string(&path).unwrap())
                    .unwrap_or_else(|error| panic!("{}: {error}", path.display())),
            })
            .collect();
        all.sort_by(|one, other| one.name.cmp(&other.name));
        assert!(!all.is_empty(), "no fixtures in {}", folder.display());
        all
    }

    fn get(&self, name: &str) -> Option<&Value> {
        self.json.get(name)
    }

    fn text(&self, name: &str) -> &str {
        self.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    fn protocol(&self, name: &str) -> Protocol {
        Protocol::from_name(self.text(name))
            .unwrap_or_else(|| panic!("{}: no protocol in '{name}'", self.name))
    }

    fn able(&self) -> Capabilities {
        let known = Capabilities::of(self.protocol("to"), self.text("host"), self.text("model"));
        match self.get("capabilities").and_then(Value::as_object) {
            Some(over) => known.overridden(over),
            None => known,
        }
    }

    /// What the client's request becomes.
    fn encode(&self) -> (Result<Encoded, Invalid>, Notes, Reply) {
        let body = self.get("request").map_or_else(
            || minimal(self.protocol("from")).to_string(),
            |request| match request {
                Value::String(raw) => raw.clone(),
                other => other.to_string(),
            },
        );
        let mut notes = Notes::new();
        let mut tape = Tape::new();
        let mut reply = self.reply(&body);
        let able = self.able();
        let encoded = tape
            .parse(&body)
            .map_err(|fault| Invalid::request("", fault.to_string()))
            .and_then(|root| decode_request(self.protocol("from"), root, &mut notes))
            .and_then(|mut request| {
                request.stream |= self.get("stream").is_some();
                let display = request.reasoning.as_ref().map(|r| r.display);
                reply.show_reasoning = match self.protocol("from") {
                    Protocol::Gemini | Protocol::Responses => display == Some(Display::Summary),
                    _ => display != Some(Display::Omit),
                };
                reply.include_usage = request.include_usage;
                reply.legacy_functions = request.legacy_functions;
                reply.custom_tools = request.custom_tools;
                let wanted = "reasoning.encrypted_content";
                reply.encrypted_reasoning =
                    request.state.include.iter().any(|name| name.is(wanted));
                let target = Target {
                    protocol: self.protocol("to"),
                    model: self.text("model"),
                    capabilities: &able,
                    account: "account",
                    stream: request.stream,
                };
                encode_request(&request, &target, &mut notes)
            });
        (encoded, notes, reply)
    }

    fn reply(&self, body: &str) -> Reply {
        let mut tape = Tape::new();
        let echo = match (self.protocol("from"), tape.parse(body)) {
            (Protocol::Responses, Ok(root)) => plexus::protocol::responses::echo::members(root),
            _ => String::new(),
        };
        Reply {
            id: "0123456789ABCDEFGHIJKLMN".into(),
            model: "alias".into(),
            upstream_model: self.text("model").into(),
            account: "account".into(),
            created: 1_700_000_000,
            array: self.get("array").and_then(Value::as_bool).unwrap_or(false),
            echo,
            ..Reply::plain(self.protocol("from"), self.protocol("to"))
        }
    }
}

fn minimal(protocol: Protocol) -> Value {
    match protocol {
        Protocol::Responses => serde_json::json!({"model":"alias","input":"hi"}),
        Protocol::Messages => {
            serde_json::json!({"model":"alias","max_tokens":100,"messages":[{"role":"user","content":"hi"}]})
        }
        Protocol::Gemini => {
            serde_json::json!({"contents":[{"parts":[{"text":"hi"}]}],"generationConfig":{"thinkingConfig":{"includeThoughts":true}}})
        }
        Protocol::Completions => serde_json::json!({"model":"alias","prompt":"hi"}),
        _ => serde_json::json!({"model":"alias","messages":[{"role":"user","content":"hi"}]}),
    }
}

/// Whether what was found is what is wanted; the path of the first difference
/// otherwise. `partly` lets objects have more members.
fn differs(wanted: &Value, found: &Value, partly: bool, path: &str) -> Option<String> {
    match (wanted, found) {
        (Value::String(word), _) if word == "<any>" => None,
        (Value::String(word), _) if word.starts_with("<is ") => {
            let is = match found {
                Value::Number(_) => "<is number>",
                Value::String(_) => "<is string>",
                Value::Array(_) => "<is array>",
                Value::Object(_) => "<is object>",
                Value::Bool(_) => "<is boolean>",
                Value::Null => "<is null>",
            };
            (word != is).then(|| format!("{path}: wanted {word}, found {found}"))
        }
        (Value::Object(wanted), Value::Object(found)) => {
            for (name, value) in wanted {
                let here = format!("{path}.{name}");
                let Some(other) = found.get(name) else {
                    if partly && value == "<absent>" {
                        continue;
                    }
                    return Some(format!("{here} is missing"));
                };
                if let Some(difference) = differs(value, other, partly, &here) {
                    return Some(difference);
                }
            }
            let mut more = found.keys().filter(|name| !wanted.contains_key(*name));
            if partly {
                return None;
            }
            more.next().map(|name| format!("{path}.{name} is too much"))
        }
        (Value::Array(wanted), Value::Array(found)) => {
            if wanted.len() != found.len() {
                return Some(format!(
                    "{path}: wanted {} elements, found {}",
                    wanted.len(),
                    found.len()
                ));
            }
            wanted
                .iter()
                .zip(found)
                .enumerate()
                .find_map(|(i, (wanted, found))| {
                    differs(wanted, found, partly, &format!("{path}[{i}]"))
                })
        }
        _ => (wanted != found).then(|| format!("{path}: wanted {wanted}, found {found}")),
    }
}

fn compare(fixture: &Fixture, what: &str, whole: &str, part: &str, found: &Value) {
    for (name, partly) in [(whole, false), (part, true)] {
        if let Some(wanted) = fixture.get(name)
            && let Some(difference) = differs(wanted, found, partly, name)
        {
            let found = serde_json::to_string_pretty(found).unwrap();
            panic!("{}: {what}: {difference}\nfound: {found}", fixture.name);
        }
    }
}

fn parsed(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(bytes)))
}

fn request(fixture: &Fixture) -> (Fixups, Reply) {
    let (encoded, notes, reply) = fixture.encode();
    if let Some(refused) = fixture.get("refused") {
        let invalid = match encoded {
            Err(invalid) => invalid,
            Ok(encoded) => panic!("{}: not refused: {:?}", fixture.name, encoded.body),
        };
        let param = refused.get("param").and_then(Value::as_str);
        assert_eq!(
            invalid.param.as_deref(),
            param,
            "{}: {invalid}",
            fixture.name
        );
        if let Some(says) = refused.get("says").and_then(Value::as_str) {
            assert!(
                invalid.message.contains(says),
                "{}: {invalid}",
                fixture.name
            );
        }
        return (Fixups::default(), reply);
    }
    let encoded = encoded.unwrap_or_else(|invalid| {
        panic!("{}: refused: {invalid} ({:?})", fixture.name, invalid.param)
    });
    compare(fixture, "sent", "sent", "sends", &parsed(&encoded.body));
    if let Some(notes_wanted) = fixture.get("notes") {
        let header = notes.header();
        assert_eq!(
            header.as_deref(),
            notes_wanted.as_str(),
            "{}: notes",
            fixture.name
        );
    }
    let header = notes.header().unwrap_or_default();
    for has in fixture
        .get("notes_have")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        let has = has.as_str().unwrap();
        assert!(
            header.contains(has),
            "{}: no '{has}' in '{header}'",
            fixture.name
        );
    }
    (encoded.fixups, reply)
}

fn answer(fixture: &Fixture, fixups: Fixups, reply: Reply) {
    let Some(answer) = fixture.get("answer") else {
        return;
    };
    let body = match answer {
        Value::String(raw) => raw.clone(),
        other => other.to_string(),
    };
    match document(body.as_bytes(), fixups, reply, false) {
        Ok(translated) => {
            assert!(
                fixture.get("fails").is_none(),
                "{}: did not fail",
                fixture.name
            );
            compare(fixture, "got", "got", "gets", &parsed(&translated.body));
        }
        Err(error) => {
            let says = fixture.get("fails").and_then(Value::as_str);
            assert!(
                says.is_some_and(|says| error.message.contains(says)),
                "{}: failed: {error:?}",
                fixture.name
            );
        }
    }
}

fn frames(fixture: &Fixture) -> Option<String> {
    let frames = fixture.get("stream")?.as_array()?;
    let mut all = String::new();
    for frame in frames {
        match frame {
            Value::String(raw) => all.push_str(raw),
            data => {
                let name = data.get("type").and_then(Value::as_str);
                if let Some(name) = name
                    && matches!(
                        fixture.protocol("to"),
                        Protocol::Messages | Protocol::Responses
                    )
                {
                    all.push_str(&format!("event: {name}\n"));
                }
                all.push_str(&format!("data: {data}"));
            }
        }
        all.push_str("\n\n");
    }
    Some(all)
}

fn translated(input: &str, cuts: &[usize], fixups: Fixups, reply: Reply) -> String {
    let mut translator = Translator::new(fixups, reply);
    let mut out = BytesMut::new();
    let mut from = 0;
    for to in cuts.iter().copied().chain([input.len()]) {
        translator.push(&input.as_bytes()[from..to], &mut out);
        from = to;
    }
    translator.finish(&mut out);
    String::from_utf8(out.to_vec()).unwrap()
}

fn stream(fixture: &Fixture, fixups: &Fixups, reply: &Reply) {
    let Some(input) = frames(fixture) else {
        return;
    };
    let whole = translated(&input, &[], fixups.clone(), reply.clone());
    let every: Vec<usize> = (0..input.len()).collect();
    let bytewise = translated(&input, &every, fixups.clone(), reply.clone());
    assert_eq!(whole, bytewise, "{}: cut at every byte", fixture.name);
    for seed in 1..6usize {
        let cuts: Vec<usize> = (0..input.len()).filter(|at| at % (seed * 7) == 3).collect();
        let cut = translated(&input, &cuts, fixups.clone(), reply.clone());
        assert_eq!(whole, cut, "{}: cut in pieces", fixture.name);
    }
    let Some(wanted) = fixture.get("got_stream").and_then(Value::as_array) else {
        return;
    };
    let found = client_frames(&whole);
    for (i, wanted) in wanted.iter().enumerate() {
        let Some(found) = found.get(i) else {
            panic!("{}: frame {i} is missing in\n{whole}", fixture.name);
        };
        if let Some(difference) = differs(wanted, found, true, &format!("got_stream[{i}]")) {
            panic!("{}: {difference}\n{whole}", fixture.name);
        }
    }
    assert_eq!(
        found.len(),
        wanted.len(),
        "{}: frames too many in\n{whole}",
        fixture.name
    );
}

/// The data of each frame; what is no JSON as a string. A JSON array gives its
/// elements.
fn client_frames(text: &str) -> Vec<Value> {
    if text.starts_with('[') {
        let Value::Array(all) = parsed(text.as_bytes()) else {
            panic!("no array: {text}");
        };
        return all;
    }
    let frames = text.split("\n\n").filter(|frame| !frame.trim().is_empty());
    let data = frames.filter_map(|frame| {
        let lines = frame.lines().filter_map(|line| line.strip_prefix("data: "));
        let data: Vec<&str> = lines.collect();
        (!data.is_empty()).then(|| data.join("\n"))
    });
    data.map(|data| serde_json::from_str(&data).unwrap_or(Value::String(data)))
        .collect()
}

#[test]
fn every_fixture_translates_as_it_says() {
    let mut failed = Vec::new();
    for fixture in Fixture::all() {
        let run = std::panic::catch_unwind(|| {
            let (fixups, reply) = request(&fixture);
            answer(&fixture, fixups.clone(), reply.clone());
            stream(&fixture, &fixups, &reply);
        });
        if let Err(panic) = run {
            let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
            failed.push(format!("{}: {text}", fixture.name));
        }
    }
    assert!(
        failed.is_empty(),
        "{} failed:\n{}",
        failed.len(),
        failed.join("\n")
    );
}

/// A model and where it is served, for each protocol.
const SERVED: [(Protocol, &str, &str); 4] = [
    (Protocol::Chat, "api.openai.com", "gpt-5.1"),
    (Protocol::Responses, "api.openai.com", "gpt-5.1"),
    (Protocol::Messages, "api.anthropic.com", "claude-opus-4-5"),
    (
        Protocol::Gemini,
        "generativelanguage.googleapis.com",
        "gemini-3-pro",
    ),
];

/// A request with a tool of that schema, called before with these arguments.
fn with_tool(from: Protocol, schema: &str, arguments: &str) -> String {
    let text = Value::from(arguments);
    match from {
        Protocol::Responses => format!(
            r#"{{"model":"m","input":[{{"role":"user","content":"q"}},{{"type":"function_call","call_id":"c","name":"f","arguments":{text}}},{{"type":"function_call_output","call_id":"c","output":"ok"}}],"tools":[{{"type":"function","name":"f","parameters":{schema}}}]}}"#
        ),
        Protocol::Messages => format!(
            r#"{{"model":"m","max_tokens":9,"messages":[{{"role":"user","content":"q"}},{{"role":"assistant","content":[{{"type":"tool_use","id":"c","name":"f","input":{arguments}}}]}},{{"role":"user","content":[{{"type":"tool_result","tool_use_id":"c","content":"ok"}}]}}],"tools":[{{"name":"f","input_schema":{schema}}}]}}"#
        ),
        Protocol::Gemini => format!(
            r#"{{"contents":[{{"role":"user","parts":[{{"text":"q"}}]}},{{"role":"model","parts":[{{"functionCall":{{"name":"f","args":{arguments}}}}}]}},{{"role":"user","parts":[{{"functionResponse":{{"name":"f","response":{{"output":"ok"}}}}}}]}}],"tools":[{{"functionDeclarations":[{{"name":"f","parametersJsonSchema":{schema}}}]}}]}}"#
        ),
        _ => format!(
            r#"{{"model":"m","messages":[{{"role":"user","content":"q"}},{{"role":"assistant","tool_calls":[{{"id":"c","type":"function","function":{{"name":"f","arguments":{text}}}}}]}},{{"role":"tool","tool_call_id":"c","content":"ok"}}],"tools":[{{"type":"function","function":{{"name":"f","parameters":{schema}}}}}]}}"#
        ),
    }
}

proptest::proptest! {
    /// Names in any order, numbers with any digits.
    #[test]
    fn arguments_and_schemas_keep_their_order_and_digits_in_every_pair(
        members in proptest::collection::hash_map("[a-z]{1,8}", "[1-9][0-9]{0,24}(\\.[0-9]{1,8})?", 1..9)
    ) {
        let list = |member: &dyn Fn(&String, &String) -> String| {
            let all: Vec<String> = members.iter().map(|(name, value)| member(name, value)).collect();
            format!("{{{}}}", all.join(","))
        };
        let arguments = list(&|name, value| format!(r#""{name}":[{value},{{"{name}":{value}}}]"#));
        let properties = list(&|name, value| format!(r#""{name}":{{"type":"number","maximum":{value}}}"#));
        let schema = format!(r#"{{"type":"object","properties":{properties}}}"#);
        for (from, _, _) in SERVED {
            for (to, host, model) in SERVED.into_iter().filter(|(to, ..)| *to != from) {
                let body = with_tool(from, &schema, &arguments);
                let able = Capabilities::of(to, host, model);
                let target = Target { protocol: to, model, capabilities: &able, account: "a", stream: false };
                let (mut tape, mut notes) = (Tape::new(), Notes::new());
                let request = decode_request(from, tape.parse(&body).unwrap(), &mut notes).unwrap();
                let sent = encode_request(&request, &target, &mut notes).unwrap().body;
                let sent = String::from_utf8(sent.to_vec()).unwrap();
                let told = match to {
                    Protocol::Chat | Protocol::Responses => Value::from(arguments.as_str()).to_string(),
                    _ => arguments.clone(),
                };
                proptest::prop_assert!(sent.contains(&told), "{from} to {to}: {told}\n{sent}");
                proptest::prop_assert!(sent.contains(&properties), "{from} to {to}: {properties}\n{sent}");
            }
        }
    }
}
