//! Round robin: every server in turn.

use std::cell::Cell;

/// One shard's rotation over the servers of an upstream.
#[derive(Debug)]
pub struct RoundRobin {
    servers: usize,
    next: Cell<usize>,
}

impl RoundRobin {
    /// A rotation over `servers` servers that begins at `offset`, so that shards with different offsets do not march in step.
    pub fn new(servers: usize, offset: usize) -> Self {
        let next = Cell::new(offset.checked_rem(servers).unwrap_or(0));
        Self { servers, next }
    }

    /// The next server that is `usable`; `None` when none is.
    #[inline]
    pub fn next(&self, usable: impl Fn(usize) -> bool) -> Option<usize> {
        let first = self.next.get();
        let server = (first..self.servers)
            .chain(0..first)
            .find(|server| usable(*server))?;
        self.next.set(if server + 1 == self.servers {
            0
        } else {
            server + 1
        });
        Some(server)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_server_in_turn_from_the_offset() {
        let rotation = RoundRobin::new(3, 4);
        let chosen: Vec<_> = (0..5).map(|_| rotation.next(|_| true)).collect();
        assert_eq!(chosen, [Some(1), Some(2), Some(0), Some(1), Some(2)]);
    }

    #[test]
    fn servers_that_are_not_usable_are_passed_over() {
        let rotation = RoundRobin::new(3, 0);
        let chosen: Vec<_> = (0..4)
            .map(|_| rotation.next(|server| server != 1))
            .collect();
        assert_eq!(chosen, [Some(0), Some(2), Some(0), Some(2)]);
        assert_eq!(rotation.next(|_| false), None);
        assert_eq!(RoundRobin::new(0, 5).next(|_| true), None);
    }
}
