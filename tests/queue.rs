//! Servers with as many requests or connections as they may have, and requests that wait for one of them.

mod support;

use std::thread;
use std::time::{Duration, Instant};

use support::{Config, Mode, Origin, Proxy, Wire, eventually, in_each_mode, ok, took_about};

in_each_mode!(
    requests_wait_in_turn,
    a_request_that_waits_too_long_gets_503,
    a_full_queue_takes_no_more,
    a_body_waits_with_its_request,
    clients_that_leave_are_not_served,
    the_wait_is_not_the_servers_latency,
    a_place_that_another_shard_frees_is_found,
    a_failed_request_frees_its_place,
    a_request_that_met_a_dead_server_waits_for_a_full_one,
    a_request_that_a_server_dropped_waits_for_a_full_one,
    a_queue_full_of_them_turns_nobody_away_from_an_idle_server,
    connections_are_limited_apart_from_requests,
    idle_connections_of_other_shards_make_room,
    own_clients_do_not_wait_for_those_that_cannot_use_their_server,
    own_clients_wait_for_each_other,
);

const ADMIN: &str = "[admin]\naddress = \"127.0.0.1:0\"";

/// A proxy before one server with these limits.
fn start(mode: Mode, shards: usize, address: &str, limits: &str, settings: &str) -> Proxy {
    Config::new(mode)
        .key(&format!("shards = {shards}"))
        .tables(ADMIN)
        .tables(&format!(
            "[[upstream]]\nname = \"app\"\n{settings}\n\
             server = [{{ address = \"{address}\", name = \"a\", {limits} }}]"
        ))
        .start()
}

/// A proxy before one silent server that takes one request at a time.
fn one_at_a_time(mode: Mode, settings: &str) -> (Proxy, Origin) {
    let origin = Origin::bind();
    let proxy = start(mode, 1, &origin.address, "max_requests = 1", settings);
    (proxy, origin)
}

/// A server that takes any number of requests at a time, as configuration.
fn any_number(address: &str) -> String {
    format!("{{ address = \"{address}\" }}")
}

/// A server that takes one request at a time, as configuration.
fn one_request(address: &str) -> String {
    format!("{{ address = \"{address}\", max_requests = 1 }}")
}

/// A proxy that asks the first of these servers that has room.
fn in_order(mode: Mode, queue: usize, servers: &[String; 2]) -> Proxy {
    Config::new(mode)
        .tables(ADMIN)
        .tables(&format!(
            "[[upstream]]\nname = \"app\"\npolicy = \"first\"\nqueue = {queue}\nserver = [{}]",
            servers.join(", ")
        ))
        .start()
}

fn ask(proxy: &Proxy, target: &str) -> Wire {
    ask_with(proxy, target, "")
}

/// A request with these fields, each line ended.
fn ask_with(proxy: &Proxy, target: &str, fields: &str) -> Wire {
    let mut client = proxy.connect();
    client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
    client
}

/// The cookie of a client of server `a` of upstream `app`, with the key of [`before_a_reserve`]; see tests/sticky.rs.
const OWN: &str = "Cookie: lb=f3cb40f03e54282223a497081979b6b2\r\n";

/// A proxy before server `a`, which takes its own clients alone, and server `b`, which takes any; each takes one request at a time. A
/// request is at `b` already: its client and the server's end.
fn before_a_reserve(mode: Mode, reserved: &str, a: &Origin, b: &Origin) -> (Proxy, Wire, Wire) {
    let proxy = Config::new(mode)
        .tables(ADMIN)
        .tables(&format!(
            "[[upstream]]\nname = \"app\"\nqueue = 8\nqueue_timeout = \"1m\"\n\
             sticky = {{ cookie = \"lb\", key = \"0123456789abcdef0123456789abcdef\" }}\n\
             server = [{{ address = \"{}\", name = \"a\", max_requests = 1, {reserved} }}, {}]",
            a.address,
            one_request(&b.address)
        ))
        .start();
    let client = ask(&proxy, "/busy");
    let mut upstream = b.accept();
    assert_eq!(upstream.request().target, "/busy");
    (proxy, client, upstream)
}

#[track_caller]
fn await_length(proxy: &Proxy, length: usize) {
    eventually(&format!("{length} requests wait"), || {
        proxy.upstream()["queue"]["length"] == length
    });
}

