//! OpenAI Chat Completions, and what the media endpoints share with it.

mod annotations;
pub mod completions;
mod details;
pub(in crate::protocol) mod error;
mod finish;
mod hosted;
mod mint;
pub mod request;
pub mod response;
pub mod stream;
#[cfg(test)]
mod testing;
mod think;
mod usage;
