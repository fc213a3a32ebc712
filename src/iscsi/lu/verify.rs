//! VERIFY and WRITE AND VERIFY (SBC-3, 5.30 on and 5.37 on). Every read of the medium is checked, so that verifying
//! without data is reading; with data it is comparing.

use super::begin::{Begun, check, in_range, range, sized, writable};
use super::finish::{SHORT_DATA, failed_at, miscompare};
use super::long::{more, offered_blocks, piece_blocks};
use super::program::{Program, Run, access, io};
use super::{Begin, Cx, End, Event, Io, Step};
use crate::base::Status;
use crate::mem::{Buf, Pool};
use crate::volume::Kind;
use crate::wire::scsi::Sense;

/// BYTCHK in bits 2:1 of byte 1.
fn bytchk(flags: u8) -> Result<u8, Sense> {
    match flags >> 1 & 3 {
        2 => Err(Sense::cdb_field(1)),
        mode => Ok(mode),
    }
}

/// VERIFY(10), (12), (16).
pub(super) fn verify(cx: &Cx<'_>, flags: u8, (lba, blocks): (u64, u32)) -> Begun {
    if flags >> 5 != 0 {
        return Err(Sense::cdb_field(1).into());
    }
    let size = cx.unit.info.block_size;
    match bytchk(flags)? {
        0 => {
            in_range(cx.unit, lba, u64::from(blocks))?;
            if blocks == 0 {
                return Ok(Begin::End(End::GOOD));
            }
            Ok(Begin::Program(Program::new(Check { lba, left: blocks }), 0))
        }
        1 => {
            let bytes = range(cx, flags, lba, blocks)?;
            sized(cx, Io { kind: Kind::Compare, lba, blocks, fua: false, bytes })
        }
        _ => {
            in_range(cx.unit, lba, u64::from(blocks))?;
            if blocks == 0 {
                return Ok(Begin::End(End::GOOD));
            }
            Ok(Begin::Program(Program::new(Same { lba, left: blocks, block: None }), size))
        }
    }
}

/// Reads a range and throws the data away.
#[derive(Debug)]
pub(super) struct Check {
    lba: u64,
    left: u32,
}

impl Check {
    fn next(&mut self, cx: &Cx<'_>) -> Step {
        if self.left == 0 {
            return Step::End(End::GOOD);
        }
        let blocks = self.left.min(piece_blocks(cx.unit));
        let step = access(cx, Kind::Read, self.lba, blocks);
        self.lba += u64::from(blocks);
        self.left -= blocks;
        step
    }
}

impl Run for Check {
    fn start(&mut self, data: Option<Buf>, cx: &mut Cx<'_>) -> Step {
        cx.pool.put_all(data);
        self.next(cx)
    }

    fn resume(&mut self, event: Event, cx: &mut Cx<'_>) -> Step {
        let (status, detail, buf) = io(event);
        if !status.is_ok() {
            return Step::End(failed_at(cx, Kind::Read, status, detail, buf));
        }
        cx.pool.put_all(buf);
        self.next(cx)
    }

    fn cancel(self, _: &mut Pool) {}
}

/// BYTCHK 11b: every block must equal one block. Reads, so that the block need not be laid out many times.
#[derive(Debug)]
pub(super) struct Same {
    lba: u64,
    left: u32,
    block: Option<Buf>,
}

impl Same {
    fn next(&mut self, cx: &mut Cx<'_>) -> Step {
        if self.left == 0 {
            cx.pool.put_all(self.block.take());
            return Step::End(End::GOOD);
        }
        let blocks = self.left.min(piece_blocks(cx.unit));
        access(cx, Kind::Read, self.lba, blocks)
    }
}

impl Run for Same {
    fn start(&mut self, data: Option<Buf>, cx: &mut Cx<'_>) -> Step {
        let whole = data.as_ref().is_some_and(|b| b.len() == cx.unit.info.block_size as usize);
        self.block = data;
        if !whole {
            cx.pool.put_all(self.block.take());
            return Step::End(check(cx, SHORT_DATA));
        }
        self.next(cx)
    }

    fn resume(&mut self, event: Event, cx: &mut Cx<'_>) -> Step {
        let (status, detail, buf) = io(event);
        let (true, Some(read)) = (status.is_ok(), &buf) else {
            cx.pool.put_all(self.block.take());
            return Step::End(failed_at(cx, Kind::Read, status, detail, buf));
        };
        let block = self.block.as_ref().expect("the block is kept until the end");
        let blocks = read.len() / block.len();
        if let Some(at) = read.iter().zip(block.iter().cycle()).position(|(a, b)| a != b) {
            cx.pool.put_all(self.block.take());
            cx.pool.put_all(buf);
            return Step::End(check(cx, miscompare(at as u64)));
        }
        self.lba += blocks as u64;
        self.left -= blocks as u32;
        cx.pool.put_all(buf);
        self.next(cx)
    }

