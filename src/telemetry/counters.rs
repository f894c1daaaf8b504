//! Counters of one shard.
//!
//! A shard's thread is the only writer of its counters, so adding is a relaxed load and a relaxed store, with no locked
//! instruction. A second writer would lose counts, not memory safety. Readers on other threads see each word at some recent
//! value; two words read together may be from slightly different times.

mod kinds;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

pub use self::kinds::{FailureKind, RetryKind, StickyKind, TimeoutKind};
use super::clients::Clients;
use super::histogram::Histogram;

/// A number that only grows. One writer.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Adds one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// The present value.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A number that goes up and down, never below 0. One writer.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Adds one.
    pub fn inc(&self) {
        self.set(self.get() + 1);
    }

    /// Takes one off; 0 stays 0.
    pub fn dec(&self) {
        self.set(self.get().saturating_sub(1));
    }

    /// Replaces the value.
    pub fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }

    /// The present value.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// One more of what a gauge of a server shows, for as long as it lives.
#[derive(Debug)]
pub struct Tally {
    counters: Arc<ShardCounters>,
    server: usize,
    gauge: fn(&ServerCounters) -> &Gauge,
}

impl Tally {
    /// Counts one to the server with this flat index.
    pub fn new(
        counters: &Arc<ShardCounters>,
        server: usize,
        gauge: fn(&ServerCounters) -> &Gauge,
    ) -> Self {
        gauge(&counters.servers[server]).inc();
        Self {
            counters: Arc::clone(counters),
            server,
            gauge,
        }
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        (self.gauge)(&self.counters.servers[self.server]).dec();
    }
}

/// Counters by status class.
#[derive(Debug, Default)]
pub struct StatusClasses([Counter; Self::COUNT]);

impl StatusClasses {
    /// Classes 1xx to 5xx.
    pub const COUNT: usize = 5;
    /// Names of the classes, in order.
    pub const NAMES: [&'static str; Self::COUNT] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

    /// Counts a response. A status above 599 counts as 5xx, as RFC 9110 section 15 asks recipients to treat it.
    pub fn count(&self, status: u16) {
        self.0[usize::from(status / 100).clamp(1, Self::COUNT) - 1].inc();
    }

    /// The values, 1xx first.
    pub fn get(&self) -> [u64; Self::COUNT] {
        std::array::from_fn(|class| self.0[class].get())
    }
}

/// Counters of the answers that the proxy gives itself, by status code.
#[derive(Debug, Default)]
pub struct OwnAnswers([Counter; Self::STATUSES.len() + 1]);

impl OwnAnswers {
    /// The codes that have a counter of their own.
    pub const STATUSES: [u16; 17] = [
        400, 404, 405, 408, 411, 413, 414, 417, 421, 429, 431, 500, 501, 502, 503, 504, 505,
    ];

    /// Counts an answer. Codes not in [`Self::STATUSES`] count together.
    pub fn count(&self, status: u16) {
        let known = Self::STATUSES.iter().position(|known| *known == status);
        self.0[known.unwrap_or(Self::STATUSES.len())].inc();
    }

    /// What these have counted together, by code; last, as `other`, all other codes.
    pub fn sums<'a>(all: impl Iterator<Item = &'a Self>) -> impl Iterator<Item = (String, u64)> {
        let mut sums = [0; Self::STATUSES.len() + 1];
        for own in all {
            for (sum, counter) in sums.iter_mut().zip(&own.0) {
                *sum += counter.get();
            }
        }
        let codes = Self::STATUSES.iter().map(u16::to_string);
        codes.chain(["other".to_owned()]).zip(sums)
    }
}

/// The counters of all shards, by shard number.
pub type AllCounters = Arc<[Arc<ShardCounters>]>;

