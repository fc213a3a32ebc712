//! The stream of a connection: finds PDUs, hands each to what the connection's state allows, moves payload into place,
//! and answers what is not allowed with a termination request (NVMe/TCP specification, sections 3.2 to 3.6).

use super::conn::{Conn, Rx, State};
use super::target::{Env, Target};
use crate::net::{Close, Tx};
use crate::volume::Volumes;
use crate::wire::nvme::sc;
use crate::wire::nvme_tcp::pdu::{self, Data, IcReq, IcResp, TermReq};
use crate::wire::nvme_tcp::{DIGEST_LEN, Digests, Fault, Fes, Frame, Kind, Receiver, Side, digest_ok};
use zerocopy::{FromBytes, IntoBytes};

/// What became of the front of a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// So many bytes are dealt with.
    Took(usize),
    /// More bytes are needed.
    More,
    /// Buffers or room are short: the same bytes again next turn.
    Blocked,
}

/// In-capsule data that the admin queue, and a queue before its Connect, takes: fixed by the transport specification.
pub(super) const ADMIN_CAPSULE: u32 = 8192;

impl Target {
    /// Deals with the next bytes of a stream; returns how many.
    pub(super) fn stream<V: Volumes>(&mut self, c: &mut Conn, bytes: &[u8], env: &mut Env<'_, V>) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            if env.tx.len() > self.config.unsent_bytes && c.state() != State::Closing {
                // A host that does not read its answers gets no further commands in.
                self.block(c);
                break;
            }
            let rest = &bytes[at..];
            let step = match (c.rx, c.state()) {
                (_, State::Closing) => return bytes.len(),
                (_, State::Attaching { .. }) | (Rx::Land { .. }, _) => break,
                (Rx::Header, _) => self.pdu(c, rest, env),
                (Rx::Digest { slot, from, to }, _) => self.digest(c, (slot, from, to), rest, env),
                (Rx::Skip { left }, _) => {
                    let n = rest.len().min(left as usize);
                    let left = left - n as u32;
                    c.rx = if left == 0 { Rx::Header } else { Rx::Skip { left } };
                    Step::Took(n)
                }
            };
            match step {
                Step::Took(n) => at += n,
                Step::More => break,
                Step::Blocked => {
                    self.block(c);
                    break;
                }
            }
        }
        at
    }

    /// Stops reading a connection until the next turn.
    fn block(&mut self, c: &mut Conn) {
        c.blocked = self.turn;
        self.starved = true;
        self.stats.waits += 1;
    }

    /// One PDU at the front of `rest`.
    #[inline]
    fn pdu<V: Volumes>(&mut self, c: &mut Conn, rest: &[u8], env: &mut Env<'_, V>) -> Step {
        if c.state() == State::Fresh
            && let Some(kind) = rest.first().and_then(|k| Kind::of(*k))
            && matches!(kind, Kind::CapsuleCmd | Kind::H2cData)
        {
            return self.fault(c, Fault::plain(Fes::SequenceError), rest, env.tx);
        }
        let frame = match c.rules.frame(rest) {
            Ok(Some(frame)) => frame,
            Ok(None) => return Step::More,
            Err(fault) => return self.fault(c, fault, rest, env.tx),
        };
        match (frame.kind, c.state()) {
            (Kind::CapsuleCmd, State::Io(_)) => self.io_capsule(c, rest, frame, env),
            (Kind::H2cData, State::Io(_)) => self.h2c_data(c, rest, frame, env.tx),
            (Kind::CapsuleCmd, State::Admin(_) | State::Ready) => self.admin_capsule(c, rest, frame, env),
            (Kind::IcReq, State::Fresh) => self.handshake(c, rest, env.tx),
            (Kind::H2cTermReq, _) => {
                // The host says why it ends the connection; there is nothing to answer.
                self.end(c, Close::Now);
                Step::Took(rest.len())
            }
            _ => self.fault(c, Fault::plain(Fes::SequenceError), rest, env.tx),
        }
    }

    /// Ends a connection for `fault` of the PDU at the front of `rest` (section 3.6.2.5).
    pub(super) fn fault(&mut self, c: &mut Conn, fault: Fault, rest: &[u8], tx: &mut Tx) -> Step {
        self.stats.fault(fault.fes);
        let claimed = usize::from(rest.get(2).copied().unwrap_or(8)).max(8);
        let header = &rest[..claimed.min(TermReq::DATA_MAX).min(rest.len())];
        tx.head(TermReq::new(Kind::C2hTermReq, fault, header.len()).as_bytes());
        tx.head(header);
        self.end(c, Close::AfterSend);
        Step::Took(rest.len())
    }

    /// ICReq: agree on digests, alignment and limits.
    fn handshake(&mut self, c: &mut Conn, rest: &[u8], tx: &mut Tx) -> Step {
        let Ok((req, _)) = IcReq::ref_from_prefix(rest) else { return Step::More };
        if req.pfv.get() != 0 {
            return self.fault(c, Fault { fes: Fes::UnsupportedParameter, fei: 8 }, rest, tx);
        }
        if req.hpda > 31 {
            return self.fault(c, Fault::field(10), rest, tx);
        }
        let ours = Digests { header: self.config.header_digest, data: self.config.data_digest };
        let digests = Digests::from_bits(req.dgst).both(ours);
        let align = (u32::from(req.hpda) + 1) * 4;
        c.out.digests = digests;
        c.out.align = align;
        // A 24-byte header needs no padding when the alignment divides it.
        c.out.plain = !digests.header && 24u32.is_multiple_of(align);
        let (cpda, most) = (self.config.cpda, self.config.h2c_data_bytes);
        c.rules = Receiver::agreed(Side::Controller, digests, cpda, ADMIN_CAPSULE, most);
        tx.head(IcResp::new(cpda, digests, most).as_bytes());
        c.enter(State::Ready);
        Step::Took(size_of::<IcReq>())
    }

    /// H2CData: its data goes where its R2T said.
    fn h2c_data(&mut self, c: &mut Conn, rest: &[u8], frame: Frame, tx: &mut Tx) -> Step {
        let Ok((data, _)) = Data::ref_from_prefix(rest) else { return Step::More };
        let (offset, ttag) = (data.datao.get(), data.ttag.get());
        let end = offset + frame.data_len;
        let index = ttag & 0x3ff;
        let slot = c.slots.get(index).filter(|s| s.awaits(ttag));
        let fault = match slot {
            None => Fault::field(10),
            Some(s) if s.cid != data.cccid.get() => Fault::field(8),
            Some(s) if offset != s.got || end > s.len => Fault::plain(Fes::OutOfRange),
            Some(s) if (frame.flags & pdu::LAST_PDU != 0) != (end == s.len) => Fault::field(1),
            Some(_) => {
                c.rx = Rx::Land { slot: index, from: offset, at: offset, to: end };
                return Step::Took(frame.data_at as usize);
            }
        };
        self.fault(c, fault, rest, tx)
    }

    /// `n` bytes arrived in the place the connection's next data goes.
    pub(super) fn landed<V: Volumes>(&mut self, c: &mut Conn, n: u32, env: &mut Env<'_, V>) {
        let Rx::Land { slot, from, at, to } = c.rx else { return };
        let at = at + n;
        assert!(at <= to, "more landed than was asked for");
        if at < to {
            c.rx = Rx::Land { slot, from, at, to };
        } else if c.rules.digests().data {
            c.rx = Rx::Digest { slot, from, to };
        } else {
            self.arrived(c, slot, to, env);
        }
    }

    /// The digest behind data that has landed. A wrong one fails the command, not the connection.
    fn digest<V: Volumes>(
        &mut self,
        c: &mut Conn,
        (index, from, to): (u16, u32, u32),
        rest: &[u8],
        env: &mut Env<'_, V>,
    ) -> Step {
        let Some(received) = rest.get(..DIGEST_LEN) else { return Step::More };
        let slot = c.landing_slot(index);
        let buf = slot.buf.as_ref().expect("data landed in a buffer");
        if !digest_ok(&buf[from as usize..to as usize], received) {
            if slot.status == 0 {
                slot.status = sc::TRANSIENT_TRANSPORT.field(false);
            }
            self.stats.data_digest_errors += 1;
        }
        self.arrived(c, index, to, env);
        Step::Took(DIGEST_LEN)
    }

    /// Data of a slot up to byte `to` is there; all of it starts the command.
    fn arrived<V: Volumes>(&mut self, c: &mut Conn, index: u16, to: u32, env: &mut Env<'_, V>) {
        c.rx = Rx::Header;
        let slot = c.landing_slot(index);
        slot.got = to;
        if to == slot.len && !self.execute(c, index, env) {
            self.queue(c, index);
        }
    }
}
