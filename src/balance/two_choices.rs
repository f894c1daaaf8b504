//! The power of two choices: draw two servers at random and take the less loaded.
//!
//! Two draws keep the largest load near the mean without looking at every server (Mitzenmacher: The Power of Two Choices in
//! Randomized Load Balancing, IEEE TPDS 12(10), 2001), and shards that decide at the same moment do not all pick the same one.

use std::cmp::Ordering;

use super::random::Random;
use super::{Candidate, Load};

/// Draws two servers by weight and takes the one with fewer requests in flight for its weight.
#[derive(Debug)]
pub(super) struct TwoChoices {
    random: Random,
}

impl TwoChoices {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            random: Random::new(seed),
        }
    }

    pub(super) fn refresh(&mut self, live: &[Candidate]) {
        self.random.refresh(live);
    }

    pub(super) fn choose(
        &mut self,
        live: &[Candidate],
        load: &impl Load,
        usable: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let (first, second) = self.pair(live, usable)?;
        let better = match second {
            Some(second) if second.loaded(load).compare(first.loaded(load)) == Ordering::Less => {
                second
            }
            _ => first,
        };
        Some(better.server())
    }

    /// Two different candidates; the second is `None` when there is no other, or none that is usable was found at once.
    pub(super) fn pair(
        &mut self,
        live: &[Candidate],
        usable: impl Fn(usize) -> bool,
    ) -> Option<(Candidate, Option<Candidate>)> {
        let first = self.random.draw(live, &usable)?;
        let second = match self.random.draw(live, &usable)? {
            // Drawn twice: any other will do. With few servers this is so often that drawing on would cost more than it is worth.
            same if same.server() == first.server() => self.random.other(live, same),
            second => Some(second),
        };
        Some((first, second.filter(|second| usable(second.server()))))
    }

    /// True as often as `share`, in thousandths.
    pub(super) fn happens(&mut self, share: u16) -> bool {
        self.random.happens(share)
    }
}
