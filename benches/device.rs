//! What one operation costs this core on each device (submit, kick, poll and the copy or system calls inside), and what
//! it costs to copy a block and checksum it on the way. `cargo bench --bench device`.

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use pollux::base::{CoreId, Time};
use pollux::device::{Done, Medium, Op, OpKind, Queue};
use pollux::mem::{Arena, Buf, Class, Pool, Span};

fn main() {
    divan::main();
}

const SIZE: u64 = 64 << 20;
const DEPTH: usize = 32;

/// A queue with its buffers and as many blocks under way as asked for.
struct Rig<Q> {
    queue: Q,
    bufs: Vec<Buf>,
    dones: Vec<Done>,
    next: u64,
}

fn rig(spec: &str, register: bool) -> Rig<pollux::device::AnyQueue> {
    let arena = Arena::new(8 << 20).unwrap();
    let mut pool = Pool::new(CoreId(0), &arena, &[Class { size: 4096, count: 256 }]).unwrap();
    let spans: &[Span] = if register { &[arena.span()] } else { &[] };
    let medium = Medium::open(&spec.parse().unwrap()).unwrap();
    let queue = medium.queue(CoreId(0), 64, spans).unwrap();
    let bufs = (0..DEPTH).map(|_| pool.get(4096).unwrap()).collect();
    Rig { queue, bufs, dones: Vec::with_capacity(64), next: 0 }
}

impl<Q: Queue> Rig<Q> {
    /// `depth` operations of 4 KiB, submitted in one turn and waited for.
    fn turn(&mut self, kind: OpKind, depth: usize) {
        for _ in 0..depth {
            self.next = (self.next + 4096 * 7919) % SIZE;
            let buf = self.bufs.pop().expect("one per operation");
            let op = Op { kind, offset: self.next, len: 4096, buf: Some(buf), at: 0, token: self.next };
            self.queue.submit(op).expect("deep enough");
        }
        self.queue.kick();
        let mut left = depth;
        while left != 0 {
            left -= self.queue.poll(Time(0), &mut self.dones);
            for done in self.dones.drain(..) {
                done.result.unwrap();
                self.bufs.extend(done.buf);
            }
        }
    }
}

#[divan::bench(args = [1, 32], consts = [false, true])]
fn ram<const WRITE: bool>(bencher: Bencher, depth: usize) {
    let mut rig = rig("ram:64MiB", false);
    let kind = if WRITE { OpKind::Write } else { OpKind::Read };
    (0..SIZE / 4096).for_each(|_| rig.turn(OpKind::Write, 1));
    bencher.counter(divan::counter::ItemsCount::new(depth)).bench_local(|| rig.turn(kind, depth));
}

#[divan::bench(args = [1, 32])]
fn null(bencher: Bencher, depth: usize) {
    let mut rig = rig("null:64MiB,nofill", false);
    bencher.counter(divan::counter::ItemsCount::new(depth)).bench_local(|| rig.turn(OpKind::Read, depth));
}

#[divan::bench(args = [1, 32])]
fn null_behind_fault_and_delay(bencher: Bencher, depth: usize) {
    let mut rig = rig("delay(fault(null:64MiB,nofill))", false);
    bencher.counter(divan::counter::ItemsCount::new(depth)).bench_local(|| rig.turn(OpKind::Read, depth));
}

#[divan::bench]
fn ram_read_now(bencher: Bencher) {
    let mut rig = rig("ram:64MiB", false);
    (0..SIZE / 4096).for_each(|_| rig.turn(OpKind::Write, 1));
    let mut offset = 0;
    bencher.counter(BytesCount::new(4096usize)).bench_local(|| {
        offset = (offset + 4096 * 7919) % SIZE;
        rig.queue.read_now(offset, &mut rig.bufs[0]).unwrap().unwrap();
    });
}

