//! Requests and responses of every kind pass through: any method, each framing of a body (RFC 9112 section 6), responses that never have one
//! (RFC 9110 sections 9.3.2, 15.3.5, 15.4.5), and each form of request target (section 3.2).

mod support;

use support::{Config, Framing, Mode, Origin, Proxy, Request, Wire, in_each_mode, ok};

in_each_mode!(
    any_method,
    request_with_each_framing,
    response_with_each_framing,
    a_message_in_single_bytes,
    target_is_sent_on_as_it_came,
    fields_are_sent_on_as_they_came,
    trailers_of_a_request,
    trailers_of_a_response,
    responses_that_never_have_a_body,
    answer_to_head_with_each_framing,
    connection_close_is_obeyed,
    absolute_form,
    options_for_the_whole_server,
    connect_is_not_allowed,
    empty_line_before_a_request,
);

fn proxy_to(mode: Mode, origin: &Origin) -> Proxy {
    Config::new(mode).upstream(&[&origin.address], "").start()
}

/// Sends a request, lets the origin answer it and returns what the origin saw. The answer must arrive.
#[track_caller]
fn exchange(client: &mut Wire, upstream: &mut Wire, request: impl AsRef<[u8]>) -> Request {
    client.send(request);
    let seen = upstream.request();
    upstream.send(ok("fine"));
    let response = client.response(&seen.method);
    assert_eq!(response.status, 200);
    seen
}

/// A connection of a client through the proxy to the origin, opened by a first exchange.
#[track_caller]
fn through(proxy: &Proxy, origin: &Origin) -> (Wire, Wire) {
    let mut client = proxy.connect();
    client.send("GET /first HTTP/1.1\r\nHost: a.example\r\n\r\n");
    let mut upstream = origin.accept();
    assert_eq!(upstream.request().target, "/first");
    upstream.send(ok("first"));
    assert_eq!(client.response("GET").text(), "first");
    (client, upstream)
}

fn any_method(mode: Mode) {
    let served = Origin::serve_text("fine");
    let proxy = Config::new(mode).upstream(&[&served.address], "").start();
    let mut client = proxy.connect();
    let methods = [
        "GET",
        "POST",
        "PUT",
        "DELETE",
        "PATCH",
        "OPTIONS",
        "PROPFIND",
        "M-SEARCH",
        "get",
        "A",
        "x!#$%&'*+-.^_`|~9",
    ];
    for method in methods {
        client.send(format!(
            "{method} /path?q=1 HTTP/1.1\r\nHost: a.example\r\n\r\n"
        ));
        assert_eq!(client.response(method).text(), "fine", "{method}");
        let seen = served.last_request();
        assert_eq!(
            (
                seen.method.as_str(),
                seen.target.as_str(),
                seen.version.as_str()
            ),
            (method, "/path?q=1", "HTTP/1.1")
        );
    }
    assert_eq!(served.connections(), 1);
}

fn request_with_each_framing(mode: Mode) {
    let origin = Origin::bind();
    let proxy = proxy_to(mode, &origin);
    let (mut client, mut upstream) = through(&proxy, &origin);

    let seen = exchange(
        &mut client,
        &mut upstream,
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
    );
    assert_eq!((seen.framing, seen.body.len()), (Framing::Length(0), 0));

    let seen = exchange(
        &mut client,
        &mut upstream,
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    );
    assert_eq!(
        (seen.framing, seen.body.as_slice()),
        (Framing::Length(5), &b"hello"[..])
    );

    let content: Vec<u8> = (0..300_000_u32).map(|number| number as u8).collect();
    let mut request = format!(
        "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
        content.len()
    )
    .into_bytes();
    request.extend(&content);
    let seen = exchange(&mut client, &mut upstream, request);
    assert!(seen.body == content, "300,000 bytes with a length");

    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;name=value;other=\"a;b\"\r\nhello\r\n0010\r\n, wide world ok?\r\n0\r\n\r\n";
    let seen = exchange(&mut client, &mut upstream, chunked);
    assert_eq!(
        (seen.framing, seen.body.as_slice()),
        (Framing::Chunked, &b"hello, wide world ok?"[..])
    );

    let empty = "POST / HTTP/1.1\r\nHost: a\r\ntransfer-encoding: Chunked\r\n\r\n0;last\r\n\r\n";
    let seen = exchange(&mut client, &mut upstream, empty);
    assert_eq!((seen.framing, seen.body.len()), (Framing::Chunked, 0));

    let mut request = b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for part in content.chunks(70_001) {
        request.extend(format!("{:X}\r\n", part.len()).bytes());
        request.extend(part);
        request.extend(b"\r\n");
    }
    request.extend(b"0\r\n\r\n");
    let seen = exchange(&mut client, &mut upstream, request);
    assert!(seen.body == content, "300,000 bytes in chunks");

    let seen = exchange(
        &mut client,
        &mut upstream,
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nget",
    );
    assert_eq!(
        (seen.framing, seen.body.as_slice()),
        (Framing::Length(3), &b"get"[..])
    );
}

