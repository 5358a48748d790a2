//! The wire protocols: what each is called, and what each must supply.
//!
//! Everything below this folder is bytes in, bytes out: no sockets, no clock.

pub mod adapt;
pub mod capabilities;
pub mod chat;
pub mod collect;
pub mod edit;
pub mod empty;
pub mod envelope;
pub mod error;
pub mod estimate;
pub mod filter;
pub mod fit;
pub mod gemini;
pub mod grammar;
pub mod history;
mod host;
pub mod ir;
pub mod json;
mod lost;
pub mod media;
pub mod messages;
pub mod meter;
pub mod models;
pub mod notes;
pub mod opening;
pub mod peek;
pub mod path;
pub mod pictures;
pub mod repair;
pub mod responses;
pub mod resume;
pub mod schema;
pub mod sieve;
pub mod snapshot;
pub mod splice;
pub mod sse;
pub mod translate;
pub mod translator;
pub mod turns;
mod unread;
pub mod usage;

use std::fmt;

/// A protocol that a client may speak to Plexus, or Plexus to a provider.
///
/// The names are those of the configuration file, the management API and the
/// usage rows (`incomingApiType`, `outgoingApiType`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// OpenAI Chat Completions.
    Chat,
    /// OpenAI Responses.
    Responses,
    /// Anthropic Messages.
    Messages,
    /// Gemini `generateContent` and `streamGenerateContent`.
    Gemini,
    /// OpenAI legacy Completions.
    Completions,
    /// OpenAI Embeddings.
    Embeddings,
    /// OpenAI audio transcriptions (multipart).
    Transcriptions,
    /// OpenAI text to speech.
    Speech,
    /// OpenAI image generation and editing.
    Images,
}

impl Protocol {
    /// All protocols, in the order of their declaration.
    pub const ALL: [Self; 9] = [
        Self::Chat,
        Self::Responses,
        Self::Messages,
        Self::Gemini,
        Self::Completions,
        Self::Embeddings,
        Self::Transcriptions,
        Self::Speech,
        Self::Images,
    ];

    /// The word used in configuration, API and rows.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Responses => "responses",
            Self::Messages => "messages",
            Self::Gemini => "gemini",
            Self::Completions => "completions",
            Self::Embeddings => "embeddings",
            Self::Transcriptions => "transcriptions",
            Self::Speech => "speech",
            Self::Images => "images",
        }
    }

    /// The protocol with that name, compared without case.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|protocol| protocol.name().eq_ignore_ascii_case(name))
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
