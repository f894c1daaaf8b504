//! Fewest requests in flight for its weight.

use std::cmp::Ordering;

use super::{Candidate, Load, Loaded};

/// Virtual time between two turns of a server whose weight is 1 thousandth. Small enough that years of choices do not overflow.
const LAP: u64 = 1 << 30;

/// Looks at every candidate and takes the one with the fewest requests in flight for its weight. Those that are equal take
/// turns by weight, so that an idle upstream is used as evenly as under round robin.
#[derive(Debug)]
pub(super) struct LeastConnections {
    /// When each server's next turn among equals is due, in virtual time; by server.
    due: Vec<u64>,
    /// When the last turn was due.
    now: u64,
}

impl LeastConnections {
    /// `offset`: the server that this shard starts with.
    pub(super) fn new(servers: usize, offset: usize) -> Self {
        let due = (0..servers)
            .map(|server| ((server + servers - offset % servers) % servers) as u64)
            .collect();
        Self { due, now: 0 }
    }

    pub(super) fn choose(
        &mut self,
        live: &[Candidate],
        load: &impl Load,
        usable: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let usable = live
            .iter()
            .filter(|c| usable(c.server()))
            .map(|c| c.loaded(load));
        let best = usable.reduce(|best, next| {
            if self.goes_before(next, best) {
                next
            } else {
                best
            }
        })?;
        self.take_turn(best.candidate);
        Some(best.candidate.server())
    }

    fn goes_before(&self, a: Loaded, b: Loaded) -> bool {
        let due = |loaded: Loaded| self.due[loaded.candidate.server()];
        a.compare(b).then_with(|| due(a).cmp(&due(b))) == Ordering::Less
    }

    /// A server that was left alone for long gets its next turn now, not all those it missed.
    fn take_turn(&mut self, candidate: Candidate) {
        let due = &mut self.due[candidate.server()];
        self.now = self.now.max(*due);
        *due = self.now.saturating_add(LAP / u64::from(candidate.weight));
    }
}
