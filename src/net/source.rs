//! Local addresses of connections to servers.
//!
//! Towards one address and port of a server, each local address has as many ports as `net.ipv4.ip_local_port_range` says. More addresses
//! are more connections.

use std::cell::Cell;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;

use socket2::{Domain, Socket as RawSocket, Type};

use super::option::set_bind_address_no_port;

/// The local addresses that an upstream's connections are bound to, in turn.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    addresses: Vec<IpAddr>,
    next: Cell<usize>,
}

impl Sources {
    /// These addresses, or the kernel's choice when there are none.
    pub fn new(addresses: &[IpAddr]) -> Self {
        Self {
            addresses: addresses.to_vec(),
            next: Cell::new(0),
        }
    }

    /// Calls `begin` with one local address after the other, until one has a port left. The error is the last one's.
    pub fn in_turn<T>(
        &self,
        server: SocketAddr,
        mut begin: impl FnMut(Option<IpAddr>) -> io::Result<T>,
    ) -> io::Result<T> {
        if self.addresses.is_empty() {
            return begin(None);
        }
        let first = self.next.get();
        let mut result = Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "no source address is of the server's address family",
        ));
        for turn in 0..self.addresses.len() {
            let index = (first + turn) % self.addresses.len();
            let source = self.addresses[index];
            if source.is_ipv4() != server.is_ipv4() {
                continue;
            }
            result = begin(Some(source));
            if !matches!(&result, Err(error) if is_out_of_ports(error)) {
                self.next.set(index + 1);
                break;
            }
        }
        result
    }
}

/// Binds to a local address and leaves the port to connect(2), which finds one that is free towards the server alone
/// (`IP_BIND_ADDRESS_NO_PORT`, ip(7)). bind(2) would look for one that is free towards everybody.
pub fn bind(socket: &RawSocket, source: IpAddr) -> io::Result<()> {
    set_bind_address_no_port(socket.as_fd()).map_err(|error| error.error)?;
    socket.bind(&SocketAddr::new(source, 0).into())
}

/// Whether the machine has this address.
pub fn try_source(source: IpAddr) -> io::Result<()> {
    let domain = Domain::for_address(SocketAddr::new(source, 0));
    bind(&RawSocket::new(domain, Type::STREAM, None)?, source)
}

/// Whether no local port is free towards the server, or the source address is no longer the machine's (connect(2), bind(2)).
pub fn is_out_of_ports(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EADDRNOTAVAIL)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address of the test")
    }

    fn out_of_ports() -> io::Error {
        io::Error::from_raw_os_error(libc::EADDRNOTAVAIL)
    }

    #[test]
    fn turns() {
        let sources = Sources::new(&["10.0.0.1", "::1", "10.0.0.2"].map(address));
        let server = "10.0.0.9:80".parse().expect("an address of the test");
        let turns: Vec<_> = (0..4)
            .map(|_| sources.in_turn(server, |source| Ok(source.expect("one of them"))))
            .map(|source| source.expect("no failure"))
            .collect();
        assert_eq!(
            turns,
            ["10.0.0.1", "10.0.0.2", "10.0.0.1", "10.0.0.2"].map(address)
        );
    }

    #[test]
    fn the_next_is_tried_while_ports_are_short_and_only_then() {
        let sources = Sources::new(&["10.0.0.1", "10.0.0.2"].map(address));
        let server = "10.0.0.9:80".parse().expect("an address of the test");
        let mut tried = 0;
        let result = sources.in_turn(server, |_| {
            tried += 1;
            Err::<(), _>(out_of_ports())
        });
        assert!(result.is_err_and(|error| is_out_of_ports(&error)));
        assert_eq!(tried, 2);
        let refused = io::ErrorKind::ConnectionRefused;
        let mut tried = 0;
        let result = sources.in_turn(server, |_| {
            tried += 1;
            Err::<(), _>(refused.into())
        });
        assert!(result.is_err_and(|error| error.kind() == refused));
        assert_eq!(tried, 1);
    }

    #[test]
    fn without_any_the_kernel_chooses() {
        let server = "[::1]:80".parse().expect("an address of the test");
        let chosen = Sources::default().in_turn(server, Ok);
        assert_eq!(chosen.expect("no failure"), None);
    }

    #[test]
    fn no_source_of_the_servers_family() {
        let sources = Sources::new(&[address("10.0.0.1")]);
        let server = "[::1]:80".parse().expect("an address of the test");
        let error = sources.in_turn(server, Ok).expect_err("no source");
        assert!(!is_out_of_ports(&error));
    }

    #[test]
    fn addresses_of_other_machines_are_refused() {
        assert!(try_source(address("127.0.0.2")).is_ok());
        let error = try_source(address("192.0.2.1")).expect_err("a documentation address");
        assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable);
    }
}
