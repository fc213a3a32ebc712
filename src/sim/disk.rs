//! The simulated disk: a [`Queue`] whose operations take seeded times, finish out of order, fail as told, and whose
//! medium forgets what was not flushed when the power goes.
//!
//! Every operation is executed (it takes effect on the cache) and later delivered (its submitter hears of it), two
//! separate points in time. In the memory pace reads and writes end in the call, as on RAM. As every device of this
//! crate does, it answers everybody with `Dead` once a flush has failed, because what that flush should have covered
//! may be gone.

use super::fault::Fault;
use super::medium::Piece;
use super::{Content, Event, Faults, Image, Medium, SECTOR, Trace};
use crate::base::Time;
use crate::base::crc::crc32c;
use crate::base::rng::Rng;
use crate::device::{Caps, DeviceError, Done, Op, OpKind, Queue};
use std::collections::BTreeMap;

/// How long operations take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pace {
    /// `read_now` and `write_now` answer; everything else ends at the next poll.
    Memory,
    /// Each of the two stages takes `min_ns..=max_ns`; one in a hundred `tail` times as long.
    Queued {
        /// Shortest stage.
        min_ns: u64,
        /// Longest ordinary stage.
        max_ns: u64,
        /// Factor of the slow ones.
        tail: u64,
    },
}

/// What disk to simulate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DiskOptions {
    /// Smallest unit of I/O: 512 or 4096.
    pub block_size: u32,
    /// Operations under way at most.
    pub depth: u32,
    /// Largest transfer, bytes.
    pub io_bytes_max: u32,
    /// Completed writes need a flush to be durable.
    pub volatile_cache: bool,
    /// Write Zeroes and Discard are native.
    pub zeroes: bool,
    /// How long operations take.
    pub pace: Pace,
    /// What goes wrong by itself.
    pub faults: Faults,
}

impl Default for DiskOptions {
    fn default() -> Self {
        DiskOptions {
            block_size: 512,
            depth: 64,
            io_bytes_max: 1 << 20,
            volatile_cache: true,
            zeroes: true,
            pace: Pace::Queued { min_ns: 5_000, max_ns: 100_000, tail: 20 },
            faults: Faults::default(),
        }
    }
}

/// Operations seen, by what became of them.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct DiskStats {
    /// Reads submitted.
    pub reads: u64,
    /// Writes, write-zeroes and discards submitted.
    pub writes: u64,
    /// Flushes submitted.
    pub flushes: u64,
    /// Faults carried out.
    pub faults: u64,
    /// Of those, the ones that leave wrong bytes behind an acknowledgement.
    pub corruptions: u64,
}

struct Flight {
    op: Op,
    seq: u64,
    execute: Time,
    deliver: Time,
    executed: bool,
    fault: Option<Fault>,
    barrier: u64,
}

/// A disk made of memory, a seed and bad luck.
pub struct Disk {
    caps: Caps,
    options: DiskOptions,
    medium: Medium,
    cache: Image,
    flights: Vec<Flight>,
    script: BTreeMap<u64, Fault>,
    write_script: BTreeMap<u64, Fault>,
    record: Option<Vec<Event>>,
    events: u64,
    seq: u64,
    now: Time,
    rng: Rng,
    trace: Trace,
    stats: DiskStats,
    dead: bool,
    /// A flush failed: whatever ends from then on ends with `Dead`, for all who use the disk.
    flush_failed: bool,
}

impl Disk {
    /// A disk that holds `image`, all of it durable.
    pub fn new(image: Image, options: DiskOptions, seed: u64) -> Disk {
        let caps = Caps {
            size: image.size(),
            block_size: options.block_size,
            io_bytes_max: options.io_bytes_max,
            depth: options.depth,
            volatile_cache: options.volatile_cache,
            atomic_bytes: SECTOR as u32,
            write_zeroes: options.zeroes,
            discard: options.zeroes,
            read_only: false,
        };
        Disk {
            caps,
            options,
            cache: image.clone(),
            medium: Medium::new(image, !options.volatile_cache),
            flights: Vec::with_capacity(options.depth as usize),
            script: BTreeMap::new(),
            write_script: BTreeMap::new(),
            record: None,
            events: 0,
            seq: 0,
            now: Time(0),
            rng: Rng::new(seed),
            trace: Trace::new(),
            stats: DiskStats::default(),
            dead: false,
            flush_failed: false,
        }
    }

    /// Keeps every event from now on, for [`super::Replay`].
    pub fn keep_record(&mut self) {
        assert_eq!(self.events, 0, "a record begins before the first operation");
        self.record = Some(Vec::new());
    }

