//! The gateway's outer side: versions of HTTP, TLS, limits, framing, CORS,
//! signs of life, and what a stop does.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "in helpers of tests a failure is the test's failure"
)]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use plexus::server::Server;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;
use support::dialect::{Dialect, Ending};
use support::upstream::{Upstream, Wire};
use support::{ADMIN, FILE, Gateway, PATIENCE, SECRET, Stream, await_some, client};
use tokio::io::{AsyncRead, AsyncWrite};

/// A gateway with [`FILE`] and these settings of its server.
fn gateway(server: &str) -> Gateway {
    Gateway::with(&format!("server: {{ {server} }}\n{FILE}"))
}

/// A chat request with a key, ready for the wire.
fn chat(headers: &[(&str, &str)]) -> Vec<u8> {
    let (path, body) = Dialect::Chat.ask("by-chat", false);
    let mut all = vec![("x-api-key", SECRET)];
    all.extend_from_slice(headers);
    client::bytes("POST", &path, &all, body.to_string().as_bytes())
}

/// Sends bytes and reads until the gateway closes or falls silent.
fn exchange(gateway: &Gateway, request: &[u8]) -> String {
    let mut stream = gateway.client().connect();
    stream
        .set_read_timeout(Some(Duration::from_millis(700)))
        .unwrap();
    stream.write_all(request).ok();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok();
    String::from_utf8_lossy(&answer).into_owned()
}

/// Whether the gateway closes a connection, and after how long.
fn closed_after(stream: &mut TcpStream) -> Duration {
    let began = Instant::now();
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Ok(_) => began.elapsed(),
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => began.elapsed(),
        Err(error) => panic!("{error}: it was not closed"),
    }
}

fn asked(gateway: &Gateway) -> usize {
    gateway.provider.simulator.requests().len()
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, work).await.unwrap() })
}

type Sender = http2::SendRequest<Full<Bytes>>;

/// Speaks HTTP/2 at once, as a client with prior knowledge does.
async fn speak_h2(io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Sender {
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(io))
        .await
        .unwrap();
    tokio::spawn(connection);
    sender
}

async fn dial(address: SocketAddr) -> tokio::net::TcpStream {
    tokio::net::TcpStream::connect(address).await.unwrap()
}

fn h2_request(dialect: Dialect, model: &str, stream: bool) -> http::Request<Full<Bytes>> {
    let (path, body) = dialect.ask(model, stream);
    http::Request::post(format!("http://gateway.test{path}"))
        .header("x-api-key", SECRET)
        .header("content-type", "application/json")
        .body(Full::from(body.to_string()))
        .unwrap()
}

async fn ask_h2(sender: &mut Sender, dialect: Dialect, model: &str) -> (u16, Bytes) {
    let answer = sender
        .send_request(h2_request(dialect, model, true))
        .await
        .unwrap();
    let status = answer.status().as_u16();
    (
        status,
        answer.into_body().collect().await.unwrap().to_bytes(),
    )
}

#[test]
fn http2_with_prior_knowledge_carries_many_streams_at_once() {
    let gateway = gateway("");
    block_on(async {
        let sender = speak_h2(dial(gateway.address).await).await;
        let streams = (0..40).map(|number| {
            let mut sender = sender.clone();
            tokio::spawn(async move {
                let dialect = Dialect::ALL[number % 5];
                let model = format!("direct/{}/m+chunks=20+gap=2", dialect.name());
                let (status, body) = ask_h2(&mut sender, dialect, &model).await;
                assert_eq!(status, 200);
                assert_eq!(dialect.ending(&body), Ending::Finished);
            })
        });
        for stream in streams.collect::<Vec<_>>() {
            stream.await.unwrap();
        }
    });
    assert_eq!(gateway.rows(40).len(), 40);
    let answer = gateway.speak(Dialect::Chat, "by-chat", false).finish();
    assert_eq!(answer.status, 200);
}

