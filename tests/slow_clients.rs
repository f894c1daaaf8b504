//! Peers that cost by being slow or endless: each gets its proper end in bounded time and memory, and who is merely not fast lives.
//! What a single timeout or limit finds is in `timeouts.rs` and `limits.rs`, an origin's endless interim responses in `responses.rs`.

mod support;

use std::io::Read as _;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use support::{
    Config, End, Mode, Origin, PATIENCE, Proxy, Wire, all_at_once, eventually, in_each_mode, ok,
};

in_each_mode!(slow_ones, steady_ones, endless_ones);

const ADMIN: &str = "[admin]\naddress = \"127.0.0.1:0\"\n";
const GRACE: Duration = Duration::from_secs(1);

/// A name and a script.
type Case = (&'static str, fn(Mode));

#[track_caller]
fn run_all(cases: &[Case], mode: Mode) {
    all_at_once(
        cases,
        |(name, _)| (*name).to_owned(),
        |(_, script)| script(mode),
    );
}

/// Peers below the rate.
fn slow_ones(mode: Mode) {
    run_all(
        &[
            ("a body of a byte each 100 ms", slow_body),
            ("one-byte chunks, slowly", slow_chunks),
            ("trailers, slowly", slow_trailers),
            ("a reader of a byte each 100 ms", slow_reader),
            ("a slow reader of small pieces", slow_reader_of_pieces),
            (
                "a slow body after the answer began",
                slow_body_of_an_answered,
            ),
            ("a shorter timeout is still a timeout", stalled_body),
        ],
        mode,
    );
}

/// Peers at or above the rate, and waits that are not theirs.
fn steady_ones(mode: Mode) {
    run_all(
        &[
            ("a body above the rate", steady_body),
            ("a body in lumps", lumpy_body),
            ("an origin that rests before it reads", resting_origin),
            ("an origin that is slow to say 100", late_continue),
            ("a reader above the rate", steady_reader),
            ("a reader of less than its buffer holds", small_reader),
            ("an origin that answers slowly", dribbling_origin),
        ],
        mode,
    );
}

/// Peers without end.
fn endless_ones(mode: Mode) {
    run_all(
        &[
            ("one-byte chunks", many_chunks),
            ("trailers, one by one", endless_trailers),
            ("heads of many clients", header_flood),
        ],
        mode,
    );
}

/// A proxy with both rates at 1000 bytes a second, a grace of [`GRACE`] and small buffers towards clients.
fn start(mode: Mode) -> (Proxy, Origin) {
    start_with(mode, "")
}

fn start_with(mode: Mode, timeouts: &str) -> (Proxy, Origin) {
    let origin = Origin::bind();
    let proxy = Config::new(mode)
        .tables("[[listen]]\naddress = \"127.0.0.1:0\"\nsend_buffer = \"16KiB\"")
        .tables(&format!(
            "{ADMIN}[timeouts]\nclient_body_min_rate = 1000\nresponse_min_rate = 1000\nmin_rate_grace = \"1s\"\n{timeouts}"
        ))
        .upstream(&[&origin.address], "")
        .start();
    (proxy, origin)
}

fn timeouts(proxy: &Proxy, kind: &str) -> u64 {
    let count = proxy.status()["totals"]["timeouts"][kind].as_u64();
    count.expect("a counter")
}

fn narrow_client(proxy: &Proxy) -> Wire {
    Wire::connect_narrow(proxy.addresses[0])
}

/// Sends `piece` every 100 ms until an answer or the end comes, at most [`PATIENCE`].
fn drip(client: &mut Wire, piece: &str) {
    let since = Instant::now();
    while since.elapsed() < PATIENCE && client.try_send(piece).is_ok() {
        if client.receive_within(Duration::from_millis(100)).is_ok() {
            return;
        }
    }
}

#[track_caller]
fn expect_too_slow(proxy: &Proxy, client: &mut Wire, since: Instant) {
    let response = client.response("POST");
    assert_eq!(response.status, 408);
    assert!(response.head.lists("connection", "close"));
    assert!(since.elapsed() >= GRACE, "{:?}", since.elapsed());
    assert!(since.elapsed() < GRACE * 4, "{:?}", since.elapsed());
    assert_eq!(timeouts(proxy, "client_body_rate"), 1);
    assert_eq!(timeouts(proxy, "client_body"), 0);
}

fn slow_body(mode: Mode) {
    let (proxy, origin) = start(mode);
    let mut client = proxy.connect();
    let since = Instant::now();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n");
    let mut upstream = origin.accept();
    drip(&mut client, ".");
    expect_too_slow(&proxy, &mut client, since);
    upstream.expect_end_within(PATIENCE);
}

fn slow_chunks(mode: Mode) {
    let (proxy, origin) = start(mode);
    let mut client = proxy.connect();
    let since = Instant::now();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    let mut upstream = origin.accept();
    drip(&mut client, "1\r\n.\r\n");
    expect_too_slow(&proxy, &mut client, since);
    let (bytes, _) = upstream.read_to_end();
    assert!(!bytes.ends_with(b"0\r\n\r\n"), "not told that it was all");
}

fn slow_trailers(mode: Mode) {
    let (proxy, origin) = start(mode);
    let mut client = proxy.connect();
    let since = Instant::now();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n.\r\n0\r\n");
    let mut upstream = origin.accept();
    drip(&mut client, "X: y\r\n");
    expect_too_slow(&proxy, &mut client, since);
    upstream.expect_end_within(PATIENCE);
}

fn slow_body_of_an_answered(mode: Mode) {
    let (proxy, origin) = start(mode);
    let mut client = proxy.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n");
    let mut upstream = origin.accept();
    upstream.request_head();
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345");
    client.response_head("POST");
    client.expect("12345");
    eventually("the client is too slow", || {
        client.try_send(".").ok();
        timeouts(&proxy, "client_body_rate") == 1
    });
    upstream.send("67890");
    client.expect("67890");
    client.expect_close();
}

fn stalled_body(mode: Mode) {
    let (proxy, origin) = start_with(mode, "client_body = \"300ms\"");
    let mut client = proxy.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n.");
    let _upstream = origin.accept();
    assert_eq!(client.response("POST").status, 408);
    assert_eq!(timeouts(&proxy, "client_body"), 1);
    assert_eq!(timeouts(&proxy, "client_body_rate"), 0);
}

/// Reads a byte every 100 ms until the proxy has had enough of that.
#[track_caller]
fn expect_reset_while_reading(proxy: &Proxy, client: &mut Wire) {
    let since = Instant::now();
    while timeouts(proxy, "response_rate") == 0 {
        // After a reset too the kernel hands out what it has got.
        client.socket().read_exact(&mut [0]).ok();
        std::thread::sleep(Duration::from_millis(100));
        assert!(since.elapsed() < GRACE * 5, "still connected");
    }
    assert!(since.elapsed() >= GRACE, "{:?}", since.elapsed());
    assert_eq!(client.expect_end_within(PATIENCE), End::Reset);
    assert_eq!(timeouts(proxy, "write"), 0);
}

fn slow_reader(mode: Mode) {
    let (proxy, origin) = start(mode);
    let mut client = narrow_client(&proxy);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut upstream = origin.accept();
    upstream.request();
    let sender = std::thread::spawn(move || {
        upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n");
        upstream.try_send(vec![b'.'; 100_000_000]).is_err()
    });
    expect_reset_while_reading(&proxy, &mut client);
    assert!(sender.join().expect("no panic"), "the origin hears of it");
}

/// What is owed stands over from one piece of the answer to the next.
fn slow_reader_of_pieces(mode: Mode) {
    let (proxy, origin) = start(mode);
    let mut client = narrow_client(&proxy);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut upstream = origin.accept();
    upstream.request();
    upstream.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    let sender = std::thread::spawn(move || {
        let piece = format!("200\r\n{}\r\n", ".".repeat(512));
        (0..100_000).any(|_| upstream.try_send(&piece).is_err())
    });
    expect_reset_while_reading(&proxy, &mut client);
    assert!(sender.join().expect("no panic"), "the origin hears of it");
}

/// Passes a body on as `rounds` of `piece`, each after `pause`.
fn upload(mode: Mode, rounds: usize, piece: usize, pause: Duration) {
    let (proxy, origin) = start(mode);
    let mut client = proxy.connect();
    let length = rounds * piece;
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n"
    ));
    let mut upstream = origin.accept();
    upstream.request_head();
    for _ in 0..rounds {
        std::thread::sleep(pause);
        client.send(vec![b'.'; piece]);
    }
    upstream.skip(length as u64);
    upstream.send(ok("fine"));
    assert_eq!(client.response("POST").text(), "fine");
    assert_eq!(timeouts(&proxy, "client_body_rate"), 0);
}

