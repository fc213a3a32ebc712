//! One I/O queue pair with the buffers of its commands. A buffer given to [`Pair::submit`] stays here until the command's
//! completion brings it back, or until the pair is gone and the driver can not touch it any more.
//!
//! Where a device can not reach the buffers themselves (a vfio-user endpoint has no file to map for them; memory that
//! the IOMMU would not take), transfers go through memory of SPDK's own, at the cost of a copy.

use super::ffi::sys;
use super::ffi_controller::Handle;
use crate::mem::Buf;
use std::ptr::{NonNull, null_mut};

/// Bytes of a small bounce buffer.
const SMALL: usize = 64 << 10;
/// Small bounce buffers of a pair at most.
const SMALL_MAX: usize = 256;
/// Large bounce buffers of a pair, each for the largest transfer.
const LARGE_COUNT: usize = 4;

/// What to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Read,
    Write,
    Flush,
    Zero,
    ZeroByHand,
    Discard,
}

/// A command: `len` bytes of its buffer from `at` for the first two kinds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Command {
    pub kind: Kind,
    /// Below the pair's depth, and of no other command under way.
    pub tag: u16,
    pub lba: u64,
    pub blocks: u32,
    pub at: usize,
    pub len: usize,
}

/// Why a command was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Refused {
    /// The driver has no room; completions make some.
    Full,
    /// The pair failed.
    Failed,
    /// The command can not be built: an error number.
    Bad(i32),
}

/// A command that ended.
#[derive(Debug)]
pub(super) struct Completed {
    pub tag: u16,
    /// Status code type and code as in the shim; `None` when the pair is gone, and nobody knows.
    pub status: Option<u16>,
    pub buf: Option<Buf>,
}

/// A command under way.
#[derive(Default)]
struct Held {
    under_way: bool,
    buf: Option<Buf>,
    at: usize,
    len: usize,
    read: bool,
    bounce: Option<usize>,
}

/// A queue pair.
pub(super) struct Pair {
    raw: NonNull<sys::pollux_spdk_pair>,
    held: Vec<Held>,
    bounce: Option<Bounce>,
    /// It was given up: what is still held has to be reported.
    abandoned: bool,
}

// SAFETY: SPDK's queue pairs belong to no thread; `&mut` keeps them to one at a time.
unsafe impl Send for Pair {}

impl Pair {
    /// A pair for `depth` commands, in a driver that has `requests` of them (a large transfer takes several), connected.
    /// `transfer_max` is the largest transfer, bytes, `zero_bytes` the largest of [`Kind::ZeroByHand`]. The
    /// controller must outlive it.
    ///
    /// # Errors
    /// An error number: `ENOMEM`, or `ENXIO` when the controller has no queue left or refused it.
    pub fn new(
        handle: &Handle,
        nsid: u32,
        depth: u16,
        requests: u32,
        transfer_max: usize,
        zero_bytes: u32,
        bounce: bool,
    ) -> Result<Pair, i32> {
        let mut error = 0;
        // SAFETY: the controller is attached, and the caller keeps it so.
        let raw = unsafe {
            sys::pollux_spdk_pair_new(handle.raw(), nsid, u32::from(depth), requests, zero_bytes, &raw mut error)
        };
        let raw = NonNull::new(raw).ok_or(-error)?;
        let held = std::iter::repeat_with(Held::default).take(usize::from(depth)).collect();
        let mut pair = Pair { raw, held, bounce: None, abandoned: false };
        if bounce {
            pair.bounce = Some(Bounce::new(usize::from(depth), transfer_max).ok_or(libc::ENOMEM)?);
        }
        Ok(pair)
    }

