//! Which server of an upstream gets a request.
//!
//! One policy a file. Everything here takes numbers and returns an index: no clock, no socket, no configuration. A shard owns
//! one [`Balancer`] for each upstream, calls [`Balancer::refresh`] when servers come or go, and [`Balancer::choose`] for each
//! request. Nothing is shared between shards except what the caller's [`Load`] counts.

mod alias;
mod first;
pub mod hash;
pub mod ip_hash;
mod least_connections;
mod least_latency;
mod maglev;
mod random;
mod rng;
mod round_robin;
pub mod slow_start;
mod tier;
mod two_choices;

use std::cell::RefCell;
use std::cmp::Ordering;

use tier::Tier;

/// The whole of a server's weight, in thousandths.
pub const FULL_SHARE: u16 = 1000;

/// One server, as far as choosing is concerned.
#[derive(Clone, Debug)]
pub struct Server {
    /// Unique in its upstream. Consistent hashing goes by it.
    pub name: String,
    /// 1 to 1000; 0 takes no new requests.
    pub weight: u16,
    /// Serves only when no other server is left.
    pub backup: bool,
}

/// What an operator says of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steering {
    /// Its weight from now on, 0 to 1000.
    pub weight: u16,
    /// Whose requests it takes, even when no other server is left.
    pub admits: Admits,
}

/// Whose requests an operator lets a server take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admits {
    /// Those of all clients.
    Everyone,
    /// Those of clients that are bound to it.
    OwnClients,
    /// None.
    Nobody,
}

/// How a server is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// In turns, by weight.
    RoundRobin,
    /// The fewest requests in flight for its weight.
    LeastConnections,
    /// At random, by weight.
    Random,
    /// The less loaded of two drawn at random.
    TwoChoices,
    /// By the request's key, consistently. `ip_hash` is this with the client's address as key.
    Hash,
    /// The first that is healthy.
    First,
    /// The one that is expected to answer first, of two drawn at random.
    LeastLatency,
}

/// What a [`Balancer`] runs from, beside its servers.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How a server is chosen.
    pub policy: Policy,
    /// For [`Policy::Hash`]: how far above its fair share a server's load may be, as a factor of at least 1; `None` is no bound.
    pub bounded_load: Option<f64>,
    /// When no server is healthy, choose as if all were, instead of none.
    pub try_all: bool,
    /// This shard, from 0.
    pub shard: usize,
    /// How many shards there are. Their rotations start at different servers.
    pub shards: usize,
    /// Start of the random choices. Hashing does not depend on it.
    pub seed: u64,
}

/// Requests in flight, as the caller counts them: of this shard or of all.
pub trait Load {
    /// Requests that a server is working on.
    fn active(&self, server: usize) -> u32;

    /// Whether a server has all the requests it may have, so that it cannot take this one.
    fn full(&self, server: usize) -> bool;
}

/// What choosing needs to know of a request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pick<'a> {
    /// What the hash policy goes by. A request without a key gets a random one.
    pub key: Option<u64>,
    /// The server that the client had before; it is chosen whatever the policy says, while it can take requests.
    pub preferred: Option<usize>,
    /// Servers that already failed this request.
    pub tried: &'a [usize],
    /// Any clock in microseconds that does not go back. Only `least_latency` reads it.
    pub now_us: u64,
}

/// Why no server was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoServer {
    /// None is healthy, or all that are have weight 0.
    NoneHealthy,
    /// All healthy servers already failed this request.
    AllTried,
    /// All healthy servers have all the requests they may have: wait, then ask again.
    AllFull,
}

/// A server that may be chosen now.
#[derive(Clone, Copy, Debug, Default)]
struct Candidate {
    server: u32,
    /// Thousandths of the configured unit; never 0 in a list of candidates.
    weight: u32,
    /// Thousandths of its whole weight.
    share: u16,
}

impl Candidate {
    /// `None` when the server takes no new requests.
    fn new(server: usize, weight: u16, share: u16) -> Option<Self> {
        let scaled = u32::from(weight) * u32::from(share);
        (scaled > 0).then_some(Self {
            server: server as u32,
            weight: scaled,
            share,
        })
    }

    fn server(self) -> usize {
        self.server as usize
    }

    fn loaded(self, load: &impl Load) -> Loaded {
        Loaded {
            candidate: self,
            active: load.active(self.server()),
        }
    }
}

/// A candidate and its requests in flight, looked up once: that may mean a sum over all shards.
#[derive(Clone, Copy, Debug)]
struct Loaded {
    candidate: Candidate,
    active: u32,
}

impl Loaded {
    /// Compares requests in flight for the weight, without a division.
    fn compare(self, other: Self) -> Ordering {
        let own = u64::from(self.active) * u64::from(other.candidate.weight);
        own.cmp(&(u64::from(other.active) * u64::from(self.candidate.weight)))
    }
}

/// One shard's choice of servers for one upstream.
#[derive(Debug)]
pub struct Balancer {
    try_all: bool,
    inner: RefCell<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Which servers take requests of their own clients.
    loyal: Vec<bool>,
    steering: Vec<Steering>,
    primary: Tier,
    backup: Tier,
}

