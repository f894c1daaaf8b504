//! Every limit: what is within passes, what hits it gets the answer that names it (RFC 9110 sections 15.5.14, 15.5.15; RFC 6585 section 5).

mod support;

use std::time::Duration;

use support::{Config, Mode, Origin, Proxy, QUIET, Served, Wire, eventually, in_each_mode};

in_each_mode!(
    head_bytes,
    header_count,
    uri_bytes,
    defaults,
    body_with_a_length,
    body_in_chunks,
    trailer_section,
    chunk_extensions,
    response_head,
    requests_per_connection,
    refused_requests_of_a_connection,
    connections_per_shard,
    connections_in_all,
);

fn start(mode: Mode, limits: &str) -> (Proxy, Served) {
    let served = Origin::serve_text("fine");
    let proxy = Config::new(mode)
        .tables(&format!("[limits]\n{limits}"))
        .upstream(&[&served.address], "")
        .start();
    (proxy, served)
}

#[track_caller]
fn status(proxy: &Proxy, request: &str) -> u16 {
    let mut client = proxy.connect();
    client.try_send(request).ok(); // a refusal may come before the end
    let response = client.response("GET");
    if response.status != 200 {
        assert!(
            response.head.lists("connection", "close"),
            "{:?}",
            response.head
        );
    }
    response.status
}

/// A GET whose whole head has this many bytes.
fn head_of(bytes: usize) -> String {
    let around = "GET / HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n".len();
    format!(
        "GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n",
        "x".repeat(bytes - around)
    )
}

fn head_bytes(mode: Mode) {
    let (proxy, served) = start(mode, "head = \"2KiB\"");
    assert_eq!(status(&proxy, &head_of(2048)), 200);
    assert_eq!(status(&proxy, &head_of(2049)), 431);
    assert_eq!(status(&proxy, &head_of(100_000)), 431);
    let endless = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "x".repeat(10_000));
    assert_eq!(status(&proxy, &endless), 431);
    assert_eq!(served.requests().len(), 1);
}

fn header_count(mode: Mode) {
    let (proxy, _served) = start(mode, "header_count = 10");
    let request = |fields: usize| {
        format!(
            "GET / HTTP/1.1\r\nHost: a\r\n{}\r\n",
            "X: y\r\n".repeat(fields - 1)
        )
    };
    assert_eq!(status(&proxy, &request(10)), 200);
    assert_eq!(status(&proxy, &request(11)), 431);
}

fn uri_bytes(mode: Mode) {
    let (proxy, _served) = start(mode, "uri = \"1KiB\"");
    let request =
        |bytes: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(bytes - 1));
    assert_eq!(status(&proxy, &request(1024)), 200);
    assert_eq!(status(&proxy, &request(1025)), 414);
    assert_eq!(status(&proxy, &request(100_000)), 414);
}

fn defaults(mode: Mode) {
    let (proxy, _served) = start(mode, "");
    assert_eq!(status(&proxy, &head_of(32 * 1024)), 200);
    assert_eq!(status(&proxy, &head_of(32 * 1024 + 1)), 431);
    let request =
        |bytes: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(bytes - 1));
    assert_eq!(status(&proxy, &request(8 * 1024)), 200);
    assert_eq!(status(&proxy, &request(8 * 1024 + 1)), 414);
}

fn body_with_a_length(mode: Mode) {
    let (proxy, served) = start(mode, "body = \"1KiB\"");
    let request = |bytes: usize| {
        format!(
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {bytes}\r\n\r\n{}",
            "x".repeat(bytes)
        )
    };
    assert_eq!(status(&proxy, &request(1024)), 200);
    assert_eq!(status(&proxy, &request(1025)), 413);
    assert_eq!(
        status(
            &proxy,
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\nExpect: 100-continue\r\n\r\n"
        ),
        413
    );
    assert_eq!(served.requests().len(), 1);
}

fn body_in_chunks(mode: Mode) {
    let (proxy, served) = start(mode, "body = \"1KiB\"");
    let chunk = format!("100\r\n{}\r\n", "x".repeat(256));
    let request = |chunks: usize, last: &str| {
        format!(
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{}{last}0\r\n\r\n",
            chunk.repeat(chunks)
        )
    };
    assert_eq!(status(&proxy, &request(4, "")), 200);
    assert_eq!(status(&proxy, &request(4, "1\r\nx\r\n")), 413);
    std::thread::sleep(QUIET);
    assert_eq!(
        served.requests().len(),
        1,
        "complete messages at the origin"
    );
    served.take_complaints(); // of the message that ended early
}

