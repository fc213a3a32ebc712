//! A slice of the log store as a [`Target`]: load on the log alone, without network or volumes above it, on any device.
//! One worker, one slice over the whole device, one volume in it.
//!
//! [`fill`] and [`mapping`] are the two measurements that a plain workload can not make: write amplification of cleaning
//! at a given fill, and memory and restart time of many mapped blocks.

pub mod fill;
pub mod mapping;

use super::clock::Clock;
use super::target::{About, Completed, Dead, Fault, Kind, Request, Target, identity_of};
use crate::base::{BLOCK, CHUNK, CHUNK_BLOCKS, CoreId, ShardId, SliceId, Status, Time, VolumeId};
use crate::device::{AnyQueue, Done, Medium, Op, OpKind, OpenError, Queue};
use crate::mem::{Arena, Buf, Class, Pool};
use crate::store::{self, Io, Limits, Name, Outcome, PROBE_BYTES, Phase, Slice, SliceConfig, Stamp, StoreError};

/// The volume that is driven.
const VOLUME: VolumeId = VolumeId(1);
/// Its name.
const NAME: &str = "bench";
/// Device operations under way at most.
const DEPTH: u32 = 1024;
/// Requests of the slice's own administration.
const ADMIN_TAG: u64 = u64::MAX;
/// Small buffers beyond the requests': parts of blocks, superblocks, checkpoint pages.
const SMALL_SPARE: usize = 512;
/// Large buffers beyond the batches': windows of cleaning, scrub and recovery.
const LARGE_SPARE: usize = 40;

/// How large the volume is to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum VolumeSize {
    /// What is there, or 3/4 of what the store can hold.
    #[default]
    Default,
    /// So many bytes, rounded up to whole chunks.
    Bytes(u64),
    /// This part of all blocks on the device.
    Percent(u8),
}

/// How to open a store.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Make a new, empty store even where there is one.
    pub format: bool,
    /// Size of the volume.
    pub volume: VolumeSize,
    /// Bytes per logical block of a new volume: 512 or 4096.
    pub lba_bytes: u32,
    /// Requests under way.
    pub depth: u32,
    /// Largest request, bytes.
    pub io_bytes: u32,
    /// Limits of the slice.
    pub limits: Limits,
}

