//! The data path as the control plane sees it: [`Node`] over the cores of this process. One call at a time changes
//! things; the borrow of [`Inner`] never outlives an await.

use super::cores::{Carrier, Cores};
use super::devices::{self, Devices, OpenDevice};
use super::exports;
use super::nvme;
use super::stores::{self, OpenStore, StartConfig, Stores};
use super::turn::{Core, Exports};
use crate::base::limits::{ATOMIC_BYTES, RAM_ATOMIC_BYTES};
use crate::base::{CoreId, VolumeId};
use crate::cluster::{
    ControllerReport, CoreIoStat, DelayTimes, DeviceReport, DeviceSpec, FaultOrder, IoStat, IscsiConnectionReport,
    IscsiPhase, Node, NodeError, Nqn, NvmeReport, NvmeSpec, OpStat, PollGroupReport, PoolReport, Protocol, QpairReport,
    ReactorReport, ScrubReport, State, StoreName, StoreSummary, StoreUsage, Volume,
};
use crate::mem::PoolStats;
use crate::net::NetError;
use crate::reactor::{CoreStats, Poll, Reactors};
use crate::repl::Home;
use crate::store::Name;
use crate::trace::Histogram;
use crate::volume::reserve::{Refused, Told};
use crate::volume::{Counter, Entry, Info, Table};
use crate::{iscsi, nvmf};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::Notify;
use uuid::Uuid;

/// How long a change of exports waits for the commands that it forbids.
const SETTLE: std::time::Duration = std::time::Duration::from_secs(10);

/// How long hosts' connections may take to end when the node stops.
const LINGER: std::time::Duration = std::time::Duration::from_secs(2);

/// What the control thread knows of the data path.
#[derive(Default)]
struct Inner {
    devices: Devices,
    stores: Stores,
    exported: Option<Arc<State>>,
}

/// This process's data path.
pub struct LocalNode<C: Carrier> {
    cores: Cores<C>,
    reactors: Rc<RefCell<Reactors>>,
    poll: Poll,
    inner: RefCell<Inner>,
    /// Held while a table of volumes is on its way to the cores.
    tables: tokio::sync::Mutex<()>,
    started: std::time::Instant,
    stopping: Rc<Notify>,
    /// Limits of every slice.
    limits: crate::store::Limits,
    /// Addresses that the kernel does not have: the stack's.
    ours: Vec<IpAddr>,
}

impl<C: Carrier> LocalNode<C> {
    /// The node over these cores; nothing is open yet. `stopping` is told when somebody asks the node to stop.
    pub fn new(
        cores: Cores<C>,
        reactors: Rc<RefCell<Reactors>>,
        poll: Poll,
        started: std::time::Instant,
        stopping: Rc<Notify>,
        limits: crate::store::Limits,
        ours: Vec<IpAddr>,
    ) -> LocalNode<C> {
        LocalNode {
            cores,
            reactors,
            poll,
            inner: RefCell::default(),
            tables: tokio::sync::Mutex::new(()),
            started,
            stopping,
            limits,
            ours,
        }
    }

    /// Ends everything in order: hosts' connections, then the stores with a checkpoint each, then the devices.
    pub async fn close_all(&self) {
        for (_, device) in
            self.inner.borrow().devices.iter().filter(|(_, d)| matches!(d.spec, DeviceSpec::Fault { .. }))
        {
            // Only a device that is no error injector refuses.
            let _ = device.release();
        }
        if let Err(e) = self.end_connections().await {
            tracing::warn!("ending connections: {e}");
        }
        let stores: Vec<Uuid> = self.inner.borrow().stores.iter().map(|(uuid, _)| *uuid).collect();
        for uuid in stores {
            if let Err(e) = self.close_store(uuid).await {
                tracing::warn!("closing store {uuid}: {e}");
            }
        }
        // A wrapper was opened after its base, and lets go first.
        let devices: Vec<VolumeId> = self.inner.borrow().devices.iter().map(|(id, _)| *id).collect();
        for id in devices.into_iter().rev() {
            if let Err(e) = self.close_device(id).await {
                tracing::warn!("closing device {}: {e}", id.0);
            }
        }
    }

