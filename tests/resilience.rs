//! Bad peers and empty resources cost bounded memory and time, end their own connection only, and leave nothing behind.

mod support;

use std::time::Duration;

use socket2::SockAddr;
use support::{Config, Mode, Origin, Proxy, QUIET, Wire, eventually, in_each_mode, ok};

in_each_mode!(
    ten_thousand_garbage_connections,
    descriptors_run_out,
    clients_that_vanish,
    origins_that_misbehave,
    idle_proxy_does_not_work,
    peers_that_have_finished_and_do_not_read_cost_nothing,
    nobody_gets_anothers_answer,
    address_in_use,
);

/// Cheap noise: the same in each run.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let step = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    std::iter::repeat_with(step).take(length).collect()
}

/// A message that was right before a few of its bytes were changed.
fn almost_right(seed: u64) -> Vec<u8> {
    let mut bytes = b"POST /x?y HTTP/1.1\r\nHost: a.example\r\nConnection: keep-alive, x\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n".to_vec();
    for change in noise(seed, 6).chunks(2) {
        let at = usize::from(change[0]) % bytes.len();
        bytes[at] = change[1];
    }
    bytes
}

/// What connecting clients leave in a proxy must go away again.
#[track_caller]
fn expect_nothing_left(proxy: &Proxy, before: usize) {
    eventually("descriptors are closed", || {
        proxy.descriptors() <= before + 4
    });
}

fn ten_thousand_garbage_connections(mode: Mode) {
    let served = Origin::serve_text("fine");
    let proxy = Config::new(mode)
        .tables("[log]\nlevel = \"warn,ringlane=info\"")
        .upstream(&[&served.address], "")
        .start();
    assert_eq!(proxy.get("/").text(), "fine");
    let (descriptors, memory) = (proxy.descriptors(), proxy.resident());
    let address = SockAddr::from(proxy.addresses[0]);
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let address = &address;
            scope.spawn(move || {
                for number in 0..2500 {
                    garbage_connection(address, thread * 2500 + number);
                }
            });
        }
    });
    assert_eq!(proxy.get("/").text(), "fine");
    expect_nothing_left(&proxy, descriptors);
    assert!(
        proxy.resident() < memory + (16 << 20),
        "grew from {memory} to {}",
        proxy.resident()
    );
    served.take_complaints(); // of chunked bodies that ended early
}

fn garbage_connection(address: &SockAddr, number: u64) {
    let mut wire = Wire::connect_to(address).expect("the proxy accepts");
    let bytes = match number % 4 {
        0 => noise(number, 300),
        1 => noise(number, 5),
        _ => almost_right(number),
    };
    wire.try_send(bytes).ok();
    match number % 5 {
        0 => wire.reset(),
        1 => {
            wire.finish_sending();
            wire.receive_within(Duration::from_millis(20)).ok();
        }
        _ => {}
    }
}

/// EMFILE: no spinning, and service again once descriptors are free.
fn descriptors_run_out(mode: Mode) {
    let served = Origin::serve_text("fine");
    let proxy = Config::new(mode)
        .descriptors(100)
        .upstream(&[&served.address], "")
        .start();
    assert_eq!(proxy.get("/").text(), "fine");
    let clients: Vec<Wire> = (0..200).map(|_| proxy.connect()).collect();
    std::thread::sleep(Duration::from_millis(200));
    proxy.expect_rest();
    drop(clients);
    eventually("service again", || {
        let Ok(mut client) = Wire::connect_to(&proxy.addresses[0].into()) else {
            return false;
        };
        client.try_send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").ok();
        client.receive_within(Duration::from_secs(1)).ok();
        client.unread().starts_with(b"HTTP/1.1 200")
    });
}

fn clients_that_vanish(mode: Mode) {
    let served = Origin::bind().serve(|request| ok(&"x".repeat(request.target.len() * 20_000)));
    let proxy = Config::new(mode).upstream(&[&served.address], "").start();
    assert_eq!(proxy.get("/").status, 200);
    let descriptors = proxy.descriptors();
    for number in 0..400 {
        let mut client = proxy.connect();
        client.send("GET /a/rather/long/target HTTP/1.1\r\nHost: a\r\n\r\n");
        if number % 2 == 0 {
            client.receive_within(Duration::from_millis(2)).ok();
        }
        if number % 3 == 0 {
            client.reset();
        }
    }
    assert_eq!(proxy.get("/").status, 200);
    eventually("upstream connections are pooled or closed", || {
        proxy.descriptors() <= descriptors + 70
    });
}

