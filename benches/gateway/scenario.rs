//! What is measured under load, as one table, and the requests that it takes.

use std::fmt::Write;

use serde_json::json;

use crate::Failure;

/// The credential of the bench's only client.
pub(crate) const KEY: &str = "sk-bench-0123456789abcdef0123456789abcdef";

/// Text as people send it to models: prose, code, and what JSON escapes.
const PROSE: &str = "The gateway keeps the bytes of a prompt as they came, because a cache at \
the provider only hits when nothing moved.\nSo it looks for what it needs from both ends:\n\n\
```rust\nfn seam(text: &str) -> Option<(usize, &str)> {\n\tlet at = text.find(\"\\n\\n\")?;\n\
\tSome((at, &text[at + 2..]))\n}\n```\n\n\"Naïve,\" said the reviewer — «et pourtant», 日本語 \
and 🙂 pass through it unharmed. { \"kind\": \"note\", \"path\": \"C:\\\\temp\\\\x\" }\n";

/// A row of the table of loads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scenario {
    /// What it is called on the command line.
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) connections: usize,
    /// What the simulated provider is asked for, in its words.
    pub(crate) options: &'static str,
    /// What the gateway speaks to the provider; the client speaks chat.
    pub(crate) spoken: &'static str,
    /// The most tokens that the client asks for, where it says so.
    pub(crate) most: Option<u32>,
    pub(crate) question: Question,
    /// Bytes of the prompt.
    pub(crate) prompt: usize,
    /// `model` stands before the messages.
    pub(crate) model_first: bool,
    /// What one answer is divided into.
    pub(crate) unit: Unit,
    /// Highest ratio to the floor, where there is one: of the serving threads,
    /// and of all.
    pub(crate) goal: (Option<f64>, Option<f64>),
}

/// Whether a stream is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    /// One document.
    Unary,
    /// A stream whose last event is the usage, as the client wants it.
    Stream,
    /// A stream without it: the gateway asks for it and takes it out again.
    StreamUnmetered,
}

/// What costs are given for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Request,
    Stream,
    Chunk,
}

impl Unit {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Stream => "stream",
            Self::Chunk => "chunk",
        }
    }
}

const UNARY: Scenario = Scenario {
    name: "unary",
    title: "unary, 1 KB each way",
    connections: 64,
    options: "chunks=1+bytes=330",
    spoken: "chat",
    most: None,
    question: Question::Unary,
    prompt: 900,
    model_first: false,
    unit: Unit::Request,
    goal: (Some(1.2), Some(1.35)),
};

const SSE: Scenario = Scenario {
    name: "sse",
    title: "SSE of 200 chunks, saturated",
    connections: 32,
    options: "chunks=200+bytes=24",
    question: Question::Stream,
    unit: Unit::Stream,
    goal: (Some(1.0), None),
    ..UNARY
};

const MEGABYTE: Scenario = Scenario {
    name: "1mb",
    title: "1 MB request, `model` behind",
    connections: 8,
    prompt: 1_000_000,
    goal: (Some(1.1), None),
    ..UNARY
};

const TEN_MEGABYTES: Scenario = Scenario {
    name: "10mb",
    title: "10 MB request, `model` behind",
    connections: 4,
    prompt: 10_000_000,
    ..MEGABYTE
};

/// The floor passes on what the gateway translates. A limit is named, because an
/// answer of Messages that may be long is asked for as a stream.
const TRANSLATED: Scenario = Scenario {
    name: "to-messages",
    title: "unary, 2 KB, by a provider of Messages",
    spoken: "messages",
    most: Some(1000),
    prompt: 1900,
    goal: (None, Some(1.8)),
    ..UNARY
};