    /// Exports nothing any more, and waits (a little) for what hosts had open to end.
    async fn end_connections(&self) -> Result<(), NodeError> {
        self.inner.borrow_mut().exported = None;
        self.cores.each(move |core, _| core.export(&Exports::default())).await?;
        let ended = self.cores.until(|core| core.connections() == 0);
        tokio::time::timeout(LINGER, ended).await.unwrap_or(Ok(()))
    }

    /// What went wrong between hosts and the target, summed over the cores: (what, how often since start).
    pub async fn troubles(&self) -> Vec<(&'static str, u64)> {
        let of = |core: &mut Core, _| {
            let s = core.nvmf().stats();
            let target = [
                ("connections refused by a limit", s.refused),
                ("Connect commands refused", s.connects_refused),
                ("connections without a Connect in time", s.connect_timeouts),
                ("controllers ended by their keep alive timer", s.keep_alive_expired),
                ("connections ended by a fault in a PDU", s.faults.iter().sum()),
                ("commands failed by their data digest", s.data_digest_errors),
            ];
            target.into_iter().chain(core.net().card_troubles()).collect::<Vec<_>>()
        };
        let parts = self.cores.each(of).await.unwrap_or_default();
        let mut sum: Vec<(&'static str, u64)> = Vec::new();
        for (what, n) in parts.into_iter().flatten() {
            match sum.iter_mut().find(|(w, _)| *w == what) {
                Some((_, total)) => *total += n,
                None => sum.push((what, n)),
            }
        }
        sum
    }

    /// Tells all cores whom a change of reservations affects, then the one that ordered it what became of it.
    pub async fn reserved(&self, core: CoreId, order: iscsi::Order, result: Result<Vec<Told>, Refused>) {
        let answer = result.as_ref().map(drop).map_err(|e| *e);
        let answered = async {
            if let Ok(told) = result
                && !told.is_empty()
            {
                let told: Arc<[Told]> = told.into();
                self.cores.each(move |core, _| core.told(order.volume, &told)).await?;
            }
            self.cores.on(core, move |core, now| core.reserved(now, order.token, answer)).await
        };
        // Only a core that is ending does not take it, and its hosts' connections end with it.
        if let Err(e) = answered.await {
            tracing::debug!("an answer to a reservation: {e}");
        }
    }

    /// Shows every core the volumes that exist now.
    async fn republish(&self) -> Result<(), NodeError> {
        self.retable().await?;
        // A changed size must also reach the namespaces.
        let exported = self.inner.borrow().exported.clone();
        if let Some(state) = exported {
            self.export(&state).await?;
        }
        Ok(())
    }

    /// Gives every core the table of volumes as it is now. Tables overtake each other on no core: hosts change
    /// reservations while administrators change volumes.
    async fn retable(&self) -> Result<(), NodeError> {
        let _turn = self.tables.lock().await;
        let table = Arc::new(table(&self.inner.borrow()));
        self.cores.each(move |core, _| core.front().configure(table.clone())).await.map(drop)
    }

    async fn export(&self, state: &Arc<State>) -> Result<(), NodeError> {
        let exports = {
            let table = table(&self.inner.borrow());
            Exports { nvmf: Arc::new(exports::nvmf(state, &table)), iscsi: Arc::new(exports::iscsi(state, &table)) }
        };
        self.cores.each(move |core, _| core.export(&exports)).await?;
        Ok(())
    }

    /// Waits until no core has a request of this volume under way.
    async fn quiet(&self, volume: VolumeId) -> Result<(), NodeError> {
        self.cores.until(move |core| core.is_quiet(volume)).await
    }

    fn tag(&self) -> u64 {
        self.inner.borrow_mut().stores.tag()
    }

    /// Number and slice count of an open store.
    fn store(&self, uuid: Uuid) -> Result<(crate::repl::StoreId, u16), NodeError> {
        let inner = self.inner.borrow();
        let store = inner.stores.get(uuid)?;
        Ok((store.number, store.slices))
    }

    async fn start_store(&self, device: VolumeId, config: StartConfig) -> Result<crate::repl::StoreId, NodeError> {
        let number = self.inner.borrow().stores.free_number();
        let below = {
            let inner = self.inner.borrow();
            let d = inner.devices.get(device)?;
            OpenDevice {
                number: d.number,
                medium: d.medium.clone(),
                uuid: d.uuid,
                spec: d.spec.clone(),
                report: d.report.clone(),
            }
        };
        // Slice 0 last: a store exists once its slice 0 does.
        for which in [1..config.slices, 0..1] {
            if let Err(e) = stores::start(&self.cores, number, &below, &config, which).await {
                stores::stop(&self.cores, number).await?;
                return Err(e);
            }
        }
        Ok(number)
    }
}

/// The table of all volumes.
fn table(inner: &Inner) -> Table {
    let reserved = |id| inner.exported.as_ref().map(|state| state.reservations(id)).unwrap_or_default();
    let devices = inner.devices.iter().map(|(id, d)| Entry {
        info: device_info(*id, d),
        home: Home::Raw(d.number),
        reservations: reserved(*id),
    });
    let reserved = &reserved;
    let volumes = inner.stores.iter().flat_map(|(_, s)| {
        let home = Home::Log { store: s.number, slices: s.slices };
        s.volumes.values().map(move |v| Entry { info: volume_info(v), home, reservations: reserved(v.id) })
    });
    Table::new(devices.chain(volumes))
}

fn device_info(id: VolumeId, device: &OpenDevice) -> Info {
    let r = &device.report;
    let atomic = RAM_ATOMIC_BYTES as u32 / r.block_size;
    Info {
        id,
        block_size: r.block_size,
        blocks: r.blocks,
        uuid: device.uuid.into_bytes(),
        thin: r.discard,
        read_only: r.read_only,
        volatile_cache: r.volatile_cache,
        // What a disk says of itself holds for power cuts, not for what a page cache shows meanwhile: only memory counts.
        atomic_blocks: if device.medium.file().is_none() { atomic } else { 1 },
    }
}

fn volume_info(volume: &Volume) -> Info {
    Info {
        id: volume.id,
        block_size: volume.block_size,
        blocks: volume.bytes / u64::from(volume.block_size),
        uuid: volume.uuid.into_bytes(),
        thin: true,
        read_only: volume.read_only,
        volatile_cache: false,
        atomic_blocks: ATOMIC_BYTES as u32 / volume.block_size,
    }
}

fn op_stat(c: &Counter) -> OpStat {
    OpStat { ops: c.ops, bytes: c.bytes, latency_ns: c.ns, latency_max_ns: c.max_ns, latency_min_ns: c.min_ns }
}

impl<C: Carrier> Node for LocalNode<C> {
    async fn open_device(&self, id: VolumeId, uuid: Uuid, spec: &DeviceSpec) -> Result<DeviceReport, NodeError> {
        let device = self.inner.borrow().devices.open(uuid, spec)?;
        devices::attach(&self.cores, device.number, &device.medium).await?;
        let report = device.report.clone();
        self.inner.borrow_mut().devices.insert(id, device);
        self.republish().await?;
        Ok(report)
    }

