//! The client against a scripted target over an in-memory network: every command, every way data can be cut, every way a
//! target can break the protocol.

mod target;

use super::*;
use crate::base::rng::Rng;
use crate::base::{CoreId, Time};
use crate::initiator::{Client, Command, Op, ScsiError, State};
use crate::mem::{Class, Pool};
use crate::net::{Close, Loopback, LoopbackConfig, Net, Network};
use crate::wire::iscsi::LoginStatus;
use target::{BLOCK, BLOCKS, NAME, OWN, Shape, Target, USER, UUID, Vice};

struct Lab {
    host_net: Loopback,
    target_net: Loopback,
    host: Initiator,
    target: Target,
    host_pool: Pool,
    target_pool: Pool,
    now: Time,
}

const TURN_NS: u64 = 500_000;
const ISID: [u8; 6] = [0x80, 1, 2, 3, 0, 0xff];

impl Lab {
    fn new(shape: Shape, change: impl FnOnce(&mut Config), net: LoopbackConfig) -> Lab {
        let network = Network::new(net);
        let (host_net, mut target_net) = (network.net(), network.net());
        let (_, addr) = target_net.listen("10.0.0.2:3260".parse().unwrap(), false).unwrap();
        let mut config = Config::new(addr, Some(NAME), "iqn.2024-01.test:host", ISID);
        (config.depth, config.lun) = (8, 3);
        change(&mut config);
        let pool = || Pool::standalone(CoreId(0), &[Class { size: 131_072, count: 32 }]).unwrap();
        let (host, target) = (Initiator::new(config), Target::new(shape));
        Lab { host_net, target_net, host, target, host_pool: pool(), target_pool: pool(), now: Time(1) }
    }

    fn turn(&mut self) {
        self.now = self.now.after_ns(TURN_NS);
        self.host.poll(self.now, &mut self.host_net, &mut self.host_pool);
        self.host.kick(self.now, &mut self.host_net, &mut self.host_pool);
        self.target_net.poll(self.now, &mut self.target_pool, &mut self.target);
        for conn in std::mem::take(&mut self.target.hang_up) {
            self.target_net.close(conn, Close::Now);
        }
        self.target_net.flush(self.now, &mut self.target_pool);
    }

    fn until(&mut self, what: &str, mut enough: impl FnMut(&mut Lab) -> bool) {
        for _ in 0..200_000 {
            if enough(self) {
                return;
            }
            self.turn();
        }
        panic!("{what} never happened; {:?} {:?}", self.host.state(), self.host.error());
    }

    fn ready(&mut self) {
        self.until("ready", |lab| lab.host.state() != State::Connecting);
        assert_eq!(self.host.state(), State::Ready, "{:?}", self.host.error());
    }

    fn failed(&mut self) -> String {
        self.until("failure", |lab| lab.host.state() == State::Failed);
        self.host.why().unwrap()
    }

    fn submit(&mut self, command: Command, payload: Option<&[u8]>) {
        let mut buf = payload.map(|bytes| {
            let mut buf = self.host_pool.get(bytes.len()).unwrap();
            buf.copy_from_slice(bytes);
            buf
        });
        // The target's window may be closed for a moment.
        for _ in 0..100_000 {
            match self.host.submit(&command, buf, &mut self.host_net, &mut self.host_pool) {
                Ok(()) => return,
                Err(back) => buf = back,
            }
            self.turn();
        }
        panic!("no room for the command");
    }

    /// Runs one command to its end; a Read's bytes.
    fn run(&mut self, op: Op, lba: u64, blocks: u32, payload: Option<&[u8]>) -> Result<Vec<u8>, Failure> {
        self.submit(Command { queue: 0, slot: 5, op, lba, blocks, want_data: true }, payload);
        self.until("the end of a command", |lab| !lab.host.ended().is_empty());
        let ended = self.host.ended().remove(0);
        assert_eq!((ended.queue, ended.slot), (0, 5));
        let mut bytes = Vec::new();
        if let Some(buf) = ended.buf {
            bytes = buf.to_vec();
            self.host_pool.put(buf);
        }
        ended.result.map(|()| bytes)
    }

    fn no_buffer_lost(&self) {
        assert!(self.host_pool.stats().all(|s| s.free == s.total), "{:?}", self.host_pool.stats().collect::<Vec<_>>());
    }
}

fn lab(shape: Shape) -> Lab {
    Lab::new(shape, |_| {}, LoopbackConfig::default())
}

fn with(change: impl FnOnce(&mut Shape)) -> Shape {
    let mut shape = Shape::default();
    change(&mut shape);
    shape
}

fn scsi(status: u8, key: u8, asc: u16) -> Failure {
    Failure::Scsi(ScsiError { status, key, asc })
}

