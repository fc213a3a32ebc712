//! One connection: from its handshake to its end, the commands under way on it and their data in both directions. The
//! admin queue and every I/O queue are one of these; what commands mean for the association is not known here.
//!
//! ```text
//! Closed -> Connecting (TCP) -> Handshake (ICReq sent) -> Open -> Closed
//! ```
//! The hot path is [`Queue::submit`] and [`Queue::data`]: a flat table of slots indexed by CID, capsules from a
//! template, received PDUs parsed where they lie. A Read's bytes are copied once into its buffer, or skipped.

use super::{Command, Ended, Failure, Op};
use crate::base::Time;
use crate::base::crc::{Crc32c, crc32c};
use crate::mem::{Buf, Pool};
use crate::net::{ConnId, Tx};
use crate::wire::nvme::{Cqe, DsmRange, Sgl, Sqe, io_op};
use crate::wire::nvme_tcp::pdu::{self, CapsuleCmd, CapsuleResp, Data, Head, IcReq, IcResp, R2t, TermReq};
use crate::wire::nvme_tcp::{DIGEST_LEN, Digests, Fault, Fes, Frame, Kind, Receiver, Side};
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, IntoBytes};

/// R2Ts taken at once per command (MAXR2T, 0's based): payloads are kept whole, so more cost nothing.
const MAXR2T: u32 = 15;
/// A landing place is named for at least so many bytes; fewer are cheaper to copy on the way.
const LANDING_MIN: u32 = 16 * 1024;
/// Smallest MAXH2CDATA a controller may state (transport specification, 3.6.2.3).
const H2C_MIN: u32 = 4096;

/// Where the connection is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Link {
    /// None.
    Closed,
    /// TCP is connecting.
    Connecting,
    /// `ICReq` was sent.
    Handshake,
    /// PDUs flow.
    Open,
}

/// Why the connection can not go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Problem {
    /// The target broke the protocol.
    Broken(Fault),
    /// The target sent a termination request.
    Terminated { fes: u16, fei: u32 },
}

impl From<Fault> for Problem {
    fn from(fault: Fault) -> Problem {
        Problem::Broken(fault)
    }
}

/// A command under way.
#[derive(Clone, Copy, Debug)]
struct Slot {
    busy: bool,
    /// Data flows to us.
    reads: bool,
    digest_bad: bool,
    /// Bytes of data in all.
    len: u32,
    /// Bytes received, or asked for by R2Ts so far.
    moved: u32,
    sent: Time,
}

const IDLE: Slot = Slot { busy: false, reads: false, digest_bad: false, len: 0, moved: 0, sent: Time(0) };

/// A `C2HData` PDU whose data is arriving.
#[derive(Debug)]
struct Incoming {
    cid: u16,
    left: u32,
    flags: u8,
    /// The digest so far, and how much of the received one is there; `None` without data digests.
    digest: Option<(Crc32c, [u8; DIGEST_LEN], usize)>,
}

/// One connection's state.
#[derive(Debug)]
pub(super) struct Queue {
    /// QID.
    pub qid: u16,
    /// The net's name for the connection.
    pub conn: Option<ConnId>,
    pub link: Link,
    /// The Connect command was sent on this connection.
    pub connect_sent: bool,
    /// Bytes that may ride in a command capsule.
    pub in_capsule_max: u32,
    /// Commands under way at most (the target's queue may be smaller than what was asked for).
    pub limit: u32,
    wanted: Digests,
    receiver: Receiver,
    align: u32,
    h2c_max: u32,
    slots: Vec<Slot>,
    bufs: Vec<Option<Buf>>,
    incoming: Option<Incoming>,
    under_way: u32,
}

impl std::fmt::Debug for Crc32c {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Crc32c({:08x})", self.finish())
    }
}

