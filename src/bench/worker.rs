//! The loop of one worker: keeps a target's queue full, times every request, and holds what is read to what was written.
//! Generic over the [`Target`]; every mode of `pollux bench` runs through it. One worker owns one thread, one target and
//! one contiguous part of the range; workers share only [`Shared`].
//!
//! A turn is: poll, read the clock once, account for what ended, issue what is due, write the verify log, kick. The
//! latency of a request runs from the turn that issued it (with a rate: from when it was due, so that a stalled target
//! can not hide its stall by slowing the load) to the turn that found it ended.

mod stages;

use super::clock::Clock;
use super::latency::Recorder;
use super::target::{Completed, Fault, Kind, Request, Target};
use super::verify::log::LogError;
use super::verify::{Findings, Verifier};
use super::workload::{Pace, Spec, Workload};
use crate::base::Time;
use crate::base::ring::Ring;
use crate::base::rng::Rng;
use crate::mem::Buf;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

/// Empty polls after which the thread offers its core to others: costs nothing when nobody wants it, and lets a target
/// on the same core run.
const YIELD_AFTER: u32 = 256;

/// What one worker is to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Kind of accesses.
    pub spec: Spec,
    /// Blocks per access.
    pub unit_blocks: u32,
    /// First block of this worker's part.
    pub first_lba: u64,
    /// Accesses that fit the part, at least 1.
    pub units: u64,
    /// Requests kept under way.
    pub depth: u32,
    /// Determines the sequence of accesses.
    pub seed: u64,
    /// Not measured, ns.
    pub warmup_ns: u64,
    /// Measured, ns; `None`: until `count`.
    pub time_ns: Option<u64>,
    /// Requests to measure; `None`: until `time_ns`.
    pub count: Option<u64>,
    /// Accesses per second at most; `None`: as many as go.
    pub rate: Option<f64>,
    /// Longest wait for requests still under way at the end, ns.
    pub drain_ns: u64,
    /// Which parts of a run with a verifier take place.
    pub passes: Passes,
}

/// Which parts of a run take place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Passes {
    /// Read back everything the log knows before anything else.
    pub before: bool,
    /// Write the whole part once before measuring.
    pub prefill: bool,
    /// The workload itself.
    pub workload: bool,
    /// Read back everything written at the end.
    pub after: bool,
}

/// Where a worker is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Stage {
    /// Reading back what earlier runs wrote.
    ReadBefore,
    /// Writing the whole range once.
    Prefill,
    /// Load, not yet measured.
    Warmup,
    /// Load.
    Timed,
    /// Reading back what was written.
    ReadAfter,
    /// Done.
    Over,
}

impl Stage {
    const ALL: [Stage; 6] =
        [Stage::ReadBefore, Stage::Prefill, Stage::Warmup, Stage::Timed, Stage::ReadAfter, Stage::Over];
}

/// What a worker lets others see of itself, on a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Gauge {
    stage: AtomicU8,
    done: AtomicU64,
    total: AtomicU64,
    ops: AtomicU64,
}

/// What a [`Gauge`] showed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reading {
    /// Where the worker is.
    pub stage: Stage,
    /// Steps done in the stage: nanoseconds, requests or blocks.
    pub done: u64,
    /// Steps in all; 0 when not known.
    pub total: u64,
    /// Requests measured so far.
    pub ops: u64,
}

impl Gauge {
    /// What the worker last published.
    pub fn read(&self) -> Reading {
        let stage = Stage::ALL[usize::from(self.stage.load(Ordering::Relaxed)).min(Stage::ALL.len() - 1)];
        let load = |n: &AtomicU64| n.load(Ordering::Relaxed);
        Reading { stage, done: load(&self.done), total: load(&self.total), ops: load(&self.ops) }
    }
}

/// What all workers of a run share.
#[derive(Debug)]
pub struct Shared {
    /// Set to make every worker end early, with what it has.
    pub stop: AtomicBool,
    /// One per worker.
    pub gauges: Vec<Gauge>,
}

impl Shared {
    /// For `workers` workers.
    pub fn new(workers: usize) -> Arc<Shared> {
        let gauges = (0..workers).map(|_| Gauge::default()).collect();
        Arc::new(Shared { stop: AtomicBool::new(false), gauges })
    }
}

/// Why a worker stopped before its plan was done.
#[derive(Debug, thiserror::Error)]
pub enum Stopped {
    /// The target is gone.
    #[error("{0}")]
    Dead(String),
    /// The verify log can not be written.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Somebody asked for it.
    #[error("interrupted")]
    Asked,
    /// Requests were still unanswered at the end.
    #[error("{0} requests were never answered")]
    Unanswered(usize),
}

