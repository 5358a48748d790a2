//! `generationConfig`.

use crate::protocol::capabilities::SchemaMode;
use crate::protocol::filter::Fixups;
use crate::protocol::ir::{Format, Request};
use crate::protocol::json::Object;
use crate::protocol::notes::{Action, Field, Notes};
use crate::protocol::schema;
use crate::protocol::translate::Target;

use super::thinking;

/// The most stop texts.
const STOPS: usize = 5;

/// Writes the member `generationConfig`; with `shaped`, the shape of the answer
/// too.
pub(super) fn write(
    request: &Request<'_>,
    target: &Target<'_>,
    shaped: bool,
    fixups: &mut Fixups,
    notes: &mut Notes,
    body: &mut Object<'_>,
) {
    let mut config = body.object("generationConfig");
    limit(request, target, notes, &mut config);
    sampling(request, target, notes, &mut config);
    stops(request, fixups, notes, &mut config);
    if let Some(n) = request.sampling.n.filter(|n| *n > 1) {
        config.number("candidateCount", n);
    }
    if request.sampling.logprobs {
        config.bool("responseLogprobs", true);
        if let Some(rivals) = request.sampling.top_logprobs.filter(|rivals| *rivals > 0) {
            config.number("logprobs", rivals);
        }
    }
    if shaped {
        shape(request, target, fixups, &mut config);
    }
    if request.image_output {
        let words = ["TEXT", "IMAGE"].map(crate::protocol::json::Str::new);
        let mut modalities = config.array("responseModalities");
        for word in &words {
            modalities.str(word);
        }
    }
    thinking::write(request, target.capabilities, notes, &mut config);
}

fn limit(request: &Request<'_>, target: &Target<'_>, notes: &mut Notes, config: &mut Object<'_>) {
    let Some(wanted) = request.sampling.max_output else {
        return;
    };
    let most = target.capabilities.max_output.unwrap_or(u64::MAX);
    if wanted > most {
        let field = Field::MaxOutput.path(request.origin);
        notes.warn_at(Action::Coerced, format!("{field}={wanted}>{most}"), field);
    }
    config.number("maxOutputTokens", wanted.min(most));
}

fn sampling(
    request: &Request<'_>,
    target: &Target<'_>,
    notes: &mut Notes,
    config: &mut Object<'_>,
) {
    let sampling = &request.sampling;
    let digits = [
        ("temperature", sampling.temperature, Field::Temperature),
        ("topP", sampling.top_p, Field::TopP),
    ];
    let allowed = target.capabilities.sampling;
    for (name, number, field) in digits {
        match number {
            Some(number) if allowed => {
                config.digits(name, number.text);
            }
            Some(_) => notes.warn(Action::Dropped, field.path(request.origin)),
            None => {}
        }
    }
    match sampling.top_k {
        Some(top_k) if allowed => {
            config.number("topK", top_k);
        }
        Some(_) => notes.warn(Action::Dropped, Field::TopK.path(request.origin)),
        None => {}
    }
    if let Some(penalty) = sampling.frequency_penalty {
        config.digits("frequencyPenalty", penalty.text);
    }
    if let Some(penalty) = sampling.presence_penalty {
        config.digits("presencePenalty", penalty.text);
    }
    if let Some(seed) = sampling.seed {
        // Google's seed has 32 bits.
        if seed.text.parse::<i32>().is_ok() {
            config.digits("seed", seed.text);
        } else {
            notes.warn(Action::Dropped, Field::Seed.path(request.origin));
        }
    }
}

/// The first five; for what is beyond them the gateway looks itself.
fn stops(request: &Request<'_>, fixups: &mut Fixups, notes: &mut Notes, config: &mut Object<'_>) {
    let mut stops = request
        .sampling
        .stop
        .iter()
        .filter(|stop| !stop.is_empty())
        .peekable();
    if stops.peek().is_none() {
        return;
    }
    {
        let mut list = config.array("stopSequences");
        for stop in stops.by_ref().take(STOPS) {
            list.str(stop);
        }
    }
    fixups.stop.extend(stops.map(|stop| stop.to_plain_string()));
    if !fixups.stop.is_empty() {
        notes.warn(Action::Emulated, Field::Stop.path(request.origin));
    }
}

fn shape(request: &Request<'_>, target: &Target<'_>, fixups: &mut Fixups, config: &mut Object<'_>) {
    match &request.format {
        Format::Text => {}
        Format::JsonObject => {
            config.text("responseMimeType", "application/json");
        }
        Format::Schema {
            schema,
            description,
            bare_enum,
            ..
        } => {
            fixups.bare_enum = *bare_enum;
            let described = schema::described(schema, description.as_ref());
            let schema = described.as_ref().unwrap_or(schema);
            config.text("responseMimeType", "application/json");
            if target.capabilities.schema_mode == SchemaMode::JsonSchema {
                config.raw("responseJsonSchema", &schema::for_gemini(schema));
            } else if let Some(schema) = schema::for_openapi(schema) {
                config.raw("responseSchema", &schema);
            }
        }
    }
}
