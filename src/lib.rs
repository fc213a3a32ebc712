//! Pollux: polled, shared-nothing block storage.
//!
//! Bytes flow down and up through the layers in this order:
//! `net` moves streams, `nvmf` speaks NVMe/TCP on them, `volume` routes block requests to the core that owns
//! them, `repl` orders the writes of a shard, `store` keeps them in a crash-safe log, `device` drives the media.
//! Everything above `net` and `device` is sans-I/O: time, randomness and I/O come in as arguments.
//!
//! `src/layers.toml` says which folder may import which; `tests/tidy` enforces it.

pub mod app;
#[forbid(unsafe_code)]
pub mod auth;
pub mod base;
pub mod bench;
pub mod cli;
#[forbid(unsafe_code)]
pub mod cluster;
pub mod device;
#[forbid(unsafe_code)]
pub mod host;
#[forbid(unsafe_code)]
pub mod initiator;
#[forbid(unsafe_code)]
pub mod iscsi;
pub mod mem;
pub mod net;
#[forbid(unsafe_code)]
pub mod nvmf;
pub mod reactor;
#[forbid(unsafe_code)]
pub mod repl;
#[forbid(unsafe_code)]
pub mod rpc;
#[forbid(unsafe_code)]
pub mod sim;
#[forbid(unsafe_code)]
pub mod store;
pub mod trace;
#[forbid(unsafe_code)]
pub mod transform;
#[forbid(unsafe_code)]
pub mod volume;
#[forbid(unsafe_code)]
pub mod wire;