fn requests_wait_in_turn(mode: Mode) {
    let (proxy, origin) = one_at_a_time(mode, "queue = 8");
    let mut clients = vec![ask(&proxy, "/0")];
    let mut upstream = origin.accept();
    assert_eq!(upstream.request().target, "/0");
    for number in 1..6 {
        clients.push(ask(&proxy, &format!("/{number}")));
        await_length(&proxy, number);
    }
    let queue = proxy.upstream()["queue"].clone();
    let (waits, mean) = (&queue["waits"], &queue["mean_wait_us"]);
    assert!(*waits == 0 && mean.is_null(), "they still do: {queue}");
    let mut late = None;
    for (number, mut client) in clients.into_iter().enumerate() {
        upstream.send(ok(&number.to_string()));
        assert_eq!(client.response("GET").text(), number.to_string());
        // One that comes now does not get in front of those that wait.
        if number == 0 {
            client.send("GET /late HTTP/1.1\r\nHost: a\r\n\r\n");
            await_length(&proxy, 5);
            late = Some(client);
        }
        let next = if number < 5 {
            format!("/{}", number + 1)
        } else {
            "/late".to_owned()
        };
        assert_eq!(upstream.request().target, next);
    }
    upstream.send(ok("late"));
    let late = late.map(|mut client: Wire| client.response("GET").text());
    assert_eq!(late.as_deref(), Some("late"));
    let queue = proxy.upstream()["queue"].clone();
    assert_eq!((&queue["waits"], &queue["length"]), (&6.into(), &0.into()));
    assert!(queue["mean_wait_us"].as_u64().is_some_and(|wait| wait > 0));
    let metric = "ringlane_upstream_queue_waits_total{upstream=\"app\"} 6";
    assert!(proxy.page("/metrics").contains(metric));
}

fn a_request_that_waits_too_long_gets_503(mode: Mode) {
    let (proxy, origin) = one_at_a_time(mode, "queue = 8\nqueue_timeout = \"500ms\"");
    let mut first = ask(&proxy, "/first");
    let mut upstream = origin.accept();
    upstream.request();
    let begin = Instant::now();
    let mut late = ask(&proxy, "/late");
    let response = late.response("GET");
    took_about(begin, Duration::from_millis(500));
    assert_eq!(response.status, 503);
    assert_eq!(response.head.value("Retry-After"), Some("1"));
    assert_eq!(
        response.text(),
        "{\"error\":\"no server was free in time\"}\n"
    );
    let queue = proxy.upstream()["queue"].clone();
    assert_eq!(
        (&queue["timeouts"], &queue["length"]),
        (&1.into(), &0.into())
    );
    upstream.send(ok("first"));
    assert_eq!(first.response("GET").text(), "first");
    late.send("GET /again HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(
        upstream.request().target,
        "/again",
        "its connection goes on"
    );
    upstream.send(ok("again"));
    assert_eq!(late.response("GET").text(), "again");
}

fn a_full_queue_takes_no_more(mode: Mode) {
    let (proxy, origin) = one_at_a_time(mode, "queue = 1");
    let _first = ask(&proxy, "/first");
    let mut upstream = origin.accept();
    upstream.request();
    let _second = ask(&proxy, "/second");
    await_length(&proxy, 1);
    let begin = Instant::now();
    let response = proxy.get("/third");
    assert!(begin.elapsed() < Duration::from_secs(2), "it does not wait");
    assert_eq!(response.status, 503);
    assert_eq!(response.head.value("Retry-After"), Some("1"));
    assert_eq!(response.text(), "{\"error\":\"all servers are busy\"}\n");
    assert_eq!(proxy.upstream()["queue"]["full"], 1);
}

fn a_body_waits_with_its_request(mode: Mode) {
    let (proxy, origin) = one_at_a_time(mode, "queue = 8");
    let mut first = ask(&proxy, "/first");
    let mut upstream = origin.accept();
    upstream.request();
    let mut client = proxy.connect();
    client.send("POST /second HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello");
    await_length(&proxy, 1);
    client.send("world");
    upstream.send(ok("first"));
    assert_eq!(first.response("GET").text(), "first");
    assert_eq!(upstream.request().body, b"helloworld");
    upstream.send(ok("second"));
    assert_eq!(client.response("POST").text(), "second");
}

fn clients_that_leave_are_not_served(mode: Mode) {
    let (proxy, origin) = one_at_a_time(mode, "queue = 8\nqueue_timeout = \"1m\"");
    let mut first = ask(&proxy, "/first");
    let mut upstream = origin.accept();
    upstream.request();
    let (reset, closed) = (ask(&proxy, "/reset"), ask(&proxy, "/closed"));
    await_length(&proxy, 2);
    reset.reset();
    drop(closed);
    await_length(&proxy, 0);
    assert_eq!(proxy.upstream()["queue"]["left"], 2);
    // One that is reset just before its turn is not served either.
    let gone = ask(&proxy, "/gone");
    await_length(&proxy, 1);
    let mut last = ask(&proxy, "/last");
    await_length(&proxy, 2);
    gone.reset();
    upstream.send(ok("first"));
    assert_eq!(first.response("GET").text(), "first");
    assert_eq!(upstream.request().target, "/last");
    upstream.send(ok("last"));
    assert_eq!(last.response("GET").text(), "last");
}

