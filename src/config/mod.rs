//! What `plexus.yaml` means once it has been checked.
//!
//! A [`Config`] is always valid: only the check can build one. It is
//! immutable; a request loads one snapshot and keeps it to its end.
//!
//! This folder must not know sockets or the store.

mod access;
mod adapter;
mod address;
mod alias;
mod check;
mod draft;
pub mod edit;
mod endpoint;
mod fault;
mod file;
mod fold;
mod json_schema;
mod key;
pub mod live;
mod provider;
mod quota;
mod recheck;
mod reference;
mod region;
mod schema;
mod seal;
pub mod secret;
mod settings;
mod shape;
mod tree;

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::header::{HeaderName, HeaderValue};
use http::uri::{Authority, Scheme};
use indexmap::IndexMap;
use serde_json::{Map, Value};

use crate::protocol::Protocol;
use crate::protocol::adapt::Chain;
use crate::protocol::translate::ChatReasoning;
pub use access::{lists, permits};
pub use check::{adopted, check, document, opened, store_path};
pub use draft::Draft;
pub use fault::{Fault, describe, nearest};
pub use json_schema::{json_schema_at, json_schemas};
pub use live::Live;
pub use seal::SealedFile;
pub use secret::Secret;

/// Whether the file has a section or a setting of that name at its top.
#[must_use]
pub fn knows(name: &str) -> bool {
    schema::FILE.field(name).is_some()
}

/// The configuration in force, as one immutable snapshot.
#[derive(Debug)]
pub struct Config {
    /// Counts the configurations taken up since start, from 1.
    pub revision: u64,
    /// The management credential (`ADMIN_KEY` wins over `adminKey`).
    pub admin_key: Secret,
    /// Listen address, TLS, limits.
    pub server: ServerSettings,
    /// The database.
    pub store: StoreSettings,
    /// Where catalogues of models come from.
    pub catalogue: CatalogueSettings,
    /// Log level and form.
    pub logging: LoggingSettings,
    /// Providers by id, in file order.
    pub providers: IndexMap<Arc<str>, Arc<Provider>>,
    /// Aliases by id, in file order (the file calls them `models`).
    pub aliases: IndexMap<Arc<str>, Arc<Alias>>,
    /// Keys by name, in file order.
    pub keys: IndexMap<Arc<str>, Arc<Key>>,
    /// When an attempt that failed may go on to the next target.
    pub failover: Failover,
    /// Time limit of one attempt, from sending to response headers.
    pub attempt_timeout: Duration,
    /// Limits on keys by name, in file order.
    pub user_quotas: IndexMap<Arc<str>, Arc<UserQuota>>,
    /// Names of the quotas of keys that have none of their own.
    pub default_quotas: Vec<String>,
    /// How long a target rests after a failure.
    pub cooldown: Cooldown,
    /// How often targets are measured that are not the best.
    pub exploration: Exploration,
    /// Who describes images for models that can't see.
    pub vision: Vision,
    /// Whether a translation that would lose something is refused.
    pub strict: bool,
    /// Whether requests that fail are captured.
    pub capture_on_error: bool,
    /// The file as it was written, as JSON in file order: `$env:` references
    /// unexpanded, both spellings of a name folded into one. The source of
    /// every management GET.
    pub document: Arc<Value>,
    /// One line for each thing that the file asks for and that does not work
    /// yet.
    pub warnings: Vec<String>,
    /// What [`Config::warnings`] are made from.
    pub(in crate::config) asked: Vec<check::Asked>,
    pub(in crate::config) alias_by_name: HashMap<Arc<str>, Arc<Alias>>,
    pub(in crate::config) key_by_digest: HashMap<[u8; 32], Arc<Key>>,
}

impl Config {
    /// Checks a text without an environment; paths are relative to the
    /// working directory.
    ///
    /// # Errors
    /// Everything that is wrong with it, at once.
    pub fn from_yaml(text: &str) -> Result<Self, Vec<Fault>> {
        check(text, &|_| None, Path::new("."))
    }

