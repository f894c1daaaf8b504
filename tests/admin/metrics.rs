//! The metrics page, read by a strict parser.

use std::collections::{BTreeMap, BTreeSet};

use crate::fixture::{ODD_NAME, filled, get};

/// Labels that a case asks for.
type Labels<'a> = &'a [(&'a str, &'a str)];

/// A series: its name and labels.
type Series = (String, BTreeMap<String, String>);

/// What a family may hold, and what it does.
#[derive(Debug)]
struct Family {
    kind: String,
    samples: Vec<(Series, f64)>,
}

/// Reads text exposition format 0.0.4 more strictly than a server would: every family has HELP, then TYPE, then its samples
/// without anything in between, and no series comes twice.
fn parse_metrics(text: &str) -> BTreeMap<String, Family> {
    assert!(text.ends_with('\n'), "the last line ends too");
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    let mut current = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            current = help.split_once(' ').expect("a name and a text").0.into();
            let kind = lines
                .next()
                .and_then(|line| line.strip_prefix(&format!("# TYPE {current} ")))
                .expect("TYPE follows HELP");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            let family = Family {
                kind: kind.into(),
                samples: Vec::new(),
            };
            assert!(
                families.insert(current.clone(), family).is_none(),
                "{current} comes twice"
            );
            continue;
        }
        let (series, value) = parse_sample(line);
        let family = families
            .get_mut(&current)
            .expect("a family before its samples");
        let suffix = series
            .0
            .strip_prefix(&current)
            .unwrap_or_else(|| panic!("{line} in family {current}"));
        let suffixes: &[&str] = if family.kind == "histogram" {
            &["_bucket", "_sum", "_count"]
        } else {
            &[""]
        };
        assert!(suffixes.contains(&suffix), "{line} in family {current}");
        assert!(seen.insert(series.clone()), "{line} comes twice");
        family.samples.push((series, value));
    }
    families
}

fn parse_sample(line: &str) -> (Series, f64) {
    let name_end = line
        .find(|char: char| !(char.is_ascii_alphanumeric() || "_:".contains(char)))
        .expect("more than a name");
    let (name, mut rest) = line.split_at(name_end);
    assert!(
        name.starts_with(|char: char| char.is_ascii_alphabetic()),
        "{line}"
    );
    let mut labels = BTreeMap::new();
    if let Some(mut inside) = rest.strip_prefix('{') {
        loop {
            let (label, after) = inside.split_once("=\"").unwrap_or_else(|| panic!("{line}"));
            assert!(
                label
                    .chars()
                    .all(|char| char.is_ascii_alphanumeric() || char == '_')
                    && !label.is_empty(),
                "{line}"
            );
            let (value, after) = parse_label_value(after);
            assert!(
                labels.insert(label.into(), value).is_none(),
                "{line}: {label} twice"
            );
            match after.split_at(1) {
                (",", more) => inside = more,
                ("}", more) => {
                    rest = more;
                    break;
                }
                _ => panic!("{line}"),
            }
        }
    }
    let value = rest
        .strip_prefix(' ')
        .and_then(|value| value.parse().ok())
        .unwrap_or_else(|| panic!("{line}"));
    ((name.into(), labels), value)
}

/// Up to the closing quote, and what follows it.
fn parse_label_value(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return (value, &text[at + 1..]),
            '\\' => value.push(match chars.next() {
                Some((_, 'n')) => '\n',
                Some((_, escaped @ ('\\' | '"'))) => escaped,
                other => panic!("escape {other:?} in {text}"),
            }),
            _ => value.push(char),
        }
    }
    panic!("no closing quote in {text}")
}

/// A whole figure; each one here is.
fn value(families: &BTreeMap<String, Family>, family: &str, labels: Labels<'_>) -> u64 {
    let labels: BTreeMap<String, String> = labels
        .iter()
        .map(|(name, value)| ((*name).into(), (*value).into()))
        .collect();
    let samples = &families
        .get(family)
        .unwrap_or_else(|| panic!("no family {family}"))
        .samples;
    let found = samples
        .iter()
        .find(|((_, of_sample), _)| *of_sample == labels);
    let (_, value) = found.unwrap_or_else(|| panic!("no {labels:?} in {samples:?}"));
    assert!(value.fract() == 0.0, "{value}");
    *value as u64
}

