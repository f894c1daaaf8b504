//! Consistent hashing: the same key goes to the same server, on every shard, after a restart and on every node that has the
//! same configuration.
//!
//! A key finds its server in a Maglev table over all servers of the configuration. The table is not rebuilt when one fails:
//! a key whose server cannot take it is hashed again and looks up the next, as often as it must. So exactly the keys of a lost
//! server move, in proportion to the weights of the others, and exactly these come back. Maglev was chosen over weighted
//! rendezvous because a lookup costs the same for 3 servers and for 1,000; rendezvous, which asks every server, is what keys
//! fall back on when nearly all servers are down.

use xxhash_rust::xxh3::xxh3_64;

use super::maglev::{Maglev, Member};
use super::rng::{Rng, mix};
use super::{Candidate, FULL_SHARE, Load, Server};

/// Lookups before a key asks every live server. With half of the servers down, one key in 65,536 gets there.
const LOOKUPS: usize = 16;

/// The key for these bytes: XXH3 with its standard secret, so everyone computes the same. It is no protection against a client
/// that picks its keys so that they meet; bounded load is.
pub fn key(bytes: &[u8]) -> u64 {
    xxh3_64(bytes)
}

/// Chooses by the request's key.
#[derive(Debug)]
pub(super) struct Hash {
    table: Maglev,
    members: Vec<Member>,
    /// By server; weight and share are 0 for one that is not live.
    standing: Vec<Candidate>,
    /// Hash of each server's name, by server, for rendezvous.
    names: Vec<u64>,
    /// Sum of the live candidates' weights.
    live_weight: u64,
    /// How far a server's load may be above its fair share, as a factor; at least 1.
    bound: Option<f64>,
    /// Stands in for the key of a request that has none.
    rng: Rng,
}

impl Hash {
    /// `seed` is for requests without a key; the others do not depend on it.
    pub(super) fn new(
        servers: &[Server],
        members: &[usize],
        bound: Option<f64>,
        seed: u64,
    ) -> Self {
        let members: Vec<_> = members
            .iter()
            .map(|&server| Member::new(server, &servers[server]))
            .collect();
        Self {
            table: Maglev::new(&members),
            members,
            standing: vec![Candidate::default(); servers.len()],
            names: servers
                .iter()
                .map(|server| key(server.name.as_bytes()))
                .collect(),
            live_weight: 0,
            bound,
            rng: Rng::new(seed),
        }
    }

    /// Makes the table anew with these weights.
    pub(super) fn weigh(&mut self, weight: impl Fn(usize) -> u16) {
        for member in &mut self.members {
            member.weight = weight(usize::from(member.server));
        }
        // The old one goes first: every shard does this at about the same time.
        self.table = Maglev::default();
        self.table = Maglev::new(&self.members);
    }

    pub(super) fn refresh(&mut self, live: &[Candidate]) {
        self.standing.fill(Candidate::default());
        for candidate in live {
            self.standing[candidate.server()] = *candidate;
        }
        self.live_weight = live.iter().map(|c| u64::from(c.weight)).sum();
    }

    pub(super) fn choose(
        &mut self,
        live: &[Candidate],
        key: Option<u64>,
        load: &impl Load,
        usable: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let key = key.unwrap_or_else(|| self.rng.next());
        // Over all shards, so it is made once. Those that are not live have no share.
        let total = if self.bound.is_some() {
            live.iter().map(|c| load.active(c.server())).sum()
        } else {
            0
        };
        let in_bound = |server: usize| self.within_bound(server, total, load);
        let mut bits = mix(key);
        for _ in 0..LOOKUPS {
            let server = self.table.lookup(bits)?;
            if self.takes(server, bits) && usable(server) && in_bound(server) {
                return Some(server);
            }
            bits = mix(bits.wrapping_add(1));
        }
        let highest = |bound: bool| {
            live.iter()
                .filter(|c| usable(c.server()) && (!bound || in_bound(c.server())))
                .max_by(|a, b| self.score(**a, key).total_cmp(&self.score(**b, key)))
                .map(|c| c.server())
        };
        // Excluded servers may hold all the room there is below the bound; going over it is better than failing.
        highest(true).or_else(|| highest(false))
    }

    /// Whether a live server takes this key now. In slow start it takes a part of its keys, the same ones on every shard, and
    /// more as its share grows.
    fn takes(&self, server: usize, bits: u64) -> bool {
        let share = self.standing[server].share;
        share == FULL_SHARE || ((bits & 0xffff) * u64::from(FULL_SHARE)) >> 16 < u64::from(share)
    }

    /// Bounded load (Mirrokni, Thorup, Zadimoghaddam: Consistent Hashing with Bounded Loads, SODA 2018): a server takes a
    /// request only while it has fewer in flight than `bound` times its fair share of the live servers' `total`, counted with this
    /// request.
    fn within_bound(&self, server: usize, total: u32, load: &impl Load) -> bool {
        let Some(bound) = self.bound else { return true };
        let weight = self.standing[server].weight;
        let fair = (f64::from(total) + 1.0) * f64::from(weight) / self.live_weight as f64;
        f64::from(load.active(server)) < (bound * fair).ceil()
    }

    /// Weighted rendezvous (Schindelhauer, Schomaker: Weighted Distributed Hash Tables, SPAA 2005).
    fn score(&self, candidate: Candidate, key: u64) -> f64 {
        let bits = mix(key ^ self.names[candidate.server()]);
        let uniform = ((bits >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
        -f64::from(candidate.weight) / uniform.ln()
    }
}
