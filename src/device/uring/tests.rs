use super::*;
use crate::base::CoreId;
use crate::base::rng::Rng;
use crate::device::testing::{CLASSES, Loop, Mount, drain, one, open, plain, pool, read, write};
use crate::device::{AnyQueue, FileSpec, Medium};
use crate::mem::{Arena, Pool};
use std::os::unix::fs::FileExt;
use std::path::Path;

const SIZE: usize = 1 << 20;

fn disk() -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    File::create(&path).unwrap().set_len(SIZE as u64).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (dir, path)
}

fn queue(medium: &Medium, depth: u32) -> AnyQueue {
    medium.queue(CoreId(0), depth, &[]).unwrap()
}

fn over(path: &str, depth: u32) -> (Arc<FileMedium>, UringQueue) {
    let medium = Arc::new(FileMedium::unchecked(path, SIZE as u64));
    let queue = UringQueue::new(Arc::clone(&medium), depth, &[]).unwrap();
    (medium, queue)
}

/// Keeps `depth` operations under way on disjoint places, so that the model knows what each must see.
fn random_operations(q: &mut AnyQueue, pool: &mut Pool, seed: u64) {
    const STRIPE: usize = 64 << 10;
    let (mut model, mut rng) = (vec![0u8; SIZE], Rng::new(seed));
    let depth = q.caps().depth as usize;
    let lanes = SIZE / STRIPE;
    assert!(depth <= lanes);
    let block = q.caps().block_size as usize;
    for _ in 0..60 {
        let mut expected = Vec::new();
        for lane in 0..depth {
            let len = block * (1 + rng.below((16384 / block) as u64)) as usize;
            let room = ((STRIPE - len) / block) as u64 + 1;
            let offset = lane * STRIPE + rng.below(room) as usize * block;
            let (token, place) = (lane as u64, &mut model[offset..offset + len]);
            let op = match rng.below(5) {
                0 | 1 => {
                    let mut buf = pool.get(len).unwrap();
                    rng.fill(&mut buf);
                    place.copy_from_slice(&buf);
                    write(buf, offset as u64, token)
                }
                2 => {
                    place.fill(0);
                    plain(OpKind::WriteZeroes, offset as u64, len as u64, token)
                }
                3 => plain(OpKind::Flush, 0, 0, token),
                _ => read(pool.get(len).unwrap(), offset as u64, token),
            };
            expected.push((offset, len));
            q.submit(op).unwrap();
        }
        let extra = q.submit(plain(OpKind::Flush, 0, 0, 99)).unwrap_err();
        assert_eq!(extra.token, 99, "a full queue gives the operation back");
        let dones = drain(q);
        assert_eq!(dones.len(), depth);
        for done in dones {
            assert_eq!(done.result, Ok(()));
            let (offset, len) = expected[done.token as usize];
            if let Some(buf) = done.buf {
                assert_eq!(buf[..], model[offset..][..len]);
                pool.put(buf);
            }
        }
    }
    for offset in (0..SIZE).step_by(STRIPE) {
        let done = one(q, read(pool.get(STRIPE).unwrap(), offset as u64, 0));
        let buf = done.buf.unwrap();
        assert!(done.result == Ok(()) && buf[..] == model[offset..][..STRIPE]);
        pool.put(buf);
    }
}

#[test]
fn random_operations_agree_with_a_model() {
    let (_dir, path) = disk();
    for (n, options) in [",bs=512", "", ",buffered,bs=512"].into_iter().enumerate() {
        std::fs::write(&path, vec![0; SIZE]).unwrap();
        let medium = open(&format!("uring:{path}{options}")).unwrap();
        random_operations(&mut queue(&medium, 7), &mut pool(), n as u64);
    }
}

#[test]
fn registered_buffers_carry_the_same_bytes() {
    let (_dir, path) = disk();
    let medium = Arc::new(FileMedium::open(&FileSpec::new(&path), &mut |_, _| {}).unwrap());
    let (arena, other) = (Arena::new(2 << 20).unwrap(), Arena::new(2 << 20).unwrap());
    let mut pool = Pool::new(CoreId(0), &arena, &CLASSES).unwrap();
    let q = UringQueue::new(medium, 16, &[other.span(), arena.span()]).unwrap();
    let buf = pool.get(4096).unwrap();
    if q.ring.has_spans() {
        assert_eq!(q.ring.registered(buf.as_ptr(), 4096), Some(1));
        assert_eq!(q.ring.registered([0u8; 1].as_ptr(), 1), None);
    } else {
        eprintln!("SKIPPED: the memlock limit does not let buffers be registered here");
        assert!(unregistered_queues() > 0);
    }
    pool.put(buf);
    random_operations(&mut AnyQueue::Uring(Box::new(q)), &mut pool, 9);
}

