//! Servers behind a Unix socket: `unix:/path`.

mod support;

use std::path::Path;
use std::time::{Duration, Instant};

use support::{Config, Mode, Origin, QUIET, Wire, eventually, in_each_mode, ok, took_about};

in_each_mode!(
    exchange_over_a_unix_socket,
    socket_that_is_not_there,
    stale_unix_connection,
    a_full_backlog_is_waited_for,
    a_full_backlog_takes_no_longer_than_a_connection_may,
    a_probe_waits_for_a_full_backlog,
);

fn exchange_over_a_unix_socket(mode: Mode) {
    let config = Config::new(mode);
    let served = Origin::bind_unix(&config.directory().join("app.sock"))
        .serve(|request| ok(&format!("{} {}", request.target, request.body.len())));
    let proxy = config.upstream(&[&served.address], "").start();
    let mut client = proxy.connect();
    for _ in 0..3 {
        assert_eq!(client.get("/path").text(), "/path 0");
        client.send(format!(
            "POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n{}",
            "x".repeat(100_000)
        ));
        assert_eq!(client.response("POST").text(), "/up 100000");
    }
    assert_eq!(served.connections(), 1);
    let seen = served.last_request();
    assert_eq!(seen.head.value("host"), Some("a"));
    assert_eq!(seen.head.value("x-forwarded-for"), Some("127.0.0.1"));
}

fn socket_that_is_not_there(mode: Mode) {
    let config = Config::new(mode);
    let path = config.directory().join("app.sock");
    let address = format!("unix:{}", path.display());
    let proxy = config.upstream(&[&address], "retries = 0").start();
    assert_eq!(proxy.get("/").status, 502);
    let _served = Origin::bind_unix(&path).serve(|_| ok("fine"));
    eventually("the socket appears", || proxy.get("/").text() == "fine");
}

fn stale_unix_connection(mode: Mode) {
    let config = Config::new(mode);
    let origin = Origin::bind_unix(&config.directory().join("app.sock"));
    let proxy = config.upstream(&[&origin.address], "").start();
    let mut client = proxy.connect();
    for _ in 0..3 {
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
        let mut upstream = origin.accept();
        upstream.request();
        upstream.send(ok("fine"));
        assert_eq!(client.response("POST").text(), "fine");
        drop(upstream);
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// An origin that nobody can connect to until it accepts the connection that waits already.
fn bind_full(path: &Path) -> (Origin, Wire) {
    let origin = Origin::bind_unix_with_backlog(path, 0);
    (origin, Wire::connect_unix(path))
}

fn a_full_backlog_is_waited_for(mode: Mode) {
    let config = Config::new(mode);
    let (origin, filler) = bind_full(&config.directory().join("app.sock"));
    let proxy = config.upstream(&[&origin.address], "").start();
    let mut clients = [(); 3].map(|()| proxy.connect());
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    }
    for client in &mut clients {
        client.expect_silence(QUIET);
    }
    drop(filler);
    let _served = origin.serve(|_| ok("fine"));
    for client in &mut clients {
        assert_eq!(client.response("GET").text(), "fine");
    }
}

fn a_full_backlog_takes_no_longer_than_a_connection_may(mode: Mode) {
    let config = Config::new(mode);
    let (origin, _filler) = bind_full(&config.directory().join("app.sock"));
    let proxy = config
        .upstream(&[&origin.address], "connect_timeout = \"500ms\"")
        .start();
    let begin = Instant::now();
    assert_eq!(proxy.get("/").status, 504);
    took_about(begin, Duration::from_millis(500));
}

fn a_probe_waits_for_a_full_backlog(mode: Mode) {
    let config = Config::new(mode);
    let (origin, filler) = bind_full(&config.directory().join("app.sock"));
    let proxy = config
        .tables("[admin]\naddress = \"127.0.0.1:0\"")
        .upstream(
            &[&origin.address],
            "health = { interval = \"5s\", timeout = \"5s\" }",
        )
        .start();
    let last_probe = || proxy.server(0)["last_probe"].clone();
    std::thread::sleep(2 * QUIET);
    assert!(last_probe().is_null(), "{}", last_probe());
    drop(filler);
    let _served = origin.serve(|_| ok("fine"));
    eventually("a probe has ended", || !last_probe().is_null());
    assert_eq!(last_probe()["ok"], true, "{}", last_probe());
}
