//! Fetching a document by its URL: a list of models, a catalogue. Nothing is
//! followed, nothing is read without end, and where it must not go is decided
//! by the addresses that a name has: it is resolved once, and the connection
//! goes to what was looked at.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::uri::Scheme;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::connect::Connector;
use super::request::AGENT;
use super::stream::Stream;

/// What is fetched, and how much of it.
#[derive(Debug)]
pub struct Fetch {
    /// `http` or `https`, without credentials of its own.
    pub url: Uri,
    /// Sent as the bearer's token; must be marked sensitive.
    pub bearer: Option<HeaderValue>,
    /// Most bytes of the document.
    pub most: usize,
    /// Time for all of it.
    pub limit: Duration,
    /// Whether this machine itself may be asked.
    pub at_home: bool,
}

/// A document, or what was said instead of it.
#[derive(Debug)]
pub struct Fetched {
    /// The answer's status; never a redirection.
    pub status: StatusCode,
    /// Its body.
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum FetchError {
    /// It is no URL that can be fetched.
    Url(&'static str),
    /// It leads where nothing is fetched from.
    Forbidden(&'static str),
    /// It leads on to somewhere else.
    Redirected(StatusCode),
    /// Its host could not be found or reached.
    Connect(io::Error),
    /// The connection failed.
    Exchange(Box<dyn std::error::Error + Send + Sync>),
    /// The document has more bytes than this.
    TooLarge(usize),
    /// It took longer than this.
    Timeout(Duration),
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(message) | Self::Forbidden(message) => f.write_str(message),
            Self::Redirected(status) => write!(
                f,
                "the answer is a redirection ({}), which is not followed; name the place itself",
                status.as_u16()
            ),
            Self::Connect(error) => write!(f, "could not connect: {error}"),
            Self::Exchange(error) => write!(f, "the connection failed: {error}"),
            Self::TooLarge(most) => write!(f, "the answer has more than {most} bytes"),
            Self::Timeout(limit) => write!(f, "no whole answer came within {} s", limit.as_secs()),
        }
    }
}

impl std::error::Error for FetchError {}

impl Connector {
    /// Fetches a document on a connection of its own.
    ///
    /// # Errors
    ///
    /// [`FetchError`]; an answer that is an error of the other side is none.
    pub async fn fetch(&self, fetch: Fetch) -> Result<Fetched, FetchError> {
        let limit = fetch.limit;
        let fetched = tokio::time::timeout(limit, Box::pin(self.fetched(fetch)));
        fetched.await.unwrap_or(Err(FetchError::Timeout(limit)))
    }