#[test]
fn an_http2_client_that_resets_its_stream_stops_the_provider() {
    let gateway = gateway("");
    block_on(async {
        let mut sender = speak_h2(dial(gateway.address).await).await;
        let request = h2_request(Dialect::Chat, "direct/chat/m+chunks=5000+gap=5", true);
        let mut body = sender.send_request(request).await.unwrap().into_body();
        body.frame().await.unwrap().unwrap();
        drop(body);
        let deadline = Instant::now() + Duration::from_secs(1);
        while gateway.provider.simulator.stats().cancelled == 0 {
            assert!(Instant::now() < deadline, "the provider goes on");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // The connection lives on.
        let (status, _) = ask_h2(&mut sender, Dialect::Chat, "by-chat").await;
        assert_eq!(status, 200);
    });
    let rows = gateway.rows(2);
    let cancelled = rows
        .iter()
        .filter(|row| row["responseStatus"] == "cancelled")
        .count();
    assert_eq!((rows.len(), cancelled), (2, 1));
}

#[test]
fn without_http2_its_preface_is_refused() {
    let gateway = gateway("http2: false");
    let answer = exchange(&gateway, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    assert!(!answer.contains("200"), "{answer}");
}

/// A certificate authority, and certificates that it signed.
struct Authority {
    folder: tempfile::TempDir,
    issuer: rcgen::CertifiedIssuer<'static, rcgen::KeyPair>,
}

impl Authority {
    fn new() -> Self {
        rustls::crypto::ring::default_provider()
            .install_default()
            .ok();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        let issuer = rcgen::CertifiedIssuer::self_signed(params, key).unwrap();
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { folder, issuer }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Signs a new certificate for that host.
    fn sign(&self, host: &str) -> (rcgen::Certificate, rcgen::KeyPair) {
        let params = rcgen::CertificateParams::new(vec![host.to_owned()]).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }

    /// Puts a new certificate where the gateway looks for it.
    fn install(&self, host: &str) -> CertificateDer<'static> {
        let (certificate, key) = self.sign(host);
        fs::write(self.path("cert.pem"), certificate.pem()).unwrap();
        fs::write(self.path("key.pem"), key.serialize_pem()).unwrap();
        certificate.der().clone()
    }

    fn settings(&self, more: &str) -> String {
        let show = |path: &Path| path.display().to_string();
        format!(
            "tls: {{ cert: '{}', key: '{}'{more} }}",
            show(&self.path("cert.pem")),
            show(&self.path("key.pem"))
        )
    }

    fn client(&self, protocols: &[&[u8]], identified: bool) -> Arc<rustls::ClientConfig> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        let builder = rustls::ClientConfig::builder().with_root_certificates(roots);
        let mut config = if identified {
            let (certificate, key) = self.sign("client.test");
            let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
            builder
                .with_client_auth_cert(vec![certificate.der().clone()], key)
                .unwrap()
        } else {
            builder.with_no_client_auth()
        };
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Arc::new(config)
    }
}

type Tls = rustls::StreamOwned<rustls::ClientConnection, TcpStream>;

fn dial_tls(gateway: &Gateway, config: &Arc<rustls::ClientConfig>) -> std::io::Result<Tls> {
    let name = ServerName::try_from("gateway.test").unwrap();
    let session = rustls::ClientConnection::new(Arc::clone(config), name).unwrap();
    let mut stream = Tls::new(session, gateway.client().connect());
    let request = chat(&[("connection", "close")]);
    stream.write_all(&request)?;
    Ok(stream)
}

fn ask_tls(gateway: &Gateway, config: &Arc<rustls::ClientConfig>) -> std::io::Result<String> {
    let mut stream = dial_tls(gateway, config)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn tls_carries_the_version_of_http_that_was_negotiated() {
    let authority = Authority::new();
    authority.install("gateway.test");
    let gateway = gateway(&authority.settings(""));
    for protocols in [&[][..], &[b"http/1.1".as_slice()]] {
        let answer = ask_tls(&gateway, &authority.client(protocols, false)).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    block_on(async {
        let config = authority.client(&[b"h2", b"http/1.1"], false);
        let name = ServerName::try_from("gateway.test").unwrap();
        let connector = tokio_rustls::TlsConnector::from(config);
        let stream = connector
            .connect(name, dial(gateway.address).await)
            .await
            .unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let mut sender = speak_h2(stream).await;
        let (status, body) = ask_h2(&mut sender, Dialect::Messages, "by-messages").await;
        assert_eq!(status, 200);
        assert_eq!(Dialect::Messages.ending(&body), Ending::Finished);
    });
}

#[test]
fn plain_http_at_a_tls_port_gets_no_answer() {
    let authority = Authority::new();
    authority.install("gateway.test");
    let gateway = gateway(&authority.settings(""));
    assert!(!exchange(&gateway, &chat(&[])).contains("200"));
    assert_eq!(asked(&gateway), 0);
}

#[test]
fn a_new_certificate_is_served_after_its_reload_and_a_bad_one_changes_nothing() {
    let authority = Authority::new();
    let first = authority.install("gateway.test");
    let gateway = gateway(&authority.settings(""));
    let served = || {
        // A client that was here before would resume its session.
        let config = authority.client(&[], false);
        let mut stream = dial_tls(&gateway, &config).unwrap();
        stream.read_exact(&mut [0; 12]).unwrap();
        stream.conn.peer_certificates().unwrap()[0]
            .clone()
            .into_owned()
    };
    assert_eq!(served(), first);
    let second = authority.install("gateway.test");
    assert_eq!(served(), first);
    let certificate = Server::certificate(gateway.server()).unwrap();
    certificate.reload().unwrap();
    assert_eq!(served(), second);
    fs::write(authority.path("cert.pem"), "no certificate").unwrap();
    assert!(certificate.reload().is_err());
    assert_eq!(served(), second);
    authority.install("gateway.test");
    let (_, stranger) = authority.sign("gateway.test");
    fs::write(authority.path("key.pem"), stranger.serialize_pem()).unwrap();
    assert!(
        certificate.reload().is_err(),
        "key and certificate do not match"
    );
    assert_eq!(served(), second);
}

#[test]
fn with_a_client_authority_only_its_clients_get_in() {
    let authority = Authority::new();
    authority.install("gateway.test");
    let more = format!(", clientCa: '{}'", authority.path("ca.pem").display());
    let gateway = gateway(&authority.settings(&more));
    let stranger = ask_tls(&gateway, &authority.client(&[], false));
    assert!(stranger.is_err(), "{stranger:?}");
    assert_eq!(asked(&gateway), 0);
    let known = ask_tls(&gateway, &authority.client(&[], true)).unwrap();
    assert!(known.starts_with("HTTP/1.1 200"), "{known}");
}

#[test]
fn a_tls_handshake_that_stalls_is_cut() {
    let authority = Authority::new();
    authority.install("gateway.test");
    let settings = format!("{}, limits: {{ headerSeconds: 1 }}", authority.settings(""));
    let gateway = gateway(&settings);
    let mut stream = gateway.client().connect();
    stream.write_all(b"\x16\x03\x01").unwrap();
    let took = closed_after(&mut stream);
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn the_unix_socket_serves_as_the_port_does() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gateway.sock");
    let gateway = gateway(&format!("unixSocket: '{}'", path.display()));
    let mut stream = std::os::unix::net::UnixStream::connect(&path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&chat(&[("connection", "close")])).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let rows = gateway.rows(1);
    assert_eq!(rows[0]["sourceIp"], Value::Null);
    assert_eq!(rows[0]["responseStatus"], "success");
}

#[test]
fn a_request_head_over_a_limit_is_refused() {
    let gateway = gateway("limits: { headerKb: 8, headers: 20 }");
    let long = "x".repeat(9000);
    let answer = exchange(&gateway, &chat(&[("x-long", &long)]));
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    let names: Vec<String> = (0..30).map(|number| format!("x-{number}")).collect();
    let many: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "1")).collect();
    let answer = exchange(&gateway, &chat(&many));
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    let line = format!("GET /{long} HTTP/1.1\r\nhost: x\r\n\r\n");
    let answer = exchange(&gateway, line.as_bytes());
    assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
    assert_eq!(asked(&gateway), 0);
}

#[test]
fn a_head_that_comes_too_slowly_is_cut() {
    let gateway = gateway("limits: { headerSeconds: 1 }");
    let mut stream = gateway.client().connect();
    stream
        .write_all(b"GET /health HTTP/1.1\r\nhost: x\r\nx-slow: ")
        .unwrap();
    let began = Instant::now();
    stream
        .set_read_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    // A byte now and then does not keep it open.
    let cut = loop {
        let written = stream.write_all(b"x");
        let closed = match stream.read(&mut [0; 64]) {
            Ok(0) => true,
            Ok(_) => panic!("an answer to half a head"),
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        };
        if closed || written.is_err() {
            break began.elapsed();
        }
        assert!(began.elapsed() < Duration::from_secs(6), "it is not cut");
    };
    assert!(cut >= Duration::from_millis(900), "{cut:?}");
}

#[test]
fn a_slow_head_on_a_kept_connection_is_cut() {
    let gateway = gateway("limits: { headerSeconds: 1 }");
    let mut stream = gateway.client().connect();
    stream
        .write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
        .unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"OK") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        seen.push(byte[0]);
    }
    stream.write_all(b"GET /health HTTP/1.1\r\n").unwrap();
    let took = closed_after(&mut stream);
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn a_body_that_stops_coming_is_given_up() {
    let gateway = gateway("limits: { bodyIdleSeconds: 1 }");
    for framing in ["content-length: 5000", "transfer-encoding: chunked"] {
        let mut stream = gateway.client().connect();
        let head = format!(
            "POST /v1/messages HTTP/1.1\r\nhost: x\r\nx-api-key: {SECRET}\r\n{framing}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(b"5\r\n").unwrap();
        let began = Instant::now();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 408"), "{framing}: {answer}");
        assert!(answer.contains("\"type\":\"error\""), "{framing}: {answer}");
        assert!(began.elapsed() < Duration::from_secs(5));
    }
    assert_eq!(gateway.rows(2).len(), 2);
    assert_eq!(asked(&gateway), 0);
}

#[test]
fn a_connection_that_says_nothing_is_closed() {
    let gateway = gateway("limits: { keepAliveSeconds: 1, headerSeconds: 1 }");
    let mut silent = gateway.client().connect();
    assert!(closed_after(&mut silent) < Duration::from_secs(5));
    let mut kept = gateway.client().connect();
    kept.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
        .unwrap();
    assert!(closed_after(&mut kept) < Duration::from_secs(5));
}

#[test]
fn a_long_stream_outlives_the_limits_on_heads_and_idle_connections() {
    let gateway = gateway("limits: { keepAliveSeconds: 1, headerSeconds: 1, bodyIdleSeconds: 1 }");
    let answer = gateway
        .speak(Dialect::Chat, "direct/chat/m+chunks=30+gap=100", true)
        .finish();
    assert_eq!(Dialect::Chat.ending(&answer.body), Ending::Finished);
}

#[test]
fn connections_over_the_limit_are_told_to_come_back() {
    let gateway = gateway("limits: { connections: 2 }");
    let health = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n";
    let mut open: Vec<TcpStream> = (0..2)
        .map(|_| {
            let mut stream = gateway.client().connect();
            stream.write_all(health).unwrap();
            stream.read_exact(&mut [0; 12]).unwrap();
            stream
        })
        .collect();
    let answer = exchange(&gateway, health);
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 503"),
        "{answer}"
    );
    open.pop();
    await_some("room for one more", || {
        exchange(
            &gateway,
            &client::bytes("GET", "/health", &[("connection", "close")], b""),
        )
        .starts_with("HTTP/1.1 200")
        .then_some(())
    });
}

