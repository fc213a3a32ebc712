//! Log2-linear histograms in the bucket layout of SPDK's `bdev_get_histogram` (granularity 7), so that its scripts and
//! ours read the same arrays. Values below 128 have a bucket each; from there on every doubling is cut into 128
//! buckets, so a bucket is never wider than 1/128 of its values. Recording is one array increment.

/// Buckets per range are 2 to this power.
pub const GRANULARITY: u32 = 7;
const PER_RANGE: usize = 1 << GRANULARITY;
/// Highest range: that of values from 2^63.
const RANGE_LAST: u32 = 64 - GRANULARITY;

/// The range that `value` falls in: 0 below 128, then one per doubling.
#[inline]
pub fn bucket_range(value: u64) -> u32 {
    (64 - value.leading_zeros()).saturating_sub(GRANULARITY)
}

/// Range and index within it of the bucket that `value` falls in.
#[inline]
pub fn bucket_of(value: u64) -> (u32, usize) {
    let range = bucket_range(value);
    (range, (value >> range.saturating_sub(1)) as usize & (PER_RANGE - 1))
}

/// A histogram of nanoseconds (or any other unit).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    min_range: u32,
    max_range: u32,
    buckets: Box<[u64]>,
    count: u64,
    sum: u64,
    min: u64,
    max: u64,
}

impl Histogram {
    /// For every 64-bit value: 59 KiB.
    pub fn new() -> Histogram {
        Histogram::between(0, u64::MAX)
    }

    /// With buckets only for values from `least` up to, not including, `beyond`: 1 KiB for every doubling between
    /// them. Values outside are counted in the first or last bucket. `least` must be below `beyond`.
    pub fn between(least: u64, beyond: u64) -> Histogram {
        assert!(least < beyond, "an empty histogram");
        let (min_range, max_range) = (bucket_range(least), bucket_range(beyond - 1));
        let ranges = (max_range - min_range + 1) as usize;
        let buckets = vec![0; ranges * PER_RANGE].into_boxed_slice();
        Histogram { min_range, max_range, buckets, count: 0, sum: 0, min: u64::MAX, max: 0 }
    }

    /// Counts `value`.
    #[inline]
    pub fn record(&mut self, value: u64) {
        let (range, index) = bucket_of(value);
        let (range, index) = if range < self.min_range {
            (self.min_range, 0)
        } else if range > self.max_range {
            (self.max_range, PER_RANGE - 1)
        } else {
            (range, index)
        };
        self.buckets[(range - self.min_range) as usize * PER_RANGE + index] += 1;
        self.count += 1;
        self.sum = self.sum.wrapping_add(value);
        self.min = self.min.min(value);
        self.max = self.max.max(value);
    }

