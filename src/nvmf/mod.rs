//! The NVMe/TCP target: one [`Target`] per core, sans-I/O. It reads the streams of its connections in place, speaks
//! fabrics, admin and I/O commands on them, and asks the volumes for the blocks.
//!
//! A core's turn calls, in this order: `net.poll` with [`Target::join`] as its handler; [`Target::message`] for what
//! other cores' targets sent; the volumes' own step; [`Target::respond`] with the requests that ended;
//! [`Target::tick`]; then moves [`Target::outbox`] to the other cores, and flushes the net.
//!
//! What stays true: a connection's error ends that connection only; a buffer taken for a command goes back to its pool
//! whatever becomes of the connection; nothing is allocated per command; every queue and list has a limit.

mod admin;
mod association;
mod config;
mod conn;
mod connect;
mod controller;
mod discovery;
mod events;
mod execute;
mod features;
mod identify;
mod io;
mod joined;
mod logs;
mod message;
mod property;
mod slots;
mod stats;
mod status;
mod stream;
mod subs;
mod target;
#[cfg(test)]
mod tests;

pub use config::{Config, Namespace, Referral, Snapshot, Subsystem, Transport, Visibility};
pub use joined::Joined;
pub use message::{Attach, ControllerRef, Message, Traffic};
pub use stats::{ControllerReport, QueueReport, Stats};
pub use target::Target;
