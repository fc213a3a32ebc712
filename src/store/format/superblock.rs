//! The superblock: who the slice is, how it is cut, where the newest checkpoint is and from where the log is replayed.
//!
//! Two slots are written in turn, so that one is always whole; each slot is two copies at different places, so that
//! one rotten block costs nothing. The valid copy with the highest sequence number wins.

use super::geometry::{Addr, Geometry, SegmentId};
use super::volume::Name;
use super::{FormatError, LogId, STREAMS, VERSION};
use crate::base::BLOCK;
use crate::base::crc::crc32c;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Block numbers of the copies: `SLOTS[sequence % 2]` is written for a sequence number.
pub const SLOTS: [[u32; 2]; 2] = [[0, 8], [16, 24]];
/// Incarnations whose start a superblock can name; older ones are forgotten first (see [`incarnation_fits`]).
pub const BOUNDARIES_MAX: usize = 64;

const MAGIC: [u8; 8] = *b"POLLUXSB";

/// Where a stream goes on: the place of its first batch after the checkpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// Where the stream's next batch starts.
    pub addr: Addr,
    /// The segment it will use after this one; [`SegmentId::NONE`] while none could be had.
    pub next: SegmentId,
    /// Sequence number of the segment.
    pub segment_seq: u64,
}

/// Batches from `first` on (until the next boundary) carry the number of this incarnation; one below carries an
/// older one. It keeps stale batches beyond a torn one from ever being taken for new ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Boundary {
    /// The incarnation.
    pub incarnation: u32,
    /// Its first batch sequence number.
    pub first: u64,
}

/// A proven superblock.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Superblock {
    /// Which log.
    pub id: LogId,
    /// Slices of the store.
    pub slices: u16,
    /// The store's name.
    pub name: Name,
    /// Start of the slice on its device, bytes.
    pub offset: u64,
    /// Length of the slice, bytes.
    pub len: u64,
    /// How it is cut.
    pub geometry: Geometry,
    /// Counts superblock writes.
    pub sequence: u64,
    /// Last page of the checkpoint's manifest and its CRC32C; `Addr::NONE` when there has been no checkpoint.
    pub root: (Addr, u32),
    /// Counts checkpoints.
    pub checkpoint: u64,
    /// Batches up to this sequence number are in the checkpoint; replay starts after it.
    pub covered: u64,
    /// All batches up to this one were durable when the superblock was written.
    pub durable: u64,
    /// Next segment sequence number at the time of the checkpoint.
    pub segment_seq: u64,
    /// Where each stream goes on.
    pub places: [Place; STREAMS],
    /// Incarnations since the checkpoint, oldest first; the last is the current one.
    pub boundaries: Vec<Boundary>,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
struct PlaceBytes {
    addr: U32,
    next: U32,
    segment_seq: U64,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
struct BoundaryBytes {
    incarnation: U32,
    reserved: U32,
    first: U64,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
struct Raw {
    magic: [u8; 8],
    version: U16,
    slice: U16,
    slices: U16,
    boundaries: U16,
    store: [u8; 16],
    name: [u8; Name::MAX],
    offset: U64,
    len: U64,
    segment_blocks: U32,
    segments: U32,
    sequence: U64,
    checkpoint: U64,
    covered: U64,
    durable: U64,
    segment_seq: U64,
    root: U32,
    root_crc: U32,
    places: [PlaceBytes; STREAMS],
    boundary: [BoundaryBytes; BOUNDARIES_MAX],
    reserved: [u8; BLOCK - RAW_USED - 4],
    crc: U32,
}

const RAW_USED: usize =
    8 + 8 + 16 + Name::MAX + 8 + 8 + 8 + 5 * 8 + 8 + STREAMS * 16 + BOUNDARIES_MAX * size_of::<BoundaryBytes>();
const _: () = assert!(size_of::<Raw>() == BLOCK);
const CRC_AT: usize = BLOCK - 4;

impl Superblock {
    /// The block to write, checksum included.
    pub fn encode(&self, out: &mut [u8]) {
        assert_eq!(out.len(), BLOCK, "a superblock is one block");
        assert!(!self.boundaries.is_empty() && self.boundaries.len() <= BOUNDARIES_MAX, "boundaries are bounded");
        let place =
            |p: &Place| PlaceBytes { addr: p.addr.0.into(), next: p.next.0.into(), segment_seq: p.segment_seq.into() };
        let mut raw = Raw {
            magic: MAGIC,
            version: VERSION.into(),
            slice: self.id.slice.into(),
            slices: self.slices.into(),
            boundaries: (self.boundaries.len() as u16).into(),
            store: self.id.store,
            name: self.name.padded(),
            offset: self.offset.into(),
            len: self.len.into(),
            segment_blocks: self.geometry.segment_blocks.into(),
            segments: self.geometry.segments.into(),
            sequence: self.sequence.into(),
            checkpoint: self.checkpoint.into(),
            covered: self.covered.into(),
            durable: self.durable.into(),
            segment_seq: self.segment_seq.into(),
            root: self.root.0.0.into(),
            root_crc: self.root.1.into(),
            places: [place(&self.places[0]), place(&self.places[1]), place(&self.places[2])],
            boundary: [BoundaryBytes { incarnation: 0.into(), reserved: 0.into(), first: 0.into() }; BOUNDARIES_MAX],
            reserved: [0; BLOCK - RAW_USED - 4],
            crc: 0.into(),
        };
        for (slot, b) in raw.boundary.iter_mut().zip(&self.boundaries) {
            *slot = BoundaryBytes { incarnation: b.incarnation.into(), reserved: 0.into(), first: b.first.into() };
        }
        raw.crc = crc32c(&raw.as_bytes()[..CRC_AT]).into();
        out.copy_from_slice(raw.as_bytes());
    }

