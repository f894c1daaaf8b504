//! The running proxy: starts shards and the status listener, and ends them when a signal asks for it.

mod health;

use std::cell::Cell;
use std::ffi::c_int;
use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;

use self::health::Health;
use crate::admin::{Admin, Orders};
use crate::config::keys::CONNECTIONS_PER_SHARD_DEFAULT;
use crate::config::{Config, Listen, Shards};
use crate::net::listener;
use crate::net::privileges::{self, Identity};
use crate::net::ring::{self, Driver};
use crate::net::{affinity, descriptors, heap, option, process, source};
use crate::shard::{self, Common, Seat};
use crate::telemetry::access_log::{self, AccessLog};
use crate::telemetry::view::{IoReport, View};
use crate::upstream::resolve;

/// What a service heeds. Those by which other servers read their configuration again or are replaced must not end it.
pub const SERVICE_SIGNALS: [c_int; 5] = [SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2];
/// What a program in a terminal heeds. SIGHUP ends it with the terminal.
pub const TERMINAL_SIGNALS: [c_int; 2] = [SIGTERM, SIGINT];
/// How long the last lines of the access log may take.
const LOG_PATIENCE: Duration = Duration::from_secs(2);

/// A sentence that says why the proxy cannot start, and what to do.
#[derive(Debug)]
pub struct StartError(String);

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StartError {}

fn failed(what: impl std::fmt::Display, error: impl std::fmt::Display) -> StartError {
    StartError(format!("{what}: {error}"))
}

/// What the waiting thread is told.
enum Event {
    Signal,
    /// SIGUSR1.
    Reopen,
    /// A signal that has no meaning yet.
    Idle(&'static str),
    ShardEnded,
}

fn at_once() -> ExitCode {
    tracing::warn!("second signal; ending at once");
    ExitCode::FAILURE
}

/// A proxy that runs.
pub struct Server {
    common: Arc<Common>,
    view: Arc<View>,
    listening: Vec<SocketAddr>,
    admin: Option<Admin>,
    health: Option<Health>,
    identity: Identity,
    events: Receiver<Event>,
    shards: usize,
}

impl Server {
    /// Opens everything and starts all threads. When it fails nothing is left running but threads that end with the process.
    /// `signals` are those that it heeds.
    pub fn start(config: Config, signals: &[c_int]) -> Result<Self, StartError> {
        // Before the ports are open: who can connect may expect that a signal is heeded.
        let signals =
            Signals::new(signals).map_err(|error| failed("signals cannot be watched", error))?;
        let seats = seats(&config)?;
        raise_descriptor_limit(&config, seats.len());
        process::lift_locked_memory_limit();
        process::disable_huge_pages();
        let Opened {
            addresses,
            mut listeners,
            admin,
            access_log,
        } = open(&config, seats.len())?;
        // Before there are threads: they take their privileges from the one that starts them.
        let identity = privileges::renounce(config.account.as_ref(), keeps_low_ports(&config))
            .map_err(StartError)?;
        let (events, received) = mpsc::channel();
        let serving = Arc::new(AtomicBool::new(false));
        watch_signals(signals, events.clone(), Arc::clone(&serving))?;
        try_options(&config)?;
        let driver = ring::choose(&config.io, seats.len())
            .map_err(|reason| failed("io = \"uring\" cannot be had", reason))?;
        let places = resolve::start(&config)
            .map_err(|error| failed("the resolver cannot be started", error))?;
        let mut health = health::start(&config, &places, seats.len())
            .map_err(|error| failed("the health monitor cannot be started", error))?;
        let access_log = access_log
            .map(AccessLog::start)
            .transpose()
            .map_err(|error| failed("access log", error))?;
        let counters = shard::counters(&config, seats.len());
        let view = Arc::new(View::new(&config, Arc::clone(&counters), report(&driver)));
        let admin = admin
            .map(|admin| {
                let overview = health.as_ref().map(|health| Arc::clone(&health.overview));
                let rule = match &config.admin {
                    Some(admin) if admin.orders => Orders::new(admin.token.clone()),
                    _ => Orders::Refused,
                };
                Admin::start(admin, rule, Arc::clone(&view), overview)
            })
            .transpose();
        let admin =
            admin.map_err(|error| failed("the status listener cannot be started", error))?;
        let (buckets, placement) = shard::client_tables(&config);
        let config = Arc::new(config);
        let listen_again = {
            let (config, addresses) = (Arc::clone(&config), addresses.clone());
            Box::new(move || open_all(&config, &addresses))
        };
        let common = Arc::new(Common {
            config,
            driver,
            places,
            counters,
            health: health
                .as_mut()
                .map_or_else(Vec::new, |health| std::mem::take(&mut health.sources)),
            access_log,
            buckets,
            placement,
            memory: view.memory.clone(),
            draining: AtomicBool::new(false),
            listen: listen_again,
        });
        let later = admin.as_ref().map_or(0, Admin::bytes_later);
        check_ceiling(&common, later)?;
        serving.store(true, Ordering::Relaxed);
        for seat in &seats {
            let ended = events.clone();
            let own = listeners.remove(0);
            // The receiver is gone only when the process is about to be.
            shard::spawn(Arc::clone(&common), *seat, own, move || {
                drop(ended.send(Event::ShardEnded));
            })
            .map_err(|error| failed("a shard's thread cannot be started", error))?;
        }
        let server = Self {
            common,
            view,
            listening: addresses,
            admin,
            health,
            identity,
            events: received,
            shards: seats.len(),
        };
        server.announce(&seats);
        Ok(server)
    }