#[test]
fn a_body_over_the_limit_is_refused_in_the_callers_protocol() {
    let gateway = gateway("limits: { bodyMb: 1 }");
    let chunk = [b"10000\r\n".as_slice(), &[b' '; 0x10000], b"\r\n"].concat();
    for dialect in Dialect::FOUR {
        let (path, _) = dialect.ask("by-any", false);
        for framing in ["content-length: 3000000", "transfer-encoding: chunked"] {
            let mut stream = gateway.client().connect();
            let head = format!(
                "POST {path} HTTP/1.1\r\nhost: x\r\nx-api-key: {SECRET}\r\n{framing}\r\n\r\n"
            );
            stream.write_all(head.as_bytes()).unwrap();
            if framing.starts_with("transfer") {
                let whole = chunk.repeat(20);
                stream.write_all(&whole).ok();
            }
            let answer = Stream::read(stream, false).finish();
            assert_eq!(
                answer.status,
                413,
                "{dialect:?} {framing}: {}",
                answer.text()
            );
            dialect.error(&answer.json());
        }
    }
    assert_eq!(gateway.rows(8).len(), 8);
    assert_eq!(asked(&gateway), 0);
}

#[test]
fn a_body_at_the_limit_passes() {
    let gateway = gateway("limits: { bodyMb: 1 }");
    let (path, body) = Dialect::Chat.ask("by-chat", false);
    let mut body = body.to_string();
    body.push_str(&" ".repeat((1 << 20) - body.len()));
    let headers = [("x-api-key", SECRET)];
    assert_eq!(gateway.request("POST", &path, &headers, &body).status, 200);
    body.push(' ');
    assert_eq!(gateway.request("POST", &path, &headers, &body).status, 413);
}

