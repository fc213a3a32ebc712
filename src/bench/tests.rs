//! End to end over kernel TCP: the bench with its initiator against this project's own target, on a memory volume that can
//! vanish, come back and misbehave.

mod iscsi;

use super::run::tests::options;
use super::run::{Ending, Options, Source, Verify, run};
use super::units::ByteRange;
use crate::base::rng::Rng;
use crate::base::{CoreId, Status, Time, VolumeId};
use crate::bench::clock::Clock;
use crate::mem::{Class, Pool};
use crate::net::{Net, Tcp, TcpConfig};
use crate::nvmf::{Config, Namespace, Snapshot, Subsystem, Target, Transport};
use crate::volume::{Completion, Info, Kind, Payload, Request, Submit, Volumes};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

const NQN: &str = "nqn.2024-01.io.pollux:bench";
const URL: &str = "nvme+tcp://127.0.0.1:{port}/nqn.2024-01.io.pollux:bench";
const BLOCKS: u64 = 2048;

/// What the volume does wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Vice {
    None,
    /// One in a hundred writes is acknowledged and forgotten.
    Forget,
    /// One in a hundred reads fails.
    Fail,
}

/// A volume in memory; the bytes outlive the target.
struct Memory {
    info: Info,
    bytes: Arc<Mutex<Vec<u8>>>,
    vice: Vice,
    rng: Rng,
    served: Arc<AtomicU64>,
}

impl Volumes for Memory {
    fn info(&self, volume: VolumeId) -> Option<&Info> {
        (volume == self.info.id).then_some(&self.info)
    }

    fn submit(&mut self, request: Request, payload: Payload<'_>, pool: &mut Pool) -> Submit {
        let size = u64::from(self.info.block_size);
        let (from, len) = ((request.lba * size) as usize, request.blocks as usize * size as usize);
        let (mut status, mut buf) = (Status::Ok, None);
        let mut bytes = self.bytes.lock().unwrap();
        let range = from..from + len;
        if range.end > bytes.len() {
            status = Status::OutOfRange;
        } else if request.kind == Kind::Read {
            if self.vice == Vice::Fail && self.rng.chance(1) {
                status = Status::MediaError;
            } else {
                let Some(mut b) = pool.get(len) else { return Submit::Later(payload.into_buf()) };
                b.copy_from_slice(&bytes[range]);
                buf = Some(b);
            }
        } else if request.kind == Kind::Write && !(self.vice == Vice::Forget && self.rng.chance(1)) {
            bytes[range].copy_from_slice(payload.bytes());
        }
        if let Some(unused) = payload.into_buf() {
            pool.put(unused);
        }
        self.served.fetch_add(1, Ordering::Relaxed);
        Submit::Done(Completion::plain(request.tag, status, buf))
    }
}

/// A target on a thread of its own.
struct Server {
    port: u16,
    /// What it serves, as an address with `{port}` in it.
    url: &'static str,
    stop: Arc<AtomicBool>,
    served: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

/// Runs a target on a port until told to stop; says which port it is.
type Serve = fn(Memory, u16, &AtomicBool, &std::sync::mpsc::Sender<u16>);

impl Server {
    /// A target of NVMe/TCP; `port` 0: any.
    fn start(bytes: &Arc<Mutex<Vec<u8>>>, block_size: u32, vice: Vice, port: u16) -> Server {
        Server::of((URL, serve), bytes, block_size, vice, port)
    }

