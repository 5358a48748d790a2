//! The tables of the file as JSON Schema, for those who write through the
//! management API. Made from the tables that check the file: what they let in is
//! what is told.

use serde_json::{Map, Value, json};

use super::schema::{ALIAS, FILE, KEY, PROVIDER, Shape, Table, USER_QUOTA};

/// The schemas of what the API edits, by name; `NAME.patch` is the same with
/// nothing required.
#[must_use]
pub fn json_schemas() -> Map<String, Value> {
    let mut all = Map::new();
    for (name, table) in [
        ("provider", &PROVIDER),
        ("alias", &ALIAS),
        ("key", &KEY),
        ("userQuota", &USER_QUOTA),
    ] {
        let mut whole = object(table);
        // Shown with its name, and taken with it.
        match name {
            "alias" => whole["properties"]["slug"] = json!({ "type": "string" }),
            "key" | "userQuota" => whole["properties"]["name"] = json!({ "type": "string" }),
            _ => {}
        }
        let mut patch = whole.clone();
        if let Some(fields) = patch.as_object_mut() {
            fields.shift_remove("required");
        }
        if name == "key" {
            // Said only once, and kept as the instant that it leads to.
            let mut new = whole.clone();
            new["properties"]["expiresInMinutes"] = json!({ "type": "integer", "minimum": 1 });
            all.insert("key.new".to_owned(), new);
        }
        all.insert(name.to_owned(), whole);
        all.insert(format!("{name}.patch"), patch);
    }
    all
}

/// The schema of the file's field at that path; anything, where there is none.
#[must_use]
pub fn json_schema_at(path: &[&str]) -> Value {
    let mut table = &FILE;
    for (depth, name) in path.iter().enumerate() {
        match table.field(name).map(|field| &field.shape) {
            Some(shape) if depth + 1 == path.len() => return schema(shape),
            Some(Shape::Fields(inner)) => table = inner,
            _ => break,
        }
    }
    json!({})
}

fn object(table: &Table) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for field in table.fields {
        let value = value(&field.shape, field.required);
        properties.insert(field.name.to_owned(), value.clone());
        if let Some(other) = field.also {
            properties.insert(other.to_owned(), value);
        } else if field.required {
            required.push(field.name);
        }
    }
    json!({
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": table.open,
    })
}

/// A field's value: null leaves one unsaid that need not be there.
fn value(shape: &Shape, required: bool) -> Value {
    match shape {
        Shape::Any | Shape::Nullable(_) | Shape::Bound => schema(shape),
        _ if required => schema(shape),
        _ => json!({ "anyOf": [schema(shape), { "type": "null" }] }),
    }
}

fn schema(shape: &Shape) -> Value {
    match shape {
        Shape::Any => json!({}),
        Shape::Object | Shape::Options => json!({ "type": "object" }),
        Shape::Text => json!({ "type": "string" }),
        Shape::Secret => json!({ "type": "string", "format": "password" }),
        Shape::Flag => json!({ "type": "boolean" }),
        Shape::Whole(least, most) => {
            json!({ "type": "integer", "minimum": least, "maximum": most })
        }
        Shape::Number(least, most) => {
            json!({ "type": "number", "minimum": least, "maximum": most })
        }
        Shape::Bound => {
            json!({ "anyOf": [{ "type": "number", "minimum": 0 }, { "type": "null" }] })
        }
        Shape::Word(words) => json!({ "type": "string", "enum": words }),
        Shape::Nullable(inner) => json!({ "anyOf": [schema(inner), { "type": "null" }] }),
        Shape::List(item) => json!({ "type": "array", "items": schema(item) }),
        Shape::Map(item) => json!({ "type": "object", "additionalProperties": schema(item) }),
        Shape::Fields(table) => object(table),
        Shape::Tagged(tag, tables) => {
            let each = tables.iter().map(|(word, table)| {
                let mut one = object(table);
                one["properties"][*tag] = json!({ "const": word });
                one
            });
            json!({ "anyOf": each.collect::<Vec<_>>() })
        }
        Shape::Either(shapes) => {
            json!({ "anyOf": shapes.iter().map(schema).collect::<Vec<_>>() })
        }
    }
}