/// Our own cost and the kernel's, without a disk: the file is in the page cache.
#[divan::bench(args = [1, 32], consts = [false, true])]
fn uring_page_cache<const REGISTERED: bool>(bencher: Bencher, depth: usize) {
    let file = disk();
    let mut rig = rig(&format!("uring:{},buffered", file.path().display()), REGISTERED);
    bencher.counter(divan::counter::ItemsCount::new(depth)).bench_local(|| rig.turn(OpKind::Read, depth));
}

#[divan::bench(args = [1, 32], consts = [false, true])]
fn uring_direct<const REGISTERED: bool>(bencher: Bencher, depth: usize) {
    let file = disk();
    let mut rig = rig(&format!("uring:{}", file.path().display()), REGISTERED);
    bencher.counter(divan::counter::ItemsCount::new(depth)).bench_local(|| rig.turn(OpKind::Read, depth));
}

/// An idle turn of a queue with nothing under way, and of one whose operation is not done yet: no system call.
#[divan::bench]
fn uring_idle_poll(bencher: Bencher) {
    let file = disk();
    let mut rig = rig(&format!("uring:{}", file.path().display()), false);
    bencher.bench_local(|| {
        rig.queue.kick();
        rig.queue.poll(Time(0), &mut rig.dones)
    });
}

fn disk() -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::io::Write::write_all(&mut file.as_file(), &vec![1; SIZE as usize]).unwrap();
    file.as_file().sync_all().unwrap();
    file
}

/// Copies of 4 KiB blocks from a receive window, where payloads start anywhere, to an aligned log buffer.
mod copy {
    use super::{Bencher, BytesCount, black_box};
    use pollux::base::CoreId;
    use pollux::base::crc::{Crc32c, crc32c};
    use pollux::mem::{Class, Pool};
    use pollux::transform::copy_crc32c;

    /// Bytes of source and target walked through: in L1, in L2, beyond.
    const WINDOWS: [usize; 3] = [8 << 10, 256 << 10, 16 << 20];

    fn walk(bencher: Bencher, window: usize, f: impl Fn(&mut [u8], &[u8]) -> u32) {
        let classes = [Class { size: window, count: 1 }, Class { size: window + 4096, count: 1 }];
        let mut pool = Pool::standalone(CoreId(0), &classes).unwrap();
        let (mut src, mut dst) = (pool.get(window + 4096).unwrap(), pool.get(window).unwrap());
        src.fill(0x5a);
        dst.fill(1);
        let mut at = 0;
        bencher.counter(BytesCount::new(4096usize)).bench_local(|| {
            at = (at + 4096) % window;
            black_box(f(&mut dst[at..][..4096], &src[at + 72..][..4096]))
        });
    }

    #[divan::bench(args = WINDOWS)]
    fn copy_only(bencher: Bencher, window: usize) {
        walk(bencher, window, |dst, src| {
            dst.copy_from_slice(src);
            0
        });
    }

    #[divan::bench(args = WINDOWS)]
    fn crc_only(bencher: Bencher, window: usize) {
        walk(bencher, window, |_, src| crc32c(src));
    }

    #[divan::bench(args = WINDOWS)]
    fn copy_then_crc_of_target(bencher: Bencher, window: usize) {
        walk(bencher, window, |dst, src| {
            dst.copy_from_slice(src);
            crc32c(dst)
        });
    }

    #[divan::bench(args = WINDOWS)]
    fn the_one_in_use(bencher: Bencher, window: usize) {
        walk(bencher, window, copy_crc32c);
    }

    #[divan::bench(args = WINDOWS)]
    fn pieces_of_1k(bencher: Bencher, window: usize) {
        walk(bencher, window, |dst, src| {
            let mut crc = Crc32c::new();
            for (d, s) in dst.chunks_mut(1024).zip(src.chunks(1024)) {
                d.copy_from_slice(s);
                crc.update(d);
            }
            crc.finish()
        });
    }
}