#[test]
fn no_system_call_without_cause_and_the_file_descriptor_wakes() {
    let (_dir, path) = disk();
    let medium = open(&format!("uring:{path}")).unwrap();
    let (mut q, mut pool, mut dones) = (queue(&medium, 4), pool(), Vec::new());
    let readable = |q: &AnyQueue, ms| {
        // No descriptor: what there is needs no waiting for.
        let Some(bell) = q.wait_fd() else { return true };
        let mut fd = libc::pollfd { fd: bell, events: libc::POLLIN, revents: 0 };
        let asleep = std::time::Instant::now();
        // SAFETY: one valid pollfd.
        let ready = unsafe { libc::poll(&raw mut fd, 1, ms) == 1 };
        // A poll that finds its descriptor readable only when its time is up was not woken.
        ready && (ms == 0 || asleep.elapsed().as_millis() < ms as u128 / 2)
    };
    assert_eq!((q.wake_at(), q.poll(Time(0), &mut dones)), (None, 0));
    for round in 0..3 {
        assert!(!readable(&q, 0));
        q.submit(read(pool.get(4096).unwrap(), 0, round)).unwrap();
        assert_eq!(q.poll(Time(0), &mut dones), 0, "nothing completes before the kick");
        q.kick();
        assert!(readable(&q, 5000), "a sleeper is woken");
        let polls = (0..1000).find(|_| q.poll(Time(0), &mut dones) == 1);
        assert!(polls.is_some());
    }
    assert_eq!(dones.len(), 3);
}

#[test]
fn a_queue_belongs_to_the_thread_that_uses_it_first() {
    let (_dir, path) = disk();
    let medium = open(&format!("uring:{path}")).unwrap();
    let (mut q, mut pool) = (queue(&medium, 4), pool());
    let worker = std::thread::spawn(move || {
        let done = one(&mut q, write(pool.get(4096).unwrap(), 0, 5));
        (done.token, done.result)
    });
    assert_eq!(worker.join().unwrap(), (5, Ok(())));
}

#[test]
fn two_cores_write_side_by_side() {
    let (_dir, path) = disk();
    let medium = open(&format!("uring:{path}")).unwrap();
    let workers: Vec<_> = (0..2u64)
        .map(|core| {
            let mut q = medium.queue(CoreId(core as u16), 8, &[]).unwrap();
            std::thread::spawn(move || {
                let mut pool = pool();
                for n in 0..64u64 {
                    let mut buf = pool.get(4096).unwrap();
                    buf.fill(core as u8 + 1);
                    let done = one(&mut q, write(buf, (2 * n + core) * 4096, n));
                    assert_eq!(done.result, Ok(()));
                    pool.put(done.buf.unwrap());
                }
                one(&mut q, plain(OpKind::Flush, 0, 0, 0)).result
            })
        })
        .collect();
    assert!(workers.into_iter().all(|w| w.join().unwrap() == Ok(())));
    let content = std::fs::read(&path).unwrap();
    let right = |n: usize, block: &[u8]| block.iter().all(|b| usize::from(*b) == n % 2 + 1);
    assert!(content.chunks(4096).take(128).enumerate().all(|(n, b)| right(n, b)));
}

#[test]
fn a_file_cut_short_under_us_is_a_media_error() {
    let (_dir, path) = disk();
    let medium = open(&format!("uring:{path}")).unwrap();
    let (mut q, mut pool) = (queue(&medium, 4), pool());
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(8192).unwrap();
    let done = one(&mut q, read(pool.get(65536).unwrap(), 0, 1));
    assert_eq!(done.result, Err(DeviceError::Media), "two blocks, then the end");
    assert_eq!(done.buf.unwrap().len(), 65536);
    assert_eq!(one(&mut q, read(pool.get(8192).unwrap(), 0, 2)).result, Ok(()));
    assert_eq!(one(&mut q, read(pool.get(4096).unwrap(), 8192, 3)).result, Err(DeviceError::Media));
}

