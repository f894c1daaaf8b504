//! The checked configuration: what the rest of the program runs from.
//!
//! A [`Config`] that exists is valid. On the way from TOML text, [`keys`] lists every key with its range and default, `reader` reads
//! a table by that list, `check` and the files for listeners, upstreams and routes build the types here, and what is wrong becomes a
//! [`Complaint`] with line and help. All that can be found wrong is reported at once, which is why the text is not read by serde:
//! that ends at the first mistake.

mod account;
mod address;
mod check;
mod complaint;
mod health;
pub mod keys;
mod listen;
mod policy;
mod reader;
mod route;
mod secrecy;
mod source;
mod statuses;
mod sticky;
#[cfg(test)]
mod tests;
mod token;
mod units;
mod upstream;

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

pub use check::{Reading, environment_filter};
pub use complaint::{Complaint, Place, Severity};
pub use health::{Check, CheckKind, HttpCheck, Passive};
pub use statuses::Statuses;
pub use sticky::{Key, SameSite, Sticky};
pub use token::{Token, read_token};
pub use units::{Size, Span};

/// Everything that one Ringlane process runs from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// How many shards, and on which CPUs.
    pub shards: Shards,
    /// Pin each shard's thread to its CPU.
    pub pin: bool,
    /// How the shards talk to the kernel.
    pub io: Io,
    /// How long running exchanges may go on after SIGTERM or SIGINT.
    pub shutdown_timeout: Duration,
    /// Whom the process becomes when all that needs privileges is open; `None` is who starts it.
    pub account: Option<Account>,
    /// The event log.
    pub log: Log,
    /// The access log; `None` when off.
    pub access_log: Option<AccessLog>,
    /// The status listener; `None` when off.
    pub admin: Option<Admin>,
    /// Timeouts of the client's side.
    pub timeouts: Timeouts,
    /// Limits of the client's side.
    pub limits: Limits,
    /// The request rate of each client address; `None` when off.
    pub rate_limit: Option<RateLimit>,
    /// Which fields tell the upstream about the client.
    pub forward: Forward,
    /// Where clients connect; at least one.
    pub listens: Vec<Listen>,
    /// Groups of servers; at least one.
    pub upstreams: Vec<Upstream>,
    /// Which request goes to which upstream; at least one.
    pub routes: Vec<Route>,
}

impl Config {
    /// Reads and checks a configuration's text; `file` is its name in complaints. The errors are all that could be found wrong; [`Reading`] has
    /// warnings as well.
    pub fn parse(text: &str, file: &str) -> Result<Self, Vec<Complaint>> {
        let reading = Reading::parse(text, file);
        reading.config.ok_or(reading.complaints)
    }
}

/// How many shards run, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shards {
    /// One for each CPU the process may use (affinity mask and cgroup CPU quota respected).
    Auto,
    /// This many, on the first CPUs the process may use.
    Count(usize),
    /// One on each of these CPUs.
    Cpus(Vec<usize>),
}

/// How the shards talk to the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Io {
    /// `io_uring`, epoll, or the first that works.
    pub mode: IoMode,
    /// Submission queue entries of each shard's ring (256 to 32768).
    pub ring_entries: u32,
    /// Accepts outstanding per shard and listener (1 to 64).
    pub accepts: usize,
}

/// The `io` setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoMode {
    /// `io_uring` when the kernel allows it, else epoll, said in the log and on the status page.
    Auto,
    /// `io_uring` or refuse to start with the cause.
    Uring,
    /// epoll.
    Epoll,
}

/// The user and the groups that the process runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The user's name, or its number where that is all there is.
    pub user: String,
    /// The user's number; never 0.
    pub uid: u32,
    /// The number of the main group.
    pub gid: u32,
    /// The numbers of all groups, in ascending order.
    pub groups: Vec<u32>,
}

/// Form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The event log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// A `tracing` filter such as `info` or `ringlane=debug`; the environment variable `RUST_LOG` wins.
    pub level: String,
    /// Form of a line.
    pub format: LogFormat,
}

