//! What is known of hosts and models. A row is put over those before it; a model
//! that is newer than the table gets what the newest rows say.

use super::super::Protocol;
use super::super::ir::Effort::{self, High, Low, Max, Medium, Minimal, None, XHigh};

/// One thing that is known.
pub(super) enum Set {
    /// The most tokens of output.
    Output(u64),
    /// The most tokens of input and output.
    Context(u64),
    /// How orders about reasoning are taken.
    Thinking(&'static [Way]),
    /// The efforts that are known.
    Efforts(&'static [Effort]),
    /// A capability that is there.
    Yes(&'static str),
    /// A capability that is not.
    No(&'static str),
    /// Schemas in OpenAPI's subset only.
    OpenApi,
}

/// A way to take orders about reasoning.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Off,
    Budget,
    Adaptive,
    BetweenTools,
    Levels,
    Effort,
}

impl Way {
    /// By its word in the configuration.
    pub(super) fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "off" => Self::Off,
            "budget" => Self::Budget,
            "adaptive" => Self::Adaptive,
            "between_tools" => Self::BetweenTools,
            "levels" => Self::Levels,
            _ => return Option::None,
        })
    }
}

/// What is known of a host.
pub(super) struct Host {
    /// The host, or the domain above it.
    pub(super) host: &'static str,
    /// The protocols of which that is true.
    pub(super) protocols: &'static [Protocol],
    pub(super) set: &'static [Set],
}

/// Models of one name.
pub(super) struct Family {
    /// What their names begin with, behind whatever a reseller puts before.
    pub(super) word: &'static str,
    /// The protocols that take all of what is known; through others, only the
    /// sizes hold.
    pub(super) native: &'static [Protocol],
    pub(super) rows: &'static [Row],
}

impl Family {
    /// A model's name from the family's word on.
    pub(super) fn find<'n>(&self, name: &'n str) -> Option<&'n str> {
        let at = name.find(self.word)?;
        let before = name.get(..at)?;
        let whole = before.is_empty() || before.ends_with(['-', '.', '_', ':']);
        whole.then(|| name.get(at..)).flatten()
    }
}

/// What is known of some models of a family.
pub(super) struct Row {
    pub(super) names: &'static [&'static str],
    /// The first version of which it is true.
    pub(super) from: (u16, u16),
    /// The first of which it is not.
    pub(super) below: (u16, u16),
    pub(super) set: &'static [Set],
}

/// The version of a model whose name tells none.
pub(super) const NEWEST: (u16, u16) = (u16::MAX - 1, 0);
const FIRST: (u16, u16) = (0, 0);
const OPEN: (u16, u16) = (u16::MAX, 0);

const OPENAI: &[Protocol] = &[Protocol::Chat, Protocol::Responses];
const CHAT: &[Protocol] = &[Protocol::Chat];
const MESSAGES: &[Protocol] = &[Protocol::Messages];
const GEMINI: &[Protocol] = &[Protocol::Gemini];

const fn host(host: &'static str, protocols: &'static [Protocol], set: &'static [Set]) -> Host {
    Host {
        host,
        protocols,
        set,
    }
}

/// All versions of some names.
const fn all(names: &'static [&'static str], set: &'static [Set]) -> Row {
    between(names, FIRST, OPEN, set)
}

/// From a version on.
const fn from(names: &'static [&'static str], from: (u16, u16), set: &'static [Set]) -> Row {
    between(names, from, OPEN, set)
}

const fn between(
    names: &'static [&'static str],
    from: (u16, u16),
    below: (u16, u16),
    set: &'static [Set],
) -> Row {
    Row {
        names,
        from,
        below,
        set,
    }
}

const AS_OPENAI: &[Set] = &[
    Set::Yes("developer_role"),
    Set::Yes("max_completion_tokens"),
    Set::Yes("strict_tools"),
    Set::Yes("pdf"),
];

