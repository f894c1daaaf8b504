//! Latencies in log-linear buckets of fixed size.
//!
//! Each power of two is cut into 16 equal buckets, so a bucket is at most 1/16 of its values wide and its middle is at most
//! 1/32 (3.2 %) off. Below 16 microseconds each value has its own bucket. The idea is that of HDR histograms.

use super::counters::Counter;

/// log2 of the buckets in each power of two.
const SUB_BITS: u32 = 4;
const SUB: usize = 1 << SUB_BITS;
/// Values from here on, 71 minutes, count in the last bucket.
const VALUE_BITS: u32 = 32;
const BUCKETS: usize = (VALUE_BITS - SUB_BITS + 1) as usize * SUB;

/// The bucket of a value.
fn index(us: u64) -> usize {
    let us = us.min((1 << VALUE_BITS) - 1);
    let shift = (u64::BITS - SUB_BITS).saturating_sub((us | 1).leading_zeros() + 1);
    shift as usize * SUB + (us >> shift) as usize
}

/// The least value of a bucket, and with `BUCKETS` the end of the last.
fn lower_bound(index: usize) -> u64 {
    let shift = (index / SUB).saturating_sub(1);
    ((index - shift * SUB) as u64) << shift
}

/// A distribution of microseconds that one thread writes and any thread may read.
#[derive(Debug)]
pub struct Histogram {
    sum_us: Counter,
    buckets: [Counter; BUCKETS],
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            sum_us: Counter::default(),
            buckets: std::array::from_fn(|_| Counter::default()),
        }
    }
}

impl Histogram {
    /// Counts one value, in microseconds.
    pub fn record(&self, us: u64) {
        self.sum_us.add(us);
        self.buckets[index(us)].inc();
    }

    /// A copy of the present state. Values recorded meanwhile are in it or not.
    pub fn snapshot(&self) -> Snapshot {
        let mut snapshot = Snapshot::default();
        snapshot.add(self);
        snapshot
    }
}

/// A histogram at one time, or the sum or difference of several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    sum_us: u64,
    buckets: Box<[u64; BUCKETS]>,
}

impl Default for Snapshot {
    fn default() -> Self {
        Self {
            sum_us: 0,
            buckets: Box::new([0; BUCKETS]),
        }
    }
}

impl Snapshot {
    /// Adds what a histogram holds now.
    pub fn add(&mut self, histogram: &Histogram) {
        self.sum_us = self.sum_us.wrapping_add(histogram.sum_us.get());
        for (mine, other) in self.buckets.iter_mut().zip(&histogram.buckets) {
            *mine += other.get();
        }
    }

    /// Adds another snapshot, of another shard or server.
    pub fn merge(&mut self, other: &Self) {
        self.sum_us = self.sum_us.wrapping_add(other.sum_us);
        for (mine, other) in self.buckets.iter_mut().zip(other.buckets.iter()) {
            *mine += other;
        }
    }

    /// What was recorded between an earlier snapshot of the same histograms and this one.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut difference = self.clone();
        difference.sum_us = self.sum_us.saturating_sub(earlier.sum_us);
        for (mine, other) in difference.buckets.iter_mut().zip(earlier.buckets.iter()) {
            *mine = mine.saturating_sub(*other);
        }
        difference
    }

    /// How many values.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The sum of the values, microseconds.
    pub fn sum_us(&self) -> u64 {
        self.sum_us
    }

    /// The mean, microseconds; `None` when empty.
    pub fn mean_us(&self) -> Option<f64> {
        let count = self.count();
        (count > 0).then(|| self.sum_us as f64 / count as f64)
    }

    /// The value that the share `quantile` (0 to 1) of the values does not exceed, microseconds, within 3.2 %; `None` when empty.
    pub fn quantile_us(&self, quantile: f64) -> Option<u64> {
        let count = self.count();
        let rank = ((quantile.clamp(0.0, 1.0) * count as f64).ceil() as u64).clamp(1, count.max(1));
        let mut seen = 0;
        let bucket = self.buckets.iter().position(|n| {
            seen += n;
            seen >= rank
        })?;
        let (low, end) = (lower_bound(bucket), lower_bound(bucket + 1));
        Some(low + (end - 1 - low) / 2)
    }

    /// How many values are below `2^exponent` microseconds. Powers of two are bucket edges, so the count is exact.
    pub fn count_below_power(&self, exponent: u32) -> u64 {
        let end = if exponent >= VALUE_BITS {
            BUCKETS
        } else {
            index(1 << exponent)
        };
        self.buckets[..end].iter().sum()
    }
}
