//! Every endpoint in one table: method, pattern, who may call it, handler.
//!
//! The table is what serves, what 404 and 405 are made from, and what the tests
//! walk: access stands beside the path and is checked here, before any handler.

pub mod openapi;

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;

use crate::app::Core;
use crate::auth;
use crate::body::{Body, json};
use crate::inference::kept::{self, Kept};
use crate::inference::metadata::{self, Metadata};
use crate::inference::{self, Ask, PathAsk, models};
use crate::management::{self, Call, settings};
use crate::protocol::Protocol;
use crate::router::{Match, Params, Router};
use crate::upstream::COUNT;

/// The other end of a connection.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    /// Its address; none on a Unix socket.
    pub address: Option<IpAddr>,
    /// Whether it came over TLS.
    pub secure: bool,
}

/// Who may call an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Anybody.
    Public,
    /// Who holds an inference key; checked where the protocol's error can be made.
    Inference,
    /// Who holds the admin key.
    Admin,
    /// Who holds the admin key, or an inference key for what belongs to it.
    Principal,
}

/// What serves an endpoint.
#[derive(Clone, Copy)]
pub enum Handler {
    /// An inference protocol; the text is the action that the path implies.
    Inference(Protocol, &'static str),
    /// Gemini's `models/{model}:{action}`.
    Gemini,
    /// The list of models, or one.
    Models,
    /// What the catalogues say.
    Metadata(Metadata),
    /// An answer of the Responses API that was kept.
    Kept(Kept),
    /// A fixed text.
    Text(&'static str, &'static str),
    /// What all of this is, for programs.
    Document,
    /// The management API.
    Manage(management::Handler),
}

impl std::fmt::Debug for Handler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Inference(..) => "Inference",
            Self::Gemini => "Gemini",
            Self::Models => "Models",
            Self::Metadata(_) => "Metadata",
            Self::Kept(_) => "Kept",
            Self::Text(..) => "Text",
            Self::Document => "Document",
            Self::Manage(_) => "Manage",
        })
    }
}

/// A row of the table.
#[derive(Debug, Clone)]
pub struct Route {
    /// The method.
    pub method: Method,
    /// Literals, `{one}` segment, `{rest..}`.
    pub pattern: &'static str,
    /// Who may call it.
    pub access: Access,
    /// What serves it.
    pub handler: Handler,
}

const fn route(method: Method, pattern: &'static str, access: Access, handler: Handler) -> Route {
    Route {
        method,
        pattern,
        access,
        handler,
    }
}

const fn inference(pattern: &'static str, protocol: Protocol, action: &'static str) -> Route {
    route(
        Method::POST,
        pattern,
        Access::Inference,
        Handler::Inference(protocol, action),
    )
}

const fn kept(method: Method, pattern: &'static str, what: Kept) -> Route {
    route(method, pattern, Access::Inference, Handler::Kept(what))
}

const fn metadata(pattern: &'static str, what: Metadata) -> Route {
    route(
        Method::GET,
        pattern,
        Access::Public,
        Handler::Metadata(what),
    )
}

const fn admin(method: Method, pattern: &'static str, handler: management::Handler) -> Route {
    route(method, pattern, Access::Admin, Handler::Manage(handler))
}

const fn principal(method: Method, pattern: &'static str, handler: management::Handler) -> Route {
    route(method, pattern, Access::Principal, Handler::Manage(handler))
}

