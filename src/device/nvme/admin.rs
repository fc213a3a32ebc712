//! The admin side of a controller: bring-up (NVM Express Base Specification 2.0, 3.5.1 "Memory-based Controller
//! Initialization"), admin commands one at a time, reset, shutdown. It runs on the thread that opens the controller and
//! then on the controller's own; its clock and its waiting come in through [`World`], so a test drives it against a
//! controller made of software on one thread.
//!
//! What stays true: while the gate is open no I/O queue is created or deleted that a core may be using; when a controller is
//! given up it no longer reaches memory before the cores are told.

mod events;
mod queues;

use super::dma::{Block, Dma, PAGE};
use super::error::ControllerError;
use super::facts::ControllerFacts;
use super::gate::Seat;
use super::prp::Pointer;
use super::regs::{self, Bar, Cap};
use super::ring::{CQE, Entry, Ring, SQE, Shadow};
use super::shared::Shared;
use crate::base::Time;
use crate::wire::nvme::admin::{Abort, Identify};
use crate::wire::nvme::identify::{self, cns};
use crate::wire::nvme::log::{ErrorEntry, Smart, lid};
use crate::wire::nvme::{IDENTIFY_LEN, NSID_ALL, Sqe, StatusCode};
use std::collections::VecDeque;
use std::sync::Arc;
use zerocopy::{FromBytes, IntoBytes};

/// Entries of the admin queues.
const ENTRIES: u16 = 32;
/// How long an admin command may take.
const COMMAND_MS: u64 = 10_000;
/// How long cores may take to let go of their queues.
const LEAVE_MS: u64 = 30_000;
/// How long a normal shutdown may take when the controller does not say (RTD3E).
const SHUTDOWN_MS: u64 = 5_000;
/// Time between two looks at the controller while waiting.
const LOOK_NS: u64 = 20_000;
/// Resets within [`RESETS_WINDOW_NS`] after which the next failure means that the controller is dead.
const RESETS_MAX: usize = 3;
/// Five minutes.
const RESETS_WINDOW_NS: u64 = 300_000_000_000;
/// Identifiers of Asynchronous Event Requests start here; those of other commands are below.
const EVENT_CID: u16 = 0x100;
/// Events that may wait to be looked at.
const EVENTS_MAX: usize = 64;

/// The clock of the admin side, and what happens while it waits.
pub trait World {
    /// The present time.
    fn now(&mut self) -> Time;
    /// Lets about `ns` nanoseconds pass.
    fn pause(&mut self, ns: u64);
}

/// How a controller is cut off from memory when it does not obey any more.
pub trait Plug: Send {
    /// After this the controller does not read or write memory, whatever it does.
    fn pull(&mut self);
    /// It may read and write memory (again).
    fn push(&mut self);
}

/// What the admin side knows of an I/O queue pair, to create it again.
#[derive(Debug)]
struct Home {
    qid: u16,
    sq: Arc<Block>,
    cq: Arc<Block>,
    seat: Arc<Seat>,
}

/// The admin side of one controller.
pub struct Admin {
    bar: Arc<Bar>,
    dma: Arc<Dma>,
    cap: Cap,
    ring: Ring,
    sq: Arc<Block>,
    cq: Arc<Block>,
    /// Data of admin commands: one page.
    data: Block,
    shared: Arc<Shared>,
    plug: Box<dyn Plug>,
    facts: Option<ControllerFacts>,
    shadow: Option<Shadow>,
    homes: Vec<Home>,
    /// Entries of each I/O queue.
    entries: u16,
    next_cid: u16,
    /// Asynchronous Event Requests under way: bit `n` for the identifier [`EVENT_CID`]` + n`.
    armed: u16,
    events: VecDeque<u32>,
    resets: VecDeque<Time>,
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admin").field("facts", &self.facts).field("pairs", &self.homes.len()).finish_non_exhaustive()
    }
}

/// The eight 64-bit words of a command.
pub(super) fn words(sqe: &Sqe) -> [u64; 8] {
    let bytes: &[u8] = sqe.as_bytes();
    std::array::from_fn(|i| u64::from_le_bytes(bytes[i * 8..][..8].try_into().expect("eight bytes")))
}