fn steady_body(mode: Mode) {
    upload(mode, 30, 250, Duration::from_millis(100));
}

fn lumpy_body(mode: Mode) {
    upload(mode, 6, 1500, Duration::from_millis(600));
}

fn resting_origin(mode: Mode) {
    let (proxy, origin) = start(mode);
    let mut client = proxy.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 50000000\r\n\r\n");
    let mut upstream = origin.accept();
    upstream.request_head();
    let sender = std::thread::spawn(move || {
        client.send(vec![b'.'; 50_000_000]);
        client
    });
    std::thread::sleep(GRACE * 3);
    upstream.skip(50_000_000);
    upstream.send(ok("fine"));
    let mut client = sender.join().expect("everything was taken");
    assert_eq!(client.response("POST").text(), "fine");
}

fn late_continue(mode: Mode) {
    let (proxy, origin) = start(mode);
    let mut client = proxy.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n");
    let mut upstream = origin.accept();
    upstream.request_head();
    std::thread::sleep(GRACE * 3);
    upstream.send("HTTP/1.1 100 Continue\r\n\r\n");
    client.expect("HTTP/1.1 100 Continue\r\n\r\n");
    client.send("hi");
    upstream.expect("hi");
    upstream.send(ok("fine"));
    assert_eq!(client.response("POST").text(), "fine");
}

