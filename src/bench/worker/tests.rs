//! The loop against a model target: a memory disk that answers late and out of order, and misbehaves on request.

use super::*;
use crate::base::{CoreId, Status};
use crate::bench::target::{About, Dead};
use crate::bench::verify::judge::Judge;
use crate::bench::verify::ledger::Ledger;
use crate::bench::verify::{Setup, judge::DamageKind};
use crate::bench::workload::{Pattern, Skew};
use crate::mem::{Class, Pool};

const BLOCK: usize = 512;

/// How the model misbehaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Honest,
    /// Every n-th write is acknowledged and dropped.
    DropWrites(u64),
    /// Every n-th write lands one unit further.
    Misdirect(u64),
    /// Every n-th read comes back with one bit flipped.
    FlipBits(u64),
    /// Every n-th request fails.
    Fail(u64),
    /// After n requests the target is gone.
    Die(u64),
    /// After n requests nothing is answered.
    Silence(u64),
}

struct Model {
    about: About,
    pool: Pool,
    disk: Vec<u8>,
    waiting: Vec<(Request, Option<Buf>)>,
    rng: Rng,
    fate: Fate,
    served: u64,
    refuse: bool,
    /// Writes under way, and whether two to one place are a fault of the engine (in verify mode they are).
    writing: std::collections::HashSet<u64>,
    exclusive: bool,
    kicked: usize,
}

impl Model {
    fn new(blocks: u64, depth: u32, fate: Fate) -> Model {
        let io_bytes_max = 8192;
        let about = About { block_size: 512, blocks, io_bytes_max, depth, name: "model".into(), identity: 3 };
        let pool = Pool::standalone(CoreId(0), &[Class { size: 8192, count: depth as usize }]).unwrap();
        let disk = vec![0; blocks as usize * BLOCK];
        let writing = std::collections::HashSet::new();
        Model {
            about,
            pool,
            disk,
            waiting: Vec::new(),
            rng: Rng::new(1),
            fate,
            served: 0,
            refuse: false,
            writing,
            exclusive: false,
            kicked: 0,
        }
    }

    fn serve(&mut self, request: Request, payload: Option<Buf>) -> Completed {
        self.served += 1;
        let hit = |n: u64| self.served.is_multiple_of(n);
        let at = request.lba as usize * BLOCK;
        let len = request.blocks as usize * BLOCK;
        let slot = request.slot;
        if matches!(self.fate, Fate::Fail(n) if hit(n)) {
            if let Some(buf) = payload {
                self.writing.remove(&request.lba);
                self.pool.put(buf);
            }
            return Completed { slot, result: Err(Fault::Status(Status::MediaError)), buf: None };
        }
        let mut out = None;
        match (request.kind, payload) {
            (Kind::Write, Some(buf)) => {
                self.writing.remove(&request.lba);
                let to = match self.fate {
                    Fate::DropWrites(n) if hit(n) => None,
                    Fate::Misdirect(n) if hit(n) => Some((at + len) % self.disk.len()),
                    _ => Some(at),
                };
                if let Some(to) = to {
                    self.disk[to..to + len].copy_from_slice(&buf);
                }
                self.pool.put(buf);
            }
            (Kind::Read, None) => {
                if request.want_data {
                    let mut buf = self.pool.get(len).unwrap();
                    buf.copy_from_slice(&self.disk[at..at + len]);
                    if matches!(self.fate, Fate::FlipBits(n) if hit(n)) {
                        buf[77] ^= 0x10;
                    }
                    out = Some(buf);
                }
            }
            (Kind::Flush, None) => {}
            (kind, payload) => panic!("{kind:?} with {payload:?}"),
        }
        Completed { slot, result: Ok(()), buf: out }
    }
}

