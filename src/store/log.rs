//! The log itself: batches are built in place in pool buffers, sealed with a sequence number, written, flushed where
//! the device has a volatile cache, and become stable strictly in order. Three streams fill segments of their own; the
//! sequence of batches runs through all of them.
//!
//! What stays true: a batch is stable only when it and every earlier one is durable; each stream always knows where its
//! next batch goes ([`Place`]), and its headers name the segment after that, so that recovery finds its way.

use super::device_ops::Port;
use super::format::batch::{Described, Kind, PAYLOAD_MAX};
use super::format::{Addr, Geometry, HeaderFields, LogId, Place, Records, STREAMS, SegmentId, Stream, Writer};
use super::planted::{Planted, Rules};
use super::segments::Segments;
use super::space::LEAF_BLOCKS;
use super::token::Purpose;
use crate::base::ring::Ring;
use crate::base::{BLOCK, VolumeId};
use crate::device::{DeviceError, Queue};
use crate::mem::{Buf, Pool};

/// A batch of this many payload blocks goes out whatever else is under way.
const WORTH_BLOCKS: u32 = 32;

/// Where a batch is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    Idle,
    Open,
    Flying,
    Written,
}

/// What one record of a batch covers; kept in memory because the header itself is away while the device has it.
#[derive(Clone, Copy)]
struct Span {
    volume: VolumeId,
    first: u64,
    count: u32,
    kind: Kind,
    payload_at: u32,
}

/// A batch, from its first record until it is applied.
pub(super) struct Batch {
    step: Step,
    pub stream: Stream,
    buf: Option<Buf>,
    writer: Writer,
    /// Payload blocks that fit.
    capacity: u32,
    /// Where its header goes.
    pub addr: Addr,
    next: SegmentId,
    segment_seq: u64,
    /// Its sequence number; 0 while open.
    pub seq: u64,
    /// Its stream left the segment behind it.
    pub ends_segment: bool,
    spans: Vec<Span>,
    /// Tags of the requests that end when it is stable.
    pub tags: Vec<u64>,
}

impl Batch {
    /// Payload blocks.
    pub fn payload(&self) -> u32 {
        self.writer.payload()
    }
    /// The records, once the buffer is here.
    pub fn records(&self) -> Records<'_> {
        let buf = self.buf.as_ref().expect("the buffer came back with the completion");
        Records::trusted(&buf[..BLOCK], self.writer.used())
    }
}

/// The newest version of a block among the batches that are not yet stable.
pub(super) enum Newest {
    /// None of them has it.
    None,
    /// It reads as zeroes.
    Zero,
    /// Batch slot and payload block; the content can be copied with [`Log::payload`].
    Here(usize, u32),
    /// In a batch whose buffer is at the device.
    Away,
}

struct StreamState {
    place: Place,
    open: Option<usize>,
}

/// The log of a slice.
pub(super) struct Log {
    id: LogId,
    geometry: Geometry,
    rules: Rules,
    payload_max: u32,
    batch_bytes: usize,
    batches_max: usize,
    streams: [StreamState; STREAMS],
    slots: Vec<Batch>,
    /// Sealed batches that are not yet applied, in order of their sequence numbers.
    order: Ring<usize>,
    next_seq: u64,
    next_segment_seq: u64,
    incarnation: u32,
    /// All batches up to here are durable and may be applied.
    stable: u64,
    flushed: u64,
    flush: Option<u64>,
    volatile: bool,
    /// What the last sealed header said is durable.
    declared: u64,
    /// The last sealed batch that has records.
    content: u64,
    /// Batches written, headers and payload blocks, for the counters.
    pub written_batches: u64,
    /// Batches of the meta stream among them.
    pub meta_batches: u64,
    /// Payload blocks sealed, per stream.
    pub written_blocks: [u64; STREAMS],
}

