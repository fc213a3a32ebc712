//! The door for administrators: JSON-RPC 2.0 on a unix socket, with SPDK's framing, methods and errors, so that its public
//! client works unchanged. JSON lives only here. Methods call [`crate::cluster::Control`]; nothing below knows of them.
//!
//! `frame` cuts the stream, `json` and `params` decode, `dispatch` answers one request or batch, `server` owns sockets
//! and limits, `methods` are the procedures and `table` the list of them.

mod context;
mod dispatch;
mod error;
mod frame;
mod json;
mod logging;
mod methods;
mod params;
mod server;
mod table;

pub use context::Context;
pub use dispatch::{Answered, answer};
pub use error::RpcError;
pub use frame::{DEPTH_MAX, FrameError, Framer};
pub use logging::{Level, Logging, Settings};
pub use server::{Limits, Server, ServerError};

#[cfg(test)]
mod tests;
