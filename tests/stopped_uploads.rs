//! A client may stop sending its body once an answer has begun (RFC 9112 section 9.3), and a server may stop reading it. The answer still
//! goes on to its end, and then both connections end.

mod support;

use std::time::Duration;

use support::{Config, Mode, Origin, PATIENCE, Proxy, Wire, eventually, in_each_mode, ok};

in_each_mode!(
    a_client_that_stops,
    a_client_that_waits_for_100,
    a_client_that_finishes_sending,
    a_client_that_sends_too_slowly,
    a_server_that_stops_reading,
    a_server_that_answers_while_it_reads,
    a_server_that_reads_for_longer_than_it_may_rest,
    a_client_that_reads_last,
    a_body_that_is_refused,
    a_server_that_breaks_off_before_the_last_piece,
    a_body_that_may_be_wanted_again,
    an_early_success_waits_no_longer_than_usual_for_the_rest,
);

/// What each test sets its timeout to.
const SET: &str = "300ms";
/// Until such a timeout must be over.
const OVER: Duration = Duration::from_millis(800);
/// After the first a server may want the rest of the body.
const STATUSES: [&str; 2] = ["200 OK", "403 Forbidden"];

struct Exchange {
    proxy: Proxy,
    origin: Origin,
    client: Wire,
    upstream: Wire,
    /// The server may want the rest of the body.
    wants_rest: bool,
}

/// The client's head, and a part of an answer to it that has come to the client.
fn begin(mode: Mode, timeouts: &str, fields: &str, status: &str) -> Exchange {
    let origin = Origin::bind_narrow();
    let proxy = Config::new(mode)
        .tables(&format!(
            "[admin]\naddress = \"127.0.0.1:0\"\n[timeouts]\n{timeouts}"
        ))
        .upstream(&[&origin.address], "send_buffer = 4096")
        .start();
    let mut client = proxy.connect();
    client.send(format!("PUT / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n"));
    let mut upstream = origin.accept();
    upstream.request_head();
    upstream.send(format!(
        "HTTP/1.1 {status}\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n"
    ));
    client.read_until(b"5\r\nfirst\r\n");
    Exchange {
        proxy,
        origin,
        client,
        upstream,
        wants_rest: status.starts_with('2'),
    }
}

impl Exchange {
    /// Waits until a timeout of this kind must be over. It counts as one only where the rest of the body was waited for.
    #[track_caller]
    fn await_timeout(&self, kind: &str) {
        std::thread::sleep(OVER);
        let count = || self.proxy.status()["totals"]["timeouts"][kind].as_u64();
        let expected = u64::from(self.wants_rest);
        eventually("the timeout is over", || count() == Some(expected));
    }

    /// The rest of the answer comes, and nothing follows it on either connection.
    #[track_caller]
    fn expect_rest(mut self) {
        self.upstream.send("4\r\nlast\r\n0\r\n\r\n");
        self.client.expect("4\r\nlast\r\n0\r\n\r\n");
        self.client.expect_close();
        self.upstream.expect_end_within(PATIENCE);
        self.origin.expect_nobody();
    }
}

fn a_client_that_stops(mode: Mode) {
    for status in STATUSES {
        let timeouts = format!("client_body = \"{SET}\"");
        let mut exchange = begin(mode, &timeouts, "Content-Length: 1000", status);
        exchange.client.send("x");
        exchange.await_timeout("client_body");
        exchange.expect_rest();
    }
}

/// Some have said all that matters with the head, and end their answer when they have read the body.
fn a_server_that_answers_while_it_reads(mode: Mode) {
    const BODY: usize = 200_000;
    for status in STATUSES {
        let fields = format!("Content-Length: {BODY}");
        let mut exchange = begin(mode, "", &fields, status);
        exchange.client.send(vec![b'x'; BODY]);
        exchange.upstream.expect(vec![b'x'; BODY]);
        exchange.upstream.send("4\r\nlast\r\n0\r\n\r\n");
        exchange.client.expect("4\r\nlast\r\n0\r\n\r\n");
    }
}

