//! One shard's view of an upstream: its servers, their pools, and whose turn it is.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::budget::Budget;
use super::load::{InFlight, Room};
use super::place::{Addresses, Attempt, Choice, Places};
use super::pool::{Connection, Pool};
use super::queue::Queue;
use super::sticky::{Bond, Sticky};
use super::watch::{Source, Watch};
use crate::balance::{self, Balancer, NoServer, Pick, Settings};
use crate::config::{HashKey, HostPolicy, Policy, Statuses, Upstream, WhenNoneHealthy};
use crate::health::{Failure, Order};
use crate::net::connect::{self, Connected};
use crate::net::deadline::{Deadline, Ticks};
use crate::net::descriptors::is_exhaustion;
use crate::net::roster::Roster;
use crate::net::source::{Sources, is_out_of_ports};
use crate::telemetry::counters::{AllCounters, FailureKind, ShardCounters, Tally};

/// One server of an upstream.
#[derive(Debug)]
pub struct Server {
    /// Flat index over all servers of all upstreams, in the order of the configuration.
    pub id: usize,
    /// Its name for logs and X-Served-By.
    pub name: String,
    /// The Host it gets when the upstream's policy is to send the server's own.
    pub host: String,
    /// Its keep-alive connections.
    pub pool: Pool,
    /// Its last answer began with so few bytes that a message buffer took them.
    pub is_brief: Cell<bool>,
    choice: Choice,
    places: Places,
}

/// An upstream, as one shard sees it.
#[derive(Debug)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Its servers.
    pub servers: Vec<Server>,
    /// The Host field that servers get.
    pub host: HostPolicy,
    /// Further servers that a request may be tried on after one that took it has failed.
    pub retries: u32,
    /// Statuses that send a request on to another server.
    pub retry_statuses: Option<Statuses>,
    /// Requests may be sent again whose method is not idempotent.
    pub retry_non_idempotent: bool,
    /// Bytes of body data up to which a request is kept for another attempt.
    pub retry_body_bytes: u64,
    /// Where requests wait for a server with room; `None` when they do not wait.
    pub queue: Option<Queue>,
    /// Its place in the configuration.
    pub id: usize,
    budget: Option<Budget>,
    /// To establish a connection.
    pub connect_ticks: Ticks,
    /// From the request's last byte to the response head.
    pub response_header_ticks: Ticks,
    /// Between two reads of a response body.
    pub response_body_ticks: Ticks,
    /// What a request's key is made from; `None` when the policy needs none.
    pub hash_by: Option<HashBy>,
    /// Leads clients back to their servers; `None` when off.
    pub sticky: Option<Sticky>,
    balancer: Balancer,
    load: InFlight,
    counters: Arc<ShardCounters>,
    /// The servers' health and orders, when somebody checks or can steer them.
    watch: Option<Watch>,
    /// The policy learns from latencies, by the time since then.
    learning_since: Option<Instant>,
    /// What a server is taken to have needed that could not be connected to, or did not answer.
    failed_after: (Duration, Duration),
    connecting: connect::Options,
    /// Its connections to the servers, from the first step of being made.
    roster: Rc<Roster>,
}

/// What a request's key is made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashBy {
    /// The client's address.
    Client {
        /// Leading bits of an IPv6 address that count.
        v6_prefix: u8,
    },
    /// A part of the request.
    Part(HashKey),
}