    /// Where clients connect.
    pub fn listening(&self) -> &[SocketAddr] {
        &self.listening
    }

    /// Where the status listener is.
    pub fn admin(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(Admin::address)
    }

    /// How the shards wait for the kernel, for people.
    pub fn io_mode(&self) -> String {
        let IoReport {
            mode,
            flags,
            reason,
            ..
        } = &self.view.io;
        let flags = if flags.is_empty() {
            String::new()
        } else {
            format!(" ({flags})")
        };
        let reason = reason
            .as_ref()
            .map_or_else(String::new, |reason| format!(": {reason}"));
        format!("{mode}{flags}{reason}")
    }

    /// Waits for a signal, drains, and ends. A second signal ends at once. The exit code is 0 after a drain, complete or cut by
    /// `shutdown_timeout`, and 1 after a second signal.
    pub fn wait(self) -> ExitCode {
        let mut deadline: Option<Instant> = None;
        let mut running = self.shards;
        while running > 0 {
            match self.next_event(deadline) {
                Ok(Event::ShardEnded) => running -= 1,
                Ok(Event::Reopen) => {
                    if let Some(log) = &self.common.access_log {
                        log.reopen();
                    } else {
                        tracing::info!("SIGUSR1, but there is no access log to open again");
                    }
                }
                Ok(Event::Idle(signal)) => tracing::warn!(
                    "{signal}, but there is no reload yet; restart to use a changed configuration"
                ),
                Ok(Event::Signal) if deadline.is_none() => deadline = Some(self.drain()),
                Ok(Event::Signal) => return at_once(),
                Err(RecvTimeoutError::Timeout) => {
                    tracing::warn!("shutdown_timeout is over; ending exchanges that still run");
                    return self.end();
                }
                Err(RecvTimeoutError::Disconnected) => return self.end(),
            }
        }
        tracing::info!("drained; bye");
        self.end()
    }

    fn next_event(&self, deadline: Option<Instant>) -> Result<Event, RecvTimeoutError> {
        // ThreadSanitizer keeps a signal back until its thread calls the C library again, which a wait on a futex never does.
        while cfg!(sanitizer) && deadline.is_none_or(|deadline| Instant::now() < deadline) {
            match self.events.recv_timeout(Duration::from_millis(20)) {
                Err(RecvTimeoutError::Timeout) => {}
                event => return event,
            }
        }
        match deadline {
            None => self
                .events
                .recv()
                .map_err(|_| RecvTimeoutError::Disconnected),
            Some(deadline) => self
                .events
                .recv_timeout(deadline.saturating_duration_since(Instant::now())),
        }
    }

    fn drain(&self) -> Instant {
        let patience = self.common.config.shutdown_timeout;
        tracing::info!(?patience, "signal; accepting no more, finishing what runs");
        self.view.draining.store(true, Ordering::Relaxed);
        self.common.draining.store(true, Ordering::Relaxed);
        Instant::now() + patience
    }

    /// Writes what the access log still holds, unless another signal comes. Shards that still run keep their lines since the last tick.
    fn end(self) -> ExitCode {
        let Self {
            common,
            admin,
            health,
            events,
            ..
        } = self;
        drop((admin, health));
        let hurried = Cell::new(false);
        if let Some(log) = &common.access_log {
            log.finish(LOG_PATIENCE, || {
                hurried.set(
                    events
                        .try_iter()
                        .any(|event| matches!(event, Event::Signal)),
                );
                hurried.get()
            });
        }
        if hurried.get() {
            return at_once();
        }
        ExitCode::SUCCESS
    }

    fn announce_identity(&self) {
        let Identity {
            uid,
            gid,
            binds_low_ports,
        } = self.identity;
        if uid == 0 {
            tracing::warn!(
                target: "ringlane::privileges", // which the demo leaves out
                "runs as root; name an unprivileged user with `user`, or start it as one"
            );
            return;
        }
        let account = self.common.config.account.as_ref();
        let user = account.map(|account| account.user.as_str());
        let capabilities = if binds_low_ports {
            "CAP_NET_BIND_SERVICE"
        } else {
            "none"
        };
        tracing::info!(user, uid, gid, capabilities, "runs unprivileged");
    }

