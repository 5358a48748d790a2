//! Anthropic Messages.

pub(in crate::protocol) mod error;
