//! Bodies stream, both ways, at once and in constant memory: what one side has sent the other gets, and who does not read is not
//! read from either. Head and first body bytes leave in one write.

mod support;

use std::time::{Duration, Instant};

use support::{Config, Framing, Mode, Origin, Proxy, QUIET, Wire, eventually, in_each_mode, ok};

in_each_mode!(
    request_body_streams,
    response_body_streams,
    download_back_pressure,
    upload_back_pressure,
    huge_download,
    huge_upload,
    server_sent_events_leave_at_once,
    response_before_the_end_of_the_request,
    both_bodies_at_once,
    head_and_body_leave_in_one_write,
    client_gone_frees_the_upstream,
    many_small_chunks,
    complete_response_to_half_a_request,
    answer_reaches_a_client_that_still_sends,
    origin_dies_during_an_upload,
    client_gone_before_the_answer,
    all_that_a_server_gets_is_counted,
);

/// What two kernels and a proxy may hold of a body that nobody reads. Linux lets a socket grow to some MiB on each side.
const HELD_AT_MOST: usize = 40 << 20;

/// What the proxy itself may grow by, whatever the size of a body.
const GROWTH_AT_MOST: u64 = 8 << 20;

fn start(mode: Mode) -> (Proxy, Origin) {
    let origin = Origin::bind();
    let proxy = Config::new(mode).upstream(&[&origin.address], "").start();
    (proxy, origin)
}

/// The two ends of an exchange whose request has this head.
fn open(proxy: &Proxy, origin: &Origin, head: &str) -> (Wire, Wire) {
    let mut client = proxy.connect();
    client.send(head);
    let mut upstream = origin.accept();
    upstream.request_head();
    (client, upstream)
}

fn request_body_streams(mode: Mode) {
    let (proxy, origin) = start(mode);
    let (mut client, mut upstream) = open(
        &proxy,
        &origin,
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n",
    );
    for part in ["01", "2345", "6", "789"] {
        client.send(part);
        upstream.expect(part);
    }
    upstream.send(ok("fine"));
    assert_eq!(client.response("POST").text(), "fine");

    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    upstream.request_head();
    client.send("5\r\nhel"); // less than a chunk must not wait for the rest of it
    let mut got = Vec::new();
    eventually("the first bytes of a chunk", || {
        upstream.receive_within(Duration::from_millis(10)).ok();
        got = upstream.unread().to_vec();
        String::from_utf8_lossy(&got).contains("hel")
    });
    client.send("lo\r\n0\r\n\r\n");
    upstream.read_until(b"0\r\n\r\n");
    upstream.send(ok("fine"));
    assert_eq!(client.response("POST").text(), "fine");
}

fn response_body_streams(mode: Mode) {
    let (proxy, origin) = start(mode);
    let (mut client, mut upstream) = open(&proxy, &origin, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n");
    client.response_head("GET"); // before any byte of the body
    for part in ["01", "2345", "6", "789"] {
        upstream.send(part);
        client.expect(part);
    }
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    upstream.request();
    upstream.send(ok("next"));
    assert_eq!(client.response("GET").text(), "next");
}

fn server_sent_events_leave_at_once(mode: Mode) {
    let (proxy, origin) = start(mode);
    for chunked in [true, false] {
        let (mut client, mut upstream) = open(
            &proxy,
            &origin,
            "GET /events HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n",
        );
        let framing = if chunked {
            "Transfer-Encoding: chunked\r\n"
        } else {
            ""
        };
        upstream.send(format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n{framing}\r\n"
        ));
        client.response_head("GET");
        for number in 0..5 {
            let event = format!("data: {number}\n\n");
            let sent = Instant::now();
            upstream.send(if chunked {
                format!("{:x}\r\n{event}\r\n", event.len())
            } else {
                event.clone()
            });
            client.read_until(event.as_bytes());
            assert!(
                sent.elapsed() < Duration::from_secs(1),
                "an event took {:?}",
                sent.elapsed()
            );
        }
    }
}

