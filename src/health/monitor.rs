//! The thread that knows every server's health and writes it down.
//!
//! It has an epoll runtime of its own and one task for each server that is probed, so a silent server delays nobody. One more
//! task hears the bell that shards ring when they report, and operators' orders ring. When the thread panics it starts again from what the table says, and
//! the table is marked stale meanwhile.

use std::cell::RefCell;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::ops::Range;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use monoio::LegacyDriver;
use monoio::io::AsyncReadRent;
use monoio::net::UnixStream;
use monoio::time::{sleep, sleep_until, timeout};

use super::judge::{self, Judge, Verdict};
use super::passive::{Bell, Reports};
use super::probe::{Outcome, probe};
use super::steer::Command;
use super::table::{Entry, LastProbe, Table, Writer};
use super::{Group, Helm, Reporter, State, Steer, Target};
use crate::config::{Check, Passive};

/// How often the thread looks around when nothing calls it.
const BEAT: Duration = Duration::from_millis(250);
/// Reports that come within this time are looked at together: a failing server under load makes many.
const GATHER: Duration = Duration::from_millis(5);
/// First probes are spread over this time at most.
const SPREAD: Duration = Duration::from_millis(200);
/// Between a panic and the next try.
const RESTART_PAUSE: Duration = Duration::from_millis(100);

/// A server's state has changed, or an operator has ordered something for it.
#[derive(Clone, Debug)]
pub struct Change {
    /// Its place in the table.
    pub server: usize,
    /// What was known of it.
    pub before: Entry,
    /// What is.
    pub entry: Entry,
    /// The order; `None` when its state has changed.
    pub steer: Option<Steer>,
    /// When.
    pub at: SystemTime,
}

/// The clock that the table's times are of.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    fn start() -> Self {
        Self {
            start: Instant::now(),
        }
    }

    /// Milliseconds since it was started.
    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// A time of this clock, for people, by what the wall clock shows now: it may have been set since.
    pub fn at(&self, ms: u64) -> SystemTime {
        self.at_by(SystemTime::now(), ms)
    }

    fn at_by(&self, now: SystemTime, ms: u64) -> SystemTime {
        now - self
            .start
            .elapsed()
            .saturating_sub(Duration::from_millis(ms))
    }
}

/// The running monitor. Stops when dropped.
#[derive(Debug)]
pub struct Monitor {
    table: Arc<Table>,
    bell: Arc<Bell>,
    helm: Helm,
    stop: Arc<AtomicBool>,
    clock: Clock,
    thread: Option<JoinHandle<()>>,
}

impl Monitor {
    /// Starts probing the servers of these groups. Returns one reporter for each shard. `on_change` is called on the monitor's
    /// thread, which waits for it.
    pub fn start(
        groups: Vec<Group>,
        shards: usize,
        on_change: impl FnMut(&Change) + Send + 'static,
    ) -> io::Result<(Self, Vec<Reporter>)> {
        let (bell, heard) = Bell::new()?;
        let (bell, stop) = (Arc::new(bell), Arc::new(AtomicBool::new(false)));
        let servers = groups.iter().map(|group| group.servers.len()).sum();
        let (reports, reporters) = Reports::new(shards, servers, &bell);
        let (helm, inbox) = Helm::new(&bell);
        let (writer, clock) = (Writer::new(servers), Clock::start());
        let table = Arc::clone(writer.table());
        let supervisor = Supervisor {
            bell: Arc::clone(&bell),
            heard,
            stop: Arc::clone(&stop),
        };
        let thread = thread::Builder::new()
            .name("health".to_owned())
            .spawn(move || {
                let core = Core {
                    writer,
                    judges: (0..servers).map(|_| Judge::default()).collect(),
                    groups: numbered(groups),
                    reports,
                    inbox,
                    on_change: Box::new(on_change),
                    clock,
                };
                supervisor.run(core);
            })?;
        Ok((
            Self {
                table,
                bell,
                helm,
                stop,
                clock,
                thread: Some(thread),
            },
            reporters,
        ))
    }

    /// Where the servers' health can be read.
    pub fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// What orders are given with.
    pub fn helm(&self) -> &Helm {
        &self.helm
    }

