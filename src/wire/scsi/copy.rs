//! EXTENDED COPY(LID1) parameter lists (SPC-4, 6.4) and the answers about them (SPC-4, 6.17 on).

use super::{Asc, Out, asc, be16, be32, be64};

/// Target descriptors of one list at most.
pub const TARGETS_MAX: usize = 16;
/// Segment descriptors of one list at most.
pub const SEGMENTS_MAX: usize = 64;
/// Bytes of all descriptors together at most.
pub const DESCRIPTORS_MAX: usize = 4096;
/// Bytes of a parameter list at most: header and descriptors, no inline data.
pub const LIST_MAX: usize = HEADER + DESCRIPTORS_MAX;
/// Bytes of one segment at most.
pub const SEGMENT_BYTES_MAX: u32 = 256 << 20;

const HEADER: usize = 16;
const TARGET_LEN: usize = 32;
/// Identification descriptor target descriptor.
const TARGET_IDENTIFICATION: u8 = 0xe4;
/// Block device to block device.
const SEGMENT_BLOCKS: u8 = 0x02;
/// Block device to block device with offset: a length in bytes.
const SEGMENT_OFFSET: u8 = 0x0a;

/// Why a list is refused: an additional sense code of ILLEGAL REQUEST and the byte, where there is one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bad {
    /// The code.
    pub asc: Asc,
    /// Byte of the list.
    pub at: u16,
}

/// A segment: what is copied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    /// Source, by its number in the list of targets.
    pub source: u16,
    /// Destination.
    pub destination: u16,
    /// DC: the count is of blocks of the destination.
    pub by_destination: bool,
    /// How much.
    pub amount: Amount,
    /// First block of the source.
    pub source_lba: u64,
    /// First block of the destination.
    pub destination_lba: u64,
}

/// The length of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Amount {
    /// Blocks.
    Blocks(u32),
    /// Bytes, and the offsets within the first blocks.
    Bytes {
        /// How many.
        bytes: u32,
        /// In the first block of the source.
        source_offset: u16,
        /// In the first block of the destination.
        destination_offset: u16,
    },
}

/// A list that is whole and of descriptors that we know.
#[derive(Clone, Copy, Debug)]
pub struct List<'a> {
    targets: &'a [u8],
    segments: &'a [u8],
    /// LIST IDENTIFIER.
    pub id: u8,
    /// LIST ID USAGE 11b: the identifier means nothing, and no result is kept.
    pub discard: bool,
}

impl<'a> List<'a> {
    /// Proves a parameter list; it is not empty.
    pub fn parse(list: &'a [u8]) -> Result<List<'a>, Bad> {
        let short = |at| Bad { asc: asc::PARAMETER_LIST_LENGTH, at };
        let header = list.get(..HEADER).ok_or(short(0))?;
        let targets = usize::from(be16(header, 2));
        let segments = be32(header, 8) as usize;
        if targets.saturating_add(segments) > DESCRIPTORS_MAX {
            return Err(short(2));
        }
        if be32(header, 12) != 0 {
            // Inline data: no segment of ours uses any.
            return Err(Bad { asc: asc::INVALID_FIELD_IN_PARAMETERS, at: 12 });
        }
        let rest = list.get(HEADER..HEADER + targets + segments).ok_or(short(2))?;
        let (targets, segments) = rest.split_at(targets);
        if targets.len() % TARGET_LEN != 0 {
            return Err(short(2));
        }
        if targets.len() / TARGET_LEN > TARGETS_MAX {
            return Err(Bad { asc: asc::TOO_MANY_TARGETS, at: 2 });
        }
        for (at, target) in targets.chunks(TARGET_LEN).enumerate() {
            if target[0] != TARGET_IDENTIFICATION {
                return Err(Bad { asc: asc::UNSUPPORTED_TARGET, at: (HEADER + at * TARGET_LEN) as u16 });
            }
        }
        let (mut at, mut count) = (0, 0);
        while at < segments.len() {
            let place = (HEADER + targets.len() + at) as u16;
            if count == SEGMENTS_MAX {
                return Err(Bad { asc: asc::TOO_MANY_SEGMENTS, at: place });
            }
            let head = segments.get(at..at + 4).ok_or(short(8))?;
            let want = match head[0] {
                SEGMENT_BLOCKS => 0x18,
                SEGMENT_OFFSET => 0x1c,
                _ => return Err(Bad { asc: asc::UNSUPPORTED_SEGMENT, at: place }),
            };
            if be16(head, 2) != want {
                return Err(Bad { asc: asc::INVALID_FIELD_IN_PARAMETERS, at: place + 2 });
            }
            at += 4 + usize::from(want);
            count += 1;
            if at > segments.len() {
                return Err(short(8));
            }
        }
        Ok(List { targets, segments, id: header[0], discard: header[1] & 0x18 == 0x18 })
    }

    /// The designation descriptor of a target: code set and type in its first bytes, length in byte 3; `None` when
    /// there is no target of this number.
    pub fn target(&self, number: u16) -> Option<&'a [u8]> {
        let at = usize::from(number) * TARGET_LEN;
        self.targets.get(at + 4..at + 28)
    }

