//! Reads of hosts. Blocks that lie next to each other on the medium become one device read, straight into the
//! caller's buffer where all of the request is one run; otherwise each run is read into a pool buffer and copied.
//! Every block is verified against its index entry. A block that moved while it was being read (cleaning, overwrite) is
//! read again by its new entry, so a reused segment can not pass for it. A read whose blocks were looked at in several
//! moments is begun anew when one of them has changed since, so that it shows no write by half; one that meets with that
//! too often keeps writes away until it is through.

use super::config::Limits;
use super::error::StoreError;
use super::format::Addr;
use super::format::page::Entry;
use super::index::Slot;
use super::planted::Planted;
use super::request::{Ended, Io, Outcome};
use super::slice::Slice;
use super::token::Purpose;
use super::write::Extent;
use crate::base::crc::crc32c;
use crate::base::{BLOCK, CHUNK_BLOCKS, Status, VolumeId};
use crate::device::{DeviceError, Done, Queue};
use crate::mem::{Buf, Pool};

const WORDS: usize = CHUNK_BLOCKS as usize / 64;
/// Times a block is read again before its mismatch counts as damage.
const REREADS: u8 = 2;
/// Times a read is begun anew because of writes before it puts writes off.
const ANEW: u8 = 3;

struct Reading {
    io: Io,
    extent: Extent,
    volume: Slot,
    /// Holds whole blocks; away while a run is read straight into it.
    main: Option<Buf>,
    /// The caller's buffer when it is too small for whole blocks.
    caller: Option<Buf>,
    /// Blocks not yet read, one bit each.
    todo: [u64; WORDS],
    flying: u16,
    stalled: bool,
    rereads: u8,
    /// Sum over all blocks looked at of where they were; moments at which that was; times begun anew.
    seen: u64,
    moments: u32,
    anew: u8,
    status: Status,
}

impl Reading {
    fn next(&self) -> Option<u32> {
        let word = self.todo.iter().position(|w| *w != 0)?;
        Some(word as u32 * 64 + self.todo[word].trailing_zeros())
    }
    fn wants(&self, at: u32) -> bool {
        at < self.extent.count && self.todo[at as usize / 64] & 1 << (at % 64) != 0
    }
    fn want(&mut self, at: u32) {
        self.todo[at as usize / 64] |= 1 << (at % 64);
    }
    fn forget(&mut self, at: u32) {
        self.todo[at as usize / 64] &= !(1 << (at % 64));
    }
    /// Block `at` was taken from `entry`.
    fn note(&mut self, at: u32, entry: Entry) {
        self.seen = self.seen.wrapping_add(mark(at, entry));
    }
    fn begin(&mut self) {
        (self.seen, self.moments) = (0, 0);
        (0..self.extent.count).for_each(|at| self.want(at));
    }
    fn left(&self) -> u32 {
        self.todo.iter().map(|w| w.count_ones()).sum()
    }
}

#[derive(Clone, Copy)]
struct Part {
    read: usize,
    /// First block of the request that it reads.
    at: u32,
    count: u32,
    addr: Addr,
    direct: bool,
}

/// The reads of a slice that are under way.
pub(super) struct Reads {
    slots: Vec<Option<Reading>>,
    free: Vec<usize>,
    parts: Vec<Part>,
    parts_free: Vec<usize>,
    stalled: Vec<usize>,
    /// Slots of reads that keep writes away; empty but for rare moments.
    shields: Vec<usize>,
}

impl Reads {
    /// Device reads that may be under way at once.
    pub fn parts(limits: &Limits) -> usize {
        2 * usize::from(limits.reads)
    }

    pub fn new(limits: &Limits) -> Reads {
        let (slots, parts) = (usize::from(limits.reads), Reads::parts(limits));
        let none = Part { read: 0, at: 0, count: 0, addr: Addr::NONE, direct: false };
        Reads {
            slots: (0..slots).map(|_| None).collect(),
            free: (0..slots).rev().collect(),
            parts: vec![none; parts],
            parts_free: (0..parts).rev().collect(),
            stalled: Vec::with_capacity(slots),
            shields: Vec::with_capacity(slots),
        }
    }

    /// True when a change of these blocks must wait for a read.
    #[inline]
    pub fn shields(&self, volume: VolumeId, extent: &Extent) -> bool {
        let over = |slot: &usize| {
            self.slots[*slot].as_ref().is_some_and(|r| r.io.volume == volume && r.extent.overlaps(extent))
        };
        !self.shields.is_empty() && self.shields.iter().any(over)
    }

