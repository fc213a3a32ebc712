use super::*;
use crate::base::CoreId;
use crate::device::testing::{Loop, Mount, drain, open, plain, pool, read, write};
use crate::device::{DeviceError, Medium, OpKind, Queue};
use std::time::Instant;

fn file(len: u64) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    File::create(&path).unwrap().set_len(len).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (dir, path)
}

fn refused(spec: &str) -> OpenError {
    open(spec).expect_err(spec)
}

#[test]
fn a_file_is_measured_in_whole_blocks_and_flushes_matter() {
    let (_dir, path) = file((1 << 20) + 4095);
    let caps = open(&format!("uring:{path}")).unwrap().caps();
    assert_eq!((caps.size, caps.block_size, caps.atomic_bytes), (1 << 20, 4096, 512));
    assert!(caps.volatile_cache && caps.write_zeroes && caps.discard && !caps.read_only);
    let caps = open(&format!("uring:{path},bs=512,dsync")).unwrap().caps();
    assert_eq!((caps.size, caps.block_size, caps.volatile_cache), ((1 << 20) + 3584, 512, false));
    let caps = open(&format!("uring:{path},readonly")).unwrap().caps();
    assert!(caps.read_only && !caps.discard && !caps.write_zeroes && !caps.volatile_cache);
}

#[test]
fn what_is_no_disk_is_refused() {
    let (dir, path) = file(4095);
    assert!(matches!(refused(&format!("uring:{path}")), OpenError::Empty { block_size: 4096, .. }));
    assert!(matches!(refused("uring:/tmp"), OpenError::NotStorage { create: false, .. }));
    assert!(matches!(refused("uring:/dev/null"), OpenError::NotStorage { .. }));
    assert!(matches!(refused("file:/dev/null,size=4096"), OpenError::NotStorage { create: true, .. }));
    let missing = refused(&format!("uring:{}/missing", dir.path().display()));
    assert!(missing.to_string().ends_with("missing: open: No such file or directory (os error 2)"), "{missing}");
    let (_dir, path) = file(1 << 20);
    let medium = open(&format!("uring:{path}")).unwrap();
    assert!(matches!(medium.queue(CoreId(0), 0, &[]), Err(OpenError::Depth(0))));
    assert!(matches!(medium.queue(CoreId(0), 5000, &[]), Err(OpenError::Depth(5000))));
}

#[test]
fn one_writer_at_a_time_and_a_patient_successor() {
    let (_dir, path) = file(1 << 20);
    let spec = format!("uring:{path}");
    let readonly = format!("uring:{path},readonly");
    let (a, b) = (open(&readonly).unwrap(), open(&readonly).unwrap());
    assert!(matches!(refused(&spec), OpenError::InUse { .. }));
    drop((a, b));
    let first = open(&spec).unwrap();
    let queue = first.queue(CoreId(0), 4, &[]).unwrap();
    let successor = std::thread::spawn(move || {
        let start = Instant::now();
        open(&spec).map(|_| start.elapsed())
    });
    drop(first);
    std::thread::sleep(Duration::from_millis(200));
    drop(queue);
    let waited = successor.join().unwrap().unwrap();
    assert!(waited >= Duration::from_millis(150), "the queue held the lock: {waited:?}");
}

#[test]
fn a_grown_file_shows_in_every_queue_and_a_shrunk_one_is_an_error() {
    let (_dir, path) = file(1 << 20);
    let medium = open(&format!("uring:{path}")).unwrap();
    let mut q = medium.queue(CoreId(0), 4, &[]).unwrap();
    let outside = OpenOptions::new().write(true).open(&path).unwrap();
    outside.set_len(2 << 20).unwrap();
    assert_eq!(q.caps().size, 1 << 20);
    assert_eq!(medium.rescan().unwrap(), 2 << 20);
    q.poll(crate::base::Time(0), &mut Vec::new());
    assert_eq!((q.caps().size, medium.caps().size), (2 << 20, 2 << 20));
    outside.set_len(4096).unwrap();
    assert!(matches!(medium.rescan(), Err(OpenError::Shrunk { was: 0x20_0000, now: 4096, .. })));
    assert_eq!(medium.caps().size, 2 << 20);
}

