//! Commands that are one step against all others: COMPARE AND WRITE (SBC-3, 5.2), ORWRITE(16) (SBC-3, 5.6), and
//! WRITE ATOMIC(16) (SBC-4, 5.48).

use super::begin::{Begun, check, in_range, range, writable};
use super::finish::{SHORT_DATA, failed_at};
use super::long::{more, offered_blocks};
use super::program::{Program, Run, access, io};
use super::{Begin, Cx, End, Event, Io, Step, Unit};
use crate::base::Status;
use crate::mem::{Buf, Pool};
use crate::volume::Kind;
use crate::wire::scsi::{Cdb, Sense, asc, be16, be64};

/// COMPARE AND WRITE.
pub(super) fn compare_and_write(cx: &Cx<'_>, cdb: &Cdb) -> Begun {
    let (flags, lba, blocks) = (cdb[1], be64(cdb, 2), u32::from(cdb[13]));
    range(cx, flags, lba, blocks)?;
    writable(cx)?;
    if blocks > u32::from(cx.unit.info.compare_write_blocks()) {
        return Err(Sense::cdb_field(13).into());
    }
    if blocks == 0 {
        // Data for none: a count that the byte could not hold.
        let excess = cx.data_out.is_some_and(|n| n > 0);
        return if excess { Err(Sense::cdb_field(13).into()) } else { Ok(Begin::End(End::GOOD)) };
    }
    let bytes = 2 * blocks * cx.unit.info.block_size;
    if cx.data_out.is_some_and(|n| n != bytes) {
        return Err(SHORT_DATA.into());
    }
    let fua = flags & 0x08 != 0;
    Ok(Begin::Program(Program::new(CompareWrite { lba, blocks, fua }), bytes))
}

/// One compare-write of the volume.
#[derive(Debug)]
pub(super) struct CompareWrite {
    lba: u64,
    blocks: u32,
    fua: bool,
}

impl Run for CompareWrite {
    fn start(&mut self, data: Option<Buf>, cx: &mut Cx<'_>) -> Step {
        let want = 2 * self.blocks * cx.unit.info.block_size;
        if data.as_ref().is_none_or(|b| b.len() != want as usize) {
            cx.pool.put_all(data);
            return Step::End(check(cx, SHORT_DATA));
        }
        let CompareWrite { lba, blocks, fua } = *self;
        Step::Io { volume: cx.unit.volume(), kind: Kind::CompareWrite, lba, blocks, fua, payload: data }
    }

    fn resume(&mut self, event: Event, cx: &mut Cx<'_>) -> Step {
        let (status, detail, buf) = io(event);
        if status.is_ok() {
            return Step::End(End::GOOD);
        }
        Step::End(failed_at(cx, Kind::CompareWrite, status, detail, buf))
    }

    fn cancel(self, _: &mut Pool) {}
}

/// ORWRITE(16).
pub(super) fn or_write(cx: &Cx<'_>, flags: u8, (lba, blocks): (u64, u32)) -> Begun {
    let bytes = range(cx, flags, lba, blocks)?;
    writable(cx)?;
    if bytes == 0 {
        return Ok(Begin::End(End::GOOD));
    }
    let fua = flags & 0x08 != 0;
    let left = offered_blocks(cx, blocks);
    Ok(Begin::Program(Program::new(OrWrite { lba, left, fua, data: None, at: 0 }), bytes))
}

/// Piece by piece: read, then compare-write with what the OR makes of it, until nobody wrote in between.
#[derive(Debug)]
pub(super) struct OrWrite {
    /// Where the data that is here begins.
    lba: u64,
    /// Blocks from there on: an initiator that announced less than the CDB asks for gets the whole blocks of it done.
    left: u32,
    fua: bool,
    data: Option<Buf>,
    /// Bytes of it that are done.
    at: usize,
}

impl OrWrite {
    /// Bytes of the next piece.
    fn piece(&self, cx: &Cx<'_>) -> usize {
        let info = &cx.unit.info;
        let left = self.data.as_ref().map_or(0, |d| d.len()) - self.at;
        left.min(usize::from(info.compare_write_blocks()) * info.block_size as usize)
    }

