//! The record of one request: all that was learned about it, in one place.
//!
//! It changes through methods named after events. The first outcome wins; an
//! exchange that is dropped without one was left by its client. Dropping it
//! writes its one row, whatever happened.

mod keep;

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::capture::{Capture, Switches};
use crate::clock;
use crate::config::{Config, Key};
use crate::feed::{Event, Feed, Kind};
use crate::mask;
use crate::metrics::{InFlightGuard, Metrics};
use crate::protocol::Protocol;
use crate::protocol::meter::Reading;
use crate::protocol::notes::Notes;
use crate::protocol::usage::Tokens;
use crate::quota::{Exceeded, Reservation, Spent, Told};
use crate::routing::permit::Permit;
use crate::routing::standing::{Blame, Change, Trial};
use crate::routing::window::Sample;
use crate::routing::{Candidate, Switchboard};
use crate::store::Writer;
use crate::store::row::{CooldownRow, ErrorRow, Status, UsageRow};
use crate::upstream::{Failure, Outbound};
use crate::usage::estimate::Estimate;
use crate::usage::pricing::Price;

pub use keep::Keep;

/// Where a core writes down what happened. One per core: a handle that cores
/// shared would be counted up and down by all of them for every request.
#[derive(Debug)]
pub struct Books {
    /// Takes the rows.
    pub writer: Writer,
    /// Counts what is going on.
    pub metrics: Arc<Metrics>,
    /// Learns how targets do.
    pub switchboard: Arc<Switchboard>,
    /// Says whose requests are captured.
    pub captures: Arc<Switches>,
}

impl Books {
    /// Keeps what changed about a target's rest.
    pub fn rested(&self, change: &Change) {
        let rest = change.rest.as_ref();
        self.writer.cooldown(Box::new(CooldownRow {
            provider: Arc::clone(&change.provider),
            model: Arc::clone(&change.model),
            until_ms: rest.map(|rest| rest.until),
            failures: rest.map_or(0, |rest| rest.failures),
            limited: rest.is_some_and(|rest| rest.limited),
            message: rest.map_or_else(Box::default, |rest| rest.message.clone()),
        }));
    }
}

/// One try at one target.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// Who was tried.
    pub provider: Arc<str>,
    /// The model there.
    pub model: Arc<str>,
    /// What was spoken to it.
    pub protocol: Protocol,
    /// How it went.
    pub result: AttemptResult,
    /// Why, when it failed or was skipped.
    pub reason: String,
    /// The provider's HTTP status, when there was one.
    pub status: Option<u16>,
    /// A word or status for the summary.
    pub tag: String,
    /// Whether the next target could be tried.
    pub retryable: bool,
    /// Milliseconds from the request's arrival to the attempt's beginning.
    pub began_ms: f64,
    /// How long it took, in milliseconds.
    pub duration_ms: f64,
}

/// How an attempt went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptResult {
    /// It answered.
    Answered,
    /// It was tried and did not.
    Failed,
    /// It refused, and was asked again with a changed request.
    Repaired,
    /// It was passed over without being tried.
    Skipped,
}

impl AttemptResult {
    /// Whether it counts as a target that was tried.
    #[must_use]
    pub const fn counts(self) -> bool {
        matches!(self, Self::Answered | Self::Failed)
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Answered => "success",
            Self::Failed | Self::Repaired => "failed",
            Self::Skipped => "skipped",
        }
    }
}

/// How far an answer is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// GRACE_PERIOD, MONITORING or THROUGHPUT_STALLED.
    pub state: &'static str,
    /// All that came from the provider.
    pub received: Said,
    /// Of that what is output: no heartbeats, comments and framing.
    pub output: Said,
}

/// An amount, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Said {
    /// Bytes since the answer began.
    pub bytes: Option<u64>,
    /// Bytes in a second, lately.
    pub per_second: Option<f64>,
}

