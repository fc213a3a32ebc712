//! Bugs planted on purpose, one rule each, to prove that the crash simulation would find them. They exist only with
//! the cargo feature `planted-bugs`; without it [`Rules::breaks`] is constantly false and costs nothing.

use super::config::Limits;

/// A rule of the store that can be broken on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Planted {
    /// A batch counts as stable when its write completes, although the device has a volatile cache.
    AckBeforeFlush,
    /// A batch is acknowledged when it is stable itself, although an earlier one is not.
    AckOutOfOrder,
    /// A flush counts for all writes completed when it completes, not only for those completed when it was submitted.
    FlushCoversLater,
    /// Recovery takes a batch header whose checksum does not fit.
    SkipHeaderCrc,
    /// Reads do not verify the checksum of a block.
    SkipDataCrc,
    /// Recovery does not verify the payload of batches that may be torn.
    SkipTornPayload,
    /// Recovery ends the log at a missing batch although later ones say that it was durable.
    TruncateMiddle,
    /// A dead segment is reused before a checkpoint covers what was logged in it.
    EarlyReuse,
    /// Recovery ignores the records of unmap and write-zeroes.
    DropZeroes,
    /// Recovery takes batches of a dead incarnation.
    AnyIncarnation,
    /// Recovery does not record the new incarnation before it serves.
    ForgetIncarnation,
    /// The index switches when a batch is submitted, so that reads see what a crash may take back.
    SwitchEarly,
    /// The superblock is always written over its newest slot.
    SameSuperblockSlot,
    /// The superblock is written before the pages of its checkpoint are stable.
    RootBeforePages,
    /// A checkpoint forgets some dirty leaves.
    ForgetLeaf,
    /// A write of a part of a block takes the rest from the index, although a newer version is under way.
    RmwIgnoresInflight,
    /// Cleaning switches an entry although a host has overwritten the block meanwhile.
    MoveOverOverwrite,
    /// Shrinking a volume keeps the mappings past its end.
    ShrinkKeepsBlocks,
}

impl Planted {
    /// All of them.
    pub const ALL: [Planted; 18] = [
        Planted::AckBeforeFlush,
        Planted::AckOutOfOrder,
        Planted::FlushCoversLater,
        Planted::SkipHeaderCrc,
        Planted::SkipDataCrc,
        Planted::SkipTornPayload,
        Planted::TruncateMiddle,
        Planted::EarlyReuse,
        Planted::DropZeroes,
        Planted::AnyIncarnation,
        Planted::ForgetIncarnation,
        Planted::SwitchEarly,
        Planted::SameSuperblockSlot,
        Planted::RootBeforePages,
        Planted::ForgetLeaf,
        Planted::RmwIgnoresInflight,
        Planted::MoveOverOverwrite,
        Planted::ShrinkKeepsBlocks,
    ];
}

/// Which rule a slice breaks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    #[cfg(feature = "planted-bugs")]
    planted: Option<Planted>,
}

#[cfg(feature = "planted-bugs")]
impl Rules {
    pub fn new(limits: &Limits) -> Rules {
        Rules { planted: limits.planted }
    }
    #[inline]
    pub fn breaks(self, rule: Planted) -> bool {
        self.planted == Some(rule)
    }
}

#[cfg(not(feature = "planted-bugs"))]
impl Rules {
    pub fn new(_: &Limits) -> Rules {
        Rules {}
    }
    #[inline(always)]
    #[allow(clippy::unused_self, reason = "the same call with and without the feature")]
    pub fn breaks(self, _: Planted) -> bool {
        false
    }
}
