//! Responses are judged as strictly as requests. What an origin sends that is no response becomes a 502 (RFC 9112 sections 5.1, 5.2, 6.3; RFC 9110
//! section 15.6.3); what breaks after bytes have gone to the client ends its connection so that it can tell (RFC 9112 section 8); what
//! comes after a response is never taken for the next one (RFC 9112 section 9.2). Interim responses pass (RFC 9110 section 15.2, RFC 8297).

mod support;

use std::time::Duration;

use support::{Config, Mode, Origin, Proxy, QUIET, Wire, all_at_once, in_each_mode, ok};

in_each_mode!(
    bad_heads_become_502,
    interim_responses_pass,
    length_cut_short,
    extra_bytes_do_not_poison,
    origin_says_nothing,
    obs_fold_is_joined_or_refused,
    chunks_cut_short,
    bad_chunks_end_the_connection,
    extra_bytes_after_bodiless_responses,
    late_extra_bytes_do_not_poison,
    no_interim_response_for_http_1_0,
    endless_interim_responses_end,
    response_without_a_request,
    early_error_response,
    framing_fields_where_none_belong,
    interim_response_in_single_bytes,
    transfer_coding_from_http_1_0,
    answers_about_as_long_as_a_buffer,
    reset_behind_a_long_answer,
    reset_behind_a_whole_answer,
);

const BAD_HEADS: &[&str] = &[
    "hello\r\n\r\n",
    "\0\0\0\0\r\n\r\n",
    "SSH-2.0-x\r\n\r\n",
    "\x15\x03\x01\0\x02\x02\x16\r\n\r\n",
    "HTTP/1.1\r\n\r\n",
    "HTTP/1.1 \r\n\r\n",
    "HTTP/1.1 20 OK\r\n\r\n",
    "HTTP/1.1 2000 OK\r\n\r\n",
    "HTTP/1.1 2x0 OK\r\n\r\n",
    "HTTP/1.1 -20 OK\r\n\r\n",
    "HTTP/1.1 099 OK\r\n\r\n",
    "HTTP/1.1200 OK\r\n\r\n",
    "HTTP/1.1  200 OK\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1\t200 OK\r\nContent-Length: 0\r\n\r\n",
    " HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "http/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 200 O\rK\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 200 O\0K\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nX\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 200 OK\r\n: x\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nX Y: x\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nX@: x\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nX: a\rSet-Cookie: b\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 200 OK\r\n X: a\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\nhello!",
    "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello",
    "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello",
    "HTTP/1.1 200 OK\r\nContent-Length: 0x5\r\n\r\nhello",
    "HTTP/1.1 200 OK\r\nContent-Length: 5 5\r\n\r\nhello",
    "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551616\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\nhello",
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    "HTTP/1.1 101 Switching Protocols\r\n\r\n",
];

