//! A part: the piece of a request that lies in one chunk and so has one owner.

use crate::base::{ShardId, Status, Time, VolumeId};
use crate::mem::{Buf, Pool};

/// A device of this node, as this core's tables number it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct DeviceId(pub u16);

/// A log store of this node, as this core's tables number it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct StoreId(pub u16);

/// What to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Blocks to a buffer of the pool, which the completion brings.
    Read,
    /// Payload to blocks. Complete means durable, unless the volume says that it has a volatile cache.
    Write,
    /// Payload against blocks; [`Status::CompareMismatch`] when any byte differs.
    Compare,
    /// Everything completed before is durable.
    Flush,
    /// The range reads as zeroes; space is given back where the volume is thin.
    WriteZeroes,
    /// The range is no longer needed; it reads as zeroes afterwards on every volume we serve.
    Deallocate,
}

/// The bytes of a Write or Compare.
#[derive(Debug)]
pub enum Payload<'a> {
    /// Nothing: all kinds but Write and Compare.
    None,
    /// Bytes that are valid only during the call; taken (copied once, checksummed on the way) before it returns.
    Borrowed(&'a [u8]),
    /// A buffer whose bytes are the payload; comes back to its pool by itself.
    Owned(Buf),
}

impl Payload<'_> {
    /// The payload's bytes; empty for `None`.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Payload::None => &[],
            Payload::Borrowed(b) => b,
            Payload::Owned(b) => b,
        }
    }
    /// The owned buffer, if it is one.
    pub fn into_buf(self) -> Option<Buf> {
        match self {
            Payload::Owned(b) => Some(b),
            Payload::None | Payload::Borrowed(_) => None,
        }
    }
}

/// Where a volume's bytes are kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Home {
    /// On a device as it is, byte for byte.
    Raw(DeviceId),
    /// In the log slices of a store.
    Log {
        /// Which store of this node.
        store: StoreId,
        /// How many slices the store has; shard % slices is the part's slice.
        slices: u16,
    },
}

/// One owner's piece of a request. Offsets and lengths in bytes, multiples of the volume's block size.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// The volume.
    pub volume: VolumeId,
    /// Where it is kept.
    pub home: Home,
    /// The shard of the chunk.
    pub shard: ShardId,
    /// What to do.
    pub kind: Kind,
    /// First byte in the volume.
    pub offset: u64,
    /// Bytes; 0 for Flush.
    pub len: u32,
    /// Write: durable on completion even when the volume has a volatile cache.
    pub fua: bool,
    /// Comes back in [`Ended::tag`].
    pub tag: u64,
}

/// The end of a part.
#[derive(Debug)]
pub struct Ended {
    /// [`Part::tag`].
    pub tag: u64,
    /// How it ended.
    pub status: Status,
    /// A Read's buffer, whatever the status.
    pub buf: Option<Buf>,
}

/// What became of a part.
#[derive(Debug)]
pub enum Outcome {
    /// Ended at once.
    Done(Ended),
    /// Ends later.
    Pending,
    /// Buffers or slots are short: nothing was started, any owned buffer is handed back.
    Later(Option<Buf>),
}

/// The shards of one core, as the volume layer sees them: implemented by [`super::Local`], and by small models in tests.
pub trait Shards {
    /// Starts a part. `Later` means that nothing was started.
    fn submit(&mut self, part: &Part, payload: Payload<'_>, pool: &mut Pool) -> Outcome;
    /// One turn of the media; true when anything happened.
    fn step(&mut self, now: Time, pool: &mut Pool) -> bool;
    /// Moves the parts that ended into `out`.
    fn drain(&mut self, out: &mut Vec<Ended>);
}
