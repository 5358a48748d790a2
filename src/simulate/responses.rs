//! OpenAI Responses: the response object and its events.

use serde_json::{Value, json};

use super::answer::{Answer, Call, Usage, signature};
use super::ask::Ask;
use super::behaviour::Finish;
use super::failure::{Failure, openai_type};
use super::script::{CREATED, IDENTIFIER, Script, pretty};

/// Fields that a response repeats from its request, and their defaults.
const ECHOED: &[(&str, &str)] = &[
    ("background", "false"),
    ("instructions", "null"),
    ("max_output_tokens", "null"),
    ("max_tool_calls", "null"),
    ("metadata", "{}"),
    ("parallel_tool_calls", "true"),
    ("previous_response_id", "null"),
    ("prompt_cache_key", "null"),
    ("reasoning", r#"{"effort":null,"summary":null}"#),
    ("safety_identifier", "null"),
    ("store", "true"),
    ("temperature", "1.0"),
    ("text", r#"{"format":{"type":"text"},"verbosity":"medium"}"#),
    ("tool_choice", r#""auto""#),
    ("tools", "[]"),
    ("top_logprobs", "0"),
    ("top_p", "1.0"),
    ("truncation", r#""disabled""#),
    ("user", "null"),
];

/// A whole response.
pub(super) fn unary(answer: &Answer, ask: &Ask) -> Vec<u8> {
    pretty(&Talk::new(answer, ask).finished())
}

/// The events of a response.
pub(super) fn stream(answer: &Answer, ask: &Ask) -> Script {
    let talk = Talk::new(answer, ask);
    let mut script = Script::default();
    let opening = talk.object("in_progress");
    say(
        &mut script,
        "response.created",
        json!({"response": opening}),
    );
    say(
        &mut script,
        "response.in_progress",
        json!({"response": opening}),
    );
    script.opened();
    for (index, item) in talk.items().iter().enumerate() {
        talk.item(&mut script, index, item);
    }
    script.closes();
    let response = talk.finished();
    let last = match answer.finish {
        Finish::Stop => "response.completed",
        Finish::Length | Finish::Filter => "response.incomplete",
    };
    say(&mut script, last, json!({"response": response}));
    script
}

/// Ends a stream, wherever it is, with an error.
pub(super) fn fail(script: &mut Script, failure: &Failure, answer: &Answer, ask: &Ask) {
    let code = failure.code.unwrap_or("server_error");
    let error = json!({
        "type": openai_type(failure.status),
        "code": code,
        "message": failure.message,
        "param": failure.param,
    });
    say(script, "error", json!({"error": error}));
    let mut response = Talk::new(answer, ask).object("failed");
    response["error"] = json!({"code": code, "message": failure.message});
    say(script, "response.failed", json!({"response": response}));
}

/// Adds an event; its number is that of the frame.
fn say(script: &mut Script, kind: &str, fields: Value) {
    let mut event = json!({"type": kind, "sequence_number": script.frames.len()});
    if let (Value::Object(event), Value::Object(fields)) = (&mut event, fields) {
        event.extend(fields);
    }
    script.event(Some(kind), &event);
}

/// One part of the output.
enum Item<'a> {
    Reasoning,
    Message,
    Call(&'a Call),
}

/// An answer to a request.
struct Talk<'a> {
    answer: &'a Answer,
    ask: &'a Ask,
    encrypted: bool,
}

impl<'a> Talk<'a> {
    fn new(answer: &'a Answer, ask: &'a Ask) -> Self {
        let include = ask.value("include").unwrap_or_default();
        let included = include
            .as_array()
            .is_some_and(|include| include.contains(&Value::from("reasoning.encrypted_content")));
        Self {
            answer,
            ask,
            encrypted: included || ask.value("store") == Some(Value::Bool(false)),
        }
    }

    fn items(&self) -> Vec<Item<'a>> {
        let mut items = Vec::new();
        if !self.answer.reasoning.is_empty() {
            items.push(Item::Reasoning);
        }
        if !self.answer.text.is_empty() || self.answer.calls.is_empty() {
            items.push(Item::Message);
        }
        items.extend(self.answer.calls.iter().map(Item::Call));
        items
    }

    /// The response object without output.
    fn object(&self, status: &str) -> Value {
        let mut object = json!({
            "id": format!("resp_{IDENTIFIER}"),
            "object": "response",
            "created_at": CREATED,
            "status": status,
            "error": null,
            "incomplete_details": null,
            "model": self.answer.model,
            "output": [],
            "service_tier": "default",
            "usage": null,
        });
        for (name, default) in ECHOED {
            let default: Value = serde_json::from_str(default).unwrap_or_default();
            object[*name] = self.ask.value_or(name, default);
        }
        object
    }

    /// The response object with all of its output.
    fn finished(&self) -> Value {
        let (status, reason) = match self.answer.finish {
            Finish::Stop => ("completed", None),
            Finish::Length => ("incomplete", Some("max_output_tokens")),
            Finish::Filter => ("incomplete", Some("content_filter")),
        };
        let mut object = self.object(status);
        let items = self.items();
        object["output"] = items
            .iter()
            .enumerate()
            .map(|(index, item)| self.whole(index, item))
            .collect();
        object["usage"] = usage(&self.answer.usage);
        match reason {
            Some(reason) => object["incomplete_details"] = json!({"reason": reason}),
            None => object["completed_at"] = CREATED.into(),
        }
        object
    }

    /// An item as it is when finished.
    fn whole(&self, index: usize, item: &Item<'_>) -> Value {
        let mut whole = self.empty(index, item);
        match item {
            Item::Reasoning => {
                whole["summary"] =
                    json!([{"type": "summary_text", "text": self.answer.whole_reasoning()}]);
            }
            Item::Message => whole["content"] = json!([part(&self.answer.whole_text())]),
            Item::Call(call) => whole["arguments"] = call.text().into(),
        }
        if !matches!(item, Item::Reasoning) {
            whole["status"] = match self.answer.finish {
                Finish::Stop => "completed".into(),
                Finish::Length | Finish::Filter => "incomplete".into(),
            };
        }
        whole
    }

    /// An item as it is when it begins.
    fn empty(&self, index: usize, item: &Item<'_>) -> Value {
        let mut empty = match item {
            Item::Reasoning => json!({"type": "reasoning", "summary": []}),
            Item::Message => json!({
                "type": "message", "status": "in_progress", "content": [], "role": "assistant",
            }),
            Item::Call(call) => json!({
                "type": "function_call", "status": "in_progress", "arguments": "",
                "call_id": call.id("call_"), "name": call.name,
            }),
        };
        if matches!(item, Item::Reasoning) && self.encrypted {
            empty["encrypted_content"] = signature(
                "responses",
                &self.answer.model,
                &self.answer.whole_reasoning(),
            )
            .into();
        }
        empty["id"] = item_id(index, item).into();
        empty
    }

    /// The events of one item.
    fn item(&self, script: &mut Script, index: usize, item: &Item<'_>) {
        say(
            script,
            "response.output_item.added",
            json!({"output_index": index, "item": self.empty(index, item)}),
        );
        let id = item_id(index, item);
        match item {
            Item::Reasoning => self.reasoning(script, index, &id),
            Item::Message => self.message(script, index, &id),
            Item::Call(call) => arguments(script, index, &id, call),
        }
        say(
            script,
            "response.output_item.done",
            json!({"output_index": index, "item": self.whole(index, item)}),
        );
    }

    fn reasoning(&self, script: &mut Script, index: usize, id: &str) {
        let at = |fields: Value| {
            merged(
                json!({"item_id": id, "output_index": index, "summary_index": 0}),
                fields,
            )
        };
        let kind = |name: &str| format!("response.reasoning_summary_{name}");
        let text = self.answer.whole_reasoning();
        let empty = json!({"type": "summary_text", "text": ""});
        say(script, &kind("part.added"), at(json!({"part": empty})));
        for piece in &self.answer.reasoning {
            say(script, &kind("text.delta"), at(json!({"delta": piece})));
        }
        say(script, &kind("text.done"), at(json!({"text": text})));
        let part = json!({"type": "summary_text", "text": text});
        say(script, &kind("part.done"), at(json!({"part": part})));
    }

    fn message(&self, script: &mut Script, index: usize, id: &str) {
        let at = |fields: Value| {
            merged(
                json!({"item_id": id, "output_index": index, "content_index": 0}),
                fields,
            )
        };
        let text = self.answer.whole_text();
        say(
            script,
            "response.content_part.added",
            at(json!({"part": part("")})),
        );
        for piece in &self.answer.text {
            say(
                script,
                "response.output_text.delta",
                at(json!({"delta": piece, "logprobs": []})),
            );
        }
        say(
            script,
            "response.output_text.done",
            at(json!({"text": text, "logprobs": []})),
        );
        say(
            script,
            "response.content_part.done",
            at(json!({"part": part(&text)})),
        );
    }
}

fn arguments(script: &mut Script, index: usize, id: &str, call: &Call) {
    for fragment in call.fragments() {
        say(
            script,
            "response.function_call_arguments.delta",
            json!({"item_id": id, "output_index": index, "delta": fragment}),
        );
    }
    say(
        script,
        "response.function_call_arguments.done",
        json!({
            "item_id": id, "output_index": index,
            "name": call.name, "arguments": call.text(),
        }),
    );
}

fn item_id(index: usize, item: &Item<'_>) -> String {
    let prefix = match item {
        Item::Reasoning => "rs_",
        Item::Message => "msg_",
        Item::Call(_) => "fc_",
    };
    format!("{prefix}{IDENTIFIER}{index:02}")
}

fn part(text: &str) -> Value {
    json!({"type": "output_text", "annotations": [], "logprobs": [], "text": text})
}

fn merged(mut left: Value, right: Value) -> Value {
    if let (Value::Object(left), Value::Object(right)) = (&mut left, right) {
        left.extend(right);
    }
    left
}

fn usage(usage: &Usage) -> Value {
    json!({
        "input_tokens": usage.input,
        "input_tokens_details": {
            "cached_tokens": usage.cached,
            "cache_write_tokens": usage.cache_write,
        },
        "output_tokens": usage.output,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.total(),
    })
}

/// The answer to a question for tokens.
pub(super) fn count(tokens: u64) -> Vec<u8> {
    pretty(&json!({"object": "response.input_tokens", "input_tokens": tokens}))
}
