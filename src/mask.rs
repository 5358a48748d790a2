//! What stands where a secret stood: in logs, errors and captures.
//!
//! It must not know whose secrets these are.

use bytes::Bytes;
use http::HeaderMap;
use memchr::memmem::Finder;
use serde_json::{Map, Value};

/// Shorter credentials can't be told from ordinary words.
const SHORTEST: usize = 6;

/// A secret's ends, and only when it is long enough for that; a scheme before it
/// stays.
#[must_use]
pub fn mask(secret: &str) -> String {
    let (scheme, rest) = match secret.split_once(' ') {
        Some((scheme, rest)) => (format!("{scheme} "), rest),
        None => (String::new(), secret),
    };
    let letters: Vec<char> = rest.chars().collect();
    if letters.len() < 16 {
        return format!("{scheme}...");
    }
    let head: String = letters[..4].iter().collect();
    let tail: String = letters[letters.len() - 4..].iter().collect();
    format!("{scheme}{head}...{tail}")
}

/// Header fields as JSON, by name; several values of one name are joined by
/// commas. Of credentials only the ends are left.
#[must_use]
pub fn headers(headers: &HeaderMap) -> Map<String, Value> {
    let mut object = Map::new();
    for name in headers.keys() {
        let all = headers.get_all(name).iter();
        let shown = all.map(|value| {
            let text = String::from_utf8_lossy(value.as_bytes());
            if value.is_sensitive() || is_credential(name.as_str()) {
                mask(&text)
            } else {
                text.into_owned()
            }
        });
        let shown: Vec<String> = shown.collect();
        object.insert(name.as_str().to_owned(), shown.join(", ").into());
    }
    object
}

/// The credentials among header fields, without their scheme.
pub fn credentials(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let secret = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        value.is_sensitive() || is_credential(name.as_str())
    };
    let found = headers.iter().filter(move |field| secret(*field));
    found.map(|(_, value)| {
        let value = value.as_bytes();
        match memchr::memchr(b' ', value) {
            Some(space) => &value[space + 1..],
            None => value,
        }
    })
}

fn is_credential(name: &str) -> bool {
    matches!(
        name,
        "authorization"
            | "proxy-authorization"
            | "x-api-key"
            | "x-goog-api-key"
            | "x-admin-key"
            | "api-key"
            | "cookie"
            | "set-cookie"
    )
}

/// The body with `with` wherever the secret stood. Where it doesn't stand, and
/// where it is too short to be told from a word, the body is shared.
#[must_use]
pub fn without(body: &Bytes, secret: &[u8], with: &str) -> Bytes {
    if secret.len() < SHORTEST {
        return body.clone();
    }
    let finder = Finder::new(secret);
    let mut from = 0;
    let mut kept = Vec::new();
    for at in finder.find_iter(body) {
        kept.extend_from_slice(&body[from..at]);
        kept.extend_from_slice(with.as_bytes());
        from = at + secret.len();
    }
    if from == 0 {
        return body.clone();
    }
    kept.extend_from_slice(&body[from..]);
    kept.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn a_masked_secret_shows_its_ends_only_when_it_is_long() {
        assert_eq!(mask("Bearer sk-0123456789abcdef"), "Bearer sk-0...cdef");
        assert_eq!(mask("short"), "...");
    }

    #[test]
    fn header_fields_hide_what_is_a_credential_by_name_or_by_mark() {
        let mut fields = HeaderMap::new();
        fields.insert("X-Api-Key", HeaderValue::from_static("sk-0123456789abcdef"));
        let mut marked = HeaderValue::from_static("hush-0123456789abcdef");
        marked.set_sensitive(true);
        fields.insert("x-own", marked);
        fields.append("accept", HeaderValue::from_static("a"));
        fields.append("accept", HeaderValue::from_static("b"));
        let shown = headers(&fields);
        assert_eq!(shown["x-api-key"], "sk-0...cdef");
        assert_eq!(shown["x-own"], "hush...cdef");
        assert_eq!(shown["accept"], "a, b");
        assert_eq!(credentials(&fields).count(), 2);
    }

    #[test]
    fn a_secret_is_replaced_wherever_it_stands() {
        let body = Bytes::from_static(b"sk-secret and sk-secret");
        assert_eq!(without(&body, b"sk-secret", "*"), "* and *");
        assert_eq!(without(&body, b"and", "*"), body, "too short to be one");
    }
}