impl Target for Model {
    fn about(&self) -> &About {
        &self.about
    }
    fn pool(&mut self) -> &mut Pool {
        &mut self.pool
    }
    fn submit(&mut self, request: Request, payload: Option<Buf>) -> Result<(), Option<Buf>> {
        self.refuse = !self.refuse;
        if self.refuse && self.rng.chance(30) {
            return Err(payload);
        }
        assert!(request.slot < self.about.depth);
        assert!(self.waiting.iter().all(|(r, _)| r.slot != request.slot), "a slot is used once at a time");
        if request.kind == Kind::Write {
            let alone = self.writing.insert(request.lba);
            assert!(alone || !self.exclusive, "two writes under way to {}", request.lba);
        }
        self.waiting.push((request, payload));
        Ok(())
    }
    fn kick(&mut self, _: Time) {
        self.kicked = self.waiting.len();
    }
    fn poll(&mut self, _: Time, done: &mut Vec<Completed>) -> Result<(), Dead> {
        if matches!(self.fate, Fate::Silence(n) if self.served >= n) {
            return Ok(());
        }
        if matches!(self.fate, Fate::Die(n) if self.served >= n) {
            for (request, payload) in self.waiting.drain(..) {
                if let Some(buf) = payload {
                    self.pool.put(buf);
                }
                done.push(Completed { slot: request.slot, result: Err(Fault::Lost), buf: None });
            }
            return Err(Dead("connection lost".into()));
        }
        for _ in 0..self.rng.below(4) {
            let kicked = self.kicked.min(self.waiting.len());
            if kicked == 0 {
                break;
            }
            let at = self.rng.below(kicked as u64) as usize;
            let (request, payload) = self.waiting.remove(at);
            self.kicked -= 1;
            let completed = self.serve(request, payload);
            done.push(completed);
        }
        Ok(())
    }
}

fn plan(pattern: Pattern, read_percent: u8, count: u64) -> Plan {
    Plan {
        spec: Spec { pattern, read_percent, skew: Skew::Uniform, flush_every: 7 },
        unit_blocks: 8,
        first_lba: 16,
        units: 50,
        depth: 8,
        seed: 4,
        warmup_ns: 0,
        time_ns: None,
        count: Some(count),
        rate: None,
        drain_ns: 50_000_000,
        passes: Passes { before: false, prefill: false, workload: true, after: true },
    }
}

fn run(model: &mut Model, plan: Plan, verify: bool) -> Results {
    let verifier = verify.then(|| {
        let judge = Judge { volume: model.about.identity, writer: 9 };
        let ledger = Ledger::new(plan.first_lba, plan.units * u64::from(plan.unit_blocks));
        Verifier::new(Setup { judge, block_size: 512, ledger, log: None, run: 1, worker: (0, 1) })
    });
    model.exclusive = verify;
    let shared = Shared::new(1);
    let results = Worker::new(&mut *model, plan, verifier, Clock::start(), shared.clone(), 0).run();
    assert!(
        model.pool.stats().all(|s| s.free == s.total) || matches!(model.fate, Fate::Silence(_)),
        "no buffer is lost"
    );
    assert_eq!(shared.gauges[0].read().stage, Stage::Over);
    results
}

#[test]
fn counts_are_exact_and_an_honest_target_passes() {
    for pattern in [Pattern::Random, Pattern::Sequential] {
        for (percent, verify) in [(0, true), (50, true), (100, true), (50, false)] {
            let mut model = Model::new(500, 8, Fate::Honest);
            let r = run(&mut model, plan(pattern, percent, 2000), verify);
            assert!(r.stopped.is_none() && r.errors == 0, "{:?}", r.stopped);
            assert_eq!(r.read.ops + r.write.ops, 2000);
            assert_eq!(r.read.bytes + r.write.bytes, 2000 * 4096);
            assert_eq!(r.read.samples() + r.write.samples(), 2000);
            assert_eq!(r.findings.damaged, 0, "{:?}", r.findings.described);
            assert_eq!(r.findings.checked > 0, verify && percent < 100);
            assert!(r.window_ns > 0);
            assert_eq!(r.flush.ops > 0, percent < 100);
        }
    }
}

