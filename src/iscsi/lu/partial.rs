//! A WRITE that comes with fewer bytes than its CDB says, ending within a block. The bytes that came are written, the rest
//! of their last block keeps what it had, and the residual count tells the initiator how much is missing (RFC 7143,
//! 11.4.5.1).

use super::begin::{Begun, check};
use super::finish::{SHORT_DATA, failed_at};
use super::program::{Program, Run, access, io};
use super::{Begin, Cx, End, Event, Io, Step};
use crate::base::Status;
use crate::base::limits::IO_BYTES_MAX;
use crate::mem::{Buf, Pool};
use crate::volume::Kind;
use crate::wire::scsi::{Sense, asc};

/// Begins a write of which only `offered` bytes come; its range has been checked.
#[cold]
pub(super) fn partial(cx: &Cx<'_>, io: Io, offered: u32) -> Begun {
    let size = cx.unit.info.block_size;
    if offered as usize > IO_BYTES_MAX {
        return Err(Sense::illegal(asc::INVALID_FIELD_IN_IU).into());
    }
    let (whole, tail) = (offered / size, offered % size);
    let mut program = Program::new(Partial { lba: io.lba, whole, tail, fua: io.fua, data: None });
    program.bind(cx.unit.volume());
    Ok(Begin::Program(program, io.bytes))
}

/// First the last block: read, then compare-write with the new bytes over its beginning, until nobody wrote in between.
/// Then the whole blocks before it.
#[derive(Debug)]
pub(super) struct Partial {
    lba: u64,
    /// Blocks that come whole.
    whole: u32,
    /// Bytes of the block behind them; not 0.
    tail: u32,
    fua: bool,
    /// What came, until it is written.
    data: Option<Buf>,
}

impl Partial {
    fn read(&self, cx: &Cx<'_>) -> Step {
        access(cx, Kind::Read, self.lba + u64::from(self.whole), 1)
    }

    /// The last block is done.
    fn rest(&mut self, cx: &mut Cx<'_>) -> Step {
        let mut data = self.data.take().expect("the data is kept until its last block is done");
        if self.whole == 0 {
            cx.pool.put(data);
            return Step::End(End::GOOD);
        }
        data.set_len((self.whole * cx.unit.info.block_size) as usize);
        let (volume, lba, blocks, fua) = (cx.unit.volume(), self.lba, self.whole, self.fua);
        Step::Io { volume, kind: Kind::Write, lba, blocks, fua, payload: Some(data) }
    }
}

impl Run for Partial {
    fn start(&mut self, data: Option<Buf>, cx: &mut Cx<'_>) -> Step {
        let want = self.whole * cx.unit.info.block_size + self.tail;
        if data.as_ref().is_none_or(|b| b.len() != want as usize) {
            cx.pool.put_all(data);
            return Step::End(check(cx, SHORT_DATA));
        }
        self.data = data;
        self.read(cx)
    }

    fn resume(&mut self, event: Event, cx: &mut Cx<'_>) -> Step {
        if matches!(event, Event::Again) {
            return self.read(cx);
        }
        let size = cx.unit.info.block_size as usize;
        let (status, detail, buf) = io(event);
        match (status, buf, &self.data) {
            (Status::Ok, Some(old), Some(data)) => {
                let Some(mut both) = cx.pool.get(2 * size) else {
                    cx.pool.put(old);
                    return Step::Later;
                };
                both[..size].copy_from_slice(&old);
                both[size..].copy_from_slice(&old);
                let from = self.whole as usize * size;
                both[size..size + self.tail as usize].copy_from_slice(&data[from..from + self.tail as usize]);
                cx.pool.put(old);
                let (volume, lba, fua) = (cx.unit.volume(), self.lba + u64::from(self.whole), self.fua);
                Step::Io { volume, kind: Kind::CompareWrite, lba, blocks: 1, fua, payload: Some(both) }
            }
            (Status::Ok, None, Some(_)) => self.rest(cx),
            (Status::Ok, None, None) => Step::End(End::GOOD),
            // Somebody wrote the block between the two: once more, with what is there now.
            (Status::CompareMismatch, None, Some(_)) => self.read(cx),
            (status, buf, _) => {
                cx.pool.put_all(self.data.take());
                Step::End(failed_at(cx, Kind::Write, status, detail, buf))
            }
        }
    }

    fn cancel(self, pool: &mut Pool) {
        pool.put_all(self.data);
    }
}