#[test]
fn logs_in_and_describes_the_unit() {
    for split in [false, true] {
        let mut lab = Lab::new(with(|s| s.split = split), |c| c.sessions = 3, LoopbackConfig::default());
        lab.ready();
        let disk = lab.host.disk().unwrap();
        assert_eq!((disk.block_size, disk.blocks, disk.io_bytes_max), (BLOCK as u32, BLOCKS, 1 << 20));
        assert_eq!(disk.identity, UUID);
        // The qualifier of the ISID counts the sessions.
        let isid = |n: u16| [0x80, 1, 2, 3, (n >> 8) as u8, n as u8];
        assert_eq!(lab.target.isids, [isid(0xff), isid(0x100), isid(0x101)]);
        assert_eq!(lab.host.under_way(), 0);
        lab.no_buffer_lost();
        let now = lab.now;
        lab.host.disconnect(now, &mut lab.host_net, &mut lab.host_pool);
        for _ in 0..20 {
            lab.turn();
        }
        assert_eq!((lab.target.logouts, lab.host_net.connections()), (3, 0));
    }
}

#[test]
fn every_command_does_what_it_says() {
    for (immediate_data, initial_r2t, collapse) in
        [(true, false, true), (true, true, false), (false, false, true), (false, true, false)]
    {
        let mut lab =
            lab(with(|s| (s.immediate_data, s.initial_r2t, s.collapse) = (immediate_data, initial_r2t, collapse)));
        lab.ready();
        let (a, b) = (vec![0x11; 2 * BLOCK], vec![0x22; 2 * BLOCK]);
        assert_eq!(lab.run(Op::Write, 4, 2, Some(&a)), Ok(vec![]));
        assert_eq!(lab.run(Op::Read, 4, 2, None), Ok(a.clone()));
        assert_eq!(lab.run(Op::Compare, 4, 2, Some(&a)), Ok(vec![]));
        assert_eq!(lab.run(Op::Compare, 4, 2, Some(&b)), Err(scsi(2, 0xe, 0x1d00)));
        assert_eq!(lab.run(Op::Flush, 0, 0, None), Ok(vec![]));
        assert_eq!(lab.run(Op::WriteZeroes, 4, 1, None), Ok(vec![]));
        assert_eq!(lab.run(Op::Read, 4, 2, None).unwrap(), [&[0; BLOCK][..], &a[BLOCK..]].concat());
        assert_eq!(lab.run(Op::Deallocate, 5, 1, None), Ok(vec![]));
        assert_eq!(lab.run(Op::Read, 4, 2, None), Ok(vec![0; 2 * BLOCK]));
        assert_eq!(lab.run(Op::Read, BLOCKS, 1, None), Err(scsi(2, 5, 0x2100)));
        assert_eq!(lab.target.r2ts > 0, !immediate_data && initial_r2t);
        lab.no_buffer_lost();
    }
}

/// Random writes and reads with many commands under way, whatever the stream is cut into.
fn soak(shape: Shape, digests: Digests, net: LoopbackConfig, seed: u64) -> (u32, u32) {
    let change = |c: &mut Config| {
        c.digests = digests;
        (c.sessions, c.max_data) = (2, 4096);
    };
    let mut lab = Lab::new(shape, change, net);
    lab.ready();
    let mut rng = Rng::new(seed);
    let mut model = lab.target.disk.clone();
    for _ in 0..12 {
        // Disjoint stretches, so that the order of execution does not matter.
        let mut reads = Vec::new();
        for n in 0..8u64 {
            let (lba, blocks) = (n * 128, 1 + rng.below(100) as u32);
            let range = lba as usize * BLOCK..(lba as usize + blocks as usize) * BLOCK;
            let (queue, slot) = ((n % 2) as u16, (n / 2) as u16);
            if rng.chance(50) {
                let mut bytes = vec![0; range.len()];
                rng.fill(&mut bytes);
                lab.submit(Command { queue, slot, op: Op::Write, lba, blocks, want_data: false }, Some(&bytes));
                model[range].copy_from_slice(&bytes);
            } else {
                let want_data = rng.chance(80);
                lab.submit(Command { queue, slot, op: Op::Read, lba, blocks, want_data }, None);
                reads.push(((queue, slot), want_data, range));
            }
        }
        lab.until("all ended", |lab| lab.host.ended().len() == 8);
        for ended in std::mem::take(lab.host.ended()) {
            assert_eq!(ended.result, Ok(()));
            let read = reads.iter().find(|(name, ..)| *name == (ended.queue, ended.slot));
            assert_eq!(ended.buf.is_some(), read.is_some_and(|(_, wanted, _)| *wanted));
            if let (Some(buf), Some((_, _, range))) = (ended.buf, read) {
                assert!(buf[..] == model[range.clone()], "a read's data");
                lab.host_pool.put(buf);
            }
        }
        assert!(lab.target.disk == model, "what was written");
    }
    lab.no_buffer_lost();
    (lab.target.r2ts, lab.target.unsolicited)
}