/// Where a log goes on after recovery or format.
#[derive(Clone, Copy, Debug)]
pub(super) struct Resume {
    /// Per stream.
    pub places: [Place; STREAMS],
    /// The last batch.
    pub last_seq: u64,
    /// The next segment sequence number.
    pub segment_seq: u64,
    /// The incarnation of new batches.
    pub incarnation: u32,
}

impl Resume {
    /// Before the superblock is known.
    pub fn nowhere() -> Resume {
        let place = Place { addr: Addr::NONE, next: SegmentId::NONE, segment_seq: 0 };
        Resume { places: [place; STREAMS], last_seq: 0, segment_seq: 0, incarnation: 0 }
    }
}

impl Log {
    /// A log that goes on from `resume`.
    pub fn new(id: LogId, geometry: Geometry, limits: &super::Limits, rules: Rules, resume: &Resume) -> Log {
        let batch_bytes = limits.batch_bytes as usize;
        let payload_max = (batch_bytes / BLOCK - 1) as u32;
        let slots = usize::from(limits.batches) + STREAMS;
        let place = |s: Stream| StreamState { place: resume.places[s.index()], open: None };
        Log {
            id,
            geometry,
            rules,
            payload_max: payload_max.min(PAYLOAD_MAX),
            batch_bytes,
            batches_max: usize::from(limits.batches),
            streams: Stream::ALL.map(place),
            slots: (0..slots).map(|_| idle_batch()).collect(),
            order: Ring::new(usize::from(limits.batches)),
            next_seq: resume.last_seq + 1,
            next_segment_seq: resume.segment_seq,
            incarnation: resume.incarnation,
            stable: resume.last_seq,
            flushed: resume.last_seq,
            flush: None,
            volatile: true,
            declared: resume.last_seq,
            content: resume.last_seq,
            written_batches: 0,
            meta_batches: 0,
            written_blocks: [0; STREAMS],
        }
    }

    /// Whether the device may lose acknowledged writes until a flush.
    pub fn set_volatile(&mut self, volatile: bool) {
        self.volatile = volatile && !self.rules.breaks(Planted::AckBeforeFlush);
    }
    /// All batches up to here are stable and applied or about to be.
    pub fn stable(&self) -> u64 {
        self.stable
    }
    /// Sequence number of the newest sealed batch.
    pub fn sealed(&self) -> u64 {
        self.next_seq - 1
    }
    /// Sequence number of the next segment: the clock that ages are measured by.
    pub fn segment_clock(&self) -> u64 {
        self.next_segment_seq
    }
    /// Sealed batches that are not yet applied.
    pub fn under_way(&self) -> usize {
        self.order.len()
    }
    /// True when everything is stable, but of the last records no header says so yet.
    pub fn undeclared(&self) -> bool {
        self.order.is_empty() && self.declared < self.content
    }
    /// True when the stream has no batch with records waiting to be sealed.
    pub fn open_is_empty(&self, stream: Stream) -> bool {
        self.streams[stream.index()].open.is_none_or(|slot| self.slots[slot].writer.is_empty())
    }
    /// What batches of hosts that are not yet applied add to the live blocks at most, if each record brings a leaf about.
    pub fn unapplied_blocks(&self) -> u64 {
        let most = |b: &Batch| u64::from(b.writer.payload()) + u64::from(b.writer.records()) * LEAF_BLOCKS;
        self.slots.iter().filter(|b| b.step != Step::Idle && b.stream == Stream::Hot).map(most).sum()
    }

    /// Where each stream's first batch after the stable ones starts: from where recovery will replay.
    pub fn replay_places(&self) -> [Place; STREAMS] {
        let mut places = [0, 1, 2].map(|n: usize| self.streams[n].place);
        let mut found = [false; STREAMS];
        for slot in self.order.iter() {
            let b = &self.slots[*slot];
            let n = b.stream.index();
            if b.seq > self.stable && !found[n] {
                places[n] = Place { addr: b.addr, next: b.next, segment_seq: b.segment_seq };
                found[n] = true;
            }
        }
        places
    }

