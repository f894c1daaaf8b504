//! Operators take servers out, bring them back and weigh them anew, while the proxy runs.

mod load;
mod permission;
#[path = "../support/mod.rs"]
mod support;

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use load::Load;
use serde_json::Value;
use support::{
    Config, Mode, Origin, Patient, Proxy, Response, Served, Wire, eventually, in_each_mode, ok,
};

in_each_mode!(
    a_drain_under_load_costs_no_request,
    a_drained_server_finishes_what_runs,
    a_server_that_is_down_gets_nothing_until_it_is_up,
    weights_move_shares,
    weights_move_keys_and_back,
    orders_outlast_probes,
    drained_servers_are_no_last_resort,
    a_drained_server_keeps_its_sticky_clients,
    a_server_that_is_brought_back_starts_slowly,
    the_same_name_in_two_upstreams,
    orders_are_logged_counted_and_remembered,
    the_dead_health_thread_is_started_again,
);

const TOKEN: &str = "a-token-for-tests-only";
const ADMIN: &str = "[admin]\naddress = \"127.0.0.1:0\"\ntoken = \"a-token-for-tests-only\"";
/// All shards follow an order within this time.
const SOON: Duration = Duration::from_millis(100);

fn start(mode: Mode, servers: &[&Served], settings: &str) -> Proxy {
    let addresses: Vec<&str> = servers.iter().map(|served| &*served.address).collect();
    Config::new(mode)
        .key("shards = 2")
        .tables(ADMIN)
        .upstream(&addresses, settings)
        .start()
}

fn ask(proxy: &Proxy, request: &str) -> Response {
    let mut admin = Wire::connect(proxy.admin.expect("the status page is on"));
    admin.send(request);
    admin.response(request.split(' ').next().expect("a method"))
}

fn post(proxy: &Proxy, path: &str, json: &str) -> Response {
    let length = json.len();
    ask(
        proxy,
        &format!(
            "POST /lb/servers/{path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{json}"
        ),
    )
}

/// Gives an order and returns the server that is answered.
#[track_caller]
fn order(proxy: &Proxy, path: &str, json: &str) -> Value {
    let response = post(proxy, path, json);
    let text = response.text();
    assert_eq!(response.status, 200, "{path} {json}: {text}");
    serde_json::from_str(&text).expect("JSON")
}