/// What one shard counts. It starts on a cache line pair of its own, for CPUs fetch lines in pairs.
#[derive(Debug)]
#[repr(align(128))]
pub struct ShardCounters {
    /// The shard thread's kernel id, for its CPU time; 0 while it does not run.
    pub thread_id: AtomicU32,
    /// The CPU it is pinned to, or [`Self::NOT_PINNED`].
    pub cpu: AtomicU32,
    /// Client connections accepted.
    pub accepted: Counter,
    /// Client connections open.
    pub connections: Gauge,
    /// Client connections with an exchange running.
    pub active: Gauge,
    /// Requests that were begun, also those whose head was refused or did not come in time.
    pub requests: Counter,
    /// Final responses sent to clients, and 101; ours and the servers'.
    pub responses: StatusClasses,
    /// Those of them that we made ourselves.
    pub own_answers: OwnAnswers,
    /// Bytes read from clients.
    pub bytes_in: Counter,
    /// Bytes written to clients.
    pub bytes_out: Counter,
    /// Failed accepts.
    pub accept_errors: Counter,
    /// Pauses in accepting, for want of descriptors or memory.
    pub accept_backoffs: Counter,
    /// Sends that took a part of what they were given.
    pub short_writes: Counter,
    /// Sends and receives that a signal interrupted; they were made again.
    pub interrupted_calls: Counter,
    /// Sends, and waits for room, that failed for want of memory, descriptors or watches; they were made again.
    pub send_shortages: Counter,
    /// Connection tasks that panicked.
    pub panics: Counter,
    /// Times that the shard died and was started again.
    pub restarts: Counter,
    /// Client connections refused for a limit.
    pub refused_connections: Counter,
    /// Timeouts by [`TimeoutKind`]; see [`Self::timeout`].
    pub timeouts: [Counter; TimeoutKind::COUNT],
    /// Attempts after the first, of all requests.
    pub retries: Counter,
    /// Pooled connections found closed or out of step at checkout.
    pub stale_upstream: Counter,
    /// Attempts on a pooled connection.
    pub reused_upstream: Counter,
    /// Attempts on a new connection.
    pub new_upstream: Counter,
    /// Tunnels open.
    pub tunnels: Gauge,
    /// Access log lines dropped because the writer was behind.
    pub access_log_dropped: Counter,
    /// Requests in flight, tunnels among them; counted only where requests are limited.
    pub in_flight: Gauge,
    /// Requests answered 503 because too many were in flight.
    pub shed: Counter,
    /// Requests answered 503 because memory was short.
    pub refused_memory: Counter,
    /// Requests answered 429 for their client's rate.
    pub rate_limited: Counter,
    /// Client connections refused because their address had too many; counted among the refused ones too.
    pub refused_clients: Counter,
    /// Client connections refused because few descriptors were left; counted among the refused ones too.
    pub refused_descriptors: Counter,
    /// Connections by client address; counted only where `connections_per_client` is set.
    pub clients: Clients,
    /// What its ring went through; only where [`RingCounters::known`].
    pub ring: RingCounters,
    /// Turns of the sweeper. One that stands still tells that the shard is stuck.
    pub sweeps: Counter,
    /// By flat server index: all servers of all upstreams, in the order of the configuration.
    pub servers: Box<[ServerCounters]>,
    /// By upstream, in the order of the configuration.
    pub upstreams: Box<[UpstreamCounters]>,
}

impl ShardCounters {
    /// The value of [`Self::cpu`] for a thread that may run anywhere.
    pub const NOT_PINNED: u32 = u32::MAX;

    /// Counters at zero for a shard that knows `servers` servers in `upstreams` upstreams.
    pub fn new(servers: usize, upstreams: usize) -> Self {
        Self {
            thread_id: AtomicU32::new(0),
            cpu: AtomicU32::new(Self::NOT_PINNED),
            accepted: Counter::default(),
            connections: Gauge::default(),
            active: Gauge::default(),
            requests: Counter::default(),
            responses: StatusClasses::default(),
            own_answers: OwnAnswers::default(),
            bytes_in: Counter::default(),
            bytes_out: Counter::default(),
            accept_errors: Counter::default(),
            accept_backoffs: Counter::default(),
            short_writes: Counter::default(),
            interrupted_calls: Counter::default(),
            send_shortages: Counter::default(),
            panics: Counter::default(),
            restarts: Counter::default(),
            refused_connections: Counter::default(),
            timeouts: Default::default(),
            retries: Counter::default(),
            stale_upstream: Counter::default(),
            reused_upstream: Counter::default(),
            new_upstream: Counter::default(),
            tunnels: Gauge::default(),
            access_log_dropped: Counter::default(),
            in_flight: Gauge::default(),
            shed: Counter::default(),
            refused_memory: Counter::default(),
            rate_limited: Counter::default(),
            refused_clients: Counter::default(),
            refused_descriptors: Counter::default(),
            clients: Clients::default(),
            ring: RingCounters::default(),
            sweeps: Counter::default(),
            servers: (0..servers).map(|_| ServerCounters::default()).collect(),
            upstreams: (0..upstreams)
                .map(|_| UpstreamCounters::default())
                .collect(),
        }
    }

