use super::*;
use crate::base::Time;
use crate::device::testing::{drain, plain, pool, read, write};
use crate::device::{Done, NullSpec, Queue, RamMedium, RamQueue, RamSpec};
use crate::mem::Pool;

const SIZE: u64 = 1 << 20;

struct Bench {
    q: FaultQueue<RamQueue>,
    handle: FaultHandle,
    pool: Pool,
    ram: Arc<RamMedium>,
}

fn bench(rules: &[FaultRule]) -> Bench {
    let ram = Arc::new(RamMedium::open(&RamSpec { size: SIZE, block: Some(512), lazy: true }).unwrap());
    let handle = FaultHandle::new(rules);
    let q = FaultQueue::new(RamQueue::new(Arc::clone(&ram), 4), handle.clone(), 1);
    Bench { q, handle, pool: pool(), ram }
}

impl Bench {
    fn one(&mut self, op: crate::device::Op) -> Done {
        self.q.submit(op).unwrap();
        let mut dones = drain(&mut self.q);
        assert_eq!(dones.len(), 1);
        dones.pop().unwrap()
    }
    fn write(&mut self, offset: u64, len: usize, byte: u8) -> Result<(), DeviceError> {
        let mut buf = self.pool.get(len).unwrap();
        buf.fill(byte);
        let done = self.one(write(buf, offset, 77));
        assert_eq!((done.token, done.kind), (77, OpKind::Write));
        let buf = done.buf.expect("the buffer comes back whatever happened");
        assert!(buf.iter().all(|b| *b == byte), "the writer's buffer comes back intact");
        self.pool.put(buf);
        done.result
    }
    fn read(&mut self, offset: u64, len: usize) -> Result<Vec<u8>, DeviceError> {
        let mut buf = self.pool.get(len).unwrap();
        buf.fill(0xee);
        let done = self.one(read(buf, offset, 78));
        let buf = done.buf.expect("the buffer comes back whatever happened");
        let data = buf.to_vec();
        self.pool.put(buf);
        done.result.map(|()| data)
    }
    /// What is really on the medium.
    fn medium(&mut self, offset: u64, len: usize) -> Vec<u8> {
        let mut data = vec![0; len];
        RamQueue::new(Arc::clone(&self.ram), 1).read_now(offset, &mut data).unwrap().unwrap();
        data
    }
}

/// What ends without anything that is held.
fn polled(q: &mut FaultQueue<RamQueue>) -> Vec<Done> {
    let mut dones = Vec::new();
    for _ in 0..3 {
        q.kick();
        q.poll(Time(0), &mut dones);
    }
    dones
}

fn ones(data: &[u8]) -> u32 {
    data.iter().map(|b| b.count_ones()).sum()
}

#[test]
fn no_rules_change_nothing_and_leave_memory_speed() {
    let mut b = bench(&[]);
    b.write(512, 1024, 3).unwrap();
    assert_eq!(b.read(512, 1024).unwrap(), vec![3; 1024]);
    assert_eq!(b.q.read_now(0, &mut [0; 512]), Some(Ok(())));
    b.handle.set(&[FaultRule::always(Action::Flip)]);
    assert_eq!((b.q.read_now(0, &mut [0; 512]), b.q.write_now(0, &[0; 512])), (None, None));
}

#[test]
fn errors_count_from_begin_to_end_in_their_range() {
    let rule = FaultRule {
        op: Some(OpKind::Write),
        offsets: (4096, 8192),
        begin: 1,
        end: 3,
        ..FaultRule::always(Action::Error(DeviceError::Media))
    };
    let mut b = bench(std::slice::from_ref(&rule));
    let got: Vec<_> = (0..5).map(|_| b.write(3584, 1024, 1).is_err()).collect();
    assert_eq!(got, [false, true, true, false, false], "the last block touches the range");
    b.write(8192, 512, 1).unwrap();
    b.write(0, 4096, 1).unwrap();
    b.read(4096, 512).unwrap();
    assert_eq!(b.handle.report(), [FaultReport { rule, seen: 5, hits: 2 }]);
}

#[test]
fn an_error_keeps_the_medium_as_it_was() {
    let mut b = bench(&[FaultRule::always(Action::Error(DeviceError::NoSpace))]);
    assert_eq!(b.write(0, 512, 9), Err(DeviceError::NoSpace));
    assert_eq!(b.read(0, 512), Err(DeviceError::NoSpace));
    assert_eq!(b.medium(0, 512), vec![0; 512]);
    assert!(!b.handle.is_dead());
}

