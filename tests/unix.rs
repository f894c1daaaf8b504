//! Servers behind a Unix socket: `unix:/path`.

mod support;

use support::{Config, Mode, Origin, in_each_mode, ok};

in_each_mode!(
    exchange_over_a_unix_socket,
    socket_that_is_not_there,
    stale_unix_connection,
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
    support::eventually("the socket appears", || proxy.get("/").text() == "fine");
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
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}
