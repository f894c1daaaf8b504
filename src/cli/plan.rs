//! What a configuration would run, for people.

use std::fmt::{self, Formatter, Write as _};

use nix::unistd::geteuid;

use crate::config::{
    AccessLog, Account, Admin, Check, CheckKind, Config, HashKey, HostPolicy, IoMode, Listen,
    Passive, Policy, Route, Server, Shards, Size, Span, Sticky, Tcp, Underscores, Upstream,
};
use crate::server;

/// Shows what a configuration would run.
pub(super) struct Plan<'a>(pub(super) &'a Config);

impl fmt::Display for Plan<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.shards(f)?;
        self.listens(f)?;
        self.upstreams(f)?;
        self.routes(f)?;
        self.timeouts(f)?;
        self.limits(f)
    }
}

impl Plan<'_> {
    fn shards(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Config {
            shards, pin, io, ..
        } = self.0;
        let pin = if *pin { "pinned" } else { "not pinned" };
        let mode = match io.mode {
            IoMode::Auto => "io_uring if possible, else epoll",
            IoMode::Uring => "io_uring",
            IoMode::Epoll => "epoll",
        };
        row(f, "shards", &format!("{}, {pin}", count(shards)))?;
        let ring = format!(
            "{} ring entries, {} accepts outstanding",
            io.ring_entries, io.accepts
        );
        row(f, "io", &format!("{mode}; {ring}"))?;
        row(f, "user", &user(self.0.account.as_ref()))
    }

    fn listens(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for listen in &self.0.listens {
            let (address, options) = (listen.address, options(listen));
            row(f, "listen", &format!("{address}: {options}"))?;
        }
        let status = |admin: &Admin| format!("http://{}/lb/status and /metrics", admin.address);
        row(f, "status", &or_off(self.0.admin.as_ref().map(status)))?;
        let steering = |admin: &Admin| {
            let with = match admin.token {
                Some(_) => "with the token",
                None => "from this machine, without a token",
            };
            admin.orders.then(|| with.to_owned())
        };
        row(
            f,
            "orders",
            &or_off(self.0.admin.as_ref().and_then(steering)),
        )?;
        row(
            f,
            "access log",
            &or_off(self.0.access_log.as_ref().map(access_log)),
        )
    }

    fn upstreams(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0
            .upstreams
            .iter()
            .try_for_each(|upstream| self::upstream(f, upstream))
    }

    fn routes(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nroutes")?;
        let pattern = |route: &Route| format!("{} {}", route.host, route.path);
        let lengths = self.0.routes.iter().map(|route| pattern(route).len());
        let width = lengths.max().unwrap_or_default();
        for route in &self.0.routes {
            let (pattern, upstream) = (pattern(route), &self.0.upstreams[route.upstream].name);
            let strip = if route.strip_prefix {
                ", without the prefix"
            } else {
                ""
            };
            writeln!(f, "  {pattern:width$}  to {upstream}{strip}")?;
        }
        Ok(())
    }

    fn timeouts(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let timeouts = &self.0.timeouts;
        writeln!(f, "\ntimeouts")?;
        for (name, timeout) in [
            ("  client header", timeouts.client_header),
            ("  client body", timeouts.client_body),
            ("  keep-alive", timeouts.keep_alive),
            ("  write", timeouts.write),
            ("  tunnel idle", timeouts.tunnel_idle),
            ("  shutdown", self.0.shutdown_timeout),
        ] {
            row(f, name, &Span(timeout).to_string())?;
        }
        let rate =
            |rate: Option<u64>| rate.map_or("any".to_owned(), |bytes| format!("{}/s", Size(bytes)));
        let least = format!(
            "{} of a request body, {} of a response, grace {}",
            rate(timeouts.client_body_min_rate),
            rate(timeouts.response_min_rate),
            Span(timeouts.min_rate_grace)
        );
        row(f, "  least rates", &least)?;
        let check = timeouts.client_gone_check;
        row(
            f,
            "  client gone check",
            &check.map_or("off".to_owned(), |every| Span(every).to_string()),
        )
    }

    fn rate(&self) -> String {
        self.0.rate_limit.as_ref().map_or_else(
            || "no limit".to_owned(),
            |limit| {
                let (requests, burst, period) = (limit.requests, limit.burst, Span(limit.period));
                format!("{requests} requests in {period} for each client, burst {burst}")
            },
        )
    }

    fn limits(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let limits = &self.0.limits;
        writeln!(f, "\nlimits")?;
        row(
            f,
            "  head",
            &format!(
                "{}, {} fields",
                Size(limits.head_bytes as u64),
                limits.header_count
            ),
        )?;
        row(f, "  target", &Size(limits.uri_bytes as u64).to_string())?;
        let names = match limits.underscores {
            Underscores::Pass => "passed on",
            Underscores::Drop => "dropped",
            Underscores::Refuse => "refused",
        };
        row(f, "  underscores", &format!("fields with them are {names}"))?;
        row(
            f,
            "  body",
            &limits
                .body_bytes
                .map_or("no limit".to_owned(), |bytes| Size(bytes).to_string()),
        )?;
        let requests = or_no_limit(limits.requests_per_connection);
        row(f, "  requests", &format!("{requests} for each connection"))?;
        let in_all = or_no_limit(limits.connections);
        row(
            f,
            "  connections",
            &format!(
                "{} for each shard, {in_all} in all, {} for each client",
                limits.connections_per_shard,
                or_no_limit(limits.connections_per_client)
            ),
        )?;
        row(f, "  in flight", &or_no_limit(limits.max_in_flight))?;
        row(f, "  rate", &self.rate())
    }
}

