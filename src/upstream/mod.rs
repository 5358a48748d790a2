//! The provider's side of a request: connections, requests, and what an
//! answer means for the attempt.
//!
//! One [`Client`] per core; its connections never leave that core. An HTTP/1
//! connection is driven inside the task that serves the client, so handing a
//! chunk on wakes nobody. This folder must not know aliases, keys or rows.

mod body;
mod connect;
mod fetch;
mod learned;
mod pool;
mod request;
mod stream;
mod verdict;

pub use body::{RequestBody, UpstreamBody};
pub use connect::Connector;
pub use fetch::{Fetch, FetchError, Fetched};
pub use learned::{Asked, Learned};
pub use pool::{Client, SendError, Wire};
pub use request::{COUNT, Detached, Outbound, suffix};
pub use verdict::{Failure, FailureKind, RawAnswer, relay_headers};
