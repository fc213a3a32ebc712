//! Requests that can not go into the log at once: writes and zeroes of parts of blocks, which need the rest of the
//! block first (read-modify-write), writes too large for one batch, and whatever touches a block that one of those
//! still waits for, so that overlapping requests keep their order.
//!
//! A request starts when no earlier one here shares a block with it. From then on nothing can change the old content
//! of its edges before it is appended itself: later requests wait behind it, and cleaning moves bytes without
//! changing them.

use super::config::Limits;
use super::error::StoreError;
use super::format::Stream;
use super::format::page::Entry;
use super::log::Newest;
use super::planted::Planted;
use super::request::{Io, Outcome};
use super::slice::Slice;
use super::token::Purpose;
use super::write::Extent;
use crate::base::crc::crc32c;
use crate::base::{BLOCK, Status, VolumeId};
use crate::device::{DeviceError, Done, Queue};
use crate::mem::{Buf, Pool};
use std::collections::VecDeque;

/// What is to be written: data in a buffer that spans all blocks of the extent, or zeroes with the two edge blocks
/// (old content around the zeroes) in a buffer of two blocks; `kept` says which edge has any old content.
pub(super) enum Body {
    Data(Buf),
    Zeroes { edges: Option<Buf>, kept: [bool; 2] },
}

/// A run of a body that becomes one record.
pub(super) struct Part<'a> {
    pub count: u32,
    /// `None` for zeroes.
    pub data: Option<&'a [u8]>,
}

impl Body {
    /// The run that starts at block `done` of the extent.
    pub fn part(&self, extent: &Extent, done: u32) -> Option<Part<'_>> {
        let left = extent.count.checked_sub(done).filter(|n| *n > 0)?;
        match self {
            Body::Data(buf) => {
                let at = done as usize * BLOCK;
                Some(Part { count: left, data: Some(&buf[at..at + left as usize * BLOCK]) })
            }
            Body::Zeroes { edges, kept } => {
                let last = extent.count - 1;
                let edge = match done {
                    0 if kept[0] => Some(0),
                    n if n == last && kept[1] => Some(1),
                    _ => None,
                };
                let Some(edge) = edge else {
                    return Some(Part { count: left - u32::from(kept[1]), data: None });
                };
                let buf = edges.as_ref().expect("a ragged extent has a buffer for its edges");
                Some(Part { count: 1, data: Some(&buf[edge * BLOCK..(edge + 1) * BLOCK]) })
            }
        }
    }

    /// The block of an edge: 0 is the first, 1 the last of the extent.
    fn edge(&mut self, edge: usize, extent: &Extent) -> &mut [u8] {
        let (buf, at) = match self {
            Body::Data(buf) => (buf, if edge == 0 { 0 } else { extent.count as usize - 1 }),
            Body::Zeroes { edges, .. } => (edges.as_mut().expect("a ragged extent has a buffer for its edges"), edge),
        };
        &mut buf[at * BLOCK..(at + 1) * BLOCK]
    }
}

/// How far an edge is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Edge {
    /// The old content is needed.
    Wanted,
    /// It is in a batch whose buffer is at the device.
    InBatch,
    /// It is being read; the entry it is read by.
    Reading(Entry),
    /// It is merged, or there is no such edge.
    Merged,
}

struct Staged {
    io: Io,
    extent: Extent,
    body: Body,
    edges: [Edge; 2],
    /// Blocks appended.
    done: u32,
    started: bool,
    rereads: u8,
    failed: Option<Status>,
}

impl Staged {
    fn reads(&self) -> bool {
        self.edges.iter().any(|e| matches!(e, Edge::Reading(_)))
    }
    fn merged(&self) -> bool {
        self.edges.iter().all(|e| *e == Edge::Merged)
    }
}

/// The staged requests of a slice.
pub(super) struct Staging {
    slots: Vec<Option<Staged>>,
    /// Slots in order of arrival.
    order: VecDeque<usize>,
}

impl Staging {
    pub fn new(limits: &Limits) -> Staging {
        let n = usize::from(limits.partials);
        Staging { slots: (0..n).map(|_| None).collect(), order: VecDeque::with_capacity(n) }
    }

    /// True when a staged request shares a block with the extent.
    #[inline]
    pub fn overlaps(&self, volume: VolumeId, extent: &Extent) -> bool {
        !self.order.is_empty() && self.overlaps_before(volume, extent, self.order.len())
    }

