//! The health monitor of this process: what it watches, and what is said about it.

use std::io;
use std::sync::Arc;

use http::HeaderValue;

use crate::config::Config;
use crate::health::overview::{History, Overview};
use crate::health::{Change, Group, Locate, Monitor, State, Steer, Target};
use crate::net::connect::Options;
use crate::net::source::Sources;
use crate::upstream::place::Places;
use crate::upstream::watch::Source;

/// The running monitor and those who look at it.
pub(super) struct Health {
    /// Stops when dropped.
    pub(super) _monitor: Monitor,
    /// For the status listener.
    pub(super) overview: Arc<Overview>,
    /// For each shard.
    pub(super) sources: Vec<Source>,
}

/// Starts the monitor, unless no upstream has its servers checked and nobody can give orders.
pub(super) fn start(config: &Config, places: &Places, shards: usize) -> io::Result<Option<Health>> {
    let groups = groups(config, places);
    let is_checked = |group: &Group| group.check.is_some() || group.passive.is_some();
    let steered = config.admin.as_ref().is_some_and(|admin| admin.orders);
    if !steered && !groups.iter().any(is_checked) {
        return Ok(None);
    }
    let checked = groups
        .iter()
        .flat_map(|group| vec![is_checked(group); group.servers.len()]);
    let checked: Vec<bool> = checked.collect();
    let history = Arc::new(History::new(checked.len()));
    let on_change = {
        let (names, history) = (names(config), Arc::clone(&history));
        move |change: &Change| {
            let (upstream, server) = &names[change.server];
            log(upstream, server, change);
            history.record(change);
        }
    };
    let (monitor, reporters) = Monitor::start(groups, shards, on_change)?;
    let source = |reporter| Source {
        table: Arc::clone(monitor.table()),
        clock: monitor.clock(),
        reporter,
        steered,
    };
    Ok(Some(Health {
        sources: reporters.into_iter().map(source).collect(),
        overview: Arc::new(Overview::new(&monitor, history, checked)),
        _monitor: monitor,
    }))
}

fn groups(config: &Config, places: &Places) -> Vec<Group> {
    let mut id = 0..;
    let upstreams = config.upstreams.iter();
    let group = |upstream: &crate::config::Upstream| Group {
        servers: upstream
            .servers
            .iter()
            .zip(id.by_ref())
            .map(|(server, id)| Target {
                upstream: upstream.name.clone(),
                name: server.name.clone(),
                locate: locate(places, id),
                host: HeaderValue::try_from(server.address.host_field())
                    .unwrap_or(HeaderValue::from_static("localhost")),
                connecting: Options {
                    sources: Sources::new(&upstream.sources),
                    takes_last: true,
                    ..Options::default()
                },
                weight: server.weight,
            })
            .collect(),
        check: upstream.health.clone(),
        passive: upstream.passive.clone(),
    };
    upstreams.map(group).collect()
}

fn locate(places: &Places, id: usize) -> Locate {
    let places = Arc::clone(places);
    Arc::new(move || places[id].get().map_or_else(Vec::new, |all| all.to_vec()))
}

/// Upstream and server, by flat index.
fn names(config: &Config) -> Vec<(String, String)> {
    let upstreams = config.upstreams.iter();
    let names = upstreams.flat_map(|upstream| {
        let servers = upstream.servers.iter();
        servers.map(|server| (upstream.name.clone(), server.name.clone()))
    });
    names.collect()
}

fn log(upstream: &str, server: &str, change: &Change) {
    match change.steer {
        None => log_state(upstream, server, change),
        Some(Steer::Order(order)) => {
            tracing::info!(upstream, server, order = order.as_str(), "order taken");
        }
        Some(Steer::Weight(Some(weight))) => {
            tracing::info!(upstream, server, weight, "order taken");
        }
        Some(Steer::Weight(None)) => {
            tracing::info!(upstream, server, weight = "as configured", "order taken");
        }
    }
}

fn log_state(upstream: &str, server: &str, Change { before, entry, .. }: &Change) {
    let (from, state, reason) = (before.state.as_str(), entry.state.as_str(), entry.cause);
    if entry.state == State::Up {
        tracing::info!(upstream, server, from, state, %reason, "server changed its state");
    } else {
        tracing::warn!(upstream, server, from, state, %reason, "server changed its state");
    }
}
