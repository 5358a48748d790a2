//! A request written for a provider that speaks Messages.
//!
//! What is decided before a byte is written: which tools there are and what is
//! said about them ([`tools`]), whether and how the model is to think
//! ([`thinking`]), and which cache marks stay ([`marks`]). [`turns`] writes the
//! conversation.

mod marks;
mod media;
mod thinking;
mod tools;
mod turns;

use bytes::BytesMut;

use crate::protocol::Protocol;
use crate::protocol::filter::Fixups;
use crate::protocol::fit::Names;
use crate::protocol::ir::{Digits, Format, Invalid, Part, Request, Service};
use crate::protocol::json::{Object, Str};
use crate::protocol::notes::{Action, Field, Notes};
use crate::protocol::schema;
use crate::protocol::translate::{Encoded, Target};
use crate::protocol::turns::{LastAssistant, MidSystem, Rules, arrange};

use self::marks::Marks;
use self::thinking::Plan;
use self::tools::Toolbox;
use self::turns::Conversation;

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
    refuse(request)?;
    note_what_has_no_word(request, notes);
    let mut names = Names::default();
    let mut toolbox = Toolbox::of(request, target, &mut names, notes)?;
    let wants_thinking = thinking::is_wanted(request, target) && !toolbox.forces();
    let arranged = arrange(request, &rules(request, target, wants_thinking), notes);
    let conversation = Conversation::of(&arranged, request.origin, notes);
    if conversation.is_empty() {
        let message = "messages: at least one message is required";
        return Err(Invalid::request(Field::Turns.path(request.origin), message));
    }
    toolbox.stand_in(&conversation, &mut names, notes);
    let unsigned = conversation.goes_on_without_signature();
    let plan = Plan::of(request, target, toolbox.forces(), unsigned, notes)?;

    let auto = marks::automatic(request, target, &conversation, notes);
    let mut writer = Writer {
        request,
        target,
        names,
        fixups: Fixups::default(),
        marks: Marks::of(request, &conversation, auto.is_some(), notes),
        notes,
    };
    let mut out = BytesMut::with_capacity(conversation.size() + 1024);
    {
        let mut body = Object::open(&mut out);
        writer.head(&mut body, &plan);
        marks::write(&mut body, auto);
        toolbox.write(&mut body, &mut writer);
        writer.system(&mut body, &conversation);
        conversation.write(&mut body, &mut writer)?;
    }
    let mut fixups = writer.fixups;
    fixups.names = writer.names;
    Ok(Encoded {
        body: out.freeze(),
        fixups,
    })
}

/// What would make the answer another thing than was asked for.
fn refuse(request: &Request<'_>) -> Result<(), Invalid> {
    let path = |field: Field| field.path(request.origin);
    if request.sampling.n.is_some_and(|n| n > 1) {
        let path = path(Field::N);
        let message = format!("{path}: the model gives one answer at a time");
        return Err(Invalid::unsupported("unsupported_parameter", path, message));
    }
    if request.image_output {
        let path = path(Field::Modalities);
        let message = format!("{path}: the model answers in text only");
        return Err(Invalid::unsupported("unsupported_parameter", path, message));
    }
    Ok(())
}

/// Fields that Messages has no word for.
fn note_what_has_no_word(request: &Request<'_>, notes: &mut Notes) {
    let sampling = &request.sampling;
    let says = |digits: Option<Digits<'_>>| digits.is_some_and(|digits| digits.value != 0.0);
    let bias = sampling.logit_bias.as_ref();
    let warned = [
        (Field::FrequencyPenalty, says(sampling.frequency_penalty)),
        (Field::PresencePenalty, says(sampling.presence_penalty)),
        (Field::Seed, sampling.seed.is_some()),
        (Field::Logprobs, sampling.logprobs),
        (
            Field::TopLogprobs,
            sampling.top_logprobs.is_some_and(|n| n > 0),
        ),
        (
            Field::LogitBias,
            bias.is_some_and(|bias| bias.compact() != "{}"),
        ),
    ];
    for (field, _) in warned.into_iter().filter(|(_, said)| *said) {
        notes.warn(Action::Dropped, field.path(request.origin));
    }
    let hints = [
        (Field::Verbosity, request.verbosity.is_some()),
        (Field::Metadata, request.metadata.is_some()),
        (Field::CacheKey, request.cache.key.is_some()),
    ];
    for (field, _) in hints.into_iter().filter(|(_, said)| *said) {
        notes.info(Action::Dropped, field.path(request.origin));
    }
}

