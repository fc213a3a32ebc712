//! Namespaces that not every host sees: to the others they are NSIDs without a namespace, in every command there is.

use super::rig::*;
use crate::base::VolumeId;
use crate::nvmf::{Namespace, Visibility};
use crate::wire::nvme::admin::{Feature, GetLogPage, Identify};
use crate::wire::nvme::feature::{Event, fid};
use crate::wire::nvme::identify::{self as id, cns};
use crate::wire::nvme::log::lid;
use crate::wire::nvme::{Cqe, DsmRange, Sgl, Sqe, StatusCode, admin_op, io_op, sc};
use crate::wire::nvme_tcp::Digests;
use zerocopy::{FromBytes, IntoBytes};

const OTHER: &str = "nqn.2024-01.io.pollux:other";

/// A host's controller with one I/O queue.
struct Host {
    admin: Queue,
    io: Queue,
}

impl Host {
    fn new(rig: &mut Rig, name: &str, io_core: usize) -> Host {
        let mut admin = rig.queue_of(name, 0, NQN, (0xffff, 0), 0, Digests::default());
        rig.enable(&mut admin);
        let io = rig.queue_of(name, io_core, NQN, (admin.cntlid, 1), 4, Digests::default());
        Host { admin, io }
    }

    /// An admin command from beginning to end.
    fn ask(&mut self, rig: &mut Rig, mut sqe: Sqe) -> (Cqe, Vec<u8>) {
        sqe.cid = self.admin.cid().into();
        rig.command(&self.admin, sqe, &[])
    }

    fn identify(&mut self, rig: &mut Rig, cns: u8, nsid: u32) -> (StatusCode, Vec<u8>) {
        let ask = Identify { cns, cntid: 0, specific: 0, csi: 0, nsid };
        let (cqe, data) = self.ask(rig, ask.sqe(0));
        (cqe.code(), data)
    }

    fn list(&mut self, rig: &mut Rig, cns: u8) -> Vec<u32> {
        let (code, data) = self.identify(rig, cns, 0);
        assert_eq!(code, sc::SUCCESS);
        id::NamespaceList::ref_from_bytes(&data).unwrap().iter().collect()
    }

    fn read(&mut self, rig: &mut Rig, nsid: u32) -> StatusCode {
        let sqe = Sqe::rw(io_op::READ, self.io.cid(), nsid, 0, 8, Sgl::transport(4096));
        rig.command(&self.io, sqe, &[]).0.code()
    }

    /// Waits for events, as hosts do.
    fn listen(&mut self, rig: &mut Rig, cid: u16) {
        let set = Feature::set(self.admin.cid(), fid::EVENT_CONFIG, 0, 1 << 8);
        rig.command(&self.admin, set, &[]);
        rig.submit(&self.admin, Sqe::new(admin_op::ASYNC_EVENT, cid, 0, Sgl::NONE), &[]);
    }

    /// What the Changed Namespace List says, once an event has told to look at it.
    fn told(&mut self, rig: &mut Rig, cid: u16) -> Option<Vec<u32>> {
        let Got::Resp(event) = rig.recv_within(self.admin.conn, Digests::default(), 50) else { return None };
        assert_eq!((event.cid.get(), event.result.get() as u32), (cid, Event::NAMESPACE_CHANGED.dword()));
        let ask = GetLogPage {
            lid: lid::CHANGED_NAMESPACES,
            lsp: 0,
            retain: false,
            len: 4096,
            offset: 0,
            index_offset: false,
            nsid: u32::MAX,
        };
        let (_, page) = self.ask(rig, ask.sqe(0));
        Some(id::NamespaceList::ref_from_bytes(&page).unwrap().iter().collect())
    }
}

/// Namespace 1 is seen by all, namespace 2 by `hosts`; each has its own volume.
fn rig(cores: u16, hosts: &[&str]) -> Rig {
    let mut rig = Rig::new(Setup { cores, ..Setup::default() });
    let s = &mut rig.snapshot.subsystems[0];
    s.hosts.push(OTHER.into());
    let mut first = s.namespaces[0].clone();
    first.info.id = VolumeId(8);
    let second = Namespace { nsid: 2, ..s.namespaces[0].clone() };
    s.namespaces = vec![first, second];
    show(&mut rig, hosts);
    rig
}

fn show(rig: &mut Rig, hosts: &[&str]) {
    rig.snapshot.generation += 1;
    let only = Visibility::Only(hosts.iter().map(|h| (*h).to_owned()).collect());
    rig.snapshot.subsystems[0].namespaces[1].visible = only;
    rig.configure();
}

