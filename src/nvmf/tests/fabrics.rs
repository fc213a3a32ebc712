//! Connect, properties, admin commands, discovery.

use super::rig::*;
use crate::base::VolumeId;
use crate::net::{ListenerId, Net};
use crate::nvmf::Referral;
use crate::wire::discovery::{LogEntry, LogHeader};
use crate::wire::fabrics::{
    CNTLID_DYNAMIC, Connect, ConnectData, DISCOVERY_NQN, Property, connect_at as at, disconnect, invalid_result,
    property,
};
use crate::wire::nvme::admin::{Abort, Feature, GetLogPage, Identify};
use crate::wire::nvme::feature::{Event, fid, queue_counts, queue_counts_dword};
use crate::wire::nvme::identify::{self as id, cns, nidt};
use crate::wire::nvme::log::{ErrorEntry, FirmwareSlots, Smart, lid};
use crate::wire::nvme::{Cqe, Sgl, Sqe, StatusCode, admin_op, get_ascii, get_str, io_op, sc};
use crate::wire::nvme_tcp::Digests;
use core::net::SocketAddr;
use zerocopy::FromBytes;

fn connect_raw(rig: &mut Rig, params: Connect, data: &ConnectData) -> Cqe {
    let conn = rig.dial(0);
    rig.shake(conn, 0, Digests::default());
    rig.connect(conn, Digests::default(), params, data)
}

fn admin_params() -> Connect {
    Connect { format: 0, qid: 0, sqsize: 31, cattr: 0, kato: 10_000 }
}

#[test]
fn connects_that_must_fail() {
    let mut rig = Rig::plain();
    rig.snapshot.subsystems.push(crate::nvmf::Subsystem {
        nqn: "nqn.2024-01.io.pollux:elsewhere".into(),
        listeners: vec!["10.9.9.9:4420".parse().unwrap()],
        ..rig.snapshot.subsystems[0].clone()
    });
    rig.configure();
    let good = ConnectData::new(HOSTID, CNTLID_DYNAMIC, NQN, HOST);
    let p = admin_params();
    let invalid = |offset, in_data| (sc::CONNECT_INVALID, invalid_result(offset, in_data));
    let mut unterminated = good;
    unterminated.hostnqn = [b'x'; 256];
    let named = |sub: &str, host: &str| ConnectData::new(HOSTID, CNTLID_DYNAMIC, sub, host);
    let cases: [(&str, Connect, ConnectData, (StatusCode, u64)); 10] = [
        ("format", Connect { format: 1, ..p }, good, (sc::CONNECT_FORMAT, 0)),
        ("queue of one", Connect { sqsize: 0, ..p }, good, invalid(at::SQSIZE, false)),
        ("queue too deep", Connect { sqsize: 128, ..p }, good, invalid(at::SQSIZE, false)),
        ("keep alive", Connect { kato: 3_600_000, ..p }, good, (sc::KEEP_ALIVE_INVALID, 0)),
        ("static controller", p, ConnectData::new(HOSTID, 5, NQN, HOST), invalid(at::CNTLID, true)),
        ("unknown subsystem", p, named("nqn.2024-01.io.pollux:two", HOST), invalid(at::SUBNQN, true)),
        ("no such listener", p, named("nqn.2024-01.io.pollux:elsewhere", HOST), invalid(at::SUBNQN, true)),
        ("stranger", p, named(NQN, "nqn.2024-01.io.pollux:stranger"), (sc::CONNECT_INVALID_HOST, 0)),
        ("nobody", p, named(NQN, ""), (sc::CONNECT_INVALID_HOST, 0)),
        ("unterminated", p, unterminated, invalid(at::HOSTNQN, true)),
    ];
    for (what, params, data, want) in cases {
        let cqe = connect_raw(&mut rig, params, &data);
        assert_eq!((cqe.code(), cqe.result.get(), cqe.dnr()), (want.0, want.1, true), "{what}");
    }
    // I/O queues.
    let io = Connect { qid: 1, sqsize: 127, ..p };
    let cqe = connect_raw(&mut rig, io, &ConnectData::new(HOSTID, 1, NQN, HOST));
    assert_eq!((cqe.code(), cqe.result.get()), invalid(at::CNTLID, true), "I/O before admin");
    let admin = rig.queue(0, NQN, CNTLID_DYNAMIC, 0, 0, Digests::default());
    let of = |hostid, host: &str| ConnectData::new(hostid, admin.cntlid, NQN, host);
    let cqe = connect_raw(&mut rig, io, &of(HOSTID, HOST));
    assert_eq!(cqe.code(), sc::SEQUENCE_ERROR, "before CC.EN");
    let mut admin = admin;
    rig.enable(&mut admin);
    rig.snapshot.subsystems[0].hosts.push("nqn.2024-01.io.pollux:other".into());
    rig.configure();
    for (what, params, data, want) in [
        ("other host", io, of(HOSTID, "nqn.2024-01.io.pollux:other"), invalid(at::HOSTNQN, true)),
        ("other host id", io, of([8; 16], HOST), invalid(at::HOSTID, true)),
        ("wrong CNTLID", io, ConnectData::new(HOSTID, admin.cntlid + 1, NQN, HOST), invalid(at::CNTLID, true)),
        ("QID above the limit", Connect { qid: 65, ..io }, of(HOSTID, HOST), invalid(at::QID, false)),
        ("I/O queue too deep", Connect { sqsize: 1000, ..io }, of(HOSTID, HOST), invalid(at::SQSIZE, false)),
    ] {
        let cqe = connect_raw(&mut rig, params, &data);
        assert_eq!((cqe.code(), cqe.result.get()), want, "{what}");
    }
    let q = rig.queue(0, NQN, admin.cntlid, 1, 4, Digests::default());
    assert_eq!(connect_raw(&mut rig, io, &of(HOSTID, HOST)).code(), sc::SEQUENCE_ERROR, "duplicate QID");
    let again = rig.connect(q.conn, Digests::default(), io, &of(HOSTID, HOST));
    assert_eq!(again.code(), sc::SEQUENCE_ERROR, "Connect on a queue");
    assert_eq!(rig.cores[0].target.stats().connects_refused, 18);
    rig.finish();
}