impl Admin {
    /// For the controller behind `bar`, not touched yet.
    pub fn new(bar: Arc<Bar>, dma: Arc<Dma>, plug: Box<dyn Plug>) -> Result<Admin, super::NvmeError> {
        if bar.len() < regs::DOORBELLS + PAGE {
            return Err(ControllerError::Registers(bar.len()).into());
        }
        let cap = Cap(bar.read64(regs::CAP));
        let (sq, cq) = (Arc::new(dma.block(PAGE)?), Arc::new(dma.block(PAGE)?));
        let ring = Ring::new(&bar, cap.doorbell_stride(), 0, ENTRIES, Arc::clone(&sq), Arc::clone(&cq));
        let data = dma.block(PAGE)?;
        let shared = Arc::new(Shared::new(dma.block(PAGE)?));
        Ok(Admin {
            bar,
            dma,
            cap,
            ring,
            sq,
            cq,
            data,
            shared,
            plug,
            facts: None,
            shadow: None,
            homes: Vec::new(),
            entries: 0,
            next_cid: 0,
            armed: 0,
            events: VecDeque::with_capacity(EVENTS_MAX),
            resets: VecDeque::with_capacity(RESETS_MAX + 1),
        })
    }

    /// What it shares with the queues.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// I/O queue pairs in all.
    pub fn pairs(&self) -> usize {
        self.homes.len()
    }

    /// What Identify said. Asked only after [`Admin::start`].
    pub fn facts(&self) -> &ControllerFacts {
        self.facts.as_ref().expect("the controller was brought up")
    }

    /// Brings the controller up and makes up to `pairs` I/O queue pairs of up to `entries` entries, free on the shelf.
    pub fn start(&mut self, pairs: u16, entries: u16, world: &mut dyn World) -> Result<(), super::NvmeError> {
        self.plug.push();
        self.enable(world)?;
        self.facts = Some(self.identify_controller(world)?);
        let granted = self.ask_queues(pairs, world)?;
        self.set_shadow(world)?;
        let made = self.make_pairs(granted, entries)?;
        self.create_pairs(world)?;
        self.arm_events(world);
        self.shared.gate.run();
        for pair in made {
            self.shared.put_pair(pair);
        }
        let facts = self.facts();
        tracing::info!(
            model = %facts.model,
            serial = %facts.serial,
            firmware = %facts.firmware,
            queues = self.homes.len(),
            entries = self.entries,
            transfer = facts.transfer_max,
            volatile_cache = facts.volatile_cache,
            sgl = facts.sgl,
            shadow = self.shadow.is_some(),
            "NVMe controller"
        );
        Ok(())
    }

    /// What is to be done from time to time: failures, events, orders of the queues.
    pub fn tick(&mut self, world: &mut dyn World) {
        if self.shared.gate.is_dead() {
            return;
        }
        if let Err(error) = self.turn(world) {
            tracing::warn!(%error, "NVMe controller: resetting it");
            self.recover(world);
        }
    }

    fn turn(&mut self, world: &mut dyn World) -> Result<(), ControllerError> {
        self.look()?;
        self.reap(None)?;
        self.handle_events(world)?;
        while let Some(order) = self.shared.aborts.pop() {
            self.abort(Abort { sqid: order.qid, cid: order.cid }, world)?;
        }
        self.recycle(world)?;
        if self.shared.take_reset() { Err(ControllerError::Hung) } else { Ok(()) }
    }

    /// Resets the controller, as often as is sensible; it is dead when that does not help.
    pub fn recover(&mut self, world: &mut dyn World) {
        loop {
            let now = world.now();
            self.resets.retain(|at| now.since(*at) < RESETS_WINDOW_NS);
            self.resets.push_back(now);
            if self.bar.status().gone() || self.resets.len() > RESETS_MAX {
                return self.give_up();
            }
            match self.reset(world) {
                Ok(()) => return,
                Err(ControllerError::Gone | ControllerError::Stuck) => return self.give_up(),
                Err(error) => tracing::error!(%error, "NVMe controller: a reset failed"),
            }
        }
    }