    /// Opens a batch for the stream unless one is open, keeping `reserve` free segments for others. `None` when
    /// segments, slots or buffers are short.
    pub fn open(&mut self, stream: Stream, reserve: u32, segments: &mut Segments, pool: &mut Pool) -> Option<usize> {
        let n = stream.index();
        if let Some(slot) = self.streams[n].open {
            return Some(slot);
        }
        if self.streams[n].place.next == SegmentId::NONE {
            if segments.free() <= reserve {
                return None;
            }
            self.streams[n].place.next = segments.reserve()?;
        }
        let slot = self.slots.iter().position(|b| b.step == Step::Idle)?;
        let buf = pool.get(self.batch_bytes)?;
        let place = self.streams[n].place;
        let b = &mut self.slots[slot];
        b.step = Step::Open;
        b.stream = stream;
        b.buf = Some(buf);
        b.writer = Writer::new();
        b.capacity = self.payload_max.min(self.geometry.room(place.addr) - 1);
        (b.addr, b.next, b.segment_seq) = (place.addr, place.next, place.segment_seq);
        (b.seq, b.ends_segment) = (0, false);
        b.spans.clear();
        b.tags.clear();
        self.streams[n].open = Some(slot);
        Some(slot)
    }

    /// True when opening a batch would have to take a free segment first.
    #[inline]
    pub fn needs_segment(&self, stream: Stream) -> bool {
        let s = &self.streams[stream.index()];
        s.open.is_none() && s.place.next == SegmentId::NONE
    }

    /// Segments that the stream has yet to take as its next: one or none.
    pub fn owed(&self, stream: Stream) -> u32 {
        u32::from(self.streams[stream.index()].place.next == SegmentId::NONE)
    }

    /// Blocks of a record of this kind that still fit the open batch.
    #[inline]
    pub fn room(&self, slot: usize, kind: Kind) -> u32 {
        let b = &self.slots[slot];
        let header = b.writer.room(kind);
        if kind.payload(1) == 0 { header } else { header.min(b.capacity - b.writer.payload()) }
    }

    /// Adds a record to an open batch: returns its tail in the header and the payload blocks to fill.
    /// The caller has asked [`Log::room`].
    #[inline]
    pub fn push(&mut self, slot: usize, kind: Kind, what: Described) -> (&mut [u8], &mut [u8], Addr) {
        let b = &mut self.slots[slot];
        assert!(b.step == Step::Open, "records go to open batches");
        let buf = b.buf.as_mut().expect("an open batch holds its buffer");
        let (header, payload) = buf.split_at_mut(BLOCK);
        let (tail, payload_at) = b.writer.push(header, kind, what);
        let Described { volume, first, count, .. } = what;
        b.spans.push(Span { volume, first, count, kind, payload_at });
        let at = payload_at as usize * BLOCK;
        let blocks = kind.payload(count);
        assert!(payload_at + blocks <= b.capacity, "the payload fits the batch");
        (tail, &mut payload[at..at + blocks as usize * BLOCK], b.addr.plus(1 + payload_at))
    }

    /// The requests with this tag end when the open batch is stable.
    #[inline]
    pub fn wait(&mut self, slot: usize, tag: u64) {
        self.slots[slot].tags.push(tag);
    }

    /// True when the stream's open batch should go out now: it is full, or the device has too little to do to make
    /// waiting for more worthwhile.
    pub fn ripe(&self, stream: Stream) -> bool {
        let Some(slot) = self.streams[stream.index()].open else { return false };
        let b = &self.slots[slot];
        if b.writer.is_empty() || !self.may_seal(stream) {
            return false;
        }
        let full = b.writer.payload() == b.capacity || b.writer.room(Kind::Move) == 0;
        // Each batch costs a header block; the more is under way, the more a batch must carry to be worth one.
        let worth = b.writer.records() as usize >= 2 * self.order.len() || b.writer.payload() >= WORTH_BLOCKS;
        full || (stream == Stream::Hot && worth)
    }