/// All endpoints.
pub static ROUTES: &[Route] = &[
    route(
        Method::GET,
        "/health",
        Access::Public,
        Handler::Text("text/plain; charset=utf-8", "OK"),
    ),
    route(
        Method::GET,
        "/healthz",
        Access::Public,
        Handler::Text("application/json; charset=utf-8", "{\"ok\":true}"),
    ),
    inference("/v1/chat/completions", Protocol::Chat, ""),
    inference("/v1/messages", Protocol::Messages, ""),
    inference("/v1/responses", Protocol::Responses, ""),
    inference("/v1/responses/compact", Protocol::Responses, "compact"),
    inference("/v1/responses/input_tokens", Protocol::Responses, COUNT),
    inference("/v1/messages/count_tokens", Protocol::Messages, COUNT),
    kept(Method::GET, "/v1/responses/{id}", Kept::Get),
    kept(Method::DELETE, "/v1/responses/{id}", Kept::Delete),
    kept(Method::GET, "/v1/responses/{id}/input_items", Kept::Items),
    kept(Method::POST, "/v1/responses/{id}/cancel", Kept::Cancel),
    inference("/v1/codex/responses", Protocol::Responses, ""),
    inference("/v1/completions", Protocol::Completions, ""),
    inference("/completions", Protocol::Completions, ""),
    inference("/v1/embeddings", Protocol::Embeddings, ""),
    inference("/v1/audio/speech", Protocol::Speech, ""),
    inference("/v1/audio/transcriptions", Protocol::Transcriptions, ""),
    inference("/v1/images/generations", Protocol::Images, "generations"),
    inference("/v1/images/edits", Protocol::Images, "edits"),
    route(
        Method::POST,
        "/v1beta/models/{model..}",
        Access::Inference,
        Handler::Gemini,
    ),
    route(
        Method::POST,
        "/v1alpha/models/{model..}",
        Access::Inference,
        Handler::Gemini,
    ),
    route(
        Method::POST,
        "/v1/models/{model..}",
        Access::Inference,
        Handler::Gemini,
    ),
    route(Method::GET, "/v1/models", Access::Public, Handler::Models),
    route(
        Method::GET,
        "/v1/models/{model..}",
        Access::Public,
        Handler::Models,
    ),
    route(
        Method::GET,
        "/v1beta/models",
        Access::Public,
        Handler::Models,
    ),
    route(
        Method::GET,
        "/v1beta/models/{model..}",
        Access::Public,
        Handler::Models,
    ),
    route(
        Method::GET,
        "/v1alpha/models",
        Access::Public,
        Handler::Models,
    ),
    route(
        Method::GET,
        "/v1alpha/models/{model..}",
        Access::Public,
        Handler::Models,
    ),
    metadata("/v1/metadata/search", Metadata::Search),
    metadata("/v1/metadata/lookup", Metadata::Lookup),
    metadata("/v1/openrouter/models", Metadata::OpenRouter),
    admin(
        Method::POST,
        "/v0/management/models/metadata/refresh",
        management::metadata::refresh,
    ),
    admin(
        Method::POST,
        "/v0/management/models/metadata/resolve",
        management::metadata::resolve,
    ),
    admin(
        Method::GET,
        "/v0/management/models/huggingface/{slug..}",
        management::huggingface::get,
    ),
    admin(
        Method::GET,
        "/v0/management/pi/providers",
        management::metadata::makers,
    ),
    admin(
        Method::GET,
        "/v0/management/pi/models",
        management::metadata::models,
    ),
    route(
        Method::GET,
        "/.well-known/plexus/openapi.json",
        Access::Public,
        Handler::Document,
    ),
    principal(Method::GET, "/v0/openapi.json", openapi::managed),
    principal(
        Method::GET,
        "/v0/management/auth/verify",
        management::auth::verify,
    ),
    admin(
        Method::GET,
        "/v0/management/providers",
        management::providers::list,
    ),
    admin(
        Method::GET,
        "/v0/management/providers/{slug..}",
        management::providers::get,
    ),
    admin(
        Method::PUT,
        "/v0/management/providers/{slug..}",
        management::providers::put,
    ),
    admin(
        Method::PATCH,
        "/v0/management/providers/{slug..}",
        management::providers::patch,
    ),
    admin(
        Method::DELETE,
        "/v0/management/providers/{slug..}",
        management::providers::delete,
    ),
    admin(
        Method::POST,
        "/v0/management/providers/fetch-models",
        management::fetch_models::fetch_models,
    ),
    admin(Method::POST, "/v0/management/test", management::trial::test),
    admin(
        Method::GET,
        "/v0/management/aliases",
        management::aliases::list,
    ),
    admin(
        Method::GET,
        "/v0/management/aliases/{slug..}",
        management::aliases::get,
    ),
    admin(
        Method::PUT,
        "/v0/management/aliases/{slug..}",
        management::aliases::put,
    ),
    admin(
        Method::PATCH,
        "/v0/management/aliases/{slug..}",
        management::aliases::patch,
    ),
    admin(
        Method::DELETE,
        "/v0/management/aliases/{slug..}",
        management::aliases::delete,
    ),
    admin(
        Method::DELETE,
        "/v0/management/models",
        management::aliases::delete_all,
    ),
    admin(
        Method::DELETE,
        "/v0/management/models/{slug..}",
        management::aliases::delete,
    ),
    admin(Method::GET, "/v0/management/keys", management::keys::list),
    admin(
        Method::GET,
        "/v0/management/keys/{slug..}",
        management::keys::get,
    ),
    admin(
        Method::PUT,
        "/v0/management/keys/{slug..}",
        management::keys::put,
    ),
    admin(
        Method::PATCH,
        "/v0/management/keys/{slug..}",
        management::keys::patch,
    ),
    admin(
        Method::DELETE,
        "/v0/management/keys/{slug..}",
        management::keys::delete,
    ),
    admin(
        Method::POST,
        "/v0/management/keys/{slug..}/disable",
        management::keys::disable,
    ),
    admin(
        Method::GET,
        "/v0/management/user-quotas",
        management::user_quotas::list,
    ),
    admin(
        Method::GET,
        "/v0/management/user-quotas/{slug}",
        management::user_quotas::get,
    ),
    admin(
        Method::PUT,
        "/v0/management/user-quotas/{slug}",
        management::user_quotas::put,
    ),
    admin(
        Method::PATCH,
        "/v0/management/user-quotas/{slug}",
        management::user_quotas::patch,
    ),
    admin(
        Method::DELETE,
        "/v0/management/user-quotas/{slug}",
        management::user_quotas::delete,
    ),
    admin(
        Method::GET,
        "/v0/management/quota/status/{slug..}",
        management::quota::status,
    ),
    admin(
        Method::POST,
        "/v0/management/quota/clear",
        management::quota::clear,
    ),
    admin(
        Method::POST,
        "/v0/management/quota/recompute",
        management::quota::recompute,
    ),
    principal(Method::GET, "/v0/management/self/me", management::own::me),
    principal(
        Method::POST,
        "/v0/management/self/rotate",
        management::own::rotate,
    ),
    principal(
        Method::PATCH,
        "/v0/management/self/comment",
        management::own::comment,
    ),
    principal(
        Method::GET,
        "/v0/management/self/quota",
        management::own::quota,
    ),
    admin(
        Method::GET,
        "/v0/management/config",
        management::config::get,
    ),
    admin(
        Method::POST,
        "/v0/management/config",
        management::config::replace,
    ),
    admin(
        Method::PUT,
        "/v0/management/config",
        management::config::replace,
    ),
    admin(
        Method::GET,
        "/v0/management/config/export",
        management::config::export,
    ),
    admin(
        Method::GET,
        "/v0/management/config/status",
        management::config::status,
    ),
    admin(Method::GET, "/v0/management/config/failover", |call| {
        settings::get(&settings::FAILOVER, call)
    }),
    admin(Method::PATCH, "/v0/management/config/failover", |call| {
        settings::patch(&settings::FAILOVER, call)
    }),
    admin(
        Method::GET,
        "/v0/management/config/exploration-rate",
        |call| settings::get(&settings::EXPLORATION_RATE, call),
    ),
    admin(
        Method::PATCH,
        "/v0/management/config/exploration-rate",
        |call| settings::patch(&settings::EXPLORATION_RATE, call),
    ),
    admin(
        Method::GET,
        "/v0/management/config/background-exploration",
        |call| settings::get(&settings::BACKGROUND_EXPLORATION, call),
    ),
    admin(
        Method::PATCH,
        "/v0/management/config/background-exploration",
        |call| settings::patch(&settings::BACKGROUND_EXPLORATION, call),
    ),
    admin(Method::GET, "/v0/management/config/cooldown", |call| {
        settings::get(&settings::COOLDOWN, call)
    }),
    admin(Method::PATCH, "/v0/management/config/cooldown", |call| {
        settings::patch(&settings::COOLDOWN, call)
    }),
    admin(Method::GET, "/v0/management/config/timeout", |call| {
        settings::get(&settings::TIMEOUT, call)
    }),
    admin(Method::PATCH, "/v0/management/config/timeout", |call| {
        settings::patch(&settings::TIMEOUT, call)
    }),
    admin(Method::GET, "/v0/management/config/stall", |call| {
        settings::get(&settings::STALL, call)
    }),
    admin(Method::PATCH, "/v0/management/config/stall", |call| {
        settings::patch(&settings::STALL, call)
    }),
    admin(
        Method::GET,
        "/v0/management/config/vision-fallthrough",
        |call| settings::get(&settings::VISION_FALLTHROUGH, call),
    ),
    admin(
        Method::PATCH,
        "/v0/management/config/vision-fallthrough",
        |call| settings::patch(&settings::VISION_FALLTHROUGH, call),
    ),
    admin(Method::GET, "/v0/management/config/compaction", |call| {
        settings::get(&settings::COMPACTION, call)
    }),
    admin(Method::PATCH, "/v0/management/config/compaction", |call| {
        settings::patch(&settings::COMPACTION, call)
    }),
    admin(
        Method::GET,
        "/v0/management/config/trusted-proxies",
        |call| settings::get(&settings::TRUSTED_PROXIES, call),
    ),
    admin(
        Method::PATCH,
        "/v0/management/config/trusted-proxies",
        |call| settings::patch(&settings::TRUSTED_PROXIES, call),
    ),
    admin(
        Method::GET,
        "/v0/management/config/capture-trace-on-error",
        |call| settings::get(&settings::CAPTURE_TRACE_ON_ERROR, call),
    ),
    admin(
        Method::PATCH,
        "/v0/management/config/capture-trace-on-error",
        |call| settings::patch(&settings::CAPTURE_TRACE_ON_ERROR, call),
    ),
    admin(Method::GET, "/v0/management/config/mcp-enabled", |call| {
        settings::get(&settings::MCP_ENABLED, call)
    }),
    admin(Method::PATCH, "/v0/management/config/mcp-enabled", |call| {
        settings::patch(&settings::MCP_ENABLED, call)
    }),
    admin(
        Method::GET,
        "/v0/management/system-settings",
        settings::list,
    ),
    admin(
        Method::PATCH,
        "/v0/management/system-settings",
        settings::patch_all,
    ),
    admin(
        Method::GET,
        "/v0/management/backup",
        management::backup::get,
    ),
    admin(
        Method::POST,
        "/v0/management/restore",
        management::backup::restore,
    ),
    admin(
        Method::POST,
        "/v0/management/restart",
        management::backup::restart,
    ),
    principal(Method::GET, "/v0/management/usage", management::usage::list),
    principal(
        Method::GET,
        "/v0/management/usage/summary",
        management::summary::get,
    ),
    admin(
        Method::DELETE,
        "/v0/management/usage",
        management::usage::delete_all,
    ),
    admin(
        Method::DELETE,
        "/v0/management/usage/{id}",
        management::usage::delete,
    ),
    principal(
        Method::GET,
        "/v0/management/errors",
        management::errors::list,
    ),
    admin(
        Method::DELETE,
        "/v0/management/errors",
        management::errors::delete_all,
    ),
    principal(
        Method::DELETE,
        "/v0/management/errors/{id}",
        management::errors::delete,
    ),
    principal(Method::GET, "/v0/management/debug", management::debug::get),
    admin(
        Method::PATCH,
        "/v0/management/debug",
        management::debug::patch,
    ),
    principal(
        Method::GET,
        "/v0/management/debug/logs",
        management::debug::logs,
    ),
    admin(
        Method::DELETE,
        "/v0/management/debug/logs",
        management::debug::delete_all,
    ),
    principal(
        Method::GET,
        "/v0/management/debug/logs/{id}",
        management::debug::log,
    ),
    principal(
        Method::DELETE,
        "/v0/management/debug/logs/{id}",
        management::debug::delete,
    ),
    principal(
        Method::POST,
        "/v0/management/debug/logs/{id}/replay",
        management::replay::replay,
    ),
    principal(
        Method::GET,
        "/v0/management/debug-logs",
        management::debug::logs,
    ),
    admin(
        Method::DELETE,
        "/v0/management/debug-logs",
        management::debug::delete_all,
    ),
    principal(
        Method::GET,
        "/v0/management/debug-logs/{id}",
        management::debug::log,
    ),
    principal(
        Method::DELETE,
        "/v0/management/debug-logs/{id}",
        management::debug::delete,
    ),
    principal(
        Method::POST,
        "/v0/management/self/debug/toggle",
        management::debug::toggle,
    ),
    admin(
        Method::GET,
        "/v0/management/logging/level",
        management::logging::level,
    ),
    admin(
        Method::PUT,
        "/v0/management/logging/level",
        management::logging::set_level,
    ),
    admin(
        Method::DELETE,
        "/v0/management/logging/level",
        management::logging::reset_level,
    ),
    admin(
        Method::GET,
        "/v0/management/logging/modules",
        management::logging::modules,
    ),
    admin(
        Method::PUT,
        "/v0/management/logging/modules",
        management::logging::set_modules,
    ),
    admin(
        Method::DELETE,
        "/v0/management/logging/modules",
        management::logging::reset_modules,
    ),
    admin(
        Method::GET,
        "/v0/system/logs/recent",
        management::logging::recent,
    ),
    admin(
        Method::GET,
        "/v0/system/logs/stream",
        management::logging::stream,
    ),
    principal(
        Method::GET,
        "/v0/management/cooldowns",
        management::cooldowns::list,
    ),
    admin(
        Method::DELETE,
        "/v0/management/cooldowns",
        management::cooldowns::delete_all,
    ),
    admin(
        Method::DELETE,
        "/v0/management/cooldowns/{slug..}",
        management::cooldowns::delete,
    ),
    admin(
        Method::GET,
        "/v0/management/concurrency",
        management::concurrency::get,
    ),
    principal(
        Method::GET,
        "/v0/management/events",
        management::events::stream,
    ),
    admin(
        Method::GET,
        "/v0/management/performance",
        management::performance::list,
    ),
    admin(
        Method::DELETE,
        "/v0/management/performance",
        management::performance::forget,
    ),
    admin(
        Method::DELETE,
        "/v0/management/logs/reset",
        management::logs::reset,
    ),
    admin(
        Method::POST,
        "/v0/management/route/explain",
        management::route::explain,
    ),
    admin(
        Method::POST,
        "/v0/management/cache/vision-descriptor/clear",
        management::cache::clear_descriptions,
    ),
    admin(
        Method::GET,
        "/v0/management/metrics",
        management::metrics::get,
    ),
];