/// The one mutable record of a request. See the module's text.
#[derive(Debug)]
pub struct Exchange {
    books: Arc<Books>,
    /// The configuration this request sees from its beginning to its end.
    pub config: Arc<Config>,
    row: Option<Box<UsageRow>>,
    started: Instant,
    attempts: Vec<Attempt>,
    in_flight: Option<InFlightGuard>,
    trying: Option<Trying>,
    /// What the target costs that is tried or answers.
    price: Option<Arc<Price>>,
    /// Whether a target's answer began.
    answered: bool,
    retries: u32,
    outcome: Option<Status>,
    /// The caller's key, once it is known.
    key: Option<Arc<Key>>,
    /// The key's place among its requests under way.
    permit: Option<Permit>,
    /// What it holds of the key's quotas.
    reservation: Option<Box<Reservation>>,
    keep: Option<Box<Keep>>,
    /// What goes over the wire, when somebody wants to see it.
    capture: Option<Box<Capture>>,
    /// Counts what the provider may not report.
    estimate: Option<Box<Estimate>>,
}

/// The target that is being tried, or is answering.
#[derive(Debug)]
struct Trying {
    trial: Trial,
    began: Instant,
    first_content: Option<Instant>,
    /// How it broke off, when it did.
    broke: Option<String>,
}

/// What is known of a request the moment it arrives.
#[derive(Debug)]
pub struct Arrival {
    /// The request's own id.
    pub id: Uuid,
    /// What the client spoke.
    pub protocol: Protocol,
    /// The client's address; none on a Unix socket.
    pub address: Option<IpAddr>,
    /// `x-client-request-id`.
    pub client_id: Option<Box<str>>,
    /// Milliseconds since the epoch.
    pub wall_ms: i64,
    /// For durations.
    pub now: Instant,
}

impl Exchange {
    /// Opens the record. From here on there will be one row.
    #[must_use]
    pub fn new(books: Arc<Books>, config: Arc<Config>, arrival: Arrival) -> Self {
        let row = UsageRow {
            request_id: arrival.id,
            client_request_id: arrival.client_id,
            start_ms: arrival.wall_ms,
            source_ip: arrival.address,
            key: None,
            attribution: None,
            incoming: arrival.protocol,
            lite: false,
            outgoing: None,
            provider: None,
            selected_model: None,
            incoming_alias: None,
            canonical: None,
            attempts: 0,
            retry_history: None,
            all_attempted: None,
            tokens: Tokens::default(),
            tokens_estimated: false,
            bill: None,
            duration_ms: 0.0,
            ttft_ms: None,
            streamed: false,
            passthrough: false,
            status: Status::Cancelled,
            has_error: false,
            tool_calls: None,
            finish_reason: None,
            notes: None,
            http_status: 0,
        };
        Self {
            books,
            config,
            row: Some(Box::new(row)),
            started: arrival.now,
            attempts: Vec::new(),
            in_flight: None,
            trying: None,
            price: None,
            answered: false,
            retries: 0,
            outcome: None,
            key: None,
            permit: None,
            reservation: None,
            keep: None,
            capture: None,
            estimate: None,
        }
    }

    /// The request's id.
    #[must_use]
    pub fn id(&self) -> Uuid {
        self.row
            .as_ref()
            .map_or_else(Uuid::nil, |row| row.request_id)
    }

