//! GET LBA STATUS (SBC-3, 5.4): which ranges are mapped. The volume tells one run at a time, and a bounded one; runs of
//! the same kind that touch become one descriptor.

use super::begin::{Begun, Stop, in_range};
use super::finish::failed_at;
use super::program::{Program, Run, access, io};
use super::{Begin, Cx, End, Event, Step};
use crate::mem::{Buf, Pool};
use crate::volume::Kind;
use crate::wire::scsi::{Cdb, Sense, asc, be32, be64};

const HEADER: usize = 8;
const DESCRIPTOR: usize = 16;
/// Descriptors of one answer.
const DESCRIPTORS_MAX: usize = 255;
/// Requests that one descriptor may take: the initiator asks again from where the answer ends. One that wants a single
/// descriptor gets it soon.
const LOOKS_PER_DESCRIPTOR: u32 = 512;
const LOOKS_ALONE: u32 = 32;

/// MAPPED and DEALLOCATED (PROVISIONING STATUS).
const MAPPED: u8 = 0;
const DEALLOCATED: u8 = 1;

/// Begins a GET LBA STATUS.
pub(super) fn get_lba_status(cx: &mut Cx<'_>, cdb: &Cdb) -> Begun {
    let (lba, allocation) = (be64(cdb, 2), be32(cdb, 10) as usize);
    in_range(cx.unit, lba, 0)?;
    if allocation < HEADER + DESCRIPTOR {
        return Err(Stop::Sense(Sense { sks: Sense::cdb_field(10).sks, ..Sense::illegal(asc::INVALID_FIELD_IN_CDB) }));
    }
    let room = (allocation - HEADER) / DESCRIPTOR;
    let room = room.min(DESCRIPTORS_MAX);
    let Some(mut buf) = cx.pool.get(HEADER + room * DESCRIPTOR) else { return Err(Stop::Later) };
    buf.fill(0);
    let looks = if room == 1 { LOOKS_ALONE } else { room as u32 * LOOKS_PER_DESCRIPTOR };
    let program = LbaStatus { out: Some(buf), room: room as u16, count: 0, lba, looks, run: None };
    Ok(Begin::Program(Program::new(program), 0))
}

/// A run that may still grow.
#[derive(Clone, Copy, Debug)]
struct Extent {
    mapped: bool,
    lba: u64,
    blocks: u64,
}

/// A GET LBA STATUS under way.
#[derive(Debug)]
pub(super) struct LbaStatus {
    out: Option<Buf>,
    /// Descriptors that there is room for, and that are written.
    room: u16,
    count: u16,
    /// Where to look next.
    lba: u64,
    looks: u32,
    run: Option<Extent>,
}

impl LbaStatus {
    fn next(&mut self, cx: &Cx<'_>) -> Step {
        let left = cx.unit.info.blocks.saturating_sub(self.lba);
        if left == 0 || self.looks == 0 || self.count == self.room {
            return self.end();
        }
        self.looks -= 1;
        access(cx, Kind::BlockStatus, self.lba, left.min(u64::from(u32::MAX)) as u32)
    }

    fn write(&mut self) {
        let Some(run) = self.run.take() else { return };
        let out = self.out.as_mut().expect("the answer is kept until the end");
        let at = HEADER + usize::from(self.count) * DESCRIPTOR;
        out[at..at + 8].copy_from_slice(&run.lba.to_be_bytes());
        out[at + 8..at + 12].copy_from_slice(&(run.blocks as u32).to_be_bytes());
        out[at + 12] = if run.mapped { MAPPED } else { DEALLOCATED };
        self.count += 1;
    }

    fn end(&mut self) -> Step {
        if self.count < self.room {
            self.write();
        }
        let mut out = self.out.take().expect("the answer is kept until the end");
        let len = HEADER + usize::from(self.count) * DESCRIPTOR;
        out[..4].copy_from_slice(&(len as u32 - 4).to_be_bytes());
        out.set_len(len);
        Step::End(End::data(out))
    }
}

impl Run for LbaStatus {
    fn start(&mut self, data: Option<Buf>, cx: &mut Cx<'_>) -> Step {
        cx.pool.put_all(data);
        self.next(cx)
    }

    fn resume(&mut self, event: Event, cx: &mut Cx<'_>) -> Step {
        let (status, detail, buf) = io(event);
        if !status.is_ok() {
            cx.pool.put_all(self.out.take());
            return Step::End(failed_at(cx, Kind::BlockStatus, status, detail, buf));
        }
        let found = detail.run();
        let left = cx.unit.info.blocks.saturating_sub(self.lba);
        let blocks = u64::from(found.len / cx.unit.info.block_size).min(left);
        if blocks == 0 {
            // The unit has become smaller.
            return self.end();
        }
        // A physical block of which any part is mapped is mapped: runs end where an initiator may ask on from.
        let (physical, all) = (u64::from(cx.unit.blocks_per_physical()), cx.unit.info.blocks);
        let to = self.lba + blocks;
        let whole = if to == all { all } else { to / physical * physical };
        let (mapped, to) = if !found.mapped && whole > self.lba {
            (false, whole)
        } else {
            (true, to.next_multiple_of(physical).min(all))
        };
        let blocks = to - self.lba;
        match &mut self.run {
            Some(run) if run.mapped == mapped && u32::try_from(run.blocks + blocks).is_ok() => {
                run.blocks += blocks;
            }
            _ => {
                self.write();
                self.run = Some(Extent { mapped, lba: self.lba, blocks });
            }
        }
        self.lba += blocks;
        self.next(cx)
    }

    fn cancel(self, pool: &mut Pool) {
        pool.put_all(self.out);
    }
}
