//! SIGTERM under load cuts no request that was accepted: what clients were answered is what the origin served, one by one.

mod support;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};
use support::{
    Config, Mode, Origin, PATIENCE, Proxy, QUIET, SLOWNESS, Wire, eventually, in_each_mode, ok,
};

in_each_mode!(
    each_connection_that_opens_is_served,
    backlog_is_served,
    pipelined_requests_are_served,
    half_a_pipelined_head_is_not_waited_for,
    first_head_that_has_begun_is_waited_for,
    empty_lines_are_not_waited_for,
    slow_reader_gets_all,
    silent_clients_are_not_late,
    mixed_load_is_counted_on_both_sides,
);

/// A client that needs longer from its connect to its first request, as on a busy machine, may find the connection closed. The proxy
/// waits for half a second, by a clock of 0.1 s.
const GRACE: Duration = Duration::from_millis(400);

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

fn config(mode: Mode) -> Config {
    Config::new(mode)
        .key("shutdown_timeout = \"20s\"")
        .key("shards = 2")
}

#[track_caller]
fn expect_exit_0(proxy: &mut Proxy) {
    let status = proxy.exit_within(PATIENCE);
    let log = proxy.log().join("\n");
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("drained"), "it ended by itself: {log}");
    proxy.expect_no_panic();
}

/// Clients with a new connection for each request, until one is refused. A connection that was made has been promised an answer,
/// also when SIGTERM finds it in the middle of its handshake.
fn each_connection_that_opens_is_served(mode: Mode) {
    let served = Origin::serve_text("fine");
    let mut proxy = config(mode).upstream(&[&served.address], "").start();
    let address = proxy.addresses[0];
    let answered: usize = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..12)
            .map(|_| scope.spawn(move || connect_until_refused(address)))
            .collect();
        std::thread::sleep(QUIET);
        proxy.signal("TERM");
        clients
            .into_iter()
            .map(|client| client.join().expect("a client that was not cut off"))
            .sum()
    });
    expect_exit_0(&mut proxy);
    assert!(answered > 12, "there was load: {answered}");
    assert_eq!(served.requests().len(), answered);
}

fn connect_until_refused(address: SocketAddr) -> usize {
    let mut answered = 0;
    loop {
        let since = Instant::now();
        let Ok(mut client) = Wire::connect_to(&address.into()) else {
            return answered;
        };
        let sent = client.try_send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let late = since.elapsed() >= GRACE;
        if late && (sent.is_err() || !has_answer(&mut client)) {
            return answered;
        }
        assert_eq!(
            client.response("GET").text(),
            "fine",
            "after {answered} answers"
        );
        answered += 1;
    }
}

/// Connections that nobody has accepted yet when the signal comes.
fn backlog_is_served(mode: Mode) {
    let served = Origin::serve_text("fine");
    let mut proxy = config(mode).upstream(&[&served.address], "").start();
    proxy.suspend();
    let mut clients: Vec<Wire> = (0..60).map(|_| proxy.connect()).collect();
    for client in &mut clients {
        client.send(GET);
    }
    proxy.signal("TERM");
    proxy.resume();
    for client in &mut clients {
        assert_eq!(client.response("GET").text(), "fine");
    }
    drop(clients);
    expect_exit_0(&mut proxy);
    assert_eq!(served.requests().len(), 60);
}

/// Requests that have come behind one another are all answered; the last answer says that it is the last.
fn pipelined_requests_are_served(mode: Mode) {
    let origin = Origin::bind();
    let mut proxy = config(mode)
        .upstream(&[&origin.address], "pool = { max_idle = 0 }")
        .start();
    let mut client = proxy.connect();
    client.send(GET.repeat(5));
    let mut upstream = origin.accept();
    upstream.request();
    proxy.signal("TERM");
    std::thread::sleep(QUIET);
    for number in 1..=5 {
        upstream.send(ok("fine"));
        let response = client.response("GET");
        assert_eq!(response.text(), "fine");
        let last = response.head.lists("connection", "close");
        assert_eq!(last, number == 5, "answer {number}");
        if number < 5 {
            upstream = origin.accept();
            upstream.request();
        }
    }
    client.expect_close();
    drop(client);
    expect_exit_0(&mut proxy);
}