fn rules(request: &Request<'_>, target: &Target<'_>, thinks: bool) -> Rules {
    let capabilities = target.capabilities;
    // Neither thinking nor a schema goes with an answer that has begun already.
    let bound = matches!(request.format, Format::Schema { .. }) && capabilities.structured;
    Rules {
        mid_system: if capabilities.mid_system {
            MidSystem::AfterUser
        } else {
            MidSystem::Hoist
        },
        merge: true,
        drop_blank: true,
        user_first: true,
        last_assistant: if capabilities.prefill && !thinks && !bound {
            LastAssistant::Prefill
        } else {
            LastAssistant::Continue
        },
    }
}

/// What the parts of a request share while it is written.
struct Writer<'w, 'a> {
    request: &'w Request<'a>,
    target: &'w Target<'w>,
    names: Names,
    fixups: Fixups,
    marks: Marks,
    notes: &'w mut Notes,
}

impl Writer<'_, '_> {
    fn path(&self, field: Field) -> &'static str {
        field.path(self.request.origin)
    }

    /// All but tools and conversation.
    fn head(&mut self, body: &mut Object<'_>, plan: &Plan) {
        body.text("model", self.target.model)
            .number("max_tokens", plan.max_tokens);
        if self.target.stream {
            body.bool("stream", true);
        }
        plan.write_thinking(body);
        self.output_config(body, plan);
        self.sampling(body, plan.thinks());
        self.stop(body);
        self.service(body);
        self.end_user(body);
    }

    fn output_config(&mut self, body: &mut Object<'_>, plan: &Plan) {
        let schema = match &self.request.format {
            Format::Schema {
                schema,
                description,
                bare_enum,
                ..
            } if self.target.capabilities.structured => {
                self.fixups.bare_enum = *bare_enum;
                let described = schema::described(schema, description.as_ref());
                Some(schema::for_anthropic(described.as_ref().unwrap_or(schema)))
            }
            _ => None,
        };
        if plan.effort.is_none() && schema.is_none() {
            return;
        }
        let mut config = body.object("output_config");
        if let Some(effort) = plan.effort {
            config.text("effort", effort.name());
        }
        if let Some(schema) = &schema {
            let mut format = config.object("format");
            format.text("type", "json_schema").raw("schema", schema);
        }
    }

    fn sampling(&mut self, body: &mut Object<'_>, thinks: bool) {
        let sampling = &self.request.sampling;
        let accepted = self.target.capabilities.sampling;
        let mut given = false;
        if let Some(temperature) = sampling.temperature {
            // One is what goes without saying.
            if !accepted || thinks {
                self.drop_unless(Field::Temperature, temperature.value == 1.0);
            } else if temperature.value > 1.0 {
                let path = self.path(Field::Temperature);
                let what = format!("{path}={}>1", temperature.text);
                self.notes.warn_at(Action::Coerced, what, path);
                body.digits("temperature", "1");
                given = true;
            } else {
                body.digits("temperature", temperature.text);
                given = true;
            }
        }
        if let Some(top_p) = sampling.top_p {
            // Newer Claude models refuse the two together.
            let beside = given && self.target.model.contains("claude");
            if !accepted || beside || thinks && top_p.value < 0.95 {
                self.drop_unless(Field::TopP, top_p.value == 1.0);
            } else {
                body.digits("top_p", top_p.text);
            }
        }
        match sampling.top_k {
            Some(_) if !accepted || thinks => self.drop_unless(Field::TopK, false),
            Some(top_k) => {
                body.number("top_k", top_k);
            }
            None => {}
        }
    }

    /// Notes a field that is left out; without effect where it said nothing.
    fn drop_unless(&mut self, field: Field, says_nothing: bool) {
        let path = self.path(field);
        if says_nothing {
            self.notes.info(Action::Dropped, path);
        } else {
            self.notes.warn(Action::Dropped, path);
        }
    }

    /// Texts of white space are refused by Anthropic: the gateway stops at those.
    fn stop(&mut self, body: &mut Object<'_>) {
        let stop = &self.request.sampling.stop;
        let (blank, said): (Vec<_>, Vec<_>) = stop
            .iter()
            .filter(|text| !text.is_empty())
            .partition(|text| text.is_blank());
        if !said.is_empty() {
            let mut texts = body.array("stop_sequences");
            for text in said {
                texts.str(text);
            }
        }
        if !blank.is_empty() {
            let path = self.path(Field::Stop);
            self.notes.warn(Action::Emulated, path);
            let blank = blank.into_iter().map(Str::to_plain_string);
            self.fixups.stop.extend(blank);
        }
    }

    fn service(&mut self, body: &mut Object<'_>) {
        match self.request.service {
            Some(Service::Standard) => {
                body.text("service_tier", "standard_only");
            }
            // Anthropic's word for priority where the account has it.
            Some(Service::Priority) => {
                body.text("service_tier", "auto");
            }
            Some(Service::Flex | Service::Other) => {
                let path = self.path(Field::Service);
                self.notes.info(Action::Dropped, path);
            }
            Some(Service::Auto) | None => {}
        }
    }

    fn end_user(&mut self, body: &mut Object<'_>) {
        const LONGEST: usize = 256;
        match &self.request.end_user {
            Some(user) if user.characters() <= LONGEST => {
                body.object("metadata").str("user_id", user);
            }
            Some(_) => {
                let path = self.path(Field::EndUser);
                self.notes.info(Action::Dropped, path);
            }
            None => {}
        }
    }

    fn system(&mut self, body: &mut Object<'_>, conversation: &Conversation<'_, '_>) {
        let order = self.order();
        if conversation.system().is_empty() && order.is_none() {
            return;
        }
        let mut blocks = body.array("system");
        for block in conversation.system() {
            let mut text = blocks.object();
            text.text("type", "text").str("text", &block.text);
            self.marks.write(&mut text, block.cache);
        }
        if let Some(order) = order {
            let mut text = blocks.object();
            text.text("type", "text").text("text", &order);
        }
    }

    /// The shape of the answer as an order, where the provider can't be bound to it.
    fn order(&mut self) -> Option<String> {
        let order = match &self.request.format {
            Format::Text => return None,
            Format::Schema { .. } if self.target.capabilities.structured => return None,
            Format::JsonObject => "Reply with one JSON object only.".to_owned(),
            Format::Schema {
                schema,
                description,
                bare_enum,
                ..
            } => {
                self.fixups.bare_enum = *bare_enum;
                let described = schema::described(schema, description.as_ref());
                let schema = described.as_ref().unwrap_or(schema).compact();
                format!("Reply with one JSON value only, matching this JSON Schema: {schema}")
            }
        };
        self.fixups.fenced = true;
        let path = self.path(Field::Format);
        self.notes
            .warn_at(Action::Emulated, "response_format", path);
        Some(order)
    }
}

/// Whether a part came from Anthropic, so that it may go back there.
fn is_native(part: &Part<'_>) -> bool {
    match part {
        Part::Reasoning(thought) => {
            use crate::protocol::ir::OpaqueKind::{AnthropicRedacted, AnthropicSignature};
            let kind = thought.opaque.as_ref().map(|opaque| opaque.kind);
            matches!(kind, Some(AnthropicSignature | AnthropicRedacted))
        }
        Part::Hosted(hosted) => hosted.origin == Protocol::Messages,
        _ => true,
    }
}