    /// The clock of the table's times.
    pub fn clock(&self) -> Clock {
        self.clock
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.bell.ring();
        if let Some(thread) = self.thread.take() {
            // Its panics are caught and reported where they happen.
            let _ = thread.join();
        }
    }
}

/// A group and the places of its servers in the table.
#[derive(Clone)]
struct Numbered {
    group: Rc<Group>,
    places: Range<usize>,
}

impl Numbered {
    /// The server at this place.
    fn target(&self, server: usize) -> &Target {
        &self.group.servers[server - self.places.start]
    }
}

fn numbered(groups: Vec<Group>) -> Vec<Numbered> {
    let mut next = 0;
    let number = |group: Group| {
        let start = next;
        next += group.servers.len();
        Numbered {
            group: Rc::new(group),
            places: start..next,
        }
    };
    groups.into_iter().map(number).collect()
}

/// Keeps the thread's work going.
struct Supervisor {
    bell: Arc<Bell>,
    heard: StdUnixStream,
    stop: Arc<AtomicBool>,
}

impl Supervisor {
    fn run(self, core: Core) {
        let core = Rc::new(RefCell::new(core));
        while !self.stopped() {
            match catch_unwind(AssertUnwindSafe(|| self.work(&core))) {
                Ok(Ok(())) => return,
                Ok(Err(error)) => {
                    tracing::error!(%error, "the health monitor cannot run and tries again; health is stale");
                }
                Err(_) => tracing::error!(
                    "the health monitor panicked and is started again; health is stale"
                ),
            }
            core.borrow_mut().writer.mark_stale();
            thread::sleep(RESTART_PAUSE);
        }
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    fn work(&self, core: &Rc<RefCell<Core>>) -> io::Result<()> {
        // epoll: an operation that is given up has no buffer in the kernel, and the runtime can be dropped at any time.
        let mut runtime = monoio::RuntimeBuilder::<LegacyDriver>::new()
            .enable_timer()
            .build()?;
        let heard = self.heard.try_clone()?;
        runtime.block_on(async {
            for numbered in &core.borrow().groups {
                for server in numbered.places.clone() {
                    monoio::spawn(watch(Rc::clone(core), server, numbered.clone()));
                }
            }
            self.listen(core, UnixStream::from_std(heard)?).await
        })
    }

    async fn listen(&self, core: &RefCell<Core>, mut heard: UnixStream) -> io::Result<()> {
        let mut byte = vec![0];
        loop {
            self.bell.silence();
            if self.stopped() {
                return Ok(());
            }
            core.borrow_mut().look_around();
            sleep(GATHER).await;
            byte = match timeout(BEAT, heard.read(byte)).await {
                Ok((read, byte)) => {
                    read?;
                    byte
                }
                Err(_) => vec![0],
            };
        }
    }
}

/// Probes one server for ever, where its group has a check.
async fn watch(core: Rc<RefCell<Core>>, server: usize, numbered: Numbered) {
    let (group, target) = (&numbered.group, numbered.target(server));
    let Some(check) = &group.check else { return };
    sleep(SPREAD.min(check.interval).mul_f64(random())).await;
    let mut first = 0;
    loop {
        let started = monoio::time::Instant::now();
        match probe(target, check, &mut first).await {
            Ok(outcome) => {
                core.borrow_mut()
                    .probed(server, check, group.passive.as_ref(), &outcome);
            }
            Err(error) => {
                let (upstream, server) = (&*target.upstream, &*target.name);
                tracing::warn!(upstream, server, %error, "cannot probe: this says nothing about the server");
            }
        }
        let interval = core.borrow().interval(server, check);
        sleep_until(started + interval.mul_f64(0.9 + 0.2 * random())).await;
    }
}

/// From 0 to 1. The standard library's hash seeds are what randomness it has.
fn random() -> f64 {
    (RandomState::new().hash_one(0) >> 11) as f64 / (1_u64 << 53) as f64
}

/// Everything that the tasks share. Borrowed for one step at a time, never over an await.
struct Core {
    writer: Writer,
    judges: Vec<Judge>,
    groups: Vec<Numbered>,
    reports: Reports,
    inbox: Receiver<Command>,
    on_change: Box<dyn FnMut(&Change) + Send>,
    clock: Clock,
}

impl Core {
    fn interval(&self, server: usize, check: &Check) -> Duration {
        let state = self.writer.read(server).state;
        if self.judges[server].is_changing(state) {
            check.fast_interval.min(check.interval)
        } else {
            check.interval
        }
    }

