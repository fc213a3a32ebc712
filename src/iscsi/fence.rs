//! Waiting for older tasks: a task management function, a logout, and a login that takes another session's place are
//! answered only when no request of the tasks they ended is in the volumes any more, on any core. Tasks that wait for
//! data or room are ended at once; what the volumes already have cannot be called back, but it ends soon, and a fence
//! stands until it has.

use super::conn::{Conn, State};
use super::lu::{Attention, Event};
use super::message::{Message, Scope, SessionName, Why};
use super::session::{Nexus, SessionRef};
use super::target::Target;
use super::tasks::{Stage, Task, Work};
use crate::base::CoreId;
use crate::net::{Close, ConnId};
use crate::wire::iscsi::TaskAnswer;
use slab::Slab;
use std::collections::VecDeque;

/// What happens once everything waited for is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Then {
    /// A login goes on.
    Login(ConnId),
    /// A task management function is answered.
    Function {
        conn: ConnId,
        itt: u32,
        answer: TaskAnswer,
        immediate: bool,
        /// The connections of this target end afterwards.
        cold: Option<u32>,
    },
    /// A logout is answered.
    Logout { conn: ConnId, itt: u32, immediate: bool },
    /// A program goes on: connection and place of its task.
    Program { conn: ConnId, task: u16, serial: u64 },
    /// A program without a command goes on.
    Detached(usize),
}

/// Something that waits for one or more cores.
#[derive(Debug)]
struct Wait {
    left: u16,
    then: Then,
}

/// Which tasks of this core a fence waits for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Local {
    /// As a message says.
    Scope(Scope),
    /// Those of one session, at one unit or at all.
    Session(SessionRef, Option<u16>),
    /// Those of one connection.
    Conn(ConnId),
    /// One.
    Task(ConnId, u64),
}

/// Tasks that were ended and may still be in the volumes.
#[derive(Debug)]
struct Fence {
    which: Local,
    /// Tasks from this position on came later.
    before: u64,
    /// Orders up to this one came before: every core knows what they changed once they are answered.
    ordered: u64,
    /// Who is told.
    told: (CoreId, u32),
}

/// All fences of a core, and what waits for those of all cores.
#[derive(Debug, Default)]
pub(super) struct Fences {
    waits: Slab<Wait>,
    standing: Vec<Fence>,
    /// Waits whose last answer has come.
    over: VecDeque<Then>,
}

impl Fences {
    /// True when the turn has something to look at.
    pub fn any(&self) -> bool {
        !self.standing.is_empty() || !self.over.is_empty()
    }

    /// True when nothing waits to go on.
    pub fn over_is_empty(&self) -> bool {
        self.over.is_empty()
    }

    /// What goes on next.
    pub fn next_over(&mut self) -> Option<Then> {
        self.over.pop_front()
    }

    /// Begins to wait for `cores` answers.
    pub fn wait(&mut self, cores: u16, then: Then) -> u32 {
        self.waits.insert(Wait { left: cores, then }) as u32
    }

    /// Ends a wait by hand: what was to follow. `None` when it is over already.
    pub fn take(&mut self, token: u32) -> Option<Then> {
        self.waits.try_remove(token as usize).map(|w| w.then)
    }

    /// One answer has come.
    pub fn answered(&mut self, token: u32) {
        let Some(wait) = self.waits.get_mut(token as usize) else { return };
        wait.left -= 1;
        if wait.left == 0 {
            self.over.push_back(self.waits.remove(token as usize).then);
        }
    }
}

impl Local {
    /// True when a task of `c` is meant.
    pub fn covers(&self, c: &Conn, nexus: Option<&Nexus>, task: &Task) -> bool {
        match self {
            Local::Scope(Scope::Nexus(SessionName(name))) => nexus.is_some_and(|n| n.same(name)),
            Local::Scope(Scope::Unit { target, lun }) => c.target == Some(*target) && task.lun == *lun,
            Local::Scope(Scope::Aborted { volume }) => task.aborted && task.volume == *volume,
            Local::Scope(Scope::Target { target }) => c.target == Some(*target),
            Local::Session(session, lun) => c.session == Some(*session) && lun.is_none_or(|l| l == task.lun),
            Local::Conn(id) => c.id == *id,
            Local::Task(id, serial) => c.id == *id && task.serial == *serial,
        }
    }
}

impl Target {
    /// Stands a fence before everything that comes from now on; `told` hears when it has fallen.
    pub(super) fn fence(&mut self, which: Local, told: (CoreId, u32)) {
        self.fences.standing.push(Fence { which, before: self.serial, ordered: self.orders.given(), told });
    }

