//! What all shards together count of each upstream.

use super::Row;
use crate::telemetry::counters::UpstreamCounters;
use crate::telemetry::prometheus::{Family, Text};
use crate::telemetry::view::View;

const COUNTERS: [Row<UpstreamCounters>; 5] = [
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

pub(super) fn render(text: &mut Text, view: &View) {
    for (name, help, value) in COUNTERS {
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
