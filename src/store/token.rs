//! The tokens of a slice's device operations: the owner's tag on top, then what the operation is for.

/// What an operation is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    /// The write of the batch in this slot of the log.
    Batch(usize),
    /// The log's flush.
    Flush,
    /// Part of a host's read: slot of the part.
    Read(usize),
    /// The old content of a block that is written in part: staging slot x 2 + edge.
    Edge(usize),
    /// A window of a segment for the cleaner (0) or the scrubber (1).
    Walk(usize),
    /// A superblock copy.
    Super(usize),
    /// The flush after a superblock.
    SuperFlush,
    /// A read of recovery: its slot.
    Start(usize),
}

const SHIFT: u32 = 40;
const INDEX: u64 = (1 << SHIFT) - 1;

impl Purpose {
    /// As a token under the owner's tag.
    pub fn token(self, tag: u16) -> u64 {
        let (kind, index) = match self {
            Purpose::Batch(n) => (1u64, n),
            Purpose::Flush => (2, 0),
            Purpose::Read(n) => (3, n),
            Purpose::Edge(n) => (4, n),
            Purpose::Walk(n) => (5, n),
            Purpose::Super(n) => (6, n),
            Purpose::SuperFlush => (7, 0),
            Purpose::Start(n) => (8, n),
        };
        u64::from(tag) << 48 | kind << SHIFT | index as u64
    }

    /// From a token that came back.
    pub fn of(token: u64) -> Purpose {
        let n = (token & INDEX) as usize;
        match token >> SHIFT & 0xff {
            1 => Purpose::Batch(n),
            2 => Purpose::Flush,
            3 => Purpose::Read(n),
            4 => Purpose::Edge(n),
            5 => Purpose::Walk(n),
            6 => Purpose::Super(n),
            7 => Purpose::SuperFlush,
            8 => Purpose::Start(n),
            kind => panic!("a completion of kind {kind} is none of this slice's"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_round_trip() {
        for p in [Purpose::Batch(9), Purpose::Flush, Purpose::Read(70_000), Purpose::Start(0), Purpose::Walk(1)] {
            let token = p.token(0xbeef);
            assert_eq!((token >> 48, Purpose::of(token)), (0xbeef, p));
        }
    }
}