    /// What the client spoke.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.row.as_ref().map_or(Protocol::Chat, |row| row.incoming)
    }

    /// When the request arrived, in milliseconds since 1970.
    #[must_use]
    pub fn created_ms(&self) -> i64 {
        self.row.as_ref().map_or(0, |row| row.start_ms)
    }

    /// The provider that answers, or was tried last.
    #[must_use]
    pub fn provider(&self) -> Option<Arc<str>> {
        self.row.as_ref()?.provider.clone()
    }

    /// The answer is to be kept for the client to come back to.
    pub fn keep(&mut self, keep: Option<Keep>) {
        self.keep = keep.map(Box::new);
    }

    /// How many tokens the prompt is likely to have, if a quota of the caller's
    /// counts tokens or money.
    #[must_use]
    pub fn limited_input(&self) -> Option<u64> {
        self.reservation.as_ref()?.input_tokens()
    }

    /// The provider that answers may not report tokens, or not before the client
    /// leaves.
    pub fn estimate(&mut self, estimate: Estimate) {
        self.estimate = Some(Box::new(estimate));
    }

    /// A piece of the answer came from the provider.
    pub fn heard(&mut self, piece: &[u8]) {
        if let Some(estimate) = &mut self.estimate {
            estimate.see(piece);
        }
    }

    /// A piece of the answer goes to the client.
    pub fn relayed(&mut self, piece: &bytes::Bytes) {
        if let Some(keep) = &mut self.keep {
            keep.see(piece);
        }
        if let Some(capture) = &mut self.capture {
            capture.relayed(piece);
        }
    }

    /// Where to put down what goes over the wire, if anybody wants to see it.
    pub fn capture(&mut self) -> Option<&mut Capture> {
        self.capture.as_deref_mut()
    }

    /// This request is captured, whatever the switches say.
    pub fn capture_for_certain(&mut self) {
        self.capture = Some(self.books.captures.certain());
    }

    /// The caller's key, once it is known.
    #[must_use]
    pub fn key(&self) -> Option<&Arc<Key>> {
        self.key.as_ref()
    }

    /// The attempts so far.
    #[must_use]
    pub fn attempts(&self) -> &[Attempt] {
        &self.attempts
    }

    /// When the request arrived.
    #[must_use]
    pub fn started(&self) -> Instant {
        self.started
    }

    /// The caller is known.
    pub fn authenticated(&mut self, key: &Arc<Key>, attribution: Option<Box<str>>) {
        if let Some(row) = &mut self.row {
            row.key = Some(Arc::clone(&key.name));
            row.attribution = attribution;
        }
        self.key = Some(Arc::clone(key));
        let on_error = self.config.capture_on_error;
        self.capture = self.books.captures.begin(&key.name, on_error);
    }

    /// The gateway asks on behalf of `key`, which pays for it.
    pub fn internal(&mut self, key: &Arc<Key>, attribution: Box<str>) {
        if let Some(row) = &mut self.row {
            row.key = Some(Arc::clone(&key.name));
            row.attribution = Some(attribution);
        }
        self.key = Some(Arc::clone(key));
    }

    /// What the client wants is known.
    pub fn asked(&mut self, model: Arc<str>, streamed: bool) {
        if let Some(row) = &mut self.row {
            row.incoming_alias = Some(model);
            row.streamed = streamed;
        }
        self.tell(Kind::Started);
    }

    /// The client speaks Codex's lighter form of Responses.
    pub fn spoke_lite(&mut self) {
        if let Some(row) = &mut self.row {
            row.lite = true;
        }
    }

    /// The model's name led somewhere.
    pub fn resolved(&mut self, canonical: Arc<str>) {
        if let Some(row) = &mut self.row {
            row.canonical = Some(canonical);
        }
    }

    /// A candidate was passed over without being tried.
    pub fn skipped(&mut self, candidate: &Candidate, protocol: Protocol, reason: String) {
        self.attempts.push(Attempt {
            provider: Arc::clone(&candidate.provider.id),
            model: Arc::clone(&candidate.model),
            protocol,
            result: AttemptResult::Skipped,
            reason,
            status: None,
            tag: "skipped".into(),
            retryable: true,
            began_ms: milliseconds(self.started, clock::now()),
            duration_ms: 0.0,
        });
    }

    /// The key's permit is held from here on.
    pub fn permitted(&mut self, permit: Permit) {
        self.permit = Some(permit);
    }

    /// What the request is likely to take of its key's quotas is reserved.
    pub fn reserved(&mut self, reservation: Box<Reservation>) {
        self.reservation = Some(reservation);
    }

    /// That target is about to be tried: reserves what quotas for it alone ask
    /// for.
    ///
    /// # Errors
    ///
    /// Quotas that have no room; the target is to be passed over.
    pub fn aim(&mut self, candidate: &Candidate) -> Result<(), Exceeded> {
        let Some(reservation) = &mut self.reservation else {
            return Ok(());
        };
        let started = self.row.as_ref().map_or(0, |row| row.start_ms);
        reservation.aim(&candidate.provider.id, &candidate.model, started)
    }

    /// How the quota stood that has the least left of those that count this
    /// request.
    #[must_use]
    pub fn quota(&self) -> Option<Told> {
        self.reservation.as_ref()?.tightest()
    }

    /// Whether a target was tried already.
    #[must_use]
    pub fn has_tried(&self) -> bool {
        self.row.as_ref().is_some_and(|row| row.attempts > 0)
    }

    /// Targets tried so far.
    #[must_use]
    pub fn tries(&self) -> u32 {
        self.row.as_ref().map_or(0, |row| u32::from(row.attempts))
    }

    /// Asks the purse that all requests share for this request's next try.
    pub fn may_try(&mut self) -> bool {
        let budget = &self.books.switchboard.budget;
        if !self.has_tried() {
            budget.request();
            return true;
        }
        let may = budget.retry();
        self.retries += u32::from(may);
        may
    }

    /// A target is about to be tried.
    pub fn attempt_started(
        &mut self,
        candidate: &Candidate,
        protocol: Protocol,
        passthrough: bool,
        trial: Option<Trial>,
    ) {
        // Counting a request's tokens says nothing about its target, and is free.
        self.price = trial.as_ref().map(|_| Arc::clone(&candidate.price));
        self.trying = trial.map(|trial| Trying {
            trial,
            began: clock::now(),
            first_content: None,
            broke: None,
        });
        self.in_flight = Some(
            self.books
                .metrics
                .in_flight(&candidate.provider.id, &candidate.model),
        );
        if let Some(row) = &mut self.row {
            row.attempts += 1;
            row.provider = Some(Arc::clone(&candidate.provider.id));
            row.selected_model = Some(Arc::clone(&candidate.model));
            row.outgoing = Some(protocol);
            row.passthrough = passthrough;
        }
        self.tell(Kind::Updated);
    }

    /// Where it is told what is going on.
    #[must_use]
    pub fn feed(&self) -> &Feed {
        self.books.writer.feed()
    }

    fn tell(&self, kind: Kind) {
        let (feed, Some(row)) = (self.feed(), &self.row) else {
            return;
        };
        if feed.is_heard() {
            let at_ms = row.start_ms + elapsed_ms(self.started);
            let event = || Some(event(kind, at_ms, row, &pending(row)));
            feed.tell(kind, at_ms, event);
        }
    }

    /// So far the answer is. For whoever listens, about once a second.
    pub fn progressed(&self, progress: &Progress) {
        let Some(row) = &self.row else { return };
        let at_ms = row.start_ms + elapsed_ms(self.started);
        self.feed().tell(Kind::Progress, at_ms, || {
            let data = json!({
                "requestId": row.request_id.to_string(), "apiKey": row.key,
                "isStreamed": row.streamed, "state": progress.state,
                "bytesReceived": progress.received.bytes,
                "bytesPerSec": progress.received.per_second,
                "semanticBytesReceived": progress.output.bytes,
                "semanticBytesPerSec": progress.output.per_second,
                "elapsedMs": elapsed_ms(self.started),
            });
            Some(event(Kind::Progress, at_ms, row, &data))
        });
    }

    /// The target that is being tried did not answer.
    pub fn attempt_failed(&mut self, failure: &Failure, outbound: &Outbound<'_>, retryable: bool) {
        self.in_flight = None;
        let trying = self.trying.take();
        let began = trying.as_ref().map_or(self.started, |trying| trying.began);
        self.push_attempt(AttemptResult::Failed, failure, retryable, began);
        let rests = trying.is_some_and(|trying| self.blame(trying, failure.blame()));
        if let Some(capture) = &mut self.capture {
            capture.failed(&failure.error.message);
        }
        let details = self.failure_details(failure, outbound, rests);
        self.write_error(failure.error.message.clone(), details);
    }

    /// Whether the target rests now.
    fn blame(&self, trying: Trying, blame: Option<Blame<'_>>) -> bool {
        let now = self.books.switchboard.now(clock::now());
        let change = trying.trial.failed(now, blame);
        if let Some(change) = &change {
            self.books.rested(change);
        }
        change.is_some()
    }

    /// The target that is being tried refused the request, and gets it again with
    /// that change.
    pub fn attempt_repaired(&mut self, failure: &Failure, change: &str) {
        let began = self.trying.as_ref().map_or(self.started, |t| t.began);
        self.push_attempt(AttemptResult::Repaired, failure, true, began);
        if let Some(capture) = &mut self.capture {
            capture.failed(&failure.error.message);
        }
        if let Some(attempt) = self.attempts.last_mut() {
            attempt.reason.push_str("; sent again: ");
            attempt.reason.push_str(change);
        }
    }

    fn push_attempt(
        &mut self,
        result: AttemptResult,
        failure: &Failure,
        retryable: bool,
        began: Instant,
    ) {
        let Some(row) = &self.row else { return };
        let (Some(provider), Some(model), Some(protocol)) =
            (&row.provider, &row.selected_model, row.outgoing)
        else {
            return;
        };
        self.attempts.push(Attempt {
            provider: Arc::clone(provider),
            model: Arc::clone(model),
            protocol,
            result,
            reason: failure.error.message.clone(),
            status: failure.status.map(|status| status.as_u16()),
            tag: failure.tag(),
            retryable,
            began_ms: milliseconds(self.started, began),
            duration_ms: milliseconds(began, clock::now()),
        });
    }

    /// The request was refused, or failed, before anything was relayed.
    pub fn refused(&mut self, message: &str, http_status: u16, status: Status) {
        if self.attempts.is_empty() {
            let details = json!({ "apiType": self.protocol().name(), "statusCode": http_status });
            self.write_error(message.to_owned(), details);
        }
        if let Some(row) = &mut self.row {
            row.http_status = http_status;
        }
        self.settle(status);
    }

    /// The answer's head goes to the client.
    pub fn answering(&mut self, http_status: u16, streamed: bool) {
        if let Some(trying) = &mut self.trying {
            trying.trial.answering();
        }
        self.answered = true;
        self.books.switchboard.budget.answered(self.retries);
        self.retries = 0;
        if let Some(row) = &mut self.row {
            row.http_status = http_status;
            row.streamed |= streamed;
        }
    }

    /// The first content came.
    pub fn first_content(&mut self, now: Instant) {
        if let Some(trying) = &mut self.trying {
            trying.first_content.get_or_insert(now);
        }
        let elapsed = milliseconds(self.started, now);
        if let Some(row) = &mut self.row {
            row.ttft_ms.get_or_insert(elapsed);
        }
    }

    /// What the translation of the request changed.
    pub fn noted(&mut self, notes: &Notes) {
        if let Some(row) = &mut self.row
            && !notes.is_empty()
        {
            row.notes = Some(notes.to_json().into_boxed_str());
        }
    }

    /// What the answer itself gave to note, behind what its request did.
    pub fn noted_late(&mut self, notes: &Notes) {
        let Some(row) = &mut self.row else {
            return;
        };
        let late = notes.to_json();
        row.notes = Some(match row.notes.take() {
            // Two JSON arrays, neither of them empty.
            Some(before) => [before.trim_end_matches(']'), ",", &late[1..]]
                .concat()
                .into(),
            None => late.into_boxed_str(),
        });
    }

    /// What the meter read.
    pub fn metered(&mut self, reading: Reading) {
        if let Some(row) = &mut self.row {
            row.tokens = reading.tokens;
            row.finish_reason = reading.finish_reason;
            row.tool_calls = Some(reading.tool_calls);
        }
    }

    /// The answer broke off after it had begun.
    pub fn broke_off(&mut self, message: &str) {
        if let Some(trying) = &mut self.trying {
            trying.broke = Some(message.to_owned());
        }
        let details = json!({
            "apiType": self.protocol().name(),
            "provider": self.row.as_ref().and_then(|row| row.provider.clone()),
            "targetModel": self.row.as_ref().and_then(|row| row.selected_model.clone()),
            "afterFirstByte": true,
        });
        self.write_error(message.to_owned(), details);
    }

    /// The end. Only the first counts.
    pub fn settle(&mut self, status: Status) {
        if self.outcome.is_some() {
            return;
        }
        self.outcome = Some(status);
        self.in_flight = None;
        self.permit = None;
        let kept = self.keep.take().and_then(|keep| keep.into_row());
        if let Some(kept) = kept {
            self.books.writer.response(kept);
        }
        let Some(mut row) = self.row.take() else {
            return;
        };
        if let Some(estimate) = self.estimate.take() {
            let whole = matches!(status, Status::Success | Status::Empty);
            row.tokens_estimated = estimate.fill(&mut row.tokens, whole);
        }
        let now = clock::now();
        if let Some(trying) = self.trying.take() {
            self.learn(trying, &row, status, now);
        }
        if self.answered {
            row.bill = self.price.take().map(|price| price.bill(&row.tokens));
        }
        row.status = status;
        row.duration_ms = milliseconds(self.started, now);
        row.ttft_ms = match row.ttft_ms {
            None if status == Status::Success && !row.streamed => Some(row.duration_ms),
            known => known,
        };
        row.has_error |= status != Status::Success && status != Status::Cancelled;
        if let Some(mut reservation) = self.reservation.take() {
            settle_quotas(&mut reservation, &row);
        }
        if !self.attempts.is_empty() {
            row.retry_history = Some(self.history(&row));
            row.all_attempted = self.all_attempted(&row);
        }
        if let Some(capture) = &mut self.capture {
            capture.settled(&row, self.key.as_ref());
        }
        self.books.writer.usage(row);
    }

    /// What the end of an answer says about its target.
    fn learn(&self, trying: Trying, row: &UsageRow, status: Status, now: Instant) {
        if matches!(status, Status::Success | Status::Empty) {
            let elapsed = milliseconds(trying.began, now);
            let ttft = trying
                .first_content
                .map(|at| milliseconds(trying.began, at));
            let tokens = [row.tokens.output, row.tokens.reasoning];
            let tokens = tokens.into_iter().flatten().fold(0, u64::saturating_add);
            let sample = Sample::of_answer(tokens, elapsed, ttft);
            let at = self.books.switchboard.now(now);
            if let Some(change) = trying.trial.succeeded(at, sample) {
                self.books.rested(&change);
            }
            return;
        }
        // The client left, unless the answer broke off before.
        let Some(message) = trying.broke.clone().filter(|_| status.is_failure()) else {
            return;
        };
        let blame = Blame {
            asked: None,
            limited: false,
            stall: status == Status::Stall,
            message: &message,
        };
        self.blame(trying, Some(blame));
    }

    fn history(&self, row: &UsageRow) -> Box<str> {
        let mut entries: Vec<Value> = self
            .attempts
            .iter()
            .enumerate()
            .map(history_entry)
            .collect();
        if row.status == Status::Success
            && let (Some(provider), Some(model)) = (&row.provider, &row.selected_model)
        {
            entries.push(json!({
                "index": entries.len() + 1, "provider": provider, "model": model,
                "apiType": row.outgoing.map(Protocol::name), "status": AttemptResult::Answered.name(),
                "reason": "answered", "statusCode": row.http_status, "retryable": false,
            }));
        }
        Value::Array(entries).to_string().into_boxed_str()
    }

    fn all_attempted(&self, row: &UsageRow) -> Option<Box<str>> {
        let mut names: Vec<String> = self
            .attempts
            .iter()
            .filter(|attempt| attempt.result.counts())
            .map(|attempt| format!("{}/{}", attempt.provider, attempt.model))
            .collect();
        if row.status == Status::Success
            && let (Some(provider), Some(model)) = (&row.provider, &row.selected_model)
        {
            names.push(format!("{provider}/{model}"));
        }
        (!names.is_empty()).then(|| json!(names).to_string().into_boxed_str())
    }

    fn failure_details(&self, failure: &Failure, outbound: &Outbound<'_>, rests: bool) -> Value {
        let last = self.attempts.last();
        let raw = failure.raw.as_ref();
        json!({
            "apiType": self.protocol().name(),
            "provider": last.map(|attempt| &*attempt.provider),
            "targetModel": last.map(|attempt| &*attempt.model),
            "targetApiType": last.map(|attempt| attempt.protocol.name()),
            "url": outbound.url(),
            "headers": mask::headers(&outbound.headers()),
            "statusCode": failure.status.map(|status| status.as_u16()),
            "providerResponse": raw.map(|raw| excerpt(&raw.body)),
            "providerResponseHeaders": raw.map(|raw| mask::headers(&raw.headers)),
            "cooldownTriggered": rests,
            "attemptCount": self.row.as_ref().map(|row| row.attempts),
            "allAttemptedProviders": self.attempts.iter().map(|attempt| format!("{}/{}", attempt.provider, attempt.model)).collect::<Vec<_>>(),
            "retryHistory": self.attempts.iter().enumerate().map(history_entry).collect::<Vec<_>>(),
            "code": failure.error.code,
        })
    }

    fn write_error(&mut self, message: String, details: Value) {
        let Some(row) = &mut self.row else { return };
        row.has_error = true;
        self.books.writer.error(Box::new(ErrorRow {
            request_id: row.request_id,
            date_ms: row.start_ms + elapsed_ms(self.started),
            key: row.key.clone(),
            message,
            details: details.to_string(),
        }));
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.settle(Status::Cancelled);
        // Only now has everything been relayed that ever will be.
        if let Some(capture) = self.capture.take() {
            self.books.captures.hand_over(capture, &self.books.writer);
        }
    }
}

