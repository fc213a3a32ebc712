//! An open controller: found, brought up and then looked after by a thread of its own; shared by the namespaces and
//! queues of this process, and shut down when the last of them is gone.

use super::admin::{Admin, Plug, World};
use super::dma::{Dma, Windows};
use super::error::{ControllerError, NvmeError};
use super::facts::{ControllerFacts, NamespaceFacts};
use super::shared::Shared;
use super::vfio::{Container, Device};
use super::{PciAddress, pci};
use crate::base::Time;
use crate::mem::Span;
use std::collections::BTreeMap;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often the thread looks at its controller.
const LOOK: Duration = Duration::from_millis(20);
/// Entries of an I/O queue at most: more commands than any disk needs to be busy.
const ENTRIES_MAX: u16 = 512;
/// I/O queue pairs at most.
const PAIRS_MAX: usize = 256;

/// Something for the admin thread to do.
type Job = Box<dyn FnOnce(&mut Admin, &mut dyn World) + Send>;

/// The real clock.
struct Real(Instant);

impl World for Real {
    fn now(&mut self) -> Time {
        Time(self.0.elapsed().as_nanos() as u64)
    }
    fn pause(&mut self, ns: u64) {
        std::thread::sleep(Duration::from_nanos(ns));
    }
}

/// Cuts a device off by the PCI command register, and by a function reset.
struct BusMaster(Device);

impl Plug for BusMaster {
    fn push(&mut self) {
        if let Err(error) = self.0.bus_master(true) {
            tracing::error!(%error, "NVMe controller: it can not be made bus master");
        }
    }
    fn pull(&mut self) {
        // A device that is gone fails both, and reaches no memory either.
        let cut = self.0.bus_master(false);
        let reset = self.0.reset();
        tracing::debug!(?cut, ?reset, "NVMe controller: cut off from memory");
    }
}

/// A controller this process drives.
#[derive(Debug)]
pub struct Controller {
    address: PciAddress,
    unsafe_noiommu: bool,
    facts: ControllerFacts,
    pairs: usize,
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    shared: Arc<Shared>,
    dma: Arc<Dma>,
}

/// The controllers of this process: VFIO lets a device be opened once.
static OPEN: Mutex<BTreeMap<PciAddress, Weak<Controller>>> = Mutex::new(BTreeMap::new());

impl Controller {
    /// The controller at `address`: the one this process has, or brought up now.
    pub fn open(address: PciAddress, unsafe_noiommu: bool) -> Result<Arc<Controller>, NvmeError> {
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(controller) = open.get(&address).and_then(Weak::upgrade)
            && !controller.shared.gate.is_dead()
        {
            let same = controller.unsafe_noiommu == unsafe_noiommu;
            return if same { Ok(controller) } else { Err(NvmeError::Options) };
        }
        let controller = Arc::new(Controller::bring_up(address, unsafe_noiommu)?);
        open.insert(address, Arc::downgrade(&controller));
        Ok(controller)
    }

    fn bring_up(address: PciAddress, unsafe_noiommu: bool) -> Result<Controller, NvmeError> {
        let group = pci::group_of(address, unsafe_noiommu)?;
        if unsafe_noiommu {
            tracing::warn!(
                %address,
                "UNSAFE: NVMe without an IOMMU. A fault of this controller, of its firmware or of this program may \
                 overwrite any memory of the machine, the kernel's included"
            );
        }
        let container = Container::of_group(group, !unsafe_noiommu)?;
        let device = Device::open(Arc::clone(&container), address)?;
        let bar = Arc::new(device.bar()?);
        let dma = Dma::through(container);
        let mut admin = Admin::new(bar, Arc::clone(&dma), Box::new(BusMaster(device)))?;
        let mut world = Real(Instant::now());
        // A pair for each core to use one namespace, as many to use another, and two for the control thread to look at
        // what is on them.
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let wanted = (2 * cores + 2).min(PAIRS_MAX) as u16;
        admin.start(wanted, ENTRIES_MAX, &mut world).inspect_err(|_| admin.give_up())?;
        let (facts, shared, pairs) = (admin.facts().clone(), Arc::clone(admin.shared()), admin.pairs());
        let (jobs, inbox) = mpsc::channel::<Job>();
        let look_after = move || {
            loop {
                match inbox.recv_timeout(LOOK) {
                    Ok(job) => job(&mut admin, &mut world),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return admin.stop(&mut world),
                }
                admin.tick(&mut world);
            }
        };
        let thread = std::thread::Builder::new().name(format!("nvme {address}")).spawn(look_after);
        let thread = Some(thread.map_err(NvmeError::system("thread"))?);
        Ok(Controller { address, unsafe_noiommu, facts, pairs, jobs: Some(jobs), thread, shared, dma })
    }

    /// Does `work` on the admin thread and waits for it.
    fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Admin, &mut dyn World) -> Result<T, ControllerError> + Send + 'static,
    ) -> Result<T, NvmeError> {
        let (reply, answer) = mpsc::sync_channel(1);
        let job: Job = Box::new(move |admin, world| {
            // Nobody waits any more: the answer is for nobody.
            let _ = reply.send(work(admin, world));
        });
        let jobs = self.jobs.as_ref().expect("there until it is dropped");
        if self.shared.gate.is_dead() || jobs.send(job).is_err() {
            return Err(ControllerError::Gone.into());
        }
        Ok(answer.recv().map_err(|_| ControllerError::Gone)??)
    }

    /// Where it is.
    pub fn address(&self) -> PciAddress {
        self.address
    }
    /// What Identify said.
    pub fn facts(&self) -> &ControllerFacts {
        &self.facts
    }
    /// I/O queue pairs in all.
    pub fn pairs(&self) -> usize {
        self.pairs
    }
    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
    pub(super) fn windows(&self, spans: &[Span]) -> Result<Windows, NvmeError> {
        self.dma.windows(spans)
    }

    /// The active namespaces.
    pub fn namespaces(&self) -> Result<Vec<u32>, NvmeError> {
        self.ask(Admin::active_namespaces)
    }

    /// The facts of namespace `nsid`, or of the only one.
    pub fn namespace(&self, nsid: Option<u32>) -> Result<NamespaceFacts, NvmeError> {
        let active = self.namespaces()?;
        let list = || active.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
        let nsid = match (nsid, active.as_slice()) {
            (Some(nsid), all) if all.contains(&nsid) => nsid,
            (None, [only]) => *only,
            (None, [first, _, ..]) => {
                return Err(NvmeError::WhichNamespace { address: self.address, first: *first, active: list() });
            }
            (asked, _) => return Err(NvmeError::NoNamespace { nsid: asked.unwrap_or(1), active: list() }),
        };
        let id = self.ask(move |admin, world| admin.identify_namespace(nsid, world))?;
        NamespaceFacts::of(nsid, &id).map_err(|format| NvmeError::Format { nsid, format })
    }

    /// Looks at the sizes of the namespaces in use again.
    pub fn rescan(&self) -> Result<(), NvmeError> {
        self.ask(Admin::rescan)
    }

    /// SMART / Health Information.
    pub fn smart(&self) -> Result<crate::wire::nvme::log::Smart, NvmeError> {
        self.ask(Admin::smart)
    }

    /// The newest entries of the error log, newest first.
    pub fn errors(&self) -> Result<Vec<crate::wire::nvme::log::ErrorEntry>, NvmeError> {
        self.ask(Admin::errors)
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        // The thread ends with its inbox: it shuts the controller down and cuts it off.
        self.jobs = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!(address = %self.address, "NVMe controller: its thread panicked");
        }
    }
}
