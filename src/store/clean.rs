//! Cleaning: live blocks of the segment that pays best are moved to the cold stream, a few per turn, as fast as hosts use
//! up free segments and no faster, because waiting lets more blocks die by themselves. Checkpoint pages are not moved:
//! they are written anew by the next checkpoint.
//!
//! What stays true: a block is moved only after its checksum was verified. What can not be read or verified stays where
//! it is, and its segment is tried again later; only after several such rounds it is marked as lost, counted, and
//! answers with a media error until it is written again.

use super::format::batch::{Described, Kind};
use super::format::{SegmentId, Stream};
use super::segments::State;
use super::slice::Slice;
use super::token::Purpose;
use super::walk::{Live, Step, Walk};
use super::window::View;
use crate::base::crc::crc32c;
use crate::base::{BLOCK, Time};
use crate::device::{Done, Queue};
use crate::mem::Pool;
use std::collections::VecDeque;

/// Blocks moved per turn at most while hosts wait for free segments.
const HURRY: i64 = 512;
/// Credit that may pile up.
const CREDIT_MAX: i64 = 4096;

/// Times a block is read again in one round.
const REREADS: u8 = 2;
/// A segment with something that can not be read or verified is tried again after this long, then after twice as long
/// each time up to eight times; ns.
const RETRY_NS: u64 = 1_000_000_000;
/// Rounds after which a block that can not be read or verified counts as lost.
const ROUNDS: u8 = 3;
/// So many of these segments are remembered.
const RETRIES_MAX: usize = 256;

/// A segment that could not be cleaned, because something in it can not be read or verified.
#[derive(Clone, Copy)]
struct Retry {
    segment: SegmentId,
    due: Time,
    rounds: u8,
}

/// The cleaner of a slice.
pub(super) struct Cleaner {
    walk: Option<Walk>,
    /// Scratch of the last walk, to be used again.
    idle: Option<Walk>,
    /// Segments whose live blocks are all in the cold stream, with the count that must be applied before they are done.
    settling: VecDeque<(SegmentId, u64)>,
    appended: u64,
    applied: u64,
    /// Blocks that may be moved now.
    credit: i64,
    /// Blocks of the hot stream when credit was last given.
    hot_blocks: u64,
    hurry: bool,
    rereads: u8,
    /// Rounds through the segment under way that left something behind.
    rounds: u8,
    /// This round has left something behind.
    unfinished: bool,
    retries: Vec<Retry>,
    /// All pages were written anew, because cleaning had no segment left to move blocks to.
    compacted: bool,
    /// Hosts wait for space, and nothing is left that could free any.
    pub stuck: bool,
}

impl Cleaner {
    pub fn new() -> Cleaner {
        Cleaner {
            walk: None,
            idle: None,
            settling: VecDeque::new(),
            appended: 0,
            applied: 0,
            credit: 0,
            hot_blocks: 0,
            hurry: false,
            rereads: 0,
            rounds: 0,
            unfinished: false,
            retries: Vec::with_capacity(RETRIES_MAX),
            compacted: false,
            stuck: false,
        }
    }
    /// A batch was applied.
    pub fn applied(&mut self, stream: Stream, payload: u32) {
        if stream == Stream::Cold {
            self.applied += u64::from(payload);
        }
    }
    /// True when the cold stream's open batch must go out although it is not full: hosts wait for what it has settled,
    /// and nothing more comes to fill it.
    pub fn wants_seal(&self) -> bool {
        self.hurry && !self.settling.is_empty() && self.walk.is_none()
    }
    /// Gives buffers back.
    pub fn abandon(&mut self, pool: &mut Pool) {
        for walk in [&mut self.walk, &mut self.idle].into_iter().flatten() {
            walk.forget(pool);
        }
    }
}

impl Slice {
    /// Free segments that cleaning tries to keep beyond the reserve.
    fn clean_margin(&self) -> u32 {
        (self.geometry.segments / 1024).clamp(3, 64)
    }

    pub(super) fn step_cleaner<Q: Queue>(&mut self, q: &mut Q, pool: &mut Pool) -> bool {
        self.settle_cleaned();
        let (free, reserve, margin) = (self.segments.free(), self.reserve(), self.clean_margin());
        let goal = reserve + margin;
        let stuck = self.segments.waiting() + self.segments.draining();
        if free <= reserve + margin / 2 && stuck > 0 {
            self.checkpoint.hasten = true;
        }
        self.cleaner.hurry = free <= reserve + 1;
        self.cleaner.stuck = false;
        let coming = self.segments.waiting() + self.cleaner.settling.len() as u32;
        if self.cleaner.walk.is_none() && free + coming >= goal {
            self.cleaner.hot_blocks = self.log.written_blocks[Stream::Hot.index()];
            return false;
        }
        self.give_credit(goal.saturating_sub(free), margin);
        let mut work = false;
        while self.cleaner.credit > 0 {
            if self.cleaner.walk.is_none() && !self.pick_victim() {
                // No segment is worth cleaning.
                self.cleaner.stuck = free <= reserve && self.nothing_comes();
                break;
            }
            match self.clean_some(q, pool) {
                Some(blocks) => self.cleaner.credit -= i64::from(blocks.max(1)),
                None => break,
            }
            work = true;
        }
        self.relieve();
        work
    }

