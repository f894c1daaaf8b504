//! Connections to servers come from the addresses that the configuration names, and ports that run out are nobody's fault.
//!
//! Ports run out in a network namespace, for which a test runs itself again under unshare(1). Where that is forbidden it says so.

mod support;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use support::{Config, Mode, Origin, Proxy, Wire, eventually, in_each_mode, is_in_own_network, ok};

in_each_mode!(
    sources_take_turns,
    probes_come_from_a_source_too,
    ports_run_out,
    ports_run_out_without_a_source,
);

const ADMIN: &str = "[admin]\naddress = \"127.0.0.1:0\"\n";
const REQUEST: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

fn peer(wire: &Wire) -> SocketAddr {
    let peer = wire.socket().peer_addr().expect("it is connected");
    peer.as_socket().expect("TCP")
}

fn sources_take_turns(mode: Mode) {
    let origin = Origin::bind();
    let proxy = Config::new(mode)
        .upstream(
            &[&origin.address],
            "source = [\"127.0.0.2\", \"127.0.0.3\"]\npool = { max_idle = 0 }",
        )
        .start();
    let mut from = Vec::new();
    for _ in 0..4 {
        let mut client = proxy.connect();
        client.send(REQUEST);
        let mut upstream = origin.accept();
        upstream.request();
        from.push(peer(&upstream).ip().to_string());
        upstream.send(ok("fine"));
        assert_eq!(client.response("GET").text(), "fine");
    }
    assert_eq!(from, ["127.0.0.2", "127.0.0.3", "127.0.0.2", "127.0.0.3"]);
}

/// A server may let in certain addresses only.
fn probes_come_from_a_source_too(mode: Mode) {
    let origin = Origin::bind();
    let _proxy = Config::new(mode)
        .upstream(
            &[&origin.address],
            "source = [\"127.0.0.2\"]\nhealth = { interval = \"100ms\" }",
        )
        .start();
    let mut probe = origin.accept();
    probe.request();
    assert_eq!(peer(&probe).ip().to_string(), "127.0.0.2");
}

#[test]
fn an_address_of_another_machine_ends_the_start() {
    let (status, log) = Config::new(Mode::Epoll)
        .upstream(&["127.0.0.1:9"], "source = [\"192.0.2.1\"]")
        .start_to_fail();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(
        log.contains("upstream app: source 192.0.2.1 cannot be bound")
            && log.contains("an address of this machine"),
        "{log}"
    );
}

/// Ports that connect(2) may choose from, in this namespace.
fn set_ports(range: &str) {
    std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", range).expect("root of the namespace");
}

/// None of those that a listener has by chance: connect(2) leaves such a one out.
const FEW_PORTS: &str = "20000 20003";
const MANY_PORTS: &str = "32768 60999";

fn ports_run_out(mode: Mode) {
    if is_in_own_network("ports_run_out", mode) {
        run_out(
            mode,
            "source = [\"127.0.0.2\", \"127.0.0.3\"]",
            &[("127.0.0.2", 4), ("127.0.0.3", 4)],
        );
    }
}

fn ports_run_out_without_a_source(mode: Mode) {
    if is_in_own_network("ports_run_out_without_a_source", mode) {
        run_out(mode, "", &[("127.0.0.1", 4)]);
    }
}

/// All ports of the sources are used, then there is an answer for those who find none, and then a port is free again.
fn run_out(mode: Mode, source: &str, expected: &[(&str, usize)]) {
    let origin = Origin::bind();
    let proxy = Config::new(mode)
        .tables(ADMIN)
        .upstream(
            &[&origin.address],
            &format!(
                "{source}\npool = {{ max_idle = 0 }}\npassive = {{ fall = 1, max_ejected = 100 }}"
            ),
        )
        .start();
    let room: usize = expected.iter().map(|(_, ports)| ports).sum();
    let mut clients: Vec<Wire> = (0..room).map(|_| proxy.connect()).collect();
    let mut late = proxy.connect();
    set_ports(FEW_PORTS);
    let mut held = Vec::new();
    for client in &mut clients {
        client.send(REQUEST);
        let mut upstream = origin.accept();
        upstream.request();
        held.push(upstream);
    }
    let mut from = BTreeMap::<IpAddr, usize>::new();
    for upstream in &held {
        *from.entry(peer(upstream).ip()).or_default() += 1;
    }
    let address = |text: &str| text.parse::<IpAddr>().expect("an address of the test");
    let expected = expected.iter().map(|(ip, ports)| (address(ip), *ports));
    assert_eq!(from, expected.collect());

    for _ in 0..3 {
        let answer = late.get("/");
        assert_eq!(answer.status, 503);
        assert_eq!(answer.head.value("retry-after"), Some("1"));
        assert!(answer.text().contains("no local port"), "{}", answer.text());
    }
    free_one(&proxy, &mut clients[0], held.remove(0));
    eventually("the port is used again", || {
        late.send(REQUEST);
        let upstream = origin.accept_within(std::time::Duration::from_millis(100));
        let Some(mut upstream) = upstream else {
            assert_eq!(late.response("GET").status, 503);
            return false;
        };
        upstream.request();
        upstream.send(ok("late"));
        assert_eq!(late.response("GET").text(), "late");
        true
    });
    set_ports(MANY_PORTS);
    let server = &proxy.upstream()["servers"][0];
    assert!(
        server["failures"]["no_port"].as_u64() >= Some(3),
        "{server}"
    );
    assert_eq!(server["failures"]["connect_error"], 0);
    assert_eq!(server["state"], "up", "not ejected: {server}");
    for (client, upstream) in clients[1..].iter_mut().zip(&mut held) {
        upstream.send(ok("fine"));
        assert_eq!(client.response("GET").text(), "fine");
    }
    drop(held);
}

/// Ends an exchange without TIME-WAIT.
fn free_one(proxy: &Proxy, client: &mut Wire, mut upstream: Wire) {
    let open = proxy.descriptors();
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine");
    assert_eq!(client.response("GET").text(), "fine");
    upstream.reset();
    eventually("the proxy closes it too", || proxy.descriptors() < open);
}