#[test]
fn the_metrics_are_valid_and_agree_with_the_counters() {
    let (_, admin) = filled();
    let families = parse_metrics(&get(&admin, "/metrics").body);
    for (name, family) in &families {
        assert_eq!(name.ends_with("_total"), family.kind == "counter", "{name}");
        assert!(!family.samples.is_empty(), "{name} is empty");
        assert!(
            family
                .samples
                .iter()
                .all(|(_, value)| *value >= 0.0 || value.is_nan()),
            "{name}"
        );
    }
    let app_b = [("upstream", "app"), ("server", "b")];
    let cases: [(&str, Labels<'_>, u64); 16] = [
        (
            "ringlane_build_info",
            &[("version", env!("CARGO_PKG_VERSION"))],
            1,
        ),
        (
            "ringlane_io_info",
            &[("mode", "io_uring"), ("flags", "COOP_TASKRUN")],
            1,
        ),
        ("ringlane_shard_restarts_total", &[], 1),
        ("ringlane_requests_total", &[("shard", "0")], 100),
        ("ringlane_requests_total", &[("shard", "1")], 200),
        ("ringlane_shard_running", &[("shard", "1")], 0),
        (
            "ringlane_responses_total",
            &[("shard", "1"), ("class", "2xx")],
            194,
        ),
        (
            "ringlane_timeouts_total",
            &[("shard", "1"), ("kind", "response_header")],
            2,
        ),
        ("ringlane_own_answers_total", &[("status", "502")], 2),
        ("ringlane_own_answers_total", &[("status", "other")], 2),
        ("ringlane_upstream_requests_total", &app_b, 60),
        (
            "ringlane_upstream_requests_total",
            &[("upstream", ODD_NAME), ("server", "c")],
            90,
        ),
        (
            "ringlane_upstream_failures_total",
            &[app_b[0], app_b[1], ("kind", "connect_refused")],
            4,
        ),
        (
            "ringlane_upstream_sticky_total",
            &[app_b[0], app_b[1], ("result", "hits")],
            3,
        ),
        ("ringlane_upstream_weight", &app_b, 3),
        ("process_start_time_seconds", &[], 971_186_136),
    ];
    for (family, labels, expected) in cases {
        assert_eq!(
            value(&families, family, labels),
            expected,
            "{family} {labels:?}"
        );
    }
    assert!(value(&families, "process_resident_memory_bytes", &[]) > 100_000);
}

#[test]
fn what_is_gone_over_the_last_minute_is_there_once_measured() {
    let (view, admin) = filled();
    let figures = [
        ("ringlane_shard_share_ratio", &[("shard", "1")][..], 0.25),
        ("ringlane_shard_imbalance_ratio", &[], 1.5),
        (
            "ringlane_upstream_share_ratio",
            &[("upstream", "app"), ("server", "b")],
            0.75,
        ),
        (
            "ringlane_upstream_recent_response_seconds",
            &[("upstream", "app"), ("server", "b"), ("quantile", "0.9")],
            0.000_012,
        ),
    ];
    let line = |name: &str, labels: Labels<'_>| {
        let labels: Vec<_> = labels.iter().map(|(k, v)| format!("{k}=\"{v}\"")).collect();
        let start = if labels.is_empty() {
            format!("{name} ")
        } else {
            format!("{name}{{{}}} ", labels.join(","))
        };
        let text = get(&admin, "/metrics").body;
        let value = text.lines().find_map(|line| line.strip_prefix(&start));
        value
            .and_then(|value| value.parse::<f64>().ok())
            .unwrap_or_else(|| panic!("no {start}in\n{text}"))
    };
    for (name, labels, _) in figures {
        assert!(line(name, labels).is_nan(), "{name}: nothing was measured");
    }
    view.shards[0].requests.add(30);
    view.shards[1].requests.add(10);
    view.shards[0].servers[0].requests.add(1);
    view.shards[1].servers[1].requests.add(3);
    view.shards[1].servers[1].latency.record(12);
    for (name, labels, expected) in figures {
        let found = line(name, labels);
        assert!(
            (found - expected).abs() < 1e-9,
            "{name}: {found}, not {expected}"
        );
    }
}

#[test]
fn the_buckets_of_a_histogram_grow_up_to_its_count() {
    let (_, admin) = filled();
    let families = parse_metrics(&get(&admin, "/metrics").body);
    let samples = &families["ringlane_upstream_response_seconds"].samples;
    let mut counts = Vec::new();
    let mut buckets: Vec<(f64, f64)> = Vec::new();
    for ((name, labels), value) in samples {
        if name.ends_with("_bucket") {
            buckets.push((labels["le"].parse().expect("a bound"), *value));
        } else if name.ends_with("_count") {
            assert!(
                buckets.is_sorted_by(|left, right| left.0 < right.0 && left.1 <= right.1),
                "{buckets:?}"
            );
            assert_eq!(buckets.last(), Some(&(f64::INFINITY, *value)));
            counts.push(*value);
            buckets.clear();
        }
    }
    assert_eq!(counts, [0.0, 20.0, 0.0], "by server");
}
