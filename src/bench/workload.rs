//! Which access comes next: direction, place and moment. One generator per worker, seeded, so that a run can be
//! repeated access by access. Works in units (one unit = one `--bs`) of the worker's own part of the range; workers never share
//! a unit, which is what lets each keep its own verify state.

use super::target::Kind;
use crate::base::Time;
use crate::base::rng::Rng;

/// Order of the accesses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pattern {
    /// Ascending, wrapping at the end; reads and writes each have their own position.
    Sequential,
    /// Drawn by the [`Skew`].
    Random,
    /// Every unit once, in a random order; then again from the start.
    Shuffled,
}

/// How random accesses are spread over the range.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Skew {
    /// Every unit is equally likely.
    Uniform,
    /// `access` percent of the accesses go to `space` percent of the units, the rest to the rest. The hot units are
    /// scattered over the range.
    Hot {
        /// Percent of accesses, 1..=99.
        access: u8,
        /// Percent of units, 1..=99.
        space: u8,
    },
    /// The k-th most popular unit has weight 1/k^theta; popularity is scattered over the range. 0 < theta < 5.
    Zipf(f64),
}

/// What a worker does.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Spec {
    /// Order.
    pub pattern: Pattern,
    /// Percent of accesses that read, 0..=100.
    pub read_percent: u8,
    /// Distribution of random accesses.
    pub skew: Skew,
    /// A Flush follows every so many writes; 0: none.
    pub flush_every: u32,
}

/// Tries of a random draw before the generator says that nothing is free.
const DRAWS: u32 = 16;

/// The generator of one worker.
#[derive(Debug)]
pub struct Workload {
    spec: Spec,
    units: u64,
    rng: Rng,
    scatter: Scatter,
    shuffle: Shuffle,
    zipf: Option<Zipf>,
    read_at: u64,
    write_at: u64,
    writes_since_flush: u32,
}

/// The next access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Access {
    /// What to do.
    pub kind: Kind,
    /// Which unit; 0 for Flush.
    pub unit: u64,
}

impl Workload {
    /// A generator over `units` units (at least 1) whose sequence is determined by `seed`.
    pub fn new(spec: Spec, units: u64, seed: u64) -> Workload {
        assert!(units > 0, "a workload needs at least one unit");
        assert!(spec.read_percent <= 100, "percent");
        let zipf = match spec.skew {
            Skew::Zipf(theta) => Some(Zipf::new(units, theta)),
            _ => None,
        };
        let (rng, scatter, shuffle) = (Rng::new(seed), Scatter::new(units), Shuffle::new(units, seed));
        Workload { spec, units, rng, scatter, shuffle, zipf, read_at: 0, write_at: 0, writes_since_flush: 0 }
    }

    /// The next access, or `None` when every candidate write is refused by `free` (asked for writes only): a write to
    /// that unit is still under way.
    pub fn next(&mut self, mut free: impl FnMut(u64) -> bool) -> Option<Access> {
        if self.spec.flush_every != 0 && self.writes_since_flush >= self.spec.flush_every {
            self.writes_since_flush = 0;
            return Some(Access { kind: Kind::Flush, unit: 0 });
        }
        let kind = match self.spec.read_percent {
            100 => Kind::Read,
            0 => Kind::Write,
            percent if self.rng.chance(u64::from(percent)) => Kind::Read,
            _ => Kind::Write,
        };
        let unit = match self.spec.pattern {
            Pattern::Sequential | Pattern::Shuffled => self.in_order(kind, &mut free)?,
            Pattern::Random if kind == Kind::Read => self.draw(),
            Pattern::Random => (0..DRAWS).map(|_| self.draw()).find(|unit| free(*unit))?,
        };
        if kind == Kind::Write {
            self.writes_since_flush += 1;
        }
        Some(Access { kind, unit })
    }

    fn in_order(&mut self, kind: Kind, free: &mut impl FnMut(u64) -> bool) -> Option<u64> {
        let at = if kind == Kind::Read { &mut self.read_at } else { &mut self.write_at };
        let unit = if self.spec.pattern == Pattern::Shuffled { self.shuffle.place(*at) } else { *at };
        if kind == Kind::Write && !free(unit) {
            return None;
        }
        *at = if *at + 1 == self.units { 0 } else { *at + 1 };
        Some(unit)
    }

    fn draw(&mut self) -> u64 {
        match self.spec.skew {
            Skew::Uniform => self.rng.below(self.units),
            Skew::Hot { access, space } => {
                // At least one unit on either side, so that a tiny range still has both temperatures.
                let hot = (self.units * u64::from(space) / 100).clamp(1, self.units);
                let cold = self.units - hot;
                let rank = if cold == 0 || self.rng.chance(u64::from(access)) {
                    self.rng.below(hot)
                } else {
                    hot + self.rng.below(cold)
                };
                self.scatter.place(rank)
            }
            Skew::Zipf(_) => {
                let zipf = self.zipf.as_ref().expect("made with the skew");
                self.scatter.place(zipf.draw(&mut self.rng))
            }
        }
    }
}

