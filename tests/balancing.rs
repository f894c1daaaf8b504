//! Policies, weights, backups and limits, as clients and servers see them.

mod support;

use std::collections::HashMap;

use support::{Config, Mode, Origin, PATIENCE, Proxy, Served, Wire, eventually, in_each_mode, ok};

in_each_mode!(
    weights_share_out_requests,
    random_uses_all_servers,
    least_connections_avoids_the_busy_server,
    load_is_counted_over_all_shards,
    first_uses_the_first_that_works,
    hash_sends_a_key_to_one_server_on_every_shard,
    only_the_keys_of_a_dead_server_move,
    ip_hash_goes_by_the_client_that_a_trusted_proxy_names,
    least_latency_prefers_the_fast_server,
    a_server_does_not_look_fast_by_statuses_that_are_failures,
    least_latency_does_not_learn_how_slowly_a_client_sends,
    backups_serve_when_no_other_is_left,
    a_full_server_is_passed_over,
    without_a_server_there_is_an_answer,
);

/// Servers `a`, `b`, ... that answer with their name, each with these further settings.
fn start(mode: Mode, keys: &str, upstream: &str, servers: &[&str]) -> (Proxy, Vec<Served>) {
    let names = ["a", "b", "c"];
    let origins: Vec<Served> = names[..servers.len()]
        .iter()
        .map(|name| Origin::serve_text(name))
        .collect();
    let addresses: Vec<&str> = origins.iter().map(|o| o.address.as_str()).collect();
    let proxy = config(mode, keys, upstream, &addresses, servers).start();
    (proxy, origins)
}

fn config(mode: Mode, keys: &str, upstream: &str, addresses: &[&str], servers: &[&str]) -> Config {
    let servers: Vec<String> = addresses
        .iter()
        .zip(servers)
        .zip('a'..)
        .map(|((address, settings), name)| {
            format!("{{ address = \"{address}\", name = \"{name}\"{settings} }}")
        })
        .collect();
    let servers = servers.join(", ");
    Config::new(mode).key(keys).tables(&format!(
        "[[upstream]]\nname = \"app\"\nserver = [{servers}]\n{upstream}"
    ))
}

/// How many of so many requests each server answered.
fn shares(client: &mut Wire, requests: usize) -> [usize; 3] {
    let mut counts = [0; 3];
    for _ in 0..requests {
        match client.get("/").text().as_str() {
            "a" => counts[0] += 1,
            "b" => counts[1] += 1,
            _ => counts[2] += 1,
        }
    }
    counts
}

fn weights_share_out_requests(mode: Mode) {
    let weights = [", weight = 5", "", ", weight = 0"];
    let (proxy, _origins) = start(mode, "", "", &weights);
    let mut client = proxy.connect();
    let turns: Vec<String> = (0..60).map(|_| client.get("/").text()).collect();
    for round in turns.chunks(6) {
        assert_eq!(round.iter().filter(|turn| *turn == "a").count(), 5);
        assert_eq!(round.iter().filter(|turn| *turn == "b").count(), 1);
    }
}

fn random_uses_all_servers(mode: Mode) {
    let (proxy, _origins) = start(
        mode,
        "",
        "policy = \"random\"",
        &["", ", weight = 2", ", weight = 0"],
    );
    let [a, b, c] = shares(&mut proxy.connect(), 600);
    // Six standard deviations around 200.
    assert!((130..=270).contains(&a), "{a} of 600");
    assert_eq!((a + b, c), (600, 0));
}

/// Two servers that answer when they are told to.
fn two_silent(mode: Mode, keys: &str, upstream: &str, settings: &str) -> (Proxy, [Origin; 2]) {
    let origins = [Origin::bind(), Origin::bind()];
    let addresses = [&origins[0], &origins[1]].map(|origin| origin.address.as_str());
    let proxy = config(mode, keys, upstream, &addresses, &[settings; 2]).start();
    (proxy, origins)
}

/// Sends a request and waits until a server has it: which one, and both connections.
fn hold(proxy: &Proxy, origins: &[Origin; 2]) -> (usize, Wire, Wire) {
    let mut client = proxy.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let start = std::time::Instant::now();
    loop {
        for (number, origin) in origins.iter().enumerate() {
            if let Some(mut upstream) = origin.accept_within(std::time::Duration::from_millis(20)) {
                upstream.request();
                return (number, client, upstream);
            }
        }
        assert!(start.elapsed() < PATIENCE, "no server got the request");
    }
}