/// At the proxy's socket this reader is not ready to be written to for most of the time.
fn steady_reader(mode: Mode) {
    let (proxy, origin) = start(mode);
    let mut client = narrow_client(&proxy);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut upstream = origin.accept();
    upstream.request();
    let length = 400_000;
    let sender = answer(upstream, length);
    client.response_head("GET");
    for _ in 0..40 {
        std::thread::sleep(Duration::from_millis(100));
        client.skip(length as u64 / 40);
    }
    assert_eq!(timeouts(&proxy, "response_rate"), 0);
    drop(sender.join().expect("everything was taken"));
}

/// Sends an answer of this length, as fast as it is taken.
fn answer(mut upstream: Wire, length: usize) -> JoinHandle<Wire> {
    std::thread::spawn(move || {
        upstream.send(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n"
        ));
        upstream.send(vec![b'.'; length]);
        upstream
    })
}

/// The buffers of this proxy are sized by the kernel: a socket has room again when much of it has drained.
fn small_reader(mode: Mode) {
    let origin = Origin::bind();
    let proxy = Config::new(mode)
        .tables(ADMIN)
        .tables("[timeouts]\nwrite = \"1s\"")
        .upstream(&[&origin.address], "")
        .start();
    let mut client = narrow_client(&proxy);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut upstream = origin.accept();
    upstream.request();
    let (length, rounds, piece) = (16_000_000, 60, 1000);
    let sender = answer(upstream, length);
    client.response_head("GET");
    for _ in 0..rounds {
        std::thread::sleep(Duration::from_millis(50));
        client.skip(piece);
    }
    client.skip(length as u64 - rounds * piece);
    assert_eq!(timeouts(&proxy, "write"), 0);
    drop(sender.join().expect("everything was taken"));
}

fn dribbling_origin(mode: Mode) {
    let (proxy, origin) = start(mode);
    let (mut client, mut upstream) = proxy.reach(&origin);
    std::thread::sleep(GRACE * 2);
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n");
    client.response_head("GET");
    for _ in 0..3 {
        std::thread::sleep(GRACE * 3 / 2);
        upstream.send(".");
        client.expect(".");
    }
}

fn many_chunks(mode: Mode) {
    let (proxy, origin) = start(mode);
    let mut client = proxy.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    let mut upstream = origin.accept();
    upstream.request_head();
    let before = proxy.resident();
    let count = 300_000;
    let sender = std::thread::spawn(move || {
        client.send("1\r\n.\r\n".repeat(count));
        client.send("0\r\n\r\n");
        client
    });
    let body = upstream.read_until(b"\r\n0\r\n\r\n");
    let data = body.split(|byte| *byte == b'.').count() - 1;
    assert_eq!(data, count, "each byte went on, once");
    let grown = proxy.resident().saturating_sub(before);
    assert!(grown < 8 << 20, "{grown} bytes more for a streamed body");
    upstream.send(ok("fine"));
    let mut client = sender.join().expect("everything was taken");
    assert_eq!(client.response("POST").text(), "fine");
}

fn endless_trailers(mode: Mode) {
    let (proxy, origin) = start(mode);
    let mut client = proxy.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n.\r\n0\r\n");
    let _upstream = origin.accept();
    let line = format!("X: {}\r\n", "y".repeat(100));
    let sent = (0..10_000).find(|_| {
        client.try_send(&line).is_err() || client.receive_within(Duration::from_millis(1)).is_ok()
    });
    assert!(sent.is_some(), "trailers may come for ever");
    assert!(client.unread().starts_with(b"HTTP/1.1 4"));
}

/// Heads without end from many clients at once: each is refused at the limit, and what they held is small.
fn header_flood(mode: Mode) {
    let (proxy, _origin) = start(mode);
    let before = proxy.resident();
    let mut clients: Vec<Wire> = (0..200).map(|_| proxy.connect()).collect();
    for client in &mut clients {
        client.send(format!(
            "GET / HTTP/1.1\r\nHost: a\r\nX: {}",
            "x".repeat(31_000)
        ));
    }
    let grown = proxy.resident().saturating_sub(before);
    assert!(
        grown < 200 * 128 * 1024,
        "{grown} bytes for 200 partial heads"
    );
    for client in &mut clients {
        client.send("x".repeat(2000));
        assert_eq!(client.response("GET").status, 431);
        client.expect_close();
    }
}
