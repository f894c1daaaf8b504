//! One shard's look at the health of an upstream's servers.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use crate::balance::{Balancer, FULL_SHARE, slow_start};
use crate::config::{Statuses, Upstream};
use crate::health::table::{Entry, Table};
use crate::health::{Clock, Failure, Reporter, State};

/// Where a shard learns about health, and tells what it saw.
#[derive(Clone, Debug)]
pub struct Source {
    /// The health of all servers.
    pub table: Arc<Table>,
    /// The clock of its times.
    pub clock: Clock,
    /// The shard's own.
    pub reporter: Reporter,
}

/// The health of one upstream's servers.
#[derive(Debug)]
pub struct Watch {
    source: Source,
    /// Place of the first server in the table.
    first_id: usize,
    /// The table's epoch that the shares are of.
    seen: Cell<u64>,
    /// What part of its weight each server takes, in thousandths.
    shares: RefCell<Vec<u16>>,
    /// How long a server that comes back takes to get its whole share; 0 is at once.
    slow_start_ms: u64,
    /// A server has not got its whole share yet.
    warming: Cell<bool>,
    /// Failures are reported.
    reports: bool,
    /// Statuses that count as failures.
    failures: Option<Statuses>,
}

impl Watch {
    /// `None` when nobody checks the upstream's servers.
    pub fn new(upstream: &Upstream, first_id: usize, source: &Source) -> Option<Self> {
        if upstream.health.is_none() && upstream.passive.is_none() {
            return None;
        }
        let passive = upstream.passive.as_ref();
        Some(Self {
            source: source.clone(),
            first_id,
            seen: Cell::new(0),
            shares: RefCell::new(vec![FULL_SHARE; upstream.servers.len()]),
            slow_start_ms: upstream
                .slow_start
                .map_or(0, |window| window.as_millis() as u64),
            warming: Cell::new(false),
            reports: passive.is_some(),
            failures: passive.and_then(|passive| passive.statuses.clone()),
        })
    }

    /// Tells the balancer what has changed: one relaxed load when nothing has.
    #[inline]
    pub fn update(&self, balancer: &Balancer) {
        if let Some(epoch) = self.source.table.changed(self.seen.get()) {
            self.read(epoch, balancer);
        }
    }

    /// Gives servers that warm up a little more; called about once a second.
    pub fn warm(&self, balancer: &Balancer) {
        if self.warming.get() {
            self.read(self.seen.get(), balancer);
        }
    }

    #[cold]
    fn read(&self, epoch: u64, balancer: &Balancer) {
        let mut shares = self.shares.borrow_mut();
        let mut whole = true;
        let now_ms = self.source.clock.now_ms();
        for (server, share) in shares.iter_mut().enumerate() {
            match self.source.table.read(self.first_id + server) {
                Some(entry) => *share = self.share_of(&entry, now_ms),
                // It is being written: what was known holds until the next request looks again.
                None => whole = false,
            }
        }
        balancer.refresh(|server| shares[server]);
        let is_warming = |share: &u16| (1..FULL_SHARE).contains(share);
        self.warming.set(shares.iter().any(is_warming));
        if whole {
            self.seen.set(epoch);
        }
    }

    fn share_of(&self, entry: &Entry, now_ms: u64) -> u16 {
        match (entry.state, entry.recovered_ms(now_ms)) {
            (State::Up, Some(up_ms)) => slow_start::share(up_ms, self.slow_start_ms),
            (State::Up, None) => FULL_SHARE,
            (State::Down | State::Ejected, _) => 0,
        }
    }

    /// Tells that a request failed on a server.
    pub fn failed(&self, server: usize, failure: Failure) {
        if self.reports {
            self.source.reporter.failed(self.first_id + server, failure);
        }
    }

    /// Tells which status a server answered with.
    #[inline]
    pub fn answered(&self, server: usize, status: u16) {
        let failures = self.failures.as_ref();
        if failures.is_some_and(|failures| failures.contains(status)) {
            self.failed(server, Failure::Status);
        }
    }
}
