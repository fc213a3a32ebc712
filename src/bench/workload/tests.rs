//! The generator's statistics: mix, coverage, skew, order, pace, repeatability.

use super::*;
use std::collections::{HashMap, HashSet};

fn spec(pattern: Pattern, read_percent: u8, skew: Skew) -> Spec {
    Spec { pattern, read_percent, skew, flush_every: 0 }
}

fn draws(spec: Spec, units: u64, seed: u64, count: usize) -> Vec<Access> {
    let mut w = Workload::new(spec, units, seed);
    (0..count).map(|_| w.next(|_| true).expect("everything is free")).collect()
}

#[test]
fn same_seed_same_accesses_other_seed_others() {
    let s = spec(Pattern::Random, 50, Skew::Uniform);
    assert_eq!(draws(s, 1000, 1, 500), draws(s, 1000, 1, 500));
    assert_ne!(draws(s, 1000, 1, 500), draws(s, 1000, 2, 500));
}

#[test]
fn mix_is_within_four_sigma() {
    for percent in [0u8, 10, 50, 70, 100] {
        let n = 40_000;
        let reads = draws(spec(Pattern::Random, percent, Skew::Uniform), 1 << 20, 9, n)
            .iter()
            .filter(|a| a.kind == Kind::Read)
            .count() as f64;
        let p = f64::from(percent) / 100.0;
        let sigma = (n as f64 * p * (1.0 - p)).sqrt();
        assert!((reads - n as f64 * p).abs() <= 4.0 * sigma, "{percent}%: {reads}");
    }
}

#[test]
fn uniform_reaches_everything_evenly() {
    let mut hits = vec![0u32; 100];
    for a in draws(spec(Pattern::Random, 100, Skew::Uniform), 100, 3, 100_000) {
        hits[a.unit as usize] += 1;
    }
    // 1000 expected each, sigma 31.
    assert!(hits.iter().all(|h| (850..1150).contains(h)), "{hits:?}");
}

#[test]
fn sequential_covers_in_order_wraps_and_keeps_a_position_per_direction() {
    let units: Vec<u64> =
        draws(spec(Pattern::Sequential, 100, Skew::Uniform), 5, 1, 12).iter().map(|a| a.unit).collect();
    assert_eq!(units, [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]);
    let mixed = draws(spec(Pattern::Sequential, 50, Skew::Uniform), 1000, 1, 100);
    for kind in [Kind::Read, Kind::Write] {
        let own: Vec<u64> = mixed.iter().filter(|a| a.kind == kind).map(|a| a.unit).collect();
        assert!(own.iter().copied().eq(0..own.len() as u64), "{kind:?}");
    }
}

#[test]
fn hot_and_cold_get_their_shares_and_hot_is_scattered() {
    let n = 100_000;
    let mut hits: HashMap<u64, u32> = HashMap::new();
    for a in draws(spec(Pattern::Random, 0, Skew::Hot { access: 80, space: 20 }), 1000, 4, n) {
        *hits.entry(a.unit).or_default() += 1;
    }
    let mut counts: Vec<(u64, u32)> = hits.into_iter().collect();
    counts.sort_by_key(|(_, c)| std::cmp::Reverse(*c));
    let hot: u32 = counts[..200].iter().map(|(_, c)| c).sum();
    assert!((79_000..81_000).contains(&hot), "{hot} of {n} went to the hottest fifth");
    let low_half = counts[..200].iter().filter(|(unit, _)| *unit < 500).count();
    assert!((80..120).contains(&low_half), "hot units bunch up: {low_half} of 200 in the lower half");
}

#[test]
fn zipf_follows_its_law() {
    let n = 200_000;
    let zipf = Zipf::new(1000, 0.99);
    let mut rng = Rng::new(5);
    let mut hits = vec![0u32; 1000];
    for _ in 0..n {
        hits[zipf.draw(&mut rng) as usize] += 1;
    }
    let norm: f64 = (1..=1000).map(|k| f64::from(k).powf(-0.99)).sum();
    for rank in [1u32, 2, 10, 100] {
        let want = f64::from(n) * f64::from(rank).powf(-0.99) / norm;
        let got = f64::from(hits[rank as usize - 1]);
        assert!((got - want).abs() < 5.0 * want.sqrt(), "rank {rank}: {got} instead of {want}");
    }
}

#[test]
fn scatter_is_a_permutation() {
    for n in [1u64, 2, 3, 10, 97, 100, 1024, 5040] {
        let scatter = Scatter::new(n);
        let places: HashSet<u64> = (0..n).map(|r| scatter.place(r)).collect();
        assert_eq!(places.len() as u64, n);
        assert!(places.iter().all(|p| *p < n));
        let shuffle = Shuffle::new(n, n);
        let places: HashSet<u64> = (0..n).map(|r| shuffle.place(r)).collect();
        assert_eq!(places.len() as u64, n);
        assert!(places.iter().all(|p| *p < n));
    }
}

#[test]
fn a_shuffled_pass_touches_everything_once_in_no_order() {
    let units: Vec<u64> =
        draws(spec(Pattern::Shuffled, 0, Skew::Uniform), 1000, 5, 1000).iter().map(|a| a.unit).collect();
    assert_eq!(units.iter().collect::<HashSet<_>>().len(), 1000);
    let ascents = units.windows(2).filter(|w| w[0] < w[1]).count();
    assert!((420..580).contains(&ascents), "{ascents} of 999 neighbours ascend");
    assert_ne!(
        units,
        draws(spec(Pattern::Shuffled, 0, Skew::Uniform), 1000, 6, 1000).iter().map(|a| a.unit).collect::<Vec<_>>()
    );
}

#[test]
fn a_unit_with_a_write_under_way_is_not_written_again() {
    let mut random = Workload::new(spec(Pattern::Random, 0, Skew::Uniform), 8, 1);
    for _ in 0..100 {
        assert_eq!(random.next(|unit| unit == 3).map_or(3, |a| a.unit), 3);
    }
    assert_eq!(random.next(|_| false), None);
    let mut sequential = Workload::new(spec(Pattern::Sequential, 0, Skew::Uniform), 8, 1);
    assert_eq!(sequential.next(|_| false), None);
    assert_eq!(sequential.next(|_| true).unwrap().unit, 0, "a refused unit is not skipped");
}

#[test]
fn flushes_follow_every_nth_write() {
    let mut w = Workload::new(Spec { flush_every: 3, ..spec(Pattern::Sequential, 0, Skew::Uniform) }, 100, 1);
    let kinds: Vec<Kind> = (0..8).map(|_| w.next(|_| true).unwrap().kind).collect();
    let (w, f) = (Kind::Write, Kind::Flush);
    assert_eq!(kinds, [w, w, w, f, w, w, w, f]);
}

#[test]
fn pace_is_even_and_does_not_drift() {
    let mut pace = Pace::new(Time(1000), 3.0);
    let mut last = 0;
    for _ in 0..3_000 {
        let due = pace.due().0;
        assert!(due >= last);
        last = due;
        pace.advance();
    }
    assert_eq!(pace.due(), Time(1000 + 1_000_000_000_000));
}
