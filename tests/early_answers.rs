//! Answers, interim and final, that come while the request is still under way: the connection to the server stays in step, deadlines
//! stay in force, and nobody takes a part for the whole.

mod support;

use support::{Config, End, Mode, Origin, Proxy, QUIET, Wire, eventually, in_each_mode, ok};

in_each_mode!(
    a_request_that_has_not_left_whole_is_followed_by_none,
    the_rest_of_a_body_follows_an_early_success,
    an_early_success_with_close_closes,
    no_tunnel_before_the_request_has_left,
    a_reset_cuts_an_answer_that_ends_with_the_connection,
    the_last_deadline_does_not_end_the_next_upload,
    an_interim_response_that_leaves_slowly_stops_no_clock,
    no_answer_of_ours_within_an_interim_response,
    an_interim_response_is_a_part_of_an_answer,
);

const NARROW_LISTENER: &str = "[[listen]]\naddress = \"127.0.0.1:0\"\nsend_buffer = 4096\n";
const ADMIN: &str = "[admin]\naddress = \"127.0.0.1:0\"\n";

fn start(mode: Mode, origin: &Origin, settings: &str) -> Proxy {
    Config::new(mode)
        .tables(&format!("{ADMIN}{NARROW_LISTENER}"))
        .upstream(&[&origin.address], settings)
        .start()
}

/// The two ends of an exchange that this request, or the beginning of one, opens.
fn open(proxy: &Proxy, origin: &Origin, request: &str) -> (Wire, Wire) {
    reach(proxy.connect(), origin, request)
}

fn reach(mut client: Wire, origin: &Origin, request: &str) -> (Wire, Wire) {
    client.send(request);
    let mut upstream = origin.accept();
    upstream.request_head();
    (client, upstream)
}

/// A client that is to read slowly.
fn narrow_client(proxy: &Proxy) -> Wire {
    Wire::connect_narrow(proxy.addresses[0])
}

/// An interim response that is more than a narrow client and its listener hold.
fn long_interim() -> String {
    let hints = format!("Link: </{}>\r\n", "y".repeat(900)).repeat(30);
    format!("HTTP/1.1 103 Early Hints\r\n{hints}\r\n")
}

