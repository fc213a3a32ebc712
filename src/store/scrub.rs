//! Scrub: verification of everything live, segment by segment, at a bounded rate in the background.

use super::config::Limits;
use super::format::SegmentId;
use super::format::batch::Kind;
use super::request::{Ended, Outcome};
use super::segments::State;
use super::slice::Slice;
use super::token::Purpose;
use super::walk::{Step, Walk};
use super::window::View;
use crate::base::crc::crc32c;
use crate::base::{BLOCK, Status, Time};
use crate::device::{Done, Queue};
use crate::mem::Pool;

/// Blocks verified per turn at most.
const TURN_BLOCKS: u32 = 64;
/// Pause between two passes that nobody asked for, ns (one hour).
const PASS_PAUSE: u64 = 3_600_000_000_000;

/// How far a scrub is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ScrubProgress {
    /// True while a pass is under way.
    pub running: bool,
    /// Segments looked at in this pass.
    pub segments_done: u32,
    /// Segments in all.
    pub segments: u32,
    /// Blocks that failed in this pass.
    pub errors: u64,
}

/// The scrubber of a slice.
pub(super) struct Scrub {
    walk: Walk,
    running: bool,
    in_segment: bool,
    next: u32,
    errors: u64,
    rate: u64,
    rereads: u8,
    /// When the next block may be verified.
    due: Time,
    tag: Option<u64>,
}

impl Scrub {
    pub fn new(limits: &Limits) -> Scrub {
        Scrub {
            walk: Walk::new(SegmentId(0), Purpose::Walk(1)),
            running: false,
            in_segment: false,
            next: 0,
            errors: 0,
            rate: limits.scrub_bytes_per_sec,
            rereads: 0,
            due: Time(0),
            tag: None,
        }
    }
    /// When it goes on by itself.
    pub fn wake_at(&self) -> Option<Time> {
        ((self.running || self.rate != 0) && self.walk.window.view() != View::Flying).then_some(self.due)
    }
    /// Gives buffers back.
    pub fn abandon(&mut self, pool: &mut Pool) {
        self.walk.forget(pool);
    }
}

impl Slice {
    /// Starts a pass over everything live at `bytes_per_sec` (0: as fast as turns allow), or changes the pace of the one
    /// under way. Ends with `Ok` when the pass found nothing, with `MediaError` when it did.
    pub fn scrub(&mut self, bytes_per_sec: u64, tag: u64) -> Outcome {
        if let Some(refused) = self.refusal(tag) {
            return refused;
        }
        self.scrub.rate = bytes_per_sec;
        if self.scrub.tag.is_some() {
            return Outcome::ended(tag, Status::Busy);
        }
        self.scrub.tag = Some(tag);
        if !self.scrub.running {
            self.begin_pass();
        }
        Outcome::Pending
    }

    /// How far the scrub is.
    pub fn scrub_progress(&self) -> ScrubProgress {
        ScrubProgress {
            running: self.scrub.running,
            segments_done: self.scrub.next,
            segments: self.geometry.segments,
            errors: self.scrub.errors,
        }
    }

    fn begin_pass(&mut self) {
        let s = &mut self.scrub;
        (s.running, s.in_segment, s.next, s.errors, s.due) = (true, false, 0, 0, self.now);
    }

    pub(super) fn step_scrub<Q: Queue>(&mut self, q: &mut Q, pool: &mut Pool) -> bool {
        if !self.scrub.running {
            if self.scrub.rate == 0 || self.now < self.scrub.due {
                return false;
            }
            self.begin_pass();
        }
        if self.now < self.scrub.due {
            return false;
        }
        let mut blocks = 0;
        while blocks < TURN_BLOCKS && self.scrub.running {
            match self.scrub_some(q, pool) {
                Some(n) => blocks += n,
                None => break,
            }
        }
        if let Some(ns) = (u64::from(blocks) * BLOCK as u64 * 1_000_000_000).checked_div(self.scrub.rate)
            && self.scrub.running
        {
            self.scrub.due = self.now.after_ns(ns);
        }
        blocks > 0
    }

