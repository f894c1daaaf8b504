//! Faults inside of the proxy stay where they happen: a panic in a connection ends that connection, a shard that dies is started again.

mod support;

use std::time::Duration;

use support::{
    Config, Mode, Origin, PATIENCE, Proxy, SLOWNESS, Served, Wire, eventually, in_each_mode, ok,
};

in_each_mode!(
    panic_in_a_connection,
    death_of_a_shard,
    servers_of_a_dead_shard,
    backlog_of_a_dead_shard,
    death_in_a_drain,
);

fn start(mode: Mode) -> (Proxy, Served) {
    let served = Origin::serve_text("fine");
    let proxy = Config::new(mode)
        .faults()
        .key("shards = 1")
        .tables("[admin]\naddress = \"127.0.0.1:0\"")
        .upstream(&[&served.address], "")
        .start();
    (proxy, served)
}

/// Asks for a fault and sees the connection end without an answer.
fn provoke(proxy: &Proxy, fault: &str) {
    let mut wire = proxy.connect();
    wire.send(format!(
        "GET /fault/{fault} HTTP/1.1\r\nHost: a.example\r\n\r\n"
    ));
    wire.expect_end();
}

fn panic_in_a_connection(mode: Mode) {
    let (proxy, _served) = start(mode);
    let mut other = proxy.connect();
    other.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n");
    assert_eq!(other.response("GET").status, 200);
    for _ in 0..3 {
        provoke(&proxy, "connection");
    }
    other.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n");
    assert_eq!(other.response("GET").status, 200, "the neighbour lives");
    drop(other);
    eventually("the panics are counted and nothing is left", || {
        let totals = &proxy.status()["totals"];
        totals["panics"] == 3 && totals["connections"] == 0 && totals["active"] == 0
    });
    assert_eq!(proxy.status()["shard_restarts"], 0);
}

fn death_of_a_shard(mode: Mode) {
    let (proxy, _served) = start(mode);
    let mut idle = proxy.connect();
    idle.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n");
    assert_eq!(idle.response("GET").status, 200);
    for deaths in 1..=2 {
        let mut wire = proxy.connect();
        wire.send("GET /fault/shard HTTP/1.1\r\nHost: a.example\r\n\r\n");
        // Its answer may or may not come before the shard dies; its connection ends with the shard.
        wire.read_to_end();
        eventually("the shard is started again", || {
            proxy.status()["shard_restarts"] == deaths
        });
        assert_eq!(proxy.get("/").status, 200, "served again");
    }
    idle.expect_end();
    assert!(
        proxy.log().iter().any(|line| line.contains("shard died")),
        "said in the log"
    );
}

/// Connections to servers end with their shard as those of clients do, whatever is under way on them, and no descriptor stays behind.
fn servers_of_a_dead_shard(mode: Mode) {
    let origin = Origin::bind();
    let (hole, _fillers) = Origin::black_hole();
    let proxy = Config::new(mode)
        .faults()
        .tables("[admin]\naddress = \"127.0.0.1:0\"")
        .upstream(&[&origin.address], "")
        .named_upstream("hole", &[&hole.address], "connect_timeout = \"60s\"")
        .tables("[[route]]\npath = \"/hole\"\nupstream = \"hole\"\n[[route]]\nupstream = \"app\"")
        .start();
    // Its shard has all that it needs once it has answered.
    let mut first = proxy.connect();
    first.send("?\r\n\r\n");
    first.read_to_end();
    drop(first);
    eventually("that client is gone", || {
        proxy.status()["totals"]["connections"] == 0
    });
    let before = proxy.descriptors();
    for deaths in 1..=2 {
        let mut wires = open_each_kind(&proxy, &origin);
        let mut wire = proxy.connect();
        wire.send("GET /fault/shard HTTP/1.1\r\nHost: a\r\n\r\n");
        wires.push(wire);
        for wire in &mut wires {
            wire.read_to_end();
        }
        drop(wires);
        eventually("the shard is started again", || {
            proxy.status()["shard_restarts"] == deaths
        });
        // The dead runtime keeps its own: a ring or an epoll instance.
        eventually("the shard's descriptors are closed", || {
            proxy.descriptors() <= before + deaths
        });
    }
}

