//! The metrics page.

mod recent;

use std::sync::atomic::Ordering::Relaxed;

use super::sampler::Sampler;
use crate::health::overview::Overview;
use crate::health::table::Entry;
use crate::health::{Cause, Order, State, Steer};
use crate::telemetry::counters::{
    FailureKind, OwnAnswers, RetryKind, ServerCounters, ShardCounters, StatusClasses, StickyKind,
    TimeoutKind, UpstreamCounters,
};
use crate::telemetry::date::unix_seconds;
use crate::telemetry::histogram::Snapshot;
use crate::telemetry::process::{Process, thread_cpu_time};
use crate::telemetry::prometheus::{Family, Text};
use crate::telemetry::view::View;

/// Name, help and value of a family.
type Row<T> = (&'static str, &'static str, fn(&T) -> u64);

const SHARD_COUNTERS: [Row<ShardCounters>; 18] = [
    (
        "ringlane_accepted_connections_total",
        "Client connections accepted.",
        |shard| shard.accepted.get(),
    ),
    (
        "ringlane_refused_connections_total",
        "Client connections refused for a limit.",
        |shard| shard.refused_connections.get(),
    ),
    (
        "ringlane_refused_clients_total",
        "Client connections refused because their address had too many.",
        |shard| shard.refused_clients.get(),
    ),
    (
        "ringlane_refused_descriptors_total",
        "Client connections refused because few descriptors were left.",
        |shard| shard.refused_descriptors.get(),
    ),
    (
        "ringlane_rate_limited_requests_total",
        "Requests answered 429 for the rate of their client.",
        |shard| shard.rate_limited.get(),
    ),
    (
        "ringlane_shed_requests_total",
        "Requests answered 503 because too many were in flight.",
        |shard| shard.shed.get(),
    ),
    (
        "ringlane_requests_total",
        "Requests whose head was read whole.",
        |shard| shard.requests.get(),
    ),
    (
        "ringlane_received_bytes_total",
        "Bytes read from clients.",
        |shard| shard.bytes_in.get(),
    ),
    (
        "ringlane_sent_bytes_total",
        "Bytes written to clients.",
        |shard| shard.bytes_out.get(),
    ),
    (
        "ringlane_retries_total",
        "Attempts after the first.",
        |shard| shard.retries.get(),
    ),
    (
        "ringlane_pool_hits_total",
        "Attempts on a pooled connection.",
        |shard| shard.reused_upstream.get(),
    ),
    (
        "ringlane_pool_misses_total",
        "Attempts on a new connection.",
        |shard| shard.new_upstream.get(),
    ),
    (
        "ringlane_pool_stale_total",
        "Pooled connections found closed at checkout.",
        |shard| shard.stale_upstream.get(),
    ),
    ("ringlane_accept_errors_total", "Failed accepts.", |shard| {
        shard.accept_errors.get()
    }),
    (
        "ringlane_accept_backoffs_total",
        "Pauses in accepting for want of descriptors or memory.",
        |shard| shard.accept_backoffs.get(),
    ),
    (
        "ringlane_panics_total",
        "Connection tasks that panicked.",
        |shard| shard.panics.get(),
    ),
    (
        "ringlane_access_log_dropped_total",
        "Access log lines dropped or lost.",
        |shard| shard.access_log_dropped.get(),
    ),
    ("ringlane_sweeps_total", "Turns of the sweeper.", |shard| {
        shard.sweeps.get()
    }),
];

const SHARD_GAUGES: [Row<ShardCounters>; 4] = [
    (
        "ringlane_connections",
        "Client connections open.",
        |shard| shard.connections.get(),
    ),
    (
        "ringlane_active_connections",
        "Client connections with an exchange running.",
        |shard| shard.active.get(),
    ),
    ("ringlane_tunnels", "Tunnels open.", |shard| {
        shard.tunnels.get()
    }),
    (
        "ringlane_shard_running",
        "1 while the shard's thread runs.",
        |shard| shard.running_thread().is_some().into(),
    ),
];

