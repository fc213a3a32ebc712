//! What a target asks of a volume and what it gets back.

use crate::base::{Status, VolumeId};
use crate::mem::{Buf, Pool};
pub use crate::repl::{Kind, Payload};

/// One request. `lba` and `blocks` count logical blocks of the volume ([`Info::block_size`]).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    /// Which volume.
    pub volume: VolumeId,
    /// What to do.
    pub kind: Kind,
    /// First logical block.
    pub lba: u64,
    /// How many; 0 only for Flush. Read, Write and Compare: at most `IO_BYTES_MAX` bytes in all.
    pub blocks: u32,
    /// Write: durable on completion even when the volume has a volatile cache (NVMe FUA, SCSI FUA).
    pub fua: bool,
    /// The submitter's name for the request; comes back in [`Completion::tag`].
    pub tag: u64,
}

/// The end of a request.
#[derive(Debug)]
pub struct Completion {
    /// [`Request::tag`].
    pub tag: u64,
    /// How it ended.
    pub status: Status,
    /// A Read's data (exactly the requested bytes). The receiver sends or returns it to the pool.
    pub buf: Option<Buf>,
}

/// What became of a submission.
#[derive(Debug)]
pub enum Submit {
    /// Ended at once.
    Done(Completion),
    /// Ends later, through `drain`.
    Pending,
    /// Buffers or slots are short; nothing was started. The caller keeps the request (an `Owned` payload is handed
    /// back) and tries again next turn.
    Later(Option<Buf>),
}

/// What a target must know of a volume.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Info {
    /// Its id.
    pub id: VolumeId,
    /// Bytes per logical block: 512 or 4096.
    pub block_size: u32,
    /// Logical blocks.
    pub blocks: u64,
    /// Stable identity, also the default NGUID/UUID descriptor of a namespace.
    pub uuid: [u8; 16],
    /// Space is allocated on write and can be given back.
    pub thin: bool,
    /// Writes are refused.
    pub read_only: bool,
    /// A completed write may be lost by a power cut until a Flush completes (raw devices only; never a log store).
    pub volatile_cache: bool,
}

/// What a target needs of the volumes: implemented by [`super::Front`], and by small models in tests.
pub trait Volumes {
    /// The volume as it is now; `None` once it is gone.
    fn info(&self, volume: VolumeId) -> Option<&Info>;
    /// Starts a request. Ranges are checked here: a target need not.
    fn submit(&mut self, request: Request, payload: Payload<'_>, pool: &mut Pool) -> Submit;
}
