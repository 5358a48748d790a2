//! A provider's base URLs, taken apart: which protocol is spoken where.

use http::Uri;
use http::uri::{Authority, Scheme};

use super::{Endpoint, Prepared};
use crate::protocol::Protocol;

/// A base URL taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) struct Base {
    scheme: Scheme,
    authority: Authority,
    path: String,
}

/// Takes a base URL apart, or says what is wrong with it.
pub(in crate::config) fn base(url: &str) -> Result<Base, String> {
    let url = url.trim();
    let wanted = "a URL like https://api.example.com/v1 is wanted";
    if url.contains(['?', '#']) {
        return Err(format!("found a query or fragment in a base URL; {wanted}"));
    }
    let parts = url
        .parse::<Uri>()
        .map_err(|error| format!("this is not a URL ({error}); {wanted}"))?
        .into_parts();
    let (Some(scheme), Some(authority)) = (parts.scheme, parts.authority) else {
        return Err(format!("this is not a full URL; {wanted}"));
    };
    if scheme != Scheme::HTTP && scheme != Scheme::HTTPS {
        return Err(format!(
            "found the scheme {scheme}; http or https is wanted"
        ));
    }
    if authority.as_str().contains('@') {
        return Err("found a user name in the URL; put credentials into api_key or headers".into());
    }
    if authority.host().is_empty() || authority.as_str().ends_with(':') {
        return Err(format!("this URL has no host or an empty port; {wanted}"));
    }
    let path = parts.path_and_query.as_ref().map_or("", |path| path.path());
    Ok(Base {
        path: path.trim_end_matches('/').to_owned(),
        scheme,
        authority,
    })
}

/// What a single URL speaks when nothing else says so.
pub(in crate::config) fn spoken_at(url: &str) -> Protocol {
    if url.contains("anthropic.com") {
        Protocol::Messages
    } else if url.contains("generativelanguage.googleapis.com") {
        Protocol::Gemini
    } else {
        Protocol::Chat
    }
}

/// The endpoints of a provider: those written, in their order, then those
/// that they serve as well. `fallback` is the base for what is written
/// nowhere; `asked` are protocols that models want to be reached by.
pub(in crate::config) fn endpoints(
    written: &[(Protocol, Base)],
    fallback: Option<&Base>,
    asked: &[Protocol],
) -> Vec<Endpoint> {
    let mut all: Vec<Endpoint> = Vec::new();
    let mut add = |protocol: Protocol, base: &Base, derived: bool| {
        if !all.iter().any(|endpoint| endpoint.protocol == protocol) {
            all.push(endpoint(protocol, base, derived));
        }
    };
    for (protocol, base) in written {
        add(*protocol, base, false);
    }
    let at = |protocol| {
        written
            .iter()
            .find(|(p, _)| *p == protocol)
            .map(|(_, base)| base)
    };
    for protocol in asked {
        if let Some(base) = fallback.or_else(|| written.first().map(|(_, base)| base)) {
            add(*protocol, base, true);
        }
    }
    // Whoever speaks OpenAI's chat at a base has the rest of that family there.
    let family = at(Protocol::Chat)
        .or(fallback)
        .or_else(|| at(Protocol::Responses));
    for protocol in OPENAI_FAMILY {
        if let Some(base) = family {
            add(protocol, base, true);
        }
    }
    all
}

fn endpoint(protocol: Protocol, base: &Base, derived: bool) -> Endpoint {
    let mut path = base.path.clone();
    if protocol == Protocol::Gemini && !path.split('/').any(is_version) {
        path.push_str("/v1beta");
    }
    Endpoint {
        protocol,
        scheme: base.scheme.clone(),
        authority: base.authority.clone(),
        path,
        derived,
        prepared: Prepared::default(),
    }
}

/// `v1`, `v1beta`, `v1alpha2`, ...
fn is_version(segment: &str) -> bool {
    let Some(rest) = segment.strip_prefix('v') else {
        return false;
    };
    let tail = rest.trim_start_matches(|c: char| c.is_ascii_digit());
    let stage = tail.trim_end_matches(|c: char| c.is_ascii_digit());
    tail.len() < rest.len() && matches!(stage, "" | "alpha" | "beta")
}

const OPENAI_FAMILY: [Protocol; 5] = [
    Protocol::Completions,
    Protocol::Embeddings,
    Protocol::Transcriptions,
    Protocol::Speech,
    Protocol::Images,
];

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(endpoints: &[Endpoint]) -> Vec<String> {
        let line = |e: &Endpoint| {
            let mark = if e.derived { "+" } else { "" };
            format!(
                "{mark}{} {}://{}{}",
                e.protocol, e.scheme, e.authority, e.path
            )
        };
        endpoints.iter().map(line).collect()
    }

    #[test]
    fn a_base_url_keeps_its_path_without_the_last_slash() {
        let chat = [(
            Protocol::Chat,
            base("http://127.0.0.1:11434/api/v1/").unwrap(),
        )];
        let all = shown(&endpoints(&chat, None, &[]));
        assert_eq!(all[0], "chat http://127.0.0.1:11434/api/v1");
        assert_eq!(all[1], "+completions http://127.0.0.1:11434/api/v1");
        assert_eq!(all.len(), 6);
    }

    #[test]
    fn gemini_gets_a_version_only_when_it_has_none() {
        for (url, path) in [
            ("https://g.example", "/v1beta"),
            ("https://g.example/v1", "/v1"),
            ("https://g.example/v1alpha2/", "/v1alpha2"),
            ("https://g.example/proxy/gemini", "/proxy/gemini/v1beta"),
            ("https://g.example/v1/projects/p", "/v1/projects/p"),
            ("https://g.example/vertex", "/vertex/v1beta"),
        ] {
            let gemini = [(Protocol::Gemini, base(url).unwrap())];
            assert_eq!(endpoints(&gemini, None, &[])[0].path, path, "{url}");
        }
    }

    #[test]
    fn messages_alone_derives_nothing_but_what_models_ask_for() {
        let messages = [(
            Protocol::Messages,
            base("https://api.anthropic.com/v1").unwrap(),
        )];
        assert_eq!(shown(&endpoints(&messages, None, &[])).len(), 1);
        let asked = endpoints(&messages, None, &[Protocol::Messages, Protocol::Responses]);
        assert_eq!(
            shown(&asked)[1..],
            ["+responses https://api.anthropic.com/v1"]
        );
    }

    #[test]
    fn what_is_no_base_url_is_refused_with_a_reason() {
        for (url, reason) in [
            ("", "not a URL"),
            ("api.example.com", "not a full URL"),
            ("/v1", "not a full URL"),
            ("ftp://x/v1", "http or https"),
            ("https://u:p@x/v1", "user name"),
            ("https://x/v1?key=1", "query"),
            ("https://x:/v1", "empty port"),
            ("https://x y/v1", "not a URL"),
        ] {
            let error = base(url).unwrap_err();
            assert!(error.contains(reason), "{url}: {error}");
        }
    }
}
