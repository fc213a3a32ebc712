//! One submission queue and its completion queue (NVM Express Base Specification 2.0, 3.3.1 "Memory-based Transport Queue
//! Model"): entries in memory, a phase tag that says which completions are new, and two doorbells. It knows nothing of
//! what the commands mean; the admin machine and the I/O queues both work on it.
//!
//! What stays true: its user has at most `entries - 1` commands under way, so there is always room in both queues; the
//! doorbells are written at most once per [`Ring::tell`], whatever was submitted and reaped since the last.

use super::dma::Block;
use super::regs::{Bar, DOORBELLS};
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

/// What a completion queue entry says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Which command ended.
    pub cid: u16,
    /// The status word with its phase tag.
    pub status: u16,
    /// Dword 0.
    pub result: u32,
    /// How far the controller had read the submission queue.
    pub sq_head: u16,
}

/// Bytes of a submission queue entry.
pub const SQE: usize = 64;
/// Bytes of a completion queue entry.
pub const CQE: usize = 16;

/// Shadow doorbells and the event indexes beside them (5.8 "Doorbell Buffer Config command").
#[derive(Clone, Debug)]
pub struct Shadow {
    /// What the host would write to the doorbells, at the same offsets as those.
    pub bells: Arc<Block>,
    /// When the controller wants the real doorbell to be written.
    pub events: Arc<Block>,
}

/// One doorbell.
#[derive(Debug)]
struct Bell {
    /// Its register.
    at: usize,
    /// What it was told last.
    told: u16,
}

impl Bell {
    /// Where the doorbells of a queue are: submission, then completion (3.1.3.22, 3.1.3.23).
    fn pair(bar: &Bar, stride: usize, qid: u16) -> (Bell, Bell) {
        let at = DOORBELLS + 2 * usize::from(qid) * stride;
        assert!(at + 2 * stride <= bar.len(), "doorbells inside the BAR");
        (Bell { at, told: 0 }, Bell { at: at + stride, told: 0 })
    }

    #[inline]
    fn tell(&mut self, value: u16, bar: &Bar, shadow: Option<&Shadow>) {
        if self.told == value {
            return;
        }
        let was = std::mem::replace(&mut self.told, value);
        // What the doorbell announces must be in memory before it.
        before_doorbell();
        if let Some(shadow) = shadow
            && !shadow.must_ring(self.at - DOORBELLS, was, value)
        {
            return;
        }
        bar.write32(self.at, u32::from(value));
    }
}

impl Shadow {
    /// Writes the shadow of a doorbell; true when the controller sleeps and needs the real one.
    #[inline]
    fn must_ring(&self, at: usize, was: u16, now: u16) -> bool {
        self.bells.write32(at, u32::from(now));
        // The controller writes its event index and then looks at the shadow once more; we write the shadow and then
        // look at the event index. One of the two sees the other, if no load passes a store.
        fence(Ordering::SeqCst);
        let event = self.events.read32(at) as u16;
        now.wrapping_sub(event).wrapping_sub(1) < now.wrapping_sub(was)
    }
}

/// Orders stores to memory before the store to a register that announces them.
#[inline]
fn before_doorbell() {
    // x86 keeps stores in order, also to uncached memory: the compiler is all that must be held back.
    #[cfg(target_arch = "x86_64")]
    fence(Ordering::Release);
    #[cfg(not(target_arch = "x86_64"))]
    fence(Ordering::SeqCst);
    // A fence orders memory between cores only; devices need the outer domain.
    // SAFETY: a barrier, no more.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        std::arch::asm!("dsb oshst", options(nostack, preserves_flags));
    }
}

/// A submission queue and its completion queue.
#[derive(Debug)]
pub struct Ring {
    sq: Arc<Block>,
    cq: Arc<Block>,
    entries: u16,
    /// Where the next command goes.
    tail: u16,
    /// Where the next completion is looked for.
    head: u16,
    /// The phase tag of new entries: 1, then 0, and so on each time around.
    phase: u32,
    bar: Arc<Bar>,
    sq_bell: Bell,
    cq_bell: Bell,
    shadow: Option<Shadow>,
}

impl Ring {
    /// Queue `qid` of `entries` (2 to 65535) on blocks that hold that many; they must be zero when the controller gets them.
    pub fn new(bar: &Arc<Bar>, stride: usize, qid: u16, entries: u16, sq: Arc<Block>, cq: Arc<Block>) -> Ring {
        let count = usize::from(entries);
        assert!(count >= 2 && sq.len() >= count * SQE && cq.len() >= count * CQE, "room for the entries");
        let (sq_bell, cq_bell) = Bell::pair(bar, stride, qid);
        let bar = Arc::clone(bar);
        Ring { sq, cq, entries, tail: 0, head: 0, phase: 1, bar, sq_bell, cq_bell, shadow: None }
    }

    /// The same with shadow doorbells.
    #[must_use]
    pub fn with_shadow(mut self, shadow: Option<Shadow>) -> Ring {
        self.shadow = shadow;
        self
    }

    /// Starts again after the controller gave both queues up and their memory was zeroed.
    pub fn restart(&mut self) {
        (self.tail, self.head, self.phase) = (0, 0, 1);
        (self.sq_bell.told, self.cq_bell.told) = (0, 0);
    }

    /// Entries of each queue; one fewer can be under way.
    pub fn entries(&self) -> u16 {
        self.entries
    }

