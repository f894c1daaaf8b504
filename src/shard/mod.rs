//! One thread per core: its runtime, its listeners, its sweeper.

pub mod ring_watch;
pub mod sweeper;

use std::cell::RefCell;
use std::io;
use std::net::TcpListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::Duration;

use monoio::{IoUringDriver, LegacyDriver, Runtime, RuntimeBuilder};

use crate::config::Config;
use crate::downstream::accept::{self, Doors};
use crate::exchange::lane::{Lane, Parts};
use crate::exchange::rate::Buckets;
use crate::net::arrival::Arrivals;
use crate::net::fence::{self, End};
use crate::net::listener::{self, Listener, Waiting};
use crate::net::ring::header::{self, Header};
use crate::net::ring::{self, Driver};
use crate::net::{affinity, heap, process};
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::clients::{Clients, Placement};
use crate::telemetry::counters::{AllCounters, ShardCounters};
use crate::telemetry::memory::Memory;
use crate::upstream::place::Places;
use crate::upstream::watch::Source;

use self::ring_watch::RingWatch;

/// Pause before a shard that died is started again, so that one which dies at once does not spin.
const RESTART_PAUSE: Duration = Duration::from_millis(100);

/// What a shard allocates beside its state when it starts: the runtime and its first tasks.
const RUNTIME_BYTES: u64 = 64 * 1024;

/// What all shards are started with.
pub struct Common {
    /// The checked configuration.
    pub config: Arc<Config>,
    /// How shards wait for the kernel.
    pub driver: Driver,
    /// Where the servers are.
    pub places: Places,
    /// The counters of all shards, by shard number.
    pub counters: AllCounters,
    /// Where each shard learns about the servers' health, by shard number; empty when nobody checks it.
    pub health: Vec<Source>,
    /// The request rates of all clients, when they are limited.
    pub buckets: Option<Arc<Buckets>>,
    /// The ceiling of the heap, where it has one.
    pub memory: Option<Arc<Memory>>,
    /// Where client addresses are counted, when their connections are limited.
    pub placement: Option<Placement>,
    /// The access log, when it is on.
    pub access_log: Option<AccessLog>,
    /// Set when the process drains.
    pub draining: AtomicBool,
    /// Opens a shard's listening sockets anew, for when it is started again.
    pub listen: Box<dyn Fn() -> Result<Vec<TcpListener>, String> + Send + Sync>,
}

/// One shard's place.
#[derive(Clone, Copy, Debug)]
pub struct Seat {
    /// The shard's number.
    pub id: usize,
    /// The CPU that its thread is pinned to.
    pub cpu: Option<usize>,
}

impl Seat {
    /// Pins the calling thread. Without a CPU when the kernel refuses, so that nobody is told of one.
    fn pinned(self) -> Self {
        let cpu = self.cpu.filter(|&cpu| {
            let pinned = affinity::pin_to(cpu);
            if !pinned {
                tracing::warn!(shard = self.id, cpu, "cannot be pinned to its CPU");
            }
            pinned
        });
        Self { cpu, ..self }
    }
}

/// Starts a shard's thread. It ends when the process drains and the shard's last connection has ended; then it calls `ended`.
pub fn spawn(
    common: Arc<Common>,
    seat: Seat,
    listeners: Vec<TcpListener>,
    ended: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name(format!("shard-{}", seat.id))
        .spawn(move || {
            heap::claim();
            let seat = seat.pinned();
            supervise(&common, seat, listeners);
            common.counters[seat.id].end();
            ended();
        })
}

/// Runs the shard, and starts it again each time that it dies.
fn supervise(common: &Arc<Common>, seat: Seat, mut listeners: Vec<TcpListener>) {
    let counters = &common.counters[seat.id];
    let mut waiting = Vec::new();
    while let Err(why) = run(common, seat, listeners, &mut waiting) {
        counters.end();
        tracing::error!(
            shard = seat.id,
            error = why,
            "shard died; starting it again"
        );
        std::thread::sleep(RESTART_PAUSE);
        let Some(reopened) = listen_again(common, seat) else {
            return;
        };
        listeners = reopened;
        counters.restarts.inc();
    }
}

/// Opens the listeners of a shard that died, trying until it succeeds; `None` when the process drains before.
fn listen_again(common: &Common, seat: Seat) -> Option<Vec<TcpListener>> {
    let mut told = None;
    loop {
        let why = match (common.listen)() {
            Ok(listeners) => return Some(listeners),
            Err(why) => Some(why),
        };
        if common.draining.load(Relaxed) {
            return None;
        }
        if why != told {
            tracing::error!(
                shard = seat.id,
                error = why,
                "shard cannot listen; trying on"
            );
            told = why;
        }
        std::thread::sleep(RESTART_PAUSE);
    }
}

fn lane(common: &Common, shard: usize) -> Lane {
    let access_log = common.access_log.as_ref();
    let parts = Parts {
        places: &common.places,
        counters: &common.counters,
        health: common.health.get(shard),
        buckets: common.buckets.as_ref(),
        memory: common.memory.as_ref(),
        placement: common.placement.as_ref(),
        access_log: access_log.map(|log| log.shard(Arc::clone(&common.counters[shard]))),
        on_ring: matches!(common.driver, Driver::Uring { .. }),
    };
    Lane::new(Arc::clone(&common.config), shard, parts)
}

/// Bytes of the heap that each shard holds before it has a client. Most of them depend on the configuration, such as the tables of the
/// hash policies and the buffers of the access log: the shard's state is made once to see, and dropped.
pub fn bytes(common: &Common) -> u64 {
    let (_, bytes) = heap::made(|| lane(common, 0));
    bytes + RUNTIME_BYTES
}

