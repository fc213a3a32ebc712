//! Raw devices: opened on the control thread, then one queue per core.

use super::cores::{Carrier, Cores};
use super::nvme;
use crate::base::{Time, VolumeId};
use crate::cluster::{DelayTimes, DeviceReport, DeviceSpec, FaultKind, FaultOn, FaultOrder, FileSpec, NodeError};
use crate::device::delay::{Latency, Pace};
use crate::device::fault::{Action, FaultReport, FaultRule};
use crate::device::{self, Caps, DeviceError, Medium, OpKind, OpenError, Queue, Spec};
use crate::mem::{Arena, Pool, Span};
use crate::repl::DeviceId;
use std::collections::BTreeMap;
use uuid::Uuid;

/// Operations a core may have under way on one device.
const DEPTH: u32 = 1024;

/// A raw device as opened.
pub struct OpenDevice {
    /// Its place in the cores' tables.
    pub number: DeviceId,
    /// The medium; clones share it.
    pub medium: Medium,
    /// Its identity.
    pub uuid: Uuid,
    /// What was asked for.
    pub spec: DeviceSpec,
    /// Size and facts as hosts see them.
    pub report: DeviceReport,
}

impl OpenDevice {
    /// Adds an error to inject, or takes those of its operations away.
    pub fn inject(&mut self, order: FaultOrder) -> Result<(), NodeError> {
        let handle = self.medium.faults().ok_or(NodeError::Unsupported("not an error-injecting device"))?;
        let action = match order.kind {
            FaultKind::Clear => None,
            FaultKind::Fail => Some(Action::Error(DeviceError::Media)),
            FaultKind::Corrupt { offset, value } => Some(Action::Corrupt { at: offset, value }),
            FaultKind::Hang => Some(Action::Hold),
        };
        let kinds = OpKind::ALL.into_iter().filter(|k| hits(order.on, *k));
        // What is left of earlier orders for other operations.
        let mut rules: Vec<FaultRule> = handle.report().iter().map(remaining).collect();
        rules.retain(|r| r.end > 0 && r.op.is_none_or(|k| !hits(order.on, k)));
        if let Some(action) = action {
            let rule = |kind| FaultRule { op: Some(kind), end: order.count, ..FaultRule::always(action) };
            rules.extend(kinds.filter(|k| action.fits(*k)).map(rule));
        }
        handle.set(&rules);
        if order.kind == FaultKind::Clear {
            handle.release();
        }
        Ok(())
    }

    /// Lets go on what the device holds back, and takes the orders to hold away.
    pub fn release(&self) -> Result<(), NodeError> {
        let handle = self.medium.faults().ok_or(NodeError::Unsupported("not an error-injecting device"))?;
        let mut rules: Vec<FaultRule> = handle.report().iter().map(remaining).collect();
        rules.retain(|r| r.end > 0 && r.action != Action::Hold);
        handle.set(&rules);
        handle.release();
        Ok(())
    }
}

/// A rule for as many operations as it has not had yet.
fn remaining(r: &FaultReport) -> FaultRule {
    FaultRule { end: r.rule.end.saturating_sub(r.seen), ..r.rule.clone() }
}

fn hits(on: FaultOn, kind: OpKind) -> bool {
    match on {
        FaultOn::All => true,
        FaultOn::Read => kind == OpKind::Read,
        FaultOn::Write => kind == OpKind::Write,
        FaultOn::Discard => kind == OpKind::Discard,
        FaultOn::WriteZeroes => kind == OpKind::WriteZeroes,
        FaultOn::Flush => kind == OpKind::Flush,
    }
}

/// The node's raw devices.
#[derive(Default)]
pub struct Devices {
    open: BTreeMap<VolumeId, OpenDevice>,
}

impl Devices {
    /// An open device.
    pub fn get(&self, id: VolumeId) -> Result<&OpenDevice, NodeError> {
        self.open.get(&id).ok_or(NodeError::Gone)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&VolumeId, &OpenDevice)> {
        self.open.iter()
    }

