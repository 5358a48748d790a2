//! Streams in Responses: read from a provider, written for a client.
//! <https://platform.openai.com/docs/api-reference/responses-streaming>

mod decode;
mod encode;
mod items;

pub use decode::Decoder;
pub use encode::Encoder;

#[cfg(test)]
mod tests;

#[cfg(test)]
pub(super) use tests::reply as reply_for_tests;
