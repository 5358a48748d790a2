//! Images described for targets that can't see: what `use_image_fallthrough`
//! asks for.
//!
//! The client's request keeps its protocol and all its bytes but those of the
//! images, which words take the place of. They come from the configured model,
//! one internal request for each image, and are remembered by content. Whatever
//! goes wrong on the way, the request goes on as the client wrote it, with a
//! note. In strict mode nothing is described.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body_util::BodyExt as _;
use serde_json::json;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::failover::{self, Choice};
use super::plan::{self, Planner};
use super::quota;
use super::translation::{self, Source};
use super::{Ask, Refusal, Work, failure, wall_ms};
use crate::app::Core;
use crate::clock;
use crate::config::{Alias, Config, Key};
use crate::exchange::{Arrival, Exchange};
use crate::protocol::ir::Source as Image;
use crate::protocol::json::Tape;
use crate::protocol::notes::{Action, Notes};
use crate::protocol::pictures::{self, Blindness, Slot};
use crate::protocol::{Protocol, peek, splice};
use crate::routing::session::Sessions;
use crate::routing::{Asked, Candidate};
use crate::sight::{self, Description, Sighting};

/// The longest that all images of a request may take.
const LIMIT: Duration = Duration::from_secs(60);
/// Images of one request that are described at a time.
const AT_ONCE: usize = 4;
/// Most images of one request that are described anew; what was described before
/// does not count.
const MOST: usize = 64;
/// The longest answer of a describer that is read.
const ANSWER: usize = 1024 * 1024;
/// A body larger than this is searched for images by a thread of its own.
const LARGE: usize = 256 * 1024;
/// What is behind a URL may change: descriptions of it hold for an hour.
const URL_MS: i64 = 3_600_000;

const PROMPT: &str = "Describe this image for somebody who has to work with it and can't see it: \
                      what it shows, all text in it word for word, numbers, layout, and colours \
                      where they matter. Answer with the description alone.";

/// A request's forms without images, made when a candidate needs them.
pub(super) struct Sight<'a> {
    work: &'a Work,
    alias: &'a Alias,
    describer: Arc<str>,
    prompt: Arc<str>,
    forms: [OnceLock<Form>; 2],
    sources: [OnceLock<Source<'a>>; 2],
    planners: [OnceLock<Planner<'a>>; 2],
}

/// The request with words in the place of images, if it has any and they could
/// all be described.
#[derive(Default)]
struct Form {
    work: Option<Work>,
    notes: Notes,
}

/// How a candidate that can't see is asked.
pub(super) struct Worded<'a> {
    /// Plans requests without images; `None` when they go as they came.
    pub(super) planner: Option<&'a Planner<'a>>,
    /// What became of the images.
    pub(super) notes: &'a Notes,
}

impl<'a> Sight<'a> {
    /// `None` where images stay what they are.
    pub(super) fn of(
        exchange: &Exchange,
        work: &'a Work,
        alias: Option<&'a Alias>,
    ) -> Option<Box<Self>> {
        let alias = alias.filter(|alias| alias.describes_images)?;
        let vision = &exchange.config.vision;
        let describer = Arc::clone(vision.descriptor.as_ref()?);
        if work.is_count() || translation::is_strict(exchange, &work.headers) {
            return None;
        }
        Some(Box::new(Self {
            work,
            alias,
            describer,
            prompt: vision.prompt.clone().unwrap_or_else(|| PROMPT.into()),
            forms: Default::default(),
            sources: Default::default(),
            planners: Default::default(),
        }))
    }

