//! The batch header: one 4 KiB block that describes every payload block after it. Descriptors make each block of the
//! log self-describing: recovery, cleaning, scrub and the offline checker need no other truth.
//!
//! ```text
//! | fixed part 72 B | record 32 B + tail | record 32 B + tail | ... | zeroes | CRC32C of the first 4092 bytes |
//! ```

use super::geometry::{Addr, SegmentId};
use super::volume::VolumeMeta;
use super::{FormatError, LogId, Stream, VERSION};
use crate::base::crc::crc32c;
use crate::base::{BLOCK, ShardId, VolumeId};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of the header: one block.
pub const BATCH_HEADER: usize = BLOCK;
/// Bytes of descriptors and fixed part that a header holds at most.
pub const HEADER_USED_MAX: usize = BATCH_HEADER - 4;
/// Bytes of a record without its tail.
pub const RECORD: usize = size_of::<RecordBytes>();
/// Single-block writes that one header describes.
pub const SINGLES_MAX: usize = (HEADER_USED_MAX - FIXED) / (RECORD + 4);
/// Most payload blocks of a batch.
pub const PAYLOAD_MAX: u32 = 512;

const MAGIC: [u8; 4] = *b"PLXB";
const FIXED: usize = size_of::<FixedBytes>();
const _: () = assert!(FIXED == 72 && RECORD == 32 && SINGLES_MAX == 111);

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
struct FixedBytes {
    magic: [u8; 4],
    version: U16,
    stream: u8,
    flags: u8,
    store: [u8; 16],
    slice: U16,
    records: U16,
    payload: U16,
    used: U16,
    segment_seq: U64,
    batch_seq: U64,
    durable: U64,
    incarnation: U32,
    next: U32,
    addr: U32,
    reserved: U32,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
struct RecordBytes {
    volume: U32,
    kind: u8,
    flags: u8,
    count: U16,
    first: U64,
    epoch: U32,
    shard: U16,
    stored: U16,
    lsn: U64,
}

/// Where a write stands in the order of its shard.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Stamp {
    /// The shard.
    pub shard: ShardId,
    /// The shard's configuration.
    pub epoch: u32,
    /// Position in the shard's stream of writes.
    pub lsn: u64,
}

impl Stamp {
    /// Of records that belong to no shard: volumes and checkpoint pages.
    pub const NONE: Stamp = Stamp { shard: ShardId(0), epoch: 0, lsn: 0 };
}

/// What a record says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Kind {
    /// Blocks written by a host. Tail: CRC32C per block. Payload: the blocks.
    Data = 1,
    /// Blocks moved by cleaning. Tail: CRC32C and old address per block; an entry switches only where it still names
    /// the old address. Payload: the blocks.
    Move = 2,
    /// Blocks that read as zeroes from here on.
    Zero = 3,
    /// Blocks whose content is lost. Tail: old address per block; an entry switches only where it still names it.
    Lost = 4,
    /// A volume came to be or changed. Tail: the encoded [`VolumeMeta`].
    VolumeSet = 5,
    /// A volume is gone with all its blocks.
    VolumeDelete = 6,
    /// A page of a checkpoint: the leaf of chunk `first`. Tail: its CRC32C. Payload: the page.
    Leaf = 7,
    /// A page of a checkpoint: the directory page `first`. Tail and payload as for `Leaf`.
    Dir = 8,
    /// A page of a checkpoint: page `first` of the manifest. Tail and payload as for `Leaf`.
    Manifest = 9,
}