    /// One controller reset (3.7.2): everything under way is given up by the controller, and submitted again by the cores.
    fn reset(&mut self, world: &mut dyn World) -> Result<(), ControllerError> {
        self.shared.gate.stop();
        let deadline = world.now().after_ms(LEAVE_MS);
        while self.homes.iter().any(|h| h.seat.is_taken()) {
            if world.now() > deadline {
                return Err(ControllerError::Stuck);
            }
            world.pause(LOOK_NS);
        }
        self.enable(world)?;
        let facts = self.identify_controller(world)?;
        if facts.serial != self.facts().serial {
            // Another controller in the same place holds none of our data.
            return Err(ControllerError::Gone);
        }
        let granted = self.ask_queues(self.homes.len() as u16, world)?;
        if usize::from(granted) < self.homes.len() {
            return Err(ControllerError::Queues);
        }
        self.set_shadow(world)?;
        self.create_pairs(world)?;
        self.arm_events(world);
        // What cores asked for before is answered by the reset.
        while self.shared.aborts.pop().is_some() {}
        self.shared.take_reset();
        self.shared.gate.run();
        tracing::warn!("NVMe controller: reset done");
        Ok(())
    }

    /// Cuts the controller off and tells the cores.
    pub fn give_up(&mut self) {
        tracing::error!("NVMe controller: dead");
        self.plug.pull();
        self.shared.gate.die();
    }

    /// Shuts the controller down (3.6.1): its cache is written out, and it is disabled.
    pub fn stop(&mut self, world: &mut dyn World) {
        if self.shared.gate.is_dead() || self.bar.status().gone() {
            return self.plug.pull();
        }
        self.shared.gate.stop();
        self.report_totals(world);
        self.bar.write32(regs::CC, self.bar.read32(regs::CC) & !regs::CC_SHN | regs::CC_SHUTDOWN);
        let deadline = world.now().after_ms(SHUTDOWN_MS.max(self.cap.timeout_ms()));
        while !self.bar.status().shut_down() && !self.bar.status().gone() && world.now() < deadline {
            world.pause(LOOK_NS);
        }
        if let Err(error) = self.disable(world) {
            tracing::warn!(%error, "NVMe controller: shutdown");
        }
        self.plug.pull();
    }

    /// Our counts beside the controller's own.
    fn report_totals(&mut self, world: &mut dyn World) {
        let [reads, writes, flushes, zeroes, discards] = self.shared.totals.get();
        if let Ok(smart) = self.smart(world) {
            tracing::info!(
                reads,
                writes,
                flushes,
                zeroes,
                discards,
                host_reads = smart.reads.get() as u64,
                host_writes = smart.writes.get() as u64,
                media_errors = smart.media_errors.get() as u64,
                "NVMe controller: commands completed, and what its health log counts"
            );
        }
    }

    /// Gone, or fatal?
    fn look(&self) -> Result<(), ControllerError> {
        match self.bar.status() {
            status if status.gone() => Err(ControllerError::Gone),
            status if status.fatal() => Err(ControllerError::Fatal),
            _ => Ok(()),
        }
    }

    /// Waits until RDY is `ready`.
    fn await_ready(&self, ready: bool, what: &'static str, world: &mut dyn World) -> Result<(), ControllerError> {
        let ms = self.cap.timeout_ms();
        let deadline = world.now().after_ms(ms);
        loop {
            let status = self.bar.status();
            if status.gone() {
                return Err(ControllerError::Gone);
            }
            if status.ready() == ready {
                return Ok(());
            }
            if ready && status.fatal() {
                return Err(ControllerError::Fatal);
            }
            if world.now() > deadline {
                return Err(ControllerError::Slow { what, ms });
            }
            world.pause(LOOK_NS);
        }
    }

