//! Pages of a checkpoint: leaves (where the 512 blocks of a chunk are), directory pages (where the leaves of 512
//! chunks are) and the manifest (volumes, directory pages, segments). Leaves and directory pages are bare tables of
//! 512 entries whose checksum is kept by whatever points to them; manifest pages carry a header of their own and form
//! a chain from the superblock backwards.

use super::batch::Stamp;
use super::geometry::{Addr, SegmentId};
use super::volume::VolumeMeta;
use super::{FormatError, LogId, VERSION};
use crate::base::crc::crc32c;
use crate::base::{BLOCK, ShardId, VolumeId};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Entries of a leaf or directory page.
pub const ENTRIES: usize = 512;
const _: () = assert!(ENTRIES * 8 == BLOCK);

/// Where something is and the CRC32C of what is there: the entry of leaves and directory pages. 8 bytes, so that it
/// catches misdirected, lost and stale writes at the price of a pointer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Where.
    pub addr: Addr,
    /// CRC32C of the block there; 0 when `addr` is no place.
    pub crc: u32,
}

impl Entry {
    /// Nothing there.
    pub const NONE: Entry = Entry { addr: Addr::NONE, crc: 0 };
    /// Lost content.
    pub const LOST: Entry = Entry { addr: Addr::LOST, crc: 0 };

    /// As one word: address low, checksum high.
    #[inline]
    pub fn pack(self) -> u64 {
        u64::from(self.addr.0) | u64::from(self.crc) << 32
    }
    /// From one word.
    #[inline]
    pub fn unpack(word: u64) -> Entry {
        Entry { addr: Addr(word as u32), crc: (word >> 32) as u32 }
    }
}

/// Writes a page of 512 entries.
pub fn encode_entries(entries: impl Iterator<Item = u64>, out: &mut [u8]) {
    assert_eq!(out.len(), BLOCK, "a page is one block");
    let mut slots = out.chunks_exact_mut(8);
    for word in entries {
        slots.next().expect("at most 512 entries").copy_from_slice(&word.to_le_bytes());
    }
    assert!(slots.next().is_none(), "exactly 512 entries");
}

/// Reads a page of 512 entries whose checksum the caller has proven.
pub fn decode_entries(page: &[u8]) -> impl Iterator<Item = u64> + '_ {
    page.chunks_exact(8).map(|w| u64::from_le_bytes(w.try_into().expect("eight bytes")))
}

const MAGIC: [u8; 4] = *b"PLXM";
const FIXED: usize = size_of::<ManifestBytes>();
const _: () = assert!(FIXED == 64);

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
struct ManifestBytes {
    magic: [u8; 4],
    version: U16,
    slice: U16,
    store: [u8; 16],
    checkpoint: U64,
    number: U32,
    used: U16,
    reserved: [u8; 2],
    prev: U32,
    prev_crc: U32,
    volume_floor: U32,
    reserved2: [u8; 12],
}

/// An item of the manifest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Item {
    /// A volume.
    Volume(VolumeMeta),
    /// Where directory page `number` of a volume is.
    Dir {
        /// The volume.
        volume: VolumeId,
        /// Which 512 chunks.
        number: u32,
        /// The page.
        page: Entry,
    },
    /// Age of a segment in use: its sequence number when it was opened last.
    Segment {
        /// Which.
        segment: SegmentId,
        /// Its sequence number.
        seq: u64,
    },
    /// The newest write of a shard.
    Stamp(Stamp),
}

const ITEM_VOLUME: u8 = 1;
const ITEM_DIR: u8 = 2;
const ITEM_SEGMENT: u8 = 3;
const ITEM_STAMP: u8 = 4;
const DIR_BYTES: usize = 17;
const SEGMENT_BYTES: usize = 13;
const STAMP_BYTES: usize = 15;

impl Item {
    fn size(&self) -> usize {
        match self {
            Item::Volume(_) => 1 + VolumeMeta::ENCODED,
            Item::Dir { .. } => DIR_BYTES,
            Item::Segment { .. } => SEGMENT_BYTES,
            Item::Stamp(_) => STAMP_BYTES,
        }
    }
}

/// What stands at the head of a manifest page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ManifestFields {
    /// Which checkpoint.
    pub checkpoint: u64,
    /// Which page, from 0.
    pub number: u32,
    /// The page before it; [`Entry::NONE`] for page 0.
    pub prev: Entry,
    /// No volume id from this one on has been used in this slice.
    pub volume_floor: u32,
}