fn names<const N: usize>(names: [&'static str; N]) -> [Served; N] {
    names.map(Origin::serve_text)
}

/// How many of so many requests, each on a connection of its own, the servers `a`, `b` and `c` answered.
fn shares(proxy: &Proxy, requests: usize) -> [usize; 3] {
    let mut counts = [0; 3];
    for _ in 0..requests {
        let answer = proxy.get("/").text();
        let server = ["a", "b", "c"].iter().position(|name| *name == answer);
        counts[server.unwrap_or_else(|| panic!("answered: {answer}"))] += 1;
    }
    counts
}

/// Each shard has turns of its own, so the shares of few requests are not exact.
#[track_caller]
fn both_serve(proxy: &Proxy) {
    let [a, b, _] = shares(proxy, 20);
    assert!(a >= 8 && b >= 8, "{a} {b}");
}

fn a_drain_under_load_costs_no_request(mode: Mode) {
    let servers = names(["a", "b", "c"]);
    let proxy = start(mode, &[&servers[0], &servers[1], &servers[2]], "");
    let load = Load::start(&proxy, 8);
    for round in 0..3 {
        load.await_more(200);
        assert!(servers[1].requests().len() > 10 * round, "it has its share");
        order(&proxy, "app/b", r#"{"state":"drain"}"#);
        std::thread::sleep(SOON);
        eventually("what it was sent is answered", || {
            proxy.server(1)["state"] == "drained"
        });
        let drained = servers[1].requests().len();
        load.await_more(200);
        assert_eq!(servers[1].requests().len(), drained, "a request too late");
        eventually("its idle connections are closed", || {
            proxy.server(1)["idle"] == 0
        });
        order(&proxy, "app/b", r#"{"state":"up"}"#);
        load.await_more(100);
        eventually("it has its share again", || {
            servers[1].requests().len() > drained + 10
        });
    }
    load.stop();
    let entry = proxy.server(1);
    assert_eq!(
        (&entry["state"], &entry["order"]),
        (&"unchecked".into(), &Value::Null)
    );
    assert_eq!(entry["failures"]["closed"], 0, "{entry:#}");
}

/// An origin whose answers wait for a word.
fn patient() -> (Served, Receiver<()>, Sender<()>) {
    let (came, arrivals) = channel();
    let (go, word) = channel();
    let word = Mutex::new(word);
    let served = Origin::bind().serve(move |_| {
        came.send(()).expect("the test listens");
        word.lock()
            .expect("whole")
            .recv()
            .expect("the test says so");
        ok("late")
    });
    (served, arrivals, go)
}

fn a_drained_server_finishes_what_runs(mode: Mode) {
    for (given, meanwhile, after) in [("drain", "draining", "drained"), ("down", "down", "down")] {
        let (slow, arrivals, go) = patient();
        let other = Origin::serve_text("b");
        let proxy = start(mode, &[&slow, &other], "policy = \"first\"");
        let mut client = proxy.connect();
        client.send("GET /long HTTP/1.1\r\nHost: a.example\r\n\r\n");
        arrivals
            .recv_timeout(support::PATIENCE)
            .expect("it arrives");
        let answered = order(&proxy, "app/a", &format!(r#"{{"state":"{given}"}}"#));
        assert_eq!(answered["state"], meanwhile);
        assert_eq!(answered["active"], 1);
        assert_eq!(answered["reason"], "an operator's order");
        assert_eq!(answered["order"], given);
        for _ in 0..5 {
            assert_eq!(proxy.get("/").text(), "b");
        }
        go.send(()).expect("the origin waits");
        assert_eq!(client.response("GET").text(), "late");
        eventually("nothing runs on it", || {
            let entry = proxy.server(0);
            entry["state"] == after && entry["active"] == 0 && entry["idle"] == 0
        });
        // The client's connection stays; only the server's is given up.
        client.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n");
        assert_eq!(client.response("GET").text(), "b");
    }
}

fn a_server_that_is_down_gets_nothing_until_it_is_up(mode: Mode) {
    let servers = names(["a", "b", "c"]);
    let proxy = start(mode, &[&servers[0], &servers[1], &servers[2]], "");
    assert_eq!(
        order(&proxy, "app/a", r#"{"state":"down"}"#)["state"],
        "down"
    );
    assert_eq!(shares(&proxy, 20)[0], 0, "from the answer to the order on");
    order(&proxy, "app/a", r#"{"state":"up"}"#);
    let [a, b, c] = shares(&proxy, 30);
    assert!(a >= 8 && b >= 8 && c >= 8, "{a} {b} {c}");
}

fn weights_move_shares(mode: Mode) {
    let servers = names(["a", "b", "c"]);
    for policy in ["round_robin", "least_connections"] {
        let proxy = start(
            mode,
            &[&servers[0], &servers[1], &servers[2]],
            &format!("policy = \"{policy}\""),
        );
        let weighed = order(&proxy, "app/a", r#"{"weight":5}"#);
        assert_eq!(
            (&weighed["weight"], &weighed["configured_weight"]),
            (&5.into(), &1.into())
        );
        if policy == "round_robin" {
            let [a, b, c] = shares(&proxy, 140);
            assert!(
                a.abs_diff(100) <= 4 && b.abs_diff(20) <= 4 && c.abs_diff(20) <= 4,
                "{a} {b} {c}"
            );
        }
        order(&proxy, "app/a", r#"{"weight":0}"#);
        assert_eq!(shares(&proxy, 20)[0], 0);
        assert_eq!(order(&proxy, "app/a", r#"{"weight":null}"#)["weight"], 1);
        let [a, b, c] = shares(&proxy, 60);
        assert!(a >= 10 && b >= 10 && c >= 10, "{policy}: {a} {b} {c}");
    }
}

fn weights_move_keys_and_back(mode: Mode) {
    let servers = names(["a", "b", "c"]);
    let proxy = start(
        mode,
        &[&servers[0], &servers[1], &servers[2]],
        "policy = \"hash\"",
    );
    let homes = || -> Vec<String> {
        let target = |key| proxy.get(&format!("/{key}")).text();
        (0..60).map(target).collect()
    };
    let count = |homes: &[String], name: &str| homes.iter().filter(|home| *home == name).count();
    let before = homes();
    order(&proxy, "app/a", r#"{"weight":20}"#);
    let heavy = homes();
    assert!(count(&heavy, "a") > 45, "{heavy:?}");
    order(&proxy, "app/a", r#"{"weight":0}"#);
    assert_eq!(count(&homes(), "a"), 0);
    order(&proxy, "app/a", r#"{"weight":null}"#);
    assert_eq!(homes(), before, "every key is home again");
    order(&proxy, "app/a", r#"{"state":"drain"}"#);
    for (home, now) in before.iter().zip(homes()) {
        assert!(
            if home == "a" {
                now != "a"
            } else {
                now == *home
            },
            "{home} {now}"
        );
    }
}

fn orders_outlast_probes(mode: Mode) {
    let patient = Patient::new("a");
    let other = Origin::serve_text("b");
    let checks =
        "[upstream.health]\ninterval = \"1s\"\nfast_interval = \"20ms\"\nrise = 2\nfall = 2\n";
    let proxy = start(mode, &[&patient.served, &other], checks);
    eventually("it is up", || proxy.server(0)["last_probe"]["ok"] == true);
    order(&proxy, "app/a", r#"{"state":"drain"}"#);
    let probes = || {
        let targets = patient.served.targets();
        targets.iter().filter(|target| *target == "/health").count()
    };
    let await_probes = |more: usize| {
        let before = probes();
        eventually("probes", || probes() >= before + more);
    };
    await_probes(4);
    assert_eq!(
        proxy.server(0)["state"],
        "drained",
        "probes do not undo an order"
    );
    assert_eq!(shares(&proxy, 10), [0, 10, 0]);
    patient.set(503);
    eventually("a probe fails", || {
        proxy.server(0)["last_probe"]["ok"] == false
    });
    await_probes(4);
    assert_eq!(order(&proxy, "app/a", r#"{"state":"up"}"#)["state"], "down");
    assert_eq!(shares(&proxy, 10), [0, 10, 0], "health decides again");
    patient.set(200);
    eventually("it is up again", || proxy.server(0)["state"] == "up");
    both_serve(&proxy);
}

fn drained_servers_are_no_last_resort(mode: Mode) {
    let servers = names(["a", "b"]);
    let proxy = start(
        mode,
        &[&servers[0], &servers[1]],
        "when_none_healthy = \"try_all\"\n[upstream.passive]\n",
    );
    order(&proxy, "app/a", r#"{"state":"down"}"#);
    assert_eq!(shares(&proxy, 4), [0, 4, 0]);
    order(&proxy, "app/b", r#"{"state":"drain"}"#);
    assert_eq!(proxy.get("/").status, 503);
    assert!(servers[0].requests().is_empty());
    order(&proxy, "app/a", r#"{"state":"up"}"#);
    assert_eq!(proxy.get("/").text(), "a");
}

fn a_drained_server_keeps_its_sticky_clients(mode: Mode) {
    let servers = names(["a", "b"]);
    let key = "0123456789abcdef".repeat(4);
    let sticky = format!("sticky = {{ cookie = \"lb\", key = \"{key}\" }}");
    let proxy = start(mode, &[&servers[0], &servers[1]], &sticky);
    let cookie = loop {
        let response = proxy.get("/");
        if response.text() == "a" {
            let cookie = response.head.value("set-cookie").expect("a cookie");
            break cookie.split(';').next().expect("a pair").to_owned();
        }
    };
    let with_cookie = || {
        let mut wire = proxy.connect();
        wire.send(format!(
            "GET / HTTP/1.1\r\nHost: a.example\r\nCookie: {cookie}\r\n\r\n"
        ));
        wire.response("GET").text()
    };
    for (json, own, others) in [
        (r#"{"state":"drain"}"#, "a", "b"),
        (r#"{"state":"down"}"#, "b", "b"),
        (r#"{"state":"up"}"#, "a", ""),
    ] {
        order(&proxy, "app/a", json);
        for _ in 0..4 {
            assert_eq!(with_cookie(), own, "{json}");
            assert!(
                others.is_empty() || proxy.get("/").text() == others,
                "{json}"
            );
        }
    }
}

fn a_server_that_is_brought_back_starts_slowly(mode: Mode) {
    let servers = names(["a", "b"]);
    let proxy = start(
        mode,
        &[&servers[0], &servers[1]],
        "slow_start = \"1h\"\n[upstream.passive]\n",
    );
    both_serve(&proxy);
    order(&proxy, "app/a", r#"{"state":"drain"}"#);
    order(&proxy, "app/a", r#"{"state":"up"}"#);
    let [a, b, _] = shares(&proxy, 100);
    assert!(a <= 10 && b >= 90, "a twentieth of its share: {a} {b}");
}

fn the_same_name_in_two_upstreams(mode: Mode) {
    let servers = names(["a", "b"]);
    let web = names(["web a", "web b"]);
    let proxy = Config::new(mode)
        .tables(ADMIN)
        .upstream(&[&servers[0].address, &servers[1].address], "")
        .named_upstream("web", &[&web[0].address, &web[1].address], "")
        .tables("[[route]]\npath = \"/web\"\nupstream = \"web\"\n[[route]]\nupstream = \"app\"")
        .start();
    assert_eq!(
        order(&proxy, "web/a", r#"{"state":"down"}"#)["address"],
        web[0].address
    );
    for _ in 0..4 {
        assert_eq!(proxy.get("/web").text(), "web b");
    }
    assert_eq!(
        shares(&proxy, 10),
        [5, 5, 0],
        "the other upstream's is another"
    );
    assert_eq!(post(&proxy, "web/c", r#"{"state":"down"}"#).status, 404);
    // Names may be written with percent-encoding.
    order(&proxy, "%77eb/%61", r#"{"state":"up"}"#);
    assert_eq!(proxy.server(0)["state"], "unchecked");
}

fn orders_are_logged_counted_and_remembered(mode: Mode) {
    let servers = names(["a", "b"]);
    let proxy = start(mode, &[&servers[0], &servers[1]], "");
    let orders = [
        (r#"{"state":"drain"}"#, "drain", "up", "drain"),
        (r#"{"state":"down"}"#, "down", "drain", "down"),
        (r#"{"weight":7}"#, "weight", "weight 1", "weight 7"),
        (r#"{"state":"up"}"#, "up", "down", "up"),
        (r#"{"weight":null}"#, "weight", "weight 7", "weight 1"),
    ];
    for (json, ..) in orders {
        order(&proxy, "app/b", json);
    }
    let history = proxy.status()["health"]["history"].clone();
    let history = history.as_array().expect("a list");
    assert_eq!(history.len(), orders.len());
    for (event, (_, kind, from, to)) in history.iter().rev().zip(orders) {
        assert_eq!(event["server"], "b");
        assert_eq!(
            (&event["order"], &event["from"], &event["to"]),
            (&kind.into(), &from.into(), &to.into())
        );
        assert_eq!(event["reason"], "an operator's order");
    }
    let log = proxy.log();
    let lines: Vec<_> = log
        .iter()
        .filter(|line| line.contains("order taken"))
        .collect();
    assert_eq!(lines.len(), orders.len(), "one line each: {log:#?}");
    assert!(
        lines[0].contains("upstream=\"app\" server=\"b\" order=\"drain\""),
        "{lines:?}"
    );
    assert!(lines[2].contains("weight=7"), "{lines:?}");
    assert!(!log.join("\n").contains(TOKEN), "the token stays secret");
    let metrics = proxy.page("/metrics");
    for line in [
        "ringlane_upstream_orders_total{upstream=\"app\",server=\"b\",order=\"weight\"} 2",
        "ringlane_upstream_orders_total{upstream=\"app\",server=\"b\",order=\"drain\"} 1",
        "ringlane_upstream_orders_total{upstream=\"app\",server=\"a\",order=\"drain\"} 0",
        "ringlane_upstream_taken_out{upstream=\"app\",server=\"b\"} 0",
        "ringlane_health_stale 0",
        "ringlane_health_restarts_total 0",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
}

fn the_dead_health_thread_is_started_again(mode: Mode) {
    let servers = names(["a", "b"]);
    let proxy = Config::new(mode)
        .faults()
        .tables(ADMIN)
        .upstream(&[&servers[0].address, &servers[1].address], "")
        .start();
    order(&proxy, "app/b", r#"{"state":"drain"}"#);
    proxy.get("/fault/health");
    eventually(
        "health is stale, and the thread dies again and again",
        || {
            let health = &proxy.status()["health"];
            health["stale"] == true && health["restarts"].as_u64() > Some(1)
        },
    );
    let metrics = proxy.page("/metrics");
    assert!(metrics.contains("ringlane_health_stale 1\n"), "{metrics}");
    assert_eq!(shares(&proxy, 10), [10, 0, 0], "what was true last holds");
    let refused = post(&proxy, "app/b", r#"{"state":"up"}"#);
    assert_eq!(
        (refused.status, refused.head.value("retry-after")),
        (503, Some("1"))
    );
    proxy.get("/fault/health");
    eventually("health is fresh", || {
        proxy.status()["health"]["stale"] == false
    });
    assert_eq!(
        proxy.server(1)["state"],
        "drained",
        "a refused order is not carried out later"
    );
    order(&proxy, "app/b", r#"{"state":"up"}"#);
    assert_eq!(shares(&proxy, 10), [5, 5, 0]);
    let died = proxy
        .log()
        .iter()
        .filter(|line| line.contains("health monitor panicked"))
        .count();
    assert_eq!(proxy.status()["health"]["restarts"], died);
}
