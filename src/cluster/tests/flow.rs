//! Objects through their lives, and what is done on the data path for it.

use super::*;
use crate::cluster::testing::run;
use crate::cluster::{
    Declared, DeclaredBdev, DeclaredIscsi, DeclaredStore, DeclaredSubsystem, DeclaredVolume, DelayTimes, Error,
    EventKind, FaultKind, FaultOn, FaultOrder, MadeOf, NamespaceSpec, NodeError, Problem,
};

/// Runs what waits for nothing.
fn now<T>(future: impl Future<Output = T>) -> T {
    run(future).expect("nothing to wait for")
}

fn furnished() -> Machine {
    let machine = Machine::new();
    now(furnish(&machine.control));
    machine
}

fn restart(machine: Machine) -> Machine {
    let Machine { file, world, control, .. } = machine;
    drop(control);
    let fuse = Fuse::of(u64::MAX);
    Machine::boot(file.copy(), fuse, world)
}

#[test]
fn everything_is_there_after_a_restart() {
    let machine = furnished();
    let view = machine.view();
    assert_eq!(view.len(), 9, "{view:?}");
    let again = restart(machine);
    assert_eq!(again.view(), view);
    assert!(again.control.problems().is_empty());
    let node = again.control.node();
    assert_eq!(node.listening.borrow().len(), 2);
    let published = node.published.borrow().clone().expect("exports were published");
    assert_eq!(published.subsystem(nqn("cnode1").as_str()).unwrap().namespaces.len(), 1);
}

#[test]
fn bdevs_answer_to_name_alias_and_uuid() {
    let c = furnished().control;
    let volume = c.bdev("lvs/vol").unwrap();
    assert_eq!(volume.name(), volume.uuid().to_string());
    assert_eq!(c.bdev(&volume.name()).unwrap(), volume);
    assert_eq!(c.bdev(&volume.name().to_uppercase()).unwrap(), volume);
    let device = c.bdev("U0").unwrap();
    assert_eq!(c.bdev(&device.uuid().to_string()).unwrap(), device);
    assert_eq!(c.bdev("vol"), Err(Error::NoBdev("vol".into())));
    assert!(matches!(c.volume("U0"), Err(Error::WrongKind { .. })));
}

#[test]
fn deleting_a_base_takes_what_is_built_on_it_and_keeps_the_data() {
    let machine = furnished();
    let c = &machine.control;
    now(c.delete_device("U0", "a file", |_| true)).unwrap();
    assert!(c.bdevs().is_empty());
    assert!(c.state().stores().next().is_none());
    assert!(c.state().subsystem(nqn("cnode1").as_str()).unwrap().namespaces.is_empty());
    let calls = c.node().calls.borrow().clone();
    let tail: Vec<&str> = calls[calls.len() - 3..].iter().map(String::as_str).collect();
    assert_eq!(tail, ["publish", "close_store", "close_device"], "hosts lose it before it closes");
    // Opening the device again finds the store and its volume.
    now(c.create_device(bdev("X"), None, file("/disk"))).unwrap();
    assert!(c.bdev("lvs/vol").is_ok());
    let again = restart(machine);
    assert!(again.control.bdev("lvs/vol").is_ok());
}

#[test]
fn a_deleted_store_does_not_come_back() {
    let machine = furnished();
    now(machine.control.delete_store("lvs")).unwrap();
    let again = restart(machine);
    assert!(again.control.state().stores().next().is_none());
    assert_eq!(again.control.bdevs().len(), 1);
    now(again.control.create_store("U0", store("lvs"))).expect("the device is free again");
}

#[test]
fn a_deletion_that_the_device_refuses_is_done_at_the_next_start() {
    let machine = furnished();
    let c = &machine.control;
    *c.node().fail.borrow_mut() = Some(("delete_volume", NodeError::Os { what: "write", errno: libc::EIO }));
    now(c.delete_volume("lvs/vol")).expect("it is decided");
    assert!(c.bdev("lvs/vol").is_err());
    assert!(matches!(c.problems()[..], [(Problem::Intent(_), _)]), "{:?}", c.problems());
    let again = restart(machine);
    assert!(again.control.bdev("lvs/vol").is_err());
    assert!(again.control.problems().is_empty());
    assert_eq!(again.control.state().intents().count(), 0);
}