    /// Reads under way.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Ends every read that has nothing at the device with `Gone`; the others end when their parts come back.
    pub fn abandon(&mut self, ended: &mut Vec<Ended>, pool: &mut Pool) {
        self.stalled.clear();
        self.shields.clear();
        for (n, slot) in self.slots.iter_mut().enumerate() {
            let Some(r) = slot else { continue };
            r.status = Status::Gone;
            r.todo = [0; WORDS];
            if r.flying == 0 {
                let r = slot.take().expect("looked at a moment ago");
                ended.push(finish(r, pool));
                self.free.push(n);
            }
        }
    }
}

impl Slice {
    /// Reads `io.len` bytes into `buf` (capacity at least `io.len`), which comes back with the end of the request.
    /// Unmapped blocks read as zeroes.
    ///
    /// # Errors
    /// `OutOfRange`, `MediaError` when a block can not be read or is not what was written, `Gone`.
    pub fn read<Q: Queue>(&mut self, io: Io, mut buf: Buf, q: &mut Q, pool: &mut Pool) -> Outcome {
        let ended = |status, buf| Outcome::Done(Ended { tag: io.tag, status, buf: Some(buf) });
        match self.refusal(io.tag) {
            None => {}
            Some(Outcome::Later(_)) => return Outcome::Later(Some(buf)),
            Some(_) => return ended(Status::Gone, buf),
        }
        let extent = Extent::of(&io);
        buf.set_len(io.len as usize);
        let volume = match self.check_range(&io) {
            Ok(volume) => volume,
            Err(status) => return ended(status, buf),
        };
        let bytes = extent.count as usize * BLOCK;
        if buf.capacity() >= bytes {
            buf.set_len(bytes);
            if let Some(status) = self.read_memory(volume, &extent, &mut buf, q) {
                self.counters.reads += 1;
                trim_to_request(&mut buf, &extent, &io);
                return ended(status, buf);
            }
            return self.start_read(io, extent, volume, buf, None, q, pool);
        }
        let Some(mut whole) = pool.get(bytes) else { return Outcome::Later(Some(buf)) };
        if let Some(status) = self.read_memory(volume, &extent, &mut whole, q) {
            self.counters.reads += 1;
            buf.copy_from_slice(&whole[extent.head as usize..][..io.len as usize]);
            pool.put(whole);
            return ended(status, buf);
        }
        self.start_read(io, extent, volume, whole, Some(buf), q, pool)
    }

    /// Reads from a memory-speed device; `None` when it is none. Unmapped requests are answered on any device.
    #[inline]
    fn read_memory<Q: Queue>(&mut self, volume: Slot, extent: &Extent, out: &mut [u8], q: &mut Q) -> Option<Status> {
        let (mut at, mut status) = (0, Status::Ok);
        while at < extent.count {
            let (entry, run) = self.run(volume, extent.first + u64::from(at), extent.count - at);
            let into = &mut out[at as usize * BLOCK..(at + run) as usize * BLOCK];
            match entry {
                Entry::NONE => into.fill(0),
                e if !e.addr.is_place() => status = Status::MediaError,
                e => match q.read_now(self.port.byte(e.addr.0), into)? {
                    Ok(()) => {
                        for (i, block) in into.chunks_exact(BLOCK).enumerate() {
                            let e = self.index.entry(volume, extent.first + u64::from(at) + i as u64);
                            if crc32c(block) != e.crc && !self.rules.breaks(Planted::SkipDataCrc) {
                                self.counters.read_error(true);
                                status = Status::MediaError;
                            }
                        }
                    }
                    Err(_) => {
                        self.counters.read_error(false);
                        status = Status::MediaError;
                    }
                },
            }
            at += run;
        }
        Some(status)
    }

    /// The entry of a block and how many blocks (at most `max`) follow it on the medium as they do in the volume, or
    /// are all unmapped.
    #[inline]
    fn run(&self, volume: Slot, block: u64, max: u32) -> (Entry, u32) {
        let Some(leaf) = self.index.leaf(volume, block / CHUNK_BLOCKS) else { return (Entry::NONE, max) };
        let at = (block % CHUNK_BLOCKS) as usize;
        let entry = leaf.entry(at);
        let mut run = 1;
        while run < max {
            let next = leaf.entry(at + run as usize).addr;
            let fits = if entry.addr.is_place() { next.0 == entry.addr.0 + run } else { next == entry.addr };
            if !fits {
                break;
            }
            run += 1;
        }
        (entry, run)
    }

