//! What reading the health table costs, while the writer rests and while it is busy.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use ringlane::health::Cause;
use ringlane::health::table::{Entry, LastProbe, Table, Writer};

const SERVERS: usize = 100;

/// What the writer does meanwhile.
#[derive(Clone, Copy)]
enum Busy {
    /// Nothing.
    No,
    /// Writes all entries but the first, one after the other, without a pause.
    Others,
    /// Writes the first entry every 10 us: 100,000 times as often as probes do.
    Same,
}

fn while_writing(busy: Busy, measure: impl FnOnce(&Table)) {
    let mut writer = Writer::new(SERVERS);
    let table = Arc::clone(writer.table());
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0.. {
                if done.load(Ordering::Relaxed) {
                    return;
                }
                let probe = LastProbe {
                    at_ms: n,
                    took_us: 1,
                    result: Cause::ProbeOk,
                };
                let entry = Entry {
                    last_probe: Some(probe),
                    ..Entry::ASSUMED_UP
                };
                match busy {
                    Busy::No => thread::sleep(Duration::from_millis(1)),
                    Busy::Others => writer.write(1 + n as usize % (SERVERS - 1), &entry),
                    Busy::Same => {
                        writer.write(0, &entry);
                        pause(Duration::from_micros(10));
                    }
                }
            }
        });
        measure(&table);
        done.store(true, Ordering::Relaxed);
    });
}

fn pause(time: Duration) {
    let until = Instant::now() + time;
    while Instant::now() < until {
        std::hint::spin_loop();
    }
}

fn table(c: &mut Criterion) {
    for (name, busy) in [
        ("writer rests", Busy::No),
        ("writer busy", Busy::Others),
        ("writer busy here", Busy::Same),
    ] {
        while_writing(busy, |table| {
            let seen = table.changed(0).expect("the first epoch");
            let mut group = c.benchmark_group(name);
            group.bench_function("read", |b| b.iter(|| table.read(black_box(0))));
            group.bench_function("epoch", |b| b.iter(|| table.changed(black_box(seen))));
        });
    }
}

criterion_group!(benches, table);
criterion_main!(benches);