/// Form of an access log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessFormat {
    /// The "combined" format of Apache and nginx.
    Combined,
    /// One JSON object a line.
    Json,
}

/// The access log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLog {
    /// The file to append to; `None` is standard output.
    pub path: Option<PathBuf>,
    /// Form of a line.
    pub format: AccessFormat,
    /// Bytes that a shard holds before lines are dropped (and counted).
    pub buffer_bytes: usize,
}

/// The status listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Where it listens.
    pub address: SocketAddr,
    /// Operators may give orders. Beyond loopback that takes a token.
    pub orders: bool,
    /// What orders must carry.
    pub token: Option<Token>,
}

/// Timeouts of the client's side. All are coarse: a sweep a few times a second finds what is overdue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// From the first byte of a request head (or from accept, for the first request) to its last.
    pub client_header: Duration,
    /// Between two reads of a request body.
    pub client_body: Duration,
    /// Between two requests on a connection.
    pub keep_alive: Duration,
    /// Between two writes that make progress, on either side.
    pub write: Duration,
    /// Without a byte in either direction, in a tunnel.
    pub tunnel_idle: Duration,
    /// Bytes a second that a client must send of a request body; `None` is any.
    pub client_body_min_rate: Option<u64>,
    /// Bytes a second that a client must take of a response; `None` is any.
    pub response_min_rate: Option<u64>,
    /// How long a client may stop, or fall behind by as much, before it is below its rate.
    pub min_rate_grace: Duration,
    /// How often a client that waits for its answer is looked at; `None` never.
    pub client_gone_check: Option<Duration>,
}

/// What becomes of request fields whose names have underscores. Those that would pass for a field that the proxy itself acts on never
/// go on, whatever this says. Trailer fields of requests go on only with [`Underscores::Pass`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Underscores {
    /// They go on (RFC 9110 section 5.1).
    Pass,
    /// They stay behind.
    Drop,
    /// The request gets 400.
    Refuse,
}

/// Limits of the client's side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a request or response head, request line included (1 KiB to 1 MiB).
    pub head_bytes: usize,
    /// Fields in a head, and in a trailer section.
    pub header_count: usize,
    /// Bytes of a request target.
    pub uri_bytes: usize,
    /// What becomes of request fields whose names have underscores.
    pub underscores: Underscores,
    /// Bytes of a request body; `None` is no limit.
    pub body_bytes: Option<u64>,
    /// Requests on one client connection; `None` is no limit.
    pub requests_per_connection: Option<u64>,
    /// Client connections of one shard.
    pub connections_per_shard: usize,
    /// Client connections in all; `None` is no limit beyond the shards'.
    pub connections: Option<usize>,
    /// Client connections of one client address; `None` is no limit.
    pub connections_per_client: Option<usize>,
    /// Leading bits of an IPv6 address that make a client, here and for [`RateLimit`].
    pub client_v6_prefix: u8,
    /// Requests in flight in all, tunnels among them; `None` is no limit.
    pub max_in_flight: Option<usize>,
    /// Bytes that the process's heap may hold; `None` is no limit.
    pub memory_bytes: Option<u64>,
}

/// The request rate of each client address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Requests in each `period`.
    pub requests: u64,
    /// In which `requests` tokens come back.
    pub period: Duration,
    /// Tokens of a full bucket.
    pub burst: u64,
    /// Addresses that are remembered at once.
    pub clients: usize,
    /// Addresses that are not limited.
    pub exempt: Vec<IpNet>,
}

impl RateLimit {
    /// The longest time that an empty bucket may take to fill, which is `burst` x `period` / `requests`.
    pub const FILL_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);
}

/// Which fields tell the upstream about the client, and who is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // each is a switch of its own in the file
pub struct Forward {
    /// Peers whose forwarding fields are kept and appended to; everyone else's are replaced.
    pub trusted_proxies: Vec<IpNet>,
    /// Send X-Forwarded-For, X-Forwarded-Proto, X-Forwarded-Host and X-Real-IP.
    pub x_forwarded: bool,
    /// Send Forwarded (RFC 7239).
    pub forwarded: bool,
    /// Add Via (RFC 9110 section 7.6.3), both ways.
    pub via: bool,
    /// Add X-Served-By with the server's name to responses.
    pub served_by: bool,
}

