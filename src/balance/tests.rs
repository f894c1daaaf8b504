//! What every policy must hold, and how each shares out requests.

mod keys;
mod latency;
mod steering;

use proptest::prelude::*;

use super::*;

const ALL: [Policy; 7] = [
    Policy::RoundRobin,
    Policy::LeastConnections,
    Policy::Random,
    Policy::TwoChoices,
    Policy::Hash,
    Policy::First,
    Policy::LeastLatency,
];

/// Requests in flight, by server.
#[derive(Clone, Default)]
struct Active {
    counts: Vec<u32>,
    max: Option<u32>,
}

impl Active {
    fn none(servers: usize) -> Self {
        Self {
            counts: vec![0; servers],
            max: None,
        }
    }
}

impl Load for Active {
    fn active(&self, server: usize) -> u32 {
        self.counts[server]
    }

    fn full(&self, server: usize) -> bool {
        self.max.is_some_and(|max| self.counts[server] >= max)
    }
}

fn settings(policy: Policy) -> Settings {
    Settings {
        policy,
        bounded_load: None,
        try_all: false,
        shard: 0,
        shards: 1,
        seed: 7,
    }
}

fn servers(weights: &[u16]) -> Vec<Server> {
    let server = |(at, &weight)| Server {
        name: format!("10.0.0.{at}:80"),
        weight,
        backup: false,
    };
    weights.iter().enumerate().map(server).collect()
}

fn balancer(policy: Policy, weights: &[u16]) -> Balancer {
    Balancer::new(&servers(weights), &settings(policy))
}

fn keyed(key: u64) -> Pick<'static> {
    Pick {
        key: Some(hash::key(&key.to_le_bytes())),
        ..Pick::default()
    }
}

/// How often each server is chosen for so many requests with different keys.
fn shares(balancer: &Balancer, load: &Active, requests: u64) -> Vec<u64> {
    let mut counts = vec![0; load.counts.len()];
    for request in 0..requests {
        counts[balancer
            .choose(&keyed(request), load)
            .expect("a server is up")] += 1;
    }
    counts
}

fn only_up(up: &[usize]) -> impl Fn(usize) -> u16 {
    move |server| if up.contains(&server) { FULL_SHARE } else { 0 }
}

#[test]
fn weights_5_1_1_give_5_1_1_on_each_shard_and_in_all() {
    const REQUESTS: u64 = 70_000;
    for policy in [
        Policy::RoundRobin,
        Policy::LeastConnections,
        Policy::Random,
        Policy::TwoChoices,
        Policy::Hash,
    ] {
        let mut all = [0; 3];
        for shard in 0..4 {
            let settings = Settings {
                shard,
                shards: 4,
                ..settings(policy)
            };
            let counts = shares(
                &Balancer::new(&servers(&[5, 1, 1]), &settings),
                &Active::none(3),
                REQUESTS,
            );
            for (server, expected) in [50_000, 10_000, 10_000].into_iter().enumerate() {
                all[server] += counts[server];
                assert!(
                    counts[server].abs_diff(expected) <= REQUESTS / 100,
                    "{policy:?} shard {shard}: {counts:?}"
                );
            }
        }
        assert!(
            all[0].abs_diff(200_000) <= 4 * REQUESTS / 100,
            "{policy:?} in all: {all:?}"
        );
    }
}

#[test]
fn round_robin_is_exact() {
    assert_eq!(
        shares(
            &balancer(Policy::RoundRobin, &[5, 1, 1]),
            &Active::none(3),
            70_000
        ),
        [50_000, 10_000, 10_000]
    );
}

#[test]
fn shards_start_at_different_servers() {
    for policy in [Policy::RoundRobin, Policy::LeastConnections] {
        let first = |shard| {
            let settings = Settings {
                shard,
                shards: 4,
                ..settings(policy)
            };
            Balancer::new(&servers(&[1; 4]), &settings).choose(&Pick::default(), &Active::none(4))
        };
        assert_eq!([0, 1, 2, 3].map(first), [0, 1, 2, 3].map(Ok), "{policy:?}");
    }
}

