//! A whole run: opens the targets, cuts the range between workers, starts a thread for each, watches them, and makes the
//! report. Called by the command line.

mod open;

use super::clock::Clock;
use super::plot;
use super::progress::{EVERY, Progress};
use super::report::{Report, Setting};
use super::store::fill::{self, FillOptions};
use super::store::{Store, StoreOptions, VolumeSize, mapping};
use super::target::{About, Target};
use super::units::ByteRange;
use super::verify::judge::Judge;
use super::verify::ledger::Ledger;
use super::verify::log::{Identity, Log};
use super::verify::{Setup, Verifier};
use super::worker::{Passes, Plan, Results, Shared, Stopped, Worker};
use super::workload::{Pattern, Skew, Spec};
use crate::auth::chap::Algorithm;
use crate::base::BLOCK;
use crate::initiator::url::Url;
use crate::store::Limits;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::time::{Duration, SystemTime};

/// What to drive.
#[derive(Clone, Debug)]
pub enum Source {
    /// A volume behind NVMe/TCP or iSCSI.
    Url(Url),
    /// A device.
    Device(crate::device::Spec),
    /// A slice of the log store on a device.
    Store(crate::device::Spec, StoreRun),
}

/// What a run on a store does beside, or instead of, the plain workload.
#[derive(Clone, Debug)]
pub struct StoreRun {
    /// Make a new, empty store even where there is one.
    pub format: bool,
    /// Size of the volume.
    pub volume: VolumeSize,
    /// Bytes per logical block of a new volume.
    pub lba_bytes: u32,
    /// Measure write amplification at these fills, percent, instead of the plain workload.
    pub fill: Vec<u8>,
    /// Overwrites of the volume at each fill.
    pub overwrites: u32,
    /// Map so many blocks in random order and measure memory and restart, instead of the plain workload.
    pub blocks: Option<u64>,
    /// Limits of the slice.
    pub limits: Limits,
}

impl Default for StoreRun {
    fn default() -> StoreRun {
        StoreRun {
            format: false,
            volume: VolumeSize::Default,
            lba_bytes: 4096,
            fill: Vec::new(),
            overwrites: 3,
            blocks: None,
            limits: Limits::default(),
        }
    }
}

/// What to verify, and how.
#[derive(Clone, Debug, Default)]
pub struct Verify {
    /// Where intents and acknowledgements are kept across runs.
    pub log: Option<PathBuf>,
    /// Read back and check what the log knows, and no more.
    pub only: bool,
    /// Do not read everything back at the end.
    pub no_read_back: bool,
}

/// A run, as asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// What to drive.
    pub source: Source,
    /// Order of accesses.
    pub pattern: Pattern,
    /// Percent of reads.
    pub read_percent: u8,
    /// Name of the two above, for the report.
    pub rw: String,
    /// Bytes per access.
    pub block_bytes: u32,
    /// Requests under way per connection.
    pub depth: u16,
    /// Connections in all.
    pub conns: u16,
    /// Not measured.
    pub warmup: Duration,
    /// Measured.
    pub time: Option<Duration>,
    /// Requests to measure.
    pub count: Option<u64>,
    /// Accesses per second in all.
    pub rate: Option<u64>,
    /// CPUs to pin workers to; empty: one worker, not pinned.
    pub cores: Vec<usize>,
    /// Determines the accesses; `None`: another one every time.
    pub seed: Option<u64>,
    /// Part of the target; `None`: all of it.
    pub range: Option<ByteRange>,
    /// Distribution of random accesses.
    pub skew: Skew,
    /// A Flush after so many writes.
    pub flush_every: u32,
    /// Write the whole range once before measuring.
    pub prefill: bool,
    /// Verify mode.
    pub verify: Option<Verify>,
    /// Ask for header digests.
    pub header_digest: bool,
    /// Ask for data digests.
    pub data_digest: bool,
    /// NVMe/TCP host NQN.
    pub hostnqn: Option<String>,
    /// iSCSI initiator name.
    pub initiator: Option<String>,
    /// Name and secret that an iSCSI target must prove itself with.
    pub chap_target: Option<(String, String)>,
    /// CHAP algorithms to offer to an iSCSI target; empty: all.
    pub chap_algorithms: Vec<Algorithm>,
    /// Longest time for one request.
    pub timeout: Duration,
    /// After a lost connection, connect again for this long.
    pub reconnect: Duration,
    /// Picture of the latencies.
    pub histogram: Option<PathBuf>,
    /// Show a progress bar where stderr is a terminal.
    pub progress: bool,
}

