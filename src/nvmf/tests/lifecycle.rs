//! Time, change and numbers: time-outs, keep alive, reconfiguration, several cores, limits.

use super::rig::*;
use crate::base::VolumeId;
use crate::net::{Close, Net};
use crate::nvmf::Transport;
use crate::wire::fabrics::{CNTLID_DYNAMIC, Connect, ConnectData, DISCOVERY_NQN, Property, property};
use crate::wire::nvme::admin::Abort;
use crate::wire::nvme::{Sgl, Sqe, admin_op, io_op, sc};
use crate::wire::nvme_tcp::Digests;

#[test]
fn connections_without_connect_are_reaped() {
    let mut setup = Setup::default();
    setup.config.unassociated = 2000;
    setup.config.unassociated_per_address = 2000;
    let mut rig = Rig::new(setup);
    let good = rig.admin(0, NQN);
    let mut junk = Vec::new();
    for i in 0..1000u32 {
        let conn = rig.host.connect(rig.cores[0].addr).unwrap();
        junk.push(conn);
        if i % 3 == 1 {
            rig.send(conn, &[0, 0, 128][..(i % 4) as usize % 3]);
        }
    }
    let last = rig.dial(0);
    rig.shake(last, 0, Digests::default());
    assert_eq!(rig.cores[0].target.stats().unassociated_now, 1001);
    rig.pass_ms(9_000);
    assert_eq!(rig.command(&good, Sqe::new(admin_op::KEEP_ALIVE, 1, 0, Sgl::NONE), &[]).0.code(), sc::SUCCESS);
    rig.pass_ms(1_500);
    assert!(junk.iter().all(|c| rig.closed(*c)) && rig.closed(last), "all of them within the limit");
    let stats = rig.cores[0].target.stats();
    assert_eq!((stats.connect_timeouts, stats.unassociated_now), (1001, 0));
    assert!(!rig.closed(good.conn));
    rig.finish();
}

#[test]
fn limits_on_connections() {
    let mut setup = Setup::default();
    setup.config.unassociated = 5;
    setup.config.connections = 8;
    setup.config.connections_per_host = 3;
    let mut rig = Rig::new(setup);
    let (admin, io) = rig.ready();
    let third = rig.queue(0, NQN, admin.cntlid, 2, 4, Digests::default());
    let conn = rig.dial(0);
    rig.shake(conn, 0, Digests::default());
    let params = Connect { format: 0, qid: 3, sqsize: 127, cattr: 4, kato: 0 };
    let cqe = rig.connect(conn, Digests::default(), params, &ConnectData::new(HOSTID, admin.cntlid, NQN, HOST));
    assert_eq!(cqe.code(), sc::CONNECT_BUSY, "a fourth connection of this host");
    let more: Vec<_> = (0..6).map(|_| rig.dial(0)).collect();
    let refused = more.iter().filter(|c| rig.closed(**c)).count();
    assert_eq!(refused, 2, "five without a queue at a time");
    assert_eq!(rig.cores[0].target.stats().refused, 2);
    assert!(!rig.closed(io.conn) && !rig.closed(third.conn));
    rig.finish();
}

#[test]
fn keep_alive() {
    let mut rig = Rig::plain();
    let (admin, mut io) = rig.ready();
    for _ in 0..4 {
        rig.pass_ms(6_000);
        assert_eq!(rig.command(&admin, Sqe::new(admin_op::KEEP_ALIVE, 1, 0, Sgl::NONE), &[]).0.code(), sc::SUCCESS);
    }
    for _ in 0..4 {
        rig.pass_ms(6_000);
        let cid = io.cid();
        let flush = Sqe::new(io_op::FLUSH, cid, 1, Sgl::NONE);
        assert_eq!(rig.command(&io, flush, &[]).0.code(), sc::SUCCESS, "traffic keeps a controller alive");
    }
    rig.cores[0].volumes.mood.stuck = true;
    rig.submit(&io, Sqe::rw(io_op::WRITE, 50, 1, 0, 8, Sgl::in_capsule(4096)), &[1; 4096]);
    rig.submit(&io, Sqe::rw(io_op::WRITE, 51, 1, 0, 64, Sgl::transport(32768)), &[]);
    rig.pass_ms(10_900);
    assert!(rig.closed(admin.conn) && rig.closed(io.conn), "silence ends the association");
    let stats = rig.cores[0].target.stats();
    assert_eq!((stats.keep_alive_expired, stats.controllers_now, stats.pending_now), (1, 0, 1));
    rig.cores[0].volumes.mood.stuck = false;
    rig.turns(20);
    assert_eq!(rig.cores[0].target.stats().pending_now, 0, "what the volumes had came back");
    rig.finish();
}

