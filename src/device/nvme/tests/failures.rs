//! Errors, commands that hang, resets, and the end.

use super::{Bench, SECOND};
use crate::device::nvme::NvmeSpec;
use crate::device::nvme::model::Traits;
use crate::device::{DeviceError, Op, OpKind, Queue};
use crate::wire::nvme::{io_op, sc};

const TIMEOUT: u64 = NvmeSpec::TIMEOUT_NS;

#[test]
fn a_failed_command_fails_its_operation_only() {
    let mut bench = Bench::open(Traits::default(), 8);
    let fail = |bench: &mut Bench, opcode, status| bench.rig.model.faults.fail.push_back((opcode, status, true));
    fail(&mut bench, io_op::READ, sc::UNRECOVERED_READ);
    assert_eq!(bench.one(OpKind::Read, 0, 4096), Err(DeviceError::Media));
    fail(&mut bench, io_op::WRITE, sc::CAPACITY_EXCEEDED);
    assert_eq!(bench.one(OpKind::Write, 0, 4096), Err(DeviceError::NoSpace));
    // One part of several.
    fail(&mut bench, io_op::WRITE, sc::WRITE_FAULT);
    assert_eq!(bench.one(OpKind::Write, 0, 4 << 20), Err(DeviceError::Media));
    fail(&mut bench, io_op::DSM, sc::INVALID_FIELD);
    assert_eq!(bench.one(OpKind::Discard, 0, 4096), Err(DeviceError::Unsupported));
    bench.one(OpKind::Write, 0, 4 << 20).unwrap();
    assert_eq!(bench.rig.model.seen.enabled, 1);
}

#[test]
fn a_failed_part_ends_an_operation_that_still_waits() {
    let mut bench = Bench::open(Traits { entries_max: 3, ..Traits::default() }, 8);
    for _ in 0..3 {
        bench.rig.model.faults.fail.push_back((io_op::WRITE, sc::WRITE_FAULT, true));
    }
    bench.transfer(OpKind::Write, 0, 4 << 20, 1, 1);
    bench.transfer(OpKind::Write, 4 << 20, 4 << 20, 2, 2);
    bench.transfer(OpKind::Read, 8 << 20, 4096, 3, 3);
    let mut done = bench.drain();
    done.sort_by_key(|d| d.token);
    assert_eq!(done.len(), 3);
    assert_eq!(done[0].result, Err(DeviceError::Media));
    assert!(done[2].result.is_ok() && done.iter().all(|d| d.buf.is_some()));
}

#[test]
fn what_passes_is_tried_again_a_little_later_and_not_for_ever() {
    let mut bench = Bench::open(Traits::default(), 8);
    for status in [sc::INTERRUPTED, sc::NAMESPACE_NOT_READY, sc::INTERNAL_PATH] {
        bench.rig.model.faults.fail.push_back((io_op::WRITE, status, false));
    }
    let start = bench.rig.now;
    bench.transfer(OpKind::Write, 0, 4096, 1, 1);
    let done = bench.run(100_000, SECOND);
    assert!(done.len() == 1 && done[0].result.is_ok());
    assert!((30_000_000..60_000_000).contains(&bench.rig.now.since(start)));
    for _ in 0..100 {
        bench.rig.model.faults.fail.push_back((io_op::READ, sc::INTERRUPTED, false));
    }
    bench.transfer(OpKind::Read, 0, 4096, 1, 1);
    let done = bench.run(100_000, SECOND);
    assert_eq!(done[0].result, Err(DeviceError::Os(libc::ETIMEDOUT)));
    assert_eq!(bench.rig.model.faults.fail.len(), 100 - 9);
}

#[test]
fn a_failed_flush_is_the_end_of_the_namespace() {
    let mut bench = Bench::open(Traits::default(), 8);
    bench.queue(8);
    bench.rig.model.faults.fail.push_back((io_op::FLUSH, sc::WRITE_FAULT, true));
    assert_eq!(bench.one(OpKind::Flush, 0, 0), Err(DeviceError::Dead));
    assert_eq!(bench.one(OpKind::Read, 0, 4096), Err(DeviceError::Dead));
    bench.rig.queues.swap(0, 1);
    assert_eq!(bench.one(OpKind::Flush, 0, 0), Err(DeviceError::Dead));
    // What was acknowledged before it failed may not be acknowledged after.
    assert!(bench.rig.plugged(), "the controller itself goes on for other namespaces");
}

