//! The initiator against a scripted target over an in-memory network: every command, every way data can be cut, every
//! way a target can break the protocol.

mod target;

use super::*;
use crate::base::rng::Rng;
use crate::base::{CoreId, Time};
use crate::mem::{Class, Pool};
use crate::net::{Close, Loopback, LoopbackConfig, Net, Network};
use crate::wire::nvme::sc;
use crate::wire::nvme_tcp::Fes;
use target::{BLOCK, BLOCKS, Shape, Target, UUID, Vice};

/// Both sides and the clock.
struct Lab {
    network: Network,
    host_net: Loopback,
    target_net: Loopback,
    host: Initiator,
    target: Target,
    host_pool: Pool,
    target_pool: Pool,
    now: Time,
}

const TURN_NS: u64 = 500_000;

impl Lab {
    fn new(shape: Shape, change: impl FnOnce(&mut Config), net: LoopbackConfig) -> Lab {
        let network = Network::new(net);
        let (host_net, mut target_net) = (network.net(), network.net());
        let (_, addr) = target_net.listen("10.0.0.2:4420".parse().unwrap(), false).unwrap();
        let mut config = Config::new(addr, "nqn.2024-01.test:sub", "nqn.2024-01.test:host", [1; 16]);
        config.depth = 8;
        change(&mut config);
        let pool = || Pool::standalone(CoreId(0), &[Class { size: 65536, count: 32 }]).unwrap();
        let (host, target) = (Initiator::new(config), Target::new(shape));
        Lab { network, host_net, target_net, host, target, host_pool: pool(), target_pool: pool(), now: Time(1) }
    }

    fn turn(&mut self) {
        self.now = self.now.after_ns(TURN_NS);
        self.host.poll(self.now, &mut self.host_net, &mut self.host_pool);
        self.host.kick(self.now, &mut self.host_net, &mut self.host_pool);
        self.target.now = self.now;
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
        // What was already queued (a termination request) still travels.
        for _ in 0..50 {
            self.turn();
        }
        self.host.error().unwrap().to_string()
    }

    fn submit(&mut self, command: Command, payload: Option<&[u8]>) {
        let buf = payload.map(|bytes| {
            let mut buf = self.host_pool.get(bytes.len()).unwrap();
            buf.copy_from_slice(bytes);
            buf
        });
        self.host.submit(&command, buf, &mut self.host_net, &mut self.host_pool).expect("room for the command");
    }

