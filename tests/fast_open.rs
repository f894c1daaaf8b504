//! TCP Fast Open to servers (RFC 7413): the first bytes of a request leave with the SYN, so that a server refuses shows only afterwards.
//!
//! The tests need settings of their own, hence a network namespace. Where that is forbidden they say so.

mod support;

use std::process::Command;

use support::{
    Config, Firewall, Mode, Origin, Proxy, Served, Wire, eventually, in_each_mode,
    is_in_own_network, ok,
};

in_each_mode!(
    a_server_that_refuses_is_left_for_another,
    a_body_that_comes_behind_the_head_is_refused_with_it,
    an_address_that_refuses_is_left_for_the_next,
    an_address_that_is_slow_stays,
    an_address_that_vanishes_is_left_for_the_next,
    post_on_a_connection_that_a_firewall_ends,
    upload_on_a_connection_that_a_firewall_ends,
);

/// Both directions, and for listeners that do not ask for it (ip-sysctl, `tcp_fastopen`). Packets are as long as on Ethernet: a SYN does not
/// take all of a long request.
fn set_up() {
    std::fs::write("/proc/sys/net/ipv4/tcp_fastopen", "1027").expect("root of the namespace");
    let mtu = Command::new("ip")
        .args(["link", "set", "lo", "mtu", "1500"])
        .status();
    assert!(mtu.is_ok_and(|status| status.success()), "the MTU is set");
}

fn a_server_that_refuses_is_left_for_another(mode: Mode) {
    if !is_in_own_network("a_server_that_refuses_is_left_for_another", mode) {
        return;
    }
    set_up();
    let (origin, other) = (Origin::bind(), Origin::serve_text("other"));
    let proxy = Config::new(mode)
        .tables("[admin]\naddress = \"127.0.0.1:0\"")
        .upstream(
            &[&origin.address, &other.address],
            "policy = \"first\"\nfast_open = true\npool = { max_idle = 0 }",
        )
        .start();
    get_cookie(&proxy, &origin);
    drop(origin);
    let mut client = proxy.connect();
    for (refused, length) in (1..).zip([10, 8000]) {
        client.send(post(length));
        assert_eq!(client.response("POST").text(), "other");
        let first = proxy.server(0);
        assert_eq!(first["retries"]["connect"], refused, "{first}");
    }
    let failures = &proxy.server(0)["failures"];
    assert_eq!(failures["connect_refused"], 2, "{failures}");
}

/// It is the body's send, then, that meets the refusal.
fn a_body_that_comes_behind_the_head_is_refused_with_it(mode: Mode) {
    if !is_in_own_network("a_body_that_comes_behind_the_head_is_refused_with_it", mode) {
        return;
    }
    set_up();
    let origin = Origin::bind_with_backlog("127.0.0.1:0", 16);
    let other = Origin::serve_text("other");
    let proxy = Config::new(mode)
        .tables("[admin]\naddress = \"127.0.0.1:0\"")
        .upstream(
            &[&origin.address, &other.address],
            "policy = \"first\"\nfast_open = true\nretry_body_bytes = \"16KiB\"\npool = { max_idle = 0 }",
        )
        .start();
    get_cookie(&proxy, &origin);
    let fillers = origin.fill();
    let mut client = proxy.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n");
    eventually("the head has left", || proxy.server(0)["active"] == 1);
    client.send("hello");
    // The next SYN, one second after the first, finds nobody.
    drop((origin, fillers));
    assert_eq!(client.response("POST").text(), "other");
    assert_eq!(other.only_request().body, b"hello");
    let failures = &proxy.server(0)["failures"];
    assert_eq!(failures["connect_refused"], 1, "{failures}");
    assert_eq!(failures["closed"], 0, "{failures}");
}

/// Not for ever: connect(2) says of a dead address, too, that it takes the connection.
fn an_address_that_refuses_is_left_for_the_next(mode: Mode) {
    if !is_in_own_network("an_address_that_refuses_is_left_for_the_next", mode) {
        return;
    }
    let (proxy, first, _second) = two_addresses(mode, "");
    let mut client = proxy.connect();
    drop(first);
    assert_eq!(client.get("/").status, 502, "it is the first to find out");
    for _ in 0..2 {
        assert_eq!(client.get("/").text(), "second");
    }
}

/// It has taken the connection.
fn an_address_that_is_slow_stays(mode: Mode) {
    if !is_in_own_network("an_address_that_is_slow_stays", mode) {
        return;
    }
    let (proxy, first, _second) = two_addresses(mode, "response_header_timeout = \"2s\"");
    let (mut client, upstream) = proxy.reach(&first);
    assert_eq!(client.response("GET").status, 504);
    drop(upstream);
    let (mut client, mut upstream) = proxy.reach(&first);
    upstream.send(ok("first"));
    assert_eq!(client.response("GET").text(), "first");
}

