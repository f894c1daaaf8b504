//! The health table: one small entry for each server, written by the probe thread and read by every shard.
//!
//! Each entry is a seqlock on cache lines of its own. The words are atomics and the order comes from fences (Boehm: Can Seqlocks
//! Get Along With Programming Language Memory Models?, MSPC 2012), so there is no `unsafe` and no lock. One epoch counts the
//! changes that matter to choosing a server: a shard looks at it with one relaxed load for each request and reads the entries
//! only when it has moved.

use std::sync::Arc;

#[cfg(all(test, loom))]
use loom::sync::atomic::{AtomicU64, Ordering, fence};
#[cfg(not(all(test, loom)))]
use std::sync::atomic::{AtomicU64, Ordering, fence};

use super::{Cause, Order, State};

/// Tries before a reader gives way to a writer that was interrupted half-way. A write takes a few nanoseconds.
const TRIES: usize = if cfg!(loom) { 1 } else { 100 };
/// In the weight's place when an operator has not set one.
const NO_WEIGHT: u64 = 0xffff;
const WORDS: usize = 5;

/// What is known of one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its health.
    pub state: State,
    /// Why it is in this state.
    pub cause: Cause,
    /// When it came into this state, in milliseconds of the monitor's clock.
    pub since_ms: u64,
    /// What an operator has ordered.
    pub order: Order,
    /// When that was, in milliseconds of the monitor's clock; 0 when nothing was ever ordered.
    pub ordered_ms: u64,
    /// Weight set by an operator in place of the configured one.
    pub weight: Option<u16>,
    /// Ejections in a row: what the length of the next one grows with.
    pub ejections: u8,
    /// Result of the last probe; `None` before the first.
    pub last_probe: Option<LastProbe>,
}

/// The result of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastProbe {
    /// When it ended, in milliseconds of the monitor's clock.
    pub at_ms: u64,
    /// How long it took, in microseconds.
    pub took_us: u32,
    /// [`Cause::ProbeOk`] or what went wrong.
    pub result: Cause,
}

impl Entry {
    /// A server that nothing is known of yet is taken to be healthy: the first probe decides at once.
    pub const ASSUMED_UP: Self = Self {
        state: State::Up,
        cause: Cause::Assumed,
        since_ms: 0,
        order: Order::Serve,
        ordered_ms: 0,
        weight: None,
        ejections: 0,
        last_probe: None,
    };

    /// For how long it has been up again and let serve; `None` when it is not up, or was never anything else. What slow start
    /// goes by.
    pub fn recovered_ms(&self, now_ms: u64) -> Option<u64> {
        let recovered = self.cause != Cause::Assumed || self.ordered_ms > 0;
        (recovered && self.state == State::Up)
            .then(|| now_ms.saturating_sub(self.serves_since_ms()))
    }

    /// Since when it takes requests, if it does: it is well, and it may.
    pub fn serves_since_ms(&self) -> u64 {
        self.since_ms.max(self.ordered_ms)
    }

    /// Whether it takes new requests, as far as health and orders go.
    pub fn serves(&self) -> bool {
        self.state == State::Up && self.order == Order::Serve
    }

    /// Whether the difference to `other` matters to choosing a server.
    fn chosen_like(&self, other: &Self) -> bool {
        let part = |e: &Self| (e.state, e.since_ms, e.order, e.ordered_ms, e.weight);
        part(self) == part(other)
    }

    fn encode(&self) -> [u64; WORDS] {
        let byte = |value: u8, at: u32| u64::from(value) << (8 * at);
        let (probed, result, took_us, at_ms) = match self.last_probe {
            Some(probe) => (1, probe.result as u8, probe.took_us, probe.at_ms),
            None => (0, 0, 0, 0),
        };
        let flags = byte(self.state as u8, 0)
            | byte(self.cause as u8, 1)
            | byte(self.ejections, 2)
            | byte(probed, 3)
            | byte(result, 4)
            | byte(self.order as u8, 5)
            | self.weight.map_or(NO_WEIGHT, u64::from) << 48;
        [
            flags,
            self.since_ms,
            u64::from(took_us),
            at_ms,
            self.ordered_ms,
        ]
    }