#[test]
fn idle_discovery_controllers_end() {
    let mut rig = Rig::plain();
    let conn = rig.dial(0);
    rig.shake(conn, 0, Digests::default());
    let params = Connect { format: 0, qid: 0, sqsize: 31, cattr: 0, kato: 0 };
    let data = ConnectData::new(HOSTID, CNTLID_DYNAMIC, DISCOVERY_NQN, "");
    assert_eq!(rig.connect(conn, Digests::default(), params, &data).code(), sc::SUCCESS);
    rig.pass_ms(119_000);
    assert!(!rig.closed(conn));
    rig.pass_ms(2_000);
    assert!(rig.closed(conn));
    rig.finish();
}

/// Removing a host, a listener or a subsystem ends exactly the connections that relied on it.
#[test]
fn reconfiguration_ends_what_it_takes_away() {
    for what in ["host", "listener", "subsystem", "transport", "unlisten"] {
        let mut rig = Rig::plain();
        let mut other = rig.snapshot.subsystems[0].clone();
        other.nqn = "nqn.2024-01.io.pollux:two".into();
        rig.snapshot.subsystems.push(other);
        rig.configure();
        let (admin, io) = rig.ready();
        let second = rig.admin(0, "nqn.2024-01.io.pollux:two");
        rig.cores[0].volumes.mood.stuck = true;
        rig.submit(&io, Sqe::rw(io_op::WRITE, 50, 1, 0, 8, Sgl::in_capsule(4096)), &[1; 4096]);
        rig.turns(4);
        assert!(!rig.cores[0].target.quiet(VolumeId(9)));
        let mut both = false;
        match what {
            "host" => rig.snapshot.subsystems[0].hosts.clear(),
            "listener" => rig.snapshot.subsystems[0].listeners.clear(),
            "subsystem" => drop(rig.snapshot.subsystems.remove(0)),
            "transport" => (rig.snapshot.transport, both) = (None, true),
            _ => {
                let listener = rig.cores[0].listener;
                rig.cores[0].target.unlisten(listener);
                both = true;
            }
        }
        rig.configure();
        rig.turns(10);
        assert!(rig.closed(admin.conn) && rig.closed(io.conn), "{what}");
        assert_eq!(rig.closed(second.conn), both, "{what}");
        assert!(!rig.cores[0].target.quiet(VolumeId(9)), "the volumes still have a write");
        rig.cores[0].volumes.mood.stuck = false;
        rig.turns(10);
        assert!(rig.cores[0].target.quiet(VolumeId(9)), "{what}");
        rig.finish();
    }
}

#[test]
fn a_removed_namespace_is_gone_for_the_next_command() {
    let mut rig = Rig::plain();
    let (_admin, mut io) = rig.ready();
    let mut read = |rig: &mut Rig| {
        let cid = io.cid();
        rig.command(&io, Sqe::rw(io_op::READ, cid, 1, 0, 8, Sgl::transport(4096)), &[]).0.code()
    };
    assert_eq!(read(&mut rig), sc::SUCCESS);
    let ns = rig.snapshot.subsystems[0].namespaces.remove(0);
    rig.configure();
    assert_eq!(read(&mut rig), sc::INVALID_NAMESPACE);
    rig.snapshot.subsystems[0].namespaces.push(ns);
    rig.configure();
    assert_eq!(read(&mut rig), sc::SUCCESS);
    rig.finish();
}

