//! The segments of a slice: which are free, how many live blocks each holds, and which is best cleaned next.
//!
//! ```text
//! Free -> Reserved -> Current -> Sealed -> Cleaning -> Draining
//!   ^                              |           |          |
//!   +------- Waiting <-------------+-----------+----------+     (no live block left)
//! ```
//! A segment without live blocks is free at once when the newest durable checkpoint covers all that was logged in it;
//! until then recovery would need its headers, and it waits. What stays true: `live` of a segment counts exactly the
//! index entries and checkpoint pages that point into it.

use super::format::{Addr, Geometry, SegmentId};
use super::planted::{Planted, Rules};

/// Where a segment is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// Nothing in it is needed.
    Free,
    /// A stream will use it after its current one.
    Reserved,
    /// A stream fills it, or batches in it are not yet stable.
    Current,
    /// Full; in a bucket by its live count.
    Sealed,
    /// Being read by the cleaner.
    Cleaning,
    /// Cleaned as far as can be; what lives in it goes away by itself (checkpoint pages, blocks whose header is
    /// damaged).
    Draining,
    /// Dead, but not yet covered by a durable checkpoint.
    Waiting,
}

const NIL: u32 = u32::MAX;
const BUCKETS: usize = 65;
/// How many segments of a bucket are compared when a victim is chosen.
const LOOK: usize = 4;

#[derive(Clone, Copy)]
struct Segment {
    live: u32,
    state: State,
    prev: u32,
    next: u32,
    /// Sequence number at the last opening: its age.
    seq: u64,
    /// Highest batch sequence number logged in it.
    last: u64,
}

/// The segment table.
pub(super) struct Segments {
    geometry: Geometry,
    table: Vec<Segment>,
    heads: [u32; BUCKETS],
    tails: [u32; BUCKETS],
    free: Vec<u32>,
    waiting: Vec<u32>,
    draining: u32,
    live_total: u64,
    /// Batches up to here are in the newest durable checkpoint.
    covered: u64,
    rules: Rules,
}

impl Segments {
    /// All segments free; the lowest are handed out first.
    pub fn new(geometry: Geometry, rules: Rules) -> Segments {
        let n = geometry.segments;
        let empty = Segment { live: 0, state: State::Free, prev: NIL, next: NIL, seq: 0, last: 0 };
        Segments {
            geometry,
            table: vec![empty; n as usize],
            heads: [NIL; BUCKETS],
            tails: [NIL; BUCKETS],
            free: (0..n).rev().collect(),
            waiting: Vec::with_capacity(n as usize),
            draining: 0,
            live_total: 0,
            covered: 0,
            rules,
        }
    }

    /// Free segments.
    pub fn free(&self) -> u32 {
        self.free.len() as u32
    }
    /// Dead segments that a checkpoint would free.
    pub fn waiting(&self) -> u32 {
        self.waiting.len() as u32
    }
    /// Segments that are cleaned but for pages that the next checkpoint replaces.
    pub fn draining(&self) -> u32 {
        self.draining
    }
    /// Live blocks of all segments.
    pub fn live_total(&self) -> u64 {
        self.live_total
    }
    /// Live blocks of one.
    pub fn live(&self, segment: SegmentId) -> u32 {
        self.table[segment.index()].live
    }
    /// Its state.
    pub fn state(&self, segment: SegmentId) -> State {
        self.table[segment.index()].state
    }
    /// Its age: the sequence number of its last opening.
    pub fn seq(&self, segment: SegmentId) -> u64 {
        self.table[segment.index()].seq
    }

    /// Takes a free segment for a stream to use next.
    pub fn reserve(&mut self) -> Option<SegmentId> {
        let n = self.free.pop()?;
        let s = &mut self.table[n as usize];
        assert!(s.state == State::Free && s.live == 0, "a free segment holds nothing");
        s.state = State::Reserved;
        Some(SegmentId(n))
    }

    /// A stream starts to fill a reserved segment.
    pub fn open(&mut self, segment: SegmentId, seq: u64) {
        let s = &mut self.table[segment.index()];
        assert_eq!(s.state, State::Reserved, "only a reserved segment is opened");
        (s.state, s.seq) = (State::Current, seq);
    }

    /// A batch with this sequence number was sealed in it.
    pub fn logged(&mut self, segment: SegmentId, batch_seq: u64) {
        let s = &mut self.table[segment.index()];
        assert!(s.state == State::Current, "batches go to current segments");
        s.last = s.last.max(batch_seq);
    }