static ROUTER: LazyLock<Router> = LazyLock::new(|| {
    Router::new(
        ROUTES
            .iter()
            .map(|route| (route.method.clone(), route.pattern)),
    )
});

/// Methods that a browser may use from another origin.
const CORS_METHODS: HeaderValue =
    HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
/// Header fields that browsers may send from another origin when they do not
/// name their own list.
const CORS_HEADERS: HeaderValue = HeaderValue::from_static(
    "Content-Type, Authorization, x-api-key, x-goog-api-key, x-client-request-id, anthropic-version, anthropic-beta",
);
const CORS_EXPOSED: HeaderValue = HeaderValue::from_static(
    "Content-Type, x-request-id, x-client-request-id, x-plexus-request-id, x-plexus-route, x-plexus-notes, retry-after, \
     x-plexus-quota, x-plexus-quota-limit, x-plexus-quota-remaining, x-plexus-quota-reset, x-plexus-quota-warning",
);

/// An answer on its way. Boxed: hyper keeps a service's future in the room of
/// its connection, and a long stream would hold on to all that the request's
/// set-up needed.
pub type Answer = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

/// Answers any request.
pub fn dispatch(core: &Arc<Core>, peer: Peer, request: Request<Incoming>) -> Answer {
    let origin = request.headers().get(header::ORIGIN);
    let head = request.method() == Method::HEAD;
    if origin.is_none() && !head {
        return routed(core, peer, request);
    }
    let management = request.uri().path().starts_with("/v0/");
    let origin = origin.filter(|_| !management).cloned();
    let core = Arc::clone(core);
    Box::pin(async move {
        let mut response = routed(&core, peer, request).await;
        if let Some(origin) = origin {
            allow_origin(&core, response.headers_mut(), origin);
        }
        if head {
            strip_body(&mut response);
        }
        response
    })
}

