//! A client that goes away while it waits frees the server's connection within a second, however it went; one that has only finished sending
//! gets its answer (RFC 9112 section 9.6).

mod support;

use std::time::{Duration, Instant};

use support::{Config, Mode, Origin, Proxy, QUIET, Wire, eventually, in_each_mode, ok};

in_each_mode!(
    closed_while_waiting,
    closed_after_an_upload_in_pieces,
    reset_while_the_upload_is_stuck,
    closed_while_the_end_of_the_upload_is_stuck,
    gone_while_what_came_with_the_head_is_stuck,
    reset_in_the_middle_of_an_answer,
    reset_in_the_middle_of_an_answer_that_was_put_aside,
    half_closed_client_is_asked_once_and_served,
    half_closed_client_is_asked_once_in_all_attempts,
    half_closed_client_with_a_pipeline,
    half_closed_client_of_http_1_0,
    closed_while_connecting,
    half_closed_while_connecting,
    checks_can_be_turned_off,
    checks_can_be_rarer,
);

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const QUESTION: &str = "HTTP/1.1 100 Continue\r\n\r\n";

fn start(mode: Mode, timeouts: &str) -> (Proxy, Origin) {
    let origin = Origin::bind();
    let proxy = Config::new(mode)
        .tables(&format!("[timeouts]\n{timeouts}"))
        .upstream(&[&origin.address], "")
        .start();
    (proxy, origin)
}

/// A client whose request the origin has and thinks about.
fn waiting(proxy: &Proxy, origin: &Origin, request: &str) -> (Wire, Wire) {
    let mut client = proxy.connect();
    client.send(request);
    let mut upstream = origin.accept();
    upstream.request();
    (client, upstream)
}

#[track_caller]
fn expect_freed_within_a_second(upstream: &mut Wire, since: Instant) {
    upstream.expect_end_within(Duration::from_secs(3));
    let took = since.elapsed();
    assert!(took < Duration::from_millis(1100), "after {took:?}");
}

/// How a client leaves.
#[derive(Clone, Copy, Debug)]
enum Leaves {
    Close,
    Reset,
}

impl Leaves {
    fn leave(self, client: Wire) -> Instant {
        match self {
            Self::Close => drop(client),
            Self::Reset => client.reset(),
        }
        Instant::now()
    }
}

fn closed_while_waiting(mode: Mode) {
    let (proxy, origin) = start(mode, "");
    for leaves in [Leaves::Close, Leaves::Reset] {
        for pause in [0, 700] {
            let (client, mut upstream) = waiting(&proxy, &origin, GET);
            std::thread::sleep(Duration::from_millis(pause));
            expect_freed_within_a_second(&mut upstream, leaves.leave(client));
        }
    }
}

fn closed_after_an_upload_in_pieces(mode: Mode) {
    let (proxy, origin) = start(mode, "");
    for leaves in [Leaves::Close, Leaves::Reset] {
        let mut client = proxy.connect();
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello");
        let mut upstream = origin.accept();
        upstream.request_head();
        client.send("world");
        upstream.expect("helloworld");
        upstream.expect_silence(QUIET);
        expect_freed_within_a_second(&mut upstream, leaves.leave(client));
    }
}

/// The server takes nothing more of the body, so the proxy takes nothing more from the client.
fn reset_while_the_upload_is_stuck(mode: Mode) {
    let (proxy, origin) = start(mode, "");
    let mut client = proxy.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n");
    let upstream = origin.accept();
    client.send_until_full(&vec![0; 65536], Duration::from_millis(300), 1 << 30);
    expect_ended_within_a_second(&upstream, Leaves::Reset.leave(client));
}