    fn probed(
        &mut self,
        server: usize,
        check: &Check,
        passive: Option<&Passive>,
        outcome: &Outcome,
    ) {
        let now_ms = self.clock.now_ms();
        let before = self.writer.read(server);
        let last = LastProbe {
            at_ms: now_ms,
            took_us: outcome.took_us,
            result: outcome.result,
        };
        let verdict = self.judges[server].probed(&before, check, passive, last);
        self.writer.write(
            server,
            &Entry {
                last_probe: Some(last),
                ..before
            },
        );
        self.apply(server, verdict, now_ms);
    }

    /// Takes in what shards and operators have said, and what time has changed.
    fn look_around(&mut self) {
        let now_ms = self.clock.now_ms();
        self.writer.beat(now_ms);
        while let Ok(command) = self.inbox.try_recv() {
            self.obey(&command, now_ms);
        }
        for at in 0..self.groups.len() {
            let numbered = self.groups[at].clone();
            let Some(passive) = &numbered.group.passive else {
                continue;
            };
            for server in numbered.places.clone() {
                if numbered.group.check.is_none() {
                    let verdict = judge::time_passed(&self.writer.read(server), passive, now_ms);
                    self.apply(server, verdict, now_ms);
                }
                self.hear_reports(server, passive, &numbered, now_ms);
            }
        }
    }

    fn hear_reports(&mut self, server: usize, passive: &Passive, numbered: &Numbered, now_ms: u64) {
        let Some((count, cause)) = self.reports.take(server) else {
            return;
        };
        let before = self.writer.read(server);
        if before.state != State::Up || !self.judges[server].failed(passive, count, now_ms) {
            return;
        }
        // Beside one of weight 0 the only other server is the only one.
        let others: Vec<usize> = numbered
            .places
            .clone()
            .filter(|&other| other != server && self.has_weight(other, numbered.target(other)))
            .collect();
        let is_out = |other: &&usize| !self.writer.read(**other).serves();
        let out = others.iter().filter(is_out).count();
        if judge::may_eject(passive, others.len() + 1, out) {
            let ejections = judge::next_ejection(&before, passive, now_ms);
            self.writer.write(
                server,
                &Entry {
                    ejections,
                    ..before
                },
            );
            self.apply(server, Some((State::Ejected, cause)), now_ms);
        }
    }

    /// Whether requests are sent to this server when it is well, and not only those of its own clients.
    fn has_weight(&self, server: usize, target: &Target) -> bool {
        let ordered = self.writer.read(server).weight;
        ordered.unwrap_or(target.weight) > 0
    }

    fn obey(&mut self, command: &Command, now_ms: u64) {
        let known = command.server < self.judges.len();
        if !(known && command.claim()) {
            return;
        }
        let before = self.writer.read(command.server);
        let entry = command.steer.applied_to(before, now_ms);
        self.writer.write(command.server, &entry);
        command.answer(entry);
        self.tell(command.server, before, entry, Some(command.steer));
    }

    fn apply(&mut self, server: usize, verdict: Verdict, now_ms: u64) {
        let Some((state, cause)) = verdict else {
            return;
        };
        let before = self.writer.read(server);
        let entry = Entry {
            state,
            cause,
            since_ms: now_ms,
            ..before
        };
        self.writer.write(server, &entry);
        self.judges[server].changed();
        self.tell(server, before, entry, None);
    }

    fn tell(&mut self, server: usize, before: Entry, entry: Entry, steer: Option<Steer>) {
        (self.on_change)(&Change {
            server,
            before,
            entry,
            steer,
            at: SystemTime::now(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_by_the_wall_clock_of_now() {
        let clock = Clock::start();
        let day = Duration::from_secs(86400);
        for now in [SystemTime::now() - day, SystemTime::now() + day] {
            let found = clock.at_by(now, 0);
            let passed = now.duration_since(found).expect("a time before now");
            assert!(passed <= clock.start.elapsed(), "{passed:?}");
            assert_eq!(clock.at_by(now, u64::MAX), now);
        }
    }
}
