//! The log's replay: state comes back, torn tails are dropped, damage and strangers are refused, rewriting changes
//! nothing.

use super::*;
use crate::base::rng::Rng;

const ID: Identity = Identity { volume: 0xabcd, block_size: 4096, writer: 77, first: 0, blocks: 64 };

fn facts_of(ledger: &Ledger) -> Vec<(u32, u32, bool)> {
    (ledger.first()..ledger.first() + ledger.len())
        .map(|b| (ledger.floor(b), ledger.ceiling(b), ledger.is_acknowledged(b)))
        .collect()
}

/// Runs a random life against the log and a ledger side by side; returns the ledger.
fn live(log: &Log, ledger: &mut Ledger, seed: u64, steps: u32) {
    let mut rng = Rng::new(seed);
    let mut batch = Vec::new();
    for _ in 0..steps {
        let block = rng.below(ledger.len());
        let generation = ledger.begin_write(block);
        append(&mut batch, Fact::Intent, block, generation);
        match rng.below(4) {
            0 => ledger.end_write(block, false),
            1 => {
                assert!(ledger.saw(block, generation));
                append(&mut batch, Fact::Seen, block, generation);
                ledger.end_write(block, false);
            }
            _ => {
                ledger.end_write(block, true);
                append(&mut batch, Fact::Acknowledged, block, generation);
            }
        }
        if rng.chance(20) {
            log.write(&batch).unwrap();
            batch.clear();
        }
    }
    log.write(&batch).unwrap();
}

#[test]
fn state_survives_reopening_and_a_torn_tail() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut opened = Log::open(&path, ID).unwrap();
    assert_eq!((opened.writer, opened.run), (77, 1));
    for round in 0..5u32 {
        live(&opened.log, &mut opened.ledger, u64::from(round), 300);
        // A process killed while appending leaves part of a record behind.
        let garbage = [0x5a; 11];
        (&opened.log.file).write_all(&garbage[..round as usize * 2]).unwrap();
        let before = facts_of(&opened.ledger);
        assert!(matches!(Log::open(&path, ID), Err(LogError::InUse(_))), "one run at a time");
        drop(opened);
        opened = Log::open(&path, Identity { writer: 1, ..ID }).unwrap();
        assert_eq!(facts_of(&opened.ledger), before);
        assert_eq!((opened.writer, opened.run), (77, round + 2), "writer stays, runs count");
        // Cut the garbage off, as the reopened handle did for itself.
        assert_eq!((std::fs::metadata(&path).unwrap().len() as usize - HEADER) % RECORD, 0);
    }
}

#[test]
fn rewriting_keeps_the_state_and_shrinks_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let Opened { log, mut ledger, .. } = Log::open(&path, ID).unwrap();
    live(&log, &mut ledger, 9, 70_000);
    drop(log);
    let before = std::fs::metadata(&path).unwrap().len();
    let again = Log::open(&path, ID).unwrap();
    assert_eq!(facts_of(&again.ledger), facts_of(&ledger));
    let after = std::fs::metadata(&path).unwrap().len();
    assert!(after * 10 < before, "{before} -> {after}");
    drop(again);
    let third = Log::open(&path, ID).unwrap();
    assert_eq!((facts_of(&third.ledger), third.run), (facts_of(&ledger), 3));
}

#[test]
fn a_larger_range_extends_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let Opened { log, mut ledger, .. } = Log::open(&path, Identity { first: 16, blocks: 16, ..ID }).unwrap();
    let generation = ledger.begin_write(20);
    let mut batch = Vec::new();
    append(&mut batch, Fact::Acknowledged, 20, generation);
    log.write(&batch).unwrap();
    drop(log);
    let wider = Log::open(&path, Identity { first: 24, blocks: 100, ..ID }).unwrap();
    assert_eq!((wider.ledger.first(), wider.ledger.len(), wider.ledger.floor(20)), (16, 108, 1));
    drop(wider);
    let narrower = Log::open(&path, Identity { first: 30, blocks: 1, ..ID }).unwrap();
    assert_eq!((narrower.ledger.first(), narrower.ledger.len(), narrower.ledger.floor(20)), (16, 108, 1));
}

#[test]
fn damage_and_strangers_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let Opened { log, mut ledger, .. } = Log::open(&path, ID).unwrap();
    live(&log, &mut ledger, 3, 100);
    drop(log);
    let good = std::fs::read(&path).unwrap();
    for at in [HEADER + 3, HEADER + 5 * RECORD + 9] {
        let mut bad = good.clone();
        bad[at] ^= 4;
        std::fs::write(&path, &bad).unwrap();
        let start = at as u64 - (at as u64 - HEADER as u64) % RECORD as u64;
        assert!(matches!(Log::open(&path, ID), Err(LogError::Damaged(_, n)) if n == start));
    }
    for at in 0..HEADER {
        let mut bad = good.clone();
        bad[at] ^= 1;
        std::fs::write(&path, &bad).unwrap();
        assert!(matches!(Log::open(&path, ID), Err(LogError::NotALog(_))), "byte {at}");
    }
    std::fs::write(&path, &good).unwrap();
    assert!(matches!(Log::open(&path, Identity { volume: 1, ..ID }), Err(LogError::OtherVolume(..))));
    assert!(matches!(Log::open(&path, Identity { block_size: 512, ..ID }), Err(LogError::OtherVolume(..))));
    assert!(Log::open(&path, ID).is_ok());
}

#[test]
fn neighbours_join_into_one_record() {
    let mut out = Vec::new();
    for block in 5..37 {
        append(&mut out, Fact::Intent, block, 3);
    }
    append(&mut out, Fact::Intent, 37, 4);
    append(&mut out, Fact::Acknowledged, 38, 4);
    let records: Vec<Record> = out.as_chunks().0.iter().map(|r| Record::parse(r).unwrap()).collect();
    let record = |fact, block, count, generation| Record { fact, block, count, generation };
    let (i, a) = (Fact::Intent, Fact::Acknowledged);
    assert_eq!(records, [record(i, 5, 32, 3), record(i, 37, 1, 4), record(a, 38, 1, 4)]);
}