#[test]
fn a_refused_connect_may_be_tried_again_and_other_commands_may_not_come_first() {
    let mut rig = Rig::plain();
    let conn = rig.dial(0);
    rig.shake(conn, 0, Digests::default());
    let fake = Queue::bare(conn);
    let (cqe, _) = rig.command(&fake, Property::get(3, property::CAP, true), &[]);
    assert_eq!(cqe.code(), sc::SEQUENCE_ERROR);
    let bad = ConnectData::new(HOSTID, CNTLID_DYNAMIC, "nqn.2024-01.nobody", HOST);
    assert_eq!(rig.connect(conn, Digests::default(), admin_params(), &bad).code(), sc::CONNECT_INVALID);
    let good = ConnectData::new(HOSTID, CNTLID_DYNAMIC, NQN, HOST);
    assert_eq!(rig.connect(conn, Digests::default(), admin_params(), &good).code(), sc::SUCCESS);
    let (cqe, _) = rig.command(&fake, Sqe::new(admin_op::KEEP_ALIVE, 4, 0, Sgl::NONE), &[]);
    assert_eq!(cqe.code(), sc::SEQUENCE_ERROR, "admin commands come after CC.EN");
    rig.finish();
}

#[test]
fn properties_enable_reset_and_shut_down() {
    let mut rig = Rig::plain();
    let (mut admin, io) = rig.ready();
    let mut get = |rig: &mut Rig, offset, wide| {
        let cid = admin.cid();
        let (cqe, _) = rig.command(&admin, Property::get(cid, offset, wide), &[]);
        (cqe.code(), cqe.result.get())
    };
    let (_, cap) = get(&mut rig, property::CAP, true);
    assert_eq!((property::cap_mqes(cap), cap >> 37 & 1, cap >> 16 & 1), (127, 1, 1));
    assert_eq!(get(&mut rig, property::VS, false), (sc::SUCCESS, 0x0001_0400));
    assert_eq!(get(&mut rig, property::CAP, false).0, sc::INVALID_FIELD);
    assert_eq!(get(&mut rig, property::CC, true).0, sc::INVALID_FIELD);
    assert_eq!(get(&mut rig, 0x1000, false).0, sc::INVALID_FIELD);
    assert_eq!(get(&mut rig, property::CSTS, false), (sc::SUCCESS, 1));
    let mut set = |rig: &mut Rig, offset, wide, value: u32| {
        let cid = admin.cid();
        rig.command(&admin, Property::set(cid, offset, wide, u64::from(value)), &[]).0.code()
    };
    assert_eq!(set(&mut rig, property::VS, false, 1), sc::INVALID_FIELD);
    assert_eq!(set(&mut rig, property::CC, false, 0), sc::SUCCESS);
    rig.turns(10);
    assert!(rig.closed(io.conn), "a controller reset ends its I/O queues");
    let mut get = |rig: &mut Rig, offset| {
        let cid = admin.cid();
        rig.command(&admin, Property::get(cid, offset, false), &[]).0.result.get()
    };
    assert_eq!(get(&mut rig, property::CSTS), 0);
    rig.enable(&mut admin);
    let io = rig.queue(0, NQN, admin.cntlid, 1, 4, Digests::default());
    let cc = property::CC_ENABLE_NVM | property::CC_SHN_NORMAL;
    let cid = admin.cid();
    rig.command(&admin, Property::set(cid, property::CC, false, u64::from(cc)), &[]);
    rig.turns(10);
    let cid = admin.cid();
    let csts = rig.command(&admin, Property::get(cid, property::CSTS, false), &[]).0.result.get();
    assert_eq!(property::csts_shst(csts as u32), 2, "shutdown complete");
    assert!(rig.closed(io.conn));
    let cid = admin.cid();
    rig.command(&admin, Property::set(cid, property::CC, false, 0), &[]);
    let cid = admin.cid();
    let odd = u64::from(property::CC_ENABLE_NVM | 3 << 7);
    rig.command(&admin, Property::set(cid, property::CC, false, odd), &[]);
    let cid = admin.cid();
    let csts = rig.command(&admin, Property::get(cid, property::CSTS, false), &[]).0.result.get();
    assert_eq!(csts, u64::from(property::CSTS_CFS), "a page size that is not supported");
    rig.finish();
}

