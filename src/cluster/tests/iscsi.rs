//! iSCSI's objects and the reservations of volumes, from the call to the data path and through a restart.

use super::*;
use crate::cluster::iscsi::{AuthGroup, Change, Chap, Initiator, InitiatorGroup, Map, Netmask, Options, PortalGroup};
use crate::cluster::testing::run;
use crate::cluster::{Declared, DeclaredIscsi, Error, IscsiName, Listener, LunSpec, NodeError, Protocol, TargetSpec};
use crate::volume::reserve::{Access, Nexus, Op, Refused, Type};
use std::net::SocketAddr;

pub fn nexus(n: u8) -> Nexus {
    Nexus { initiator: std::sync::Arc::from([n]), target: 1, port: 1 }
}

pub fn portals(tag: u16, addr: &str) -> PortalGroup {
    PortalGroup { tag, portals: vec![addr.parse().unwrap()], private: false, started: true, auth: None }
}

pub fn target_spec() -> TargetSpec {
    TargetSpec {
        name: "disk1".into(),
        alias: "d".into(),
        maps: vec![Map { portal_group: 1, initiator_group: 1 }],
        luns: vec![LunSpec { bdev: "lvs/vol".into(), lun: Some(3) }],
        queue_depth: 64,
        auth: Chap::default(),
        header_digest: false,
        data_digest: false,
    }
}

/// A target node with the volume as its unit 3, and a host that is registered with it for good.
pub async fn furnish(control: &Control<FakeNode>) {
    control.create_portal_group(portals(1, "127.0.0.1:3260")).await.expect("a portal group");
    let group = InitiatorGroup {
        tag: 1,
        initiators: vec![Initiator::new("ANY").expect("legal")],
        netmasks: vec![Netmask::new("127.0.0.0/8").expect("legal")],
    };
    control.change_iscsi(Change::CreateInitiatorGroup(group)).await.expect("an initiator group");
    control.create_target(&target_spec()).await.expect("a target node");
    let volume = control.bdev("lvs/vol").expect("there").id();
    let register = Op::RegisterIgnore { new_key: 7, aptpl: true, ports: None };
    control.reserve(volume, &nexus(1), &register).await.expect("registers");
    let reserve = Op::Reserve { key: 7, kind: Type::WriteExclusiveRegistrantsOnly };
    control.reserve(volume, &nexus(1), &reserve).await.expect("reserves");
}

fn furnished() -> Machine {
    let machine = Machine::new();
    now(super::furnish(&machine.control));
    machine
}

fn now<T>(future: impl Future<Output = T>) -> T {
    run(future).expect("nothing to wait for")
}

fn disk1() -> IscsiName {
    IscsiName::new("iqn.2016-06.io.spdk:disk1").expect("legal")
}

