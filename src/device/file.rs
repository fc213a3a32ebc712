//! A regular file or block device as a medium: found, checked, locked and probed once per node; [`UringQueue`]
//! (one per core) then moves the bytes.
//!
//! What stays true:
//! - One process at a time writes it. The lock is held by a file that every ring has registered too, so it outlives a
//!   killed process until the last of its writes has landed: a restarted node can not be overtaken by them.
//! - Every queue opens its own file description. The kernel reports a failed writeback once per description, so no
//!   core's flush can swallow the error that another core's flush must see.
//! - A failed flush marks the medium dead for all queues and for ever: after it the kernel may take lost pages for
//!   clean ones, and a second flush would succeed without having written anything.
//!
//! [`UringQueue`]: super::UringQueue

mod facts;
mod make;

use super::{Caps, FileSpec, OpenError, Prealloc};
use facts::Facts;
use rustix::fs::{FallocateFlags, FlockOperation};
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long to wait for the last writes of a killed process, which hold the lock until they have landed.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
/// Largest single transfer.
const IO_BYTES_MAX: u32 = 4 << 20;
/// Filesystems that are memory: they take `O_DIRECT` on recent kernels, and use their page cache all the same.
const MEMORY_FILESYSTEMS: [i64; 2] = [0x0102_1994, 0x8584_58f6];

/// How a range is made to read as zeroes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Zeroing {
    /// `FALLOC_FL_PUNCH_HOLE`: the space is given back.
    Punch,
    /// `FALLOC_FL_ZERO_RANGE`: the space stays.
    ZeroRange,
    /// Zeroes are written.
    Write,
}

/// An open file or block device, shared by the queues of all cores.
#[derive(Debug)]
pub struct FileMedium {
    spec: FileSpec,
    /// Holds the lock; the node's reference for size and identity.
    file: File,
    facts: Facts,
    block_size: u32,
    direct: bool,
    zeroing: Zeroing,
    discard: bool,
    size: AtomicU64,
    dead: AtomicBool,
}

impl FileMedium {
    /// Opens, and first makes or grows the file where the spec says so; `progress(done, total)` in bytes.
    pub fn open(spec: &FileSpec, progress: &mut dyn FnMut(u64, u64)) -> Result<FileMedium, OpenError> {
        let at = |what| move |source| OpenError::file(what, &spec.path, source);
        let is_block = match std::fs::metadata(&spec.path) {
            Ok(meta) if meta.file_type().is_block_device() && spec.create.is_none() => true,
            Ok(meta) if meta.is_file() => false,
            Ok(_) => return Err(OpenError::NotStorage { path: spec.path.clone(), create: spec.create.is_some() }),
            Err(e) if e.kind() == io::ErrorKind::NotFound && spec.create.is_some() => false,
            Err(e) => return Err(at("open")(e)),
        };
        let (file, direct) = open_locked(spec, is_block)?;
        if let Some(create) = spec.create {
            make::make(&file, &spec.path, create, progress)?;
        }
        let facts = Facts::of(&file, is_block).map_err(at("examine"))?;
        let block_size = match spec.block {
            Some(asked) if asked < facts.logical_block => {
                return Err(OpenError::BlockSize { path: spec.path.clone(), asked, least: facts.logical_block });
            }
            Some(asked) => asked,
            None if is_block && facts.logical_block <= super::BLOCK_DEFAULT => facts.logical_block,
            None if is_block => {
                let (asked, least) = (super::BLOCK_DEFAULT, facts.logical_block);
                return Err(OpenError::BlockSize { path: spec.path.clone(), asked, least });
            }
            None => super::BLOCK_DEFAULT,
        };
        let size = whole_blocks(&file, &spec.path, block_size)?;
        if direct {
            probe_alignment(&file, &spec.path, block_size, size)?;
        }
        let (zeroing, discard) = zeroing(spec, &file, &facts, is_block, size);
        if spec.poll && !(direct && facts.io_poll) {
            tracing::warn!(path = %spec.path.display(), "the device offers no polled completion: it interrupts");
        }
        let (size, dead) = (AtomicU64::new(size), AtomicBool::new(false));
        Ok(FileMedium { spec: spec.clone(), file, facts, block_size, direct, zeroing, discard, size, dead })
    }

