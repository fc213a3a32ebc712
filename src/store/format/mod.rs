//! The log's format on the medium, as pure functions: bytes in, values out, and back. The slice, recovery and the
//! offline checker all read through this folder; nothing here does I/O or keeps state.
//!
//! ```text
//! slice:    | superblocks A A' B B' (128 KiB) | segment 0 | segment 1 | ...
//! segment:  | batch | batch | ... | batch |           batches lie back to back from the segment's first block
//! batch:    | header block | payload block x n |      one device write
//! ```
//!
//! All integers are little-endian. What is decoded is untrusted until a `decode` function has proven magic, version,
//! checksum, place and every bound; only then does the caller see a value. Addresses are [`Addr`]: 4 KiB blocks
//! counted from the start of the slice.

pub mod batch;
pub mod geometry;
pub mod page;
pub mod superblock;
pub mod volume;

pub use batch::{BATCH_HEADER, Header, HeaderFields, Record, Records, Writer};
pub use geometry::{Addr, Geometry, HEAD_BLOCKS, HEAD_BYTES, SegmentId};
pub use superblock::{Boundary, Place, Superblock};
pub use volume::{Name, VolumeMeta};

/// Version of every structure of the log. A reader refuses any other number and says both.
pub const VERSION: u16 = 1;

/// The streams of a log: each fills its own segments, so that data of different lifetime never shares one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Stream {
    /// What hosts write.
    Hot = 0,
    /// What cleaning moves.
    Cold = 1,
    /// Pages of checkpoints.
    Meta = 2,
}

/// Number of streams.
pub const STREAMS: usize = 3;

impl Stream {
    /// All of them, in order of their numbers.
    pub const ALL: [Stream; STREAMS] = [Stream::Hot, Stream::Cold, Stream::Meta];
    /// As an index into per-stream tables.
    pub fn index(self) -> usize {
        self as usize
    }
    /// The stream of a number on the medium.
    pub fn from_number(n: u8) -> Option<Stream> {
        Stream::ALL.get(usize::from(n)).copied()
    }
}

/// Why bytes are not the structure they should be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FormatError {
    /// Fewer bytes than the structure has.
    #[error("too few bytes")]
    Short,
    /// The magic number is another's.
    #[error("no magic number of a log store")]
    Magic,
    /// Another version of the format.
    #[error("format version {found}, this program reads version {}", VERSION)]
    Version {
        /// The version found.
        found: u16,
    },
    /// The checksum does not fit the bytes.
    #[error("checksum mismatch")]
    Checksum,
    /// The structure belongs to another store, slice or place.
    #[error("belongs to another store, slice or place")]
    Stranger,
    /// A field is outside its range although the checksum fits.
    #[error("a field is out of range")]
    Field,
}

/// Who a log is: stamped into every structure, so that no block of another store or slice is ever taken for one of ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogId {
    /// The store's UUID; fresh for every format.
    pub store: [u8; 16],
    /// The slice's number.
    pub slice: u16,
}
