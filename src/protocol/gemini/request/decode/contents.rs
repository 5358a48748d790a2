//! The conversation: contents of parts.

use super::pairing::Pairing;
use super::wrong;
use crate::protocol::gemini::part::{self, Fields};
use crate::protocol::gemini::said::Said;
use crate::protocol::gemini::spelling::{find, text};
use crate::protocol::gemini::{media, mint, signature, stream};
use crate::protocol::ir::{Arguments, Call, Invalid, Media, Part, Role, Text, ToolResult, Turn};
use crate::protocol::json::{Str, Value};
use crate::protocol::notes::{Action, Notes};

/// Reads `contents`: a list, one content, or a string.
pub(super) fn decode<'a>(value: Value<'a>, notes: &mut Notes) -> Result<Vec<Turn<'a>>, Invalid> {
    let mut reader = Reader {
        notes,
        pairing: Pairing::default(),
        turn: 0,
    };
    let one = (!value.is_array()).then_some(value);
    let contents = value.items().chain(one).enumerate();
    let turns = contents.map(|(at, content)| reader.turn(at, content));
    let turns = turns.collect::<Result<Vec<_>, _>>()?;
    if turns.is_empty() {
        return Err(Invalid::request("contents", "contents is not specified"));
    }
    Ok(turns)
}

struct Reader<'n> {
    notes: &'n mut Notes,
    pairing: Pairing,
    turn: usize,
}

impl Reader<'_> {
    fn turn<'a>(&mut self, at: usize, content: Value<'a>) -> Result<Turn<'a>, Invalid> {
        self.turn = at;
        if let Some(text) = content.as_str() {
            return Ok(Turn {
                role: Role::User,
                parts: vec![Part::Text(Text::new(text))],
                at,
            });
        }
        if !content.is_object() {
            return Err(wrong(format!("contents[{at}]"), "an object", content));
        }
        let role = role(content, at)?;
        if role == Role::Assistant {
            self.pairing.turn();
        }
        let parts = match find(content, "parts") {
            Some(parts) => self.parts(parts, role)?,
            None => Vec::new(),
        };
        Ok(Turn { role, parts, at })
    }

    fn parts<'a>(&mut self, parts: Value<'a>, role: Role) -> Result<Vec<Part<'a>>, Invalid> {
        let one = (!parts.is_array()).then_some(parts);
        let mut said = Said::default();
        for (index, part) in parts.items().chain(one).enumerate() {
            if let Some(text) = part.as_str() {
                said.parts.push(Part::Text(Text::new(text)));
                continue;
            }
            if !part.is_object() {
                let path = format!("contents[{}].parts[{index}]", self.turn);
                return Err(wrong(path, "an object", part));
            }
            self.part(part, role, index, &mut said)?;
        }
        Ok(said.parts)
    }

    fn part<'a>(
        &mut self,
        value: Value<'a>,
        role: Role,
        index: usize,
        said: &mut Said<'a>,
    ) -> Result<(), Invalid> {
        let fields = part::read(value);
        if let Some(unknown) = &fields.unknown {
            let path = format!("{}.{}", self.at(index), unknown.plain());
            return Err(Invalid::request(path, "a part of this sort is not known"));
        }
        if fields.metadata.is_some() {
            self.notes
                .info(Action::Dropped, "contents[].parts[].partMetadata");
        }
        let signed = fields.signature.clone().and_then(signature::inward);
        if let Some(call) = fields.call {
            let call = self.call(call, index)?;
            said.call(call, signed);
        } else if let Some(response) = fields.response {
            let result = self.result(response, index)?;
            said.parts.push(Part::Result(result));
        } else if fields.inline.is_some() || fields.file.is_some() {
            let medium = self.medium(&fields, self.at(index))?;
            said.foreign_first(signed);
            said.parts.push(Part::Media(medium));
        } else if fields.is_hosted() {
            said.foreign_first(signed);
            let place = [self.turn.to_le_bytes(), index.to_le_bytes()].concat();
            said.hosted(&fields, value, mint::id("", &[&place]));
        } else if role == Role::Assistant {
            said.text(fields.text.unwrap_or_default(), fields.thought, signed);
        } else if let Some(text) = fields.text {
            said.parts.push(Part::Text(Text::new(text)));
        }
        Ok(())
    }

    fn at(&self, index: usize) -> String {
        format!("contents[{}].parts[{index}]", self.turn)
    }

    fn call<'a>(&mut self, call: Value<'a>, index: usize) -> Result<Call<'a>, Invalid> {
        let Some(name) = text(call, "name") else {
            let path = format!("{}.functionCall.name", self.at(index));
            return Err(Invalid::request(path, "the name is required"));
        };
        let arguments = stream::arguments(call);
        if !arguments.is_object() {
            let path = format!("{}.functionCall.args", self.at(index));
            return Err(Invalid::request(path, "expected an object"));
        }
        let id = text(call, "id");
        let id = id.as_ref().map(Str::plain);
        let place = [self.turn, index];
        Ok(Call {
            id: self
                .pairing
                .call(id.as_deref(), &name.plain(), place)
                .into(),
            name,
            namespace: None,
            arguments: Arguments::Object(arguments),
            opaque: None,
            cache: None,
        })
    }

    fn result<'a>(&mut self, response: Value<'a>, index: usize) -> Result<ToolResult<'a>, Invalid> {
        let Some(name) = text(response, "name") else {
            let path = format!("{}.functionResponse.name", self.at(index));
            return Err(Invalid::request(path, "the name is required"));
        };
        let id = text(response, "id");
        let id = id.as_ref().map(Str::plain);
        let place = [self.turn, index];
        let id = self.pairing.result(id.as_deref(), &name.plain(), place);
        let (said, is_error) = outcome(find(response, "response"));
        let mut parts = vec![Part::Text(Text::new(said))];
        let more = find(response, "parts");
        for (number, part) in more.into_iter().flat_map(|parts| parts.items()).enumerate() {
            let fields = part::read(part);
            let path = format!("{}.functionResponse.parts[{number}]", self.at(index));
            if fields.inline.is_none() && fields.file.is_none() {
                return Err(Invalid::request(path, "expected inlineData or fileData"));
            }
            parts.push(Part::Media(self.medium(&fields, path)?));
        }
        Ok(ToolResult {
            id: id.into(),
            name: Some(name),
            parts,
            is_error,
            custom: false,
            cache: None,
        })
    }

    fn medium<'a>(&mut self, fields: &Fields<'a>, path: String) -> Result<Media<'a>, Invalid> {
        if fields.clip {
            self.notes
                .warn(Action::Dropped, format!("{path}.videoMetadata"));
        }
        if fields.resolution {
            self.notes
                .info(Action::Dropped, format!("{path}.mediaResolution"));
        }
        let told = fields.inline.or(fields.file);
        let name = told.and_then(|told| text(told, "displayName"));
        let (kind, source) = match (fields.inline, fields.file) {
            (Some(inline), _) => {
                let read = media::decode_inline(inline).map_err(|_| {
                    let path = format!("{path}.inlineData.data");
                    Invalid::request(path, "expected base64")
                })?;
                if read.corrected {
                    let what = format!("{path}.inlineData.mimeType");
                    self.notes.info(Action::Coerced, what);
                }
                (read.kind, read.source)
            }
            (None, file) => file.and_then(media::decode_file).ok_or_else(|| {
                let path = format!("{path}.fileData.fileUri");
                Invalid::request(path, "the URI is required")
            })?,
        };
        Ok(Media {
            kind,
            source,
            name,
            context: None,
            detail: None,
            cite: false,
            cache: None,
            path,
        })
    }
}

