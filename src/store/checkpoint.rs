//! Checkpoints: dirty leaves, changed directory pages and a manifest are appended to the log's meta stream, a few pages
//! per turn while hosts go on, then a superblock points to them. A crash before that changes nothing; after it, replay
//! starts at the batch that was stable when the checkpoint began.
//!
//! ```text
//! Idle -> Leaves -> Dirs -> Manifest -> Stable -> Root -> Release -> Idle
//! ```
//! What stays true: a leaf is copied with what is stable only, and every change after `covered` is in the log behind
//! it, so a page may be newer than the checkpoint without harm. Pages of the last durable checkpoint stay live until
//! the next one is durable.

use super::format::batch::{Described, Kind, Stamp};
use super::format::page::{Entry, Item, ManifestFields, ManifestWriter, encode_entries};
use super::format::superblock::Boundary;
use super::format::{Addr, Place, STREAMS, SegmentId, Stream};
use super::index::{Life, NIL, PageState, Slot};
use super::planted::Planted;
use super::request::{Ended, Outcome};
use super::segments::State;
use super::slice::Slice;
use super::superblock::Writing;
use crate::base::crc::crc32c;
use crate::base::{BLOCK, CHUNK_BLOCKS, ShardId, Status, VolumeId};
use crate::device::Queue;
use crate::mem::Pool;

/// Directory pages released per turn at most.
const RELEASE_DIRS: u32 = 16;

/// A place in the walk over all directory pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Cursor {
    slot: u16,
    dir: usize,
    at: usize,
}

impl Cursor {
    const START: Cursor = Cursor { slot: 0, dir: 0, at: 0 };
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Listing {
    Segments(u32),
    Dirs(Cursor),
    Stamps(u16),
    Volumes(u16),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Idle,
    Leaves(Cursor),
    Dirs(Cursor),
    Manifest(Listing),
    Stable(Option<u64>),
    Root,
    Release(Cursor),
}

/// The checkpoint under way and the figures of the last one.
pub(super) struct Checkpoint {
    stage: Stage,
    /// Counts checkpoints; of the one under way, or of the last one.
    pub number: u64,
    covered: u64,
    segment_seq: u64,
    places: [Place; STREAMS],
    /// Pages of the manifest being written, and of the durable one.
    manifest: Vec<Addr>,
    pub durable_manifest: Vec<Addr>,
    last_page: Entry,
    /// Blocks of log when the last one started.
    log_blocks: u64,
    /// Blocks of log that were replayed when the slice was opened.
    pub replayed_blocks: u64,
    /// Pages of the durable checkpoint stand in the way of cleaning: another one would free their segments.
    pub stale_pages: bool,
    forget: u64,
    /// Start one soon: space or volume slots wait for it.
    pub hasten: bool,
    asked: Vec<u64>,
    waiting: Vec<u64>,
}

impl Checkpoint {
    pub fn new() -> Checkpoint {
        let place = Place { addr: Addr::NONE, next: SegmentId::NONE, segment_seq: 0 };
        Checkpoint {
            stage: Stage::Idle,
            number: 0,
            covered: 0,
            segment_seq: 0,
            places: [place; STREAMS],
            manifest: Vec::new(),
            durable_manifest: Vec::new(),
            last_page: Entry::NONE,
            log_blocks: 0,
            replayed_blocks: 0,
            stale_pages: false,
            forget: 0,
            hasten: false,
            asked: Vec::new(),
            waiting: Vec::new(),
        }
    }
    /// True while one is under way.
    pub fn is_running(&self) -> bool {
        self.stage != Stage::Idle
    }
    /// True when the meta stream's open batch must go out although it is not full.
    pub fn wants_seal(&self) -> bool {
        matches!(self.stage, Stage::Stable(_))
    }
    pub fn abandon(&mut self, _: &mut Pool, tags: &mut Vec<u64>) {
        tags.append(&mut self.asked);
        tags.append(&mut self.waiting);
    }
}

impl Slice {
    /// Asks for a checkpoint (before a clean stop: it makes the next start fast). Ends when it is durable.
    pub fn checkpoint(&mut self, tag: u64) -> Outcome {
        if let Some(refused) = self.refusal(tag) {
            return refused;
        }
        self.checkpoint.asked.push(tag);
        Outcome::Pending
    }