impl Kind {
    fn from_number(n: u8) -> Option<Kind> {
        const ALL: [Kind; 9] = [
            Kind::Data,
            Kind::Move,
            Kind::Zero,
            Kind::Lost,
            Kind::VolumeSet,
            Kind::VolumeDelete,
            Kind::Leaf,
            Kind::Dir,
            Kind::Manifest,
        ];
        ALL.get(usize::from(n).checked_sub(1)?).copied()
    }
    /// Bytes of the tail of a record with `count` blocks.
    #[inline]
    pub fn tail(self, count: u32) -> usize {
        let count = count as usize;
        match self {
            Kind::Data | Kind::Lost => 4 * count,
            Kind::Move => 8 * count,
            Kind::Zero | Kind::VolumeDelete => 0,
            Kind::VolumeSet => VolumeMeta::ENCODED,
            Kind::Leaf | Kind::Dir | Kind::Manifest => 4,
        }
    }
    /// Payload blocks of a record with `count` blocks.
    #[inline]
    pub fn payload(self, count: u32) -> u32 {
        match self {
            Kind::Data | Kind::Move => count,
            Kind::Leaf | Kind::Dir | Kind::Manifest => 1,
            Kind::Zero | Kind::Lost | Kind::VolumeSet | Kind::VolumeDelete => 0,
        }
    }
    /// True for pages of a checkpoint.
    pub fn is_page(self) -> bool {
        matches!(self, Kind::Leaf | Kind::Dir | Kind::Manifest)
    }
}

/// One decoded record; borrows its tail from the header block.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// What it says.
    pub kind: Kind,
    /// Which volume; 0 for manifest pages.
    pub volume: VolumeId,
    /// First block in the volume (chunk, directory page, manifest page for pages).
    pub first: u64,
    /// Blocks; 1 for pages, 0 for volume records.
    pub count: u32,
    /// Where the write stands in its shard.
    pub stamp: Stamp,
    /// Which payload block of the batch is its first.
    pub payload_at: u32,
    tail: &'a [u8],
}

impl Record<'_> {
    fn word(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.tail[at..at + 4].try_into().expect("four bytes"))
    }
    /// CRC32C of its block `i`; only for kinds with payload.
    #[inline]
    pub fn crc(&self, i: u32) -> u32 {
        let at = i as usize;
        if self.kind == Kind::Move { self.word(8 * at) } else { self.word(4 * at) }
    }
    /// Old address of its block `i`; only for `Move` and `Lost`.
    #[inline]
    pub fn from(&self, i: u32) -> Addr {
        let at = i as usize;
        Addr(if self.kind == Kind::Move { self.word(8 * at + 4) } else { self.word(4 * at) })
    }
    /// The volume of a `VolumeSet`.
    pub fn meta(&self) -> Result<VolumeMeta, FormatError> {
        VolumeMeta::decode(self.tail)
    }
}

/// The records of a header block.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    rest: &'a [u8],
    payload_at: u32,
}

impl<'a> Records<'a> {
    /// The records of a header that this process wrote and still holds: `used` bytes of it.
    pub fn trusted(block: &'a [u8], used: usize) -> Records<'a> {
        Records { rest: &block[FIXED..used], payload_at: 0 }
    }

    fn parse(&mut self) -> Result<Record<'a>, FormatError> {
        let (raw, rest) = RecordBytes::ref_from_prefix(self.rest).map_err(|_| FormatError::Short)?;
        let kind = Kind::from_number(raw.kind).ok_or(FormatError::Field)?;
        let count = u32::from(raw.count.get());
        let tail_len = kind.tail(count);
        let tail = rest.get(..tail_len).ok_or(FormatError::Short)?;
        let record = Record {
            kind,
            volume: VolumeId(raw.volume.get()),
            first: raw.first.get(),
            count,
            stamp: Stamp { shard: ShardId(raw.shard.get()), epoch: raw.epoch.get(), lsn: raw.lsn.get() },
            payload_at: self.payload_at,
            tail,
        };
        self.payload_at += kind.payload(count);
        self.rest = &rest[tail_len..];
        Ok(record)
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;
    fn next(&mut self) -> Option<Record<'a>> {
        if self.rest.is_empty() {
            return None;
        }
        Some(self.parse().expect("records were proven or written by us"))
    }
}

/// What a header says besides its records; given to [`Writer::seal`], read from [`Header`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeaderFields {
    /// Which stream.
    pub stream: Stream,
    /// Sequence number of the segment: counts segments opened in this log.
    pub segment_seq: u64,
    /// Sequence number of the batch: counts batches of all streams of this log, without gaps.
    pub batch_seq: u64,
    /// All batches up to this one were durable when this one was sealed.
    pub durable: u64,
    /// The incarnation (see [`super::Boundary`]).
    pub incarnation: u32,
    /// The segment its stream will use after this one.
    pub next: SegmentId,
    /// Where the header itself lies.
    pub addr: Addr,
}

