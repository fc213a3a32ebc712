//! The one large receive window of a core's net. Bytes are received into it and parsed in place. What a connection
//! leaves unconsumed stays in the window as long as the same connection is read next, and moves to the connection's own
//! carry only when another one needs the window: a single busy stream never pays for a copy.

use super::CARRY_MAX;

/// Bytes of one receive at most. It holds 62 in-capsule 4 KiB writes or 3,600 read commands, and fits L2.
pub(super) const WINDOW: usize = 256 * 1024;
/// Below this much room behind an unconsumed rest, the rest moves to the front of the window first.
const ROOM_MIN: usize = 128 * 1024;

/// Where received bytes are parsed. `bytes[start..end]` is what `owner` has not consumed yet.
pub(super) struct Window {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
    owner: u32,
}

/// No connection has this slot.
pub(super) const NOBODY: u32 = u32::MAX;

impl Window {
    /// An empty window with room for the largest carry in front of a full receive.
    pub(super) fn new() -> Window {
        Window { bytes: vec![0; CARRY_MAX + WINDOW].into_boxed_slice(), start: 0, end: 0, owner: NOBODY }
    }

    /// Whose rest the window holds; [`NOBODY`] when it is free for everyone.
    pub(super) fn owner(&self) -> u32 {
        if self.start == self.end { NOBODY } else { self.owner }
    }

    /// Moves the present owner's rest into `carry`, its own.
    pub(super) fn evict(&mut self, carry: &mut Vec<u8>) {
        assert!(carry.is_empty(), "a connection's rest is in one place");
        carry.extend_from_slice(&self.bytes[self.start..self.end]);
        self.forget();
    }

    /// Drops what is held.
    pub(super) fn forget(&mut self) {
        (self.start, self.end, self.owner) = (0, 0, NOBODY);
    }

    /// Makes `slot` the owner, with its `carry` in front of what is received next. A rest of another connection must
    /// have been evicted before.
    pub(super) fn load(&mut self, slot: u32, carry: &mut Vec<u8>) {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else {
            assert_eq!(self.owner, slot, "another connection's rest is in the window");
            if self.bytes.len() - self.end < ROOM_MIN {
                self.bytes.copy_within(self.start..self.end, 0);
                (self.start, self.end) = (0, self.end - self.start);
            }
        }
        self.owner = slot;
        if !carry.is_empty() {
            assert_eq!(self.end, 0, "a connection's rest is in one place");
            assert!(carry.len() <= self.bytes.len(), "a carry never exceeds the window it was left in");
            self.bytes[..carry.len()].copy_from_slice(carry);
            self.end = carry.len();
            carry.clear();
        }
    }

    /// Room for the next bytes, at most `max` of it.
    pub(super) fn room(&mut self, max: usize) -> &mut [u8] {
        let end = self.bytes.len().min(self.end.saturating_add(max));
        &mut self.bytes[self.end..end]
    }

    /// `n` bytes were received into the room.
    pub(super) fn filled(&mut self, n: usize) {
        assert!(n <= self.bytes.len() - self.end, "received past the window");
        self.end += n;
    }

    /// What the owner has not consumed.
    pub(super) fn rest(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// The owner consumed `n` bytes of the rest.
    pub(super) fn consumed(&mut self, n: usize) {
        assert!(n <= self.end - self.start, "consumed more than there was");
        self.start += n;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rest_survives_eviction_and_comes_back_in_front() {
        let mut w = Window::new();
        let (mut a, mut b) = (Vec::new(), Vec::new());
        w.load(1, &mut a);
        w.room(6)[..6].copy_from_slice(b"abcdef");
        w.filled(6);
        w.consumed(2);
        assert_eq!((w.owner(), w.rest()), (1, &b"cdef"[..]));
        w.evict(&mut a);
        w.load(2, &mut b);
        assert_eq!((w.owner(), w.rest(), a.as_slice()), (NOBODY, &b""[..], &b"cdef"[..]));
        w.load(1, &mut a);
        w.room(2).copy_from_slice(b"gh");
        w.filled(2);
        assert_eq!((w.rest(), a.len()), (&b"cdefgh"[..], 0));
    }

    #[test]
    fn a_rest_near_the_end_moves_to_the_front() {
        let mut w = Window::new();
        let mut carry = Vec::new();
        w.load(1, &mut carry);
        let all = w.room(usize::MAX).len();
        assert_eq!(all, CARRY_MAX + WINDOW);
        w.room(all)[all - 3..].copy_from_slice(b"xyz");
        w.filled(all);
        w.consumed(all - 3);
        w.load(1, &mut carry);
        assert_eq!(w.rest(), b"xyz");
        assert!(w.room(usize::MAX).len() >= WINDOW);
    }
}
