//! What each endpoint is asked and answers. A table; one entry for each route of
//! the management API, and for what else the gateway answers by itself.

use http::Method;
use serde_json::{Value, json};

use super::schema::Schema::{
    Any, At, Either, Fields, Flag, List, Map as MapOf, Named, Null, Number, Text, True, Whole, Word,
};
use super::schema::{Schema, field, maybe};

/// An endpoint.
#[derive(Debug)]
pub(super) struct Described {
    pub(super) method: Method,
    pub(super) pattern: &'static str,
    pub(super) summary: &'static str,
    pub(super) query: &'static [Parameter],
    pub(super) body: Option<Body>,
    /// Another media type that may be answered, of whatever shape.
    pub(super) also: Option<&'static str>,
    /// Media type and shape of what is answered when nothing is wrong.
    pub(super) answer: (&'static str, Schema),
}

/// A query parameter.
#[derive(Debug)]
pub(super) struct Parameter {
    name: &'static str,
    schema: Schema,
    description: &'static str,
    /// One that can be sent, where it can't be left out.
    needed: Option<&'static str>,
}

const fn parameter(name: &'static str, schema: Schema, description: &'static str) -> Parameter {
    Parameter {
        name,
        schema,
        description,
        needed: None,
    }
}

impl Parameter {
    /// It can't be left out; with an example.
    const fn needed(mut self, example: &'static str) -> Self {
        self.needed = Some(example);
        self
    }

    pub(super) fn to_json(&self) -> Value {
        let mut shown = json!({
            "name": self.name, "in": "query", "description": self.description,
            "schema": self.schema.to_json(),
        });
        if let Some(example) = self.needed {
            shown["required"] = true.into();
            shown["example"] = example.into();
        }
        shown
    }
}

/// What is sent: its shape, and an example that can be sent as it stands.
#[derive(Debug)]
pub(super) struct Body {
    kind: &'static str,
    schema: Schema,
    example: &'static str,
    required: bool,
}

impl Body {
    pub(super) fn to_json(&self) -> Value {
        let parsed = serde_json::from_str(self.example);
        let example: Value = match parsed {
            Ok(example) if self.kind == JSON => example,
            _ => self.example.into(),
        };
        json!({
            "required": self.required,
            "content": { self.kind: { "schema": self.schema.to_json(), "example": example } },
        })
    }
}

const JSON: &str = "application/json";

const fn is(
    method: Method,
    pattern: &'static str,
    summary: &'static str,
    answer: Schema,
) -> Described {
    Described {
        method,
        pattern,
        summary,
        query: &[],
        body: None,
        also: None,
        answer: (JSON, answer),
    }
}

const fn get(pattern: &'static str, summary: &'static str, answer: Schema) -> Described {
    is(Method::GET, pattern, summary, answer)
}

const fn put(pattern: &'static str, summary: &'static str, answer: Schema) -> Described {
    is(Method::PUT, pattern, summary, answer)
}

const fn post(pattern: &'static str, summary: &'static str, answer: Schema) -> Described {
    is(Method::POST, pattern, summary, answer)
}

const fn patch(pattern: &'static str, summary: &'static str, answer: Schema) -> Described {
    is(Method::PATCH, pattern, summary, answer)
}

const fn delete(pattern: &'static str, summary: &'static str, answer: Schema) -> Described {
    is(Method::DELETE, pattern, summary, answer)
}

impl Described {
    const fn query(mut self, query: &'static [Parameter]) -> Self {
        self.query = query;
        self
    }

    const fn body(mut self, schema: Schema, example: &'static str) -> Self {
        self.body = Some(Body {
            kind: JSON,
            schema,
            example,
            required: true,
        });
        self
    }

    const fn body_if_any(mut self, schema: Schema, example: &'static str) -> Self {
        self.body = Some(Body {
            kind: JSON,
            schema,
            example,
            required: false,
        });
        self
    }

    const fn text(mut self, kind: &'static str, example: &'static str) -> Self {
        self.body = Some(Body {
            kind,
            schema: Text,
            example,
            required: true,
        });
        self
    }

    const fn of_type(mut self, kind: &'static str) -> Self {
        self.answer.0 = kind;
        self
    }