#[test]
fn unknown_paths_and_methods_are_told_as_json() {
    let gateway = gateway("");
    for path in [
        "/",
        "/v1",
        "/v1/chat/completions/",
        "//v1/chat/completions",
        "/v0/management/none",
        "/../etc/passwd",
    ] {
        let answer = gateway.request("GET", path, &[], "");
        assert_eq!(answer.status, 404, "{path}");
        assert_eq!(answer.json()["error"], "Not Found", "{path}");
    }
    let answer = gateway.request("GET", "/v1/chat/completions", &[], "");
    assert_eq!(answer.status, 405);
    assert!(answer.header("allow").unwrap().starts_with("POST"));
    assert!(answer.json()["error"].is_string());
    let answer = gateway.request("DELETE", "/v1/models", &[], "");
    assert_eq!(answer.status, 405);
    assert!(answer.header("allow").unwrap().contains("GET"));
    let answer = gateway.request("BREW", "/health", &[], "");
    assert_eq!(answer.status, 405);
}

#[test]
fn head_is_get_without_its_body() {
    let gateway = gateway("");
    for path in ["/health", "/v1/models", "/nowhere"] {
        let get = gateway.request("GET", path, &[], "");
        let head = gateway.request("HEAD", path, &[], "");
        assert_eq!(head.status, get.status, "{path}");
        assert!(head.body.is_empty());
        assert_eq!(head.header("content-type"), get.header("content-type"));
        assert_eq!(
            head.header("content-length"),
            get.header("content-length"),
            "{path}"
        );
    }
    let both = [
        client::bytes("HEAD", "/health", &[], b""),
        client::bytes("GET", "/health", &[("connection", "close")], b""),
    ];
    let answer = exchange(&gateway, &both.concat());
    assert_eq!(answer.matches("HTTP/1.1 200").count(), 2, "{answer}");
    assert_eq!(answer.matches("OK").count() - 2, 1, "{answer}");
}