/// That takes longer than the server may rest in the middle of its answer.
fn a_server_that_reads_for_longer_than_it_may_rest(mode: Mode) {
    for status in STATUSES {
        let origin = Origin::bind();
        let proxy = Config::new(mode)
            .upstream(
                &[&origin.address],
                &format!("response_body_timeout = \"{SET}\""),
            )
            .start();
        let mut client = proxy.connect();
        client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 15\r\n\r\n");
        let mut upstream = origin.accept();
        upstream.request_head();
        upstream.send(format!(
            "HTTP/1.1 {status}\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n"
        ));
        client.read_until(b"5\r\nfirst\r\n");
        for _ in 0..15 {
            std::thread::sleep(Duration::from_millis(100));
            client.send("x");
            upstream.expect("x");
        }
        upstream.send("4\r\nlast\r\n0\r\n\r\n");
        client.expect("4\r\nlast\r\n0\r\n\r\n");
    }
}

/// It gets to the answer, of which more is under way than the sockets hold, although nobody wants its body.
fn a_client_that_reads_last(mode: Mode) {
    const BODY: usize = 8_000_000;
    let origin = Origin::bind_narrow();
    let proxy = Config::new(mode)
        .tables(
            "[[listen]]\naddress = \"127.0.0.1:0\"\nsend_buffer = 4096\n[timeouts]\nwrite = \"5s\"",
        )
        .upstream(&[&origin.address], "send_buffer = 4096")
        .start();
    let mut client = Wire::connect_narrow(proxy.addresses[0]);
    client.send(format!(
        "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {BODY}\r\n\r\n"
    ));
    let mut upstream = origin.accept();
    upstream.request_head();
    let page = "x".repeat(60_000);
    upstream.send(format!(
        "HTTP/1.1 403 Forbidden\r\nContent-Length: {}\r\n\r\n{page}",
        page.len()
    ));
    client.send(vec![b'x'; BODY]);
    let response = client.response("PUT");
    assert_eq!((response.status, response.body.len()), (403, page.len()));
    client.expect_close();
}

fn a_client_that_waits_for_100(mode: Mode) {
    for status in STATUSES {
        let timeouts = format!("client_body = \"{SET}\"");
        let fields = "Content-Length: 1000\r\nExpect: 100-continue";
        let exchange = begin(mode, &timeouts, fields, status);
        std::thread::sleep(OVER);
        exchange.expect_rest();
    }
}

fn a_client_that_finishes_sending(mode: Mode) {
    for status in STATUSES {
        let mut exchange = begin(mode, "", "Content-Length: 1000", status);
        exchange.client.send("x");
        exchange.client.finish_sending();
        exchange.client.expect_silence(support::QUIET);
        exchange.expect_rest();
    }
}

fn a_client_that_sends_too_slowly(mode: Mode) {
    for status in STATUSES {
        let timeouts = "client_body_min_rate = 1000\nmin_rate_grace = \"1s\"";
        let mut exchange = begin(mode, timeouts, "Content-Length: 1000", status);
        for _ in 0..15 {
            exchange.client.send("x");
            std::thread::sleep(Duration::from_millis(100));
        }
        exchange.await_timeout("client_body_rate");
        exchange.expect_rest();
    }
}

fn a_server_that_stops_reading(mode: Mode) {
    const BODY: usize = 512 * 1024; // more than the server's connection takes, and less than a closing one drops
    for status in STATUSES {
        let timeouts = format!("write = \"{SET}\"");
        let fields = format!("Content-Length: {BODY}");
        let mut exchange = begin(mode, &timeouts, &fields, status);
        exchange
            .client
            .send_until_full(&[b'x'; 4096], support::QUIET, BODY);
        exchange.await_timeout("write");
        exchange.expect_rest();
    }
}

