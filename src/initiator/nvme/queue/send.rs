//! Commands on their way out: capsules from the command's fields, payload in the capsule where it fits, else by the
//! controller's R2Ts.

use super::super::{Command, Op};
use super::{Problem, Queue, Slot};
use crate::base::Time;
use crate::base::crc::crc32c;
use crate::mem::{Buf, Pool};
use crate::net::Tx;
use crate::wire::nvme::{DsmRange, Sgl, Sqe, io_op};
use crate::wire::nvme_tcp::pdu::{CapsuleCmd, Data, Head, R2t, TermReq};
use crate::wire::nvme_tcp::{Fault, Fes, Frame, Kind};
use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, IntoBytes};

impl Queue {
    /// Starts `command`; `payload` holds exactly a Write's or Compare's bytes, `ns` is NSID and
    /// bytes per block. The caller saw room. Gives the payload back when no buffer for a Read's data is to be had.
    #[inline]
    pub fn submit(
        &mut self,
        command: &Command,
        ns: (u32, u32),
        payload: Option<Buf>,
        now: Time,
        (tx, pool): (&mut Tx, &mut Pool),
    ) -> Result<(), Option<Buf>> {
        let Command { slot: cid, lba, blocks, .. } = *command;
        let (nsid, bytes) = (ns.0, blocks * ns.1);
        let buf = match command.op {
            Op::Read if command.want_data => Some(pool.get(bytes as usize).ok_or(None)?),
            _ => None,
        };
        let sgl = Sgl::transport(bytes);
        match command.op {
            Op::Read => self.send(Sqe::rw(io_op::READ, cid, nsid, lba, blocks, sgl), true, bytes, buf, now, tx),
            Op::Write => self.send_payload(Sqe::rw(io_op::WRITE, cid, nsid, lba, blocks, sgl), payload, now, tx),
            Op::Compare => self.send_payload(Sqe::rw(io_op::COMPARE, cid, nsid, lba, blocks, sgl), payload, now, tx),
            Op::Flush => self.send(Sqe::new(io_op::FLUSH, cid, nsid, Sgl::NONE), false, 0, None, now, tx),
            Op::WriteZeroes => {
                self.send(Sqe::rw(io_op::WRITE_ZEROES, cid, nsid, lba, blocks, Sgl::NONE), false, 0, None, now, tx);
            }
            Op::Deallocate => {
                let range = DsmRange { attributes: U32::ZERO, blocks: U32::new(blocks), lba: lba.into() };
                let mut sqe = Sqe::new(io_op::DSM, cid, nsid, Sgl::NONE);
                // AD: attribute Deallocate; NR stays 0, one range.
                sqe.cdw11 = U32::new(1 << 2);
                self.send_small(sqe, range.as_bytes(), now, tx);
            }
        }
        Ok(())
    }

    /// A command without payload. `len`: bytes it will return.
    #[inline]
    pub fn send(&mut self, sqe: Sqe, reads: bool, len: u32, buf: Option<Buf>, now: Time, tx: &mut Tx) {
        let cid = self.occupy(&sqe, reads, len, now);
        self.bufs[cid] = buf;
        let capsule = CapsuleCmd::new(sqe, self.receiver.digests());
        self.head(&capsule, tx);
    }

    /// A command whose few bytes of data always ride in the capsule.
    pub fn send_small(&mut self, mut sqe: Sqe, data: &[u8], now: Time, tx: &mut Tx) {
        sqe.sgl = Sgl::in_capsule(data.len() as u32);
        self.occupy(&sqe, false, data.len() as u32, now);
        let digests = self.receiver.digests();
        let capsule = CapsuleCmd::with_data(sqe, data.len() as u32, self.align, digests);
        self.head(&capsule, tx);
        tx.head(data);
        if digests.data {
            tx.head(&crc32c(data).to_le_bytes());
        }
    }