#[test]
fn zeroes_and_discards_do_what_the_file_is_for() {
    use std::os::unix::fs::MetadataExt;
    let blocks = |path: &str| std::fs::metadata(path).unwrap().blocks();
    let (_dir, path) = disk();
    // Sparse: zeroes give the space back.
    File::options().write(true).open(&path).unwrap().write_all_at(&vec![1; SIZE / 2], 0).unwrap();
    {
        let medium = open(&format!("uring:{path}")).unwrap();
        let mut q = queue(&medium, 4);
        one(&mut q, plain(OpKind::WriteZeroes, 0, SIZE as u64, 1)).result.unwrap();
        assert_eq!(blocks(&path), 0);
    }
    // Fully allocated: zeroes keep it, discards give it back.
    std::fs::write(&path, vec![1; SIZE]).unwrap();
    File::open(&path).unwrap().sync_all().unwrap();
    let full = blocks(&path);
    let medium = open(&format!("uring:{path}")).unwrap();
    let mut q = queue(&medium, 4);
    one(&mut q, plain(OpKind::WriteZeroes, 4096, SIZE as u64 - 4096, 1)).result.unwrap();
    assert!(blocks(&path) >= full);
    one(&mut q, plain(OpKind::Discard, 4096, SIZE as u64 - 4096, 1)).result.unwrap();
    assert!(blocks(&path) < full / 2);
    let content = std::fs::read(&path).unwrap();
    assert!(content.len() == SIZE && content[..4096].iter().all(|b| *b == 1));
    assert!(content[4096..].iter().all(|b| *b == 0));
}

#[test]
fn zeroes_by_hand_cross_the_size_of_a_piece() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    let medium = open(&format!("file:{},size=3MiB,prealloc,bs=512", path.display())).unwrap();
    let (mut q, mut pool) = (queue(&medium, 4), pool());
    assert!(!q.caps().write_zeroes);
    for offset in (0..3 << 20).step_by(65536) {
        let mut buf = pool.get(65536).unwrap();
        buf.fill(0xff);
        pool.put(one(&mut q, write(buf, offset, 0)).buf.unwrap());
    }
    one(&mut q, plain(OpKind::WriteZeroes, 512, (5 << 19) + 512, 1)).result.unwrap();
    assert_eq!(one(&mut q, plain(OpKind::Discard, 0, 4096, 1)).result, Err(DeviceError::Unsupported));
    let content = std::fs::read(&path).unwrap();
    let zeroed = 512..(5 << 19) + 1024;
    assert!(content.iter().enumerate().all(|(i, b)| *b == if zeroed.contains(&i) { 0 } else { 0xff }));
}

#[test]
fn a_read_only_device_refuses_changes_only() {
    let (_dir, path) = disk();
    let medium = open(&format!("uring:{path},readonly")).unwrap();
    let (mut q, mut pool) = (queue(&medium, 4), pool());
    assert_eq!(one(&mut q, read(pool.get(4096).unwrap(), 0, 1)).result, Ok(()));
    let done = one(&mut q, write(pool.get(4096).unwrap(), 0, 2));
    assert!(done.result == Err(DeviceError::Unsupported) && done.buf.is_some());
    for kind in [OpKind::WriteZeroes, OpKind::Discard] {
        assert_eq!(one(&mut q, plain(kind, 0, 4096, 3)).result, Err(DeviceError::Unsupported));
    }
    assert_eq!(one(&mut q, plain(OpKind::Flush, 0, 0, 4)).result, Ok(()));
}

#[test]
fn no_space_is_told_apart() {
    // /dev/full takes no byte; its reads are zeroes.
    let (_medium, mut q) = over("/dev/full", 4);
    let mut pool = pool();
    let done = one(&mut q, write(pool.get(4096).unwrap(), 0, 1));
    assert_eq!(done.result, Err(DeviceError::NoSpace));
    let done = one(&mut q, read(done.buf.unwrap(), 0, 2));
    assert!(done.result == Ok(()) && done.buf.unwrap().iter().all(|b| *b == 0));
}

#[test]
fn a_full_filesystem_fails_the_write_and_nothing_else() {
    let Some(mount) = Mount::new("tmpfs", "size=64k") else { return };
    let medium = open(&format!("file:{}/disk,size=1MiB", mount.path().display())).unwrap();
    let (mut q, mut pool) = (queue(&medium, 4), pool());
    let done = one(&mut q, write(pool.get(65536).unwrap(), 32768, 1));
    assert_eq!(done.result, Ok(()));
    let done = one(&mut q, write(done.buf.unwrap(), 98304, 2));
    assert_eq!(done.result, Err(DeviceError::NoSpace), "also when a part of it fitted");
    assert_eq!(one(&mut q, read(done.buf.unwrap(), 32768, 3)).result, Ok(()));
    assert!(!medium.is_dead());
}

#[test]
fn an_unreadable_place_is_a_media_error() {
    // Address 0 of our own memory is mapped by nobody: the kernel says EIO.
    let (_medium, mut q) = over("/proc/self/mem", 4);
    let done = one(&mut q, read(pool().get(4096).unwrap(), 0, 1));
    assert_eq!(done.result, Err(DeviceError::Media));
    assert!(done.buf.is_some());
}