    /// True when one more batch of this stream may be under way.
    pub fn may_seal(&self, stream: Stream) -> bool {
        let max = if stream == Stream::Hot { self.batches_max } else { self.batches_max.div_ceil(2) };
        self.order.len() < max
    }

    /// Seals the stream's open batch and submits it; returns its sequence number.
    pub fn seal<Q: Queue>(&mut self, stream: Stream, segments: &mut Segments, port: &mut Port, q: &mut Q) -> u64 {
        let state = &mut self.streams[stream.index()];
        let slot = state.open.take().expect("only an open batch is sealed");
        let b = &mut self.slots[slot];
        let seq = self.next_seq;
        self.next_seq += 1;
        b.seq = seq;
        let fields = HeaderFields {
            stream,
            segment_seq: b.segment_seq,
            batch_seq: seq,
            durable: self.stable,
            incarnation: self.incarnation,
            next: b.next,
            addr: b.addr,
        };
        self.declared = self.stable;
        if !b.writer.is_empty() {
            self.content = seq;
        }
        let buf = b.buf.as_mut().expect("an open batch holds its buffer");
        b.writer.seal(&mut buf[..BLOCK], &self.id, &fields);
        let segment = self.geometry.segment(b.addr);
        segments.logged(segment, seq);
        let blocks = 1 + b.writer.payload();
        self.written_batches += 1;
        self.meta_batches += u64::from(stream == Stream::Meta);
        self.written_blocks[stream.index()] += u64::from(blocks - 1);
        if self.geometry.room(b.addr) - blocks < 2 {
            b.ends_segment = true;
            let addr = self.geometry.start(b.next);
            segments.open(b.next, self.next_segment_seq);
            state.place = Place { addr, next: SegmentId::NONE, segment_seq: self.next_segment_seq };
            self.next_segment_seq += 1;
        } else {
            state.place.addr = b.addr.plus(blocks);
        }
        assert!(self.order.push(slot).is_ok(), "the caller asked may_seal");
        b.step = Step::Flying;
        let (addr, len) = (b.addr.0, blocks as usize * BLOCK);
        match q.write_now(port.byte(addr), &buf[..len]) {
            Some(Ok(())) => b.step = Step::Written,
            // The queue reports an error of a memory-speed write the same way as any other.
            Some(Err(_)) | None => {
                let buf = b.buf.take().expect("held a moment ago");
                port.write(addr, len, buf, Purpose::Batch(slot), q);
            }
        }
        seq
    }

    /// A batch's write has ended.
    pub fn written(
        &mut self,
        slot: usize,
        buf: Option<Buf>,
        result: Result<(), DeviceError>,
    ) -> Result<(), DeviceError> {
        let b = &mut self.slots[slot];
        assert_eq!(b.step, Step::Flying, "only a batch under way completes");
        b.buf = buf;
        b.step = Step::Written;
        result
    }

    /// Where a batch's write goes, for an error message.
    pub fn batch_addr(&self, slot: usize) -> Addr {
        self.slots[slot].addr
    }

    /// The log's flush has ended.
    pub fn flush_done(&mut self) {
        let covers = self.flush.take().expect("one flush is under way");
        self.flushed = if self.rules.breaks(Planted::FlushCoversLater) { self.written_prefix() } else { covers };
    }

    fn written_prefix(&self) -> u64 {
        let written = |slot: &&usize| self.slots[**slot].step == Step::Written;
        self.order.iter().take_while(written).last().map_or(self.flushed.max(self.stable), |slot| self.slots[*slot].seq)
    }

    /// Moves the stable point and starts a flush where one is due.
    pub fn pump<Q: Queue>(&mut self, port: &mut Port, q: &mut Q) {
        if self.order.is_empty() {
            return;
        }
        let written = self.written_prefix();
        if self.volatile {
            self.stable = self.stable.max(self.flushed);
            if written > self.flushed && self.flush.is_none() {
                self.flush = Some(written);
                port.flush(Purpose::Flush, q);
            }
        } else {
            self.stable = self.stable.max(written);
        }
    }

