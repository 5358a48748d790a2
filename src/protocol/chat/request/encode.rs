//! A request for a provider, in the dialect of chat that its model speaks.

mod format;
mod media;
mod reasoning;
mod tools;
mod turns;

pub(crate) use self::media::data_url;
pub(crate) use self::turns::arguments;

use bytes::BytesMut;
use ring::digest::{SHA256, digest};

use crate::protocol::Protocol;
use crate::protocol::filter::Fixups;
use crate::protocol::ir::{Invalid, Part, Request, Service};
use crate::protocol::json::{Object, Str};
use crate::protocol::notes::{Action, Field, Notes};
use crate::protocol::translate::{Encoded, Target};
use crate::protocol::turns::{LastAssistant, MidSystem, Rules, arrange};

/// Stop texts that OpenAI takes.
const STOPS: usize = 4;
/// The longest name of a user that OpenAI takes.
const USER: usize = 64;

const RULES: Rules = Rules {
    mid_system: MidSystem::InPlace,
    merge: false,
    drop_blank: false,
    user_first: false,
    last_assistant: LastAssistant::Keep,
};

/// What all steps of writing a request share.
struct Scope<'s, 'a> {
    request: &'s Request<'a>,
    target: &'s Target<'s>,
    notes: &'s mut Notes,
    fixups: Fixups,
}

impl Scope<'_, '_> {
    /// Whether the provider is OpenAI itself: fields that only it knows make
    /// others refuse the request, and it alone has the role `developer`.
    fn is_openai(&self) -> bool {
        self.target.capabilities.developer_role
    }

    fn path(&self, field: Field) -> &'static str {
        field.path(self.request.origin)
    }

    /// A field is left out, which may be felt.
    fn drop(&mut self, field: Field) {
        self.notes.warn(Action::Dropped, self.path(field));
    }

    /// A field is left out, which nobody will notice.
    fn drop_hint(&mut self, field: Field) {
        self.notes.info(Action::Dropped, self.path(field));
    }

    /// A tool's name as the provider takes it.
    fn tool_name(&mut self, name: &Str<'_>, namespace: Option<&Str<'_>>) -> String {
        self.fixups.names.fit(name, namespace, Protocol::Chat)
    }
}

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
    let arranged = arrange(request, &RULES, notes);
    let mut scope = Scope {
        request,
        target,
        notes,
        fixups: Fixups {
            think_tags: target.capabilities.think_tags,
            ..Fixups::default()
        },
    };
    tools::fit_names(&mut scope);
    let shape = format::plan(&mut scope);
    if arranged.turns.is_empty() && arranged.system.is_empty() {
        let path = scope.path(Field::Turns);
        return Err(Invalid::request(
            path,
            format!("'{path}' holds nothing to answer"),
        ));
    }
    let mut out = BytesMut::with_capacity(2048 + size(request));
    let mut body = Object::open(&mut out);
    body.text("model", target.model);
    turns::write(
        &mut scope,
        &arranged,
        shape.instruction.as_deref(),
        &mut body,
    )?;
    let forced = tools::write(&mut scope, &mut body)?;
    format::write(&mut scope, &shape, &mut body);
    limits(&mut scope, &mut body);
    sampling(&mut scope, &mut body);
    reasoning::write(&mut scope, forced, &mut body);
    rest(&mut scope, &mut body)?;
    if target.stream {
        body.bool("stream", true);
        if target.capabilities.usage_in_stream {
            body.object("stream_options").bool("include_usage", true);
        }
    }
    drop(body);
    let fixups = scope.fixups;
    Ok(Encoded {
        body: out.freeze(),
        fixups,
    })
}

/// About how many bytes the conversation takes.
fn size(request: &Request<'_>) -> usize {
    let parts = request.turns.iter().flat_map(|turn| &turn.parts);
    let system: usize = request.system.iter().map(|block| block.text.len()).sum();
    system + parts.map(size_of_part).sum::<usize>()
}

fn size_of_part(part: &Part<'_>) -> usize {
    use crate::protocol::ir::{Arguments, Source};
    128 + match part {
        Part::Text(text) => text.text.len(),
        Part::Media(media) => match &media.source {
            Source::Inline { data, .. } => data.len(),
            Source::Text(text) => text.len(),
            _ => 0,
        },
        Part::Call(call) => match &call.arguments {
            Arguments::Object(raw) => raw.as_str().len() * 5 / 4,
            Arguments::Text(text) | Arguments::Free(text) => text.len(),
        },
        Part::Result(result) => result.parts.iter().map(size_of_part).sum(),
        Part::Reasoning(thought) => thought.text.len(),
        _ => 0,
    }
}