    fn disable(&self, world: &mut dyn World) -> Result<(), ControllerError> {
        let cc = self.bar.read32(regs::CC);
        if cc == u32::MAX {
            return Err(ControllerError::Gone);
        }
        if cc & regs::CC_EN != 0 {
            // EN may not be cleared while enabling is still under way (3.1.3.5); a fatal controller never gets there.
            if !self.bar.status().fatal() {
                // Not answered in time: cleared all the same, for there is nothing else to try.
                self.await_ready(true, "become ready", world).or_else(still_there)?;
            }
            self.bar.write32(regs::CC, cc & !regs::CC_EN & !regs::CC_SHN);
        }
        self.await_ready(false, "stop", world)
    }

    /// Disables the controller, gives it its admin queues and enables it.
    fn enable(&mut self, world: &mut dyn World) -> Result<(), ControllerError> {
        self.disable(world)?;
        if !self.cap.has_nvm() {
            return Err(ControllerError::CommandSet);
        }
        if self.cap.page_min() > PAGE as u64 {
            return Err(ControllerError::Pages(self.cap.page_min()));
        }
        self.sq.zero(usize::from(ENTRIES) * SQE);
        self.cq.zero(usize::from(ENTRIES) * CQE);
        self.ring.restart();
        self.armed = 0;
        self.events.clear();
        self.bar.write32(regs::AQA, u32::from(ENTRIES - 1) << 16 | u32::from(ENTRIES - 1));
        self.bar.write64(regs::ASQ, self.sq.iova());
        self.bar.write64(regs::ACQ, self.cq.iova());
        self.bar.write32(regs::CC, regs::CC_ENABLED);
        self.await_ready(true, "become ready", world)
    }

    /// Runs one admin command to its end; its dword 0. `data`: the page of this machine goes with it.
    fn command(
        &mut self,
        mut sqe: Sqe,
        data: bool,
        what: &'static str,
        world: &mut dyn World,
    ) -> Result<u32, ControllerError> {
        let cid = self.next_cid;
        self.next_cid = (cid + 1) % EVENT_CID;
        sqe.cid.set(cid);
        let pointer = if data { Pointer::Prp(self.data.iova(), 0) } else { Pointer::None };
        if data || sqe.psdt() != 0 {
            pointer.put(&mut sqe);
        }
        self.ring.push(&words(&sqe));
        self.ring.tell();
        let deadline = world.now().after_ms(COMMAND_MS);
        loop {
            if let Some(entry) = self.reap(Some(cid))? {
                let status = StatusCode::from_field(entry.status);
                return if status.is_ok() { Ok(entry.result) } else { Err(ControllerError::Command { what, status }) };
            }
            self.look()?;
            if world.now() > deadline {
                return Err(ControllerError::Slow { what, ms: COMMAND_MS });
            }
            world.pause(LOOK_NS);
        }
    }

    /// Takes all admin completions; the one of `wanted` if it is there.
    fn reap(&mut self, wanted: Option<u16>) -> Result<Option<Entry>, ControllerError> {
        let mut found = None;
        while let Some(entry) = self.ring.pop() {
            let event = 1u16.checked_shl(u32::from(entry.cid.wrapping_sub(EVENT_CID))).unwrap_or(0) & self.armed;
            if event != 0 {
                self.armed &= !event;
                // One that failed (the limit, an abort) tells nothing.
                if StatusCode::from_field(entry.status).is_ok() && self.events.len() < EVENTS_MAX {
                    self.events.push_back(entry.result);
                }
            } else if Some(entry.cid) == wanted && found.is_none() {
                found = Some(entry);
            } else {
                return Err(ControllerError::Ghost);
            }
        }
        self.ring.tell();
        Ok(found)
    }

    fn identify(
        &mut self,
        cns: u8,
        nsid: u32,
        csi: u8,
        what: &'static str,
        world: &mut dyn World,
    ) -> Result<Box<[u8]>, ControllerError> {
        self.data.zero(PAGE);
        let sqe = Identify { cns, cntid: 0, specific: 0, csi, nsid }.sqe(0);
        self.command(sqe, true, what, world)?;
        let mut bytes = vec![0; IDENTIFY_LEN].into_boxed_slice();
        self.data.copy_out(&mut bytes);
        Ok(bytes)
    }