/// Charges what the row says. What failed costs nothing; what a client left after
/// its answer had begun costs what of it was measured.
fn settle_quotas(reservation: &mut Reservation, row: &UsageRow) {
    let answered = match row.status {
        Status::Success | Status::Empty => true,
        Status::Cancelled => (200..300).contains(&row.http_status),
        _ => false,
    };
    if answered {
        let tokens = &row.tokens;
        let sum = |parts: &[Option<u64>]| {
            let parts = parts.iter().copied().flatten();
            parts.fold(0, u64::saturating_add)
        };
        let spent = Spent {
            input: sum(&[
                tokens.input,
                tokens.cache_read,
                tokens.cache_write_short,
                tokens.cache_write_long,
                tokens.cache_write_other,
                tokens.tool_prompt,
            ]),
            output: sum(&[tokens.output, tokens.reasoning]),
            nanos: row
                .bill
                .as_ref()
                .and_then(|bill| bill.cost)
                .map_or(0, |cost| cost.total().0),
        };
        let ended = row.start_ms.saturating_add(row.duration_ms as i64);
        reservation.settle(spent, ended);
    }
}

fn event(kind: Kind, at_ms: i64, row: &UsageRow, data: &Value) -> Event {
    Event {
        kind,
        at_ms,
        key: row.key.clone(),
        data: data.to_string().into_boxed_str(),
    }
}

