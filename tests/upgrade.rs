//! A 101 answer turns the exchange into a tunnel (RFC 9110 section 7.8, RFC 6455 section 4): bytes both ways, those that came early
//! included, each half closed on its own.

mod support;

use std::time::Duration;

use support::{Config, End, Mode, Origin, Proxy, Wire, eventually, in_each_mode, ok};

in_each_mode!(
    handshake_and_tunnel,
    early_bytes_both_ways,
    much_both_ways,
    client_closes_its_half,
    origin_closes_its_half,
    reset_of_either_side_resets_the_other,
    what_a_gone_server_sent_before_is_delivered,
    what_a_gone_client_sent_before_is_delivered,
    what_a_reset_cuts_off_is_not_whole,
    refused_upgrade_is_a_response,
    upgrade_not_asked_for,
    upgrade_that_connection_does_not_list,
    upgrade_in_http_1_0,
    bytes_are_counted_once_and_as_they_move,
);

const HANDSHAKE: &str = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

fn start(mode: Mode) -> (Proxy, Origin) {
    let origin = Origin::bind();
    let proxy = Config::new(mode).upstream(&[&origin.address], "").start();
    (proxy, origin)
}

/// Both ends of an open tunnel.
fn tunnel(proxy: &Proxy, origin: &Origin) -> (Wire, Wire) {
    let mut client = proxy.connect();
    let upstream = switch(&mut client, origin);
    (client, upstream)
}

/// The other end of this client's tunnel.
fn switch(client: &mut Wire, origin: &Origin) -> Wire {
    client.send(HANDSHAKE);
    let mut upstream = origin.accept();
    upstream.request_head();
    upstream.send(SWITCHED);
    assert_eq!(client.response("GET").status, 101);
    upstream
}

/// Both ends of an open tunnel of which little fits into the kernels' buffers.
fn narrow_tunnel(mode: Mode) -> (Proxy, Wire, Wire) {
    let origin = Origin::bind_narrow();
    let proxy = Config::new(mode)
        .tables("[[listen]]\naddress = \"127.0.0.1:0\"\nsend_buffer = \"4KiB\"")
        .upstream(&[&origin.address], "send_buffer = \"4KiB\"")
        .start();
    let mut client = Wire::connect_narrow(proxy.addresses[0]);
    let upstream = switch(&mut client, &origin);
    (proxy, client, upstream)
}

/// More than what a narrow tunnel takes of what nobody reads, and less than what the proxy's kernel holds beside it.
const PARTING: usize = 60_000;