fn role(content: Value<'_>, at: usize) -> Result<Role, Invalid> {
    let Some(role) = text(content, "role") else {
        return Ok(Role::User);
    };
    Ok(match role.plain().to_ascii_lowercase().as_str() {
        "user" | "function" | "tool" => Role::User,
        "model" | "assistant" => Role::Assistant,
        "system" => Role::System,
        other => {
            let message = format!("expected 'user' or 'model', found '{other}'");
            return Err(Invalid::request(format!("contents[{at}].role"), message));
        }
    })
}

/// What came of a call, as text, and whether the tool failed.
fn outcome(response: Option<Value<'_>>) -> (Str<'_>, bool) {
    let Some(response) = response else {
        return (Str::new(""), false);
    };
    if let Some(text) = response.as_str() {
        return (text, false);
    }
    let whole = || Str::from(response.raw().compact().into_owned());
    let mut members = response.members();
    let sole = members.next().filter(|_| members.next().is_none());
    if find(response, "error").is_some() {
        let text = match sole {
            Some((_, error)) => error
                .as_str()
                .unwrap_or_else(|| Str::from(error.raw().compact().into_owned())),
            None => whole(),
        };
        return (text, true);
    }
    let said = sole.and_then(|(name, value)| {
        let known = ["output", "result", "content"];
        known
            .iter()
            .any(|known| name.is(known))
            .then(|| value.as_str())?
    });
    (said.unwrap_or_else(whole), false)
}
