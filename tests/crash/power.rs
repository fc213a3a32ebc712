//! Power cuts at enumerated and at random points, and disks that fail in other ways.

use crate::{first_seed, play, points, scaled};
use pollux::sim::{Bench, Tally};
use std::time::Instant;

#[test]
fn power_cuts_lose_nothing() {
    let (mut bench, start, wanted) = (Bench::new(), Instant::now(), points());
    let mut seed = first_seed();
    while bench.tally.points < wanted {
        play(&mut bench, "power_cuts", seed, |b| b.enumerate(seed));
        play(&mut bench, "power_cuts", seed, |b| b.run(seed));
        seed += 1;
    }
    let t: Tally = bench.tally;
    println!(
        "{} crash points from {} seeds in {:.1} s: {} torn, {} reordered, {} with a second cut during recovery ({} with a third); \
         writes kept {}, dropped {}, torn {}; {} sectors read back after recoveries, {} live reads, {} acknowledged, \
         {} refused for space; {} orderly stops, {} offline checks; 0 lost",
        t.points,
        seed - first_seed(),
        start.elapsed().as_secs_f32(),
        t.torn,
        t.reordered,
        t.doubles,
        t.triples,
        t.toll.kept,
        t.toll.dropped,
        t.toll.torn,
        t.answers.recovered,
        t.answers.reads,
        t.answers.acked,
        t.answers.full,
        t.stops,
        t.checks,
    );
    if wanted >= 2_000 {
        assert!(t.torn >= 200 && t.doubles >= 200 && t.triples >= 20 && t.reordered >= 200, "too few of a kind: {t:?}");
        assert!(t.answers.full > 0 && t.answers.acked > 1_000 && t.stops > 0, "the workloads are too tame: {t:?}");
    }
}

#[test]
fn ailing_disks_are_survived_or_refused() {
    let (mut bench, start, seeds) = (Bench::new(), Instant::now(), scaled(400));
    for seed in first_seed()..first_seed() + seeds {
        play(&mut bench, "ailing_disks", seed, |b| b.faulty(seed));
    }
    println!("{seeds} runs on ailing disks in {:.1} s: {:?}", start.elapsed().as_secs_f32(), bench.tally);
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in first_seed()..first_seed() + scaled(4) {
        let trace = || {
            let mut bench = Bench::new();
            play(&mut bench, "same_trace", seed, |b| {
                b.run(seed)?;
                b.enumerate(seed)?;
                b.faulty(seed)
            });
            bench.trace.hash()
        };
        let (once, twice) = (trace(), trace());
        println!("seed {seed}: trace {once:016x}");
        assert_eq!(once, twice, "seed {seed} does not replay");
    }
}
