//! The disk keeps the promises of a disk, and breaks them exactly where it says so.

use super::*;
use crate::base::CoreId;
use crate::mem::{Class, Pool};

fn pool() -> Pool {
    Pool::standalone(CoreId(0), &[Class { size: 4096, count: 64 }]).unwrap()
}

fn write(disk: &mut Disk, pool: &mut Pool, offset: u64, byte: u8, token: u64) {
    let mut buf = pool.get(4096).unwrap();
    buf.fill(byte);
    let op = Op { kind: OpKind::Write, offset, len: 4096, buf: Some(buf), at: 0, token };
    disk.submit(op).unwrap();
}

fn plain(disk: &mut Disk, kind: OpKind, offset: u64, len: u64, token: u64) {
    disk.submit(Op { kind, offset, len, buf: None, at: 0, token }).unwrap();
}

/// Runs until nothing is under way; returns tokens and results in order of delivery, buffers going back.
fn drain(disk: &mut Disk, pool: &mut Pool) -> Vec<(u64, Result<(), DeviceError>)> {
    let mut done = Vec::new();
    while let Some(at) = disk.wake_at() {
        disk.poll(at, &mut done);
    }
    done.into_iter()
        .map(|d| {
            d.buf.into_iter().for_each(|b| pool.put(b));
            (d.token, d.result)
        })
        .collect()
}

fn byte(image: &Image, offset: u64) -> u8 {
    let mut b = [0];
    image.read(offset, &mut b);
    b[0]
}

#[test]
fn completions_come_out_of_order_and_the_same_for_the_same_seed() {
    let run = |seed| {
        let mut pool = pool();
        let mut disk = Disk::new(Image::new(1 << 20), DiskOptions::default(), seed);
        for i in 0..32 {
            write(&mut disk, &mut pool, i * 4096, i as u8 + 1, i);
        }
        let order: Vec<u64> = drain(&mut disk, &mut pool).into_iter().map(|(t, _)| t).collect();
        assert!((0..32).all(|i| byte(disk.image(), i * 4096) == i as u8 + 1));
        assert!((0..32).all(|i| byte(disk.medium().durable(), i * 4096) == 0), "nothing was flushed");
        plain(&mut disk, OpKind::Flush, 0, 0, 99);
        drain(&mut disk, &mut pool);
        assert!(disk.medium().durable().same(disk.image()));
        assert!(pool.stats().all(|s| s.free == s.total), "every buffer came back");
        (order, disk.trace())
    };
    let (order, trace) = run(5);
    assert!(!order.is_sorted(), "{order:?}");
    assert_eq!((order, trace), run(5));
    assert_ne!(trace, run(6).1);
}

#[test]
fn a_flush_under_way_does_not_cover_later_completions() {
    let mut pool = pool();
    let mut disk = Disk::new(Image::new(1 << 20), DiskOptions::default(), 1);
    write(&mut disk, &mut pool, 0, 1, 1);
    drain(&mut disk, &mut pool);
    write(&mut disk, &mut pool, 4096, 2, 2);
    plain(&mut disk, OpKind::Flush, 0, 0, 3);
    drain(&mut disk, &mut pool);
    let durable = disk.medium().durable();
    assert_eq!((byte(durable, 0), byte(durable, 4096)), (1, 0));
}

#[test]
fn depth_is_a_value_and_the_operation_comes_back() {
    let mut pool = pool();
    let options = DiskOptions { depth: 2, ..DiskOptions::default() };
    let mut disk = Disk::new(Image::new(1 << 20), options, 1);
    plain(&mut disk, OpKind::Flush, 0, 0, 1);
    plain(&mut disk, OpKind::Flush, 0, 0, 2);
    let back = disk.submit(Op { kind: OpKind::Flush, offset: 0, len: 0, buf: None, at: 0, token: 3 });
    assert_eq!(back.unwrap_err().token, 3);
    assert_eq!(drain(&mut disk, &mut pool).len(), 2);
}

