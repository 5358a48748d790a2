//! The intermediate representation: what the four chat protocols have in common,
//! as blocks in their order.
//!
//! A request is decoded once and encoded for each target that is tried; an
//! answer is decoded into a [`Response`], or into [`Delta`]s while it streams.
//! Equal protocols never come here. Text, arguments and schemas are carried as
//! they were written ([`Str`], [`Raw`]); what a protocol can't say is reported as
//! a note, never lost in silence.

use super::Protocol;
use super::error::ErrorClass;
use super::json::{Raw, Str};
use super::usage::Tokens;

/// What a client asks for.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The alias that the client named.
    pub model: Str<'a>,
    /// What the client speaks.
    pub origin: Protocol,
    /// Whether the answer is to be streamed.
    pub stream: bool,
    /// Whether a chat stream is to end with its usage.
    pub include_usage: bool,
    /// The leading system text; later system text is a turn.
    pub system: Vec<SystemBlock<'a>>,
    /// The conversation, in order.
    pub turns: Vec<Turn<'a>>,
    /// What the model may call.
    pub tools: Vec<Tool<'a>>,
    /// Whether and what it must call.
    pub tool_choice: Option<ToolChoice<'a>>,
    /// Whether it may call several tools at once.
    pub parallel: Option<bool>,
    /// How tokens are picked.
    pub sampling: Sampling<'a>,
    /// How it is to reason.
    pub reasoning: Option<Reasoning>,
    /// The shape of the answer.
    pub format: Format<'a>,
    /// How long-winded: `low`, `medium`, `high`.
    pub verbosity: Option<Str<'a>>,
    /// Images among the kinds of output asked for.
    pub image_output: bool,
    /// Web search as an option of the request (chat), not as a tool.
    pub web_search: Option<WebSearch<'a>>,
    /// The most calls of hosted tools.
    pub max_tool_calls: Option<u64>,
    /// How fast and dear.
    pub service: Option<Service>,
    /// Prompt caching.
    pub cache: Cache<'a>,
    /// Who the client's user is, in its own word.
    pub end_user: Option<Str<'a>>,
    /// The client's own labels.
    pub metadata: Option<Raw<'a>>,
    /// Stored conversations (Responses).
    pub state: State<'a>,
    /// The legacy form of functions (chat): the answer must have it too.
    pub legacy_functions: bool,
    /// Custom (free text) tools are spoken natively by this client.
    pub custom_tools: bool,
}

impl Request<'_> {
    /// A request in which nothing is asked for yet.
    #[must_use]
    pub fn of(origin: Protocol) -> Self {
        Self {
            model: Str::default(),
            origin,
            stream: false,
            include_usage: false,
            system: Vec::new(),
            turns: Vec::new(),
            tools: Vec::new(),
            tool_choice: None,
            parallel: None,
            sampling: Sampling::default(),
            reasoning: None,
            format: Format::Text,
            verbosity: None,
            image_output: false,
            web_search: None,
            max_tool_calls: None,
            service: None,
            cache: Cache::default(),
            end_user: None,
            metadata: None,
            state: State::default(),
            legacy_functions: false,
            custom_tools: false,
        }
    }
}

/// A block of the leading system text.
#[derive(Clone, Debug)]
pub struct SystemBlock<'a> {
    /// What it says.
    pub text: Str<'a>,
    /// A cache mark behind it.
    pub cache: Option<Lifetime>,
}

/// Who speaks in a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The client's user; tool results are said by the user too.
    User,
    /// The model.
    Assistant,
    /// System text in the middle of the conversation.
    System,
}

/// One turn of the conversation.
#[derive(Clone, Debug)]
pub struct Turn<'a> {
    /// Who speaks.
    pub role: Role,
    /// What is said, in order.
    pub parts: Vec<Part<'a>>,
    /// Where the client wrote it: `messages[3]`, `input[0]`, `contents[2]`.
    pub at: usize,
}

