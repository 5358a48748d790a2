//! What requests used, and what that cost.
//!
//! Nothing here knows sockets, and no price is looked up for a request: each
//! target's is worked out once for a configuration.

pub mod catalogue;
pub mod estimate;
pub mod lists;
pub mod pricing;