    /// Asked in another way, it answers with that.
    const fn or_of_type(mut self, kind: &'static str) -> Self {
        self.also = Some(kind);
        self
    }
}

const OWN: &[Parameter] = &[parameter(
    "keyName",
    Text,
    "Whose, for the administrator, who has to say it.",
)];
const SUCCESS: Schema = Fields(&[field("success", True)]);
const LIMIT: Parameter = parameter("limit", Whole, "Entries of a page.");
const OFFSET: Parameter = parameter("offset", Whole, "Entries to pass over.");
const PAGE: &[Parameter] = &[LIMIT, OFFSET];
const REDACT: &[Parameter] = &[parameter("redact", Flag, "Whether secrets are left out.")];
const TEXTS: Schema = List(&Text);

/// A page of entries.
macro_rules! page {
    ($entry:expr) => {
        Fields(&[
            field("data", List(&$entry)),
            field("total", Whole),
            field("limit", Null(&Whole)),
            field("offset", Whole),
        ])
    };
}

const TOLD: Schema = Fields(&[field("success", True), field("message", Text)]);
const ENABLED: Schema = Fields(&[field("enabled", Flag)]);
const LEVEL: Schema = Fields(&[
    field("level", Text),
    field("startupLevel", Text),
    field("supportedLevels", TEXTS),
    field("ephemeral", True),
]);
const MODULES: Schema = Fields(&[field("modules", TEXTS)]);
const CAPTURES: Schema = page!(Fields(&[
    field("requestId", Text),
    field("createdAt", Whole),
    field("responseStatus", Null(&Whole)),
]));
const LINES: Schema = page!(Named("LogLine"));
const QUOTA_WRITTEN: Schema = Fields(&[
    field("success", True),
    field("name", Text),
    field("quota", Named("userQuota")),
]);
const NAMED_KEY: Schema = Fields(&[field("success", True), field("name", Text)]);
const SLUGGED: Schema = Fields(&[field("success", True), field("slug", Text)]);

/// Settings, with the shapes that the file's own tables give them.
macro_rules! settings {
    ($($name:literal at [$($path:literal),+]),+ $(,)?) => {
        Fields(&[$(maybe($name, At(&[$($path),+]))),+])
    };
}

const FAILOVER: Schema = settings!(
    "enabled" at ["failover", "enabled"],
    "retryableStatusCodes" at ["failover", "retryableStatusCodes"],
    "retryableErrors" at ["failover", "retryableErrors"],
    "maxAttempts" at ["failover", "maxAttempts"],
);
const EXPLORATION: Schema = settings!(
    "performanceExplorationRate" at ["performanceExplorationRate"],
    "latencyExplorationRate" at ["latencyExplorationRate"],
    "e2ePerformanceExplorationRate" at ["e2ePerformanceExplorationRate"],
);
const BACKGROUND: Schema = settings!(
    "enabled" at ["backgroundExploration", "enabled"],
    "stalenessThresholdSeconds" at ["backgroundExploration", "stalenessThresholdSeconds"],
    "workerConcurrency" at ["backgroundExploration", "workerConcurrency"],
);
const COOLDOWN: Schema = settings!(
    "initialMinutes" at ["cooldown", "initialMinutes"],
    "maxMinutes" at ["cooldown", "maxMinutes"],
);
const TIMEOUT: Schema = settings!(
    "defaultSeconds" at ["timeout", "defaultSeconds"],
    "connectSeconds" at ["timeout", "connectSeconds"],
);
const STALL: Schema = settings!(
    "ttfbSeconds" at ["stall", "ttfbSeconds"],
    "ttfbBytes" at ["stall", "ttfbBytes"],
    "minBytesPerSecond" at ["stall", "minBytesPerSecond"],
    "windowSeconds" at ["stall", "windowSeconds"],
    "gracePeriodSeconds" at ["stall", "gracePeriodSeconds"],
    "stallCooldown" at ["stall", "stallCooldown"],
);
const PROXIES: Schema = settings!("trustedProxies" at ["server", "trustedProxies"]);

/// What is asked of and answered by each endpoint.
pub(super) static DESCRIBED: &[Described] = &[
    get("/health", "Whether the gateway runs.", Text).of_type("text/plain"),
    get(
        "/healthz",
        "Whether the gateway runs, as JSON.",
        Fields(&[field("ok", True)]),
    ),
    get(
        "/v0/management/auth/verify",
        "Who am I.",
        Either(&[
            Fields(&[field("ok", True), field("role", Word(&["admin"]))]),
            Named("Own"),
        ]),
    ),
    get(
        "/v0/management/providers",
        "All providers, by name.",
        MapOf(&Named("provider")),
    )
    .query(REDACT),
    get(
        "/v0/management/providers/{slug..}",
        "One provider.",
        Named("provider"),
    )
    .query(REDACT),
    put(
        "/v0/management/providers/{slug..}",
        "Make or replace a provider.",
        SLUGGED,
    )
    .body(
        Named("provider"),
        r#"{"api_base_url":"http://127.0.0.1:9/v1","api_key":"sk-local","models":["m"]}"#,
    ),
    patch(
        "/v0/management/providers/{slug..}",
        "Change some fields of a provider.",
        SLUGGED,
    )
    .body(Named("provider.patch"), r#"{"timeoutMs":20000}"#),
    delete(
        "/v0/management/providers/{slug..}",
        "Remove a provider.",
        Fields(&[field("success", True), field("provider", Text)]),
    )
    .query(&[parameter(
        "cascade",
        Flag,
        "Whether the targets that name it go with it.",
    )]),
    get(
        "/v0/management/aliases",
        "All aliases, by name.",
        MapOf(&Named("alias")),
    ),
    get(
        "/v0/management/aliases/{slug..}",
        "One alias.",
        Named("alias"),
    ),
    put(
        "/v0/management/aliases/{slug..}",
        "Make or replace an alias.",
        SLUGGED,
    )
    .body(
        Named("alias"),
        r#"{"target_groups":[{"name":"default","selector":"in_order","targets":[]}]}"#,
    ),
    patch(
        "/v0/management/aliases/{slug..}",
        "Change some fields of an alias.",
        SLUGGED,
    )
    .body(Named("alias.patch"), r#"{"sticky_session":false}"#),
    delete(
        "/v0/management/aliases/{slug..}",
        "Remove an alias.",
        SUCCESS,
    ),
    delete(
        "/v0/management/models/{slug..}",
        "Remove an alias.",
        SUCCESS,
    ),
    delete(
        "/v0/management/models",
        "Remove all aliases.",
        Fields(&[field("success", True), field("deletedCount", Whole)]),
    ),
    get(
        "/v0/management/keys",
        "All keys, by name.",
        MapOf(&Named("key")),
    )
    .query(REDACT),
    get("/v0/management/keys/{slug..}", "One key.", Named("key")).query(REDACT),
    put(
        "/v0/management/keys/{slug..}",
        "Make or replace a key.",
        NAMED_KEY,
    )
    .body(
        Named("key.new"),
        r#"{"secret":"sk-described","comment":"an example","quotas":["described"],"expiresInMinutes":60}"#,
    ),
    patch(
        "/v0/management/keys/{slug..}",
        "Change some fields of a key.",
        NAMED_KEY,
    )
    .body(Named("key.patch"), r#"{"comment":"changed","quotas":[]}"#),
    delete(
        "/v0/management/keys/{slug..}",
        "Remove a key; its rows stay.",
        SUCCESS,
    ),
    post(
        "/v0/management/keys/{slug..}/disable",
        "Switch a key with a limited life off before its time.",
        NAMED_KEY,
    ),
    get("/v0/management/config", "The configuration file, or what it means with `Accept: application/json`.", Text)
        .of_type("application/x-yaml").or_of_type(JSON),
    get(
        "/v0/management/config/export",
        "The configuration as one JSON document.",
        Any,
    ),
    get(
        "/v0/management/usage",
        "One record for each request.",
        page!(Named("UsageRecord")),
    )
    .query(&[
        LIMIT,
        OFFSET,
        parameter(
            "fields",
            Text,
            "Names of the fields that are wanted, with commas between them.",
        ),
        parameter(
            "sortBy",
            Text,
            "date, apiKey, provider, incomingModelAlias, costTotal or durationMs.",
        ),
        parameter("sortDir", Word(&["asc", "desc"]), "Which comes first."),
        parameter("apiKey", Text, "Part of the key's name."),
        parameter("provider", Text, "Part of the provider's name."),
        parameter(
            "incomingModelAlias",
            Text,
            "Part of the name that the client gave.",
        ),
        parameter("selectedModelName", Text, "Part of the model's name."),
        parameter("requestId", Text, "The request's id."),
        parameter("clientRequestId", Text, "The client's id for it."),
        parameter("incomingApiType", Text, "What the client spoke."),
        parameter("outgoingApiType", Text, "What was spoken to the provider."),
        parameter("responseStatus", Text, "How it ended."),
        parameter("attribution", Text, "What stood behind the key's colon."),
        parameter("startDate", Text, "From that date or time on."),
        parameter("endDate", Text, "Up to that date or time."),
        parameter(
            "minDurationMs",
            Number,
            "At least so long, in milliseconds.",
        ),
        parameter("maxDurationMs", Number, "At most so long, in milliseconds."),
    ]),
    delete("/v0/management/usage", "Delete records.", SUCCESS).query(&[parameter(
        "olderThanDays",
        Whole,
        "Only those of requests that began before that.",
    )]),
    delete(
        "/v0/management/usage/{id}",
        "Delete one request's record.",
        SUCCESS,
    ),
    get(
        "/v0/management/errors",
        "What failed, newest first.",
        page!(Named("ErrorRecord")),
    )
    .query(PAGE),
    delete("/v0/management/errors", "Delete all errors.", SUCCESS),
    delete(
        "/v0/management/errors/{id}",
        "Delete the errors of one request.",
        SUCCESS,
    ),
    get(
        "/v0/management/debug",
        "Whose requests are captured.",
        Either(&[Named("Watched"), Named("WatchedOwn")]),
    ),
    patch(
        "/v0/management/debug",
        "Change whose requests are captured.",
        Named("Watched"),
    )
    .body(
        Fields(&[
            maybe("enabled", Flag),
            maybe("providers", Null(&TEXTS)),
            maybe("keys", Null(&TEXTS)),
            maybe("aliases", Null(&TEXTS)),
        ]),
        r#"{"enabled":true}"#,
    ),
    get(
        "/v0/management/debug/logs",
        "The captures, newest first.",
        CAPTURES,
    )
    .query(PAGE),
    delete("/v0/management/debug/logs", "Delete all captures.", SUCCESS),
    get(
        "/v0/management/debug/logs/{id}",
        "One capture, whole.",
        Named("Capture"),
    ),
    delete(
        "/v0/management/debug/logs/{id}",
        "Delete a capture.",
        SUCCESS,
    ),
    post(
        "/v0/management/debug/logs/{id}/replay",
        "Run a captured request again, and say what is different.",
        Named("Replay"),
    )
    .body_if_any(
        Fields(&[maybe("target", Null(&Text))]),
        r#"{"target":null}"#,
    ),
    get(
        "/v0/management/debug-logs",
        "The captures, newest first.",
        CAPTURES,
    )
    .query(PAGE),
    delete("/v0/management/debug-logs", "Delete all captures.", SUCCESS),
    get(
        "/v0/management/debug-logs/{id}",
        "One capture, whole.",
        Named("Capture"),
    ),
    delete(
        "/v0/management/debug-logs/{id}",
        "Delete a capture.",
        SUCCESS,
    ),
    post(
        "/v0/management/self/debug/toggle",
        "Capture a key's own requests, or no longer.",
        Fields(&[
            field("keyName", Text),
            field("enabled", Flag),
            field("enabledGlobal", Flag),
        ]),
    )
    .query(OWN)
    .body(ENABLED, r#"{"enabled":true}"#),
    get(
        "/v0/management/config/capture-trace-on-error",
        "Whether requests that fail are captured.",
        ENABLED,
    ),
    patch(
        "/v0/management/config/capture-trace-on-error",
        "Set whether requests that fail are captured.",
        ENABLED,
    )
    .body(ENABLED, r#"{"enabled":true}"#),
    get("/v0/management/logging/level", "How much is logged.", LEVEL),
    put(
        "/v0/management/logging/level",
        "Log more or less, until the process ends.",
        LEVEL,
    )
    .body(Fields(&[field("level", Text)]), r#"{"level":"trace"}"#),
    delete(
        "/v0/management/logging/level",
        "Back to the level of the start.",
        LEVEL,
    ),
    get(
        "/v0/management/logging/modules",
        "The modules that are logged; empty is all.",
        MODULES,
    ),
    put(
        "/v0/management/logging/modules",
        "Log only these modules, until the process ends.",
        MODULES,
    )
    .body(MODULES, r#"{"modules":["plexus"]}"#),
    delete(
        "/v0/management/logging/modules",
        "Back to the modules of the configuration.",
        MODULES,
    ),
    get(
        "/v0/system/logs/recent",
        "The last lines of the log, newest first.",
        LINES,
    )
    .query(PAGE),
    get(
        "/v0/system/logs/stream",
        "The log's lines as they come.",
        Text,
    )
    .of_type("text/event-stream"),
    get(
        "/v0/management/cooldowns",
        "Targets that rest after failures.",
        List(&Named("Cooldown")),
    ),
    delete("/v0/management/cooldowns", "End all rests.", SUCCESS),
    delete(
        "/v0/management/cooldowns/{slug..}",
        "End the rests of a provider, or of its models.",
        SUCCESS,
    )
    .query(&[parameter(
        "model",
        Text,
        "Only of models whose names begin like that.",
    )]),
    get(
        "/v0/management/metrics",
        "Counters and gauges in Prometheus' text format.",
        Text,
    )
    .of_type("text/plain"),
    get(
        "/v0/management/concurrency",
        "Requests under way, and the limits on them.",
        Fields(&[
            field(
                "data",
                List(&Fields(&[
                    field("provider", Text),
                    field("model", Text),
                    field("count", Whole),
                    field("timestamp", Whole),
                    field("limit", Null(&Whole)),
                    field("providerLimit", Null(&Whole)),
                    field("queued", Whole),
                ])),
            ),
            field("keys", List(&Any)),
        ]),
    )
    .query(&[parameter("mode", Word(&["live"]), "What is shown.")]),
    post(
        "/v0/management/route/explain",
        "Where a request would go, and why; nothing is sent.",
        Named("Explanation"),
    )
    .body(
        Fields(&[
            maybe("model", Text),
            maybe("protocol", Text),
            maybe("key", Text),
            maybe("headers", MapOf(&Text)),
            maybe("body", Any),
        ]),
        r#"{"model":"by-chat"}"#,
    ),
    get(
        "/v0/management/config/status",
        "How much of everything there is, and what became of the file.",
        Named("Status"),
    ),
    post(
        "/v0/management/providers/fetch-models",
        "The models that a provider lists at a URL.",
        Fields(&[field("data", List(&Any))]),
    )
    .body(
        Fields(&[field("url", Text), maybe("apiKey", Null(&Text))]),
        r#"{"url":"http://127.0.0.1:9/v1/models","apiKey":"sk-local"}"#,
    ),
    post(
        "/v0/management/test",
        "Try a target out with one request.",
        Fields(&[
            field("success", Flag),
            field("durationMs", Whole),
            field("apiType", Text),
            maybe("response", Text),
            maybe("error", Text),
        ]),
    )
    .body(
        Fields(&[
            field("provider", Text),
            field("model", Text),
            maybe("apiType", Text),
        ]),
        r#"{"provider":"chat","model":"simulated"}"#,
    ),
    post(
        "/v0/management/config",
        "Replace the configuration file.",
        Text,
    )
    .of_type("application/x-yaml").text("application/x-yaml", "models: {}\n"),
    put(
        "/v0/management/config",
        "Replace the configuration file.",
        Text,
    )
    .of_type("application/x-yaml").text("application/x-yaml", "models: {}\n"),
    get(
        "/v0/management/system-settings",
        "All settings that the file has, by flat names.",
        MapOf(&Any),
    ),
    patch(
        "/v0/management/system-settings",
        "Set those that are named, take away those that are null.",
        SUCCESS,
    )
    .body(MapOf(&Any), r#"{"timeout.defaultSeconds":250}"#),
    get(
        "/v0/management/config/failover",
        "When the next target is tried.",
        FAILOVER,
    ),
    patch(
        "/v0/management/config/failover",
        "Change some of that; the answer is all of it.",
        FAILOVER,
    )
    .body(MapOf(&Any), r#"{"enabled":true}"#),
    get(
        "/v0/management/config/exploration-rate",
        "How often targets are measured that are not the best.",
        EXPLORATION,
    ),
    patch(
        "/v0/management/config/exploration-rate",
        "Change some of that; the answer is all of it.",
        EXPLORATION,
    )
    .body(MapOf(&Any), r#"{"latencyExplorationRate":0.1}"#),
    get(
        "/v0/management/config/background-exploration",
        "Measuring beside live requests.",
        BACKGROUND,
    ),
    patch(
        "/v0/management/config/background-exploration",
        "Change some of that; the answer is all of it.",
        BACKGROUND,
    )
    .body(MapOf(&Any), r#"{"workerConcurrency":3}"#),
    get(
        "/v0/management/config/cooldown",
        "How long a target rests after a failure.",
        COOLDOWN,
    ),
    patch(
        "/v0/management/config/cooldown",
        "Change some of that; the answer is all of it.",
        COOLDOWN,
    )
    .body(MapOf(&Any), r#"{"initialMinutes":1}"#),
    get(
        "/v0/management/config/timeout",
        "How long an attempt may take.",
        TIMEOUT,
    ),
    patch(
        "/v0/management/config/timeout",
        "Change some of that; the answer is all of it.",
        TIMEOUT,
    )
    .body(MapOf(&Any), r#"{"defaultSeconds":200}"#),
    get(
        "/v0/management/config/stall",
        "When a stream counts as stalled.",
        STALL,
    ),
    patch(
        "/v0/management/config/stall",
        "Change some of that; the answer is all of it.",
        STALL,
    )
    .body(MapOf(&Any), r#"{"ttfbSeconds":30}"#),
    get(
        "/v0/management/config/vision-fallthrough",
        "Who describes images to models that can't see.",
        Any,
    ),
    patch(
        "/v0/management/config/vision-fallthrough",
        "Change some of that; the answer is all of it.",
        Any,
    )
    .body(MapOf(&Any), r#"{"descriptor_model":"by-chat"}"#),
    get(
        "/v0/management/config/compaction",
        "How long conversations are shortened.",
        Any,
    ),
    patch(
        "/v0/management/config/compaction",
        "Change some of that; the answer is all of it.",
        Any,
    )
    .body(MapOf(&Any), r#"{"enabled":false}"#),
    get(
        "/v0/management/config/trusted-proxies",
        "Peers whose forwarding headers are believed.",
        PROXIES,
    ),
    patch(
        "/v0/management/config/trusted-proxies",
        "Change some of that; the answer is all of it.",
        PROXIES,
    )
    .body(MapOf(&Any), r#"{"trustedProxies":["127.0.0.1"]}"#),
    get(
        "/v0/management/config/mcp-enabled",
        "Whether the MCP gateway serves.",
        ENABLED,
    ),
    patch(
        "/v0/management/config/mcp-enabled",
        "Change some of that; the answer is all of it.",
        ENABLED,
    )
    .body(MapOf(&Any), r#"{"enabled":true}"#),
    get("/v0/management/backup", "Everything, secrets in clear: the configuration, or with `full` an archive.", Any)
        .query(&[parameter("full", Flag, "Whether rows come with it, as application/gzip.")]).or_of_type("application/gzip"),
    post("/v0/management/restore", "Put a backup in the place of what is there.", Fields(&[
        field("success", True), field("restored", MapOf(&Whole)), field("message", Text), maybe("notKept", Any),
    ])).body(Any, r#"{"plexus_backup":true,"version":1,"created_at":"2026-01-31T12:00:00Z","dialect":"sqlite","data":{"providers":{},"models":{},"keys":{},"user_quotas":{},"mcp_servers":{},"mcp_keys":[],"settings":{},"oauth_credentials":[]}}"#),
    post("/v0/management/restart", "Hand the sockets to a new process.", TOLD),
    post("/v0/management/cache/vision-descriptor/clear", "Forget how images were described.", TOLD),
    get(
        "/v0/management/usage/summary",
        "What requests add up to over a stretch of time.",
        Named("Summary"),
    )
    .query(&[
        parameter(
            "range",
            Word(&["hour", "day", "week", "month", "custom"]),
            "The stretch, up to now; a day if it isn't said.",
        ),
        parameter("startDate", Text, "Where a custom range begins."),
        parameter("endDate", Text, "Where a custom range ends."),
        parameter(
            "groupBy",
            Text,
            "key, attribution, provider, alias or model, or several with commas between them: totals of each.",
        ),
        parameter("apiKey", Text, "Part of the key's name."),
        parameter("provider", Text, "Part of the provider's name."),
        parameter(
            "incomingModelAlias",
            Text,
            "Part of the name that the client gave.",
        ),
        parameter("attribution", Text, "What stood behind the key's colon."),
    ]),
    get(
        "/v0/management/performance",
        "How targets did lately, the fastest first.",
        List(&Named("Performance")),
    )
    .query(&[
        parameter("provider", Text, "Only of that provider."),
        parameter("model", Text, "Only of that model."),
    ]),
    delete(
        "/v0/management/performance",
        "Forget how a model did, at all providers.",
        Fields(&[field("success", True), field("model", Text)]),
    )
    .query(&[parameter("model", Text, "Which one.").needed("m")]),
    get(
        "/v0/management/events",
        "Requests as they begin, go on and end.",
        Text,
    )
    .of_type("text/event-stream"),
    delete(
        "/v0/management/logs/reset",
        "Delete all records, errors and captures.",
        TOLD,
    ),
    get(
        "/v0/management/user-quotas",
        "All quotas, by name.",
        MapOf(&Named("userQuota")),
    ),
    get(
        "/v0/management/user-quotas/{slug}",
        "One quota.",
        Named("userQuota"),
    ),
    put(
        "/v0/management/user-quotas/{slug}",
        "Make or replace a quota.",
        QUOTA_WRITTEN,
    )
    .body(
        Named("userQuota"),
        r#"{"type":"daily","limitType":"requests","limit":1000,"warnAt":0.9}"#,
    ),
    patch(
        "/v0/management/user-quotas/{slug}",
        "Change some fields of a quota.",
        QUOTA_WRITTEN,
    )
    .body(Named("userQuota.patch"), r#"{"limit":2000}"#),
    delete(
        "/v0/management/user-quotas/{slug}",
        "Remove a quota that no key has any more.",
        Fields(&[
            field("success", True),
            field("name", Text),
            field("message", Text),
        ]),
    ),
    get(
        "/v0/management/quota/status/{slug..}",
        "What a key used of its quotas.",
        Fields(&[
            field("key", Text),
            field("quotas", List(&Named("QuotaStatus"))),
            field("quota_name", Null(&Text)),
            field("allowed", Flag),
            field("current_usage", Number),
            field("limit", Null(&Number)),
            field("remaining", Null(&Number)),
            field("resets_at", Null(&Text)),
        ]),
    ),
    post(
        "/v0/management/quota/clear",
        "Let a key begin anew with its quotas, or with one of them.",
        Fields(&[
            field("success", True),
            field("key", Text),
            field("quota", Null(&Text)),
            field("message", Text),
        ]),
    )
    .body(
        Fields(&[field("key", Text), maybe("quota", Null(&Text))]),
        r#"{"key":"described"}"#,
    ),
    post(
        "/v0/management/quota/recompute",
        "Count what a key used of a quota again, from its records.",
        Fields(&[
            field("success", True),
            field("key", Text),
            field("quota", Text),
            field("usage", Number),
            field("windowStartMs", Whole),
            field("message", Text),
        ]),
    )
    .body(
        Fields(&[field("key", Text), field("quota", Text)]),
        r#"{"key":"described","quota":"described"}"#,
    ),
    get(
        "/v0/management/self/me",
        "Who I am, and what my key may do.",
        Either(&[
            Fields(&[field("role", Word(&["admin"]))]),
            Named("OwnKey"),
        ]),
    ),
    post(
        "/v0/management/self/rotate",
        "Give a key a new secret; the old one is refused at once.",
        Fields(&[
            field("keyName", Text),
            field("secret", Text),
            field("message", Text),
        ]),
    )
    .query(OWN),
    patch(
        "/v0/management/self/comment",
        "Change what is said of a key; null takes it away.",
        Fields(&[
            field("success", True),
            field("keyName", Text),
            field("comment", Null(&Text)),
        ]),
    )
    .query(OWN)
    .body(
        Fields(&[field("comment", Null(&Text))]),
        r#"{"comment":"of the team"}"#,
    ),
    get(
        "/v0/management/self/quota",
        "How a key's quotas stand.",
        Fields(&[
            field("key", Text),
            field("quotas", List(&Named("QuotaStatus"))),
            field("quotaName", Null(&Text)),
            field("allowed", Flag),
            field("currentUsage", Number),
            field("limit", Null(&Number)),
            field("remaining", Null(&Number)),
            field("resetsAt", Null(&Text)),
            field("limitType", Null(&Text)),
        ]),
    )
    .query(OWN),
    post(
        "/v0/management/models/metadata/refresh",
        "Fetch the catalogues of models now.",
        Fields(&[
            field("success", Flag),
            field(
                "sources",
                MapOf(&Fields(&[
                    field("success", Flag),
                    field("models", Null(&Whole)),
                    maybe("error", Text),
                ])),
            ),
        ]),
    ),
    post(
        "/v0/management/models/metadata/resolve",
        "What the catalogues say of a model.",
        Fields(&[field("data", Named("Published"))]),
    )
    .body(
        Fields(&[
            field("model", Text),
            maybe("source", Word(&["auto", "openrouter", "models.dev", "catwalk"])),
            maybe("overrides", MapOf(&Any)),
        ]),
        r#"{"model":"m","overrides":{"description":"one"}}"#,
    ),
    get(
        "/v0/management/models/huggingface/{slug..}",
        "What Hugging Face says of a model.",
        Fields(&[field("data", Named("HubModel"))]),
    ),
    get(
        "/v0/management/pi/providers",
        "Who offers models, as the catalogues have it.",
        Fields(&[
            field(
                "data",
                List(&Fields(&[field("id", Text), field("models", Whole)])),
            ),
            field("count", Whole),
            field("source", Text),
        ]),
    ),
    get(
        "/v0/management/pi/models",
        "The models that somebody offers, as the catalogues have it.",
        Fields(&[
            field("data", List(&Named("Published"))),
            field("count", Whole),
            field("source", Text),
        ]),
    )
    .query(&[
        parameter("provider", Text, "Who offers them; all if it isn't said."),
        parameter("q", Text, "Part of their names."),
    ]),
    get("/v0/openapi.json", "This document.", Any),
    get("/.well-known/plexus/openapi.json", "This document.", Any),
];

/// Shapes that have a name.
pub(super) static NAMED: &[(&str, Schema)] = &[
    (
        "Refusal",
        Fields(&[
            field(
                "error",
                Either(&[
                    Text,
                    Fields(&[
                        field("message", Text),
                        field("type", Text),
                        maybe("code", Any),
                        maybe("details", Any),
                    ]),
                ]),
            ),
            maybe("success", Flag),
            maybe("details", Any),
            maybe("difference", Any),
            maybe("reason", Text),
            maybe("supportedLevels", TEXTS),
        ]),
    ),
    (
        "AuthRefusal",
        Fields(&[field(
            "error",
            Fields(&[
                field("message", Text),
                field("type", Text),
                field("code", Whole),
            ]),
        )]),
    ),
    (
        "Fault",
        Fields(&[
            field("path", TEXTS),
            field("message", Text),
            field("code", Text),
            maybe("line", Whole),
            maybe("column", Whole),
        ]),
    ),
    (
        "Own",
        Fields(&[
            field("ok", True),
            field("role", Word(&["limited"])),
            field("keyName", Text),
            field("allowedProviders", TEXTS),
            field("allowedModels", TEXTS),
            field("excludedProviders", TEXTS),
            field("excludedModels", TEXTS),
            field("quotaNames", TEXTS),
            field("quotaName", Null(&Text)),
            field("comment", Null(&Text)),
        ]),
    ),
    (
        "OwnKey",
        Fields(&[
            field("role", Word(&["limited"])),
            field("keyName", Text),
            field("allowedProviders", TEXTS),
            field("allowedModels", TEXTS),
            field("excludedProviders", TEXTS),
            field("excludedModels", TEXTS),
            field("quotaNames", TEXTS),
            field("quotaName", Null(&Text)),
            field("comment", Null(&Text)),
            field("allowRawPassthrough", Flag),
            field("traceEnabled", Flag),
            field("traceEnabledGlobal", Flag),
        ]),
    ),
    (
        "QuotaStatus",
        Fields(&[
            field("name", Text),
            field("limitType", Word(&["requests", "tokens", "cost"])),
            field("limit", Number),
            field("currentUsage", Number),
            field("reserved", Number),
            field("remaining", Number),
            field("allowed", Flag),
            field("resetsAt", Null(&Text)),
            field("global", Flag),
            field("scope", MapOf(&TEXTS)),
            field("shared", Flag),
            maybe("warnAt", Number),
            field("source", Word(&["assigned", "default"])),
        ]),
    ),
    (
        "Performance",
        Fields(&[
            field("provider", Text),
            field("model", Text),
            field("target_model", Text),
            field("avg_ttft_ms", Number),
            field("min_ttft_ms", Number),
            field("max_ttft_ms", Number),
            field("avg_tokens_per_sec", Number),
            field("min_tokens_per_sec", Number),
            field("max_tokens_per_sec", Number),
            field("avg_e2e_tokens_per_sec", Number),
            field("min_e2e_tokens_per_sec", Number),
            field("max_e2e_tokens_per_sec", Number),
            field("sample_count", Whole),
            field("success_count", Whole),
            field("failure_count", Whole),
            field("last_updated", Whole),
        ]),
    ),
    (
        "Summary",
        Fields(&[
            field("range", Text),
            field(
                "series",
                List(&Fields(&[
                    field("bucketStartMs", Whole),
                    field("requests", Whole),
                    field("inputTokens", Whole),
                    field("outputTokens", Whole),
                    field("cachedTokens", Whole),
                    field("cacheWriteTokens", Whole),
                    field("kwhUsed", Number),
                    field("tokens", Whole),
                    field("reasoningTokens", Whole),
                    field("errors", Whole),
                    field("totalCost", Number),
                ])),
            ),
            field(
                "stats",
                Fields(&[
                    field("totalRequests", Whole),
                    field("totalTokens", Whole),
                    field("totalKwhUsed", Number),
                    field("avgDurationMs", Number),
                    field("totalDurationMs", Number),
                    field("totalErrors", Whole),
                    field("totalCost", Number),
                    field("avgTtftMs", Number),
                ]),
            ),
            field(
                "today",
                Fields(&[
                    field("requests", Whole),
                    field("inputTokens", Whole),
                    field("outputTokens", Whole),
                    field("reasoningTokens", Whole),
                    field("cachedTokens", Whole),
                    field("cacheWriteTokens", Whole),
                    field("kwhUsed", Number),
                    field("totalCost", Number),
                ]),
            ),
            field("startMs", Whole),
            field("endMs", Whole),
            field("bucketMs", Whole),
            maybe("groups", MapOf(&List(&Named("SummaryGroup")))),
        ]),
    ),
    (
        "SummaryGroup",
        Fields(&[
            field("name", Null(&Text)),
            field("requests", Whole),
            field("errors", Whole),
            field("inputTokens", Whole),
            field("outputTokens", Whole),
            field("reasoningTokens", Whole),
            field("cachedTokens", Whole),
            field("cacheWriteTokens", Whole),
            field("tokens", Whole),
            field("totalCost", Number),
            field("avgDurationMs", Number),
            field("avgTtftMs", Number),
        ]),
    ),
    (
        "Published",
        Fields(&[
            field("id", Text),
            field("name", Text),
            maybe("provider", Text),
            maybe("source", Text),
            maybe("source_path", Text),
            maybe("description", Text),
            maybe("context_length", Whole),
            maybe("architecture", Any),
            maybe("pricing", Any),
            maybe("supported_parameters", TEXTS),
            maybe("top_provider", Any),
        ]),
    ),
    (
        "HubModel",
        Fields(&[
            field("id", Text),
            maybe("author", Text),
            maybe("pipeline_tag", Text),
            maybe("library_name", Text),
            maybe("tags", TEXTS),
            maybe("downloads", Whole),
            maybe("likes", Whole),
            maybe("gated", Any),
            maybe("created_at", Text),
            maybe("last_modified", Text),
            maybe("license", Any),
            maybe("base_model", Any),
            maybe("parameters", Whole),
            maybe("parameters_by_type", MapOf(&Whole)),
            maybe("context_length", Number),
            maybe("model_architecture", MapOf(&Any)),
        ]),
    ),
    (
        "UsageRecord",
        Fields(&[
            field("requestId", Text),
            field("clientRequestId", Null(&Text)),
            field("date", Text),
            field("sourceIp", Null(&Text)),
            field("apiKey", Null(&Text)),
            field("attribution", Null(&Text)),
            field("incomingApiType", Null(&Text)),
            field("provider", Null(&Text)),
            field("attemptCount", Null(&Whole)),
            field("retryHistory", Null(&Text)),
            field("incomingModelAlias", Null(&Text)),
            field("canonicalModelName", Null(&Text)),
            field("selectedModelName", Null(&Text)),
            field("finalAttemptProvider", Null(&Text)),
            field("finalAttemptModel", Null(&Text)),
            field("allAttemptedProviders", Null(&Text)),
            field("outgoingApiType", Null(&Text)),
            field("tokensInput", Null(&Whole)),
            field("tokensOutput", Null(&Whole)),
            field("tokensReasoning", Null(&Whole)),
            field("tokensCached", Null(&Whole)),
            field("tokensCacheWrite", Null(&Whole)),
            field("tokensEstimated", Null(&Whole)),
            field("costInput", Null(&Number)),
            field("costOutput", Null(&Number)),
            field("costCached", Null(&Number)),
            field("costCacheWrite", Null(&Number)),
            field("costTotal", Null(&Number)),
            field("costSource", Null(&Text)),
            field("costMetadata", Null(&Text)),
            field("startTime", Whole),
            field("durationMs", Null(&Number)),
            field("isStreamed", Flag),
            field("responseStatus", Text),
            field("ttftMs", Null(&Number)),
            field("tokensPerSec", Null(&Number)),
            field("hasDebug", Flag),
            field("hasError", Flag),
            field("isPassthrough", Flag),
            field("isRaw", Flag),
            field("requestMethod", Null(&Text)),
            field("requestPath", Null(&Text)),
            field("toolsDefined", Null(&Whole)),
            field("messageCount", Null(&Whole)),
            field("parallelToolCallsEnabled", Flag),
            field("toolCallsCount", Null(&Whole)),
            field("finishReason", Null(&Text)),
            field("kwhUsed", Null(&Number)),
            field("notes", Null(&Text)),
            field("httpStatus", Null(&Whole)),
        ]),
    ),
    (
        "ErrorRecord",
        Fields(&[
            field("id", Whole),
            field("requestId", Text),
            field("date", Text),
            field("apiKey", Null(&Text)),
            field("errorMessage", Text),
            field("errorStack", Null(&Text)),
            field("details", Text),
            field("createdAt", Whole),
        ]),
    ),
    (
        "Watched",
        Fields(&[
            field("enabled", Flag),
            field("enabledGlobal", Flag),
            field("enabledKeys", TEXTS),
            field("providers", Null(&TEXTS)),
            field("keys", TEXTS),
            field("aliases", TEXTS),
            field("dropped", Whole),
        ]),
    ),
    (
        "WatchedOwn",
        Fields(&[
            field("enabled", Flag),
            field("enabledGlobal", Flag),
            field("enabledForKey", Flag),
            field("providers", Null(&TEXTS)),
            field("keys", TEXTS),
            field("aliases", TEXTS),
        ]),
    ),
    (
        "Capture",
        Fields(&[
            field("requestId", Text),
            field("createdAt", Whole),
            field("rawRequest", Null(&Text)),
            field("transformedRequest", Null(&Text)),
            field("rawResponse", Null(&Text)),
            field("transformedResponse", Null(&Text)),
            field("rawResponseSnapshot", Null(&Text)),
            field("transformedResponseSnapshot", Null(&Text)),
            field("requestHeaders", Null(&Text)),
            field("responseHeaders", Null(&Text)),
            field("responseStatus", Null(&Whole)),
            field("transformedRequestHeaders", Null(&Text)),
            field("transformedResponseHeaders", Null(&Text)),
            field("apiKey", Null(&Text)),
            field("incomingApiType", Null(&Text)),
            field("incomingModelAlias", Null(&Text)),
            field("outgoingApiType", Null(&Text)),
            field("provider", Null(&Text)),
            field("model", Null(&Text)),
            field("url", Null(&Text)),
            field("providerStatus", Null(&Whole)),
            field("error", Null(&Text)),
            field("earlierAttempts", List(&Any)),
            field("cut", MapOf(&Whole)),
        ]),
    ),
    (
        "Run",
        Fields(&[
            field("requestId", Text),
            field("status", Null(&Whole)),
            field("broken", Null(&Text)),
            field("responseStatus", Null(&Text)),
            field("provider", Null(&Text)),
            field("selectedModelName", Null(&Text)),
            field("outgoingApiType", Null(&Text)),
            field("finishReason", Null(&Text)),
            field("tokensInput", Null(&Whole)),
            field("tokensOutput", Null(&Whole)),
            field("tokensReasoning", Null(&Whole)),
            field("tokensCached", Null(&Whole)),
            field("costTotal", Null(&Number)),
            field("durationMs", Null(&Number)),
            field("ttftMs", Null(&Number)),
            field("tokensPerSec", Null(&Number)),
            field("attemptCount", Null(&Whole)),
            field("text", Null(&Text)),
            field("reasoning", Null(&Text)),
            field(
                "calls",
                Null(&List(&Fields(&[
                    field("name", Text),
                    field("arguments", Text),
                ]))),
            ),
            field("body", Null(&Text)),
        ]),
    ),
    (
        "Replay",
        Fields(&[
            field("requestId", Text),
            field("replayOf", Text),
            field("target", Null(&Text)),
            field("original", Named("Run")),
            field("replay", Named("Run")),
            field("differences", TEXTS),
        ]),
    ),
    // A line's own fields stand beside these.
    ("LogLine", MapOf(&Null(&Text))),
    (
        "Cooldown",
        Fields(&[
            field("provider", Text),
            field("model", Text),
            field("expiry", Whole),
            field("timeRemainingMs", Whole),
            field("consecutiveFailures", Whole),
            maybe("lastError", Text),
        ]),
    ),
    (
        "Status",
        Fields(&[
            field("providerCount", Whole),
            field("modelAliasCount", Whole),
            field("keyCount", Whole),
            field("quotaCount", Whole),
            field("mcpServerCount", Whole),
            field("revision", Whole),
            field("loadedAt", Null(&Text)),
            field("path", Text),
            field("lastRefused", List(&Named("Fault"))),
            field("warnings", TEXTS),
        ]),
    ),
    (
        "Explanation",
        Fields(&[
            field("model", Text),
            field("canonical", Text),
            field("protocol", Text),
            field("conversation", Flag),
            field("pinnedTo", Null(&Text)),
            field("retryBudget", Any),
            field("quotas", List(&Any)),
            field(
                "candidates",
                List(&Fields(&[
                    field("provider", Text),
                    field("model", Text),
                    field("group", Null(&Text)),
                    field("selector", Null(&Text)),
                    field("score", Null(&Number)),
                    field("unit", Null(&Text)),
                    field("native", Flag),
                    field("samples", Number),
                    field("avgTtftMs", Null(&Number)),
                    field("avgTokensPerSec", Null(&Number)),
                    field("avgE2eTokensPerSec", Null(&Number)),
                    field("passedOver", Null(&Text)),
                ])),
            ),
            field(
                "leftOut",
                List(&Fields(&[
                    field("provider", Text),
                    field("model", Text),
                    field("reason", Text),
                ])),
            ),
        ]),
    ),
];
