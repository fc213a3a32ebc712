//! Where a turn's time goes: a stop watch over the named stages of a tick, and the detector of stages that hold the core
//! too long. The reactor only counts and leaves a note; the control thread does the talking.

use super::clock::Clock;
use crate::base::{CoreId, Time};
use rtrb::Producer;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Stages a core may name.
pub const STAGES_MAX: usize = 16;
/// Stalls noted and not yet fetched; more are only counted.
pub(super) const NOTES: usize = 32;

/// A stage that held its core too long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stall {
    /// Whose turn it was.
    pub core: CoreId,
    /// The stage's name, from [`super::Core::STAGES`].
    pub stage: &'static str,
    /// When the stage began.
    pub at: Time,
    /// How long it held the core, ns.
    pub ns: u64,
}

/// What a reactor publishes about its time. One writer, any reader; each number is exact, together they may be a turn
/// apart.
#[repr(align(128))]
#[derive(Default)]
pub(super) struct Published {
    pub(super) busy_ns: AtomicU64,
    pub(super) idle_ns: AtomicU64,
    pub(super) turns: AtomicU64,
    pub(super) sleeps: AtomicU64,
    pub(super) stalls: AtomicU64,
    /// The stage the core is in, for a look from outside at a core that does not come back.
    pub(super) stage: AtomicUsize,
    /// When that stage began.
    pub(super) stage_at: AtomicU64,
    pub(super) stage_ns: [AtomicU64; STAGES_MAX],
}

/// Adds to a number that only this thread writes: a load and a store, without the price of an atomic addition.
pub(super) fn add(number: &AtomicU64, n: u64) {
    number.store(number.load(Ordering::Relaxed) + n, Ordering::Relaxed);
}

/// The stop watch of one reactor.
pub(super) struct Watch {
    core: CoreId,
    names: &'static [&'static str],
    limit_ns: u64,
    stage: usize,
    since: Time,
    notes: Producer<Stall>,
}

impl Watch {
    pub(super) fn new(
        core: CoreId,
        names: &'static [&'static str],
        limit_ns: u64,
        now: Time,
        notes: Producer<Stall>,
    ) -> Watch {
        assert!(!names.is_empty() && names.len() <= STAGES_MAX, "a tick has 1..={STAGES_MAX} named stages");
        Watch { core, names, limit_ns, stage: 0, since: now, notes }
    }

    /// Stage `next` begins at `now`, and the one before it ends. Returns what that one cost, in ns.
    pub(super) fn enter(&mut self, next: usize, now: Time, published: &Published) -> u64 {
        assert!(next < self.names.len(), "a stage that has no name");
        let ns = now.since(self.since);
        add(&published.stage_ns[self.stage], ns);
        if ns > self.limit_ns {
            add(&published.stalls, 1);
            let stall = Stall { core: self.core, stage: self.names[self.stage], at: self.since, ns };
            // When nobody fetches the notes the counter still tells.
            let _ = self.notes.push(stall);
        }
        (self.stage, self.since) = (next, now);
        published.stage.store(next, Ordering::Relaxed);
        published.stage_at.store(now.0, Ordering::Relaxed);
        ns
    }

    /// Time passed asleep, in no stage.
    pub(super) fn skip(&mut self, now: Time, published: &Published) {
        self.since = now;
        published.stage_at.store(now.0, Ordering::Relaxed);
    }

    /// Reads the clock and begins stage `next`.
    pub(super) fn mark(&mut self, next: usize, clock: &mut Clock, published: &Published) {
        self.enter(next, clock.now(), published);
    }
}
