//! What a command asks of the control plane and of the other cores, and how it goes on after the answer.

use super::conn::Conn;
use super::fence::{Local, Then};
use super::lu::{Attention, Event, LuEvent};
use super::message::Message;
use super::session::{Session, SessionRef};
use super::target::Target;
use super::tasks::Stage;
use crate::base::{Time, VolumeId};
use crate::mem::Pool;
use crate::net::Net;
use crate::volume::{Volumes, reserve};

/// Token of an [`Order`] whose end nobody waits for.
pub const NOBODY: u64 = 0;

/// A change of a volume's reservations. The control plane applies it, gives the next value to all cores with the volume
/// table, and then answers on the core it came from.
#[derive(Debug)]
pub struct Order {
    /// Comes back with the answer; [`NOBODY`]: no answer.
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

impl Target {
    /// Orders a change that nobody waits for.
    pub(super) fn order(&mut self, volume: VolumeId, who: reserve::Nexus, op: reserve::Op) {
        self.orders.push(Order { token: NOBODY, volume, who, op });
    }

    /// A session has ended: its old-style reservations go with it.
    pub(super) fn nexus_lost(&mut self, session: &Session) {
        let Some(node) = session.node else { return };
        for state in &mut self.nodes[node].states {
            state.nexus_lost(&session.who);
        }
        let volumes: Vec<_> = self.snapshot.targets[node].luns.iter().map(|u| u.info.id).collect();
        for volume in volumes {
            self.order(volume, nexus_of(session), reserve::Op::NexusLost);
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
        self.orders.push(Order { token: u64::from(token) + 1, volume, who, op });
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
        let wait = token.checked_sub(1).and_then(|t| self.fences.take(t as u32));
        let Some(Then::Program { conn, task, serial }) = wait else { panic!("an order is answered once") };
        self.changed(conn, (task, serial), Event::Reserved(result), now, net, volumes, pool);
        self.bury(pool);
    }
}