fn half_a_pipelined_head_is_not_waited_for(mode: Mode) {
    let origin = Origin::bind();
    let mut proxy = config(mode).upstream(&[&origin.address], "").start();
    let mut client = proxy.connect();
    client.send(format!("{GET}GET /half HTTP/1.1\r\nHo"));
    let mut upstream = origin.accept();
    upstream.request();
    proxy.signal("TERM");
    std::thread::sleep(QUIET);
    upstream.send(ok("fine"));
    let response = client.response("GET");
    assert!(
        response.head.lists("connection", "close"),
        "it says that the half will not be answered"
    );
    client.expect_close();
    drop(client);
    expect_exit_0(&mut proxy);
}

/// The grace is for its first byte; the rest has the time of any head.
fn first_head_that_has_begun_is_waited_for(mode: Mode) {
    let served = Origin::serve_text("fine");
    let mut proxy = config(mode).upstream(&[&served.address], "").start();
    let mut client = proxy.connect();
    let (half, rest) = GET.split_at(GET.len() / 2);
    let since = Instant::now();
    proxy.signal("TERM");
    std::thread::sleep(GRACE / 2);
    let sent = client.try_send(half);
    if since.elapsed() < GRACE {
        sent.expect("the first byte is in time");
        std::thread::sleep(3 * GRACE);
        client.send(rest);
        assert_eq!(client.response("GET").text(), "fine");
    }
    drop(client);
    expect_exit_0(&mut proxy);
}

/// Clients at rest and new ones that send nothing else, whole and in halves.
fn empty_lines_are_not_waited_for(mode: Mode) {
    let served = Origin::serve_text("fine");
    let mut proxy = config(mode).upstream(&[&served.address], "").start();
    let mut clients: Vec<(Wire, &str)> = Vec::new();
    for lines in ["\r\n", "\r\n\r", "\r"] {
        let mut rested = proxy.connect();
        rested.send(GET);
        assert_eq!(rested.response("GET").text(), "fine");
        clients.extend([(rested, lines), (proxy.connect(), lines)]);
    }
    for (client, lines) in &mut clients {
        client.send(lines);
        client.expect_silence(Duration::from_millis(20));
    }
    let since = Instant::now();
    proxy.signal("TERM");
    let mut left = clients;
    while !left.is_empty() && since.elapsed() < PATIENCE {
        left.retain_mut(|(client, _)| {
            client.try_send("\r\n").is_ok()
                && client.receive_within(Duration::from_millis(20)).is_err()
        });
    }
    assert!(
        since.elapsed() < Duration::from_secs(3 * SLOWNESS),
        "{:?}",
        since.elapsed()
    );
    expect_exit_0(&mut proxy);
}

/// An idle connection whose last answer is still in the socket's buffer; a request crosses its close.
fn slow_reader_gets_all(mode: Mode) {
    const BYTES: usize = 200_000;
    let served = Origin::bind().serve(|_| ok(&"x".repeat(BYTES)));
    let mut proxy = config(mode)
        .tables("[admin]\naddress = \"127.0.0.1:0\"")
        .tables("[[listen]]\naddress = \"127.0.0.1:0\"\nsend_buffer = \"1MiB\"")
        .upstream(&[&served.address], "")
        .start();
    let mut client = slow_reader(&proxy);
    client.send(GET);
    eventually("the answer is in the buffers", || {
        let totals = &proxy.status()["totals"];
        totals["requests"] == 1 && totals["active"] == 0
    });
    proxy.signal("TERM");
    std::thread::sleep(QUIET);
    client.try_send(GET).ok();
    std::thread::sleep(QUIET);
    assert_eq!(client.response("GET").body.len(), BYTES);
    drop(client);
    expect_exit_0(&mut proxy);
    assert_eq!(served.requests().len(), 1);
}

/// A client whose socket takes little.
fn slow_reader(proxy: &Proxy) -> Wire {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(8192).expect("a socket option");
    socket
        .connect(&SockAddr::from(proxy.addresses[0]))
        .expect("the proxy accepts");
    Wire::new(socket)
}

/// What clients of a mixed load saw.
#[derive(Default)]
struct Seen {
    answered: AtomicUsize,
}