    #[allow(clippy::too_many_arguments, reason = "the request's parts, once")]
    fn start_read<Q: Queue>(
        &mut self,
        io: Io,
        extent: Extent,
        volume: Slot,
        main: Buf,
        caller: Option<Buf>,
        q: &mut Q,
        pool: &mut Pool,
    ) -> Outcome {
        let Some(slot) = self.reads.free.pop() else {
            let Some(caller) = caller else { return Outcome::Later(Some(main)) };
            pool.put(main);
            return Outcome::Later(Some(caller));
        };
        let mut reading = Reading {
            io,
            extent,
            volume,
            main: Some(main),
            caller,
            todo: [0; WORDS],
            flying: 0,
            stalled: false,
            rereads: 0,
            seen: 0,
            moments: 0,
            anew: 0,
            status: Status::Ok,
        };
        reading.begin();
        self.counters.reads += 1;
        self.reads.slots[slot] = Some(reading);
        self.issue(slot, q, pool);
        Outcome::Pending
    }

    /// Submits what can be submitted of a read, and ends it when nothing is left.
    fn issue<Q: Queue>(&mut self, slot: usize, q: &mut Q, pool: &mut Pool) {
        let mut r = self.reads.slots[slot].take().expect("a read under way has its slot");
        let run_max = (q.caps().io_bytes_max as usize / BLOCK).max(1) as u32;
        if self.index.slot(r.io.volume) != Some(r.volume) {
            r.status = Status::Gone;
            r.todo = [0; WORDS];
        }
        while let Some(at) = r.next() {
            let (entry, run) = self.run(r.volume, r.extent.first + u64::from(at), r.extent.count - at);
            let mut count = 1;
            while count < run.min(run_max) && r.wants(at + count) {
                count += 1;
            }
            if !entry.addr.is_place() {
                let Some(main) = r.main.as_mut() else { break };
                r.moments += 1;
                match entry {
                    Entry::NONE => main[at as usize * BLOCK..(at + count) as usize * BLOCK].fill(0),
                    _ => r.status = r.status.and(Status::MediaError),
                }
                for b in at..at + count {
                    r.note(b, entry);
                    r.forget(b);
                }
                continue;
            }
            if !self.issue_run(&mut r, slot, at, count, entry.addr, q, pool) {
                break;
            }
            (at..at + count).for_each(|b| r.forget(b));
        }
        if r.next().is_some() {
            if !r.stalled {
                r.stalled = true;
                self.reads.stalled.push(slot);
            }
        } else if r.flying == 0 {
            if r.moments > 1 && r.status.is_ok() && !self.is_as_seen(&r) {
                self.begin_anew(r, slot, q, pool);
                return;
            }
            self.reads.free.push(slot);
            self.reads.stalled.retain(|s| *s != slot);
            self.reads.shields.retain(|s| *s != slot);
            self.ended.push(finish(r, pool));
            return;
        }
        self.reads.slots[slot] = Some(r);
    }

    /// True when every block still is where the read found it: then all it shows was there at one time.
    fn is_as_seen(&self, r: &Reading) -> bool {
        let now = (0..r.extent.count).map(|at| mark(at, self.index.entry(r.volume, r.extent.first + u64::from(at))));
        now.fold(0, u64::wrapping_add) == r.seen
    }

    fn begin_anew<Q: Queue>(&mut self, mut r: Reading, slot: usize, q: &mut Q, pool: &mut Pool) {
        r.anew = r.anew.saturating_add(1);
        if r.anew == ANEW {
            self.reads.shields.push(slot);
        }
        r.begin();
        self.reads.slots[slot] = Some(r);
        self.issue(slot, q, pool);
    }

    /// Submits one run; false when nothing more can be submitted now.
    #[allow(clippy::too_many_arguments, reason = "the run's parts, once")]
    fn issue_run<Q: Queue>(
        &mut self,
        r: &mut Reading,
        slot: usize,
        at: u32,
        count: u32,
        addr: Addr,
        q: &mut Q,
        pool: &mut Pool,
    ) -> bool {
        if r.main.is_none() {
            return false;
        }
        let Some(part) = self.reads.parts_free.pop() else { return false };
        let len = count as usize * BLOCK;
        let extra = if r.flying == 0 && r.left() == count { None } else { pool.get(len) };
        let (buf, offset, direct) = match extra {
            Some(buf) => (buf, 0, false),
            // All that is left, or no other buffer to be had: straight into the request's own.
            None if r.flying == 0 => (r.main.take().expect("looked at above"), at as usize * BLOCK, true),
            None => {
                self.reads.parts_free.push(part);
                return false;
            }
        };
        self.reads.parts[part] = Part { read: slot, at, count, addr, direct };
        r.flying += 1;
        self.port.read(addr.0, len, buf, offset, Purpose::Read(part), q);
        true
    }

