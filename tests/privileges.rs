//! What the process may still do once it serves. Becoming another user takes root: a run without it says so, and tests the refusal.

mod support;

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use nix::unistd::{User, geteuid};
use support::{Config, Mode, Origin, Proxy, eventually, in_each_mode, left_out};

in_each_mode!(
    everything_is_given_up,
    a_low_port_is_opened_again,
    the_user_that_starts_it_may_be_named,
);

/// An unprivileged user that every Linux has.
fn nobody() -> User {
    let found = User::from_name("nobody").expect("users can be looked up");
    found.expect("a user `nobody`")
}

/// Says so when the rest of a test is left out.
fn is_root(test: &str) -> bool {
    let root = geteuid().is_root();
    if !root {
        left_out(test, "becoming another user takes root");
    }
    root
}

/// Started by someone who may not become `nobody`, the proxy refuses and says what to do.
fn expect_refusal(mode: Mode) {
    let config = Config::new(mode)
        .key("user = \"nobody\"")
        .upstream(&["127.0.0.1:9"], "");
    // 4242 is nobody in particular, and needs no entry.
    let config = if geteuid().is_root() {
        config.started_by(4242, 4242)
    } else {
        config
    };
    let (status, log) = config.start_to_fail();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(
        log.contains("user `nobody`: the process runs as user") && log.contains("leave user out"),
        "{log}"
    );
}

/// The values of a field of `proc_pid_status(5)` over all threads.
fn of_all_threads(proxy: &Proxy, field: &str) -> BTreeSet<String> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", proxy.pid())).expect("it runs");
    let statuses = tasks.filter_map(|task| {
        std::fs::read_to_string(task.expect("a thread").path().join("status")).ok()
    });
    let value = |status: String| {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        let words = line.expect("a field of proc(5)").split_ascii_whitespace();
        words.collect::<Vec<_>>().join(" ")
    };
    statuses.map(value).collect()
}

fn expect_in_all_threads(proxy: &Proxy, field: &str, value: &str) {
    assert_eq!(
        of_all_threads(proxy, field),
        BTreeSet::from([value.to_owned()]),
        "{field}"
    );
}

fn expect_nobody(proxy: &Proxy, capabilities: &str) {
    let user = nobody();
    let ids = |id: u32| format!("{id} {id} {id} {id}");
    expect_in_all_threads(proxy, "Uid", &ids(user.uid.as_raw()));
    expect_in_all_threads(proxy, "Gid", &ids(user.gid.as_raw()));
    expect_in_all_threads(proxy, "Groups", &user.gid.to_string());
    expect_in_all_threads(proxy, "NoNewPrivs", "1");
    for set in ["CapEff", "CapPrm"] {
        expect_in_all_threads(proxy, set, capabilities);
    }
    for set in ["CapInh", "CapBnd", "CapAmb"] {
        expect_in_all_threads(proxy, set, NO_CAPABILITIES);
    }
}

const NO_CAPABILITIES: &str = "0000000000000000";
/// Capability 10 (linux/capability.h).
const BINDS_LOW_PORTS: &str = "0000000000000400";

fn everything_is_given_up(mode: Mode) {
    expect_refusal(mode);
    if !is_root("everything_is_given_up") {
        return;
    }
    let origin = Origin::serve_text("fine");
    let config = Config::new(mode).key("user = \"nobody\"").key("shards = 2");
    // Root's own directory: only who opens the log before the change of user can write to it.
    let log = config.directory().join("access.log");
    let tables = format!(
        "[admin]\naddress = \"127.0.0.1:0\"\n[access_log]\npath = \"{}\"",
        log.display()
    );
    let mut proxy = config
        .tables(&tables)
        .upstream(&[&origin.address], "")
        .start();
    assert_eq!(proxy.get("/").status, 200);
    expect_nobody(&proxy, NO_CAPABILITIES);
    for name in ["shard-0", "shard-1", "admin", "access-log", "signals"] {
        // A thread gives itself its name.
        eventually(&format!("there is a thread {name}"), || {
            of_all_threads(&proxy, "Name").contains(name)
        });
    }
    assert!(
        proxy
            .log()
            .iter()
            .any(|line| line.contains("runs unprivileged user=\"nobody\"")
                && line.contains("capabilities=\"none\"")),
        "{:?}",
        proxy.log()
    );
    assert!(proxy.stop_and_read(&log).contains("GET /"));
}

