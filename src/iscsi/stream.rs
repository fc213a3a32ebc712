//! The stream of a connection: finds PDUs, hands each to what the connection's state allows, moves payload into place, and
//! answers what is not allowed (RFC 7143 chapter 7, error recovery level 0).

use super::conn::{Conn, Parcel, Rx, State};
use super::session::Turn;
use super::target::{Env, Target};
use crate::mem::Pool;
use crate::net::{CARRY_MAX, Close, Tx};
use crate::volume::Volumes;
use crate::wire::iscsi::pdu::{self, DataOut, LoginRequest, Reject, ScsiCommand};
use crate::wire::iscsi::{BHS_LEN, DIGEST_LEN, Fault, Frame, Opcode, RejectReason, padding};
use zerocopy::FromBytes;

/// What became of the front of a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// So many bytes are dealt with.
    Took(usize),
    /// More bytes are needed.
    More,
    /// Buffers, room or an earlier command are missing: the same bytes again next turn.
    Blocked,
}

/// What becomes of a request.
#[derive(Debug)]
pub(super) enum Verdict<'a> {
    /// It is dealt with.
    Done,
    /// Later: buffers, room or an earlier command are missing. What came with it is handed back.
    Later(Segment<'a>),
}

/// The data segment of a request.
#[derive(Debug)]
pub(super) enum Segment<'a> {
    /// In the receive window.
    Here(&'a [u8]),
    /// In a buffer, which may be longer than the data: so many bytes.
    Owned(crate::mem::Buf, u32),
}

impl Segment<'_> {
    /// The bytes.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Segment::Here(bytes) => bytes,
            Segment::Owned(buf, len) => &buf[..*len as usize],
        }
    }
    /// How many.
    #[inline]
    pub fn len(&self) -> u32 {
        match self {
            Segment::Here(bytes) => bytes.len() as u32,
            Segment::Owned(_, len) => *len,
        }
    }
    /// Gives its buffer back.
    #[inline]
    pub fn discard(self, pool: &mut Pool) {
        if let Segment::Owned(buf, _) = self {
            pool.put(buf);
        }
    }
}

impl Target {
    /// Deals with the next bytes of a stream; returns how many.
    pub(super) fn stream<V: Volumes>(&mut self, c: &mut Conn, bytes: &[u8], env: &mut Env<'_, V>) -> usize {
        c.heard = env.now;
        let mut at = 0;
        while at < bytes.len() {
            if env.tx.len() > self.config.unsent_bytes && c.state() != State::Closing {
                // An initiator that does not read its answers gets no further commands in.
                self.block(c);
                break;
            }
            let rest = &bytes[at..];
            let step = match (c.rx, c.state()) {
                (_, State::Closing) => return bytes.len(),
                (_, State::Moving { .. } | State::Waiting | State::Leaving)
                | (Rx::Land { .. } | Rx::Collect { .. } | Rx::Parked, _) => break,
                (Rx::Header, _) => self.pdu(c, rest, env),
                (Rx::Tail { task, from, to, last }, _) => self.data_tail(c, (task, from, to, last), rest, env),
                (Rx::Sealed, _) => self.sealed(c, rest, env),
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
        let frame = match c.rules.frame(rest) {
            Ok(Some(frame)) => frame,
            Ok(None) => return Step::More,
            Err(fault) => return self.unframed(c, fault, rest, env.tx),
        };
        if c.state() == State::Login && self.belongs_elsewhere(c, rest) {
            // Nothing of it is taken here: the session's core reads the request from its beginning.
            return Step::More;
        }
        if frame.opcode == Some(Opcode::DataOut) && c.state() == State::Full {
            let data = DataOut::ref_from_prefix(rest).expect("a frame has a header").0;
            return self.data_out(c, data, frame, env);
        }
        let end = frame.end as usize;
        if rest.len() < end {
            return if end <= CARRY_MAX { Step::More } else { self.collect(c, rest, frame, env) };
        }
        let segment = &rest[frame.data_at as usize..][..frame.data_len as usize];
        if frame.data_digest {
            let (padded, digest) = rest[frame.data_at as usize..end].split_at(frame.padded_len());
            if !pdu::data_digest_ok(padded, digest) {
                self.stats.data_digest_errors += 1;
                self.reject(c, RejectReason::DataDigest, rest, env.tx);
                return Step::Took(end);
            }
        }
        let bhs = rest.first_chunk::<BHS_LEN>().expect("a frame has a header");
        match self.request(c, bhs, Segment::Here(segment), env) {
            Verdict::Done => Step::Took(if c.state() == State::Closing { rest.len() } else { end }),
            Verdict::Later(_) => Step::Blocked,
        }
    }

    /// A request with its whole data.
    #[inline]
    pub(super) fn request<'a, V: Volumes>(
        &mut self,
        c: &mut Conn,
        bhs: &[u8; BHS_LEN],
        data: Segment<'a>,
        env: &mut Env<'_, V>,
    ) -> Verdict<'a> {
        let opcode = Opcode::of(bhs[0] & Opcode::MASK);
        match (opcode, c.state()) {
            (Some(Opcode::ScsiCommand), State::Full) => {
                self.scsi_command(c, ScsiCommand::ref_from_bytes(bhs).expect("48 bytes"), data, env)
            }
            (_, State::Full) => self.other_request(c, bhs, data, env),
            (opcode, _) => {
                let request = LoginRequest::ref_from_bytes(bhs).expect("48 bytes");
                if opcode == Some(Opcode::LoginRequest) {
                    self.login_request(c, request, data.bytes(), env);
                } else {
                    self.not_a_login(c, request, env.tx);
                }
                data.discard(env.pool);
                Verdict::Done
            }
        }
    }

