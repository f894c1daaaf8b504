//! A status listener with counters filled by hand.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use ringlane::admin::{Admin, Orders};
use ringlane::config;
use ringlane::telemetry::counters::{FailureKind, ShardCounters, StickyKind, TimeoutKind};
use ringlane::telemetry::view::{IoReport, ServerView, UpstreamView, View};

/// A name that is trouble in JSON and in labels.
pub(crate) const ODD_NAME: &str = "say \"hi\"\\\né";

/// Two shards; two upstreams, one with two servers and one with one.
pub(crate) fn view() -> Arc<View> {
    let server = |name: &str, address: &str| ServerView {
        name: name.into(),
        address: address.into(),
        weight: 3,
        backup: false,
    };
    Arc::new(View {
        shards: (0..2).map(|_| Arc::new(ShardCounters::new(3, 2))).collect(),
        upstreams: vec![
            UpstreamView {
                name: "app".into(),
                sticky: true,
                servers: vec![
                    server("a", "127.0.0.1:9001"),
                    server("b", "unix:/run/b.sock"),
                ],
            },
            UpstreamView {
                name: ODD_NAME.into(),
                sticky: false,
                servers: vec![server("c", "[::1]:9003")],
            },
        ],
        listens: vec!["0.0.0.0:8080".into()],
        routes: 4,
        io: IoReport {
            mode: "io_uring".into(),
            flags: "COOP_TASKRUN".into(),
            reason: Some("kernel 5.19 has no DEFER_TASKRUN".into()),
            ring_entries: 4096,
        },
        memory: None,
        started: SystemTime::UNIX_EPOCH + Duration::from_secs(971_186_136),
        started_instant: Instant::now(),
        draining: false.into(),
    })
}

/// Figures that differ by shard and server, so that a mix-up shows.
pub(crate) fn fill(view: &View) {
    let link = std::fs::read_link("/proc/thread-self").expect("proc is mounted");
    let thread_id = link
        .file_name()
        .and_then(|id| id.to_str()?.parse().ok())
        .expect("a thread id");
    view.shards[0].begin(thread_id, Some(3));
    view.shards[1].restarts.inc();
    for (number, shard) in (1..).zip(view.shards.iter()) {
        shard.accepted.add(10 * number);
        shard.connections.set(5 * number);
        shard.active.set(number);
        shard.requests.add(100 * number);
        (0..97 * number).for_each(|_| shard.responses.count(200));
        (0..number).for_each(|_| shard.responses.count(502));
        shard.own_answers.count(502);
        shard.own_answers.count(418);
        shard.timeout(TimeoutKind::ResponseHeader).add(number);
        shard.bytes_in.add(1000 * number);
        shard.new_upstream.add(7);
        for (server_number, server) in (1..).zip(&shard.servers) {
            server.requests.add(10 * number * server_number);
            server.active.set(server_number);
            server.idle.set(2 * server_number);
            server
                .failure(FailureKind::ConnectRefused)
                .add(server_number);
            server.sticky(StickyKind::Hit).add(number);
            server.sticky(StickyKind::Move).add(7);
            server.sticky(StickyKind::Insert).add(2 * number);
        }
        // Under 16 us each value has a bucket of its own, so the quantiles are exact.
        (1..=10).for_each(|us| shard.servers[1].latency.record(us));
    }
}

pub(crate) fn start(view: &Arc<View>) -> Admin {
    let config = config::Admin {
        address: (Ipv4Addr::LOCALHOST, 0).into(),
        orders: false,
        token: None,
    };
    let socket = Admin::bind(&config).expect("a free port");
    Admin::start(socket, Orders::Refused, Arc::clone(view), None).expect("a thread")
}

pub(crate) fn filled() -> (Arc<View>, Admin) {
    let view = view();
    fill(&view);
    let admin = start(&view);
    (view, admin)
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

pub(crate) fn connect(admin: &Admin) -> TcpStream {
    let stream = TcpStream::connect(admin.address()).expect("it listens");
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("not zero");
    stream
}

pub(crate) fn read_answer(mut stream: &TcpStream) -> Answer {
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("UTF-8 to the end");
    let (head, body) = text.split_once("\r\n\r\n").expect("a whole head");
    let status = head
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3)?.parse().ok())
        .expect("a status line");
    Answer {
        status,
        head: format!("{head}\r\n"),
        body: body.into(),
    }
}

pub(crate) fn exchange(admin: &Admin, request: &str) -> Answer {
    let mut stream = connect(admin);
    stream.write_all(request.as_bytes()).expect("it reads");
    read_answer(&stream)
}

pub(crate) fn get(admin: &Admin, path: &str) -> Answer {
    exchange(
        admin,
        &format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", admin.address()),
    )
}