fn response_before_the_end_of_the_request(mode: Mode) {
    let (proxy, origin) = start(mode);
    let (mut client, mut upstream) = open(
        &proxy,
        &origin,
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n01234",
    );
    upstream.expect("01234");
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc");
    client.response_head("POST");
    client.expect("abc");
    client.send("56789");
    upstream.expect("56789");
    upstream.send("def");
    client.expect("def");
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    upstream.request();
    upstream.send(ok("next"));
    assert_eq!(client.response("GET").text(), "next");
}

/// An echo: request and response bodies flow at the same time, far beyond what buffers hold.
fn both_bodies_at_once(mode: Mode) {
    const LENGTH: u64 = 64 << 20;
    let (proxy, origin) = start(mode);
    let head = format!("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: {LENGTH}\r\n\r\n");
    let (mut client, mut upstream) = open(&proxy, &origin, &head);
    let mut sender = Wire::new(client.socket().try_clone().expect("a second handle"));
    std::thread::scope(|scope| {
        scope.spawn(move || send_bytes(&mut sender, LENGTH));
        scope.spawn(move || {
            upstream.send(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n"
            ));
            for _ in 0..LENGTH >> 16 {
                let part = upstream.read(1 << 16);
                upstream.send(part);
            }
        });
        assert_eq!(
            client.response_head("POST").framing,
            Framing::Length(LENGTH)
        );
        for _ in 0..LENGTH >> 20 {
            assert!(
                client.read(1 << 20).iter().all(|byte| *byte == b'.'),
                "other bytes than were sent"
            );
        }
    });
}

fn send_bytes(wire: &mut Wire, length: u64) {
    let part = vec![b'.'; 1 << 20];
    for _ in 0..length >> 20 {
        wire.send(&part);
    }
}

#[track_caller]
fn expect_no_growth(proxy: &Proxy, before: u64) {
    let now = proxy.resident();
    assert!(now < before + GROWTH_AT_MOST, "grew from {before} to {now}");
}

fn download_back_pressure(mode: Mode) {
    const LENGTH: u64 = 256 << 20;
    let (proxy, origin) = start(mode);
    let (mut client, mut upstream) = open(&proxy, &origin, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let before = proxy.resident();
    upstream.send(format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n"
    ));
    let sent = upstream.send_until_full(
        &vec![b'.'; 1 << 16],
        Duration::from_millis(300),
        LENGTH as usize,
    );
    assert!(
        sent < HELD_AT_MOST,
        "{sent} bytes were taken from the origin for a client that does not read"
    );
    expect_no_growth(&proxy, before);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let left = LENGTH as usize - sent;
            upstream.send(vec![b'.'; left]);
        });
        client.response_head("GET");
        client.skip(LENGTH);
    });
}

fn upload_back_pressure(mode: Mode) {
    const LENGTH: u64 = 256 << 20;
    let (proxy, origin) = start(mode);
    let head = format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {LENGTH}\r\n\r\n");
    let (mut client, mut upstream) = open(&proxy, &origin, &head);
    let before = proxy.resident();
    let sent = client.send_until_full(
        &vec![b'.'; 1 << 16],
        Duration::from_millis(300),
        LENGTH as usize,
    );
    assert!(
        sent < HELD_AT_MOST,
        "{sent} bytes were taken from the client for an origin that does not read"
    );
    expect_no_growth(&proxy, before);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let left = LENGTH as usize - sent;
            client.send(vec![b'.'; left]);
        });
        upstream.skip(LENGTH);
    });
    upstream.send(ok("taken"));
    assert_eq!(client.response("PUT").text(), "taken");
}

/// More than 32 bits count, in memory that does not grow.
fn huge_download(mode: Mode) {
    let length: u64 = if mode == Mode::Uring {
        (4 << 30) + (64 << 20)
    } else {
        1 << 30
    };
    let (proxy, origin) = start(mode);
    let (mut client, mut upstream) = open(&proxy, &origin, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let before = proxy.resident();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            upstream.send(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n"
            ));
            send_bytes(&mut upstream, length);
        });
        client.response_head("GET");
        client.skip(length / 2);
        expect_no_growth(&proxy, before);
        client.skip(length / 2);
    });
    expect_no_growth(&proxy, before);
}

