//! Upstreams: their servers, pools and timeouts.

use toml::Spanned;

use super::complaint::{Complaints, Flaw, Seen, nearest};
use super::reader::Reader;
use super::{
    HostPolicy, Policy, Pool, Server, ServerAddress, Statuses, Upstream, WhenNoneHealthy, address,
    health, listen, policy, source, sticky,
};

const NAME_BYTES_MAX: usize = 64;
/// A policy numbers its servers in 16 bits.
const SERVERS_MAX: usize = 65_000;

/// All upstreams, each with the place of its name. One without a good name has an empty one, and was complained about.
/// `steered` says that operators can give orders.
pub(super) fn upstreams(
    root: &Reader<'_>,
    steered: bool,
    complaints: &Complaints<'_>,
) -> Vec<Spanned<Upstream>> {
    let tables = root.tables("upstream");
    if root.lacks("upstream") {
        let flaw = Flaw::new("there is no [[upstream]]: requests have nowhere to go");
        complaints.file_error(flaw.help("add [[upstream]] with a name and its servers"));
    }
    let mut names = Seen::new();
    let mut upstreams = Vec::new();
    for table in &tables {
        let upstream = Spanned::new(table.span_of("name"), upstream(table, steered, complaints));
        let name = &upstream.get_ref().name;
        if let Some(first) = names
            .note(name.clone(), &upstream.span())
            .filter(|_| !name.is_empty())
        {
            let line = complaints.line(&first);
            complaints.error(
                &upstream.span(),
                Flaw::new(format!(
                    "there is an upstream `{name}` already, see line {line}"
                ))
                .help("give one of them another name: routes, metrics and orders go by it"),
            );
        }
        upstreams.push(upstream);
    }
    upstreams
}

fn upstream(table: &Reader<'_>, steered: bool, complaints: &Complaints<'_>) -> Upstream {
    let policy = policy::policy(table);
    let servers = servers(table, policy, complaints);
    policy::check(table, policy, &servers, complaints);
    let upstream = Upstream {
        name: table.parsed("name", name).unwrap_or_default(),
        policy,
        hash: policy::hash(table),
        ip_hash_v6_prefix: table.number("ip_hash_v6_prefix") as u8,
        hash_balance_factor: table
            .number_or_word("hash_balance_factor")
            .map(|percent| percent as u32),
        slow_start: table.duration_or_word("slow_start"),
        when_none_healthy: match table.choice("when_none_healthy") {
            "try_all" => WhenNoneHealthy::TryAll,
            _ => WhenNoneHealthy::Fail,
        },
        health: table
            .table_if_given("health")
            .map(|table| health::check(&table, &servers, complaints)),
        passive: table
            .table_if_given("passive")
            .map(|table| health::passive(&table, &servers, complaints)),
        sticky: table
            .table_if_given("sticky")
            .map(|table| sticky::sticky(&table, complaints)),
        host: host(table, complaints),
        servers,
        resolve: table.duration_or_word("resolve"),
        pool: pool(&table.table("pool"), complaints),
        retries: table.number("retries") as u32,
        retry_statuses: table.parsed("retry_statuses", retry_statuses),
        retry_non_idempotent: table.flag("retry_non_idempotent"),
        retry_body_bytes: table.size_or_word("retry_body_bytes").unwrap_or(0),
        retry_budget: table
            .number_or_word("retry_budget")
            .map(|percent| percent as u32),
        queue: table.number_or_word("queue").map(|length| length as usize),
        queue_timeout: table.duration("queue_timeout"),
        connect_timeout: table.duration("connect_timeout"),
        response_header_timeout: table.duration("response_header_timeout"),
        response_body_timeout: table.duration("response_body_timeout"),
        sources: source::sources(table, complaints),
        fast_open: table.flag("fast_open"),
        tcp: listen::tcp(table),
    };
    if upstream.health.is_none() && upstream.passive.is_none() {
        for key in ["slow_start", "when_none_healthy"] {
            // A server that an operator brings back starts slowly too.
            let acts = steered && key == "slow_start";
            if table.changes(key) && !acts {
                let flaw = Flaw::new(format!(
                    "{key} never acts: nobody checks the servers' health"
                ));
                let help = "add [upstream.health] or [upstream.passive]";
                complaints.warning(&table.span_of(key), flaw.help(help));
            }
        }
    }
    source::check(table, &upstream, complaints);
    check_sockets(table, &upstream, complaints);
    check_retries(table, &upstream, complaints);
    check_queue(table, &upstream, complaints);
    let named = upstream
        .servers
        .iter()
        .any(|server| matches!(server.address, ServerAddress::Name(..)));
    if upstream.resolve.is_some() && !upstream.servers.is_empty() && !named {
        let flaw = Flaw::new("resolve never acts: no server of this upstream has a host name");
        complaints.warning(&table.span_of("resolve"), flaw);
    }
    upstream
}

