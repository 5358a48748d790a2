//! Who serves models: `providers:`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexMap;

use super::adapter::{self, Level};
use super::check::{Check, Seen, count};
use super::endpoint::{self, Base};
use super::settings::{connect_timeout, flag, stall_of};
use super::tree::{Entry, Node, Yaml};
use super::{
    Endpoint, ModelKind, PriceRange, PriceSource, Pricing, Provider, ProviderModel, Rates,
};
use crate::protocol::Protocol;
use crate::protocol::adapt::Chain;

/// Providers by id, in file order.
pub(in crate::config) type Providers = IndexMap<Arc<str>, Arc<Provider>>;

/// Reads `providers:`.
pub(in crate::config) fn read(check: &mut Check<'_>, root: &Node) -> Providers {
    let mut providers = Providers::new();
    let mut checkers = HashMap::new();
    for entry in root.get("providers").map_or(&[][..], Node::entries) {
        let provider = one(check, entry, root, &mut checkers);
        // Kept even when faulty, so that references to it are not faults too.
        providers.insert(provider.id.clone(), Arc::new(provider));
    }
    providers
}

/// Reads `providers:` where only these may have changed, and the others stand as
/// they are; `root` has no others, but all that providers go by. `checkers` are
/// those of the others.
pub(in crate::config) fn reread(
    check: &mut Check<'_>,
    root: &Node,
    mut providers: Providers,
    touched: &[String],
    mut checkers: Seen<String>,
) -> Providers {
    let entries = root.get("providers").map_or(&[][..], Node::entries);
    for id in touched {
        if !entries.iter().any(|entry| entry.key == *id) {
            providers.shift_remove(id.as_str());
        }
    }
    for entry in entries {
        let provider = one(check, entry, root, &mut checkers);
        providers.insert(provider.id.clone(), Arc::new(provider));
    }
    providers
}

fn one(check: &mut Check<'_>, entry: &Entry, root: &Node, checkers: &mut Seen<String>) -> Provider {
    check.within("providers", |check| {
        check.within(&entry.key, |check| {
            quota_checker(check, &entry.key, &entry.value, checkers);
            provider(check, &entry.key, &entry.value, root)
        })
    })
}

fn provider(check: &mut Check<'_>, id: &str, node: &Node, root: &Node) -> Provider {
    let adapters = Chain::default().with(adapter::entries(check, node, Level::Provider));
    let models = models(check, node, &adapters);
    let endpoints = endpoints(check, node, &models);
    credentials(check, node);
    if let Some(raw) = node.get("raw_passthrough") {
        check.within("raw_passthrough", |check| check.references(raw));
    }
    let milliseconds = node.get("timeoutMs").and_then(Node::whole);
    Provider {
        id: id.into(),
        display_name: node
            .get("display_name")
            .and_then(Node::text)
            .map(str::to_owned),
        enabled: flag(node, "enabled", true),
        endpoints,
        api_key: node
            .get("api_key")
            .and_then(|key| check.within("api_key", |check| check.secret(key))),
        headers: node.get("headers").map_or_else(Vec::new, |all| {
            check.within("headers", |check| check.headers(all))
        }),
        extra_body: node.get("extraBody").map(Node::to_json_map),
        adapters,
        models,
        attempt_timeout: milliseconds.map(Duration::from_millis),
        discount: node.get("discount").and_then(Node::number),
        estimate_tokens: flag(node, "estimateTokens", false),
        max_concurrency: count(node, "maxConcurrency"),
        disable_cooldown: flag(node, "disable_cooldown", false),
        stall: stall_of(root, node),
        connect_timeout: count(node, "connectTimeoutMs")
            .map(Duration::from_millis)
            .or_else(|| connect_timeout(root)),
    }
}

/// A provider needs a way to say who we are: a key (an empty one says that it
/// asks for none), headers, or OAuth with a provider and an account.
fn credentials(check: &mut Check<'_>, node: &Node) {
    let oauth = is_oauth(node);
    let missing: &[&str] = if oauth {
        &["oauth_provider", "oauth_account"]
    } else {
        &["api_key"]
    };
    for field in missing.iter().filter(|field| node.get(field).is_none()) {
        let message = if oauth {
            format!("\"{field}\" is missing; oauth:// wants oauth_provider and oauth_account")
        } else if node
            .get("headers")
            .is_some_and(|all| !all.entries().is_empty())
        {
            continue;
        } else {
            "\"api_key\" is missing; a key is wanted, or \"\" for a provider that asks for none, \
             or oauth:// as api_base_url"
                .to_owned()
        };
        check.fault(node.place, message);
    }
    if oauth {
        check.within("api_base_url", |check| check.asks("OAuth providers"));
    }
}

