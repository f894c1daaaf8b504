//! The health monitor against scripted servers on real sockets.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use http::{HeaderValue, Method};
use ringlane::config::{Check, CheckKind, HttpCheck, Passive};
use ringlane::health::table::Entry;
use ringlane::health::{
    Cause, Change, Failure, Group, Locate, Monitor, Reporter, State, Steer, Target,
};
use ringlane::net::connect::{Address, Options};
use ringlane::net::source::Sources;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const UNAVAILABLE: &str = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A server that answers every request with the script of the moment; an empty one is silence.
struct Origin {
    address: SocketAddr,
    script: Arc<Mutex<String>>,
    /// When each request came, and its text.
    requests: Arc<Mutex<Vec<(Instant, String)>>>,
    /// Connections that the client ended in order, after reading all.
    clean_ends: Arc<AtomicUsize>,
}

impl Origin {
    fn new(script: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let origin = Self {
            address: listener.local_addr().expect("bound"),
            script: Arc::new(Mutex::new(script.to_owned())),
            requests: Arc::default(),
            clean_ends: Arc::default(),
        };
        let (script, requests, clean) = (
            Arc::clone(&origin.script),
            Arc::clone(&origin.requests),
            Arc::clone(&origin.clean_ends),
        );
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (script, requests, clean) = (
                    Arc::clone(&script),
                    Arc::clone(&requests),
                    Arc::clone(&clean),
                );
                thread::spawn(move || serve(stream, &script, &requests, &clean));
            }
        });
        origin
    }

    fn answer(&self, script: &str) {
        script.clone_into(&mut self.script.lock().expect("not poisoned"));
    }

    fn locate(&self) -> Locate {
        at(self.address)
    }

    fn requests(&self) -> Vec<(Instant, String)> {
        self.requests.lock().expect("not poisoned").clone()
    }
}

fn serve(
    mut stream: TcpStream,
    script: &Mutex<String>,
    requests: &Mutex<Vec<(Instant, String)>>,
    clean_ends: &AtomicUsize,
) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if !matches!(stream.read(&mut byte), Ok(1)) {
            return;
        }
        head.push(byte[0]);
    }
    requests
        .lock()
        .expect("not poisoned")
        .push((Instant::now(), String::from_utf8_lossy(&head).into()));
    let answer = script.lock().expect("not poisoned").clone();
    if answer.is_empty() {
        thread::sleep(Duration::from_secs(20));
    } else if stream.write_all(answer.as_bytes()).is_ok() {
        let _ = stream.shutdown(std::net::Shutdown::Write);
        if matches!(stream.read(&mut [0]), Ok(0)) {
            clean_ends.fetch_add(1, Ordering::SeqCst);
        }
    }
}

fn at(address: SocketAddr) -> Locate {
    Arc::new(move || vec![Address::Socket(address)])
}

/// An address that refuses connections: its port was free a moment ago.
fn refusing() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a port")
}

fn fast_check(http: HttpCheck) -> Check {
    Check {
        kind: CheckKind::Http(http),
        interval: ms(60),
        fast_interval: ms(20),
        timeout: ms(300),
        rise: 2,
        fall: 3,
        port: None,
    }
}

fn plain_http() -> HttpCheck {
    HttpCheck {
        method: Method::GET,
        path: "/health".parse().expect("a path"),
        host: None,
        headers: Vec::new(),
        expect: "2xx,3xx".parse().expect("statuses"),
        body: None,
        body_limit_bytes: 64 * 1024,
    }
}

fn quick_passive() -> Passive {
    Passive {
        fall: 3,
        window: Duration::from_secs(10),
        eject_max: ms(5000),
        eject: ms(400),
        max_ejected_percent: 50,
        statuses: None,
    }
}

fn targets(servers: Vec<Locate>) -> Vec<Target> {
    let target = |locate| Target {
        upstream: "app".into(),
        name: "a".into(),
        locate,
        host: HeaderValue::from_static("localhost"),
        connecting: Options::default(),
        weight: 1,
    };
    servers.into_iter().map(target).collect()
}