    /// Where a request stands by its number: `None` to go on (the number is taken), else what becomes of it. Immediate
    /// requests have no place of their own.
    #[inline]
    pub(super) fn in_turn(&mut self, c: &mut Conn, immediate: bool, cmd_sn: u32) -> Turn {
        if immediate {
            return Turn::Now;
        }
        let session = c.session.and_then(|s| self.sessions.get(s)).expect("full feature phase has a session");
        let turn = session.turn(cmd_sn);
        match turn {
            Turn::Now | Turn::Later => {}
            Turn::Never => self.stats.out_of_window += 1,
        }
        turn
    }

    /// A PDU that does not fit the window and is needed as a whole.
    fn collect<V: Volumes>(&mut self, c: &mut Conn, rest: &[u8], frame: Frame, env: &mut Env<'_, V>) -> Step {
        let bhs = *rest.first_chunk::<BHS_LEN>().expect("a frame has a header");
        let mut len = frame.data_len;
        if frame.opcode == Some(Opcode::ScsiCommand) {
            // A command's buffer has room for the data that follows.
            let expected = u32::from_be_bytes([bhs[20], bhs[21], bhs[22], bhs[23]]);
            len = len.max(expected.min(crate::base::limits::IO_BYTES_MAX as u32));
        }
        if len as usize > crate::base::limits::IO_BYTES_MAX {
            self.reject(c, RejectReason::InvalidField, rest, env.tx);
            c.rx = Rx::Skip { left: frame.tail_len() as u32 };
            return Step::Took(frame.head_len());
        }
        if !super::dataout::spare(env.pool, len as usize) {
            return Step::Blocked;
        }
        let Some(buf) = env.pool.get(len as usize) else { return Step::Blocked };
        c.parcel = Some(Box::new(Parcel { bhs, buf, len: frame.data_len }));
        c.rx = Rx::Collect { at: 0, to: frame.data_len };
        Step::Took(frame.head_len())
    }

    /// Padding and digest of a collected PDU.
    fn sealed<V: Volumes>(&mut self, c: &mut Conn, rest: &[u8], env: &mut Env<'_, V>) -> Step {
        let parcel = c.parcel.as_mut().expect("a parcel is being collected");
        let (pad, digest) = (padding(parcel.len) as usize, c.rules.digests().data);
        let need = pad + if digest { DIGEST_LEN } else { 0 };
        let Some(tail) = rest.get(..need) else { return Step::More };
        if digest && !tail_ok(&parcel.buf[..parcel.len as usize], tail) {
            let parcel = c.parcel.take().expect("looked at above");
            self.stats.data_digest_errors += 1;
            self.reject(c, RejectReason::DataDigest, &parcel.bhs, env.tx);
            env.pool.put(parcel.buf);
            c.rx = Rx::Header;
            return Step::Took(need);
        }
        self.deliver(c, env);
        Step::Took(need)
    }