fn through(mode: Mode) -> (Proxy, Origin, Wire, Wire) {
    let origin = Origin::bind();
    let proxy = Config::new(mode)
        .upstream(&[&origin.address], "retries = 0")
        .start();
    let mut client = proxy.connect();
    client.send("GET /first HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut upstream = origin.accept();
    assert_eq!(upstream.request().target, "/first");
    upstream.send(ok("first"));
    assert_eq!(client.response("GET").text(), "first");
    (proxy, origin, client, upstream)
}

fn bad_heads_become_502(mode: Mode) {
    let served = Origin::bind().serve(|request| {
        let number: usize = request.target[1..].parse().expect("the number of a case");
        BAD_HEADS[number].chars().map(|each| each as u8).collect()
    });
    let proxy = Config::new(mode)
        .upstream(&[&served.address], "retries = 0")
        .start();
    let cases: Vec<usize> = (0..BAD_HEADS.len()).collect();
    all_at_once(
        &cases,
        |number| format!("{:?}", BAD_HEADS[*number]),
        |number| assert_eq!(proxy.get(&format!("/{number}")).status, 502),
    );
    assert_eq!(
        served.connections(),
        cases.len(),
        "one of them was used again"
    );
}

fn origin_says_nothing(mode: Mode) {
    let origin = Origin::bind();
    let proxy = Config::new(mode)
        .upstream(&[&origin.address], "retries = 0")
        .start();
    for said in [
        "",
        "H",
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n",
    ] {
        for reset in [false, true] {
            let mut client = proxy.connect();
            client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
            let mut upstream = origin.accept();
            upstream.request();
            upstream.send(said);
            if reset {
                upstream.reset();
            } else {
                drop(upstream);
            }
            assert_eq!(client.response("POST").status, 502, "after {said:?}");
            origin.expect_nobody(); // a POST is never sent twice
        }
    }
}

/// RFC 9112 section 5.2: a gateway replaces obs-fold by spaces, or the response by 502.
fn obs_fold_is_joined_or_refused(mode: Mode) {
    let (_proxy, _origin, mut client, mut upstream) = through(mode);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    upstream.request();
    upstream.send("HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n");
    let response = client.response("GET");
    match response.status {
        502 => {}
        status => assert_eq!((status, response.head.value("x")), (200, Some("a b"))),
    }
}

fn length_cut_short(mode: Mode) {
    for reset in [false, true] {
        let (_proxy, _origin, mut client, mut upstream) = through(mode);
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        upstream.request();
        upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello");
        let response = client.response_head("GET");
        assert_eq!(
            (response.status, response.head.value("content-length")),
            (200, Some("10"))
        );
        client.expect("hello");
        if reset {
            upstream.reset();
        } else {
            drop(upstream);
        }
        client.expect_end();
    }
}

fn chunks_cut_short(mode: Mode) {
    for sent in [
        "5\r\nhello\r\n",
        "5\r\nhel",
        "5\r\nhello\r\n0",
        "5\r\nhello\r\n0\r\n",
        "5\r\nhello\r\n0\r\nX: y\r\n",
        "5",
    ] {
        let (_proxy, _origin, mut client, mut upstream) = through(mode);
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        upstream.request();
        upstream.send(format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{sent}"
        ));
        drop(upstream);
        expect_truncated(&mut client, sent);
    }
}

/// A response that started must be seen to be incomplete; one that did not start may have become a 502.
#[track_caller]
fn expect_truncated(client: &mut Wire, case: &str) {
    let status = client.response_head("GET").status;
    if status == 200 {
        let (body, _) = client.read_to_end();
        let text = String::from_utf8_lossy(&body).into_owned();
        assert!(!text.contains("0\r\n"), "{case:?} became {text:?}");
    } else {
        assert_eq!(status, 502, "{case:?}");
    }
}

fn bad_chunks_end_the_connection(mode: Mode) {
    let bodies = [
        "x\r\n\r\n0\r\n\r\n",
        "5\r\nhelloX\r\n0\r\n\r\n",
        "-1\r\n\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "\r\n0\r\n\r\n",
        "10000000000000005\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\r\nX : y\r\n\r\n",
        "5\r\nhello\r\n0\r\nX: a\0\r\n\r\n",
    ];
    all_at_once(
        &bodies,
        |case| format!("{case:?}"),
        |case| {
            let (_proxy, _origin, mut client, mut upstream) = through(mode);
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            upstream.request();
            upstream.send(format!(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{case}"
            ));
            expect_truncated(&mut client, case);
            upstream.expect_end();
        },
    );
}

const POISON: &str = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\npoisoned";