/// A part of a turn, or of an answer.
#[derive(Clone, Debug)]
pub enum Part<'a> {
    /// Visible text.
    Text(Text<'a>),
    /// The model's own words of refusal.
    Refusal(Str<'a>),
    /// An image, a document, sound or film.
    Media(Media<'a>),
    /// A call of a tool that the client runs.
    Call(Call<'a>),
    /// What came of a call.
    Result(ToolResult<'a>),
    /// Reasoning, readable or not.
    Reasoning(Thought<'a>),
    /// A tool that the provider runs: call and result.
    Hosted(Hosted<'a>),
}

/// Visible text.
#[derive(Clone, Debug, Default)]
pub struct Text<'a> {
    /// What it says.
    pub text: Str<'a>,
    /// What it refers to.
    pub annotations: Vec<Annotation<'a>>,
    /// A cache mark behind it.
    pub cache: Option<Lifetime>,
    /// A signature that rides on the text (Gemini).
    pub opaque: Option<Opaque<'a>>,
}

impl<'a> Text<'a> {
    /// Text and nothing else.
    #[must_use]
    pub fn new(text: Str<'a>) -> Self {
        Self {
            text,
            ..Self::default()
        }
    }
}

/// What sort of medium.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaKind {
    /// A picture.
    Image,
    /// Sound.
    Audio,
    /// Film.
    Video,
    /// PDF or another document.
    Document,
}

/// An image, a document, sound or film.
#[derive(Clone, Debug)]
pub struct Media<'a> {
    /// What sort.
    pub kind: MediaKind,
    /// Where its bytes are.
    pub source: Source<'a>,
    /// A file name or title.
    pub name: Option<Str<'a>>,
    /// Text that goes with a document (Messages `context`).
    pub context: Option<Str<'a>>,
    /// How closely to look at a picture (OpenAI): `low`, `high`, `auto` ...
    pub detail: Option<Str<'a>>,
    /// Whether citations into it were asked for.
    pub cite: bool,
    /// A cache mark behind it.
    pub cache: Option<Lifetime>,
    /// Where the client wrote it, for errors: `messages[0].content[1]`.
    pub path: String,
}

/// Where the bytes of a medium are.
#[derive(Clone, Debug)]
pub enum Source<'a> {
    /// In the request: MIME type (corrected by what the first bytes say) and
    /// standard base64 without white space.
    Inline {
        /// `image/png`, `application/pdf` ...
        mime: std::borrow::Cow<'a, str>,
        /// Base64.
        data: Str<'a>,
    },
    /// Behind a URL.
    Url {
        /// The URL.
        url: Str<'a>,
        /// Its type, when it is told.
        mime: Option<Str<'a>>,
    },
    /// A file kept by a provider, which only that provider knows.
    File {
        /// Its id.
        id: Str<'a>,
    },
    /// A document that is plain text.
    Text(Str<'a>),
}

/// How a call's arguments are given.
#[derive(Clone, Debug)]
pub enum Arguments<'a> {
    /// A JSON object as a value.
    Object(Raw<'a>),
    /// A string that ought to hold a JSON object (OpenAI).
    Text(Str<'a>),
    /// Free text of a custom tool.
    Free(Str<'a>),
}

/// A call of a tool that the client runs.
#[derive(Clone, Debug)]
pub struct Call<'a> {
    /// Its id, as the origin gave it; minted when there was none.
    pub id: Str<'a>,
    /// The tool's name.
    pub name: Str<'a>,
    /// The tool's namespace (Responses).
    pub namespace: Option<Str<'a>>,
    /// With what.
    pub arguments: Arguments<'a>,
    /// A signature that rides on the call (Gemini).
    pub opaque: Option<Opaque<'a>>,
    /// A cache mark behind it.
    pub cache: Option<Lifetime>,
}

/// What came of a call.
#[derive(Clone, Debug)]
pub struct ToolResult<'a> {
    /// The call's id.
    pub id: Str<'a>,
    /// The tool's name, where the protocol says it again.
    pub name: Option<Str<'a>>,
    /// Text and media.
    pub parts: Vec<Part<'a>>,
    /// Whether the tool failed.
    pub is_error: bool,
    /// Whether the call was to a custom tool.
    pub custom: bool,
    /// A cache mark behind it.
    pub cache: Option<Lifetime>,
}

/// Reasoning.
#[derive(Clone, Debug, Default)]
pub struct Thought<'a> {
    /// The reasoning itself, where it may be read.
    pub text: Str<'a>,
    /// Summaries of it.
    pub summary: Vec<Str<'a>>,
    /// Signature or ciphertext, for the provider that made it.
    pub opaque: Option<Opaque<'a>>,
    /// Whether nothing of it may be read (Messages `redacted_thinking`).
    pub redacted: bool,
}

/// Who understands an opaque blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpaqueKind {
    /// The signature of an Anthropic thinking block.
    AnthropicSignature,
    /// The data of an Anthropic redacted block.
    AnthropicRedacted,
    /// The ciphertext of an OpenAI reasoning item, bound to its account.
    OpenAiEncrypted,
    /// A Gemini thought signature.
    GeminiSignature,
    /// Nobody: reasoning that came without a signature, marked so that it is
    /// known again.
    Unsigned,
}

/// Bytes that only their maker understands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opaque<'a> {
    /// Who that is.
    pub kind: OpaqueKind,
    /// The blob, as its maker wrote it.
    pub data: Str<'a>,
    /// The model that made it, when that is known.
    pub model: Option<Str<'a>>,
    /// The provider account that made it, when that is known.
    pub account: Option<Str<'a>>,
}

