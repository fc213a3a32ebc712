//! Request slots of one queue: a flat table allocated at Connect, handed out last in first out, so that a queue at depth
//! d touches only the first d of them. A slot is occupied only by a command that outlives the parse loop; its index is
//! the low part of the tag given to the volumes and of the TTAG of an R2T.

use crate::base::{Time, VolumeId};
use crate::mem::Buf;
use crate::volume::{Kind, Request};

/// What a command in a slot waits for.
///
/// ```text
///   Free ──> Buffer ──> Data ──> Queued ──> Volume ──> Free      write by R2T
///     ├────────────────> Data ──> Queued ──> Volume ──> Free      large in-capsule data
///     ├────────────────────────> Queued ──> Volume ──> Free      request the volumes have no room for
///     ├──────────────────────────────────> Volume ──> Free      request that does not end at once
///     └──> Held ──> Free                       Asynchronous Event Request, Abort sent to another core
/// ```
/// `Queued` is skipped when the volumes take the request at once, and entered again from `Volume` by a Dataset
/// Management command whose later ranges have to wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    /// Nobody's.
    Free,
    /// A buffer for data from the host, which is not asked for before there is one.
    Buffer,
    /// Data from the host.
    Data,
    /// A turn in which the volumes have room.
    Queued,
    /// The volumes.
    Volume,
    /// An event, or another core.
    Held,
}

/// One command under way.
#[derive(Debug)]
pub(super) struct Slot {
    /// The request as it is given to the volumes.
    pub request: Request,
    /// Payload from the host, or the ranges of a Dataset Management command.
    pub buf: Option<Buf>,
    /// Bytes of data that the command uses.
    pub bytes: u32,
    /// Bytes of data that come from the host; once they are here, for Dataset Management, number of ranges.
    pub len: u32,
    /// Bytes of data that have come; for Dataset Management, ranges given to the volumes.
    pub got: u32,
    /// When it was given to the volumes.
    pub since: Time,
    /// CID.
    pub cid: u16,
    /// Requests in the volumes.
    pub pending: u16,
    /// Status word so far.
    pub status: u16,
    /// What it waits for.
    pub stage: Stage,
    /// Distinguishes successive uses of the slot in TTAGs.
    pub lap: u8,
    /// An R2T was sent: data comes in H2CData PDUs.
    pub solicited: bool,
    /// The data is a list of ranges.
    pub ranges: bool,
}

impl Slot {
    /// TTAG of the slot's R2T: the slot in bits 9:0 and a part of its lap, so that a late H2CData does not hit the
    /// slot's next command.
    pub fn ttag(&self, index: u16) -> u16 {
        index | u16::from(self.lap & 0x3f) << 10
    }

    /// True when this slot sent an R2T with this TTAG and its data has not all come.
    pub fn awaits(&self, ttag: u16) -> bool {
        self.stage == Stage::Data && self.solicited && u16::from(self.lap & 0x3f) == ttag >> 10
    }
}

/// The slots of one queue.
#[derive(Debug)]
pub(super) struct Slots {
    all: Box<[Slot]>,
    /// Free indices; the last is used next.
    free: Vec<u16>,
    /// CID of each occupied slot; [`NO_CID`] for free ones. One dense array, so that looking for a duplicate costs a
    /// handful of vector compares.
    cids: Box<[u32]>,
    /// One past the highest index occupied since the queue was last empty.
    high: usize,
}

const NO_CID: u32 = u32::MAX;

impl Slots {
    /// A table of `depth` slots; 0 for a connection without a queue.
    pub fn new(depth: u16) -> Slots {
        let idle = Request { volume: VolumeId(0), kind: Kind::Flush, lba: 0, blocks: 0, fua: false, tag: 0 };
        let slot = |_| Slot {
            request: idle,
            buf: None,
            bytes: 0,
            len: 0,
            got: 0,
            since: Time(0),
            cid: 0,
            pending: 0,
            status: 0,
            stage: Stage::Free,
            lap: 0,
            solicited: false,
            ranges: false,
        };
        Slots {
            all: (0..depth).map(slot).collect(),
            free: (0..depth).rev().collect(),
            cids: vec![NO_CID; usize::from(depth)].into_boxed_slice(),
            high: 0,
        }
    }

    /// The slot that [`Slots::occupy`] takes next; `None` when the queue is full.
    #[inline]
    pub fn peek(&self) -> Option<u16> {
        self.free.last().copied()
    }