#[test]
fn least_connections_fills_up_by_weight() {
    let balancer = balancer(Policy::LeastConnections, &[5, 1, 1]);
    let mut load = Active {
        counts: vec![0, 9, 0],
        max: None,
    };
    for _ in 0..61 {
        let server = balancer.choose(&Pick::default(), &load).expect("up");
        load.counts[server] += 1;
    }
    assert_eq!(load.counts, [50, 10, 10]);
}

#[test]
fn two_choices_avoids_the_loaded_server() {
    let load = Active {
        counts: vec![100, 0, 0, 0],
        max: None,
    };
    let counts = shares(&balancer(Policy::TwoChoices, &[1; 4]), &load, 40_000);
    assert_eq!(counts[0], 0);
    assert!(
        counts[1..].iter().all(|&n| n.abs_diff(13_333) < 400),
        "{counts:?}"
    );
}

#[test]
fn two_choices_keeps_the_largest_load_near_the_mean() {
    let spread = |policy| {
        let balancer = balancer(policy, &[1; 100]);
        let mut load = Active::none(100);
        for _ in 0..10_000 {
            let server = balancer.choose(&Pick::default(), &load).expect("up");
            load.counts[server] += 1;
        }
        load.counts.iter().max().copied().unwrap_or(0)
    };
    assert!(spread(Policy::TwoChoices) <= 104);
    assert!(spread(Policy::Random) >= 115);
}

#[test]
fn those_beside_a_full_server_are_drawn_by_weight() {
    for (policy, weights, expected) in [
        (Policy::Random, [1000, 1, 1], 4500),
        (Policy::Random, [1000, 2, 1], 6000),
        (Policy::TwoChoices, [1000, 1, 1], 4500),
        (Policy::LeastLatency, [1000, 1, 1], 4500),
    ] {
        let load = Active {
            counts: vec![1, 0, 0],
            max: Some(1),
        };
        let counts = shares(&balancer(policy, &weights), &load, 9000);
        assert!(counts[1].abs_diff(expected) < 300, "{policy:?}: {counts:?}");
    }
}

#[test]
fn first_fails_over_in_order_and_back() {
    let balancer = balancer(Policy::First, &[1, 1, 1]);
    let load = Active::none(3);
    let choose = |tried: &[usize]| {
        balancer.choose(
            &Pick {
                tried,
                ..Pick::default()
            },
            &load,
        )
    };
    assert_eq!(choose(&[]), Ok(0));
    assert_eq!(choose(&[0]), Ok(1));
    balancer.refresh(only_up(&[2]));
    assert_eq!(choose(&[]), Ok(2));
    balancer.refresh(|_| FULL_SHARE);
    assert_eq!(choose(&[]), Ok(0));
}

#[test]
fn least_latency_prefers_the_fast_and_tries_the_slow_again() {
    let balancer = balancer(Policy::LeastLatency, &[1, 1]);
    let load = Active::none(2);
    let slow_share = |now_us| {
        let slow = |_: &u32| {
            balancer.choose(
                &Pick {
                    now_us,
                    ..Pick::default()
                },
                &load,
            ) == Ok(1)
        };
        (0..1000).filter(slow).count()
    };
    balancer.observe(0, 1_000, 0);
    balancer.observe(1, 50_000, 0);
    assert!(slow_share(0) < 100);
    // Heard nothing of for a minute while the fast one kept answering in a millisecond.
    balancer.observe(0, 1_000, 60_000_000);
    assert!(slow_share(60_000_000) > 800);
}

#[test]
fn least_latency_counts_requests_in_flight() {
    let balancer = balancer(Policy::LeastLatency, &[1, 1]);
    balancer.observe(0, 1_000, 0);
    balancer.observe(1, 5_000, 0);
    let busy = Active {
        counts: vec![9, 0],
        max: None,
    };
    let counts = shares(&balancer, &busy, 1000);
    assert!(
        counts[1] > 900,
        "ten times a millisecond is longer than five: {counts:?}"
    );
}