    async fn fetched(&self, fetch: Fetch) -> Result<Fetched, FetchError> {
        let addresses = looked_at(&fetch.url, fetch.at_home).await?;
        let connection = self.connect_to(fetch.url.clone(), addresses).await;
        let (stream, h2) = connection.map_err(FetchError::Connect)?;
        let most = fetch.most;
        let request = request(&fetch, h2).map_err(|error| FetchError::Exchange(Box::new(error)))?;
        let response = send(stream, h2, request).await?;
        let (head, body) = response;
        if head.is_redirection() {
            return Err(FetchError::Redirected(head));
        }
        let body = Limited::new(body, most).collect().await;
        let body = body.map_err(|error| {
            if error.is::<LengthLimitError>() {
                FetchError::TooLarge(most)
            } else {
                FetchError::Exchange(error)
            }
        })?;
        Ok(Fetched {
            status: head,
            body: body.to_bytes(),
        })
    }
}

fn request(fetch: &Fetch, h2: bool) -> http::Result<Request<Empty<Bytes>>> {
    let path = fetch.url.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::get(if h2 {
        fetch.url.to_string()
    } else {
        path.to_owned()
    })
    .header(header::ACCEPT, "application/json")
    .header(header::USER_AGENT, AGENT);
    if !h2 && let Some(authority) = fetch.url.authority() {
        request = request.header(header::HOST, authority.as_str());
    }
    if let Some(bearer) = &fetch.bearer {
        request = request.header(header::AUTHORIZATION, bearer);
    }
    request.body(Empty::new())
}

/// A body that keeps its connection going for as long as it is read.
struct Driven {
    body: Incoming,
    /// Ends the connection's task with the body.
    _task: Task,
}

struct Task(tokio::task::JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl http_body::Body for Driven {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, hyper::Error>>> {
        std::pin::Pin::new(&mut self.body).poll_frame(cx)
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

async fn send(
    stream: Stream,
    h2: bool,
    request: Request<Empty<Bytes>>,
) -> Result<(StatusCode, Driven), FetchError> {
    let failed = |error: hyper::Error| FetchError::Exchange(Box::new(error));
    let stream = TokioIo::new(stream);
    let (task, response) = if h2 {
        let opened = http2::handshake(TokioExecutor::new(), stream).await;
        let (mut sender, driver) = opened.map_err(failed)?;
        let task = Task(tokio::spawn(async move { drop(driver.await) }));
        (task, sender.send_request(request).await)
    } else {
        let (mut sender, driver) = http1::handshake(stream).await.map_err(failed)?;
        let task = Task(tokio::spawn(async move { drop(driver.await) }));
        (task, sender.send_request(request).await)
    };
    let (head, body) = response.map_err(failed)?.into_parts();
    Ok((head.status, Driven { body, _task: task }))
}

/// The addresses of a URL's host, all of which may be asked.
async fn looked_at(url: &Uri, at_home: bool) -> Result<Vec<SocketAddr>, FetchError> {
    let default = match url.scheme() {
        Some(scheme) if *scheme == Scheme::HTTP => 80,
        Some(scheme) if *scheme == Scheme::HTTPS => 443,
        _ => {
            return Err(FetchError::Forbidden(
                "the URL must begin with http:// or https://",
            ));
        }
    };
    let authority = url
        .authority()
        .ok_or(FetchError::Url("the URL has no host"))?;
    if authority.as_str().contains('@') {
        return Err(FetchError::Url(
            "the URL must hold no user name or password",
        ));
    }
    let host = authority
        .host()
        .trim_start_matches('[')
        .trim_end_matches(']');
    if let Some(message) = forbidden_name(host, at_home) {
        return Err(FetchError::Forbidden(message));
    }
    let port = authority.port_u16().unwrap_or(default);
    let found = tokio::net::lookup_host((host, port)).await;
    let addresses: Vec<SocketAddr> = found.map_err(FetchError::Connect)?.collect();
    let mut forbidden = addresses
        .iter()
        .filter_map(|address| forbidden(address.ip(), at_home));
    match forbidden.next() {
        Some(message) => Err(FetchError::Forbidden(message)),
        None => Ok(addresses),
    }
}

const AT_HOME: &str = "Cannot fetch from localhost";
const METADATA: &str = "Cannot fetch from a metadata service or a link-local address";
const NOBODY: &str = "Cannot fetch from an address that is no host's";

/// Names that are refused before they are resolved.
fn forbidden_name(host: &str, at_home: bool) -> Option<&'static str> {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let inside = |zone: &str| host == zone || host.ends_with(&format!(".{zone}"));
    if inside("localhost") && !at_home {
        return Some(AT_HOME);
    }
    let metadata = host == "metadata" || host.starts_with("metadata.") || host == "instance-data";
    (metadata && (host.ends_with(".internal") || !host.contains('.'))).then_some(METADATA)
}

/// Why nothing is fetched from an address, if so. Private networks are open:
/// many a provider stands in one.
fn forbidden(address: IpAddr, at_home: bool) -> Option<&'static str> {
    match address.to_canonical() {
        IpAddr::V4(v4) => forbidden_v4(v4, at_home),
        IpAddr::V6(v6) => {
            // Addresses of IPv4 in other clothes: compatible, NAT64, 6to4.
            let [a, b, c, d, e, f, g, h] = v6.segments();
            let embedded = match (a, b) {
                (0, 0) if [c, d, e, f] == [0; 4] && (g, h) > (0, 1) => Some((g, h)),
                (0x64, 0xff9b) if [c, d, e, f] == [0; 4] => Some((g, h)),
                (0x2002, _) => Some((b, c)),
                _ => None,
            };
            if let Some((high, low)) = embedded {
                let v4 = Ipv4Addr::from_bits((u32::from(high) << 16) | u32::from(low));
                return forbidden_v4(v4, at_home);
            }
            forbidden_v6(v6, at_home)
        }
    }
}

fn forbidden_v4(v4: Ipv4Addr, at_home: bool) -> Option<&'static str> {
    let alibaba = Ipv4Addr::new(100, 100, 100, 200);
    let oracle = Ipv4Addr::new(192, 0, 0, 192);
    let azure = Ipv4Addr::new(168, 63, 129, 16);
    if v4.is_loopback() || v4.octets()[0] == 0 {
        return (!at_home).then_some(AT_HOME);
    }
    if v4.is_link_local() || [alibaba, oracle, azure].contains(&v4) {
        return Some(METADATA);
    }
    (v4.is_multicast() || v4.is_broadcast()).then_some(NOBODY)
}

fn forbidden_v6(v6: Ipv6Addr, at_home: bool) -> Option<&'static str> {
    let amazon = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
    let google = Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254);
    if v6.is_loopback() || v6.is_unspecified() {
        return (!at_home).then_some(AT_HOME);
    }
    if v6.is_unicast_link_local() || [amazon, google].contains(&v6) {
        return Some(METADATA);
    }
    v6.is_multicast().then_some(NOBODY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_this_machine_and_of_metadata_services_are_refused_in_any_clothes() {
        for (address, message) in [
            ("127.0.0.1", AT_HOME),
            ("127.8.8.8", AT_HOME),
            ("0.0.0.0", AT_HOME),
            ("0.1.2.3", AT_HOME),
            ("::1", AT_HOME),
            ("::", AT_HOME),
            ("::ffff:127.0.0.1", AT_HOME),
            ("::7f00:1", AT_HOME),
            ("64:ff9b::7f00:1", AT_HOME),
            ("2002:7f00:1::", AT_HOME),
            ("169.254.169.254", METADATA),
            ("169.254.0.1", METADATA),
            ("::ffff:a9fe:a9fe", METADATA),
            ("64:ff9b::a9fe:a9fe", METADATA),
            ("2002:a9fe:a9fe::1", METADATA),
            ("fe80::1", METADATA),
            ("fd00:ec2::254", METADATA),
            ("100.100.100.200", METADATA),
            ("168.63.129.16", METADATA),
            ("224.0.0.1", NOBODY),
            ("255.255.255.255", NOBODY),
            ("ff02::1", NOBODY),
        ] {
            assert_eq!(
                forbidden(address.parse().unwrap(), false),
                Some(message),
                "{address}"
            );
            let at_home = (message != AT_HOME).then_some(message);
            assert_eq!(
                forbidden(address.parse().unwrap(), true),
                at_home,
                "{address}"
            );
        }
        for address in [
            "10.0.0.1",
            "192.168.1.1",
            "100.64.0.1",
            "1.1.1.1",
            "fd00::1",
            "2606:4700::1111",
        ] {
            assert_eq!(
                forbidden(address.parse().unwrap(), false),
                None,
                "{address}"
            );
        }
    }

    #[test]
    fn names_are_refused_before_they_are_resolved() {
        for (host, message) in [
            ("localhost", Some(AT_HOME)),
            ("LOCALHOST.", Some(AT_HOME)),
            ("a.localhost", Some(AT_HOME)),
            ("metadata", Some(METADATA)),
            ("metadata.google.internal", Some(METADATA)),
            ("Metadata.Azure.Internal.", Some(METADATA)),
            ("metadata.example.com", None),
            ("localhost.example.com", None),
            ("ollama.internal", None),
        ] {
            assert_eq!(forbidden_name(host, false), message, "{host}");
        }
        assert_eq!(forbidden_name("localhost", true), None);
    }

    #[tokio::test]
    async fn writings_of_an_address_that_only_a_resolver_knows_are_refused_as_well() {
        for url in [
            "http://2130706433/",
            "http://0x7f.1/",
            "http://017700000001/",
            "http://127.1/",
            "http://0/",
            "http://[::1]:11434/",
            "http://[::ffff:169.254.169.254]/",
        ] {
            let looked = looked_at(&url.parse().unwrap(), false).await;
            let refused = matches!(
                looked,
                Err(FetchError::Forbidden(_) | FetchError::Connect(_))
            );
            assert!(refused, "{url}: {looked:?}");
        }
        for url in [
            "ftp://example.com/",
            "file:///etc/passwd",
            "http://user:word@example.com/",
            "/only/a/path",
        ] {
            let Ok(url) = url.parse::<Uri>() else {
                continue;
            };
            assert!(looked_at(&url, true).await.is_err(), "{url}");
        }
    }
}
