//! Log stores: formatted, recovered and closed from the control thread, slice by slice, each on the core that owns it.
//!
//! Slice 0 has the last word on what exists: a store exists when its slice 0 has a superblock, a volume when slice 0
//! knows it. So whatever is made is made on the other slices first, and whatever goes, goes from slice 0 first; what a
//! crash leaves on the other slices is taken away at the next open.

use super::cores::{Carrier, Cores, pause};
use super::devices::{self, OpenDevice};
use super::turn::FORGET;
use crate::base::limits::SLICES_MAX;
use crate::base::{SliceId, Status, VolumeId};
use crate::cluster::{NodeError, ScrubReport, StoreSummary, StoreUsage, Volume, VolumeName};
use crate::device::{AnyQueue, Medium, Op, OpKind};
use crate::mem::Pool;
use crate::repl::{StoreId, place};
use crate::store::{self, FormatError, Limits, Outcome, Phase, Slice, SliceConfig, Usage, VolumeMeta};
use std::collections::BTreeMap;
use uuid::Uuid;

/// A store that is being served.
pub struct OpenStore {
    /// Its place in the cores' tables.
    pub number: StoreId,
    /// How many slices it was cut into.
    pub slices: u16,
    /// Bytes of a segment.
    pub segment_bytes: u64,
    /// Its volumes.
    pub volumes: BTreeMap<VolumeId, Volume>,
}

/// The node's open stores.
#[derive(Default)]
pub struct Stores {
    open: BTreeMap<Uuid, OpenStore>,
    next_tag: u64,
}

impl Stores {
    /// An open store.
    pub fn get(&self, uuid: Uuid) -> Result<&OpenStore, NodeError> {
        self.open.get(&uuid).ok_or(NodeError::Gone)
    }
    /// An open store, to change.
    pub fn get_mut(&mut self, uuid: Uuid) -> Result<&mut OpenStore, NodeError> {
        self.open.get_mut(&uuid).ok_or(NodeError::Gone)
    }
    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&Uuid, &OpenStore)> {
        self.open.iter()
    }
    /// Remembers a store that is ready.
    pub fn insert(&mut self, uuid: Uuid, store: OpenStore) {
        self.open.insert(uuid, store);
    }
    /// Forgets a store.
    pub fn remove(&mut self, uuid: Uuid) -> Option<OpenStore> {
        self.open.remove(&uuid)
    }
    /// A number no open store has.
    pub fn free_number(&self) -> StoreId {
        let taken = |n: u16| self.open.values().any(|s| s.number == StoreId(n));
        StoreId((0..u16::MAX).find(|n| !taken(*n)).expect("stores are far fewer than numbers"))
    }
    /// A tag no administrative operation under way has.
    pub fn tag(&mut self) -> u64 {
        self.next_tag += 1;
        self.next_tag
    }
}

/// How long a slice may take to become ready before its start is called failed; recovery is bounded well below it.
const START_MS_MAX: u64 = 10 * 60 * 1000;

/// What the first blocks of a medium say of a store on it.
pub fn probe(medium: &Medium) -> Result<Option<StoreSummary>, NodeError> {
    Ok(head(medium)?.map(|p| StoreSummary {
        uuid: Uuid::from_bytes(p.store),
        name: crate::cluster::StoreName::new(p.name.as_str()).unwrap_or_else(|_| fallback_name()),
        slices: p.slices,
    }))
}

/// Bytes of a segment of the store on a medium.
pub fn segment_bytes(medium: &Medium) -> Result<u64, NodeError> {
    head(medium)?.map(|p| u64::from(p.segment_bytes)).ok_or(NodeError::NotAStore)
}

fn head(medium: &Medium) -> Result<Option<store::Probed>, NodeError> {
    if medium.caps().size < store::PROBE_BYTES as u64 {
        return Ok(None);
    }
    let head = devices::with_queue(medium, store::PROBE_BYTES, |run, pool| {
        let buf = pool.get(store::PROBE_BYTES).expect("the pool was made for this");
        let len = store::PROBE_BYTES as u64;
        run(Op { kind: OpKind::Read, offset: 0, len, buf: Some(buf), at: 0, token: 0 })
    })??;
    match store::probe(&head.expect("a read brings its buffer")) {
        Ok(found) => Ok(Some(found)),
        Err(FormatError::Short | FormatError::Magic) => Ok(None),
        // These are stores, and must not be taken for a device that is free.
        Err(FormatError::Version { found }) => {
            Err(NodeError::Newer { found: u32::from(found), known: u32::from(store::VERSION) })
        }
        Err(FormatError::Checksum | FormatError::Stranger | FormatError::Field) => {
            Err(NodeError::Damaged("every copy of its superblock"))
        }
    }
}