    /// The form for that candidate; `None` when it sees.
    pub(super) async fn form(
        &'a self,
        core: &'a Arc<Core>,
        exchange: &Exchange,
        candidate: &Candidate,
    ) -> Option<Worded<'a>> {
        let blindness = self.blindness(candidate)?;
        let place = blindness as usize;
        let form = match self.forms[place].get() {
            Some(form) => form,
            None => {
                let form = self.describe(core, exchange, blindness).await;
                self.forms[place].get_or_init(|| form)
            }
        };
        let planner = form.work.as_ref().map(|work| {
            let keeps = exchange.config.store.responses;
            let source = self.sources[place].get_or_init(|| Source::told(work, self.work, keeps));
            let plan = || {
                let alias = Some(self.alias);
                Planner::new(work, alias, source, exchange, &core.app.learned)
            };
            self.planners[place].get_or_init(plan)
        });
        Some(Worded {
            planner,
            notes: &form.notes,
        })
    }

    /// What a candidate can't be shown, in the protocol that it would be asked in.
    fn blindness(&self, candidate: &Candidate) -> Option<Blindness> {
        let from = self.work.ask.protocol;
        let endpoint =
            plan::endpoint(candidate, from).or_else(|| translation::endpoint(candidate, from))?;
        let able = candidate.capabilities(endpoint.protocol)?;
        if !able.image_b64 {
            return Some(Blindness::Whole);
        }
        // Google's own files have URLs too.
        let urls = able.image_url || endpoint.protocol == Protocol::Gemini;
        (!urls).then_some(Blindness::Urls)
    }

    async fn describe(&self, core: &Arc<Core>, exchange: &Exchange, blindness: Blindness) -> Form {
        let Some((body, scenes)) = self.scenes(core, exchange, blindness).await else {
            return Form::default();
        };
        let mut notes = Notes::new();
        let words = self.words(core, exchange, &scenes);
        let words = tokio::time::timeout(LIMIT, words).await.ok().flatten();
        let work = words.and_then(|words| self.told(&body, &scenes, &words));
        match work {
            Some(_) => notes.warn(Action::Emulated, "images"),
            None => notes.warn(Action::Dropped, "image_descriptions"),
        }
        Form { work, notes }
    }

    /// The body and the images in it; `None` where there are none.
    async fn scenes(
        &self,
        core: &Arc<Core>,
        exchange: &Exchange,
        blindness: Blindness,
    ) -> Option<(Bytes, Vec<Scene>)> {
        let body = match (&self.work.chain, self.work.frames.as_slice()) {
            (Some(chain), frames) => chain.expanded(frames).ok()?,
            (None, [one]) => one.clone(),
            (None, many) => Bytes::from(many.concat()),
        };
        // All four protocols have the word where they have an image.
        memchr::memmem::find(&body, b"image")?;
        let search = Search {
            core: Arc::clone(core),
            body: body.clone(),
            protocol: self.work.ask.protocol,
            blindness,
            describer: Arc::clone(&self.describer),
            prompt: Arc::clone(&self.prompt),
            hour: exchange.created_ms().div_euclid(URL_MS),
        };
        let scenes = if body.len() > LARGE {
            tokio::task::spawn_blocking(move || search.scenes())
                .await
                .ok()?
        } else {
            search.scenes()
        };
        (!scenes.is_empty()).then_some((body, scenes))
    }

    /// What each image shows, in their order; `None` when one can't be told.
    async fn words(
        &self,
        core: &Arc<Core>,
        exchange: &Exchange,
        scenes: &[Scene],
    ) -> Option<Vec<Arc<str>>> {
        let unknown = scenes.iter().filter(|scene| scene.ask.is_some());
        let mut unknown = unknown.collect::<Vec<_>>().into_iter();
        if unknown.len() > MOST {
            tracing::warn!(
                images = unknown.len(),
                "too many images to describe at once"
            );
            return None;
        }
        let asker = Asker {
            core: Arc::clone(core),
            config: Arc::clone(&exchange.config),
            key: Arc::new(describers_key(exchange.key()?)),
            describer: Arc::clone(&self.describer),
            request: exchange.id(),
        };
        let mut asking = JoinSet::new();
        loop {
            while asking.len() < AT_ONCE
                && let Some(scene) = unknown.next()
            {
                let (asker, description) = (asker.clone(), Arc::clone(&scene.description));
                let ask = scene.ask.clone().unwrap_or_default();
                // Ends with this request at the latest, which owns the set.
                asking.spawn(asker.describe(description, ask));
            }
            match asking.join_next().await {
                None => break,
                Some(Ok(true)) => {}
                Some(_) => return None,
            }
        }
        let words = scenes.iter().map(|scene| scene.description.get().cloned());
        words.collect()
    }

    /// The request with those words in it.
    fn told(&self, body: &Bytes, scenes: &[Scene], words: &[Arc<str>]) -> Option<Work> {
        let patches = scenes.iter().zip(words).flat_map(|(scene, words)| {
            let words = format!("<image_description>\n{words}\n</image_description>");
            scene.slot.patches(&words)
        });
        let frames = splice::apply(std::slice::from_ref(body), patches.collect());
        let work = self.work;
        Some(Work {
            ask: work.ask.clone(),
            headers: work.headers.clone(),
            query: work.query.clone(),
            peeked: Some(peek::peek(&frames).ok()?),
            frames,
            marked: None,
            model: Arc::clone(&work.model),
            streamed: work.streamed,
            // The body holds it all.
            chain: None,
        })
    }
}

