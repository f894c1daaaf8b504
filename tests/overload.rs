//! More than is allowed: too many requests in flight, too fast a client, too many connections of one. Others are served meanwhile.
//! RFC 6585 section 4 (429), RFC 9110 sections 15.6.4 (503) and 10.2.3 (Retry-After).

mod support;

use std::time::{Duration, Instant};

use support::{Config, Mode, Origin, Proxy, Response, Served, Wire, eventually, in_each_mode, ok};

in_each_mode!(
    requests_in_flight,
    slow_heads_are_not_in_flight,
    request_rate,
    rate_behind_a_trusted_proxy,
    exempt_from_the_rate,
    connections_per_client,
);

const ADMIN: &str = "[admin]\naddress = \"127.0.0.1:0\"\n";

fn start(mode: Mode, tables: &str) -> (Proxy, Served) {
    let served = Origin::serve_text("fine");
    let proxy = Config::new(mode)
        .key("shards = 2")
        .tables(&format!("{ADMIN}{tables}"))
        .upstream(&[&served.address], "")
        .start();
    (proxy, served)
}

fn total(proxy: &Proxy, counter: &str) -> u64 {
    let count = proxy.status()["totals"][counter].as_u64();
    count.expect("a counter")
}

#[track_caller]
fn expect_refusal(response: &Response, status: u16, closes: bool) {
    assert_eq!(response.status, status, "{:?}", response.head);
    assert_eq!(response.head.value("retry-after"), Some("1"));
    assert_eq!(response.head.lists("connection", "close"), closes);
}

fn requests_in_flight(mode: Mode) {
    let origin = Origin::bind();
    let proxy = Config::new(mode)
        .tables(&format!("{ADMIN}[limits]\nmax_in_flight = 2"))
        .upstream(&[&origin.address], "pool = { max_idle = 0 }")
        .start();
    let mut running = Vec::new();
    for _ in 0..2 {
        let mut client = proxy.connect();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut upstream = origin.accept();
        upstream.request();
        running.push((client, upstream));
    }
    let mut beyond = proxy.connect();
    let since = Instant::now();
    for _ in 0..50 {
        expect_refusal(&beyond.get("/"), 503, false);
    }
    assert!(since.elapsed() < Duration::from_secs(5), "shed at once");
    assert_eq!(
        total(&proxy, "shed"),
        50,
        "and the status page is there meanwhile"
    );
    for (client, upstream) in &mut running {
        upstream.send(ok("fine"));
        assert_eq!(client.response("GET").text(), "fine");
    }
    beyond.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut upstream = origin.accept();
    upstream.request();
    upstream.send(ok("again"));
    assert_eq!(beyond.response("GET").text(), "again");
}

fn slow_heads_are_not_in_flight(mode: Mode) {
    let (proxy, _served) = start(mode, "[limits]\nmax_in_flight = 1");
    let _slow: Vec<Wire> = (0..20)
        .map(|_| {
            let mut client = proxy.connect();
            client.send("GET / HTTP/1.1\r\nHost: a\r\n");
            client
        })
        .collect();
    eventually("they are being read", || total(&proxy, "active") == 20);
    assert_eq!(proxy.get("/").status, 200);
}

fn request_rate(mode: Mode) {
    let (proxy, served) = start(
        mode,
        "[rate_limit]\nrequests = 2\nperiod = \"10s\"\nburst = 6",
    );
    // Over many connections and both shards: the burst is one.
    let answers: Vec<Response> = (0..20).map(|_| proxy.get("/")).collect();
    let passed = answers.iter().filter(|answer| answer.status == 200).count();
    assert!((6..=7).contains(&passed), "{passed} passed");
    assert_eq!(served.requests().len(), passed);
    let refused = answers.last().expect("twenty");
    assert_eq!(refused.status, 429);
    assert_eq!(refused.head.value("retry-after"), Some("5"));
    assert_eq!(total(&proxy, "rate_limited"), 20 - passed as u64);
    let mut client = proxy.connect();
    assert_eq!((client.get("/").status, client.get("/").status), (429, 429));
}

fn rate_behind_a_trusted_proxy(mode: Mode) {
    let (proxy, _served) = start(
        mode,
        "[rate_limit]\nrequests = 1\nperiod = \"1h\"\n[forward]\ntrusted_proxies = [\"127.0.0.0/8\"]",
    );
    let mut client = proxy.connect();
    let mut ask = |address: &str| {
        client.send(format!(
            "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {address}\r\n\r\n"
        ));
        client.response("GET").status
    };
    let asked = [
        "192.0.2.1",
        "192.0.2.1",
        "192.0.2.2",
        "2001:db8::1",
        "2001:db8::2",
    ];
    assert_eq!(asked.map(&mut ask), [200, 429, 200, 200, 429]);
}

fn exempt_from_the_rate(mode: Mode) {
    let (proxy, _served) = start(
        mode,
        "[rate_limit]\nrequests = 1\nperiod = \"1h\"\nexempt = [\"127.0.0.1\"]",
    );
    let mut client = proxy.connect();
    assert!((0..10).all(|_| client.get("/").status == 200));
}

fn connections_per_client(mode: Mode) {
    let (proxy, _served) = start(mode, "[limits]\nconnections_per_client = 2");
    let (mut first, mut second) = (proxy.connect(), proxy.connect());
    assert_eq!((first.get("/").status, second.get("/").status), (200, 200));
    let sent = total(&proxy, "bytes_out");
    let mut third = proxy.connect();
    expect_refusal(&third.response("GET"), 429, true);
    third.expect_end();
    assert_eq!(total(&proxy, "refused_clients"), 1);
    let totals = &proxy.status()["totals"];
    assert_eq!(
        (&totals["responses"]["4xx"], &totals["own_answers"]["429"]),
        (&1.into(), &1.into())
    );
    assert!(total(&proxy, "bytes_out") > sent + 100, "{totals}");
    assert_eq!(second.get("/").status, 200);
    drop(first);
    eventually("a place becomes free", || total(&proxy, "connections") == 1);
    assert_eq!(proxy.get("/").status, 200);
}