type Changes = Arc<Mutex<Vec<Change>>>;

fn start(groups: Vec<Group>, shards: usize) -> (Monitor, Vec<Reporter>, Changes) {
    let changes = Changes::default();
    let sink = Arc::clone(&changes);
    let on_change = move |change: &Change| sink.lock().expect("not poisoned").push(change.clone());
    let (monitor, reporters) = Monitor::start(groups, shards, on_change).expect("a thread");
    (monitor, reporters, changes)
}

fn probed(servers: Vec<Locate>, check: Check) -> Vec<Group> {
    vec![Group {
        servers: targets(servers),
        check: Some(check),
        passive: None,
    }]
}

fn entry(monitor: &Monitor, server: usize) -> Entry {
    monitor
        .table()
        .read(server)
        .expect("nobody interrupts the writer for long")
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(
            started.elapsed() < Duration::from_secs(10),
            "waited in vain for: {what}"
        );
        thread::sleep(ms(1));
    }
}

fn wait_for_state(monitor: &Monitor, server: usize, state: State) {
    wait_for(&format!("server {server} {state:?}"), || {
        entry(monitor, server).state == state
    });
}

fn wait_for_probe(monitor: &Monitor, server: usize) -> Cause {
    wait_for("a probe", || entry(monitor, server).last_probe.is_some());
    entry(monitor, server).last_probe.expect("just seen").result
}

#[test]
fn a_server_goes_down_after_fall_failures_and_up_after_rise_successes() {
    let origin = Origin::new(OK);
    let (monitor, _, changes) = start(probed(vec![origin.locate()], fast_check(plain_http())), 1);
    assert_eq!(wait_for_probe(&monitor, 0), Cause::ProbeOk);
    let seen = monitor.table().changed(0).expect("the first look");
    thread::sleep(ms(150));
    assert_eq!(
        monitor.table().changed(seen),
        None,
        "probes that change nothing do not bother the shards"
    );

    let good = origin.requests().len();
    origin.answer(UNAVAILABLE);
    wait_for_state(&monitor, 0, State::Down);
    assert!(
        origin.requests().len() >= good + 3,
        "one failure is not enough"
    );
    assert!(monitor.table().changed(seen).is_some());

    origin.answer(OK);
    wait_for_state(&monitor, 0, State::Up);
    let changes = changes.lock().expect("not poisoned");
    let steps: Vec<_> = changes
        .iter()
        .map(|c| (c.server, c.before.state, c.entry.state, c.entry.cause))
        .collect();
    assert_eq!(
        steps,
        [
            (0, State::Up, State::Down, Cause::Status),
            (0, State::Down, State::Up, Cause::ProbeOk)
        ]
    );
}