    /// A medium over any file that claims to have `size` bytes, to meet errors that no disk gives at will.
    #[cfg(test)]
    pub(super) fn unchecked(path: &str, size: u64) -> FileMedium {
        let spec = FileSpec { buffered: true, ..FileSpec::new(path) };
        let file = options(&spec, false, 0).open(path).unwrap();
        let facts = Facts::of(&file, false).unwrap();
        let (size, dead) = (AtomicU64::new(size), AtomicBool::new(false));
        let zeroing = Zeroing::Punch;
        FileMedium { spec, file, facts, block_size: 512, direct: false, zeroing, discard: true, size, dead }
    }

    /// What a queue of `depth` operations to it can do.
    pub fn caps(&self, depth: u32) -> Caps {
        Caps {
            size: self.size(),
            block_size: self.block_size,
            io_bytes_max: IO_BYTES_MAX,
            depth,
            // A write to a file is not durable before fdatasync even with O_DIRECT: the file's metadata and the
            // device's cache are still behind it.
            volatile_cache: !self.spec.read_only && !self.spec.dsync && self.facts.volatile_cache,
            atomic_bytes: self.facts.atomic_bytes,
            write_zeroes: self.zeroing != Zeroing::Write && self.facts.write_zeroes,
            discard: self.discard,
            read_only: self.spec.read_only,
        }
    }

    /// Looks at the medium's size again. A medium that grew shows it in every queue's caps from its next poll on.
    ///
    /// # Errors
    /// [`OpenError::Shrunk`] when it is smaller now: what is beyond the end is lost, and its owners must learn it as
    /// failing I/O, not as a smaller device.
    pub fn rescan(&self) -> Result<u64, OpenError> {
        let size = whole_blocks(&self.file, &self.spec.path, self.block_size)?;
        let was = self.size.fetch_max(size, Ordering::Relaxed);
        if size < was {
            return Err(OpenError::Shrunk { path: self.spec.path.clone(), was, now: size });
        }
        Ok(size)
    }

    /// A file description of its own for one queue.
    pub(super) fn reopen(&self) -> Result<File, OpenError> {
        let at = |what| move |source| OpenError::file(what, &self.spec.path, source);
        let file = options(&self.spec, self.direct, 0).open(&self.spec.path).map_err(at("open again"))?;
        let (mine, its) = (self.file.metadata().map_err(at("stat"))?, file.metadata().map_err(at("stat"))?);
        if (mine.dev(), mine.ino(), mine.rdev()) != (its.dev(), its.ino(), its.rdev()) {
            return Err(OpenError::Replaced { path: self.spec.path.clone() });
        }
        Ok(file)
    }

    /// The description that holds the lock.
    pub(super) fn lock(&self) -> &File {
        &self.file
    }
    pub(super) fn zeroing(&self) -> Zeroing {
        self.zeroing
    }
    pub(super) fn size(&self) -> u64 {
        self.size.load(Ordering::Relaxed)
    }
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.spec.path
    }
    /// True when transfers bypass the page cache.
    pub fn is_direct(&self) -> bool {
        self.direct
    }
    /// True when every completed write is durable by `O_DSYNC`.
    pub fn is_dsync(&self) -> bool {
        self.spec.dsync
    }
    pub(super) fn may_poll(&self) -> bool {
        self.direct && self.facts.io_poll && self.spec.poll
    }
    /// True once a flush failed or the device went away.
    pub fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Relaxed)
    }
    pub(super) fn kill(&self) {
        self.dead.store(true, Ordering::Relaxed);
    }
}

fn options(spec: &FileSpec, direct: bool, extra: i32) -> OpenOptions {
    let mut flags = libc::O_CLOEXEC | extra;
    flags |= if direct { libc::O_DIRECT } else { 0 };
    flags |= if spec.dsync { libc::O_DSYNC } else { 0 };
    let mut options = OpenOptions::new();
    options.read(true).write(!spec.read_only).custom_flags(flags).mode(0o600);
    options.create(spec.create.is_some());
    options
}

