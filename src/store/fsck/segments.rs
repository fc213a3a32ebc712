//! Every segment from its start: what of it is mapped is read and verified, and what is mapped must be found.

use super::{Cause, Check, What};
use crate::base::crc::crc32c;
use crate::base::{BLOCK, VolumeId};
use crate::store::error::Damage;
use crate::store::format::batch::Kind;
use crate::store::format::page::Entry;
use crate::store::format::{Addr, FormatError, Header, SegmentId};

/// A mapped block of a batch, by its descriptor.
struct Live {
    volume: VolumeId,
    block: u64,
    addr: Addr,
    crc: u32,
}

/// One bit per block of the slice.
struct Seen(Vec<u64>);

impl Seen {
    fn set(&mut self, addr: Addr) {
        self.0[addr.0 as usize / 64] |= 1 << (addr.0 % 64);
    }
    /// Takes the bit away, so that a second owner of the same block does not find it.
    fn take(&mut self, addr: Addr) -> bool {
        let (word, bit) = (&mut self.0[addr.0 as usize / 64], 1 << (addr.0 % 64));
        let was = *word & bit != 0;
        *word &= !bit;
        was
    }
}

impl Check<'_> {
    /// Verifies all mapped blocks; gives their number. `tell` hears the bytes of the slice that are behind.
    pub fn verify_segments(&mut self, tell: &mut dyn FnMut(u64)) -> u64 {
        let geometry = self.sb.geometry;
        let mut seen = Seen(vec![0; geometry.end().0 as usize / 64 + 1]);
        for segment in 0..geometry.segments {
            let start = geometry.start(SegmentId(segment));
            self.verify_segment(start, start.plus(geometry.segment_blocks), &mut seen);
            tell(u64::from(start.0) * BLOCK as u64);
        }
        let mut mapped = 0;
        let undescribed: Vec<(VolumeId, u64, Entry)> = self
            .map
            .entries()
            .inspect(|_| mapped += 1)
            .filter(|(.., entry)| *entry == Entry::LOST || !seen.take(entry.addr))
            .collect();
        for (volume, block, entry) in undescribed {
            self.judge_undescribed(volume.0, block, entry);
        }
        mapped
    }

    /// Goes through the batches of a segment. Where no header is, the batches have ended; but if one further on has
    /// mapped blocks, the header was damaged.
    fn verify_segment(&mut self, start: Addr, end: Addr, seen: &mut Seen) {
        let id = self.id;
        let mut at = start;
        let mut gap: Option<(Addr, Cause)> = None;
        while at < end {
            let header = self.reader.next(at, end).and_then(|block| Ok((Header::decode(block, &id, at)?, block)));
            match header {
                Ok((header, block)) if header.blocks() <= end.0 - at.0 => {
                    let live = live_blocks(&header, block, &self.map);
                    if let Some((addr, cause)) = gap.take_if(|_| !live.is_empty()) {
                        self.find(addr, What::Structure(Damage::Batch), cause);
                    }
                    for one in live {
                        self.verify_live(&one, end, seen);
                    }
                    at = at.plus(header.blocks());
                }
                other => {
                    gap.get_or_insert((at, other.err().unwrap_or(FormatError::Field.into())));
                    at = at.plus(1);
                }
            }
        }
    }

    fn verify_live(&mut self, live: &Live, end: Addr, seen: &mut Seen) {
        seen.set(live.addr);
        let (volume, block) = (live.volume.0, live.block);
        let what = What::Payload { volume, block };
        let indexed = self.map.entry(live.volume, live.block).crc;
        match self.reader.next(live.addr, end) {
            Ok(bytes) if crc32c(bytes) != indexed => self.find(live.addr, what, FormatError::Checksum.into()),
            Ok(_) if live.crc != indexed => self.find(live.addr, what, Cause::Contradiction),
            Ok(_) => {}
            Err(cause) => self.find(live.addr, what, cause),
        }
    }

    /// A block that no batch gave as mapped: lost, or its batch's header is damaged, or two blocks claim one place.
    fn judge_undescribed(&mut self, volume: u32, block: u64, entry: Entry) {
        if entry == Entry::LOST {
            return self.find(Addr(0), What::Lost { volume, block }, FormatError::Checksum.into());
        }
        let sound = self.reader.block(entry.addr).map(|bytes| crc32c(bytes) == entry.crc);
        match sound {
            Ok(true) => self.find(entry.addr, What::Undescribed { volume, block }, Cause::Contradiction),
            Ok(false) => self.find(entry.addr, What::Payload { volume, block }, FormatError::Checksum.into()),
            Err(cause) => self.find(entry.addr, What::Payload { volume, block }, cause),
        }
    }
}

/// The blocks of a batch that the map puts exactly there.
fn live_blocks(header: &Header, block: &[u8], map: &super::map::Map) -> Vec<Live> {
    let base = header.fields.addr.plus(1);
    let mut live = Vec::new();
    for record in header.records(block).filter(|r| matches!(r.kind, Kind::Data | Kind::Move)) {
        for i in 0..record.count {
            let (number, addr) = (record.first + u64::from(i), base.plus(record.payload_at + i));
            if map.entry(record.volume, number).addr == addr {
                live.push(Live { volume: record.volume, block: number, addr, crc: record.crc(i) });
            }
        }
    }
    live
}