#[test]
fn a_device_that_is_missing_at_start_is_a_problem_until_it_is_back() {
    let machine = furnished();
    let gone = std::mem::take(&mut *machine.world.borrow_mut());
    let again = restart(machine);
    let c = &again.control;
    assert!(c.bdevs().is_empty());
    assert_eq!(c.problems().len(), 2, "the device and its store: {:?}", c.problems());
    assert!(matches!(now(c.create_volume("lvs", volume("x"), MIB, true)), Err(Error::StoreDown(_))));
    assert_eq!(c.state().subsystem(nqn("cnode1").as_str()).unwrap().namespaces.len(), 1, "the export is kept");
    *again.world.borrow_mut() = gone;
    now(c.create_device(bdev("U0"), None, file("/disk"))).expect("asking again opens it");
    assert!(c.problems().is_empty());
    let exported = c.state().subsystem(nqn("cnode1").as_str()).unwrap().namespaces[&1].volume;
    assert_eq!(c.bdev("lvs/vol").unwrap().id(), exported, "under the same identity");
}

#[test]
fn a_failed_open_or_commit_leaves_nothing() {
    let machine = Machine::new();
    let c = &machine.control;
    let missing = now(c.create_device(bdev("N"), None, file("/nowhere")));
    let os = NodeError::Os { what: "open", errno: libc::ENOENT };
    assert_eq!(missing, Err(Error::Node { what: "open bdev", object: "N".into(), source: os }));
    assert!(c.state().devices().next().is_none());
    machine.file.set_broken(true);
    assert!(matches!(now(c.create_device(bdev("U0"), None, file("/disk"))), Err(Error::Journal(_))));
    assert!(c.bdevs().is_empty());
    assert_eq!(c.node().calls.borrow().last().map(String::as_str), Some("close_device"));
}

#[test]
fn names_and_uses_do_not_collide() {
    let c = furnished().control;
    let malloc = DeviceSpec::Malloc { block_size: 512, blocks: 64, physical_block: None };
    assert_eq!(now(c.create_device(bdev("U0"), None, malloc.clone())), Err(Error::BdevExists("U0".into())));
    let taken = c.bdev("lvs/vol").unwrap().uuid();
    assert!(matches!(now(c.create_device(bdev("M"), Some(taken), malloc.clone())), Err(Error::BdevExists(_))));
    assert!(matches!(now(c.create_store("U0", store("more"))), Err(Error::BdevInUse { .. })));
    now(c.create_device(bdev("M"), None, malloc)).unwrap();
    assert_eq!(now(c.create_store("M", store("lvs"))), Err(Error::StoreExists("lvs".into())));
    assert!(matches!(now(c.create_volume("lvs", volume("vol"), MIB, true)), Err(Error::VolumeExists(_))));
    let on_store = NamespaceSpec { bdev: "U0".into(), ..NamespaceSpec::default() };
    assert!(matches!(now(c.add_namespace(&nqn("cnode1"), &on_store)), Err(Error::BdevInUse { .. })));
    let spec = NamespaceSpec { bdev: "M".into(), nsid: Some(1), ..NamespaceSpec::default() };
    assert!(matches!(now(c.add_namespace(&nqn("cnode1"), &spec)), Err(Error::NamespaceExists { nsid: 1, .. })));
    assert_eq!(now(c.add_namespace(&nqn("cnode1"), &NamespaceSpec { nsid: None, ..spec })), Ok(2));
    let wrapper = DeviceSpec::Fault { base: c.bdev("M").unwrap().id() };
    assert!(matches!(now(c.create_device(bdev("EE"), None, wrapper)), Err(Error::BdevInUse { .. })));
    assert!(matches!(now(c.create_store("M", store("s"))), Err(Error::BdevInUse { .. })));
}

#[test]
fn thick_volumes_are_promised_their_space() {
    let c = furnished().control;
    let lvs = c.store("lvs").unwrap();
    assert_eq!(now(c.room(&lvs)).unwrap().free, 64 * 256 - 3, "a thin volume takes what it has mapped");
    assert!(matches!(now(c.create_volume("lvs", volume("big"), 64 * MIB, false)), Err(Error::NoSpace { .. })));
    now(c.create_volume("lvs", volume("thin"), 1024 * MIB, true)).expect("a thin one may promise too much");
    now(c.create_volume("lvs", volume("thick"), 32 * MIB, false)).unwrap();
    assert!(matches!(now(c.resize_volume("lvs/thick", 64 * MIB)), Err(Error::NoSpace { .. })));
    now(c.resize_volume("lvs/thick", 60 * MIB)).unwrap();
    now(c.resize_volume("lvs/thick", MIB)).unwrap();
    assert_eq!(c.bdev("lvs/thick").unwrap().blocks(), 256);
}