fn the_wait_is_not_the_servers_latency(mode: Mode) {
    let (proxy, origin) = one_at_a_time(mode, "queue = 8");
    let since = Instant::now();
    let mut first = ask(&proxy, "/first");
    let mut upstream = origin.accept();
    upstream.request();
    let mut second = ask(&proxy, "/second");
    await_length(&proxy, 1);
    thread::sleep(Duration::from_secs(1));
    upstream.send(ok("first"));
    assert_eq!(first.response("GET").text(), "first");
    let held = since.elapsed();
    upstream.request();
    upstream.send(ok("second"));
    assert_eq!(second.response("GET").text(), "second");
    eventually("both are recorded", || {
        proxy.upstream()["servers"][0]["latency"]["count"] == 2
    });
    let mean = proxy.upstream()["servers"][0]["latency"]["mean_us"].clone();
    // The first took that much of the server's time, the second hardly any.
    let most = held.as_micros() as f64 * 0.75;
    assert!(mean.as_f64().is_some_and(|us| us < most), "{mean} {held:?}");
}

fn a_place_that_another_shard_frees_is_found(mode: Mode) {
    let origin = Origin::bind();
    let settings = "queue = 16\nqueue_timeout = \"1m\"\npool = { max_idle = 0 }";
    let proxy = start(mode, 3, &origin.address, "max_requests = 1", settings);
    let mut clients = vec![ask(&proxy, "/")];
    let mut upstream = origin.accept();
    upstream.request();
    clients.extend((0..12).map(|_| ask(&proxy, "/")));
    await_length(&proxy, 12);
    for served in 0..12 {
        upstream.send(ok("done"));
        drop(upstream);
        upstream = origin.accept();
        upstream.request();
        // Two shards that look at the same moment can both take the place.
        let busy = 12 - served - 1;
        eventually("the others still wait", || {
            let length = proxy.upstream()["queue"]["length"].as_u64();
            length.is_some_and(|length| length <= busy)
        });
    }
    upstream.send(ok("done"));
    for mut client in clients {
        assert_eq!(client.response("GET").text(), "done");
    }
}

fn a_failed_request_frees_its_place(mode: Mode) {
    let (proxy, origin) = one_at_a_time(mode, "queue = 8\nqueue_timeout = \"1m\"");
    let mut first = ask(&proxy, "/first");
    let mut upstream = origin.accept();
    upstream.request();
    let mut second = ask(&proxy, "/second");
    await_length(&proxy, 1);
    drop(upstream);
    assert_eq!(first.response("GET").status, 502);
    let mut upstream = origin.accept();
    assert_eq!(upstream.request().target, "/second");
    upstream.send(ok("second"));
    assert_eq!(second.response("GET").text(), "second");
}

