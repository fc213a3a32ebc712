//! The data path of injected latency: completions of the inner queue wait in a heap until their time.

use super::DelayHandle;
use crate::base::Time;
use crate::base::rng::Rng;
use crate::device::{Caps, DeviceError, Done, Op, Queue, check};
use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// A completion held back. Ordered so that the heap's greatest is the one due first; equal times keep their order.
#[derive(Debug)]
struct Held {
    due: Time,
    order: u64,
    done: Done,
}

impl PartialEq for Held {
    fn eq(&self, other: &Held) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Held {}
impl PartialOrd for Held {
    fn partial_cmp(&self, other: &Held) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Held {
    fn cmp(&self, other: &Held) -> Ordering {
        (other.due, other.order).cmp(&(self.due, self.order))
    }
}

/// A queue whose completions come late. The delay of an operation starts when `poll` finds it completed inside.
#[derive(Debug)]
pub struct DelayQueue<Q> {
    inner: Q,
    handle: DelayHandle,
    rng: Rng,
    held: BinaryHeap<Held>,
    order: u64,
    arrived: Vec<Done>,
    depth: usize,
}

impl<Q: Queue> DelayQueue<Q> {
    /// Puts the latencies of `handle` behind `inner`; `seed` drives the choice of the slow percent.
    pub fn new(inner: Q, handle: DelayHandle, seed: u64) -> DelayQueue<Q> {
        let depth = inner.caps().depth as usize;
        DelayQueue {
            inner,
            handle,
            rng: Rng::new(seed),
            held: BinaryHeap::with_capacity(depth),
            order: 0,
            arrived: Vec::with_capacity(depth),
            depth,
        }
    }

    /// The queue behind the delays.
    pub fn inner(&self) -> &Q {
        &self.inner
    }

    fn delay(&mut self, done: &Done) -> u64 {
        let pace = self.handle.pace(done.kind);
        if pace.p99 != 0 && self.rng.chance(1) { pace.p99 } else { pace.usual }
    }
}

impl<Q: Queue> Queue for DelayQueue<Q> {
    fn caps(&self) -> &Caps {
        self.inner.caps()
    }

    fn submit(&mut self, op: Op) -> Result<(), Op> {
        check(&op, self.inner.caps());
        if self.inflight() >= self.depth {
            return Err(op);
        }
        self.inner.submit(op)
    }

    fn kick(&mut self) {
        self.inner.kick();
    }

    fn poll(&mut self, now: Time, done: &mut Vec<Done>) -> usize {
        let start = done.len();
        let mut arrived = std::mem::take(&mut self.arrived);
        self.inner.poll(now, &mut arrived);
        for d in arrived.drain(..) {
            let due = now.after_ns(self.delay(&d));
            self.held.push(Held { due, order: self.order, done: d });
            self.order += 1;
        }
        self.arrived = arrived;
        while self.held.peek().is_some_and(|h| h.due <= now) {
            done.extend(self.held.pop().map(|h| h.done));
        }
        done.len() - start
    }

    fn inflight(&self) -> usize {
        self.inner.inflight() + self.held.len()
    }

    /// Answered at memory speed only while every latency is 0.
    fn read_now(&mut self, offset: u64, into: &mut [u8]) -> Option<Result<(), DeviceError>> {
        if self.handle.is_zero() { self.inner.read_now(offset, into) } else { None }
    }

    fn write_now(&mut self, offset: u64, from: &[u8]) -> Option<Result<(), DeviceError>> {
        if self.handle.is_zero() { self.inner.write_now(offset, from) } else { None }
    }

    fn wake_at(&self) -> Option<Time> {
        let held = self.held.peek().map(|h| h.due);
        match (held, self.inner.wake_at()) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    fn wait_fd(&self) -> Option<i32> {
        self.inner.wait_fd()
    }
}