/// A tool that the provider runs.
#[derive(Clone, Debug)]
pub struct Hosted<'a> {
    /// Which.
    pub kind: HostedKind,
    /// The call's id.
    pub id: Str<'a>,
    /// The call's input: `{"query":...}`, `{"code":...}`.
    pub input: Option<Raw<'a>>,
    /// Results of a search.
    pub sources: Vec<SearchHit<'a>>,
    /// What a program printed.
    pub output: Option<Str<'a>>,
    /// Whether it failed.
    pub failed: bool,
    /// The blocks as their protocol wrote them, to be sent back only there.
    pub native: Vec<Raw<'a>>,
    /// That protocol.
    pub origin: Protocol,
}

/// A tool that a provider runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostedKind {
    /// Searching the web.
    WebSearch,
    /// Fetching a page.
    WebFetch,
    /// Running code.
    Code,
    /// Searching files kept by the provider.
    FileSearch,
    /// Drawing.
    ImageGeneration,
    /// Something that only its own protocol knows.
    Other,
}

/// A page found by a search.
#[derive(Clone, Debug)]
pub struct SearchHit<'a> {
    /// Its address.
    pub url: Str<'a>,
    /// Its title.
    pub title: Option<Str<'a>>,
}

/// What a stretch of text refers to.
#[derive(Clone, Debug)]
pub struct Annotation<'a> {
    /// The page's address; empty for other sources.
    pub url: Str<'a>,
    /// The page's or document's title.
    pub title: Option<Str<'a>>,
    /// The words that are cited.
    pub cited: Option<Str<'a>>,
    /// From and to, in characters of the text part.
    pub span: Option<(usize, usize)>,
}

/// How long a cache entry is to live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// Minutes (5m, 30m).
    Short,
    /// Hours (1h, 12h).
    Long,
}

/// Prompt caching.
#[derive(Clone, Debug, Default)]
pub struct Cache<'a> {
    /// What keeps requests of one conversation together (OpenAI).
    pub key: Option<Str<'a>>,
    /// Cache as far as possible (Messages, at the top level).
    pub auto: Option<Lifetime>,
}

/// What the model may call.
#[derive(Clone, Debug)]
pub enum Tool<'a> {
    /// A function with a schema.
    Function(Function<'a>),
    /// A tool that takes free text (OpenAI custom).
    Custom {
        /// Its name.
        name: Str<'a>,
        /// What it does.
        description: Option<Str<'a>>,
        /// A grammar, as written.
        format: Option<Raw<'a>>,
    },
    /// A tool that the provider runs, or a built-in of one vendor.
    Hosted(HostedTool<'a>),
}

/// A function with a schema.
#[derive(Clone, Debug)]
pub struct Function<'a> {
    /// Its name.
    pub name: Str<'a>,
    /// Its namespace (Responses).
    pub namespace: Option<Str<'a>>,
    /// What it does.
    pub description: Option<Str<'a>>,
    /// JSON Schema of its arguments, in standard form: a Gemini schema is
    /// brought into it when it is decoded.
    pub schema: Option<Raw<'a>>,
    /// Whether arguments must fit the schema.
    pub strict: Option<bool>,
    /// A cache mark behind it.
    pub cache: Option<Lifetime>,
}