#[test]
fn a_hidden_namespace_is_an_inactive_nsid() {
    let mut rig = rig(1, &[OTHER]);
    let mut host = Host::new(&mut rig, HOST, 0);
    let mut other = Host::new(&mut rig, OTHER, 0);
    for cns in [cns::ACTIVE_LIST, cns::ACTIVE_LIST_CSI, cns::ALLOCATED_LIST] {
        assert_eq!((host.list(&mut rig, cns), other.list(&mut rig, cns)), (vec![1], vec![1, 2]), "CNS {cns:x}");
    }
    for cns in [cns::NAMESPACE, cns::ALLOCATED_NAMESPACE] {
        let (code, data) = host.identify(&mut rig, cns, 2);
        assert_eq!((code, data.iter().all(|b| *b == 0)), (sc::SUCCESS, true), "CNS {cns:x}");
        let (_, data) = other.identify(&mut rig, cns, 2);
        assert_eq!(id::Namespace::ref_from_bytes(&data).unwrap().nsze.get(), 2048);
    }
    for cns in [cns::DESCRIPTORS, cns::NAMESPACE_INDEPENDENT, cns::NAMESPACE_CSI, cns::ATTACHED_CONTROLLERS] {
        assert_eq!(host.identify(&mut rig, cns, 2).0, sc::INVALID_NAMESPACE, "CNS {cns:x}");
        assert_eq!(other.identify(&mut rig, cns, 2).0, sc::SUCCESS, "CNS {cns:x}");
    }
    let range = [DsmRange { attributes: 0.into(), blocks: 8.into(), lba: 0.into() }];
    let mut dsm = Sqe::new(io_op::DSM, 0, 2, Sgl::in_capsule(16));
    dsm.cdw11 = 4.into();
    let large = vec![0; 32768];
    let commands: [(Sqe, &[u8]); 7] = [
        (Sqe::rw(io_op::READ, 0, 2, 0, 8, Sgl::transport(4096)), &[]),
        (Sqe::rw(io_op::WRITE, 0, 2, 0, 8, Sgl::in_capsule(4096)), &[0; 4096]),
        (Sqe::rw(io_op::WRITE, 0, 2, 0, 64, Sgl::transport(32768)), &large),
        (Sqe::rw(io_op::COMPARE, 0, 2, 0, 8, Sgl::in_capsule(4096)), &[0; 4096]),
        (Sqe::rw(io_op::WRITE_ZEROES, 0, 2, 0, 8, Sgl::NONE), &[]),
        (Sqe::new(io_op::FLUSH, 0, 2, Sgl::NONE), &[]),
        (dsm, range.as_bytes()),
    ];
    for (mut sqe, data) in commands {
        sqe.cid = host.io.cid().into();
        let (cqe, _) = rig.command(&host.io, sqe, data);
        assert_eq!((cqe.code(), cqe.dnr()), (sc::INVALID_NAMESPACE, true), "opcode {:x}", sqe.opcode);
        sqe.cid = other.io.cid().into();
        assert_eq!(rig.command(&other.io, sqe, data).0.code(), sc::SUCCESS, "opcode {:x}", sqe.opcode);
    }
    assert_eq!(rig.disk.borrow().log.len(), 7, "only the host that sees it reached the volume");
    assert_eq!(host.read(&mut rig, 1), sc::SUCCESS);
    rig.finish();
}

/// Only the controllers whose host gains or loses a namespace hear of it, on whatever core their queues are.
#[test]
fn a_change_of_visibility_is_told_to_whom_it_concerns() {
    let mut rig = rig(2, &[]);
    let mut host = Host::new(&mut rig, HOST, 1);
    let mut other = Host::new(&mut rig, OTHER, 0);
    host.listen(&mut rig, 1);
    other.listen(&mut rig, 2);
    assert_eq!((host.read(&mut rig, 2), other.read(&mut rig, 2)), (sc::INVALID_NAMESPACE, sc::INVALID_NAMESPACE));
    show(&mut rig, &[HOST]);
    assert_eq!((host.told(&mut rig, 1), other.told(&mut rig, 2)), (Some(vec![2]), None));
    assert_eq!((host.read(&mut rig, 2), other.read(&mut rig, 2)), (sc::SUCCESS, sc::INVALID_NAMESPACE));
    host.listen(&mut rig, 1);
    // A change of a namespace is told to those who see it.
    rig.snapshot.subsystems[0].namespaces[1].info.blocks = 1024;
    rig.configure();
    assert_eq!((host.told(&mut rig, 1), other.told(&mut rig, 2)), (Some(vec![2]), None));
    host.listen(&mut rig, 1);
    show(&mut rig, &[OTHER]);
    assert_eq!((host.told(&mut rig, 1), other.told(&mut rig, 2)), (Some(vec![2]), Some(vec![2])));
    assert_eq!((host.list(&mut rig, cns::ACTIVE_LIST), other.list(&mut rig, cns::ACTIVE_LIST)), (vec![1], vec![1, 2]));
    assert_eq!((host.read(&mut rig, 2), other.read(&mut rig, 2)), (sc::INVALID_NAMESPACE, sc::SUCCESS));
    rig.finish();
}

