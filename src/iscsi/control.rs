//! What a command asks of the control plane and of the other cores, and how it goes on after the answer.

use super::conn::Conn;
use super::fence::{Local, Then};
use super::lu::{Attention, Event, LuEvent};
use super::message::{Message, Scope, Why};
use super::session::{Session, SessionRef};
use super::target::Target;
use super::tasks::Stage;
use crate::base::{Time, VolumeId};
use crate::mem::Pool;
use crate::net::Net;
use crate::volume::{Volumes, reserve};
use std::collections::VecDeque;

/// A change of a volume's reservations. The control plane applies it, gives the next value to all cores with the volume
/// table, and then answers on the core it came from.
#[derive(Debug)]
pub struct Order {
    /// Comes back with the answer: counts the orders of a core from 1.
    pub token: u64,
    /// The volume.
    pub volume: VolumeId,
    /// Who asks.
    pub who: reserve::Nexus,
    /// For what.
    pub op: reserve::Op,
}

/// A session's initiator and target port as reservations name them.
pub(super) fn nexus_of(session: &Session) -> reserve::Nexus {
    session.who.clone()
}

/// Orders of one core: those not yet fetched, and who goes on with the answers still to come.
#[derive(Debug, Default)]
pub(super) struct Orders {
    /// Not fetched.
    pub new: Vec<Order>,
    /// Orders ever given.
    given: u64,
    /// For each that is not answered, oldest first: the program that asked, as a wait of [`super::fence::Fences`], and the
    /// volume whose tasks the order aborts.
    askers: VecDeque<(Option<u32>, Option<VolumeId>)>,
}

impl Orders {
    fn give(&mut self, asker: Option<u32>, volume: VolumeId, who: reserve::Nexus, op: reserve::Op) {
        self.given += 1;
        let aborts = matches!(op, reserve::Op::Preempt { abort: true, .. }).then_some(volume);
        self.askers.push_back((asker, aborts));
        self.new.push(Order { token: self.given, volume, who, op });
    }

    /// Orders given so far.
    pub fn given(&self) -> u64 {
        self.given
    }

    /// Of them, answered.
    pub fn answered(&self) -> u64 {
        self.given - self.askers.len() as u64
    }
}

impl Target {
    /// Orders a change that no program waits for. Fences that are put up later stand until every core knows it.
    pub(super) fn order(&mut self, volume: VolumeId, who: reserve::Nexus, op: reserve::Op) {
        self.orders.give(None, volume, who, op);
    }

    /// A session ends: its old-style reservations go with it. Once, however it ends: the initiator may soon have another
    /// session of the same nexus.
    pub(super) fn nexus_lost(&mut self, own: SessionRef) {
        let Some(session) = self.sessions.get(own) else { return };
        let Some(node) = session.node.filter(|_| !session.lost) else { return };
        session.lost = true;
        let who = nexus_of(session);
        for state in &mut self.nodes[node].states {
            state.nexus_lost(&who);
        }
        for unit in &self.snapshot.targets[node].luns {
            self.orders.give(None, unit.info.id, who.clone(), reserve::Op::NexusLost);
        }
    }

    /// Others changed the reservations of a volume: sessions of the nexuses told get their unit attention, and lose their
    /// tasks where that is asked for. To be called on every core, once it has the next value.
    pub fn told(&mut self, volume: VolumeId, told: &[reserve::Told]) {
        for one in told {
            let attention = match one.notice {
                Some(reserve::Notice::ReservationsPreempted) => Some(Attention::ReservationsPreempted),
                Some(reserve::Notice::ReservationsReleased) => Some(Attention::ReservationsReleased),
                Some(reserve::Notice::RegistrationsPreempted) => Some(Attention::RegistrationsPreempted),
                None => None,
            };
            let owns: Vec<_> =
                self.sessions.iter().filter(|s| nexus_of(s) == one.nexus).map(|s| (s.own, s.node)).collect();
            for (own, node) in owns {
                let Some(node) = node else { continue };
                let places = self.snapshot.targets[node].luns.iter().enumerate();
                let places: Vec<_> = places.filter(|(_, u)| u.info.id == volume).map(|(at, u)| (at, u.lun)).collect();
                for (at, lun) in places {
                    if let (Some(attention), Some(session)) = (attention, self.sessions.get(own)) {
                        session.raise(at, attention);
                    }
                    if one.abort && one.notice.is_some() {
                        self.end_tasks(&Local::Session(own, Some(lun)));
                    }
                }
            }
        }
    }

    /// Has all cores take over a change that a program made to its unit; the program goes on once they have.
    pub(super) fn change_everywhere(&mut self, c: &mut Conn, place: u16, event: LuEvent) {
        let target = c.target.expect("a program runs at a target");
        let task = c.tasks.at(place);
        let (lun, serial) = (task.lun, task.serial);
        task.stage = Stage::Control;
        c.pending += 1;
        self.pending += 1;
        self.spread(target, lun, event, c.session, Then::Program { conn: c.id, task: place, serial });
    }

    /// Changes a unit here and has the other cores do so; `then` follows once all have. The session it comes from is not
    /// told.
    pub(super) fn spread(&mut self, target: u32, lun: u16, event: LuEvent, by: Option<SessionRef>, then: Then) {
        self.change_unit(target, lun, event, by);
        let token = self.fences.wait(self.cores, then);
        for core in self.others() {
            self.send(core, Message::Change { token, target, lun, event });
        }
        self.fences.answered(token);
    }

    /// Has the control plane change the reservations of a program's volume; the program goes on with the answer.
    pub(super) fn reserve(&mut self, c: &mut Conn, place: u16, op: reserve::Op) {
        let own = c.session.expect("a task has a session");
        let lun = c.tasks.at(place).lun;
        let volume = self.volume_of(own, lun).expect("looked up before the step");
        let who = self.sessions.get(own).expect("a task has a session").who.clone();
        let task = c.tasks.at(place);
        (task.stage, task.volume) = (Stage::Control, volume);
        c.pending += 1;
        self.pending += 1;
        let token = self.fences.wait(1, Then::Program { conn: c.id, task: place, serial: task.serial });
        self.orders.give(Some(token), volume, who, op);
    }

    /// What became of the [`Order`] with this token; every core has the next value.
    pub fn reserved<N: Net, V: Volumes>(
        &mut self,
        now: Time,
        token: u64,
        result: Result<(), reserve::Refused>,
        net: &mut N,
        volumes: &mut V,
        pool: &mut Pool,
    ) {
        let (asker, aborts) = self.orders.askers.pop_front().expect("an order is answered once");
        assert_eq!(token, self.orders.answered(), "orders are answered in their order");
        if let Some(wait) = asker {
            let Some(Then::Program { conn, task, serial }) = self.fences.take(wait) else {
                panic!("a program waits for its order")
            };
            match aborts {
                // The status of PREEMPT AND ABORT says that nothing of the aborted tasks is to come (SPC-4, 5.13.11.5).
                Some(volume) if result.is_ok() => {
                    let then = Then::Program { conn, task, serial };
                    self.clear_everywhere(Scope::Aborted { volume }, Why::Preempted, then);
                }
                _ => self.changed(conn, (task, serial), Event::Reserved(result), now, net, volumes, pool),
            }
        }
        self.bury(pool);
    }
}