#[test]
fn answers_are_judged_by_status_body_and_form() {
    let text = |body: &str| HttpCheck {
        body: Some(body.to_owned()),
        ..plain_http()
    };
    let expect = |statuses: &str| HttpCheck {
        expect: statuses.parse().expect("statuses"),
        ..plain_http()
    };
    let bounded = HttpCheck {
        body_limit_bytes: 4,
        ..text("ready")
    };
    let chunked =
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nrea\r\n2\r\ndy\r\n0\r\n\r\n";
    let not_chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nready";
    let two_framings = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n";
    // The text lies across two reads of 4 KiB.
    let head = "HTTP/1.1 200 OK\r\n\r\n";
    let across = format!("{head}{}ready", "x".repeat(4094 - head.len()));
    let long_interims = format!("{}{OK}", "HTTP/1.1 100 Continue\r\n\r\n".repeat(2000));
    let plain = plain_http;
    let cases = [
        (&*long_interims, plain(), Cause::NotHttp),
        (OK, plain(), Cause::ProbeOk),
        ("HTTP/1.0 302 Found\r\n\r\n", plain(), Cause::ProbeOk),
        (
            "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
            plain(),
            Cause::ProbeOk,
        ),
        ("HTTP/1.1 404 Not Found\r\n\r\n", plain(), Cause::Status),
        (
            "HTTP/1.1 404 Not Found\r\n\r\n",
            expect("404,500-503"),
            Cause::ProbeOk,
        ),
        (OK, expect("204"), Cause::Status),
        ("SSH-2.0-OpenSSH_9.2\r\n", plain(), Cause::NotHttp),
        ("HTTP/1.1 200 OK\r\nContent-Le", plain(), Cause::Closed),
        ("", plain(), Cause::Timeout),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nready",
            text("ready"),
            Cause::ProbeOk,
        ),
        (
            "HTTP/1.1 200 OK\r\n\r\nnot ready yet",
            text("ready"),
            Cause::ProbeOk,
        ),
        (
            "HTTP/1.1 200 OK\r\n\r\nstarting",
            text("ready"),
            Cause::Body,
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nready",
            text("ready"),
            Cause::Body,
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nrea",
            text("ready"),
            Cause::Closed,
        ),
        ("HTTP/1.1 200 OK\r\n\r\nready", bounded, Cause::Body),
        (chunked, text("ready"), Cause::ProbeOk),
        (&across, text("ready"), Cause::ProbeOk),
        (not_chunked, text("ready"), Cause::NotHttp),
        // Without a text to look for, only the head counts.
        (not_chunked, plain(), Cause::ProbeOk),
        (two_framings, plain(), Cause::NotHttp),
    ];
    let origins: Vec<_> = cases
        .iter()
        .map(|(script, ..)| Origin::new(script))
        .collect();
    let group = |(origin, (_, http, _)): (&Origin, &(&str, HttpCheck, Cause))| Group {
        servers: targets(vec![origin.locate()]),
        check: Some(fast_check(http.clone())),
        passive: None,
    };
    let (monitor, ..) = start(origins.iter().zip(&cases).map(group).collect(), 1);
    for (server, (script, _, cause)) in cases.iter().enumerate() {
        assert_eq!(
            wait_for_probe(&monitor, server),
            *cause,
            "case {server}: {}",
            script.escape_debug()
        );
        let state = if *cause == Cause::ProbeOk {
            State::Up
        } else {
            State::Down
        };
        wait_for_state(&monitor, server, state);
    }
}

#[test]
fn probes_go_where_they_are_told() {
    let origin = Origin::new(OK);
    let directory = std::env::temp_dir().join(format!("ringlane-health-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory");
    let path = directory.join("origin.sock");
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).expect("a socket");
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(OK.as_bytes());
        }
    });
    let unix = |path: &std::path::Path| -> Locate {
        let path = path.to_owned();
        Arc::new(move || vec![Address::Unix(path.clone())])
    };
    let http = || fast_check(plain_http());
    let tcp = || Check {
        kind: CheckKind::Tcp,
        ..http()
    };
    let port = Check {
        port: Some(origin.address.port()),
        ..http()
    };
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let silent = silent.local_addr().expect("bound");
    let all = |addresses: [SocketAddr; 2]| -> Locate {
        Arc::new(move || addresses.map(Address::Socket).into())
    };
    let cases: [(Locate, Check, Cause); 10] = [
        (origin.locate(), http(), Cause::ProbeOk),
        (at(refusing()), http(), Cause::Connect),
        (at(refusing()), tcp(), Cause::Connect),
        (at(silent), tcp(), Cause::ProbeOk),
        (at(refusing()), port, Cause::ProbeOk),
        (unix(&path), http(), Cause::ProbeOk),
        (unix(&directory.join("nobody.sock")), http(), Cause::Connect),
        (Arc::new(Vec::new), http(), Cause::NoAddress),
        (all([refusing(), origin.address]), http(), Cause::ProbeOk),
        (all([silent, origin.address]), http(), Cause::Timeout),
    ];
    let group = |(locate, check, _): &(Locate, Check, Cause)| Group {
        servers: targets(vec![Arc::clone(locate)]),
        check: Some(check.clone()),
        passive: None,
    };
    let (monitor, ..) = start(cases.iter().map(group).collect(), 1);
    for (server, (.., cause)) in cases.iter().enumerate() {
        assert_eq!(wait_for_probe(&monitor, server), *cause, "case {server}");
    }
    // Requests stay with the address that took the last connection, and so do probes.
    let since = entry(&monitor, 9).last_probe.expect("seen").at_ms;
    wait_for("another probe", || {
        entry(&monitor, 9)
            .last_probe
            .is_some_and(|probe| probe.at_ms > since)
    });
    assert_eq!(wait_for_probe(&monitor, 9), Cause::Timeout);
    drop(monitor);
    std::fs::remove_dir_all(&directory).expect("ours");
}