/// A run that could not take place.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The target could not be opened.
    #[error("{0}: {1}")]
    Target(String, String),
    /// The options do not fit the target.
    #[error("{0}")]
    Options(String),
    /// The verify log.
    #[error(transparent)]
    Log(#[from] super::verify::log::LogError),
    /// The picture.
    #[error(transparent)]
    Plot(#[from] plot::PlotError),
    /// A thread or the runtime could not be started.
    #[error("{0}: {1}")]
    System(&'static str, std::io::Error),
}

/// How a run ended, beside its figures.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// As planned.
    Whole,
    /// Interrupted from outside.
    Interrupted,
    /// Requests failed, or the target went away.
    IoErrors,
    /// Data was not what it must be.
    VerifyErrors,
    /// The verify log could not be written.
    LogFailed,
}

/// Runs, and reports.
///
/// # Errors
/// [`RunError`] when the run could not take place; trouble during the run is in the report.
pub fn run(options: &Options) -> Result<(Report, Ending), RunError> {
    let clock = Clock::start();
    match &options.source {
        Source::Url(url) => {
            let addr = open::resolve(url)?;
            let options_ = options.clone();
            match url.clone() {
                Url::Nvme(url) => drive(options, move |i| open::nvme(&options_, &url, addr, i, &clock), clock),
                Url::Iscsi(url) => drive(options, move |i| open::iscsi(&options_, &url, addr, i, &clock), clock),
            }
        }
        Source::Device(spec) => {
            let refused = |e: crate::device::OpenError| RunError::Target(spec.to_string(), e.to_string());
            let medium = crate::device::Medium::open(spec).map_err(refused)?;
            let options_ = options.clone();
            drive(options, move |index| open::device(&options_, &medium, index), clock)
        }
        Source::Store(spec, store) => run_store(options, spec, store, clock),
    }
}

/// Worker `index`'s share of `total` things among `workers`.
fn share(total: u64, index: usize, workers: usize) -> u64 {
    total / workers as u64 + u64::from((index as u64) < total % workers as u64)
}

fn workers(options: &Options) -> usize {
    options.cores.len().clamp(1, usize::from(options.conns))
}

/// A run on a store: the plain workload, or one of the special measurements.
fn run_store(
    options: &Options,
    spec: &crate::device::Spec,
    store: &StoreRun,
    clock: Clock,
) -> Result<(Report, Ending), RunError> {
    if workers(options) > 1 {
        return Err(RunError::Options("a store is driven by one worker: it has one log, and a log one owner".into()));
    }
    let medium = crate::device::Medium::open(spec).map_err(|e| RunError::Target(spec.to_string(), e.to_string()))?;
    let open = StoreOptions {
        format: store.format,
        volume: store.volume,
        lba_bytes: store.lba_bytes,
        depth: u32::from(options.conns) * u32::from(options.depth),
        io_bytes: options.block_bytes,
        limits: store.limits.clone(),
    };
    if store.fill.is_empty() && store.blocks.is_none() {
        let name = spec.to_string();
        let refused = move |e: super::store::OpenStoreError| RunError::Target(name.clone(), e.to_string());
        return drive(options, move |_| Store::open(&medium, &open, &clock).map_err(&refused), clock);
    }
    let refused = |e: super::store::OpenStoreError| RunError::Target(spec.to_string(), e.to_string());
    let seed = options.seed.unwrap_or_else(fresh_number);
    let (shared, name, special_is_fill) = (Shared::new(1), format!("store on {spec}"), store.blocks.is_none());
    let (alive, over) = tokio::sync::mpsc::channel(1);
    let (skew, store, core) = (options.skew, store.clone(), options.cores.first().copied());
    let body = {
        let shared = Arc::clone(&shared);
        move || {
            let _alive: tokio::sync::mpsc::Sender<()> = alive;
            if let Some(id) = core {
                core_affinity::set_for_current(core_affinity::CoreId { id });
            }
            special(&medium, &open, &store, skew, seed, clock, &shared)
        }
    };
    let thread = std::thread::Builder::new().name("bench-0".into()).spawn(body);
    let thread = thread.map_err(|e| RunError::System("thread", e))?;
    watch(&shared, over, options.progress)?;
    let measured = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    // What was run is not what --rw says.
    let rw = if special_is_fill { "fill" } else { "mapping" };
    let options = Options { rw: rw.into(), block_bytes: BLOCK as u32, read_percent: 0, ..options.clone() };
    conclude(&options, &measured.map_err(refused)?, name, 1, seed)
}

/// Write amplification or memory and restart; the figures are in the results.
fn special(
    medium: &crate::device::Medium,
    open: &StoreOptions,
    store: &StoreRun,
    skew: Skew,
    seed: u64,
    clock: Clock,
    shared: &Arc<Shared>,
) -> Result<Results, super::store::OpenStoreError> {
    let (figures, notes, mut results) = if let Some(blocks) = store.blocks {
        let (figures, results) = mapping::measure(medium, open, blocks, seed, &clock, shared)?;
        let notes = figures.iter().map(|f| {
            format!(
                "{} blocks mapped in random order: {:.2} bytes of memory each (index {:.2}); restart {:.0} ms after a crash, {:.0} ms after a clean stop",
                f.blocks, f.rss_per_block, f.index_per_block, f.crash_restart_ms, f.clean_restart_ms
            )
        });
        (serde_json::json!({ "mapping": figures }), notes.collect(), results)
    } else {
        let fill = FillOptions { percents: store.fill.clone(), overwrites: store.overwrites, skew, seed };
        let (figures, results) = fill::measure(medium, open, &fill, &clock, shared)?;
        let notes = figures.iter().map(|f| {
            format!(
                "fill {:>2} % ({:.1} % live): write amplification {:.2}, greedy on uniform {:.2}; {:.0} IOPS, p99.9 {:.0} us",
                f.percent, f.live_percent, f.write_amplification, f.greedy, f.iops, f.p99_9_us
            )
        });
        let notes: Vec<String> = notes.collect();
        (serde_json::json!({ "fill": figures }), notes, results)
    };
    (results.figures, results.notes) = (vec![figures], notes);
    Ok(results)
}

/// The blocks a run uses.
#[derive(Clone, Copy, Debug)]
struct Extent {
    first_lba: u64,
    units: u64,
    unit_blocks: u32,
}

fn extent(options: &Options, about: &About) -> Result<Extent, RunError> {
    let bad = |why: String| Err(RunError::Options(why));
    let (bytes, block) = (options.block_bytes, about.block_size);
    if bytes == 0 || !bytes.is_multiple_of(block) {
        return bad(format!("--bs {bytes} is not a multiple of the target's {block}-byte blocks"));
    }
    if bytes > about.io_bytes_max {
        return bad(format!("--bs {bytes} is more than the target's largest transfer of {} bytes", about.io_bytes_max));
    }
    let size = about.blocks * u64::from(block);
    let range = options.range.unwrap_or(ByteRange { offset: 0, len: size });
    if !range.offset.is_multiple_of(u64::from(block)) {
        return bad(format!("--range starts at {}, not on a block border", range.offset));
    }
    if range.offset >= size || range.len > size - range.offset {
        return bad(format!("--range ends beyond the target's {size} bytes"));
    }
    let units = range.len / u64::from(bytes);
    let workers = workers(options) as u64;
    if units < workers {
        return bad(format!("--range has room for {units} accesses of {bytes} bytes, fewer than there are workers"));
    }
    Ok(Extent { first_lba: range.offset / u64::from(block), units, unit_blocks: bytes / block })
}

fn plan(options: &Options, extent: &Extent, index: usize, count: usize, seed: u64) -> Plan {
    let before: u64 = (0..index).map(|i| share(extent.units, i, count)).sum();
    let ns = |d: Duration| d.as_nanos() as u64;
    let verify = options.verify.as_ref();
    Plan {
        spec: Spec {
            pattern: options.pattern,
            read_percent: options.read_percent,
            skew: options.skew,
            flush_every: options.flush_every,
        },
        unit_blocks: extent.unit_blocks,
        first_lba: extent.first_lba + before * u64::from(extent.unit_blocks),
        units: share(extent.units, index, count),
        depth: share(u64::from(options.conns), index, count) as u32 * u32::from(options.depth),
        seed: seed.wrapping_add((index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)),
        warmup_ns: ns(options.warmup),
        time_ns: options.time.map(ns),
        count: options.count.map(|n| share(n, index, count)),
        rate: options.rate.map(|n| n as f64 / count as f64),
        drain_ns: ns(options.timeout) + 1_000_000_000,
        passes: Passes {
            before: verify.is_some_and(|v| v.log.is_some()),
            prefill: options.prefill && !verify.is_some_and(|v| v.only),
            workload: !verify.is_some_and(|v| v.only),
            after: verify.is_some_and(|v| !v.only && !v.no_read_back),
        },
    }
}

/// A number that no other run bears: of two runs the later must not take the earlier one's data for its own.
fn fresh_number() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64);
    now.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(std::process::id()).rotate_left(40)
}