impl Balancer {
    /// Starts with all servers up.
    ///
    /// # Panics
    /// With 65,535 servers or more.
    pub fn new(servers: &[Server], settings: &Settings) -> Self {
        assert!(
            servers.len() < usize::from(u16::MAX),
            "fewer than 65,535 servers"
        );
        let (backup, primary) = (0..servers.len()).partition(|&server| servers[server].backup);
        let balancer = Self {
            inner: RefCell::new(Inner {
                loyal: Vec::new(),
                steering: servers
                    .iter()
                    .map(|server| Steering {
                        weight: server.weight,
                        admits: Admits::Everyone,
                    })
                    .collect(),
                primary: Tier::new(servers, primary, settings),
                backup: Tier::new(servers, backup, settings),
            }),
            try_all: settings.try_all,
        };
        balancer.refresh(|_| FULL_SHARE);
        balancer
    }

    /// Takes over what operators say; it acts from the next [`Balancer::refresh`] on. Costs next to nothing when no weight changes.
    /// With the hash policy a changed weight makes the table anew: a fraction of a millisecond for some servers, some for a thousand.
    pub fn steer(&self, steering: impl Fn(usize) -> Steering) {
        let inner = &mut *self.inner.borrow_mut();
        let mut weighed = false;
        for (server, present) in inner.steering.iter_mut().enumerate() {
            let next = steering(server);
            weighed |= next.weight != present.weight;
            *present = next;
        }
        if weighed {
            let weight = |server: usize| inner.steering[server].weight;
            inner.primary.weigh(weight);
            inner.backup.weigh(weight);
        }
    }

    /// Takes over what part of its weight each server takes now, in thousandths: [`FULL_SHARE`] when it is healthy, 0 when it is
    /// not, something between while it warms up. Costs about as much as a thousand choices for a thousand servers.
    pub fn refresh(&self, share: impl Fn(usize) -> u16) {
        if self.try_all && !self.has_healthy(&share) {
            self.take_shares(|_| FULL_SHARE);
        } else {
            self.take_shares(|server| share(server).min(FULL_SHARE));
        }
    }

    /// Whether there is a server for requests of everyone. Asked before shares are taken: a server that is tried all the while must not
    /// look as if it had been out.
    fn has_healthy(&self, share: impl Fn(usize) -> u16) -> bool {
        let steering = &self.inner.borrow().steering;
        let mut steering = steering.iter().enumerate();
        steering.any(|(server, order)| {
            order.weight > 0 && order.admits == Admits::Everyone && share(server) > 0
        })
    }

    fn take_shares(&self, share: impl Fn(usize) -> u16) {
        let inner = &mut *self.inner.borrow_mut();
        let steering = &inner.steering;
        let candidate = |server: usize| {
            let Steering { weight, admits } = steering[server];
            let open = admits == Admits::Everyone;
            Candidate::new(server, weight, if open { share(server) } else { 0 })
        };
        inner.primary.refresh(candidate);
        inner.backup.refresh(candidate);
        let admits = |server: usize| steering[server].admits != Admits::Nobody;
        let loyal = |server| share(server) > 0 && admits(server);
        inner.loyal.clear();
        inner.loyal.extend((0..steering.len()).map(loyal));
    }

    /// The server for a request: the preferred one while it can take it, be it of weight 0 or a backup, else one by the policy.
    /// Backups serve when no other server is healthy, or when those that are already failed this request; not when they are full.
    ///
    /// `load` must not call this balancer.
    pub fn choose(&self, pick: &Pick, load: &impl Load) -> Result<usize, NoServer> {
        let inner = &mut *self.inner.borrow_mut();
        if let Some(server) = pick.preferred
            && inner.takes(server, pick, load)
        {
            return Ok(server);
        }
        let tiers = [&mut inner.primary, &mut inner.backup];
        let mut answer = NoServer::NoneHealthy;
        for tier in tiers {
            if let Some(server) = tier.choose(pick, load) {
                return Ok(server);
            }
            if tier.has_left(pick.tried) {
                return Err(NoServer::AllFull);
            }
            if tier.live() > 0 {
                answer = NoServer::AllTried;
            }
        }
        Err(answer)
    }

    /// Whether the preferred server can take a request: see [`Balancer::choose`].
    pub fn takes_preferred(&self, pick: &Pick, load: &impl Load) -> bool {
        let inner = self.inner.borrow();
        pick.preferred
            .is_some_and(|server| inner.takes(server, pick, load))
    }

    /// Servers that take requests of their own clients alone, in ascending order: those that are healthy and of weight 0 or drained, and
    /// backups while others serve.
    pub fn reserved(&self) -> Vec<usize> {
        let inner = self.inner.borrow();
        let serving = if inner.primary.live() > 0 {
            &inner.primary
        } else {
            &inner.backup
        };
        let mut reserved = inner.loyal.clone();
        for server in serving.servers() {
            reserved[server] = false;
        }
        let reserved = reserved.into_iter().enumerate();
        reserved
            .filter_map(|(server, reserved)| reserved.then_some(server))
            .collect()
    }

    /// Tells how long a server took to answer, in microseconds, at the time `now_us` of the clock in [`Pick::now_us`]. For
    /// `least_latency`; the others do not listen. Tell a failure as the time after which the caller gave up or would have, so
    /// that a server does not look fast because it fails fast.
    pub fn observe(&self, server: usize, latency_us: u64, now_us: u64) {
        let inner = &mut *self.inner.borrow_mut();
        for tier in [&mut inner.primary, &mut inner.backup] {
            tier.observe(server, latency_us, now_us);
        }
    }
}

impl Inner {
    /// Whether a server can take a request of its own client.
    fn takes(&self, server: usize, pick: &Pick, load: &impl Load) -> bool {
        let loyal = self.loyal.get(server).is_some_and(|loyal| *loyal);
        loyal && !pick.tried.contains(&server) && !load.full(server)
    }
}

#[cfg(test)]
mod tests;