const SERVER_COUNTERS: [Row<ServerCounters>; 4] = [
    (
        "ringlane_upstream_requests_total",
        "Attempts on the server, retries included.",
        |server| server.requests.get(),
    ),
    (
        "ringlane_upstream_connects_total",
        "Connections established.",
        |server| server.connects.get(),
    ),
    (
        "ringlane_upstream_received_bytes_total",
        "Bytes read from the server.",
        |server| server.bytes_in.get(),
    ),
    (
        "ringlane_upstream_sent_bytes_total",
        "Bytes written to the server.",
        |server| server.bytes_out.get(),
    ),
];

const SERVER_GAUGES: [Row<ServerCounters>; 3] = [
    (
        "ringlane_upstream_active",
        "Exchanges and tunnels running.",
        |server| server.active.get(),
    ),
    (
        "ringlane_upstream_idle_connections",
        "Connections in the pools.",
        |server| server.idle.get(),
    ),
    (
        "ringlane_upstream_open_connections",
        "Connections open or being opened, in use and idle.",
        |server| server.open.get(),
    ),
];

const UPSTREAM_COUNTERS: [Row<UpstreamCounters>; 5] = [
    (
        "ringlane_upstream_retries_refused_total",
        "Retries not made because the budget was used up.",
        |upstream| upstream.retries_refused.get(),
    ),
    (
        "ringlane_upstream_queue_waits_total",
        "Requests that waited for a server with room.",
        |upstream| upstream.queue_waits.get(),
    ),
    (
        "ringlane_upstream_queue_timeouts_total",
        "Requests that waited in vain.",
        |upstream| upstream.queue_timeouts.get(),
    ),
    (
        "ringlane_upstream_queue_full_total",
        "Requests that found the queue full.",
        |upstream| upstream.queue_full.get(),
    ),
    (
        "ringlane_upstream_queue_left_total",
        "Clients that left while they waited.",
        |upstream| upstream.queue_left.get(),
    ),
];

/// The present state as Prometheus text.
pub(super) fn render(sampler: &Sampler, overview: Option<&Overview>) -> String {
    let view = sampler.view();
    let mut text = Text::default();
    program(&mut text, view);
    process(&mut text, view);
    shards(&mut text, view);
    servers(&mut text, view);
    weights(&mut text, view, overview);
    upstreams(&mut text, view);
    recent::render(&mut text, sampler);
    if let Some(overview) = overview {
        health(&mut text, view, overview);
        orders(&mut text, view, overview);
    }
    text.finish()
}

fn program(text: &mut Text, view: &View) {
    text.gauge(
        "ringlane_build_info",
        "Always 1; the label has the version.",
    )
    .sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    let io = [("mode", view.io.mode.as_str()), ("flags", &view.io.flags)];
    text.gauge(
        "ringlane_io_info",
        "Always 1; the labels say how the shards talk to the kernel.",
    )
    .sample(&io, 1);
    let draining = u8::from(view.draining.load(Relaxed));
    text.gauge("ringlane_draining", "1 while no new connections are taken.")
        .sample(&[], draining);
    let restarts = view.shard_restarts();
    text.counter(
        "ringlane_shard_restarts_total",
        "Shards started again after they died.",
    )
    .sample(&[], restarts);
}

/// Under the names that Prometheus client libraries have for every process.
fn process(text: &mut Text, view: &View) {
    let process = Process::read();
    let cpu = process.cpu.map(|time| time.as_secs_f64());
    text.counter("process_cpu_seconds_total", "User and system time.")
        .maybe(cpu);
    text.gauge("process_resident_memory_bytes", "Resident memory.")
        .maybe(process.resident_bytes);
    text.gauge("process_virtual_memory_bytes", "Address space.")
        .maybe(process.virtual_bytes);
    text.gauge("process_open_fds", "Open descriptors.")
        .maybe(process.open_fds);
    text.gauge("process_max_fds", "Limit of descriptors.")
        .maybe(process.max_fds);
    text.gauge("process_threads", "Threads.")
        .maybe(process.threads);
    let started = unix_seconds(view.started);
    text.gauge(
        "process_start_time_seconds",
        "Start time since the Unix epoch.",
    )
    .sample(&[], started);
}

/// Each shard with its number as label value.
fn numbered(view: &View) -> impl Iterator<Item = (String, &ShardCounters)> {
    view.shards
        .iter()
        .enumerate()
        .map(|(shard, counters)| (shard.to_string(), &**counters))
}

