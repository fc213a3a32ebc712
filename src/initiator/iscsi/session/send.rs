//! Commands on their way out: headers from the command's fields, payload with the command and behind it as far as was
//! agreed, the rest by the target's R2Ts.

use super::{Broken, Problem, Session, Slot};
use crate::base::Time;
use crate::initiator::iscsi::cdb::{self, Cdb};
use crate::initiator::iscsi::login::Login;
use crate::initiator::iscsi::scan::Ask;
use crate::initiator::{Command, Op};
use crate::mem::{Buf, Pool};
use crate::net::Tx;
use crate::wire::iscsi::pdu::{
    DataOut, FINAL, Head, LogoutRequest, NopIn, NopOut, R2t, READ, SIMPLE, ScsiCommand, Tail, TextRequest, WRITE,
};
use crate::wire::iscsi::text::TextWriter;
use crate::wire::iscsi::{Digests, Frame, Key, LogoutReason, Lun, NO_TAG, Opcode, padding};
use zerocopy::big_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Initiator Task Tag of a ping.
pub(super) const PING_TAG: u32 = 0xffff_0000;
/// Initiator Task Tag of Text Requests.
pub(super) const TEXT_TAG: u32 = 0xffff_0001;
/// Initiator Task Tag of the Logout Request.
const LOGOUT_TAG: u32 = 0xffff_0002;

impl Session {
    /// Starts `command`; `payload` holds exactly a Write's or Compare's bytes, `block` is bytes per block. The caller saw
    /// room. Gives the payload back when no buffer is to be had.
    #[inline]
    pub fn submit(
        &mut self,
        command: &Command,
        block: u32,
        payload: Option<Buf>,
        now: Time,
        (tx, pool): (&mut Tx, &mut Pool),
    ) -> Result<(), Option<Buf>> {
        let Command { slot: itt, lba, blocks, .. } = *command;
        let payload = || payload.expect("a command with payload comes with its bytes");
        match command.op {
            Op::Read => {
                let bytes = blocks * block;
                let buf = if command.want_data { Some(pool.get(bytes as usize).ok_or(None)?) } else { None };
                self.command(itt, cdb::read(lba, blocks), bytes, buf, now, tx);
            }
            Op::Write => self.write(itt, cdb::write(lba, blocks), payload(), now, tx),
            Op::Compare => self.write(itt, cdb::compare(lba, blocks), payload(), now, tx),
            Op::Flush => self.command(itt, cdb::flush(), 0, None, now, tx),
            Op::WriteZeroes => self.command(itt, cdb::write_zeroes(lba, blocks), 0, None, now, tx),
            Op::Deallocate => {
                let (cdb, list) = cdb::unmap(lba, blocks);
                let mut buf = pool.get(list.len()).ok_or(None)?;
                buf.copy_from_slice(&list);
                self.write(itt, cdb, buf, now, tx);
            }
        }
        Ok(())
    }

    /// A command of the scan, under tag 0; its data may be shorter than asked for.
    pub fn ask(&mut self, ask: &Ask, now: Time, (tx, pool): (&mut Tx, &mut Pool)) {
        let buf = (ask.len > 0).then(|| pool.get(ask.len as usize).expect("the pool has room for one answer"));
        let unit = self.lun;
        if ask.any_unit {
            self.lun = Lun::of(0);
        }
        self.command(0, ask.cdb, ask.len, buf, now, tx);
        self.lun = unit;
        self.slots[0].short_ok = true;
    }

    /// A command without payload. `len`: bytes it will return.
    #[inline]
    fn command(&mut self, itt: u16, cdb: Cdb, len: u32, buf: Option<Buf>, now: Time, tx: &mut Tx) {
        let reads = len > 0;
        self.occupy(itt, reads, len, 0, now);
        self.bufs[usize::from(itt)] = buf;
        let flags = FINAL | SIMPLE | if reads { READ } else { 0 };
        let header = self.numbered(ScsiCommand::new(flags, self.lun, u32::from(itt), len, 0, cdb));
        head(&header, self.params.digests, tx);
    }

