//! Round robin, smooth and weighted: each server takes its turns evenly spread over time.
//!
//! With equal weights the servers simply follow each other. With others, every server has the time at which its next turn is due,
//! and turns come `1 / weight` apart. The earliest turn is taken, so choosing costs one step in a heap, whatever the weights:
//! earliest deadline first, as Envoy's weighted round robin does it. A server that is passed over keeps its place, and the others
//! keep their shares among themselves.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

use super::Candidate;

/// Virtual time between two turns of a server of weight 1.
const LAP: u64 = 1 << 48;
/// Due times are moved back to the start when they pass this, long before they overflow.
const REBASE_AT: u64 = 1 << 62;

/// One shard's rotation over some servers of an upstream.
#[derive(Debug)]
pub(super) struct RoundRobin {
    /// All candidates have the same weight.
    equal: bool,
    /// With equal weights: whose turn it is, by place in the list of candidates.
    next: usize,
    /// The server from which on the next turn is, however the list changes.
    from: usize,
    /// With unequal weights.
    turns: Turns,
}

#[derive(Debug)]
struct Turns {
    /// The earliest turn on top. Holds each server of non-zero weight once.
    due: BinaryHeap<Reverse<Turn>>,
    /// Virtual time between two turns, by server; 0 where the weight is 0.
    strides: Vec<u64>,
    /// When the last turn taken was due.
    now: u64,
    /// Where the rotation starts.
    offset: usize,
    /// Turns passed over while choosing; empty between calls.
    passed: Vec<Reverse<Turn>>,
}

/// A server's next turn: when it is due, and in the lowest 16 bits which server's it is. One number compares without a branch,
/// and half as many bytes move in the heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Turn(u64);

impl Turn {
    const SERVER: u64 = 0xffff;

    /// `due` is rounded down to a multiple of 65,536: less than a thousandth of the shortest stride.
    fn new(due: u64, server: usize) -> Self {
        Self(due & !Self::SERVER | server as u64)
    }

    fn due(self) -> u64 {
        self.0 & !Self::SERVER
    }

    fn server(self) -> usize {
        (self.0 & Self::SERVER) as usize
    }
}

impl RoundRobin {
    /// A rotation over none of at most 65,535 servers. It starts at server `offset`, so that shards which are given different
    /// offsets do not all begin with the same server.
    pub(super) fn new(servers: usize, offset: usize) -> Self {
        Self {
            equal: true,
            next: 0,
            from: offset,
            turns: Turns {
                due: BinaryHeap::with_capacity(servers),
                strides: vec![0; servers],
                now: 0,
                offset,
                passed: Vec::new(),
            },
        }
    }

    /// Changes the candidates. One whose weight stays keeps its place in the rotation; one that joins gets its first turn within
    /// one round, not at once.
    pub(super) fn refresh(&mut self, live: &[Candidate]) {
        self.equal = live.windows(2).all(|pair| pair[0].weight == pair[1].weight);
        let next = live.iter().position(|c| c.server() >= self.from);
        self.next = next.unwrap_or(0);
        self.turns.set_weights(if self.equal { &[] } else { live });
    }

    /// The server whose turn it is, among those that are `usable`; `None` when none is. A server that is not usable now gets no
    /// extra turns for the time it missed. `live` is the list that the last refresh was for.
    #[inline]
    pub(super) fn choose(
        &mut self,
        live: &[Candidate],
        usable: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        if !self.equal {
            return self.turns.next(usable);
        }
        let mut places = (self.next..live.len()).chain(0..self.next);
        let at = places.find(|&at| usable(live[at].server()))?;
        self.next = if at + 1 == live.len() { 0 } else { at + 1 };
        self.from = live[at].server() + 1;
        Some(live[at].server())
    }
}

