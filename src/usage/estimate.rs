//! Tokens that are counted here because a provider may not report them.

use crate::protocol::Protocol;
use crate::protocol::estimate::answer::Answer;
use crate::protocol::usage::Tokens;

/// What is counted of one request and its answer.
#[derive(Debug)]
pub struct Estimate {
    input: u64,
    answer: Answer,
}

impl Estimate {
    /// For a request of that many tokens, whose answer comes in that protocol.
    #[must_use]
    pub fn new(input: u64, protocol: Protocol, stream: bool) -> Self {
        Self {
            input,
            answer: Answer::new(protocol, stream),
        }
    }

    /// A piece of the answer.
    pub fn see(&mut self, piece: &[u8]) {
        self.answer.push(piece);
    }

    /// Puts what was counted where nothing was reported, and where an answer that
    /// is not `whole` was reported with less than it has. False when nothing had
    /// to be put anywhere.
    pub fn fill(&self, tokens: &mut Tokens, whole: bool) -> bool {
        let sum = |told: u64, bucket: Option<u64>| told.saturating_add(bucket.unwrap_or(0));
        let sent = tokens.inputs().fold(0, sum);
        let written = tokens.outputs().fold(0, sum);
        let (output, thought) = (self.answer.output(), self.answer.thought());
        let counted = output.saturating_add(thought);
        let fills_input = sent == 0 && self.input > 0;
        let fills_output = counted > written && (written == 0 || !whole);
        if fills_input {
            tokens.input = Some(self.input);
        }
        if fills_output {
            tokens.output = Some(output);
            tokens.reasoning = (thought > 0).then_some(thought);
        }
        fills_input || fills_output
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: &[u8] = b"data: {\"content\":\"one two three four five six\"}\n\n";

    fn filled(mut tokens: Tokens, whole: bool) -> (Option<u64>, Option<u64>, bool) {
        let mut estimate = Estimate::new(9, Protocol::Chat, true);
        estimate.see(EVENTS);
        let estimated = estimate.fill(&mut tokens, whole);
        (tokens.input, tokens.output, estimated)
    }

    fn reported(input: u64, output: u64) -> Tokens {
        Tokens {
            input: Some(input),
            output: Some(output),
            ..Tokens::default()
        }
    }

    #[test]
    fn only_what_was_not_reported_is_filled_in() {
        let six = 7;
        assert_eq!(filled(Tokens::default(), true), (Some(9), Some(six), true));
        assert_eq!(filled(reported(0, 0), true), (Some(9), Some(six), true));
        assert_eq!(filled(reported(5, 1), true), (Some(5), Some(1), false));
        assert_eq!(filled(reported(5, 0), true), (Some(5), Some(six), true));
    }

    #[test]
    fn what_a_broken_answer_was_reported_with_is_not_the_last_word() {
        assert_eq!(filled(reported(5, 1), false), (Some(5), Some(7), true));
        assert_eq!(filled(reported(5, 90), false), (Some(5), Some(90), false));
    }
}
