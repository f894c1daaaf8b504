//! Hashing: which server a key leads to, and which keys move.

use super::*;

#[test]
fn only_the_keys_of_a_lost_server_move_and_they_come_back() {
    const KEYS: u64 = 50_000;
    for lost in [0, 7] {
        let balancer = balancer(Policy::Hash, &[1; 10]);
        let load = Active::none(10);
        let map = || {
            (0..KEYS)
                .map(|k| balancer.choose(&keyed(k), &load).expect("up"))
                .collect::<Vec<_>>()
        };
        let before = map();
        balancer.refresh(|server| if server == lost { 0 } else { FULL_SHARE });
        let during = map();
        let moved: Vec<_> = (0..before.len())
            .filter(|&k| before[k] != during[k])
            .collect();
        assert!(
            moved.iter().all(|&k| before[k] == lost),
            "keys of other servers stay"
        );
        assert!(
            (moved.len() as u64).abs_diff(KEYS / 10) < KEYS / 100,
            "{} of {KEYS} moved",
            moved.len()
        );
        // What the lost server had is spread over the others, not handed to one.
        for server in (0..10).filter(|&s| s != lost) {
            let got = moved.iter().filter(|&&k| during[k] == server).count();
            assert!(
                got.abs_diff(moved.len() / 9) < moved.len() / 20,
                "server {server} got {got}"
            );
        }
        balancer.refresh(|_| FULL_SHARE);
        assert_eq!(map(), before);
    }
}

#[test]
fn a_server_removed_from_the_configuration_moves_about_its_keys() {
    const KEYS: u64 = 50_000;
    let owners = |servers: Vec<Server>| {
        let names: Vec<_> = servers.iter().map(|s| s.name.clone()).collect();
        let balancer = Balancer::new(&servers, &settings(Policy::Hash));
        let load = Active::none(names.len());
        (0..KEYS)
            .map(|k| names[balancer.choose(&keyed(k), &load).expect("up")].clone())
            .collect::<Vec<_>>()
    };
    let mut fewer = servers(&[1; 10]);
    fewer.remove(4);
    let (before, after) = (owners(servers(&[1; 10])), owners(fewer));
    let moved = before.iter().zip(&after).filter(|(a, b)| a != b).count() as u64;
    assert!(moved < KEYS * 12 / 100, "{moved} of {KEYS} moved");
}

#[test]
fn hash_is_the_same_on_every_shard_and_with_every_seed() {
    let load = Active::none(5);
    let other = Settings {
        shard: 3,
        shards: 8,
        seed: 99,
        ..settings(Policy::Hash)
    };
    let (a, b) = (
        balancer(Policy::Hash, &[1, 2, 3, 4, 5]),
        Balancer::new(&servers(&[1, 2, 3, 4, 5]), &other),
    );
    for balancer in [&a, &b] {
        balancer.refresh(only_up(&[0, 3, 4]));
    }
    assert!((0..10_000).all(|k| a.choose(&keyed(k), &load) == b.choose(&keyed(k), &load)));
}

#[test]
fn keys_find_their_server_when_nearly_all_are_down() {
    let balancer = balancer(Policy::Hash, &[1; 1000]);
    let load = Active::none(1000);
    let map = || {
        (0..3000)
            .map(|k| balancer.choose(&keyed(k), &load).expect("up"))
            .collect::<Vec<_>>()
    };
    balancer.refresh(only_up(&[3, 500, 900]));
    let three = map();
    for server in [3, 500, 900] {
        let share = three.iter().filter(|&&s| s == server).count();
        assert!(share.abs_diff(1000) < 100, "server {server} has {share}");
    }
    balancer.refresh(only_up(&[3, 900]));
    let two = map();
    assert!(three.iter().zip(&two).all(|(a, b)| a == b || *a == 500));
}

#[test]
fn a_key_goes_over_to_a_server_in_slow_start_once() {
    let balancer = balancer(Policy::Hash, &[1, 1]);
    let load = Active::none(2);
    let mut owned_before = 0;
    for share in [50, 250, 500, 1000] {
        balancer.refresh(|server| if server == 1 { share } else { 1000 });
        let owned = (0..10_000)
            .filter(|&k| balancer.choose(&keyed(k), &load) == Ok(1))
            .count();
        assert!(owned > owned_before, "{share}: {owned}");
        owned_before = owned;
    }
    assert!(owned_before.abs_diff(5000) < 200);
}

#[test]
fn bounded_load_holds_for_any_keys() {
    let settings = Settings {
        bounded_load: Some(1.25),
        ..settings(Policy::Hash)
    };
    let balancer = Balancer::new(&servers(&[2, 1, 1]), &settings);
    let mut load = Active::none(3);
    for _ in 0..400 {
        let server = balancer.choose(&keyed(1), &load).expect("up");
        load.counts[server] += 1;
    }
    let bounds = [250, 125, 125];
    assert!(
        load.counts.iter().zip(bounds).all(|(&n, bound)| n <= bound),
        "{:?}",
        load.counts
    );
    assert!(
        load.counts.iter().zip(bounds).any(|(&n, bound)| n == bound),
        "the key's own server is used up first"
    );
}

/// What drains or is down has no part in a fair share, whatever it still works on.
#[test]
fn bounded_load_counts_live_servers_alone() {
    let settings = Settings {
        bounded_load: Some(1.25),
        ..settings(Policy::Hash)
    };
    let balancer = Balancer::new(&servers(&[1, 1, 1]), &settings);
    balancer.refresh(only_up(&[0, 1]));
    let mut load = Active::none(3);
    load.counts[2] = 1000;
    for _ in 0..40 {
        let server = balancer.choose(&keyed(1), &load).expect("up");
        load.counts[server] += 1;
    }
    assert!(load.counts[..2].contains(&25), "{:?}", load.counts);
}

/// Requests in flight, and how often they were asked for: each time all shards are.
struct Asked {
    active: Active,
    times: std::cell::Cell<u32>,
}

impl Load for Asked {
    fn active(&self, server: usize) -> u32 {
        self.times.set(self.times.get() + 1);
        self.active.active(server)
    }

    fn full(&self, server: usize) -> bool {
        self.active.full(server)
    }
}

#[test]
fn bounded_load_sums_requests_once_for_a_choice() {
    let settings = Settings {
        bounded_load: Some(1.0),
        ..settings(Policy::Hash)
    };
    let balancer = Balancer::new(&servers(&[1; 100]), &settings);
    let load = Asked {
        active: Active {
            counts: (0..100).map(|server| u32::from(server > 0)).collect(),
            max: None,
        },
        times: std::cell::Cell::new(0),
    };
    for key in 0..10 {
        assert_eq!(balancer.choose(&keyed(key), &load), Ok(0), "the last room");
    }
    // Each server for the sum, and for its own place twice at most: in the table and in the order of the key.
    assert!(load.times.get() <= 10 * (100 + 2 * 100), "{:?}", load.times);
}

#[test]
fn a_request_without_a_key_is_spread_by_hash() {
    let balancer = balancer(Policy::Hash, &[1, 1]);
    let load = Active::none(2);
    let first = (0..1000)
        .filter(|_| balancer.choose(&Pick::default(), &load) == Ok(0))
        .count();
    assert!((400..600).contains(&first), "{first}");
}