/// Runs the shard until it has drained, beginning with the clients of `waiting`. An error says why it died; then `waiting` has the
/// clients that it had not accepted.
fn run(
    common: &Arc<Common>,
    seat: Seat,
    listeners: Vec<TcpListener>,
    waiting: &mut Vec<Waiting>,
) -> Result<(), String> {
    let counters = &common.counters[seat.id];
    counters.begin(process::thread_id(), seat.cpu);
    let lane = Rc::new(lane(common, seat.id));
    let doors = RefCell::default();
    let ran = match &common.driver {
        Driver::Uring { flags, entries, .. } => {
            let build = || {
                RuntimeBuilder::<IoUringDriver>::new()
                    .uring_builder(flags.builder(*entries))
                    .with_entries(*entries)
                    .build()
            };
            // The trial's rings may still count as locked.
            let (runtime, header) = header::observed(|| ring::patiently(build));
            let serving = serve(common, &lane, listeners, &doors, waiting, header);
            drive(runtime, serving)
        }
        Driver::Epoll { .. } => drive(
            RuntimeBuilder::<LegacyDriver>::new().build(),
            serve(common, &lane, listeners, &doors, waiting, None),
        ),
    };
    if ran.is_err() {
        // The dead runtime's tasks never run again. Their peers must not wait for them, nor new clients for these listeners.
        // The lane is leaked with its pools: they own idle connections that are closed here like those in use, and must not close them too.
        lane.descriptors().for_each(listener::abandon);
        // Only now, for where descriptors are short these clients need what has just been given back.
        waiting.extend(doors.take().salvage());
        if let Some(log) = lane.access_log() {
            log.end();
        }
        std::mem::forget(lane);
    }
    ran
}

/// Drives a shard's main task to its end on a new runtime.
fn drive<D: monoio::Driver>(
    runtime: io::Result<Runtime<D>>,
    serving: impl Future<Output = io::Result<()>>,
) -> Result<(), String> {
    let mut runtime = runtime.map_err(|error| format!("the runtime cannot be built: {error}"))?;
    let ended = catch_unwind(AssertUnwindSafe(|| runtime.block_on(serving)));
    // Dropping a runtime frees memory that the kernel may still write accepted addresses to.
    std::mem::forget(runtime);
    match ended {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(panic) => Err(panic_text(&*panic)),
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "panic".to_owned())
}

/// A shard's main task: starts accepting, then sweeps until the shard has drained. `doors` has the listeners for as long as they are open.
async fn serve(
    common: &Arc<Common>,
    lane: &Rc<Lane>,
    listeners: Vec<TcpListener>,
    doors: &RefCell<Doors>,
    waiting: &mut Vec<Waiting>,
    header: Option<Header>,
) -> io::Result<()> {
    let ring = header.map(|header| RingWatch::new(header, &lane.counters));
    if lane.on_ring {
        await_arrivals(lane);
    }
    accept::resume(lane, std::mem::take(waiting), &common.counters);
    let nonblocking = matches!(common.driver, Driver::Epoll { .. });
    // Of several tasks that wait for one descriptor, the epoll driver wakes the last alone.
    let tasks = if nonblocking {
        1
    } else {
        common.config.io.accepts
    };
    for listener in listeners {
        let listener = Rc::new(Listener::new(listener, nonblocking)?);
        doors.borrow_mut().add(Rc::clone(&listener));
        for _ in 0..tasks {
            let task = accept::run(
                Rc::clone(lane),
                Rc::clone(&listener),
                Arc::clone(&common.counters),
            );
            monoio::spawn(fence::fenced(task, |end| {
                if end == End::Panicked {
                    tracing::error!("an accept task panicked");
                }
            }));
        }
    }
    let close = |ticks| doors.borrow_mut().close(ticks, lane, &common.counters);
    sweeper::run(lane, ring.as_ref(), &common.draining, close).await
}

/// Has the clients waited for together. Without that each is waited for on its own.
fn await_arrivals(lane: &Lane) {
    match Arrivals::new(&lane.deadlines) {
        Ok(arrivals) => {
            let arrivals = lane.arrivals.get_or_init(|| Rc::new(arrivals));
            monoio::spawn(Rc::clone(arrivals).run());
        }
        Err(error) => {
            tracing::warn!(%error, "no epoll descriptor; clients are waited for one by one");
        }
    }
}

/// The shards' counters, by shard number.
pub fn counters(config: &Config, shards: usize) -> AllCounters {
    let upstreams = config.upstreams.iter();
    let servers = upstreams.map(|upstream| upstream.servers.len()).sum();
    let counts_clients = config.limits.connections_per_client.is_some();
    let counters = |_| {
        Arc::new(ShardCounters {
            clients: counts_clients.then(Clients::new).unwrap_or_default(),
            ..ShardCounters::new(servers, config.upstreams.len())
        })
    };
    (0..shards).map(counters).collect()
}

/// What shards share to limit each client address: its rate, and where its connections are counted.
pub fn client_tables(config: &Config) -> (Option<Arc<Buckets>>, Option<Placement>) {
    let v6_prefix = config.limits.client_v6_prefix;
    let rate_limit = config.rate_limit.as_ref();
    let per_client = config.limits.connections_per_client;
    (
        rate_limit.map(|limit| Arc::new(Buckets::new(limit, v6_prefix))),
        per_client.map(|_| Placement::new(v6_prefix)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_is_not_pinned_names_no_cpu() {
        let seat = |cpu| Seat { id: 0, cpu };
        // The last that a mask has room for: no machine of ours has it.
        assert_eq!(seat(Some(1023)).pinned().cpu, None);
        let usable = affinity::usable_cpus().first().copied();
        assert_eq!(seat(usable).pinned().cpu, usable);
    }
}
