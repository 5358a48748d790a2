//! Conversations as clients lead them: each turn carries all that was said before,
//! as the protocol's own SDK would carry it, and what the provider gets of it.

use serde_json::{Value, json};

use super::dialect::{Dialect, Ending};
use super::{Gateway, Response};

/// A provider for each protocol; models are asked for as `direct/PROVIDER/MODEL`.
pub(crate) const PROVIDERS: &str = "\
providers:
  chat: { api_base_url: { chat: 'http://SIMULATOR/v1' }, api_key: up-chat }
  messages: { api_base_url: { messages: 'http://SIMULATOR/v1' }, api_key: up-messages }
  responses: { api_base_url: { responses: 'http://SIMULATOR/v1' }, api_key: up-responses }
  gemini: { api_base_url: { gemini: 'http://SIMULATOR' }, api_key: up-gemini }
keys:
  app: { secret: sk-plexus-tests }
  other: { secret: sk-other }
";

/// A model of a provider that is strict, and of that family as far as the table of
/// capabilities goes.
pub(crate) fn model(provider: Dialect, options: &str) -> String {
    let family = match provider {
        Dialect::Chat => "gpt-5.1",
        Dialect::Responses => "gpt-5",
        Dialect::Messages => "claude-sonnet-4-5",
        _ => "gemini-3-pro",
    };
    let options = match options {
        "" => String::new(),
        options => format!("+{options}"),
    };
    format!("direct/{}/{family}+strict{options}", provider.name())
}

/// The body of the last request that the provider got.
pub(crate) fn last_body(gateway: &Gateway) -> Value {
    let requests = gateway.provider.simulator.requests();
    let body = requests.last().unwrap().body.clone().unwrap();
    serde_json::from_slice(&body).unwrap()
}

/// A PNG of one pixel.
pub(crate) const PIXEL: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";

/// What was said, in no protocol.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Fact {
    User(String),
    Assistant(String),
    Call(String, Value),
    Result(String),
}

/// A tool call as the client sees it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Called {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) arguments: Value,
}

/// An answer as the client's SDK puts it together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Said {
    pub(crate) text: String,
    pub(crate) reasoning: String,
    pub(crate) calls: Vec<Called>,
    /// Of input and output, all parts in them.
    pub(crate) tokens: (u64, u64),
    /// What the client sends back of it.
    pub(crate) turns: Vec<Value>,
    pub(crate) finish: String,
}

/// A conversation in one protocol.
pub(crate) struct Talk {
    pub(crate) dialect: Dialect,
    pub(crate) turns: Vec<Value>,
    /// What the provider must have got of it.
    pub(crate) facts: Vec<Fact>,
    pub(crate) images: usize,
    pub(crate) tools: bool,
    pub(crate) thinking: bool,
    /// Further members of the body.
    pub(crate) extra: Value,
}

impl Talk {
    pub(crate) fn new(dialect: Dialect) -> Self {
        Self {
            dialect,
            turns: Vec::new(),
            facts: Vec::new(),
            images: 0,
            tools: true,
            thinking: true,
            extra: json!({}),
        }
    }

    /// The user says something.
    pub(crate) fn user(&mut self, text: &str, image: bool) {
        let mut parts = vec![match self.dialect {
            Dialect::Responses => json!({"type": "input_text", "text": text}),
            Dialect::Chat | Dialect::Messages => json!({"type": "text", "text": text}),
            _ => json!({"text": text}),
        }];
        if image {
            parts.push(self.image());
        }
        self.turns.push(match self.dialect {
            Dialect::Gemini | Dialect::GeminiArray => json!({"role": "user", "parts": parts}),
            _ => json!({"role": "user", "content": parts}),
        });
        self.facts.push(Fact::User(text.to_owned()));
    }

