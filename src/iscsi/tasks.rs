//! Tasks of one connection: a flat table allocated when the login ends, handed out last in first out, so that a
//! connection at depth d touches only the first d places. A task is in it only when it outlives the parse loop; its place
//! is the low part of the tag given to the volumes and of the target transfer tags of its R2Ts.

use super::lu::{Event, Io, Program};
use crate::base::{Time, VolumeId};
use crate::mem::Buf;
use crate::wire::iscsi::NO_TAG;
use crate::wire::scsi::Sense;

/// What a task waits for.
///
/// ```text
///   Free ──> Buffer ──> Data ──> Ready ──> Volume ──> Free      write whose data is asked for
///     ├────────────────> Data ──> Ready ──> Volume ──> Free      write whose data comes unasked
///     ├───────────────────────────────────> Volume ──> Free      request that does not end at once
///     └──> Ready <──> Volume, Control ──> Free                    programs, step by step
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    /// Nobody's.
    Free,
    /// A buffer for data from the initiator, which is not asked for before there is one.
    Buffer,
    /// Data from the initiator.
    Data,
    /// A turn in which the volumes have room, or a program's next buffer is there.
    Ready,
    /// The volumes.
    Volume,
    /// The control plane, or the other cores.
    Control,
    /// Its program, which goes on by itself and outlives it ([`super::detached`]).
    Left,
}

/// What a task does.
#[derive(Debug)]
pub(super) enum Work {
    /// One block request.
    Io(Io),
    /// A program that has not started.
    Fresh(Program),
    /// A program under way, with the request that the volumes had no room for.
    Running(Program),
    /// Nothing: the command has failed, and its data is still coming.
    Failed,
}

/// Who asked, and how its answer is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Asked {
    /// Initiator Task Tag.
    pub itt: u32,
    /// Expected Data Transfer Length, bytes.
    pub expected: u32,
    /// The initiator takes data.
    pub read: bool,
    /// The initiator has data.
    pub write: bool,
    /// It was for immediate delivery: its end makes no room in the window.
    pub immediate: bool,
}

impl Asked {
    /// Bytes that the initiator takes.
    #[inline]
    pub fn room(&self) -> u32 {
        if self.read { self.expected } else { 0 }
    }
    /// Bytes that the initiator has.
    #[inline]
    pub fn offered(&self) -> u32 {
        if self.write { self.expected } else { 0 }
    }
}

/// How data from the initiator arrives.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Inflow {
    /// Where the part of the data that is being collected begins; all other places are relative to it.
    pub base: u32,
    /// R2Ts sent for the parts before it.
    pub r2ts_before: u32,
    /// Bytes that the task takes.
    pub need: u32,
    /// Bytes that have come, without a gap from the first.
    pub got: u32,
    /// Unsolicited Data-Out PDUs are still coming.
    pub unsolicited: bool,
    /// Where the unsolicited burst must end at the latest, bytes.
    pub burst_end: u32,
    /// Where the first R2T begins, bytes.
    pub asked_from: u32,
    /// R2Ts sent, which is the next R2TSN.
    pub r2ts: u32,
    /// Of them, those whose last data has come.
    pub answered: u32,
    /// `DataSN` of the next Data-Out.
    pub data_sn: u32,
}

/// Data that went to the initiator before the end of its command.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Outflow {
    /// Bytes sent.
    pub sent: u32,
    /// Data-In PDUs sent.
    pub pdus: u32,
    /// Bytes that the command has in all.
    pub total: u32,
}

/// One task under way.
#[derive(Debug)]
pub(super) struct Task {
    pub work: Work,
    /// What its program is told when it goes on; nothing said: to try again.
    pub next: Option<Event>,
    /// A request that the volumes had no room for: kind and payload as they are given to them.
    pub held: Option<(crate::volume::Request, Option<Buf>)>,
    /// Data from the initiator.
    pub buf: Option<Buf>,
    pub asked: Asked,
    pub inflow: Inflow,
    pub outflow: Outflow,
    /// Why it fails, once its data has come.
    pub fault: Option<Sense>,
    /// Bytes that its CDB says come from the initiator.
    pub wants: u32,
    /// Position among all tasks of the core.
    pub serial: u64,
    /// When its command came.
    pub came: Time,
    /// When it was given to the volumes.
    pub since: Time,
    /// The volume of its request under way.
    pub volume: VolumeId,
    /// Logical unit.
    pub lun: u16,
    pub stage: Stage,
    /// Task management has ended it: nobody gets an answer.
    pub aborted: bool,
    /// Distinguishes successive uses of the place in target transfer tags.
    lap: u16,
}

