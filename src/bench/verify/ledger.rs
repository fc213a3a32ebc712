//! What each logical block may hold, in 8 bytes per block: which generation is certain to have been there, and which
//! later ones may have arrived without anybody knowing. One ledger per worker over its own blocks.
//!
//! For every block `floor <= what a read may return <= ceiling`:
//! - `floor` is the newest generation that was acknowledged or seen by a read (0: none ever was); once seen, data must
//!   not go back, acknowledged or not;
//! - `ceiling` is the newest generation ever sent. Those between were sent and never acknowledged: the write failed, or
//!   the connection ended first.
//!
//! At most one write is under way per block, so the order of generations is the order in which they may land.

/// Most generations that may pile up unacknowledged on one block; then it is no longer written.
const AHEAD_MAX: u64 = (1 << 24) - 1;
const AHEAD_SHIFT: u32 = 32;
const SEEN: u64 = 1 << 62;
const BUSY: u64 = 1 << 63;

/// State of the blocks `first..first + len`.
#[derive(Debug)]
pub struct Ledger {
    first: u64,
    /// Bits 0..32 floor, 32..56 ceiling - floor, 62 the floor was seen but not acknowledged, 63 a write is under way.
    entries: Vec<u64>,
}

impl Ledger {
    /// Nothing known about `len` blocks from block `first` on. Takes 8 bytes per block.
    pub fn new(first: u64, len: u64) -> Ledger {
        Ledger { first, entries: vec![0; len as usize] }
    }
    /// First block.
    pub fn first(&self) -> u64 {
        self.first
    }
    /// Blocks.
    pub fn len(&self) -> u64 {
        self.entries.len() as u64
    }
    /// True for a ledger of no blocks.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
    /// True when `block` is one of ours.
    pub fn covers(&self, block: u64) -> bool {
        block >= self.first && block - self.first < self.len()
    }
    fn entry(&self, block: u64) -> u64 {
        self.entries[(block - self.first) as usize]
    }
    fn entry_mut(&mut self, block: u64) -> &mut u64 {
        &mut self.entries[(block - self.first) as usize]
    }
    /// The generation below which no read may fall; 0 when the block's content was never known.
    pub fn floor(&self, block: u64) -> u32 {
        self.entry(block) as u32
    }
    /// True when the floor was acknowledged, false when it was only seen by a read.
    pub fn is_acknowledged(&self, block: u64) -> bool {
        self.entry(block) & SEEN == 0
    }
    /// The newest generation sent; 0 when the block was never written.
    pub fn ceiling(&self, block: u64) -> u32 {
        let e = self.entry(block);
        e as u32 + (e >> AHEAD_SHIFT & AHEAD_MAX) as u32
    }
    /// True when a write to `block` may be started: none is under way and a generation is left.
    pub fn is_free(&self, block: u64) -> bool {
        let e = self.entry(block);
        e & BUSY == 0 && (e >> AHEAD_SHIFT & AHEAD_MAX) < AHEAD_MAX && self.ceiling(block) < u32::MAX
    }
    /// Starts a write to a free block; returns its generation.
    pub fn begin_write(&mut self, block: u64) -> u32 {
        assert!(self.is_free(block), "two writes under way to block {block}");
        let e = self.entry_mut(block);
        *e = (*e + (1 << AHEAD_SHIFT)) | BUSY;
        self.ceiling(block)
    }
    /// The write under way ended. Acknowledged: its generation is the floor now. Otherwise it may or may not have
    /// landed.
    pub fn end_write(&mut self, block: u64, acknowledged: bool) {
        let ceiling = self.ceiling(block);
        let e = self.entry_mut(block);
        assert!(*e & BUSY != 0, "no write under way to block {block}");
        *e = if acknowledged { u64::from(ceiling) } else { *e & !BUSY };
    }
    /// A read returned `generation`: nothing older may be returned from now on. True when that was news.
    pub fn saw(&mut self, block: u64, generation: u32) -> bool {
        let (floor, ceiling) = (self.floor(block), self.ceiling(block));
        if generation <= floor || generation > ceiling {
            return false;
        }
        let e = self.entry_mut(block);
        *e = *e & BUSY | SEEN | u64::from(ceiling - generation) << AHEAD_SHIFT | u64::from(generation);
        true
    }
    /// Replay: generation `generation` was sent.
    pub fn replay_intent(&mut self, block: u64, generation: u32) {
        let floor = self.floor(block);
        let ahead = u64::from(generation.saturating_sub(floor)).min(AHEAD_MAX);
        let e = self.entry_mut(block);
        if ahead > (*e >> AHEAD_SHIFT & AHEAD_MAX) {
            *e = *e & SEEN | ahead << AHEAD_SHIFT | u64::from(floor);
        }
    }
    /// Replay: generation `generation` was acknowledged (or only seen by a read).
    pub fn replay_known(&mut self, block: u64, generation: u32, acknowledged: bool) {
        self.replay_intent(block, generation);
        self.saw(block, generation);
        if acknowledged && self.floor(block) == generation {
            *self.entry_mut(block) &= !SEEN;
        }
    }
    /// True when a write to `block` was ever started; false for blocks outside.
    pub fn is_written(&self, block: u64) -> bool {
        self.covers(block) && self.entry(block) & !BUSY != 0
    }
    /// The first block at or after `from` that was ever written.
    pub fn next_written(&self, from: u64) -> Option<u64> {
        let at = from.max(self.first) - self.first;
        let rest = self.entries.get(at as usize..)?;
        rest.iter().position(|e| *e & !BUSY != 0).map(|n| self.first + at + n as u64)
    }
    /// Cuts the blocks from `block` on off into a ledger of their own.
    #[must_use]
    pub fn split_off(&mut self, block: u64) -> Ledger {
        Ledger { first: block, entries: self.entries.split_off((block - self.first) as usize) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_of_a_block() {
        let mut l = Ledger::new(10, 4);
        assert_eq!((l.floor(11), l.ceiling(11), l.is_free(11)), (0, 0, true));
        assert_eq!(l.begin_write(11), 1);
        assert!(!l.is_free(11) && l.is_free(12));
        l.end_write(11, true);
        assert_eq!((l.floor(11), l.ceiling(11)), (1, 1));
        // Two writes that nobody acknowledged: any of 1, 2, 3 may be there.
        for want in [2, 3] {
            assert_eq!(l.begin_write(11), want);
            l.end_write(11, false);
        }
        assert_eq!((l.floor(11), l.ceiling(11)), (1, 3));
        assert!(l.saw(11, 2) && !l.saw(11, 2) && !l.saw(11, 1) && !l.saw(11, 9));
        assert_eq!((l.floor(11), l.ceiling(11)), (2, 3));
        assert_eq!(l.begin_write(11), 4);
        assert!(l.saw(11, 4), "seen before it was acknowledged");
        l.end_write(11, true);
        assert_eq!((l.floor(11), l.ceiling(11)), (4, 4));
        assert_eq!((l.next_written(10), l.next_written(11), l.next_written(12)), (Some(11), Some(11), None));
    }

    #[test]
    fn replay_gives_the_same_state_in_any_interleaving_of_blocks() {
        let mut l = Ledger::new(0, 2);
        l.replay_intent(0, 1);
        l.replay_intent(1, 1);
        l.replay_known(1, 1, true);
        l.replay_intent(0, 2);
        assert_eq!((l.floor(0), l.ceiling(0), l.floor(1), l.ceiling(1)), (0, 2, 1, 1));
        l.replay_known(0, 2, false);
        l.replay_known(0, 1, true);
        assert!(!l.is_acknowledged(0) && l.is_acknowledged(1));
        assert_eq!((l.floor(0), l.ceiling(0)), (2, 2), "an older fact never lowers the floor");
        l.replay_known(0, 2, true);
        assert!(l.is_acknowledged(0));
        assert_eq!(l.begin_write(0), 3);
        let tail = l.split_off(1);
        assert_eq!((l.len(), tail.first(), tail.len(), tail.floor(1)), (1, 1, 1, 1));
    }

    #[test]
    #[should_panic(expected = "two writes under way")]
    fn two_writes_to_one_block_are_a_bug() {
        let mut l = Ledger::new(0, 1);
        l.begin_write(0);
        l.begin_write(0);
    }
}
