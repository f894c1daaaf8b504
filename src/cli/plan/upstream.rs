//! One upstream of the plan.

use std::fmt::{self, Formatter, Write as _};

use super::{or_no_limit, or_off, row, send_buffer, tcp};
use crate::config::{
    Check, CheckKind, HashKey, HostPolicy, Passive, Policy, Server, Size, Span, Sticky, Upstream,
};

pub(super) fn show(f: &mut Formatter<'_>, upstream: &Upstream) -> fmt::Result {
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
    row(f, "  timeouts", &timeouts(upstream))?;
    row(f, "  pool", &pool(upstream))?;
    if !upstream.sources.is_empty() {
        let sources = upstream.sources.iter().map(ToString::to_string);
        row(f, "  source", &sources.collect::<Vec<_>>().join(", "))?;
    }
    let sockets = if upstream.is_local() {
        send_buffer(&upstream.tcp).unwrap_or_default()
    } else {
        let fast_open = upstream.fast_open.then(|| "fast open".to_owned());
        tcp(&upstream.tcp, fast_open)
    };
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

fn timeouts(upstream: &Upstream) -> String {
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
