//! The legacy Completions of OpenAI, for clients that still speak it: a prompt
//! becomes one turn of the user, the answer's text its `text`. Nothing else of an
//! answer has a place there.
//! <https://platform.openai.com/docs/api-reference/completions>

#[cfg(test)]
mod tests;

use bytes::{Bytes, BytesMut};

use crate::protocol::Protocol;
use crate::protocol::error::{ErrorBody, ErrorClass, Source};
use crate::protocol::ir::{
    Choice, Delta, Finish, Invalid, Part, PartKind, Request, Response, Role, Sampling, Text, Turn,
};
use crate::protocol::json::{Object, Raw, Str, Tape, Value, write};
use crate::protocol::notes::{Action, Notes};
use crate::protocol::translate::Reply;
use crate::protocol::usage::Tokens;

use super::request::{Fields, include_usage, sampling};
use super::response::{head, tier};
use super::{error, finish, usage};

/// Tokens of output when nothing is said.
const OUTPUT: u64 = 16;
/// The most answers of one request.
const CHOICES: usize = 1024;

/// Reads a client's request.
///
/// # Errors
///
/// Where the request is wrong, naming the field, or where it wants its prompt
/// repeated, several prompts answered, or a prompt of token numbers.
pub fn decode<'a>(body: Value<'a>, notes: &mut Notes) -> Result<Request<'a>, Invalid> {
    let body = Fields::of_body(body)?;
    if body.flag("echo")? == Some(true) {
        let message = "'echo' can't be granted by a provider of chat";
        return Err(Invalid::unsupported(
            "unsupported_parameter",
            "echo",
            message,
        ));
    }
    if body
        .string("suffix")?
        .is_some_and(|suffix| !suffix.is_empty())
    {
        notes.warn(Action::Dropped, "suffix");
    }
    let answers = body.at_least_one("n")?.unwrap_or(1);
    if body.count("best_of")?.is_some_and(|best| best > answers) {
        notes.warn(Action::Dropped, "best_of");
    }
    let stream = body.flag("stream")?.unwrap_or_default();
    let rivals = body.count("logprobs")?;
    Ok(Request {
        model: body.wanted("model")?,
        stream,
        include_usage: include_usage(&body, stream)?,
        turns: vec![Turn {
            role: Role::User,
            parts: vec![Part::Text(Text::new(prompt(&body)?))],
            at: 0,
        }],
        sampling: Sampling {
            max_output: Some(body.at_least_one("max_tokens")?.unwrap_or(OUTPUT)),
            logprobs: rivals.is_some(),
            top_logprobs: rivals.filter(|rivals| *rivals > 0),
            ..sampling(&body)?
        },
        end_user: body.string("user")?,
        metadata: body.raw_object("metadata")?,
        ..Request::of(Protocol::Completions)
    })
}

/// A string, or a list of one.
fn prompt<'a>(body: &Fields<'a>) -> Result<Str<'a>, Invalid> {
    let wrong = |message: &str| Invalid::request("prompt", message);
    let Some(value) = body.some("prompt") else {
        return Err(wrong("'prompt' is required"));
    };
    if let Some(text) = value.as_str() {
        return filled(text);
    }
    let mut items = value.items();
    match (items.next(), items.next()) {
        (Some(only), None) if only.is_str() => filled(only.as_str().unwrap_or_default()),
        (Some(first), _) if !first.is_str() => Err(wrong(
            "'prompt' must be text: token numbers mean nothing to another model",
        )),
        (Some(_), Some(_)) => Err(wrong(
            "'prompt' must be one text: several can't be answered at once",
        )),
        _ => Err(wrong("'prompt' must be a string or an array of one string")),
    }
}

