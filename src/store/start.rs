//! From a device to a serving slice: format lays out an empty log, open reads the newest superblock, the checkpoint's
//! manifest, directory pages and leaves, replays the log after it ([`super::replay`]) and writes a superblock with a
//! new incarnation. Until that last write, nothing on the medium is changed.
//!
//! ```text
//! format: Format -> Recorded                                         -> Ready
//! open:   Head -> Manifest -> Dirs -> Leaves -> Replay -> Record -> Recorded -> Ready
//! ```

use super::apply::Trim;
use super::config::SliceConfig;
use super::error::{Damage, StoreError};
use super::format::page::{Entry, Item, decode_entries, decode_manifest};
use super::format::superblock::{BOUNDARIES_MAX, SLOTS};
use super::format::{Addr, Boundary, FormatError, LogId, Place, STREAMS, SegmentId, Superblock};
use super::index::{PageState, Slot};
use super::log::{Log, Resume};
use super::planted::Planted;
use super::replay::Replay;
use super::request::Phase;
use super::slice::{START_READS, Slice};
use super::superblock::Writing;
use super::token::Purpose;
use super::window::{View, Window};
use crate::base::crc::crc32c;
use crate::base::{BLOCK, CHUNK_BLOCKS, VolumeId};
use crate::device::{Done, Queue};
use crate::mem::Pool;

/// Times a page that does not hold is read again before it counts as damaged.
const REREADS: u8 = 5;
/// Leaf pages read at once.
const LEAF_RUN: u32 = 16;

/// Blocks of all superblock copies.
const COPIES: [u32; 4] = [SLOTS[0][0], SLOTS[0][1], SLOTS[1][0], SLOTS[1][1]];

/// Where the start is.
enum Stage {
    Format,
    Head,
    Manifest(Entry, u32),
    Dirs,
    Leaves,
    Replay(Box<Replay>),
    Record(Resume),
    Recorded,
}

/// A page or run of pages to be read and put in place.
#[derive(Clone, Copy)]
enum Job {
    None,
    Dir(usize),
    /// Leaves of a directory page: from this chunk of it on, so many that have a page.
    Leaves {
        slot: Slot,
        dir: usize,
        at: usize,
        count: u32,
    },
}

/// The start of a slice under way.
pub(super) struct Start {
    stage: Stage,
    pub windows: Vec<Window>,
    jobs: Vec<Job>,
    head: Vec<Option<Superblock>>,
    head_error: FormatError,
    dirs: Vec<(VolumeId, u32, Entry)>,
    next: usize,
    cursor: (u16, usize, usize),
    /// Times each window's pages were read again.
    rereads: Vec<u8>,
}

impl Start {
    fn new(stage: Stage) -> Start {
        Start {
            stage,
            windows: (0..START_READS).map(|_| Window::new()).collect(),
            jobs: vec![Job::None; START_READS],
            head: Vec::new(),
            head_error: FormatError::Short,
            dirs: Vec::new(),
            next: 0,
            cursor: (0, 0, 0),
            rereads: vec![0; START_READS],
        }
    }
    pub fn format() -> Start {
        Start::new(Stage::Format)
    }
    pub fn open() -> Start {
        Start::new(Stage::Head)
    }
    /// True when what the window shows does not hold and should be read again first.
    fn read_again(&mut self, n: usize) -> bool {
        if self.rereads[n] == REREADS {
            return false;
        }
        self.rereads[n] += 1;
        self.windows[n].forget();
        true
    }
    /// Gives the buffers back that are here.
    pub fn release(mut self, pool: &mut Pool) {
        self.windows.iter_mut().for_each(|w| w.release(pool));
    }
}

/// What a step of the start came to.
pub(super) type Progress = Result<bool, StoreError>;

