//! The Maglev lookup table: from a hash to a server in one step.
//!
//! Eisenbud et al.: Maglev, A Fast and Reliable Software Network Load Balancer, NSDI 2016, section 3.4. Each server walks the
//! table in an order of its own, made from its name, and the servers take turns to claim the next slot that is free. With
//! weights, turns come in proportion to them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::Server;
use super::rng::below;

/// Virtual time between two turns of a server of weight 1.
const LAP: u64 = 1 << 40;
/// Table sizes, all prime, so that any step visits every slot.
const SIZES: [usize; 3] = [(1 << 13) - 1, (1 << 17) - 1, (1 << 19) - 1];
/// Slots that a server has on average, at least: the paper's figure for shares even within 1 %.
const SLOTS_PER_SERVER: usize = 100;
const FREE: u16 = u16::MAX;

/// A server as the table sees it. Made from its name, so that neither the order of the configuration nor the process matter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member {
    pub(super) server: u16,
    /// 0 to 1000; with 0 it gets no slot.
    pub(super) weight: u16,
    /// Hashes of its name.
    pub(super) start: u64,
    step: u64,
}

impl Member {
    pub(super) fn new(index: usize, server: &Server) -> Self {
        let name = server.name.as_bytes();
        Self {
            server: u16::try_from(index).expect("a balancer has fewer than 65,535 servers"),
            weight: server.weight,
            start: xxh3_64_with_seed(name, 1),
            step: xxh3_64_with_seed(name, 2),
        }
    }
}

/// Which server each slot belongs to.
#[derive(Debug, Default)]
pub(super) struct Maglev {
    slots: Vec<u16>,
}

impl Maglev {
    /// A table in which each member has slots in proportion to its weight.
    pub(super) fn new(members: &[Member]) -> Self {
        let mut walks: Vec<_> = members
            .iter()
            .filter(|m| m.weight > 0)
            .map(|&m| Walk {
                member: m,
                taken: 0,
            })
            .collect();
        if walks.is_empty() {
            return Self::default();
        }
        let size = SIZES
            .into_iter()
            .find(|size| size / SLOTS_PER_SERVER >= members.len())
            .unwrap_or(SIZES[2]);
        walks.sort_by_key(|walk| (walk.member.start, walk.member.step));
        let mut slots = vec![FREE; size];
        let mut turns: BinaryHeap<_> = walks
            .iter()
            .enumerate()
            .map(|(at, walk)| Reverse((walk.stride(), at)))
            .collect();
        for _ in 0..size {
            let mut turn = turns
                .peek_mut()
                .expect("there is a walk, and each stays in the heap");
            let walk = &mut walks[turn.0.1];
            walk.claim(&mut slots);
            turn.0.0 += walk.stride();
        }
        Self { slots }
    }

    /// The server that owns the slot of these 64 hash bits; `None` when the table has no server.
    pub(super) fn lookup(&self, bits: u64) -> Option<usize> {
        self.slots
            .get(below(bits, self.slots.len()))
            .map(|&server| usize::from(server))
    }
}

/// One server's way through the table.
struct Walk {
    member: Member,
    taken: u64,
}

impl Walk {
    /// Virtual time between two turns.
    fn stride(&self) -> u64 {
        LAP / u64::from(self.member.weight)
    }

    /// Takes the next free slot on the way. There must be one.
    fn claim(&mut self, slots: &mut [u16]) {
        let size = slots.len() as u64;
        let (start, step) = (self.member.start % size, self.member.step % (size - 1) + 1);
        loop {
            let slot = ((start + step * self.taken) % size) as usize;
            self.taken += 1;
            if slots[slot] == FREE {
                slots[slot] = self.member.server;
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(weights: &[u16]) -> Vec<Member> {
        let server = |at: usize, weight| Server {
            name: format!("s{at}"),
            weight,
            backup: false,
        };
        weights
            .iter()
            .enumerate()
            .map(|(at, &weight)| Member::new(at, &server(at, weight)))
            .collect()
    }

    fn slots_of(table: &Maglev, server: u16) -> usize {
        table.slots.iter().filter(|&&s| s == server).count()
    }

    #[test]
    fn slots_are_shared_by_weight_to_the_slot() {
        let table = Maglev::new(&members(&[5, 1, 1, 0]));
        assert_eq!(table.slots.len(), 8191);
        for (server, share) in [(0, 5 * 8191 / 7), (1, 8191 / 7), (2, 8191 / 7), (3, 0)] {
            assert!(
                slots_of(&table, server).abs_diff(share) <= 3,
                "server {server}"
            );
        }
    }

    #[test]
    fn the_order_of_the_servers_does_not_matter() {
        let forward = members(&[1, 2, 3]);
        let backward: Vec<_> = forward.iter().rev().copied().collect();
        assert_eq!(Maglev::new(&forward).slots, Maglev::new(&backward).slots);
    }

    #[test]
    fn a_thousand_servers_have_a_hundred_slots_each() {
        let table = Maglev::new(&members(&[1; 1000]));
        assert!((0..1000).all(|server| (131..=132).contains(&slots_of(&table, server))));
    }

    #[test]
    fn the_table_grows_with_the_servers_be_they_of_weight_0() {
        let mut weights = vec![1; 81];
        assert_eq!(Maglev::new(&members(&weights)).slots.len(), SIZES[0]);
        weights.push(0);
        assert_eq!(Maglev::new(&members(&weights)).slots.len(), SIZES[1]);
        weights.resize(1310, 0);
        assert_eq!(Maglev::new(&members(&weights)).slots.len(), SIZES[1]);
        weights.push(0);
        assert_eq!(Maglev::new(&members(&weights)).slots.len(), SIZES[2]);
    }

    #[test]
    fn the_table_is_pinned() {
        // These change only with the algorithm, and then every node of a site must change at once.
        let table = Maglev::new(&members(&[3, 2, 1]));
        let owners: Vec<_> = (0..12_u64)
            .map(|i| table.lookup(i << 60 | 0xabc_def0_1234_5678))
            .collect();
        assert_eq!(owners, PINNED.map(Some));
    }

    const PINNED: [usize; 12] = [1, 2, 1, 1, 2, 0, 0, 0, 1, 0, 0, 2];
}
