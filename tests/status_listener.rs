//! The status listener of a running proxy: JSON and Prometheus text about the traffic that there was, also while the shards are busy,
//! whatever is sent to it.

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{Config, Mode, Origin, Proxy, Response, Served, Wire, in_each_mode};

in_each_mode!(status, metrics, answers_under_load, nonsense, only_reading,);

fn start(mode: Mode) -> (Proxy, Served) {
    let served = Origin::serve_text("fine");
    let proxy = Config::new(mode)
        .key("shards = 2")
        .tables("[admin]\naddress = \"127.0.0.1:0\"")
        .upstream(&[&served.address, &Origin::nowhere()], "retries = 1")
        .start();
    (proxy, served)
}

fn admin(proxy: &Proxy) -> Wire {
    Wire::connect(proxy.admin.expect("the status page is on"))
}

#[track_caller]
fn get(proxy: &Proxy, path: &str) -> Response {
    let mut wire = admin(proxy);
    wire.send(format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    ));
    wire.response("GET")
}

/// Every object anywhere in a document.
fn objects(value: &Value) -> Vec<&serde_json::Map<String, Value>> {
    match value {
        Value::Object(object) => std::iter::once(object)
            .chain(object.values().flat_map(objects))
            .collect(),
        Value::Array(array) => array.iter().flat_map(objects).collect(),
        _ => Vec::new(),
    }
}

fn document(proxy: &Proxy) -> Value {
    let response = get(proxy, "/lb/status");
    assert_eq!(response.status, 200);
    assert!(
        response
            .head
            .value("content-type")
            .is_some_and(|kind| kind.starts_with("application/json")),
        "{:?}",
        response.head
    );
    serde_json::from_slice(&response.body).expect("JSON")
}

/// The entry of the server with this address.
fn server(document: &Value, address: &str) -> serde_json::Map<String, Value> {
    let found = objects(document)
        .into_iter()
        .find(|object| object.get("address").and_then(Value::as_str) == Some(address));
    found
        .unwrap_or_else(|| panic!("no server {address} in {document:#}"))
        .clone()
}

fn status(mode: Mode) {
    let (proxy, served) = start(mode);
    for _ in 0..20 {
        assert_eq!(proxy.get("/").text(), "fine");
    }
    support::eventually("requests are counted", || {
        server(&document(&proxy), &served.address)["requests"].as_u64() == Some(20)
    });
    let document = document(&proxy);
    assert_eq!(
        document["version"].as_str(),
        Some(env!("CARGO_PKG_VERSION")),
        "{document:#}"
    );
    let io = if mode == Mode::Epoll {
        "epoll"
    } else {
        "uring"
    };
    assert!(document["io"].to_string().contains(io), "{document:#}");
    let entry = server(&document, &served.address);
    for key in [
        "name", "state", "active", "idle", "requests", "failures", "latency",
    ] {
        assert!(
            entry.keys().any(|each| each.contains(key)),
            "{key} in {entry:?}"
        );
    }
    assert_eq!(
        document["shards"].as_array().map(Vec::len),
        Some(2),
        "{document:#}"
    );
}

/// Checks each line of Prometheus text format 0.0.4 and returns the samples.
fn samples(text: &str) -> Vec<(String, f64)> {
    assert!(text.ends_with('\n'));
    let sample = |line: &str| {
        let (name, value) = line
            .rsplit_once(' ')
            .unwrap_or_else(|| panic!("not a sample: {line}"));
        let bare = name.split('{').next().unwrap_or_default();
        assert!(
            !bare.is_empty()
                && bare
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b':'),
            "{line}"
        );
        assert_eq!(name.contains('{'), name.ends_with('}'), "{line}");
        let value = value
            .parse()
            .unwrap_or_else(|error| panic!("{line}: {error}"));
        (name.to_owned(), value)
    };
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .map(sample)
        .collect()
}

fn metrics(mode: Mode) {
    let (proxy, served) = start(mode);
    for _ in 0..20 {
        assert_eq!(proxy.get("/").text(), "fine");
    }
    let counted = || {
        let response = get(&proxy, "/metrics");
        assert_eq!(response.status, 200);
        assert!(
            response
                .head
                .value("content-type")
                .is_some_and(|kind| kind.contains("text")),
            "{:?}",
            response.head
        );
        let text = response.text();
        let families: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE "))
            .collect();
        let mut names: Vec<&str> = families
            .iter()
            .filter_map(|family| family.split(' ').next())
            .collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert!(
            count > 5 && names.len() == count,
            "a family once each: {families:?}"
        );
        let samples = samples(&text);
        samples.iter().any(|(name, value)| {
            name.contains("requests")
                && name.contains(&served.address)
                && (*value - 20.0).abs() < 0.1
                || name.contains("requests")
                    && name.contains("\"a\"")
                    && (*value - 20.0).abs() < 0.1
        })
    };
    support::eventually("20 requests in the metrics", counted);
}

fn answers_under_load(mode: Mode) {
    let (proxy, _served) = start(mode);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut client = proxy.connect();
                while !stop.load(Ordering::Relaxed) {
                    client.get("/");
                }
            });
        }
        for _ in 0..10 {
            for path in ["/lb/status", "/metrics"] {
                let asked = Instant::now();
                assert_eq!(get(&proxy, path).status, 200);
                assert!(
                    asked.elapsed() < Duration::from_secs(2),
                    "{path} took {:?}",
                    asked.elapsed()
                );
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
}

fn nonsense(mode: Mode) {
    let (proxy, _served) = start(mode);
    assert_eq!(get(&proxy, "/lb/nothing").status, 404);
    let _silent = admin(&proxy); // nobody waits for this one
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(1_000_000));
    for bytes in [
        "\0\0\0\0\r\n\r\n",
        "GET\r\n\r\n",
        "hello\r\n\r\n",
        "GET /lb/status HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        &long,
    ] {
        let mut wire = admin(&proxy);
        wire.try_send(bytes).ok();
        wire.finish_sending();
        let (answer, _) = wire.read_to_end();
        assert!(
            answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"),
            "{bytes:.40?}: {}",
            answer.escape_ascii()
        );
    }
    assert_eq!(get(&proxy, "/lb/status").status, 200);
}

fn only_reading(mode: Mode) {
    let (proxy, _served) = start(mode);
    for method in ["POST", "PUT", "DELETE"] {
        let mut wire = admin(&proxy);
        wire.send(format!("{method} /lb/status HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"));
        assert_eq!(wire.response(method).status / 100, 4, "{method}");
    }
    let mut wire = admin(&proxy);
    wire.send("HEAD /lb/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert!(matches!(wire.response("HEAD").status, 200 | 405));
    wire.expect_end();
}