fn huge_upload(mode: Mode) {
    let length: u64 = 1 << 30;
    let (proxy, origin) = start(mode);
    let (mut client, mut upstream) = open(
        &proxy,
        &origin,
        "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
    );
    let before = proxy.resident();
    let mut chunk = b"100000\r\n".to_vec();
    chunk.extend(vec![b'.'; 1 << 20]);
    chunk.extend(b"\r\n");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..length >> 20 {
                client.send(&chunk);
            }
            client.send("0\r\n\r\n");
        });
        skip_chunks(&mut upstream, length);
    });
    expect_no_growth(&proxy, before);
    upstream.send(ok("taken"));
    assert_eq!(client.response("PUT").text(), "taken");
}

/// Reads a chunked body to its end without keeping it.
#[track_caller]
fn skip_chunks(wire: &mut Wire, expected: u64) {
    let mut total = 0;
    loop {
        let line = wire.read_until(b"\r\n");
        let size = u64::from_str_radix(
            std::str::from_utf8(&line[..line.len() - 2]).expect("digits"),
            16,
        )
        .expect("a size");
        wire.skip(size);
        wire.expect("\r\n");
        total += size;
        if size == 0 {
            assert_eq!(total, expected);
            return;
        }
    }
}

/// A receive right after the first byte arrived sees all that left in the same write.
fn head_and_body_leave_in_one_write(mode: Mode) {
    let (proxy, origin) = start(mode);
    let mut client = proxy.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
    let mut upstream = origin.accept();
    upstream
        .receive_within(support::PATIENCE)
        .expect("a request");
    assert!(
        upstream.unread().ends_with(b"\r\n\r\nhello"),
        "first segment: {}",
        upstream.unread().escape_ascii()
    );
    upstream.request();
    upstream.send(ok("world"));
    client
        .receive_within(support::PATIENCE)
        .expect("a response");
    assert!(
        client.unread().ends_with(b"\r\n\r\nworld"),
        "first segment: {}",
        client.unread().escape_ascii()
    );
    client.response("POST");

    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    upstream.request();
    upstream.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nworld\r\n0\r\n\r\n");
    client
        .receive_within(support::PATIENCE)
        .expect("a response");
    assert!(
        client.unread().ends_with(b"world\r\n0\r\n\r\n"),
        "first segment: {}",
        client.unread().escape_ascii()
    );
}

/// A client that goes away in the middle of a download takes its upstream connection with it.
fn client_gone_frees_the_upstream(mode: Mode) {
    let (proxy, origin) = start(mode);
    for reset in [false, true] {
        let (mut client, mut upstream) = open(&proxy, &origin, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        upstream.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
        client.response_head("GET");
        if reset {
            client.reset();
        } else {
            drop(client);
        }
        let ended = (0..500).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            upstream.try_send("5\r\nhello\r\n").is_err()
        });
        assert!(ended, "the proxy still reads for a client that is gone");
        origin.expect_nobody();
    }
}

