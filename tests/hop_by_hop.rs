//! Fields of one connection do not pass to the next (RFC 9110 section 7.6.1): the known ones, and those that Connection lists, both ways.

mod support;

use support::{Config, Framing, Mode, Origin, in_each_mode, ok};

in_each_mode!(
    known_fields_of_a_request,
    fields_that_a_request_lists,
    fields_that_frame_cannot_be_listed_away,
    fields_of_a_response,
    close_of_the_origin_is_not_the_clients,
    te_is_ours,
);

fn known_fields_of_a_request(mode: Mode) {
    let served = Origin::serve_text("fine");
    let proxy = Config::new(mode).upstream(&[&served.address], "").start();
    let mut client = proxy.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\nX-Kept: yes\r\n\r\n");
    assert_eq!(client.response("GET").status, 200);
    let seen = served.only_request();
    for gone in ["keep-alive", "proxy-connection", "upgrade"] {
        assert!(!seen.head.has(gone), "{gone} in {:?}", seen.head);
    }
    assert_eq!(seen.head.value("x-kept"), Some("yes"));
}

fn fields_that_a_request_lists(mode: Mode) {
    let served = Origin::serve_text("fine");
    let proxy = Config::new(mode).upstream(&[&served.address], "").start();
    let mut client = proxy.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nX-One: 1\r\nConnection: , x-one ,,X-TWO\t,\r\nx-two: 2\r\nX-Two: 2\r\nConnection: X-Three\r\nX-Three: 3\r\nX-Threes: 3\r\nX-On: 0\r\n\r\n");
    assert_eq!(client.response("GET").status, 200);
    let seen = served.only_request();
    for gone in ["x-one", "x-two", "x-three"] {
        assert!(!seen.head.has(gone), "{gone} in {:?}", seen.head);
        assert!(
            !seen.head.lists("connection", gone),
            "{gone} in {:?}",
            seen.head
        );
    }
    assert_eq!(
        (seen.head.value("x-threes"), seen.head.value("x-on")),
        (Some("3"), Some("0"))
    );
}

/// Were they taken away, the origin would see another message than we did.
fn fields_that_frame_cannot_be_listed_away(mode: Mode) {
    let served = Origin::serve_text("fine");
    let proxy = Config::new(mode).upstream(&[&served.address], "").start();
    let cases = [
        ("Host", "GET", "", Framing::None),
        (
            "Content-Length",
            "POST",
            "Content-Length: 5\r\n\r\nhello",
            Framing::Length(5),
        ),
        (
            "Transfer-Encoding",
            "POST",
            "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            Framing::Chunked,
        ),
    ];
    for (listed, method, rest, framing) in cases {
        let mut client = proxy.connect();
        let rest = if rest.is_empty() { "\r\n" } else { rest };
        client.send(format!(
            "{method} / HTTP/1.1\r\nHost: a.example\r\nConnection: {listed}\r\n{rest}"
        ));
        let response = client.response(method);
        if response.status == 400 {
            continue;
        }
        let seen = served.last_request();
        assert_eq!((response.status, seen.framing), (200, framing), "{listed}");
        assert_eq!(seen.head.value("host"), Some("a.example"), "{listed}");
        assert_eq!(
            seen.body,
            if framing == Framing::None {
                &b""[..]
            } else {
                b"hello"
            },
            "{listed}"
        );
    }
}

fn fields_of_a_response(mode: Mode) {
    let answer = "HTTP/1.1 200 OK\r\nConnection: X-Secret, keep-alive\r\nX-Secret: 1\r\nKeep-Alive: timeout=5, max=100\r\nProxy-Connection: keep-alive\r\nUpgrade: h2c\r\nX-Kept: yes\r\nContent-Length: 4\r\n\r\nfine";
    let served = Origin::bind().serve(move |_| answer.as_bytes().to_vec());
    let proxy = Config::new(mode).upstream(&[&served.address], "").start();
    let mut client = proxy.connect();
    for _ in 0..2 {
        let response = client.get("/");
        assert_eq!(
            (response.text().as_str(), response.head.value("x-kept")),
            ("fine", Some("yes"))
        );
        for gone in ["x-secret", "keep-alive", "proxy-connection", "upgrade"] {
            assert!(!response.head.has(gone), "{gone} in {:?}", response.head);
        }
        assert!(
            !response.head.lists("connection", "x-secret"),
            "{:?}",
            response.head
        );
    }
    assert_eq!(served.connections(), 1);
}

fn close_of_the_origin_is_not_the_clients(mode: Mode) {
    let served = Origin::bind().serve(|_| {
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\nfine".to_vec()
    });
    let proxy = Config::new(mode).upstream(&[&served.address], "").start();
    let mut client = proxy.connect();
    for number in 1..=3 {
        let response = client.get("/");
        assert_eq!(response.text(), "fine");
        assert!(
            !response.head.lists("connection", "close"),
            "{:?}",
            response.head
        );
        assert_eq!(served.connections(), number);
    }
}

/// RFC 9110 section 10.1.4: TE is of one connection. We read chunked and trailers, no other coding.
fn te_is_ours(mode: Mode) {
    let origin = Origin::bind();
    let proxy = Config::new(mode).upstream(&[&origin.address], "").start();
    let mut client = proxy.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nTE: gzip, trailers;q=0.5\r\nConnection: TE\r\n\r\n");
    let mut upstream = origin.accept();
    let seen = upstream.request();
    assert!(!seen.head.lists("te", "gzip"), "{:?}", seen.head);
    if seen.head.has("te") {
        assert!(
            seen.head.lists("connection", "te"),
            "TE without Connection: {:?}",
            seen.head
        );
    }
    upstream.send(ok("fine"));
    assert_eq!(client.response("GET").text(), "fine");
}
