//! WRITE SAME(10), (16) (SBC-3, 5.42 and 5.43). One block of zeroes, or none (NDOB), is a long range of zeroes for the
//! volume; any other block is laid out in one buffer after the other, which the writes consume.

use super::begin::{Begun, check, in_range, writable};
use super::finish::{SHORT_DATA, failed_at};
use super::program::{Program, Run, access, io};
use super::{Begin, Cx, End, Event, Step};
use crate::mem::{Buf, Pool};
use crate::volume::Kind;
use crate::wire::scsi::Sense;

/// Bytes of one piece: of a pattern, and of zeroes, which cost far less and still end soon when the command is aborted.
const PATTERN_BYTES: u32 = 128 << 10;
const ZEROES_BYTES: u64 = 256 << 20;

/// Most blocks of one WRITE SAME (MAXIMUM WRITE SAME LENGTH): more than hosts ask for at once, and few enough that a
/// pattern of them is laid out in seconds.
pub(super) const WRITE_SAME_BLOCKS_MAX: u32 = 32768;

const UNMAP: u8 = 0x08;
const ANCHOR: u8 = 0x10;
const NDOB: u8 = 0x01;

/// Begins a WRITE SAME(10), or (16); `flags` is byte 1 of the CDB.
pub(super) fn write_same(cx: &Cx<'_>, flags: u8, (lba, blocks): (u64, u32), sixteen: bool) -> Begun {
    // There are no anchored blocks (ANC_SUP is 0), and no protection information.
    if flags >> 5 != 0 || flags & ANCHOR != 0 {
        return Err(Sense::cdb_field(1).into());
    }
    let unit = cx.unit;
    in_range(unit, lba, u64::from(blocks))?;
    writable(cx)?;
    // 0 blocks would be all to the end, which WSNZ excludes.
    if !(1..=WRITE_SAME_BLOCKS_MAX).contains(&blocks) {
        return Err(Sense::cdb_field(if sixteen { 10 } else { 7 }).into());
    }
    let left = u64::from(blocks);
    let kind = if flags & UNMAP != 0 { Kind::Deallocate } else { Kind::WriteZeroes };
    let size = unit.info.block_size;
    let want = if flags & NDOB != 0 { 0 } else { size };
    if cx.data_out.is_some_and(|n| n != want) {
        return Err(SHORT_DATA.into());
    }
    Ok(Begin::Program(Program::new(WriteSame { lba, left, zeroes: kind, ndob: want == 0, block: None }), want))
}

/// A WRITE SAME under way.
#[derive(Debug)]
pub(super) struct WriteSame {
    lba: u64,
    left: u64,
    /// What to do when the block is all zeroes.
    zeroes: Kind,
    ndob: bool,
    /// The block, when it is anything else.
    block: Option<Buf>,
}

impl WriteSame {
    fn next(&mut self, cx: &mut Cx<'_>) -> Step {
        if self.left == 0 {
            cx.pool.put_all(self.block.take());
            return Step::End(End::GOOD);
        }
        let size = cx.unit.info.block_size;
        let (blocks, step) = match &self.block {
            None => {
                let blocks = self.left.min(ZEROES_BYTES / u64::from(size)) as u32;
                (blocks, access(cx, self.zeroes, self.lba, blocks))
            }
            Some(block) => {
                let blocks = self.left.min(u64::from(PATTERN_BYTES / size)) as u32;
                let Some(buf) = pattern(cx.pool, block, (blocks * size) as usize) else { return Step::Later };
                let (volume, kind) = (cx.unit.volume(), Kind::Write);
                (blocks, Step::Io { volume, kind, lba: self.lba, blocks, fua: false, payload: Some(buf) })
            }
        };
        self.lba += u64::from(blocks);
        self.left -= u64::from(blocks);
        step
    }
}

/// A buffer of `len` bytes in which `block` repeats.
pub(super) fn pattern(pool: &mut Pool, block: &[u8], len: usize) -> Option<Buf> {
    let mut buf = pool.get(len)?;
    buf.chunks_mut(block.len()).for_each(|part| part.copy_from_slice(&block[..part.len()]));
    Some(buf)
}

impl Run for WriteSame {
    fn start(&mut self, data: Option<Buf>, cx: &mut Cx<'_>) -> Step {
        if !self.ndob {
            let size = cx.unit.info.block_size as usize;
            match data {
                Some(block) if block.len() == size => {
                    if block.iter().all(|b| *b == 0) {
                        cx.pool.put(block);
                    } else {
                        self.block = Some(block);
                    }
                }
                other => {
                    cx.pool.put_all(other);
                    return Step::End(check(cx, SHORT_DATA));
                }
            }
        }
        self.next(cx)
    }

    fn resume(&mut self, event: Event, cx: &mut Cx<'_>) -> Step {
        if let Event::Again = event {
            return self.next(cx);
        }
        let (status, detail, buf) = io(event);
        if !status.is_ok() {
            cx.pool.put_all(self.block.take());
            return Step::End(failed_at(cx, Kind::Write, status, detail, buf));
        }
        self.next(cx)
    }

    fn cancel(self, pool: &mut Pool) {
        pool.put_all(self.block);
    }
}
