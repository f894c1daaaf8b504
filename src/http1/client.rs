//! Who the client is: the peer, or whom a trusted proxy speaks for.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::field::{Fields, Name, list};

/// An address as text, made once for a connection.
#[derive(Clone, Copy, Debug)]
pub struct AddressText {
    bytes: [u8; Self::BYTES_MAX],
    len: u8,
}

impl AddressText {
    /// An IPv6 address with an IPv4 tail is the longest.
    const BYTES_MAX: usize = 45;

    /// The canonical text of `address`.
    pub fn new(address: IpAddr) -> Self {
        let mut bytes = [0; Self::BYTES_MAX];
        let mut rest = &mut bytes[..];
        // It always fits; were it cut, the length below would still be right.
        let _ = write!(rest, "{address}");
        let len = Self::BYTES_MAX - rest.len();
        Self {
            bytes,
            len: len as u8,
        }
    }

    /// The text's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len as usize]
    }
}

/// The address that the request came from: from the right end of X-Forwarded-For, the first that `trusted` does not hold for.
///
/// Call it only when the peer itself is trusted. `None` where the field is absent or its right end is not an address.
pub fn forwarded_address(
    fields: &Fields,
    bytes: &[u8],
    trusted: impl Fn(IpAddr) -> bool,
) -> Option<IpAddr> {
    let mut farthest = None;
    for field in fields.named(Name::XForwardedFor).rev() {
        let members: Vec<&[u8]> = list(field.value.of(bytes)).collect();
        for member in members.into_iter().rev() {
            let Some(address) = address(member) else {
                return farthest;
            };
            farthest = Some(address);
            if !trusted(address) {
                return farthest;
            }
        }
    }
    farthest
}

/// An address as proxies write it: with or without port, IPv6 with or without brackets. One that maps an IPv4 address is that address,
/// as it is for a peer.
fn address(text: &[u8]) -> Option<IpAddr> {
    written_address(text).map(|address| address.to_canonical())
}

fn written_address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    if let Some(rest) = text.strip_prefix('[') {
        let (inside, after) = rest.split_once(']')?;
        let port = after.strip_prefix(':');
        let well_formed = after.is_empty() || port.is_some_and(is_port);
        return inside
            .parse::<Ipv6Addr>()
            .ok()
            .filter(|_| well_formed)
            .map(IpAddr::V6);
    }
    let (host, port) = text.rsplit_once(':')?;
    host.parse::<Ipv4Addr>()
        .ok()
        .filter(|_| is_port(port))
        .map(IpAddr::V4)
}

fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::head::{Limits, RequestHead};

    #[test]
    fn the_first_untrusted_address_from_the_right_is_the_client() {
        let trusted = |address: IpAddr| address.to_string().starts_with("10.");
        let cases = [
            ("X-Forwarded-For: 1.1.1.1, 2.2.2.2\r\n", Some("2.2.2.2")),
            (
                "X-Forwarded-For: 1.1.1.1, 2.2.2.2, 10.0.0.1\r\n",
                Some("2.2.2.2"),
            ),
            (
                "X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: 10.0.0.1\r\n",
                Some("1.1.1.1"),
            ),
            ("X-Forwarded-For: 10.0.0.2, 10.0.0.1\r\n", Some("10.0.0.2")),
            (
                "X-Forwarded-For: 1.1.1.1, junk, 10.0.0.1\r\n",
                Some("10.0.0.1"),
            ),
            ("X-Forwarded-For: [2001:db8::1]:80\r\n", Some("2001:db8::1")),
            ("X-Forwarded-For: 1.1.1.1:80\r\n", Some("1.1.1.1")),
            ("X-Forwarded-For: ::ffff:1.1.1.1\r\n", Some("1.1.1.1")),
            (
                "X-Forwarded-For: [::ffff:101:101]:80, ::ffff:10.0.0.1\r\n",
                Some("1.1.1.1"),
            ),
            ("X-Forwarded-For: junk\r\n", None),
            ("X-Forwarded-For: 1.1.1.1:evil\r\n", None),
            ("X-Forwarded-For: [::1]evil\r\n", None),
            ("X-Forwarded-For: 2001:db8::1:zz\r\n", None),
            ("", None),
        ];
        for (fields, expected) in cases {
            let bytes = format!("GET / HTTP/1.1\r\n{fields}\r\n").into_bytes();
            let mut head = RequestHead::default();
            head.parse(
                &bytes,
                &Limits {
                    head_bytes: 999,
                    fields: 9,
                    target_bytes: 9,
                },
            )
            .expect("a valid head");
            let expected = expected.map(|text| text.parse().expect("an address"));
            assert_eq!(
                forwarded_address(&head.fields, &bytes, trusted),
                expected,
                "{fields}"
            );
        }
    }

    #[test]
    fn the_longest_address_fits() {
        let longest = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
        assert_eq!(
            AddressText::new(longest.parse().expect("an address")).as_bytes(),
            longest.as_bytes()
        );
    }
}