    /// Looks at all fences.
    pub(super) fn check_fences(&mut self) {
        let mut at = 0;
        while let Some(fence) = self.fences.standing.get(at) {
            if self.stands(fence) {
                at += 1;
                continue;
            }
            let (core, token) = self.fences.standing.swap_remove(at).told;
            if core == self.core {
                self.fences.answered(token);
            } else {
                self.send(core, Message::Cleared { token });
            }
        }
    }

    /// True while a task that a fence is about has a request under way, or an order from before it has.
    fn stands(&self, fence: &Fence) -> bool {
        if self.orders.answered() < fence.ordered {
            return true;
        }
        let conns = self.live().chain(&self.ghosts);
        conns.filter(|c| c.pending > 0).any(|c| {
            let mut tasks = c.tasks.iter();
            tasks.any(|t| busy(t) && t.serial < fence.before && fence.which.covers(c, c.name.as_ref(), t))
        })
    }

    /// Ends every task on this core that `which` names. Returns the sessions that lost any.
    pub(super) fn end_tasks(&mut self, which: &Local) -> Vec<SessionRef> {
        let mut hit = Vec::new();
        for at in 0..self.conns.len() {
            let Some(mut c) = self.conns[at].take() else { continue };
            let places = c.tasks.places(|t| !t.aborted && which.covers(&c, c.name.as_ref(), t));
            if !places.is_empty() {
                hit.extend(c.session);
            }
            for place in places {
                self.abort(&mut c, place);
            }
            self.conns[at] = Some(c);
        }
        hit
    }

    /// Ends one task: what waits is dropped, what the volumes have is answered to nobody. Data that is landing in it has
    /// nowhere to go any more and is skipped.
    pub(super) fn abort(&mut self, c: &mut Conn, place: u16) {
        self.stats.aborted_tasks += 1;
        super::dataout::divert(c, place);
        let task = c.tasks.at(place);
        task.aborted = true;
        if busy(task) {
            return;
        }
        self.drop_task(c, place);
    }

    /// Gives a task's place back, and what it holds.
    pub(super) fn drop_task(&mut self, c: &mut Conn, place: u16) {
        let task = c.tasks.at(place);
        self.dead.extend(task.buf.take());
        self.dead.extend(task.held.take().and_then(|(_, buf)| buf));
        self.dead.extend(task.next.take().and_then(Event::into_buf));
        let (stage, immediate) = (task.stage, task.asked.immediate);
        if matches!(stage, Stage::Buffer | Stage::Ready) {
            c.queued.retain(|q| *q != place);
        }
        match c.tasks.free(place) {
            Work::Fresh(program) | Work::Running(program) => self.cancelled.push(program),
            Work::Io(_) | Work::Failed => {}
        }
        if !immediate && let Some(s) = c.session.and_then(|s| self.sessions.get(s)) {
            s.ended();
        }
    }

    /// Ends tasks for everybody: here now, on the other cores by message; `then` follows when all are gone.
    pub(super) fn clear_everywhere(&mut self, scope: Scope, why: Why, then: Then) {
        let token = self.fences.wait(self.cores, then);
        for core in self.others() {
            self.send(core, Message::Clear { token, scope: scope.clone(), why });
        }
        self.clear_here(scope, why, (self.core, token));
    }

    /// This core's part of it.
    pub(super) fn clear_here(&mut self, scope: Scope, why: Why, told: (CoreId, u32)) {
        let by = told.0;
        match (&scope, why) {
            (Scope::Nexus(SessionName(name)), _) => self.evict(&name.clone(), by),
            // The next value of the reservations, which is known here, ended them.
            (Scope::Aborted { .. }, _) => {}
            (Scope::Unit { target, lun }, Why::TaskSetCleared) => {
                let hit = self.end_tasks(&Local::Scope(scope.clone()));
                self.tell(*target, Some(*lun), Attention::CommandsCleared, |s| hit.contains(&s));
            }
            (Scope::Unit { target, lun }, _) => {
                self.end_tasks(&Local::Scope(scope.clone()));
                self.reset_units(*target, Some(*lun));
            }
            (Scope::Target { target }, _) => {
                self.end_tasks(&Local::Scope(scope.clone()));
                self.reset_units(*target, None);
                if why == Why::ColdReset && by != self.core {
                    self.end_target(*target);
                }
            }
        }
        self.fence(Local::Scope(scope), told);
    }

    /// Ends the connections of a target.
    pub(super) fn end_target(&mut self, target: u32) {
        self.end_where(|c| c.target == Some(target) && c.state() != State::Closing, Close::AfterSend);
    }
}

/// True while the volumes or the control plane have a request of the task.
pub(super) fn busy(task: &Task) -> bool {
    matches!(task.stage, Stage::Volume | Stage::Control)
}