    /// True when no segment is on its way to be free, and a checkpoint would free none.
    fn nothing_comes(&self) -> bool {
        let damaged = |r: &&Retry| self.segments.state(r.segment) == State::Draining;
        let damaged = self.cleaner.retries.iter().filter(damaged).count() as u32;
        let coming = self.segments.waiting() + self.segments.draining() - damaged;
        coming == 0 && self.cleaner.settling.is_empty() && !self.checkpoint.is_running() && self.trims.is_empty()
    }

    /// A victim waits for a segment to move its blocks to, and none comes: pages of the checkpoint that lie scattered are
    /// brought together. When that was done and did not help, hosts must not wait any more.
    fn relieve(&mut self) {
        let needy = self.cleaner.walk.is_some() && self.log.needs_segment(Stream::Cold);
        if !needy || self.segments.free() > self.reserve_for_checkpoint() {
            self.cleaner.compacted &= self.segments.free() <= self.reserve();
        } else if self.nothing_comes() {
            if self.cleaner.compacted {
                self.cleaner.stuck = true;
            } else {
                self.cleaner.compacted = true;
                self.compact_pages();
            }
        }
    }

    /// Lets cleaning keep pace with the hosts: for each block they write, as many are moved as it takes to free one.
    fn give_credit(&mut self, short: u32, margin: u32) {
        let hot = self.log.written_blocks[Stream::Hot.index()];
        let written = hot - self.cleaner.hot_blocks;
        self.cleaner.hot_blocks = hot;
        let live =
            self.cleaner.walk.as_ref().map_or(self.geometry.segment_blocks / 2, |w| self.segments.live(w.segment));
        let dead = u64::from(self.geometry.segment_blocks - live).max(1);
        let urgency = 100 + 100 * u64::from(short) / u64::from(margin);
        let credit = (written * u64::from(live.max(1)) * urgency).div_ceil(dead * 100);
        let c = &mut self.cleaner;
        c.credit = c.credit.saturating_add_unsigned(credit).min(CREDIT_MAX);
        if c.hurry {
            c.credit = c.credit.max(HURRY);
        }
    }

    fn pick_victim(&mut self) -> bool {
        let coming = self.segments.waiting() + self.cleaner.settling.len() as u32;
        if self.segments.free() + coming >= self.reserve() + self.clean_margin() {
            return false;
        }
        let live_max = self.dense - 1;
        let retry = self.due_retry();
        let picked = retry.or_else(|| Some((self.segments.pick(self.log.segment_clock(), live_max)?, 0)));
        let Some((victim, rounds)) = picked else { return false };
        (self.cleaner.rounds, self.cleaner.unfinished) = (rounds, false);
        let walk = match self.cleaner.idle.take() {
            Some(mut walk) => {
                walk.restart(victim);
                walk
            }
            None => Walk::new(victim, Purpose::Walk(0)),
        };
        self.cleaner.walk = Some(walk);
        true
    }

    /// A segment whose next round is due, and the rounds before: the medium may read better now.
    fn due_retry(&mut self) -> Option<(SegmentId, u8)> {
        loop {
            // While a segment is being cleaned, what was moved out of it is not yet applied.
            let due = |r: &Retry| r.due <= self.now && self.segments.state(r.segment) != State::Cleaning;
            let at = self.cleaner.retries.iter().position(due)?;
            let retry = self.cleaner.retries.swap_remove(at);
            if self.segments.clean_again(retry.segment) {
                return Some((retry.segment, retry.rounds));
            }
        }
    }

    /// Moves the next run of the victim, or ends it; `None` when it must wait.
    fn clean_some<Q: Queue>(&mut self, q: &mut Q, pool: &mut Pool) -> Option<u32> {
        let mut walk = self.cleaner.walk.take().expect("the caller has picked a victim");
        let step = walk.step(&self.id, self.geometry, &self.index, &mut self.port, q, pool);
        let moved = match step {
            Step::Later => None,
            Step::Ready => self.move_run(&mut walk, q, pool),
            Step::Ended | Step::Damaged => {
                let damaged = matches!(step, Step::Damaged);
                self.counters.damaged_headers += u64::from(damaged && self.cleaner.rounds == 0);
                // One from an earlier life of the segment says nothing any more.
                self.cleaner.retries.retain(|r| r.segment != walk.segment);
                if (damaged || self.cleaner.unfinished) && self.cleaner.retries.len() < RETRIES_MAX {
                    let rounds = self.cleaner.rounds;
                    let due = self.now.after_ns(RETRY_NS << rounds);
                    let rounds = (rounds + 1).min(ROUNDS);
                    self.cleaner.retries.push(Retry { segment: walk.segment, due, rounds });
                }
                walk.forget(pool);
                self.cleaner.settling.push_back((walk.segment, self.cleaner.appended));
                self.cleaner.idle = Some(walk);
                self.counters.cleaned_segments += 1;
                return Some(0);
            }
        };
        self.cleaner.walk = Some(walk);
        moved
    }