    /// The record since [`Disk::keep_record`], which ends with this call.
    pub fn take_record(&mut self) -> Vec<Event> {
        self.record.take().unwrap_or_default()
    }

    /// Changes of the medium so far: the number of the event that comes next.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Operations submitted so far: the number the next one gets.
    pub fn ops(&self) -> u64 {
        self.seq
    }

    /// Lets `fault` happen to operation number `op`, whatever the rates say.
    pub fn plan(&mut self, op: u64, fault: Fault) {
        self.script.insert(op, fault);
    }

    /// Lets `fault` happen to the write that makes [`DiskStats::writes`] `number`.
    pub fn plan_write(&mut self, number: u64, fault: Fault) {
        self.write_script.insert(number, fault);
    }

    /// Nothing planned happens any more.
    pub fn forget_plans(&mut self) {
        self.script.clear();
        self.write_script.clear();
    }

    /// From now on faults happen at these rates.
    pub fn set_faults(&mut self, faults: Faults) {
        self.options.faults = faults;
    }

    /// Everything that happened, as one hash.
    pub fn trace(&self) -> u64 {
        self.trace.hash()
    }

    /// Counters.
    pub fn stats(&self) -> DiskStats {
        self.stats
    }

    /// What is durable and what is not.
    pub fn medium(&self) -> &Medium {
        &self.medium
    }

    /// What readers see: the content after an orderly stop.
    pub fn image(&self) -> &Image {
        &self.cache
    }

    /// The device is gone from now on: whatever is under way ends with `Dead` at the next poll, and nothing reaches
    /// the medium any more.
    pub fn die(&mut self) {
        self.dead = true;
    }

    fn event(&mut self, event: Event) {
        event.apply(&mut self.medium, &mut self.cache);
        self.events += 1;
        if let Some(record) = &mut self.record {
            record.push(event);
        }
    }

    fn check(&self, op: &Op) {
        let unit = u64::from(self.caps.block_size);
        let end = op.offset.checked_add(op.len).expect("offset + length fit in 64 bits");
        assert!(end <= self.caps.size, "{:?} {}+{} past the end of the device", op.kind, op.offset, op.len);
        assert!(op.offset.is_multiple_of(unit) && op.len.is_multiple_of(unit), "I/O in whole blocks of {unit}");
        match op.kind {
            OpKind::Flush => assert!(op.len == 0 && op.buf.is_none(), "a flush has no range and no buffer"),
            OpKind::Read | OpKind::Write => {
                assert!(op.len > 0 && op.len <= u64::from(self.caps.io_bytes_max), "transfer of {} bytes", op.len);
                let buf = op.buf.as_ref().expect("a transfer has a buffer");
                assert!(u64::from(op.at).is_multiple_of(unit), "transfers start at block borders of the buffer");
                assert!(u64::from(op.at) + op.len <= buf.len() as u64, "a transfer lies inside its buffer");
            }
            OpKind::WriteZeroes | OpKind::Discard => {
                assert!(self.options.zeroes && op.len > 0, "{:?} is not offered", op.kind);
            }
        }
    }

    fn decide(&mut self, kind: OpKind) -> Option<Fault> {
        let planned = self.script.remove(&self.seq).or_else(|| {
            let is_write = kind == OpKind::Write;
            if is_write { self.write_script.remove(&(self.stats.writes + 1)) } else { None }
        });
        let fault = planned.or_else(|| self.options.faults.draw(kind, &mut self.rng))?;
        self.stats.faults += 1;
        self.stats.corruptions += u64::from(fault.corrupts());
        self.trace.add(0xfa);
        Some(fault)
    }

    fn stage(&mut self) -> u64 {
        match self.options.pace {
            Pace::Memory => 0,
            Pace::Queued { min_ns, max_ns, tail } => {
                let ns = min_ns + self.rng.below(max_ns - min_ns + 1);
                if self.rng.chance(1) { ns * tail } else { ns }
            }
        }
    }

    /// A place of the same length elsewhere on the medium, on a block border.
    fn elsewhere(&self, offset: u64, len: u64, draw: u64) -> u64 {
        let unit = u64::from(self.caps.block_size);
        let places = (self.caps.size - len) / unit + 1;
        let place = draw % places * unit;
        if place == offset { (draw + 1) % places * unit } else { place }
    }

