//! How near the heap is to its ceiling, `limits.memory`.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// The log tells of relief when memory has not been short for so long: overload comes and goes several times a second.
const RELIEF_LASTS: Duration = Duration::from_secs(5);

/// How much room there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Room {
    /// Less than nine tenths of the ceiling is held.
    #[default]
    Ample,
    /// From there on buffers are small, and none is kept for later.
    Tight,
    /// The ceiling was reached, and nine tenths are still held: requests are refused.
    Short,
}

impl Room {
    /// As the status page has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ample => "ample",
            Self::Tight => "tight",
            Self::Short => "short",
        }
    }
}

/// The ceiling and what came of it. Every shard looks and may find the change; whoever is first counts it.
#[derive(Debug)]
pub struct Memory {
    ceiling: u64,
    started: Instant,
    short: AtomicBool,
    shortages: AtomicU64,
    /// The log was told of a shortage and not yet of relief.
    told: AtomicBool,
    /// Milliseconds from the start to the last time that it was short.
    last_short_ms: AtomicU64,
}

impl Memory {
    /// With room for `ceiling` bytes.
    pub fn new(ceiling: u64) -> Self {
        Self {
            ceiling,
            started: Instant::now(),
            short: AtomicBool::new(false),
            shortages: AtomicU64::new(0),
            told: AtomicBool::new(false),
            last_short_ms: AtomicU64::new(0),
        }
    }

    /// Bytes that the heap may hold.
    pub const fn ceiling(&self) -> u64 {
        self.ceiling
    }

    /// Times that the ceiling was reached.
    pub fn shortages(&self) -> u64 {
        self.shortages.load(Relaxed)
    }

    /// The room that there is when `held` bytes are. A shortage ends below nine tenths, so that it does not flicker.
    pub fn room(&self, held: u64) -> Room {
        if held >= self.ceiling {
            Room::Short
        } else if !self.is_near(held) {
            Room::Ample
        } else if self.short.load(Relaxed) {
            Room::Short
        } else {
            Room::Tight
        }
    }

    /// Whether nine tenths are held.
    pub const fn is_near(&self, held: u64) -> bool {
        held >= self.ceiling / 10 * 9
    }

    /// Bytes up to nine tenths of the ceiling.
    pub const fn spare(&self, held: u64) -> u64 {
        (self.ceiling / 10 * 9).saturating_sub(held)
    }

    /// Takes note of what is held, and gives the room that there is.
    pub fn note(&self, held: u64) -> Room {
        let room = self.room(held);
        let short = room == Room::Short;
        if self.short.load(Relaxed) != short && self.short.swap(short, Relaxed) != short && short {
            self.shortages.fetch_add(1, Relaxed);
        }
        self.tell(short, held);
        room
    }

    fn tell(&self, short: bool, held: u64) {
        let ceiling = self.ceiling;
        if short {
            let now = self.started.elapsed().as_millis() as u64;
            self.last_short_ms.store(now, Relaxed);
            if !self.told.swap(true, Relaxed) {
                tracing::warn!(
                    held,
                    ceiling,
                    "memory is short; refusing requests, raise limits.memory or lower the limits of connections"
                );
            }
        } else if self.told.load(Relaxed) && self.has_lasted() && self.told.swap(false, Relaxed) {
            tracing::warn!(held, ceiling, "memory is no longer short");
        }
    }

    fn has_lasted(&self) -> bool {
        let last_short = Duration::from_millis(self.last_short_ms.load(Relaxed));
        self.started.elapsed().saturating_sub(last_short) >= RELIEF_LASTS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortage_begins_at_the_ceiling_and_ends_below_nine_tenths() {
        let memory = Memory::new(1000);
        let steps = [
            (899, Room::Ample),
            (900, Room::Tight),
            (999, Room::Tight),
            (1000, Room::Short),
            (900, Room::Short),
            (899, Room::Ample),
            (950, Room::Tight),
            (u64::MAX, Room::Short),
            (0, Room::Ample),
        ];
        for (held, room) in steps {
            assert_eq!(memory.note(held), room, "{held}");
            assert_eq!(memory.room(held), room, "{held} again");
        }
        assert_eq!(memory.shortages(), 2);
    }
}