/// Hosts. What is not listed is taken for a server that speaks its protocol in
/// the plainest way.
pub(super) const HOSTS: &[Host] = &[
    host("openai.com", OPENAI, AS_OPENAI),
    host("azure.com", OPENAI, AS_OPENAI),
    host("openai.com", &[Protocol::Responses], HOSTED),
    host("azure.com", &[Protocol::Responses], HOSTED),
    host("chatgpt.com", OPENAI, AS_OPENAI),
    host(
        "chatgpt.com",
        &[Protocol::Responses],
        &[Set::Yes("web_search"), Set::Yes("stream_only")],
    ),
    host(
        "openrouter.ai",
        OPENAI,
        &[Set::Yes("strict_tools"), Set::Yes("pdf")],
    ),
    host("anthropic.com", MESSAGES, &[Set::Yes("auto_cache")]),
    host("groq.com", CHAT, &[Set::Yes("max_completion_tokens")]),
    host("cerebras.ai", CHAT, &[Set::Yes("max_completion_tokens")]),
    host(
        "x.ai",
        OPENAI,
        &[Set::Yes("max_completion_tokens"), Set::Yes("strict_tools")],
    ),
    host("x.ai", &[Protocol::Responses], HOSTED),
    // Usage is on the last chunk without asking, and unknown fields are refused.
    host("mistral.ai", CHAT, &[Set::No("usage_in_stream")]),
    host(
        "deepseek.com",
        CHAT,
        &[
            Set::No("structured"),
            Set::No("image_url"),
            Set::No("image_b64"),
        ],
    ),
    host(
        "moonshot.ai",
        CHAT,
        &[Set::No("structured"), Set::No("image_url")],
    ),
    host(
        "moonshot.cn",
        CHAT,
        &[Set::No("structured"), Set::No("image_url")],
    ),
    host("z.ai", CHAT, &[Set::No("structured")]),
    host("bigmodel.cn", CHAT, &[Set::No("structured")]),
    host("minimax.io", CHAT, &[Set::Yes("think_tags")]),
    host("minimaxi.com", CHAT, &[Set::Yes("think_tags")]),
    host("*aiplatform.googleapis.com", GEMINI, &[Set::OpenApi]),
];

const HOSTED: &[Set] = &[Set::Yes("web_search"), Set::Yes("code_exec")];

/// The families. The first that a name belongs to counts.
pub(super) const FAMILIES: &[Family] = &[
    Family {
        word: "claude",
        native: MESSAGES,
        rows: CLAUDE,
    },
    Family {
        word: "gpt-oss",
        native: OPENAI,
        rows: &[all(
            &["*"],
            &[Set::Output(131_072), Set::Context(131_072), Set::No("pdf")],
        )],
    },
    Family {
        word: "gpt-",
        native: OPENAI,
        rows: GPT,
    },
    Family {
        word: "chatgpt-",
        native: OPENAI,
        rows: &[all(&["*"], PLAIN_GPT)],
    },
    Family {
        word: "gemini",
        native: GEMINI,
        rows: GOOGLE,
    },
    Family {
        word: "gemma",
        native: GEMINI,
        rows: &[all(
            &["*"],
            &[Set::OpenApi, Set::No("audio"), Set::No("video")],
        )],
    },
    Family {
        word: "deepseek",
        native: CHAT,
        rows: DEEPSEEK,
    },
    Family {
        word: "kimi",
        native: CHAT,
        rows: KIMI,
    },
    Family {
        word: "grok",
        native: OPENAI,
        rows: GROK,
    },
    Family {
        word: "glm",
        native: CHAT,
        rows: &[all(&["*"], &[Set::Thinking(&[])])],
    },
    Family {
        word: "minimax-m",
        native: CHAT,
        rows: &[all(&["*"], &[Set::Thinking(&[]), Set::Yes("think_tags")])],
    },
    Family {
        word: "qwq",
        native: CHAT,
        rows: &[all(&["*"], &[Set::Thinking(&[]), Set::Yes("think_tags")])],
    },
    Family {
        word: "qwen",
        native: CHAT,
        rows: &[all(&["*"], &[Set::Thinking(&[])])],
    },
    Family {
        word: "mistral",
        native: CHAT,
        rows: PLAIN_CHAT,
    },
    Family {
        word: "codestral",
        native: CHAT,
        rows: PLAIN_CHAT,
    },
    Family {
        word: "llama",
        native: CHAT,
        rows: PLAIN_CHAT,
    },
    Family {
        word: "codex-mini",
        native: OPENAI,
        rows: O_SERIES,
    },
    Family {
        word: "o1",
        native: OPENAI,
        rows: O_SERIES,
    },
    Family {
        word: "o3",
        native: OPENAI,
        rows: O_SERIES,
    },
    Family {
        word: "o4",
        native: OPENAI,
        rows: O_SERIES,
    },
];

const PLAIN_CHAT: &[Row] = &[all(&["*"], &[Set::Thinking(&[])])];

