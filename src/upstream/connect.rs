//! Opening connections: TCP with Nagle off, TLS with ALPN, one time limit over
//! both.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::{Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tower_service::Service;

use super::stream::Stream;

/// Opens connections. Cheap to clone; clones share the TLS configuration.
#[derive(Clone)]
pub struct Connector {
    http: HttpConnector,
    tls: Arc<OnceLock<Arc<ClientConfig>>>,
    extra_roots: Arc<Vec<rustls::pki_types::CertificateDer<'static>>>,
    timeout: Duration,
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector")
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

impl Connector {
    /// A connector that gives up after `timeout`. `extra_roots` are trusted
    /// besides the system's and the built-in ones.
    #[must_use]
    pub fn new(
        timeout: Duration,
        extra_roots: Vec<rustls::pki_types::CertificateDer<'static>>,
    ) -> Self {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_keepalive(Some(Duration::from_secs(30)));
        Self {
            http,
            tls: Arc::default(),
            extra_roots: Arc::new(extra_roots),
            timeout,
        }
    }

    /// Connects to the host of `uri`. The second value says whether HTTP/2
    /// was negotiated. `limit` goes before the connector's own time limit.
    pub(super) async fn connect(
        &self,
        uri: Uri,
        limit: Option<Duration>,
    ) -> io::Result<(Stream, bool)> {
        let limit = limit.unwrap_or(self.timeout);
        let opening = self.open(uri, limit);
        match tokio::time::timeout(limit, opening).await {
            Ok(result) => result,
            Err(_) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("no connection within {} s", limit.as_secs_f32()),
            )),
        }
    }

    async fn open(&self, uri: Uri, limit: Duration) -> io::Result<(Stream, bool)> {
        let mut http = self.http.clone();
        // Shared out between a host's addresses.
        http.set_connect_timeout(Some(limit));
        if uri.scheme() == Some(&http::uri::Scheme::HTTP) {
            let stream = http.call(uri).await.map_err(into_io)?;
            return Ok((Stream::new(MaybeHttpsStream::Http(stream)), false));
        }
        let mut https = HttpsConnector::from((http, self.tls_config()));
        let stream = https.call(uri).await.map_err(boxed_into_io)?;
        let h2 = stream.connected().is_negotiated_h2();
        Ok((Stream::new(stream), h2))
    }

    /// As [`Connector::connect`], to one of these addresses, whatever the name of
    /// the host leads to by now.
    pub(super) async fn connect_to(
        &self,
        uri: Uri,
        addresses: Vec<SocketAddr>,
    ) -> io::Result<(Stream, bool)> {
        let mut https = HttpsConnector::from((Fixed(addresses), self.tls_config()));
        let stream = https.call(uri).await.map_err(boxed_into_io)?;
        let h2 = match &stream {
            MaybeHttpsStream::Http(_) => false,
            MaybeHttpsStream::Https(_) => stream.connected().is_negotiated_h2(),
        };
        Ok((Stream::new(stream), h2))
    }

    /// Root certificates are read at the first TLS connection, not at start:
    /// parsing them costs milliseconds and a megabyte.
    fn tls_config(&self) -> Arc<ClientConfig> {
        Arc::clone(
            self.tls
                .get_or_init(|| Arc::new(tls_config(&self.extra_roots))),
        )
    }
}

/// Connects to addresses that are known, in order, and asks nobody.
struct Fixed(Vec<SocketAddr>);

impl Service<Uri> for Fixed {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let addresses = std::mem::take(&mut self.0);
        Box::pin(async move { TcpStream::connect(&addresses[..]).await.map(TokioIo::new) })
    }
}

fn tls_config(extra_roots: &[rustls::pki_types::CertificateDer<'static>]) -> ClientConfig {
    let mut roots = RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    };
    let native = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(native.certs);
    roots.add_parsable_certificates(extra_roots.iter().cloned());
    let mut config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config
}

/// Keeps the innermost I/O kind, which says refused, reset or timed out.
fn into_io(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    boxed_into_io(Box::new(error))
}

fn boxed_into_io(error: Box<dyn std::error::Error + Send + Sync>) -> io::Error {
    let kind = io_kind(&*error).unwrap_or(io::ErrorKind::Other);
    io::Error::new(kind, error)
}

/// The kind of the first I/O error in a chain of causes.
pub(super) fn io_kind(error: &(dyn std::error::Error + 'static)) -> Option<io::ErrorKind> {
    let mut next = Some(error);
    while let Some(current) = next {
        if let Some(io) = current.downcast_ref::<io::Error>() {
            match io.kind() {
                io::ErrorKind::Other => {}
                kind => return Some(kind),
            }
        }
        next = current.source();
    }
    None
}