    /// What a write leaves on the medium once its fault has had its way.
    fn pieces(&mut self, offset: u64, content: Content, fault: Option<Fault>) -> Vec<Piece> {
        let len = content.len();
        match fault {
            Some(Fault::Phantom | Fault::Death) => Vec::new(),
            Some(Fault::Misdirected(draw)) => vec![Piece { offset: self.elsewhere(offset, len, draw), content }],
            Some(Fault::StaleSector(draw)) => {
                let hole = draw % (len / SECTOR as u64) * SECTOR as u64;
                let after = hole + SECTOR as u64;
                vec![
                    Piece { offset, content: content.part(0, hole) },
                    Piece { offset: offset + after, content: content.part(after, len - after) },
                ]
            }
            Some(Fault::BitFlip(draw)) => match content {
                Content::Bytes { of, start, len } => {
                    let mut bytes = of[start..start + len].to_vec();
                    flip(&mut bytes, draw);
                    vec![Piece { offset, content: Content::all(&bytes) }]
                }
                zeroes @ Content::Zeroes(_) => vec![Piece { offset, content: zeroes }],
            },
            Some(Fault::Error) => match self.rng.below(3) {
                0 => Vec::new(),
                1 => {
                    let sectors = self.rng.below(len / SECTOR as u64 + 1);
                    vec![Piece { offset, content: content.part(0, sectors * SECTOR as u64) }]
                }
                _ => vec![Piece { offset, content }],
            },
            Some(Fault::Stall(_) | Fault::LyingFlush) | None => vec![Piece { offset, content }],
        }
    }

    /// What a write, write-zeroes or discard puts down; `None` when a discard chooses to do nothing.
    fn content(&mut self, op: &Op) -> Option<Content> {
        match op.kind {
            OpKind::Write => {
                let buf = op.buf.as_ref().expect("checked at submission");
                Some(Content::all(&buf[op.at as usize..][..op.len as usize]))
            }
            OpKind::WriteZeroes => Some(Content::Zeroes(op.len)),
            OpKind::Discard => match self.rng.below(3) {
                0 => None,
                1 => Some(Content::Zeroes(op.len)),
                _ => {
                    let mut junk = vec![0; op.len as usize];
                    self.rng.fill(&mut junk);
                    Some(Content::all(&junk))
                }
            },
            OpKind::Read | OpKind::Flush => unreachable!("only operations that change the medium have a content"),
        }
    }

    fn begin_write(&mut self, seq: u64, op: &Op, fault: Option<Fault>) {
        let pieces = match self.content(op) {
            Some(content) => {
                if let Content::Bytes { of, .. } = &content {
                    self.trace.add(u64::from(crc32c(of)));
                }
                self.pieces(op.offset, content, fault)
            }
            None => Vec::new(),
        };
        self.event(Event::Submit(seq, pieces));
    }

    fn fill(&mut self, offset: u64, into: &mut [u8], fault: Option<Fault>) -> Result<(), DeviceError> {
        let from = match fault {
            Some(Fault::Error) => return Err(DeviceError::Media),
            Some(Fault::Misdirected(draw)) => self.elsewhere(offset, into.len() as u64, draw),
            _ => offset,
        };
        self.cache.read(from, into);
        if let Some(Fault::BitFlip(draw)) = fault {
            flip(into, draw);
        }
        Ok(())
    }

    fn execute(&mut self, index: usize) {
        let (seq, kind, fault, barrier) = {
            let f = &mut self.flights[index];
            f.executed = true;
            (f.seq, f.op.kind, f.fault, f.barrier)
        };
        self.trace.all(&[0xe, seq]);
        match kind {
            OpKind::Read => {
                let mut buf = self.flights[index].op.buf.take().expect("checked at submission");
                let (at, len, offset) = {
                    let op = &self.flights[index].op;
                    (op.at as usize, op.len as usize, op.offset)
                };
                // An error is decided again at delivery; here only the bytes move.
                let _ = self.fill(offset, &mut buf[at..at + len], fault);
                self.flights[index].op.buf = Some(buf);
            }
            OpKind::Flush => match fault {
                Some(Fault::LyingFlush) => {}
                Some(Fault::Error) => {
                    self.flush_failed = true;
                    self.event(Event::Doom(barrier));
                }
                _ => self.event(Event::Flush(barrier)),
            },
            OpKind::Write | OpKind::WriteZeroes | OpKind::Discard => self.event(Event::Execute(seq)),
        }
    }

    fn deliver(&mut self, index: usize) -> Done {
        let flight = self.flights.swap_remove(index);
        let changes = !matches!(flight.op.kind, OpKind::Read | OpKind::Flush);
        let result = if self.dead || self.flush_failed {
            Err(DeviceError::Dead)
        } else if flight.fault == Some(Fault::Error) {
            Err(DeviceError::Media)
        } else {
            Ok(())
        };
        if changes {
            self.event(if result.is_ok() { Event::Complete(flight.seq) } else { Event::Fail(flight.seq) });
        }
        self.trace.all(&[0xd, flight.seq, u64::from(result.is_ok())]);
        Done { token: flight.op.token, kind: flight.op.kind, result, buf: flight.op.buf }
    }