/// What one worker did; merged over workers.
#[derive(Debug, Default)]
pub struct Results {
    /// Reads.
    pub read: Recorder,
    /// Writes.
    pub write: Recorder,
    /// Flushes; their bytes are 0.
    pub flush: Recorder,
    /// Measured time, ns (of the longest-running worker).
    pub window_ns: u64,
    /// Requests that failed, measured or not.
    pub errors: u64,
    /// Failed requests by reason.
    pub error_kinds: BTreeMap<String, u64>,
    /// What verification found.
    pub findings: Findings,
    /// Blocks read back before and after the workload.
    pub read_back: u64,
    /// Part of the measured time in turns that did something; near 1 means that the client itself was the limit.
    pub busy_ns: u64,
    /// Measured time summed over workers, ns.
    pub turns_ns: u64,
    /// Why it ended early; the first worker's reason.
    pub stopped: Option<Stopped>,
    /// [`Target::figures`] of each worker's target.
    pub figures: Vec<serde_json::Value>,
    /// [`Target::notes`] of each worker's target.
    pub notes: Vec<String>,
}

impl Results {
    /// Adds another worker's results.
    pub fn merge(&mut self, other: Results) {
        self.read.merge(&other.read);
        self.write.merge(&other.write);
        self.flush.merge(&other.flush);
        self.window_ns = self.window_ns.max(other.window_ns);
        self.errors += other.errors;
        for (kind, count) in other.error_kinds {
            *self.error_kinds.entry(kind).or_default() += count;
        }
        self.findings.merge(other.findings);
        self.read_back += other.read_back;
        self.busy_ns += other.busy_ns;
        self.turns_ns += other.turns_ns;
        self.stopped = self.stopped.take().or(other.stopped);
        self.figures.extend(other.figures);
        self.notes.extend(other.notes);
    }
}

/// A request under way.
#[derive(Clone, Copy, Debug)]
struct Slot {
    kind: Kind,
    blocks: u32,
    lba: u64,
    started: Time,
}

/// One worker.
pub struct Worker<T: Target> {
    target: T,
    plan: Plan,
    clock: Clock,
    shared: Arc<Shared>,
    index: usize,
    workload: Workload,
    verifier: Option<Verifier>,
    slots: Vec<Slot>,
    idle: Ring<u32>,
    /// A request the target had no room for.
    deferred: Option<(Request, Option<Buf>)>,
    /// Per slot, the oldest generation each block of a read may have.
    floors: Vec<u32>,
    done: Vec<Completed>,
    block_bytes: usize,
    window: Window,
    empty_polls: u32,
    now: Time,
    results: Results,
}

/// The measured stretch of time.
#[derive(Clone, Copy, Debug)]
struct Window {
    start: Time,
    end: Time,
    last_done: Time,
}

impl<T: Target> Worker<T> {
    /// A worker that drives `target` by `plan`. `index` is its place in `shared`.
    pub fn new(
        target: T,
        plan: Plan,
        verifier: Option<Verifier>,
        clock: Clock,
        shared: Arc<Shared>,
        index: usize,
    ) -> Self {
        assert!(plan.depth > 0 && plan.depth <= target.about().depth, "depth within the target's");
        assert!(plan.time_ns.is_some() || plan.count.is_some(), "a plan that never ends");
        let depth = plan.depth as usize;
        let mut idle = Ring::new(depth);
        for slot in 0..plan.depth {
            idle.push(slot).expect("as many as fit");
        }
        let never = Time(u64::MAX);
        let floors = if verifier.is_some() { depth * plan.unit_blocks as usize } else { 0 };
        Worker {
            workload: Workload::new(plan.spec, plan.units, plan.seed),
            block_bytes: target.about().block_size as usize,
            slots: vec![Slot { kind: Kind::Flush, blocks: 0, lba: 0, started: never }; depth],
            idle,
            deferred: None,
            floors: vec![0; floors],
            done: Vec::with_capacity(depth),
            window: Window { start: never, end: never, last_done: Time(0) },
            empty_polls: 0,
            now: clock.now(),
            results: Results::default(),
            target,
            plan,
            clock,
            shared,
            index,
            verifier,
        }
    }

    /// Runs the whole plan. Never fails: what went wrong is in the results.
    pub fn run(mut self) -> Results {
        self.fill_buffers();
        let ended = self.stages();
        let unanswered = self.drain();
        self.results.stopped = ended.err().or(unanswered);
        if let Some(mut verifier) = self.verifier.take() {
            if let Err(e) = verifier.write_log() {
                self.results.stopped.get_or_insert(Stopped::Log(e));
            }
            self.results.findings = verifier.findings;
        }
        self.results.figures.extend(self.target.figures());
        self.results.notes = self.target.notes();
        self.publish(Stage::Over, 1, 1);
        self.results
    }

    /// Random bytes into every buffer once: plain writes send whatever their buffer holds.
    fn fill_buffers(&mut self) {
        let len = self.plan.unit_blocks as usize * self.block_bytes;
        let mut rng = Rng::new(self.plan.seed ^ 0x6275_6666);
        let pool = self.target.pool();
        let mut taken = Vec::new();
        while let Some(mut buf) = pool.get(len) {
            rng.fill(&mut buf);
            taken.push(buf);
        }
        for buf in taken {
            pool.put(buf);
        }
    }

