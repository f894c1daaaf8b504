//! SIGTERM and SIGINT: no new connections, idle ones closed, running exchanges finished within `shutdown_timeout`, exit 0. A second signal ends
//! the process at once.

mod support;

use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use support::{
    Config, End, Mode, Origin, PATIENCE, Proxy, QUIET, Wire, eventually, in_each_mode, ok,
    took_about,
};

in_each_mode!(
    running_exchange_is_finished,
    idle_connections_are_closed,
    nobody_new_is_accepted,
    timeout_ends_what_still_runs,
    an_answer_without_length_is_not_ended_in_good_order,
    second_signal_ends_at_once,
    running_upload_is_finished,
    exit_without_any_traffic,
    tunnel_ends_with_the_timeout,
    steady_load_loses_nothing,
    signals_of_others_end_nothing,
    signal_while_it_starts,
);

fn start(mode: Mode, shutdown_timeout: &str) -> (Proxy, Origin) {
    let origin = Origin::bind();
    let key = format!("shutdown_timeout = \"{shutdown_timeout}\"");
    let proxy = Config::new(mode)
        .key(&key)
        .upstream(&[&origin.address], "")
        .start();
    (proxy, origin)
}

/// An exchange whose response is half sent.
fn running(proxy: &Proxy, origin: &Origin) -> (Wire, Wire) {
    let (mut client, mut upstream) = proxy.reach(origin);
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello");
    client.response_head("GET");
    client.expect("hello");
    (client, upstream)
}

#[track_caller]
fn expect_exit_0(proxy: &mut Proxy) {
    assert_eq!(
        proxy.exit_within(PATIENCE).code(),
        Some(0),
        "{}",
        proxy.log().join("\n")
    );
    proxy.expect_no_panic();
}