    fn decode([flags, since_ms, took_us, at_ms, ordered_ms]: [u64; WORDS]) -> Self {
        let byte = |at: u32| (flags >> (8 * at)) as u8;
        let weight = flags >> 48;
        let probe = LastProbe {
            at_ms,
            took_us: took_us as u32,
            result: Cause::from_code(byte(4)),
        };
        Self {
            state: State::from_code(byte(0)),
            cause: Cause::from_code(byte(1)),
            since_ms,
            order: Order::from_code(byte(5)),
            ordered_ms,
            weight: (weight != NO_WEIGHT).then_some(weight as u16),
            ejections: byte(2),
            last_probe: (byte(3) == 1).then_some(probe),
        }
    }
}

/// Two cache lines: x86 fetches them in pairs, so that one alone would still be shared with a neighbour.
#[repr(align(128))]
#[derive(Debug)]
struct Slot {
    /// Odd while a write is under way.
    sequence: AtomicU64,
    words: [AtomicU64; WORDS],
}

impl Slot {
    fn new(entry: &Entry) -> Self {
        Self {
            sequence: AtomicU64::new(0),
            words: entry.encode().map(AtomicU64::new),
        }
    }

    fn read(&self) -> Option<[u64; WORDS]> {
        for _ in 0..TRIES {
            let before = self.sequence.load(Ordering::Acquire);
            let words = self.load();
            fence(Ordering::Acquire);
            if before.is_multiple_of(2) && self.sequence.load(Ordering::Relaxed) == before {
                return Some(words);
            }
            std::hint::spin_loop();
        }
        None
    }

    fn load(&self) -> [u64; WORDS] {
        self.words
            .each_ref()
            .map(|word| word.load(Ordering::Relaxed))
    }

    /// Only one thread may write.
    fn write(&self, words: [u64; WORDS]) {
        let sequence = self.sequence.load(Ordering::Relaxed);
        self.sequence
            .store(sequence.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        for (slot, word) in self.words.iter().zip(words) {
            slot.store(word, Ordering::Relaxed);
        }
        self.sequence
            .store(sequence.wrapping_add(2), Ordering::Release);
    }
}

/// A word on lines of its own: every shard reads it for each request.
#[repr(align(128))]
#[derive(Debug)]
struct Padded(AtomicU64);

/// The readers' side.
#[derive(Debug)]
pub struct Table {
    slots: Box<[Slot]>,
    epoch: Padded,
    /// When the writer last showed that it is alive, in milliseconds of the monitor's clock; [`STALE`] when it has died.
    beat_ms: Padded,
    /// How often the writer has died.
    deaths: AtomicU64,
}

const STALE: u64 = u64::MAX;

impl Table {
    /// The epoch, when it is not `seen`: read the entries again and remember the new one. One relaxed load when nothing has
    /// changed. What was written before the epoch moved is then visible.
    pub fn changed(&self, seen: u64) -> Option<u64> {
        let epoch = self.epoch.0.load(Ordering::Relaxed);
        if epoch == seen {
            return None;
        }
        fence(Ordering::Acquire);
        Some(epoch)
    }

    /// One server's entry. `None` when the writer was interrupted in the middle of writing it: keep what you had and look again
    /// at the next request, rather than wait for a thread that may not be running.
    pub fn read(&self, server: usize) -> Option<Entry> {
        self.slots[server].read().map(Entry::decode)
    }

    /// How long ago the writer last showed that it is alive, in milliseconds; `None` when it has died and is being restarted.
    /// Entries older than a second or so are stale: true once, not checked since.
    pub fn age_ms(&self, now_ms: u64) -> Option<u64> {
        match self.beat_ms.0.load(Ordering::Relaxed) {
            STALE => None,
            beat_ms => Some(now_ms.saturating_sub(beat_ms)),
        }
    }

