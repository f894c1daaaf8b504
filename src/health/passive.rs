//! What shards report: requests that failed on a server.
//!
//! Each shard counts on words of its own, so a report is a store; the monitor reads them all. The first report after the
//! monitor has looked also wakes it, with one byte through a socket pair.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::Cause;

/// How a request failed on a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No connection.
    Connect,
    /// Reset or closed before the response was complete.
    Reset,
    /// No answer in time.
    Timeout,
    /// Something else than HTTP/1 for an answer.
    Invalid,
    /// A status that counts as a failure.
    Status,
}

impl Failure {
    const ALL: [Self; 5] = [
        Self::Connect,
        Self::Reset,
        Self::Timeout,
        Self::Invalid,
        Self::Status,
    ];

    fn cause(self) -> Cause {
        match self {
            Self::Connect => Cause::RequestsConnect,
            Self::Reset => Cause::RequestsReset,
            Self::Timeout => Cause::RequestsTimeout,
            Self::Invalid => Cause::RequestsInvalid,
            Self::Status => Cause::RequestsStatus,
        }
    }
}

type Counts = [AtomicU32; Failure::ALL.len()];

/// Wakes the monitor from any thread. Wakes that it has not noticed yet are one.
#[derive(Debug)]
pub(super) struct Bell {
    rung: AtomicBool,
    line: UnixStream,
    /// The monitor is to panic each time that it looks: a test asked for it.
    #[cfg(debug_assertions)]
    fault: AtomicBool,
}

impl Bell {
    /// A bell, and the socket on which it is heard.
    pub(super) fn new() -> io::Result<(Self, UnixStream)> {
        let (line, heard) = UnixStream::pair()?;
        line.set_nonblocking(true)?;
        heard.set_nonblocking(true)?;
        Ok((
            Self {
                rung: AtomicBool::new(false),
                line,
                #[cfg(debug_assertions)]
                fault: AtomicBool::new(false),
            },
            heard,
        ))
    }

    pub(super) fn ring(&self) {
        // The swap orders the caller's stores before it, so that the monitor sees them when it has silenced the bell.
        if !self.rung.swap(true, Ordering::AcqRel) {
            // One byte at most is on the line, so there is room; the other end lives as long as the monitor.
            let _ = (&self.line).write(&[1]);
        }
    }

    /// To be called before looking at what was reported.
    pub(super) fn silence(&self) {
        self.rung.swap(false, Ordering::AcqRel);
        #[cfg(debug_assertions)]
        assert!(!self.fault.load(Ordering::Relaxed), "a fault was asked for");
    }
}

/// One shard's reports. Its copies belong to the same thread.
#[derive(Clone, Debug)]
pub struct Reporter {
    counts: Arc<[Counts]>,
    bell: Arc<Bell>,
}

impl Reporter {
    /// Tells that a request failed on a server (its place in the table).
    pub fn failed(&self, server: usize, failure: Failure) {
        let count = &self.counts[server][failure as usize];
        count.store(
            count.load(Ordering::Relaxed).wrapping_add(1),
            Ordering::Relaxed,
        );
        self.bell.ring();
    }

    /// Makes the monitor panic whenever it looks, or ends that.
    #[cfg(debug_assertions)]
    pub fn toggle_fault(&self) {
        self.bell.fault.fetch_xor(true, Ordering::Relaxed);
        self.bell.ring();
    }
}

/// The monitor's side of all reporters.
#[derive(Debug)]
pub(super) struct Reports {
    shards: Vec<Arc<[Counts]>>,
    /// Sums over all shards when last looked at, by server.
    seen: Vec<[u32; Failure::ALL.len()]>,
}

impl Reports {
    /// Reports of so many shards on so many servers, and each shard's reporter.
    pub(super) fn new(shards: usize, servers: usize, bell: &Arc<Bell>) -> (Self, Vec<Reporter>) {
        let counts = |_| (0..servers).map(|_| Counts::default()).collect();
        let shards: Vec<Arc<[Counts]>> = (0..shards).map(counts).collect();
        let reporter = |counts: &Arc<[Counts]>| Reporter {
            counts: Arc::clone(counts),
            bell: Arc::clone(bell),
        };
        let reporters = shards.iter().map(reporter).collect();
        (
            Self {
                shards,
                seen: vec![[0; Failure::ALL.len()]; servers],
            },
            reporters,
        )
    }

    /// Failures of a server since the last call: how many, and the most frequent kind. `None` when there were none.
    pub(super) fn take(&mut self, server: usize) -> Option<(u32, Cause)> {
        let sums = Failure::ALL.map(|failure| {
            let count =
                |shard: &Arc<[Counts]>| shard[server][failure as usize].load(Ordering::Relaxed);
            self.shards.iter().map(count).fold(0, u32::wrapping_add)
        });
        let before = std::mem::replace(&mut self.seen[server], sums);
        let new = Failure::ALL.map(|failure| {
            (
                sums[failure as usize].wrapping_sub(before[failure as usize]),
                failure,
            )
        });
        let total = new
            .iter()
            .map(|(count, _)| count)
            .fold(0, |sum: u32, &count| sum.saturating_add(count));
        let (_, most) = new.into_iter().max_by_key(|&(count, _)| count)?;
        (total > 0).then(|| (total, most.cause()))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn reports_of_all_shards_are_added_up_and_taken_once() {
        let (bell, _heard) = Bell::new().expect("a socket pair");
        let (mut reports, reporters) = Reports::new(2, 3, &Arc::new(bell));
        reporters[0].failed(1, Failure::Connect);
        reporters[1].failed(1, Failure::Timeout);
        reporters[1].failed(1, Failure::Timeout);
        assert_eq!(reports.take(0), None);
        assert_eq!(reports.take(1), Some((3, Cause::RequestsTimeout)));
        assert_eq!(reports.take(1), None);
        reporters[0].failed(1, Failure::Status);
        assert_eq!(reports.take(1), Some((1, Cause::RequestsStatus)));
    }

    #[test]
    fn a_bell_rung_often_is_heard_once_until_silenced() {
        let (bell, mut heard) = Bell::new().expect("a socket pair");
        (0..100).for_each(|_| bell.ring());
        let mut bytes = [0; 10];
        assert_eq!(heard.read(&mut bytes).expect("a byte"), 1);
        bell.silence();
        bell.ring();
        assert_eq!(heard.read(&mut bytes).expect("a byte"), 1);
    }
}
