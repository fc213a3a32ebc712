//! Latencies and counts of one direction: recorded per worker without sharing, merged at the end.

use hdrhistogram::Histogram;

/// Longest latency told apart, ns (one hour); longer ones count as this.
const LATENCY_MAX_NS: u64 = 3_600_000_000_000;
/// Decimal digits kept: 3 means within 0.1 %.
const DIGITS: u8 = 3;

/// What one direction did.
#[derive(Clone, Debug)]
pub struct Recorder {
    histogram: Histogram<u64>,
    sum_ns: u128,
    max_ns: u64,
    /// Requests that ended well within the timed window.
    pub ops: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Latency figures, microseconds.
#[derive(Clone, Copy, PartialEq, Debug, Default, serde::Serialize)]
pub struct Summary {
    /// Arithmetic mean, exact.
    pub mean: f64,
    /// Half were at most this.
    pub p50: f64,
    /// 99 % were at most this.
    pub p99: f64,
    /// 99.9 % were at most this.
    #[serde(rename = "p99.9")]
    pub p99_9: f64,
    /// The longest.
    pub max: f64,
}

impl Recorder {
    /// Nothing recorded.
    pub fn new() -> Recorder {
        let histogram = Histogram::new_with_bounds(1, LATENCY_MAX_NS, DIGITS).expect("constant bounds are valid");
        Recorder { histogram, sum_ns: 0, max_ns: 0, ops: 0, bytes: 0 }
    }
    /// One request took `ns` nanoseconds.
    pub fn latency(&mut self, ns: u64) {
        self.histogram.saturating_record(ns.max(1));
        self.sum_ns += u128::from(ns);
        self.max_ns = self.max_ns.max(ns);
    }
    /// Adds what another worker recorded.
    pub fn merge(&mut self, other: &Recorder) {
        self.histogram.add(&other.histogram).expect("all recorders have the same bounds");
        self.sum_ns += other.sum_ns;
        self.max_ns = self.max_ns.max(other.max_ns);
        self.ops += other.ops;
        self.bytes += other.bytes;
    }
    /// Forgets everything (the warm-up is over).
    pub fn clear(&mut self) {
        self.histogram.clear();
        (self.sum_ns, self.max_ns, self.ops, self.bytes) = (0, 0, 0, 0);
    }
    /// Latencies recorded.
    pub fn samples(&self) -> u64 {
        self.histogram.len()
    }
    /// The figures; all 0 when nothing was recorded.
    pub fn summary(&self) -> Summary {
        if self.samples() == 0 {
            return Summary::default();
        }
        let at = |quantile| self.quantile_us(quantile);
        let mean = self.sum_ns as f64 / self.samples() as f64 / 1000.0;
        let max = round(self.max_ns as f64 / 1000.0);
        Summary { mean: round(mean), p50: at(0.5), p99: at(0.99), p99_9: at(0.999), max }
    }
    /// The latency that this fraction (0..=1) of the requests did not exceed, microseconds, within 0.1 %.
    pub fn quantile_us(&self, quantile: f64) -> f64 {
        if self.samples() == 0 {
            return 0.0;
        }
        round(self.histogram.value_at_quantile(quantile).min(self.max_ns) as f64 / 1000.0)
    }
    /// `(latency in microseconds, requests)` for each step of the histogram that holds any, ascending.
    pub fn steps(&self) -> Vec<(f64, u64)> {
        self.histogram
            .iter_recorded()
            .map(|v| (v.value_iterated_to() as f64 / 1000.0, v.count_since_last_iteration()))
            .collect()
    }
}

impl Default for Recorder {
    fn default() -> Recorder {
        Recorder::new()
    }
}

/// To whole nanoseconds: the clock has no more.
fn round(us: f64) -> f64 {
    (us * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_a_known_distribution() {
        let mut r = Recorder::new();
        for us in 1..=1000u64 {
            r.latency(us * 1000);
        }
        let s = r.summary();
        assert!((s.mean - 500.5).abs() < 1e-9, "{s:?}");
        for (got, want) in [(s.p50, 500.0), (s.p99, 990.0), (s.p99_9, 999.0), (s.max, 1000.0)] {
            assert!((got - want).abs() <= want / 900.0, "{s:?}");
        }
    }

    #[test]
    fn merge_equals_recording_in_one_place() {
        let (mut a, mut b, mut both) = (Recorder::new(), Recorder::new(), Recorder::new());
        for ns in 0..5000u64 {
            let (r, other) = if ns % 3 == 0 { (&mut a, 1) } else { (&mut b, 2) };
            r.latency(ns * 37);
            r.ops += 1;
            r.bytes += other;
            both.latency(ns * 37);
        }
        a.merge(&b);
        assert_eq!(a.summary(), both.summary());
        assert_eq!((a.ops, a.bytes), (5000, 1667 + 2 * 3333));
        assert_eq!(a.steps().iter().map(|(_, n)| n).sum::<u64>(), 5000);
        a.clear();
        assert_eq!((a.samples(), a.ops, a.summary()), (0, 0, Summary::default()));
    }

    #[test]
    fn absurd_latencies_saturate() {
        let mut r = Recorder::new();
        r.latency(u64::MAX);
        r.latency(0);
        assert_eq!(r.samples(), 2);
        assert!(r.summary().p99 >= 3.5e9);
    }
}