    fn announce(&self, seats: &[Seat]) {
        let cpus: Vec<_> = seats.iter().filter_map(|seat| seat.cpu).collect();
        self.announce_identity();
        if let Driver::Epoll {
            reason: Some(reason),
        } = &self.common.driver
        {
            tracing::warn!(
                reason,
                "io_uring cannot be had; the shards run on epoll, which takes more CPU for each request"
            );
        }
        tracing::info!(shards = seats.len(), ?cpus, io = self.io_mode(), "started");
        for address in &self.listening {
            tracing::info!(%address, "listening");
        }
        if let Some(address) = self.admin() {
            tracing::info!(%address, "admin");
        }
    }
}

/// What takes privileges to open.
struct Opened {
    addresses: Vec<SocketAddr>,
    /// Of each shard.
    listeners: Vec<Vec<TcpListener>>,
    admin: Option<TcpListener>,
    access_log: Option<access_log::Opened>,
}

fn open(config: &Config, shards: usize) -> Result<Opened, StartError> {
    let (addresses, listeners) = listen(config, shards)?;
    let admin = config.admin.as_ref().map(Admin::bind).transpose();
    let access_log = config.access_log.as_ref().map(access_log::Opened::new);
    Ok(Opened {
        addresses,
        listeners,
        admin: admin.map_err(|error| failed("the status listener cannot be opened", error))?,
        access_log: access_log
            .transpose()
            .map_err(|error| failed("access log", error))?,
    })
}

/// Refuses a ceiling of memory that would leave none for clients. All that shards share has been allocated, but for what is allocated
/// `later` in any case.
fn check_ceiling(common: &Common, later: u64) -> Result<(), StartError> {
    let Some(memory) = &common.memory else {
        return Ok(());
    };
    let shards = shard::bytes(common) * common.counters.len() as u64;
    let needed = heap::held() + shards + later;
    if memory.is_near(needed) {
        return Err(StartError(format!(
            "limits.memory is {} bytes, and the process holds about {needed} before it has a client; it must be well above that, or \
             shards, rate_limit.clients, access_log.buffer and the like lower",
            memory.ceiling()
        )));
    }
    Ok(())
}

/// Finds out now which options are refused to the user that runs, rather than at each connection to a server, and when a shard that died
/// opens its listeners again.
fn try_options(config: &Config) -> Result<(), StartError> {
    for Listen { address, tcp, .. } in &config.listens {
        option::try_tcp(tcp).map_err(|error| failed(format!("listener {address}"), error))?;
    }
    config.upstreams.iter().try_for_each(|upstream| {
        let name = &upstream.name;
        if upstream.is_local() {
            return Ok(());
        }
        option::try_tcp(&upstream.tcp).map_err(|error| failed(format!("upstream {name}"), error))?;
        upstream.sources.iter().try_for_each(|address| {
            source::try_source(*address).map_err(|error| {
                StartError(format!("upstream {name}: source {address} cannot be bound: {error}; it must be an address of this machine (ip addr)"))
            })
        })
    })
}

/// How many shards run when the configuration does not say.
pub fn default_shards() -> usize {
    affinity::default_cpus().len()
}

/// CPUs that are named and that the process may not use: with any, it does not start.
pub fn unusable_cpus(named: &[usize]) -> Vec<usize> {
    let usable = affinity::usable_cpus();
    let unusable = |cpu: &usize| !usable.contains(cpu);
    named.iter().copied().filter(unusable).collect()
}

/// Whether so many shards can have a CPU each. Pinning two to one would be worse than letting the kernel place them.
pub fn can_pin(shards: usize) -> bool {
    shards <= affinity::usable_cpus().len()
}

/// Whether a process that has the right to bind low ports keeps it: a shard that is started again opens its listeners again.
pub fn keeps_low_ports(config: &Config) -> bool {
    let ports = config.listens.iter().map(|listen| listen.address.port());
    // For port 0 the kernel chooses none of them.
    privileges::are_any_low(ports.filter(|port| *port != 0))
}

/// Which shards run where.
fn seats(config: &Config) -> Result<Vec<Seat>, StartError> {
    let usable = affinity::usable_cpus();
    let cpus: Vec<Option<usize>> = match &config.shards {
        Shards::Cpus(cpus) => {
            if let Some(cpu) = unusable_cpus(cpus).first() {
                return Err(StartError(format!(
                    "cpus: the process may not use CPU {cpu}; it may use {usable:?} (see taskset -p, cpuset)"
                )));
            }
            cpus.iter().copied().map(Some).collect()
        }
        Shards::Count(count) => (0..*count)
            .map(|shard| shard.checked_rem(usable.len()).map(|index| usable[index]))
            .collect(),
        Shards::Auto => affinity::default_cpus(),
    };
    let pin = config.pin && can_pin(cpus.len());
    Ok(cpus
        .into_iter()
        .enumerate()
        .map(|(id, cpu)| Seat {
            id,
            cpu: cpu.filter(|_| pin),
        })
        .collect())
}

/// Opens the listeners of all shards. Port 0 is chosen by the kernel for the first shard; the others take the same.
fn listen(
    config: &Config,
    shards: usize,
) -> Result<(Vec<SocketAddr>, Vec<Vec<TcpListener>>), StartError> {
    let somaxconn = std::fs::read_to_string("/proc/sys/net/core/somaxconn")
        .ok()
        .and_then(|text| text.trim().parse::<u32>().ok());
    for listen in &config.listens {
        if let Some(somaxconn) = somaxconn.filter(|max| *max < listen.backlog) {
            tracing::warn!(address = %listen.address, backlog = listen.backlog, somaxconn, "net.core.somaxconn cuts the backlog");
        }
        if listener::is_shared(listen.address) {
            tracing::warn!(address = %listen.address, "another socket is bound there, or to an overlapping address: if a process listens on it, it may get connections that are meant for this one");
        }
    }
    let wanted: Vec<SocketAddr> = config.listens.iter().map(|listen| listen.address).collect();
    let first = open_all(config, &wanted).map_err(StartError)?;
    let addresses = first
        .iter()
        .map(TcpListener::local_addr)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| failed("listen", error))?;
    let mut listeners = vec![first];
    for _ in 1..shards {
        listeners.push(open_all(config, &addresses).map_err(StartError)?);
    }
    Ok((addresses, listeners))
}

