//! The status listener over real sockets, with counters filled by hand.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant, SystemTime};

use ringlane::admin::Admin;
use ringlane::config;
use ringlane::telemetry::counters::{Counter, FailureKind, ShardCounters, TimeoutKind};
use ringlane::telemetry::view::{IoReport, ServerView, UpstreamView, View};
use serde_json::{Value, json};

/// A name that is trouble in JSON and in labels.
const ODD_NAME: &str = "say \"hi\"\\\né";

/// Two shards; two upstreams, one with two servers and one with one.
fn view() -> Arc<View> {
    let server = |name: &str, address: &str| ServerView {
        name: name.into(),
        address: address.into(),
    };
    Arc::new(View {
        shards: (0..2).map(|_| Arc::new(ShardCounters::new(3))).collect(),
        upstreams: vec![
            UpstreamView {
                name: "app".into(),
                servers: vec![
                    server("a", "127.0.0.1:9001"),
                    server("b", "unix:/run/b.sock"),
                ],
            },
            UpstreamView {
                name: ODD_NAME.into(),
                servers: vec![server("c", "[::1]:9003")],
            },
        ],
        listens: vec!["0.0.0.0:8080".into()],
        routes: 4,
        io: IoReport {
            mode: "io_uring".into(),
            flags: "COOP_TASKRUN".into(),
            reason: Some("kernel 5.19 has no DEFER_TASKRUN".into()),
            ring_entries: 4096,
            send: "direct".into(),
        },
        started: SystemTime::UNIX_EPOCH + Duration::from_secs(971_186_136),
        started_instant: Instant::now(),
        shard_restarts: Counter::default(),
        draining: false.into(),
    })
}

/// Figures that differ by shard and server, so that a mix-up shows.
fn fill(view: &View) {
    let link = std::fs::read_link("/proc/thread-self").expect("proc is mounted");
    let thread_id = link
        .file_name()
        .and_then(|id| id.to_str()?.parse().ok())
        .expect("a thread id");
    view.shards[0].begin(thread_id, Some(3));
    view.shard_restarts.inc();
    for (number, shard) in (1..).zip(view.shards.iter()) {
        shard.accepted.add(10 * number);
        shard.connections.set(5 * number);
        shard.active.set(number);
        shard.requests.add(100 * number);
        (0..97 * number).for_each(|_| shard.responses.count(200));
        (0..number).for_each(|_| shard.responses.count(502));
        shard.own_answers.count(502);
        shard.own_answers.count(418);
        shard.timeout(TimeoutKind::ResponseHeader).add(number);
        shard.bytes_in.add(1000 * number);
        shard.new_upstream.add(7);
        for (server_number, server) in (1..).zip(&shard.servers) {
            server.requests.add(10 * number * server_number);
            server.active.set(server_number);
            server.idle.set(2 * server_number);
            server
                .failure(FailureKind::ConnectRefused)
                .add(server_number);
        }
        // Under 16 us each value has a bucket of its own, so the quantiles are exact.
        (1..=10).for_each(|us| shard.servers[1].latency.record(us));
    }
}

fn start(view: &Arc<View>) -> Admin {
    let config = config::Admin {
        address: (Ipv4Addr::LOCALHOST, 0).into(),
    };
    Admin::start(&config, Arc::clone(view)).expect("a free port")
}

fn filled() -> (Arc<View>, Admin) {
    let view = view();
    fill(&view);
    let admin = start(&view);
    (view, admin)
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

fn connect(admin: &Admin) -> TcpStream {
    let stream = TcpStream::connect(admin.address()).expect("it listens");
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("not zero");
    stream
}

fn read_answer(mut stream: &TcpStream) -> Answer {
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("UTF-8 to the end");
    let (head, body) = text.split_once("\r\n\r\n").expect("a whole head");
    let status = head
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3)?.parse().ok())
        .expect("a status line");
    Answer {
        status,
        head: format!("{head}\r\n"),
        body: body.into(),
    }
}

