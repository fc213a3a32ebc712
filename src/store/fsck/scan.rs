//! The walk over a slice whose index recovery has made: every segment in use batch by batch, then every entry of the index
//! that no sound batch header spoke for.

use super::Reader;
use super::finding::{Report, SliceReport, Subject, What};
use crate::base::crc::crc32c;
use crate::base::{BLOCK, CHUNK_BLOCKS};
use crate::store::format::page::Entry;
use crate::store::format::{Addr, FormatError, Header, Record, SegmentId};
use crate::store::index::{Life, Slot};
use crate::store::segments::State;
use crate::store::slice::Slice;
use crate::store::walk::{Live, list_live};

/// Checks a slice that is ready; `progress` hears the bytes of it that are done.
pub(super) fn scan(
    slice: &Slice,
    reader: &mut Reader<'_>,
    report: &mut Report,
    counts: &mut SliceReport,
    progress: &mut dyn FnMut(u64),
) {
    counts.volumes = slice.volumes().count() as u32;
    counts.mapped = slice.index.mapped();
    counts.replayed = slice.counters.replayed_batches;
    counts.torn = slice.counters.torn_batches;
    let segment_blocks = slice.geometry.segment_blocks as usize;
    let described = vec![0; (slice.geometry.end().0 as usize).div_ceil(64)];
    let mut scan =
        Scan { slice, reader, report, counts, described, bytes: vec![0; segment_blocks * BLOCK], bad: vec![] };
    for n in 0..slice.geometry.segments {
        scan.segment(SegmentId(n));
        progress(u64::from(slice.geometry.start(SegmentId(n)).0) * BLOCK as u64);
    }
    scan.index();
}

struct Scan<'a, 'r> {
    slice: &'a Slice,
    reader: &'a mut Reader<'r>,
    report: &'a mut Report,
    counts: &'a mut SliceReport,
    /// A bit per block of the slice: a sound batch header says what the index says about it.
    described: Vec<u64>,
    /// The segment being walked, and which of its blocks can not be read.
    bytes: Vec<u8>,
    bad: Vec<usize>,
}

impl Scan<'_, '_> {
    fn add(&mut self, addr: Addr, what: What) {
        self.report.add(self.counts.slice, addr, what);
    }

    fn byte(&self, addr: Addr) -> u64 {
        self.slice.cfg.offset + u64::from(addr.0) * BLOCK as u64
    }

    /// Blocks of the segment that hold batches: all of a full one, and up to where its stream goes on of a current one.
    fn used(&self, segment: SegmentId) -> u32 {
        let geometry = self.slice.geometry;
        match self.slice.segments.state(segment) {
            State::Free | State::Reserved => 0,
            State::Current => {
                let places = self.slice.log.replay_places();
                let here = places.iter().find(|p| geometry.segment(p.addr) == segment);
                geometry.offset(here.expect("a stream fills a current segment").addr)
            }
            State::Sealed | State::Cleaning | State::Draining | State::Waiting => geometry.segment_blocks,
        }
    }

    fn segment(&mut self, segment: SegmentId) {
        let used = self.used(segment);
        if used == 0 {
            return;
        }
        self.counts.segments += 1;
        let start = self.slice.geometry.start(segment);
        let (at, len) = (self.byte(start), used as usize * BLOCK);
        self.bad.clear();
        let bad = &mut self.bad;
        self.reader.blocks(at, &mut self.bytes[..len], |n, _| bad.push(n));
        let bytes = std::mem::take(&mut self.bytes);
        self.batches(start, used, &bytes);
        self.bytes = bytes;
    }

