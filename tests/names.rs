//! Servers given by host name: resolved at start, off the shards, every address a candidate.

mod support;

use support::{Config, Mode, Origin, in_each_mode};

in_each_mode!(localhost, host_field_is_the_name);

fn port(address: &str) -> &str {
    address.rsplit(':').next().expect("a port")
}

fn localhost(mode: Mode) {
    let served = Origin::serve_text("fine");
    let named = format!("localhost:{}", port(&served.address));
    let proxy = Config::new(mode).upstream(&[&named], "").start();
    let mut client = proxy.connect();
    for _ in 0..3 {
        assert_eq!(client.get("/").text(), "fine");
    }
}

fn host_field_is_the_name(mode: Mode) {
    let served = Origin::serve_text("fine");
    let named = format!("localhost:{}", port(&served.address));
    let proxy = Config::new(mode)
        .upstream(&[&named], "host = \"upstream\"")
        .start();
    assert_eq!(proxy.get("/").text(), "fine");
    assert_eq!(
        served.only_request().head.value("host"),
        Some(named.as_str())
    );
}
