//! Why an answer ended, in Gemini's words.

use crate::protocol::ir::Finish;
use crate::protocol::json::Str;

/// Words for a call or an answer that the model made and nobody can read.
const BROKEN: [&str; 5] = [
    "MALFORMED_FUNCTION_CALL",
    "UNEXPECTED_TOOL_CALL",
    "TOO_MANY_TOOL_CALLS",
    "MISSING_THOUGHT_SIGNATURE",
    "MALFORMED_RESPONSE",
];

/// Words for an answer that the provider would not let pass.
const FILTERED: [&str; 10] = [
    "SAFETY",
    "RECITATION",
    "BLOCKLIST",
    "PROHIBITED_CONTENT",
    "SPII",
    "LANGUAGE",
    "MODEL_ARMOR",
    "IMAGE_SAFETY",
    "IMAGE_PROHIBITED_CONTENT",
    "IMAGE_RECITATION",
];

/// Words that no other protocol has a word for.
const OTHER: [&str; 5] = [
    "OTHER",
    "NO_IMAGE",
    "IMAGE_OTHER",
    "ESCALATION",
    "PUP_LIMITED_DISABLED",
];

/// What `finishReason` means. `None` while the answer goes on.
pub(super) fn decode(word: &Str<'_>, message: Option<&Str<'_>>) -> Option<Finish> {
    let word = word.plain();
    Some(match &*word {
        "" | "FINISH_REASON_UNSPECIFIED" => return None,
        "STOP" => Finish::Stop,
        "MAX_TOKENS" => Finish::Length,
        // The token stands elsewhere.
        "CONTINUATION" => Finish::Continuation(String::new()),
        word if BROKEN.contains(&word) => Finish::BadToolCall(word.to_owned()),
        word if FILTERED.contains(&word) => Finish::ContentFilter {
            category: Some(word.to_owned()),
            text: message.map(Str::to_plain_string),
        },
        _ => Finish::Other(word.into_owned()),
    })
}

/// The end of an answer that has none.
pub(super) fn unsaid() -> Finish {
    Finish::Other("FINISH_REASON_UNSPECIFIED".to_owned())
}

/// The same, now that it is known whether there were calls.
pub(super) fn with_calls(finish: Finish, calls: bool) -> Finish {
    match finish {
        Finish::Stop if calls => Finish::ToolUse,
        other => other,
    }
}

/// The word for a client.
pub(super) fn encode(finish: Option<&Finish>) -> &'static str {
    let known = |word: &str, words: &[&'static str]| {
        let found = words.iter().find(|known| **known == word);
        found.copied()
    };
    match finish {
        Some(Finish::Length | Finish::ContextFull | Finish::Continuation(_)) => "MAX_TOKENS",
        Some(Finish::ContentFilter { category, .. }) => category
            .as_deref()
            .and_then(|word| known(word, &FILTERED))
            .unwrap_or("SAFETY"),
        Some(Finish::BadToolCall(word)) => {
            known(word, &BROKEN).unwrap_or("MALFORMED_FUNCTION_CALL")
        }
        Some(Finish::Other(word)) => known(word, &OTHER).unwrap_or("OTHER"),
        None => "OTHER",
        Some(_) => "STOP",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_filters_and_broken_calls_come_back_as_they_were() {
        for word in FILTERED.iter().chain(&BROKEN).chain(&OTHER) {
            let finish = decode(&Str::new(word), None);
            assert!(finish.is_some());
            assert_eq!(encode(finish.as_ref()), *word);
        }
        assert_eq!(decode(&Str::new(""), None), None);
        let refused = Finish::ContentFilter {
            category: Some("cyber".to_owned()),
            text: None,
        };
        assert_eq!(encode(Some(&refused)), "SAFETY");
        assert_eq!(encode(Some(&Finish::ToolUse)), "STOP");
        assert_eq!(with_calls(Finish::Stop, true), Finish::ToolUse);
        assert_eq!(with_calls(Finish::Length, true), Finish::Length);
    }
}