#[test]
fn a_queue_never_opens_another_file() {
    let (dir, path) = file(1 << 20);
    let medium = open(&format!("uring:{path}")).unwrap();
    let other = dir.path().join("other");
    File::create(&other).unwrap().set_len(1 << 20).unwrap();
    std::fs::rename(&other, &path).unwrap();
    assert!(matches!(medium.queue(CoreId(0), 4, &[]), Err(OpenError::Replaced { .. })));
}

/// Where `file` first has no data, from 0.
fn first_hole(path: &Path) -> u64 {
    rustix::fs::seek(File::open(path).unwrap(), rustix::fs::SeekFrom::Hole(0)).unwrap()
}

#[test]
fn files_are_made_and_grown_but_never_cut() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new, with%odd (name)");
    let mut spec = FileSpec::new(&path);
    spec.create = Some(crate::device::Create { size: 1 << 20, prealloc: Prealloc::Sparse });
    let line = spec.to_string();
    assert_eq!(open(&line).unwrap().caps().size, 1 << 20);
    assert_eq!((path.metadata().unwrap().blocks(), path.metadata().unwrap().mode() & 0o777), (0, 0o600));
    let line = line.replace("size=1MiB", "size=3MiB,prealloc=fallocate");
    assert_eq!(open(&line).unwrap().caps().size, 3 << 20);
    assert!(path.metadata().unwrap().blocks() * 512 >= 3 << 20);
    assert_eq!(first_hole(&path), 0, "space, but no data");
    let error = refused(&line.replace("size=3MiB", "size=2MiB"));
    assert!(matches!(error, OpenError::Larger { has: 0x30_0000, asked: 0x20_0000, .. }));
    assert_eq!(path.metadata().unwrap().len(), 3 << 20);
}

#[test]
fn preallocation_fills_holes_and_only_holes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    // Data in the middle and a last block cut in two: the length is no multiple of anything.
    let old = OpenOptions::new().write(true).read(true).create_new(true).open(&path).unwrap();
    old.set_len((1 << 20) + 1000).unwrap();
    old.write_all_at(&[7; 8192], 512 << 10).unwrap();
    old.write_all_at(&[8; 1000], 1 << 20).unwrap();
    old.sync_all().unwrap();
    let mut told = Vec::new();
    let spec = format!("file:{},size=4MiB,prealloc,bs=512", path.display()).parse().unwrap();
    let medium = Medium::open_with(&spec, &mut |done, total| told.push((done, total))).unwrap();
    assert!(!medium.caps().discard && !medium.caps().write_zeroes, "blocks stay where they are");
    assert_eq!(told.last(), Some(&(4 << 20, 4 << 20)));
    assert!(told.is_sorted());
    assert_eq!(first_hole(&path), 4 << 20);
    let content = std::fs::read(&path).unwrap();
    let mut expected = vec![0; 4 << 20];
    expected[512 << 10..][..8192].fill(7);
    expected[1 << 20..][..1000].fill(8);
    assert!(content == expected);
    drop(medium);
    told.clear();
    Medium::open_with(&spec, &mut |done, total| told.push((done, total))).unwrap();
    assert_eq!(told, [], "nothing is left to do");
}