impl Task {
    /// Target transfer tag of R2T number `sn` of the task in place `index`: place in bits 11:0, a part of the lap, and of
    /// the number, so that late data does not hit the place's next task.
    pub fn ttt(&self, index: u16, sn: u32) -> u32 {
        u32::from(index) | u32::from(self.lap & 0xfff) << 12 | (sn & 0x7f) << 24
    }
}

/// The tasks of one connection.
#[derive(Debug)]
pub(super) struct Tasks {
    all: Box<[Task]>,
    /// Free places; the last is used next.
    free: Vec<u16>,
    /// Initiator task tag of each task; [`NO_TAG`] for free places. One dense array: a duplicate is found by a handful of
    /// vector compares.
    itts: Box<[u32]>,
    /// One past the highest place taken since the table was last empty.
    high: usize,
    /// Tasks of commands for immediate delivery.
    immediates: u16,
}

impl Tasks {
    /// A table of `depth` places; 0 for a connection that is not logged in.
    pub fn new(depth: u16) -> Tasks {
        let asked = Asked { itt: NO_TAG, expected: 0, read: false, write: false, immediate: false };
        let task = |_| Task {
            work: Work::Failed,
            held: None,
            next: None,
            buf: None,
            asked,
            inflow: Inflow::default(),
            outflow: Outflow::default(),
            fault: None,
            wants: 0,
            serial: 0,
            came: Time(0),
            since: Time(0),
            volume: VolumeId(0),
            lun: 0,
            stage: Stage::Free,
            aborted: false,
            lap: 0,
        };
        Tasks {
            all: (0..depth).map(task).collect(),
            free: (0..depth).rev().collect(),
            itts: vec![NO_TAG; usize::from(depth)].into_boxed_slice(),
            high: 0,
            immediates: 0,
        }
    }

    /// Places in all.
    pub fn depth(&self) -> usize {
        self.all.len()
    }

    /// The place that [`Tasks::occupy`] takes next; `None` when the table is full.
    #[inline]
    pub fn peek(&self) -> Option<u16> {
        self.free.last().copied()
    }

    /// Takes the place that [`Tasks::peek`] named.
    pub fn occupy(&mut self, asked: Asked, lun: u16, serial: u64, work: Work) -> &mut Task {
        let index = self.free.pop().expect("peek named a free place");
        let at = usize::from(index);
        self.itts[at] = asked.itt;
        self.immediates += u16::from(asked.immediate);
        self.high = self.high.max(at + 1);
        let task = &mut self.all[at];
        assert_eq!(task.stage, Stage::Free, "a free place is free");
        assert!(task.buf.is_none() && task.held.is_none(), "a place is given back empty");
        (task.work, task.asked, task.lun, task.serial) = (work, asked, lun, serial);
        (task.inflow, task.fault, task.wants, task.aborted) = (Inflow::default(), None, 0, false);
        task.outflow = Outflow::default();
        task.stage = Stage::Ready;
        task.lap = task.lap.wrapping_add(1);
        task
    }

    /// Gives a place back; its buffers have been taken out. Returns what the task did.
    pub fn free(&mut self, index: u16) -> Work {
        let task = &mut self.all[usize::from(index)];
        assert_ne!(task.stage, Stage::Free, "a place is freed once");
        assert!(task.buf.is_none() && task.held.is_none(), "a place is freed empty");
        task.stage = Stage::Free;
        self.immediates -= u16::from(task.asked.immediate);
        self.itts[usize::from(index)] = NO_TAG;
        self.free.push(index);
        if self.free.len() == self.all.len() {
            self.high = 0;
        }
        core::mem::replace(&mut self.all[usize::from(index)].work, Work::Failed)
    }

    /// A task.
    #[inline]
    pub fn get(&mut self, index: u16) -> Option<&mut Task> {
        self.all.get_mut(usize::from(index)).filter(|t| t.stage != Stage::Free)
    }

    /// A task that is known to be there.
    #[inline]
    pub fn at(&mut self, index: u16) -> &mut Task {
        self.get(index).expect("a task keeps its place until it ends")
    }

    /// The task that data with this target transfer tag belongs to.
    pub fn by_ttt(&mut self, ttt: u32) -> Option<u16> {
        let index = (ttt & 0xfff) as u16;
        let task = self.get(index)?;
        let known = task.ttt(index, ttt >> 24) == ttt && task.stage == Stage::Data;
        known.then_some(index)
    }

