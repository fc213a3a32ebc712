//! The clock of the reactors. Where the kernel itself keeps time by the CPU's time stamp counter, so do we: one
//! instruction instead of a call. Everywhere else, and until the kernel changes its mind, `CLOCK_MONOTONIC`.
//!
//! Both forms count nanoseconds on the time line of `CLOCK_MONOTONIC`, and every core reads the same line.

use crate::base::Time;
use std::sync::OnceLock;

/// Nanoseconds spent measuring the counter's rate at the first use. Reading both clocks is good to about 50 ns, so the
/// rate is good to 5 in a million.
const CALIBRATE_NS: u64 = 20_000_000;

#[derive(Clone, Copy, Debug)]
struct Rate {
    tsc: u64,
    ns: u64,
    /// Nanoseconds per count, times 2^32.
    scale: u64,
}

/// A core's clock. Never runs backwards.
#[derive(Clone, Debug)]
pub struct Clock {
    rate: Option<Rate>,
    last: u64,
}

impl Clock {
    /// The clock of this machine. The first call in a process takes 20 ms.
    pub fn new() -> Clock {
        static RATE: OnceLock<Option<Rate>> = OnceLock::new();
        Clock { rate: *RATE.get_or_init(calibrate), last: 0 }
    }

    /// The present time.
    pub fn now(&mut self) -> Time {
        let ns = match self.rate {
            Some(rate) => {
                let counts = tsc().saturating_sub(rate.tsc);
                rate.ns + ((u128::from(counts) * u128::from(rate.scale)) >> 32) as u64
            }
            None => monotonic(),
        };
        // Counters of two cores may differ by some counts when a thread has moved.
        self.last = self.last.max(ns);
        Time(self.last)
    }
}

impl Default for Clock {
    fn default() -> Clock {
        Clock::new()
    }
}

fn monotonic() -> u64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}

#[cfg(target_arch = "x86_64")]
fn tsc() -> u64 {
    // SAFETY: every x86-64 has the instruction; Linux does not disable it for processes unless one asks for it.
    unsafe { std::arch::x86_64::_rdtsc() }
}

#[cfg(not(target_arch = "x86_64"))]
fn tsc() -> u64 {
    unreachable!("only used where calibrate found a counter")
}

/// The counter's rate, where the kernel trusts the counter.
fn calibrate() -> Option<Rate> {
    let source = std::fs::read_to_string("/sys/devices/system/clocksource/clocksource0/current_clocksource").ok()?;
    if source.trim() != "tsc" || !cfg!(target_arch = "x86_64") {
        return None;
    }
    let (tsc_start, ns_start) = pair();
    loop {
        let (tsc_end, ns_end) = pair();
        if ns_end - ns_start >= CALIBRATE_NS {
            let scale = (u128::from(ns_end - ns_start) << 32) / u128::from(tsc_end.checked_sub(tsc_start)?.max(1));
            return Some(Rate { tsc: tsc_end, ns: ns_end, scale: scale as u64 });
        }
        std::thread::yield_now();
    }
}

/// Both clocks at one moment: of several tries the one that took least.
fn pair() -> (u64, u64) {
    let once = || {
        let before = tsc();
        let ns = monotonic();
        let after = tsc();
        (after.saturating_sub(before), before + after.saturating_sub(before) / 2, ns)
    };
    let best = (0..8).map(|_| once()).min().expect("eight tries");
    (best.1, best.2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_monotonic_clock() {
        let mut clock = Clock::new();
        let mut last = clock.now();
        for _ in 0..20 {
            std::thread::sleep(std::time::Duration::from_millis(2));
            let before = monotonic();
            let now = clock.now();
            let after = monotonic();
            assert!(now > last);
            // Calibration error times the age of the process, and room for a read that was interrupted.
            assert!(now.0 + 1_000_000 > before && now.0 < after + 1_000_000, "{} {} {}", before, now.0, after);
            last = now;
        }
    }

    #[test]
    fn two_clocks_agree() {
        let (mut a, mut b) = (Clock::new(), Clock { rate: None, last: 0 });
        let (x, y) = (a.now(), b.now());
        assert!(x.since(y) < 1_000_000 && y.since(x) < 1_000_000);
    }
}
