//! Bring-up, shutdown, events.

use super::{Bench, SECOND};
use crate::device::nvme::model::Traits;
use crate::device::nvme::{ControllerError, NvmeError};
use crate::device::{DeviceError, OpKind, Queue};
use crate::wire::nvme::feature::Event;
use crate::wire::nvme::io_op;

#[test]
fn a_controller_comes_up_serves_and_is_shut_down() {
    for version in [1 << 16 | 4 << 8, 2 << 16] {
        let mut bench = Bench::open(Traits { version, ..Traits::default() }, 8);
        assert!(bench.rig.plugged());
        let facts = bench.rig.admin.facts().clone();
        assert_eq!((facts.serial.as_str(), facts.transfer_max, facts.volatile_cache), ("MODEL1", 128 << 10, true));
        // Who has limits of its own for Write Zeroes says so; for the others MDTS is taken.
        assert_eq!(facts.zeroes_max, (version < 2 << 16).then_some(128 << 10));
        let caps = bench.rig.queues[0].caps().clone();
        assert_eq!((caps.size, caps.block_size, caps.depth, caps.atomic_bytes), (16 << 20, 4096, 8, 4096));
        assert!(caps.write_zeroes && caps.discard && caps.volatile_cache && !caps.read_only);
        bench.one(OpKind::Write, 8192, 4096).unwrap();
        bench.one(OpKind::Read, 8192, 4096).unwrap();
        let smart = bench.rig.with(|admin, world| admin.smart(world)).unwrap();
        assert_eq!((smart.reads.get(), smart.writes.get(), smart.temperature.get()), (1, 1, 300));
        assert_eq!(bench.rig.with(|admin, world| admin.errors(world)).unwrap().len(), 1);
        bench.rig.queues.clear();
        assert_eq!(bench.rig.admin.shared().totals.get(), [1, 1, 0, 0, 0]);
        bench.rig.with(|admin, world| admin.stop(world));
        assert_eq!((bench.rig.model.seen.shutdowns, bench.rig.plugged()), (1, false));
    }
}

#[test]
fn a_controller_that_was_left_running_is_taken_over() {
    let mut bench = Bench::new(Traits::default());
    bench.rig.start().unwrap();
    // Another start, as after a crash that left it enabled with queues.
    let traits = bench.rig.model.traits.clone();
    let mut again = Bench::new(traits);
    std::mem::swap(&mut again.rig.model, &mut bench.rig.model);
    // The second driver has other registers; it is given the first one's.
    let admin = crate::device::nvme::admin::Admin::new(again.rig.model.bar(), again.rig.model.dma(), Box::new(Nothing));
    again.rig.admin = admin.unwrap();
    again.rig.start().unwrap();
    again.queue(4);
    again.one(OpKind::Write, 0, 4096).unwrap();
    assert_eq!(again.rig.model.seen.enabled, 2);
}

struct Nothing;
impl crate::device::nvme::admin::Plug for Nothing {
    fn pull(&mut self) {}
    fn push(&mut self) {}
}

