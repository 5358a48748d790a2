//! JSON Schemas brought into the dialects that providers accept.
//!
//! Schemas are the client's, of any size and shape: references may go round in
//! circles or fan out without end. What is written is at most four times what was
//! read and 64 KiB; what would go beyond, or deeper than 64 levels, becomes
//! `{"type":"object"}`. Numbers keep their digits and members their order.

mod anthropic;
mod from_gemini;
mod gemini;
mod node;
mod openapi;
mod refs;
mod root;
mod strict;
#[cfg(test)]
mod tests;

use bytes::BytesMut;

use self::gemini::Dialect;
use super::json::{Object, Raw, Str, Tape};

/// For Gemini's JSON Schema mode (`parametersJsonSchema`, `responseJsonSchema`).
#[must_use]
pub fn for_gemini(schema: &Raw<'_>) -> Raw<'static> {
    with_tree(schema, |root| {
        gemini::adapted(root, Dialect::JsonSchema, schema).raw()
    })
}

/// For Gemini's OpenAPI mode (`parameters`, `responseSchema`). `None` when the
/// root has no properties: the field is then left out.
#[must_use]
pub fn for_openapi(schema: &Raw<'_>) -> Option<Raw<'static>> {
    with_tree(schema, |root| {
        let adapted = gemini::adapted(root, Dialect::OpenApi, schema);
        let object = adapted.text_of("type") == Some("OBJECT");
        let bare = adapted.get("properties").is_none();
        (!(object && bare)).then(|| adapted.raw())
    })
}

/// A Gemini schema in standard form.
#[must_use]
pub fn from_gemini(schema: &Raw<'_>) -> Raw<'static> {
    with_tree(schema, |root| from_gemini::standard(root, 0).raw())
}

/// For Anthropic's structured output and strict tools.
#[must_use]
pub fn for_anthropic(schema: &Raw<'_>) -> Raw<'static> {
    with_tree(schema, |root| anthropic::adapted(root, schema).raw())
}

/// Whether OpenAI would accept the schema as strict.
#[must_use]
pub fn is_strict(schema: &Raw<'_>) -> bool {
    with_tree(schema, strict::is_strict)
}

/// A tool's schema whose root is an object; `true` when it had to be wrapped as
/// the property `value`.
#[must_use]
pub fn object_root(schema: &Raw<'_>) -> (Raw<'static>, bool) {
    with_tree(schema, |root| match root::object(root) {
        root::Object::Already => (schema.borrowed().into_owned(), false),
        root::Object::Typed(node) => (node.raw(), false),
        root::Object::Wrapped(node) => (node.raw(), true),
    })
}

/// The schema with a description at its root; `None` where it has one already, or
/// where there is none to give.
#[must_use]
pub fn described(schema: &Raw<'_>, description: Option<&Str<'_>>) -> Option<Raw<'static>> {
    let description = description.filter(|text| !text.is_blank())?;
    let mut tape = Tape::new();
    let root = tape.parse(schema.as_str()).ok()?;
    if !root.is_object() || root.some("description").is_some() {
        return None;
    }
    let mut out = BytesMut::with_capacity(schema.as_str().len() + description.len() + 32);
    {
        let mut object = Object::open(&mut out);
        for (name, value) in root.members().filter(|(name, _)| !name.is("description")) {
            let out = object.foreign_key(&name);
            out.extend_from_slice(value.raw().as_str().as_bytes());
        }
        object.str("description", description);
    }
    Raw::parse(String::from_utf8(out.to_vec()).ok()?).ok()
}

/// Deeper than this a schema is cut off.
const DEEPEST: usize = 64;

/// The most bytes that may become of a schema.
fn most(schema: &Raw<'_>) -> usize {
    schema.as_str().len().saturating_mul(4) + 64 * 1024
}

fn with_tree<T>(schema: &Raw<'_>, then: impl FnOnce(&node::Node<'_>) -> T) -> T {
    let mut tape = Tape::new();
    match tape.parse(schema.as_str()) {
        Ok(value) => then(&node::Node::of(value)),
        // What is held as raw was checked.
        Err(_) => then(&node::Node::Map(node::Map::new())),
    }
}
