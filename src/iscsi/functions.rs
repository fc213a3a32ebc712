//! Task management (RFC 7143 11.5, 11.6; SAM-5 chapter 7). A function ends its tasks at once as far as they wait, and is
//! answered when none of the others can reach a volume any more, on any core.

use super::conn::{Conn, State};
use super::fence::{Local, Then};
use super::lu::Attention;
use super::message::{Scope, Why};
use super::session::{SessionRef, Turn};
use super::target::{Env, Target};
use crate::net::{ConnId, Net, Tx};
use crate::volume::reserve::Op;
use crate::wire::iscsi::pdu::{TaskRequest, TaskResponse};
use crate::wire::iscsi::{Opcode, RejectReason, TaskAnswer, TaskFunction};
use zerocopy::IntoBytes;

impl Target {
    /// A Task Management Function Request. False: not its turn yet.
    pub(super) fn function<V>(&mut self, c: &mut Conn, request: &TaskRequest, env: &mut Env<'_, V>) -> bool {
        let immediate = request.opcode & Opcode::IMMEDIATE != 0;
        match self.in_turn(c, immediate, request.cmd_sn.get()) {
            Turn::Now => {}
            Turn::Later => return false,
            Turn::Never => return true,
        }
        let (session, itt) = (c.session.expect("full feature phase has a session"), request.itt.get());
        self.took(session, immediate);
        if c.functions >= self.config.immediates {
            self.ended(session, immediate);
            self.reject(c, RejectReason::TooManyImmediate, request.as_bytes(), env.tx);
            return true;
        }
        self.stats.functions += 1;
        c.functions += 1;
        if let Some(answer) = self.act(c, session, request, immediate) {
            self.answer_function(c, (itt, immediate), answer, env.tx);
        }
        true
    }

    /// Does what a function asks for; the answer, if nothing has to be waited for.
    fn act(&mut self, c: &mut Conn, own: SessionRef, request: &TaskRequest, immediate: bool) -> Option<TaskAnswer> {
        let Some(target) = c.target else { return Some(TaskAnswer::NotSupported) };
        let itt = request.itt.get();
        let done = |cold| Then::Function { conn: c.id, itt, answer: TaskAnswer::Complete, immediate, cold };
        let (here, warm, cold) = (done(None), done(None), done(Some(target)));
        let lun = request.lun.number().filter(|lun| self.volume_of(own, *lun).is_some());
        match (request.function(), lun) {
            (Some(TaskFunction::AbortTask), _) => self.abort_task(c, own, request, here),
            (Some(TaskFunction::AbortTaskSet), Some(lun)) => {
                let which = Local::Session(own, Some(lun));
                self.end_own_tasks(c, &which);
                self.end_tasks(&which);
                let token = self.fences.wait(1, here);
                self.fence(which, (self.core, token));
                None
            }
            (Some(TaskFunction::ClearTaskSet), Some(lun)) => {
                let scope = Scope::Unit { target, lun };
                self.end_own_tasks(c, &Local::Scope(scope.clone()));
                // The others are told; who asked knows.
                self.clear_everywhere(scope, Why::TaskSetCleared, here);
                self.untell(own, lun, Attention::CommandsCleared);
                None
            }
            (Some(TaskFunction::LogicalUnitReset), Some(lun)) => {
                let scope = Scope::Unit { target, lun };
                self.end_own_tasks(c, &Local::Scope(scope.clone()));
                self.order_reset(own, Some(lun));
                self.clear_everywhere(scope, Why::Reset, here);
                None
            }
            (Some(function @ (TaskFunction::TargetWarmReset | TaskFunction::TargetColdReset)), _) => {
                let scope = Scope::Target { target };
                self.end_own_tasks(c, &Local::Scope(scope.clone()));
                self.order_reset(own, None);
                let is_cold = function == TaskFunction::TargetColdReset;
                let (why, then) = if is_cold { (Why::ColdReset, cold) } else { (Why::Reset, warm) };
                self.clear_everywhere(scope, why, then);
                None
            }
            (Some(TaskFunction::TaskReassign), _) => Some(TaskAnswer::NoReassign),
            (Some(TaskFunction::ClearAca) | None, _) => Some(TaskAnswer::NotSupported),
            (Some(_), None) => Some(TaskAnswer::NoLun),
        }
    }

    /// ABORT TASK (11.5.4): the task is ended, is over, or has yet to come.
    fn abort_task(&mut self, c: &mut Conn, own: SessionRef, request: &TaskRequest, then: Then) -> Option<TaskAnswer> {
        let Some(place) = c.tasks.find(request.ref_itt.get()) else {
            let session = self.sessions.get(own).expect("a connection's session outlives it");
            if session.turn(request.ref_cmd_sn.get()) != Turn::Now {
                return Some(TaskAnswer::NoTask);
            }
            // It has not been received, and counts as received and ended from now on.
            session.took();
            session.ended();
            return Some(TaskAnswer::Complete);
        };
        let serial = c.tasks.at(place).serial;
        self.abort(c, place);
        if c.tasks.get(place).is_none_or(|t| t.serial != serial) {
            return Some(TaskAnswer::Complete);
        }
        let token = self.fences.wait(1, then);
        self.fence(Local::Task(c.id, serial), (self.core, token));
        None
    }

    /// Ends tasks of the connection that asks, which is not in the table while it does.
    pub(super) fn end_own_tasks(&mut self, c: &mut Conn, which: &Local) {
        for place in c.tasks.places(|t| !t.aborted && which.covers(c, c.name.as_ref(), t)) {
            self.abort(c, place);
        }
    }

    /// Takes back what a session was told of something it did itself.
    fn untell(&mut self, own: SessionRef, lun: u16, what: Attention) {
        let Some(session) = self.sessions.get(own) else { return };
        let Some(node) = session.node else { return };
        if let Some(at) = super::units::place_of(&self.snapshot.targets[node].luns, lun) {
            session.attentions[at].clear(what);
        }
    }

    /// Old-style reservations of a unit, or of all of a target's, end with a reset.
    fn order_reset(&mut self, own: SessionRef, lun: Option<u16>) {
        let Some(session) = self.sessions.get(own) else { return };
        let Some(node) = session.node else { return };
        let session = super::control::nexus_of(session);
        let units = &self.snapshot.targets[node].luns;
        let volumes: Vec<_> = units.iter().filter(|u| lun.is_none_or(|l| l == u.lun)).map(|u| u.info.id).collect();
        for volume in volumes {
            self.order(volume, session.clone(), Op::Reset);
        }
    }

    /// Everything that a function waited for is over.
    pub(super) fn function_done<N: Net>(&mut self, conn: ConnId, asked: (u32, bool), answer: TaskAnswer, net: &mut N) {
        let Some(mut c) = self.take(conn) else { return };
        if matches!(c.state(), State::Full | State::Leaving)
            && let Some(tx) = net.tx(conn)
        {
            self.answer_function(&mut c, asked, answer, tx);
        }
        self.put(c);
    }

    fn answer_function(&mut self, c: &mut Conn, (itt, immediate): (u32, bool), answer: TaskAnswer, tx: &mut Tx) {
        c.functions -= 1;
        let Some(session) = c.session.and_then(|s| self.sessions.get(s)) else { return };
        if !immediate {
            session.ended();
        }
        let numbers = c.out.status(session);
        c.out.put(tx, &TaskResponse::new(itt, answer, numbers));
    }
}
