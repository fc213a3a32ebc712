//! Data from the initiator (RFC 7143 11.7, 11.8): unsolicited bursts, R2Ts, where each Data-Out lands, and what is wrong
//! with it. A wrong Data-Out costs its command, which ends when the last data that was asked for has come; the connection
//! goes on.

use super::conn::{Conn, Rx};
use super::session::Session;
use super::stream::{Step, tail_ok};
use super::target::{Env, Target};
use super::tasks::{Inflow, Stage, Task, Work};
use crate::mem::Pool;
use crate::net::Tx;
use crate::volume::Volumes;
use crate::wire::iscsi::pdu::{DataOut, FINAL, R2t};
use crate::wire::iscsi::{BHS_LEN, DIGEST_LEN, Frame, Lun, NO_TAG, RejectReason, padding};
use crate::wire::scsi::{Asc, Key, Sense, asc};
use zerocopy::IntoBytes;

/// iSCSI conditions that end a command (11.4.7.2), as additional sense codes of ABORTED COMMAND.
pub(super) const UNEXPECTED_UNSOLICITED: Asc = 0x0c0c;
/// Incorrect amount of data.
pub(super) const INCORRECT_AMOUNT: Asc = 0x0c0d;

/// ABORTED COMMAND with a code.
pub(super) fn aborted(asc: Asc) -> Sense {
    Sense::new(Key::AbortedCommand, asc)
}

/// True when a buffer of `len` bytes may be set aside for data that is still to come. A quarter of each class is kept for
/// requests that can go on by themselves: buffers that wait for an initiator must not be what that initiator's other
/// requests wait for.
pub(super) fn spare(pool: &Pool, len: usize) -> bool {
    let fit = pool.stats().find(|class| class.size >= len && class.free > 0);
    fit.is_some_and(|class| (class.free - 1) * 4 >= class.total)
}

/// Takes the data that lands in a task away from it: the rest of it is skipped.
pub(super) fn divert(c: &mut Conn, place: u16) {
    let trailer = |len: u32| padding(len) + if c.rules.digests().data { DIGEST_LEN as u32 } else { 0 };
    let left = match c.rx {
        Rx::Land { task, from, at, to, .. } if task == place => to - at + trailer(to - from),
        Rx::Tail { task, from, to, .. } if task == place => trailer(to - from),
        _ => return,
    };
    c.rx = if left == 0 { Rx::Header } else { Rx::Skip { left } };
}

impl Inflow {
    /// Where the burst that `sn` (`None`: unsolicited) belongs to ends, if data of it may come now.
    fn burst_end(&self, sn: Option<u32>, max_burst: u32) -> Option<u32> {
        match sn {
            None => self.unsolicited.then_some(self.burst_end),
            Some(sn) => {
                let due = self.answered < self.r2ts && sn & 0x7f == self.answered & 0x7f;
                let of_part = u64::from(self.answered + 1 - self.r2ts_before);
                let end = u64::from(self.asked_from) + of_part * u64::from(max_burst);
                due.then_some(end.min(u64::from(self.need)) as u32)
            }
        }
    }

    /// The part that was collected has been taken; `need` bytes of what follows it are next.
    pub fn next_part(&mut self, need: u32) {
        *self = Inflow {
            base: self.base + self.need,
            r2ts_before: self.r2ts,
            need,
            got: 0,
            unsolicited: false,
            burst_end: 0,
            asked_from: 0,
            data_sn: 0,
            ..*self
        };
    }

    /// True while data that was announced or asked for has not come.
    fn open(&self) -> bool {
        self.unsolicited || self.answered < self.r2ts
    }
}

impl Target {
    /// A Data-Out: its data goes where the command or an R2T said.
    pub(super) fn data_out<V: Volumes>(
        &mut self,
        c: &mut Conn,
        data: &DataOut,
        frame: Frame,
        env: &mut Env<'_, V>,
    ) -> Step {
        let (itt, ttt, last) = (data.itt.get(), data.ttt.get(), data.flags & FINAL != 0);
        let place = if ttt == NO_TAG { c.tasks.find(itt) } else { c.tasks.by_ttt(ttt) };
        let session = c.session.and_then(|s| self.sessions.get(s)).expect("full feature phase has a session");
        let max_burst = session.params.max_burst;
        let known = place.filter(|p| {
            let task = c.tasks.at(*p);
            let burst = task.inflow.burst_end((ttt != NO_TAG).then_some(ttt >> 24), max_burst);
            task.stage == Stage::Data && task.asked.itt == itt && (burst.is_some() || ttt != NO_TAG)
        });
        let head = frame.head_len();
        let Some(place) = known else {
            // Data for a task that has ended (or never was): dropped without a word (11.7 lets late data be).
            self.stats.stray_data += 1;
            return skip(c, head, frame);
        };
        let task = c.tasks.at(place);
        let (from, before) = data.offset.get().overflowing_sub(task.inflow.base);
        let sn = data.data_sn.get();
        let (to, over) = from.overflowing_add(frame.data_len);
        let over = over || before;
        let burst = task.inflow.burst_end((ttt != NO_TAG).then_some(ttt >> 24), max_burst);
        let fault = match burst {
            _ if task.fault.is_some() => task.fault,
            // Sequences come in order: this one's turn is not now.
            None => Some(aborted(INCORRECT_AMOUNT)),
            Some(_) if sn != task.inflow.data_sn => Some(aborted(asc::DATA_CRC_ERROR)),
            Some(end) if over || from != task.inflow.got || to > end => Some(aborted(INCORRECT_AMOUNT)),
            Some(end) if ttt != NO_TAG && last != (to == end) => Some(aborted(INCORRECT_AMOUNT)),
            Some(_) => None,
        };
        if fault.is_some() {
            task.fault = fault;
            task.inflow.data_sn = task.inflow.data_sn.wrapping_add(1);
            let step = skip(c, head, frame);
            if last {
                self.burst_ended(c, place, env);
            }
            return step;
        }
        if frame.data_len == 0 {
            self.data_arrived(c, place, to, last, env);
            return Step::Took(head);
        }
        if c.rules.digests().data {
            c.data_header.copy_from_slice(&data.as_bytes()[..BHS_LEN]);
        }
        c.rx = Rx::Land { task: place, from, at: from, to, last };
        Step::Took(head)
    }