fn a_body_that_is_refused(mode: Mode) {
    for status in STATUSES {
        let mut exchange = begin(mode, "", "Transfer-Encoding: chunked", status);
        exchange.client.send("malformed\r\n");
        exchange.client.expect_silence(support::QUIET);
        exchange.expect_rest();
    }
}

/// What follows the body on the client's connection is the next request, also when the body's end could not be sent.
fn a_server_that_breaks_off_before_the_last_piece(mode: Mode) {
    const PIECE: usize = 10_000;
    const PAGE: usize = 300_000;
    let origin = Origin::bind();
    let proxy = Config::new(mode)
        .tables("[[listen]]\naddress = \"127.0.0.1:0\"\nsend_buffer = \"64KiB\"")
        .upstream(&[&origin.address], "")
        .start();
    let mut client = Wire::connect_narrow(proxy.addresses[0]);
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
        2 * PIECE
    ));
    let mut upstream = origin.accept();
    upstream.request_head();
    client.send(vec![b'x'; PIECE]);
    upstream.send(format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {PAGE}\r\n\r\n{}",
        "y".repeat(PAGE)
    ));
    std::thread::sleep(OVER);
    // With the piece unread, that is a reset.
    drop(upstream);
    std::thread::sleep(support::QUIET);
    client.send(vec![b'x'; PIECE]);
    std::thread::sleep(support::QUIET);
    let body = "GET /body HTTP/1.1\r\nHost: a\r\n\r\n";
    client.send(format!(
        "POST /next HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
        body.len()
    ));
    std::thread::sleep(support::QUIET);
    let response = client.response("POST");
    assert_eq!((response.status, response.body.len()), (200, PAGE));
    client.send(body);
    let request = origin.accept().request();
    assert_eq!(
        (request.method.as_str(), request.target.as_str()),
        ("POST", "/next")
    );
    assert_eq!(request.body, body.as_bytes());
}

/// An answer whose head is good and whose body is not is none, and another server gets the request with all of its body.
fn a_body_that_may_be_wanted_again(mode: Mode) {
    const PIECE: usize = 30_000;
    let (origin, other) = (Origin::bind_narrow(), Origin::bind());
    let proxy = Config::new(mode)
        .key("shards = 1")
        .upstream(
            &[&origin.address, &other.address],
            "policy = \"first\"\nsend_buffer = \"4KiB\"\nretry_body_bytes = \"64KiB\"\nretries = 1",
        )
        .start();
    let mut client = proxy.connect();
    client.send(format!(
        "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
        2 * PIECE
    ));
    let mut upstream = origin.accept();
    upstream.request_head();
    // The second is still to be received when the first cannot be sent.
    for _ in 0..2 {
        client.send(vec![b'x'; PIECE]);
        std::thread::sleep(support::QUIET);
    }
    // Both come at once: the answer, and that no more of the body is taken.
    proxy.suspend();
    upstream.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nno chunk\r\n");
    drop(upstream);
    proxy.resume();
    let mut upstream = other.accept();
    assert_eq!(upstream.request().body.len(), 2 * PIECE);
    upstream.send(ok("whole"));
    assert_eq!(client.response("PUT").text(), "whole");
}

/// The client has the whole answer, which says nothing of an end, and stops in the middle of its body.
fn an_early_success_waits_no_longer_than_usual_for_the_rest(mode: Mode) {
    let origin = Origin::bind();
    let proxy = Config::new(mode)
        .tables(&format!("[timeouts]\nclient_body = \"{SET}\""))
        .upstream(&[&origin.address], "")
        .start();
    let mut client = proxy.connect();
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nx");
    let mut upstream = origin.accept();
    upstream.request_head();
    upstream.send(ok("early"));
    assert_eq!(client.response("PUT").text(), "early");
    client.expect_close();
    upstream.expect_end_within(PATIENCE);
}
