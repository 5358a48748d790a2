//! `chunk(role) chunk* (finish per choice) [usage chunk] [DONE]`

use super::super::json::Value;
use super::frames::{Verdict, array, must, number, object, same, text};

#[derive(Debug, Default)]
pub(super) struct Chat {
    /// Id, model and time, the same in all chunks.
    head: Option<(String, String, usize)>,
    choices: Vec<Choice>,
    usage: bool,
    over: bool,
}

#[derive(Debug, Default)]
struct Choice {
    /// Whether each call has arguments.
    calls: Vec<bool>,
    finished: bool,
}

impl Chat {
    pub(super) fn done(&mut self) -> Verdict {
        must(!self.over, "[DONE] after the end")?;
        self.over = true;
        must(!self.choices.is_empty(), "[DONE] before any choice")?;
        let finished = self.choices.iter().all(|choice| choice.finished);
        must(finished, "[DONE] before all choices finished")
    }

    pub(super) fn finish(&self) -> Verdict {
        must(self.over, "neither [DONE] nor an error")
    }

    pub(super) fn chunk(&mut self, chunk: Value<'_>) -> Verdict {
        must(!self.over, "a chunk after the end")?;
        if let Some(error) = chunk.some("error") {
            self.over = true;
            text(error, "message")?;
            text(error, "type")?;
            let all = ["param", "code"]
                .iter()
                .all(|name| error.get(name).is_some());
            return must(all, "an error without param or code");
        }
        must(!self.usage, "a chunk after the usage")?;
        same(
            "object",
            text(chunk, "object")?.as_str(),
            "chat.completion.chunk",
        )?;
        let head = (
            text(chunk, "id")?,
            text(chunk, "model")?,
            number(chunk, "created")?,
        );
        let first = self.head.get_or_insert_with(|| head.clone());
        same("the head", &head, first)?;
        let choices = array(chunk, "choices")?;
        if choices.is_empty() {
            self.usage = true;
            let usage = object(chunk, "usage")?;
            for name in ["prompt_tokens", "completion_tokens", "total_tokens"] {
                number(usage, name)?;
            }
            let finished = self.choices.iter().all(|choice| choice.finished);
            return must(finished, "usage before all choices finished");
        }
        must(chunk.some("usage").is_none(), "usage beside choices")?;
        choices.items().try_for_each(|choice| self.choice(choice))
    }

    fn choice(&mut self, value: Value<'_>) -> Verdict {
        let index = number(value, "index")?;
        let delta = object(value, "delta")?;
        let role = delta
            .some("role")
            .map(|_| text(delta, "role"))
            .transpose()?;
        if index == self.choices.len() {
            same("the first role", role.as_deref(), Some("assistant"))?;
            self.choices.push(Choice::default());
        } else {
            must(role.is_none(), "a second role")?;
        }
        let choice = self.choices.get_mut(index).ok_or("choices out of order")?;
        must(!choice.finished, "more after the finish")?;
        for name in ["content", "refusal", "reasoning_content", "reasoning"] {
            if delta.some(name).is_some() {
                text(delta, name)?;
            }
        }
        for call in delta.get("tool_calls").iter().flat_map(Value::items) {
            choice.call(call)?;
        }
        for detail in delta.get("reasoning_details").iter().flat_map(Value::items) {
            number(detail, "index")?;
            text(detail, "type")?;
        }
        let reason = value.get("finish_reason").ok_or("no finish_reason")?;
        if reason.is_null() {
            return Ok(());
        }
        choice.finished = true;
        let reason = text(value, "finish_reason")?;
        let whole = reason == "length" || choice.calls.iter().all(|has| *has);
        must(whole, "a call without arguments")
    }
}

impl Choice {
    fn call(&mut self, call: Value<'_>) -> Verdict {
        let index = number(call, "index")?;
        let first = index == self.calls.len();
        let body = match (call.get("function"), call.get("custom")) {
            (Some(function), None) => function.get("arguments").map(|_| (function, "arguments")),
            (None, Some(custom)) => custom.get("input").map(|_| (custom, "input")),
            _ => None,
        };
        let (body, name) = body.ok_or("a call without function or custom")?;
        let piece = text(body, name)?;
        if first {
            must(!text(call, "id")?.is_empty(), "an empty id")?;
            text(call, "type")?;
            text(body, "name")?;
            // Free text may be empty.
            self.calls.push(name == "input");
        } else {
            let again = ["id", "type"].iter().any(|name| call.some(name).is_some());
            must(!again && body.some("name").is_none(), "a call's head twice")?;
        }
        let has = self.calls.get_mut(index).ok_or("calls out of order")?;
        *has |= !piece.is_empty();
        Ok(())
    }
}