    async fn nvme_namespaces(&self, spec: &NvmeSpec) -> Result<Vec<u32>, NodeError> {
        nvme::namespaces(spec)
    }

    async fn nvme_report(&self, id: VolumeId) -> Result<NvmeReport, NodeError> {
        let medium = self.inner.borrow().devices.get(id)?.medium.clone();
        nvme::report(medium.nvme().ok_or(NodeError::Unsupported("not an NVMe controller"))?)
    }

    async fn close_device(&self, id: VolumeId) -> Result<(), NodeError> {
        let Some(device) = self.inner.borrow_mut().devices.remove(id) else { return Ok(()) };
        self.republish().await?;
        // What an error injector holds back would be waited for without end.
        if matches!(device.spec, DeviceSpec::Fault { .. }) {
            device.release()?;
        }
        self.quiet(id).await?;
        devices::detach(&self.cores, device.number).await
    }

    async fn resize_device(&self, id: VolumeId, blocks: Option<u64>) -> Result<DeviceReport, NodeError> {
        if let Some(blocks) = blocks {
            // A null device has no medium to look at: it is made anew in the new size.
            let (number, device) = {
                let inner = self.inner.borrow();
                let old = inner.devices.get(id)?;
                let DeviceSpec::Null { block_size, .. } = old.spec else {
                    return Err(NodeError::Unsupported("only null devices can be given a size"));
                };
                let spec = DeviceSpec::Null { block_size, blocks };
                (old.number, inner.devices.open(old.uuid, &spec)?)
            };
            devices::replace(&self.cores, number, &device.medium).await?;
            self.inner.borrow_mut().devices.insert(id, OpenDevice { number, ..device });
        } else {
            let mut inner = self.inner.borrow_mut();
            let device = inner.devices.get_mut(id)?;
            device.medium.rescan().map_err(|e| devices::open_error(&e))?;
            device.report = devices::report(&device.medium.caps());
        }
        self.republish().await?;
        self.inner.borrow().devices.get(id).map(|d| d.report.clone())
    }

