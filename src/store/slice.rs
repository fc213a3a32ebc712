//! A slice: one log on a byte range of a device, its index, and everything that goes on in the background. The owner's turn is
//! `queue.poll` -> [`Slice::done`] for each completion of ours -> [`Slice::step`] -> `queue.kick` -> [`Slice::drain`].
//!
//! What stays true: a write ends only when its batch and all earlier ones are durable; reads see only what is stable;
//! once the device fails a flush or a log write, nothing is acknowledged any more ([`Phase::Dead`]).

use super::apply::{Effect, Trim, apply};
use super::checkpoint::Checkpoint;
use super::clean::Cleaner;
use super::config::SliceConfig;
use super::device_ops::Port;
use super::error::StoreError;
use super::format::batch::Kind;
use super::format::{Geometry, LogId, STREAMS, Stream, Superblock, VolumeMeta};
use super::index::{Index, Room};
use super::log::{Log, Resume};
use super::planted::{Planted, Rules};
use super::read::Reads;
use super::request::{Ended, Outcome, Phase};
use super::scrub::Scrub;
use super::segments::Segments;
use super::space::dense_blocks;
use super::staging::Staging;
use super::start::Start;
use super::superblock::Writing;
use super::token::Purpose;
use super::usage::Counters;
use super::volume_ops::VolumeOps;
use crate::base::{BLOCK, Status, Time};
use crate::device::{Done, Queue};
use crate::mem::Pool;

/// Leaves given back per turn after a delete or shrink.
const TRIM_LEAVES: u32 = 64;
/// Device reads of recovery under way at once.
pub(super) const START_READS: usize = 32;

/// One log on a byte range of a device.
pub struct Slice {
    pub(super) cfg: SliceConfig,
    pub(super) id: LogId,
    pub(super) rules: Rules,
    pub(super) geometry: Geometry,
    pub(super) phase: Phase,
    pub(super) start: Option<Box<Start>>,
    pub(super) superblock: Option<Superblock>,
    pub(super) port: Port,
    pub(super) log: Log,
    pub(super) index: Index,
    pub(super) segments: Segments,
    pub(super) reads: Reads,
    pub(super) staging: Staging,
    pub(super) volume_ops: VolumeOps,
    pub(super) trims: Vec<Trim>,
    pub(super) checkpoint: Checkpoint,
    pub(super) cleaner: Cleaner,
    pub(super) scrub: Scrub,
    pub(super) super_writing: Writing,
    pub(super) damage: Option<StoreError>,
    pub(super) counters: Counters,
    pub(super) ended: Vec<Ended>,
    /// Blocks that hosts may still append before the limit of live blocks must be looked at exactly.
    pub(super) headroom: u64,
    /// Payload blocks that a segment of full batches holds.
    pub(super) dense: u32,
    /// When the last batch was sealed.
    pub(super) sealed_at: Time,
    pub(super) now: Time,
    tags: Vec<u64>,
}

impl Slice {
    /// Starts to lay out a new, empty log. The store's UUID must be a fresh one. No I/O happens in the call.
    ///
    /// # Errors
    /// Through [`Slice::phase`]: [`StoreError::Config`] at once, device errors later.
    pub fn format(cfg: SliceConfig) -> Slice {
        Slice::new(cfg, true)
    }

    /// Starts to open a log: newest valid checkpoint, then the log after it. No I/O happens in the call; nothing is
    /// written before everything was read and found sound.
    ///
    /// # Errors
    /// Through [`Slice::phase`].
    pub fn open(cfg: SliceConfig) -> Slice {
        Slice::new(cfg, false)
    }

