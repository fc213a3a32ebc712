//! A slow device on purpose: a queue around a queue that holds completions back. Each kind of operation has a usual
//! latency and one that a percent of the operations get, as in SPDK's delay bdev; both can be changed while I/O runs
//! through a [`DelayHandle`]. Time comes in with `poll`: nothing here reads a clock.

mod queue;

pub use queue::DelayQueue;

use super::OpKind;
use super::spec::Nanos;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Extra latency of one kind of operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Pace {
    /// Of 99 in 100 operations, nanoseconds.
    pub usual: u64,
    /// Of the others, nanoseconds; 0 when they are as the rest.
    pub p99: u64,
}

/// Extra latency per kind of operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Latency([Pace; OpKind::ALL.len()]);

impl Latency {
    /// The latency of `kind`.
    pub fn of(&self, kind: OpKind) -> Pace {
        self.0[kind as usize]
    }

    /// The latency of `kind`, to change.
    pub fn of_mut(&mut self, kind: OpKind) -> &mut Pace {
        &mut self.0[kind as usize]
    }

    /// The number that a spec's key names: `read`, `read_p99`, ..; `None` for an unknown key.
    pub fn slot(&mut self, key: &str) -> Option<&mut u64> {
        if let Some(kind) = key.strip_suffix("_p99") {
            return Some(&mut self.of_mut(OpKind::parse(kind)?).p99);
        }
        Some(&mut self.of_mut(OpKind::parse(key)?).usual)
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut comma = "";
        for kind in OpKind::ALL {
            let pace = self.of(kind);
            for (suffix, ns) in [("", pace.usual), ("_p99", pace.p99)] {
                if ns != 0 {
                    write!(f, "{comma}{}{suffix}={}", kind.name(), Nanos(ns))?;
                    comma = ",";
                }
            }
        }
        Ok(())
    }
}

/// The control side of a delayed medium; clones share it.
#[derive(Clone, Debug, Default)]
pub struct DelayHandle(Arc<[[AtomicU64; 2]; OpKind::ALL.len()]>);

impl DelayHandle {
    /// A medium's latencies at the start.
    pub fn new(latency: &Latency) -> DelayHandle {
        let handle = DelayHandle::default();
        handle.set(latency);
        handle
    }

    /// Changes the latencies of operations that the inner device completes from now on; what is already held back
    /// stays until its time.
    pub fn set(&self, latency: &Latency) {
        for kind in OpKind::ALL {
            let pace = latency.of(kind);
            self.0[kind as usize][0].store(pace.usual, Ordering::Relaxed);
            self.0[kind as usize][1].store(pace.p99, Ordering::Relaxed);
        }
    }

    /// The latencies in force.
    pub fn get(&self) -> Latency {
        let mut latency = Latency::default();
        for kind in OpKind::ALL {
            *latency.of_mut(kind) = self.pace(kind);
        }
        latency
    }

    fn pace(&self, kind: OpKind) -> Pace {
        let cell = &self.0[kind as usize];
        Pace { usual: cell[0].load(Ordering::Relaxed), p99: cell[1].load(Ordering::Relaxed) }
    }

    fn is_zero(&self) -> bool {
        OpKind::ALL.iter().all(|k| self.pace(*k) == Pace::default())
    }
}

#[cfg(test)]
mod tests;