    /// Asks for a checkpoint that writes every page anew, next to each other, so that segments with a few live pages each
    /// become free.
    pub(super) fn compact_pages(&mut self) {
        let mut cursor = Cursor::START;
        while let Some((slot, here)) = self.next_dir(cursor, false) {
            self.index.touch_dir(slot, here.dir);
            let first = here.dir as u64 * CHUNK_BLOCKS;
            (first..first + CHUNK_BLOCKS).for_each(|chunk| self.index.touch_leaf(slot, chunk));
            cursor = Cursor { slot: here.slot, dir: here.dir + 1, at: 0 };
        }
        (self.checkpoint.hasten, self.checkpoint.stale_pages) = (true, true);
    }

    /// Takes the checkpoint a bounded step further, or starts one when it is due.
    pub(super) fn step_checkpoint<Q: Queue>(&mut self, q: &mut Q, pool: &mut Pool) -> bool {
        let hurry = !self.checkpoint.waiting.is_empty() || self.checkpoint.hasten;
        let mut pages = u32::from(self.cfg.limits.checkpoint_pages) * if hurry { 4 } else { 1 };
        let before = self.checkpoint.stage;
        loop {
            let stage = self.checkpoint.stage;
            match stage {
                Stage::Idle => self.begin_checkpoint(),
                Stage::Leaves(at) => self.write_leaves(at, &mut pages, q, pool),
                Stage::Dirs(at) => self.write_dirs(at, &mut pages, q, pool),
                Stage::Manifest(at) => self.write_manifest(at, &mut pages, q, pool),
                Stage::Stable(seq) => self.await_pages(seq, q, pool),
                Stage::Root => self.await_root(),
                Stage::Release(at) => self.release_pages(at),
            }
            let moved = std::mem::discriminant(&stage) != std::mem::discriminant(&self.checkpoint.stage);
            if !moved || pages == 0 || self.checkpoint.stage == Stage::Idle {
                return self.checkpoint.stage != before;
            }
        }
    }

    /// Blocks of log written since the slice was opened, and those replayed then; checkpoint pages do not count.
    fn log_blocks(&self) -> u64 {
        let [hot, cold, _] = self.log.written_blocks;
        hot + cold + self.log.written_batches - self.log.meta_batches + self.checkpoint.replayed_blocks
    }

    fn checkpoint_due(&self) -> bool {
        let c = &self.checkpoint;
        let log = self.log_blocks() - c.log_blocks;
        let useful = log > 0 || c.stale_pages || self.index.dirty_leaves() > 0 || self.segments.waiting() > 0;
        if !c.asked.is_empty() || (c.hasten && useful) {
            return true;
        }
        let bytes = match self.cfg.limits.checkpoint_bytes {
            0 => (8 * self.index.bytes()).clamp(64 << 20, 1 << 30).min(self.geometry.blocks() * BLOCK as u64 / 8),
            n => n,
        };
        log * BLOCK as u64 >= bytes
    }

    fn begin_checkpoint(&mut self) {
        // A shrink that is not finished must stay behind the replay point, or its rest would come back.
        if !self.trims.is_empty() || !self.checkpoint_due() {
            return;
        }
        let log_blocks = self.log_blocks();
        let c = &mut self.checkpoint;
        (c.hasten, c.stale_pages) = (false, false);
        c.waiting.append(&mut c.asked);
        c.number += 1;
        c.covered = self.log.stable();
        c.places = self.log.replay_places();
        c.segment_seq = self.log.segment_clock();
        c.log_blocks = log_blocks;
        c.last_page = Entry::NONE;
        assert!(c.manifest.is_empty(), "the last manifest was handed over");
        c.stage = Stage::Leaves(Cursor::START);
    }

    /// The next directory page at or after the cursor of a volume that exists (or `doomed` ones too).
    fn next_dir(&self, mut at: Cursor, doomed: bool) -> Option<(Slot, Cursor)> {
        let slots = self.index.slots().count() as u16;
        while at.slot < slots {
            let slot = Slot(at.slot);
            let v = self.index.volume(slot);
            let wanted = v.life == Life::Live || (doomed && v.life == Life::Doomed);
            let found = if wanted { v.dirs.iter().skip(at.dir).position(|n| *n != NIL) } else { None };
            if let Some(skip) = found {
                let here = if skip == 0 { at } else { Cursor { slot: at.slot, dir: at.dir + skip, at: 0 } };
                return Some((slot, here));
            }
            at = Cursor { slot: at.slot + 1, dir: 0, at: 0 };
        }
        None
    }

