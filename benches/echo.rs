//! What kernel TCP itself allows, and what an engine adds to it: an echo with the wire bytes of NVMe/TCP 4 KiB reads
//! (72 in, 24 + 4096 out) or in-capsule writes (72 + 4096 in, 24 out), one thread per side.
//!
//! `cargo bench --bench echo -- [raw|tcp|uring]... [--qd 1,8,32,128] [--conns 1] [--secs 2] [--rounds 3] [--write]`
//!
//! `raw` is a server without any engine: nonblocking receive, one sendmsg, nothing else. The client is the same for all:
//! as lean as it gets, on CPU 0; the server on CPU 1. Engines are interleaved round by round; the median is printed.

use pollux::base::{CoreId, Time};
use pollux::mem::{Class, Pool};
use pollux::net::{AnyNet, Closed, ConnId, Ends, Handler, ListenerId, Net, TcpConfig, Tx};
use pollux::reactor::Clock;
use std::io::{ErrorKind, IoSlice, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const COMMAND: usize = 72;
const RESPONSE: usize = 24;
const DATA: usize = 4096;

#[derive(Clone, Debug)]
struct Args {
    engines: Vec<String>,
    depths: Vec<usize>,
    conns: usize,
    secs: f64,
    rounds: usize,
    write: bool,
}

impl Args {
    fn parse() -> Args {
        let mut args =
            Args { engines: vec![], depths: vec![1, 8, 32, 128], conns: 1, secs: 2.0, rounds: 3, write: false };
        let mut words = std::env::args().skip(1);
        let mut benchmarking = false;
        while let Some(word) = words.next() {
            let mut value = || words.next().expect("an option needs a value");
            match word.as_str() {
                "--bench" => benchmarking = true,
                "--qd" => args.depths = value().split(',').map(|d| d.parse().unwrap()).collect(),
                "--conns" => args.conns = value().parse().unwrap(),
                "--secs" => args.secs = value().parse().unwrap(),
                "--rounds" => args.rounds = value().parse().unwrap(),
                "--write" => args.write = true,
                engine => args.engines.push(engine.to_owned()),
            }
        }
        if !benchmarking {
            // Run by `cargo test --all-targets`: only show that it works.
            (args.secs, args.rounds, args.depths) = (0.05, 1, vec![4]);
        }
        if args.engines.is_empty() {
            args.engines = ["raw", "tcp", "uring"].map(str::to_owned).to_vec();
        }
        args
    }

    /// Bytes of a request and of its answer.
    fn wire(&self) -> (usize, usize) {
        if self.write { (COMMAND + DATA, RESPONSE) } else { (COMMAND, RESPONSE + DATA) }
    }
}

fn pin(cpu: usize) {
    let cpus = core_affinity::get_core_ids().unwrap_or_default();
    if let Some(id) = cpus.get(cpu % cpus.len().max(1)) {
        core_affinity::set_for_current(*id);
    }
}

/// What the server tells about itself.
#[derive(Default)]
struct Meter {
    stop: AtomicBool,
    busy_ns: AtomicU64,
}

/// One client connection: bytes of requests due to be sent, and received bytes of an answer not yet whole.
struct Client {
    stream: TcpStream,
    due: usize,
    got: usize,
}

/// Runs the client for `secs`; returns requests per second and the median round trip (meaningful at depth 1), ns.
fn client(addr: SocketAddr, args: &Args, depth: usize) -> (f64, u64) {
    pin(0);
    let (request, answer) = args.wire();
    let requests = vec![0x42u8; request * depth];
    let mut window = vec![0u8; 512 * 1024];
    let mut clients: Vec<Client> = (0..args.conns)
        .map(|_| {
            let stream = TcpStream::connect(addr).unwrap();
            stream.set_nodelay(true).unwrap();
            stream.set_nonblocking(true).unwrap();
            Client { stream, due: request * depth, got: 0 }
        })
        .collect();
    let mut trips = hdrhistogram::Histogram::<u64>::new_with_bounds(100, 1_000_000_000, 3).unwrap();
    let (mut done, mut counted_from, mut sent_at) = (0u64, 0u64, Instant::now());
    let warm = Instant::now() + Duration::from_secs_f64(args.secs / 4.0);
    let (mut begun, mut turns) = (None, 0u32);
    loop {
        for c in &mut clients {
            while c.due > 0 {
                if depth == 1 {
                    sent_at = Instant::now();
                }
                let n = c.due.min(requests.len());
                match c.stream.write(&requests[..n]) {
                    Ok(n) => c.due -= n,
                    Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                    Err(e) => panic!("client: {e}"),
                }
            }
            match c.stream.read(&mut window) {
                Ok(0) => panic!("server left"),
                Ok(n) => {
                    c.got += n;
                    let whole = c.got / answer;
                    c.got %= answer;
                    done += whole as u64;
                    c.due += whole * request;
                    if depth == 1 && whole == 1 && begun.is_some() {
                        trips.saturating_record(sent_at.elapsed().as_nanos() as u64);
                    }
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(e) => panic!("client: {e}"),
            }
        }
        turns += 1;
        if turns % 16 == 0 {
            let now = Instant::now();
            match begun {
                None if now > warm => (begun, counted_from) = (Some(now), done),
                Some(at) if (now - at).as_secs_f64() > args.secs => {
                    let rate = (done - counted_from) as f64 / (now - at).as_secs_f64();
                    return (rate, trips.value_at_quantile(0.5));
                }
                _ => {}
            }
        }
    }
}

/// The server without an engine.
fn raw(listener: &TcpListener, args: &Args, meter: &Meter) {
    pin(1);
    let (request, _) = args.wire();
    let mut window = vec![0u8; 256 * 1024];
    let (head, data) = ([7u8; RESPONSE], vec![9u8; DATA]);
    let mut conns: Vec<(TcpStream, usize)> = (0..args.conns).map(|_| (listener.accept().unwrap().0, 0)).collect();
    for (stream, _) in &conns {
        stream.set_nonblocking(true).unwrap();
        stream.set_nodelay(true).unwrap();
    }
    let mut clock = Clock::new();
    let mut now = clock.now();
    while !meter.stop.load(Ordering::Relaxed) {
        let mut worked = false;
        for (stream, got) in &mut conns {
            let n = match rustix::net::recv(stream.as_fd(), &mut window[..], rustix::net::RecvFlags::DONTWAIT) {
                Ok((0, _)) => return,
                Ok((n, _)) => n,
                Err(_) => continue,
            };
            worked = true;
            *got += n;
            let whole = *got / request;
            *got %= request;
            let mut iov = Vec::with_capacity(whole * 2);
            for _ in 0..whole {
                iov.push(IoSlice::new(&head));
                if !args.write {
                    iov.push(IoSlice::new(&data));
                }
            }
            send_all(stream, &mut iov);
        }
        let then = std::mem::replace(&mut now, clock.now());
        meter.busy_ns.fetch_add(if worked { now.since(then) } else { 0 }, Ordering::Relaxed);
    }
}

fn send_all(stream: &TcpStream, mut iov: &mut [IoSlice<'_>]) {
    while !iov.is_empty() {
        let batch = iov.len().min(1024);
        let flags = rustix::net::SendFlags::DONTWAIT | rustix::net::SendFlags::NOSIGNAL;
        match rustix::net::sendmsg(
            stream.as_fd(),
            &iov[..batch],
            &mut rustix::net::SendAncillaryBuffer::default(),
            flags,
        ) {
            Ok(n) => IoSlice::advance_slices(&mut iov, n),
            Err(rustix::io::Errno::AGAIN) => {}
            Err(_) => return,
        }
    }
}

/// The server's protocol above an engine: every whole request is answered from pool buffers.
struct Answer {
    write: bool,
    starved: bool,
}

impl Handler for Answer {
    fn accepted(&mut self, _: ConnId, _: ListenerId, _: Ends, tx: &mut Tx) -> bool {
        tx.reserve(64 * 1024, 1024);
        true
    }
    fn data(&mut self, _: ConnId, bytes: &[u8], tx: &mut Tx, pool: &mut Pool) -> usize {
        let request = if self.write { COMMAND + DATA } else { COMMAND };
        let mut at = 0;
        while bytes.len() - at >= request {
            let buf = if self.write { None } else { pool.get(DATA) };
            if buf.is_none() && !self.write {
                self.starved = true;
                break;
            }
            tx.head(&[7; RESPONSE]);
            if let Some(buf) = buf {
                tx.buf(buf, 0, DATA);
            }
            at += request;
        }
        at
    }
    fn paused(&mut self, _: ConnId) -> bool {
        self.starved
    }
    fn closed(&mut self, _: ConnId, _: Closed) {}
}

fn serve<N: Net>(mut net: N, args: &Args, addr: &std::sync::mpsc::Sender<SocketAddr>, meter: &Meter) {
    pin(1);
    let (_, got) = net.listen(SocketAddr::from(([127, 0, 0, 1], 0)), false).unwrap();
    addr.send(got).unwrap();
    let mut pool = Pool::standalone(CoreId(0), &[Class { size: DATA, count: 4096 }]).unwrap();
    let mut handler = Answer { write: args.write, starved: false };
    let mut clock = Clock::new();
    let mut now: Time = clock.now();
    while !meter.stop.load(Ordering::Relaxed) {
        handler.starved = false;
        let events = net.poll(now, &mut pool, &mut handler);
        net.flush(now, &mut pool);
        let then = std::mem::replace(&mut now, clock.now());
        meter.busy_ns.fetch_add(if events > 0 { now.since(then) } else { 0 }, Ordering::Relaxed);
    }
    if std::env::var_os("ECHO_STATS").is_some() {
        println!("{:?}", net.stats());
    }
}

/// One run: requests per second, median round trip, busy ns per request.
fn run(engine: &str, args: &Args, depth: usize) -> (f64, u64, f64) {
    let meter = Arc::new(Meter::default());
    let (tell, told) = std::sync::mpsc::channel();
    let server = {
        let (meter, args, engine) = (Arc::clone(&meter), args.clone(), engine.to_owned());
        std::thread::spawn(move || match engine.as_str() {
            "raw" => {
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                tell.send(listener.local_addr().unwrap()).unwrap();
                raw(&listener, &args, &meter);
            }
            name => {
                let net = AnyNet::new(name.parse().unwrap(), TcpConfig::default()).unwrap();
                serve(net, &args, &tell, &meter);
            }
        })
    };
    let addr = told.recv().unwrap();
    let client_args = args.clone();
    let begun = Instant::now();
    let (rate, trip) = std::thread::spawn(move || client(addr, &client_args, depth)).join().unwrap();
    let total = begun.elapsed().as_secs_f64() * rate;
    meter.stop.store(true, Ordering::Relaxed);
    server.join().unwrap();
    (rate, trip, meter.busy_ns.load(Ordering::Relaxed) as f64 / total)
}

fn main() {
    let args = Args::parse();
    println!("{} connection(s), {}", args.conns, if args.write { "write 72+4096/24" } else { "read 72/24+4096" });
    for depth in &args.depths {
        let mut results = vec![Vec::new(); args.engines.len()];
        for _ in 0..args.rounds {
            for (engine, results) in args.engines.iter().zip(&mut results) {
                results.push(run(engine, &args, *depth));
            }
        }
        let mut base = None;
        for (engine, results) in args.engines.iter().zip(&mut results) {
            results.sort_by(|a, b| a.0.total_cmp(&b.0));
            let (rate, trip, busy) = results[results.len() / 2];
            let base = *base.get_or_insert(rate);
            let (low, high) = (results[0].0 / 1e3, results[results.len() - 1].0 / 1e3);
            print!("qd {depth:3} {engine:5} {:8.1}k/s ({low:.0}-{high:.0})  {:.3} of first", rate / 1e3, rate / base);
            print!("  busy {busy:6.0} ns/req");
            println!("{}", if *depth == 1 { format!("  rtt p50 {trip} ns") } else { String::new() });
        }
    }
}