impl Group {
    /// One shard's view of the upstream number `id`. `first_id` is the flat index of its first server.
    pub fn new(
        upstream: &Upstream,
        id: usize,
        first_id: usize,
        places: &Places,
        shard: usize,
        counters: &AllCounters,
        health: Option<&Source>,
    ) -> Self {
        let servers = upstream
            .servers
            .iter()
            .enumerate()
            .map(|(index, server)| Server {
                id: first_id + index,
                name: server.name.clone(),
                host: server.address.host_field(),
                pool: Pool::new(&upstream.pool),
                is_brief: Cell::new(true),
                choice: Choice::default(),
                places: Arc::clone(places),
            });
        let group = Self {
            name: upstream.name.clone(),
            servers: servers.collect(),
            host: upstream.host.clone(),
            retries: upstream.retries,
            retry_statuses: upstream.retry_statuses.clone(),
            retry_non_idempotent: upstream.retry_non_idempotent,
            retry_body_bytes: upstream.retry_body_bytes,
            queue: upstream
                .queue
                .map(|length| Queue::new(length, upstream.queue_timeout.into())),
            id,
            budget: upstream.retry_budget.map(Budget::new),
            counters: Arc::clone(&counters[shard]),
            connect_ticks: upstream.connect_timeout.into(),
            response_header_ticks: upstream.response_header_timeout.into(),
            response_body_ticks: upstream.response_body_timeout.into(),
            hash_by: hash_by(upstream),
            sticky: Sticky::new(upstream),
            balancer: balancer(upstream, shard, counters.len()),
            watch: health.and_then(|source| Watch::new(upstream, first_id, source)),
            load: InFlight::new(&upstream.servers, first_id, counters),
            learning_since: (upstream.policy == Policy::LeastLatency).then(Instant::now),
            failed_after: (upstream.connect_timeout, upstream.response_header_timeout),
            connecting: connect::Options {
                tcp: upstream.tcp.clone(),
                fast_open: upstream.fast_open,
                sources: Sources::new(&upstream.sources),
                takes_last: false,
            },
            roster: Rc::default(),
        };
        group.reserve();
        group
    }

    /// Whether each connection is closed after one request.
    pub fn closes_connections(&self) -> bool {
        self.servers
            .first()
            .is_some_and(|server| server.pool.closes_after_one())
    }

    /// The server for a new request with this key or bond. Those that wait, and take any server, come first where they can.
    #[inline]
    pub fn choose_first(&self, key: Option<u64>, bond: Option<Bond>) -> Result<usize, NoServer> {
        if let Some(budget) = &self.budget {
            budget.count_request();
        }
        if let Some(queue) = &self.queue
            && queue.holds_up()
        {
            let bond = bond.filter(|bond| !queue.is_awaited(bond.server as usize));
            return self.choose_own(bond, &[]);
        }
        self.choose(key, bond, &[])
    }

    /// The server that a request is bound to, where those that wait for any server cannot use it.
    #[cold]
    pub fn choose_own(&self, bond: Option<Bond>, tried: &[usize]) -> Result<usize, NoServer> {
        self.look();
        let queue = self.queue.as_ref().ok_or(NoServer::AllFull)?;
        let server = bond.map(|bond| bond.server as usize);
        let server = server.filter(|&server| queue.is_reserved(server));
        let pick = Pick {
            preferred: server,
            tried,
            ..Pick::default()
        };
        let takes = self.balancer.takes_preferred(&pick, &self.room());
        server.filter(|_| takes).ok_or(NoServer::AllFull)
    }

    /// Whether the budget has a retry left, which is then taken.
    pub fn may_retry(&self) -> bool {
        self.budget.as_ref().is_none_or(Budget::take)
    }

    /// Tells that a server may have room again.
    #[inline]
    pub fn release(&self) {
        if let Some(queue) = &self.queue {
            queue.call();
        }
    }

    /// The server for a request with this key or bond, none of those `tried`.
    #[inline]
    pub fn choose(
        &self,
        key: Option<u64>,
        bond: Option<Bond>,
        tried: &[usize],
    ) -> Result<usize, NoServer> {
        self.pick(key, bond.map(|bond| bond.server as usize), tried)
    }

    /// The same server once more, unless it has been taken out meanwhile.
    pub fn choose_again(
        &self,
        server: usize,
        key: Option<u64>,
        tried: &[usize],
    ) -> Result<usize, NoServer> {
        self.pick(key, Some(server), tried)
    }

    #[inline]
    fn pick(
        &self,
        key: Option<u64>,
        preferred: Option<usize>,
        tried: &[usize],
    ) -> Result<usize, NoServer> {
        self.look();
        let now_us = self.learning_since.map_or(0, micros_since);
        let pick = Pick {
            key,
            preferred,
            tried,
            now_us,
        };
        self.balancer.choose(&pick, &self.room())
    }

