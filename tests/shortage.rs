//! What the proxy does when the kernel has no more of something: it says so, counts it, does not spin, and goes on when there is some again.

mod support;

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::unistd::geteuid;
use serde_json::Value;
use support::{
    Config, Mode, Origin, PATIENCE, Proxy, Served, Wire, eventually, in_each_mode, left_out, ok,
    took_about,
};

in_each_mode!(
    the_status_page_outlives_the_descriptors,
    descriptors_of_upstream_connections,
    descriptors_of_clients_that_have_finished,
    descriptors_of_a_shard_that_starts_again,
    descriptors_for_the_listener_of_a_shard_that_starts_again,
    a_shard_that_cannot_start_again_ends_with_the_process,
    little_locked_memory,
    small_queues,
    a_crowd_that_is_woken_at_once,
    small_socket_buffers,
    stopped_and_continued,
    stopped_for_longer_than_a_timeout,
    calls_that_fail,
    sends_without_memory,
    sends_that_never_get_memory,
);

const ADMIN: &str = "[admin]\naddress = \"127.0.0.1:0\"\n";
const REQUEST: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

fn totals(proxy: &Proxy) -> Value {
    proxy.status()["totals"].take()
}

/// Clients get 503 while those who look for the cause still get in, and service begins again when there is room.
fn the_status_page_outlives_the_descriptors(mode: Mode) {
    let served = Origin::serve_text("fine");
    let proxy = Config::new(mode)
        .descriptors(128)
        .tables(ADMIN)
        .upstream(&[&served.address], "")
        .start();
    let mut first = proxy.connect();
    assert_eq!(first.get("/").text(), "fine");
    let mut clients: Vec<Wire> = (0..200).map(|_| proxy.connect()).collect();
    eventually("all are in or refused", || {
        let totals = totals(&proxy);
        assert!(totals["connections"].as_u64() < Some(150), "{totals}");
        totals["accepted"] == 201
    });
    // These take the low numbers that the status page has had meanwhile.
    clients.extend((0..16).map(|_| proxy.connect()));
    let mut refused = proxy.connect();
    let answer = refused.response("GET");
    assert_eq!(answer.status, 503);
    assert_eq!(answer.head.value("retry-after"), Some("1"));
    refused.expect_end();
    for _ in 0..20 {
        assert!(proxy.page("/metrics").contains("refused_descriptors_total"));
    }
    let counted = totals(&proxy);
    assert_eq!(
        counted["refused_connections"], counted["refused_descriptors"],
        "nobody else was refused"
    );
    proxy.expect_rest();
    assert_eq!(first.get("/").text(), "fine", "those within go on");
    drop(clients);
    eventually("service again", || totals(&proxy)["connections"] == 1);
    assert_eq!(proxy.get("/").text(), "fine");
    let said = |line: &String| line.contains("descriptors run out");
    assert_eq!(proxy.log().iter().filter(|line| said(line)).count(), 1);
}

/// A server that there is no descriptor for has done nothing wrong.
fn descriptors_of_upstream_connections(mode: Mode) {
    let origin = Origin::bind();
    let proxy = Config::new(mode)
        .descriptors(128)
        .tables(ADMIN)
        .upstream(
            &[&origin.address],
            "passive = { fall = 1, max_ejected = 100 }",
        )
        .start();
    // When the last one is refused it is known how many there is room for: the first ones.
    let mut clients: Vec<Wire> = (0..128).map(|_| proxy.connect()).collect();
    assert_eq!(clients[127].response("GET").status, 503);
    let room = totals(&proxy)["connections"].as_u64().unwrap_or(0);
    assert!((64..128).contains(&room), "{room} connections");
    clients.truncate(room as usize - 4);
    eventually("four have left", || {
        totals(&proxy)["connections"].as_u64() == Some(room - 4)
    });
    for client in &mut clients {
        client.send(REQUEST);
    }
    let held: Vec<Wire> =
        std::iter::from_fn(|| origin.accept_within(Duration::from_millis(500))).collect();
    assert!((1..=5).contains(&held.len()), "{} connected", held.len());
    let server = &proxy.upstream()["servers"][0];
    let missed = (clients.len() - held.len()) as u64;
    assert_eq!(server["failures"]["shortage"], missed, "{server}");
    assert_eq!(server["state"], "up", "not ejected");
    proxy.expect_rest();
    let mut answered = 0;
    for mut upstream in held {
        upstream.request();
        upstream.send(ok("fine"));
    }
    for client in &mut clients {
        let answer = client.response("GET");
        answered += usize::from(answer.status == 200);
        assert!(matches!(answer.status, 200 | 503), "{}", answer.status);
    }
    assert_eq!(answered as u64, clients.len() as u64 - missed);
}

