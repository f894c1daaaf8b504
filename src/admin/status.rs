//! The status page: one JSON document. Times are in the unit that the name ends in.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use serde::Serialize;

use super::health::{Health, ServerHealth};
use super::sampler::{Activity, Sampler};
use super::servers::Orders;
use super::traffic::Traffic;
use crate::health::overview::Overview;
use crate::net::heap;
use crate::telemetry::counters::{
    Counter, FailureKind, OwnAnswers, RetryKind, RingCounters, ServerCounters, ShardCounters,
    StatusClasses, StickyKind, TimeoutKind, UpstreamCounters,
};
use crate::telemetry::date::{Utc, unix_seconds};
use crate::telemetry::histogram::Snapshot;
use crate::telemetry::memory::Memory;
use crate::telemetry::process::{Process, thread_cpu_time};
use crate::telemetry::view::{IoReport, ServerView, UpstreamView, View};

/// Counts by name.
type Counts = BTreeMap<&'static str, u64>;

/// The whole document.
#[derive(Serialize)]
pub(super) struct Status<'a> {
    version: &'static str,
    pid: u32,
    started: String,
    uptime_s: u64,
    draining: bool,
    io: Io<'a>,
    config: Summary<'a>,
    process: ProcessFigures,
    memory: MemoryFigures,
    shard_restarts: u64,
    /// Requests in a second over the last minute or so.
    requests_per_s: Option<f64>,
    /// Requests of the busiest shard to those of the mean one, over the last minute or so; null without requests.
    imbalance: Option<f64>,
    totals: ShardFigures,
    shards: Vec<Shard>,
    /// `off`, `open` or `token`: whether operators can give orders, and with what.
    orders: &'static str,
    /// Null when nobody checks the servers' health and orders are off.
    health: Option<Health<'a>>,
    upstreams: Vec<Upstream<'a>>,
}

impl<'a> Status<'a> {
    pub(super) fn new(sampler: &'a Sampler, overview: Option<&Overview>, orders: &Orders) -> Self {
        let view = sampler.view();
        let traffic = sampler.traffic();
        Self {
            version: env!("CARGO_PKG_VERSION"),
            pid: std::process::id(),
            started: Utc::from_unix_seconds(unix_seconds(view.started)).rfc3339(),
            uptime_s: view.started_instant.elapsed().as_secs(),
            draining: view.draining.load(Relaxed),
            io: Io::new(&view.io),
            config: Summary::new(view),
            process: ProcessFigures::new(),
            memory: MemoryFigures::new(view.memory.as_deref()),
            shard_restarts: view.shard_restarts(),
            requests_per_s: traffic.rate_of_all().map(rounded),
            imbalance: traffic.imbalance().map(rounded),
            totals: ShardFigures::new(&view.shards),
            shards: shards(sampler, &traffic),
            orders: orders.as_str(),
            health: overview.map(|overview| Health::new(view, overview)),
            upstreams: upstreams(sampler, overview, &traffic),
        }
    }
}

#[derive(Serialize)]
struct Io<'a> {
    mode: &'a str,
    flags: &'a str,
    /// Why it is not what the configuration allows; else null.
    reason: Option<&'a str>,
    ring_entries: u32,
}

impl<'a> Io<'a> {
    fn new(io: &'a IoReport) -> Self {
        Self {
            mode: &io.mode,
            flags: &io.flags,
            reason: io.reason.as_deref(),
            ring_entries: io.ring_entries,
        }
    }
}

#[derive(Serialize)]
struct Summary<'a> {
    listen: &'a [String],
    shards: usize,
    routes: usize,
    upstreams: usize,
    servers: usize,
}

impl<'a> Summary<'a> {
    fn new(view: &'a View) -> Self {
        Self {
            listen: &view.listens,
            shards: view.shards.len(),
            routes: view.routes,
            upstreams: view.upstreams.len(),
            servers: view.server_count(),
        }
    }
}

#[derive(Serialize)]
struct ProcessFigures {
    cpu_s: Option<f64>,
    resident_bytes: Option<u64>,
    open_fds: Option<u64>,
    max_fds: Option<u64>,
    threads: Option<u64>,
}

impl ProcessFigures {
    fn new() -> Self {
        let Process {
            cpu,
            resident_bytes,
            open_fds,
            max_fds,
            threads,
            ..
        } = Process::read();
        Self {
            cpu_s: cpu.map(|time| time.as_secs_f64()),
            resident_bytes,
            open_fds,
            max_fds,
            threads,
        }
    }
}

