//! What a configuration would run, for people.

mod upstream;

use std::fmt::{self, Formatter, Write as _};
use std::path::Path;

use nix::unistd::geteuid;

use super::table::WIDTH_MAX;
use crate::config::{
    AccessLog, Account, Admin, Config, IoMode, Listen, Route, Shards, Size, Span, Tcp, Underscores,
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
        let pin = match shards {
            _ if !pin => "not pinned",
            Shards::Count(count) if !server::can_pin(*count) => {
                "not pinned: the process may use fewer CPUs here"
            }
            _ => "pinned",
        };
        row(f, "shards", &format!("{}, {pin}", count(shards)))?;
        let ring = format!(
            "{} ring entries, {} accepts outstanding",
            io.ring_entries, io.accepts
        );
        let io = match io.mode {
            IoMode::Auto => format!("io_uring if possible, else epoll; {ring}"),
            IoMode::Uring => format!("io_uring; {ring}"),
            IoMode::Epoll => "epoll".to_owned(),
        };
        row(f, "io", &io)?;
        row(f, "user", &user(self.0))
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
            .try_for_each(|upstream| upstream::show(f, upstream))
    }

    fn routes(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nroutes")?;
        let pattern = |route: &Route| format!("{} {}", route.host, route.path);
        let lengths = self.0.routes.iter().map(|route| pattern(route).len());
        let width = lengths.max().unwrap_or_default().min(WIDTH_MAX);
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
        let (body, response) = (timeouts.client_body_min_rate, timeouts.response_min_rate);
        let least = match (body, response) {
            (None, None) => "off".to_owned(),
            (body, response) => format!(
                "{} of a request body, {} of a response, grace {}",
                rate(body),
                rate(response),
                Span(timeouts.min_rate_grace)
            ),
        };
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
        let memory = limits.memory_bytes;
        row(
            f,
            "  memory",
            &memory.map_or("no limit".to_owned(), |bytes| Size(bytes).to_string()),
        )?;
        row(f, "  rate", &self.rate())
    }
}

fn row(f: &mut Formatter<'_>, name: &str, value: &str) -> fmt::Result {
    writeln!(f, "{name:15} {value}")
}

fn count(shards: &Shards) -> String {
    match shards {
        Shards::Count(count) => count.to_string(),
        Shards::Cpus(cpus) => {
            let here = match &server::unusable_cpus(cpus)[..] {
                [] => String::new(),
                unusable => format!(
                    " (not here: the process may not use CPU {})",
                    list(unusable)
                ),
            };
            format!("{}, on CPU {}{here}", cpus.len(), list(cpus))
        }
        Shards::Auto => {
            let here = server::default_shards();
            format!("one for each CPU that the process may use ({here} here)")
        }
    }
}

fn access_log(log: &AccessLog) -> String {
    let buffer = format!("{} buffered for each shard", Size(log.buffer_bytes as u64));
    let Some(path) = &log.path else {
        return format!("standard output, {buffer}");
    };
    let here = if path.is_dir() {
        " (not here: that is a directory)"
    } else if lacks_directory(path) {
        " (not here: its directory is missing)"
    } else {
        ""
    };
    format!("{}, {buffer}{here}", path.display())
}

/// Whether a file cannot be made for want of its directory. Where it may not be looked at, nobody knows.
fn lacks_directory(file: &Path) -> bool {
    let directory = Path::new(".").join(file);
    let directory = directory.parent().map(Path::try_exists);
    matches!(directory, Some(Ok(false)))
}

fn user(config: &Config) -> String {
    match &config.account {
        Some(Account { user, uid, gid, .. }) => {
            let capabilities = if server::keeps_low_ports(config) {
                "may keep CAP_NET_BIND_SERVICE alone"
            } else {
                "without capabilities"
            };
            format!("{user} ({uid}), group {gid}, {capabilities}")
        }
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

fn send_buffer(tcp: &Tcp) -> Option<String> {
    tcp.send_buffer
        .map(|bytes| format!("send buffer {}", Size(bytes as u64)))
}

fn tcp(tcp: &Tcp, fast_open: Option<String>) -> String {
    let size = |bytes: usize| Size(bytes as u64);
    let parts = [
        fast_open,
        tcp.tcp_keepalive
            .map(|idle| format!("keepalive after {}", Span(idle))),
        tcp.tcp_user_timeout
            .map(|limit| format!("unacknowledged for at most {}", Span(limit))),
        tcp.busy_poll_us
            .map(|microseconds| format!("busy poll {microseconds} us")),
        tcp.recv_buffer
            .map(|bytes| format!("receive buffer {}", size(bytes))),
        send_buffer(tcp),
        tcp.congestion
            .as_ref()
            .map(|name| format!("congestion {name}")),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}