fn is_oauth(node: &Node) -> bool {
    let url = node.get("api_base_url").and_then(Node::text);
    url.is_some_and(|url| url.trim().starts_with("oauth://"))
}

fn endpoints(
    check: &mut Check<'_>,
    node: &Node,
    models: &IndexMap<Arc<str>, Arc<ProviderModel>>,
) -> Vec<Endpoint> {
    let Some(urls) = node.get("api_base_url").filter(|_| !is_oauth(node)) else {
        return Vec::new();
    };
    let spoken = spoken(node);
    let mut written: Vec<(Protocol, Base)> = Vec::new();
    let mut fallback = None;
    check.within("api_base_url", |check| match &urls.value {
        Yaml::Text(url) => {
            let Some(base) = base(check, urls) else {
                return;
            };
            let spoken = if spoken.is_empty() {
                vec![endpoint::spoken_at(url)]
            } else {
                spoken
            };
            written.extend(spoken.into_iter().map(|protocol| (protocol, base.clone())));
        }
        Yaml::Map(entries) => {
            let filled = |node: &Node| node.text().is_some_and(|url| !url.trim().is_empty());
            if !entries.iter().any(|entry| filled(&entry.value)) {
                check.fault(urls.place, "no URL here; at least one is wanted");
            }
            for entry in entries.iter().filter(|entry| filled(&entry.value)) {
                let found = check.within(&entry.key, |check| base(check, &entry.value));
                match (protocol(&entry.key), found) {
                    (Some(protocol), Some(base)) => written.push((protocol, base)),
                    (None, Some(base)) if entry.key == "default" => {
                        let url = entry.value.text().unwrap_or_default();
                        let spoken = spoken.clone();
                        let guess = vec![endpoint::spoken_at(url)];
                        fallback = Some((base, if spoken.is_empty() { guess } else { spoken }));
                    }
                    _ => {}
                }
            }
        }
        _ => {}
    });
    if let Some((base, spoken)) = &fallback {
        written.extend(spoken.iter().map(|protocol| (*protocol, base.clone())));
    }
    let asked: Vec<Protocol> = models.values().flat_map(|m| m.access_via.clone()).collect();
    endpoint::endpoints(&written, fallback.as_ref().map(|(base, _)| base), &asked)
}

fn base(check: &mut Check<'_>, node: &Node) -> Option<Base> {
    match endpoint::base(node.text()?) {
        Ok(base) => Some(base),
        Err(message) => {
            check.fault(node.place, message);
            None
        }
    }
}

/// What older files say in `type`: a word or a list of words.
fn spoken(node: &Node) -> Vec<Protocol> {
    let written = node.get("type");
    let one = written.and_then(Node::text);
    let many = written
        .map_or(&[][..], Node::items)
        .iter()
        .filter_map(Node::text);
    one.into_iter().chain(many).filter_map(protocol).collect()
}

/// The protocol a word stands for, makers' names included.
fn protocol(word: &str) -> Option<Protocol> {
    match word {
        "openai" => Some(Protocol::Chat),
        "anthropic" => Some(Protocol::Messages),
        "google" => Some(Protocol::Gemini),
        "image" => Some(Protocol::Images),
        // A way of speaking Responses, at the same place.
        "responses:lite" => Some(Protocol::Responses),
        _ => Protocol::from_name(word),
    }
}

fn models(
    check: &mut Check<'_>,
    node: &Node,
    inherited: &Chain,
) -> IndexMap<Arc<str>, Arc<ProviderModel>> {
    let mut models: IndexMap<Arc<str>, Arc<ProviderModel>> = IndexMap::new();
    let Some(written) = node.get("models") else {
        return models;
    };
    check.within("models", |check| {
        for (i, item) in written.items().iter().enumerate() {
            let Some(name) = item.text() else { continue };
            let plain = ProviderModel {
                adapters: inherited.clone(),
                name_only: true,
                ..ProviderModel::default()
            };
            if models.insert(name.into(), Arc::new(plain)).is_some() {
                let message = format!("the model \"{name}\" is listed twice");
                check.within(&i.to_string(), |check| check.fault(item.place, message));
            }
        }
        for entry in written.entries() {
            let model = check.within(&entry.key, |check| model(check, &entry.value, inherited));
            models.insert(entry.key.as_str().into(), Arc::new(model));
        }
    });
    models
}

