//! Which service a request is for, in whose words it must be answered, and
//! whether it carries that vendor's credential.
//!
//! Paths are matched by their end, so that a base URL may end anywhere:
//! `/v1/chat/completions`, `/chat/completions` and `/openai/v1/chat/completions`
//! are the same service.

use http::{HeaderMap, Method, Uri};

/// Whose shapes are spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Vendor {
    OpenAi,
    Anthropic,
    Google,
}

/// A service of a vendor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Service {
    Chat,
    Completions,
    Responses,
    InputTokens,
    Messages,
    CountMessages,
    Generate {
        model: String,
    },
    StreamGenerate {
        model: String,
        sse: bool,
    },
    CountContents {
        model: String,
    },
    Embeddings,
    Speech,
    Transcriptions,
    Images {
        edit: bool,
    },
    Models,
    Model {
        model: String,
    },
    /// The path is nobody's.
    Unknown,
    /// The path is somebody's, the method is not.
    WrongMethod,
}

/// Services by the end of their path. Longer ends come first.
const POSTED: &[(&str, Service, Vendor)] = &[
    ("/chat/completions", Service::Chat, Vendor::OpenAi),
    ("/completions", Service::Completions, Vendor::OpenAi),
    (
        "/responses/input_tokens",
        Service::InputTokens,
        Vendor::OpenAi,
    ),
    ("/responses", Service::Responses, Vendor::OpenAi),
    (
        "/messages/count_tokens",
        Service::CountMessages,
        Vendor::Anthropic,
    ),
    ("/messages", Service::Messages, Vendor::Anthropic),
    ("/embeddings", Service::Embeddings, Vendor::OpenAi),
    ("/audio/speech", Service::Speech, Vendor::OpenAi),
    (
        "/audio/transcriptions",
        Service::Transcriptions,
        Vendor::OpenAi,
    ),
    (
        "/images/generations",
        Service::Images { edit: false },
        Vendor::OpenAi,
    ),
    (
        "/images/edits",
        Service::Images { edit: true },
        Vendor::OpenAi,
    ),
];

/// Finds the service and the vendor.
pub(super) fn route(method: &Method, uri: &Uri, headers: &HeaderMap) -> (Service, Vendor) {
    let path = uri.path().trim_end_matches('/');
    if let Some((_, rest)) = path.split_once("/models/") {
        return named_model(method, uri, headers, rest);
    }
    if path.ends_with("/models") {
        let service = match *method {
            Method::GET => Service::Models,
            _ => Service::WrongMethod,
        };
        return (service, vendor_of_models(uri, headers));
    }
    for (end, service, vendor) in POSTED {
        if path.ends_with(end) {
            let service = match *method {
                Method::POST => service.clone(),
                _ => Service::WrongMethod,
            };
            return (service, *vendor);
        }
    }
    (Service::Unknown, vendor_of_models(uri, headers))
}

fn named_model(method: &Method, uri: &Uri, headers: &HeaderMap, rest: &str) -> (Service, Vendor) {
    let rest = percent_decoded(rest);
    if let Some((model, verb)) = rest.rsplit_once(':') {
        let model = model.to_owned();
        let service = match verb {
            "generateContent" => Some(Service::Generate { model }),
            "streamGenerateContent" => Some(Service::StreamGenerate {
                model,
                sse: query_value(uri, "alt").as_deref() == Some("sse"),
            }),
            "countTokens" => Some(Service::CountContents { model }),
            _ => None,
        };
        match service {
            Some(service) if *method == Method::POST => return (service, Vendor::Google),
            Some(_) => return (Service::WrongMethod, Vendor::Google),
            None => {}
        }
    }
    let service = match *method {
        Method::GET => Service::Model { model: rest },
        _ => Service::WrongMethod,
    };
    (service, vendor_of_models(uri, headers))
}