fn row(f: &mut Formatter<'_>, name: &str, value: &str) -> fmt::Result {
    writeln!(f, "{name:15} {value}")
}

fn upstream(f: &mut Formatter<'_>, upstream: &Upstream) -> fmt::Result {
    writeln!(f, "\nupstream {}", upstream.name)?;
    row(f, "  policy", &policy(upstream))?;
    row(f, "  retries", &retries(upstream))?;
    row(
        f,
        "  queue",
        &or_off(upstream.queue.map(|n| queue(n, upstream))),
    )?;
    row(f, "  health", &or_off(upstream.health.as_ref().map(health)))?;
    row(
        f,
        "  passive",
        &or_off(upstream.passive.as_ref().map(passive)),
    )?;
    if let Some(sticky) = &upstream.sticky {
        row(f, "  sticky", &self::sticky(sticky))?;
    }
    row(f, "  host", &host(upstream))?;
    row(f, "  timeouts", &upstream_timeouts(upstream))?;
    row(f, "  pool", &pool(upstream))?;
    if !upstream.sources.is_empty() {
        let sources = upstream.sources.iter().map(ToString::to_string);
        row(f, "  source", &sources.collect::<Vec<_>>().join(", "))?;
    }
    let fast_open = upstream.fast_open.then(|| "fast open".to_owned());
    let sockets = tcp(&upstream.tcp, fast_open);
    if !sockets.is_empty() {
        row(f, "  sockets", &sockets)?;
    }
    upstream
        .servers
        .iter()
        .try_for_each(|server| row(f, "  server", &self::server(server)))
}

fn policy(upstream: &Upstream) -> String {
    let name = match upstream.policy {
        Policy::RoundRobin => "round_robin",
        Policy::LeastConnections => "least_connections",
        Policy::Random => "random",
        Policy::TwoChoices => "two_choices",
        Policy::IpHash => "ip_hash",
        Policy::Hash => "hash",
        Policy::First => "first",
        Policy::LeastLatency => "least_latency",
    };
    let by = match (upstream.policy, &upstream.hash) {
        (Policy::IpHash, _) => format!(", of IPv6 addresses /{}", upstream.ip_hash_v6_prefix),
        (Policy::Hash, HashKey::Path) => " of the path".to_owned(),
        (Policy::Hash, HashKey::Uri) => " of path and query".to_owned(),
        (Policy::Hash, HashKey::Query(name)) => format!(" of the query argument {name}"),
        (Policy::Hash, HashKey::Header(name)) => format!(" of the field {name}"),
        (Policy::Hash, HashKey::Cookie(name)) => format!(" of the cookie {name}"),
        _ => return name.to_owned(),
    };
    let bound = upstream
        .hash_balance_factor
        .map_or(String::new(), |percent| {
            format!(", load up to {percent} % of a fair share")
        });
    format!("{name}{by}{bound}")
}

fn retries(upstream: &Upstream) -> String {
    if upstream.retries == 0 {
        return "none".to_owned();
    }
    let mut text = format!("on up to {} further servers", upstream.retries);
    if let Some(statuses) = &upstream.retry_statuses {
        let _ = write!(text, ", on {statuses} too");
    }
    if upstream.retry_non_idempotent {
        text += ", of any method";
    }
    if upstream.retry_body_bytes > 0 {
        let size = Size(upstream.retry_body_bytes);
        let _ = write!(text, ", bodies kept up to {size}");
    }
    if let Some(percent) = upstream.retry_budget {
        let _ = write!(text, ", budget {percent} %");
    }
    text
}

fn queue(length: usize, upstream: &Upstream) -> String {
    let patience = Span(upstream.queue_timeout);
    format!("up to {length} requests for each shard, for {patience}")
}

fn health(check: &Check) -> String {
    let what = match &check.kind {
        CheckKind::Tcp => "a connection".to_owned(),
        CheckKind::Http(http) => format!("{} {}", http.method, http.path),
    };
    let Check {
        rise,
        fall,
        interval,
        timeout,
        ..
    } = check;
    let (interval, timeout) = (Span(*interval), Span(*timeout));
    let port = check
        .port
        .map_or(String::new(), |port| format!(" on port {port}"));
    format!("{what}{port} every {interval} within {timeout}; up after {rise}, down after {fall}")
}