    /// Runs one command to its end; a Read's bytes.
    fn run(&mut self, op: Op, lba: u64, blocks: u32, payload: Option<&[u8]>) -> Result<Vec<u8>, Failure> {
        self.submit(Command { queue: 0, slot: 5, op, lba, blocks, want_data: true }, payload);
        self.until("the end of a command", |lab| !lab.host.ended().is_empty());
        let ended = self.host.ended().pop().unwrap();
        assert_eq!((ended.queue, ended.slot), (0, 5));
        let bytes = ended.buf.as_deref().unwrap_or(&[]).to_vec();
        if let Some(buf) = ended.buf {
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

fn command(slot: u16, op: Op, lba: u64, blocks: u32) -> Command {
    Command { queue: 0, slot, op, lba, blocks, want_data: true }
}

#[test]
fn connects_and_describes_the_namespace() {
    let mut lab = Lab::new(Shape::default(), |c| c.queues = 3, LoopbackConfig::default());
    assert_eq!(lab.host.state(), State::Connecting);
    lab.ready();
    let ns = lab.host.namespace().unwrap();
    assert_eq!((ns.nsid, ns.block_size, ns.blocks, ns.id), (3, 4096, BLOCKS, Some(UUID)));
    assert_eq!((ns.io_bytes_max, ns.volatile_cache, ns.model.as_str()), (4096 << 5, true, "fake"));
    assert_eq!((lab.target.connections(), lab.host.in_capsule_max()), (4, 8192));
    // Depth 8 needs queues of nine entries; SQSIZE is 0's based.
    assert_eq!(lab.target.sqsizes, [(0, 31), (1, 8), (2, 8), (3, 8)]);
    lab.no_buffer_lost();
}

#[test]
fn many_queues_are_connected_a_few_at_a_time() {
    let mut lab = Lab::new(Shape::default(), |c| c.queues = 8, LoopbackConfig::default());
    let mut most = 0;
    lab.until("ready", |lab| {
        most = most.max(lab.target.unassociated());
        lab.host.state() != State::Connecting
    });
    assert_eq!((lab.host.state(), lab.target.connections()), (State::Ready, 9), "{:?}", lab.host.error());
    assert!((2..=4).contains(&most), "{most} at once");
}

#[test]
fn every_command_does_what_it_says() {
    let mut lab = lab(Shape::default());
    lab.ready();
    let (a, b) = (vec![0x11; 2 * BLOCK], vec![0x22; 2 * BLOCK]);
    assert_eq!(lab.run(Op::Write, 4, 2, Some(&a)), Ok(vec![]));
    assert_eq!(lab.run(Op::Read, 4, 2, None), Ok(a.clone()));
    assert_eq!(lab.run(Op::Compare, 4, 2, Some(&a)), Ok(vec![]));
    assert_eq!(lab.run(Op::Compare, 4, 2, Some(&b)), Err(Failure::Status(sc::COMPARE_FAILURE)));
    assert_eq!(lab.run(Op::Flush, 0, 0, None), Ok(vec![]));
    assert_eq!(lab.run(Op::WriteZeroes, 4, 1, None), Ok(vec![]));
    assert_eq!(lab.run(Op::Read, 4, 2, None).unwrap(), [&[0; BLOCK][..], &a[BLOCK..]].concat());
    assert_eq!(lab.run(Op::Deallocate, 5, 1, None), Ok(vec![]));
    assert_eq!(lab.run(Op::Read, 4, 2, None), Ok(vec![0; 2 * BLOCK]));
    assert_eq!(lab.run(Op::Read, BLOCKS, 1, None), Err(Failure::Status(sc::LBA_OUT_OF_RANGE)));
    lab.no_buffer_lost();
}

/// Random writes and reads with many commands under way, whatever the stream is cut into.
fn soak(shape: Shape, digests: Digests, net: LoopbackConfig, seed: u64) {
    let mut lab = Lab::new(
        shape,
        |c| {
            c.digests = digests;
            c.queues = 2;
        },
        net,
    );
    lab.ready();
    let mut rng = Rng::new(seed);
    let mut model = lab.target.disk.clone();
    for round in 0..12u8 {
        // Disjoint stretches, so that the order of execution does not matter.
        let mut reads = Vec::new();
        for n in 0..8u64 {
            let (lba, blocks) = (n * 8, 1 + rng.below(3) as u32);
            let range = lba as usize * BLOCK..(lba as usize + blocks as usize) * BLOCK;
            let (queue, slot) = ((n % 2) as u16, (n / 2) as u16);
            if rng.chance(50) {
                let mut bytes = vec![0; range.len()];
                rng.fill(&mut bytes);
                bytes[0] = round;
                let write = Command { queue, slot, op: Op::Write, lba, blocks, want_data: false };
                lab.submit(write, Some(&bytes));
                model[range].copy_from_slice(&bytes);
            } else {
                let want_data = rng.chance(80);
                lab.submit(Command { queue, slot, op: Op::Read, lba, blocks, want_data }, None);
                reads.push(((queue, slot), want_data, range));
            }
        }
        let mut ended = Vec::new();
        lab.until("all eight", |lab| {
            ended.append(lab.host.ended());
            ended.len() == 8
        });
        for e in ended {
            assert_eq!(e.result, Ok(()));
            let read = reads.iter().find(|(name, _, _)| *name == (e.queue, e.slot));
            let want = read.and_then(|(_, want, range)| want.then(|| &model[range.clone()]));
            assert_eq!(e.buf.as_deref(), want);
            if let Some(buf) = e.buf {
                lab.host_pool.put(buf);
            }
        }
    }
    assert_eq!(lab.target.disk, model);
    assert!(lab.target.in_capsule + lab.target.by_r2t > 20);
    lab.no_buffer_lost();
}

#[test]
fn data_survives_any_segmentation_digest_and_transfer_size() {
    let mut seed = 0;
    for (header, data) in [(false, false), (true, false), (false, true), (true, true)] {
        for segment in [(1, 7), (500, 5000), (1 << 18, 1 << 18)] {
            for (in_capsule, r2t_bytes, c2h_bytes, maxh2c, success) in
                [(16384, 1 << 20, 1 << 20, 131_072, true), (0, 8192, 4096, 4096, false), (4096, 4096, 512, 8192, true)]
            {
                seed += 1;
                let shape = Shape {
                    in_capsule,
                    r2t_bytes,
                    c2h_bytes,
                    maxh2c,
                    success,
                    cpda: (seed % 3) as u8 * 15,
                    ..Shape::default()
                };
                let net = LoopbackConfig { seed, segment, ..LoopbackConfig::default() };
                soak(shape, Digests { header, data }, net, seed);
            }
        }
    }
}

#[test]
fn large_reads_land_in_place() {
    let shape = Shape { c2h_bytes: 1 << 20, ..Shape::default() };
    for data in [false, true] {
        let net = LoopbackConfig { segment: (3000, 9000), ..LoopbackConfig::default() };
        let mut lab = Lab::new(shape, |c| c.digests = Digests { header: false, data }, net);
        lab.ready();
        Rng::new(4).fill(&mut lab.target.disk);
        let want = lab.target.disk[BLOCK..15 * BLOCK].to_vec();
        assert_eq!(lab.run(Op::Read, 1, 14, None), Ok(want));
        lab.no_buffer_lost();
    }
}

#[test]
fn set_up_failures_say_what_and_why() {
    for (vice, part) in [
        (
            Vice::RefuseConnect(sc::CONNECT_INVALID_HOST),
            "refused Connect of the admin queue: status 1/84h (this host NQN",
        ),
        (Vice::RefuseConnect(sc::CONNECT_INVALID), "no such subsystem"),
        (Vice::WantAuthentication, "in-band authentication"),
        (Vice::NoNamespace, "no active namespace at all"),
        (Vice::OneQueue, "grants 1 I/O connections, 2 were asked for"),
        (Vice::OtherBlockSize, "other than 512 or 4096"),
        (Vice::NeverReady, "no answer from 10.0.0.2:4420 in time while waiting for the controller to be ready"),
        (Vice::SecondIcResp, "broke the protocol while Connect of the admin queue: SequenceError"),
    ] {
        let mut lab = Lab::new(Shape { vice, ..Shape::default() }, |c| c.queues = 2, LoopbackConfig::default());
        let error = lab.failed();
        assert!(error.contains(part), "{vice:?}: {error}");
        assert_eq!(lab.target.connections(), 0, "{vice:?}");
        lab.no_buffer_lost();
    }
    let mut lab = Lab::new(Shape::default(), |c| c.nsid = Some(9), LoopbackConfig::default());
    assert!(lab.failed().contains("no active namespace 9"));
    let mut lab = Lab::new(Shape::default(), |c| c.addr.set_port(1), LoopbackConfig::default());
    assert!(lab.failed().contains("ended while connecting"));
}

#[test]
fn a_target_that_breaks_the_protocol_is_told_so_and_left() {
    use Fes::{HeaderDigest, InvalidHeaderField, OutOfRange, SequenceError};
    for (vice, op, fes) in [
        (Vice::WrongOffset, Op::Read, Some(OutOfRange)),
        (Vice::TooMuchData, Op::Read, Some(InvalidHeaderField)),
        (Vice::EarlySuccess, Op::Read, Some(SequenceError)),
        (Vice::UnknownCid, Op::Flush, Some(InvalidHeaderField)),
        (Vice::R2tTooLong, Op::Write, Some(OutOfRange)),
        (Vice::R2tTwice, Op::Write, Some(OutOfRange)),
        (Vice::AlienPdu, Op::Flush, Some(InvalidHeaderField)),
        (Vice::BadHeaderDigest, Op::Flush, Some(HeaderDigest)),
        (Vice::Terminate, Op::Flush, None),
        (Vice::Hangup, Op::Read, None),
    ] {
        let c2h_bytes = if vice == Vice::EarlySuccess { 512 } else { 1 << 20 };
        let shape = Shape { vice, in_capsule: 0, c2h_bytes, ..Shape::default() };
        let mut lab = Lab::new(
            shape,
            |c| c.digests = Digests { header: vice == Vice::BadHeaderDigest, data: false },
            LoopbackConfig::default(),
        );
        // The digest is bad from the Connect of the I/O queue on.
        if vice != Vice::BadHeaderDigest {
            lab.ready();
            let payload = vec![1; BLOCK];
            for slot in 0..3 {
                lab.submit(command(slot, op, 0, u32::from(op != Op::Flush)), op.has_payload().then_some(&payload));
            }
        }
        let error = lab.failed();
        assert_eq!(lab.target.terminated.first().map(|t| t.0), fes.map(|f| f as u16), "{vice:?}: {error}");
        let mut ended = std::mem::take(lab.host.ended());
        // Some may have ended well before; each is reported once, and the rest as lost.
        ended.sort_by_key(|e| e.slot);
        if vice != Vice::BadHeaderDigest {
            assert_eq!(ended.iter().map(|e| e.slot).collect::<Vec<_>>(), [0, 1, 2], "{vice:?}");
            assert!(ended.iter().any(|e| e.result == Err(Failure::Lost)), "{vice:?}");
        }
        for buf in ended.into_iter().filter_map(|e| e.buf) {
            lab.host_pool.put(buf);
        }
        if vice == Vice::Terminate {
            assert!(error.contains("fatal error status 04h, information 0x4d"), "{error}");
        }
        lab.no_buffer_lost();
    }
}

#[test]
fn a_bad_data_digest_fails_one_command_only() {
    let mut lab = Lab::new(
        Shape { vice: Vice::BadDataDigest, ..Shape::default() },
        |c| c.digests = Digests { header: false, data: true },
        LoopbackConfig::default(),
    );
    lab.ready();
    assert_eq!(lab.run(Op::Read, 0, 1, None), Err(Failure::Digest));
    assert_eq!(lab.run(Op::Flush, 0, 0, None), Ok(vec![]));
    assert_eq!(lab.host.state(), State::Ready);
    lab.no_buffer_lost();
}

#[test]
fn a_command_without_answer_ends_the_association() {
    let mut lab =
        Lab::new(Shape { vice: Vice::Silent, ..Shape::default() }, |c| c.command_ms = 200, LoopbackConfig::default());
    lab.ready();
    lab.submit(command(0, Op::Read, 0, 1), None);
    for _ in 0..100 {
        lab.turn();
    }
    lab.submit(command(1, Op::Read, 1, 1), None);
    assert!(lab.failed().contains("in time while running commands"));
    let results: Vec<_> = lab.host.ended().drain(..).map(|e| (e.slot, e.result)).collect();
    assert_eq!(results, [(0, Err(Failure::TimedOut)), (1, Err(Failure::Lost))]);
    lab.no_buffer_lost();
}

#[test]
fn keep_alive_is_sent_and_missed() {
    let mut lab = Lab::new(Shape::default(), |c| c.kato_ms = 1000, LoopbackConfig::default());
    lab.ready();
    let started = lab.now;
    lab.until("five seconds", |lab| lab.now.since(started) > 5_000_000_000);
    assert!((9..=11).contains(&lab.target.keep_alives), "{} in 5 s", lab.target.keep_alives);
    assert_eq!(lab.host.state(), State::Ready);
    let mut lab = Lab::new(
        Shape { vice: Vice::DeafToKeepAlive, ..Shape::default() },
        |c| c.kato_ms = 1000,
        LoopbackConfig::default(),
    );
    lab.ready();
    assert!(lab.failed().contains("keeping the association alive"));
}

#[test]
fn a_lost_connection_is_made_again_when_asked_for() {
    let mut lab = Lab::new(
        Shape { vice: Vice::Silent, ..Shape::default() },
        |c| c.reconnect_ms = 5000,
        LoopbackConfig::default(),
    );
    lab.ready();
    lab.submit(command(0, Op::Read, 0, 1), None);
    lab.turn();
    lab.network.reset_all();
    lab.until("loss", |lab| lab.host.state() == State::Connecting);
    assert_eq!(lab.host.ended().pop().map(|e| e.result), Some(Err(Failure::Lost)));
    let refused = lab.host.submit(&command(0, Op::Flush, 0, 0), None, &mut lab.host_net, &mut lab.host_pool);
    assert!(refused.is_err(), "nothing is taken while the connection is down");
    lab.ready();
    assert_eq!((lab.run(Op::Flush, 0, 0, None), lab.target.accepted), (Ok(vec![]), 4));

    // A target that stays away, and one that comes back as another.
    lab.target.blocks = 32;
    lab.network.reset_all();
    lab.until("loss", |lab| lab.host.state() == State::Connecting);
    assert!(lab.failed().contains("the namespace changed"));
    lab.no_buffer_lost();
}

#[test]
fn small_queues_of_the_target_are_respected() {
    let mut lab = lab(Shape { mqes: 3, vice: Vice::Silent, ..Shape::default() });
    lab.ready();
    for slot in 0..3 {
        lab.submit(command(slot, Op::Read, 0, 1), None);
    }
    let fourth = lab.host.submit(&command(3, Op::Read, 0, 1), None, &mut lab.host_net, &mut lab.host_pool);
    assert!(fourth.is_err(), "a queue of four entries holds three commands");
    assert_eq!(lab.host.under_way(), 3);
}

#[test]
fn leaving_is_announced() {
    let mut lab = lab(Shape::default());
    lab.ready();
    lab.host.disconnect(lab.now, &mut lab.host_net, &mut lab.host_pool);
    lab.until("the end of all connections", |lab| lab.target.connections() == 0);
    assert!(lab.target.shutdown);
    lab.no_buffer_lost();
}
