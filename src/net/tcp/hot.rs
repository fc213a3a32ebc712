//! Which connections are received from directly, without asking epoll first. At depth 1 the wait call is a twentieth of
//! the round trip; with many active connections one wait call replaces many empty receives. So: at most two connections
//! are hot, they cool down when they stay silent, and traffic elsewhere turns the whole thing off for a while.

use crate::base::Time;

/// Hot connections at most. An empty receive costs twice an empty wait, so more than two would lose.
const HOT_MAX: usize = 2;
/// Turns of direct receives between two looks at epoll, which finds everybody else (new connections included).
const TURNS: u32 = 16;
/// A hot connection that was silent this long is asked about through epoll again.
const SILENT_NS: u64 = 200_000;
/// After traffic on too many connections, direct receives stay off this long.
const COLD_NS: u64 = 1_000_000;

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
        self.turns += 1;
        if self.turns == TURNS {
            self.turns = 0;
        }
        self.turns != 0
    }

    /// The hot connections' slots.
    pub(super) fn slots(&self) -> ([u32; HOT_MAX], usize) {
        (self.entries.map(|e| e.slot), self.len)
    }

    /// Bytes arrived on `slot`.
    pub(super) fn heard(&mut self, slot: u32, now: Time) {
        if let Some(e) = self.entries[..self.len].iter_mut().find(|e| e.slot == slot) {
            e.heard = now;
        } else if self.cold_until > now {
            // Still too many talkers lately.
        } else if self.len < HOT_MAX {
            self.entries[self.len] = Entry { slot, heard: now };
            self.len += 1;
        } else {
            self.len = 0;
            self.cold_until = now.after_ns(COLD_NS);
        }
    }

    /// A direct receive on `slot` found nothing.
    pub(super) fn silent(&mut self, slot: u32, now: Time) {
        if self.entries[..self.len].iter().any(|e| e.slot == slot && now.since(e.heard) > SILENT_NS) {
            self.forget(slot);
        }
    }

    /// `slot` is gone or must not be read.
    pub(super) fn forget(&mut self, slot: u32) {
        if let Some(i) = self.entries[..self.len].iter().position(|e| e.slot == slot) {
            self.len -= 1;
            self.entries.swap(i, self.len);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_talkers_are_hot_many_are_not() {
        let mut h = Hot::new();
        assert!(!h.direct());
        h.heard(1, Time(0));
        h.heard(2, Time(0));
        h.heard(1, Time(1000));
        assert_eq!(h.slots(), ([1, 2], 2));
        let direct = (0..160).filter(|_| h.direct()).count();
        assert_eq!(direct, 150, "epoll is asked every sixteenth turn");
        h.silent(2, Time(SILENT_NS));
        assert_eq!(h.len, 2, "not silent long enough");
        h.silent(2, Time(SILENT_NS + 1));
        assert_eq!((h.slots().0[0], h.len), (1, 1));
        h.heard(3, Time(0));
        h.heard(4, Time(5));
        assert_eq!(h.len, 0);
        h.heard(1, Time(6));
        assert_eq!(h.len, 0, "off for a while");
        h.heard(1, Time(5 + COLD_NS));
        assert_eq!(h.len, 1);
    }
}