/// The admin queue on one core, I/O queues on all: the same behaviour as on one.
#[test]
fn a_controller_spans_cores() {
    let mut rig = Rig::new(Setup { cores: 3, ..Setup::default() });
    let mut admin = rig.admin(1, NQN);
    assert_eq!(admin.cntlid % 3, 1, "the CNTLID names the owner");
    let mut queues: Vec<Queue> =
        (0..3).map(|i| rig.queue(i, NQN, admin.cntlid, i as u16 + 1, 4, Digests::default())).collect();
    for (i, q) in queues.iter_mut().enumerate() {
        let cid = q.cid();
        let sqe = Sqe::rw(io_op::WRITE, cid, 1, i as u64 * 8, 8, Sgl::in_capsule(4096));
        assert_eq!(rig.command(q, sqe, &[i as u8 + 1; 4096]).0.code(), sc::SUCCESS);
    }
    let cid = queues[2].cid();
    let (_, data) = rig.command(&queues[2], Sqe::rw(io_op::READ, cid, 1, 8, 8, Sgl::transport(4096)), &[]);
    assert_eq!(data, [2; 4096]);
    let reports: Vec<_> = rig.cores.iter().flat_map(|c| c.target.controllers()).collect();
    assert_eq!((reports.len(), reports[0].io_queues, reports[0].core.0), (1, 3, 1));
    // A queue of another core is refused by the owner: duplicate QID, strange host.
    for (qid, hostid) in [(1, HOSTID), (4, [1; 16])] {
        let conn = rig.dial(2);
        rig.shake(conn, 0, Digests::default());
        let params = Connect { format: 0, qid, sqsize: 127, cattr: 4, kato: 0 };
        let data = ConnectData::new(hostid, admin.cntlid, NQN, HOST);
        assert_ne!(rig.connect(conn, Digests::default(), params, &data).code(), sc::SUCCESS);
        rig.host.close(conn, Close::Now);
    }
    // Traffic on another core keeps the controller alive.
    for _ in 0..4 {
        rig.pass_ms(6_000);
        let cid = queues[0].cid();
        let flush = Sqe::new(io_op::FLUSH, cid, 1, Sgl::NONE);
        assert_eq!(rig.command(&queues[0], flush, &[]).0.code(), sc::SUCCESS);
    }
    // Abort across cores: a command that waits for its data.
    rig.submit(&queues[2], Sqe::rw(io_op::WRITE, 5, 1, 0, 64, Sgl::transport(32768)), &[]);
    let Got::R2t(r2t) = rig.recv(queues[2].conn) else { panic!("no R2T") };
    for (cid, want) in [(6, 1), (5, 0)] {
        let own = admin.cid();
        let (cqe, _) = rig.command(&admin, Abort { sqid: 3, cid }.sqe(own), &[]);
        assert_eq!((cqe.code(), cqe.result.get()), (sc::SUCCESS, want));
    }
    rig.answer(&queues[2], &r2t, &vec![9; 32768], 32768);
    assert_eq!(rig.complete(&queues[2], 5, &[]).0.code(), sc::ABORT_REQUESTED);
    // One queue leaves, its QID is free; then the controller ends and takes all of them with it.
    rig.host.close(queues[0].conn, Close::Now);
    rig.turns(10);
    queues[0] = rig.queue(2, NQN, admin.cntlid, 1, 4, Digests::default());
    let cid = admin.cid();
    rig.command(&admin, Property::set(cid, property::CC, false, 0), &[]);
    rig.turns(10);
    assert!(queues.iter().all(|q| rig.closed(q.conn)), "a reset ends queues on every core");
    rig.enable(&mut admin);
    let q = rig.queue(0, NQN, admin.cntlid, 1, 4, Digests::default());
    rig.host.close(admin.conn, Close::Now);
    rig.turns(10);
    assert!(rig.closed(q.conn), "an I/O queue does not outlive its admin queue");
    rig.finish();
}

/// A connection that goes away while the owner of its controller judges its Connect leaves no queue behind.
#[test]
fn a_connect_that_is_overtaken_leaves_nothing() {
    for turns in 0..8 {
        let mut rig = Rig::new(Setup { cores: 2, ..Setup::default() });
        let admin = rig.admin(0, NQN);
        let conn = rig.dial(1);
        rig.shake(conn, 0, Digests::default());
        let params = Connect { format: 0, qid: 1, sqsize: 127, cattr: 4, kato: 0 };
        let data = ConnectData::new(HOSTID, admin.cntlid, NQN, HOST);
        let capsule = crate::wire::nvme_tcp::pdu::CapsuleCmd::with_data(params.sqe(1), 1024, 4, Digests::default());
        rig.send(conn, zerocopy::IntoBytes::as_bytes(&capsule));
        rig.send(conn, zerocopy::IntoBytes::as_bytes(&data));
        rig.turns(turns);
        if turns % 2 == 0 {
            rig.host.close(conn, Close::Now);
        } else {
            rig.host.close(admin.conn, Close::Now);
        }
        rig.turns(12);
        assert_eq!(rig.cores[0].target.controllers().map(|c| c.io_queues).sum::<usize>(), 0);
        if turns % 2 == 0 {
            let again = rig.queue(1, NQN, admin.cntlid, 1, 4, Digests::default());
            assert!(!rig.closed(again.conn), "the QID is free");
        } else if turns < 7 {
            assert_eq!(rig.cores[1].target.stats().io_queues_now, 0, "no queue without its controller");
        }
        rig.finish();
    }
}

