//! Replay of the log after a checkpoint. The three streams are walked at once, batch by batch in the order of their
//! sequence numbers. Each header says what was durable when it was sealed, so all but the last few batches are known to
//! be whole; those few are verified block by block.
//!
//! Where the next batch is missing, the log ends, if it may: a torn write can only be one that nothing says was durable.
//! If any later header of this incarnation or the superblock says that the missing batch was durable, the log is
//! damaged in the middle, and recovery refuses ([`StoreError::Hole`]) rather than drop what was acknowledged.

use super::apply::{Effect, apply};
use super::config::Limits;
use super::error::StoreError;
use super::format::batch::Kind;
use super::format::superblock::incarnation_fits;
use super::format::{Addr, Geometry, Header, Place, STREAMS, SegmentId, Stream, Superblock};
use super::log::Resume;
use super::planted::Planted;
use super::slice::Slice;
use super::token::Purpose;
use super::window::{View, Window};
use crate::base::BLOCK;
use crate::base::crc::crc32c;
use crate::device::{DeviceError, Queue};
use crate::mem::Pool;
use std::collections::VecDeque;

/// Headers held back until it is known that their batches are durable; no writer has more batches under way.
const HELD_MAX: usize = 65;

/// Times a block that would end the log is read again before it is believed.
const REREADS: u8 = 5;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// Following the batches.
    Walk,
    /// Looking for later headers of a stream: its number, the place to look at next, and whether its segment showed one.
    Evidence { stream: usize, addr: Addr, next: SegmentId, any: bool, hops: u32 },
    /// Verifying held batches: payload block of the front.
    Verify(u32),
}

struct Cursor {
    place: Place,
    /// Nothing more of this stream is to come.
    ended: bool,
    /// Times the block that seems to end the stream was read again.
    rereads: u8,
}

struct Held {
    header: Header,
    block: Box<[u8; BLOCK]>,
    /// Where the stream stood before it.
    before: Place,
}

/// A replay under way.
pub(super) struct Replay {
    stage: Stage,
    cursors: [Cursor; STREAMS],
    /// Sequence number of the next batch.
    expected: u64,
    covered: u64,
    /// Everything up to here was durable, by what has been read so far.
    durable: u64,
    segment_seq: u64,
    held: VecDeque<Held>,
    spare: Vec<Box<[u8; BLOCK]>>,
    window_blocks: u32,
    verify_rereads: u8,
}

impl Replay {
    pub fn new(sb: &Superblock, limits: &Limits) -> Replay {
        let cursor = |n: usize| Cursor { place: sb.places[n], ended: false, rereads: 0 };
        Replay {
            stage: Stage::Walk,
            cursors: [cursor(0), cursor(1), cursor(2)],
            expected: sb.covered + 1,
            covered: sb.covered,
            durable: sb.durable,
            segment_seq: sb.segment_seq,
            held: VecDeque::with_capacity(HELD_MAX),
            spare: Vec::new(),
            verify_rereads: 0,
            window_blocks: (limits.batch_bytes as usize / BLOCK).min(64) as u32,
        }
    }

    /// As far as possible without waiting; the place to go on from when the log is replayed.
    pub fn step<Q: Queue>(
        &mut self,
        slice: &mut Slice,
        windows: &mut [Window],
        q: &mut Q,
        pool: &mut Pool,
    ) -> Result<Option<Resume>, StoreError> {
        loop {
            let went = match self.stage {
                Stage::Walk => self.walk(slice, windows, q, pool)?,
                Stage::Evidence { .. } => self.look(slice, windows, q, pool)?,
                Stage::Verify(at) => {
                    if self.held.is_empty() {
                        return Ok(Some(self.finish(slice)));
                    }
                    self.verify(at, slice, windows, q, pool)?
                }
            };
            if !went {
                return Ok(None);
            }
        }
    }

