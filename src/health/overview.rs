//! The servers' health, for people.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use super::table::{Entry, Table};
use super::{Change, Clock, Helm, Monitor, State, Steer};

/// Looks at an entry that is being written, before it counts as unknown.
const LOOKS: usize = 1000;
/// Beyond this age health is stale: the monitor shows several times a second that it lives.
const STALE_AFTER_MS: u64 = 2_000;
/// Changes that are kept.
const KEPT: usize = 50;

/// The last changes of state and orders, and how many there were.
#[derive(Debug)]
pub struct History {
    recent: Mutex<VecDeque<Change>>,
    /// By server, then by the state that it came into.
    counts: Box<[[AtomicU64; State::ALL.len()]]>,
    /// By server, then by the kind of order.
    orders: Box<[[AtomicU64; Steer::KINDS.len()]]>,
}

impl History {
    /// An empty one for so many servers.
    pub fn new(servers: usize) -> Self {
        Self {
            recent: Mutex::default(),
            counts: (0..servers).map(|_| Default::default()).collect(),
            orders: (0..servers).map(|_| Default::default()).collect(),
        }
    }

    /// Takes a change in.
    pub fn record(&self, change: &Change) {
        let count = match change.steer {
            None => &self.counts[change.server][change.entry.state as usize],
            Some(steer) => &self.orders[change.server][steer.kind()],
        };
        count.fetch_add(1, Relaxed);
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.len() == KEPT {
            recent.pop_back();
        }
        recent.push_front(change.clone());
    }

    /// The last changes, newest first.
    pub fn recent(&self) -> Vec<Change> {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.iter().cloned().collect()
    }

    /// How often a server came into a state.
    pub fn count(&self, server: usize, state: State) -> u64 {
        self.counts[server][state as usize].load(Relaxed)
    }

    /// How many orders of each kind there were for a server.
    pub fn orders(&self, server: usize) -> [u64; Steer::KINDS.len()] {
        self.orders[server]
            .each_ref()
            .map(|count| count.load(Relaxed))
    }
}

/// What the status listener reads.
#[derive(Debug)]
pub struct Overview {
    /// The clock of the table's times.
    pub clock: Clock,
    /// The last changes.
    pub history: Arc<History>,
    /// For orders.
    pub helm: Helm,
    table: Arc<Table>,
    /// Whether anybody checks a server, by its place in the table.
    checked: Vec<bool>,
}

impl Overview {
    /// Of a running monitor.
    pub fn new(monitor: &Monitor, history: Arc<History>, checked: Vec<bool>) -> Self {
        Self {
            clock: monitor.clock(),
            history,
            helm: monitor.helm().clone(),
            table: Arc::clone(monitor.table()),
            checked,
        }
    }

    /// Whether anybody checks a server.
    pub fn checks(&self, server: usize) -> bool {
        self.checked.get(server).copied().unwrap_or(false)
    }

    /// What is known of a server, orders included.
    ///
    /// # Panics
    /// Where there is no such server.
    pub fn entry(&self, server: usize) -> Option<Entry> {
        // A writer that was interrupted half-way goes on soon; whoever asks here can wait.
        let read = |_| {
            let entry = self.table.read(server);
            if entry.is_none() {
                std::thread::yield_now();
            }
            entry
        };
        (0..LOOKS).find_map(read)
    }

    /// Milliseconds since the monitor last showed that it lives; `None` when it has died and is being started again.
    pub fn age_ms(&self) -> Option<u64> {
        self.table.age_ms(self.clock.now_ms())
    }

    /// Whether what is known may no longer be true.
    pub fn is_stale(&self) -> bool {
        self.age_ms().is_none_or(|age_ms| age_ms > STALE_AFTER_MS)
    }

    /// How often the monitor has died and was started again.
    pub fn restarts(&self) -> u64 {
        self.table.deaths()
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn changes_are_counted_and_the_last_ones_kept() {
        let history = History::new(2);
        for n in 0..60 {
            let state = if n % 2 == 0 { State::Down } else { State::Up };
            let entry = Entry {
                state,
                since_ms: n,
                ..Entry::ASSUMED_UP
            };
            history.record(&Change {
                server: 1,
                before: Entry::ASSUMED_UP,
                entry,
                steer: None,
                at: SystemTime::now(),
            });
        }
        let recent = history.recent();
        assert_eq!(recent.len(), KEPT);
        assert_eq!(
            (recent[0].entry.since_ms, recent[49].entry.since_ms),
            (59, 10)
        );
        let counts = State::ALL.map(|state| history.count(1, state));
        assert_eq!(counts, [30, 30, 0]);
        assert_eq!(history.count(0, State::Down), 0);
        history.record(&Change {
            server: 0,
            before: Entry::ASSUMED_UP,
            entry: Entry::ASSUMED_UP,
            steer: Some(Steer::Weight(None)),
            at: SystemTime::now(),
        });
        assert_eq!(history.orders(0), [0, 0, 0, 1]);
        assert_eq!(
            history.count(0, State::Up),
            0,
            "an order is no change of state"
        );
    }
}
