//! Servers that fail get no requests until they are well again.

mod support;

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use support::{Config, Mode, Origin, Patient, Proxy, Served, eventually, in_each_mode, ok};

in_each_mode!(
    probes_take_a_server_out_and_bring_it_back,
    probes_are_as_configured,
    a_dead_server_is_found_without_a_request,
    a_server_that_only_connects_passes_tcp,
    without_a_healthy_server_there_is_an_answer,
    try_all_goes_on_without_a_healthy_server,
    first_fails_over_and_back,
    keys_move_from_a_sick_server_and_come_back,
    a_server_that_comes_back_starts_slowly,
    backups_serve_while_the_others_are_sick,
    failed_requests_eject_a_server,
    failure_statuses_eject_a_server,
    slow_answers_eject_a_server,
    an_idle_connection_that_closes_is_no_failure,
    no_client_sees_a_killed_server,
);

/// A probe has as long as `interval`, and a busy machine may take a tenth of a second for one.
const FAST: &str = "interval = \"1s\"\nfast_interval = \"30ms\"\nrise = 2\nfall = 2\n";
const ADMIN: &str = "[admin]\naddress = \"127.0.0.1:0\"";

/// A proxy before `a`, `b` and `c`, with active checks.
fn ward(mode: Mode, upstream: &str) -> (Proxy, [Patient; 3]) {
    let patients = ["a", "b", "c"].map(Patient::new);
    let addresses = [&patients[0], &patients[1], &patients[2]].map(|p| &*p.served.address);
    let proxy = Config::new(mode)
        .key("shards = 2")
        .tables(ADMIN)
        .upstream(
            &addresses,
            &format!("{upstream}\n[upstream.health]\n{FAST}"),
        )
        .start();
    (proxy, patients)
}

#[track_caller]
fn await_state(proxy: &Proxy, index: usize, state: &str) {
    eventually(&format!("server {index} is {state}"), || {
        proxy.server(index)["state"] == state
    });
}

/// How many of so many requests, each on a connection of its own, the servers `a`, `b` and `c` answered.
fn shares(proxy: &Proxy, requests: usize) -> [usize; 3] {
    let mut counts = [0; 3];
    for _ in 0..requests {
        match proxy.get("/").text().as_str() {
            "a" => counts[0] += 1,
            "b" => counts[1] += 1,
            "c" => counts[2] += 1,
            other => panic!("answered: {other}"),
        }
    }
    counts
}

