//! What the shard's ring goes through, counted at each turn of the sweeper.
//!
//! A crowd that is woken at once, as by a timeout that all of it shares, is what fills the queues. So a look goes round that crowd: it
//! begins in front of the first that the sweeper wakes and ends behind the last, in the same loop turn. What the queues go through
//! in other turns shows in the sums alone.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use crate::net::ring::header::{Header, Reading};
use crate::telemetry::counters::ShardCounters;

/// The watch over one shard's ring.
#[derive(Debug)]
pub struct RingWatch(Rc<Ring>);

#[derive(Debug)]
struct Ring {
    header: Header,
    /// At the end of the last look.
    last: Cell<Reading>,
    /// At the beginning of this one.
    before: Cell<Reading>,
    counters: Arc<ShardCounters>,
}

impl RingWatch {
    /// A watch that counts in `counters`.
    pub fn new(header: Header, counters: &Arc<ShardCounters>) -> Self {
        counters.ring.known.set(1);
        Self(Rc::new(Ring {
            header,
            // A new ring has counted nothing yet.
            last: Cell::default(),
            before: Cell::default(),
            counters: Arc::clone(counters),
        }))
    }

    /// Begins a look: in front of the tasks that are woken from now on.
    pub fn begin(&self) {
        let ring = Rc::clone(&self.0);
        monoio::spawn(async move { ring.before.set(ring.header.read()) });
    }

    /// Ends it: behind those that were woken since, in the same loop turn.
    pub fn end(&self) {
        let ring = Rc::clone(&self.0);
        monoio::spawn(async move { ring.count(ring.header.read()) });
    }
}

impl Ring {
    fn count(&self, now: Reading) {
        let counters = &self.counters.ring;
        let before = self.before.get();
        let last = self.last.replace(now);
        let since = |last: u32, now: u32| u64::from(now.wrapping_sub(last));
        counters
            .submissions
            .add(since(last.submitted, now.submitted));
        counters.sq_dropped.add(since(last.dropped, now.dropped));
        counters
            .completions
            .add(since(last.completed, now.completed));
        counters.cq_lost.add(since(last.lost, now.lost));
        if before.overflows || now.overflows {
            counters.cq_overflows.inc();
        }
        // The runtime submits when all have run; before that it does so only to make room, and then it submits a whole queue.
        if since(before.submitted, now.submitted) >= u64::from(self.header.entries()) {
            counters.sq_full.inc();
        }
    }
}