    /// The alias with that id or additional name; exact, ids first.
    #[must_use]
    pub fn alias(&self, name: &str) -> Option<&Arc<Alias>> {
        self.alias_by_name.get(name)
    }

    /// Every name that leads to an alias, ids and additional ones, in no order.
    pub fn alias_names(&self) -> impl Iterator<Item = &str> {
        self.alias_by_name.keys().map(|name| &**name)
    }

    /// The key whose secret has that SHA-256.
    #[must_use]
    pub fn key_by_digest(&self, digest: &[u8; 32]) -> Option<&Arc<Key>> {
        self.key_by_digest.get(digest)
    }

    /// Every name that leads to an alias, and the alias, in no order.
    pub fn named_aliases(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<Alias>)> {
        self.alias_by_name.iter()
    }

    /// The same with other entries.
    fn with(&self, named: check::Named) -> Self {
        Self {
            revision: self.revision,
            admin_key: self.admin_key.clone(),
            server: self.server.clone(),
            store: self.store.clone(),
            catalogue: self.catalogue.clone(),
            logging: self.logging.clone(),
            providers: named.providers,
            aliases: named.aliases.by_id,
            keys: named.keys.by_name,
            failover: self.failover.clone(),
            attempt_timeout: self.attempt_timeout,
            user_quotas: named.user_quotas,
            default_quotas: self.default_quotas.clone(),
            cooldown: self.cooldown,
            exploration: self.exploration,
            vision: self.vision.clone(),
            strict: self.strict,
            capture_on_error: self.capture_on_error,
            document: Arc::clone(&self.document),
            warnings: self.warnings.clone(),
            asked: self.asked.clone(),
            alias_by_name: named.aliases.by_name,
            key_by_digest: named.keys.by_digest,
        }
    }

    /// The provider with that id.
    #[must_use]
    pub fn provider(&self, id: &str) -> Option<&Arc<Provider>> {
        self.providers.get(id)
    }
}

/// The `server:` section with its defaults filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerSettings {
    /// Address to listen on.
    pub host: IpAddr,
    /// Port to listen on; 0 asks the system for one.
    pub port: u16,
    /// A Unix socket beside the port.
    pub unix_socket: Option<PathBuf>,
    /// Certificate, key and client CA; `None` is plain text.
    pub tls: Option<TlsSettings>,
    /// Whether HTTP/2 is offered.
    pub http2: bool,
    /// Peers whose forwarding headers are believed.
    pub trusted_proxies: Vec<ipnet::IpNet>,
    /// Origins allowed on inference endpoints; `*` is any.
    pub cors_origins: Vec<String>,
    /// Sizes, counts and times at the edge.
    pub limits: Limits,
    /// How long streams may go on after a stop was asked for.
    pub drain: Duration,
    /// Silence after which a committed stream gets a keep-alive.
    pub heartbeat: Duration,
}

/// Files of the TLS listener. Relative paths are taken from the folder of the
/// configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSettings {
    /// PEM certificate chain.
    pub cert: PathBuf,
    /// PEM private key.
    pub key: PathBuf,
    /// PEM certificates that client certificates must descend from.
    pub client_ca: Option<PathBuf>,
    /// Whether TLS 1.2 is refused.
    pub tls13_only: bool,
}

/// `server.limits`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Largest request body, in bytes.
    pub body: u64,
    /// Largest request head, in bytes.
    pub header_bytes: usize,
    /// Most header fields in a request.
    pub headers: usize,
    /// Most open client connections.
    pub connections: usize,
    /// Time for a request head to arrive.
    pub header_time: Duration,
    /// Longest pause inside a request body.
    pub body_idle: Duration,
    /// Longest pause between two requests of a connection.
    pub keep_alive: Duration,
    /// Most concurrent HTTP/2 streams of a connection.
    pub streams: u32,
}