/// An image of the request.
struct Scene {
    slot: Slot,
    description: Description,
    /// What to send to get the description, if it is not known.
    ask: Option<Bytes>,
}

/// The search for images, which may take a while.
struct Search {
    core: Arc<Core>,
    body: Bytes,
    protocol: Protocol,
    blindness: Blindness,
    describer: Arc<str>,
    prompt: Arc<str>,
    hour: i64,
}

impl Search {
    fn scenes(&self) -> Vec<Scene> {
        let mut tape = Tape::new();
        // Whoever plans the request says what is wrong with it.
        let Ok(root) = tape.parse_bytes(&self.body) else {
            return Vec::new();
        };
        let pictures = pictures::find(self.protocol, root, self.blindness);
        let scenes = pictures.into_iter().filter_map(|picture| {
            let (content, url) = self.content(&picture.source)?;
            let sighting = Sighting::of(&self.describer, &self.prompt, &content);
            let description = self.core.app.descriptions.of(sighting);
            let ask = description.get().is_none().then(|| self.ask(&url));
            Some(Scene {
                slot: picture.slot,
                description,
                ask,
            })
        });
        scenes.collect()
    }

    /// What tells an image from others, and a URL to show it by.
    fn content(&self, image: &Image<'_>) -> Option<(Vec<u8>, String)> {
        match image {
            Image::Inline { mime, data } => {
                let data = data.plain();
                let url = format!("data:{mime};base64,{data}");
                Some((data.into_owned().into_bytes(), url))
            }
            Image::Url { url, .. } => {
                let url = url.to_plain_string();
                Some((format!("{} {url}", self.hour).into_bytes(), url))
            }
            Image::File { .. } | Image::Text(_) => None,
        }
    }

    fn ask(&self, url: &str) -> Bytes {
        let body = json!({ "model": *self.describer, "messages": [{ "role": "user", "content": [
            { "type": "text", "text": *self.prompt },
            { "type": "image_url", "image_url": { "url": url } },
        ] }] });
        Bytes::from(body.to_string())
    }
}

/// The describer may be any model; the providers that an image may go to are
/// those that the caller's key allows, and its quotas pay.
fn describers_key(key: &Key) -> Key {
    Key {
        quotas: key.quotas.clone(),
        allowed_providers: key.allowed_providers.clone(),
        excluded_providers: key.excluded_providers.clone(),
        strict: Some(false),
        ..Key::unlimited(&key.name, key.secret.clone())
    }
}

/// What internal requests of one client's request have in common.
#[derive(Clone)]
struct Asker {
    core: Arc<Core>,
    config: Arc<Config>,
    key: Arc<Key>,
    describer: Arc<str>,
    /// The client's request.
    request: Uuid,
}

impl Asker {
    /// Gets a description, if nobody else does so already. Says whether it is
    /// there. A type of its own: describing is a part of attempting, and
    /// attempting one of describing.
    fn describe(
        self,
        description: Description,
        ask: Bytes,
    ) -> Pin<Box<dyn Future<Output = bool> + Send>> {
        Box::pin(async move {
            let asked = description.get_or_try_init(|| self.ask(ask)).await;
            asked.is_ok()
        })
    }

