//! A ceiling for the heap (`limits.memory`): what is only kept for later goes first, then large buffers, then new requests get 503
//! (RFC 9110 sections 15.6.4 and 10.2.3). What is under way goes on, and service begins again when there is room.

mod support;

use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use serde_json::Value;
use support::{Config, Mode, Origin, PATIENCE, Proxy, Wire, eventually, in_each_mode, ok};

in_each_mode!(
    short_of_memory,
    buffers_shrink_before_anyone_is_refused,
    killed_without_a_ceiling_and_not_with_one,
    what_shards_allocate_is_foreseen,
);

const ADMIN: &str = "[admin]\naddress = \"127.0.0.1:0\"\n";
const REQUEST: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const SIGABRT: i32 = 6;

fn status(proxy: &Proxy) -> Value {
    serde_json::from_str(&proxy.page("/lb/status")).expect("JSON")
}

fn room(proxy: &Proxy) -> String {
    let room = &status(proxy)["memory"]["room"];
    room.as_str().expect("there is a ceiling").to_owned()
}

fn heap_bytes(proxy: &Proxy) -> u64 {
    status(proxy)["memory"]["heap_bytes"]
        .as_u64()
        .expect("a number")
}

/// The beginning of a head that never ends, as long as told.
fn endless_head(bytes: usize) -> String {
    let mut head = "GET / HTTP/1.1\r\nHost: a\r\nX-Long: ".to_owned();
    head.push_str(&"x".repeat(bytes));
    head
}

/// A client whose head has begun. Where it is refused meanwhile, not all of it may be read.
#[track_caller]
fn begin(proxy: &Proxy, head_bytes: usize) -> Wire {
    let total = |name| status(proxy)["totals"][name].as_u64().expect("a number");
    let (read, refused) = (total("bytes_in"), total("refused_memory"));
    let mut client = proxy.connect();
    client.send(endless_head(head_bytes));
    eventually("the head is there or refused", || {
        total("bytes_in") >= read + head_bytes as u64 || total("refused_memory") > refused
    });
    client
}

/// Such clients, as many as it takes until there is so much room.
#[track_caller]
fn fill(proxy: &Proxy, head_bytes: usize, until: &str) -> Vec<Wire> {
    let mut clients = Vec::new();
    while room(proxy) != until {
        assert!(clients.len() < 100, "{}", status(proxy)["memory"]);
        clients.push(begin(proxy, head_bytes));
    }
    clients
}

#[track_caller]
fn expect_refused(client: &mut Wire) {
    let answer = client.response("GET");
    assert_eq!(answer.status, 503);
    assert_eq!(answer.head.value("retry-after"), Some("1"));
    assert!(answer.head.lists("connection", "close"));
    assert_eq!(answer.text(), "{\"error\":\"memory is short\"}\n");
    client.finish_sending();
    client.expect_end();
}

fn count(proxy: &Proxy, said: &str) -> usize {
    let log = proxy.log();
    log.iter().filter(|line| line.contains(said)).count()
}

