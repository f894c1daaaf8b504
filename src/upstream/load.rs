//! Requests in flight, counted over all shards without a lock.

use crate::balance::Load;
use crate::config::Server;
use crate::telemetry::counters::AllCounters;

/// What the servers of one upstream are working on.
#[derive(Debug)]
pub struct InFlight {
    shards: AllCounters,
    /// Flat index of the upstream's first server.
    first_id: usize,
    /// Most requests that each server may have; empty when none has a limit.
    limits: Vec<u32>,
    servers: usize,
}

impl InFlight {
    /// Of the servers from the flat index `first_id` on.
    pub fn new(servers: &[Server], first_id: usize, shards: &AllCounters) -> Self {
        let limited = servers
            .iter()
            .any(|server| server.max_connections.is_some());
        let limits = servers.iter().filter(|_| limited);
        Self {
            shards: AllCounters::clone(shards),
            first_id,
            limits: limits
                .map(|server| server.max_connections.unwrap_or(u32::MAX))
                .collect(),
            servers: servers.len(),
        }
    }
}

/// Relaxed loads: a count may be a request behind. Shards that choose at the same moment can take a server above its limit by
/// one each.
impl Load for InFlight {
    fn active(&self, server: usize) -> u32 {
        let counters = self.shards.iter().map(|shard| &shard.servers);
        let active = counters.map(|servers| servers[self.first_id + server].active.get());
        active.sum::<u64>() as u32
    }

    fn total(&self) -> u32 {
        (0..self.servers).map(|server| self.active(server)).sum()
    }

    #[inline]
    fn full(&self, server: usize) -> bool {
        self.limits
            .get(server)
            .is_some_and(|limit| self.active(server) >= *limit)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::ServerAddress;
    use crate::telemetry::counters::ShardCounters;

    fn server(max_connections: Option<u32>) -> Server {
        Server {
            name: String::new(),
            address: ServerAddress::Unix("/x".into()),
            weight: 1,
            backup: false,
            max_connections,
        }
    }

    #[test]
    fn all_shards_count_and_other_upstreams_do_not() {
        let shards: AllCounters = (0..3).map(|_| Arc::new(ShardCounters::new(4))).collect();
        let load = InFlight::new(&[server(Some(5)), server(None)], 1, &shards);
        for shard in shards.iter() {
            for (count, server) in [100, 2, 4, 100].into_iter().zip(&shard.servers) {
                server.active.set(count);
            }
        }
        assert_eq!((load.active(0), load.active(1), load.total()), (6, 12, 18));
        assert_eq!((load.full(0), load.full(1)), (true, false));
        shards[0].servers[1].active.set(0);
        assert!(!load.full(0), "4 of 5");
    }
}
