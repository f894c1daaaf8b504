//! Requests whose framing or syntax is in doubt are refused: an answer with a 4xx code, then the end of the connection, and nothing for the
//! origin (RFC 9112 sections 2.2, 3, 5.1, 5.2, 6.1, 6.3, 7.1, 11.2; RFC 9110 sections 5.5, 7.2). Each case is followed by a second
//! request on the same connection: were the boundaries drawn otherwise somewhere, that one would be smuggled in.

mod support;

use support::{Config, Mode, Origin, Proxy, QUIET, Response, Served, all_at_once, in_each_mode};

in_each_mode!(
    refused_heads,
    refused_chunks,
    refused_heads_in_single_bytes,
    equal_lengths_are_one_or_refused,
    coding_we_do_not_know,
    body_cut_short_by_the_client,
    chunked_body_cut_short_by_the_client,
    odd_but_correct_chunks,
);

const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

/// Request lines.
const LINES: &[&str] = &[
    "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /  HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET\t/\tHTTP/1.1\r\nHost: a\r\n\r\n",
    " GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
    "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /\r\nHost: a\r\n\r\n",
    "GET\r\nHost: a\r\n\r\n",
    "GET / \r\nHost: a\r\n\r\n",
    " / HTTP/1.1\r\nHost: a\r\n\r\n",
    "G(T / HTTP/1.1\r\nHost: a\r\n\r\n",
    "G\u{e9}T / HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET / HTTP/1\r\nHost: a\r\n\r\n",
    "GET / HTTP/1.\r\nHost: a\r\n\r\n",
    "GET / HTTP/1.10\r\nHost: a\r\n\r\n",
    "GET / HTTP/01.1\r\nHost: a\r\n\r\n",
    "GET / HTTP/1.1.1\r\nHost: a\r\n\r\n",
    "GET / HTTP/+1.1\r\nHost: a\r\n\r\n",
    "GET / http/1.1\r\nHost: a\r\n\r\n",
    "GET / HTTP /1.1\r\nHost: a\r\n\r\n",
    "GET / XTTP/1.1\r\nHost: a\r\n\r\n",
    "GET / HTTP/0.9\r\nHost: a\r\n\r\n",
    "GET / HTTP/2.0\r\nHost: a\r\n\r\n",
    "GET / HTTP/3.7\r\nHost: a\r\n\r\n",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "GET x HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET * HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET a.example:80 HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET http://u:p@a.example/x HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /#x HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /\u{7f} HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /\r HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /\rx HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET / HTTP/1.1\rHost: a\r\n\r\n",
    "GET / HTTP/1.1\nHost: a\r\n\r\n",
    "GET / HTTP/1.1\nHost: a\n\n",
    "GET / HTTP/1.1\r\r\nHost: a\r\n\r\n",
    "\x16\x03\x01\x02\0\x01\0\x01\r\n\r\n",
];

/// Host.
const HOSTS: &[&str] = &[
    "GET / HTTP/1.1\r\n\r\n",
    "GET http://a/ HTTP/1.1\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a?b\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a#b\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\\b\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a:b\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a:80:80\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: \"a\"\r\n\r\n",
    "GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
];

/// Fields in general.
const FIELDS: &[&str] = &[
    "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX : b\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX\t: b\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX Y: b\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX@Y: b\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX\u{e9}: b\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\n\"X\": b\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX\0: b\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX: b\0c\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX: b\rc\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX: b\r\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX: b\nY: c\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX: b\n\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX: b\n\r\n",
    "GET / HTTP/1.1\r\n Host: a\r\n\r\n",
    "GET / HTTP/1.1\r\n X: b\r\nHost: a\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n\tc\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n \r\n\r\n",
];

/// Content-Length and Transfer-Encoding.
const LENGTHS: &[&str] = &[
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\nContent-Length: 5\r\n\r\nhello",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\ncontent-length: 5\r\n\r\nhello!",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 6\r\n\r\nhello!",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5,\r\n\r\nhello",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\nhello",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\nhello",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5 5\r\n\r\nhello",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5;\r\n\r\nhello",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5.0\r\n\r\nhello",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1e1\r\n\r\nhellohello",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1_0\r\n\r\nhellohello",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \"5\"\r\n\r\nhello",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551616\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551621\r\n\r\nhello",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999999999999\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\nhello",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length\t: 5\r\n\r\nhello",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n 0\r\n\r\nhello",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\rX: \r\n\r\nhello",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked,\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: , chunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunkedx\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;a=b\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chun ked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\0\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding\r\n: chunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nX: y\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nX: y\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
];