#[derive(Serialize)]
struct MemoryFigures {
    /// What the heap holds, as it was asked for.
    heap_bytes: u64,
    /// Null without `limits.memory`, as are the others.
    ceiling_bytes: Option<u64>,
    /// `ample`, `tight` or `short`.
    room: Option<&'static str>,
    /// Times that it was short.
    shortages: Option<u64>,
}

impl MemoryFigures {
    fn new(memory: Option<&Memory>) -> Self {
        let held = heap::held();
        Self {
            heap_bytes: held,
            ceiling_bytes: memory.map(Memory::ceiling),
            room: memory.map(|memory| memory.room(held).as_str()),
            shortages: memory.map(Memory::shortages),
        }
    }
}

#[derive(Serialize)]
struct Shard {
    number: usize,
    running: bool,
    /// The CPU it is pinned to; null when it may run anywhere.
    cpu: Option<u32>,
    cpu_s: Option<f64>,
    /// Share of the last five seconds or so on a CPU, 0 to 1; null until then.
    busy_share: Option<f64>,
    /// Its sweeper made no turn in that time; null until then.
    stalled: Option<bool>,
    #[serde(flatten)]
    recent: Recent,
    #[serde(flatten)]
    figures: ShardFigures,
}

fn shards(sampler: &Sampler, traffic: &Traffic) -> Vec<Shard> {
    let shards = sampler.view().shards.iter().zip(sampler.activities());
    shards
        .enumerate()
        .map(|(index, (counters, activity))| shard(index, counters, activity, traffic))
        .collect()
}

fn shard(
    number: usize,
    counters: &Arc<ShardCounters>,
    activity: Option<Activity>,
    traffic: &Traffic,
) -> Shard {
    let thread = counters.running_thread();
    Shard {
        number,
        running: thread.is_some(),
        cpu: counters.pinned_cpu(),
        cpu_s: thread
            .and_then(thread_cpu_time)
            .map(|time| time.as_secs_f64()),
        busy_share: activity.map(|activity| rounded(activity.busy_share)),
        stalled: activity.map(|activity| activity.stalled),
        recent: Recent::new(traffic.shard_share(number), traffic.shard_rate(number)),
        figures: ShardFigures::new(std::slice::from_ref(counters)),
    }
}

/// Requests of the last minute or so.
#[derive(Serialize)]
struct Recent {
    /// The part of all, 0 to 1; null without requests.
    share: Option<f64>,
    requests_per_s: Option<f64>,
}

impl Recent {
    fn new(share: Option<f64>, requests_per_s: Option<f64>) -> Self {
        Self {
            share: share.map(rounded),
            requests_per_s: requests_per_s.map(rounded),
        }
    }
}

/// To four digits: more would be noise.
fn rounded(share: f64) -> f64 {
    (share * 10_000.0).round() / 10_000.0
}

/// What one shard counted, or all of them.
#[derive(Serialize)]
struct ShardFigures {
    accepted: u64,
    connections: u64,
    active: u64,
    tunnels: u64,
    requests: u64,
    responses: Counts,
    /// By status; "other" for those that have no counter of their own.
    own_answers: BTreeMap<String, u64>,
    bytes_in: u64,
    bytes_out: u64,
    timeouts: Counts,
    retries: u64,
    upstream_new: u64,
    upstream_reused: u64,
    upstream_stale: u64,
    refused_connections: u64,
    refused_clients: u64,
    refused_descriptors: u64,
    rate_limited: u64,
    shed: u64,
    refused_memory: u64,
    accept_errors: u64,
    accept_backoffs: u64,
    short_writes: u64,
    interrupted_calls: u64,
    send_shortages: u64,
    panics: u64,
    access_log_dropped: u64,
    /// Null with epoll, and where the rings cannot be looked at.
    ring: Option<RingFigures>,
}

/// What went through the rings.
#[derive(Serialize)]
struct RingFigures {
    submissions: u64,
    completions: u64,
    sq_full: u64,
    sq_dropped: u64,
    cq_overflows: u64,
    cq_lost: u64,
}

impl RingFigures {
    /// None unless all are known: a sum without some of them would be wrong.
    fn new(shards: &[Arc<ShardCounters>]) -> Option<Self> {
        let sum = |value: fn(&RingCounters) -> u64| -> u64 {
            shards.iter().map(|shard| value(&shard.ring)).sum()
        };
        (sum(|ring| ring.known.get()) == shards.len() as u64).then(|| Self {
            submissions: sum(|ring| ring.submissions.get()),
            completions: sum(|ring| ring.completions.get()),
            sq_full: sum(|ring| ring.sq_full.get()),
            sq_dropped: sum(|ring| ring.sq_dropped.get()),
            cq_overflows: sum(|ring| ring.cq_overflows.get()),
            cq_lost: sum(|ring| ring.cq_lost.get()),
        })
    }
}

