//! A capture as it is written down: bodies joined, secrets masked. Done by the
//! store's thread.

use bytes::Bytes;
use http::HeaderMap;
use serde_json::{Map, Value, json};

use super::room::Place;
use super::{Asked, Capture, Settled, Try};
use crate::mask;
use crate::store::CaptureRow;

impl Capture {
    /// The row. `None` only when the request never came to an end. What was taken
    /// of the room is given back with the row, and so is `place`.
    pub(super) fn seal(mut self: Box<Self>, place: Place) -> Option<Box<CaptureRow>> {
        let settled = self.settled.take()?;
        let secrets = self.secrets(&settled);
        let mut paper = Paper::default();
        paper.note("protocol", settled.incoming.name());
        paper.note("alias", settled.alias.as_deref());
        let request = self.asked.as_mut().map(|asked| paper.asked(asked));
        let (last, before) = match self.tries.split_last_mut() {
            Some((last, before)) => (Some(last), before),
            None => (None, &mut [][..]),
        };
        let before = before.iter_mut().map(|tried| earlier(tried, &secrets));
        paper.note("earlier", before.collect::<Vec<_>>());
        let tried = last.map(|tried| paper.tried(tried));
        let (sent, received) = tried.unzip();
        paper.note("answerHeaders", shown(&self.headers));
        let answer = paper.body(self.answer.take(), "transformedResponse");
        let clean = |body: Option<Bytes>| body.map(|body| scrubbed(body, &secrets));
        let full = |body: Option<Bytes>| clean(body).filter(|body| !body.is_empty());
        Some(Box::new(CaptureRow {
            request_id: settled.request_id,
            created_ms: settled.created_ms,
            key: settled.key,
            status: self.status.or(Some(settled.http_status)).filter(|s| *s > 0),
            about: scrubbed(paper.finish(), &secrets),
            request: clean(request),
            sent: clean(sent),
            received: full(received),
            answer: full(Some(answer)),
            held: Box::new((self, place)),
        }))
    }

    /// Every credential that this request carried.
    fn secrets(&self, settled: &Settled) -> Vec<Vec<u8>> {
        let mut secrets: Vec<Vec<u8>> = Vec::new();
        if let Some(secret) = &settled.secret {
            secrets.push(secret.expose().as_bytes().to_vec());
        }
        let asked = self.asked.iter().map(|asked| &asked.headers);
        let sent = self.tries.iter().map(|tried| &tried.headers);
        for headers in asked.chain(sent) {
            secrets.extend(mask::credentials(headers).map(<[u8]>::to_vec));
        }
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        secrets.dedup();
        secrets
    }
}

fn shown(headers: &HeaderMap) -> Value {
    Value::Object(mask::headers(headers))
}

/// What is told beside the bodies.
#[derive(Default)]
struct Paper {
    about: Map<String, Value>,
    cut: Map<String, Value>,
}

impl Paper {
    fn note(&mut self, name: &str, value: impl Into<Value>) {
        self.about.insert(name.to_owned(), value.into());
    }

    /// The body; what was left out of it is noted.
    fn body(&mut self, (body, left_out): (Bytes, u64), name: &str) -> Bytes {
        if left_out > 0 {
            self.cut.insert(name.to_owned(), left_out.into());
        }
        body
    }

    fn asked(&mut self, asked: &mut Asked) -> Bytes {
        self.note("asked", asked.protocol.name());
        self.note("pathModel", asked.model.take());
        self.note("action", asked.action.take());
        self.note("query", asked.query.take());
        self.note("requestHeaders", shown(&asked.headers));
        self.body(asked.body.take(), "rawRequest")
    }

    /// What was sent to the last target, and what came.
    fn tried(&mut self, tried: &mut Try) -> (Bytes, Bytes) {
        self.about.extend(facts(tried));
        let sent = self.body(tried.body.take(), "transformedRequest");
        let received = self.body(tried.tap.0.lock().body.take(), "rawResponse");
        (sent, received)
    }

    fn finish(mut self) -> Bytes {
        let cut = std::mem::take(&mut self.cut);
        self.note("cut", cut);
        Value::Object(self.about).to_string().into()
    }
}

fn scrubbed(mut body: Bytes, secrets: &[Vec<u8>]) -> Bytes {
    for secret in secrets {
        let shown = mask::mask(&String::from_utf8_lossy(secret));
        body = mask::without(&body, secret, &shown);
    }
    body
}

/// What is told of the target that was tried.
fn facts(tried: &Try) -> Map<String, Value> {
    let received = tried.tap.0.lock();
    let value = json!({
        "provider": tried.provider,
        "model": tried.model,
        "spoken": tried.protocol.name(),
        "url": tried.url,
        "sentHeaders": shown(&tried.headers),
        "receivedStatus": received.status,
        "receivedHeaders": shown(&received.headers),
        "error": tried.error,
    });
    match value {
        Value::Object(facts) => facts,
        _ => Map::new(),
    }
}

/// A try before the last one, whole.
fn earlier(tried: &mut Try, secrets: &[Vec<u8>]) -> Value {
    let mut about = facts(tried);
    let text = |(body, left_out): (Bytes, u64)| {
        let body = scrubbed(body, secrets);
        let text = String::from_utf8_lossy(&body).into_owned();
        (Value::String(text), left_out)
    };
    let (received, cut) = text(tried.tap.0.lock().body.take());
    about.insert("rawResponse".into(), received);
    about.insert("rawResponseCut".into(), cut.into());
    let (sent, cut) = text(tried.body.take());
    about.insert("transformedRequest".into(), sent);
    about.insert("transformedRequestCut".into(), cut.into());
    Value::Object(about)
}