/// Keep-alive and pipelining clients, new connections and uploads in pieces, all at once: no answer is cut, and no more requests were served
/// than clients have answers. An answer may only be missing where the request came on a connection that was told or about to close.
fn mixed_load_is_counted_on_both_sides(mode: Mode) {
    let served = Origin::bind().serve(|request| {
        std::thread::sleep(Duration::from_millis(request.body.len() as u64 % 20 + 1));
        ok(&"y".repeat(request.body.len() + 10))
    });
    let mut proxy = config(mode).upstream(&[&served.address], "").start();
    let address = proxy.addresses[0];
    let seen = Seen::default();
    std::thread::scope(|scope| {
        for kind in 0..12 {
            let seen = &seen;
            scope.spawn(move || match kind % 4 {
                0 => keep_alive(address, 1, seen),
                1 => keep_alive(address, 4, seen),
                2 => drop(
                    seen.answered
                        .fetch_add(upload_until_refused(address), Ordering::Relaxed),
                ),
                _ => upload_and_stay(address, seen),
            });
        }
        std::thread::sleep(QUIET * 2);
        proxy.signal("TERM");
    });
    expect_exit_0(&mut proxy);
    let answered = seen.answered.into_inner();
    assert!(answered > 50, "there was load: {answered}");
    assert_eq!(served.requests().len(), answered);
}

/// Sends `depth` requests at a time until the connection ends.
fn keep_alive(address: SocketAddr, depth: usize, seen: &Seen) {
    let mut client = Wire::connect(address);
    while client.try_send(GET.repeat(depth)).is_ok() {
        for _ in 0..depth {
            if !has_answer(&mut client) {
                return;
            }
            let response = client.response("GET");
            assert_eq!(response.body.len(), 10);
            seen.answered.fetch_add(1, Ordering::Relaxed);
            if response.head.lists("connection", "close") {
                return;
            }
        }
    }
}

/// Whether an answer begins, and not the connection ends.
fn has_answer(client: &mut Wire) -> bool {
    while client.unread().is_empty() {
        if !client
            .receive_within(PATIENCE)
            .expect("an answer or the end")
        {
            return false;
        }
    }
    true
}

const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 30000\r\n\r\n";

/// The body of a [`POST`] in pieces, and its answer.
fn upload(client: &mut Wire) -> bool {
    let body = "z".repeat(30_000);
    let sent = body.as_bytes().chunks(10_000).try_for_each(|piece| {
        std::thread::sleep(Duration::from_millis(2));
        client.try_send(piece)
    });
    if sent.is_err() || !has_answer(client) {
        return false;
    }
    assert_eq!(client.response("POST").body.len(), 30_010);
    true
}

fn upload_until_refused(address: SocketAddr) -> usize {
    let mut answered = 0;
    loop {
        let since = Instant::now();
        let Ok(mut client) = Wire::connect_to(&address.into()) else {
            return answered;
        };
        let sent = client.try_send(POST).is_ok();
        let late = since.elapsed() >= GRACE;
        if !sent || !upload(&mut client) {
            assert!(late, "a new connection was cut");
            return answered;
        }
        answered += 1;
    }
}

fn upload_and_stay(address: SocketAddr, seen: &Seen) {
    let mut client = Wire::connect(address);
    while client.try_send(POST).is_ok() && upload(&mut client) {
        seen.answered.fetch_add(1, Ordering::Relaxed);
    }
}

/// The drain ends them, and no timeout of theirs.
fn silent_clients_are_not_late(mode: Mode) {
    let origin = Origin::bind();
    let mut proxy = config(mode)
        .tables("[admin]\naddress = \"127.0.0.1:0\"")
        .upstream(&[&origin.address], "")
        .start();
    let (mut client, mut upstream) = proxy.reach(&origin);
    let mut silent: Vec<_> = (0..5).map(|_| proxy.connect()).collect();
    proxy.signal("TERM");
    silent.iter_mut().for_each(Wire::expect_end);
    let timeouts = proxy.status()["totals"]["timeouts"].take();
    assert_eq!(timeouts["client_header"], 0, "{timeouts}");
    upstream.send(ok("fine"));
    assert_eq!(client.response("GET").text(), "fine");
    expect_exit_0(&mut proxy);
}