    fn of(
        (url, serve): (&'static str, Serve),
        bytes: &Arc<Mutex<Vec<u8>>>,
        block_size: u32,
        vice: Vice,
        port: u16,
    ) -> Server {
        let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (tell, told) = std::sync::mpsc::channel();
        let (bytes, stop_, served_) = (Arc::clone(bytes), Arc::clone(&stop), Arc::clone(&served));
        let thread = std::thread::spawn(move || {
            let info = Info {
                id: VolumeId(1),
                block_size,
                blocks: BLOCKS * 4096 / u64::from(block_size),
                uuid: [4; 16],
                thin: true,
                read_only: false,
                volatile_cache: false,
                atomic_blocks: 1,
            };
            let volumes = Memory { info, bytes, vice, rng: Rng::new(3), served: served_ };
            serve(volumes, port, &stop_, &tell);
        });
        Server { port: told.recv().unwrap(), url, stop, served, thread: Some(thread) }
    }

    fn url(&self) -> Source {
        Source::Url(self.url.replace("{port}", &self.port.to_string()).parse().unwrap())
    }

    /// Gone without a word, as after kill -9: connections are reset by the kernel.
    fn kill(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn serve(mut volumes: Memory, port: u16, stop: &AtomicBool, tell: &std::sync::mpsc::Sender<u16>) {
    let mut net = Tcp::new(TcpConfig { conns_max: 64, ..TcpConfig::default() }).unwrap();
    let (listener, addr) = net.listen(([127, 0, 0, 1], port).into(), false).unwrap();
    let mut target = Target::new(CoreId(0), 1, &Config::default());
    target.listen(listener, addr);
    let info = volumes.info.clone();
    let ns = Namespace {
        nsid: 1,
        uuid: info.uuid,
        info,
        nguid: [1; 16],
        eui64: [0; 8],
        anagrpid: 1,
        visible: crate::nvmf::Visibility::All,
    };
    target.configure(Arc::new(Snapshot {
        generation: 1,
        transport: Some(Transport::default()),
        subsystems: vec![Subsystem {
            nqn: NQN.into(),
            serial: "S".into(),
            model: "M".into(),
            firmware: "1".into(),
            allow_any_host: true,
            hosts: Vec::new(),
            namespaces: vec![ns],
            listeners: vec![addr],
            cntlid_min: 1,
            cntlid_max: 0xffef,
            max_namespaces: 4,
        }],
        referrals: Vec::new(),
    }));
    let classes =
        [Class { size: 4096, count: 512 }, Class { size: 1 << 17, count: 128 }, Class { size: 1 << 20, count: 4 }];
    let mut pool = Pool::standalone(CoreId(0), &classes).unwrap();
    tell.send(addr.port()).unwrap();
    let clock = Clock::start();
    let mut idle = 0u32;
    while !stop.load(Ordering::Relaxed) {
        let now: Time = clock.now();
        let events = net.poll(now, &mut pool, &mut target.join(now, &mut volumes));
        target.tick(now, &mut net, &mut volumes, &mut pool);
        net.flush(now, &mut pool);
        idle = if events == 0 { idle + 1 } else { 0 };
        // Cores are few where tests run.
        if idle > 100 {
            std::thread::yield_now();
        }
    }
}

fn memory() -> Arc<Mutex<Vec<u8>>> {
    Arc::new(Mutex::new(vec![0; BLOCKS as usize * 4096]))
}

fn verifying(server: &Server, verify: Verify) -> Options {
    Options { source: server.url(), verify: Some(verify), ..options("ram:4m") }
}

#[test]
fn verified_load_over_tcp_in_every_shape() {
    for (block_size, block_bytes, conns, header_digest, data_digest) in [
        (4096, 4096, 1, false, false),
        (512, 512, 2, true, true),
        (4096, 16384, 3, false, true),
        // Beyond in-capsule data: by R2T.
        (512, 131_072, 2, false, false),
    ] {
        let server = Server::start(&memory(), block_size, Vice::None, 0);
        let o = verifying(&server, Verify::default());
        let o = Options { block_bytes, conns, header_digest, data_digest, count: Some(600), flush_every: 50, ..o };
        let (report, ending) = run(&o).unwrap();
        assert_eq!((ending, report.errors, report.verify_errors), (Ending::Whole, 0, 0), "{block_bytes}: {report:?}");
        assert_eq!((report.ops, report.setting.connections), (600, u32::from(conns)));
        let v = report.verify.unwrap();
        assert!(v.checked > 0 && v.read_back > 0);
        assert!(server.served.load(Ordering::Relaxed) >= 600);
    }
}

#[test]
fn two_workers_have_an_association_each() {
    let server = Server::start(&memory(), 4096, Vice::None, 0);
    let o = Options { conns: 4, cores: vec![0, 0], ..verifying(&server, Verify::default()) };
    let (report, ending) = run(&o).unwrap();
    assert_eq!((ending, report.ops, report.setting.workers), (Ending::Whole, 2000, 2));
    assert_eq!(report.figures.unwrap().as_array().unwrap().len(), 2);
}

#[test]
fn forgotten_writes_and_failed_reads_end_with_their_own_codes() {
    let server = Server::start(&memory(), 4096, Vice::Forget, 0);
    let (report, ending) = run(&verifying(&server, Verify::default())).unwrap();
    assert_eq!(ending, Ending::VerifyErrors);
    let kinds: Vec<String> = report.verify.unwrap().kinds.into_keys().collect();
    assert!(!kinds.is_empty() && kinds.iter().all(|k| k == "lost" || k == "stale"), "{kinds:?}");
    let server = Server::start(&memory(), 4096, Vice::Fail, 0);
    let (report, ending) = run(&verifying(&server, Verify::default())).unwrap();
    assert_eq!((ending, report.verify_errors), (Ending::IoErrors, 0));
    assert_eq!(report.error_kinds["MediaError"], report.errors);
}

/// Runs endless load until the target has served something, then kills the target; the run's report.
fn killed(server: &mut Server, o: &Options) -> (super::report::Report, Ending) {
    let run_it = std::thread::spawn({
        let o = Options { count: None, time: Some(Duration::from_mins(1)), ..o.clone() };
        move || run(&o).unwrap()
    });
    let before = server.served.load(Ordering::Relaxed);
    while server.served.load(Ordering::Relaxed) < before + 3000 {
        std::thread::yield_now();
    }
    server.kill();
    run_it.join().unwrap()
}

#[test]
fn the_log_holds_a_killed_target_to_its_promises() {
    let dir = tempfile::tempdir().unwrap();
    let verify = Verify { log: Some(dir.path().join("log")), ..Verify::default() };
    let bytes = memory();
    let mut server = Server::start(&bytes, 4096, Vice::None, 0);
    let o = Options { read_percent: 20, depth: 16, ..verifying(&server, verify.clone()) };
    let (report, ending) = killed(&mut server, &o);
    assert_eq!((ending, report.verify_errors), (Ending::IoErrors, 0));
    assert!(report.stopped.unwrap().contains("ended while running commands"));
    assert!(report.errors <= 17 && report.ops > 1000);

    let only = Verify { only: true, ..verify.clone() };
    let old = bytes.lock().unwrap().clone();
    let server = Server::start(&bytes, 4096, Vice::None, 0);
    let (report, ending) = run(&verifying(&server, only.clone())).unwrap();
    assert_eq!((ending, report.verify_errors), (Ending::Whole, 0), "{:?}", report.verify);
    assert!(report.verify.unwrap().checked > 500);
    // More writes, then the whole volume falls back to before them.
    let (_, ending) = run(&Options { read_percent: 0, ..verifying(&server, verify) }).unwrap();
    assert_eq!(ending, Ending::Whole);
    *bytes.lock().unwrap() = old;
    let (report, ending) = run(&verifying(&server, only)).unwrap();
    assert_eq!(ending, Ending::VerifyErrors);
    let v = report.verify.unwrap();
    assert!(v.kinds.contains_key("stale") && v.damage[0].contains("was acknowledged"), "{v:?}");
}

#[test]
fn a_returning_target_is_found_again() {
    let bytes = memory();
    let mut server = Server::start(&bytes, 4096, Vice::None, 0);
    let reconnect = Duration::from_secs(30);
    let o = Options { count: Some(50_000), reconnect, ..verifying(&server, Verify::default()) };
    let range = Some(ByteRange { offset: 0, len: 1 << 20 });
    let run_it = std::thread::spawn(move || run(&Options { range, ..o }).unwrap());
    while server.served.load(Ordering::Relaxed) < 3000 {
        std::thread::yield_now();
    }
    let port = server.port;
    server.kill();
    let server = Server::start(&bytes, 4096, Vice::None, port);
    let (report, ending) = run_it.join().unwrap();
    assert_eq!((ending, report.verify_errors), (Ending::IoErrors, 0), "{:?}", report.verify);
    assert!(report.errors >= 1 && report.errors <= 8, "{:?}", report.error_kinds);
    assert!(report.stopped.is_none() && report.ops >= 49_000);
    assert!(server.served.load(Ordering::Relaxed) > 20_000);
}