impl Slice {
    pub(super) fn step_start<Q: Queue>(&mut self, q: &mut Q, pool: &mut Pool) -> bool {
        let Some(mut start) = self.start.take() else { return false };
        let mut work = false;
        let end = loop {
            match self.advance_start(&mut start, q, pool) {
                Ok(true) if matches!(self.phase, Phase::Starting { .. }) => work = true,
                Ok(_) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        if self.phase == Phase::Ready {
            start.release(pool);
            return true;
        }
        self.start = Some(start);
        if let Err(error) = end {
            self.die(error, pool);
            return true;
        }
        work
    }

    /// A read of the start has ended.
    pub(super) fn start_done(&mut self, n: usize, done: Done, pool: &mut Pool) {
        match self.start.as_mut() {
            Some(start) => start.windows[n].done(done),
            None => {
                if let Some(buf) = done.buf {
                    pool.put(buf);
                }
            }
        }
    }

    fn advance_start<Q: Queue>(&mut self, start: &mut Start, q: &mut Q, pool: &mut Pool) -> Progress {
        match &mut start.stage {
            Stage::Format => self.start_format(start, q, pool),
            Stage::Head => self.start_head(start, q, pool),
            Stage::Manifest(page, number) => {
                let (page, number) = (*page, *number);
                self.start_manifest(start, page, number, q, pool)
            }
            Stage::Dirs | Stage::Leaves => self.start_pages(start, q, pool),
            Stage::Replay(replay) => match replay.step(self, &mut start.windows, q, pool)? {
                None => Ok(false),
                Some(resume) => {
                    start.stage = Stage::Record(resume);
                    Ok(true)
                }
            },
            Stage::Record(resume) => {
                let resume = Resume { ..*resume };
                Ok(self.start_record(start, &resume, q, pool))
            }
            Stage::Recorded => {
                if self.super_writing != Writing::Durable {
                    return Ok(false);
                }
                self.super_writing = Writing::Nothing;
                self.phase = Phase::Ready;
                self.sealed_at = self.now;
                self.refresh_headroom();
                Ok(true)
            }
        }
    }

    fn start_format<Q: Queue>(&mut self, start: &mut Start, q: &mut Q, pool: &mut Pool) -> Progress {
        check_device(&self.cfg, q)?;
        self.size_for(self.geometry);
        let mut places = [Place { addr: Addr::NONE, next: SegmentId::NONE, segment_seq: 0 }; STREAMS];
        for (place, segment_seq) in places.iter_mut().zip(1..) {
            let segment = self.segments.reserve().expect("a fresh slice has free segments");
            self.segments.open(segment, segment_seq);
            *place = Place { addr: self.geometry.start(segment), next: SegmentId::NONE, segment_seq };
        }
        let segment_seq = STREAMS as u64 + 1;
        let sb = Superblock {
            id: self.id,
            slices: self.cfg.slices,
            name: self.cfg.name,
            offset: self.cfg.offset,
            len: self.cfg.len,
            geometry: self.geometry,
            sequence: 2,
            root: (Addr::NONE, 0),
            checkpoint: 0,
            covered: 0,
            durable: 0,
            segment_seq,
            places,
            boundaries: vec![Boundary { incarnation: 1, first: 1 }],
        };
        let resume = Resume { places, last_seq: 0, segment_seq, incarnation: 1 };
        self.resume_log(&resume, q);
        if self.write_superblock(sb, true, q, pool) {
            start.stage = Stage::Recorded;
            return Ok(true);
        }
        Ok(false)
    }

    fn resume_log<Q: Queue>(&mut self, resume: &Resume, q: &Q) {
        self.log = Log::new(self.id, self.geometry, &self.cfg.limits, self.rules, resume);
        self.log.set_volatile(q.caps().volatile_cache);
    }

    fn start_head<Q: Queue>(&mut self, start: &mut Start, q: &mut Q, pool: &mut Pool) -> Progress {
        check_device(&self.cfg, q)?;
        start.head.resize(COPIES.len(), None);
        let mut waiting = false;
        for (n, copy) in COPIES.into_iter().enumerate() {
            let addr = Addr(copy);
            while start.head[n].is_none() {
                let cause = match start.windows[n].view() {
                    View::Empty => {
                        if !start.windows[n].read(addr, 1, Purpose::Start(n), &mut self.port, q, pool) {
                            return Ok(false);
                        }
                        continue;
                    }
                    View::Flying => {
                        waiting = true;
                        break;
                    }
                    View::Failed(_) => FormatError::Short,
                    View::Here => match Superblock::decode(start.windows[n].block(addr)) {
                        Ok(sb) => {
                            start.head[n] = Some(sb);
                            break;
                        }
                        Err(cause) => cause,
                    },
                };
                if !start.read_again(n) {
                    start.head_error = cause;
                    break;
                }
            }
        }
        if waiting {
            return Ok(false);
        }
        start.rereads.fill(0);
        let newest = start.head.drain(..).flatten().max_by_key(|sb| sb.sequence);
        let sb = newest.ok_or(StoreError::Superblock(start.head_error))?;
        self.adopt(sb, start)?;
        Ok(true)
    }

    /// The superblock is known: makes tables for its geometry and starts to read the checkpoint.
    fn adopt(&mut self, sb: Superblock, start: &mut Start) -> Result<(), StoreError> {
        if sb.id != self.id || sb.slices != self.cfg.slices || sb.offset != self.cfg.offset {
            return Err(StoreError::WrongDevice);
        }
        if sb.len > self.cfg.len {
            return Err(StoreError::Config("the slice is larger than the range given"));
        }
        self.size_for(sb.geometry);
        self.segments.set_covered(sb.covered);
        let root = Entry { addr: sb.root.0, crc: sb.root.1 };
        self.checkpoint.number = sb.checkpoint;
        self.superblock = Some(sb);
        start.jobs.fill(Job::None);
        start.next = 0;
        start.stage = Stage::Manifest(root, u32::MAX);
        Ok(())
    }

    fn start_manifest<Q: Queue>(
        &mut self,
        start: &mut Start,
        page: Entry,
        number: u32,
        q: &mut Q,
        pool: &mut Pool,
    ) -> Progress {
        if page == Entry::NONE {
            self.checkpoint.durable_manifest.reverse();
            start.dirs.sort_unstable_by_key(|(volume, number, _)| (volume.0, *number));
            start.stage = Stage::Dirs;
            return Ok(true);
        }
        let damaged = |cause| StoreError::Damaged { what: Damage::Manifest, addr: page.addr, cause };
        let w = &mut start.windows[0];
        if !w.covers(page.addr) && w.view() != View::Flying {
            return Ok(w.read(page.addr, 1, Purpose::Start(0), &mut self.port, q, pool));
        }
        let decoded = match w.view() {
            View::Flying => return Ok(false),
            View::Failed(_) | View::Empty => Err(FormatError::Short),
            View::Here => decode_manifest(w.block(page.addr), page.crc, &self.id),
        };
        let (fields, items) = match decoded {
            Ok(decoded) => decoded,
            Err(_) if start.read_again(0) => return Ok(true),
            Err(e) => return Err(damaged(e)),
        };
        start.rereads[0] = 0;
        let sb = self.superblock.as_ref().expect("adopted");
        let prev_ok = match fields.prev {
            Entry::NONE => fields.number == 0,
            prev => self.geometry.holds(prev.addr) && fields.number > 0,
        };
        let expected = number == u32::MAX || fields.number == number;
        if fields.checkpoint != sb.checkpoint || !prev_ok || !expected {
            return Err(damaged(FormatError::Field));
        }
        self.index.raise_floor(fields.volume_floor);
        self.checkpoint.durable_manifest.push(page.addr);
        self.segments.add(page.addr, 1);
        self.take_items(start, &items, page.addr)?;
        start.stage = Stage::Manifest(fields.prev, fields.number.wrapping_sub(1));
        Ok(true)
    }

    fn take_items(&mut self, start: &mut Start, items: &[Item], at: Addr) -> Result<(), StoreError> {
        let damaged = StoreError::Damaged { what: Damage::Manifest, addr: at, cause: FormatError::Field };
        let listed = self.checkpoint.number;
        for item in items {
            match *item {
                Item::Volume(meta) => {
                    let slot = self.index.put_volume(meta).ok_or(StoreError::Limit("volumes"))?;
                    self.index.volume_mut(slot).listed = listed;
                }
                Item::Dir { volume, number, page } => {
                    if !self.geometry.holds(page.addr) {
                        return Err(damaged);
                    }
                    start.dirs.push((volume, number, page));
                }
                Item::Stamp(stamp) => self.index.note_stamp(stamp),
                Item::Segment { segment, seq } => {
                    if segment.0 >= self.geometry.segments {
                        return Err(damaged);
                    }
                    self.segments.set_age(segment, seq);
                }
            }
        }
        Ok(())
    }

    /// Directory pages, then leaves: many reads at once, each put in place as it comes.
    fn start_pages<Q: Queue>(&mut self, start: &mut Start, q: &mut Q, pool: &mut Pool) -> Progress {
        let mut work = false;
        for n in 0..start.windows.len() {
            if matches!(start.jobs[n], Job::None) || start.windows[n].view() == View::Flying {
                continue;
            }
            if start.windows[n].view() == View::Empty || (!self.job_holds(start, n) && start.read_again(n)) {
                let (addr, blocks) = start.windows[n].range();
                work |= start.windows[n].read(addr, blocks, Purpose::Start(n), &mut self.port, q, pool);
                continue;
            }
            self.place_job(start, n)?;
            (start.jobs[n], start.rereads[n]) = (Job::None, 0);
            work = true;
        }
        for n in 0..start.windows.len() {
            if !matches!(start.jobs[n], Job::None) {
                continue;
            }
            let Some((job, addr, blocks, after)) = self.next_job(start) else { break };
            if !start.windows[n].read(addr, blocks, Purpose::Start(n), &mut self.port, q, pool) {
                break;
            }
            start.jobs[n] = job;
            (start.next, start.cursor) = after;
            work = true;
        }
        if start.jobs.iter().any(|j| !matches!(j, Job::None)) || self.next_job(start).is_some() {
            return Ok(work);
        }
        if matches!(start.stage, Stage::Dirs) {
            start.stage = Stage::Leaves;
        } else {
            start.windows.iter_mut().for_each(|w| w.release(pool));
            let sb = self.superblock.as_ref().expect("adopted");
            start.stage = Stage::Replay(Box::new(Replay::new(sb, &self.cfg.limits)));
        }
        Ok(true)
    }

    /// The next page or run of pages to read, and the state after it.
    #[allow(clippy::type_complexity, reason = "the state is two cursors")]
    fn next_job(&self, start: &Start) -> Option<(Job, Addr, u32, (usize, (u16, usize, usize)))> {
        if matches!(start.stage, Stage::Dirs) {
            let (.., page) = start.dirs.get(start.next)?;
            return Some((Job::Dir(start.next), page.addr, 1, (start.next + 1, start.cursor)));
        }
        let (mut slot, mut dir, mut at) = start.cursor;
        while usize::from(slot) < self.index.slots().count() {
            let dirs = self.index.volume(Slot(slot)).dirs.len();
            while dir < dirs {
                let found = self.index.dir(Slot(slot), dir).and_then(|d| leaf_run(&d.pages, at));
                if let Some((first, count, addr, next)) = found {
                    let job = Job::Leaves { slot: Slot(slot), dir, at: first, count };
                    return Some((job, addr, count, (start.next, (slot, dir, next))));
                }
                (dir, at) = (dir + 1, 0);
            }
            (slot, dir, at) = (slot + 1, 0, 0);
        }
        None
    }

    /// True when all pages of a job could be read and match their checksums.
    fn job_holds(&self, start: &Start, n: usize) -> bool {
        let w = &start.windows[n];
        let holds = |page: &Entry| w.view() == View::Here && crc32c(w.block(page.addr)) == page.crc;
        match start.jobs[n] {
            Job::None => true,
            Job::Dir(i) => holds(&start.dirs[i].2),
            Job::Leaves { slot, dir, at, count } => {
                let pages = &self.index.dir(slot, dir).expect("the job was made from it").pages[at..];
                let durable = pages.iter().map(|p| p.durable).filter(|page| *page != Entry::NONE);
                durable.take(count as usize).all(|page| holds(&page))
            }
        }
    }

    fn place_job(&mut self, start: &mut Start, n: usize) -> Result<(), StoreError> {
        let here = start.windows[n].view() == View::Here;
        match start.jobs[n] {
            Job::None => {}
            Job::Dir(i) => {
                let (volume, number, page) = start.dirs[i];
                let damaged = |cause| StoreError::Damaged { what: Damage::Directory, addr: page.addr, cause };
                if !here {
                    return Err(damaged(FormatError::Short));
                }
                let block = start.windows[n].block(page.addr);
                if crc32c(block) != page.crc {
                    return Err(damaged(FormatError::Checksum));
                }
                let Some(slot) = self.index.slot(volume) else { return Ok(()) };
                let geometry = self.geometry;
                let dir = self.index.load_dir(slot, number as usize).ok_or(damaged(FormatError::Field))?;
                dir.own = PageState { durable: page, next: Entry::NONE };
                for (state, word) in dir.pages.iter_mut().zip(decode_entries(block)) {
                    state.durable = Entry::unpack(word);
                    let addr = state.durable.addr;
                    if addr != Addr::NONE && !geometry.holds(addr) {
                        return Err(damaged(FormatError::Field));
                    }
                }
                self.segments.add(page.addr, 1);
            }
            Job::Leaves { slot, dir, at, count } => {
                let mut at = at;
                for _ in 0..count {
                    let d = self.index.dir(slot, dir).expect("the job was made from it");
                    while d.pages[at].durable == Entry::NONE {
                        at += 1;
                    }
                    let page = d.pages[at].durable;
                    let block = here.then(|| start.windows[n].block(page.addr));
                    self.place_leaf(slot, dir as u64 * CHUNK_BLOCKS + at as u64, page, block)?;
                    at += 1;
                }
            }
        }
        Ok(())
    }

    fn place_leaf(&mut self, slot: Slot, chunk: u64, page: Entry, block: Option<&[u8]>) -> Result<(), StoreError> {
        if self.index.leaf_count() >= self.index.leaf_capacity() {
            return Err(StoreError::Limit("index_bytes"));
        }
        self.segments.add(page.addr, 1);
        let (first, blocks) = (chunk * CHUNK_BLOCKS, self.index.volume(slot).meta.blocks());
        let inside = |i: usize| first + (i as u64) < blocks;
        let geometry = self.geometry;
        let sound = |block: &&[u8]| {
            let fits =
                |w| matches!(Entry::unpack(w).addr, Addr::NONE | Addr::LOST) || geometry.holds(Entry::unpack(w).addr);
            crc32c(block) == page.crc && decode_entries(block).all(fits)
        };
        let Some(block) = block.filter(sound) else {
            // What the page said can not be told, and the log before the checkpoint may be gone: each block of the
            // chunk answers with a media error until it is written again.
            let cause = FormatError::Checksum;
            self.damage.get_or_insert(StoreError::Damaged { what: Damage::Leaf, addr: page.addr, cause });
            let lost = (0..512).map(|i| if inside(i) { Entry::LOST } else { Entry::NONE });
            self.index.load_leaf(slot, chunk, lost);
            self.index.touch_leaf(slot, chunk);
            return Ok(());
        };
        let kept = |(i, word)| if inside(i) { Entry::unpack(word) } else { Entry::NONE };
        let entries = decode_entries(block).enumerate().map(kept);
        if let Some(leaf) = self.index.load_leaf(slot, chunk, entries) {
            for entry in leaf.entries().filter(|e| e.addr.is_place()) {
                self.segments.add(entry.addr, 1);
            }
        }
        Ok(())
    }

    /// The log is replayed: from here on batches carry a new incarnation, which must be durable before the first.
    fn start_record<Q: Queue>(&mut self, start: &mut Start, resume: &Resume, q: &mut Q, pool: &mut Pool) -> bool {
        let mut sb = self.superblock.clone().expect("adopted");
        let last = *sb.boundaries.last().expect("a superblock names the current incarnation");
        let first = resume.last_seq + 1;
        let incarnation = last.incarnation + u32::from(!self.rules.breaks(Planted::ForgetIncarnation));
        if last.first == first {
            sb.boundaries.pop();
        }
        if sb.boundaries.len() == BOUNDARIES_MAX {
            sb.boundaries.remove(0);
        }
        sb.boundaries.push(Boundary { incarnation, first });
        (sb.sequence, sb.durable) = (sb.sequence + 1, resume.last_seq);
        if self.rules.breaks(Planted::ForgetIncarnation) {
            self.super_writing = Writing::Durable;
        } else if !self.write_superblock(sb, false, q, pool) {
            return false;
        }
        self.resume_log(&Resume { incarnation, ..*resume }, q);
        start.stage = Stage::Recorded;
        true
    }

    /// Drops blocks at once: nobody waits for a slice that is starting.
    pub(super) fn trim_now(&mut self, slot: Slot, from: u64, to: u64) {
        let done = Trim::new(slot, from, to).step(u32::MAX, &mut self.index, &mut self.segments);
        assert!(done, "an unbounded trim ends");
    }

    /// Who the log is, for replay.
    pub(super) fn log_id(&self) -> LogId {
        self.id
    }
}

/// The next run of leaf pages that lie next to each other on the medium: first chunk, pages, address, and the chunk to
/// go on from.
fn leaf_run(pages: &[PageState], from: usize) -> Option<(usize, u32, Addr, usize)> {
    let first = (from..pages.len()).find(|at| pages[*at].durable != Entry::NONE)?;
    let addr = pages[first].durable.addr;
    let (mut count, mut at) = (1, first + 1);
    while at < pages.len() && count < LEAF_RUN {
        match pages[at].durable {
            Entry::NONE => {}
            page if page.addr == addr.plus(count) => count += 1,
            _ => break,
        }
        at += 1;
    }
    Some((first, count, addr, at))
}

fn check_device<Q: Queue>(cfg: &SliceConfig, q: &Q) -> Result<(), StoreError> {
    let caps = q.caps();
    if cfg.offset + cfg.len > caps.size {
        return Err(StoreError::Config("the device is smaller than the slice"));
    }
    if !(BLOCK as u32).is_multiple_of(caps.block_size) {
        return Err(StoreError::Config("the device's block size does not divide 4096"));
    }
    if cfg.limits.batch_bytes > caps.io_bytes_max {
        return Err(StoreError::Config("batch_bytes is larger than the device's largest transfer"));
    }
    Ok(())
}
