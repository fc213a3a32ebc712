//! Compare-writes that cross a chunk border, so that they may have two owners. Each owner is asked to hold its range and
//! to compare, the lower chunk first; only when both compared equal does either write.
//!
//! What stays true: ranges are held in the order of their chunks, so no two of these wait for each other; what is sent
//! while a range is held counts against no limit that the requests waiting for that range could use up, and an owner that
//! is short of buffers says so instead of waiting: then everything is let go and begins anew.

use super::{Front, Job, Origin, Parked};
use crate::base::{CHUNK, Status, Time};
use crate::mem::{Buf, Pool};
use crate::repl::{Detail, Ended, Home, Part, Payload, Shards, Step, place};
use crate::volume::{Completion, Request, Submit};

/// Crossings under way on one core: few, so that the buffers which each keeps from its beginning leave enough for all to go on.
pub(super) const CROSSINGS: usize = 16;
/// Parts of one under way at once.
pub(super) const CROSSING_PARTS: usize = 2;

/// What is awaited.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// The next turn, to begin (again).
    Begin,
    /// The lower range to be held and found equal.
    First,
    /// The upper one.
    Second,
    /// Both writes.
    Writes,
    /// The lower range to be let go.
    Release,
}

/// One crossing compare-write.
pub(super) struct Crossing {
    pub(super) request: Request,
    home: Home,
    started: Time,
    offset: u64,
    /// Bytes compared, and how many of them lie below the border.
    bytes: u32,
    first: u32,
    phase: Phase,
    left: u8,
    status: Status,
    detail: Detail,
    /// Both payloads.
    payload: Buf,
}

impl Crossing {
    /// The range of a half: offset from the first byte, and length.
    fn half(&self, second: bool) -> (u32, u32) {
        if second { (self.first, self.bytes - self.first) } else { (0, self.first) }
    }
}

impl<S: Shards> Front<S> {
    /// Takes a compare-write of `bytes` bytes at `offset`.
    pub(super) fn start_crossing(
        &mut self,
        request: Request,
        home: Home,
        offset: u64,
        bytes: u32,
        payload: Payload<'_>,
        pool: &mut Pool,
    ) -> Submit {
        if self.crossings.len() == CROSSINGS {
            return Submit::Later(payload.into_buf());
        }
        assert_eq!(payload.bytes().len(), 2 * bytes as usize, "both payloads");
        let payload = match payload {
            Payload::Owned(buf) => buf,
            other => match super::copied(other.bytes(), pool) {
                Some(buf) => buf,
                None => return Submit::Later(None),
            },
        };
        let key = self.crossings.insert(Crossing {
            request,
            home,
            started: self.now,
            offset,
            bytes,
            first: (CHUNK - offset % CHUNK) as u32,
            phase: Phase::Begin,
            left: 0,
            status: Status::Ok,
            detail: Detail::NONE,
            payload,
        });
        self.hold_half(key, false, pool);
        Submit::Pending
    }

    /// Asks for a half to be held and compared; begins anew when there is no buffer for that.
    fn hold_half(&mut self, key: usize, second: bool, pool: &mut Pool) {
        let c = &mut self.crossings[key];
        let (at, len) = c.half(second);
        let Some(mut buf) = pool.get(2 * len as usize) else {
            return if second { self.release_first(key, pool) } else { c.phase = Phase::Begin };
        };
        let (expected, new) = c.payload.split_at(c.bytes as usize);
        let range = at as usize..(at + len) as usize;
        buf[..len as usize].copy_from_slice(&expected[range.clone()]);
        buf[len as usize..].copy_from_slice(&new[range]);
        c.phase = if second { Phase::Second } else { Phase::First };
        self.start_half(key, second, Step::Hold, Some(buf), pool);
    }

    fn release_first(&mut self, key: usize, pool: &mut Pool) {
        self.crossings[key].phase = Phase::Release;
        self.start_half(key, false, Step::Release, None, pool);
    }

    fn start_half(&mut self, key: usize, second: bool, step: Step, buf: Option<Buf>, pool: &mut Pool) {
        let c = &self.crossings[key];
        let (at, len) = c.half(second);
        let offset = c.offset + u64::from(at);
        let shard = place::shard(c.request.volume, offset / CHUNK);
        let Request { volume, kind, fua, .. } = c.request;
        let mut part = Part { volume, home: c.home, shard, kind, offset, len, step, fua, tag: 0 };
        let origin = Origin::Crossing { key, second };
        let (started, sent_to) = (self.now, None);
        let job = self.jobs.insert(Job { origin, kind, volume, bytes: len, started, sent_to, luggage: None });
        part.tag = job as u64;
        self.try_part(Parked { job, part, buf }, pool);
    }

    /// A step of a half has ended.
    pub(super) fn finish_crossing(&mut self, key: usize, second: bool, ended: &Ended, pool: &mut Pool) {
        let c = &mut self.crossings[key];
        match c.phase {
            Phase::Begin => unreachable!("nothing was asked"),
            Phase::First | Phase::Second if ended.status.is_ok() => {
                if !second {
                    return self.hold_half(key, true, pool);
                }
                (c.phase, c.left) = (Phase::Writes, 2);
                self.start_half(key, false, Step::Write, None, pool);
                self.start_half(key, true, Step::Write, None, pool);
            }
            Phase::First | Phase::Second => {
                if ended.status != Status::Busy {
                    c.status = ended.status;
                    c.detail = Detail::differing(c.half(second).0 + ended.detail.differs_at());
                }
                if second {
                    self.release_first(key, pool);
                } else {
                    self.end_or_begin(key, pool);
                }
            }
            Phase::Release => self.end_or_begin(key, pool),
            Phase::Writes => {
                c.status = c.status.and(ended.status);
                c.left -= 1;
                if c.left == 0 {
                    self.end_crossing(key, pool);
                }
            }
        }
    }

    /// Nothing is held: the end, if a status says so, or another attempt.
    fn end_or_begin(&mut self, key: usize, pool: &mut Pool) {
        if self.crossings[key].status.is_ok() {
            self.crossings[key].phase = Phase::Begin;
        } else {
            self.end_crossing(key, pool);
        }
    }

    fn end_crossing(&mut self, key: usize, pool: &mut Pool) {
        let c = self.crossings.remove(key);
        pool.put(c.payload);
        let Request { volume, kind, tag, .. } = c.request;
        self.count(volume, kind, u64::from(c.bytes), c.started, c.status);
        self.done.push(Completion { tag, status: c.status, detail: c.detail, buf: None });
    }

    /// Begins those that had to let go.
    pub(super) fn step_crossings(&mut self, pool: &mut Pool) {
        for key in 0..CROSSINGS {
            if self.crossings.get(key).is_some_and(|c| c.phase == Phase::Begin) {
                self.hold_half(key, false, pool);
            }
        }
    }
}
