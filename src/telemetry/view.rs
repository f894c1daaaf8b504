//! What the status listener reads: the shards' counters and the names that belong to them.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Instant, SystemTime};

use super::counters::{ServerCounters, ShardCounters, UpstreamCounters};
use super::memory::Memory;
use crate::config::Config;

/// How the shards talk to the kernel, as found at start.
#[derive(Clone, Debug)]
pub struct IoReport {
    /// `io_uring` or `epoll`.
    pub mode: String,
    /// The ring's set-up flags, best first; empty without a ring.
    pub flags: String,
    /// Why it is not what the configuration allows; else `None`.
    pub reason: Option<String>,
    /// Submission queue entries of each ring.
    pub ring_entries: u32,
}

/// A server's names.
#[derive(Clone, Debug)]
pub struct ServerView {
    /// Unique in its upstream.
    pub name: String,
    /// Its address as configured.
    pub address: String,
    /// Its part of the requests.
    pub weight: u16,
    /// It serves only when no other server is left.
    pub backup: bool,
}

/// An upstream's names.
#[derive(Clone, Debug)]
pub struct UpstreamView {
    /// Unique.
    pub name: String,
    /// Its clients are sticky.
    pub sticky: bool,
    /// In the order of the configuration.
    pub servers: Vec<ServerView>,
}

/// All that the status listener shows. It reads only.
#[derive(Debug)]
pub struct View {
    /// Each shard's counters, by shard number.
    pub shards: Arc<[Arc<ShardCounters>]>,
    /// In the order of the configuration, as the shards' flat server index has them.
    pub upstreams: Vec<UpstreamView>,
    /// Where clients connect.
    pub listens: Vec<String>,
    /// How many routes there are.
    pub routes: usize,
    /// How the shards talk to the kernel.
    pub io: IoReport,
    /// The ceiling of the heap, where it has one.
    pub memory: Option<Arc<Memory>>,
    /// When the process started, for people.
    pub started: SystemTime,
    /// The same on a clock that never jumps, for durations.
    pub started_instant: Instant,
    /// No new connections are taken; what runs is finished.
    pub draining: AtomicBool,
}

impl View {
    /// The view of a process that starts now.
    pub fn new(config: &Config, shards: Arc<[Arc<ShardCounters>]>, io: IoReport) -> Self {
        let servers = |upstream: &crate::config::Upstream| {
            let servers = upstream.servers.iter();
            servers
                .map(|server| ServerView {
                    name: server.name.clone(),
                    address: server.address.to_string(),
                    weight: server.weight,
                    backup: server.backup,
                })
                .collect()
        };
        let upstreams = config.upstreams.iter();
        Self {
            shards,
            upstreams: upstreams
                .map(|upstream| UpstreamView {
                    name: upstream.name.clone(),
                    sticky: upstream.sticky.is_some(),
                    servers: servers(upstream),
                })
                .collect(),
            listens: config
                .listens
                .iter()
                .map(|listen| listen.address.to_string())
                .collect(),
            routes: config.routes.len(),
            io,
            memory: config
                .limits
                .memory_bytes
                .map(|bytes| Arc::new(Memory::new(bytes))),
            started: SystemTime::now(),
            started_instant: Instant::now(),
            draining: AtomicBool::new(false),
        }
    }

    /// What each shard counted about the upstream with this number.
    pub fn upstream_counters(&self, upstream: usize) -> impl Iterator<Item = &UpstreamCounters> {
        self.shards
            .iter()
            .map(move |shard| &shard.upstreams[upstream])
    }

    /// Shards started again after they died.
    pub fn shard_restarts(&self) -> u64 {
        self.shards.iter().map(|shard| shard.restarts.get()).sum()
    }

    /// How many servers all upstreams have.
    pub fn server_count(&self) -> usize {
        self.upstreams
            .iter()
            .map(|upstream| upstream.servers.len())
            .sum()
    }

    /// Every server with its upstream and flat index.
    pub fn servers(&self) -> impl Iterator<Item = (usize, &UpstreamView, &ServerView)> {
        let pairs = self.upstreams.iter().flat_map(|upstream| {
            upstream
                .servers
                .iter()
                .map(move |server| (upstream, server))
        });
        pairs
            .enumerate()
            .map(|(index, (upstream, server))| (index, upstream, server))
    }

    /// The flat indices of all servers of a server's upstream.
    pub fn siblings(&self, index: usize) -> Range<usize> {
        let mut end = 0;
        let mut upstreams = self.upstreams.iter().map(|upstream| {
            let first = end;
            end += upstream.servers.len();
            first..end
        });
        let siblings = upstreams.find(|servers| servers.contains(&index));
        siblings.unwrap_or_default()
    }

    /// One server's counters in each shard.
    pub fn server_counters(&self, index: usize) -> impl Iterator<Item = &ServerCounters> {
        self.shards
            .iter()
            .filter_map(move |shard| shard.servers.get(index))
    }
}
