use super::*;
use crate::base::rng::Rng;
use crate::device::testing::{drain, plain, pool, read, write};
use crate::mem::Pool;

fn queue(size: u64, block: u32, depth: u32) -> RamQueue {
    let spec = RamSpec { size, block: Some(block), lazy: true };
    RamQueue::new(Arc::new(RamMedium::open(&spec).unwrap()), depth)
}

#[test]
fn random_operations_agree_with_a_model() {
    const SIZE: usize = 1 << 20;
    let (mut q, mut pool, mut rng) = (queue(SIZE as u64, 512, 8), pool(), Rng::new(11));
    let mut model = vec![0u8; SIZE];
    for token in 0..2000 {
        let len = 512 * (1 + rng.below(8)) as usize;
        let offset = (rng.below(((SIZE - len) / 512) as u64 + 1) * 512) as usize;
        match rng.below(4) {
            0 => {
                let mut buf = pool.get(len).unwrap();
                rng.fill(&mut buf);
                model[offset..][..len].copy_from_slice(&buf);
                q.submit(write(buf, offset as u64, token)).unwrap();
            }
            1 => q
                .submit(plain(OpKind::WriteZeroes, offset as u64, len as u64, token))
                .map(|()| model[offset..][..len].fill(0))
                .unwrap(),
            2 => {
                let mut data = vec![0; len];
                rng.fill(&mut data);
                assert_eq!(q.write_now(offset as u64, &data), Some(Ok(())));
                model[offset..][..len].copy_from_slice(&data);
            }
            _ => {
                let mut data = vec![1; len];
                assert_eq!(q.read_now(offset as u64, &mut data), Some(Ok(())));
                assert_eq!(data, &model[offset..][..len]);
                q.submit(read(pool.get(len).unwrap(), offset as u64, token)).unwrap();
            }
        }
        for done in drain(&mut q) {
            assert_eq!((done.token, done.result), (token, Ok(())));
            let Some(buf) = done.buf else { continue };
            assert_eq!(&buf[..], &model[offset..][..len]);
            pool.put(buf);
        }
    }
}

#[test]
fn cores_share_the_memory_and_a_full_queue_gives_the_operation_back() {
    let medium = Arc::new(RamMedium::open(&RamSpec { size: 1 << 20, block: None, lazy: false }).unwrap());
    let (mut a, mut b) = (RamQueue::new(Arc::clone(&medium), 1), RamQueue::new(medium, 1));
    let mut pool = pool();
    let mut buf = pool.get(4096).unwrap();
    buf.fill(0x5a);
    a.submit(write(buf, 8192, 1)).unwrap();
    let back = a.submit(read(pool.get(4096).unwrap(), 0, 2)).unwrap_err();
    assert_eq!((back.token, a.inflight(), a.wake_at()), (2, 1, Some(Time(0))));
    assert_eq!(drain(&mut a).len(), 1);
    let mut seen = [0; 4096];
    b.read_now(8192, &mut seen).unwrap().unwrap();
    assert_eq!(seen, [0x5a; 4096]);
}

#[test]
fn a_transfer_may_start_inside_the_buffer() {
    let (mut q, mut pool) = (queue(1 << 20, 512, 1), pool());
    let mut buf = pool.get(4096).unwrap();
    buf.fill(1);
    buf[1024..1536].fill(2);
    q.submit(Op { kind: OpKind::Write, offset: 0, len: 512, buf: Some(buf), at: 1024, token: 0 }).unwrap();
    drain(&mut q);
    let mut seen = [0; 1024];
    q.read_now(0, &mut seen).unwrap().unwrap();
    assert!(seen[..512].iter().all(|x| *x == 2) && seen[512..].iter().all(|x| *x == 0));
}

#[test]
fn long_write_zeroes_takes_several_polls() {
    let (mut q, size) = (queue(8 << 20, 4096, 4), 8 << 20);
    let ones = vec![1u8; 4096];
    for offset in [0, 3 << 20, size - 4096] {
        q.write_now(offset, &ones).unwrap().unwrap();
    }
    q.submit(plain(OpKind::WriteZeroes, 0, size, 7)).unwrap();
    let mut dones = Vec::new();
    let polls = (1..100).find(|_| q.poll(Time(0), &mut dones) == 1).unwrap();
    assert_eq!((polls, dones[0].token, q.inflight()), (8, 7, 0));
    let mut block = vec![1u8; 4096];
    for offset in [0, 3 << 20, size - 4096] {
        q.read_now(offset, &mut block).unwrap().unwrap();
        assert!(block.iter().all(|b| *b == 0));
    }
}

#[test]
fn misuse_asserts() {
    let asserts = |op: fn(&mut RamQueue, Pool)| {
        let unwound = std::panic::catch_unwind(|| op(&mut queue(1 << 20, 4096, 1), pool()));
        assert!(unwound.is_err());
    };

    asserts(|q, mut p| drop(q.submit(read(p.get(4096).unwrap(), 512, 0))));
    asserts(|q, mut p| drop(q.submit(read(p.get(512).unwrap(), 0, 0))));
    asserts(|q, mut p| drop(q.submit(read(p.get(4096).unwrap(), 1 << 20, 0))));
    asserts(|q, mut p| drop(q.submit(Op { at: 512, len: 4096, ..read(p.get(8192).unwrap(), 0, 0) })));
    asserts(|q, mut p| drop(q.submit(Op { len: 8192, ..read(p.get(4096).unwrap(), 0, 0) })));
    asserts(|q, _| drop(q.submit(plain(OpKind::Read, 0, 4096, 0))));
    asserts(|q, _| drop(q.submit(plain(OpKind::Flush, 0, 4096, 0))));
    asserts(|q, _| drop(q.submit(plain(OpKind::Discard, u64::MAX - 4095, 4096, 0))));
    asserts(|q, _| {
        let _ = q.read_now(1, &mut [0; 4096]);
    });
    asserts(|q, _| {
        let _ = q.read_now(0, &mut [0; 100]);
    });
    asserts(|q, _| {
        let _ = q.write_now(1 << 20, &[0; 4096]);
    });
}

#[test]
fn memory_that_is_not_there_is_an_error() {
    let failed = RamMedium::open(&RamSpec { size: 1 << 60, block: None, lazy: true });
    assert!(matches!(failed, Err(OpenError::Memory { bytes, .. }) if bytes == 1 << 60));
}