fn shards(text: &mut Text, view: &View) {
    for (name, help, value) in SHARD_COUNTERS {
        by_shard(text.counter(name, help), view, value);
    }
    for (name, help, value) in SHARD_GAUGES {
        by_shard(text.gauge(name, help), view, value);
    }
    shard_cpu(text, view);
    shard_responses(text, view);
    shard_timeouts(text, view);
    own_answers(text, view);
}

fn by_shard(mut family: Family<'_>, view: &View, value: fn(&ShardCounters) -> u64) {
    for (shard, counters) in numbered(view) {
        family.sample(&[("shard", &shard)], value(counters));
    }
}

fn shard_cpu(text: &mut Text, view: &View) {
    let mut family = text.counter(
        "ringlane_shard_cpu_seconds_total",
        "CPU time of the shard's present thread.",
    );
    for (shard, counters) in numbered(view) {
        if let Some(time) = counters.running_thread().and_then(thread_cpu_time) {
            family.sample(&[("shard", &shard)], time.as_secs_f64());
        }
    }
}

fn shard_responses(text: &mut Text, view: &View) {
    let mut family = text.counter(
        "ringlane_responses_total",
        "Final responses sent to clients, by status class.",
    );
    for (shard, counters) in numbered(view) {
        for (class, count) in StatusClasses::NAMES
            .into_iter()
            .zip(counters.responses.get())
        {
            family.sample(&[("shard", &shard), ("class", class)], count);
        }
    }
}

fn shard_timeouts(text: &mut Text, view: &View) {
    let mut family = text.counter(
        "ringlane_timeouts_total",
        "Connections and exchanges ended by a timeout, by its kind.",
    );
    for (shard, counters) in numbered(view) {
        for kind in TimeoutKind::ALL {
            family.sample(
                &[("shard", &shard), ("kind", kind.as_str())],
                counters.timeout(kind).get(),
            );
        }
    }
}

/// Of all shards together: they are rare, and many codes times many shards would be a long list.
fn own_answers(text: &mut Text, view: &View) {
    let mut family = text.counter(
        "ringlane_own_answers_total",
        "Answers made by the proxy itself, by status.",
    );
    for status in OwnAnswers::STATUSES.into_iter().chain([0]) {
        let of_shard = |shard: &ShardCounters| {
            shard
                .own_answers
                .iter()
                .find(|(code, _)| *code == status)
                .map_or(0, |(_, count)| count)
        };
        let count: u64 = view.shards.iter().map(|shard| of_shard(shard)).sum();
        let name = if status == 0 {
            "other".into()
        } else {
            status.to_string()
        };
        family.sample(&[("status", &name)], count);
    }
}

/// All shards together, by upstream and server.
fn servers(text: &mut Text, view: &View) {
    for (name, help, value) in SERVER_COUNTERS {
        by_server(text.counter(name, help), view, value);
    }
    for (name, help, value) in SERVER_GAUGES {
        by_server(text.gauge(name, help), view, value);
    }
    server_responses(text, view);
    server_failures(text, view);
    server_retries(text, view);
    server_latencies(text, view);
    server_sticky(text, view);
}

fn weights(text: &mut Text, view: &View, overview: Option<&Overview>) {
    let mut family = text.gauge(
        "ringlane_upstream_weight",
        "The server's weight: the configured one, or an operator's.",
    );
    for (index, upstream, server) in view.servers() {
        let ordered = overview
            .and_then(|overview| overview.entry(index))
            .and_then(|entry| entry.weight);
        let labels = [("upstream", &*upstream.name), ("server", &*server.name)];
        family.sample(&labels, ordered.unwrap_or(server.weight));
    }
}

fn by_server(mut family: Family<'_>, view: &View, value: fn(&ServerCounters) -> u64) {
    for (index, upstream, server) in view.servers() {
        let sum: u64 = view.server_counters(index).map(value).sum();
        family.sample(
            &[("upstream", &upstream.name), ("server", &server.name)],
            sum,
        );
    }
}

fn server_responses(text: &mut Text, view: &View) {
    let mut family = text.counter(
        "ringlane_upstream_responses_total",
        "Final responses received, by status class.",
    );
    for (index, upstream, server) in view.servers() {
        for (number, class) in StatusClasses::NAMES.into_iter().enumerate() {
            let sum: u64 = view
                .server_counters(index)
                .map(|server| server.responses.get()[number])
                .sum();
            family.sample(
                &[
                    ("upstream", &upstream.name),
                    ("server", &server.name),
                    ("class", class),
                ],
                sum,
            );
        }
    }
}