#[test]
fn scripts_of_any_origin_may_use_inference_and_none_may_manage() {
    let gateway = gateway("");
    let origin = ("origin", "https://app.test");
    let preflight = [
        origin,
        ("access-control-request-method", "POST"),
        (
            "access-control-request-headers",
            "authorization, x-stainless-os",
        ),
    ];
    let answer = gateway.request("OPTIONS", "/v1/chat/completions", &preflight, "");
    assert_eq!(answer.status, 204);
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    assert!(
        answer
            .header("access-control-allow-methods")
            .unwrap()
            .contains("POST")
    );
    assert!(
        answer
            .header("access-control-allow-headers")
            .unwrap()
            .contains("x-stainless-os")
    );
    assert_eq!(answer.header("access-control-allow-credentials"), None);
    let headers = [origin, ("x-api-key", SECRET)];
    let (path, body) = Dialect::Chat.ask("by-chat", false);
    let answer = gateway.request("POST", &path, &headers, body.to_string());
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    assert!(
        answer
            .header("access-control-expose-headers")
            .unwrap()
            .contains("x-plexus-route")
    );
    for (method, extra) in [("OPTIONS", ("x", "y")), ("GET", ("x-admin-key", ADMIN))] {
        let mut headers = preflight.to_vec();
        headers.push(extra);
        let answer = gateway.request(method, "/v0/management/usage", &headers, "");
        let allowed = answer
            .headers
            .iter()
            .find(|(name, _)| name.starts_with("access-control-"));
        assert_eq!(allowed, None, "{method}");
    }
}

#[test]
fn listed_origins_alone_are_allowed() {
    let gateway = gateway("cors: { origins: ['https://app.test'] }");
    let ask = |origin: &str| gateway.request("GET", "/v1/models", &[("origin", origin)], "");
    let known = ask("https://app.test");
    assert_eq!(
        known.header("access-control-allow-origin"),
        Some("https://app.test")
    );
    for stranger in ["https://evil.test", "https://app.test.evil", "null"] {
        assert_eq!(
            ask(stranger).header("access-control-allow-origin"),
            None,
            "{stranger}"
        );
    }
}