fn identify(rig: &mut Rig, q: &mut Queue, cns: u8, nsid: u32) -> (StatusCode, Vec<u8>) {
    let ask = Identify { cns, cntid: 0, specific: 0, csi: 0, nsid };
    let cid = q.cid();
    let (cqe, data) = rig.command(q, ask.sqe(cid), &[]);
    (cqe.code(), data)
}

#[test]
fn identify_says_what_hosts_look_for() {
    let mut rig = Rig::plain();
    let (mut admin, _io) = rig.ready();
    let (code, data) = identify(&mut rig, &mut admin, cns::CONTROLLER, 0);
    assert_eq!(code, sc::SUCCESS);
    let c = id::Controller::ref_from_bytes(&data).unwrap();
    assert_eq!(get_ascii(&c.serial), "SN1");
    assert_eq!(get_ascii(&c.model), "01234567-89ab-cdef-0123-456789abcdef", "a UUID given by the user, verbatim");
    assert_eq!(get_str(&c.subnqn), Some(NQN));
    assert_eq!((c.mdts, c.cntlid.get(), c.controller_type, c.maxcmd.get()), (8, admin.cntlid, 1, 128));
    assert_eq!((c.acl, c.aerl, c.kas.get(), c.ctratt.get() >> 6 & 1), (3, 3, 10, 1));
    assert_eq!((c.sqes, c.cqes, c.nn.get(), c.oncs.get(), c.vwc), (0x66, 0x44, 4, 0b1101, 0b100));
    assert_eq!((c.ioccsz.get(), c.iorcsz.get(), c.icdoff.get(), c.msdbd), ((64 + 16384) / 16, 1, 0, 1));
    assert_eq!(c.sgls.get() & 0x10_0003, 0x10_0001);
    let (_, data) = identify(&mut rig, &mut admin, cns::NAMESPACE, 1);
    let ns = id::Namespace::ref_from_bytes(&data).unwrap();
    assert_eq!((ns.nsze.get(), ns.block_size(), ns.nguid, ns.eui64), (2048, Some(512), [1; 16], [2; 8]));
    assert_eq!((ns.nsfeat & 1, ns.nmic, ns.dlfeat & 7, ns.npwg.get()), (1, 1, 1, 7));
    let (code, data) = identify(&mut rig, &mut admin, cns::NAMESPACE, 3);
    assert_eq!((code, data.iter().all(|b| *b == 0)), (sc::SUCCESS, true), "a legal NSID without a namespace");
    for nsid in [0, 5] {
        assert_eq!(identify(&mut rig, &mut admin, cns::NAMESPACE, nsid).0, sc::INVALID_NAMESPACE);
    }
    let (_, data) = identify(&mut rig, &mut admin, cns::ACTIVE_LIST, 0);
    assert_eq!(id::NamespaceList::ref_from_bytes(&data).unwrap().iter().collect::<Vec<_>>(), [1]);
    let (_, data) = identify(&mut rig, &mut admin, cns::ACTIVE_LIST, 1);
    assert_eq!(id::NamespaceList::ref_from_bytes(&data).unwrap().iter().count(), 0);
    assert_eq!(identify(&mut rig, &mut admin, cns::ACTIVE_LIST, u32::MAX).0, sc::INVALID_NAMESPACE);
    let (_, data) = identify(&mut rig, &mut admin, cns::DESCRIPTORS, 1);
    let kinds: Vec<_> = id::descriptors(&data).map(|(k, v)| (k, v.len())).collect();
    assert_eq!(kinds, [(nidt::EUI64, 8), (nidt::NGUID, 16), (nidt::UUID, 16), (nidt::CSI, 1)]);
    assert_eq!(identify(&mut rig, &mut admin, cns::DESCRIPTORS, 2).0, sc::INVALID_NAMESPACE);
    let (_, data) = identify(&mut rig, &mut admin, cns::CONTROLLER_CSI, 0);
    assert_eq!(id::NvmController::ref_from_bytes(&data).unwrap().dmrl, 255);
    let (_, data) = identify(&mut rig, &mut admin, cns::NAMESPACE_INDEPENDENT, 1);
    assert_eq!(id::NamespaceIndependent::ref_from_bytes(&data).unwrap().nstat, 1);
    let (_, data) = identify(&mut rig, &mut admin, cns::CONTROLLER_LIST, 0);
    let list = id::ControllerList::ref_from_bytes(&data).unwrap();
    assert_eq!((list.count.get(), list.cntlids[0].get()), (1, admin.cntlid));
    assert_eq!(identify(&mut rig, &mut admin, cns::COMMAND_SETS, 0).1[0], 1);
    assert_eq!(identify(&mut rig, &mut admin, 0x55, 0).0, sc::INVALID_FIELD);
    rig.finish();
}

