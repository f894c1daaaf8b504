//! Ordered failover: the first server that is healthy, as for a primary and its replicas.

use super::Candidate;

/// The first usable candidate in the order of the configuration. Weights only matter for being zero or not.
pub(super) fn choose(live: &[Candidate], usable: impl Fn(usize) -> bool) -> Option<usize> {
    live.iter()
        .map(|c| c.server())
        .find(|&server| usable(server))
}