/// What was sent is still to be read, so the end shows by the socket's state.
#[track_caller]
fn expect_ended_within_a_second(upstream: &Wire, since: Instant) {
    while !is_ended(upstream) {
        assert!(
            since.elapsed() < Duration::from_millis(1100),
            "not freed in time"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// One segment of loopback, and more than fits between a proxy and a server that are [`narrow`].
const BODY: usize = 30_000;

/// A proxy and a server with small buffers between them.
fn narrow(mode: Mode) -> (Proxy, Origin) {
    let origin = Origin::bind_narrow();
    let proxy = Config::new(mode)
        .tables("[admin]\naddress = \"127.0.0.1:0\"\n")
        .upstream(&[&origin.address], "send_buffer = 4096")
        .start();
    (proxy, origin)
}

/// The proxy has the whole body, and the client goes in good order.
fn closed_while_the_end_of_the_upload_is_stuck(mode: Mode) {
    let (proxy, origin) = narrow(mode);
    let mut client = proxy.connect();
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {BODY}\r\n\r\n"
    ));
    let mut upstream = origin.accept();
    upstream.request_head();
    client.send(vec![b'x'; BODY]);
    eventually("the proxy has taken the body", || {
        proxy.status()["totals"]["bytes_in"].as_u64() > Some(BODY as u64)
    });
    expect_ended_within_a_second(&upstream, Leaves::Close.leave(client));
}

/// The server takes nothing of a request that came in one piece, which is no fault of its own when the client leaves.
fn gone_while_what_came_with_the_head_is_stuck(mode: Mode) {
    let (proxy, origin) = narrow(mode);
    let head = format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {BODY}\r\n\r\n");
    for leaves in [Leaves::Close, Leaves::Reset] {
        let mut client = proxy.connect();
        client.send([head.as_bytes(), &vec![b'x'; BODY]].concat());
        let upstream = origin.accept();
        eventually("the server has begun to take the request", || {
            upstream
                .socket()
                .peek(&mut [std::mem::MaybeUninit::uninit()])
                .is_ok()
        });
        leaves.leave(client);
        eventually("the server's connection has ended", || is_ended(&upstream));
        eventually("its place is free", || {
            proxy.status()["upstreams"][0]["servers"][0]["active"] == 0
        });
    }
    let status = proxy.status();
    assert_eq!(
        status["upstreams"][0]["servers"][0]["failures"]["response_timeout"], 0,
        "{status}"
    );
    assert_eq!(
        status["totals"]["timeouts"]["response_header"], 0,
        "{status}"
    );
}

/// Whether the peer has ended this connection, although what it sent before is still to be read: the kernel has no such connection any more,
/// or has it in another state than ESTABLISHED (proc(5)).
fn is_ended(wire: &Wire) -> bool {
    let Some(peer) = wire
        .socket()
        .peer_addr()
        .ok()
        .and_then(|peer| peer.as_socket())
    else {
        return true;
    };
    let remote = format!(":{:04X}", peer.port());
    let table = std::fs::read_to_string("/proc/net/tcp").expect("proc(5)");
    !table.lines().any(|line| {
        let mut fields = line.split_ascii_whitespace().skip(2);
        fields.next().is_some_and(|field| field.ends_with(&remote)) && fields.next() == Some("01")
    })
}

fn reset_in_the_middle_of_an_answer(mode: Mode) {
    let (proxy, origin) = start(mode, "");
    let (mut client, mut upstream) = waiting(&proxy, &origin, GET);
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello");
    client.response_head("GET");
    client.expect("hello");
    expect_freed_within_a_second(&mut upstream, Leaves::Reset.leave(client));
}

fn reset_in_the_middle_of_an_answer_that_was_put_aside(mode: Mode) {
    let origin = Origin::bind();
    let proxy = Config::new(mode)
        .upstream(&[&origin.address], "retry_statuses = \"503\"")
        .start();
    let (mut client, mut upstream) = waiting(&proxy, &origin, GET);
    upstream.send("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 10\r\n\r\nhello");
    client.response_head("GET");
    client.expect("hello");
    expect_freed_within_a_second(&mut upstream, Leaves::Reset.leave(client));
}

fn half_closed_client_is_asked_once_and_served(mode: Mode) {
    let (proxy, origin) = start(mode, "");
    let (mut client, mut upstream) = waiting(&proxy, &origin, GET);
    client.finish_sending();
    std::thread::sleep(Duration::from_secs(2));
    upstream.send(ok("fine"));
    client.expect(QUESTION);
    assert_eq!(client.response("GET").text(), "fine");
    client.expect_close();
}

fn half_closed_client_is_asked_once_in_all_attempts(mode: Mode) {
    let (first, second) = (Origin::bind(), Origin::bind());
    let proxy = Config::new(mode)
        .upstream(
            &[&first.address, &second.address],
            "policy = \"first\"\nretries = 1",
        )
        .start();
    let (mut client, upstream) = waiting(&proxy, &first, GET);
    client.finish_sending();
    client.expect(QUESTION);
    drop(upstream);
    let mut upstream = second.accept();
    upstream.request();
    client.expect_silence(Duration::from_millis(1500));
    upstream.send(ok("fine"));
    assert_eq!(client.response("GET").text(), "fine");
    client.expect_close();
}

/// Each request of a pipeline has its own question.
fn half_closed_client_with_a_pipeline(mode: Mode) {
    let (proxy, origin) = start(mode, "");
    let mut client = proxy.connect();
    client.send(GET.repeat(2));
    client.finish_sending();
    let mut upstream = origin.accept();
    upstream.request();
    upstream.send(ok("first"));
    assert_eq!(client.response("GET").text(), "first");
    upstream.request();
    std::thread::sleep(Duration::from_millis(1200));
    upstream.send(ok("second"));
    client.expect(QUESTION);
    assert_eq!(client.response("GET").text(), "second");
    client.expect_close();
}

/// HTTP/1.0 has no interim responses.
fn half_closed_client_of_http_1_0(mode: Mode) {
    let (proxy, origin) = start(mode, "");
    let (mut client, mut upstream) = waiting(&proxy, &origin, "GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    client.finish_sending();
    std::thread::sleep(Duration::from_millis(1500));
    upstream.send(ok("fine"));
    assert_eq!(client.response("GET").text(), "fine");
    client.expect_close();
}

/// Servers that nobody can connect to.
type Holes = [(Origin, Vec<Wire>); 3];

/// A proxy before such servers.
fn before_black_holes(mode: Mode, connect_timeout: &str) -> (Proxy, Holes) {
    let holes = [(); 3].map(|()| Origin::black_hole());
    let servers = holes.each_ref().map(|(origin, _)| origin.address.as_str());
    let proxy = Config::new(mode)
        .tables("[admin]\naddress = \"127.0.0.1:0\"")
        .upstream(
            &servers,
            &format!("connect_timeout = \"{connect_timeout}\""),
        )
        .start();
    (proxy, holes)
}

/// Connections to servers that are open or being opened.
fn connecting(proxy: &Proxy) -> u64 {
    let servers = proxy.upstream()["servers"].clone();
    let servers = servers.as_array().expect("a list").iter();
    servers.filter_map(|server| server["open"].as_u64()).sum()
}

/// Not even attempts that follow one another in haste put the look off.
fn closed_while_connecting(mode: Mode) {
    for connect_timeout in ["20s", "400ms"] {
        for leaves in [Leaves::Close, Leaves::Reset] {
            let (proxy, _holes) = before_black_holes(mode, connect_timeout);
            for request in [
                GET,
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello",
            ] {
                let mut client = proxy.connect();
                client.send(request);
                eventually("it connects", || connecting(&proxy) == 1);
                let since = leaves.leave(client);
                eventually("it is given up", || connecting(&proxy) == 0);
                let took = since.elapsed();
                // The status page tells it a little later.
                assert!(took < Duration::from_millis(1500), "after {took:?}");
            }
            let status: serde_json::Value =
                serde_json::from_str(&proxy.page("/lb/status")).expect("JSON");
            let answers = &status["totals"]["own_answers"];
            assert_eq!(*answers, serde_json::json!({}), "nobody was there");
        }
    }
}

fn half_closed_while_connecting(mode: Mode) {
    let (proxy, _holes) = before_black_holes(mode, "800ms");
    let mut client = proxy.connect();
    client.send(GET);
    client.finish_sending();
    client.expect(QUESTION);
    assert_eq!(client.response("GET").status, 504);
}

fn checks_can_be_turned_off(mode: Mode) {
    let (proxy, origin) = start(mode, "client_gone_check = \"off\"");
    let (client, mut upstream) = waiting(&proxy, &origin, GET);
    client.reset();
    upstream.expect_silence(Duration::from_millis(1500));
}

fn checks_can_be_rarer(mode: Mode) {
    let (proxy, origin) = start(mode, "client_gone_check = \"2s\"");
    let (client, mut upstream) = waiting(&proxy, &origin, GET);
    client.reset();
    upstream.expect_silence(Duration::from_millis(1500));
    upstream.expect_end_within(support::PATIENCE);
}