fn model(check: &mut Check<'_>, node: &Node, inherited: &Chain) -> ProviderModel {
    let via = node.get("access_via").map_or(&[][..], Node::items);
    ProviderModel {
        kind: kind(node),
        access_via: via
            .iter()
            .filter_map(Node::text)
            .filter_map(protocol)
            .collect(),
        extra_body: node.get("extraBody").map(Node::to_json_map),
        adapters: inherited.with(adapter::entries(check, node, Level::Model)),
        capabilities: node.get("capabilities").map(Node::to_json_map),
        pricing: node
            .get("pricing")
            .and_then(|pricing| check.within("pricing", |check| self::pricing(check, pricing))),
        name_only: false,
        max_concurrency: count(node, "maxConcurrency"),
    }
}

/// `type` of an alias or a model.
pub(in crate::config) fn kind(node: &Node) -> ModelKind {
    match node.get("type").and_then(Node::text) {
        Some("embeddings") => ModelKind::Embeddings,
        Some("transcriptions") => ModelKind::Transcriptions,
        Some("speech") => ModelKind::Speech,
        Some("image") => ModelKind::Image,
        _ => ModelKind::Chat,
    }
}

fn pricing(check: &mut Check<'_>, node: &Node) -> Option<Pricing> {
    let number = |field| node.get(field).and_then(Node::number);
    let source = match node.get("source")?.text()? {
        "simple" => PriceSource::Simple(rates(node, "")),
        "defined" => PriceSource::Defined(price_ranges(check, node.get("range")?)),
        "per_request" => PriceSource::PerRequest(number("amount")?),
        "openrouter" => PriceSource::OpenRouter(node.get("slug")?.text()?.to_owned()),
        _ => return None,
    };
    let discount = number("discount");
    Some(Pricing { source, discount })
}

fn price_ranges(check: &mut Check<'_>, node: &Node) -> Vec<PriceRange> {
    let mut ranges = Vec::new();
    if node.items().is_empty() {
        check.within("range", |check| {
            check.fault(node.place, "no range; at least one is wanted")
        });
    }
    for (i, item) in node.items().iter().enumerate() {
        let range = PriceRange {
            lower: item
                .get("lower_bound")
                .and_then(Node::number)
                .unwrap_or(0.0),
            upper: item
                .get("upper_bound")
                .and_then(Node::number)
                .unwrap_or(f64::INFINITY),
            rates: rates(item, "_per_m"),
        };
        if range.lower > range.upper {
            let message = format!(
                "lower_bound {} is above upper_bound {}; at most the same is wanted",
                range.lower, range.upper
            );
            check.within("range", |check| {
                check.within(&i.to_string(), |check| check.fault(item.place, message));
            });
        }
        ranges.push(range);
    }
    ranges
}

/// The rates of a price, whose names all end in `suffix`.
fn rates(node: &Node, suffix: &str) -> Rates {
    let rate = |name: &str| node.get(&format!("{name}{suffix}")).and_then(Node::number);
    Rates {
        input: rate("input").unwrap_or(0.0),
        output: rate("output").unwrap_or(0.0),
        cached: rate("cached"),
        cache_write: rate("cache_write"),
        cache_write_long: rate("cache_write_1h"),
        reasoning: rate("reasoning"),
        audio_input: rate("audio_input"),
        audio_output: rate("audio_output"),
        image_input: rate("image_input"),
        image_output: rate("image_output"),
    }
}

/// The id of a quota checker, its own or the provider's, must be its alone.
fn quota_checker(check: &mut Check<'_>, provider: &str, node: &Node, seen: &mut Seen<String>) {
    let Some(checker) = node
        .get("quota_checker")
        .filter(|node| !node.entries().is_empty())
    else {
        return;
    };
    check.within("quota_checker", |check| {
        let own = checker.get("id").filter(|id| id.text().is_some());
        let id = own.and_then(Node::text).unwrap_or(provider);
        if let Some(other) = seen.insert(id.to_owned(), provider.to_owned()) {
            let place = own.unwrap_or(checker).place;
            let message =
                format!("the provider \"{other}\" has a quota checker called \"{id}\" too");
            check.fault(place, message);
        }
        if let Some(options) = checker.get("options") {
            check.within("options", |check| check.references(options));
        }
    });
}
