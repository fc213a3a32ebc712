//! Timers: a hierarchical wheel with constant-time arm, cancel and expiry, bounded and without allocation after start.
//! A timer never fires early; it may fire late by one tick of [`TICK_NS`] (plus the length of the turn).

use crate::base::Time;

/// Length of a tick: 2^18 ns, 262 microseconds.
pub const TICK_NS: u64 = 1 << TICK_SHIFT;
const TICK_SHIFT: u32 = 18;
/// Each level has 64 slots, and a slot of level n spans 64^n ticks. Six levels reach 208 days; what lies beyond waits
/// in the last slot and is sorted again when that comes round.
const LEVELS: usize = 6;
const SLOTS: usize = 64;
const SLOT_BITS: u32 = 6;
const NONE: u32 = u32::MAX;

/// A timer that was armed; names it for [`Wheel::cancel`]. Stays unique when the wheel reuses the place.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TimerId {
    index: u32,
    generation: u32,
}

#[derive(Clone, Copy)]
struct Entry {
    token: u64,
    tick: u64,
    next: u32,
    prev: u32,
    generation: u32,
    /// Level * 64 + slot while armed, `FREE` otherwise.
    place: u16,
}

const FREE: u16 = u16::MAX;

/// A set of timers.
pub struct Wheel {
    /// The tick up to which everything has fired.
    tick: u64,
    entries: Vec<Entry>,
    free: u32,
    heads: [[u32; SLOTS]; LEVELS],
    occupied: [u64; LEVELS],
    armed: usize,
    max: usize,
}

impl Wheel {
    /// A wheel that starts at `now` and holds at most `max` timers.
    pub fn new(now: Time, max: usize) -> Wheel {
        assert!(max < NONE as usize, "timers are numbered with 32 bits");
        Wheel {
            tick: now.0 >> TICK_SHIFT,
            entries: Vec::with_capacity(max),
            free: NONE,
            heads: [[NONE; SLOTS]; LEVELS],
            occupied: [0; LEVELS],
            armed: 0,
            max,
        }
    }

    /// Arms a timer that gives `token` once `at` has been reached. `None` when the wheel is full.
    pub fn arm(&mut self, at: Time, token: u64) -> Option<TimerId> {
        let tick = (at.0.div_ceil(TICK_NS)).max(self.tick + 1);
        let index = self.take_free()?;
        let entry = &mut self.entries[index as usize];
        (entry.token, entry.tick) = (token, tick);
        let id = TimerId { index, generation: entry.generation };
        self.place(index);
        self.armed += 1;
        Some(id)
    }

    /// Cancels a timer; false when it has fired or was cancelled before.
    pub fn cancel(&mut self, id: TimerId) -> bool {
        match self.entries.get(id.index as usize) {
            Some(e) if e.generation == id.generation && e.place != FREE => {
                self.unlink(id.index);
                self.release(id.index);
                true
            }
            _ => false,
        }
    }

    /// Calls `fired` with the token of every timer whose time has come, in the order of their ticks.
    pub fn expire(&mut self, now: Time, mut fired: impl FnMut(u64)) {
        let target = now.0 >> TICK_SHIFT;
        while self.tick < target {
            let Some(next) = self.next_stop() else {
                self.tick = target;
                return;
            };
            if next > target {
                self.tick = target;
                return;
            }
            self.tick = next;
            self.cascade();
            let slot = (self.tick % SLOTS as u64) as usize;
            while self.heads[0][slot] != NONE {
                let index = self.heads[0][slot];
                let entry = self.entries[index as usize];
                assert_eq!(entry.tick, self.tick, "a slot of the lowest level holds one tick");
                self.unlink(index);
                self.release(index);
                fired(entry.token);
            }
        }
    }

    /// A time before which no timer fires: exact when the next one is within 64 ticks, otherwise the time at which the
    /// wheel wants to sort further. `None` when nothing is armed.
    pub fn next(&self) -> Option<Time> {
        self.next_stop().map(|tick| Time(tick << TICK_SHIFT))
    }

    /// Timers armed.
    pub fn len(&self) -> usize {
        self.armed
    }

    /// True when nothing is armed.
    pub fn is_empty(&self) -> bool {
        self.armed == 0
    }

    /// The next tick at which a slot has to be fired or sorted.
    fn next_stop(&self) -> Option<u64> {
        let mut best: Option<u64> = None;
        for level in 0..LEVELS {
            if self.occupied[level] == 0 {
                continue;
            }
            let shift = SLOT_BITS * level as u32;
            let here = self.tick >> shift;
            // Distance in slots of this level to the nearest occupied one after the present.
            let rotated = self.occupied[level].rotate_right(((here + 1) % SLOTS as u64) as u32);
            let stop = (here + 1 + u64::from(rotated.trailing_zeros())) << shift;
            best = Some(best.map_or(stop, |b| b.min(stop)));
        }
        best
    }

    /// Sorts the slots of upper levels that begin at the present tick into lower ones.
    fn cascade(&mut self) {
        for level in (1..LEVELS).rev() {
            let shift = SLOT_BITS * level as u32;
            if !self.tick.is_multiple_of(1 << shift) {
                continue;
            }
            let slot = ((self.tick >> shift) % SLOTS as u64) as usize;
            let mut index = std::mem::replace(&mut self.heads[level][slot], NONE);
            self.occupied[level] &= !(1 << slot);
            while index != NONE {
                let next = self.entries[index as usize].next;
                self.place(index);
                index = next;
            }
        }
    }

