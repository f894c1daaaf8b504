//! Latencies in log-linear buckets of fixed size.
//!
//! Each power of two is cut into 16 equal buckets, so a bucket is at most 1/16 of its values wide and its middle is at most
//! 1/32 (3.2 %) off. Below 16 microseconds each value has its own bucket. The idea is that of HDR histograms.
//!
//! The buckets are cut in ticks of 2^-20 seconds, a little less than a microsecond. So powers of two of a *second* are bucket
//! edges, and those are the bounds of Prometheus' native histograms of schema 0.

use super::counters::Counter;

/// log2 of the buckets in each power of two.
const SUB_BITS: u32 = 4;
const SUB: usize = 1 << SUB_BITS;
/// log2 of the ticks in a second.
const SECOND_BITS: u32 = 20;
/// Ticks from here on, 68 minutes, count in the last bucket.
const TICK_BITS: u32 = 32;
const BUCKETS: usize = (TICK_BITS - SUB_BITS + 1) as usize * SUB;

/// 2^20 ticks by 1,000,000 microseconds, in lowest terms.
const TICKS_PER_US: (u64, u64) = (16_384, 15_625);

/// The tick that a value ends in. A value on an edge belongs below it, for `le` in Prometheus includes the bound.
fn tick(us: u64) -> u64 {
    let (ticks, of_us) = TICKS_PER_US;
    let longest = 1 << TICK_BITS;
    ((us.min(longest) * ticks).saturating_sub(1) / of_us).min(longest - 1)
}

/// The microseconds that end in a tick; the first of two.
fn us(tick: u64) -> u64 {
    let (ticks, of_us) = TICKS_PER_US;
    (tick * of_us).div_ceil(ticks)
}

/// The bucket of a tick.
fn index(tick: u64) -> usize {
    let shift = (u64::BITS - SUB_BITS).saturating_sub((tick | 1).leading_zeros() + 1);
    shift as usize * SUB + (tick >> shift) as usize
}

/// The first tick of a bucket, and with `BUCKETS` the end of the last.
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
        self.buckets[index(tick(us))].inc();
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

impl Snapshot {
    /// Bytes that one holds, its own among them.
    pub const BYTES: u64 = (size_of::<Self>() + BUCKETS * size_of::<u64>()) as u64;
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

    /// The value that the share `quantile` (0 to 1) of the values does not exceed, microseconds, within 3.2 % and a microsecond;
    /// `None` when empty.
    pub fn quantile_us(&self, quantile: f64) -> Option<u64> {
        let count = self.count();
        let rank = ((quantile.clamp(0.0, 1.0) * count as f64).ceil() as u64).clamp(1, count.max(1));
        let mut seen = 0;
        let bucket = self.buckets.iter().position(|n| {
            seen += n;
            seen >= rank
        })?;
        let (low, end) = (lower_bound(bucket), lower_bound(bucket + 1));
        Some(us(low + (end - 1 - low) / 2))
    }

    /// How many values are at most `2^exponent` seconds, which are bucket edges: the count is exact from 2^-20 to 2^11.
    pub fn count_to_power(&self, exponent: i32) -> u64 {
        let edge = exponent.saturating_add_unsigned(SECOND_BITS).max(0) as u32;
        let end = if edge >= TICK_BITS {
            BUCKETS
        } else {
            index(1 << edge)
        };
        self.buckets[..end].iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR_US: u64 = 3_600_000_000;

    fn recorded(values: &[u64]) -> Snapshot {
        let histogram = Histogram::default();
        for us in values {
            histogram.record(*us);
        }
        histogram.snapshot()
    }

    #[test]
    fn buckets_follow_each_other_without_gap() {
        for bucket in 0..BUCKETS {
            let (low, end) = (lower_bound(bucket), lower_bound(bucket + 1));
            assert!(low < end);
            assert_eq!((index(low), index(end - 1)), (bucket, bucket));
            assert!(
                (end - low - 1) as f64 <= low as f64 / 16.0,
                "bucket {bucket}: {low}..{end}"
            );
        }
    }

    #[test]
    fn more_than_an_hour_still_has_a_bucket_of_its_size() {
        assert!(index(tick(HOUR_US)) < BUCKETS - 1);
        assert_eq!(index(tick(u64::MAX)), BUCKETS - 1);
    }

    #[test]
    fn an_empty_histogram_has_no_quantile_and_no_mean() {
        let empty = Histogram::default().snapshot();
        assert_eq!(
            (empty.count(), empty.quantile_us(0.5), empty.mean_us()),
            (0, None, None)
        );
    }

    #[test]
    fn small_values_are_exact() {
        let snapshot = recorded(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
        let cases = [
            (0.0, 1),
            (0.1, 1),
            (0.11, 2),
            (0.5, 5),
            (0.9, 9),
            (0.99, 10),
            (1.0, 10),
        ];
        for (quantile, us) in cases {
            assert_eq!(
                snapshot.quantile_us(quantile),
                Some(us),
                "quantile {quantile}"
            );
        }
        assert_eq!((snapshot.sum_us(), snapshot.mean_us()), (55, Some(5.5)));
    }

    /// The whole microseconds in `2^exponent` seconds.
    fn power_us(exponent: i32) -> u64 {
        let shift = exponent.unsigned_abs();
        if exponent < 0 {
            1_000_000 >> shift
        } else {
            1_000_000 << shift
        }
    }

    #[test]
    fn a_power_of_two_of_a_second_counts_as_reached() {
        for exponent in -6..=11 {
            let bound_us = power_us(exponent);
            let snapshot = recorded(&[bound_us - 1, bound_us, bound_us + 1]);
            assert_eq!(snapshot.count_to_power(exponent), 2, "2^{exponent} s");
        }
    }

    #[test]
    fn a_difference_holds_what_came_between() {
        let histogram = Histogram::default();
        (0..1000).for_each(|_| histogram.record(5));
        let earlier = histogram.snapshot();
        histogram.record(700);
        let between = histogram.snapshot().since(&earlier);
        assert_eq!((between.count(), between.sum_us()), (1, 700));
        assert_eq!(between, recorded(&[700]));
    }

    proptest! {
        #[test]
        fn a_quantile_is_within_its_error(mut values in prop::collection::vec(0..HOUR_US, 1..200), quantile in 0.0..=1.0) {
            let found = recorded(&values).quantile_us(quantile).expect("not empty");
            values.sort_unstable();
            let rank = ((quantile * values.len() as f64).ceil() as usize).max(1);
            let exact = values[rank - 1];
            prop_assert!(found.abs_diff(exact) as f64 <= exact as f64 / 32.0 + 1.0, "found {found}, exact {exact}");
        }

        #[test]
        fn counts_to_a_power_are_exact(values in prop::collection::vec(any::<u32>(), 0..100), exponent in -16..=11) {
            let values: Vec<_> = values.into_iter().map(u64::from).collect();
            let within = values.iter().filter(|us| **us <= power_us(exponent)).count();
            prop_assert_eq!(recorded(&values).count_to_power(exponent), within as u64);
        }
    }
}
