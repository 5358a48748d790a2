//! A request for a candidate that speaks another protocol: read once, written
//! for each candidate anew.

use std::str::Utf8Error;
use std::sync::{LazyLock, OnceLock};

use bytes::Bytes;
use http::{HeaderMap, HeaderName};
use serde_json::{Map, Value as Json};

use super::plan::{Plan, Way};
use super::quirks::Quirks;
use super::{Work, count};
use crate::config::Endpoint;
use crate::exchange::Exchange;
use crate::protocol::capabilities::Capabilities;
use crate::protocol::estimate;
use crate::protocol::filter::Fixups;
use crate::protocol::ir::{self, Display, Invalid};
use crate::protocol::json::{Fault, Tape, Value, mended};
use crate::protocol::notes::Notes;
use crate::protocol::translate::{
    ChatReasoning, Reply, Target, decode_question, decode_request, encode_request,
};
use crate::protocol::{Protocol, peek, responses, splice};
use crate::routing::Candidate;
use crate::upstream::{COUNT, Outbound, suffix};

/// A Messages answer that may be longer than this is asked for as a stream even
/// when the client wants a document: connections that are silent for minutes get
/// cut on the way.
const LONG_OUTPUT: u64 = 16_000;
/// What a Messages provider is asked for when the client names no limit.
const USUAL_OUTPUT: u64 = 16_384;

const X_PLEXUS_STRICT: HeaderName = HeaderName::from_static("x-plexus-strict");

/// No header field of the client's means anything to another protocol.
static NO_HEADERS: LazyLock<HeaderMap> = LazyLock::new(HeaderMap::new);

/// A client's request, parsed at the first candidate that needs it.
pub(super) struct Source<'w> {
    work: &'w Work,
    /// The request as the client wrote it, which answers repeat parts of.
    written: &'w Work,
    keeps: bool,
    document: OnceLock<Box<Result<(Bytes, Tape), Invalid>>>,
}

impl<'w> Source<'w> {
    /// `keeps` is whether answers of the Responses API are kept.
    pub(super) fn new(work: &'w Work, keeps: bool) -> Self {
        Self::told(work, work, keeps)
    }

    /// A request that was `written` in other words.
    pub(super) fn told(work: &'w Work, written: &'w Work, keeps: bool) -> Self {
        Self {
            work,
            written,
            keeps,
            document: OnceLock::new(),
        }
    }

    fn parse(&self) -> Result<(Bytes, Tape), Invalid> {
        let body = match (&self.work.chain, self.work.frames.as_slice()) {
            (Some(chain), frames) => chain.expanded(frames)?,
            (None, [one]) => one.clone(),
            (None, many) => Bytes::from(many.concat()),
        };
        let mut tape = Tape::new();
        let text = std::str::from_utf8(&body).map_err(|error| not_text(&error))?;
        tape.parse(text).map_err(|fault| unreadable(&fault))?;
        if !tape.is_odd() {
            return Ok((body, tape));
        }
        let mended = mended(text).into_owned();
        tape.parse(&mended).map_err(|fault| unreadable(&fault))?;
        Ok((Bytes::from(mended), tape))
    }

    /// What the client asks for.
    pub(super) fn decode(&self) -> Result<Decoded<'_>, Invalid> {
        let document = self.document.get_or_init(|| Box::new(self.parse()));
        let (body, tape) = document.as_ref().as_ref().map_err(Clone::clone)?;
        let text = std::str::from_utf8(body).map_err(|error| not_text(&error))?;
        let root = tape.root(text);
        let mut notes = Notes::new();
        let protocol = self.work.ask.protocol;
        let mut request = if self.work.is_count() {
            decode_question(protocol, root, &mut notes)?
        } else {
            decode_request(protocol, root, &mut notes)?
        };
        request.stream = self.work.streamed;
        let echo = match (self.work.ask.protocol, &self.written.chain) {
            (Protocol::Responses, None) => self.echo(root),
            (Protocol::Responses, Some(_)) => self.echo_of_original(),
            _ => String::new(),
        };
        // Said at the start of a stream, when no provider has counted yet.
        let asked = protocol == Protocol::Messages && self.work.streamed;
        Ok(Decoded {
            request,
            notes,
            echo,
            input_estimate: if asked { estimate::request(root) } else { 0 },
        })
    }
}

impl Source<'_> {
    /// What the answer repeats: what the client wrote, not what it was expanded to.
    fn echo_of_original(&self) -> String {
        let body = self.written.frames.concat();
        let mut tape = Tape::new();
        let root = tape.parse_bytes(&body);
        root.map_or_else(|_| String::new(), |root| self.echo(root))
    }

    /// An answer that is not kept doesn't say that it is.
    fn echo(&self, root: Value<'_>) -> String {
        if self.keeps {
            responses::echo::members(root)
        } else {
            responses::echo::members_stored(root, false)
        }
    }
}