fn filled(text: Str<'_>) -> Result<Str<'_>, Invalid> {
    if text.is_empty() {
        return Err(Invalid::request("prompt", "'prompt' must not be empty"));
    }
    Ok(text)
}

/// Writes a whole answer.
pub fn encode(response: &Response<'_>, reply: &Reply, out: &mut BytesMut) {
    let mut body = Object::open(out);
    head(&mut body, reply, "text_completion");
    let mut choices = body.array("choices");
    let none = [Choice::default()];
    let all = match response.choices.is_empty() {
        true => &none[..],
        false => &response.choices,
    };
    for (index, choice) in all.iter().enumerate() {
        let mut object = choices.object();
        text(choice, object.key("text"));
        object.number("index", index);
        logprobs(&choice.logprobs, &mut 0, object.key("logprobs"));
        let finish = choice.finish.as_ref().unwrap_or(&Finish::Stop);
        object.text("finish_reason", finish::word(finish, false, false));
    }
    drop(choices);
    usage::write(&response.usage.unwrap_or_default(), body.key("usage"));
    if let Some(service) = &response.service {
        body.str("service_tier", &tier(service));
    }
    if let Some(fingerprint) = &response.fingerprint {
        body.str("system_fingerprint", fingerprint);
    }
}

fn text(choice: &Choice<'_>, out: &mut BytesMut) {
    out.extend_from_slice(b"\"");
    for part in &choice.parts {
        match part {
            Part::Text(text) => out.extend_from_slice(text.text.inner().as_bytes()),
            Part::Refusal(text) => out.extend_from_slice(text.inner().as_bytes()),
            _ => {}
        }
    }
    out.extend_from_slice(b"\"");
}

/// A token's probability, in the form of chat.
struct Token<'t> {
    text: Str<'t>,
    probability: Option<&'t str>,
    rivals: Vec<(Str<'t>, &'t str)>,
}

fn token(value: Value<'_>) -> Token<'_> {
    let name = |value: Value<'_>| -> Option<String> {
        let text = value.some("token")?.as_str()?;
        Some(text.to_plain_string())
    };
    let number = |value: &str| !value.is_empty();
    let rivals = value.some("top_logprobs").map(|all| all.items());
    let rivals = rivals.into_iter().flatten().filter_map(|rival| {
        let probability = rival
            .some("logprob")?
            .number()
            .filter(|text| number(text))?;
        Some((Str::from(name(rival)?), probability))
    });
    Token {
        text: Str::from(name(value).unwrap_or_default()),
        probability: value.some("logprob").and_then(|value| value.number()),
        rivals: rivals.collect(),
    }
}

