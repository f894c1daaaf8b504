//! The status page against the counters.

use std::time::{Duration, Instant};

use ringlane::admin::Admin;
use serde_json::{Value, json};

use crate::fixture::{ODD_NAME, filled, get};

fn status_page(admin: &Admin) -> Value {
    serde_json::from_str(&get(admin, "/lb/status").body).expect("JSON")
}

#[test]
fn the_status_page_says_what_runs() {
    let (_, admin) = filled();
    let status = status_page(&admin);
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(status["pid"], std::process::id());
    assert_eq!(status["started"], "2000-10-10T13:55:36Z");
    assert!(
        status["uptime_s"]
            .as_u64()
            .is_some_and(|seconds| seconds < 60),
        "{}",
        status["uptime_s"]
    );
    assert_eq!(status["shard_restarts"], 1);
    let io = json!({
        "mode": "io_uring", "flags": "COOP_TASKRUN", "reason": "kernel 5.19 has no DEFER_TASKRUN", "ring_entries": 4096
    });
    assert_eq!(status["io"], io);
    let config = json!({ "listen": ["0.0.0.0:8080"], "shards": 2, "routes": 4, "upstreams": 2, "servers": 3 });
    assert_eq!(status["config"], config);
    assert!(
        status["process"]["resident_bytes"]
            .as_u64()
            .is_some_and(|bytes| bytes > 100_000)
    );
    assert!(status["process"]["open_fds"].as_u64() <= status["process"]["max_fds"].as_u64());
}

#[test]
fn the_status_page_has_each_shard_and_the_totals() {
    let (_, admin) = filled();
    let status = status_page(&admin);
    let [first, second] = [&status["shards"][0], &status["shards"][1]];
    assert_eq!(
        (
            &first["running"],
            &first["cpu"],
            &second["running"],
            &second["cpu"]
        ),
        (&json!(true), &json!(3), &json!(false), &json!(null))
    );
    assert!(first["cpu_s"].is_number() && second["cpu_s"].is_null());
    for (key, values) in [
        ("accepted", [10, 20, 30]),
        ("connections", [5, 10, 15]),
        ("active", [1, 2, 3]),
        ("requests", [100, 200, 300]),
        ("bytes_in", [1000, 2000, 3000]),
        ("upstream_new", [7, 7, 14]),
        ("panics", [0, 0, 0]),
    ] {
        assert_eq!(
            [&first[key], &second[key], &status["totals"][key]],
            values.map(Value::from).each_ref(),
            "{key}"
        );
    }
    let totals = &status["totals"];
    assert_eq!(
        totals["responses"],
        json!({ "1xx": 0, "2xx": 291, "3xx": 0, "4xx": 0, "5xx": 3 })
    );
    assert_eq!(totals["own_answers"], json!({ "502": 2, "other": 2 }));
    assert_eq!(
        (
            &totals["timeouts"]["response_header"],
            &totals["timeouts"]["connect"]
        ),
        (&json!(3), &json!(0))
    );
}

#[test]
fn the_status_page_has_each_server_over_all_shards() {
    let (_, admin) = filled();
    let status = status_page(&admin);
    assert_eq!(
        (
            &status["upstreams"][0]["name"],
            &status["upstreams"][1]["name"]
        ),
        (&json!("app"), &json!(ODD_NAME))
    );
    let server = &status["upstreams"][0]["servers"][1];
    let expected = json!({
        "name": "b", "address": "unix:/run/b.sock", "state": "unchecked", "active": 4, "idle": 8, "requests": 60,
    });
    for (key, value) in expected.as_object().expect("an object") {
        assert_eq!(&server[key], value, "{key}");
    }
    assert_eq!(
        (
            &server["failures"]["connect_refused"],
            &server["failures"]["closed"]
        ),
        (&json!(4), &json!(0))
    );
    let sticky = json!({ "hits": 3, "moves": 14, "inserts": 6 });
    assert_eq!(server["sticky"], sticky);
    let latency = json!({ "count": 20, "mean_us": 6.0, "p50_us": 5, "p90_us": 9, "p99_us": 10 });
    assert_eq!(server["latency"], latency);
    let nothing =
        json!({ "count": 0, "mean_us": null, "p50_us": null, "p90_us": null, "p99_us": null });
    assert_eq!(
        server["recent_latency"], nothing,
        "recorded before the listener started"
    );
    let last = &status["upstreams"][1]["servers"][0];
    assert_eq!(
        (&last["name"], &last["requests"], &last["latency"]),
        (&json!("c"), &json!(90), &nothing)
    );
}

#[test]
fn shares_and_imbalance_are_of_requests_since_the_listener_started() {
    let (view, admin) = filled();
    let before = status_page(&admin);
    assert_eq!(before["imbalance"], json!(null));
    assert_eq!(before["shards"][0]["share"], json!(null));
    for (shard, requests) in [(0, 30), (1, 10)] {
        view.shards[shard].requests.add(requests);
    }
    view.shards[0].servers[0].requests.add(4);
    view.shards[1].servers[1].requests.add(12);
    view.shards[1].servers[2].requests.add(1);
    let after = status_page(&admin);
    assert_eq!(after["imbalance"], 1.5);
    let shares = |list: &Value| -> Vec<f64> {
        let list = list.as_array().expect("a list").iter();
        list.map(|one| one["share"].as_f64().expect("a share"))
            .collect()
    };
    assert_eq!(shares(&after["shards"]), [0.75, 0.25]);
    assert_eq!(shares(&after["upstreams"][0]["servers"]), [0.25, 0.75]);
    assert_eq!(shares(&after["upstreams"][1]["servers"]), [1.0]);
    let rate = |value: &Value| value.as_f64().is_some_and(|rate| rate > 0.0);
    assert!(rate(&after["requests_per_s"]) && rate(&after["shards"][0]["requests_per_s"]));
    assert!(rate(&after["upstreams"][0]["servers"][0]["requests_per_s"]));
    let one = get(&admin, "/lb/servers/app/b").body;
    let one: Value = serde_json::from_str(&one).expect("JSON");
    assert_eq!(one["share"], 0.75);
    assert!(rate(&one["requests_per_s"]));
}

#[test]
fn a_shard_that_gets_no_further_shows() {
    let (view, admin) = filled();
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut shard = status_page(&admin)["shards"][0].take();
    while shard["busy_share"].is_null() {
        assert!(Instant::now() < deadline, "sampled every five seconds");
        std::thread::sleep(Duration::from_millis(100));
        shard = status_page(&admin)["shards"][0].take();
    }
    assert!(
        shard["busy_share"]
            .as_f64()
            .is_some_and(|share| (0.0..=1.0).contains(&share)),
        "{shard}"
    );
    assert_eq!(shard["stalled"], true);
    while shard["stalled"] == true {
        assert!(Instant::now() < deadline, "a turn of the sweeper shows");
        view.shards[0].sweeps.inc();
        std::thread::sleep(Duration::from_millis(100));
        shard = status_page(&admin)["shards"][0].take();
    }
}