/// <https://platform.claude.com/docs/en/about-claude/models/overview>
const CLAUDE: &[Row] = &[
    all(
        &["*"],
        &[
            Set::Context(200_000),
            Set::Output(4096),
            Set::Yes("prefill"),
            Set::Efforts(&[]),
        ],
    ),
    from(&["*"], (3, 5), &[Set::Output(8192), Set::Yes("web_search")]),
    between(
        &["*"],
        (3, 7),
        (4, 7),
        &[Set::Thinking(&[Way::Off, Way::Budget]), Set::Output(64_000)],
    ),
    from(&["*"], (3, 7), &[Set::Yes("code_exec")]),
    between(&["*opus*"], (4, 0), (4, 5), &[Set::Output(32_000)]),
    from(
        &["*"],
        (4, 5),
        &[Set::Yes("structured"), Set::Yes("strict_tools")],
    ),
    between(
        &["*opus*"],
        (4, 5),
        (4, 6),
        &[Set::Efforts(&[Low, Medium, High])],
    ),
    from(
        &["*"],
        (4, 6),
        &[
            Set::Output(128_000),
            Set::Context(1_000_000),
            Set::No("prefill"),
            Set::Efforts(&[Low, Medium, High, Max]),
        ],
    ),
    between(
        &["*"],
        (4, 6),
        (4, 7),
        &[Set::Thinking(&[Way::Off, Way::Budget, Way::Adaptive])],
    ),
    from(
        &["*"],
        (4, 7),
        &[
            Set::Thinking(&[Way::Off, Way::Adaptive]),
            Set::Efforts(&[Low, Medium, High, XHigh, Max]),
            Set::No("sampling"),
        ],
    ),
    from(&["*"], (4, 8), &[Set::Yes("mid_system")]),
    between(&["*sonnet*"], (5, 0), (5, 1), &[Set::No("mid_system")]),
    // These always think.
    from(&["*fable*", "*mythos*"], FIRST, ALWAYS_THINKING),
    from(&["*opus*"], (5, 1), ALWAYS_THINKING),
    between(
        &["*sonnet*"],
        (5, 1),
        NEWEST,
        &[Set::Thinking(&[Way::Adaptive, Way::BetweenTools])],
    ),
    from(&["*"], NEWEST, ALWAYS_THINKING),
];

const ALWAYS_THINKING: &[Set] = &[Set::Thinking(&[Way::Adaptive])];

const PLAIN_GPT: &[Set] = &[
    Set::Thinking(&[]),
    Set::Efforts(&[]),
    Set::Yes("sampling"),
    Set::Output(16_384),
    Set::Context(128_000),
];

/// <https://platform.openai.com/docs/models>
const GPT: &[Row] = &[
    between(&["*"], FIRST, (5, 0), PLAIN_GPT),
    between(
        &["*"],
        FIRST,
        (4, 0),
        &[
            Set::Output(4096),
            Set::Context(16_385),
            Set::No("structured"),
            Set::No("image_url"),
            Set::No("image_b64"),
            Set::No("pdf"),
        ],
    ),
    all(
        &["gpt-4", "gpt-4-*"],
        &[Set::Output(4096), Set::No("structured"), Set::No("pdf")],
    ),
    between(
        &["*"],
        (4, 1),
        (5, 0),
        &[Set::Output(32_768), Set::Context(1_047_576)],
    ),
    from(
        &["*"],
        (5, 0),
        &[
            Set::Thinking(&[Way::Effort]),
            Set::Efforts(&[Minimal, Low, Medium, High]),
            Set::No("sampling"),
            Set::Output(128_000),
            Set::Context(400_000),
        ],
    ),
    from(
        &["*"],
        (5, 1),
        &[
            Set::Thinking(&[Way::Effort, Way::Off]),
            Set::Efforts(&[None, Low, Medium, High]),
        ],
    ),
    from(
        &["*"],
        (5, 2),
        &[Set::Efforts(&[None, Low, Medium, High, XHigh])],
    ),
    from(&["*"], (5, 4), &[Set::Context(1_050_000)]),
    between(
        &["*mini*", "*nano*"],
        (5, 4),
        OPEN,
        &[Set::Context(400_000)],
    ),
    from(
        &["*"],
        (5, 6),
        &[
            Set::Efforts(&[None, Low, Medium, High, XHigh, Max]),
            Set::Yes("cache_breakpoints"),
        ],
    ),
    between(&["*codex*"], (5, 0), (5, 2), CODEX),
    from(
        &["*codex*"],
        (5, 2),
        &[
            Set::Thinking(&[Way::Effort]),
            Set::Efforts(&[Low, Medium, High, XHigh]),
        ],
    ),
    between(
        &["*codex-max*"],
        (5, 1),
        (5, 2),
        &[Set::Efforts(&[Low, Medium, High, XHigh])],
    ),
    between(
        &["*-pro*"],
        (5, 0),
        (5, 2),
        &[Set::Thinking(&[Way::Effort]), Set::Efforts(&[High])],
    ),
    from(
        &["*-pro*"],
        (5, 2),
        &[
            Set::Thinking(&[Way::Effort]),
            Set::Efforts(&[Medium, High, XHigh]),
        ],
    ),
    from(&["*-chat*"], (5, 0), PLAIN_GPT),
    all(&["*audio*"], &[Set::Yes("audio"), Set::No("structured")]),
    all(&["*search*"], &[Set::Yes("web_search")]),
];

