//! The sample origin over real sockets: what the demo, the benches and the comparison rely on.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use ringlane::origin;

const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

fn start() -> SocketAddr {
    origin::spawn(ANY_PORT, "a".to_owned(), None).expect("an origin")
}

fn connect(origin: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(origin).expect("a connection");
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .expect("a timeout");
    stream
}

/// Sends `request` and reads until the origin closes.
fn ask(request: &[u8]) -> String {
    let mut stream = connect(start());
    stream.write_all(request).expect("a request sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

/// The answer to a GET of `path` on a connection that closes after it: head and body.
fn get(path: &str) -> (String, String) {
    let answer =
        ask(format!("GET {path} HTTP/1.1\r\nHost: o\r\nConnection: close\r\n\r\n").as_bytes());
    let (head, body) = answer.split_once("\r\n\r\n").expect("a whole head");
    (head.to_owned(), body.to_owned())
}

/// Reads until `text` has come.
fn read_past(stream: &mut TcpStream, text: &str) -> String {
    let (mut seen, mut byte) = (Vec::new(), [0]);
    while !seen.ends_with(text.as_bytes()) {
        stream.read_exact(&mut byte).expect("more of the answer");
        seen.push(byte[0]);
    }
    String::from_utf8(seen).expect("text")
}

#[test]
fn any_path_names_the_origin() {
    let (head, body) = get("/any/path?x=1");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("\r\nContent-Length: 13"), "{head}");
    assert!(head.contains("\r\nConnection: close"), "{head}");
    assert_eq!(body, "hello from a\n");
    assert!(get("/health").0.starts_with("HTTP/1.1 200 OK\r\n"));
}

#[test]
fn bodies_have_the_length_asked_for() {
    for length in [0, 1, 16 * 1024, 1 << 20, (1 << 20) + 1, 5 << 20] {
        let (head, body) = get(&format!("/bytes/{length}"));
        assert!(
            head.contains(&format!("\r\nContent-Length: {length}\r\n")),
            "{head}"
        );
        assert_eq!(body.len(), length);
    }
}

#[test]
fn the_same_body_twice_then_another() {
    let mut stream = connect(start());
    for length in [70_000, 70_000, 3] {
        write!(stream, "GET /bytes/{length} HTTP/1.1\r\n\r\n").expect("a request sent");
        let head = read_past(&mut stream, "\r\n\r\n");
        assert!(
            head.contains(&format!("Content-Length: {length}\r\n")),
            "{head}"
        );
        assert!(!head.contains("Connection"), "{head}");
        stream.read_exact(&mut vec![0; length]).expect("the body");
    }
}

#[test]
fn chunked_bodies_are_whole() {
    for length in [0, 1, 65_536, 65_537, 200_000] {
        let (head, body) = get(&format!("/chunked/{length}"));
        assert!(head.contains("\r\nTransfer-Encoding: chunked"), "{head}");
        assert_eq!(unchunk(&body).len(), length);
    }
}

/// The data of a chunked body, which must end where the text does.
fn unchunk(mut body: &str) -> String {
    let mut data = String::new();
    loop {
        let (size, rest) = body.split_once("\r\n").expect("a chunk size");
        let size = usize::from_str_radix(size, 16).expect("a hexadecimal size");
        data.push_str(&rest[..size]);
        body = rest[size..].strip_prefix("\r\n").expect("a line end");
        if size == 0 {
            assert_eq!(body, "", "bytes after the last chunk");
            return data;
        }
    }
}

#[test]
fn answers_without_content_have_none() {
    let (head, body) = get("/status/205");
    assert!(head.contains("\r\nContent-Length: 0\r\n"), "{head}");
    assert_eq!(body, "");
    for empty_line in ["", "\r\n"] {
        let answer = ask(format!("{empty_line}HEAD /bytes/many HTTP/1.1\r\n\r\n").as_bytes());
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        assert!(answer.ends_with("\r\n\r\n"), "{answer}");
    }
}

#[test]
fn only_those_who_know_it_get_100() {
    for (version, expectation) in [("1.0", "100-continue"), ("1.1", "wonders")] {
        let answer = ask(format!(
            "POST / HTTP/{version}\r\nConnection: close\r\nExpect: {expectation}\r\nContent-Length: 1\r\n\r\na"
        )
        .as_bytes());
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
}

#[test]
fn an_old_client_gets_no_chunks() {
    let answer = ask(b"GET /chunked/5 HTTP/1.0\r\n\r\n");
    assert!(answer.contains("\r\nConnection: close\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\n01234"), "{answer}");
}

#[test]
fn pipelined_requests_are_answered_in_order_past_their_bodies() {
    let answers = ask(b"POST /status/201 HTTP/1.1\r\nContent-Length: 5\r\n\r\nGET /\
        POST /status/202 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nTrailer: t\r\n\r\n\
        HEAD /bytes/9 HTTP/1.1\r\n\r\n\
        GET /status/204 HTTP/1.1\r\nConnection: close\r\n\r\n");
    let statuses: Vec<&str> = answers
        .lines()
        .filter(|line| line.starts_with("HTTP/"))
        .collect();
    assert_eq!(
        statuses,
        [
            "HTTP/1.1 201 Created",
            "HTTP/1.1 202 Accepted",
            "HTTP/1.1 200 OK",
            "HTTP/1.1 204 No Content"
        ]
    );
    assert!(
        answers.contains("Content-Length: 9\r\n\r\nHTTP/1.1 204"),
        "HEAD has no body: {answers}"
    );
}

#[test]
fn a_request_split_at_every_byte_is_understood() {
    let request =
        b"POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n";
    let mut stream = connect(start());
    stream.set_nodelay(true).expect("no delay");
    for byte in request {
        stream.write_all(&[*byte]).expect("a byte sent");
    }
    let answer = read_past(&mut stream, "0\r\n\r\n");
    let (_, body) = answer.split_once("\r\n\r\n").expect("a whole head");
    assert_eq!(unchunk(body), "abc");
}

#[test]
fn an_echo_streams_while_the_body_is_sent() {
    let mut stream = connect(start());
    stream
        .write_all(b"POST /echo HTTP/1.1\r\nContent-Length: 6\r\nExpect: 100-continue\r\n\r\n")
        .expect("a head sent");
    assert_eq!(
        read_past(&mut stream, "\r\n\r\n"),
        "HTTP/1.1 100 Continue\r\n\r\n"
    );
    stream.write_all(b"abc").expect("half a body sent");
    assert!(read_past(&mut stream, "abc").contains("Content-Length: 6\r\n"));
    stream.write_all(b"def").expect("the other half sent");
    assert_eq!(read_past(&mut stream, "def"), "def");
}

#[test]
fn headers_come_back_as_they_arrived() {
    let (_, body) = get("/headers");
    assert_eq!(
        body,
        "GET /headers HTTP/1.1\r\nHost: o\r\nConnection: close\r\n\r\n"
    );
}

#[test]
fn a_slow_answer_takes_its_time() {
    let asked = Instant::now();
    let (_, body) = get("/slow/200");
    assert!(asked.elapsed() >= Duration::from_millis(200));
    assert_eq!(body, "hello from a\n");
}

#[test]
fn events_leave_at_once() {
    let mut stream = connect(start());
    let asked = Instant::now();
    stream
        .write_all(b"GET /events HTTP/1.1\r\n\r\n")
        .expect("a request sent");
    let first = read_past(&mut stream, "data: event 1\n\n");
    assert!(
        first.contains("Content-Type: text/event-stream\r\n"),
        "{first}"
    );
    assert!(
        asked.elapsed() < Duration::from_millis(900),
        "the first event waited"
    );
    read_past(&mut stream, "data: event 2\n\n");
    assert!(
        asked.elapsed() >= Duration::from_secs(1),
        "the second event did not wait"
    );
}

#[test]
fn nonsense_is_refused_and_the_connection_closed() {
    let cases: [(&[u8], &str); 4] = [
        (b"\x16\x03\x01\x02\x00\r\n\r\n", "HTTP/1.1 400 "),
        (b"GET /bytes/many HTTP/1.1\r\n\r\n", "HTTP/1.1 400 "),
        (
            b"GET / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
            "HTTP/1.1 501 ",
        ),
        (
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
            "",
        ),
    ];
    for (request, start) in cases {
        let answer = ask(request);
        assert!(answer.starts_with(start), "{answer}");
        assert!(start.is_empty() == answer.is_empty(), "{answer}");
    }
}

#[test]
fn an_address_in_use_is_named() {
    let taken = start();
    let error = origin::spawn(taken, "b".to_owned(), None).expect_err("the address is in use");
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    assert!(error.to_string().contains(&taken.to_string()), "{error}");
}

#[test]
fn a_cpu_that_is_not_there_is_refused() {
    let error = origin::spawn(ANY_PORT, "a".to_owned(), Some(1023)).expect_err("no such CPU");
    assert!(error.to_string().contains("1023"), "{error}");
}
