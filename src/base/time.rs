//! Monotonic time as a number: nanoseconds since an arbitrary start. Sans-I/O code receives it; only the reactor
//! loop (and the simulator) produces it.

/// A point in monotonic time, nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Time(pub u64);

impl Time {
    /// This point plus `ns` nanoseconds, saturating.
    #[must_use]
    pub fn after_ns(self, ns: u64) -> Time {
        Time(self.0.saturating_add(ns))
    }
    /// This point plus `ms` milliseconds, saturating.
    #[must_use]
    pub fn after_ms(self, ms: u64) -> Time {
        self.after_ns(ms.saturating_mul(1_000_000))
    }
    /// Nanoseconds from `earlier` to this point; 0 when `earlier` is later.
    pub fn since(self, earlier: Time) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}
