//! Whole answers in Chat Completions: read from a provider, written for a client.
//! <https://platform.openai.com/docs/api-reference/chat/object>

mod decode;
mod encode;
#[cfg(test)]
mod tests;

pub(crate) use self::decode::{content_part, filled, says_something, searches};
pub use self::decode::{decode, take_think_tags};
pub use self::encode::encode;
pub(crate) use self::encode::{head, omitted, reasoning_name, splits_text, tier, write_image};