    fn new(cfg: SliceConfig, format: bool) -> Slice {
        let checked = cfg.check();
        let geometry = checked.unwrap_or(Geometry { segment_blocks: 16, segments: 16 });
        let id = LogId { store: cfg.store, slice: cfg.slice.0 };
        let rules = Rules::new(&cfg.limits);
        let l = &cfg.limits;
        let ops = usize::from(l.batches) + STREAMS + Reads::parts(l) + 2 * usize::from(l.partials) + START_READS + 16;
        let resume = Resume::nowhere();
        let start = if format { Start::format() } else { Start::open() };
        Slice {
            id,
            rules,
            geometry,
            phase: checked.err().map_or(Phase::Starting { done: 0, total: 4 }, Phase::Failed),
            start: Some(Box::new(start)),
            superblock: None,
            port: Port::new(cfg.offset, cfg.token_tag, ops),
            log: Log::new(id, geometry, l, rules, &resume),
            index: Index::new(Room { leaves: 0, slack: 0, volumes: 0, blocks: 0 }),
            segments: Segments::new(Geometry { segment_blocks: 16, segments: 0 }, rules),
            reads: Reads::new(l),
            staging: Staging::new(l),
            volume_ops: VolumeOps::new(),
            trims: Vec::with_capacity(usize::from(l.volumes)),
            checkpoint: Checkpoint::new(),
            cleaner: Cleaner::new(),
            scrub: Scrub::new(l),
            super_writing: Writing::Nothing,
            damage: None,
            counters: Counters::default(),
            ended: Vec::with_capacity(usize::from(l.reads) + usize::from(l.batches) * 128),
            headroom: 0,
            dense: 1,
            sealed_at: Time(0),
            now: Time(0),
            tags: Vec::new(),
            cfg,
        }
    }

    /// Makes the index and segment table for a geometry that is now known.
    pub(super) fn size_for(&mut self, geometry: Geometry) {
        let l = &self.cfg.limits;
        let slack = (usize::from(l.batches) + STREAMS) * self.cfg.payload_max() as usize;
        let auto = geometry.blocks().div_ceil(512) * 5 / 4 + 4096;
        let leaves = if l.index_bytes == 0 { auto } else { l.index_bytes / BLOCK as u64 };
        let blocks = u64::from(geometry.end().0);
        self.geometry = geometry;
        self.dense = dense_blocks(geometry, self.cfg.payload_max());
        self.index = Index::new(Room { leaves: leaves as usize, slack, volumes: usize::from(l.volumes), blocks });
        self.segments = Segments::new(geometry, self.rules);
    }

    /// Where the slice is in its life.
    pub fn phase(&self) -> Phase {
        self.phase
    }
    /// The store's name (from the superblock once that is known).
    pub fn name(&self) -> &super::StoreName {
        self.superblock.as_ref().map_or(&self.cfg.name, |sb| &sb.name)
    }
    /// The volumes, in order of their ids.
    pub fn volumes(&self) -> impl Iterator<Item = &VolumeMeta> {
        self.index.metas()
    }
    /// The smallest volume id that was never used in this slice.
    pub fn volume_floor(&self) -> u32 {
        self.index.floor()
    }

    /// `None` when requests are served; otherwise what a request gets.
    #[inline]
    pub(super) fn refusal(&self, tag: u64) -> Option<Outcome> {
        match self.phase {
            Phase::Ready => None,
            Phase::Starting { .. } => Some(Outcome::Later(None)),
            Phase::Failed(_) | Phase::Dead(_) => Some(Outcome::ended(tag, Status::Gone)),
        }
    }

    /// Everything acknowledged is durable already: ends at once.
    pub fn flush(&mut self, tag: u64) -> Outcome {
        self.refusal(tag).unwrap_or_else(|| Outcome::ended(tag, Status::Ok))
    }

    /// One turn: seals and submits what has been gathered, applies what is stable, and does a bounded amount of
    /// background work. True when there was something to do.
    pub fn step<Q: Queue>(&mut self, now: Time, q: &mut Q, pool: &mut Pool) -> bool {
        self.now = now;
        let mut work = self.port.retry(q);
        match self.phase {
            Phase::Ready => {}
            Phase::Starting { .. } => return self.step_start(q, pool) || work,
            Phase::Failed(_) | Phase::Dead(_) => return work,
        }
        let before = self.ended.len();
        work |= self.settle(q, pool);
        work |= self.step_staging(q, pool);
        work |= self.step_reads(q, pool);
        work |= self.step_trims();
        work |= self.step_checkpoint(q, pool);
        work |= self.step_cleaner(q, pool);
        work |= self.step_scrub(q, pool);
        work |= self.seal_ripe(q, pool);
        work |= self.settle(q, pool);
        self.refresh_headroom();
        work || self.ended.len() > before
    }