#[test]
fn soak_in_every_shape() {
    let both = Digests { header: true, data: true };
    let cut = |longest| LoopbackConfig { segment: (1, longest), ..LoopbackConfig::default() };
    let small = |s: &mut Shape| (s.first_burst, s.max_burst, s.segment) = (2048, 8192, 1024);
    for (digests, mtu) in [(Digests::NONE, 1460), (both, 1460), (both, 17), (Digests::NONE, 61)] {
        let (r2ts, _) = soak(Shape::default(), digests, cut(mtu), 1);
        assert_eq!(r2ts, 0, "a first burst of 64 KiB holds every write");
        let (r2ts, unsolicited) = soak(with(small), digests, cut(mtu), 2);
        assert!(r2ts > 0 && unsolicited > 0);
        let r2t_only = |s: &mut Shape| {
            small(s);
            (s.initial_r2t, s.immediate_data, s.collapse) = (true, false, false);
        };
        let (r2ts, unsolicited) = soak(with(r2t_only), digests, cut(mtu), 3);
        assert!(r2ts > 0 && unsolicited == 0);
        soak(with(|s| s.window = 1), digests, cut(mtu), 4);
    }
}

#[test]
fn chap_one_way_and_mutual() {
    let credentials = |secret: &[u8], mutual: Option<&[u8]>| {
        let mutual = mutual.map(|secret| (OWN.0.to_owned(), secret.to_vec()));
        Some(Credentials { name: USER.0.into(), secret: secret.to_vec(), mutual })
    };
    let login = |mutual, offer: Option<Credentials>| {
        let shape = with(|s| (s.chap, s.mutual) = (true, mutual));
        let mut lab = Lab::new(shape, |c| c.credentials = offer, LoopbackConfig::default());
        lab.until("an end", |lab| lab.host.state() != State::Connecting);
        lab.host.why()
    };
    assert_eq!(login(false, credentials(USER.1, None)), None);
    assert_eq!(login(false, credentials(USER.1, Some(OWN.1))), None);
    assert_eq!(login(true, credentials(USER.1, Some(OWN.1))), None);
    let refused = "login: refused: AuthenticationFailed";
    assert_eq!(login(false, credentials(b"another secret 1", None)).as_deref(), Some(refused));
    assert_eq!(login(true, credentials(USER.1, None)).as_deref(), Some(refused));
    assert!(login(false, None).unwrap().contains("no credentials"));
    assert!(
        login(false, credentials(USER.1, Some(b"another secret 2"))).unwrap().contains("CHAP authentication failed")
    );
    // A target without authentication is taken, unless it was to prove itself.
    let open = |offer| {
        let mut lab = Lab::new(Shape::default(), |c| c.credentials = offer, LoopbackConfig::default());
        lab.until("an end", |lab| lab.host.state() != State::Connecting);
        lab.host.why()
    };
    assert_eq!(open(credentials(USER.1, None)), None);
    let (mutual, unproved) = (credentials(USER.1, Some(OWN.1)), with(|s| s.vice = Vice::UnaskedTransit));
    let mut lab = Lab::new(unproved, |c| c.credentials = mutual, LoopbackConfig::default());
    assert!(lab.failed().contains("does not belong to the request"));
}

#[test]
fn discovery_finds_targets_and_their_addresses() {
    let mut lab = Lab::new(Shape::default(), |c| c.target = None, LoopbackConfig::default());
    lab.ready();
    let found = lab.host.found().unwrap();
    assert_eq!(found.len(), 2);
    assert_eq!((found[0].name.as_str(), found[1].name.as_str()), (NAME, "iqn.2024-01.test:b"));
    assert_eq!(found[0].addresses, ["10.0.0.2:3260,1", "[::1]:3260,2"]);
    assert!(found[1].addresses.is_empty());
}

#[test]
fn refused_logins_and_units_say_why() {
    let why = |vice| lab(with(|s| s.vice = vice)).failed();
    assert_eq!(why(Vice::Refuse(LoginStatus::NotFound)), "login: refused: NotFound");
    assert_eq!(why(Vice::Move), "login: the target is at 192.0.2.1:3260,1");
    assert!(why(Vice::EndlessLogin).contains("does not come to an end"));
    assert!(why(Vice::ForeignTag).contains("does not belong to the request"));
    assert!(why(Vice::LoginValue).contains("MaxBurstLength has an impossible value"));
    assert!(why(Vice::NoLun).contains("no logical unit 3; there are [0, 9]"));
    assert!(why(Vice::NotADisk).contains("other than disk"));
    let mut endless = lab(with(|s| s.attentions = 1000));
    assert!(endless.failed().contains("TEST UNIT READY failed"));
}

