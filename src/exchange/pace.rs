//! The least rate of a body.
//!
//! Time that is spent waiting for the client is owed in bytes, and what the client sends or takes meanwhile pays for it. A client that
//! owes more than the grace time is worth is too slow. Nothing can be paid ahead, and time that goes by with the server costs nothing.

use std::cell::Cell;
use std::time::Duration;

use crate::net::deadline::{TICK, Ticks};

/// Debts are counted in parts of a byte, so that a tick at any rate is a whole number of them.
const PARTS_PER_BYTE: u64 = 1000 / TICK.as_millis() as u64;

/// The rate that a client must keep up.
#[derive(Clone, Copy, Debug)]
pub struct MinRate {
    /// What a tick costs: as many parts as there are bytes in a second.
    tick: u64,
    debt_max: u64,
}

/// What the client of one body owes, in parts of a byte.
#[derive(Debug, Default)]
pub struct Debt(Cell<u64>);

/// The client has been slower than the rate for longer than the grace time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooSlow;

/// A body's rate and how it stands.
#[derive(Clone, Copy, Debug)]
pub struct Pace<'a> {
    /// What is asked.
    pub rate: &'a MinRate,
    /// What is owed.
    pub debt: &'a Debt,
}

impl MinRate {
    /// This many bytes a second, or a pause of `grace`.
    pub fn new(bytes_per_second: u64, grace: Duration) -> Self {
        Self {
            tick: bytes_per_second,
            debt_max: bytes_per_second.saturating_mul(Ticks::from(grace).count()),
        }
    }
}

impl Pace<'_> {
    /// How long the client may be waited for, at most `timeout`.
    pub fn patience(&self, timeout: Ticks) -> Ticks {
        let left = self.rate.debt_max.saturating_sub(self.debt.0.get());
        timeout.min(Ticks::of(left / self.rate.tick))
    }

    /// Accounts for a wait and the bytes that it brought.
    pub fn settle(&self, waited: Ticks, moved: usize) -> Result<(), TooSlow> {
        let cost = self.rate.tick.saturating_mul(waited.count());
        let paid = (moved as u64).saturating_mul(PARTS_PER_BYTE);
        let debt = self.debt.0.get().saturating_add(cost).saturating_sub(paid);
        self.debt.0.set(debt);
        // Asked here too: a byte in each tick would never let a deadline come.
        if debt > self.rate.debt_max {
            Err(TooSlow)
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The outcome and the tick of it when `moved` bytes come after each `waited` ticks.
    fn lasts(bytes_per_second: u64, waited: u64, moved: usize) -> Option<u64> {
        let rate = MinRate::new(bytes_per_second, Duration::from_secs(2));
        let debt = Debt::default();
        let pace = Pace {
            rate: &rate,
            debt: &debt,
        };
        (1..=10_000)
            .find(|_| pace.settle(Ticks::of(waited), moved).is_err())
            .map(|times| times * waited)
    }

    #[test]
    fn who_keeps_the_rate_lives_for_ever_and_who_does_not_falls_behind() {
        assert_eq!(lasts(1000, 1, 100), None, "just the rate");
        assert_eq!(lasts(1000, 10, 1000), None, "the same in pieces");
        assert_eq!(lasts(1000, 20, 2000), None, "as long a pause as is granted");
        assert_eq!(lasts(1000, 1, 0), Some(21), "silence");
        assert_eq!(lasts(1000, 1, 50), Some(41), "half the rate");
        assert_eq!(lasts(1000, 1, 1), Some(21), "a byte each tick");
        assert_eq!(lasts(1, 9, 1), None, "a rate below a byte a tick");
    }

    #[test]
    fn nothing_is_paid_ahead() {
        let rate = MinRate::new(1000, Duration::from_secs(2));
        let debt = Debt::default();
        let pace = Pace {
            rate: &rate,
            debt: &debt,
        };
        assert_eq!(pace.settle(Ticks::of(1), 1 << 30), Ok(()));
        assert_eq!(pace.patience(Ticks::of(600)), Ticks::of(20));
        assert_eq!(pace.settle(Ticks::of(15), 0), Ok(()));
        assert_eq!(pace.patience(Ticks::of(600)), Ticks::of(5));
        assert_eq!(pace.patience(Ticks::of(3)), Ticks::of(3));
        assert_eq!(pace.settle(Ticks::of(6), 0), Err(TooSlow));
        assert_eq!(pace.patience(Ticks::of(600)), Ticks::of(0));
    }
}
