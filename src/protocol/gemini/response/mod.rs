//! Whole answers in Gemini: read from a provider, written for a client.

mod decode;
mod encode;
#[cfg(test)]
mod tests;

pub use decode::decode;
pub use encode::encode;
