//! The status page as tables for people.

use serde_json::Value;

use crate::cli::table::{
    Column, headline, left, list, milliseconds, or_dash, percent, plain, shard_state, sum, table,
    text,
};

const SERVERS: [Column<Value>; 12] = [
    left("UPSTREAM", |row| text(&row["upstream"])),
    left("SERVER", |row| text(&row["name"])),
    left("STATE", |row| text(&row["state"])),
    left("WEIGHT", |row| text(&row["weight"])),
    left("ACTIVE", |row| text(&row["active"])),
    left("IDLE", |row| text(&row["idle"])),
    left("REQUESTS", |row| text(&row["requests"])),
    left("FAILURES", |row| or_dash(sum(&row["failures"]))),
    left("P50", |row| milliseconds(&row["recent_latency"]["p50_us"])),
    left("P99", |row| milliseconds(&row["recent_latency"]["p99_us"])),
    left("SINCE", |row| text(&row["since"])),
    left("REASON", |row| text(&row["reason"])),
];

const SHARDS: [Column<Value>; 7] = [
    left("SHARD", |row| text(&row["number"])),
    left("CPU", |row| text(&row["cpu"])),
    left("BUSY", |row| percent(&row["busy_share"])),
    left("CONNECTIONS", |row| text(&row["connections"])),
    left("ACTIVE", |row| text(&row["active"])),
    left("REQUESTS", |row| text(&row["requests"])),
    left("STATE", |row| shard_state(row).to_owned()),
];

/// The whole page.
pub(super) fn page(status: &Value) -> String {
    let mut lines = vec![headline(status), String::new()];
    lines.extend(table(&SERVERS, &servers(status)));
    lines.push(String::new());
    lines.extend(table(&SHARDS, list(&status["shards"])));
    lines.iter().map(|line| plain(line) + "\n").collect()
}

/// One server after an order.
pub(super) fn line(upstream: &str, server: &Value) -> String {
    let line = format!(
        "{upstream} {}: {}, weight {}, {} active",
        text(&server["name"]),
        text(&server["state"]),
        text(&server["weight"]),
        text(&server["active"])
    );
    plain(&line) + "\n"
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nothing_in_a_status_steers_the_terminal() {
        let status = json!({
            "version": "\u{1b}[2J",
            "upstreams": [{"name": "a\nb", "servers": [{"name": "\u{9b}5m", "reason": "c\rd"}]}],
        });
        let page = page(&status);
        assert!(page.chars().all(|char| char == '\n' || !char.is_control()));
        assert!(
            ["?[2J", "a?b", "?5m", "c?d"]
                .iter()
                .all(|text| page.contains(text)),
            "{page}"
        );
    }

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

UPSTREAM  SERVER  STATE     WEIGHT  ACTIVE  IDLE  REQUESTS  FAILURES  P50     P99  SINCE                 REASON
app       a       draining  5       2       0     1000      3         1.50ms  -    2026-01-01T00:00:00Z  an operator's order

SHARD  CPU  BUSY   CONNECTIONS  ACTIVE  REQUESTS  STATE
0      -    25.6%  1            1       1000      running
";
        assert_eq!(page(&status), expected);
        let server = &status["upstreams"][0]["servers"][0];
        assert_eq!(line("app", server), "app a: draining, weight 5, 2 active\n");
    }
}
