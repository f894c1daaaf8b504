//! The status listener over real sockets.

mod fixture;
mod metrics;
mod status;

use std::io::{Read, Write};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crate::fixture::{connect, exchange, filled, get, read_answer, start, view};

#[test]
fn each_page_answers_to_get_and_head_alike() {
    let (_, admin) = filled();
    let pages = [
        ("/", "text/plain; charset=utf-8"),
        ("/lb/", "text/html; charset=utf-8"),
        ("/lb/page.css", "text/css; charset=utf-8"),
        ("/lb/page.js", "text/javascript; charset=utf-8"),
        ("/lb/steer.js", "text/javascript; charset=utf-8"),
        ("/lb/icon.svg", "image/svg+xml"),
        ("/lb/status", "application/json"),
        ("/metrics", "text/plain; version=0.0.4; charset=utf-8"),
        ("/healthz", "text/plain; charset=utf-8"),
    ];
    for (path, content_type) in pages {
        let answer = get(&admin, &format!("{path}?ignored=1"));
        assert_eq!(answer.status, 200, "{path}");
        for field in [
            format!("\r\nContent-Type: {content_type}\r\n"),
            format!("\r\nContent-Length: {}\r\n", answer.body.len()),
            "\r\nConnection: close\r\n".into(),
            "\r\nContent-Security-Policy: default-src 'none'; script-src 'self'; ".into(),
            "\r\nDate: ".into(),
        ] {
            assert!(answer.head.contains(&field), "{field} in {}", answer.head);
        }
        let head = exchange(
            &admin,
            &format!("HEAD {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        );
        assert_eq!((head.status, head.body.as_str()), (200, ""), "{path}");
        assert!(
            head.head
                .contains(&format!("\r\nContent-Type: {content_type}\r\n")),
            "{path}"
        );
    }
}

#[test]
fn other_requests_are_refused() {
    let (_, admin) = filled();
    let cases = [
        (
            "POST /lb/status HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}",
            405,
        ),
        ("POST /lb/page.js HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
        ("DELETE / HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
        ("GET /lb/status/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (
            "GET /../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n",
            404,
        ),
        ("OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (
            "GET /lb/status HTTP/1.1\r\nHost: attacker.example\r\n\r\n",
            421,
        ),
        (
            "GET http://attacker.example/lb/status HTTP/1.1\r\nHost: localhost\r\n\r\n",
            421,
        ),
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("nonsense\r\n\r\n", 400),
        ("GET / HTTP/1.0\r\n\r\n", 200),
        ("HEAD / HTTP/1.1\r\n\r\n", 400),
        ("\r\nHEAD / HTTP/2.0\r\n\r\n", 505),
        ("HEAD /lb/status/ HTTP/1.0\r\n\r\n", 404),
    ];
    for (request, status) in cases {
        let answer = exchange(&admin, request);
        assert_eq!(answer.status, status, "{request:?}: {}", answer.body);
        let to_head = request.contains("HEAD");
        assert_eq!(answer.body.is_empty(), to_head, "{request:?}");
        assert_eq!(
            answer.head.contains("\r\nAllow: GET, HEAD\r\n"),
            status == 405,
            "{request:?}"
        );
    }
}

#[test]
fn health_is_that_of_the_process() {
    let view = view();
    let admin = start(&view);
    assert_eq!(get(&admin, "/healthz").status, 503, "no shard runs yet");
    view.shards[1].begin(1, None);
    assert_eq!(get(&admin, "/healthz").status, 200);
    view.draining.store(true, Relaxed);
    assert_eq!(get(&admin, "/healthz").status, 503);
    assert!(
        get(&admin, "/lb/status")
            .body
            .contains("\"draining\": true")
    );
}

#[test]
fn slow_clients_hold_up_nobody_else() {
    let (_, admin) = filled();
    let slow: Vec<_> = (0..60).map(|_| connect(&admin)).collect();
    for (number, mut stream) in slow.iter().enumerate() {
        stream
            .write_all(&b"GET /metrics HTTP/1.1\r\n"[..number % 20])
            .expect("it reads");
    }
    let start = Instant::now();
    assert_eq!(get(&admin, "/healthz").status, 200);
    assert!(
        start.elapsed() < Duration::from_secs(4),
        "no slow client's timeout was waited for"
    );
    for (number, mut stream) in slow.iter().enumerate() {
        if number % 20 == 0 {
            assert_eq!(
                stream.read(&mut [0]).expect("closed in time"),
                0,
                "nothing was asked"
            );
        } else {
            assert_eq!(read_answer(stream).status, 408);
        }
    }
}
