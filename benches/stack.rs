//! What TCP/IP of our own costs: an exchange with the wire bytes of NVMe/TCP 4 KiB reads (72 in, 24 + 4096 out) or
//! in-capsule writes through two stacks on a cable in memory, in one thread.
//!
//! `cargo bench --features dpdk --bench stack -- [--qd 1,32] [--conns 1] [--mtu 1500,9000] [--count 200000] [--write] [--offload]`
//!
//! Instructions per exchange, both stacks and the cable: run it under `valgrind --tool=callgrind` with two counts, and
//! divide the difference.

use pollux::base::{CoreId, Time};
use pollux::mem::{Class, Pool};
use pollux::net::stack::{Cable, MemoryPort, Wire};
use pollux::net::{Closed, ConnId, Ends, Handler, ListenerId, Net, Stack, StackConfig, Tx};
use std::time::Instant;

const COMMAND: usize = 72;
const RESPONSE: usize = 24;
const DATA: usize = 4096;

struct Args {
    depths: Vec<usize>,
    mtus: Vec<usize>,
    conns: usize,
    count: usize,
    write: bool,
    offload: bool,
}

impl Args {
    fn parse() -> Args {
        let mut args = Args {
            depths: vec![1, 32],
            mtus: vec![1500, 9000],
            conns: 1,
            count: 200_000,
            write: false,
            offload: false,
        };
        let mut words = std::env::args().skip(1);
        let mut benchmarking = false;
        while let Some(word) = words.next() {
            let mut value = || words.next().expect("an option needs a value");
            match word.as_str() {
                "--bench" => benchmarking = true,
                "--qd" => args.depths = value().split(',').map(|d| d.parse().unwrap()).collect(),
                "--mtu" => args.mtus = value().split(',').map(|d| d.parse().unwrap()).collect(),
                "--conns" => args.conns = value().parse().unwrap(),
                "--count" => args.count = value().parse().unwrap(),
                "--write" => args.write = true,
                "--offload" => args.offload = true,
                other => panic!("{other} is no option"),
            }
        }
        if !benchmarking {
            // Run by `cargo test --all-targets`: only show that it works.
            (args.count, args.depths) = (100, vec![4]);
        }
        args
    }
}

/// One side: consumes whole messages, and answers them or counts them.
struct Side {
    message: usize,
    answer: Option<(usize, usize)>,
    landing: Vec<usize>,
    place: Vec<u8>,
    done: usize,
    ready: Vec<ConnId>,
}

/// Queues a message: a head, and data in a buffer of the pool.
fn put(tx: &mut Tx, pool: &mut Pool, head: usize, data: usize) {
    tx.head(&[7; 128][..head]);
    if data > 0 {
        let buf = pool.get(data).expect("a buffer per message");
        tx.buf(buf, 0, data);
    }
}

impl Handler for Side {
    fn accepted(&mut self, _: ConnId, _: ListenerId, _: Ends, _: &mut Tx) -> bool {
        true
    }
    fn connected(&mut self, conn: ConnId, _: &mut Tx) {
        self.ready.push(conn);
    }
    fn landing(&mut self, conn: ConnId) -> Option<&mut [u8]> {
        let left = self.landing.get(conn.slot as usize).copied().unwrap_or(0);
        (left > 0).then(|| &mut self.place[..left])
    }
    fn landed(&mut self, conn: ConnId, n: usize, tx: &mut Tx, pool: &mut Pool) {
        self.landing[conn.slot as usize] -= n;
        if self.landing[conn.slot as usize] == 0 {
            self.end(conn, tx, pool);
        }
    }
    fn data(&mut self, conn: ConnId, bytes: &[u8], tx: &mut Tx, pool: &mut Pool) -> usize {
        let head = if self.message > DATA { self.message - DATA } else { self.message };
        let mut at = 0;
        while bytes.len() - at >= head {
            at += head;
            if head < self.message {
                self.landing[conn.slot as usize] = DATA;
                return at;
            }
            self.end(conn, tx, pool);
        }
        at
    }
    fn closed(&mut self, conn: ConnId, why: Closed) {
        panic!("{conn:?} closed: {why:?}");
    }
}

