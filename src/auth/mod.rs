//! Who is calling. Credentials are looked up by their SHA-256, so neither the
//! look-up's time nor its outcome tells how much of one was right.

mod throttle;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName};
use ring::digest::{SHA256, digest};

use crate::config::{Config, Key};
pub use throttle::Throttle;

/// The header of the management credential.
pub const ADMIN_HEADER: &str = "x-admin-key";

const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const X_GOOG_API_KEY: HeaderName = HeaderName::from_static("x-goog-api-key");

/// A client that may use inference endpoints.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Its key.
    pub key: Arc<Key>,
    /// What stood after the credential's first colon, in lower case.
    pub attribution: Option<Box<str>>,
}

/// Who calls the management API.
#[derive(Debug, Clone)]
pub enum Principal {
    /// Holds the admin key.
    Admin,
    /// Holds an inference key, and sees what belongs to it.
    Limited(Arc<Key>),
}

/// Why a caller was turned away. Callers are told the same for all but the
/// first, so that nobody learns which credentials exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// No credential in any of its places.
    Missing,
    /// None that is a key, or one that is off, expired, or from elsewhere.
    Invalid,
}

/// The inference key of a request. Credentials are tried in the order
/// `x-api-key`, `x-goog-api-key`, `Authorization`, `?key=`; the first that is
/// a key wins, because SDKs send stray ones along. `now` is in milliseconds
/// since the epoch.
///
/// # Errors
///
/// [`Denied`].
pub fn caller(
    config: &Config,
    headers: &HeaderMap,
    query: Option<&str>,
    address: Option<IpAddr>,
    now: i64,
) -> Result<Caller, Denied> {
    let mut presented = false;
    for credential in header_credentials(headers) {
        presented = true;
        if let Some(caller) = accept(config, credential, address, now) {
            return Ok(caller);
        }
    }
    if let Some(credential) = query.and_then(query_key) {
        presented = true;
        if let Some(caller) = accept(config, &credential, address, now) {
            return Ok(caller);
        }
    }
    Err(if presented {
        Denied::Invalid
    } else {
        Denied::Missing
    })
}

/// Who calls the management API: the credential stands in `x-admin-key` alone.
///
/// What is compared are digests, whose bytes are unrelated to the credential's:
/// how early a comparison ends tells nothing about it.
#[must_use]
pub fn principal(
    config: &Config,
    headers: &HeaderMap,
    address: Option<IpAddr>,
    now: i64,
) -> Option<Principal> {
    let credential = headers.get(ADMIN_HEADER)?.to_str().ok()?;
    let presented = digest(&SHA256, credential.as_bytes());
    let admin = digest(&SHA256, config.admin_key.expose().as_bytes());
    if presented.as_ref() == admin.as_ref() {
        return Some(Principal::Admin);
    }
    let key = look_up(config, credential)?;
    usable(key, address, now).then(|| Principal::Limited(Arc::clone(key)))
}

/// The client's address: the socket's peer, unless that is a trusted proxy;
/// then the right-most entry of `x-forwarded-for` that is not one.
#[must_use]
pub fn client_address(
    trusted: &[ipnet::IpNet],
    peer: Option<IpAddr>,
    headers: &HeaderMap,
) -> Option<IpAddr> {
    let is_trusted = |address: &IpAddr| trusted.iter().any(|net| net.contains(address));
    let Some(peer) = peer.filter(is_trusted) else {
        return peer;
    };
    let forwarded = headers.get_all("x-forwarded-for").iter().rev();
    let entries = forwarded.flat_map(|value| value.to_str().unwrap_or("?").rsplit(','));
    let mut nearest = peer;
    for entry in entries.map(str::trim).filter(|entry| !entry.is_empty()) {
        // What stands to the left of an entry that says nothing may be anybody's
        // invention: no list of addresses may be met by it.
        let Some(address) = forwarded_address(entry) else {
            return Some(NOWHERE);
        };
        nearest = address;
        if !is_trusted(&address) {
            break;
        }
    }
    Some(nearest)
}

