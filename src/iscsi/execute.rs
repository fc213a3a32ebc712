//! Tasks that outlive the parse loop: giving collected data to the volumes, running programs step by step, trying again
//! what there was no room for, and turning completions into answers.

use super::conn::{Conn, Rx};
use super::lu::{self, End, Event, Io, Step};
use super::respond::{answer, answer_rest, send};
use super::session::SessionRef;
use super::target::{Env, Target};
use super::tasks::{Stage, Tag, Work};
use crate::base::limits::IO_BYTES_MAX;
use crate::base::{Status, Time};
use crate::mem::{Buf, Pool};
use crate::net::Net;
use crate::volume::{Completion, Detail, Payload, Request, Submit, Volumes};
use crate::wire::scsi::{Sense, asc};

/// Requests of one program that may end at once, one after the other, in a turn: a long one over memory must not hold
/// the core.
pub(super) const REQUESTS_PER_TURN: u32 = 8;

/// Bytes that may wait in a connection's send queue while a long read goes on: what the other side takes in a turn, and a
/// piece behind it. A slow initiator must not draw more buffers than that.
const UNSENT_MAX: usize = IO_BYTES_MAX;

impl Target {
    /// What the end of a plain request is as the end of its command.
    #[inline]
    pub(super) fn finish(
        &mut self,
        own: SessionRef,
        lun: u16,
        io: &Io,
        (status, detail): (Status, Detail),
        buf: Option<Buf>,
        pool: &mut Pool,
    ) -> End {
        let node = self.sessions.get(own).and_then(|s| s.node);
        let state = node.and_then(|n| {
            let at = super::units::place_of(&self.snapshot.targets[n].luns, lun)?;
            self.nodes[n].states.get(at)
        });
        lu::finish(state.unwrap_or(&lu::State::default()), io, status, detail, buf, pool)
    }

    /// Ends a task with an answer.
    pub(super) fn end_task<V>(&mut self, c: &mut Conn, place: u16, end: End, env: &mut Env<'_, V>) {
        let task = c.tasks.at(place);
        let (asked, wants, came, buf) = (task.asked, task.wants, task.came, task.buf.take());
        let outflow = task.outflow;
        env.pool.put_all(buf);
        if let Work::Fresh(program) | Work::Running(program) = c.tasks.free(place) {
            program.cancel(env.pool);
        }
        let session = c.session.and_then(|s| self.sessions.get(s)).expect("a connection's session outlives it");
        if let Some(node) = session.node {
            self.nodes[node].count(env.now.since(came));
        }
        if outflow.total > 0 {
            answer_rest(c, session, &asked, outflow, end, env.tx, env.pool);
        } else {
            answer(c, session, &asked, wants, end, env.tx, env.pool);
        }
    }

    /// Ends a task whose data was wrong, now that all of it has come.
    pub(super) fn fail<V>(&mut self, c: &mut Conn, place: u16, env: &mut Env<'_, V>) {
        let sense = c.tasks.at(place).fault.unwrap_or(Sense::illegal(asc::LUN_NOT_SUPPORTED));
        self.end_task(c, place, End::check(sense), env);
    }

