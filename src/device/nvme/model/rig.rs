//! The driver and the model on one thread, with a clock that is turned by hand.

use super::{Model, Traits};
use crate::base::Time;
use crate::device::nvme::admin::{Admin, Plug, World};
use crate::device::nvme::facts::NamespaceFacts;
use crate::device::nvme::shared::Namespace;
use crate::device::nvme::{NvmeError, NvmeQueue, NvmeSpec, PciAddress, caps, terms};
use crate::device::{Done, Queue};
use crate::mem::Span;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Entries the driver asks for.
const ENTRIES: u16 = 512;

/// Whether the model is a bus master.
struct Switch(Arc<AtomicBool>);

impl Plug for Switch {
    fn pull(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
    fn push(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A driver and its controller.
#[derive(Debug)]
pub struct Rig {
    /// The controller.
    pub model: Model,
    /// The driver's queues.
    pub queues: Vec<NvmeQueue>,
    /// What they completed while the admin side waited, or in [`Rig::step`].
    pub done: Vec<Done>,
    /// The present time.
    pub now: Time,
    /// How the device is opened.
    pub spec: NvmeSpec,
    pub(in crate::device::nvme) admin: Admin,
    plugged: Arc<AtomicBool>,
}

/// What goes on while the admin side waits.
struct Lab<'a> {
    model: &'a mut Model,
    queues: &'a mut [NvmeQueue],
    done: &'a mut Vec<Done>,
    now: &'a mut Time,
}

impl World for Lab<'_> {
    fn now(&mut self) -> Time {
        *self.now
    }
    fn pause(&mut self, ns: u64) {
        *self.now = self.now.after_ns(ns);
        self.model.step();
        for queue in &mut *self.queues {
            queue.poll(*self.now, self.done);
        }
    }
}

impl Rig {
    /// A controller that was not touched yet.
    ///
    /// # Panics
    /// Without memory.
    pub fn new(traits: Traits) -> Rig {
        let model = Model::new(traits);
        let plugged = Arc::new(AtomicBool::new(false));
        let admin = Admin::new(model.bar(), model.dma(), Box::new(Switch(Arc::clone(&plugged)))).expect("memory");
        let address = PciAddress { domain: 0, bus: 0, device: 0, function: 0 };
        let (queues, done, now) = (Vec::new(), Vec::new(), Time(0));
        Rig { model, queues, done, now, spec: NvmeSpec::new(address), admin, plugged }
    }

    /// Brings it up.
    pub fn start(&mut self) -> Result<(), NvmeError> {
        self.with(|admin, world| admin.start(8, ENTRIES, world))
    }

    /// Does something on the admin side.
    pub(in crate::device::nvme) fn with<T>(&mut self, work: impl FnOnce(&mut Admin, &mut dyn World) -> T) -> T {
        let Rig { model, queues, done, now, admin, .. } = self;
        work(admin, &mut Lab { model, queues, done, now })
    }

    /// One turn of the admin side.
    pub fn tick(&mut self) {
        self.with(|admin, world| admin.tick(world));
    }

    /// Opens one more queue, of `depth` operations, to namespace `nsid`.
    pub fn open(&mut self, nsid: u32, depth: u32, spans: &[Span]) -> Result<(), NvmeError> {
        let id = self.with(|admin, world| admin.identify_namespace(nsid, world))?;
        let facts = NamespaceFacts::of(nsid, &id).map_err(|format| NvmeError::Format { nsid, format })?;
        let shared = Arc::clone(self.admin.shared());
        let namespace = shared.namespace(Namespace::new(nsid, facts.block_shift, facts.bytes()));
        let pair = shared.take_pair().ok_or(NvmeError::NoQueue(self.admin.pairs()))?;
        let windows = self.model.dma().windows(spans)?;
        let controller = self.admin.facts();
        let terms = terms(controller, &facts, &self.spec, &shared, &namespace);
        let caps = caps(controller, &facts, &self.spec, namespace.size(), depth);
        self.queues.push(NvmeQueue::new(pair, terms, windows, caps));
        Ok(())
    }

    /// Lets `ns` pass: the model works, the queues are kicked and polled.
    pub fn step(&mut self, ns: u64) {
        self.now = self.now.after_ns(ns);
        for queue in &mut self.queues {
            queue.kick();
        }
        self.model.step();
        for queue in &mut self.queues {
            queue.poll(self.now, &mut self.done);
        }
    }

    /// True while the controller may reach memory.
    pub fn plugged(&self) -> bool {
        self.plugged.load(Ordering::Relaxed)
    }
}