#[test]
fn a_server_without_answers_yet_does_not_get_everything() {
    let balancer = balancer(Policy::LeastLatency, &[1, 1]);
    balancer.observe(0, 1_000, 0);
    let mut load = Active::none(2);
    for _ in 0..100 {
        let server = balancer.choose(&Pick::default(), &load).expect("up");
        load.counts[server] += 1;
    }
    assert!(
        load.counts[0].abs_diff(load.counts[1]) <= 4,
        "{:?}",
        load.counts
    );
}

#[test]
fn slow_start_scales_the_share_of_every_weighted_policy() {
    for policy in [
        Policy::RoundRobin,
        Policy::LeastConnections,
        Policy::Random,
        Policy::TwoChoices,
    ] {
        let balancer = balancer(policy, &[1, 1]);
        balancer.refresh(|server| if server == 1 { 250 } else { 1000 });
        let counts = shares(&balancer, &Active::none(2), 10_000);
        assert!(counts[1].abs_diff(2000) < 150, "{policy:?}: {counts:?}");
    }
}

#[test]
fn backups_serve_when_no_other_is_left() {
    for policy in ALL {
        let mut servers = servers(&[1, 1, 1]);
        servers[2].backup = true;
        let balancer = Balancer::new(&servers, &settings(policy));
        let mut load = Active::none(3);
        assert_eq!(shares(&balancer, &load, 300)[2], 0, "{policy:?}");
        assert_eq!(
            balancer.choose(
                &Pick {
                    tried: &[1, 0],
                    ..keyed(1)
                },
                &load
            ),
            Ok(2),
            "{policy:?} on a retry"
        );
        load.max = Some(1);
        load.counts = vec![1, 1, 0];
        assert_eq!(
            balancer.choose(&keyed(1), &load),
            Err(NoServer::AllFull),
            "{policy:?} when the others are full"
        );
        balancer.refresh(only_up(&[2]));
        assert_eq!(
            balancer.choose(&keyed(1), &load),
            Ok(2),
            "{policy:?} when the others are down"
        );
    }
}

#[test]
fn the_reason_for_no_server_is_told() {
    for policy in ALL {
        let balancer = balancer(policy, &[1, 1, 0]);
        let full = Active {
            counts: vec![1; 3],
            max: Some(1),
        };
        let choose =
            |tried: &[usize], load: &Active| balancer.choose(&Pick { tried, ..keyed(3) }, load);
        assert_eq!(
            choose(&[0, 1], &Active::none(3)),
            Err(NoServer::AllTried),
            "{policy:?}"
        );
        assert_eq!(choose(&[0], &full), Err(NoServer::AllFull), "{policy:?}");
        balancer.refresh(only_up(&[2]));
        assert_eq!(
            choose(&[], &Active::none(3)),
            Err(NoServer::NoneHealthy),
            "{policy:?}"
        );
    }
}

#[test]
fn try_all_uses_the_unhealthy_while_none_is_healthy() {
    for policy in ALL {
        let settings = Settings {
            try_all: true,
            ..settings(policy)
        };
        let balancer = Balancer::new(&servers(&[1, 1, 0]), &settings);
        let load = Active::none(3);
        balancer.refresh(|_| 0);
        let counts = shares(&balancer, &load, 100);
        assert_eq!((counts[0] + counts[1], counts[2]), (100, 0), "{policy:?}");
        balancer.refresh(only_up(&[1]));
        assert_eq!(shares(&balancer, &load, 100), [0, 100, 0], "{policy:?}");
    }
}