fn trailer_section(mode: Mode) {
    let (proxy, served) = start(mode, "head = \"2KiB\"\nheader_count = 10");
    let request = |trailers: String| {
        format!(
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n.\r\n0\r\n{trailers}\r\n"
        )
    };
    assert_eq!(status(&proxy, &request("X: y\r\n".repeat(10))), 200);
    for trailers in [
        "X: y\r\n".repeat(11),
        format!("X: {}\r\n", "y".repeat(5000)),
        "X: y\r\n".repeat(100_000),
    ] {
        let status = status(&proxy, &request(trailers));
        assert!(matches!(status, 400 | 413 | 431), "{status}");
    }
    std::thread::sleep(QUIET);
    assert_eq!(
        served.requests().len(),
        1,
        "complete messages at the origin"
    );
    served.take_complaints();
}

/// RFC 9112 section 7.1.1: extensions of any length would be a way to send for ever without sending anything.
fn chunk_extensions(mode: Mode) {
    let (proxy, served) = start(mode, "");
    for extension in [
        "x".repeat(1_000_000),
        "\"".to_owned() + &"x".repeat(1_000_000),
    ] {
        let status = status(
            &proxy,
            &format!(
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;a={extension}\r\n.\r\n0\r\n\r\n"
            ),
        );
        assert!(matches!(status, 400 | 413), "{status}");
    }
    std::thread::sleep(QUIET);
    assert_eq!(
        served.requests().len(),
        0,
        "complete messages at the origin"
    );
    served.take_complaints();
}

fn response_head(mode: Mode) {
    let answer = |request: &support::Request| {
        let bytes: usize = request.target[1..].parse().expect("a number");
        let around = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX: \r\n\r\n".len();
        format!(
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX: {}\r\n\r\n",
            "x".repeat(bytes - around)
        )
        .into_bytes()
    };
    let served = Origin::bind().serve(answer);
    let proxy = Config::new(mode)
        .tables("[limits]\nhead = \"2KiB\"")
        .upstream(&[&served.address], "retries = 0")
        .start();
    for (bytes, expected) in [(1900, 200), (2049, 502), (200_000, 502)] {
        assert_eq!(
            proxy.get(&format!("/{bytes}")).status,
            expected,
            "{bytes} bytes"
        );
    }
}

fn requests_per_connection(mode: Mode) {
    let (proxy, _served) = start(mode, "requests_per_connection = 3");
    let mut client = proxy.connect();
    for number in 1..=3 {
        let response = client.get("/");
        assert_eq!(response.status, 200);
        assert_eq!(
            response.head.lists("connection", "close"),
            number == 3,
            "answer {number}"
        );
    }
    client.expect_close();
}

fn refused_requests_of_a_connection(mode: Mode) {
    let served = Origin::serve_text("fine");
    let proxy = Config::new(mode)
        .tables(
            "[limits]\nrequests_per_connection = 2\n[[route]]\npath = \"/a\"\nupstream = \"app\"",
        )
        .named_upstream("app", &[&served.address], "")
        .start();
    let mut client = proxy.connect();
    for number in 1..=2 {
        let response = client.get("/none");
        assert_eq!(response.status, 404);
        assert_eq!(response.head.lists("connection", "close"), number == 2);
    }
    client.expect_close();
}

/// Whether a request on this connection is answered with 200 before long.
fn is_served(client: &mut Wire) -> bool {
    client.try_send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").ok();
    client.receive_within(Duration::from_millis(300)).ok();
    client.unread().starts_with(b"HTTP/1.1 200")
}

/// Two connections are open; a third is not served until one of them has gone.
#[track_caller]
fn third_connection_waits(proxy: &Proxy) {
    let (mut first, mut second) = (proxy.connect(), proxy.connect());
    assert_eq!((first.get("/").status, second.get("/").status), (200, 200));
    let mut third = proxy.connect();
    assert!(!is_served(&mut third), "a third connection was served");
    drop(third);
    assert_eq!(
        second.get("/").status,
        200,
        "those within the limit are not disturbed"
    );
    drop(first);
    eventually("a place becomes free", || is_served(&mut proxy.connect()));
}

fn connections_per_shard(mode: Mode) {
    let (proxy, _served) = start(mode, "connections_per_shard = 2");
    third_connection_waits(&proxy);
}

fn connections_in_all(mode: Mode) {
    let served = Origin::serve_text("fine");
    let proxy = Config::new(mode)
        .key("shards = 2")
        .tables("[limits]\nconnections = 2")
        .upstream(&[&served.address], "")
        .start();
    third_connection_waits(&proxy);
}