#[test]
fn listeners_share_an_address_and_leave_it_when_the_last_is_gone() {
    let c = furnished().control;
    let addr = "127.0.0.1:4420".parse().unwrap();
    now(c.change(Command::CreateSubsystem(crate::cluster::Subsystem::new(nqn("c2"))))).unwrap();
    now(c.add_listener(&nqn("c2"), addr)).expect("the address is ours already");
    assert!(matches!(now(c.add_listener(&nqn("c2"), addr)), Err(Error::ListenerExists { .. })));
    now(c.change(Command::RemoveListener(nqn("c2"), addr))).unwrap();
    assert!(c.node().listening.borrow().contains_key(&addr));
    now(c.change(Command::DeleteSubsystem(nqn("cnode1")))).unwrap();
    assert!(!c.node().listening.borrow().contains_key(&addr));
}

#[test]
fn an_address_in_use_refuses_a_new_listener_and_delays_a_remembered_one() {
    let machine = furnished();
    let (old, new) = ("127.0.0.1:4420".parse().unwrap(), "127.0.0.1:4421".parse().unwrap());
    machine.world.borrow_mut().taken.extend([old, new]);
    let refused = now(machine.control.add_listener(&nqn("cnode1"), new));
    assert!(matches!(refused, Err(Error::Node { source: NodeError::Os { errno: libc::EADDRINUSE, .. }, .. })));
    let again = restart(machine);
    let c = &again.control;
    assert_eq!(c.problems().len(), 1);
    now(c.mend());
    assert_eq!(c.problems().len(), 1, "still taken");
    again.world.borrow_mut().taken.clear();
    now(c.mend());
    assert!(c.problems().is_empty() && c.node().listening.borrow().contains_key(&old));
}

#[test]
fn wrappers_have_their_knobs() {
    let c = Machine::new().control;
    now(c.create_device(bdev("N"), None, DeviceSpec::Null { block_size: 512, blocks: 8 })).unwrap();
    let base = c.bdev("N").unwrap().id();
    let times = DelayTimes { read_avg_us: 1, read_p99_us: 2, write_avg_us: 3, write_p99_us: 4 };
    now(c.create_device(bdev("D"), None, DeviceSpec::Delay { base, times })).unwrap();
    assert!(now(c.update_delay("D", |t| t.read_avg_us = 5)).is_err(), "the slow one percent would be the faster");
    now(c.update_delay("D", |t| t.read_p99_us = 50)).unwrap();
    let spec = c.state().device_named("D").unwrap().spec.clone();
    assert_eq!(spec, DeviceSpec::Delay { base, times: DelayTimes { read_p99_us: 50, ..times } });
    let order = FaultOrder { on: FaultOn::Read, kind: FaultKind::Fail, count: 1 };
    assert!(matches!(now(c.inject("D", order)), Err(Error::WrongKind { .. })));
    now(c.resize_null("N", 8192)).unwrap();
    assert_eq!(c.bdev("N").unwrap().blocks(), 16);
    assert_eq!(c.events(0, 9).last().map(|e| e.kind), Some(EventKind::Resize));
    now(c.delete_device("N", "a null bdev", |_| true)).unwrap();
    let events = c.events(0, 99);
    let gone: Vec<&str> = events.iter().filter(|e| e.kind == EventKind::Unregister).map(|e| e.bdev.as_str()).collect();
    assert_eq!(gone, ["D", "N"], "the wrapper goes first");
}