/// One verifier per worker, each with its blocks of the ledger. Blocks that the log knows outside the range go to the
/// first and the last.
fn verifiers(options: &Options, about: &About, extent: &Extent, plans: &[Plan]) -> Result<Vec<Verifier>, RunError> {
    let Some(verify) = &options.verify else { return Ok(Vec::new()) };
    let blocks = extent.units * u64::from(extent.unit_blocks);
    let volume = about.identity;
    let id = Identity { volume, block_size: about.block_size, writer: fresh_number(), first: extent.first_lba, blocks };
    let (log, mut ledger, writer, run) = match &verify.log {
        Some(path) => {
            let opened = Log::open(path, id)?;
            (Some(opened.log), opened.ledger, opened.writer, opened.run)
        }
        None => (None, Ledger::new(id.first, id.blocks), id.writer, 0),
    };
    if ledger.first() + ledger.len() > about.blocks {
        return Err(RunError::Options("the verify log knows blocks beyond the end of the target".into()));
    }
    let mut out = Vec::new();
    for (index, _) in plans.iter().enumerate().rev() {
        let mine = if index == 0 {
            std::mem::replace(&mut ledger, Ledger::new(0, 0))
        } else {
            ledger.split_off(plans[index].first_lba)
        };
        let log = log.as_ref().map(Log::duplicate).transpose()?;
        let worker = (index as u16, plans.len() as u16);
        let judge = Judge { volume, writer };
        out.push(Verifier::new(Setup { judge, block_size: about.block_size, ledger: mine, log, run, worker }));
    }
    out.reverse();
    Ok(out)
}