fn connections_are_limited_apart_from_requests(mode: Mode) {
    let origin = Origin::bind();
    let proxy = start(mode, 1, &origin.address, "max_connections = 1", "queue = 8");
    let mut first = ask(&proxy, "/first");
    let mut upstream = origin.accept();
    upstream.request();
    let mut second = ask(&proxy, "/second");
    await_length(&proxy, 1);
    upstream.send(ok("first"));
    assert_eq!(first.response("GET").text(), "first");
    assert_eq!(upstream.request().target, "/second", "over the same one");
    upstream.send(ok("second"));
    assert_eq!(second.response("GET").text(), "second");
    // The idle one counts, and is used.
    assert_eq!(proxy.upstream()["servers"][0]["open"], 1);
    first.send("GET /third HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(upstream.request().target, "/third");
    // One that the server closes makes room for another.
    drop(upstream);
    let mut upstream = origin.accept();
    assert_eq!(upstream.request().target, "/third");
    upstream.send(ok("third"));
    assert_eq!(first.response("GET").text(), "third");
    origin.expect_nobody();
}

fn idle_connections_of_other_shards_make_room(mode: Mode) {
    let served = Origin::serve_text("served");
    let settings = "queue = 8\nqueue_timeout = \"10s\"";
    let proxy = start(mode, 3, &served.address, "max_connections = 1", settings);
    for _ in 0..20 {
        assert_eq!(proxy.get("/").text(), "served");
        let open = proxy.upstream()["servers"][0]["open"].as_u64();
        assert!(open.is_some_and(|open| open <= 1), "{open:?}");
    }
    assert!(served.connections() > 1, "no shard but one had a request");
}

/// It never reached a server, so it may wait like one that has just come.
fn a_request_that_met_a_dead_server_waits_for_a_full_one(mode: Mode) {
    let origin = Origin::bind();
    let proxy = in_order(
        mode,
        8,
        &[any_number(&Origin::nowhere()), one_request(&origin.address)],
    );
    let mut first = ask(&proxy, "/first");
    let mut upstream = origin.accept();
    assert_eq!(upstream.request().target, "/first");
    let mut second = ask(&proxy, "/second");
    await_length(&proxy, 1);
    upstream.send(ok("first"));
    assert_eq!(first.response("GET").text(), "first");
    assert_eq!(upstream.request().target, "/second");
    upstream.send(ok("second"));
    assert_eq!(second.response("GET").text(), "second");
}

fn a_request_that_a_server_dropped_waits_for_a_full_one(mode: Mode) {
    let [failing, other] = [Origin::bind(), Origin::bind()];
    let proxy = in_order(
        mode,
        8,
        &[one_request(&failing.address), one_request(&other.address)],
    );
    let mut first = ask(&proxy, "/first");
    let mut upstream = failing.accept();
    assert_eq!(upstream.request().target, "/first");
    let mut second = ask(&proxy, "/second");
    let mut busy = other.accept();
    assert_eq!(busy.request().target, "/second");
    drop(upstream);
    await_length(&proxy, 1);
    // The place that it has left is free for others.
    let mut third = ask(&proxy, "/third");
    let mut again = failing.accept();
    assert_eq!(again.request().target, "/third");
    again.send(ok("third"));
    assert_eq!(third.response("GET").text(), "third");
    busy.send(ok("second"));
    assert_eq!(second.response("GET").text(), "second");
    assert_eq!(busy.request().target, "/first");
    busy.send(ok("first"));
    assert_eq!(first.response("GET").text(), "first");
}

fn a_queue_full_of_them_turns_nobody_away_from_an_idle_server(mode: Mode) {
    let [failing, other] = [Origin::bind(), Origin::bind()];
    let proxy = in_order(
        mode,
        1,
        &[any_number(&failing.address), one_request(&other.address)],
    );
    let mut first = ask(&proxy, "/first");
    drop(failing.accept());
    let mut busy = other.accept();
    assert_eq!(busy.request().target, "/first");
    let mut second = ask(&proxy, "/second");
    drop(failing.accept());
    await_length(&proxy, 1);
    let mut third = ask(&proxy, "/third");
    let mut idle = failing.accept();
    assert_eq!(idle.request().target, "/third");
    idle.send(ok("third"));
    assert_eq!(third.response("GET").text(), "third");
    busy.send(ok("first"));
    assert_eq!(first.response("GET").text(), "first");
    assert_eq!(busy.request().target, "/second");
    busy.send(ok("second"));
    assert_eq!(second.response("GET").text(), "second");
}

fn own_clients_do_not_wait_for_those_that_cannot_use_their_server(mode: Mode) {
    for reserved in ["backup = true", "weight = 0"] {
        let [a, b] = [Origin::bind(), Origin::bind()];
        let (proxy, mut busy, mut upstream) = before_a_reserve(mode, reserved, &a, &b);
        let mut other = ask(&proxy, "/other");
        await_length(&proxy, 1);
        let mut own = ask_with(&proxy, "/own", OWN);
        let mut idle = a.accept();
        assert_eq!(idle.request().target, "/own");
        idle.send(ok("own"));
        assert_eq!(own.response("GET").text(), "own");
        await_length(&proxy, 1);
        upstream.send(ok("busy"));
        assert_eq!(busy.response("GET").text(), "busy");
        assert_eq!(upstream.request().target, "/other");
        upstream.send(ok("other"));
        assert_eq!(other.response("GET").text(), "other");
    }
}

fn own_clients_wait_for_each_other(mode: Mode) {
    let [a, b] = [Origin::bind(), Origin::bind()];
    let (proxy, _busy, mut upstream) = before_a_reserve(mode, "backup = true", &a, &b);
    let mut clients = vec![ask_with(&proxy, "/0", OWN)];
    let mut own = a.accept();
    assert_eq!(own.request().target, "/0");
    let mut other = ask(&proxy, "/other");
    await_length(&proxy, 1);
    for number in 1..4 {
        clients.push(ask_with(&proxy, &format!("/{number}"), OWN));
        await_length(&proxy, number + 1);
    }
    let mut last = clients.pop().expect("there are four");
    for (number, mut client) in clients.into_iter().enumerate() {
        own.send(ok("own"));
        assert_eq!(client.response("GET").text(), "own");
        assert_eq!(own.request().target, format!("/{}", number + 1));
    }
    await_length(&proxy, 1);
    // One that waits still takes any server in its turn.
    let mut late = ask_with(&proxy, "/late", OWN);
    await_length(&proxy, 2);
    upstream.send(ok("busy"));
    assert_eq!(upstream.request().target, "/other");
    upstream.send(ok("other"));
    assert_eq!(other.response("GET").text(), "other");
    assert_eq!(upstream.request().target, "/late");
    upstream.send(ok("late"));
    assert_eq!(late.response("GET").text(), "late");
    own.send(ok("last"));
    assert_eq!(last.response("GET").text(), "last");
}
