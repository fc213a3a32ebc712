//! One simulated machine: a disk, the slices of a store on it, and the turn that drives them as a reactor would.

use super::swarm::Swarm;
use super::{Disk, DiskOptions, Image, Medium, Pace};
use crate::base::rng::Rng;
use crate::base::{CoreId, SliceId, Time};
use crate::device::{Done, Queue};
use crate::mem::{Class, Pool};
use crate::store::{Ended, Limits, Phase, Slice, SliceConfig, StoreError, StoreName};

/// The store every simulated machine holds.
pub const STORE: [u8; 16] = *b"pollux simulator";

/// A machine with its power on.
pub struct Node {
    /// The disk.
    pub disk: Disk,
    /// The slices, by number.
    pub slices: Vec<Slice>,
    /// Their buffers.
    pub pool: Pool,
    /// Its clock.
    pub now: Time,
    rng: Rng,
    done: Vec<Done>,
    idle_turns: u32,
}

/// A pool that fits every [`Swarm`]; one is enough for a process, it goes from machine to machine.
pub fn pool() -> Pool {
    let classes = [
        Class { size: 4096, count: 512 },
        Class { size: 64 << 10, count: 128 },
        Class { size: 128 << 10, count: 192 },
        Class { size: 1 << 20, count: 8 },
    ];
    Pool::standalone(CoreId(0), &classes).expect("a few MiB of address space")
}

/// Buffers of `pool` that are out.
pub fn buffers_out(pool: &Pool) -> usize {
    pool.stats().map(|s| s.total - s.free).sum()
}

fn config(swarm: &Swarm, slice: u16, limits: Limits) -> SliceConfig {
    SliceConfig {
        store: STORE,
        name: StoreName::new("simulated").expect("a short name"),
        slice: SliceId(slice),
        slices: swarm.slices,
        offset: u64::from(slice) * swarm.slice_bytes,
        len: swarm.slice_bytes,
        token_tag: slice + 1,
        limits,
    }
}

impl Node {
    /// A machine whose empty disk is being formatted.
    pub fn format(swarm: &Swarm, pool: Pool, seed: u64) -> Node {
        let disk = Disk::new(Image::new(swarm.device_bytes()), swarm.disk, seed);
        Node::start(swarm, disk, pool, seed, Slice::format)
    }

    /// A machine that was switched on with this image on its disk and now recovers.
    pub fn open(swarm: &Swarm, image: Image, options: DiskOptions, pool: Pool, seed: u64) -> Node {
        let disk = Disk::new(image, options, seed);
        Node::start(swarm, disk, pool, seed, Slice::open)
    }

    fn start(swarm: &Swarm, disk: Disk, pool: Pool, seed: u64, make: impl Fn(SliceConfig) -> Slice) -> Node {
        let slices = (0..swarm.slices).map(|slice| make(config(swarm, slice, swarm.limits.clone()))).collect();
        let rng = Rng::new(seed ^ 0x70de);
        Node { disk, slices, pool, now: Time(0), rng, done: Vec::new(), idle_turns: 0 }
    }

    /// One turn; what ended goes to `ended`. True when anything happened.
    pub fn turn(&mut self, ended: &mut Vec<Ended>) -> bool {
        self.pass_time();
        let before = ended.len();
        self.disk.poll(self.now, &mut self.done);
        let mut worked = !self.done.is_empty();
        self.deliver();
        for slice in &mut self.slices {
            worked |= slice.step(self.now, &mut self.disk, &mut self.pool);
        }
        self.disk.kick();
        for slice in &mut self.slices {
            slice.drain(ended);
        }
        worked |= ended.len() > before;
        self.idle_turns = if worked { 0 } else { self.idle_turns + 1 };
        worked
    }

    fn deliver(&mut self) {
        for done in self.done.drain(..) {
            let slice = usize::from((done.token >> 48) as u16) - 1;
            self.slices[slice].done(self.now, done, &mut self.disk, &mut self.pool);
        }
    }

    /// Turns without anything happening since the last that did something.
    pub fn idle_turns(&self) -> u32 {
        self.idle_turns
    }

    fn pass_time(&mut self) {
        let wait = match self.disk.wake_at() {
            Some(at) if self.rng.chance(70) => at.since(self.now),
            Some(_) => self.rng.below(20_000),
            None if self.idle_turns < 16 => 1_000 + self.rng.below(20_000),
            None => 1_000_000,
        };
        self.now = self.now.after_ns(wait);
    }

    /// The worst phase of the slices: the first that failed, died or is still starting, otherwise ready.
    pub fn phase(&self) -> Phase {
        let mut worst = Phase::Ready;
        for slice in &self.slices {
            match slice.phase() {
                Phase::Ready => {}
                starting @ Phase::Starting { .. } => worst = starting,
                end => return end,
            }
        }
        worst
    }

    /// Why a slice can not serve, if one can not.
    pub fn broken(&self) -> Option<StoreError> {
        match self.phase() {
            Phase::Failed(e) | Phase::Dead(e) => Some(e),
            Phase::Starting { .. } | Phase::Ready => None,
        }
    }

    /// Switches the machine off and gives what is left of it, and its buffers.
    ///
    /// The device dies after the state of its medium was taken down, so every operation under way ends at once and
    /// the slices can be closed.
    pub fn off(mut self) -> (Remains, Pool) {
        let remains = Remains {
            medium: self.disk.medium().clone(),
            cache: self.disk.image().clone(),
            events: self.disk.events(),
            trace: self.disk.trace(),
        };
        self.disk.die();
        let mut ended = Vec::new();
        while !self.slices.iter().all(Slice::is_quiet) {
            self.disk.poll(self.now, &mut self.done);
            self.deliver();
            for slice in &mut self.slices {
                slice.step(self.now, &mut self.disk, &mut self.pool);
            }
        }
        for slice in &mut self.slices {
            slice.close(&mut self.pool);
            slice.drain(&mut ended);
        }
        for buf in ended.into_iter().filter_map(|end| end.buf) {
            self.pool.put(buf);
        }
        (remains, self.pool)
    }
}

/// What is left of a machine that was switched off.
pub struct Remains {
    /// Its medium: what is durable and what is not.
    pub medium: Medium,
    /// The content as readers saw it last.
    pub cache: Image,
    /// Events the medium had seen.
    pub events: u64,
    /// The hash of everything its disk did.
    pub trace: u64,
}

/// The same disk with memory speed: for the many recoveries of a crash-point enumeration.
#[must_use]
pub fn at_memory_speed(options: DiskOptions) -> DiskOptions {
    DiskOptions { pace: Pace::Memory, ..options }
}
