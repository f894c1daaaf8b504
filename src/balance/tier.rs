//! A set of servers that are chosen from together, by one policy.

use super::hash::Hash;
use super::least_connections::LeastConnections;
use super::least_latency::LeastLatency;
use super::random::Random;
use super::round_robin::RoundRobin;
use super::two_choices::TwoChoices;
use super::{Candidate, Load, Pick, Policy, Server, Settings, first, rng};

/// The servers that are no backups, or those that are, with a policy of their own.
#[derive(Debug)]
pub(super) struct Tier {
    members: Vec<usize>,
    /// In the order of the configuration.
    live: Vec<Candidate>,
    chooser: Chooser,
}

#[derive(Debug)]
enum Chooser {
    RoundRobin(RoundRobin),
    LeastConnections(LeastConnections),
    Random(Random),
    TwoChoices(TwoChoices),
    Hash(Hash),
    First,
    LeastLatency(LeastLatency),
}

impl Tier {
    pub(super) fn new(servers: &[Server], members: Vec<usize>, settings: &Settings) -> Self {
        let offset = settings.shard * servers.len() / settings.shards.max(1);
        let seed = rng::mix(settings.seed ^ settings.shard as u64);
        let chooser = match settings.policy {
            Policy::RoundRobin => Chooser::RoundRobin(RoundRobin::new(servers.len(), offset)),
            Policy::LeastConnections => {
                Chooser::LeastConnections(LeastConnections::new(servers.len(), offset))
            }
            Policy::Random => Chooser::Random(Random::new(seed)),
            Policy::TwoChoices => Chooser::TwoChoices(TwoChoices::new(seed)),
            Policy::Hash => {
                Chooser::Hash(Hash::new(servers, &members, settings.bounded_load, seed))
            }
            Policy::First => Chooser::First,
            Policy::LeastLatency => Chooser::LeastLatency(LeastLatency::new(servers.len(), seed)),
        };
        Self {
            members,
            live: Vec::new(),
            chooser,
        }
    }

    /// Servers have other weights, of which the candidates will tell. Only the hash policy keeps weights of its own.
    pub(super) fn weigh(&mut self, weight: impl Fn(usize) -> u16) {
        if let Chooser::Hash(policy) = &mut self.chooser {
            policy.weigh(weight);
        }
    }

    pub(super) fn refresh(&mut self, candidate: impl Fn(usize) -> Option<Candidate>) {
        self.live.clear();
        self.live
            .extend(self.members.iter().filter_map(|&server| candidate(server)));
        let live = &self.live;
        match &mut self.chooser {
            Chooser::RoundRobin(policy) => policy.refresh(live),
            Chooser::Random(policy) => policy.refresh(live),
            Chooser::TwoChoices(policy) => policy.refresh(live),
            Chooser::Hash(policy) => policy.refresh(live),
            Chooser::LeastLatency(policy) => policy.refresh(live),
            Chooser::LeastConnections(_) | Chooser::First => {}
        }
    }

    /// How many may be chosen now.
    pub(super) fn live(&self) -> usize {
        self.live.len()
    }

    /// Which may be chosen now.
    pub(super) fn servers(&self) -> impl Iterator<Item = usize> {
        self.live.iter().map(|c| c.server())
    }

    /// Whether there is one that is not among those `tried`.
    pub(super) fn has_left(&self, tried: &[usize]) -> bool {
        self.live.iter().any(|c| !tried.contains(&c.server()))
    }

    pub(super) fn observe(&mut self, server: usize, latency_us: u64, now_us: u64) {
        if let Chooser::LeastLatency(policy) = &mut self.chooser {
            policy.observe(server, latency_us, now_us);
        }
    }

    pub(super) fn choose(&mut self, pick: &Pick, load: &impl Load) -> Option<usize> {
        let live = &self.live[..];
        let usable = |server: usize| !pick.tried.contains(&server) && !load.full(server);
        match &mut self.chooser {
            Chooser::RoundRobin(policy) => policy.choose(live, usable),
            Chooser::LeastConnections(policy) => policy.choose(live, load, usable),
            Chooser::Random(policy) => policy.choose(live, usable),
            Chooser::TwoChoices(policy) => policy.choose(live, load, usable),
            Chooser::Hash(policy) => policy.choose(live, pick.key, load, usable),
            Chooser::First => first::choose(live, usable),
            Chooser::LeastLatency(policy) => policy.choose(live, load, pick.now_us, usable),
        }
    }
}