fn exchange(admin: &Admin, request: &str) -> Answer {
    let mut stream = connect(admin);
    stream.write_all(request.as_bytes()).expect("it reads");
    read_answer(&stream)
}

fn get(admin: &Admin, path: &str) -> Answer {
    exchange(
        admin,
        &format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", admin.address()),
    )
}

fn status_page(admin: &Admin) -> Value {
    serde_json::from_str(&get(admin, "/lb/status").body).expect("JSON")
}

#[test]
fn each_page_answers_to_get_and_head_alike() {
    let (_, admin) = filled();
    let pages = [
        ("/", "text/plain; charset=utf-8"),
        ("/lb/status", "application/json"),
        ("/metrics", "text/plain; version=0.0.4; charset=utf-8"),
        ("/healthz", "text/plain; charset=utf-8"),
    ];
    for (path, content_type) in pages {
        let answer = get(&admin, &format!("{path}?ignored=1"));
        assert_eq!(answer.status, 200, "{path}");
        for field in [
            format!("\r\nContent-Type: {content_type}\r\n"),
            format!("\r\nContent-Length: {}\r\n", answer.body.len()),
            "\r\nConnection: close\r\n".into(),
            "\r\nDate: ".into(),
        ] {
            assert!(answer.head.contains(&field), "{field} in {}", answer.head);
        }
        let head = exchange(
            &admin,
            &format!("HEAD {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        );
        assert_eq!((head.status, head.body.as_str()), (200, ""), "{path}");
        assert!(
            head.head
                .contains(&format!("\r\nContent-Type: {content_type}\r\n")),
            "{path}"
        );
    }
}

#[test]
fn other_requests_are_refused() {
    let (_, admin) = filled();
    let cases = [
        (
            "POST /lb/status HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}",
            405,
        ),
        ("DELETE / HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
        ("GET /lb/status/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (
            "GET /../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n",
            404,
        ),
        ("OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (
            "GET /lb/status HTTP/1.1\r\nHost: attacker.example\r\n\r\n",
            421,
        ),
        (
            "GET http://attacker.example/lb/status HTTP/1.1\r\nHost: localhost\r\n\r\n",
            421,
        ),
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("nonsense\r\n\r\n", 400),
        ("GET / HTTP/1.0\r\n\r\n", 200),
    ];
    for (request, status) in cases {
        let answer = exchange(&admin, request);
        assert_eq!(answer.status, status, "{request:?}: {}", answer.body);
        assert_eq!(
            answer.head.contains("\r\nAllow: GET, HEAD\r\n"),
            status == 405,
            "{request:?}"
        );
    }
}

#[test]
fn health_is_that_of_the_process() {
    let view = view();
    let admin = start(&view);
    assert_eq!(get(&admin, "/healthz").status, 503, "no shard runs yet");
    view.shards[1].begin(1, None);
    assert_eq!(get(&admin, "/healthz").status, 200);
    view.draining.store(true, Relaxed);
    assert_eq!(get(&admin, "/healthz").status, 503);
    assert_eq!(status_page(&admin)["draining"], true);
}

#[test]
fn the_status_page_says_what_runs() {
    let (_, admin) = filled();
    let status = status_page(&admin);
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(status["pid"], std::process::id());
    assert_eq!(status["started"], "2000-10-10T13:55:36Z");
    assert!(
        status["uptime_s"]
            .as_u64()
            .is_some_and(|seconds| seconds < 60),
        "{}",
        status["uptime_s"]
    );
    assert_eq!(status["shard_restarts"], 1);
    let io = json!({
        "mode": "io_uring", "flags": "COOP_TASKRUN", "reason": "kernel 5.19 has no DEFER_TASKRUN", "ring_entries": 4096,
        "send": "direct",
    });
    assert_eq!(status["io"], io);
    let config = json!({ "listen": ["0.0.0.0:8080"], "shards": 2, "routes": 4, "upstreams": 2, "servers": 3 });
    assert_eq!(status["config"], config);
    assert!(
        status["process"]["resident_bytes"]
            .as_u64()
            .is_some_and(|bytes| bytes > 100_000)
    );
    assert!(status["process"]["open_fds"].as_u64() <= status["process"]["max_fds"].as_u64());
}

#[test]
fn the_status_page_has_each_shard_and_the_totals() {
    let (_, admin) = filled();
    let status = status_page(&admin);
    let [first, second] = [&status["shards"][0], &status["shards"][1]];
    assert_eq!(
        (
            &first["running"],
            &first["cpu"],
            &second["running"],
            &second["cpu"]
        ),
        (&json!(true), &json!(3), &json!(false), &json!(null))
    );
    assert!(first["cpu_s"].is_number() && second["cpu_s"].is_null());
    assert!(first["busy_share"].is_null(), "one sample tells no share");
    for (key, values) in [
        ("accepted", [10, 20, 30]),
        ("connections", [5, 10, 15]),
        ("active", [1, 2, 3]),
        ("requests", [100, 200, 300]),
        ("bytes_in", [1000, 2000, 3000]),
        ("upstream_new", [7, 7, 14]),
        ("panics", [0, 0, 0]),
    ] {
        assert_eq!(
            [&first[key], &second[key], &status["totals"][key]],
            values.map(Value::from).each_ref(),
            "{key}"
        );
    }
    let totals = &status["totals"];
    assert_eq!(
        totals["responses"],
        json!({ "1xx": 0, "2xx": 291, "3xx": 0, "4xx": 0, "5xx": 3 })
    );
    assert_eq!(totals["own_answers"], json!({ "502": 2, "other": 2 }));
    assert_eq!(
        (
            &totals["timeouts"]["response_header"],
            &totals["timeouts"]["connect"]
        ),
        (&json!(3), &json!(0))
    );
}

#[test]
fn the_status_page_has_each_server_over_all_shards() {
    let (_, admin) = filled();
    let status = status_page(&admin);
    assert_eq!(
        (
            &status["upstreams"][0]["name"],
            &status["upstreams"][1]["name"]
        ),
        (&json!("app"), &json!(ODD_NAME))
    );
    let server = &status["upstreams"][0]["servers"][1];
    let expected = json!({
        "name": "b", "address": "unix:/run/b.sock", "state": "unchecked", "active": 4, "idle": 8, "requests": 60,
    });
    for (key, value) in expected.as_object().expect("an object") {
        assert_eq!(&server[key], value, "{key}");
    }
    assert_eq!(
        (
            &server["failures"]["connect_refused"],
            &server["failures"]["closed"]
        ),
        (&json!(4), &json!(0))
    );
    let latency = json!({ "count": 20, "mean_us": 6.0, "p50_us": 5, "p90_us": 9, "p99_us": 10 });
    assert_eq!(server["latency"], latency);
    let nothing =
        json!({ "count": 0, "mean_us": null, "p50_us": null, "p90_us": null, "p99_us": null });
    assert_eq!(
        server["recent_latency"], nothing,
        "recorded before the listener started"
    );
    let last = &status["upstreams"][1]["servers"][0];
    assert_eq!(
        (&last["name"], &last["requests"], &last["latency"]),
        (&json!("c"), &json!(90), &nothing)
    );
}

#[test]
fn a_shard_that_gets_no_further_shows_after_five_seconds() {
    let (view, admin) = filled();
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut shard = status_page(&admin)["shards"][0].take();
    while shard["busy_share"].is_null() {
        assert!(Instant::now() < deadline, "sampled every five seconds");
        std::thread::sleep(Duration::from_millis(100));
        shard = status_page(&admin)["shards"][0].take();
    }
    assert!(
        shard["busy_share"]
            .as_f64()
            .is_some_and(|share| (0.0..=1.0).contains(&share)),
        "{shard}"
    );
    assert_eq!(shard["stalled"], true);
    while shard["stalled"] == true {
        assert!(Instant::now() < deadline, "a turn of the sweeper shows");
        view.shards[0].sweeps.inc();
        std::thread::sleep(Duration::from_millis(100));
        shard = status_page(&admin)["shards"][0].take();
    }
}

#[test]
fn slow_clients_hold_up_nobody_else() {
    let (_, admin) = filled();
    let slow: Vec<_> = (0..60).map(|_| connect(&admin)).collect();
    for (number, mut stream) in slow.iter().enumerate() {
        stream
            .write_all(&b"GET /metrics HTTP/1.1\r\n"[..number % 20])
            .expect("it reads");
    }
    let start = Instant::now();
    assert_eq!(get(&admin, "/healthz").status, 200);
    assert!(
        start.elapsed() < Duration::from_secs(4),
        "no slow client's timeout was waited for"
    );
    for (number, mut stream) in slow.iter().enumerate() {
        if number % 20 == 0 {
            assert_eq!(
                stream.read(&mut [0]).expect("closed in time"),
                0,
                "nothing was asked"
            );
        } else {
            assert_eq!(read_answer(stream).status, 408);
        }
    }
}

/// A series: its name and labels.
type Series = (String, BTreeMap<String, String>);

/// What a family may hold, and what it does.
#[derive(Debug)]
struct Family {
    kind: String,
    samples: Vec<(Series, f64)>,
}

/// Reads text exposition format 0.0.4 more strictly than a server would: every family has HELP, then TYPE, then its samples
/// without anything in between, and no series comes twice.
fn parse_metrics(text: &str) -> BTreeMap<String, Family> {
    assert!(text.ends_with('\n'), "the last line ends too");
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    let mut current = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            current = help.split_once(' ').expect("a name and a text").0.into();
            let kind = lines
                .next()
                .and_then(|line| line.strip_prefix(&format!("# TYPE {current} ")))
                .expect("TYPE follows HELP");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            let family = Family {
                kind: kind.into(),
                samples: Vec::new(),
            };
            assert!(
                families.insert(current.clone(), family).is_none(),
                "{current} comes twice"
            );
            continue;
        }
        let (series, value) = parse_sample(line);
        let family = families
            .get_mut(&current)
            .expect("a family before its samples");
        let suffix = series
            .0
            .strip_prefix(&current)
            .unwrap_or_else(|| panic!("{line} in family {current}"));
        let suffixes: &[&str] = if family.kind == "histogram" {
            &["_bucket", "_sum", "_count"]
        } else {
            &[""]
        };
        assert!(suffixes.contains(&suffix), "{line} in family {current}");
        assert!(seen.insert(series.clone()), "{line} comes twice");
        family.samples.push((series, value));
    }
    families
}

fn parse_sample(line: &str) -> (Series, f64) {
    let name_end = line
        .find(|char: char| !(char.is_ascii_alphanumeric() || "_:".contains(char)))
        .expect("more than a name");
    let (name, mut rest) = line.split_at(name_end);
    assert!(
        name.starts_with(|char: char| char.is_ascii_alphabetic()),
        "{line}"
    );
    let mut labels = BTreeMap::new();
    if let Some(mut inside) = rest.strip_prefix('{') {
        loop {
            let (label, after) = inside.split_once("=\"").unwrap_or_else(|| panic!("{line}"));
            assert!(
                label
                    .chars()
                    .all(|char| char.is_ascii_alphanumeric() || char == '_')
                    && !label.is_empty(),
                "{line}"
            );
            let (value, after) = parse_label_value(after);
            assert!(
                labels.insert(label.into(), value).is_none(),
                "{line}: {label} twice"
            );
            match after.split_at(1) {
                (",", more) => inside = more,
                ("}", more) => {
                    rest = more;
                    break;
                }
                _ => panic!("{line}"),
            }
        }
    }
    let value = rest
        .strip_prefix(' ')
        .and_then(|value| value.parse().ok())
        .unwrap_or_else(|| panic!("{line}"));
    ((name.into(), labels), value)
}

/// Up to the closing quote, and what follows it.
fn parse_label_value(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return (value, &text[at + 1..]),
            '\\' => value.push(match chars.next() {
                Some((_, 'n')) => '\n',
                Some((_, escaped @ ('\\' | '"'))) => escaped,
                other => panic!("escape {other:?} in {text}"),
            }),
            _ => value.push(char),
        }
    }
    panic!("no closing quote in {text}")
}