fn log(rig: &mut Rig, q: &mut Queue, lid: u8, len: u64, offset: u64, retain: bool) -> (StatusCode, Vec<u8>) {
    let ask = GetLogPage { lid, lsp: 0, retain, len, offset, index_offset: false, nsid: u32::MAX };
    let cid = q.cid();
    let (cqe, data) = rig.command(q, ask.sqe(cid), &[]);
    (cqe.code(), data)
}

#[test]
fn log_pages() {
    let mut rig = Rig::plain();
    let (mut admin, mut io) = rig.ready();
    let cid = io.cid();
    rig.command(&io, Sqe::rw(io_op::WRITE, cid, 1, 0, 8, Sgl::in_capsule(4096)), &[1; 4096]);
    let cid = io.cid();
    rig.command(&io, Sqe::rw(io_op::READ, cid, 1, 0, 2048, Sgl::transport(1 << 20)), &[]);
    rig.pass_ms(400);
    let (_, page) = log(&mut rig, &mut admin, lid::SMART, 512, 0, false);
    let smart = Smart::ref_from_bytes(&page).unwrap();
    assert_eq!(
        (smart.reads.get(), smart.writes.get(), smart.units_read.get(), smart.units_written.get()),
        (1, 1, 3, 1)
    );
    assert_eq!((smart.spare, smart.used), (100, 0));
    let (_, page) = log(&mut rig, &mut admin, lid::FIRMWARE, 512, 0, false);
    assert_eq!(get_ascii(&FirmwareSlots::ref_from_bytes(&page).unwrap().revisions[0]), "fw1");
    let (_, page) = log(&mut rig, &mut admin, lid::EFFECTS, 4096, 0, false);
    let supported = |at: usize| page[at * 4] & 1 == 1;
    assert!(supported(6) && supported(256 + 1) && supported(256 + 9) && !supported(256 + 0x19));
    let (_, middle) = log(&mut rig, &mut admin, lid::EFFECTS, 1024, 1000, false);
    assert_eq!(middle, page[1000..2024], "an offset inside the page");
    let (_, page) = log(&mut rig, &mut admin, lid::SUPPORTED, 1024, 0, false);
    assert!(page[usize::from(lid::SMART) * 4] == 1 && page[usize::from(lid::DISCOVERY) * 4] == 0);
    assert_eq!(log(&mut rig, &mut admin, lid::ANA, 64, 0, false).0, sc::INVALID_LOG_PAGE);
    assert_eq!(log(&mut rig, &mut admin, lid::DISCOVERY, 1024, 0, false).0, sc::INVALID_LOG_PAGE);
    assert_eq!(log(&mut rig, &mut admin, lid::SMART, 512, 2, false).0, sc::INVALID_FIELD, "offset in dwords");
    assert_eq!(log(&mut rig, &mut admin, lid::SMART, 512, 516, false).0, sc::INVALID_FIELD, "offset past the end");
    assert_eq!(log(&mut rig, &mut admin, lid::SMART, 65540, 0, false).0, sc::INVALID_FIELD, "more than a call may ask");
    let (_, page) = log(&mut rig, &mut admin, lid::ERROR, 64 * 32, 0, false);
    let newest = ErrorEntry::ref_from_prefix(&page).unwrap().0;
    assert_eq!((newest.count.get(), StatusCode::from_field(newest.status.get())), (5, sc::INVALID_FIELD));
    rig.finish();
}

