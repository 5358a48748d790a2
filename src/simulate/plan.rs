//! From a request to the plan of its answer: head, frames, pace and faults.
//!
//! A plan depends on the request alone, so equal requests share one.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, RETRY_AFTER};
use http::{HeaderMap, Method, StatusCode, Uri};

use super::answer::{Answer, Usage};
use super::ask::Ask;
use super::behaviour::{Behaviour, CutAt, Ending, ErrorPoint, Fault, Pace};
use super::failure::{Failure, page, stream_status};
use super::media::{self, Media};
use super::record::{Journal, Tally};
use super::route::{Service, Vendor, authenticate, route};
use super::script::{Script, Template, with_line_end};
use super::{chat, gemini, messages, models, refusal, responses, strict};

const JSON: &str = "application/json";
const EVENTS: &str = "text/event-stream; charset=utf-8";

/// How to answer one request.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) vendor: Vendor,
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) template: Template,
    pub(super) pace: Pace,
    pub(super) cut: Option<CutAt>,
    /// The length is announced.
    pub(super) sized: bool,
    pub(super) close_after: Option<Duration>,
    /// What a finished answer adds to the ledger.
    pub(super) bill: Option<(Arc<Tally>, Usage)>,
}

/// A plan, and the one that follows when the misbehaviour has had its turns.
#[derive(Debug)]
pub(super) struct Plans {
    /// What misbehaviour is counted by.
    pub(super) name: String,
    pub(super) first: Arc<Plan>,
    pub(super) then: Option<(u64, Arc<Plan>)>,
}

impl Plans {
    /// Bytes that the plans hold, roughly.
    pub(super) fn size(&self) -> usize {
        let then = self.then.as_ref();
        self.first.template.size() + then.map_or(0, |(_, plan)| plan.template.size())
    }
}

/// The parts of a request that an answer depends on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Received<'a> {
    pub(super) method: &'a Method,
    pub(super) uri: &'a Uri,
    pub(super) headers: &'a HeaderMap,
    pub(super) body: &'a Bytes,
}

/// Plans the answer to a request.
pub(super) async fn plan(received: Received<'_>, journal: &Journal, names: &[String]) -> Plans {
    let (service, vendor) = route(received.method, received.uri, received.headers);
    match understand(received, &service, vendor).await {
        Ok(request) => request.plans(journal, names),
        Err(failure) => {
            let fault = Fault::default();
            let rendered = Rendered::json(failure.body(vendor));
            let head = head(vendor, failure.status, &rendered, &fault);
            let plan = finished(vendor, head, &rendered, &Behaviour::default());
            Plans {
                name: String::new(),
                first: Arc::new(plan),
                then: None,
            }
        }
    }
}

/// A request that can be served.
struct Understood<'a> {
    service: &'a Service,
    vendor: Vendor,
    ask: Ask,
    model: String,
    /// What misbehaviour is counted by.
    name: String,
    behaviour: Behaviour,
}

async fn understand<'a>(
    received: Received<'_>,
    service: &'a Service,
    vendor: Vendor,
) -> Result<Understood<'a>, Failure> {
    match service {
        Service::Unknown => return Err(unknown_path(received.uri)),
        Service::WrongMethod => return Err(wrong_method(received.method)),
        _ => {}
    }
    authenticate(vendor, received.uri, received.headers)
        .map_err(|denied| Failure::denied(vendor, denied))?;
    let ask = match service {
        Service::Models | Service::Model { .. } => Ask::default(),
        _ => parse(received, vendor).await?,
    };
    let model = check(service, vendor, received.headers, &ask)?;
    let header = received.headers.get("x-simulate");
    let behaviour = Behaviour::parse(&model, header.and_then(|value| value.to_str().ok()))
        .map_err(|bad| Failure::invalid(bad.to_string(), None))?;
    let name = match model.as_str() {
        "" => received.uri.path().to_owned(),
        model => model.to_owned(),
    };
    Ok(Understood {
        service,
        vendor,
        ask,
        model,
        name,
        behaviour,
    })
}

async fn parse(received: Received<'_>, vendor: Vendor) -> Result<Ask, Failure> {
    let content_type = received.headers.get(CONTENT_TYPE);
    let form = content_type
        .and_then(|value| value.to_str().ok())
        .filter(|value| value.starts_with("multipart/"));
    let ask = match form {
        Some(form) => Ask::from_form(form, received.body.clone()).await,
        None => Ask::from_json(received.body),
    };
    ask.ok_or_else(|| {
        let message = match vendor {
            Vendor::OpenAi => "We could not parse the JSON body of your request.",
            Vendor::Anthropic => "The request body is not valid JSON.",
            Vendor::Google => "Invalid JSON payload received.",
        };
        Failure::invalid(message, None)
    })
}