fn retry_statuses(text: &str) -> Result<Statuses, Flaw> {
    let statuses = health::statuses(text)?;
    match (200..400).find(|status| statuses.contains(*status)) {
        None => Ok(statuses),
        Some(status) => {
            let flaw = Flaw::new(format!("{status} is no failure"));
            Err(flaw.help("write statuses from 400 to 599, such as \"502-504\""))
        }
    }
}

/// Complains about settings for retries that are never made.
fn check_retries(table: &Reader<'_>, upstream: &Upstream, complaints: &Complaints<'_>) {
    let keys = [
        "retry_statuses",
        "retry_non_idempotent",
        "retry_body_bytes",
        "retry_budget",
    ];
    for key in keys.into_iter().filter(|key| table.changes(key)) {
        let why = match (upstream.retries, key, upstream.servers.len()) {
            (0, ..) => "retries is 0",
            (_, "retry_statuses", 1) if upstream.retry_statuses.is_some() => {
                "there is no other server to try"
            }
            _ => continue,
        };
        let flaw = Flaw::new(format!("{key} never acts: {why}"));
        complaints.warning(&table.span_of(key), flaw);
    }
}

/// Complains about options that do nothing for Unix sockets.
fn check_sockets(table: &Reader<'_>, upstream: &Upstream, complaints: &Complaints<'_>) {
    let keys = [
        "tcp_keepalive",
        "tcp_user_timeout",
        "busy_poll_us",
        "recv_buffer",
        "congestion",
        "fast_open",
    ];
    let keys = keys.into_iter().filter(|key| table.changes(key));
    for key in keys.filter(|_| upstream.is_local()) {
        let flaw = Flaw::new(format!("{key} never acts: every server is a Unix socket"));
        complaints.warning(&table.span_of(key), flaw);
    }
}

/// Complains about a queue that nothing fills, or that is not there.
fn check_queue(table: &Reader<'_>, upstream: &Upstream, complaints: &Complaints<'_>) {
    if upstream.queue.is_none() {
        if table.changes("queue_timeout") {
            let flaw = Flaw::new("queue_timeout never acts: there is no queue");
            let flaw = flaw.help("add queue = and how many requests may wait in each shard");
            complaints.warning(&table.span_of("queue_timeout"), flaw);
        }
        return;
    }
    let servers = &upstream.servers;
    // While others serve, weight 0 and backups take nobody from a full server.
    let (backups, primaries): (Vec<_>, Vec<_>) = (servers.iter())
        .filter(|server| server.weight > 0)
        .partition(|server| server.backup);
    let takers = if primaries.is_empty() {
        backups
    } else {
        primaries
    };
    let unlimited = |server: &&Server| server.max_requests.or(server.max_connections).is_none();
    if takers.iter().any(unlimited) {
        let flaw = Flaw::new("queue hardly acts: a server without limit is never full");
        let flaw = flaw.help("give every server max_requests or max_connections");
        complaints.warning(&table.span_of("queue"), flaw);
    }
}

/// Names go into header fields, metrics and paths of the status page.
fn name(text: &str) -> Result<String, Flaw> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':');
    if (1..=NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(good) {
        return Ok(text.to_owned());
    }
    let rule = "names have 1 to 64 letters, digits, `-`, `_`, `.` or `:`";
    Err(Flaw::new(format!("`{}` is not a name", text.escape_debug())).help(rule))
}