const CODEX: &[Set] = &[
    Set::Thinking(&[Way::Effort]),
    Set::Efforts(&[Low, Medium, High]),
];

const O_SERIES: &[Row] = &[
    all(
        &["*"],
        &[
            Set::Thinking(&[Way::Effort]),
            Set::Efforts(&[Low, Medium, High]),
            Set::No("sampling"),
            Set::Output(100_000),
            Set::Context(200_000),
        ],
    ),
    all(
        &["o1-mini*", "o1-preview*"],
        &[
            Set::Thinking(&[]),
            Set::Efforts(&[]),
            Set::No("developer_role"),
            Set::No("structured"),
            Set::Output(65_536),
            Set::Context(128_000),
        ],
    ),
];

/// <https://ai.google.dev/gemini-api/docs/models>
const GOOGLE: &[Row] = &[
    all(
        &["*"],
        &[
            Set::Context(1_048_576),
            Set::Output(8192),
            Set::Efforts(&[]),
            Set::Yes("code_exec"),
        ],
    ),
    between(&["*"], FIRST, (2, 5), &[Set::OpenApi]),
    from(&["*"], (2, 0), &[Set::Yes("web_search")]),
    between(
        &["*"],
        (2, 5),
        (3, 0),
        &[Set::Thinking(&[Way::Off, Way::Budget])],
    ),
    between(&["*pro*"], (2, 5), (3, 0), &[Set::Thinking(&[Way::Budget])]),
    from(&["*"], (2, 5), &[Set::Output(65_536)]),
    from(
        &["*"],
        (3, 0),
        &[
            Set::Thinking(&[Way::Levels]),
            Set::Efforts(&[Low, Medium, High]),
            Set::Yes("tool_mixing"),
            Set::Yes("fr_parts"),
        ],
    ),
    between(&["*pro*"], (3, 0), (3, 1), &[Set::Efforts(&[Low, High])]),
    between(
        &["*flash*"],
        (3, 0),
        (3, 8),
        &[Set::Efforts(&[Minimal, Low, Medium, High])],
    ),
    all(
        &["*image*"],
        &[
            Set::No("code_exec"),
            Set::No("structured"),
            Set::Thinking(&[]),
        ],
    ),
];

/// <https://api-docs.deepseek.com/guides/thinking_mode>
const DEEPSEEK: &[Row] = &[
    all(&["*"], &[Set::Thinking(&[]), Set::Yes("echo_reasoning")]),
    all(
        &["deepseek-r1*"],
        &[Set::No("echo_reasoning"), Set::Yes("think_tags")],
    ),
    between(&["*-v*"], FIRST, (3, 2), &[Set::No("echo_reasoning")]),
    between(
        &["*-v*"],
        (4, 0),
        NEWEST,
        &[
            Set::Thinking(&[Way::Effort]),
            Set::Efforts(&[Low, High, Max]),
            Set::Output(384_000),
            Set::Context(1_000_000),
        ],
    ),
];

const KIMI: &[Row] = &[
    all(&["*"], &[Set::Thinking(&[]), Set::Yes("echo_reasoning")]),
    between(
        &[
            "kimi-k2-0*",
            "kimi-k2-instruct*",
            "kimi-k2",
            "kimi-k2-turbo*",
        ],
        FIRST,
        (2, 5),
        &[Set::No("echo_reasoning")],
    ),
];

const GROK: &[Row] = &[
    all(&["*"], &[Set::Thinking(&[])]),
    all(
        &["grok-3-mini*"],
        &[Set::Thinking(&[Way::Effort]), Set::Efforts(&[Low, High])],
    ),
];