/// On a ring, a client that has sent FIN and reads slowly takes one more. Without it the answer comes more slowly, and whole.
fn descriptors_of_clients_that_have_finished(mode: Mode) {
    const LENGTH: usize = 8 << 20;
    let body = "x".repeat(LENGTH);
    let served = Origin::bind().serve(move |_| ok(&body));
    let proxy = Config::new(mode)
        .descriptors(128)
        .tables(ADMIN)
        .upstream(&[&served.address], "")
        .start();
    // What serves has opened what it needs.
    assert_eq!(proxy.get("/").body.len(), LENGTH);
    totals(&proxy);
    // For each of them and its connection to the server, and no more.
    let count = (128 - 16 - proxy.descriptors()) / 2 - 2;
    let mut clients: Vec<Wire> = (0..count)
        .map(|_| Wire::connect_narrow(proxy.addresses[0]))
        .collect();
    for client in &mut clients {
        client.send(REQUEST);
        client.finish_sending();
    }
    if !matches!(mode, Mode::Epoll) {
        eventually("descriptors are short", || {
            totals(&proxy)["send_shortages"].as_u64() > Some(0)
        });
    }
    for client in &mut clients {
        let mut answer = client.response("GET");
        // The question whether the client is still there, where the server is slow.
        while answer.status == 100 {
            answer = client.response("GET");
        }
        assert_eq!((answer.status, answer.body.len()), (200, LENGTH));
    }
}

/// A shard that died finds no descriptor for its ring. It tries until there is one, and touches no descriptor that is not its own.
fn descriptors_of_a_shard_that_starts_again(mode: Mode) {
    // What the dead shard gives back is enough for the listener, which it had before its ring and its connections, and no more.
    let (proxy, _served, before) = dead_shard(mode, 1);
    eventually("it cannot be started", || logs(&proxy, "cannot be built"));
    limit_descriptors(&proxy, before);
    eventually("it is started again", || {
        is_served(&proxy).is_ok_and(|served| served)
    });
}

/// It is one death, however often its listener is tried.
fn descriptors_for_the_listener_of_a_shard_that_starts_again(mode: Mode) {
    let (proxy, _served, before) = dead_shard(mode, 0);
    eventually("it cannot listen", || logs(&proxy, "cannot listen"));
    std::thread::sleep(Duration::from_millis(500));
    limit_descriptors(&proxy, before);
    eventually("it is started again", || {
        is_served(&proxy).is_ok_and(|served| served)
    });
    assert_eq!(proxy.status()["shard_restarts"], 1);
    let log = proxy.log();
    let told = log.iter().filter(|line| line.contains("cannot listen"));
    assert_eq!(told.count(), 1, "{log:?}");
}

/// Nothing is left to wait for.
fn a_shard_that_cannot_start_again_ends_with_the_process(mode: Mode) {
    let (mut proxy, ..) = dead_shard(mode, 0);
    eventually("it cannot listen", || logs(&proxy, "cannot listen"));
    proxy.signal("TERM");
    assert!(proxy.exit_within(Duration::from_secs(10)).success());
}

/// A proxy whose only shard has died and finds `spare` descriptors from its listener's on; its origin, and the limit that it had before.
fn dead_shard(mode: Mode, spare: u64) -> (Proxy, Served, Option<u64>) {
    let served = Origin::serve_text("fine");
    let proxy = Config::new(mode)
        .faults()
        .key("shards = 1")
        .tables(ADMIN)
        .upstream(&[&served.address], "")
        .start();
    assert_eq!(proxy.connect().get("/").text(), "fine");
    let mut wire = proxy.connect();
    assert_eq!(wire.get("/").text(), "fine");
    let listener = listening(&proxy);
    let before = limit_descriptors(&proxy, Some(listener + spare));
    wire.send("GET /fault/shard HTTP/1.1\r\nHost: a\r\n\r\n");
    (proxy, served, before)
}