    /// Goes on with a task that has all it needs. False: the volumes have no room or buffers are short, and the task is
    /// in stage `Ready`.
    pub(super) fn execute<V: Volumes>(&mut self, c: &mut Conn, place: u16, env: &mut Env<'_, V>) -> bool {
        let session = c.session.expect("a task has a session");
        let tag = c.tag + u64::from(place);
        let task = c.tasks.at(place);
        task.stage = Stage::Ready;
        let (lun, need) = (task.lun, task.inflow.need);
        let Some(volume) = self.volume_of(session, lun) else {
            self.fail(c, place, env);
            return true;
        };
        let task = c.tasks.at(place);
        if let Some((request, buf)) = task.held.take() {
            return self.submit(c, place, request, buf, env);
        }
        match core::mem::replace(&mut task.work, Work::Failed) {
            Work::Io(io) => {
                task.work = Work::Io(io);
                let mut buf = task.buf.take();
                if let Some(buf) = &mut buf {
                    buf.set_len(need as usize);
                }
                let request = Request { volume, kind: io.kind, lba: io.lba, blocks: io.blocks, fua: io.fua, tag };
                self.submit(c, place, request, buf, env)
            }
            Work::Fresh(mut program) => {
                let mut buf = task.buf.take();
                if let Some(buf) = &mut buf {
                    buf.set_len(need as usize);
                }
                let step = self.with_cx(c, place, env, |cx| program.start(buf, cx));
                c.tasks.at(place).work = Work::Running(program);
                self.run(c, place, step, env)
            }
            Work::Running(program) => {
                task.work = Work::Running(program);
                if matches!(task.next, Some(Event::Sent { .. })) && env.tx.len() > UNSENT_MAX {
                    return false;
                }
                let event = match task.buf.take() {
                    Some(mut data) => {
                        data.set_len(need as usize);
                        Event::Data(data)
                    }
                    None => task.next.take().unwrap_or(Event::Again),
                };
                let step = self.resume(c, place, event, env);
                self.run(c, place, step, env)
            }
            Work::Failed => {
                self.fail(c, place, env);
                true
            }
        }
    }