fn server_failures(text: &mut Text, view: &View) {
    let mut family = text.counter(
        "ringlane_upstream_failures_total",
        "Failed attempts, by their kind.",
    );
    for (index, upstream, server) in view.servers() {
        for kind in FailureKind::ALL {
            let sum: u64 = view
                .server_counters(index)
                .map(|server| server.failure(kind).get())
                .sum();
            family.sample(
                &[
                    ("upstream", &upstream.name),
                    ("server", &server.name),
                    ("kind", kind.as_str()),
                ],
                sum,
            );
        }
    }
}

fn server_retries(text: &mut Text, view: &View) {
    let mut family = text.counter(
        "ringlane_upstream_retries_total",
        "Attempts that followed one on the server, by the reason.",
    );
    for (index, upstream, server) in view.servers() {
        for kind in RetryKind::ALL {
            let sum: u64 = view
                .server_counters(index)
                .map(|server| server.retry(kind).get())
                .sum();
            family.sample(
                &[
                    ("upstream", &upstream.name),
                    ("server", &server.name),
                    ("reason", kind.as_str()),
                ],
                sum,
            );
        }
    }
}

/// All shards together, by upstream.
fn upstreams(text: &mut Text, view: &View) {
    for (name, help, value) in UPSTREAM_COUNTERS {
        by_upstream(text.counter(name, help), view, |sum| sum as f64, value);
    }
    by_upstream(
        text.gauge("ringlane_upstream_queue_length", "Requests that wait."),
        view,
        |sum| sum as f64,
        |upstream| upstream.queued.get(),
    );
    by_upstream(
        text.counter(
            "ringlane_upstream_queue_wait_seconds_total",
            "Time that requests waited.",
        ),
        view,
        |sum| sum as f64 / 1e6,
        |upstream| upstream.queue_wait_us.get(),
    );
}

fn by_upstream(
    mut family: Family<'_>,
    view: &View,
    unit: fn(u64) -> f64,
    value: fn(&UpstreamCounters) -> u64,
) {
    for (number, upstream) in view.upstreams.iter().enumerate() {
        let sum: u64 = view.upstream_counters(number).map(value).sum();
        family.sample(&[("upstream", &upstream.name)], unit(sum));
    }
}

fn server_latencies(text: &mut Text, view: &View) {
    let mut family = text.histogram(
        "ringlane_upstream_response_seconds",
        "Time to response head.",
    );
    for (index, upstream, server) in view.servers() {
        let mut snapshot = Snapshot::default();
        view.server_counters(index)
            .for_each(|server| snapshot.add(&server.latency));
        family.distribution(
            &[("upstream", &upstream.name), ("server", &server.name)],
            &snapshot,
        );
    }
}

/// Of the upstreams whose clients are sticky.
fn server_sticky(text: &mut Text, view: &View) {
    let sticky: Vec<_> = view
        .servers()
        .filter(|(_, upstream, _)| upstream.sticky)
        .collect();
    if sticky.is_empty() {
        return;
    }
    let mut family = text.counter(
        "ringlane_upstream_sticky_total",
        "Answers to sticky clients, by what became of the cookie.",
    );
    for (index, upstream, server) in sticky {
        for kind in StickyKind::ALL {
            let counters = view.server_counters(index);
            let sum: u64 = counters.map(|server| server.sticky(kind).get()).sum();
            let labels = [
                ("upstream", upstream.name.as_str()),
                ("server", &server.name),
                ("result", kind.as_str()),
            ];
            family.sample(&labels, sum);
        }
    }
}

/// A server that somebody checks: its place, what is known of it, its upstream's name and its own.
type Checked<'a> = (usize, Entry, &'a str, &'a str);

