//! The load generator behind `pollux bench`.
pub mod clock;
pub mod latency;
pub mod plot;
pub mod report;
pub mod target;
pub mod units;
pub mod verify;
pub mod worker;
pub mod workload;
