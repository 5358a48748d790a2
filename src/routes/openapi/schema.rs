//! Shapes of JSON values, written as constants and told as JSON Schema.

use serde_json::{Map, Value, json};

use super::described::NAMED;
use crate::config;

/// A shape. Objects are closed: what is not named is not there.
#[derive(Debug)]
pub(super) enum Schema {
    /// Anything.
    Any,
    /// Text.
    Text,
    /// true or false.
    Flag,
    /// A whole number.
    Whole,
    /// A number.
    Number,
    /// One of these words.
    Word(&'static [&'static str]),
    /// true and nothing else.
    True,
    /// That, or null.
    Null(&'static Self),
    /// A list of that.
    List(&'static Self),
    /// A map from free names to that.
    Map(&'static Self),
    /// An object with these fields.
    Fields(&'static [Field]),
    /// One or more of these.
    Either(&'static [Self]),
    /// One that has a name of its own.
    Named(&'static str),
    /// What the configuration file may have there.
    At(&'static [&'static str]),
}

/// A field of an object: its name, its shape, and whether it may be missing.
#[derive(Debug)]
pub(super) struct Field(pub(super) &'static str, pub(super) Schema, pub(super) bool);

/// A field that is always there.
pub(super) const fn field(name: &'static str, schema: Schema) -> Field {
    Field(name, schema, false)
}

/// A field that may be missing.
pub(super) const fn maybe(name: &'static str, schema: Schema) -> Field {
    Field(name, schema, true)
}

impl Schema {
    /// As JSON Schema 2020-12.
    pub(super) fn to_json(&self) -> Value {
        match self {
            Self::Any => json!({}),
            Self::Text => json!({ "type": "string" }),
            Self::Flag => json!({ "type": "boolean" }),
            Self::Whole => json!({ "type": "integer" }),
            Self::Number => json!({ "type": "number" }),
            Self::Word(words) => json!({ "type": "string", "enum": words }),
            Self::True => json!({ "const": true }),
            Self::Null(inner) => {
                json!({ "anyOf": [inner.to_json(), { "type": "null" }] })
            }
            Self::List(item) => json!({ "type": "array", "items": item.to_json() }),
            Self::Map(item) => {
                json!({ "type": "object", "additionalProperties": item.to_json() })
            }
            Self::Fields(fields) => object(fields),
            Self::Either(all) => {
                let all: Vec<Value> = all.iter().map(Self::to_json).collect();
                json!({ "anyOf": all })
            }
            Self::At(path) => config::json_schema_at(path),
            Self::Named(name) => json!({ "$ref": format!("#/components/schemas/{name}") }),
        }
    }
}

fn object(fields: &[Field]) -> Value {
    let properties: Map<String, Value> = { fields.iter() }
        .map(|Field(name, schema, _)| ((*name).to_owned(), schema.to_json()))
        .collect();
    let required = fields.iter().filter(|Field(_, _, maybe)| !maybe);
    let required: Vec<&str> = required.map(|Field(name, ..)| *name).collect();
    json!({
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

/// The shapes with names: those of the configuration, and ours.
pub(super) fn named() -> Value {
    let mut all = config::json_schemas();
    for (name, schema) in NAMED {
        all.insert((*name).to_owned(), schema.to_json());
    }
    Value::Object(all)
}