    /// A device read has ended.
    pub(super) fn read_done<Q: Queue>(&mut self, part: usize, done: Done, q: &mut Q, pool: &mut Pool) {
        let p = self.reads.parts[part];
        self.reads.parts_free.push(part);
        let buf = done.buf.expect("a read brings its buffer back");
        let mut r = self.reads.slots[p.read].take().expect("a read ends after its parts");
        r.flying -= 1;
        let start = if p.direct { p.at as usize * BLOCK } else { 0 };
        if r.status != Status::Gone && self.index.slot(r.io.volume) == Some(r.volume) {
            let bytes = &buf[start..start + p.count as usize * BLOCK];
            self.verify(&mut r, &p, done.result, bytes);
        }
        if p.direct {
            r.main = Some(buf);
        } else {
            pool.put(buf);
        }
        self.reads.slots[p.read] = Some(r);
        if done.result == Err(DeviceError::Dead) {
            let offset = self.port.byte(p.addr.0);
            self.die(StoreError::Device { op: "read", offset, error: DeviceError::Dead }, pool);
        }
        if self.reads.slots[p.read].is_some() {
            self.issue(p.read, q, pool);
        }
    }

    /// Checks each block of a part against the index as it is now and copies it where it belongs.
    fn verify(&mut self, r: &mut Reading, p: &Part, result: Result<(), DeviceError>, bytes: &[u8]) {
        r.moments += 1;
        for (i, block) in bytes.chunks_exact(BLOCK).enumerate() {
            let at = p.at + i as u32;
            let now = self.index.entry(r.volume, r.extent.first + u64::from(at));
            let moved = now.addr != p.addr.plus(i as u32);
            let skip = self.rules.breaks(Planted::SkipDataCrc);
            if skip || (!moved && result.is_ok() && crc32c(block) == now.crc) {
                r.note(at, now);
                if !p.direct {
                    let main = r.main.as_mut().expect("it is away only for direct parts");
                    main[at as usize * BLOCK..][..BLOCK].copy_from_slice(block);
                }
            } else if moved || r.rereads < REREADS {
                r.rereads += u8::from(!moved);
                r.want(at);
            } else {
                self.counters.read_error(result.is_ok());
                r.status = r.status.and(Status::MediaError);
            }
        }
    }

    /// Takes up reads that were short of buffers or slots.
    pub(super) fn step_reads<Q: Queue>(&mut self, q: &mut Q, pool: &mut Pool) -> bool {
        let n = self.reads.stalled.len();
        for _ in 0..n {
            let slot = self.reads.stalled.remove(0);
            if let Some(r) = self.reads.slots[slot].as_mut() {
                r.stalled = false;
                self.issue(slot, q, pool);
            }
        }
        self.reads.stalled.len() < n
    }
}

/// Block `at` of a read and where it was, as one number; the sum of these tells whether any of them has changed.
fn mark(at: u32, entry: Entry) -> u64 {
    let place = u64::from(at) << 32 | u64::from(entry.addr.0);
    let mixed = (place ^ u64::from(entry.crc) << 9).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) ^ mixed >> 32
}

/// Moves the requested bytes to the front of a buffer of whole blocks.
fn trim_to_request(buf: &mut Buf, extent: &Extent, io: &Io) {
    let (head, len) = (extent.head as usize, io.len as usize);
    if head > 0 {
        buf.copy_within(head..head + len, 0);
    }
    buf.set_len(len);
}

fn finish(mut r: Reading, pool: &mut Pool) -> Ended {
    let mut main = r.main.take().expect("nothing is at the device any more");
    let buf = match r.caller.take() {
        None => {
            trim_to_request(&mut main, &r.extent, &r.io);
            main
        }
        Some(mut caller) => {
            let head = r.extent.head as usize;
            caller.copy_from_slice(&main[head..head + r.io.len as usize]);
            pool.put(main);
            caller
        }
    };
    Ended { tag: r.io.tag, status: r.status, buf: Some(buf) }
}
