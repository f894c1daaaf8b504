//! `Expect: 100-continue` works end to end (RFC 9110 section 10.1.1): the origin decides whether the body is wanted.

mod support;

use support::{Config, Mode, Origin, Proxy, QUIET, Wire, in_each_mode, ok};

in_each_mode!(
    body_after_100,
    body_refused,
    body_without_waiting,
    final_response_without_100,
    early_success_after_100,
    early_success_after_bytes_without_100,
    early_success_in_place_of_100,
    http_1_0_client_is_not_answered_100,
    expectation_that_connection_names,
    expectation_we_do_not_know,
);

const HEAD: &str =
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";

fn start(mode: Mode) -> (Proxy, Origin) {
    let origin = Origin::bind();
    let proxy = Config::new(mode).upstream(&[&origin.address], "").start();
    (proxy, origin)
}

fn ask(proxy: &Proxy, origin: &Origin) -> (Wire, Wire) {
    let mut client = proxy.connect();
    client.send(HEAD);
    let mut upstream = origin.accept();
    let seen = upstream.request_head();
    assert_eq!(
        seen.head
            .value("expect")
            .map(str::to_ascii_lowercase)
            .as_deref(),
        Some("100-continue")
    );
    (client, upstream)
}

fn body_after_100(mode: Mode) {
    let (proxy, origin) = start(mode);
    let (mut client, mut upstream) = ask(&proxy, &origin);
    client.expect_silence(QUIET); // the origin has not said anything yet
    upstream.send("HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(client.response("POST").status, 100);
    client.send("hello");
    upstream.expect("hello");
    upstream.send(ok("thanks"));
    assert_eq!(client.response("POST").text(), "thanks");

    client.send(HEAD); // and once more on the same connections
    upstream.request_head();
    upstream.send("HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(client.response("POST").status, 100);
    client.send("again");
    upstream.expect("again");
    upstream.send(ok("thanks"));
    assert_eq!(client.response("POST").text(), "thanks");
}

/// What the client sends after a refusal is either the body it announced or nothing: the connection can only end or read that body.
fn body_refused(mode: Mode) {
    let (proxy, origin) = start(mode);
    let (mut client, mut upstream) = ask(&proxy, &origin);
    upstream.send("HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno");
    let response = client.response("POST");
    assert_eq!((response.status, response.text().as_str()), (401, "no"));
    client
        .try_send("GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n")
        .ok();
    if response.head.lists("connection", "close") {
        client.expect_end();
    }
    origin.expect_nobody();
    upstream.expect_end(); // its request was never completed, so nothing else may go over it
}

fn body_without_waiting(mode: Mode) {
    let (proxy, origin) = start(mode);
    let mut client = proxy.connect();
    client.send(format!("{HEAD}hello"));
    let mut upstream = origin.accept();
    assert_eq!(upstream.request().body, b"hello");
    upstream.send("HTTP/1.1 100 Continue\r\n\r\n");
    upstream.send(ok("thanks"));
    let mut response = client.response("POST");
    if response.status == 100 {
        response = client.response("POST");
    }
    assert_eq!(response.text(), "thanks");
}

/// An origin may read the body without having asked for it, when the client sends it after a while.
fn final_response_without_100(mode: Mode) {
    let (proxy, origin) = start(mode);
    let (mut client, mut upstream) = ask(&proxy, &origin);
    std::thread::sleep(QUIET);
    client.send("hello");
    upstream.expect("hello");
    upstream.send(ok("thanks"));
    assert_eq!(client.response("POST").text(), "thanks");
}

/// The server takes the request before it has the whole body, which is on its way, and reads on.
fn early_success_after_100(mode: Mode) {
    let (proxy, origin) = start(mode);
    let (mut client, mut upstream) = ask(&proxy, &origin);
    upstream.send("HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(client.response("POST").status, 100);
    upstream.send(ok("early"));
    expect_rest(&mut client, &mut upstream, "hello");
}

fn early_success_after_bytes_without_100(mode: Mode) {
    let (proxy, origin) = start(mode);
    let (mut client, mut upstream) = ask(&proxy, &origin);
    client.send("h");
    upstream.expect("h");
    upstream.send(ok("early"));
    expect_rest(&mut client, &mut upstream, "ello");

    client.send(format!("{HEAD}h")); // and with the head
    upstream.request_head();
    upstream.expect("h");
    upstream.send(ok("early"));
    expect_rest(&mut client, &mut upstream, "ello");
}

/// The answer comes to the client, the rest of the body to the server, and both connections go on.
#[track_caller]
fn expect_rest(client: &mut Wire, upstream: &mut Wire, rest: &str) {
    let response = client.response("POST");
    assert_eq!(response.text(), "early");
    assert!(!response.head.has("connection"), "{:?}", response.head);
    for byte in rest.chars().map(String::from) {
        client.send(&byte);
        upstream.expect(&byte);
    }
    client.send("GET /next HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(upstream.request().target, "/next");
    upstream.send(ok("next"));
    assert_eq!(client.response("GET").text(), "next");
}

/// No body will come: the client has its answer.
fn early_success_in_place_of_100(mode: Mode) {
    let (proxy, origin) = start(mode);
    let (mut client, mut upstream) = ask(&proxy, &origin);
    upstream.send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"); // asks for nothing
    assert_eq!(client.response("POST").status, 103);
    upstream.send(ok("early"));
    let response = client.response("POST");
    assert_eq!(response.text(), "early");
    assert!(response.head.lists("connection", "close"));
    client.expect_end();
    upstream.expect_end();
}

/// RFC 9110 section 10.1.1: a 100-continue expectation in an HTTP/1.0 request is ignored, so no server learns of it.
fn http_1_0_client_is_not_answered_100(mode: Mode) {
    let (proxy, origin) = start(mode);
    let mut client = proxy.connect();
    client.send(
        "POST / HTTP/1.0\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello",
    );
    let mut upstream = origin.accept();
    let seen = upstream.request();
    assert_eq!(seen.body, b"hello");
    assert!(!seen.head.has("expect"), "{:?}", seen.head);
    upstream.send("HTTP/1.1 100 Continue\r\n\r\n");
    upstream.send(ok("thanks"));
    assert_eq!(client.response("POST").status, 200);
}

/// It is end to end, so no client may name it there (RFC 9110 section 7.6.1). Were it taken out, server and client would wait for each other.
fn expectation_that_connection_names(mode: Mode) {
    let (proxy, origin) = start(mode);
    let mut client = proxy.connect();
    client.send(HEAD.replace("\r\n\r\n", "\r\nConnection: Expect\r\n\r\n"));
    let mut upstream = origin.accept();
    let seen = upstream.request_head();
    assert_eq!(seen.head.value("expect"), Some("100-continue"));
    upstream.send("HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(client.response("POST").status, 100);
}

fn expectation_we_do_not_know(mode: Mode) {
    let (proxy, origin) = start(mode);
    let mut client = proxy.connect();
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: a-miracle\r\n\r\nhello");
    assert_eq!(client.response("POST").status, 417);
    origin.expect_nobody();
}