    /// Writes a command; [`Ring::tell`] hands it over.
    #[inline]
    pub fn push(&mut self, words: &[u64; 8]) {
        self.sq.write_entry(usize::from(self.tail), words);
        self.tail = if self.tail + 1 == self.entries { 0 } else { self.tail + 1 };
        assert!(self.tail != self.sq_bell.told, "fewer commands than entries");
    }

    /// Tells the controller of new commands and of completions taken.
    #[inline]
    pub fn tell(&mut self) {
        self.sq_bell.tell(self.tail, &self.bar, self.shadow.as_ref());
        self.cq_bell.tell(self.head, &self.bar, self.shadow.as_ref());
    }

    /// The next new completion.
    #[inline]
    pub fn pop(&mut self) -> Option<Entry> {
        let at = usize::from(self.head) * CQE;
        let last = self.cq.read32(at + 12);
        if last >> 16 & 1 != self.phase {
            return None;
        }
        // The rest of the entry, and the data it announces, are read after the phase tag.
        fence(Ordering::Acquire);
        let (result, sq_head) = (self.cq.read32(at), self.cq.read32(at + 8) as u16);
        self.head += 1;
        if self.head == self.entries {
            self.head = 0;
            self.phase ^= 1;
        }
        Some(Entry { cid: last as u16, status: (last >> 16) as u16, result, sq_head })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::nvme::dma::Dma;
    use crate::mem::{Commit, Mapping};

    fn ring(entries: u16) -> Ring {
        let dma = Dma::software();
        let bar = Arc::new(Bar::of_memory(Arc::new(Mapping::new(16384, Commit::OnTouch).unwrap())));
        let (sq, cq) = (Arc::new(dma.block(65536).unwrap()), Arc::new(dma.block(65536).unwrap()));
        Ring::new(&bar, 8, 3, entries, sq, cq)
    }

    /// Posts a completion as a controller does: the word with the phase tag last.
    fn post(r: &Ring, at: u16, cid: u16, phase: u32) {
        r.cq.write32(usize::from(at) * CQE + 8, u32::from(at));
        r.cq.write32(usize::from(at) * CQE, 0xabc0 + u32::from(cid));
        r.cq.write32(usize::from(at) * CQE + 12, u32::from(cid) | phase << 16);
    }

    #[test]
    fn goes_around_many_times_with_the_phase() {
        for entries in [2u16, 3, 7, 64] {
            let mut r = ring(entries);
            let (mut at, mut phase, mut cid) = (0, 1, 0u16);
            for round in 0..entries * 5 {
                let batch = 1 + round % (entries - 1);
                for i in 0..batch {
                    r.push(&[u64::from(cid + i); 8]);
                }
                let told = r.bar.read32(0x1000 + 6 * 8);
                assert_ne!(told, u32::from(r.tail), "nothing is told before `tell`");
                r.tell();
                assert_eq!(r.bar.read32(0x1000 + 6 * 8), u32::from(r.tail));
                assert_eq!(r.pop(), None);
                for i in 0..batch {
                    let entry = usize::from((r.tail + entries * 2 - batch + i) % entries);
                    assert_eq!(r.sq.read64(entry * 64 + 56), u64::from(cid + i));
                    post(&r, at, cid + i, phase);
                    at = (at + 1) % entries;
                    phase ^= u32::from(at == 0);
                }
                for i in 0..batch {
                    let entry = r.pop().unwrap();
                    assert_eq!((entry.cid, entry.result), (cid + i, 0xabc0 + u32::from(cid + i)));
                }
                assert_eq!(r.pop(), None);
                r.tell();
                assert_eq!(r.bar.read32(0x1000 + 7 * 8), u32::from(at));
                cid += batch;
            }
        }
    }

    #[test]
    fn shadow_doorbells_spare_the_register_while_the_controller_looks() {
        let dma = Dma::software();
        let shadow = Shadow { bells: Arc::new(dma.block(4096).unwrap()), events: Arc::new(dma.block(4096).unwrap()) };
        let mut r = ring(8).with_shadow(Some(shadow.clone()));
        let (bell, register) = (6 * 8, 0x1000 + 6 * 8);
        // It has seen nothing: the first command needs the register.
        r.push(&[0; 8]);
        r.tell();
        assert_eq!((shadow.bells.read32(bell), r.bar.read32(register)), (1, 1));
        // It says that it will look by itself up to entry 5.
        shadow.events.write32(bell, 5);
        for tail in 2..=5 {
            r.push(&[0; 8]);
            r.tell();
            assert_eq!((shadow.bells.read32(bell), r.bar.read32(register)), (tail, 1));
        }
        r.push(&[0; 8]);
        r.tell();
        assert_eq!((shadow.bells.read32(bell), r.bar.read32(register)), (6, 6));
        // Several at once that cross the event, around the end.
        shadow.events.write32(bell, 7);
        (0..3).for_each(|_| r.push(&[0; 8]));
        r.tell();
        assert_eq!((shadow.bells.read32(bell), r.bar.read32(register)), (1, 1));
        shadow.events.write32(bell, 5);
        (0..4).for_each(|_| r.push(&[0; 8]));
        r.tell();
        assert_eq!((shadow.bells.read32(bell), r.bar.read32(register)), (5, 1));
    }

    #[test]
    #[should_panic(expected = "fewer commands than entries")]
    fn too_many_commands_are_a_bug_of_the_user() {
        let mut r = ring(4);
        (0..4).for_each(|_| r.push(&[0; 8]));
    }
}