    async fn set_delay(&self, id: VolumeId, times: DelayTimes) -> Result<(), NodeError> {
        let inner = self.inner.borrow();
        let device = inner.devices.get(id)?;
        let handle = device.medium.delays().ok_or(NodeError::Unsupported("not a delay device"))?;
        handle.set(&devices::latency(times));
        Ok(())
    }

    async fn set_fault(&self, id: VolumeId, order: FaultOrder) -> Result<(), NodeError> {
        let mut inner = self.inner.borrow_mut();
        inner.devices.get_mut(id)?.inject(order)
    }

    async fn release_pending(&self, id: VolumeId) -> Result<(), NodeError> {
        self.inner.borrow().devices.get(id)?.release()
    }

    async fn probe_store(&self, device: VolumeId) -> Result<Option<StoreSummary>, NodeError> {
        let medium = self.inner.borrow().devices.get(device)?.medium.clone();
        stores::probe(&medium)
    }

    async fn format_store(&self, device: VolumeId, uuid: Uuid, name: &StoreName) -> Result<(), NodeError> {
        let medium = self.inner.borrow().devices.get(device)?.medium.clone();
        let slices = stores::slices_for(self.cores.count(), medium.caps().size);
        stores::wipe(&medium, slices)?;
        let name = Name::new(name.as_str()).ok_or(NodeError::Size("the name is too long"))?;
        let number = self
            .start_store(device, StartConfig { uuid, name, slices, format: true, limits: self.limits.clone() })
            .await?;
        let segment_bytes = stores::segment_bytes(&medium)?;
        let store = OpenStore { number, slices, segment_bytes, volumes: BTreeMap::new() };
        self.inner.borrow_mut().stores.insert(uuid, store);
        Ok(())
    }

    async fn open_store(&self, device: VolumeId, uuid: Uuid) -> Result<Vec<Volume>, NodeError> {
        let medium = self.inner.borrow().devices.get(device)?.medium.clone();
        let found = stores::probe(&medium)?.filter(|s| s.uuid == uuid).ok_or(NodeError::NotAStore)?;
        let name = Name::new(found.name.as_str()).expect("came from a superblock");
        let config = StartConfig { uuid, name, slices: found.slices, format: false, limits: self.limits.clone() };
        let number = self.start_store(device, config).await?;
        let tag = self.tag();
        let volumes = stores::settle(&self.cores, number, found.slices, tag).await?;
        let by_id = volumes.iter().map(|v| (v.id, v.clone())).collect();
        let segment_bytes = stores::segment_bytes(&medium)?;
        let store = OpenStore { number, slices: found.slices, segment_bytes, volumes: by_id };
        self.inner.borrow_mut().stores.insert(uuid, store);
        self.republish().await?;
        Ok(volumes)
    }

    async fn close_store(&self, uuid: Uuid) -> Result<(), NodeError> {
        let Some(store) = self.inner.borrow_mut().stores.remove(uuid) else { return Ok(()) };
        self.republish().await?;
        for id in store.volumes.keys() {
            self.quiet(*id).await?;
        }
        let tag = self.tag();
        let checkpointed =
            stores::change(&self.cores, store.number, 0..store.slices, tag, "checkpoint", |s, _, _, tag| {
                s.checkpoint(tag)
            });
        // A dead device cannot be checkpointed, and must still be let go.
        if let Err(e) = checkpointed.await {
            tracing::warn!("closing store {uuid}: {e}");
        }
        stores::stop(&self.cores, store.number).await
    }

