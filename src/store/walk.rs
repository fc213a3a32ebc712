//! Walking a sealed segment: batch by batch, listing what in it is live by the index. The cleaner moves what it sees,
//! the scrubber verifies it.

use super::device_ops::Port;
use super::format::batch::{Kind, Record, Stamp};
use super::format::{Addr, Geometry, Header, LogId, SegmentId};
use super::index::Index;
use super::token::Purpose;
use super::window::{View, Window};
use crate::base::{BLOCK, CHUNK_BLOCKS, VolumeId};
use crate::device::Queue;
use crate::mem::Pool;

/// Blocks read at once on devices that are not memory.
const WINDOW_BLOCKS: u32 = 64;

/// Times a header is read again before it counts as damaged.
const REREADS: u8 = 2;

/// Something live in the segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Live {
    /// `Data` for a block of a volume; `Leaf` or `Dir` for a page of the durable checkpoint.
    pub kind: Kind,
    pub volume: VolumeId,
    /// Block, chunk or directory page.
    pub first: u64,
    pub addr: Addr,
    /// CRC32C by the index.
    pub crc: u32,
    pub stamp: Stamp,
}

impl Live {
    /// True when `next` goes on where this one ends, in the volume and on the medium.
    fn continues(&self, next: &Live) -> bool {
        next.kind == Kind::Data
            && next.volume == self.volume
            && next.first == self.first + 1
            && next.addr == self.addr.plus(1)
            && next.stamp == self.stamp
    }
}

/// What a step of a walk came to.
pub(super) enum Step {
    /// [`Walk::pending`] is not empty.
    Ready,
    /// A window is being read, or no buffer is free.
    Later,
    /// The segment is done.
    Ended,
    /// A header is damaged; what follows in the segment can not be told.
    Damaged,
}

/// A walk through one segment.
pub(super) struct Walk {
    pub segment: SegmentId,
    /// Where the next header is, from the start of the segment.
    offset: u32,
    pub window: Window,
    purpose: Purpose,
    pending: Vec<Live>,
    done: usize,
    rereads: u8,
}

impl Walk {
    pub fn new(segment: SegmentId, purpose: Purpose) -> Walk {
        let pending = Vec::with_capacity(super::format::batch::PAYLOAD_MAX as usize);
        Walk { segment, offset: 0, window: Window::new(), purpose, pending, done: 0, rereads: 0 }
    }

    /// Starts over in another segment, with the same buffers.
    pub fn restart(&mut self, segment: SegmentId) {
        (self.segment, self.offset, self.done, self.rereads) = (segment, 0, 0, 0);
        self.pending.clear();
    }

    /// What is live in the current batch and not yet taken.
    pub fn pending(&self) -> &[Live] {
        &self.pending[self.done..]
    }
    /// The first `n` pending ones are dealt with.
    pub fn taken(&mut self, n: usize) {
        self.done += n;
        assert!(self.done <= self.pending.len(), "no more was taken than there was");
    }
    /// Length of the first run: pending blocks that follow each other in the volume and on the medium.
    pub fn run(&self) -> usize {
        let p = self.pending();
        1 + p.windows(2).take_while(|w| w[0].continues(&w[1])).count()
    }

    /// Finds the next batch with something live.
    pub fn step<Q: Queue>(
        &mut self,
        id: &LogId,
        geometry: Geometry,
        index: &Index,
        port: &mut Port,
        q: &mut Q,
        pool: &mut Pool,
    ) -> Step {
        while self.pending().is_empty() {
            if geometry.segment_blocks - self.offset < 2 {
                return Step::Ended;
            }
            let addr = geometry.start(self.segment).plus(self.offset);
            let header = match self.show(addr, 1, geometry, port, q, pool) {
                View::Here => Header::decode(self.window.block(addr), id, addr).ok(),
                View::Failed(_) => None,
                View::Empty | View::Flying => return Step::Later,
            };
            let Some(header) = header.filter(|h| h.blocks() <= geometry.segment_blocks - self.offset) else {
                if self.rereads == REREADS {
                    return Step::Damaged;
                }
                self.rereads += 1;
                self.window.forget();
                continue;
            };
            self.rereads = 0;
            let block = self.window.block(addr);
            self.pending.clear();
            self.done = 0;
            for record in header.records(block) {
                list_live(&record, addr.plus(1), index, &mut self.pending);
            }
            self.offset += header.blocks();
        }
        Step::Ready
    }

    /// Makes the window show `blocks` blocks from `addr` on, if it can.
    pub fn show<Q: Queue>(
        &mut self,
        addr: Addr,
        blocks: u32,
        geometry: Geometry,
        port: &mut Port,
        q: &mut Q,
        pool: &mut Pool,
    ) -> View {
        if self.window.view() == View::Flying {
            return View::Flying;
        }
        let last = addr.plus(blocks - 1);
        if !(self.window.covers(addr) && self.window.covers(last)) {
            let want = if port.memory { blocks } else { WINDOW_BLOCKS.max(blocks) };
            let want = want.min(geometry.room(addr)).min(q.caps().io_bytes_max / BLOCK as u32);
            if !self.window.read(addr, want.max(1), self.purpose, port, q, pool) {
                return View::Empty;
            }
        }
        self.window.view()
    }

    /// The window's content is no longer wanted: the next look reads anew.
    pub fn forget(&mut self, pool: &mut Pool) {
        self.window.release(pool);
    }
}

fn list_live(record: &Record<'_>, base: Addr, index: &Index, out: &mut Vec<Live>) {
    let Some(slot) = index.slot(record.volume) else { return };
    let at = base.plus(record.payload_at);
    let (volume, stamp) = (record.volume, record.stamp);
    match record.kind {
        Kind::Data | Kind::Move => {
            for i in 0..record.count {
                let (first, addr) = (record.first + u64::from(i), at.plus(i));
                let entry = index.entry(slot, first);
                if entry.addr == addr {
                    out.push(Live { kind: Kind::Data, volume, first, addr, crc: entry.crc, stamp });
                }
            }
        }
        Kind::Leaf => {
            let (number, chunk) = ((record.first / CHUNK_BLOCKS) as usize, (record.first % CHUNK_BLOCKS) as usize);
            let page = index.dir(slot, number).map(|d| d.pages[chunk].newest());
            if let Some(page) = page.filter(|p| p.addr == at) {
                out.push(Live { kind: Kind::Leaf, volume, first: record.first, addr: at, crc: page.crc, stamp });
            }
        }
        Kind::Dir => {
            let page = index.dir(slot, record.first as usize).map(|d| d.own.newest());
            if let Some(page) = page.filter(|p| p.addr == at) {
                out.push(Live { kind: Kind::Dir, volume, first: record.first, addr: at, crc: page.crc, stamp });
            }
        }
        Kind::Zero | Kind::Lost | Kind::VolumeSet | Kind::VolumeDelete | Kind::Manifest => {}
    }
}
