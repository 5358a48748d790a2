//! Requests in Chat Completions: read from a client, written for a provider.
//! <https://platform.openai.com/docs/api-reference/chat/create>

mod decode;
mod encode;
mod fields;
#[cfg(test)]
mod tests;

pub use self::decode::decode;
pub(crate) use self::decode::{include_usage, sampling};
pub(crate) use self::decode::{medium_of_image, signature, thinking_text};
pub use self::encode::encode;
pub(crate) use self::encode::{arguments, data_url};
pub(crate) use self::fields::Fields;