/// All three vendors have a `/v1/models`; what else the request says decides.
fn vendor_of_models(uri: &Uri, headers: &HeaderMap) -> Vendor {
    let path = uri.path();
    if headers.contains_key("x-goog-api-key")
        || path.contains("/v1beta")
        || path.contains("/v1alpha")
        || query_value(uri, "key").is_some()
    {
        Vendor::Google
    } else if headers.contains_key("anthropic-version") {
        Vendor::Anthropic
    } else {
        Vendor::OpenAi
    }
}

/// What is wrong with a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denied {
    Missing,
    Wrong,
}

/// The only credential that is refused.
const BAD_KEY: &str = "bad-key";

/// Checks that the vendor's own credential is there.
pub(super) fn authenticate(vendor: Vendor, uri: &Uri, headers: &HeaderMap) -> Result<(), Denied> {
    let named = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let bearer = || {
        let (scheme, token) = named("authorization")?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token)
    };
    let key = match vendor {
        Vendor::OpenAi => bearer().map(str::to_owned),
        Vendor::Anthropic => named("x-api-key").or_else(bearer).map(str::to_owned),
        Vendor::Google => named("x-goog-api-key")
            .map(str::to_owned)
            .or_else(|| query_value(uri, "key")),
    };
    match key.as_deref().map(str::trim) {
        None | Some("") => Err(Denied::Missing),
        Some(BAD_KEY) => Err(Denied::Wrong),
        Some(_) => Ok(()),
    }
}

fn query_value(uri: &Uri, name: &str) -> Option<String> {
    uri.query()?
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| percent_decoded(value))
}

fn percent_decoded(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let mut ahead = bytes.clone();
        let hex = |digit: Option<u8>| char::from(digit?).to_digit(16);
        match (byte, hex(ahead.next()), hex(ahead.next())) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                bytes = ahead;
            }
            _ => out.push(byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routed(method: &str, uri: &str) -> (Service, Vendor) {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        route(&method, &uri.parse().unwrap(), &HeaderMap::new())
    }

    #[test]
    fn paths_are_matched_by_their_end() {
        for uri in [
            "/v1/chat/completions",
            "/chat/completions",
            "/openai/v1/chat/completions",
        ] {
            assert_eq!(
                routed("POST", uri),
                (Service::Chat, Vendor::OpenAi),
                "{uri}"
            );
        }
        assert_eq!(routed("POST", "/v1/completions").0, Service::Completions);
        assert_eq!(routed("GET", "/v1/completions").0, Service::WrongMethod);
        assert_eq!(routed("GET", "/nowhere").0, Service::Unknown);
    }

    #[test]
    fn a_gemini_model_may_hold_slashes_colons_and_percent_signs() {
        let wanted = Service::StreamGenerate {
            model: "acme/m:free".to_owned(),
            sse: true,
        };
        for path in ["acme/m:free", "acme%2Fm%3Afree"] {
            let uri = format!("/v1beta/models/{path}:streamGenerateContent?alt=sse");
            assert_eq!(routed("POST", &uri), (wanted.clone(), Vendor::Google));
        }
    }

    #[test]
    fn each_vendor_wants_its_own_credential() {
        let uri: Uri = "/v1/x?key=k".parse().unwrap();
        let mut headers = HeaderMap::new();
        assert_eq!(authenticate(Vendor::Google, &uri, &headers), Ok(()));
        assert_eq!(
            authenticate(Vendor::OpenAi, &uri, &headers),
            Err(Denied::Missing)
        );
        headers.insert("x-api-key", "bad-key".parse().unwrap());
        headers.insert("authorization", "bearer k".parse().unwrap());
        assert_eq!(authenticate(Vendor::OpenAi, &uri, &headers), Ok(()));
        assert_eq!(
            authenticate(Vendor::Anthropic, &uri, &headers),
            Err(Denied::Wrong)
        );
    }

    #[test]
    fn broken_percent_escapes_stay_as_they_are() {
        assert_eq!(percent_decoded("a%zz%4"), "a%zz%4");
        assert_eq!(percent_decoded("%41+b"), "A+b");
    }
}
