//! Round robin: each server in its turn, whoever asks, on every shard for itself.

mod support;

use support::{Config, Mode, Origin, Proxy, Served, in_each_mode};

in_each_mode!(
    strict_rotation_on_one_shard,
    rotation_over_connections,
    even_over_shards,
    a_dead_server_is_passed_over,
);

fn start(mode: Mode, shards: usize) -> (Proxy, [Served; 3]) {
    let origins = ["a", "b", "c"].map(Origin::serve_text);
    let addresses = [&origins[0], &origins[1], &origins[2]].map(|origin| origin.address.as_str());
    let proxy = Config::new(mode)
        .key(&format!("shards = {shards}"))
        .upstream(&addresses, "")
        .start();
    (proxy, origins)
}

fn strict_rotation_on_one_shard(mode: Mode) {
    let (proxy, origins) = start(mode, 1);
    let mut client = proxy.connect();
    let answers: Vec<String> = (0..30).map(|_| client.get("/").text()).collect();
    for turn in answers.windows(4) {
        assert_eq!(turn[0], turn[3], "{answers:?}");
        assert!(
            turn[0] != turn[1] && turn[1] != turn[2] && turn[0] != turn[2],
            "{answers:?}"
        );
    }
    assert_eq!(origins.map(|origin| origin.connections()), [1; 3]);
}

fn rotation_over_connections(mode: Mode) {
    let (proxy, origins) = start(mode, 1);
    for _ in 0..30 {
        assert_eq!(proxy.get("/").status, 200);
    }
    assert_eq!(origins.map(|origin| origin.requests().len()), [10; 3]);
}

fn even_over_shards(mode: Mode) {
    let (proxy, origins) = start(mode, 2);
    for _ in 0..60 {
        assert_eq!(proxy.get("/").status, 200);
    }
    for origin in &origins {
        let share = origin.requests().len();
        assert!((18..=22).contains(&share), "{share} of 60 requests"); // each shard is even but for one
    }
}

fn a_dead_server_is_passed_over(mode: Mode) {
    let origins = ["a", "b"].map(Origin::serve_text);
    let dead = Origin::nowhere();
    let proxy = Config::new(mode)
        .upstream(
            &[&origins[0].address, &dead, &origins[1].address],
            "retries = 1",
        )
        .start();
    let mut client = proxy.connect();
    for _ in 0..30 {
        assert_eq!(client.get("/").status, 200);
    }
    for origin in &origins {
        assert!(
            origin.requests().len() >= 10,
            "{} of 30",
            origin.requests().len()
        );
    }
}
