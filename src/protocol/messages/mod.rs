//! Anthropic Messages.

mod arguments;
mod citation;
pub(in crate::protocol) mod error;
mod hosted;
pub mod request;
pub mod response;
mod seal;
mod stop;
pub mod stream;
mod usage;
