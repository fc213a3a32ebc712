//! Submitting to a device queue that may be full: what does not fit waits here, in order, and goes out first next turn.

use super::token::Purpose;
use crate::base::ring::Ring;
use crate::device::{Op, OpKind, Queue};
use crate::mem::Buf;

/// A write of so many bytes does not wait for the end of the turn: while the turn fills further batches the device would
/// have nothing to do, and a hand-over of its own costs little beside so much data.
const EAGER_BYTES: usize = 128 << 10;

/// The way of one slice to its device queue.
pub(super) struct Port {
    /// Start of the slice on the device, bytes.
    pub base: u64,
    tag: u16,
    backlog: Ring<Op>,
    /// Operations handed to the device and not yet back, the backlog included.
    pub inflight: usize,
    /// The device has answered a read at memory speed.
    pub memory: bool,
}

impl Port {
    /// A port for at most `ops` operations under way.
    pub fn new(base: u64, tag: u16, ops: usize) -> Port {
        Port { base, tag, backlog: Ring::new(ops), inflight: 0, memory: false }
    }

    /// Reads `len` bytes at block `addr` of the slice into the start of `buf` (at byte `at`).
    pub fn read<Q: Queue>(&mut self, addr: u32, len: usize, buf: Buf, at: usize, purpose: Purpose, q: &mut Q) {
        self.submit(OpKind::Read, addr, len, Some(buf), at, purpose, q);
    }
    /// Writes the first `len` bytes of `buf` at block `addr` of the slice; a large write goes to the device at once.
    pub fn write<Q: Queue>(&mut self, addr: u32, len: usize, buf: Buf, purpose: Purpose, q: &mut Q) {
        self.submit(OpKind::Write, addr, len, Some(buf), 0, purpose, q);
        if len >= EAGER_BYTES {
            q.kick();
        }
    }
    /// Flushes, at once: a device that serves in order would let the flush wait for everything this turn still writes.
    pub fn flush<Q: Queue>(&mut self, purpose: Purpose, q: &mut Q) {
        self.submit(OpKind::Flush, 0, 0, None, 0, purpose, q);
        q.kick();
    }

    #[allow(clippy::too_many_arguments, reason = "the fields of an Op, in one place")]
    fn submit<Q: Queue>(
        &mut self,
        kind: OpKind,
        addr: u32,
        len: usize,
        buf: Option<Buf>,
        at: usize,
        purpose: Purpose,
        q: &mut Q,
    ) {
        let offset = if kind == OpKind::Flush { 0 } else { self.byte(addr) };
        let op = Op { kind, offset, len: len as u64, buf, at: at as u32, token: purpose.token(self.tag) };
        self.inflight += 1;
        let refused = if self.backlog.is_empty() { q.submit(op).err() } else { Some(op) };
        if let Some(op) = refused {
            assert!(self.backlog.push(op).is_ok(), "operations under way are bounded by their slots");
        }
    }

    /// Offers the backlog to the device again; true when something went out.
    pub fn retry<Q: Queue>(&mut self, q: &mut Q) -> bool {
        let mut went = false;
        while let Some(op) = self.backlog.pop() {
            match q.submit(op) {
                Ok(()) => went = true,
                Err(op) => {
                    self.put_first(op);
                    break;
                }
            }
        }
        went
    }

    fn put_first(&mut self, op: Op) {
        let later = self.backlog.len();
        assert!(self.backlog.push(op).is_ok(), "there was room for it a moment ago");
        for _ in 0..later {
            let op = self.backlog.pop().expect("counted");
            assert!(self.backlog.push(op).is_ok(), "there is room for what was popped");
        }
    }

    /// Byte on the device of a block of the slice.
    pub fn byte(&self, addr: u32) -> u64 {
        self.base + u64::from(addr) * crate::base::BLOCK as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{BLOCK, CoreId, Time};
    use crate::device::{Caps, Done, NullQueue, NullSpec};
    use crate::mem::{Class, Pool};

    /// Counts what was submitted and how much of it was handed over.
    struct Counting {
        inner: NullQueue,
        submitted: usize,
        handed: usize,
    }

    impl Queue for Counting {
        fn caps(&self) -> &Caps {
            self.inner.caps()
        }
        fn submit(&mut self, op: Op) -> Result<(), Op> {
            self.submitted += 1;
            self.inner.submit(op)
        }
        fn kick(&mut self) {
            self.handed = self.submitted;
        }
        fn poll(&mut self, now: Time, done: &mut Vec<Done>) -> usize {
            self.inner.poll(now, done)
        }
        fn inflight(&self) -> usize {
            self.inner.inflight()
        }
    }

    #[test]
    fn large_writes_and_flushes_do_not_wait_for_the_end_of_the_turn() {
        let mut pool = Pool::standalone(CoreId(0), &[Class { size: EAGER_BYTES, count: 2 }]).unwrap();
        let spec = NullSpec { size: 1 << 20, block: None, nofill: true };
        let inner = NullQueue::new(&spec, 8);
        let mut q = Counting { inner, submitted: 0, handed: 0 };
        let mut port = Port::new(0, 1, 8);
        port.write(0, BLOCK, pool.get(EAGER_BYTES).unwrap(), Purpose::Batch(0), &mut q);
        assert_eq!((q.submitted, q.handed), (1, 0), "a small write waits for company");
        port.write(1, EAGER_BYTES, pool.get(EAGER_BYTES).unwrap(), Purpose::Batch(1), &mut q);
        assert_eq!((q.submitted, q.handed), (2, 2));
        port.flush(Purpose::Flush, &mut q);
        assert_eq!((q.submitted, q.handed), (3, 3));
    }
}