    fn identify_controller(&mut self, world: &mut dyn World) -> Result<ControllerFacts, ControllerError> {
        let id = self.identify(cns::CONTROLLER, 0, 0, "Identify Controller", world)?;
        // Controllers before 2.0 know no such page, and would note an error for asking.
        let newer = self.bar.read32(regs::VS) >> 16 >= 2;
        let nvm = newer.then(|| self.identify(cns::CONTROLLER_CSI, 0, 0, "Identify NVM", world));
        let nvm = match nvm {
            Some(Ok(bytes)) => Some(bytes),
            Some(Err(error)) if !matches!(error, ControllerError::Command { .. }) => return Err(error),
            _ => None,
        };
        let nvm = nvm.as_deref().map(|n| identify::NvmController::ref_from_bytes(n).expect("a page"));
        ControllerFacts::of(self.cap, identify::Controller::ref_from_bytes(&id).expect("a page"), nvm)
    }

    /// Identify Namespace of an active namespace.
    pub fn identify_namespace(
        &mut self,
        nsid: u32,
        world: &mut dyn World,
    ) -> Result<Box<identify::Namespace>, ControllerError> {
        let bytes = self.identify(cns::NAMESPACE, nsid, 0, "Identify Namespace", world)?;
        Ok(Box::new(identify::Namespace::read_from_bytes(&bytes).expect("a page")))
    }

    /// The active namespaces, at most 1024.
    pub fn active_namespaces(&mut self, world: &mut dyn World) -> Result<Vec<u32>, ControllerError> {
        let bytes = self.identify(cns::ACTIVE_LIST, 0, 0, "Active Namespace ID list", world)?;
        Ok(identify::NamespaceList::ref_from_bytes(&bytes).expect("a page").iter().collect())
    }

    /// Reads the first `len` bytes (at most a page) of a log page.
    fn log(&mut self, lid: u8, len: usize, world: &mut dyn World) -> Result<Vec<u8>, ControllerError> {
        use crate::wire::nvme::admin::GetLogPage;
        self.data.zero(PAGE);
        let get =
            GetLogPage { lid, lsp: 0, retain: false, len: len as u64, offset: 0, index_offset: false, nsid: NSID_ALL };
        self.command(get.sqe(0), true, "Get Log Page", world)?;
        let mut bytes = vec![0; len];
        self.data.copy_out(&mut bytes);
        Ok(bytes)
    }

    /// SMART / Health Information of the controller.
    pub fn smart(&mut self, world: &mut dyn World) -> Result<Smart, ControllerError> {
        let bytes = self.log(lid::SMART, size_of::<Smart>(), world)?;
        Ok(Smart::read_from_bytes(&bytes).expect("512 bytes"))
    }

    /// The newest entries of the error log, newest first.
    pub fn errors(&mut self, world: &mut dyn World) -> Result<Vec<ErrorEntry>, ControllerError> {
        let size = size_of::<ErrorEntry>();
        let bytes = self.log(lid::ERROR, 16 * size, world)?;
        let entries = bytes.chunks_exact(size).map(|b| ErrorEntry::read_from_bytes(b).expect("64 bytes"));
        Ok(entries.take_while(|e| e.count.get() != 0).collect())
    }

    /// Asks the controller to give up a command. Whether it did shows in that command's completion.
    fn abort(&mut self, abort: Abort, world: &mut dyn World) -> Result<(), ControllerError> {
        match self.command(abort.sqe(0), false, "Abort", world) {
            Ok(result) => {
                let aborted = result & 1 == 0;
                tracing::warn!(
                    queue = abort.sqid,
                    command = abort.cid,
                    aborted,
                    "NVMe controller: a command took too long"
                );
                Ok(())
            }
            // Too many at once, or not known: the command's own queue goes on counting.
            Err(ControllerError::Command { status, .. }) => {
                tracing::warn!(queue = abort.sqid, command = abort.cid, ?status, "NVMe controller: Abort failed");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

fn still_there(error: ControllerError) -> Result<(), ControllerError> {
    if error == ControllerError::Gone { Err(error) } else { Ok(()) }
}
