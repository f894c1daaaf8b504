//! Whole files: what is complained about, where, and what a good file becomes.

mod mistakes;
mod upstream_mistakes;

use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

/// A valid file's end; each case puts its own lines before or after it.
const REST: &str = r#"
[[listen]]
address = "127.0.0.1:8080"
[[upstream]]
name = "app"
server = [{ address = "127.0.0.1:9001" }]
"#;

/// Complaints as `severity line: message (help)`.
fn complaints(text: &str) -> Vec<String> {
    let reading = Reading::parse(text, "test.toml");
    let is_error = |complaint: &Complaint| complaint.severity == Severity::Error;
    let refused = reading.complaints.iter().any(is_error);
    assert_eq!(reading.config.is_none(), refused, "{text}");
    let short = |complaint: &Complaint| {
        let severity = if is_error(complaint) {
            "error"
        } else {
            "warning"
        };
        let line = complaint.place.as_ref().map_or(0, |place| place.line);
        let help = complaint
            .help
            .as_ref()
            .map_or(String::new(), |help| format!(" ({help})"));
        format!("{severity} {line}: {}{help}", complaint.message)
    };
    reading.complaints.iter().map(short).collect()
}

/// Complains unless the file has exactly these complaints, each given by its beginning.
fn assert_complaints(text: &str, expected: &[&str]) {
    let found = complaints(text);
    let same = found
        .iter()
        .zip(expected)
        .all(|(found, expected)| found.starts_with(expected));
    assert!(
        same && found.len() == expected.len(),
        "{text}\nexpected {expected:#?}\nfound {found:#?}"
    );
}

/// Complains unless a valid file with each of these lines after its six has exactly these complaints.
fn assert_each(cases: &[(&str, &[&str])]) {
    for (lines, expected) in cases {
        assert_complaints(&format!("{REST}{lines}\n"), expected);
    }
}

fn good(text: &str) -> Config {
    Config::parse(text, "test.toml").unwrap_or_else(|complaints| panic!("{complaints:#?}"))
}

#[test]
fn short_intervals_cut_what_is_not_given() {
    let health = |lines: &str| {
        let config = good(&format!("{REST}health = {{ {lines} }}\n"));
        config.upstreams[0].health.clone().expect("checks are on")
    };
    let check = health("interval = \"500ms\"");
    let half = Duration::from_millis(500);
    assert_eq!((check.timeout, check.fast_interval), (half, half));
    let config = good(&format!("{REST}passive = {{ eject_max = \"5s\" }}\n"));
    let passive = config.upstreams[0].passive.as_ref().expect("on");
    assert_eq!(passive.eject, Duration::from_secs(5));
    let config = good(&format!("{REST}passive = {{ eject = \"10m\" }}\n"));
    let passive = config.upstreams[0].passive.as_ref().expect("on");
    assert_eq!(passive.eject_max, Duration::from_secs(600));
}

#[test]
fn all_mistakes_come_at_once_and_in_order() {
    let text = "pin = 1\nio = 2\nx = 3\n[log]\nlevel = 4\n[[listen]]\nbacklog = 0\n[[upstream]]\nname = \"\"\n";
    let places = [
        "error 1", "error 2", "error 3", "error 5", "error 6", "error 7", "error 8", "error 9",
    ];
    assert_complaints(text, &places);
}

#[test]
fn a_listener_and_an_upstream_are_needed() {
    for text in ["", "listen = []\nupstream = []"] {
        assert_complaints(
            text,
            &[
                "error 0: there is no [[listen]]",
                "error 0: there is no [[upstream]]",
            ],
        );
    }
}

#[test]
fn the_shortest_file_has_an_implied_route() {
    let config = good(REST);
    let route = Route {
        host: HostPattern::Any,
        path: "/".to_owned(),
        upstream: 0,
        strip_prefix: false,
    };
    assert_eq!(config.routes, [route]);
    assert_eq!(config.shards, Shards::Auto);
    assert_eq!(config.access_log, None);
    assert_eq!(config.timeouts.keep_alive, Duration::from_secs(75));
    assert_eq!(config.upstreams[0].servers[0].name, "127.0.0.1:9001");
}