fn least_connections_avoids_the_busy_server(mode: Mode) {
    for policy in ["least_connections", "two_choices"] {
        let (proxy, origins) = two_silent(mode, "", &format!("policy = \"{policy}\""), "");
        let (busy, mut client, mut upstream) = hold(&proxy, &origins);
        for _ in 0..8 {
            let (server, _client, mut wire) = hold(&proxy, &origins);
            assert_ne!(server, busy, "{policy}");
            wire.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            drop(wire);
        }
        upstream.send(ok("done"));
        assert_eq!(client.response("GET").text(), "done");
    }
}

fn load_is_counted_over_all_shards(mode: Mode) {
    let (proxy, origins) = two_silent(mode, "shards = 3", "policy = \"least_connections\"", "");
    let held: Vec<_> = (0..12).map(|_| hold(&proxy, &origins)).collect();
    let first = held.iter().filter(|(server, ..)| *server == 0).count();
    assert_eq!(first, 6, "of 12, each on whichever shard took it");
}

fn first_uses_the_first_that_works(mode: Mode) {
    let origins = ["b", "c"].map(Origin::serve_text);
    let dead = Origin::nowhere();
    let addresses = [&*dead, &*origins[0].address, &*origins[1].address];
    let proxy = config(mode, "", "policy = \"first\"", &addresses, &[""; 3]).start();
    assert_eq!(shares(&mut proxy.connect(), 20), [0, 20, 0]);
}

/// Which server answers for each key.
fn owners(proxy: &Proxy) -> HashMap<usize, String> {
    let owner = |key| {
        let mut client = proxy.connect();
        client.send(format!(
            "GET /?user={key} HTTP/1.1\r\nHost: a\r\nX-Tenant: t{key}\r\nCookie: x=y; sid=s{key}\r\n\r\n"
        ));
        (key, client.response("GET").text())
    };
    (0..60).map(owner).collect()
}

fn hash_sends_a_key_to_one_server_on_every_shard(mode: Mode) {
    for hash in ["uri", "query:user", "header:x-tenant", "cookie:sid"] {
        let settings = format!("policy = \"hash\"\nhash = \"{hash}\"");
        let (proxy, _origins) = start(mode, "shards = 3", &settings, &[""; 3]);
        let before = owners(&proxy);
        for server in ["a", "b", "c"] {
            let share = before.values().filter(|owner| *owner == server).count();
            assert!(
                (8..=34).contains(&share),
                "{hash}: {server} has {share} of 60"
            );
        }
        assert_eq!(owners(&proxy), before, "{hash}");
        let (again, _others) = start(mode, "", &settings, &[""; 3]);
        assert_eq!(owners(&again), before, "{hash}: on another node");
    }
}

fn only_the_keys_of_a_dead_server_move(mode: Mode) {
    let settings = "policy = \"hash\"\nhash = \"query:user\"";
    let (proxy, origins) = start(mode, "", settings, &[""; 3]);
    let before = owners(&proxy);
    let dead = Origin::nowhere();
    let addresses = [&*origins[0].address, &*dead, &*origins[2].address];
    let proxy = config(mode, "", settings, &addresses, &[""; 3]).start();
    for (key, owner) in owners(&proxy) {
        assert!(before[&key] == owner || before[&key] == "b", "key {key}");
        assert_ne!(owner, "b");
    }
}

fn ip_hash_goes_by_the_client_that_a_trusted_proxy_names(mode: Mode) {
    let clients = |proxy: &Proxy, network: &str| -> Vec<String> {
        let owner = |number: usize| {
            let mut client = proxy.connect();
            client.send(format!(
                "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {network}{number:x}\r\n\r\n"
            ));
            client.response("GET").text()
        };
        (1..=40).map(owner).collect()
    };
    let distinct = |owners: &[String]| {
        owners
            .iter()
            .collect::<std::collections::HashSet<_>>()
            .len()
    };
    let (plain, _origins) = start(mode, "", "policy = \"ip_hash\"", &[""; 3]);
    assert_eq!(
        distinct(&clients(&plain, "2001:db8:")),
        1,
        "the peer's own address"
    );
    let trusted = "forward.trusted_proxies = [\"127.0.0.1\"]";
    let (behind, _origins) = start(mode, trusted, "policy = \"ip_hash\"", &[""; 3]);
    assert_eq!(distinct(&clients(&behind, "2001:db8::")), 1, "one /64");
    let networks: Vec<String> = (1..=40)
        .map(|number| clients(&behind, &format!("2001:db8:0:{number:x}::"))[0].clone())
        .collect();
    assert_eq!(distinct(&networks), 3, "many /64");
    let longer = "policy = \"ip_hash\"\nip_hash_v6_prefix = 128";
    let (longer, _origins) = start(mode, trusted, longer, &[""; 3]);
    assert_eq!(
        distinct(&clients(&longer, "2001:db8::")),
        3,
        "whole addresses"
    );
}

