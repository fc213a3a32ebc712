//! When a reactor without work goes to sleep. It spins first, long enough that a host which answers at once never finds
//! it asleep, and learns from each sleep: one that ended soon was a mistake and doubles the spin, a long one halves it.

use super::Poll;
use crate::base::Time;

/// Shortest spin. A loopback round trip at depth 1 takes 9 microseconds, one over a network and a kernel host 20 to 40.
pub const SPIN_MIN_NS: u64 = 50_000;
/// Longest spin.
pub const SPIN_MAX_NS: u64 = 1_000_000;

/// The spin before the sleep.
#[derive(Debug)]
pub(super) struct Idle {
    poll: Poll,
    spin_ns: u64,
    /// Since when there has been nothing to do.
    since: Option<Time>,
}

impl Idle {
    pub(super) fn new(poll: Poll) -> Idle {
        Idle { poll, spin_ns: SPIN_MIN_NS, since: None }
    }

    /// This turn did work.
    pub(super) fn worked(&mut self) {
        self.since = None;
    }

    /// This turn found nothing; true when it is time to sleep.
    pub(super) fn may_sleep(&mut self, now: Time) -> bool {
        if self.poll == Poll::Always {
            return false;
        }
        now.since(*self.since.get_or_insert(now)) >= self.spin_ns
    }

    /// Came back from a sleep of `ns`.
    pub(super) fn slept(&mut self, ns: u64) {
        self.since = None;
        self.spin_ns = if ns < SPIN_MAX_NS { self.spin_ns * 2 } else { self.spin_ns / 2 };
        self.spin_ns = self.spin_ns.clamp(SPIN_MIN_NS, SPIN_MAX_NS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_sleeps_lengthen_the_spin_and_long_ones_shorten_it() {
        let mut idle = Idle::new(Poll::Adaptive);
        let spin = |idle: &mut Idle| {
            idle.worked();
            (0..10_000).find(|us| idle.may_sleep(Time(us * 1000))).unwrap() * 1000
        };
        assert_eq!(spin(&mut idle), SPIN_MIN_NS);
        // Work that comes every 300 microseconds: three mistaken sleeps, then none.
        let mut sleeps = 0;
        while spin(&mut idle) < 300_000 {
            idle.slept(100_000);
            sleeps += 1;
        }
        assert_eq!(sleeps, 3);
        for _ in 0..10 {
            idle.slept(10_000);
        }
        assert_eq!(spin(&mut idle), SPIN_MAX_NS);
        for _ in 0..10 {
            idle.slept(5_000_000);
        }
        assert_eq!(spin(&mut idle), SPIN_MIN_NS);
        let mut always = Idle::new(Poll::Always);
        assert!((0..100).all(|s| !always.may_sleep(Time(s * 1_000_000_000))));
    }
}