impl Turns {
    fn next(&mut self, usable: impl Fn(usize) -> bool) -> Option<usize> {
        let mut chosen = None;
        while let Some(mut top) = self.due.peek_mut() {
            let server = top.0.server();
            if usable(server) {
                self.now = top.0.due();
                top.0.0 += self.strides[server];
                chosen = Some(server);
                break;
            }
            self.passed.push(PeekMut::pop(top));
        }
        if !self.passed.is_empty() {
            self.put_back();
        }
        if self.now >= REBASE_AT {
            self.rebase();
        }
        chosen
    }

    /// Turns passed over are due now: first in line for the next request, but not once for each turn that was missed.
    fn put_back(&mut self) {
        let now = self.now;
        let passed = self.passed.drain(..).map(|Reverse(turn)| turn);
        self.due
            .extend(passed.map(|turn| Reverse(Turn::new(turn.due().max(now), turn.server()))));
    }

    fn rebase(&mut self) {
        let start = std::mem::take(&mut self.now);
        let turns = self.due.drain().map(|Reverse(turn)| turn);
        self.due = turns
            .map(|turn| Reverse(Turn::new(turn.due().saturating_sub(start), turn.server())))
            .collect();
    }

    /// `live` is in the order of the servers; those that are not in it leave the rotation.
    fn set_weights(&mut self, live: &[Candidate]) {
        let weight = |server: usize| {
            live.binary_search_by_key(&server, |c| c.server())
                .map_or(0, |at| live[at].weight)
        };
        let mut due_before = vec![None; self.strides.len()];
        for Reverse(turn) in self.due.drain() {
            due_before[turn.server()] = Some(turn.due());
        }
        for (server, due_before) in due_before.into_iter().enumerate() {
            let stride = match weight(server) {
                0 => 0,
                weight => (LAP / u64::from(weight)) & !Turn::SERVER,
            };
            let stride_before = std::mem::replace(&mut self.strides[server], stride);
            if stride > 0 {
                let wait = due_before.map_or_else(
                    || self.first_wait(server),
                    |due| rescale(due.saturating_sub(self.now), stride_before, stride),
                );
                self.due.push(Reverse(Turn::new(self.now + wait, server)));
            }
        }
    }

    /// Spreads first turns over one stride, in the order of the servers from `offset` on.
    fn first_wait(&self, server: usize) -> u64 {
        let servers = self.strides.len();
        let place = (server + servers - self.offset % servers) % servers;
        rescale(
            2 * place as u64 + 1,
            2 * servers as u64,
            self.strides[server],
        )
    }
}

/// `wait` as the same part of another span.
fn rescale(wait: u64, span_before: u64, span: u64) -> u64 {
    (u128::from(wait) * u128::from(span) / u128::from(span_before)) as u64
}

#[cfg(test)]
mod tests {
    use super::super::FULL_SHARE;
    use super::*;

    /// A rotation with its candidates.
    struct Rotation(RoundRobin, Vec<Candidate>);

    impl Rotation {
        fn new(weights: &[u16], offset: usize) -> Self {
            let mut rotation = Self(RoundRobin::new(weights.len(), offset), Vec::new());
            rotation.set_weights(weights);
            rotation
        }

        fn set_weights(&mut self, weights: &[u16]) {
            let weights = weights.iter().enumerate();
            self.1 = weights
                .filter_map(|(server, &weight)| Candidate::new(server, weight, FULL_SHARE))
                .collect();
            self.0.refresh(&self.1);
        }

        fn next(&mut self, usable: impl Fn(usize) -> bool) -> Option<usize> {
            self.0.choose(&self.1, usable)
        }

        fn counts(
            &mut self,
            servers: usize,
            requests: usize,
            usable: impl Fn(usize) -> bool,
        ) -> Vec<usize> {
            let mut counts = vec![0; servers];
            for _ in 0..requests {
                counts[self.next(&usable).expect("one is usable")] += 1;
            }
            counts
        }
    }

