//! The rows of `ringlane top`, their columns and their order.

use clap::ValueEnum;
use serde_json::Value;

use crate::cli::table::{
    Column, left, milliseconds, or_dash, percent, right, shard_state, sum, text,
};

/// How a row looks, where there is colour. Its words say the same. The worst is the greatest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Mood {
    Plain,
    Title,
    Warning,
    Bad,
}

/// What the servers are sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Sort {
    /// As the configuration has them
    #[default]
    Configured,
    /// The unhealthy first
    State,
    /// The busiest first
    Requests,
    /// Most exchanges running first
    Active,
    /// The slowest first
    P99,
    /// Most failures first
    Failures,
}

impl Sort {
    /// The column after this one.
    pub(super) fn next(self) -> Self {
        let all = Self::value_variants();
        let at = all.iter().position(|each| *each == self);
        at.map_or(self, |at| all[(at + 1) % all.len()])
    }

    /// As on the command line.
    pub(super) fn name(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// What is larger comes first.
    pub(super) fn key(self, server: &Server) -> f64 {
        let of = &server.value;
        match self {
            Self::Configured => 0.0,
            Self::State => match server.mood() {
                Mood::Bad => 2.0,
                Mood::Warning => 1.0,
                _ => 0.0,
            },
            Self::Requests => server.rate.unwrap_or(0.0),
            Self::Active => of["active"].as_f64().unwrap_or(0.0),
            Self::P99 => of["recent_latency"]["p99_us"].as_f64().unwrap_or(0.0),
            Self::Failures => sum(&of["failures"]).unwrap_or(0) as f64,
        }
    }
}

/// A server, and what it does in a second.
pub(super) struct Server {
    pub(super) upstream: Value,
    pub(super) value: Value,
    pub(super) rate: Option<f64>,
}

impl Server {
    pub(super) fn mood(&self) -> Mood {
        match self.value["state"].as_str() {
            Some("up" | "unchecked") => Mood::Plain,
            // A server that an operator has taken out is no trouble, but not to be forgotten.
            Some("down") if self.value["order"].is_null() => Mood::Bad,
            _ => Mood::Warning,
        }
    }
}

/// A shard, and what it does in a second.
pub(super) struct Shard {
    pub(super) value: Value,
    pub(super) rate: Option<f64>,
}

impl Shard {
    pub(super) fn mood(&self) -> Mood {
        match shard_state(&self.value) {
            "running" => Mood::Plain,
            "stalled" => Mood::Warning,
            _ => Mood::Bad,
        }
    }
}

pub(super) const SERVERS: [Column<Server>; 17] = [
    left("UPSTREAM", |row| text(&row.upstream)),
    left("SERVER", |row| text(&row.value["name"])),
    left("STATE", |row| text(&row.value["state"])),
    left("ORDER", |row| text(&row.value["order"])),
    right("WEIGHT", |row| weight(&row.value)),
    right("SHARE", |row| percent(&row.value["share"])),
    right("REQ/S", |row| number(row.rate)),
    right("ACTIVE", |row| text(&row.value["active"])),
    right("IDLE", |row| text(&row.value["idle"])),
    right("P50", |row| {
        milliseconds(&row.value["recent_latency"]["p50_us"])
    }),
    right("P90", |row| {
        milliseconds(&row.value["recent_latency"]["p90_us"])
    }),
    right("P99", |row| {
        milliseconds(&row.value["recent_latency"]["p99_us"])
    }),
    right("FAILED", |row| or_dash(sum(&row.value["failures"]))),
    right("RETRIED", |row| or_dash(sum(&row.value["retries"]))),
    right("PROBE", |row| {
        milliseconds(&row.value["last_probe"]["took_us"])
    }),
    left("SINCE", |row| text(&row.value["since"])),
    left("REASON", |row| text(&row.value["reason"])),
];

pub(super) const SHARDS: [Column<Shard>; 8] = [
    left("SHARD", |row| text(&row.value["number"])),
    left("STATE", |row| shard_state(&row.value).to_owned()),
    right("CPU", |row| text(&row.value["cpu"])),
    right("BUSY", |row| percent(&row.value["busy_share"])),
    right("SHARE", |row| percent(&row.value["share"])),
    right("REQ/S", |row| number(row.rate)),
    right("CONNECTIONS", |row| text(&row.value["connections"])),
    right("ACTIVE", |row| text(&row.value["active"])),
];

/// The weight that holds, and the configured one in parentheses where that is another.
fn weight(server: &Value) -> String {
    let (weight, configured) = (&server["weight"], &server["configured_weight"]);
    if configured.is_null() || weight == configured {
        return text(weight);
    }
    format!("{} ({})", text(weight), text(configured))
}

/// A rate, to the tenth.
pub(super) fn number(value: Option<f64>) -> String {
    or_dash(value.map(|value| format!("{value:.1}")))
}
