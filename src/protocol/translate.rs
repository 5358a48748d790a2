//! From one protocol to another: a decoder, what lies between, an encoder.
//!
//! Bytes in, bytes out. Any chunking of a stream gives the same bytes.

use bytes::{Bytes, BytesMut};

use super::capabilities::Capabilities;
use super::error::UpstreamError;
use super::filter::Fixups;
use super::ir::{Delta, Invalid, Opaque, Part, Request, Response};
use super::json::{Str, Value};
use super::notes::Notes;
use super::{Protocol, chat, gemini, lost, messages, responses, unread};

/// What a request is encoded for.
#[derive(Clone, Copy, Debug)]
pub struct Target<'t> {
    /// What the provider speaks.
    pub protocol: Protocol,
    /// The provider's name for the model.
    pub model: &'t str,
    /// What that model can do.
    pub capabilities: &'t Capabilities,
    /// The provider account; blobs that are bound to another are not sent.
    pub account: &'t str,
    /// Whether to ask for a stream, whatever the client asked for.
    pub stream: bool,
}

/// A request as it goes to a provider.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// The JSON body.
    pub body: Bytes,
    /// What has to be put right in the answer.
    pub fixups: Fixups,
}

/// How a client wants its answer, as far as the request and the client's key say.
#[derive(Clone, Debug)]
pub struct Reply {
    /// What the client speaks.
    pub protocol: Protocol,
    /// What the provider speaks.
    pub upstream: Protocol,
    /// 24 base62 characters: ids are made of a prefix and these.
    pub id: String,
    /// The model as the client named it.
    pub model: String,
    /// The provider's name for the model; blobs are marked with it.
    pub upstream_model: String,
    /// The provider account; blobs are marked with it.
    pub account: String,
    /// When the request came, in seconds since 1970.
    pub created: u64,
    /// Whether a chat stream is to end with its usage.
    pub include_usage: bool,
    /// Whether reasoning is to be shown.
    pub show_reasoning: bool,
    /// Whether reasoning items are to carry their ciphertext (Responses).
    pub encrypted_reasoning: bool,
    /// Whether calls take the legacy form `function_call` (chat).
    pub legacy_functions: bool,
    /// Whether custom calls are known to the client.
    pub custom_tools: bool,
    /// Whether the stream is a JSON array (Gemini without `alt=sse`).
    pub array: bool,
    /// How a key wants reasoning on chat.
    pub chat_reasoning: ChatReasoning,
    /// Whether a Responses client wants reasoning as content, not as summary.
    pub reasoning_as_content: bool,
    /// About how many tokens the request has, for clients that are told before
    /// the provider has counted them (Messages); 0 where nobody reckoned.
    pub input_estimate: u64,
    /// The request's own fields that a Responses answer repeats: members of a JSON
    /// object without its braces, each with its name.
    pub echo: String,
}

impl Reply {
    /// A reply about which the client wants nothing in particular: reasoning is shown,
    /// and all texts are empty.
    #[must_use]
    pub fn plain(protocol: Protocol, upstream: Protocol) -> Self {
        Self {
            protocol,
            upstream,
            id: String::new(),
            model: String::new(),
            upstream_model: String::new(),
            account: String::new(),
            created: 0,
            include_usage: false,
            show_reasoning: true,
            encrypted_reasoning: false,
            legacy_functions: false,
            custom_tools: false,
            array: false,
            chat_reasoning: ChatReasoning::Content,
            reasoning_as_content: false,
            input_estimate: 0,
            echo: String::new(),
        }
    }

    /// A blob of the answer, marked with who made it where its provider did not say.
    #[must_use]
    pub fn marked<'o>(&'o self, opaque: &'o Opaque<'_>) -> Opaque<'o> {
        let known = |said: &'o Option<Str<'_>>, asked: &'o str| {
            Some(said.as_ref().map_or_else(|| Str::new(asked), Str::borrowed))
        };
        Opaque {
            kind: opaque.kind,
            data: opaque.data.borrowed(),
            model: known(&opaque.model, &self.upstream_model),
            account: known(&opaque.account, &self.account),
        }
    }
}

/// How a key wants reasoning on chat.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChatReasoning {
    /// In `reasoning_content`; `reasoning_details` only for blobs.
    #[default]
    Content,
    /// In `reasoning`; `reasoning_details` only for blobs.
    Renamed,
    /// In `reasoning_content`, and all of it in `reasoning_details` too.
    Details,
}

/// Reads a client's request.
///
/// # Errors
///
/// Where the request is wrong, naming the client's field.
pub fn decode_request<'a>(
    protocol: Protocol,
    body: Value<'a>,
    notes: &mut Notes,
) -> Result<Request<'a>, Invalid> {
    let request = match protocol {
        Protocol::Responses => responses::request::decode(body, notes),
        Protocol::Messages => messages::request::decode(body, notes),
        Protocol::Gemini => gemini::request::decode(body, notes),
        Protocol::Completions => chat::completions::decode(body, notes),
        _ => chat::request::decode(body, notes),
    }?;
    unread::note(protocol, body, notes);
    Ok(request)
}

/// Reads a request whose tokens are only to be counted: a limit of output, which
/// Messages demands otherwise, may be missing.
///
/// # Errors
///
/// Those of [`decode_request`].
pub fn decode_question<'a>(
    protocol: Protocol,
    body: Value<'a>,
    notes: &mut Notes,
) -> Result<Request<'a>, Invalid> {
    match protocol {
        Protocol::Messages => messages::request::decode_for_count(body, notes),
        other => decode_request(other, body, notes),
    }
}

