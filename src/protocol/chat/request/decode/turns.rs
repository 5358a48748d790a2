//! A client's messages as turns.

mod content;

pub(crate) use self::content::{medium_of_image, thinking_text};

use crate::protocol::chat::details::{self, From};
use crate::protocol::ir::{
    Arguments, Call, Invalid, OpaqueKind, Part, Role, SystemBlock, ToolResult, Turn,
};
use crate::protocol::json::{Str, Value};

use super::{Fields, mark};

/// What was said.
pub(super) struct Conversation<'a> {
    /// Leading system text.
    pub(super) system: Vec<SystemBlock<'a>>,
    /// The rest.
    pub(super) turns: Vec<Turn<'a>>,
    /// Whether a call of a custom tool is among it.
    pub(super) custom: bool,
}

/// Reads `messages`.
pub(super) fn decode<'a>(body: &Fields<'a>) -> Result<Conversation<'a>, Invalid> {
    let messages = body.objects("messages")?;
    if messages.is_empty() {
        let message = "'messages' must hold at least one message";
        return Err(Invalid::request("messages", message));
    }
    let mut reader = Reader::default();
    for (at, message) in messages.iter().enumerate() {
        reader.message(message, at)?;
    }
    Ok(Conversation {
        custom: reader.custom,
        system: reader.system,
        turns: reader.turns,
    })
}

/// A call that has been made, to find the name or the id of its result.
struct Made<'a> {
    id: Str<'a>,
    name: Str<'a>,
    custom: bool,
    answered: bool,
}

#[derive(Default)]
struct Reader<'a> {
    system: Vec<SystemBlock<'a>>,
    turns: Vec<Turn<'a>>,
    /// Calls of the turns since the last one of the user's own.
    made: Vec<Made<'a>>,
    custom: bool,
}

impl<'a> Reader<'a> {
    fn message(&mut self, message: &Fields<'a>, at: usize) -> Result<(), Invalid> {
        let role = message.wanted("role")?;
        match role.plain().as_ref() {
            "system" | "developer" => self.system(message, at),
            "user" => {
                let parts = content::user(message, "content")?;
                self.push(Role::User, parts, at);
                Ok(())
            }
            "assistant" => self.assistant(message, at),
            "tool" | "function" => self.result(message, at),
            other => Err(Invalid::request(
                message.path("role"),
                format!("'{other}' is no role; use system, developer, user, assistant or tool"),
            )),
        }
    }

    fn push(&mut self, role: Role, parts: Vec<Part<'a>>, at: usize) {
        self.turns.push(Turn { role, parts, at });
    }

    fn system(&mut self, message: &Fields<'a>, at: usize) -> Result<(), Invalid> {
        let texts = content::texts(message, "content")?;
        if self.turns.is_empty() {
            self.system
                .extend(texts.into_iter().map(|text| SystemBlock {
                    text: text.text,
                    cache: text.cache,
                }));
        } else {
            let parts = texts.into_iter().map(Part::Text).collect();
            self.push(Role::System, parts, at);
        }
        Ok(())
    }

    fn assistant(&mut self, message: &Fields<'a>, at: usize) -> Result<(), Invalid> {
        if message.some("audio").is_some() {
            return Err(Invalid::unsupported(
                "unsupported_content",
                message.path("audio"),
                "earlier audio is kept by the provider that made it, which is not the one asked",
            ));
        }
        let reasoned = details::read(message.value, From::Client);
        let thoughts = reasoned.thoughts.into_iter();
        let mut parts: Vec<Part<'a>> = thoughts.map(Part::Reasoning).collect();
        parts.extend(content::assistant(message, "content")?);
        if let Some(refusal) = message.string("refusal")?.filter(|text| !text.is_empty()) {
            parts.push(Part::Refusal(refusal));
        }
        for (i, entry) in message.objects("tool_calls")?.iter().enumerate() {
            let mut call = self.call(entry, &format!("call_m{at}_{i}"))?;
            let signed = reasoned.on_calls.iter().find(|(id, _)| *id == call.id);
            if let Some((_, opaque)) = signed.filter(|_| call.opaque.is_none()) {
                call.opaque = Some(opaque.clone());
            }
            parts.push(Part::Call(call));
        }
        if let Some(legacy) = message.object("function_call")? {
            let call = self.function_call(&legacy, format!("call_m{at}").into(), false)?;
            parts.push(Part::Call(call));
        }
        match self.turns.last_mut() {
            Some(last) if last.role == Role::Assistant => last.parts.extend(parts),
            _ => self.push(Role::Assistant, parts, at),
        }
        Ok(())
    }