impl Queue {
    /// A closed queue with `depth` slots.
    pub fn new(qid: u16, depth: u16, wanted: Digests) -> Queue {
        Queue {
            qid,
            conn: None,
            link: Link::Closed,
            connect_sent: false,
            in_capsule_max: 0,
            limit: u32::from(depth),
            wanted,
            receiver: Receiver::new(Side::Host),
            align: 4,
            h2c_max: H2C_MIN,
            slots: vec![IDLE; usize::from(depth)],
            bufs: (0..depth).map(|_| None).collect(),
            incoming: None,
            under_way: 0,
        }
    }

    /// TCP is connecting as `conn`.
    pub fn connecting(&mut self, conn: ConnId) {
        assert_eq!(self.link, Link::Closed, "a queue has one connection");
        self.conn = Some(conn);
        self.link = Link::Connecting;
        self.receiver = Receiver::new(Side::Host);
        self.in_capsule_max = 0;
        self.connect_sent = false;
    }

    /// TCP is up: asks for the protocol connection.
    pub fn handshake(&mut self, tx: &mut Tx) {
        assert_eq!(self.link, Link::Connecting, "handshake follows the connection");
        self.link = Link::Handshake;
        tx.head(IcReq::new(0, self.wanted, MAXR2T).as_bytes());
    }

    /// Commands under way.
    pub fn under_way(&self) -> u32 {
        self.under_way
    }

    /// True when one more command fits.
    pub fn has_room(&self) -> bool {
        self.link == Link::Open && self.under_way < self.limit
    }

    /// Starts `command`; `payload` holds exactly a Write's or Compare's bytes, `bytes` is its length of data. The
    /// caller saw room. Gives the payload back when no buffer for a Read's data is to be had.
    #[inline]
    pub fn submit(
        &mut self,
        command: &Command,
        nsid: u32,
        bytes: u32,
        payload: Option<Buf>,
        now: Time,
        tx: &mut Tx,
        pool: &mut Pool,
    ) -> Result<(), Option<Buf>> {
        let Command { slot: cid, lba, blocks, .. } = *command;
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

    /// The stream's next bytes; returns how many were consumed. What ended goes to `out`.
    pub fn data(&mut self, bytes: &[u8], tx: &mut Tx, pool: &mut Pool, out: &mut Vec<Ended>) -> Result<usize, Problem> {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            if self.incoming.is_some() {
                at += self.absorb(rest, pool, out)?;
                continue;
            }
            let Some(frame) = self.receiver.frame(rest)? else { break };
            // Header and padding must be here; the data of C2HData may be still to come.
            if rest.len() < frame.head_len() {
                break;
            }
            at += match frame.kind {
                Kind::C2hData => self.begin_incoming(&frame, rest)?,
                Kind::CapsuleResp => self.response(&frame, rest, pool, out)?,
                Kind::R2t => self.r2t(&frame, rest, tx)?,
                Kind::IcResp => self.opened(&frame, rest)?,
                Kind::C2hTermReq => return Err(terminated(rest)),
                _ => return Err(Fault::field(0).into()),
            };
        }
        Ok(at)
    }

    fn opened(&mut self, frame: &Frame, pdu: &[u8]) -> Result<usize, Problem> {
        if self.link != Link::Handshake {
            return Err(Fault::plain(Fes::SequenceError).into());
        }
        let Ok((resp, _)) = IcResp::ref_from_prefix(pdu) else { return Err(Fault::field(2).into()) };
        if resp.pfv.get() != 0 {
            return Err(Fault { fes: Fes::UnsupportedParameter, fei: 8 }.into());
        }
        if resp.cpda > 31 {
            return Err(Fault { fes: Fes::UnsupportedParameter, fei: 10 }.into());
        }
        if resp.maxh2cdata.get() < H2C_MIN {
            return Err(Fault { fes: Fes::UnsupportedParameter, fei: 12 }.into());
        }
        // Digests that this side did not ask for are not in force, whatever the response says.
        let digests = self.wanted.both(Digests::from_bits(resp.dgst));
        self.align = (u32::from(resp.cpda) + 1) * 4;
        self.h2c_max = resp.maxh2cdata.get();
        self.receiver = Receiver::agreed(Side::Host, digests, 0, 0, u32::MAX);
        self.link = Link::Open;
        Ok(frame.end as usize)
    }