    fn overlaps_before(&self, volume: VolumeId, extent: &Extent, before: usize) -> bool {
        let staged = self.order.iter().take(before).filter_map(|n| self.slots[*n].as_ref());
        staged.into_iter().any(|s| s.io.volume == volume && s.extent.overlaps(extent))
    }

    /// Requests waiting.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Forgets everything that is not at the device; the tags of all.
    pub fn abandon(&mut self, pool: &mut Pool, tags: &mut Vec<u64>) {
        for n in self.order.drain(..) {
            let staged = self.slots[n].take().expect("ordered slots are in use");
            tags.push(staged.io.tag);
            put_body(staged.body, pool);
        }
    }
}

fn put_body(body: Body, pool: &mut Pool) {
    if let Body::Data(buf) | Body::Zeroes { edges: Some(buf), .. } = body {
        pool.put(buf);
    }
}

impl Slice {
    /// Takes a request into staging; `data` is `None` for zeroes.
    pub(super) fn stage<Q: Queue>(
        &mut self,
        io: Io,
        extent: Extent,
        data: Option<&[u8]>,
        q: &mut Q,
        pool: &mut Pool,
    ) -> Outcome {
        let Some(slot) = self.staging.slots.iter().position(Option::is_none) else { return Outcome::Later(None) };
        let body = match data {
            Some(data) => {
                let Some(mut buf) = pool.get(extent.count as usize * BLOCK) else { return Outcome::Later(None) };
                buf[extent.head as usize..][..data.len()].copy_from_slice(data);
                Body::Data(buf)
            }
            None if extent.is_whole() => Body::Zeroes { edges: None, kept: [false; 2] },
            None => {
                let Some(mut buf) = pool.get(2 * BLOCK) else { return Outcome::Later(None) };
                buf.fill(0);
                Body::Zeroes { edges: Some(buf), kept: [false; 2] }
            }
        };
        let head = extent.head > 0 || (extent.count == 1 && !extent.is_whole());
        let tail = extent.count > 1 && (extent.tail as usize) < BLOCK;
        let edge = |ragged| if ragged { Edge::Wanted } else { Edge::Merged };
        let staged = Staged {
            io,
            extent,
            body,
            edges: [edge(head), edge(tail)],
            done: 0,
            started: false,
            rereads: 0,
            failed: None,
        };
        self.staging.slots[slot] = Some(staged);
        self.staging.order.push_back(slot);
        self.advance_staged(self.staging.order.len() - 1, q, pool);
        self.drop_ended_staged(pool);
        Outcome::Pending
    }

    /// Takes every staged request as far as it goes.
    pub(super) fn step_staging<Q: Queue>(&mut self, q: &mut Q, pool: &mut Pool) -> bool {
        if self.staging.order.is_empty() {
            return false;
        }
        for at in 0..self.staging.order.len() {
            self.advance_staged(at, q, pool);
        }
        self.drop_ended_staged(pool)
    }

    fn drop_ended_staged(&mut self, pool: &mut Pool) -> bool {
        let (slots, ended, before) = (&mut self.staging.slots, &mut self.ended, self.staging.order.len());
        self.staging.order.retain(|n| {
            let s = slots[*n].as_ref().expect("ordered slots are in use");
            let over = s.done == s.extent.count || s.failed.is_some();
            if !over || s.reads() {
                return true;
            }
            let s = slots[*n].take().expect("looked at a moment ago");
            if let Some(status) = s.failed {
                ended.push(super::request::Ended { tag: s.io.tag, status, buf: None });
            }
            put_body(s.body, pool);
            false
        });
        self.staging.order.len() < before
    }

    fn advance_staged<Q: Queue>(&mut self, at: usize, q: &mut Q, pool: &mut Pool) {
        let slot = self.staging.order[at];
        let mut s = self.staging.slots[slot].take().expect("ordered slots are in use");
        let over = s.failed.is_some() || s.done == s.extent.count;
        if !over && (s.started || !self.staging.overlaps_before(s.io.volume, &s.extent, at)) {
            s.started = true;
            for edge in 0..2 {
                if matches!(s.edges[edge], Edge::Wanted | Edge::InBatch) {
                    self.fetch_edge(&mut s, slot, edge, q, pool);
                }
            }
            if s.merged() && s.failed.is_none() {
                s.done = self.append_staged(&s.io, &s.extent, &s.body, s.done, q, pool);
                let short = s.done < s.extent.count && self.cleaner.stuck && self.log.needs_segment(Stream::Hot);
                if short {
                    self.counters.capacity_exceeded += 1;
                    s.failed = Some(Status::CapacityExceeded);
                }
            }
        }
        self.staging.slots[slot] = Some(s);
    }

