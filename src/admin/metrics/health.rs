//! What is known of the health of the servers that somebody checks.

use crate::health::overview::Overview;
use crate::health::table::Entry;
use crate::health::{Cause, State};
use crate::telemetry::date::unix_seconds;
use crate::telemetry::prometheus::Text;
use crate::telemetry::view::View;

/// A server that somebody checks: its place, what is known of it, its upstream's name and its own.
type Checked<'a> = (usize, Entry, &'a str, &'a str);

pub(super) fn render(text: &mut Text, view: &View, overview: &Overview) {
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
