//! `response.created response.in_progress item* (completed|incomplete|failed)`.
//! Items may interleave: what belongs to one names its index.

use super::super::json::Value;
use super::frames::{Verdict, array, must, number, object, same, text};

#[derive(Debug, Default)]
pub(super) struct Responses {
    sequence: usize,
    id: Option<String>,
    /// Lifecycle events so far.
    begun: usize,
    items: Vec<Item>,
    /// Whether an `error` came: only a failed response may follow.
    failing: bool,
    over: bool,
}

#[derive(Debug)]
struct Item {
    id: String,
    kind: String,
    open: bool,
    /// Content and summary parts; of each sort all but the last are done.
    parts: Vec<Part>,
    /// Arguments or input.
    body: String,
    body_done: bool,
}

#[derive(Debug)]
struct Part {
    /// Whether it is a summary, and its index among its like.
    at: (bool, usize),
    kind: String,
    text: String,
    annotations: usize,
    text_done: bool,
    open: bool,
}

impl Responses {
    pub(super) fn finish(&self) -> Verdict {
        must(self.over, "no terminal event")
    }

    pub(super) fn event(&mut self, name: &str, data: Value<'_>) -> Verdict {
        same("the event's name", name, text(data, "type")?.as_str())?;
        must(!self.over, "an event after the end")?;
        same(
            "sequence_number",
            number(data, "sequence_number")?,
            self.sequence,
        )?;
        self.sequence += 1;
        if self.failing {
            same("the event behind an error", name, "response.failed")?;
        }
        match name {
            "response.created" | "response.in_progress" => self.begin(name, data),
            "error" => {
                self.failing = true;
                text(data, "message")?;
                text(data, "code").map(drop)
            }
            "response.completed" | "response.incomplete" | "response.failed" => {
                self.end(name, data)
            }
            _ if self.begun < 2 => Err("an event before response.in_progress".to_owned()),
            "response.output_item.added" => self.item_added(data),
            "response.output_item.done" => self.item_done(data),
            _ => {
                let item = self.item(data)?;
                same("item_id", text(data, "item_id")?, item.id.clone())?;
                item.event(name, data)
            }
        }
    }

    fn begin(&mut self, name: &str, data: Value<'_>) -> Verdict {
        let wanted = ["response.created", "response.in_progress"].get(self.begun);
        same("the lifecycle", Some(&name), wanted)?;
        self.begun += 1;
        let response = self.response(data)?;
        same(
            "the status",
            text(response, "status")?.as_str(),
            "in_progress",
        )?;
        must(array(response, "output")?.is_empty(), "output at the start")
    }

    fn response<'t>(&mut self, data: Value<'t>) -> Result<Value<'t>, String> {
        let response = object(data, "response")?;
        let id = text(response, "id")?;
        let first = self.id.get_or_insert_with(|| id.clone());
        same("the response's id", &id, first)?;
        same("object", text(response, "object")?.as_str(), "response")?;
        text(response, "model")?;
        number(response, "created_at")?;
        for name in ["error", "incomplete_details", "usage"] {
            must(response.get(name).is_some(), &format!("no {name:?}"))?;
        }
        Ok(response)
    }

    fn end(&mut self, name: &str, data: Value<'_>) -> Verdict {
        self.over = true;
        let response = self.response(data)?;
        let status = name.trim_start_matches("response.");
        same("the status", text(response, "status")?.as_str(), status)?;
        if status == "failed" {
            let error = object(response, "error")?;
            text(error, "code")?;
            return text(error, "message").map(drop);
        }
        must(!self.items.iter().any(|item| item.open), "an item is open")?;
        let output = array(response, "output")?;
        let ids = output.items().map(|item| text(item, "id"));
        let ids = ids.collect::<Result<Vec<_>, _>>()?;
        let wanted: Vec<_> = self.items.iter().map(|item| item.id.clone()).collect();
        same("the output", ids, wanted)?;
        let usage = object(response, "usage")?;
        for name in ["input_tokens", "output_tokens", "total_tokens"] {
            number(usage, name)?;
        }
        number(object(usage, "input_tokens_details")?, "cached_tokens")?;
        number(object(usage, "output_tokens_details")?, "reasoning_tokens").map(drop)
    }

    fn item_added(&mut self, data: Value<'_>) -> Verdict {
        same(
            "output_index",
            number(data, "output_index")?,
            self.items.len(),
        )?;
        let item = object(data, "item")?;
        let id = text(item, "id")?;
        let known = self.items.iter().any(|item| item.id == id);
        must(!known && !id.is_empty(), "an id that is taken, or none")?;
        self.items.push(Item {
            id,
            kind: text(item, "type")?,
            open: true,
            parts: Vec::new(),
            body: String::new(),
            body_done: false,
        });
        Ok(())
    }

    fn item_done(&mut self, data: Value<'_>) -> Verdict {
        let item = self.item(data)?;
        item.open = false;
        let value = object(data, "item")?;
        same("the item's id", text(value, "id")?, item.id.clone())?;
        same("the item's type", text(value, "type")?, item.kind.clone())?;
        must(!item.parts.iter().any(|part| part.open), "a part is open")?;
        match item.kind.as_str() {
            "message" => {
                text(value, "role")?;
                let content = array(value, "content")?.items().count();
                same("the content's length", content, item.parts.len())
            }
            "function_call" => {
                must(item.body_done, "arguments that are not done")?;
                must(!text(value, "call_id")?.is_empty(), "an empty call_id")?;
                text(value, "name")?;
                same(
                    "the arguments",
                    text(value, "arguments")?,
                    item.body.clone(),
                )
            }
            "custom_tool_call" => {
                must(item.body_done, "input that is not done")?;
                same("the input", text(value, "input")?, item.body.clone())
            }
            "reasoning" => array(value, "summary").map(drop),
            _ => Ok(()),
        }
    }

    fn item(&mut self, data: Value<'_>) -> Result<&mut Item, String> {
        let index = number(data, "output_index")?;
        let item = self
            .items
            .get_mut(index)
            .ok_or("an item that was not added")?;
        must(item.open, "more of an item that is done")?;
        Ok(item)
    }
}