/// An address that no client has.
const NOWHERE: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// An entry of `x-forwarded-for`: an address, in brackets or with a port as some
/// proxies write it.
fn forwarded_address(entry: &str) -> Option<IpAddr> {
    let with_port = || entry.parse::<SocketAddr>().ok().map(|socket| socket.ip());
    let bare = entry
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let address = bare.unwrap_or(entry).parse().ok().or_else(with_port);
    address.map(|address: IpAddr| address.to_canonical())
}

fn header_credentials(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let named = [X_API_KEY, X_GOOG_API_KEY]
        .into_iter()
        .filter_map(|name| headers.get(name));
    named
        .filter_map(|value| value.to_str().ok())
        .chain(
            headers
                .get(AUTHORIZATION)
                .and_then(|value| value.to_str().ok())
                .map(without_scheme),
        )
        .map(str::trim)
        .filter(|credential| !credential.is_empty())
}

/// `Bearer` may be missing; clients exist that send the bare key.
fn without_scheme(value: &str) -> &str {
    match value.split_at_checked(7) {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("bearer ") => rest,
        _ => value,
    }
}

fn query_key(query: &str) -> Option<String> {
    let pair = query
        .split('&')
        .find_map(|pair| pair.strip_prefix("key="))?;
    crate::router::percent_decode(pair).filter(|key| !key.is_empty())
}

fn accept(config: &Config, credential: &str, address: Option<IpAddr>, now: i64) -> Option<Caller> {
    let (secret, attribution) = match credential.split_once(':') {
        Some((secret, attribution)) => (secret, Some(attribution)),
        None => (credential, None),
    };
    let key = look_up(config, secret)?;
    usable(key, address, now).then(|| Caller {
        key: Arc::clone(key),
        attribution: attribution
            .filter(|text| !text.is_empty())
            .map(|text| text.to_lowercase().into_boxed_str()),
    })
}

fn look_up<'a>(config: &'a Config, secret: &str) -> Option<&'a Arc<Key>> {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest(&SHA256, secret.as_bytes()).as_ref());
    config.key_by_digest(&bytes)
}

