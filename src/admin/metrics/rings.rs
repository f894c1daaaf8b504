//! What goes through the shards' rings, of those that can be looked at.

use super::Row;
use crate::telemetry::counters::RingCounters;
use crate::telemetry::prometheus::Text;
use crate::telemetry::view::View;

const COUNTERS: [Row<RingCounters>; 6] = [
    (
        "ringlane_ring_submissions_total",
        "Submissions that the kernel took.",
        |ring| ring.submissions.get(),
    ),
    (
        "ringlane_ring_completions_total",
        "Completions that the kernel queued.",
        |ring| ring.completions.get(),
    ),
    (
        "ringlane_ring_sq_full_total",
        "Turns of the sweeper in which the submission queue was full.",
        |ring| ring.sq_full.get(),
    ),
    (
        "ringlane_ring_sq_dropped_total",
        "Submissions that the kernel dropped as invalid.",
        |ring| ring.sq_dropped.get(),
    ),
    (
        "ringlane_ring_cq_overflows_total",
        "Turns of the sweeper that found the completion queue overflowed.",
        |ring| ring.cq_overflows.get(),
    ),
    (
        "ringlane_ring_cq_lost_total",
        "Completions lost for a full completion queue.",
        |ring| ring.cq_lost.get(),
    ),
];

pub(super) fn render(text: &mut Text, view: &View) {
    let known: Vec<_> = (0..)
        .zip(view.shards.iter())
        .map(|(shard, counters): (usize, _)| (shard.to_string(), &counters.ring))
        .filter(|(_, ring)| ring.known.get() == 1)
        .collect();
    if known.is_empty() {
        return;
    }
    for (name, help, value) in COUNTERS {
        let mut family = text.counter(name, help);
        for (shard, ring) in &known {
            family.sample(&[("shard", shard)], value(ring));
        }
    }
}
