//! TCP Fast Open to servers (RFC 7413): the first bytes of a request leave with the SYN, so that a server refuses shows only afterwards.
//!
//! The tests need settings of their own, hence a network namespace. Where that is forbidden they say so.

mod support;

use std::process::Command;

use support::{Config, Mode, Origin, in_each_mode, is_in_own_network, ok};

in_each_mode!(a_server_that_refuses_is_left_for_another);

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
    let mut client = proxy.connect();
    let mut post = |length: usize, accept: Option<&Origin>| {
        client.send(format!(
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{}",
            "x".repeat(length)
        ));
        if let Some(origin) = accept {
            let mut upstream = origin.accept();
            assert_eq!(upstream.request().body.len(), length);
            upstream.send(ok("first"));
        }
        client.response("POST").text()
    };
    // The first connection gets the cookie that data with a SYN needs.
    for _ in 0..2 {
        assert_eq!(post(10, Some(&origin)), "first");
    }
    drop(origin);
    for (refused, length) in (1..).zip([10, 8000]) {
        assert_eq!(post(length, None), "other");
        let first = proxy.server(0);
        assert_eq!(first["retries"]["connect"], refused, "{first}");
    }
    let failures = &proxy.server(0)["failures"];
    assert_eq!(failures["connect_refused"], 2, "{failures}");
}