/// A proven header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Its fields.
    pub fields: HeaderFields,
    /// Payload blocks after it.
    pub payload: u32,
    used: usize,
}

impl Header {
    /// Proves a block that lies at `addr`: it is a header, of this log, written for this place, and every record in
    /// it is well-formed.
    pub fn decode(block: &[u8], id: &LogId, addr: Addr) -> Result<Header, FormatError> {
        let header = Header::decode_trusting_crc(block, id, addr)?;
        let stored = u32::from_le_bytes(block[HEADER_USED_MAX..BATCH_HEADER].try_into().expect("four bytes"));
        if crc32c(&block[..HEADER_USED_MAX]) != stored {
            return Err(FormatError::Checksum);
        }
        Ok(header)
    }

    /// [`Header::decode`] without the checksum: for the planted bug that skips it.
    pub(in crate::store) fn decode_trusting_crc(block: &[u8], id: &LogId, addr: Addr) -> Result<Header, FormatError> {
        if block.len() < BATCH_HEADER {
            return Err(FormatError::Short);
        }
        let (raw, _) = FixedBytes::ref_from_prefix(block).map_err(|_| FormatError::Short)?;
        if raw.magic != MAGIC {
            return Err(FormatError::Magic);
        }
        if raw.version.get() != VERSION {
            return Err(FormatError::Version { found: raw.version.get() });
        }
        if raw.store != id.store || raw.slice.get() != id.slice || raw.addr.get() != addr.0 {
            return Err(FormatError::Stranger);
        }
        let (used, payload) = (usize::from(raw.used.get()), u32::from(raw.payload.get()));
        let stream = Stream::from_number(raw.stream).ok_or(FormatError::Field)?;
        if !(FIXED..=HEADER_USED_MAX).contains(&used) || payload > PAYLOAD_MAX {
            return Err(FormatError::Field);
        }
        prove_records(&block[FIXED..used], raw.records.get(), payload)?;
        let fields = HeaderFields {
            stream,
            segment_seq: raw.segment_seq.get(),
            batch_seq: raw.batch_seq.get(),
            durable: raw.durable.get(),
            incarnation: raw.incarnation.get(),
            next: SegmentId(raw.next.get()),
            addr,
        };
        Ok(Header { fields, payload, used })
    }

    /// The records of the block that [`Header::decode`] has proven.
    pub fn records<'a>(&self, block: &'a [u8]) -> Records<'a> {
        Records::trusted(block, self.used)
    }
    /// Blocks of the whole batch.
    pub fn blocks(&self) -> u32 {
        1 + self.payload
    }
}

fn prove_records(bytes: &[u8], expected: u16, payload: u32) -> Result<(), FormatError> {
    let mut records = Records { rest: bytes, payload_at: 0 };
    let mut found = 0u16;
    while !records.rest.is_empty() {
        let record = records.parse()?;
        let count_ok = match record.kind {
            Kind::Data | Kind::Move | Kind::Zero | Kind::Lost => record.count >= 1 && record.count <= 512,
            Kind::VolumeSet | Kind::VolumeDelete => record.count == 0,
            Kind::Leaf | Kind::Dir | Kind::Manifest => record.count == 1,
        };
        let end = record.first.checked_add(u64::from(record.count));
        if !count_ok || end.is_none_or(|e| e > VolumeMeta::BYTES_MAX) {
            return Err(FormatError::Field);
        }
        if record.kind == Kind::VolumeSet && record.meta()?.id != record.volume {
            return Err(FormatError::Field);
        }
        found += 1;
    }
    if found == expected && records.payload_at == payload { Ok(()) } else { Err(FormatError::Field) }
}

/// Builds a header in place, record by record, in the buffer that goes to the device.
#[derive(Clone, Copy, Debug)]
pub struct Writer {
    used: u16,
    records: u16,
    payload: u16,
}