fn logs(proxy: &Proxy, text: &str) -> bool {
    proxy.log().iter().any(|line| line.contains(text))
}

/// Whether a request gets its answer.
fn is_served(proxy: &Proxy) -> io::Result<bool> {
    let mut client = TcpStream::connect(proxy.addresses[0])?;
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    client.read_to_string(&mut answer)?;
    Ok(answer.ends_with("fine"))
}

/// The number of the proxy's listener.
fn listening(proxy: &Proxy) -> u64 {
    // Local address, state and inode are the second, fourth and tenth word of a line (proc_net_tcp in the kernel's documentation).
    const LISTEN: &str = "0A";
    let port = format!(":{:04X}", proxy.addresses[0].port());
    let sockets = std::fs::read_to_string(format!("/proc/{}/net/tcp", proxy.pid()));
    let sockets = sockets.expect("proc(5)");
    let inode = sockets.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        (words[1].ends_with(&port) && words[3] == LISTEN).then(|| words[9].to_owned())
    });
    let socket = format!("socket:[{}]", inode.expect("a listener"));
    let folder = std::fs::read_dir(format!("/proc/{}/fd", proxy.pid())).expect("proc(5)");
    let mut numbers = folder.filter_map(|entry| {
        let path = entry.ok()?.path();
        let target = std::fs::read_link(&path).ok()?;
        let number = path.file_name()?.to_str()?.parse().ok()?;
        (target.to_str()? == socket).then_some(number)
    });
    numbers.next().expect("the listener's descriptor")
}

/// Sets the proxy's limit of descriptors and gives what it was.
fn limit_descriptors(proxy: &Proxy, limit: Option<u64>) -> Option<u64> {
    use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    let limit = Rlimit {
        current: limit,
        maximum,
    };
    let pid = Pid::from_raw(proxy.pid() as i32);
    prlimit(pid, Resource::Nofile, limit)
        .expect("may be set")
        .current
}

/// Where rings count as locked memory they get smaller until those of all shards fit, and none fails for what rings before it have left.
fn little_locked_memory(mode: Mode) {
    if !geteuid().is_root() {
        left_out(
            "little_locked_memory",
            "without root the limit is shared with other tests",
        );
        return;
    }
    let served = Origin::serve_text("fine");
    // The limit is the user's: nobody in particular, and no other test's.
    for (user, shards, bytes) in [(4251, 4, 1 << 20), (4252, 1, 1 << 18), (4253, 8, 1 << 23)] {
        let user = user + 10 * u32::from(mode == Mode::Epoll);
        let proxy = Config::new(mode)
            .key(&format!("shards = {shards}"))
            .key("ring_entries = 4096")
            .started_by(user, user)
            .under(&["prlimit", &format!("--memlock={bytes}:{bytes}")])
            .upstream(&[&served.address], "")
            .start();
        assert_eq!(proxy.get("/").text(), "fine");
        let log = proxy.log();
        assert!(!log.iter().any(|line| line.contains("died")), "{log:?}");
    }
}

/// Many more connections than the rings have entries, all with something to say when the proxy goes on.
fn small_queues(mode: Mode) {
    const CLIENTS: usize = 1500;
    let served = Origin::serve_text("fine");
    let proxy = Config::new(mode)
        .key("ring_entries = 256")
        .tables(ADMIN)
        // All of them connect at once, to an origin that may be slow to accept.
        .upstream(&[&served.address], "connect_timeout = \"1m\"")
        .start();
    let mut clients: Vec<Wire> = (0..CLIENTS).map(|_| proxy.connect()).collect();
    eventually("all are in", || {
        totals(&proxy)["connections"].as_u64() == Some(CLIENTS as u64)
    });
    for _ in 0..2 {
        proxy.suspend();
        for client in &mut clients {
            client.send(REQUEST);
        }
        proxy.resume();
        for client in &mut clients {
            assert_eq!(client.response("GET").text(), "fine");
        }
    }
    assert_eq!(served.requests().len(), 2 * CLIENTS);
    proxy.expect_rest();
    drop(clients);
    eventually("all are gone", || totals(&proxy)["connections"] == 0);
    proxy.expect_rest();
}