fn routed(core: &Arc<Core>, peer: Peer, request: Request<Incoming>) -> Answer {
    let (number, params) = match ROUTER.find(request.method(), request.uri().path()) {
        Match::Found(number, params) => (number, params),
        Match::MethodNotAllowed(allowed) if request.method() == Method::OPTIONS => {
            return at_once(preflight(&allowed, &request));
        }
        Match::MethodNotAllowed(allowed) => return at_once(method_not_allowed(&allowed)),
        Match::NotFound => return at_once(not_found()),
    };
    let Some(route) = ROUTES.get(number) else {
        return at_once(not_found());
    };
    match route.handler {
        Handler::Inference(protocol, action) => {
            let path = (!action.is_empty()).then(|| PathAsk {
                model: None,
                action: action.to_owned(),
            });
            infer(core, peer, Ask { protocol, path }, request)
        }
        Handler::Gemini => gemini(core, peer, &params, request),
        Handler::Kept(what) => Box::pin(kept::answer(
            Arc::clone(core),
            peer.address,
            what,
            params.value("id").to_owned(),
            request,
        )),
        Handler::Models => at_once(models::answer(core, params.value("model"), &request)),
        Handler::Metadata(what) => Box::pin(metadata::answer(Arc::clone(core), what, request)),
        Handler::Text(kind, text) => at_once(fixed(kind, text)),
        Handler::Document => at_once(fixed("application/json; charset=utf-8", openapi::text())),
        Handler::Manage(handler) => Box::pin(manage(
            Arc::clone(core),
            peer,
            route.access,
            handler,
            params,
            request,
        )),
    }
}