    /// The flight whose next stage comes first, and when. After death everything is delivered at once, unexecuted.
    fn next_stage(&self) -> Option<(Time, u64, usize)> {
        let due = |f: &Flight| {
            if self.dead {
                self.now
            } else if f.executed {
                f.deliver
            } else {
                f.execute
            }
        };
        self.flights.iter().enumerate().map(|(i, f)| (due(f), f.seq, i)).min()
    }
}

fn flip(bytes: &mut [u8], draw: u64) {
    let bit = draw % (bytes.len() as u64 * 8);
    bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
}

impl Queue for Disk {
    fn caps(&self) -> &Caps {
        &self.caps
    }

    fn submit(&mut self, op: Op) -> Result<(), Op> {
        self.check(&op);
        if self.flights.len() == self.options.depth as usize {
            return Err(op);
        }
        let fault = if self.dead { None } else { self.decide(op.kind) };
        let seq = self.seq;
        self.seq += 1;
        self.trace.all(&[0x5, seq, op.kind as u64, op.offset, op.len]);
        match op.kind {
            OpKind::Read => self.stats.reads += 1,
            OpKind::Flush => self.stats.flushes += 1,
            OpKind::Write | OpKind::WriteZeroes | OpKind::Discard => {
                self.stats.writes += 1;
                if !self.dead {
                    self.begin_write(seq, &op, fault);
                }
            }
        }
        self.dead |= fault == Some(Fault::Death);
        let stall = if let Some(Fault::Stall(ns)) = fault { ns } else { 0 };
        let execute = self.now.after_ns(self.stage());
        let deliver = execute.after_ns(self.stage() + stall);
        let barrier = self.medium.barrier();
        self.flights.push(Flight { op, seq, execute, deliver, executed: false, fault, barrier });
        Ok(())
    }

    fn kick(&mut self) {}

    fn poll(&mut self, now: Time, done: &mut Vec<Done>) -> usize {
        self.now = self.now.max(now);
        let before = done.len();
        while let Some((time, _, index)) = self.next_stage() {
            if time > self.now {
                break;
            }
            if self.flights[index].executed || self.dead {
                let ended = self.deliver(index);
                done.push(ended);
            } else {
                self.execute(index);
            }
        }
        done.len() - before
    }

    fn inflight(&self) -> usize {
        self.flights.len()
    }

    fn read_now(&mut self, offset: u64, into: &mut [u8]) -> Option<Result<(), DeviceError>> {
        if self.options.pace != Pace::Memory {
            return None;
        }
        if self.dead || self.flush_failed {
            return Some(Err(DeviceError::Dead));
        }
        assert!(offset + into.len() as u64 <= self.caps.size, "a read past the end of the device");
        let fault = self.decide(OpKind::Read);
        self.stats.reads += 1;
        self.trace.all(&[0x6, self.seq, offset, into.len() as u64]);
        self.seq += 1;
        if fault == Some(Fault::Death) {
            self.dead = true;
            return Some(Err(DeviceError::Dead));
        }
        Some(self.fill(offset, into, fault))
    }

    fn write_now(&mut self, offset: u64, from: &[u8]) -> Option<Result<(), DeviceError>> {
        if self.options.pace != Pace::Memory {
            return None;
        }
        if self.dead || self.flush_failed {
            return Some(Err(DeviceError::Dead));
        }
        assert!(offset + from.len() as u64 <= self.caps.size, "a write past the end of the device");
        let fault = self.decide(OpKind::Write);
        self.stats.writes += 1;
        let seq = self.seq;
        self.seq += 1;
        self.trace.all(&[0x7, seq, offset, u64::from(crc32c(from))]);
        let pieces = self.pieces(offset, Content::all(from), fault);
        self.event(Event::Submit(seq, pieces));
        self.event(Event::Execute(seq));
        match fault {
            Some(Fault::Death) => {
                self.dead = true;
                self.event(Event::Fail(seq));
                Some(Err(DeviceError::Dead))
            }
            Some(Fault::Error) => {
                self.event(Event::Fail(seq));
                Some(Err(DeviceError::Media))
            }
            _ => {
                self.event(Event::Complete(seq));
                Some(Ok(()))
            }
        }
    }

    fn wake_at(&self) -> Option<Time> {
        self.next_stage().map(|(time, _, _)| time)
    }
}

#[cfg(test)]
mod tests;