/// A tool that the provider runs, or a built-in of one vendor.
#[derive(Clone, Debug)]
pub struct HostedTool<'a> {
    /// Which.
    pub kind: HostedToolKind<'a>,
    /// The type that the client wrote: `web_search_20250305`, `computer_use_preview`.
    pub name: Str<'a>,
    /// Where the client wrote it: `tools[2]`.
    pub path: String,
}

/// Kinds of hosted and built-in tools.
#[derive(Clone, Debug)]
pub enum HostedToolKind<'a> {
    /// Searching the web.
    WebSearch(WebSearch<'a>),
    /// Fetching pages.
    WebFetch,
    /// Running code.
    Code,
    /// Searching files, drawing, searching tools: of no meaning elsewhere, but no
    /// harm to go without.
    Droppable,
    /// Acts on a machine or through a server in a way that only its own protocol
    /// can say: refused on other targets.
    Bound,
}

/// How to search the web.
#[derive(Clone, Debug, Default)]
pub struct WebSearch<'a> {
    /// Only these domains.
    pub allowed: Vec<Str<'a>>,
    /// Not these.
    pub blocked: Vec<Str<'a>>,
    /// City, country, region, timezone.
    pub location: Option<Raw<'a>>,
    /// The most searches.
    pub max_uses: Option<u64>,
    /// How much to read: `low`, `medium`, `high`.
    pub context_size: Option<Str<'a>>,
}

/// Whether and what the model must call.
#[derive(Clone, Debug)]
pub enum ToolChoice<'a> {
    /// As it likes.
    Auto,
    /// Nothing.
    None,
    /// Something.
    Required,
    /// That one.
    Named(Str<'a>),
    /// One of those; `required` or as it likes.
    Allowed {
        /// Whether something must be called.
        required: bool,
        /// Their names.
        names: Vec<Str<'a>>,
    },
    /// A hosted tool, by the client's word for it.
    Hosted(Str<'a>),
}

/// How tokens are picked. Numbers keep the digits they were written with.
#[derive(Clone, Debug, Default)]
pub struct Sampling<'a> {
    /// The most tokens of output.
    pub max_output: Option<u64>,
    /// 0 to 2.
    pub temperature: Option<Digits<'a>>,
    /// 0 to 1.
    pub top_p: Option<Digits<'a>>,
    /// At least 1.
    pub top_k: Option<u64>,
    /// -2 to 2.
    pub frequency_penalty: Option<Digits<'a>>,
    /// -2 to 2.
    pub presence_penalty: Option<Digits<'a>>,
    /// For repeatable answers.
    pub seed: Option<Digits<'a>>,
    /// Texts at which to stop.
    pub stop: Vec<Str<'a>>,
    /// How many answers.
    pub n: Option<u64>,
    /// Whether to tell the tokens' probabilities.
    pub logprobs: bool,
    /// And those of how many rivals.
    pub top_logprobs: Option<u64>,
    /// As written.
    pub logit_bias: Option<Raw<'a>>,
}

/// A number with the digits it was written with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Digits<'a> {
    /// As written.
    pub text: &'a str,
    /// What it means.
    pub value: f64,
}

/// How the model is to reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reasoning {
    /// Off, on, or as the model sees fit.
    pub mode: ReasoningMode,
    /// How hard.
    pub effort: Option<Effort>,
    /// Tokens to spend; -1 for as many as it likes.
    pub budget: Option<i64>,
    /// What the client wants to see of it.
    pub display: Display,
}

/// Off, on, or as the model sees fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReasoningMode {
    /// Not said.
    #[default]
    Default,
    /// Not at all.
    Off,
    /// Yes.
    On,
    /// The model decides.
    Adaptive,
}

/// How hard to think, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effort {
    /// Not at all.
    None,
    /// Hardly.
    Minimal,
    /// A little.
    Low,
    /// Fairly.
    Medium,
    /// A good deal.
    High,
    /// Very.
    XHigh,
    /// All there is.
    Max,
}

impl Effort {
    /// The word that OpenAI and Anthropic use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Minimal => "minimal",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::XHigh => "xhigh",
            Self::Max => "max",
        }
    }

    /// The effort of that name, compared without case.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [
            Self::None,
            Self::Minimal,
            Self::Low,
            Self::Medium,
            Self::High,
            Self::XHigh,
            Self::Max,
        ]
        .into_iter()
        .find(|effort| effort.name().eq_ignore_ascii_case(name))
    }
}