#[test]
fn each_misdeed_is_found_by_its_name() {
    let cases = [
        (Fate::DropWrites(40), vec![DamageKind::Lost, DamageKind::Stale]),
        (Fate::Misdirect(40), vec![DamageKind::Misdirected, DamageKind::Lost, DamageKind::Stale]),
        (Fate::FlipBits(40), vec![DamageKind::BitFlip]),
    ];
    for (fate, expected) in cases {
        for percent in [0, 50] {
            let mut model = Model::new(500, 8, fate);
            let r = run(&mut model, plan(Pattern::Random, percent, 2000), true);
            assert!(r.findings.damaged > 0, "{fate:?} was not noticed at {percent}% reads");
            for d in &r.findings.described {
                assert!(expected.contains(&d.kind), "{fate:?}: {d}");
            }
        }
    }
}

#[test]
fn a_prefill_writes_everything_once_and_is_not_measured() {
    let mut model = Model::new(500, 8, Fate::Honest);
    let mut p = plan(Pattern::Random, 100, 300);
    p.passes.prefill = true;
    let r = run(&mut model, p, true);
    assert_eq!((r.write.ops, r.write.samples(), r.read.ops, r.errors), (0, 0, 300, 0));
    assert_eq!(r.findings.unknown, 0, "nothing is left unwritten");
    assert_eq!(r.findings.checked, (300 + 50) * 8);
    assert!(model.disk[..16 * BLOCK].iter().all(|b| *b == 0), "nothing outside the part is touched");
}

#[test]
fn failures_are_counted_by_reason_and_leave_both_generations_allowed() {
    let mut model = Model::new(500, 8, Fate::Fail(10));
    let r = run(&mut model, plan(Pattern::Random, 30, 2000), true);
    assert!(r.errors > 150);
    assert_eq!(r.error_kinds, BTreeMap::from([("MediaError".to_owned(), r.errors)]));
    assert_eq!(r.findings.damaged, 0);
    assert!(r.stopped.is_none());
}

#[test]
fn a_dead_target_ends_the_run_with_what_is_known() {
    let mut model = Model::new(500, 8, Fate::Die(500));
    let r = run(&mut model, plan(Pattern::Random, 50, 2000), true);
    assert!(matches!(&r.stopped, Some(Stopped::Dead(why)) if why == "connection lost"), "{:?}", r.stopped);
    assert!(r.read.ops + r.write.ops > 300 && r.errors > 0 && r.window_ns > 0);
    assert_eq!(r.findings.damaged, 0);
}

#[test]
fn a_silent_target_does_not_hang_the_run() {
    let mut model = Model::new(500, 8, Fate::Silence(500));
    let mut p = plan(Pattern::Random, 50, 0);
    (p.count, p.time_ns) = (None, Some(20_000_000));
    let r = run(&mut model, p, true);
    assert!(matches!(r.stopped, Some(Stopped::Unanswered(8))), "{:?}", r.stopped);
    assert_eq!(r.errors, 8);
}

#[test]
fn stop_is_heeded_and_a_timed_run_ends_on_time() {
    let mut model = Model::new(500, 8, Fate::Honest);
    let mut p = plan(Pattern::Random, 50, 0);
    (p.count, p.time_ns, p.warmup_ns) = (None, Some(30_000_000), 5_000_000);
    let r = run(&mut model, p.clone(), false);
    assert!(r.stopped.is_none());
    assert_eq!(r.window_ns, 30_000_000);
    assert!(r.busy_ns > 0 && r.busy_ns <= r.window_ns * 2);

    p.time_ns = Some(60_000_000_000);
    let shared = Shared::new(1);
    shared.stop.store(true, Ordering::Relaxed);
    let r = Worker::new(&mut model, p, None, Clock::start(), shared, 0).run();
    assert!(matches!(r.stopped, Some(Stopped::Asked)));
}

#[test]
fn a_rate_is_kept_and_latency_counts_from_when_a_request_was_due() {
    let mut model = Model::new(500, 8, Fate::Honest);
    let mut p = plan(Pattern::Random, 100, 0);
    (p.count, p.time_ns, p.rate) = (None, Some(50_000_000), Some(10_000.0));
    let r = run(&mut model, p.clone(), false);
    assert!((400..=501).contains(&r.read.ops), "{} requests in 50 ms at 10000/s", r.read.ops);
    // Far beyond what can be done: the lag shows as latency.
    p.rate = Some(1e9);
    let r = run(&mut model, p, false);
    assert!(r.read.summary().max > 10_000.0, "{:?}", r.read.summary());
}
