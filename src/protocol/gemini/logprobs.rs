//! Probabilities of tokens: Gemini's `logprobsResult` and chat's
//! `logprobs.content`.

use bytes::BytesMut;

use super::spelling;
use crate::protocol::json::{Array, Object, Raw, Str, Tape, Value};

/// `logprobsResult` as the elements of chat's array.
pub(super) fn decode(result: Value<'_>) -> Vec<Raw<'static>> {
    let chosen = spelling::find(result, "chosenCandidates");
    let rivals = spelling::find(result, "topCandidates");
    let mut rivals = rivals.into_iter().flat_map(|rivals| rivals.items());
    let chosen = chosen.into_iter().flat_map(|chosen| chosen.items());
    chosen
        .filter_map(|token| element(token, rivals.next()))
        .collect()
}

fn element(token: Value<'_>, rivals: Option<Value<'_>>) -> Option<Raw<'static>> {
    let mut out = BytesMut::new();
    {
        let mut object = Object::open(&mut out);
        token_into(token, &mut object);
        let mut list = object.array("top_logprobs");
        let rivals = rivals.and_then(|rivals| spelling::find(rivals, "candidates"));
        for rival in rivals.into_iter().flat_map(|rivals| rivals.items()) {
            token_into(rival, &mut list.object());
        }
    }
    Raw::parse(String::from_utf8(out.to_vec()).ok()?).ok()
}

fn token_into(token: Value<'_>, object: &mut Object<'_>) {
    let text = spelling::find(token, "token").and_then(|token| token.as_str());
    let text = text.unwrap_or_default();
    object.str("token", &text);
    let number = spelling::find(token, "logProbability").and_then(|number| number.number());
    object.digits("logprob", number.unwrap_or("0"));
    let mut bytes = object.array("bytes");
    for byte in text.plain().bytes() {
        crate::protocol::json::write::number(bytes.element(), byte);
    }
}

/// Writes the member `logprobsResult`.
pub(super) fn encode(tokens: &[Raw<'_>], object: &mut Object<'_>) {
    if tokens.is_empty() {
        return;
    }
    let mut result = object.object("logprobsResult");
    let mut tape = Tape::new();
    {
        let mut chosen = result.array("chosenCandidates");
        for token in tokens {
            if let Ok(token) = tape.parse(token.as_str()) {
                write(token, &mut chosen);
            }
        }
    }
    let mut top = result.array("topCandidates");
    for token in tokens {
        let mut step = top.object();
        let mut rivals = step.array("candidates");
        if let Ok(token) = tape.parse(token.as_str()) {
            let list = token.some("top_logprobs");
            for rival in list.into_iter().flat_map(|list| list.items()) {
                write(rival, &mut rivals);
            }
        }
    }
}

fn write(token: Value<'_>, to: &mut Array<'_>) {
    let text = token.some("token").and_then(|token| token.as_str());
    let number = token.some("logprob").and_then(|number| number.number());
    to.object()
        .str("token", &text.unwrap_or_else(|| Str::new("")))
        .digits("logProbability", number.unwrap_or("0"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_go_both_ways() {
        let text = r#"{"chosenCandidates":[{"token":"é","logProbability":-0.10}],"topCandidates":[{"candidates":[{"token":"é","logProbability":-0.10},{"token":"e","logProbability":-2}]}]}"#;
        let mut tape = Tape::new();
        let tokens = decode(tape.parse(text).unwrap());
        assert_eq!(
            tokens[0].as_str(),
            r#"{"token":"é","logprob":-0.10,"bytes":[195,169],"top_logprobs":[{"token":"é","logprob":-0.10,"bytes":[195,169]},{"token":"e","logprob":-2,"bytes":[101]}]}"#
        );
        let mut out = BytesMut::new();
        encode(&tokens, &mut Object::open(&mut out));
        let written = std::str::from_utf8(&out).unwrap();
        assert_eq!(written, format!(r#"{{"logprobsResult":{text}}}"#));
    }
}
