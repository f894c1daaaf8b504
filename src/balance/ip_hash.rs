//! The hash key of a client's address.

use std::net::{IpAddr, Ipv6Addr};

use super::hash;

/// The key for a client at `address`. Of an IPv6 address only the first `v6_prefix` bits count: a client often changes the rest
/// (RFC 8981) while its network, a /64 as a rule, stays. An IPv4-mapped IPv6 address gives the key of the IPv4 address.
pub fn key(address: IpAddr, v6_prefix: u8) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(v4) => hash::key(&v4.octets()),
        IpAddr::V6(v6) => hash::key(&masked(v6, v6_prefix).octets()),
    }
}

fn masked(address: Ipv6Addr, prefix: u8) -> Ipv6Addr {
    let mask = u128::MAX
        .checked_shl(128 - u32::from(prefix.min(128)))
        .unwrap_or(0);
    Ipv6Addr::from_bits(address.to_bits() & mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn ipv6_clients_hash_by_their_network() {
        assert_eq!(key(ip("2001:db8::1"), 64), key(ip("2001:db8::ffff:1"), 64));
        assert_ne!(key(ip("2001:db8::1"), 64), key(ip("2001:db8:0:1::1"), 64));
        assert_ne!(key(ip("2001:db8::1"), 128), key(ip("2001:db8::2"), 128));
        assert_eq!(key(ip("2001:db8::1"), 0), key(ip("fe80::2"), 0));
    }

    #[test]
    fn ipv4_clients_hash_by_their_address_in_either_form() {
        assert_ne!(key(ip("192.0.2.1"), 64), key(ip("192.0.2.2"), 64));
        assert_eq!(key(ip("192.0.2.1"), 64), key(ip("::ffff:192.0.2.1"), 64));
    }
}
