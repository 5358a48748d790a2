//! Building a request to a provider. It is made anew from parsed parts: of
//! the client's header fields only those listed here go upstream, and never a
//! credential, a cookie or a hop-by-hop field.

use std::borrow::Cow;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Request, Uri};

use super::body::RequestBody;
use super::pool::Wire;
use crate::config::{Endpoint, Provider, Secret};
use crate::protocol::Protocol;

/// What each protocol's own credential field is called.
const ANTHROPIC_VERSION: HeaderName = HeaderName::from_static("anthropic-version");
const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const X_GOOG_API_KEY: HeaderName = HeaderName::from_static("x-goog-api-key");
pub(super) const AGENT: HeaderValue =
    HeaderValue::from_static(concat!("plexus/", env!("CARGO_PKG_VERSION")));

/// A request to a provider, before it is known on which connection it goes.
#[derive(Debug)]
pub struct Outbound<'a> {
    provider: &'a Provider,
    endpoint: &'a Endpoint,
    client_headers: &'a HeaderMap,
    suffix: Cow<'static, str>,
    frames: Vec<bytes::Bytes>,
    method: Method,
}

impl<'a> Outbound<'a> {
    /// A POST to `endpoint`: its path, then `suffix` (which starts with a
    /// slash and may carry a query). `client_headers` are those of the client's
    /// request; `frames` is the body.
    #[must_use]
    pub fn new(
        provider: &'a Provider,
        endpoint: &'a Endpoint,
        suffix: Cow<'static, str>,
        client_headers: &'a HeaderMap,
        frames: Vec<bytes::Bytes>,
    ) -> Self {
        Self {
            provider,
            endpoint,
            client_headers,
            suffix,
            frames,
            method: Method::POST,
        }
    }

    /// The same with another method.
    #[must_use]
    pub fn with_method(mut self, method: Method) -> Self {
        self.method = method;
        self
    }

    /// Where it goes.
    #[must_use]
    pub fn origin(&self) -> (&Scheme, &Authority) {
        (&self.endpoint.scheme, &self.endpoint.authority)
    }

    /// The whole URL, for logs; it holds no credential.
    #[must_use]
    pub fn url(&self) -> String {
        let endpoint = self.endpoint;
        format!(
            "{}://{}{}{}",
            endpoint.scheme, endpoint.authority, endpoint.path, self.suffix
        )
    }

    /// The header fields, credentials marked sensitive.
    #[must_use]
    pub fn headers(&self) -> HeaderMap {
        let prepared = self
            .endpoint
            .prepared
            .0
            .get_or_init(|| prepare(self.provider, self.endpoint));
        let mut headers = prepared.clone();
        let protocol = self.endpoint.protocol;
        for (name, value) in self.client_headers {
            if forwarded(name, protocol)
                && !self.provider.headers.iter().any(|(set, _)| set == name)
            {
                headers.insert(name.clone(), value.clone());
            }
        }
        headers
    }

    /// Calls `each` with the credentials it carries, without their scheme.
    pub fn secrets(&self) -> Vec<Vec<u8>> {
        let headers = self.headers();
        let sensitive = headers.values().filter(|value| value.is_sensitive());
        let bare = sensitive.map(|value| {
            value
                .as_bytes()
                .strip_prefix(b"Bearer ")
                .unwrap_or_else(|| value.as_bytes())
        });
        bare.map(<[u8]>::to_vec).collect()
    }

    /// The body.
    #[must_use]
    pub fn body(&self) -> &[bytes::Bytes] {
        &self.frames
    }

    /// Another body is sent.
    pub fn set_body(&mut self, frames: Vec<bytes::Bytes>) {
        self.frames = frames;
    }

    /// How to send another body to the same place later, when nothing of this request
    /// is there any more.
    #[must_use]
    pub fn detached(&self) -> Detached {
        let (scheme, authority) = self.origin();
        Detached {
            scheme: scheme.clone(),
            authority: authority.clone(),
            headers: self.headers(),
            uris: [self.uri(Wire::H1), self.uri(Wire::H2)],
        }
    }