    /// A command with payload: what may go without being asked for goes now.
    #[inline]
    fn write(&mut self, itt: u16, cdb: Cdb, payload: Buf, now: Time, tx: &mut Tx) {
        let p = self.params;
        let len = payload.len() as u32;
        let immediate = if p.immediate_data { len.min(p.first_burst).min(p.send_max) } else { 0 };
        let burst = if p.initial_r2t { immediate } else { len.min(p.first_burst) };
        self.occupy(itt, false, len, burst, now);
        let flags = WRITE | SIMPLE | if burst == immediate { FINAL } else { 0 };
        let header = self.numbered(ScsiCommand::new(flags, self.lun, u32::from(itt), len, immediate, cdb));
        head(&header, p.digests, tx);
        let mut payload = Some(payload);
        if immediate > 0 {
            piece(&mut payload, 0, immediate, p.digests, tx);
        }
        self.data_out(itt, NO_TAG, (immediate, burst), &mut payload, tx);
        self.bufs[usize::from(itt)] = payload;
    }

    /// Takes the next `CmdSN` for `header`.
    #[inline]
    fn numbered(&mut self, mut header: ScsiCommand) -> ScsiCommand {
        header.cmd_sn = U32::new(self.cmd_sn);
        header.exp_stat_sn = U32::new(self.exp_stat_sn);
        self.cmd_sn = self.cmd_sn.wrapping_add(1);
        header
    }

    #[inline]
    fn occupy(&mut self, itt: u16, reads: bool, len: u32, moved: u32, now: Time) {
        let slot = &mut self.slots[usize::from(itt)];
        assert!(!slot.busy, "task tag {itt} is in use");
        *slot = Slot { busy: true, reads, digest_bad: false, short_ok: false, len, moved, next_sn: 0, sent: now };
        self.under_way += 1;
    }

    /// Data-Out PDUs for the bytes `from..to` of the command `itt`, in pieces that the target takes.
    fn data_out(&self, itt: u16, ttt: u32, (from, to): (u32, u32), payload: &mut Option<Buf>, tx: &mut Tx) {
        let (digests, step) = (self.params.digests, self.params.send_max);
        let (mut at, mut data_sn) = (from, 0);
        while at < to {
            let n = step.min(to - at);
            let mut header = DataOut::new(self.lun, u32::from(itt), ttt, data_sn, at, n, at + n == to);
            header.exp_stat_sn = U32::new(self.exp_stat_sn);
            head(&header, digests, tx);
            piece(payload, at, at + n, digests, tx);
            at += n;
            data_sn += 1;
        }
    }

    /// The target asks for a stretch of a command's payload.
    pub(super) fn r2t(&mut self, frame: &Frame, pdu: &[u8], tx: &mut Tx) -> Result<usize, Problem> {
        let Ok((r2t, _)) = R2t::ref_from_prefix(pdu) else { return Err(Broken::Length.into()) };
        self.numbers(&r2t.numbers, false)?;
        let tag = r2t.itt.get();
        let slot = self.slots.get_mut(tag as usize).filter(|s| s.busy && !s.reads).ok_or(Broken::Tag(tag))?;
        let (from, len) = (r2t.offset.get(), r2t.desired.get());
        if from != slot.moved || len == 0 || len > slot.len - slot.moved || len > self.params.max_burst {
            return Err(Broken::Offset(from).into());
        }
        if r2t.r2t_sn.get() != slot.next_sn {
            return Err(Broken::Number(r2t.r2t_sn.get()).into());
        }
        slot.moved += len;
        slot.next_sn += 1;
        let mut payload = self.bufs[tag as usize].take();
        self.data_out(tag as u16, r2t.ttt.get(), (from, from + len), &mut payload, tx);
        self.bufs[tag as usize] = payload;
        Ok(frame.end as usize)
    }