/// A host that does not read holds at most the buffers of its limit, and the others go on.
#[test]
fn a_host_that_does_not_read_is_not_served_without_end() {
    let mut setup = Setup::default();
    setup.loopback.window = 65536;
    setup.config.unsent_bytes = 256 * 1024;
    let mut rig = Rig::new(setup);
    let admin = rig.admin(0, NQN);
    let slow = rig.queue(0, NQN, admin.cntlid, 1, 4, Digests::default());
    let mut quick = rig.queue(0, NQN, admin.cntlid, 2, 4, Digests::default());
    rig.deaf = Some(slow.conn);
    for cid in 0..128 {
        rig.submit(&slow, Sqe::rw(io_op::READ, cid, 1, 0, 64, Sgl::transport(32768)), &[]);
    }
    rig.turns(200);
    let used: usize = rig.cores[0].pool.stats().map(|s| (s.total - s.free) * s.size).sum();
    assert!(used <= (256 + 64 + 64) * 2 * 1024, "a deaf host holds {used} bytes of buffers");
    let cid = quick.cid();
    let (cqe, _) = rig.command(&quick, Sqe::rw(io_op::READ, cid, 1, 0, 8, Sgl::transport(4096)), &[]);
    assert_eq!(cqe.code(), sc::SUCCESS, "others are served");
    rig.deaf = None;
    let mut answered = 0;
    while answered < 128 {
        match rig.recv(slow.conn) {
            Got::Data(_, bytes) => answered += usize::from(bytes.len() == 32768),
            other => panic!("{other:?}"),
        }
    }
    rig.finish();
}

/// Short of buffers for a while: commands wait and then complete, none fails.
#[test]
fn short_buffers_delay_and_never_fail() {
    let mut rig = Rig::new(Setup { buffers: 3, ..Setup::default() });
    let (_admin, io) = rig.ready();
    rig.cores[0].volumes.mood.slow = 30;
    let data = vec![7; 65536];
    for cid in 0..100u16 {
        let sqe = match cid % 3 {
            0 => Sqe::rw(io_op::READ, cid, 1, 0, 8, Sgl::transport(4096)),
            1 => Sqe::rw(io_op::WRITE, cid, 1, 0, 8, Sgl::in_capsule(4096)),
            _ => Sqe::rw(io_op::WRITE, cid, 1, 0, 128, Sgl::transport(65536)),
        };
        rig.submit(&io, sqe, &data[..4096]);
    }
    let mut answered = 0;
    while answered < 100 {
        match rig.recv(io.conn) {
            Got::Resp(cqe) => {
                assert_eq!(cqe.code(), sc::SUCCESS);
                answered += 1;
            }
            Got::Data(head, _) => answered += usize::from(head.ch.flags & 8 != 0),
            Got::R2t(r2t) => rig.answer(&io, &r2t, &data, 65536),
            other => panic!("{other:?}"),
        }
    }
    assert!(rig.cores[0].target.stats().waits > 0, "the test made buffers short");
    rig.finish();
}

/// Ten thousand connections come, do something and go, in every state; nothing is left of them.
#[test]
fn connection_churn_leaves_nothing() {
    let mut rig = Rig::plain();
    let admin = rig.admin(0, NQN);
    for i in 0..2_500u32 {
        let conn = rig.dial(0);
        if i % 4 > 0 {
            rig.shake(conn, 0, Digests::default());
        }
        if i % 4 > 1 {
            let params = Connect { format: 0, qid: 1, sqsize: 127, cattr: 4, kato: 0 };
            let data = ConnectData::new(HOSTID, admin.cntlid, NQN, HOST);
            assert_eq!(rig.connect(conn, Digests::default(), params, &data).code(), sc::SUCCESS);
        }
        if i % 4 > 2 {
            let q = Queue::bare(conn);
            rig.submit(&q, Sqe::rw(io_op::WRITE, 1, 1, 0, 64, Sgl::transport(32768)), &[]);
            rig.turn();
        }
        rig.host.close(conn, if i % 2 == 0 { Close::Now } else { Close::AfterSend });
        rig.turns(3);
    }
    let stats = rig.cores[0].target.stats();
    assert_eq!((stats.io_queues, stats.io_queues_now, stats.unassociated_now), (1250, 0, 0));
    rig.finish();
}

#[test]
fn options_out_of_range_are_moved_into_it() {
    let t = Transport {
        queue_depth: 0,
        admin_depth: 0,
        io_queues: 0,
        in_capsule_bytes: 100_001,
        io_bytes_max: 100_000,
        c2h_success: true,
    };
    let c = t.clamped();
    assert_eq!((c.queue_depth, c.admin_depth, c.io_queues, c.in_capsule_bytes), (2, 32, 1, 65536));
    assert_eq!(c.io_bytes_max, 65536, "a power of two");
    assert_eq!(Transport::default().clamped(), Transport::default());
}