/// Options of a TCP socket that a listener and an upstream share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tcp {
    /// How long a connection is silent before the peer is asked whether it is still there (`SO_KEEPALIVE`, `TCP_KEEPIDLE`).
    pub tcp_keepalive: Option<Duration>,
    /// How long what was sent may stay unacknowledged (`TCP_USER_TIMEOUT`).
    pub tcp_user_timeout: Option<Duration>,
    /// `SO_BUSY_POLL`, microseconds.
    pub busy_poll_us: Option<u32>,
    /// `SO_RCVBUF`, bytes.
    pub recv_buffer: Option<usize>,
    /// `SO_SNDBUF`, bytes.
    pub send_buffer: Option<usize>,
    /// `TCP_CONGESTION`, the name of an algorithm.
    pub congestion: Option<String>,
}

/// One listener. Each shard opens its own socket on the address (`SO_REUSEPORT`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Where clients connect.
    pub address: SocketAddr,
    /// The listen(2) backlog of each shard's socket.
    pub backlog: u32,
    /// `TCP_DEFER_ACCEPT`, rounded up to seconds.
    pub defer_accept: Option<Duration>,
    /// `TCP_FASTOPEN` queue length.
    pub fast_open: Option<u32>,
    /// Options of accepted sockets.
    pub tcp: Tcp,
}

/// The Host field that an upstream gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostPolicy {
    /// The client's.
    Keep,
    /// The server's address as configured.
    Upstream,
    /// This value.
    Fixed(String),
}

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerAddress {
    /// An address and port.
    Socket(SocketAddr),
    /// A host name and port, resolved off the shard threads.
    Name(String, u16),
    /// A Unix stream socket.
    Unix(PathBuf),
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(address) => address.fmt(f),
            Self::Name(host, port) => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl ServerAddress {
    /// Whether it is a Unix socket.
    pub fn is_unix(&self) -> bool {
        matches!(self, Self::Unix(_))
    }

    /// The Host field that names this server: `host:port`, or `localhost` for a Unix socket, which has neither.
    pub fn host_field(&self) -> String {
        match self {
            Self::Unix(_) => "localhost".to_owned(),
            Self::Name(host, 80) => host.clone(),
            // A zone means something on this machine alone (RFC 6874 section 1).
            Self::Socket(address) => SocketAddr::new(address.ip(), address.port()).to_string(),
            Self::Name(..) => self.to_string(),
        }
    }
}

/// What happens to a request when no server is healthy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenNoneHealthy {
    /// It gets 503.
    Fail,
    /// Servers are chosen as if all were healthy.
    TryAll,
}

/// How a server of an upstream is chosen.
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
    /// The client's own, by its address.
    IpHash,
    /// The request's own, by a part of it.
    Hash,
    /// The first that is healthy, in the order of the file.
    First,
    /// The one expected to answer first, of two drawn at random.
    LeastLatency,
}

/// The part of a request that [`Policy::Hash`] goes by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashKey {
    /// The path.
    Path,
    /// Path and query.
    Uri,
    /// The query argument of this name.
    Query(String),
    /// The field of this name.
    Header(String),
    /// The cookie of this name.
    Cookie(String),
}

/// One server of an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Unique in its upstream; the address where none is given.
    pub name: String,
    /// Where it is.
    pub address: ServerAddress,
    /// Its part of the requests, 1 to 1000; 0 takes no new ones.
    pub weight: u16,
    /// Serves only when no other server is left.
    pub backup: bool,
    /// Requests that it may have in flight, over all shards; `None` is no limit.
    pub max_requests: Option<u32>,
    /// Connections to it that may be open, in use and idle, over all shards; `None` is no limit.
    pub max_connections: Option<u32>,
}