/// All connect to the same server, their time is over in the same turn of the sweeper, and all go on to the next one: so many connects
/// that succeed at once are neither one load of the submission queue nor one of the completion queue.
fn a_crowd_that_is_woken_at_once(mode: Mode) {
    const CLIENTS: usize = 1500;
    let (silent, _held) = Origin::black_hole();
    let served = Origin::serve_text("fine");
    let proxy = Config::new(mode)
        .key("ring_entries = 256")
        .tables(ADMIN)
        .upstream(
            &[&silent.address, &served.address],
            "policy = \"first\"\nconnect_timeout = \"3s\"",
        )
        .start();
    let mut clients: Vec<Wire> = (0..CLIENTS).map(|_| proxy.connect()).collect();
    let since = Instant::now();
    for client in &mut clients {
        client.send(REQUEST);
    }
    eventually("all connect", || {
        proxy.server(0)["active"].as_u64() == Some(CLIENTS as u64)
    });
    // The clock does not go on while the proxy stands still.
    std::thread::sleep(Duration::from_millis(2500).saturating_sub(since.elapsed()));
    proxy.suspend();
    std::thread::sleep(Duration::from_secs(4).saturating_sub(since.elapsed()));
    proxy.resume();
    for client in &mut clients {
        assert_eq!(client.response("GET").text(), "fine");
    }
    if mode == Mode::Epoll {
        assert!(totals(&proxy)["ring"].is_null());
        return;
    }
    // The sweeper looks at them ten times a second.
    eventually("the ring's figures are told", || {
        totals(&proxy)["ring"]["completions"].as_u64() > Some(3 * CLIENTS as u64)
    });
    let ring = &totals(&proxy)["ring"];
    let figure = |name: &str| ring[name].as_u64().expect("a number");
    assert!(figure("sq_full") > 0, "{ring}");
    assert!(figure("cq_overflows") > 0, "{ring}");
    assert!(figure("submissions") >= figure("completions"), "{ring}");
    assert_eq!((figure("cq_lost"), figure("sq_dropped")), (0, 0), "{ring}");
    let metrics = proxy.page("/metrics");
    assert!(!metrics.contains("ringlane_ring_cq_overflows_total{shard=\"0\"} 0\n"));
    assert!(metrics.contains("ringlane_ring_cq_overflows_total{shard=\"0\"} "));
    proxy.expect_rest();
}

/// A ring that cannot be looked at has no figures, rather than wrong ones.
#[test]
fn a_ring_that_hides_has_no_figures() {
    if !has_strace("a_ring_that_hides_has_no_figures") {
        return;
    }
    let served = Origin::serve_text("fine");
    // Of the shard's thread: the first one is its ring.
    let (config, trace) = with_fault(Mode::Uring, "io_uring_setup:error=ENOMEM:when=2");
    let mut proxy = config.upstream(&[&served.address], "").start();
    assert_eq!(proxy.get("/").text(), "fine");
    assert!(totals(&proxy)["ring"].is_null());
    assert!(!proxy.page("/metrics").contains("ringlane_ring_"));
    let trace = proxy.stop_and_read(&trace);
    assert!(trace.contains("(INJECTED)"), "{trace}");
}

/// The proxy receives much more at once than a send takes: every write is a short one, and is counted.
fn small_socket_buffers(mode: Mode) {
    let body = "x".repeat(2_000_000);
    let served = Origin::bind().serve(|request| {
        assert_eq!(request.body.len(), 2_000_000);
        ok(&"y".repeat(2_000_000))
    });
    let proxy = Config::new(mode)
        .tables(ADMIN)
        .tables("[[listen]]\naddress = \"127.0.0.1:0\"\nsend_buffer = \"4KiB\"")
        .upstream(&[&served.address], "send_buffer = \"4KiB\"")
        .start();
    let mut client = proxy.connect();
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    assert_eq!(client.response("POST").body.len(), 2_000_000);
    proxy.expect_rest();
    let totals = totals(&proxy);
    assert!(totals["bytes_out"].as_u64() > Some(2_000_000), "{totals}");
    assert!(totals["short_writes"].as_u64() > Some(10), "{totals}");
    assert_eq!(totals["send_shortages"], 0, "{totals}");
}

/// Waiting calls of a process that is stopped and continued end with EINTR.
fn stopped_and_continued(mode: Mode) {
    let served = Origin::serve_text("fine");
    let proxy = Config::new(mode)
        .tables(ADMIN)
        .upstream(&[&served.address], "")
        .start();
    let mut client = proxy.connect();
    for _ in 0..50 {
        proxy.suspend();
        client.send(REQUEST);
        proxy.resume();
        assert_eq!(client.response("GET").text(), "fine");
    }
    assert_eq!(totals(&proxy)["panics"], 0);
    proxy.expect_rest();
}