fn passive(passive: &Passive) -> String {
    format!(
        "{} failures within {} eject a server for {} or longer, up to {} % of them",
        passive.fall,
        Span(passive.window),
        Span(passive.eject),
        passive.max_ejected_percent
    )
}

/// Never the keys.
fn sticky(sticky: &Sticky) -> String {
    let keys = match sticky.keys.len() {
        1 => "one key".to_owned(),
        count => format!("{count} keys"),
    };
    let attributes = sticky.attributes();
    format!("cookie {}{attributes}; {keys}", sticky.cookie)
}

/// A server's address, its name where it has one of its own, and what part of the requests it takes.
fn server(server: &Server) -> String {
    let mut text = server.address.to_string();
    if server.name != text {
        let _ = write!(text, " ({})", server.name);
    }
    if server.weight != 1 {
        let _ = write!(text, ", weight {}", server.weight);
    }
    if server.backup {
        text += ", backup";
    }
    if let Some(limit) = server.max_requests {
        let _ = write!(text, ", at most {limit} requests");
    }
    if let Some(limit) = server.max_connections {
        let _ = write!(text, ", at most {limit} connections");
    }
    text
}

fn count(shards: &Shards) -> String {
    match shards {
        Shards::Count(count) => count.to_string(),
        Shards::Cpus(cpus) => format!("{}, on CPU {}", cpus.len(), list(cpus)),
        Shards::Auto => {
            let here = server::default_shards();
            format!("one for each CPU that the process may use ({here} here)")
        }
    }
}

fn access_log(log: &AccessLog) -> String {
    let path = log.path.as_ref().map(|path| path.display().to_string());
    let path = path.unwrap_or_else(|| "standard output".to_owned());
    format!(
        "{path}, {} buffered for each shard",
        Size(log.buffer_bytes as u64)
    )
}

fn user(account: Option<&Account>) -> String {
    match account {
        Some(account) => format!(
            "{} ({}), group {}, without capabilities",
            account.user, account.uid, account.gid
        ),
        None if geteuid().is_root() => {
            "root, who starts it: better name an unprivileged one".to_owned()
        }
        None => "who starts it".to_owned(),
    }
}

fn or_off(setting: Option<String>) -> String {
    setting.unwrap_or_else(|| "off".to_owned())
}

fn list(cpus: &[usize]) -> String {
    let cpus: Vec<_> = cpus.iter().map(ToString::to_string).collect();
    cpus.join(", ")
}

fn or_no_limit(limit: Option<impl fmt::Display>) -> String {
    limit.map_or("no limit".to_owned(), |limit| limit.to_string())
}

fn options(listen: &Listen) -> String {
    let mut text = format!("backlog {}", listen.backlog);
    if let Some(defer) = listen.defer_accept {
        let _ = write!(text, ", accepted with data or after {}", Span(defer));
    }
    let fast_open = listen.fast_open.map(|queue| format!("fast open {queue}"));
    let tcp = tcp(&listen.tcp, fast_open);
    if tcp.is_empty() {
        text
    } else {
        format!("{text}, {tcp}")
    }
}

fn tcp(tcp: &Tcp, fast_open: Option<String>) -> String {
    let size = |bytes: usize| Size(bytes as u64);
    let parts = [
        fast_open,
        tcp.busy_poll_us
            .map(|microseconds| format!("busy poll {microseconds} us")),
        tcp.recv_buffer
            .map(|bytes| format!("receive buffer {}", size(bytes))),
        tcp.send_buffer
            .map(|bytes| format!("send buffer {}", size(bytes))),
        tcp.congestion
            .as_ref()
            .map(|name| format!("congestion {name}")),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn host(upstream: &Upstream) -> String {
    let host = match &upstream.host {
        HostPolicy::Keep => "the client's",
        HostPolicy::Upstream => "the server's address",
        HostPolicy::Fixed(fixed) => fixed,
    };
    match upstream.resolve {
        Some(every) => format!("{host}; names resolved every {}", Span(every)),
        None => host.to_owned(),
    }
}

fn upstream_timeouts(upstream: &Upstream) -> String {
    let (connect, header) = (
        Span(upstream.connect_timeout),
        Span(upstream.response_header_timeout),
    );
    format!(
        "connect {connect}, response header {header}, response body {}",
        Span(upstream.response_body_timeout)
    )
}

fn pool(upstream: &Upstream) -> String {
    let pool = &upstream.pool;
    if pool.max_idle == 0 {
        return "no connection is kept".to_owned();
    }
    let age = or_no_limit(pool.max_age.map(Span));
    let (idle, requests) = (Span(pool.idle_timeout), or_no_limit(pool.max_requests));
    format!(
        "{} idle for each shard and server, for {idle}; age: {age}, requests: {requests}",
        pool.max_idle
    )
}
