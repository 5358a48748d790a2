//! Streams in Gemini: read from a provider, written for a client.

mod assembly;
mod decode;
mod encode;
#[cfg(test)]
mod tests;

pub use decode::Decoder;
pub(in crate::protocol::gemini) use decode::{arguments, blocked};
pub use encode::Encoder;
pub(in crate::protocol::gemini) use encode::Listed;