    /// The earliest time at which [`Slice::step`] would have something to do without any outside event.
    pub fn wake_at(&self) -> Option<Time> {
        if self.phase != Phase::Ready {
            return None;
        }
        let mark = (self.cfg.limits.mark_idle_ns != 0 && self.log.undeclared())
            .then(|| self.sealed_at.after_ns(self.cfg.limits.mark_idle_ns));
        [mark, self.scrub.wake_at()].into_iter().flatten().min()
    }

    /// A completion whose token carries this slice's tag.
    pub fn done<Q: Queue>(&mut self, now: Time, done: Done, q: &mut Q, pool: &mut Pool) {
        self.now = now;
        self.port.inflight -= 1;
        match Purpose::of(done.token) {
            Purpose::Batch(slot) => self.batch_written(slot, done, pool),
            Purpose::Flush => self.log_flushed(&done, pool),
            Purpose::Read(part) => self.read_done(part, done, q, pool),
            Purpose::Edge(edge) => self.edge_done(edge, done, q, pool),
            Purpose::Walk(0) => self.clean_read_done(done, pool),
            Purpose::Walk(_) => self.scrub_read_done(done, pool),
            Purpose::Super(n) => self.superblock_written(n, done, q, pool),
            Purpose::SuperFlush => self.superblock_flushed(&done, pool),
            Purpose::Start(n) => self.start_done(n, done, pool),
        }
    }

    /// Hands over what has ended since the last call.
    pub fn drain(&mut self, out: &mut Vec<Ended>) {
        out.append(&mut self.ended);
    }

    /// True when nothing is under way at the device, so that the slice may be dropped.
    pub fn is_quiet(&self) -> bool {
        self.port.inflight == 0
    }

    /// Gives every buffer that the slice holds back to the pool; the slice must be quiet and is of no use afterwards.
    pub fn close(&mut self, pool: &mut Pool) {
        assert!(self.is_quiet(), "close a slice only when its device operations have ended");
        self.let_go(pool);
        if let Some(start) = self.start.take() {
            start.release(pool);
        }
    }

    #[inline]
    pub(super) fn end(&mut self, tag: u64, status: Status) {
        self.ended.push(Ended { tag, status, buf: None });
    }

    /// Fail-stop: nothing is acknowledged any more, everything under way ends with `Gone`.
    pub(super) fn die(&mut self, error: StoreError, pool: &mut Pool) {
        match self.phase {
            Phase::Ready => {
                self.phase = Phase::Dead(error);
                self.let_go(pool);
            }
            Phase::Starting { .. } => {
                self.phase = Phase::Failed(error);
                if let Some(start) = self.start.take() {
                    start.release(pool);
                }
            }
            Phase::Failed(_) | Phase::Dead(_) => {}
        }
    }

    fn let_go(&mut self, pool: &mut Pool) {
        let mut tags = std::mem::take(&mut self.tags);
        self.log.abandon(pool, &mut tags);
        self.staging.abandon(pool, &mut tags);
        self.volume_ops.abandon(&mut tags);
        self.checkpoint.abandon(pool, &mut tags);
        self.cleaner.abandon(pool);
        self.scrub.abandon(pool);
        for tag in tags.drain(..) {
            self.end(tag, Status::Gone);
        }
        self.tags = tags;
        self.reads.abandon(&mut self.ended, pool);
    }

    fn batch_written(&mut self, slot: usize, done: Done, pool: &mut Pool) {
        let at = self.log.batch_addr(slot);
        if let Err(error) = self.log.written(slot, done.buf, done.result) {
            let offset = self.port.byte(at.0);
            self.die(StoreError::Device { op: "log write", offset, error }, pool);
        }
        if self.phase != Phase::Ready {
            self.log.abandon(pool, &mut self.tags);
        }
    }

    fn log_flushed(&mut self, done: &Done, pool: &mut Pool) {
        match done.result {
            Ok(()) => self.log.flush_done(),
            Err(error) => self.die(StoreError::Device { op: "flush", offset: 0, error }, pool),
        }
    }