/// Builds a manifest page in place.
#[derive(Debug)]
pub struct ManifestWriter {
    used: usize,
}

impl ManifestWriter {
    /// An empty page.
    pub fn new() -> ManifestWriter {
        ManifestWriter { used: FIXED }
    }
    /// Adds an item; false (and nothing added) when the page is full.
    pub fn push(&mut self, page: &mut [u8], item: &Item) -> bool {
        let (at, end) = (self.used, self.used + item.size());
        if end > BLOCK {
            return false;
        }
        let out = &mut page[at..end];
        match item {
            Item::Volume(meta) => {
                out[0] = ITEM_VOLUME;
                out[1..].copy_from_slice(meta.encode().as_bytes());
            }
            Item::Dir { volume, number, page } => {
                out[0] = ITEM_DIR;
                out[1..5].copy_from_slice(&volume.0.to_le_bytes());
                out[5..9].copy_from_slice(&number.to_le_bytes());
                out[9..17].copy_from_slice(&page.pack().to_le_bytes());
            }
            Item::Segment { segment, seq } => {
                out[0] = ITEM_SEGMENT;
                out[1..5].copy_from_slice(&segment.0.to_le_bytes());
                out[5..13].copy_from_slice(&seq.to_le_bytes());
            }
            Item::Stamp(stamp) => {
                out[0] = ITEM_STAMP;
                out[1..3].copy_from_slice(&stamp.shard.0.to_le_bytes());
                out[3..7].copy_from_slice(&stamp.epoch.to_le_bytes());
                out[7..15].copy_from_slice(&stamp.lsn.to_le_bytes());
            }
        }
        self.used = end;
        true
    }
    /// True while nothing was added.
    pub fn is_empty(&self) -> bool {
        self.used == FIXED
    }
    /// Writes the head and clears what is unused.
    pub fn seal(&self, page: &mut [u8], id: &LogId, fields: &ManifestFields) {
        let raw = ManifestBytes {
            magic: MAGIC,
            version: VERSION.into(),
            slice: id.slice.into(),
            store: id.store,
            checkpoint: fields.checkpoint.into(),
            number: fields.number.into(),
            used: (self.used as u16).into(),
            reserved: [0; 2],
            prev: fields.prev.addr.0.into(),
            prev_crc: fields.prev.crc.into(),
            volume_floor: fields.volume_floor.into(),
            reserved2: [0; 12],
        };
        page[..FIXED].copy_from_slice(raw.as_bytes());
        page[self.used..BLOCK].fill(0);
    }
}

impl Default for ManifestWriter {
    fn default() -> Self {
        Self::new()
    }
}

/// Proves a manifest page against the checksum kept by what points to it, and lists its items.
pub fn decode_manifest(page: &[u8], crc: u32, id: &LogId) -> Result<(ManifestFields, Vec<Item>), FormatError> {
    if page.len() != BLOCK {
        return Err(FormatError::Short);
    }
    if crc32c(page) != crc {
        return Err(FormatError::Checksum);
    }
    let (raw, _) = ManifestBytes::ref_from_prefix(page).map_err(|_| FormatError::Short)?;
    if raw.magic != MAGIC {
        return Err(FormatError::Magic);
    }
    if raw.version.get() != VERSION {
        return Err(FormatError::Version { found: raw.version.get() });
    }
    if raw.store != id.store || raw.slice.get() != id.slice {
        return Err(FormatError::Stranger);
    }
    let used = usize::from(raw.used.get());
    let mut rest = page.get(FIXED..used).ok_or(FormatError::Field)?;
    let mut items = Vec::new();
    while !rest.is_empty() {
        let (item, left) = decode_item(rest)?;
        items.push(item);
        rest = left;
    }
    let fields = ManifestFields {
        checkpoint: raw.checkpoint.get(),
        number: raw.number.get(),
        prev: Entry { addr: Addr(raw.prev.get()), crc: raw.prev_crc.get() },
        volume_floor: raw.volume_floor.get(),
    };
    Ok((fields, items))
}

