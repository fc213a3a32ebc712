//! The verifier against a model disk that loses, swaps, tears and delays.

use super::judge::DamageKind;
use super::*;

const BLOCK: usize = 4096;

fn verifier(ledger: Ledger, log: Option<Log>, run: u32) -> Verifier {
    let judge = Judge { volume: 5, writer: 6 };
    Verifier::new(Setup { judge, block_size: BLOCK as u32, ledger, log, run, worker: (0, 1) })
}

/// A disk of 16 blocks.
struct Disk(Vec<u8>);

impl Disk {
    fn new() -> Disk {
        Disk(vec![0; 16 * BLOCK])
    }
    fn at(&mut self, lba: u64, len: usize) -> &mut [u8] {
        &mut self.0[lba as usize * BLOCK..][..len]
    }
    fn read(&mut self, v: &mut Verifier, lba: u64, blocks: usize) -> u64 {
        let mut floors = vec![0; blocks];
        v.begin_read(lba, &mut floors);
        v.end_read(lba, &floors, self.at(lba, blocks * BLOCK))
    }
    fn write(&mut self, v: &mut Verifier, lba: u64, blocks: u32) {
        let mut data = vec![0; blocks as usize * BLOCK];
        v.begin_write(lba, blocks, &mut data);
        self.at(lba, data.len()).copy_from_slice(&data);
        v.end_write(lba, blocks, true);
    }
}

fn kinds(v: &Verifier) -> Vec<DamageKind> {
    v.findings.described.iter().map(|d| d.kind).collect()
}

#[test]
fn an_honest_disk_has_no_findings() {
    let mut disk = Disk::new();
    let mut v = verifier(Ledger::new(0, 16), None, 1);
    assert_eq!(disk.read(&mut v, 0, 16), 0);
    for n in 0..50u64 {
        disk.write(&mut v, n % 13, 1 + n as u32 % 3);
        assert_eq!(disk.read(&mut v, 0, 16), 0);
    }
    assert_eq!(v.findings.damaged, 0);
    assert!(v.findings.checked > 400 && v.findings.unknown >= 16);
}

#[test]
fn a_lost_write_is_stale_and_a_first_one_is_lost() {
    let mut disk = Disk::new();
    let mut v = verifier(Ledger::new(0, 16), None, 1);
    disk.write(&mut v, 3, 1);
    let mut data = vec![0; BLOCK];
    for lba in [3, 4] {
        v.begin_write(lba, 1, &mut data);
        v.end_write(lba, 1, true);
    }
    assert_eq!(disk.read(&mut v, 3, 2), 2);
    assert_eq!(kinds(&v), [DamageKind::Stale, DamageKind::Lost]);
}

#[test]
fn a_read_that_overlaps_a_write_may_return_either_but_only_forwards() {
    let mut disk = Disk::new();
    let mut v = verifier(Ledger::new(0, 16), None, 1);
    disk.write(&mut v, 0, 1);
    let old = disk.at(0, BLOCK).to_vec();
    let mut new = vec![0; BLOCK];
    v.begin_write(0, 1, &mut new);
    let mut early = [0];
    v.begin_read(0, &mut early);
    let mut late = [0];
    v.begin_read(0, &mut late);
    assert_eq!(v.end_read(0, &late, &new), 0, "the write has landed but is not acknowledged");
    assert_eq!(v.end_read(0, &early, &old), 0, "this read may have been served before");
    let mut after = [0];
    v.begin_read(0, &mut after);
    assert_eq!(v.end_read(0, &after, &old), 1, "seen, so it must not go back");
    v.end_write(0, 1, false);
    assert_eq!(disk.read(&mut v, 0, 1), 1, "nor after the write failed");
    assert!(v.findings.described[1].to_string().ends_with("generation 2 was read before"));
}

