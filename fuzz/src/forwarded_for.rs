//! X-Forwarded-For: the client is the first address from the right that is not trusted.

use std::net::{IpAddr, SocketAddr};

use ringlane::http1::client::{AddressText, forwarded_address};

use super::{request_with, strict};

/// Each line of `input` is the value of one field.
pub fn check(input: &[u8]) {
    let lines = input.split(|b| *b == b'\n');
    let Some((bytes, head)) = request_with("X-Forwarded-For", lines) else {
        return;
    };
    let found = forwarded_address(&head.fields, &bytes, is_trusted);
    let strict = strict::request(&bytes).expect("the strict reader accepts it");
    // A member that is no plain address may be read generously, so nothing is expected of the list then.
    let members = strict.members("x-forwarded-for");
    if let Some(addresses) = members.into_iter().map(plain).collect::<Option<Vec<_>>>() {
        let client = addresses.iter().rev().find(|a| !is_trusted(**a));
        assert_eq!(found, client.or(addresses.first()).copied());
    }
    if let Some(found) = found {
        let text = AddressText::new(found);
        assert_eq!(text.as_bytes(), found.to_string().as_bytes());
    }
}

fn is_trusted(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.octets()[0] == 10,
        IpAddr::V6(address) => address.segments()[0] == 0xfd00,
    }
}

fn plain(member: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(member).ok()?;
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    text.parse().ok().or_else(with_port)
}