#[test]
fn features() {
    let mut rig = Rig::plain();
    let mut admin = rig.admin(0, NQN);
    let mut set = |rig: &mut Rig, fid, value| {
        let cid = admin.cid();
        let (cqe, _) = rig.command(&admin, Feature::set(cid, fid, 0, value), &[]);
        (cqe.code(), cqe.result.get() as u32)
    };
    let (code, granted) = set(&mut rig, fid::QUEUES, queue_counts_dword(100, 8));
    assert_eq!((code, queue_counts(granted)), (sc::SUCCESS, (8, 8)));
    assert_eq!(set(&mut rig, fid::QUEUES, 0xffff).0, sc::INVALID_FIELD);
    assert_eq!(set(&mut rig, fid::KEEP_ALIVE, 1000).0, sc::SUCCESS);
    assert_eq!(set(&mut rig, fid::KEEP_ALIVE, u32::MAX).0, sc::KEEP_ALIVE_INVALID);
    for id in [fid::ARBITRATION, fid::TEMPERATURE, fid::ERROR_RECOVERY, fid::WRITE_ATOMICITY] {
        assert_eq!(set(&mut rig, id, 1).0, sc::SUCCESS);
    }
    assert_eq!(set(&mut rig, fid::POWER, 1).0, sc::INVALID_FIELD, "there is one power state");
    assert_eq!(set(&mut rig, fid::VOLATILE_CACHE, 1).0, sc::INVALID_FIELD, "there is no cache");
    assert_eq!(set(&mut rig, fid::INTERRUPT_COALESCING, 1).0, sc::INVALID_FIELD);
    assert_eq!(set(&mut rig, 0xc1, 1).0, sc::INVALID_FIELD);
    let mut get = |rig: &mut Rig, fid| {
        let cid = admin.cid();
        let (cqe, _) = rig.command(&admin, Feature::get(cid, fid, 0), &[]);
        (cqe.code(), cqe.result.get() as u32)
    };
    assert_eq!(get(&mut rig, fid::QUEUES), (sc::SUCCESS, granted));
    assert_eq!(get(&mut rig, fid::KEEP_ALIVE), (sc::SUCCESS, 5000), "raised to the minimum");
    assert_eq!(get(&mut rig, fid::ARBITRATION), (sc::SUCCESS, 1));
    assert_eq!(get(&mut rig, fid::VOLATILE_CACHE).0, sc::INVALID_FIELD);
    assert_eq!(get(&mut rig, fid::HOST_ID).0, sc::INVALID_FIELD, "fabrics hosts have long identifiers");
    let cid = admin.cid();
    let mut sqe = Feature::get(cid, fid::HOST_ID, 0);
    (sqe.cdw11, sqe.sgl) = (1.into(), Sgl::transport(16));
    assert_eq!(rig.command(&admin, sqe, &[]).1, HOSTID);
    let cid = admin.cid();
    let mut sqe = Feature::set(cid, fid::ARBITRATION, 0, 1);
    sqe.cdw10 = (sqe.cdw10.get() | 1 << 31).into();
    assert_eq!(rig.command(&admin, sqe, &[]).0.code(), sc::FEATURE_NOT_SAVEABLE);
    let _io = rig.queue(0, NQN, admin.cntlid, 8, 4, Digests::default());
    let cid = admin.cid();
    let (cqe, _) = rig.command(&admin, Feature::set(cid, fid::QUEUES, 0, 0), &[]);
    assert_eq!(cqe.code(), sc::SEQUENCE_ERROR, "queues are there already");
    rig.finish();
}

#[test]
fn a_volatile_cache_is_told_and_cannot_be_switched_off() {
    let mut rig = Rig::plain();
    rig.snapshot.subsystems[0].namespaces[0].info.volatile_cache = true;
    rig.configure();
    let mut admin = rig.admin(0, NQN);
    let (_, data) = identify(&mut rig, &mut admin, cns::CONTROLLER, 0);
    assert_eq!(id::Controller::ref_from_bytes(&data).unwrap().vwc, 0b101);
    let cid = admin.cid();
    let off = rig.command(&admin, Feature::set(cid, fid::VOLATILE_CACHE, 0, 0), &[]).0.code();
    assert_eq!(off, sc::FEATURE_NOT_CHANGEABLE);
    let cid = admin.cid();
    assert_eq!(rig.command(&admin, Feature::get(cid, fid::VOLATILE_CACHE, 0), &[]).0.result.get(), 1);
    rig.finish();
}

