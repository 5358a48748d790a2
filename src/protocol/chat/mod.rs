//! OpenAI Chat Completions, and what the media endpoints share with it.

pub(in crate::protocol) mod error;