    /// The place of the task with this initiator task tag that has not been aborted.
    pub fn find(&self, itt: u32) -> Option<u16> {
        let known = self.itts[..self.high].iter().zip(&self.all).position(|(i, t)| *i == itt && !t.aborted);
        known.map(|i| i as u16)
    }

    /// True when a task with this initiator task tag is under way.
    #[inline]
    pub fn has(&self, itt: u32) -> bool {
        self.high != 0 && self.itts[..self.high].contains(&itt)
    }

    /// Tasks under way of commands for immediate delivery.
    pub fn immediates(&self) -> u16 {
        self.immediates
    }

    /// Tasks under way.
    pub fn live(&self) -> usize {
        self.all.len() - self.free.len()
    }

    /// Every task.
    pub fn iter(&self) -> impl Iterator<Item = &Task> {
        self.all[..self.high].iter().filter(|t| t.stage != Stage::Free)
    }

    /// The places of all tasks for which `which` is true.
    pub fn places(&self, which: impl Fn(&Task) -> bool) -> Vec<u16> {
        let all = self.all[..self.high].iter().enumerate();
        all.filter(|(_, t)| t.stage != Stage::Free && which(t)).map(|(i, _)| i as u16).collect()
    }
}

/// The name of a request towards the volumes: bits 11:0 task, 24:12 connection, 55:25 generation of the connection. The
/// top byte is 1, which tells this target's requests from those of the other one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Tag(pub u64);

impl Tag {
    /// Bits 63:56 of every task's tag.
    pub const TARGET: u64 = 1;
    /// The same for programs that have left their task.
    pub const DETACHED: u64 = 2;

    /// Tag of task 0 of a connection; add the task's place.
    pub fn base(conn: crate::net::ConnId) -> u64 {
        assert!(conn.slot < 1 << 13, "net slots are below CONNS_PER_CORE");
        Tag::TARGET << 56 | u64::from(conn.slot) << 12 | u64::from(conn.generation & 0x7fff_ffff) << 25
    }
    /// The task's place.
    pub fn task(self) -> u16 {
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

    fn asked(itt: u32) -> Asked {
        Asked { itt, expected: 0, read: false, write: false, immediate: false }
    }

    #[test]
    fn places_are_bounded_lifo_and_find_duplicates() {
        let mut t = Tasks::new(3);
        for (i, itt) in [7u32, 0xffff_fffe, 9].into_iter().enumerate() {
            assert_eq!(t.peek(), Some(i as u16));
            assert!(!t.has(itt));
            t.occupy(asked(itt), 0, i as u64, Work::Failed);
            assert!(t.has(itt));
        }
        assert_eq!((t.peek(), t.live(), t.find(0xffff_fffe)), (None, 3, Some(1)));
        t.at(1).aborted = true;
        assert_eq!((t.find(0xffff_fffe), t.has(0xffff_fffe)), (None, true));
        t.free(1);
        assert!(!t.has(0xffff_fffe) && t.get(1).is_none() && t.get(3).is_none());
        assert_eq!((t.peek(), t.live(), t.places(|_| true)), (Some(1), 2, vec![0, 2]));
        t.free(0);
        t.free(2);
        assert_eq!((t.live(), t.high), (0, 0));
    }

    #[test]
    fn transfer_tags_tell_uses_and_bursts_apart() {
        let mut t = Tasks::new(2);
        t.occupy(asked(1), 0, 0, Work::Failed).stage = Stage::Data;
        let old = t.at(0).ttt(0, 3);
        assert_eq!(t.by_ttt(old), Some(0));
        t.free(0);
        assert_eq!(t.by_ttt(old), None);
        t.occupy(asked(2), 0, 0, Work::Failed).stage = Stage::Data;
        assert_eq!(t.by_ttt(old), None);
        assert_ne!(t.at(0).ttt(0, 0x7f), NO_TAG);
        assert_eq!((t.by_ttt(1), t.by_ttt(NO_TAG)), (None, None));
    }

    #[test]
    fn tags_name_task_connection_generation_and_target() {
        let conn = ConnId { slot: 4095, generation: 0xffff_fffe };
        let tag = Tag(Tag::base(conn) + 1039);
        assert_eq!((tag.task(), tag.conn(), tag.generation()), (1039, 4095, 0x7fff_fffe));
        assert_eq!(tag.0 >> 56, 1);
    }
}