/// Refuses what the vendor would; returns the model's name.
fn check(
    service: &Service,
    vendor: Vendor,
    headers: &HeaderMap,
    ask: &Ask,
) -> Result<String, Failure> {
    if vendor == Vendor::Anthropic
        && matches!(service, Service::Messages | Service::CountMessages)
        && !headers.contains_key("anthropic-version")
    {
        return Err(Failure::invalid(
            "anthropic-version: header is required",
            None,
        ));
    }
    let model = match service {
        Service::Models => return Ok(String::new()),
        Service::Model { model } => return Ok(model.clone()),
        Service::Generate { model }
        | Service::StreamGenerate { model, .. }
        | Service::CountContents { model } => model.clone(),
        Service::Images { .. } => ask.text("model").unwrap_or_else(|| "images".to_owned()),
        _ => ask.text("model").unwrap_or_default(),
    };
    if model.is_empty() {
        return Err(Failure::missing(vendor, "model"));
    }
    let wanted: &[&'static str] = match service {
        Service::Chat | Service::CountMessages => &["messages"],
        Service::Messages => &["max_tokens", "messages"],
        Service::Responses | Service::Embeddings | Service::Speech => &["input"],
        Service::Completions | Service::Images { .. } => &["prompt"],
        Service::Generate { .. } | Service::StreamGenerate { .. } => &["contents"],
        Service::Transcriptions => &["file"],
        _ => &[],
    };
    match wanted.iter().find(|field| !ask.has(field)) {
        Some(field) => Err(Failure::missing(vendor, field)),
        None => Ok(model),
    }
}

fn unknown_path(uri: &Uri) -> Failure {
    Failure {
        code: None,
        message: format!("Invalid URL ({})", uri.path()),
        ..Failure::of_status(404)
    }
}

fn wrong_method(method: &Method) -> Failure {
    Failure {
        message: format!("Not allowed to {method} here."),
        ..Failure::of_status(405)
    }
}

/// An answer in bytes, before its faults.
struct Rendered {
    content_type: &'static str,
    script: Script,
    /// It is sent in pieces, without a length.
    streamed: bool,
}

impl Rendered {
    fn json(body: Vec<u8>) -> Self {
        Self {
            content_type: JSON,
            script: Script::whole(body),
            streamed: false,
        }
    }

    /// Whether its pieces are events, in which errors can be told.
    fn has_events(&self) -> bool {
        self.streamed && !self.content_type.starts_with("audio/")
    }

    fn events(script: Script) -> Self {
        Self {
            content_type: EVENTS,
            script,
            streamed: true,
        }
    }
}

impl From<Media> for Rendered {
    fn from(media: Media) -> Self {
        Self {
            streamed: media.script.frames.len() > 1,
            content_type: media.content_type,
            script: media.script,
        }
    }
}