/// Writes, reads back, zeroes, discards and flushes on a fresh queue.
fn exercise(medium: &Medium) {
    let (mut q, mut pool) = (medium.queue(CoreId(0), 8, &[]).unwrap(), pool());
    let block = q.caps().block_size as usize;
    for token in 0..8u64 {
        let mut buf = pool.get(block).unwrap();
        buf.fill(token as u8 + 1);
        q.submit(write(buf, token * block as u64, token)).unwrap();
    }
    assert!(drain(&mut q).iter().all(|d| d.result == Ok(())));
    q.submit(plain(OpKind::Flush, 0, 0, 8)).unwrap();
    q.submit(plain(OpKind::WriteZeroes, block as u64, 2 * block as u64, 9)).unwrap();
    q.submit(plain(OpKind::Discard, 6 * block as u64, block as u64, 10)).unwrap();
    let discard = if q.caps().discard { Ok(()) } else { Err(DeviceError::Unsupported) };
    for done in drain(&mut q) {
        assert_eq!(done.result, if done.kind == OpKind::Discard { discard } else { Ok(()) }, "{:?}", done.kind);
    }
    for (n, byte) in [(0u64, 1u8), (1, 0), (2, 0), (3, 4), (5, 6), (7, 8)] {
        q.submit(read(pool.get(block).unwrap(), n * block as u64, 0)).unwrap();
        let done = drain(&mut q).pop().unwrap();
        assert!(done.result == Ok(()) && done.buf.unwrap().iter().all(|b| *b == byte), "block {n}");
    }
}

#[test]
fn memory_filesystems_are_buffered() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let medium = open(&format!("file:{}/disk,size=1MiB,bs=512", dir.path().display())).unwrap();
    assert!(!medium.file().unwrap().is_direct() && medium.caps().volatile_cache);
    exercise(&medium);
}

#[test]
fn a_filesystem_that_refuses_direct_io_is_buffered() {
    let Some(mount) = Mount::new("ramfs", "mode=700") else { return };
    let medium = open(&format!("file:{}/disk,size=1MiB", mount.path().display())).unwrap();
    assert!(!medium.file().unwrap().is_direct() && medium.caps().volatile_cache);
    exercise(&medium);
}

#[test]
fn direct_and_buffered_files_and_their_dsync() {
    for options in ["", ",bs=512", ",buffered", ",dsync", ",buffered,dsync"] {
        let (_dir, path) = file(1 << 20);
        let medium = open(&format!("uring:{path}{options}")).unwrap();
        let direct = !options.contains("buffered") && !in_memory(&FileSpec::new(&path), &File::open(&path).unwrap());
        assert_eq!(medium.file().unwrap().is_direct(), direct);
        exercise(&medium);
    }
    let dir = tempfile::tempdir().unwrap();
    for prealloc in ["prealloc", "prealloc=fallocate", "prealloc,dsync"] {
        exercise(
            &open(
                &format!("file:{}/{prealloc},size=1MiB,{prealloc}", dir.path().display())
                    .replace("/prealloc,dsync,", "/both,"),
            )
            .unwrap(),
        );
    }
}

#[test]
fn a_block_device_tells_what_it_is() {
    let (_dir, path) = file(8 << 20);
    let Some(disk) = Loop::new(Path::new(&path), 512) else { return };
    {
        let medium = open(&format!("uring:{}", disk.path())).unwrap();
        let caps = medium.caps();
        assert_eq!((caps.size, caps.block_size, caps.atomic_bytes), (8 << 20, 512, 512));
        assert!(caps.volatile_cache, "loop devices have a write-back cache");
        assert!(medium.file().unwrap().is_direct(), "whatever filesystem the node lies on");
        exercise(&medium);
        assert!(matches!(refused(&format!("uring:{}", disk.path())), OpenError::InUse { .. }));
    }
    exercise(&open(&format!("uring:{},bs=4096,dsync", disk.path())).unwrap());
}

#[test]
fn a_block_size_below_the_device_s_is_refused() {
    let (_dir, path) = file(8 << 20);
    let Some(disk) = Loop::new(Path::new(&path), 4096) else { return };
    let error = refused(&format!("uring:{},bs=512", disk.path()));
    assert!(matches!(error, OpenError::BlockSize { asked: 512, least: 4096, .. }), "{error}");
    let medium = open(&format!("uring:{}", disk.path())).unwrap();
    assert_eq!(medium.caps().block_size, 4096);
    exercise(&medium);
}

#[test]
fn a_full_filesystem_fails_the_preallocation() {
    let Some(mount) = Mount::new("tmpfs", "size=1m") else { return };
    let error = refused(&format!("file:{}/disk,size=8MiB,prealloc", mount.path().display()));
    assert!(error.to_string().contains("preallocate: No space left on device"), "{error}");
}