/// The answer to a request whose end is open to doubt: nothing of it is looked at,
/// and the connection is closed.
pub(crate) fn doubtful() -> Answer {
    let message = "{\"error\":{\"message\":\"the request's length is open to doubt: send either a Content-Length or Transfer-Encoding: chunked\",\"type\":\"invalid_request_error\"}}";
    let mut response = json(StatusCode::BAD_REQUEST, message.into());
    response
        .headers_mut()
        .insert(header::CONNECTION, HeaderValue::from_static("close"));
    at_once(response)
}

fn at_once(response: Response<Body>) -> Answer {
    Box::pin(std::future::ready(response))
}

fn not_found() -> Response<Body> {
    json(StatusCode::NOT_FOUND, "{\"error\":\"Not Found\"}".into())
}

fn infer(core: &Arc<Core>, peer: Peer, ask: Ask, request: Request<Incoming>) -> Answer {
    Box::pin(inference::serve(
        Arc::clone(core),
        peer.address,
        ask,
        request,
    ))
}

fn gemini(core: &Arc<Core>, peer: Peer, params: &Params, request: Request<Incoming>) -> Answer {
    let action = crate::router::gemini_action(params.value("model"));
    let served =
        |action: &str| matches!(action, "generateContent" | "streamGenerateContent" | COUNT);
    let Some((model, action)) = action.filter(|(_, action)| served(action)) else {
        return at_once(models::unknown_action(params.value("model")));
    };
    let path = PathAsk {
        model: Some(model.to_owned()),
        action: action.to_owned(),
    };
    infer(
        core,
        peer,
        Ask {
            protocol: Protocol::Gemini,
            path: Some(path),
        },
        request,
    )
}

