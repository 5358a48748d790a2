//! The shape of the answer: asked for natively, or in words where the provider
//! knows no schemas.

use memchr::memmem;

use crate::protocol::Protocol;
use crate::protocol::ir::{Format, Part};
use crate::protocol::json::{Object, Str};
use crate::protocol::notes::{Action, Field};
use crate::protocol::schema;

use super::Scope;

/// How a shape is asked for.
pub(super) struct Shape {
    /// Whether a schema is said natively.
    native: bool,
    /// Words behind the system text.
    pub(super) instruction: Option<String>,
}

/// Decides how the shape is asked for.
pub(super) fn plan(scope: &mut Scope<'_, '_>) -> Shape {
    let native = Shape {
        native: true,
        instruction: None,
    };
    match &scope.request.format {
        Format::Text => native,
        Format::JsonObject => {
            if says_json(scope) {
                return native;
            }
            // OpenAI refuses the mode when the prompt doesn't speak of JSON.
            scope.notes.info(Action::Injected, "system_json_word");
            Shape {
                native: true,
                instruction: Some("Reply in JSON.".to_owned()),
            }
        }
        Format::Schema {
            schema,
            description,
            bare_enum,
            ..
        } => {
            scope.fixups.bare_enum = *bare_enum;
            if scope.target.capabilities.structured {
                return native;
            }
            let path = scope.path(Field::Format);
            scope
                .notes
                .warn_at(Action::Emulated, "response_format", path);
            scope.fixups.fenced = true;
            let described = schema::described(schema, description.as_ref());
            let schema = described.as_ref().unwrap_or(schema);
            Shape {
                native: false,
                instruction: Some(format!(
                    "Reply with one JSON value only, matching this JSON Schema: {}",
                    schema.compact()
                )),
            }
        }
    }
}

/// Whether the word stands anywhere in the prompt. Clients of OpenAI's own
/// protocols had to write it themselves.
fn says_json(scope: &Scope<'_, '_>) -> bool {
    if matches!(scope.request.origin, Protocol::Chat | Protocol::Responses) {
        return true;
    }
    let says = |text: &Str<'_>| {
        let inner = text.inner();
        let exact = ["json", "JSON", "Json"];
        exact
            .iter()
            .any(|word| memmem::find(inner.as_bytes(), word.as_bytes()).is_some())
    };
    let parts = scope.request.turns.iter().flat_map(|turn| &turn.parts);
    let mut texts = parts.filter_map(|part| match part {
        Part::Text(text) => Some(&text.text),
        _ => None,
    });
    scope.request.system.iter().any(|block| says(&block.text)) || texts.any(says)
}

/// Writes `response_format`.
pub(super) fn write(scope: &mut Scope<'_, '_>, shape: &Shape, body: &mut Object<'_>) {
    match &scope.request.format {
        Format::JsonObject => {
            body.object("response_format").text("type", "json_object");
        }
        Format::Schema {
            name,
            description,
            schema,
            strict,
            ..
        } if shape.native => {
            let path = scope.path(Field::Format);
            let able = *strict == Some(true) && schema::is_strict(schema);
            let strict = strictness(scope, *strict, able, path);
            let mut format = body.object("response_format");
            format.text("type", "json_schema");
            let mut inner = format.object("json_schema");
            inner.text("name", &schema_name(name.as_ref()));
            if let Some(description) = description {
                inner.str("description", description);
            }
            inner.raw("schema", schema);
            if let Some(strict) = strict {
                inner.bool("strict", strict);
            }
        }
        Format::Text | Format::Schema { .. } => {}
    }
}

/// Whether to be strict: as the client said, but never where the provider would
/// refuse the schema for it. Clients of chat have said it in the same words.
pub(super) fn strictness(
    scope: &mut Scope<'_, '_>,
    wanted: Option<bool>,
    able: bool,
    path: &'static str,
) -> Option<bool> {
    let same = matches!(scope.request.origin, Protocol::Chat);
    match wanted {
        Some(true) if able || same => Some(true),
        Some(true) => {
            let note = format!("{path}.strict=true>false");
            scope.notes.warn_at(Action::Coerced, note, path);
            Some(false)
        }
        other => other,
    }
}

/// A schema's name with the letters that are allowed.
fn schema_name(name: Option<&Str<'_>>) -> String {
    let allowed = |c: char| {
        if c.is_ascii_alphanumeric() || c == '-' || c == '_' {
            c
        } else {
            '_'
        }
    };
    let name = name.map(Str::plain).unwrap_or_default();
    if name.is_empty() {
        return "response".to_owned();
    }
    name.chars().take(64).map(allowed).collect()
}