/// Answers that came in time are passed on, although the proxy gets to read them late.
fn stopped_for_longer_than_a_timeout(mode: Mode) {
    let origin = Origin::bind();
    let proxy = Config::new(mode)
        .key("shards = 1")
        .upstream(&[&origin.address], "response_header_timeout = \"2s\"")
        .start();
    let mut pairs: Vec<(Wire, Wire)> = (0..100).map(|_| proxy.reach(&origin)).collect();
    proxy.suspend();
    // Behind a tick of the proxy's clock.
    std::thread::sleep(Duration::from_millis(150));
    for (_, upstream) in &mut pairs {
        upstream.send(ok("fine"));
    }
    std::thread::sleep(Duration::from_secs(3));
    proxy.resume();
    for (client, _) in &mut pairs {
        assert_eq!(client.response("GET").text(), "fine");
    }
}

/// Whether strace(1) can have calls fail here: it is on the machine, and tracing is allowed.
fn has_strace(test: &str) -> bool {
    let works = std::process::Command::new("strace")
        .args([
            "-o",
            "/dev/null",
            "-e",
            "inject=getppid:error=EPERM",
            "true",
        ])
        .output()
        .is_ok_and(|output| output.status.success());
    if !works {
        left_out(test, "strace is missing or may not trace here");
    }
    works
}

/// Each error on every few calls: requests may fail, the proxy does not, and it rests when there is nothing to do.
fn calls_that_fail(mode: Mode) {
    if !has_strace("calls_that_fail") {
        return;
    }
    let wait = match mode {
        Mode::Uring => "io_uring_enter",
        Mode::Epoll => "epoll_wait",
    };
    let faults = [
        // To be called again at once.
        format!("{wait}:error=EINTR:when=10+5"),
        "recvfrom:error=EINTR:when=3+3".to_owned(),
        // Memory.
        "recvfrom:error=ENOMEM:when=5+5".to_owned(),
        "socket:error=ENOBUFS:when=6+3".to_owned(),
        "socket:error=EMFILE:when=6+3".to_owned(),
        match mode {
            Mode::Uring => "io_uring_enter:error=EAGAIN:when=10+7",
            Mode::Epoll => "accept4:error=ENFILE:when=5+5",
        }
        .to_owned(),
    ];
    for fault in faults {
        survive(mode, &fault);
    }
}

/// A proxy whose calls fail as strace(1) is told, and where it writes which did.
fn with_fault(mode: Mode, fault: &str) -> (Config, PathBuf) {
    let config = Config::new(mode);
    let trace = config.directory().join("trace");
    let inject = format!("inject={fault}");
    let runner = ["strace", "-D", "-f", "-qq", "-o"];
    let runner = [
        &runner[..],
        &[trace.to_str().expect("ASCII"), "-e", &inject],
    ]
    .concat();
    (config.under(&runner).tables(ADMIN), trace)
}

fn survive(mode: Mode, fault: &str) {
    let served = Origin::serve_text("fine");
    let (config, trace) = with_fault(mode, fault);
    let mut proxy = config
        .upstream(&[&served.address], "pool = { max_idle = 0 }")
        .start();
    let mut whole = 0;
    for _ in 0..40 {
        let mut client = proxy.connect();
        client.try_send(REQUEST).ok();
        client.receive_within(Duration::from_millis(500)).ok();
        whole += usize::from(client.unread().ends_with(b"fine"));
    }
    let least = if fault.contains("EINTR") { 40 } else { 10 };
    assert!(whole >= least, "{fault}: {whole} of 40 served");
    proxy.expect_rest();
    if fault.starts_with("socket") {
        let failures = &proxy.upstream()["servers"][0]["failures"];
        assert!(failures["shortage"].as_u64() > Some(5), "{failures}");
    }
    if fault.starts_with("recvfrom:error=EINTR") {
        let totals = totals(&proxy);
        assert!(totals["interrupted_calls"].as_u64() > Some(20), "{totals}");
    }
    let trace = proxy.stop_and_read(&trace);
    assert!(trace.contains("(INJECTED)"), "{fault} was not provoked");
}