fn response_with_each_framing(mode: Mode) {
    let origin = Origin::bind();
    let proxy = proxy_to(mode, &origin);
    let (mut client, mut upstream) = through(&proxy, &origin);
    let content = "0123456789abcdef".repeat(20_000);

    let answers = [
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_owned(),
            Framing::Length(0),
            String::new(),
        ),
        (
            format!("HTTP/1.1 404 Not Found\r\nContent-Length: 320000\r\n\r\n{content}"),
            Framing::Length(320_000),
            content.clone(),
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=\"y\"\r\nhello\r\n0\r\n\r\n"
                .to_owned(),
            Framing::Chunked,
            "hello".to_owned(),
        ),
        (
            format!(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4e200\r\n{content}\r\n0\r\n\r\n"
            ),
            Framing::Chunked,
            content.clone(),
        ),
        (
            "HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok".to_owned(),
            Framing::Length(2),
            "ok".to_owned(),
        ),
    ];
    for (bytes, framing, text) in answers {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        upstream.request();
        upstream.send(bytes);
        let response = client.response("GET");
        assert_eq!(response.framing, framing);
        assert!(
            response.text() == text,
            "{framing:?}: {} bytes",
            response.body.len()
        );
    }

    // The end of the connection is the end of the body; we may frame it otherwise for the client, but all of it must arrive.
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    upstream.request();
    upstream.send(format!(
        "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{content}"
    ));
    drop(upstream);
    let response = client.response("GET");
    assert!(
        response.text() == content,
        "close-delimited: {} bytes",
        response.body.len()
    );
    if response.framing == Framing::Close {
        assert!(
            response.head.lists("connection", "close"),
            "{:?}",
            response.head
        );
    }
}

fn a_message_in_single_bytes(mode: Mode) {
    let origin = Origin::bind();
    let proxy = proxy_to(mode, &origin);
    let (mut client, mut upstream) = through(&proxy, &origin);
    client.dribble("POST /slow HTTP/1.1\r\nHost: a.example\r\nX-One: 1\r\nTransfer-Encoding: chunked\r\n\r\n3;e=f\r\nabc\r\n2\r\nde\r\n0\r\nX-Two: 2\r\n\r\n");
    let seen = upstream.request();
    assert_eq!(
        (
            seen.target.as_str(),
            seen.body.as_slice(),
            seen.head.value("x-one")
        ),
        ("/slow", &b"abcde"[..], Some("1"))
    );
    upstream.dribble(
        "HTTP/1.1 200 OK\r\nX-Three: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nfgh\r\n0\r\n\r\n",
    );
    let response = client.response("POST");
    assert_eq!(
        (response.text().as_str(), response.head.value("x-three")),
        ("fgh", Some("3"))
    );
    assert_eq!(
        exchange(
            &mut client,
            &mut upstream,
            "GET /next HTTP/1.1\r\nHost: a\r\n\r\n"
        )
        .target,
        "/next"
    );
}

fn target_is_sent_on_as_it_came(mode: Mode) {
    let served = Origin::serve_text("fine");
    let proxy = Config::new(mode).upstream(&[&served.address], "").start();
    let mut client = proxy.connect();
    let targets = [
        "/",
        "/?",
        "/a%2Fb",
        "/a/../b",
        "//double",
        "/a;b=c/d",
        "/%00",
        "/?a=b&c=%20+x/y?z",
        "/~u/!$&'()*+,;=:@-._",
        "/a?http://b/c",
    ];
    for target in targets {
        assert_eq!(client.get(target).status, 200, "{target}");
        assert_eq!(served.last_request().target, target);
    }
}