fn probes_take_a_server_out_and_bring_it_back(mode: Mode) {
    let (proxy, patients) = ward(mode, "");
    patients[1].set(503);
    await_state(&proxy, 1, "down");
    assert_eq!(shares(&proxy, 20)[1], 0);
    let down = proxy.server(1);
    let reason = "the probe's answer has another status than expected";
    assert_eq!(down["reason"], reason);
    assert_eq!(down["last_probe"]["ok"], false);
    patients[1].set(302);
    await_state(&proxy, 1, "up");
    let [a, b, c] = shares(&proxy, 30);
    assert!(a >= 8 && b >= 8 && c >= 8, "{a} {b} {c}");

    let history = &proxy.status()["health"]["history"];
    let seen: Vec<_> = [0, 1]
        .map(|at| (history[at]["server"].clone(), history[at]["to"].clone()))
        .into();
    assert_eq!(
        seen,
        [("b".into(), "up".into()), ("b".into(), "down".into())]
    );
    assert_eq!(history[1]["reason"], reason);
    let changes: Vec<_> = proxy.log();
    let changes = changes
        .iter()
        .filter(|line| line.contains("server changed its state"));
    assert_eq!(
        changes.count(),
        2,
        "one line each:\n{}",
        proxy.log().join("\n")
    );
    let metrics = proxy.page("/metrics");
    for line in [
        "ringlane_upstream_up{upstream=\"app\",server=\"b\"} 1",
        "ringlane_upstream_state_changes_total{upstream=\"app\",server=\"b\",state=\"down\"} 1",
        "ringlane_upstream_state_changes_total{upstream=\"app\",server=\"b\",state=\"up\"} 1",
        "ringlane_upstream_state_changes_total{upstream=\"app\",server=\"a\",state=\"down\"} 0",
        "ringlane_upstream_state_info{upstream=\"app\",server=\"b\",state=\"up\",reason=\"the probe is answered as expected\"} 1",
        "ringlane_upstream_state_since_seconds{upstream=\"app\",server=\"b\"} 1",
        "ringlane_upstream_probe_success{upstream=\"app\",server=\"b\"} 1",
        "ringlane_upstream_probe_info{upstream=\"app\",server=\"b\",result=\"the probe is answered as expected\"} 1",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
}

fn probes_are_as_configured(mode: Mode) {
    let (served, sidecar) = (
        Origin::serve_text("x"),
        Origin::bind().serve(|_| ok("all is ready")),
    );
    let port = sidecar.address.rsplit_once(':').expect("a port").1;
    let _proxy = Config::new(mode)
        .upstream(
            &[&served.address],
            &format!(
                "[upstream.health]\ninterval = \"100ms\"\nport = {port}\npath = \"/live?deep=1\"\nmethod = \"POST\"\nhost = \"app.example\"\nheaders = [\"X-Probe: yes\", \"User-Agent: mine\"]\nbody = \"ready\""
            ),
        )
        .start();
    eventually("a probe", || !sidecar.requests().is_empty());
    let probe = sidecar.requests().remove(0);
    assert_eq!((&*probe.method, &*probe.target), ("POST", "/live?deep=1"));
    for (name, value) in [
        ("host", "app.example"),
        ("x-probe", "yes"),
        ("user-agent", "mine"),
        ("connection", "close"),
        ("content-length", "0"),
    ] {
        assert_eq!(probe.head.value(name), Some(value), "{name}");
    }
    assert!(served.requests().is_empty());
}

fn a_dead_server_is_found_without_a_request(mode: Mode) {
    let alive = Patient::new("a");
    let dead = Origin::nowhere();
    let proxy = Config::new(mode)
        .tables(ADMIN)
        .upstream(
            &[&alive.served.address, &dead],
            &format!("[upstream.health]\n{FAST}"),
        )
        .start();
    await_state(&proxy, 1, "down");
    assert_eq!(proxy.server(1)["reason"], "the probe cannot connect");
    assert_eq!(shares(&proxy, 10), [10, 0, 0]);
    assert_eq!(proxy.server(1)["requests"], 0);
}

fn a_server_that_only_connects_passes_tcp(mode: Mode) {
    let silent = Origin::bind();
    let dead = Origin::nowhere();
    let proxy = Config::new(mode)
        .tables(ADMIN)
        .upstream(
            &[&silent.address, &dead],
            &format!("[upstream.health]\ntype = \"tcp\"\n{FAST}"),
        )
        .start();
    await_state(&proxy, 1, "down");
    eventually("a probe", || !proxy.server(0)["last_probe"].is_null());
    assert_eq!(proxy.server(0)["state"], "up");
}

fn without_a_healthy_server_there_is_an_answer(mode: Mode) {
    let (proxy, patients) = ward(mode, "");
    for (index, patient) in patients.iter().enumerate() {
        patient.set(500);
        await_state(&proxy, index, "down");
    }
    let response = proxy.get("/");
    assert_eq!(response.status, 503);
    assert_eq!(response.text(), "{\"error\":\"no healthy upstream\"}\n");
    patients[2].set(200);
    await_state(&proxy, 2, "up");
    assert_eq!(shares(&proxy, 5), [0, 0, 5]);
}

fn try_all_goes_on_without_a_healthy_server(mode: Mode) {
    let (proxy, patients) = ward(mode, "when_none_healthy = \"try_all\"");
    for (index, patient) in patients.iter().enumerate() {
        patient.set(500);
        await_state(&proxy, index, "down");
    }
    let [a, b, c] = shares(&proxy, 30);
    assert!(a >= 8 && b >= 8 && c >= 8, "{a} {b} {c}");
    patients[2].set(200);
    await_state(&proxy, 2, "up");
    assert_eq!(shares(&proxy, 5), [0, 0, 5]);
}

fn first_fails_over_and_back(mode: Mode) {
    let (proxy, patients) = ward(mode, "policy = \"first\"");
    expect_fail_over_and_back(&proxy, &patients[0]);
}

/// `a` has all requests, `b` while `a` is sick.
#[track_caller]
fn expect_fail_over_and_back(proxy: &Proxy, a: &Patient) {
    assert_eq!(shares(proxy, 5), [5, 0, 0]);
    a.set(500);
    await_state(proxy, 0, "down");
    assert_eq!(shares(proxy, 5), [0, 5, 0]);
    a.set(200);
    await_state(proxy, 0, "up");
    assert_eq!(shares(proxy, 5), [5, 0, 0]);
}

fn keys_move_from_a_sick_server_and_come_back(mode: Mode) {
    let (proxy, patients) = ward(mode, "policy = \"hash\"");
    let owners = || -> Vec<String> {
        (0..40)
            .map(|key| proxy.get(&format!("/{key}")).text())
            .collect()
    };
    let before = owners();
    patients[1].set(500);
    await_state(&proxy, 1, "down");
    let during = owners();
    assert!(!during.contains(&"b".to_owned()));
    let stayed = before.iter().zip(&during).filter(|(old, _)| *old != "b");
    assert!(stayed.clone().count() > 10 && stayed.clone().all(|(old, new)| old == new));
    patients[1].set(200);
    await_state(&proxy, 1, "up");
    assert_eq!(owners(), before);
}

fn a_server_that_comes_back_starts_slowly(mode: Mode) {
    let (proxy, patients) = ward(mode, "slow_start = \"4s\"");
    patients[1].set(500);
    await_state(&proxy, 1, "down");
    patients[1].set(200);
    await_state(&proxy, 1, "up");
    let [a, b, c] = shares(&proxy, 60);
    assert!((1..=12).contains(&b), "{b} of 60 at first");
    assert!(a >= 20 && c >= 20, "{a} and {c}");
    eventually("its whole share", || {
        let [a, b, c] = shares(&proxy, 60);
        a >= 18 && b >= 18 && c >= 18
    });
}

fn backups_serve_while_the_others_are_sick(mode: Mode) {
    let patients = ["a", "b"].map(Patient::new);
    let proxy = Config::new(mode)
        .tables(ADMIN)
        .tables(&format!(
            "[[upstream]]\nname = \"app\"\nserver = [{{ address = \"{}\", name = \"a\" }}, {{ address = \"{}\", name = \"b\", backup = true }}]\n[upstream.health]\n{FAST}",
            patients[0].served.address, patients[1].served.address
        ))
        .start();
    expect_fail_over_and_back(&proxy, &patients[0]);
}

/// A proxy with passive checks before an origin that does as `answer` says, and a good one named `b`.
fn with_passive(
    mode: Mode,
    settings: &str,
    answer: impl Fn() -> Vec<u8> + Send + Sync + 'static,
) -> (Proxy, Served, Served) {
    let (bad, good) = (
        Origin::bind().serve(move |_| answer()),
        Origin::serve_text("b"),
    );
    let proxy = Config::new(mode)
        .key("shards = 2")
        .tables(ADMIN)
        .upstream(
            &[&bad.address, &good.address],
            &format!(
                "response_header_timeout = \"200ms\"\n[upstream.passive]\nfall = 3\n{settings}"
            ),
        )
        .start();
    (proxy, bad, good)
}

/// Sends requests until the first server is ejected, then sees that it gets none.
fn expect_ejection(proxy: &Proxy, reason: &str) {
    eventually("the ejection", || {
        proxy.get("/");
        proxy.server(0)["state"] == "ejected"
    });
    assert_eq!(proxy.server(0)["reason"], reason);
    let before = attempts(proxy)[0];
    assert!(before >= 3, "{before} requests failed");
    assert_eq!(shares(proxy, 20), [0, 20, 0]);
    assert_eq!(attempts(proxy)[0], before);
}

fn failed_requests_eject_a_server(mode: Mode) {
    let broken = Arc::new(AtomicBool::new(true));
    let told = Arc::clone(&broken);
    // An empty answer closes the connection.
    let (proxy, _bad, _good) = with_passive(mode, "eject = \"400ms\"", move || {
        if told.load(Ordering::Relaxed) {
            Vec::new()
        } else {
            ok("a")
        }
    });
    expect_ejection(&proxy, "connections are closed before answers are complete");
    broken.store(false, Ordering::Relaxed);
    await_state(&proxy, 0, "up");
    assert_eq!(proxy.server(0)["reason"], "the ejection is over");
    let [a, b, _] = shares(&proxy, 20);
    assert!(a >= 8 && b >= 8, "{a} {b}");
}

fn failure_statuses_eject_a_server(mode: Mode) {
    let answer = || b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n".to_vec();
    let (proxy, _bad, _good) = with_passive(mode, "statuses = \"500,502-504\"", answer);
    expect_ejection(&proxy, "requests are answered with a failure status");
    let (proxy, _bad, _good) = with_passive(mode, "", answer);
    (0..20).for_each(|_| drop(proxy.get("/")));
    assert_eq!(proxy.server(0)["state"], "up", "without the setting");
}

fn slow_answers_eject_a_server(mode: Mode) {
    let answer = || {
        std::thread::sleep(Duration::from_millis(600));
        Vec::new()
    };
    let (proxy, _bad, _good) = with_passive(mode, "", answer);
    expect_ejection(&proxy, "requests are not answered in time");
}

/// RFC 9112 section 9.3.1: a server may close an idle connection at any time.
fn an_idle_connection_that_closes_is_no_failure(mode: Mode) {
    let origins = [Origin::bind(), Origin::bind()];
    let addresses = [&origins[0], &origins[1]].map(|origin| &*origin.address);
    let proxy = Config::new(mode)
        .tables(ADMIN)
        .upstream(
            &addresses,
            "policy = \"first\"\n[upstream.passive]\nfall = 1",
        )
        .start();
    let mut client = proxy.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut upstream = origins[0].accept();
    for _ in 0..5 {
        upstream.request();
        upstream.send(ok("one"));
        client.response("GET");
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        upstream.request();
        drop(upstream);
        upstream = origins[0].accept();
    }
    upstream.request();
    upstream.send(ok("last"));
    assert_eq!(client.response("GET").text(), "last");
    assert_eq!(proxy.server(0)["state"], "up");
    assert_eq!(proxy.server(0)["failures"]["closed"], 5);
}

/// A sample origin as a process of its own, so that it can be killed.
struct Killable {
    child: Child,
    address: String,
}

impl Killable {
    fn start(name: &str, address: &str) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_ringlane"))
            .args(["origin", "--name", name, "--listen", address])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("an origin");
        let address: std::net::SocketAddr = address.parse().expect("an address");
        eventually("the origin listens", || {
            std::net::TcpStream::connect(address).is_ok()
        });
        Self {
            child,
            address: address.to_string(),
        }
    }

    /// SIGKILL.
    fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("a child of ours");
    }
}