    /// Polls and accounts for everything that ended. Sets `now`.
    fn reap(&mut self) -> Result<(), Stopped> {
        let polled = self.target.poll(self.now, &mut self.done);
        let before = self.now;
        self.now = self.clock.now();
        if self.done.is_empty() {
            self.empty_polls += 1;
            if self.empty_polls.is_multiple_of(YIELD_AFTER) {
                std::thread::yield_now();
            }
        } else {
            self.empty_polls = 0;
            if before >= self.window.start && before < self.window.end {
                self.results.busy_ns += self.now.since(before);
            }
        }
        let mut done = std::mem::take(&mut self.done);
        for completed in done.drain(..) {
            self.complete(completed);
        }
        self.done = done;
        if self.empty_polls.is_multiple_of(YIELD_AFTER) && self.shared.stop.load(Ordering::Relaxed) {
            return Err(Stopped::Asked);
        }
        polled.map_err(|dead| Stopped::Dead(dead.0))
    }

    fn complete(&mut self, completed: Completed) {
        let at = completed.slot as usize;
        let slot = self.slots[at];
        self.idle.push(completed.slot).expect("a slot completes once");
        if let Err(fault) = completed.result {
            self.failed(fault);
        } else {
            self.measure(&slot);
        }
        if let Some(verifier) = &mut self.verifier {
            match (slot.kind, &completed.buf) {
                (Kind::Write, _) => verifier.end_write(slot.lba, slot.blocks, completed.result.is_ok()),
                (Kind::Read, Some(buf)) => {
                    let from = at * self.plan.unit_blocks as usize;
                    verifier.end_read(slot.lba, &self.floors[from..from + slot.blocks as usize], buf);
                }
                (Kind::Read | Kind::Flush, _) => {}
            }
        }
        if let Some(buf) = completed.buf {
            self.target.pool().put(buf);
        }
    }

    fn failed(&mut self, fault: Fault) {
        self.results.errors += 1;
        *self.results.error_kinds.entry(fault.to_string()).or_default() += 1;
    }

    fn measure(&mut self, slot: &Slot) {
        if self.now < self.window.start {
            return;
        }
        let recorder = match slot.kind {
            Kind::Read => &mut self.results.read,
            Kind::Write => &mut self.results.write,
            Kind::Flush => &mut self.results.flush,
        };
        if slot.started >= self.window.start {
            recorder.latency(self.now.since(slot.started));
        }
        if self.now <= self.window.end {
            recorder.ops += 1;
            recorder.bytes += u64::from(slot.blocks) * self.block_bytes as u64;
            self.window.last_done = self.now;
        }
    }

    /// Starts one request in the next idle slot (there must be one). `started` is where its latency begins.
    fn start(&mut self, kind: Kind, lba: u64, blocks: u32, started: Time) {
        let slot = self.idle.pop().expect("the caller saw an idle slot");
        let len = blocks as usize * self.block_bytes;
        let payload = (kind == Kind::Write).then(|| self.target.pool().get(len).expect("a buffer for every slot"));
        self.slots[slot as usize] = Slot { kind, blocks, lba, started };
        let mut request = Request { kind, lba, blocks, slot, want_data: false };
        let payload = match (&mut self.verifier, payload) {
            (Some(verifier), Some(mut buf)) => {
                verifier.begin_write(lba, blocks, &mut buf);
                Some(buf)
            }
            (Some(verifier), None) if kind == Kind::Read => {
                let from = slot as usize * self.plan.unit_blocks as usize;
                verifier.begin_read(lba, &mut self.floors[from..from + blocks as usize]);
                request.want_data = true;
                None
            }
            (_, payload) => payload,
        };
        self.deferred = Some((request, payload));
    }

    /// Hands the deferred request to the target. True when none is left.
    fn hand_over(&mut self) -> bool {
        let Some((request, payload)) = self.deferred.take() else { return true };
        match self.target.submit(request, payload) {
            Ok(()) => true,
            Err(payload) => {
                self.deferred = Some((request, payload));
                false
            }
        }
    }

    /// True when a request may be started: a slot is idle and nothing waits before it.
    fn may_start(&mut self) -> bool {
        self.hand_over() && !self.idle.is_empty()
    }

    /// Ends a turn: what was noted goes to the log, then what was queued goes out.
    fn kick(&mut self) -> Result<(), Stopped> {
        if let Some(verifier) = &mut self.verifier {
            verifier.write_log()?;
        }
        self.target.kick(self.now);
        Ok(())
    }

    fn under_way(&self) -> usize {
        self.slots.len() - self.idle.len()
    }

    fn publish(&self, stage: Stage, done: u64, total: u64) {
        let gauge = &self.shared.gauges[self.index];
        gauge.stage.store(stage as u8, Ordering::Relaxed);
        gauge.done.store(done, Ordering::Relaxed);
        gauge.total.store(total, Ordering::Relaxed);
        gauge.ops.store(self.results.read.ops + self.results.write.ops, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