impl Item {
    fn event(&mut self, name: &str, data: Value<'_>) -> Verdict {
        match name {
            "response.content_part.added" => self.part_added(data, false),
            "response.reasoning_summary_part.added" => self.part_added(data, true),
            "response.content_part.done" => self.part_done(data, false),
            "response.reasoning_summary_part.done" => self.part_done(data, true),
            "response.output_text.delta" => {
                array(data, "logprobs")?;
                self.more(data, "output_text")
            }
            "response.output_text.done" => {
                array(data, "logprobs")?;
                self.text_done(data, "output_text", "text")
            }
            "response.refusal.delta" => self.more(data, "refusal"),
            "response.refusal.done" => self.text_done(data, "refusal", "refusal"),
            "response.reasoning_text.delta" => self.more(data, "reasoning_text"),
            "response.reasoning_text.done" => self.text_done(data, "reasoning_text", "text"),
            "response.reasoning_summary_text.delta" => self.more(data, "summary_text"),
            "response.reasoning_summary_text.done" => self.text_done(data, "summary_text", "text"),
            "response.output_text.annotation.added" => self.annotation(data),
            "response.function_call_arguments.delta" => self.body(data, "function_call"),
            "response.custom_tool_call_input.delta" => self.body(data, "custom_tool_call"),
            "response.function_call_arguments.done" => {
                self.body_done(data, "function_call", "arguments")
            }
            "response.custom_tool_call_input.done" => {
                self.body_done(data, "custom_tool_call", "input")
            }
            // Steps of hosted tools: web_search_call.searching and the like.
            _ => must(name.contains("_call"), "an event that there is none of"),
        }
    }

    fn part_added(&mut self, data: Value<'_>, summary: bool) -> Verdict {
        let index = number(data, index_of(summary))?;
        let like = self.parts.iter().filter(|part| part.at.0 == summary);
        same("the part's index", index, like.count())?;
        // Summaries and the reasoning itself are two lists, told side by side.
        let mut like = self.parts.iter().filter(|part| part.at.0 == summary);
        must(!like.any(|part| part.open), "a part is open")?;
        let kind = text(object(data, "part")?, "type")?;
        let fits = match (self.kind.as_str(), kind.as_str()) {
            ("message", "output_text" | "refusal") => !summary,
            ("reasoning", "summary_text") => summary,
            ("reasoning", "reasoning_text") => !summary,
            _ => false,
        };
        must(fits, "a part that does not belong there")?;
        self.parts.push(Part {
            at: (summary, index),
            kind,
            text: String::new(),
            annotations: 0,
            text_done: false,
            open: true,
        });
        Ok(())
    }

    fn part_done(&mut self, data: Value<'_>, summary: bool) -> Verdict {
        let at = (summary, number(data, index_of(summary))?);
        let part = self.part(at)?;
        part.open = false;
        must(part.text_done, "a part whose text is not done")?;
        let name = if part.kind == "refusal" {
            "refusal"
        } else {
            "text"
        };
        let value = object(data, "part")?;
        same("the part's text", text(value, name)?, part.text.clone())
    }

    fn part(&mut self, at: (bool, usize)) -> Result<&mut Part, String> {
        let mut parts = self.parts.iter_mut();
        let part = parts.find(|part| part.at == at);
        let part = part.ok_or("a part that was not added")?;
        must(part.open, "more of a part that is done")?;
        Ok(part)
    }

    /// The part that an event of that kind of text belongs to.
    fn text_part(&mut self, data: Value<'_>, kind: &str) -> Result<&mut Part, String> {
        let summary = kind == "summary_text";
        let part = self.part((summary, number(data, index_of(summary))?))?;
        same("the kind of text", part.kind.as_str(), kind)?;
        must(!part.text_done, "more of a text that is done")?;
        Ok(part)
    }

    fn more(&mut self, data: Value<'_>, kind: &str) -> Verdict {
        let part = self.text_part(data, kind)?;
        part.text.push_str(&text(data, "delta")?);
        Ok(())
    }

    fn text_done(&mut self, data: Value<'_>, kind: &str, name: &str) -> Verdict {
        let part = self.text_part(data, kind)?;
        part.text_done = true;
        same("the whole text", text(data, name)?, part.text.clone())
    }

    fn annotation(&mut self, data: Value<'_>) -> Verdict {
        let part = self.text_part(data, "output_text")?;
        same(
            "annotation_index",
            number(data, "annotation_index")?,
            part.annotations,
        )?;
        part.annotations += 1;
        object(data, "annotation").map(drop)
    }

    fn body(&mut self, data: Value<'_>, kind: &str) -> Verdict {
        same("the item", self.kind.as_str(), kind)?;
        must(!self.body_done, "more of what is done")?;
        self.body.push_str(&text(data, "delta")?);
        Ok(())
    }

    fn body_done(&mut self, data: Value<'_>, kind: &str, name: &str) -> Verdict {
        same("the item", self.kind.as_str(), kind)?;
        must(!self.body_done, "done twice")?;
        self.body_done = true;
        same("the whole", text(data, name)?, self.body.clone())
    }
}

const fn index_of(summary: bool) -> &'static str {
    if summary {
        "summary_index"
    } else {
        "content_index"
    }
}