#[test]
fn planned_faults_do_what_they_say() {
    let cases: [(Fault, u8, u8); 4] =
        [(Fault::Phantom, 0, 0), (Fault::StaleSector(1), 7, 0), (Fault::Misdirected(9), 0, 0), (Fault::Stall(1), 7, 7)];
    for (fault, first, second_sector) in cases {
        let mut pool = pool();
        let mut disk = Disk::new(Image::new(1 << 20), DiskOptions::default(), 2);
        disk.plan(0, fault);
        write(&mut disk, &mut pool, 0, 7, 1);
        assert_eq!(drain(&mut disk, &mut pool), [(1, Ok(()))], "{fault:?} is acknowledged");
        assert_eq!((byte(disk.image(), 0), byte(disk.image(), 512)), (first, second_sector), "{fault:?}");
        if let Fault::Misdirected(place) = fault {
            assert_eq!(byte(disk.image(), place * 512), 7, "the bytes went somewhere");
        }
    }
}

#[test]
fn a_flip_on_the_way_changes_one_bit() {
    let mut pool = pool();
    let mut disk = Disk::new(Image::new(1 << 20), DiskOptions::default(), 2);
    disk.plan(0, Fault::BitFlip(8 * 100 + 3));
    write(&mut disk, &mut pool, 0, 0, 1);
    drain(&mut disk, &mut pool);
    assert_eq!((byte(disk.image(), 99), byte(disk.image(), 100), byte(disk.image(), 101)), (0, 8, 0));
    disk.plan(1, Fault::BitFlip(8 * 100 + 3));
    let buf = pool.get(4096).unwrap();
    disk.submit(Op { kind: OpKind::Read, offset: 0, len: 4096, buf: Some(buf), at: 0, token: 2 }).unwrap();
    let mut done = Vec::new();
    while let Some(at) = disk.wake_at() {
        disk.poll(at, &mut done);
    }
    assert_eq!(done[0].buf.as_ref().unwrap()[100], 0, "flipped on the medium and back on the way up");
}

#[test]
fn errors_lies_and_death() {
    let mut pool = pool();
    let mut disk = Disk::new(Image::new(1 << 20), DiskOptions::default(), 2);
    write(&mut disk, &mut pool, 0, 1, 1);
    drain(&mut disk, &mut pool);
    disk.plan(1, Fault::LyingFlush);
    plain(&mut disk, OpKind::Flush, 0, 0, 2);
    assert_eq!(drain(&mut disk, &mut pool), [(2, Ok(()))]);
    assert_eq!(byte(disk.medium().durable(), 0), 0);
    disk.plan(2, Fault::Error);
    plain(&mut disk, OpKind::Flush, 0, 0, 3);
    assert_eq!(drain(&mut disk, &mut pool), [(3, Err(DeviceError::Dead))]);
    plain(&mut disk, OpKind::Flush, 0, 0, 4);
    assert_eq!(drain(&mut disk, &mut pool), [(4, Err(DeviceError::Dead))], "after a failed flush nobody is told Ok");
    assert_eq!(byte(disk.medium().durable(), 0), 0, "a flush after a failed one does not bring the write back");
    let mut disk = Disk::new(Image::new(1 << 20), DiskOptions::default(), 2);
    disk.plan(0, Fault::Death);
    write(&mut disk, &mut pool, 4096, 2, 5);
    plain(&mut disk, OpKind::Flush, 0, 0, 6);
    assert_eq!(drain(&mut disk, &mut pool), [(5, Err(DeviceError::Dead)), (6, Err(DeviceError::Dead))]);
    assert!(pool.stats().all(|s| s.free == s.total));
}

#[test]
fn memory_pace_answers_in_the_call_and_still_needs_the_flush() {
    let options = DiskOptions { pace: Pace::Memory, ..DiskOptions::default() };
    let mut pool = pool();
    let mut disk = Disk::new(Image::new(1 << 20), options, 2);
    disk.keep_record();
    disk.write_now(512, &[3; 512]).unwrap().unwrap();
    let mut got = [0; 512];
    disk.read_now(512, &mut got).unwrap().unwrap();
    assert_eq!(got, [3; 512]);
    assert_eq!((disk.medium().unflushed_len(), disk.events()), (1, 3));
    plain(&mut disk, OpKind::Flush, 0, 0, 1);
    drain(&mut disk, &mut pool);
    assert_eq!(disk.medium().unflushed_len(), 0);
    assert_eq!(disk.take_record().len(), 4);
    let mut queued = Disk::new(Image::new(1 << 20), DiskOptions::default(), 2);
    assert!(queued.read_now(0, &mut got).is_none() && queued.write_now(0, &got).is_none());
}