fn many_small_chunks(mode: Mode) {
    let (proxy, origin) = start(mode);
    let (mut client, mut upstream) = open(&proxy, &origin, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let body = "1\r\n.\r\n".repeat(100_000) + "0\r\n\r\n";
    std::thread::scope(|scope| {
        scope.spawn(|| {
            upstream.send(format!(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{body}"
            ));
        });
        let response = client.response("GET");
        assert_eq!(response.body.len(), 100_000);
    });
    client.expect_silence(QUIET);
}

/// The origin has answered all and reads no more: what is left of the request must not be taken for the next, on neither side.
fn complete_response_to_half_a_request(mode: Mode) {
    let (proxy, origin) = start(mode);
    let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 39\r\n\r\n";
    let (mut client, mut upstream) = open(&proxy, &origin, head);
    client.send("GET /smuggled ");
    upstream.expect("GET /smuggled ");
    upstream.send(ok("enough"));
    assert_eq!(client.response("POST").text(), "enough");
    let mut other = proxy.connect();
    other.send("GET /other HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut fresh = origin.accept(); // the first connection is in the middle of a request
    assert_eq!(fresh.request().target, "/other");
    client.try_send("HTTP/1.1\r\nHost: evil\r\n\r\n").ok();
    upstream.receive_within(QUIET).ok();
    let rest = String::from_utf8_lossy(upstream.unread()).into_owned();
    assert!(
        "HTTP/1.1\r\nHost: evil\r\n\r\n".starts_with(&rest),
        "{rest:?}"
    );
    fresh.send(ok("other"));
    assert_eq!(other.response("GET").text(), "other");
    origin.expect_nobody();
}

/// RFC 9112 section 9.6: closing at once would reset the connection, and the answer could be lost with it.
fn answer_reaches_a_client_that_still_sends(mode: Mode) {
    let origin = Origin::bind();
    let proxy = Config::new(mode)
        .tables("[limits]\nbody = \"100MiB\"")
        .upstream(&[&origin.address], "")
        .start();
    for length in [8_u64 << 20, 200 << 20] {
        let head = format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
        let mut client = proxy.connect();
        let mut sender = Wire::new(client.socket().try_clone().expect("a second handle"));
        std::thread::scope(|scope| {
            scope.spawn(move || {
                sender.try_send(&head).ok();
                sender.try_send(vec![b'.'; 8 << 20]).ok();
            });
            if length == 8 << 20 {
                let mut upstream = origin.accept();
                upstream.request_head();
                upstream.send("HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 3\r\n\r\nbig");
                upstream.finish_sending();
                assert_eq!(client.response("PUT").text(), "big");
            } else {
                assert_eq!(client.response("PUT").status, 413); // ours
            }
        });
    }
}

fn origin_dies_during_an_upload(mode: Mode) {
    let (proxy, origin) = start(mode);
    for reset in [false, true] {
        let head = "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n";
        let (mut client, mut upstream) = open(&proxy, &origin, head);
        client.send("some");
        upstream.expect("some");
        if reset {
            upstream.reset();
        } else {
            drop(upstream);
        }
        let response = client.response("PUT");
        assert_eq!(response.status, 502);
        assert!(
            response.head.lists("connection", "close"),
            "{:?}",
            response.head
        );
        client.expect_end();
        origin.expect_nobody();
    }
}

/// A client that reset its connection while the origin thinks does not hold on to the origin.
fn client_gone_before_the_answer(mode: Mode) {
    let (proxy, origin) = start(mode);
    let (client, mut upstream) = open(&proxy, &origin, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    client.reset();
    upstream.expect_end_within(Duration::from_secs(3));
}

fn all_that_a_server_gets_is_counted(mode: Mode) {
    const LENGTH: usize = 1_000_000;
    let origin = Origin::bind_narrow();
    let proxy = Config::new(mode)
        .tables("[admin]\naddress = \"127.0.0.1:0\"")
        // No send takes all that there is.
        .upstream(&[&origin.address], "send_buffer = \"4KiB\"")
        .start();
    let mut expected = 0;
    for (field, last) in [
        (format!("Content-Length: {LENGTH}"), ""),
        ("Transfer-Encoding: chunked".to_owned(), "\r\n0\r\n\r\n"),
    ] {
        let first = if last.is_empty() {
            String::new()
        } else {
            format!("{LENGTH:x}\r\n")
        };
        let mut client = proxy.connect();
        client.send(format!("PUT / HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n"));
        let mut upstream = origin.accept();
        expected += upstream.read_until(b"\r\n\r\n").len();
        let sender = std::thread::spawn(move || {
            client.send(format!("{first}{}{last}", "x".repeat(LENGTH)));
            client
        });
        if last.is_empty() {
            expected += upstream.read(LENGTH).len();
        } else {
            expected += upstream.read_until(b"\r\n0\r\n\r\n").len();
        }
        upstream.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\nfine");
        let mut client = sender.join().expect("all was sent");
        assert_eq!(client.response("PUT").text(), "fine");
        eventually("all is counted", || {
            proxy.server(0)["bytes_out"].as_u64() == Some(expected as u64)
        });
    }
}