    /// How often the writer has died and was started again.
    pub fn deaths(&self) -> u64 {
        self.deaths.load(Ordering::Relaxed)
    }
}

/// The writer's side. There is one for each table.
#[derive(Debug)]
pub struct Writer {
    table: Arc<Table>,
}

impl Writer {
    /// A table for so many servers, all assumed to be up. Its epoch is 1, so that a reader that has seen none (0) reads it.
    pub fn new(servers: usize) -> Self {
        let slots = (0..servers)
            .map(|_| Slot::new(&Entry::ASSUMED_UP))
            .collect();
        let word = |value| Padded(AtomicU64::new(value));
        Self {
            table: Arc::new(Table {
                slots,
                epoch: word(1),
                beat_ms: word(0),
                deaths: AtomicU64::new(0),
            }),
        }
    }

    /// The readers' side.
    pub fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// One server's entry. The writer is not in the middle of writing it.
    pub fn read(&self, server: usize) -> Entry {
        let slot = &self.table.slots[server];
        Entry::decode(slot.load())
    }

    /// Replaces a server's entry, and moves the epoch if that matters to choosing a server.
    pub fn write(&mut self, server: usize, entry: &Entry) {
        let before = self.read(server);
        self.table.slots[server].write(entry.encode());
        if !before.chosen_like(entry) {
            let epoch = self.table.epoch.0.load(Ordering::Relaxed);
            self.table
                .epoch
                .0
                .store(epoch.wrapping_add(1), Ordering::Release);
        }
    }

    /// Shows that the writer is alive.
    pub fn beat(&mut self, now_ms: u64) {
        self.table.beat_ms.0.store(now_ms, Ordering::Relaxed);
    }