fn value(families: &BTreeMap<String, Family>, family: &str, labels: &[(&str, &str)]) -> f64 {
    let labels: BTreeMap<String, String> = labels
        .iter()
        .map(|(name, value)| ((*name).into(), (*value).into()))
        .collect();
    let samples = &families
        .get(family)
        .unwrap_or_else(|| panic!("no family {family}"))
        .samples;
    let found = samples
        .iter()
        .find(|((_, of_sample), _)| *of_sample == labels);
    found
        .unwrap_or_else(|| panic!("no {labels:?} in {samples:?}"))
        .1
}

#[test]
fn the_metrics_are_valid_and_agree_with_the_counters() {
    let (_, admin) = filled();
    let families = parse_metrics(&get(&admin, "/metrics").body);
    for (name, family) in &families {
        assert_eq!(name.ends_with("_total"), family.kind == "counter", "{name}");
        assert!(!family.samples.is_empty(), "{name} is empty");
        assert!(
            family.samples.iter().all(|(_, value)| *value >= 0.0),
            "{name}"
        );
    }
    let app_b = [("upstream", "app"), ("server", "b")];
    let cases: [(&str, &[(&str, &str)], u32); 14] = [
        (
            "ringlane_build_info",
            &[("version", env!("CARGO_PKG_VERSION"))],
            1,
        ),
        (
            "ringlane_io_info",
            &[
                ("mode", "io_uring"),
                ("flags", "COOP_TASKRUN"),
                ("send", "direct"),
            ],
            1,
        ),
        ("ringlane_shard_restarts_total", &[], 1),
        ("ringlane_requests_total", &[("shard", "0")], 100),
        ("ringlane_requests_total", &[("shard", "1")], 200),
        ("ringlane_shard_running", &[("shard", "1")], 0),
        (
            "ringlane_responses_total",
            &[("shard", "1"), ("class", "2xx")],
            194,
        ),
        (
            "ringlane_timeouts_total",
            &[("shard", "1"), ("kind", "response_header")],
            2,
        ),
        ("ringlane_own_answers_total", &[("status", "502")], 2),
        ("ringlane_own_answers_total", &[("status", "other")], 2),
        ("ringlane_upstream_requests_total", &app_b, 60),
        (
            "ringlane_upstream_requests_total",
            &[("upstream", ODD_NAME), ("server", "c")],
            90,
        ),
        (
            "ringlane_upstream_failures_total",
            &[app_b[0], app_b[1], ("kind", "connect_refused")],
            4,
        ),
        ("process_start_time_seconds", &[], 971_186_136),
    ];
    for (family, labels, expected) in cases {
        assert_eq!(
            value(&families, family, labels),
            f64::from(expected),
            "{family} {labels:?}"
        );
    }
    assert!(value(&families, "process_resident_memory_bytes", &[]) > 100_000.0);
}

#[test]
fn the_buckets_of_a_histogram_grow_up_to_its_count() {
    let (_, admin) = filled();
    let families = parse_metrics(&get(&admin, "/metrics").body);
    let samples = &families["ringlane_upstream_response_seconds"].samples;
    let mut counts = Vec::new();
    let mut buckets: Vec<(f64, f64)> = Vec::new();
    for ((name, labels), value) in samples {
        if name.ends_with("_bucket") {
            buckets.push((labels["le"].parse().expect("a bound"), *value));
        } else if name.ends_with("_count") {
            assert!(
                buckets.is_sorted_by(|left, right| left.0 < right.0 && left.1 <= right.1),
                "{buckets:?}"
            );
            assert_eq!(buckets.last(), Some(&(f64::INFINITY, *value)));
            counts.push(*value);
            buckets.clear();
        }
    }
    assert_eq!(counts, [0.0, 20.0, 0.0], "by server");
}