/// The name of a store whose superblock carries one that this control plane would not hand out.
fn fallback_name() -> crate::cluster::StoreName {
    crate::cluster::StoreName::new("store").expect("a legal name")
}

/// Overwrites the superblocks at the start of every slice, durably: the medium carries no store afterwards. Slice 0's
/// goes first, so that a crash in the middle leaves no store either.
pub fn wipe(medium: &Medium, slices: u16) -> Result<(), NodeError> {
    let parts = layout(medium.caps().size, slices)?;
    devices::with_queue(medium, store::PROBE_BYTES, |run, pool| {
        for (offset, _) in parts {
            let mut buf = pool.get(store::PROBE_BYTES).expect("the pool was made for this");
            buf.fill(0);
            let len = buf.len() as u64;
            let back = run(Op { kind: OpKind::Write, offset, len, buf: Some(buf), at: 0, token: 0 })?;
            if let Some(buf) = back {
                pool.put(buf);
            }
            run(Op { kind: OpKind::Flush, offset: 0, len: 0, buf: None, at: 0, token: 0 })?;
        }
        Ok(())
    })?
}

fn layout(size: u64, slices: u16) -> Result<Vec<(u64, u64)>, NodeError> {
    store::layout(size, slices).map_err(|_| NodeError::Size("the device is too small for a store"))
}

/// Slices of a new store: one per core, rounded up to a power of two so that shards divide evenly.
pub fn slices_for(cores: u16, size: u64) -> u16 {
    let wanted = cores.next_power_of_two().min(SLICES_MAX as u16);
    // A small device gets fewer: a slice below this has too few segments to clean in.
    let room = (size / SLICE_BYTES_MIN).max(1).min(u64::from(wanted)) as u16;
    if room.is_power_of_two() { room } else { room.next_power_of_two() / 2 }
}

/// Smallest slice a new store is cut into, when there is a choice.
const SLICE_BYTES_MIN: u64 = 256 << 20;

/// Limits of a slice of `len` bytes: those of the node, with segments small enough that there are at least 64 of them.
fn limits(node: &Limits, len: u64) -> Limits {
    let mut segment = u64::from(node.segment_bytes);
    while segment > 64 << 10 && len / segment < 64 {
        segment /= 2;
    }
    Limits { segment_bytes: segment as u32, batch_bytes: node.batch_bytes.min(segment as u32 / 2), ..node.clone() }
}

/// Puts slices on their cores, to be formatted or opened, and waits until they serve.
pub async fn start<C: Carrier>(
    cores: &Cores<C>,
    number: StoreId,
    device: &OpenDevice,
    config: &StartConfig,
    which: std::ops::Range<u16>,
) -> Result<(), NodeError> {
    let parts = layout(device.medium.caps().size, config.slices)?;
    for n in which.clone() {
        let (offset, len) = parts[usize::from(n)];
        let cfg = SliceConfig {
            store: config.uuid.into_bytes(),
            name: config.name,
            slice: SliceId(n),
            slices: config.slices,
            offset,
            len,
            token_tag: 0,
            limits: limits(&config.limits, len),
        };
        let (device, format) = (device.number, config.format);
        let owner = place::core(n, cores.count());
        cores
            .on(owner, move |core, _| {
                let local = core.front().local();
                let cfg = SliceConfig { token_tag: local.next_token_tag(), ..cfg };
                let slice = if format { Slice::format(cfg) } else { Slice::open(cfg) };
                local.add_slice(number, SliceId(n), device, slice);
            })
            .await?;
    }
    let started = std::time::Instant::now();
    for n in which {
        let owner = place::core(n, cores.count());
        loop {
            let phase = cores.on(owner, move |core, _| phase_of(core, number, SliceId(n))).await?;
            match phase {
                Phase::Ready => break,
                Phase::Starting { .. } if started.elapsed().as_millis() < u128::from(START_MS_MAX) => pause().await,
                Phase::Starting { .. } => return Err(NodeError::Limit("time to recover a store")),
                Phase::Failed(e) | Phase::Dead(e) => return Err(start_error(number, n, &e)),
            }
        }
    }
    Ok(())
}