    /// The writer has died: marks the table stale until the next beat.
    pub fn mark_stale(&mut self) {
        let deaths = &self.table.deaths;
        deaths.store(deaths.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        self.table.beat_ms.0.store(STALE, Ordering::Relaxed);
    }
}

/// An entry whose figures all follow from one, so that a mixed one shows.
#[cfg(test)]
fn at(n: u64) -> Entry {
    let probe = LastProbe {
        at_ms: n,
        took_us: n as u32,
        result: Cause::ProbeOk,
    };
    Entry {
        since_ms: n,
        last_probe: Some(probe),
        ..Entry::ASSUMED_UP
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::thread;

    use proptest::prelude::*;

    use super::*;

    fn any_entry() -> impl Strategy<Value = Entry> {
        let cause = || (0..Cause::COUNT).prop_map(Cause::from_code);
        let probe = (any::<u64>(), any::<u32>(), cause());
        let probe = probe.prop_map(|(at_ms, took_us, result)| LastProbe {
            at_ms,
            took_us,
            result,
        });
        let order = (0..3_u8, any::<u64>(), prop::option::of(0..=1000_u16));
        (
            0..3_u8,
            cause(),
            any::<u64>(),
            order,
            any::<u8>(),
            prop::option::of(probe),
        )
            .prop_map(
                |(state, cause, since_ms, (order, ordered_ms, weight), ejections, last_probe)| {
                    Entry {
                        state: State::from_code(state),
                        cause,
                        since_ms,
                        order: Order::from_code(order),
                        ordered_ms,
                        weight,
                        ejections,
                        last_probe,
                    }
                },
            )
    }

    proptest! {
        #[test]
        fn entries_come_back_as_written(entry in any_entry()) {
            let mut writer = Writer::new(2);
            writer.write(1, &entry);
            prop_assert_eq!(writer.table().read(1), Some(entry));
            prop_assert_eq!(writer.table().read(0), Some(Entry::ASSUMED_UP));
        }
    }

    #[test]
    fn the_epoch_moves_only_for_what_matters_to_choosing() {
        let mut writer = Writer::new(1);
        let table = Arc::clone(writer.table());
        let seen = table.changed(0).expect("the first look reads");
        let probe = LastProbe {
            at_ms: 5,
            took_us: 900,
            result: Cause::ProbeOk,
        };
        let probed = Entry {
            last_probe: Some(probe),
            ejections: 1,
            ..Entry::ASSUMED_UP
        };
        writer.write(0, &probed);
        assert_eq!(table.changed(seen), None);
        let changes = [
            Entry {
                state: State::Down,
                ..probed
            },
            Entry {
                since_ms: 7,
                ..probed
            },
            Entry {
                order: Order::Drain,
                ..probed
            },
            Entry {
                weight: Some(3),
                ..probed
            },
        ];
        for change in changes {
            let seen = table.changed(0).expect("a newer epoch");
            writer.write(0, &change);
            assert!(table.changed(seen).is_some(), "{change:?}");
        }
    }

    #[test]
    fn readers_never_see_half_an_entry() {
        let mut writer = Writer::new(1);
        let table = Arc::clone(writer.table());
        let done = AtomicBool::new(false);
        writer.write(0, &at(0));
        thread::scope(|scope| {
            let reader = || {
                let mut last = 0;
                while !done.load(Ordering::Relaxed) {
                    if let Some(entry) = table.read(0) {
                        assert_eq!(entry, at(entry.since_ms));
                        assert!(entry.since_ms >= last, "time goes on");
                        last = entry.since_ms;
                    }
                }
            };
            scope.spawn(reader);
            scope.spawn(reader);
            (1..200_000).for_each(|n| writer.write(0, &at(n)));
            done.store(true, Ordering::Relaxed);
        });
    }

    #[test]
    fn the_age_is_counted_from_the_last_beat() {
        let mut writer = Writer::new(0);
        writer.beat(1000);
        assert_eq!(writer.table().age_ms(1250), Some(250));
        writer.mark_stale();
        assert_eq!(writer.table().age_ms(1250), None);
        assert_eq!(writer.table().deaths(), 1);
    }
}

/// The orders of two threads' memory accesses that the memory model allows, with up to three switches between them:
/// `RUSTFLAGS="--cfg loom" cargo test --lib --release health::table`.
#[cfg(all(test, loom))]
mod loom_tests {
    use loom::thread;

    use super::*;

    fn model(threads: impl Fn() + Sync + Send + 'static) {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(threads);
    }

    /// A reader that makes `reads` while a writer makes `writes`.
    fn race(reads: usize, writes: u64) {
        model(move || {
            let writer = Writer::new(1);
            let table = Arc::clone(writer.table());
            let slot = |n| at(n).encode();
            table.slots[0].write(slot(0));
            let reader = thread::spawn(move || {
                let mut last = 0;
                for words in (0..reads).filter_map(|_| table.slots[0].read()) {
                    assert_eq!(words, slot(words[1]));
                    assert!(words[1] >= last, "entries come in order");
                    last = words[1];
                }
            });
            (1..=writes).for_each(|n| writer.table.slots[0].write(slot(n)));
            reader.join().expect("the reader's assertions hold");
        });
    }

    #[test]
    fn a_reader_sees_whole_entries() {
        race(1, 2);
    }

    #[test]
    fn a_reader_sees_entries_in_order() {
        race(2, 1);
    }

    #[test]
    fn a_reader_that_sees_the_epoch_sees_the_entry() {
        model(|| {
            let mut writer = Writer::new(1);
            let table = Arc::clone(writer.table());
            let seen = table.changed(0).expect("the first epoch");
            let reader = thread::spawn(move || {
                if table.changed(seen).is_some() {
                    assert_eq!(table.read(0), Some(at(1)));
                }
            });
            writer.write(0, &at(1));
            reader.join().expect("the reader's assertions hold");
        });
    }
}