    /// The next batch to apply: the oldest one under way, once it is stable.
    pub fn front_stable(&mut self) -> Option<usize> {
        if self.rules.breaks(Planted::AckOutOfOrder) {
            let at = self.order.iter().position(|slot| self.slots[*slot].step == Step::Written)?;
            for _ in 0..at {
                let slot = self.order.pop().expect("counted");
                let _ = self.order.push(slot);
            }
            let first = *self.order.front()?;
            return Some(first);
        }
        let slot = *self.order.front()?;
        let b = &self.slots[slot];
        (b.seq <= self.stable && b.step == Step::Written).then_some(slot)
    }

    /// The open batch of a stream, if there is one.
    pub fn open_batch(&self, stream: Stream) -> Option<&Batch> {
        self.streams[stream.index()].open.map(|slot| &self.slots[slot])
    }

    /// A batch by its slot.
    pub fn batch(&self, slot: usize) -> &Batch {
        &self.slots[slot]
    }

    /// The front batch was applied: gives its buffer back.
    pub fn pop_applied(&mut self, pool: &mut Pool) {
        let slot = self.order.pop().expect("a front was applied");
        let b = &mut self.slots[slot];
        b.step = Step::Idle;
        b.tags.clear();
        pool.put(b.buf.take().expect("the buffer came back with the completion"));
    }

    /// The newest version of a block among batches of the hot stream that are not yet stable.
    pub fn newest(&self, volume: VolumeId, block: u64) -> Newest {
        let open = self.streams[Stream::Hot.index()].open;
        let mut best: Option<(u64, usize, Span)> = None;
        for (slot, b) in self.slots.iter().enumerate() {
            if b.step == Step::Idle || b.stream != Stream::Hot {
                continue;
            }
            let seq = if open == Some(slot) { u64::MAX } else { b.seq };
            let hit = |s: &&Span| s.volume == volume && s.first <= block && block < s.first + u64::from(s.count);
            if let Some(span) = b.spans.iter().rev().find(hit)
                && best.is_none_or(|(s, ..)| s < seq)
            {
                best = Some((seq, slot, *span));
            }
        }
        match best {
            None => Newest::None,
            Some((.., span)) if span.kind == Kind::Zero => Newest::Zero,
            Some((_, slot, span)) if self.slots[slot].buf.is_some() => {
                Newest::Here(slot, span.payload_at + (block - span.first) as u32)
            }
            Some(_) => Newest::Away,
        }
    }

    /// A payload block of a batch whose buffer is here.
    pub fn payload(&self, slot: usize, at: u32) -> &[u8] {
        let buf = self.slots[slot].buf.as_ref().expect("the caller was told that it is here");
        &buf[(1 + at as usize) * BLOCK..][..BLOCK]
    }

    /// Gives every buffer that is here back and forgets all batches: the slice is dead or closing. Returns the tags of
    /// requests that will never end by themselves.
    pub fn abandon(&mut self, pool: &mut Pool, tags: &mut Vec<u64>) {
        for b in &mut self.slots {
            tags.append(&mut b.tags);
            if b.step != Step::Flying {
                b.step = Step::Idle;
                if let Some(buf) = b.buf.take() {
                    pool.put(buf);
                }
            }
        }
        for state in &mut self.streams {
            state.open = None;
        }
    }
}

fn idle_batch() -> Batch {
    Batch {
        step: Step::Idle,
        stream: Stream::Hot,
        buf: None,
        writer: Writer::new(),
        capacity: 0,
        addr: Addr::NONE,
        next: SegmentId::NONE,
        segment_seq: 0,
        seq: 0,
        ends_segment: false,
        spans: Vec::with_capacity(128),
        tags: Vec::with_capacity(128),
    }
}
