//! The request rate of each client address: token buckets in a table of fixed size that all shards share.
//!
//! A bucket is one word, changed by compare-and-swap: no lock, and a client has one rate however its connections fall on the shards. It
//! holds the time at which the bucket will be full again (the generic cell rate algorithm), so that nothing has to refill it.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::config::RateLimit;
use crate::telemetry::clients::block;

/// Buckets that an address may be in: one cache line.
const WAYS: usize = 8;
/// The lower bits of a word are microseconds since the start (8.9 years of them), the others tell addresses of a line apart.
const TIME_BITS: u32 = 48;
const TIME_MASK: u64 = (1 << TIME_BITS) - 1;
// A bucket that fills most slowly is told right up to an uptime of seven years.
const _: () = assert!(8 * RateLimit::FILL_MAX.as_micros() as u64 <= TIME_MASK);
/// A word that others change as often as this is not fought for: the request passes.
const TRIES: usize = 8;

/// One cache line of buckets.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Line([AtomicU64; WAYS]);

/// The buckets of all clients.
#[derive(Debug)]
pub struct Buckets {
    lines: Box<[Line]>,
    hasher: RandomState,
    start: Instant,
    /// Microseconds in which one token comes back.
    interval: u64,
    /// Microseconds in which an empty bucket fills.
    depth: u64,
    v6_prefix: u8,
}

impl Buckets {
    /// Full buckets for this limit; addresses are taken by their IPv6 block of `v6_prefix` bits.
    pub fn new(limit: &RateLimit, v6_prefix: u8) -> Self {
        // Rounded up: never more than the limit. What that takes off stands in docs/limits.md.
        let interval = (limit.period.as_micros() as u64).div_ceil(limit.requests);
        Self {
            lines: (0..limit.clients.div_ceil(WAYS).next_power_of_two())
                .map(|_| Line::default())
                .collect(),
            hasher: RandomState::new(),
            start: Instant::now(),
            interval,
            depth: interval.saturating_mul(limit.burst),
            v6_prefix,
        }
    }

    /// Takes a token of this address, or says how long there will be none.
    pub fn take(&self, address: IpAddr) -> Result<(), Duration> {
        self.take_at(address, self.start.elapsed().as_micros() as u64)
    }

    fn take_at(&self, address: IpAddr, now: u64) -> Result<(), Duration> {
        let hash = self.hasher.hash_one(block(address, self.v6_prefix));
        // A word of zero is a bucket that nobody has, so no mark is zero.
        let mark = (hash >> TIME_BITS).max(1) << TIME_BITS;
        let line = &self.lines[hash as usize & (self.lines.len() - 1)];
        for _ in 0..TRIES {
            let (bucket, word) = find(line, mark);
            let full_at = if word & !TIME_MASK == mark {
                word & TIME_MASK
            } else {
                0
            };
            let next = full_at.max(now) + self.interval;
            if let Some(wait) = (next - now)
                .checked_sub(self.depth)
                .filter(|wait| *wait > 0)
            {
                return Err(Duration::from_micros(wait));
            }
            let next = mark | next & TIME_MASK;
            if bucket
                .compare_exchange(word, next, Relaxed, Relaxed)
                .is_ok()
            {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// The address's bucket, else the one that is full first: its owner loses least.
fn find(line: &Line, mark: u64) -> (&AtomicU64, u64) {
    let mut fullest = (&line.0[0], u64::MAX);
    for bucket in &line.0 {
        let word = bucket.load(Relaxed);
        if word & !TIME_MASK == mark {
            return (bucket, word);
        }
        if word & TIME_MASK < fullest.1 & TIME_MASK {
            fullest = (bucket, word);
        }
    }
    fullest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buckets(requests: u64, burst: u64, clients: usize) -> Buckets {
        let limit = RateLimit {
            requests,
            period: Duration::from_secs(1),
            burst,
            clients,
            exempt: Vec::new(),
        };
        Buckets::new(&limit, 64)
    }

    fn address(number: u32) -> IpAddr {
        IpAddr::from(number.to_be_bytes())
    }

    #[test]
    fn no_rounding_exceeds_the_rate() {
        for (limit, passes) in [(30_000, 29_412), (600_000, 500_000), (1_000_000, 1_000_000)] {
            let buckets = buckets(limit, 1, 64);
            let passed = (0..1_000_000)
                .filter(|now| buckets.take_at(address(1), 1_000_000 + now).is_ok())
                .count();
            assert_eq!(passed, passes, "{limit}");
        }
    }

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let buckets = buckets(10, 5, 64);
        let passed = |now| {
            (0..20)
                .filter(|_| buckets.take_at(address(1), now).is_ok())
                .count()
        };
        assert_eq!(passed(1_000_000), 5);
        assert_eq!(passed(1_099_999), 0);
        assert_eq!(
            passed(1_100_000),
            1,
            "a token comes back each tenth of a second"
        );
        assert_eq!(passed(1_400_000), 3);
        assert_eq!(passed(9_000_000), 5, "never more than the burst");
        assert_eq!(
            buckets.take_at(address(1), 9_000_000),
            Err(Duration::from_millis(100))
        );
    }

    #[test]
    fn the_deepest_bucket_is_emptied_after_years() {
        let limit = RateLimit {
            requests: 1,
            period: Duration::from_secs(365 * 24 * 60),
            burst: 60,
            clients: 64,
            exempt: Vec::new(),
        };
        assert_eq!(limit.period * limit.burst as u32, RateLimit::FILL_MAX);
        let buckets = Buckets::new(&limit, 64);
        let now = 7 * RateLimit::FILL_MAX.as_micros() as u64;
        let passed = (0..100).filter(|_| buckets.take_at(address(1), now).is_ok());
        assert_eq!(passed.count(), 60);
        assert_eq!(buckets.take_at(address(1), now), Err(limit.period));
    }

    #[test]
    fn clients_have_buckets_of_their_own() {
        let buckets = buckets(1, 1, 1 << 16);
        let passed = (0..1000)
            .filter(|n| buckets.take_at(address(*n), 0).is_ok())
            .count();
        assert!(passed >= 995, "{passed} of 1000");
        let again = (0..1000)
            .filter(|n| buckets.take_at(address(*n), 0).is_ok())
            .count();
        assert!(again <= 5, "{again} passed twice");
    }

    #[test]
    fn a_full_table_forgets_whoever_waits_least() {
        let buckets = buckets(1, 3, WAYS);
        let busy = address(0);
        for _ in 0..3 {
            assert!(buckets.take_at(busy, 0).is_ok());
        }
        let others = 1..1000;
        let refused = others.filter(|number| buckets.take_at(address(*number), 0).is_err());
        assert!(refused.count() <= 5, "few have the busiest's fingerprint");
        assert!(
            buckets.take_at(busy, 0).is_err(),
            "the busiest is remembered"
        );
    }

    #[test]
    fn one_rate_over_all_threads() {
        let buckets = buckets(1, 1000, 64);
        let passed: usize = std::thread::scope(|scope| {
            let take = || {
                (0..1000)
                    .filter(|_| buckets.take_at(address(7), 0).is_ok())
                    .count()
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
            threads
                .into_iter()
                .map(|t| t.join().expect("no panic"))
                .sum()
        });
        // A word lost to others eight times in a row lets a request pass.
        assert!((1000..1100).contains(&passed), "{passed}");
    }
}