#[test]
fn a_controller_that_can_not_be_used_says_why() {
    let start = |break_it: &dyn Fn(&mut Bench)| {
        let mut bench = Bench::new(Traits::default());
        break_it(&mut bench);
        let error = bench.rig.start().unwrap_err();
        let NvmeError::Controller(error) = error else { panic!("{error}") };
        (error, bench.rig.now.0)
    };
    let (error, took) = start(&|b| b.rig.model.faults.deaf = true);
    assert_eq!(error, ControllerError::Slow { what: "become ready", ms: 1000 });
    assert!((SECOND..2 * SECOND).contains(&took));
    let (error, _) = start(&|b| {
        b.rig.model.faults.removed = true;
        b.rig.model.step();
    });
    assert_eq!(error, ControllerError::Gone);
    for (traits, part) in [
        (Traits { metadata: 8, ..Traits::default() }, "8 bytes of metadata per block"),
        (Traits { block_shift: 13, ..Traits::default() }, "blocks of 2^13 bytes"),
    ] {
        let mut bench = Bench::new(traits);
        bench.rig.start().unwrap();
        let error = bench.rig.open(1, 4, &[]).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    let mut bench = Bench::open(Traits::default(), 4);
    assert!(bench.rig.open(9, 4, &[]).unwrap_err().to_string().contains("0/0bh"));
    let span = bench.span;
    (1..4).for_each(|_| bench.rig.open(1, 4, &[span]).unwrap());
    assert!(matches!(bench.rig.open(1, 4, &[span]), Err(NvmeError::NoQueue(4))));
    bench.rig.queues.pop();
    bench.rig.open(1, 4, &[span]).unwrap();
}

#[test]
fn a_grown_namespace_shows_and_a_formatted_one_is_dead() {
    let mut bench = Bench::open(Traits::default(), 4);
    for round in 1..=10 {
        // Requests are sent again after each event, so there is always one.
        bench.rig.model.traits.blocks += 16;
        assert!(bench.rig.model.event(Event::NAMESPACE_CHANGED), "round {round}");
        bench.rig.tick();
        bench.rig.step(1000);
        assert_eq!(bench.rig.queues[0].caps().size, (4096 + 16 * round) * 4096);
    }
    // Smaller is not a smaller device: what was there fails.
    bench.rig.model.traits.blocks = 100;
    assert!(bench.rig.model.event(Event::NAMESPACE_CHANGED));
    bench.rig.tick();
    assert_eq!(bench.one(OpKind::Read, 16 << 20, 4096), Err(DeviceError::Media));
    bench.rig.model.traits.block_shift = 9;
    assert!(bench.rig.model.event(Event::NAMESPACE_CHANGED));
    bench.rig.tick();
    assert_eq!(bench.one(OpKind::Read, 0, 4096), Err(DeviceError::Dead));
}

#[test]
fn health_and_error_events_are_looked_at_and_all_requests_come_back() {
    let mut bench = Bench::open(Traits::default(), 4);
    for round in 0..50 {
        let kinds = [
            Event { kind: 1, info: 1, lid: 2 },
            Event { kind: 0, info: 3, lid: 1 },
            Event { kind: 6, info: 0, lid: 0x80 },
        ];
        let burst = 1 + round % 4;
        for i in 0..burst {
            assert!(bench.rig.model.event(kinds[(round + i) % 3]), "round {round}");
        }
        bench.rig.tick();
        bench.rig.model.step();
    }
    bench.one(OpKind::Read, 0, 4096).unwrap();
    assert_eq!(bench.rig.model.seen.enabled, 1, "no event is a reason for a reset");
}

#[test]
fn what_the_medium_does_not_need_is_not_sent() {
    let mut bench = Bench::open(Traits { volatile_cache: false, discard: false, ..Traits::default() }, 4);
    assert!(!bench.rig.queues[0].caps().volatile_cache);
    bench.one(OpKind::Flush, 0, 0).unwrap();
    assert_eq!(bench.one(OpKind::Discard, 0, 4096), Err(DeviceError::Unsupported));
    assert_eq!((bench.commands(io_op::FLUSH), bench.commands(io_op::DSM)), (0, 0));
    let mut bench = Bench::new(Traits::default());
    bench.rig.spec.read_only = true;
    bench.rig.start().unwrap();
    bench.queue(4);
    for kind in [OpKind::Write, OpKind::WriteZeroes, OpKind::Discard] {
        assert_eq!(bench.one(kind, 0, 4096), Err(DeviceError::Unsupported));
    }
    bench.one(OpKind::Read, 0, 4096).unwrap();
    bench.one(OpKind::Flush, 0, 0).unwrap();
    assert!(bench.rig.queues[0].caps().read_only && bench.rig.model.seen.commands.len() == 1);
}