    /// Adds the counts of `other`, which must have the same buckets.
    pub fn merge(&mut self, other: &Histogram) {
        assert_eq!(self.shape(), other.shape(), "histograms of different shapes");
        for (mine, its) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine += its;
        }
        self.count += other.count;
        self.sum = self.sum.wrapping_add(other.sum);
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
    }

    /// Copies everything into `out`, which must have the same buckets.
    pub fn copy_to(&self, out: &mut Histogram) {
        assert_eq!(self.shape(), out.shape(), "histograms of different shapes");
        out.buckets.copy_from_slice(&self.buckets);
        (out.count, out.sum, out.min, out.max) = (self.count, self.sum, self.min, self.max);
    }

    /// Forgets everything.
    pub fn reset(&mut self) {
        self.buckets.fill(0);
        (self.count, self.sum, self.min, self.max) = (0, 0, u64::MAX, 0);
    }

    /// Values recorded.
    pub fn count(&self) -> u64 {
        self.count
    }
    /// Their exact mean; 0 when there are none.
    pub fn mean(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.sum as f64 / self.count as f64 }
    }
    /// The smallest, exactly; 0 when there are none.
    pub fn min(&self) -> u64 {
        if self.count == 0 { 0 } else { self.min }
    }
    /// The largest, exactly; 0 when there are none.
    pub fn max(&self) -> u64 {
        self.max
    }

    /// The value that `percent` of 100 recorded values do not exceed, at most 1/128 above it and never above
    /// [`Histogram::max`]; 0 when there are none.
    pub fn percentile(&self, percent: f64) -> u64 {
        let rank = ((percent / 100.0 * self.count as f64).ceil() as u64).clamp(1, self.count.max(1));
        let mut seen = 0;
        for (end, count) in self.ends() {
            seen += count;
            if seen >= rank {
                // The first and last bucket may hold values from outside them.
                return (end - 1).clamp(self.min(), self.max);
            }
        }
        0
    }

    /// Every bucket as (end, count), ascending: it holds values from the previous one's end up to, not including, its
    /// own. The end of the very last bucket is `u64::MAX`.
    pub fn ends(&self) -> impl Iterator<Item = (u64, u64)> {
        self.buckets.iter().enumerate().map(|(n, count)| {
            let (range, index) = (self.min_range + (n / PER_RANGE) as u32, (n % PER_RANGE) as u64 + 1);
            if range == 0 {
                return (index, *count);
            }
            let start = 1u64 << (range + GRANULARITY - 1);
            (start.saturating_add(index << (range - 1)), *count)
        })
    }

    /// First and last range that have buckets (SPDK's `min_range` and `max_range`).
    pub fn shape(&self) -> (u32, u32) {
        debug_assert!(self.max_range <= RANGE_LAST);
        (self.min_range, self.max_range)
    }

    /// The counts, range by range: what `bdev_get_histogram` returns in base64.
    pub fn buckets(&self) -> &[u64] {
        &self.buckets
    }
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    #[test]
    fn the_layout_is_spdk_s() {
        // (value, range, index), worked out from the definition: 128 buckets per doubling, single values below 128.
        for (value, range, index) in [
            (0, 0, 0),
            (1, 0, 1),
            (127, 0, 127),
            (128, 1, 0),
            (255, 1, 127),
            (256, 2, 0),
            (257, 2, 0),
            (258, 2, 1),
            (1 << 20, 14, 0),
            ((1 << 20) + (1 << 13), 14, 1),
            (1 << 63, 57, 0),
            (u64::MAX, 57, 127),
        ] {
            assert_eq!(bucket_of(value), (range, index), "{value}");
        }
        let h = Histogram::new();
        assert_eq!((h.shape(), h.buckets().len()), ((0, 57), 58 * 128));
        let h = Histogram::between(1000, 1_000_000);
        assert_eq!((h.shape(), h.buckets().len()), ((3, 13), 11 * 128));
    }

    #[test]
    fn every_value_lies_between_the_ends_around_its_bucket() {
        let ends: Vec<u64> = Histogram::new().ends().map(|(end, _)| end).collect();
        assert!(ends.is_sorted());
        let mut rng = Rng::new(3);
        let mut values = vec![0, 1, 127, 128, 129, u64::MAX - 1];
        for n in 0..20_000 {
            values.push(rng.next_u64() >> (n % 64));
        }
        for value in values {
            let (range, index) = bucket_of(value);
            let n = range as usize * PER_RANGE + index;
            assert!(value < ends[n] && (n == 0 || value >= ends[n - 1]), "{value}");
        }
    }

    #[test]
    fn percentiles_are_within_a_bucket_of_the_truth() {
        let (mut h, mut rng) = (Histogram::new(), Rng::new(4));
        let mut values: Vec<u64> = (0..10_000).map(|_| 500 + (rng.next_u64() >> (34 + rng.below(30)))).collect();
        for value in &values {
            h.record(*value);
        }
        values.sort_unstable();
        for percent in [0.0, 1.0, 50.0, 90.0, 99.0, 99.9, 100.0] {
            let rank = ((percent / 100.0 * 10_000.0_f64).ceil() as usize).max(1);
            let (truth, got) = (values[rank - 1], h.percentile(percent));
            assert!(got >= truth && got <= truth + truth / 128, "{percent}: {truth} {got}");
        }
        assert_eq!((h.min(), h.max(), h.count()), (values[0], values[9_999], 10_000));
        let mean = values.iter().sum::<u64>() as f64 / 10_000.0;
        assert!((h.mean() - mean).abs() < 1e-6);
        assert_eq!((Histogram::new().percentile(50.0), Histogram::new().mean()), (0, 0.0));
    }

    #[test]
    fn values_outside_are_counted_at_the_ends() {
        let mut h = Histogram::between(1000, 100_000);
        for value in [3, 5000, 7_000_000] {
            h.record(value);
        }
        assert_eq!((h.buckets()[0], h.buckets().last()), (1, Some(&1)));
        assert_eq!((h.count(), h.min(), h.max(), h.percentile(100.0)), (3, 3, 7_000_000, 131_071));
    }

    #[test]
    fn merge_copy_and_reset() {
        let (mut a, mut b) = (Histogram::new(), Histogram::new());
        a.record(10);
        b.record(1000);
        a.merge(&b);
        assert_eq!((a.count(), a.min(), a.max(), a.percentile(50.0)), (2, 10, 1000, 10));
        a.copy_to(&mut b);
        assert_eq!(a, b);
        a.reset();
        assert_eq!(a, Histogram::new());
    }
}