impl Writer {
    /// An empty header.
    pub fn new() -> Writer {
        Writer { used: FIXED as u16, records: 0, payload: 0 }
    }
    /// True while no record has been added.
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }
    /// Payload blocks described so far.
    pub fn payload(&self) -> u32 {
        u32::from(self.payload)
    }
    /// Bytes of the header used so far.
    pub fn used(&self) -> usize {
        usize::from(self.used)
    }
    /// Records added so far.
    pub fn records(&self) -> u32 {
        u32::from(self.records)
    }
    /// Most blocks that one more record of this kind could describe (0: no room for a record at all).
    #[inline]
    pub fn room(&self, kind: Kind) -> u32 {
        let free = HEADER_USED_MAX - usize::from(self.used);
        let fixed = RECORD + kind.tail(0);
        if free < fixed {
            return 0;
        }
        let each = kind.tail(1) - kind.tail(0);
        (free - fixed).checked_div(each).map_or(512, |n| n as u32)
    }

    /// Adds a record and returns its tail to be filled, and the number of its first payload block.
    /// The caller has asked [`Writer::room`].
    #[inline]
    pub fn push<'a>(&mut self, block: &'a mut [u8], kind: Kind, what: Described) -> (&'a mut [u8], u32) {
        let at = usize::from(self.used);
        let end = at + RECORD + kind.tail(what.count);
        assert!(end <= HEADER_USED_MAX, "no room for the record");
        let raw = RecordBytes {
            volume: what.volume.0.into(),
            kind: kind as u8,
            flags: 0,
            count: (what.count as u16).into(),
            first: what.first.into(),
            epoch: what.stamp.epoch.into(),
            shard: what.stamp.shard.0.into(),
            stored: 0.into(),
            lsn: what.stamp.lsn.into(),
        };
        block[at..at + RECORD].copy_from_slice(raw.as_bytes());
        let payload_at = self.payload();
        self.used = end as u16;
        self.records += 1;
        self.payload += kind.payload(what.count) as u16;
        (&mut block[at + RECORD..end], payload_at)
    }

    /// Writes the fixed part, clears what is unused and seals the block with its checksum.
    pub fn seal(&self, block: &mut [u8], id: &LogId, fields: &HeaderFields) {
        let raw = FixedBytes {
            magic: MAGIC,
            version: VERSION.into(),
            stream: fields.stream as u8,
            flags: 0,
            store: id.store,
            slice: id.slice.into(),
            records: self.records.into(),
            payload: self.payload.into(),
            used: self.used.into(),
            segment_seq: fields.segment_seq.into(),
            batch_seq: fields.batch_seq.into(),
            durable: fields.durable.into(),
            incarnation: fields.incarnation.into(),
            next: fields.next.0.into(),
            addr: fields.addr.0.into(),
            reserved: 0.into(),
        };
        block[..FIXED].copy_from_slice(raw.as_bytes());
        block[usize::from(self.used)..HEADER_USED_MAX].fill(0);
        let crc = crc32c(&block[..HEADER_USED_MAX]);
        block[HEADER_USED_MAX..BATCH_HEADER].copy_from_slice(&crc.to_le_bytes());
    }
}

impl Default for Writer {
    fn default() -> Self {
        Self::new()
    }
}

/// What a new record describes.
#[derive(Clone, Copy, Debug)]
pub struct Described {
    /// Which volume.
    pub volume: VolumeId,
    /// First block (or page number).
    pub first: u64,
    /// Blocks.
    pub count: u32,
    /// Where the write stands in its shard.
    pub stamp: Stamp,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::format::Name;

    const ID: LogId = LogId { store: [3; 16], slice: 2 };

    fn fields(addr: u32) -> HeaderFields {
        HeaderFields {
            stream: Stream::Cold,
            segment_seq: 77,
            batch_seq: 1234,
            durable: 1230,
            incarnation: 3,
            next: SegmentId(9),
            addr: Addr(addr),
        }
    }

    fn meta() -> VolumeMeta {
        let name = Name::new("v").unwrap();
        let id = VolumeId(4);
        VolumeMeta {
            id,
            uuid: [1; 16],
            name,
            bytes: 1 << 20,
            lba_bytes: 4096,
            thin: true,
            read_only: false,
            created: 0,
        }
    }

