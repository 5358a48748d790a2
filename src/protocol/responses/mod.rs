//! OpenAI Responses.

pub mod echo;
pub(in crate::protocol) mod error;
mod item;
pub mod request;
pub mod response;
pub mod state;
pub mod stream;
