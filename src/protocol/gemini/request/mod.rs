//! Requests in Gemini: read from a client, written for a provider.

mod decode;
mod encode;
#[cfg(test)]
mod tests;

pub use decode::decode;
pub use encode::encode;
