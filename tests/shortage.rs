//! What the proxy does when the kernel has no more of something: it says so, counts it, does not spin, and goes on when there is some again.

mod support;

use std::time::Duration;

use serde_json::Value;
use support::{Config, Mode, Origin, Proxy, Wire, eventually, in_each_mode, ok};

in_each_mode!(
    the_status_page_outlives_the_descriptors,
    descriptors_of_upstream_connections,
);

const ADMIN: &str = "[admin]\naddress = \"127.0.0.1:0\"\n";
const REQUEST: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

fn totals(proxy: &Proxy) -> Value {
    let status: Value = serde_json::from_str(&proxy.page("/lb/status")).expect("JSON");
    status["totals"].clone()
}

/// Asserts that the proxy, which has nothing to do, does next to nothing.
#[track_caller]
fn expect_rest(proxy: &Proxy) {
    let before = proxy.cpu_time();
    std::thread::sleep(Duration::from_secs(1));
    let used = proxy.cpu_time().saturating_sub(before);
    assert!(
        used < Duration::from_millis(250),
        "spins: {used:?} of processor time in a second"
    );
}

/// Clients get 503 while those who look for the cause still get in, and service begins again when there is room.
fn the_status_page_outlives_the_descriptors(mode: Mode) {
    let served = Origin::serve_text("fine");
    let proxy = Config::new(mode)
        .descriptors(128)
        .tables(ADMIN)
        .upstream(&[&served.address], "")
        .start();
    let mut first = proxy.connect();
    assert_eq!(first.get("/").text(), "fine");
    let mut clients: Vec<Wire> = (0..200).map(|_| proxy.connect()).collect();
    eventually("all are in or refused", || {
        let totals = totals(&proxy);
        assert!(totals["connections"].as_u64() < Some(150), "{totals}");
        totals["accepted"] == 201
    });
    // These take the low numbers that the status page has had meanwhile.
    clients.extend((0..4).map(|_| proxy.connect()));
    let mut refused = proxy.connect();
    let answer = refused.response("GET");
    assert_eq!(answer.status, 503);
    assert_eq!(answer.head.value("retry-after"), Some("1"));
    refused.expect_end();
    for _ in 0..20 {
        assert!(proxy.page("/metrics").contains("refused_descriptors_total"));
    }
    let counted = totals(&proxy);
    assert_eq!(
        counted["refused_connections"], counted["refused_descriptors"],
        "nobody else was refused"
    );
    expect_rest(&proxy);
    assert_eq!(first.get("/").text(), "fine", "those within go on");
    drop(clients);
    eventually("service again", || totals(&proxy)["connections"] == 1);
    assert_eq!(proxy.get("/").text(), "fine");
    let said = |line: &String| line.contains("descriptors run out");
    assert_eq!(proxy.log().iter().filter(|line| said(line)).count(), 1);
}

/// A server that there is no descriptor for has done nothing wrong.
fn descriptors_of_upstream_connections(mode: Mode) {
    let origin = Origin::bind();
    let proxy = Config::new(mode)
        .descriptors(128)
        .tables(ADMIN)
        .upstream(
            &[&origin.address],
            "passive = { fall = 1, max_ejected = 100 }",
        )
        .start();
    let room = 128 - 16 - proxy.descriptors();
    let mut clients: Vec<Wire> = (0..room - 4).map(|_| proxy.connect()).collect();
    eventually("all are in", || {
        totals(&proxy)["connections"].as_u64() == Some(room as u64 - 4)
    });
    for client in &mut clients {
        client.send(REQUEST);
    }
    let held: Vec<Wire> =
        std::iter::from_fn(|| origin.accept_within(Duration::from_millis(500))).collect();
    assert!((1..=5).contains(&held.len()), "{} connected", held.len());
    let server = &proxy.upstream()["servers"][0];
    let missed = (clients.len() - held.len()) as u64;
    assert_eq!(server["failures"]["shortage"], missed, "{server}");
    assert_eq!(server["state"], "up", "not ejected");
    expect_rest(&proxy);
    let mut answered = 0;
    for mut upstream in held {
        upstream.request();
        upstream.send(ok("fine"));
    }
    for client in &mut clients {
        let answer = client.response("GET");
        answered += usize::from(answer.status == 200);
        assert!(matches!(answer.status, 200 | 503), "{}", answer.status);
    }
    assert_eq!(answered as u64, clients.len() as u64 - missed);
}
