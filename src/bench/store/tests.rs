//! The store as a target: what is written is read, also after a restart; the special measurements measure.

use super::super::run::{Ending, Options, Source, StoreRun, Verify, run, tests::options};
use super::*;
use crate::bench::worker::Shared;
use crate::bench::workload::Skew;

fn store_options(source: StoreRun, spec: &str) -> Options {
    Options { source: Source::Store(spec.parse().unwrap(), source), ..options("ram:4m") }
}

fn medium(spec: &str) -> Medium {
    Medium::open(&spec.parse().unwrap()).unwrap()
}

fn small() -> Limits {
    Limits { segment_bytes: 256 << 10, batch_bytes: 64 << 10, ..Limits::default() }
}

/// A run on a small store.
fn on_store() -> StoreRun {
    StoreRun { limits: small(), ..StoreRun::default() }
}

fn plain() -> StoreOptions {
    StoreOptions {
        format: false,
        volume: VolumeSize::Default,
        lba_bytes: 4096,
        depth: 16,
        io_bytes: 4096,
        limits: small(),
    }
}

#[test]
fn a_verified_workload_on_a_fresh_store() {
    for lba_bytes in [512, 4096] {
        let verify = Some(Verify::default());
        let source = StoreRun { lba_bytes, ..on_store() };
        let o = Options { verify, ..store_options(source, "ram:64m") };
        let (report, ending) = run(&o).unwrap();
        assert_eq!((ending, report.errors, report.verify_errors), (Ending::Whole, 0, 0), "{:?}", report.verify);
        assert_eq!(report.ops, 2000);
        let written = report.write.as_ref().unwrap().ops;
        assert_eq!(report.figures.as_ref().unwrap()["user_blocks"], written);
        assert!(report.table().contains("write amplification"));
    }
}

#[test]
fn data_and_log_survive_reopening_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    let spec = format!("file:{},size=64m,buffered", path.display());
    let verify = Verify { log: Some(dir.path().join("log")), ..Verify::default() };
    let o = Options { verify: Some(verify.clone()), count: Some(400), ..store_options(on_store(), &spec) };
    for _ in 0..2 {
        let (report, ending) = run(&o).unwrap();
        assert_eq!((ending, report.verify_errors), (Ending::Whole, 0), "{:?}", report.verify);
    }
    let only = Some(Verify { only: true, ..verify });
    let (report, ending) = run(&Options { verify: only.clone(), ..o.clone() }).unwrap();
    assert_eq!((ending, report.verify_errors), (Ending::Whole, 0), "{:?}", report.verify);
    let checked = report.verify.unwrap().checked;
    assert!(checked > 100, "{checked} blocks");
    // A fresh store has another identity: the log is refused before anything is read as lost.
    let format = StoreRun { format: true, ..on_store() };
    let fresh = Options { verify: only, source: Source::Store(spec.parse().unwrap(), format), ..o };
    assert!(run(&fresh).unwrap_err().to_string().contains("belongs to another volume"));
}

#[test]
fn fill_measures_amplification_near_the_curve() {
    let options = fill::FillOptions { percents: vec![50, 75], overwrites: 3, skew: Skew::Uniform, seed: 1 };
    let (clock, shared) = (Clock::start(), Shared::new(1));
    let (figures, results) = fill::measure(&medium("ram:64m"), &plain(), &options, &clock, &shared).unwrap();
    assert!(results.stopped.is_none() && results.errors == 0, "{:?} {:?}", results.stopped, results.error_kinds);
    assert_eq!(figures.len(), 2);
    for f in &figures {
        assert_eq!(f.curve.len(), 12);
        assert!((f.live_percent - f64::from(f.percent)).abs() < 6.0, "{f:?}");
        assert!(f.write_amplification >= 1.0 && f.write_amplification < 3.0 * f.greedy, "{f:?}");
    }
    assert!(figures[1].write_amplification > figures[0].write_amplification, "{figures:?}");
    let writes = 3 * (16384 * 50 / 100 + 16384 * 75 / 100);
    assert!(results.write.ops.abs_diff(writes) < writes / 50, "{} of {writes}", results.write.ops);
}

#[test]
fn a_fill_beyond_the_store_is_refused_before_it_is_tried() {
    let options = fill::FillOptions { percents: vec![95], overwrites: 1, skew: Skew::Uniform, seed: 1 };
    let refused = fill::measure(&medium("ram:64m"), &plain(), &options, &Clock::start(), &Shared::new(1));
    assert!(refused.unwrap_err().to_string().contains("a fill of 95 % is more than the"));
}

#[test]
fn mapping_survives_a_crash_and_a_clean_restart() {
    let (clock, shared) = (Clock::start(), Shared::new(1));
    let (figures, results) = mapping::measure(&medium("ram:64m"), &plain(), 5000, 3, &clock, &shared).unwrap();
    assert!(results.stopped.is_none(), "{:?}", results.stopped);
    let f = figures.unwrap();
    assert_eq!((f.blocks, f.blocks_after), (5000, 5000), "each block is written once");
    assert!(f.index_per_block > 0.0 && f.crash_restart_ms > 0.0 && f.clean_restart_ms > 0.0);
    let volume = VolumeSize::Bytes(2 << 20);
    let small = mapping::measure(&medium("ram:64m"), &StoreOptions { volume, ..plain() }, 5000, 3, &clock, &shared);
    assert!(small.unwrap_err().to_string().contains("more than the 512 of the volume"));
}

#[test]
fn refusals_have_reasons() {
    let o = Options { block_bytes: 12288, ..store_options(on_store(), "ram:64m") };
    assert!(run(&o).unwrap_err().to_string().contains("within one chunk"));
    let o = Options { cores: vec![0, 0], conns: 2, ..store_options(on_store(), "ram:64m") };
    assert!(run(&o).unwrap_err().to_string().contains("one worker"));
    let o = store_options(StoreRun::default(), "ram:1m");
    assert!(run(&o).unwrap_err().to_string().contains("too small"));
}
