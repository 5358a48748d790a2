//! The provider's side of the gateway, over TLS: which version of HTTP is
//! spoken, that certificates are checked, and that connections are used again.

#![expect(
    clippy::unwrap_used,
    reason = "in a test a failure is the test's failure"
)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use plexus::app::App;
use plexus::config::Live;
use plexus::metrics::Metrics;
use plexus::server::Server;
use plexus::simulate;
use plexus::store::{Options, Store};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use support::{Client, Provider, Response};

/// A provider behind TLS and a gateway in front of it.
struct Pair {
    provider: Provider,
    server: Option<Server>,
    client: Client,
    _folder: tempfile::TempDir,
}

impl Pair {
    fn start(alpn: &[&[u8]], trusted: bool) -> Self {
        let _installed = rustls::crypto::ring::default_provider().install_default();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let certificate = CertificateDer::from(made.cert.der().to_vec());
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let mut tls = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .unwrap();
        tls.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        let provider = Provider::start(simulate::Options {
            tls: Some(Arc::new(tls)),
            ..simulate::Options::default()
        });
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plexus.yaml");
        let text = format!(
            "adminKey: a\nserver: {{ host: 127.0.0.1, port: 0 }}\nproviders:\n  p: {{ api_base_url: 'https://localhost:{}/v1', api_key: k }}\nkeys:\n  app: {{ secret: sk-tls }}\n",
            provider.address.port()
        );
        std::fs::write(&path, text).unwrap();
        let live = Live::open(Some(path), Box::new(|_| None)).unwrap();
        let store = Store::open(&live.load().store.path, Options::default()).unwrap();
        let roots = if trusted {
            vec![certificate]
        } else {
            Vec::new()
        };
        let app = App::new(
            live,
            store,
            Arc::new(Metrics::new()),
            support::telemetry(),
            roots,
        );
        let server = Server::start(&app, 1).unwrap();
        let client = Client::of(server.address());
        Self {
            provider,
            server: Some(server),
            client,
            _folder: folder,
        }
    }

    fn ask(&self, stream: bool) -> Response {
        let body = format!(
            r#"{{"model":"direct/p/m","stream":{stream},"messages":[{{"role":"user","content":"hello"}}]}}"#
        );
        let headers = [
            ("authorization", "Bearer sk-tls"),
            ("content-type", "application/json"),
        ];
        self.client
            .request("POST", "/v1/chat/completions", &headers, body.as_bytes())
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            let _cut = server.drain(Duration::from_millis(200));
        }
    }
}

#[test]
fn http2_is_spoken_where_it_is_offered_and_one_connection_serves_all() {
    let pair = Pair::start(&[b"h2", b"http/1.1"], true);
    for stream in [false, true, false, true] {
        let answer = pair.ask(stream);
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(!stream || answer.text().ends_with("data: [DONE]\n\n"));
    }
    let seen = pair.provider.simulator.requests();
    assert_eq!(seen.len(), 4);
    assert!(
        seen.iter()
            .all(|request| format!("{:?}", request.version).contains('2'))
    );
    assert!(
        seen.iter()
            .all(|request| request.connection == seen[0].connection)
    );
}

#[test]
fn http1_is_spoken_where_nothing_else_is_offered_and_connections_are_used_again() {
    let pair = Pair::start(&[b"http/1.1"], true);
    for stream in [false, true, false] {
        assert_eq!(pair.ask(stream).status, 200);
    }
    let seen = pair.provider.simulator.requests();
    assert!(
        seen.iter()
            .all(|request| format!("{:?}", request.version).contains("1.1"))
    );
    assert!(
        seen.iter()
            .all(|request| request.connection == seen[0].connection)
    );
    let host = |request: &simulate::Recorded| {
        request
            .headers
            .iter()
            .find(|(name, _)| name == "host")
            .map(|(_, value)| value.clone())
    };
    assert_eq!(
        host(&seen[0]).unwrap(),
        format!("localhost:{}", pair.provider.address.port())
    );
}

#[test]
fn a_provider_whose_certificate_nobody_vouches_for_is_not_spoken_to() {
    let pair = Pair::start(&[b"h2", b"http/1.1"], false);
    let answer = pair.ask(false);
    assert_eq!(answer.status, 502, "{}", answer.text());
    assert!(pair.provider.simulator.requests().is_empty());
}
