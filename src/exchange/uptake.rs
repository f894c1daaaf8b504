//! How a client takes what it is sent.

use std::cell::Cell;

use crate::net::deadline::Ticks;

/// When a client has held up one piece of an answer for longer than this, the server may have given up on it.
const HOLD_MAX: Ticks = Ticks::of(10);

/// How a client takes an answer. Its times are ticks of the shard's clock.
#[derive(Debug, Default)]
pub struct Uptake {
    /// When the piece that is being sent was begun.
    begun: Cell<Option<u32>>,
    /// When the client last took something of it.
    taken: Cell<u32>,
    held_up: Cell<bool>,
}

impl Uptake {
    /// A piece is being sent.
    #[inline]
    pub fn begin(&self, now: u32) {
        self.begun.set(Some(now));
        self.taken.set(now);
    }

    /// The client has taken something of it.
    pub fn took(&self, at: u32) {
        self.taken.set(at);
    }

    /// The piece has been sent.
    #[inline]
    pub fn end(&self, now: u32) {
        if let Some(begun) = self.begun.take() {
            self.waited(begun, now);
        }
    }

    /// The answer was not read from one time to the other.
    #[inline]
    pub fn waited(&self, since: u32, now: u32) {
        if Ticks::between(since, now) > HOLD_MAX {
            self.held_up.set(true);
        }
    }

    /// Whether something is being sent.
    pub fn is_under_way(&self) -> bool {
        self.begun.get().is_some()
    }

    /// How long the client has taken nothing of what is being sent.
    pub fn rested(&self, now: u32) -> Option<Ticks> {
        self.begun.get()?;
        Some(Ticks::between(self.taken.get(), now))
    }

    /// Whether the answer was held up for so long that its server may have given up on it.
    pub fn has_held_up(&self) -> bool {
        self.held_up.get()
    }
}
