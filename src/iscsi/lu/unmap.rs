//! UNMAP (SBC-3, 5.28): gives ranges back. Every range is checked before the first is touched.

use super::begin::{Begun, check, writable};
use super::finish::{SHORT_DATA, failed_at};
use super::inquiry::UNMAP_DESCRIPTORS_MAX;
use super::program::{Program, Run, access, io};
use super::{Begin, Cx, End, Event, Step};
use crate::mem::{Buf, Pool};
use crate::volume::Kind;
use crate::wire::scsi::{Cdb, Sense, asc, be16, be32, be64};

const HEADER: usize = 8;
const DESCRIPTOR: usize = 16;
/// Bytes that one request gives back: a long range ends soon when the command is aborted.
const PIECE_BYTES: u64 = 256 << 20;

/// Begins an UNMAP.
pub(super) fn unmap(cx: &Cx<'_>, cdb: &Cdb) -> Begun {
    // There are no anchored blocks (ANC_SUP is 0).
    if cdb[1] & 1 != 0 {
        return Err(Sense::cdb_field(1).into());
    }
    writable(cx)?;
    let len = be16(cdb, 7);
    if len == 0 {
        return Ok(Begin::End(End::GOOD));
    }
    if usize::from(len) < HEADER || usize::from(len) > HEADER + DESCRIPTOR * UNMAP_DESCRIPTORS_MAX as usize {
        return Err(Sense::illegal(asc::PARAMETER_LIST_LENGTH).into());
    }
    Ok(Begin::Program(Program::new(Unmap { list: None, at: 0, end: 0, lba: 0, left: 0 }), u32::from(len)))
}

/// An UNMAP under way.
#[derive(Debug)]
pub(super) struct Unmap {
    list: Option<Buf>,
    /// The next descriptor, and their end, as bytes of the list.
    at: usize,
    end: usize,
    /// What is left of the current one.
    lba: u64,
    left: u64,
}

/// The descriptors of a list, as bytes of it: those that are whole.
fn descriptors(list: &[u8]) -> Result<usize, Sense> {
    let header = list.get(..HEADER).ok_or(SHORT_DATA)?;
    let len = usize::from(be16(header, 2));
    if len % DESCRIPTOR != 0 {
        return Err(Sense::parameter_field(2));
    }
    if list.len() - HEADER < len {
        return Err(Sense::illegal(asc::PARAMETER_LIST_LENGTH));
    }
    Ok(HEADER + len)
}

impl Unmap {
    fn next(&mut self, cx: &mut Cx<'_>) -> Step {
        let list = self.list.as_ref().expect("the list is kept until the end");
        while self.left == 0 {
            if self.at == self.end {
                cx.pool.put_all(self.list.take());
                return Step::End(End::GOOD);
            }
            (self.lba, self.left) = (be64(list, self.at), u64::from(be32(list, self.at + 8)));
            self.at += DESCRIPTOR;
        }
        let blocks = self.left.min(PIECE_BYTES / u64::from(cx.unit.info.block_size)) as u32;
        let step = access(cx, Kind::Deallocate, self.lba, blocks);
        self.lba += u64::from(blocks);
        self.left -= u64::from(blocks);
        step
    }

    fn prove(&mut self, cx: &Cx<'_>) -> Result<(), Sense> {
        let list = self.list.as_deref().unwrap_or_default();
        (self.at, self.end) = (HEADER, descriptors(list)?);
        for at in (HEADER..self.end).step_by(DESCRIPTOR) {
            let end = be64(list, at).checked_add(u64::from(be32(list, at + 8)));
            if end.is_none_or(|end| end > cx.unit.info.blocks) {
                return Err(Sense::illegal(asc::LBA_OUT_OF_RANGE));
            }
        }
        Ok(())
    }
}

impl Run for Unmap {
    fn start(&mut self, data: Option<Buf>, cx: &mut Cx<'_>) -> Step {
        self.list = data;
        if let Err(sense) = self.prove(cx) {
            cx.pool.put_all(self.list.take());
            return Step::End(check(cx, sense));
        }
        self.next(cx)
    }

    fn resume(&mut self, event: Event, cx: &mut Cx<'_>) -> Step {
        let (status, detail, buf) = io(event);
        if !status.is_ok() {
            cx.pool.put_all(self.list.take());
            return Step::End(failed_at(cx, Kind::Deallocate, status, detail, buf));
        }
        self.next(cx)
    }

    fn cancel(self, pool: &mut Pool) {
        pool.put_all(self.list);
    }
}