    /// The request for one connection. Frames are shared, not copied.
    #[must_use]
    pub fn build(&self, wire: Wire) -> Request<RequestBody> {
        let mut request = Request::new(RequestBody::new(self.frames.clone()));
        *request.method_mut() = self.method.clone();
        *request.headers_mut() = self.headers();
        *request.uri_mut() = self.uri(wire);
        if wire == Wire::H2 {
            request.headers_mut().remove(header::HOST);
        }
        request
    }

    /// A path that does not parse as one can only come from a model name with
    /// bytes that no URL holds; `suffix` escapes them.
    fn uri(&self, wire: Wire) -> Uri {
        let mut text = String::with_capacity(self.endpoint.path.len() + self.suffix.len());
        text.push_str(&self.endpoint.path);
        text.push_str(&self.suffix);
        let path = PathAndQuery::try_from(text).unwrap_or_else(|_| PathAndQuery::from_static("/"));
        if wire == Wire::H1 {
            return Uri::from(path);
        }
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(self.endpoint.scheme.clone());
        parts.authority = Some(self.endpoint.authority.clone());
        parts.path_and_query = Some(path);
        Uri::from_parts(parts).unwrap_or_default()
    }
}

/// Where a request went, and with what header fields. See [`Outbound::detached`].
#[derive(Debug)]
pub struct Detached {
    scheme: Scheme,
    authority: Authority,
    /// Credentials are marked sensitive.
    headers: HeaderMap,
    uris: [Uri; 2],
}

impl Detached {
    /// Where it goes.
    #[must_use]
    pub const fn origin(&self) -> (&Scheme, &Authority) {
        (&self.scheme, &self.authority)
    }

    /// A POST of that body for one connection.
    #[must_use]
    pub fn build(&self, frames: &[bytes::Bytes], wire: Wire) -> Request<RequestBody> {
        let [h1, h2] = &self.uris;
        let mut request = Request::new(RequestBody::new(frames.to_vec()));
        *request.method_mut() = Method::POST;
        *request.headers_mut() = self.headers.clone();
        *request.uri_mut() = if wire == Wire::H1 { h1 } else { h2 }.clone();
        if wire == Wire::H2 {
            request.headers_mut().remove(header::HOST);
        }
        request
    }
}

/// What is the same in every request to an endpoint. The provider's configured
/// fields win over ours.
fn prepare(provider: &Provider, endpoint: &Endpoint) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(12 + provider.headers.len());
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    headers.insert(header::USER_AGENT, AGENT);
    if let Ok(host) = HeaderValue::from_str(endpoint.authority.as_str()) {
        headers.insert(header::HOST, host);
    }
    if endpoint.protocol == Protocol::Messages {
        headers.insert(ANTHROPIC_VERSION, HeaderValue::from_static("2023-06-01"));
    }
    let key = provider.api_key.as_ref();
    if let Some((name, value)) = key.and_then(|key| credential(endpoint.protocol, key)) {
        headers.insert(name, value);
    }
    for (name, value) in &provider.headers {
        headers.insert(name.clone(), value.clone());
    }
    headers
}

/// The provider's key in its protocol's own field, marked sensitive. `None`
/// when the key holds bytes that no header field may.
fn credential(protocol: Protocol, key: &Secret) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = match protocol {
        Protocol::Messages => (X_API_KEY, HeaderValue::from_str(key.expose())),
        Protocol::Gemini => (X_GOOG_API_KEY, HeaderValue::from_str(key.expose())),
        _ => {
            let bearer = format!("Bearer {}", key.expose());
            (header::AUTHORIZATION, HeaderValue::try_from(bearer))
        }
    };
    let mut value = value.ok()?;
    value.set_sensitive(true);
    Some((name, value))
}