    async fn wipe_store(&self, device: VolumeId, uuid: Uuid) -> Result<(), NodeError> {
        let medium = self.inner.borrow().devices.get(device)?.medium.clone();
        match stores::probe(&medium) {
            Ok(Some(found)) if found.uuid == uuid => stores::wipe(&medium, found.slices),
            // What can not be read is not known to be that store, and is kept.
            Ok(_) | Err(NodeError::Newer { .. } | NodeError::Damaged(_)) => Ok(()),
            Err(e) => Err(e),
        }
    }

    async fn create_volume(&self, store: Uuid, volume: &Volume) -> Result<(), NodeError> {
        let (number, slices) = self.store(store)?;
        let created = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let meta = stores::meta(volume, created);
        for which in [1..slices, 0..1] {
            let tag = self.tag();
            stores::change(&self.cores, number, which, tag, "create", move |s, q, pool, tag| {
                s.set_volume(meta, tag, q, pool)
            })
            .await?;
        }
        self.inner.borrow_mut().stores.get_mut(store)?.volumes.insert(volume.id, volume.clone());
        self.republish().await
    }

    async fn update_volume(&self, store: Uuid, volume: &Volume) -> Result<(), NodeError> {
        let (number, slices) = self.store(store)?;
        let old = self.inner.borrow().stores.get(store)?.volumes.get(&volume.id).cloned().ok_or(NodeError::Gone)?;
        // Hosts must not reach blocks that are about to go; they may reach new ones only once every slice knows them.
        if volume.bytes < old.bytes {
            self.inner.borrow_mut().stores.get_mut(store)?.volumes.insert(volume.id, volume.clone());
            self.republish().await?;
            self.quiet(volume.id).await?;
        }
        let meta = stores::meta(volume, 0);
        for which in [1..slices, 0..1] {
            let tag = self.tag();
            stores::change(&self.cores, number, which, tag, "update", move |s, q, pool, tag| {
                let created = s.volumes().find(|m| m.id == meta.id).map_or(0, |m| m.created);
                s.set_volume(crate::store::VolumeMeta { created, ..meta }, tag, q, pool)
            })
            .await?;
        }
        self.inner.borrow_mut().stores.get_mut(store)?.volumes.insert(volume.id, volume.clone());
        self.republish().await
    }

    async fn delete_volume(&self, store: Uuid, id: VolumeId) -> Result<(), NodeError> {
        let (number, slices) = self.store(store)?;
        let had = self.inner.borrow_mut().stores.get_mut(store)?.volumes.remove(&id);
        if had.is_none() {
            return Ok(());
        }
        self.republish().await?;
        self.quiet(id).await?;
        let tag = self.tag();
        stores::change(&self.cores, number, 0..slices, tag, "delete", move |s, q, pool, tag| {
            s.delete_volume(id, tag, q, pool)
        })
        .await
    }

    async fn store_usage(&self, uuid: Uuid) -> Result<StoreUsage, NodeError> {
        let (number, _) = self.store(uuid)?;
        let volumes = self.inner.borrow().stores.get(uuid)?.volumes.keys().copied().collect();
        stores::usage(&self.cores, number, volumes).await
    }

    async fn scrub_start(&self, uuid: Uuid) -> Result<(), NodeError> {
        let (number, _) = self.store(uuid)?;
        stores::start_scrub(&self.cores, number).await
    }

    async fn scrub_status(&self, uuid: Uuid) -> Result<ScrubReport, NodeError> {
        let (number, _) = self.store(uuid)?;
        let segment_bytes = self.inner.borrow().stores.get(uuid)?.segment_bytes;
        stores::scrub(&self.cores, number, segment_bytes).await
    }

    async fn publish(&self, state: Arc<State>) {
        self.inner.borrow_mut().exported = Some(state.clone());
        let published = async {
            self.retable().await?;
            self.export(&state).await
        };
        if let Err(e) = published.await {
            tracing::warn!("publish: {e}");
        }
        let settled = self.cores.until(|core| core.settled());
        if tokio::time::timeout(SETTLE, settled).await.is_err() {
            tracing::error!(
                "commands of hosts that have lost their right to them are still under way after {} s: a device holds them",
                SETTLE.as_secs()
            );
        }
    }

