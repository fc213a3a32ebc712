//! What the NVMe driver costs this core per operation, without a disk: submit, kick and poll against a controller made
//! of software, whose own work is outside the functions that are counted.
//!
//! `cargo bench --bench nvme` times whole turns, the model's work included. Instructions of the driver alone:
//!
//! ```text
//! cargo bench --bench nvme --no-run
//! valgrind --tool=callgrind --collect-atstart=no --toggle-collect='nvme::driver_*' target/release/deps/nvme-* count 32
//! ```
//! `count DEPTH [BYTES]` runs [`TURNS`] turns of `DEPTH` reads; the total divided by `TURNS * DEPTH` is the figure.

use pollux::base::{CoreId, Time};
use pollux::device::nvme::NvmeQueue;
use pollux::device::nvme::model::{Rig, Traits};
use pollux::device::{Done, Op, OpKind, Queue};
use pollux::mem::{Arena, Buf, Class, Pool};

/// Turns of a counting run.
const TURNS: usize = 10_000;
const SIZE: u64 = 1 << 30;

fn main() {
    let mut words = std::env::args().skip_while(|w| w != "count").skip(1);
    match words.next().and_then(|w| w.parse().ok()) {
        Some(depth) => count(depth, words.next().and_then(|w| w.parse().ok()).unwrap_or(4096)),
        None => divan::main(),
    }
}

struct Bench {
    rig: Rig,
    bufs: Vec<Buf>,
    done: Vec<Done>,
    next: u64,
    bytes: usize,
}

/// Not inlined, so that exactly this is counted.
#[inline(never)]
fn driver_submit(queue: &mut NvmeQueue, op: Op) {
    queue.submit(op).expect("deep enough");
}

#[inline(never)]
fn driver_kick(queue: &mut NvmeQueue) {
    queue.kick();
}

#[inline(never)]
fn driver_poll(queue: &mut NvmeQueue, now: Time, done: &mut Vec<Done>) -> usize {
    queue.poll(now, done)
}

impl Bench {
    fn new(depth: usize, bytes: usize, shadow: bool) -> Bench {
        let size = bytes.next_multiple_of(4096);
        let arena = Arena::new(size * depth).expect("memory");
        let mut pool = Pool::new(CoreId(0), &arena, &[Class { size, count: depth }]).expect("made for these");
        let traits =
            Traits { entries_max: 1024, blocks: SIZE / 4096, shadow, sgl: false, data: false, ..Traits::default() };
        let mut rig = Rig::new(traits);
        rig.start().expect("the model comes up");
        rig.open(1, 1024, &[arena.span()]).expect("a queue");
        let bufs = (0..depth).map(|_| pool.get(bytes).expect("one each")).collect();
        Bench { rig, bufs, done: Vec::with_capacity(1024), next: 0, bytes }
    }

    fn turn(&mut self, kind: OpKind, depth: usize) {
        let queue = &mut self.rig.queues[0];
        for _ in 0..depth {
            self.next = (self.next + 4096 * 7919) % (SIZE - (1 << 22));
            let buf = self.bufs.pop().expect("one per operation");
            driver_submit(
                queue,
                Op { kind, offset: self.next, len: self.bytes as u64, buf: Some(buf), at: 0, token: self.next },
            );
        }
        driver_kick(queue);
        self.rig.model.step();
        self.rig.now = self.rig.now.after_ns(10_000);
        let ended = driver_poll(&mut self.rig.queues[0], self.rig.now, &mut self.done);
        assert_eq!(ended, depth, "the model completes at once");
        for done in self.done.drain(..) {
            done.result.expect("no faults");
            self.bufs.extend(done.buf);
        }
    }
}

fn count(depth: usize, bytes: usize) {
    let mut bench = Bench::new(depth, bytes, false);
    (0..TURNS).for_each(|_| bench.turn(OpKind::Read, depth));
    println!("{} reads of {bytes} bytes, {depth} per turn", TURNS * depth);
}

#[divan::bench(args = [1, 32], consts = [false, true])]
fn model_reads<const SHADOW: bool>(bencher: divan::Bencher, depth: usize) {
    let mut bench = Bench::new(depth, 4096, SHADOW);
    bencher.counter(divan::counter::ItemsCount::new(depth)).bench_local(|| bench.turn(OpKind::Read, depth));
}