fn word32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn word64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn decode_item(bytes: &[u8]) -> Result<(Item, &[u8]), FormatError> {
    let need = match bytes[0] {
        ITEM_VOLUME => 1 + VolumeMeta::ENCODED,
        ITEM_DIR => DIR_BYTES,
        ITEM_SEGMENT => SEGMENT_BYTES,
        ITEM_STAMP => STAMP_BYTES,
        _ => return Err(FormatError::Field),
    };
    let raw = bytes.get(..need).ok_or(FormatError::Short)?;
    let item = match raw[0] {
        ITEM_VOLUME => Item::Volume(VolumeMeta::decode(&raw[1..])?),
        ITEM_DIR => {
            Item::Dir { volume: VolumeId(word32(raw, 1)), number: word32(raw, 5), page: Entry::unpack(word64(raw, 9)) }
        }
        ITEM_SEGMENT => Item::Segment { segment: SegmentId(word32(raw, 1)), seq: word64(raw, 5) },
        _ => {
            let shard = ShardId(u16::from(raw[1]) | u16::from(raw[2]) << 8);
            Item::Stamp(Stamp { shard, epoch: word32(raw, 3), lsn: word64(raw, 7) })
        }
    };
    Ok((item, &bytes[need..]))
}

#[cfg(test)]
mod tests {
    use super::super::volume::Name;
    use super::*;

    const ID: LogId = LogId { store: [8; 16], slice: 0 };

    #[test]
    fn manifest_round_trip_until_full_and_every_flip_detected() {
        let mut page = vec![0x55; BLOCK];
        let mut w = ManifestWriter::new();
        let name = Name::new("vol").unwrap();
        let id = VolumeId(1);
        let meta = VolumeMeta {
            id,
            uuid: [2; 16],
            name,
            bytes: 1 << 30,
            lba_bytes: 512,
            thin: true,
            read_only: true,
            created: 5,
        };
        let mut items = vec![Item::Volume(meta)];
        let page_at = Entry { addr: Addr(77), crc: 0xdead_beef };
        items.push(Item::Dir { volume: VolumeId(1), number: 0, page: page_at });
        items.push(Item::Stamp(Stamp { shard: ShardId(255), epoch: 3, lsn: 1 << 40 }));
        for n in 0..500u32 {
            items.push(Item::Segment { segment: SegmentId(n), seq: u64::from(n) * 3 });
        }
        let stored = items.iter().take_while(|i| w.push(&mut page, i)).count();
        assert!(stored > 250 && stored < items.len());
        let fields = ManifestFields { checkpoint: 4, number: 2, prev: page_at, volume_floor: 9 };
        w.seal(&mut page, &ID, &fields);
        let crc = crc32c(&page);
        let (got, list) = decode_manifest(&page, crc, &ID).unwrap();
        assert_eq!((got, &list[..]), (fields, &items[..stored]));
        for at in 0..BLOCK {
            page[at] ^= 0x10;
            assert_eq!(decode_manifest(&page, crc, &ID), Err(FormatError::Checksum));
            page[at] ^= 0x10;
        }
        assert_eq!(decode_manifest(&page, crc, &LogId { store: [8; 16], slice: 1 }), Err(FormatError::Stranger));
    }

    #[test]
    fn random_manifest_bytes_with_a_right_checksum_never_panic() {
        let mut rng = crate::base::rng::Rng::new(3);
        let mut page = vec![0; BLOCK];
        let w = ManifestWriter::new();
        let fields = ManifestFields { checkpoint: 1, number: 0, prev: Entry::NONE, volume_floor: 0 };
        for _ in 0..20_000 {
            w.seal(&mut page, &ID, &fields);
            rng.fill(&mut page[FIXED..FIXED + 64]);
            page[FIXED] = rng.below(6) as u8;
            page[36..38].copy_from_slice(&(rng.below(5000) as u16).to_le_bytes());
            let _ = decode_manifest(&page, crc32c(&page), &ID);
        }
    }

    #[test]
    fn entries_round_trip() {
        let words: Vec<u64> = (0..512).map(|n| Entry { addr: Addr(n), crc: !n }.pack()).collect();
        let mut page = vec![0; BLOCK];
        encode_entries(words.iter().copied(), &mut page);
        assert_eq!(decode_entries(&page).collect::<Vec<_>>(), words);
        assert_eq!(Entry::unpack(words[3]), Entry { addr: Addr(3), crc: !3 });
    }
}