/// Keep-alive connections that a shard holds for one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Idle connections for each server and shard; 0 closes each after its exchange.
    pub max_idle: usize,
    /// How long one may be idle.
    pub idle_timeout: Duration,
    /// How old one may get; `None` is no limit.
    pub max_age: Option<Duration>,
    /// Requests on one connection; `None` is no limit.
    pub max_requests: Option<u64>,
}

/// A named group of servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// Unique.
    pub name: String,
    /// How a server is chosen.
    pub policy: Policy,
    /// What [`Policy::Hash`] goes by.
    pub hash: HashKey,
    /// Leading bits of an IPv6 address that [`Policy::IpHash`] goes by.
    pub ip_hash_v6_prefix: u8,
    /// Percent of its fair share of the requests in flight that a server may have before its keys go elsewhere, from 100 on;
    /// `None` is no bound.
    pub hash_balance_factor: Option<u32>,
    /// How long a server that comes back takes to get its whole share again; `None` is at once.
    pub slow_start: Option<Duration>,
    /// What happens when no server is healthy.
    pub when_none_healthy: WhenNoneHealthy,
    /// Active checks; `None` when off.
    pub health: Option<Check>,
    /// Passive checks; `None` when off.
    pub passive: Option<Passive>,
    /// Sticky sessions; `None` when off.
    pub sticky: Option<Sticky>,
    /// Its servers; at least one.
    pub servers: Vec<Server>,
    /// The Host field it gets.
    pub host: HostPolicy,
    /// How often host names are resolved again; `None` is at start only.
    pub resolve: Option<Duration>,
    /// Keep-alive connections.
    pub pool: Pool,
    /// Further servers that a request may be tried on after one that took it and gave no answer; 0 also keeps a request from moving on
    /// when a server cannot be connected to.
    pub retries: u32,
    /// Statuses that send a request on to another server; `None` when none do.
    pub retry_statuses: Option<Statuses>,
    /// Requests of methods that are not idempotent may be sent again after a server may have acted on them.
    pub retry_non_idempotent: bool,
    /// Bytes of body data up to which a request is kept for another attempt; 0 keeps what came with the head.
    pub retry_body_bytes: u64,
    /// Percent of the requests that may be sent again; `None` is no budget.
    pub retry_budget: Option<u32>,
    /// Requests that wait when every server is full, for each shard; `None` when none do.
    pub queue: Option<usize>,
    /// How long one waits.
    pub queue_timeout: Duration,
    /// To establish a connection.
    pub connect_timeout: Duration,
    /// From the last byte of the request to the response head.
    pub response_header_timeout: Duration,
    /// Between two reads of a response body.
    pub response_body_timeout: Duration,
    /// Local addresses that connections come from, in turn; empty leaves the choice to the kernel.
    pub sources: Vec<IpAddr>,
    /// `TCP_FASTOPEN_CONNECT`.
    pub fast_open: bool,
    /// Options of its sockets.
    pub tcp: Tcp,
}

impl Upstream {
    /// Whether every server is a Unix socket.
    pub fn is_local(&self) -> bool {
        !self.servers.is_empty() && self.servers.iter().all(|server| server.address.is_unix())
    }
}

/// Which hosts a route takes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// Every host.
    Any,
    /// This host, lower case, no port.
    Exact(String),
    /// The host that is this address, in brackets.
    Address(Ipv6Addr),
    /// Every host that ends in this suffix, lower case, leading dot included (`*.example.com` is `.example.com`).
    Suffix(String),
}

/// As the file writes it.
impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Exact(host) => f.write_str(host),
            Self::Address(address) => write!(f, "[{address}]"),
            Self::Suffix(suffix) => write!(f, "*{suffix}"),
        }
    }
}

/// One route. The longest match wins: exact host before the longest wildcard before any, then the longest path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Hosts it takes.
    pub host: HostPattern,
    /// Path prefix, on segment boundaries: `/api` takes `/api` and `/api/x`, not `/apix`. Ends in `/` only when it is `/`.
    pub path: String,
    /// Index into [`Config::upstreams`].
    pub upstream: usize,
    /// Take the prefix off the path before it is sent on.
    pub strip_prefix: bool,
}
