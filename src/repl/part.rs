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
    /// Payload against blocks; [`Status::CompareMismatch`] when any byte differs, the first one in
    /// [`Detail::differs_at`].
    Compare,
    /// Payload is what the blocks must hold, then what is written if they do, as one step against every other change
    /// of the range on this node: no write, zeroing or other compare-write falls between. At most
    /// [`COMPARE_WRITE_BYTES_MAX`](crate::base::limits::COMPARE_WRITE_BYTES_MAX) are compared.
    CompareWrite,
    /// Whether the blocks from the first one on are mapped, and how many after it are the same: the answer is in
    /// [`Detail::run`]. The work per request is bounded, so a run may be longer than what is reported.
    BlockStatus,
    /// Everything completed before is durable.
    Flush,
    /// The range reads as zeroes; space is given back where the volume is thin.
    WriteZeroes,
    /// The range is no longer needed; it reads as zeroes afterwards on every volume we serve.
    Deallocate,
}

impl Kind {
    /// True for the kinds that a write-protected volume refuses.
    pub fn changes(self) -> bool {
        matches!(self, Kind::Write | Kind::CompareWrite | Kind::WriteZeroes | Kind::Deallocate)
    }
}

/// The bytes of a Write, Compare or `CompareWrite`.
#[derive(Debug)]
pub enum Payload<'a> {
    /// Nothing: all other kinds.
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

/// What an end says besides its status; means nothing where the kind and status do not say so.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Detail(u32);

/// Set in the detail of a `BlockStatus` when the run is mapped.
const MAPPED: u32 = 1 << 31;

/// Consecutive bytes that are all mapped or all not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run {
    /// Space is taken for them. What is not mapped reads as zeroes.
    pub mapped: bool,
    /// Bytes; a multiple of the block size.
    pub len: u32,
}

impl Detail {
    /// Nothing more to say.
    pub const NONE: Detail = Detail(0);

    /// Of a miscompare: byte `at` of what was compared is the first that differs.
    pub fn differing(at: u32) -> Detail {
        Detail(at)
    }
    /// With [`Status::CompareMismatch`]: the offset of the first differing byte from the first block compared.
    pub fn differs_at(self) -> u32 {
        self.0
    }
    /// Of a `BlockStatus`: `run` of less than 2 GiB.
    pub fn of_run(run: Run) -> Detail {
        assert!(run.len < MAPPED, "a run lies within a chunk or a device read");
        Detail(run.len | if run.mapped { MAPPED } else { 0 })
    }
    /// With [`Status::Ok`] of a `BlockStatus`: the run that starts at the first block.
    pub fn run(self) -> Run {
        Run { mapped: self.0 & MAPPED != 0, len: self.0 & !MAPPED }
    }
}

/// Which step of a `CompareWrite` a part is. One that lies with one owner is one step; one that crosses a chunk border
/// holds both ranges before it writes either.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Step {
    /// All of it; every part of another kind.
    #[default]
    Whole,
    /// Lock the range, compare, and keep the lock when it is equal. [`Status::Busy`] when buffers are short: try again
    /// after letting go of everything else that is held.
    Hold,
    /// Write what the Hold of this range brought, and unlock. No payload.
    Write,
    /// Unlock a held range. No payload.
    Release,
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
    /// Of a `CompareWrite`: which step.
    pub step: Step,
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
    /// What the kind says besides.
    pub detail: Detail,
    /// A Read's buffer, whatever the status.
    pub buf: Option<Buf>,
}

impl Ended {
    /// An end with nothing more to say.
    pub fn plain(tag: u64, status: Status, buf: Option<Buf>) -> Ended {
        Ended { tag, status, detail: Detail::NONE, buf }
    }
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