/// The `store:` section. A retention of zero days keeps for ever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreSettings {
    /// The SQLite file.
    pub path: PathBuf,
    /// Days that usage rows are kept.
    pub usage_days: u32,
    /// Days that error rows are kept.
    pub error_days: u32,
    /// Most megabytes of the file; 0 is no limit.
    pub database_mb: u32,
    /// Days that debug captures are kept.
    pub debug_days: u32,
    /// Most megabytes of debug captures.
    pub debug_mb: u32,
    /// Days that MCP rows are kept.
    pub mcp_days: u32,
    /// Whether answers of the Responses API are kept for the client.
    pub responses: bool,
    /// Days that they are kept.
    pub response_days: u32,
}

/// The `catalogue:` section. A catalogue without an address is not fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogueSettings {
    /// Whether they are fetched by themselves.
    pub enabled: bool,
    /// How often.
    pub refresh: Duration,
    /// OpenRouter's list of models.
    pub open_router: Option<String>,
    /// The one of models.dev.
    pub models_dev: Option<String>,
    /// Charm's Catwalk.
    pub catwalk: Option<String>,
    /// Hugging Face, which is asked for one model at a time; without a slash at
    /// the end.
    pub hugging_face: Option<String>,
}

/// The `logging:` section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggingSettings {
    /// error, warn, info, debug or trace.
    pub level: String,
    /// Modules to log; empty is all.
    pub modules: Vec<String>,
    /// Whether lines are JSON.
    pub json: bool,
    /// Whether every request is captured from the start (`DEBUG=true`).
    pub capture: bool,
}

/// `failover:`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failover {
    /// Whether a second target is ever tried.
    pub enabled: bool,
    /// Statuses that move on to the next target; `None` is the default:
    /// everything but 2xx, 400, 413 and 422.
    pub retryable_status_codes: Option<Vec<u16>>,
    /// Case-insensitive substrings of a network error's kind.
    pub retryable_errors: Vec<String>,
    /// Most targets that one request may try.
    pub most_attempts: u32,
}

/// Who serves models.
#[derive(Debug)]
pub struct Provider {
    /// The key in `providers:`.
    pub id: Arc<str>,
    /// A name for people.
    pub display_name: Option<String>,
    /// Whether it may be used.
    pub enabled: bool,
    /// Where each protocol is spoken, in the file's order.
    pub endpoints: Vec<Endpoint>,
    /// The provider's own credential, `$env:` expanded.
    pub api_key: Option<Secret>,
    /// Extra request headers; they win over ours. Values are marked sensitive.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Merged into every request body, top level only.
    pub extra_body: Option<Map<String, Value>>,
    /// Changes that its bodies need.
    pub adapters: Chain,
    /// The listed models by name.
    pub models: IndexMap<Arc<str>, Arc<ProviderModel>>,
    /// `timeoutMs`: the attempt's time limit for this provider.
    pub attempt_timeout: Option<Duration>,
    /// Taken off the price of every model without a discount of its own,
    /// from 0 to 1.
    pub discount: Option<f64>,
    /// Whether tokens that it does not report are estimated.
    pub estimate_tokens: bool,
    /// Most requests in flight.
    pub max_concurrency: Option<u32>,
    /// Whether failures give its models no rest.
    pub disable_cooldown: bool,
    /// When its streams count as stalled.
    pub stall: Stall,
    /// Time for a connection to it to come about.
    pub connect_timeout: Option<Duration>,
}

impl Provider {
    /// Where that protocol is spoken, if it is.
    #[must_use]
    pub fn endpoint(&self, protocol: Protocol) -> Option<&Endpoint> {
        self.endpoints.iter().find(|e| e.protocol == protocol)
    }

