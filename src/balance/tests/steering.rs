//! What operators order.

use super::*;

/// Lets everyone in at these weights.
fn weighed(weights: &'static [u16]) -> impl Fn(usize) -> Steering {
    move |server| Steering {
        weight: weights[server],
        admits: Admits::Everyone,
    }
}

#[test]
fn steered_weights_share_like_configured_ones() {
    let load = Active::none(3);
    for policy in [Policy::RoundRobin, Policy::Random, Policy::Hash] {
        let steered = balancer(policy, &[1, 0, 9]);
        steered.steer(weighed(&[5, 1, 1]));
        steered.refresh(|_| FULL_SHARE);
        let [a, b, c] = shares(&steered, &load, 70_000)[..] else {
            panic!("three servers")
        };
        assert!(
            a.abs_diff(50_000) < 700 && b.abs_diff(10_000) < 500 && c.abs_diff(10_000) < 500,
            "{policy:?}: {a} {b} {c}"
        );
    }
}

#[test]
fn steered_weights_lead_keys_where_configured_ones_do() {
    let load = Active::none(3);
    let steered = balancer(Policy::Hash, &[1, 1, 1]);
    for weights in [&[5, 0, 1], &[1, 1, 1]] {
        steered.steer(weighed(weights));
        steered.refresh(|_| FULL_SHARE);
        let configured = balancer(Policy::Hash, weights);
        for key in 0..1000 {
            let home = |balancer: &Balancer| balancer.choose(&keyed(key), &load);
            assert_eq!(home(&steered), home(&configured), "{weights:?}, key {key}");
        }
    }
}

#[test]
fn a_server_that_is_taken_out_is_no_last_resort() {
    let load = Active::none(2);
    for policy in ALL {
        for admits in [Admits::OwnClients, Admits::Nobody] {
            let settings = Settings {
                try_all: true,
                ..settings(policy)
            };
            let balancer = Balancer::new(&servers(&[1, 1]), &settings);
            let out = |servers: &'static [usize]| {
                move |server| Steering {
                    weight: 1,
                    admits: if servers.contains(&server) {
                        admits
                    } else {
                        Admits::Everyone
                    },
                }
            };
            balancer.steer(out(&[0]));
            balancer.refresh(|_| 0);
            assert_eq!(shares(&balancer, &load, 20), [0, 20], "{policy:?}");
            balancer.steer(out(&[0, 1]));
            balancer.refresh(|_| FULL_SHARE);
            let chosen = balancer.choose(&keyed(1), &load);
            assert_eq!(chosen, Err(NoServer::NoneHealthy), "{policy:?}");
        }
    }
}

#[test]
fn servers_that_others_cannot_use_are_known() {
    let mut all = servers(&[1, 1, 0, 1]);
    all[3].backup = true;
    let balancer = Balancer::new(&all, &settings(Policy::First));
    assert_eq!(balancer.reserved(), [2, 3], "of weight 0, and a backup");
    let drained = |server| Steering {
        weight: u16::from(server != 2),
        admits: if server == 0 {
            Admits::OwnClients
        } else {
            Admits::Everyone
        },
    };
    balancer.steer(drained);
    balancer.refresh(|_| FULL_SHARE);
    assert_eq!(balancer.reserved(), [0, 2, 3]);
    balancer.refresh(only_up(&[0, 3]));
    assert_eq!(balancer.reserved(), [0], "the backup serves");
}
