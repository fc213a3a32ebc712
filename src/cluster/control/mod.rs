//! The conductor: applies commands, journals them, and moves the data path along, one mutating call at a time. `rpc`
//! calls it; it calls [`Node`].
//!
//! Order of every mutation: check against the state; do on the data path what may fail (open, bind, format); commit;
//! then do what only follows (publish, close, wipe). A call must be driven to its end: its caller runs it in a task that
//! nothing cancels.

mod bdev;
mod declare;
mod devices;
mod exports;
mod iscsi;
mod reserve;
mod start;
mod stores;

pub use bdev::Bdev;
pub use declare::{Declared, DeclaredBdev, DeclaredStore, DeclaredSubsystem, DeclaredVolume, MadeOf};
pub use exports::NamespaceSpec;
pub use iscsi::{DeclaredIscsi, LunSpec, TargetSpec};
pub use stores::{Room, VOLUME_BYTES_MAX};

use super::command::{Command, Effect};
use super::error::Error;
use super::journal::Journal;
use super::model::{Intent, Volume};
use super::names::BdevName;
use super::node::{DeviceReport, Node};
use super::state::State;
use crate::base::VolumeId;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use uuid::Uuid;

/// Notifications kept for `notify_get_notifications`; older ones are forgotten.
const EVENTS: usize = 1024;

/// What happened to a bdev.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EventKind {
    /// It is there now.
    Register,
    /// It is gone.
    Unregister,
    /// Its size changed.
    Resize,
}

/// A notification.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    /// Counts from 0, never reused while the node runs.
    pub id: u64,
    /// What happened.
    pub kind: EventKind,
    /// The bdev's name.
    pub bdev: String,
}

/// What is configured but does not work at present.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Problem {
    /// The raw device could not be opened.
    Device(VolumeId),
    /// The store could not be opened.
    Store(Uuid),
    /// Nobody listens on the address.
    Listener(SocketAddr),
    /// An unfinished deletion.
    Intent(Intent),
}

/// A node's control plane.
#[derive(Debug)]
pub struct Control<N> {
    node: N,
    state: RefCell<Arc<State>>,
    journal: RefCell<Journal>,
    /// What the opened devices are like.
    devices: RefCell<BTreeMap<VolumeId, (BdevName, DeviceReport)>>,
    /// Volumes of the open stores, with their store.
    volumes: RefCell<BTreeMap<VolumeId, (Uuid, Volume)>>,
    problems: RefCell<BTreeMap<Problem, Error>>,
    events: RefCell<VecDeque<Event>>,
    next_event: Cell<u64>,
    /// Held by the mutating call under way.
    turn: tokio::sync::Mutex<()>,
}

impl<N: Node> Control<N> {
    /// A control plane at the journal's state. Nothing is opened until [`Control::start`].
    pub fn new(node: N, journal: Journal, state: State) -> Control<N> {
        Control {
            node,
            state: RefCell::new(Arc::new(state)),
            journal: RefCell::new(journal),
            devices: RefCell::default(),
            volumes: RefCell::default(),
            problems: RefCell::default(),
            events: RefCell::default(),
            next_event: Cell::new(0),
            turn: tokio::sync::Mutex::new(()),
        }
    }

    /// The data path.
    pub fn node(&self) -> &N {
        &self.node
    }
    /// The state as last committed.
    pub fn state(&self) -> Arc<State> {
        self.state.borrow().clone()
    }
    /// What is configured but does not work, and why.
    pub fn problems(&self) -> Vec<(Problem, String)> {
        self.problems.borrow().iter().map(|(p, e)| (*p, e.to_string())).collect()
    }
    /// Notifications from `id` on, at most `max`.
    pub fn events(&self, id: u64, max: usize) -> Vec<Event> {
        self.events.borrow().iter().filter(|e| e.id >= id).take(max).cloned().collect()
    }

    /// A change that needs nothing of the data path beforehand.
    pub async fn change(&self, command: Command) -> Result<(), Error> {
        let _turn = self.turn.lock().await;
        self.commit(&command).await
    }

    /// Applies, journals, and carries out what follows.
    async fn commit(&self, command: &Command) -> Result<(), Error> {
        let effects = self.record(command)?;
        for effect in effects {
            self.run(effect).await;
        }
        Ok(())
    }

    /// Applies and journals. The state is the next one when this returns `Ok`.
    fn record(&self, command: &Command) -> Result<Vec<Effect>, Error> {
        let old = self.state();
        let (next, effects) = old.apply(command)?;
        self.journal.borrow_mut().commit(&old, &next)?;
        *self.state.borrow_mut() = Arc::new(next);
        Ok(effects)
    }

    /// What a mutating call holds while it is under way.
    #[cfg(test)]
    pub(in crate::cluster) fn turn_for_test(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.turn.try_lock().expect("no call is under way")
    }

    async fn run(&self, effect: Effect) {
        match effect {
            Effect::Publish => self.node.publish(self.state()).await,
            Effect::Reserve => self.node.reserve(self.state()).await,
            Effect::Unlisten(addr) => {
                if self.problems.borrow_mut().remove(&Problem::Listener(addr)).is_none() {
                    self.node.unlisten(addr).await;
                }
            }
            Effect::CloseStore(uuid) => self.shut_store(uuid).await,
            Effect::Carry(intent) => self.carry(intent).await,
            Effect::CloseDevice(id) => self.shut_device(id).await,
        }
    }

    fn note(&self, kind: EventKind, bdev: String) {
        let mut events = self.events.borrow_mut();
        if events.len() == EVENTS {
            events.pop_front();
        }
        let id = self.next_event.replace(self.next_event.get() + 1);
        events.push_back(Event { id, kind, bdev });
    }

    fn complain(&self, problem: Problem, error: Error) {
        tracing::warn!("{problem:?}: {error}");
        self.problems.borrow_mut().insert(problem, error);
    }
}