/// What the client wants to see of the reasoning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Display {
    /// Not said.
    #[default]
    Default,
    /// A summary.
    Summary,
    /// Nothing.
    Omit,
}

/// The shape of the answer.
#[derive(Clone, Debug, Default)]
pub enum Format<'a> {
    /// Free text.
    #[default]
    Text,
    /// Some JSON object.
    JsonObject,
    /// JSON that fits a schema.
    Schema {
        /// Its name.
        name: Option<Str<'a>>,
        /// What it is for.
        description: Option<Str<'a>>,
        /// JSON Schema in standard form.
        schema: Raw<'a>,
        /// Whether it must fit exactly.
        strict: Option<bool>,
        /// One word of a list (Gemini `text/x.enum`): the answer is the bare word.
        bare_enum: bool,
    },
}

/// How fast and dear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// As the provider likes.
    Auto,
    /// The usual.
    Standard,
    /// Slow and cheap.
    Flex,
    /// Fast and dear.
    Priority,
    /// Anything else.
    Other,
}

/// Stored conversations (Responses).
#[derive(Clone, Debug, Default)]
pub struct State<'a> {
    /// Whether to keep the answer.
    pub store: Option<bool>,
    /// The answer that this request goes on from.
    pub previous: Option<Str<'a>>,
    /// What else the answer is to contain.
    pub include: Vec<Str<'a>>,
}

/// Why an answer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model was done.
    Stop,
    /// It came to a stop text.
    StopSequence(Option<String>),
    /// It came to the limit of output.
    Length,
    /// It came to the end of its context.
    ContextFull,
    /// It wants tools to be run.
    ToolUse,
    /// The provider refused to go on.
    ContentFilter {
        /// What for.
        category: Option<String>,
        /// In the provider's words.
        text: Option<String>,
    },
    /// The model itself refused.
    Refusal,
    /// The provider paused and wants to be asked again (Messages).
    Pause,
    /// The provider would go on from this token if it were asked (Gemini).
    Continuation(String),
    /// The model made a call that can't be read (Gemini).
    BadToolCall(String),
    /// Something else.
    Other(String),
}

impl Finish {
    /// The word that the books use for it: chat's, where chat has one.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Stop | Self::StopSequence(_) => "stop",
            Self::Length | Self::ContextFull | Self::Continuation(_) => "length",
            Self::ToolUse => "tool_calls",
            Self::ContentFilter { .. } => "content_filter",
            Self::Refusal => "refusal",
            Self::Pause => "pause",
            Self::BadToolCall(_) => "malformed_tool_call",
            Self::Other(_) => "other",
        }
    }
}

/// A whole answer.
#[derive(Clone, Debug, Default)]
pub struct Response<'a> {
    /// The provider's id for it.
    pub upstream_id: Option<Str<'a>>,
    /// The provider's name for the model.
    pub upstream_model: Option<Str<'a>>,
    /// One or more answers.
    pub choices: Vec<Choice<'a>>,
    /// Tokens, all choices together.
    pub usage: Option<Tokens>,
    /// Searches that the provider made and charges for.
    pub web_searches: Option<u64>,
    /// The tier that served it, in the provider's word.
    pub service: Option<Str<'a>>,
    /// OpenAI's fingerprint of the system that served it.
    pub fingerprint: Option<Str<'a>>,
}

/// One answer of several.
#[derive(Clone, Debug, Default)]
pub struct Choice<'a> {
    /// What it says, in order.
    pub parts: Vec<Part<'a>>,
    /// Why it ended.
    pub finish: Option<Finish>,
    /// Probabilities of the tokens, in the form of chat's `logprobs.content`
    /// array; the elements as written.
    pub logprobs: Vec<Raw<'a>>,
}