fn addr(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn units(c: &Control<FakeNode>) -> Vec<u16> {
    c.state().iscsi().target(disk1().as_str()).expect("the target").luns.keys().copied().collect()
}

#[test]
fn everything_is_there_after_a_restart() {
    let machine = furnished();
    let before = machine.control.state();
    let fuse = Fuse::of(u64::MAX);
    let again = Machine::boot(machine.file.copy(), fuse, machine.world.clone());
    assert_eq!(again.control.state().iscsi(), before.iscsi());
    assert_eq!(again.control.node().listening.borrow().get(&addr("127.0.0.1:3260")), Some(&Protocol::Iscsi));
    let volume = again.control.bdev("lvs/vol").expect("there").id();
    let kept = again.control.state().reservations(volume);
    assert!(kept.holds(&nexus(1)) && kept.aptpl() && kept.generation() == 0);
    assert!(!kept.permits(&nexus(2), Access::Write));
    let published = again.control.node().published.borrow().clone().expect("published at start");
    assert_eq!(published.reservations(volume), kept);
}

#[test]
fn without_aptpl_reservations_are_gone_after_a_restart() {
    let machine = furnished();
    let c = &machine.control;
    let volume = c.bdev("lvs/vol").expect("there").id();
    let forget = Op::RegisterIgnore { new_key: 8, aptpl: false, ports: None };
    now(c.reserve(volume, &nexus(2), &forget)).expect("registers");
    assert!(c.state().reservations(volume).holds(&nexus(1)), "only a restart forgets");
    let again = Machine::boot(machine.file.copy(), Fuse::of(u64::MAX), machine.world.clone());
    assert!(again.control.state().reservations(volume).is_free());
    assert!(again.control.state().reservations(volume).registrants().is_empty());
}

#[test]
fn a_reservation_is_told_to_the_cores_before_it_is_answered() {
    let machine = furnished();
    let c = &machine.control;
    let volume = c.bdev("lvs/vol").expect("there").id();
    let calls = || c.node().calls.borrow().iter().filter(|call| *call == "reserve").count();
    let before = calls();
    let register = Op::Register { key: 0, new_key: 8, aptpl: true, initiators: None, ports: None };
    assert_eq!(now(c.reserve(volume, &nexus(2), &register)), Ok(vec![]));
    assert_eq!(calls(), before + 1);
    let published = c.node().published.borrow().clone().expect("told");
    assert_eq!(published.reservations(volume).key(&nexus(2)), Some(8));
    let told = now(c.reserve(volume, &nexus(2), &Op::Clear { key: 8 })).expect("clears");
    assert_eq!(told.len(), 1, "the holder is told");
    // What changes nothing bothers nobody; what is refused neither.
    let after = calls();
    assert_eq!(now(c.reserve(volume, &nexus(2), &Op::NexusLost)), Ok(vec![]));
    assert_eq!(now(c.reserve(volume, &nexus(2), &Op::Clear { key: 8 })), Err(Refused::Conflict));
    assert_eq!(calls(), after);
}

#[test]
fn a_reservation_that_cannot_be_kept_is_not_made() {
    let machine = furnished();
    let c = &machine.control;
    let volume = c.bdev("lvs/vol").expect("there").id();
    machine.file.set_broken(true);
    let register = Op::Register { key: 0, new_key: 8, aptpl: true, initiators: None, ports: None };
    assert_eq!(now(c.reserve(volume, &nexus(2), &register)), Err(Refused::Unavailable));
    assert_eq!(c.state().reservations(volume).key(&nexus(2)), None);
    assert_eq!(now(c.reserve(crate::base::VolumeId(99), &nexus(2), &register)), Err(Refused::Gone));
}

/// An administrator's call that waits for hosts' commands must not wait for one that waits for it.
#[test]
fn hosts_reserve_while_an_administrators_call_is_under_way() {
    let machine = furnished();
    let c = &machine.control;
    let volume = c.bdev("lvs/vol").expect("there").id();
    let _turn = c.turn_for_test();
    let register = Op::RegisterIgnore { new_key: 8, aptpl: true, ports: None };
    assert_eq!(now(c.reserve(volume, &nexus(2), &register)), Ok(vec![]));
    assert!(run(c.change_iscsi(Change::DeletePortalGroup(1))).is_none(), "administrators wait for each other");
}

#[test]
fn units_and_reservations_go_with_their_bdev() {
    type Delete = fn(&Control<FakeNode>);
    let delete: [(&str, Delete); 3] = [
        ("volume", |c| now(c.delete_volume("lvs/vol")).expect("deleted")),
        ("store", |c| now(c.delete_store("lvs")).expect("deleted")),
        ("device", |c| now(c.delete_device("U0", "a file", |_| true)).expect("deleted")),
    ];
    for (what, delete) in delete {
        let machine = furnished();
        let c = &machine.control;
        let volume = c.bdev("lvs/vol").expect("there").id();
        assert_eq!(units(c), [3]);
        delete(c);
        assert!(units(c).is_empty(), "{what}");
        assert!(c.state().reservations(volume).registrants().is_empty(), "{what}");
        let again = Machine::boot(machine.file.copy(), Fuse::of(u64::MAX), machine.world.clone());
        assert!(units(&again.control).is_empty() && again.control.state().reservations(volume).is_free(), "{what}");
    }
}

#[test]
fn portals_are_bound_before_they_are_promised() {
    let machine = furnished();
    let c = &machine.control;
    machine.world.borrow_mut().taken.insert(addr("127.0.0.1:9999"));
    let two = PortalGroup { portals: vec![addr("127.0.0.1:9998"), addr("127.0.0.1:9999")], ..portals(2, "[::1]:1") };
    let failed = now(c.create_portal_group(two.clone())).expect_err("in use");
    assert!(matches!(failed, Error::Node { source: NodeError::Os { errno: libc::EADDRINUSE, .. }, .. }), "{failed}");
    let listening = || c.node().listening.borrow().keys().map(SocketAddr::port).collect::<Vec<_>>();
    assert_eq!(listening(), [3260, 4420], "the first of the two is let go");
    assert!(c.state().iscsi().portal_group(2).is_none());
    // One that waits is not bound until it is started.
    let waiting = PortalGroup { started: false, portals: vec![addr("127.0.0.1:9998")], ..two };
    now(c.create_portal_group(waiting)).expect("made");
    assert_eq!(listening(), [3260, 4420]);
    now(c.start_portal_group(2)).expect("started");
    now(c.start_portal_group(2)).expect("it may be said twice");
    assert_eq!(listening(), [3260, 4420, 9998]);
    now(c.change_iscsi(Change::DeletePortalGroup(2))).expect("deleted");
    assert_eq!(listening(), [3260, 4420]);
}

#[test]
fn an_address_has_one_protocol() {
    let machine = furnished();
    let c = &machine.control;
    let taken = |by| Error::AddressTaken {
        addr: addr(if by == Protocol::Nvme { "127.0.0.1:4420" } else { "127.0.0.1:3260" }),
        by,
    };
    assert_eq!(now(c.create_portal_group(portals(2, "127.0.0.1:4420"))), Err(taken(Protocol::Nvme)));
    let refused = now(c.add_listener(&nqn("cnode1"), addr("127.0.0.1:3260")));
    assert_eq!(refused, Err(taken(Protocol::Iscsi)));
    let command = Command::AddListener(nqn("cnode1"), Listener { addr: addr("127.0.0.1:3260") });
    assert_eq!(now(c.change(command)), Err(taken(Protocol::Iscsi)));
    assert_eq!(c.state().addresses().len(), 2);
}

#[test]
fn a_bdev_in_use_is_no_unit_and_a_unit_is_in_use() {
    let machine = furnished();
    let c = &machine.control;
    let unit = |bdev: &str, lun| LunSpec { bdev: bdev.into(), lun };
    let claimed = now(c.add_lun(&disk1(), &unit("U0", None))).expect_err("it carries a store");
    assert!(matches!(claimed, Error::BdevInUse { user: "a store", .. }), "{claimed}");
    let missing = now(c.add_lun(&disk1(), &unit("no", None))).expect_err("there is none");
    assert_eq!(missing, Error::NoBdev("no".into()));
    let malloc = DeviceSpec::Malloc { block_size: 512, blocks: 2048, physical_block: None };
    now(c.create_device(bdev("M0"), None, malloc)).expect("made");
    assert_eq!(now(c.add_lun(&disk1(), &unit("M0", None))), Ok(0), "the first free LUN");
    assert_eq!(now(c.add_lun(&disk1(), &unit("M0", Some(9)))), Ok(9), "a bdev may be several units");
    let store = now(c.create_store("M0", store("s"))).expect_err("it is exported");
    assert!(matches!(store, Error::BdevInUse { user: "a LUN", .. }), "{store}");
    assert_eq!(units(c), [0, 3, 9]);
    now(c.delete_device("M0", "a RAM disk", |_| true)).expect("deleted");
    assert_eq!(units(c), [3]);
}

#[test]
fn what_is_declared_is_made_once_and_completed() {
    let machine = furnished();
    let c = &machine.control;
    let mut declared = DeclaredIscsi {
        options: Some(Options { max_sessions: 9, ..Options::default() }),
        portal_groups: vec![portals(1, "127.0.0.1:9999"), portals(2, "127.0.0.1:3270")],
        initiator_groups: vec![InitiatorGroup {
            tag: 2,
            initiators: vec![Initiator::new("ANY").unwrap()],
            netmasks: vec![Netmask::new("ANY").unwrap()],
        }],
        auth_groups: vec![AuthGroup { tag: 1, secrets: vec![] }],
        targets: vec![target_spec(), TargetSpec { name: "d2".into(), ..target_spec() }],
    };
    declared.targets[0].maps.push(Map { portal_group: 2, initiator_group: 2 });
    declared.targets[1].luns.push(LunSpec { bdev: "no".into(), lun: None });
    let declare = |declared: &DeclaredIscsi| {
        let all = Declared { iscsi: declared.clone(), ..Declared::default() };
        now(c.declare(&all)).into_iter().map(|(what, _)| what).collect::<Vec<_>>()
    };
    assert_eq!(declare(&declared), ["target 'd2'"], "all but what has a bdev that is not there");
    let made = c.state();
    assert_eq!(made.iscsi().options().max_sessions, 9);
    assert_eq!(made.iscsi().portal_group(1).unwrap().portals, [addr("127.0.0.1:3260")], "what is there stays");
    assert_eq!(made.iscsi().target(disk1().as_str()).unwrap().maps.len(), 2);
    declared.targets[1].luns.pop();
    assert!(declare(&declared).is_empty());
    assert_eq!(c.state().iscsi().targets().count(), 2);
    let before = c.state();
    declared.options = Some(Options::default());
    assert!(declare(&declared).is_empty());
    assert_eq!(c.state(), before, "a second time changes nothing");
}

#[test]
fn nvme_hosts_hear_nothing_of_iscsi() {
    let machine = furnished();
    let c = &machine.control;
    let before = c.state();
    now(c.change_iscsi(Change::SetDiscoveryAuth(Chap { required: true, group: 1, ..Chap::default() }))).expect("set");
    let after = c.state();
    assert_eq!(after.generation(), before.generation(), "the discovery log has not changed");
    assert_eq!(after.iscsi().generation(), before.iscsi().generation() + 1);
    let published = c.node().published.borrow().clone().expect("told");
    assert!(published.iscsi().options().discovery_auth.required);
}
