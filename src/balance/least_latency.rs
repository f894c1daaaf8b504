//! Lowest expected latency: peak EWMA over two choices.
//!
//! Each server has a moving average of its answers' latency that jumps up with a slow answer at once and comes down with
//! time, as in Finagle's peak EWMA. The average times the requests in flight says how long one more would take.

use super::two_choices::TwoChoices;
use super::{Candidate, FULL_SHARE, Load};

/// How fast the past is forgotten: after this long an answer counts for 1/e.
const DECAY_US: f64 = 10_000_000.0;

/// Draws two servers by weight and takes the one that is expected to answer sooner.
#[derive(Debug)]
pub(super) struct LeastLatency {
    choices: TwoChoices,
    averages: Vec<Average>,
    /// Which servers could be chosen since the last refresh.
    was_live: Vec<bool>,
}

/// Latency of one server as this shard saw it.
#[derive(Clone, Copy, Debug, Default)]
struct Average {
    /// Microseconds; 0 before the first answer.
    latency_us: f64,
    at_us: u64,
}

impl Average {
    /// Comes down towards 0 while nothing is heard, so that a server that was slow once is tried again.
    fn at(self, now_us: u64) -> f64 {
        self.latency_us * (-(now_us.saturating_sub(self.at_us) as f64) / DECAY_US).exp()
    }

    fn observe(&mut self, latency_us: f64, now_us: u64) {
        let kept = (-(now_us.saturating_sub(self.at_us) as f64) / DECAY_US).exp();
        self.latency_us = if latency_us > self.latency_us * kept {
            latency_us
        } else {
            self.latency_us * kept + latency_us * (1.0 - kept)
        };
        self.at_us = now_us;
    }
}

impl LeastLatency {
    pub(super) fn new(servers: usize, seed: u64) -> Self {
        Self {
            choices: TwoChoices::new(seed),
            averages: vec![Average::default(); servers],
            was_live: vec![false; servers],
        }
    }

    /// A server that comes back is unknown: the average of one that was out has come down without an answer.
    pub(super) fn refresh(&mut self, live: &[Candidate]) {
        self.choices.refresh(live);
        let was_live = &self.was_live;
        for server in live.iter().map(|c| c.server()).filter(|&s| !was_live[s]) {
            self.averages[server] = Average::default();
        }
        self.was_live.fill(false);
        for candidate in live {
            self.was_live[candidate.server()] = true;
        }
    }

    pub(super) fn observe(&mut self, server: usize, latency_us: u64, now_us: u64) {
        self.averages[server].observe(latency_us.max(1) as f64, now_us);
    }

    pub(super) fn choose(
        &mut self,
        live: &[Candidate],
        load: &impl Load,
        now_us: u64,
        usable: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let (first, second) = self.choices.pair(live, usable)?;
        let better = match second {
            Some(second)
                if self.compares(first, second) && self.sooner(second, first, load, now_us) =>
            {
                second
            }
            _ => first,
        };
        Some(better.server())
    }

    /// Whether the two are compared, or the draw by weight decides alone. In slow start it does as often as a part of the weight is
    /// missing, for the comparison gives a server all requests or none, whatever its share.
    fn compares(&mut self, a: Candidate, b: Candidate) -> bool {
        let share = a.share.min(b.share);
        share == FULL_SHARE || self.choices.happens(share)
    }

    /// Whether `a` is expected to answer before `b`. A server that has not answered yet is taken to be as fast as the other:
    /// it gets requests, but not all of them at once.
    fn sooner(&self, a: Candidate, b: Candidate, load: &impl Load, now_us: u64) -> bool {
        let latency = |c: Candidate| self.averages[c.server()].at(now_us);
        let (of_a, of_b) = match (latency(a), latency(b)) {
            (0.0, 0.0) => (1.0, 1.0),
            (0.0, known) | (known, 0.0) => (known, known),
            both => both,
        };
        let cost =
            |c: Candidate, latency: f64| latency * (f64::from(load.active(c.server())) + 1.0);
        cost(a, of_a) < cost(b, of_b)
    }
}