    /// The version of Anthropic's API that the operator's header fields say, in
    /// place of whatever a client says.
    #[must_use]
    pub fn anthropic_version(&self) -> Option<&str> {
        let named = |(name, _): &&(HeaderName, HeaderValue)| name == "anthropic-version";
        self.headers.iter().find(named)?.1.to_str().ok()
    }
}

/// One base URL of a provider, taken apart once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// What is spoken there.
    pub protocol: Protocol,
    /// `http` or `https`.
    pub scheme: Scheme,
    /// Host and port.
    pub authority: Authority,
    /// The URL's path without a trailing slash; the protocol's own suffix is
    /// appended to it. For Gemini it has the version segment.
    pub path: String,
    /// Whether the file doesn't name this protocol here, but an endpoint it
    /// does name serves it too. Derived endpoints come last.
    pub derived: bool,
    /// The part of a request's head that is the same every time; whoever sends
    /// requests fills it at the first one.
    pub prepared: Prepared,
}

/// Header fields made once for an endpoint. Two are always equal: they follow
/// from what they belong to.
#[derive(Debug, Default)]
pub struct Prepared(pub OnceLock<http::HeaderMap>);

impl PartialEq for Prepared {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Prepared {}

impl Clone for Prepared {
    fn clone(&self) -> Self {
        Self::default()
    }
}

/// A model as a provider lists it.
#[derive(Debug, Default)]
pub struct ProviderModel {
    /// What kind of model it is.
    pub kind: ModelKind,
    /// Protocols to reach it by; empty is all of the provider's.
    pub access_via: Vec<Protocol>,
    /// Merged into request bodies after the provider's.
    pub extra_body: Option<Map<String, Value>>,
    /// Changes that its bodies need, the provider's own among them.
    pub adapters: Chain,
    /// What it can do, where the file knows better: the members of
    /// `capabilities`.
    pub capabilities: Option<Map<String, Value>>,
    /// What it costs, if the file says.
    pub pricing: Option<Pricing>,
    /// Whether the list has no more of it than its name.
    pub name_only: bool,
    /// Most requests in flight.
    pub max_concurrency: Option<u32>,
}

/// What a model costs, and what is taken off.
#[derive(Debug, Clone, PartialEq)]
pub struct Pricing {
    /// How the price is found.
    pub source: PriceSource,
    /// From 0 to 1; wins over the provider's.
    pub discount: Option<f64>,
}

/// Where a price comes from. Rates are US dollars per million tokens.
#[derive(Debug, Clone, PartialEq)]
pub enum PriceSource {
    /// The same rates for every request.
    Simple(Rates),
    /// Rates by the number of input tokens outside the cache; the first range
    /// that holds it applies to the whole request.
    Defined(Vec<PriceRange>),
    /// A price per request, in US dollars.
    PerRequest(f64),
    /// OpenRouter's catalogue, under that name.
    OpenRouter(String),
}

/// US dollars per million tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Rates {
    /// Input outside the cache.
    pub input: f64,
    /// Output.
    pub output: f64,
    /// Input read from the cache; free if it is not told.
    pub cached: Option<f64>,
    /// Input written to the cache; free if it is not told.
    pub cache_write: Option<f64>,
    /// Input written to the cache for an hour or longer; as `cache_write` if it
    /// is not told.
    pub cache_write_long: Option<f64>,
    /// Reasoning; as output if it is not told.
    pub reasoning: Option<f64>,
    /// Sound in the input; as input if it is not told.
    pub audio_input: Option<f64>,
    /// Sound in the output; as output if it is not told.
    pub audio_output: Option<f64>,
    /// Pictures in the input; as input if it is not told.
    pub image_input: Option<f64>,
    /// Pictures in the output; as output if it is not told.
    pub image_output: Option<f64>,
}

/// Rates for a range of input sizes, both bounds included.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PriceRange {
    /// Fewest input tokens.
    pub lower: f64,
    /// Most input tokens; may be infinite.
    pub upper: f64,
    /// What they cost.
    pub rates: Rates,
}