    /// The first number no open device has.
    fn free_number(&self) -> DeviceId {
        let taken = |n: u16| self.open.values().any(|d| d.number == DeviceId(n));
        DeviceId((0..u16::MAX).find(|n| !taken(*n)).expect("devices are far fewer than numbers"))
    }

    /// Opens the medium of `spec`; nothing is attached to the cores yet.
    pub fn open(&self, uuid: Uuid, spec: &DeviceSpec) -> Result<OpenDevice, NodeError> {
        let medium = match spec {
            DeviceSpec::Delay { base, times } => {
                self.get(*base)?.medium.clone().with_delay(&latency(*times), u64::from(base.0))
            }
            DeviceSpec::Fault { base } => self.get(*base)?.medium.clone().with_fault(&[], u64::from(base.0)),
            DeviceSpec::Malloc { block_size, blocks } => {
                opened(&format!("ram:{},bs={block_size}", bytes(*block_size, *blocks)))?
            }
            DeviceSpec::Null { block_size, blocks } => {
                opened(&format!("null:{},bs={block_size}", bytes(*block_size, *blocks)))?
            }
            DeviceSpec::Nvme(nvme) => Medium::open(&Spec::Nvme(nvme::spec(nvme)?)).map_err(|e| open_error(&e))?,
            DeviceSpec::File(file) => Medium::open(&Spec::File(file_spec(file))).map_err(|e| open_error(&e))?,
        };
        let report = report(&medium.caps());
        Ok(OpenDevice { number: self.free_number(), medium, uuid, spec: spec.clone(), report })
    }

    /// Remembers a device whose queues are attached.
    pub fn insert(&mut self, id: VolumeId, device: OpenDevice) {
        self.open.insert(id, device);
    }

    /// Forgets a device.
    pub fn remove(&mut self, id: VolumeId) -> Option<OpenDevice> {
        self.open.remove(&id)
    }

    /// An open device, to change.
    pub fn get_mut(&mut self, id: VolumeId) -> Result<&mut OpenDevice, NodeError> {
        self.open.get_mut(&id).ok_or(NodeError::Gone)
    }
}

/// Gives every core a queue to the device; takes all back when one core cannot have it.
pub async fn attach<C: Carrier>(cores: &Cores<C>, number: DeviceId, medium: &Medium) -> Result<(), NodeError> {
    let medium = medium.clone();
    let made = cores
        .each(move |core, _| {
            let spans: Vec<Span> = core.spans().to_vec();
            let depth = DEPTH.min(medium.caps().depth);
            match medium.queue(core.id(), depth, &spans) {
                Ok(queue) => {
                    core.front().local().add_device(number, queue);
                    Ok(())
                }
                Err(e) => Err(open_error(&e)),
            }
        })
        .await?;
    let failed = made.into_iter().find_map(Result::err);
    match failed {
        None => Ok(()),
        Some(e) => {
            detach(cores, number).await?;
            Err(e)
        }
    }
}

/// Takes every core's queue to the device away, once it is idle.
pub async fn detach<C: Carrier>(cores: &Cores<C>, number: DeviceId) -> Result<(), NodeError> {
    cores
        .until(move |core| {
            let (front, pool) = core.front_and_pool();
            let local = front.local();
            local.queue(number).is_none() || local.remove_device(number, pool).is_some()
        })
        .await
}

/// Gives every core another queue in the place of the one it has, once that is idle.
pub async fn replace<C: Carrier>(cores: &Cores<C>, number: DeviceId, medium: &Medium) -> Result<(), NodeError> {
    let medium = medium.clone();
    cores
        .until(move |core| {
            let spans: Vec<Span> = core.spans().to_vec();
            let queue = match medium.queue(core.id(), DEPTH.min(medium.caps().depth), &spans) {
                Ok(queue) => queue,
                Err(e) => panic!("a device without a medium needs nothing that could be missing: {e}"),
            };
            let (front, pool) = core.front_and_pool();
            front.local().replace_device(number, queue, pool).is_ok()
        })
        .await
}