    /// Counts an answer of our own of so many bytes.
    pub fn own_answer(&self, status: u16, bytes: usize) {
        self.responses.count(status);
        self.own_answers.count(status);
        self.bytes_out.add(bytes as u64);
    }

    /// Says which thread now writes here, and where it is pinned. Called by the shard's thread as it starts.
    pub fn begin(&self, thread_id: u32, cpu: Option<usize>) {
        let cpu = cpu.and_then(|cpu| u32::try_from(cpu).ok());
        self.cpu.store(cpu.unwrap_or(Self::NOT_PINNED), Relaxed);
        self.thread_id.store(thread_id, Relaxed);
    }

    /// Says that the shard has ended or died. Gauges return to zero: what it held open went with it.
    pub fn end(&self) {
        self.thread_id.store(0, Relaxed);
        for gauge in [
            &self.ring.known,
            &self.connections,
            &self.active,
            &self.tunnels,
            &self.in_flight,
        ] {
            gauge.set(0);
        }
        self.clients.clear();
        for server in &self.servers {
            server.active.set(0);
            server.idle.set(0);
            server.open.set(0);
        }
        for upstream in &self.upstreams {
            upstream.queued.set(0);
        }
    }

    /// The counter of one kind of timeout.
    pub fn timeout(&self, kind: TimeoutKind) -> &Counter {
        &self.timeouts[kind as usize]
    }

    /// The CPU that the shard is pinned to.
    pub fn pinned_cpu(&self) -> Option<u32> {
        Some(self.cpu.load(Relaxed)).filter(|cpu| *cpu != Self::NOT_PINNED)
    }

    /// The kernel id of the shard's thread while it runs.
    pub fn running_thread(&self) -> Option<u32> {
        Some(self.thread_id.load(Relaxed)).filter(|id| *id != 0)
    }
}

/// What went through a shard's ring, as its sweeper finds it ten times a second.
#[derive(Debug, Default)]
pub struct RingCounters {
    /// 1 when the figures can be had.
    pub known: Gauge,
    /// Submissions that the kernel took.
    pub submissions: Counter,
    /// Completions that the kernel queued.
    pub completions: Counter,
    /// Turns of the sweeper's in which the submission queue was full, so that it had to be submitted in between.
    pub sq_full: Counter,
    /// Submissions that the kernel dropped as invalid.
    pub sq_dropped: Counter,
    /// Turns of the sweeper's that found completions waiting in the kernel because the completion queue was full.
    pub cq_overflows: Counter,
    /// Completions lost for a full completion queue.
    pub cq_lost: Counter,
}

/// What one shard counts about one server.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct ServerCounters {
    /// Exchanges and tunnels running.
    pub active: Gauge,
    /// Connections in the pool.
    pub idle: Gauge,
    /// Connections open or being opened: idle, in use, tunnels.
    pub open: Gauge,
    /// Attempts: requests sent or tried to send, retries included.
    pub requests: Counter,
    /// Connections established.
    pub connects: Counter,
    /// Final responses received, and 101.
    pub responses: StatusClasses,
    /// Failures by [`FailureKind`]; see [`Self::failure`].
    pub failures: [Counter; FailureKind::COUNT],
    /// Answers to sticky clients by [`StickyKind`]; see [`Self::sticky`].
    pub sticky: [Counter; StickyKind::COUNT],
    /// Attempts that followed one here, by [`RetryKind`]; see [`Self::retry`].
    pub retries: [Counter; RetryKind::COUNT],
    /// Bytes read from the server.
    pub bytes_in: Counter,
    /// Bytes written to the server.
    pub bytes_out: Counter,
    /// Microseconds from the start of the attempt to the response head.
    pub latency: Histogram,
}