/// Chunked bodies; a head goes before.
const CHUNKS: &[&str] = &[
    "\r\n",
    "x\r\nhello\r\n0\r\n\r\n",
    "0x5\r\nhello\r\n0\r\n\r\n",
    "+5\r\nhello\r\n0\r\n\r\n",
    "-5\r\nhello\r\n0\r\n\r\n",
    " 5\r\nhello\r\n0\r\n\r\n",
    "5 \r\nhello\r\n0\r\n\r\n",
    "5\t\r\nhello\r\n0\r\n\r\n",
    "5_\r\nhello\r\n0\r\n\r\n",
    "5,5\r\nhello\r\n0\r\n\r\n",
    ";a=b\r\nhello\r\n0\r\n\r\n",
    "10000000000000005\r\nhello\r\n0\r\n\r\n",
    "FFFFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n",
    "5\nhello\r\n0\r\n\r\n",
    "5\rhello\r\n0\r\n\r\n",
    "5\r\r\nhello\r\n0\r\n\r\n",
    "5;a\nhello\r\n0\r\n\r\n",
    "5;a\rb\r\nhello\r\n0\r\n\r\n",
    "5;a\0b\r\nhello\r\n0\r\n\r\n",
    "5\r\nhello0\r\n\r\n",
    "5\r\nhello\n0\r\n\r\n",
    "5\r\nhello\r0\r\n\r\n",
    "5\r\nhelloX\r\n0\r\n\r\n",
    "5\r\nhello\r\r\n0\r\n\r\n",
    "5\r\nhello\r\n\r\n0\r\n\r\n",
    "5\r\nhello\r\n0\n\r\n",
    "5\r\nhello\r\n0\r\n\n",
    "5\r\nhello\r\n0\r\nX : a\r\n\r\n",
    "5\r\nhello\r\n0\r\nX\r\n\r\n",
    "5\r\nhello\r\n0\r\n: a\r\n\r\n",
    "5\r\nhello\r\n0\r\nX: a\r\n b\r\n\r\n",
    "5\r\nhello\r\n0\r\nX: a\nY: b\r\n\r\n",
    "5\r\nhello\r\n0\r\nX: a\0\r\n\r\n",
    "5\r\nhello\r\n0\r\nX: a\rb\r\n\r\n",
];

fn serve(mode: Mode) -> (Served, Proxy) {
    let served = Origin::serve_text("should not be asked");
    let proxy = Config::new(mode)
        .upstream(&[&served.address], "retries = 0")
        .start();
    (served, proxy)
}

/// The bytes of a case: its characters stand for the bytes of the same number.
fn bytes(case: &str) -> Vec<u8> {
    case.chars().map(|each| each as u8).collect()
}

/// The one answer on a connection that then ends.
#[track_caller]
fn last_answer(client: &mut support::Wire) -> Response {
    let response = client.response("GET");
    assert!(
        response.head.lists("connection", "close"),
        "no Connection: close in {:?}",
        response.head
    );
    client.expect_end();
    response
}

fn refuse(proxy: &Proxy, case: &str, dribble: bool) {
    let mut client = proxy.connect();
    if dribble {
        for byte in bytes(case) {
            if client.try_send([byte]).is_err() {
                break; // answered already
            }
        }
        client.try_send(SMUGGLED).ok();
    } else {
        let mut all = bytes(case);
        all.extend(SMUGGLED.bytes());
        client.send(all);
    }
    let response = last_answer(&mut client);
    let of_version = response.status == 505
        && (case.contains("HTTP/2") || case.contains("HTTP/3") || case.contains("HTTP/0"));
    let of_coding = response.status == 501 && case.contains("Transfer-Encoding");
    assert!(
        response.status == 400 || of_version || of_coding,
        "{}",
        response.head.start
    );
}

fn refused_heads(mode: Mode) {
    refuse_all(mode, &[LINES, HOSTS, FIELDS, LENGTHS], false);
}

fn refused_heads_in_single_bytes(mode: Mode) {
    refuse_all(mode, &[LINES, FIELDS, LENGTHS], true);
}

fn refuse_all(mode: Mode, tables: &[&[&str]], in_single_bytes: bool) {
    let (served, proxy) = serve(mode);
    for table in tables {
        all_at_once(
            table,
            |case| format!("{case:?}"),
            |case| refuse(&proxy, case, in_single_bytes),
        );
    }
    std::thread::sleep(QUIET);
    assert_eq!(
        served.connections(),
        0,
        "the origin saw {:?} {:?}",
        served.targets(),
        served.take_complaints()
    );
}

