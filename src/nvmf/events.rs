//! Asynchronous events (base specification, "Asynchronous Event Request Command"): what a host is told without having
//! asked for it at that moment. An event is told once and then kept back until the host has read the log it points at.

use super::admin::{NO_REQUEST, Reply};
use super::config::Snapshot;
use super::conn::{Conn, State};
use super::controller::Controller;
use super::message::ControllerRef;
use super::slots::Stage;
use super::subs::changed;
use super::target::Target;
use crate::net::{Net, Tx};
use crate::wire::nvme::feature::{Event, event_config};
use crate::wire::nvme::sc;

impl Controller {
    /// The next event the host wants and has not been told, if there is one.
    fn next_event(&mut self) -> Option<Event> {
        let e = &mut self.events;
        if e.namespaces && !e.namespaces_told && e.config & event_config::NAMESPACE != 0 {
            (e.namespaces, e.namespaces_told) = (false, true);
            return Some(Event::NAMESPACE_CHANGED);
        }
        if e.discovery && !e.discovery_told && e.config & event_config::DISCOVERY != 0 {
            (e.discovery, e.discovery_told) = (false, true);
            return Some(Event::DISCOVERY_CHANGED);
        }
        None
    }
}

impl Target {
    /// Asynchronous Event Request: held until there is something to tell.
    pub(super) fn event_request(&mut self, c: &mut Conn, controller: ControllerRef, cid: u16, tx: &mut Tx) -> Reply {
        let limit = usize::from(self.config.events);
        let Some(owner) = self.controllers.get(controller) else { return sc::INTERNAL_ERROR.into() };
        if owner.requests.len() >= limit {
            return sc::AER_LIMIT.into();
        }
        let Some(index) = c.slots.peek() else { return Reply::Overrun };
        c.out.advance();
        c.slots.occupy(cid, Stage::Held, NO_REQUEST);
        owner.requests.push(index);
        self.tell(c, controller, tx);
        Reply::Held
    }

    /// Answers requests for events while there are both.
    fn tell(&mut self, c: &mut Conn, controller: ControllerRef, tx: &mut Tx) {
        let Some(owner) = self.controllers.get(controller) else { return };
        while let Some(index) = owner.requests.first().copied() {
            let Some(event) = owner.next_event() else { return };
            owner.requests.remove(0);
            let cid = c.slots.get(index).expect("a held request has its slot").cid;
            c.slots.free(index);
            c.finish(tx, cid, sc::SUCCESS, false, u64::from(event.dword()));
        }
    }

    /// Delivers what every controller has to tell.
    pub(super) fn deliver_all<N: Net>(&mut self, net: &mut N) {
        self.eventful = false;
        for at in 0..self.conns.len() {
            let Some(mut c) = self.conns[at].take() else { continue };
            if let (State::Admin(controller), Some(tx)) = (c.state(), net.tx(c.id)) {
                self.tell(&mut c, controller, tx);
            }
            self.conns[at] = Some(c);
        }
    }

    /// Compares the snapshot before this one with the present one, and notes what hosts must be told.
    pub(super) fn note_changes(&mut self, old: &Snapshot) {
        let discovery_changed = old.generation != self.snapshot.generation;
        let (subs, snapshot) = (&self.subs, &self.snapshot);
        for controller in self.controllers.iter_mut() {
            if controller.discovery {
                controller.events.discovery |= discovery_changed;
                continue;
            }
            let Some(sub) = subs.get(controller.sub) else { continue };
            let Some(new) = sub.index.and_then(|i| snapshot.subsystems.get(i)) else { continue };
            let before = old.subsystems.iter().find(|s| s.nqn == new.nqn);
            let nsids = changed(before, new, &controller.hostnqn);
            if !nsids.is_empty() {
                controller.note_changed(&nsids);
                controller.events.namespaces = true;
            }
        }
        self.eventful = true;
    }
}
