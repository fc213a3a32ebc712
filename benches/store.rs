//! What the log store costs a core, without any network: durable 4 KiB puts, reads and index hits on a RAM device.
//! `cargo bench --bench store`.

use divan::Bencher;
use divan::counter::ItemsCount;
use pollux::base::rng::Rng;
use pollux::base::{BLOCK, CoreId, ShardId, SliceId, Status, Time, VolumeId};
use pollux::device::{AnyQueue, Medium, Queue};
use pollux::mem::{Class, Pool};
use pollux::store::{Ended, Io, Limits, Name, Outcome, Phase, Slice, SliceConfig, Stamp, VolumeMeta};

fn main() {
    divan::main();
}

const DEPTH: u64 = 32;
const VOLUME: VolumeId = VolumeId(1);

struct Rig {
    slice: Slice,
    queue: AnyQueue,
    pool: Pool,
    ended: Vec<Ended>,
    rng: Rng,
    blocks: u64,
    data: Vec<u8>,
    now: u64,
}

impl Rig {
    /// A store of `device` MiB with one volume of `blocks` blocks, all of them written once in random order.
    fn new(device: u64, blocks: u64) -> Rig {
        let medium = Medium::open(&format!("ram:{device}MiB").parse().unwrap()).unwrap();
        let queue = medium.queue(CoreId(0), 1024, &[]).unwrap();
        let classes = [Class { size: 4096, count: 512 }, Class { size: 512 << 10, count: 16 }];
        let pool = Pool::standalone(CoreId(0), &classes).unwrap();
        let slice = Slice::format(SliceConfig {
            store: [7; 16],
            name: Name::new("bench").unwrap(),
            slice: SliceId(0),
            slices: 1,
            offset: 0,
            len: device << 20,
            token_tag: 1,
            limits: Limits { segment_bytes: 1 << 20, ..Limits::default() },
        });
        let mut data = vec![0; BLOCK];
        let mut rng = Rng::new(1);
        rng.fill(&mut data);
        let mut rig = Rig { slice, queue, pool, ended: Vec::new(), rng, blocks, data, now: 0 };
        while rig.slice.phase() != Phase::Ready {
            rig.turn();
        }
        let meta = VolumeMeta {
            id: VOLUME,
            uuid: [1; 16],
            name: Name::new("v").unwrap(),
            bytes: blocks * BLOCK as u64,
            lba_bytes: 4096,
            thin: true,
            read_only: false,
            created: 0,
        };
        assert!(matches!(rig.slice.set_volume(meta, 0, &mut rig.queue, &mut rig.pool), Outcome::Pending));
        while rig.turn() == 0 {}
        // Every block once, in an order that jumps about (an odd stride visits all of a power of two).
        assert!(blocks.is_power_of_two());
        let mut next = 0;
        for _ in 0..blocks / DEPTH {
            for _ in 0..DEPTH {
                next = (next + 0x9e37_79b1) & (blocks - 1);
                rig.put(next);
            }
            rig.turn();
        }
        rig
    }

    fn put(&mut self, block: u64) {
        let stamp = Stamp { shard: ShardId(0), epoch: 1, lsn: block };
        let io = Io { volume: VOLUME, offset: block * BLOCK as u64, len: BLOCK as u32, stamp, tag: block };
        while let Outcome::Later(_) = self.slice.write(io, &self.data, &mut self.queue, &mut self.pool) {
            self.turn();
        }
    }

    fn get(&mut self, block: u64) {
        let buf = self.pool.get(BLOCK).unwrap();
        let io = Io { volume: VOLUME, offset: block * BLOCK as u64, len: BLOCK as u32, stamp: Stamp::NONE, tag: 0 };
        match self.slice.read(io, buf, &mut self.queue, &mut self.pool) {
            Outcome::Done(Ended { status: Status::Ok, buf: Some(buf), .. }) => self.pool.put(buf),
            other => panic!("a read from memory ends at once, and well: {other:?}"),
        }
    }

    fn turn(&mut self) -> usize {
        self.now += 10_000;
        self.slice.step(Time(self.now), &mut self.queue, &mut self.pool);
        self.queue.kick();
        self.ended.clear();
        self.slice.drain(&mut self.ended);
        assert!(self.ended.iter().all(|e| e.status.is_ok()));
        self.ended.len()
    }
}

/// Durable random 4 KiB writes, 32 a turn; the argument is how many blocks the volume has (all mapped).
#[divan::bench(args = [1 << 14, 1 << 18, 1 << 20])]
fn put_4k(bencher: Bencher, blocks: u64) {
    let mut rig = Rig::new((blocks >> 8) * 2 + 64, blocks);
    bencher.counter(ItemsCount::new(DEPTH)).bench_local(|| {
        for _ in 0..DEPTH {
            let block = rig.rng.below(blocks);
            rig.put(block);
        }
        rig.turn();
    });
}

/// Random 4 KiB reads, verified.
#[divan::bench(args = [1 << 14, 1 << 18, 1 << 20])]
fn get_4k(bencher: Bencher, blocks: u64) {
    let mut rig = Rig::new((blocks >> 8) * 2 + 64, blocks);
    bencher.counter(ItemsCount::new(DEPTH)).bench_local(|| {
        for _ in 0..DEPTH {
            let block = rig.rng.below(blocks);
            rig.get(block);
        }
    });
}

/// Index look-ups alone: reads of unmapped and mapped blocks without the data.
#[divan::bench(args = [1 << 14, 1 << 18, 1 << 20])]
fn index_hit(bencher: Bencher, blocks: u64) {
    let mut rig = Rig::new((blocks >> 8) * 2 + 64, blocks);
    bencher.counter(ItemsCount::new(DEPTH)).bench_local(|| {
        let mut found = 0u64;
        for _ in 0..DEPTH {
            let block = rig.rng.below(rig.blocks);
            found += u64::from(rig.slice.is_mapped(VOLUME, block).expect("mapped volume"));
        }
        assert_eq!(found, DEPTH);
    });
}
