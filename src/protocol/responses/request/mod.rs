//! Requests in Responses: read from a client, written for a provider.
//! <https://platform.openai.com/docs/api-reference/responses/create>

mod decode;
mod encode;
mod input;
mod output;
mod tools;

pub use decode::decode;
pub use encode::encode;

#[cfg(test)]
mod tests;