/// What the volumes have when a namespace is taken away is waited for; what they do not have yet never reaches them.
#[test]
fn commands_under_way_end_before_a_namespace_counts_as_taken_away() {
    for remove in [false, true] {
        for deallocate in [false, true] {
            let mut rig = rig(1, &[HOST]);
            let host = Host::new(&mut rig, HOST, 0);
            rig.submit(&host.io, Sqe::rw(io_op::WRITE, 1, 2, 0, 64, Sgl::transport(32768)), &[]);
            let Got::R2t(r2t) = rig.recv(host.io.conn) else { panic!("no R2T") };
            rig.cores[0].volumes.mood = Mood { stuck: true, ..Mood::default() };
            rig.submit(&host.io, Sqe::rw(io_op::WRITE, 2, 2, 0, 8, Sgl::in_capsule(4096)), &[1; 4096]);
            rig.submit(&host.io, Sqe::rw(io_op::READ, 3, 1, 0, 8, Sgl::transport(4096)), &[]);
            rig.turns(10);
            rig.cores[0].volumes.mood = Mood { later: 100, stuck: true, ..Mood::default() };
            if deallocate {
                let ranges =
                    [0u64, 8, 16].map(|lba| DsmRange { attributes: 0.into(), blocks: 8.into(), lba: lba.into() });
                let mut dsm = Sqe::new(io_op::DSM, 4, 2, Sgl::in_capsule(48));
                (dsm.cdw10, dsm.cdw11) = (2.into(), 4.into());
                rig.submit(&host.io, dsm, ranges.as_bytes());
            } else {
                rig.submit(&host.io, Sqe::rw(io_op::WRITE_ZEROES, 4, 2, 0, 8, Sgl::NONE), &[]);
            }
            rig.turns(10);
            assert!(rig.cores[0].target.settled(), "every request is still its host's right");
            if remove {
                rig.snapshot.subsystems[0].namespaces.truncate(1);
                rig.configure();
            } else {
                show(&mut rig, &[]);
            }
            rig.cores[0].volumes.mood = Mood { stuck: true, ..Mood::default() };
            rig.turns(20);
            let Got::Resp(cqe) = rig.recv(host.io.conn) else { panic!("no answer") };
            assert_eq!((cqe.cid.get(), cqe.code(), cqe.dnr()), (4, sc::INVALID_NAMESPACE, true));
            assert!(!rig.cores[0].target.settled(), "the volumes have a write");
            rig.cores[0].volumes.mood = Mood::default();
            for _ in 0..2 {
                match rig.recv(host.io.conn) {
                    Got::Resp(cqe) => assert_eq!((cqe.cid.get(), cqe.code()), (2, sc::SUCCESS)),
                    Got::Data(head, _) => assert_eq!(head.cccid.get(), 3),
                    other => panic!("{other:?}"),
                }
            }
            assert!(rig.cores[0].target.settled());
            rig.answer(&host.io, &r2t, &vec![9; 32768], 32768);
            assert_eq!(rig.complete(&host.io, 1, &[]).0.code(), sc::INVALID_NAMESPACE);
            assert_eq!(rig.disk.borrow().log.len(), 2, "nothing reached the volume afterwards");
            rig.finish();
        }
    }
}

/// The rights of hosts over namespaces as a matrix, 12 by 12 on two cores.
#[test]
fn every_pair_of_host_and_namespace() {
    let mut rig = rig(2, &[]);
    let host = |n: u32| format!("nqn.2024-01.io.pollux:host{n}");
    let seen = |h: u32, n: u32| (h * 7 + n * 3) % 5 < 2;
    let s = &mut rig.snapshot.subsystems[0];
    let model = s.namespaces[0].clone();
    (s.max_namespaces, s.allow_any_host) = (12, true);
    s.namespaces = (1..=12)
        .map(|n| {
            let visible = Visibility::Only((0..12).filter(|h| seen(*h, n)).map(host).collect());
            let mut ns = Namespace { nsid: n, visible, ..model.clone() };
            ns.info.id = VolumeId(20 + n);
            ns
        })
        .collect();
    rig.configure();
    let mut hosts: Vec<Host> = (0..12).map(|h| Host::new(&mut rig, &host(h), h as usize % 2)).collect();
    for (h, one) in (0..).zip(&mut hosts) {
        let want: Vec<u32> = (1..=12).filter(|n| seen(h, *n)).collect();
        assert_eq!(one.list(&mut rig, cns::ACTIVE_LIST), want, "host {h}");
        for n in 1..=12 {
            let want = if seen(h, n) { sc::SUCCESS } else { sc::INVALID_NAMESPACE };
            assert_eq!(one.read(&mut rig, n), want, "host {h}, namespace {n}");
        }
    }
    rig.finish();
}