/// Every way a target can break the protocol ends the session, the command under way is reported, no buffer is lost.
#[test]
fn broken_targets_lose_only_their_session() {
    let digests = |c: &mut Config| {
        c.digests = Digests { header: true, data: true };
        c.nop_ms = 0;
        c.command_ms = 300;
    };
    for (vice, part) in [
        (Vice::Offset, "offset 1 is not what comes next"),
        (Vice::DataSn, "sequence number 1 is not the next"),
        (Vice::Tag, "names no such command"),
        (Vice::Short, "without all of its data"),
        (Vice::Long, "is not what comes next"),
        (Vice::HeaderDigest, "HeaderDigest"),
        (Vice::Reject, "rejected a PDU"),
        (Vice::AskForLogout, "asynchronous event 1"),
        (Vice::Opcode, "opcode 0x00 may not come here"),
        (Vice::HangUp, "ended while running commands"),
        (Vice::Silent, "no answer"),
    ] {
        let mut lab = Lab::new(with(|s| s.vice = vice), digests, LoopbackConfig::default());
        lab.ready();
        let result = lab.run(Op::Read, 0, 4, None);
        let want = if vice == Vice::Silent { Failure::TimedOut } else { Failure::Lost };
        assert_eq!(result, Err(want), "{vice:?}");
        let why = lab.failed();
        assert!(why.contains(part), "{vice:?}: {why}");
        lab.no_buffer_lost();
    }
    for (vice, part) in [(Vice::R2tBeyond, "offset 0 is not what comes next"), (Vice::R2tSn, "sequence number 1")] {
        let shape = with(|s| (s.vice, s.immediate_data, s.initial_r2t) = (vice, false, true));
        let mut lab = lab(shape);
        lab.ready();
        assert_eq!(lab.run(Op::Write, 0, 1, Some(&[1; BLOCK])), Err(Failure::Lost));
        assert!(lab.failed().contains(part), "{vice:?}");
        lab.no_buffer_lost();
    }
    let mut gap = lab(with(|s| s.vice = Vice::StatSn));
    assert!(gap.failed().contains("is not the next"), "a StatSN is missing");
    // A data digest costs the command, not the session.
    let mut lab = Lab::new(with(|s| s.vice = Vice::DataDigest), digests, LoopbackConfig::default());
    lab.ready();
    assert_eq!(lab.run(Op::Read, 0, 4, None), Err(Failure::Digest));
    lab.target.shape.vice = Vice::None;
    assert_eq!(lab.run(Op::Read, 0, 1, None), Ok(vec![0; BLOCK]));
    lab.no_buffer_lost();
}

#[test]
fn pings_in_both_directions() {
    let mut lab = Lab::new(Shape::default(), |c| c.nop_ms = 100, LoopbackConfig::default());
    lab.ready();
    lab.target.ping = true;
    assert!(lab.run(Op::Flush, 0, 0, None).is_ok());
    lab.until("the target's ping is answered", |lab| lab.target.pongs == 1);
    // Quiet for long: the client's pings keep the session.
    for _ in 0..2000 {
        lab.turn();
    }
    assert_eq!(lab.host.state(), State::Ready);
    lab.target.shape.vice = Vice::Silent;
    assert!(lab.failed().contains("no answer"), "a ping without an answer ends it");
}

#[test]
fn returns_after_a_loss_unless_the_unit_changed() {
    let mut lab = Lab::new(Shape::default(), |c| c.reconnect_ms = 5_000, LoopbackConfig::default());
    lab.ready();
    assert!(lab.run(Op::Write, 1, 1, Some(&[7; BLOCK])).is_ok());
    lab.target.shape.vice = Vice::HangUp;
    assert_eq!(lab.run(Op::Read, 1, 1, None), Err(Failure::Lost));
    lab.target.shape.vice = Vice::None;
    lab.ready();
    assert_eq!(lab.run(Op::Read, 1, 1, None), Ok(vec![7; BLOCK]));
    lab.target.shape.vice = Vice::HangUp;
    assert_eq!(lab.run(Op::Read, 1, 1, None), Err(Failure::Lost));
    lab.target.shape.vice = Vice::None;
    lab.target.blocks = BLOCKS - 1;
    assert!(lab.failed().contains("changed"));
    lab.no_buffer_lost();
}
