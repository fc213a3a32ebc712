//! READ, WRITE and VERIFY of more bytes than one request of the volume takes: the same in pieces, each of which is read
//! and sent, or asked for and written, before the next one. A long command holds one buffer at a time, whatever it covers.

use super::begin::{Begun, Stop, check};
use super::finish::{failed_at, miscompare};
use super::program::{Program, Run, io};
use super::{Begin, Cx, End, Event, Step, Unit};
use crate::base::Status;
use crate::base::limits::IO_BYTES_MAX;
use crate::mem::{Buf, Pool};
use crate::volume::Kind;
use crate::wire::scsi::{Sense, asc};

/// Bytes of one command that transfers blocks, at most: hosts that copy whole images ask for as much at once. More would
/// only make one command last longer; pieces cost no more of a buffer.
pub(super) const TRANSFER_BYTES_MAX: u32 = 8 << 20;

/// Blocks of one command that transfers data, at most (MAXIMUM TRANSFER LENGTH).
pub(super) fn max_transfer(unit: &Unit) -> u32 {
    TRANSFER_BYTES_MAX / unit.info.block_size
}

/// Blocks of one request of the volume, at most.
pub(super) fn piece_blocks(unit: &Unit) -> u32 {
    IO_BYTES_MAX as u32 / unit.info.block_size
}

/// Whole blocks that a command takes from the initiator: those of its CDB, or fewer where fewer were announced.
pub(super) fn offered_blocks(cx: &Cx<'_>, blocks: u32) -> u32 {
    blocks.min(cx.data_out.unwrap_or(0) / cx.unit.info.block_size)
}

/// Begins a command of more than [`piece_blocks`]; its range has been checked.
#[cold]
pub(super) fn long(cx: &Cx<'_>, kind: Kind, lba: u64, blocks: u32, fua: bool) -> Begun {
    let size = cx.unit.info.block_size;
    let bytes = blocks * size;
    let program = match kind {
        Kind::Read => Long { kind, lba, left: blocks, fua, done: 0, total: bytes },
        _ => {
            let offered = cx.data_out.unwrap_or(0).min(bytes);
            if !offered.is_multiple_of(size) {
                return Err(Stop::Sense(Sense::illegal(asc::INVALID_FIELD_IN_IU)));
            }
            Long { kind, lba, left: offered / size, fua, done: 0, total: bytes }
        }
    };
    let mut program = Program::new(program);
    program.bind(cx.unit.volume());
    Ok(Begin::Program(program, if kind == Kind::Read { 0 } else { bytes }))
}

/// A long command under way.
#[derive(Debug)]
pub(super) struct Long {
    kind: Kind,
    lba: u64,
    left: u32,
    fua: bool,
    /// Bytes that are done.
    done: u64,
    /// Bytes that the CDB says.
    total: u32,
}

impl Long {
    /// The next request.
    fn next(&self, cx: &Cx<'_>, payload: Option<Buf>) -> Step {
        let size = cx.unit.info.block_size as usize;
        let blocks = payload.as_ref().map_or(self.left.min(piece_blocks(cx.unit)), |b| (b.len() / size) as u32);
        let (volume, kind, lba, fua) = (cx.unit.volume(), self.kind, self.lba, self.fua);
        Step::Io { volume, kind, lba, blocks, fua, payload }
    }

    /// As many bytes are done.
    fn did(&mut self, bytes: usize, size: u32) {
        let blocks = bytes as u32 / size;
        self.lba += u64::from(blocks);
        self.left -= blocks;
        self.done += bytes as u64;
    }
}

impl Run for Long {
    fn start(&mut self, data: Option<Buf>, cx: &mut Cx<'_>) -> Step {
        if self.left == 0 {
            cx.pool.put_all(data);
            return Step::End(End::GOOD);
        }
        self.next(cx, data)
    }

    fn resume(&mut self, event: Event, cx: &mut Cx<'_>) -> Step {
        let size = cx.unit.info.block_size;
        let event = match event {
            Event::Data(data) => return self.next(cx, Some(data)),
            Event::Sent { room } => {
                self.left = self.left.min(room.div_ceil(size));
                // What the initiator has no room for need not be read.
                return if self.left == 0 { Step::End(End::GOOD) } else { self.next(cx, None) };
            }
            event => event,
        };
        let (status, detail, buf) = io(event);
        if status == Status::CompareMismatch {
            return Step::End(check(cx, miscompare(self.done + u64::from(detail.differs_at()))));
        }
        if !status.is_ok() {
            return Step::End(failed_at(cx, self.kind, status, detail, buf));
        }
        match buf {
            Some(data) => {
                self.did(data.len(), size);
                if self.left == 0 {
                    return Step::End(End::data(data));
                }
                Step::Send { data, total: self.total }
            }
            None => {
                let bytes = self.left.min(piece_blocks(cx.unit)) * size;
                self.did(bytes as usize, size);
                more(cx, self.left)
            }
        }
    }

    fn cancel(self, _: &mut Pool) {}
}

/// Asks for the next of the `left` blocks that are still to come, or ends the command well.
pub(super) fn more(cx: &Cx<'_>, left: u32) -> Step {
    match left.min(piece_blocks(cx.unit)) {
        0 => Step::End(End::GOOD),
        blocks => Step::Take(blocks * cx.unit.info.block_size),
    }
}