/// Takes what the monitor says.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("not poisoned").write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_probe_that_cannot_be_made_is_told_by_name() {
    let log = Log::default();
    let writer = log.clone();
    // For all threads of this file's tests.
    tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .init();
    let mut groups = probed(vec![at(refusing())], fast_check(plain_http()));
    let target = &mut groups[0].servers[0];
    target.name = "of ours".into();
    // A documentation address, which no machine has.
    target.connecting.sources = Sources::new(&["192.0.2.1".parse().expect("an address")]);
    let (_monitor, ..) = start(groups, 1);
    wait_for("a line", || {
        let text = log.0.lock().expect("not poisoned");
        let text = String::from_utf8_lossy(&text);
        let mut lines = text.lines().filter(|line| line.contains("cannot probe"));
        lines.any(|line| line.contains("upstream=\"app\" server=\"of ours\""))
    });
}

#[test]
fn the_request_is_as_configured_and_the_answer_is_read_to_its_end() {
    let body = "x".repeat(30_000);
    let origin = Origin::new(&format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    let http = HttpCheck {
        path: "/ready?full=1".parse().expect("a path"),
        host: Some(HeaderValue::from_static("app.example")),
        headers: vec![(
            "x-probe".parse().expect("a name"),
            "yes".parse().expect("a value"),
        )],
        ..plain_http()
    };
    let (monitor, ..) = start(probed(vec![origin.locate()], fast_check(http)), 1);
    wait_for("answers read to their end", || {
        origin.clean_ends.load(Ordering::SeqCst) >= 3
    });
    drop(monitor);
    let requests = origin.requests();
    let (_, request) = &requests[0];
    assert!(
        request.starts_with("GET /ready?full=1 HTTP/1.1\r\nHost: app.example\r\n"),
        "{request}"
    );
    for field in [
        "user-agent: ringlane/",
        "Connection: close\r\n",
        "x-probe: yes\r\n",
    ] {
        assert!(request.contains(field), "{field} in {request}");
    }
    let ends = origin.clean_ends.load(Ordering::SeqCst);
    assert!(
        requests.len() - ends <= 1,
        "{ends} of {} ended in order",
        requests.len()
    );
}

#[test]
fn hundreds_of_silent_servers_do_not_delay_the_others() {
    let silent: Vec<_> = (0..10)
        .map(|_| TcpListener::bind("127.0.0.1:0").expect("a port"))
        .collect();
    let origin = Origin::new(OK);
    let mut servers: Vec<_> = (0..400)
        .map(|at_place| at(silent[at_place % 10].local_addr().expect("bound")))
        .collect();
    servers.push(origin.locate());
    let check = Check {
        timeout: Duration::from_secs(2),
        ..fast_check(plain_http())
    };
    let (monitor, ..) = start(probed(servers, check), 1);
    wait_for("a second of probes", || origin.requests().len() > 15);
    let times: Vec<_> = origin.requests().iter().map(|(at, _)| *at).collect();
    let mut gaps: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    gaps.sort();
    assert!(gaps[gaps.len() / 2] < ms(90), "{gaps:?}");
    origin.answer(UNAVAILABLE);
    let started = Instant::now();
    wait_for_state(&monitor, 400, State::Down);
    assert!(started.elapsed() < ms(1000), "{:?}", started.elapsed());
    wait_for_state(&monitor, 0, State::Down);
    assert_eq!(entry(&monitor, 0).cause, Cause::Timeout);
}

#[test]
fn interim_responses_without_end_hold_up_nobody() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let flooding = listener.local_addr().expect("bound");
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let interims = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(1000);
            // Not for ever, so that a monitor that reads it all fails the test instead of hanging it.
            let end = Instant::now() + Duration::from_secs(4);
            thread::spawn(move || {
                while Instant::now() < end && stream.write_all(interims.as_bytes()).is_ok() {}
            });
        }
    });
    let origin = Origin::new(OK);
    let servers = vec![at(flooding), origin.locate()];
    let (monitor, ..) = start(probed(servers, fast_check(plain_http())), 1);
    let started = Instant::now();
    wait_for_state(&monitor, 0, State::Down);
    wait_for("probes of the other", || origin.requests().len() > 10);
    assert!(
        started.elapsed() < Duration::from_secs(3),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(entry(&monitor, 0).cause, Cause::NotHttp);
}

