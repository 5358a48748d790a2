//! What an answer repeats of its request: the client's own values, or what it
//! gets where it said nothing.

use bytes::BytesMut;

use crate::protocol::json::Value;
use crate::protocol::json::write::Object;

/// Members that every answer has, and what they are unless the client said
/// otherwise.
const MEMBERS: [(&str, &str); 18] = [
    ("instructions", "null"),
    ("max_output_tokens", "null"),
    ("max_tool_calls", "null"),
    ("metadata", "{}"),
    ("parallel_tool_calls", "true"),
    ("previous_response_id", "null"),
    ("prompt_cache_key", "null"),
    ("reasoning", "{\"effort\":null,\"summary\":null}"),
    ("safety_identifier", "null"),
    ("store", "true"),
    ("temperature", "1.0"),
    ("text", "{\"format\":{\"type\":\"text\"}}"),
    ("tool_choice", "\"auto\""),
    ("tools", "[]"),
    ("top_logprobs", "0"),
    ("top_p", "1.0"),
    ("truncation", "\"disabled\""),
    ("user", "null"),
];

/// Members of a JSON object, without its braces, that the answer to this request
/// repeats.
#[must_use]
pub fn members(body: Value<'_>) -> String {
    write_members(Some(body), None)
}

/// As [`members`], for a gateway that keeps the answer or does not, whatever was
/// asked.
#[must_use]
pub fn members_stored(body: Value<'_>, stored: bool) -> String {
    write_members(Some(body), Some(stored))
}

fn write_members(body: Option<Value<'_>>, stored: Option<bool>) -> String {
    let mut out = BytesMut::with_capacity(1024);
    let mut object = Object::open(&mut out);
    for (name, default) in MEMBERS {
        let told = body.and_then(|body| body.some(name));
        match (name, told, stored) {
            ("store", _, Some(stored)) => {
                object.bool(name, stored);
            }
            ("reasoning", Some(told), _) => reasoning(told, &mut object),
            ("text", Some(told), _) => text(told, &mut object),
            (_, Some(told), _) => {
                object.raw(name, &told.raw());
            }
            (_, None, _) => object.key(name).extend_from_slice(default.as_bytes()),
        }
    }
    drop(object);
    let text = String::from_utf8_lossy(&out);
    let inner = text
        .strip_prefix('{')
        .and_then(|text| text.strip_suffix('}'));
    inner.unwrap_or_default().to_owned()
}

/// Both members of the reasoning settings are always there.
fn reasoning(told: Value<'_>, object: &mut Object<'_>) {
    let mut reasoning = object.object("reasoning");
    for name in ["effort", "summary"] {
        if told.get(name).is_none() {
            reasoning.null(name);
        }
    }
    for (name, value) in told.members() {
        reasoning
            .foreign_key(&name)
            .extend_from_slice(value.raw().as_str().as_bytes());
    }
}

fn text(told: Value<'_>, object: &mut Object<'_>) {
    let mut text = object.object("text");
    if told.some("format").is_none() {
        text.object("format").text("type", "text");
    }
    for (name, value) in told.members() {
        if !(name.is("format") && value.is_null()) {
            text.foreign_key(&name)
                .extend_from_slice(value.raw().as_str().as_bytes());
        }
    }
}

/// Writes what an answer repeats; the defaults where nothing is at hand.
pub(super) fn write(members: &str, object: &mut Object<'_>) {
    if members.is_empty() {
        let defaults = write_members(None, None);
        return object.members(&defaults);
    }
    object.members(members);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::json::Tape;

    fn echoed(body: &str, stored: Option<bool>) -> serde_json::Value {
        let mut tape = Tape::new();
        let body = tape.parse(body).unwrap();
        let members = match stored {
            Some(stored) => members_stored(body, stored),
            None => members(body),
        };
        serde_json::from_str(&format!("{{{members}}}")).unwrap()
    }

    #[test]
    fn what_the_client_said_comes_back_and_the_rest_has_defaults() {
        let echo = echoed(
            r#"{"model":"m","input":"hi","instructions":"be \u0062rief","temperature":0.20,
                "tools":[{"type":"function","name":"f"}],"tool_choice":null,"metadata":{"a":"b"},
                "reasoning":{"effort":"low"},"text":{"verbosity":"low"}}"#,
            None,
        );
        assert_eq!(echo["instructions"], "be brief");
        assert_eq!(echo["tools"][0]["name"], "f");
        assert_eq!(echo["tool_choice"], "auto");
        assert_eq!(echo["metadata"]["a"], "b");
        assert_eq!(
            echo["reasoning"],
            serde_json::json!({"effort":"low","summary":null})
        );
        assert_eq!(
            echo["text"],
            serde_json::json!({"format":{"type":"text"},"verbosity":"low"})
        );
        assert_eq!(
            (&echo["store"], &echo["top_p"]),
            (&true.into(), &1.0.into())
        );
        assert!(echo.get("model").is_none() && echo.get("input").is_none());
    }

    #[test]
    fn an_answer_that_is_not_kept_says_so() {
        assert_eq!(echoed(r#"{"store":true}"#, Some(false))["store"], false);
        assert_eq!(echoed(r#"{"store":false}"#, None)["store"], false);
    }
}