impl Understood<'_> {
    fn plans(self, journal: &Journal, names: &[String]) -> Plans {
        let plan = |behaviour: &Behaviour| Arc::new(self.plan(behaviour, journal, names));
        Plans {
            first: plan(&self.behaviour),
            then: self
                .behaviour
                .times
                .map(|times| (times, plan(&self.behaviour.calm()))),
            name: self.name.clone(),
        }
    }

    fn plan(&self, behaviour: &Behaviour, journal: &Journal, names: &[String]) -> Plan {
        let answer = Answer::new(&behaviour.content, &self.ask, &self.model, self.vendor);
        let fault = &behaviour.fault;
        let mut rendered = self.render(&answer, names);
        let mut status = 200;
        if fault.html {
            status = fault.status.unwrap_or(200);
            rendered = Rendered {
                content_type: "text/html",
                ..Rendered::json(page(status))
            };
        } else if let Some(failure) = refusal::refusal(fault, &self.ask, self.vendor)
            .or_else(|| self.strict_refusal(fault))
            .or_else(|| self.failure(fault, rendered.has_events()))
        {
            status = failure.status;
            rendered = Rendered::json(failure.body(self.vendor));
        } else {
            self.spoil(&mut rendered, fault, &answer);
        }
        let sound = !fault.html && !fault.garbage && fault.error.is_none();
        let billed = status == 200 && sound && fault.ending.is_none() && self.bills();
        let head = head(self.vendor, status, &rendered, fault);
        Plan {
            bill: billed.then(|| (journal.tally(&self.name), answer.usage)),
            ..finished(self.vendor, head, &rendered, behaviour)
        }
    }

    fn render(&self, answer: &Answer, names: &[String]) -> Rendered {
        let ask = &self.ask;
        let stream = ask.flag("stream");
        match self.service {
            Service::Chat if stream => Rendered::events(chat::stream(answer, ask)),
            Service::Chat => Rendered::json(chat::unary(answer)),
            Service::Completions if stream => Rendered::events(chat::legacy_stream(answer, ask)),
            Service::Completions => Rendered::json(chat::legacy_unary(answer)),
            Service::Responses if stream => Rendered::events(responses::stream(answer, ask)),
            Service::Responses => Rendered::json(responses::unary(answer, ask)),
            Service::InputTokens => Rendered::json(responses::count(answer.usage.input)),
            Service::Messages if stream => Rendered::events(messages::stream(answer)),
            Service::Messages => Rendered::json(messages::unary(answer)),
            Service::CountMessages => Rendered::json(messages::count(answer.usage.input)),
            Service::Generate { .. } => Rendered::json(gemini::unary(answer)),
            Service::StreamGenerate { sse, .. } => Rendered {
                content_type: if *sse { "text/event-stream" } else { JSON },
                ..Rendered::events(gemini::stream(answer, *sse))
            },
            Service::CountContents { .. } => Rendered::json(gemini::count(answer.usage.input)),
            Service::Embeddings => media::embeddings(ask, &self.model, &answer.usage).into(),
            Service::Speech => media::speech(ask, &answer.usage).into(),
            Service::Transcriptions => media::transcription(ask, answer).into(),
            Service::Images { edit } => media::images(ask, &answer.usage, *edit).into(),
            Service::Model { model } => Rendered::json(models::one(self.vendor, model)),
            Service::Models | Service::Unknown | Service::WrongMethod => {
                Rendered::json(models::list(self.vendor, names))
            }
        }
    }

    /// Whether finished answers go into the ledger.
    fn bills(&self) -> bool {
        !matches!(
            self.service,
            Service::Models
                | Service::Model { .. }
                | Service::InputTokens
                | Service::CountMessages
                | Service::CountContents { .. }
        )
    }

    /// What the real service would say against the request.
    fn strict_refusal(&self, fault: &Fault) -> Option<Failure> {
        let checked = || strict::refusal(self.service, &self.ask, &self.model, self.vendor);
        fault.strict.then(checked).flatten()
    }

    /// The error that takes the place of the answer.
    fn failure(&self, fault: &Fault, events: bool) -> Option<Failure> {
        let status = match (fault.status, fault.error) {
            (_, Some(_)) if events => return None,
            (Some(status), _) => status,
            (None, Some(_)) => stream_status(self.vendor),
            (None, None) => return None,
        };
        Some(failure(status, fault))
    }

    /// Works the faults inside an answer into its frames.
    fn spoil(&self, rendered: &mut Rendered, fault: &Fault, answer: &Answer) {
        let script = &mut rendered.script;
        if fault.garbage {
            garble(script, rendered.streamed);
        }
        if !rendered.streamed {
            return;
        }
        match fault.ending {
            Some(Ending::After(events)) => script.frames.truncate(events),
            Some(Ending::Content) => script.frames.truncate(script.closing),
            Some(Ending::Last) => drop(script.frames.pop()),
            None => {}
        }
        if let Some(point) = fault.error {
            let frames = match point {
                ErrorPoint::First => 0,
                ErrorPoint::Role => script.opening,
                ErrorPoint::Content => script.middle(),
                ErrorPoint::End => script.closing,
            };
            script.frames.truncate(frames);
            let status = fault.status.unwrap_or_else(|| stream_status(self.vendor));
            self.fail(script, &failure(status, fault), answer);
        }
        if let (Some(line_end), true) = (
            fault.line_end,
            rendered.content_type.starts_with("text/event-stream"),
        ) {
            for frame in &mut script.frames {
                *frame = with_line_end(frame, line_end);
            }
        }
    }

    fn fail(&self, script: &mut Script, failure: &Failure, answer: &Answer) {
        match self.service {
            Service::Responses => responses::fail(script, failure, answer, &self.ask),
            Service::Messages => failure.end_messages(script),
            Service::StreamGenerate { sse, .. } => failure.end_gemini(script, *sse),
            _ => failure.end_chat(script),
        }
    }
}