fn origins_that_misbehave(mode: Mode) {
    let origin = Origin::bind();
    let proxy = Config::new(mode)
        .upstream(
            &[&origin.address],
            "retries = 0\nresponse_header_timeout = \"300ms\"\npool = { max_idle = 0 }",
        )
        .start();
    // Its shard has all that it needs once it has answered.
    let mut first = proxy.connect();
    first.send("?\r\n\r\n");
    first.read_to_end();
    let descriptors = proxy.descriptors();
    for number in 0..300 {
        let mut client = proxy.connect();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut upstream = origin.accept();
        upstream.request();
        let mut bytes = b"HTTP/1.1 200 OK\r\nContent-Type: x/y\r\nTransfer-Encoding: chunked\r\n\r\n5;a\r\nhello\r\n0\r\nX: y\r\n\r\n".to_vec();
        for change in noise(number, 4).chunks(2) {
            let at = usize::from(change[0]) % bytes.len();
            bytes[at] = change[1];
        }
        upstream.try_send(bytes).ok();
        if number % 2 == 0 {
            upstream.reset();
        }
        client.receive_within(Duration::from_secs(2)).ok();
        assert!(
            client.unread().is_empty() || client.unread().starts_with(b"HTTP/1.1 "),
            "{}",
            client.unread().escape_ascii()
        );
    }
    expect_nothing_left(&proxy, descriptors);
}

fn idle_proxy_does_not_work(mode: Mode) {
    let served = Origin::serve_text("fine");
    let proxy = Config::new(mode).upstream(&[&served.address], "").start();
    let _clients: Vec<Wire> = (0..100)
        .map(|_| {
            let mut client = proxy.connect();
            client.get("/");
            client
        })
        .collect();
    let before = proxy.cpu_time();
    std::thread::sleep(Duration::from_secs(1));
    let used = proxy.cpu_time().saturating_sub(before);
    assert!(
        used <= Duration::from_millis(50),
        "{used:?} of processor time in an idle second"
    );
}

/// A client that has sent FIN, and the server of a tunnel: each with a full buffer before it.
fn peers_that_have_finished_and_do_not_read_cost_nothing(mode: Mode) {
    let origin = Origin::bind();
    let proxy = Config::new(mode).upstream(&[&origin.address], "").start();
    let (mut client, mut upstream) = proxy.reach(&origin);
    client.finish_sending();
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
    let (mut tunneled, mut server) = proxy.tunnel(&origin);
    server.finish_sending();
    std::thread::scope(|scope| {
        // Each is stuck until the other end goes.
        scope.spawn(|| upstream.try_send(vec![b'.'; 100 << 20]));
        scope.spawn(|| tunneled.try_send(vec![b'.'; 100 << 20]));
        std::thread::sleep(QUIET);
        proxy.expect_rest();
        drop((client, server));
    });
}

/// Many clients, few connections to the origin, bodies of all sizes, some clients leaving early: each answer belongs to its request.
fn nobody_gets_anothers_answer(mode: Mode) {
    let served = Origin::bind().serve(|request| {
        let size = request.target.bytes().map(usize::from).sum::<usize>() * 37 % 40_000;
        let body = format!(
            "{} {} {}",
            request.target,
            request.body.len(),
            "x".repeat(size)
        );
        if size % 2 == 0 {
            return ok(&body);
        }
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        format!("{head}{:x}\r\n{body}\r\n0\r\n\r\n", body.len()).into_bytes()
    });
    let proxy = Config::new(mode)
        .key("shards = 2")
        .upstream(&[&served.address], "pool = { max_idle = 3 }")
        .start();
    std::thread::scope(|scope| {
        for client in 0..16 {
            let proxy = &proxy;
            scope.spawn(move || (0..40).for_each(|number| ask_or_leave(proxy, client, number)));
        }
    });
}

fn ask_or_leave(proxy: &Proxy, client: usize, number: usize) {
    let mut wire = proxy.connect();
    for turn in 0..3 {
        let (target, length) = (format!("/{client}/{number}/{turn}"), number * 211);
        let body = "y".repeat(length);
        wire.send(format!(
            "POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{body}"
        ));
        if (client + number + turn).is_multiple_of(7) {
            return; // without waiting for the answer
        }
        let text = wire.response("POST").text();
        assert!(
            text.starts_with(&format!("{target} {length} ")),
            "{target} got {text:.60}"
        );
    }
}

/// Somebody else listens there: an error that says so, not a proxy that gets half of the connections.
fn address_in_use(mode: Mode) {
    let taken = Origin::bind();
    let (status, log) = Config::new(mode)
        .tables(&format!("[[listen]]\naddress = \"{}\"", taken.address))
        .upstream(&[&taken.address], "")
        .start_to_fail();
    assert!(status.code().is_some_and(|code| code != 0), "{status:?}");
    assert!(
        log.contains(&taken.address) && !log.contains("panicked"),
        "{log}"
    );
}
