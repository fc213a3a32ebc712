//! What the target sends: the login's responses, data, status, R2Ts, pings, text. PDUs are parsed where they lie; a Read's
//! data is copied once into its buffer, received straight into it when there is much of it, or skipped.

use super::send::TEXT_TAG;
use super::{Broken, Found, IDLE, Link, Problem, Session};
use crate::base::Time;
use crate::base::crc::Crc32c;
use crate::initiator::iscsi::Config;
use crate::initiator::iscsi::login::Next;
use crate::initiator::{Ended, Failure, ScsiError};
use crate::mem::Pool;
use crate::net::{CARRY_MAX, Tx};
use crate::wire::iscsi::pdu::{
    AsyncMessage, DataIn, FINAL, LoginResponse, LogoutResponse, Reject, Residual, STATUS, ScsiResponse, TextResponse,
    data_digest_ok,
};
use crate::wire::iscsi::text::Pairs;
use crate::wire::iscsi::{DIGEST_LEN, Frame, Key, NO_TAG, Opcode};
use crate::wire::scsi::status;
use zerocopy::FromBytes;

/// A landing place is named for at least so many bytes; fewer are cheaper to copy on the way.
const LANDING_MIN: u32 = 16 * 1024;
/// Longest answer of a discovery session, bytes.
const TARGETS_MAX: usize = 1 << 20;

/// A data digest that is being computed and received.
struct Digest {
    computed: Crc32c,
    received: [u8; DIGEST_LEN],
    got: usize,
}

/// A Data-In PDU whose data is arriving.
pub(super) struct Incoming {
    itt: u16,
    /// Bytes of data to come.
    left: u32,
    /// Bytes of padding to come behind them.
    pad: u32,
    /// Status and residual, when the PDU ends its command.
    status: Option<(u8, Residual)>,
    digest: Option<Digest>,
}

impl std::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Incoming {{ itt: {}, left: {} }}", self.itt, self.left)
    }
}

/// Where what the target sends goes, beside the session.
pub(in crate::initiator::iscsi) struct Sinks<'a> {
    pub config: &'a Config,
    pub now: Time,
    pub out: &'a mut Vec<Ended>,
}

