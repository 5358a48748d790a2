//! A request for a provider that speaks Gemini. Model and streaming are in the
//! path, so they are not written here.

mod config;
mod contents;
mod thinking;
mod tools;

use bytes::BytesMut;

use self::tools::Toolbox;
use crate::protocol::Protocol;
use crate::protocol::filter::Fixups;
use crate::protocol::fit::Names;
use crate::protocol::ir::{Format, Invalid, Request, Service};
use crate::protocol::json::{Object, Str};
use crate::protocol::notes::{Action, Field, Notes};
use crate::protocol::schema;
use crate::protocol::translate::{Encoded, Target};
use crate::protocol::turns::{Arranged, LastAssistant, MidSystem, Rules, arrange};

/// What Gemini wants of a conversation.
const RULES: Rules = Rules {
    mid_system: MidSystem::Hoist,
    merge: true,
    drop_blank: false,
    user_first: true,
    last_assistant: LastAssistant::Continue,
};

/// What Claude Code puts first: it changes with every request, which would ruin
/// the prompt cache.
const BILLING: &str = "x-anthropic-billing-header:";

/// Writes a request for a provider.
///
/// # Errors
///
/// Where the protocol can't say what was asked, naming the client's field.
pub fn encode(
    request: &Request<'_>,
    target: &Target<'_>,
    notes: &mut Notes,
) -> Result<Encoded, Invalid> {
    let mut fixups = Fixups::default();
    let toolbox = Toolbox::of(request, target, notes, &mut fixups)?;
    let arranged = arrange(request, &RULES, notes);
    let instruction = instruction(request, target, &toolbox, notes);
    fixups.fenced = instruction.is_some();
    let mut out = BytesMut::with_capacity(4096);
    {
        let mut body = Object::open(&mut out);
        system(&arranged, instruction.as_deref(), &mut body);
        contents::write(
            request,
            &arranged,
            target,
            &mut fixups.names,
            notes,
            &mut body,
        )?;
        toolbox.write(&mut body);
        let shaped = instruction.is_none();
        config::write(request, target, shaped, &mut fixups, notes, &mut body);
        service(request, notes, &mut body);
    }
    unsayable(request, notes);
    Ok(Encoded {
        body: out.freeze(),
        fixups,
    })
}

/// Where the answer's shape can't be bound, the words that ask for it.
fn instruction(
    request: &Request<'_>,
    target: &Target<'_>,
    toolbox: &Toolbox,
    notes: &mut Notes,
) -> Option<String> {
    let schema = match &request.format {
        Format::Text => return None,
        Format::JsonObject => None,
        Format::Schema {
            schema,
            description,
            ..
        } => Some((schema, description)),
    };
    // Models before the third generation refuse a shape beside tools.
    let refused = !toolbox.is_empty() && !target.capabilities.tool_mixing;
    if target.capabilities.structured && !refused {
        return None;
    }
    let field = Field::Format.path(request.origin);
    notes.warn(Action::Emulated, field);
    Some(match schema {
        Some((schema, description)) => {
            let described = schema::described(schema, description.as_ref());
            format!(
                "Reply with one JSON value only, matching this JSON Schema: {}",
                described.as_ref().unwrap_or(schema).compact()
            )
        }
        None => "Reply with one JSON object only.".to_owned(),
    })
}

fn system(arranged: &Arranged<'_, '_>, instruction: Option<&str>, body: &mut Object<'_>) {
    let blocks = arranged.system.iter().map(|block| &block.text);
    let mut blocks = blocks
        .filter(|text| !text.is_empty() && !text.plain().starts_with(BILLING))
        .peekable();
    if blocks.peek().is_none() && instruction.is_none() {
        return;
    }
    let mut system = body.object("systemInstruction");
    let mut parts = system.array("parts");
    for text in blocks {
        parts.object().str("text", text);
    }
    if let Some(instruction) = instruction {
        parts.object().str("text", &Str::new(instruction));
    }
}

fn service(request: &Request<'_>, notes: &mut Notes, body: &mut Object<'_>) {
    let word = match request.service {
        None | Some(Service::Auto) => return,
        Some(Service::Standard) => "standard",
        Some(Service::Flex) => "flex",
        Some(Service::Priority) => "priority",
        Some(Service::Other) => {
            return notes.info(Action::Dropped, Field::Service.path(request.origin));
        }
    };
    body.text("serviceTier", word);
}

/// Notes what there is no place for.
fn unsayable(request: &Request<'_>, notes: &mut Notes) {
    let marked = request.cache.auto.is_some() || contents::has_marks(request);
    let hints = [
        (request.verbosity.is_some(), Field::Verbosity),
        (request.end_user.is_some(), Field::EndUser),
        (request.metadata.is_some(), Field::Metadata),
        (request.cache.key.is_some(), Field::CacheKey),
        (marked, Field::CacheMark),
    ];
    for (given, field) in hints {
        if given {
            notes.info(Action::Dropped, field.path(request.origin));
        }
    }
    let tools = !request.tools.is_empty();
    let orders = [
        (request.sampling.logit_bias.is_some(), Field::LogitBias),
        (tools && request.parallel == Some(false), Field::Parallel),
        (request.max_tool_calls.is_some(), Field::MaxToolCalls),
    ];
    for (given, field) in orders {
        if given {
            notes.warn(Action::Dropped, field.path(request.origin));
        }
    }
}

/// A tool's name as Gemini takes it.
fn fitted(names: &mut Names, name: &Str<'_>, namespace: Option<&Str<'_>>) -> String {
    names.fit(name, namespace, Protocol::Gemini)
}