    /// The target pings, or answers a ping.
    pub(super) fn nop(&mut self, frame: &Frame, pdu: &[u8], tx: &mut Tx) -> Result<usize, Problem> {
        let Ok((nop, _)) = NopIn::ref_from_prefix(pdu) else { return Err(Broken::Length.into()) };
        let (itt, ttt) = (nop.itt.get(), nop.ttt.get());
        self.numbers(&nop.numbers, itt != NO_TAG)?;
        match itt {
            NO_TAG => {}
            PING_TAG if self.pinged.is_some() => self.pinged = None,
            other => return Err(Broken::Tag(other).into()),
        }
        if ttt != NO_TAG {
            let mut answer = NopOut::new(nop.lun, NO_TAG, ttt, 0);
            answer.cmd_sn = U32::new(self.cmd_sn);
            answer.exp_stat_sn = U32::new(self.exp_stat_sn);
            head(&answer, self.params.digests, tx);
        }
        Ok(frame.end as usize)
    }

    /// Pings the target.
    pub fn ping(&mut self, now: Time, tx: &mut Tx) {
        let mut ping = NopOut::new(Lun::of(0), PING_TAG, NO_TAG, 0);
        ping.cmd_sn = U32::new(self.cmd_sn);
        ping.exp_stat_sn = U32::new(self.exp_stat_sn);
        head(&ping, self.params.digests, tx);
        self.pinged = Some(now);
    }

    /// Asks for all targets; with the tag of a response, for the rest of its text.
    pub fn send_targets(&mut self, ttt: u32, tx: &mut Tx) {
        let mut text = [0; 32];
        let mut writer = TextWriter::new(&mut text);
        if ttt == NO_TAG {
            writer.push(Key::SendTargets.name(), "All").expect("the text fits");
        }
        let mut request = TextRequest::new(TEXT_TAG, ttt, writer.len() as u32);
        request.opcode |= Opcode::IMMEDIATE;
        request.cmd_sn = U32::new(self.cmd_sn);
        request.exp_stat_sn = U32::new(self.exp_stat_sn);
        head(&request, self.params.digests, tx);
        tx.head(writer.text());
        tx.head(Tail::of(writer.text(), self.params.digests).bytes());
    }

    /// Says goodbye; nothing is sent behind it.
    pub fn logout(&mut self, tx: &mut Tx) {
        let mut logout = LogoutRequest::new(LogoutReason::CloseSession, LOGOUT_TAG, 0);
        logout.opcode |= Opcode::IMMEDIATE;
        logout.cmd_sn = U32::new(self.cmd_sn);
        logout.exp_stat_sn = U32::new(self.exp_stat_sn);
        head(&logout, self.params.digests, tx);
    }

    pub(super) fn send_login(login: &Login, tx: &mut Tx) {
        let (request, text) = login.request();
        tx.head(request.as_bytes());
        tx.head(text);
        tx.head(&[0; 3][..padding(text.len() as u32) as usize]);
    }
}

/// Queues a header, with its digest where that is agreed.
#[inline]
fn head<T: IntoBytes + Immutable>(pdu: &T, digests: Digests, tx: &mut Tx) {
    if digests.header {
        tx.head(Head::of(pdu, digests).bytes());
    } else {
        tx.head(pdu.as_bytes());
    }
}

/// Queues `payload[from..to]`, its padding and digest. The buffer itself leaves with the payload's last piece; pieces
/// before it are copied.
#[inline]
fn piece(payload: &mut Option<Buf>, from: u32, to: u32, digests: Digests, tx: &mut Tx) {
    let (from, to) = (from as usize, to as usize);
    let buf = payload.take().expect("pieces end with the payload");
    let tail = Tail::of(&buf[from..to], digests);
    if to == buf.len() {
        tx.buf(buf, from, to);
    } else {
        tx.head(&buf[from..to]);
        *payload = Some(buf);
    }
    if !tail.bytes().is_empty() {
        tx.head(tail.bytes());
    }
}