    /// Links an entry into the slot its tick belongs to, seen from the present tick.
    fn place(&mut self, index: u32) {
        let tick = self.entries[index as usize].tick;
        let delta = tick - self.tick;
        let level = if delta == 0 { 0 } else { (delta.ilog2() / SLOT_BITS) as usize }.min(LEVELS - 1);
        let shift = SLOT_BITS * level as u32;
        // Beyond the reach of the top level: as far away as it goes, to be sorted again there.
        let reach = self.tick + ((SLOTS as u64 - 1) << (SLOT_BITS * (LEVELS as u32 - 1)));
        let slot = ((tick.min(reach) >> shift) % SLOTS as u64) as usize;
        let head = self.heads[level][slot];
        if head != NONE {
            self.entries[head as usize].prev = index;
        }
        let entry = &mut self.entries[index as usize];
        (entry.next, entry.prev, entry.place) = (head, NONE, (level * SLOTS + slot) as u16);
        self.heads[level][slot] = index;
        self.occupied[level] |= 1 << slot;
    }

    fn unlink(&mut self, index: u32) {
        let Entry { next, prev, place, .. } = self.entries[index as usize];
        let (level, slot) = (usize::from(place) / SLOTS, usize::from(place) % SLOTS);
        if prev == NONE {
            self.heads[level][slot] = next;
        } else {
            self.entries[prev as usize].next = next;
        }
        if next != NONE {
            self.entries[next as usize].prev = prev;
        }
        if self.heads[level][slot] == NONE {
            self.occupied[level] &= !(1 << slot);
        }
    }

    fn take_free(&mut self) -> Option<u32> {
        if self.free != NONE {
            let index = self.free;
            self.free = self.entries[index as usize].next;
            return Some(index);
        }
        if self.entries.len() == self.max {
            return None;
        }
        let index = self.entries.len() as u32;
        self.entries.push(Entry { token: 0, tick: 0, next: NONE, prev: NONE, generation: 0, place: FREE });
        Some(index)
    }

    fn release(&mut self, index: u32) {
        let entry = &mut self.entries[index as usize];
        entry.generation = entry.generation.wrapping_add(1);
        (entry.place, entry.next) = (FREE, self.free);
        self.free = index;
        self.armed -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;
    use std::collections::BTreeMap;

    /// A model: the tick at which each token is due.
    type Model = BTreeMap<u64, (u64, TimerId)>;

    /// Arms, cancels and lets time pass at random, beside a sorted map.
    #[test]
    fn fires_what_a_sorted_map_would() {
        for seed in 0..60 {
            let mut rng = Rng::new(seed);
            let mut now = Time(rng.below(1 << 50));
            let mut wheel = Wheel::new(now, 500);
            let mut model = Model::new();
            for token in 0..2000 {
                match rng.below(10) {
                    0..5 => {
                        let span = 1u64 << rng.below(56);
                        let at = Time(now.0.saturating_sub(span / 64) + rng.below(span));
                        let due = at.0.div_ceil(TICK_NS).max((now.0 >> TICK_SHIFT) + 1);
                        match wheel.arm(at, token) {
                            Some(id) => assert!(model.insert(token, (due, id)).is_none()),
                            None => assert_eq!(model.len(), 500, "full only at the limit"),
                        }
                    }
                    5..7 => {
                        if let Some((_, id)) = model.remove(&rng.below(token + 1)) {
                            assert!(wheel.cancel(id));
                            assert!(!wheel.cancel(id), "cancelled once");
                        }
                    }
                    _ => {
                        let magnitude = rng.below(53);
                        let step = rng.below(1 << magnitude);
                        pass(&mut wheel, &mut model, &mut now, step);
                    }
                }
                assert_eq!(wheel.len(), model.len());
            }
            pass(&mut wheel, &mut model, &mut now, 1 << 60);
            assert!(wheel.is_empty() && model.is_empty());
        }
    }

    /// Lets `step` ns pass for both and compares what fires.
    fn pass(wheel: &mut Wheel, model: &mut Model, now: &mut Time, step: u64) {
        let announced = wheel.next();
        *now = now.after_ns(step);
        let here = now.0 >> TICK_SHIFT;
        let mut last = 0;
        wheel.expire(*now, |token| {
            let (due, _) = model.remove(&token).expect("fires only what is armed, once");
            assert!(due <= here, "fired early");
            assert!(due >= last, "fired out of order");
            assert!(announced.is_some_and(|t| t.0 <= due * TICK_NS), "next() was later than a timer that fired");
            last = due;
        });
        assert!(model.values().all(|(due, _)| *due > here), "a timer was forgotten");
    }

    #[test]
    fn next_is_exact_nearby_and_empty_is_none() {
        let mut wheel = Wheel::new(Time(1000), 4);
        assert_eq!(wheel.next(), None);
        let id = wheel.arm(Time(5 * TICK_NS), 1).unwrap();
        wheel.arm(Time(9 * TICK_NS - 3), 2).unwrap();
        assert_eq!(wheel.next(), Some(Time(5 * TICK_NS)));
        wheel.cancel(id);
        assert_eq!(wheel.next(), Some(Time(9 * TICK_NS)));
        let mut fired = Vec::new();
        wheel.expire(Time(9 * TICK_NS - 1), |t| fired.push(t));
        assert!(fired.is_empty());
        wheel.expire(Time(9 * TICK_NS), |t| fired.push(t));
        assert_eq!((fired, wheel.next(), wheel.is_empty()), (vec![2], None, true));
    }
}