    /// One request to the describer, with a row of its own.
    async fn ask(&self, body: Bytes) -> Result<Arc<str>, ()> {
        let core = &self.core;
        let wall_ms = wall_ms();
        let arrival = Arrival {
            id: core.request_id(wall_ms),
            protocol: Protocol::Chat,
            address: None,
            client_id: Some(format!("desc-{}", self.request).into()),
            wall_ms,
            now: clock::now(),
        };
        let config = Arc::clone(&self.config);
        let mut exchange = Exchange::new(Arc::clone(&core.books), config, arrival);
        exchange.internal(&self.key, "vision".into());
        exchange.asked(Arc::clone(&self.describer), false);
        match self.attempt(&mut exchange, body).await {
            Ok((answered, route)) => {
                let response = super::relay(exchange, answered, route);
                let limited = http_body_util::Limited::new(response.into_body(), ANSWER);
                let answer = limited.collect().await.map_err(drop)?.to_bytes();
                description_in(&answer).ok_or(())
            }
            Err(refusal) => {
                tracing::warn!(describer = %self.describer, "an image could not be described");
                drop(failure::settle(&mut exchange, &refusal));
                Err(())
            }
        }
    }

    async fn attempt(
        &self,
        exchange: &mut Exchange,
        body: Bytes,
    ) -> Result<(Box<super::Answered>, String), Refusal> {
        let switchboard = &self.core.app.switchboard;
        let asked = Asked {
            model: &self.describer,
            protocol: Protocol::Chat,
            now: switchboard.now(clock::now()),
            explores: true,
            native_first: false,
        };
        let mut dice = self.core.dice();
        let resolution = switchboard.resolve(&self.config, &self.key, asked, &mut dice)?;
        if let Some(alias) = &resolution.route.alias {
            super::check_kind(alias.kind, Protocol::Chat, &self.describer)?;
        }
        exchange.resolved(Arc::clone(&resolution.route.canonical));
        let choice = Choice {
            resolution,
            sessions: Sessions::default(),
            internal: true,
        };
        let work = self.work(body)?;
        quota::admit(&self.core, exchange, &work, &choice.resolution)?;
        failover::attempt_each(&self.core, exchange, &work, &choice).await
    }

    fn work(&self, body: Bytes) -> Result<Work, Refusal> {
        let frames = vec![body];
        Ok(Work {
            peeked: Some(peek::peek(&frames)?),
            ask: Ask {
                protocol: Protocol::Chat,
                path: None,
            },
            headers: HeaderMap::new(),
            query: None,
            frames,
            marked: None,
            model: Arc::clone(&self.describer),
            streamed: false,
            chain: None,
        })
    }
}

/// The text of a chat completion.
fn description_in(answer: &[u8]) -> Option<Arc<str>> {
    let mut tape = Tape::new();
    let root = tape.parse_bytes(answer).ok()?;
    let choice = root.get("choices")?.items().next()?;
    let content = choice.get("message")?.get("content")?;
    let text = match content.as_str() {
        Some(text) => text.to_plain_string(),
        None => content
            .items()
            .filter_map(|part| Some(part.get("text")?.as_str()?.to_plain_string()))
            .collect(),
    };
    sight::remembered(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_is_the_answers_text() {
        let answer = br#"{"choices":[{"message":{"content":" a \"dot\" "}}]}"#;
        assert_eq!(description_in(answer).as_deref(), Some("a \"dot\""));
        let parts = br#"{"choices":[{"message":{"content":[{"type":"text","text":"a "},{"type":"text","text":"dot"}]}}]}"#;
        assert_eq!(description_in(parts).as_deref(), Some("a dot"));
        for none in [
            &br#"{"choices":[]}"#[..],
            br#"{"choices":[{"message":{"content":""}}]}"#,
            b"x",
        ] {
            assert_eq!(description_in(none), None);
        }
    }
}