/// Of the servers that somebody checks.
fn health(text: &mut Text, view: &View, overview: &Overview) {
    let checked: Vec<Checked<'_>> = view
        .servers()
        .filter(|(index, ..)| overview.checks(*index))
        .filter_map(|(index, upstream, server)| {
            Some((
                index,
                overview.entry(index)?,
                &*upstream.name,
                &*server.name,
            ))
        })
        .collect();
    let mut up = text.gauge("ringlane_upstream_up", "1 while the server is healthy.");
    for (_, entry, upstream, server) in &checked {
        let labels = [("upstream", *upstream), ("server", *server)];
        up.sample(&labels, u8::from(entry.state == State::Up));
    }
    let mut changes = text.counter(
        "ringlane_upstream_state_changes_total",
        "Changes of the server's health, by the state it came into.",
    );
    for (index, _, upstream, server) in &checked {
        for state in State::ALL {
            let labels = [
                ("upstream", *upstream),
                ("server", *server),
                ("state", state.as_str()),
            ];
            changes.sample(&labels, overview.history.count(*index, state));
        }
    }
    states(text, overview, &checked);
    probes(text, &checked);
    text.gauge(
        "ringlane_health_age_seconds",
        "Time since the health monitor last showed that it lives.",
    )
    .maybe(overview.age_ms().map(|age_ms| age_ms as f64 / 1e3));
    text.gauge(
        "ringlane_health_stale",
        "1 while what is shown of health may no longer be true.",
    )
    .sample(&[], u8::from(overview.is_stale()));
    text.counter(
        "ringlane_health_restarts_total",
        "Times that the health monitor died and was started again.",
    )
    .sample(&[], overview.restarts());
}

/// What operators ordered.
fn orders(text: &mut Text, view: &View, overview: &Overview) {
    let mut orders = text.counter(
        "ringlane_upstream_orders_total",
        "Operators' orders for the server, by their kind.",
    );
    for (index, upstream, server) in view.servers() {
        for (kind, count) in Steer::KINDS.into_iter().zip(overview.history.orders(index)) {
            let labels = [
                ("upstream", &*upstream.name),
                ("server", &*server.name),
                ("order", kind),
            ];
            orders.sample(&labels, count);
        }
    }
    let mut out = text.gauge(
        "ringlane_upstream_taken_out",
        "1 while an operator has the server drained or down.",
    );
    for (index, upstream, server) in view.servers() {
        if let Some(entry) = overview.entry(index) {
            let labels = [("upstream", &*upstream.name), ("server", &*server.name)];
            out.sample(&labels, u8::from(entry.order != Order::Serve));
        }
    }
}

fn states(text: &mut Text, overview: &Overview, checked: &[Checked<'_>]) {
    let mut family = text.gauge(
        "ringlane_upstream_state_info",
        "Always 1; the labels say in which state the server is and why.",
    );
    for (_, entry, upstream, server) in checked {
        let labels = [
            ("upstream", *upstream),
            ("server", *server),
            ("state", entry.state.as_str()),
            ("reason", &entry.cause.to_string()),
        ];
        family.sample(&labels, 1);
    }
    let mut family = text.gauge(
        "ringlane_upstream_state_since_seconds",
        "When the server came into its state, since the Unix epoch.",
    );
    for (_, entry, upstream, server) in checked {
        let since = unix_seconds(overview.clock.at(entry.since_ms));
        family.sample(&[("upstream", upstream), ("server", server)], since);
    }
}

fn probes(text: &mut Text, checked: &[Checked<'_>]) {
    let probed = || {
        checked.iter().filter_map(|(_, entry, upstream, server)| {
            Some((entry.last_probe?, *upstream, *server))
        })
    };
    let mut family = text.gauge(
        "ringlane_upstream_probe_seconds",
        "Time that the last probe took.",
    );
    for (probe, upstream, server) in probed() {
        let labels = [("upstream", upstream), ("server", server)];
        family.sample(&labels, f64::from(probe.took_us) / 1e6);
    }
    let mut family = text.gauge(
        "ringlane_upstream_probe_success",
        "1 when the last probe was answered as expected.",
    );
    for (probe, upstream, server) in probed() {
        let labels = [("upstream", upstream), ("server", server)];
        family.sample(&labels, u8::from(probe.result == Cause::ProbeOk));
    }
    let mut family = text.gauge(
        "ringlane_upstream_probe_info",
        "Always 1; the label says how the last probe ended.",
    );
    for (probe, upstream, server) in probed() {
        let result = probe.result.to_string();
        let labels = [
            ("upstream", upstream),
            ("server", server),
            ("result", &*result),
        ];
        family.sample(&labels, 1);
    }
}
