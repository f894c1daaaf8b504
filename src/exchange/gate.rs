//! Whether a request is let in: the rate of its client, and the requests in flight.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::rate::Buckets;
use crate::config::Config;
use crate::http1::answer::Answer;
use crate::telemetry::counters::{AllCounters, ShardCounters};
use ipnet::IpNet;

/// The limits that a request meets before anything is done for it. A shard without any of them has none.
#[derive(Debug)]
pub struct Gate {
    rate: Option<Rate>,
    in_flight: Option<u64>,
    counters: Arc<ShardCounters>,
    all: AllCounters,
}

#[derive(Debug)]
struct Rate {
    buckets: Arc<Buckets>,
    exempt: Vec<IpNet>,
}

impl Gate {
    /// The gate of shard number `shard`; `None` when the configuration sets no limit. `buckets` are all shards'.
    pub fn new(
        config: &Config,
        shard: usize,
        all: &AllCounters,
        buckets: Option<&Arc<Buckets>>,
    ) -> Option<Box<Self>> {
        let rate = config.rate_limit.as_ref().zip(buckets);
        let rate = rate.map(|(limit, buckets)| Rate {
            buckets: Arc::clone(buckets),
            exempt: limit.exempt.clone(),
        });
        let in_flight = config.limits.max_in_flight.map(|max| max as u64);
        (rate.is_some() || in_flight.is_some()).then(|| {
            Box::new(Self {
                rate,
                in_flight,
                counters: Arc::clone(&all[shard]),
                all: Arc::clone(all),
            })
        })
    }

    /// Lets a request of this client in, or says what it is answered.
    pub fn admit(&self, client: IpAddr) -> Result<(), Answer> {
        if let Some(rate) = &self.rate
            && let Err(wait) = rate.take(client)
        {
            self.counters.rate_limited.inc();
            return Err(Answer {
                field: Some(("Retry-After", retry_after(wait))),
                ..Answer::new(429, "too many requests from this address")
            });
        }
        // Shards that look at the same moment may each let one in.
        let in_flight = || {
            self.all
                .iter()
                .map(|shard| shard.in_flight.get())
                .sum::<u64>()
        };
        if self.in_flight.is_some_and(|max| in_flight() >= max) {
            self.counters.shed.inc();
            return Err(Answer {
                field: Some(("Retry-After", "1")),
                ..Answer::new(503, "too many requests in flight")
            });
        }
        Ok(())
    }
}

impl Rate {
    fn take(&self, client: IpAddr) -> Result<(), Duration> {
        let exempt = || self.exempt.iter().any(|network| network.contains(&client));
        match self.buckets.take(client) {
            Err(_) if exempt() => Ok(()),
            taken => taken,
        }
    }
}

/// Whole seconds, rounded up to a round number (RFC 9110 section 10.2.3).
fn retry_after(wait: Duration) -> &'static str {
    match wait.as_millis().div_ceil(1000) {
        0 | 1 => "1",
        2 => "2",
        3..=5 => "5",
        6..=10 => "10",
        11..=30 => "30",
        31..=60 => "60",
        61..=300 => "300",
        _ => "3600",
    }
}
