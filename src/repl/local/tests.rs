//! One core's media on devices of memory: what a restart keeps, what a part on something that is not there gets.

use super::*;
use crate::base::{CHUNK, CoreId, ShardId};
use crate::device::{RamMedium, RamQueue, RamSpec};
use crate::mem::Class;
use crate::repl::Step;
use crate::store::{Limits, Name, SliceConfig};
use std::sync::Arc;

const STORE: StoreId = StoreId(0);
const DEVICE: DeviceId = DeviceId(0);
const VOLUME: VolumeId = VolumeId(1);
const LOG: Home = Home::Log { store: STORE, slices: 1 };

struct Bench {
    medium: Arc<RamMedium>,
    local: Local<RamQueue>,
    pool: Pool,
    now: Time,
}

impl Bench {
    fn new() -> Bench {
        let medium = RamMedium::open(&RamSpec { size: 16 << 20, block: None, lazy: true }).unwrap();
        let classes = [Class { size: 4096, count: 256 }, Class { size: 256 << 10, count: 64 }];
        let pool = Pool::standalone(CoreId(0), &classes).unwrap();
        let mut bench =
            Bench { medium: Arc::new(medium), local: Local::new(LocalConfig::default()), pool, now: Time(1) };
        bench.attach(true);
        let meta = VolumeMeta {
            id: VOLUME,
            uuid: [7; 16],
            name: Name::new("v").unwrap(),
            bytes: 2 * CHUNK,
            lba_bytes: 4096,
            thin: true,
            read_only: false,
            created: 0,
        };
        let set = |s: &mut Slice, q: &mut RamQueue, pool: &mut Pool, tag| s.set_volume(meta, tag, q, pool);
        assert_eq!(bench.local.administer(STORE, None, 5, &mut bench.pool, set), 1);
        bench.turns();
        assert_eq!(bench.local.drain_admin().collect::<Vec<_>>(), [(STORE, SliceId(0), 5, Status::Ok)]);
        bench
    }

    /// Attaches device and slice, and waits until the slice is ready.
    fn attach(&mut self, format: bool) {
        self.local.add_device(DEVICE, RamQueue::new(Arc::clone(&self.medium), 256));
        let config = SliceConfig {
            store: [1; 16],
            name: Name::new("s").unwrap(),
            slice: SliceId(0),
            slices: 1,
            offset: 0,
            len: 16 << 20,
            token_tag: self.local.next_token_tag(),
            limits: Limits::tiny(),
        };
        let slice = if format { Slice::format(config) } else { Slice::open(config) };
        self.local.add_slice(STORE, SliceId(0), DEVICE, slice);
        self.turns();
        assert!(matches!(self.local.phases(STORE).next(), Some((SliceId(0), Phase::Ready))));
    }

    /// As a process that begins anew on the same medium.
    fn restart(&mut self) {
        assert!(self.local.remove_store(STORE, &mut self.pool));
        self.local = Local::new(LocalConfig::default());
        self.attach(false);
    }

    fn turns(&mut self) {
        for _ in 0..200 {
            self.now = self.now.after_ns(1000);
            self.local.step(self.now, &mut self.pool);
        }
    }

    fn part(kind: Kind, home: Home, offset: u64, tag: u64) -> Part {
        let shard = place::shard(VOLUME, offset / CHUNK);
        Part { volume: VOLUME, home, shard, kind, offset, len: 4096, step: Step::Whole, fua: false, tag }
    }

    /// Submits a part and waits for its end.
    fn run(&mut self, part: &Part, payload: Payload<'_>) -> Ended {
        match self.local.submit(part, payload, &mut self.pool) {
            Outcome::Done(ended) => ended,
            Outcome::Pending => {
                self.turns();
                let mut ended = Vec::new();
                self.local.drain(&mut ended);
                assert_eq!(ended.len(), 1, "one part, one end");
                ended.remove(0)
            }
            Outcome::Later(_) => panic!("nothing else is under way"),
        }
    }

    fn write(&mut self, offset: u64, byte: u8) -> Status {
        self.run(&Self::part(Kind::Write, LOG, offset, 9), Payload::Borrowed(&[byte; 4096])).status
    }

    fn last_stamp(&self, offset: u64) -> Stamp {
        let shard: ShardId = place::shard(VOLUME, offset / CHUNK);
        self.local.of_store(STORE).next().unwrap().slice.last_stamp(shard)
    }
}

