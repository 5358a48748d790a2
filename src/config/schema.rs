//! Every field that `plexus.yaml` may hold: one table per section, read by
//! the shape check, the folding of spellings, the warnings, and the test that
//! the example file shows them all.
//!
//! This file is data. It must not know how anything is checked.

/// The fields of a section.
#[derive(Debug)]
pub(in crate::config) struct Table {
    pub(in crate::config) fields: &'static [Field],
    /// Whether other fields may stand beside these.
    pub(in crate::config) open: bool,
}

/// A field of a section.
#[derive(Debug)]
pub(in crate::config) struct Field {
    /// The spelling that is written.
    pub(in crate::config) name: &'static str,
    /// Another spelling that is read.
    pub(in crate::config) also: Option<&'static str>,
    pub(in crate::config) shape: Shape,
    pub(in crate::config) required: bool,
    /// What does not work yet, if the file asks for it.
    pub(in crate::config) later: Option<&'static str>,
}

/// What a value may be.
#[derive(Debug)]
pub(in crate::config) enum Shape {
    /// Anything.
    Any,
    /// Any map.
    Object,
    /// Any map, in whose texts `$env:NAME` is a reference.
    Options,
    /// Text.
    Text,
    /// Text that is never shown, in which `$env:NAME` is a reference.
    Secret,
    /// true or false.
    Flag,
    /// A whole number between two, both included.
    Whole(u64, u64),
    /// A number between two, both included.
    Number(f64, f64),
    /// A number from 0, or `.inf`, or null for infinity.
    Bound,
    /// One of these words.
    Word(&'static [&'static str]),
    /// That, or null.
    Nullable(&'static Self),
    /// A list of that.
    List(&'static Self),
    /// A map from free names to that.
    Map(&'static Self),
    /// A section.
    Fields(&'static Table),
    /// A section whose fields depend on one word in it.
    Tagged(&'static str, &'static [(&'static str, &'static Table)]),
    /// Whichever of these fits the kind of the value.
    Either(&'static [Self]),
}

impl Table {
    /// The field with that name, in either spelling.
    pub(in crate::config) fn field(&self, name: &str) -> Option<&'static Field> {
        let mut fields = self.fields.iter();
        fields.find(|field| field.name == name || field.also == Some(name))
    }
}

const fn closed(fields: &'static [Field]) -> Table {
    Table {
        fields,
        open: false,
    }
}

const fn open(fields: &'static [Field]) -> Table {
    Table { fields, open: true }
}

const fn field(name: &'static str, shape: Shape) -> Field {
    Field {
        name,
        also: None,
        shape,
        required: false,
        later: None,
    }
}

impl Field {
    const fn also(mut self, other: &'static str) -> Self {
        self.also = Some(other);
        self
    }

    const fn required(mut self) -> Self {
        self.required = true;
        self
    }

    const fn later(mut self, feature: &'static str) -> Self {
        self.later = Some(feature);
        self
    }
}

const TEXTS: Shape = Shape::List(&Shape::Text);
const HEADERS: Shape = Shape::Map(&Shape::Secret);
const SWITCH: Shape = Shape::Fields(&closed(&[field("enabled", Shape::Flag)]));
const PROBABILITY: Shape = Shape::Number(0.0, 1.0);
const SECONDS: Shape = Shape::Whole(1, 86_400);
const RATE: Shape = Shape::Number(0.0, 1e7);
const CONCURRENCY: Shape = Shape::Nullable(&Shape::Whole(1, 1_000_000));

/// Words for the protocols in `api_base_url`, `access_via` and `type`.
pub(in crate::config) const PROTOCOLS: &[&str] = &[
    "chat",
    "completions",
    "responses",
    "responses:lite",
    "messages",
    "gemini",
    "embeddings",
    "transcriptions",
    "speech",
    "images",
    "ollama",
];

/// Words for the selectors of a target group.
pub(in crate::config) const SELECTORS: &[&str] = &[
    "random",
    "in_order",
    "cost",
    "latency",
    "performance",
    "e2e_performance",
    "usage",
    "quota",
];

const MODEL_KINDS: &[&str] = &[
    "chat",
    "text",
    "embeddings",
    "transcriptions",
    "speech",
    "image",
];

/// The log levels, with the two that older files know.
pub(in crate::config) const LEVELS: &[&str] = &[
    "error", "warn", "info", "debug", "trace", "verbose", "silly",
];

/// Words for `oauth_provider`.
const OAUTH_PROVIDERS: &[&str] = &[
    "anthropic",
    "openai-codex",
    "github-copilot",
    "gemini-cli",
    "antigravity",
];

/// Names of the adapters.
pub(in crate::config) const ADAPTERS: &[&str] = &[
    "reasoning_content",
    "suppress_developer_role",
    "suppress_unsupported_gpt5_options",
    "model_override",
    "reasoning_rewrite",
    "web_search_coercion",
    "strip_unsupported_tool_search",
    "normalize_anthropic_tool_ids",
    "strip_gemini_signatures",
    "sign_gemini_calls",
    "strip_old_anthropic_fields",
];

const QUOTA_CHECKERS: &[&str] = &[
    "naga",
    "synthetic",
    "nanogpt",
    "zai",
    "moonshot",
    "novita",
    "minimax",
    "minimax-coding",
    "openrouter",
    "kilo",
    "openai-codex",
    "kimi-code",
    "claude-code",
    "copilot",
    "wisdomgate",
    "apertis",
    "poe",
    "routing-run",
    "ollama",
    "neuralwatt",
    "zenmux",
    "devpass",
    "wafer",
    "opencode-go",
    "crof",
    "exedev",
    "hyper",
    "deepseek",
    "sakana",
    "cline",
    "gemini-cli",
    "antigravity",
];

/// The whole file.
pub(in crate::config) static FILE: Table = closed(&[
    field("adminKey", Shape::Secret),
    field("server", Shape::Fields(&SERVER)),
    field("trustedProxies", TEXTS),
    field("store", Shape::Fields(&STORE)),
    field("logging", Shape::Fields(&LOGGING)),
    field("providers", Shape::Map(&Shape::Fields(&PROVIDER))),
    field("models", Shape::Map(&Shape::Fields(&ALIAS))),
    field("keys", Shape::Map(&Shape::Fields(&KEY))),
    field("user_quotas", Shape::Map(&Shape::Fields(&USER_QUOTA))),
    field("default_quotas", TEXTS),
    field("mcp_servers", Shape::Map(&Shape::Fields(&MCP_SERVER)))
        .also("mcpServers")
        .later("the MCP gateway"),
    field("mcpEnabled", Shape::Flag),
    field("mcpOAuth", SWITCH).later("OAuth for MCP clients"),
    field("failover", Shape::Fields(&FAILOVER)),
    field("cooldown", Shape::Fields(&COOLDOWN)),
    field("timeout", Shape::Fields(&TIMEOUT)),
    field("stall", Shape::Fields(&STALL)),
    field("performanceExplorationRate", PROBABILITY),
    field("latencyExplorationRate", PROBABILITY),
    field("e2ePerformanceExplorationRate", PROBABILITY),
    field(
        "backgroundExploration",
        Shape::Fields(&BACKGROUND_EXPLORATION),
    ),
    field("vision_fallthrough", Shape::Fields(&VISION_FALLTHROUGH)),
    field("compaction", Shape::Fields(&COMPACTION)).later("compaction"),
    field("captureTraceOnError", Shape::Flag),
    field("catalogue", Shape::Fields(&CATALOGUE)),
    field("strict", Shape::Flag),
    field("custom", Shape::Object),
]);

static SERVER: Table = closed(&[
    field("host", Shape::Text),
    field("port", Shape::Whole(0, 65_535)),
    field("unixSocket", Shape::Nullable(&Shape::Text)),
    field("tls", Shape::Nullable(&Shape::Fields(&TLS))),
    field("http2", Shape::Flag),
    field("trustedProxies", TEXTS),
    field("cors", Shape::Fields(&closed(&[field("origins", TEXTS)]))),
    field("limits", Shape::Fields(&LIMITS)),
    field("drainSeconds", Shape::Whole(0, 86_400)),
    field("heartbeatSeconds", SECONDS),
]);

static TLS: Table = closed(&[
    field("cert", Shape::Text).required(),
    field("key", Shape::Text).required(),
    field("clientCa", Shape::Nullable(&Shape::Text)),
    field(
        "minVersion",
        Shape::Either(&[Shape::Word(&["1.2", "1.3"]), Shape::Number(1.2, 1.3)]),
    ),
]);

static LIMITS: Table = closed(&[
    field("bodyMb", Shape::Whole(1, 10_240)),
    // The parser of request heads can't work with less than 8 KB.
    field("headerKb", Shape::Whole(8, 1_024)),
    field("headers", Shape::Whole(1, 10_000)),
    field("connections", Shape::Whole(1, 1_000_000)),
    field("headerSeconds", SECONDS),
    field("bodyIdleSeconds", SECONDS),
    field("keepAliveSeconds", SECONDS),
    field("streamsPerConnection", Shape::Whole(1, 100_000)),
]);

static STORE: Table = closed(&[
    field("url", Shape::Text),
    field("retention", Shape::Fields(&RETENTION)),
    field("responses", Shape::Flag),
]);

static CATALOGUE: Table = closed(&[
    field("enabled", Shape::Flag),
    field("refreshMinutes", Shape::Whole(1, 525_600)),
    field("openrouter", Shape::Nullable(&Shape::Text)),
    field("modelsDev", Shape::Nullable(&Shape::Text)),
    field("catwalk", Shape::Nullable(&Shape::Text)),
    field("huggingface", Shape::Nullable(&Shape::Text)),
]);

const DAYS: Shape = Shape::Whole(0, 36_500);

static RETENTION: Table = closed(&[
    field("usageDays", DAYS),
    field("databaseMb", Shape::Whole(0, 10_000_000)),
    field("errorDays", DAYS),
    field("debugDays", DAYS),
    field("debugMb", Shape::Whole(0, 1_000_000)),
    field("mcpDays", DAYS),
    field("responseDays", DAYS),
]);

static LOGGING: Table = closed(&[
    field("level", Shape::Word(LEVELS)),
    field("modules", TEXTS),
    field("format", Shape::Word(&["text", "json"])),
]);

pub(in crate::config) static PROVIDER: Table = closed(&[
    field("display_name", Shape::Nullable(&Shape::Text)),
    // Older files say here what is spoken at a single URL.
    field(
        "type",
        Shape::Either(&[
            Shape::Word(PROVIDER_TYPES),
            Shape::List(&Shape::Word(PROVIDER_TYPES)),
        ]),
    ),
    field(
        "api_base_url",
        Shape::Either(&[Shape::Text, Shape::Fields(&BASE_URLS)]),
    )
    .required(),
    field("api_key", Shape::Nullable(&Shape::Secret)),
    field(
        "oauth_provider",
        Shape::Nullable(&Shape::Word(OAUTH_PROVIDERS)),
    ),
    field("oauth_account", Shape::Nullable(&Shape::Text)),
    field("enabled", Shape::Flag),
    field("disable_cooldown", Shape::Flag),
    field("stall_cooldown", Shape::Flag),
    field("allow_100_percent_utilization", Shape::Flag).later("quota checkers"),
    field("discount", Shape::Nullable(&PROBABILITY)),
    field(
        "models",
        Shape::Nullable(&Shape::Either(&[
            TEXTS,
            Shape::Map(&Shape::Fields(&PROVIDER_MODEL)),
        ])),
    ),
    field("headers", HEADERS),
    field("extraBody", Shape::Object),
    field("estimateTokens", Shape::Flag),
    field("useClaudeMasking", Shape::Flag).later("client masking"),
    field(
        "quota_checker",
        Shape::Nullable(&Shape::Fields(&QUOTA_CHECKER)),
    )
    .later("quota checkers"),
    field(
        "model_autosync",
        Shape::Nullable(&Shape::Fields(&MODEL_AUTOSYNC)),
    )
    .later("the synchronising of model lists"),
    field("gpu_profile", Shape::Nullable(&Shape::Text)).later("energy estimates"),
    field("gpu_ram_gb", GPU).later("energy estimates"),
    field("gpu_bandwidth_tb_s", GPU).later("energy estimates"),
    field("gpu_flops_tflop", GPU).later("energy estimates"),
    field("gpu_power_draw_watts", GPU).later("energy estimates"),
    field("gemini_thinking_enabled", Shape::Flag)
        .also("geminiThinkingEnabled")
        .later("the Gemini thinking switch"),
    field("adapter", ADAPTER_LIST),
    field("auto_compat", Shape::Any).later("automatic compatibility"),
    field("timeoutMs", Shape::Nullable(&Shape::Whole(1, 86_400_000))),
    field(
        "connectTimeoutMs",
        Shape::Nullable(&Shape::Whole(1, 60_000)),
    ),
    field("maxConcurrency", CONCURRENCY),
    field(
        "stallTtfbMs",
        Shape::Nullable(&Shape::Whole(5_000, 120_000)),
    ),
    field("stallTtfbBytes", Shape::Nullable(&Shape::Whole(50, 10_000))),
    field("stallMinBps", Shape::Nullable(&Shape::Whole(50, 5_000))),
    field(
        "stallWindowMs",
        Shape::Nullable(&Shape::Whole(3_000, 30_000)),
    ),
    field(
        "stallGracePeriodMs",
        Shape::Nullable(&Shape::Whole(0, 120_000)),
    ),
    field("pi_ai_provider", Shape::Nullable(&Shape::Text)),
    field("compaction", Shape::Nullable(&Shape::Fields(&COMPACTION))).later("compaction"),
    field(
        "raw_passthrough",
        Shape::Nullable(&Shape::Fields(&RAW_PASSTHROUGH)),
    )
    .later("the raw proxy"),
]);

const GPU: Shape = Shape::Nullable(&Shape::Number(0.0, 1e9));

/// Protocol words, and the makers' names that stood for them.
const PROVIDER_TYPES: &[&str] = &[
    "chat",
    "completions",
    "responses",
    "messages",
    "gemini",
    "embeddings",
    "transcriptions",
    "speech",
    "images",
    "image",
    "ollama",
    "oauth",
    "openai",
    "anthropic",
    "google",
];

const BASE_URL: Shape = Shape::Nullable(&Shape::Text);

static BASE_URLS: Table = closed(&[
    field("chat", BASE_URL),
    field("completions", BASE_URL),
    field("responses", BASE_URL),
    field("responses:lite", BASE_URL),
    field("messages", BASE_URL),
    field("gemini", BASE_URL),
    field("embeddings", BASE_URL),
    field("transcriptions", BASE_URL),
    field("speech", BASE_URL),
    field("images", BASE_URL).also("image"),
    field("ollama", BASE_URL).later("the Ollama protocol"),
    field("default", BASE_URL),
]);

static PROVIDER_MODEL: Table = closed(&[
    field("type", Shape::Word(MODEL_KINDS)),
    field(
        "pricing",
        Shape::Nullable(&Shape::Tagged("source", PRICING)),
    ),
    field("access_via", Shape::List(&Shape::Word(PROTOCOLS))),
    field("extraBody", Shape::Object),
    field("adapter", ADAPTER_LIST),
    field("auto_compat", Shape::Any).later("automatic compatibility"),
    field("maxConcurrency", CONCURRENCY),
    field("pi_ai_model_id", Shape::Nullable(&Shape::Text)),
    field("capabilities", Shape::Fields(&CAPABILITIES)),
]);

const ADAPTER_LIST: Shape = Shape::Nullable(&Shape::Either(&[
    Shape::Word(ADAPTERS),
    Shape::List(&Shape::Either(&[
        Shape::Word(ADAPTERS),
        Shape::Tagged("name", ADAPTER),
    ])),
]));

/// The adapters, and the options of those that have any.
static ADAPTER: &[(&str, &Table)] = &[
    ("reasoning_content", &PLAIN_ADAPTER),
    ("suppress_developer_role", &PLAIN_ADAPTER),
    ("suppress_unsupported_gpt5_options", &PLAIN_ADAPTER),
    ("strip_unsupported_tool_search", &PLAIN_ADAPTER),
    ("normalize_anthropic_tool_ids", &PLAIN_ADAPTER),
    ("strip_gemini_signatures", &PLAIN_ADAPTER),
    ("sign_gemini_calls", &PLAIN_ADAPTER),
    ("strip_old_anthropic_fields", &PLAIN_ADAPTER),
    (
        "model_override",
        &closed(&[
            ADAPTER_NAME,
            field("options", Shape::Fields(&MODEL_OVERRIDE)),
            ADAPTER_SWITCH,
        ]),
    ),
    (
        "reasoning_rewrite",
        &closed(&[
            ADAPTER_NAME,
            field("options", Shape::Fields(&REASONING_REWRITE)),
            ADAPTER_SWITCH,
        ]),
    ),
    (
        "web_search_coercion",
        &closed(&[
            ADAPTER_NAME,
            field("options", Shape::Fields(&WEB_SEARCH_COERCION)),
            ADAPTER_SWITCH,
        ]),
    ),
];

const ADAPTER_NAME: Field = field("name", Shape::Word(ADAPTERS));
const ADAPTER_SWITCH: Field = field("enabled", Shape::Flag);

static PLAIN_ADAPTER: Table = closed(&[
    ADAPTER_NAME,
    field("options", Shape::Fields(&closed(&[]))),
    ADAPTER_SWITCH,
]);

static MODEL_OVERRIDE: Table = closed(&[field(
    "rules",
    Shape::List(&Shape::Fields(&closed(&[
        field("model", Shape::Text).required(),
        field("rewriteTo", Shape::Text).required(),
        field(
            "conditions",
            Shape::List(&Shape::Fields(&closed(&[
                field("field", Shape::Text).required(),
                field("value", Shape::Any),
            ]))),
        )
        .required(),
    ]))),
)
.required()]);

static REASONING_REWRITE: Table = closed(&[field(
    "rules",
    Shape::List(&Shape::Fields(&closed(&[
        field("from", Shape::Text).required(),
        field("to", Shape::Nullable(&Shape::Text)),
        field("values", Shape::Map(&Shape::Any)),
    ]))),
)
.required()]);

static WEB_SEARCH_COERCION: Table = closed(&[
    field(
        "target",
        Shape::Word(&["anthropic", "openai", "openrouter", "google"]),
    )
    .required(),
    field("max_uses", Shape::Nullable(&Shape::Whole(1, 1_000))),
]);

static CAPABILITIES: Table = closed(&[
    field("max_output", Shape::Whole(1, 1_000_000_000)),
    field("context", Shape::Whole(1, 1_000_000_000)),
    field(
        "thinking",
        Shape::List(&Shape::Word(&[
            "off",
            "budget",
            "adaptive",
            "between_tools",
            "levels",
        ])),
    ),
    field("efforts", TEXTS),
    field("sampling", Shape::Flag),
    field("forced_with_thinking", Shape::Flag),
    field("prefill", Shape::Flag),
    field("mid_system", Shape::Flag),
    field("structured", Shape::Flag),
    field("strict_tools", Shape::Flag),
    field("developer_role", Shape::Flag),
    field(
        "max_tokens_key",
        Shape::Word(&["max_completion_tokens", "max_tokens"]),
    ),
    field("usage_in_stream", Shape::Flag),
    field("echo_reasoning", Shape::Flag),
    field("think_tags", Shape::Flag),
    field("cache_breakpoints", Shape::Flag),
    field("auto_cache", Shape::Flag),
    field("web_search", Shape::Flag),
    field("code_exec", Shape::Flag),
    field("tool_mixing", Shape::Flag),
    field("fr_parts", Shape::Flag),
    field("schema_mode", Shape::Word(&["json_schema", "openapi"])),
    field("image_url", Shape::Flag),
    field("image_b64", Shape::Flag),
    field("pdf", Shape::Flag),
    field("audio", Shape::Flag),
    field("video", Shape::Flag),
]);

/// The four sources of a price, and their fields.
static PRICING: &[(&str, &Table)] = &[
    (
        "simple",
        &closed(&[
            field("source", Shape::Text),
            field("input", RATE),
            field("output", RATE),
            field("cached", Shape::Nullable(&RATE)),
            field("cache_write", Shape::Nullable(&RATE)),
            field("cache_write_1h", Shape::Nullable(&RATE)),
            field("reasoning", Shape::Nullable(&RATE)),
            field("audio_input", Shape::Nullable(&RATE)),
            field("audio_output", Shape::Nullable(&RATE)),
            field("image_input", Shape::Nullable(&RATE)),
            field("image_output", Shape::Nullable(&RATE)),
            field("discount", Shape::Nullable(&PROBABILITY)),
        ]),
    ),
    (
        "defined",
        &closed(&[
            field("source", Shape::Text),
            field("range", Shape::List(&Shape::Fields(&PRICE_RANGE))).required(),
            field("discount", Shape::Nullable(&PROBABILITY)),
        ]),
    ),
    (
        "per_request",
        &closed(&[
            field("source", Shape::Text),
            field("amount", RATE).required(),
            field("discount", Shape::Nullable(&PROBABILITY)),
        ]),
    ),
    (
        "openrouter",
        &closed(&[
            field("source", Shape::Text),
            field("slug", Shape::Text).required(),
            field("discount", Shape::Nullable(&PROBABILITY)),
        ]),
    ),
];

static PRICE_RANGE: Table = closed(&[
    field("lower_bound", Shape::Number(0.0, 1e15)),
    field("upper_bound", Shape::Bound),
    field("input_per_m", RATE).required(),
    field("output_per_m", RATE).required(),
    field("cached_per_m", Shape::Nullable(&RATE)),
    field("cache_write_per_m", Shape::Nullable(&RATE)),
    field("cache_write_1h_per_m", Shape::Nullable(&RATE)),
    field("reasoning_per_m", Shape::Nullable(&RATE)),
    field("audio_input_per_m", Shape::Nullable(&RATE)),
    field("audio_output_per_m", Shape::Nullable(&RATE)),
    field("image_input_per_m", Shape::Nullable(&RATE)),
    field("image_output_per_m", Shape::Nullable(&RATE)),
]);

static QUOTA_CHECKER: Table = closed(&[
    field("type", Shape::Word(QUOTA_CHECKERS)).required(),
    field("enabled", Shape::Flag),
    field("intervalMinutes", Shape::Number(1.0, 525_600.0)),
    field("id", Shape::Nullable(&Shape::Text)),
    field("options", Shape::Options),
]);

static MODEL_AUTOSYNC: Table = closed(&[
    field("enabled", Shape::Flag),
    field("intervalMinutes", Shape::Number(1.0, 525_600.0)),
]);

static RAW_PASSTHROUGH: Table = closed(&[
    field("enabled", Shape::Flag),
    field("base_url", Shape::Nullable(&Shape::Text)),
    field("auth", Shape::Any),
]);

/// Compaction is free-form beyond these two.
static COMPACTION: Table = open(&[
    field("enabled", Shape::Nullable(&Shape::Flag)),
    field(
        "strategy",
        Shape::Nullable(&Shape::Word(&["native", "headroom"])),
    ),
]);

pub(in crate::config) static ALIAS: Table = closed(&[
    field("type", Shape::Word(MODEL_KINDS)),
    field("priority", Shape::Word(&["selector", "api_match"])),
    field("target_groups", Shape::List(&Shape::Fields(&TARGET_GROUP))),
    // The short form: one group without the wrapping.
    field("selector", Shape::Word(SELECTORS)),
    field("targets", Shape::List(&Shape::Fields(&TARGET))),
    field("additional_aliases", TEXTS),
    field("use_image_fallthrough", Shape::Flag),
    field("enforce_limits", Shape::Flag),
    field("sticky_session", Shape::Flag),
    field(
        "preferred_api",
        Shape::Nullable(&Shape::Either(&[Shape::Text, TEXTS])),
    ),
    field("advanced", Shape::List(&Shape::Fields(&BEHAVIOUR))).later("behaviours"),
    field("metadata", Shape::Nullable(&Shape::Fields(&METADATA))),
    field("pi_provider", Shape::Any),
    field("pi_model", Shape::Any),
    field("pi_options", Shape::Any),
    field("extraBody", Shape::Object),
    field("model_architecture", Shape::Object).later("energy estimates"),
    field("compaction", Shape::Nullable(&Shape::Fields(&COMPACTION))).later("compaction"),
]);

static TARGET_GROUP: Table = closed(&[
    field("name", Shape::Text).required(),
    field("selector", Shape::Word(SELECTORS)),
    field("targets", Shape::List(&Shape::Fields(&TARGET))),
]);

static TARGET: Table = closed(&[
    field("provider", Shape::Text),
    field("model", Shape::Text),
    field("alias", Shape::Text),
    field("enabled", Shape::Flag),
    field("weight", Shape::Number(0.001, 1e6)),
]);

static BEHAVIOUR: Table = closed(&[
    field("type", Shape::Word(&["strip_adaptive_thinking"])).required(),
    field("enabled", Shape::Flag),
]);

static METADATA: Table = closed(&[
    field(
        "source",
        Shape::Word(&[
            "auto",
            "disabled",
            "openrouter",
            "models.dev",
            "catwalk",
            "custom",
        ]),
    )
    .required(),
    field("source_path", Shape::Nullable(&Shape::Text)),
    field("overrides", Shape::Object),
]);

pub(in crate::config) static KEY: Table = closed(&[
    field("secret", Shape::Secret).required(),
    field("comment", Shape::Nullable(&Shape::Text)),
    field("quotas", Shape::Either(&[Shape::Text, TEXTS])).also("quota"),
    field("allowedModels", TEXTS),
    field("excludedModels", TEXTS),
    field("allowedProviders", TEXTS),
    field("excludedProviders", TEXTS),
    field("allowedIps", TEXTS),
    field("allowRawPassthrough", Shape::Flag).later("the raw proxy"),
    field("expiresAt", TIME),
    field("disabledAt", TIME),
    field("strict", Shape::Flag),
    field(
        "chatReasoning",
        Shape::Word(&["content", "reasoning", "details"]),
    )
    .also("chat_reasoning"),
    field("responsesReasoning", Shape::Word(&["summary", "content"])).also("responses_reasoning"),
    field("maxConcurrency", CONCURRENCY),
]);

/// Milliseconds since the epoch, or RFC 3339.
const TIME: Shape = Shape::Nullable(&Shape::Either(&[
    Shape::Whole(0, 253_402_300_799_999),
    Shape::Text,
]));

pub(in crate::config) static USER_QUOTA: Table = closed(&[
    field(
        "type",
        Shape::Word(&["rolling", "daily", "weekly", "monthly"]),
    )
    .required(),
    field("duration", Shape::Nullable(&Shape::Text)),
    field("limitType", Shape::Word(&["requests", "tokens", "cost"])).required(),
    field("limit", Shape::Number(0.0, 1e15)).required(),
    field("allowedProviders", TEXTS),
    field("excludedProviders", TEXTS),
    field("allowedModels", TEXTS),
    field("excludedModels", TEXTS),
    field("shared", Shape::Flag),
    field("warnAt", Shape::Nullable(&PROBABILITY)),
]);

static MCP_SERVER: Table = closed(&[
    field("upstream_url", Shape::Text),
    field("enabled", Shape::Flag),
    field("headers", HEADERS),
    field("auth_scheme", Shape::Nullable(&Shape::Text)),
    field("rate_limit_cooldown_ms", Shape::Whole(0, 31_536_000_000)),
    field("quota_cooldown_ms", Shape::Whole(0, 31_536_000_000)),
    field("mode", Shape::Word(&["remote_http", "local_http"])),
    field("launcher", Shape::Word(&["bunx", "uvx"])),
    field("package", Shape::Text),
    field("args", TEXTS),
    field("env", HEADERS),
    field("port", Shape::Whole(1, 65_535)),
    field("path", Shape::Text),
    field("startup_timeout_ms", Shape::Whole(1, 3_600_000)),
]);

static FAILOVER: Table = closed(&[
    field("enabled", Shape::Flag),
    field("retryableStatusCodes", Shape::List(&Shape::Whole(100, 599))),
    field("retryableErrors", TEXTS),
    field("maxAttempts", Shape::Whole(1, 100)),
]);

static COOLDOWN: Table = closed(&[
    field("initialMinutes", Shape::Number(0.1, 525_600.0)),
    field("maxMinutes", Shape::Number(0.1, 525_600.0)),
]);

static TIMEOUT: Table = closed(&[
    field("defaultSeconds", Shape::Whole(1, 3_600)),
    field("connectSeconds", Shape::Number(0.1, 60.0)),
]);

static STALL: Table = closed(&[
    field("ttfbSeconds", Shape::Nullable(&Shape::Number(5.0, 120.0))),
    field("ttfbBytes", Shape::Whole(50, 10_000)),
    field(
        "minBytesPerSecond",
        Shape::Nullable(&Shape::Whole(50, 5_000)),
    ),
    field("windowSeconds", Shape::Whole(3, 30)),
    field("gracePeriodSeconds", Shape::Whole(0, 120)),
    field("stallCooldown", Shape::Flag),
]);

static BACKGROUND_EXPLORATION: Table = closed(&[
    field("enabled", Shape::Flag),
    field("stalenessThresholdSeconds", Shape::Whole(1, 31_536_000)),
    field("workerConcurrency", Shape::Whole(1, 16)),
]);

static VISION_FALLTHROUGH: Table = open(&[
    field("descriptor_model", Shape::Nullable(&Shape::Text)),
    field("default_prompt", Shape::Nullable(&Shape::Text)),
]);

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::tree::{self, Node};
    use super::*;

    /// Every table and field that stands in a tree.
    #[derive(Default)]
    struct Shown(HashSet<(*const Table, &'static str)>);

    impl Shown {
        fn fields(&mut self, node: &Node, table: &'static Table) {
            for entry in node.entries() {
                if let Some(field) = table.field(&entry.key) {
                    self.0.insert((std::ptr::from_ref(table), field.name));
                    self.value(&entry.value, &field.shape);
                }
            }
        }

        fn value(&mut self, node: &Node, shape: &'static Shape) {
            match shape {
                Shape::Nullable(inner) => self.value(node, inner),
                Shape::List(inner) => node.items().iter().for_each(|item| self.value(item, inner)),
                Shape::Map(inner) => {
                    node.entries()
                        .iter()
                        .for_each(|entry| self.value(&entry.value, inner));
                }
                Shape::Fields(table) => self.fields(node, table),
                Shape::Tagged(tag, variants) => {
                    let word = node.get(tag).and_then(Node::text);
                    let chosen = variants.iter().find(|(name, _)| Some(*name) == word);
                    chosen
                        .iter()
                        .for_each(|(_, table)| self.fields(node, table));
                }
                Shape::Either(shapes) => shapes.iter().for_each(|shape| self.value(node, shape)),
                _ => {}
            }
        }
    }

    /// Every table that a shape leads to, once.
    fn tables(shape: &'static Shape, all: &mut Vec<&'static Table>) {
        match shape {
            Shape::Nullable(inner) | Shape::List(inner) | Shape::Map(inner) => tables(inner, all),
            Shape::Fields(table) => below(table, all),
            Shape::Tagged(_, variants) => variants.iter().for_each(|(_, table)| below(table, all)),
            Shape::Either(shapes) => shapes.iter().for_each(|shape| tables(shape, all)),
            _ => {}
        }
    }

    fn below(table: &'static Table, all: &mut Vec<&'static Table>) {
        if !all.iter().any(|known| std::ptr::eq(*known, table)) {
            all.push(table);
            table
                .fields
                .iter()
                .for_each(|field| tables(&field.shape, all));
        }
    }

    #[test]
    fn the_example_file_shows_every_field() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/plexus.example.yaml");
        let text = std::fs::read_to_string(path).unwrap();
        let mut shown = Shown::default();
        shown.fields(&tree::parse(&text).0, &FILE);
        // What can't stand beside its alternative is shown in a comment.
        let comments: Vec<&str> = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix('#'))
            .map(str::trim)
            .collect();
        let mut all = Vec::new();
        below(&FILE, &mut all);
        assert!(all.len() > 30);
        for table in all {
            for field in table.fields {
                let live = shown.0.contains(&(std::ptr::from_ref(table), field.name));
                let start = format!("{}:", field.name);
                let commented = comments.iter().any(|line| line.starts_with(&start));
                assert!(
                    live || commented,
                    "{} is not in plexus.example.yaml",
                    field.name
                );
            }
        }
    }

    #[test]
    fn no_table_has_a_name_twice() {
        let mut all = Vec::new();
        below(&FILE, &mut all);
        for table in all {
            let mut names = HashSet::new();
            for name in table
                .fields
                .iter()
                .flat_map(|f| [Some(f.name), f.also])
                .flatten()
            {
                assert!(names.insert(name), "{name}");
            }
        }
    }
}
