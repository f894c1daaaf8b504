//! How the requests of the last minute or so were spread over shards and servers.

use std::ops::Range;
use std::time::{Duration, Instant};

use crate::telemetry::view::View;

/// The request counters at one time.
#[derive(Clone, Debug)]
pub(super) struct Requests {
    at: Instant,
    shards: Vec<u64>,
    /// By flat server index; attempts, retries included.
    servers: Vec<u64>,
}

impl Requests {
    /// As they are now.
    pub(super) fn now(view: &View) -> Self {
        let server = |index| {
            view.server_counters(index)
                .map(|counters| counters.requests.get())
                .sum()
        };
        Self {
            at: Instant::now(),
            shards: view
                .shards
                .iter()
                .map(|shard| shard.requests.get())
                .collect(),
            servers: (0..view.server_count()).map(server).collect(),
        }
    }

    /// What came between an earlier time and this one.
    pub(super) fn since(&self, earlier: &Self) -> Traffic {
        let difference = |now: &[u64], then: &[u64]| {
            let pairs = now.iter().zip(then);
            pairs.map(|(now, then)| now.saturating_sub(*then)).collect()
        };
        Traffic {
            passed: self.at.duration_since(earlier.at),
            shards: difference(&self.shards, &earlier.shards),
            servers: difference(&self.servers, &earlier.servers),
        }
    }
}

/// Requests of some time.
#[derive(Clone, Debug)]
pub(super) struct Traffic {
    passed: Duration,
    shards: Vec<u64>,
    servers: Vec<u64>,
}

impl Traffic {
    /// The part of all requests that a shard read, 0 to 1; `None` when there were none.
    pub(super) fn shard_share(&self, shard: usize) -> Option<f64> {
        share(&self.shards, shard)
    }

    /// Requests of the busiest shard to those of the mean one: 1 is even; `None` when there were none.
    pub(super) fn imbalance(&self) -> Option<f64> {
        let largest = self.shards.iter().max()?;
        let sum: u64 = self.shards.iter().sum();
        (sum > 0).then(|| (largest * self.shards.len() as u64) as f64 / sum as f64)
    }

    /// The part of its upstream's attempts that a server got, 0 to 1; `None` when there were none. `siblings` are the upstream's servers.
    pub(super) fn server_share(&self, siblings: Range<usize>, server: usize) -> Option<f64> {
        let first = siblings.start;
        share(self.servers.get(siblings)?, server - first)
    }

    /// Requests in a second that a shard read.
    pub(super) fn shard_rate(&self, shard: usize) -> Option<f64> {
        self.rate(*self.shards.get(shard)?)
    }

    /// Attempts in a second that a server got.
    pub(super) fn server_rate(&self, server: usize) -> Option<f64> {
        self.rate(*self.servers.get(server)?)
    }

    /// Requests in a second that all shards read.
    pub(super) fn rate_of_all(&self) -> Option<f64> {
        self.rate(self.shards.iter().sum())
    }

    fn rate(&self, requests: u64) -> Option<f64> {
        (!self.passed.is_zero()).then(|| requests as f64 / self.passed.as_secs_f64())
    }
}

fn share(requests: &[u64], index: usize) -> Option<f64> {
    let sum: u64 = requests.iter().sum();
    (sum > 0).then(|| requests[index] as f64 / sum as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traffic(shards: &[u64], servers: &[u64]) -> Traffic {
        Traffic {
            passed: Duration::from_secs(2),
            shards: shards.into(),
            servers: servers.into(),
        }
    }

    #[test]
    fn shares_and_imbalance_are_of_what_came_between() {
        let at = Instant::now();
        let requests = |seconds, shards: [u64; 2], servers: [u64; 3]| Requests {
            at: at + Duration::from_secs(seconds),
            shards: shards.into(),
            servers: servers.into(),
        };
        let earlier = requests(0, [1000, 10], [5, 5, 7]);
        let traffic = requests(10, [1030, 20], [6, 8, 7]).since(&earlier);
        assert_eq!(traffic.shard_share(0), Some(0.75));
        assert_eq!(traffic.shard_share(1), Some(0.25));
        assert_eq!(traffic.imbalance(), Some(1.5));
        assert_eq!(traffic.server_share(0..2, 1), Some(0.75));
        assert_eq!(traffic.server_share(2..3, 2), None, "it got none");
        assert_eq!(traffic.shard_rate(0), Some(3.0));
        assert_eq!(traffic.server_rate(1), Some(0.3));
        assert_eq!(traffic.rate_of_all(), Some(4.0));
    }

    #[test]
    fn an_even_spread_is_1_and_one_of_four_shards_is_4() {
        let cases: [(&[u64], Option<f64>); 4] = [
            (&[5, 5, 5], Some(1.0)),
            (&[0, 0, 9, 0], Some(4.0)),
            (&[3], Some(1.0)),
            (&[0, 0], None),
        ];
        for (shards, expected) in cases {
            assert_eq!(traffic(shards, &[]).imbalance(), expected, "{shards:?}");
        }
    }
}