    /// Proves a block.
    ///
    /// # Errors
    /// What is wrong with it, the first of magic, version, checksum, ranges.
    pub fn decode(block: &[u8]) -> Result<Superblock, FormatError> {
        let (raw, _) = Raw::ref_from_prefix(block).map_err(|_| FormatError::Short)?;
        if raw.magic != MAGIC {
            return Err(FormatError::Magic);
        }
        if raw.version.get() != VERSION {
            return Err(FormatError::Version { found: raw.version.get() });
        }
        if crc32c(&block[..CRC_AT]) != raw.crc.get() {
            return Err(FormatError::Checksum);
        }
        let geometry = Geometry { segment_blocks: raw.segment_blocks.get(), segments: raw.segments.get() };
        geometry.check()?;
        let count = usize::from(raw.boundaries.get());
        let block_bytes = BLOCK as u64;
        let fits = raw.len.get() / block_bytes >= u64::from(geometry.end().0);
        let aligned = raw.offset.get().is_multiple_of(block_bytes);
        if count == 0 || count > BOUNDARIES_MAX || !fits || !aligned || raw.slice.get() >= raw.slices.get() {
            return Err(FormatError::Field);
        }
        let mut boundaries = Vec::with_capacity(BOUNDARIES_MAX);
        for b in &raw.boundary[..count] {
            boundaries.push(Boundary { incarnation: b.incarnation.get(), first: b.first.get() });
        }
        let ordered = boundaries.is_sorted_by(|a, b| a.incarnation < b.incarnation && a.first <= b.first);
        let root = Addr(raw.root.get());
        if !ordered || (root != Addr::NONE && !geometry.holds(root)) {
            return Err(FormatError::Field);
        }
        let mut places = [Place { addr: Addr::NONE, next: SegmentId::NONE, segment_seq: 0 }; STREAMS];
        for (place, raw) in places.iter_mut().zip(&raw.places) {
            *place = Place {
                addr: Addr(raw.addr.get()),
                next: SegmentId(raw.next.get()),
                segment_seq: raw.segment_seq.get(),
            };
            let next_ok = place.next == SegmentId::NONE || place.next.0 < geometry.segments;
            if !geometry.holds(place.addr) || !next_ok {
                return Err(FormatError::Field);
            }
        }
        Ok(Superblock {
            id: LogId { store: raw.store, slice: raw.slice.get() },
            slices: raw.slices.get(),
            name: Name::from_padded(raw.name)?,
            offset: raw.offset.get(),
            len: raw.len.get(),
            geometry,
            sequence: raw.sequence.get(),
            root: (root, raw.root_crc.get()),
            checkpoint: raw.checkpoint.get(),
            covered: raw.covered.get(),
            durable: raw.durable.get(),
            segment_seq: raw.segment_seq.get(),
            places,
            boundaries,
        })
    }