    /// The segments, in order.
    pub fn segments(&self) -> impl Iterator<Item = Segment> + use<'a> {
        let segments = self.segments;
        let mut at = 0;
        core::iter::from_fn(move || {
            let s = segments.get(at..)?;
            let code = *s.first()?;
            at += 4 + usize::from(be16(s, 2));
            let amount = if code == SEGMENT_BLOCKS {
                Amount::Blocks(u32::from(be16(s, 10)))
            } else {
                Amount::Bytes { bytes: be32(s, 8), source_offset: be16(s, 28), destination_offset: be16(s, 30) }
            };
            Some(Segment {
                source: be16(s, 4),
                destination: be16(s, 6),
                by_destination: s[1] & 2 != 0,
                amount,
                source_lba: be64(s, 12),
                destination_lba: be64(s, 20),
            })
        })
    }
}

/// How a copy stands or ended (COPY MANAGER STATUS).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum CopyStatus {
    /// In progress.
    Running = 0,
    /// Done.
    Done = 1,
    /// Failed.
    Failed = 2,
}

/// Emits the data of RECEIVE COPY STATUS(LID1).
pub fn put_status(out: &mut Out<'_>, status: CopyStatus, segments: u16, bytes: u64) {
    out.u32(8);
    out.u8(status as u8);
    out.u16(segments);
    // TRANSFER COUNT in mebibytes where bytes do not fit, bytes otherwise.
    if let Ok(bytes) = u32::try_from(bytes) {
        out.u8(0);
        out.u32(bytes);
    } else {
        out.u8(2);
        out.u32((bytes >> 20) as u32);
    }
}