    /// The stream has left it and every batch in it is stable.
    pub fn seal(&mut self, segment: SegmentId) {
        let s = &mut self.table[segment.index()];
        assert_eq!(s.state, State::Current, "only a current segment is sealed");
        s.state = State::Sealed;
        if s.live == 0 { self.bury(segment.0) } else { self.link(segment.0) }
    }

    /// `n` blocks of the segment of `addr` came to life.
    #[inline]
    pub fn add(&mut self, addr: Addr, n: u32) {
        let s = &mut self.table[self.geometry.segment(addr).index()];
        s.live += n;
        self.live_total += u64::from(n);
    }

    /// One block died.
    #[inline]
    pub fn remove(&mut self, addr: Addr) {
        let n = self.geometry.segment(addr).0;
        let s = &mut self.table[n as usize];
        assert!(s.live > 0, "a live count never goes below zero");
        s.live -= 1;
        self.live_total -= 1;
        match s.state {
            State::Sealed => {
                let (live, before) = (s.live, s.live + 1);
                if live == 0 {
                    self.unlink(n, self.bucket(before));
                    self.bury(n);
                } else if self.bucket(live) != self.bucket(before) {
                    self.unlink(n, self.bucket(before));
                    self.link(n);
                }
            }
            State::Draining if s.live == 0 => {
                self.draining -= 1;
                self.bury(n);
            }
            _ => {}
        }
    }

    /// A checkpoint that covers batches up to `covered` is durable: what waited for it is free.
    pub fn checkpointed(&mut self, covered: u64) {
        self.covered = covered;
        let mut kept = 0;
        for i in 0..self.waiting.len() {
            let n = self.waiting[i];
            if self.table[n as usize].last <= covered {
                self.table[n as usize].state = State::Free;
                self.free.push(n);
            } else {
                self.waiting[kept] = n;
                kept += 1;
            }
        }
        self.waiting.truncate(kept);
    }

    /// The segment whose cleaning pays best, by LFS's cost and benefit: free space x age over the cost of reading and
    /// rewriting it. Takes it out of its bucket. Segments whose live count exceeds `live_max` are not considered.
    pub fn pick(&mut self, now_seq: u64, live_max: u32) -> Option<SegmentId> {
        let blocks = u128::from(self.geometry.segment_blocks);
        let mut best: Option<(u128, u32)> = None;
        for bucket in 0..BUCKETS {
            let mut n = self.heads[bucket];
            for _ in 0..LOOK {
                let Some(s) = self.table.get(n as usize) else { break };
                let live = u128::from(s.live);
                let age = u128::from(now_seq.saturating_sub(s.seq)) + 1;
                // (1 - u) * age / (1 + u) in integers; ties go to the emptier bucket, which comes first.
                let score = (((blocks - live) * age) << 20) / (blocks + live);
                if s.live <= live_max && best.is_none_or(|(b, _)| score > b) {
                    best = Some((score, n));
                }
                n = s.next;
            }
        }
        let (_, n) = best?;
        self.unlink(n, self.bucket(self.table[n as usize].live));
        self.table[n as usize].state = State::Cleaning;
        Some(SegmentId(n))
    }

    /// The cleaner has moved what it could.
    pub fn cleaned(&mut self, segment: SegmentId) {
        let s = &mut self.table[segment.index()];
        assert_eq!(s.state, State::Cleaning, "only what was picked was cleaned");
        if s.live == 0 {
            self.bury(segment.0);
        } else {
            s.state = State::Draining;
            self.draining += 1;
        }
    }

    /// A draining segment is cleaned again; false when it has become free meanwhile.
    pub fn clean_again(&mut self, segment: SegmentId) -> bool {
        let s = &mut self.table[segment.index()];
        let draining = s.state == State::Draining;
        if draining {
            s.state = State::Cleaning;
            self.draining -= 1;
        }
        draining
    }

    fn bury(&mut self, n: u32) {
        let s = &mut self.table[n as usize];
        if s.last <= self.covered || self.rules.breaks(Planted::EarlyReuse) {
            s.state = State::Free;
            self.free.push(n);
        } else {
            s.state = State::Waiting;
            self.waiting.push(n);
        }
    }

    #[inline]
    fn bucket(&self, live: u32) -> usize {
        ((u64::from(live) << 6) >> self.geometry.segment_blocks.trailing_zeros()) as usize
    }