    fn batches(&mut self, start: Addr, used: u32, bytes: &[u8]) {
        let (mut offset, mut before): (u32, Option<Header>) = (0, None);
        let mut live = Vec::new();
        // A single block at the end is no room for a batch.
        while used - offset >= 2 || (offset < used && used < self.slice.geometry.segment_blocks) {
            let addr = start.plus(offset);
            let block = &bytes[offset as usize * BLOCK..][..BLOCK];
            let header = match Header::decode(block, &self.slice.id, addr) {
                Ok(h) if h.blocks() <= used - offset => h,
                other => return self.add(addr, What::Header(other.err().unwrap_or(FormatError::Field))),
            };
            let (f, batch) = (header.fields, header.fields.batch_seq);
            let follows = |b: &Header| {
                let b = b.fields;
                b.segment_seq == f.segment_seq
                    && b.stream == f.stream
                    && b.batch_seq < batch
                    && b.incarnation <= f.incarnation
            };
            if !before.as_ref().is_none_or(follows) {
                return self.add(addr, What::Order { batch });
            }
            for record in header.records(block) {
                live.clear();
                list_live(&record, addr.plus(1), &self.slice.index, &mut live);
                for one in &live {
                    let at = (one.addr.0 - start.0) as usize;
                    self.verify(one, &record, addr.plus(1), at, &bytes[at * BLOCK..][..BLOCK]);
                }
            }
            self.counts.batches += 1;
            offset += header.blocks();
            before = Some(header);
        }
    }

    /// One live block or page of the batch: block `at` of the segment.
    fn verify(&mut self, live: &Live, record: &Record<'_>, base: Addr, at: usize, content: &[u8]) {
        self.described[live.addr.0 as usize / 64] |= 1 << (live.addr.0 % 64);
        let subject = Subject::of(live);
        if record.crc(live.addr.0 - base.0 - record.payload_at) != live.crc {
            self.add(live.addr, What::Disagreement(subject));
        }
        if self.bad.binary_search(&at).is_ok() {
            self.add(live.addr, What::Unreadable(subject));
        } else {
            self.content(live.addr, live.crc, subject, content);
        }
    }

    fn content(&mut self, addr: Addr, crc: u32, subject: Subject, content: &[u8]) {
        if crc32c(content) == crc {
            self.counts.verified_bytes += BLOCK as u64;
        } else {
            self.add(addr, What::Content(subject));
        }
    }

    /// Everything that the index names: what no header described is a finding, and is verified alone.
    fn index(&mut self) {
        let slice = self.slice;
        for slot in slice.index.slots().filter(|s| slice.index.volume(*s).life == Life::Live) {
            for number in 0..slice.index.volume(slot).dirs.len() {
                self.directory(slot, number);
            }
        }
    }

    fn directory(&mut self, slot: Slot, number: usize) {
        let slice = self.slice;
        let id = slice.index.volume(slot).meta.id;
        let Some(dir) = slice.index.dir(slot, number) else { return };
        self.named(dir.own.durable, Subject::Directory(id, number as u64));
        for (at, page) in dir.pages.iter().enumerate() {
            let chunk = number as u64 * CHUNK_BLOCKS + at as u64;
            self.named(page.durable, Subject::Leaf(id, chunk));
            let Some(leaf) = slice.index.leaf(slot, chunk) else { continue };
            for (i, word) in leaf.iter().enumerate() {
                self.named(Entry::unpack(*word), Subject::Block(id, chunk * CHUNK_BLOCKS + i as u64));
            }
        }
    }

    fn named(&mut self, entry: Entry, subject: Subject) {
        let addr = entry.addr;
        if addr == Addr::LOST {
            self.counts.lost += 1;
        }
        if !addr.is_place() {
            return;
        }
        let (word, bit) = (&mut self.described[addr.0 as usize / 64], 1u64 << (addr.0 % 64));
        if *word & bit != 0 {
            // Taken back, so that a second entry that names the same place is found out.
            *word &= !bit;
            return;
        }
        self.add(addr, What::Undescribed(subject));
        let mut block = vec![0; BLOCK];
        let at = self.byte(addr);
        match (self.reader.read)(at, &mut block) {
            Ok(()) => self.content(addr, entry.crc, subject, &block),
            Err(_) => self.add(addr, What::Unreadable(subject)),
        }
    }
}
