//! What servers are working on and how many connections they have, counted over all shards without a lock.

use super::group;
use crate::balance::Load;
use crate::config::Server;
use crate::telemetry::counters::{AllCounters, ServerCounters};

/// What a server may have at once.
#[derive(Clone, Copy, Debug)]
struct Limits {
    requests: u32,
    connections: u32,
}

/// What the servers of one upstream are working on.
#[derive(Debug)]
pub struct InFlight {
    shards: AllCounters,
    /// Flat index of the upstream's first server.
    first_id: usize,
    /// Of each server; empty when none has a limit.
    limits: Vec<Limits>,
}

impl InFlight {
    /// Of the servers from the flat index `first_id` on.
    pub fn new(servers: &[Server], first_id: usize, shards: &AllCounters) -> Self {
        let limited = servers
            .iter()
            .any(|server| server.max_requests.or(server.max_connections).is_some());
        let limits = servers.iter().filter(|_| limited);
        Self {
            shards: AllCounters::clone(shards),
            first_id,
            limits: limits
                .map(|server| Limits {
                    requests: server.max_requests.unwrap_or(u32::MAX),
                    connections: server.max_connections.unwrap_or(u32::MAX),
                })
                .collect(),
        }
    }

    fn sum(&self, server: usize, count: fn(&ServerCounters) -> u64) -> u32 {
        let shards = self.shards.iter();
        let counts = shards.map(|shard| count(&shard.servers[self.first_id + server]));
        counts.sum::<u64>() as u32
    }

    fn active(&self, server: usize) -> u32 {
        self.sum(server, |counters| counters.active.get())
    }

    fn has_all_connections(&self, server: usize, limits: Limits) -> bool {
        limits.connections != u32::MAX
            && self.sum(server, |counters| counters.open.get()) >= limits.connections
    }

    /// Whether a server has all its requests; or all its connections, and none of them is idle here.
    fn full(&self, server: usize, idle_here: impl FnOnce() -> bool) -> bool {
        self.limits.get(server).is_some_and(|limits| {
            limits.requests != u32::MAX && self.active(server) >= limits.requests
                || self.has_all_connections(server, *limits) && !idle_here()
        })
    }

    /// Whether shards compete for the connections of a server: it has all, and idle ones can only be used by the shard that has them.
    pub fn is_contended(&self, server: usize) -> bool {
        let limits = self.limits.get(server);
        self.shards.len() > 1
            && limits.is_some_and(|limits| self.has_all_connections(server, *limits))
    }
}

/// The servers of one upstream with what they are working on and one shard's idle connections.
#[derive(Debug)]
pub struct Room<'a> {
    /// Over all shards.
    pub load: &'a InFlight,
    /// As this shard has them.
    pub servers: &'a [group::Server],
}

/// Relaxed loads: a count may be a request behind. Shards that choose at the same moment can take a server above its limit by
/// one each.
impl Load for Room<'_> {
    fn active(&self, server: usize) -> u32 {
        self.load.active(server)
    }

    #[inline]
    fn full(&self, server: usize) -> bool {
        self.load
            .full(server, || !self.servers[server].pool.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::ServerAddress;
    use crate::telemetry::counters::ShardCounters;

    fn server(max_requests: Option<u32>, max_connections: Option<u32>) -> Server {
        Server {
            name: String::new(),
            address: ServerAddress::Unix("/x".into()),
            weight: 1,
            backup: false,
            max_requests,
            max_connections,
        }
    }

    fn counters() -> AllCounters {
        (0..3).map(|_| Arc::new(ShardCounters::new(4, 1))).collect()
    }

    #[test]
    fn all_shards_count_and_other_upstreams_do_not() {
        let shards = counters();
        let load = InFlight::new(&[server(Some(5), None), server(None, None)], 1, &shards);
        for shard in shards.iter() {
            for (count, server) in [100, 2, 4, 100].into_iter().zip(&shard.servers) {
                server.active.set(count);
            }
        }
        let room = Room {
            load: &load,
            servers: &[],
        };
        assert_eq!((room.active(0), room.active(1)), (6, 12));
        let full = |server| load.full(server, || false);
        assert_eq!((full(0), full(1)), (true, false));
        shards[0].servers[1].active.set(0);
        assert!(!full(0), "4 of 5");
    }

    #[test]
    fn a_server_with_all_its_connections_takes_requests_only_over_an_idle_one() {
        let shards = counters();
        let load = InFlight::new(&[server(None, Some(3))], 0, &shards);
        shards[0].servers[0].open.set(2);
        assert!(!load.full(0, || false) && !load.is_contended(0));
        shards[1].servers[0].open.set(1);
        assert!(load.full(0, || false) && load.is_contended(0));
        assert!(!load.full(0, || true));
    }
}