/// What is sent as framing, and the body that goes with it; `JSON` stands for
/// a sound body, `SIZE` for its length in hexadecimal, `LENGTH` for that in
/// decimal.
const SMUGGLED: &[(&str, &str)] = &[
    (
        "content-length: LENGTH\r\ntransfer-encoding: chunked",
        "SIZE\r\nJSON\r\n0\r\n\r\n",
    ),
    (
        "transfer-encoding: chunked\r\ncontent-length: LENGTH",
        "SIZE\r\nJSON\r\n0\r\n\r\n",
    ),
    ("content-length: LENGTH\r\ncontent-length: 5", "JSON"),
    ("content-length: 5\r\ncontent-length: LENGTH", "JSON"),
    ("content-length: LENGTH, 5", "JSON"),
    ("content-length: +LENGTH", "JSON"),
    ("content-length: 0xSIZE", "JSON"),
    ("content-length: -LENGTH", "JSON"),
    ("content-length: LENGTH 2", "JSON"),
    ("content-length: 99999999999999999999", "JSON"),
    ("content-length:", "JSON"),
    ("transfer-encoding: xchunked", "SIZE\r\nJSON\r\n0\r\n\r\n"),
    ("transfer-encoding: identity", "SIZE\r\nJSON\r\n0\r\n\r\n"),
    (
        "transfer-encoding: chunked, identity",
        "SIZE\r\nJSON\r\n0\r\n\r\n",
    ),
    (
        "transfer-encoding: chunked\r\ntransfer-encoding: identity",
        "SIZE\r\nJSON\r\n0\r\n\r\n",
    ),
    (
        "transfer-encoding: gzip, chunked",
        "SIZE\r\nJSON\r\n0\r\n\r\n",
    ),
    (
        "transfer-encoding: chunked, chunked",
        "SIZE\r\nJSON\r\n0\r\n\r\n",
    ),
    (
        "transfer-encoding: identity\r\ntransfer-encoding: chunked",
        "SIZE\r\nJSON\r\n0\r\n\r\n",
    ),
    ("transfer-encoding : chunked", "SIZE\r\nJSON\r\n0\r\n\r\n"),
    (
        "transfer-encoding:\r\n chunked",
        "SIZE\r\nJSON\r\n0\r\n\r\n",
    ),
    ("x: y\r\n content-length: LENGTH", "JSON"),
    ("x: a\rb\r\ncontent-length: LENGTH", "JSON"),
    ("x: a\0b\r\ncontent-length: LENGTH", "JSON"),
    ("content-length : LENGTH", "JSON"),
    ("transfer-encoding: chunked", "zz\r\nJSON\r\n0\r\n\r\n"),
    ("transfer-encoding: chunked", "SIZE\r\nJSONXX0\r\n\r\n"),
    ("transfer-encoding: chunked", "-SIZE\r\nJSON\r\n0\r\n\r\n"),
    ("transfer-encoding: chunked", "0xSIZE\r\nJSON\r\n0\r\n\r\n"),
    (
        "transfer-encoding: chunked",
        "100000000000000SIZE\r\nJSON\r\n0\r\n\r\n",
    ),
    ("transfer-encoding: chunked", "SIZE\nJSON\n0\n\n"),
    (
        "transfer-encoding: chunked",
        "SIZE;a=\n\r\nJSON\r\n0\r\n\r\n",
    ),
    ("transfer-encoding: chunked", "SIZE\r\nJSON\r\n0\n\n"),
];

/// A request with that framing, and a sound one behind it.
fn smuggled(framing: &str, body: &str) -> Vec<u8> {
    let (path, json) = Dialect::Chat.ask("by-chat", false);
    let json = json.to_string();
    let fill = |text: &str| {
        text.replace("LENGTH", &json.len().to_string())
            .replace("SIZE", &format!("{:x}", json.len()))
            .replace("JSON", &json)
    };
    let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\nx-api-key: {SECRET}\r\n");
    let first = format!("{head}{}\r\n\r\n{}", fill(framing), fill(body));
    let second = format!("{head}content-length: {}\r\n\r\n{json}", json.len());
    format!("{first}{second}").into_bytes()
}

