//! The status page as tables for people.

use std::fmt::Write as _;

use serde_json::Value;

/// A column: its title, and what it shows of a row.
type Column = (&'static str, fn(&Value) -> String);

const SERVERS: [Column; 12] = [
    ("UPSTREAM", |row| text(&row["upstream"])),
    ("SERVER", |row| text(&row["name"])),
    ("STATE", |row| text(&row["state"])),
    ("WEIGHT", |row| text(&row["weight"])),
    ("ACTIVE", |row| text(&row["active"])),
    ("IDLE", |row| text(&row["idle"])),
    ("REQUESTS", |row| text(&row["requests"])),
    ("FAILURES", |row| sum(&row["failures"]).to_string()),
    ("P50", |row| milliseconds(&row["recent_latency"]["p50_us"])),
    ("P99", |row| milliseconds(&row["recent_latency"]["p99_us"])),
    ("SINCE", |row| text(&row["since"])),
    ("REASON", |row| text(&row["reason"])),
];

const SHARDS: [Column; 7] = [
    ("SHARD", |row| text(&row["number"])),
    ("CPU", |row| text(&row["cpu"])),
    ("BUSY", |row| percent(&row["busy_share"])),
    ("CONNECTIONS", |row| text(&row["connections"])),
    ("ACTIVE", |row| text(&row["active"])),
    ("REQUESTS", |row| text(&row["requests"])),
    ("STATE", shard_state),
];

/// The whole page.
pub(super) fn page(status: &Value) -> String {
    let mut out = headline(status);
    out.push('\n');
    table(&mut out, &SERVERS, &servers(status));
    out.push('\n');
    table(&mut out, &SHARDS, list(&status["shards"]));
    out
}

/// One server after an order.
pub(super) fn line(upstream: &str, server: &Value) -> String {
    format!(
        "{upstream} {}: {}, weight {}, {} active\n",
        text(&server["name"]),
        text(&server["state"]),
        text(&server["weight"]),
        text(&server["active"])
    )
}

fn headline(status: &Value) -> String {
    let mut out = format!(
        "ringlane {}, pid {}, up {} s, {}",
        text(&status["version"]),
        text(&status["pid"]),
        text(&status["uptime_s"]),
        text(&status["io"]["mode"])
    );
    if status["draining"] == true {
        out += ", draining";
    }
    if status["health"]["stale"] == true {
        out += ", health is STALE";
    }
    out + "\n"
}

/// Each server, with the name of its upstream.
fn servers(status: &Value) -> Vec<Value> {
    let mut rows = Vec::new();
    for upstream in list(&status["upstreams"]) {
        for server in list(&upstream["servers"]) {
            let mut row = server.clone();
            if let Some(row) = row.as_object_mut() {
                row.insert("upstream".to_owned(), upstream["name"].clone());
            }
            rows.push(row);
        }
    }
    rows
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn sum(counts: &Value) -> u64 {
    let counts = counts
        .as_object()
        .into_iter()
        .flat_map(|counts| counts.values());
    counts.filter_map(Value::as_u64).sum()
}

fn milliseconds(us: &Value) -> String {
    us.as_f64()
        .map_or_else(|| "-".to_owned(), |us| format!("{:.1}ms", us / 1e3))
}

fn percent(share: &Value) -> String {
    share
        .as_f64()
        .map_or_else(|| "-".to_owned(), |share| format!("{:.0}%", share * 100.0))
}

fn shard_state(shard: &Value) -> String {
    let state = match (&shard["running"], &shard["stalled"]) {
        (Value::Bool(false), _) => "not running",
        (_, Value::Bool(true)) => "stalled",
        _ => "running",
    };
    state.to_owned()
}

/// Columns as wide as their widest cell, two spaces apart.
fn table(out: &mut String, columns: &[Column], rows: &[Value]) {
    let titles = columns
        .iter()
        .map(|(title, _)| (*title).to_owned())
        .collect();
    let cells = rows
        .iter()
        .map(|row| columns.iter().map(|(_, show)| show(row)).collect());
    let lines: Vec<Vec<String>> = std::iter::once(titles).chain(cells).collect();
    let width = |column: usize| {
        let widths = lines.iter().map(|line| line[column].chars().count());
        widths.max().unwrap_or_default()
    };
    let widths: Vec<_> = (0..columns.len()).map(width).collect();
    for line in &lines {
        let mut row = String::new();
        for (cell, width) in line.iter().zip(&widths) {
            // Writing to a string cannot fail.
            let _ = write!(row, "{cell:width$}  ");
        }
        out.push_str(row.trim_end());
        out.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_are_aligned_and_what_is_unknown_is_a_dash() {
        let status = json!({
            "version": "1.2.3", "pid": 7, "uptime_s": 60, "draining": false, "io": {"mode": "epoll"},
            "health": {"stale": true},
            "upstreams": [{"name": "app", "servers": [
                {"name": "a", "state": "draining", "weight": 5, "active": 2, "idle": 0, "requests": 1000,
                 "failures": {"closed": 2, "truncated": 1}, "recent_latency": {"p50_us": 1500, "p99_us": null},
                 "since": "2026-01-01T00:00:00Z", "reason": "an operator's order"},
            ]}],
            "shards": [{"number": 0, "cpu": null, "busy_share": 0.256, "connections": 1, "active": 1, "requests": 1000,
                        "running": true, "stalled": false}],
        });
        let expected = "\
ringlane 1.2.3, pid 7, up 60 s, epoll, health is STALE

UPSTREAM  SERVER  STATE     WEIGHT  ACTIVE  IDLE  REQUESTS  FAILURES  P50    P99  SINCE                 REASON
app       a       draining  5       2       0     1000      3         1.5ms  -    2026-01-01T00:00:00Z  an operator's order

SHARD  CPU  BUSY  CONNECTIONS  ACTIVE  REQUESTS  STATE
0      -    26%   1            1       1000      running
";
        assert_eq!(page(&status), expected);
        let server = &status["upstreams"][0]["servers"][0];
        assert_eq!(line("app", server), "app a: draining, weight 5, 2 active\n");
    }
}
