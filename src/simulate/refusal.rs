//! Requests that are refused for one of their fields, in each vendor's words.

use serde_json::Value;

use super::ask::Ask;
use super::behaviour::Fault;
use super::failure::Failure;
use super::route::Vendor;

/// Fields that hold what only its maker can verify.
const SIGNED: [&str; 5] = [
    "signature",
    "encrypted_content",
    "thoughtSignature",
    "thought_signature",
    "reasoning_details",
];

/// The refusal of a request, if it has what is to be refused.
pub(super) fn refusal(fault: &Fault, ask: &Ask, vendor: Vendor) -> Option<Failure> {
    if fault.refuses.is_empty() && !fault.refuses_signatures {
        return None;
    }
    let body = ask.all();
    let mut fields = fault.refuses.iter();
    if let Some(path) = fields.find_map(|field| path_to(&body, &|name| name == field)) {
        return Some(unknown(&path, vendor));
    }
    let signed = |name: &str| SIGNED.contains(&name);
    let found = fault.refuses_signatures && path_to(&body, &signed).is_some();
    found.then(|| unverified(vendor))
}

fn unknown(path: &[String], vendor: Vendor) -> Failure {
    match vendor {
        Vendor::OpenAi => {
            let path = bracketed(path);
            Failure {
                code: Some("unknown_parameter"),
                param: Some(path.clone().into()),
                ..Failure::invalid(format!("Unknown parameter: '{path}'."), None)
            }
        }
        Vendor::Anthropic => {
            let path = path.join(".");
            Failure::invalid(format!("{path}: Extra inputs are not permitted"), None)
        }
        Vendor::Google => {
            let (name, holder) = match path.split_last() {
                Some((name, holder)) => (name.as_str(), bracketed(holder)),
                None => ("", String::new()),
            };
            let at = match holder.as_str() {
                "" => String::new(),
                holder => format!(" at '{holder}'"),
            };
            let message = format!(
                "Invalid JSON payload received. Unknown name \"{name}\"{at}: Cannot find field."
            );
            Failure::invalid(message, None)
        }
    }
}

fn unverified(vendor: Vendor) -> Failure {
    match vendor {
        Vendor::OpenAi => Failure {
            code: Some("invalid_encrypted_content"),
            ..Failure::invalid("The encrypted content could not be verified.", None)
        },
        Vendor::Anthropic => Failure::invalid(
            "messages.1.content.0: Invalid `signature` in `thinking` block",
            None,
        ),
        Vendor::Google => Failure::invalid("Thought signature is not valid.", None),
    }
}

/// The way to the first member with such a name.
fn path_to(value: &Value, wanted: &dyn Fn(&str) -> bool) -> Option<Vec<String>> {
    match value {
        Value::Object(members) => members.iter().find_map(|(name, value)| {
            let below = || path_to(value, wanted);
            let rest = if wanted(name) {
                Some(Vec::new())
            } else {
                below()
            };
            Some([vec![name.clone()], rest?].concat())
        }),
        Value::Array(items) => items.iter().enumerate().find_map(|(at, value)| {
            let rest = path_to(value, wanted)?;
            Some([vec![at.to_string()], rest].concat())
        }),
        _ => None,
    }
}

/// `a[0].b`, as OpenAI and Google write it.
fn bracketed(path: &[String]) -> String {
    let mut text = String::new();
    for step in path {
        if step.bytes().all(|byte| byte.is_ascii_digit()) {
            text.push_str(&format!("[{step}]"));
        } else {
            if !text.is_empty() {
                text.push('.');
            }
            text.push_str(step);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(fault: &Fault, body: &str, vendor: Vendor) -> Option<String> {
        let ask = Ask::from_json(body.as_bytes()).unwrap();
        refusal(fault, &ask, vendor).map(|failure| failure.message)
    }

    #[test]
    fn a_field_is_refused_in_each_vendors_words_until_it_is_gone() {
        let fault = Fault {
            refuses: vec!["seed".to_owned()],
            ..Fault::default()
        };
        let body = r#"{"a":[{"seed":1}],"b":{"seeds":2}}"#;
        for (vendor, words) in [
            (Vendor::OpenAi, "Unknown parameter: 'a[0].seed'."),
            (
                Vendor::Anthropic,
                "a.0.seed: Extra inputs are not permitted",
            ),
            (Vendor::Google, "Unknown name \"seed\" at 'a[0]': Cannot"),
        ] {
            assert!(refused(&fault, body, vendor).unwrap().contains(words));
            assert_eq!(refused(&fault, r#"{"b":{"seeds":2}}"#, vendor), None);
        }
    }

    #[test]
    fn a_signature_is_refused_wherever_it_stands() {
        let fault = Fault {
            refuses_signatures: true,
            ..Fault::default()
        };
        for name in SIGNED {
            let body = format!(r#"{{"a":[{{"b":{{"{name}":"x"}}}}]}}"#);
            assert!(refused(&fault, &body, Vendor::Anthropic).is_some());
        }
        assert_eq!(
            refused(&fault, r#"{"a":"signature"}"#, Vendor::OpenAi),
            None
        );
    }
}
