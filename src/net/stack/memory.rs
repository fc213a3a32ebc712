//! Two ports in memory, joined by a cable that loses, repeats, reorders, delays and damages frames as a seed says. For tests
//! and benchmarks: time is an argument, so the same seed and the same calls give the same frames.

use super::port::{Port, PortFacts, PortStats};
use crate::base::Time;
use crate::base::rng::Rng;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

/// What a cable does to frames; chances in 1/1000.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wire {
    /// Determines which frames are treated how.
    pub seed: u64,
    /// Frames that vanish.
    pub lose: u64,
    /// Frames that arrive twice.
    pub repeat: u64,
    /// Frames that take up to four times the longest delay, and so are overtaken.
    pub reorder: u64,
    /// Frames of which one bit is flipped.
    pub damage: u64,
    /// Smallest and largest time a frame is under way, ns. Order is kept, but for the chances above.
    pub delay_ns: (u64, u64),
    /// Frames that one port may have sent and nobody has taken yet.
    pub queue: usize,
}

impl Default for Wire {
    fn default() -> Wire {
        Wire { seed: 1, lose: 0, repeat: 0, reorder: 0, damage: 0, delay_ns: (0, 0), queue: 512 }
    }
}

/// Frames of one port that its owner has not taken.
#[derive(Default)]
struct Inbox {
    frames: VecDeque<(Time, Bytes)>,
    last: Time,
}

struct Bytes {
    memory: Box<[u8]>,
    len: usize,
}

struct Shared {
    wire: Wire,
    rng: Rng,
    now: Time,
    inboxes: [Inbox; 2],
    /// Buffers of frames, by the port that sends them.
    free: [Vec<Box<[u8]>>; 2],
    /// What happened to frames, mixed into one number.
    digest: u64,
}

/// Joins two ports.
#[derive(Clone)]
pub struct Cable(Rc<RefCell<Shared>>);

impl Cable {
    /// A cable and the ports at its ends, which bring bursts of at most [`PortFacts::burst`] frames.
    pub fn new(wire: Wire, facts: [PortFacts; 2]) -> (Cable, [MemoryPort; 2]) {
        let buffers = |f: PortFacts| (0..wire.queue).map(|_| vec![0; f.mtu + 18].into_boxed_slice()).collect();
        let shared = Shared {
            wire,
            rng: Rng::new(wire.seed),
            now: Time(0),
            inboxes: [Inbox::default(), Inbox::default()],
            free: facts.map(buffers),
            digest: 0,
        };
        let cable = Cable(Rc::new(RefCell::new(shared)));
        let port = |end: usize| {
            let out = VecDeque::with_capacity(wire.queue);
            MemoryPort { cable: cable.clone(), end, facts: facts[end], out, stats: PortStats::default() }
        };
        let ports = [port(0), port(1)];
        (cable, ports)
    }

    /// Facts of an ordinary port whose address ends in `n`.
    pub fn facts(n: u8, mtu: usize) -> PortFacts {
        PortFacts {
            mac: [2, 0, 0, 0, 0, n],
            mtu,
            receive_checks_ip: false,
            receive_checks_tcp: false,
            transmit_sums_ip: false,
            transmit_sums_tcp: false,
            tso_bytes_max: None,
            burst: 32,
        }
    }

    /// Changes what happens to frames from now on.
    pub fn rewire(&self, change: impl FnOnce(&mut Wire)) {
        change(&mut self.0.borrow_mut().wire);
    }

    /// Sets the time at which frames that are under way are looked at.
    pub fn set_time(&self, now: Time) {
        self.0.borrow_mut().now = now;
    }

    /// When the next frame arrives anywhere.
    pub fn arrives_at(&self) -> Option<Time> {
        self.0.borrow().inboxes.iter().filter_map(|i| i.frames.front().map(|(at, _)| *at)).min()
    }

    /// A number that two runs share only if the same frames had the same fate at the same times.
    pub fn digest(&self) -> u64 {
        self.0.borrow().digest
    }
}

