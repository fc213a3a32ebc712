//! The driver against a controller made of software, on one thread and a clock turned by hand.

mod data;
mod failures;
mod setup;

use super::model::{Rig, Traits};
use crate::base::CoreId;
use crate::device::{DeviceError, Done, Op, OpKind, Queue};
use crate::mem::{Arena, Class, Pool, Span};

/// A started rig, and buffers it can reach.
struct Bench {
    rig: Rig,
    pool: Pool,
    span: Span,
}

impl Bench {
    fn new(traits: Traits) -> Bench {
        let classes = [Class { size: 4096, count: 96 }, Class { size: 4 << 20, count: 3 }];
        let arena = Arena::new(16 << 20).unwrap();
        let pool = Pool::new(CoreId(0), &arena, &classes).unwrap();
        Bench { rig: Rig::new(traits), pool, span: arena.span() }
    }

    /// With one queue of `depth` operations.
    fn open(traits: Traits, depth: u32) -> Bench {
        let mut bench = Bench::new(traits);
        bench.rig.start().unwrap();
        bench.queue(depth);
        bench
    }

    fn queue(&mut self, depth: u32) {
        let span = self.span;
        self.rig.open(1, depth, &[span]).unwrap();
    }

    fn submit(&mut self, queue: usize, op: Op) {
        self.rig.queues[queue].submit(op).unwrap();
    }

    /// Submits a read or write of `len` bytes; a write of bytes that are all `fill`.
    fn transfer(&mut self, kind: OpKind, offset: u64, len: u64, token: u64, fill: u8) {
        let mut buf = self.pool.get(len as usize).expect("buffers enough");
        buf.fill(fill);
        self.submit(0, Op { kind, offset, len, buf: Some(buf), at: 0, token });
    }

    fn plain(&mut self, kind: OpKind, offset: u64, len: u64, token: u64) {
        self.submit(0, Op { kind, offset, len, buf: None, at: 0, token });
    }

    /// Runs until nothing is under way or `ns` have passed, in steps of `step` ns; what ended.
    fn run(&mut self, step: u64, ns: u64) -> Vec<Done> {
        let end = self.rig.now.after_ns(ns);
        while self.rig.queues.iter().any(|q| q.inflight() != 0) && self.rig.now < end {
            self.rig.step(step);
            self.rig.tick();
        }
        std::mem::take(&mut self.rig.done)
    }

    /// Runs until nothing is under way, which must be soon.
    fn drain(&mut self) -> Vec<Done> {
        let done = self.run(10_000, 50_000_000);
        assert!(self.rig.queues.iter().all(|q| q.inflight() == 0), "still under way");
        done
    }

    /// One operation to its end.
    fn one(&mut self, kind: OpKind, offset: u64, len: u64) -> Result<(), DeviceError> {
        match kind {
            OpKind::Read | OpKind::Write => self.transfer(kind, offset, len, 7, 0xa5),
            _ => self.plain(kind, offset, len, 7),
        }
        let mut done = self.drain();
        assert_eq!(done.len(), 1);
        let done = done.pop().unwrap();
        assert_eq!((done.token, done.kind), (7, kind));
        self.pool.put_all(done.buf);
        done.result
    }

    /// Commands of an opcode that the controller completed.
    fn commands(&self, opcode: u8) -> u64 {
        self.rig.model.seen.commands.get(&opcode).copied().unwrap_or(0)
    }
}

const SECOND: u64 = 1_000_000_000;