    fn move_run<Q: Queue>(&mut self, walk: &mut Walk, q: &mut Q, pool: &mut Pool) -> Option<u32> {
        let live = walk.pending()[0];
        if live.kind.is_page() {
            if let Some(slot) = self.index.slot(live.volume) {
                match live.kind {
                    Kind::Leaf => self.index.touch_leaf(slot, live.first),
                    _ => self.index.touch_dir(slot, live.first as usize),
                }
            }
            walk.taken(1);
            return Some(0);
        }
        let batch = self.open_cold(q, pool)?;
        let run = (walk.run() as u32).min(self.log.room(batch, Kind::Move));
        let want = if self.port.memory && self.cleaner.rereads == 0 { run } else { 1 };
        match walk.show(live.addr, want, self.geometry, &mut self.port, q, pool) {
            View::Here => {}
            // All at once did not do: the first one alone.
            View::Failed(_) if want > 1 => {
                walk.window.forget();
                self.cleaner.rereads = 1;
                return Some(1);
            }
            View::Failed(_) => return Some(self.lose_block(walk, batch, &live, pool)),
            View::Empty | View::Flying => return None,
        }
        // As many of the run as the window shows and that are sound.
        let sound = |n: &u32| {
            let l = &walk.pending()[*n as usize];
            walk.window.covers(l.addr) && crc32c(walk.window.block(l.addr)) == l.crc
        };
        let count = (0..run).take_while(sound).count() as u32;
        if count == 0 {
            return Some(self.lose_block(walk, batch, &live, pool));
        }
        self.cleaner.rereads = 0;
        let what = Described { volume: live.volume, first: live.first, count, stamp: live.stamp };
        let (tail, payload, _) = self.log.push(batch, Kind::Move, what);
        let places = tail.chunks_exact_mut(8).zip(payload.chunks_exact_mut(BLOCK));
        for (l, (tail, out)) in walk.pending().iter().zip(places) {
            tail[..4].copy_from_slice(&l.crc.to_le_bytes());
            tail[4..].copy_from_slice(&l.addr.0.to_le_bytes());
            out.copy_from_slice(walk.window.block(l.addr));
        }
        walk.taken(count as usize);
        self.cleaner.appended += u64::from(count);
        self.counters.moved_blocks += u64::from(count);
        Some(count)
    }

    /// A block could not be read or is not what it should be: again from the medium, then it is left for a later round,
    /// and after the last of them it is marked as lost.
    fn lose_block(&mut self, walk: &mut Walk, batch: usize, live: &Live, pool: &mut Pool) -> u32 {
        let checksum = walk.window.view() == View::Here;
        walk.forget(pool);
        if self.cleaner.rereads < REREADS {
            self.cleaner.rereads += 1;
            return 1;
        }
        self.cleaner.rereads = 0;
        if self.cleaner.rounds + 1 < ROUNDS {
            self.cleaner.unfinished = true;
            walk.taken(1);
            return 1;
        }
        let now = self.index.slot(live.volume).map(|slot| self.index.entry(slot, live.first).addr);
        if now == Some(live.addr) {
            self.counters.read_error(checksum);
            self.counters.lost_blocks += 1;
            let what = Described { volume: live.volume, first: live.first, count: 1, stamp: live.stamp };
            let (tail, ..) = self.log.push(batch, Kind::Lost, what);
            tail.copy_from_slice(&live.addr.0.to_le_bytes());
        }
        walk.taken(1);
        1
    }

    fn open_cold<Q: Queue>(&mut self, q: &mut Q, pool: &mut Pool) -> Option<usize> {
        let reserve = self.reserve_for_checkpoint();
        let batch = self.log.open(Stream::Cold, reserve, &mut self.segments, pool)?;
        if self.log.room(batch, Kind::Move) > 0 {
            return Some(batch);
        }
        if !self.log.may_seal(Stream::Cold) {
            return None;
        }
        self.seal(Stream::Cold, q);
        self.log.open(Stream::Cold, reserve, &mut self.segments, pool)
    }

    fn settle_cleaned(&mut self) {
        while let Some((segment, needed)) = self.cleaner.settling.front().copied()
            && needed <= self.cleaner.applied
        {
            self.cleaner.settling.pop_front();
            self.segments.cleaned(segment);
            self.checkpoint.stale_pages |= self.segments.state(segment) == State::Draining;
        }
    }

    pub(super) fn clean_read_done(&mut self, done: Done, pool: &mut Pool) {
        match self.cleaner.walk.as_mut().or(self.cleaner.idle.as_mut()) {
            Some(walk) => walk.window.done(done),
            None => unreachable!("a walk outlives its window's read"),
        }
        if self.phase != super::Phase::Ready {
            self.cleaner.abandon(pool);
        }
    }
}