/// What [`start`] starts.
#[derive(Clone)]
pub struct StartConfig {
    /// The store's identity.
    pub uuid: Uuid,
    /// Its name, for the superblock.
    pub name: store::StoreName,
    /// How many slices it has.
    pub slices: u16,
    /// Format (or open).
    pub format: bool,
    /// Limits of every slice.
    pub limits: Limits,
}

fn phase_of(core: &mut super::turn::Core, store: StoreId, slice: SliceId) -> Phase {
    let mut phases = core.front().media().phases(store);
    phases.find(|(n, _)| *n == slice).map(|(_, phase)| phase).expect("the slice was attached")
}

fn start_error(store: StoreId, slice: u16, e: &store::StoreError) -> NodeError {
    tracing::error!("store {} slice {slice}: {e}", store.0);
    match e {
        store::StoreError::Superblock(_) | store::StoreError::WrongDevice => NodeError::NotAStore,
        store::StoreError::Damaged { .. } | store::StoreError::Hole { .. } => {
            NodeError::Damaged("a structure of its log; `pollux fsck` names it")
        }
        store::StoreError::Config(what) => NodeError::Size(what),
        store::StoreError::Limit(what) => NodeError::Limit(what),
        store::StoreError::Device { op, error, .. } => NodeError::Block { what: op, status: (*error).into() },
    }
}

/// Takes a store's slices off the cores; its requests have ended.
pub async fn stop<C: Carrier>(cores: &Cores<C>, number: StoreId) -> Result<(), NodeError> {
    cores
        .until(move |core| {
            let (front, pool) = core.front_and_pool();
            front.local().remove_store(number, pool)
        })
        .await
}

/// Runs `change` on the given slices and waits until all have it durably.
pub async fn change<C, F>(
    cores: &Cores<C>,
    store: StoreId,
    which: std::ops::Range<u16>,
    tag: u64,
    what: &'static str,
    change: F,
) -> Result<(), NodeError>
where
    C: Carrier,
    F: Fn(&mut Slice, &mut AnyQueue, &mut Pool, u64) -> Outcome + Clone + Send + 'static,
{
    for n in which {
        let owner = place::core(n, cores.count());
        loop {
            let work = change.clone();
            cores
                .on(owner, move |core, _| {
                    let (front, pool) = core.front_and_pool();
                    let asked = front.local().administer(store, Some(SliceId(n)), tag, pool, work);
                    assert_eq!(asked, 1, "the slice was attached");
                })
                .await?;
            match ended(cores, owner, tag).await? {
                Status::Ok => break,
                // Short of slots or segments in this very turn: the log makes room by itself.
                Status::Busy => pause().await,
                status => return Err(NodeError::Block { what, status }),
            }
        }
    }
    Ok(())
}

async fn ended<C: Carrier>(cores: &Cores<C>, owner: crate::base::CoreId, tag: u64) -> Result<Status, NodeError> {
    loop {
        if let Some(status) = cores.on(owner, move |core, _| core.take_administered(tag)).await? {
            return Ok(status);
        }
        pause().await;
    }
}

/// The volumes slice 0 knows; what the other slices know beyond them is what an interrupted change left, and goes.
pub async fn settle<C: Carrier>(
    cores: &Cores<C>,
    number: StoreId,
    slices: u16,
    tag: u64,
) -> Result<Vec<Volume>, NodeError> {
    let known = |n: u16| {
        cores.on(place::core(n, cores.count()), move |core, _| {
            core.front().media().volumes(number, SliceId(n)).copied().collect::<Vec<VolumeMeta>>()
        })
    };
    let first = known(0).await?;
    for n in 1..slices {
        for meta in known(n).await? {
            let there = first.iter().find(|m| m.id == meta.id);
            match there {
                None => {
                    let id = meta.id;
                    change(cores, number, n..n + 1, tag, "delete", move |s, q, pool, tag| {
                        s.delete_volume(id, tag, q, pool)
                    })
                    .await?;
                }
                Some(truth) if *truth != meta => {
                    let truth = *truth;
                    change(cores, number, n..n + 1, tag, "update", move |s, q, pool, tag| {
                        s.set_volume(truth, tag, q, pool)
                    })
                    .await?;
                }
                Some(_) => {}
            }
        }
    }
    Ok(first.iter().map(volume).collect())
}

