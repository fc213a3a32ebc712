//! Things with queues that a reactor can submit to and poll. A [`Queue`] belongs to one core; several cores may each
//! hold a queue to the same medium, and must then not touch the same bytes at the same time (the volume layer gives
//! every chunk one owner, the store every slice).
//!
//! Nothing above this folder knows what the medium is. Wrappers (`fault`, `delay`) are queues around a queue.

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
    /// Write Zeroes is native.
    pub write_zeroes: bool,
    /// Discard is native.
    pub discard: bool,
    /// Writes are refused.
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

/// One operation. A Read or Write moves `len` bytes between `buf[at..at + len]` and the medium at `offset`; the buffer
/// belongs to the device until the [`Done`] with the same token brings it back.
#[derive(Debug)]
pub struct Op {
    /// Which operation.
    pub kind: OpKind,
    /// Byte offset on the medium.
    pub offset: u64,
    /// Bytes; 0 for Flush. May exceed `io_bytes_max` only for WriteZeroes and Discard.
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

/// A core's way to a device.
pub trait Queue {
    /// What the device can do; constant for the life of the queue unless the medium is resized.
    fn caps(&self) -> &Caps;
    /// Starts `op`, or gives it back when `depth` operations are under way. Completion is always reported by `poll`,
    /// even when the device is memory.
    fn submit(&mut self, op: Op) -> Result<(), Op>;
    /// Hands everything submitted this turn to the device (one system call or doorbell); called once per turn.
    fn kick(&mut self);
    /// Reports completions into `done`; returns how many. `now` drives delays; nothing here reads a clock.
    fn poll(&mut self, now: Time, done: &mut Vec<Done>) -> usize;
    /// Operations under way.
    fn inflight(&self) -> usize;
    /// Memory-speed read: fills `into` at once and returns `Some`, or `None` when this device can not.
    fn read_now(&mut self, offset: u64, into: &mut [u8]) -> Option<Result<(), DeviceError>> {
        let _ = (offset, into);
        None
    }
    /// Memory-speed write, likewise.
    fn write_now(&mut self, offset: u64, from: &[u8]) -> Option<Result<(), DeviceError>> {
        let _ = (offset, from);
        None
    }
    /// The earliest time at which `poll` could report something without any outside event (delays), if any.
    fn wake_at(&self) -> Option<Time> {
        None
    }
    /// A file descriptor that becomes readable when `poll` would report something, for idle sleep; `None` when the
    /// device never completes outside `submit` and `wake_at`.
    fn wait_fd(&self) -> Option<i32> {
        None
    }
    /// Gives back every buffer still inside (used at shutdown and by tests); the device must be idle.
    fn reclaim(&mut self, pool: &mut Pool) {
        let _ = pool;
        assert_eq!(self.inflight(), 0, "reclaim on a busy device");
    }
}
