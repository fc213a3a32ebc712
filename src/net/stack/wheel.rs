//! When to look at a connection again: one timer per connection slot, in a wheel of a millisecond's grain. A time beyond
//! the wheel's reach is looked at early and set again, so an idle connection costs one look in half a second.

use crate::base::Time;

/// A tick is 2^20 ns, 1.05 ms.
const TICK_BITS: u32 = 20;
/// Ticks the wheel reaches ahead.
const TICKS: usize = 512;
/// No slot; no tick.
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy)]
struct Link {
    next: u32,
    prev: u32,
    /// Tick the slot's timer is in; `u64::MAX` when it has none.
    tick: u64,
}

/// Timers of a fixed number of slots.
pub(super) struct Wheel {
    heads: [u32; TICKS],
    filled: [u64; TICKS / 64],
    links: Box<[Link]>,
    /// Every tick before this one has been looked at.
    now: u64,
}

impl Wheel {
    /// A wheel for slots below `slots`, with nothing set.
    pub(super) fn new(slots: usize) -> Wheel {
        let idle = Link { next: NONE, prev: NONE, tick: u64::MAX };
        Wheel { heads: [NONE; TICKS], filled: [0; TICKS / 64], links: vec![idle; slots].into_boxed_slice(), now: 0 }
    }

    /// Looks at `slot` at `at` or up to a tick later, or earlier when the wheel does not reach so far. An earlier time
    /// that is already set stays.
    pub(super) fn set(&mut self, slot: u32, at: Time) {
        let tick = ((at.0 >> TICK_BITS) + 1).clamp(self.now, self.now + TICKS as u64 - 1);
        let link = &self.links[slot as usize];
        if link.tick <= tick {
            return;
        }
        if link.tick != u64::MAX {
            self.cancel(slot);
        }
        let place = tick as usize % TICKS;
        let head = self.heads[place];
        if head != NONE {
            self.links[head as usize].prev = slot;
        }
        self.links[slot as usize] = Link { next: head, prev: NONE, tick };
        self.heads[place] = slot;
        self.filled[place / 64] |= 1 << (place % 64);
    }

    /// Forgets the timer of `slot`.
    pub(super) fn cancel(&mut self, slot: u32) {
        let link = self.links[slot as usize];
        if link.tick == u64::MAX {
            return;
        }
        let place = link.tick as usize % TICKS;
        if link.next != NONE {
            self.links[link.next as usize].prev = link.prev;
        }
        if link.prev == NONE {
            self.heads[place] = link.next;
            if link.next == NONE {
                self.filled[place / 64] &= !(1 << (place % 64));
            }
        } else {
            self.links[link.prev as usize].next = link.next;
        }
        self.links[slot as usize] = Link { next: NONE, prev: NONE, tick: u64::MAX };
    }

    /// A slot whose time has come; its timer is no longer set. `None` when there is no further one.
    pub(super) fn due(&mut self, now: Time) -> Option<u32> {
        let until = now.0 >> TICK_BITS;
        loop {
            if self.now > until {
                return None;
            }
            let slot = self.heads[self.now as usize % TICKS];
            if slot != NONE {
                self.cancel(slot);
                return Some(slot);
            }
            match self.first() {
                Some(tick) => self.now = tick.min(until + 1),
                None => self.now = until + 1,
            }
        }
    }

    /// The first tick with a timer.
    fn first(&self) -> Option<u64> {
        let start = self.now as usize % TICKS;
        for step in 0..=TICKS / 64 {
            let word = (start / 64 + step) % (TICKS / 64);
            let mask = match step {
                0 => u64::MAX << (start % 64),
                _ if step == TICKS / 64 => !(u64::MAX << (start % 64)),
                _ => u64::MAX,
            };
            let bits = self.filled[word] & mask;
            if bits != 0 {
                let place = word * 64 + bits.trailing_zeros() as usize;
                let ahead = (place + TICKS - start) % TICKS;
                return Some(self.now + ahead as u64);
            }
        }
        None
    }

    /// The earliest time at which [`Wheel::due`] has something.
    pub(super) fn next(&self) -> Option<Time> {
        self.first().map(|tick| Time(tick << TICK_BITS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    #[test]
    fn nothing_is_late_nothing_is_lost_and_the_earliest_time_wins() {
        let mut rng = Rng::new(5);
        let mut wheel = Wheel::new(50);
        let mut want: Vec<Option<Time>> = vec![None; 50];
        let mut now = Time(1 << 40);
        assert_eq!(wheel.due(now), None);
        let (mut fired, mut early) = (0, 0);
        assert_eq!(wheel.next(), None);
        for _ in 0..30_000 {
            let slot = rng.below(50) as u32;
            match rng.below(10) {
                0 => {
                    wheel.cancel(slot);
                    want[slot as usize] = None;
                }
                1..4 => {
                    let reach = if rng.chance(20) { 3_000_000_000 } else { 20_000_000 };
                    let at = now.after_ns(rng.below(reach));
                    wheel.set(slot, at);
                    let have = want[slot as usize].get_or_insert(at);
                    *have = at.min(*have);
                }
                _ => {}
            }
            now = now.after_ns(rng.below(2_000_000));
            let said = wheel.next();
            let mut any = false;
            while let Some(slot) = wheel.due(now) {
                any = true;
                let at = want[slot as usize].take().expect("only what is set fires");
                if at > now {
                    // Only a time beyond the wheel's reach is looked at early.
                    early += 1;
                    wheel.set(slot, at);
                    want[slot as usize] = Some(at);
                } else {
                    fired += 1;
                }
            }
            assert!(!any || said.is_some_and(|t| t <= now), "the next time was announced");
            for at in want.iter().flatten() {
                assert!(at.0 + (2 << TICK_BITS) > now.0, "late");
            }
        }
        assert!(fired > 1000 && early > 0 && early < fired);
    }
}