    fn write_leaves<Q: Queue>(&mut self, from: Cursor, pages: &mut u32, q: &mut Q, pool: &mut Pool) {
        let mut cursor = from;
        while let Some((slot, here)) = self.next_dir(cursor, false) {
            cursor = here;
            let dir = self.index.dir_mut(slot, here.dir).expect("found a moment ago");
            if here.at == 0 {
                // Cleared before the pages are looked at: a leaf lost behind the cursor is for the next checkpoint.
                let lost_leaf = std::mem::take(&mut dir.lost_leaf);
                if !dir.any_dirty() && !lost_leaf {
                    cursor = Cursor { dir: here.dir + 1, ..here };
                    continue;
                }
            }
            if !self.write_dir_leaves(slot, &mut cursor, pages, q, pool) {
                self.checkpoint.stage = Stage::Leaves(cursor);
                return;
            }
            cursor = Cursor { slot: here.slot, dir: here.dir + 1, at: 0 };
        }
        self.checkpoint.stage = Stage::Dirs(Cursor::START);
    }

    /// Writes the dirty leaves of one directory page from the cursor on; false when it must go on later.
    fn write_dir_leaves<Q: Queue>(
        &mut self,
        slot: Slot,
        cursor: &mut Cursor,
        pages: &mut u32,
        q: &mut Q,
        pool: &mut Pool,
    ) -> bool {
        while cursor.at < CHUNK_BLOCKS as usize {
            let dir = self.index.dir_mut(slot, cursor.dir).expect("the caller found it");
            let at = cursor.at;
            if dir.leaf[at] == NIL {
                if dir.pages[at].newest() != Entry::NONE {
                    dir.pages[at].next = PageState::ABSENT;
                    dir.rewrite = true;
                }
            } else if dir.is_dirty(at) {
                if *pages == 0 {
                    return false;
                }
                let chunk = cursor.dir as u64 * CHUNK_BLOCKS + at as u64;
                let page = if self.forgets_leaf() {
                    None
                } else {
                    let Some(page) = self.append_leaf(slot, chunk, q, pool) else { return false };
                    Some(page)
                };
                *pages -= 1;
                let dir = self.index.dir_mut(slot, cursor.dir).expect("the caller found it");
                if let Some(page) = page {
                    dir.pages[at].next = page;
                    dir.rewrite = true;
                }
                self.index.clean_leaf(slot, chunk);
            }
            cursor.at += 1;
        }
        true
    }

    /// Planted bug: every third leaf is left out.
    fn forgets_leaf(&mut self) -> bool {
        self.checkpoint.forget += 1;
        self.rules.breaks(Planted::ForgetLeaf) && self.checkpoint.forget.is_multiple_of(3)
    }

    /// `None` when there is no room for it now.
    fn append_leaf<Q: Queue>(&mut self, slot: Slot, chunk: u64, q: &mut Q, pool: &mut Pool) -> Option<Entry> {
        let volume = self.index.volume(slot).meta.id;
        let batch = self.open_meta(q, pool)?;
        let leaf = self.index.leaf(slot, chunk).expect("a dirty leaf exists");
        let (tail, page, addr) = self.log.push(batch, Kind::Leaf, page_of(volume, chunk));
        encode_entries(leaf.entries().map(Entry::pack), page);
        let crc = crc32c(page);
        tail.copy_from_slice(&crc.to_le_bytes());
        self.segments.add(addr, 1);
        self.counters.page_blocks += 1;
        Some(Entry { addr, crc })
    }

    /// An open batch of the meta stream with room for a page.
    fn open_meta<Q: Queue>(&mut self, q: &mut Q, pool: &mut Pool) -> Option<usize> {
        let batch = self.log.open(Stream::Meta, 0, &mut self.segments, pool)?;
        if self.log.room(batch, Kind::Leaf) > 0 {
            return Some(batch);
        }
        if !self.log.may_seal(Stream::Meta) {
            return None;
        }
        self.seal(Stream::Meta, q);
        self.log.open(Stream::Meta, 0, &mut self.segments, pool)
    }

    fn write_dirs<Q: Queue>(&mut self, from: Cursor, pages: &mut u32, q: &mut Q, pool: &mut Pool) {
        let mut cursor = from;
        while let Some((slot, here)) = self.next_dir(cursor, false) {
            cursor = here;
            let dir = self.index.dir(slot, here.dir).expect("found a moment ago");
            if dir.rewrite {
                if *pages == 0 || !self.write_dir(slot, here.dir, q, pool) {
                    self.checkpoint.stage = Stage::Dirs(cursor);
                    return;
                }
                *pages -= 1;
            }
            cursor = Cursor { slot: here.slot, dir: here.dir + 1, at: 0 };
        }
        self.checkpoint.stage = Stage::Manifest(Listing::Segments(0));
    }