    fn room(&self) -> Room<'_> {
        Room {
            load: &self.load,
            servers: &self.servers,
        }
    }

    /// Takes over what the health thread has written since the last look.
    #[inline]
    fn look(&self) {
        if let Some(watch) = &self.watch
            && watch.update(&self.balancer)
        {
            self.close_pools(watch);
            self.reserve();
        }
    }

    /// Tells those that wait which servers only some of them can use.
    #[cold]
    fn reserve(&self) {
        if let Some(queue) = &self.queue {
            queue.reserve(self.balancer.reserved());
        }
    }

    /// Servers that are taken out lose their idle connections: nothing may come of them, and operators wait for their end.
    #[cold]
    fn close_pools(&self, watch: &Watch) {
        for (index, server) in self.servers.iter().enumerate() {
            server.pool.set_closed(watch.order(index) != Order::Serve);
        }
    }

    /// Makes the health thread panic whenever it looks, or ends that.
    #[cfg(debug_assertions)]
    pub fn toggle_health_fault(&self) {
        if let Some(watch) = &self.watch {
            watch.toggle_fault();
        }
    }

    /// Tells that a server answered with this status, and how long that took since it had the request; `None` when it has not got all of
    /// it. With a status that is a failure it must not look fast either. Gives whether it is one.
    #[inline]
    pub fn answered(&self, server: usize, status: u16, latency_us: Option<u64>) -> bool {
        let watch = self.watch.as_ref();
        let is_failure = watch.is_some_and(|watch| watch.answered(server, status));
        let unwanted = self.retry_statuses.as_ref();
        if is_failure || unwanted.is_some_and(|statuses| statuses.contains(status)) {
            self.learn(server, self.failed_after.1.as_micros() as u64);
        } else if let Some(latency_us) = latency_us {
            self.learn(server, latency_us);
        }
        is_failure
    }

    /// Tells that a server failed. It must not look fast because it fails fast, so the timeout is its latency.
    pub fn failed(&self, server: usize, kind: FailureKind) {
        let failure = failure(kind);
        let (connect, answer) = self.failed_after;
        let after = if failure == Failure::Connect {
            connect
        } else {
            answer
        };
        self.learn(server, after.as_micros() as u64);
        if let Some(watch) = &self.watch {
            watch.failed(server, failure);
        }
    }

    #[inline]
    fn learn(&self, server: usize, latency_us: u64) {
        if let Some(start) = self.learning_since {
            self.balancer
                .observe(server, latency_us, micros_since(start));
        }
    }

    /// Closes what has been idle too long, looks for room that other shards made, and makes some for them; called by the sweeper in each
    /// turn.
    pub fn tick(&self, now: u32) {
        for (index, server) in self.servers.iter().enumerate() {
            server.pool.expire_idle(now);
            if self.load.is_contended(index) {
                server.pool.close_oldest();
            }
        }
        self.release();
    }

    /// Looks after pools, the budget and servers that warm up; called by the sweeper, about once a second.
    pub fn sweep(&self, now: u32) {
        self.look();
        if let Some(budget) = &self.budget {
            budget.fade();
        }
        self.servers.iter().for_each(|server| server.sweep(now));
        if let Some(watch) = &self.watch {
            watch.warm(&self.balancer);
        }
    }

    /// A new connection to a server, at the first of its addresses that takes one, for the task whose `deadline` this is. May be dropped
    /// at any time; `trying` then has what was tried last, for [`Group::not_connected`].
    pub async fn connect(
        &self,
        server: usize,
        deadline: &Deadline,
        trying: &Cell<Option<Attempt>>,
    ) -> io::Result<Box<Connection>> {
        let server = &self.servers[server];
        let addresses = server.addresses();
        // The server may move while the connection is made.
        let birth = server.pool.birth(deadline.now());
        // Counted before it is there, so that nobody else takes its place meanwhile.
        let open = Tally::new(&self.counters, server.id, |server| &server.open);
        let (mut failed, mut ours) = (None, None);
        for index in server.choice.order(addresses.len()) {
            let attempt = server.choice.begin(&addresses, index);
            trying.set(Some(attempt));
            let enter = |socket| self.roster.enter(socket);
            let connected = loop {
                match connect::connect(&addresses[index], &self.connecting, enter).await {
                    Err(error) if connect::is_backlog_full(&error) => deadline.next_turn().await,
                    connected => break connected,
                }
            };
            match connected {
                Ok(Connected::Taken(socket)) => {
                    server.choice.succeeded(attempt);
                    return Ok(Box::new(Connection::new(socket, None, birth, open)));
                }
                Ok(Connected::Promised(socket)) => {
                    let promised = Some(attempt);
                    return Ok(Box::new(Connection::new(socket, promised, birth, open)));
                }
                // It says nothing about the server, as the next address may.
                Err(error) if is_exhaustion(&error) || is_out_of_ports(&error) => {
                    ours = Some(error);
                }
                Err(error) => {
                    server.choice.failed(attempt);
                    failed = Some(error);
                }
            }
        }
        let unresolved = || io::Error::other("the host name is not resolved");
        Err(failed.or(ours).unwrap_or_else(unresolved))
    }

    /// The server has taken a connection that was begun with its first bytes.
    pub fn connected(&self, server: usize, tried: Attempt) {
        self.servers[server].choice.succeeded(tried);
    }

    /// A connection did not come about, or not in time: the next one tries the server's next address first.
    pub fn not_connected(&self, server: usize, tried: Attempt) {
        self.servers[server].choice.failed(tried);
    }

    /// The sockets of all connections to its servers, for when the shard has died and its tasks never run again.
    pub fn descriptors(&self) -> Vec<RawFd> {
        self.roster.descriptors()
    }
}