fn not_text(error: &Utf8Error) -> Invalid {
    unreadable(&Fault {
        at: error.valid_up_to(),
        wanted: "UTF-8",
    })
}

fn unreadable(fault: &Fault) -> Invalid {
    Invalid {
        param: None,
        ..Invalid::request("", format!("the body is {fault}"))
    }
}

/// What the client asks for, understood.
pub(super) struct Decoded<'s> {
    request: ir::Request<'s>,
    notes: Notes,
    echo: String,
    input_estimate: u64,
}

/// What becomes of an answer in another protocol.
pub(super) struct Translation {
    pub(super) fixups: Fixups,
    pub(super) reply: Reply,
    pub(super) notes: Notes,
    /// Whether the answer may come in rounds.
    pub(super) pauses: bool,
}

/// Whether the provider may break off its answer to be asked to go on: Messages does
/// so while it runs tools of its own.
fn may_pause(request: &ir::Request<'_>, to: Protocol) -> bool {
    let hosted = |tool: &ir::Tool<'_>| matches!(tool, ir::Tool::Hosted(_));
    match to {
        Protocol::Messages => request.web_search.is_some() || request.tools.iter().any(hosted),
        Protocol::Gemini => true,
        _ => false,
    }
}

/// Where a candidate can be asked in a protocol that translates.
pub(super) fn endpoint(candidate: &Candidate, from: Protocol) -> Option<&Endpoint> {
    if !translates(from) {
        return None;
    }
    let listed = candidate.listed.as_ref();
    let only = listed.map_or(&[][..], |listed| &listed.access_via);
    let reachable = |endpoint: &&Endpoint| {
        translates(endpoint.protocol)
            && endpoint.protocol != Protocol::Completions
            && (only.is_empty() || only.contains(&endpoint.protocol))
    };
    candidate.provider.endpoints.iter().find(reachable)
}

/// Whether requests and answers of that protocol can be said in another.
const fn translates(protocol: Protocol) -> bool {
    matches!(
        protocol,
        Protocol::Chat
            | Protocol::Responses
            | Protocol::Messages
            | Protocol::Gemini
            | Protocol::Completions
    )
}

/// Writes the request for a candidate. `strict` turns the first change that may
/// touch the output into a refusal.
pub(super) fn translate<'a>(
    work: &'a Work,
    decoded: &Decoded<'_>,
    candidate: &'a Candidate,
    endpoint: &'a Endpoint,
    settings: &Settings<'_>,
) -> Result<Plan<'a>, Invalid> {
    let request = &decoded.request;
    let able = able(candidate, endpoint)?;
    let pauses = may_pause(request, endpoint.protocol);
    // A document of Messages can't be put together from several.
    let rounds = pauses && endpoint.protocol == Protocol::Messages;
    let stream = work.streamed || able.stream_only || rounds || is_long(request, endpoint.protocol);
    let target = Target {
        protocol: endpoint.protocol,
        model: &candidate.model,
        capabilities: able,
        account: &candidate.provider.id,
        stream,
    };
    let mut notes = decoded.notes.clone();
    let encoded = encode_request(request, &target, &mut notes)?;
    if settings.quirks.strict {
        notes.refuse(endpoint.protocol)?;
    }
    let body = if work.is_count() {
        count::question(endpoint.protocol, &candidate.model, &encoded.body)
    } else {
        encoded.body
    };
    let frames = with_extra(body, settings.extra);
    let prepared = settings.quirks.prepare(candidate, endpoint, frames)?;
    let (action, query) = match (work.is_count(), stream) {
        (true, _) => (COUNT, None),
        (false, true) => ("streamGenerateContent", Some("alt=sse")),
        (false, false) => ("generateContent", None),
    };
    let name = prepared.model.as_deref().unwrap_or(&candidate.model);
    let suffix = suffix(endpoint.protocol, name, action, query);
    let (provider, frames) = (&candidate.provider, prepared.frames);
    let way = if work.is_count() {
        Way::Count(Box::new(notes))
    } else {
        Way::Translate(Box::new(Translation {
            fixups: encoded.fixups,
            reply: reply(work, decoded, candidate, endpoint.protocol, settings),
            notes,
            pauses,
        }))
    };
    Ok(Plan {
        protocol: endpoint.protocol,
        outbound: Outbound::new(provider, endpoint, suffix, &NO_HEADERS, frames),
        way,
        model: prepared.model,
        notes: prepared.notes,
        strict: settings.quirks.strict,
        tap: None,
    })
}

/// What the candidate can do there; every endpoint of its provider is known.
fn able<'c>(candidate: &'c Candidate, endpoint: &Endpoint) -> Result<&'c Capabilities, Invalid> {
    let able = candidate.capabilities(endpoint.protocol);
    able.ok_or_else(|| Invalid::request("model", "the provider does not speak that protocol"))
}