/// Sends to a peer that is gone, through the proxy: the first is answered with a reset, a later one then finds that.
fn talk_on(wire: &mut Wire) {
    for _ in 0..10 {
        wire.send("anybody there?");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn handshake_and_tunnel(mode: Mode) {
    let (proxy, origin) = start(mode);
    let mut client = proxy.connect();
    client.send(HANDSHAKE);
    let mut upstream = origin.accept();
    let seen = upstream.request();
    assert!(seen.head.lists("connection", "upgrade"), "{:?}", seen.head);
    assert!(seen.head.lists("upgrade", "websocket"), "{:?}", seen.head);
    assert_eq!(
        seen.head.value("sec-websocket-key"),
        Some("dGhlIHNhbXBsZSBub25jZQ==")
    );
    assert_eq!(seen.head.value("sec-websocket-version"), Some("13"));
    upstream.send(SWITCHED);
    let response = client.response("GET");
    assert_eq!(response.status, 101);
    assert!(
        response.head.lists("connection", "upgrade"),
        "{:?}",
        response.head
    );
    assert!(
        response.head.lists("upgrade", "websocket"),
        "{:?}",
        response.head
    );
    assert_eq!(
        response.head.value("sec-websocket-accept"),
        Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
    );
    for number in 0..10_u8 {
        client.send([number, 0, 255, b'\r', b'\n']);
        upstream.expect([number, 0, 255, b'\r', b'\n']);
        upstream.send([b'G', b'E', b'T', number]);
        client.expect([b'G', b'E', b'T', number]);
    }
    drop(client);
    upstream.expect_end();
    origin.expect_nobody();
}

fn early_bytes_both_ways(mode: Mode) {
    let (proxy, origin) = start(mode);
    let mut client = proxy.connect();
    client.send(format!("{HANDSHAKE}early from the client"));
    let mut upstream = origin.accept();
    upstream.request_head();
    upstream.send(format!("{SWITCHED}early from the origin"));
    assert_eq!(client.response("GET").status, 101);
    client.expect("early from the origin");
    upstream.expect("early from the client");
    upstream.send("late");
    client.expect("late");
}

fn client_closes_its_half(mode: Mode) {
    let (proxy, origin) = start(mode);
    let (mut client, mut upstream) = tunnel(&proxy, &origin);
    client.send("last words");
    client.finish_sending();
    upstream.expect("last words");
    upstream.expect_close();
    upstream.send("and an answer");
    client.expect("and an answer");
    drop(upstream);
    client.expect_close();
}

fn origin_closes_its_half(mode: Mode) {
    let (proxy, origin) = start(mode);
    let (mut client, mut upstream) = tunnel(&proxy, &origin);
    upstream.send("last words");
    upstream.finish_sending();
    client.expect("last words");
    client.expect_close();
    client.send("and an answer");
    upstream.expect("and an answer");
    drop(client);
    upstream.expect_close();
}

fn reset_of_either_side_resets_the_other(mode: Mode) {
    let (proxy, origin) = start(mode);
    let (client, mut upstream) = tunnel(&proxy, &origin);
    client.reset();
    assert_eq!(upstream.read_to_end(), (Vec::new(), End::Reset));
    let (mut client, upstream) = tunnel(&proxy, &origin);
    upstream.reset();
    assert_eq!(client.read_to_end(), (Vec::new(), End::Reset));
}

fn what_a_gone_server_sent_before_is_delivered(mode: Mode) {
    let (_proxy, mut client, mut upstream) = narrow_tunnel(mode);
    upstream.send(vec![b'.'; PARTING]);
    drop(upstream);
    talk_on(&mut client);
    client.skip(PARTING as u64);
    client.expect_close();
}

fn what_a_gone_client_sent_before_is_delivered(mode: Mode) {
    let (_proxy, mut client, mut upstream) = narrow_tunnel(mode);
    client.send(vec![b'.'; PARTING]);
    drop(client);
    talk_on(&mut upstream);
    upstream.skip(PARTING as u64);
    upstream.expect_close();
}

/// Whoever of the two directions hears of the reset.
fn what_a_reset_cuts_off_is_not_whole(mode: Mode) {
    for talks in [false, true] {
        let (_proxy, mut client, mut upstream) = narrow_tunnel(mode);
        upstream.send(vec![b'.'; PARTING]);
        upstream.reset();
        if talks {
            talk_on(&mut client);
        }
        assert_eq!(client.read_to_end().1, End::Reset, "{talks}");
        let (_proxy, mut client, mut upstream) = narrow_tunnel(mode);
        client.send(vec![b'.'; PARTING]);
        client.reset();
        if talks {
            talk_on(&mut upstream);
        }
        assert_eq!(upstream.read_to_end().1, End::Reset, "{talks}");
    }
}

/// Both directions full at once: neither waits for the other.
fn much_both_ways(mode: Mode) {
    const LENGTH: usize = 32 << 20;
    let (proxy, origin) = start(mode);
    let (mut client, mut upstream) = tunnel(&proxy, &origin);
    let mut senders = [&client, &upstream]
        .map(|wire| Wire::new(wire.socket().try_clone().expect("a second handle")));
    std::thread::scope(|scope| {
        for sender in &mut senders {
            scope.spawn(move || sender.send(vec![b'.'; LENGTH]));
        }
        scope.spawn(|| client.skip(LENGTH as u64));
        upstream.skip(LENGTH as u64);
    });
}

/// RFC 9110 section 7.8: a server may ignore Upgrade; then the connection is what it was.
fn refused_upgrade_is_a_response(mode: Mode) {
    let (proxy, origin) = start(mode);
    let mut client = proxy.connect();
    client.send(HANDSHAKE);
    let mut upstream = origin.accept();
    upstream.request();
    upstream.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
    assert_eq!(client.response("GET").text(), "no");
    client.send("GET /next HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(upstream.request().target, "/next");
    upstream.send(ok("next"));
    assert_eq!(client.response("GET").text(), "next");
}

/// A tunnel that the client did not ask for would let an origin and a client disagree on where the next request starts.
fn upgrade_not_asked_for(mode: Mode) {
    let (proxy, origin) = start(mode);
    for request in [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n",
    ] {
        let mut client = proxy.connect();
        client.send(request);
        let mut upstream = origin.accept();
        upstream.request();
        upstream.send(SWITCHED);
        assert_eq!(client.response("GET").status, 502);
        upstream.expect_end();
    }
}

/// RFC 9110 section 7.8: Upgrade counts only where Connection lists it.
fn upgrade_that_connection_does_not_list(mode: Mode) {
    let served = Origin::serve_text("fine");
    let proxy = Config::new(mode).upstream(&[&served.address], "").start();
    let mut client = proxy.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n");
    assert_eq!(client.response("GET").status, 200);
    let seen = served.only_request();
    assert!(
        !seen.head.has("upgrade") && !seen.head.lists("connection", "upgrade"),
        "{:?}",
        seen.head
    );
}

/// RFC 9110 section 7.8: Upgrade in an HTTP/1.0 request is ignored.
fn upgrade_in_http_1_0(mode: Mode) {
    let served = Origin::serve_text("fine");
    let proxy = Config::new(mode).upstream(&[&served.address], "").start();
    let mut client = proxy.connect();
    client.send("GET / HTTP/1.0\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert_eq!(client.response("GET").status, 200);
    assert!(!served.only_request().head.has("upgrade"));
    client.expect_end();
}

fn bytes_are_counted_once_and_as_they_move(mode: Mode) {
    let origin = Origin::bind();
    let proxy = Config::new(mode)
        .tables("[admin]\naddress = \"127.0.0.1:0\"\n")
        .upstream(&[&origin.address], "")
        .start();
    let mut client = proxy.connect();
    client.send(format!("{HANDSHAKE}{}", "e".repeat(1000)));
    let mut upstream = origin.accept();
    upstream.request_head();
    let bytes_out = || proxy.server(0)["bytes_out"].as_u64().expect("a number");
    eventually("the head is counted", || bytes_out() > 0);
    let sent = bytes_out();
    upstream.send(format!("{SWITCHED}{}", "s".repeat(100)));
    assert_eq!(client.response("GET").status, 101);
    client.read(100);
    upstream.read(1000);
    client.send([b'u'; 500]);
    upstream.read(500);
    upstream.send([b'd'; 50]);
    client.read(50);
    let totals = &proxy.status()["totals"];
    assert_eq!(totals["bytes_in"], HANDSHAKE.len() + 1000 + 500);
    let server = proxy.server(0);
    assert_eq!(server["bytes_out"], sent + 1000 + 500);
    assert_eq!(server["bytes_in"], SWITCHED.len() + 100 + 50);
}