/// What a worker thread is given once the main thread has seen every worker's target.
type Orders = (Plan, Option<Verifier>);

/// One thread per worker: each opens its own target (nets and queues stay on the thread that made them), tells what it
/// found, gets its orders and runs.
fn drive<T, O>(options: &Options, open: O, clock: Clock) -> Result<(Report, Ending), RunError>
where
    T: Target,
    O: Fn(usize) -> Result<T, RunError> + Send + Sync + 'static,
{
    let (count, seed) = (workers(options), options.seed.unwrap_or_else(fresh_number));
    let (shared, open) = (Shared::new(count), Arc::new(open));
    let (alive, over) = tokio::sync::mpsc::channel(1);
    let mut threads = Vec::with_capacity(count);
    let mut desks = Vec::with_capacity(count);
    for index in 0..count {
        let (found, abouts) = mpsc::channel();
        let (orders, inbox) = mpsc::channel::<Orders>();
        let (open, shared, alive) = (Arc::clone(&open), Arc::clone(&shared), alive.clone());
        let core = options.cores.get(index).copied();
        let body = move || {
            if let Some(id) = core {
                // Not being pinned costs accuracy only; the kernel may forbid it.
                core_affinity::set_for_current(core_affinity::CoreId { id });
            }
            let _alive = alive;
            work(&*open, index, &found, &inbox, clock, shared)
        };
        let thread = std::thread::Builder::new().name(format!("bench-{index}")).spawn(body);
        threads.push(thread.map_err(|e| RunError::System("thread", e))?);
        desks.push((abouts, orders));
    }
    let gone = || RunError::System("worker", std::io::ErrorKind::BrokenPipe.into());
    let abouts: Vec<About> =
        desks.iter().map(|(abouts, _)| abouts.recv().map_err(|_| gone())?).collect::<Result<_, RunError>>()?;
    let about = abouts.into_iter().next().ok_or_else(gone)?;
    let extent = extent(options, &about)?;
    let plans: Vec<Plan> = (0..count).map(|index| plan(options, &extent, index, count, seed)).collect();
    let mut verifiers = verifiers(options, &about, &extent, &plans)?.into_iter();
    for ((_, orders), plan) in desks.iter().zip(plans) {
        orders.send((plan, verifiers.next())).map_err(|_| gone())?;
    }
    drop(alive);
    watch(&shared, over, options.progress)?;
    let mut results = Results::default();
    for thread in threads {
        results.merge(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
    }
    conclude(options, &results, about.name, count, seed)
}

/// The life of a worker thread.
fn work<T: Target>(
    open: &dyn Fn(usize) -> Result<T, RunError>,
    index: usize,
    found: &mpsc::Sender<Result<About, RunError>>,
    inbox: &mpsc::Receiver<Orders>,
    clock: Clock,
    shared: Arc<Shared>,
) -> Results {
    let nothing = Results::default();
    let mut target = match open(index) {
        Ok(target) => target,
        Err(e) => {
            // Nobody listens only when another worker's error has ended the run already.
            let _ = found.send(Err(e));
            return nothing;
        }
    };
    if found.send(Ok(target.about().clone())).is_err() {
        return nothing;
    }
    // Reading a large log takes a while; the association is kept alive meanwhile.
    let (plan, verifier) = loop {
        match inbox.recv_timeout(Duration::from_millis(1)) {
            Ok(orders) => break orders,
            Err(mpsc::RecvTimeoutError::Disconnected) => return nothing,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                // A target that dies here is found dead by the worker.
                let _ = target.poll(clock.now(), &mut Vec::new());
                target.kick(clock.now());
            }
        }
    };
    Worker::new(target, plan, verifier, clock, shared, index).run()
}