/// Writes a request for a provider.
///
/// # Errors
///
/// Where the target's protocol can't say what was asked, naming the client's
/// field.
pub fn encode_request(
    request: &Request<'_>,
    target: &Target<'_>,
    notes: &mut Notes,
) -> Result<Encoded, Invalid> {
    let encoded = match target.protocol {
        Protocol::Responses => responses::request::encode(request, target, notes),
        Protocol::Messages => messages::request::encode(request, target, notes),
        Protocol::Gemini => gemini::request::encode(request, target, notes),
        _ => chat::request::encode(request, target, notes),
    }?;
    lost::note(request, target, notes);
    Ok(encoded)
}

/// Reads a provider's whole answer.
///
/// # Errors
///
/// Where it is an error in the clothes of an answer, or no answer at all.
pub fn decode_response(protocol: Protocol, body: Value<'_>) -> Result<Response<'_>, UpstreamError> {
    match protocol {
        Protocol::Responses => responses::response::decode(body),
        Protocol::Messages => messages::response::decode(body),
        Protocol::Gemini => gemini::response::decode(body),
        _ => chat::response::decode(body),
    }
}

/// Writes a whole answer for a client.
#[must_use]
pub fn encode_response(response: &Response<'_>, reply: &Reply) -> Bytes {
    let mut out = BytesMut::with_capacity(room(response));
    match reply.protocol {
        Protocol::Responses => responses::response::encode(response, reply, &mut out),
        Protocol::Messages => messages::response::encode(response, reply, &mut out),
        Protocol::Gemini => gemini::response::encode(response, reply, &mut out),
        Protocol::Completions => chat::completions::encode(response, reply, &mut out),
        _ => chat::response::encode(response, reply, &mut out),
    }
    out.freeze()
}

/// About how many bytes an answer takes when it is written: growing step by step
/// would move it as often.
fn room(response: &Response<'_>) -> usize {
    let text = |part: &Part<'_>| match part {
        Part::Text(text) => text.text.len(),
        Part::Refusal(text) => text.len(),
        Part::Reasoning(thought) => thought.text.len(),
        _ => 256,
    };
    let parts = response.choices.iter().flat_map(|choice| &choice.parts);
    1024 + parts.map(text).sum::<usize>()
}

/// Reads a provider's stream, event by event.
#[derive(Debug)]
pub enum StreamDecoder {
    /// Chat Completions.
    Chat(chat::stream::Decoder),
    /// Responses.
    Responses(responses::stream::Decoder),
    /// Messages.
    Messages(messages::stream::Decoder),
    /// Gemini.
    Gemini(gemini::stream::Decoder),
}

impl StreamDecoder {
    /// For a stream of that protocol.
    #[must_use]
    pub fn new(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Responses => Self::Responses(responses::stream::Decoder::default()),
            Protocol::Messages => Self::Messages(messages::stream::Decoder::default()),
            Protocol::Gemini => Self::Gemini(gemini::stream::Decoder::default()),
            _ => Self::Chat(chat::stream::Decoder::default()),
        }
    }

    /// The same, told what was learnt of the provider when the request was encoded.
    #[must_use]
    pub fn with(self, fixups: &Fixups) -> Self {
        match self {
            Self::Chat(decoder) if fixups.think_tags => Self::Chat(decoder.with_think_tags()),
            other => other,
        }
    }

    /// One event: its `event:` line and its data.
    pub fn event(&mut self, name: Option<&str>, data: &[u8], emit: &mut dyn FnMut(Delta<'_>)) {
        match self {
            Self::Chat(decoder) => decoder.event(name, data, emit),
            Self::Responses(decoder) => decoder.event(name, data, emit),
            Self::Messages(decoder) => decoder.event(name, data, emit),
            Self::Gemini(decoder) => decoder.event(name, data, emit),
        }
    }

    /// The connection is closed: emits `End` or `Error` if neither came yet.
    pub fn finish(&mut self, emit: &mut dyn FnMut(Delta<'_>)) {
        match self {
            Self::Chat(decoder) => decoder.finish(emit),
            Self::Responses(decoder) => decoder.finish(emit),
            Self::Messages(decoder) => decoder.finish(emit),
            Self::Gemini(decoder) => decoder.finish(emit),
        }
    }
}

/// Writes a client's stream.
#[derive(Debug)]
pub enum StreamEncoder {
    /// Chat Completions.
    Chat(chat::stream::Encoder),
    /// Responses.
    Responses(responses::stream::Encoder),
    /// Messages.
    Messages(messages::stream::Encoder),
    /// Gemini.
    Gemini(gemini::stream::Encoder),
    /// OpenAI's legacy Completions.
    Completions(chat::completions::Encoder),
}

impl StreamEncoder {
    /// For that client.
    #[must_use]
    pub fn new(reply: Reply) -> Self {
        match reply.protocol {
            Protocol::Responses => Self::Responses(responses::stream::Encoder::new(reply)),
            Protocol::Messages => Self::Messages(messages::stream::Encoder::new(reply)),
            Protocol::Gemini => Self::Gemini(gemini::stream::Encoder::new(reply)),
            Protocol::Completions => Self::Completions(chat::completions::Encoder::new(&reply)),
            _ => Self::Chat(chat::stream::Encoder::new(reply)),
        }
    }

    /// Writes what follows from one delta; possibly nothing.
    pub fn delta(&mut self, delta: Delta<'_>, out: &mut BytesMut) {
        match self {
            Self::Chat(encoder) => encoder.delta(delta, out),
            Self::Responses(encoder) => encoder.delta(delta, out),
            Self::Messages(encoder) => encoder.delta(delta, out),
            Self::Gemini(encoder) => encoder.delta(delta, out),
            Self::Completions(encoder) => encoder.delta(delta, out),
        }
    }
}