/// Both ends of connections through a shard: with half a request, half an answer, a tunnel, and idle ones; and of one that is being made
/// the client's.
fn open_each_kind(proxy: &Proxy, origin: &Origin) -> Vec<Wire> {
    let mut connecting = proxy.connect();
    connecting.send("GET /hole HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut uploading = proxy.connect();
    uploading.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nhalf");
    let mut taking = origin.accept();
    taking.read_until(b"half");
    let mut wires = vec![connecting, uploading, taking];
    let (mut client, mut server) = proxy.reach(origin);
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nhalf");
    client.read_until(b"half");
    wires.extend([client, server]);
    wires.extend(<[Wire; 2]>::from(proxy.tunnel(origin)));
    // One for the next request, and one that stays idle.
    for (mut client, mut server) in [proxy.reach(origin), proxy.reach(origin)] {
        server.send(ok("fine"));
        assert_eq!(client.response("GET").status, 200);
        wires.extend([client, server]);
    }
    wires
}

/// Clients whom the kernel had let in and the shard had not: they are served when it is back.
fn backlog_of_a_dead_shard(mode: Mode) {
    if matches!(mode, Mode::Epoll) {
        // There an accept task takes all that waits before the sweeper has its turn.
        return;
    }
    let (proxy, _served) = start(mode);
    // The sweeper's next tick kills the shard. Where that comes before the process is stopped, an attempt does not count; nor where the
    // shard still accepts most of the clients, for those are lost with it.
    let salvaged = (1..=10).any(|attempt| {
        let answered = stopped_before_death(&proxy);
        eventually("the shard is started again", || {
            proxy.status()["shard_restarts"] == attempt
        });
        answered.is_some_and(|answered| answered > CLIENTS / 2 / SLOWNESS as usize)
    });
    assert!(salvaged, "clients that the dead shard had not accepted");
}

const CLIENTS: usize = 40;

/// Fills the backlog of a shard that is about to die; how many of these clients are answered.
fn stopped_before_death(proxy: &Proxy) -> Option<usize> {
    let mut wire = proxy.connect();
    wire.send("GET /fault/shard HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n");
    let alive = answered(&mut wire);
    proxy.suspend();
    let mut clients: Vec<Wire> = (0..CLIENTS)
        .map_while(|_| Wire::connect_to(&proxy.addresses[0].into()).ok())
        .collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n");
    }
    // When the process goes on, the tick is overdue and comes before most of the clients are accepted.
    std::thread::sleep(Duration::from_millis(300));
    proxy.resume();
    let answered = clients.iter_mut().map(answered).filter(|one| *one).count();
    (alive && clients.len() == CLIENTS).then_some(answered)
}

fn answered(wire: &mut Wire) -> bool {
    wire.read_to_end().0.starts_with(b"HTTP/1.1 200 ")
}

/// A shard that dies when a drain has closed its listeners: their numbers are others' by then, and those live on.
fn death_in_a_drain(mode: Mode) {
    let origin = Origin::bind();
    let mut proxy = Config::new(mode)
        .faults()
        .key("shards = 2")
        .key("shutdown_timeout = \"20s\"")
        .tables("[admin]\naddress = \"127.0.0.1:0\"")
        .upstream(&[&origin.address], "")
        .start();
    let mut last = proxy.connect();
    last.send("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /fault/shard HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut server = origin.accept();
    server.request();
    // Some of them are the other shard's, which keeps the process running.
    let others: Vec<_> = (0..16).map(|_| proxy.reach(&origin)).collect();
    proxy.signal("TERM");
    let listener = proxy.addresses[0].into();
    eventually("the listeners are closed", || {
        Wire::connect_to(&listener).is_err()
    });
    let strangers = connect_to_status(&proxy);
    server.send(ok("fine"));
    assert_eq!(last.response("GET").status, 200);
    eventually("the shard is started again", || {
        proxy.log().iter().any(|line| line.contains("shard died"))
    });
    for mut stranger in strangers {
        stranger.send("\r\n");
        assert_eq!(stranger.response("GET").status, 200, "a stranger's socket");
    }
    for (_, mut server) in others {
        server.try_send(ok("fine")).ok(); // some have ended with their shard
    }
    assert_eq!(proxy.exit_within(PATIENCE).code(), Some(0));
}

/// Clients of the status listener whose requests have begun: enough of them to have every low number.
fn connect_to_status(proxy: &Proxy) -> Vec<Wire> {
    let (before, count) = (proxy.descriptors(), 12);
    let connect = |_| {
        let mut client = Wire::connect(proxy.admin.expect("the status page is on"));
        client.send("GET /lb/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
        client
    };
    let clients = (0..count).map(connect).collect();
    // In order, so the first of them suffice; a listener may be closed a moment after the count.
    eventually("they are accepted", || {
        proxy.descriptors() >= before + count / 2
    });
    clients
}
