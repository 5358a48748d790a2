//! `message_start block* message_delta message_stop`, with pings anywhere.

use super::super::json::Value;
use super::frames::{Verdict, array, is_json, must, number, object, same, text};

#[derive(Debug, Default)]
pub(super) struct Messages {
    started: bool,
    blocks: usize,
    open: Option<Block>,
    /// Whether the message's own delta came.
    ending: bool,
    over: bool,
}

#[derive(Debug)]
struct Block {
    kind: String,
    json: String,
    signed: bool,
}

impl Messages {
    pub(super) fn finish(&self) -> Verdict {
        must(self.over, "neither message_stop nor an error")
    }

    pub(super) fn event(&mut self, name: &str, data: Value<'_>) -> Verdict {
        same("the event's name", name, text(data, "type")?.as_str())?;
        must(!self.over, "an event after the end")?;
        match name {
            "ping" => Ok(()),
            "error" => {
                self.over = true;
                let error = object(data, "error")?;
                text(error, "type")?;
                text(error, "message").map(drop)
            }
            "message_start" => self.start(data),
            _ if !self.started => Err("an event before message_start".to_owned()),
            "content_block_start" => self.block_start(data),
            "content_block_delta" => self.block_delta(data),
            "content_block_stop" => self.block_stop(data),
            "message_delta" => self.ending(data),
            "message_stop" => {
                self.over = true;
                must(self.ending, "message_stop without message_delta")
            }
            _ => Err("an event that there is none of".to_owned()),
        }
    }

    fn start(&mut self, data: Value<'_>) -> Verdict {
        must(!self.started, "a second message_start")?;
        self.started = true;
        let message = object(data, "message")?;
        text(message, "id")?;
        text(message, "model")?;
        same("the type", text(message, "type")?.as_str(), "message")?;
        same("the role", text(message, "role")?.as_str(), "assistant")?;
        must(
            array(message, "content")?.is_empty(),
            "content at the start",
        )?;
        let null = message
            .get("stop_reason")
            .is_some_and(|reason| reason.is_null());
        must(null, "a stop_reason at the start")?;
        usage(object(message, "usage")?)
    }

    fn block_start(&mut self, data: Value<'_>) -> Verdict {
        must(self.open.is_none(), "a block inside a block")?;
        must(!self.ending, "a block after message_delta")?;
        same("the index", number(data, "index")?, self.blocks)?;
        let block = object(data, "content_block")?;
        let kind = text(block, "type")?;
        match kind.as_str() {
            "text" => same("the text", text(block, "text")?.as_str(), "")?,
            "thinking" => {
                text(block, "thinking")?;
                text(block, "signature")?;
            }
            "redacted_thinking" => must(!text(block, "data")?.is_empty(), "empty data")?,
            "tool_use" | "server_tool_use" => {
                must(!text(block, "id")?.is_empty(), "an empty id")?;
                text(block, "name")?;
                object(block, "input")?;
            }
            _ => {}
        }
        self.open = Some(Block {
            kind,
            json: String::new(),
            signed: false,
        });
        Ok(())
    }

    fn block_delta(&mut self, data: Value<'_>) -> Verdict {
        same("the index", number(data, "index")?, self.blocks)?;
        let block = self.open.as_mut().ok_or("a delta outside a block")?;
        let delta = object(data, "delta")?;
        let kind = text(delta, "type")?;
        match (block.kind.as_str(), kind.as_str()) {
            ("text", "text_delta") => text(delta, "text").map(drop),
            ("text", "citations_delta") => object(delta, "citation").map(drop),
            ("tool_use" | "server_tool_use", "input_json_delta") => {
                block.json.push_str(&text(delta, "partial_json")?);
                Ok(())
            }
            ("thinking", "thinking_delta") => {
                must(!block.signed, "thinking behind its signature")?;
                text(delta, "thinking").map(drop)
            }
            ("thinking", "signature_delta") => {
                must(!block.signed, "a second signature")?;
                block.signed = true;
                must(!text(delta, "signature")?.is_empty(), "an empty signature")
            }
            (block, delta) => Err(format!("{delta} in {block}")),
        }
    }

    fn block_stop(&mut self, data: Value<'_>) -> Verdict {
        same("the index", number(data, "index")?, self.blocks)?;
        self.blocks += 1;
        let block = self.open.take().ok_or("the end of no block")?;
        let whole = block.json.is_empty() || block.json.starts_with('{') && is_json(&block.json);
        must(whole, "input that is no object")?;
        let unsigned = block.kind == "thinking" && !block.signed;
        must(!unsigned, "thinking without a signature")
    }

    fn ending(&mut self, data: Value<'_>) -> Verdict {
        must(self.open.is_none(), "message_delta inside a block")?;
        must(!self.ending, "a second message_delta")?;
        self.ending = true;
        let delta = object(data, "delta")?;
        text(delta, "stop_reason")?;
        must(delta.get("stop_sequence").is_some(), "no stop_sequence")?;
        usage(object(data, "usage")?)
    }
}

fn usage(usage: Value<'_>) -> Verdict {
    for name in ["input_tokens", "output_tokens"] {
        number(usage, name)?;
    }
    Ok(())
}