#[test]
fn probes_come_at_the_interval_with_jitter() {
    let origin = Origin::new(OK);
    let (_monitor, ..) = start(probed(vec![origin.locate()], fast_check(plain_http())), 1);
    wait_for("probes", || origin.requests().len() > 20);
    let times: Vec<_> = origin.requests().iter().map(|(at, _)| *at).collect();
    let mut gaps: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    gaps.sort();
    assert!(gaps[4] > ms(45) && gaps[10] < ms(80), "{gaps:?}");
    assert!(gaps[15] > gaps[4] + ms(1), "they are not in step: {gaps:?}");
}

#[test]
fn failures_that_shards_report_eject_a_server_at_once() {
    let origins: Vec<_> = (0..2).map(|_| Origin::new(OK)).collect();
    let group = Group {
        servers: targets(origins.iter().map(Origin::locate).collect()),
        check: Some(fast_check(plain_http())),
        passive: Some(quick_passive()),
    };
    let (monitor, reporters, changes) = start(vec![group], 2);
    wait_for_probe(&monitor, 0);
    let seen = monitor.table().changed(0).expect("the first look");
    reporters[0].failed(0, Failure::Reset);
    reporters[1].failed(0, Failure::Reset);
    thread::sleep(ms(30));
    assert_eq!(entry(&monitor, 0).state, State::Up, "two of three");
    let started = Instant::now();
    reporters[0].failed(0, Failure::Connect);
    wait_for("every shard's notice", || {
        monitor.table().changed(seen).is_some()
    });
    let took = started.elapsed();
    assert!(took < ms(50), "{took:?}");
    assert_eq!(entry(&monitor, 0).state, State::Ejected);

    for _ in 0..10 {
        reporters[1].failed(1, Failure::Timeout);
    }
    thread::sleep(ms(50));
    assert_eq!(entry(&monitor, 1).state, State::Up, "half of two is one");

    wait_for_state(&monitor, 0, State::Up);
    let changes = changes.lock().expect("not poisoned");
    let steps: Vec<_> = changes
        .iter()
        .map(|c| (c.server, c.entry.state, c.entry.cause))
        .collect();
    assert_eq!(
        steps,
        [
            (0, State::Ejected, Cause::RequestsConnect),
            (0, State::Up, Cause::ProbeOk)
        ]
    );
    let out_ms = changes[1].entry.since_ms - changes[0].entry.since_ms;
    assert!((400..900).contains(&out_ms), "{out_ms} ms");
}

#[test]
fn ejections_grow_and_end_by_themselves_without_probes() {
    let servers = vec![at(refusing()), at(refusing())];
    let passive = Passive {
        eject: ms(300),
        ..quick_passive()
    };
    let (monitor, reporters, changes) = start(
        vec![Group {
            servers: targets(servers),
            check: None,
            passive: Some(passive),
        }],
        1,
    );
    for _ in 0..2 {
        (0..3).for_each(|_| reporters[0].failed(1, Failure::Connect));
        wait_for_state(&monitor, 1, State::Ejected);
        wait_for_state(&monitor, 1, State::Up);
    }
    let changes = changes.lock().expect("not poisoned");
    assert!(
        changes
            .iter()
            .skip(1)
            .step_by(2)
            .all(|c| c.entry.cause == Cause::EjectionOver)
    );
    let lengths: Vec<_> = changes
        .chunks(2)
        .map(|pair| pair[1].entry.since_ms - pair[0].entry.since_ms)
        .collect();
    assert!(
        (300..600).contains(&lengths[0]) && (600..900).contains(&lengths[1]),
        "{lengths:?}"
    );
}

