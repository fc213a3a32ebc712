//! What a target asks of a volume and what it gets back.

use crate::base::{Status, VolumeId};
use crate::mem::Buf;

/// What to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Blocks to a buffer of the pool, which the completion brings.
    Read,
    /// Payload to blocks. Complete means durable (the default advertises no volatile cache).
    Write,
    /// Payload against blocks, block by block; [`Status::CompareMismatch`] when any differ.
    Compare,
    /// Everything completed before is durable.
    Flush,
    /// The range reads as zeroes; space is given back where the volume is thin.
    WriteZeroes,
    /// The range is no longer needed; it reads as zeroes afterwards on every volume we serve.
    Deallocate,
}

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
    /// The submitter's name for the request; comes back in [`Completion::tag`].
    pub tag: u64,
}

/// The bytes of a Write or Compare.
#[derive(Debug)]
pub enum Payload<'a> {
    /// None (Read, Flush, WriteZeroes, Deallocate).
    None,
    /// Bytes that are valid only during the call; taken (copied once, checksummed on the way) before it returns.
    Borrowed(&'a [u8]),
    /// A buffer whose first bytes are the payload; comes back to its pool by itself.
    Owned(Buf),
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
}
