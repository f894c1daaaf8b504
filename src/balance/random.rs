//! Weighted random choice.

use super::alias::Alias;
use super::rng::{Rng, below};
use super::{Candidate, FULL_SHARE};

/// Draws before a request that keeps hitting excluded servers asks every server.
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

    /// One candidate by weight. When draw after draw is not usable, draws among those that are, so that this ends however few are left.
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
        self.sample(live.iter().copied().filter(|c| usable(c.server())))
    }

    /// One of these by weight, in one pass: each takes the place of the one before with its part of the weight so far (Chao: A
    /// General Purpose Unequal Probability Sampling Plan, Biometrika 69(3), 1982).
    fn sample(&mut self, candidates: impl Iterator<Item = Candidate>) -> Option<Candidate> {
        let (mut sampled, mut total) = (None, 0);
        for candidate in candidates {
            let weight = candidate.weight as usize;
            total += weight;
            if below(self.rng.next(), total) < weight {
                sampled = Some(candidate);
            }
        }
        sampled
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