    fn what(first: u64, count: u32) -> Described {
        let stamp = Stamp { shard: ShardId(5), epoch: 6, lsn: 700 + first };
        Described { volume: VolumeId(4), first, count, stamp }
    }

    fn sample() -> Vec<u8> {
        let mut block = vec![0xaa; BLOCK];
        let mut w = Writer::new();
        let (tail, at) = w.push(&mut block, Kind::Data, what(10, 2));
        tail.copy_from_slice(&[1, 0, 0, 0, 2, 0, 0, 0]);
        assert_eq!(at, 0);
        let (tail, at) = w.push(&mut block, Kind::Move, what(30, 1));
        tail.copy_from_slice(&[3, 0, 0, 0, 99, 0, 0, 0]);
        assert_eq!(at, 2);
        w.push(&mut block, Kind::Zero, what(512, 512));
        let (tail, _) = w.push(&mut block, Kind::VolumeSet, what(0, 0));
        tail.copy_from_slice(meta().encode().as_bytes());
        let (tail, at) = w.push(&mut block, Kind::Leaf, what(1, 1));
        tail.fill(9);
        assert_eq!((at, w.payload(), w.records()), (3, 4, 5));
        w.seal(&mut block, &ID, &fields(40));
        block
    }

    #[test]
    fn records_round_trip() {
        let block = sample();
        let header = Header::decode(&block, &ID, Addr(40)).unwrap();
        assert_eq!((header.fields, header.payload, header.blocks()), (fields(40), 4, 5));
        let all: Vec<Record<'_>> = header.records(&block).collect();
        assert_eq!(all.len(), 5);
        assert_eq!((all[0].kind, all[0].first, all[0].crc(1), all[0].stamp.lsn), (Kind::Data, 10, 2, 710));
        assert_eq!((all[1].crc(0), all[1].from(0), all[1].payload_at), (3, Addr(99), 2));
        assert_eq!((all[2].kind, all[2].count), (Kind::Zero, 512));
        assert_eq!(all[3].meta(), Ok(meta()));
        assert_eq!((all[4].payload_at, all[4].crc(0)), (3, 0x0909_0909));
    }

    #[test]
    fn strangers_and_every_flipped_bit_are_refused() {
        let mut block = sample();
        let other = LogId { store: [3; 16], slice: 1 };
        assert_eq!(Header::decode(&block, &other, Addr(40)), Err(FormatError::Stranger));
        assert_eq!(Header::decode(&block, &ID, Addr(41)), Err(FormatError::Stranger));
        assert_eq!(Header::decode(&block[..4095], &ID, Addr(40)), Err(FormatError::Short));
        for at in 0..BLOCK {
            for bit in 0..8 {
                block[at] ^= 1 << bit;
                assert!(Header::decode(&block, &ID, Addr(40)).is_err(), "byte {at} bit {bit}");
                block[at] ^= 1 << bit;
            }
        }
    }

    #[test]
    fn random_descriptors_with_a_right_checksum_never_panic() {
        let mut rng = crate::base::rng::Rng::new(11);
        let mut block = sample();
        let good = block.clone();
        for _ in 0..20_000 {
            block.copy_from_slice(&good);
            for _ in 0..=rng.below(3) {
                let at = 28 + rng.below(400) as usize;
                block[at] = rng.next_u64() as u8;
            }
            let crc = crc32c(&block[..HEADER_USED_MAX]);
            block[HEADER_USED_MAX..].copy_from_slice(&crc.to_le_bytes());
            if let Ok(h) = Header::decode(&block, &ID, Addr(40)) {
                let payload: u32 = h.records(&block).map(|r| r.kind.payload(r.count)).sum();
                assert_eq!(payload, h.payload);
            }
        }
    }

    #[test]
    fn a_header_describes_111_single_blocks() {
        let mut block = vec![0; BLOCK];
        let mut w = Writer::new();
        while w.room(Kind::Data) > 0 {
            let n = w.records();
            w.push(&mut block, Kind::Data, what(u64::from(n), 1));
        }
        assert_eq!(w.records() as usize, SINGLES_MAX);
        w.seal(&mut block, &ID, &fields(40));
        assert_eq!(Header::decode(&block, &ID, Addr(40)).unwrap().payload, 111);
    }
}