/// Held by every worker thread; when the last one is gone, all workers are over.
type Alive = tokio::sync::mpsc::Receiver<()>;

/// Waits for the workers, shows where they are, and passes an interrupt on.
fn watch(shared: &Shared, mut over: Alive, show: bool) -> Result<(), RunError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| RunError::System("runtime", e))?;
    let mut progress = Progress::new(show);
    // Without a bar there is nothing to wake up for but the end.
    let every = if progress.is_shown() { EVERY } else { Duration::from_hours(1) };
    runtime.block_on(async {
        loop {
            tokio::select! {
                _ = over.recv() => break,
                () = tokio::time::sleep(every) => {}
                Ok(()) = tokio::signal::ctrl_c() => {
                    if shared.stop.swap(true, Ordering::Relaxed) {
                        std::process::exit(130);
                    }
                }
            }
            progress.update(shared);
        }
    });
    progress.finish();
    Ok(())
}

fn conclude(
    options: &Options,
    results: &Results,
    target: String,
    workers: usize,
    seed: u64,
) -> Result<(Report, Ending), RunError> {
    let setting = Setting {
        target,
        rw: options.rw.clone(),
        read_percent: options.read_percent,
        block_bytes: options.block_bytes,
        queue_depth: u32::from(options.depth),
        connections: u32::from(options.conns),
        workers: workers as u32,
        seed,
    };
    if let Some(file) = &options.histogram {
        let title =
            format!("{} {} bytes, depth {} x {}", setting.rw, setting.block_bytes, options.depth, options.conns);
        plot::histogram(file, &title, &[("read", &results.read), ("write", &results.write)])?;
    }
    let ending = match &results.stopped {
        _ if results.findings.damaged > 0 => Ending::VerifyErrors,
        Some(Stopped::Log(_)) => Ending::LogFailed,
        Some(Stopped::Dead(_) | Stopped::Unanswered(_)) => Ending::IoErrors,
        _ if results.errors > 0 => Ending::IoErrors,
        Some(Stopped::Asked) => Ending::Interrupted,
        None => Ending::Whole,
    };
    Ok((Report::new(results, setting, options.verify.is_some()), ending))
}

#[cfg(test)]
pub(super) mod tests;