fn failure(status: u16, fault: &Fault) -> Failure {
    let milliseconds = fault
        .retry_after_ms
        .map(|ms| format!("{}.{:03}", ms / 1000, ms % 1000));
    Failure {
        retry_seconds: milliseconds.or_else(|| fault.retry_after.clone()),
        ..Failure::of_status(status)
    }
}

/// Breaks the JSON: all that follows is missing, or one frame more is broken.
fn garble(script: &mut Script, streamed: bool) {
    if streamed {
        let at = script.middle();
        script
            .frames
            .insert(at, b"data: {\"this is\": not JSON\n\n".to_vec());
        script.closing += 1;
    } else if let Some(body) = script.frames.first_mut() {
        body.truncate(body.len() / 2);
    }
}

/// Puts a plan together from its head and its frames.
fn finished(
    vendor: Vendor,
    (status, headers): (StatusCode, HeaderMap),
    rendered: &Rendered,
    behaviour: &Behaviour,
) -> Plan {
    Plan {
        vendor,
        status,
        headers,
        template: Template::new(&rendered.script.frames),
        pace: behaviour.pace.clone(),
        cut: behaviour.fault.cut,
        sized: behaviour.fault.length.unwrap_or(!rendered.streamed),
        close_after: behaviour.fault.close_after,
        bill: None,
    }
}

/// The status line and the headers that are the same for every such answer.
fn head(
    vendor: Vendor,
    status: u16,
    rendered: &Rendered,
    fault: &Fault,
) -> (StatusCode, HeaderMap) {
    let mut headers = HeaderMap::with_capacity(24);
    let content_type = match (vendor, rendered.content_type) {
        (Vendor::Google, JSON) => "application/json; charset=UTF-8",
        (_, content_type) => content_type,
    };
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    if rendered.streamed {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    }
    let left = if status == 429 { "0" } else { "9999" };
    for (name, value) in vendor_headers(vendor) {
        let value = if *value == "left" { left } else { value };
        headers.insert(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        );
    }
    if vendor == Vendor::Anthropic && status >= 300 {
        let retry = matches!(status, 408 | 409 | 429 | 500..);
        let retry = HeaderValue::from_static(if retry { "true" } else { "false" });
        headers.insert("x-should-retry", retry);
    }
    let mut optional = |name: HeaderName, value: Option<String>| {
        if let Some(Ok(value)) = value.map(HeaderValue::try_from) {
            headers.insert(name, value);
        }
    };
    optional(LOCATION, fault.location.clone());
    optional(RETRY_AFTER, fault.retry_after.clone());
    optional(
        HeaderName::from_static("retry-after-ms"),
        fault.retry_after_ms.map(|ms| ms.to_string()),
    );
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, headers)
}

/// Headers of every answer; `left` is what remains of a limit.
fn vendor_headers(vendor: Vendor) -> &'static [(&'static str, &'static str)] {
    match vendor {
        Vendor::OpenAi => &[
            ("openai-organization", "simulated"),
            ("openai-processing-ms", "1"),
            ("openai-version", "2020-10-01"),
            ("x-ratelimit-limit-requests", "10000"),
            ("x-ratelimit-limit-tokens", "2000000"),
            ("x-ratelimit-remaining-requests", "left"),
            ("x-ratelimit-remaining-tokens", "left"),
            ("x-ratelimit-reset-requests", "6ms"),
            ("x-ratelimit-reset-tokens", "1m30s"),
        ],
        Vendor::Anthropic => &[
            ("anthropic-organization-id", "simulated"),
            ("anthropic-ratelimit-requests-limit", "10000"),
            ("anthropic-ratelimit-requests-remaining", "left"),
            ("anthropic-ratelimit-tokens-limit", "2000000"),
            ("anthropic-ratelimit-tokens-remaining", "left"),
            ("anthropic-ratelimit-input-tokens-limit", "1600000"),
            ("anthropic-ratelimit-input-tokens-remaining", "left"),
            ("anthropic-ratelimit-output-tokens-limit", "400000"),
            ("anthropic-ratelimit-output-tokens-remaining", "left"),
        ],
        Vendor::Google => &[
            ("server-timing", "gfet4t7; dur=1"),
            ("x-content-type-options", "nosniff"),
        ],
    }
}
