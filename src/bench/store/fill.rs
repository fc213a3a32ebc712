//! Write amplification of cleaning at a given fill: the volume is written once from end to end, then overwritten until
//! cleaning has reached its steady state.

use super::super::clock::Clock;
use super::super::latency::Recorder;
use super::super::worker::{Passes, Plan, Results, Shared, Worker};
use super::super::workload::{Pattern, Skew, Spec};
use super::{OpenStoreError, Store, StoreOptions, VolumeSize};
use crate::base::BLOCK;
use crate::device::Medium;
use crate::store::Limits;
use std::sync::Arc;

/// Looks at the amplification per overwrite of the whole volume.
const WINDOWS: u64 = 4;

/// What to measure.
#[derive(Clone, Debug)]
pub struct FillOptions {
    /// Percent of the device's blocks that the volume has, each measured on a fresh store.
    pub percents: Vec<u8>,
    /// How often the volume is overwritten in all; the last overwrite counts.
    pub overwrites: u32,
    /// Distribution of the overwrites.
    pub skew: Skew,
    /// Determines their sequence.
    pub seed: u64,
}

/// What was measured at one fill.
#[derive(Clone, Debug, serde::Serialize)]
pub struct FillFigures {
    /// Percent of the device's blocks in the volume, as asked for.
    pub percent: u8,
    /// Percent of the device's blocks that were live, index pages included.
    pub live_percent: f64,
    /// (user + moved) / user over the last overwrite of the volume.
    pub write_amplification: f64,
    /// What greedy cleaning of uniform overwrites costs at that live fill: (1 + r) / 2r, r = 1/U - 1.
    pub greedy: f64,
    /// The amplification of each quarter of an overwrite, in order.
    pub curve: Vec<f64>,
    /// 4 KiB writes per second over the last overwrite.
    pub iops: f64,
    /// Their latency: median, microseconds.
    pub p50_us: f64,
    /// 99.9th percentile, microseconds.
    pub p99_9_us: f64,
}

/// The amplification of greedy cleaning under uniform overwrites when `live` (0..1) of the blocks are live.
pub fn greedy(live: f64) -> f64 {
    let r = 1.0 / live - 1.0;
    if r <= 0.0 { f64::INFINITY } else { ((1.0 + r) / (2.0 * r)).max(1.0) }
}

/// Measures each fill. The results hold the overwrites of all of them.
///
/// # Errors
/// [`OpenStoreError`]; a store that fails under load is told by [`Results::stopped`].
pub fn measure(
    medium: &Medium,
    base: &StoreOptions,
    options: &FillOptions,
    clock: &Clock,
    shared: &Arc<Shared>,
) -> Result<(Vec<FillFigures>, Results), OpenStoreError> {
    let mut figures = Vec::new();
    let mut all = Results::default();
    for percent in &options.percents {
        let size = VolumeSize::Percent(*percent);
        // The store's own ceiling is there to keep cleaning cheap; here the price is what is asked for.
        let limits = Limits { fill_percent: 95, ..base.limits.clone() };
        let base = StoreOptions { format: true, volume: size, io_bytes: BLOCK as u32, limits, ..base.clone() };
        let mut store = Store::open(medium, &base, clock)?;
        let (one, results) = measure_one(&mut store, *percent, options, *clock, shared);
        let failed = results.stopped.is_some() || results.errors > 0;
        all.window_ns += results.window_ns;
        let window_ns = all.window_ns;
        all.merge(results);
        all.window_ns = window_ns;
        figures.extend(one);
        if failed {
            break;
        }
    }
    Ok((figures, all))
}

fn measure_one(
    store: &mut Store,
    percent: u8,
    options: &FillOptions,
    clock: Clock,
    shared: &Arc<Shared>,
) -> (Option<FillFigures>, Results) {
    use super::super::target::Target;
    let about = store.about().clone();
    let units = about.blocks * u64::from(about.block_size) / BLOCK as u64;
    let mut plan = plan(&about, units, options);
    plan.spec.pattern = Pattern::Sequential;
    plan.count = Some(units);
    let first = Worker::new(&mut *store, plan.clone(), None, clock, Arc::clone(shared), 0).run();
    if first.stopped.is_some() || first.errors > 0 {
        return (None, first);
    }
    plan.spec.pattern = Pattern::Random;
    let (mut all, mut last) = (Results::default(), Recorder::new());
    let (mut curve, mut last_ns) = (Vec::new(), 0);
    let windows = u64::from(options.overwrites) * WINDOWS;
    let (mut user, mut moved) = (0, 0);
    for n in 0..windows {
        plan.seed = options.seed.wrapping_add(n);
        plan.count = Some(units.div_ceil(WINDOWS));
        let before = store.usage().counters;
        let mut r = Worker::new(&mut *store, plan.clone(), None, clock, Arc::clone(shared), 0).run();
        let after = store.usage().counters;
        let (u, m) = (after.user_blocks - before.user_blocks, after.moved_blocks - before.moved_blocks);
        curve.push((1.0 + m as f64 / u.max(1) as f64).max(1.0));
        if n + WINDOWS >= windows {
            user += u;
            moved += m;
            last.merge(&r.write);
            last_ns += r.window_ns;
        }
        r.window_ns += all.window_ns;
        all.merge(r);
        if all.stopped.is_some() || all.errors > 0 {
            return (None, all);
        }
    }
    let usage = store.usage();
    let live = usage.live as f64 / usage.blocks as f64;
    let figures = FillFigures {
        percent,
        live_percent: (live * 1000.0).round() / 10.0,
        write_amplification: round(1.0 + moved as f64 / user.max(1) as f64),
        greedy: round(greedy(live)),
        curve: curve.into_iter().map(round).collect(),
        iops: (last.ops as f64 / (last_ns.max(1) as f64 / 1e9)).round(),
        p50_us: last.summary().p50,
        p99_9_us: last.summary().p99_9,
    };
    (Some(figures), all)
}

fn plan(about: &super::super::target::About, units: u64, options: &FillOptions) -> Plan {
    Plan {
        spec: Spec { pattern: Pattern::Random, read_percent: 0, skew: options.skew, flush_every: 0 },
        unit_blocks: BLOCK as u32 / about.block_size,
        first_lba: 0,
        units,
        depth: about.depth,
        seed: options.seed,
        warmup_ns: 0,
        time_ns: None,
        count: None,
        rate: None,
        drain_ns: 60_000_000_000,
        passes: Passes { before: false, prefill: false, workload: true, after: false },
    }
}

fn round(x: f64) -> f64 {
    (x * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::greedy;

    #[test]
    fn greedy_is_the_published_curve() {
        for (live, want) in [(0.5, 1.0), (0.7, 1.67), (0.8, 2.5), (0.9, 5.0), (0.95, 10.0)] {
            assert!((greedy(live) - want).abs() < 0.01, "{live}: {}", greedy(live));
        }
        assert!(greedy(1.0).is_infinite());
    }
}