#[test]
fn the_preferred_server_is_chosen_while_it_can_take_requests() {
    let pick = |server, tried| Pick {
        preferred: Some(server),
        tried,
        ..Pick::default()
    };
    let mut servers = servers(&[1, 1, 0, 1]);
    servers[3].backup = true;
    for policy in [Policy::RoundRobin, Policy::First, Policy::Hash] {
        let balancer = Balancer::new(&servers, &settings(policy));
        let mut load = Active::none(4);
        for server in 0..4 {
            // Weight 0 and a backup keep their own clients.
            assert_eq!(balancer.choose(&pick(server, &[]), &load), Ok(server));
        }
        assert_eq!(balancer.choose(&pick(1, &[1]), &load), Ok(0), "tried");
        (load.counts[1], load.max) = (7, Some(7));
        assert_eq!(balancer.choose(&pick(1, &[]), &load), Ok(0), "full");
        load.max = None;
        balancer.refresh(only_up(&[0]));
        for server in 1..5 {
            assert_eq!(balancer.choose(&pick(server, &[]), &load), Ok(0), "down");
        }
        balancer.refresh(|server| u16::from(server == 1));
        assert_eq!(balancer.choose(&pick(1, &[]), &load), Ok(1), "warming up");
    }
}

#[test]
fn the_preferred_server_is_tried_when_all_are() {
    let settings = Settings {
        try_all: true,
        ..settings(Policy::First)
    };
    let balancer = Balancer::new(&servers(&[1, 1]), &settings);
    balancer.refresh(|_| 0);
    let pick = Pick {
        preferred: Some(1),
        ..Pick::default()
    };
    assert_eq!(balancer.choose(&pick, &Active::none(2)), Ok(1));
}

fn any_policy() -> impl Strategy<Value = Policy> {
    prop::sample::select(&ALL[..])
}

fn any_share() -> impl Strategy<Value = u16> {
    prop_oneof![4 => Just(FULL_SHARE), 1 => 1..=FULL_SHARE, 3 => Just(0)]
}

/// One server: weight, backup, shares over time, whether this request tried it, whether it is full.
type AnyServer = (u16, bool, Vec<u16>, bool, bool);

fn any_server() -> impl Strategy<Value = AnyServer> {
    let weight = prop_oneof![Just(0), Just(1), 0..=1000_u16];
    let shares = prop::collection::vec(any_share(), 3);
    (
        weight,
        prop::bool::weighted(0.2),
        shares,
        prop::bool::weighted(0.3),
        prop::bool::weighted(0.2),
    )
}

/// Whether the server could take new requests.
fn up(server: &AnyServer, round: usize) -> bool {
    server.2[round] > 0 && server.0 > 0
}

proptest! {
    #[test]
    fn a_chosen_server_may_be_chosen_and_none_means_none(
        policy in any_policy(),
        config in prop::collection::vec(any_server(), 1..40),
        bounded_load in prop::option::of(1.0..3.0_f64),
        keys in prop::collection::vec(prop::option::of(any::<u64>()), 1..20),
    ) {
        let list = config.iter().enumerate();
        let servers: Vec<_> = list.map(|(at, s)| Server { name: at.to_string(), weight: s.0, backup: s.1 }).collect();
        let balancer = Balancer::new(&servers, &Settings { bounded_load, ..settings(policy) });
        let tried: Vec<_> = (0..config.len()).filter(|&at| config[at].3).collect();
        let load = Active { counts: config.iter().map(|s| u32::from(s.4)).collect(), max: Some(1) };
        for round in 0..3 {
            balancer.refresh(|server| config[server].2[round]);
            let takes = |s: &AnyServer| up(s, round) && !s.3 && !s.4;
            let primary_left = config.iter().any(|s| !s.1 && up(s, round) && !s.3);
            for &key in &keys {
                let pick = Pick { key, tried: &tried, ..Pick::default() };
                match balancer.choose(&pick, &load) {
                    Ok(at) => {
                        prop_assert!(takes(&config[at]));
                        prop_assert!(!(config[at].1 && primary_left), "a backup in place of a primary");
                    }
                    Err(NoServer::AllFull) => {
                        prop_assert!(config.iter().any(|s| up(s, round) && !s.3 && s.4));
                        prop_assert!(!config.iter().any(|s| takes(s) && !s.1));
                    }
                    Err(NoServer::AllTried) => prop_assert!(!config.iter().any(takes)),
                    Err(NoServer::NoneHealthy) => prop_assert!(!config.iter().any(|s| up(s, round))),
                }
            }
        }
    }
}
