//! HTTP/1.0 on either side (RFC 9112 section 9.3), and minor versions to come.

mod support;

use support::{Config, Framing, Mode, Origin, in_each_mode};

in_each_mode!(
    http_1_0_client_without_keep_alive,
    http_1_0_client_without_host,
    http_1_0_client_with_keep_alive,
    http_1_0_client_and_chunked_response,
    http_1_0_origin,
    later_minor_version,
);

fn http_1_0_client_without_keep_alive(mode: Mode) {
    let served = Origin::serve_text("fine");
    let proxy = Config::new(mode).upstream(&[&served.address], "").start();
    let mut client = proxy.connect();
    client.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    let response = client.response("GET");
    assert_eq!(response.text(), "fine");
    assert!(!response.head.lists("connection", "keep-alive"));
    client.expect_close();
    let seen = served.only_request();
    assert_eq!(
        seen.version, "HTTP/1.1",
        "we send our own version (RFC 9110 section 2.5)"
    );
    assert_eq!(seen.head.value("host"), Some("a"));
}

fn http_1_0_client_without_host(mode: Mode) {
    let served = Origin::serve_text("fine");
    let proxy = Config::new(mode).upstream(&[&served.address], "").start();
    let mut client = proxy.connect();
    client.send("GET /old HTTP/1.0\r\n\r\n");
    assert_eq!(client.response("GET").text(), "fine");
    assert_eq!(served.only_request().target, "/old"); // that it had one Host field was checked when it was read
}

fn http_1_0_client_with_keep_alive(mode: Mode) {
    let served = Origin::serve_text("fine");
    let proxy = Config::new(mode).upstream(&[&served.address], "").start();
    let mut client = proxy.connect();
    for _ in 0..3 {
        client.send("GET / HTTP/1.0\r\nHost: a\r\nConnection: Keep-Alive\r\n\r\n");
        let response = client.response("GET");
        assert_eq!(response.text(), "fine");
        assert!(
            response.head.lists("connection", "keep-alive"),
            "a 1.0 client must be told: {:?}",
            response.head
        );
    }
    client.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    assert_eq!(client.response("GET").text(), "fine");
    client.expect_close();
    assert_eq!(served.connections(), 1);
}

/// RFC 9112 section 6.1: no transfer coding goes to a client of HTTP/1.0.
fn http_1_0_client_and_chunked_response(mode: Mode) {
    let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n3\r\n yo\r\n0\r\nX-Sum: 1\r\n\r\n";
    let served = Origin::bind().serve(|_| chunked.to_vec());
    let proxy = Config::new(mode).upstream(&[&served.address], "").start();
    for connection in ["", "Connection: keep-alive\r\n"] {
        let mut client = proxy.connect();
        client.send(format!("GET / HTTP/1.0\r\nHost: a\r\n{connection}\r\n"));
        let response = client.response("GET");
        assert_eq!(
            (response.framing, response.text().as_str()),
            (Framing::Close, "hello yo")
        );
        assert!(
            !response.head.lists("connection", "keep-alive"),
            "{:?}",
            response.head
        );
    }
}

fn http_1_0_origin(mode: Mode) {
    let origin = Origin::bind();
    let proxy = Config::new(mode).upstream(&[&origin.address], "").start();
    let mut client = proxy.connect();
    for (head, framed) in [
        ("HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\n", true),
        ("HTTP/1.0 200 OK\r\n\r\n", false),
    ] {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut upstream = origin.accept();
        upstream.request();
        upstream.send(format!("{head}old"));
        if framed {
            upstream.expect_end(); // without keep-alive the connection ends with the response
        } else {
            drop(upstream);
        }
        let response = client.response("GET");
        assert_eq!(
            (response.text().as_str(), response.version.as_str()),
            ("old", "HTTP/1.1")
        );
    }
}

/// RFC 9110 section 2.5: a later minor version is read as the latest we know.
fn later_minor_version(mode: Mode) {
    let served = Origin::serve_text("fine");
    let proxy = Config::new(mode).upstream(&[&served.address], "").start();
    let mut client = proxy.connect();
    client.send("GET / HTTP/1.2\r\nHost: a\r\n\r\n");
    let response = client.response("GET");
    assert!(matches!(response.status, 200 | 505), "{response:?}");
    assert!(
        served
            .requests()
            .iter()
            .all(|seen| seen.version == "HTTP/1.1")
    );
}
