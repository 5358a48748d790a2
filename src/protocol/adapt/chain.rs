//! Which adapters a target has: those that are configured, in their order, and
//! those that come by themselves unless they are switched off.

use super::{Adapter, Destination, gpt5, signatures, version};
use crate::protocol::{Protocol, host};

/// What an adapter is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// See [`Adapter::ReasoningContent`].
    ReasoningContent,
    /// See [`Adapter::SuppressDeveloperRole`].
    SuppressDeveloperRole,
    /// See [`Adapter::SuppressGpt5Options`].
    SuppressGpt5Options,
    /// See [`Adapter::ModelOverride`].
    ModelOverride,
    /// See [`Adapter::ReasoningRewrite`].
    ReasoningRewrite,
    /// See [`Adapter::WebSearchCoercion`].
    WebSearchCoercion,
    /// See [`Adapter::StripToolSearch`].
    StripToolSearch,
    /// See [`Adapter::NormalizeToolIds`].
    NormalizeToolIds,
    /// See [`Adapter::StripGeminiSignatures`].
    StripGeminiSignatures,
    /// See [`Adapter::SignGeminiCalls`].
    SignGeminiCalls,
    /// See [`Adapter::StripOldAnthropicFields`].
    StripOldAnthropicFields,
}

impl Kind {
    /// All of them by the names of the configuration file.
    pub const ALL: [(&'static str, Self); 11] = [
        ("reasoning_content", Self::ReasoningContent),
        ("suppress_developer_role", Self::SuppressDeveloperRole),
        (
            "suppress_unsupported_gpt5_options",
            Self::SuppressGpt5Options,
        ),
        ("model_override", Self::ModelOverride),
        ("reasoning_rewrite", Self::ReasoningRewrite),
        ("web_search_coercion", Self::WebSearchCoercion),
        ("strip_unsupported_tool_search", Self::StripToolSearch),
        ("normalize_anthropic_tool_ids", Self::NormalizeToolIds),
        ("strip_gemini_signatures", Self::StripGeminiSignatures),
        ("sign_gemini_calls", Self::SignGeminiCalls),
        ("strip_old_anthropic_fields", Self::StripOldAnthropicFields),
    ];

    /// The adapter of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let found = Self::ALL.iter().find(|(known, _)| *known == name);
        found.map(|(_, kind)| *kind)
    }
}

impl Adapter {
    /// What it is called.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::ReasoningContent => Kind::ReasoningContent,
            Self::SuppressDeveloperRole => Kind::SuppressDeveloperRole,
            Self::SuppressGpt5Options => Kind::SuppressGpt5Options,
            Self::ModelOverride(_) => Kind::ModelOverride,
            Self::ReasoningRewrite(_) => Kind::ReasoningRewrite,
            Self::WebSearchCoercion { .. } => Kind::WebSearchCoercion,
            Self::StripToolSearch => Kind::StripToolSearch,
            Self::NormalizeToolIds => Kind::NormalizeToolIds,
            Self::StripGeminiSignatures => Kind::StripGeminiSignatures,
            Self::SignGeminiCalls => Kind::SignGeminiCalls,
            Self::StripOldAnthropicFields => Kind::StripOldAnthropicFields,
        }
    }

    /// Whether bodies of that protocol can have what it changes.
    const fn knows(&self, protocol: Protocol) -> bool {
        match (self, protocol) {
            (
                Self::ReasoningContent
                | Self::SuppressDeveloperRole
                | Self::SuppressGpt5Options
                | Self::StripGeminiSignatures
                | Self::SignGeminiCalls,
                Protocol::Chat,
            )
            | (Self::SuppressDeveloperRole | Self::SuppressGpt5Options, Protocol::Responses)
            | (Self::SignGeminiCalls, Protocol::Gemini)
            | (Self::NormalizeToolIds | Self::StripOldAnthropicFields, Protocol::Messages) => true,
            (
                Self::ReasoningContent
                | Self::SuppressDeveloperRole
                | Self::SuppressGpt5Options
                | Self::StripGeminiSignatures
                | Self::SignGeminiCalls
                | Self::NormalizeToolIds
                | Self::StripOldAnthropicFields,
                _,
            ) => false,
            (_, Protocol::Chat | Protocol::Responses | Protocol::Messages | Protocol::Gemini) => {
                true
            }
            _ => false,
        }
    }
}

/// One line of a configured list.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    /// Switched on, in place of one of the same name.
    On(Adapter),
    /// Switched off, were it inherited or automatic.
    Off(Kind),
}

/// The adapters of a provider or of one of its models.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Chain {
    adapters: Vec<Adapter>,
    off: Vec<Kind>,
}

impl Chain {
    /// This chain with further entries behind it; the later one wins.
    #[must_use]
    pub fn with(&self, entries: impl IntoIterator<Item = Entry>) -> Self {
        let mut chain = self.clone();
        for entry in entries {
            match entry {
                Entry::On(adapter) => chain.switch_on(adapter),
                Entry::Off(kind) => {
                    chain.adapters.retain(|known| known.kind() != kind);
                    chain.off.push(kind);
                }
            }
        }
        chain
    }

    fn switch_on(&mut self, adapter: Adapter) {
        let kind = adapter.kind();
        self.off.retain(|off| *off != kind);
        match self.adapters.iter_mut().find(|known| known.kind() == kind) {
            Some(known) => *known = adapter,
            None => self.adapters.push(adapter),
        }
    }

    /// Those that are configured, in their order.
    #[must_use]
    pub fn configured(&self) -> &[Adapter] {
        &self.adapters
    }

    /// Those for one target, the automatic ones last.
    pub fn for_target(&self, to: Destination<'_>) -> impl Iterator<Item = &Adapter> {
        static GPT5: Adapter = Adapter::SuppressGpt5Options;
        static IDS: Adapter = Adapter::NormalizeToolIds;
        static UNSIGNED: Adapter = Adapter::StripGeminiSignatures;
        static SIGNED: Adapter = Adapter::SignGeminiCalls;
        static VERSION: Adapter = Adapter::StripOldAnthropicFields;
        let automatic = [
            gpt5::is_family(to.model).then_some(&GPT5),
            host::is_at(to.host, "anthropic.com").then_some(&IDS),
            signatures::are_refused(to).then_some(&UNSIGNED),
            signatures::are_wanted(to).then_some(&SIGNED),
            version::is_pinned(to).then_some(&VERSION),
        ];
        let automatic = automatic.into_iter().flatten().filter(|adapter| {
            let kind = adapter.kind();
            !self.off.contains(&kind) && self.adapters.iter().all(|known| known.kind() != kind)
        });
        let all = self.adapters.iter().chain(automatic);
        all.filter(move |adapter| adapter.knows(to.protocol))
    }
}
