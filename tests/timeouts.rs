//! Each timeout, on each side, and what does not count as idle. Settings are a few hundred milliseconds; a sweep finds what is overdue, so
//! everything happens a little later than set, never earlier. RFC 9110 sections 15.5.9 (408) and 15.6.5 (504).

mod support;

use std::time::{Duration, Instant};

use support::{
    Config, Mode, Origin, PATIENCE, Proxy, Wire, all_at_once, eventually, in_each_mode, ok,
    took_about,
};

in_each_mode!(
    each_timeout,
    what_makes_progress_is_not_overdue,
    answers_that_came_while_the_process_stood_still_are_in_time,
    time_in_which_the_process_stood_still_is_not_counted,
);

const SET: Duration = Duration::from_millis(500);

/// Behind a method, the rest of a head whose client awaits 100 (Continue).
const EXPECTING: &str =
    "/ HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n";

/// A name and a script.
type Case = (&'static str, fn(Mode));

fn each_timeout(mode: Mode) {
    let cases: &[Case] = &[
        ("client_header, nothing sent", silent_client),
        ("client_header, half a head", half_a_head),
        ("client_header, byte by byte", slow_head),
        ("client_header, second request", half_a_second_head),
        ("client_body", stalled_upload),
        ("client_body, chunked", stalled_chunks),
        ("client_body, after 100", stalled_after_100),
        ("keep_alive", idle_client),
        ("keep_alive, an empty line", empty_line_behind_a_request),
        ("keep_alive, empty lines", empty_lines_at_rest),
        ("keep_alive, empty lines in halves", halves_of_empty_lines),
        ("keep_alive, a flood of empty lines", flood_of_empty_lines),
        (
            "client_header, empty lines",
            empty_lines_before_a_first_head,
        ),
        (
            "client_header, behind empty lines",
            half_a_head_behind_lines,
        ),
        ("write, to the client", client_that_does_not_read),
        (
            "write, to a client that has finished",
            finished_client_that_does_not_read,
        ),
        (
            "write, of answers of our own",
            client_that_does_not_read_our_answers,
        ),
        ("write, to the origin", origin_that_does_not_read),
        ("tunnel_idle", idle_tunnel),
        (
            "tunnel_idle, to an origin that has finished",
            tunnel_to_a_finished_origin,
        ),
        ("connect_timeout", origin_that_does_not_accept),
        (
            "connect_timeout, next server",
            next_server_after_connect_timeout,
        ),
        ("response_header_timeout", silent_origin),
        ("response_header_timeout, half a head", half_a_response_head),
        (
            "response_header_timeout, in place of 100",
            next_server_for_a_client_that_awaits_100,
        ),
        (
            "response_header_timeout, after a body without 100",
            silent_origin_after_a_body_without_100,
        ),
        ("response_body_timeout", stalled_response),
        (
            "response_body_timeout, with a body that is not read",
            stalled_response_to_an_unread_body,
        ),
    ];
    all_at_once(
        cases,
        |(name, _)| (*name).to_owned(),
        |(_, script)| script(mode),
    );
}

fn what_makes_progress_is_not_overdue(mode: Mode) {
    let cases: &[Case] = &[
        ("client_body", slow_upload),
        ("response_body_timeout", slow_response),
        (
            "response_body_timeout, while a body is read",
            response_that_ends_behind_a_slow_read,
        ),
        ("tunnel_idle", slow_tunnel),
        ("tunnel_idle, a burst for a slow client", burst_in_a_tunnel),
        (
            "tunnel_idle, a client that only sends",
            client_that_only_sends,
        ),
        ("empty lines before requests", requests_behind_empty_lines),
        (
            "keep_alive, during an exchange",
            exchange_longer_than_keep_alive,
        ),
        (
            "response_header_timeout, during an upload",
            upload_longer_than_response_header,
        ),
    ];
    all_at_once(
        cases,
        |(name, _)| (*name).to_owned(),
        |(_, script)| script(mode),
    );
}

fn start(mode: Mode, timeouts: &str, upstream: &str) -> (Proxy, Origin) {
    let origin = Origin::bind();
    let proxy = Config::new(mode)
        .tables(&format!(
            "[timeouts]\n{timeouts}\n[admin]\naddress = \"127.0.0.1:0\""
        ))
        .upstream(&[&origin.address], upstream)
        .start();
    (proxy, origin)
}

/// An answer with this status, about [`SET`] after `since`, and then the end.
#[track_caller]
fn expect_last(client: &mut Wire, status: u16, since: Instant) {
    let response = client.response("GET");
    assert_eq!(response.status, status);
    assert!(
        response.head.lists("connection", "close"),
        "{:?}",
        response.head
    );
    client.expect_end();
    took_about(since, SET);
}

fn silent_client(mode: Mode) {
    let (proxy, _origin) = start(mode, "client_header = \"500ms\"", "");
    let since = Instant::now();
    let mut client = proxy.connect();
    let (bytes, _) = client.read_to_end(); // 408 or nothing: there was no request
    assert!(
        bytes.is_empty() || bytes.starts_with(b"HTTP/1.1 408 "),
        "{}",
        bytes.escape_ascii()
    );
    took_about(since, SET);
}

fn half_a_head(mode: Mode) {
    let (proxy, origin) = start(mode, "client_header = \"500ms\"", "");
    let since = Instant::now();
    let mut client = proxy.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n");
    expect_last(&mut client, 408, since);
    origin.expect_nobody();
}

/// The time counts from the first byte, so that dribbling gains nothing.
fn slow_head(mode: Mode) {
    let (proxy, _origin) = start(mode, "client_header = \"500ms\"", "");
    let since = Instant::now();
    let mut client = proxy.connect();
    client.send("GET / HTTP/1.1\r\n");
    let answered = (0..100).any(|_| {
        client.try_send("X: y\r\n").is_err()
            || client.receive_within(Duration::from_millis(50)).is_ok()
    });
    assert!(answered, "a head may take for ever");
    took_about(since, SET);
}

fn half_a_second_head(mode: Mode) {
    let (proxy, origin) = start(mode, "client_header = \"500ms\"", "");
    let (mut client, mut upstream) = proxy.reach(&origin);
    std::thread::sleep(Duration::from_millis(700)); // waiting for the origin is not the client's fault
    upstream.send(ok("fine"));
    assert_eq!(client.response("GET").text(), "fine");
    let since = Instant::now();
    client.send("GET /");
    expect_last(&mut client, 408, since);
}

fn stalled_upload(mode: Mode) {
    let (proxy, origin) = start(mode, "client_body = \"500ms\"", "");
    let mut client = proxy.connect();
    let since = Instant::now();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello");
    let mut upstream = origin.accept();
    upstream.request_head();
    upstream.expect("hello");
    expect_last(&mut client, 408, since);
    upstream.expect_end();
    origin.expect_nobody();
}

/// The time until the origin asks for the body is not the client's.
fn stalled_after_100(mode: Mode) {
    let (proxy, origin) = start(mode, "client_body = \"500ms\"", "");
    let mut client = proxy.connect();
    client.send(format!("POST {EXPECTING}"));
    let mut upstream = origin.accept();
    upstream.request_head();
    std::thread::sleep(Duration::from_millis(1200));
    let since = Instant::now();
    upstream.send("HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(client.response("POST").status, 100);
    expect_last(&mut client, 408, since);
    upstream.expect_end();
    origin.expect_nobody();
}

fn stalled_chunks(mode: Mode) {
    let (proxy, origin) = start(mode, "client_body = \"500ms\"", "");
    let mut client = proxy.connect();
    let since = Instant::now();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
    let mut upstream = origin.accept();
    upstream.request_head();
    expect_last(&mut client, 408, since);
    let (bytes, _) = upstream.read_to_end();
    assert!(
        !bytes.ends_with(b"0\r\n\r\n"),
        "the origin was told that this was all: {}",
        bytes.escape_ascii()
    );
}

fn idle_client(mode: Mode) {
    let (proxy, origin) = start(mode, "keep_alive = \"500ms\"", "");
    let (mut client, mut upstream) = proxy.reach(&origin);
    let since = Instant::now();
    upstream.send(ok("fine"));
    assert_eq!(client.response("GET").text(), "fine");
    client.expect_close(); // without a 408: nothing was asked
    took_about(since, SET);
}

/// A client with one exchange behind it, on a proxy on which no other timeout is near, and a time before it came to rest.
fn at_rest(mode: Mode) -> (Proxy, Wire, Instant) {
    let (proxy, origin) = start(mode, "keep_alive = \"500ms\"", "");
    let (mut client, mut upstream) = proxy.reach(&origin);
    let since = Instant::now();
    upstream.send(ok("fine"));
    assert_eq!(client.response("GET").text(), "fine");
    (proxy, client, since)
}

/// Old clients send one that Content-Length does not count. Nothing was asked, so nothing is answered (RFC 9112 section 2.2).
fn empty_line_behind_a_request(mode: Mode) {
    let (proxy, origin) = start(mode, "keep_alive = \"500ms\"", "");
    let mut client = proxy.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc\r\n");
    let mut upstream = origin.accept();
    assert_eq!(upstream.request().body, b"abc");
    let since = Instant::now();
    upstream.send(ok("fine"));
    assert_eq!(client.response("POST").text(), "fine");
    client.expect_close();
    took_about(since, SET);
}

/// Sends these bytes again and again; the connection must end at its time all the same, about [`SET`] after `since`, without an answer.
#[track_caller]
fn expect_silent_end(client: &mut Wire, again: &[&str], since: Instant) {
    let mut parts = again.iter().cycle().take(400);
    let ended = parts.any(|part| {
        client.try_send(part).is_err()
            || matches!(client.receive_within(Duration::from_millis(50)), Ok(false))
    });
    assert!(ended, "empty lines keep a connection for ever");
    client.expect_end();
    took_about(since, SET);
}

fn empty_lines_at_rest(mode: Mode) {
    let (_proxy, mut client, since) = at_rest(mode);
    expect_silent_end(&mut client, &["\r\n"], since);
}

fn halves_of_empty_lines(mode: Mode) {
    let (_proxy, mut client, since) = at_rest(mode);
    expect_silent_end(&mut client, &["\r", "\n"], since);
    let (_proxy, mut client, since) = at_rest(mode);
    client.send("\r");
    client.expect_close();
    took_about(since, SET);
}

fn empty_lines_before_a_first_head(mode: Mode) {
    let (proxy, _origin) = start(mode, "client_header = \"500ms\"", "");
    let since = Instant::now();
    expect_silent_end(&mut proxy.connect(), &["\r\n"], since);
}

/// More than a head may have, and not in whole lines, as fast as they are taken.
fn flood_of_empty_lines(mode: Mode) {
    let (proxy, mut client, since) = at_rest(mode);
    let before = proxy.resident();
    let lines = "\r\n".repeat(100_000);
    let mut most = 0;
    while client.try_send(&lines).is_ok() {
        most = most.max(proxy.resident());
        assert!(since.elapsed() < PATIENCE, "the flood goes on for ever");
    }
    took_about(since, SET);
    client.expect_end();
    let grown = most.saturating_sub(before);
    assert!(grown < 1 << 20, "{grown} bytes for empty lines");
}

fn half_a_head_behind_lines(mode: Mode) {
    let (proxy, origin) = start(mode, "client_header = \"500ms\"", "");
    let (mut client, mut upstream) = proxy.reach(&origin);
    upstream.send(ok("fine"));
    assert_eq!(client.response("GET").text(), "fine");
    client.send("\r\n");
    client.expect_silence(Duration::from_millis(700));
    let since = Instant::now();
    client.send("\r\n\r\nGET /");
    expect_last(&mut client, 408, since);
}

fn client_that_does_not_read(mode: Mode) {
    let (proxy, origin) = start(mode, "write = \"500ms\"", "");
    let (mut client, mut upstream) = proxy.reach(&origin);
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
    let part = vec![b'.'; 1 << 16];
    let ended = (0..10_000).any(|_| upstream.try_send(&part).is_err());
    assert!(
        ended,
        "the origin could send everything to a client that reads nothing"
    );
    let (bytes, _) = client.read_to_end();
    assert!(bytes.len() < 100_000_000);
}

/// Its FIN is no room in its socket's buffer.
fn finished_client_that_does_not_read(mode: Mode) {
    let (proxy, origin) = start(mode, "write = \"500ms\"", "");
    let (mut client, mut upstream) = proxy.reach(&origin);
    client.finish_sending();
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
    let _ = upstream.try_send(vec![b'.'; 100 << 20]);
    expect_timeout(&proxy, "write");
}

fn client_that_does_not_read_our_answers(mode: Mode) {
    let proxy = Config::new(mode)
        .tables(
            "[[listen]]\naddress = \"127.0.0.1:0\"\nsend_buffer = \"4KiB\"\n\
             [timeouts]\nwrite = \"500ms\"\n[admin]\naddress = \"127.0.0.1:0\"",
        )
        .upstream(&[&Origin::nowhere()], "")
        .tables("[[route]]\npath = \"/routed\"\nupstream = \"app\"")
        .start();
    let mut client = Wire::connect_narrow(proxy.addresses[0]);
    let requests = "GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(1000);
    let _ = (0..10_000).find(|_| client.try_send(&requests).is_err());
    expect_timeout(&proxy, "write");
}

/// The timeout that has ended the only exchange.
#[track_caller]
fn expect_timeout(proxy: &Proxy, kind: &str) {
    eventually("one timeout is counted", || {
        proxy.status()["totals"]["timeouts"][kind] == 1
    });
}

fn origin_that_does_not_read(mode: Mode) {
    let (proxy, origin) = start(mode, "write = \"500ms\"", "retries = 0");
    let mut client = proxy.connect();
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n");
    let mut upstream = origin.accept();
    upstream.request_head();
    let all_taken = client.try_send(vec![b'.'; 100 << 20]).is_ok();
    assert!(
        !all_taken,
        "100 MiB were taken for an origin that reads nothing"
    );
    let (bytes, _) = client.read_to_end(); // what is unread may turn the answer into a reset
    let refused = [&b"HTTP/1.1 502 "[..], b"HTTP/1.1 504 "]
        .iter()
        .any(|start| bytes.starts_with(start));
    assert!(bytes.is_empty() || refused, "{}", bytes.escape_ascii());
}

fn idle_tunnel(mode: Mode) {
    let (proxy, origin) = start(mode, "tunnel_idle = \"500ms\"", "");
    let (mut client, mut upstream) = proxy.tunnel(&origin);
    let since = Instant::now();
    client.send("x");
    upstream.expect("x");
    upstream.expect_end();
    client.expect_end();
    took_about(since, SET);
}

fn tunnel_to_a_finished_origin(mode: Mode) {
    let (proxy, origin) = start(mode, "tunnel_idle = \"500ms\"", "");
    let (mut client, mut upstream) = proxy.tunnel(&origin);
    upstream.finish_sending();
    let _ = client.try_send(vec![b'.'; 100 << 20]);
    expect_timeout(&proxy, "tunnel_idle");
}

fn origin_that_does_not_accept(mode: Mode) {
    let (origin, _fillers) = Origin::black_hole();
    let proxy = Config::new(mode)
        .upstream(
            &[&origin.address],
            "retries = 0\nconnect_timeout = \"500ms\"",
        )
        .start();
    let since = Instant::now();
    let status = proxy.get("/").status;
    assert!(matches!(status, 502 | 504), "{status}");
    took_about(since, SET);
}

fn next_server_after_connect_timeout(mode: Mode) {
    let (origin, _fillers) = Origin::black_hole();
    let served = Origin::serve_text("alive");
    let proxy = Config::new(mode)
        .upstream(
            &[&origin.address, &served.address],
            "retries = 1\nconnect_timeout = \"500ms\"",
        )
        .start();
    let mut client = proxy.connect();
    for _ in 0..2 {
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
        assert_eq!(client.response("POST").text(), "alive");
    }
    assert_eq!(served.requests().len(), 2);
}

fn silent_origin(mode: Mode) {
    let (proxy, origin) = start(mode, "", "retries = 0\nresponse_header_timeout = \"500ms\"");
    let since = Instant::now();
    let (mut client, mut upstream) = proxy.reach(&origin);
    assert_eq!(client.response("GET").status, 504);
    took_about(since, SET);
    upstream.expect_end();
    origin.expect_nobody();
}

fn half_a_response_head(mode: Mode) {
    let (proxy, origin) = start(mode, "", "retries = 0\nresponse_header_timeout = \"500ms\"");
    let since = Instant::now();
    let (mut client, mut upstream) = proxy.reach(&origin);
    upstream.send("HTTP/1.1 200 OK\r\nX: ");
    assert_eq!(client.response("GET").status, 504);
    took_about(since, SET);
    upstream.expect_end();
}

/// Such a client may wait for longer than it may rest in its body.
fn next_server_for_a_client_that_awaits_100(mode: Mode) {
    let (silent, speaking) = (Origin::bind(), Origin::bind());
    let proxy = Config::new(mode)
        .tables("[timeouts]\nclient_body = \"300ms\"\n[admin]\naddress = \"127.0.0.1:0\"")
        .upstream(
            &[&silent.address, &speaking.address],
            "policy = \"first\"\nretries = 1\nresponse_header_timeout = \"500ms\"",
        )
        .start();
    let mut client = proxy.connect();
    let since = Instant::now();
    client.send(format!("PUT {EXPECTING}"));
    let mut first = silent.accept();
    first.request_head();
    let mut second = speaking.accept();
    took_about(since, SET);
    first.expect_end();
    second.request_head();
    second.send("HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(client.response("PUT").status, 100);
    client.send("hi");
    second.expect("hi");
    second.send(ok("fine"));
    assert_eq!(client.response("PUT").text(), "fine");
    expect_timeout(&proxy, "response_header");
}

/// The client begins its body by itself, which may take its time, and then the origin's begins anew.
fn silent_origin_after_a_body_without_100(mode: Mode) {
    let (proxy, origin) = start(mode, "", "retries = 0\nresponse_header_timeout = \"500ms\"");
    let mut client = proxy.connect();
    client.send(format!("PUT {EXPECTING}"));
    let mut upstream = origin.accept();
    upstream.request_head();
    client.send("h");
    upstream.expect("h");
    std::thread::sleep(Duration::from_millis(1200));
    let since = Instant::now();
    client.send("i");
    upstream.expect("i");
    assert_eq!(client.response("PUT").status, 504);
    took_about(since, SET);
    upstream.expect_end();
}

fn stalled_response(mode: Mode) {
    let (proxy, origin) = start(mode, "", "response_body_timeout = \"500ms\"");
    let (mut client, mut upstream) = proxy.reach(&origin);
    let since = Instant::now();
    upstream.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
    client.response_head("GET");
    let (bytes, _) = client.read_to_end();
    assert!(
        !bytes.ends_with(b"0\r\n\r\n"),
        "cut short and not to be seen: {}",
        bytes.escape_ascii()
    );
    upstream.expect_end();
    took_about(since, SET);
}

/// The server is sent far more than it takes. That both ways stand still counts once: it ends before an answer that stalls half a timeout
/// later. A limit in seconds would not do, since a shard that the machine holds up gives everybody more time.
fn stalled_response_to_an_unread_body(mode: Mode) {
    let settings = "response_body_timeout = \"2s\"\nsend_buffer = \"64KiB\"";
    let (proxy, origin) = start(mode, "", settings);
    let stalled = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst";
    let mut client = proxy.connect();
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n");
    let mut upstream = origin.accept();
    upstream.request_head();
    upstream.send(stalled);
    client.read_until(b"first");
    client.send_until_full(&vec![b'x'; 65_536], Duration::from_millis(100), 90_000_000);
    std::thread::sleep(Duration::from_secs(1));
    let (mut other, mut upstream_of_other) = proxy.reach(&origin);
    upstream_of_other.send(stalled);
    other.read_until(b"first");
    other.expect_end_within(PATIENCE);
    client.expect_end_within(Duration::from_millis(500)); // counted twice it ends a second later
}

/// All of the body is under way at once, and the server reads it for longer than it may rest.
fn response_that_ends_behind_a_slow_read(mode: Mode) {
    const STEP: usize = 2_000;
    const STEPS: usize = 30;
    // The second body leaves with its head.
    for with_head in [false, true] {
        let origin = Origin::bind_narrow();
        let proxy = Config::new(mode)
            .upstream(&[&origin.address], "response_body_timeout = \"1s\"")
            .start();
        let head = format!(
            "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
            STEP * STEPS
        );
        let body = "x".repeat(STEP * STEPS);
        let mut client = proxy.connect();
        if with_head {
            client.send(head + &body);
        } else {
            client.send(head);
        }
        let mut upstream = origin.accept();
        upstream.request_head();
        upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nfirst");
        client.read_until(b"first");
        if !with_head {
            client.send(body);
        }
        for _ in 0..STEPS {
            upstream.expect(vec![b'x'; STEP]);
            std::thread::sleep(Duration::from_millis(100));
        }
        upstream.send("last");
        client.expect("last");
    }
}

fn slow_upload(mode: Mode) {
    let (proxy, origin) = start(
        mode,
        "client_body = \"500ms\"\nclient_header = \"500ms\"\nkeep_alive = \"500ms\"",
        "response_header_timeout = \"500ms\"",
    );
    let mut client = proxy.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n");
    let mut upstream = origin.accept();
    upstream.request_head();
    for _ in 0..10 {
        std::thread::sleep(Duration::from_millis(200));
        client.send(".");
        upstream.expect(".");
    }
    upstream.send(ok("fine"));
    assert_eq!(client.response("POST").text(), "fine");
}

fn slow_response(mode: Mode) {
    let (proxy, origin) = start(
        mode,
        "write = \"500ms\"\nkeep_alive = \"500ms\"\nclient_header = \"500ms\"\nclient_body = \"500ms\"",
        "response_body_timeout = \"500ms\"\nresponse_header_timeout = \"500ms\"\npool = { idle_timeout = \"500ms\" }",
    );
    let (mut client, mut upstream) = proxy.reach(&origin);
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n");
    client.response_head("GET");
    for _ in 0..10 {
        std::thread::sleep(Duration::from_millis(200));
        upstream.send(".");
        client.expect(".");
    }
}

fn slow_tunnel(mode: Mode) {
    let (proxy, origin) = start(
        mode,
        "tunnel_idle = \"500ms\"\nkeep_alive = \"500ms\"\nwrite = \"500ms\"\nclient_body = \"500ms\"\nclient_header = \"500ms\"",
        "response_body_timeout = \"500ms\"",
    );
    let (mut client, mut upstream) = proxy.tunnel(&origin);
    for number in 0..10 {
        std::thread::sleep(Duration::from_millis(200));
        let (from, to) = if number < 5 {
            (&mut client, &mut upstream)
        } else {
            (&mut upstream, &mut client)
        };
        from.send("x"); // one direction keeps both alive
        to.expect("x");
    }
}

/// More than the kernels take of what nobody reads.
const BURST: u64 = 120_000;

/// The two ends of a tunnel in which a client that reads little at a time has been sent a burst.
fn narrow_tunnel(mode: Mode) -> (Proxy, Wire, Wire) {
    let origin = Origin::bind();
    let proxy = Config::new(mode)
        .tables("[timeouts]\ntunnel_idle = \"1s\"")
        .tables("[[listen]]\naddress = \"127.0.0.1:0\"\nsend_buffer = \"4KiB\"")
        .upstream(&[&origin.address], "")
        .start();
    let mut client = Wire::connect_narrow(proxy.addresses[0]);
    let mut upstream = origin.tunnel(&mut client);
    upstream.send(vec![b'.'; BURST as usize]);
    (proxy, client, upstream)
}

/// All of it is received at once, and then only sent.
fn burst_in_a_tunnel(mode: Mode) {
    const STEP: u64 = 2_000;
    let (_proxy, mut client, _upstream) = narrow_tunnel(mode);
    for _ in 0..BURST / STEP {
        client.skip(STEP);
        std::thread::sleep(Duration::from_millis(40));
    }
}

fn client_that_only_sends(mode: Mode) {
    let (_proxy, mut client, mut upstream) = narrow_tunnel(mode);
    for _ in 0..10 {
        client.send("x");
        upstream.expect("x");
        std::thread::sleep(Duration::from_millis(200));
    }
    client.skip(BURST);
}

/// However they come, and behind more of them than a head may have bytes.
fn requests_behind_empty_lines(mode: Mode) {
    let served = Origin::serve_text("fine");
    let proxy = Config::new(mode).upstream(&[&served.address], "").start();
    let mut client = proxy.connect();
    let many = "\r\n".repeat(40_000);
    let get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let cases: [&[&str]; 6] = [
        &["\r\n", get],
        &["\r\n\r\n\r", "\n", get],
        &["\r", "\n", "\r\n\r", "\n", get],
        &["\r", "\n\r\nGET / HTT", &get["GET / HTT".len()..]],
        &["\r\nG", &get[1..]],
        &[&many, get],
    ];
    for parts in cases {
        client.send(parts.concat());
        assert_eq!(client.response("GET").text(), "fine", "at once");
        for part in parts {
            client.send(part);
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(client.response("GET").text(), "fine", "in pieces");
    }
    assert_eq!(served.requests().len(), 2 * cases.len());
}

fn exchange_longer_than_keep_alive(mode: Mode) {
    let (proxy, origin) = start(
        mode,
        "keep_alive = \"300ms\"\nclient_header = \"300ms\"\nclient_body = \"300ms\"\nwrite = \"300ms\"",
        "",
    );
    let (mut client, mut upstream) = proxy.reach(&origin);
    std::thread::sleep(Duration::from_millis(1200));
    upstream.send(ok("fine"));
    assert_eq!(client.response("GET").text(), "fine");
}

/// The origin's time counts from the last byte of the request.
fn upload_longer_than_response_header(mode: Mode) {
    let (proxy, origin) = start(mode, "", "response_header_timeout = \"500ms\"");
    let mut client = proxy.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n1");
    let mut upstream = origin.accept();
    upstream.request_head();
    std::thread::sleep(Duration::from_millis(1200));
    client.send("2");
    upstream.expect("12");
    upstream.send(ok("fine"));
    assert_eq!(client.response("POST").text(), "fine");
}

/// What is set right after it is set by a clock that is behind.
fn time_in_which_the_process_stood_still_is_not_counted(mode: Mode) {
    let (proxy, origin) = start(mode, "", "retries = 0\nresponse_header_timeout = \"2s\"");
    let (mut client, mut upstream) = proxy.reach(&origin);
    upstream.send(ok("before"));
    assert_eq!(client.response("GET").text(), "before");
    proxy.suspend();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    std::thread::sleep(Duration::from_secs(2));
    proxy.resume();
    upstream.request();
    std::thread::sleep(Duration::from_millis(1500));
    upstream.send(ok("in time"));
    assert_eq!(client.response("GET").text(), "in time");
}

/// More of them than a ring brings at once: all are read before anybody is late.
fn answers_that_came_while_the_process_stood_still_are_in_time(mode: Mode) {
    let (proxy, origin) = start(mode, "", "retries = 0\nresponse_header_timeout = \"1s\"");
    let (mut clients, mut upstreams): (Vec<_>, Vec<_>) =
        (0..40).map(|_| proxy.reach(&origin)).unzip();
    std::thread::sleep(SET);
    proxy.suspend();
    // The clock's tick comes first.
    std::thread::sleep(Duration::from_millis(200));
    for upstream in &mut upstreams {
        upstream.send(ok("in time"));
    }
    std::thread::sleep(Duration::from_millis(800));
    proxy.resume();
    for client in &mut clients {
        assert_eq!(client.response("GET").text(), "in time");
    }
}
