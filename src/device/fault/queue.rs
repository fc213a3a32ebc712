//! The data path of injected faults: decides per operation, keeps what must be undone or done when it comes back.

use super::{Action, Armed, FaultHandle};
use crate::base::Time;
use crate::base::ring::Ring;
use crate::base::rng::Rng;
use crate::device::{Caps, DeviceError, Done, Op, OpKind, Queue, check};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What is to be done when an operation comes back from the inner queue.
#[derive(Clone, Copy, Debug)]
enum After {
    Nothing,
    /// Change this byte of the buffer by this value: the damage of a read, the repair of a written buffer.
    Xor(usize, u8),
    /// It was cut short.
    Fail,
}

#[derive(Debug)]
struct Slot {
    token: u64,
    after: After,
}

/// A queue that misbehaves by rule.
#[derive(Debug)]
pub struct FaultQueue<Q> {
    inner: Q,
    handle: FaultHandle,
    rules: Arc<[Armed]>,
    version: u64,
    rng: Rng,
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Operations that ended without the inner queue.
    ready: Ring<Done>,
    /// Operations kept back.
    held: Ring<Op>,
    /// Releases that this queue has carried out.
    released: u64,
    /// When it was polled last.
    now: Time,
    depth: usize,
}

/// How often a sleeping reactor looks whether held operations have been released, ns.
const RELEASE_NS: u64 = 1_000_000;

impl<Q: Queue> FaultQueue<Q> {
    /// Puts the rules of `handle` in front of `inner`; `seed` drives its random choices.
    pub fn new(inner: Q, handle: FaultHandle, seed: u64) -> FaultQueue<Q> {
        let depth = inner.caps().depth as usize;
        let version = handle.0.version.load(Ordering::Acquire);
        let rules = handle.0.rules.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        let slots = (0..depth).map(|_| Slot { token: 0, after: After::Nothing }).collect();
        let free = (0..depth as u32).rev().collect();
        let released = handle.0.releases.load(Ordering::Acquire);
        FaultQueue {
            inner,
            handle,
            rules,
            version,
            rng: Rng::new(seed),
            slots,
            free,
            ready: Ring::new(depth),
            held: Ring::new(depth),
            released,
            now: Time(0),
            depth,
        }
    }

    /// The queue behind the faults.
    pub fn inner(&self) -> &Q {
        &self.inner
    }

    /// Fetches changed rules. A lock that is held means that they are being changed right now: the next call sees them.
    fn refresh(&mut self) {
        let version = self.handle.0.version.load(Ordering::Acquire);
        if version != self.version
            && let Ok(rules) = self.handle.0.rules.try_lock()
        {
            self.rules = Arc::clone(&rules);
            self.version = version;
        }
    }

    fn harmless(&mut self) -> bool {
        self.refresh();
        self.rules.is_empty() && !self.handle.is_dead()
    }

    fn decide(&mut self, op: &Op) -> Option<Action> {
        for armed in self.rules.iter().filter(|a| a.rule.matches(op.kind, op.offset, op.len)) {
            let n = armed.seen.fetch_add(1, Ordering::Relaxed);
            let candidate = (armed.rule.begin..armed.rule.end).contains(&n);
            if candidate && self.rng.below(1_000_000) < u64::from(armed.rule.per_million) {
                armed.hits.fetch_add(1, Ordering::Relaxed);
                return Some(armed.rule.action);
            }
        }
        None
    }

    fn finish(&mut self, op: Op, result: Result<(), DeviceError>) {
        let done = Done { token: op.token, kind: op.kind, result, buf: op.buf };
        assert!(self.ready.push(done).is_ok(), "submit checked the depth");
    }

    fn fail(&mut self, op: Op, error: DeviceError) {
        let fatal = op.kind == OpKind::Flush || error == DeviceError::Dead;
        if fatal {
            self.handle.0.dead.store(true, Ordering::Relaxed);
        }
        self.finish(op, Err(if fatal { DeviceError::Dead } else { error }));
    }

