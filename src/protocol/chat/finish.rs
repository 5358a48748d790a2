//! Why an answer ended, in the words of chat.

use crate::protocol::ir::Finish;

/// What a provider's word means. A server that says `stop` with calls in its
/// answer wants them run all the same.
pub(super) fn read(word: &str, calls: bool, refused: bool) -> Finish {
    match word {
        "length" | "max_tokens" | "model_length" => Finish::Length,
        "content_filter" | "safety" | "SAFETY" => Finish::ContentFilter {
            category: None,
            text: None,
        },
        _ if calls => Finish::ToolUse,
        "" | "stop" | "eos" | "end_turn" | "tool_calls" | "function_call" => {
            if refused {
                Finish::Refusal
            } else {
                Finish::Stop
            }
        }
        other => Finish::Other(other.to_owned()),
    }
}

/// The word for a client. `legacy` is for those that know `functions` only.
pub(super) const fn word(finish: &Finish, calls: bool, legacy: bool) -> &'static str {
    match finish {
        Finish::Length | Finish::ContextFull | Finish::Continuation(_) => "length",
        Finish::ContentFilter { .. } => "content_filter",
        Finish::ToolUse | Finish::Stop | Finish::Other(_) if calls => {
            if legacy {
                "function_call"
            } else {
                "tool_calls"
            }
        }
        Finish::ToolUse
        | Finish::Stop
        | Finish::StopSequence(_)
        | Finish::Refusal
        | Finish::Pause
        | Finish::BadToolCall(_)
        | Finish::Other(_) => "stop",
    }
}
