//! Memory and restart time of many mapped blocks: blocks of a volume are written once each in random order, and the
//! resident memory of the process is looked at before and after; then the log is opened again, as after a crash and as
//! after a clean stop.

use super::super::clock::Clock;
use super::super::target::Target;
use super::super::worker::{Passes, Plan, Results, Shared, Worker};
use super::super::workload::{Pattern, Skew, Spec};
use super::{OpenStoreError, Store, StoreOptions, VolumeSize};
use crate::base::BLOCK;
use crate::device::Medium;
use std::sync::Arc;

/// What was measured.
#[derive(Clone, Debug, serde::Serialize)]
pub struct MappingFigures {
    /// Blocks of 4 KiB mapped.
    pub blocks: u64,
    /// Resident memory before they were, bytes (buffers are in it already).
    pub rss_before: u64,
    /// And after.
    pub rss_after: u64,
    /// Growth per mapped block, bytes.
    pub rss_per_block: f64,
    /// What the index itself says that it takes, bytes per mapped block.
    pub index_per_block: f64,
    /// Milliseconds to open the log without a clean stop before.
    pub crash_restart_ms: f64,
    /// Milliseconds to open it after a checkpoint.
    pub clean_restart_ms: f64,
    /// Blocks mapped after both restarts; must be equal to `blocks`.
    pub blocks_after: u64,
}

/// Resident memory of this process, bytes: ordinary and hugepages.
fn resident() -> u64 {
    resident_in(&std::fs::read_to_string("/proc/self/status").unwrap_or_default())
}

/// The same, as a text like `/proc/self/status` tells it.
fn resident_in(status: &str) -> u64 {
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.trim().split(' ').next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
    };
    field("VmRSS:") + field("HugetlbPages:")
}

/// Maps `blocks` blocks of a fresh store on `medium` in random order and measures.
///
/// # Errors
/// [`OpenStoreError`]; a store that fails under load is told by [`Results::stopped`].
pub fn measure(
    medium: &Medium,
    base: &StoreOptions,
    blocks: u64,
    seed: u64,
    clock: &Clock,
    shared: &Arc<Shared>,
) -> Result<(Option<MappingFigures>, Results), OpenStoreError> {
    let volume = match base.volume {
        VolumeSize::Default => VolumeSize::Bytes(blocks * BLOCK as u64),
        size => size,
    };
    let options = StoreOptions { format: true, volume, io_bytes: BLOCK as u32, ..base.clone() };
    let mut store = Store::open(medium, &options, clock)?;
    let about = store.about().clone();
    let units = about.blocks * u64::from(about.block_size) / BLOCK as u64;
    if units < blocks {
        let why = format!("--blocks {blocks} are more than the {units} of the volume");
        return Err(OpenStoreError::Options(why));
    }
    let rss_before = resident();
    let plan = Plan {
        spec: Spec { pattern: Pattern::Shuffled, read_percent: 0, skew: Skew::Uniform, flush_every: 0 },
        unit_blocks: BLOCK as u32 / about.block_size,
        first_lba: 0,
        units,
        depth: about.depth,
        seed,
        warmup_ns: 0,
        time_ns: None,
        count: Some(blocks),
        rate: None,
        drain_ns: 60_000_000_000,
        passes: Passes { before: false, prefill: false, workload: true, after: false },
    };
    let results = Worker::new(&mut store, plan, None, *clock, Arc::clone(shared), 0).run();
    if results.stopped.is_some() || results.errors > 0 {
        return Ok((None, results));
    }
    let rss_after = resident();
    let mapped = store.usage().mapped;
    let index_per_block = store.usage().index_bytes as f64 / mapped.max(1) as f64;
    let crash = store.reopen(clock)?;
    store.checkpoint(clock)?;
    let clean = store.reopen(clock)?;
    let figures = MappingFigures {
        blocks: mapped,
        rss_before,
        rss_after,
        rss_per_block: rss_after.saturating_sub(rss_before) as f64 / mapped.max(1) as f64,
        index_per_block,
        crash_restart_ms: crash as f64 / 1e6,
        clean_restart_ms: clean as f64 / 1e6,
        blocks_after: store.usage().mapped,
    };
    Ok((Some(figures), results))
}

#[cfg(test)]
mod tests {
    use super::{resident, resident_in};

    // Other tests of this process take and give back memory at the same time: its growth here would tell nothing.
    #[test]
    fn resident_memory_is_ordinary_and_huge_pages() {
        let status = "Name:\tpollux\nVmPeak:\t  999 kB\nVmRSS:\t   1234 kB\nThreads:\t2\nHugetlbPages:\t    4096 kB\n";
        assert_eq!(resident_in(status), (1234 + 4096) * 1024);
        assert_eq!((resident_in("VmRSS:\t8 kB"), resident_in("")), (8192, 0));
        let block = std::hint::black_box(vec![7u8; 4 << 20]);
        assert!(resident() > block.len() as u64);
    }
}