/// The one gate of the management API.
async fn manage(
    core: Arc<Core>,
    peer: Peer,
    access: Access,
    handler: management::Handler,
    params: Params,
    request: Request<Incoming>,
) -> Response<Body> {
    let config = core.app.live.load();
    let headers = request.headers();
    let address = auth::client_address(&config.server.trusted_proxies, peer.address, headers);
    let now = core.app.switchboard.now(Instant::now());
    let presented = headers.contains_key(auth::ADMIN_HEADER);
    if presented && let Some(seconds) = core.app.throttle.wait(address, now) {
        return management::throttled(&core, seconds);
    }
    let principal = auth::principal(&config, headers, address, inference::wall_ms());
    let principal = match principal {
        None => {
            if presented && core.app.throttle.failed(address, now) {
                tracing::warn!(
                    ?address,
                    "too many wrong admin keys; this address has to wait"
                );
            }
            return management::unauthorized(&core);
        }
        Some(auth::Principal::Limited(_)) if access == Access::Admin => {
            return management::forbidden();
        }
        Some(principal) => principal,
    };
    management::answer(handler, Call::new(core, config, principal, params, request)).await
}

fn fixed(kind: &'static str, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn method_not_allowed(allowed: &[Method]) -> Response<Body> {
    let list = list_of(allowed);
    let mut response = json(
        StatusCode::METHOD_NOT_ALLOWED,
        serde_json::json!({ "error": format!("Method Not Allowed; this path takes {list}") })
            .to_string(),
    );
    if let Ok(list) = HeaderValue::try_from(list) {
        response.headers_mut().insert(header::ALLOW, list);
    }
    response
}