    /// The newest valid copy in the head of a slice ([`super::HEAD_BYTES`] bytes).
    ///
    /// # Errors
    /// The most telling error of the four copies when none is valid: a foreign version before a bad checksum before a missing magic.
    pub fn newest(head: &[u8]) -> Result<Superblock, FormatError> {
        let mut best: Option<Superblock> = None;
        let mut worst = FormatError::Short;
        for block in SLOTS.iter().flatten() {
            let at = *block as usize * BLOCK;
            let Some(bytes) = head.get(at..at + BLOCK) else { continue };
            match Superblock::decode(bytes) {
                Ok(sb) if best.as_ref().is_none_or(|b| b.sequence < sb.sequence) => best = Some(sb),
                Ok(_) => {}
                Err(e) => worst = if rank(e) > rank(worst) { e } else { worst },
            }
        }
        best.ok_or(worst)
    }
}

/// True when a batch of `incarnation` may have this sequence number: between two boundaries it must be the older
/// one's, and before the oldest one known it must be lower than that.
pub fn incarnation_fits(boundaries: &[Boundary], batch_seq: u64, incarnation: u32) -> bool {
    match boundaries.iter().rev().find(|b| b.first <= batch_seq) {
        Some(b) => incarnation == b.incarnation,
        None => boundaries.first().is_none_or(|b| incarnation < b.incarnation),
    }
}

fn rank(e: FormatError) -> u8 {
    match e {
        FormatError::Short => 0,
        FormatError::Magic => 1,
        FormatError::Stranger => 2,
        FormatError::Checksum => 3,
        FormatError::Field => 4,
        FormatError::Version { .. } => 5,
    }
}

#[cfg(test)]
mod tests {
    use super::super::geometry::HEAD_BYTES;
    use super::*;

    fn sample(sequence: u64) -> Superblock {
        let place = |n: u32| Place { addr: Addr(32 + n * 16), next: SegmentId(n + 3), segment_seq: u64::from(n) };
        Superblock {
            id: LogId { store: [5; 16], slice: 1 },
            slices: 4,
            name: Name::new("pool").unwrap(),
            offset: 1 << 20,
            len: 64 * 65536 + (1 << 20),
            geometry: Geometry { segment_blocks: 16, segments: 64 },
            sequence,
            root: (Addr(99), 7),
            checkpoint: 3,
            covered: 10,
            durable: 12,
            segment_seq: 20,
            places: [place(0), place(1), place(2)],
            boundaries: vec![Boundary { incarnation: 1, first: 1 }, Boundary { incarnation: 2, first: 9 }],
        }
    }

    #[test]
    fn round_trip_and_newest_copy_wins() {
        let (old, new) = (sample(8), sample(9));
        let mut head = vec![0u8; HEAD_BYTES];
        assert_eq!(Superblock::newest(&head), Err(FormatError::Magic));
        for sb in [&old, &new] {
            for block in SLOTS[(sb.sequence % 2) as usize] {
                sb.encode(&mut head[block as usize * BLOCK..][..BLOCK]);
            }
        }
        assert_eq!(Superblock::newest(&head).as_ref(), Ok(&new));
        let a = SLOTS[1][0] as usize * BLOCK;
        head[a + 100] ^= 1;
        assert_eq!(Superblock::newest(&head).as_ref(), Ok(&new), "the second copy covers for the first");
        let b = SLOTS[1][1] as usize * BLOCK;
        head[b + 4000] ^= 1;
        assert_eq!(Superblock::newest(&head).as_ref(), Ok(&old));
        let fits = |seq, incarnation| incarnation_fits(&new.boundaries, seq, incarnation);
        assert!(fits(8, 1) && fits(9, 2) && fits(0, 0));
        assert!(!fits(8, 2) && !fits(9, 1) && !fits(0, 1));
    }

    #[test]
    fn a_flip_of_any_bit_is_detected() {
        let mut block = vec![0u8; BLOCK];
        sample(1).encode(&mut block);
        for at in 0..BLOCK {
            for bit in 0..8 {
                block[at] ^= 1 << bit;
                assert!(Superblock::decode(&block).is_err(), "byte {at} bit {bit}");
                block[at] ^= 1 << bit;
            }
        }
        assert!(Superblock::decode(&block).is_ok());
        assert_eq!(Superblock::decode(&block[..4000]), Err(FormatError::Short));
    }
}