    fn write_dir<Q: Queue>(&mut self, slot: Slot, number: usize, q: &mut Q, pool: &mut Pool) -> bool {
        let volume = self.index.volume(slot).meta.id;
        let dir = self.index.dir(slot, number).expect("the caller found it");
        let next = if dir.pages.iter().all(|p| p.newest() == Entry::NONE) {
            if dir.own.newest() == Entry::NONE { Entry::NONE } else { PageState::ABSENT }
        } else {
            let Some(batch) = self.open_meta(q, pool) else { return false };
            let dir = self.index.dir(slot, number).expect("the caller found it");
            let (tail, page, addr) = self.log.push(batch, Kind::Dir, page_of(volume, number as u64));
            encode_entries(dir.pages.iter().map(|p| p.newest().pack()), page);
            let crc = crc32c(page);
            tail.copy_from_slice(&crc.to_le_bytes());
            self.segments.add(addr, 1);
            self.counters.page_blocks += 1;
            Entry { addr, crc }
        };
        let dir = self.index.dir_mut(slot, number).expect("the caller found it");
        dir.own.next = next;
        dir.rewrite = false;
        true
    }

    fn write_manifest<Q: Queue>(&mut self, from: Listing, pages: &mut u32, q: &mut Q, pool: &mut Pool) {
        let mut at = Some(from);
        while let Some(listing) = at {
            if *pages == 0 {
                self.checkpoint.stage = Stage::Manifest(listing);
                return;
            }
            let Some(batch) = self.open_meta(q, pool) else {
                self.checkpoint.stage = Stage::Manifest(listing);
                return;
            };
            at = self.write_manifest_page(batch, listing);
            *pages -= 1;
        }
        self.checkpoint.stage = Stage::Stable(None);
    }

    /// Fills one page of the manifest; where the next one goes on.
    fn write_manifest_page(&mut self, batch: usize, from: Listing) -> Option<Listing> {
        let number = self.checkpoint.manifest.len() as u32;
        let checkpoint = self.checkpoint.number;
        let fields =
            ManifestFields { checkpoint, number, prev: self.checkpoint.last_page, volume_floor: self.index.floor() };
        let mut page = [0; BLOCK];
        let mut writer = ManifestWriter::new();
        let mut at = Some(from);
        while let Some(listing) = at {
            let (item, next) = self.list(listing);
            if let Some(item) = item
                && !writer.push(&mut page, &item)
            {
                break;
            }
            if let (Some(Item::Volume(_)), Listing::Volumes(n)) = (item, listing) {
                self.index.volume_mut(Slot(n)).listed = checkpoint;
            }
            at = next;
        }
        writer.seal(&mut page, &self.id, &fields);
        let crc = crc32c(&page);
        let (tail, out, addr) = self.log.push(batch, Kind::Manifest, page_of(VolumeId(0), u64::from(number)));
        out.copy_from_slice(&page);
        tail.copy_from_slice(&crc.to_le_bytes());
        self.segments.add(addr, 1);
        self.counters.page_blocks += 1;
        self.checkpoint.manifest.push(addr);
        self.checkpoint.last_page = Entry { addr, crc };
        at
    }

    /// The item at a place of the listing, if there is one there, and the next place. Volumes come last, because the
    /// manifest is read backwards.
    fn list(&self, at: Listing) -> (Option<Item>, Option<Listing>) {
        match at {
            Listing::Segments(n) if n >= self.geometry.segments => (None, Some(Listing::Dirs(Cursor::START))),
            Listing::Segments(n) => {
                let segment = SegmentId(n);
                let used = !matches!(self.segments.state(segment), State::Free | State::Reserved);
                let item = Item::Segment { segment, seq: self.segments.seq(segment) };
                (used.then_some(item), Some(Listing::Segments(n + 1)))
            }
            Listing::Dirs(cursor) => match self.next_dir(cursor, false) {
                None => (None, Some(Listing::Stamps(0))),
                Some((slot, here)) => {
                    let dir = self.index.dir(slot, here.dir).expect("found a moment ago");
                    let page = dir.own.newest();
                    let volume = self.index.volume(slot).meta.id;
                    let item = Item::Dir { volume, number: here.dir as u32, page };
                    let next = Cursor { slot: here.slot, dir: here.dir + 1, at: 0 };
                    ((page != Entry::NONE).then_some(item), Some(Listing::Dirs(next)))
                }
            },
            Listing::Stamps(n) => match self.index.stamp(ShardId(n)) {
                None => (None, Some(Listing::Volumes(0))),
                Some(stamp) => {
                    let used = (stamp.epoch, stamp.lsn) != (0, 0);
                    (used.then_some(Item::Stamp(stamp)), Some(Listing::Stamps(n + 1)))
                }
            },
            Listing::Volumes(n) => {
                if usize::from(n) >= self.index.slots().count() {
                    return (None, None);
                }
                let v = self.index.volume(Slot(n));
                let item = (v.life == Life::Live).then_some(Item::Volume(v.meta));
                (item, Some(Listing::Volumes(n + 1)))
            }
        }
    }

