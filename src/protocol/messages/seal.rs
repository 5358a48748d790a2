//! Reasoning on its way to a client that speaks Messages: what it may read, and
//! the blob that must come home with it.

use crate::protocol::envelope;
use crate::protocol::ir::{Opaque, OpaqueKind, Thought};
use crate::protocol::json::Str;
use crate::protocol::translate::Reply;

/// The block that reasoning becomes.
#[derive(Debug, PartialEq)]
pub(super) enum Sealed<'t> {
    /// `thinking`
    Thinking {
        text: Str<'t>,
        signature: Str<'static>,
    },
    /// `redacted_thinking`
    Redacted { data: Str<'static> },
}

/// The block that reasoning becomes; `None` when there is nothing to read and
/// nothing to bring home.
pub(super) fn thought<'t>(thought: &'t Thought<'_>, reply: &Reply) -> Option<Sealed<'t>> {
    let text = if !reply.show_reasoning {
        Str::default()
    } else if !thought.text.is_empty() || thought.summary.is_empty() {
        thought.text.borrowed()
    } else {
        let summaries: Vec<_> = thought.summary.iter().map(Str::plain).collect();
        Str::from(summaries.join("\n\n"))
    };
    let opaque = thought.opaque.as_ref();
    if !text.is_empty() || is_signature(opaque) {
        let signature = signature(opaque, reply);
        return Some(Sealed::Thinking { text, signature });
    }
    let data = data(opaque?, reply)?;
    Some(Sealed::Redacted { data })
}

/// Whether it is the signature of a `thinking` block, which needs one even
/// without text.
pub(super) fn is_signature(opaque: Option<&Opaque<'_>>) -> bool {
    opaque.is_some_and(|opaque| opaque.kind == OpaqueKind::AnthropicSignature)
}

/// The signature of readable reasoning. It is never empty: a client sends back
/// what it got, and Anthropic refuses an empty one.
pub(super) fn signature(opaque: Option<&Opaque<'_>>, reply: &Reply) -> Str<'static> {
    const UNSIGNED: Opaque<'static> = Opaque {
        kind: OpaqueKind::Unsigned,
        data: Str::new(""),
        model: None,
        account: None,
    };
    let blob = opaque.filter(|opaque| !opaque.data.is_empty());
    seal(
        blob.unwrap_or(&UNSIGNED),
        OpaqueKind::AnthropicSignature,
        reply,
    )
}

/// The data of reasoning that can't be read; `None` where nothing is lost
/// without it.
pub(super) fn data(opaque: &Opaque<'_>, reply: &Reply) -> Option<Str<'static>> {
    let lost = opaque.kind != OpaqueKind::Unsigned && !opaque.data.is_empty();
    lost.then(|| seal(opaque, OpaqueKind::AnthropicRedacted, reply))
}

fn seal(opaque: &Opaque<'_>, native: OpaqueKind, reply: &Reply) -> Str<'static> {
    envelope::outward(&reply.marked(opaque), &[native], None).into_owned()
}