/// Requests for events are held, limited, aborted; an event is told once until its log is read.
#[test]
fn asynchronous_events() {
    let mut rig = Rig::plain();
    let (mut admin, _io) = rig.ready();
    let aer = |cid| Sqe::new(admin_op::ASYNC_EVENT, cid, 0, Sgl::NONE);
    for cid in 1..=4 {
        rig.submit(&admin, aer(cid), &[]);
    }
    assert_eq!(rig.command(&admin, aer(5), &[]).0.code(), sc::AER_LIMIT);
    let cid = admin.cid();
    rig.command(&admin, Feature::set(cid, fid::EVENT_CONFIG, 0, 1 << 8), &[]);
    let cid = admin.cid();
    rig.submit(&admin, Abort { sqid: 0, cid: 2 }.sqe(cid), &[]);
    let Got::Resp(aborted) = rig.recv(admin.conn) else { panic!("no answer") };
    assert_eq!((aborted.cid.get(), aborted.code()), (2, sc::ABORT_REQUESTED));
    let Got::Resp(abort) = rig.recv(admin.conn) else { panic!("no answer") };
    assert_eq!((abort.cid.get(), abort.result.get()), (cid, 0));
    for (round, cid) in [(0u64, 1u16), (1, 3)] {
        rig.snapshot.generation += 1;
        rig.snapshot.subsystems[0].namespaces[0].info.blocks = 1000 + round;
        rig.configure();
        let Got::Resp(event) = rig.recv(admin.conn) else { panic!("no event") };
        assert_eq!((event.cid.get(), event.result.get() as u32), (cid, Event::NAMESPACE_CHANGED.dword()));
        rig.snapshot.subsystems[0].namespaces[0].info.blocks = 900 + round;
        rig.configure();
        let nothing = rig.recv_within(admin.conn, Digests::default(), 50);
        assert!(matches!(nothing, Got::Nothing), "an event is not repeated before its log was read");
        let (_, list) = log(&mut rig, &mut admin, lid::CHANGED_NAMESPACES, 4096, 0, true);
        assert_eq!(list[..8], [1, 0, 0, 0, 0, 0, 0, 0]);
        let (_, data) = identify(&mut rig, &mut admin, cns::NAMESPACE, 1);
        assert_eq!(id::Namespace::ref_from_bytes(&data).unwrap().nsze.get(), 900 + round, "resized");
        // Read without RAE: the list is cleared, and the change that came meanwhile is told.
        log(&mut rig, &mut admin, lid::CHANGED_NAMESPACES, 4096, 0, false);
        if round == 0 {
            let Got::Resp(event) = rig.recv(admin.conn) else { panic!("no event") };
            assert_eq!(event.cid.get(), 3);
            rig.submit(&admin, aer(3), &[]);
            log(&mut rig, &mut admin, lid::CHANGED_NAMESPACES, 4096, 0, false);
            // The queue of requests is now 4, 3: make it start with 3 again.
            let cid = admin.cid();
            rig.submit(&admin, Abort { sqid: 0, cid: 4 }.sqe(cid), &[]);
            rig.recv(admin.conn);
            rig.recv(admin.conn);
        }
    }
    rig.finish();
}

#[test]
fn a_reused_command_id_gives_an_event_request_up() {
    let mut rig = Rig::plain();
    let admin = rig.admin(0, NQN);
    rig.submit(&admin, Sqe::new(admin_op::ASYNC_EVENT, 3, 0, Sgl::NONE), &[]);
    let (cqe, _) = rig.command(&admin, Property::get(3, property::CC, false), &[]);
    assert_eq!(cqe.code(), sc::SUCCESS);
    rig.finish();
}

#[test]
fn aborts_reach_commands_that_wait_for_data() {
    let mut rig = Rig::plain();
    let (mut admin, io) = rig.ready();
    rig.submit(&io, Sqe::rw(io_op::WRITE, 5, 1, 0, 64, Sgl::transport(32768)), &[]);
    let Got::R2t(r2t) = rig.recv(io.conn) else { panic!("no R2T") };
    let mut abort = |rig: &mut Rig, sqid, cid| {
        let own = admin.cid();
        rig.command(&admin, Abort { sqid, cid }.sqe(own), &[]).0.result.get()
    };
    assert_eq!(abort(&mut rig, 1, 6), 1, "no such command");
    assert_eq!(abort(&mut rig, 2, 5), 1, "no such queue");
    assert_eq!(abort(&mut rig, 1, 5), 0);
    rig.answer(&io, &r2t, &vec![9; 32768], 32768);
    let (cqe, _) = rig.complete(&io, 5, &[]);
    assert_eq!(cqe.code(), sc::ABORT_REQUESTED);
    assert_eq!(rig.disk.borrow().log.len(), 0, "an aborted write reaches no block");
    rig.cores[0].volumes.mood.stuck = true;
    rig.submit(&io, Sqe::rw(io_op::READ, 7, 1, 0, 8, Sgl::transport(4096)), &[]);
    rig.turns(5);
    assert_eq!(abort(&mut rig, 1, 7), 1, "what the volumes have is not aborted");
    rig.cores[0].volumes.mood.stuck = false;
    assert_eq!(rig.complete(&io, 7, &[]).0.code(), sc::SUCCESS);
    rig.finish();
}