    fn image(&mut self) -> Value {
        self.images += 1;
        let url = format!("data:image/png;base64,{PIXEL}");
        match self.dialect {
            Dialect::Chat => json!({"type": "image_url", "image_url": {"url": url}}),
            Dialect::Responses => json!({"type": "input_image", "image_url": url}),
            Dialect::Messages => json!({"type": "image",
                "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}),
            _ => json!({"inlineData": {"mimeType": "image/png", "data": PIXEL}}),
        }
    }

    /// What each call came to; the first may be an error, and show an image.
    pub(crate) fn results(&mut self, calls: &[Called], texts: &[String], error: bool, image: bool) {
        let mut blocks = Vec::new();
        for (at, (call, text)) in calls.iter().zip(texts).enumerate() {
            self.facts.push(Fact::Result(text.clone()));
            let (error, image) = (error && at == 0, image && at == 0);
            match self.dialect {
                Dialect::Chat => self
                    .turns
                    .push(json!({"role": "tool", "tool_call_id": call.id, "content": text})),
                Dialect::Responses => {
                    let output = match image {
                        true => json!([{"type": "input_text", "text": text}, self.image()]),
                        false => json!(text),
                    };
                    self.turns.push(json!({"type": "function_call_output",
                        "call_id": call.id, "output": output}));
                }
                Dialect::Messages => {
                    let mut content = vec![json!({"type": "text", "text": text})];
                    if image {
                        content.push(self.image());
                    }
                    blocks.push(json!({"type": "tool_result", "tool_use_id": call.id,
                        "content": content, "is_error": error}));
                }
                _ => {
                    let word = if error { "error" } else { "output" };
                    let mut response = json!({"functionResponse": {"id": call.id,
                        "name": call.name, "response": {word: text}}});
                    if image {
                        response["functionResponse"]["parts"] = json!([self.image()]);
                    }
                    blocks.push(response);
                }
            }
        }
        match self.dialect {
            Dialect::Messages => self.turns.push(json!({"role": "user", "content": blocks})),
            Dialect::Gemini | Dialect::GeminiArray => {
                self.turns.push(json!({"role": "user", "parts": blocks}));
            }
            _ => {}
        }
    }

    /// Path and body of the next request.
    pub(crate) fn request(&self, model: &str, stream: bool) -> (String, Value) {
        let (path, _) = self.dialect.ask(model, stream);
        let turns = &self.turns;
        let mut body = match self.dialect {
            Dialect::Chat => {
                let mut messages = vec![json!({"role": "system", "content": "Be brief."})];
                messages.extend(turns.iter().cloned());
                json!({"model": model, "messages": messages})
            }
            Dialect::Responses => json!({"model": model, "input": turns,
                "instructions": "Be brief.", "store": false,
                "include": ["reasoning.encrypted_content"]}),
            Dialect::Messages => json!({"model": model, "messages": turns,
                "system": "Be brief.", "max_tokens": 8000}),
            _ => json!({"contents": turns,
                "systemInstruction": {"parts": [{"text": "Be brief."}]}}),
        };
        if stream && !matches!(self.dialect, Dialect::Gemini | Dialect::GeminiArray) {
            body["stream"] = json!(true);
        }
        if stream && self.dialect == Dialect::Chat {
            body["stream_options"] = json!({"include_usage": true});
        }
        if self.tools {
            body["tools"] = self.declared();
        }
        if self.thinking {
            let (name, order) = match self.dialect {
                Dialect::Chat => ("reasoning_effort", json!("medium")),
                Dialect::Responses => ("reasoning", json!({"effort": "medium", "summary": "auto"})),
                Dialect::Messages => (
                    "thinking",
                    json!({"type": "enabled", "budget_tokens": 2048}),
                ),
                _ => (
                    "generationConfig",
                    json!({"thinkingConfig": {"includeThoughts": true, "thinkingLevel": "HIGH"}}),
                ),
            };
            body[name] = order;
        }
        for (name, value) in self.extra.as_object().unwrap() {
            body[name] = value.clone();
        }
        (path, body)
    }

    fn declared(&self) -> Value {
        let schema = |name: &str| json!({"type": "object", "properties": {name: {"type": "string"}}, "required": [name]});
        let tools = [("weather", schema("city")), ("read_file", schema("path"))];
        let all: Vec<Value> = tools
            .into_iter()
            .map(|(name, schema)| match self.dialect {
                Dialect::Chat => json!({"type": "function",
                    "function": {"name": name, "parameters": schema}}),
                Dialect::Responses => json!({"type": "function", "name": name,
                    "parameters": schema, "strict": false}),
                Dialect::Messages => json!({"name": name, "input_schema": schema}),
                _ => json!({"name": name, "parametersJsonSchema": schema}),
            })
            .collect();
        match self.dialect {
            Dialect::Gemini | Dialect::GeminiArray => json!([{"functionDeclarations": all}]),
            _ => json!(all),
        }
    }

    /// Asks, and takes the answer into the conversation.
    #[track_caller]
    pub(crate) fn ask(&mut self, gateway: &Gateway, model: &str, stream: bool) -> Said {
        let (answer, said) = self.try_ask(gateway, model, stream);
        said.unwrap_or_else(|| {
            panic!(
                "{:?} to {model}: {} {}",
                self.dialect,
                answer.status,
                answer.text()
            )
        })
    }

    /// As [`Talk::ask`]; the answer may be a refusal.
    pub(crate) fn try_ask(
        &mut self,
        gateway: &Gateway,
        model: &str,
        stream: bool,
    ) -> (Response, Option<Said>) {
        let (path, body) = self.request(model, stream);
        let answer = gateway.ask(&path, &body);
        if answer.status != 200 {
            return (answer, None);
        }
        let said = hear(self.dialect, stream, &answer.body);
        self.turns.extend(said.turns.iter().cloned());
        if !said.text.is_empty() {
            self.facts.push(Fact::Assistant(said.text.clone()));
        }
        for call in &said.calls {
            let fact = Fact::Call(call.name.clone(), call.arguments.clone());
            self.facts.push(fact);
        }
        (answer, Some(said))
    }
}

/// What the client's SDK makes of an answer.
pub(crate) fn hear(dialect: Dialect, stream: bool, body: &[u8]) -> Said {
    let text = String::from_utf8_lossy(body);
    let events: Vec<Value> = if stream {
        assert_eq!(
            dialect.ending(body),
            Ending::Finished,
            "{dialect:?}: {text}"
        );
        let events = dialect.events(body).unwrap();
        events.iter().map(super::dialect::Event::json).collect()
    } else {
        vec![serde_json::from_slice(body).unwrap_or_else(|error| panic!("{error} in {text}"))]
    };
    match (dialect, stream) {
        (Dialect::Chat, true) => chat(&chat_message(&events)),
        (Dialect::Chat, false) => chat(&events[0]),
        (Dialect::Responses, true) => responses(&events[events.len() - 1]["response"]),
        (Dialect::Responses, false) => responses(&events[0]),
        (Dialect::Messages, true) => messages(&message(&events)),
        (Dialect::Messages, false) => messages(&events[0]),
        _ => gemini(&events),
    }
}

fn word(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn append(place: &mut Value, more: &Value) {
    if let Some(more) = more.as_str() {
        *place = json!(format!("{}{more}", place.as_str().unwrap_or_default()));
    }
}

fn arguments(text: &Value) -> Value {
    let text = text.as_str().unwrap_or_else(|| panic!("no arguments"));
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in {text}"))
}

/// The whole completion out of its chunks.
#[expect(clippy::too_many_lines, reason = "one loop over the kinds of a delta")]
fn chat_message(chunks: &[Value]) -> Value {
    let mut message = json!({"role": "assistant", "content": null});
    let (mut calls, mut details) = (Vec::<Value>::new(), Vec::<Value>::new());
    let (mut finish, mut usage) = (Value::Null, Value::Null);
    for chunk in chunks {
        if chunk["usage"].is_object() {
            usage = chunk["usage"].clone();
        }
        let choice = &chunk["choices"][0];
        if choice["finish_reason"].is_string() {
            finish = choice["finish_reason"].clone();
        }
        let delta = &choice["delta"];
        for name in ["content", "reasoning_content"] {
            append(&mut message[name], &delta[name]);
        }
        for detail in delta["reasoning_details"].as_array().into_iter().flatten() {
            let index = &detail["index"];
            let same = |known: &&mut Value| !index.is_null() && known["index"] == *index;
            match details.iter_mut().find(same) {
                None => details.push(detail.clone()),
                Some(known) => {
                    append(&mut known["text"], &detail["text"]);
                    append(&mut known["summary"], &detail["summary"]);
                    for (name, value) in detail.as_object().unwrap() {
                        if !matches!(name.as_str(), "text" | "summary") && !value.is_null() {
                            known[name] = value.clone();
                        }
                    }
                }
            }
        }
        for call in delta["tool_calls"].as_array().into_iter().flatten() {
            let at = usize::try_from(call["index"].as_u64().unwrap()).unwrap();
            if at == calls.len() {
                let mut call = call.clone();
                call.as_object_mut().unwrap().remove("index");
                calls.push(call);
            } else {
                append(
                    &mut calls[at]["function"]["arguments"],
                    &call["function"]["arguments"],
                );
                if call["extra_content"].is_object() {
                    calls[at]["extra_content"] = call["extra_content"].clone();
                }
            }
        }
    }
    for detail in &mut details {
        detail
            .as_object_mut()
            .unwrap()
            .retain(|_, value| !value.is_null());
    }
    message
        .as_object_mut()
        .unwrap()
        .retain(|name, value| name == "content" || !value.is_null());
    if !details.is_empty() {
        message["reasoning_details"] = json!(details);
    }
    if !calls.is_empty() {
        message["tool_calls"] = json!(calls);
    }
    json!({"choices": [{"message": message, "finish_reason": finish}], "usage": usage})
}

fn chat(completion: &Value) -> Said {
    let choice = &completion["choices"][0];
    let message = &choice["message"];
    let calls = message["tool_calls"].as_array().into_iter().flatten();
    let called = |call: &Value| Called {
        id: word(&call["id"]),
        name: word(&call["function"]["name"]),
        arguments: arguments(&call["function"]["arguments"]),
    };
    Said {
        text: word(&message["content"]),
        reasoning: word(&message["reasoning_content"]),
        calls: calls.map(called).collect(),
        tokens: (
            completion["usage"]["prompt_tokens"].as_u64().unwrap_or(0),
            completion["usage"]["completion_tokens"]
                .as_u64()
                .unwrap_or(0),
        ),
        turns: vec![message.clone()],
        finish: word(&choice["finish_reason"]),
    }
}

fn responses(response: &Value) -> Said {
    let mut said = Said::default();
    for item in response["output"].as_array().unwrap() {
        match item["type"].as_str().unwrap() {
            "message" => {
                for part in item["content"].as_array().unwrap() {
                    said.text += &word(&part["text"]);
                }
            }
            "reasoning" => {
                for part in item["summary"].as_array().unwrap() {
                    said.reasoning += &word(&part["text"]);
                }
            }
            _ => said.calls.push(Called {
                id: word(&item["call_id"]),
                name: word(&item["name"]),
                arguments: arguments(&item["arguments"]),
            }),
        }
        said.turns.push(item.clone());
    }
    let usage = &response["usage"];
    let tokens = |name: &str| usage[name].as_u64().unwrap_or(0);
    said.tokens = (tokens("input_tokens"), tokens("output_tokens"));
    said.finish = word(&response["status"]);
    said
}

/// The whole message out of its events.
fn message(events: &[Value]) -> Value {
    let mut message = json!({});
    let mut blocks: Vec<Value> = Vec::new();
    let mut partial = String::new();
    for event in events {
        let at = || usize::try_from(event["index"].as_u64().unwrap()).unwrap();
        match event["type"].as_str().unwrap() {
            "message_start" => message = event["message"].clone(),
            "content_block_start" => {
                assert_eq!(at(), blocks.len(), "{events:?}");
                blocks.push(event["content_block"].clone());
                partial.clear();
            }
            "content_block_delta" => {
                let (block, delta) = (&mut blocks[at()], &event["delta"]);
                for name in ["text", "thinking", "signature"] {
                    append(&mut block[name], &delta[name]);
                }
                partial += delta["partial_json"].as_str().unwrap_or_default();
                block
                    .as_object_mut()
                    .unwrap()
                    .retain(|_, value| !value.is_null());
            }
            "content_block_stop" if !partial.is_empty() => {
                blocks[at()]["input"] = serde_json::from_str(&partial).unwrap();
            }
            "message_delta" => {
                message["stop_reason"] = event["delta"]["stop_reason"].clone();
                for (name, value) in event["usage"].as_object().unwrap() {
                    message["usage"][name] = value.clone();
                }
            }
            _ => {}
        }
    }
    message["content"] = json!(blocks);
    message
}

fn messages(message: &Value) -> Said {
    let mut said = Said::default();
    for block in message["content"].as_array().unwrap() {
        match block["type"].as_str().unwrap() {
            "text" => said.text += &word(&block["text"]),
            "thinking" => said.reasoning += &word(&block["thinking"]),
            "tool_use" => said.calls.push(Called {
                id: word(&block["id"]),
                name: word(&block["name"]),
                arguments: block["input"].clone(),
            }),
            _ => {}
        }
    }
    let usage = &message["usage"];
    let tokens = |name: &str| usage[name].as_u64().unwrap_or(0);
    said.tokens = (
        tokens("input_tokens")
            + tokens("cache_read_input_tokens")
            + tokens("cache_creation_input_tokens"),
        tokens("output_tokens"),
    );
    said.turns = vec![json!({"role": "assistant", "content": message["content"]})];
    said.finish = word(&message["stop_reason"]);
    said
}

fn gemini(chunks: &[Value]) -> Said {
    let mut said = Said::default();
    let mut parts: Vec<Value> = Vec::new();
    for chunk in chunks {
        let candidate = &chunk["candidates"][0];
        for part in candidate["content"]["parts"]
            .as_array()
            .into_iter()
            .flatten()
        {
            if part["functionCall"].is_object() {
                said.calls.push(Called {
                    id: word(&part["functionCall"]["id"]),
                    name: word(&part["functionCall"]["name"]),
                    arguments: part["functionCall"]["args"].clone(),
                });
            } else if part["thought"] == true {
                said.reasoning += &word(&part["text"]);
            } else {
                said.text += &word(&part["text"]);
            }
            merge(&mut parts, part);
        }
        if candidate["finishReason"].is_string() {
            said.finish = word(&candidate["finishReason"]);
        }
        let usage = &chunk["usageMetadata"];
        let tokens = |name: &str| usage[name].as_u64().unwrap_or(0);
        let output = tokens("candidatesTokenCount") + tokens("thoughtsTokenCount");
        said.tokens = (tokens("promptTokenCount"), output);
    }
    said.turns = vec![json!({"role": "model", "parts": parts})];
    said
}

/// Texts of the same kind without a signature between them become one part.
fn merge(parts: &mut Vec<Value>, part: &Value) {
    let plain = part["text"].is_string();
    if plain && part["text"] == "" && part.get("thoughtSignature").is_none() {
        return;
    }
    if let Some(last) = parts.last_mut()
        && plain
        && last["text"].is_string()
        && last.get("thought") == part.get("thought")
        && last.get("thoughtSignature").is_none()
    {
        append(&mut last["text"], &part["text"]);
        if let Some(signature) = part.get("thoughtSignature") {
            last["thoughtSignature"] = signature.clone();
        }
        return;
    }
    parts.push(part.clone());
}

/// What a provider was told, and how many images it got.
pub(crate) fn told(dialect: Dialect, body: &Value) -> (Vec<Fact>, usize) {
    let mut told = Told::default();
    let turns = match dialect {
        Dialect::Responses => &body["input"],
        Dialect::Gemini | Dialect::GeminiArray => &body["contents"],
        _ => &body["messages"],
    };
    for turn in turns.as_array().unwrap() {
        match dialect {
            Dialect::Chat => told.chat(turn),
            Dialect::Responses => told.item(turn),
            Dialect::Messages => told.turn(turn),
            _ => told.gemini(turn),
        }
    }
    (told.facts, told.images)
}

#[derive(Default)]
struct Told {
    facts: Vec<Fact>,
    images: usize,
}

impl Told {
    fn say(&mut self, role: &str, text: &str) {
        match (role, self.facts.last_mut()) {
            // A note of the gateway's that an image stands for.
            _ if text.is_empty() || text.starts_with("[image") => {}
            ("user", Some(Fact::User(said))) => *said += text,
            ("assistant" | "model", Some(Fact::Assistant(said))) => *said += text,
            ("user", _) => self.facts.push(Fact::User(text.to_owned())),
            ("assistant" | "model", _) => self.facts.push(Fact::Assistant(text.to_owned())),
            _ => {}
        }
    }

    fn call(&mut self, name: &Value, arguments: Value) {
        self.facts.push(Fact::Call(word(name), arguments));
    }

    fn result(&mut self, text: &str) {
        let text = text.strip_prefix("[tool error]").unwrap_or(text);
        let text = text.split("[image").next().unwrap_or_default().trim();
        self.facts.push(Fact::Result(text.to_owned()));
    }

    /// The text of content; images in it are counted.
    fn content(&mut self, content: &Value) -> String {
        let Some(parts) = content.as_array() else {
            return word(content);
        };
        let mut text = String::new();
        for part in parts {
            let kind = part["type"].as_str().unwrap_or_default();
            self.images += usize::from(kind.contains("image"));
            text += &word(&part["text"]);
        }
        text
    }

    fn chat(&mut self, turn: &Value) {
        let role = turn["role"].as_str().unwrap();
        let text = self.content(&turn["content"]);
        match role {
            "tool" => self.result(&text),
            role => self.say(role, &text),
        }
        for call in turn["tool_calls"].as_array().into_iter().flatten() {
            let function = &call["function"];
            self.call(&function["name"], arguments(&function["arguments"]));
        }
    }

    fn item(&mut self, item: &Value) {
        match item
            .get("type")
            .map_or("message", |kind| kind.as_str().unwrap())
        {
            "message" => {
                let text = self.content(&item["content"]);
                self.say(item["role"].as_str().unwrap(), &text);
            }
            "function_call" => self.call(&item["name"], arguments(&item["arguments"])),
            "function_call_output" => {
                let text = self.content(&item["output"]);
                self.result(&text);
            }
            _ => {}
        }
    }

    fn turn(&mut self, turn: &Value) {
        let role = turn["role"].as_str().unwrap();
        let Some(blocks) = turn["content"].as_array() else {
            return self.say(role, turn["content"].as_str().unwrap());
        };
        for block in blocks {
            match block["type"].as_str().unwrap() {
                "text" => self.say(role, block["text"].as_str().unwrap()),
                "image" => self.images += 1,
                "tool_use" => self.call(&block["name"], block["input"].clone()),
                "tool_result" => {
                    let text = self.content(&block["content"]);
                    self.result(&text);
                }
                _ => {}
            }
        }
    }

    fn gemini(&mut self, turn: &Value) {
        let role = turn["role"].as_str().unwrap_or("user");
        for part in turn["parts"].as_array().unwrap() {
            let (call, result) = (&part["functionCall"], &part["functionResponse"]);
            if part["inlineData"].is_object() {
                self.images += 1;
            } else if call.is_object() {
                self.call(&call["name"], call["args"].clone());
            } else if result.is_object() {
                let response = result["response"].as_object().unwrap();
                let text = response.values().next().map(word).unwrap_or_default();
                self.result(&text);
                self.images += result["parts"].as_array().map_or(0, Vec::len);
            } else if part["thought"] != true {
                self.say(role, part["text"].as_str().unwrap());
            }
        }
    }
}
