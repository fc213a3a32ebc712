//! A data path in memory for tests: devices, stores and volumes that a crash leaves where they were, a log of calls, and
//! a fuse that burns through after a number of persistent steps, as if the process had been killed there.

use super::journal::{Journal, JournalError};
use super::model::{DelayTimes, DeviceSpec, FileEngine, FileSpec, NvmeSpec, Volume};
use super::names::{Nqn, StoreName};
use super::node::{
    ControllerReport, CoreIoStat, DeviceReport, FaultOrder, IoStat, IscsiConnectionReport, IscsiPhase, Node, NodeError,
    NvmeReport, OpStat, PollGroupReport, PoolReport, Protocol, QpairReport, ReactorReport, ScrubReport, StoreSummary,
    StoreUsage,
};
use super::state::State;
use crate::base::rng::Rng;
use crate::base::{CoreId, VolumeId};
use crate::trace::Histogram;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::future::{Future, pending};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use uuid::Uuid;

/// Persistent steps that may still happen. Starts as good as infinite.
#[derive(Clone, Debug)]
pub struct Fuse(Arc<AtomicU64>);

impl Fuse {
    /// A fuse that lets `steps` persistent steps happen.
    pub fn of(steps: u64) -> Fuse {
        Fuse(Arc::new(AtomicU64::new(steps)))
    }
    /// True when one more step may happen.
    fn burn(&self) -> bool {
        self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok()
    }
    /// Lets this many more steps happen.
    pub fn set(&self, steps: u64) {
        self.0.store(steps, Ordering::SeqCst);
    }
    /// Steps left.
    pub fn left(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// A store as it is on a medium.
#[derive(Clone, Debug)]
struct StoreImage {
    uuid: Uuid,
    name: StoreName,
    volumes: BTreeMap<VolumeId, Volume>,
}

/// A medium.
#[derive(Clone, Debug)]
struct Medium {
    bytes: u64,
    store: Option<StoreImage>,
}

/// What outlives a process: files, and what others do on the machine.
#[derive(Debug, Default)]
pub struct World {
    files: BTreeMap<String, Medium>,
    /// Addresses that somebody else listens on.
    pub taken: BTreeSet<SocketAddr>,
}

/// The fake.
#[derive(Debug)]
pub struct FakeNode {
    /// What outlives it.
    pub world: Rc<RefCell<World>>,
    fuse: Fuse,
    open: RefCell<BTreeMap<VolumeId, (DeviceSpec, Medium)>>,
    stores: RefCell<BTreeMap<Uuid, VolumeId>>,
    /// Where it listens, and for what.
    pub listening: RefCell<BTreeMap<SocketAddr, Protocol>>,
    /// Target nodes whose latencies are counted.
    histograms: RefCell<BTreeSet<u32>>,
    /// The exports last published.
    pub published: RefCell<Option<Arc<State>>>,
    /// The next call of this name fails so.
    pub fail: RefCell<Option<(&'static str, NodeError)>>,
    /// Calls that changed something, in their order.
    pub calls: RefCell<Vec<String>>,
    /// Set by [`Node::stop`].
    pub stopped: tokio::sync::watch::Sender<bool>,
    ops: Cell<u64>,
}

impl FakeNode {
    /// A node on a machine.
    pub fn new(world: Rc<RefCell<World>>, fuse: Fuse) -> FakeNode {
        FakeNode {
            world,
            fuse,
            open: RefCell::default(),
            stores: RefCell::default(),
            listening: RefCell::default(),
            histograms: RefCell::default(),
            published: RefCell::default(),
            fail: RefCell::default(),
            calls: RefCell::default(),
            stopped: tokio::sync::watch::Sender::new(false),
            ops: Cell::new(0),
        }
    }

    /// A machine with files of the given sizes.
    pub fn world(files: &[(&str, u64)]) -> Rc<RefCell<World>> {
        let files = files.iter().map(|(p, bytes)| ((*p).to_owned(), Medium { bytes: *bytes, store: None }));
        Rc::new(RefCell::new(World { files: files.collect(), taken: BTreeSet::new() }))
    }

    /// Notes a call; fails it if that was asked for, and never returns once the fuse has burnt through.
    async fn step(&self, name: &'static str, persists: bool) -> Result<(), NodeError> {
        if self.fuse.left() == 0 || (persists && !self.fuse.burn()) {
            pending::<()>().await;
        }
        self.calls.borrow_mut().push(name.to_owned());
        let fails = self.fail.borrow().is_some_and(|(n, _)| n == name);
        if fails && let Some((_, error)) = self.fail.take() {
            return Err(error);
        }
        Ok(())
    }

    /// Changes a device's medium, in the world too when it is a file.
    fn medium<T>(&self, device: VolumeId, edit: impl FnOnce(&mut Medium) -> T) -> Result<T, NodeError> {
        let mut open = self.open.borrow_mut();
        let (spec, medium) = open.get_mut(&device).ok_or(NodeError::Gone)?;
        let (result, file) = (edit(medium), medium.clone());
        let DeviceSpec::File(FileSpec { path, .. }) = spec else { return Ok(result) };
        self.world.borrow_mut().files.insert(path.clone(), file);
        Ok(result)
    }

    fn store<T>(&self, uuid: Uuid, edit: impl FnOnce(&mut StoreImage) -> T) -> Result<T, NodeError> {
        let device = *self.stores.borrow().get(&uuid).ok_or(NodeError::Gone)?;
        self.medium(device, |m| m.store.as_mut().map(edit))?.ok_or(NodeError::NotAStore)
    }

    fn report(&self, id: VolumeId) -> Result<DeviceReport, NodeError> {
        let open = self.open.borrow();
        let (spec, medium) = open.get(&id).ok_or(NodeError::Gone)?;
        let block_size = match spec {
            DeviceSpec::Malloc { block_size, .. } | DeviceSpec::Null { block_size, .. } => *block_size,
            DeviceSpec::File(file) => file.block_size.unwrap_or(4096),
            DeviceSpec::Nvme(_) => 4096,
            DeviceSpec::Delay { base, .. } | DeviceSpec::Fault { base } => return self.report(*base),
        };
        let read_only = matches!(spec, DeviceSpec::File(FileSpec { read_only: true, .. }));
        let blocks = medium.bytes / u64::from(block_size);
        Ok(DeviceReport { block_size, blocks, volatile_cache: false, write_zeroes: true, discard: true, read_only })
    }

    fn count(&self) -> u64 {
        self.ops.replace(self.ops.get() + 1)
    }
}

impl Node for FakeNode {
    async fn open_device(&self, id: VolumeId, _: Uuid, spec: &DeviceSpec) -> Result<DeviceReport, NodeError> {
        self.step("open_device", false).await?;
        assert!(!self.open.borrow().contains_key(&id), "{id:?} is open");
        let medium = match spec {
            DeviceSpec::Malloc { block_size, blocks } | DeviceSpec::Null { block_size, blocks } => {
                Medium { bytes: u64::from(*block_size) * blocks, store: None }
            }
            DeviceSpec::File(FileSpec { path, engine: FileEngine::Aio | FileEngine::Uring, .. }) => {
                let missing = NodeError::Os { what: "open", errno: libc::ENOENT };
                self.world.borrow().files.get(path).cloned().ok_or(missing)?
            }
            DeviceSpec::Nvme(nvme) => {
                let missing = NodeError::Os { what: "open", errno: libc::ENODEV };
                self.world.borrow().files.get(&nvme.address).cloned().ok_or(missing)?
            }
            DeviceSpec::Delay { base, .. } | DeviceSpec::Fault { base } => {
                self.open.borrow().get(base).expect("the base is open").1.clone()
            }
        };
        self.open.borrow_mut().insert(id, (spec.clone(), medium));
        self.report(id)
    }
    async fn nvme_namespaces(&self, spec: &NvmeSpec) -> Result<Vec<u32>, NodeError> {
        self.step("nvme_namespaces", false).await?;
        // The namespaces are files that are called like the address.
        let there = self.world.borrow().files.contains_key(&spec.address);
        if there { Ok(vec![1, 2]) } else { Err(NodeError::Os { what: "open", errno: libc::ENODEV }) }
    }
    async fn nvme_report(&self, id: VolumeId) -> Result<NvmeReport, NodeError> {
        self.step("nvme_report", false).await?;
        assert!(self.open.borrow().contains_key(&id), "{id:?} is not open");
        Ok(NvmeReport {
            model: "Fake".into(),
            serial: "F1".into(),
            firmware: "1".into(),
            enabled: true,
            critical_warning: 0,
            temperature: 300,
            spare: (100, 10),
            used: 1,
            units: (2, 3),
            commands: (20, 30),
            busy_minutes: 0,
            power: (1, 4),
            unsafe_shutdowns: 0,
            media_errors: 0,
            error_entries: 0,
        })
    }
    async fn close_device(&self, id: VolumeId) -> Result<(), NodeError> {
        self.step("close_device", false).await?;
        assert!(!self.stores.borrow().values().any(|d| *d == id), "a store is open on {id:?}");
        self.open.borrow_mut().remove(&id).map(drop).ok_or(NodeError::Gone)
    }
    async fn resize_device(&self, id: VolumeId, blocks: Option<u64>) -> Result<DeviceReport, NodeError> {
        self.step("resize_device", false).await?;
        let block_size = u64::from(self.report(id)?.block_size);
        if let Some((spec, medium)) = self.open.borrow_mut().get_mut(&id) {
            match (spec, blocks) {
                (_, Some(blocks)) => medium.bytes = blocks * block_size,
                (DeviceSpec::File(file), None) => medium.bytes = self.world.borrow().files[&file.path].bytes,
                _ => return Err(NodeError::Unsupported("resize")),
            }
        }
        self.report(id)
    }
    async fn set_delay(&self, _: VolumeId, _: DelayTimes) -> Result<(), NodeError> {
        self.step("set_delay", false).await
    }
    async fn set_fault(&self, _: VolumeId, order: FaultOrder) -> Result<(), NodeError> {
        self.step("set_fault", false).await?;
        self.calls.borrow_mut().push(format!("{order:?}"));
        Ok(())
    }
    async fn release_pending(&self, _: VolumeId) -> Result<(), NodeError> {
        self.step("release_pending", false).await
    }

    async fn probe_store(&self, device: VolumeId) -> Result<Option<StoreSummary>, NodeError> {
        self.step("probe_store", false).await?;
        self.medium(device, |m| {
            m.store.as_ref().map(|s| StoreSummary { uuid: s.uuid, name: s.name.clone(), slices: 1 })
        })
    }
    async fn format_store(&self, device: VolumeId, uuid: Uuid, name: &StoreName) -> Result<(), NodeError> {
        self.step("format_store", true).await?;
        let image = StoreImage { uuid, name: name.clone(), volumes: BTreeMap::new() };
        self.medium(device, |m| m.store = Some(image))?;
        self.stores.borrow_mut().insert(uuid, device);
        Ok(())
    }
    async fn open_store(&self, device: VolumeId, uuid: Uuid) -> Result<Vec<Volume>, NodeError> {
        self.step("open_store", false).await?;
        let image = self.medium(device, |m| m.store.clone())?;
        let image = image.filter(|s| s.uuid == uuid).ok_or(NodeError::NotAStore)?;
        self.stores.borrow_mut().insert(uuid, device);
        Ok(image.volumes.into_values().collect())
    }
    async fn close_store(&self, uuid: Uuid) -> Result<(), NodeError> {
        self.step("close_store", false).await?;
        self.stores.borrow_mut().remove(&uuid).map(drop).ok_or(NodeError::Gone)
    }
    async fn wipe_store(&self, device: VolumeId, uuid: Uuid) -> Result<(), NodeError> {
        self.step("wipe_store", true).await?;
        assert!(!self.stores.borrow().contains_key(&uuid), "an open store is not wiped");
        self.medium(device, |m| drop(m.store.take_if(|s| s.uuid == uuid)))
    }
    async fn create_volume(&self, store: Uuid, volume: &Volume) -> Result<(), NodeError> {
        self.step("create_volume", true).await?;
        let old = self.store(store, |s| s.volumes.insert(volume.id, volume.clone()))?;
        assert_eq!(old, None, "an id is used once");
        Ok(())
    }
    async fn update_volume(&self, store: Uuid, volume: &Volume) -> Result<(), NodeError> {
        self.step("update_volume", true).await?;
        let old = self.store(store, |s| s.volumes.insert(volume.id, volume.clone()))?;
        old.map(drop).ok_or(NodeError::Gone)
    }
    async fn delete_volume(&self, store: Uuid, id: VolumeId) -> Result<(), NodeError> {
        self.step("delete_volume", true).await?;
        self.store(store, |s| drop(s.volumes.remove(&id)))
    }
    async fn store_usage(&self, uuid: Uuid) -> Result<StoreUsage, NodeError> {
        let device = self.stores.borrow()[&uuid];
        let total_blocks = self.medium(device, |m| m.bytes / 4096)?;
        let mapped = self.store(uuid, |s| s.volumes.keys().map(|id| (*id, 3)).collect::<Vec<_>>())?;
        let free_blocks = total_blocks - 3 * mapped.len() as u64;
        Ok(StoreUsage { total_blocks, free_blocks, mapped, counters: vec![("checksum_errors", 0)] })
    }
    async fn scrub_start(&self, _: Uuid) -> Result<(), NodeError> {
        self.step("scrub_start", false).await
    }
    async fn scrub_status(&self, _: Uuid) -> Result<ScrubReport, NodeError> {
        Ok(ScrubReport { running: true, done_bytes: 1, total_bytes: 2, errors: 0 })
    }

    async fn publish(&self, state: Arc<State>) {
        let _ = self.step("publish", false).await;
        *self.published.borrow_mut() = Some(state);
    }
    async fn reserve(&self, state: Arc<State>) {
        let _ = self.step("reserve", false).await;
        *self.published.borrow_mut() = Some(state);
    }
    async fn listen(&self, addr: SocketAddr, protocol: Protocol) -> Result<(), NodeError> {
        self.step("listen", false).await?;
        if self.world.borrow().taken.contains(&addr) || self.listening.borrow_mut().insert(addr, protocol).is_some() {
            return Err(NodeError::Os { what: "bind", errno: libc::EADDRINUSE });
        }
        Ok(())
    }
    async fn unlisten(&self, addr: SocketAddr) {
        let _ = self.step("unlisten", false).await;
        assert!(self.listening.borrow_mut().remove(&addr).is_some(), "nobody listens on {addr}");
    }

    async fn iostat(&self) -> Vec<CoreIoStat> {
        let read = OpStat { ops: 2, bytes: 8192, latency_ns: 30, latency_max_ns: 20, latency_min_ns: 10 };
        let stat = IoStat { read, ..IoStat::default() };
        let cores = [CoreId(0), CoreId(1)];
        self.open.borrow().keys().flat_map(|v| cores.map(|core| CoreIoStat { core, volume: *v, stat })).collect()
    }
    async fn reset_iostat(&self, volume: Option<VolumeId>) {
        self.calls.borrow_mut().push(format!("reset_iostat {volume:?}"));
    }
    async fn reactors(&self) -> Vec<ReactorReport> {
        let one = |n: u16| ReactorReport {
            core: CoreId(n),
            cpu: u32::from(n) * 5,
            tid: 100 + i32::from(n),
            busy_ns: 1000,
            idle_ns: 9000,
            elapsed_ns: 10_000,
            adaptive: true,
            ticks: 7,
            busy_ticks: 3,
            stalls: 0,
        };
        vec![one(0), one(1)]
    }
    async fn pools(&self) -> Vec<PoolReport> {
        let one = |core, bytes| PoolReport {
            core: CoreId(core),
            name: "io",
            buffer_bytes: bytes,
            buffers: 64,
            free: 60,
            waits: self.count().min(1),
        };
        vec![one(0, 4096), one(0, 1 << 20), one(1, 4096), one(1, 1 << 20)]
    }
    async fn poll_groups(&self) -> Vec<PollGroupReport> {
        vec![PollGroupReport { admin_qpairs: 1, completed_io: 9, ..PollGroupReport::default() }; 2]
    }
    async fn controllers(&self, nqn: &Nqn) -> Vec<ControllerReport> {
        let host = nqn.to_string();
        vec![ControllerReport { cntlid: 1, host, host_id: [7; 16], discovery: false, io_qpairs: 2 }]
    }
    async fn qpairs(&self, nqn: &Nqn) -> Vec<QpairReport> {
        let (local, peer) = ("127.0.0.1:4420".parse().unwrap(), "[::1]:50000".parse().unwrap());
        vec![QpairReport { cntlid: 1, qid: 1, core: CoreId(1), host: nqn.to_string(), local, peer }]
    }
    async fn iscsi_connections(&self) -> Vec<IscsiConnectionReport> {
        let state = self.published.borrow().clone();
        let target = state.and_then(|s| s.iscsi().targets().next().map(|t| t.name.to_string())).unwrap_or_default();
        let (local, peer) = ("127.0.0.1:3260".parse().unwrap(), "[::1]:50000".parse().unwrap());
        let one = |id, phase| IscsiConnectionReport {
            id,
            cid: 0,
            tsih: 1 + id as u16,
            phase,
            core: CoreId(1),
            initiator: "iqn.1993-08.org.debian:01:host".into(),
            target: target.clone(),
            peer,
            local,
        };
        vec![one(0, IscsiPhase::Full), one(1, IscsiPhase::Security), one(2, IscsiPhase::Ending)]
    }
    async fn request_logout(&self, target: u32, portal_group: Option<u16>) {
        self.calls.borrow_mut().push(format!("request_logout {target} {portal_group:?}"));
    }
    async fn set_histogram(&self, target: u32, on: bool) {
        let mut all = self.histograms.borrow_mut();
        if on {
            all.insert(target)
        } else {
            all.remove(&target)
        };
    }
    async fn histogram(&self, target: u32) -> Option<Histogram> {
        self.histograms.borrow().contains(&target).then(|| {
            let mut histogram = Histogram::new();
            histogram.record(1000);
            histogram
        })
    }
    fn now_ns(&self) -> u64 {
        12345
    }
    fn stop(&self) {
        self.stopped.send_replace(true);
    }
}

/// A file in memory that knows which writes were synced. What a crash leaves of the others is drawn by lot.
#[derive(Clone, Debug)]
pub struct MemFile {
    inner: Arc<Mutex<MemFileInner>>,
    fuse: Fuse,
    /// Every change and sync fails, while the process lives on.
    broken: Arc<AtomicBool>,
}

#[derive(Debug, Default)]
struct MemFileInner {
    durable: Vec<u8>,
    now: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Clone, Debug)]
enum Change {
    Len(u64),
    Write(u64, Vec<u8>),
}

impl Change {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Change::Len(len) => to.resize(*len as usize, 0),
            Change::Write(at, bytes) => {
                let (at, end) = (*at as usize, *at as usize + bytes.len());
                if to.len() < end {
                    to.resize(end, 0);
                }
                to[at..end].copy_from_slice(bytes);
            }
        }
    }
}

