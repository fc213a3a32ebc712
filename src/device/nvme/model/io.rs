//! The model's I/O commands: where their data is, by the rules of PRPs and SGLs, and what they do to the disk.

use super::Model;
use super::admin::second;
use crate::wire::nvme::{DsmRange, Sqe, StatusCode, io_op, sc};
use zerocopy::FromBytes;

/// PRP Offset Invalid.
const PRP_OFFSET: StatusCode = StatusCode::new(0, 0x13);

impl Model {
    pub(super) fn io_command(&mut self, qid: u16, sqe: &Sqe) {
        let cid = sqe.cid.get();
        if self.faults.swallow > 0 {
            self.faults.swallow -= 1;
            self.swallowed.push((qid, cid));
            return;
        }
        let at = self.faults.fail.iter().position(|(opcode, ..)| *opcode == sqe.opcode);
        let word = match at.and_then(|i| self.faults.fail.remove(i)) {
            Some((_, status, dnr)) => status.field(dnr),
            None => self.execute(sqe).map_or_else(|status| status.field(true), |()| 0),
        };
        if word == 0 {
            *self.seen.commands.entry(sqe.opcode).or_default() += 1;
        }
        self.ended.push((qid, cid, word));
    }

    fn execute(&mut self, sqe: &Sqe) -> Result<(), StatusCode> {
        let nsid = sqe.nsid.get();
        if nsid == 0 || nsid > self.traits.namespaces {
            return Err(sc::INVALID_NAMESPACE);
        }
        let disk = nsid as usize - 1;
        match sqe.opcode {
            io_op::FLUSH => Ok(()),
            io_op::READ | io_op::WRITE => self.transfer(disk, sqe),
            io_op::WRITE_ZEROES if self.traits.write_zeroes => {
                self.seen.deallocating += u64::from(sqe.cdw12.get() >> 25 & 1);
                let range = self.range(sqe.slba(), u64::from(sqe.blocks()))?;
                self.zero(disk, range);
                Ok(())
            }
            io_op::DSM if self.traits.discard => self.deallocate(disk, sqe),
            _ => Err(sc::INVALID_OPCODE),
        }
    }

    /// The bytes of blocks, when they are on the disk.
    fn range(&self, lba: u64, blocks: u64) -> Result<(usize, usize), StatusCode> {
        if lba > self.traits.blocks || blocks > self.traits.blocks - lba {
            return Err(sc::LBA_OUT_OF_RANGE);
        }
        Ok(((lba << self.traits.block_shift) as usize, (blocks << self.traits.block_shift) as usize))
    }

    fn zero(&mut self, disk: usize, (at, len): (usize, usize)) {
        if self.traits.data {
            self.disks[disk][at..at + len].fill(0);
        }
    }

    fn deallocate(&mut self, disk: usize, sqe: &Sqe) -> Result<(), StatusCode> {
        // AD; other attributes are hints.
        if sqe.cdw11.get() & 4 == 0 {
            return Ok(());
        }
        for i in 0..=u64::from(sqe.cdw10.get() & 0xff) {
            let mut bytes = [0; 16];
            if !self.dma.device_reads(sqe.sgl.address.get() + i * 16, &mut bytes) {
                return Err(sc::DATA_TRANSFER_ERROR);
            }
            let range = DsmRange::read_from_bytes(&bytes).expect("16 bytes");
            let range = self.range(range.lba.get(), u64::from(range.blocks.get()))?;
            self.zero(disk, range);
        }
        Ok(())
    }

    fn transfer(&mut self, disk: usize, sqe: &Sqe) -> Result<(), StatusCode> {
        let (at, len) = self.range(sqe.slba(), u64::from(sqe.blocks()))?;
        if self.traits.mdts != 0 && len > 4096 << self.traits.mdts {
            return Err(sc::INVALID_FIELD);
        }
        self.seen.sgls += u64::from(sqe.psdt() != 0);
        if !self.traits.data {
            return Ok(());
        }
        let mut done = 0;
        for (iova, bytes) in self.pieces(sqe, len)? {
            let range = at + done..at + done + bytes;
            let ok = if sqe.opcode == io_op::READ {
                self.dma.device_writes(iova, &self.disks[disk][range])
            } else {
                self.dma.device_reads(iova, &mut self.disks[disk][range])
            };
            if !ok {
                return Err(sc::DATA_TRANSFER_ERROR);
            }
            done += bytes;
        }
        Ok(())
    }

    /// The memory of a transfer, in order.
    fn pieces(&self, sqe: &Sqe, len: usize) -> Result<Vec<(u64, usize)>, StatusCode> {
        if sqe.psdt() != 0 {
            let fits = self.traits.sgl && sqe.sgl.kind == 0 && sqe.sgl.length.get() as usize == len;
            return if fits { Ok(vec![(sqe.sgl.address.get(), len)]) } else { Err(sc::SGL_TYPE_INVALID) };
        }
        let (first, second) = (sqe.sgl.address.get(), second(sqe));
        let head = len.min(4096 - (first % 4096) as usize);
        let mut pieces = vec![(first, head)];
        let rest = len - head;
        if rest > 0 && rest <= 4096 {
            if !second.is_multiple_of(4096) {
                return Err(PRP_OFFSET);
            }
            pieces.push((second, rest));
        } else if rest > 0 {
            // The list: entries to the end of its page, the last of which would point to another page of the list.
            let entries = rest.div_ceil(4096);
            if !second.is_multiple_of(8) || second % 4096 / 8 + entries as u64 > 512 {
                return Err(PRP_OFFSET);
            }
            for i in 0..entries {
                let mut bytes = [0; 8];
                if !self.dma.device_reads(second + i as u64 * 8, &mut bytes) {
                    return Err(sc::DATA_TRANSFER_ERROR);
                }
                let entry = u64::from_le_bytes(bytes);
                if !entry.is_multiple_of(4096) {
                    return Err(PRP_OFFSET);
                }
                pieces.push((entry, (rest - i * 4096).min(4096)));
            }
        }
        Ok(pieces)
    }
}