/// One shard's listening sockets.
fn open_all(config: &Config, addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, String> {
    let open = |(listen, address): (_, &SocketAddr)| {
        listener::open(listen, *address, config.account.as_ref())
            .map_err(|error| format!("listen on {address}: {error}"))
    };
    config.listens.iter().zip(addresses).map(open).collect()
}

/// Client connections for which there must be descriptors where the configuration names no number.
const CONNECTIONS_EXPECTED: u64 = 1024;
/// Descriptors that a shard needs beside connections: ring, timer, listeners, log.
const DESCRIPTORS_OF_A_SHARD: u64 = 16;

/// Raises the limit, and warns when not even the configured connections fit in it.
fn raise_descriptor_limit(config: &Config, shards: usize) {
    let wanted = descriptors_wanted(config, shards);
    match descriptors::raise_limit() {
        Ok(limit) if limit < wanted => {
            tracing::warn!(
                limit,
                wanted,
                "open files are limited below what the configured connections need (ulimit -n, LimitNOFILE)"
            );
        }
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "the limit of open files cannot be raised"),
    }
}

/// Each connection takes a descriptor on both sides. The default of `connections_per_shard` is a bound, not a plan.
fn descriptors_wanted(config: &Config, shards: usize) -> u64 {
    let limits = &config.limits;
    let per_shard = limits.connections_per_shard as u64;
    let shards = shards as u64;
    let connections = match limits.connections {
        Some(connections) => connections as u64,
        None if per_shard == CONNECTIONS_PER_SHARD_DEFAULT => CONNECTIONS_EXPECTED,
        None => per_shard.saturating_mul(shards),
    };
    let connections = connections.min(per_shard.saturating_mul(shards));
    connections.saturating_mul(2) + shards * DESCRIPTORS_OF_A_SHARD
}

fn report(driver: &Driver) -> IoReport {
    match driver {
        Driver::Uring {
            flags,
            entries,
            note,
        } => IoReport {
            mode: "io_uring".to_owned(),
            flags: flags.as_str().to_owned(),
            reason: note.clone(),
            // The kernel rounds up (io_uring_setup(2)).
            ring_entries: entries.next_power_of_two(),
        },
        Driver::Epoll { reason } => IoReport {
            mode: "epoll".to_owned(),
            flags: String::new(),
            reason: reason.clone(),
            ring_entries: 0,
        },
    }
}

fn watch_signals(
    mut signals: Signals,
    events: mpsc::Sender<Event>,
    serving: Arc<AtomicBool>,
) -> Result<(), StartError> {
    let watch = move || {
        for signal in signals.forever() {
            let event = match signal {
                SIGHUP => Event::Idle("SIGHUP"),
                SIGUSR1 => Event::Reopen,
                SIGUSR2 => Event::Idle("SIGUSR2"),
                _ if serving.load(Ordering::Relaxed) => Event::Signal,
                // Whatever the start waits for, such as a resolver, is not wanted any more.
                _ => {
                    tracing::info!("signal before the start was complete; bye");
                    std::process::exit(0);
                }
            };
            if events.send(event).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(watch)
        .map(drop)
        .map_err(|error| failed("signals cannot be watched", error))
}
