//! The one place of the load generator that reads a clock. Workers read it once per turn and pass the value on.

use crate::base::Time;
use std::time::Instant;

/// Monotonic time since the clock was made. Copies share the start, so times of several workers compare.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    /// A clock that starts at 0 now.
    pub fn start() -> Clock {
        Clock(Instant::now())
    }
    /// Nanoseconds since the start; good for 584 years.
    pub fn now(&self) -> Time {
        Time(self.0.elapsed().as_nanos() as u64)
    }
}