    /// Calls a program with what it may see.
    fn with_cx<V: Volumes>(
        &mut self,
        c: &mut Conn,
        place: u16,
        env: &mut Env<'_, V>,
        call: impl FnOnce(&mut lu::Cx<'_>) -> Step,
    ) -> Step {
        let lun = c.tasks.at(place).lun;
        let session = c.session.and_then(|s| self.sessions.get(s)).expect("a task has a session");
        let node = session.node.expect("looked up before");
        let units = &self.snapshot.targets[node].luns;
        let at = super::units::place_of(units, lun).expect("looked up before");
        let volumes = &*env.volumes;
        call(&mut lu::Cx {
            unit: &units[at],
            units,
            nexus: lu::Nexus { who: &session.who, group: session.nexus.tag },
            data_out: None,
            reservations: volumes.reservations(units[at].info.id),
            elsewhere: &|volume| volumes.reservations(volume),
            state: &mut self.nodes[node].states[at],
            attentions: &mut session.attentions[at],
            pool: env.pool,
        })
    }

    /// Goes on with a program after an event.
    fn resume<V: Volumes>(&mut self, c: &mut Conn, place: u16, event: Event, env: &mut Env<'_, V>) -> Step {
        let task = c.tasks.at(place);
        let Work::Running(mut program) = core::mem::replace(&mut task.work, Work::Failed) else {
            panic!("only programs have steps")
        };
        let step = self.with_cx(c, place, env, |cx| program.resume(event, cx));
        c.tasks.at(place).work = Work::Running(program);
        step
    }

    /// Tells a program what it waited for, and goes on with it. False: it waits for room.
    pub(super) fn proceed<V: Volumes>(&mut self, c: &mut Conn, place: u16, event: Event, env: &mut Env<'_, V>) -> bool {
        let (session, lun) = (c.session.expect("a task has a session"), c.tasks.at(place).lun);
        if self.volume_of(session, lun).is_none() {
            self.fail(c, place, env);
            return true;
        }
        let step = self.resume(c, place, event, env);
        self.run(c, place, step, env)
    }

    /// Does what a program asks for, until it waits or ends. False: it waits for room.
    fn run<V: Volumes>(&mut self, c: &mut Conn, place: u16, mut step: Step, env: &mut Env<'_, V>) -> bool {
        let mut requests = 0;
        loop {
            match step {
                Step::Io { volume, kind, lba, blocks, fua, payload } => {
                    let request = Request { volume, kind, lba, blocks, fua, tag: c.tag + u64::from(place) };
                    match self.start(c, place, request, payload, env) {
                        Some(done) => {
                            let event = Event::Io { status: done.status, detail: done.detail, buf: done.buf };
                            requests += 1;
                            if requests == REQUESTS_PER_TURN {
                                let task = c.tasks.at(place);
                                (task.next, task.stage) = (Some(event), Stage::Ready);
                                return false;
                            }
                            step = self.resume(c, place, event, env);
                        }
                        None => return c.tasks.at(place).stage != Stage::Ready,
                    }
                }
                Step::Send { data, total } => {
                    let session = c.session.and_then(|s| self.sessions.get(s)).expect("a task has a session");
                    let room = send(c, session, place, data, total, env.tx, env.pool);
                    let task = c.tasks.at(place);
                    (task.next, task.stage) = (Some(Event::Sent { room }), Stage::Ready);
                    return false;
                }
                Step::Take(bytes) => {
                    let task = c.tasks.at(place);
                    task.inflow.next_part(bytes);
                    task.stage = Stage::Buffer;
                    return self.provide(c, place, env.tx, env.pool);
                }
                Step::Lu(event) => {
                    self.change_everywhere(c, place, event);
                    return true;
                }
                Step::Reserve(op) => {
                    self.reserve(c, place, op);
                    return true;
                }
                Step::Detach(end) => {
                    self.detach(c, place, end, env);
                    return true;
                }
                Step::Pause(_) => panic!("only a program without a command pauses"),
                Step::Later => {
                    c.tasks.at(place).stage = Stage::Ready;
                    return false;
                }
                Step::End(end) => {
                    self.end_task(c, place, end, env);
                    return true;
                }
            }
        }
    }

    /// Gives a request of a task to the volumes: its end when that is there at once; else the task is in stage `Volume`, or
    /// in `Ready` with the request held.
    fn start<V: Volumes>(
        &mut self,
        c: &mut Conn,
        place: u16,
        request: Request,
        payload: Option<Buf>,
        env: &mut Env<'_, V>,
    ) -> Option<Completion> {
        let payload = payload.map_or(Payload::None, Payload::Owned);
        let submitted = env.volumes.submit(request, payload, env.pool);
        let task = c.tasks.at(place);
        match submitted {
            Submit::Done(done) => return Some(done),
            Submit::Pending => {
                (task.stage, task.since, task.volume) = (Stage::Volume, env.now, request.volume);
                c.pending += 1;
                self.pending += 1;
            }
            Submit::Later(back) => {
                task.held = Some((request, back));
                task.stage = Stage::Ready;
            }
        }
        None
    }

    fn submit<V: Volumes>(
        &mut self,
        c: &mut Conn,
        place: u16,
        request: Request,
        payload: Option<Buf>,
        env: &mut Env<'_, V>,
    ) -> bool {
        match self.start(c, place, request, payload, env) {
            Some(done) => self.ended_request(c, place, done, env),
            None => c.tasks.at(place).stage != Stage::Ready,
        }
    }

    /// A request of a task ended. False: the task waits for room.
    fn ended_request<V: Volumes>(&mut self, c: &mut Conn, place: u16, done: Completion, env: &mut Env<'_, V>) -> bool {
        let Completion { status, detail, buf, .. } = done;
        let session = c.session.expect("a task has a session");
        let task = c.tasks.at(place);
        let lun = task.lun;
        if let Work::Io(io) = task.work {
            let end = self.finish(session, lun, &io, (status, detail), buf, env.pool);
            self.end_task(c, place, end, env);
            return true;
        }
        if self.volume_of(session, lun).is_none() {
            env.pool.put_all(buf);
            self.fail(c, place, env);
            return true;
        }
        self.proceed(c, place, Event::Io { status, detail, buf }, env)
    }

    /// Puts a task on its connection's list of what is tried again.
    pub(super) fn queue(&mut self, c: &mut Conn, place: u16) {
        if c.queued.is_empty() {
            self.retry.push_back(c.id);
        }
        assert!(c.queued.len() < c.tasks.depth(), "the list has a place for every task");
        c.queued.push_back(place);
        self.stats.waits += 1;
    }

    /// A request ended. Those of tasks that nobody waits for any more only bring their buffer back.
    pub(super) fn completed<N: Net, V: Volumes>(
        &mut self,
        now: Time,
        done: Completion,
        net: &mut N,
        volumes: &mut V,
        pool: &mut Pool,
    ) {
        if done.tag >> 56 == Tag::DETACHED {
            return self.detached_completed(done);
        }
        self.pending = self.pending.checked_sub(1).expect("a request ends once");
        let tag = Tag(done.tag);
        assert_eq!(done.tag >> 56, Tag::TARGET, "another target's request");
        let known = |c: &Conn| c.id.slot == tag.conn() && c.id.generation & 0x7fff_ffff == tag.generation();
        if let Some(at) = self.ghosts.iter().position(known) {
            let mut ghost = self.ghosts.swap_remove(at);
            pool.put_all(done.buf);
            self.over(&mut ghost, tag.task());
            if ghost.pending > 0 {
                self.ghosts.push(ghost);
            }
            return;
        }
        let place = self.conns.get_mut(tag.conn() as usize).and_then(Option::take);
        let Some(mut c) = place.filter(|c| known(c)) else { panic!("a request belongs to a connection") };
        let task = c.tasks.at(tag.task());
        let since = task.since;
        match net.tx(c.id) {
            Some(tx) if !task.aborted => {
                c.pending -= 1;
                c.done.pending_ns += now.since(since);
                let mut env = Env { now, volumes, tx, pool };
                if !self.ended_request(&mut c, tag.task(), done, &mut env) {
                    self.queue(&mut c, tag.task());
                }
            }
            _ => {
                pool.put_all(done.buf);
                self.over(&mut c, tag.task());
            }
        }
        self.put(c);
    }

    /// The last request of an ended task is over.
    pub(super) fn over(&mut self, c: &mut Conn, place: u16) {
        c.pending -= 1;
        c.tasks.at(place).stage = Stage::Volume;
        self.drop_task(c, place);
    }

    /// Tries the tasks again that had to wait, in order; what the volumes still have no room for ends a connection's turn,
    /// what only lacks a buffer does not.
    pub(super) fn retry_queued<N: Net, V: Volumes>(
        &mut self,
        now: Time,
        net: &mut N,
        volumes: &mut V,
        pool: &mut Pool,
    ) {
        for _ in 0..self.retry.len() {
            let Some(id) = self.retry.pop_front() else { break };
            let Some(mut c) = self.take(id) else { continue };
            if let Some(tx) = net.tx(id) {
                let mut env = Env { now, volumes: &mut *volumes, tx, pool: &mut *pool };
                for _ in 0..c.queued.len() {
                    let Some(place) = c.queued.pop_front() else { break };
                    if c.tasks.at(place).stage == Stage::Buffer {
                        if !self.provide(&mut c, place, env.tx, env.pool) {
                            c.queued.push_back(place);
                        }
                    } else if !self.execute(&mut c, place, &mut env) {
                        c.queued.push_front(place);
                        break;
                    }
                }
                if !c.queued.is_empty() {
                    self.retry.push_back(id);
                }
            }
            self.put(c);
        }
    }

    /// Tries collected PDUs again.
    pub(super) fn retry_parked<N: Net, V: Volumes>(
        &mut self,
        now: Time,
        net: &mut N,
        volumes: &mut V,
        pool: &mut Pool,
    ) {
        for _ in 0..self.parked.len() {
            let Some(id) = self.parked.pop_front() else { break };
            let Some(mut c) = self.take(id) else { continue };
            if c.rx == Rx::Parked
                && let Some(tx) = net.tx(id)
            {
                let mut env = Env { now, volumes: &mut *volumes, tx, pool: &mut *pool };
                self.deliver(&mut c, &mut env);
            }
            self.put(c);
        }
    }
}