    /// Submits `command`; takes the buffer out of `buf` when that succeeds.
    #[inline]
    pub fn submit(&mut self, command: &Command, buf: &mut Option<Buf>) -> Result<(), Refused> {
        let held = &mut self.held[usize::from(command.tag)];
        assert!(!held.under_way, "a tag is under way once");
        let (mut bounce, mut memory) = (None, null_mut());
        if let Some(buf) = buf.as_mut() {
            let bytes = &mut buf[command.at..command.at + command.len];
            memory = bytes.as_mut_ptr();
            if let Some(pool) = &mut self.bounce {
                let piece = pool.take(command.len).ok_or(Refused::Full)?;
                if command.kind == Kind::Write {
                    pool.bytes(piece, command.len).copy_from_slice(bytes);
                }
                memory = pool.bytes(piece, command.len).as_mut_ptr();
                bounce = Some(piece);
            }
        }
        let kind = match command.kind {
            Kind::Read => sys::pollux_spdk_kind_POLLUX_SPDK_READ,
            Kind::Write => sys::pollux_spdk_kind_POLLUX_SPDK_WRITE,
            Kind::Flush => sys::pollux_spdk_kind_POLLUX_SPDK_FLUSH,
            Kind::Zero => sys::pollux_spdk_kind_POLLUX_SPDK_ZERO,
            Kind::ZeroByHand => sys::pollux_spdk_kind_POLLUX_SPDK_ZERO_BY_HAND,
            Kind::Discard => sys::pollux_spdk_kind_POLLUX_SPDK_DISCARD,
        };
        assert!(!matches!(command.kind, Kind::Read | Kind::Write) || !memory.is_null(), "a transfer has a buffer");
        // SAFETY: the tag is below the depth, or `held` would have no place for it; the memory is part of a buffer that
        // is kept below until the completion, or of the pair's bounce memory, and has the length of the transfer.
        let result = unsafe {
            sys::pollux_spdk_submit(self.raw.as_ptr(), kind, command.tag, memory.cast(), command.lba, command.blocks)
        };
        if result == 0 {
            let read = command.kind == Kind::Read;
            *held = Held { under_way: true, buf: buf.take(), at: command.at, len: command.len, read, bounce };
            return Ok(());
        }
        if let (Some(pool), Some(piece)) = (&mut self.bounce, bounce) {
            pool.give(piece);
        }
        Err(match -result {
            libc::ENOMEM | libc::EAGAIN => Refused::Full,
            libc::ENXIO | libc::ENODEV => Refused::Failed,
            errno => Refused::Bad(errno),
        })
    }

    /// Hands what was submitted to the device and moves completions to `completed`. False when the pair failed; what
    /// is under way is then reported once it is reconnected or abandoned. An abandoned pair has nothing more to say.
    #[inline]
    pub fn poll(&mut self, completed: &mut Vec<Completed>) -> bool {
        // SAFETY: the pair is valid while this lives.
        let result = unsafe { sys::pollux_spdk_poll(self.raw.as_ptr()) };
        self.collect(completed);
        result >= 0 || self.abandoned
    }

    /// Moves completions to `completed` without asking the device.
    #[inline]
    pub fn collect(&mut self, completed: &mut Vec<Completed>) {
        // SAFETY: the pair is valid, and nobody else touches it during this call; `done` has `done_count` entries.
        let done = unsafe {
            let raw = self.raw.as_mut();
            std::slice::from_raw_parts(raw.done, std::mem::take(&mut raw.done_count) as usize)
        };
        for entry in done {
            let held = std::mem::take(&mut self.held[usize::from(entry.tag)]);
            completed.push(finish(held, &mut self.bounce, entry.tag, Some(entry.status)));
        }
        if self.abandoned {
            for (tag, held) in self.held.iter_mut().enumerate().filter(|(_, held)| held.under_way) {
                completed.push(finish(std::mem::take(held), &mut self.bounce, tag as u16, None));
            }
        }
    }

    /// Takes the pair away from its controller; what was under way ends as aborted.
    pub fn close(&mut self) {
        // SAFETY: the pair is valid while this lives.
        unsafe { sys::pollux_spdk_pair_close(self.raw.as_ptr()) };
    }