    /// Waits until all pages are stable, then writes the superblock that names them.
    fn await_pages<Q: Queue>(&mut self, seq: Option<u64>, q: &mut Q, pool: &mut Pool) {
        let early = self.rules.breaks(Planted::RootBeforePages);
        if !early {
            let Some(seq) = seq else {
                if self.log.open_is_empty(Stream::Meta) {
                    self.checkpoint.stage = Stage::Stable(Some(self.log.sealed()));
                }
                return;
            };
            if self.log.stable() < seq {
                return;
            }
        }
        let c = &self.checkpoint;
        let mut sb = self.superblock.clone().expect("a slice that is ready has a superblock");
        sb.sequence += 1;
        sb.root = (c.last_page.addr, c.last_page.crc);
        sb.checkpoint = c.number;
        sb.covered = c.covered;
        sb.durable = self.log.stable();
        sb.segment_seq = c.segment_seq;
        sb.places = c.places;
        forget_covered(&mut sb.boundaries, c.covered);
        if self.write_superblock(sb, false, q, pool) {
            self.checkpoint.stage = Stage::Root;
        }
    }

    fn await_root(&mut self) {
        if self.super_writing != Writing::Durable {
            return;
        }
        self.super_writing = Writing::Nothing;
        let c = &mut self.checkpoint;
        self.segments.checkpointed(c.covered);
        let pages = std::mem::replace(&mut c.durable_manifest, std::mem::take(&mut c.manifest));
        for addr in pages {
            self.segments.remove(addr);
        }
        c.stage = Stage::Release(Cursor::START);
        self.counters.checkpoints += 1;
    }

    /// Pages of the checkpoint before are needed no more.
    fn release_pages(&mut self, from: Cursor) {
        let mut cursor = from;
        for _ in 0..RELEASE_DIRS {
            let Some((slot, here)) = self.next_dir(cursor, true) else {
                self.end_checkpoint();
                return;
            };
            let v = self.index.volume(slot);
            let unlisted = v.life == Life::Doomed && v.listed < self.checkpoint.number;
            let dir = self.index.dir_mut(slot, here.dir).expect("found a moment ago");
            for page in dir.pages.iter_mut().chain([&mut dir.own]) {
                if unlisted {
                    for entry in [page.durable, page.next] {
                        if entry.addr.is_place() {
                            self.segments.remove(entry.addr);
                        }
                    }
                    (page.durable, page.next) = (Entry::NONE, Entry::NONE);
                } else if let Some(old) = page.commit() {
                    self.segments.remove(old);
                }
            }
            if dir.is_empty() && !unlisted {
                self.index.free_dir(slot, here.dir);
            }
            cursor = Cursor { slot: here.slot, dir: here.dir + 1, at: 0 };
        }
        self.checkpoint.stage = Stage::Release(cursor);
    }

    fn end_checkpoint(&mut self) {
        let number = self.checkpoint.number;
        for slot in self.index.slots() {
            let v = self.index.volume(slot);
            let trimming = self.trims.iter().any(|t| t.slot == slot);
            if v.life == Life::Doomed && v.listed < number && !trimming {
                self.index.free_volume(slot);
            }
        }
        for tag in self.checkpoint.waiting.drain(..) {
            self.ended.push(Ended { tag, status: Status::Ok, buf: None });
        }
        self.checkpoint.stage = Stage::Idle;
    }
}

fn page_of(volume: VolumeId, first: u64) -> Described {
    Described { volume, first, count: 1, stamp: Stamp::NONE }
}

/// Drops the incarnations that no batch after `covered` can carry.
fn forget_covered(boundaries: &mut Vec<Boundary>, covered: u64) {
    let current = boundaries.iter().rposition(|b| b.first <= covered + 1).unwrap_or(0);
    boundaries.drain(..current);
}
