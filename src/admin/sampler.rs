//! Figures over time: what the shards did lately, from counters that only grow.

use std::collections::VecDeque;
use std::io;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::traffic::{Requests, Traffic};
use crate::telemetry::histogram::Snapshot;
use crate::telemetry::process::thread_cpu_time;
use crate::telemetry::view::View;

/// When the shards' threads are surely there, and a first sample of them makes sense.
const FIRST: Duration = Duration::from_secs(1);
/// Between two samples of the shards.
const EVERY: Duration = Duration::from_secs(5);
/// What servers did is sampled at every third turn: a sample is some kilobytes for each.
const TURNS_PER_PAST: u64 = 3;
/// Such samples that are kept. The oldest is then 60 to 75 seconds old.
const PASTS: usize = 5;

/// What a shard had done at one time.
#[derive(Clone, Copy, Debug)]
struct ShardSample {
    at: Instant,
    thread_id: u32,
    cpu: Duration,
    sweeps: u64,
}

/// What a shard did between the last two samples, about five seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Activity {
    /// Share of the time that its thread was on a CPU, 0 to 1.
    pub(super) busy_share: f64,
    /// Its sweeper made no turn: something holds its thread up.
    pub(super) stalled: bool,
}

/// What had been counted at one time.
struct Past {
    requests: Requests,
    /// By flat server index.
    latencies: Vec<Snapshot>,
}

#[derive(Default)]
struct Samples {
    turns: u64,
    /// By shard, the last two. `None` while its thread does not run.
    shards: Vec<[Option<ShardSample>; 2]>,
    /// Newest last.
    pasts: VecDeque<Past>,
}

/// Bytes that the pasts after the first will hold.
pub(super) fn bytes_later(view: &View) -> u64 {
    (PASTS - 1) as u64 * view.server_count() as u64 * Snapshot::BYTES
}

/// Reads the view now and then, and remembers.
pub(super) struct Sampler {
    view: Arc<View>,
    samples: Mutex<Samples>,
}

impl Sampler {
    /// Takes the first sample.
    pub(super) fn new(view: Arc<View>) -> Self {
        let shards = vec![[None; 2]; view.shards.len()];
        let empty = Mutex::new(Samples {
            shards,
            ..Samples::default()
        });
        let sampler = Self {
            view,
            samples: empty,
        };
        sampler.sample();
        sampler
    }

    pub(super) fn view(&self) -> &View {
        &self.view
    }

    fn samples(&self) -> MutexGuard<'_, Samples> {
        // A sample is stored whole or not at all, so a panic left nothing half done.
        self.samples.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a sample.
    fn sample(&self) {
        let shards: Vec<_> = (0..self.view.shards.len())
            .map(|shard| self.shard(shard))
            .collect();
        let mut samples = self.samples();
        for (kept, new) in samples.shards.iter_mut().zip(shards) {
            *kept = [kept[1], new];
        }
        if samples.turns.is_multiple_of(TURNS_PER_PAST) {
            if samples.pasts.len() == PASTS {
                samples.pasts.pop_front();
            }
            samples.pasts.push_back(self.past());
        }
        samples.turns += 1;
    }

    fn past(&self) -> Past {
        let servers = 0..self.view.server_count();
        Past {
            requests: Requests::now(&self.view),
            latencies: servers.map(|index| self.latency(index)).collect(),
        }
    }

    fn shard(&self, shard: usize) -> Option<ShardSample> {
        let shard = &self.view.shards[shard];
        let thread_id = shard.running_thread()?;
        let cpu = thread_cpu_time(thread_id)?;
        Some(ShardSample {
            at: Instant::now(),
            thread_id,
            cpu,
            sweeps: shard.sweeps.get(),
        })
    }

    /// What each shard did lately; `None` until its thread has been seen twice.
    pub(super) fn activities(&self) -> Vec<Option<Activity>> {
        self.samples()
            .shards
            .iter()
            .map(|[earlier, later]| activity((*earlier)?, (*later)?))
            .collect()
    }

    /// A server's latencies since the start, all shards together.
    pub(super) fn latency(&self, server: usize) -> Snapshot {
        let mut sum = Snapshot::default();
        self.view
            .server_counters(server)
            .for_each(|counters| sum.add(&counters.latency));
        sum
    }

    /// A server's latencies of the last minute or so, all shards together; of all the time in the first minute.
    pub(super) fn recent_latency(&self, server: usize) -> Snapshot {
        let now = self.latency(server);
        let samples = self.samples();
        samples.pasts.front().map_or_else(
            || now.clone(),
            |oldest| now.since(&oldest.latencies[server]),
        )
    }

    /// The requests of the same time.
    pub(super) fn traffic(&self) -> Traffic {
        let now = Requests::now(&self.view);
        let samples = self.samples();
        let oldest = samples.pasts.front().map(|past| &past.requests);
        now.since(oldest.unwrap_or(&now))
    }
}

