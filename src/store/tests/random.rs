//! Random requests against the model, with crashes at random points.

use super::harness::{Harness, meta};
use crate::base::rng::Rng;
use crate::base::{CHUNK, Status};
use crate::store::Limits;

const VOLUME_BYTES: u64 = 5 << 19;

#[derive(Clone)]
struct Run {
    seed: u64,
    segments: u64,
    volatile: bool,
    memory: bool,
    depth: usize,
    steps: u32,
    crash_percent: u64,
    limits: Limits,
}

fn pick_range(rng: &mut Rng) -> (u64, u64) {
    let limit = VOLUME_BYTES / 512;
    let first = if rng.chance(50) { rng.below(200) } else { rng.below(limit) };
    let chunk_end = (first * 512 / CHUNK + 1) * CHUNK / 512;
    let max = (chunk_end.min(limit) - first).min(if rng.chance(10) { 300 } else { 40 });
    let mut sectors = 1 + rng.below(max);
    let mut first = first;
    if rng.chance(60) {
        first &= !7;
        sectors = sectors.next_multiple_of(8).min(chunk_end.min(limit) - first);
    }
    (first, sectors)
}

fn run(r: &Run) {
    let mut limits = r.limits.clone();
    limits.checkpoint_bytes = 1 << 20;
    limits.fill_percent = 80;
    let mut h = Harness::new(r.segments, limits, r.volatile, r.memory, r.seed);
    let mut rng = Rng::new(r.seed ^ 0xabcd);
    for id in 1..=2 {
        assert_eq!(h.set_volume(meta(id, VOLUME_BYTES)), Status::Ok);
    }
    for step in 0..r.steps {
        let volume = 1 + rng.below(2) as u32;
        let (first, sectors) = pick_range(&mut rng);
        match rng.below(100) {
            0..60 => drop(h.write(volume, first, sectors)),
            60..75 => drop(h.read(volume, first, sectors)),
            75..90 => drop(h.zero(volume, first, sectors)),
            90..91 => {
                let tag = h.tag();
                let outcome = h.slice.checkpoint(tag);
                h.other(outcome, tag);
            }
            91..92 if r.depth < 16 => {
                h.quiesce();
                let bytes = (1 + rng.below(VOLUME_BYTES / 4096)) * 4096;
                h.set_volume(meta(volume, bytes));
                h.set_volume(meta(volume, VOLUME_BYTES));
            }
            _ => h.turn(),
        }
        if h.slice.usage().under_way > r.depth || rng.chance(20) {
            h.turn();
        }
        if rng.below(10_000) < r.crash_percent * 10 {
            h.crash();
            if rng.chance(25) {
                h.assert_sound();
            }
            h.pin();
        }
        if step % 2000 == 1999 {
            h.verify();
        }
    }
    h.verify();
    let usage = h.slice.usage();
    assert_eq!((usage.counters.checksum_errors, usage.counters.lost_blocks, usage.counters.damaged_headers), (0, 0, 0));
    h.crash();
    h.assert_sound();
    h.verify();
    h.close();
}

#[test]
fn without_crashes_in_memory() {
    for seed in 0..3 {
        let (segments, volatile) = (80 + seed * 7, seed % 2 == 1);
        run(&Run {
            seed,
            segments,
            volatile,
            memory: true,
            depth: 20,
            steps: 4000,
            crash_percent: 0,
            limits: Limits::tiny(),
        });
    }
}

#[test]
fn with_crashes_on_a_disk_that_forgets() {
    for seed in 10..14 {
        run(&swarm(seed, 2000));
    }
}

/// A run whose shape the seed draws.
fn swarm(seed: u64, steps: u32) -> Run {
    let mut rng = Rng::new(seed);
    Run {
        seed,
        segments: 76 + rng.below(60),
        volatile: rng.chance(70),
        memory: rng.chance(25),
        depth: 1 + rng.below(30) as usize,
        steps,
        crash_percent: rng.below(40),
        limits: Limits::tiny(),
    }
}

/// For a long look: `POLLUX_SEEDS=100..200 cargo test --lib store::tests::random::many -- --ignored`.
#[test]
#[ignore = "takes minutes; the range of seeds comes from POLLUX_SEEDS"]
fn many_seeds() {
    let range = std::env::var("POLLUX_SEEDS").unwrap_or_else(|_| "100..120".into());
    let (from, to) = range.split_once("..").expect("a range like 100..120");
    for seed in from.parse().unwrap()..to.parse().unwrap() {
        println!("seed {seed}");
        run(&swarm(seed, 5000));
    }
}