/// `type` of an alias or a provider's model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ModelKind {
    /// Text generation; also the file's `text`.
    #[default]
    Chat,
    /// Embeddings.
    Embeddings,
    /// Speech to text.
    Transcriptions,
    /// Text to speech.
    Speech,
    /// Image generation and editing.
    Image,
}

/// What a client asks for by name.
#[derive(Debug)]
pub struct Alias {
    /// The key in `models:`.
    pub id: Arc<str>,
    /// Other names for the same thing.
    pub additional: Vec<Arc<str>>,
    /// Which endpoints it serves.
    pub kind: ModelKind,
    /// `priority: api_match`: prefer targets that speak the client's protocol.
    pub api_match: bool,
    /// Tried in order.
    pub groups: Vec<TargetGroup>,
    /// Merged into request bodies after provider and model.
    pub extra_body: Option<Map<String, Value>>,
    /// The APIs that suit it best, for the list of models.
    pub preferred_api: Vec<String>,
    /// `metadata`, as it was written.
    pub metadata: Option<Value>,
    /// Whether a conversation stays with the target that answered it.
    pub sticky: bool,
    /// Whether images are described for targets that can't see.
    pub describes_images: bool,
    /// Whether requests that can't fit a target's context are not sent to it.
    pub enforces_limits: bool,
}

/// `vision_fallthrough`.
#[derive(Debug, Default, Clone)]
pub struct Vision {
    /// The model that describes, as a client would name it.
    pub descriptor: Option<Arc<str>>,
    /// What it is asked, if not the usual.
    pub prompt: Option<Arc<str>>,
}

/// Targets that belong together, and how one of them is chosen.
#[derive(Debug)]
pub struct TargetGroup {
    /// Its name, usable as `direct/<alias>/<group>`.
    pub name: Arc<str>,
    /// How targets are ordered.
    pub selector: Selector,
    /// The members.
    pub targets: Vec<Target>,
}

/// How a group orders its targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the file's own words")]
pub enum Selector {
    Random,
    InOrder,
    Cost,
    Latency,
    Performance,
    E2ePerformance,
    Usage,
    Quota,
}

/// A member of a group.
#[derive(Debug)]
pub enum Target {
    /// A provider and a model of it.
    Model {
        /// The provider.
        provider: Arc<str>,
        /// The model's name at the provider.
        model: Arc<str>,
        /// Whether it may be used.
        enabled: bool,
        /// Its share of a random choice.
        weight: f64,
    },
    /// All targets of another alias.
    Alias {
        /// That alias's id.
        alias: Arc<str>,
        /// Whether it may be used.
        enabled: bool,
    },
}

/// A client's credential and what it may do.
#[derive(Debug)]
pub struct Key {
    /// The key in `keys:`; rows carry this name, never the secret.
    pub name: Arc<str>,
    /// The credential, `$env:` expanded.
    pub secret: Secret,
    /// For people.
    pub comment: Option<String>,
    /// Model names as the client sends them, or patterns; empty is any.
    pub allowed_models: Vec<String>,
    /// Names of models, aliases and targets that are refused; wins over
    /// `allowed_models`.
    pub excluded_models: Vec<String>,
    /// Providers it may reach; empty is any.
    pub allowed_providers: Vec<String>,
    /// Providers it may not reach.
    pub excluded_providers: Vec<String>,
    /// Client addresses it may come from; empty is any.
    pub allowed_ips: Vec<ipnet::IpNet>,
    /// Milliseconds since the epoch after which it is refused.
    pub expires_at: Option<i64>,
    /// Milliseconds since the epoch at which it was switched off.
    pub disabled_at: Option<i64>,
    /// Names of its quotas.
    pub quotas: Vec<String>,
    /// Whether it may use the raw proxy.
    pub allow_raw_passthrough: bool,
    /// Whether a translation that would lose something is refused; `None`
    /// follows the file's setting.
    pub strict: Option<bool>,
    /// Where translated answers of Chat Completions have their reasoning.
    pub chat_reasoning: ChatReasoning,
    /// Whether translated answers of Responses have their reasoning as content, not
    /// as a summary.
    pub reasoning_as_content: bool,
    /// Most requests in flight.
    pub max_concurrency: Option<u32>,
}