impl Side {
    fn new(message: usize, answer: Option<(usize, usize)>) -> Side {
        Side { message, answer, landing: vec![0; 4096], place: vec![0; DATA], done: 0, ready: Vec::new() }
    }
    fn end(&mut self, conn: ConnId, tx: &mut Tx, pool: &mut Pool) {
        self.done += 1;
        match self.answer {
            Some((head, data)) => put(tx, pool, head, data),
            None => self.ready.push(conn),
        }
    }
}

fn stacks(args: &Args, mtu: usize) -> (Cable, [Stack<MemoryPort>; 2]) {
    let facts = [1, 2].map(|n| {
        let mut facts = Cable::facts(n, mtu);
        (facts.receive_checks_ip, facts.receive_checks_tcp) = (args.offload, args.offload);
        (facts.transmit_sums_ip, facts.transmit_sums_tcp) = (args.offload, args.offload);
        facts
    });
    let (cable, ports) = Cable::new(Wire::default(), facts);
    let mut n = 0;
    let stacks = ports.map(|port| {
        n += 1;
        let mut config = StackConfig::new(format!("10.0.0.{n}/24").parse().unwrap(), n);
        config.mtu = mtu;
        config.conns = args.conns + 1;
        Stack::new(port, config).unwrap()
    });
    (cable, stacks)
}

fn run(args: &Args, mtu: usize, depth: usize) {
    let (cable, [mut server, mut client]) = stacks(args, mtu);
    let pool =
        |core| Pool::standalone(CoreId(core), &[Class { size: 4096, count: args.conns * depth * 2 + 64 }]).unwrap();
    let mut pools = [pool(0), pool(1)];
    let (request, answer) =
        if args.write { ((COMMAND, DATA), (RESPONSE, 0)) } else { ((COMMAND, 0), (RESPONSE, DATA)) };
    let mut at_server = Side::new(request.0 + request.1, Some(answer));
    let mut at_client = Side::new(answer.0 + answer.1, None);
    let (_, addr) = server.listen("10.0.0.1:4420".parse().unwrap(), true).unwrap();
    for _ in 0..args.conns {
        client.connect(addr).unwrap();
    }
    let begun = Instant::now();
    let mut now = Time(1_000_000);
    let (mut started, mut first) = (0, true);
    let mut turns = 0u64;
    while at_client.done < args.count {
        now = now.after_ns(1000);
        turns += 1;
        cable.set_time(now);
        server.poll(now, &mut pools[0], &mut at_server);
        server.flush(now, &mut pools[0]);
        client.poll(now, &mut pools[1], &mut at_client);
        if first && at_client.ready.len() == args.conns {
            first = false;
            let conns = at_client.ready.clone();
            (1..depth).for_each(|_| at_client.ready.extend(&conns));
        }
        while !first && let Some(conn) = at_client.ready.pop() {
            if started < args.count {
                started += 1;
                put(client.tx(conn).unwrap(), &mut pools[1], request.0, request.1);
            }
        }
        client.flush(now, &mut pools[1]);
        assert!(turns < args.count as u64 * 1000 + 1_000_000, "the exchange goes on");
    }
    let took = begun.elapsed().as_secs_f64();
    let frames = server.port_stats().frames_in + server.port_stats().frames_out;
    println!(
        "mtu {mtu} qd {depth} conns {}: {:.0} exchanges/s of both stacks on one thread, {:.2} frames each",
        args.conns,
        args.count as f64 / took,
        frames as f64 / args.count as f64,
    );
}

fn main() {
    let args = Args::parse();
    for mtu in &args.mtus {
        for depth in &args.depths {
            run(&args, *mtu, *depth);
        }
    }
}
