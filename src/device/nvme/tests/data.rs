//! What is written is what is read, whatever the controller looks like.

use super::Bench;
use crate::base::rng::Rng;
use crate::device::nvme::model::Traits;
use crate::device::{Op, OpKind, Queue};
use crate::wire::nvme::io_op;

fn kinds_of_controllers() -> Vec<Traits> {
    let t = Traits::default;
    vec![
        t(),
        Traits { entries_max: 2, ..t() },
        Traits { entries_max: 5, queues: 1, mdts: 1, ..t() },
        Traits { sgl: true, ..t() },
        Traits { shadow: true, ..t() },
        Traits { shadow: true, entries_max: 7, stride_shift: 2, ..t() },
        Traits { block_shift: 9, blocks: 16384, mdts: 3, version: 2 << 16, ..t() },
        Traits { mdts: 0, write_zeroes: false, stride_shift: 3, ..t() },
        Traits { write_zeroes: false, mdts: 2, entries_max: 3, ..t() },
    ]
}

/// Random operations with several under way that never overlap, held to an array of bytes.
#[test]
fn random_operations_agree_with_an_array() {
    for (n, traits) in kinds_of_controllers().into_iter().enumerate() {
        let mut bench = Bench::open(traits.clone(), 24);
        bench.rig.model.scramble(n as u64 + 1);
        let block = 1u64 << traits.block_shift;
        let size = traits.blocks * block;
        let mut rng = Rng::new(77 + n as u64);
        let mut oracle = vec![0u8; size as usize];
        for round in 0..300u64 {
            // Each operation in a part of its own.
            let parts = 1 + rng.below(16);
            let part = size / 16;
            let mut reads = Vec::new();
            for token in 0..parts {
                let most = if rng.chance(8) { part / block } else { 8 };
                let len = (1 + rng.below(most)) * block;
                let offset = token * part + rng.below((part - len) / block + 1) * block;
                let range = offset as usize..(offset + len) as usize;
                let kind =
                    [OpKind::Read, OpKind::Write, OpKind::Write, OpKind::WriteZeroes, OpKind::Discard, OpKind::Flush]
                        [rng.below(6) as usize];
                match kind {
                    OpKind::Read | OpKind::Write => {
                        // Not always at the start of the buffer.
                        let at = rng.below(9) * block.min(512 * (1 + rng.below(8))).max(block);
                        let Some(mut buf) = bench.pool.get((at + len) as usize) else { continue };
                        if kind == OpKind::Write {
                            rng.fill(&mut buf[at as usize..]);
                            oracle[range].copy_from_slice(&buf[at as usize..]);
                        } else {
                            reads.push((token, at as usize, range));
                        }
                        bench.submit(0, Op { kind, offset, len, buf: Some(buf), at: at as u32, token });
                    }
                    OpKind::Flush => bench.plain(kind, 0, 0, token),
                    _ => {
                        // The model's deallocated blocks read as zeroes.
                        oracle[range].fill(0);
                        bench.plain(kind, offset, len, token);
                    }
                }
                if rng.chance(30) {
                    bench.rig.step(1000);
                }
            }
            let mut done = bench.drain();
            for d in &done {
                assert_eq!(d.result, Ok(()), "{n} {round} {d:?}");
            }
            for (token, at, range) in reads {
                let read = done.iter_mut().find(|d| d.token == token && d.kind == OpKind::Read).unwrap();
                let buf = read.buf.as_ref().unwrap();
                assert!(buf[at..] == oracle[range.clone()], "controller {n}, round {round}, bytes {range:?}");
            }
            bench.pool.put_all(done.into_iter().filter_map(|d| d.buf));
        }
        assert!(bench.rig.model.disks[0] == oracle, "controller {n}");
        assert_eq!(bench.rig.model.seen.sgls != 0, traits.sgl);
        assert_eq!(bench.rig.model.seen.enabled, 1);
    }
}