/// A fixed permutation of `0..n`: neighbours in rank are far apart in place.
#[derive(Clone, Copy, Debug)]
pub struct Scatter {
    n: u64,
    factor: u64,
}

impl Scatter {
    /// A permutation of `0..n`, `n` at least 1.
    pub fn new(n: u64) -> Scatter {
        // A step near the golden section spreads best; it must share no divisor with n to reach every place.
        let mut factor = ((n as f64 * 0.618_033_988_749_895) as u64).max(1);
        while gcd(factor, n) != 1 {
            factor += 1;
        }
        Scatter { n, factor }
    }
    /// Where `rank` (below n) lies.
    pub fn place(&self, rank: u64) -> u64 {
        debug_assert!(rank < self.n);
        (u128::from(rank) * u128::from(self.factor) % u128::from(self.n)) as u64
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// A seeded random-looking permutation of `0..n`, without a table: a Feistel network over the next even number of bits,
/// walked until it lands inside.
#[derive(Clone, Copy, Debug)]
pub struct Shuffle {
    n: u64,
    half_bits: u32,
    keys: [u64; 4],
}

impl Shuffle {
    /// A permutation of `0..n`, `n` at least 1.
    pub fn new(n: u64, seed: u64) -> Shuffle {
        let bits = u64::BITS - n.saturating_sub(1).leading_zeros();
        let mut rng = Rng::new(seed ^ 0x7368_7566);
        let keys = std::array::from_fn(|_| rng.next_u64());
        Shuffle { n, half_bits: bits.div_ceil(2).max(1), keys }
    }
    /// Where `rank` (below n) lies.
    pub fn place(&self, rank: u64) -> u64 {
        debug_assert!(rank < self.n);
        let mask = (1u64 << self.half_bits) - 1;
        let mut x = rank;
        // At most a quarter of the domain lies inside in the worst case, so a few rounds on average.
        loop {
            let (mut left, mut right) = (x >> self.half_bits, x & mask);
            for key in self.keys {
                let mixed = (right ^ key).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                (left, right) = (right, left ^ (mixed >> 29) & mask);
            }
            x = left << self.half_bits | right;
            if x < self.n {
                return x;
            }
        }
    }
}

/// Zipf-distributed ranks by rejection-inversion (Hörmann and Derflinger 1996): no table, constant time.
#[derive(Clone, Copy, Debug)]
struct Zipf {
    n: u64,
    theta: f64,
    low: f64,
    high: f64,
    shortcut: f64,
}

impl Zipf {
    fn new(n: u64, theta: f64) -> Zipf {
        assert!(theta > 0.0 && theta < 5.0, "zipf exponent");
        let mut z = Zipf { n, theta, low: 0.0, high: 0.0, shortcut: 0.0 };
        z.low = z.integral(1.5) - 1.0;
        z.high = z.integral(n as f64 + 0.5);
        z.shortcut = 2.0 - z.inverse(z.integral(2.5) - z.weight(2.0));
        z
    }
    fn weight(&self, x: f64) -> f64 {
        x.powf(-self.theta)
    }
    /// Integral of the weight from 1 to x.
    fn integral(&self, x: f64) -> f64 {
        let e = 1.0 - self.theta;
        if e.abs() < 1e-9 { x.ln() } else { (x.powf(e) - 1.0) / e }
    }
    fn inverse(&self, y: f64) -> f64 {
        let e = 1.0 - self.theta;
        if e.abs() < 1e-9 { y.exp() } else { (1.0 + y * e).max(f64::MIN_POSITIVE).powf(1.0 / e) }
    }
    /// A rank in `0..n`.
    fn draw(&self, rng: &mut Rng) -> u64 {
        loop {
            let unit = (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
            let u = self.high + unit * (self.low - self.high);
            let x = self.inverse(u);
            let k = (x + 0.5).floor().clamp(1.0, self.n as f64);
            if k - x <= self.shortcut || u >= self.integral(k + 0.5) - self.weight(k) {
                return k as u64 - 1;
            }
        }
    }
}

/// When the next access is due under `--rate`: evenly spaced from the start, whatever the target does, so that a slow
/// target shows as latency and not as a lower offered load.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    start: Time,
    per_second: f64,
    issued: u64,
}

impl Pace {
    /// `per_second` accesses per second (more than 0) from `start` on.
    pub fn new(start: Time, per_second: f64) -> Pace {
        assert!(per_second > 0.0, "a rate of nothing never ends");
        Pace { start, per_second, issued: 0 }
    }
    /// When the next access is due.
    pub fn due(&self) -> Time {
        self.start.after_ns((self.issued as f64 * 1e9 / self.per_second) as u64)
    }
    /// The next access was issued.
    pub fn advance(&mut self) {
        self.issued += 1;
    }
}

#[cfg(test)]
mod tests;
