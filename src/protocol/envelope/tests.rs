//! What envelopes hold, and what becomes of them on the way to a provider.

use super::*;
use crate::protocol::Protocol;
use crate::protocol::json::Tape;
use crate::protocol::splice::apply;
use bytes::Bytes;
use proptest::prelude::*;

fn blob(kind: OpaqueKind, data: &str) -> Opaque<'static> {
    Opaque {
        kind,
        data: Str::from(data.to_owned()),
        model: Some(Str::new("m")),
        account: Some(Str::new("acct")),
    }
}

fn wrapped(kind: OpaqueKind, data: &str, text: Option<&str>) -> String {
    outward(&blob(kind, data), &[], text).to_plain_string()
}

fn stripped(protocol: Protocol, body: &str) -> String {
    let mut tape = Tape::new();
    let root = tape.parse(body).unwrap();
    let (patches, lost) = strip_foreign(protocol, root, "acct");
    assert!(!lost || !patches.is_empty());
    let frames = apply(&[Bytes::copy_from_slice(body.as_bytes())], patches);
    let text = String::from_utf8(frames.concat()).unwrap();
    assert!(Tape::new().parse(&text).is_ok(), "{text}");
    text
}

#[test]
fn a_blob_stays_as_it_is_for_its_own_family_and_travels_through_any_other() {
    let signature = blob(OpaqueKind::AnthropicSignature, "EqQB/+=");
    let native = outward(&signature, &[OpaqueKind::AnthropicSignature], None);
    assert!(native.is("EqQB/+="));
    let foreign = outward(&signature, &[OpaqueKind::GeminiSignature], Some("hm"));
    assert!(foreign.plain().starts_with(MARK) && foreign.len().is_multiple_of(4));
    let (home, text) = inward(foreign.borrowed(), OpaqueKind::GeminiSignature);
    assert_eq!((&home, text.as_deref()), (&signature, Some("hm")));
}

#[test]
fn an_envelope_comes_back_in_either_alphabet_with_or_without_padding() {
    let signature = blob(OpaqueKind::OpenAiEncrypted, "ÿ>?~ÿÿ>>??");
    let envelope = outward(&signature, &[], None).to_plain_string();
    let url_safe = envelope.replace('+', "-").replace('/', "_");
    assert_ne!(envelope, url_safe);
    for form in [&envelope, &url_safe] {
        for form in [form.as_str(), form.trim_end_matches('=')] {
            let (home, _) = inward(Str::new(form), OpaqueKind::GeminiSignature);
            assert_eq!(home, signature);
        }
    }
}

#[test]
fn what_is_no_whole_envelope_is_the_clients_own_blob() {
    let envelope = wrapped(OpaqueKind::GeminiSignature, "data", None);
    let mut broken: Vec<String> = (0..envelope.len() - 2)
        .map(|end| envelope[..end].to_owned())
        .collect();
    broken.push(format!("{envelope}AAAA"));
    broken.push(format!("UExYM{}", "!".repeat(20)));
    broken.push("UExYMb9//////////w==".to_owned());
    for data in broken {
        let (opaque, text) = inward(Str::new(&data), OpaqueKind::AnthropicSignature);
        assert_eq!(opaque.kind, OpaqueKind::AnthropicSignature, "{data}");
        assert!(opaque.data.is(&data) && text.is_none());
    }
}