    /// Takes the slot that [`Slots::peek`] named.
    pub fn occupy(&mut self, cid: u16, stage: Stage, request: Request) -> &mut Slot {
        let index = self.free.pop().expect("peek named a free slot");
        let at = usize::from(index);
        self.cids[at] = u32::from(cid);
        self.high = self.high.max(at + 1);
        let slot = &mut self.all[at];
        assert_eq!(slot.stage, Stage::Free, "a free slot is free");
        assert!(slot.buf.is_none() && stage != Stage::Free, "a slot is given back empty");
        (slot.stage, slot.cid, slot.request) = (stage, cid, request);
        (slot.bytes, slot.len, slot.got, slot.pending, slot.status) = (0, 0, 0, 0, 0);
        (slot.solicited, slot.ranges) = (false, false);
        slot.lap = slot.lap.wrapping_add(1);
        slot
    }

    /// Gives a slot back; its buffer has been taken out.
    pub fn free(&mut self, index: u16) {
        let slot = &mut self.all[usize::from(index)];
        assert_ne!(slot.stage, Stage::Free, "a slot is freed once");
        assert!(slot.buf.is_none(), "a slot is freed empty");
        slot.stage = Stage::Free;
        self.cids[usize::from(index)] = NO_CID;
        self.free.push(index);
        if self.free.len() == self.all.len() {
            self.high = 0;
        }
    }

    /// An occupied slot.
    pub fn get(&mut self, index: u16) -> Option<&mut Slot> {
        self.all.get_mut(usize::from(index)).filter(|s| s.stage != Stage::Free)
    }

    /// The slot of an outstanding command.
    pub fn find(&self, cid: u16) -> Option<u16> {
        self.cids[..self.high].iter().position(|c| *c == u32::from(cid)).map(|i| i as u16)
    }

    /// True when a command with this CID is outstanding.
    #[inline]
    pub fn has(&self, cid: u16) -> bool {
        self.high != 0 && self.find(cid).is_some()
    }

    /// Occupied slots.
    pub fn live(&self) -> usize {
        self.all.len() - self.free.len()
    }

    /// Every occupied slot.
    pub fn iter(&self) -> impl Iterator<Item = &Slot> {
        self.all[..self.high].iter().filter(|s| s.stage != Stage::Free)
    }

    /// Every occupied slot, with its index.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (u16, &mut Slot)> {
        let high = self.high;
        let slots = self.all[..high].iter_mut().enumerate();
        slots.map(|(i, s)| (i as u16, s)).filter(|(_, s)| s.stage != Stage::Free)
    }
}

/// The name of a request towards the volumes: bits 11:0 slot, 24:12 connection, 55:25 generation of the connection. The
/// top byte is 0, free for whoever routes completions of more than one target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Tag(pub u64);

impl Tag {
    /// Tag of slot 0 of a connection; add the slot.
    pub fn base(conn: crate::net::ConnId) -> u64 {
        assert!(conn.slot < 1 << 13, "net slots are below CONNS_PER_CORE");
        u64::from(conn.slot) << 12 | u64::from(conn.generation & 0x7fff_ffff) << 25
    }
    /// The slot.
    pub fn slot(self) -> u16 {
        (self.0 & 0xfff) as u16
    }
    /// The connection's place.
    pub fn conn(self) -> u32 {
        (self.0 >> 12) as u32 & 0x1fff
    }
    /// Its generation, 31 bits.
    pub fn generation(self) -> u32 {
        (self.0 >> 25) as u32 & 0x7fff_ffff
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::ConnId;

    fn request() -> Request {
        Request { volume: VolumeId(1), kind: Kind::Read, lba: 0, blocks: 1, fua: false, tag: 0 }
    }

    #[test]
    fn slots_are_bounded_lifo_and_find_duplicates() {
        let mut s = Slots::new(3);
        for (i, cid) in [7u16, 0xffff, 9].into_iter().enumerate() {
            assert_eq!(s.peek(), Some(i as u16));
            assert!(!s.has(cid));
            s.occupy(cid, Stage::Volume, request());
            assert!(s.has(cid));
        }
        assert_eq!((s.peek(), s.live(), s.find(0xffff)), (None, 3, Some(1)));
        s.free(1);
        assert!(!s.has(0xffff) && s.get(1).is_none() && s.get(3).is_none());
        assert_eq!((s.peek(), s.live()), (Some(1), 2));
        assert_eq!(s.iter_mut().map(|(i, _)| i).collect::<Vec<_>>(), [0, 2]);
        s.free(0);
        s.free(2);
        assert_eq!((s.live(), s.high), (0, 0));
    }

    #[test]
    fn tags_name_slot_connection_and_generation() {
        let conn = ConnId { slot: 4095, generation: 0xffff_fffe };
        let tag = Tag(Tag::base(conn) + 1023);
        assert_eq!((tag.slot(), tag.conn(), tag.generation()), (1023, 4095, 0x7fff_fffe));
        assert_eq!(tag.0 >> 56, 0);
    }
}