    fn require_open(&self) -> Result<(), Fault> {
        if self.link == Link::Open { Ok(()) } else { Err(Fault::plain(Fes::SequenceError)) }
    }

    #[inline]
    fn begin_incoming(&mut self, frame: &Frame, pdu: &[u8]) -> Result<usize, Problem> {
        self.require_open()?;
        let Ok((head, _)) = Data::ref_from_prefix(pdu) else { return Err(Fault::field(2).into()) };
        let cid = head.cccid.get();
        let slot = self.slots.get(usize::from(cid)).filter(|s| s.busy && s.reads).ok_or(Fault::field(8))?;
        // Data of one command comes in order and never twice; the last piece says so.
        if head.datao.get() != slot.moved || frame.data_len > slot.len - slot.moved {
            return Err(Fault::plain(Fes::OutOfRange).into());
        }
        let digest = frame.data_digest.then(|| (Crc32c::new(), [0; DIGEST_LEN], 0));
        self.incoming = Some(Incoming { cid, left: frame.data_len, flags: frame.flags, digest });
        Ok(frame.head_len())
    }

    /// Takes data of the PDU that is arriving; returns how many bytes were its.
    #[inline]
    fn absorb(&mut self, bytes: &[u8], pool: &mut Pool, out: &mut Vec<Ended>) -> Result<usize, Problem> {
        let incoming = self.incoming.as_mut().expect("the caller saw it");
        let cid = usize::from(incoming.cid);
        let n = bytes.len().min(incoming.left as usize);
        if let Some(buf) = &mut self.bufs[cid] {
            let at = self.slots[cid].moved as usize;
            buf[at..at + n].copy_from_slice(&bytes[..n]);
        }
        if let Some((crc, _, _)) = &mut incoming.digest {
            crc.update(&bytes[..n]);
        }
        incoming.left -= n as u32;
        self.slots[cid].moved += n as u32;
        if incoming.left > 0 {
            return Ok(n);
        }
        let mut taken = n;
        if let Some((crc, received, got)) = &mut incoming.digest {
            let m = (DIGEST_LEN - *got).min(bytes.len() - n);
            received[*got..*got + m].copy_from_slice(&bytes[n..n + m]);
            *got += m;
            taken += m;
            if *got < DIGEST_LEN {
                return Ok(taken);
            }
            self.slots[cid].digest_bad |= *received != crc.finish().to_le_bytes();
        }
        self.finish_incoming(pool, out)?;
        Ok(taken)
    }

    #[inline]
    fn finish_incoming(&mut self, pool: &mut Pool, out: &mut Vec<Ended>) -> Result<(), Problem> {
        let incoming = self.incoming.take().expect("it was arriving");
        if incoming.flags & pdu::SUCCESS != 0 {
            self.complete(incoming.cid, Ok(0), pool, out)?;
        }
        Ok(())
    }

    /// Where the data that is arriving may be received to, when there is enough of it.
    pub fn landing(&mut self) -> Option<&mut [u8]> {
        let incoming = self.incoming.as_ref()?;
        if incoming.left < LANDING_MIN {
            return None;
        }
        let cid = usize::from(incoming.cid);
        let at = self.slots[cid].moved as usize;
        let left = incoming.left as usize;
        self.bufs[cid].as_mut().map(|buf| &mut buf[at..at + left])
    }

    /// `n` bytes came to the landing place.
    pub fn landed(&mut self, n: usize, pool: &mut Pool, out: &mut Vec<Ended>) -> Result<(), Problem> {
        let incoming = self.incoming.as_mut().expect("only what is arriving can land");
        assert!(n <= incoming.left as usize, "more landed than was to come");
        let cid = usize::from(incoming.cid);
        let at = self.slots[cid].moved as usize;
        let buf = self.bufs[cid].as_ref().expect("the landing place");
        if let Some((crc, _, _)) = &mut incoming.digest {
            crc.update(&buf[at..at + n]);
        }
        incoming.left -= n as u32;
        self.slots[cid].moved += n as u32;
        if incoming.left == 0 && incoming.digest.is_none() {
            self.finish_incoming(pool, out)?;
        }
        Ok(())
    }

