//! How a connection that has had a request is waited for: whatever comes next, and however it falls together, is noticed at once.

mod support;

use std::time::{Duration, Instant};

use support::{Config, Mode, Origin, Proxy, Served, Wire, eventually, in_each_mode, ok};

in_each_mode!(
    a_request_after_a_while,
    a_request_and_the_end_together,
    an_end_alone,
    urgent_data_between_requests,
    bursts_longer_than_a_receive,
    a_body_and_what_follows_it,
    a_head_in_two_parts,
    an_empty_line_behind_the_last_body,
    many_at_once,
    places_of_closed_connections,
);

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
/// What the proxy receives at once of a request, and of a body after that.
const RECEIVES: [usize; 2] = [64 * 1024, 128 * 1024 - 32];

fn start(mode: Mode) -> (Proxy, Served) {
    let origin = Origin::bind().serve(|request| ok(&request.body.len().to_string()));
    let proxy = Config::new(mode)
        .tables("[admin]\naddress = \"127.0.0.1:0\"")
        .upstream(&[&origin.address], "")
        .start();
    (proxy, origin)
}

/// A client that has had an answer and is waited for.
fn used(proxy: &Proxy) -> Wire {
    let mut client = proxy.connect();
    for _ in 0..2 {
        client.send(GET);
        assert_eq!(client.response("GET").text(), "0");
    }
    client
}

/// Has all of it arrive while the proxy stands still.
fn at_once(proxy: &Proxy, arrive: impl FnOnce()) {
    proxy.suspend();
    arrive();
    proxy.resume();
}

fn a_request_after_a_while(mode: Mode) {
    let (proxy, _origin) = start(mode);
    let mut client = used(&proxy);
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(150));
        client.send(GET);
        assert_eq!(client.response("GET").text(), "0");
    }
}

fn a_request_and_the_end_together(mode: Mode) {
    let (proxy, _origin) = start(mode);
    let mut client = used(&proxy);
    let begun = Instant::now();
    at_once(&proxy, || {
        client.send(GET);
        client.finish_sending();
    });
    assert_eq!(client.response("GET").text(), "0");
    client.expect_end();
    assert!(begun.elapsed() < Duration::from_secs(5), "not by a timeout");
}

fn an_end_alone(mode: Mode) {
    let (proxy, _origin) = start(mode);
    let clients: Vec<Wire> = (0..8).map(|_| used(&proxy)).collect();
    for (number, client) in clients.into_iter().enumerate() {
        if number % 2 == 0 {
            client.reset();
        }
    }
    eventually("all are gone", || {
        proxy.status()["totals"]["connections"] == 0
    });
}

/// A receive stops there, whatever follows.
fn urgent_data_between_requests(mode: Mode) {
    let (proxy, _origin) = start(mode);
    let mut client = used(&proxy);
    for _ in 0..2 {
        at_once(&proxy, || {
            client.send(GET);
            client.socket().send_out_of_band(b"!").expect("room");
            client.send(GET);
        });
        for _ in 0..2 {
            assert_eq!(client.response("GET").text(), "0");
        }
    }
}

fn bursts_longer_than_a_receive(mode: Mode) {
    let (proxy, _origin) = start(mode);
    let mut client = used(&proxy);
    // A receive takes a whole number of them.
    let request = GET.replacen('/', &format!("/{}", "x".repeat(4096 - GET.len())), 1);
    assert_eq!(request.len(), 4096);
    for receives in 1..4 {
        let count = receives * RECEIVES[0] / request.len();
        at_once(&proxy, || client.send(request.repeat(count)));
        for _ in 0..count {
            assert_eq!(client.response("GET").text(), "0");
        }
        client.send(GET);
        assert_eq!(client.response("GET").text(), "0");
    }
}

fn a_body_and_what_follows_it(mode: Mode) {
    let (proxy, _origin) = start(mode);
    let mut client = used(&proxy);
    for end in [RECEIVES[0], RECEIVES[0] + RECEIVES[1], 40_000] {
        let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 000000\r\n\r\n";
        let length = end - head.len();
        let post = head.replace("000000", &format!("{length:06}")) + &"b".repeat(length);
        assert_eq!(post.len(), end);
        at_once(&proxy, || client.send(post + GET));
        assert_eq!(client.response("POST").text(), length.to_string());
        assert_eq!(client.response("GET").text(), "0");
        client.send(GET);
        assert_eq!(client.response("GET").text(), "0");
    }
}

/// The close must not take the answer with it.
fn an_empty_line_behind_the_last_body(mode: Mode) {
    const LENGTH: usize = 3_000_000;
    let origin = Origin::bind();
    let proxy = Config::new(mode).upstream(&[&origin.address], "").start();
    let mut client = proxy.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi");
    let mut upstream = origin.accept();
    assert_eq!(upstream.request().body, b"hi");
    client.send("\r\n");
    upstream.send(ok(&"x".repeat(LENGTH)));
    // What it has not read when the proxy is done with the answer is what a reset would take.
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(client.response("POST").body.len(), LENGTH);
    client.expect_end();
}

fn a_head_in_two_parts(mode: Mode) {
    let (proxy, _origin) = start(mode);
    let mut client = used(&proxy);
    for end in [1, 5, GET.len() - 1] {
        client.send(&GET[..end]);
        std::thread::sleep(Duration::from_millis(30));
        client.send(&GET[end..]);
        assert_eq!(client.response("GET").text(), "0");
        client.send(GET);
        assert_eq!(client.response("GET").text(), "0");
    }
}

/// More than are told of at once.
fn many_at_once(mode: Mode) {
    let (proxy, _origin) = start(mode);
    let mut clients: Vec<Wire> = (0..600).map(|_| used(&proxy)).collect();
    for _ in 0..2 {
        at_once(&proxy, || {
            for client in &mut clients {
                client.send(GET);
            }
        });
        for client in &mut clients {
            assert_eq!(client.response("GET").text(), "0");
        }
    }
}

/// Clients come and go, and those that come take the places of those that went.
fn places_of_closed_connections(mode: Mode) {
    let (proxy, _origin) = start(mode);
    for _ in 0..20 {
        let mut clients: Vec<Wire> = (0..8).map(|_| used(&proxy)).collect();
        at_once(&proxy, || {
            // Half of them leave with a request under way.
            for (number, client) in clients.iter_mut().enumerate() {
                if number % 2 == 0 {
                    client.send(GET);
                }
            }
            clients.truncate(4);
        });
        for client in &mut clients {
            client.send(GET);
        }
        for (number, mut client) in clients.into_iter().enumerate() {
            for _ in 0..=usize::from(number % 2 == 0) {
                assert_eq!(client.response("GET").text(), "0");
            }
        }
    }
}