fn short_of_memory(mode: Mode) {
    const CEILING: u64 = 16 << 20;
    let origin = Origin::bind();
    let proxy = Config::new(mode)
        .tables(ADMIN)
        .tables("[limits]\nmemory = \"16MiB\"\nhead = \"1MiB\"")
        .tables("[timeouts]\nclient_header = \"60s\"")
        .upstream(&[&origin.address], "")
        .start();
    let at_start = heap_bytes(&proxy);
    let mut under_way = proxy.connect();
    under_way.send(REQUEST);
    let mut upstream = origin.accept();
    upstream.request();

    let mut stuck = fill(&proxy, 600_000, "short");
    let memory = status(&proxy)["memory"].clone();
    assert_eq!(memory["ceiling_bytes"], CEILING);
    assert!(memory["heap_bytes"].as_u64() > Some(CEILING / 10 * 9));
    eventually("a shard has seen it", || count(&proxy, "is short") == 1);
    let refused_memory = || status(&proxy)["totals"]["refused_memory"].as_u64();
    // The last head was perhaps refused before it was there.
    let mut refused = refused_memory().expect("a number");
    for _ in 0..20 {
        let mut client = proxy.connect();
        client.send(REQUEST);
        expect_refused(&mut client);
        refused += 1;
    }
    assert_eq!(refused_memory(), Some(refused));
    let metrics = proxy.page("/metrics");
    for line in [
        format!("ringlane_heap_ceiling_bytes {CEILING}"),
        "ringlane_memory_short 1".to_owned(),
        "ringlane_memory_shortages_total 1".to_owned(),
        format!("ringlane_refused_memory_total{{shard=\"0\"}} {refused}"),
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line}");
    }
    let before = proxy.cpu_time();
    std::thread::sleep(Duration::from_secs(1));
    let used = proxy.cpu_time().saturating_sub(before);
    assert!(used < Duration::from_millis(250), "spins: {used:?}");

    let body = "y".repeat(1_000_000);
    upstream.send(ok(&body));
    assert_eq!(under_way.response("GET").text(), body, "it goes on");
    // A head that would take more is refused, and what it took is given back.
    let before = heap_bytes(&proxy);
    let mut growing = stuck.swap_remove(0);
    growing.send("and more");
    expect_refused(&mut growing);
    // The proxy's side ends only when it has seen the client's end.
    eventually("given back", || heap_bytes(&proxy) < before - 500_000);

    drop(stuck);
    eventually("room again", || room(&proxy) == "ample");
    std::thread::sleep(Duration::from_millis(200));
    let mut client = proxy.connect();
    client.send(REQUEST);
    upstream.request();
    upstream.send(ok("fine"));
    assert_eq!(client.response("GET").text(), "fine");
    assert!(heap_bytes(&proxy) < at_start + (1 << 20), "nothing is left");
    eventually("the log says so", || count(&proxy, "no longer short") == 1);
    assert_eq!(count(&proxy, "memory is short"), 1);
    assert_eq!(status(&proxy)["memory"]["shortages"], 1);
}

/// Slow readers would hold 128 KiB each.
fn buffers_shrink_before_anyone_is_refused(mode: Mode) {
    const READERS: u64 = 20;
    let body = "y".repeat(400_000);
    let served = Origin::bind().serve({
        let answer = ok(&body);
        move |_| answer.clone()
    });
    let proxy = Config::new(mode)
        .tables(ADMIN)
        .tables(
            "[limits]\nmemory = \"16MiB\"\nhead = \"256KiB\"\n[timeouts]\nclient_header = \"60s\"",
        )
        .tables("[[listen]]\naddress = \"127.0.0.1:0\"\nsend_buffer = \"4KiB\"")
        .upstream(&[&served.address], "")
        .start();
    let mut stuck = fill(&proxy, 200_000, "tight");
    // So far from the border that what the status page takes does not matter.
    stuck.extend((0..2).map(|_| begin(&proxy, 200_000)));
    std::thread::sleep(Duration::from_millis(200));
    let before = heap_bytes(&proxy);
    let mut readers: Vec<Wire> = (0..READERS).map(|_| proxy.connect()).collect();
    for reader in &mut readers {
        reader.send(REQUEST);
    }
    let begun = || status(&proxy)["upstreams"][0]["servers"][0]["responses"]["2xx"].as_u64();
    eventually("all have begun", || begun() == Some(READERS));
    std::thread::sleep(Duration::from_millis(500));
    let taken = heap_bytes(&proxy).saturating_sub(before);
    assert!(taken < READERS * 16 * 1024, "{taken} bytes");
    assert_eq!(room(&proxy), "tight");
    for reader in &mut readers {
        assert_eq!(reader.response("GET").text(), body);
    }
    assert_eq!(proxy.get("/").text(), body);
    // What no longer comes in one piece is whole all the same.
    let mut client = proxy.connect();
    let (long, upload) = ("z".repeat(8000), "u".repeat(300_000));
    client.send(format!(
        "POST /1 HTTP/1.1\r\nHost: a\r\nX-Long: {long}\r\nContent-Length: {}\r\n\r\n{upload}GET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
        upload.len()
    ));
    assert_eq!(client.response("POST").text(), body);
    assert_eq!(client.response("GET").text(), body);
    let last = served.requests().split_off(READERS as usize + 1);
    assert_eq!(last[0].body, upload.as_bytes());
    assert_eq!(last[0].head.value("x-long"), Some(long.as_str()));
    assert_eq!(last[1].target, "/2");
    let status = status(&proxy);
    assert_eq!(status["totals"]["refused_memory"], 0);
    assert_eq!(status["memory"]["shortages"], 0, "{}", status["memory"]);
    assert_eq!(status["memory"]["room"], "tight", "{}", status["memory"]);
}