    /// Finds the old content of an edge block: in a batch under way, in the index, or nowhere.
    fn fetch_edge<Q: Queue>(&mut self, s: &mut Staged, slot: usize, edge: usize, q: &mut Q, pool: &mut Pool) {
        let block = edge_block(&s.extent, edge);
        let Some(volume) = self.index.slot(s.io.volume) else {
            s.failed = Some(Status::Gone);
            return;
        };
        let newest = if self.rules.breaks(Planted::RmwIgnoresInflight) {
            Newest::None
        } else {
            self.log.newest(s.io.volume, block)
        };
        match newest {
            Newest::Zero => merge(s, edge, None),
            Newest::Here(batch, at) => merge(s, edge, Some(self.log.payload(batch, at))),
            Newest::Away => s.edges[edge] = Edge::InBatch,
            Newest::None => match self.index.entry(volume, block) {
                Entry::NONE => merge(s, edge, None),
                entry if !entry.addr.is_place() => s.failed = Some(Status::MediaError),
                entry => {
                    let Some(mut buf) = pool.get(BLOCK) else { return };
                    match q.read_now(self.port.byte(entry.addr.0), &mut buf) {
                        Some(result) => {
                            self.merge_read(s, edge, entry, result, &buf);
                            pool.put(buf);
                        }
                        None => {
                            s.edges[edge] = Edge::Reading(entry);
                            self.port.read(entry.addr.0, BLOCK, buf, 0, Purpose::Edge(slot * 2 + edge), q);
                        }
                    }
                }
            },
        }
    }

    /// The old content of an edge was read by `entry`.
    fn merge_read(&mut self, s: &mut Staged, edge: usize, entry: Entry, result: Result<(), DeviceError>, old: &[u8]) {
        if result.is_ok() && crc32c(old) == entry.crc {
            merge(s, edge, Some(old));
            return;
        }
        let block = edge_block(&s.extent, edge);
        let now = self.index.slot(s.io.volume).map_or(Entry::NONE, |v| self.index.entry(v, block));
        s.rereads += 1;
        if now != entry || s.rereads < 3 {
            // Cleaning moved it meanwhile, or the medium may do better next time.
            s.edges[edge] = Edge::Wanted;
            return;
        }
        self.counters.read_error(result.is_ok());
        s.edges[edge] = Edge::Merged;
        s.failed = Some(Status::MediaError);
    }

    /// A read of old content has ended.
    pub(super) fn edge_done<Q: Queue>(&mut self, token: usize, done: Done, q: &mut Q, pool: &mut Pool) {
        let (slot, edge) = (token / 2, token % 2);
        let buf = done.buf.expect("a read brings its buffer back");
        let Some(mut s) = self.staging.slots[slot].take() else {
            pool.put(buf);
            return;
        };
        let Edge::Reading(entry) = s.edges[edge] else { panic!("an edge is read once at a time") };
        self.merge_read(&mut s, edge, entry, done.result, &buf);
        pool.put(buf);
        self.staging.slots[slot] = Some(s);
        if done.result == Err(DeviceError::Dead) {
            let error = StoreError::Device { op: "read", offset: 0, error: DeviceError::Dead };
            self.die(error, pool);
            return;
        }
        self.step_staging(q, pool);
    }
}

fn edge_block(extent: &Extent, edge: usize) -> u64 {
    if edge == 0 { extent.first } else { extent.first + u64::from(extent.count) - 1 }
}

/// Puts the old content (zeroes when `None`) around what the request writes into an edge block.
fn merge(s: &mut Staged, edge: usize, old: Option<&[u8]>) {
    let extent = s.extent;
    let head = if edge == 0 { extent.head as usize } else { 0 };
    let is_last = edge == 1 || extent.count == 1;
    let tail = if is_last { extent.tail as usize } else { BLOCK };
    if let Body::Zeroes { kept, .. } = &mut s.body {
        kept[edge] = old.is_some();
    }
    let block = s.body.edge(edge, &extent);
    match old {
        Some(old) => {
            block[..head].copy_from_slice(&old[..head]);
            block[tail..].copy_from_slice(&old[tail..]);
        }
        None => {
            block[..head].fill(0);
            block[tail..].fill(0);
        }
    }
    s.edges[edge] = Edge::Merged;
}