    /// Verifies the next block, or goes on to the next segment; `None` when it must wait.
    fn scrub_some<Q: Queue>(&mut self, q: &mut Q, pool: &mut Pool) -> Option<u32> {
        if !self.scrub.in_segment {
            self.next_segment(pool);
            return Some(u32::from(self.scrub.in_segment));
        }
        let (geometry, id) = (self.geometry, self.id);
        match self.scrub.walk.step(&id, geometry, &self.index, &mut self.port, q, pool) {
            Step::Later => None,
            Step::Ready => self.scrub_block(q, pool),
            Step::Ended => {
                self.scrub.in_segment = false;
                Some(0)
            }
            Step::Damaged => {
                // A header is only needed for cleaning and by recovery before the next checkpoint; a segment that was
                // reused meanwhile shows others.
                if matches!(self.segments.state(self.scrub.walk.segment), State::Sealed | State::Draining) {
                    self.counters.damaged_headers += 1;
                    self.scrub.errors += 1;
                }
                self.scrub.in_segment = false;
                Some(0)
            }
        }
    }

    fn next_segment(&mut self, pool: &mut Pool) {
        while self.scrub.next < self.geometry.segments {
            let segment = SegmentId(self.scrub.next);
            self.scrub.next += 1;
            if matches!(self.segments.state(segment), State::Sealed | State::Draining) {
                self.scrub.walk.restart(segment);
                self.scrub.walk.forget(pool);
                self.scrub.in_segment = true;
                return;
            }
        }
        self.scrub.running = false;
        self.scrub.due = self.now.after_ns(PASS_PAUSE);
        self.scrub.walk.forget(pool);
        if let Some(tag) = self.scrub.tag.take() {
            let status = if self.scrub.errors == 0 { Status::Ok } else { Status::MediaError };
            self.ended.push(Ended { tag, status, buf: None });
        }
    }

    fn scrub_block<Q: Queue>(&mut self, q: &mut Q, pool: &mut Pool) -> Option<u32> {
        let live = self.scrub.walk.pending()[0];
        let geometry = self.geometry;
        let good = match self.scrub.walk.show(live.addr, 1, geometry, &mut self.port, q, pool) {
            View::Here => crc32c(self.scrub.walk.window.block(live.addr)) == live.crc,
            View::Failed(_) => false,
            View::Empty | View::Flying => return None,
        };
        if !good && self.is_live(&live) {
            let checksum = self.scrub.walk.window.view() == View::Here;
            self.scrub.walk.forget(pool);
            if self.scrub.rereads == 0 {
                self.scrub.rereads = 1;
                return Some(1);
            }
            self.counters.read_error(checksum);
            self.scrub.errors += 1;
            if let (Kind::Leaf, Some(slot)) = (live.kind, self.index.slot(live.volume)) {
                // The leaf itself is in memory: the next checkpoint writes a sound page.
                self.index.touch_leaf(slot, live.first);
            }
        }
        self.scrub.rereads = 0;
        self.counters.scrubbed_blocks += 1;
        self.scrub.walk.taken(1);
        Some(1)
    }

    fn is_live(&self, live: &super::walk::Live) -> bool {
        let Some(slot) = self.index.slot(live.volume) else { return false };
        match live.kind {
            Kind::Leaf => {
                let (number, at) = ((live.first / 512) as usize, (live.first % 512) as usize);
                self.index.dir(slot, number).is_some_and(|d| d.pages[at].newest().addr == live.addr)
            }
            Kind::Dir => self.index.dir(slot, live.first as usize).is_some_and(|d| d.own.newest().addr == live.addr),
            _ => self.index.entry(slot, live.first).addr == live.addr,
        }
    }

    pub(super) fn scrub_read_done(&mut self, done: Done, pool: &mut Pool) {
        self.scrub.walk.window.done(done);
        if self.phase != super::Phase::Ready {
            self.scrub.abandon(pool);
        }
    }
}