fn fields_are_sent_on_as_they_came(mode: Mode) {
    let origin = Origin::bind();
    let proxy = proxy_to(mode, &origin);
    let (mut client, mut upstream) = through(&proxy, &origin);
    client.send(b"GET / HTTP/1.1\r\nHost: A.example:81\r\nX-Empty:\r\nX-Spaced: \t a  b \t\r\nX-Twice: 1\r\nx-twice: 2\r\nX-Text: \xe9\xff\r\nCookie: a=b; c=\"d\"\r\nCookie: e\r\n!#$%&'*+-.^_`|~9: odd\r\n\r\n");
    let seen = upstream.request();
    assert_eq!(seen.head.value("host"), Some("A.example:81"));
    assert_eq!(seen.head.value("x-empty"), Some(""));
    assert_eq!(seen.head.value("x-spaced"), Some("a  b"));
    assert_eq!(seen.head.values("x-twice"), ["1", "2"]);
    assert_eq!(seen.head.value("x-text"), Some("\u{e9}\u{ff}"));
    assert_eq!(seen.head.values("cookie"), ["a=b; c=\"d\"", "e"]);
    assert_eq!(seen.head.value("!#$%&'*+-.^_`|~9"), Some("odd"));

    upstream.send(b"HTTP/1.1 299 Some Reason \xe9\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nServer: theirs\r\nDate: Tue, 15 Nov 1994 08:12:31 GMT\r\nX-Empty: \r\nContent-Length: 1\r\n\r\n.");
    let response = client.response("GET");
    assert_eq!(response.status, 299);
    assert_eq!(response.head.values("set-cookie"), ["a=1", "b=2"]);
    assert_eq!(response.head.value("server"), Some("theirs"));
    assert_eq!(
        response.head.value("date"),
        Some("Tue, 15 Nov 1994 08:12:31 GMT")
    );
    assert_eq!(response.head.value("x-empty"), Some(""));
}

/// RFC 9110 section 6.5.1: fields that frame, route or authenticate have no place in a trailer section.
fn trailers_of_a_request(mode: Mode) {
    let origin = Origin::bind();
    let proxy = proxy_to(mode, &origin);
    let (mut client, mut upstream) = through(&proxy, &origin);
    let request = "POST / HTTP/1.1\r\nHost: a\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n.\r\n0\r\nX-Sum: abc\r\nX-Other:d\r\n\r\n";
    let seen = exchange(&mut client, &mut upstream, request);
    assert_eq!(support::field_values(&seen.trailers, "x-sum"), ["abc"]);
    assert_eq!(support::field_values(&seen.trailers, "x-other"), ["d"]);
    assert!(
        !seen.head.has("x-sum"),
        "a trailer field must not be merged into the head"
    );

    let request = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n.\r\n0\r\nContent-Length: 9\r\nTransfer-Encoding: gzip\r\nHost: evil\r\nConnection: close\r\nX-Forwarded-For: 9.9.9.9\r\nX-Sum: abc\r\n\r\n";
    let seen = exchange(&mut client, &mut upstream, request);
    for forbidden in [
        "content-length",
        "transfer-encoding",
        "host",
        "connection",
        "x-forwarded-for",
    ] {
        assert!(
            support::field_values(&seen.trailers, forbidden).is_empty(),
            "{forbidden} in {:?}",
            seen.trailers
        );
    }
}

fn trailers_of_a_response(mode: Mode) {
    let origin = Origin::bind();
    let proxy = proxy_to(mode, &origin);
    let (mut client, mut upstream) = through(&proxy, &origin);
    client.send("GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\n\r\n");
    upstream.request();
    upstream.send("HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n.\r\n0\r\nX-Sum: abc\r\nContent-Length: 7\r\n\r\n");
    let response = client.response("GET");
    assert_eq!(support::field_values(&response.trailers, "x-sum"), ["abc"]);
    assert!(
        support::field_values(&response.trailers, "content-length").is_empty(),
        "{:?}",
        response.trailers
    );
    exchange(
        &mut client,
        &mut upstream,
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    );
}

