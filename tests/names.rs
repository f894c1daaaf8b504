//! Servers given by host name: resolved at start, off the shards, every address a candidate, and again where `resolve` asks for it.

mod support;

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use support::{Config, Mode, Origin, Proxy, eventually, in_each_mode, left_out, ok};

in_each_mode!(
    localhost,
    host_field_is_the_name,
    a_server_moves,
    every_address_is_a_candidate,
);

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

/// A mount namespace, in which the file that follows is `/etc/hosts` for the program that follows it.
fn with_hosts() -> Vec<&'static str> {
    let mut runner = vec!["unshare", "--mount"];
    // An unprivileged user is root in a user namespace.
    if !nix::unistd::geteuid().is_root() {
        runner.push("--map-root-user");
    }
    runner.extend(["sh", "-c", "mount --bind \"$0\" /etc/hosts && exec \"$@\""]);
    runner
}

/// Has the name lead to the address. Of one length and in one write, so that nobody reads half of it.
fn point(hosts: &Path, address: &str) {
    let line = format!("{address} moving.test\n");
    let mut file = fs::OpenOptions::new();
    let written = file.write(true).create(true).truncate(false).open(hosts);
    let written = written.and_then(|mut file| file.write_all(line.as_bytes()));
    written.expect("a file of the test's own");
}

/// The proxy, whose server's name leads to what the file says; `None` where mounting is forbidden.
fn start_with_hosts(port: &str, hosts: &Path, config: Config, settings: &str) -> Option<Proxy> {
    let mut runner = with_hosts();
    runner.push(hosts.to_str().expect("a path of letters"));
    let mut trial = Command::new(runner[0]);
    trial.args(&runner[1..]).arg("true");
    if !trial.status().is_ok_and(|status| status.success()) {
        left_out("names", "unshare --mount is missing or forbidden here");
        return None;
    }
    let named = format!("moving.test:{port}");
    let config = config.upstream(&[&named], settings);
    Some(config.under(&runner).start())
}

/// Connections to the old address are closed, those too that were in use meanwhile.
fn a_server_moves(mode: Mode) {
    let old = Origin::bind_with_backlog("127.0.0.2:0", 16);
    let new = Origin::bind_with_backlog(&format!("127.0.0.3:{}", port(&old.address)), 16);
    let config = Config::new(mode);
    let hosts = config.directory().join("hosts");
    point(&hosts, "127.0.0.2");
    let Some(proxy) = start_with_hosts(port(&old.address), &hosts, config, "resolve = \"1s\"")
    else {
        return;
    };
    let (mut waiting, mut in_use) = proxy.reach(&old);
    let (mut client, mut idle) = proxy.reach(&old);
    idle.send(ok("old"));
    assert_eq!(client.response("GET").text(), "old");

    point(&hosts, "127.0.0.3");
    idle.expect_end();
    let (mut client, mut fresh) = proxy.reach(&new);
    fresh.send(ok("new"));
    assert_eq!(client.response("GET").text(), "new");
    in_use.send(ok("late"));
    assert_eq!(waiting.response("GET").text(), "late");
    in_use.expect_end();
    waiting.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    fresh.request();
    fresh.send(ok("again"));
    assert_eq!(waiting.response("GET").text(), "again");
}

/// Requests and probes go to the address that takes connections.
fn every_address_is_a_candidate(mode: Mode) {
    let there = Origin::bind_with_backlog("127.0.0.3:0", 16);
    let port = port(&there.address).to_owned();
    let there = there.serve(|_| ok("third"));
    let config = Config::new(mode);
    let hosts = config.directory().join("hosts");
    let lines = "127.0.0.2 moving.test\n127.0.0.3 moving.test\n127.0.0.4 moving.test\n";
    fs::write(&hosts, lines).expect("a file of the test's own");
    let config = config.tables("[admin]\naddress = \"127.0.0.1:0\"");
    let health = "pool = { max_idle = 0 }\nhealth = { interval = \"100ms\", rise = 1 }";
    let Some(proxy) = start_with_hosts(&port, &hosts, config, health) else {
        return;
    };
    eventually("the second address is probed", || {
        proxy.upstream()["servers"][0]["last_probe"]["ok"] == true
    });
    let mut client = proxy.connect();
    for _ in 0..3 {
        assert_eq!(client.get("/").text(), "third");
    }
    drop(there);
    let there = Origin::bind_with_backlog(&format!("127.0.0.2:{port}"), 16).serve(|_| ok("second"));
    eventually("the first one is found", || {
        client.get("/").text() == "second"
    });
    for _ in 0..3 {
        assert_eq!(client.get("/").text(), "second");
    }
    drop(there);
}
