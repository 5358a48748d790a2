//! Whole answers in Messages: read from a provider, written for a client.

mod decode;
mod encode;
#[cfg(test)]
pub(super) mod tests;

pub use decode::decode;
pub(super) use decode::{made_there, minted};
pub(super) use encode::PICTURE;
pub use encode::encode;