fn responses_that_never_have_a_body(mode: Mode) {
    let origin = Origin::bind();
    let proxy = proxy_to(mode, &origin);
    let (mut client, mut upstream) = through(&proxy, &origin);
    let answers = [
        (
            "GET",
            "HTTP/1.1 204 No Content\r\nETag: \"x\"\r\n\r\n",
            204,
            None,
        ),
        (
            "GET",
            "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n",
            304,
            None,
        ),
        (
            "GET",
            "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 500\r\n\r\n",
            304,
            Some("500"),
        ),
        (
            "HEAD",
            "HTTP/1.1 200 OK\r\nETag: \"x\"\r\nContent-Length: 500\r\n\r\n",
            200,
            Some("500"),
        ),
        (
            "HEAD",
            "HTTP/1.1 404 Not Found\r\nETag: \"x\"\r\nContent-Length: 9\r\n\r\n",
            404,
            Some("9"),
        ),
    ];
    for (method, bytes, status, length) in answers {
        client.send(format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(upstream.request().method, method);
        upstream.send(bytes);
        let response = client.response(method);
        assert_eq!(
            (response.status, response.head.value("etag")),
            (status, Some("\"x\""))
        );
        assert_eq!(response.head.value("content-length"), length, "{bytes}");
        assert!(!response.head.lists("connection", "close"), "{bytes}");
    }
    exchange(
        &mut client,
        &mut upstream,
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    );
}

fn answer_to_head_with_each_framing(mode: Mode) {
    let origin = Origin::bind();
    let proxy = proxy_to(mode, &origin);
    let (mut client, mut upstream) = through(&proxy, &origin);
    for framing in [
        "Transfer-Encoding: chunked\r\n",
        "",
        "Content-Length: 99999999999\r\n",
    ] {
        client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
        upstream.request();
        upstream.send(format!("HTTP/1.1 200 OK\r\n{framing}\r\n"));
        let response = client.response("HEAD");
        assert_eq!(response.status, 200);
        assert_ne!(
            response.head.value("content-length"),
            Some("0"),
            "an invented length is wrong"
        );
    }
    exchange(
        &mut client,
        &mut upstream,
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    );
}

fn connection_close_is_obeyed(mode: Mode) {
    let served = Origin::serve_text("fine");
    let proxy = Config::new(mode).upstream(&[&served.address], "").start();
    for value in ["close", "Close", "keep-alive, close", "x-thing ,close"] {
        let mut client = proxy.connect();
        client.send(format!(
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: {value}\r\n\r\n"
        ));
        let response = client.response("GET");
        assert_eq!(response.text(), "fine");
        assert!(
            response.head.lists("connection", "close"),
            "{value}: {:?}",
            response.head
        );
        client.expect_close();
    }
    assert_eq!(
        served.connections(),
        1,
        "the client's close is not the upstream connection's"
    );
}

/// RFC 9112 section 3.2.2: the authority of the target replaces Host.
fn absolute_form(mode: Mode) {
    let served = Origin::serve_text("fine");
    let proxy = Config::new(mode).upstream(&[&served.address], "").start();
    let mut client = proxy.connect();
    let cases = [
        ("http://b.example/x?y=z", "/x?y=z", "b.example"),
        ("HTTP://b.example:8081/x", "/x", "b.example:8081"),
        ("http://b.example", "/", "b.example"),
        ("http://b.example?q", "/?q", "b.example"),
        ("http://[::1]:80/x", "/x", "[::1]:80"),
    ];
    for (target, sent, host) in cases {
        client.send(format!(
            "GET {target} HTTP/1.1\r\nHost: other.example\r\n\r\n"
        ));
        assert_eq!(client.response("GET").status, 200, "{target}");
        let seen = served.last_request();
        assert_eq!(
            (seen.target.as_str(), seen.head.value("host")),
            (sent, Some(host)),
            "{target}"
        );
    }
}

/// RFC 9112 section 3.2.4: asterisk-form, and absolute-form without a path, which means the same.
fn options_for_the_whole_server(mode: Mode) {
    let served = Origin::serve_text("fine");
    let proxy = Config::new(mode).upstream(&[&served.address], "").start();
    let mut client = proxy.connect();
    for target in ["*", "http://a.example"] {
        client.send(format!(
            "OPTIONS {target} HTTP/1.1\r\nHost: a.example\r\n\r\n"
        ));
        assert_eq!(client.response("OPTIONS").status, 200, "{target}");
        let seen = served.last_request();
        assert_eq!(
            (seen.method.as_str(), seen.target.as_str()),
            ("OPTIONS", "*"),
            "{target}"
        );
    }
}

/// RFC 9110 section 15.5.6: 405 names what is allowed. What follows a CONNECT must not be taken for a request.
fn connect_is_not_allowed(mode: Mode) {
    let served = Origin::serve_text("fine");
    let proxy = Config::new(mode).upstream(&[&served.address], "").start();
    let mut client = proxy.connect();
    client.send("CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\nGET /inside HTTP/1.1\r\nHost: a\r\n\r\n");
    let response = client.response("CONNECT");
    assert_eq!(response.status, 405);
    assert!(response.head.has("allow"), "{:?}", response.head);
    assert!(
        response.head.lists("connection", "close"),
        "{:?}",
        response.head
    );
    client.expect_end();
    assert_eq!(served.connections(), 0);
}

/// RFC 9112 section 2.2: an empty line before a request line is ignored.
fn empty_line_before_a_request(mode: Mode) {
    let served = Origin::serve_text("fine");
    let proxy = Config::new(mode).upstream(&[&served.address], "").start();
    let mut client = proxy.connect();
    for _ in 0..2 {
        client.send("\r\nPOST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
        assert_eq!(client.response("POST").text(), "fine");
        assert_eq!(served.last_request().body, b"hi");
    }
}
