//! The state of a slice as its medium tells it: checkpoint first, then the log after it, batch by batch.

use super::{Cause, Check, What};
use crate::base::crc::crc32c;
use crate::base::{BLOCK, CHUNK_BLOCKS, VolumeId};
use crate::store::error::Damage;
use crate::store::format::page::{Entry, Item, decode_entries, decode_manifest};
use crate::store::format::superblock::incarnation_fits;
use crate::store::format::{Addr, FormatError, Header, Place, STREAMS, SegmentId};
use std::collections::VecDeque;

struct Held {
    header: Header,
    block: Vec<u8>,
}

/// The log after the checkpoint, as far as it was followed.
struct Log {
    places: [Option<Place>; STREAMS],
    /// Where each stream's evidence is looked for.
    tails: [Place; STREAMS],
    expected: u64,
    durable: u64,
    held: VecDeque<Held>,
    applied: u64,
}

impl Check<'_> {
    /// Reads the checkpoint's manifest, directory pages and leaves into the map.
    pub fn load_checkpoint(&mut self) {
        let mut page = Entry { addr: self.sb.root.0, crc: self.sb.root.1 };
        let (mut dirs, mut pages) = (Vec::new(), 0);
        while page != Entry::NONE {
            let id = self.id;
            let found = self.reader.block(page.addr).and_then(|block| Ok(decode_manifest(block, page.crc, &id)?));
            let (fields, items) = match found {
                Ok(found) => found,
                Err(cause) => return self.find(page.addr, What::Structure(Damage::Manifest), cause),
            };
            // The chain goes backwards: every page names the one before it, the first names none.
            let prev_ok = if fields.number == 0 { fields.prev == Entry::NONE } else { self.is_place(fields.prev.addr) };
            pages += 1;
            if fields.checkpoint != self.sb.checkpoint || !prev_ok || pages > self.sb.geometry.blocks() {
                return self.find(page.addr, What::Structure(Damage::Manifest), FormatError::Field.into());
            }
            for item in items {
                match item {
                    Item::Volume(meta) => self.map.put(meta),
                    Item::Dir { volume, number, page } => dirs.push((volume, number, page)),
                    Item::Segment { .. } | Item::Stamp(_) => {}
                }
            }
            page = fields.prev;
        }
        for (volume, number, page) in dirs {
            if self.map.has(volume) {
                self.load_directory(volume, number, page);
            }
        }
    }

    fn is_place(&self, addr: Addr) -> bool {
        addr.is_place() && self.sb.geometry.holds(addr)
    }

    /// A page of 512 entries, if it is what its pointer says.
    fn page(&mut self, page: Entry, what: Damage) -> Option<Vec<Entry>> {
        if !self.is_place(page.addr) {
            self.find(page.addr, What::Structure(what), FormatError::Field.into());
            return None;
        }
        let found = self
            .reader
            .block(page.addr)
            .and_then(|block| if crc32c(block) == page.crc { Ok(block) } else { Err(FormatError::Checksum.into()) });
        match found {
            Ok(block) => Some(decode_entries(block).map(Entry::unpack).collect()),
            Err(cause) => {
                self.find(page.addr, What::Structure(what), cause);
                None
            }
        }
    }

    fn load_directory(&mut self, volume: VolumeId, number: u32, page: Entry) {
        let Some(leaves) = self.page(page, Damage::Directory) else { return };
        for (i, leaf) in leaves.into_iter().enumerate().filter(|(_, leaf)| *leaf != Entry::NONE) {
            let chunk = u64::from(number) * CHUNK_BLOCKS + i as u64;
            let Some(entries) = self.page(leaf, Damage::Leaf) else { continue };
            for (j, entry) in entries.into_iter().enumerate().filter(|(_, entry)| *entry != Entry::NONE) {
                if entry == Entry::LOST || self.is_place(entry.addr) {
                    self.map.set(volume, chunk * CHUNK_BLOCKS + j as u64, entry);
                } else {
                    self.find(leaf.addr, What::Structure(Damage::Leaf), FormatError::Field.into());
                }
            }
        }
    }

    /// Follows the log after the checkpoint; gives the number of batches applied and of torn ones at its end.
    pub fn replay(&mut self) -> (u64, u64) {
        let sb = &self.sb;
        let mut log = Log {
            places: sb.places.map(Some),
            tails: sb.places,
            expected: sb.covered + 1,
            durable: sb.durable,
            held: VecDeque::new(),
            applied: 0,
        };
        while self.take_next(&mut log) {
            self.apply_durable(&mut log);
        }
        for tail in log.tails {
            self.look_for_evidence(tail, &mut log);
        }
        if log.durable >= log.expected {
            let (addr, what) = (log.tails[0].addr, What::Hole { batch: log.expected, durable: log.durable });
            self.find(addr, what, Cause::Contradiction);
        }
        self.apply_durable(&mut log);
        while let Some(held) = log.held.front() {
            if !self.is_whole(held.header, &held.block) {
                break;
            }
            self.apply_front(&mut log);
        }
        (log.applied, log.held.len() as u64)
    }

    /// The header at a place, if it belongs to the log after the checkpoint.
    fn current(&mut self, stream: Option<usize>, addr: Addr) -> Option<(Header, Vec<u8>)> {
        let id = self.id;
        let block = self.reader.block(addr).ok()?;
        let header = Header::decode(block, &id, addr).ok()?;
        let block = block.to_vec();
        let f = &header.fields;
        let fits = stream.is_none_or(|n| f.stream.index() == n)
            && f.batch_seq > self.sb.covered
            && incarnation_fits(&self.sb.boundaries, f.batch_seq, f.incarnation)
            && f.next.0 < self.sb.geometry.segments
            && header.blocks() <= self.sb.geometry.room(addr);
        fits.then_some((header, block))
    }

    /// Takes the next batch from whichever stream has it.
    fn take_next(&mut self, log: &mut Log) -> bool {
        for stream in 0..STREAMS {
            let Some(place) = log.places[stream] else { continue };
            match self.current(Some(stream), place.addr) {
                Some((header, block)) if header.fields.batch_seq == log.expected => {
                    let after = self.place_after(&header);
                    (log.places[stream], log.tails[stream]) = (Some(after), after);
                    log.durable = log.durable.max(header.fields.durable);
                    log.expected += 1;
                    log.held.push_back(Held { header, block });
                    return true;
                }
                Some((header, _)) if header.fields.batch_seq > log.expected => {}
                _ => log.places[stream] = None,
            }
        }
        false
    }

    /// Where a stream goes on behind a batch.
    fn place_after(&self, header: &Header) -> Place {
        let (f, geometry) = (&header.fields, self.sb.geometry);
        if geometry.room(f.addr) - header.blocks() < 2 {
            return Place { addr: geometry.start(f.next), next: SegmentId::NONE, segment_seq: 0 };
        }
        Place { addr: f.addr.plus(header.blocks()), next: f.next, segment_seq: f.segment_seq }
    }

    fn apply_durable(&mut self, log: &mut Log) {
        while log.held.front().is_some_and(|held| held.header.fields.batch_seq <= log.durable) {
            self.apply_front(log);
        }
    }

    fn apply_front(&mut self, log: &mut Log) {
        let held = log.held.pop_front().expect("the caller looked");
        let base = held.header.fields.addr.plus(1);
        for record in held.header.records(&held.block) {
            self.map.apply(&record, base);
        }
        log.applied += 1;
    }

    /// Goes through the rest of a stream for headers that say what was durable, as far as segments chain on.
    fn look_for_evidence(&mut self, tail: Place, log: &mut Log) {
        let geometry = self.sb.geometry;
        let (mut addr, mut next) = (tail.addr, tail.next);
        for _ in 0..=geometry.segments {
            let end = geometry.start(geometry.segment(addr)).plus(geometry.segment_blocks);
            let mut any = addr == tail.addr;
            while addr < end {
                match self.current(None, addr).filter(|(h, _)| h.fields.batch_seq > log.expected) {
                    Some((header, _)) => {
                        log.durable = log.durable.max(header.fields.durable);
                        (next, any) = (header.fields.next, true);
                        addr = addr.plus(header.blocks());
                    }
                    None => addr = addr.plus(1),
                }
            }
            if !any || next == SegmentId::NONE {
                return;
            }
            (addr, next) = (geometry.start(next), SegmentId::NONE);
        }
    }

    /// True when every payload block of a batch fits its descriptor.
    fn is_whole(&mut self, header: Header, block: &[u8]) -> bool {
        let base = header.fields.addr.plus(1);
        header.records(block).all(|record| {
            (0..record.kind.payload(record.count)).all(|i| {
                let found = self.reader.block(base.plus(record.payload_at + i));
                found.is_ok_and(|payload| payload.len() == BLOCK && crc32c(payload) == record.crc(i))
            })
        })
    }
}