/// Fields of the client's request that a provider of the same protocol gets.
///
/// `openai-organization`, `openai-project` and `x-goog-user-project` stay
/// behind: they name the client's own account, while the key is the operator's.
fn forwarded(name: &HeaderName, protocol: Protocol) -> bool {
    if *name == header::ACCEPT {
        return true;
    }
    let name = name.as_str();
    match protocol {
        // The boundary of a form stands in it.
        Protocol::Transcriptions | Protocol::Images => name == "content-type",
        Protocol::Messages => {
            matches!(name, "anthropic-beta" | "anthropic-version") || routes_caches(name)
        }
        Protocol::Gemini => {
            name.starts_with("x-goog-") && !matches!(name, "x-goog-api-key" | "x-goog-user-project")
        }
        Protocol::Responses => {
            matches!(
                name,
                "openai-beta" | "x-openai-internal-codex-responses-lite"
            ) || routes_caches(name)
        }
        _ => name == "openai-beta",
    }
}

/// Fields by which providers keep a conversation near its prompt cache.
fn routes_caches(name: &str) -> bool {
    matches!(
        name,
        "session-id"
            | "session_id"
            | "conversation_id"
            | "x-client-request-id"
            | "x-session-affinity"
            | "x-session-id"
            | "x-prompt-cache-isolation-key"
            | "x-multi-turn-session-id"
    )
}

/// The action of counting a request's tokens, in Gemini's word.
pub const COUNT: &str = "countTokens";

/// What is appended to a base URL's path for a protocol. For Gemini that is
/// `/models/{model}:{action}`, with the model's name escaped for a path and the
/// client's query without its key.
#[must_use]
pub fn suffix(
    protocol: Protocol,
    model: &str,
    action: &str,
    query: Option<&str>,
) -> Cow<'static, str> {
    Cow::Borrowed(match protocol {
        Protocol::Chat => "/chat/completions",
        Protocol::Responses if action == "compact" => "/responses/compact",
        Protocol::Responses if action == COUNT => "/responses/input_tokens",
        Protocol::Messages if action == COUNT => "/messages/count_tokens",
        Protocol::Responses => "/responses",
        Protocol::Messages => "/messages",
        Protocol::Completions => "/completions",
        Protocol::Embeddings => "/embeddings",
        Protocol::Transcriptions => "/audio/transcriptions",
        Protocol::Speech => "/audio/speech",
        Protocol::Images if action == "edits" => "/images/edits",
        Protocol::Images => "/images/generations",
        Protocol::Gemini => return Cow::Owned(gemini_suffix(model, action, query)),
    })
}

fn gemini_suffix(model: &str, action: &str, query: Option<&str>) -> String {
    let mut suffix = String::from("/models/");
    escape_path(model, &mut suffix);
    suffix.push(':');
    suffix.push_str(action);
    let mut separator = '?';
    for pair in query.unwrap_or_default().split('&') {
        let name = pair.split('=').next().unwrap_or_default();
        if !name.is_empty() && name != "key" {
            suffix.push(separator);
            suffix.push_str(pair);
            separator = '&';
        }
    }
    suffix
}

/// RFC 3986 path characters stay, slashes included; the rest is percent-encoded.
fn escape_path(text: &str, out: &mut String) {
    for byte in text.bytes() {
        let plain = byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/".contains(&byte);
        if plain {
            out.push(char::from(byte));
        } else {
            out.push('%');
            for nibble in [byte >> 4, byte & 15] {
                out.push(char::from(b"0123456789ABCDEF"[usize::from(nibble)]));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gemini_path_keeps_slashes_and_colons_and_loses_the_key() {
        assert_eq!(
            suffix(
                Protocol::Gemini,
                "acme/m:free é",
                "streamGenerateContent",
                Some("alt=sse&key=sk-1")
            ),
            "/models/acme/m:free%20%C3%A9:streamGenerateContent?alt=sse"
        );
    }

    #[test]
    fn credentials_cookies_and_foreign_accounts_stay_behind() {
        for name in [
            "authorization",
            "x-api-key",
            "x-goog-api-key",
            "cookie",
            "connection",
            "host",
            "openai-organization",
            "openai-project",
            "x-goog-user-project",
            "x-forwarded-for",
            "transfer-encoding",
            "content-length",
            "accept-encoding",
            "proxy-authorization",
        ] {
            for protocol in Protocol::ALL {
                assert!(
                    !forwarded(&HeaderName::from_static(name), protocol),
                    "{name} to {protocol}"
                );
            }
        }
    }
}
