//! What choosing a server costs, by policy and number of servers; and what counting over all shards adds.

use std::hint::black_box;
use std::sync::atomic::{AtomicU32, Ordering};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use ringlane::balance::{Balancer, FULL_SHARE, Load, Pick, Policy, Server, Settings};

const POLICIES: [(&str, Policy); 7] = [
    ("round_robin", Policy::RoundRobin),
    ("random", Policy::Random),
    ("two_choices", Policy::TwoChoices),
    ("hash", Policy::Hash),
    ("first", Policy::First),
    ("least_latency", Policy::LeastLatency),
    ("least_connections", Policy::LeastConnections),
];

/// Requests in flight, counted by each shard on lines of its own; `shards` of them are added up.
struct Active {
    shards: Vec<Vec<AtomicU32>>,
}

impl Active {
    fn new(shards: usize, servers: usize) -> Self {
        let count = |server: usize| AtomicU32::new((server * 7 % 5) as u32);
        Self {
            shards: (0..shards)
                .map(|_| (0..servers).map(count).collect())
                .collect(),
        }
    }
}

impl Load for Active {
    fn active(&self, server: usize) -> u32 {
        self.shards
            .iter()
            .map(|shard| shard[server].load(Ordering::Relaxed))
            .sum()
    }

    fn full(&self, _: usize) -> bool {
        false
    }
}

fn balancer(policy: Policy, servers: usize, weight: impl Fn(usize) -> u16) -> Balancer {
    let server = |at| Server {
        name: format!("10.0.0.1:{at}"),
        weight: weight(at),
        backup: false,
    };
    let settings = Settings {
        policy,
        bounded_load: None,
        try_all: false,
        shard: 0,
        shards: 1,
        seed: 1,
    };
    Balancer::new(&(0..servers).map(server).collect::<Vec<_>>(), &settings)
}

/// A new key for each request, as cheaply as can be.
fn keys() -> impl FnMut() -> u64 {
    let mut key = 0_u64;
    move || {
        key = key.wrapping_add(0x9e37_79b9_7f4a_7c15);
        key
    }
}

fn choose(c: &mut Criterion, group: &str, balancer: &Balancer, load: &Active, id: BenchmarkId) {
    let mut key = keys();
    c.benchmark_group(group).bench_function(id, |b| {
        b.iter(|| {
            balancer.choose(
                &Pick {
                    key: Some(key()),
                    ..Pick::default()
                },
                black_box(load),
            )
        });
    });
}

/// What a sticky client's choice costs, whatever the policy.
fn preferred(c: &mut Criterion) {
    let balancer = balancer(Policy::RoundRobin, 100, |_| 1);
    let load = Active::new(1, 100);
    let pick = Pick {
        preferred: Some(99),
        ..Pick::default()
    };
    c.bench_function("preferred/100", |b| {
        b.iter(|| balancer.choose(black_box(&pick), black_box(&load)));
    });
}

fn policies(c: &mut Criterion) {
    for (name, policy) in POLICIES {
        for servers in [3, 100, 1000] {
            let load = Active::new(1, servers);
            choose(
                c,
                "equal",
                &balancer(policy, servers, |_| 1),
                &load,
                BenchmarkId::new(name, servers),
            );
            let mixed = |at| (at * 37 % 1000 + 1) as u16;
            choose(
                c,
                "weighted",
                &balancer(policy, servers, mixed),
                &load,
                BenchmarkId::new(name, servers),
            );
        }
    }
}

fn half_down(c: &mut Criterion) {
    for (name, policy) in &POLICIES[..4] {
        let balancer = balancer(*policy, 100, |_| 1);
        balancer.refresh(|server| if server % 2 == 0 { 0 } else { FULL_SHARE });
        choose(
            c,
            "half_down",
            &balancer,
            &Active::new(1, 100),
            BenchmarkId::new(*name, 100),
        );
    }
}

fn counting_over_shards(c: &mut Criterion) {
    for (name, policy) in [
        ("two_choices", Policy::TwoChoices),
        ("least_connections", Policy::LeastConnections),
    ] {
        for shards in [1, 4, 16, 64] {
            let (balancer, load) = (balancer(policy, 100, |_| 1), Active::new(shards, 100));
            choose(
                c,
                "shards",
                &balancer,
                &load,
                BenchmarkId::new(name, shards),
            );
        }
    }
}

fn refresh(c: &mut Criterion) {
    for (name, policy) in POLICIES {
        let balancer = balancer(policy, 1000, |_| 1);
        c.benchmark_group("refresh")
            .bench_function(BenchmarkId::new(name, 1000), |b| {
                b.iter(|| balancer.refresh(|_| black_box(FULL_SHARE)));
            });
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).warm_up_time(std::time::Duration::from_millis(100)).measurement_time(std::time::Duration::from_millis(300));
    targets = preferred, policies, half_down, counting_over_shards, refresh
}
criterion_main!(benches);