    /// Shows the block at `addr` through window `n`, or starts to read it.
    fn show<'w, Q: Queue>(
        &self,
        n: usize,
        addr: Addr,
        slice: &mut Slice,
        windows: &'w mut [Window],
        q: &mut Q,
        pool: &mut Pool,
    ) -> Shown<'w> {
        let w = &mut windows[n];
        if w.view() == View::Flying {
            return Shown::Later;
        }
        if !w.covers(addr) {
            let blocks = self.window_blocks.min(slice.geometry.room(addr));
            let started = w.read(addr, blocks, Purpose::Start(n), &mut slice.port, q, pool);
            if !started || w.view() == View::Flying {
                return Shown::Later;
            }
        }
        match w.view() {
            View::Here => Shown::Block(w.block(addr)),
            View::Failed(error) => Shown::Unreadable(error),
            View::Flying | View::Empty => Shown::Later,
        }
    }

    /// True when the header may belong to the log after the checkpoint.
    fn is_current(&self, header: &Header, stream: usize, slice: &Slice) -> bool {
        let f = &header.fields;
        let boundaries = &slice.superblock.as_ref().expect("adopted").boundaries;
        let alive =
            incarnation_fits(boundaries, f.batch_seq, f.incarnation) || slice.rules.breaks(Planted::AnyIncarnation);
        let next_ok = f.next.0 < slice.geometry.segments;
        let blocks_ok = header.blocks() <= slice.geometry.room(f.addr);
        f.stream.index() == stream && f.batch_seq > self.covered && alive && next_ok && blocks_ok
    }

    /// Takes the next batch from whichever stream has it; false when a window is being read.
    fn walk<Q: Queue>(
        &mut self,
        slice: &mut Slice,
        windows: &mut [Window],
        q: &mut Q,
        pool: &mut Pool,
    ) -> Result<bool, StoreError> {
        for stream in 0..STREAMS {
            if self.cursors[stream].ended {
                continue;
            }
            let addr = self.cursors[stream].place.addr;
            let (id, rules) = (slice.log_id(), slice.rules);
            let block = match self.show(stream, addr, slice, windows, q, pool) {
                Shown::Later => return Ok(false),
                Shown::Unreadable(error) => {
                    // Nothing says that what can not be read was torn: only a block that can be read ends the log.
                    self.read_again(stream, windows).then_some(()).ok_or(unreadable(slice, addr, error))?;
                    return Ok(true);
                }
                Shown::Block(block) => block,
            };
            let decoded = if rules.breaks(Planted::SkipHeaderCrc) {
                Header::decode_trusting_crc(block, &id, addr)
            } else {
                Header::decode(block, &id, addr)
            };
            match decoded {
                Ok(h) if self.is_current(&h, stream, slice) && h.fields.batch_seq >= self.expected => {
                    if h.fields.batch_seq == self.expected {
                        self.take(h, block, slice.geometry);
                        self.apply_durable(slice)?;
                        return Ok(true);
                    }
                }
                // Believed only when it was seen again: one bad read must not cost what was acknowledged.
                _ if self.read_again(stream, windows) => return Ok(true),
                _ => self.cursors[stream].ended = true,
            }
        }
        self.stage = self.evidence_from(0, slice.geometry);
        Ok(true)
    }

    /// Forgets the window through which a stream's end was seen, so that it is read again; false when that has been done
    /// often enough.
    fn read_again(&mut self, stream: usize, windows: &mut [Window]) -> bool {
        let rereads = &mut self.cursors[stream].rereads;
        if *rereads == REREADS {
            return false;
        }
        *rereads += 1;
        windows[stream].forget();
        true
    }

    /// A batch is next: holds its header back and moves its stream's cursor behind it.
    fn take(&mut self, header: Header, block: &[u8], geometry: Geometry) {
        let f = header.fields;
        let cursor = &mut self.cursors[f.stream.index()];
        let mut copy = self.spare.pop().unwrap_or_else(|| Box::new([0; BLOCK]));
        copy.copy_from_slice(block);
        let before = cursor.place;
        cursor.rereads = 0;
        cursor.place = place_after(&header, geometry);
        self.held.push_back(Held { header, block: copy, before });
        self.durable = self.durable.max(f.durable);
        self.segment_seq = self.segment_seq.max(f.segment_seq + 1);
        self.expected += 1;
    }

    /// Applies held batches that are known to be durable, and keeps the rest few.
    fn apply_durable(&mut self, slice: &mut Slice) -> Result<(), StoreError> {
        while let Some(front) = self.held.front()
            && (front.header.fields.batch_seq <= self.durable || self.held.len() >= HELD_MAX)
        {
            self.apply_front(slice)?;
        }
        Ok(())
    }

    fn apply_front(&mut self, slice: &mut Slice) -> Result<(), StoreError> {
        let held = self.held.pop_front().expect("the caller looked");
        let f = held.header.fields;
        let segment = slice.geometry.segment(f.addr);
        slice.segments.replayed(segment, f.batch_seq);
        slice.segments.set_age(segment, f.segment_seq);
        for record in held.header.records(&held.block[..]) {
            if record.kind == Kind::Zero && slice.rules.breaks(Planted::DropZeroes) {
                continue;
            }
            match apply(&record, f.addr.plus(1), &mut slice.index, &mut slice.segments, slice.rules)? {
                Effect::Done => {}
                Effect::Shrunk(..) if slice.rules.breaks(Planted::ShrinkKeepsBlocks) => {}
                Effect::Shrunk(slot, from, to) => slice.trim_now(slot, from, to),
                Effect::Doomed(slot) => {
                    let blocks = slice.index.volume(slot).dirs.len() as u64 * 512 * 512;
                    slice.trim_now(slot, 0, blocks);
                }
            }
        }
        slice.counters.replayed_batches += 1;
        slice.checkpoint.replayed_blocks += u64::from(held.header.blocks());
        self.spare.push(held.block);
        Ok(())
    }

    fn evidence_from(&mut self, stream: usize, geometry: Geometry) -> Stage {
        if stream == STREAMS {
            return Stage::Verify(0);
        }
        self.cursors[stream].rereads = 0;
        let place = self.cursors[stream].place;
        assert!(geometry.holds(place.addr), "cursors stay within the slice");
        Stage::Evidence { stream, addr: place.addr, next: place.next, any: true, hops: 0 }
    }

    /// Looks at one more block for a later header of a stream; false when a window is being read.
    fn look<Q: Queue>(
        &mut self,
        slice: &mut Slice,
        windows: &mut [Window],
        q: &mut Q,
        pool: &mut Pool,
    ) -> Result<bool, StoreError> {
        let Stage::Evidence { stream, addr, next, any, hops } = self.stage else { unreachable!("asked for it") };
        let geometry = slice.geometry;
        let id = slice.log_id();
        let found = match self.show(stream, addr, slice, windows, q, pool) {
            Shown::Later => return Ok(false),
            Shown::Unreadable(_) => {
                if self.read_again(stream, windows) {
                    return Ok(true);
                }
                None
            }
            Shown::Block(block) => Header::decode(block, &id, addr).ok(),
        };
        let found = found.filter(|h| h.fields.batch_seq > self.expected && self.is_current(h, stream, slice));
        let (mut after, mut next, mut any) = (addr.plus(1), next, any);
        if let Some(h) = found {
            self.durable = self.durable.max(h.fields.durable);
            (after, next, any) = (addr.plus(h.blocks()), h.fields.next, true);
        }
        let left = geometry.room(addr) - (after.0 - addr.0);
        self.stage = if left > 0 {
            Stage::Evidence { stream, addr: after, next, any, hops }
        } else if any && next != SegmentId::NONE && hops < geometry.segments {
            let addr = geometry.start(next);
            Stage::Evidence { stream, addr, next: SegmentId::NONE, any: false, hops: hops + 1 }
        } else {
            self.evidence_from(stream + 1, geometry)
        };
        if matches!(self.stage, Stage::Verify(_)) {
            self.judge(slice)?;
        }
        Ok(true)
    }

    /// All evidence is in: may the log end here?
    fn judge(&mut self, slice: &mut Slice) -> Result<(), StoreError> {
        if self.durable >= self.expected && !slice.rules.breaks(Planted::TruncateMiddle) {
            let addr = self.cursors[Stream::Hot.index()].place.addr;
            return Err(StoreError::Hole { batch: self.expected, durable: self.durable, addr });
        }
        self.apply_durable(slice)
    }

    /// Verifies one payload block of the oldest held batch; false when a window is being read.
    fn verify<Q: Queue>(
        &mut self,
        at: u32,
        slice: &mut Slice,
        windows: &mut [Window],
        q: &mut Q,
        pool: &mut Pool,
    ) -> Result<bool, StoreError> {
        let front = self.held.front().expect("the caller looked");
        let (header, addr) = (front.header, front.header.fields.addr.plus(1 + at));
        if at == header.payload || slice.rules.breaks(Planted::SkipTornPayload) {
            self.apply_front(slice)?;
            self.stage = Stage::Verify(0);
            return Ok(true);
        }
        let record = header.records(&front.block[..]).find(|r| at < r.payload_at + r.kind.payload(r.count));
        let record = record.expect("every payload block has a record");
        let crc = record.crc(at - record.payload_at);
        let whole = match self.show(0, addr, slice, windows, q, pool) {
            Shown::Later => return Ok(false),
            Shown::Unreadable(error) => Err(unreadable(slice, addr, error)),
            Shown::Block(block) => Ok(crc32c(block) == crc),
        };
        if whole == Ok(true) {
            self.verify_rereads = 0;
            self.stage = Stage::Verify(at + 1);
        } else if self.verify_rereads < REREADS {
            self.verify_rereads += 1;
            windows[0].forget();
        } else {
            whole?;
            self.drop_tail(slice);
        }
        Ok(true)
    }

    /// The oldest held batch is torn: it and everything after it never happened.
    fn drop_tail(&mut self, slice: &mut Slice) {
        self.expected = self.held.front().expect("a torn batch is held").header.fields.batch_seq;
        slice.counters.torn_batches += self.held.len() as u64;
        while let Some(held) = self.held.pop_back() {
            self.cursors[held.header.fields.stream.index()].place = held.before;
        }
    }

    fn finish(&mut self, slice: &mut Slice) -> Resume {
        let mut places = [0, 1, 2].map(|n: usize| self.cursors[n].place);
        for place in &mut places {
            if place.segment_seq == 0 {
                place.segment_seq = self.segment_seq;
                self.segment_seq += 1;
            }
            slice.segments.set_age(slice.geometry.segment(place.addr), place.segment_seq);
        }
        let current = places.map(|p| slice.geometry.segment(p.addr));
        let reserved = places.map(|p| p.next);
        slice.segments.settle(&current, &reserved);
        Resume { places, last_seq: self.expected - 1, segment_seq: self.segment_seq, incarnation: 0 }
    }
}

enum Shown<'w> {
    Block(&'w [u8]),
    Unreadable(DeviceError),
    Later,
}

fn unreadable(slice: &Slice, addr: Addr, error: DeviceError) -> StoreError {
    StoreError::Device { op: "read of the log", offset: slice.port.byte(addr.0), error }
}

/// Where a stream goes on behind a batch; a segment it moves to has no sequence number yet (0).
fn place_after(header: &Header, geometry: Geometry) -> Place {
    let f = header.fields;
    if geometry.room(f.addr) - header.blocks() < 2 {
        return Place { addr: geometry.start(f.next), next: SegmentId::NONE, segment_seq: 0 };
    }
    Place { addr: f.addr.plus(header.blocks()), next: f.next, segment_seq: f.segment_seq }
}