/// `None` when another thread has taken the shard over in between.
fn activity(earlier: ShardSample, later: ShardSample) -> Option<Activity> {
    let passed = later.at.duration_since(earlier.at);
    let used = later.cpu.checked_sub(earlier.cpu)?;
    (earlier.thread_id == later.thread_id && !passed.is_zero()).then(|| Activity {
        busy_share: (used.as_secs_f64() / passed.as_secs_f64()).min(1.0),
        stalled: earlier.sweeps == later.sweeps,
    })
}

/// The thread that takes the samples. Dropping it ends it.
pub(super) struct Thread {
    stop: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Thread {
    pub(super) fn start(sampler: Arc<Sampler>) -> io::Result<Self> {
        let (stop, stopped) = sync_channel(0);
        let thread = thread::Builder::new()
            .name("admin-sampler".into())
            .spawn(move || {
                let mut wait = FIRST;
                while stopped.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
                    sampler.sample();
                    wait = EVERY;
                }
            })?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::telemetry::counters::ShardCounters;
    use crate::telemetry::view::{IoReport, ServerView, UpstreamView};

    /// Two shards, two upstreams with two servers and one.
    pub(in crate::admin) fn view() -> Arc<View> {
        let server = |name: &str| ServerView {
            name: name.into(),
            address: format!("127.0.0.1:{name}"),
            weight: 1,
            backup: false,
        };
        Arc::new(View {
            shards: (0..2).map(|_| Arc::new(ShardCounters::new(3, 2))).collect(),
            upstreams: vec![
                UpstreamView {
                    name: "app".into(),
                    sticky: false,
                    servers: vec![server("9001"), server("9002")],
                },
                UpstreamView {
                    name: "say \"hi\"\\".into(),
                    sticky: false,
                    servers: vec![server("9003")],
                },
            ],
            listens: vec!["0.0.0.0:8080".into()],
            routes: 2,
            io: IoReport {
                mode: "epoll".into(),
                flags: String::new(),
                reason: Some("kernel.io_uring_disabled is 2".into()),
                ring_entries: 4096,
            },
            memory: None,
            started: SystemTime::UNIX_EPOCH + Duration::from_secs(971_186_136),
            started_instant: Instant::now(),
            draining: false.into(),
        })
    }

    fn shard_sample(at: Instant, thread_id: u32, cpu_ms: u64, sweeps: u64) -> ShardSample {
        ShardSample {
            at,
            thread_id,
            cpu: Duration::from_millis(cpu_ms),
            sweeps,
        }
    }

    #[test]
    fn activity_is_cpu_time_by_time_passed() {
        let start = Instant::now();
        let earlier = shard_sample(start, 7, 1000, 5);
        let end = start + EVERY;
        let cases = [
            (shard_sample(end, 7, 3500, 25), Some((0.5, false))),
            (shard_sample(end, 7, 1000, 25), Some((0.0, false))),
            (shard_sample(end, 7, 6010, 5), Some((1.0, true))),
            (shard_sample(end, 8, 1500, 25), None),
            (shard_sample(end, 7, 900, 25), None),
            (shard_sample(start, 7, 1000, 5), None),
        ];
        for (later, expected) in cases {
            let expected = expected.map(|(busy_share, stalled)| Activity {
                busy_share,
                stalled,
            });
            assert_eq!(activity(earlier, later), expected, "{later:?}");
        }
    }

    #[test]
    fn a_shard_shows_activity_once_it_was_seen_twice() {
        let view = view();
        let link = std::fs::read_link("/proc/thread-self").expect("proc is mounted");
        let id = link
            .file_name()
            .and_then(|id| id.to_str()?.parse().ok())
            .expect("a thread id");
        view.shards[1].begin(id, None);
        let sampler = Sampler::new(Arc::clone(&view));
        assert_eq!(sampler.activities(), [None, None]);
        view.shards[1].sweeps.inc();
        sampler.sample();
        let activities = sampler.activities();
        assert!(
            activities[0].is_none() && activities[1].is_some_and(|activity| !activity.stalled),
            "{activities:?}"
        );
        view.shards[1].end();
        sampler.sample();
        assert_eq!(sampler.activities(), [None, None]);
    }

    #[test]
    fn recent_latency_forgets_what_is_older_than_the_samples() {
        let view = view();
        let sampler = Sampler::new(Arc::clone(&view));
        let count = || sampler.recent_latency(1).count();
        view.shards[0].servers[1].latency.record(1000);
        view.shards[1].servers[1].latency.record(3000);
        assert_eq!((count(), sampler.recent_latency(0).count()), (2, 0));
        // Samples are taken at turns 0, 3, ...; with that of turn 15 the first one goes.
        (1..15).for_each(|_| sampler.sample());
        assert_eq!(count(), 2);
        sampler.sample();
        assert_eq!(count(), 0);
        view.shards[0].servers[1].latency.record(5000);
        assert_eq!((count(), sampler.latency(1).count()), (1, 3));
    }
}
