//! Requests checked as the real services check them: unknown fields, turns out of
//! order, calls without results, signatures that were not made here.
//!
//! What a service tolerates in silence is tolerated here as well; what it answers
//! with a 400, so is here, in its words, with the place of the fault.

mod chat;
mod gemini;
mod messages;
mod place;
mod responses;
#[cfg(test)]
mod tests;

use serde_json::Value;

use super::ask::Ask;
use super::failure::Failure;
use super::route::{Service, Vendor};

/// The refusal of a request that the service would not take.
pub(super) fn refusal(
    service: &Service,
    ask: &Ask,
    model: &str,
    vendor: Vendor,
) -> Option<Failure> {
    let body = ask.all();
    let checked = match service {
        Service::Chat => chat::check(&body),
        Service::Responses => responses::check(&body, false),
        Service::InputTokens => responses::check(&body, true),
        Service::Messages => messages::check(&body, false),
        Service::CountMessages => messages::check(&body, true),
        Service::Generate { .. } | Service::StreamGenerate { .. } => gemini::check(&body, model),
        Service::CountContents { .. } => gemini::check_count(&body, model),
        _ => Ok(()),
    };
    checked.err().map(|fault| fault.told(vendor))
}

/// What is wrong, and where.
#[derive(Debug)]
struct Fault {
    place: String,
    message: String,
    code: Option<&'static str>,
}

type Checked = Result<(), Fault>;

impl Fault {
    fn new(place: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            place: place.into(),
            message: message.into(),
            code: None,
        }
    }

    fn told(self, vendor: Vendor) -> Failure {
        let message = match vendor {
            Vendor::Anthropic if !self.place.is_empty() => {
                format!("{}: {}", self.place, self.message)
            }
            _ => self.message,
        };
        Failure {
            code: self.code,
            param: (!self.place.is_empty()).then(|| self.place.into()),
            ..Failure::invalid(message, None)
        }
    }
}

/// Fails with a place and a message unless something holds.
fn ensure(holds: bool, place: &str, message: impl FnOnce() -> String) -> Checked {
    match holds {
        true => Ok(()),
        false => Err(Fault::new(place, message())),
    }
}

/// The elements of an array, or none.
fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A string, or nothing.
fn word(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Whether a name is of letters, digits, `_` and `-`, and not too long.
fn plain_name(name: &str, most: usize) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    (1..=most).contains(&name.len()) && name.bytes().all(plain)
}