fn limits(scope: &mut Scope<'_, '_>, body: &mut Object<'_>) {
    let capabilities = scope.target.capabilities;
    if let Some(wanted) = scope.request.sampling.max_output {
        let most = capabilities.max_output.unwrap_or(wanted);
        if most < wanted {
            let path = scope.path(Field::MaxOutput);
            let note = format!("{path}={wanted}>{most}");
            scope.notes.warn_at(Action::Coerced, note, path);
        }
        let name = if capabilities.max_completion_tokens {
            "max_completion_tokens"
        } else {
            "max_tokens"
        };
        body.number(name, wanted.min(most));
    }
}

fn sampling(scope: &mut Scope<'_, '_>, body: &mut Object<'_>) {
    let sampling = &scope.request.sampling;
    let accepted = scope.target.capabilities.sampling;
    for (field, name, digits) in [
        (Field::Temperature, "temperature", sampling.temperature),
        (Field::TopP, "top_p", sampling.top_p),
    ] {
        match digits {
            Some(digits) if accepted => _ = body.digits(name, digits.text),
            Some(_) => scope.drop(field),
            None => {}
        }
    }
    if sampling.top_k.is_some() {
        scope.drop(Field::TopK);
    }
    for (name, digits) in [
        ("frequency_penalty", sampling.frequency_penalty),
        ("presence_penalty", sampling.presence_penalty),
        ("seed", sampling.seed),
    ] {
        if let Some(digits) = digits {
            body.digits(name, digits.text);
        }
    }
    if sampling.stop.len() > STOPS {
        let path = scope.path(Field::Stop);
        let note = format!("{path}={}>{STOPS}", sampling.stop.len());
        scope.notes.warn_at(Action::Coerced, note, path);
    }
    if !sampling.stop.is_empty() {
        let mut stop = body.array("stop");
        for text in sampling.stop.iter().take(STOPS) {
            stop.str(text);
        }
    }
    if let Some(n) = sampling.n.filter(|n| *n > 1) {
        body.number("n", n);
    }
    if sampling.logprobs {
        body.bool("logprobs", true);
    }
    if let Some(rivals) = sampling.top_logprobs.filter(|_| sampling.logprobs) {
        body.number("top_logprobs", rivals);
    }
    if let Some(bias) = &sampling.logit_bias {
        body.raw("logit_bias", bias);
    }
}

/// Hints of OpenAI's, and what no chat provider can be told.
fn rest(scope: &mut Scope<'_, '_>, body: &mut Object<'_>) -> Result<(), Invalid> {
    let request = scope.request;
    if let Some(verbosity) = &request.verbosity {
        match scope.is_openai() {
            true => _ = body.str("verbosity", verbosity),
            false => scope.drop_hint(Field::Verbosity),
        }
    }
    let tier = match request.service {
        Some(Service::Standard) => Some("default"),
        Some(Service::Flex) => Some("flex"),
        Some(Service::Priority) => Some("priority"),
        Some(Service::Auto | Service::Other) | None => None,
    };
    match tier {
        Some(tier) if scope.is_openai() => _ = body.text("service_tier", tier),
        Some(_) => scope.drop_hint(Field::Service),
        None => {}
    }
    if let Some(user) = &request.end_user {
        match scope.is_openai() {
            true => _ = body.text("safety_identifier", &user_name(&user.plain())),
            false => scope.drop_hint(Field::EndUser),
        }
    }
    if let Some(key) = &request.cache.key {
        match scope.is_openai() {
            true => _ = body.str("prompt_cache_key", key),
            false => scope.drop_hint(Field::CacheKey),
        }
    }
    if request.cache.auto.is_some() {
        scope.drop_hint(Field::CacheMark);
    }
    if request.metadata.is_some() {
        scope.drop_hint(Field::Metadata);
    }
    if request.max_tool_calls.is_some() {
        scope.drop(Field::MaxToolCalls);
    }
    image_output(scope, body)
}

fn image_output(scope: &Scope<'_, '_>, body: &mut Object<'_>) -> Result<(), Invalid> {
    if !scope.request.image_output {
        return Ok(());
    }
    if scope.is_openai() {
        return Err(Invalid::unsupported(
            "unsupported_parameter",
            scope.path(Field::Modalities),
            "images are not among the output of Chat Completions at this provider",
        ));
    }
    let mut kinds = body.array("modalities");
    kinds.str(&Str::new("image")).str(&Str::new("text"));
    Ok(())
}

/// A name for the client's user that tells the provider nothing about them: as it
/// is where it is a plain word, else a hash of it.
fn user_name(told: &str) -> String {
    let personal = told.contains(['@', '{', '"']) || told.chars().count() > USER;
    if !personal {
        return told.to_owned();
    }
    let hash = digest(&SHA256, told.as_bytes());
    let mut name = String::with_capacity(32);
    for byte in hash.as_ref().iter().take(16) {
        for digit in [byte >> 4, byte & 15] {
            name.push(char::from_digit(u32::from(digit), 16).unwrap_or('0'));
        }
    }
    name
}