    async fn reserve(&self, state: Arc<State>) {
        self.inner.borrow_mut().exported = Some(state);
        if let Err(e) = self.retable().await {
            tracing::warn!("reservations: {e}");
        }
    }

    async fn listen(&self, addr: SocketAddr, protocol: Protocol) -> Result<(), NodeError> {
        // Cores share the port among themselves only: somebody else on it must be noticed, which the kernel does for
        // an exclusive socket. On an address of the stack there is nobody else.
        if !self.ours.contains(&addr.ip()) {
            drop(std::net::TcpListener::bind(addr).map_err(|e| bind_error(&e))?);
        } else if self.cores.on(CoreId(0), move |core, _| core.is_listening(addr)).await? {
            return Err(NodeError::Os { what: "listen", errno: libc::EADDRINUSE });
        }
        let made = self.cores.each(move |core, _| core.listen(addr, protocol).map_err(|e| listen_error(&e))).await?;
        let failed = made.into_iter().find_map(Result::err);
        if let Some(e) = failed {
            self.unlisten(addr).await;
            return Err(e);
        }
        Ok(())
    }

    async fn unlisten(&self, addr: SocketAddr) {
        if let Err(e) = self.cores.each(move |core, _| core.unlisten(addr)).await {
            tracing::warn!("unlisten {addr}: {e}");
        }
    }

    async fn iostat(&self) -> Vec<CoreIoStat> {
        let ids: Vec<VolumeId> = table(&self.inner.borrow()).iter().map(|e| e.info.id).collect();
        let parts = self
            .cores
            .each(move |core, _| {
                let of = |id: &VolumeId| {
                    let s = core.front_ref().stats(*id);
                    let stat = IoStat {
                        read: op_stat(&s.reads),
                        write: op_stat(&s.writes),
                        unmap: op_stat(&s.unmaps),
                        errors: s.errors,
                        queue_depth: core.front_ref().depth(*id) as u64,
                    };
                    CoreIoStat { core: core.id(), volume: *id, stat }
                };
                ids.iter().map(of).collect::<Vec<_>>()
            })
            .await;
        parts.unwrap_or_default().into_iter().flatten().collect()
    }

    async fn reset_iostat(&self, volume: Option<VolumeId>) {
        let ids: Vec<VolumeId> = match volume {
            Some(id) => vec![id],
            None => table(&self.inner.borrow()).iter().map(|e| e.info.id).collect(),
        };
        let reset = self.cores.each(move |core, _| ids.iter().for_each(|id| core.front().reset_stats(*id)));
        if let Err(e) = reset.await {
            tracing::warn!("reset iostat: {e}");
        }
    }

    async fn reactors(&self) -> Vec<ReactorReport> {
        let adaptive = self.poll == Poll::Adaptive;
        let tids = self.cores.each(|_, _| rustix::thread::gettid().as_raw_nonzero().get()).await.unwrap_or_default();
        let stats = self.reactors.borrow().stats();
        let report = |(s, tid): (CoreStats, i32)| ReactorReport {
            core: s.core,
            cpu: s.cpu as u32,
            tid,
            busy_ns: s.busy_ns,
            idle_ns: s.idle_ns,
            elapsed_ns: s.busy_ns + s.idle_ns,
            adaptive,
            ticks: s.turns,
            busy_ticks: s.turns - s.sleeps.min(s.turns),
            stalls: s.stalls,
        };
        stats.into_iter().zip(tids).map(report).collect()
    }

    async fn pools(&self) -> Vec<PoolReport> {
        let of = |core: &mut Core, _| {
            let id = core.id();
            let report = move |s: PoolStats| PoolReport {
                core: id,
                name: "io",
                buffer_bytes: s.size as u64,
                buffers: s.total as u64,
                free: s.free as u64,
                waits: s.empty,
            };
            core.pool().stats().map(report).collect::<Vec<_>>()
        };
        self.cores.each(of).await.unwrap_or_default().into_iter().flatten().collect()
    }