#[test]
fn a_request_whose_end_is_in_doubt_is_refused_and_nothing_of_it_is_forwarded() {
    let gateway = gateway("limits: { bodyIdleSeconds: 1, headerSeconds: 1, keepAliveSeconds: 1 }");
    let mut wrong = Vec::new();
    for (framing, body) in SMUGGLED {
        gateway.provider.simulator.clear();
        let answer = exchange(&gateway, &smuggled(framing, body));
        let answers = answer.matches("HTTP/1.1 ").count();
        let refused = answer.is_empty() || answer.starts_with("HTTP/1.1 4");
        let forwarded = asked(&gateway);
        if answers > 1 || !refused || forwarded > 0 {
            let line = answer.lines().next().unwrap_or_default();
            wrong.push(format!(
                "{framing:?} {body:?}: {forwarded} forwarded, {answers} answers, {line}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn requests_in_one_write_are_answered_in_order() {
    let gateway = gateway("");
    let ask = |model: &str, close: bool| {
        let (path, body) = Dialect::Chat.ask(model, false);
        let last = if close { "close" } else { "keep-alive" };
        let headers = [("x-api-key", SECRET), ("connection", last)];
        client::bytes("POST", &path, &headers, body.to_string().as_bytes())
    };
    let all = [
        ask("direct/chat/one+delay=60", false),
        ask("nobody", false),
        ask("direct/chat/three", true),
    ];
    let answer = exchange(&gateway, &all.concat());
    let places = [
        "one+delay=60",
        "\"model_not_found\"",
        "direct/chat/three",
        "three",
    ]
    .map(|text| answer.find(text));
    assert!(
        places[0].is_some() && places[0] < places[1] && places[1] < places[3],
        "{answer}"
    );
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 3);
    assert_eq!(gateway.rows(3).len(), 3);
}

#[test]
fn a_client_that_waits_for_a_go_ahead_gets_it() {
    let gateway = gateway("limits: { bodyMb: 1 }");
    let (path, body) = Dialect::Chat.ask("by-chat", false);
    let body = body.to_string();
    let head = |length: usize| {
        format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nx-api-key: {SECRET}\r\nexpect: 100-continue\r\ncontent-length: {length}\r\n\r\n"
        )
    };
    let mut stream = gateway.client().connect();
    stream.write_all(head(body.len()).as_bytes()).unwrap();
    let mut interim = [0; 25];
    stream.read_exact(&mut interim).unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(body.as_bytes()).unwrap();
    assert_eq!(Stream::read(stream, false).finish().status, 200);
    // One that would be refused is told so before it sends anything.
    let mut stream = gateway.client().connect();
    stream.write_all(head(5_000_000).as_bytes()).unwrap();
    assert_eq!(Stream::read(stream, false).finish().status, 413);
}

#[test]
fn the_gateway_is_no_proxy_and_believes_no_host() {
    let gateway = gateway("");
    let (path, body) = Dialect::Chat.ask("by-chat", false);
    let body = body.to_string();
    for host in ["evil.example", "", "[::1", "a b", "localhost:99999", "x\"y"] {
        let headers = [("x-api-key", SECRET), ("host", host)];
        let answer = gateway.request("POST", &path, &headers, &body);
        assert!(
            [200, 400].contains(&answer.status),
            "{host}: {}",
            answer.status
        );
        let text = format!("{:?}", answer.headers);
        assert!(host.is_empty() || !text.contains(host), "{host}: {text}");
    }
    let absolute = format!("http://evil.example{path}");
    let answer = gateway.request("POST", &absolute, &[("x-api-key", SECRET)], &body);
    assert_eq!(answer.status, 200);
    for sent in gateway.provider.simulator.requests() {
        let host = sent
            .headers
            .iter()
            .find(|(name, _)| name == "host")
            .unwrap();
        assert_eq!(host.1, gateway.provider.address.to_string());
    }
    let elsewhere = gateway.request("GET", "http://evil.example/", &[], "");
    assert_eq!(elsewhere.status, 404);
    let answer = exchange(
        &gateway,
        b"CONNECT evil.example:443 HTTP/1.1\r\nhost: evil.example:443\r\n\r\n",
    );
    assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
    let upgrade = chat(&[
        ("connection", "upgrade, http2-settings"),
        ("upgrade", "h2c"),
        ("http2-settings", "AAMAAABk"),
    ]);
    let answer = exchange(&gateway, &upgrade);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[test]
fn a_silent_provider_does_not_make_a_silent_stream() {
    let sign = |dialect| match dialect {
        Dialect::Messages => "event: ping\ndata: {\"type\": \"ping\"}\n\n",
        Dialect::Gemini => "\n",
        _ => ": keep-alive\n\n",
    };
    let gateway = gateway("heartbeatSeconds: 1");
    thread::scope(|scope| {
        for dialect in Dialect::FOUR {
            let gateway = &gateway;
            scope.spawn(move || {
                let model = format!(
                    "direct/{}/m+chunks=9+silent=2600+silent_after=8",
                    dialect.name()
                );
                let mut stream = gateway.speak(dialect, &model, true);
                let (mut body, mut signs) = (Vec::new(), 0);
                let mut heard = Instant::now();
                while let Some(chunk) = stream.chunk().unwrap() {
                    let silence = heard.elapsed();
                    heard = Instant::now();
                    if silence > Duration::from_millis(800) {
                        let text = String::from_utf8_lossy(&chunk).into_owned();
                        assert_eq!(text, sign(dialect), "{dialect:?} after {silence:?}");
                        let blank = body.ends_with(b"\n\n") || body.ends_with(b"\r\n\r\n");
                        assert!(blank, "{dialect:?}: a sign of life inside an event");
                        signs += 1;
                    }
                    // It is part of what SDKs must be able to read.
                    body.extend_from_slice(&chunk);
                }
                assert_eq!(signs, 2, "{dialect:?}");
                assert_eq!(dialect.ending(&body), Ending::Finished, "{dialect:?}");
            });
        }
    });
}

#[test]
fn a_sign_of_life_never_stands_inside_an_event() {
    let upstream = Upstream::start(|mut wire: Wire| {
        let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len()).into_bytes();
        if wire.request().is_none() {
            return;
        }
        wire.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n");
        wire.write(&chunk("data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"},\"finish_reason\":null}]}\n\n"));
        wire.write(&chunk("data: {\"choices\":[{\"index\":0,\"delta\":{\"con"));
        thread::sleep(Duration::from_millis(1500));
        wire.write(&chunk("tent\":\"b\"},\"finish_reason\":\"stop\"}]}\n"));
        thread::sleep(Duration::from_millis(1500));
        wire.write(&chunk("\ndata: [DONE]\n\n"));
        wire.write(b"0\r\n\r\n");
    });
    let own = format!(
        "providers:\n  own: {{ api_base_url: 'http://{}/v1', api_key: x }}\n",
        upstream.address
    );
    let file = FILE.replacen("providers:\n", &own, 1);
    let gateway = Gateway::with(&format!("server: {{ heartbeatSeconds: 1 }}\n{file}"));
    let answer = gateway.speak(Dialect::Chat, "direct/own/m", true).finish();
    let text = answer.text();
    assert!(text.contains(": keep-alive\n\n"), "{text}");
    assert_eq!(
        Dialect::Chat.ending(&answer.body),
        Ending::Finished,
        "{text}"
    );
    let contents: Vec<Value> = Dialect::Chat
        .events(&answer.body)
        .unwrap()
        .iter()
        .map(|event| event.json()["choices"][0]["delta"]["content"].clone())
        .collect();
    assert_eq!(contents[..2], ["a", "b"]);
}

#[test]
fn a_stop_lets_a_stream_end_and_takes_no_new_connections() {
    let mut gateway = gateway("");
    let address = gateway.address;
    let mut stream = gateway.speak(Dialect::Chat, "direct/chat/m+chunks=60+gap=10", true);
    stream.chunk().unwrap().unwrap();
    let mut idle = gateway.client().connect();
    idle.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
        .unwrap();
    idle.read_exact(&mut [0; 12]).unwrap();
    let clean = thread::scope(|scope| {
        let stopping = scope.spawn(|| gateway.stop(PATIENCE));
        await_some("the port to be closed", || {
            TcpStream::connect(address).is_err().then_some(())
        });
        assert!(!stopping.is_finished(), "it did not wait for the stream");
        let took = closed_after(&mut idle);
        assert!(took < Duration::from_secs(2), "{took:?}");
        let (rest, broken) = stream.rest();
        assert!(broken.is_none(), "{broken:?}");
        assert_eq!(Dialect::Chat.ending(&rest), Ending::Finished);
        stopping.join().unwrap()
    });
    assert!(clean);
    let rows = gateway.rows(1);
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0]["responseStatus"], "success");
}

