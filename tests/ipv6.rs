//! IPv6 on both sides, and how an IPv6 client is named to the origin (RFC 7239 section 6: in brackets and quotes).

mod support;

use support::{Config, Mode, Origin, Wire, in_each_mode};

in_each_mode!(both_sides, listeners_of_both_families, unreachable_server,);

const LISTEN: &str = "[[listen]]\naddress = \"[::1]:0\"";

fn both_sides(mode: Mode) {
    let served = Origin::bind_v6().serve(|_| support::ok("fine"));
    let proxy = Config::new(mode)
        .tables(LISTEN)
        .tables("[forward]\nforwarded = true\ntrusted_proxies = [\"10.0.0.0/8\", \"fd00::/8\"]")
        .upstream(&[&served.address], "host = \"upstream\"")
        .start();
    let mut client = proxy.connect();
    client.send("GET / HTTP/1.1\r\nHost: [::1]:8080\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n");
    assert_eq!(client.response("GET").text(), "fine");
    let seen = served.only_request();
    assert_eq!(seen.head.value("host"), Some(served.address.as_str()));
    assert_eq!(seen.head.value("x-forwarded-for"), Some("::1"));
    assert_eq!(seen.head.value("x-real-ip"), Some("::1"));
    assert_eq!(seen.head.value("x-forwarded-host"), Some("[::1]:8080"));
    let forwarded = seen.head.value("forwarded").unwrap_or_default();
    assert!(forwarded.contains("for=\"[::1]\""), "{forwarded}");
}

fn listeners_of_both_families(mode: Mode) {
    let served = Origin::serve_text("fine");
    let listens = format!("[[listen]]\naddress = \"127.0.0.1:0\"\n{LISTEN}");
    let proxy = Config::new(mode)
        .tables(&listens)
        .upstream(&[&served.address], "")
        .start();
    for (address, client) in proxy.addresses.iter().zip(["127.0.0.1", "::1"]) {
        assert_eq!(Wire::connect(*address).get("/").text(), "fine");
        assert_eq!(served.last_request().head.value("x-real-ip"), Some(client));
    }
}

fn unreachable_server(mode: Mode) {
    let dead = Origin::nowhere_v6();
    let served = Origin::serve_text("alive");
    let proxy = Config::new(mode)
        .upstream(&[&dead, &served.address], "retries = 1")
        .start();
    let mut client = proxy.connect();
    for _ in 0..4 {
        assert_eq!(client.get("/").text(), "alive");
    }
}