/// The proxy has the whole body and cannot get rid of it, when an answer comes. What goes to that server next must not be taken for the
/// rest of the body.
fn a_request_that_has_not_left_whole_is_followed_by_none(mode: Mode) {
    const BODY: usize = 30_000; // one segment of loopback
    for status in ["200 OK", "400 Bad Request"] {
        let origin = Origin::bind_narrow();
        let proxy = start(mode, &origin, "send_buffer = 4096");
        let (mut client, mut upstream) = open(
            &proxy,
            &origin,
            &format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {BODY}\r\n\r\n"),
        );
        client.send(vec![b'A'; BODY]);
        eventually("the proxy has taken the body", || {
            proxy.status()["totals"]["bytes_in"].as_u64() > Some(BODY as u64)
        });
        upstream.send(format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nok"));
        assert_eq!(client.response("POST").text(), "ok");

        let mut victim = proxy.connect();
        victim.send("GET /victim HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut fresh = origin.accept();
        assert_eq!(fresh.request().target, "/victim", "{status}");
        fresh.send(ok("hers"));
        assert_eq!(victim.response("GET").text(), "hers");
    }
}

/// A server may take a request well before it has the whole of it, and still want the rest.
fn the_rest_of_a_body_follows_an_early_success(mode: Mode) {
    let origin = Origin::bind();
    let proxy = start(mode, &origin, "");
    let (mut client, mut upstream) = open(
        &proxy,
        &origin,
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n0",
    );
    upstream.expect("0");
    upstream.send(ok("early"));
    let response = client.response("POST");
    assert_eq!(response.text(), "early");
    assert!(!response.head.has("connection"), "{:?}", response.head);
    for part in ["1234", "5", "6789"] {
        client.send(part);
        upstream.expect(part);
    }
    client.send("GET /next HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(upstream.request().target, "/next");
    upstream.send(ok("next"));
    assert_eq!(client.response("GET").text(), "next");
    origin.expect_nobody();
}

/// A server that closes behind its early answer will not take the rest, so the client's connection cannot go on either.
fn an_early_success_with_close_closes(mode: Mode) {
    let origin = Origin::bind();
    let proxy = start(mode, &origin, "");
    let (mut client, mut upstream) = open(
        &proxy,
        &origin,
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n0",
    );
    upstream.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok");
    let response = client.response("POST");
    assert!(response.head.lists("connection", "close"));
    drop(upstream);
    client.try_send("12345").ok();
    client.try_send("6789").ok();
    client.expect_end();
}

/// RFC 9110 section 7.8: the new protocol begins behind the request.
fn no_tunnel_before_the_request_has_left(mode: Mode) {
    let origin = Origin::bind();
    let proxy = start(mode, &origin, "");
    let (mut client, mut upstream) = open(
        &proxy,
        &origin,
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\nContent-Length: 10\r\n\r\n0",
    );
    upstream
        .send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n");
    assert_eq!(client.response("POST").status, 502);
}

/// The kernel tells of a reset once. When a send of the body hears it, the receive of the answer finds an end like any other.
fn a_reset_cuts_an_answer_that_ends_with_the_connection(mode: Mode) {
    let origin = Origin::bind();
    let proxy = start(mode, &origin, "");
    let (mut client, mut upstream) = open(
        &proxy,
        &origin,
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n",
    );
    upstream.send("HTTP/1.1 200 OK\r\n\r\nfirst half");
    client.response_head("POST");
    client.send_until_full(&vec![b'x'; 65_536], QUIET, 100_000_000);
    upstream.reset();
    let (body, end) = client.read_to_end();
    assert!(!body.ends_with(b"0\r\n\r\n"), "{end:?}");
}

fn the_last_deadline_does_not_end_the_next_upload(mode: Mode) {
    let origin = Origin::bind();
    let settings = "response_header_timeout = \"300ms\"\nretries = 0";
    let proxy = start(mode, &origin, settings);
    let (mut client, mut other) = (proxy.connect(), proxy.connect());
    client.send("GET /late HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut late = origin.accept();
    late.request();
    assert_eq!(client.response("GET").status, 504);
    other.send("GET /other HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut pooled = origin.accept();
    pooled.request();
    pooled.send(ok("other"));
    assert_eq!(other.response("GET").text(), "other");

    client.send("POST /next HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n");
    assert_eq!(pooled.request_head().target, "/next");
    std::thread::sleep(QUIET); // the sweeper has had its turn
    client.send("body");
    pooled.expect("body");
    pooled.send(ok("next"));
    assert_eq!(client.response("POST").text(), "next");
}

fn an_interim_response_that_leaves_slowly_stops_no_clock(mode: Mode) {
    let origin = Origin::bind();
    let proxy = start(
        mode,
        &origin,
        "response_header_timeout = \"500ms\"\nretries = 0",
    );
    let (mut client, mut upstream) = reach(
        narrow_client(&proxy),
        &origin,
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    upstream.send(long_interim());
    std::thread::sleep(QUIET);
    assert_eq!(client.response("GET").status, 103);
    assert_eq!(client.response("GET").status, 504);
}

/// The body turns out to be malformed while the client has half of an interim response: no answer can follow that.
fn no_answer_of_ours_within_an_interim_response(mode: Mode) {
    let origin = Origin::bind();
    let proxy = start(mode, &origin, "");
    let (mut client, mut upstream) = reach(
        narrow_client(&proxy),
        &origin,
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n",
    );
    upstream.send(long_interim());
    client.read_until(b"103 Early Hints\r\n");
    client.send("malformed\r\n");
    std::thread::sleep(QUIET);
    let (rest, end) = client.read_to_end();
    assert!(!String::from_utf8_lossy(&rest).contains("HTTP/1.1"));
    assert_eq!(end, End::Reset);
}

/// A server that broke off after an interim response has begun its answer: that is its failure, also on a connection used before.
fn an_interim_response_is_a_part_of_an_answer(mode: Mode) {
    let origin = Origin::bind();
    let proxy = start(mode, &origin, "retries = 0");
    let (mut client, mut upstream) =
        open(&proxy, &origin, "GET /first HTTP/1.1\r\nHost: a\r\n\r\n");
    upstream.send(ok("first"));
    client.response("GET");
    client.send("GET /second HTTP/1.1\r\nHost: a\r\n\r\n");
    upstream.request();
    upstream.send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
    assert_eq!(client.response("GET").status, 103);
    drop(upstream);
    assert_eq!(client.response("GET").status, 502);
    assert_eq!(proxy.server(0)["failures"]["closed"], 1);
}