/// Writes probabilities in the legacy form: four lists. `offset` counts the
/// characters of the answer.
fn logprobs(tokens: &[Raw<'_>], offset: &mut usize, out: &mut BytesMut) {
    if tokens.is_empty() {
        out.extend_from_slice(b"null");
        return;
    }
    let mut tapes: Vec<Tape> = tokens.iter().map(|_| Tape::new()).collect();
    let read = tapes.iter_mut().zip(tokens);
    let read = read.filter_map(|(tape, raw)| tape.parse(raw.as_str()).ok().map(token));
    let read: Vec<Token<'_>> = read.collect();
    let mut lists = Object::open(out);
    let mut list = lists.array("tokens");
    read.iter().for_each(|token| _ = list.str(&token.text));
    drop(list);
    let mut list = lists.array("token_logprobs");
    for token in &read {
        let digits = token.probability.unwrap_or("null");
        list.element().extend_from_slice(digits.as_bytes());
    }
    drop(list);
    let mut list = lists.array("top_logprobs");
    for token in &read {
        let mut rivals = list.object();
        for (name, probability) in &token.rivals {
            rivals
                .foreign_key(name)
                .extend_from_slice(probability.as_bytes());
        }
    }
    drop(list);
    let mut list = lists.array("text_offset");
    for token in &read {
        write::number(list.element(), *offset);
        *offset += token.text.characters();
    }
}

/// Writes a client's stream.
#[derive(Debug)]
pub struct Encoder {
    include_usage: bool,
    /// Up to the first choice.
    head: Vec<u8>,
    /// Behind the choice.
    tail: Vec<u8>,
    /// Parts whose text is written, each with its choice.
    open: Vec<(usize, usize)>,
    /// Characters of each choice, for the places of tokens.
    offsets: Vec<usize>,
    tokens: Option<Tokens>,
    over: bool,
}

impl Encoder {
    /// For that client.
    #[must_use]
    pub fn new(reply: &Reply) -> Self {
        let mut out = BytesMut::new();
        let mut body = Object::open(&mut out);
        head(&mut body, reply, "text_completion");
        drop(body);
        out.truncate(out.len() - 1);
        let tail: &[u8] = if reply.include_usage {
            b"}],\"usage\":null}\n\n"
        } else {
            b"}]}\n\n"
        };
        Self {
            include_usage: reply.include_usage,
            head: [b"data: ", out.as_ref(), b",\"choices\":["].concat(),
            tail: tail.to_vec(),
            open: Vec::new(),
            offsets: Vec::new(),
            tokens: None,
            over: false,
        }
    }

    /// Writes what follows from one delta.
    pub fn delta(&mut self, delta: Delta<'_>, out: &mut BytesMut) {
        if self.over {
            return;
        }
        match delta {
            Delta::PartStart {
                choice,
                part,
                kind: PartKind::Text | PartKind::Refusal,
            } => self.open.push((choice, part)),
            Delta::PartEnd { choice, part } => self.open.retain(|open| *open != (choice, part)),
            Delta::Text { choice, part, text } if self.open.contains(&(choice, part)) => {
                self.frame(choice, &text, &[], None, out);
            }
            Delta::Logprobs { choice, tokens } => {
                self.frame(choice, &Str::default(), &tokens, None, out);
            }
            Delta::Usage { tokens, .. } => match &mut self.tokens {
                Some(known) => known.update(&tokens),
                None => self.tokens = Some(tokens),
            },
            Delta::Finish {
                finish: Finish::BadToolCall(message),
                ..
            } => self.fail(ErrorClass::UpstreamFailed, message, None, out),
            Delta::Finish { choice, finish } => {
                let word = finish::word(&finish, false, false);
                self.frame(choice, &Str::default(), &[], Some(word), out);
            }
            Delta::Error {
                class,
                message,
                code,
            } => self.fail(class, message, code, out),
            Delta::End => self.end(out),
            _ => {}
        }
    }

    fn frame(
        &mut self,
        choice: usize,
        text: &Str<'_>,
        tokens: &[Raw<'_>],
        finish: Option<&str>,
        out: &mut BytesMut,
    ) {
        out.extend_from_slice(&self.head);
        out.extend_from_slice(b"{\"text\":");
        write::string(out, text);
        out.extend_from_slice(b",\"index\":");
        write::number(out, choice);
        out.extend_from_slice(b",\"logprobs\":");
        if !tokens.is_empty() && choice < CHOICES && self.offsets.len() <= choice {
            self.offsets.resize(choice + 1, 0);
        }
        match self.offsets.get_mut(choice) {
            Some(offset) => logprobs(tokens, offset, out),
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(b",\"finish_reason\":");
        match finish {
            Some(word) => write::string(out, &Str::new(word)),
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(&self.tail);
    }

    fn end(&mut self, out: &mut BytesMut) {
        self.over = true;
        if self.include_usage {
            out.extend_from_slice(&self.head);
            out.extend_from_slice(b"],\"usage\":");
            usage::write(&self.tokens.unwrap_or_default(), out);
            out.extend_from_slice(b"}\n\n");
        }
        out.extend_from_slice(b"data: [DONE]\n\n");
    }

    fn fail(
        &mut self,
        class: ErrorClass,
        message: String,
        code: Option<String>,
        out: &mut BytesMut,
    ) {
        self.over = true;
        let mut body = ErrorBody::new(class, message, Source::Provider);
        body.code = code;
        let bytes = Bytes::from(error::encode_stream_failure(&body));
        out.extend_from_slice(&bytes);
    }
}