    #[test]
    fn equal_weights_take_strict_turns_from_the_offset() {
        for weight in [1, 7] {
            let mut rotation = Rotation::new(&[weight; 3], 1);
            let order: Vec<_> = (0..6).map(|_| rotation.next(|_| true)).collect();
            assert_eq!(order, [1, 2, 0, 1, 2, 0].map(Some));
        }
    }

    #[test]
    fn weights_are_exact_over_each_round_and_spread_within_it() {
        for offset in 0..3 {
            let mut rotation = Rotation::new(&[5, 1, 1], offset);
            for _ in 0..10_000 {
                let round: Vec<_> = (0..7)
                    .map(|_| rotation.next(|_| true).expect("usable"))
                    .collect();
                assert_eq!(
                    [0, 1, 2].map(|server| round.iter().filter(|&&s| s == server).count()),
                    [5, 1, 1]
                );
                assert_ne!(
                    round[..5],
                    [0; 5],
                    "the heavy server's turns are not in one block"
                );
            }
        }
    }

    #[test]
    fn a_server_passed_over_leaves_the_others_in_proportion() {
        let mut rotation = Rotation::new(&[2, 1, 1, 1], 0);
        assert_eq!(
            rotation.counts(4, 4000, |server| server != 1),
            [2000, 0, 1000, 1000]
        );
        let mut rotation = Rotation::new(&[1; 4], 0);
        assert_eq!(
            rotation.counts(4, 3000, |server| server != 1),
            [1000, 0, 1000, 1000]
        );
    }

    #[test]
    fn a_server_that_comes_back_gets_no_burst() {
        for weights in [[1, 1, 1], [2, 2, 1]] {
            let mut rotation = Rotation::new(&weights, 0);
            rotation.counts(3, 1000, |server| server != 2);
            let after = rotation.counts(3, 6, |_| true);
            assert!(after.iter().all(|&n| (1..=3).contains(&n)), "{after:?}");
        }
    }

    #[test]
    fn changed_weights_hold_from_then_on() {
        let mut rotation = Rotation::new(&[2, 1, 0], 0);
        rotation.counts(3, 10, |_| true);
        rotation.set_weights(&[3, 0, 1]);
        let after = rotation.counts(3, 4000, |_| true);
        assert!(after[1] == 0 && after[0].abs_diff(3000) <= 2, "{after:?}");
    }

    #[test]
    fn equal_turns_go_on_where_they_were_when_servers_come_and_go() {
        let mut rotation = Rotation::new(&[1; 4], 0);
        assert_eq!(rotation.next(|_| true), Some(0));
        rotation.set_weights(&[1, 0, 1, 1]);
        assert_eq!(rotation.next(|_| true), Some(2));
        rotation.set_weights(&[1, 1, 1, 0]);
        assert_eq!([0; 2].map(|_| rotation.next(|_| true)), [Some(0), Some(1)]);
    }

    #[test]
    fn none_usable_is_none_and_loses_nothing() {
        for weights in [[1, 1], [3, 3]] {
            let mut rotation = Rotation::new(&weights, 0);
            assert_eq!(rotation.next(|_| false), None);
            assert_eq!(rotation.counts(2, 10, |_| true), [5, 5]);
        }
        let mut rotation = Rotation::new(&[2, 1], 0);
        assert_eq!(rotation.next(|_| false), None);
        assert_eq!(rotation.counts(2, 9, |_| true), [6, 3]);
        assert_eq!(Rotation::new(&[], 7).next(|_| true), None);
        assert_eq!(Rotation::new(&[0, 0], 0).next(|_| true), None);
    }

    #[test]
    fn virtual_time_is_moved_back_before_it_overflows() {
        let mut rotation = Rotation::new(&[2, 1], 0);
        let turns = &mut rotation.0.turns;
        turns.due = turns
            .due
            .drain()
            .map(|Reverse(turn)| Reverse(Turn(turn.0 + REBASE_AT)))
            .collect();
        assert_eq!(rotation.counts(2, 9, |_| true), [6, 3]);
        assert!(rotation.0.turns.now < REBASE_AT);
    }
}
