//! The load generator behind `pollux bench`: offers a workload to a target, times every request, and in verify mode holds
//! every byte read to what was written.
//!
//! ```text
//!   run      opens targets, cuts the range, starts workers, reports
//!    |
//!   worker   the loop: poll, account, issue, log, kick     <- workload (which access), latency (how long)
//!    |   \
//!    |    verify   stamps what is written, judges what is read, keeps a log across runs
//!    |
//!   target   remote (initiator) | device | store
//! ```
//! One worker is one thread with its own target and its own part of the range; nothing is shared but counters.

#[cfg(test)]
mod tests;

pub mod clock;
pub mod device;
pub mod echo;
pub mod hostid;
pub mod latency;
pub mod plot;
pub mod progress;
pub mod remote;
pub mod report;
pub mod run;
pub mod store;
pub mod target;
pub mod units;
pub mod verify;
pub mod worker;
pub mod workload;
