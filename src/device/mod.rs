//! Things with queues that a reactor can submit to and poll. A [`Queue`] belongs to one core; several cores may each
//! hold a queue to the same medium, and must then not touch the same bytes at the same time (the volume layer gives
//! every chunk one owner, the store every slice).
//!
//! Nothing above this folder knows what the medium is. Wrappers (`fault`, `delay`) are queues around a queue.
//!
//! A [`Spec`] names a medium, [`Medium::open`] opens it once per node (on the control thread: it may block), and
//! [`Medium::queue`] makes one [`AnyQueue`] per core, which is then given to that core's reactor.

mod any;
pub mod delay;
pub mod fault;
mod file;
mod medium;
mod null;
pub mod nvme;
mod ram;
mod spec;
#[cfg(test)]
mod testing;
mod uring;

pub use any::AnyQueue;
pub use file::FileMedium;
pub use medium::{DEPTH_MAX, Medium, OpenError};
pub use null::NullQueue;
pub use nvme::{NvmeMedium, NvmeQueue, NvmeSpec};
pub use ram::{RamMedium, RamQueue};
pub use spec::{
    BLOCK_DEFAULT, Bytes, Create, FileSpec, Nanos, NullSpec, Prealloc, Problem, RamSpec, Spec, SpecError, parse_bytes,
    parse_nanos,
};
pub use uring::{UringQueue, unregistered_queues};

use crate::base::Status;
use crate::base::Time;
use crate::mem::{Buf, Pool};

/// What a device can do and promises.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caps {
    /// Bytes on the medium.
    pub size: u64,
    /// Smallest addressable unit, bytes: 512 or 4096. Offsets and lengths of I/O are multiples of it.
    pub block_size: u32,
    /// Largest single transfer, bytes.
    pub io_bytes_max: u32,
    /// Operations this queue may hold at once.
    pub depth: u32,
    /// True when an acknowledged write may be lost by a power cut until a flush has completed.
    pub volatile_cache: bool,
    /// Bytes that are written whole or not at all across a power cut (at least `block_size` on real disks; 512 assumed).
    pub atomic_bytes: u32,
    /// Write Zeroes is native: it costs about the same whatever its length. Otherwise it works too, but by writing
    /// zeroes.
    pub write_zeroes: bool,
    /// Discard is native. Otherwise it ends with [`DeviceError::Unsupported`].
    pub discard: bool,
    /// Writes are refused: Write, `WriteZeroes` and Discard end with [`DeviceError::Unsupported`].
    pub read_only: bool,
}

/// What an operation does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OpKind {
    /// Medium to buffer.
    Read,
    /// Buffer to medium.
    Write,
    /// All writes completed before this operation was submitted are durable when it completes.
    Flush,
    /// The range reads as zeroes afterwards.
    WriteZeroes,
    /// The range's content is no longer needed (what it reads as is undefined).
    Discard,
}

impl OpKind {
    /// Every kind, in the order of their numbers.
    pub const ALL: [OpKind; 5] = [OpKind::Read, OpKind::Write, OpKind::Flush, OpKind::WriteZeroes, OpKind::Discard];

    /// The word for it in specs and reports.
    pub fn name(self) -> &'static str {
        ["read", "write", "flush", "zeroes", "discard"][self as usize]
    }

    /// The kind that `name` is the word for.
    pub fn parse(name: &str) -> Option<OpKind> {
        OpKind::ALL.into_iter().find(|k| k.name() == name)
    }

    /// True for the kinds that a read-only device refuses.
    pub fn changes(self) -> bool {
        matches!(self, OpKind::Write | OpKind::WriteZeroes | OpKind::Discard)
    }
}

/// One operation. A Read or Write moves `len` bytes between `buf[at..at + len]` and the medium at `offset`; the buffer
/// belongs to the device until the [`Done`] with the same token brings it back.
#[derive(Debug)]
pub struct Op {
    /// Which operation.
    pub kind: OpKind,
    /// Byte offset on the medium.
    pub offset: u64,
    /// Bytes; 0 for Flush. May exceed `io_bytes_max` only for `WriteZeroes` and Discard.
    pub len: u64,
    /// The buffer of a Read or Write.
    pub buf: Option<Buf>,
    /// Where in `buf` the transfer starts; a multiple of the block size.
    pub at: u32,
    /// Returned in [`Done`]; means something to the submitter only.
    pub token: u64,
}

/// The end of an [`Op`].
#[derive(Debug)]
pub struct Done {
    /// The operation's token.
    pub token: u64,
    /// The operation's kind.
    pub kind: OpKind,
    /// How it ended. A Read or Write is all or error: short transfers are finished inside the device.
    pub result: Result<(), DeviceError>,
    /// The operation's buffer.
    pub buf: Option<Buf>,
}

