//! A shard's part in keeping the heap below its ceiling.
//!
//! It looks at what the heap holds in each turn of the sweeper, at every so many requests, and whenever a head grows that has not come
//! whole. Between two looks it makes no more large buffers than there was room for.

use std::cell::Cell;
use std::sync::Arc;

use super::lane::Lane;
use crate::http1::answer::Answer;
use crate::net::heap;
use crate::telemetry::memory::{Memory, Room};

/// Requests between two looks: a look reads a word of each thread, which a request should not have to pay for.
const REQUESTS_PER_LOOK: u32 = 64;

const SHORT: Answer = Answer {
    status: 503,
    error: "memory is short",
    field: Some(("Retry-After", "1")),
};

/// What one shard knows of the room in memory.
#[derive(Debug)]
pub struct Share {
    memory: Arc<Memory>,
    shards: u64,
    room: Cell<Room>,
    /// Requests until the next look.
    left: Cell<u32>,
}

impl Share {
    /// The part of one of so many shards.
    pub fn new(memory: &Arc<Memory>, shards: usize) -> Self {
        Self {
            memory: Arc::clone(memory),
            shards: shards as u64,
            room: Cell::default(),
            left: Cell::new(0),
        }
    }

    /// Looks at what the heap holds, and does what the room left asks for.
    pub fn look(&self, lane: &Lane) {
        self.left.set(REQUESTS_PER_LOOK);
        if self.memory.is_near(heap::held()) {
            // What is only kept for later goes first. Nobody is refused for it.
            lane.free_spare_buffers();
        }
        let held = heap::held();
        let room = self.memory.note(held);
        self.room.set(room);
        lane.resize_scratch(room != Room::Ample);
        lane.allow_bulk(self.memory.spare(held) / self.shards);
    }

    /// Says what a request is answered while memory is short. Its connection closes, so that what it holds is given back.
    #[inline]
    pub fn admit(&self, lane: &Lane) -> Result<(), Answer> {
        match self.left.get() {
            0 => self.look(lane),
            left => self.left.set(left - 1),
        }
        self.check(lane)
    }

    /// The same for a head that has begun and would take more.
    #[cold]
    pub fn admit_more(&self, lane: &Lane) -> Result<(), Answer> {
        self.look(lane);
        self.check(lane)
    }

    #[inline]
    fn check(&self, lane: &Lane) -> Result<(), Answer> {
        if self.room.get() == Room::Short {
            lane.counters.refused_memory.inc();
            return Err(SHORT);
        }
        Ok(())
    }
}
