//! The iSCSI target: one `Target` per core, sans-I/O. It reads the streams of its connections in place, logs initiators
//! in, orders their commands, moves their data, and asks the volumes for the blocks; what a SCSI command means is the
//! business of [`lu`].
//!
//! A core's turn calls, in this order:
//!
//! 1. `net.poll` with `Target::join(now, volumes)` as its handler. On a net that serves two targets, a connection belongs
//!    to the one whose `listen` named its listener.
//! 2. `Target::message(now, from, message, net, volumes, pool)` for what other cores' targets sent. A connection that it
//!    returns has come from another core: it belongs to this target.
//! 3. The volumes' own step.
//! 4. `Target::respond(now, completions, net, volumes, pool)` with the requests that ended and whose tag has not 0 in bits
//!    63:56 (the NVMe/TCP target's have).
//! 5. The control plane carries out what `Target::to_control()` brought it (changes of reservations), gives the next
//!    volume table to all cores, calls `Target::told(volume, told)` on each of them, and answers with
//!    `Target::reserved(now, token, result, net, volumes, pool)`, order by order.
//! 6. `Target::tick(now, net, volumes, pool)`; then `Target::outbox()` to the other cores, `Target::to_control()` to the
//!    control plane, and the net's flush. `Target::wake_at()` says when the next turn is due without an outside event.
//!
//! The control plane calls, from tasks on the core: `configure(Arc<Snapshot>)`, `listen(listener, addr)`,
//! `unlisten(listener)`, `request_logout(target index, portal group)`, `quiet(volume)`, `settled()`, `stats()`,
//! `sessions()`, `connections()`.
//!
//! What stays true: a connection's error ends that connection only; a buffer taken for a command goes back to its pool
//! whatever becomes of the connection; nothing is allocated per command; every queue and list has a limit; once a task
//! management function or a reinstatement is answered, no write it covers reaches a volume any more.

mod association;
mod command;
mod config;
mod conn;
mod control;
mod dataout;
mod detached;
mod enter;
mod execute;
mod fence;
mod functions;
mod identify;
mod joined;
mod login;
pub mod lu;
mod message;
mod migrate;
mod others;
mod params;
mod random;
mod report;
mod respond;
mod security;
mod session;
mod stats;
mod stream;
mod target;
mod tasks;
#[cfg(test)]
mod tests;
mod text;
mod units;

pub use config::{
    Auth, AuthGroup, Config, InitiatorGroup, Netmask, Options, Pattern, PortalGroup, Redirect, Secret, Snapshot,
    TargetNode,
};
pub use control::Order;
pub use joined::Joined;
pub use message::{Message, Moved, Scope, SessionName, Why};
pub use stats::{ConnectionReport, SessionReport, Stats};
pub use target::Target;