impl Drop for Killable {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a free port")
        .to_string()
}

/// Attempts on each server so far.
fn attempts(proxy: &Proxy) -> [u64; 3] {
    let status = proxy.status();
    let servers = &status["upstreams"][0]["servers"];
    [0, 1, 2].map(|index| servers[index]["requests"].as_u64().unwrap_or(0))
}

fn since(proxy: &Proxy, before: [u64; 3]) -> [u64; 3] {
    let now = attempts(proxy);
    [0, 1, 2].map(|index| now[index] - before[index])
}

fn no_client_sees_a_killed_server(mode: Mode) {
    let mut origins = ["a", "b", "c"].map(|name| Killable::start(name, &free_address()));
    let addresses = [&origins[0], &origins[1], &origins[2]].map(|origin| &*origin.address);
    let proxy = Config::new(mode)
        .key("shards = 2")
        .tables(ADMIN)
        .upstream(
            &addresses,
            &format!("[upstream.health]\n{FAST}[upstream.passive]\nfall = 3\neject = \"500ms\""),
        )
        .start();
    let (stop, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    let client = || {
        let mut wire = proxy.connect();
        while !stop.load(Ordering::Relaxed) {
            assert_eq!(wire.get("/").status, 200);
            answered.fetch_add(1, Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..8).map(|_| scope.spawn(client)).collect();
        // Whatever fails, the clients must end, or the scope would wait for them.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            eventually("all serve", || attempts(&proxy).iter().all(|n| *n > 100));
            origins[1].kill();
            eventually("it is out", || proxy.server(1)["state"] != "up");
            std::thread::sleep(Duration::from_millis(50));
            let before = attempts(&proxy);
            std::thread::sleep(Duration::from_millis(1200));
            let [a, b, c] = since(&proxy, before);
            assert!(a > 100 && c > 100 && a.abs_diff(c) * 10 < a, "{a} and {c}");
            assert_eq!(b, 0, "nothing is sent to it");
            assert_ne!(proxy.server(1)["state"], "up");
            let address = origins[1].address.clone();
            origins[1] = Killable::start("b", &address);
            await_state(&proxy, 1, "up");
            let before = attempts(&proxy);
            eventually("shares can be told", || {
                since(&proxy, before).iter().sum::<u64>() > 1500
            });
            let [a, b, c] = since(&proxy, before);
            assert!(
                b.abs_diff(a) * 10 < a && b.abs_diff(c) * 10 < c,
                "{a} {b} {c}"
            );
        }));
        stop.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().expect("no client saw an error");
        }
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
    assert!(answered.into_inner() > 500);
}
