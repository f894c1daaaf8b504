//! What `least_latency` makes of servers that come and go.

use super::*;

const SECOND_US: u64 = 1_000_000;

/// How many of a thousand requests at this time go to server 1.
fn of_a_thousand(balancer: &Balancer, now_us: u64) -> usize {
    let pick = Pick {
        now_us,
        ..Pick::default()
    };
    let load = Active::none(2);
    let second = |_: &u32| balancer.choose(&pick, &load) == Ok(1);
    (0..1000).filter(second).count()
}

/// Two servers, of which number 1 is out for 45 seconds and then back with this share.
fn after_an_outage(share: u16) -> Balancer {
    let balancer = balancer(Policy::LeastLatency, &[1, 1]);
    balancer.observe(0, 10_000, 0);
    balancer.observe(1, 10_000, 0);
    balancer.refresh(only_up(&[0]));
    balancer.observe(0, 10_000, 45 * SECOND_US);
    balancer.refresh(|server| if server == 1 { share } else { FULL_SHARE });
    balancer
}

#[test]
fn a_server_that_was_out_is_not_taken_to_be_fast() {
    let chosen = of_a_thousand(&after_an_outage(FULL_SHARE), 45 * SECOND_US);
    assert!(chosen.abs_diff(500) < 80, "{chosen}");
}

#[test]
fn a_slow_start_bounds_what_a_server_gets_however_fast_or_slow_it_is() {
    for (share, range) in [(50, 20..120), (100, 50..230)] {
        for latency_us in [None, Some(1_000), Some(10_000), Some(2_500_000)] {
            let balancer = after_an_outage(share);
            if let Some(latency_us) = latency_us {
                balancer.observe(1, latency_us, 45 * SECOND_US);
            }
            let chosen = of_a_thousand(&balancer, 45 * SECOND_US);
            assert!(range.contains(&chosen), "{share} {latency_us:?}: {chosen}");
        }
    }
}

#[test]
fn what_is_known_of_servers_stays_while_all_are_tried() {
    let settings = Settings {
        try_all: true,
        ..settings(Policy::LeastLatency)
    };
    let balancer = Balancer::new(&servers(&[1, 1]), &settings);
    balancer.observe(0, 10_000, 0);
    balancer.observe(1, 50_000, 0);
    balancer.refresh(|_| 0);
    balancer.refresh(|_| 0);
    assert_eq!(of_a_thousand(&balancer, 0), 0);
}