/// Switched on, not expired, and called from where it may be. A caller on the
/// Unix socket has no address and passes: the file's mode is its gate.
fn usable(key: &Key, address: Option<IpAddr>, now: i64) -> bool {
    let expired = key.expires_at.is_some_and(|at| at <= now);
    let placed = key.allowed_ips.is_empty()
        || address.is_none_or(|address| key.allowed_ips.iter().any(|net| net.contains(&address)));
    key.disabled_at.is_none() && !expired && placed
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn config() -> Config {
        let text = "adminKey: admin-1\nkeys:\n  app: { secret: sk-1 }\n  office: { secret: sk-2, allowedIps: [10.0.0.0/8] }\n";
        Config::from_yaml(text).unwrap()
    }

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )
            })
            .collect()
    }

    fn name(pairs: &[(&'static str, &'static str)], query: Option<&str>) -> Result<String, Denied> {
        caller(&config(), &headers(pairs), query, None, 0).map(|caller| caller.key.name.to_string())
    }

    #[test]
    fn every_place_of_a_credential_is_read_and_junk_in_one_does_not_hide_another() {
        assert_eq!(
            name(&[("authorization", "Bearer sk-1")], None).unwrap(),
            "app"
        );
        assert_eq!(
            name(&[("authorization", "bearer sk-1")], None).unwrap(),
            "app"
        );
        assert_eq!(name(&[("authorization", "sk-1")], None).unwrap(), "app");
        assert_eq!(name(&[("x-api-key", "sk-1")], None).unwrap(), "app");
        assert_eq!(name(&[("x-goog-api-key", "sk-1")], None).unwrap(), "app");
        assert_eq!(name(&[], Some("alt=sse&key=sk%2D1")).unwrap(), "app");
        assert_eq!(
            name(
                &[("x-api-key", "junk"), ("authorization", "Bearer sk-1")],
                None
            )
            .unwrap(),
            "app"
        );
        assert_eq!(name(&[], None).unwrap_err(), Denied::Missing);
        assert_eq!(
            name(&[("x-api-key", "junk")], None).unwrap_err(),
            Denied::Invalid
        );
    }

    #[test]
    fn the_admin_key_is_no_inference_key_and_the_reverse() {
        assert_eq!(
            name(&[("authorization", "Bearer admin-1")], None).unwrap_err(),
            Denied::Invalid
        );
        let config = config();
        let limited = principal(&config, &headers(&[("x-admin-key", "sk-1")]), None, 0);
        assert!(matches!(limited, Some(Principal::Limited(key)) if &*key.name == "app"));
        assert!(matches!(
            principal(&config, &headers(&[("x-admin-key", "admin-1")]), None, 0),
            Some(Principal::Admin)
        ));
        assert!(
            principal(
                &config,
                &headers(&[("authorization", "Bearer admin-1")]),
                None,
                0
            )
            .is_none()
        );
        assert!(principal(&config, &headers(&[("x-admin-key", "sk-1:label")]), None, 0).is_none());
    }

    #[test]
    fn attribution_follows_the_first_colon_in_lower_case() {
        let caller = caller(
            &config(),
            &headers(&[("x-api-key", "sk-1:CoPilot:V2")]),
            None,
            None,
            0,
        )
        .unwrap();
        assert_eq!(caller.attribution.as_deref(), Some("copilot:v2"));
    }

    #[test]
    fn a_key_bound_to_a_network_is_refused_from_elsewhere() {
        let sent = headers(&[("x-api-key", "sk-2")]);
        let from = |address: &str| caller(&config(), &sent, None, address.parse().ok(), 0).is_ok();
        assert!(from("10.1.2.3"));
        assert!(!from("192.168.1.1"));
    }

    #[test]
    fn promise_18_forwarded_addresses_count_from_trusted_proxies_alone() {
        let trusted: Vec<ipnet::IpNet> = ["10.0.0.0/8", "::1/128"]
            .map(|net| net.parse().unwrap())
            .into();
        let client = |peer: &str, forwarded: &'static str| {
            let sent = headers(&[("x-forwarded-for", forwarded)]);
            let address = client_address(&trusted, peer.parse().ok(), &sent);
            address.unwrap().to_string()
        };
        for (peer, forwarded, expected) in [
            ("192.0.2.1", "10.2.3.4", "192.0.2.1"),
            ("10.0.0.1", "198.51.100.7", "198.51.100.7"),
            (
                "10.0.0.1",
                "1.1.1.1, 198.51.100.7, 10.0.0.2",
                "198.51.100.7",
            ),
            ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
            ("10.0.0.1", "", "10.0.0.1"),
            ("10.0.0.1", "10.9.9.9, 198.51.100.7:4321", "198.51.100.7"),
            ("::1", "[2001:db8::5]", "2001:db8::5"),
            ("::1", "[2001:db8::5]:443, ::ffff:10.0.0.1", "2001:db8::5"),
            ("10.0.0.1", "10.9.9.9, unknown", "0.0.0.0"),
            ("10.0.0.1", "10.9.9.9, unknown, 10.0.0.2", "0.0.0.0"),
        ] {
            assert_eq!(client(peer, forwarded), expected, "{peer} {forwarded}");
        }
        let none = client_address(&[], "10.0.0.1".parse().ok(), &headers(&[]));
        assert_eq!(none.unwrap().to_string(), "10.0.0.1");
    }

    /// What is presented is never a question to a database, only bytes of which
    /// the digest is looked up.
    #[test]
    fn promise_16_a_credential_is_found_by_its_digest_whatever_it_says() {
        let config = config();
        for credential in [
            "' OR '1'='1",
            "sk-1'; DROP TABLE usage; --",
            "%73k-1",
            "sk-1 ",
            "SK-1",
            "sk-",
            "sk-11",
        ] {
            let found = accept(&config, credential, None, 0);
            assert!(found.is_none(), "{credential}");
        }
        let bytes = digest(&SHA256, b"sk-1");
        let mut wanted = [0; 32];
        wanted.copy_from_slice(bytes.as_ref());
        let key = config.key_by_digest(&wanted).unwrap();
        assert_eq!(&*key.name, "app");
        assert!(!format!("{key:?}").contains("sk-1"), "it is never shown");
    }
}
