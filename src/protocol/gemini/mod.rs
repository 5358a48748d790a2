//! Gemini `generateContent` and `streamGenerateContent`.

pub mod array;
pub(in crate::protocol) mod error;