    /// Connects it again, and looks the namespace up. False when either fails. Blocks for seconds at most.
    pub fn reconnect(&mut self) -> bool {
        // SAFETY: the pair is valid while this lives, and its queue pair is one of its controller's, or none.
        unsafe {
            let qpair = self.raw.as_ref().qpair;
            if qpair.is_null() {
                return sys::pollux_spdk_pair_open(self.raw.as_ptr()) == 0;
            }
            sys::spdk_nvme_ctrlr_reconnect_io_qpair(qpair) == 0 && sys::pollux_spdk_pair_renew(self.raw.as_ptr())
        }
    }

    /// Gives the pair up for good; all that is under way is reported by the next [`Pair::collect`].
    pub fn abandon(&mut self) {
        self.close();
        self.abandoned = true;
    }
}

/// What is told of a command that ended; a read through bounce memory is copied to where it belongs.
#[inline]
fn finish(mut held: Held, pool: &mut Option<Bounce>, tag: u16, status: Option<u16>) -> Completed {
    assert!(held.under_way, "a completion belongs to a command");
    if let (Some(pool), Some(piece)) = (pool, held.bounce) {
        if let (Some(buf), true) = (&mut held.buf, held.read) {
            buf[held.at..held.at + held.len].copy_from_slice(pool.bytes(piece, held.len));
        }
        pool.give(piece);
    }
    Completed { tag, status, buf: held.buf }
}

impl Drop for Pair {
    fn drop(&mut self) {
        // A pair that was abandoned with a controller that does not answer may still be known to the driver or the
        // device: its table of tags and its bounce memory are left to them.
        if self.abandoned {
            std::mem::forget(self.bounce.take());
            return;
        }
        // SAFETY: the pair is valid and nobody has it after this. The driver lets go of the buffers before it returns.
        unsafe { sys::pollux_spdk_pair_free(self.raw.as_ptr()) };
    }
}

/// Memory that the device reaches, in pieces of two sizes.
struct Bounce {
    memory: NonNull<u8>,
    small: usize,
    large_bytes: usize,
    free_small: Vec<usize>,
    free_large: Vec<usize>,
}

impl Bounce {
    fn new(depth: usize, transfer_max: usize) -> Option<Bounce> {
        let small = depth.min(SMALL_MAX);
        let bytes = small * SMALL + LARGE_COUNT * transfer_max;
        // SAFETY: a plain allocation; the environment was started, or there were no controller.
        let memory = unsafe {
            sys::spdk_zmalloc(bytes, 4096, null_mut(), sys::SPDK_ENV_NUMA_ID_ANY, sys::SPDK_MALLOC_DMA).cast::<u8>()
        };
        let free_small = (0..small).rev().collect();
        let free_large = (small..small + LARGE_COUNT).rev().collect();
        Some(Bounce { memory: NonNull::new(memory)?, small, large_bytes: transfer_max, free_small, free_large })
    }

    fn take(&mut self, len: usize) -> Option<usize> {
        assert!(len <= self.large_bytes.max(SMALL), "no transfer is larger than the largest");
        if len <= SMALL { self.free_small.pop() } else { None }.or_else(|| self.free_large.pop())
    }

    fn give(&mut self, piece: usize) {
        if piece < self.small { self.free_small.push(piece) } else { self.free_large.push(piece) }
    }

    fn bytes(&mut self, piece: usize, len: usize) -> &mut [u8] {
        let large = piece.saturating_sub(self.small);
        let (at, room) = if piece < self.small {
            (piece * SMALL, SMALL)
        } else {
            (self.small * SMALL + large * self.large_bytes, self.large_bytes)
        };
        assert!(len <= room && large < LARGE_COUNT, "inside the piece");
        // SAFETY: the piece is part of the memory, which was zeroed; `&mut self` makes the access exclusive among ours,
        // and the device touches a piece only while its command is under way.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_ptr().add(at), len) }
    }
}

impl Drop for Bounce {
    fn drop(&mut self) {
        // SAFETY: from spdk_zmalloc, and dropped after its pair's commands ended.
        unsafe { sys::spdk_free(self.memory.as_ptr().cast()) };
    }
}