#[test]
fn long_operations_are_split_at_what_the_controller_takes() {
    let mut bench = Bench::open(Traits::default(), 4);
    bench.one(OpKind::Write, 0, 4 << 20).unwrap();
    assert_eq!(bench.commands(io_op::WRITE), 32);
    assert!(bench.rig.model.disks[0][..4 << 20].iter().all(|b| *b == 0xa5));
    bench.one(OpKind::Read, 4096, (1 << 20) + 4096).unwrap();
    assert_eq!(bench.commands(io_op::READ), 9);
    // Without limits of its own, Write Zeroes keeps to MDTS.
    bench.one(OpKind::WriteZeroes, 0, 1 << 20).unwrap();
    assert_eq!((bench.commands(io_op::WRITE_ZEROES), bench.rig.model.seen.deallocating), (8, 8));
    bench.one(OpKind::Discard, 1 << 20, 15 << 20).unwrap();
    assert_eq!(bench.commands(io_op::DSM), 1);
    assert!(bench.rig.model.disks[0].iter().all(|b| *b == 0));
    let mut bench = Bench::open(Traits { version: 2 << 16, dlfeat: 1, ..Traits::default() }, 4);
    bench.one(OpKind::WriteZeroes, 0, 16 << 20).unwrap();
    assert_eq!((bench.commands(io_op::WRITE_ZEROES), bench.rig.model.seen.deallocating), (1, 0));
}

#[test]
fn more_operations_than_commands_wait_their_turn() {
    let mut bench = Bench::open(Traits { entries_max: 8, ..Traits::default() }, 64);
    bench.rig.model.faults.hold = true;
    for i in 0..64 {
        bench.transfer(OpKind::Write, i * 4096, 4096, i, i as u8);
    }
    let one_more = Op { kind: OpKind::Flush, offset: 0, len: 0, buf: None, at: 0, token: 99 };
    assert!(bench.rig.queues[0].submit(one_more).is_err());
    bench.rig.step(1000);
    assert_eq!(bench.rig.queues[0].inflight(), 64);
    bench.rig.model.faults.hold = false;
    let done = bench.drain();
    assert!(done.len() == 64 && done.iter().all(|d| d.result.is_ok()));
    assert!((0..64).all(|i| bench.rig.model.disks[0][i * 4096] == i as u8));
}

#[test]
fn doorbells_are_rung_once_per_turn() {
    let mut bench = Bench::open(Traits::default(), 32);
    let before = bench.rig.model.seen.bells;
    for turn in 0..10 {
        (0..32).for_each(|i| bench.transfer(OpKind::Write, i * 4096, 4096, i, 1));
        bench.rig.step(1000);
        assert_eq!(bench.rig.queues[0].inflight(), 0);
        assert_eq!(bench.rig.model.seen.bells - before, turn + 1);
        bench.pool.put_all(std::mem::take(&mut bench.rig.done).into_iter().filter_map(|d| d.buf));
    }
}

#[test]
fn several_queues_work_side_by_side() {
    let mut bench = Bench::open(Traits { shadow: true, ..Traits::default() }, 8);
    (1..4).for_each(|_| bench.queue(8));
    for round in 0..200u64 {
        for queue in 0..4 {
            let mut buf = bench.pool.get(4096).unwrap();
            buf.fill((round + queue) as u8);
            let offset = queue * (4 << 20) + round * 4096;
            bench
                .submit(queue as usize, Op { kind: OpKind::Write, offset, len: 4096, buf: Some(buf), at: 0, token: 0 });
        }
        if round % 3 == 2 {
            bench.drain().into_iter().for_each(|d| bench.pool.put_all(d.buf));
        }
    }
    bench.drain();
    for queue in 0..4u64 {
        for round in 0..200u64 {
            let at = (queue * (4 << 20) + round * 4096) as usize;
            assert_eq!(bench.rig.model.disks[0][at], (round + queue) as u8);
        }
    }
}