#[test]
fn a_failed_flush_kills_every_queue_for_ever() {
    // A character device can be written, but not flushed.
    let (medium, mut a) = over("/dev/zero", 4);
    let mut b = UringQueue::new(Arc::clone(&medium), 4, &[]).unwrap();
    let mut pool = pool();
    assert_eq!(one(&mut a, write(pool.get(4096).unwrap(), 0, 1)).result, Ok(()));
    a.submit(write(pool.get(4096).unwrap(), 0, 2)).unwrap();
    assert_eq!(one(&mut b, plain(OpKind::Flush, 0, 0, 3)).result, Err(DeviceError::Dead));
    let dones = drain(&mut a);
    assert!(dones.len() == 1 && dones[0].result == Err(DeviceError::Dead), "no acknowledgement after the failure");
    for q in [&mut a, &mut b] {
        let done = one(q, read(pool.get(4096).unwrap(), 0, 4));
        assert!(done.result == Err(DeviceError::Dead) && done.buf.is_some());
        assert_eq!(one(q, plain(OpKind::Flush, 0, 0, 5)).result, Err(DeviceError::Dead));
    }
    assert!(medium.is_dead());
}

#[test]
fn lost_writeback_is_death_not_a_retry() {
    // The loop device's file has less space than it pretends: the page cache takes the writes, the flush finds out.
    let Some(mount) = Mount::new("tmpfs", "size=256k") else { return };
    let backing = mount.path().join("backing");
    File::create(&backing).unwrap().set_len(8 << 20).unwrap();
    let Some(disk) = Loop::new(Path::new(&backing), 4096) else { return };
    let medium = open(&format!("uring:{},buffered", disk.path())).unwrap();
    let (mut q, mut other, mut pool) = (queue(&medium, 8), queue(&medium, 8), pool());
    for n in 0..16 {
        let mut buf = pool.get(65536).unwrap();
        buf.fill(0xaa);
        let done = one(&mut q, write(buf, n * 65536, n));
        assert_eq!(done.result, Ok(()), "the page cache takes it");
        pool.put(done.buf.unwrap());
    }
    assert_eq!(one(&mut q, plain(OpKind::Flush, 0, 0, 99)).result, Err(DeviceError::Dead));
    assert_eq!(one(&mut q, plain(OpKind::Flush, 0, 0, 99)).result, Err(DeviceError::Dead), "fsyncgate");
    assert_eq!(one(&mut other, read(pool.get(4096).unwrap(), 0, 1)).result, Err(DeviceError::Dead));
}

#[test]
fn a_queue_dropped_in_the_middle_harms_nobody() {
    let (_dir, path) = disk();
    for _ in 0..20 {
        let medium = open(&format!("uring:{path}")).unwrap();
        let (mut q, mut pool) = (queue(&medium, 8), pool());
        for n in 0..8 {
            q.submit(read(pool.get(4096).unwrap(), n * 4096, n)).unwrap();
        }
        q.kick();
    }
}

#[test]
fn the_way_through_faults_and_delays() {
    let (_dir, path) = disk();
    let medium = open(&format!("delay(fault(uring:{path};do=eio,op=read,begin=1,end=2);read=1ms)")).unwrap();
    let (mut q, mut pool, mut dones) = (queue(&medium, 4), pool(), Vec::new());
    assert!(medium.faults().is_some() && medium.delays().is_some() && q.wait_fd().is_some());
    for expected in [Ok(()), Err(DeviceError::Media), Ok(())] {
        q.submit(read(pool.get(4096).unwrap(), 0, 1)).unwrap();
        q.kick();
        while q.wake_at().is_none_or(|t| t == Time(0)) {
            assert_eq!(q.poll(Time(5), &mut dones), 0);
        }
        assert_eq!(q.wake_at(), Some(Time(1_000_005)));
        assert_eq!(q.poll(Time(1_000_005), &mut dones), 1);
        assert_eq!(dones.pop().unwrap().result, expected);
    }
}

/// `POLLUX_TEST_DISK=/dev/nvme0n1 cargo test ...`: the same on a real disk, whose first MiB is lost.
#[test]
fn a_disk_named_by_the_environment() {
    let Ok(path) = std::env::var("POLLUX_TEST_DISK") else {
        eprintln!("SKIPPED: POLLUX_TEST_DISK names no disk to overwrite");
        return;
    };
    for options in ["", ",poll"] {
        let medium = open(&format!("uring:{path}{options}")).unwrap();
        let mut q = queue(&medium, 8);
        let AnyQueue::Uring(inner) = &q else { panic!("not a file") };
        println!("{path}{options}: polled {}, {:?}, {:?}", inner.ring.is_polled(), inner.ring.tier(), q.caps());
        one(&mut q, plain(OpKind::WriteZeroes, 0, SIZE as u64, 0)).result.unwrap();
        random_operations(&mut q, &mut pool(), 21);
    }
}
