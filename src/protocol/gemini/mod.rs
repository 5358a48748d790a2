//! Gemini `generateContent` and `streamGenerateContent`.
//! <https://ai.google.dev/api/generate-content>

mod arguments;
pub mod array;
pub(in crate::protocol) mod error;
mod finish;
mod grounding;
mod hosted;
mod logprobs;
mod media;
mod mint;
mod offsets;
mod part;
pub mod request;
pub mod response;
mod said;
pub(in crate::protocol) mod signature;
pub(crate) mod spelling;
pub mod stream;
mod telling;
mod usage;
