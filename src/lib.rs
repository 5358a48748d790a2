//! Plexus: one binary that stands between the programs that talk to language
//! models and the providers that serve them.
//!
//! # The map
//!
//! Modules are listed bottom first. A module may use only those listed before
//! it; a test reads the `use` lines and fails on an arrow that points up.
//!
//! # The life of a request
//!
//! `inference::serve` is one function, readable top to bottom:
//!
//! | step | what happens |
//! |---|---|
//! | route | [`routes`]: the endpoint, and who may call it |
//! | authenticate | [`auth`]: a key becomes a caller |
//! | peek | [`protocol::peek`]: model and stream flag, the rest unparsed |
//! | resolve | [`routing`]: alias to candidates, in order |
//! | admit | [`quota`]: what it is likely to take is reserved |
//! | attempt | each candidate until one answers: plan, send, verdict |
//! | relay | [`relay`]: the head now, chunks as they come |
//! | settle | [`exchange`]: one row, whatever happened |
//!
//! # Words
//!
//! An *alias* is what a client asks for; its *target groups* hold *targets* (a
//! provider and a model); a target considered for one request is a *candidate*,
//! a try at one an *attempt*. A *key* is a client's credential, *attribution*
//! what stands behind its colon. The *commit point* is the first byte relayed:
//! before it another target may be tried, after it never.

#![forbid(unsafe_code)]

// 1. Pure: bytes and values. No runtime, no clock, no lock, no disk.
pub mod money;
pub mod mask;
pub mod protocol;
pub mod router;

// 2. What is configured, what is kept.
pub mod vault;
pub mod config;
pub mod feed;
pub mod metrics;
pub mod store;
pub mod backup;
pub mod telemetry;

// 3. One concern each.
pub mod clock;
pub(crate) mod gate;
pub mod alarm;
pub mod auth;
pub mod usage;
pub mod capture;
pub mod routing;
pub mod sight;
pub mod upstream;
pub mod catalogue;
pub mod quota;
pub mod exchange;
pub mod relay;
pub mod body;

// 4. The product.
pub mod app;
pub mod inference;
pub mod management;
pub mod routes;

// 5. Sockets, and a provider that is not one, for demos, tests and benches.
pub mod server;

pub mod simulate;
pub mod cli;