impl MemFile {
    /// An empty file.
    pub fn new(fuse: Fuse) -> MemFile {
        MemFile { inner: Arc::default(), fuse, broken: Arc::default() }
    }

    /// Makes every change and sync fail from now on, or work again.
    pub fn set_broken(&self, broken: bool) {
        self.broken.store(broken, Ordering::SeqCst);
    }

    fn step(&self) -> io::Result<()> {
        if self.broken.load(Ordering::SeqCst) || !self.fuse.burn() {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        Ok(())
    }

    /// The file as a crash now leaves it: every unsynced change kept, dropped, or torn at a sector, by lot.
    pub fn crash(&self, rng: &mut Rng, fuse: Fuse) -> MemFile {
        let inner = self.inner.lock().unwrap();
        let mut durable = inner.durable.clone();
        for change in &inner.pending {
            match (change, rng.below(3)) {
                (_, 0) => {}
                (Change::Write(at, bytes), 1) => {
                    let cut = (rng.below(bytes.len() as u64 + 1) as usize) & !511;
                    Change::Write(*at, bytes[..cut].to_vec()).apply(&mut durable);
                }
                (change, _) => change.apply(&mut durable),
            }
        }
        let now = durable.clone();
        let inner = MemFileInner { durable, now, pending: Vec::new() };
        MemFile { inner: Arc::new(Mutex::new(inner)), fuse, broken: Arc::default() }
    }

    /// Changes one bit.
    pub fn flip(&self, bit: usize) {
        let mut inner = self.inner.lock().unwrap();
        inner.durable[bit / 8] ^= 1 << (bit % 8);
        inner.now = inner.durable.clone();
    }

    /// True when something is written within 64 bytes before or after the place.
    pub fn holds_data(&self, byte: usize) -> bool {
        let inner = self.inner.lock().unwrap();
        let end = (byte + 64).min(inner.durable.len());
        inner.durable[byte.saturating_sub(64)..end].iter().any(|b| *b != 0)
    }

    /// Its length.
    pub fn bytes(&self) -> usize {
        self.inner.lock().unwrap().now.len()
    }

    /// Another file with the same content.
    pub fn copy(&self) -> MemFile {
        self.crash(&mut Rng::new(1), Fuse::of(u64::MAX))
    }

    fn change(&self, change: Change) -> io::Result<()> {
        self.step()?;
        let mut inner = self.inner.lock().unwrap();
        change.apply(&mut inner.now);
        inner.pending.push(change);
        Ok(())
    }
}

impl redb::StorageBackend for MemFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.inner.lock().unwrap().now.len() as u64)
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let inner = self.inner.lock().unwrap();
        let from = inner.now.get(offset as usize..offset as usize + out.len());
        out.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(Change::Len(len))
    }
    fn sync_data(&self) -> io::Result<()> {
        self.step()?;
        let mut inner = self.inner.lock().unwrap();
        inner.durable = inner.now.clone();
        inner.pending.clear();
        Ok(())
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(Change::Write(offset, data.to_vec()))
    }
}

/// A journal on the file.
pub fn journal(file: &MemFile) -> Result<(Journal, State), JournalError> {
    Journal::on(file.clone(), VolumeId(1))
}

/// Runs a future that waits for nothing but the fuse: `None` when it burnt through.
pub fn run<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}