    /// An entry of `tool_calls`. A call without an id is given one that stays the
    /// same as long as the conversation before it does.
    fn call(&mut self, entry: &Fields<'a>, minted: &str) -> Result<Call<'a>, Invalid> {
        let id = entry.string("id")?.filter(|id| !id.is_empty());
        let id = id.unwrap_or_else(|| minted.to_owned().into());
        let custom = entry.object("custom")?;
        let mut call = match (&custom, entry.object("function")?) {
            (Some(custom), _) => self.function_call(custom, id, true)?,
            (None, Some(function)) => self.function_call(&function, id, false)?,
            (None, None) => {
                let path = entry.path("function");
                return Err(Invalid::request(
                    path.clone(),
                    format!("'{path}' is required"),
                ));
            }
        };
        call.opaque = signature(entry.value).map(|data| {
            let (opaque, _) = details::blob(data, OpaqueKind::GeminiSignature, From::Client);
            opaque
        });
        call.cache = mark(entry);
        Ok(call)
    }

    fn function_call(
        &mut self,
        function: &Fields<'a>,
        id: Str<'a>,
        custom: bool,
    ) -> Result<Call<'a>, Invalid> {
        let name = function.wanted("name")?;
        self.custom |= custom;
        self.made.push(Made {
            id: id.clone(),
            name: name.clone(),
            custom,
            answered: false,
        });
        Ok(Call {
            id,
            name,
            namespace: None,
            arguments: arguments(function, custom)?,
            opaque: None,
            cache: None,
        })
    }

    /// A message of role `tool` or `function`.
    fn result(&mut self, message: &Fields<'a>, at: usize) -> Result<(), Invalid> {
        let told = message.string("tool_call_id")?.filter(|id| !id.is_empty());
        let name = message.string("name")?.filter(|name| !name.is_empty());
        let made = self.answered(told.as_ref(), name.as_ref());
        let custom = made.is_some_and(|made| made.custom);
        let id = told.or_else(|| made.map(|made| made.id.clone()));
        let Some(id) = id else {
            let path = message.path("tool_call_id");
            let text =
                format!("'{path}' is required: there is no call that this can be the result of");
            return Err(Invalid::request(path, text));
        };
        let result = Part::Result(ToolResult {
            id,
            name,
            parts: content::user(message, "content")?,
            is_error: false,
            custom,
            cache: mark(message),
        });
        match self.turns.last_mut() {
            Some(last) if last.role == Role::User && only_results(&last.parts) => {
                last.parts.push(result);
            }
            _ => self.push(Role::User, vec![result], at),
        }
        Ok(())
    }

    /// The call that a result belongs to: by its id, else the latest of that name
    /// without a result, else the earliest without one.
    fn answered(&mut self, id: Option<&Str<'a>>, name: Option<&Str<'a>>) -> Option<&Made<'a>> {
        let open = |made: &Made<'a>| !made.answered;
        let found = match (id, name) {
            (Some(id), _) => self.made.iter().rposition(|made| made.id == *id),
            (None, Some(name)) => {
                let mut all = self.made.iter();
                all.rposition(|made| open(made) && made.name == *name)
            }
            (None, None) => self.made.iter().position(open),
        };
        let made = self.made.get_mut(found?)?;
        made.answered = true;
        Some(made)
    }
}

fn only_results(parts: &[Part<'_>]) -> bool {
    parts.iter().all(|part| matches!(part, Part::Result(_)))
}

/// A call's arguments: a string, or a value as some clients send it.
fn arguments<'a>(function: &Fields<'a>, custom: bool) -> Result<Arguments<'a>, Invalid> {
    let name = if custom { "input" } else { "arguments" };
    let value: Option<Value<'a>> = function.some(name);
    if let Some(value) = value.filter(|value| value.is_object() && !custom) {
        return Ok(Arguments::Object(value.raw()));
    }
    let text = function.string(name)?.unwrap_or_default();
    Ok(if custom {
        Arguments::Free(text)
    } else {
        Arguments::Text(text)
    })
}

/// A signature on a call, in Google's words for its two services, or LiteLLM's.
pub(crate) fn signature<'a>(entry: Value<'a>) -> Option<Str<'a>> {
    let of = |outer: &str, inner: &str| {
        let at = entry.some(outer)?.some(inner)?.some("thought_signature")?;
        at.as_str().filter(|text| !text.is_empty())
    };
    let extra = of("extra_content", "google").or_else(|| of("extra_content", "vertex"));
    extra.or_else(|| {
        let fields = entry.some("provider_specific_fields")?;
        fields.some("thought_signature")?.as_str()
    })
}
