//! One shard's look at the health of an upstream's servers.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use crate::balance::{Admits, Balancer, FULL_SHARE, Steering, slow_start};
use crate::config::{Statuses, Upstream};
use crate::health::table::{Entry, Table};
use crate::health::{Clock, Failure, Order, Reporter, State};

/// Where a shard learns about health, and tells what it saw.
#[derive(Clone, Debug)]
pub struct Source {
    /// The health of all servers.
    pub table: Arc<Table>,
    /// The clock of its times.
    pub clock: Clock,
    /// The shard's own.
    pub reporter: Reporter,
    /// Operators may give orders, so servers that nobody checks are watched too.
    pub steered: bool,
}

/// What a shard knows of one server.
#[derive(Clone, Copy, Debug)]
struct Standing {
    /// What part of its weight it takes, in thousandths.
    share: u16,
    weight: u16,
    order: Order,
}

/// The health of one upstream's servers, and what operators say of them.
#[derive(Debug)]
pub struct Watch {
    source: Source,
    /// Place of the first server in the table.
    first_id: usize,
    /// The table's epoch that the standings are of.
    seen: Cell<u64>,
    /// By server.
    standings: RefCell<Vec<Standing>>,
    /// The configured ones, by server.
    weights: Vec<u16>,
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
    /// `None` when nobody checks the upstream's servers and nobody can steer them.
    pub fn new(upstream: &Upstream, first_id: usize, source: &Source) -> Option<Self> {
        let checked = upstream.health.is_some() || upstream.passive.is_some();
        if !checked && !source.steered {
            return None;
        }
        let passive = upstream.passive.as_ref();
        let weights: Vec<_> = upstream
            .servers
            .iter()
            .map(|server| server.weight)
            .collect();
        let standing = |&weight| Standing {
            share: FULL_SHARE,
            weight,
            order: Order::Serve,
        };
        Some(Self {
            source: source.clone(),
            first_id,
            seen: Cell::new(0),
            standings: RefCell::new(weights.iter().map(standing).collect()),
            weights,
            slow_start_ms: upstream
                .slow_start
                .map_or(0, |window| window.as_millis() as u64),
            warming: Cell::new(false),
            reports: passive.is_some(),
            failures: passive.and_then(|passive| passive.statuses.clone()),
        })
    }

    /// Tells the balancer what has changed, and whether anything has: one relaxed load when nothing has.
    #[inline]
    pub fn update(&self, balancer: &Balancer) -> bool {
        let changed = self.source.table.changed(self.seen.get());
        changed.is_some_and(|epoch| {
            self.read(epoch, balancer);
            true
        })
    }

    /// What operators have ordered for a server, as of the last update.
    pub fn order(&self, server: usize) -> Order {
        self.standings.borrow()[server].order
    }

    /// Gives servers that warm up a little more; called about once a second.
    pub fn warm(&self, balancer: &Balancer) {
        if self.warming.get() {
            self.read(self.seen.get(), balancer);
        }
    }

    #[cold]
    fn read(&self, epoch: u64, balancer: &Balancer) {
        let mut standings = self.standings.borrow_mut();
        let mut whole = true;
        let now_ms = self.source.clock.now_ms();
        for (server, standing) in standings.iter_mut().enumerate() {
            match self.source.table.read(self.first_id + server) {
                Some(entry) => {
                    *standing = Standing {
                        share: self.share_of(&entry, now_ms),
                        weight: entry.weight.unwrap_or(self.weights[server]),
                        order: entry.order,
                    }
                }
                // It is being written: what was known holds until the next request looks again.
                None => whole = false,
            }
        }
        balancer.steer(|server| Steering {
            weight: standings[server].weight,
            admits: match standings[server].order {
                Order::Serve => Admits::Everyone,
                Order::Drain => Admits::OwnClients,
                Order::Down => Admits::Nobody,
            },
        });
        balancer.refresh(|server| standings[server].share);
        let is_warming = |standing: &Standing| (1..FULL_SHARE).contains(&standing.share);
        self.warming.set(standings.iter().any(is_warming));
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

    /// Makes the health thread panic whenever it looks, or ends that.
    #[cfg(debug_assertions)]
    pub fn toggle_fault(&self) {
        self.source.reporter.toggle_fault();
    }

    /// Tells that a request failed on a server.
    pub fn failed(&self, server: usize, failure: Failure) {
        if self.reports {
            self.source.reporter.failed(self.first_id + server, failure);
        }
    }

    /// Tells which status a server answered with; gives whether that counts as a failure.
    #[inline]
    pub fn answered(&self, server: usize, status: u16) -> bool {
        let failures = self.failures.as_ref();
        let is_failure = failures.is_some_and(|failures| failures.contains(status));
        if is_failure {
            self.failed(server, Failure::Status);
        }
        is_failure
    }
}
