//! What telemetry costs a request: counters, a latency, an access log line.

#![allow(missing_docs)] // criterion_group makes a public function

use std::hint::black_box;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use ringlane::config::{self, AccessFormat};
use ringlane::telemetry::access_log::{AccessLog, Opened, Record, ShardAccessLog};
use ringlane::telemetry::counters::ShardCounters;
use ringlane::telemetry::histogram::Histogram;

fn counters(criterion: &mut Criterion) {
    let shard = ShardCounters::new(1, 1);
    criterion.bench_function("counter/inc", |bencher| {
        bencher.iter(|| black_box(&shard).requests.inc());
    });
    criterion.bench_function("counter/status_class", |bencher| {
        bencher.iter(|| black_box(&shard).responses.count(black_box(200)));
    });
}

fn histogram(criterion: &mut Criterion) {
    let histogram = Histogram::default();
    let mut us = 1_u64;
    criterion.bench_function("histogram/record", |bencher| {
        bencher.iter(|| {
            us = us.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            histogram.record(black_box(us >> 44));
        });
    });
    criterion.bench_function("histogram/snapshot_p99", |bencher| {
        bencher.iter(|| histogram.snapshot().quantile_us(0.99));
    });
}

fn record() -> Record<'static> {
    Record {
        client: Ipv4Addr::new(203, 0, 113, 7).into(),
        method: b"GET",
        target: b"/products/1234?colour=red",
        minor_version: 1,
        status: 200,
        body_bytes_sent: 16_384,
        referer: b"https://www.example.com/products",
        user_agent: b"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
        host: b"www.example.com",
        upstream: "app",
        server: "127.0.0.1:9001",
        duration_us: 1234,
        upstream_us: 1100,
        retries: 0,
        reused: true,
    }
}

/// Lines that one shard's buffers surely hold.
const BURST: u64 = 1000;

/// The shard's side only. The writer gets a pause after each burst, not timed: a line dropped because the writer had no CPU
/// would cost less than one that is written.
fn access_log(criterion: &mut Criterion) {
    for (name, format) in [
        ("access_log/combined", AccessFormat::Combined),
        ("access_log/json", AccessFormat::Json),
    ] {
        let path = Some(PathBuf::from("/dev/null"));
        let buffer_bytes = 4 << 20;
        let opened = Opened::new(&config::AccessLog {
            path,
            format,
            buffer_bytes,
        });
        let log = AccessLog::start(opened.expect("/dev/null opens")).expect("a thread");
        let shard = log.shard(Arc::new(ShardCounters::new(0, 0)));
        criterion.bench_function(name, |bencher| {
            bencher.iter_custom(|lines| timed_lines(&shard, lines));
        });
        println!("{name}: {} lines dropped", shard.dropped());
    }
}

fn timed_lines(shard: &ShardAccessLog, lines: u64) -> Duration {
    let record = record();
    let mut spent = Duration::ZERO;
    for first in (0..lines).step_by(BURST as usize) {
        let start = Instant::now();
        for _ in first..lines.min(first + BURST) {
            shard.record(black_box(&record));
        }
        spent += start.elapsed();
        thread::sleep(Duration::from_micros(50));
    }
    spent
}

criterion_group!(telemetry, counters, histogram, access_log);
criterion_main!(telemetry);