fn running_exchange_is_finished(mode: Mode) {
    for signal in ["TERM", "INT"] {
        let (mut proxy, origin) = start(mode, "10s");
        let (mut client, mut upstream) = running(&proxy, &origin);
        let mut waiting = proxy.connect();
        waiting.send("GET /waiting HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut second = origin.accept();
        second.request();
        proxy.signal(signal);
        std::thread::sleep(QUIET);
        upstream.send("world");
        client.expect("world");
        client.expect_close();
        second.send(ok("fine"));
        let response = waiting.response("GET");
        assert_eq!(response.text(), "fine");
        assert!(
            response.head.lists("connection", "close"),
            "the last answer says so: {:?}",
            response.head
        );
        waiting.expect_close();
        drop((client, waiting));
        let since = Instant::now();
        expect_exit_0(&mut proxy);
        assert!(
            since.elapsed() < Duration::from_secs(3),
            "nothing was left to wait for"
        );
    }
}

fn running_upload_is_finished(mode: Mode) {
    let (mut proxy, origin) = start(mode, "10s");
    let mut client = proxy.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello");
    let mut upstream = origin.accept();
    upstream.request_head();
    proxy.signal("TERM");
    std::thread::sleep(QUIET);
    client.send("world");
    upstream.expect("helloworld");
    upstream.send(ok("fine"));
    assert_eq!(client.response("POST").text(), "fine");
    client.expect_close();
    drop(client);
    expect_exit_0(&mut proxy);
}

fn idle_connections_are_closed(mode: Mode) {
    let (mut proxy, origin) = start(mode, "10s");
    let mut silent = proxy.connect();
    let (mut client, mut upstream) = proxy.reach(&origin);
    upstream.send(ok("fine"));
    assert_eq!(client.response("GET").text(), "fine");
    let since = Instant::now();
    proxy.signal("TERM");
    client.expect_close();
    silent.expect_end_within(PATIENCE);
    upstream.expect_end();
    expect_exit_0(&mut proxy);
    assert!(
        since.elapsed() < Duration::from_secs(3),
        "{:?} although all were idle",
        since.elapsed()
    );
}

fn nobody_new_is_accepted(mode: Mode) {
    let (mut proxy, origin) = start(mode, "10s");
    let (mut client, mut upstream) = running(&proxy, &origin);
    proxy.signal("TERM");
    std::thread::sleep(QUIET);
    let refused = match Wire::connect_to(&proxy.addresses[0].into()) {
        Err(_) => true,
        Ok(mut wire) => {
            wire.try_send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").ok();
            wire.receive_within(QUIET).ok();
            !wire.unread().starts_with(b"HTTP/1.1 200")
        }
    };
    assert!(refused);
    origin.expect_nobody();
    upstream.send("world");
    client.expect("world");
    expect_exit_0(&mut proxy);
}

fn timeout_ends_what_still_runs(mode: Mode) {
    let (mut proxy, origin) = start(mode, "600ms");
    let (mut client, mut upstream) = running(&proxy, &origin);
    let since = Instant::now();
    proxy.signal("TERM");
    client.expect_end(); // five bytes short, so the client can tell
    upstream.expect_end();
    expect_exit_0(&mut proxy);
    took_about(since, Duration::from_millis(600));
}

fn tunnel_ends_with_the_timeout(mode: Mode) {
    let (mut proxy, origin) = start(mode, "600ms");
    let (mut client, mut upstream) = proxy.tunnel(&origin);
    let since = Instant::now();
    proxy.signal("TERM");
    std::thread::sleep(QUIET);
    client.send("still here");
    upstream.expect("still here");
    client.expect_end();
    expect_exit_0(&mut proxy);
    took_about(since, Duration::from_millis(600));
}

/// The end of the connection would be the end of the body.
fn an_answer_without_length_is_not_ended_in_good_order(mode: Mode) {
    let (mut proxy, origin) = start(mode, "100ms");
    let mut client = proxy.connect();
    client.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    let mut upstream = origin.accept();
    upstream.request();
    upstream.send("HTTP/1.1 200 OK\r\n\r\nhalf of it");
    client.response_head("GET");
    client.expect("half of it");
    proxy.signal("TERM");
    expect_exit_0(&mut proxy);
    assert_eq!(client.read_to_end().1, End::Reset);
}

fn second_signal_ends_at_once(mode: Mode) {
    for (first, second) in [("TERM", "TERM"), ("INT", "INT"), ("TERM", "INT")] {
        let (mut proxy, origin) = start(mode, "60s");
        let (mut client, _upstream) = running(&proxy, &origin);
        proxy.signal(first);
        client.expect_silence(QUIET);
        let since = Instant::now();
        proxy.signal(second);
        proxy.exit_within(Duration::from_secs(2));
        assert!(
            since.elapsed() < Duration::from_secs(1),
            "{:?}",
            since.elapsed()
        );
        client.expect_end();
    }
}

fn exit_without_any_traffic(mode: Mode) {
    let (mut proxy, _origin) = start(mode, "30s");
    let since = Instant::now();
    proxy.signal("TERM");
    expect_exit_0(&mut proxy);
    assert!(
        since.elapsed() < Duration::from_secs(2),
        "{:?}",
        since.elapsed()
    );
}

fn signal_while_it_starts(mode: Mode) {
    let origin = Origin::bind();
    for _ in 0..20 {
        let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = free.local_addr().expect("an address");
        drop(free);
        let mut starting = Config::new(mode)
            .tables(&format!("[[listen]]\naddress = \"{address}\""))
            .upstream(&[&origin.address], "")
            .start_unawaited();
        while TcpStream::connect(address).is_err() {
            std::thread::yield_now();
        }
        starting.signal("TERM");
        expect_exit_0(&mut starting);
    }
}

/// There is no reload yet; to take such a signal for an end would be the worst answer.
fn signals_of_others_end_nothing(mode: Mode) {
    let (mut proxy, origin) = start(mode, "10s");
    let (mut client, mut upstream) = running(&proxy, &origin);
    for (times, signal) in (1..).zip(["HUP", "USR2", "HUP"]) {
        proxy.signal(signal);
        eventually("the log says so", || {
            let log = proxy.log();
            let said = |line: &&String| line.contains("WARN") && line.contains("no reload yet");
            log.iter().filter(said).count() == times
        });
    }
    upstream.send("world");
    client.expect("world");
    proxy.signal("TERM");
    client.expect_close();
    expect_exit_0(&mut proxy);
}

/// Clients that ask all the time while the proxy stops: each answer that begins is complete, and a request without one was not
/// acted on, or its connection was closed between two requests, which any client of persistent connections must expect.
fn steady_load_loses_nothing(mode: Mode) {
    let served = Origin::serve_text("fine");
    let mut proxy = Config::new(mode)
        .key("shutdown_timeout = \"10s\"")
        .upstream(&[&served.address], "")
        .start();
    let address = proxy.addresses[0];
    let answered: usize = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..8)
            .map(|_| scope.spawn(move || ask_until_closed(address)))
            .collect();
        std::thread::sleep(QUIET);
        proxy.signal("TERM");
        clients
            .into_iter()
            .map(|client| client.join().expect("no panic"))
            .sum()
    });
    expect_exit_0(&mut proxy);
    assert_eq!(
        served.requests().len(),
        answered,
        "requests that the origin answered, and answers that clients got"
    );
}

fn ask_until_closed(address: std::net::SocketAddr) -> usize {
    let mut client = Wire::connect(address);
    let mut answered = 0;
    loop {
        if client
            .try_send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            .is_err()
        {
            return answered;
        }
        while client.unread().is_empty() {
            if !client
                .receive_within(PATIENCE)
                .expect("an answer or the end")
            {
                return answered;
            }
        }
        assert_eq!(client.response("GET").text(), "fine");
        answered += 1;
    }
}
