//! What a core remembers of what it did: a ring of its last events, counters, latency histograms. Everything here is
//! plain memory of one core, made at start-up: recording never blocks, allocates, or touches a line that another core
//! writes.
//!
//! How the control thread gets to see it:
//! - numbers that must be readable even while the core sleeps or hangs (busy and idle time, the tick stage) go on a
//!   [`Board`], which the core overwrites and anybody reads;
//! - everything larger is copied out on request: the control thread sends an empty [`Histogram`], [`EventRing`] or
//!   counter set of the same shape through the mailbox, the core copies into it (`copy_to`) and sends it back.

mod board;
mod counters;
mod events;
mod histogram;

pub use board::{Board, BoardWriter};
pub use counters::{Counters, counters};
pub use events::{Event, EventKind, EventRing};
pub use histogram::{GRANULARITY, Histogram, bucket_of, bucket_range};
