//! What a target asks of a volume and what it gets back.

use super::Reservations;
use crate::base::limits::COMPARE_WRITE_BYTES_MAX;
use crate::base::{Status, VolumeId};
use crate::mem::{Buf, Pool};
pub use crate::repl::{Detail, Kind, Payload, Run};

/// One request. `lba` and `blocks` count logical blocks of the volume ([`Info::block_size`]).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    /// Which volume.
    pub volume: VolumeId,
    /// What to do.
    pub kind: Kind,
    /// First logical block.
    pub lba: u64,
    /// How many; 0 only for Flush. Read, Write and Compare: at most `IO_BYTES_MAX` bytes in all; `CompareWrite`: at most
    /// [`Info::compare_write_blocks`]; `BlockStatus`: how many the submitter cares to know of.
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
    /// Where a Compare or `CompareWrite` differs; the run that a `BlockStatus` found.
    pub detail: Detail,
    /// A Read's data (exactly the requested bytes). The receiver sends or returns it to the pool.
    pub buf: Option<Buf>,
}

impl Completion {
    /// An end with nothing more to say.
    pub fn plain(tag: u64, status: Status, buf: Option<Buf>) -> Completion {
        Completion { tag, status, detail: Detail::NONE, buf }
    }
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
    /// Logical blocks that a Write changes as one, at least 1: after a crash, and for a Read that runs at the same time,
    /// they are all old or all new. Holds for ranges that start at a multiple of it.
    pub atomic_blocks: u32,
}

impl Info {
    /// Most blocks of one `CompareWrite`: MAXIMUM COMPARE AND WRITE LENGTH (SBC-4 6.6.4), at least 1.
    pub fn compare_write_blocks(&self) -> u8 {
        u8::try_from(COMPARE_WRITE_BYTES_MAX / self.block_size as usize).unwrap_or(u8::MAX)
    }
}

/// What a target needs of the volumes: implemented by [`super::Front`], and by small models in tests.
pub trait Volumes {
    /// The volume as it is now; `None` once it is gone.
    fn info(&self, volume: VolumeId) -> Option<&Info>;
    /// Who may use the volume, as it is now. Nobody is kept from one that has no reservations, or is gone.
    fn reservations(&self, volume: VolumeId) -> &Reservations {
        let _ = volume;
        Reservations::none()
    }
    /// Starts a request. Ranges are checked here: a target need not.
    fn submit(&mut self, request: Request, payload: Payload<'_>, pool: &mut Pool) -> Submit;
}