#[test]
fn what_is_declared_is_made_once_and_left_alone() {
    let delay = MadeOf::Delay("disk".into(), DelayTimes::default());
    let mut declared = Declared {
        bdevs: vec![
            DeclaredBdev { name: bdev("disk"), uuid: None, made_of: MadeOf::Medium(file("/disk")) },
            DeclaredBdev { name: bdev("gone"), uuid: None, made_of: MadeOf::Medium(file("/nowhere")) },
            DeclaredBdev { name: bdev("slow"), uuid: None, made_of: delay },
        ],
        stores: vec![DeclaredStore { name: store("lvs"), bdev: "slow".into(), format: false }],
        volumes: vec![DeclaredVolume { store: "lvs".into(), name: volume("vol"), bytes: 8 * MIB, thin: true }],
        transport: None,
        subsystems: vec![DeclaredSubsystem {
            subsystem: crate::cluster::Subsystem::new(nqn("c")),
            hosts: vec![nqn("h1"), nqn("h2")],
            namespaces: vec![NamespaceSpec { bdev: "lvs/vol".into(), ..NamespaceSpec::default() }],
            listeners: vec!["127.0.0.1:4420".parse().unwrap()],
        }],
        iscsi: DeclaredIscsi::default(),
    };
    let machine = Machine::new();
    let failed: Vec<String> = now(machine.control.declare(&declared)).into_iter().map(|(what, _)| what).collect();
    let space = "namespace 'lvs/vol' of 'nqn.2016-06.io.spdk:c'";
    assert_eq!(failed, ["bdev 'gone'", "store 'lvs'", "volume 'lvs/vol'", space], "nothing is formatted unasked");
    declared.stores[0].format = true;
    assert_eq!(now(machine.control.declare(&declared)).len(), 1, "what was missing is made, but for the missing file");
    now(machine.control.resize_volume("lvs/vol", 4 * MIB)).unwrap();
    now(machine.control.change(Command::RemoveHost(nqn("c"), nqn("h1")))).unwrap();
    let before = machine.control.state();
    now(machine.control.declare(&declared));
    assert_eq!(machine.control.state().generation(), before.generation() + 1, "only the missing host is added");
    assert_eq!(machine.control.bdev("lvs/vol").unwrap().blocks(), 1024, "what was changed by hand stays so");
    assert_eq!(now(machine.control.declare(&declared)).len(), 1);
    assert_eq!(machine.control.state().generation(), before.generation() + 1);
}

/// `format = true` stays in a configuration file for ever: it must never cost a store that is there.
#[test]
fn a_declared_store_is_not_made_over_one_that_can_not_be_opened() {
    let machine = furnished();
    let uuid = machine.control.bdev("lvs/vol").unwrap().uuid();
    let fuse = Fuse::of(u64::MAX);
    let other = Machine::boot(MemFile::new(fuse.clone()), fuse, machine.world.clone());
    let c = &other.control;
    for n in 0..2 {
        let malloc = DeviceSpec::Malloc { block_size: 512, blocks: 8, physical_block: None };
        now(c.create_device(bdev(&format!("M{n}")), None, malloc)).unwrap();
    }
    now(c.create_device(bdev("disk"), None, file("/disk"))).unwrap();
    let declared = Declared {
        stores: vec![DeclaredStore { name: store("fresh"), bdev: "disk".into(), format: true }],
        ..Declared::default()
    };
    let refused = now(c.declare(&declared));
    assert!(matches!(refused[..], [(_, Error::Conflict { field: "format", .. })]), "{refused:?}");
    for source in [NodeError::Damaged("superblock"), NodeError::Newer { found: 9, known: 1 }] {
        *c.node().fail.borrow_mut() = Some(("probe_store", source));
        let refused = now(c.declare(&declared));
        assert!(matches!(&refused[..], [(_, Error::Node { source: s, .. })] if *s == source), "{refused:?}");
    }
    assert!(!c.node().calls.borrow().iter().any(|call| call == "format_store"));
    now(c.delete_device("disk", "a file", |_| true)).unwrap();
    now(c.delete_device("M1", "a RAM disk", |_| true)).unwrap();
    now(c.create_device(bdev("disk"), None, file("/disk"))).unwrap();
    assert_eq!(c.bdev("lvs/vol").unwrap().uuid(), uuid, "it is still there");
}

#[test]
fn a_store_from_another_node_is_taken_over_unless_its_ids_are_in_use() {
    let machine = furnished();
    let uuid = machine.control.bdev("lvs/vol").unwrap().uuid();
    // A node that never heard of the disk, but has used ids of its own.
    let fuse = Fuse::of(u64::MAX);
    let other = Machine::boot(MemFile::new(fuse.clone()), fuse, machine.world.clone());
    let c = &other.control;
    for n in 0..2 {
        let malloc = DeviceSpec::Malloc { block_size: 512, blocks: 8, physical_block: None };
        now(c.create_device(bdev(&format!("M{n}")), None, malloc)).unwrap();
    }
    now(c.create_device(bdev("disk"), None, file("/disk"))).expect("the device itself is fine");
    assert!(matches!(c.problems()[..], [(Problem::Store(_), _)]), "volume 2 is a RAM disk here: {:?}", c.problems());
    now(c.delete_device("disk", "a file", |_| true)).unwrap();
    now(c.delete_device("M1", "a RAM disk", |_| true)).unwrap();
    now(c.create_device(bdev("disk"), None, file("/disk"))).unwrap();
    assert_eq!(c.bdev("lvs/vol").unwrap().uuid(), uuid);
    assert!(c.state().next_id() > c.bdev("lvs/vol").unwrap().id());
}