/// Why a store can not be driven.
#[derive(Debug, thiserror::Error)]
pub enum OpenStoreError {
    /// The device can not be opened.
    #[error(transparent)]
    Device(#[from] OpenError),
    /// There is no memory for buffers.
    #[error("buffers: {0}")]
    Memory(#[from] std::io::Error),
    /// The slice could not be formatted, opened or used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An operation of the set-up ended badly.
    #[error("{0}: {1:?}")]
    Refused(&'static str, Status),
    /// The options do not fit.
    #[error("{0}")]
    Options(String),
}

/// A log under load.
pub struct Store {
    queue: AnyQueue,
    slice: Slice,
    pool: Pool,
    about: About,
    config: SliceConfig,
    dones: Vec<Done>,
    ended: Vec<store::Ended>,
    /// Requests that ended within `submit`.
    at_once: Vec<Completed>,
    wanted: Vec<bool>,
    lsn: u64,
    /// Nanoseconds the slice took to be ready.
    pub start_ns: u64,
}

impl Store {
    /// Opens the store on `medium`, or formats one, and finds or makes its volume.
    ///
    /// # Errors
    /// [`OpenStoreError`].
    pub fn open(medium: &Medium, options: &StoreOptions, clock: &Clock) -> Result<Store, OpenStoreError> {
        if !u64::from(options.io_bytes).is_power_of_two() || u64::from(options.io_bytes) > CHUNK {
            let why =
                format!("--bs {} is not a power of two up to 2m: a request lies within one chunk", options.io_bytes);
            return Err(OpenStoreError::Options(why));
        }
        let (arena, classes) = buffers(options)?;
        let mut pool = Pool::new(CoreId(0), &arena, &classes).expect("the arena was made for these buffers");
        let mut queue = medium.queue(CoreId(0), DEPTH.min(medium.caps().depth), &[arena.span()])?;
        let found = if options.format { None } else { probe(&mut queue, &mut pool, clock) };
        let (offset, len) = store::layout(queue.caps().size, 1)?[0];
        let config = SliceConfig {
            store: found.as_ref().map_or_else(|| *uuid::Uuid::new_v4().as_bytes(), |p| p.store),
            name: Name::new(NAME).expect("a short name"),
            slice: SliceId(0),
            slices: 1,
            offset,
            len: found.as_ref().map_or(len, |p| p.slice_len),
            token_tag: 1,
            limits: options.limits.clone(),
        };
        if let Some(p) = found.as_ref().filter(|p| p.slices != 1) {
            let why = format!("the store on this device has {} slices; this drives stores of one", p.slices);
            return Err(OpenStoreError::Options(why));
        }
        let slice = if found.is_some() { Slice::open(config.clone()) } else { Slice::format(config.clone()) };
        let about = About {
            block_size: options.lba_bytes,
            blocks: 0,
            io_bytes_max: options.io_bytes,
            depth: options.depth,
            name: format!("store on {}", medium.spec()),
            identity: identity_of(&config.store),
        };
        let depth = options.depth as usize;
        let mut store = Store {
            queue,
            slice,
            pool,
            about,
            config,
            dones: Vec::with_capacity(DEPTH as usize),
            ended: Vec::with_capacity(depth),
            at_once: Vec::with_capacity(depth),
            wanted: vec![false; depth],
            lsn: 0,
            start_ns: 0,
        };
        store.start(clock)?;
        store.find_volume(options, clock)?;
        Ok(store)
    }

    /// Turns until the slice is ready.
    fn start(&mut self, clock: &Clock) -> Result<(), OpenStoreError> {
        let begin = clock.now();
        loop {
            match self.slice.phase() {
                Phase::Starting { .. } => self.turn(clock.now()),
                Phase::Ready => break,
                Phase::Failed(e) | Phase::Dead(e) => return Err(e.into()),
            }
        }
        self.start_ns = clock.now().since(begin);
        Ok(())
    }

    /// The volume that is there, or a new one.
    fn find_volume(&mut self, options: &StoreOptions, clock: &Clock) -> Result<(), OpenStoreError> {
        let old = self.slice.volumes().find(|v| v.id == VOLUME).copied();
        let usage = self.slice.usage();
        let bytes = match options.volume {
            VolumeSize::Default => usage.limit / 4 * 3 * BLOCK as u64 / CHUNK * CHUNK,
            VolumeSize::Bytes(bytes) => bytes.next_multiple_of(CHUNK),
            VolumeSize::Percent(percent) => usage.blocks * u64::from(percent) / 100 * BLOCK as u64,
        };
        let meta = match (old, options.volume) {
            (Some(old), VolumeSize::Default) => old,
            (Some(old), _) => store::VolumeMeta { bytes, ..old },
            (None, _) => store::VolumeMeta {
                id: VOLUME,
                uuid: *uuid::Uuid::new_v4().as_bytes(),
                name: Name::new(NAME).expect("a short name"),
                bytes,
                lba_bytes: options.lba_bytes,
                thin: true,
                read_only: false,
                created: 0,
            },
        };
        if meta.bytes == 0 {
            return Err(OpenStoreError::Options("the volume would have no bytes".into()));
        }
        // A mapped block needs its share of a leaf, twice while a checkpoint is written.
        let needed = meta.bytes / BLOCK as u64 * (CHUNK_BLOCKS + 4) / CHUNK_BLOCKS;
        if let (VolumeSize::Percent(percent), true) = (options.volume, needed > usage.limit) {
            let most = usage.limit * 99 / usage.blocks;
            let why = format!("a fill of {percent} % is more than the {most} % that this store can hold");
            return Err(OpenStoreError::Options(why));
        }
        if old != Some(meta) {
            let outcome = self.slice.set_volume(meta, ADMIN_TAG, &mut self.queue, &mut self.pool);
            self.finish("create the volume", outcome, clock)?;
        }
        self.about.block_size = meta.lba_bytes;
        self.about.blocks = meta.bytes / u64::from(meta.lba_bytes);
        Ok(())
    }

    /// Waits for an administrative request.
    fn finish(&mut self, what: &'static str, outcome: Outcome, clock: &Clock) -> Result<(), OpenStoreError> {
        let mut status = match outcome {
            Outcome::Done(ended) => Some(ended.status),
            Outcome::Pending => None,
            Outcome::Later(_) => return Err(OpenStoreError::Refused(what, Status::Busy)),
        };
        while status.is_none() {
            self.turn(clock.now());
            status = self.ended.drain(..).find(|e| e.tag == ADMIN_TAG).map(|e| e.status);
        }
        match status {
            Some(Status::Ok) | None => Ok(()),
            Some(status) => Err(OpenStoreError::Refused(what, status)),
        }
    }

    /// Completions in, steps, submissions out.
    fn turn(&mut self, now: Time) {
        self.queue.poll(now, &mut self.dones);
        for done in self.dones.drain(..) {
            self.slice.done(now, done, &mut self.queue, &mut self.pool);
        }
        self.slice.step(now, &mut self.queue, &mut self.pool);
        self.queue.kick();
        self.slice.drain(&mut self.ended);
    }

    /// How full the slice is and what it has been doing.
    pub fn usage(&self) -> store::Usage {
        self.slice.usage()
    }

    /// Writes a checkpoint, as a clean stop does.
    ///
    /// # Errors
    /// [`OpenStoreError::Refused`].
    pub fn checkpoint(&mut self, clock: &Clock) -> Result<(), OpenStoreError> {
        let outcome = self.slice.checkpoint(ADMIN_TAG);
        self.finish("checkpoint", outcome, clock)
    }

    /// Forgets everything in memory and opens the log again, as after a crash. Returns the nanoseconds until it serves.
    ///
    /// # Errors
    /// [`OpenStoreError::Store`].
    pub fn reopen(&mut self, clock: &Clock) -> Result<u64, OpenStoreError> {
        while !self.slice.is_quiet() {
            self.turn(clock.now());
        }
        self.slice.close(&mut self.pool);
        self.slice = Slice::open(self.config.clone());
        self.start(clock)?;
        Ok(self.start_ns)
    }
}

/// Memory for the requests, the batches and everything else that the slice holds.
fn buffers(options: &StoreOptions) -> std::io::Result<(Arena, Vec<Class>)> {
    let (depth, l) = (options.depth as usize, &options.limits);
    let batch = l.batch_bytes as usize;
    let mut classes = vec![Class { size: BLOCK, count: depth + SMALL_SPARE }];
    classes.push(Class { size: 2 * BLOCK, count: usize::from(l.partials) + 8 });
    let io = (options.io_bytes as usize).next_multiple_of(BLOCK);
    let large = usize::from(l.batches) + LARGE_SPARE;
    // Classes ascend; equal sizes join.
    for (size, count) in [(io, 2 * depth), (batch, large), (l.segment_bytes as usize, 4)] {
        match classes.iter_mut().find(|c| c.size == size) {
            Some(class) => class.count += count,
            None => classes.push(Class { size, count }),
        }
    }
    classes.sort_by_key(|c| c.size);
    let arena = Arena::new(classes.iter().map(|c| c.size * c.count).sum())?;
    Ok((arena, classes))
}

/// What store is on the device, if any.
fn probe(queue: &mut AnyQueue, pool: &mut Pool, clock: &Clock) -> Option<store::Probed> {
    let mut head = vec![0; PROBE_BYTES.min(queue.caps().size as usize)];
    for (n, part) in head.chunks_mut(BLOCK).enumerate() {
        let buf = pool.get(part.len()).expect("a fresh pool");
        let offset = (n * BLOCK) as u64;
        let op = Op { kind: OpKind::Read, offset, len: part.len() as u64, buf: Some(buf), at: 0, token: 0 };
        assert!(queue.submit(op).is_ok(), "an idle queue takes an operation");
        let mut dones = Vec::new();
        while dones.is_empty() {
            queue.kick();
            queue.poll(clock.now(), &mut dones);
        }
        let done = dones.pop().expect("one operation, one end");
        let buf = done.buf.expect("a read brings its buffer");
        // A block that can not be read counts as damaged: the superblock has copies.
        if done.result.is_ok() {
            part.copy_from_slice(&buf);
        }
        pool.put(buf);
    }
    store::probe(&head).ok()
}

impl Target for Store {
    fn about(&self) -> &About {
        &self.about
    }

    fn pool(&mut self) -> &mut Pool {
        &mut self.pool
    }

    fn submit(&mut self, request: Request, payload: Option<Buf>) -> Result<(), Option<Buf>> {
        let block = u64::from(self.about.block_size);
        let io = Io {
            volume: VOLUME,
            offset: request.lba * block,
            len: (u64::from(request.blocks) * block) as u32,
            stamp: Stamp { shard: ShardId(0), epoch: 1, lsn: self.lsn },
            tag: u64::from(request.slot),
        };
        self.wanted[request.slot as usize] = request.want_data;
        let outcome = match request.kind {
            Kind::Read => {
                let buf = self.pool.get(io.len as usize).ok_or(None)?;
                self.slice.read(io, buf, &mut self.queue, &mut self.pool)
            }
            Kind::Write => {
                let data = payload.expect("a write has a payload");
                self.lsn += 1;
                match self.slice.write(io, &data, &mut self.queue, &mut self.pool) {
                    Outcome::Later(_) => return Err(Some(data)),
                    outcome => {
                        self.pool.put(data);
                        outcome
                    }
                }
            }
            Kind::Flush => self.slice.flush(io.tag),
        };
        match outcome {
            Outcome::Done(ended) => {
                let completed = completed(ended, &self.wanted, &mut self.pool);
                self.at_once.push(completed);
            }
            Outcome::Pending => {}
            Outcome::Later(buf) => {
                if let Some(buf) = buf {
                    self.pool.put(buf);
                }
                return Err(None);
            }
        }
        Ok(())
    }

    fn kick(&mut self, now: Time) {
        self.slice.step(now, &mut self.queue, &mut self.pool);
        self.queue.kick();
    }

    fn figures(&self) -> Option<serde_json::Value> {
        serde_json::to_value(StoreFigures::of(self)).ok()
    }

    fn notes(&self) -> Vec<String> {
        let f = StoreFigures::of(self);
        let percent = |part: u64| part as f64 * 100.0 / f.blocks.max(1) as f64;
        vec![format!(
            "store  {:.1} % live, {:.1} % of segments free, write amplification {:.2} ({} moved), {} checksum errors",
            percent(f.live),
            f64::from(f.segments_free) * 100.0 / f64::from(f.segments.max(1)),
            f.write_amplification,
            f.moved_blocks,
            f.checksum_errors,
        )]
    }

    fn poll(&mut self, now: Time, done: &mut Vec<Completed>) -> Result<(), Dead> {
        // `kick` has just stepped the slice: once more only for what came back since.
        if self.queue.poll(now, &mut self.dones) > 0 {
            for done in self.dones.drain(..) {
                self.slice.done(now, done, &mut self.queue, &mut self.pool);
            }
            self.slice.step(now, &mut self.queue, &mut self.pool);
        }
        self.slice.drain(&mut self.ended);
        done.append(&mut self.at_once);
        let (wanted, pool) = (&self.wanted, &mut self.pool);
        done.extend(self.ended.drain(..).map(|ended| completed(ended, wanted, pool)));
        match self.slice.phase() {
            Phase::Failed(e) | Phase::Dead(e) => Err(Dead(e.to_string())),
            Phase::Starting { .. } | Phase::Ready => Ok(()),
        }
    }
}

fn completed(ended: store::Ended, wanted: &[bool], pool: &mut Pool) -> Completed {
    let slot = ended.tag as u32;
    let result = if ended.status.is_ok() { Ok(()) } else { Err(Fault::Status(ended.status)) };
    let buf = match ended.buf {
        Some(buf) if result.is_ok() && wanted[slot as usize] => Some(buf),
        Some(buf) => {
            pool.put(buf);
            None
        }
        None => None,
    };
    Completed { slot, result, buf }
}

/// How a report shows a store.
#[derive(Clone, Debug, serde::Serialize)]
pub struct StoreFigures {
    /// Blocks of 4 KiB on the device.
    pub blocks: u64,
    /// Blocks mapped by the volume.
    pub mapped: u64,
    /// Live blocks, index pages included.
    pub live: u64,
    /// Segments in all.
    pub segments: u32,
    /// Segments that may be written.
    pub segments_free: u32,
    /// Memory of the index, bytes.
    pub index_bytes: u64,
    /// Blocks that were written by the workload.
    pub user_blocks: u64,
    /// Blocks that cleaning moved.
    pub moved_blocks: u64,
    /// Checkpoint pages written.
    pub page_blocks: u64,
    /// Batches written.
    pub batches: u64,
    /// (user + moved) / user.
    pub write_amplification: f64,
    /// Blocks whose checksum did not fit.
    pub checksum_errors: u64,
    /// Milliseconds until the slice served.
    pub start_ms: f64,
}

impl StoreFigures {
    /// Figures of a store as it is now.
    pub fn of(store: &Store) -> StoreFigures {
        let u = store.usage();
        StoreFigures {
            blocks: u.blocks,
            mapped: u.mapped,
            live: u.live,
            segments: u.segments,
            segments_free: u.segments_free,
            index_bytes: u.index_bytes,
            user_blocks: u.counters.user_blocks,
            moved_blocks: u.counters.moved_blocks,
            page_blocks: u.counters.page_blocks,
            batches: u.counters.batches,
            write_amplification: u.counters.cleaning_amplification().max(1.0),
            checksum_errors: u.counters.checksum_errors,
            start_ms: store.start_ns as f64 / 1e6,
        }
    }
}

#[cfg(test)]
mod tests;