#[test]
fn disconnect_ends_one_queue() {
    let mut rig = Rig::plain();
    let (admin, io) = rig.ready();
    let other = rig.queue(0, NQN, admin.cntlid, 2, 4, Digests::default());
    assert_eq!(rig.command(&io, disconnect(9), &[]).0.code(), sc::SUCCESS);
    rig.turns(10);
    assert!(rig.closed(io.conn) && !rig.closed(other.conn) && !rig.closed(admin.conn));
    assert_eq!(rig.command(&admin, disconnect(9), &[]).0.code(), sc::INVALID_QUEUE_TYPE);
    let again = rig.queue(0, NQN, admin.cntlid, 1, 4, Digests::default());
    assert!(!rig.closed(again.conn), "the QID is free again");
    rig.finish();
}

fn entries(rig: &mut Rig, q: &mut Queue) -> (u64, Vec<(u8, String, std::net::SocketAddr)>) {
    let (_, head) = log(rig, q, lid::DISCOVERY, 1024, 0, false);
    let head = LogHeader::ref_from_bytes(&head).unwrap();
    let (genctr, n) = (head.genctr.get(), head.numrec.get());
    let (_, page) = log(rig, q, lid::DISCOVERY, 1024 * (n + 1), 0, false);
    let of = |i: u64| LogEntry::ref_from_bytes(&page[(i as usize + 1) * 1024..][..1024]).unwrap();
    let list = (0..n).map(|i| (of(i).subtype, of(i).subnqn().unwrap().to_owned(), of(i).socket_addr().unwrap()));
    (genctr, list.collect())
}

#[test]
fn discovery_shows_a_listener_on_every_address_where_the_host_came_to() {
    let mut rig = Rig::plain();
    let came_to = rig.cores[0].addr;
    let everywhere = SocketAddr::new("0.0.0.0".parse().unwrap(), came_to.port());
    let other = SocketAddr::new("::".parse().unwrap(), came_to.port() + 1);
    rig.cores[0].target.listen(ListenerId(0), everywhere);
    rig.snapshot.subsystems[0].listeners = vec![everywhere, other];
    rig.configure();
    let mut q = rig.admin(0, DISCOVERY_NQN);
    let second = SocketAddr::new(came_to.ip(), other.port());
    let want = [(3, DISCOVERY_NQN, came_to), (2, NQN, came_to), (2, NQN, second)];
    assert_eq!(entries(&mut rig, &mut q).1, want.map(|(kind, nqn, addr)| (kind, nqn.to_owned(), addr)));
}