#[test]
fn flips_damage_one_bit_of_what_is_read_or_of_the_medium() {
    let mut b = bench(&[FaultRule::nth(Action::Flip, OpKind::Read, 0)]);
    let damaged = b.read(0, 4096).unwrap();
    assert_eq!((ones(&damaged), ones(&b.read(0, 4096).unwrap())), (1, 0));
    b.handle.set(&[FaultRule::nth(Action::Flip, OpKind::Write, 0)]);
    b.write(0, 4096, 0).unwrap();
    assert_eq!(ones(&b.medium(0, 4096)), 1);
}

#[test]
fn corruption_changes_the_byte_it_names() {
    let mut b = bench(&[FaultRule::nth(Action::Corrupt { at: 700, value: 0x81 }, OpKind::Read, 0)]);
    let damaged = b.read(0, 1024).unwrap();
    assert_eq!((damaged[700], ones(&damaged), ones(&b.read(0, 1024).unwrap())), (0x81, 2, 0));
    b.handle.set(&[FaultRule::always(Action::Corrupt { at: 700, value: 0xff })]);
    b.write(0, 1024, 0).unwrap();
    assert_eq!((b.medium(0, 1024)[700], ones(&b.medium(0, 1024))), (0xff, 8));
    b.write(4096, 512, 0).unwrap();
    assert_eq!(ones(&b.medium(4096, 512)), 0, "the data is shorter than that");
}

#[test]
fn held_operations_wait_for_their_release_and_then_take_effect() {
    let hold = FaultRule { end: 2, op: Some(OpKind::Write), ..FaultRule::always(Action::Hold) };
    let mut b = bench(&[hold]);
    for (token, byte) in [(1, 0x11), (2, 0x22), (3, 0x33)] {
        let mut buf = b.pool.get(512).unwrap();
        buf.fill(byte);
        b.q.submit(write(buf, token * 512, token)).unwrap();
    }
    let mut done = Vec::new();
    assert_eq!((b.q.poll(Time(5_000_000), &mut done), done[0].token), (1, 3), "only two were to be held");
    assert_eq!(b.q.inflight(), 2);
    assert_eq!(b.q.wake_at(), Some(Time(6_000_000)), "a sleeping reactor looks now and then");
    b.q.submit(plain(OpKind::Flush, 0, 0, 4)).unwrap();
    b.q.submit(plain(OpKind::Flush, 0, 0, 5)).unwrap();
    assert!(b.q.submit(plain(OpKind::Flush, 0, 0, 6)).is_err(), "what is held counts");
    assert_eq!(polled(&mut b.q).iter().map(|d| d.token).collect::<Vec<_>>(), [4, 5]);
    assert_eq!(ones(&b.medium(0, 1536)), 0, "nothing held has reached the medium");
    b.handle.release();
    let tokens: Vec<_> = polled(&mut b.q).into_iter().map(|d| (d.token, d.result)).collect();
    assert_eq!(tokens, [(1, Ok(())), (2, Ok(()))]);
    assert_eq!((b.medium(512, 512)[0], b.medium(1024, 512)[0], b.q.inflight()), (0x11, 0x22, 0));
    // A release is for what is held at that moment only; a dead device holds nothing.
    b.handle.set(&[FaultRule::always(Action::Hold)]);
    b.q.submit(plain(OpKind::Discard, 0, 512, 7)).unwrap();
    assert!(polled(&mut b.q).is_empty());
    b.handle.set(&[FaultRule::always(Action::Error(DeviceError::Dead))]);
    b.q.submit(plain(OpKind::Flush, 0, 0, 8)).unwrap();
    assert!(polled(&mut b.q).iter().all(|d| d.result == Err(DeviceError::Dead)));
    assert_eq!(b.q.inflight(), 0);
}

#[test]
fn short_writes_are_torn_on_a_block_border() {
    let mut b = bench(&[FaultRule::always(Action::Short(1500))]);
    assert_eq!(b.write(0, 4096, 0xff), Err(DeviceError::Media));
    assert_eq!(ones(&b.medium(0, 4096)), 1024 * 8);
    assert_eq!(b.write(8192, 512, 0xff), Err(DeviceError::Media));
    assert_eq!(ones(&b.medium(8192, 512)), 0, "one block is never half written");
    b.handle.set(&[FaultRule::always(Action::Short(u64::MAX))]);
    assert_eq!(b.write(8192, 2048, 0xff), Err(DeviceError::Media));
    assert_eq!(ones(&b.medium(8192, 2048)), 1536 * 8, "never all of it");
}