    fn read(&mut self, cx: &mut Cx<'_>) -> Step {
        let (bytes, size) = (self.piece(cx), cx.unit.info.block_size as usize);
        if bytes == 0 {
            cx.pool.put_all(self.data.take());
            let did = (self.at / size) as u32;
            (self.lba, self.left, self.at) = (self.lba + u64::from(did), self.left - did, 0);
            return if did == 0 { Step::End(End::GOOD) } else { more(cx, self.left) };
        }
        access(cx, Kind::Read, self.lba + (self.at / size) as u64, (bytes / size) as u32)
    }
}

impl OrWrite {
    /// Data is there.
    fn take(&mut self, data: Option<Buf>, cx: &mut Cx<'_>) -> Step {
        let size = cx.unit.info.block_size as usize;
        self.data = data.map(|mut b| {
            b.set_len((b.len() / size).min(self.left as usize) * size);
            b
        });
        self.read(cx)
    }
}

impl Run for OrWrite {
    fn start(&mut self, data: Option<Buf>, cx: &mut Cx<'_>) -> Step {
        self.take(data, cx)
    }

    fn resume(&mut self, event: Event, cx: &mut Cx<'_>) -> Step {
        let (bytes, size) = (self.piece(cx), cx.unit.info.block_size as usize);
        let event = match event {
            Event::Again => return self.read(cx),
            Event::Data(data) => return self.take(Some(data), cx),
            event => event,
        };
        let (status, detail, buf) = io(event);
        match (status, buf) {
            (Status::Ok, Some(old)) => {
                let Some(mut both) = cx.pool.get(2 * bytes) else {
                    cx.pool.put(old);
                    return Step::Later;
                };
                let data = self.data.as_ref().expect("the data is kept until the end");
                both[..bytes].copy_from_slice(&old);
                let new = old.iter().zip(&data[self.at..]).map(|(a, b)| a | b);
                both[bytes..].iter_mut().zip(new).for_each(|(to, byte)| *to = byte);
                cx.pool.put(old);
                let (volume, lba) = (cx.unit.volume(), self.lba + (self.at / size) as u64);
                let (kind, blocks, fua) = (Kind::CompareWrite, (bytes / size) as u32, self.fua);
                Step::Io { volume, kind, lba, blocks, fua, payload: Some(both) }
            }
            (Status::Ok, None) => {
                self.at += bytes;
                self.read(cx)
            }
            // Somebody wrote these blocks between the two: once more, with what is there now.
            (Status::CompareMismatch, None) => self.read(cx),
            (status, buf) => {
                cx.pool.put_all(self.data.take());
                Step::End(failed_at(cx, Kind::Write, status, detail, buf))
            }
        }
    }

    fn cancel(self, pool: &mut Pool) {
        pool.put_all(self.data);
    }
}

/// Most blocks of one WRITE ATOMIC(16); 0 when the volume promises no more than single blocks.
pub(super) fn atomic_max(unit: &Unit) -> u32 {
    let blocks = unit.info.atomic_blocks;
    if blocks > 1 { blocks } else { 0 }
}

/// WRITE ATOMIC(16): a Write within the length that the volume changes as one.
pub(super) fn write_atomic(cx: &Cx<'_>, cdb: &Cdb) -> Begun {
    let (flags, lba, blocks, boundary) = (cdb[1], be64(cdb, 2), u32::from(be16(cdb, 12)), be16(cdb, 10));
    if flags >> 5 != 0 {
        return Err(Sense::cdb_field(1).into());
    }
    if boundary != 0 {
        // MAXIMUM ATOMIC BOUNDARY SIZE is 0.
        return Err(Sense::cdb_field(10).into());
    }
    in_range(cx.unit, lba, u64::from(blocks))?;
    writable(cx)?;
    let most = atomic_max(cx.unit);
    if most == 0 {
        return Err(Sense::illegal(asc::INVALID_OPCODE).into());
    }
    if blocks > most {
        return Err(Sense::cdb_field(12).into());
    }
    if lba % u64::from(most) != 0 {
        // ATOMIC ALIGNMENT.
        return Err(Sense::cdb_field(2).into());
    }
    let bytes = range(cx, flags, lba, blocks)?;
    if bytes == 0 {
        return Ok(Begin::End(End::GOOD));
    }
    if cx.data_out.is_some_and(|n| n < bytes) {
        // Half of an atomic write is none.
        return Err(SHORT_DATA.into());
    }
    Ok(Begin::Io(Io { kind: Kind::Write, lba, blocks, fua: flags & 0x08 != 0, bytes }))
}
