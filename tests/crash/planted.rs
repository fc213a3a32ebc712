//! Every planted bug is found by the same simulator that finds nothing in the store as it is.

use crate::{first_seed, setting};
use pollux::sim::faulty::Ailment;
use pollux::sim::sweep::Part;
use pollux::sim::{Bench, Failure, Swarm};
use pollux::store::planted::Planted;
use std::num::NonZero;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// Everything the simulator can do with one seed.
fn hunt(bench: &mut Bench, swarm: &Swarm) -> Result<(), Failure> {
    bench.guard(|b| b.run_swarm(swarm))?;
    bench.guard(|b| b.enumerate_swarm(swarm))?;
    for ailment in Ailment::ALL {
        bench.guard(|b| b.faulty_swarm(swarm, ailment))?;
    }
    bench.guard(|b| {
        let specimen = b.specimen_swarm(small(swarm), swarm.seed.is_multiple_of(2))?;
        for part in [Part::Superblock, Part::Header, Part::Page, Part::Payload] {
            b.sweep_bits(&specimen, part, 512)?;
        }
        b.sweep_sectors(&specimen).map(drop)
    })
}

/// Flips in headers of a log that no checkpoint covers, closer together than [`hunt`] makes them: what shows a bug in
/// how recovery judges headers soonest.
fn hunt_headers(bench: &mut Bench, swarm: &Swarm) -> Result<(), Failure> {
    bench.guard(|b| {
        let specimen = b.specimen_swarm(small(swarm), false)?;
        b.sweep_bits(&specimen, Part::Header, 64).map(drop)
    })
}

fn small(swarm: &Swarm) -> Swarm {
    let mut small = swarm.clone();
    (small.slices, small.slice_bytes, small.requests) = (1, 2 << 20, 60);
    small.limits.segment_bytes = 64 << 10;
    small.limits.mark_idle_ns = 500_000;
    small.limits.scrub_bytes_per_sec = 0;
    small.space = small.space.min(40);
    small
}

fn seeds() -> std::ops::Range<u64> {
    first_seed()..first_seed() + setting("POLLUX_SIM_PLANTED_SEEDS", 60)
}

/// Hunts one bug through the seeds; true when it was caught.
fn catch(planted: Planted) -> bool {
    let (mut bench, began) = (Bench::new(), Instant::now());
    let caught = seeds().find_map(|seed| {
        let mut swarm = Swarm::draw(seed);
        swarm.limits.planted = Some(planted);
        let headers = matches!(planted, Planted::SkipHeaderCrc | Planted::TruncateMiddle);
        let hunt = if headers { hunt_headers } else { hunt };
        hunt(&mut bench, &swarm).err().map(|failure| (seed, failure))
    });
    let seconds = began.elapsed().as_secs_f32();
    match &caught {
        Some((seed, failure)) => println!("{planted:?}: caught by seed {seed} in {seconds:.1} s: {failure}"),
        None => println!("{planted:?}: ESCAPED {} seeds in {seconds:.1} s", seeds().count()),
    }
    caught.is_some()
}

#[test]
fn every_planted_bug_is_caught() {
    let start = Instant::now();
    std::panic::set_hook(Box::new(|_| {}));
    let (next, escaped) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, NonZero::get) {
            scope.spawn(|| {
                while let Some(planted) = Planted::ALL.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if !catch(*planted) {
                        escaped.lock().expect("no hunter panics").push(*planted);
                    }
                }
            });
        }
    });
    let _ = std::panic::take_hook();
    let escaped = escaped.into_inner().expect("no hunter panics");
    let (all, seconds) = (Planted::ALL.len(), start.elapsed().as_secs_f32());
    println!("planted bugs: {}/{all} caught in {seconds:.1} s", all - escaped.len());
    assert!(escaped.is_empty(), "not caught: {escaped:?}");
}

#[test]
fn without_a_planted_bug_the_same_hunt_finds_nothing() {
    let mut bench = Bench::new();
    for seed in seeds().take(12) {
        let swarm = Swarm::draw(seed);
        assert!(swarm.limits.planted.is_none(), "nothing is planted unless asked for");
        let headers = if seed < first_seed() + 3 { hunt_headers(&mut bench, &swarm) } else { Ok(()) };
        if let Err(failure) = headers.and_then(|()| hunt(&mut bench, &swarm)) {
            panic!("seed {seed}: {failure}");
        }
    }
}
