//! One core's queue pair of a DPDK port, as the stack sees it. Received frames are used in the memory into which the card
//! put them; frames to be sent are written where the card takes them from.

use super::checksum::{self, Known, Verdict};
use super::ffi::{Frame, Pool, PortId, Queue, Thread};
use super::share::Share;
use crate::net::stack::{Port, PortFacts, PortStats};
use std::io;
use std::sync::Arc;

/// Frames of one receive. The shim takes no more.
const BURST: usize = 64;
/// Frames that wait to be handed to the hardware at most; a full turn of the largest answers.
const WAITING: usize = 512;

/// A core's part of an open port, until its reactor takes it. It must be gone before [`super::Dpdk`] is.
pub struct Seed {
    pub(super) port: PortId,
    pub(super) queue: u16,
    pub(super) pool: Pool,
    pub(super) facts: PortFacts,
    /// The port fills in the TCP checksum.
    pub(super) sums: bool,
    pub(super) unfinished: bool,
    pub(super) share: Share,
    /// Held while the queue is in use.
    pub(super) users: Arc<()>,
}

impl Seed {
    /// Takes the queue into use on this thread, which must stay the only one to use it.
    ///
    /// # Errors
    /// DPDK has no number left for the thread.
    pub fn open(self) -> io::Result<DpdkPort> {
        let thread = Thread::enter()?;
        Ok(DpdkPort {
            queue: Queue::new(self.port, self.queue, self.pool, WAITING),
            facts: self.facts,
            sums: self.sums,
            unfinished: self.unfinished,
            share: self.share,
            stats: PortStats::default(),
            chained: 0,
            first: self.queue == 0,
            _users: self.users,
            _thread: thread,
        })
    }
}

/// One core's queue pair.
pub struct DpdkPort {
    queue: Queue,
    facts: PortFacts,
    sums: bool,
    unfinished: bool,
    share: Share,
    stats: PortStats,
    /// Frames in pieces that could not be put together.
    chained: u64,
    /// The port's own counters are told with queue 0.
    first: bool,
    _users: Arc<()>,
    _thread: Thread,
}

impl DpdkPort {
    /// True when a received frame may be handed up.
    #[inline]
    fn is_sound(&self, frame: &Frame) -> bool {
        if frame.is_bad() {
            return false;
        }
        let known = Known { ip: frame.ip_is_good(), tcp: frame.tcp_is_good(), unfinished: self.unfinished };
        checksum::judge(frame.as_ref(), known) == Verdict::Good
    }
}

impl Port for DpdkPort {
    type Frame = Frame;

    fn facts(&self) -> &PortFacts {
        &self.facts
    }

    fn receive(&mut self, into: &mut Vec<Frame>) -> usize {
        let before = into.len();
        if self.share.is_needed() {
            // Copies come in a buffer of ours, so that a frame is one thing only.
            while into.len() < before + BURST / 2 {
                let queue = &mut self.queue;
                let copied = self.share.next(|bytes| {
                    let mut frame = queue.frame(bytes.len())?;
                    frame.bytes_mut().copy_from_slice(bytes);
                    Some(frame)
                });
                match copied {
                    Some(Some(frame)) => into.push(frame),
                    Some(None) => self.stats.receive_no_memory += 1,
                    None => break,
                }
            }
        }
        let own = into.len();
        self.queue.receive(into, BURST - (own - before), &mut self.chained);
        let mut at = own;
        while at < into.len() {
            if self.is_sound(&into[at]) {
                let bytes = into[at].as_ref();
                self.stats.frames_in += 1;
                self.stats.bytes_in += bytes.len() as u64;
                if self.share.is_needed() {
                    self.share.offer(bytes);
                }
                at += 1;
            } else {
                // Seldom; the order of the others must stay.
                self.stats.receive_errors += 1;
                into.remove(at);
            }
        }
        into.len() - before
    }

    fn transmit(&mut self, len: usize, fill: impl FnOnce(&mut [u8])) -> bool {
        if self.queue.is_full() {
            self.kick();
        }
        let room = !self.queue.is_full();
        let Some(mut frame) = room.then(|| self.queue.frame(len)).flatten() else {
            self.stats.transmit_full += 1;
            return false;
        };
        fill(frame.bytes_mut());
        if self.sums
            && let Some(layout) = checksum::tcp_layout(frame.as_ref())
        {
            checksum::prepare(frame.bytes_mut(), &layout);
            self.queue.request_sum(&mut frame, &layout);
        }
        self.stats.frames_out += 1;
        self.stats.bytes_out += len as u64;
        self.queue.push(frame);
        true
    }

    fn kick(&mut self) -> usize {
        self.queue.kick()
    }

    fn stats(&self) -> PortStats {
        let mut stats = self.stats;
        stats.receive_errors += self.chained;
        if self.first
            && let Some(counts) = self.queue.counts()
        {
            stats.missed = counts.missed;
            stats.receive_errors += counts.errors;
            stats.receive_no_memory += counts.no_memory;
        }
        stats
    }
}