/// All loads.
pub(crate) const SCENARIOS: [Scenario; 14] = [
    UNARY,
    SSE,
    Scenario {
        name: "unmetered",
        title: "the same, usage asked for by the gateway",
        question: Question::StreamUnmetered,
        goal: (None, None),
        ..SSE
    },
    Scenario {
        name: "paced",
        title: "SSE, 2 to 3 ms between chunks",
        options: "chunks=200+bytes=24+gap=2",
        unit: Unit::Chunk,
        goal: (None, None),
        ..SSE
    },
    MEGABYTE,
    Scenario {
        name: "1mb-front",
        title: "1 MB request, `model` in front",
        model_first: true,
        ..MEGABYTE
    },
    TEN_MEGABYTES,
    Scenario {
        name: "10mb-front",
        title: "10 MB request, `model` in front",
        model_first: true,
        ..TEN_MEGABYTES
    },
    TRANSLATED,
    Scenario {
        name: "to-messages-long",
        title: "the same, no limit named",
        most: None,
        goal: (None, None),
        ..TRANSLATED
    },
    Scenario {
        name: "to-responses",
        title: "unary, 2 KB, by a provider of Responses",
        spoken: "responses",
        ..TRANSLATED
    },
    Scenario {
        name: "to-gemini",
        title: "unary, 2 KB, by a provider of Gemini",
        spoken: "gemini",
        ..TRANSLATED
    },
    Scenario {
        name: "to-messages-sse",
        title: "SSE of 200 chunks, by a provider of Messages",
        spoken: "messages",
        goal: (None, Some(1.3)),
        ..SSE
    },
    Scenario {
        name: "to-gemini-sse",
        title: "SSE of 200 chunks, by a provider of Gemini",
        spoken: "gemini",
        goal: (None, Some(1.3)),
        ..SSE
    },
];

/// A stream that says one thing a second for ten minutes.
pub(crate) const SLOW: Scenario = Scenario {
    name: "slow",
    title: "slow streams",
    options: "chunks=600+bytes=24+gap=1000",
    ..SSE
};

/// Highest ratio of the memory of slow streams.
pub(crate) const SLOW_GOAL: f64 = 1.2;

impl Scenario {
    /// The provider's name for the model.
    pub(crate) fn model(&self) -> String {
        format!("gpt-bench+{}", self.options)
    }

    /// The gateway's name for it.
    pub(crate) fn alias(&self) -> String {
        format!("bench-{}", self.name)
    }

    /// Whether an answer through the gateway is the provider's to the byte.
    pub(crate) fn untouched(&self) -> bool {
        self.question != Question::StreamUnmetered && self.spoken == "chat"
    }

    /// Head and body of the request, for the model of that name.
    pub(crate) fn request(&self, model: &str) -> Result<Vec<u8>, Failure> {
        let text: String = PROSE.chars().cycle().take(self.prompt).collect();
        let mut text = serde_json::to_string(truncated(&text, self.prompt))?;
        // Escapes make it longer: what is meant is the length on the wire.
        let excess = text.len().saturating_sub(self.prompt);
        let kept = truncated(&text, text.len() - excess)
            .trim_end_matches(['\\', '"'])
            .len();
        text.truncate(kept);
        text.push('"');
        let messages = format!(r#""messages":[{{"role":"user","content":{text}}}]"#);
        let model = format!(r#""model":{}"#, json!(model));
        let stream = match self.question {
            Question::Unary => r#""stream":false"#,
            Question::Stream => r#""stream":true,"stream_options":{"include_usage":true}"#,
            Question::StreamUnmetered => r#""stream":true"#,
        };
        let (first, second) = if self.model_first {
            (model, messages)
        } else {
            (messages, model)
        };
        let most = self.most.map(|most| format!(r#","max_tokens":{most}"#));
        let most = most.unwrap_or_default();
        let body = format!("{{{first},{second},{stream}{most}}}");
        // A cut through an escape would make it no JSON.
        serde_json::from_str::<serde::de::IgnoredAny>(&body)?;
        let mut request = String::with_capacity(body.len() + 512);
        write!(
            request,
            "POST /v1/chat/completions HTTP/1.1\r\nhost: gateway.example\r\n\
             authorization: Bearer {KEY}\r\ncontent-type: application/json\r\n\
             accept: application/json\r\nuser-agent: OpenAI/Python 2.6.1\r\n\
             x-stainless-lang: python\r\nx-stainless-package-version: 2.6.1\r\n\
             x-stainless-os: Linux\r\nx-stainless-arch: x64\r\nx-stainless-runtime: CPython\r\n\
             x-stainless-runtime-version: 3.13.1\r\nx-stainless-retry-count: 0\r\n\
             accept-encoding: identity\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )?;
        Ok(request.into_bytes())
    }
}

/// The text's beginning, of at most that many bytes.
fn truncated(text: &str, bytes: usize) -> &str {
    let end = (0..=bytes.min(text.len()))
        .rev()
        .find(|end| text.is_char_boundary(*end));
    text.get(..end.unwrap_or(0)).unwrap_or_default()
}
