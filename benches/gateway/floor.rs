//! The floor: the least that a reverse proxy on hyper does. A hyper server,
//! hyper-util's client, two workers, the system's allocator; it parses nothing
//! and writes nothing down. It is this very binary, run again as a process of
//! its own.

use std::net::SocketAddr;

use http::uri::{Authority, Parts, Scheme};
use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

use crate::Failure;

/// What asks the binary to be the floor: this word, a port, an upstream.
pub(crate) const ARGUMENT: &str = "be-the-floor";
const WORKERS: usize = 2;

type Upstream = Client<HttpConnector, Incoming>;

/// Serves until it is killed.
pub(crate) fn run(port: &str, upstream: &str) -> Result<(), Failure> {
    let port: u16 = port.parse()?;
    let upstream: Authority = upstream.parse()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_all()
        .build()?;
    // On a worker, so that the main thread stays out of it.
    let serving = runtime.spawn(serve(SocketAddr::from(([127, 0, 0, 1], port)), upstream));
    runtime.block_on(serving)?
}

async fn serve(address: SocketAddr, upstream: Authority) -> Result<(), Failure> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client: Upstream = Client::builder(TokioExecutor::new()).build(connector);
    let listener = TcpListener::bind(address).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (client, upstream) = (client.clone(), upstream.clone());
        let service = service_fn(move |request| forward(client.clone(), &upstream, request));
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

fn forward(
    client: Upstream,
    upstream: &Authority,
    mut request: Request<Incoming>,
) -> impl Future<Output = Result<Response<Incoming>, Failure>> + use<> {
    let mut parts = Parts::default();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(upstream.clone());
    parts.path_and_query = request.uri().path_and_query().cloned();
    let uri = Uri::from_parts(parts);
    async move {
        *request.uri_mut() = uri?;
        Ok(client.request(request).await?)
    }
}