    /// Padding and digest behind data that has landed.
    pub(super) fn data_tail<V: Volumes>(
        &mut self,
        c: &mut Conn,
        (place, from, to, last): (u16, u32, u32, bool),
        rest: &[u8],
        env: &mut Env<'_, V>,
    ) -> Step {
        let digest = c.rules.digests().data;
        let need = padding(to - from) as usize + if digest { DIGEST_LEN } else { 0 };
        let Some(tail) = rest.get(..need) else { return Step::More };
        let task = c.tasks.at(place);
        let buf = task.buf.as_ref().expect("data landed in a buffer");
        if digest && !tail_ok(&buf[from as usize..to as usize], tail) {
            task.fault.get_or_insert(aborted(asc::DATA_CRC_ERROR));
            self.stats.data_digest_errors += 1;
            let header = c.data_header;
            self.reject(c, RejectReason::DataDigest, &header, env.tx);
        }
        self.data_arrived(c, place, to, last, env);
        Step::Took(need)
    }

    /// Data of a task up to byte `to` is there.
    pub(super) fn data_arrived<V: Volumes>(
        &mut self,
        c: &mut Conn,
        place: u16,
        to: u32,
        last: bool,
        env: &mut Env<'_, V>,
    ) {
        c.rx = Rx::Header;
        let task = c.tasks.at(place);
        task.inflow.got = to;
        task.inflow.data_sn += 1;
        if last {
            self.burst_ended(c, place, env);
        }
    }

    /// The last Data-Out of a burst was there.
    fn burst_ended<V: Volumes>(&mut self, c: &mut Conn, place: u16, env: &mut Env<'_, V>) {
        let task = c.tasks.at(place);
        let flow = &mut task.inflow;
        flow.data_sn = 0;
        if flow.unsolicited {
            flow.unsolicited = false;
        } else {
            flow.answered = (flow.answered + 1).min(flow.r2ts);
        }
        let whole = flow.got >= flow.need;
        if task.fault.is_some() || matches!(task.work, Work::Failed) {
            if !task.inflow.open() {
                self.fail(c, place, env);
            }
        } else if whole && !task.inflow.open() {
            if !self.execute(c, place, env) {
                self.queue(c, place);
            }
        } else if !whole {
            self.ask(c, place, env.tx);
        }
    }

    /// Sends the R2Ts that a task may have now.
    pub(super) fn ask(&mut self, c: &mut Conn, place: u16, tx: &mut Tx) {
        let session = c.session.and_then(|s| self.sessions.get(s)).expect("full feature phase has a session");
        solicit(c, session, place, tx);
    }

    /// Gets a task the buffer it waits for, and asks for its data. False: not now.
    pub(super) fn provide(&mut self, c: &mut Conn, place: u16, tx: &mut Tx, pool: &mut Pool) -> bool {
        let task = c.tasks.at(place);
        let len = task.inflow.need as usize;
        if !spare(pool, len) {
            return false;
        }
        let Some(buf) = pool.get(len) else { return false };
        (task.buf, task.stage) = (Some(buf), Stage::Data);
        self.ask(c, place, tx);
        true
    }
}

/// Asks for as much of a task's data as may be asked for at once.
fn solicit(c: &mut Conn, session: &Session, place: u16, tx: &mut Tx) {
    let numbers = c.out.numbers(session);
    let max_burst = session.params.max_burst;
    let task: &mut Task = c.tasks.at(place);
    if task.inflow.r2ts == task.inflow.r2ts_before {
        task.inflow.asked_from = task.inflow.got;
    }
    let flow = task.inflow;
    let mut sn = flow.r2ts;
    while sn - flow.answered < u32::from(session.params.max_outstanding_r2t) {
        let from = u64::from(flow.asked_from) + u64::from(sn - flow.r2ts_before) * u64::from(max_burst);
        if from >= u64::from(flow.need) {
            break;
        }
        let desired = (flow.need - from as u32).min(max_burst);
        let offset = flow.base + from as u32;
        let r2t = R2t::new(Lun::of(task.lun), task.asked.itt, task.ttt(place, sn), sn, offset, desired, numbers);
        c.out.put(tx, &r2t);
        sn += 1;
    }
    c.tasks.at(place).inflow.r2ts = sn;
}

/// Passes over the data of a PDU.
fn skip(c: &mut Conn, head: usize, frame: Frame) -> Step {
    let left = frame.tail_len() as u32;
    c.rx = if left == 0 { Rx::Header } else { Rx::Skip { left } };
    Step::Took(head)
}