/// The same load under the same hard limit (`RLIMIT_DATA`): it ends a process that does not see it coming.
fn killed_without_a_ceiling_and_not_with_one(mode: Mode) {
    const CLIENTS: usize = 200;
    let start = |ceiling: &str| {
        let served = Origin::serve_text("fine");
        let proxy = Config::new(mode)
            .under(&[
                "sh",
                "-c",
                "ulimit -c 0; ulimit -d 98304; exec \"$0\" \"$@\"",
            ])
            .tables(ADMIN)
            .tables(&format!("[limits]\nhead = \"1MiB\"\n{ceiling}"))
            .tables("[timeouts]\nclient_header = \"60s\"")
            .upstream(&[&served.address], "")
            .start();
        (proxy, served)
    };
    let head = endless_head(900_000);
    let load = |proxy: &Proxy| -> Vec<Wire> {
        let connect = |_| Wire::connect_to(&proxy.addresses[0].into()).ok();
        let mut clients: Vec<Wire> = (0..CLIENTS).filter_map(connect).collect();
        for client in &mut clients {
            // Who is refused, or whose proxy is gone, cannot send all.
            client.try_send(&head).ok();
        }
        clients
    };

    let (mut proxy, _served) = start("");
    let _clients = load(&proxy);
    let exit = proxy.exit_within(PATIENCE);
    assert_eq!(exit.signal(), Some(SIGABRT), "{:?}", proxy.log());
    eventually("its last words are read", || {
        count(&proxy, "memory allocation of") > 0
    });

    let (proxy, _served) = start("memory = \"32MiB\"");
    let clients = load(&proxy);
    eventually("most are refused", || {
        status(&proxy)["totals"]["refused_memory"].as_u64() > Some(CLIENTS as u64 / 2)
    });
    assert!(heap_bytes(&proxy) < 34 << 20, "{} held", heap_bytes(&proxy));
    drop(clients);
    eventually("service again", || proxy.get("/").status == 200);
}

#[test]
fn a_ceiling_below_what_it_needs_is_refused() {
    let (exit, log) = Config::new(Mode::Epoll)
        .tables("[limits]\nmemory = \"4MiB\"\n[rate_limit]\nrequests = 1\nclients = 1_000_000")
        .upstream(&["127.0.0.1:9"], "")
        .start_to_fail();
    assert_eq!(exit.code(), Some(1));
    assert!(
        log.contains("limits.memory is 4194304 bytes, and the process holds about"),
        "{log}"
    );
}

/// A hash table of so many servers takes 256 KiB, and each shard has one; so it is with the access log's buffer.
fn what_shards_allocate_is_foreseen(mode: Mode) {
    let servers: Vec<_> = (0..82)
        .map(|n| format!("{{ address = \"127.0.0.1:{}\" }}", 10_000 + n))
        .collect();
    let servers = servers.join(", ");
    let log = "[access_log]\npath = \"/dev/null\"\nbuffer = \"256KiB\"\n";
    for (policy, log) in [("hash", ""), ("random", log)] {
        let start = |ceiling| {
            Config::new(mode)
                .key("shards = 16")
                .tables(ADMIN)
                .tables(log)
                .tables(&format!("[limits]\nmemory = \"{ceiling}\""))
                .tables(&format!(
                    "[[upstream]]\nname = \"app\"\npolicy = \"{policy}\"\nserver = [{servers}]"
                ))
        };
        let mut refused = start("6MiB").start_unawaited();
        assert!(!refused.exit_within(PATIENCE).success());
        let mut foreseen = 0;
        eventually("it says why", || {
            let log = refused.log().join("\n");
            let number = log.split_once("the process holds about ");
            foreseen = number
                .and_then(|(_, rest)| rest.split_once(' ')?.0.parse::<u64>().ok())
                .unwrap_or(0);
            foreseen > 0
        });
        let proxy = start("1GiB").start();
        eventually("all shards run", || {
            let metrics = proxy.page("/metrics");
            let turns =
                |line: &&str| line.starts_with("ringlane_sweeps_total{") && !line.ends_with(" 0");
            metrics.lines().filter(turns).count() == 16
        });
        let held = heap_bytes(&proxy);
        assert!(held <= foreseen, "{held} held, {foreseen} foreseen");
        assert!(held >= foreseen / 4 * 3, "{held} held, {foreseen} foreseen");
    }
}
