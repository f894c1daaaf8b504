//! The servers' health on the status page.

use std::time::SystemTime;

use serde::Serialize;

use crate::health::overview::Overview;
use crate::health::table::LastProbe;
use crate::health::{Cause, Change};
use crate::telemetry::date::{Utc, unix_seconds};
use crate::telemetry::view::View;

/// The monitor, and what happened lately.
#[derive(Serialize)]
pub(super) struct Health<'a> {
    /// Milliseconds since the monitor last showed that it lives; null while it is being started again.
    age_ms: Option<u64>,
    /// Newest first.
    history: Vec<Event<'a>>,
}

#[derive(Serialize)]
struct Event<'a> {
    at: String,
    upstream: &'a str,
    server: &'a str,
    from: &'static str,
    to: &'static str,
    reason: String,
}

impl<'a> Health<'a> {
    pub(super) fn new(view: &'a View, overview: &Overview) -> Self {
        let names: Vec<_> = view.servers().collect();
        let event = |change: Change| {
            let (_, upstream, server) = names[change.server];
            Event {
                at: text(change.at),
                upstream: &upstream.name,
                server: &server.name,
                from: change.from.as_str(),
                to: change.entry.state.as_str(),
                reason: change.entry.cause.to_string(),
            }
        };
        Self {
            age_ms: overview.age_ms(),
            history: overview.history.recent().into_iter().map(event).collect(),
        }
    }
}

/// A server's health; null where nobody checks it.
#[derive(Default, Serialize)]
pub(super) struct ServerHealth {
    /// `up`, `down`, `ejected`, or `unchecked`: it is tried in its turn.
    state: &'static str,
    since: Option<String>,
    reason: Option<String>,
    last_probe: Option<Probe>,
}

#[derive(Serialize)]
struct Probe {
    at: String,
    took_us: u32,
    ok: bool,
    result: String,
}

impl ServerHealth {
    /// `server` is the flat index.
    pub(super) fn new(overview: Option<&Overview>, server: usize) -> Self {
        let known = overview.and_then(|overview| Some((overview, overview.entry(server)?)));
        let Some((overview, entry)) = known else {
            return Self {
                state: "unchecked",
                ..Self::default()
            };
        };
        let probe = |probe: LastProbe| Probe {
            at: text(overview.clock.at(probe.at_ms)),
            took_us: probe.took_us,
            ok: probe.result == Cause::ProbeOk,
            result: probe.result.to_string(),
        };
        Self {
            state: entry.state.as_str(),
            since: Some(text(overview.clock.at(entry.since_ms))),
            reason: Some(entry.cause.to_string()),
            last_probe: entry.last_probe.map(probe),
        }
    }
}

fn text(at: SystemTime) -> String {
    Utc::from_unix_seconds(unix_seconds(at)).rfc3339()
}