/// Why an operation failed. Environment faults only: a bad range is a bug of the caller and asserts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DeviceError {
    /// The medium could not read or write this range.
    #[error("media error")]
    Media,
    /// The medium has no space behind this range (sparse file on a full filesystem, thin LUN).
    #[error("no space on the device")]
    NoSpace,
    /// The device is gone, or a flush failed: nothing it acknowledged since the last flush may be relied on.
    #[error("device dead")]
    Dead,
    /// The device does not do this operation.
    #[error("operation not supported by the device")]
    Unsupported,
    /// Any other error number of the operating system.
    #[error("device error {0}")]
    Os(i32),
}

impl From<DeviceError> for Status {
    fn from(e: DeviceError) -> Status {
        match e {
            DeviceError::Media | DeviceError::Os(_) => Status::MediaError,
            DeviceError::NoSpace => Status::CapacityExceeded,
            DeviceError::Dead => Status::Gone,
            DeviceError::Unsupported => Status::Unsupported,
        }
    }
}

/// Asserts what every caller of [`Queue::submit`] owes: whole blocks inside the medium, and for a Read or Write a
/// buffer that holds them at a block-aligned place, within the transfer limit.
#[inline]
pub fn check(op: &Op, caps: &Caps) {
    let mask = u64::from(caps.block_size) - 1;
    match op.kind {
        OpKind::Read | OpKind::Write => {
            let buf = op.buf.as_ref().expect("a transfer has a buffer");
            assert!(op.len != 0 && op.len <= u64::from(caps.io_bytes_max), "transfer of 1..=io_bytes_max bytes");
            assert!(u64::from(op.at) & mask == 0, "the transfer starts on a block border of the buffer");
            assert!(u64::from(op.at) + op.len <= buf.len() as u64, "the buffer holds the transfer");
        }
        OpKind::Flush => assert!(op.len == 0 && op.buf.is_none(), "a flush has neither range nor buffer"),
        OpKind::WriteZeroes | OpKind::Discard => {
            assert!(op.len != 0 && op.buf.is_none(), "a range without a buffer");
        }
    }
    assert!((op.offset | op.len) & mask == 0, "whole blocks");
    assert!(op.offset <= caps.size && op.len <= caps.size - op.offset, "inside the medium");
}

/// Asserts the same for a memory-speed access.
#[inline]
pub fn check_now(offset: u64, len: usize, caps: &Caps) {
    let mask = u64::from(caps.block_size) - 1;
    assert!((offset | len as u64) & mask == 0, "whole blocks");
    assert!(offset <= caps.size && len as u64 <= caps.size - offset, "inside the medium");
}

/// A core's way to a device. All calls come from one thread at a time: the reactor that owns the queue, from its first
/// `submit` on. (Making a queue on another thread and giving it away before that is fine.)
pub trait Queue {
    /// What the device can do; constant for the life of the queue unless the medium is resized.
    fn caps(&self) -> &Caps;
    /// Starts `op`, or gives it back when `depth` operations are under way. Completion is always reported by `poll`,
    /// even when the device is memory.
    fn submit(&mut self, op: Op) -> Result<(), Op>;
    /// Hands everything submitted so far to the device (one system call or doorbell, none when there is nothing); called
    /// at the end of every turn, and within it for what should not wait that long.
    fn kick(&mut self);
    /// Reports completions into `done`; returns how many. `now` drives delays; nothing here reads a clock.
    fn poll(&mut self, now: Time, done: &mut Vec<Done>) -> usize;
    /// Operations under way.
    fn inflight(&self) -> usize;
    /// Memory-speed read: fills `into` (whole blocks) at once and returns `Some`, or `None` when this device can not,
    /// or not now (faults in force): the way through `submit` is then still open.
    fn read_now(&mut self, offset: u64, into: &mut [u8]) -> Option<Result<(), DeviceError>> {
        let _ = (offset, into);
        None
    }
    /// Memory-speed write, likewise.
    fn write_now(&mut self, offset: u64, from: &[u8]) -> Option<Result<(), DeviceError>> {
        let _ = (offset, from);
        None
    }
    /// The earliest time at which `poll` could report something without any outside event (delays, completions that
    /// are waiting already), if any. A time in the past means now: do not sleep.
    fn wake_at(&self) -> Option<Time> {
        None
    }
    /// A file descriptor that becomes readable when `poll` will find something new, for idle sleep; asked right before
    /// each sleep. `None` while operations are under way: there is something already, or only polling can tell.
    fn wait_fd(&self) -> Option<i32> {
        None
    }
    /// Gives back every buffer still inside (used at shutdown and by tests); the device must be idle.
    fn reclaim(&mut self, pool: &mut Pool) {
        let _ = pool;
        assert_eq!(self.inflight(), 0, "reclaim on a busy device");
    }
}
