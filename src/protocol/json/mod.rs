//! JSON as this project handles it: text that is carried, not data that is
//! rebuilt.
//!
//! A document is walked once; what was found is a list of spans in the text
//! ([`tape`]). Strings, numbers and whole subtrees travel as they were written,
//! escapes, digits and key order included ([`text`]), and are written by pushing
//! bytes ([`mod@write`]).

mod counts;
mod finder;
mod string;
pub mod tape;
pub mod text;
mod walk;
pub mod write;

pub(in crate::protocol) use counts::Counts;
pub use finder::finder;
pub use string::plain_string;
pub(in crate::protocol) use string::string_stop;
pub use tape::{Tape, Value};
pub use text::{Raw, Str, mended};
pub use walk::{Fault, is_document};
pub use write::{Array, Object};
