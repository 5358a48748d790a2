//! Streams in Chat Completions: read from a provider, written for a client.
//! <https://platform.openai.com/docs/api-reference/chat-streaming>

mod calls;
mod decode;
mod encode;
#[cfg(test)]
mod tests;
mod track;

pub use self::decode::Decoder;
pub use self::encode::Encoder;