fn failure(kind: FailureKind) -> Failure {
    match kind {
        FailureKind::ConnectRefused
        | FailureKind::ConnectError
        | FailureKind::ConnectTimeout
        | FailureKind::NoPort
        | FailureKind::Shortage => Failure::Connect,
        FailureKind::Closed | FailureKind::Truncated => Failure::Reset,
        FailureKind::ResponseTimeout => Failure::Timeout,
        FailureKind::BadResponse => Failure::Invalid,
    }
}

fn micros_since(start: Instant) -> u64 {
    start.elapsed().as_micros() as u64
}

fn hash_by(upstream: &Upstream) -> Option<HashBy> {
    match upstream.policy {
        Policy::IpHash => Some(HashBy::Client {
            v6_prefix: upstream.ip_hash_v6_prefix,
        }),
        Policy::Hash => Some(HashBy::Part(upstream.hash.clone())),
        _ => None,
    }
}

fn balancer(upstream: &Upstream, shard: usize, shards: usize) -> Balancer {
    let servers = upstream.servers.iter();
    let servers: Vec<_> = servers
        .map(|server| balance::Server {
            name: server.name.clone(),
            weight: server.weight,
            backup: server.backup,
        })
        .collect();
    let settings = Settings {
        policy: match upstream.policy {
            Policy::RoundRobin => balance::Policy::RoundRobin,
            Policy::LeastConnections => balance::Policy::LeastConnections,
            Policy::Random => balance::Policy::Random,
            Policy::TwoChoices => balance::Policy::TwoChoices,
            Policy::IpHash | Policy::Hash => balance::Policy::Hash,
            Policy::First => balance::Policy::First,
            Policy::LeastLatency => balance::Policy::LeastLatency,
        },
        bounded_load: upstream
            .hash_balance_factor
            .map(|percent| f64::from(percent) / 100.0),
        try_all: upstream.when_none_healthy == WhenNoneHealthy::TryAll,
        shard,
        shards,
        // The standard library's hash seeds are what randomness it has.
        seed: RandomState::new().hash_one(0),
    };
    Balancer::new(&servers, &settings)
}

impl Server {
    /// Where it is now. When it has moved, connections to the old place are not used again.
    fn addresses(&self) -> Addresses {
        self.choice.update(&self.places[self.id], &self.pool)
    }

    /// Closes what the pool should not keep.
    fn sweep(&self, now: u32) {
        self.addresses();
        self.pool.expire(now);
    }
}
