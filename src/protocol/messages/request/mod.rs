//! Requests in Messages: read from a client, written for a provider.
//! <https://docs.anthropic.com/en/api/messages>

mod decode;
mod encode;
#[cfg(test)]
mod tests;

pub use decode::{decode, decode_for_count};
pub use encode::encode;