#[test]
fn a_foreign_thought_goes_out_of_a_messages_body_and_nothing_else_changes() {
    let foreign = wrapped(OpaqueKind::OpenAiEncrypted, "x", None);
    let thought = format!(r#"{{"type":"thinking", "thinking":"t","signature":"{foreign}"}}"#);
    let hidden = format!(r#"{{"type":"redacted_thinking","data":"{foreign}"}}"#);
    let own = r#"{"type":"thinking","thinking":"u","signature":"EqQB"}"#;
    let text = r#"{"type":"text","text":"a"}"#;
    for (blocks, left) in [
        (format!("[ {thought} , {text} ]"), format!("[ {text} ]")),
        (format!("[ {text} , {thought} ]"), format!("[ {text} ]")),
        (
            format!("[{thought},{hidden},{own},{thought},{text},{hidden}]"),
            format!("[{own},{text}]"),
        ),
    ] {
        let body = |blocks: &str| {
            format!(
                r#"{{"n":1e400,"messages":[{{"role":"user","content":"q"}}, {{"role":"assistant","content":{blocks}}}]}}"#
            )
        };
        assert_eq!(stripped(Protocol::Messages, &body(&blocks)), body(&left));
    }
    let only = format!(
        r#"{{"messages":[{{"role":"user","content":"q"}},{{"role":"assistant","content":[{thought},{hidden}]}},{{"role":"user","content":"r"}}]}}"#
    );
    assert_eq!(
        stripped(Protocol::Messages, &only),
        r#"{"messages":[{"role":"user","content":"q"},{"role":"user","content":"r"}]}"#
    );
}

#[test]
fn an_envelope_of_the_providers_own_family_is_unwrapped() {
    let signature = wrapped(OpaqueKind::AnthropicSignature, "EqQB", Some("thought"));
    let body = format!(
        r#"{{"messages":[{{"content":[{{"type":"redacted_thinking","data":"{signature}"}},{{"type":"thinking","thinking":"x","signature":"{signature}"}}]}}]}}"#
    );
    assert_eq!(
        stripped(Protocol::Messages, &body),
        r#"{"messages":[{"content":[{"type":"thinking","thinking":"thought","signature":"EqQB"},{"type":"thinking","thinking":"x","signature":"EqQB"}]}]}"#
    );
}

#[test]
fn ciphertext_of_another_account_goes_with_its_item() {
    let body = |envelope: &str| {
        format!(
            r#"{{"input":[{{"type":"reasoning","summary":[],"encrypted_content":"{envelope}"}},{{"role":"user","content":"q"}}]}}"#
        )
    };
    let own = wrapped(OpaqueKind::OpenAiEncrypted, "gAAA", None);
    assert_eq!(stripped(Protocol::Responses, &body(&own)), body("gAAA"));
    let mut foreign = blob(OpaqueKind::OpenAiEncrypted, "gAAA");
    foreign.account = Some(Str::new("other"));
    let foreign = outward(&foreign, &[], None).to_plain_string();
    assert_eq!(
        stripped(Protocol::Responses, &body(&foreign)),
        r#"{"input":[{"role":"user","content":"q"}]}"#
    );
}

#[test]
fn chat_details_and_the_signatures_of_calls_are_cleaned() {
    let foreign = wrapped(OpaqueKind::AnthropicSignature, "x", None);
    let google = wrapped(OpaqueKind::GeminiSignature, "AbCd", None);
    let body = format!(
        r#"{{"messages":[{{"role":"assistant","reasoning_details":[{{"type":"reasoning.text","signature":"{foreign}","index":0}}],"tool_calls":[{{"id":"a","extra_content":{{"google":{{"thought_signature":"{google}"}}}}}},{{"id":"b","extra_content":{{"google":{{"x":1,"thought_signature":"{foreign}"}}}}}}]}}]}}"#
    );
    assert_eq!(
        stripped(Protocol::Chat, &body),
        r#"{"messages":[{"role":"assistant","tool_calls":[{"id":"a","extra_content":{"google":{"thought_signature":"AbCd"}}},{"id":"b","extra_content":{"google":{"x":1}}}]}]}"#
    );
}

#[test]
fn the_signature_of_another_accounts_call_leaves_nothing_behind_in_chat() {
    let mut foreign = blob(OpaqueKind::GeminiSignature, "AbCd");
    foreign.account = Some(Str::new("other"));
    let foreign = outward(&foreign, &[], None).to_plain_string();
    let body = format!(
        r#"{{"messages":[{{"role":"assistant","tool_calls":[{{"id":"a","extra_content":{{"google":{{"thought_signature":"{foreign}"}}}},"type":"function"}}]}}]}}"#
    );
    assert_eq!(
        stripped(Protocol::Chat, &body),
        r#"{"messages":[{"role":"assistant","tool_calls":[{"id":"a","type":"function"}]}]}"#
    );
}

#[test]
fn gemini_parts_lose_foreign_signatures_and_calls_get_the_sentinel() {
    let foreign = wrapped(OpaqueKind::AnthropicSignature, "x", None);
    let body = format!(
        r#"{{"contents":[{{"role":"model","parts":[{{"text":"t","thought":true,"thoughtSignature":"{foreign}"}},{{"thoughtSignature":"{foreign}","text":"a"}},{{"functionCall":{{"name":"f"}},"thought_signature":"{foreign}"}},{{"text":"","thoughtSignature":"{foreign}"}}]}}]}}"#
    );
    assert_eq!(
        stripped(Protocol::Gemini, &body),
        r#"{"contents":[{"role":"model","parts":[{"text":"a"},{"functionCall":{"name":"f"},"thought_signature":"skip_thought_signature_validator"}]}]}"#
    );
}

#[test]
fn the_letters_in_an_image_or_in_text_stay() {
    let envelope = wrapped(OpaqueKind::OpenAiEncrypted, "x", None);
    for (protocol, body) in [
        (
            Protocol::Messages,
            format!(
                r#"{{"messages":[{{"content":[{{"type":"image","source":{{"type":"base64","data":"{envelope}"}}}}]}}]}}"#
            ),
        ),
        (
            Protocol::Gemini,
            format!(r#"{{"contents":[{{"parts":[{{"inlineData":{{"data":"{envelope}"}}}}]}}]}}"#),
        ),
        (
            Protocol::Chat,
            format!(r#"{{"messages":[{{"content":"{envelope}"}}]}}"#),
        ),
        (Protocol::Responses, format!(r#"{{"input":"{envelope}"}}"#)),
        (
            Protocol::Messages,
            r#"{"messages":[{"content":[{"type":"thinking","signature":"UExYM!"}]}]}"#.to_owned(),
        ),
    ] {
        assert_eq!(stripped(protocol, &body), body);
    }
}

proptest! {
    #[test]
    fn the_mark_is_found_across_frames(text in "[UExYM]{0,40}", cuts in proptest::collection::vec(0_usize..40, 0..12)) {
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
        cuts.extend([0, text.len()]);
        cuts.sort_unstable();
        let frames: Vec<Bytes> = cuts.windows(2).map(|pair| Bytes::copy_from_slice(&text.as_bytes()[pair[0]..pair[1]])).collect();
        prop_assert_eq!(is_marked(&frames), text.contains(MARK));
    }

    #[test]
    fn any_blob_comes_home(
        data in any::<String>(), text in proptest::option::of(any::<String>()),
        model in proptest::option::of(any::<String>()), which in 0_usize..5,
    ) {
        let opaque = Opaque { kind: KINDS[which].0, data: Str::from(data), model: model.map(Str::from), account: None };
        let envelope = outward(&opaque, &[], text.as_deref());
        let (home, came) = inward(envelope.borrowed(), OpaqueKind::Unsigned);
        prop_assert_eq!(&home, &opaque);
        prop_assert_eq!(came, text);
    }

    #[test]
    fn no_bytes_in_an_envelope_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
        let data = STANDARD.encode([MAGIC, &bytes].concat());
        let (opaque, _) = inward(Str::new(&data), OpaqueKind::Unsigned);
        prop_assert!(opaque.kind != OpaqueKind::Unsigned || opaque.data.is(&data) || opened(&Str::new(&data)).is_some());
    }
}