#[test]
fn discovery_shows_what_a_host_may_use() {
    let mut rig = Rig::plain();
    let here = rig.cores[0].addr;
    let there = "10.9.9.9:4420".parse().unwrap();
    let first = rig.snapshot.subsystems[0].clone();
    rig.snapshot.subsystems.push(crate::nvmf::Subsystem {
        nqn: "nqn.2024-01.io.pollux:hidden".into(),
        hosts: vec!["nqn.2024-01.io.pollux:other".into()],
        ..first.clone()
    });
    rig.snapshot.subsystems.push(crate::nvmf::Subsystem {
        nqn: "nqn.2024-01.io.pollux:open".into(),
        allow_any_host: true,
        listeners: vec![here, there],
        ..first
    });
    rig.snapshot.referrals.push(Referral { nqn: "nqn.2014-08.org.nvmexpress.discovery".into(), addr: there });
    rig.configure();
    let mut q = rig.admin(0, DISCOVERY_NQN);
    let (genctr, list) = entries(&mut rig, &mut q);
    assert_eq!(genctr, 1);
    assert_eq!(
        list,
        [
            (3, DISCOVERY_NQN.to_owned(), here),
            (2, NQN.to_owned(), here),
            (2, "nqn.2024-01.io.pollux:open".to_owned(), here),
            (2, "nqn.2024-01.io.pollux:open".to_owned(), there),
            (1, DISCOVERY_NQN.to_owned(), there),
        ]
    );
    let (_, whole) = log(&mut rig, &mut q, lid::DISCOVERY, 6144, 0, false);
    for (offset, len) in [(0, 4), (1020, 8), (1024, 1024), (3000, 2000), (6140, 4)] {
        let (_, part) = log(&mut rig, &mut q, lid::DISCOVERY, len, offset, false);
        assert_eq!(part, whole[offset as usize..][..len as usize]);
    }
    let (code, data) = identify(&mut rig, &mut q, cns::CONTROLLER, 0);
    let c = id::Controller::ref_from_bytes(&data).unwrap();
    assert_eq!((code, c.controller_type, c.oaes.get()), (sc::SUCCESS, 2, 1 << 31));
    assert_eq!(identify(&mut rig, &mut q, cns::ACTIVE_LIST, 0).0, sc::INVALID_FIELD);
    let cqe = connect_raw(
        &mut rig,
        Connect { qid: 1, sqsize: 31, ..admin_params() },
        &ConnectData::new(HOSTID, q.cntlid, DISCOVERY_NQN, HOST),
    );
    assert_eq!(cqe.code(), sc::CONNECT_INVALID, "a discovery controller has no I/O queues");
    // A change of the log is told, and the generation with it.
    let cid = q.cid();
    rig.command(&q, Feature::set(cid, fid::EVENT_CONFIG, 0, 1 << 31), &[]);
    rig.submit(&q, Sqe::new(admin_op::ASYNC_EVENT, 7, 0, Sgl::NONE), &[]);
    rig.snapshot.generation = 2;
    rig.snapshot.subsystems[1].hosts.push(HOST.into());
    rig.configure();
    let Got::Resp(event) = rig.recv(q.conn) else { panic!("no event") };
    assert_eq!(event.result.get() as u32, Event::DISCOVERY_CHANGED.dword());
    let (genctr, list) = entries(&mut rig, &mut q);
    assert_eq!((genctr, list.len()), (2, 6));
    rig.finish();
}

/// Every pair of 20 hosts and 20 subsystems: a host gets in exactly where it is named.
#[test]
fn only_named_hosts_connect() {
    let mut rig = Rig::plain();
    let model = rig.snapshot.subsystems[0].clone();
    let host = |i: usize| format!("nqn.2024-01.io.pollux:host{i}");
    let sub = |i: usize| format!("nqn.2024-01.io.pollux:sub{i}");
    let allowed = |s: usize, h: usize| (s * 7 + h * 3).is_multiple_of(5);
    rig.snapshot.subsystems = (0..20)
        .map(|s| crate::nvmf::Subsystem {
            nqn: sub(s),
            hosts: (0..20).filter(|h| allowed(s, *h)).map(host).collect(),
            ..model.clone()
        })
        .collect();
    rig.configure();
    for s in 0..20 {
        for h in 0..20 {
            let conn = rig.dial(0);
            rig.shake(conn, 0, Digests::default());
            let data = ConnectData::new(HOSTID, CNTLID_DYNAMIC, &sub(s), &host(h));
            let cqe = rig.connect(conn, Digests::default(), admin_params(), &data);
            let want = if allowed(s, h) { sc::SUCCESS } else { sc::CONNECT_INVALID_HOST };
            assert_eq!(cqe.code(), want, "host {h} at subsystem {s}");
            rig.host.close(conn, crate::net::Close::Now);
            rig.turns(2);
        }
    }
    rig.finish();
}

#[test]
fn reports_list_what_is_there() {
    let mut rig = Rig::plain();
    let (admin, io) = rig.ready();
    let _ = io;
    let t = &mut rig.cores[0].target;
    let c: Vec<_> = t.controllers().collect();
    assert_eq!((c.len(), c[0].cntlid, c[0].io_queues, c[0].keep_alive_ms), (1, admin.cntlid, 1, 10_000));
    assert_eq!((c[0].subnqn.as_str(), c[0].hostnqn.as_str(), c[0].hostid), (NQN, HOST, HOSTID));
    let q: Vec<_> = t.queues().map(|q| (q.qid, q.depth, q.cntlid)).collect();
    assert_eq!(q, [(0, 32, admin.cntlid), (1, 128, admin.cntlid)]);
    let s = t.stats();
    assert_eq!((s.admin_queues_now, s.io_queues_now, s.controllers_now, s.unassociated_now), (1, 1, 1, 0));
    assert!(t.quiet(VolumeId(9)));
    rig.finish();
}