impl Key {
    /// A key of the gateway's own, that may use everything.
    #[must_use]
    pub fn unlimited(name: &str, secret: Secret) -> Self {
        Self {
            name: name.into(),
            secret,
            comment: None,
            allowed_models: Vec::new(),
            excluded_models: Vec::new(),
            allowed_providers: Vec::new(),
            excluded_providers: Vec::new(),
            allowed_ips: Vec::new(),
            expires_at: None,
            disabled_at: None,
            quotas: Vec::new(),
            allow_raw_passthrough: false,
            strict: None,
            chat_reasoning: ChatReasoning::default(),
            reasoning_as_content: false,
            max_concurrency: None,
        }
    }
}

/// A limit on keys: so much in so long.
#[derive(Debug, Clone, PartialEq)]
pub struct UserQuota {
    /// The key in `user_quotas:`.
    pub name: Arc<str>,
    /// When it starts anew.
    pub window: QuotaWindow,
    /// What is counted.
    pub counts: QuotaCounts,
    /// How much of it; US dollars for cost.
    pub limit: f64,
    /// Upstream models it counts; empty is all.
    pub allowed_models: Vec<String>,
    /// Upstream models it doesn't count.
    pub excluded_models: Vec<String>,
    /// Providers it counts; empty is all.
    pub allowed_providers: Vec<String>,
    /// Providers it doesn't count.
    pub excluded_providers: Vec<String>,
    /// Whether all its keys draw from one bucket.
    pub shared: bool,
    /// The used part from which answers carry a warning.
    pub warn_at: Option<f64>,
}

/// When a quota starts anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuotaWindow {
    /// Continuously, over this time.
    Rolling(Duration),
    /// At midnight UTC.
    Daily,
    /// On Monday at midnight UTC.
    Weekly,
    /// On the first of the month at midnight UTC.
    Monthly,
}

/// What a quota counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuotaCounts {
    /// Requests.
    Requests,
    /// Tokens of all kinds.
    Tokens,
    /// US dollars.
    Cost,
}

impl QuotaCounts {
    /// The word in the file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Tokens => "tokens",
            Self::Cost => "cost",
        }
    }
}

/// When a stream counts as stalled: `stall:`, with the provider's own values
/// over it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stall {
    /// Time for the first output; `None` is no limit but the attempt's.
    pub first: Option<Duration>,
    /// How much output has to come in it.
    pub first_bytes: usize,
    /// How much has to come later; `None` is anything.
    pub flow: Option<Flow>,
    /// Whether a stall gives the target a rest.
    pub cooldown: bool,
}

/// How much a stream has to bring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// Bytes of output in a second, on average.
    pub bytes_per_second: u32,
    /// The time over which the average is taken.
    pub window: Duration,
    /// The time after the first output in which it doesn't matter.
    pub grace: Duration,
}

/// How often targets are measured that are not the best.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Exploration {
    /// The part of requests for the selector latency, from 0 to 1.
    pub latency: f64,
    /// The same for performance.
    pub performance: f64,
    /// The same for `e2e_performance`.
    pub e2e_performance: f64,
    /// Without clients' requests; then these are never used for it.
    pub background: Option<Background>,
}

/// `backgroundExploration:`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Background {
    /// How old a measurement may become.
    pub staleness: Duration,
    /// Most targets that are looked at at once.
    pub workers: u32,
}

/// `cooldown:`: the n-th failure in a row rests `initial` times 2 to the n,
/// at most `longest`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cooldown {
    /// After the first failure.
    pub initial: Duration,
    /// At most.
    pub longest: Duration,
}