#[test]
fn lost_writes_and_lying_flushes_end_well() {
    let mut b = bench(&[FaultRule::always(Action::Lose)]);
    b.write(0, 512, 0xff).unwrap();
    assert_eq!(ones(&b.medium(0, 512)), 0);
    assert_eq!(b.one(plain(OpKind::Flush, 0, 0, 1)).result, Ok(()));
    assert_eq!(b.handle.report()[0].hits, 2);
    b.read(0, 512).unwrap();
    assert_eq!(b.handle.report()[0].seen, 2, "a read can not be lost");
}

#[test]
fn misdirected_operations_land_elsewhere_inside_the_medium() {
    let mut b = bench(&[FaultRule::always(Action::Misdirect(-1024))]);
    b.write(4096, 512, 0xff).unwrap();
    assert_eq!((ones(&b.medium(4096, 512)), ones(&b.medium(3072, 512))), (0, 512 * 8));
    b.write(0, 4096, 0xff).unwrap();
    assert_eq!(ones(&b.medium(SIZE - 4096, 4096)), 4096 * 8, "wrapped, and moved to fit");
    b.handle.set(&[FaultRule::always(Action::Misdirect(512))]);
    assert_eq!(ones(&b.read(2560, 512).unwrap()), 512 * 8);
}

#[test]
fn a_failed_flush_is_death_until_revived() {
    let mut b = bench(&[FaultRule::nth(Action::Error(DeviceError::Media), OpKind::Flush, 1)]);
    assert_eq!(b.one(plain(OpKind::Flush, 0, 0, 1)).result, Ok(()));
    // A write under way when the flush fails must not be acknowledged after it.
    let buf = b.pool.get(512).unwrap();
    b.q.submit(write(buf, 0, 2)).unwrap();
    b.q.submit(plain(OpKind::Flush, 0, 0, 3)).unwrap();
    let dones = drain(&mut b.q);
    assert!(dones.len() == 2 && dones.iter().all(|d| d.result == Err(DeviceError::Dead)));
    assert_eq!(b.write(0, 512, 1), Err(DeviceError::Dead));
    b.handle.set(&[]);
    assert_eq!((b.read(0, 512), b.q.read_now(0, &mut [0; 512])), (Err(DeviceError::Dead), None));
    b.handle.revive();
    b.read(0, 512).unwrap();
}

#[test]
fn probability_is_kept_and_the_seed_decides() {
    let rule = FaultRule { per_million: 250_000, ..FaultRule::always(Action::Error(DeviceError::Media)) };
    let run = |seed| {
        let null = crate::device::NullQueue::new(&NullSpec { size: SIZE, block: None, nofill: true }, 1);
        let mut q = FaultQueue::new(null, FaultHandle::new(std::slice::from_ref(&rule)), seed);
        let outcomes = (0..4000).map(|t| {
            q.submit(plain(OpKind::Discard, 0, 4096, t)).unwrap();
            drain(&mut q)[0].result.is_err()
        });
        outcomes.collect::<Vec<_>>()
    };
    let hits = run(3).iter().filter(|h| **h).count();
    assert!((900..1100).contains(&hits), "{hits}");
    assert_eq!(run(3), run(3));
    assert_ne!(run(3), run(4));
}

#[test]
fn the_depth_counts_operations_on_both_sides() {
    let mut b = bench(&[FaultRule { op: Some(OpKind::Read), ..FaultRule::always(Action::Error(DeviceError::Media)) }]);
    for token in 0..2 {
        b.q.submit(read(b.pool.get(512).unwrap(), 0, token)).unwrap();
        b.q.submit(plain(OpKind::Flush, 0, 0, 10 + token)).unwrap();
    }
    let back = b.q.submit(plain(OpKind::Flush, 0, 0, 9)).unwrap_err();
    assert_eq!((back.token, b.q.inflight()), (9, 4));
    assert_eq!(drain(&mut b.q).len(), 4);
    b.q.submit(back).unwrap();
}