    #[inline]
    fn response(&mut self, frame: &Frame, pdu: &[u8], pool: &mut Pool, out: &mut Vec<Ended>) -> Result<usize, Problem> {
        self.require_open()?;
        let Ok((resp, _)) = CapsuleResp::ref_from_prefix(pdu) else { return Err(Fault::field(2).into()) };
        let cqe: &Cqe = &resp.cqe;
        let code = cqe.code();
        let result = if code.is_ok() { Ok(cqe.result.get()) } else { Err(Failure::Status(code)) };
        self.complete(cqe.cid.get(), result, pool, out)?;
        Ok(frame.end as usize)
    }

    /// Ends the command `cid`.
    #[inline]
    fn complete(
        &mut self,
        cid: u16,
        result: Result<u64, Failure>,
        pool: &mut Pool,
        out: &mut Vec<Ended>,
    ) -> Result<(), Problem> {
        let at = usize::from(cid);
        // CID in the CQE is at byte 12, behind 8 of common header.
        let slot = self.slots.get_mut(at).filter(|s| s.busy).ok_or(Fault::field(20))?;
        if result.is_ok() && slot.reads && slot.moved != slot.len {
            return Err(Fault::plain(Fes::SequenceError).into());
        }
        let result = if slot.digest_bad { result.and(Err(Failure::Digest)) } else { result };
        let reads = slot.reads;
        *slot = IDLE;
        self.under_way -= 1;
        let mut buf = self.bufs[at].take();
        if (result.is_err() || !reads)
            && let Some(unused) = buf.take()
        {
            pool.put(unused);
        }
        let (value, result) = result.map_or_else(|e| (0, Err(e)), |value| (value, Ok(())));
        out.push(Ended { queue: self.qid.wrapping_sub(1), slot: cid, result, value, buf });
        Ok(())
    }

    /// The controller asks for a stretch of a command's payload.
    fn r2t(&mut self, frame: &Frame, pdu: &[u8], tx: &mut Tx) -> Result<usize, Problem> {
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
    pub fn terminate(&self, fault: Fault, tx: &mut Tx) {
        tx.head(TermReq::new(Kind::H2cTermReq, fault, 0).as_bytes());
    }

    /// The oldest command sent before `deadline`, if any.
    pub fn overdue(&self, deadline: Time) -> Option<u16> {
        let late = |(_, s): &(usize, &Slot)| s.busy && s.sent < deadline;
        self.slots.iter().enumerate().filter(late).min_by_key(|(_, s)| s.sent).map(|(cid, _)| cid as u16)
    }

    /// The connection is gone: every command under way ends as [`Failure::Lost`] (`overdue` as `TimedOut`); their
    /// buffers go to `orphans`.
    pub fn lost(&mut self, overdue: Option<u16>, out: &mut Vec<Ended>, orphans: &mut Vec<Buf>) {
        self.conn = None;
        self.link = Link::Closed;
        self.incoming = None;
        for (cid, slot) in self.slots.iter_mut().enumerate().filter(|(_, s)| s.busy) {
            let cid = cid as u16;
            let failure = if overdue == Some(cid) { Failure::TimedOut } else { Failure::Lost };
            *slot = IDLE;
            out.push(Ended { queue: self.qid.wrapping_sub(1), slot: cid, result: Err(failure), value: 0, buf: None });
        }
        self.under_way = 0;
        orphans.extend(self.bufs.iter_mut().filter_map(Option::take));
    }
}

fn terminated(pdu: &[u8]) -> Problem {
    match TermReq::ref_from_prefix(pdu) {
        Ok((t, _)) => Problem::Terminated { fes: U16::get(t.fes), fei: t.fei.get() },
        Err(_) => Problem::Broken(Fault::field(2)),
    }
}
