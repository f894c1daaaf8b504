//! Weighted random choice.

use super::alias::Alias;
use super::rng::{Rng, below};
use super::{Candidate, FULL_SHARE};

/// Draws before a request that keeps hitting excluded servers takes the next one that is left.
const DRAWS: usize = 8;

/// Chooses at random, each server with a chance in proportion to its weight.
#[derive(Debug)]
pub(super) struct Random {
    table: Alias,
    rng: Rng,
}

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            table: Alias::default(),
            rng: Rng::new(seed),
        }
    }

    pub(super) fn refresh(&mut self, live: &[Candidate]) {
        self.table = Alias::new(live);
    }

    pub(super) fn choose(
        &mut self,
        live: &[Candidate],
        usable: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        self.draw(live, usable).map(Candidate::server)
    }

    /// One candidate by weight. When draw after draw is not usable, walks the list from a random place instead, so that this
    /// ends however few are left.
    pub(super) fn draw(
        &mut self,
        live: &[Candidate],
        usable: impl Fn(usize) -> bool,
    ) -> Option<Candidate> {
        for _ in 0..DRAWS {
            let candidate = self.table.draw(self.rng.next())?;
            if usable(candidate.server()) {
                return Some(candidate);
            }
        }
        let (before, from) = live.split_at(below(self.rng.next(), live.len()));
        from.iter()
            .chain(before)
            .copied()
            .find(|c| usable(c.server()))
    }

    /// True as often as `share`, in thousandths.
    pub(super) fn happens(&mut self, share: u16) -> bool {
        below(self.rng.next(), usize::from(FULL_SHARE)) < usize::from(share)
    }

    /// Any candidate but this one, whatever its weight; `None` when there is no other.
    pub(super) fn other(&mut self, live: &[Candidate], than: Candidate) -> Option<Candidate> {
        let others = live.len().checked_sub(1).filter(|&others| others > 0)?;
        let at = below(self.rng.next(), others);
        // The last stands in for the one that is left out.
        let drawn = live[at];
        Some(if drawn.server() == than.server() {
            live[others]
        } else {
            drawn
        })
    }
}