impl ShardFigures {
    fn new(shards: &[Arc<ShardCounters>]) -> Self {
        let each = || shards.iter().map(AsRef::as_ref);
        let sum = |value: fn(&ShardCounters) -> u64| each().map(value).sum();
        Self {
            accepted: sum(|shard| shard.accepted.get()),
            connections: sum(|shard| shard.connections.get()),
            active: sum(|shard| shard.active.get()),
            tunnels: sum(|shard| shard.tunnels.get()),
            requests: sum(|shard| shard.requests.get()),
            responses: classes(each().map(|shard| &shard.responses)),
            // Only those that were given: a table of zeros tells nothing.
            own_answers: OwnAnswers::sums(each().map(|shard| &shard.own_answers))
                .filter(|(_, count)| *count > 0)
                .collect(),
            bytes_in: sum(|shard| shard.bytes_in.get()),
            bytes_out: sum(|shard| shard.bytes_out.get()),
            timeouts: kinds(
                TimeoutKind::ALL.map(TimeoutKind::as_str),
                each().map(|shard| &shard.timeouts),
            ),
            retries: sum(|shard| shard.retries.get()),
            upstream_new: sum(|shard| shard.new_upstream.get()),
            upstream_reused: sum(|shard| shard.reused_upstream.get()),
            upstream_stale: sum(|shard| shard.stale_upstream.get()),
            refused_connections: sum(|shard| shard.refused_connections.get()),
            refused_clients: sum(|shard| shard.refused_clients.get()),
            refused_descriptors: sum(|shard| shard.refused_descriptors.get()),
            rate_limited: sum(|shard| shard.rate_limited.get()),
            shed: sum(|shard| shard.shed.get()),
            refused_memory: sum(|shard| shard.refused_memory.get()),
            accept_errors: sum(|shard| shard.accept_errors.get()),
            accept_backoffs: sum(|shard| shard.accept_backoffs.get()),
            short_writes: sum(|shard| shard.short_writes.get()),
            interrupted_calls: sum(|shard| shard.interrupted_calls.get()),
            send_shortages: sum(|shard| shard.send_shortages.get()),
            panics: sum(|shard| shard.panics.get()),
            access_log_dropped: sum(|shard| shard.access_log_dropped.get()),
            ring: RingFigures::new(shards),
        }
    }
}

fn classes<'a>(counters: impl Iterator<Item = &'a StatusClasses>) -> Counts {
    let mut counts = Counts::from(StatusClasses::NAMES.map(|name| (name, 0)));
    for classes in counters {
        for (name, count) in StatusClasses::NAMES.into_iter().zip(classes.get()) {
            *counts.entry(name).or_default() += count;
        }
    }
    counts
}

fn kinds<'a, const N: usize>(
    names: [&'static str; N],
    counters: impl Iterator<Item = &'a [Counter; N]>,
) -> Counts {
    let mut counts = Counts::from(names.map(|name| (name, 0)));
    for kinds in counters {
        for (name, counter) in names.iter().zip(kinds) {
            *counts.entry(name).or_default() += counter.get();
        }
    }
    counts
}

#[derive(Serialize)]
struct Upstream<'a> {
    name: &'a str,
    /// By the reason of the attempt that was added.
    retries: Counts,
    retries_refused: u64,
    queue: Queue,
    servers: Vec<Server<'a>>,
}

fn upstreams<'a>(
    sampler: &'a Sampler,
    overview: Option<&Overview>,
    traffic: &Traffic,
) -> Vec<Upstream<'a>> {
    let mut index = 0..;
    let view = sampler.view();
    let upstreams = view.upstreams.iter().enumerate();
    let upstreams = upstreams.map(|(number, upstream)| {
        let servers = upstream.servers.iter().zip(index.by_ref());
        let servers: Vec<_> = servers
            .map(|(server, index)| Server::new(sampler, overview, traffic, upstream, server, index))
            .collect();
        let refused = view.upstream_counters(number);
        Upstream {
            name: &upstream.name,
            retries: total(servers.iter().map(|server| &server.retries)),
            retries_refused: refused.map(|upstream| upstream.retries_refused.get()).sum(),
            queue: Queue::new(view, number),
            servers,
        }
    });
    upstreams.collect()
}