    /// Hands a collected PDU on; it is parked when its time has not come.
    pub(super) fn deliver<V: Volumes>(&mut self, c: &mut Conn, env: &mut Env<'_, V>) {
        let Some(parcel) = c.parcel.take() else { return };
        let Parcel { bhs, buf, len } = *parcel;
        c.rx = Rx::Header;
        match self.request(c, &bhs, Segment::Owned(buf, len), env) {
            Verdict::Done => {}
            Verdict::Later(Segment::Owned(buf, len)) => {
                c.parcel = Some(Box::new(Parcel { bhs, buf, len }));
                c.rx = Rx::Parked;
                self.parked.push_back(c.id);
            }
            Verdict::Later(Segment::Here(_)) => unreachable!("it is handed back as it was given"),
        }
    }

    /// `n` bytes arrived in the place the connection's next data goes.
    pub(super) fn landed<V: Volumes>(&mut self, c: &mut Conn, n: u32, env: &mut Env<'_, V>) {
        c.heard = env.now;
        let digest = c.rules.digests().data;
        match c.rx {
            Rx::Land { task, from, at, to, last } => {
                let at = at + n;
                assert!(at <= to, "more landed than was asked for");
                if at < to {
                    c.rx = Rx::Land { task, from, at, to, last };
                } else if digest || padding(to - from) != 0 {
                    c.rx = Rx::Tail { task, from, to, last };
                } else {
                    self.data_arrived(c, task, to, last, env);
                }
            }
            Rx::Collect { at, to } => {
                let at = at + n;
                assert!(at <= to, "more landed than was asked for");
                if at < to {
                    c.rx = Rx::Collect { at, to };
                } else if digest || padding(to) != 0 {
                    c.rx = Rx::Sealed;
                } else {
                    self.deliver(c, env);
                }
            }
            _ => {}
        }
    }

    /// A stream that can not be followed any further: the connection ends (7.8, 7.9 at error recovery level 0).
    fn unframed(&mut self, c: &mut Conn, fault: Fault, rest: &[u8], tx: &mut Tx) -> Step {
        self.stats.protocol_errors += 1;
        match fault {
            Fault::HeaderDigest => {
                self.stats.header_digest_errors += 1;
                self.end(c, Close::Now);
            }
            Fault::AhsTooLong(_) | Fault::DataTooLong(_) => {
                let Some(bhs) = rest.first_chunk::<BHS_LEN>() else { return Step::More };
                if c.state() == State::Full {
                    self.reject(c, RejectReason::InvalidField, bhs, tx);
                    self.end(c, Close::AfterSend);
                } else {
                    self.not_a_login(c, LoginRequest::ref_from_bytes(bhs).expect("48 bytes"), tx);
                }
            }
        }
        Step::Took(rest.len())
    }

    /// Rejects the PDU whose header begins `pdu` (11.17).
    pub(super) fn reject(&mut self, c: &mut Conn, reason: RejectReason, pdu: &[u8], tx: &mut Tx) {
        self.stats.rejects += 1;
        let Some(session) = c.session.and_then(|s| self.sessions.get(s)) else { return };
        let numbers = c.out.status(session);
        let header = &pdu[..BHS_LEN];
        c.out.put_data(tx, &Reject::new(reason, numbers, BHS_LEN as u32), header);
    }
}

/// True when `tail`, padding and digest, fits the data before it.
pub(super) fn tail_ok(data: &[u8], tail: &[u8]) -> bool {
    let (pad, digest) = tail.split_at(tail.len() - DIGEST_LEN);
    let mut crc = crate::base::crc::Crc32c::new();
    crc.update(data);
    crc.update(pad);
    digest == crc.finish().to_le_bytes()
}