/// What the configuration and the client's key say about translating.
pub(super) struct Settings<'s> {
    /// How requests are changed, and whether they may be.
    pub(super) quirks: Quirks<'s>,
    /// What the operator adds to bodies.
    pub(super) extra: &'s Map<String, Json>,
    /// The request's id, as 24 base62 characters.
    pub(super) id: String,
    /// When the request came, in seconds since 1970.
    pub(super) created: u64,
    /// Where the client's key wants reasoning.
    pub(super) reasoning: Shown,
}

/// Where a client's key wants reasoning.
#[derive(Clone, Copy, Default)]
pub(super) struct Shown {
    chat: ChatReasoning,
    as_content: bool,
}

impl Shown {
    pub(super) fn to(exchange: &Exchange) -> Self {
        exchange.key().map_or_else(Self::default, |key| Self {
            chat: key.chat_reasoning,
            as_content: key.reasoning_as_content,
        })
    }
}

fn is_long(request: &ir::Request<'_>, to: Protocol) -> bool {
    let most = request.sampling.max_output.unwrap_or(USUAL_OUTPUT);
    to == Protocol::Messages && most > LONG_OUTPUT
}

fn with_extra(body: Bytes, extra: &Map<String, Json>) -> Vec<Bytes> {
    let frames = vec![body];
    if extra.is_empty() {
        return frames;
    }
    // What was written here is a document; were it none, it would go as it is.
    match (peek::members(&frames), peek::peek(&frames)) {
        (Ok(members), Ok(peeked)) => {
            let patches = splice::merge(&members, peeked.first_member, extra);
            splice::apply(&frames, patches)
        }
        _ => frames,
    }
}

fn reply(
    work: &Work,
    decoded: &Decoded<'_>,
    candidate: &Candidate,
    upstream: Protocol,
    settings: &Settings<'_>,
) -> Reply {
    let request = &decoded.request;
    let display = request.reasoning.as_ref().map(|r| r.display);
    let include = |wanted: &str| request.state.include.iter().any(|name| name.is(wanted));
    let query = work.query.as_deref().unwrap_or_default();
    Reply {
        protocol: work.ask.protocol,
        upstream,
        id: settings.id.clone(),
        model: work.model.to_string(),
        upstream_model: candidate.model.to_string(),
        account: candidate.provider.id.to_string(),
        created: settings.created,
        include_usage: request.include_usage,
        show_reasoning: match work.ask.protocol {
            Protocol::Gemini | Protocol::Responses => display == Some(Display::Summary),
            _ => display != Some(Display::Omit),
        },
        encrypted_reasoning: include("reasoning.encrypted_content")
            || request.state.store == Some(false),
        legacy_functions: request.legacy_functions,
        custom_tools: request.custom_tools,
        array: work.ask.protocol == Protocol::Gemini
            && !query.split('&').any(|pair| pair == "alt=sse"),
        chat_reasoning: settings.reasoning.chat,
        reasoning_as_content: settings.reasoning.as_content,
        input_estimate: decoded.input_estimate,
        echo: decoded.echo.clone(),
    }
}

/// Whether this request's changes are to be refused: the client's header, else
/// its key, else the configuration.
pub(super) fn is_strict(exchange: &Exchange, headers: &HeaderMap) -> bool {
    let asked = headers.get(X_PLEXUS_STRICT).map(|value| {
        let value = value.as_bytes();
        !(value.is_empty() || value == b"0" || value.eq_ignore_ascii_case(b"false"))
    });
    let by_key = || exchange.key().and_then(|key| key.strict);
    asked.or_else(by_key).unwrap_or(exchange.config.strict)
}

/// A request's id as 24 characters that every protocol allows in its ids.
pub(super) fn short_id(id: uuid::Uuid) -> String {
    const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    // Ten digits at a time fit into 64 bits, where a division is one instruction.
    const TEN: u128 = 62_u128.pow(10);
    let mut rest = id.as_u128();
    let mut out = vec![b'0'; 24];
    for places in out.rchunks_mut(10) {
        let mut ten = (rest % TEN) as u64;
        rest /= TEN;
        for place in places.iter_mut().rev() {
            // Below 62, so it indexes the alphabet.
            *place = ALPHABET[(ten % 62) as usize];
            ten /= 62;
        }
    }
    String::from_utf8(out).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_the_number_in_base_62() {
        for (number, text) in [
            (0, "000000000000000000000000"),
            (61, "00000000000000000000000z"),
            (62_u128.pow(10), "000000000000010000000000"),
            (u128::MAX, "007n42DGM5Tflk9n8mt7Fhc7"),
        ] {
            assert_eq!(short_id(uuid::Uuid::from_u128(number)), text);
        }
    }
}
