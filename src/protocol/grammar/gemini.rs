//! Chunks of candidates, each with a finish at last.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::super::json::Value;
use super::frames::{Verdict, must, number, object, same, text};

#[derive(Debug, Default)]
pub(super) struct Gemini {
    /// Id and model, the same in all chunks.
    head: Option<(String, String)>,
    /// The candidates that have finished, by index.
    finished: Vec<bool>,
    /// Whether the prompt was blocked.
    blocked: bool,
    /// Whether the last chunk had usage.
    usage: bool,
    failed: bool,
}

impl Gemini {
    pub(super) fn finish(&self) -> Verdict {
        if self.failed {
            return Ok(());
        }
        let some = self.blocked || !self.finished.is_empty();
        must(some, "nothing")?;
        let all = self.finished.iter().all(|finished| *finished);
        must(all, "a candidate without a finish")?;
        must(self.usage, "no usage in the last chunk")
    }

    pub(super) fn chunk(&mut self, chunk: Value<'_>) -> Verdict {
        must(!self.failed, "a chunk after an error")?;
        if let Some(error) = chunk.get("error") {
            self.failed = true;
            let first = chunk.members().next();
            must(
                first.is_some_and(|(name, _)| name.is("error")),
                "error is not first",
            )?;
            let code = number(error, "code")?;
            must((400..600).contains(&code), "a code that is no failure")?;
            text(error, "message")?;
            return text(error, "status").map(drop);
        }
        let head = (text(chunk, "responseId")?, text(chunk, "modelVersion")?);
        let first = self.head.get_or_insert_with(|| head.clone());
        same("the head", &head, first)?;
        self.blocked |= chunk.get("promptFeedback").is_some();
        self.usage = chunk.get("usageMetadata").is_some();
        if self.usage {
            number(object(chunk, "usageMetadata")?, "totalTokenCount")?;
        }
        let candidates = chunk.get("candidates");
        must(
            candidates.is_some() || self.blocked || self.usage,
            "nothing in a chunk",
        )?;
        let mut candidates = candidates.iter().flat_map(Value::items);
        candidates.try_for_each(|candidate| self.candidate(candidate))
    }

    fn candidate(&mut self, candidate: Value<'_>) -> Verdict {
        let index = candidate
            .get("index")
            .map_or(Ok(0), |_| number(candidate, "index"))?;
        must(index < 1024, "a candidate out of nowhere")?;
        if index >= self.finished.len() {
            self.finished.resize(index + 1, false);
        }
        let finished = self.finished.get_mut(index).ok_or("no candidate")?;
        must(!*finished, "more after the finish")?;
        if candidate.some("finishReason").is_some() {
            text(candidate, "finishReason")?;
            *finished = true;
        }
        let content = object(candidate, "content")?;
        same("the role", text(content, "role")?.as_str(), "model")?;
        let parts = content.get("parts").filter(|parts| !parts.is_empty());
        let parts = parts.ok_or("no parts")?;
        parts.items().try_for_each(part)
    }
}

fn part(part: Value<'_>) -> Verdict {
    must(!part.is_empty(), "an empty part")?;
    if part.get("text").is_some() {
        text(part, "text")?;
    }
    if let Some(call) = part.get("functionCall") {
        text(call, "name")?;
        object(call, "args")?;
    }
    if let Some(signature) = part.get("thoughtSignature") {
        let signature = signature.as_str().ok_or("a signature that is no string")?;
        // Google's SDKs decode it and fail on anything else.
        let plain = signature.plain().replace('-', "+").replace('_', "/");
        let decoded = STANDARD.decode(plain.as_bytes());
        must(decoded.is_ok(), "a signature that is no base64")?;
    }
    Ok(())
}