#[test]
fn unacknowledged_writes_may_land_or_not_until_seen() {
    for landed in [false, true] {
        let mut disk = Disk::new();
        let mut v = verifier(Ledger::new(0, 16), None, 1);
        disk.write(&mut v, 0, 1);
        let old = disk.at(0, BLOCK).to_vec();
        let mut data = vec![0; BLOCK];
        v.begin_write(0, 1, &mut data);
        v.end_write(0, 1, false);
        if landed {
            disk.at(0, BLOCK).copy_from_slice(&data);
        }
        assert_eq!(disk.read(&mut v, 0, 1), 0);
        disk.at(0, BLOCK).copy_from_slice(&old);
        assert_eq!(disk.read(&mut v, 0, 1), u64::from(landed));
    }
}

#[test]
fn a_large_write_may_be_cut_between_blocks_but_not_inside_one() {
    let mut disk = Disk::new();
    let mut v = verifier(Ledger::new(0, 16), None, 1);
    disk.write(&mut v, 0, 4);
    let mut data = vec![0; 4 * BLOCK];
    v.begin_write(0, 4, &mut data);
    v.end_write(0, 4, false);
    disk.at(0, 2 * BLOCK).copy_from_slice(&data[..2 * BLOCK]);
    assert_eq!(disk.read(&mut v, 0, 4), 0, "cut between blocks");
    disk.at(2, SECTOR).copy_from_slice(&data[2 * BLOCK..2 * BLOCK + SECTOR]);
    assert_eq!(disk.read(&mut v, 0, 4), 1);
    assert_eq!(kinds(&v), [DamageKind::Torn]);
}

#[test]
fn the_next_run_holds_the_disk_to_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let id = log::Identity { volume: 5, block_size: BLOCK as u32, writer: 6, first: 0, blocks: 16 };
    let mut disk = Disk::new();
    let opened = Log::open(&path, id).unwrap();
    let mut v = verifier(opened.ledger, Some(opened.log), opened.run);
    disk.write(&mut v, 0, 8);
    let before = disk.0.clone();
    disk.write(&mut v, 2, 2);
    // Under way when the target dies; it has landed.
    let mut data = vec![0; BLOCK];
    v.begin_write(6, 1, &mut data);
    disk.at(6, BLOCK).copy_from_slice(&data);
    v.write_log().unwrap();
    drop(v);

    let opened = Log::open(&path, id).unwrap();
    assert_eq!(opened.run, 2);
    let mut v = verifier(opened.ledger, Some(opened.log), opened.run);
    assert_eq!(disk.read(&mut v, 0, 16), 0);
    assert_eq!((v.findings.checked, v.findings.unknown), (8, 8));
    v.write_log().unwrap();
    drop(v);

    // The disk falls back to before the second write: three blocks are stale, one of them only ever seen.
    disk.0 = before;
    let opened = Log::open(&path, id).unwrap();
    let mut v = verifier(opened.ledger, Some(opened.log), opened.run);
    assert_eq!(disk.read(&mut v, 0, 16), 3);
    assert_eq!(kinds(&v), [DamageKind::Stale; 3]);
    let lines: Vec<String> = v.findings.described.iter().map(ToString::to_string).collect();
    assert_eq!(lines[0], "LBA 2: stale: holds generation 1 (operation 1.0); generation 2 was acknowledged");
    assert_eq!(lines[2], "LBA 6: stale: holds generation 1 (operation 1.0); generation 2 was read before");
}

#[test]
fn findings_are_bounded_and_merge() {
    let mut disk = Disk::new();
    let mut v = verifier(Ledger::new(0, 16), None, 1);
    disk.write(&mut v, 0, 16);
    disk.0.fill(0);
    for _ in 0..10 {
        disk.read(&mut v, 0, 16);
    }
    let mut all = Findings::default();
    all.merge(v.findings.clone());
    all.merge(v.findings);
    assert_eq!((all.damaged, all.described.len(), all.kinds["lost"]), (320, DESCRIBED_MAX, 320));
}