/// Opens and locks; returns whether `O_DIRECT` is on.
fn open_locked(spec: &FileSpec, is_block: bool) -> Result<(File, bool), OpenError> {
    // On a block device O_EXCL refuses one that is mounted or part of another device.
    let claim = if is_block && !spec.read_only { libc::O_EXCL } else { 0 };
    let deadline = Instant::now() + LOCK_PATIENCE;
    let mut direct = !spec.buffered;
    loop {
        let (what, error) = match options(spec, direct, claim).open(&spec.path) {
            Ok(file) => {
                let lock = if spec.read_only {
                    FlockOperation::NonBlockingLockShared
                } else {
                    FlockOperation::NonBlockingLockExclusive
                };
                match rustix::fs::flock(&file, lock) {
                    Ok(()) => {
                        // A device node lies on a filesystem that is memory; the device does not.
                        let direct = direct && (is_block || !in_memory(spec, &file));
                        return Ok((file, direct));
                    }
                    Err(e) => ("lock", io::Error::from(e)),
                }
            }
            Err(e) if direct && e.raw_os_error() == Some(libc::EINVAL) => {
                tell_buffered(spec);
                direct = false;
                continue;
            }
            Err(e) => ("open", e),
        };
        if !matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EWOULDBLOCK)) {
            return Err(OpenError::file(what, &spec.path, error));
        }
        if Instant::now() >= deadline {
            return Err(OpenError::InUse { path: spec.path.clone() });
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn tell_buffered(spec: &FileSpec) {
    tracing::warn!(
        path = %spec.path.display(),
        "the filesystem refuses O_DIRECT: using buffered I/O, which copies every byte once more and is durable only \
         after a flush"
    );
}

/// True on a filesystem that is memory: direct I/O means nothing there, even where the flag is taken.
fn in_memory(spec: &FileSpec, file: &File) -> bool {
    let memory = rustix::fs::fstatfs(file).is_ok_and(|s| MEMORY_FILESYSTEMS.contains(&s.f_type));
    if memory && !spec.buffered {
        tracing::warn!(
            path = %spec.path.display(),
            "the filesystem is memory: buffered I/O instead of O_DIRECT, and nothing on it outlives the machine"
        );
    }
    memory
}

/// The size in whole blocks.
fn whole_blocks(file: &File, path: &Path, block_size: u32) -> Result<u64, OpenError> {
    // The end of a block device is its size too, which its metadata does not tell.
    let end = (&*file).seek(SeekFrom::End(0)).map_err(|e| OpenError::file("find the size", path, e))?;
    let size = end / u64::from(block_size) * u64::from(block_size);
    if size == 0 { Err(OpenError::Empty { path: path.to_owned(), block_size }) } else { Ok(size) }
}

/// Reads one block the way transfers will be aligned at worst: block-aligned in the file and in memory, no more.
fn probe_alignment(file: &File, path: &Path, block_size: u32, size: u64) -> Result<(), OpenError> {
    let block = block_size as usize;
    let mut memory = vec![0u8; 4096 * 2 + block];
    let start = memory.as_ptr().align_offset(4096) + block % 4096;
    let offset = if size > u64::from(block_size) { u64::from(block_size) } else { 0 };
    match file.read_at(&mut memory[start..][..block], offset) {
        Ok(_) => Ok(()),
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {
            Err(OpenError::BlockSize { path: path.to_owned(), asked: block_size, least: 4096.max(block_size + 1) })
        }
        // An unreadable block is a matter for whoever reads it.
        Err(e) if e.raw_os_error() == Some(libc::EIO) => Ok(()),
        Err(e) => Err(OpenError::file("read", path, e)),
    }
}

/// How zeroes are made and whether discards are passed on.
fn zeroing(spec: &FileSpec, file: &File, facts: &Facts, is_block: bool, size: u64) -> (Zeroing, bool) {
    if spec.read_only {
        return (Zeroing::Write, false);
    }
    if is_block {
        return (Zeroing::ZeroRange, facts.discard);
    }
    match spec.create.map(|c| c.prealloc) {
        // Both give up what preallocation bought: blocks that are written in place.
        Some(Prealloc::Zero) => return (Zeroing::Write, false),
        Some(Prealloc::Fallocate) => return (Zeroing::ZeroRange, false),
        Some(Prealloc::Sparse) | None => {}
    }
    // A hole punched beyond the end changes nothing and tells whether holes can be punched.
    let beyond = size.next_multiple_of(1 << 20).saturating_add(1 << 20);
    let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    if rustix::fs::fallocate(file, mode, beyond, 4096).is_err() {
        return (Zeroing::Write, false);
    }
    // A file with space behind all of it was made so on purpose: zeroes keep the space, only discards give it back.
    let allocated = file.metadata().map_or(0, |m| m.blocks().saturating_mul(512));
    (if allocated >= size { Zeroing::ZeroRange } else { Zeroing::Punch }, true)
}

#[cfg(test)]
mod tests;