#[test]
fn what_is_given_arrives() {
    let config = good(
        r#"
cpus = "0-1,4"
access_log = { path = "/var/log/ringlane.log" }
admin.enabled = false
limits = { head = 2048, body = "10MiB", connections = 1000 }
listen = [{ address = "127.0.0.1:0" }, { address = "127.0.0.1:0" }]
[[upstream]]
name = "a"
host = "origin.example:8080"
pool = { max_age = "off", max_idle = 0 }
[[upstream.server]]
address = "unix:/run/a.sock"
name = "first"
[[upstream.server]]
address = "B.example:80"
[[upstream]]
name = "b"
host = "upstream"
resolve = "30s"
server = [{ address = "c.example:80" }]
[[route]]
host = "*.Example.com"
path = "/api"
upstream = "b"
strip_prefix = true
[[route]]
upstream = "a"
"#,
    );
    assert_eq!(config.shards, Shards::Cpus(vec![0, 1, 4]));
    assert_eq!(
        config.access_log.map(|log| log.path),
        Some(Some("/var/log/ringlane.log".into()))
    );
    assert_eq!(config.admin, None);
    assert_eq!(
        (config.limits.head_bytes, config.limits.body_bytes),
        (2048, Some(10 << 20))
    );
    assert_eq!(config.limits.connections, Some(1000));
    assert_eq!(config.listens.len(), 2);
    let [a, b] = config.upstreams.as_slice() else {
        panic!("two upstreams")
    };
    assert_eq!(a.host, HostPolicy::Fixed("origin.example:8080".to_owned()));
    assert_eq!((a.pool.max_age, a.pool.max_idle), (None, 0));
    assert_eq!(a.servers[0].name, "first");
    assert_eq!(
        a.servers[1].address,
        ServerAddress::Name("b.example".to_owned(), 80)
    );
    assert_eq!(
        (&b.host, b.resolve),
        (&HostPolicy::Upstream, Some(Duration::from_secs(30)))
    );
    assert_eq!(
        config.routes[0].host,
        HostPattern::Suffix(".example.com".to_owned())
    );
    assert_eq!(
        (config.routes[0].upstream, config.routes[0].strip_prefix),
        (1, true)
    );
    assert_eq!(config.routes[1].upstream, 0);
}

#[test]
fn an_unreadable_file_is_complained_about() {
    let found = Reading::load(Path::new("/nonexistent/ringlane.toml")).complaints;
    assert!(found[0].message.contains("cannot be read"), "{found:?}");
    assert_eq!(found[0].file, "/nonexistent/ringlane.toml");
}

/// Headers, keys and values thrown together, so that most cases get beyond the TOML parser.
fn line() -> impl Strategy<Value = String> {
    let headers = [
        "[[listen]]",
        "[[upstream]]",
        "[[upstream.server]]",
        "[[route]]",
        "[log]",
        "[admin]",
        "[upstream]",
    ];
    let key = prop::sample::select(vec![
        "listen", "upstream", "route", "server", "log", "host", "address", "name", "pool",
    ]);
    let value = prop_oneof![
        "1|-1|1\\.5|true|\\[\\]|\\{\\}|\\[\\{\\}\\]|\\[1\\]",
        "\"[a-z:/.*0-9-]{0,8}\""
    ];
    prop_oneof![
        prop::sample::select(headers.to_vec()).prop_map(str::to_owned),
        (key, value).prop_map(|(key, value)| format!("{key} = {value}")),
    ]
}

proptest! {
    #[test]
    fn no_file_panics(lines in prop::collection::vec(line(), 0..8)) {
        let reading = Reading::parse(&lines.join("\n"), "test.toml");
        prop_assert!(reading.config.is_some() || !reading.complaints.is_empty());
        for complaint in reading.complaints {
            prop_assert!(complaint.to_string().contains("test.toml"));
        }
    }
}
