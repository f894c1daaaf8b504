//! TCP keepalive: connections to clients and servers have the kernel ask whether a silent peer is still there (tcp(7)).

mod support;

use std::net::SocketAddr;

use support::{Config, Mode, Origin, Proxy, Wire, in_each_mode, ok};

in_each_mode!(
    connections_of_both_sides_ask,
    the_default_is_a_minute,
    it_can_be_turned_off,
);

/// A connection of the proxy's with nothing to do on each side, and the client that it is for.
struct Idle {
    _proxy: Proxy,
    client: Wire,
    upstream: Wire,
}

fn idle(mode: Mode, setting: &str) -> Idle {
    let origin = Origin::bind();
    let proxy = Config::new(mode)
        .tables(&format!("[[listen]]\naddress = \"127.0.0.1:0\"\n{setting}"))
        .upstream(&[&origin.address], setting)
        .start();
    let mut client = proxy.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut upstream = origin.accept();
    upstream.request();
    upstream.send(ok("fine"));
    assert_eq!(client.response("GET").text(), "fine");
    Idle {
        _proxy: proxy,
        client,
        upstream,
    }
}

impl Idle {
    /// Seconds to the next question of the proxy's, to the client and to the server.
    fn next_questions(&self) -> [Option<u64>; 2] {
        [&self.client, &self.upstream].map(next_question_to)
    }
}

/// Seconds until the proxy's kernel asks this peer whether it is there, when its keepalive timer runs.
fn next_question_to(peer: &Wire) -> Option<u64> {
    let socket = peer.socket();
    let [local, remote] = [socket.peer_addr(), socket.local_addr()].map(|address| {
        let address = address.ok().and_then(|address| address.as_socket());
        hexadecimal(address.expect("TCP"))
    });
    // The proxy's end: our remote address is its local one. The sixth field is the kind of timer, 2 for keepalive, and when it goes off
    // in hundredths of a second (Documentation/networking/proc_net_tcp.rst).
    let table = std::fs::read_to_string("/proc/net/tcp").expect("proc(5)");
    let fields = table
        .lines()
        .map(|line| line.split_ascii_whitespace().collect::<Vec<_>>())
        .find(|fields| fields[1..3] == [local.as_str(), remote.as_str()])
        .expect("the proxy's end");
    let (kind, hundredths) = fields[5].split_once(':').expect("two parts");
    let hundredths = u64::from_str_radix(hundredths, 16).expect("hexadecimal");
    (kind == "02").then(|| hundredths.div_ceil(100))
}

/// An IPv4 address and port as proc(5) writes them: the address as a number in the host's order.
fn hexadecimal(address: SocketAddr) -> String {
    let SocketAddr::V4(address) = address else {
        panic!("{address} is not IPv4");
    };
    let number = u32::from_ne_bytes(address.ip().octets());
    format!("{number:08X}:{:04X}", address.port())
}

#[track_caller]
fn expect_about(questions: [Option<u64>; 2], seconds: u64) {
    for question in questions {
        assert!(
            question.is_some_and(|left| (seconds - 15..=seconds).contains(&left)),
            "{questions:?}, expected a little under {seconds} s"
        );
    }
}

fn connections_of_both_sides_ask(mode: Mode) {
    let idle = idle(mode, "tcp_keepalive = \"5m\"\ntcp_user_timeout = \"10s\"");
    expect_about(idle.next_questions(), 300);
}

fn the_default_is_a_minute(mode: Mode) {
    expect_about(idle(mode, "").next_questions(), 60);
}

fn it_can_be_turned_off(mode: Mode) {
    let idle = idle(mode, "tcp_keepalive = \"off\"");
    assert_eq!(idle.next_questions(), [None, None]);
}