/// A volume's record in the log's terms.
pub fn meta(volume: &Volume, created: u64) -> VolumeMeta {
    VolumeMeta {
        id: volume.id,
        uuid: volume.uuid.into_bytes(),
        name: store::Name::new(volume.name.as_str()).expect("volume names are at most 63 bytes without NUL"),
        bytes: volume.bytes,
        lba_bytes: volume.block_size,
        thin: volume.thin,
        read_only: volume.read_only,
        created,
    }
}

fn volume(meta: &VolumeMeta) -> Volume {
    Volume {
        id: meta.id,
        uuid: Uuid::from_bytes(meta.uuid),
        name: VolumeName::new(meta.name.as_str())
            .unwrap_or_else(|_| VolumeName::new(&format!("volume-{}", meta.id.0)).expect("a legal name")),
        bytes: meta.bytes,
        block_size: meta.lba_bytes,
        thin: meta.thin,
        read_only: meta.read_only,
    }
}

/// A store's room, summed over its slices.
pub async fn usage<C: Carrier>(
    cores: &Cores<C>,
    number: StoreId,
    volumes: Vec<VolumeId>,
) -> Result<StoreUsage, NodeError> {
    let parts = cores
        .each(move |core, _| {
            let media = core.front_ref().media();
            let usages: Vec<Usage> = media.usages(number).map(|(_, u)| u).collect();
            let mapped: Vec<u64> = volumes.iter().map(|v| media.mapped(number, *v)).collect();
            (usages, volumes.clone(), mapped)
        })
        .await?;
    let mut sum = StoreUsage::default();
    for (usages, volumes, mapped) in parts {
        if sum.mapped.is_empty() {
            sum.mapped = volumes.into_iter().map(|v| (v, 0)).collect();
        }
        sum.mapped.iter_mut().zip(mapped).for_each(|((_, n), more)| *n += more);
        for u in usages {
            sum.total_blocks += u.limit;
            sum.free_blocks += u.free;
            for (name, value) in counters(&u) {
                match sum.counters.iter_mut().find(|(n, _)| *n == name) {
                    Some((_, v)) => *v += value,
                    None => sum.counters.push((name, value)),
                }
            }
        }
    }
    Ok(sum)
}

/// What a slice tells besides its room.
fn counters(u: &Usage) -> [(&'static str, u64); 14] {
    let c = &u.counters;
    [
        ("segments", u64::from(u.segments)),
        ("segments_free", u64::from(u.segments_free)),
        ("index_bytes", u.index_bytes),
        ("written_blocks", c.user_blocks),
        ("moved_blocks", c.moved_blocks),
        ("checkpoint_blocks", c.page_blocks),
        ("batches", c.batches),
        ("checkpoints", c.checkpoints),
        ("cleaned_segments", c.cleaned_segments),
        ("checksum_errors", c.checksum_errors),
        ("media_errors", c.media_errors),
        ("lost_blocks", c.lost_blocks),
        ("capacity_exceeded", c.capacity_exceeded),
        ("scrubbed_blocks", c.scrubbed_blocks),
    ]
}

/// Bytes per second and slice that a scrub asked for by the operator reads.
const SCRUB_BYTES_PER_SEC: u64 = 128 << 20;

/// Starts verifying every live block in the background.
pub async fn start_scrub<C: Carrier>(cores: &Cores<C>, number: StoreId) -> Result<(), NodeError> {
    let start = move |core: &mut super::turn::Core, _| {
        let (front, pool) = core.front_and_pool();
        let local = front.local();
        local.administer(number, None, FORGET, pool, |slice, _, _, tag| slice.scrub(SCRUB_BYTES_PER_SEC, tag));
    };
    cores.each(start).await.map(|_| ())
}

/// Progress of a scrub over all slices.
pub async fn scrub<C: Carrier>(
    cores: &Cores<C>,
    number: StoreId,
    segment_bytes: u64,
) -> Result<ScrubReport, NodeError> {
    let parts = cores.each(move |core, _| core.front_ref().media().scrubs(number).collect::<Vec<_>>()).await?;
    Ok(parts.into_iter().flatten().fold(ScrubReport::default(), |a, b| ScrubReport {
        running: a.running || b.running,
        done_bytes: a.done_bytes + u64::from(b.segments_done) * segment_bytes,
        total_bytes: a.total_bytes + u64::from(b.segments) * segment_bytes,
        errors: a.errors + b.errors,
    }))
}
