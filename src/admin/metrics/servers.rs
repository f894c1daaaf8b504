//! What all shards together count of each server.

use super::Row;
use crate::admin::sampler::Sampler;
use crate::health::overview::Overview;
use crate::telemetry::counters::{
    FailureKind, RetryKind, ServerCounters, StatusClasses, StickyKind,
};
use crate::telemetry::prometheus::{Family, Text};
use crate::telemetry::view::View;

const COUNTERS: [Row<ServerCounters>; 4] = [
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

const GAUGES: [Row<ServerCounters>; 3] = [
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

pub(super) fn render(text: &mut Text, sampler: &Sampler, overview: Option<&Overview>) {
    let view = sampler.view();
    for (name, help, value) in COUNTERS {
        by_server(text.counter(name, help), view, value);
    }
    for (name, help, value) in GAUGES {
        by_server(text.gauge(name, help), view, value);
    }
    responses(text, view);
    failures(text, view);
    retries(text, view);
    latencies(text, sampler);
    sticky(text, view);
    weights(text, view, overview);
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

/// Each server once for each kind of what is counted.
fn by_kind<K: Copy>(
    mut family: Family<'_>,
    view: &View,
    label: &str,
    kinds: &[(K, &str)],
    value: fn(&ServerCounters, K) -> u64,
) {
    for (index, upstream, server) in view.servers() {
        for &(kind, name) in kinds {
            let counters = view.server_counters(index);
            let sum: u64 = counters.map(|server| value(server, kind)).sum();
            let labels = [
                ("upstream", &*upstream.name),
                ("server", &server.name),
                (label, name),
            ];
            family.sample(&labels, sum);
        }
    }
}

fn responses(text: &mut Text, view: &View) {
    let family = text.counter(
        "ringlane_upstream_responses_total",
        "Final responses received, by status class.",
    );
    let classes: Vec<_> = StatusClasses::NAMES.into_iter().enumerate().collect();
    by_kind(family, view, "class", &classes, |server, class| {
        server.responses.get()[class]
    });
}

fn failures(text: &mut Text, view: &View) {
    let family = text.counter(
        "ringlane_upstream_failures_total",
        "Failed attempts, by their kind.",
    );
    let kinds = FailureKind::ALL.map(|kind| (kind, kind.as_str()));
    by_kind(family, view, "kind", &kinds, |server, kind| {
        server.failure(kind).get()
    });
}

fn retries(text: &mut Text, view: &View) {
    let family = text.counter(
        "ringlane_upstream_retries_total",
        "Attempts that followed one on the server, by the reason.",
    );
    let kinds = RetryKind::ALL.map(|kind| (kind, kind.as_str()));
    by_kind(family, view, "reason", &kinds, |server, kind| {
        server.retry(kind).get()
    });
}

fn latencies(text: &mut Text, sampler: &Sampler) {
    let mut family = text.histogram(
        "ringlane_upstream_response_seconds",
        "Time to response head.",
    );
    for (index, upstream, server) in sampler.view().servers() {
        family.distribution(
            &[("upstream", &upstream.name), ("server", &server.name)],
            &sampler.latency(index),
        );
    }
}

/// Of the upstreams whose clients are sticky.
fn sticky(text: &mut Text, view: &View) {
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