#[test]
fn write_zeroes_that_is_refused_is_done_by_hand() {
    let mut bench = Bench::open(Traits { mdts: 2, version: 2 << 16, ..Traits::default() }, 8);
    bench.one(OpKind::Write, 0, 4 << 20).unwrap();
    bench.rig.model.traits.write_zeroes = false;
    bench.one(OpKind::WriteZeroes, 4096, 1 << 20).unwrap();
    assert!(!bench.rig.queues[0].caps().write_zeroes);
    let disk = &bench.rig.model.disks[0];
    assert!(
        disk[4096..4096 + (1 << 20)].iter().all(|b| *b == 0) && disk[4095] == 0xa5 && disk[(1 << 20) + 4096] == 0xa5
    );
    assert_eq!(bench.commands(io_op::WRITE), 256 + 64);
}

#[test]
fn a_command_that_hangs_is_aborted_and_tried_again() {
    let mut bench = Bench::open(Traits::default(), 8);
    bench.rig.model.faults.swallow = 1;
    bench.rig.model.faults.abortable = true;
    let start = bench.rig.now;
    bench.transfer(OpKind::Write, 0, 4096, 1, 0x11);
    let done = bench.run(SECOND / 50, 100 * SECOND);
    assert!(done.len() == 1 && done[0].result.is_ok());
    assert_eq!((bench.rig.model.seen.aborts, bench.rig.model.seen.enabled), (1, 1));
    assert!((TIMEOUT..TIMEOUT * 3 / 2).contains(&bench.rig.now.since(start)));
    assert_eq!(bench.rig.model.disks[0][0], 0x11);
    // Again and again: an error, not an endless wait.
    bench.rig.model.faults.swallow = 1000;
    bench.transfer(OpKind::Read, 0, 4096, 1, 0);
    let done = bench.run(SECOND / 50, 100 * SECOND);
    assert_eq!(done[0].result, Err(DeviceError::Os(libc::ETIMEDOUT)));
    assert_eq!(bench.rig.model.seen.enabled, 1);
}

#[test]
fn an_idle_time_before_is_not_counted_as_waiting() {
    let mut bench = Bench::open(Traits::default(), 8);
    for _ in 0..5 {
        bench.one(OpKind::Write, 0, 4096).unwrap();
        bench.rig.now = bench.rig.now.after_ns(1000 * SECOND);
    }
    bench.rig.model.faults.hold = true;
    bench.transfer(OpKind::Read, 0, 4096, 1, 0);
    bench.run(SECOND / 10, TIMEOUT - 2 * SECOND);
    assert_eq!(bench.rig.model.seen.aborts, 0);
}

#[test]
fn when_abort_does_not_help_a_reset_does_and_nothing_is_lost() {
    for (shadow, scramble) in [(false, 1), (true, 2)] {
        let mut bench = Bench::open(Traits { shadow, ..Traits::default() }, 64);
        bench.queue(8);
        bench.rig.model.scramble(scramble);
        // The other queue sleeps; it holds nobody up.
        for i in 0..40 {
            bench.transfer(OpKind::Write, i * 65536, 4096, i, i as u8 + 1);
        }
        bench.transfer(OpKind::Write, 8 << 20, 4 << 20, 40, 99);
        bench.rig.model.faults.swallow = 5;
        let done = bench.run(SECOND / 50, 100 * SECOND);
        assert!(done.len() == 41 && done.iter().all(|d| d.result.is_ok()), "{done:?}");
        assert_eq!(bench.rig.model.seen.enabled, 2);
        assert!((0..40).all(|i| bench.rig.model.disks[0][i * 65536] == i as u8 + 1));
        assert!(bench.rig.model.disks[0][8 << 20..12 << 20].iter().all(|b| *b == 99));
        // Both queues work in the new life.
        for queue in 0..2 {
            let buf = bench.pool.get(4096).unwrap();
            let op = Op { kind: OpKind::Read, offset: 65536, len: 4096, buf: Some(buf), at: 0, token: 5 };
            bench.submit(queue, op);
            let done = bench.drain();
            assert!(done[0].result.is_ok() && done[0].buf.as_ref().unwrap().iter().all(|b| *b == 2));
            bench.pool.put_all(done.into_iter().filter_map(|d| d.buf));
        }
    }
}

#[test]
fn a_controller_that_never_recovers_is_dead_and_cut_off() {
    let mut bench = Bench::open(Traits::default(), 8);
    bench.rig.model.faults.swallow = u32::MAX;
    (0..4).for_each(|i| bench.transfer(OpKind::Write, i * 4096, 4096, i, 1));
    let done = bench.run(SECOND / 20, 400 * SECOND);
    assert!(done.len() == 4 && done.iter().all(|d| d.result == Err(DeviceError::Dead) && d.buf.is_some()));
    assert_eq!(bench.rig.model.seen.enabled, 4, "three resets");
    assert!(!bench.rig.plugged());
    assert_eq!(bench.one(OpKind::Read, 0, 4096), Err(DeviceError::Dead));
    assert_eq!(bench.one(OpKind::Flush, 0, 0), Err(DeviceError::Dead));
}

