//! Whole runs on a RAM device: figures, verification across runs, refusals.

use super::*;

pub(in crate::bench) fn options(spec: &str) -> Options {
    Options {
        source: Source::Device(spec.parse().unwrap()),
        pattern: Pattern::Random,
        read_percent: 50,
        rw: "randrw".into(),
        block_bytes: 4096,
        depth: 8,
        conns: 1,
        warmup: Duration::ZERO,
        time: None,
        count: Some(2000),
        rate: None,
        cores: Vec::new(),
        seed: Some(1),
        range: None,
        skew: Skew::Uniform,
        flush_every: 0,
        prefill: false,
        verify: None,
        header_digest: false,
        data_digest: false,
        hostnqn: None,
        initiator: None,
        chap_target: None,
        chap_algorithms: Vec::new(),
        timeout: Duration::from_secs(5),
        reconnect: Duration::ZERO,
        histogram: None,
        progress: false,
    }
}

#[test]
fn a_ram_device_does_what_was_asked() {
    let (report, ending) = run(&options("ram:4m")).unwrap();
    assert_eq!((ending, report.ops, report.errors, report.verify_errors), (Ending::Whole, 2000, 0, 0));
    assert!(report.iops > 0.0 && report.verify.is_none());
    assert_eq!(report.read.as_ref().unwrap().ops + report.write.as_ref().unwrap().ops, 2000);
}

#[test]
fn workers_share_the_range_and_the_count() {
    let verify = Some(Verify::default());
    let o = Options { conns: 3, cores: vec![0, 0], verify, read_percent: 0, ..options("ram:4m,bs=512") };
    let (report, ending) = run(&o).unwrap();
    assert_eq!((ending, report.ops, report.setting.workers), (Ending::Whole, 2000, 2));
    let v = report.verify.unwrap();
    // 1024 units of 4 KiB on 512-byte blocks; nearly all are written by 2000 random writes.
    assert!(v.checked > 8 * 700 && v.checked <= 8 * 1024 && v.read_back == v.checked, "{v:?}");
}

#[test]
fn damage_ends_with_its_own_code() {
    let verify = Some(Verify::default());
    let o = Options { verify, ..options("fault(ram:4m;do=misdirect:8192,op=write,p=0.05)") };
    let (report, ending) = run(&o).unwrap();
    assert_eq!(ending, Ending::VerifyErrors);
    assert!(report.verify_errors > 0);
    let v = report.verify.unwrap();
    assert!(v.damage.iter().any(|line| line.contains("misdirected: holds LBA")), "{:?}", v.damage);
    let o = Options { ..options("fault(ram:4m;do=eio,op=read,p=0.05)") };
    let (report, ending) = run(&o).unwrap();
    assert_eq!(ending, Ending::IoErrors);
    assert!(report.errors > 10 && report.error_kinds.contains_key("MediaError"));
}

#[test]
fn a_log_holds_the_next_run_to_what_this_one_wrote() {
    let dir = tempfile::tempdir().unwrap();
    let log = Some(dir.path().join("log"));
    let verify = Some(Verify { log: log.clone(), ..Verify::default() });
    let o = Options { verify: verify.clone(), ..options("ram:4m") };
    let (report, ending) = run(&o).unwrap();
    assert_eq!((ending, report.verify_errors), (Ending::Whole, 0));
    // Memory is gone with the device: every acknowledged block is lost.
    let only = Some(Verify { log, only: true, ..Verify::default() });
    let (report, ending) = run(&Options { verify: only, ..o }).unwrap();
    assert_eq!((ending, report.ops), (Ending::VerifyErrors, 0));
    let v = report.verify.unwrap();
    assert_eq!(v.kinds.keys().collect::<Vec<_>>(), ["lost"]);
    assert_eq!(v.kinds["lost"], report.verify_errors);
}

#[test]
fn options_that_do_not_fit_are_refused_with_the_reason() {
    let refused = |o: Options| run(&o).unwrap_err().to_string();
    assert!(refused(Options { block_bytes: 1000, ..options("ram:4m") }).contains("--bs 1000 is not a multiple"));
    let range = |offset, len| Some(ByteRange { offset, len });
    assert!(refused(Options { range: range(0, 8 << 20), ..options("ram:4m") }).contains("beyond the target's 4194304"));
    assert!(refused(Options { range: range(100, 4096), ..options("ram:4m") }).contains("not on a block border"));
    assert!(refused(Options { range: range(0, 2048), ..options("ram:4m,bs=512") }).contains("room for 0 accesses"));
}

#[test]
fn shares_add_up() {
    for total in [0, 1, 7, 8, 1000] {
        for workers in 1..6 {
            assert_eq!((0..workers).map(|i| share(total, i, workers)).sum::<u64>(), total);
        }
    }
}
