//! The net that polls a network card itself: a DPDK port with a queue pair per core, below a TCP/IP stack of ours
//! (`net::stack`). Started by the control thread before the reactors and let go of after them; each reactor takes its
//! [`Seed`]. Only the configuration is part of a build without the feature `dpdk`.
//!
//! What stays true: a frame handed up has passed its checksums, by the hardware or here; a queue is used by one core; nothing
//! is allocated after the start but from pools that were.

#[cfg(feature = "dpdk")]
mod checksum;
mod config;
#[cfg(feature = "dpdk")]
mod eal;
#[cfg(feature = "dpdk")]
mod ffi;
#[cfg(feature = "dpdk")]
mod open;
#[cfg(feature = "dpdk")]
mod plan;
#[cfg(feature = "dpdk")]
mod port;
#[cfg(feature = "dpdk")]
mod share;

pub use config::{ADDRESSES_MAX, Address, DpdkConfig, MTU_MAX, MTU_MIN, PortName, VLAN_MAX};
#[cfg(feature = "dpdk")]
pub use open::{Dpdk, DpdkError};
#[cfg(feature = "dpdk")]
pub use port::{DpdkPort, Seed};