    /// A command with payload: in the capsule when it fits, else when the controller asks for it.
    #[inline]
    fn send_payload(&mut self, mut sqe: Sqe, payload: Option<Buf>, now: Time, tx: &mut Tx) {
        let payload = payload.expect("a command with payload comes with its bytes");
        let len = payload.len() as u32;
        let cid = self.occupy(&sqe, false, len, now);
        let digests = self.receiver.digests();
        if len > self.in_capsule_max {
            self.bufs[cid] = Some(payload);
            let capsule = CapsuleCmd::new(sqe, digests);
            return self.head(&capsule, tx);
        }
        sqe.sgl = Sgl::in_capsule(len);
        let capsule = CapsuleCmd::with_data(sqe, len, self.align, digests);
        self.head(&capsule, tx);
        let digest = digests.data.then(|| crc32c(&payload));
        tx.buf(payload, 0, len as usize);
        if let Some(digest) = digest {
            tx.head(&digest.to_le_bytes());
        }
    }

    #[inline]
    fn occupy(&mut self, sqe: &Sqe, reads: bool, len: u32, now: Time) -> usize {
        let cid = usize::from(sqe.cid.get());
        let slot = &mut self.slots[cid];
        assert!(!slot.busy, "command identifier {cid} is in use");
        *slot = Slot { busy: true, reads, digest_bad: false, len, moved: 0, sent: now };
        self.under_way += 1;
        cid
    }

    /// Queues a capsule's header, in its short form when there is neither digest nor padding.
    #[inline]
    fn head(&self, capsule: &CapsuleCmd, tx: &mut Tx) {
        let plain = !self.receiver.digests().header && usize::from(capsule.ch.pdo) <= size_of::<CapsuleCmd>();
        if plain {
            tx.head(capsule.as_bytes());
        } else {
            tx.head(Head::of(capsule).bytes());
        }
    }

    /// The controller asks for a stretch of a command's payload.
    pub(super) fn r2t(&mut self, frame: &Frame, pdu: &[u8], tx: &mut Tx) -> Result<usize, Problem> {
        self.require_open()?;
        let Ok((r2t, _)) = R2t::ref_from_prefix(pdu) else { return Err(Fault::field(2).into()) };
        let cid = r2t.cccid.get();
        let at = usize::from(cid);
        let slot = self.slots.get_mut(at).filter(|s| s.busy && !s.reads).ok_or(Fault::field(8))?;
        let (from, len) = (r2t.r2to.get(), r2t.r2tl.get());
        if from != slot.moved || len == 0 || len > slot.len - slot.moved {
            return Err(Fault::plain(Fes::OutOfRange).into());
        }
        slot.moved += len;
        let whole = slot.moved == slot.len;
        let buf = self.bufs[at].take().ok_or(Fault::plain(Fes::OutOfRange))?;
        let digests = self.receiver.digests();
        let end = from + len;
        let mut next = from;
        while next < end {
            let n = (end - next).min(self.h2c_max);
            let (last, piece) = (next + n == end, next as usize..(next + n) as usize);
            let data = Data::h2c(cid, r2t.ttag.get(), next, n, last, self.align, digests);
            tx.head(Head::of(&data).bytes());
            let digest = digests.data.then(|| crc32c(&buf[piece.clone()]));
            next += n;
            // The buffer itself leaves with the payload's last piece; pieces before it are copied.
            if last && whole {
                tx.buf(buf, piece.start, piece.end);
                if let Some(digest) = digest {
                    tx.head(&digest.to_le_bytes());
                }
                return Ok(frame.end as usize);
            }
            tx.head(&buf[piece]);
            if let Some(digest) = digest {
                tx.head(&digest.to_le_bytes());
            }
        }
        self.bufs[at] = Some(buf);
        Ok(frame.end as usize)
    }

    /// Tells the target what it did wrong; the connection is closed after it.
    pub fn terminate(fault: Fault, tx: &mut Tx) {
        tx.head(TermReq::new(Kind::H2cTermReq, fault, 0).as_bytes());
    }
}
