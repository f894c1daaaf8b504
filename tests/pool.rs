//! Connections to a server are kept and used again, newest first, within the limits of the pool, and only while they are clean
//! (RFC 9112 section 9.3).

mod support;

use std::time::{Duration, Instant};

use support::{Config, Mode, Origin, Proxy, QUIET, SLOWNESS, Wire, in_each_mode, ok, took_about};

in_each_mode!(
    one_connection_for_many_requests,
    stale_connection_is_found,
    poisoned_connection_is_dropped,
    newest_first,
    shared_by_clients,
    at_most_max_idle,
    no_pool_at_all,
    idle_timeout,
    max_age,
    max_requests,
    origin_that_closes_is_not_pooled,
    aborted_exchange_is_not_pooled,
    each_server_has_its_own,
);

fn start(mode: Mode, pool: &str) -> (Proxy, Origin) {
    let origin = Origin::bind();
    let proxy = Config::new(mode)
        .upstream(&[&origin.address], &format!("pool = {{ {pool} }}"))
        .start();
    (proxy, origin)
}

#[track_caller]
fn exchange(client: &mut Wire, upstream: &mut Wire) {
    ask(client);
    answer(client, upstream);
}

fn ask(client: &mut Wire) {
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
}

#[track_caller]
fn answer(client: &mut Wire, upstream: &mut Wire) {
    upstream.request();
    upstream.send(ok("fine"));
    assert_eq!(client.response("GET").text(), "fine");
}

/// Opens `count` connections to the origin by as many clients at once; they are idle afterwards, the last one the newest.
fn idle(proxy: &Proxy, origin: &Origin, count: usize) -> (Vec<Wire>, Vec<Wire>) {
    let (mut clients, mut upstreams) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let mut client = proxy.connect();
        ask(&mut client);
        upstreams.push(origin.accept());
        clients.push(client);
    }
    for (client, upstream) in clients.iter_mut().zip(&mut upstreams) {
        answer(client, upstream);
        std::thread::sleep(Duration::from_millis(20));
    }
    (clients, upstreams)
}

fn one_connection_for_many_requests(mode: Mode) {
    let served = Origin::serve_text("fine");
    let proxy = Config::new(mode).upstream(&[&served.address], "").start();
    let mut client = proxy.connect();
    for _ in 0..200 {
        assert_eq!(client.get("/").text(), "fine");
    }
    assert_eq!((served.connections(), served.requests().len()), (1, 200));
}

