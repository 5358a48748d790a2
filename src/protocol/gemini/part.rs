//! One part of a content: which of its members are given, and how the usual parts
//! are written.

use bytes::BytesMut;

use super::spelling::camel;
use crate::protocol::json::{Object, Str, Value};

/// The members of a part that mean something.
#[derive(Debug, Default)]
pub(super) struct Fields<'a> {
    /// Text, visible or thought.
    pub(super) text: Option<Str<'a>>,
    /// Whether the text is a thought.
    pub(super) thought: bool,
    /// A signature, as written; never empty.
    pub(super) signature: Option<Str<'a>>,
    /// Bytes of a medium.
    pub(super) inline: Option<Value<'a>>,
    /// A medium that lies elsewhere.
    pub(super) file: Option<Value<'a>>,
    /// A call.
    pub(super) call: Option<Value<'a>>,
    /// What came of a call.
    pub(super) response: Option<Value<'a>>,
    /// Code that the provider ran.
    pub(super) code: Option<Value<'a>>,
    /// What came of that code.
    pub(super) outcome: Option<Value<'a>>,
    /// A call of another tool that the provider runs.
    pub(super) tool_call: Option<Value<'a>>,
    /// What came of it.
    pub(super) tool_response: Option<Value<'a>>,
    /// Which stretch of a film to look at.
    pub(super) clip: bool,
    /// How closely to look at a picture.
    pub(super) resolution: bool,
    /// The client's own words about it.
    pub(super) metadata: Option<Value<'a>>,
    /// A member that is not known, or not what it should be.
    pub(super) unknown: Option<Str<'a>>,
}

impl Fields<'_> {
    /// Whether the part is nothing but text, a signature or both.
    pub(super) const fn is_text(&self) -> bool {
        self.inline.is_none()
            && self.file.is_none()
            && self.call.is_none()
            && self.response.is_none()
            && !self.is_hosted()
    }

    /// Whether the part is about a tool that the provider runs.
    pub(super) const fn is_hosted(&self) -> bool {
        self.code.is_some()
            || self.outcome.is_some()
            || self.tool_call.is_some()
            || self.tool_response.is_some()
    }
}

/// Looks through a part.
pub(super) fn read(part: Value<'_>) -> Fields<'_> {
    let mut fields = Fields::default();
    for (name, value) in part.members() {
        if value.is_null() {
            continue;
        }
        match &*camel(&name) {
            "text" if value.is_str() => fields.text = value.as_str(),
            "thought" => fields.thought = value.as_bool() == Some(true),
            "thoughtSignature" => {
                fields.signature = value.as_str().filter(|text| !text.is_empty());
            }
            "inlineData" => fields.inline = Some(value),
            "fileData" => fields.file = Some(value),
            "functionCall" => fields.call = Some(value),
            "functionResponse" => fields.response = Some(value),
            "executableCode" => fields.code = Some(value),
            "codeExecutionResult" => fields.outcome = Some(value),
            "toolCall" => fields.tool_call = Some(value),
            "toolResponse" => fields.tool_response = Some(value),
            "videoMetadata" => {
                value.whole();
                fields.clip = true;
            }
            "mediaResolution" => {
                value.whole();
                fields.resolution = true;
            }
            "partMetadata" => fields.metadata = Some(value.whole()),
            _ => fields.unknown = Some(name),
        }
    }
    fields
}

/// Writes a part of text.
pub(super) fn write_text(
    text: &Str<'_>,
    thought: bool,
    signature: Option<&str>,
    out: &mut BytesMut,
) {
    let mut part = Object::open(out);
    part.str("text", text);
    if thought {
        part.bool("thought", true);
    }
    sign(&mut part, signature);
}

/// Writes the signature of a part, if it has one.
pub(super) fn sign(part: &mut Object<'_>, signature: Option<&str>) {
    if let Some(signature) = signature {
        part.text("thoughtSignature", signature);
    }
}
