//! SCSI commands: from the PDU to the unit, from there to the volumes, and the answer when it is there at once. This is
//! the hot path: no lookup but array indices, no allocation, no copy of payload.

use super::conn::Conn;
use super::dataout::{INCORRECT_AMOUNT, UNEXPECTED_UNSOLICITED, aborted, spare};
use super::lu::{self, Begin, End, Io};
use super::respond::answer;
use super::session::{SessionRef, Turn};
use super::stream::{Segment, Verdict};
use super::target::{Env, Target};
use super::tasks::{Asked, Inflow, Stage, Work};
use crate::base::Time;
use crate::base::limits::IO_BYTES_MAX;
use crate::volume::{Kind, Payload, Request, Submit, Volumes};
use crate::wire::iscsi::pdu::{self, ScsiCommand};
use crate::wire::iscsi::{NO_TAG, Opcode, RejectReason};
use crate::wire::scsi::{Cdb, Sense, asc};
use zerocopy::IntoBytes;

/// A command on its way to a task.
#[derive(Clone, Copy)]
struct Command {
    asked: Asked,
    /// Unsolicited Data-Out PDUs follow.
    follows: bool,
    lun: u16,
    session: SessionRef,
}

impl Target {
    /// A SCSI command with its immediate data.
    #[inline]
    pub(super) fn scsi_command<'a, V: Volumes>(
        &mut self,
        c: &mut Conn,
        cmd: &ScsiCommand,
        data: Segment<'a>,
        env: &mut Env<'_, V>,
    ) -> Verdict<'a> {
        let session = c.session.expect("full feature phase has a session");
        let asked = Asked {
            itt: cmd.itt.get(),
            expected: cmd.expected.get(),
            read: cmd.flags & pdu::READ != 0,
            write: cmd.flags & pdu::WRITE != 0,
            immediate: cmd.opcode & Opcode::IMMEDIATE != 0,
        };
        match self.in_turn(c, asked.immediate, cmd.cmd_sn.get()) {
            Turn::Now => {}
            Turn::Later => return Verdict::Later(data),
            Turn::Never => {
                data.discard(env.pool);
                return Verdict::Done;
            }
        }
        let follows = cmd.flags & pdu::FINAL == 0;
        let refused = if asked.itt == NO_TAG || c.target.is_none() {
            Some(RejectReason::Protocol)
        } else if c.tasks.has(asked.itt) {
            Some(RejectReason::TaskInProgress)
        } else if asked.immediate && c.tasks.immediates() >= self.config.immediates {
            Some(RejectReason::TooManyImmediate)
        } else {
            None
        };
        if let Some(reason) = refused {
            self.took(session, asked.immediate);
            self.ended(session, asked.immediate);
            self.reject(c, reason, cmd.as_bytes(), env.tx);
            data.discard(env.pool);
            return Verdict::Done;
        }
        let lun = cmd.lun.number();
        let command = Command { asked, follows, lun: lun.unwrap_or(0), session };
        if let Some(sense) = self.unsolicited_fault(&command, data.len()) {
            data.discard(env.pool);
            self.took(session, asked.immediate);
            if follows {
                let place = self.occupy(c, &command, Work::Failed, env.now);
                let task = c.tasks.at(place);
                (task.stage, task.fault) = (Stage::Data, Some(sense));
                task.inflow = Inflow { unsolicited: true, burst_end: u32::MAX, ..Inflow::default() };
            } else {
                self.answer_now(c, &command, 0, End::check(sense), env);
            }
            return Verdict::Done;
        }
        match self.begin(session, lun, &cmd.cdb, asked.write.then(|| asked.offered()), env) {
            Begin::Io(io) => self.io(c, &command, io, data, env),
            Begin::End(end) => {
                data.discard(env.pool);
                self.took(session, asked.immediate);
                self.answer_now(c, &command, 0, end, env);
                Verdict::Done
            }
            Begin::Program(program, wants) => {
                // What is more than a buffer holds comes part after part.
                let need = wants.min(asked.offered()).min(IO_BYTES_MAX as u32);
                self.with_data(c, &command, Work::Fresh(program), (need, wants), data, env)
            }
            Begin::Later => Verdict::Later(data),
        }
    }

    /// What the unit makes of a CDB.
    #[inline]
    fn begin<V: Volumes>(
        &mut self,
        own: SessionRef,
        lun: Option<u16>,
        cdb: &Cdb,
        data_out: Option<u32>,
        env: &mut Env<'_, V>,
    ) -> Begin {
        let session = self.sessions.get(own).expect("a connection's session outlives it");
        let Some(place) = session.node else { return lu::absent(&[], cdb, env.pool) };
        let units = &self.snapshot.targets[place].luns;
        let Some(at) = lun.and_then(|l| super::units::place_of(units, l)) else {
            return lu::absent(units, cdb, env.pool);
        };
        let volumes = &*env.volumes;
        let mut cx = lu::Cx {
            unit: &units[at],
            units,
            nexus: lu::Nexus { who: &session.who, group: session.nexus.tag },
            data_out,
            reservations: volumes.reservations(units[at].info.id),
            elsewhere: &|volume| volumes.reservations(volume),
            state: &mut self.nodes[place].states[at],
            attentions: &mut session.attentions[at],
            pool: env.pool,
        };
        lu::begin(&mut cx, cdb)
    }

    /// What is wrong with unsolicited data (11.3.1, 11.4.7.2).
    #[inline]
    fn unsolicited_fault(&mut self, command: &Command, immediate: u32) -> Option<Sense> {
        if immediate == 0 && !command.follows {
            return None;
        }
        let params = &self.sessions.get(command.session).expect("a connection's session outlives it").params;
        let most = params.first_burst.min(command.asked.offered());
        if immediate > 0 && (!params.immediate_data || !command.asked.write) {
            return Some(aborted(UNEXPECTED_UNSOLICITED));
        }
        if command.follows && (params.initial_r2t || !command.asked.write) {
            return Some(aborted(UNEXPECTED_UNSOLICITED));
        }
        (immediate > most).then_some(aborted(INCORRECT_AMOUNT))
    }

    /// A plain block request.
    #[inline]
    fn io<'a, V: Volumes>(
        &mut self,
        c: &mut Conn,
        command: &Command,
        mut io: Io,
        data: Segment<'a>,
        env: &mut Env<'_, V>,
    ) -> Verdict<'a> {
        let asked = &command.asked;
        let immediate = asked.immediate;
        let from_host = matches!(io.kind, Kind::Write | Kind::Compare);
        if io.kind == Kind::Read && asked.room() == 0 {
            // All of it is overflow: there is nothing to read for.
            data.discard(env.pool);
            self.took(command.session, immediate);
            self.answer_nothing(c, command, io.bytes, env);
            return Verdict::Done;
        }
        let wants = if from_host { io.bytes } else { 0 };
        if from_host {
            let need = io.bytes.min(asked.offered());
            let size = io.bytes / io.blocks.max(1);
            if need == 0 || !need.is_multiple_of(size) {
                data.discard(env.pool);
                self.took(command.session, immediate);
                let end = if need == 0 { End::GOOD } else { End::check(Sense::illegal(asc::INVALID_FIELD_IN_IU)) };
                self.answer_now(c, command, wants, end, env);
                return Verdict::Done;
            }
            io.blocks = need / size;
            io.bytes = need;
            if data.len() < need {
                return self.with_data(c, command, Work::Io(io), (need, wants), data, env);
            }
        }
        let place = c.tasks.peek().expect("the window is smaller than the table");
        let request = self.request_of(command, &io, c.tag + u64::from(place));
        let mut again: &'a [u8] = &[];
        let mut whole = 0;
        let payload = match data {
            Segment::Here(bytes) => {
                again = bytes;
                if from_host { Payload::Borrowed(&bytes[..io.bytes as usize]) } else { Payload::None }
            }
            Segment::Owned(mut buf, len) if from_host => {
                whole = len;
                buf.set_len(io.bytes as usize);
                Payload::Owned(buf)
            }
            Segment::Owned(buf, _) => {
                env.pool.put(buf);
                Payload::None
            }
        };
        match env.volumes.submit(request, payload, env.pool) {
            Submit::Done(done) => {
                self.took(command.session, immediate);
                let end =
                    self.finish(command.session, command.lun, &io, (done.status, done.detail), done.buf, env.pool);
                self.answer_now(c, command, wants, end, env);
            }
            Submit::Pending => {
                self.took(command.session, immediate);
                self.occupy(c, command, Work::Io(io), env.now);
                let task = c.tasks.at(place);
                (task.stage, task.since, task.volume, task.wants) = (Stage::Volume, env.now, request.volume, wants);
                c.pending += 1;
                self.pending += 1;
            }
            Submit::Later(Some(mut buf)) => {
                buf.set_len(whole as usize);
                return Verdict::Later(Segment::Owned(buf, whole));
            }
            Submit::Later(None) => return Verdict::Later(Segment::Here(again)),
        }
        Verdict::Done
    }

    /// The request of a plain command.
    #[inline]
    fn request_of(&mut self, command: &Command, io: &Io, tag: u64) -> Request {
        let volume = self.volume_of(command.session, command.lun).expect("the unit was there a moment ago");
        Request { volume, kind: io.kind, lba: io.lba, blocks: io.blocks, fua: io.fua, tag }
    }
    /// A command that takes data: it starts when all of it is here, or becomes a task that collects it. `need` bytes of
    /// what it `wants` come.
    fn with_data<'a, V: Volumes>(
        &mut self,
        c: &mut Conn,
        command: &Command,
        work: Work,
        (need, wants): (u32, u32),
        data: Segment<'a>,
        env: &mut Env<'_, V>,
    ) -> Verdict<'a> {
        let (asked, got) = (command.asked, data.len());
        let burst = self.sessions.get(command.session).map_or(0, |s| s.params.first_burst).min(asked.offered());
        let room = if command.follows { need.max(burst) } else { need.max(got) } as usize;
        if room > IO_BYTES_MAX {
            self.cancel(work);
            data.discard(env.pool);
            self.took(command.session, asked.immediate);
            self.answer_now(c, command, wants, End::check(aborted(INCORRECT_AMOUNT)), env);
            return Verdict::Done;
        }
        let asks = need > 0 && got == 0 && !command.follows;
        let buf = match data {
            Segment::Here(_) if room == 0 || asks => None,
            Segment::Here(bytes) => {
                let whole = got >= need && !command.follows;
                let buf = if whole || spare(env.pool, room) { env.pool.get(room) } else { None };
                let Some(mut buf) = buf else {
                    self.cancel(work);
                    return Verdict::Later(Segment::Here(bytes));
                };
                buf[..bytes.len()].copy_from_slice(bytes);
                Some(buf)
            }
            Segment::Owned(mut buf, len) => {
                if buf.capacity() < room {
                    let Some(mut larger) = env.pool.get(room) else {
                        self.cancel(work);
                        return Verdict::Later(Segment::Owned(buf, len));
                    };
                    larger[..len as usize].copy_from_slice(&buf[..len as usize]);
                    env.pool.put(core::mem::replace(&mut buf, larger));
                }
                buf.set_len(room);
                Some(buf)
            }
        };
        self.took(command.session, asked.immediate);
        let place = self.occupy(c, command, work, env.now);
        let task = c.tasks.at(place);
        (task.buf, task.wants) = (buf, wants);
        task.inflow = Inflow { need, got, unsolicited: command.follows, burst_end: burst, ..Inflow::default() };
        if command.follows {
            task.stage = Stage::Data;
        } else if got >= need {
            if !self.execute(c, place, env) {
                self.queue(c, place);
            }
        } else if asks {
            task.stage = Stage::Buffer;
            if !self.provide(c, place, env.tx, env.pool) {
                self.queue(c, place);
            }
        } else {
            task.stage = Stage::Data;
            self.ask(c, place, env.tx);
        }
        Verdict::Done
    }

    /// Takes a place for a command's task.
    fn occupy(&mut self, c: &mut Conn, command: &Command, work: Work, now: Time) -> u16 {
        let place = c.tasks.peek().expect("the window is smaller than the table");
        c.tasks.occupy(command.asked, command.lun, self.serial, work).came = now;
        self.serial += 1;
        place
    }

    /// Answers a command that never became a task.
    #[inline]
    fn answer_now<V>(&mut self, c: &mut Conn, command: &Command, wants: u32, end: End, env: &mut Env<'_, V>) {
        let session = self.sessions.get(command.session).expect("a connection's session outlives it");
        if let Some(node) = session.node {
            self.nodes[node].count(0);
        }
        answer(c, session, &command.asked, wants, end, env.tx, env.pool);
    }

    /// Answers a read that has `bytes` for an initiator without room for any.
    fn answer_nothing<V>(&mut self, c: &mut Conn, command: &Command, bytes: u32, env: &mut Env<'_, V>) {
        let session = self.sessions.get(command.session).expect("a connection's session outlives it");
        // Counted as a transfer that finds no room.
        let asked = Asked { write: false, ..command.asked };
        answer(c, session, &asked, bytes, End::GOOD, env.tx, env.pool);
    }

    /// A request's number is taken.
    #[inline]
    pub(super) fn took(&mut self, own: SessionRef, immediate: bool) {
        if !immediate && let Some(session) = self.sessions.get(own) {
            session.took();
        }
    }

    /// A request without a task has come to its end.
    #[inline]
    pub(super) fn ended(&mut self, own: SessionRef, immediate: bool) {
        if !immediate && let Some(session) = self.sessions.get(own) {
            session.ended();
        }
    }

    /// Gives up what a command would have done.
    fn cancel(&mut self, work: Work) {
        if let Work::Fresh(program) | Work::Running(program) = work {
            self.cancelled.push(program);
        }
    }
}