fn list_of(methods: &[Method]) -> String {
    methods
        .iter()
        .map(Method::as_str)
        .collect::<Vec<_>>()
        .join(", ")
}

/// OPTIONS, asked by a browser or by hand.
fn preflight(allowed: &[Method], request: &Request<Incoming>) -> Response<Body> {
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    if let Ok(list) = HeaderValue::try_from(list_of(allowed)) {
        headers.insert(header::ALLOW, list);
    }
    if request.headers().contains_key(header::ORIGIN) && !request.uri().path().starts_with("/v0/") {
        let asked = request
            .headers()
            .get(header::ACCESS_CONTROL_REQUEST_HEADERS)
            .cloned();
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, CORS_METHODS);
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            asked.unwrap_or(CORS_HEADERS),
        );
        headers.insert(
            header::ACCESS_CONTROL_MAX_AGE,
            HeaderValue::from_static("86400"),
        );
    }
    response
}

/// Keys travel in header fields that scripts must set themselves, never in
/// cookies; so any origin may be allowed, and credentials are not.
fn allow_origin(core: &Core, headers: &mut HeaderMap, origin: HeaderValue) {
    let config = core.app.live.load();
    let origins = &config.server.cors_origins;
    let any = origins.iter().any(|allowed| allowed == "*");
    if any {
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_ORIGIN,
            HeaderValue::from_static("*"),
        );
    } else if origins
        .iter()
        .any(|allowed| allowed.as_bytes() == origin.as_bytes())
    {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
    } else {
        return;
    }
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, CORS_EXPOSED);
}

/// HEAD is GET without its body; the length still tells.
fn strip_body(response: &mut Response<Body>) {
    if let Body::Full(bytes) = response.body() {
        let length = HeaderValue::from(bytes.len());
        response
            .headers_mut()
            .insert(header::CONTENT_LENGTH, length);
    }
    *response.body_mut() = Body::Empty;
}