/// The machine's want of memory is no fault of the peer: what cannot be sent now is sent a little later, whole and in order.
fn sends_without_memory(mode: Mode) {
    if !has_strace("sends_without_memory") {
        return;
    }
    let body = "0123456789abcdef".repeat(50_000);
    let echo = body.clone();
    let served = Origin::bind().serve(move |request| {
        assert!(request.body == echo.as_bytes(), "the body is whole");
        ok(&echo)
    });
    for fault in [
        "sendto:error=ENOBUFS:when=2+3",
        "sendto:error=ENOMEM:when=2+3",
        "sendto:error=EINTR:when=2+3",
    ] {
        let (config, trace) = with_fault(mode, fault);
        let mut proxy = config.upstream(&[&served.address], "").start();
        let mut client = proxy.connect();
        for _ in 0..3 {
            client.send(format!(
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            ));
            assert!(client.response("POST").body == body.as_bytes(), "{fault}");
        }
        proxy.expect_rest();
        let totals = totals(&proxy);
        let counter = if fault.contains("EINTR") {
            "interrupted_calls"
        } else {
            "send_shortages"
        };
        assert!(totals[counter].as_u64() > Some(2), "{fault}: {totals}");
        eventually("the fault was provoked", || {
            std::fs::read_to_string(&trace).is_ok_and(|trace| trace.contains("(INJECTED)"))
        });
        kill(&mut proxy);
    }
}

/// Ends a proxy whose sends fail: its handler of SIGTERM passes the signal on by a send.
fn kill(proxy: &mut Proxy) {
    proxy.expect_no_panic();
    proxy.signal("KILL");
    proxy.exit_within(PATIENCE);
}

/// It is tried again for as long as a write may take, at the sweeper's pace.
fn sends_that_never_get_memory(mode: Mode) {
    if !has_strace("sends_that_never_get_memory") {
        return;
    }
    let served = Origin::bind().serve(|_| ok(&"y".repeat(2_000_000)));
    let (config, _) = with_fault(mode, "sendto:error=ENOBUFS:when=2+");
    let mut proxy = config
        .tables("[timeouts]\nwrite = \"1s\"")
        .upstream(&[&served.address], "")
        .start();
    let mut client = proxy.connect();
    let since = Instant::now();
    client.send(REQUEST);
    client.read_to_end();
    took_about(since, Duration::from_secs(1));
    let totals = totals(&proxy);
    let tried = totals["send_shortages"].as_u64();
    assert!((Some(5)..=Some(20)).contains(&tried), "{totals}");
    assert_eq!(totals["timeouts"]["write"], 1, "{totals}");
    kill(&mut proxy);
}

#[test]
fn too_few_descriptors_bring_a_warning() {
    for (limit, connections, warned) in [(256, 100, false), (256, 200, true)] {
        let proxy = Config::new(Mode::Epoll)
            .descriptors(limit)
            .tables(&format!("[limits]\nconnections = {connections}"))
            .upstream(&["127.0.0.1:9"], "")
            .start();
        let log = proxy.log();
        let warning = log
            .iter()
            .find(|line| line.contains("open files are limited"));
        assert_eq!(warning.is_some(), warned, "{connections}: {log:?}");
        assert!(
            warning.is_none_or(|line| line.contains("limit=256 wanted=416")),
            "{warning:?}"
        );
    }
}

#[test]
fn falling_back_to_epoll_brings_a_warning() {
    let test = "falling_back_to_epoll_brings_a_warning";
    if !has_strace(test) {
        return;
    }
    for (errno, cause) in [("EPERM", "forbidden"), ("ENOSYS", "no io_uring")] {
        let inject = format!("inject=io_uring_setup:error={errno}");
        let served = Origin::serve_text("fine");
        let proxy = Config::new(Mode::Uring)
            .key("io = \"auto\"")
            .under(&[
                "strace",
                "-D",
                "-f",
                "-qq",
                "-o",
                "/dev/null",
                "-e",
                &inject,
            ])
            .upstream(&[&served.address], "")
            .start();
        let log = proxy.log();
        let said = log.iter().any(|line| {
            line.contains("WARN") && line.contains("run on epoll") && line.contains(cause)
        });
        assert!(said, "{errno}: {log:?}");
        assert_eq!(proxy.get("/").text(), "fine");
    }
}