    fn link(&mut self, n: u32) {
        let bucket = self.bucket(self.table[n as usize].live);
        let tail = self.tails[bucket];
        let s = &mut self.table[n as usize];
        (s.prev, s.next) = (tail, NIL);
        match self.table.get_mut(tail as usize) {
            Some(t) => t.next = n,
            None => self.heads[bucket] = n,
        }
        self.tails[bucket] = n;
    }

    fn unlink(&mut self, n: u32, bucket: usize) {
        let Segment { prev, next, .. } = self.table[n as usize];
        match self.table.get_mut(prev as usize) {
            Some(p) => p.next = next,
            None => self.heads[bucket] = next,
        }
        match self.table.get_mut(next as usize) {
            Some(s) => s.prev = prev,
            None => self.tails[bucket] = prev,
        }
    }

    /// Recovery: the newest durable checkpoint covers batches up to `covered`.
    pub fn set_covered(&mut self, covered: u64) {
        self.covered = covered;
    }
    /// Recovery: a segment's age as the checkpoint or a replayed batch tells it.
    pub fn set_age(&mut self, segment: SegmentId, seq: u64) {
        let s = &mut self.table[segment.index()];
        s.seq = s.seq.max(seq);
    }
    /// Recovery: a replayed batch lies in it.
    pub fn replayed(&mut self, segment: SegmentId, batch_seq: u64) {
        let s = &mut self.table[segment.index()];
        s.last = s.last.max(batch_seq);
    }

    /// Recovery: live counts, ages and last batches are known; `current` and `reserved` belong to the streams. Sorts all
    /// segments into their states.
    pub fn settle(&mut self, current: &[SegmentId], reserved: &[SegmentId]) {
        self.free.clear();
        for n in (0..self.geometry.segments).rev() {
            let id = SegmentId(n);
            let s = &mut self.table[n as usize];
            // Only now: while the log was replayed over pages that were newer than the checkpoint, old and new owners
            // of a block could both be counted.
            assert!(s.live < self.geometry.segment_blocks, "a segment holds no more than its blocks");
            if current.contains(&id) {
                s.state = State::Current;
            } else if reserved.contains(&id) {
                assert_eq!(s.live, 0, "a reserved segment holds nothing");
                s.state = State::Reserved;
            } else {
                s.state = State::Sealed;
                if s.live == 0 { self.bury(n) } else { self.link(n) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Segments {
        Segments::new(Geometry { segment_blocks: 16, segments: 16 }, Rules::new(&super::super::Limits::tiny()))
    }

    fn fill(s: &mut Segments, seq: u64, live: u32) -> SegmentId {
        let id = s.reserve().unwrap();
        s.open(id, seq);
        s.logged(id, seq * 10);
        let at = s.geometry.start(id);
        s.add(at, live);
        s.seal(id);
        id
    }

    #[test]
    fn emptiest_and_oldest_is_picked_and_a_dead_one_waits_for_its_checkpoint() {
        let mut s = table();
        let full = fill(&mut s, 1, 15);
        let half = fill(&mut s, 2, 8);
        let young = fill(&mut s, 90, 8);
        assert_eq!(s.pick(100, 16), Some(half));
        assert_eq!(s.pick(100, 16), Some(young));
        assert_eq!(s.pick(100, 14), None);
        s.cleaned(young);
        assert_eq!((s.state(young), s.draining()), (State::Draining, 1));
        for _ in 0..8 {
            s.remove(s.geometry.start(half));
        }
        s.cleaned(half);
        assert_eq!((s.state(half), s.waiting(), s.free()), (State::Waiting, 1, 13));
        s.checkpointed(19);
        assert_eq!(s.waiting(), 1);
        s.checkpointed(20);
        assert_eq!((s.state(half), s.waiting(), s.free()), (State::Free, 0, 14));
        for _ in 0..15 {
            s.remove(s.geometry.start(full));
        }
        assert_eq!((s.state(full), s.live_total()), (State::Free, 8));
    }

    #[test]
    fn a_draining_segment_is_freed_by_its_last_block() {
        let mut s = table();
        let id = fill(&mut s, 1, 2);
        s.checkpointed(1000);
        assert_eq!(s.pick(5, 16), Some(id));
        s.remove(s.geometry.start(id));
        s.cleaned(id);
        assert_eq!(s.state(id), State::Draining);
        s.remove(s.geometry.start(id));
        assert_eq!((s.state(id), s.free()), (State::Free, 16));
    }
}