fn host(table: &Reader<'_>, complaints: &Complaints<'_>) -> HostPolicy {
    let policy = table.parsed("host", |text| match text {
        "keep" => Ok(HostPolicy::Keep),
        "upstream" => Ok(HostPolicy::Upstream),
        fixed => address::host_field(fixed).map(|()| HostPolicy::Fixed(fixed.to_owned())),
    });
    if let Some(HostPolicy::Fixed(fixed)) = &policy
        && let Some(near) = nearest(fixed, ["keep", "upstream"])
    {
        let flaw = Flaw::new(format!("host: every request will carry `Host: {fixed}`"));
        let hint = format!("did you mean \"{near}\"?");
        complaints.warning(&table.span_of("host"), flaw.help(hint));
    }
    policy.unwrap_or(HostPolicy::Keep)
}

fn pool(table: &Reader<'_>, complaints: &Complaints<'_>) -> Pool {
    let max_idle = table.number("max_idle") as usize;
    let keys = ["idle_timeout", "max_age", "max_requests"].into_iter();
    for key in keys.filter(|key| max_idle == 0 && table.changes(key)) {
        let flaw = Flaw::new(format!("{key} never acts: max_idle is 0"));
        complaints.warning(&table.span_of(key), flaw);
    }
    Pool {
        max_idle,
        idle_timeout: table.duration("idle_timeout"),
        max_age: table.duration_or_word("max_age"),
        max_requests: table.number_or_word("max_requests"),
    }
}

fn servers(upstream: &Reader<'_>, policy: Policy, complaints: &Complaints<'_>) -> Vec<Server> {
    let tables = upstream.tables("server");
    if upstream.lacks("server") {
        let flaw = Flaw::new("this upstream has no server");
        complaints.error(
            &upstream.span_of("server"),
            flaw.help("add server = [{ address = \"127.0.0.1:9001\" }]"),
        );
    }
    if tables.len() > SERVERS_MAX {
        let flaw = Flaw::new(format!("an upstream has at most {SERVERS_MAX} servers"));
        complaints.error(&upstream.span_of("server"), flaw);
    }
    let (mut names, mut addresses) = (Seen::new(), Seen::new());
    let mut servers = Vec::new();
    for table in &tables {
        let Some(server) = server(table) else {
            continue;
        };
        let span = table.span_of("address");
        if let Some(first) = addresses.note(server.address.to_string(), &span) {
            let line = complaints.line(&first);
            let flaw = Flaw::new(format!(
                "`{}` is a server already, see line {line}",
                server.address
            ));
            let help =
                "give one of them another address, or remove one and raise the other's weight";
            complaints.error(&span, flaw.help(help));
        } else if let Some(first) = names.note(server.name.clone(), &table.span_of("name")) {
            let line = complaints.line(&first);
            let flaw = Flaw::new(format!(
                "there is a server `{}` already, see line {line}",
                server.name
            ));
            let help = "give one of them another name: metrics and orders go by it";
            complaints.error(&table.span_of("name"), flaw.help(help));
        }
        policy::check_weight(table, policy, server.weight, complaints);
        servers.push(server);
    }
    servers
}

fn server(table: &Reader<'_>) -> Option<Server> {
    let address = table.parsed("address", address::server);
    let name = table.parsed("name", name);
    let (weight, backup) = (table.number("weight") as u16, table.flag("backup"));
    let limit = |key| table.number_or_word(key).map(|count| count as u32);
    let (max_requests, max_connections) = (limit("max_requests"), limit("max_connections"));
    let address = address?;
    Some(Server {
        name: name.unwrap_or_else(|| address.to_string()),
        address,
        weight,
        backup,
        max_requests,
        max_connections,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let longest = "a".repeat(64);
        let too_long = "a".repeat(65);
        let cases = [
            ("app", true),
            ("App-1_b.c:80", true),
            (longest.as_str(), true),
            (too_long.as_str(), false),
            ("", false),
            ("a b", false),
            ("a/b", false),
            ("ü", false),
            ("a\r\nX: y", false),
            ("a\"b", false),
        ];
        for (text, good) in cases {
            assert_eq!(name(text).is_ok(), good, "{text:?}");
        }
    }
}