    /// Applies every batch that has become stable.
    pub(super) fn settle<Q: Queue>(&mut self, q: &mut Q, pool: &mut Pool) -> bool {
        let mut work = false;
        self.log.pump(&mut self.port, q);
        while let Some(slot) = self.log.front_stable() {
            self.apply_batch(slot);
            self.log.pop_applied(pool);
            self.log.pump(&mut self.port, q);
            work = true;
        }
        work
    }

    fn apply_batch(&mut self, slot: usize) {
        let batch = self.log.batch(slot);
        let base = batch.addr.plus(1);
        for record in batch.records() {
            let effect = apply(&record, base, &mut self.index, &mut self.segments, self.rules)
                .expect("room for it was kept when it was accepted");
            match effect {
                Effect::Done => {}
                Effect::Shrunk(..) if self.rules.breaks(Planted::ShrinkKeepsBlocks) => {}
                Effect::Shrunk(volume, from, to) => self.trims.push(Trim::new(volume, from, to)),
                Effect::Doomed(volume) => {
                    let blocks = self.index.volume(volume).dirs.len() as u64 * 512 * 512;
                    self.trims.push(Trim::new(volume, 0, blocks));
                }
            }
        }
        self.cleaner.applied(batch.stream, batch.payload());
        let (ends_segment, addr) = (batch.ends_segment, batch.addr);
        for tag in &batch.tags {
            self.ended.push(Ended { tag: *tag, status: Status::Ok, buf: None });
        }
        if ends_segment {
            self.segments.seal(self.geometry.segment(addr));
        }
        self.end_volume_ops(slot);
    }

    fn step_trims(&mut self) -> bool {
        let Some(mut trim) = self.trims.last().copied() else { return false };
        if trim.step(TRIM_LEAVES, &mut self.index, &mut self.segments) {
            self.trims.pop();
            self.end_trimmed(trim.slot);
        } else if let Some(last) = self.trims.last_mut() {
            *last = trim;
        }
        true
    }

    /// Seals what should go out this turn.
    fn seal_ripe<Q: Queue>(&mut self, q: &mut Q, pool: &mut Pool) -> bool {
        let mut work = false;
        while self.log.ripe(Stream::Hot) {
            self.seal(Stream::Hot, q);
            work = true;
        }
        for stream in [Stream::Cold, Stream::Meta] {
            if self.log.ripe(stream) || (self.wants_seal(stream) && self.can_seal(stream)) {
                self.seal(stream, q);
                work = true;
            }
        }
        let idle_ns = self.cfg.limits.mark_idle_ns;
        let due = idle_ns != 0 && self.log.undeclared() && self.now >= self.sealed_at.after_ns(idle_ns);
        if due && self.log.may_seal(Stream::Hot) {
            let reserve = self.reserve();
            if self.log.open(Stream::Hot, reserve, &mut self.segments, pool).is_some() {
                self.seal(Stream::Hot, q);
                work = true;
            }
        }
        work
    }

    fn can_seal(&self, stream: Stream) -> bool {
        !self.log.open_is_empty(stream) && self.log.may_seal(stream)
    }

    fn wants_seal(&self, stream: Stream) -> bool {
        match stream {
            Stream::Hot => false,
            Stream::Cold => self.cleaner.wants_seal(),
            Stream::Meta => self.checkpoint.wants_seal(),
        }
    }

    /// Planted bug: the index switches to a batch that is not yet written.
    fn switch_open(&mut self, stream: Stream) {
        let Some(batch) = self.log.open_batch(stream) else { return };
        for record in batch.records().filter(|r| r.kind == Kind::Data || r.kind == Kind::Zero) {
            let effect = apply(&record, batch.addr.plus(1), &mut self.index, &mut self.segments, self.rules);
            assert_eq!(effect, Ok(Effect::Done), "data and zeroes have no effects");
        }
    }

    pub(super) fn seal<Q: Queue>(&mut self, stream: Stream, q: &mut Q) {
        if self.rules.breaks(Planted::SwitchEarly) {
            self.switch_open(stream);
        }
        self.log.seal(stream, &mut self.segments, &mut self.port, q);
        self.sealed_at = self.now;
    }
}