/// The next request, by anybody, goes out on another connection and gets its own answer.
#[track_caller]
fn expect_fresh_answer(client: &mut Wire, origin: &Origin) {
    client.send("GET /next HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut fresh = origin.accept();
    assert_eq!(fresh.request().target, "/next");
    fresh.send(ok("clean"));
    assert_eq!(client.response("GET").text(), "clean");
}

fn extra_bytes_do_not_poison(mode: Mode) {
    for framed in [
        "Content-Length: 2\r\n\r\nok",
        "Content-Length: 0\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    ] {
        for extra in [POISON, "x", "\r\n"] {
            let (_proxy, origin, mut client, mut upstream) = through(mode);
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            upstream.request();
            upstream.send(format!("HTTP/1.1 200 OK\r\n{framed}{extra}"));
            assert_eq!(client.response("GET").status, 200);
            expect_fresh_answer(&mut client, &origin);
            upstream.expect_end();
        }
    }
}

fn extra_bytes_after_bodiless_responses(mode: Mode) {
    let answers = [
        (
            "HEAD",
            "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\npoisoned",
        ),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\npoisoned"),
        (
            "GET",
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 8\r\n\r\npoisoned",
        ),
        (
            "HEAD",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
    ];
    for (method, bytes) in answers {
        let (_proxy, origin, mut client, mut upstream) = through(mode);
        client.send(format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n"));
        upstream.request();
        upstream.send(bytes);
        client.response(method);
        expect_fresh_answer(&mut client, &origin);
    }
}

fn late_extra_bytes_do_not_poison(mode: Mode) {
    let (_proxy, origin, mut client, mut upstream) = through(mode);
    std::thread::sleep(QUIET);
    upstream.send(POISON);
    std::thread::sleep(QUIET);
    client.expect_silence(QUIET);
    expect_fresh_answer(&mut client, &origin);
}

/// A response before any request on this connection answers none.
fn response_without_a_request(mode: Mode) {
    let origin = Origin::bind();
    let proxy = Config::new(mode).upstream(&[&origin.address], "").start();
    let mut client = proxy.connect();
    client.send("GET /one HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut upstream = origin.accept();
    upstream.request();
    upstream.send([ok("one"), ok("poisoned"), ok("poisoned")].concat());
    assert_eq!(client.response("GET").text(), "one");
    let mut other = proxy.connect();
    expect_fresh_answer(&mut other, &origin);
}

fn interim_responses_pass(mode: Mode) {
    let (_proxy, _origin, mut client, mut upstream) = through(mode);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    upstream.request();
    upstream.send("HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n");
    let hints = client.response("GET"); // before the origin says more
    assert_eq!(
        (hints.status, hints.head.value("link")),
        (103, Some("</a.css>; rel=preload"))
    );
    upstream.send("HTTP/1.1 103 Early Hints\r\nLink: </b.css>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlast");
    assert_eq!(client.response("GET").head.value("link"), Some("</b.css>"));
    assert_eq!(client.response("GET").status, 102);
    let response = client.response("GET");
    assert_eq!((response.status, response.text().as_str()), (200, "last"));
    assert_eq!(client.get_through(&mut upstream), "next");
}

impl Wire {
    /// One more exchange on the same two connections.
    fn get_through(&mut self, upstream: &mut Wire) -> String {
        self.send("GET /next HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(upstream.request().target, "/next");
        upstream.send(ok("next"));
        self.response("GET").text()
    }
}

fn no_interim_response_for_http_1_0(mode: Mode) {
    let origin = Origin::bind();
    let proxy = Config::new(mode).upstream(&[&origin.address], "").start();
    let mut client = proxy.connect();
    client.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    let mut upstream = origin.accept();
    upstream.request();
    upstream.send("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlast");
    let response = client.response("GET");
    assert_eq!((response.status, response.text().as_str()), (200, "last"));
}

/// An origin that never comes to the point runs into the response header timeout or a limit, not into endless patience.
fn endless_interim_responses_end(mode: Mode) {
    let origin = Origin::bind();
    let proxy = Config::new(mode)
        .upstream(
            &[&origin.address],
            "retries = 0\nresponse_header_timeout = \"500ms\"",
        )
        .start();
    let (mut client, mut upstream) = proxy.reach(&origin);
    let ended = (0..1000).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        upstream
            .try_send("HTTP/1.1 102 Processing\r\n\r\n")
            .is_err()
    });
    assert!(
        ended,
        "the proxy still reads after 10 seconds of interim responses"
    );
    let last = (0..1001)
        .map(|_| client.response("GET").status)
        .find(|status| *status >= 200);
    assert!(matches!(last, Some(502 | 504)), "{last:?}");
}

/// An origin may refuse an upload before it has read it, and close (RFC 9112 section 9.6).
fn early_error_response(mode: Mode) {
    let origin = Origin::bind();
    let proxy = Config::new(mode).upstream(&[&origin.address], "").start();
    let mut client = proxy.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\nsome");
    let mut upstream = origin.accept();
    upstream.request_head();
    upstream.send(
        "HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig",
    );
    let response = client.response("POST");
    assert_eq!((response.status, response.text().as_str()), (413, "big"));
    drop(upstream);
    client.expect_end(); // the rest of the body will not be wanted
}

/// RFC 9110 section 8.6, RFC 9112 section 6.1: origins send these, we do not pass them on.
fn framing_fields_where_none_belong(mode: Mode) {
    for head in [
        "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
    ] {
        let (_proxy, _origin, mut client, mut upstream) = through(mode);
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        upstream.request();
        upstream.send(head);
        let status = client.response("GET").status; // which has looked for such fields
        assert!(matches!(status, 204 | 502), "{head:?}: {status}");
    }
    let (_proxy, _origin, mut client, mut upstream) = through(mode);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    upstream.request();
    upstream.send("HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(
        client.response("GET").status,
        204,
        "a common mistake, and harmless"
    );
}

fn interim_response_in_single_bytes(mode: Mode) {
    let (_proxy, _origin, mut client, mut upstream) = through(mode);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    upstream.request();
    upstream.dribble("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    assert_eq!(client.response("GET").status, 103);
    assert_eq!(client.response("GET").text(), "ok");
}

/// RFC 9112 section 6.1: such framing is faulty, so nothing else may come over that connection.
fn transfer_coding_from_http_1_0(mode: Mode) {
    let (_proxy, origin, mut client, mut upstream) = through(mode);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    upstream.request();
    upstream.send("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n");
    upstream.finish_sending();
    assert!(matches!(client.response_head("GET").status, 200 | 502));
    upstream.expect_end();
    origin.expect_nobody();
}

/// Answers are received with small buffers or large ones, by how long the server's last one was. None may tell.
fn answers_about_as_long_as_a_buffer(mode: Mode) {
    let (_proxy, _origin, mut client, mut upstream) = through(mode);
    let around = |size: usize| size - 3..=size + 3;
    let sizes = around(1024).chain(around(2048)).chain(around(20 * 1024));
    for size in sizes.chain(around(64 * 1024)).chain([300_000]) {
        // Twice the same: the first finds the buffer that the answer before it asks for.
        for size in [size, size, 100] {
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            upstream.request();
            upstream.send(answer_of(size));
            let body = client.response("GET").body;
            assert!(
                answer_of(size).as_bytes().ends_with(&body) && body.len() > size - 60,
                "{size} bytes"
            );
        }
    }
}

/// An answer of so many bytes, head and body.
fn answer_of(size: usize) -> String {
    let head = |length: usize| format!("HTTP/1.1 200 OK\r\nContent-Length: {length:09}\r\n\r\n");
    let length = size - head(0).len();
    let body: String = (0..length)
        .map(|at| char::from(b'a' + (at % 23) as u8))
        .collect();
    head(length) + &body
}

fn reset_behind_a_long_answer(mode: Mode) {
    for size in [100, 2047, 2048, 2049, 10_000] {
        let (_proxy, _origin, mut client, mut upstream) = through(mode);
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        upstream.request();
        let head = "HTTP/1.1 200 OK\r\n\r\n";
        upstream.send(head.to_owned() + &"a".repeat(size - head.len()));
        upstream.reset();
        expect_truncated(&mut client, &size.to_string());
    }
}

fn reset_behind_a_whole_answer(mode: Mode) {
    for size in [100, 2047, 2048, 2049, 10_000] {
        let (proxy, _origin, mut client, mut upstream) = through(mode);
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        upstream.request();
        // Both have come when the proxy looks.
        proxy.suspend();
        upstream.send(answer_of(size));
        upstream.reset();
        proxy.resume();
        let body = client.response("GET").body;
        assert!(answer_of(size).as_bytes().ends_with(&body), "{size} bytes");
    }
}
