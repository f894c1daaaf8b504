//! How many connections each client address has: a small table of counters for each shard.
//!
//! Two counters are kept for an address, at places that a keyed hash gives; the smaller one counts. So memory is fixed, a count is never
//! too low, and it is too high only when both places are shared with other busy addresses. Only the shard's thread writes its table.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;

use super::counters::Gauge;

/// Counters of each of the two rows.
const ROW: usize = 1 << 13;

/// An address's two places.
pub type Places = [u16; 2];

/// One shard's connections by client address.
#[derive(Debug, Default)]
pub struct Clients {
    rows: Box<[Gauge]>,
}

impl Clients {
    /// A table that counts; the default one has no memory and must not be asked.
    pub fn new() -> Self {
        Self {
            rows: (0..2 * ROW).map(|_| Gauge::default()).collect(),
        }
    }

    /// Connections of the address with these places, at most.
    pub fn get(&self, places: Places) -> u64 {
        let [first, second] = self.gauges(places);
        first.get().min(second.get())
    }

    /// Counts a connection.
    pub fn inc(&self, places: Places) {
        self.gauges(places).into_iter().for_each(Gauge::inc);
    }

    /// Counts a connection off.
    pub fn dec(&self, places: Places) {
        self.gauges(places).into_iter().for_each(Gauge::dec);
    }

    /// Forgets all.
    pub fn clear(&self) {
        self.rows.iter().for_each(|gauge| gauge.set(0));
    }

    fn gauges(&self, places: Places) -> [&Gauge; 2] {
        let [first, second] = places.map(usize::from);
        [&self.rows[first], &self.rows[ROW + second]]
    }
}

/// Where an address is counted; the same in all shards.
#[derive(Clone, Debug)]
pub struct Placement {
    hasher: RandomState,
    v6_prefix: u8,
}

impl Placement {
    /// IPv6 addresses count together that share `v6_prefix` leading bits.
    pub fn new(v6_prefix: u8) -> Self {
        Self {
            hasher: RandomState::new(),
            v6_prefix,
        }
    }

    /// The places of `address`.
    pub fn of(&self, address: IpAddr) -> Places {
        let hash = self.hasher.hash_one(block(address, self.v6_prefix));
        [hash, hash >> 32].map(|half| (half as usize % ROW) as u16)
    }
}

/// The address, or its IPv6 block of `v6_prefix` bits. Written as IPv6: an IPv4-mapped address is the IPv4 address.
pub fn block(address: IpAddr, v6_prefix: u8) -> u128 {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => {
            let host_bits = 128 - u32::from(v6_prefix.min(128));
            v6.to_bits() & u128::MAX.checked_shl(host_bits).unwrap_or(0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_counted_on_and_off_and_never_too_low() {
        let (clients, placement) = (Clients::new(), Placement::new(64));
        let address = |number: u32| IpAddr::from(number.to_be_bytes());
        for number in 0..1000 {
            clients.inc(placement.of(address(number)));
            clients.inc(placement.of(address(number)));
        }
        let counts: Vec<_> = (0..1000)
            .map(|n| clients.get(placement.of(address(n))))
            .collect();
        assert!(counts.iter().all(|count| *count >= 2));
        let high = counts.iter().filter(|count| **count > 2).count();
        assert!(high < 60, "{high} of 1000 are too high");
        for number in 0..1000 {
            clients.dec(placement.of(address(number)));
        }
        assert!((0..1000).all(|n| clients.get(placement.of(address(n))) >= 1));
    }

    #[test]
    fn addresses_of_one_block_count_together() {
        let same = |a: &str, b: &str, prefix| {
            let address = |text: &str| text.parse::<IpAddr>().expect("an address");
            block(address(a), prefix) == block(address(b), prefix)
        };
        assert!(same("2001:db8::1", "2001:db8::ffff:1", 64));
        assert!(!same("2001:db8::1", "2001:db8:0:1::1", 64));
        assert!(same("2001:db8::1", "2001:db8:0:1::1", 56));
        assert!(!same("2001:db8::1", "2001:db8::2", 128));
        assert!(same("192.0.2.1", "::ffff:192.0.2.1", 64));
        assert!(!same("192.0.2.1", "192.0.2.2", 1));
    }
}