/// A shard that dies opens its listeners again, which takes the one capability that is kept for it.
fn a_low_port_is_opened_again(mode: Mode) {
    expect_refusal(mode);
    if !is_root("a_low_port_is_opened_again") {
        return;
    }
    let origin = Origin::serve_text("fine");
    let port = low_port();
    let proxy = Config::new(mode)
        .faults()
        .key("user = \"nobody\"")
        .tables(&format!("[[listen]]\naddress = \"127.0.0.1:{port}\""))
        .upstream(&[&origin.address], "")
        .start();
    let first_free: u16 = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start")
        .map_or(1024, |text| text.trim().parse().expect("a port"));
    let capabilities = if port < first_free {
        BINDS_LOW_PORTS
    } else {
        NO_CAPABILITIES
    };
    expect_nobody(&proxy, capabilities);
    let mut wire = proxy.connect();
    wire.send("GET /fault/shard HTTP/1.1\r\nHost: a.example\r\n\r\n");
    wire.read_to_end();
    eventually("the shard serves again", || {
        answers(proxy.addresses[0]).unwrap_or(false)
    });
    expect_nobody(&proxy, capabilities);
}

/// A shard that dies resets what waits at its listeners, so a request may fail once more.
fn answers(address: SocketAddr) -> io::Result<bool> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.starts_with("HTTP/1.1 200 "))
}

/// A port below 1024 that is free now.
fn low_port() -> u16 {
    (512..1024)
        .rev()
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a free port")
}

/// As with `User=` of systemd and the same user in the file.
fn the_user_that_starts_it_may_be_named(mode: Mode) {
    expect_refusal(mode);
    if !is_root("the_user_that_starts_it_may_be_named") {
        return;
    }
    let origin = Origin::serve_text("fine");
    let user = nobody();
    let proxy = Config::new(mode)
        .key("user = \"nobody\"")
        .started_by(user.uid.as_raw(), user.gid.as_raw())
        .upstream(&[&origin.address], "")
        .start();
    assert_eq!(proxy.get("/").status, 200);
    expect_in_all_threads(&proxy, "NoNewPrivs", "1");
    expect_in_all_threads(&proxy, "CapPrm", NO_CAPABILITIES);
}

#[test]
fn running_as_root_brings_a_warning() {
    let proxy = Config::new(Mode::Epoll)
        .upstream(&["127.0.0.1:9"], "")
        .start();
    let warned = proxy.log().iter().any(|line| line.contains("runs as root"));
    assert_eq!(warned, geteuid().is_root());
    expect_in_all_threads(&proxy, "NoNewPrivs", "1");
}

/// What cannot be set on connections to servers is found at the start.
#[test]
fn options_that_are_refused_end_the_start() {
    let (status, log) = Config::new(Mode::Epoll)
        .upstream(&["127.0.0.1:9"], "congestion = \"no_such\"")
        .start_to_fail();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(
        log.contains("upstream app: congestion cannot be set"),
        "{log}"
    );
}

/// Root may open a listener that the user that the proxy becomes may not open again.
#[test]
fn options_that_the_user_may_not_set_end_the_start() {
    let test = "options_that_the_user_may_not_set_end_the_start";
    if !is_root(test) {
        return;
    }
    let Some(algorithm) = privileged_algorithm() else {
        left_out(test, "no algorithm here is for privileged users alone");
        return;
    };
    let (status, log) = Config::new(Mode::Epoll)
        .key("user = \"nobody\"")
        .upstream(&["127.0.0.1:9"], "")
        .tables(&format!(
            "[[listen]]\naddress = \"127.0.0.1:0\"\ncongestion = \"{algorithm}\"\n"
        ))
        .start_to_fail();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(
        log.contains("listener 127.0.0.1:0: congestion cannot be set"),
        "{log}"
    );
}

/// A congestion control algorithm that takes `CAP_NET_ADMIN`.
fn privileged_algorithm() -> Option<String> {
    let list = |kind| {
        let path = format!("/proc/sys/net/ipv4/tcp_{kind}_congestion_control");
        std::fs::read_to_string(path).expect("the kernel says")
    };
    let allowed = list("allowed");
    let allowed: BTreeSet<_> = allowed.split_whitespace().collect();
    list("available")
        .split_whitespace()
        .find(|name| !allowed.contains(name))
        .map(str::to_owned)
}
