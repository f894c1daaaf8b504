//! What each shard counts.

use super::Row;
use crate::telemetry::counters::{OwnAnswers, ShardCounters, StatusClasses, TimeoutKind};
use crate::telemetry::process::thread_cpu_time;
use crate::telemetry::prometheus::{Family, Text};
use crate::telemetry::view::View;

const COUNTERS: [Row<ShardCounters>; 22] = [
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
        "ringlane_refused_memory_total",
        "Requests answered 503 because memory was short.",
        |shard| shard.refused_memory.get(),
    ),
    (
        "ringlane_requests_total",
        "Requests begun, also those whose head was refused or did not come in time.",
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
        "ringlane_short_writes_total",
        "Sends that took a part of what they were given.",
        |shard| shard.short_writes.get(),
    ),
    (
        "ringlane_interrupted_calls_total",
        "Sends and receives that a signal interrupted and that were made again.",
        |shard| shard.interrupted_calls.get(),
    ),
    (
        "ringlane_send_shortages_total",
        "Sends that failed for want of memory, descriptors or watches and were made again.",
        |shard| shard.send_shortages.get(),
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

const GAUGES: [Row<ShardCounters>; 4] = [
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

pub(super) fn render(text: &mut Text, view: &View) {
    for (name, help, value) in COUNTERS {
        by_shard(text.counter(name, help), view, value);
    }
    for (name, help, value) in GAUGES {
        by_shard(text.gauge(name, help), view, value);
    }
    cpu(text, view);
    responses(text, view);
    timeouts(text, view);
    own_answers(text, view);
}

fn by_shard(mut family: Family<'_>, view: &View, value: fn(&ShardCounters) -> u64) {
    for (shard, counters) in numbered(view) {
        family.sample(&[("shard", &shard)], value(counters));
    }
}

fn cpu(text: &mut Text, view: &View) {
    let mut family = text.counter(
        "ringlane_cpu_seconds_total",
        "CPU time of the shard's thread.",
    );
    for (shard, counters) in numbered(view) {
        if let Some(time) = counters.running_thread().and_then(thread_cpu_time) {
            family.sample(&[("shard", &shard)], time.as_secs_f64());
        }
    }
}

fn responses(text: &mut Text, view: &View) {
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

fn timeouts(text: &mut Text, view: &View) {
    let mut family = text.counter(
        "ringlane_timeouts_total",
        "Waits that a timeout or a least rate ended, of failed attempts too, by kind.",
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
    for (status, count) in OwnAnswers::sums(view.shards.iter().map(|shard| &shard.own_answers)) {
        family.sample(&[("status", &status)], count);
    }
}

/// Each shard with its number as label value.
fn numbered(view: &View) -> impl Iterator<Item = (String, &ShardCounters)> {
    view.shards
        .iter()
        .enumerate()
        .map(|(shard, counters)| (shard.to_string(), &**counters))
}
