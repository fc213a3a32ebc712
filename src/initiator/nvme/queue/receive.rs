//! What the target sends: the handshake's answer, data, responses. PDUs are parsed where they lie; a Read's data is copied
//! once into its buffer, received straight into it when there is much of it, or skipped.

use super::super::{Ended, Failure};
use super::{H2C_MIN, IDLE, Link, Problem, Queue};
use crate::base::crc::Crc32c;
use crate::mem::Pool;
use crate::net::Tx;
use crate::wire::nvme::Cqe;
use crate::wire::nvme_tcp::pdu::{self, CapsuleResp, Data, IcResp, TermReq};
use crate::wire::nvme_tcp::{DIGEST_LEN, Digests, Fault, Fes, Frame, Kind, Receiver, Side};
use zerocopy::FromBytes;
use zerocopy::little_endian::U16;

/// A landing place is named for at least so many bytes; fewer are cheaper to copy on the way.
const LANDING_MIN: u32 = 16 * 1024;

/// A data digest that is being computed and received.
struct Digest {
    computed: Crc32c,
    received: [u8; DIGEST_LEN],
    got: usize,
}

/// A `C2HData` PDU whose data is arriving.
pub(super) struct Incoming {
    cid: u16,
    left: u32,
    flags: u8,
    digest: Option<Digest>,
}

impl std::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Incoming {{ cid: {}, left: {} }}", self.cid, self.left)
    }
}

impl Queue {
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

    pub(super) fn require_open(&self) -> Result<(), Fault> {
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
        let fresh = || Digest { computed: Crc32c::new(), received: [0; DIGEST_LEN], got: 0 };
        let digest = frame.data_digest.then(fresh);
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
        if let Some(digest) = &mut incoming.digest {
            digest.computed.update(&bytes[..n]);
        }
        incoming.left -= n as u32;
        self.slots[cid].moved += n as u32;
        if incoming.left > 0 {
            return Ok(n);
        }
        let mut taken = n;
        if let Some(digest) = &mut incoming.digest {
            let m = (DIGEST_LEN - digest.got).min(bytes.len() - n);
            digest.received[digest.got..digest.got + m].copy_from_slice(&bytes[n..n + m]);
            digest.got += m;
            taken += m;
            if digest.got < DIGEST_LEN {
                return Ok(taken);
            }
            self.slots[cid].digest_bad |= digest.received != digest.computed.finish().to_le_bytes();
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
        if let Some(digest) = &mut incoming.digest {
            digest.computed.update(&buf[at..at + n]);
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
}

fn terminated(pdu: &[u8]) -> Problem {
    match TermReq::ref_from_prefix(pdu) {
        Ok((t, _)) => Problem::Terminated { fes: U16::get(t.fes), fei: t.fei.get() },
        Err(_) => Problem::Broken(Fault::field(2)),
    }
}