fn total<'a>(parts: impl Iterator<Item = &'a Counts>) -> Counts {
    let mut counts = Counts::new();
    for (name, count) in parts.flatten() {
        *counts.entry(name).or_default() += count;
    }
    counts
}

/// Requests that wait for a server with room, or did.
#[derive(Serialize)]
struct Queue {
    /// Waiting now.
    length: u64,
    /// Those that wait now are not among them.
    waits: u64,
    /// Of those that waited; null when none did.
    mean_wait_us: Option<u64>,
    timeouts: u64,
    full: u64,
    left: u64,
}

impl Queue {
    fn new(view: &View, upstream: usize) -> Self {
        let counters = || view.upstream_counters(upstream);
        let sum = |value: fn(&UpstreamCounters) -> u64| counters().map(value).sum::<u64>();
        let waits = sum(|upstream| upstream.queue_waits.get());
        Self {
            length: sum(|upstream| upstream.queued.get()),
            waits,
            mean_wait_us: sum(|upstream| upstream.queue_wait_us.get()).checked_div(waits),
            timeouts: sum(|upstream| upstream.queue_timeouts.get()),
            full: sum(|upstream| upstream.queue_full.get()),
            left: sum(|upstream| upstream.queue_left.get()),
        }
    }
}

#[derive(Serialize)]
pub(super) struct Server<'a> {
    name: &'a str,
    address: &'a str,
    /// The one that holds.
    weight: u16,
    configured_weight: u16,
    backup: bool,
    #[serde(flatten)]
    health: ServerHealth,
    active: u64,
    idle: u64,
    open: u64,
    requests: u64,
    /// Its share is that of its upstream's requests.
    #[serde(flatten)]
    recent: Recent,
    connects: u64,
    responses: Counts,
    failures: Counts,
    /// Attempts that followed one here, by reason.
    retries: Counts,
    /// Null when the upstream's clients are not sticky.
    sticky: Option<Counts>,
    bytes_in: u64,
    bytes_out: u64,
    /// Time to response head since the start.
    latency: Latency,
    /// The same over the last minute or so.
    recent_latency: Latency,
}

impl<'a> Server<'a> {
    pub(super) fn new(
        sampler: &'a Sampler,
        overview: Option<&Overview>,
        traffic: &Traffic,
        upstream: &UpstreamView,
        server: &'a ServerView,
        index: usize,
    ) -> Self {
        let counters = || sampler.view().server_counters(index);
        let sum = |value: fn(&ServerCounters) -> u64| counters().map(value).sum();
        let entry = overview.and_then(|overview| overview.entry(index));
        let active = sum(|server| server.active.get());
        let share = traffic.server_share(sampler.view().siblings(index), index);
        Self {
            name: &server.name,
            address: &server.address,
            weight: entry
                .and_then(|entry| entry.weight)
                .unwrap_or(server.weight),
            configured_weight: server.weight,
            backup: server.backup,
            health: ServerHealth::new(overview.zip(entry), index, active),
            active,
            idle: sum(|server| server.idle.get()),
            open: sum(|server| server.open.get()),
            requests: sum(|server| server.requests.get()),
            recent: Recent::new(share, traffic.server_rate(index)),
            connects: sum(|server| server.connects.get()),
            responses: classes(counters().map(|server| &server.responses)),
            failures: kinds(
                FailureKind::ALL.map(FailureKind::as_str),
                counters().map(|server| &server.failures),
            ),
            retries: kinds(
                RetryKind::ALL.map(RetryKind::as_str),
                counters().map(|server| &server.retries),
            ),
            sticky: upstream.sticky.then(|| {
                kinds(
                    StickyKind::ALL.map(StickyKind::as_str),
                    counters().map(|server| &server.sticky),
                )
            }),
            bytes_in: sum(|server| server.bytes_in.get()),
            bytes_out: sum(|server| server.bytes_out.get()),
            latency: Latency::new(&sampler.latency(index)),
            recent_latency: Latency::new(&sampler.recent_latency(index)),
        }
    }
}

/// Null where nothing was measured.
#[derive(Serialize)]
struct Latency {
    count: u64,
    mean_us: Option<f64>,
    p50_us: Option<u64>,
    p90_us: Option<u64>,
    p99_us: Option<u64>,
}

impl Latency {
    fn new(snapshot: &Snapshot) -> Self {
        Self {
            count: snapshot.count(),
            mean_us: snapshot.mean_us().map(f64::round),
            p50_us: snapshot.quantile_us(0.5),
            p90_us: snapshot.quantile_us(0.9),
            p99_us: snapshot.quantile_us(0.99),
        }
    }
}