/// The slow server's latency is above all that a busy machine may add to the fast one's: one answer that is later than the slow server's
/// makes the fast one the slower of the two.
fn least_latency_prefers_the_fast_server(mode: Mode) {
    let slow = Origin::bind().serve(|_| {
        std::thread::sleep(std::time::Duration::from_secs(1));
        ok("a")
    });
    let fast = Origin::serve_text("b");
    let addresses = [&*slow.address, &*fast.address];
    let proxy = config(mode, "", "policy = \"least_latency\"", &addresses, &[""; 2]).start();
    let [of_slow, of_fast, _] = shares(&mut proxy.connect(), 100);
    assert!(
        of_slow <= 5 && of_fast >= 95,
        "{of_slow} of 100 to the slow one"
    );
}

fn a_server_does_not_look_fast_by_statuses_that_are_failures(mode: Mode) {
    let settings = [
        "retry_statuses = \"503\"",
        "[upstream.passive]\nstatuses = \"503\"\nfall = 1000",
    ];
    for settings in settings {
        let ill = Origin::bind().serve(|_| "HTTP/1.1 503 X\r\nContent-Length: 1\r\n\r\na".into());
        let well = Origin::bind().serve(|_| {
            std::thread::sleep(std::time::Duration::from_millis(20));
            ok("b")
        });
        let addresses = [&*ill.address, &*well.address];
        let upstream = format!("policy = \"least_latency\"\n{settings}");
        let proxy = config(mode, "shards = 1", &upstream, &addresses, &[""; 2]).start();
        let mut client = proxy.connect();
        // Until it has answered it is taken to be as slow as the other.
        while client.get("/").text() != "b" {}
        let before = ill.targets().len();
        shares(&mut client, 50);
        let of_ill = ill.targets().len() - before;
        assert!(of_ill <= 5, "{of_ill} of 50 with {settings}");
    }
}

fn least_latency_does_not_learn_how_slowly_a_client_sends(mode: Mode) {
    let serve = |name: &'static str| {
        Origin::bind().serve(move |_| {
            std::thread::sleep(std::time::Duration::from_millis(50));
            ok(name)
        })
    };
    let servers = [serve("a"), serve("b")];
    let addresses = [&*servers[0].address, &*servers[1].address];
    let upstream = "policy = \"least_latency\"";
    let proxy = config(mode, "shards = 1", upstream, &addresses, &[""; 2]).start();
    let mut client = proxy.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n");
    std::thread::sleep(std::time::Duration::from_secs(2));
    client.send("x");
    let server = client.response("POST").text();
    // Far fewer than the 2 s would need to be forgotten.
    let comes_back = (0..150).any(|_| client.get("/").text() == server);
    assert!(comes_back, "to {server}, which had the upload");
}

fn backups_serve_when_no_other_is_left(mode: Mode) {
    let (proxy, origins) = start(mode, "", "", &["", ", backup = true"]);
    assert_eq!(shares(&mut proxy.connect(), 20), [20, 0, 0]);
    let dead = Origin::nowhere();
    let addresses = [&*dead, &*origins[1].address];
    let proxy = config(mode, "", "", &addresses, &["", ", backup = true"]).start();
    assert_eq!(shares(&mut proxy.connect(), 20), [0, 20, 0]);
}

fn a_full_server_is_passed_over(mode: Mode) {
    let (proxy, origins) = two_silent(mode, "shards = 2", "", ", max_requests = 2");
    let mut held: Vec<_> = (0..4).map(|_| hold(&proxy, &origins)).collect();
    let first = held.iter().filter(|(server, ..)| *server == 0).count();
    assert_eq!(first, 2);
    let response = proxy.get("/");
    assert_eq!(response.status, 503);
    assert_eq!(response.text(), "{\"error\":\"all servers are busy\"}\n");
    assert_eq!(response.head.value("Retry-After"), Some("1"));
    let (server, mut client, mut upstream) = held.remove(0);
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    client.response("GET");
    drop(upstream);
    eventually("room for one more", || {
        let mut client = proxy.connect();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        match origins[server].accept_within(std::time::Duration::from_millis(100)) {
            None => false,
            Some(mut upstream) => {
                upstream.request();
                upstream.send(ok("room"));
                client.response("GET").text() == "room"
            }
        }
    });
}

fn without_a_server_there_is_an_answer(mode: Mode) {
    let (proxy, _origins) = start(mode, "", "", &[", weight = 0", ", weight = 0"]);
    let response = proxy.get("/");
    assert_eq!(response.status, 503);
    assert_eq!(response.text(), "{\"error\":\"no healthy upstream\"}\n");
}
