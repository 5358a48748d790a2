//! OpenAI Responses.

pub(in crate::protocol) mod error;