fn shared_by_clients(mode: Mode) {
    let served = Origin::serve_text("fine");
    let proxy = Config::new(mode).upstream(&[&served.address], "").start();
    for _ in 0..20 {
        assert_eq!(proxy.get("/").text(), "fine");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(served.connections(), 1);
}

fn newest_first(mode: Mode) {
    let (proxy, origin) = start(mode, "max_idle = 8");
    let (mut clients, mut upstreams) = idle(&proxy, &origin, 3);
    exchange(&mut clients[0], &mut upstreams[2]);
    exchange(&mut clients[1], &mut upstreams[2]);
    ask(&mut clients[0]);
    upstreams[2].request();
    ask(&mut clients[1]); // the newest is busy
    upstreams[1].request();
}

fn at_most_max_idle(mode: Mode) {
    let (proxy, origin) = start(mode, "max_idle = 2");
    let (_clients, mut upstreams) = idle(&proxy, &origin, 4);
    let ended = upstreams
        .iter_mut()
        .filter_map(|upstream| upstream.receive_within(QUIET).ok())
        .count();
    assert_eq!(ended, 2, "of four connections");
}

fn no_pool_at_all(mode: Mode) {
    let (proxy, origin) = start(mode, "max_idle = 0");
    let mut client = proxy.connect();
    for _ in 0..3 {
        ask(&mut client);
        let mut upstream = origin.accept();
        answer(&mut client, &mut upstream);
        upstream.expect_end();
    }
}

/// Never early, and 0.2 s late at most. Several times, for the sweeper could come by at the right moment once.
fn idle_timeout(mode: Mode) {
    const TIMEOUT: Duration = Duration::from_millis(400);
    const TIMES: u32 = 4;
    let (proxy, origin) = start(mode, "idle_timeout = \"400ms\"");
    let mut client = proxy.connect();
    let mut all = Duration::ZERO;
    for _ in 0..TIMES {
        ask(&mut client);
        let mut upstream = origin.accept();
        upstream.request();
        let idle_since = Instant::now();
        upstream.send(ok("fine"));
        assert_eq!(client.response("GET").text(), "fine");
        upstream.expect_end();
        let idle_for = idle_since.elapsed();
        assert!(idle_for >= TIMEOUT, "too early: after {idle_for:?}");
        all += idle_for;
    }
    let late = all.saturating_sub(TIMES * TIMEOUT);
    let allowed = TIMES * Duration::from_millis(200) + Duration::from_millis(800) * SLOWNESS as u32;
    assert!(late < allowed, "{late:?} late in all");
}

fn max_age(mode: Mode) {
    let (proxy, origin) = start(mode, "max_age = \"600ms\"");
    let mut client = proxy.connect();
    let born = Instant::now();
    ask(&mut client);
    let mut upstream = origin.accept();
    answer(&mut client, &mut upstream);
    std::thread::sleep(Duration::from_millis(200));
    exchange(&mut client, &mut upstream); // young enough
    upstream.expect_end();
    took_about(born, Duration::from_millis(600));
    ask(&mut client);
    let mut upstream = origin.accept();
    answer(&mut client, &mut upstream);
}

fn max_requests(mode: Mode) {
    let (proxy, origin) = start(mode, "max_requests = 2");
    let mut client = proxy.connect();
    for _ in 0..2 {
        ask(&mut client);
        let mut upstream = origin.accept();
        answer(&mut client, &mut upstream);
        exchange(&mut client, &mut upstream);
        upstream.expect_end();
    }
}

/// The origin closed while the connection was idle: nobody notices, whatever the method.
fn stale_connection_is_found(mode: Mode) {
    let (proxy, origin) = start(mode, "max_idle = 8");
    let mut client = proxy.connect();
    for request in [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi",
    ] {
        for reset in [false, true] {
            ask(&mut client);
            let mut upstream = origin.accept();
            answer(&mut client, &mut upstream);
            if reset {
                upstream.reset();
            } else {
                drop(upstream);
            }
            std::thread::sleep(Duration::from_millis(50));
            client.send(request);
            let mut fresh = origin.accept();
            fresh.request();
            fresh.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nfresh");
            assert_eq!(client.response("GET").text(), "fresh");
        }
    }
}

fn poisoned_connection_is_dropped(mode: Mode) {
    let (proxy, origin) = start(mode, "max_idle = 8");
    let (mut clients, mut upstreams) = idle(&proxy, &origin, 2);
    for upstream in &mut upstreams {
        upstream.send(ok("poisoned"));
    }
    std::thread::sleep(Duration::from_millis(50));
    ask(&mut clients[0]);
    let mut fresh = origin.accept();
    answer(&mut clients[0], &mut fresh);
}

fn origin_that_closes_is_not_pooled(mode: Mode) {
    let (proxy, origin) = start(mode, "max_idle = 8");
    let mut client = proxy.connect();
    let heads = [
        "HTTP/1.1 200 OK\r\nConnection: close\r\n",
        "HTTP/1.1 200 OK\r\nConnection: x, CLOSE\r\n",
        "HTTP/1.0 200 OK\r\n",
    ];
    for head in heads {
        ask(&mut client);
        let mut upstream = origin.accept();
        upstream.request();
        upstream.send(format!("{head}Content-Length: 4\r\n\r\nfine"));
        assert_eq!(client.response("GET").text(), "fine");
        upstream.expect_end();
    }
}

/// What is left of a response that its client did not want must not meet another request.
fn aborted_exchange_is_not_pooled(mode: Mode) {
    let (proxy, origin) = start(mode, "max_idle = 8");
    let mut client = proxy.connect();
    ask(&mut client);
    let mut upstream = origin.accept();
    upstream.request();
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello");
    client.response_head("GET");
    drop(client);
    std::thread::sleep(QUIET);
    let mut other = proxy.connect();
    ask(&mut other);
    let mut fresh = origin.accept();
    answer(&mut other, &mut fresh);
}

fn each_server_has_its_own(mode: Mode) {
    let (one, two) = (Origin::serve_text("one"), Origin::serve_text("two"));
    let proxy = Config::new(mode)
        .upstream(&[&one.address, &two.address], "")
        .start();
    let mut client = proxy.connect();
    for _ in 0..10 {
        client.get("/");
    }
    assert_eq!((one.connections(), two.connections()), (1, 1));
    assert_eq!((one.requests().len(), two.requests().len()), (5, 5));
}
