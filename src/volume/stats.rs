//! What each volume did, counted on the core where the hosts' requests arrive.

use super::Kind;

/// Totals of one volume on one core since the core started (or since a reset).
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Read requests completed, bytes they moved, and nanoseconds from submit to completion, summed.
    pub reads: Counter,
    /// Write, Compare and `CompareWrite` requests.
    pub writes: Counter,
    /// Deallocate and Write Zeroes requests.
    pub unmaps: Counter,
    /// Requests that ended with anything but success.
    pub errors: u64,
}

/// Requests of one kind.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Counter {
    /// Requests completed.
    pub ops: u64,
    /// Bytes they covered.
    pub bytes: u64,
    /// Nanoseconds they took, summed (turn-granular).
    pub ns: u64,
    /// The longest one, nanoseconds.
    pub max_ns: u64,
    /// The shortest one, nanoseconds; 0 when there was none.
    pub min_ns: u64,
}

impl Counter {
    fn count(&mut self, bytes: u64, ns: u64) {
        self.min_ns = if self.ops == 0 { ns } else { self.min_ns.min(ns) };
        self.ops += 1;
        self.bytes += bytes;
        self.ns += ns;
        self.max_ns = self.max_ns.max(ns);
    }
}

impl Stats {
    /// Counts one request that ended.
    pub fn count(&mut self, kind: Kind, bytes: u64, ns: u64, ok: bool) {
        self.errors += u64::from(!ok);
        match kind {
            Kind::Read => self.reads.count(bytes, ns),
            Kind::Write | Kind::Compare | Kind::CompareWrite => self.writes.count(bytes, ns),
            Kind::WriteZeroes | Kind::Deallocate => self.unmaps.count(bytes, ns),
            Kind::Flush | Kind::BlockStatus => {}
        }
    }
}