    fn apply(&mut self, mut op: Op, action: Action) {
        match action {
            Action::Error(error) => self.fail(op, error),
            Action::Lose => self.finish(op, Ok(())),
            Action::Misdirect(by) => {
                let caps = self.inner.caps();
                let (size, block) = (i128::from(caps.size), i128::from(caps.block_size));
                let to = (i128::from(op.offset) + i128::from(by)).rem_euclid(size) / block * block;
                op.offset = (to as u64).min(caps.size - op.len);
                self.forward(op, After::Nothing);
            }
            Action::Flip => {
                let bit = self.rng.below(op.len * 8);
                self.damage(op, bit / 8, 1 << (bit % 8));
            }
            Action::Corrupt { at, value } if at < op.len => self.damage(op, at, value),
            Action::Corrupt { .. } => self.forward(op, After::Nothing),
            Action::Hold => assert!(self.held.push(op).is_ok(), "submit checked the depth"),
            Action::Short(bytes) => {
                let block = u64::from(self.inner.caps().block_size);
                op.len = bytes.min(op.len - block) / block * block;
                if op.len == 0 { self.finish(op, Err(DeviceError::Media)) } else { self.forward(op, After::Fail) }
            }
        }
    }

    /// Does a transfer with byte `at` of its data changed by `value`.
    fn damage(&mut self, mut op: Op, at: u64, value: u8) {
        let at = op.at as usize + at as usize;
        if op.kind == OpKind::Write {
            op.buf.as_mut().expect("a write has a buffer")[at] ^= value;
        }
        self.forward(op, After::Xor(at, value));
    }

    /// Lets go on what was held when somebody asked for it; a dead device gives everything back.
    fn release(&mut self) {
        let asked = self.handle.0.releases.load(Ordering::Acquire);
        let dead = self.handle.is_dead();
        if self.held.is_empty() || (asked == self.released && !dead) {
            self.released = asked;
            return;
        }
        self.released = asked;
        while let Some(op) = self.held.pop() {
            if dead { self.finish(op, Err(DeviceError::Dead)) } else { self.forward(op, After::Nothing) }
        }
        self.inner.kick();
    }

    fn forward(&mut self, mut op: Op, after: After) {
        let slot = self.free.pop().expect("submit checked the depth");
        self.slots[slot as usize] = Slot { token: op.token, after };
        op.token = u64::from(slot);
        assert!(self.inner.submit(op).is_ok(), "the inner queue is as deep as this one");
    }

    fn come_back(&mut self, done: &mut Done) {
        let slot = &self.slots[done.token as usize];
        self.free.push(done.token as u32);
        done.token = slot.token;
        match slot.after {
            After::Xor(at, value) if done.kind == OpKind::Write || done.result.is_ok() => {
                done.buf.as_mut().expect("a transfer has a buffer")[at] ^= value;
            }
            After::Xor(..) | After::Nothing => {}
            After::Fail => done.result = done.result.and(Err(DeviceError::Media)),
        }
        if self.handle.is_dead() {
            done.result = Err(DeviceError::Dead);
        }
    }
}

impl<Q: Queue> Queue for FaultQueue<Q> {
    fn caps(&self) -> &Caps {
        self.inner.caps()
    }

    fn submit(&mut self, op: Op) -> Result<(), Op> {
        check(&op, self.inner.caps());
        if self.inflight() >= self.depth {
            return Err(op);
        }
        self.refresh();
        if self.handle.is_dead() {
            self.finish(op, Err(DeviceError::Dead));
            return Ok(());
        }
        match self.decide(&op) {
            Some(action) => self.apply(op, action),
            None => self.forward(op, After::Nothing),
        }
        Ok(())
    }

    fn kick(&mut self) {
        self.inner.kick();
    }

    fn poll(&mut self, now: Time, done: &mut Vec<Done>) -> usize {
        let start = done.len();
        self.now = now;
        self.release();
        self.inner.poll(now, done);
        for d in &mut done[start..] {
            self.come_back(d);
        }
        while let Some(d) = self.ready.pop() {
            done.push(d);
        }
        done.len() - start
    }

    fn inflight(&self) -> usize {
        self.inner.inflight() + self.ready.len() + self.held.len()
    }

    /// Answered at memory speed only while no rule is in force: a fault takes the way through `submit`.
    fn read_now(&mut self, offset: u64, into: &mut [u8]) -> Option<Result<(), DeviceError>> {
        if self.harmless() { self.inner.read_now(offset, into) } else { None }
    }

    fn write_now(&mut self, offset: u64, from: &[u8]) -> Option<Result<(), DeviceError>> {
        if self.harmless() { self.inner.write_now(offset, from) } else { None }
    }

    fn wake_at(&self) -> Option<Time> {
        if !self.ready.is_empty() {
            return Some(Time(0));
        }
        let look = (!self.held.is_empty()).then(|| self.now.after_ns(RELEASE_NS));
        [self.inner.wake_at(), look].into_iter().flatten().min()
    }

    fn wait_fd(&self) -> Option<i32> {
        self.inner.wait_fd()
    }
}