    async fn poll_groups(&self) -> Vec<PollGroupReport> {
        let of = |core: &mut Core, _| {
            let s = core.nvmf().stats();
            PollGroupReport {
                admin_qpairs: s.admin_queues,
                io_qpairs: s.io_queues,
                current_admin_qpairs: s.admin_queues_now,
                current_io_qpairs: s.io_queues_now,
                current_unassociated_qpairs: s.unassociated_now,
                pending_io: s.pending_now,
                completed_io: s.commands,
            }
        };
        self.cores.each(of).await.unwrap_or_default()
    }

    async fn controllers(&self, nqn: &Nqn) -> Vec<ControllerReport> {
        let nqn = nqn.as_str().to_owned();
        let of = move |core: &mut Core, _| {
            let ours = core.nvmf().controllers().filter(|c| c.subnqn == nqn);
            let report = |c: nvmf::ControllerReport| ControllerReport {
                cntlid: c.cntlid,
                host: c.hostnqn,
                host_id: c.hostid,
                discovery: c.discovery,
                io_qpairs: c.io_queues as u32,
            };
            ours.map(report).collect::<Vec<_>>()
        };
        self.cores.each(of).await.unwrap_or_default().into_iter().flatten().collect()
    }

    async fn qpairs(&self, nqn: &Nqn) -> Vec<QpairReport> {
        let nqn = nqn.as_str().to_owned();
        let of = move |core: &mut Core, _| {
            let ours = core.nvmf().queues().filter(|q| q.subnqn == nqn);
            let report = |q: nvmf::QueueReport| QpairReport {
                cntlid: q.cntlid,
                qid: q.qid,
                core: q.core,
                host: q.hostnqn,
                local: q.listener,
                peer: q.peer,
            };
            ours.map(report).collect::<Vec<_>>()
        };
        self.cores.each(of).await.unwrap_or_default().into_iter().flatten().collect()
    }

    async fn iscsi_connections(&self) -> Vec<IscsiConnectionReport> {
        let of = |core: &mut Core, _| {
            let report = |c: iscsi::ConnectionReport| IscsiConnectionReport {
                id: c.id,
                cid: c.cid,
                tsih: c.tsih,
                phase: IscsiPhase::Full,
                core: c.core,
                initiator: c.initiator,
                target: c.target.unwrap_or_default(),
                peer: c.peer,
                local: c.portal,
            };
            core.iscsi().connections().map(report).collect::<Vec<_>>()
        };
        self.cores.each(of).await.unwrap_or_default().into_iter().flatten().collect()
    }

    async fn request_logout(&self, target: u32, portal_group: Option<u16>) {
        let asked = self.cores.each(move |core, now| core.request_logout(now, target, portal_group)).await;
        if let Err(e) = asked {
            tracing::warn!("logout requests: {e}");
        }
    }

    async fn set_histogram(&self, target: u32, on: bool) {
        if let Err(e) = self.cores.each(move |core, _| core.set_histogram(target, on)).await {
            tracing::warn!("histogram: {e}");
        }
    }

    async fn histogram(&self, target: u32) -> Option<Histogram> {
        let parts = self.cores.each(move |core, _| core.iscsi().histogram(target).cloned()).await.unwrap_or_default();
        parts.into_iter().flatten().reduce(|mut all, part| {
            all.merge(&part);
            all
        })
    }

    fn now_ns(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }

    fn stop(&self) {
        self.stopping.notify_one();
    }
}

fn listen_error(e: &NetError) -> NodeError {
    tracing::warn!("{e}");
    match e {
        NetError::Address { what, source, .. } => {
            NodeError::Os { what, errno: source.raw_os_error().unwrap_or(libc::EIO) }
        }
        NetError::Limit(what) => NodeError::Limit(what),
        NetError::Engine(what, source) => NodeError::Os { what, errno: source.raw_os_error().unwrap_or(libc::EIO) },
    }
}

fn bind_error(e: &std::io::Error) -> NodeError {
    NodeError::Os { what: "listen", errno: e.raw_os_error().unwrap_or(libc::EIO) }
}
