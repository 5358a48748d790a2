//! Opaque reasoning on its way through clients of another family: a blob made by
//! one provider travels in the slot of another protocol and comes home.
//!
//! An envelope is base64 of `PLX1` and a CBOR map (RFC 8949) of text: `k` the
//! kind, `d` the blob, `m` the model, `u` the provider account, `t` reasoning
//! text. Five short strings don't need a crate: what is written here is read here,
//! and whatever else turns up counts as a blob of somebody else's.

mod cbor;
mod strip;
#[cfg(test)]
mod tests;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::ir::{Opaque, OpaqueKind};
use super::json::Str;
pub use strip::{is_marked, strip_foreign};

/// How every envelope begins. It is base64 of a magic number, valid wherever
/// base64 is wanted.
pub const MARK: &str = "UExYM";

/// The magic number. [`MARK`] is the base64 of it.
const MAGIC: &[u8] = b"PLX1";
/// The longest envelope that is opened, in bytes.
const LARGEST: usize = 16 << 20;

/// Clients send back what they were given in either alphabet, with or without
/// padding: Google's Python SDK decodes the blob and encodes it URL-safe.
const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// A blob as a client of that native kind is to see it: as it is where the client's
/// own family made it, in an envelope otherwise. `text` is reasoning that must
/// come home with it and has no place of its own.
#[must_use]
pub fn outward<'a>(opaque: &'a Opaque<'_>, native: &[OpaqueKind], text: Option<&str>) -> Str<'a> {
    if native.contains(&opaque.kind) {
        return opaque.data.borrowed();
    }
    let data = opaque.data.plain();
    let model = opaque.model.as_ref().map(Str::plain);
    let account = opaque.account.as_ref().map(Str::plain);
    let fields = [
        ("k", Some(word(opaque.kind))),
        ("m", model.as_deref()),
        ("u", account.as_deref()),
        ("d", Some(data.as_ref())),
        ("t", text),
    ];
    let mut out = MAGIC.to_vec();
    cbor::write(&mut out, &fields);
    Str::from(STANDARD.encode(out))
}

/// What a client sent in a slot for blobs: unwrapped if it is an envelope, else
/// its own family's. The second value is the text that came home with it.
#[must_use]
pub fn inward<'a>(data: Str<'a>, native: OpaqueKind) -> (Opaque<'a>, Option<String>) {
    if let Some((opaque, text)) = opened(&data) {
        return (opaque, text);
    }
    let opaque = Opaque {
        kind: native,
        data,
        model: None,
        account: None,
    };
    (opaque, None)
}

/// What is in an envelope; `None` when it is none, or a broken one.
fn opened(data: &Str<'_>) -> Option<(Opaque<'static>, Option<String>)> {
    let plain = data.plain();
    if !plain.starts_with(MARK) || plain.len() > LARGEST {
        return None;
    }
    let url_safe = plain.contains(['-', '_']);
    let engine = if url_safe { &URL_SAFE } else { &STANDARD };
    let bytes = engine.decode(plain.as_ref()).ok()?;
    let mut fields = cbor::read(bytes.strip_prefix(MAGIC)?)?;
    let mut take = |name: &str| {
        let at = fields.iter().position(|(key, _)| *key == name)?;
        Some(fields.swap_remove(at).1.to_owned())
    };
    let opaque = Opaque {
        kind: kind(&take("k")?)?,
        data: Str::from(take("d")?),
        model: take("m").map(Str::from),
        account: take("u").map(Str::from),
    };
    Some((opaque, take("t")))
}

/// The kinds and their words in an envelope. Envelopes live in clients' histories:
/// a word that was once given out stays.
const KINDS: [(OpaqueKind, &str); 5] = [
    (OpaqueKind::AnthropicSignature, "anthropic.signature"),
    (OpaqueKind::AnthropicRedacted, "anthropic.redacted"),
    (OpaqueKind::OpenAiEncrypted, "openai.encrypted"),
    (OpaqueKind::GeminiSignature, "gemini.signature"),
    (OpaqueKind::Unsigned, "unsigned"),
];

fn word(kind: OpaqueKind) -> &'static str {
    let found = KINDS.iter().find(|(known, _)| *known == kind);
    found.map_or("unsigned", |(_, word)| word)
}

fn kind(word: &str) -> Option<OpaqueKind> {
    let found = KINDS.iter().find(|(_, known)| *known == word);
    found.map(|(kind, _)| *kind)
}