impl ServerCounters {
    /// The counter of one kind of failure.
    pub fn failure(&self, kind: FailureKind) -> &Counter {
        &self.failures[kind as usize]
    }

    /// The counter of what became of sticky clients.
    pub fn sticky(&self, kind: StickyKind) -> &Counter {
        &self.sticky[kind as usize]
    }

    /// The counter of one kind of retry.
    pub fn retry(&self, kind: RetryKind) -> &Counter {
        &self.retries[kind as usize]
    }
}

/// What one shard counts about one upstream, beside its servers' figures.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct UpstreamCounters {
    /// Retries that were not made because the budget was used up.
    pub retries_refused: Counter,
    /// Requests that wait for a server.
    pub queued: Gauge,
    /// Requests that have waited, served in the end or not.
    pub queue_waits: Counter,
    /// Microseconds that they waited, all together.
    pub queue_wait_us: Counter,
    /// Requests that waited in vain.
    pub queue_timeouts: Counter,
    /// Requests that found the queue full.
    pub queue_full: Counter,
    /// Clients that left while they waited.
    pub queue_left: Counter,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gauge_never_goes_below_zero() {
        let gauge = Gauge::default();
        gauge.dec();
        assert_eq!(gauge.get(), 0);
        gauge.inc();
        gauge.inc();
        gauge.dec();
        assert_eq!(gauge.get(), 1);
    }

    #[test]
    fn each_status_counts_in_its_class() {
        let cases = [
            (0, 0),
            (99, 0),
            (101, 0),
            (199, 0),
            (200, 1),
            (299, 1),
            (304, 2),
            (404, 3),
            (499, 3),
            (500, 4),
            (599, 4),
            (600, 4),
            (999, 4),
            (u16::MAX, 4),
        ];
        for (status, class) in cases {
            let classes = StatusClasses::default();
            classes.count(status);
            let mut expected = [0; StatusClasses::COUNT];
            expected[class] = 1;
            assert_eq!(classes.get(), expected, "status {status}");
        }
    }

    #[test]
    fn own_answers_keep_unknown_codes_apart() {
        let own = [OwnAnswers::default(), OwnAnswers::default()];
        for (shard, status) in [(0, 502), (1, 502), (0, 418), (1, 400)] {
            own[shard].count(status);
        }
        let counted: Vec<_> = OwnAnswers::sums(own.iter())
            .filter(|(_, count)| *count > 0)
            .collect();
        let expected = [("400", 1), ("502", 2), ("other", 1)];
        assert_eq!(
            counted,
            expected.map(|(code, count)| (code.to_owned(), count))
        );
    }

    #[test]
    fn kinds_index_their_own_counter() {
        let shard = ShardCounters::new(1, 1);
        for (index, kind) in TimeoutKind::ALL.into_iter().enumerate() {
            shard.timeout(kind).add(index as u64 + 1);
        }
        for (index, kind) in FailureKind::ALL.into_iter().enumerate() {
            shard.servers[0].failure(kind).add(index as u64 + 1);
        }
        assert_eq!(
            shard.timeouts.each_ref().map(Counter::get),
            [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
        );
        assert_eq!(
            shard.servers[0].failures.each_ref().map(Counter::get),
            [1, 2, 3, 4, 5, 6, 7, 8, 9]
        );
    }

    #[test]
    fn shards_and_servers_share_no_cache_line() {
        assert_eq!(align_of::<ShardCounters>(), 128);
        assert_eq!(align_of::<ServerCounters>(), 128);
    }

    #[test]
    fn a_shard_that_ended_holds_nothing_open_and_keeps_its_counts() {
        let shard = ShardCounters::new(1, 1);
        shard.begin(7, Some(3));
        shard.connections.inc();
        shard.accepted.inc();
        shard.servers[0].idle.inc();
        shard.end();
        assert_eq!(shard.running_thread(), None);
        assert_eq!(
            (
                shard.connections.get(),
                shard.servers[0].idle.get(),
                shard.accepted.get()
            ),
            (0, 0, 1)
        );
        shard.begin(8, None);
        assert_eq!(
            (shard.running_thread(), shard.pinned_cpu()),
            (Some(8), None)
        );
    }
}