/// A device's I/O without a reactor: for looking at and wiping superblocks, on the control thread.
///
/// `work` gets a function that runs one operation to its end, and a pool with one buffer of `bytes`.
pub fn with_queue<T>(
    medium: &Medium,
    bytes: usize,
    work: impl FnOnce(&mut dyn FnMut(device::Op) -> Result<Option<crate::mem::Buf>, NodeError>, &mut Pool) -> T,
) -> Result<T, NodeError> {
    let core = crate::base::CoreId(0);
    let classes = [crate::mem::Class { size: bytes.next_multiple_of(4096), count: 1 }];
    let memory = |e: std::io::Error| NodeError::Os { what: "memory", errno: e.raw_os_error().unwrap_or(0) };
    let arena = Arena::new(classes[0].size).map_err(memory)?;
    let mut pool = Pool::new(core, &arena, &classes).expect("the arena was made for this buffer");
    let mut queue = medium.queue(core, 4, &[arena.span()]).map_err(|e| open_error(&e))?;
    let mut done = Vec::new();
    let started = std::time::Instant::now();
    let mut run = |op: device::Op| {
        assert!(queue.submit(op).is_ok(), "one operation at a time");
        queue.kick();
        while queue.poll(Time(started.elapsed().as_nanos() as u64), &mut done) == 0 {
            std::thread::yield_now();
        }
        let done = done.pop().expect("one completed");
        done.result.map_err(|e| NodeError::Block { what: "superblock", status: e.into() })?;
        Ok(done.buf)
    };
    Ok(work(&mut run, &mut pool))
}

fn opened(text: &str) -> Result<Medium, NodeError> {
    let spec: Spec = text.parse().map_err(|_| NodeError::Size("must be a multiple of the block size"))?;
    Medium::open(&spec).map_err(|e| open_error(&e))
}

fn bytes(block_size: u32, blocks: u64) -> u64 {
    u64::from(block_size).saturating_mul(blocks)
}

fn file_spec(file: &FileSpec) -> device::FileSpec {
    let mut spec = device::FileSpec::new(&file.path);
    spec.block = file.block_size;
    spec.read_only = file.read_only;
    spec
}

/// Size and facts as the control plane tells them.
pub fn report(caps: &Caps) -> DeviceReport {
    DeviceReport {
        block_size: caps.block_size,
        blocks: caps.size / u64::from(caps.block_size),
        volatile_cache: caps.volatile_cache,
        write_zeroes: caps.write_zeroes,
        discard: caps.discard,
        read_only: caps.read_only,
    }
}

/// Latencies in the device's terms.
pub fn latency(times: DelayTimes) -> Latency {
    let mut latency = Latency::default();
    *latency.of_mut(OpKind::Read) = Pace { usual: times.read_avg_us * 1000, p99: times.read_p99_us * 1000 };
    *latency.of_mut(OpKind::Write) = Pace { usual: times.write_avg_us * 1000, p99: times.write_p99_us * 1000 };
    latency
}

/// An opening failure as the control plane tells it.
pub fn open_error(e: &OpenError) -> NodeError {
    tracing::warn!("device: {e}");
    let os = |what, source: &std::io::Error| NodeError::Os { what, errno: source.raw_os_error().unwrap_or(libc::EIO) };
    match e {
        OpenError::Memory { source, .. } => os("memory", source),
        OpenError::File { what, source, .. } => os(what, source),
        OpenError::NotStorage { .. } => NodeError::Unsupported("neither a regular file nor a block device"),
        OpenError::InUse { .. } => NodeError::Os { what: "in use", errno: libc::EBUSY },
        OpenError::Replaced { .. } => NodeError::Os { what: "replaced by another file", errno: libc::ESTALE },
        OpenError::BlockSize { .. } => NodeError::Size("the block size is too small for the device"),
        OpenError::Empty { .. } => NodeError::Size("the medium is smaller than one block"),
        OpenError::Larger { .. } => NodeError::Size("the file is larger than the size asked for"),
        OpenError::Shrunk { .. } => NodeError::Size("the medium became smaller"),
        OpenError::Ring(source) => os("io_uring", source),
        OpenError::Nvme { source, .. } => nvme::refusal(source),
        OpenError::Depth(_) => NodeError::Unsupported("this queue depth"),
    }
}