#[test]
fn lsns_go_on_behind_those_that_were_recovered() {
    let mut b = Bench::new();
    assert_eq!(b.last_stamp(0).lsn, 0);
    for n in 0..5 {
        assert_eq!(b.write(n * 4096, 1), Status::Ok);
    }
    assert_eq!(b.write(CHUNK, 1), Status::Ok);
    assert_eq!((b.last_stamp(0).lsn, b.last_stamp(CHUNK).lsn), (5, 1));
    b.restart();
    assert_eq!((b.last_stamp(0).lsn, b.last_stamp(CHUNK).lsn), (5, 1));
    assert_eq!((b.write(0, 2), b.last_stamp(0).lsn), (Status::Ok, 6));
    let zeroed = b.run(&Bench::part(Kind::WriteZeroes, LOG, 4096, 9), Payload::None).status;
    assert_eq!((zeroed, b.last_stamp(0).lsn), (Status::Ok, 7));
}

#[test]
fn a_compare_reads_and_keeps_the_data_here() {
    let mut b = Bench::new();
    assert_eq!(b.write(0, 3), Status::Ok);
    let compare = Bench::part(Kind::Compare, LOG, 0, 77);
    for (byte, status) in [(3, Status::Ok), (4, Status::CompareMismatch)] {
        let ended = b.run(&compare, Payload::Borrowed(&[byte; 4096]));
        assert_eq!((ended.tag, ended.status, ended.buf.is_none()), (77, status, true));
    }
    assert_eq!(b.pool.stats().map(|s| s.total - s.free).next(), Some(0), "no buffer stays behind");
}

#[test]
fn parts_on_what_is_not_there_end_with_gone() {
    let mut b = Bench::new();
    for home in [Home::Raw(DeviceId(4)), Home::Log { store: StoreId(3), slices: 1 }] {
        for (kind, payload) in [
            (Kind::Read, Payload::None),
            (Kind::Write, Payload::Borrowed(&[0; 4096][..])),
            (Kind::WriteZeroes, Payload::None),
        ] {
            let ended = b.run(&Bench::part(kind, home, 0, 1), payload);
            assert_eq!((ended.tag, ended.status), (1, Status::Gone), "{kind:?} {home:?}");
            b.pool.put_all(ended.buf);
        }
    }
}

/// A device with a volatile cache and room for one operation, which ends in the next poll.
struct OneAtATime {
    caps: crate::device::Caps,
    under_way: Option<crate::device::Op>,
    /// Flushes that were done.
    flushes: usize,
}

impl Queue for OneAtATime {
    fn caps(&self) -> &Caps {
        &self.caps
    }
    fn submit(&mut self, op: crate::device::Op) -> Result<(), crate::device::Op> {
        match self.under_way {
            Some(_) => Err(op),
            None => {
                self.under_way = Some(op);
                Ok(())
            }
        }
    }
    fn kick(&mut self) {}
    fn poll(&mut self, _: Time, done: &mut Vec<Done>) -> usize {
        let Some(op) = self.under_way.take() else { return 0 };
        self.flushes += usize::from(op.kind == crate::device::OpKind::Flush);
        done.push(Done { token: op.token, kind: op.kind, result: Ok(()), buf: op.buf });
        1
    }
    fn inflight(&self) -> usize {
        usize::from(self.under_way.is_some())
    }
}

#[test]
fn a_forced_write_waits_for_its_flush_even_when_the_device_is_full() {
    let ram = RamQueue::new(Arc::clone(&Bench::new().medium), 1);
    let caps = Caps { volatile_cache: true, depth: 1, ..*ram.caps() };
    let mut pool = Pool::standalone(CoreId(0), &[Class { size: 4096, count: 4 }]).unwrap();
    let mut queue = OneAtATime { caps, under_way: None, flushes: 0 };
    let mut raw = Raw::new(4);
    let part = Part { fua: true, ..Bench::part(Kind::Write, Home::Raw(DEVICE), 0, 7) };
    assert!(matches!(raw.write(&part, Payload::Borrowed(&[1; 4096]), &mut queue, &mut pool), Outcome::Pending));
    let mut dones = Vec::new();
    queue.poll(Time(1), &mut dones);
    // Another's operation takes the only place before the write's end is dealt with.
    let other = Bench::part(Kind::Read, Home::Raw(DEVICE), 0, 8);
    assert!(matches!(raw.read(&other, pool.get(4096).unwrap(), &mut queue), Outcome::Pending));
    assert!(raw.done(DEVICE, dones.remove(0), &mut queue, &mut pool).is_none() && raw.owes());
    raw.catch_up(|_, op| queue.submit(op));
    assert!(raw.owes(), "still no room");
    queue.poll(Time(2), &mut dones);
    let read = raw.done(DEVICE, dones.remove(0), &mut queue, &mut pool).unwrap();
    assert_eq!((read.tag, read.status), (8, Status::Ok));
    raw.catch_up(|device, op| {
        assert_eq!(device, DEVICE);
        queue.submit(op)
    });
    queue.poll(Time(3), &mut dones);
    let written = raw.done(DEVICE, dones.remove(0), &mut queue, &mut pool).unwrap();
    assert_eq!((written.tag, written.status, queue.flushes, raw.owes()), (7, Status::Ok, 1, false));
}