/// Emits the data of RECEIVE COPY OPERATING PARAMETERS.
pub fn put_parameters(out: &mut Out<'_>, concurrent: u8, granularity_log2: u8) {
    out.u32(0);
    // SNLID 0; reserved.
    out.u32(0);
    out.u16(TARGETS_MAX as u16);
    out.u16(SEGMENTS_MAX as u16);
    out.u32(DESCRIPTORS_MAX as u32);
    out.u32(SEGMENT_BYTES_MAX);
    // No inline data; held data: the results; no streams.
    out.zeroes(12);
    out.zeroes(2);
    out.u16(u16::from(concurrent));
    out.u8(concurrent);
    out.u8(granularity_log2);
    out.put(&[0, 0]);
    out.zeroes(3);
    out.u8(3);
    out.put(&[SEGMENT_BLOCKS, SEGMENT_OFFSET, TARGET_IDENTIFICATION]);
    out.patch_len32(0);
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::wire::mutate::Mutator;

    /// A list of one target (an NAA designator) and one segment of either kind.
    pub(crate) fn list(id: u8, usage: u8, naa: [u8; 8], segments: &[Segment]) -> Vec<u8> {
        let mut room = [0; LIST_MAX];
        let mut out = Out::new(&mut room);
        out.put(&[id, usage << 3]);
        out.u16(32);
        out.u32(0);
        out.u32(0);
        out.u32(0);
        out.put(&[0xe4, 0, 0, 0, 1, 3, 0, 8]);
        out.put(&naa);
        out.zeroes(16);
        let before = out.len();
        for s in segments {
            match s.amount {
                Amount::Blocks(n) => {
                    out.put(&[2, u8::from(s.by_destination) << 1, 0, 0x18]);
                    out.u16(s.source);
                    out.u16(s.destination);
                    out.u16(0);
                    out.u16(n as u16);
                    out.u64(s.source_lba);
                    out.u64(s.destination_lba);
                }
                Amount::Bytes { bytes, source_offset, destination_offset } => {
                    out.put(&[10, 0, 0, 0x1c]);
                    out.u16(s.source);
                    out.u16(s.destination);
                    out.u32(bytes);
                    out.u64(s.source_lba);
                    out.u64(s.destination_lba);
                    out.u16(source_offset);
                    out.u16(destination_offset);
                }
            }
        }
        let (len, segments) = (out.len(), out.len() - before);
        out.patch(8, &(segments as u32).to_be_bytes());
        room[..len].to_vec()
    }

    pub(crate) fn segment(amount: Amount, source_lba: u64, destination_lba: u64) -> Segment {
        Segment { source: 0, destination: 0, by_destination: false, amount, source_lba, destination_lba }
    }

    #[test]
    fn a_list_is_read_back_and_every_cut_is_a_length_error() {
        let bytes = Amount::Bytes { bytes: 70_000, source_offset: 3, destination_offset: 4 };
        let segments = [segment(Amount::Blocks(9), 1, 2), segment(bytes, 1 << 40, 6)];
        let golden = list(7, 3, [0x3a; 8], &segments);
        let parsed = List::parse(&golden).unwrap();
        assert!(parsed.id == 7 && parsed.discard);
        assert_eq!(parsed.target(0).unwrap()[..5], [1, 3, 0, 8, 0x3a]);
        assert!(parsed.target(1).is_none());
        assert_eq!(parsed.segments().collect::<Vec<_>>(), segments);
        for cut in 0..golden.len() {
            assert_eq!(List::parse(&golden[..cut]).unwrap_err().asc, asc::PARAMETER_LIST_LENGTH, "cut at {cut}");
        }
    }

    #[test]
    fn limits_and_types_are_named() {
        let many = vec![segment(Amount::Blocks(1), 0, 9); SEGMENTS_MAX + 1];
        assert!(List::parse(&list(1, 0, [0; 8], &many[..SEGMENTS_MAX])).is_ok());
        assert_eq!(List::parse(&list(1, 0, [0; 8], &many)).unwrap_err().asc, asc::TOO_MANY_SEGMENTS);
        let mut bad = list(1, 0, [0; 8], &many[..1]);
        bad[16] = 0xe0;
        assert_eq!(List::parse(&bad).unwrap_err().asc, asc::UNSUPPORTED_TARGET);
        let mut bad = list(1, 0, [0; 8], &many[..1]);
        bad[48] = 3;
        assert_eq!(List::parse(&bad).unwrap_err(), Bad { asc: asc::UNSUPPORTED_SEGMENT, at: 48 });
        let mut wide = vec![0u8; LIST_MAX + 64];
        wide[2..4].copy_from_slice(&(32 * 17u16).to_be_bytes());
        wide[16..16 + 32 * 17].chunks_mut(32).for_each(|t| t[0] = 0xe4);
        assert_eq!(List::parse(&wide).unwrap_err().asc, asc::TOO_MANY_TARGETS);
        wide[8..12].copy_from_slice(&4000u32.to_be_bytes());
        assert_eq!(List::parse(&wide).unwrap_err().asc, asc::PARAMETER_LIST_LENGTH);
    }

    #[test]
    fn no_list_is_too_strange() {
        let segments = [segment(Amount::Blocks(9), 1, 2), segment(Amount::Blocks(3), 4, 6)];
        let mut mutator = Mutator::new(8, vec![list(1, 0, [1; 8], &segments)]);
        for _ in 0..400_000 {
            if let Ok(list) = List::parse(mutator.next()) {
                assert!(list.segments().count() <= SEGMENTS_MAX);
            }
        }
    }
}