impl Session {
    /// The stream's next bytes; returns how many were consumed. What ended goes to `to`.
    pub fn data(&mut self, bytes: &[u8], tx: &mut Tx, pool: &mut Pool, to: &mut Sinks<'_>) -> Result<usize, Problem> {
        self.heard = to.now;
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            if self.incoming.is_some() {
                at += self.absorb(rest, pool, to.out)?;
                continue;
            }
            let Some(frame) = self.receiver.frame(rest).map_err(Broken::Framing)? else { break };
            if frame.opcode == Some(Opcode::DataIn) && self.link == Link::Open {
                at += self.begin_incoming(&frame, rest, pool, to.out)?;
                continue;
            }
            // Everything but Data-In is short, and looked at when it is here as a whole.
            if frame.end as usize > CARRY_MAX {
                return Err(Broken::Length.into());
            }
            let Some(pdu) = rest.get(..frame.end as usize) else { break };
            at += self.whole(&frame, pdu, tx, pool, to)?;
        }
        Ok(at)
    }

    #[inline]
    fn whole(
        &mut self,
        frame: &Frame,
        pdu: &[u8],
        tx: &mut Tx,
        pool: &mut Pool,
        to: &mut Sinks<'_>,
    ) -> Result<usize, Problem> {
        let padded = &pdu[frame.head_len()..frame.head_len() + frame.padded_len()];
        if frame.data_digest && !data_digest_ok(padded, &pdu[frame.head_len() + frame.padded_len()..]) {
            return Err(Broken::Digest.into());
        }
        let data = &padded[..frame.data_len as usize];
        match (self.link, frame.opcode) {
            (Link::Open, Some(Opcode::ScsiResponse)) => self.response(pdu, data, pool, to.out)?,
            (Link::Open, Some(Opcode::R2t)) => return self.r2t(frame, pdu, tx),
            (Link::Open, Some(Opcode::NopIn)) => return self.nop(frame, pdu, tx),
            (Link::Login, Some(Opcode::LoginResponse)) => self.login(pdu, data, tx, to.config)?,
            (Link::Open, Some(Opcode::TextResponse)) => self.targets(pdu, data, tx)?,
            (Link::Open, Some(Opcode::AsyncMessage)) => self.told(pdu)?,
            (Link::Open, Some(Opcode::LogoutResponse)) => {
                let Ok((logout, _)) = LogoutResponse::ref_from_prefix(pdu) else { return Err(Broken::Length.into()) };
                self.numbers(&logout.numbers, true)?;
            }
            (_, Some(Opcode::Reject)) => {
                let Ok((reject, _)) = Reject::ref_from_prefix(pdu) else { return Err(Broken::Length.into()) };
                return Err(Problem::Rejected(reject.reason));
            }
            _ => return Err(Broken::Opcode(pdu[0] & Opcode::MASK).into()),
        }
        Ok(frame.end as usize)
    }

    fn login(&mut self, pdu: &[u8], text: &[u8], tx: &mut Tx, config: &Config) -> Result<(), Problem> {
        let Ok((head, _)) = LoginResponse::ref_from_prefix(pdu) else { return Err(Broken::Length.into()) };
        let login = self.login.as_mut().expect("a login is under way");
        match login.response(head, text, config)? {
            Next::Send => Session::send_login(login, tx),
            Next::Done => {
                self.max_cmd_sn = head.numbers.max_cmd_sn.get();
                self.opened(config);
            }
        }
        Ok(())
    }

    /// Text of a discovery session.
    fn targets(&mut self, pdu: &[u8], text: &[u8], tx: &mut Tx) -> Result<(), Problem> {
        let Ok((head, _)) = TextResponse::ref_from_prefix(pdu) else { return Err(Broken::Length.into()) };
        self.numbers(&head.numbers, true)?;
        if head.itt.get() != TEXT_TAG || self.found.is_some() {
            return Err(Broken::Tag(head.itt.get()).into());
        }
        if self.text.len() + text.len() > TARGETS_MAX {
            return Err(Broken::Length.into());
        }
        self.text.extend_from_slice(text);
        let ttt = head.ttt.get();
        if head.flags & FINAL == 0 || ttt != NO_TAG {
            if ttt == NO_TAG {
                return Err(Broken::Tag(ttt).into());
            }
            self.send_targets(ttt, tx);
            return Ok(());
        }
        let mut found: Vec<Found> = Vec::new();
        for pair in Pairs::new(&self.text) {
            let (key, value) = pair.map_err(|_| Broken::Text)?;
            match (Key::of(key), found.last_mut()) {
                (Some(Key::TargetName), _) => found.push(Found { name: value.into(), addresses: Vec::new() }),
                (Some(Key::TargetAddress), Some(last)) => last.addresses.push(value.into()),
                (Some(Key::TargetAddress), None) => return Err(Broken::Text.into()),
                _ => {}
            }
        }
        self.found = Some(found);
        Ok(())
    }

    /// An asynchronous message: SCSI events and ended tasks need no answer, everything else is the beginning of the end.
    fn told(&mut self, pdu: &[u8]) -> Result<(), Problem> {
        let Ok((message, _)) = AsyncMessage::ref_from_prefix(pdu) else { return Err(Broken::Length.into()) };
        self.numbers(&message.numbers, true)?;
        match message.event {
            0 | 5 | 255 => Ok(()),
            event => Err(Problem::Leaving(event)),
        }
    }

    #[inline]
    fn begin_incoming(
        &mut self,
        frame: &Frame,
        pdu: &[u8],
        pool: &mut Pool,
        out: &mut Vec<Ended>,
    ) -> Result<usize, Problem> {
        let Ok((head, _)) = DataIn::ref_from_prefix(pdu) else { return Err(Broken::Length.into()) };
        let ends = head.flags & STATUS != 0;
        self.numbers(&head.numbers, ends)?;
        let tag = head.itt.get();
        let slot = self.slots.get_mut(tag as usize).filter(|s| s.busy && s.reads).ok_or(Broken::Tag(tag))?;
        // DataPDUInOrder and DataSequenceInOrder: data comes in order and never twice.
        if head.offset.get() != slot.moved || frame.data_len > slot.len - slot.moved {
            return Err(Broken::Offset(head.offset.get()).into());
        }
        if head.data_sn.get() != slot.next_sn {
            return Err(Broken::Number(head.data_sn.get()).into());
        }
        slot.next_sn += 1;
        let status = ends.then(|| (head.status, Residual::read(head.flags, head.residual.get())));
        let fresh = || Digest { computed: Crc32c::new(), received: [0; DIGEST_LEN], got: 0 };
        let digest = frame.data_digest.then(fresh);
        let pad = frame.padded_len() as u32 - frame.data_len;
        self.incoming = Some(Incoming { itt: tag as u16, left: frame.data_len, pad, status, digest });
        if frame.tail_len() == 0 {
            self.finish_incoming(pool, out)?;
        }
        Ok(frame.head_len())
    }

    /// Takes data of the PDU that is arriving; returns how many bytes were its.
    #[inline]
    fn absorb(&mut self, bytes: &[u8], pool: &mut Pool, out: &mut Vec<Ended>) -> Result<usize, Problem> {
        let incoming = self.incoming.as_mut().expect("the caller saw it");
        let itt = usize::from(incoming.itt);
        let n = bytes.len().min(incoming.left as usize);
        if let Some(buf) = &mut self.bufs[itt] {
            let at = self.slots[itt].moved as usize;
            buf[at..at + n].copy_from_slice(&bytes[..n]);
        }
        incoming.left -= n as u32;
        self.slots[itt].moved += n as u32;
        let pad = if incoming.left == 0 { (bytes.len() - n).min(incoming.pad as usize) } else { 0 };
        incoming.pad -= pad as u32;
        let mut taken = n + pad;
        if let Some(digest) = &mut incoming.digest {
            digest.computed.update(&bytes[..taken]);
        }
        if incoming.left > 0 || incoming.pad > 0 {
            return Ok(taken);
        }
        if let Some(digest) = &mut incoming.digest {
            let m = (DIGEST_LEN - digest.got).min(bytes.len() - taken);
            digest.received[digest.got..digest.got + m].copy_from_slice(&bytes[taken..taken + m]);
            digest.got += m;
            taken += m;
            if digest.got < DIGEST_LEN {
                return Ok(taken);
            }
            self.slots[itt].digest_bad |= digest.received != digest.computed.finish().to_le_bytes();
        }
        self.finish_incoming(pool, out)?;
        Ok(taken)
    }

    #[inline]
    fn finish_incoming(&mut self, pool: &mut Pool, out: &mut Vec<Ended>) -> Result<(), Problem> {
        let incoming = self.incoming.take().expect("it was arriving");
        let Some((code, residual)) = incoming.status else { return Ok(()) };
        let result =
            if code == status::GOOD { Ok(()) } else { Err(Failure::Scsi(ScsiError { status: code, key: 0, asc: 0 })) };
        self.complete(incoming.itt, result, residual, pool, out)
    }

    /// Where the data that is arriving may be received to, when there is enough of it.
    pub fn landing(&mut self) -> Option<&mut [u8]> {
        let incoming = self.incoming.as_ref()?;
        if incoming.left < LANDING_MIN {
            return None;
        }
        let itt = usize::from(incoming.itt);
        let at = self.slots[itt].moved as usize;
        let left = incoming.left as usize;
        self.bufs[itt].as_mut().map(|buf| &mut buf[at..at + left])
    }

    /// `n` bytes came to the landing place.
    pub fn landed(&mut self, n: usize, now: Time, pool: &mut Pool, out: &mut Vec<Ended>) -> Result<(), Problem> {
        self.heard = now;
        let incoming = self.incoming.as_mut().expect("only what is arriving can land");
        assert!(n <= incoming.left as usize, "more landed than was to come");
        let itt = usize::from(incoming.itt);
        let at = self.slots[itt].moved as usize;
        let buf = self.bufs[itt].as_ref().expect("the landing place");
        if let Some(digest) = &mut incoming.digest {
            digest.computed.update(&buf[at..at + n]);
        }
        incoming.left -= n as u32;
        self.slots[itt].moved += n as u32;
        if incoming.left == 0 && incoming.pad == 0 && incoming.digest.is_none() {
            self.finish_incoming(pool, out)?;
        }
        Ok(())
    }

    #[inline]
    fn response(&mut self, pdu: &[u8], data: &[u8], pool: &mut Pool, out: &mut Vec<Ended>) -> Result<(), Problem> {
        let Ok((head, _)) = ScsiResponse::ref_from_prefix(pdu) else { return Err(Broken::Length.into()) };
        self.numbers(&head.numbers, true)?;
        let tag = head.itt.get();
        let slot = u16::try_from(tag).map_err(|_| Broken::Tag(tag))?;
        let code = if head.response == ScsiResponse::COMPLETED { head.status } else { status::TASK_ABORTED };
        let result = if code == status::GOOD { Ok(()) } else { Err(Failure::Scsi(failure(code, data))) };
        self.complete(slot, result, Residual::read(head.flags, head.residual.get()), pool, out)
    }

    /// Ends the command `itt`.
    #[inline]
    fn complete(
        &mut self,
        itt: u16,
        result: Result<(), Failure>,
        residual: Residual,
        pool: &mut Pool,
        out: &mut Vec<Ended>,
    ) -> Result<(), Problem> {
        let at = usize::from(itt);
        let slot = self.slots.get_mut(at).filter(|s| s.busy).ok_or(Broken::Tag(u32::from(itt)))?;
        let short = slot.len - slot.moved;
        if result.is_ok() && short != 0 && !(slot.short_ok && residual == Residual::Underflow(short)) {
            return Err(Broken::Short.into());
        }
        let result = if slot.digest_bad { result.and(Err(Failure::Digest)) } else { result };
        let (reads, moved) = (slot.reads, slot.moved);
        *slot = IDLE;
        self.under_way -= 1;
        let mut buf = self.bufs[at].take();
        if (result.is_err() || !reads)
            && let Some(unused) = buf.take()
        {
            pool.put(unused);
        }
        if let Some(buf) = buf.as_mut().filter(|_| short != 0) {
            buf.set_len(moved as usize);
        }
        out.push(Ended { queue: self.index, slot: itt, result, value: 0, buf });
        Ok(())
    }
}

/// Status and sense data of a SCSI Response: `SenseLength`, then fixed or descriptor format (SPC-4, 4.5).
fn failure(status: u8, data: &[u8]) -> ScsiError {
    let sense = data.get(2..).unwrap_or(&[]);
    let at = |i: usize| sense.get(i).copied().unwrap_or(0);
    let (key, asc) = match at(0) & 0x7f {
        0x70 | 0x71 => (at(2) & 0x0f, [at(12), at(13)]),
        0x72 | 0x73 => (at(1) & 0x0f, [at(2), at(3)]),
        _ => (0, [0, 0]),
    };
    ScsiError { status, key, asc: u16::from_be_bytes(asc) }
}
