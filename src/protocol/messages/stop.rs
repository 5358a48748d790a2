//! Why an answer ended, in the words of Messages.
//! <https://docs.anthropic.com/en/api/handling-stop-reasons>

use crate::protocol::ir::Finish;
use crate::protocol::json::{Object, Str, Value};

/// Reads `stop_reason` and what explains it; `holder` is the message, or the
/// `delta` of a `message_delta`. `None` when nothing is said.
pub(super) fn decode(holder: Value<'_>) -> Option<Finish> {
    let word = holder.some("stop_reason")?.as_str()?;
    let told = |value: Option<Value<'_>>| {
        let text = value?.as_str()?;
        (!text.is_empty()).then(|| text.to_plain_string())
    };
    Some(match word.plain().as_ref() {
        "end_turn" | "stop" => Finish::Stop,
        "stop_sequence" => Finish::StopSequence(told(holder.some("stop_sequence"))),
        "max_tokens" => Finish::Length,
        "model_context_window_exceeded" => Finish::ContextFull,
        "tool_use" => Finish::ToolUse,
        "refusal" => {
            let details = holder.some("stop_details");
            let detail = |name| told(details.and_then(|details| details.some(name)));
            Finish::ContentFilter {
                category: detail("category"),
                text: detail("explanation"),
            }
        }
        "pause_turn" => Finish::Pause,
        other => Finish::Other(other.to_owned()),
    })
}

/// What an answer that says `finish` ends in, given whether it calls tools: some
/// servers say that they are done when they want tools to be run.
pub(super) fn settle(finish: Option<Finish>, calls: bool) -> Finish {
    match finish {
        None | Some(Finish::Stop) if calls => Finish::ToolUse,
        None => Finish::Stop,
        Some(finish) => finish,
    }
}

/// Writes `stop_reason`, `stop_sequence` and, after a refusal, `stop_details`.
pub(super) fn write(object: &mut Object<'_>, finish: &Finish) {
    object.text("stop_reason", word(finish));
    match finish {
        Finish::StopSequence(Some(text)) => object.text("stop_sequence", text),
        _ => object.null("stop_sequence"),
    };
    if let Finish::ContentFilter { category, text } = finish {
        let mut details = object.object("stop_details");
        details.text("type", "refusal");
        for (name, told) in [("category", category), ("explanation", text)] {
            match told {
                Some(told) => details.str(name, &Str::new(told)),
                None => details.null(name),
            };
        }
    }
}

const fn word(finish: &Finish) -> &'static str {
    match finish {
        Finish::Stop | Finish::BadToolCall(_) | Finish::Other(_) => "end_turn",
        Finish::StopSequence(_) => "stop_sequence",
        Finish::Length | Finish::Continuation(_) => "max_tokens",
        Finish::ContextFull => "model_context_window_exceeded",
        Finish::ToolUse => "tool_use",
        Finish::ContentFilter { .. } | Finish::Refusal => "refusal",
        Finish::Pause => "pause_turn",
    }
}