#[test]
fn a_controller_that_does_not_stop_or_start_again_is_dead() {
    for restless in [true, false] {
        let mut bench = Bench::open(Traits::default(), 8);
        bench.transfer(OpKind::Write, 0, 4096, 1, 1);
        bench.rig.model.faults.swallow = 1;
        bench.rig.step(1000);
        (bench.rig.model.faults.restless, bench.rig.model.faults.deaf) = (restless, !restless);
        bench.rig.model.faults.fatal = true;
        bench.rig.model.step();
        let done = bench.run(SECOND / 50, 100 * SECOND);
        assert!(done.len() == 1 && done[0].result == Err(DeviceError::Dead) && !bench.rig.plugged());
    }
}

#[test]
fn a_fatal_status_is_reset_away() {
    let mut bench = Bench::open(Traits::default(), 8);
    bench.rig.model.faults.hold = true;
    bench.transfer(OpKind::Write, 0, 4096, 1, 7);
    bench.rig.step(1000);
    bench.rig.model.faults.fatal = true;
    bench.rig.model.step();
    bench.rig.model.faults.hold = false;
    let done = bench.run(SECOND / 1000, SECOND);
    assert!(done[0].result.is_ok() && bench.rig.model.seen.enabled == 2 && bench.rig.model.disks[0][0] == 7);
}

#[test]
fn a_removed_controller_is_dead_at_once() {
    let mut bench = Bench::open(Traits::default(), 8);
    bench.queue(4);
    bench.rig.model.faults.hold = true;
    (0..3).for_each(|i| bench.transfer(OpKind::Write, i * 4096, 4096, i, 1));
    bench.rig.step(1000);
    bench.rig.model.faults.removed = true;
    let done = bench.run(SECOND / 1000, SECOND / 10);
    assert!(done.len() == 3 && done.iter().all(|d| d.result == Err(DeviceError::Dead) && d.buf.is_some()));
    assert!(!bench.rig.plugged());
    let op = Op { kind: OpKind::Flush, offset: 0, len: 0, buf: None, at: 0, token: 5 };
    bench.submit(1, op);
    assert_eq!(bench.drain()[0].result, Err(DeviceError::Dead));
}

#[test]
fn another_controller_in_the_same_place_is_not_ours() {
    let mut bench = Bench::open(Traits::default(), 8);
    bench.rig.model.traits.serial = "MODEL2";
    bench.rig.model.faults.fatal = true;
    bench.rig.model.step();
    bench.rig.tick();
    assert_eq!(bench.one(OpKind::Read, 0, 4096), Err(DeviceError::Dead));
}

#[test]
fn a_completion_for_nothing_is_answered_by_a_reset() {
    let mut bench = Bench::open(Traits::default(), 8);
    bench.rig.model.faults.hold = true;
    (0..4).for_each(|i| bench.transfer(OpKind::Write, i * 4096, 4096, i, i as u8));
    bench.rig.model.faults.ghost = true;
    // It comes on the queue of the highest number, which is the first to be handed out.
    bench.rig.step(1000);
    bench.rig.model.faults.hold = false;
    let done = bench.run(SECOND / 1000, SECOND);
    assert!(done.len() == 4 && done.iter().all(|d| d.result.is_ok()));
    assert!((0..4).all(|i| bench.rig.model.disks[0][i * 4096] == i as u8));
}

#[test]
fn a_queue_left_with_commands_under_way_is_made_new() {
    let mut bench = Bench::open(Traits { queues: 1, shadow: true, ..Traits::default() }, 8);
    for round in 0..5 {
        bench.rig.model.faults.hold = true;
        (0..4).for_each(|i| bench.transfer(OpKind::Write, i * 4096, 4096, i, round));
        bench.rig.step(1000);
        bench.rig.queues.clear();
        let span = bench.span;
        assert!(bench.rig.open(1, 8, &[span]).is_err(), "the controller still has it");
        bench.rig.tick();
        bench.rig.model.faults.hold = false;
        bench.queue(8);
        bench.one(OpKind::Write, 65536, 4096).unwrap();
        assert_eq!(bench.rig.model.seen.enabled, 1);
    }
}

#[test]
fn a_buffer_the_controller_can_not_reach_is_refused() {
    let mut bench = Bench::open(Traits::default(), 8);
    let mut other = crate::device::testing::pool();
    let buf = other.get(4096).unwrap();
    bench.submit(0, Op { kind: OpKind::Read, offset: 0, len: 4096, buf: Some(buf), at: 0, token: 1 });
    let done = bench.drain();
    assert_eq!(done[0].result, Err(DeviceError::Os(libc::EFAULT)));
    assert_eq!(bench.commands(io_op::READ), 0);
}