#[test]
fn a_stop_without_streams_is_immediate() {
    let mut gateway = gateway("");
    let health = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n";
    let _kept: Vec<TcpStream> = (0..5)
        .map(|_| {
            let mut stream = gateway.client().connect();
            stream.write_all(health).unwrap();
            stream.read_exact(&mut [0; 12]).unwrap();
            stream
        })
        .collect();
    gateway.speak(Dialect::Chat, "by-chat", true).finish();
    let began = Instant::now();
    assert!(gateway.stop(PATIENCE));
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
}

#[test]
fn a_stop_does_not_wait_for_connections_that_have_not_asked_anything() {
    let mut gateway = gateway("");
    let silent: Vec<TcpStream> = (0..5).map(|_| gateway.client().connect()).collect();
    // Served on the same listener, so those before it have been accepted.
    gateway.speak(Dialect::Chat, "by-chat", true).finish();
    let began = Instant::now();
    let clean = gateway.stop(Duration::from_secs(5));
    assert!(clean, "it waited {:?}", began.elapsed());
    drop(silent);
}

#[test]
fn what_outlasts_the_deadline_of_a_stop_is_cut_and_written_down() {
    for fault in ["silent", "delay=60000", "chunks=5000+gap=20"] {
        let mut gateway = gateway("");
        let (path, body) = Dialect::Messages.ask(&format!("direct/messages/m+{fault}"), true);
        let mut stream = gateway.client().connect();
        let request = client::bytes(
            "POST",
            &path,
            &[("x-api-key", SECRET)],
            body.to_string().as_bytes(),
        );
        stream.write_all(&request).unwrap();
        await_some("the provider to be asked", || {
            (asked(&gateway) == 1).then_some(())
        });
        let began = Instant::now();
        assert!(!gateway.stop(Duration::from_millis(150)), "{fault}");
        let took = began.elapsed();
        assert!(
            (Duration::from_millis(150)..Duration::from_secs(3)).contains(&took),
            "{fault}: {took:?}"
        );
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok();
        assert!(!Dialect::Messages.looks_finished(&answer), "{fault}");
        let rows = gateway.rows(1);
        assert_eq!(rows.len(), 1, "{fault}");
        assert_ne!(rows[0]["responseStatus"], "success", "{fault}");
        await_some("the provider to be let go", || {
            (gateway.provider.simulator.stats().in_flight == 0).then_some(())
        });
    }
}