/// The second server gets nothing, be it by the file or by order, so that the first is the only one that serves.
#[test]
fn a_server_of_weight_0_is_none_to_fall_back_on() {
    for (configured, ordered) in [(0, None), (1, Some(0)), (0, Some(1)), (1, None)] {
        let mut servers = targets(vec![at(refusing()); 2]);
        servers[1].weight = configured;
        let group = Group {
            servers,
            check: None,
            passive: Some(quick_passive()),
        };
        let (monitor, reporters, _changes) = start(vec![group], 1);
        if ordered.is_some() {
            let entry = monitor.helm().steer(1, Steer::Weight(ordered));
            assert!(entry.is_some(), "the order is carried out");
        }
        let fail = |server| (0..3).for_each(|_| reporters[0].failed(server, Failure::Connect));
        fail(0);
        if ordered.unwrap_or(configured) > 0 {
            wait_for_state(&monitor, 0, State::Ejected);
            continue;
        }
        // The reports on the first server are heard before, or with, those on the second, which may go.
        fail(1);
        wait_for_state(&monitor, 1, State::Ejected);
        assert_eq!(
            entry(&monitor, 0).state,
            State::Up,
            "{configured} {ordered:?}"
        );
    }
}

#[test]
fn a_storm_of_reports_is_gathered() {
    let (monitor, reporters, changes) = start(
        vec![Group {
            servers: targets(vec![at(refusing()); 3]),
            check: None,
            passive: Some(quick_passive()),
        }],
        4,
    );
    thread::scope(|scope| {
        for reporter in reporters {
            scope
                .spawn(move || (0..100_000).for_each(|n| reporter.failed(n % 3, Failure::Connect)));
        }
    });
    wait_for("an ejection", || {
        !changes.lock().expect("not poisoned").is_empty()
    });
    let out = (0..3)
        .filter(|&server| entry(&monitor, server).state == State::Ejected)
        .count();
    assert_eq!(out, 1, "half of three, rounded down");
}

#[test]
fn the_monitor_survives_a_panic_and_says_so() {
    let (bad, good) = (Origin::new(UNAVAILABLE), Origin::new(OK));
    let groups = probed(vec![bad.locate(), good.locate()], fast_check(plain_http()));
    let mut panics = 1;
    let on_change = move |_: &Change| {
        if panics > 0 {
            panics -= 1;
            panic!("once");
        }
    };
    let (monitor, _) = Monitor::start(groups, 1, on_change).expect("a thread");
    wait_for("the table marked stale", || {
        monitor.table().age_ms(monitor.clock().now_ms()).is_none()
    });
    assert_eq!(
        entry(&monitor, 0).state,
        State::Down,
        "what was known stays"
    );
    wait_for("a beat of the new thread", || {
        monitor.table().age_ms(monitor.clock().now_ms()).is_some()
    });
    let before = good.requests().len();
    wait_for("probes again", || good.requests().len() > before + 2);
    bad.answer(OK);
    wait_for_state(&monitor, 0, State::Up);
}

#[test]
fn the_table_is_fresh_while_the_monitor_lives_and_dropping_ends_it() {
    let origin = Origin::new("");
    let (monitor, ..) = start(probed(vec![origin.locate()], fast_check(plain_http())), 1);
    for _ in 0..20 {
        thread::sleep(ms(20));
        let age_ms = monitor.table().age_ms(monitor.clock().now_ms());
        assert!(age_ms.is_some_and(|age_ms| age_ms < 1000), "{age_ms:?}");
    }
    let started = Instant::now();
    drop(monitor);
    assert!(
        started.elapsed() < ms(200),
        "a probe under way does not hold it up: {:?}",
        started.elapsed()
    );
}