impl Shared {
    fn arrive(&mut self, to: usize, bytes: Bytes, late: bool) {
        let (low, high) = self.wire.delay_ns;
        let delay = low + if high > low { self.rng.below(high - low + 1) } else { 0 };
        let inbox = &mut self.inboxes[to];
        let at = if late {
            self.now.after_ns(delay + self.rng.below(4 * high.max(10_000)))
        } else {
            inbox.last = inbox.last.max(self.now.after_ns(delay));
            inbox.last
        };
        let behind = inbox.frames.iter().rposition(|(t, _)| *t <= at).map_or(0, |i| i + 1);
        inbox.frames.insert(behind, (at, bytes));
    }

    fn carry(&mut self, from: usize, mut bytes: Bytes) {
        let chance = |rng: &mut Rng, per_mille: u64| per_mille != 0 && rng.below(1000) < per_mille;
        let wire = self.wire;
        let fates = [wire.lose, wire.repeat, wire.reorder, wire.damage].map(|c| chance(&mut self.rng, c));
        let [lost, repeated, late, damaged] = fates;
        if wire != (Wire { seed: wire.seed, queue: wire.queue, ..Wire::default() }) {
            let mark = bytes.memory[..bytes.len].iter().fold(self.now.0, |h, b| h.rotate_left(7) ^ u64::from(*b));
            self.digest = (self.digest ^ mark).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(17);
        }
        if damaged {
            let bit = self.rng.below(bytes.len as u64 * 8);
            bytes.memory[bit as usize / 8] ^= 1 << (bit % 8);
        }
        if lost {
            return self.free[from].push(bytes.memory);
        }
        if repeated && let Some(mut memory) = self.free[from].pop() {
            memory[..bytes.len].copy_from_slice(&bytes.memory[..bytes.len]);
            self.arrive(1 - from, Bytes { memory, len: bytes.len }, true);
        }
        self.arrive(1 - from, bytes, late);
    }
}

/// One end of a [`Cable`].
pub struct MemoryPort {
    cable: Cable,
    end: usize,
    facts: PortFacts,
    out: VecDeque<Bytes>,
    stats: PortStats,
}

/// A frame received from a [`MemoryPort`].
pub struct MemoryFrame {
    cable: Cable,
    /// The port that sent it, whose buffer it is.
    home: usize,
    bytes: Bytes,
}

impl AsRef<[u8]> for MemoryFrame {
    fn as_ref(&self) -> &[u8] {
        &self.bytes.memory[..self.bytes.len]
    }
}

impl Drop for MemoryFrame {
    fn drop(&mut self) {
        let memory = std::mem::take(&mut self.bytes.memory);
        self.cable.0.borrow_mut().free[self.home].push(memory);
    }
}

impl Port for MemoryPort {
    type Frame = MemoryFrame;

    fn facts(&self) -> &PortFacts {
        &self.facts
    }

    fn receive(&mut self, into: &mut Vec<MemoryFrame>) -> usize {
        let mut shared = self.cable.0.borrow_mut();
        let now = shared.now;
        let home = 1 - self.end;
        let mut count = 0;
        while count < self.facts.burst && shared.inboxes[self.end].frames.front().is_some_and(|(at, _)| *at <= now) {
            let Some((_, bytes)) = shared.inboxes[self.end].frames.pop_front() else { unreachable!("seen above") };
            self.stats.frames_in += 1;
            self.stats.bytes_in += bytes.len as u64;
            into.push(MemoryFrame { cable: self.cable.clone(), home, bytes });
            count += 1;
        }
        count
    }

    fn transmit(&mut self, len: usize, fill: impl FnOnce(&mut [u8])) -> bool {
        let Some(mut memory) = self.cable.0.borrow_mut().free[self.end].pop() else {
            self.stats.transmit_full += 1;
            return false;
        };
        fill(&mut memory[..len]);
        self.out.push_back(Bytes { memory, len });
        true
    }

    fn kick(&mut self) -> usize {
        let mut shared = self.cable.0.borrow_mut();
        let count = self.out.len();
        for bytes in self.out.drain(..) {
            self.stats.frames_out += 1;
            self.stats.bytes_out += bytes.len as u64;
            shared.carry(self.end, bytes);
        }
        count
    }

    fn stats(&self) -> PortStats {
        self.stats
    }
}
