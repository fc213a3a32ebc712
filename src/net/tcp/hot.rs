//! Which connections are received from directly, without asking epoll first. At depth 1 the wait call and the kernel's
//! bookkeeping for it are a tenth of the round trip; with many active connections one wait call replaces many empty
//! receives. So: at most two connections are hot, a hot one is out of the epoll set altogether, it cools down when it
//! stays silent, and traffic on a third turns the whole thing off for a while.

use crate::base::Time;

/// Hot connections at most. An empty receive costs twice an empty wait, so more than two would lose.
const HOT_MAX: usize = 2;
/// Turns of direct receives between two looks at epoll, which finds everybody else (new connections included).
const TURNS: u32 = 16;
/// A hot connection that was silent this long goes back to epoll; gaps longer than this also do not count as a streak.
const SILENT_NS: u64 = 200_000;
/// Receives with bytes, in a streak, that make a connection hot: entering and leaving the epoll set costs two calls.
const STREAK: u8 = 8;
/// After traffic on too many connections, direct receives stay off this long.
const COLD_NS: u64 = 1_000_000;

/// How a connection's recent past looks; kept with the connection.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Warmth {
    heard: Time,
    streak: u8,
}

/// What hearing from a connection changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Change {
    /// Nothing.
    None,
    /// The connection is hot now: take it out of the epoll set.
    Hot,
    /// Too many talk: nobody is hot any more.
    Cold,
}

#[derive(Clone, Copy)]
struct Entry {
    slot: u32,
    heard: Time,
}

/// The hot connections.
pub(super) struct Hot {
    entries: [Entry; HOT_MAX],
    len: usize,
    turns: u32,
    cold_until: Time,
}

impl Hot {
    pub(super) fn new() -> Hot {
        Hot { entries: [Entry { slot: 0, heard: Time(0) }; HOT_MAX], len: 0, turns: 0, cold_until: Time(0) }
    }

    /// True when this turn should receive from the hot connections instead of asking epoll.
    pub(super) fn direct(&mut self) -> bool {
        if self.len == 0 {
            return false;
        }
        self.turns = (self.turns + 1) % TURNS;
        self.turns != 0
    }

    /// True when nobody is hot, and epoll knows everything.
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The hot connections' slots.
    pub(super) fn slots(&self) -> ([u32; HOT_MAX], usize) {
        (self.entries.map(|e| e.slot), self.len)
    }

    /// Bytes arrived on the connection in `slot`. After [`Change::Cold`] the caller puts the slots it was told before
    /// back into the epoll set.
    pub(super) fn heard(&mut self, slot: u32, warmth: &mut Warmth, now: Time) -> Change {
        if let Some(e) = self.entries[..self.len].iter_mut().find(|e| e.slot == slot) {
            e.heard = now;
            return Change::None;
        }
        warmth.streak = if now.since(warmth.heard) < SILENT_NS { warmth.streak.saturating_add(1) } else { 1 };
        warmth.heard = now;
        if warmth.streak < STREAK || self.cold_until > now {
            return Change::None;
        }
        if self.len < HOT_MAX {
            self.entries[self.len] = Entry { slot, heard: now };
            self.len += 1;
            return Change::Hot;
        }
        self.len = 0;
        self.cold_until = now.after_ns(COLD_NS);
        Change::Cold
    }

    /// A direct receive on `slot` found nothing; true when it has been silent for too long and is hot no more.
    pub(super) fn silent(&mut self, slot: u32, now: Time) -> bool {
        let cools = self.entries[..self.len].iter().any(|e| e.slot == slot && now.since(e.heard) > SILENT_NS);
        cools && self.forget(slot)
    }

    /// `slot` is to be hot no more; true when it was.
    pub(super) fn forget(&mut self, slot: u32) -> bool {
        let Some(i) = self.entries[..self.len].iter().position(|e| e.slot == slot) else { return false };
        self.len -= 1;
        self.entries.swap(i, self.len);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_talkers_are_hot_many_are_not() {
        let mut h = Hot::new();
        let mut warmth = [Warmth::default(); 5];
        let mut talk = |h: &mut Hot, slot: u32, from: u64| {
            let last = (0..u64::from(STREAK)).map(|i| h.heard(slot, &mut warmth[slot as usize], Time(from + i))).last();
            last.unwrap()
        };
        assert!(!h.direct() && h.is_empty());
        assert_eq!(talk(&mut h, 1, 1_000_000), Change::Hot);
        assert_eq!(talk(&mut h, 2, 1_000_000), Change::Hot);
        assert_eq!(h.slots(), ([1, 2], 2));
        let direct = (0..160).filter(|_| h.direct()).count();
        assert_eq!(direct, 150, "epoll is asked every sixteenth turn");
        let last = 1_000_000;
        assert!(!h.silent(2, Time(last + SILENT_NS)), "not silent long enough");
        assert!(h.silent(2, Time(last + SILENT_NS + 10)));
        assert_eq!((h.slots().0[0], h.len), (1, 1));
        assert!(!h.forget(2));
        assert_eq!(talk(&mut h, 3, 2_000_000), Change::Hot);
        assert_eq!(talk(&mut h, 4, 2_000_000), Change::Cold);
        assert!(h.is_empty());
        assert_eq!(talk(&mut h, 1, 2_000_100), Change::None, "off for a while");
        assert_eq!(talk(&mut h, 1, 2_000_100 + COLD_NS), Change::Hot);
    }

    #[test]
    fn rare_talk_is_never_hot() {
        let mut h = Hot::new();
        let mut warmth = Warmth::default();
        assert!((1..100).all(|i| h.heard(1, &mut warmth, Time(i * SILENT_NS)) == Change::None));
    }
}
