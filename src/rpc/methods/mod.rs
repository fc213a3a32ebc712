//! The methods, by family. Each file has parameter structs, one function per method, and the list of them.

pub mod bdev;
pub mod config;
pub mod create;
pub mod framework;
pub mod hosts;
pub mod inert;
pub mod iscsi;
pub mod iscsi_groups;
pub mod iscsi_options;
pub mod iscsi_stats;
pub mod log;
pub mod lvol;
pub mod notify;
pub mod nvme;
pub mod nvmf;
pub mod own;
pub mod stats;

use crate::rpc::params::params;
use serde_json::Value;

params! {
    /// No parameters.
    pub struct Nothing {}

    /// The name of something.
    pub struct Named {
        /// The bdev's name, alias or UUID.
        name: String,
    }
}

/// What methods that only do something answer.
pub const DONE: Value = Value::Bool(true);
/// Nanoseconds are the ticks of all times we report.
pub const TICK_RATE: u64 = 1_000_000_000;
/// The name of a core's poll group, as exporters look for it.
pub fn poll_group(core: crate::base::CoreId) -> String {
    format!("nvmf_tgt_poll_group_{:03}", core.0)
}