/// The head may have gone on when the body turns out bad; then the origin's connection must end before the message does.
fn refused_chunks(mode: Mode) {
    let (served, proxy) = serve(mode);
    let head = "POST /chunks HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    all_at_once(
        CHUNKS,
        |case| format!("{case:?}"),
        |case| {
            let mut client = proxy.connect();
            client.send(format!("{head}{case}{SMUGGLED}"));
            assert_eq!(last_answer(&mut client).status, 400);
        },
    );
    std::thread::sleep(QUIET);
    assert_eq!(served.targets(), [""; 0], "complete messages at the origin");
    served.take_complaints(); // of messages that ended early
}

/// RFC 9110 section 8.6: a list of equal lengths is refused or replaced by one.
fn equal_lengths_are_one_or_refused(mode: Mode) {
    let served = Origin::serve_text("fine");
    let proxy = Config::new(mode).upstream(&[&served.address], "").start();
    for lengths in [
        "Content-Length: 5\r\nContent-Length: 5",
        "Content-Length: 5, 5",
    ] {
        let mut client = proxy.connect();
        client.send(format!(
            "POST / HTTP/1.1\r\nHost: a\r\n{lengths}\r\n\r\nhello"
        ));
        let response = client.response("POST");
        match response.status {
            400 => client.expect_end(),
            status => assert_eq!(
                (status, served.last_request().body),
                (200, b"hello".to_vec())
            ),
        }
    }
}

/// RFC 9112 section 6.1: chunked is last, so the message has an end; but what we cannot decode we do not pass on.
fn coding_we_do_not_know(mode: Mode) {
    let (served, proxy) = serve(mode);
    for coding in [
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
    ] {
        let mut client = proxy.connect();
        client.send(format!(
            "POST / HTTP/1.1\r\nHost: a\r\n{coding}\r\n\r\n0\r\n\r\n{SMUGGLED}"
        ));
        let response = last_answer(&mut client);
        assert!(
            matches!(response.status, 400 | 501),
            "{}",
            response.head.start
        );
    }
    assert_eq!(served.connections(), 0);
}

/// RFC 9112 section 8: an incomplete request is never passed off as a complete one.
fn body_cut_short_by_the_client(mode: Mode) {
    let origin = Origin::bind();
    let proxy = Config::new(mode).upstream(&[&origin.address], "").start();
    let mut client = proxy.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello");
    let mut upstream = origin.accept();
    upstream.request_head();
    upstream.expect("hello");
    drop(client);
    upstream.expect_end();
    origin.expect_nobody();
}

fn chunked_body_cut_short_by_the_client(mode: Mode) {
    let origin = Origin::bind();
    let proxy = Config::new(mode).upstream(&[&origin.address], "").start();
    for cut in [
        "5\r\nhello\r\n",
        "5\r\nhel",
        "5\r\nhello\r\n0\r\n",
        "5\r\nhello\r\n0\r\nX: y\r\n",
    ] {
        let mut client = proxy.connect();
        client.send(format!(
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{cut}"
        ));
        let mut upstream = origin.accept();
        upstream.request_head();
        client.finish_sending();
        let (sent, _) = upstream.read_to_end();
        let sent = String::from_utf8_lossy(&sent).into_owned();
        assert!(!sent.contains("\r\n0\r\n\r\n"), "{cut:?} became {sent:?}");
        origin.expect_nobody();
    }
}

/// RFC 9112 section 7.1.1: extensions are ignored, and may hold nearly anything between quotes; digits may be of either case, zeros lead.
fn odd_but_correct_chunks(mode: Mode) {
    let served = Origin::serve_text("fine");
    let proxy = Config::new(mode).upstream(&[&served.address], "").start();
    let mut client = proxy.connect();
    let bodies = [
        "a\r\n0123456789\r\n0\r\n\r\n",
        "A\r\n0123456789\r\n0\r\n\r\n",
        "000000000A\r\n0123456789\r\n000\r\n\r\n",
        "A;x\r\n0123456789\r\n0\r\n\r\n",
        "A;x=y;z=\"; \\\" 0\"\r\n0123456789\r\n0;q\r\n\r\n",
        "A ; x = y\r\n0123456789\r\n0\r\n\r\n",
        "1\r\n0\r\n9\r\n123456789\r\n0\r\nX: y\r\n\r\n",
    ];
    for body in bodies {
        client.send(format!(
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}"
        ));
        assert_eq!(client.response("POST").status, 200, "{body:?}");
        assert_eq!(served.last_request().body, b"0123456789", "{body:?}");
    }
}
