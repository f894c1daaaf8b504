//! The servers' health on the status page.

use std::time::SystemTime;

use serde::Serialize;

use crate::health::overview::Overview;
use crate::health::table::{Entry, LastProbe};
use crate::health::{Cause, Change, Order, Steer};
use crate::telemetry::date::{Utc, unix_seconds};
use crate::telemetry::view::{ServerView, View};

/// The monitor, and what happened lately.
#[derive(Serialize)]
pub(super) struct Health<'a> {
    /// Milliseconds since the monitor last showed that it lives; null while it is being started again.
    age_ms: Option<u64>,
    /// What is shown of health may no longer be true.
    stale: bool,
    /// How often the monitor has died and was started again.
    restarts: u64,
    /// Newest first.
    history: Vec<Event<'a>>,
}

#[derive(Serialize)]
struct Event<'a> {
    at: String,
    upstream: &'a str,
    server: &'a str,
    /// The operator's order; null when the server's state has changed.
    order: Option<&'static str>,
    from: String,
    to: String,
    reason: String,
}

impl<'a> Health<'a> {
    pub(super) fn new(view: &'a View, overview: &Overview) -> Self {
        let names: Vec<_> = view.servers().collect();
        let event = |change: Change| {
            let (_, upstream, server) = names[change.server];
            let (from, to) = step(&change, server);
            let reason = match change.steer {
                None => change.entry.cause.to_string(),
                Some(_) => ORDERED.to_owned(),
            };
            Event {
                at: text(change.at),
                upstream: &upstream.name,
                server: &server.name,
                order: change.steer.map(|steer| Steer::KINDS[steer.kind()]),
                from,
                to,
                reason,
            }
        };
        Self {
            age_ms: overview.age_ms(),
            stale: overview.is_stale(),
            restarts: overview.restarts(),
            history: overview.history.recent().into_iter().map(event).collect(),
        }
    }
}

/// From what to what a change led.
fn step(change: &Change, server: &ServerView) -> (String, String) {
    let step = |name: &dyn Fn(&Entry) -> String| (name(&change.before), name(&change.entry));
    match change.steer {
        None => step(&|entry| entry.state.as_str().to_owned()),
        Some(Steer::Order(_)) => step(&|entry| entry.order.as_str().to_owned()),
        Some(Steer::Weight(_)) => {
            step(&|entry| format!("weight {}", entry.weight.unwrap_or(server.weight)))
        }
    }
}

/// Why a server is in a state that an operator has put it into.
const ORDERED: &str = "an operator's order";

/// A server's health and orders; null where nobody checks or ordered anything.
#[derive(Default, Serialize)]
pub(super) struct ServerHealth {
    /// `up`, `down`, `ejected`, or `unchecked`: it is tried in its turn. By order: `draining`, `drained` when nothing runs on it any
    /// more, or `down`.
    state: &'static str,
    /// `drain` or `down` while an operator has taken it out.
    order: Option<&'static str>,
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
    /// `known` has the server's entry; `server` is the flat index; `active` is how much runs on it.
    pub(super) fn new(known: Option<(&Overview, Entry)>, server: usize, active: u64) -> Self {
        let told = |(overview, entry): &(&Overview, Entry)| {
            overview.checks(server) || entry.order != Order::Serve
        };
        let Some((overview, entry)) = known.filter(told) else {
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
        let (state, since_ms) = shown(&entry, active);
        let order = Some(entry.order).filter(|order| *order != Order::Serve);
        let reason = order.map_or_else(|| entry.cause.to_string(), |_| ORDERED.to_owned());
        Self {
            state,
            order: order.map(Order::as_str),
            since: Some(text(overview.clock.at(since_ms))),
            reason: Some(reason),
            last_probe: entry.last_probe.map(probe),
        }
    }
}

/// The state of a server on which `active` run, orders included, and since when, in milliseconds of the monitor's clock.
fn shown(entry: &Entry, active: u64) -> (&'static str, u64) {
    match entry.order {
        Order::Serve if entry.serves() => (entry.state.as_str(), entry.serves_since_ms()),
        Order::Serve => (entry.state.as_str(), entry.since_ms),
        Order::Drain if active == 0 => ("drained", entry.ordered_ms),
        Order::Drain => ("draining", entry.ordered_ms),
        Order::Down => ("down", entry.ordered_ms),
    }
}

fn text(at: SystemTime) -> String {
    Utc::from_unix_seconds(unix_seconds(at)).rfc3339()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::State;

    #[test]
    fn a_state_lasts_since_it_came_or_was_ordered() {
        use Order::{Down, Drain, Serve};
        let cases = [
            (Serve, State::Up, 10, 0, ("up", 10)),
            (Serve, State::Up, 10, 20, ("up", 20)),
            (Serve, State::Up, 30, 20, ("up", 30)),
            (Serve, State::Ejected, 10, 20, ("ejected", 10)),
            (Serve, State::Down, 10, 20, ("down", 10)),
            (Drain, State::Up, 30, 20, ("draining", 20)),
            (Down, State::Up, 30, 20, ("down", 20)),
        ];
        for (order, state, since_ms, ordered_ms, expected) in cases {
            let entry = Entry {
                state,
                since_ms,
                order,
                ordered_ms,
                ..Entry::ASSUMED_UP
            };
            assert_eq!(shown(&entry, 1), expected, "{entry:?}");
        }
    }
}