/// Also by a request of which the SYN takes only a part.
fn an_address_that_vanishes_is_left_for_the_next(mode: Mode) {
    if !is_in_own_network("an_address_that_vanishes_is_left_for_the_next", mode) {
        return;
    }
    let (proxy, first, _second) = two_addresses(mode, "");
    let _fillers = first.fill();
    let mut client = proxy.connect();
    client.send(post(8000));
    assert_eq!(client.response("POST").status, 504);
    assert_eq!(proxy.get("/").text(), "second");
}

/// A proxy whose only server has two addresses, and who is there. The first has taken a connection, so that the next one leaves with data.
fn two_addresses(mode: Mode, settings: &str) -> (Proxy, Origin, Served) {
    set_up();
    let first = Origin::bind_with_backlog("127.0.0.2:0", 16);
    let port = first.address.rsplit(':').next().expect("a port").to_owned();
    let second = Origin::bind_with_backlog(&format!("127.0.0.3:{port}"), 16);
    let second = second.serve(|_| ok("second"));
    let config = Config::new(mode).tables("[timeouts]\nwrite = \"2s\"");
    let hosts = config.directory().join("hosts");
    let lines = "127.0.0.2 two.test\n127.0.0.3 two.test\n";
    std::fs::write(&hosts, lines).expect("a file of the test's own");
    let mount = "mount --bind \"$0\" /etc/hosts && exec \"$@\"";
    let hosts = hosts.to_str().expect("a path of letters");
    let settings = format!("fast_open = true\npool = {{ max_idle = 0 }}\n{settings}");
    let proxy = config
        .upstream(&[&format!("two.test:{port}")], &settings)
        .under(&["unshare", "--mount", "sh", "-c", mount, hosts])
        .start();
    get_cookie(&proxy, &first);
    (proxy, first, second)
}

/// The first connection gets the cookie that data with a SYN needs.
fn get_cookie(proxy: &Proxy, origin: &Origin) {
    for _ in 0..2 {
        let (mut client, mut upstream) = proxy.reach(origin);
        upstream.send(ok("first"));
        assert_eq!(client.response("GET").text(), "first");
    }
}

fn post(length: usize) -> String {
    let body = "x".repeat(length);
    format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{body}")
}

/// As in `retry.rs`: what the server has acted on is not sent again, though the connection was begun with it.
fn post_on_a_connection_that_a_firewall_ends(mode: Mode) {
    let test = "post_on_a_connection_that_a_firewall_ends";
    firewall_ends(test, mode, "", |client, origin| {
        client.send(post(8000));
        let mut upstream = origin.accept();
        assert_eq!(upstream.request().body.len(), 8000, "it is acted on");
        upstream
    });
}

/// The body is too long for the socket's buffer: it is its send that meets the error.
fn upload_on_a_connection_that_a_firewall_ends(mode: Mode) {
    let test = "upload_on_a_connection_that_a_firewall_ends";
    let settings = "send_buffer = \"4KiB\"\nretry_body_bytes = \"64KiB\"";
    firewall_ends(test, mode, settings, |client, origin| {
        let post = post(60_000);
        let (head, body) = post.split_at(post.len() - 60_000);
        client.send(head);
        let mut upstream = origin.accept();
        upstream.expect("POST ");
        client.send(body);
        upstream.read_until(b"\r\n\r\nx");
        upstream
    });
}

/// Nothing that the server sends but its SYN comes through. `begin` gives a request's connection to it, which the firewall then ends.
fn firewall_ends(
    test: &str,
    mode: Mode,
    settings: &str,
    begin: impl Fn(&mut Wire, &Origin) -> Wire,
) {
    if !is_in_own_network(test, mode) {
        return;
    }
    set_up();
    let Some(firewall) = Firewall::raise(test) else {
        return;
    };
    let (origin, other) = (Origin::bind(), Origin::serve_text("other"));
    let port = origin.address.rsplit(':').next().expect("a port");
    let settings = format!(
        "policy = \"first\"\nfast_open = true\ntcp_user_timeout = \"2s\"\npool = {{ max_idle = 0 }}\n{settings}"
    );
    let proxy = Config::new(mode)
        .upstream(&[&origin.address, &other.address], &settings)
        .start();
    get_cookie(&proxy, &origin);
    let acknowledgements = "tcp flags & (syn | ack) == ack";
    firewall.add(&format!("output tcp sport {port} {acknowledgements} drop"));
    let mut client = proxy.connect();
    let _upstream = begin(&mut client, &origin);
    firewall.add(&format!(
        "input tcp dport {port} reject with icmp type port-unreachable"
    ));
    let answer = client.response("POST");
    assert_eq!((answer.status, other.requests().len()), (502, 0));
}