    fn cancel(self, pool: &mut Pool) {
        pool.put_all(self.block);
    }
}

/// WRITE AND VERIFY(10), (12), (16).
pub(super) fn write_and_verify(cx: &Cx<'_>, flags: u8, (lba, blocks): (u64, u32)) -> Begun {
    let compare = match bytchk(flags)? {
        0 => false,
        1 => true,
        _ => return Err(Sense::cdb_field(1).into()),
    };
    let bytes = range(cx, flags, lba, blocks)?;
    writable(cx)?;
    if bytes == 0 {
        return Ok(Begin::End(End::GOOD));
    }
    let left = offered_blocks(cx, blocks);
    let program = WriteVerify { lba, left, compare, copy: None, data: None, blocks: 0, done: 0, written: false };
    Ok(Begin::Program(Program::new(program), bytes))
}

/// Piece by piece: writes, flushes through to the medium (FUA), and reads back; with BYTCHK the data is kept to compare
/// with.
#[derive(Debug)]
pub(super) struct WriteVerify {
    lba: u64,
    /// Blocks from the one at `lba` on: an initiator that announced less than the CDB asks for gets the whole blocks of it
    /// written.
    left: u32,
    compare: bool,
    data: Option<Buf>,
    copy: Option<Buf>,
    /// Blocks of the piece under way.
    blocks: u32,
    /// Bytes of the pieces before it.
    done: u64,
    written: bool,
}

impl WriteVerify {
    /// A piece of the data is there.
    fn take(&mut self, data: Option<Buf>, cx: &mut Cx<'_>) -> Step {
        let size = cx.unit.info.block_size;
        self.blocks = data.as_ref().map_or(0, |b| b.len() as u32 / size).min(self.left);
        if self.blocks == 0 {
            cx.pool.put_all(data);
            return Step::End(End::GOOD);
        }
        self.data = data.map(|mut b| {
            b.set_len((self.blocks * size) as usize);
            b
        });
        self.written = false;
        self.write(cx)
    }

    fn write(&mut self, cx: &mut Cx<'_>) -> Step {
        let Some(data) = self.data.take() else { return Step::End(End::GOOD) };
        if self.compare {
            let Some(mut copy) = cx.pool.get(data.len()) else {
                self.data = Some(data);
                return Step::Later;
            };
            copy.copy_from_slice(&data);
            self.copy = Some(copy);
        }
        let (volume, kind) = (cx.unit.volume(), Kind::Write);
        Step::Io { volume, kind, lba: self.lba, blocks: self.blocks, fua: true, payload: Some(data) }
    }
}

impl Run for WriteVerify {
    fn start(&mut self, data: Option<Buf>, cx: &mut Cx<'_>) -> Step {
        self.take(data, cx)
    }

    fn resume(&mut self, event: Event, cx: &mut Cx<'_>) -> Step {
        let event = match event {
            Event::Again => return self.write(cx),
            Event::Data(data) => return self.take(Some(data), cx),
            event => event,
        };
        let (status, detail, buf) = io(event);
        let kind = match (self.written, self.compare) {
            (false, _) => Kind::Write,
            (true, true) => Kind::Compare,
            (true, false) => Kind::Read,
        };
        if !status.is_ok() {
            cx.pool.put_all(self.copy.take());
            if status == Status::CompareMismatch {
                cx.pool.put_all(buf);
                return Step::End(check(cx, miscompare(self.done + u64::from(detail.differs_at()))));
            }
            return Step::End(failed_at(cx, kind, status, detail, buf));
        }
        cx.pool.put_all(buf);
        if self.written {
            self.lba += u64::from(self.blocks);
            self.left -= self.blocks;
            self.done += u64::from(self.blocks) * u64::from(cx.unit.info.block_size);
            return more(cx, self.left);
        }
        self.written = true;
        let (volume, kind) = (cx.unit.volume(), if self.compare { Kind::Compare } else { Kind::Read });
        Step::Io { volume, kind, lba: self.lba, blocks: self.blocks, fua: false, payload: self.copy.take() }
    }

    fn cancel(self, pool: &mut Pool) {
        pool.put_all(self.data);
        pool.put_all(self.copy);
    }
}