/// What a part of a stream is, said where it begins.
#[derive(Clone, Debug)]
pub enum PartKind<'a> {
    /// Visible text.
    Text,
    /// Reasoning.
    Reasoning,
    /// The model's words of refusal.
    Refusal,
    /// A call.
    Call {
        /// Its id, minted where the provider gave none.
        id: Str<'a>,
        /// The tool.
        name: Str<'a>,
        /// Its namespace.
        namespace: Option<Str<'a>>,
        /// Whether it takes free text.
        custom: bool,
    },
    /// A medium that comes whole.
    Media(Media<'a>),
    /// A hosted tool's call and result, which come whole.
    Hosted(Hosted<'a>),
}

/// A step of a streamed answer.
///
/// A decoder keeps these promises: `Start` first and once; `PartStart` before
/// anything of that part, `PartEnd` once, nothing of the part after it; part
/// numbers of a choice count up from 0 in the order of their starts, and several
/// may be open at once; `Finish` of a choice after all its parts have ended;
/// `Usage` at any time, each a whole snapshot; one `End` or `Error`, last.
#[derive(Clone, Debug)]
pub enum Delta<'a> {
    /// The answer begins.
    Start {
        /// The provider's id.
        id: Option<Str<'a>>,
        /// The provider's model.
        model: Option<Str<'a>>,
    },
    /// A part begins.
    PartStart {
        /// Which answer.
        choice: usize,
        /// Which part of it.
        part: usize,
        /// What it is.
        kind: PartKind<'a>,
    },
    /// More of a text, reasoning or refusal part, or of a custom call's input.
    Text {
        /// Which answer.
        choice: usize,
        /// Which part of it.
        part: usize,
        /// The piece.
        text: Str<'a>,
    },
    /// More of a summary of reasoning.
    Summary {
        /// Which answer.
        choice: usize,
        /// Which part of it.
        part: usize,
        /// Which summary of the part, counting up from 0.
        index: usize,
        /// The piece.
        text: Str<'a>,
    },
    /// More of a call's arguments: a piece of the JSON text, itself a string.
    Arguments {
        /// Which answer.
        choice: usize,
        /// Which part of it.
        part: usize,
        /// The piece.
        piece: Str<'a>,
    },
    /// A call's arguments as a whole, in place of pieces.
    ArgumentsWhole {
        /// Which answer.
        choice: usize,
        /// Which part of it.
        part: usize,
        /// A JSON value.
        value: Raw<'a>,
    },
    /// The signature or ciphertext of a part.
    Opaque {
        /// Which answer.
        choice: usize,
        /// Which part of it.
        part: usize,
        /// The blob.
        opaque: Opaque<'a>,
    },
    /// What the text refers to.
    Annotation {
        /// Which answer.
        choice: usize,
        /// Which part of it.
        part: usize,
        /// The reference.
        annotation: Annotation<'a>,
    },
    /// Probabilities of tokens, in the form of chat's `logprobs.content`.
    Logprobs {
        /// Which answer.
        choice: usize,
        /// Elements as written.
        tokens: Vec<Raw<'a>>,
    },
    /// A part ends.
    PartEnd {
        /// Which answer.
        choice: usize,
        /// Which part of it.
        part: usize,
    },
    /// Tokens so far; later reports overwrite what they mention.
    Usage {
        /// The buckets.
        tokens: Tokens,
        /// Searches made.
        web_searches: Option<u64>,
    },
    /// An answer ends.
    Finish {
        /// Which.
        choice: usize,
        /// Why.
        finish: Finish,
    },
    /// What else was told: tier and fingerprint.
    Meta {
        /// The tier that served it.
        service: Option<Str<'a>>,
        /// OpenAI's fingerprint.
        fingerprint: Option<Str<'a>>,
    },
    /// A sign of life.
    Ping,
    /// The provider failed in the middle.
    Error {
        /// What kind of failure.
        class: ErrorClass,
        /// In the provider's words, scrubbed.
        message: String,
        /// Its code.
        code: Option<String>,
    },
    /// The whole answer has come.
    End,
}

/// A request or an answer that can't be understood or can't be said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// What kind of fault it is.
    pub class: ErrorClass,
    /// What was found, and what was wanted.
    pub message: String,
    /// The client's field: `messages[3].content[1].type`.
    pub param: Option<String>,
    /// A code more exact than the class.
    pub code: Option<&'static str>,
}

impl Invalid {
    /// The request is wrong in that field.
    #[must_use]
    pub fn request(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            class: ErrorClass::InvalidRequest,
            message: message.into(),
            param: Some(param.into()),
            code: None,
        }
    }

    /// The request is right, but its target's protocol can't say that field.
    #[must_use]
    pub fn unsupported(
        code: &'static str,
        param: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            class: ErrorClass::Unsupported,
            message: message.into(),
            param: Some(param.into()),
            code: Some(code),
        }
    }
}

impl std::fmt::Display for Invalid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Invalid {}