/// What the record will say, as far as it is known.
fn pending(row: &UsageRow) -> Value {
    json!({
        "requestId": row.request_id.to_string(), "clientRequestId": row.client_request_id,
        "sourceIp": row.source_ip.map(|address| address.to_string()),
        "apiKey": row.key, "attribution": row.attribution,
        "incomingApiType": row.incoming.name(), "provider": row.provider,
        "attemptCount": row.attempts, "incomingModelAlias": row.incoming_alias,
        "canonicalModelName": row.canonical, "selectedModelName": row.selected_model,
        "outgoingApiType": row.outgoing.map(Protocol::name), "startTime": row.start_ms,
        "isStreamed": row.streamed, "isPassthrough": row.passthrough,
        "responseStatus": "pending",
    })
}

fn milliseconds(from: Instant, to: Instant) -> f64 {
    // Microseconds are as fine as anybody reads these.
    (to.saturating_duration_since(from).as_micros() as f64) / 1000.0
}

fn elapsed_ms(from: Instant) -> i64 {
    i64::try_from(from.elapsed().as_millis()).unwrap_or(i64::MAX)
}

fn history_entry((index, attempt): (usize, &Attempt)) -> Value {
    json!({
        "index": index + 1,
        "provider": attempt.provider,
        "model": attempt.model,
        "apiType": attempt.protocol.name(),
        "status": attempt.result.name(),
        "reason": attempt.reason,
        "statusCode": attempt.status,
        "retryable": attempt.retryable,
        "startedMs": attempt.began_ms,
        "durationMs": attempt.duration_ms,
    })
}

/// At most 2 KB of an answer, for the error list.
fn excerpt(body: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(&body[..body.len().min(2048)])
}
